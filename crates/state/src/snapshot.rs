//! Immutable states: the head's and those of the recent past.

use crate::{
    Head, StateError,
    cache::HotCache,
    history::{self, History},
    rows,
};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use execution::{AccountInfo, StateView, ViewError};
use fjall::{Keyspace, Readable, Snapshot, UserValue};
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};

/// Undo records kept in memory: enough for a burst of reads at one past height.
const UNDO_CACHE_RECORDS: usize = 16;

/// What all versions of a store share.
pub(crate) struct Shared {
    pub(crate) state: Keyspace,
    pub(crate) chain: Keyspace,
    pub(crate) accounts: HotCache<Address, Option<AccountInfo>>,
    pub(crate) slots: HotCache<(Address, U256), U256>,
    undo: Mutex<VecDeque<(u64, UserValue)>>,
}

impl Shared {
    pub(crate) fn new(state: Keyspace, chain: Keyspace, hot_entries: usize, height: u64) -> Self {
        Self {
            state,
            chain,
            accounts: HotCache::new(hot_entries / 2, height),
            slots: HotCache::new(hot_entries / 2, height),
            undo: Mutex::new(VecDeque::new()),
        }
    }
}

/// The store as it was after some commit: one database snapshot and the head it shows.
pub(crate) struct Version {
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot: Snapshot,
    pub(crate) head: Head,
    pub(crate) history: History,
}

impl Version {
    pub(crate) fn state_row(&self, key: &[u8]) -> Result<Option<UserValue>, StateError> {
        self.snapshot.get(&self.shared.state, key).map_err(StateError::database("reading the state"))
    }

    pub(crate) fn chain_row(&self, key: &[u8]) -> Result<Option<UserValue>, StateError> {
        self.snapshot.get(&self.shared.chain, key).map_err(StateError::database("reading the chain"))
    }

    fn undo(&self, height: u64) -> Result<UserValue, StateError> {
        if let Some((_, record)) = self.shared.undo.lock().iter().find(|(cached, _)| *cached == height) {
            return Ok(record.clone());
        }
        let record = self
            .chain_row(&rows::undo_key(height))?
            .ok_or_else(|| StateError::corrupt("undo record", format!("none at height {height}")))?;
        let mut cache = self.shared.undo.lock();
        if cache.len() >= UNDO_CACHE_RECORDS {
            cache.pop_front();
        }
        cache.push_back((height, record.clone()));
        Ok(record)
    }

    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, StateError> {
        let row = self.state_row(&rows::account_key(address))?;
        row.map(|row| rows::read_account_row(&row).map(|(_, info)| info)).transpose()
    }

    fn slot(&self, address: &Address, slot: &U256) -> Result<U256, StateError> {
        let row = self.state_row(&rows::slot_key(address, slot))?;
        Ok(row.map(|row| rows::read_slot_row(&row).map(|(_, value)| value)).transpose()?.unwrap_or_default())
    }
}

/// The state after one finalized block. It never changes, however many blocks are committed meanwhile. Keep it
/// for the length of a request or of a block, not for ever: it holds old data in the database.
#[derive(Clone)]
pub struct StateSnapshot {
    version: Arc<Version>,
    height: u64,
}

impl std::fmt::Debug for StateSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateSnapshot(height {} under head {})", self.height, self.version.head.height)
    }
}

impl StateSnapshot {
    pub(crate) fn new(version: Arc<Version>, height: u64) -> Self {
        Self { version, height }
    }

    /// Height of the state.
    pub fn height(&self) -> u64 {
        self.height
    }

    fn past_account(&self, address: &Address) -> Result<Option<Option<AccountInfo>>, StateError> {
        let fingerprint = history::account_fingerprint(address);
        for height in self.version.history.candidates(self.height, fingerprint) {
            let old = history::old_account(&self.version.undo(height)?, address)?;
            if old.is_some() {
                return Ok(old);
            }
        }
        Ok(None)
    }

    fn past_slot(&self, address: &Address, slot: &U256) -> Result<Option<U256>, StateError> {
        let fingerprint = history::slot_fingerprint(address, slot);
        for height in self.version.history.candidates(self.height, fingerprint) {
            let old = history::old_slot(&self.version.undo(height)?, address, slot)?;
            if old.is_some() {
                return Ok(old);
            }
        }
        Ok(None)
    }
}

impl StateView for StateSnapshot {
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
        let cache = &self.version.shared.accounts;
        if let Some(info) = cache.get(&address, self.height) {
            return Ok(info);
        }
        if let Some(old) = self.past_account(&address)? {
            return Ok(old);
        }
        let info = self.version.account(&address)?;
        // Read at the head of this version: it holds there whatever height was asked for.
        cache.offer(address, info, self.version.head.height);
        Ok(info)
    }

    fn code(&self, hash: B256) -> Result<Bytes, ViewError> {
        if hash == KECCAK256_EMPTY {
            return Ok(Bytes::new());
        }
        let row = self.version.state_row(&rows::code_key(&hash))?.ok_or(ViewError::MissingCode(hash))?;
        Ok(Bytes::copy_from_slice(&row))
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, ViewError> {
        let cache = &self.version.shared.slots;
        if let Some(value) = cache.get(&(address, slot), self.height) {
            return Ok(value);
        }
        if let Some(old) = self.past_slot(&address, &slot)? {
            return Ok(old);
        }
        let value = self.version.slot(&address, &slot)?;
        cache.offer((address, slot), value, self.version.head.height);
        Ok(value)
    }

    fn block_hash(&self, height: u64) -> Result<B256, ViewError> {
        if height > self.height {
            return Ok(B256::ZERO);
        }
        let row = self.version.chain_row(&rows::record_key(height))?;
        let record = row.map(|row| rows::read::<crate::BlockRecord>("block", &row)).transpose()?;
        Ok(record.map(|record| record.hash).unwrap_or_default())
    }
}
