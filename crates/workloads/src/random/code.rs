//! Random bytecode: statements that leave the stack as they found it, so that any sequence of them is valid.

use super::{Cast, Swarm, Who};
use crate::asm::Asm;
use alloy_primitives::{Address, Bytes, U256};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use revm::bytecode::opcode as op;

#[derive(Clone, Copy, Debug)]
pub(super) enum Statement {
    Store,
    Increment,
    StoreSame,
    StoreAndRestore,
    Clear,
    Transient,
    Observe,
    Copy,
    Call,
    DelegateCall,
    StaticCall,
    CallCode,
    Precompile,
    Create,
    Create2,
    Log,
    If,
    Loop,
}

impl Statement {
    pub(super) const ALL: [Self; 18] = [
        Self::Store,
        Self::Increment,
        Self::StoreSame,
        Self::StoreAndRestore,
        Self::Clear,
        Self::Transient,
        Self::Observe,
        Self::Copy,
        Self::Call,
        Self::DelegateCall,
        Self::StaticCall,
        Self::CallCode,
        Self::Precompile,
        Self::Create,
        Self::Create2,
        Self::Log,
        Self::If,
        Self::Loop,
    ];
}

/// Where a word comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Small,
    Large,
    Load,
    LoadTransient,
    Argument,
    Memory,
    Balance,
    FeeRecipientBalance,
    OwnBalance,
    CodeSize,
    CodeHash,
    BlockHash,
    Environment,
    Gas,
}

impl Value {
    pub(super) const ALL: [Self; 14] = [
        Self::Small,
        Self::Large,
        Self::Load,
        Self::LoadTransient,
        Self::Argument,
        Self::Memory,
        Self::Balance,
        Self::FeeRecipientBalance,
        Self::OwnBalance,
        Self::CodeSize,
        Self::CodeHash,
        Self::BlockHash,
        Self::Environment,
        Self::Gas,
    ];
}

/// What becomes of a word.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sink {
    Store,
    Transient,
    Memory,
    Log,
    Drop,
    Require,
}

impl Sink {
    pub(super) const ALL: [Self; 6] =
        [Self::Store, Self::Transient, Self::Memory, Self::Log, Self::Drop, Self::Require];
}

/// How code ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Stop,
    Return,
    Revert,
    Invalid,
    Endless,
    Destroy,
}

impl End {
    pub(super) const ALL: [Self; 6] =
        [Self::Stop, Self::Return, Self::Revert, Self::Invalid, Self::Endless, Self::Destroy];
}

/// What creation code does at its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deploy {
    Code,
    Nothing,
    Destroyer,
    Destroy,
    Revert,
    BadCode,
    Endless,
}

impl Deploy {
    pub(super) const ALL: [Self; 7] = [
        Self::Code,
        Self::Nothing,
        Self::Destroyer,
        Self::Destroy,
        Self::Revert,
        Self::BadCode,
        Self::Endless,
    ];
}

/// Memory below is for call data and results; from here on each loop has a word.
const LOOPS: u64 = 0x400;
/// Where creation code is assembled, and where the address it gave is kept.
const INIT_CODE: u64 = 0x200;
const CREATED: u64 = 0x1e0;

/// Writes one piece of code.
pub(super) struct Coder<'a> {
    pub(super) rng: &'a mut ChaCha8Rng,
    pub(super) swarm: &'a Swarm,
    pub(super) cast: &'a Cast,
    asm: Asm,
    loops: u64,
}

impl<'a> Coder<'a> {
    pub(super) fn new(rng: &'a mut ChaCha8Rng, swarm: &'a Swarm, cast: &'a Cast) -> Self {
        Self { rng, swarm, cast, asm: Asm::new(), loops: 0 }
    }

    /// Code of a contract.
    pub(super) fn runtime(mut self, statements: usize) -> Bytes {
        self.body(statements, 0);
        let end = self.swarm.ends.draw(self.rng);
        self.end(end);
        self.asm.build()
    }

