//! Finalized blocks as they are stored and served.

use crate::{
    StateError,
    rows::{self, Table},
};
use alloy_consensus::TxType;
use alloy_primitives::{Address, B256, Bloom, Bytes, Log};
use borsh::{BorshDeserialize, BorshSerialize};
use execution::{RecoveredTx, StrictAbort, StrictFault, TxReceipt};
use std::sync::Arc;
use types::{Validator, ValidatorIndex, View};

/// What JSON-RPC tells about a block, apart from its transactions.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockRecord {
    /// Height.
    pub height: u64,
    /// Consensus block hash.
    pub hash: B256,
    /// Parent's block hash.
    pub parent_hash: B256,
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
    /// View it was proposed in.
    pub view: View,
    /// Who proposed it.
    pub proposer: ValidatorIndex,
    /// Account that earned its priority fees.
    pub fee_recipient: Address,
    /// Gas limit.
    pub gas_limit: u64,
    /// Gas used.
    pub gas_used: u64,
    /// Base fee in wei per gas.
    pub base_fee: u64,
    /// The EVM's PREVRANDAO.
    pub prevrandao: B256,
    /// Union of the receipts' blooms.
    pub logs_bloom: Bloom,
    /// Digest of the state after it.
    pub state_hash: B256,
    /// Root over its receipts.
    pub receipts_hash: B256,
    /// Root over its payload.
    pub payload_commitment: B256,
    /// Encoded payload in bytes.
    pub size: u64,
    /// Number of transactions.
    pub transaction_count: u32,
}

/// A block with its transactions and receipts, both in canonical order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutedBlock {
    /// The block.
    pub record: BlockRecord,
    /// Its transactions.
    pub transactions: Vec<RecoveredTx>,
    /// Their receipts.
    pub receipts: Vec<TxReceipt>,
    /// At the last block of an epoch: the validators of the epoch after the next one.
    pub next_validators: Option<Arc<Vec<Validator>>>,
    /// Lanes and access sets: [`execution::Payload::into_outline`].
    pub outline: Bytes,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxLocation {
    /// Height of its block.
    pub height: u64,
    /// Position in it.
    pub index: u32,
}

/// A receipt on disk. The bloom is left out: it follows from the logs.
#[derive(BorshSerialize, BorshDeserialize)]
struct ReceiptRow {
    kind: u8,
    succeeded: bool,
    cumulative_gas_used: u64,
    gas_used: u64,
    effective_gas_price: u128,
    first_log_index: u64,
    tx_hash: B256,
    from: Address,
    to: Option<Address>,
    contract_address: Option<Address>,
    logs: Vec<LogRow>,
    abort: Option<AbortRow>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct AbortRow {
    fault: u8,
    address: Address,
    slot: Option<B256>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct LogRow {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
}

const TOPICS_MAX: usize = 4;

pub(crate) fn write_transactions(transactions: &[RecoveredTx]) -> Vec<u8> {
    let item = |tx: &RecoveredTx| [tx.sender().as_slice(), tx.encoded()].concat();
    rows::write_table(&transactions.iter().map(item).collect::<Vec<_>>())
}

pub(crate) fn read_transaction(item: Bytes) -> Result<RecoveredTx, StateError> {
    if item.len() < 20 {
        return Err(StateError::corrupt("transaction", format!("{} bytes", item.len())));
    }
    RecoveredTx::from_stored(item.slice(20..), Address::from_slice(&item[..20]))
        .map_err(|error| StateError::corrupt("transaction", error))
}

pub(crate) fn write_receipts(receipts: &[TxReceipt]) -> Vec<u8> {
    rows::write_table(&receipts.iter().map(write_receipt).collect::<Vec<_>>())
}

fn write_receipt(receipt: &TxReceipt) -> Vec<u8> {
    let log_row = |log: &Log| LogRow {
        address: log.address,
        topics: log.topics().to_vec(),
        data: log.data.data.clone(),
    };
    rows::write(&ReceiptRow {
        kind: receipt.envelope.tx_type() as u8,
        succeeded: receipt.succeeded(),
        cumulative_gas_used: receipt.cumulative_gas_used(),
        gas_used: receipt.gas_used,
        effective_gas_price: receipt.effective_gas_price,
        first_log_index: receipt.first_log_index,
        tx_hash: receipt.tx_hash,
        from: receipt.from,
        to: receipt.to,
        contract_address: receipt.contract_address,
        logs: receipt.logs().iter().map(log_row).collect(),
        abort: receipt.abort.map(|abort| AbortRow {
            fault: abort.fault as u8,
            address: abort.address,
            slot: abort.slot.map(B256::from),
        }),
    })
}

pub(crate) fn read_receipt(item: &[u8]) -> Result<TxReceipt, StateError> {
    let row: ReceiptRow = rows::read("receipt", item)?;
    let kind = TxType::try_from(row.kind).map_err(|error| StateError::corrupt("receipt", error))?;
    let logs = row.logs.into_iter().map(read_log).collect::<Result<Vec<_>, _>>()?;
    Ok(TxReceipt {
        envelope: TxReceipt::envelope(kind, row.succeeded, row.cumulative_gas_used, logs),
        tx_hash: row.tx_hash,
        from: row.from,
        to: row.to,
        contract_address: row.contract_address,
        gas_used: row.gas_used,
        effective_gas_price: row.effective_gas_price,
        first_log_index: row.first_log_index,
        abort: row.abort.map(read_abort).transpose()?,
    })
}

fn read_abort(row: AbortRow) -> Result<StrictAbort, StateError> {
    let unknown = || StateError::corrupt("receipt", format!("unknown strict fault {}", row.fault));
    let fault = StrictFault::ALL.into_iter().find(|fault| *fault as u8 == row.fault).ok_or_else(unknown)?;
    Ok(StrictAbort { fault, address: row.address, slot: row.slot.map(Into::into) })
}

fn read_log(row: LogRow) -> Result<Log, StateError> {
    let count = row.topics.len();
    Log::new(row.address, row.topics, row.data).ok_or_else(|| {
        StateError::corrupt("log", format!("{count} topics, at most {TOPICS_MAX} are possible"))
    })
}

pub(crate) fn read_transactions(bytes: Bytes) -> Result<Vec<RecoveredTx>, StateError> {
    Table::open("transactions", bytes)?.items().map(|item| read_transaction(item?)).collect()
}

pub(crate) fn read_receipts(bytes: Bytes) -> Result<Vec<TxReceipt>, StateError> {
    Table::open("receipts", bytes)?.items().map(|item| read_receipt(&item?)).collect()
}
