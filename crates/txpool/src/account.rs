//! One sender's transactions, by nonce.

use crate::Price;
use crate::tip_index::Ranked;
use alloy_primitives::{Address, U256};
use execution::RecoveredTx;
use std::collections::BTreeMap;

/// What the pool knows of an account's state at the newest finalized block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountState {
    /// Next nonce.
    pub nonce: u64,
    /// Balance in wei.
    pub balance: U256,
    /// Whether the account runs another's code (EIP-7702): its balance can be spent by anyone's transaction.
    pub delegated: bool,
}

/// A pooled transaction.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub transaction: RecoveredTx,
    pub price: Price,
    /// Lowest price among this one and those before it: it cannot be mined before them.
    pub floor: Price,
    pub cost: U256,
    pub sequence: u64,
    pub admitted_ms: u64,
    /// Highest block that may hold it, if it names one.
    pub last_height: Option<u64>,
}

/// # Invariants
/// - Every nonce in `slots` is at least `state.nonce`; no account in the pool is empty.
/// - Pending are the nonces `state.nonce..pending_end`: without a gap, and affordable together.
/// - `cost` is the sum of all costs.
#[derive(Debug)]
pub(crate) struct Account {
    pub state: AccountState,
    pub slots: BTreeMap<u64, Slot>,
    pub pending_end: u64,
    pub cost: U256,
}

impl Account {
    pub fn new(state: AccountState) -> Self {
        Self { state, slots: BTreeMap::new(), pending_end: state.nonce, cost: U256::ZERO }
    }

    pub fn pending(&self) -> usize {
        // Pending nonces have no gap, so their number is a number of slots.
        self.pending_end.saturating_sub(self.state.nonce) as usize
    }

    pub fn queued(&self) -> usize {
        self.slots.len() - self.pending()
    }

    /// The rank of the next transaction to be mined, if there is one.
    pub fn head(&self, address: Address) -> Option<Ranked> {
        if self.pending() == 0 {
            return None;
        }
        let slot = self.slots.get(&self.state.nonce)?;
        Some(Ranked { price: slot.price, sequence: slot.sequence, address })
    }

    /// The rank of the last transaction: the only one whose removal strands no other.
    pub fn tail(&self, address: Address) -> Option<Ranked> {
        let slot = self.slots.values().next_back()?;
        Some(Ranked { price: slot.floor, sequence: slot.sequence, address })
    }

    /// Puts a transaction in its place and returns the one that was there.
    pub fn put(&mut self, slot: Slot) -> Option<Slot> {
        let nonce = slot.transaction.nonce();
        self.cost = self.cost.saturating_add(slot.cost);
        let old = self.slots.insert(nonce, slot);
        if let Some(old) = &old {
            self.cost = self.cost.saturating_sub(old.cost);
        }
        self.refloor(nonce);
        self.extend_pending();
        old
    }

    /// Removes the transaction with the highest nonce.
    pub fn pop_last(&mut self) -> Option<Slot> {
        let (nonce, slot) = self.slots.pop_last()?;
        self.cost = self.cost.saturating_sub(slot.cost);
        self.pending_end = self.pending_end.min(nonce);
        Some(slot)
    }

    /// Removes one transaction; later ones are queued again.
    pub fn take(&mut self, nonce: u64) -> Option<Slot> {
        let slot = self.slots.remove(&nonce)?;
        self.cost = self.cost.saturating_sub(slot.cost);
        self.pending_end = self.pending_end.min(nonce);
        self.refloor_from_next(nonce);
        Some(slot)
    }

    /// Takes over a new state and returns the transactions whose nonce is used up.
    pub fn advance(&mut self, state: AccountState) -> Vec<Slot> {
        let kept = self.slots.split_off(&state.nonce);
        let used: Vec<Slot> = std::mem::replace(&mut self.slots, kept).into_values().collect();
        self.cost = used.iter().fold(self.cost, |cost, slot| cost.saturating_sub(slot.cost));
        let went_back = state.nonce < self.state.nonce;
        self.state = state;
        if went_back || self.cost > state.balance {
            self.pending_end = state.nonce;
        } else {
            self.pending_end = self.pending_end.max(state.nonce);
        }
        if !used.is_empty() {
            self.refloor(state.nonce);
        }
        self.extend_pending();
        used
    }

    /// Walks on from `pending_end` while nonces follow each other and the balance covers them.
    fn extend_pending(&mut self) {
        let all_affordable = self.cost <= self.state.balance;
        let mut spent = U256::ZERO;
        if !all_affordable {
            // The sum must be taken from the front, so the whole prefix is decided again.
            self.pending_end = self.state.nonce;
        }
        for (nonce, slot) in self.slots.range(self.pending_end..) {
            spent = spent.saturating_add(slot.cost);
            if *nonce != self.pending_end || (!all_affordable && spent > self.state.balance) {
                break;
            }
            self.pending_end = self.pending_end.saturating_add(1);
        }
    }

    /// Recomputes floors from `nonce` on, until one is as it was.
    fn refloor(&mut self, nonce: u64) {
        let before = self.slots.range(..nonce).next_back().map(|(_, slot)| slot.floor);
        let mut floor = before;
        for (at, slot) in self.slots.range_mut(nonce..) {
            let new = floor.map_or(slot.price, |floor| floor.lowest(slot.price));
            if new == slot.floor && *at != nonce {
                break;
            }
            slot.floor = new;
            floor = Some(new);
        }
    }

    fn refloor_from_next(&mut self, removed: u64) {
        if let Some((&next, _)) = self.slots.range(removed..).next() {
            self.refloor(next);
        }
    }
}
