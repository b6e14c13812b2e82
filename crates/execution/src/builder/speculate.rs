//! Runs candidates on a sheet, one after another, and keeps what each of them touched, wrote and earned.

use super::sheet::{CellId, Sheet, Touch};
use crate::{
    BlockEnv, InvalidTx, Object, ObjectValue, RecoveredTx, Rules, StateView, ViewError,
    evm::{self, Evm, Mark, Refusal},
    run::{account_after, bytecode, check_gas_limit, code_of, evm_account},
};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use revm::{
    Database,
    state::{Account, AccountInfo as EvmAccount, Bytecode, EvmState},
};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Encoded bytes of a transaction beside its own and its access set: two lengths.
const TRANSACTION_OVERHEAD: u64 = 3 + 3;
/// Encoded bytes of an entry of an access set, at most.
const ENTRY_BYTES: u64 = 3;

/// Encoded bytes of a transaction without its objects.
pub(super) fn transaction_bytes(transaction: &RecoveredTx, touches: usize) -> u64 {
    TRANSACTION_OVERHEAD + transaction.encoded().len() as u64 + ENTRY_BYTES * touches as u64
}

/// What all attempts of a build share.
pub(super) struct Site<'a> {
    pub view: &'a dyn StateView,
    pub rules: &'a Rules,
    pub env: &'a BlockEnv,
    pub room: Room,
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Time is up.
    pub stopped: AtomicBool,
}

impl Site<'_> {
    /// Whether time is up; asks, until it is.
    pub(super) fn stops(&self) -> bool {
        if self.stopped.load(Ordering::Relaxed) {
            return true;
        }
        let stop = (self.stop)();
        if stop {
            self.stopped.store(true, Ordering::Relaxed);
        }
        stop
    }
}

/// Room that is left in the payload.
#[derive(Debug, Default)]
pub(super) struct Room {
    bytes: AtomicU64,
    objects: AtomicU64,
}

impl Room {
    pub(super) fn new(bytes: u64, objects: u64) -> Self {
        Self { bytes: AtomicU64::new(bytes), objects: AtomicU64::new(objects) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64, objects: u64) -> bool {
        let take = |left: &AtomicU64, wanted: u64| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(wanted)).is_ok()
        };
        if !take(&self.bytes, bytes) {
            return false;
        }
        let both = take(&self.objects, objects);
        if !both {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        both
    }
}

/// What a candidate did, and what came of it.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Number of the candidate.
    pub candidate: u32,
    /// Into the list of touches.
    pub touches: Range<u32>,
    /// Into the list of writes.
    pub writes: Range<u32>,
    pub result: Attempted,
}

#[derive(Debug)]
pub(super) enum Attempted {
    Ran(Ran),
    Refused(InvalidTx),
    /// It may be included, but its objects do not fit any more.
    NoRoom,
}

/// What an included transaction leaves beside its writes.
#[derive(Debug)]
pub(super) struct Ran {
    pub mark: Mark,
    /// What it owes the fee recipient, in wei.
    pub fee: U256,
}

/// What attempts did, one after another.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub touches: Vec<Touch>,
    pub writes: Vec<(CellId, ObjectValue)>,
}

impl Trace {
    pub(super) fn touches(&self, range: &Range<u32>) -> &[Touch] {
        &self.touches[range.start as usize..range.end as usize]
    }

    pub(super) fn writes(&self, range: &Range<u32>) -> &[(CellId, ObjectValue)] {
        &self.writes[range.start as usize..range.end as usize]
    }
}

/// An EVM on a sheet.
pub(super) struct Runner<'a> {
    site: &'a Site<'a>,
    evm: Evm<SheetState<'a>>,
}

impl<'a> Runner<'a> {
    /// Runs on `own`, which lies above `below`, and adds to `trace`.
    pub(super) fn new(site: &'a Site<'a>, below: Option<&'a Sheet>, own: Sheet, trace: Trace) -> Self {
        let Site { view, rules, env, .. } = *site;
        let state = SheetState { view, below, own, trace };
        Self { site, evm: evm::evm(state, rules, evm::cfg_env(rules, env.height), evm::block_env(env)) }
    }

    /// Tries a candidate. One that is not included changes no value; what it looked at stays in the trace. Fails only
    /// when the state below cannot be read.
    pub(super) fn attempt(
        &mut self,
        candidate: u32,
        transaction: &RecoveredTx,
    ) -> Result<Attempt, ViewError> {
        let state = self.state();
        state.own.begin();
        let (touches, writes) = (state.trace.touches.len() as u32, state.trace.writes.len() as u32);
        let result = match check_gas_limit(transaction, self.site.env) {
            Ok(()) => self.run(transaction, touches)?,
            Err(error) => Attempted::Refused(error),
        };
        let trace = &mut self.state().trace;
        if !matches!(result, Attempted::Ran(_)) {
            trace.writes.truncate(writes as usize);
            trace.touches[touches as usize..].iter_mut().for_each(|touch| touch.written = false);
        }
        let (touches, writes) = (touches..trace.touches.len() as u32, writes..trace.writes.len() as u32);
        Ok(Attempt { candidate, touches, writes, result })
    }

