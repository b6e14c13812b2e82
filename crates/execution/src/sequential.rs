//! Serial block execution: one thread, plain revm. The oracle, kept for ever: every faster executor must give
//! byte-equal receipts, diffs and hashes.

use crate::{
    AccessSet, BlockEnv, BlockOutcome, ExecuteError, InvalidPayload, InvalidPayloadCode, InvalidTx, LtHash,
    Object, Payload, PayloadTransactions, RecoveredTx, Rules, Segment, StateView, ViewError, evm::Refusal,
    run::BlockRun,
};
use std::collections::{BTreeMap, BTreeSet};

/// Executes transactions in canonical order on their parent's state. `parent` is the digest of that state, `evidence`
/// that of the block's system inputs.
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
        step(&mut run, env, index, transaction)?;
    }
    Ok(run.close()?.seal(parent))
}

/// [`execute`], and then whether what the payload claims is true: by definition, serially, and slowly. What
/// [`crate::replay`] accepts and refuses must be what this does.
pub fn verify(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    parent: &LtHash,
    payload: &Payload,
    transactions: &PayloadTransactions,
    evidence: &[Vec<u8>],
) -> Result<BlockOutcome, ExecuteError> {
    let mut run = BlockRun::new(view, rules, env, evidence)?;
    let mut index = 0;
    let mut touched: Vec<Vec<AccessSet>> = Vec::new();
    for (lane, plan) in payload.lanes.iter().enumerate() {
        let mut sets = Vec::new();
        // What the lane's earlier segments wrote, with the code it had before the block.
        let mut written = BTreeSet::new();
        let mut transactions = transactions.lanes.get(lane).map_or(&[][..], Vec::as_slice).iter();
        for segment in &plan.segments {
            check_taken(view, &mut run, payload, segment, &written)?;
            for planned in &segment.transactions {
                let transaction = transactions.next().ok_or_else(|| lost(lane))?;
                let set = step(&mut run, env, index, transaction)?;
                compare(index, &payload.access_set(planned), &set)?;
                sets.push(set);
                index += 1;
            }
            written.extend(sets.iter().flatten().filter(|access| access.written).map(|access| access.object));
        }
        touched.push(sets);
    }
    check_independence(&touched)?;
    Ok(run.close()?.seal(parent))
}

fn step(
    run: &mut BlockRun<'_>,
    env: &BlockEnv,
    index: usize,
    transaction: &RecoveredTx,
) -> Result<AccessSet, ExecuteError> {
    let set = run.transact(transaction).map_err(|refusal| match refusal {
        Refusal::Invalid(error) => refused(index, transaction, &error).into(),
        Refusal::State(error) => ExecuteError::View(error),
        Refusal::Evm(reason) => ViewError::Evm(reason).into(),
    })?;
    if run.gas_used() > env.gas_limit {
        return Err(InvalidPayload::too_much_gas(env.gas_limit).into());
    }
    Ok(set)
}

fn refused(index: usize, transaction: &RecoveredTx, error: &InvalidTx) -> InvalidPayload {
    let code = match error {
        InvalidTx::BlockGasExceeded { .. } => InvalidPayloadCode::GasLimit,
        _ => InvalidPayloadCode::InvalidTransaction,
    };
    InvalidPayload { code, index: Some(index), reason: format!("{}: {error}", transaction.hash()) }
}

fn lost(lane: usize) -> ViewError {
    ViewError::Evm(format!("lane {lane} has lost transactions on the way"))
}

fn invalid(code: InvalidPayloadCode, index: Option<usize>, reason: String) -> ExecuteError {
    InvalidPayload { code, index, reason }.into()
}

fn compare(index: usize, declared: &AccessSet, actual: &AccessSet) -> Result<(), ExecuteError> {
    let undeclared = actual
        .iter()
        .find(|access| declared.get(&access.object).is_none_or(|written| access.written && !written));
    if let Some(access) = undeclared {
        let reason = format!("undeclared: {access:?}");
        return Err(invalid(InvalidPayloadCode::UndeclaredAccess, Some(index), reason));
    }
    match declared == actual {
        true => Ok(()),
        false => Err(invalid(
            InvalidPayloadCode::UnusedEntry,
            Some(index),
            format!("declared {declared:?}, touched {actual:?}"),
        )),
    }
}

fn check_taken(
    view: &dyn StateView,
    run: &mut BlockRun<'_>,
    payload: &Payload,
    segment: &Segment,
    written: &BTreeSet<Object>,
) -> Result<(), ExecuteError> {
    let object = |index: u32| payload.objects[index as usize].object;
    let touched =
        segment.transactions.iter().flat_map(|tx| payload.access(tx)).map(|entry| object(entry.object));
    let needed: BTreeSet<Object> = touched.filter(|object| written.contains(object)).collect();
    let listed: BTreeMap<_, _> =
        segment.taken.iter().map(|(index, value)| (object(*index), *value)).collect();
    let wrong = |reason: String| invalid(InvalidPayloadCode::SegmentValue, None, reason);
    if !needed.iter().eq(listed.keys()) {
        return Err(wrong(format!("needs {needed:?}, lists {listed:?}")));
    }
    for (object, value) in listed {
        let actual = run.state().value(&object)?;
        if actual != value {
            return Err(wrong(format!("{object} is {actual:?}, listed {value:?}")));
        }
        let code = |info: Option<crate::AccountInfo>| info.unwrap_or_default().code_hash;
        if object.slot.is_none() && code(view.account(object.address)?) != code(actual.account()) {
            return Err(wrong(format!("{object} has other code than before the block")));
        }
    }
    Ok(())
}

fn check_independence(lanes: &[Vec<AccessSet>]) -> Result<(), ExecuteError> {
    let union = |sets: &Vec<AccessSet>| AccessSet::new(sets.iter().flatten().copied().collect());
    let lanes: Vec<AccessSet> = lanes.iter().map(union).collect();
    for (number, lane) in lanes.iter().enumerate() {
        if let Some(other) = lanes[..number].iter().position(|other| other.conflicts_with(lane)) {
            let reason = format!("lanes {other} and {number} conflict");
            return Err(invalid(InvalidPayloadCode::FalseIndependence, None, reason));
        }
    }
    Ok(())
}
