//! Packs what a build included into lanes, and cuts hot lanes into segments (specs/lanes.md, L-4).
//!
//! # Invariants
//! - Transactions that touch a common object which one of them writes are in one lane, in the order they ran in.
//! - A segment takes over no account whose code changed before it in its lane: validators could not run that code.

use super::{
    block::Block,
    groups::Joined,
    sheet::{CellId, Sheet},
};
use crate::{AccountInfo, LANES_MAX, ObjectValue, SEGMENTS_MAX, diff::SHARDS};
use alloy_primitives::KECCAK256_EMPTY;
use std::ops::Range;

/// Transactions per lane, at least, while there is more than one lane.
const LANE_TRANSACTIONS: usize = 16;
/// A lane with more than this part of the block's gas is cut.
const FAIR_PARTS: u64 = 8;
/// The pieces that a lane with all of the block's gas is cut into.
const PIECES: u64 = 32;
/// Transactions per segment, at least, while a lane has more than one.
const SEGMENT_TRANSACTIONS: usize = 32;
/// Encoded bytes of a lane of one segment, beside its transactions.
const LANE_BYTES: u64 = 1 + SEGMENT_BYTES;
/// Encoded bytes of a segment, beside its transactions and what it takes over.
const SEGMENT_BYTES: u64 = 3 + 3;
/// Encoded bytes of the number of an object.
const NUMBER_BYTES: u64 = 3;

/// Cells of all shards as one row of numbers.
pub(super) struct Row {
    offsets: [usize; SHARDS],
    len: usize,
}

impl Row {
    pub(super) fn of(sheet: &Sheet) -> Self {
        let (mut offsets, mut len) = ([0; SHARDS], 0);
        for (offset, shard) in offsets.iter_mut().zip(&sheet.shards) {
            *offset = len;
            len += shard.cells.len();
        }
        Self { offsets, len }
    }

