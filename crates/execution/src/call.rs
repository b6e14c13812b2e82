//! Read-only execution for JSON-RPC: calls and gas estimation.

use crate::{
    AccountInfo, BlockEnv, Fork, InvalidTx, Rules, StateView, ViewError,
    evm::{self, Evm, Ran, Refusal},
    run::BlockState,
    transaction::recover_authority,
};
use alloy_eips::{eip2930::AccessList, eip7702::SignedAuthorization};
use alloy_primitives::{
    Address, B256, Bytes, Log, TxKind, U256, keccak256,
    map::{AddressMap, AddressSet, B256Map, HashMap},
};
use revm::{
    context::{
        BlockEnv as EvmBlock, CfgEnv, TransactionType, TxEnv,
        result::{ExecutionResult, HaltReason},
    },
    context_interface::either::Either,
    primitives::eip7825,
    state::{Bytecode, EvmState},
};

/// A transaction that is only simulated. Fields left out are filled in as geth does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRequest {
    /// Caller; the zero address when left out.
    pub from: Option<Address>,
    /// Callee; `None` creates a contract.
    pub to: Option<Address>,
    /// Gas limit; the cap when left out, and never above it.
    pub gas: Option<u64>,
    /// Legacy price per gas.
    pub gas_price: Option<u128>,
    /// EIP-1559 fee cap.
    pub max_fee_per_gas: Option<u128>,
    /// EIP-1559 tip.
    pub max_priority_fee_per_gas: Option<u128>,
    /// Value in wei.
    pub value: U256,
    /// Call data or creation code.
    pub input: Bytes,
    /// Nonce; the account's when left out.
    pub nonce: Option<u64>,
    /// Access list.
    pub access_list: AccessList,
    /// EIP-7702 authorizations.
    pub authorization_list: Vec<SignedAuthorization>,
}

/// Replaces parts of an account for one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountOverride {
    /// Other balance.
    pub balance: Option<U256>,
    /// Other nonce.
    pub nonce: Option<u64>,
    /// Other code.
    pub code: Option<Bytes>,
    /// The whole storage: slots not named read as zero. Excludes `state_diff`.
    pub state: Option<HashMap<U256, U256>>,
    /// Single slots over the stored ones.
    pub state_diff: HashMap<U256, U256>,
}

/// Account overrides by address.
pub type StateOverrides = AddressMap<AccountOverride>;

/// What a call did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It returned.
    Success {
        /// Returned bytes; the deployed code for a creation.
        output: Bytes,
        /// Gas used after refunds.
        gas_used: u64,
        /// Logs.
        logs: Vec<Log>,
    },
    /// It reverted with data.
    Revert {
        /// The revert data.
        output: Bytes,
        /// Gas used.
        gas_used: u64,
    },
    /// It stopped with an error that uses all gas.
    Halt {
        /// Which error, in words.
        reason: String,
        /// Whether more gas could have helped.
        out_of_gas: bool,
        /// Gas used.
        gas_used: u64,
    },
}

