//! Runs one case: its transaction as a block of this chain.

use crate::{
    Case, Env, Failure, Passed, Quantity, Skip, Verdict, WorldState, reasons,
    transaction::{self, NoTransaction},
};
use alloy_eips::{eip2935::HISTORY_STORAGE_ADDRESS, eip4788::BEACON_ROOTS_ADDRESS, eip7840::BlobParams};
use alloy_primitives::{B256, Bytes, Log, U256, keccak256};
use execution::{
    AccountInfo, BlockEnv, BlockOutcome, BuildLimits, BuiltBlock, ExecuteError, Fork, OBJECTS_MAX, Payload,
    PayloadTransactions, RecoveredTx, Rules, StateView, recover_payload,
};
use serde_json::json;
use std::fmt;
use types::{
    Genesis,
    limits::{PAYLOAD_BYTES_MAX, TRANSACTION_BYTES_MAX},
};

/// Base fee of fixtures that name none.
const DEFAULT_BASE_FEE: u64 = 10;
/// Slots of the ring buffers in the beacon roots contract (EIP-4788).
const BEACON_ROOTS_RING: u64 = 8191;
/// Lines that tell where a state differs.
const DIFFERENCES_MAX: usize = 12;

/// Runs a case through [`execution::execute`], and then through the builder and the replay that must agree with it.
pub fn run(case: &Case<'_>) -> Verdict {
    match prepare(case) {
        Ok(prepared) => prepared.verdict(case),
        Err(verdict) => verdict,
    }
}

/// A case as this chain sees it.
struct Prepared {
    rules: Rules,
    env: BlockEnv,
    pre: WorldState,
    transaction: Result<Bytes, String>,
}

fn prepare(case: &Case<'_>) -> Result<Prepared, Verdict> {
    let fork = supported(case.fork).ok_or_else(|| skip(Skip::Fork(case.fork.into())))?;
    if transaction::has_blobs(&case.fixture.transaction) {
        return Err(skip(Skip::Blobs));
    }
    if blob_base_fee(fork, &case.fixture.env) != Some(1) {
        return Err(skip(Skip::BlobBaseFee));
    }
    let pre = WorldState::new(&case.fixture.pre)
        .map_err(|address| malformed(format!("nonce of {address} is beyond 64 bits")))?;
    pre.possible().map_err(skip)?;
    let env = block_env(&case.fixture.env).map_err(skip)?;
    if fork >= Fork::Prague && env.height > 0 && pre.has_code(&HISTORY_STORAGE_ADDRESS) {
        return Err(skip(Skip::HistoryContract));
    }
    let chain_id = case.fixture.config.chainid.to_u64().ok_or_else(|| skip(Skip::Environment("chain id")))?;
    let transaction = match transaction::encoded(case, chain_id) {
        Ok(bytes) if bytes.len() > TRANSACTION_BYTES_MAX => return Err(skip(Skip::TransactionTooLong)),
        Ok(bytes) => Ok(bytes),
        Err(NoTransaction::Impossible(reason)) => Err(reason),
        Err(NoTransaction::TooLong) => return Err(skip(Skip::TransactionTooLong)),
        Err(NoTransaction::Unsigned) => return Err(skip(Skip::Unsigned)),
        Err(NoTransaction::Malformed(reason)) => return Err(malformed(reason)),
    };
    let rules = rules(fork, chain_id, env.gas_limit).map_err(malformed)?;
    Ok(Prepared { rules, env, pre, transaction })
}

fn skip(skip: Skip) -> Verdict {
    Verdict::Skipped(skip)
}

fn malformed(reason: String) -> Verdict {
    Verdict::Failed(Failure::Malformed(reason))
}

fn supported(name: &str) -> Option<Fork> {
    Fork::ALL.into_iter().find(|fork| fork.name() == name.to_ascii_lowercase())
}

fn blob_base_fee(fork: Fork, env: &Env) -> Option<u128> {
    let params = match fork {
        Fork::Cancun => BlobParams::cancun(),
        Fork::Prague => BlobParams::prague(),
        Fork::Osaka => BlobParams::osaka(),
    };
    // Above 2^32 the fee is beyond any number; the formula's loop must not be fed with it.
    let excess = env.current_excess_blob_gas.unwrap_or_default().to_u64()?;
    u32::try_from(excess).ok().map(|excess| params.calc_blob_fee(u64::from(excess)))
}

fn block_env(env: &Env) -> Result<BlockEnv, Skip> {
    let word = |quantity: Quantity, name| quantity.to_u64().ok_or(Skip::Environment(name));
    let base_fee = env.current_base_fee.unwrap_or(Quantity(U256::from(DEFAULT_BASE_FEE)));
    let seconds = word(env.current_timestamp, "timestamp")?;
    let random = env.current_random.or(env.current_difficulty).unwrap_or_default();
    Ok(BlockEnv {
        height: word(env.current_number, "number")?,
        timestamp_ms: seconds.checked_mul(1000).ok_or(Skip::Environment("timestamp"))?,
        prevrandao: B256::from(random.0),
        fee_recipient: env.current_coinbase,
        gas_limit: word(env.current_gas_limit, "gas limit")?,
        base_fee: word(base_fee, "base fee")?,
    })
}

