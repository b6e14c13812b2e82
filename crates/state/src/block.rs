//! Finalized blocks as they are stored and served.

use alloy_primitives::{Address, B256, Bloom};
use execution::{RecoveredTx, TxReceipt};
use types::{ValidatorIndex, View};

/// What JSON-RPC tells about a block, apart from its transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxLocation {
    /// Height of its block.
    pub height: u64,
    /// Position in it.
    pub index: u32,
}
