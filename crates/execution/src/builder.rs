//! Building a payload: selection and execution in one pass.

use crate::{
    BlockEnv, BlockOutcome, InvalidTx, LtHash, PayloadTransactions, RecoveredTx, Rules, StateView, ViewError,
};
use alloy_primitives::B256;

/// How much a payload may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// Encoded bytes.
    pub bytes: u64,
    /// Gas; the block's gas limit applies too.
    pub gas: u64,
}

/// A candidate that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedTx {
    /// Its hash.
    pub hash: B256,
    /// Why; `None` when there was no room in bytes.
    pub reason: Option<InvalidTx>,
}

/// A payload and what it does.
#[derive(Clone, Debug)]
pub struct BuiltBlock {
    /// The encoded payload.
    pub payload: Vec<u8>,
    /// Its commitment.
    pub commitment: B256,
    /// Its transactions.
    pub transactions: PayloadTransactions,
    /// Its outcome: what [`crate::execute`] gives for it.
    pub outcome: BlockOutcome,
    /// Candidates that were tried and left out.
    pub skipped: Vec<SkippedTx>,
}

/// Executes `candidates` in order, leaving out those that fail validation or do not fit, until they end, the
/// block is full, or `stop` says that time is up (asked before every candidate).
pub fn build(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    parent: &LtHash,
    limits: BuildLimits,
    candidates: impl IntoIterator<Item = RecoveredTx>,
    stop: impl FnMut() -> bool,
) -> Result<BuiltBlock, ViewError> {
    let _ = (view, rules, env, parent, limits, candidates.into_iter(), stop);
    Err(ViewError::Evm("building is not implemented yet".into()))
}
