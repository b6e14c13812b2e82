//! Runs one case: its transaction as a block of this chain.

use crate::{
    Case, Env, Quantity, WorldState, reasons,
    transaction::{self, NoTransaction},
};
use alloy_eips::{eip2935::HISTORY_STORAGE_ADDRESS, eip4788::BEACON_ROOTS_ADDRESS, eip7840::BlobParams};
use alloy_primitives::{B256, Bytes, Log, U256, keccak256};
use execution::{
    BlockEnv, BlockOutcome, ExecuteError, Fork, Payload, PayloadTransactions, RecoveredTx, Rules,
    recover_payload,
};
use serde_json::json;
use types::{Genesis, limits::TRANSACTION_BYTES_MAX};

/// Base fee of fixtures that name none.
const DEFAULT_BASE_FEE: u64 = 10;
/// Slots of the ring buffers in the beacon roots contract (EIP-4788).
const BEACON_ROOTS_RING: u64 = 8191;
/// Lines that tell where a state differs.
const DIFFERENCES_MAX: usize = 12;

/// What a case came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The executor did what the fixture says.
    Passed(Passed),
    /// The case asks for something this chain does not have.
    Skipped(Skip),
    /// The executor, or the fixture, is wrong.
    Failed(Failure),
}

/// How a case passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// State and logs are the expected ones.
    Executed {
        /// Gas of the transaction.
        gas_used: u64,
        /// Whether it succeeded.
        succeeded: bool,
        /// Whether the fixture's state includes the beacon root that Ethereum writes at the start of a block.
        beacon_root: bool,
    },
    /// The transaction was refused, as expected.
    Refused {
        /// Why.
        reason: String,
        /// Whether the fixture names the same reason; a name that is not known counts as the same.
        same_reason: bool,
    },
}

/// Why a case is no test of this chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Skip {
    /// The fixture's fork.
    #[error("fork {0} is not supported")]
    Fork(String),
    /// EIP-4844.
    #[error("blob transaction")]
    Blobs,
    /// BLOBBASEFEE is always 1.
    #[error("blob base fee is not 1")]
    BlobBaseFee,
    /// EIP-2935: a block writes to it, a state test does not.
    #[error("history contract in the pre-state")]
    HistoryContract,
    /// No account of this chain, nor of Ethereum since the merge, is empty (EIP-7523).
    #[error("empty account in the pre-state")]
    EmptyAccount,
    /// No account of this chain, nor of Ethereum, has storage and has never had code (EIP-7610).
    #[error("storage of an account without code and nonce in the pre-state")]
    StorageAlone,
    /// Above the chain's limit.
    #[error("transaction longer than {TRANSACTION_BYTES_MAX} bytes")]
    TransactionTooLong,
    /// A height, time, gas limit, base fee or chain id that a block of this chain cannot have.
    #[error("{0} beyond what a block can hold")]
    Environment(&'static str),
    /// Neither a signed transaction nor a key.
    #[error("no signed transaction and no key")]
    Unsigned,
    /// A file of another kind.
    #[error("not a state test")]
    OtherKind,
}

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The fixture is not what its format says.
    #[error("fixture is malformed: {0}")]
    Malformed(String),
    /// The state after the block is another one.
    #[error("state root is {actual}, must be {expected}{}", listed(.differences))]
    Root {
        /// The fixture's.
        expected: B256,
        /// The executor's.
        actual: B256,
        /// What differs, if the fixture has the state in full.
        differences: Vec<String>,
    },
    /// The logs are others.
    #[error("hash of the logs is {actual}, must be {expected}; {count} were emitted")]
    Logs {
        /// The fixture's.
        expected: B256,
        /// The executor's.
        actual: B256,
        /// How many logs there were.
        count: usize,
    },
    /// A valid transaction was refused.
    #[error("transaction was refused: {0}")]
    Refused(String),
    /// An invalid transaction was executed.
    #[error("transaction was executed, must be refused: {expected}")]
    NotRefused {
        /// The fixture's reason.
        expected: String,
    },
    /// The transaction recovers to another account.
    #[error("sender is {actual}, must be {expected}")]
    Sender {
        /// The fixture's.
        expected: alloy_primitives::Address,
        /// The recovered one.
        actual: alloy_primitives::Address,
    },
    /// Execution failed for a reason of its own.
    #[error("executor failed: {0}")]
    Executor(String),
    /// The pool would have refused what a block may include.
    #[error("executed, but refused by the check that the pool makes first: {0}")]
    PoolCheck(String),
    /// The running digest is not that of the state.
    #[error("running state digest is {running}, that of the state is {computed}")]
    Digest {
        /// What the block's outcome holds.
        running: B256,
        /// Computed from the whole state.
        computed: B256,
    },
    /// The executor panicked.
    #[error("executor panicked: {0}")]
    Panicked(String),
}

