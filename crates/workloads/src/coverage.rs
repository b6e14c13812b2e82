//! What random blocks exercised: a counter per feature, and the list of those that a long enough run must have hit.

use crate::plain::PlainContext;
use alloy_primitives::{Address, U256};
use revm::{
    bytecode::opcode::{OpCode, SELFDESTRUCT},
    inspector::Inspector,
    interpreter::{
        CallInputs, CallOutcome, CreateInputs, CreateOutcome, InstructionResult, Interpreter,
        interpreter_types::Jumps,
    },
};
use std::{collections::BTreeMap, fmt, ops::AddAssign};

/// Hits by feature. Opcodes count as executed, the rest as described where it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<String, u64>);

/// What every run of some thousand blocks has to hit: opcodes that ran, how calls and creations ended, kinds of
/// transactions that were included, and reasons for which candidates were not.
pub const REQUIRED: &[&str] = &[
    // Opcodes.
    "SLOAD",
    "SSTORE",
    "TLOAD",
    "TSTORE",
    "BALANCE",
    "SELFBALANCE",
    "EXTCODEHASH",
    "EXTCODESIZE",
    "EXTCODECOPY",
    "CALL",
    "CALLCODE",
    "DELEGATECALL",
    "STATICCALL",
    "CREATE",
    "CREATE2",
    "SELFDESTRUCT",
    "LOG0",
    "LOG1",
    "LOG2",
    "LOG3",
    "LOG4",
    "REVERT",
    "BLOCKHASH",
    "COINBASE",
    "TIMESTAMP",
    "NUMBER",
    "DIFFICULTY",
    "BASEFEE",
    "GAS",
    "RETURNDATACOPY",
    "KECCAK256",
    "MCOPY",
    // Ends of calls and creations.
    "call: Revert",
    "call: OutOfGas",
    "call: OutOfFunds",
    "call: PrecompileError",
    "call: PrecompileOOG",
    "call: InvalidFEOpcode",
    "call: StateChangeDuringStaticCall",
    "call: SelfDestruct",
    "call: precompile",
    "call: with value",
    "call: to delegated",
    "create: CreateCollision",
    "create: Revert",
    "create: OutOfGas",
    "destroyed: while created",
    "create: CreateContractStartingWithEF",
    "create: deployed",
    "create: onto a balance",
    "destroyed: in its own transaction",
    "destroyed: later",
    "destroyed: to itself",
    // Transactions.
    "tx: legacy",
    "tx: eip2930",
    "tx: eip1559",
    "tx: eip7702",
    "tx: access list",
    "tx: creation",
    "tx: several of one sender",
    "tx: succeeded",
    "tx: failed",
    "tx: zero tip",
    "to: the fee recipient",
    "to: itself",
    "to: a precompile",
    "to: nobody yet",
    "to: a contract",
    "to: a delegated account",
    "whole balance",
    "sender is the fee recipient",
    "delegation: set",
    "delegation: cleared",
    "delegation: sponsored",
    "strict: within its list",
    "strict: undeclared account",
    "strict: undeclared slot",
    "strict: read-only",
    // Candidates left out.
    "skipped: NonceTooLow",
    "skipped: NonceTooHigh",
    "skipped: InsufficientFunds",
    "skipped: IntrinsicGas",
    "skipped: FeeCapBelowBaseFee",
    "skipped: BlockGasExceeded",
    "skipped: WrongChainId",
    "skipped: TipAboveFeeCap",
    "skipped: EmptyAuthorizationList",
    "skipped: NoRoom",
    "skipped: Strict",
    "skipped: Expired",
];

impl Coverage {
    /// Counts one hit.
    pub fn hit(&mut self, feature: &str) {
        self.add(feature, 1);
    }

    /// Counts hits; none leave no trace.
    pub fn add(&mut self, feature: &str, hits: u64) {
        if hits == 0 {
            return;
        }
        match self.0.get_mut(feature) {
            Some(count) => *count += hits,
            None => {
                self.0.insert(feature.to_owned(), hits);
            }
        }
    }

    /// Hits of a feature.
    pub fn hits(&self, feature: &str) -> u64 {
        self.0.get(feature).copied().unwrap_or_default()
    }

