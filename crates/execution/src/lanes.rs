//! Replay: a payload's lanes run at once, with every claim of the payload enforced (specs/lanes.md, L-3).
//!
//! Nothing is speculated. Lanes share no object that any of them writes, and a segment begins with the values the
//! payload lists, so each runs on its own copy of what it touches and no two threads ever wait for each other. Afterwards
//! one ordered pass numbers receipts and compares what segments took over with what was there.
//!
//! # Invariants
//! - The outcome is that of [`crate::execute`], byte for byte, on any number of threads, or the payload is invalid.
//! - The verdict does not depend on timing: all lanes run to their end or first fault, and the first in canonical order
//!   is told. Only when all together use more gas than the block has do they stop early, and that is a fault by itself.

use crate::{
    AccountInfo, BlockEnv, BlockOutcome, Entry, ExecuteError, InvalidPayload, InvalidPayloadCode, InvalidTx,
    Layer, LtHash, Object, ObjectValue, Overlay, Payload, PayloadTransactions, PayloadTx, RecoveredTx, Rules,
    Segment, StateDiff, StateView, TableEntry, TxReceipt, ViewError,
    diff::{DiffShard, SHARDS},
    evm::{self, Evm, Mark, Refusal},
    run::{
        BlockRun, BlockState, ClosedBlock, Totals, account_after, bytecode, check_gas_limit, code_of,
        evm_account,
    },
    shared::{GasMeter, Queue},
    system::SystemStep,
};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, map::B256Map};
use rayon::prelude::*;
use revm::{
    Database,
    database_interface::DBErrorMarker,
    state::{Account, AccountInfo as EvmAccount, Bytecode, EvmState},
};
use std::{collections::BTreeMap, sync::Arc};

/// Executes a payload on its parent's state, lane beside lane, on the threads of the current rayon pool. `parent` is
/// the digest of that state, `evidence` that of the block's system inputs.
pub fn replay(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    parent: &LtHash,
    payload: &Payload,
    transactions: &PayloadTransactions,
    evidence: &[Vec<u8>],
) -> Result<BlockOutcome, ExecuteError> {
    Ok(run_lanes(view, rules, env, payload, transactions, evidence)?.close()?.seal(parent))
}

/// The first part of [`replay`]: every lane has run, and what segments took over is compared. What is left is to put
/// the pieces together ([`LanesRun::close`]) and to hash them ([`ClosedBlock::seal`]).
pub fn run_lanes<'a>(
    view: &'a dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    payload: &'a Payload,
    transactions: &'a PayloadTransactions,
    evidence: &[Vec<u8>],
) -> Result<LanesRun<'a>, ExecuteError> {
    let (system, opening) = BlockRun::new(view, rules, env, evidence)?.into_opening();
    let opened = above(view, env, Arc::new(opening.clone()));
    let base: &dyn StateView = if opening.is_empty() { view } else { &opened };
    let units = units(payload, transactions)?;
    let gas = GasMeter::new(env.gas_limit);
    let block = Block { view: base, rules, env, payload, gas: &gas };
    let (ledgers, marks, fees) = run_units(&block, &units)?;
    check_taken(payload, &units, &ledgers)?;
    Ok(LanesRun { view, env: *env, payload, transactions, system, opening, ledgers, marks, fees })
}

/// A block whose lanes have run, in pieces.
pub struct LanesRun<'a> {
    view: &'a dyn StateView,
    env: BlockEnv,
    payload: &'a Payload,
    transactions: &'a PayloadTransactions,
    system: SystemStep,
    opening: StateDiff,
    ledgers: Vec<Ledger>,
    marks: Vec<Mark>,
    fees: U256,
}

