//! The seam to revm: environments in, changes and receipts out.
//!
//! # Invariants
//! - [`BlockState`] holds, for everything it ever read, the parent's value and the current one; the diff is what
//!   differs at the end. Old values come from the view alone.
//! - revm's journal is emptied after every transaction, also after a refused one: nothing leaks into the next.
//! - No supported fork clears the storage of an account from an earlier transaction (EIP-6780), and no account
//!   without code and nonce has storage, so storage never has to be enumerated.

use crate::{
    AccountInfo, BlockEnv, BlockOutcome, ExecuteError, Fork, InvalidTx, LtHash, RecoveredTx, Rules,
    StateDiff, StateView, TxReceipt, ViewError, receipts_hash,
    registry::Precompiles,
    system::{SystemOutcome, SystemStep},
};
use alloy_consensus::{Transaction, TxType};
use alloy_eips::{Typed2718, eip2935::HISTORY_STORAGE_ADDRESS};
use alloy_primitives::{
    Address, B256, Bloom, Bytes, KECCAK256_EMPTY, U256,
    map::{AddressMap, B256Map, HashMap},
};
use revm::{
    Context, Database, ExecuteEvm, MainBuilder, MainContext, SystemCallEvm,
    context::{
        BlockEnv as EvmBlock, CfgEnv, Evm as AnyEvm, TxEnv,
        result::{EVMError, ExecutionResult, InvalidTransaction},
    },
    context_interface::{block::BlobExcessGasAndPrice, either::Either},
    handler::{EthFrame, MainnetContext, instructions::EthInstructions},
    interpreter::interpreter::EthInterpreter,
    state::{Account, AccountInfo as EvmAccount, Bytecode, EvmState},
};
use std::{collections::hash_map::Entry, sync::Arc};

type EvmContext<'a> = MainnetContext<BlockState<'a>>;

/// revm over a block's state: Ethereum's, with the validator registry.
pub(crate) type Evm<'a> = AnyEvm<
    EvmContext<'a>,
    (),
    EthInstructions<EthInterpreter, EvmContext<'a>>,
    Precompiles,
    EthFrame<EthInterpreter>,
>;

/// Why a transaction had no effect, split by blame.
pub(crate) enum Refusal {
    Invalid(InvalidTx),
    View(ViewError),
}

/// Builds revm for a block.
pub(crate) fn evm<'a>(view: &'a dyn StateView, rules: &Rules, cfg: CfgEnv, block: EvmBlock) -> Evm<'a> {
    let precompiles = Precompiles::new(*cfg.spec(), rules.staking().copied());
    let context = Context::mainnet().with_db(BlockState::new(view)).with_cfg(cfg).with_block(block);
    context.build_mainnet().with_precompiles(precompiles)
}

/// revm's configuration for blocks at `height`.
pub(crate) fn cfg_env(rules: &Rules, height: u64) -> CfgEnv {
    CfgEnv::new_with_spec(rules.fork_at(height).spec()).with_chain_id(rules.chain_id())
}

/// revm's form of a block environment.
pub(crate) fn block_env(env: &BlockEnv) -> EvmBlock {
    EvmBlock {
        number: U256::from(env.height),
        beneficiary: env.fee_recipient,
        timestamp: U256::from(env.timestamp_ms / 1000),
        gas_limit: env.gas_limit,
        basefee: env.base_fee,
        difficulty: U256::ZERO,
        prevrandao: Some(env.prevrandao),
        // There are no blobs: BLOBBASEFEE is the protocol's minimum.
        blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice: 1 }),
        slot_num: env.height,
    }
}

/// revm's form of a transaction.
pub(crate) fn tx_env(transaction: &RecoveredTx) -> TxEnv {
    let envelope = transaction.envelope();
    TxEnv {
        tx_type: envelope.ty(),
        caller: transaction.sender(),
        gas_limit: envelope.gas_limit(),
        gas_price: envelope.max_fee_per_gas(),
        kind: envelope.kind(),
        value: envelope.value(),
        data: envelope.input().clone(),
        nonce: envelope.nonce(),
        chain_id: envelope.chain_id(),
        access_list: envelope.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: envelope.max_priority_fee_per_gas(),
        blob_hashes: Vec::new(),
        max_fee_per_blob_gas: 0,
        authorization_list: transaction.authorizations().iter().cloned().map(Either::Right).collect(),
    }
}

