//! Calls of every kind, static rules, depth, return data, other accounts.

use crate::{asm::*, spec::*};
use alloy_primitives::{Address, U256};
use revm::bytecode::opcode::*;

const KINDS: [(&str, Call); 4] = [
    ("call", Call::Plain),
    ("callcode", Call::Code),
    ("delegatecall", Call::Delegate),
    ("staticcall", Call::Static),
];

pub(super) fn specs() -> Vec<Spec> {
    let every_kind = KINDS.iter().flat_map(|(name, kind)| of_kind(name, *kind));
    every_kind.chain(static_rules()).chain(others()).collect()
}

/// Stores who is called, by whom, with what value.
fn mirror() -> Asm {
    asm().op(ADDRESS).sstore(0).op(CALLER).sstore(1).op(CALLVALUE).mark(2).op(ORIGIN).sstore(3)
}

fn of_kind(name: &str, kind: Call) -> Vec<Spec> {
    let spec = |what: &str, comment| spec("calls", format!("{name}_{what}"), comment);
    let value = u64::from(matches!(kind, Call::Plain | Call::Code)) * 3;
    let record = |to, gas, value| asm().call(kind, to, gas, value, (0, 0)).record(10).store(20, 1);
    vec![
        spec("of_a_mirror", "Whose storage, which caller, which value.")
            .contract(OTHER, 0, mirror())
            .contract(TARGET, 10, record(OTHER, None, value))
            .value([0, 5])
            .succeeds()
            .sees(TARGET, 20, 1),
        spec("that_returns", "Return data.")
            .contract(OTHER, 0, asm().memory(0, &[0xab; 40]).ret(3, 37))
            .contract(TARGET, 10, record(OTHER, None, value))
            .succeeds()
            .sees(TARGET, 10, 2)
            .sees(TARGET, 11, 37),
        spec("that_reverts", "Return data of a revert; storage is undone.")
            .contract(OTHER, 0, mirror().memory(0, &[0xcd; 40]).revert(1, 39))
            .contract(TARGET, 10, record(OTHER, None, value))
            .succeeds()
            .sees(TARGET, 10, 1),
        spec("that_halts", "Its gas is gone.")
            .contract(OTHER, 0, asm().op(INVALID))
            .contract(TARGET, 10, record(OTHER, Some(10_000), value))
            .succeeds()
            .sees(TARGET, 10, 1),
        spec("with_too_little_gas", "The callee runs out.")
            .contract(OTHER, 0, mirror())
            .contract(TARGET, 10, record(OTHER, Some(500), 0))
            .succeeds()
            .sees(TARGET, 10, 1),
        spec("with_more_gas_than_there_is", "63 of 64 parts go along.")
            .contract(OTHER, 0, asm().op(GAS).ops(&[PUSH0, MSTORE]).ret(0, 32))
            .contract(TARGET, 10, record(OTHER, Some(u64::MAX), value))
            .succeeds(),
        spec("of_nobody", "An account that does not exist.")
            .contract(TARGET, 10, record(NOBODY, None, 0))
            .succeeds()
            .gone(NOBODY)
            .sees(TARGET, 10, 2),
        spec("of_itself", "As deep as the gas goes; each level leaves a mark.")
            .contract(
                TARGET,
                1_000,
                asm().call(kind, TARGET, None, 0, (0, 0)).push(0).op(SLOAD).op(ADD).push(1).op(ADD).sstore(0),
            )
            .gas([400_000, 2_000_000]),
    ]
}

fn static_rules() -> Vec<Spec> {
    let forbidden: [(&str, Asm); 9] = [
        ("sstore", asm().store(0, 1)),
        ("tstore", asm().push(1).push(1).op(TSTORE)),
        ("log0", asm().ops(&[PUSH0, PUSH0, LOG0])),
        ("log4", asm().ops(&[PUSH0, PUSH0, PUSH0, PUSH0, PUSH0, PUSH0, LOG4])),
        ("create", asm().create(&[STOP], 0, None)),
        ("create2", asm().create(&[STOP], 0, Some(1))),
        ("selfdestruct", asm().selfdestruct(THIRD)),
        ("value", asm().call(Call::Plain, THIRD, None, 1, (0, 0))),
        ("deep_sstore", asm().call(Call::Plain, THIRD, None, 0, (0, 0)).ops(&[PUSH0, MSTORE]).ret(0, 32)),
    ];
    forbidden
        .into_iter()
        .map(|(name, code)| {
            spec(
                "static",
                format!("forbids_{name}"),
                "A change inside a static call fails the frame that makes it.",
            )
            .contract(OTHER, 10, code)
            .contract(THIRD, 0, asm().store(0, 1))
            .contract(
                TARGET,
                10,
                asm().call(Call::Static, OTHER, Some(100_000), 0, (0, 0)).record(0).store(9, 1),
            )
            .succeeds()
            .sees(TARGET, 9, 1)
        })
        .collect()
}

