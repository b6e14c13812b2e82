//! A block run serially: the state it runs on, its transactions one after another, and its beginning and end, which
//! every way to run a block shares.
//!
//! # Invariants
//! - [`BlockState`] holds, for everything it ever read, the parent's value and the current one; the diff is what
//!   differs at the end. Old values come from the view alone.
//! - No supported fork clears the storage of an account from an earlier transaction (EIP-6780), and no account
//!   without code and nonce has storage, so storage never has to be enumerated.

use crate::{
    Access, AccessSet, AccountInfo, BlockEnv, BlockOutcome, ExecuteError, Fork, InvalidTx, LtHash, Object,
    ObjectValue, RecoveredTx, Rules, StateDiff, StateView, TxReceipt, ViewError,
    evm::{self, Evm, Mark, Refusal},
    receipts_hash,
    system::{SystemOutcome, SystemStep},
};
use alloy_eips::eip2935::HISTORY_STORAGE_ADDRESS;
use alloy_primitives::{
    Address, B256, Bloom, Bytes, KECCAK256_EMPTY, U256,
    map::{AddressMap, B256Map, HashMap},
};
use rayon::prelude::*;
use revm::{
    Database,
    state::{Account, AccountInfo as EvmAccount, Bytecode, EvmState},
};
use std::{collections::hash_map::Entry, sync::Arc};

/// Runs one block's transactions one after another and collects what they do.
pub(crate) struct BlockRun<'a> {
    evm: Evm<BlockState<'a>>,
    env: BlockEnv,
    system: SystemStep,
    receipts: Vec<TxReceipt>,
    totals: Totals,
}

/// Running sums over a block's transactions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub gas_used: u64,
    pub logs: u64,
    /// What the fee recipient is owed, in wei.
    pub fees: U256,
}

impl Totals {
    /// Counts a transaction; says what came before it.
    pub(crate) fn count(&mut self, gas_used: u64, logs: usize) -> (u64, u64) {
        let before = (self.gas_used, self.logs);
        self.gas_used = self.gas_used.saturating_add(gas_used);
        self.logs += logs as u64;
        before
    }
}

impl<'a> BlockRun<'a> {
    /// Prepares the block: with Prague the parent's hash goes to the history contract, where a genesis deployed
    /// it (EIP-2935). The other system contracts belong to Ethereum's beacon chain.
    ///
    /// `evidence` is that of the block's system inputs; it is judged here, before anything runs, and takes effect at
    /// the end.
    pub(crate) fn new(
        view: &'a dyn StateView,
        rules: &Rules,
        env: &BlockEnv,
        evidence: &[Vec<u8>],
    ) -> Result<Self, ExecuteError> {
        let state = BlockState::new(view);
        let mut evm = evm::evm(state, rules, evm::cfg_env(rules, env.height), evm::block_env(env));
        let system = SystemStep::new(rules, env.height, evidence, evm::state(&mut evm))?;
        let mut run = Self { evm, env: *env, system, receipts: Vec::new(), totals: Totals::default() };
        if rules.fork_at(env.height) >= Fork::Prague && env.height > 0 {
            run.store_parent_hash(view)?;
        }
        Ok(run)
    }

    fn store_parent_hash(&mut self, view: &dyn StateView) -> Result<(), ViewError> {
        if !view.account(HISTORY_STORAGE_ADDRESS)?.is_some_and(|info| info.has_code()) {
            return Ok(());
        }
        let parent = view.block_hash(self.env.height - 1)?;
        let result = evm::system_call(&mut self.evm, HISTORY_STORAGE_ADDRESS, parent.0.into());
        evm::drain(&mut self.evm, |changes, state| match result {
            Ok(_) => {
                state.apply(changes);
                Ok(())
            }
            Err(Refusal::State(error)) => Err(error),
            Err(Refusal::Evm(reason)) => Err(ViewError::Evm(reason)),
            Err(Refusal::Invalid(error)) => Err(ViewError::Evm(error.to_string())),
        })
    }

    /// What happened before the first transaction, for those who run the transactions elsewhere.
    pub(crate) fn into_opening(mut self) -> (SystemStep, StateDiff) {
        let diff = self.state().diff();
        (self.system, diff)
    }

    /// Gas used so far.
    pub(crate) fn gas_used(&self) -> u64 {
        self.totals.gas_used
    }

    /// Runs one transaction and tells what it touched. A refused one leaves no trace.
    pub(crate) fn transact(&mut self, transaction: &RecoveredTx) -> Result<AccessSet, Refusal<ViewError>> {
        check_gas_limit(transaction, &self.env).map_err(Refusal::Invalid)?;
        self.state().touched.clear();
        let result = evm::transact(&mut self.evm, evm::tx_env(transaction));
        let base_fee = self.env.base_fee;
        let totals = &mut self.totals;
        let (receipt, access) = evm::drain(&mut self.evm, |changes, state| match result {
            Ok(ran) => {
                state.apply(changes);
                totals.fees = totals.fees.saturating_add(ran.fee);
                let mark = Mark::from(ran);
                let (gas, logs) = totals.count(mark.gas_used, mark.logs.len());
                let receipt = mark.receipt(transaction, base_fee, gas, logs);
                Ok((receipt, AccessSet::new(std::mem::take(&mut state.touched))))
            }
            Err(refusal) => Err(refusal),
        })?;
        self.receipts.push(receipt);
        Ok(access)
    }