impl LanesRun<'_> {
    /// Collects the changes of all pieces, numbers the receipts, and does what comes after the last transaction.
    pub fn close(self) -> Result<ClosedBlock, ExecuteError> {
        let Self { view, env, payload, transactions, system, opening, ledgers, marks, fees } = self;
        let (diff, (receipts, totals)) = rayon::join(
            || changes(payload, &ledgers),
            || number(transactions.iter().collect(), marks, env.base_fee, fees),
        );
        finish(view, &env, opening, diff, receipts, totals, system)
    }
}

/// A piece of a lane that runs by itself.
struct Unit<'a> {
    lane: usize,
    position: usize,
    /// Canonical index of its first transaction.
    first: usize,
    segment: &'a Segment,
    transactions: &'a [RecoveredTx],
}

fn units<'a>(
    payload: &'a Payload,
    transactions: &'a PayloadTransactions,
) -> Result<Vec<Unit<'a>>, ViewError> {
    let mut units = Vec::new();
    let mut first = 0;
    for (lane, plan) in payload.lanes.iter().enumerate() {
        let mut rest = transactions.lanes.get(lane).map_or(&[][..], Vec::as_slice);
        for (position, segment) in plan.segments.iter().enumerate() {
            let count = segment.transactions.len();
            let Some((own, after)) = rest.split_at_checked(count) else {
                return Err(ViewError::Evm(format!("lane {lane} has lost transactions on the way")));
            };
            units.push(Unit { lane, position, first, segment, transactions: own });
            rest = after;
            first += count;
        }
    }
    Ok(units)
}

/// What all units of a block share.
struct Block<'a> {
    view: &'a dyn StateView,
    rules: &'a Rules,
    env: &'a BlockEnv,
    payload: &'a Payload,
    /// Of all units together.
    gas: &'a GasMeter,
}

/// What a unit did.
struct Outcome {
    /// One per transaction.
    marks: Vec<Mark>,
    fees: U256,
    ledger: Ledger,
}

/// What a unit touched and changed.
struct Ledger {
    accounts: Vec<Cell<Option<AccountInfo>>>,
    slots: Vec<Cell<U256>>,
    /// The cells that were written, by the shard of the diff they belong to.
    written: [Written; SHARDS],
    code: B256Map<Bytes>,
}

impl Ledger {
    /// Every object written, with its value at the unit's beginning and its end.
    fn values_written(&self) -> impl Iterator<Item = (u32, ObjectValue, ObjectValue)> {
        let accounts = self.accounts.iter().filter(|cell| cell.written);
        let slots = self.slots.iter().filter(|cell| cell.written);
        let account =
            |cell: &Cell<_>| (cell.index, ObjectValue::Account(cell.old), ObjectValue::Account(cell.new));
        let slot = |cell: &Cell<_>| (cell.index, ObjectValue::Slot(cell.old), ObjectValue::Slot(cell.new));
        accounts.map(account).chain(slots.map(slot))
    }
}

/// Numbers of cells.
#[derive(Default)]
struct Written {
    accounts: Vec<u32>,
    slots: Vec<u32>,
}

/// Why a unit stopped.
enum Fault {
    Payload(InvalidPayload),
    View(ViewError),
    /// All units together used more than the block has.
    Gas,
}

/// What each unit changed, what is left of all transactions in canonical order, and their fees.
type Results = (Vec<Ledger>, Vec<Mark>, U256);

