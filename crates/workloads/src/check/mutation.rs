//! Payloads that are wrong in one place, and the definition that says whether they are.

use alloy_primitives::{Address, U256};
use execution::{Access, AccessSet, AccountInfo, LANES_MAX, LanePlan, Object, ObjectValue, SEGMENTS_MAX};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// What is done to a plan.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mutation {
    RemoveAccess,
    AddAccess,
    FlipWrite,
    MoveTransaction,
    SwapTransactions,
    SwapSets,
    SwapLanes,
    JoinLanes,
    SplitLane,
    JoinSegments,
    CutSegment,
    ChangeTaken,
    RemoveTaken,
    AddTaken,
    RepeatTransaction,
    RemoveTransaction,
}

impl Mutation {
    pub(super) const ALL: [Self; 16] = [
        Self::RemoveAccess,
        Self::AddAccess,
        Self::FlipWrite,
        Self::MoveTransaction,
        Self::SwapTransactions,
        Self::SwapSets,
        Self::SwapLanes,
        Self::JoinLanes,
        Self::SplitLane,
        Self::JoinSegments,
        Self::CutSegment,
        Self::ChangeTaken,
        Self::RemoveTaken,
        Self::AddTaken,
        Self::RepeatTransaction,
        Self::RemoveTransaction,
    ];

    /// Changes a plan. What there is nothing of stays as it was.
    pub(super) fn apply(self, plan: &mut Vec<LanePlan>, rng: &mut ChaCha8Rng) {
        let mut spot = || Spot::choose(plan, rng);
        let (Some(one), Some(two)) = (spot(), spot()) else { return };
        match self {
            Self::RemoveAccess | Self::AddAccess | Self::FlipWrite => self.change_set(plan, one, rng),
            Self::MoveTransaction => {
                let moved = plan[one.lane][one.segment].transactions.remove(one.index);
                let target = &mut plan[two.lane][two.segment].transactions;
                target.insert(two.index.min(target.len()), moved);
            }
            Self::SwapTransactions => {
                let (first, second) = (one.transaction(plan).clone(), two.transaction(plan).clone());
                *one.transaction(plan) = second;
                *two.transaction(plan) = first;
            }
            Self::SwapSets => {
                let (first, second) = (one.transaction(plan).1.clone(), two.transaction(plan).1.clone());
                one.transaction(plan).1 = second;
                two.transaction(plan).1 = first;
            }
            Self::SwapLanes => plan.swap(one.lane, two.lane),
            Self::JoinLanes if one.lane != two.lane => {
                let joined = plan.remove(one.lane);
                let into = if two.lane > one.lane { two.lane - 1 } else { two.lane };
                plan[into].extend(joined);
            }
            Self::SplitLane => {
                let tail = plan[one.lane].split_off(one.segment);
                plan.push(tail);
            }
            Self::JoinSegments if one.segment > 0 => {
                let joined = plan[one.lane].remove(one.segment);
                plan[one.lane][one.segment - 1].transactions.extend(joined.transactions);
            }
            Self::CutSegment => {
                let tail = plan[one.lane][one.segment].transactions.split_off(one.index);
                let cut = execution::SegmentPlan { taken: Vec::new(), transactions: tail };
                plan[one.lane].insert(one.segment + 1, cut);
            }
            Self::ChangeTaken | Self::RemoveTaken | Self::AddTaken => self.change_taken(plan, one, rng),
            Self::RepeatTransaction => {
                let again = one.transaction(plan).clone();
                plan[two.lane][two.segment].transactions.push(again);
            }
            Self::RemoveTransaction => {
                plan[one.lane][one.segment].transactions.remove(one.index);
            }
            Self::JoinLanes | Self::JoinSegments => {}
        }
    }

    fn change_set(self, plan: &mut [LanePlan], spot: Spot, rng: &mut ChaCha8Rng) {
        let all: Vec<Access> = plan
            .iter()
            .flatten()
            .flat_map(|segment| &segment.transactions)
            .flat_map(|(_, set)| set.iter().copied())
            .collect();
        let (_, set) = spot.transaction(plan);
        let mut accesses: Vec<Access> = set.iter().copied().collect();
        let chosen = rng.random_range(0..accesses.len().max(1));
        match self {
            Self::RemoveAccess if !accesses.is_empty() => {
                accesses.remove(chosen);
            }
            Self::FlipWrite if !accesses.is_empty() => accesses[chosen].written ^= true,
            _ => {
                let stranger =
                    Access { object: Object::account(Address::repeat_byte(0x5a)), written: rng.random() };
                let known = all.choose(rng).copied().unwrap_or(stranger);
                accesses.push(if rng.random() { known } else { stranger });
            }
        }
        *set = AccessSet::new(accesses);
    }

