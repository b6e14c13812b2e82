//! Accounts ordered by what their transaction would pay a proposer, for a base fee that moves with every block.
//!
//! The effective tip `min(tip, fee - base_fee)` depends on the base fee, so an order by it would have to be rebuilt
//! for every block. But it is `tip` where the margin `fee - tip` covers the base fee, and `fee - base_fee`
//! elsewhere; inside each of the two halves the order is independent of the base fee. The index keeps the halves
//! apart and moves only the entries whose margin lies between the old and the new base fee.

use alloy_primitives::Address;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// The most a transaction pays per unit of gas: in all (`fee`) and to the proposer (`tip`, at most `fee`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// `maxFeePerGas`, or the gas price of a transaction without one.
    pub fee: u128,
    /// `maxPriorityFeePerGas`, or the gas price.
    pub tip: u128,
}

impl Price {
    /// What the proposer earns per unit of gas; negative when the fee does not cover the base fee.
    pub fn effective_tip(&self, base_fee: u64) -> i128 {
        signed(self.tip).min(signed(self.fee).saturating_sub(i128::from(base_fee)))
    }

    /// The smaller of both in each part. `a.lowest(b).effective_tip(f)` is the smaller effective tip, for any `f`.
    #[must_use]
    pub fn lowest(self, other: Self) -> Self {
        Self { fee: self.fee.min(other.fee), tip: self.tip.min(other.tip) }
    }

    fn margin(&self) -> u128 {
        self.fee.saturating_sub(self.tip)
    }
}

/// Fees above 2^127 wei cannot be paid by anyone; they count as 2^127 - 1.
fn signed(value: u128) -> i128 {
    i128::try_from(value).unwrap_or(i128::MAX)
}

/// An account with the price and age it is ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// What its transaction offers.
    pub price: Price,
    /// Admission order; among equal prices the older one ranks higher.
    pub sequence: u64,
    /// The account.
    pub address: Address,
}

/// Position in one half: amount, then age, then address.
pub(crate) type Rank = (u128, Reverse<u64>, Address);

/// # Invariants
/// `by_margin` holds every entry; `by_tip` those with margin >= base fee, `by_fee` the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TipIndex {
    base_fee: u64,
    by_tip: BTreeSet<Rank>,
    by_fee: BTreeSet<Rank>,
    by_margin: BTreeSet<(u128, u128, u64, Address)>,
}

impl TipIndex {
    /// The account that pays least; among equals the youngest.
    pub fn lowest(&self) -> Option<(i128, Address)> {
        let tip = self.by_tip.first().map(|rank| (signed(rank.0), rank.1, rank.2));
        let fee = self.by_fee.first().map(|rank| (self.above_base_fee(rank.0), rank.1, rank.2));
        [tip, fee].into_iter().flatten().min().map(|(value, _, address)| (value, address))
    }

    /// Highest rank by tip below `cursor`. Its tip bounds the effective tip of all further ones of this half.
    pub(crate) fn next_by_tip(&self, cursor: Option<&Rank>) -> Option<&Rank> {
        next_below(&self.by_tip, cursor)
    }

    /// Highest rank by fee below `cursor`.
    pub(crate) fn next_by_fee(&self, cursor: Option<&Rank>) -> Option<&Rank> {
        next_below(&self.by_fee, cursor)
    }

    /// Adds an account. The same account must not be in it.
    pub fn insert(&mut self, entry: Ranked) {
        let (rank, by_tip) = self.place(&entry.price, entry.sequence, entry.address);
        self.half(by_tip).insert(rank);
        self.by_margin.insert(margin_key(&entry));
    }

    /// Removes an account, given exactly as it was added.
    pub fn remove(&mut self, entry: Ranked) {
        let (rank, by_tip) = self.place(&entry.price, entry.sequence, entry.address);
        self.half(by_tip).remove(&rank);
        self.by_margin.remove(&margin_key(&entry));
    }

    /// Re-ranks for another base fee: O(entries that change halves).
    pub fn set_base_fee(&mut self, base_fee: u64) {
        let (low, high) = (self.base_fee.min(base_fee), self.base_fee.max(base_fee));
        let crossing: Vec<_> = self
            .by_margin
            .range((u128::from(low), 0, 0, Address::ZERO)..(u128::from(high), 0, 0, Address::ZERO))
            .map(|&(margin, fee, sequence, address)| (Price { fee, tip: fee - margin }, sequence, address))
            .collect();
        for (price, sequence, address) in &crossing {
            let (rank, by_tip) = self.place(price, *sequence, *address);
            self.half(by_tip).remove(&rank);
        }
        self.base_fee = base_fee;
        for (price, sequence, address) in crossing {
            let (rank, by_tip) = self.place(&price, sequence, address);
            self.half(by_tip).insert(rank);
        }
    }

    #[cfg(test)]
    pub(crate) fn base_fee(&self) -> u64 {
        self.base_fee
    }

    fn place(&self, price: &Price, sequence: u64, address: Address) -> (Rank, bool) {
        let by_tip = price.margin() >= u128::from(self.base_fee);
        let amount = if by_tip { price.tip } else { price.fee };
        ((amount, Reverse(sequence), address), by_tip)
    }

    fn half(&mut self, by_tip: bool) -> &mut BTreeSet<Rank> {
        if by_tip { &mut self.by_tip } else { &mut self.by_fee }
    }

    fn above_base_fee(&self, fee: u128) -> i128 {
        signed(fee).saturating_sub(i128::from(self.base_fee))
    }
}

fn next_below<'a>(half: &'a BTreeSet<Rank>, cursor: Option<&Rank>) -> Option<&'a Rank> {
    match cursor {
        Some(cursor) => half.range(..cursor).next_back(),
        None => half.last(),
    }
}

fn margin_key(entry: &Ranked) -> (u128, u128, u64, Address) {
    (entry.price.margin(), entry.price.fee, entry.sequence, entry.address)
}
