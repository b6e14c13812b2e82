//! What can go wrong, split by what to do about it.

use alloy_primitives::B256;
use execution::ViewError;
use std::path::PathBuf;

/// Why a store did not open. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The directory belongs to another chain: name another one, or the right genesis file.
    #[error("the data directory belongs to genesis {stored}, the genesis file is {expected}")]
    ForeignGenesis {
        /// Genesis hash in the directory.
        stored: B256,
        /// Genesis hash of the file.
        expected: B256,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The genesis cannot be turned into a state.
    #[error("genesis state: {0}")]
    Genesis(#[from] execution::GenesisStateError),
    /// The stored data are damaged or unreadable: remove the directory and let consensus replay it.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The database failed. The store is poisoned if it was a write.
    #[error("state database failed while {doing}: {reason}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        reason: String,
    },
    /// An earlier write failed: this store writes no more until it is opened again.
    #[error("state database refuses writes after an earlier error: {0}")]
    Poisoned(String),
    /// A stored record cannot be read.
    #[error("stored {what} is corrupt: {reason}")]
    Corrupt {
        /// What kind of record.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The state is not the one that was committed.
    #[error(
        "state at height {height} hashes to {computed}, but {stored} was committed: the database is damaged"
    )]
    DigestMismatch {
        /// Height of the head.
        height: u64,
        /// `state_hash` of the data found.
        computed: B256,
        /// `state_hash` that was committed.
        stored: B256,
    },
    /// The state is ahead of the blocks: a part of the database was lost.
    #[error("the state is at height {state} but blocks end at {blocks:?}: the database is damaged")]
    BlocksMissing {
        /// Height of the state.
        state: u64,
        /// Height of the last block, if there is any.
        blocks: Option<u64>,
    },
    /// The block does not follow the head. Nothing was written.
    #[error("block {height} on parent {parent_hash} does not follow head {head_height} ({head_hash})")]
    NotNext {
        /// Height given.
        height: u64,
        /// Parent given.
        parent_hash: B256,
        /// Height of the head.
        head_height: u64,
        /// Hash of the head.
        head_hash: B256,
    },
    /// The block's parts contradict each other. Nothing was written.
    #[error("block {height} is inconsistent: {reason}")]
    Inconsistent {
        /// Height given.
        height: u64,
        /// What does not fit.
        reason: String,
    },
}

impl StateError {
    pub(crate) fn database(doing: &'static str) -> impl FnOnce(fjall::Error) -> Self {
        move |error| Self::Database { doing, reason: error.to_string() }
    }

    pub(crate) fn corrupt(what: &'static str, reason: impl ToString) -> Self {
        Self::Corrupt { what, reason: reason.to_string() }
    }
}

impl From<StateError> for ViewError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Corrupt { what, reason } => Self::Corrupt { what, reason },
            other => Self::Storage(other.to_string()),
        }
    }
}

/// Why a past state cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state at height {requested} is not available: heights {oldest} to {newest} are")]
pub struct HistoryError {
    /// Height asked for.
    pub requested: u64,
    /// Lowest readable height.
    pub oldest: u64,
    /// Highest readable height.
    pub newest: u64,
}
