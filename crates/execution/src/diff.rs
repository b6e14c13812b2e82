//! What a block changes.

use crate::AccountInfo;
use alloy_primitives::{
    Address, B256, Bytes, U256,
    map::{AddressMap, B256Map, HashMap},
};
use rayon::prelude::*;
use std::collections::hash_map::Entry;

/// An account before and after. `None` means it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// Value in the parent's state, as the view gave it.
    pub old: Option<AccountInfo>,
    /// Value after the block.
    pub new: Option<AccountInfo>,
}

/// A storage slot before and after; zero means absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotChange {
    /// Value in the parent's state, as the view gave it.
    pub old: U256,
    /// Value after the block.
    pub new: U256,
}

/// Parts of a [`StateDiff`], so that several threads can make and hash one.
pub(crate) const SHARDS: usize = 16;

/// The difference between a block's state and its parent's.
///
/// # Invariants
/// - Every change really changes: `old != new`. Two executions of one block give equal diffs.
/// - An account is never `Some` of an empty account.
/// - `code` holds the code of every account whose code changed in this block. Code is never removed.
/// - An object's shard follows from the object alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDiff {
    shards: [DiffShard; SHARDS],
    code: B256Map<Bytes>,
}

/// One part of a diff.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiffShard {
    accounts: AddressMap<AccountChange>,
    storage: HashMap<(Address, U256), SlotChange>,
}

impl DiffShard {
    pub(crate) fn with_capacity(accounts: usize, slots: usize) -> Self {
        let mut shard = Self::default();
        shard.accounts.reserve(accounts);
        shard.storage.reserve(slots);
        shard
    }

    pub(crate) fn of_account(address: &Address) -> usize {
        usize::from(address[19]) % SHARDS
    }

    pub(crate) fn of_slot(address: &Address, slot: &U256) -> usize {
        // One contract's slots spread too: a hot token would fill one shard.
        (usize::from(address[19]) ^ usize::from(slot.byte(0))) % SHARDS
    }

    pub(crate) fn accounts(&self) -> impl Iterator<Item = (&Address, &AccountChange)> {
        self.accounts.iter()
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (&(Address, U256), &SlotChange)> {
        self.storage.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.accounts.len() + self.storage.len()
    }

    /// Records a change after those recorded before: the first old value stays.
    pub(crate) fn then_account(
        &mut self,
        address: Address,
        old: Option<AccountInfo>,
        new: Option<AccountInfo>,
    ) {
        let new = new.filter(|info| !info.is_empty());
        match self.accounts.entry(address) {
            Entry::Vacant(_) if old == new => {}
            Entry::Vacant(entry) => {
                entry.insert(AccountChange { old, new });
            }
            Entry::Occupied(entry) if entry.get().old == new => {
                entry.remove();
            }
            Entry::Occupied(entry) => entry.into_mut().new = new,
        }
    }

    /// Records a change after those recorded before: the first old value stays.
    pub(crate) fn then_slot(&mut self, address: Address, slot: U256, old: U256, new: U256) {
        match self.storage.entry((address, slot)) {
            Entry::Vacant(_) if old == new => {}
            Entry::Vacant(entry) => {
                entry.insert(SlotChange { old, new });
            }
            Entry::Occupied(entry) if entry.get().old == new => {
                entry.remove();
            }
            Entry::Occupied(entry) => entry.into_mut().new = new,
        }
    }

    /// Records an account's change; equal values leave no trace.
    pub(crate) fn set_account(
        &mut self,
        address: Address,
        old: Option<AccountInfo>,
        new: Option<AccountInfo>,
    ) {
        let new = new.filter(|info| !info.is_empty());
        if old == new {
            self.accounts.remove(&address);
        } else {
            self.accounts.insert(address, AccountChange { old, new });
        }
    }

    /// Records a slot's change; equal values leave no trace.
    pub(crate) fn set_slot(&mut self, address: Address, slot: U256, old: U256, new: U256) {
        if old == new {
            self.storage.remove(&(address, slot));
        } else {
            self.storage.insert((address, slot), SlotChange { old, new });
        }
    }
}

impl StateDiff {
    /// A diff of parts that `make` yields by their number, on all threads if `at_once`; without code, for
    /// [`Self::take_code`] to collect.
    pub(crate) fn from_shards(at_once: bool, make: impl Fn(usize) -> DiffShard + Send + Sync) -> Self {
        let shards: Vec<DiffShard> = match at_once {
            false => (0..SHARDS).map(make).collect(),
            true => (0..SHARDS).into_par_iter().with_max_len(1).map(make).collect(),
        };
        let mut parts = shards.into_iter();
        let shards = std::array::from_fn(|_| parts.next().unwrap_or_default());
        Self { shards, code: B256Map::default() }
    }

