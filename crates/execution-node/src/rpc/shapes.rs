//! What blocks, transactions, receipts and logs look like in JSON-RPC: geth's shapes, plus one `tandem`
//! object per block with what Ethereum has no field for.

use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, ReceiptEnvelope, ReceiptWithBloom, Transaction as _,
    transaction::Recovered,
};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{Address, B64, B256, Bloom, Bytes, U64, U256};
use alloy_rpc_types_eth::{Log, Transaction, TransactionReceipt};
use execution::{BlockEnv, Fork, RecoveredTx, StrictAbort, StrictFault, TxEnvelope, TxReceipt};
use serde::{Serialize, Serializer};
use state::{BlockRecord, ExecutedBlock, LogEntry};

/// A transaction as JSON-RPC shows it.
pub(super) type RpcTransaction = Transaction<TxEnvelope>;

/// A receipt as JSON-RPC shows it: Ethereum's, and why a strict transaction was aborted.
#[derive(Clone, Debug)]
pub(super) struct RpcReceipt {
    ethereum: TransactionReceipt<ReceiptEnvelope<Log>>,
    abort: Option<StrictAbort>,
}

impl Serialize for RpcReceipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(abort) = &self.abort else { return self.ethereum.serialize(serializer) };
        AbortedReceipt { ethereum: &self.ethereum, tandem_abort: abort.into() }.serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AbortedReceipt<'a> {
    #[serde(flatten)]
    ethereum: &'a TransactionReceipt<ReceiptEnvelope<Log>>,
    tandem_abort: RpcAbort,
}

/// Why a strict transaction was aborted.
#[derive(Serialize)]
struct RpcAbort {
    reason: String,
    fault: &'static str,
    address: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<B256>,
}

impl From<&StrictAbort> for RpcAbort {
    fn from(abort: &StrictAbort) -> Self {
        let fault = match abort.fault {
            StrictFault::Undeclared => "undeclared",
            StrictFault::ReadOnly => "readOnly",
        };
        let slot = abort.slot.map(B256::from);
        Self { reason: abort.to_string(), fault, address: abort.address, slot }
    }
}

/// A block header as JSON-RPC shows it. `hash`, `miner` and `nonce` are null in the pending block.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RpcHeader {
    hash: Option<B256>,
    parent_hash: B256,
    sha3_uncles: B256,
    miner: Option<Address>,
    state_root: B256,
    transactions_root: B256,
    receipts_root: B256,
    logs_bloom: Bloom,
    difficulty: U64,
    number: U64,
    gas_limit: U64,
    gas_used: U64,
    timestamp: U64,
    extra_data: Bytes,
    mix_hash: B256,
    nonce: Option<B64>,
    base_fee_per_gas: U64,
    withdrawals_root: B256,
    blob_gas_used: U64,
    excess_blob_gas: U64,
    parent_beacon_block_root: B256,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_hash: Option<B256>,
    size: U64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tandem: Option<TandemFields>,
}

/// What Ethereum's header has no field for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TandemFields {
    timestamp_ms: U64,
    view: U64,
    proposer: U64,
}

/// A block as JSON-RPC shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RpcBlock {
    #[serde(flatten)]
    header: RpcHeader,
    uncles: [B256; 0],
    transactions: BlockTransactions,
    withdrawals: [(); 0],
}

/// Hashes or whole transactions.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum BlockTransactions {
    Hashes(Vec<B256>),
    Full(Vec<RpcTransaction>),
}

/// The header of a final block.
pub(super) fn header_of(record: &BlockRecord, fork: Fork) -> RpcHeader {
    RpcHeader {
        hash: Some(record.hash),
        parent_hash: record.parent_hash,
        sha3_uncles: EMPTY_OMMER_ROOT_HASH,
        miner: Some(record.fee_recipient),
        state_root: record.state_hash,
        transactions_root: record.payload_commitment,
        receipts_root: record.receipts_hash,
        logs_bloom: record.logs_bloom,
        difficulty: U64::ZERO,
        number: U64::from(record.height),
        gas_limit: U64::from(record.gas_limit),
        gas_used: U64::from(record.gas_used),
        timestamp: U64::from(record.timestamp_ms / 1_000),
        extra_data: Bytes::new(),
        mix_hash: record.prevrandao,
        nonce: Some(B64::ZERO),
        base_fee_per_gas: U64::from(record.base_fee),
        withdrawals_root: EMPTY_ROOT_HASH,
        blob_gas_used: U64::ZERO,
        excess_blob_gas: U64::ZERO,
        parent_beacon_block_root: B256::ZERO,
        requests_hash: (fork >= Fork::Prague).then_some(EMPTY_REQUESTS_HASH),
        size: U64::from(record.size),
        tandem: Some(TandemFields {
            timestamp_ms: U64::from(record.timestamp_ms),
            view: U64::from(record.view.get()),
            proposer: U64::from(record.proposer.get()),
        }),
    }
}

/// The header of the block that would come next; what only consensus can tell is null or zero.
pub(super) fn pending_header(parent: &BlockRecord, env: &BlockEnv, fork: Fork) -> RpcHeader {
    RpcHeader {
        hash: None,
        parent_hash: parent.hash,
        miner: None,
        nonce: None,
        state_root: B256::ZERO,
        transactions_root: B256::ZERO,
        receipts_root: B256::ZERO,
        logs_bloom: Bloom::ZERO,
        number: U64::from(env.height),
        gas_limit: U64::from(env.gas_limit),
        gas_used: U64::ZERO,
        timestamp: U64::from(env.timestamp_ms / 1_000),
        mix_hash: env.prevrandao,
        base_fee_per_gas: U64::from(env.base_fee),
        size: U64::ZERO,
        tandem: None,
        ..header_of(parent, fork)
    }
}

