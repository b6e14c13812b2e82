//! A few words of assembler.

use alloy_primitives::{Address, U256};
use revm::bytecode::opcode::*;

/// Code under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asm(Vec<u8>);

/// Which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Plain,
    Code,
    Delegate,
    Static,
}

pub(crate) fn asm() -> Asm {
    Asm::default()
}

pub(crate) fn word(address: Address) -> U256 {
    U256::from_be_slice(address.as_slice())
}

impl Asm {
    pub(crate) fn build(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn op(mut self, opcode: u8) -> Self {
        self.0.push(opcode);
        self
    }

    pub(crate) fn ops(mut self, opcodes: &[u8]) -> Self {
        self.0.extend_from_slice(opcodes);
        self
    }

    /// The shortest push.
    pub(crate) fn push(mut self, value: impl TryInto<U256>) -> Self {
        let value: U256 = value.try_into().unwrap_or_else(|_| panic!("a literal has 256 bits"));
        let bytes = value.to_be_bytes_trimmed_vec();
        self.0.push(PUSH0 + bytes.len() as u8);
        self.0.extend_from_slice(&bytes);
        self
    }

    pub(crate) fn address(self, address: Address) -> Self {
        self.push(word(address))
    }

    /// Stores the top of the stack.
    pub(crate) fn sstore(self, slot: u64) -> Self {
        self.push(U256::from(slot)).op(SSTORE)
    }

    pub(crate) fn store(self, slot: u64, value: u64) -> Self {
        self.push(U256::from(value)).sstore(slot)
    }

    /// Stores the top of the stack plus one, so that zero leaves a trace.
    pub(crate) fn mark(self, slot: u64) -> Self {
        self.push(U256::ONE).op(ADD).sstore(slot)
    }

    /// Puts bytes into memory from `offset` on; the last word is filled up with zeros.
    pub(crate) fn memory(mut self, offset: usize, bytes: &[u8]) -> Self {
        for (index, chunk) in bytes.chunks(32).enumerate() {
            let mut word = [0; 32];
            word[..chunk.len()].copy_from_slice(chunk);
            self = self.push(U256::from_be_bytes(word)).push(U256::from(offset + 32 * index)).op(MSTORE);
        }
        self
    }

    /// A call with `gas` (all of it if `None`), its input from memory; leaves whether it succeeded.
    pub(crate) fn call(
        self,
        kind: Call,
        to: Address,
        gas: Option<u64>,
        value: u64,
        input: (u64, u64),
    ) -> Self {
        let asm = self.push(U256::ZERO).push(U256::ZERO).push(U256::from(input.1)).push(U256::from(input.0));
        let asm = match kind {
            Call::Plain | Call::Code => asm.push(U256::from(value)),
            Call::Delegate | Call::Static => asm,
        };
        let asm = asm.address(to);
        let asm = match gas {
            Some(gas) => asm.push(U256::from(gas)),
            None => asm.op(GAS),
        };
        asm.op(match kind {
            Call::Plain => CALL,
            Call::Code => CALLCODE,
            Call::Delegate => DELEGATECALL,
            Call::Static => STATICCALL,
        })
    }

    /// Stores success, length and keccak of what the last call returned, in three slots.
    pub(crate) fn record(self, slot: u64) -> Self {
        self.mark(slot)
            .op(RETURNDATASIZE)
            .sstore(slot + 1)
            .ops(&[RETURNDATASIZE, PUSH0, PUSH0, RETURNDATACOPY, RETURNDATASIZE, PUSH0, KECCAK256])
            .sstore(slot + 2)
    }

    /// CREATE, or CREATE2 with a salt, of `code` put into memory at 0; leaves the address.
    pub(crate) fn create(self, code: &[u8], value: u64, salt: Option<u64>) -> Self {
        let asm = self.memory(0, code);
        let asm = match salt {
            Some(salt) => asm.push(U256::from(salt)),
            None => asm,
        };
        let asm = asm.push(U256::from(code.len())).push(U256::ZERO).push(U256::from(value));
        asm.op(if salt.is_some() { CREATE2 } else { CREATE })
    }

    pub(crate) fn ret(self, offset: u64, length: u64) -> Self {
        self.push(U256::from(length)).push(U256::from(offset)).op(RETURN)
    }

    pub(crate) fn revert(self, offset: u64, length: u64) -> Self {
        self.push(U256::from(length)).push(U256::from(offset)).op(REVERT)
    }

    pub(crate) fn selfdestruct(self, beneficiary: Address) -> Self {
        self.address(beneficiary).op(SELFDESTRUCT)
    }
}

/// Creation code that deploys `runtime`.
pub(crate) fn deployer(runtime: &[u8]) -> Vec<u8> {
    let head = |offset: usize| {
        asm()
            .push(U256::from(runtime.len()))
            .push(U256::from(offset))
            .push(U256::ZERO)
            .op(CODECOPY)
            .ret(0, runtime.len() as u64)
            .build()
    };
    // The offset is the head's own length, whose push has the same width for every length below 256.
    let code = head(head(20).len());
    [code, runtime.to_vec()].concat()
}
