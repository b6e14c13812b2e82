//! What a build knows of the state: one cell per object that some candidate looked at, in shards that several threads
//! can fill and join.

use crate::{
    Object, ObjectValue, StateView, ViewError,
    diff::{DiffShard, SHARDS},
};
use alloy_primitives::{
    Address, U256,
    map::{AddressMap, B256Map, HashMap},
};
use revm::state::Bytecode;
use std::{
    collections::hash_map::Entry,
    ops::{Index, IndexMut},
};

/// Bytes of an account in a payload's table, with all that its slots need of it: address, owner, number of slots.
const ACCOUNT_BYTES: u32 = 20 + 1 + 3;

/// A cell of a sheet: its shard, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CellId(u32);

impl CellId {
    pub(super) fn new(shard: usize, index: usize) -> Self {
        Self((index * SHARDS + shard) as u32)
    }

    pub(super) fn shard(self) -> usize {
        self.0 as usize % SHARDS
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize / SHARDS
    }
}

/// An object somebody looked at.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub object: Object,
    /// When the sheet began.
    pub old: ObjectValue,
    pub new: ObjectValue,
    /// Number of the attempt that touched it last, and where in the list of touches that stands.
    pub stamp: u32,
    pub at: u32,
    /// By how many attempts.
    pub touches: u32,
    /// Whether a transaction that stays in the block writes it.
    pub written: bool,
    /// Whether a transaction that stays in the block touches it, so that it stands in the object table.
    pub used: bool,
    /// Whether it was used already when the sheet began.
    pub paid: bool,
    /// Bytes it takes in the table, at most; known once it is used.
    pub cost: u32,
}

/// One part of a sheet. Which one an object belongs to follows from the object, as in a diff.
#[derive(Debug, Default)]
pub(super) struct SheetShard {
    accounts: AddressMap<u32>,
    slots: HashMap<(Address, U256), u32>,
    pub cells: Vec<Cell>,
}

impl SheetShard {
    fn find(&self, object: &Object) -> Option<u32> {
        match object.slot {
            None => self.accounts.get(&object.address).copied(),
            Some(slot) => self.slots.get(&(object.address, slot)).copied(),
        }
    }

    /// The place of an object's cell; makes it with what `value` tells of it: its value, and whether it is used.
    fn place<E>(
        &mut self,
        object: &Object,
        value: impl FnOnce() -> Result<(ObjectValue, bool), E>,
    ) -> Result<usize, E> {
        let cells = &mut self.cells;
        let make = || {
            let (value, paid) = value()?;
            let (object, old, new, used) = (*object, value, value, paid);
            let (stamp, at, touches, written, cost) = (0, 0, 0, false, 0);
            cells.push(Cell { object, old, new, stamp, at, touches, written, used, paid, cost });
            Ok(cells.len() as u32 - 1)
        };
        let index = match object.slot {
            None => match self.accounts.entry(object.address) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => *entry.insert(make()?),
            },
            Some(slot) => match self.slots.entry((object.address, slot)) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => *entry.insert(make()?),
            },
        };
        Ok(index as usize)
    }

    /// The place of a cell like one of another sheet of the same shard.
    pub(super) fn place_like(&mut self, other: &Cell) -> usize {
        let found: Result<usize, std::convert::Infallible> =
            self.place(&other.object, || Ok((other.old, other.paid)));
        match found {
            Ok(index) => index,
        }
    }
}

/// Cells of all shards, and the code their accounts may have.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    pub shards: [SheetShard; SHARDS],
    pub code: B256Map<Bytecode>,
    /// Attempts so far.
    stamp: u32,
}

impl Index<CellId> for Sheet {
    type Output = Cell;

    fn index(&self, id: CellId) -> &Cell {
        &self.shards[id.shard()].cells[id.index()]
    }
}

impl IndexMut<CellId> for Sheet {
    fn index_mut(&mut self, id: CellId) -> &mut Cell {
        &mut self.shards[id.shard()].cells[id.index()]
    }
}