    fn run(&mut self, transaction: &RecoveredTx, first_touch: u32) -> Result<Attempted, ViewError> {
        let room = &self.site.room;
        let result = evm::transact(&mut self.evm, evm::tx_env(transaction));
        evm::drain(&mut self.evm, |changes, state| match result {
            Ok(ran) => {
                if !state.settle(changes, transaction, first_touch as usize, room) {
                    return Ok(Attempted::NoRoom);
                }
                let fee = ran.fee;
                Ok(Attempted::Ran(Ran { mark: Mark::from(ran), fee }))
            }
            Err(Refusal::Invalid(error)) => Ok(Attempted::Refused(error)),
            Err(Refusal::Evm(reason) | Refusal::State(ViewError::Evm(reason))) => {
                Ok(Attempted::Refused(InvalidTx::Other(reason)))
            }
            Err(Refusal::State(error)) => Err(error),
        })
    }

    /// Forgets what the last attempt looked at: nobody asks for it where nothing is speculated.
    pub(super) fn forget(&mut self, attempt: &Attempt) {
        self.state().trace.touches.truncate(attempt.touches.start as usize);
    }

    pub(super) fn into_parts(self) -> (Sheet, Trace) {
        let SheetState { own, trace, .. } = self.evm.ctx.journaled_state.database.state;
        (own, trace)
    }

    fn state(&mut self) -> &mut SheetState<'a> {
        evm::state(&mut self.evm)
    }
}

/// The state below an EVM: a sheet, and what it is filled from.
struct SheetState<'a> {
    view: &'a dyn StateView,
    below: Option<&'a Sheet>,
    own: Sheet,
    trace: Trace,
}

impl SheetState<'_> {
    fn load(&mut self, object: Object) -> Result<ObjectValue, ViewError> {
        let id = self.own.cell(object, self.below, self.view)?;
        Ok(self.own.touch(id, &mut self.trace.touches).new)
    }

    /// Takes over what a transaction changed, if all it touches fits into `room`.
    fn settle(
        &mut self,
        changes: &mut EvmState,
        transaction: &RecoveredTx,
        first_touch: usize,
        room: &Room,
    ) -> bool {
        let first_write = self.trace.writes.len();
        for (address, account) in changes.iter() {
            if account.is_touched() {
                self.note(*address, account);
            }
        }
        let touches = &self.trace.touches[first_touch..];
        let (bytes, objects) = self.own.charge(touches);
        if !room.take(bytes + transaction_bytes(transaction, touches.len()), objects) {
            return false;
        }
        for touch in touches {
            let cell = &mut self.own[touch.cell];
            cell.used = true;
            cell.written |= touch.written;
        }
        for (id, value) in &self.trace.writes[first_write..] {
            self.own[*id].new = *value;
        }
        true
    }

    /// Notes what an account and its slots are after the transaction.
    fn note(&mut self, address: Address, account: &Account) {
        let new = account_after(account);
        if let Some(old) = self.change(Object::account(address), ObjectValue::Account(new))
            && let Some((hash, code)) = new.and_then(|new| code_of(&new, account))
            && old.account().is_none_or(|old| old.code_hash != hash)
        {
            self.own.code.entry(hash).or_insert_with(|| code.clone());
        }
        if account.is_selfdestructed() {
            // Created and destroyed in one transaction: nothing of its storage is left.
            return;
        }
        for (slot, value) in account.changed_storage_slots() {
            self.change(Object::slot(address, *slot), ObjectValue::Slot(value.present_value));
        }
    }

    /// Notes an object's value after the transaction, and tells the one before when that is another.
    fn change(&mut self, object: Object, value: ObjectValue) -> Option<ObjectValue> {
        // A slot of an account that the transaction created was never loaded: it is absent below.
        let id = self.own.absent(object);
        let old = self.own[id].new;
        if old == value {
            return None;
        }
        let at = self.own.touch(id, &mut self.trace.touches).at;
        self.trace.touches[at as usize].written = true;
        self.trace.writes.push((id, value));
        Some(old)
    }
}

impl Database for SheetState<'_> {
    type Error = ViewError;

    fn basic(&mut self, address: Address) -> Result<Option<EvmAccount>, ViewError> {
        Ok(self.load(Object::account(address))?.account().map(evm_account))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, ViewError> {
        if code_hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        let known = self.own.code.get(&code_hash).or_else(|| self.below?.code.get(&code_hash));
        if let Some(code) = known {
            return Ok(code.clone());
        }
        let code = bytecode(self.view.code(code_hash)?)?;
        self.own.code.insert(code_hash, code.clone());
        Ok(code)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, ViewError> {
        Ok(self.load(Object::slot(address, slot))?.word())
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, ViewError> {
        self.view.block_hash(number)
    }
}
