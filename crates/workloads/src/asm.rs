//! A small EVM assembler: opcodes, shortest pushes, labels.

use alloy_primitives::{Address, Bytes, U256};
use revm::bytecode::opcode as op;

/// A place in the code. It is fixed by [`Asm::place`], before or after it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Code being written.
#[derive(Clone, Debug, Default)]
pub struct Asm {
    code: Vec<u8>,
    /// Where each label is.
    places: Vec<Option<usize>>,
    /// Where each label's two bytes have to be written.
    uses: Vec<(usize, Label)>,
}

impl Asm {
    /// No code yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.code.len()
    }

    /// Whether there is no code yet.
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }

    /// Opcodes one after another.
    pub fn ops(&mut self, opcodes: &[u8]) -> &mut Self {
        self.code.extend_from_slice(opcodes);
        self
    }

    /// The shortest push of a number.
    pub fn push(&mut self, value: impl TryInto<U256, Error: std::fmt::Debug>) -> &mut Self {
        let value: U256 = value.try_into().expect("a number that is not negative");
        let bytes = value.to_be_bytes_trimmed_vec();
        self.code.push(op::PUSH0 + bytes.len() as u8);
        self.code.extend_from_slice(&bytes);
        self
    }

    /// Pushes an address.
    pub fn push_address(&mut self, address: Address) -> &mut Self {
        self.push(U256::from_be_slice(address.as_slice()))
    }

    /// A label without a place.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Puts a label, and the JUMPDEST it needs, here.
    pub fn place(&mut self, label: Label) -> &mut Self {
        self.places[label.0] = Some(self.code.len());
        self.ops(&[op::JUMPDEST])
    }

    /// Jumps.
    pub fn jump(&mut self, label: Label) -> &mut Self {
        self.push_label(label).ops(&[op::JUMP])
    }

    /// Jumps when the top of the stack is not zero.
    pub fn jump_if(&mut self, label: Label) -> &mut Self {
        self.push_label(label).ops(&[op::JUMPI])
    }

    /// Puts a label, and bytes that are never run, here.
    pub fn place_data(&mut self, label: Label, data: &[u8]) -> &mut Self {
        self.places[label.0] = Some(self.code.len());
        self.ops(data)
    }

    /// Pushes where a label is.
    pub fn push_label(&mut self, label: Label) -> &mut Self {
        self.code.push(op::PUSH2);
        self.uses.push((self.code.len(), label));
        self.ops(&[0, 0])
    }

    /// `[key] -> [slot]`: the storage slot of a mapping's entry, by Solidity's layout. Uses memory 0 to 0x3f.
    pub fn mapping_slot(&mut self, base: u64) -> &mut Self {
        self.push(0).ops(&[op::MSTORE]).push(base).push(0x20).ops(&[op::MSTORE]);
        self.push(0x40).push(0).ops(&[op::KECCAK256])
    }

    /// `[value] -> []`: memory at a fixed place.
    pub fn mstore(&mut self, at: u64) -> &mut Self {
        self.push(at).ops(&[op::MSTORE])
    }

    /// `[] -> [value]`: memory at a fixed place.
    pub fn mload(&mut self, at: u64) -> &mut Self {
        self.push(at).ops(&[op::MLOAD])
    }

    /// `[] -> [word]`: call data at a fixed place.
    pub fn calldata(&mut self, at: u64) -> &mut Self {
        self.push(at).ops(&[op::CALLDATALOAD])
    }

    /// Reverts without data.
    pub fn revert(&mut self) -> &mut Self {
        self.push(0).push(0).ops(&[op::REVERT])
    }

    /// Returns one word of memory.
    pub fn return_word(&mut self, at: u64) -> &mut Self {
        self.push(0x20).push(at).ops(&[op::RETURN])
    }

    /// The code.
    ///
    /// # Panics
    /// If a label was used but never placed, or lies beyond 64 KiB: a mistake of the code's author.
    pub fn build(&self) -> Bytes {
        let mut code = self.code.clone();
        for (at, label) in &self.uses {
            let place = self.places[label.0].expect("a used label has a place");
            let place = u16::try_from(place).expect("code is shorter than 64 KiB");
            code[*at..at + 2].copy_from_slice(&place.to_be_bytes());
        }
        code.into()
    }
}

/// Creation code that deploys `runtime`.
pub fn deployer(runtime: &[u8]) -> Bytes {
    let mut asm = Asm::new();
    let length = u16::try_from(runtime.len()).expect("code is shorter than 64 KiB").to_be_bytes();
    // These ten bytes come before it.
    asm.ops(&[op::PUSH2, length[0], length[1], op::DUP1, op::PUSH1, 10, op::PUSH0, op::CODECOPY]);
    asm.ops(&[op::PUSH0, op::RETURN]);
    asm.ops(runtime).build()
}
