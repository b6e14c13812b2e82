//! Plain revm: mainnet handler, `CacheDB`, one thread. The baseline of the benchmarks, and, with the fees put aside,
//! an executor that shares nothing with the project's but revm: the oracle's oracle.

use crate::coverage::{Coverage, Watch};
use alloy_consensus::Transaction;
use alloy_eips::{Typed2718, eip2935::HISTORY_STORAGE_ADDRESS};
use alloy_primitives::{Address, B256, Log, U256};
use execution::{
    AccountInfo, BlockEnv, Fork, RecoveredTx, Rules, STRICT_MARKER, StateDiff, StateView, ViewError,
};
use revm::{
    Context, DatabaseRef, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext, MainnetEvm,
    SystemCallCommitEvm,
    context::{
        BlockEnv as EvmBlock, CfgEnv, ContextSetters, TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction},
    },
    context_interface::{block::BlobExcessGasAndPrice, either::Either},
    database::CacheDB,
    handler::{EthPrecompiles, FrameResult, Handler, MainnetContext},
    inspector::InspectorHandler,
    interpreter::interpreter::EthInterpreter,
    primitives::hardfork::SpecId,
    state::{AccountInfo as EvmAccount, AccountStatus, Bytecode, EvmState},
};
use std::marker::PhantomData;

/// A view as revm reads it.
#[derive(Clone, Copy)]
pub struct ViewRef<'a>(pub &'a dyn StateView);