impl Sheet {
    /// An object's cell, if somebody looked at it.
    pub(super) fn find(&self, object: &Object) -> Option<CellId> {
        let shard = shard_of(object);
        Some(CellId::new(shard, self.shards[shard].find(object)? as usize))
    }

    /// An object's cell, read from `below` or the view when nobody looked at it before.
    pub(super) fn cell(
        &mut self,
        object: Object,
        below: Option<&Sheet>,
        view: &dyn StateView,
    ) -> Result<CellId, ViewError> {
        let shard = shard_of(&object);
        let index = self.shards[shard].place(&object, || {
            let known = below.and_then(|below| below.find(&object).map(|id| &below[id]));
            if let Some(cell) = known {
                return Ok((cell.new, cell.used));
            }
            let value = match object.slot {
                None => ObjectValue::Account(view.account(object.address)?),
                Some(slot) => ObjectValue::Slot(view.storage(object.address, slot)?),
            };
            Ok::<_, ViewError>((value, false))
        })?;
        Ok(CellId::new(shard, index))
    }

    /// The cell of an object that a transaction makes: nothing was there, so nothing is read.
    pub(super) fn absent(&mut self, object: Object) -> CellId {
        let nothing = match object.slot {
            None => ObjectValue::Account(None),
            Some(_) => ObjectValue::Slot(U256::ZERO),
        };
        let shard = shard_of(&object);
        let index: Result<usize, std::convert::Infallible> =
            self.shards[shard].place(&object, || Ok((nothing, false)));
        match index {
            Ok(index) => CellId::new(shard, index),
        }
    }

    /// Begins an attempt: touches from here on are its own.
    pub(super) fn begin(&mut self) {
        self.stamp += 1;
    }

    /// Notes that the attempt touches a cell, once.
    pub(super) fn touch(&mut self, id: CellId, touches: &mut Vec<Touch>) -> &mut Cell {
        let stamp = self.stamp;
        let cell = &mut self[id];
        if cell.stamp != stamp {
            (cell.stamp, cell.at) = (stamp, touches.len() as u32);
            cell.touches = cell.touches.saturating_add(1);
            touches.push(Touch { cell: id, written: false });
        }
        cell
    }

    /// Begins an attempt that was made before: its touches are its own again.
    pub(super) fn resume(&mut self, touches: &[Touch]) {
        self.begin();
        for touch in touches {
            self[touch.cell].stamp = self.stamp;
        }
    }

    /// Bytes in the object table, and number, of the objects of the attempt's touches that are not used yet.
    pub(super) fn charge(&mut self, touches: &[Touch]) -> (u64, u64) {
        let (mut bytes, mut objects) = (0, 0);
        for touch in touches {
            let cell = &self[touch.cell];
            if cell.used {
                continue;
            }
            let cost = match cell.object.slot {
                None => ACCOUNT_BYTES,
                Some(slot) => {
                    let account = self.find(&Object::account(cell.object.address));
                    let listed = account.is_some_and(|id| self[id].stamp == self.stamp || self[id].used);
                    let account = if listed { 0 } else { ACCOUNT_BYTES };
                    2 + slot.byte_len() as u32 + account
                }
            };
            self[touch.cell].cost = cost;
            bytes += u64::from(cost);
            objects += 1;
        }
        (bytes, objects)
    }

    /// Makes room for about so many more accounts.
    pub(super) fn reserve(&mut self, accounts: usize) {
        for shard in &mut self.shards {
            let more = accounts / SHARDS;
            shard.accounts.reserve(more);
            shard.cells.reserve(more);
        }
    }

    /// Number of cells.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.cells.len()).sum()
    }
}

/// That an attempt touches a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    pub cell: CellId,
    pub written: bool,
}

pub(super) fn shard_of(object: &Object) -> usize {
    match &object.slot {
        None => DiffShard::of_account(&object.address),
        Some(slot) => DiffShard::of_slot(&object.address, slot),
    }
}
