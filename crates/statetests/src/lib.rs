//! Runs Ethereum's state tests through this chain's executor: the `GeneralStateTests` of ethereum/tests and the
//! `state_tests` of the execution specification's tests, which share one JSON format.
//!
//! A state test is a state, the environment of a block, one transaction and the Merkle Patricia root of the state
//! after it. Each becomes a block of that one transaction for [`execution::execute`], the oracle of this chain, and
//! then for its builder and its replay in lanes, which must give the same bytes: so every case also tests that its
//! access set is complete. Nothing of the executor is replaced or configured for the purpose.
//!
//! # Where a block of this chain is not a state test
//! | difference | what is done |
//! |---|---|
//! | A Tandem block has no Merkle root. | The root is computed here from the pre-state and the block's diff. |
//! | A block writes its parent's hash into the history contract (EIP-2935), a state test does not. | Cases that deploy the contract are skipped and counted. |
//! | No account is empty (EIP-7523), none has storage alone (EIP-7610). | Cases with such an account in the pre-state are skipped and counted. |
//! | Fees are credited after a block's last transaction. | Nothing, but for a fee recipient that is created and destroyed by the transaction: it keeps the fee. Skipped and counted if all else is as expected. |
//! | There is no beacon chain; some fixtures hold the beacon root that a block of Ethereum writes (EIP-4788). | Such a case runs again on a pre-state with that write, and is counted. |
//! | There are no blobs; BLOBBASEFEE is always 1. | Blob transactions, and cases with another blob base fee, are skipped and counted. |
//! | Time is in milliseconds of 64 bits, transactions have at most 128 KiB. | Cases beyond are skipped and counted. |
//! | The base fee follows from the parent. | It is the environment's; the executor is told it in either case. |
//! | BLOCKHASH gives consensus hashes. | The hash of block `n` is the keccak of `n` in decimal digits, as state tests define it. |
//!
//! - [`Fixture`] is the format, [`Case`] one fork and one choice of data, gas and value.
//! - [`run`] gives a case its [`Verdict`].
//! - [`Suite`] finds the files of a folder and runs them in parallel; [`Report`] is what came out.

mod case;
mod fixture;
mod quantity;
mod reasons;
mod report;
mod run;
mod state;
mod suite;
mod transaction;
mod verdict;

pub use case::{Case, cases};
pub use fixture::{Account, Env, Fixture, FixtureError, Indexes, Post, Transaction, parse};
pub use quantity::{Quantity, Wide};
pub use report::{FolderTally, Report};
pub use run::run;
pub use state::WorldState;
pub use suite::{Progress, Suite, SuiteError};
pub use verdict::{Failure, Passed, Skip, Verdict};
