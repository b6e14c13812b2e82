//! Building a payload: selection and execution in one pass.

use crate::{
    BlockEnv, BlockOutcome, ExecuteError, InvalidPayload, InvalidPayloadCode, InvalidTx, LtHash, Payload,
    PayloadTransactions, RecoveredTx, Rules, SegmentPlan, StateView, ViewError, evm::Refusal, run::BlockRun,
};
use alloy_primitives::B256;
use types::limits::PAYLOAD_BYTES_MAX;

/// How much a payload may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// Encoded bytes.
    pub bytes: u64,
    /// Gas; the block's gas limit applies too.
    pub gas: u64,
    /// Objects in the table.
    pub objects: u64,
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

/// Encoded bytes of a payload before its first transaction.
const PAYLOAD_OVERHEAD: u64 = 16;
/// Encoded bytes of a transaction beside its own and its access set.
const TRANSACTION_OVERHEAD: u64 = 6;
/// Encoded bytes of an object and of a reference to it, at most.
const OBJECT_BYTES: u64 = 60;
/// Least gas of any transaction: with less left the block is full.
const GAS_MIN: u64 = 21_000;

/// Executes `candidates` in order, leaving out those that fail validation or do not fit, until they end, the
/// block is full, or `stop` says that time is up (asked before every candidate).
///
/// A candidate the EVM itself fails on is left out as well; only unreadable state and evidence that makes every block
/// with it invalid end the build with an error.
#[allow(clippy::too_many_arguments)]
pub fn build(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    parent: &LtHash,
    limits: BuildLimits,
    evidence: &[Vec<u8>],
    candidates: impl IntoIterator<Item = RecoveredTx>,
    mut stop: impl FnMut() -> bool,
) -> Result<BuiltBlock, ExecuteError> {
    let bytes_max = limits.bytes.min(PAYLOAD_BYTES_MAX as u64);
    let gas_reserved = env.gas_limit.saturating_sub(limits.gas);
    let mut run = BlockRun::new(view, rules, env, evidence)?;
    let (mut bytes, mut included, mut skipped) = (PAYLOAD_OVERHEAD, Vec::new(), Vec::new());
    for candidate in candidates {
        let gas_left = run.gas_left().saturating_sub(gas_reserved);
        if gas_left < GAS_MIN || stop() {
            break;
        }
        let length = TRANSACTION_OVERHEAD + candidate.encoded().len() as u64;
        let reason = match () {
            () if bytes + length > bytes_max => Some(None),
            () if candidate.gas_limit() > gas_left => Some(Some(InvalidTx::BlockGasExceeded {
                gas_limit: candidate.gas_limit(),
                available: gas_left,
            })),
            () => match run.transact(&candidate) {
                Ok(set) => {
                    bytes += length + OBJECT_BYTES * set.len() as u64;
                    included.push((candidate.clone(), set));
                    None
                }
                Err(Refusal::Invalid(error)) => Some(Some(error)),
                Err(Refusal::Evm(reason) | Refusal::State(ViewError::Evm(reason))) => {
                    Some(Some(InvalidTx::Other(reason)))
                }
                Err(Refusal::State(error)) => return Err(error.into()),
            },
        };
        if let Some(reason) = reason {
            skipped.push(SkippedTx { hash: candidate.hash(), reason });
        }
    }
    let transactions: Vec<_> = included.iter().map(|(tx, set)| (tx.encoded().clone(), set.clone())).collect();
    let lanes = match transactions.is_empty() {
        true => Vec::new(),
        false => vec![vec![SegmentPlan { taken: Vec::new(), transactions }]],
    };
    let payload = Payload::new(lanes).map_err(|error| InvalidPayload {
        code: InvalidPayloadCode::Encoding,
        index: None,
        reason: error.to_string(),
    })?;
    let payload = payload.encode();
    let block = run.close()?;
    let (commitment, outcome) = rayon::join(|| Payload::commitment(&payload), || block.seal(parent));
    let transactions = PayloadTransactions::single_lane(included.into_iter().map(|(tx, _)| tx).collect());
    Ok(BuiltBlock { commitment, payload, transactions, outcome, skipped })
}