/// Why a call was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request cannot be a transaction on this state.
    #[error(transparent)]
    Invalid(#[from] InvalidTx),
    /// Legacy and EIP-1559 fees at once.
    #[error("both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified")]
    ConflictingFees,
    /// Both kinds of storage override.
    #[error("account {0} has both 'state' and 'stateDiff'")]
    ConflictingOverride(Address),
    /// Overriding code that begins as a delegation (0xef01) and is none: no account can hold it.
    #[error("overriding code of account {address} is malformed: {reason}")]
    OverrideCode {
        /// Which account.
        address: Address,
        /// What is wrong.
        reason: String,
    },
    /// Every run with the list of the one before touched something else.
    #[error("the access list did not settle in {runs} runs: what is touched depends on the gas that is left")]
    AccessListUnsettled {
        /// How many runs.
        runs: usize,
    },
    /// The state could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Why no gas limit could be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EstimateError {
    /// It reverts whatever the gas.
    #[error("execution reverted")]
    Revert {
        /// The revert data.
        output: Bytes,
    },
    /// It fails with an error whatever the gas.
    #[error("{reason}")]
    Halt {
        /// Which error, in words.
        reason: String,
    },
    /// It needs more gas than is allowed or can be paid.
    #[error("gas required exceeds allowance ({allowance})")]
    GasTooLow {
        /// Highest gas limit tried.
        allowance: u64,
    },
    /// It could not be executed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What a plain transfer costs.
const TX_GAS: u64 = 21_000;
/// Gas a call with value hands to the callee beyond what it asked for.
const CALL_STIPEND: u64 = 2_300;

/// Executes `request` on `view` without changing anything, with at most `gas_cap` gas.
///
/// Nonce, sender code and block gas limit are not checked. Without a price the base fee counts as zero, so the
/// caller needs no balance for fees; value must always be covered (or overridden).
pub fn call(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    request: &CallRequest,
    overrides: &StateOverrides,
    gas_cap: u64,
) -> Result<CallOutcome, CallError> {
    let view = Overridden::new(view, overrides)?;
    let simulation = Simulation::new(&view, rules, env, request)?;
    let gas = simulation.granted(request, gas_cap)?;
    if request.gas.is_none() && gas < TX_GAS.min(gas_cap) {
        // It is money that is missing, not gas.
        return Err(simulation.too_poor_for(TX_GAS)?.into());
    }
    simulation.run(gas).map(|(outcome, _)| outcome)
}

/// The lowest gas limit with which `request` succeeds, found as geth finds it: by bisection, within 1.5 %.
pub fn estimate_gas(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    request: &CallRequest,
    overrides: &StateOverrides,
    gas_cap: u64,
) -> Result<u64, EstimateError> {
    let view = Overridden::new(view, overrides)?;
    let simulation = Simulation::new(&view, rules, env, request)?;
    let allowance = estimate_ceiling(&simulation, rules, env, request, gas_cap)?;
    if simulation.is_plain_transfer()? && allowance >= TX_GAS && simulation.succeeds(TX_GAS)? {
        return Ok(TX_GAS);
    }
    let (used, refunded) = match simulation.try_run(allowance)? {
        Attempt::Done(CallOutcome::Success { gas_used, .. }, refunded) => (gas_used, refunded),
        Attempt::Done(CallOutcome::Revert { output, .. }, _) => return Err(EstimateError::Revert { output }),
        Attempt::Done(CallOutcome::Halt { out_of_gas: false, reason, .. }, _) => {
            return Err(EstimateError::Halt { reason });
        }
        Attempt::Done(CallOutcome::Halt { .. }, _) | Attempt::TooLittleGas => {
            return Err(EstimateError::GasTooLow { allowance });
        }
    };
    bisect(&simulation, allowance, used, refunded)
}

/// Highest gas limit worth trying: what was asked for or the block's, the caps, and what the sender can pay.
fn estimate_ceiling(
    simulation: &Simulation<'_>,
    rules: &Rules,
    env: &BlockEnv,
    request: &CallRequest,
    gas_cap: u64,
) -> Result<u64, CallError> {
    let asked = request.gas.filter(|gas| *gas >= TX_GAS).unwrap_or(env.gas_limit);
    let capped = match rules.fork_at(env.height) >= Fork::Osaka {
        true => asked.min(gas_cap).min(eip7825::TX_GAS_LIMIT_CAP),
        false => asked.min(gas_cap),
    };
    simulation.affordable(capped, false)
}

fn bisect(
    simulation: &Simulation<'_>,
    allowance: u64,
    used: u64,
    refunded: u64,
) -> Result<u64, EstimateError> {
    let (mut low, mut high) = (used.saturating_sub(1), allowance);
    // Most transactions need what they used, the refund that comes too late, and the share each call keeps back.
    let optimistic = (used.saturating_add(refunded).saturating_add(CALL_STIPEND)).saturating_mul(64) / 63;
    if optimistic < high {
        match simulation.succeeds(optimistic)? {
            true => high = optimistic,
            false => low = optimistic,
        }
    }
    while low + 1 < high {
        if (high - low) as u128 * 1000 < high as u128 * 15 {
            break;
        }
        // The answer is usually near the lower end: do not jump further than twice from there.
        let middle = (low + (high - low) / 2).min(low.saturating_mul(2).max(low + 1));
        match simulation.succeeds(middle)? {
            true => high = middle,
            false => low = middle,
        }
    }
    Ok(high)
}

/// How one try with some gas limit went.
enum Attempt {
    /// It ran; with the gas refunded.
    Done(CallOutcome, u64),
    /// It could not even start.
    TooLittleGas,
}

/// A request ready to be run with any gas limit.
pub(crate) struct Simulation<'a> {
    view: &'a Overridden<'a>,
    rules: &'a Rules,
    cfg: CfgEnv,
    block: EvmBlock,
    tx: TxEnv,
    fee_cap: u128,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(
        view: &'a Overridden<'a>,
        rules: &'a Rules,
        env: &BlockEnv,
        request: &CallRequest,
    ) -> Result<Self, CallError> {
        let mut cfg = evm::cfg_env(rules, env.height);
        cfg.disable_nonce_check = true;
        cfg.disable_eip3607 = true;
        cfg.disable_block_gas_limit = true;
        cfg.disable_base_fee = true;
        cfg.tx_gas_limit_cap = Some(u64::MAX);
        let from = request.from.unwrap_or_default();
        let (fee_cap, tip) = fees(request, env.base_fee)?;
        let mut block = evm::block_env(env);
        if fee_cap == 0 {
            block.basefee = 0;
        }
        let nonce = match request.nonce {
            Some(nonce) => nonce,
            None => view.account(from)?.unwrap_or_default().nonce,
        };
        let tx = TxEnv {
            tx_type: tx_type(request, tip),
            caller: from,
            gas_limit: 0,
            gas_price: fee_cap,
            kind: request.to.map_or(TxKind::Create, TxKind::Call),
            value: request.value,
            data: request.input.clone(),
            nonce: nonce.min(u64::MAX - 1),
            chain_id: Some(rules.chain_id()),
            access_list: request.access_list.clone(),
            gas_priority_fee: tip,
            blob_hashes: Vec::new(),
            max_fee_per_blob_gas: 0,
            authorization_list: request
                .authorization_list
                .iter()
                .map(|signed| Either::Right(recover_authority(signed)))
                .collect(),
        };
        Ok(Self { view, rules, cfg, block, tx, fee_cap })
    }

    /// The gas a request runs with: what it names, within `gas_cap`, or as much of the cap as the caller can pay.
    pub(crate) fn granted(&self, request: &CallRequest, gas_cap: u64) -> Result<u64, CallError> {
        self.affordable(request.gas.unwrap_or(gas_cap).min(gas_cap), request.gas.is_some())
    }

    /// Lowers `gas` to what the caller's balance pays for at the fee cap. With `exact` the caller named the gas
    /// itself, and what it cannot pay is for the EVM to refuse.
    fn affordable(&self, gas: u64, exact: bool) -> Result<u64, CallError> {
        if self.fee_cap == 0 || exact {
            return Ok(gas);
        }
        let available = self.view.account(self.tx.caller)?.unwrap_or_default().balance;
        let Some(left) = available.checked_sub(self.tx.value) else {
            return Err(InvalidTx::InsufficientFunds { required: self.tx.value, available }.into());
        };
        let payable = left / U256::from(self.fee_cap);
        Ok(u64::try_from(payable).unwrap_or(u64::MAX).min(gas))
    }

    fn too_poor_for(&self, gas: u64) -> Result<InvalidTx, ViewError> {
        let available = self.view.account(self.tx.caller)?.unwrap_or_default().balance;
        let fees = U256::from(self.fee_cap).saturating_mul(U256::from(gas));
        Ok(InvalidTx::InsufficientFunds { required: fees.saturating_add(self.tx.value), available })
    }

    fn is_plain_transfer(&self) -> Result<bool, CallError> {
        let TxKind::Call(to) = self.tx.kind else { return Ok(false) };
        let bare = self.tx.data.is_empty() && self.tx.authorization_list.is_empty();
        Ok(bare && !self.view.account(to)?.is_some_and(|info| info.has_code()))
    }

    fn succeeds(&self, gas: u64) -> Result<bool, CallError> {
        Ok(matches!(self.try_run(gas)?, Attempt::Done(CallOutcome::Success { .. }, _)))
    }

    fn try_run(&self, gas: u64) -> Result<Attempt, CallError> {
        match self.run(gas) {
            Ok((outcome, refunded)) => Ok(Attempt::Done(outcome, refunded)),
            Err(CallError::Invalid(InvalidTx::IntrinsicGas { .. })) => Ok(Attempt::TooLittleGas),
            Err(error) => Err(error),
        }
    }

    fn run(&self, gas: u64) -> Result<(CallOutcome, u64), CallError> {
        let (mut evm, tx) = self.prepare(gas);
        Ok(outcome(evm::transact(&mut evm, tx)?))
    }

    /// Runs without regard to what the access list declares, and hands what was touched to `look`.
    pub(crate) fn explore<T>(
        &self,
        gas: u64,
        look: impl FnOnce(&TxEnv, &AddressSet, &EvmState) -> T,
    ) -> Result<(CallOutcome, T), CallError> {
        let (mut evm, tx) = self.prepare(gas);
        let ran = evm::transact_freely(&mut evm, tx.clone())?;
        let precompiles = evm.precompiles.ethereum().clone();
        let seen = evm::drain(&mut evm, |touched, _| look(&tx, &precompiles, touched));
        Ok((outcome(ran).0, seen))
    }

    fn prepare(&self, gas: u64) -> (Evm<BlockState<'_>>, TxEnv) {
        let state = BlockState::new(self.view);
        let evm = evm::evm(state, self.rules, self.cfg.clone(), self.block.clone());
        (evm, TxEnv { gas_limit: gas, ..self.tx.clone() })
    }
}

