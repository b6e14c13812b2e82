//! Execution disk: accounts, storage, code, blocks, receipts and the transaction index.
//!
//! This crate never executes, never decides what is final and never waits for a network: it stores finalized
//! blocks, one atomic durable batch each, and answers reads from consistent snapshots.
//!
//! - [`StateStore::open`] checks that the directory belongs to the genesis and reports the stored head.
//! - [`StateStore::commit`] applies one finalized block. Reads go on meanwhile.
//! - [`StateStore::view`] and [`StateStore::at`] give immutable states: the head's, or one of the recent past.
//! - Blocks, receipts and transactions are found by height and hash, logs by [`LogFilter`].
//!
//! A storage error poisons the store: every later write is refused until the process restarts.

mod block;
mod logs;
mod store;

pub use block::{BlockRecord, ExecutedBlock, TxLocation};
pub use logs::{LogEntry, LogFilter, LogLimits, LogsError};
pub use store::{Head, HistoryError, OpenError, StateError, StateOptions, StateSnapshot, StateStore};
