//! What a case can come to.

use alloy_primitives::{Address, B256};
use types::limits::TRANSACTION_BYTES_MAX;

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
        /// Whether it was built and replayed too: false if it touches more than a payload can declare.
        replayed: bool,
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
    /// Ethereum burns the fee of a recipient that the same transaction destroys. Here the fees of a block are credited
    /// after its last transaction, so they arrive. All else is as expected.
    #[error("fee recipient destroyed by the transaction that pays it")]
    DestroyedFeeRecipient,
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
        expected: Address,
        /// The recovered one.
        actual: Address,
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
    /// Another way to run the block gave another outcome.
    #[error("{way} gives other {what} than the oracle")]
    Differs {
        /// Which way.
        way: &'static str,
        /// What differs.
        what: &'static str,
    },
    /// The executor panicked.
    #[error("executor panicked: {0}")]
    Panicked(String),
}

fn listed(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n      {line}")).collect()
}