    pub(super) fn at(&self, id: CellId) -> usize {
        self.offsets[id.shard()] + id.index()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// A lane: which transactions, in order, and how it is cut.
#[derive(Debug, Default)]
pub(super) struct PackedLane {
    pub members: Vec<u32>,
    pub gas: u64,
    pub segments: Vec<PackedSegment>,
}

/// A piece of a lane.
#[derive(Debug)]
pub(super) struct PackedSegment {
    /// Which of the lane's members.
    pub members: Range<usize>,
    /// What it takes over, in no order.
    pub taken: Vec<(CellId, ObjectValue)>,
}

/// Packs a block, with `bytes` left in its payload. Tells which component each transaction belongs to, too.
pub(super) fn pack(block: &Block, row: &Row, bytes: u64) -> (Vec<PackedLane>, Vec<u32>) {
    let (component_of, components) = components(block, row);
    let mut lanes = lanes(block, &component_of, components, bytes);
    let mut left = bytes.saturating_sub(LANE_BYTES * lanes.len() as u64);
    let mut pieces = SEGMENTS_MAX - lanes.len();
    let total: u64 = lanes.iter().map(|lane| lane.gas).sum();
    let mut cutter = Cutter { block, row, first: vec![(u32::MAX, 0); row.len()], marks: Vec::new() };
    for (number, lane) in lanes.iter_mut().enumerate() {
        lane.segments = cutter.cut(number as u32, lane, total, pieces, &mut left);
        pieces -= lane.segments.len() - 1;
    }
    (lanes, component_of)
}

/// Components of transactions that depend on each other, the heaviest first, each into the lightest lane.
fn lanes(block: &Block, component_of: &[u32], mut components: Vec<Component>, bytes: u64) -> Vec<PackedLane> {
    let affordable = usize::try_from(bytes / LANE_BYTES).unwrap_or(usize::MAX);
    let wanted = (block.included.len() / LANE_TRANSACTIONS).min(affordable).clamp(1, LANES_MAX);
    let mut lanes: Vec<PackedLane> = Vec::new();
    lanes.resize_with(wanted.min(components.len()), PackedLane::default);
    components.sort_unstable_by_key(|component| (std::cmp::Reverse(component.gas), component.number));
    let mut lane_of = vec![0; components.len()];
    for component in &components {
        let lightest = (0..lanes.len()).min_by_key(|lane| lanes[*lane].gas).unwrap_or_default();
        lane_of[component.number as usize] = lightest;
        lanes[lightest].gas += component.gas;
    }
    for (member, component) in component_of.iter().enumerate() {
        lanes[lane_of[*component as usize]].members.push(member as u32);
    }
    lanes
}

struct Component {
    number: u32,
    gas: u64,
}

/// Which component each transaction belongs to.
fn components(block: &Block, row: &Row) -> (Vec<u32>, Vec<Component>) {
    let mut written = vec![false; row.len()];
    for included in &block.included {
        for touch in block.trace.touches(&included.touches).iter().filter(|touch| touch.written) {
            written[row.at(touch.cell)] = true;
        }
    }
    let mut joined = Joined::new(row.len());
    let mut roots = Vec::with_capacity(block.included.len());
    for included in &block.included {
        let mut first = None;
        for touch in block.trace.touches(&included.touches) {
            let at = row.at(touch.cell);
            if written[at] {
                joined.join(*first.get_or_insert(at as u32), at as u32);
            }
        }
        roots.push(first);
    }
    let mut numbers = vec![u32::MAX; row.len()];
    let (mut component_of, mut components) = (Vec::with_capacity(roots.len()), Vec::<Component>::new());
    for (included, root) in block.included.iter().zip(roots) {
        let fresh = components.len() as u32;
        // A transaction that depends on nothing is a component of its own.
        let number = match root {
            None => fresh,
            Some(root) => {
                let number = &mut numbers[joined.root(root) as usize];
                *number = (*number).min(fresh);
                *number
            }
        };
        if number == fresh {
            components.push(Component { number, gas: 0 });
        }
        components[number as usize].gas += included.gas_used;
        component_of.push(number);
    }
    (component_of, components)
}

struct Cutter<'a> {
    block: &'a Block,
    row: &'a Row,
    /// Per object: the lane that wrote it last, and what it did to it.
    first: Vec<(u32, u32)>,
    marks: Vec<Mark>,
}

/// What the lane at hand does to an object.
struct Mark {
    /// Position in the lane of the first transaction that writes it.
    written: usize,
    /// Position of the first one that changes its code.
    recoded: usize,
    /// The last segment that was found to touch it.
    seen: usize,
    /// Its value where the walk through the lane is.
    value: Option<ObjectValue>,
}

impl Cutter<'_> {
    fn cut(
        &mut self,
        number: u32,
        lane: &PackedLane,
        total: u64,
        pieces: usize,
        bytes: &mut u64,
    ) -> Vec<PackedSegment> {
        let whole = || vec![PackedSegment { members: 0..lane.members.len(), taken: Vec::new() }];
        let hot = lane.gas > total / FAIR_PARTS;
        if !hot || lane.members.len() < 2 * SEGMENT_TRANSACTIONS || pieces == 0 {
            return whole();
        }
        self.mark(number, lane);
        let target = (total / PIECES).max(lane.gas / (pieces as u64 + 1)).max(1);
        let cuts = self.cuts(number, lane, target);
        let segments = self.segments(number, lane, &cuts);
        let cost: u64 = segments.iter().skip(1).map(segment_bytes).sum();
        if cost > *bytes {
            return whole();
        }
        *bytes -= cost;
        segments
    }

    /// Notes where the lane first writes each object.
    fn mark(&mut self, number: u32, lane: &PackedLane) {
        self.marks.clear();
        for (position, member) in lane.members.iter().enumerate() {
            let included = &self.block.included[*member as usize];
            for (id, value) in self.block.trace.writes(&included.writes) {
                let first = &mut self.first[self.row.at(*id)];
                if first.0 != number {
                    *first = (number, self.marks.len() as u32);
                    let (recoded, seen, value) = (usize::MAX, usize::MAX, None);
                    self.marks.push(Mark { written: position, recoded, seen, value });
                }
                let mark = &mut self.marks[first.1 as usize];
                let before = self.block.sheet[*id].old.account();
                if code_hash(value.account()) != code_hash(before) {
                    mark.recoded = mark.recoded.min(position);
                }
            }
        }
    }

