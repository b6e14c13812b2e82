//! The store: opening, committing, reading.

use crate::{BlockRecord, ExecutedBlock, LogEntry, LogFilter, LogLimits, LogsError, TxLocation};
use alloy_primitives::{Address, B256, Bytes, U256};
use execution::{AccountInfo, LtHash, RecoveredTx, StateDiff, StateView, TxReceipt, ViewError};
use std::path::PathBuf;
use types::Genesis;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Directory of the database.
    pub path: PathBuf,
    /// Past heights whose state stays readable.
    pub history_blocks: u64,
    /// Memory for cached database blocks in bytes.
    pub cache_bytes: u64,
    /// Accounts and slots in the hot cache.
    pub hot_entries: usize,
}

impl StateOptions {
    /// Defaults for `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), history_blocks: 1024, cache_bytes: 128 << 20, hot_entries: 1 << 17 }
    }
}

/// The last block stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its height; 0 is the genesis.
    pub height: u64,
    /// Its consensus hash; the genesis hash at height 0.
    pub block_hash: B256,
    /// Digest of the state after it.
    pub state_hash: B256,
    /// The running digest behind it.
    pub lthash: LtHash,
}

/// Why a store did not open. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The directory belongs to another chain.
    #[error("the data directory belongs to genesis {stored}, the genesis file is {expected}")]
    ForeignGenesis {
        /// Genesis hash in the directory.
        stored: B256,
        /// Genesis hash of the file.
        expected: B256,
    },
    /// The genesis cannot be turned into a state.
    #[error("genesis state: {0}")]
    Genesis(#[from] execution::GenesisStateError),
    /// The stored data are damaged or unreadable.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The database failed. The store is poisoned if it was a write.
    #[error("state database failed: {0}")]
    Database(String),
    /// An earlier write failed: this store writes no more until it is opened again.
    #[error("state database is poisoned by an earlier error: {0}")]
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
    /// The block does not follow the head.
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

/// The state after one finalized block; never changes, however many blocks are committed meanwhile.
#[derive(Clone, Debug)]
pub struct StateSnapshot {
    height: u64,
}

impl StateSnapshot {
    /// Height of the state.
    pub fn height(&self) -> u64 {
        self.height
    }
}

impl StateView for StateSnapshot {
    fn account(&self, _address: Address) -> Result<Option<AccountInfo>, ViewError> {
        Err(ViewError::Storage("not implemented yet".into()))
    }
    fn code(&self, _hash: B256) -> Result<Bytes, ViewError> {
        Err(ViewError::Storage("not implemented yet".into()))
    }
    fn storage(&self, _address: Address, _slot: U256) -> Result<U256, ViewError> {
        Err(ViewError::Storage("not implemented yet".into()))
    }
    fn block_hash(&self, _height: u64) -> Result<B256, ViewError> {
        Err(ViewError::Storage("not implemented yet".into()))
    }
}

/// The execution database. Share it by `Arc`; reads never wait for a commit.
#[derive(Debug)]
pub struct StateStore {
    options: StateOptions,
}

impl StateStore {
    /// Opens or creates the database and brings it to the genesis state when it is new.
    pub fn open(options: StateOptions, genesis: &Genesis) -> Result<Self, OpenError> {
        let _ = genesis;
        Ok(Self { options })
    }

    /// The last committed block.
    pub fn head(&self) -> Head {
        let lthash = LtHash::new(self.options.history_blocks);
        Head { height: 0, block_hash: B256::ZERO, state_hash: lthash.state_hash(), lthash }
    }

    /// Applies one finalized block that follows the head; durable and visible when it returns.
    pub fn commit(
        &self,
        _block: &ExecutedBlock,
        _diff: &StateDiff,
        _lthash: &LtHash,
    ) -> Result<(), StateError> {
        Err(StateError::Database("not implemented yet".into()))
    }

    /// The state at the head.
    pub fn view(&self) -> StateSnapshot {
        StateSnapshot { height: 0 }
    }

    /// The state after the block at `height`.
    pub fn at(&self, height: u64) -> Result<StateSnapshot, HistoryError> {
        Ok(StateSnapshot { height })
    }

    /// Recomputes the digest of the whole state and compares it with the committed one.
    pub fn verify(&self) -> Result<(), StateError> {
        Err(StateError::Database("not implemented yet".into()))
    }

    /// The block at `height`, without its transactions.
    pub fn record(&self, _height: u64) -> Result<Option<BlockRecord>, StateError> {
        Ok(None)
    }

    /// Height of the block with `hash`.
    pub fn height_of(&self, _hash: &B256) -> Result<Option<u64>, StateError> {
        Ok(None)
    }

    /// The block at `height` with transactions and receipts.
    pub fn block(&self, _height: u64) -> Result<Option<ExecutedBlock>, StateError> {
        Ok(None)
    }

    /// The transactions of the block at `height`.
    pub fn transactions(&self, _height: u64) -> Result<Option<Vec<RecoveredTx>>, StateError> {
        Ok(None)
    }

    /// The receipts of the block at `height`.
    pub fn receipts(&self, _height: u64) -> Result<Option<Vec<TxReceipt>>, StateError> {
        Ok(None)
    }

    /// Where the transaction with `hash` stands.
    pub fn locate(&self, _hash: &B256) -> Result<Option<TxLocation>, StateError> {
        Ok(None)
    }

    /// One transaction, without reading the others of its block.
    pub fn transaction(&self, _at: TxLocation) -> Result<Option<RecoveredTx>, StateError> {
        Ok(None)
    }

    /// One receipt, without reading the others of its block.
    pub fn receipt(&self, _at: TxLocation) -> Result<Option<TxReceipt>, StateError> {
        Ok(None)
    }

    /// Logs of the blocks `from..=to` (cut at the head) that match, in order.
    pub fn logs(
        &self,
        _from: u64,
        _to: u64,
        _filter: &LogFilter,
        _limits: LogLimits,
    ) -> Result<Vec<LogEntry>, LogsError> {
        Ok(Vec::new())
    }
}