    /// Creation code.
    pub(super) fn init(mut self) -> Bytes {
        let statements = self.rng.random_range(0..3);
        self.body(statements, 1);
        match self.swarm.deploys.draw(self.rng) {
            Deploy::Code => {
                let length = self.rng.random_range(1..4);
                let code = Coder::new(self.rng, self.swarm, self.cast).runtime(length);
                self.deploy(&code);
            }
            Deploy::Nothing => self.end(End::Stop),
            Deploy::Destroyer => self.deploy(&[op::CALLER, op::SELFDESTRUCT]),
            Deploy::Destroy => self.end(End::Destroy),
            Deploy::Revert => self.end(End::Revert),
            Deploy::BadCode => self.deploy(&[0xef, 0x00]),
            Deploy::Endless => self.end(End::Endless),
        }
        self.asm.build()
    }

    fn deploy(&mut self, code: &[u8]) {
        let data = self.asm.label();
        self.asm.push(code.len()).push_label(data).push(0).ops(&[op::CODECOPY]);
        self.asm.push(code.len()).push(0).ops(&[op::RETURN]).place_data(data, code);
    }

    fn body(&mut self, statements: usize, depth: u32) {
        for _ in 0..statements {
            let statement = self.swarm.statements.draw(self.rng);
            self.statement(statement, depth);
        }
    }

    fn statement(&mut self, statement: Statement, depth: u32) {
        match statement {
            Statement::Store => {
                self.value();
                self.slot();
                self.asm.ops(&[op::SSTORE]);
            }
            Statement::Increment => {
                let slot = self.fixed_slot();
                self.asm.push(slot).ops(&[op::SLOAD]).push(1).ops(&[op::ADD]).push(slot).ops(&[op::SSTORE]);
            }
            Statement::StoreSame => {
                let slot = self.fixed_slot();
                self.asm.push(slot).ops(&[op::SLOAD]).push(slot).ops(&[op::SSTORE]);
            }
            Statement::StoreAndRestore => {
                let slot = self.fixed_slot();
                self.asm.push(slot).ops(&[op::SLOAD]);
                self.value();
                self.asm.push(slot).ops(&[op::SSTORE]).push(slot).ops(&[op::SSTORE]);
            }
            Statement::Clear => {
                self.asm.push(0);
                self.slot();
                self.asm.ops(&[op::SSTORE]);
            }
            Statement::Transient => {
                self.value();
                let slot = self.fixed_slot();
                self.asm.push(slot).ops(&[op::TSTORE]);
            }
            Statement::Observe => {
                self.value();
                self.sink();
            }
            Statement::Copy => self.copy(),
            Statement::Call => self.call(op::CALL),
            Statement::DelegateCall => self.call(op::DELEGATECALL),
            Statement::StaticCall => self.call(op::STATICCALL),
            Statement::CallCode => self.call(op::CALLCODE),
            Statement::Precompile => self.precompile(),
            Statement::Create => self.create(op::CREATE),
            Statement::Create2 => self.create(op::CREATE2),
            Statement::Log => self.log(),
            Statement::If if depth < 2 => self.branch(depth),
            Statement::Loop if depth < 2 => self.repeat(depth),
            Statement::If | Statement::Loop => self.statement(Statement::Increment, depth),
        }
    }

    /// `[] -> [word]`.
    fn value(&mut self) {
        match self.swarm.values.draw(self.rng) {
            Value::Small => {
                let small = self.rng.random_range(0..4u64);
                self.asm.push(small);
            }
            Value::Large => {
                let large = U256::from_be_bytes(self.rng.random::<[u8; 32]>());
                self.asm.push(large);
            }
            Value::Load => {
                self.slot();
                self.asm.ops(&[op::SLOAD]);
            }
            Value::LoadTransient => {
                let slot = self.fixed_slot();
                self.asm.push(slot).ops(&[op::TLOAD]);
            }
            Value::Argument => {
                let at = 32 * self.rng.random_range(0..3u64);
                self.asm.calldata(at);
            }
            Value::Memory => {
                let at = 32 * self.rng.random_range(0..4u64);
                self.asm.mload(at);
            }
            Value::Balance => self.of_account(op::BALANCE),
            Value::FeeRecipientBalance => {
                self.asm.ops(&[op::COINBASE, op::BALANCE]);
            }
            Value::OwnBalance => {
                self.asm.ops(&[op::SELFBALANCE]);
            }
            Value::CodeSize => self.of_account(op::EXTCODESIZE),
            Value::CodeHash => self.of_account(op::EXTCODEHASH),
            Value::BlockHash => {
                let back = self.rng.random_range(0..6u64);
                self.asm.push(back).ops(&[op::NUMBER, op::SUB, op::BLOCKHASH]);
            }
            Value::Environment => {
                const WORDS: [u8; 10] = [
                    op::CALLER,
                    op::ORIGIN,
                    op::ADDRESS,
                    op::COINBASE,
                    op::TIMESTAMP,
                    op::NUMBER,
                    op::DIFFICULTY,
                    op::BASEFEE,
                    op::CALLVALUE,
                    op::GASPRICE,
                ];
                let word = *WORDS.choose(self.rng).expect("not empty");
                self.asm.ops(&[word]);
            }
            Value::Gas => {
                self.asm.ops(&[op::GAS]);
            }
        }
    }