/// Runs every unit, the heaviest first.
fn run_units(block: &Block<'_>, units: &[Unit<'_>]) -> Result<Results, ExecuteError> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    let weight = |unit: &Unit<'_>| unit.transactions.iter().map(RecoveredTx::gas_limit).sum::<u64>();
    order.sort_by_cached_key(|index| std::cmp::Reverse(weight(&units[*index])));
    let queue = Queue::new(units.len());
    let work = |_| {
        let mut worker = Worker::new(block);
        let mut done = Vec::new();
        while let Some(turn) = queue.take() {
            done.push((order[turn], worker.run(&units[order[turn]])));
        }
        done
    };
    let threads = rayon::current_num_threads().min(units.len());
    let mut done = match threads {
        0 => Vec::new(),
        1 => work(0),
        _ => (0..threads).into_par_iter().with_max_len(1).flat_map_iter(work).collect(),
    };
    done.sort_unstable_by_key(|(index, _)| *index);
    if block.gas.exceeded() {
        return Err(InvalidPayload::too_much_gas(block.env.gas_limit).into());
    }
    let count = units.iter().map(|unit| unit.transactions.len()).sum();
    let (mut ledgers, mut marks) = (Vec::with_capacity(units.len()), Vec::with_capacity(count));
    let mut fees = U256::ZERO;
    for (_, outcome) in done {
        let outcome = outcome?;
        fees = fees.saturating_add(outcome.fees);
        ledgers.push(outcome.ledger);
        marks.extend(outcome.marks);
    }
    Ok((ledgers, marks, fees))
}

impl From<Fault> for ExecuteError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Payload(invalid) => invalid.into(),
            Fault::View(error) => error.into(),
            Fault::Gas => ViewError::Evm("a lane ran out of gas that the block still has".into()).into(),
        }
    }
}

/// One thread's EVM, used for one unit after the other.
struct Worker<'a> {
    block: &'a Block<'a>,
    evm: Evm<LaneState<'a>>,
}

impl<'a> Worker<'a> {
    fn new(block: &'a Block<'a>) -> Self {
        let Block { view, rules, env, payload, .. } = *block;
        let state = LaneState::new(view, &payload.objects);
        let evm = evm::evm(state, rules, evm::cfg_env(rules, env.height), evm::block_env(env));
        Self { block, evm }
    }

    fn run(&mut self, unit: &Unit<'_>) -> Result<Outcome, Fault> {
        self.state().enter(unit.segment);
        let mut marks = Vec::with_capacity(unit.transactions.len());
        let mut fees = U256::ZERO;
        for (offset, transaction) in unit.transactions.iter().enumerate() {
            let planned = &unit.segment.transactions[offset];
            match self.transact(transaction, planned) {
                Ok((mark, fee)) => {
                    marks.push(mark);
                    fees = fees.saturating_add(fee);
                }
                Err(Stop::Gas) => return Err(Fault::Gas),
                Err(Stop::View(error)) => return Err(Fault::View(error)),
                Err(Stop::Invalid(code, reason)) => {
                    let reason = format!("{}: {reason}", transaction.hash());
                    let index = Some(unit.first + offset);
                    return Err(Fault::Payload(InvalidPayload { code, index, reason }));
                }
            }
        }
        Ok(self.state().leave(marks, fees))
    }

    fn transact(&mut self, transaction: &RecoveredTx, planned: &PayloadTx) -> Result<(Mark, U256), Stop> {
        let Block { env, payload, gas, .. } = *self.block;
        check_gas_limit(transaction, env)
            .map_err(|error| Stop::Invalid(InvalidPayloadCode::GasLimit, error.to_string()))?;
        self.state().begin(payload.access(planned));
        let result = evm::transact(&mut self.evm, evm::tx_env(transaction));
        let ran = evm::drain(&mut self.evm, |changes, state| match result {
            Ok(ran) => state.settle(changes).map(|()| ran).map_err(Stop::from),
            Err(Refusal::Invalid(error)) => Err(invalid_transaction(&error)),
            Err(Refusal::State(fault)) => Err(fault.into()),
            Err(Refusal::Evm(reason)) => Err(Stop::View(ViewError::Evm(reason))),
        })?;
        let fee = ran.fee;
        let mark = Mark::from(ran);
        match gas.add(mark.gas_used) {
            true => Ok((mark, fee)),
            false => Err(Stop::Gas),
        }
    }

    fn state(&mut self) -> &mut LaneState<'a> {
        evm::state(&mut self.evm)
    }
}

/// Why a transaction of a lane has no outcome.
enum Stop {
    Invalid(InvalidPayloadCode, String),
    View(ViewError),
    Gas,
}

