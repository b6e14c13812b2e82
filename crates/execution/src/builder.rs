//! Building a payload: selection, execution and packing.
//!
//! Candidates come in the order of what they pay. They are taken in batches; those of a batch that probably do not meet
//! run on several threads at once, each on a sheet of its own above what is included so far. Where threads met after
//! all, one claim stands and what contradicts it is tried again, one after another. What is included is packed into
//! lanes by what it really touched, and the outcome is put together from what the attempts left: nothing runs again.
//!
//! # Invariants
//! - Guesses about what meets decide about time only: payload and outcome are what [`crate::execute`],
//!   [`crate::verify`] and [`crate::replay`] say they are, whatever was guessed and however threads raced.
//! - A candidate runs at most twice. Building stops soon after `stop` says so.

mod assemble;
mod block;
mod groups;
mod memory;
mod merge;
mod pack;
mod sheet;
mod speculate;
#[cfg(test)]
mod tests;

pub use memory::BuildMemory;

use crate::{
    BlockEnv, BlockOutcome, ExecuteError, InvalidPayload, InvalidTx, LtHash, OBJECTS_MAX, Payload,
    PayloadTransactions, RecoveredTx, Rules, StateView, ViewError,
    lanes::{above, finish},
    run::BlockRun,
};
use alloy_consensus::Transaction;
use alloy_primitives::{B256, map::HashMap};
use block::Block;
use memory::kind_of;
use merge::{Conflict, Work};
use pack::Row;
use rayon::prelude::*;
use sheet::{CellId, Sheet};
use speculate::{Attempted, Room, Runner, Site, Trace, transaction_bytes};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};
use types::limits::PAYLOAD_BYTES_MAX;

/// How much a payload may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// Encoded bytes.
    pub bytes: u64,
    /// Gas; the block's gas limit applies too.
    pub gas: u64,
    /// Objects in the table.
    pub objects: u64,
}

/// A candidate that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedTx {
    /// Its hash.
    pub hash: B256,
    /// Why; `None` when there was no room in bytes or objects.
    pub reason: Option<InvalidTx>,
}

/// A payload and what it does.
#[derive(Clone, Debug)]
pub struct BuiltBlock {
    /// The encoded payload.
    pub payload: Vec<u8>,
    /// Its commitment.
    pub commitment: B256,
    /// What is kept of it beside the transactions: [`Payload::into_outline`].
    pub outline: Vec<u8>,
    /// Its transactions, in their lanes.
    pub transactions: PayloadTransactions,
    /// Its outcome: what [`crate::execute`] gives for it.
    pub outcome: BlockOutcome,
    /// Candidates that were tried and left out.
    pub skipped: Vec<SkippedTx>,
}

/// Encoded bytes of a payload before its first lane: version, number of addresses, number of lanes.
const PAYLOAD_OVERHEAD: u64 = 1 + 3 + 1;
/// Least gas of any transaction: with less left the block is full.
const GAS_MIN: u64 = 21_000;
/// With fewer candidates, handing work to other threads costs more than the work.
const SERIAL_BELOW: usize = 16;
/// Candidates taken one after another before several are tried at once again.
const SERIAL_STRETCH: usize = 64;
/// Candidates in the first batch, whose guesses are the least sure, and in the largest.
const BATCH_FIRST: usize = 256;
const BATCH_MAX: usize = 2048;
/// A batch whose heaviest group has more than this part of it, in percent, runs on one thread.
const HEAVIEST_MAX: u64 = 75;
/// Candidates tried on several threads before it is judged whether that is any use.
const CROWDED_AFTER: usize = 4 * BATCH_FIRST;
/// Candidates that ran and did not fit, before the block counts as full.
const NO_ROOM_MAX: usize = 32;

