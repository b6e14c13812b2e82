//! The seam to revm: environments in, results and receipts out.
//!
//! # Invariants
//! - Fees never touch the fee recipient inside a transaction: they are handed out as a number, summed, and credited
//!   at the end of the block. Else every transaction would conflict with every other.
//! - revm's journal is emptied after every transaction, also after a refused one: nothing leaks into the next.

use crate::{
    BlockEnv, InvalidTx, RecoveredTx, Rules, StrictAbort, StrictList, TxReceipt,
    guard::{Guard, Guarded, GuardedError},
    registry::Precompiles,
};
use alloy_consensus::{Transaction, TxType};
use alloy_eips::Typed2718;
use alloy_primitives::{Address, Bytes, Log, U256, map::HashMap};
use revm::{
    Context, Database, MainBuilder, MainContext, SystemCallEvm,
    context::{
        BlockEnv as EvmBlock, CfgEnv, ContextSetters, ContextTr, Evm as AnyEvm, JournalTr, TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction, ResultGas},
    },
    context_interface::{
        Block, Transaction as _, block::BlobExcessGasAndPrice, either::Either,
        journaled_state::account::JournaledAccountTr,
    },
    handler::{EthFrame, EvmTr, FrameResult, Handler, MainnetContext, instructions::EthInstructions},
    interpreter::interpreter::EthInterpreter,
    state::EvmState,
};
use std::cell::Cell;

/// revm over any state: Ethereum's, with the validator registry.
pub(crate) type Evm<DB> = AnyEvm<
    MainnetContext<Guarded<DB>>,
    (),
    EthInstructions<EthInterpreter, MainnetContext<Guarded<DB>>>,
    Precompiles,
    EthFrame<EthInterpreter>,
>;

/// What revm says when it runs no transaction.
type EvmError<DB> = EVMError<GuardedError<<DB as Database>::Error>, InvalidTransaction>;

/// Accounts a transaction's journal may have had for its memory to be kept for the next one.
const JOURNAL_KEPT: usize = 64;

/// Why a transaction had no effect, split by blame. `E` is what the state said.
pub(crate) enum Refusal<E> {
    Invalid(InvalidTx),
    State(E),
    /// revm failed in a way that is neither the transaction's nor the state's fault.
    Evm(String),
}

impl<E> Refusal<E> {
    fn of(
        error: EVMError<GuardedError<E>, InvalidTransaction>,
        chain_id: u64,
        tx_chain_id: Option<u64>,
    ) -> Self {
        match error {
            EVMError::Transaction(error) => Self::Invalid(InvalidTx::from_evm(error, chain_id, tx_chain_id)),
            EVMError::Database(GuardedError::State(error)) => Self::State(error),
            EVMError::Database(GuardedError::Strict(abort)) => Self::Evm(abort.to_string()),
            EVMError::Header(error) => Self::Evm(error.to_string()),
            EVMError::Custom(reason) => Self::Evm(reason),
            EVMError::CustomAny(error) => Self::Evm(error.to_string()),
        }
    }
}