fn invalid_transaction(error: &InvalidTx) -> Stop {
    Stop::Invalid(InvalidPayloadCode::InvalidTransaction, error.to_string())
}

impl From<LaneFault> for Stop {
    fn from(fault: LaneFault) -> Self {
        let code = match &fault {
            LaneFault::View(error) => return Self::View(error.clone()),
            LaneFault::Undeclared { .. } => InvalidPayloadCode::UndeclaredAccess,
            LaneFault::Unused { .. } => InvalidPayloadCode::UnusedEntry,
            LaneFault::TakenCode(_) => InvalidPayloadCode::SegmentValue,
        };
        Self::Invalid(code, fault.to_string())
    }
}

/// What a lane's state refuses.
#[derive(Clone, Debug, thiserror::Error)]
enum LaneFault {
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("{what} {object}, which its access set does not say")]
    Undeclared { what: &'static str, object: Object },
    #[error("its access set says that it {what} {object}, which it does not")]
    Unused { what: &'static str, object: Object },
    #[error("the segment takes over an account with code {0}, which no account had before the block")]
    TakenCode(B256),
}

impl DBErrorMarker for LaneFault {}

/// An object that a unit touches.
struct Cell<T> {
    /// Index into the payload's object table.
    index: u32,
    loaded: bool,
    written: bool,
    /// At the unit's beginning.
    old: T,
    new: T,
}

impl<T: Copy + Default> Cell<T> {
    fn new(index: u32) -> Self {
        Self { index, loaded: false, written: false, old: T::default(), new: T::default() }
    }

    fn load(&mut self, value: T) {
        (self.old, self.new, self.loaded) = (value, value, true);
    }
}

/// An entry of the running transaction's access set.
#[derive(Clone, Copy)]
struct Declared {
    /// Index into the payload's object table.
    object: u32,
    /// Among the unit's accounts or slots.
    cell: u32,
    written: bool,
    used: bool,
    changed: bool,
}

/// Access sets of up to this many objects are searched from one end to the other.
const SEARCHED_LINEARLY: usize = 8;

/// The state a unit runs on: what its transactions declare, and nothing else.
struct LaneState<'a> {
    view: &'a dyn StateView,
    objects: &'a [TableEntry],
    accounts: Vec<Cell<Option<AccountInfo>>>,
    slots: Vec<Cell<U256>>,
    /// Per object of the table: the unit that made a cell of it last, and which.
    places: Vec<(u32, u32)>,
    /// Number of the unit that runs, from 1.
    unit: u32,
    takes_over: bool,
    /// The running transaction's access set, in ascending order of the objects.
    declared: Vec<Declared>,
    /// Code that the state below has, kept from unit to unit.
    known_code: B256Map<Bytecode>,
    /// Code set by this unit.
    own_code: B256Map<Bytecode>,
}

impl<'a> LaneState<'a> {
    fn new(view: &'a dyn StateView, objects: &'a [TableEntry]) -> Self {
        Self {
            view,
            objects,
            accounts: Vec::new(),
            slots: Vec::new(),
            places: vec![(0, 0); objects.len()],
            unit: 0,
            takes_over: false,
            declared: Vec::new(),
            known_code: B256Map::default(),
            own_code: B256Map::default(),
        }
    }

    fn enter(&mut self, segment: &Segment) {
        self.unit += 1;
        let count = segment.transactions.len();
        (self.accounts, self.slots) = (Vec::with_capacity(2 * count), Vec::new());
        self.own_code.clear();
        self.takes_over = !segment.taken.is_empty();
        for (index, value) in &segment.taken {
            let cell = self.cell(*index) as usize;
            match value {
                ObjectValue::Account(info) => self.accounts[cell].load(*info),
                ObjectValue::Slot(word) => self.slots[cell].load(*word),
            }
        }
    }