    fn of_account(&mut self, opcode: u8) {
        self.account();
        self.asm.ops(&[opcode]);
    }

    /// `[word] -> []`.
    fn sink(&mut self) {
        match self.swarm.sinks.draw(self.rng) {
            Sink::Store => {
                self.slot();
                self.asm.ops(&[op::SSTORE]);
            }
            Sink::Transient => {
                let slot = self.fixed_slot();
                self.asm.push(slot).ops(&[op::TSTORE]);
            }
            Sink::Memory => {
                let at = 32 * self.rng.random_range(0..4u64);
                self.asm.mstore(at);
            }
            Sink::Log => {
                self.asm.push(0).push(0).ops(&[op::LOG1]);
            }
            Sink::Drop => {
                self.asm.ops(&[op::POP]);
            }
            // Reverts for one word in eight.
            Sink::Require => {
                let fine = self.asm.label();
                self.asm.push(7).ops(&[op::AND]).jump_if(fine).revert().place(fine);
            }
        }
    }

    fn fixed_slot(&mut self) -> u64 {
        self.rng.random_range(0..self.cast.slots)
    }

    /// `[] -> [slot]`: mostly one of a few; at times what another slot, the caller or the call data say.
    fn slot(&mut self) {
        let slot = self.fixed_slot();
        let slots = self.cast.slots;
        match self.rng.random_range(0..8) {
            0 => self.asm.push(slots).push(slot).ops(&[op::SLOAD, op::MOD]),
            1 => self.asm.ops(&[op::CALLER]),
            2 => self.asm.push(slots).calldata(0).ops(&[op::MOD]),
            3 => self.asm.ops(&[op::CALLER]).mapping_slot(slot),
            _ => self.asm.push(slot),
        };
    }

    /// `[] -> [address]`.
    fn account(&mut self) {
        match self.rng.random_range(0..10) {
            0 => self.asm.ops(&[op::ADDRESS]),
            1 => self.asm.ops(&[op::CALLER]),
            2 => self.asm.calldata(32),
            3 => self.asm.ops(&[op::COINBASE]),
            _ => {
                let who = self.swarm.whos.draw(self.rng);
                let address = self.cast.address(who, self.rng);
                self.asm.push_address(address)
            }
        };
    }

    fn copy(&mut self) {
        match self.rng.random_range(0..3) {
            0 => self.asm.push(64).push(0).push(32).ops(&[op::MCOPY]),
            1 => self.asm.ops(&[op::RETURNDATASIZE]).push(0).push(0).ops(&[op::RETURNDATACOPY]),
            _ => {
                self.asm.push(64).push(0).push(0);
                self.account();
                self.asm.ops(&[op::EXTCODECOPY])
            }
        };
    }

    /// Two words of call data in memory.
    fn arguments(&mut self) {
        for at in [0, 32] {
            self.value();
            self.asm.mstore(at);
        }
    }

    fn call(&mut self, opcode: u8) {
        self.arguments();
        self.asm.push(64).push(64).push(64).push(0);
        self.endow(opcode);
        match self.rng.random_range(0..4) {
            // Mostly what was made for being called.
            0 => self.account(),
            _ => {
                let address = self.cast.address(Who::Contract, self.rng);
                self.asm.push_address(address);
            }
        }
        self.call_gas();
        self.asm.ops(&[opcode]);
        self.sink();
    }

    /// `[] -> [value]` for those calls that take one.
    fn endow(&mut self, opcode: u8) {
        if matches!(opcode, op::CALL | op::CALLCODE) {
            let value = *[0u64, 0, 0, 1, 2, 1_000_000_000].choose(self.rng).expect("not empty");
            self.asm.push(value);
        }
    }