    fn mark_of(&mut self, number: u32, id: CellId) -> Option<&mut Mark> {
        let (lane, mark) = self.first[self.row.at(id)];
        if lane == number { self.marks.get_mut(mark as usize) } else { None }
    }

    /// Where segments begin: after about equal gas, but for places where a segment would take over too much.
    fn cuts(&mut self, number: u32, lane: &PackedLane, target: u64) -> Vec<usize> {
        let (mut cuts, mut gas, mut from) = (vec![0], 0, 0);
        for position in 0..=lane.members.len() {
            let count = position - from;
            let left = lane.members.len() - position;
            let enough = gas >= target && count >= SEGMENT_TRANSACTIONS && left >= SEGMENT_TRANSACTIONS;
            if enough || left == 0 {
                // The segment that ends here must be worth what it takes over; else it joins the one before.
                while let Some(start) = cuts.last().copied()
                    && start > 0
                    && !self.is_worth(number, lane, start..position)
                {
                    cuts.pop();
                }
                if left > 0 {
                    cuts.push(position);
                }
                (gas, from) = (0, position);
            }
            if let Some(member) = lane.members.get(position) {
                gas += self.block.included[*member as usize].gas_used;
            }
        }
        cuts
    }

    /// Whether a segment takes over no more values than it has transactions, and none it cannot.
    fn is_worth(&mut self, number: u32, lane: &PackedLane, segment: Range<usize>) -> bool {
        let (start, stamp) = (segment.start, segment.start * (lane.members.len() + 1) + segment.end);
        let (block, count) = (self.block, segment.len());
        let mut taken = 0;
        for member in &lane.members[segment] {
            let included = &block.included[*member as usize];
            for touch in block.trace.touches(&included.touches) {
                let Some(mark) = self.mark_of(number, touch.cell) else { continue };
                if mark.written >= start || mark.seen == stamp {
                    continue;
                }
                mark.seen = stamp;
                taken += 1;
                if mark.recoded < start || taken > count {
                    return false;
                }
            }
        }
        true
    }

    /// The segments, with the values they take over: one walk through the lane.
    fn segments(&mut self, number: u32, lane: &PackedLane, cuts: &[usize]) -> Vec<PackedSegment> {
        let block = self.block;
        let ends = cuts.iter().skip(1).copied().chain([lane.members.len()]);
        let mut segments = Vec::with_capacity(cuts.len());
        // Stamps of the search for cuts are all above this.
        for mark in &mut self.marks {
            mark.seen = usize::MAX;
        }
        for (stamp, (start, end)) in cuts.iter().copied().zip(ends).enumerate() {
            let mut taken = Vec::new();
            for member in &lane.members[start..end] {
                for touch in block.trace.touches(&block.included[*member as usize].touches) {
                    let Some(mark) = self.mark_of(number, touch.cell) else { continue };
                    if mark.written < start && mark.seen != stamp {
                        mark.seen = stamp;
                        taken.extend(mark.value.map(|value| (touch.cell, value)));
                    }
                }
            }
            for member in &lane.members[start..end] {
                for (id, value) in block.trace.writes(&block.included[*member as usize].writes) {
                    if let Some(mark) = self.mark_of(number, *id) {
                        mark.value = Some(*value);
                    }
                }
            }
            segments.push(PackedSegment { members: start..end, taken });
        }
        segments
    }
}

fn code_hash(info: Option<AccountInfo>) -> alloy_primitives::B256 {
    info.map_or(KECCAK256_EMPTY, |info| info.code_hash)
}

/// Encoded bytes of a segment beside its transactions, at most.
fn segment_bytes(segment: &PackedSegment) -> u64 {
    let value = |value: &ObjectValue| match value {
        ObjectValue::Slot(word) => 1 + word.byte_len() as u64,
        ObjectValue::Account(None) => 1,
        ObjectValue::Account(Some(info)) => {
            let code = if info.has_code() { 32 } else { 0 };
            1 + 10 + 1 + info.balance.byte_len() as u64 + code
        }
    };
    let taken = segment.taken.iter().map(|(_, taken)| NUMBER_BYTES + value(taken));
    SEGMENT_BYTES + taken.sum::<u64>()
}