/// What a run did, and the gas refunded.
fn outcome(ran: Ran) -> (CallOutcome, u64) {
    let Ran { result, abort, .. } = ran;
    let (gas_used, refunded) = (result.tx_gas_used(), result.gas().final_refunded());
    let outcome = match result {
        ExecutionResult::Success { output, logs, .. } => {
            CallOutcome::Success { output: output.into_data(), gas_used, logs }
        }
        ExecutionResult::Revert { output, .. } => CallOutcome::Revert { output, gas_used },
        ExecutionResult::Halt { reason, .. } => CallOutcome::Halt {
            out_of_gas: abort.is_none() && matches!(reason, HaltReason::OutOfGas(_)),
            reason: abort.map_or_else(|| halt_reason(&reason), |abort| abort.to_string()),
            gas_used,
        },
    };
    (outcome, refunded)
}

impl From<Refusal<ViewError>> for CallError {
    fn from(refusal: Refusal<ViewError>) -> Self {
        match refusal {
            Refusal::Invalid(error) => Self::Invalid(error),
            Refusal::State(error) => Self::View(error),
            Refusal::Evm(reason) => Self::View(ViewError::Evm(reason)),
        }
    }
}

/// The words geth uses, which tools look for.
fn halt_reason(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(_) => "out of gas".into(),
        HaltReason::OpcodeNotFound | HaltReason::NotActivated => "invalid opcode".into(),
        HaltReason::InvalidFEOpcode => "invalid opcode: INVALID".into(),
        HaltReason::InvalidJump => "invalid jump destination".into(),
        HaltReason::StackUnderflow => "stack underflow".into(),
        HaltReason::StackOverflow => "stack limit reached 1024 (1024)".into(),
        HaltReason::CreateCollision => "contract address collision".into(),
        HaltReason::CreateContractSizeLimit => "max code size exceeded".into(),
        HaltReason::CreateContractStartingWithEF => "invalid code: must not begin with 0xef".into(),
        HaltReason::CallTooDeep => "max call depth exceeded".into(),
        HaltReason::StateChangeDuringStaticCall => "write protection".into(),
        HaltReason::OutOfFunds => "insufficient balance for transfer".into(),
        HaltReason::OutOfOffset => "return data out of bounds".into(),
        HaltReason::NonceOverflow => "nonce uint64 overflow".into(),
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded".into(),
        // A precompile's complaint; geth has the bare sentence too.
        HaltReason::PrecompileErrorWithContext(reason) => reason.clone(),
        other => other.to_string(),
    }
}