    /// The state as it is now.
    pub(crate) fn state(&mut self) -> &mut BlockState<'a> {
        evm::state(&mut self.evm)
    }

    /// Closes the block: fees, convictions, and the next set at the end of an epoch. What is left then is hashing,
    /// which needs no EVM and may move to another thread.
    pub(crate) fn close(mut self) -> Result<ClosedBlock, ViewError> {
        let system = std::mem::take(&mut self.system);
        let (recipient, fees) = (self.env.fee_recipient, self.totals.fees);
        let system = self.state().close(system, recipient, fees)?;
        let diff = self.state().diff();
        Ok(ClosedBlock {
            diff,
            receipts: self.receipts,
            totals: self.totals,
            base_fee: self.env.base_fee,
            system,
        })
    }
}

/// A transaction's gas limit must fit an empty block; what all of them use together is counted as they run. So whether
/// a set of transactions fits does not depend on their order.
pub(crate) fn check_gas_limit(transaction: &RecoveredTx, env: &BlockEnv) -> Result<(), InvalidTx> {
    let (gas_limit, available) = (transaction.gas_limit(), env.gas_limit);
    if gas_limit > available { Err(InvalidTx::BlockGasExceeded { gas_limit, available }) } else { Ok(()) }
}

/// A block that has run and whose hashes are still to be computed.
pub struct ClosedBlock {
    pub(crate) diff: StateDiff,
    pub(crate) receipts: Vec<TxReceipt>,
    pub(crate) totals: Totals,
    pub(crate) base_fee: u64,
    pub(crate) system: SystemOutcome,
}

impl ClosedBlock {
    /// Computes the hashes. `parent` is the digest of the parent's state.
    pub fn seal(self, parent: &LtHash) -> BlockOutcome {
        let mut receipts = self.receipts;
        let (lthash, (receipts_hash, logs_bloom)) =
            rayon::join(|| parent.apply(&self.diff), || seal_receipts(&mut receipts));
        BlockOutcome {
            receipts,
            diff: Arc::new(self.diff),
            state_hash: lthash.state_hash(),
            lthash,
            receipts_hash,
            gas_used: self.totals.gas_used,
            logs_bloom,
            base_fee: self.base_fee,
            system: self.system,
        }
    }
}

/// Computes every bloom, and hash and bloom of all.
fn seal_receipts(receipts: &mut [TxReceipt]) -> (B256, Bloom) {
    receipts.par_iter_mut().with_min_len(64).for_each(TxReceipt::fill_bloom);
    let mut all = Bloom::ZERO;
    receipts.iter().filter(|receipt| !receipt.logs().is_empty()).for_each(|receipt| all |= *receipt.bloom());
    (receipts_hash(receipts), all)
}

/// A value in the parent's state and now.
#[derive(Clone, Copy)]
struct Tracked<T> {
    old: T,
    new: T,
}

/// The state while a block runs: a view below, everything read or written so far above.
pub(crate) struct BlockState<'a> {
    view: &'a dyn StateView,
    accounts: AddressMap<Tracked<Option<AccountInfo>>>,
    storage: HashMap<(Address, U256), Tracked<U256>>,
    code: B256Map<Bytecode>,
    new_code: B256Map<Bytes>,
    /// What the transaction that runs has loaded and changed so far.
    touched: Vec<Access>,
}

impl<'a> BlockState<'a> {
    pub(crate) fn new(view: &'a dyn StateView) -> Self {
        Self {
            view,
            accounts: AddressMap::default(),
            storage: HashMap::default(),
            code: B256Map::default(),
            new_code: B256Map::default(),
            touched: Vec::new(),
        }
    }

    /// The current value of an object.
    pub(crate) fn value(&mut self, object: &Object) -> Result<ObjectValue, ViewError> {
        match object.slot {
            Some(slot) => Ok(ObjectValue::Slot(self.storage(object.address, slot)?)),
            None => {
                self.basic(object.address)?;
                let tracked = self.accounts.get(&object.address);
                Ok(ObjectValue::Account(tracked.and_then(|tracked| tracked.new)))
            }
        }
    }

    /// Writes a slot outside any transaction.
    pub(crate) fn set_storage(&mut self, address: Address, slot: U256, value: U256) -> Result<(), ViewError> {
        self.storage(address, slot)?;
        if let Some(tracked) = self.storage.get_mut(&(address, slot)) {
            tracked.new = value;
        }
        Ok(())
    }

    /// Destroys up to `amount` of an account's balance outside any transaction.
    pub(crate) fn burn(&mut self, address: Address, amount: U256) -> Result<(), ViewError> {
        self.basic(address)?;
        if let Some(info) = self.accounts.get_mut(&address).and_then(|tracked| tracked.new.as_mut()) {
            info.balance = info.balance.saturating_sub(amount);
        }
        Ok(())
    }

