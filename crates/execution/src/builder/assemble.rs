//! Makes payload and outcome of what a build included, without running anything again.

use super::{
    block::{Block, Included},
    pack::{PackedLane, Row},
    sheet::{CellId, Sheet},
    speculate::Ran,
};
use crate::{
    Entry, Lane, Object, Owner, Payload, PayloadError, PayloadTransactions, PayloadTx, Segment, StateDiff,
    TableEntry, TxReceipt, diff::DiffShard, evm::Mark, lanes::number, run::Totals,
};
use alloy_primitives::U256;
use rayon::prelude::*;

/// With fewer objects, handing work to other threads costs more than the work.
const SERIAL_BELOW: usize = 512;

/// The payload of a packed block.
pub(super) fn payload(block: &Block, row: &Row, lanes: &[PackedLane]) -> Result<Payload, PayloadError> {
    let table = Table::new(block, row, lanes);
    let encoded = lanes.iter().map(|lane| lane_of(block, &table, lane));
    let (mut made, mut entries): (Vec<Lane>, Vec<Entry>) = (Vec::with_capacity(lanes.len()), Vec::new());
    entries.reserve(block.trace.touches.len());
    for make in encoded {
        made.push(make(&mut entries));
    }
    Payload::numbered(table.objects, made, entries)
}

fn lane_of<'a>(
    block: &'a Block,
    table: &'a Table<'a>,
    lane: &'a PackedLane,
) -> impl FnOnce(&mut Vec<Entry>) -> Lane + 'a {
    move |entries| {
        let mut transaction = |member: &u32| {
            let Included { transaction, touches, .. } = &block.included[*member as usize];
            let start = entries.len();
            let touches = block.trace.touches(touches);
            let entry = |touch: &super::sheet::Touch| Entry {
                object: table.number(touch.cell),
                written: touch.written,
            };
            entries.extend(touches.iter().map(entry));
            entries[start..].sort_unstable_by_key(|entry| entry.object);
            PayloadTx::new(transaction.encoded().clone(), start as u32..entries.len() as u32)
        };
        let segments = lane.segments.iter().map(|segment| {
            let mut taken: Vec<_> =
                segment.taken.iter().map(|(id, value)| (table.number(*id), *value)).collect();
            taken.sort_unstable_by_key(|(number, _)| *number);
            let transactions = lane.members[segment.members.clone()].iter().map(&mut transaction).collect();
            Segment { taken, transactions }
        });
        Lane { segments: segments.collect() }
    }
}

/// The payload's object table.
struct Table<'a> {
    row: &'a Row,
    objects: Vec<TableEntry>,
    /// Per cell: its number in the table.
    numbers: Vec<u32>,
}

impl<'a> Table<'a> {
    fn new(block: &Block, row: &'a Row, lanes: &[PackedLane]) -> Self {
        let ordered = in_order(&block.sheet);
        let owners = owners(block, row, lanes);
        let mut numbers = vec![u32::MAX; row.len()];
        let objects = ordered.iter().enumerate().map(|(number, (object, id))| {
            let at = row.at(*id);
            numbers[at] = number as u32;
            TableEntry { object: *object, owner: owners[at] }
        });
        let objects = objects.collect();
        Self { row, objects, numbers }
    }

    fn number(&self, id: CellId) -> u32 {
        self.numbers[self.row.at(id)]
    }
}

/// The objects that included transactions touch, ascending.
fn in_order(sheet: &Sheet) -> Vec<(Object, CellId)> {
    // The first bytes of the address decide nearly always.
    let mut order: Vec<(u64, CellId)> = Vec::with_capacity(sheet.len());
    for (shard, part) in sheet.shards.iter().enumerate() {
        let used = part.cells.iter().enumerate().filter(|(_, cell)| cell.used);
        let prefix =
            |object: &Object| object.address.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        order.extend(used.map(|(index, cell)| (prefix(&cell.object), CellId::new(shard, index))));
    }
    let compare = |a: &(u64, CellId), b: &(u64, CellId)| {
        a.0.cmp(&b.0).then_with(|| sheet[a.1].object.cmp(&sheet[b.1].object))
    };
    match order.len() {
        0..SERIAL_BELOW => order.sort_unstable_by(compare),
        _ => order.par_sort_unstable_by(compare),
    }
    order.into_iter().map(|(_, id)| (sheet[id].object, id)).collect()
}

/// Who may touch each object: the one lane that does, or all when several look.
fn owners(block: &Block, row: &Row, lanes: &[PackedLane]) -> Vec<Owner> {
    let mut owners: Vec<Option<Owner>> = vec![None; row.len()];
    for (number, lane) in lanes.iter().enumerate() {
        let own = Owner::Lane(number as u8);
        for member in &lane.members {
            for touch in block.trace.touches(&block.included[*member as usize].touches) {
                let owner = &mut owners[row.at(touch.cell)];
                *owner = match *owner {
                    None => Some(own),
                    Some(other) if other != own => Some(Owner::Shared),
                    same => same,
                };
            }
        }
    }
    owners.into_iter().map(|owner| owner.unwrap_or(Owner::Shared)).collect()
}

/// What the block's transactions changed.
pub(super) fn changes(sheet: &Sheet) -> StateDiff {
    let make = |shard: usize| {
        let mut part = DiffShard::default();
        for cell in sheet.shards[shard].cells.iter().filter(|cell| cell.written) {
            let Object { address, slot } = cell.object;
            match slot {
                None => part.set_account(address, cell.old.account(), cell.new.account()),
                Some(slot) => part.set_slot(address, slot, cell.old.word(), cell.new.word()),
            }
        }
        part
    };
    let mut diff = StateDiff::from_shards(sheet.len() >= SERIAL_BELOW, make);
    diff.take_code(|hash| sheet.code.get(hash).map(revm::state::Bytecode::original_bytes));
    diff
}

/// The transactions in their lanes.
pub(super) fn transactions(block: &Block, lanes: &[PackedLane]) -> PayloadTransactions {
    let transaction = |member: &u32| block.included[*member as usize].transaction.clone();
    let lane = |lane: &PackedLane| lane.members.iter().map(transaction).collect();
    PayloadTransactions { lanes: lanes.iter().map(lane).collect() }
}

/// Receipts in canonical order.
pub(super) fn receipts(
    ran: Vec<Ran>,
    block: &Block,
    lanes: &[PackedLane],
    base_fee: u64,
) -> (Vec<TxReceipt>, Totals) {
    let fees = ran.iter().fold(U256::ZERO, |sum, ran| sum.saturating_add(ran.fee));
    let mut ran: Vec<Option<Mark>> = ran.into_iter().map(|ran| Some(ran.mark)).collect();
    let (mut marks, mut transactions) = (Vec::with_capacity(ran.len()), Vec::with_capacity(ran.len()));
    for member in lanes.iter().flat_map(|lane| &lane.members) {
        marks.extend(ran[*member as usize].take());
        transactions.push(&block.included[*member as usize].transaction);
    }
    number(transactions, marks, base_fee, fees)
}