/// Fee cap and tip of a request; both zero when it names no price.
fn fees(request: &CallRequest, base_fee: u64) -> Result<(u128, Option<u128>), CallError> {
    let dynamic = request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some();
    match (request.gas_price, dynamic) {
        (Some(_), true) => Err(CallError::ConflictingFees),
        (Some(price), false) => Ok((price, None)),
        (None, false) => Ok((0, None)),
        (None, true) => {
            let tip = request.max_priority_fee_per_gas.unwrap_or_default();
            let cap = request.max_fee_per_gas.unwrap_or_else(|| {
                // Only a tip was named: room for the base fee to double, as wallets choose it.
                tip.saturating_add(u128::from(base_fee).saturating_mul(2))
            });
            match tip > cap {
                true => Err(InvalidTx::TipAboveFeeCap.into()),
                false => Ok((cap, Some(tip))),
            }
        }
    }
}

fn tx_type(request: &CallRequest, tip: Option<u128>) -> u8 {
    match () {
        () if !request.authorization_list.is_empty() => TransactionType::Eip7702 as u8,
        () if tip.is_some() => TransactionType::Eip1559 as u8,
        () if !request.access_list.is_empty() => TransactionType::Eip2930 as u8,
        () => TransactionType::Legacy as u8,
    }
}