/// Executes `candidates`, leaving out those that fail validation or do not fit, until they end, the block is full, or
/// `stop` says that time is up (asked before every candidate). Uses the threads of the current rayon pool. Candidates
/// that are known to depend on each other are included in the order they come in; where that shows only when they run,
/// one that had to be tried again comes after those that stayed.
///
/// A candidate the EVM itself fails on is left out as well; only unreadable state and evidence that makes every block
/// with it invalid end the build with an error.
#[allow(clippy::too_many_arguments)]
pub fn build(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    parent: &LtHash,
    limits: BuildLimits,
    evidence: &[Vec<u8>],
    candidates: impl IntoIterator<Item = RecoveredTx>,
    stop: impl Fn() -> bool + Sync,
) -> Result<BuiltBlock, ExecuteError> {
    let mut memory = BuildMemory::new();
    build_with(&mut memory, view, rules, env, parent, limits, evidence, candidates, stop)
}

/// [`build`] that uses what earlier builds learned and learns for later ones.
#[allow(clippy::too_many_arguments)]
pub fn build_with(
    memory: &mut BuildMemory,
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    parent: &LtHash,
    limits: BuildLimits,
    evidence: &[Vec<u8>],
    candidates: impl IntoIterator<Item = RecoveredTx>,
    stop: impl Fn() -> bool + Sync,
) -> Result<BuiltBlock, ExecuteError> {
    let (system, opening) = BlockRun::new(view, rules, env, evidence)?.into_opening();
    let opened = above(view, env, Arc::new(opening.clone()));
    let base: &dyn StateView = if opening.is_empty() { view } else { &opened };
    let bytes = limits.bytes.min(PAYLOAD_BYTES_MAX as u64).saturating_sub(PAYLOAD_OVERHEAD);
    let room = Room::new(bytes, limits.objects.min(OBJECTS_MAX as u64));
    let site = Site { view: base, rules, env, room, stop: &stop, stopped: AtomicBool::new(false) };
    let mut build = Build::new(site, memory, limits.gas.min(env.gas_limit));
    build.select(&mut candidates.into_iter())?;
    let Build { mut block, site, skipped, .. } = build;

    let row = Row::of(&block.sheet);
    let (lanes, components) = pack::pack(&block, &row, site.room.bytes());
    review(memory, &block, &components);
    let ran = std::mem::take(&mut block.ran);
    let (encoded, outcome) = rayon::join(
        || {
            let plan = assemble::payload(&block, &row, &lanes).map_err(InvalidPayload::from)?;
            let payload = plan.encode();
            let commitment = Payload::commitment(&payload);
            let transactions = assemble::transactions(&block, &lanes);
            Ok::<_, ExecuteError>((payload, plan.into_outline(), commitment, transactions))
        },
        || {
            let diff = assemble::changes(&block.sheet);
            let (receipts, totals) = assemble::receipts(ran, &block, &lanes, env.base_fee);
            Ok::<_, ExecuteError>(finish(view, env, opening, diff, receipts, totals, system)?.seal(parent))
        },
    );
    let (payload, outline, commitment, transactions) = encoded?;
    Ok(BuiltBlock { commitment, payload, outline, transactions, outcome: outcome?, skipped })
}

/// A candidate and its number in the order they came in.
type Candidate = (u32, RecoveredTx);

/// A block being filled.
struct Build<'a> {
    site: Site<'a>,
    memory: &'a mut BuildMemory,
    block: Block,
    skipped: Vec<SkippedTx>,
    gas_max: u64,
    /// No candidate fits any more.
    full: bool,
    /// Candidates that ran and did not fit.
    no_room: usize,
    /// Candidates in the next batch, at most.
    batch: usize,
    /// Candidates tried on several threads, and those of them that had to be tried again.
    tried: usize,
    evicted: usize,
}

impl<'a> Build<'a> {
    fn new(site: Site<'a>, memory: &'a mut BuildMemory, gas_max: u64) -> Self {
        memory.begin();
        let (block, skipped) = (Block::default(), Vec::new());
        let batch = if memory.is_fresh() { BATCH_FIRST } else { BATCH_MAX };
        Self { site, memory, block, skipped, gas_max, full: false, no_room: 0, batch, tried: 0, evicted: 0 }
    }

    fn gas_left(&self) -> u64 {
        self.gas_max.saturating_sub(self.block.gas_used)
    }