fn listed(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n      {line}")).collect()
}

/// Runs a case through [`execution::execute`].
pub fn run(case: &Case<'_>) -> Verdict {
    match prepare(case) {
        Ok(prepared) => prepared.verdict(case),
        Err(verdict) => verdict,
    }
}

/// A case as this chain sees it.
struct Prepared {
    rules: Rules,
    height: u64,
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
        Err(NoTransaction::Unsigned) => return Err(skip(Skip::Unsigned)),
        Err(NoTransaction::Malformed(reason)) => return Err(malformed(reason)),
    };
    let rules = rules(fork, chain_id, env.gas_limit).map_err(malformed)?;
    Ok(Prepared { rules, height: env.height, env, pre, transaction })
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
            Verdict::Failed(Failure::Root { expected, actual, differences }) => {
                let failure = Failure::Root { expected, actual, differences };
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
            Verdict::Passed(Passed::Executed { gas_used, succeeded, .. }) => {
                Some(Verdict::Passed(Passed::Executed { gas_used, succeeded, beacon_root: true }))
            }
            _ => None,
        }
    }

    fn judge(&self, case: &Case<'_>) -> Verdict {
        let expected = case.post.expect_exception.as_deref();
        match (self.execute(case), expected) {
            (Ok((transaction, outcome)), None) => match self.compare(case, &transaction, &outcome) {
                Ok(passed) => Verdict::Passed(passed),
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

    /// What a validator does with a payload: decode, recover, execute.
    fn execute(&self, case: &Case<'_>) -> Result<(RecoveredTx, BlockOutcome), Stopped> {
        let bytes = self.transaction.clone().map_err(Stopped::Refused)?;
        let payload = Payload::single_lane(vec![bytes]);
        let transactions =
            recover_payload(&payload, |_| None).map_err(|error| Stopped::Refused(error.to_string()))?;
        let transaction = one(&transactions)?;
        if let Some(expected) = case.fixture.transaction.sender
            && case.post.expect_exception.is_none()
            && expected != transaction.sender()
        {
            return Err(Stopped::Failed(Failure::Sender { expected, actual: transaction.sender() }));
        }
        let parent = self.pre.digest(self.rules.chain_id());
        match execution::execute(&self.pre, &self.rules, &self.env, &parent, &transactions, &[]) {
            Ok(outcome) => Ok((transaction, outcome)),
            Err(ExecuteError::Invalid(invalid)) => Err(Stopped::Refused(invalid.to_string())),
            Err(ExecuteError::View(error)) => Err(Stopped::Failed(Failure::Executor(error.to_string()))),
        }
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
            .check_stateless(self.height, transaction)
            .map_err(|refusal| Failure::PoolCheck(refusal.to_string()))?;
        let (gas_used, succeeded) = (outcome.gas_used, receipt.succeeded());
        Ok(Passed::Executed { gas_used, succeeded, beacon_root: false })
    }
}

/// Why there is no outcome.
enum Stopped {
    Refused(String),
    Failed(Failure),
}

fn one(transactions: &PayloadTransactions) -> Result<RecoveredTx, Stopped> {
    let lost = || Stopped::Failed(Failure::Executor("a payload of one transaction decodes to none".into()));
    transactions.iter().next().cloned().ok_or_else(lost)
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
