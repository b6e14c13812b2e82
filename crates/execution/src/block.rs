//! The environment a block runs in and what comes out of it.

use crate::{LtHash, StateDiff, SystemOutcome, TxReceipt};
use alloy_primitives::{Address, B256, Bloom};
use std::sync::Arc;

/// What the EVM sees of a block. The base fee comes from [`crate::Rules::next_base_fee`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEnv {
    /// Height: the EVM's NUMBER.
    pub height: u64,
    /// Milliseconds since 1970; the EVM's TIMESTAMP is its whole seconds.
    pub timestamp_ms: u64,
    /// `system_inputs.randao_mix`: the EVM's PREVRANDAO.
    pub prevrandao: B256,
    /// The EVM's COINBASE: earns the priority fees.
    pub fee_recipient: Address,
    /// Gas limit.
    pub gas_limit: u64,
    /// Base fee in wei per gas.
    pub base_fee: u64,
}

/// Everything a block's execution yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOutcome {
    /// One per transaction, in canonical order.
    pub receipts: Vec<TxReceipt>,
    /// What the block changed.
    pub diff: Arc<StateDiff>,
    /// Running digest of the state after the block.
    pub lthash: LtHash,
    /// `state_hash`: the digest in the header.
    pub state_hash: B256,
    /// `receipts_hash`: the root in the header.
    pub receipts_hash: B256,
    /// Gas of all transactions.
    pub gas_used: u64,
    /// Union of the receipts' blooms.
    pub logs_bloom: Bloom,
    /// Base fee the block ran with.
    pub base_fee: u64,
    /// What happened after the last transaction.
    pub system: SystemOutcome,
}