/// A chain without validators on which `fork` is active from the start.
fn rules(fork: Fork, chain_id: u64, gas_limit: u64) -> Result<Rules, String> {
    let genesis: Genesis = serde_json::from_value(json!({
        "config": { "chainId": chain_id },
        "gasLimit": format!("{gas_limit:#x}"),
        "alloc": {},
        "tandem": { "validators": [], "forks": { fork.name(): 0 } },
    }))
    .map_err(|error| format!("no genesis for the case: {error}"))?;
    Rules::from_genesis(&genesis).map_err(|error| format!("no rules for the case: {error}"))
}

impl Prepared {
    fn verdict(self, case: &Case<'_>) -> Verdict {
        match self.judge(case) {
            Verdict::Failed(failure @ Failure::Root { .. }) => {
                self.judge_with_beacon_root(case).unwrap_or(Verdict::Failed(failure))
            }
            verdict => verdict,
        }
    }

    /// Some fixtures were filled as blocks of Ethereum: where the beacon roots contract is deployed, their state holds
    /// what a block writes there before its transactions (EIP-4788), with a beacon root of zero. This chain has no
    /// beacon chain. Such a case is run once more on a pre-state with that write; its root must then be exact.
    fn judge_with_beacon_root(mut self, case: &Case<'_>) -> Option<Verdict> {
        if !self.pre.has_code(&BEACON_ROOTS_ADDRESS) {
            return None;
        }
        let seconds = self.env.timestamp_ms / 1000;
        self.pre.set_slot(BEACON_ROOTS_ADDRESS, seconds % BEACON_ROOTS_RING, seconds);
        match self.judge(case) {
            Verdict::Passed(Passed::Executed { gas_used, succeeded, replayed, .. }) => {
                Some(Verdict::Passed(Passed::Executed { gas_used, succeeded, replayed, beacon_root: true }))
            }
            _ => None,
        }
    }

    /// Whether the fee recipient holds nothing but this transaction's fee, and is all that should not exist.
    fn is_burned_fee(&self, case: &Case<'_>, outcome: &BlockOutcome) -> bool {
        let recipient = self.env.fee_recipient;
        let tips = outcome.receipts.iter().map(|receipt| {
            let tip = receipt.effective_gas_price.saturating_sub(u128::from(self.env.base_fee));
            U256::from(tip).saturating_mul(U256::from(receipt.gas_used))
        });
        let fees = tips.fold(U256::ZERO, U256::saturating_add);
        let only_fees = AccountInfo { balance: fees, ..Default::default() };
        let mut post = self.pre.clone();
        post.apply(&outcome.diff).is_ok()
            && !fees.is_zero()
            && post.account(recipient) == Ok(Some(only_fees))
            && post.without(&recipient).root() == case.post.hash
    }

    fn judge(&self, case: &Case<'_>) -> Verdict {
        let expected = case.post.expect_exception.as_deref();
        match (self.execute(case), expected) {
            (Ok((transaction, outcome)), None) => match self.compare(case, &transaction, &outcome) {
                Ok(passed) => Verdict::Passed(passed),
                Err(Failure::Root { .. }) if self.is_burned_fee(case, &outcome) => {
                    skip(Skip::DestroyedFeeRecipient)
                }
                Err(failure) => Verdict::Failed(failure),
            },
            (Ok(_), Some(expected)) => Verdict::Failed(Failure::NotRefused { expected: expected.into() }),
            (Err(Stopped::Refused(reason)), Some(expected)) => {
                let same_reason = reasons::agree(expected, &reason);
                Verdict::Passed(Passed::Refused { reason, same_reason })
            }
            (Err(Stopped::Refused(reason)), None) => Verdict::Failed(Failure::Refused(reason)),
            (Err(Stopped::Failed(failure)), _) => Verdict::Failed(failure),
        }
    }

    /// What the oracle does with a block's only transaction: decode, recover, execute.
    fn execute(&self, case: &Case<'_>) -> Result<(RecoveredTx, BlockOutcome), Stopped> {
        let bytes = self.transaction.clone().map_err(Stopped::Refused)?;
        let transaction =
            RecoveredTx::from_bytes(bytes).map_err(|error| Stopped::Refused(error.to_string()))?;
        if let Some(expected) = case.fixture.transaction.sender
            && case.post.expect_exception.is_none()
            && expected != transaction.sender()
        {
            return Err(Stopped::Failed(Failure::Sender { expected, actual: transaction.sender() }));
        }
        let parent = self.pre.digest(self.rules.chain_id());
        let block = PayloadTransactions::single_lane(vec![transaction.clone()]);
        match execution::execute(&self.pre, &self.rules, &self.env, &parent, &block, &[]) {
            Ok(outcome) => Ok((transaction, outcome)),
            Err(ExecuteError::Invalid(invalid)) => {
                self.must_not_build(transaction)?;
                Err(Stopped::Refused(invalid.to_string()))
            }
            Err(ExecuteError::View(error)) => Err(failed(error)),
        }
    }

