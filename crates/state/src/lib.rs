//! Execution disk: accounts, storage, code, blocks, receipts and the transaction index.
//!
//! This crate never executes, never decides what is final and never waits for a network: it stores finalized
//! blocks, one atomic durable batch each, and answers reads from consistent snapshots.
//!
//! - [`StateStore::open`] checks that the directory belongs to the genesis and reports the stored head, which may
//!   be lower than consensus remembers: then the missing blocks are replayed by [`StateStore::commit`].
//! - [`StateStore::commit`] applies one finalized block. Reads go on meanwhile and never wait for it.
//! - [`StateStore::view`] and [`StateStore::at`] give immutable states: the head's, or one of the recent past.
//! - Blocks, receipts and transactions are found by height and hash, logs by [`LogFilter`].
//! - [`StateStore::verify`] recomputes the digest of everything.
//!
//! A failed write poisons the store: every later write is refused until it is opened again.

mod block;
mod cache;
mod error;
mod history;
mod logs;
mod rows;
mod snapshot;
mod store;

pub use block::{BlockRecord, ExecutedBlock, TxLocation};
pub use error::{HistoryError, OpenError, StateError};
pub use logs::{LogEntry, LogFilter, LogLimits, LogsError};
pub use snapshot::StateSnapshot;
pub use store::{Head, StateOptions, StateStore};

#[cfg(test)]
mod tests;