    /// What comes after the last transaction: the fees, then the system step.
    pub(crate) fn close(
        &mut self,
        system: SystemStep,
        fee_recipient: Address,
        fees: U256,
    ) -> Result<SystemOutcome, ViewError> {
        // Nothing earned touches nothing: an empty account must not come into being.
        if !fees.is_zero() {
            self.basic(fee_recipient)?;
            if let Some(tracked) = self.accounts.get_mut(&fee_recipient) {
                let mut info = tracked.new.unwrap_or_default();
                info.balance = info.balance.saturating_add(fees);
                tracked.new = Some(info);
            }
        }
        system.run(self)
    }

    /// Takes over what a transaction changed.
    fn apply(&mut self, changes: &mut EvmState) {
        for (address, account) in changes.drain() {
            if account.is_touched() {
                self.apply_account(address, account);
            }
        }
    }

    fn apply_account(&mut self, address: Address, account: Account) {
        let gone = account.is_selfdestructed();
        let new = account_after(&account);
        // revm loads an account through `basic` before it touches it, so it is there; treating an unknown one as new
        // keeps this total.
        let tracked = self.accounts.entry(address).or_insert(Tracked { old: None, new: None });
        if tracked.new != new {
            tracked.new = new;
            self.touched.push(Access { object: Object::account(address), written: true });
            if let Some((hash, code)) = new.and_then(|new| code_of(&new, &account)) {
                self.new_code.insert(hash, code.original_bytes());
                self.code.insert(hash, code.clone());
            }
        }
        if gone {
            // Created and destroyed in one transaction: nothing of its storage ever reached this map.
            return;
        }
        for (slot, value) in account.changed_storage_slots() {
            // A slot of an account created in this transaction is not read from below: it is absent there.
            let absent = Tracked { old: U256::ZERO, new: U256::ZERO };
            let tracked = self.storage.entry((address, *slot)).or_insert(absent);
            if tracked.new != value.present_value {
                tracked.new = value.present_value;
                self.touched.push(Access { object: Object::slot(address, *slot), written: true });
            }
        }
    }

    pub(crate) fn diff(&mut self) -> StateDiff {
        let mut diff = StateDiff::default();
        for (address, tracked) in &self.accounts {
            diff.set_account(*address, tracked.old, tracked.new);
            let hash = |info: Option<AccountInfo>| info.map_or(KECCAK256_EMPTY, |info| info.code_hash);
            let new = hash(tracked.new);
            if new != hash(tracked.old)
                && let Some(code) = self.new_code.get(&new)
            {
                diff.set_code(new, code.clone());
            }
        }
        for ((address, slot), tracked) in &self.storage {
            diff.set_slot(*address, *slot, tracked.old, tracked.new);
        }
        diff
    }
}

/// What a touched account is after its transaction.
pub(crate) fn account_after(account: &Account) -> Option<AccountInfo> {
    let EvmAccount { nonce, balance, code_hash, .. } = account.info;
    let present = !account.is_selfdestructed() && !account.is_empty();
    present.then_some(AccountInfo { nonce, balance, code_hash })
}

/// The code an account has after its transaction, where revm holds it.
pub(crate) fn code_of<'c>(info: &AccountInfo, account: &'c Account) -> Option<(B256, &'c Bytecode)> {
    let code = account.info.code.as_ref()?;
    info.has_code().then_some((info.code_hash, code))
}

/// revm's form of an account.
pub(crate) fn evm_account(info: AccountInfo) -> EvmAccount {
    let AccountInfo { nonce, balance, code_hash } = info;
    EvmAccount { balance, nonce, code_hash, account_id: None, code: None }
}

/// Stored code in revm's form.
pub(crate) fn bytecode(raw: Bytes) -> Result<Bytecode, ViewError> {
    Bytecode::new_raw_checked(raw)
        .map_err(|error| ViewError::Corrupt { what: "code", reason: error.to_string() })
}

impl Database for BlockState<'_> {
    type Error = ViewError;

    fn basic(&mut self, address: Address) -> Result<Option<EvmAccount>, ViewError> {
        self.touched.push(Access { object: Object::account(address), written: false });
        let info = match self.accounts.entry(address) {
            Entry::Occupied(entry) => entry.get().new,
            Entry::Vacant(entry) => {
                let old = self.view.account(address)?;
                entry.insert(Tracked { old, new: old }).new
            }
        };
        Ok(info.map(evm_account))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, ViewError> {
        if code_hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        match self.code.entry(code_hash) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => {
                let code = bytecode(self.view.code(code_hash)?)?;
                Ok(entry.insert(code).clone())
            }
        }
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, ViewError> {
        self.touched.push(Access { object: Object::slot(address, slot), written: false });
        match self.storage.entry((address, slot)) {
            Entry::Occupied(entry) => Ok(entry.get().new),
            Entry::Vacant(entry) => {
                let old = self.view.storage(address, slot)?;
                Ok(entry.insert(Tracked { old, new: old }).new)
            }
        }
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, ViewError> {
        self.view.block_hash(number)
    }
}