/// Splits revm's error by blame.
pub(crate) fn refusal(
    error: EVMError<ViewError, InvalidTransaction>,
    chain_id: u64,
    tx_chain_id: Option<u64>,
) -> Refusal {
    match error {
        EVMError::Transaction(error) => Refusal::Invalid(InvalidTx::from_evm(error, chain_id, tx_chain_id)),
        EVMError::Database(error) => Refusal::View(error),
        EVMError::Header(error) => Refusal::View(ViewError::Evm(error.to_string())),
        EVMError::Custom(reason) => Refusal::View(ViewError::Evm(reason)),
        EVMError::CustomAny(error) => Refusal::View(ViewError::Evm(error.to_string())),
    }
}

/// Runs one block's transactions one after another and collects what they do.
pub(crate) struct BlockRun<'a> {
    evm: Evm<'a>,
    env: BlockEnv,
    chain_id: u64,
    system: SystemStep,
    receipts: Vec<TxReceipt>,
    gas_used: u64,
    logs: u64,
    bloom: Bloom,
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
        let mut evm = evm(view, rules, cfg_env(rules, env.height), block_env(env));
        let system = SystemStep::new(rules, env.height, evidence, &mut evm.ctx.journaled_state.database)?;
        let chain_id = rules.chain_id();
        let (receipts, bloom) = (Vec::new(), Bloom::ZERO);
        let mut run = Self { evm, env: *env, chain_id, system, receipts, gas_used: 0, logs: 0, bloom };
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
        let result = self.evm.system_call_one(HISTORY_STORAGE_ADDRESS, parent.0.into());
        let changes = self.evm.finalize();
        match result {
            Ok(_) => self.state().apply(changes),
            Err(error) => match refusal(error, self.chain_id, None) {
                Refusal::View(error) => return Err(error),
                Refusal::Invalid(error) => return Err(ViewError::Evm(error.to_string())),
            },
        }
        Ok(())
    }

    /// Gas left in the block.
    pub(crate) fn gas_left(&self) -> u64 {
        self.env.gas_limit.saturating_sub(self.gas_used)
    }

    /// Runs one transaction. A refused one leaves no trace.
    pub(crate) fn transact(&mut self, transaction: &RecoveredTx) -> Result<(), Refusal> {
        let (gas_limit, available) = (transaction.gas_limit(), self.gas_left());
        if gas_limit > available {
            return Err(Refusal::Invalid(InvalidTx::BlockGasExceeded { gas_limit, available }));
        }
        let result = self.evm.transact_one(tx_env(transaction));
        let changes = self.evm.finalize();
        match result {
            Ok(result) => {
                self.state().apply(changes);
                self.record(transaction, result);
                Ok(())
            }
            Err(error) => Err(refusal(error, self.chain_id, transaction.envelope().chain_id())),
        }
    }

    fn record(&mut self, transaction: &RecoveredTx, result: ExecutionResult) {
        let envelope = transaction.envelope();
        let gas_used = result.tx_gas_used();
        self.gas_used = self.gas_used.saturating_add(gas_used);
        let first_log_index = self.logs;
        let succeeded = result.is_success();
        // A revert drops its logs; revm hands over only what counts for the receipt on success.
        let logs = if succeeded { result.into_logs() } else { Vec::new() };
        self.logs += logs.len() as u64;
        let contract_address = envelope.is_create().then(|| transaction.sender().create(envelope.nonce()));
        let kind = TxType::try_from(envelope.ty()).expect("an envelope has a known type");
        let receipt = TxReceipt {
            envelope: TxReceipt::envelope(kind, succeeded, self.gas_used, logs),
            tx_hash: transaction.hash(),
            from: transaction.sender(),
            to: envelope.to(),
            contract_address,
            gas_used,
            effective_gas_price: envelope.effective_gas_price(Some(self.env.base_fee)),
            first_log_index,
        };
        self.bloom |= *receipt.bloom();
        self.receipts.push(receipt);
    }

    fn state(&mut self) -> &mut BlockState<'a> {
        &mut self.evm.ctx.journaled_state.database
    }

    /// Closes the block: convictions, and the next set at the end of an epoch. What is left then is hashing, which
    /// needs no EVM and may move to another thread.
    pub(crate) fn close(mut self) -> Result<ClosedBlock, ViewError> {
        let system = std::mem::take(&mut self.system).run(self.state())?;
        Ok(ClosedBlock {
            diff: self.state().diff(),
            receipts: self.receipts,
            gas_used: self.gas_used,
            logs_bloom: self.bloom,
            base_fee: self.env.base_fee,
            system,
        })
    }
}

