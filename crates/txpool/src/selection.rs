//! What a proposer takes: best effective tip first, each sender in nonce order.

use crate::Pool;
use crate::account::Slot;
use crate::tip_index::Rank;
use alloy_primitives::{Address, map::AddressSet};
use execution::RecoveredTx;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A selection in progress. It borrows nothing, so the pool may be unlocked, and may change, between two calls of
/// [`Pool::select`]; what left the pool meanwhile is not selected any more.
#[derive(Debug)]
pub struct Selection {
    base_fee: u64,
    by_tip: Option<Rank>,
    by_fee: Option<Rank>,
    candidates: BinaryHeap<Candidate>,
    seen: AddressSet,
}

/// Ordered by tip, then age: the older first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    tip: i128,
    sequence: Reverse<u64>,
    address: Address,
    nonce: u64,
}

impl Selection {
    /// Starts one for a block at `base_fee`, which may differ from the pool's.
    pub fn new(base_fee: u64) -> Self {
        Self {
            base_fee,
            by_tip: None,
            by_fee: None,
            candidates: BinaryHeap::new(),
            seen: AddressSet::default(),
        }
    }

    fn candidate(&self, address: Address, nonce: u64, slot: &Slot) -> Candidate {
        let tip = slot.price.effective_tip(self.base_fee);
        Candidate { tip, sequence: Reverse(slot.sequence), address, nonce }
    }
}

impl Pool {
    /// The next transactions of a selection, at most `max`; fewer only when there are no more. `next_nonce` tells
    /// of senders whose nonce is higher on top of the block built upon than at the newest finalized block.
    ///
    /// Costs O(selected), however many transactions are pooled, except for senders whose transactions are all
    /// used up above the finalized block.
    pub fn select(
        &self,
        selection: &mut Selection,
        max: usize,
        next_nonce: impl Fn(&Address) -> Option<u64>,
    ) -> Vec<RecoveredTx> {
        let mut selected = Vec::new();
        while selected.len() < max {
            self.refill(selection, &next_nonce);
            let Some(best) = selection.candidates.pop() else { break };
            let Some(slot) = self.pending_slot(&best.address, best.nonce) else { continue };
            selected.push(slot.transaction.clone());
            self.offer(selection, best.address, best.nonce.saturating_add(1));
        }
        selected
    }

    /// Pulls senders in until none that is left can beat the best candidate.
    fn refill(&self, selection: &mut Selection, next_nonce: &impl Fn(&Address) -> Option<u64>) {
        loop {
            // Both are upper bounds of the effective tip at any base fee.
            let tip = self.heads.next_by_tip(selection.by_tip.as_ref()).copied();
            let fee = self.heads.next_by_fee(selection.by_fee.as_ref()).copied();
            let tip_bound = tip.map(|rank| i128::try_from(rank.0).unwrap_or(i128::MAX));
            let fee_bound = fee.map(|rank| {
                i128::try_from(rank.0).unwrap_or(i128::MAX).saturating_sub(i128::from(selection.base_fee))
            });
            let best = selection.candidates.peek().map_or(0, |candidate| candidate.tip);
            if tip_bound.max(fee_bound).is_none_or(|bound| bound < best) {
                return;
            }
            let rank = if tip_bound >= fee_bound { tip } else { fee };
            let Some(rank) = rank else { return };
            if tip_bound >= fee_bound {
                selection.by_tip = Some(rank);
            } else {
                selection.by_fee = Some(rank);
            }
            let address = rank.2;
            if selection.seen.insert(address) {
                let known = self.account(&address).map_or(0, |state| state.nonce);
                let start = next_nonce(&address).map_or(known, |nonce| nonce.max(known));
                self.offer(selection, address, start);
            }
        }
    }

    /// Makes a sender's transaction a candidate if it is pending and its fee covers the base fee.
    fn offer(&self, selection: &mut Selection, address: Address, nonce: u64) {
        let Some(slot) = self.pending_slot(&address, nonce) else { return };
        let candidate = selection.candidate(address, nonce, slot);
        if candidate.tip >= 0 {
            selection.candidates.push(candidate);
        }
    }

    fn pending_slot(&self, address: &Address, nonce: u64) -> Option<&Slot> {
        let account = self.accounts.get(address)?;
        if nonce < account.pending_end { account.slots.get(&nonce) } else { None }
    }
}
