//! Lanes made the naive way, and at random: whatever is independent may stand anywhere.

use crate::random::World;
use alloy_primitives::{Address, U256};
use execution::{
    AccessSet, AccountInfo, BlockOutcome, LANES_MAX, LanePlan, Object, ObjectValue, RecoveredTx, SegmentPlan,
    StateView,
};
use rand::{Rng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use staking::REGISTRY;
use std::collections::BTreeSet;

/// A transaction and what it touches.
pub(super) type Footprint = (RecoveredTx, AccessSet);

/// Segments that one block is cut into, beside its lanes, at most: each costs runs of the oracle.
const CUTS: usize = 8;

/// Puts transactions that conflict into one lane, in their order, and others where chance wants them.
pub(super) fn lanes(transactions: &[Footprint], rng: &mut ChaCha8Rng) -> Vec<Vec<Footprint>> {
    let groups = independent_groups(transactions);
    let count = groups.iter().max().map_or(0, |group| group + 1);
    let spread = rng.random_range(1..=count.clamp(1, LANES_MAX));
    let mut lane_of: Vec<usize> = (0..count).map(|group| group % spread).collect();
    lane_of.shuffle(rng);
    let mut lanes = vec![Vec::new(); spread];
    for (transaction, group) in transactions.iter().zip(groups) {
        lanes[lane_of[group]].push(transaction.clone());
    }
    lanes.retain(|lane| !lane.is_empty());
    lanes
}

/// For each transaction the number of its group; groups do not conflict.
fn independent_groups(transactions: &[Footprint]) -> Vec<usize> {
    let mut groups: Vec<usize> = (0..transactions.len()).collect();
    for (one, (_, set)) in transactions.iter().enumerate() {
        for other in 0..one {
            let (mine, theirs) = (groups[one], groups[other]);
            if mine != theirs && transactions[other].1.conflicts_with(set) {
                groups.iter_mut().filter(|group| **group == mine).for_each(|group| *group = theirs);
            }
        }
    }
    let names: Vec<usize> = BTreeSet::from_iter(groups.iter().copied()).into_iter().collect();
    groups.iter().map(|group| names.binary_search(group).unwrap_or_default()).collect()
}

/// Cuts lanes into segments at random places and lists what each takes over. A `bold` plan may take over code that is
/// new in the block, which every node has to refuse.
pub(super) fn plan(
    world: &World,
    lanes: &[Vec<Footprint>],
    bold: bool,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<LanePlan>, String> {
    let (ratio, mut cuts_left) = ([0.0, 0.2, 1.0][rng.random_range(0..3)], CUTS);
    let mut plans = Vec::with_capacity(lanes.len());
    for lane in lanes {
        let mut cuts: Vec<usize> = (1..lane.len()).filter(|_| rng.random_bool(ratio)).collect();
        cuts.truncate(cuts_left);
        cuts_left -= cuts.len();
        plans.push(segments(world, lane, cuts, bold)?);
    }
    Ok(plans)
}

/// Segments that begin at `cuts`. Unless the plan is bold, one that cannot be listed is joined to the one before.
fn segments(world: &World, lane: &[Footprint], cuts: Vec<usize>, bold: bool) -> Result<LanePlan, String> {
    let mut starts = vec![0];
    for end in cuts.into_iter().chain([lane.len()]) {
        while let Some(start) = starts.last().copied().filter(|start| *start > 0)
            && !bold
            && taken(world, lane, start, end)?.unlistable
        {
            starts.pop();
        }
        starts.push(end);
    }
    let mut plan = Vec::with_capacity(starts.len());
    for pair in starts.windows(2) {
        let transactions = lane[pair[0]..pair[1]].iter();
        plan.push(SegmentPlan {
            taken: taken(world, lane, pair[0], pair[1])?.values,
            transactions: transactions.map(|(tx, set)| (tx.encoded().clone(), set.clone())).collect(),
        });
    }
    Ok(plan)
}

/// What a segment takes over.
#[derive(Default)]
struct Taken {
    values: Vec<(Object, ObjectValue)>,
    /// Whether one is an account whose code is another one than before the block, which no payload can list, or a word of
    /// the registry in the last block of an epoch: the block's end changes it once more, so that it is not found here.
    unlistable: bool,
}

/// What `lane[start..end]` touches of what was written before it, with the values that the oracle finds there.
fn taken(world: &World, lane: &[Footprint], start: usize, end: usize) -> Result<Taken, String> {
    let (before, segment) = (&lane[..start], &lane[start..end]);
    let written = before.iter().flat_map(|(_, set)| set).filter(|access| access.written);
    let written: BTreeSet<Object> = written.map(|access| access.object).collect();
    let touched: BTreeSet<Object> = segment.iter().flat_map(|(_, set)| set).map(|a| a.object).collect();
    let needed: Vec<Object> = touched.intersection(&written).copied().collect();
    if needed.is_empty() {
        return Ok(Taken::default());
    }
    let transactions = before.iter().map(|(transaction, _)| transaction.clone()).collect();
    let outcome =
        world.chain.execute(transactions).map_err(|error| format!("the oracle refuses a prefix: {error}"))?;
    let mut taken = Taken::default();
    for object in needed {
        let value = match object.slot {
            Some(slot) => ObjectValue::Slot(word_after(world, &outcome, object.address, slot)),
            None => {
                let new = account_after(world, before, &outcome, object.address);
                let code = |info: Option<AccountInfo>| info.unwrap_or_default().code_hash;
                let old = world.chain.state.account(object.address).unwrap_or_default();
                taken.unlistable |= code(old) != code(new);
                ObjectValue::Account(new)
            }
        };
        taken.unlistable |= object.address == REGISTRY && outcome.system.next_validators.is_some();
        taken.values.push((object, value));
    }
    Ok(taken)
}

fn word_after(world: &World, outcome: &BlockOutcome, address: Address, slot: U256) -> U256 {
    let old = world.chain.state.storage(address, slot).unwrap_or_default();
    outcome.diff.slot(&address, &slot).map_or(old, |change| change.new)
}

/// An account after some transactions: what a block of them made of it, less the fees that only its end credits.
fn account_after(
    world: &World,
    transactions: &[Footprint],
    outcome: &BlockOutcome,
    address: Address,
) -> Option<AccountInfo> {
    let old = world.chain.state.account(address).unwrap_or_default();
    let mut info = outcome.diff.account(&address).map_or(old, |change| change.new).unwrap_or_default();
    if address == world.chain.fee_recipient {
        let tips = transactions.iter().zip(&outcome.receipts).map(|((transaction, _), receipt)| {
            let tip = transaction.effective_tip(world.chain.base_fee).unwrap_or_default();
            U256::from(tip) * U256::from(receipt.gas_used)
        });
        info.balance -= tips.sum::<U256>();
    }
    (!info.is_empty()).then_some(info)
}
