//! The set of an epoch from the one before it and the candidates: a pure rule (specs/staking.md, ST-3).

use std::collections::{BTreeMap, BTreeSet};
use types::limits::TOTAL_STAKE_MAX;
use types::{Address, PublicKey, Stake, Validator};

/// A registered validator as the rule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its account.
    pub address: Address,
    /// Its key from now on.
    pub public_key: PublicKey,
    /// The weight it would have without limits; 0 for one that must not or does not want to stay.
    pub stake: u128,
    /// Whether it must leave rather than wants to: then it goes before all others.
    pub ejected: bool,
    /// Since which epoch it waits for its weight to change. The longest wait goes first.
    pub since: u64,
}

/// Bounds of a set and of its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members.
    pub max_validators: usize,
    /// Least stake of a member whose weight is not on its way out.
    pub min_stake: u128,
    /// Share of the previous set's weight that may enter and leave, together: numerator.
    pub cap_numerator: u32,
    /// The same: denominator.
    pub cap_denominator: u32,
}

/// The set that follows `previous`.
///
/// The wanted set is the `max_validators` candidates with the most stake, at least `min_stake` each, ties to the lower
/// address. The weights of `previous` move towards it, at most by the cap in total: first what leaves, then what enters,
/// for which half of the cap is held back when it is needed. Whoever would end at weight 0 is no member. When nobody is
/// wanted, `previous` stays as it is.
///
/// Order: members that stay keep their order, new ones follow by address, so that an unchanged set is unchanged.
pub fn next_set(previous: &[Validator], candidates: &[Candidate], limits: &Limits) -> Vec<Validator> {
    let wanted = wanted_weights(candidates, limits);
    let mut weights: BTreeMap<Address, u128> =
        previous.iter().map(|member| (member.address, member.stake.get())).collect();
    if previous.is_empty() {
        // Only a registry without any set yet: there is nothing whose quorum could be lost.
        weights = wanted;
    } else if !wanted.is_empty() {
        let waits: BTreeMap<Address, &Candidate> = candidates.iter().map(|c| (c.address, c)).collect();
        let mut change = Change::new(previous, limits);
        let growth = wanted.iter().fold(0u128, |sum, (address, goal)| {
            sum.saturating_add(goal.saturating_sub(weights.get(address).copied().unwrap_or(0)))
        });
        // Without this a set whose members all leave would shrink to nothing before its successors get any weight.
        let held_back = growth.min(change.budget / 2);
        change.budget -= held_back;
        change.shrink(&mut weights, &wanted, &waits);
        change.budget += held_back;
        change.grow(&mut weights, &wanted, &waits);
    }
    in_order(previous, candidates, weights)
}

fn wanted_weights(candidates: &[Candidate], limits: &Limits) -> BTreeMap<Address, u128> {
    let eligible = |candidate: &&Candidate| {
        !candidate.ejected && candidate.stake > 0 && candidate.stake >= limits.min_stake
    };
    let mut eligible: Vec<_> = candidates.iter().filter(eligible).collect();
    eligible.sort_unstable_by(|a, b| b.stake.cmp(&a.stake).then(a.address.cmp(&b.address)));
    eligible.truncate(limits.max_validators);
    eligible.into_iter().map(|candidate| (candidate.address, candidate.stake)).collect()
}

/// How much weight may still move.
struct Change {
    budget: u128,
    total: u128,
    max_validators: usize,
}

impl Change {
    fn new(previous: &[Validator], limits: &Limits) -> Self {
        let total = previous.iter().fold(0u128, |sum, member| sum.saturating_add(member.stake.get()));
        let denominator = u128::from(limits.cap_denominator.max(1));
        // total <= 2^120, so the quotient and remainder times 32 bits cannot overflow when taken apart.
        let (whole, rest) = (total / denominator, total % denominator);
        let numerator = u128::from(limits.cap_numerator);
        let budget = whole.saturating_mul(numerator).saturating_add(rest * numerator / denominator);
        // A set so light that the share rounds to nothing must be able to change as well.
        Self { budget: budget.max(1), total, max_validators: limits.max_validators }
    }

    /// Takes weight off whoever has more than is wanted: first the ejected, then by the length of the wait.
    fn shrink(
        &mut self,
        weights: &mut BTreeMap<Address, u128>,
        wanted: &BTreeMap<Address, u128>,
        waits: &BTreeMap<Address, &Candidate>,
    ) {
        let goal = |address: &Address| wanted.get(address).copied().unwrap_or(0);
        let mut leaving: Vec<_> = weights
            .iter()
            .filter(|(address, weight)| goal(address) < **weight)
            .map(|(address, _)| {
                let candidate = waits.get(address);
                let ejected = candidate.is_some_and(|c| c.ejected);
                (!ejected, candidate.map_or(u64::MAX, |c| c.since), *address)
            })
            .collect();
        leaving.sort_unstable();
        for (_, _, address) in leaving {
            let Some(weight) = weights.get_mut(&address) else { continue };
            // One unit always stays, so that no set is ever empty.
            let amount = (*weight - goal(&address)).min(self.budget).min(self.total.saturating_sub(1));
            *weight -= amount;
            self.budget -= amount;
            self.total -= amount;
        }
        weights.retain(|_, weight| *weight > 0);
    }

    /// Gives weight to whoever has less than is wanted, by the length of the wait; newcomers need a free seat.
    fn grow(
        &mut self,
        weights: &mut BTreeMap<Address, u128>,
        wanted: &BTreeMap<Address, u128>,
        waits: &BTreeMap<Address, &Candidate>,
    ) {
        self.budget = self.budget.min(TOTAL_STAKE_MAX.saturating_sub(self.total));
        let has =
            |weights: &BTreeMap<Address, u128>, address: &Address| weights.get(address).copied().unwrap_or(0);
        let mut growing: Vec<_> = wanted
            .iter()
            .filter(|(address, goal)| has(weights, address) < **goal)
            .map(|(address, goal)| (waits.get(address).map_or(u64::MAX, |c| c.since), *address, *goal))
            .collect();
        growing.sort_unstable();
        for (_, address, goal) in growing {
            let held = has(weights, &address);
            let seat = held > 0 || weights.len() < self.max_validators;
            let amount = (goal - held).min(self.budget);
            if seat && amount > 0 {
                weights.insert(address, held + amount);
                self.budget -= amount;
                self.total += amount;
            }
        }
    }
}

fn in_order(
    previous: &[Validator],
    candidates: &[Candidate],
    mut weights: BTreeMap<Address, u128>,
) -> Vec<Validator> {
    let keys: BTreeMap<Address, PublicKey> = candidates.iter().map(|c| (c.address, c.public_key)).collect();
    let mut set = Vec::with_capacity(weights.len());
    let mut placed = BTreeSet::new();
    for member in previous {
        if let Some(weight) = weights.remove(&member.address) {
            let public_key = keys.get(&member.address).copied().unwrap_or(member.public_key);
            placed.insert(public_key);
            set.push(Validator { address: member.address, public_key, stake: Stake::new(weight) });
        }
    }
    for (address, weight) in weights {
        if let Some(public_key) = keys.get(&address).copied().filter(|key| placed.insert(*key)) {
            set.push(Validator { address, public_key, stake: Stake::new(weight) });
        }
    }
    set
}