    fn is_over(&self) -> bool {
        self.full || self.site.stopped.load(Ordering::Relaxed)
    }

    fn select(&mut self, candidates: &mut dyn Iterator<Item = RecoveredTx>) -> Result<(), ViewError> {
        let mut candidates = Candidates { source: (0_u32..).zip(candidates), held: None };
        while !self.is_over() {
            if rayon::current_num_threads() < 2 || self.memory.is_crowded() {
                return self.serial(&mut candidates);
            }
            let batch = self.take(&mut candidates);
            match batch.len() {
                0 => return Ok(()),
                1..SERIAL_BELOW if !self.memory.is_blind() => {
                    self.serial(&mut batch.into_iter().chain(candidates.by_ref().take(SERIAL_STRETCH)))?;
                }
                _ => self.several(batch)?,
            }
        }
        Ok(())
    }

    /// Takes a batch that fits for sure, as far as gas and the transactions' own bytes tell.
    fn take(&mut self, candidates: &mut Candidates<impl Iterator<Item = Candidate>>) -> Vec<Candidate> {
        let (mut batch, mut gas, mut bytes) = (Vec::new(), self.gas_left(), self.site.room.bytes());
        let (gas_left, bytes_left) = (gas, bytes);
        while batch.len() < self.batch {
            if gas_left < GAS_MIN {
                self.full = true;
                break;
            }
            let Some((number, transaction)) = candidates.next() else { break };
            let (gas_limit, length) = (transaction.gas_limit(), transaction_bytes(&transaction, 0));
            if length > bytes_left || gas_limit > gas_left {
                // A full pool of what does not fit must not take longer than there is time.
                if self.site.stops() {
                    break;
                }
                self.skip(&transaction, misfit(length > bytes_left, gas_limit, gas_left));
                continue;
            }
            let (Some(gas_after), Some(bytes_after)) =
                (gas.checked_sub(gas_limit), bytes.checked_sub(length))
            else {
                candidates.held = Some((number, transaction));
                break;
            };
            (gas, bytes) = (gas_after, bytes_after);
            batch.push((number, transaction));
        }
        batch
    }

    /// Tries candidates one after another.
    fn serial(&mut self, candidates: &mut dyn Iterator<Item = Candidate>) -> Result<(), ViewError> {
        let Self { site, block, skipped, .. } = self;
        let (sheet, trace) = (std::mem::take(&mut block.sheet), std::mem::take(&mut block.trace));
        let mut runner = Runner::new(site, None, sheet, trace);
        for (number, transaction) in candidates {
            let gas_left = self.gas_max.saturating_sub(block.gas_used);
            if gas_left < GAS_MIN || self.no_room >= NO_ROOM_MAX {
                self.full = true;
                break;
            }
            if site.stops() {
                break;
            }
            let (gas_limit, bytes_left) = (transaction.gas_limit(), site.room.bytes());
            let misfits = transaction_bytes(&transaction, 0) > bytes_left;
            let hash = transaction.hash();
            if misfits || gas_limit > gas_left {
                skipped.push(SkippedTx { hash, reason: misfit(misfits, gas_limit, gas_left) });
                continue;
            }
            let attempt = runner.attempt(number, &transaction)?;
            let reason = match attempt.result {
                Attempted::Ran(ran) => {
                    block.include(transaction, attempt.touches, attempt.writes, ran);
                    continue;
                }
                Attempted::Refused(ref error) => Some(error.clone()),
                Attempted::NoRoom => {
                    self.no_room += 1;
                    None
                }
            };
            runner.forget(&attempt);
            skipped.push(SkippedTx { hash, reason });
        }
        (block.sheet, block.trace) = runner.into_parts();
        Ok(())
    }