    /// `[] -> [gas]`.
    fn call_gas(&mut self) {
        match self.rng.random_range(0..6) {
            0 => self.asm.push(0),
            1 => self.asm.push(2_300),
            2 => self.asm.push(15_000),
            _ => self.asm.ops(&[op::GAS]),
        };
    }

    fn precompile(&mut self) {
        let number = *[1u64, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xd, 0xf, 0x10, 0x100]
            .choose(self.rng)
            .expect("not empty");
        let opcode = *[op::CALL, op::STATICCALL, op::DELEGATECALL].choose(self.rng).expect("not empty");
        let size = *[0u64, 32, 64, 96, 128, 160, 192, 213].choose(self.rng).expect("not empty");
        self.asm.push(64).push(64).push(size).push(0);
        self.endow(opcode);
        self.asm.push(number);
        match self.rng.random_range(0..3) {
            0 => self.asm.push(700),
            _ => self.asm.push(20_000),
        };
        self.asm.ops(&[opcode]);
        self.sink();
    }

    /// Creates an account from creation code that stands in another account's code, and calls it at times.
    fn create(&mut self, opcode: u8) {
        let Some((library, length)) = self.cast.libraries.choose(self.rng).copied() else {
            return self.statement(Statement::Increment, 2);
        };
        self.asm.push(length).push(0).push(INIT_CODE).push_address(library).ops(&[op::EXTCODECOPY]);
        if opcode == op::CREATE2 {
            let salt = self.rng.random_range(0..2u64);
            self.asm.push(salt);
        }
        let value = *[0u64, 0, 0, 1].choose(self.rng).expect("not empty");
        self.asm.push(length).push(INIT_CODE).push(value).ops(&[opcode]).mstore(CREATED);
        if self.rng.random() {
            self.asm.push(0).push(0).push(0).push(0).push(0).mload(CREATED).ops(&[op::GAS, op::CALL]);
        } else {
            self.asm.mload(CREATED);
        }
        self.sink();
    }

    fn log(&mut self) {
        let topics = self.rng.random_range(0..=4u8);
        for _ in 0..topics {
            self.value();
        }
        let size = 32 * self.rng.random_range(0..3u64);
        self.asm.push(size).push(0).ops(&[op::LOG0 + topics]);
    }

    fn branch(&mut self, depth: u32) {
        let after = self.asm.label();
        self.value();
        self.asm.push(1).ops(&[op::AND]).jump_if(after);
        let statements = self.rng.random_range(0..3);
        self.body(statements, depth + 1);
        if self.rng.random_ratio(1, 4) {
            let end = self.swarm.ends.draw(self.rng);
            self.end(end);
        }
        self.asm.place(after);
    }

    fn repeat(&mut self, depth: u32) {
        let counter = LOOPS + 32 * self.loops;
        self.loops += 1;
        let (top, rounds) = (self.asm.label(), self.rng.random_range(2..6u64));
        self.asm.push(rounds).mstore(counter).place(top);
        let statements = self.rng.random_range(1..3);
        self.body(statements, depth + 1);
        self.asm.push(1).mload(counter).ops(&[op::SUB, op::DUP1]).mstore(counter).jump_if(top);
    }

    fn end(&mut self, end: End) {
        match end {
            End::Stop => {
                self.asm.ops(&[op::STOP]);
            }
            End::Return => {
                self.asm.push(64).push(0).ops(&[op::RETURN]);
            }
            End::Revert => {
                self.asm.push(32).push(0).ops(&[op::REVERT]);
            }
            End::Invalid => {
                self.asm.ops(&[op::INVALID]);
            }
            // Runs out of gas, mostly at once: a loop that burns it all takes the time of a hundred transactions.
            End::Endless => match self.rng.random_ratio(1, 8) {
                true => {
                    let top = self.asm.label();
                    self.asm.place(top).jump(top);
                }
                false => {
                    self.asm.mload(1 << 40);
                }
            },
            End::Destroy => {
                self.account();
                self.asm.ops(&[op::SELFDESTRUCT]);
            }
        }
    }
}

/// Where CREATE2 of `library`'s code puts its account.
pub(super) fn create2_address(creator: Address, salt: u64, init_code: &[u8]) -> Address {
    creator.create2_from_code(U256::from(salt).to_be_bytes::<32>(), init_code)
}