/// A final block with the hashes of its transactions.
pub(super) fn block_with_hashes(record: &BlockRecord, hashes: Vec<B256>, fork: Fork) -> RpcBlock {
    block(header_of(record, fork), BlockTransactions::Hashes(hashes))
}

/// A final block with its whole transactions.
pub(super) fn block_with_transactions(
    record: &BlockRecord,
    transactions: &[RecoveredTx],
    fork: Fork,
) -> RpcBlock {
    let numbered = transactions.iter().enumerate();
    let full = numbered.map(|(index, tx)| mined_transaction(tx, record, index as u64)).collect();
    block(header_of(record, fork), BlockTransactions::Full(full))
}

/// The pending block. It lists no transactions: which ones come next is up to the next proposer.
pub(super) fn pending_block(header: RpcHeader, full: bool) -> RpcBlock {
    let none = if full { BlockTransactions::Full(Vec::new()) } else { BlockTransactions::Hashes(Vec::new()) };
    block(header, none)
}

fn block(header: RpcHeader, transactions: BlockTransactions) -> RpcBlock {
    RpcBlock { header, uncles: [], transactions, withdrawals: [] }
}

/// A transaction of a final block.
pub(super) fn mined_transaction(
    transaction: &RecoveredTx,
    record: &BlockRecord,
    index: u64,
) -> RpcTransaction {
    let envelope = transaction.envelope().clone();
    Transaction {
        effective_gas_price: Some(envelope.effective_gas_price(Some(record.base_fee))),
        inner: Recovered::new_unchecked(envelope, transaction.sender()),
        block_hash: Some(record.hash),
        block_number: Some(record.height),
        transaction_index: Some(index),
        block_timestamp: Some(record.timestamp_ms / 1_000),
    }
}

/// A transaction of the pool: block fields are null, the price is the most it may pay.
pub(super) fn pooled_transaction(transaction: &RecoveredTx) -> RpcTransaction {
    let envelope = transaction.envelope().clone();
    Transaction {
        effective_gas_price: Some(envelope.max_fee_per_gas()),
        inner: Recovered::new_unchecked(envelope, transaction.sender()),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        block_timestamp: None,
    }
}

/// All receipts of a block.
pub(super) fn receipts_of(block: &ExecutedBlock) -> Vec<RpcReceipt> {
    let numbered = block.receipts.iter().enumerate();
    numbered.map(|(index, receipt)| receipt_of(receipt, &block.record, index as u64)).collect()
}

/// The receipt of transaction `index`.
pub(super) fn receipt_of(receipt: &TxReceipt, record: &BlockRecord, index: u64) -> RpcReceipt {
    let numbered = receipt.logs().iter().enumerate();
    let logs = numbered.map(|(at, log)| log_of_receipt(log, at as u64, receipt, record, index));
    let shown = ReceiptWithBloom {
        receipt: alloy_consensus::Receipt {
            status: receipt.succeeded().into(),
            cumulative_gas_used: receipt.cumulative_gas_used(),
            logs: logs.collect(),
        },
        logs_bloom: *receipt.bloom(),
    };
    let ethereum = TransactionReceipt {
        inner: ReceiptEnvelope::from_typed(receipt.envelope.tx_type(), shown),
        transaction_hash: receipt.tx_hash,
        transaction_index: Some(index),
        block_hash: Some(record.hash),
        block_number: Some(record.height),
        gas_used: receipt.gas_used,
        effective_gas_price: receipt.effective_gas_price,
        blob_gas_used: None,
        blob_gas_price: None,
        from: receipt.from,
        to: receipt.to,
        contract_address: receipt.contract_address,
    };
    RpcReceipt { ethereum, abort: receipt.abort }
}

/// The log at position `at` of the receipt of transaction `index`.
pub(super) fn log_of_receipt(
    log: &alloy_primitives::Log,
    at: u64,
    receipt: &TxReceipt,
    record: &BlockRecord,
    index: u64,
) -> Log {
    Log {
        inner: log.clone(),
        block_hash: Some(record.hash),
        block_number: Some(record.height),
        block_timestamp: Some(record.timestamp_ms / 1_000),
        transaction_hash: Some(receipt.tx_hash),
        transaction_index: Some(index),
        log_index: Some(receipt.first_log_index.saturating_add(at)),
        removed: false,
    }
}

/// A found log.
pub(super) fn log_of_entry(entry: LogEntry) -> Log {
    Log {
        inner: entry.log,
        block_hash: Some(entry.block_hash),
        block_number: Some(entry.height),
        block_timestamp: Some(entry.timestamp_ms / 1_000),
        transaction_hash: Some(entry.tx_hash),
        transaction_index: Some(entry.tx_index.into()),
        log_index: Some(entry.log_index),
        removed: false,
    }
}

/// One line per pooled transaction, as `txpool_inspect` prints it.
pub(super) fn summary_of(transaction: &RecoveredTx) -> String {
    let envelope = transaction.envelope();
    let (value, gas, price): (U256, u64, u128) =
        (envelope.value(), envelope.gas_limit(), envelope.max_fee_per_gas());
    match envelope.to() {
        Some(to) => format!("{to}: {value} wei + {gas} gas × {price} wei"),
        None => format!("contract creation: {value} wei + {gas} gas × {price} wei"),
    }
}
