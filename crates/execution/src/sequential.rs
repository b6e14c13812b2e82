//! Serial block execution: one thread, plain revm. The oracle, kept for ever: every faster executor must give
//! byte-equal receipts, diffs and hashes.

use crate::{BlockEnv, BlockOutcome, ExecuteError, LtHash, PayloadTransactions, Rules, StateView, ViewError};

/// Executes a payload on its parent's state. `parent` is the digest of that state.
pub fn execute(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    parent: &LtHash,
    transactions: &PayloadTransactions,
) -> Result<BlockOutcome, ExecuteError> {
    let _ = (view, rules, env, parent, transactions);
    Err(ViewError::Evm("execution is not implemented yet".into()).into())
}
