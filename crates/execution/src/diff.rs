//! What a block changes.

use crate::AccountInfo;
use alloy_primitives::{
    Address, B256, Bytes, U256,
    map::{AddressMap, B256Map, HashMap},
};

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

/// The difference between a block's state and its parent's.
///
/// # Invariants
/// - Every change really changes: `old != new`. Two executions of one block give equal diffs.
/// - An account is never `Some` of an empty account.
/// - `code` holds code that became reachable in this block. Code is never removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDiff {
    accounts: AddressMap<AccountChange>,
    storage: HashMap<(Address, U256), SlotChange>,
    code: B256Map<Bytes>,
}

impl StateDiff {
    /// The change of one account.
    pub fn account(&self, address: &Address) -> Option<&AccountChange> {
        self.accounts.get(address)
    }

    /// The change of one slot.
    pub fn slot(&self, address: &Address, slot: &U256) -> Option<&SlotChange> {
        self.storage.get(&(*address, *slot))
    }

    /// Code that this block made reachable.
    pub fn code(&self, hash: &B256) -> Option<&Bytes> {
        self.code.get(hash)
    }

    /// Changed accounts in address order.
    pub fn accounts(&self) -> Vec<(Address, AccountChange)> {
        let mut changes: Vec<_> = self.accounts.iter().map(|(address, change)| (*address, *change)).collect();
        changes.sort_unstable_by_key(|(address, _)| *address);
        changes
    }

    /// Changed slots in (address, slot) order.
    pub fn slots(&self) -> Vec<((Address, U256), SlotChange)> {
        let mut changes: Vec<_> = self.storage.iter().map(|(key, change)| (*key, *change)).collect();
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
        self.accounts.len() + self.storage.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.storage.is_empty() && self.code.is_empty()
    }

    /// Records an account's change; equal values leave no trace.
    pub fn set_account(&mut self, address: Address, old: Option<AccountInfo>, new: Option<AccountInfo>) {
        let new = new.filter(|info| !info.is_empty());
        if old == new {
            self.accounts.remove(&address);
        } else {
            self.accounts.insert(address, AccountChange { old, new });
        }
    }

    /// Records a slot's change; equal values leave no trace.
    pub fn set_slot(&mut self, address: Address, slot: U256, old: U256, new: U256) {
        if old == new {
            self.storage.remove(&(address, slot));
        } else {
            self.storage.insert((address, slot), SlotChange { old, new });
        }
    }

    /// Records code that became reachable.
    pub fn set_code(&mut self, hash: B256, code: Bytes) {
        self.code.insert(hash, code);
    }

    pub(crate) fn accounts_unordered(&self) -> impl Iterator<Item = (&Address, &AccountChange)> {
        self.accounts.iter()
    }

    pub(crate) fn slots_unordered(&self) -> impl Iterator<Item = (&(Address, U256), &SlotChange)> {
        self.storage.iter()
    }

    pub(crate) fn reserve(&mut self, accounts: usize, slots: usize) {
        self.accounts.reserve(accounts);
        self.storage.reserve(slots);
    }
}