    /// Tries a batch on several threads.
    fn several(&mut self, batch: Vec<Candidate>) -> Result<(), ViewError> {
        let transactions: Vec<RecoveredTx> =
            batch.iter().map(|(_, transaction)| transaction.clone()).collect();
        let groups = groups::group(&transactions, self.memory);
        let threads = rayon::current_num_threads().min(groups.chunks.len());
        if threads < 2 || groups.heaviest > HEAVIEST_MAX {
            self.batch = (2 * self.batch).min(BATCH_MAX);
            return self.serial(&mut batch.into_iter());
        }
        let (bytes, objects) = (self.site.room.bytes(), self.site.room.objects());
        let works = speculate(&self.site, &self.block.sheet, &transactions, &groups.chunks, threads)?;
        let (spent, again) = self.join(works, &transactions);
        self.site.room = Room::new(bytes.saturating_sub(spent.0), objects.saturating_sub(spent.1));
        if self.is_over() {
            return Ok(());
        }
        let mut batch = batch.into_iter().enumerate();
        self.serial(&mut batch.by_ref().filter(|(place, _)| again[*place]).map(|(_, candidate)| candidate))
    }

    /// Takes over what threads did, as far as it fits together. Returns what it takes in bytes and objects, and which
    /// of the batch's candidates are to be tried again.
    fn join(&mut self, mut works: Vec<Work>, transactions: &[RecoveredTx]) -> ((u64, u64), Vec<bool>) {
        let (places, conflicts) = merge::place(&mut self.block.sheet, &works);
        if !conflicts.is_empty() {
            learn(self.memory, &works, &conflicts, transactions);
        }
        let evict = |(number, work): (usize, &mut Work)| merge::evict(number, work, &conflicts).len();
        let evicted: usize = match conflicts.is_empty() {
            true => 0,
            false => works.par_iter_mut().with_max_len(1).enumerate().map(evict).sum(),
        };
        self.adapt(evicted, transactions.len());
        let (mut bytes, objects) = merge::take_over(&mut self.block.sheet, &mut works, &places);
        let mut again = vec![true; transactions.len()];
        places.rename(&mut works);
        for work in works {
            bytes += self.include(work, transactions, &mut again);
        }
        ((bytes, objects), again)
    }

    /// Chooses the size of the next batch by how well this one went.
    fn adapt(&mut self, evicted: usize, count: usize) {
        self.batch = if 4 * evicted > count { BATCH_FIRST } else { (2 * self.batch).min(BATCH_MAX) };
        self.tried += count;
        self.evicted += evicted;
        if self.tried >= CROWDED_AFTER && 4 * self.evicted > self.tried {
            // What the first batches taught did not help.
            self.memory.crowd();
        }
    }

    /// Includes what is left of a thread's work. Returns the bytes its transactions take without the object table.
    fn include(&mut self, mut work: Work, transactions: &[RecoveredTx], again: &mut [bool]) -> u64 {
        let trace = &mut self.block.trace;
        let (touched, wrote) = (trace.touches.len() as u32, trace.writes.len() as u32);
        trace.touches.append(&mut work.trace.touches);
        trace.writes.append(&mut work.trace.writes);
        let mut bytes = 0;
        for attempt in work.attempts {
            let place = attempt.candidate as usize;
            let transaction = transactions[place].clone();
            match attempt.result {
                Attempted::NoRoom => continue,
                Attempted::Refused(error) => self.skip(&transaction, Some(error)),
                Attempted::Ran(ran) => {
                    let touches = attempt.touches.start + touched..attempt.touches.end + touched;
                    let writes = attempt.writes.start + wrote..attempt.writes.end + wrote;
                    bytes += transaction_bytes(&transaction, touches.len());
                    self.block.include(transaction, touches, writes, ran);
                }
            }
            again[place] = false;
        }
        bytes
    }

    fn skip(&mut self, transaction: &RecoveredTx, reason: Option<InvalidTx>) {
        self.skipped.push(SkippedTx { hash: transaction.hash(), reason });
    }
}

/// Why a candidate does not fit.
fn misfit(bytes: bool, gas_limit: u64, available: u64) -> Option<InvalidTx> {
    (!bytes).then_some(InvalidTx::BlockGasExceeded { gas_limit, available })
}

/// Candidates in order; one that was taken too early can be put back.
struct Candidates<I> {
    source: I,
    held: Option<Candidate>,
}

impl<I: Iterator<Item = Candidate>> Iterator for Candidates<I> {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        self.held.take().or_else(|| self.source.next())
    }
}