/// A block whose transactions have run.
pub(crate) struct ClosedBlock {
    diff: StateDiff,
    receipts: Vec<TxReceipt>,
    gas_used: u64,
    logs_bloom: Bloom,
    base_fee: u64,
    system: SystemOutcome,
}

impl ClosedBlock {
    /// Computes the hashes. `parent` is the digest of the parent's state.
    pub(crate) fn seal(self, parent: &LtHash) -> BlockOutcome {
        let (lthash, receipts_hash) =
            rayon::join(|| parent.apply(&self.diff), || receipts_hash(&self.receipts));
        BlockOutcome {
            receipts: self.receipts,
            diff: Arc::new(self.diff),
            state_hash: lthash.state_hash(),
            lthash,
            receipts_hash,
            gas_used: self.gas_used,
            logs_bloom: self.logs_bloom,
            base_fee: self.base_fee,
            system: self.system,
        }
    }
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
}

impl<'a> BlockState<'a> {
    fn new(view: &'a dyn StateView) -> Self {
        Self {
            view,
            accounts: AddressMap::default(),
            storage: HashMap::default(),
            code: B256Map::default(),
            new_code: B256Map::default(),
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

    /// Takes over what a transaction changed.
    fn apply(&mut self, changes: EvmState) {
        for (address, account) in changes {
            if account.is_touched() {
                self.apply_account(address, account);
            }
        }
    }

    fn apply_account(&mut self, address: Address, account: Account) {
        let gone = account.is_selfdestructed();
        let new = match gone || account.is_empty() {
            true => None,
            false => Some(self.keep_code(&account.info)),
        };
        match self.accounts.entry(address) {
            Entry::Occupied(entry) => entry.into_mut().new = new,
            // revm loads an account through `basic` before it touches it, so this arm is never taken; treating
            // the account as new keeps it total.
            Entry::Vacant(entry) => {
                entry.insert(Tracked { old: None, new });
            }
        }
        if gone {
            // Created and destroyed in one transaction: nothing of its storage ever reached this map.
            return;
        }
        for (slot, value) in account.changed_storage_slots() {
            match self.storage.entry((address, *slot)) {
                Entry::Occupied(entry) => entry.into_mut().new = value.present_value,
                // A slot of an account created in this transaction is not read from below: it is absent there.
                Entry::Vacant(entry) => {
                    entry.insert(Tracked { old: U256::ZERO, new: value.present_value });
                }
            }
        }
    }

    fn keep_code(&mut self, info: &EvmAccount) -> AccountInfo {
        let code_hash = info.code_hash;
        if code_hash != KECCAK256_EMPTY
            && let Some(code) = &info.code
            && let Entry::Vacant(entry) = self.code.entry(code_hash)
        {
            entry.insert(code.clone());
            self.new_code.insert(code_hash, code.original_bytes());
        }
        AccountInfo { nonce: info.nonce, balance: info.balance, code_hash }
    }

    fn diff(&mut self) -> StateDiff {
        let mut diff = StateDiff::default();
        diff.reserve(self.accounts.len(), self.storage.len());
        for (address, tracked) in &self.accounts {
            diff.set_account(*address, tracked.old, tracked.new);
        }
        for ((address, slot), tracked) in &self.storage {
            diff.set_slot(*address, *slot, tracked.old, tracked.new);
        }
        // Code of an account that was destroyed in the same block stays out, so that the diff depends on the
        // block's effect alone.
        let reachable = self.accounts.values().filter_map(|tracked| tracked.new).map(|info| info.code_hash);
        for hash in reachable {
            if let Some(code) = self.new_code.remove(&hash) {
                diff.set_code(hash, code);
            }
        }
        diff
    }
}

impl Database for BlockState<'_> {
    type Error = ViewError;

    fn basic(&mut self, address: Address) -> Result<Option<EvmAccount>, ViewError> {
        let info = match self.accounts.entry(address) {
            Entry::Occupied(entry) => entry.get().new,
            Entry::Vacant(entry) => {
                let old = self.view.account(address)?;
                entry.insert(Tracked { old, new: old }).new
            }
        };
        Ok(info.map(|info| EvmAccount {
            balance: info.balance,
            nonce: info.nonce,
            code_hash: info.code_hash,
            account_id: None,
            code: None,
        }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, ViewError> {
        if code_hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        match self.code.entry(code_hash) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => {
                let raw = self.view.code(code_hash)?;
                let code = Bytecode::new_raw_checked(raw)
                    .map_err(|error| ViewError::Corrupt { what: "code", reason: error.to_string() })?;
                Ok(entry.insert(code).clone())
            }
        }
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, ViewError> {
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