/// A view with account overrides above it.
pub(crate) struct Overridden<'a> {
    view: &'a dyn StateView,
    accounts: &'a StateOverrides,
    /// Keccak of each overriding code, by account and by hash.
    hashes: AddressMap<B256>,
    codes: B256Map<Bytes>,
}

impl<'a> Overridden<'a> {
    pub(crate) fn new(view: &'a dyn StateView, accounts: &'a StateOverrides) -> Result<Self, CallError> {
        let (mut hashes, mut codes) = (AddressMap::default(), B256Map::default());
        for (address, account) in accounts {
            if account.state.is_some() && !account.state_diff.is_empty() {
                return Err(CallError::ConflictingOverride(*address));
            }
            if let Some(code) = &account.code {
                Bytecode::new_raw_checked(code.clone()).map_err(|error| CallError::OverrideCode {
                    address: *address,
                    reason: error.to_string(),
                })?;
                let hash = keccak256(code);
                hashes.insert(*address, hash);
                codes.insert(hash, code.clone());
            }
        }
        Ok(Self { view, accounts, hashes, codes })
    }
}

impl StateView for Overridden<'_> {
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
        let stored = self.view.account(address)?;
        let Some(account) = self.accounts.get(&address) else { return Ok(stored) };
        let mut info = stored.unwrap_or_default();
        info.balance = account.balance.unwrap_or(info.balance);
        info.nonce = account.nonce.unwrap_or(info.nonce);
        info.code_hash = self.hashes.get(&address).copied().unwrap_or(info.code_hash);
        Ok(Some(info))
    }

    fn code(&self, hash: B256) -> Result<Bytes, ViewError> {
        match self.codes.get(&hash) {
            Some(code) => Ok(code.clone()),
            None => self.view.code(hash),
        }
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, ViewError> {
        let Some(account) = self.accounts.get(&address) else { return self.view.storage(address, slot) };
        let listed = account.state.as_ref().unwrap_or(&account.state_diff);
        match listed.get(&slot) {
            Some(value) => Ok(*value),
            None if account.state.is_some() => Ok(U256::ZERO),
            None => self.view.storage(address, slot),
        }
    }

    fn block_hash(&self, height: u64) -> Result<B256, ViewError> {
        self.view.block_hash(height)
    }
}
