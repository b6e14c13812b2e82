//! The validator registry inside the EVM, and its part of a block's end (specs/staking.md, ST-1 and ST-5).
//!
//! # Invariants
//! - During a transaction every word goes through revm's journal: a revert, of whichever frame, undoes it, and every
//!   access is charged and warmed as the same access of a contract would be.
//! - What the end of a block writes comes after all transactions and is part of the same diff.

use crate::{StateView, ViewError, run::BlockState};
use alloy_primitives::{Address, Bytes, Log, LogData, U256, map::AddressSet};
use alloy_sol_types::SolError;
use revm::{
    context::{Block as _, Cfg, ContextError, ContextTr, JournalTr},
    handler::{EthPrecompiles, PrecompileProvider},
    interpreter::{CallInputs, CallScheme, Gas, InstructionResult, InterpreterResult, gas},
    primitives::hardfork::SpecId,
};
use staking::{Failure, Host, REGISTRY, Registry, StakingRules, Words, abi::IValidatorRegistry};

/// Ethereum's precompiles and the registry. The registry is no precompile to the EVM: its account is cold at first
/// and has code.
#[derive(Clone, Debug)]
pub(crate) struct Precompiles {
    ethereum: EthPrecompiles,
    staking: Option<StakingRules>,
}

impl Precompiles {
    pub(crate) fn new(spec: SpecId, staking: Option<StakingRules>) -> Self {
        Self { ethereum: EthPrecompiles::new(spec), staking }
    }

    /// Addresses of Ethereum's precompiles.
    pub(crate) fn ethereum(&self) -> &AddressSet {
        self.ethereum.warm_addresses()
    }
}

impl<CTX: ContextTr<Cfg: Cfg<Spec = SpecId>>> PrecompileProvider<CTX> for Precompiles {
    type Output = InterpreterResult;

    fn set_spec(&mut self, spec: SpecId) -> bool {
        PrecompileProvider::<CTX>::set_spec(&mut self.ethereum, spec)
    }

    fn run(&mut self, context: &mut CTX, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        match &self.staking {
            Some(rules) if inputs.bytecode_address == REGISTRY => Ok(Some(call(rules, context, inputs))),
            _ => PrecompileProvider::<CTX>::run(&mut self.ethereum, context, inputs),
        }
    }

    fn warm_addresses(&self) -> &AddressSet {
        self.ethereum.warm_addresses()
    }
}

fn call<CTX: ContextTr>(rules: &StakingRules, context: &mut CTX, inputs: &CallInputs) -> InterpreterResult {
    let gas = Gas::new_with_regular_gas_and_reservoir(inputs.gas_limit, inputs.reservoir);
    let borrowed = matches!(inputs.scheme, CallScheme::DelegateCall | CallScheme::CallCode);
    if borrowed || inputs.target_address != REGISTRY {
        // In another account's name and storage the registry has no meaning.
        let output = IValidatorRegistry::OnlyDirectCalls {}.abi_encode().into();
        return InterpreterResult::new(InstructionResult::Revert, output, gas);
    }
    let input = inputs.input.bytes(context);
    let height = context.block().number().saturating_to();
    let mut frame = Frame { context, gas };
    let outcome = Registry::at(rules, height, &mut frame).execute(
        inputs.caller,
        inputs.call_value(),
        &input,
        inputs.is_static,
    );
    let Frame { context, mut gas } = frame;
    let (result, output) = match outcome {
        Ok(output) => (InstructionResult::Return, output),
        Err(Failure::Revert(output)) => (InstructionResult::Revert, output),
        Err(Failure::StaticCall) => (InstructionResult::StateChangeDuringStaticCall, Bytes::new()),
        Err(Failure::Host(Stop::OutOfGas)) => (InstructionResult::OutOfGas, Bytes::new()),
        Err(Failure::Host(Stop::OutOfFunds)) => (InstructionResult::OutOfFunds, Bytes::new()),
        Err(Failure::Host(Stop::Database(error))) => {
            *context.error() = Err(ContextError::Db(error));
            (InstructionResult::FatalExternalError, Bytes::new())
        }
    };
    if !matches!(result, InstructionResult::Return | InstructionResult::Revert) {
        gas.spend_all();
    }
    InterpreterResult::new(result, output, gas)
}