/// Runs chunks of a batch on several threads, each on a sheet of its own. What is not in the attempts was not tried,
/// because time was up or the block full.
fn speculate(
    site: &Site<'_>,
    below: &Sheet,
    transactions: &[RecoveredTx],
    chunks: &[Vec<u32>],
    threads: usize,
) -> Result<Vec<Work>, ViewError> {
    let (next, full) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |_| {
        let claim = || chunks.get(next.fetch_add(1, Ordering::Relaxed));
        let expected = transactions.len() / threads;
        run_chunks(site, below, transactions, std::iter::from_fn(claim), expected, &full)
    };
    (0..threads).into_par_iter().with_max_len(1).map(work).collect()
}

fn run_chunks<'c>(
    site: &Site<'_>,
    below: &Sheet,
    transactions: &[RecoveredTx],
    chunks: impl Iterator<Item = &'c Vec<u32>>,
    expected: usize,
    full: &AtomicBool,
) -> Result<Work, ViewError> {
    let (mut own, mut attempts) = (Sheet::default(), Vec::with_capacity(expected));
    own.reserve(2 * expected);
    let mut runner = Runner::new(site, Some(below), own, Trace::default());
    for candidate in chunks.flatten() {
        if full.load(Ordering::Relaxed) || site.stops() {
            break;
        }
        let attempt = runner.attempt(*candidate, &transactions[*candidate as usize])?;
        if matches!(attempt.result, Attempted::NoRoom) {
            full.store(true, Ordering::Relaxed);
        }
        attempts.push(attempt);
    }
    let (sheet, trace) = runner.into_parts();
    Ok(Work { sheet, trace, attempts })
}

/// A kind of call met in a contract when at least this part of its calls did, and more than one.
const MET_PARTS: u32 = 8;

/// Learns where the calls of a batch met.
fn learn(memory: &mut BuildMemory, works: &[Work], conflicts: &[Conflict], transactions: &[RecoveredTx]) {
    let (mut calls, mut met) = (HashMap::<_, u32>::default(), HashMap::<_, u32>::default());
    for work in works {
        let cell = |conflict: &Conflict| Some((work.sheet.find(&conflict.object)?, conflict.object.address));
        let cells: HashMap<CellId, _> = conflicts.iter().filter_map(cell).collect();
        for attempt in &work.attempts {
            let Some(kind) = kind_of(&transactions[attempt.candidate as usize]) else { continue };
            *calls.entry(kind).or_default() += 1;
            let touches = work.trace.touches(&attempt.touches).iter();
            let addresses: BTreeSet<_> = touches.filter_map(|touch| cells.get(&touch.cell)).collect();
            for address in addresses {
                *met.entry((kind, *address)).or_default() += 1;
            }
        }
    }
    for ((kind, address), count) in met {
        if count > 1 && MET_PARTS * count >= calls.get(&kind).copied().unwrap_or_default() {
            memory.met(kind, address);
        }
    }
}

/// Included transactions that are looked at for what does not meet.
const REVIEWED: usize = 1024;
/// Calls of a kind among them that are enough to judge it.
const REVIEWED_CALLS: u32 = 8;

/// Learns which calls do not meet though nothing in them tells.
fn review(memory: &mut BuildMemory, block: &Block, components: &[u32]) {
    let mut kinds: HashMap<_, (u32, BTreeSet<u32>)> = HashMap::default();
    for (included, component) in block.included.iter().zip(components).take(REVIEWED) {
        let Some(kind) = kind_of(&included.transaction) else { continue };
        let input = included.transaction.envelope().input();
        let open = kind.1.is_some() && groups::addresses(input).next().is_none();
        if open && !memory.is_free(&kind) && memory.hot(&kind).next().is_none() {
            let (calls, parts) = kinds.entry(kind).or_default();
            *calls += 1;
            parts.insert(*component);
        }
    }
    for (kind, (calls, parts)) in kinds {
        if calls >= REVIEWED_CALLS && 4 * parts.len() as u32 >= 3 * calls {
            memory.freed(kind);
        }
    }
}