    /// Features of `required` without a hit.
    pub fn missing<'a>(&self, required: &[&'a str]) -> Vec<&'a str> {
        required.iter().copied().filter(|feature| self.hits(feature) == 0).collect()
    }
}

impl AddAssign<&Self> for Coverage {
    fn add_assign(&mut self, other: &Self) {
        other.0.iter().for_each(|(feature, hits)| self.add(feature, *hits));
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<_> = self.0.iter().map(|(feature, hits)| format!("{feature} {hits}")).collect();
        f.write_str(&list.join(" · "))
    }
}

/// Watches an EVM.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    opcodes: [u64; 256],
    coverage: Coverage,
}

impl Default for Watch {
    fn default() -> Self {
        Self { opcodes: [0; 256], coverage: Coverage::default() }
    }
}

impl From<Watch> for Coverage {
    fn from(watch: Watch) -> Self {
        let mut coverage = watch.coverage;
        for (opcode, hits) in (0..=u8::MAX).zip(watch.opcodes) {
            if let Some(opcode) = OpCode::new(opcode) {
                coverage.add(opcode.as_str(), hits);
            }
        }
        coverage
    }
}

impl Watch {
    /// Counts what is seen from outside.
    pub(crate) fn count(&mut self, feature: &str) {
        self.coverage.hit(feature);
    }

    fn ended(&mut self, kind: &str, result: InstructionResult) {
        if !matches!(result, InstructionResult::Stop | InstructionResult::Return) {
            self.coverage.hit(&format!("{kind}: {result:?}"));
        }
    }
}

impl<'a> Inspector<PlainContext<'a>> for Watch {
    fn step(&mut self, interpreter: &mut Interpreter, context: &mut PlainContext<'a>) {
        let opcode = interpreter.bytecode.opcode();
        self.opcodes[usize::from(opcode)] += 1;
        if opcode == SELFDESTRUCT {
            let account = context.journaled_state.state.get(&interpreter.input.target_address);
            let feature = match account.is_some_and(|account| account.is_created_locally()) {
                true => "destroyed: in its own transaction",
                false => "destroyed: later",
            };
            self.coverage.hit(feature);
            if interpreter.input.bytecode_address.is_none() {
                self.coverage.hit("destroyed: while created");
            }
        }
    }

    fn call(&mut self, context: &mut PlainContext<'a>, inputs: &mut CallInputs) -> Option<CallOutcome> {
        let account = context.journaled_state.state.get(&inputs.bytecode_address);
        if account.is_some_and(|account| account.info.code_hash != inputs.known_bytecode.0) {
            self.coverage.hit("call: to delegated");
        }
        if inputs.transfers_value() && inputs.caller != context.tx.caller {
            self.coverage.hit("call: with value");
        }
        None
    }

    fn call_end(&mut self, _: &mut PlainContext<'a>, inputs: &CallInputs, outcome: &mut CallOutcome) {
        if is_precompile(inputs.bytecode_address) {
            self.coverage.hit("call: precompile");
        }
        self.ended("call", *outcome.instruction_result());
    }

    fn create_end(
        &mut self,
        context: &mut PlainContext<'a>,
        inputs: &CreateInputs,
        outcome: &mut CreateOutcome,
    ) {
        self.ended("create", *outcome.instruction_result());
        let Some(address) = outcome.address.filter(|_| outcome.instruction_result().is_ok()) else { return };
        self.coverage.hit("create: deployed");
        let account = context.journaled_state.state.get(&address);
        if account.is_some_and(|account| account.info.balance > inputs.value()) {
            self.coverage.hit("create: onto a balance");
        }
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, _: U256) {
        if contract == target {
            self.coverage.hit("destroyed: to itself");
        }
    }
}

/// Whether an address is one of Ethereum's precompiles.
pub fn is_precompile(address: Address) -> bool {
    let (zeros, number) = address.as_slice().split_at(18);
    let number = u16::from_be_bytes([number[0], number[1]]);
    zeros.iter().all(|byte| *byte == 0) && ((1..=0x11).contains(&number) || number == 0x100)
}