/// Builds revm for a block.
pub(crate) fn evm<DB: Database>(state: DB, rules: &Rules, cfg: CfgEnv, block: EvmBlock) -> Evm<DB> {
    let precompiles = Precompiles::new(*cfg.spec(), rules.staking().copied());
    let context = Context::mainnet().with_db(Guarded::new(state)).with_cfg(cfg).with_block(block);
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

/// A transaction that ran.
pub(crate) struct Ran {
    pub result: ExecutionResult,
    /// What it owes the fee recipient, in wei.
    pub fee: U256,
    /// Why it was aborted, if it was strict and did what it had not declared.
    pub abort: Option<StrictAbort>,
}

/// Runs a transaction, a strict one within its limits. Its changes stay in the journal until [`drain`] takes them,
/// whatever comes out.
pub(crate) fn transact<DB: Database>(
    evm: &mut Evm<DB>,
    transaction: TxEnv,
) -> Result<Ran, Refusal<DB::Error>> {
    let strict =
        StrictList::parse(&transaction.access_list).map_err(|error| Refusal::Invalid(error.into()))?;
    let Some(list) = strict else { return transact_freely(evm, transaction) };
    list.check_height(evm.ctx.block.number.saturating_to()).map_err(Refusal::Invalid)?;
    let guard = Guard::new(list, &transaction, evm.precompiles.ethereum());
    evm.ctx.journaled_state.database.guard = Some(Box::new(guard));
    let ran = run(evm, transaction);
    let guard = evm.ctx.journaled_state.database.guard.take();
    let abort = match &ran {
        Ok(_) => guard.and_then(|guard| guard.judge(&evm.ctx.journaled_state.inner.state)),
        Err(EVMError::Database(GuardedError::Strict(abort))) => Some(*abort),
        Err(_) => None,
    };
    match abort {
        Some(abort) => charge_in_full(evm, abort),
        None => ran.map_err(|error| refusal(evm, error)),
    }
}

/// [`transact`] without a look at the access list: what a strict transaction declares counts for nothing.
pub(crate) fn transact_freely<DB: Database>(
    evm: &mut Evm<DB>,
    transaction: TxEnv,
) -> Result<Ran, Refusal<DB::Error>> {
    run(evm, transaction).map_err(|error| refusal(evm, error))
}

fn run<DB: Database>(evm: &mut Evm<DB>, transaction: TxEnv) -> Result<Ran, EvmError<DB>> {
    evm.ctx.set_tx(transaction);
    let mut handler = FeesApart::<DB> { fee: Cell::default(), _state: std::marker::PhantomData };
    let result = handler.run(evm)?;
    Ok(Ran { result, fee: handler.fee.get(), abort: None })
}

fn refusal<DB: Database>(evm: &Evm<DB>, error: EvmError<DB>) -> Refusal<DB::Error> {
    Refusal::of(error, evm.ctx.cfg.chain_id, evm.ctx.tx.chain_id)
}

/// What is left of an aborted transaction: its sender pays for all its gas and has used its nonce. It had passed every
/// check of validity, for those look at nothing but the sender.
fn charge_in_full<DB: Database>(evm: &mut Evm<DB>, abort: StrictAbort) -> Result<Ran, Refusal<DB::Error>> {
    evm.ctx.journaled_state.finalize();
    let base_fee = u128::from(evm.ctx.block.basefee());
    let (caller, gas) = (evm.ctx.tx.caller, evm.ctx.tx.gas_limit);
    let price = evm.ctx.tx.effective_gas_price(base_fee);
    let mut sender = match evm.ctx.journaled_state.load_account_mut(caller) {
        Ok(sender) => sender.data,
        Err(error) => return Err(refusal(evm, EVMError::Database(error))),
    };
    let owed = U256::from(price).saturating_mul(U256::from(gas));
    let left = sender.balance().saturating_sub(owed);
    sender.touch();
    sender.set_balance(left);
    sender.bump_nonce();
    let fee = U256::from(price.saturating_sub(base_fee)).saturating_mul(U256::from(gas));
    // revm has no halt of this name; `abort` says what it was.
    let gas = ResultGas::default().with_total_gas_spent(gas);
    let result = ExecutionResult::Halt { reason: HaltReason::NotActivated, gas, logs: Vec::new() };
    Ok(Ran { result, fee, abort: Some(abort) })
}

/// Calls a contract in the name of the system, with no transaction and no fee.
pub(crate) fn system_call<DB: Database>(
    evm: &mut Evm<DB>,
    contract: Address,
    input: Bytes,
) -> Result<ExecutionResult, Refusal<DB::Error>> {
    evm.system_call_one(contract, input).map_err(|error| refusal(evm, error))
}

/// The state that revm runs on.
pub(crate) fn state<DB: Database>(evm: &mut Evm<DB>) -> &mut DB {
    &mut evm.ctx.journaled_state.database.state
}

/// Hands the journal's accounts and the state below them to `take`, and empties the journal. Its memory stays.
pub(crate) fn drain<DB: Database, T>(evm: &mut Evm<DB>, take: impl FnOnce(&mut EvmState, &mut DB) -> T) -> T {
    let journal = &mut evm.ctx.journaled_state;
    let mut accounts = std::mem::take(&mut journal.inner.state);
    // Clears the rest; the accounts are taken already.
    journal.finalize();
    let taken = take(&mut accounts, &mut journal.database.state);
    if accounts.capacity() <= JOURNAL_KEPT {
        accounts.clear();
        journal.inner.state = accounts;
    } else {
        journal.inner.state = HashMap::default();
    }
    taken
}

/// Ethereum's transaction, but for the fee, which is told instead of credited.
struct FeesApart<DB> {
    fee: Cell<U256>,
    _state: std::marker::PhantomData<DB>,
}

impl<DB: Database> Handler for FeesApart<DB> {
    type Evm = Evm<DB>;
    type Error = EvmError<DB>;
    type HaltReason = HaltReason;

    fn reward_beneficiary(&self, evm: &mut Evm<DB>, result: &mut FrameResult) -> Result<(), Self::Error> {
        let context = evm.ctx();
        let base_fee = u128::from(context.block().basefee());
        let price = context.tx().effective_gas_price(base_fee).saturating_sub(base_fee);
        let gas = result.gas();
        let used = gas.used().saturating_sub(gas.reservoir());
        self.fee.set(U256::from(price).saturating_mul(U256::from(used)));
        Ok(())
    }
}

/// What is left of a transaction that ran, beside its changes: all that its receipt needs and cannot be had from the
/// transaction itself. A tenth of a receipt.
#[derive(Debug)]
pub(crate) struct Mark {
    succeeded: bool,
    pub gas_used: u64,
    pub logs: Vec<Log>,
    abort: Option<Box<StrictAbort>>,
}

impl From<Ran> for Mark {
    fn from(ran: Ran) -> Self {
        let Ran { result, abort, .. } = ran;
        let (gas_used, succeeded) = (result.tx_gas_used(), result.is_success());
        // A revert drops its logs; revm hands over only what counts for the receipt on success.
        let logs = if succeeded { result.into_logs() } else { Vec::new() };
        Self { succeeded, gas_used, logs, abort: abort.map(Box::new) }
    }
}

impl Mark {
    /// The receipt behind transactions with so much gas and so many logs, without its bloom.
    pub(crate) fn receipt(self, transaction: &RecoveredTx, base_fee: u64, gas: u64, logs: u64) -> TxReceipt {
        let envelope = transaction.envelope();
        let kind = TxType::try_from(envelope.ty()).expect("an envelope has a known type");
        let cumulative = gas.saturating_add(self.gas_used);
        TxReceipt {
            envelope: TxReceipt::envelope_without_bloom(kind, self.succeeded, cumulative, self.logs),
            tx_hash: transaction.hash(),
            from: transaction.sender(),
            to: envelope.to(),
            contract_address: envelope.is_create().then(|| transaction.sender().create(envelope.nonce())),
            gas_used: self.gas_used,
            effective_gas_price: envelope.effective_gas_price(Some(base_fee)),
            first_log_index: logs,
            abort: self.abort.map(|abort| *abort),
        }
    }
}
