//! Serial block execution: one thread, plain revm. The oracle, kept for ever: every faster executor must give
//! byte-equal receipts, diffs and hashes.

use crate::{
    BlockEnv, BlockOutcome, ExecuteError, InvalidPayload, InvalidPayloadCode, InvalidTx, LtHash,
    PayloadTransactions, RecoveredTx, Rules, StateView,
    evm::{BlockRun, Refusal},
};

/// Executes a payload on its parent's state. `parent` is the digest of that state, `evidence` that of the block's
/// system inputs.
pub fn execute(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    parent: &LtHash,
    transactions: &PayloadTransactions,
    evidence: &[Vec<u8>],
) -> Result<BlockOutcome, ExecuteError> {
    let mut run = BlockRun::new(view, rules, env, evidence)?;
    for (index, transaction) in transactions.iter().enumerate() {
        run.transact(transaction).map_err(|refusal| match refusal {
            Refusal::Invalid(error) => refused(index, transaction, &error).into(),
            Refusal::View(error) => ExecuteError::View(error),
        })?;
    }
    Ok(run.close()?.seal(parent))
}

fn refused(index: usize, transaction: &RecoveredTx, error: &InvalidTx) -> InvalidPayload {
    let code = match error {
        InvalidTx::BlockGasExceeded { .. } => InvalidPayloadCode::GasLimit,
        _ => InvalidPayloadCode::InvalidTransaction,
    };
    InvalidPayload { code, index: Some(index), reason: format!("{}: {error}", transaction.hash()) }
}