    /// A proposer leaves out what the oracle refuses.
    fn must_not_build(&self, transaction: RecoveredTx) -> Result<(), Stopped> {
        match self.build(transaction)?.transactions.is_empty() {
            true => Ok(()),
            false => Err(failed("the builder includes what the oracle refuses")),
        }
    }

    /// What a proposer and then every validator do: build a payload with its access set, decode and replay it. Both
    /// must give the oracle's outcome, byte for byte. Tells whether the payload had room for the transaction.
    fn replays(&self, transaction: RecoveredTx, oracle: &BlockOutcome) -> Result<bool, Failure> {
        let built = self.build(transaction)?;
        match built.skipped.first() {
            Some(skipped) if skipped.reason.is_none() => return Ok(false),
            Some(skipped) => {
                return Err(Failure::Executor(format!("the builder leaves it out: {skipped:?}")));
            }
            None => {}
        }
        same("builder", &built.outcome, oracle)?;
        let refused =
            |error: &dyn fmt::Display| Failure::Executor(format!("replay refuses what was built: {error}"));
        let payload = Payload::decode(&built.payload).map_err(|error| refused(&error))?;
        let transactions = recover_payload(&payload, |_| None).map_err(|error| refused(&error))?;
        let parent = self.pre.digest(self.rules.chain_id());
        let replayed =
            execution::replay(&self.pre, &self.rules, &self.env, &parent, &payload, &transactions, &[]);
        same("replay", &replayed.map_err(|error| refused(&error))?, oracle)?;
        Ok(true)
    }

    fn build(&self, transaction: RecoveredTx) -> Result<BuiltBlock, Failure> {
        let parent = self.pre.digest(self.rules.chain_id());
        let limits = BuildLimits {
            bytes: PAYLOAD_BYTES_MAX as u64,
            gas: self.env.gas_limit,
            objects: OBJECTS_MAX as u64,
        };
        execution::build(&self.pre, &self.rules, &self.env, &parent, limits, &[], [transaction], || false)
            .map_err(|error| Failure::Executor(format!("the builder failed: {error}")))
    }

    fn compare(
        &self,
        case: &Case<'_>,
        transaction: &RecoveredTx,
        outcome: &BlockOutcome,
    ) -> Result<Passed, Failure> {
        let [receipt] = outcome.receipts.as_slice() else {
            return Err(Failure::Executor(format!(
                "{} receipts for one transaction",
                outcome.receipts.len()
            )));
        };
        let mut post = self.pre.clone();
        post.apply(&outcome.diff).map_err(|address| {
            Failure::Executor(format!("diff has a slot of account {address}, which does not exist"))
        })?;
        compare_root(case, &post)?;
        compare_logs(case, receipt.logs())?;
        let computed = post.digest(self.rules.chain_id()).state_hash();
        if computed != outcome.state_hash {
            return Err(Failure::Digest { running: outcome.state_hash, computed });
        }
        self.rules
            .check_stateless(self.env.height, transaction)
            .map_err(|refusal| Failure::PoolCheck(refusal.to_string()))?;
        let replayed = self.replays(transaction.clone(), outcome)?;
        let (gas_used, succeeded) = (outcome.gas_used, receipt.succeeded());
        Ok(Passed::Executed { gas_used, succeeded, replayed, beacon_root: false })
    }
}

/// Why there is no outcome.
enum Stopped {
    Refused(String),
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn failed(reason: impl fmt::Display) -> Stopped {
    Stopped::Failed(Failure::Executor(reason.to_string()))
}

fn same(way: &'static str, outcome: &BlockOutcome, oracle: &BlockOutcome) -> Result<(), Failure> {
    let differs = |what| Err(Failure::Differs { way, what });
    if outcome.diff != oracle.diff {
        return differs("changes");
    }
    if outcome.receipts != oracle.receipts {
        return differs("receipts");
    }
    match outcome == oracle {
        true => Ok(()),
        false => differs("hashes or sums"),
    }
}

fn compare_root(case: &Case<'_>, post: &WorldState) -> Result<(), Failure> {
    let (expected, actual) = (case.post.hash, post.root());
    if expected == actual {
        return Ok(());
    }
    let state = case.post.state.as_ref().and_then(|state| WorldState::new(state).ok());
    let differences = state.map(|state| post.differences(&state, DIFFERENCES_MAX)).unwrap_or_default();
    Err(Failure::Root { expected, actual, differences })
}

fn compare_logs(case: &Case<'_>, logs: &[Log]) -> Result<(), Failure> {
    let mut encoded = Vec::new();
    alloy_rlp::encode_list(logs, &mut encoded);
    let (expected, actual) = (case.post.logs, keccak256(&encoded));
    match expected == actual {
        true => Ok(()),
        false => Err(Failure::Logs { expected, actual, count: logs.len() }),
    }
}