    fn leave(&mut self, marks: Vec<Mark>, fees: U256) -> Outcome {
        let (accounts, slots) = (std::mem::take(&mut self.accounts), std::mem::take(&mut self.slots));
        let mut written: [Written; SHARDS] = Default::default();
        for (number, cell) in accounts.iter().enumerate().filter(|(_, cell)| cell.written) {
            let shard = DiffShard::of_account(&self.objects[cell.index as usize].object.address);
            written[shard].accounts.push(number as u32);
        }
        for (number, cell) in slots.iter().enumerate().filter(|(_, cell)| cell.written) {
            let Object { address, slot } = &self.objects[cell.index as usize].object;
            let shard = DiffShard::of_slot(address, &slot.unwrap_or_default());
            written[shard].slots.push(number as u32);
        }
        let code = self.own_code.drain().map(|(hash, code)| (hash, code.original_bytes())).collect();
        Outcome { marks, fees, ledger: Ledger { accounts, slots, written, code } }
    }

    /// Where the unit keeps an object: among its accounts or among its slots.
    fn cell(&mut self, index: u32) -> u32 {
        let place = &mut self.places[index as usize];
        if place.0 != self.unit {
            let number = match self.objects[index as usize].object.slot {
                None => {
                    self.accounts.push(Cell::new(index));
                    self.accounts.len() - 1
                }
                Some(_) => {
                    self.slots.push(Cell::new(index));
                    self.slots.len() - 1
                }
            };
            *place = (self.unit, number as u32);
        }
        place.1
    }

    fn begin(&mut self, access: &[Entry]) {
        self.declared.clear();
        for Entry { object, written } in access.iter().copied() {
            let cell = self.cell(object);
            self.declared.push(Declared { object, cell, written, used: false, changed: false });
        }
    }

    fn find(&self, address: &Address, slot: Option<&U256>) -> Option<usize> {
        let object = |declared: &Declared| &self.objects[declared.object as usize].object;
        if self.declared.len() <= SEARCHED_LINEARLY {
            let wanted = |declared: &Declared| {
                let object = object(declared);
                object.slot.as_ref() == slot && object.address == *address
            };
            return self.declared.iter().position(wanted);
        }
        let wanted = Object { address: *address, slot: slot.copied() };
        self.declared.binary_search_by(|declared| object(declared).cmp(&wanted)).ok()
    }

    /// Finds an object that is loaded and marks it used.
    fn used(&mut self, address: &Address, slot: Option<&U256>) -> Result<usize, LaneFault> {
        let Some(at) = self.find(address, slot) else {
            let object = Object { address: *address, slot: slot.copied() };
            return Err(LaneFault::Undeclared { what: "reads", object });
        };
        self.declared[at].used = true;
        Ok(self.declared[at].cell as usize)
    }

    /// Finds an object that is changed and marks it so.
    fn changed(&mut self, address: &Address, slot: Option<&U256>) -> Result<usize, LaneFault> {
        match self.find(address, slot).map(|at| &mut self.declared[at]) {
            Some(declared) if declared.written => {
                // A slot of an account that the transaction created is never loaded: it was absent.
                (declared.used, declared.changed) = (true, true);
                Ok(declared.cell as usize)
            }
            _ => {
                let object = Object { address: *address, slot: slot.copied() };
                Err(LaneFault::Undeclared { what: "writes", object })
            }
        }
    }

    /// Takes over what the transaction changed, and compares with what it declared.
    fn settle(&mut self, changes: &mut EvmState) -> Result<(), LaneFault> {
        for (address, account) in changes.iter() {
            if account.is_touched() {
                self.settle_account(address, account)?;
            }
        }
        let idle =
            self.declared.iter().find(|declared| !declared.used || declared.written && !declared.changed);
        match idle {
            None => Ok(()),
            Some(declared) => {
                let what = if declared.used { "writes" } else { "touches" };
                let object = self.objects[declared.object as usize].object;
                Err(LaneFault::Unused { what, object })
            }
        }
    }