impl DatabaseRef for ViewRef<'_> {
    type Error = ViewError;

    fn basic_ref(&self, address: Address) -> Result<Option<EvmAccount>, ViewError> {
        let info = self.0.account(address)?;
        Ok(info.map(|info| EvmAccount {
            balance: info.balance,
            nonce: info.nonce,
            code_hash: info.code_hash,
            account_id: None,
            code: None,
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, ViewError> {
        let raw = self.0.code(hash)?;
        Bytecode::new_raw_checked(raw)
            .map_err(|error| ViewError::Corrupt { what: "code", reason: error.to_string() })
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, ViewError> {
        self.0.storage(address, slot)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, ViewError> {
        self.0.block_hash(number)
    }
}

pub(crate) type PlainContext<'a> = MainnetContext<CacheDB<ViewRef<'a>>>;
type PlainEvm<'a, I> = MainnetEvm<PlainContext<'a>, I>;

/// Why revm did not run a transaction.
pub type PlainError = EVMError<ViewError, InvalidTransaction>;

/// The baseline: runs transactions as Ethereum does, each fee credited at once, and commits each to the cache.
pub struct Baseline<'a>(PlainEvm<'a, ()>);

impl<'a> Baseline<'a> {
    /// An EVM at the beginning of a block.
    pub fn new(view: &'a dyn StateView, rules: &Rules, env: &BlockEnv) -> Self {
        Self(context(view, rules, env).build_mainnet())
    }

    /// Runs a transaction and commits it.
    pub fn transact(&mut self, transaction: &RecoveredTx) -> Result<ExecutionResult, PlainError> {
        self.0.transact_commit(tx_env(transaction))
    }

    /// What has changed so far, beside code.
    pub fn diff(&self) -> Result<StateDiff, ViewError> {
        let cache = &self.0.ctx.journaled_state.database;
        diff(cache.db.0, cache)
    }
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainReceipt {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// Gas it used.
    pub gas_used: u64,
    /// Its logs.
    pub logs: Vec<Log>,
}

/// What a block did.
#[derive(Clone, Debug, Default)]
pub struct PlainOutcome {
    /// One per transaction.
    pub receipts: Vec<PlainReceipt>,
    /// What changed; without code.
    pub diff: StateDiff,
    /// What the transactions exercised.
    pub coverage: Coverage,
}

/// Runs transactions one after another on plain revm, with the fees put aside and credited at the end.
pub fn execute<'t>(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    transactions: impl IntoIterator<Item = &'t RecoveredTx>,
) -> Result<PlainOutcome, PlainError> {
    let mut evm = context(view, rules, env).build_mainnet_with_inspector(Watch::default());
    let history = view.account(HISTORY_STORAGE_ADDRESS)?;
    if rules.fork_at(env.height) >= Fork::Prague && history.is_some_and(|info| info.has_code()) {
        let parent = view.block_hash(env.height - 1)?;
        evm.system_call_commit(HISTORY_STORAGE_ADDRESS, parent.0.into())?;
    }
    let (mut fees, mut receipts) = (U256::ZERO, Vec::new());
    for transaction in transactions {
        evm.ctx.set_tx(tx_env(transaction));
        let result = FeesApart(PhantomData).inspect_run(&mut evm);
        let mut changes = evm.finalize();
        let mut receipt = receipt(result?);
        if let Some(fault) = strict_fault(transaction, &changes, spec(rules, env)) {
            evm.inspector.count(fault.unwrap_or("strict: within its list"));
            if fault.is_some() {
                receipt = charge_in_full(transaction, env, &mut changes);
            }
        }
        evm.commit(changes);
        let tip = transaction.effective_tip(env.base_fee).unwrap_or_default();
        fees += U256::from(tip) * U256::from(receipt.gas_used);
        receipts.push(receipt);
    }
    let coverage = std::mem::take(&mut evm.inspector).into();
    let mut diff = diff(view, &evm.ctx.journaled_state.database)?;
    let old = view.account(env.fee_recipient)?;
    let mut new = diff.account(&env.fee_recipient).map_or(old, |change| change.new).unwrap_or_default();
    new.balance += fees;
    diff.set_account(env.fee_recipient, old, Some(new));
    Ok(PlainOutcome { receipts, diff, coverage })
}

fn receipt(result: ExecutionResult) -> PlainReceipt {
    PlainReceipt {
        succeeded: result.is_success(),
        gas_used: result.tx_gas_used(),
        logs: if result.is_success() { result.into_logs() } else { Vec::new() },
    }
}

/// By the words of specs/strict.md, X-3, on what the finished transaction loaded and changed: `None` if it is not
/// strict, else what it did that its list does not allow, if anything.
fn strict_fault(transaction: &RecoveredTx, changes: &EvmState, spec: SpecId) -> Option<Option<&'static str>> {
    let envelope = transaction.envelope();
    let list = &envelope.access_list()?.0;
    let marker = list.iter().find(|item| item.address == STRICT_MARKER)?;
    let authorities = transaction.authorizations().iter().filter_map(|signed| signed.authority());
    let target = envelope.to().unwrap_or_else(|| transaction.sender().create(envelope.nonce()));
    let implied: Vec<Address> = authorities.chain([transaction.sender(), target]).collect();
    let precompiles = EthPrecompiles::new(spec);
    let entries = |address: Address| list.iter().filter(move |item| item.address == address);
    for (address, account) in changes {
        let free = implied.contains(address) || precompiles.contains(address);
        if !free && (*address == STRICT_MARKER || entries(*address).next().is_none()) {
            return Some(Some("strict: undeclared account"));
        }
        let listed = |slot: &U256| entries(*address).any(|item| item.storage_keys.contains(&(*slot).into()));
        if account.storage.keys().any(|slot| !listed(slot)) {
            return Some(Some("strict: undeclared slot"));
        }
        let changed = account.info != account.original_info()
            || account.is_selfdestructed()
            || account.changed_storage_slots().next().is_some();
        let mut word = address.into_word();
        word.0[0] = 1;
        if changed && marker.storage_keys.contains(&word) {
            return Some(Some("strict: read-only"));
        }
    }
    Some(None)
}

/// What is left of an aborted transaction: its sender pays for the whole limit and has used its nonce.
fn charge_in_full(transaction: &RecoveredTx, env: &BlockEnv, changes: &mut EvmState) -> PlainReceipt {
    changes.retain(|address, _| *address == transaction.sender());
    for account in changes.values_mut() {
        let price = transaction.envelope().effective_gas_price(Some(env.base_fee));
        account.info = account.original_info();
        account.info.balance -= U256::from(price) * U256::from(transaction.gas_limit());
        account.info.nonce += 1;
        account.storage.clear();
        account.status = AccountStatus::Touched;
    }
    PlainReceipt { succeeded: false, gas_used: transaction.gas_limit(), logs: Vec::new() }
}

/// The mainnet handler, but that a transaction credits nobody with its fee.
struct FeesApart<'a>(PhantomData<&'a ()>);

impl<'a> Handler for FeesApart<'a> {
    type Evm = PlainEvm<'a, Watch>;
    type Error = PlainError;
    type HaltReason = HaltReason;

    fn reward_beneficiary(&self, _: &mut Self::Evm, _: &mut FrameResult) -> Result<(), PlainError> {
        Ok(())
    }
}

impl InspectorHandler for FeesApart<'_> {
    type IT = EthInterpreter;
}

/// What the cache holds that the view does not.
fn diff(view: &dyn StateView, cache: &CacheDB<ViewRef<'_>>) -> Result<StateDiff, ViewError> {
    let mut diff = StateDiff::default();
    for (address, account) in &cache.cache.accounts {
        let info = account.info().map(|info| AccountInfo {
            nonce: info.nonce,
            balance: info.balance,
            code_hash: info.code_hash,
        });
        diff.set_account(*address, view.account(*address)?, info);
        for (slot, value) in &account.storage {
            diff.set_slot(*address, *slot, view.storage(*address, *slot)?, *value);
        }
    }
    Ok(diff)
}

fn context<'a>(view: &'a dyn StateView, rules: &Rules, env: &BlockEnv) -> PlainContext<'a> {
    let block = EvmBlock {
        number: U256::from(env.height),
        beneficiary: env.fee_recipient,
        timestamp: U256::from(env.timestamp_ms / 1000),
        gas_limit: env.gas_limit,
        basefee: env.base_fee,
        difficulty: U256::ZERO,
        prevrandao: Some(env.prevrandao),
        blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice: 1 }),
        slot_num: env.height,
    };
    let cfg = CfgEnv::new_with_spec(spec(rules, env)).with_chain_id(rules.chain_id());
    Context::mainnet().with_db(CacheDB::new(ViewRef(view))).with_cfg(cfg).with_block(block)
}

fn spec(rules: &Rules, env: &BlockEnv) -> SpecId {
    match rules.fork_at(env.height) {
        Fork::Cancun => SpecId::CANCUN,
        Fork::Prague => SpecId::PRAGUE,
        Fork::Osaka => SpecId::OSAKA,
    }
}

fn tx_env(transaction: &RecoveredTx) -> TxEnv {
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
        authorization_list: transaction.authorizations().iter().cloned().map(Either::Right).collect(),
        ..TxEnv::default()
    }
}