fn others() -> Vec<Spec> {
    let spec = |name, comment| spec("calls", name, comment);
    let look = |slot: u64, address: Address| {
        asm()
            .address(address)
            .op(BALANCE)
            .mark(slot)
            .address(address)
            .op(EXTCODESIZE)
            .mark(slot + 1)
            .address(address)
            .op(EXTCODEHASH)
            .mark(slot + 2)
            .push(40)
            .ops(&[PUSH0, PUSH0])
            .address(address)
            .op(EXTCODECOPY)
            .push(40)
            .ops(&[PUSH0, KECCAK256])
            .sstore(slot + 3)
    };
    let all = [OTHER, NOBODY, THIRD, Address::with_last_byte(1), sender()];
    let looking = all
        .iter()
        .enumerate()
        .fold(asm(), |asm, (index, address)| asm.ops(&look(10 * index as u64, *address).build()));
    vec![
        spec("with_value_to_nobody", "An account comes to be.")
            .contract(TARGET, 10, asm().call(Call::Plain, NOBODY, None, 4, (0, 0)).record(0))
            .succeeds()
            .sees(TARGET, 0, 2),
        spec("with_more_value_than_there_is", "The call fails, the caller goes on.")
            .contract(OTHER, 0, mirror())
            .contract(
                TARGET,
                10,
                asm().call(Call::Plain, OTHER, None, 11, (0, 0)).record(0).op(GAS).sstore(9),
            )
            .succeeds()
            .sees(TARGET, 0, 1),
        spec("with_the_stipend_alone", "2,300 gas are enough for a log, not for a store.")
            .contract(OTHER, 0, asm().ops(&[PUSH0, PUSH0, LOG0]))
            .contract(THIRD, 0, asm().store(0, 1))
            .contract(
                TARGET,
                10,
                asm()
                    .call(Call::Plain, OTHER, Some(0), 1, (0, 0))
                    .mark(0)
                    .call(Call::Plain, THIRD, Some(0), 1, (0, 0))
                    .mark(1),
            )
            .succeeds()
            .sees(TARGET, 0, 2)
            .sees(TARGET, 1, 1),
        spec("that_look_at_other_accounts", "Balance, size, hash and copy of code.")
            .contract(OTHER, 5, mirror())
            .balance(THIRD, 1)
            .contract(TARGET, 10, looking)
            .succeeds(),
        spec("that_read_past_the_return_data", "RETURNDATACOPY beyond the end fails the frame.")
            .contract(OTHER, 0, asm().ret(0, 8))
            .contract(
                TARGET,
                0,
                asm().store(9, 1).call(Call::Plain, OTHER, None, 0, (0, 0)).op(POP).push(9).ops(&[
                    PUSH0,
                    PUSH0,
                    RETURNDATACOPY,
                ]),
            )
            .fails(),
        spec("with_return_data_in_memory", "A return area smaller than the data.")
            .contract(OTHER, 0, asm().memory(0, &[0xee; 64]).ret(0, 64))
            .contract(TARGET, 0, {
                let area = asm().push(8).push(3).ops(&[PUSH0, PUSH0, PUSH0]).address(OTHER).op(GAS).op(CALL);
                area.op(POP).push(0).op(MLOAD).sstore(0).op(MSIZE).sstore(1).op(RETURNDATASIZE).sstore(2)
            })
            .succeeds()
            .sees(TARGET, 2, 64)
            .sees(TARGET, 0, U256::from_be_slice(&[&[0; 3][..], &[0xee; 8], &[0; 21]].concat())),
        spec("that_hand_data_on", "Call data of a call, copied and forwarded.")
            .contract(OTHER, 0, {
                let copy = asm().op(CALLDATASIZE).ops(&[PUSH0, PUSH0, CALLDATACOPY]);
                copy.op(CALLDATASIZE).ops(&[PUSH0, KECCAK256]).sstore(0).op(CALLDATASIZE).mark(1)
            })
            .contract(TARGET, 0, {
                let copy = asm().op(CALLDATASIZE).ops(&[PUSH0, PUSH0, CALLDATACOPY]);
                copy.push(0)
                    .push(0)
                    .op(CALLDATASIZE)
                    .ops(&[PUSH0, PUSH0])
                    .address(OTHER)
                    .op(GAS)
                    .op(CALL)
                    .mark(0)
            })
            .data([Vec::new(), vec![7; 33], vec![0; 700]])
            .succeeds()
            .sees(TARGET, 0, 2),
        spec("of_a_caller_that_comes_back", "Reentrancy sees the state as it is.")
            .contract(OTHER, 0, asm().call(Call::Plain, TARGET, None, 0, (0, 0)).mark(0))
            .contract(TARGET, 0, {
                // The first time slot 0 is zero: it is set, and the other contract called.
                asm()
                    .push(0)
                    .op(SLOAD)
                    .push(1)
                    .op(ADD)
                    .sstore(0)
                    .push(100_000)
                    .op(GAS)
                    .op(LT)
                    .op(PC)
                    .push(60)
                    .op(ADD)
                    .op(JUMPI)
                    .call(Call::Plain, OTHER, Some(90_000), 0, (0, 0))
                    .mark(1)
                    .ops(&[JUMPDEST; 60])
            })
            .gas([300_000]),
    ]
}