    fn settle_account(&mut self, address: &Address, account: &Account) -> Result<(), LaneFault> {
        let new = account_after(account);
        let at = self.find(address, None);
        let before = at.map(|at| self.accounts[self.declared[at].cell as usize].new);
        if before != Some(new) {
            let cell = self.changed(address, None)?;
            let cell = &mut self.accounts[cell];
            (cell.new, cell.loaded, cell.written) = (new, true, true);
            if let Some((hash, code)) = new.and_then(|new| code_of(&new, account)) {
                self.own_code.entry(hash).or_insert_with(|| code.clone());
            }
        }
        if account.is_selfdestructed() {
            // Created and destroyed in one transaction: nothing of its storage is left.
            return Ok(());
        }
        for (slot, value) in account.changed_storage_slots() {
            let cell = self.changed(address, Some(slot))?;
            let cell = &mut self.slots[cell];
            (cell.new, cell.loaded, cell.written) = (value.present_value, true, true);
        }
        Ok(())
    }
}

impl Database for LaneState<'_> {
    type Error = LaneFault;

    fn basic(&mut self, address: Address) -> Result<Option<EvmAccount>, LaneFault> {
        let view = self.view;
        let cell = self.used(&address, None)?;
        let cell = &mut self.accounts[cell];
        if !cell.loaded {
            cell.load(view.account(address)?);
        }
        Ok(cell.new.map(evm_account))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, LaneFault> {
        if code_hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.own_code.get(&code_hash).or_else(|| self.known_code.get(&code_hash)) {
            return Ok(code.clone());
        }
        let code = match self.view.code(code_hash) {
            // The payload made this account up, or it got its code in an earlier segment.
            Err(ViewError::MissingCode(hash)) if self.takes_over => return Err(LaneFault::TakenCode(hash)),
            raw => bytecode(raw?)?,
        };
        self.known_code.insert(code_hash, code.clone());
        Ok(code)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, LaneFault> {
        let view = self.view;
        let cell = self.used(&address, Some(&slot))?;
        let cell = &mut self.slots[cell];
        if !cell.loaded {
            cell.load(view.storage(address, slot)?);
        }
        Ok(cell.new)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, LaneFault> {
        Ok(self.view.block_hash(number)?)
    }
}

/// Compares what segments took over with what the ones before them left.
fn check_taken(payload: &Payload, units: &[Unit<'_>], ledgers: &[Ledger]) -> Result<(), ExecuteError> {
    let mut taken = vec![false; payload.objects.len()];
    for (index, _) in units.iter().flat_map(|unit| &unit.segment.taken) {
        taken[*index as usize] = true;
    }
    // Per object that some segment takes over: its value before the block, and now.
    let mut values: BTreeMap<u32, (ObjectValue, ObjectValue)> = BTreeMap::new();
    for (unit, ledger) in units.iter().zip(ledgers) {
        if unit.position == 0 {
            values.clear();
        }
        for (index, listed) in &unit.segment.taken {
            let wrong = match values.get(index) {
                Some((_, left)) if left != listed => {
                    format!("is {left:?} there, the payload lists {listed:?}")
                }
                Some((before, left)) if code_hash(before) != code_hash(left) => {
                    "got other code in an earlier segment, which no segment can take over".into()
                }
                _ => continue,
            };
            let object = payload.objects[*index as usize].object;
            let Unit { lane, position, .. } = unit;
            let reason = format!("segment {position} of lane {lane} takes over {object}: it {wrong}");
            return Err(InvalidPayload { code: InvalidPayloadCode::SegmentValue, index: None, reason }.into());
        }
        if payload.lanes[unit.lane].segments.len() > 1 {
            for (index, old, new) in ledger.values_written().filter(|(index, ..)| taken[*index as usize]) {
                values.entry(index).or_insert((old, new)).1 = new;
            }
        }
    }
    Ok(())
}

fn code_hash(value: &ObjectValue) -> B256 {
    value.account().map_or(KECCAK256_EMPTY, |info| info.code_hash)
}

/// What all units changed, shard by shard.
fn changes(payload: &Payload, ledgers: &[Ledger]) -> StateDiff {
    let object = |index: u32| &payload.objects[index as usize].object;
    let make = |shard: usize| {
        let written = || ledgers.iter().map(|ledger| (ledger, &ledger.written[shard]));
        let accounts = written().map(|(_, written)| written.accounts.len()).sum();
        let slots = written().map(|(_, written)| written.slots.len()).sum();
        let mut part = DiffShard::with_capacity(accounts, slots);
        for (ledger, written) in written() {
            for cell in written.accounts.iter().map(|number| &ledger.accounts[*number as usize]) {
                part.then_account(object(cell.index).address, cell.old, cell.new);
            }
            for cell in written.slots.iter().map(|number| &ledger.slots[*number as usize]) {
                let Object { address, slot } = object(cell.index);
                part.then_slot(*address, slot.unwrap_or_default(), cell.old, cell.new);
            }
        }
        part
    };
    let written =
        |ledger: &Ledger| ledger.written.iter().map(|w| w.accounts.len() + w.slots.len()).sum::<usize>();
    let at_once = ledgers.iter().map(written).sum::<usize>() >= SERIAL_BELOW;
    let mut diff = StateDiff::from_shards(at_once, make);
    if ledgers.iter().any(|ledger| !ledger.code.is_empty()) {
        diff.take_code(|hash| ledgers.iter().find_map(|ledger| ledger.code.get(hash)).cloned());
    }
    diff
}

/// With fewer changes, handing work to other threads costs more than the work.
const SERIAL_BELOW: usize = 128;

/// Makes the receipts, in canonical order.
pub(crate) fn number(
    transactions: Vec<&RecoveredTx>,
    marks: Vec<Mark>,
    base_fee: u64,
    fees: U256,
) -> (Vec<TxReceipt>, Totals) {
    let mut totals = Totals { fees, ..Totals::default() };
    let before: Vec<(u64, u64)> =
        marks.iter().map(|mark| totals.count(mark.gas_used, mark.logs.len())).collect();
    let placed = marks.into_par_iter().zip(before).zip(transactions).with_min_len(SERIAL_BELOW);
    let receipt = |((mark, (gas, logs)), transaction): ((Mark, _), &RecoveredTx)| {
        mark.receipt(transaction, base_fee, gas, logs)
    };
    (placed.map(receipt).collect(), totals)
}

/// Closes a block whose lanes have run: fees and system step, on top of all they changed.
pub(crate) fn finish(
    view: &dyn StateView,
    env: &BlockEnv,
    opening: StateDiff,
    lanes: StateDiff,
    receipts: Vec<TxReceipt>,
    totals: Totals,
    system: SystemStep,
) -> Result<ClosedBlock, ExecuteError> {
    let mut diff = lanes;
    diff.after(opening);
    let diff = Arc::new(diff);
    let (system, closing) = {
        let after = above(view, env, diff.clone());
        let mut state = BlockState::new(&after);
        let system = state.close(system, env.fee_recipient, totals.fees)?;
        (system, state.diff())
    };
    let mut diff = Arc::unwrap_or_clone(diff);
    diff.then(closing);
    Ok(ClosedBlock { diff, receipts, totals, base_fee: env.base_fee, system })
}

/// The state after `diff`, while the block has no hash yet.
pub(crate) fn above<'a>(
    view: &'a dyn StateView,
    env: &BlockEnv,
    diff: Arc<StateDiff>,
) -> Overlay<&'a dyn StateView> {
    Overlay::new(view, vec![Layer { height: env.height, block_hash: B256::ZERO, diff }])
}