/// One call of the registry: the journal, and the gas that is left.
struct Frame<'a, CTX> {
    context: &'a mut CTX,
    gas: Gas,
}

/// Why a call cannot go on.
enum Stop<E> {
    OutOfGas,
    /// The registry has less than it owes. Only a simulation with another balance can see this.
    OutOfFunds,
    Database(E),
}

type DatabaseError<CTX> = <<CTX as ContextTr>::Db as revm::Database>::Error;

impl<CTX: ContextTr> Frame<'_, CTX> {
    fn spend(&mut self, gas: u64) -> Result<(), Stop<DatabaseError<CTX>>> {
        if self.gas.record_regular_cost(gas) { Ok(()) } else { Err(Stop::OutOfGas) }
    }
}

impl<CTX: ContextTr> Words for Frame<'_, CTX> {
    type Error = Stop<DatabaseError<CTX>>;

    fn load(&mut self, slot: U256) -> Result<U256, Self::Error> {
        let prices = self.context.cfg().gas_params();
        let (warm, cold) = (prices.warm_storage_read_cost(), prices.cold_storage_additional_cost());
        self.spend(warm)?;
        let word = self.context.journal_mut().sload(REGISTRY, slot).map_err(Stop::Database)?;
        if word.is_cold {
            self.spend(cold)?;
        }
        Ok(word.data)
    }

    fn store(&mut self, slot: U256, value: U256) -> Result<(), Self::Error> {
        let prices = self.context.cfg().gas_params();
        let (stipend, fixed) = (prices.call_stipend(), prices.sstore_static_gas());
        if self.gas.remaining() <= stipend {
            return Err(Stop::OutOfGas);
        }
        self.spend(fixed)?;
        let journal = self.context.journal_mut();
        journal.touch_account(REGISTRY);
        let change = journal.sstore(REGISTRY, slot, value).map_err(Stop::Database)?;
        let prices = self.context.cfg().gas_params();
        let dynamic = prices.sstore_dynamic_gas(true, &change.data, change.is_cold);
        let refund = prices.sstore_refund(true, &change.data);
        self.spend(dynamic)?;
        self.gas.record_refund(refund);
        Ok(())
    }
}

impl<CTX: ContextTr> Host for Frame<'_, CTX> {
    fn charge(&mut self, gas: u64) -> Result<(), Self::Error> {
        self.spend(gas)
    }

    fn emit(&mut self, log: LogData) -> Result<(), Self::Error> {
        let topics = (log.topics().len() as u64).saturating_mul(gas::LOGTOPIC);
        let data = (log.data.len() as u64).saturating_mul(gas::LOGDATA);
        self.spend(gas::LOG.saturating_add(topics).saturating_add(data))?;
        self.context.journal_mut().log(Log { address: REGISTRY, data: log });
        Ok(())
    }

    fn pay(&mut self, to: Address, amount: u128) -> Result<(), Self::Error> {
        self.spend(gas::CALLVALUE)?;
        let journal = self.context.journal_mut();
        let failed = journal.transfer(REGISTRY, to, U256::from(amount)).map_err(Stop::Database)?;
        failed.map_or(Ok(()), |_| Err(Stop::OutOfFunds))
    }
}

/// The registry's words while no transaction runs.
pub(crate) struct BlockWords<'b, 'a>(pub(crate) &'b mut BlockState<'a>);

impl Words for BlockWords<'_, '_> {
    type Error = ViewError;

    fn load(&mut self, slot: U256) -> Result<U256, ViewError> {
        revm::Database::storage(self.0, REGISTRY, slot)
    }

    fn store(&mut self, slot: U256, value: U256) -> Result<(), ViewError> {
        self.0.set_storage(REGISTRY, slot, value)
    }
}

/// The registry's words in a finished state.
pub(crate) struct ViewWords<'a>(pub(crate) &'a dyn StateView);

impl Words for ViewWords<'_> {
    type Error = ViewError;

    fn load(&mut self, slot: U256) -> Result<U256, ViewError> {
        self.0.storage(REGISTRY, slot)
    }

    fn store(&mut self, _slot: U256, _value: U256) -> Result<(), ViewError> {
        Err(ViewError::Evm("the registry wrote to a state that is only read".into()))
    }
}