    pub(crate) fn shards(&self) -> &[DiffShard; SHARDS] {
        &self.shards
    }

    /// The change of one account.
    pub fn account(&self, address: &Address) -> Option<&AccountChange> {
        self.shards[DiffShard::of_account(address)].accounts.get(address)
    }

    /// The change of one slot.
    pub fn slot(&self, address: &Address, slot: &U256) -> Option<&SlotChange> {
        self.shards[DiffShard::of_slot(address, slot)].storage.get(&(*address, *slot))
    }

    /// Code that this block made reachable.
    pub fn code(&self, hash: &B256) -> Option<&Bytes> {
        self.code.get(hash)
    }

    /// Changed accounts in address order.
    pub fn accounts(&self) -> Vec<(Address, AccountChange)> {
        let changes = self.shards.iter().flat_map(DiffShard::accounts);
        let mut changes: Vec<_> = changes.map(|(address, change)| (*address, *change)).collect();
        changes.sort_unstable_by_key(|(address, _)| *address);
        changes
    }

    /// Changed slots in (address, slot) order.
    pub fn slots(&self) -> Vec<((Address, U256), SlotChange)> {
        let changes = self.shards.iter().flat_map(DiffShard::slots);
        let mut changes: Vec<_> = changes.map(|(key, change)| (*key, *change)).collect();
        changes.sort_unstable_by_key(|(key, _)| *key);
        changes
    }

    /// New code in hash order.
    pub fn codes(&self) -> Vec<(B256, &Bytes)> {
        let mut codes: Vec<_> = self.code.iter().map(|(hash, code)| (*hash, code)).collect();
        codes.sort_unstable_by_key(|(hash, _)| *hash);
        codes
    }

    /// Number of changed accounts and slots.
    pub fn len(&self) -> usize {
        self.shards.iter().map(DiffShard::len).sum()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.code.is_empty()
    }

    /// Records an account's change; equal values leave no trace.
    pub fn set_account(&mut self, address: Address, old: Option<AccountInfo>, new: Option<AccountInfo>) {
        self.shards[DiffShard::of_account(&address)].set_account(address, old, new);
    }

    /// Records a slot's change; equal values leave no trace.
    pub fn set_slot(&mut self, address: Address, slot: U256, old: U256, new: U256) {
        self.shards[DiffShard::of_slot(&address, &slot)].set_slot(address, slot, old, new);
    }

    /// Records code that became reachable.
    pub fn set_code(&mut self, hash: B256, code: Bytes) {
        self.code.insert(hash, code);
    }

    /// Adds what happened after this diff, on the state it leads to.
    pub(crate) fn then(&mut self, later: Self) {
        for (shard, later) in self.shards.iter_mut().zip(later.shards) {
            for (address, change) in later.accounts {
                shard.then_account(address, change.old, change.new);
            }
            for ((address, slot), change) in later.storage {
                shard.then_slot(address, slot, change.old, change.new);
            }
        }
        self.code.extend(later.code);
    }

    /// Adds what happened before this diff, leading to the state it began with.
    pub(crate) fn after(&mut self, earlier: Self) {
        for (shard, earlier) in self.shards.iter_mut().zip(earlier.shards) {
            for (address, change) in earlier.accounts {
                let new = shard.accounts.get(&address).map_or(change.new, |later| later.new);
                shard.set_account(address, change.old, new);
            }
            for ((address, slot), change) in earlier.storage {
                let new = shard.storage.get(&(address, slot)).map_or(change.new, |later| later.new);
                shard.set_slot(address, slot, change.old, new);
            }
        }
        for (hash, code) in earlier.code {
            self.code.entry(hash).or_insert(code);
        }
    }

    /// Collects the code of every account whose code changed.
    pub(crate) fn take_code(&mut self, code: impl Fn(&B256) -> Option<Bytes>) {
        let hash = |info: &Option<AccountInfo>| info.unwrap_or_default().code_hash;
        for (_, change) in self.shards.iter().flat_map(DiffShard::accounts) {
            let new = hash(&change.new);
            if new != hash(&change.old)
                && let Some(code) = code(&new)
            {
                self.code.insert(new, code);
            }
        }
    }
}