    /// Mostly a segment that takes something over, if there is one.
    fn change_taken(self, plan: &mut [LanePlan], spot: Spot, rng: &mut ChaCha8Rng) {
        let object = plan[spot.lane][spot.segment].transactions[spot.index].1.iter().next().map(|a| a.object);
        let mut taking: Vec<_> =
            plan.iter_mut().flatten().filter(|segment| !segment.taken.is_empty()).collect();
        let Some(chosen) = (!taking.is_empty()).then(|| rng.random_range(0..taking.len())) else {
            let value = (object.unwrap_or(Object::account(Address::ZERO)), ObjectValue::Account(None));
            return plan[spot.lane][spot.segment].taken.push(value);
        };
        let taken = &mut taking[chosen].taken;
        let place = rng.random_range(0..taken.len());
        match self {
            Self::RemoveTaken => {
                taken.remove(place);
            }
            Self::AddTaken => {
                let object = object.unwrap_or(Object::account(Address::ZERO));
                taken.push((object, other_value(ObjectValue::Slot(U256::ZERO), rng)));
            }
            _ => taken[place].1 = other_value(taken[place].1, rng),
        }
    }
}

fn other_value(value: ObjectValue, rng: &mut ChaCha8Rng) -> ObjectValue {
    match value {
        ObjectValue::Slot(word) => {
            ObjectValue::Slot(word.wrapping_add(U256::from(rng.random_range(1..3u64))))
        }
        ObjectValue::Account(None) => {
            ObjectValue::Account(Some(AccountInfo { nonce: 1, ..AccountInfo::default() }))
        }
        ObjectValue::Account(Some(info)) => match rng.random_range(0..4) {
            0 => ObjectValue::Account(None),
            1 => ObjectValue::Account(Some(AccountInfo { nonce: info.nonce + 1, ..info })),
            2 => ObjectValue::Account(Some(AccountInfo { balance: info.balance + U256::from(1), ..info })),
            _ => {
                ObjectValue::Account(Some(AccountInfo { code_hash: rng.random::<[u8; 32]>().into(), ..info }))
            }
        },
    }
}

/// Where a transaction stands.
#[derive(Clone, Copy)]
struct Spot {
    lane: usize,
    segment: usize,
    index: usize,
}

impl Spot {
    fn choose(plan: &[LanePlan], rng: &mut ChaCha8Rng) -> Option<Self> {
        let lane = (!plan.is_empty()).then(|| rng.random_range(0..plan.len()))?;
        let segment = (!plan[lane].is_empty()).then(|| rng.random_range(0..plan[lane].len()))?;
        let count = plan[lane][segment].transactions.len();
        let index = (count > 0).then(|| rng.random_range(0..count))?;
        Some(Self { lane, segment, index })
    }

    fn transaction(self, plan: &mut [LanePlan]) -> &mut (alloy_primitives::Bytes, AccessSet) {
        &mut plan[self.lane][self.segment].transactions[self.index]
    }
}

/// By definition: whether lanes can be a payload, as far as they show it without being run.
pub(super) fn is_sound(plan: &[LanePlan]) -> bool {
    let segments: usize = plan.iter().map(Vec::len).sum();
    let whole = plan.iter().all(|lane| !lane.is_empty() && lane.iter().all(|s| !s.transactions.is_empty()));
    let independent = (0..plan.len()).all(|one| (0..one).all(|other| !conflict(&plan[one], &plan[other])));
    let listed = plan.iter().all(lane_lists_what_it_takes);
    plan.len() <= LANES_MAX && segments <= SEGMENTS_MAX && whole && independent && listed
}

fn accesses(lane: &[execution::SegmentPlan]) -> impl Iterator<Item = &Access> {
    lane.iter().flat_map(|segment| &segment.transactions).flat_map(|(_, set)| set)
}

fn conflict(one: &LanePlan, other: &LanePlan) -> bool {
    accesses(one).any(|a| accesses(other).any(|b| a.object == b.object && (a.written || b.written)))
}

fn lane_lists_what_it_takes(lane: &LanePlan) -> bool {
    (0..lane.len()).all(|position| {
        let written: BTreeSet<Object> =
            accesses(&lane[..position]).filter(|access| access.written).map(|access| access.object).collect();
        let touched: BTreeSet<Object> =
            accesses(&lane[position..=position]).map(|access| access.object).collect();
        let listed = lane[position].taken.iter().map(|(object, _)| object);
        touched.intersection(&written).eq(listed)
    })
}
