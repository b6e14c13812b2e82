//! What transactions touch: objects, access sets, and the encoding of numbers and values around them.

use crate::AccountInfo;
use alloy_primitives::{Address, U256};

/// A piece of state that transactions can conflict on: an account's nonce, balance and code, or one storage slot.
///
/// Objects are ordered by address, then the account before its slots, then by slot number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// The account.
    pub address: Address,
    /// A slot of its storage; `None` is the account itself.
    pub slot: Option<U256>,
}

impl Object {
    /// Nonce, balance and code of an account.
    pub fn account(address: Address) -> Self {
        Self { address, slot: None }
    }

    /// One storage slot.
    pub fn slot(address: Address, slot: U256) -> Self {
        Self { address, slot: Some(slot) }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.slot {
            None => write!(f, "account {}", self.address),
            Some(slot) => write!(f, "slot {slot:#x} of {}", self.address),
        }
    }
}

/// An object in an access set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    /// Which.
    pub object: Object,
    /// Whether its value is another one after the transaction. An access that leaves the value as it was is a read.
    pub written: bool,
}

/// Everything a transaction loaded from the state below it or changed in it (specs/lanes.md, L-1), each object once,
/// in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSet(Vec<Access>);

impl AccessSet {
    /// Sorts, and joins several accesses of one object: one write makes it written.
    pub fn new(mut accesses: Vec<Access>) -> Self {
        accesses.sort_unstable_by(|a, b| a.object.cmp(&b.object).then(b.written.cmp(&a.written)));
        accesses.dedup_by_key(|access| access.object);
        Self(accesses)
    }

    /// The accesses in ascending order of their objects.
    pub fn as_slice(&self) -> &[Access] {
        &self.0
    }

    /// Iterates in ascending order of the objects.
    pub fn iter(&self) -> std::slice::Iter<'_, Access> {
        self.0.iter()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How the set touches `object`: `Some(true)` when it writes it.
    pub fn get(&self, object: &Object) -> Option<bool> {
        let at = self.0.binary_search_by(|access| access.object.cmp(object)).ok()?;
        Some(self.0[at].written)
    }

    /// Whether both in either order, or at once, could give different results.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        few.iter().any(|access| many.get(&access.object).is_some_and(|written| written || access.written))
    }
}

/// The value of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectValue {
    /// An account, or that there is none.
    Account(Option<AccountInfo>),
    /// A slot; zero when absent.
    Slot(U256),
}

impl ObjectValue {
    /// The account. A slot's value is none: callers know the object's kind.
    pub fn account(&self) -> Option<AccountInfo> {
        match self {
            Self::Account(info) => *info,
            Self::Slot(_) => None,
        }
    }

    /// The word of a slot. An account's value is none: callers know the object's kind.
    pub fn word(&self) -> U256 {
        match self {
            Self::Slot(word) => *word,
            Self::Account(_) => U256::ZERO,
        }
    }
}
