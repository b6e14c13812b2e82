//! Joins what several threads ran at once: finds where they met, gives up what depended on that, and takes over the
//! rest.
//!
//! # Invariants
//! - What stays of a batch is what the threads' transactions would do one thread after the other: no object that one
//!   thread's transactions write is touched by another's, and nothing that stays depends on what is given up.
//! - A refusal stays only if nothing that it looked at was written by another thread: in the order that candidates
//!   came in, it might have been none.

use super::{
    sheet::{CellId, Sheet, SheetShard},
    speculate::{Attempt, Attempted, Trace},
};
use crate::{Object, diff::SHARDS};
use alloy_primitives::map::HashMap;
use rayon::prelude::*;

/// What one thread did with its part of a batch.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub sheet: Sheet,
    pub trace: Trace,
    pub attempts: Vec<Attempt>,
}

/// An object that several threads touched and at least one of them wrote.
#[derive(Clone, Debug)]
pub(super) struct Conflict {
    pub object: Object,
    /// The thread whose claim stands.
    keeper: usize,
    /// Whether it writes the object.
    written: bool,
}

/// Where the cells of a thread's sheet stand in the common one.
pub(super) struct Places(Vec<[Vec<u32>; SHARDS]>);

impl Places {
    /// Makes the traces name cells of the common sheet.
    pub(super) fn rename(&self, works: &mut [Work]) {
        works.par_iter_mut().with_max_len(1).zip(&self.0).for_each(|(work, places)| {
            let place = |id: CellId| CellId::new(id.shard(), places[id.shard()][id.index()] as usize);
            work.trace.touches.iter_mut().for_each(|touch| touch.cell = place(touch.cell));
            work.trace.writes.iter_mut().for_each(|(id, _)| *id = place(*id));
        });
    }
}

/// Makes room in the common sheet for all that the threads looked at, and tells where they met.
pub(super) fn place(common: &mut Sheet, works: &[Work]) -> (Places, Vec<Conflict>) {
    let parts = common.shards.par_iter_mut().with_max_len(1).enumerate();
    let placed: Vec<_> = parts.map(|(number, shard)| place_shard(number, shard, works)).collect();
    let mut places: Vec<[Vec<u32>; SHARDS]> = works.iter().map(|_| Default::default()).collect();
    let mut conflicts = Vec::new();
    for (number, (shard, met)) in placed.into_iter().enumerate() {
        for (work, indices) in shard.into_iter().enumerate() {
            places[work][number] = indices;
        }
        conflicts.extend(met);
    }
    (Places(places), conflicts)
}

fn place_shard(number: usize, shard: &mut SheetShard, works: &[Work]) -> (Vec<Vec<u32>>, Vec<Conflict>) {
    // Per cell: the thread that came first, from 1.
    let mut first = vec![0; shard.cells.len()];
    let mut met = Vec::new();
    let mut places = Vec::with_capacity(works.len());
    for (work, part) in works.iter().enumerate() {
        let cells = &part.sheet.shards[number].cells;
        let place = |cell| {
            let index = shard.place_like(cell);
            if index == first.len() {
                first.push(0);
            }
            match first[index] {
                0 => first[index] = work + 1,
                _ => met.push(cell.object),
            }
            index as u32
        };
        places.push(cells.iter().map(place).collect());
    }
    met.sort_unstable();
    met.dedup();
    (places, met.into_iter().filter_map(|object| conflict(object, works)).collect())
}

/// The claim that stands is that of the thread with the most to lose.
fn conflict(object: Object, works: &[Work]) -> Option<Conflict> {
    let claims = || {
        let cell = |work: &Work| work.sheet.find(&object).map(|id| work.sheet[id].clone());
        works.iter().enumerate().filter_map(move |(number, work)| Some((number, cell(work)?)))
    };
    if !claims().any(|(_, cell)| cell.written) {
        return None;
    }
    let (keeper, cell) = claims().max_by_key(|(number, cell)| (cell.touches, std::cmp::Reverse(*number)))?;
    Some(Conflict { object, keeper, written: cell.written })
}

/// Which attempts that touch an object are given up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Refusals,
    RefusalsAndWrites,
    All,
}

/// Takes out of thread number `number` what conflicts with the claims that stand, and all that depends on it. Returns
/// the candidates, to be tried again.
pub(super) fn evict(number: usize, work: &mut Work, conflicts: &[Conflict]) -> Vec<u32> {
    let mut lost: HashMap<CellId, Lost> = HashMap::default();
    for conflict in conflicts {
        if let Some(id) = work.sheet.find(&conflict.object) {
            let kind = match (conflict.keeper == number, conflict.written) {
                (true, _) => Lost::Refusals,
                // Where the keeper only looks, others may look too.
                (false, false) => Lost::RefusalsAndWrites,
                (false, true) => Lost::All,
            };
            lost.insert(id, kind);
        }
    }
    if lost.is_empty() {
        return Vec::new();
    }
    let mut evicted = Vec::new();
    let trace = &work.trace;
    work.attempts.retain(|attempt| {
        let touches = trace.touches(&attempt.touches);
        let refused = !matches!(attempt.result, Attempted::Ran(_));
        let hit = touches.iter().any(|touch| match lost.get(&touch.cell) {
            None => false,
            Some(Lost::Refusals) => refused,
            Some(Lost::RefusalsAndWrites) => refused || touch.written,
            Some(Lost::All) => true,
        });
        if hit {
            evicted.push(attempt.candidate);
            let written = touches.iter().filter(|touch| touch.written);
            lost.extend(written.map(|touch| (touch.cell, Lost::All)));
        }
        !hit
    });
    if !evicted.is_empty() {
        work.settle_again();
    }
    evicted
}

impl Work {
    /// Makes the sheet what the remaining attempts make of it.
    fn settle_again(&mut self) {
        for cell in self.sheet.shards.iter_mut().flat_map(|shard| &mut shard.cells) {
            (cell.new, cell.written, cell.used) = (cell.old, false, cell.paid);
        }
        for attempt in &self.attempts {
            if !matches!(attempt.result, Attempted::Ran(_)) {
                continue;
            }
            let touches = self.trace.touches(&attempt.touches);
            self.sheet.resume(touches);
            self.sheet.charge(touches);
            for touch in touches {
                let cell = &mut self.sheet[touch.cell];
                cell.used = true;
                cell.written |= touch.written;
            }
            for (id, value) in self.trace.writes(&attempt.writes) {
                self.sheet[*id].new = *value;
            }
        }
    }
}

/// Takes the threads' values over. Returns the bytes in the object table, and the number, of the objects that are used
/// now and were not before.
pub(super) fn take_over(common: &mut Sheet, works: &mut [Work], places: &Places) -> (u64, u64) {
    for work in works.iter_mut() {
        common.code.extend(std::mem::take(&mut work.sheet.code));
    }
    let works = &*works;
    let parts = common.shards.par_iter_mut().with_max_len(1).enumerate();
    let sums = parts.map(|(number, shard)| {
        let (mut bytes, mut objects) = (0, 0);
        for (work, places) in works.iter().zip(&places.0) {
            for (cell, place) in work.sheet.shards[number].cells.iter().zip(&places[number]) {
                let own = &mut shard.cells[*place as usize];
                if cell.written {
                    (own.new, own.written) = (cell.new, true);
                }
                if cell.used && !own.used {
                    (own.used, own.cost) = (true, cell.cost);
                    bytes += u64::from(cell.cost);
                    objects += 1;
                }
            }
        }
        (bytes, objects)
    });
    sums.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
}
