//! Frames that end badly, logs, memory.

use crate::{asm::*, spec::*};
use alloy_primitives::U256;
use execution::Fork;
use revm::bytecode::opcode::*;

pub(super) fn specs() -> Vec<Spec> {
    [halts(), logs(), memory()].concat()
}

fn halts() -> Vec<Spec> {
    let codes: [(&str, Asm); 13] = [
        ("revert", asm().revert(0, 0)),
        ("revert_with_data", asm().memory(0, &[1; 32]).revert(0, 32)),
        ("invalid", asm().op(INVALID)),
        ("unknown_opcode", asm().op(0x0c)),
        ("stack_underflow", asm().op(POP)),
        ("stack_overflow", asm().ops(&[PUSH0; 1025])),
        ("jump_to_no_destination", asm().push(0).op(JUMP)),
        ("jump_into_data", asm().push(3).op(JUMP).op(PUSH1).op(JUMPDEST)),
        ("jump_far_away", asm().push(U256::MAX).op(JUMP)),
        ("endless_loop", asm().op(JUMPDEST).push(0).op(JUMP).ops(&[STOP])),
        ("endless_memory", asm().push(U256::from(1_u64 << 40)).op(MLOAD)),
        ("gigantic_memory", asm().push(U256::MAX).op(MLOAD)),
        ("gigantic_copy", asm().push(U256::MAX).push(0).push(0).op(CALLDATACOPY)),
    ];
    let marked =
        |code: &Asm| [asm().store(1, 2).ops(&[PUSH0, PUSH0, LOG0]).build(), code.clone().build()].concat();
    let top = codes.iter().map(|(name, code)| {
        spec("halts", *name, "Storage, logs and value are undone, the gas is paid.")
            .code(TARGET, 0, marked(code))
            .value([0, 3])
            .gas([90_000])
            .fails()
            .sees(TARGET, 1, 0)
    });
    let inner = codes.iter().map(|(name, code)| {
        spec("halts", format!("inner_{name}"), "The caller goes on as if nothing had happened.")
            .code(OTHER, 0, marked(code))
            .contract(
                TARGET,
                10,
                asm().call(Call::Plain, OTHER, Some(60_000), 1, (0, 0)).record(0).ops(&[PUSH0, PUSH0, LOG0]),
            )
            .succeeds()
            .sees(TARGET, 0, 1)
            .sees(OTHER, 1, 0)
    });
    let clz = spec("halts", "count_leading_zeros", "EIP-7939 is an unknown opcode before Osaka.").contract(
        TARGET,
        0,
        asm().push(1).op(0x1e).sstore(0),
    );
    let clz = [
        clz.clone().forks(&[Fork::Cancun, Fork::Prague]).fails(),
        Spec { name: "count_leading_zeros_in_osaka".into(), ..clz }
            .since(Fork::Osaka)
            .succeeds()
            .sees(TARGET, 0, 255),
    ];
    top.chain(inner).chain(clz).collect()
}

fn logs() -> Vec<Spec> {
    let log = |topics: u8| {
        let topics_pushed = (0..topics).fold(asm(), |asm, topic| asm.push(U256::from(0x70 + topic)));
        topics_pushed.push(33).push(1).op(LOG0 + topics)
    };
    let five = (0..=4).fold(asm().memory(0, &[0x5a; 40]), |asm, topics| asm.ops(&log(topics).build()));
    vec![
        spec("logs", "with_topics_and_data", "LOG0 to LOG4.").contract(TARGET, 0, five.clone()).succeeds(),
        spec("logs", "of_several_contracts", "Order and address; those of a reverted frame are dropped.")
            .contract(OTHER, 0, five.clone())
            .contract(THIRD, 0, five.clone().revert(0, 0))
            .contract(
                TARGET,
                0,
                log(1)
                    .call(Call::Plain, OTHER, None, 0, (0, 0))
                    .mark(0)
                    .call(Call::Plain, THIRD, None, 0, (0, 0))
                    .mark(1)
                    .call(Call::Delegate, OTHER, None, 0, (0, 0))
                    .mark(2)
                    .ops(&log(2).build()),
            )
            .succeeds()
            .sees(TARGET, 1, 1),
        spec("logs", "of_creation_code", "A log before there is code.").creates(five.build()).succeeds(),
    ]
}

fn memory() -> Vec<Spec> {
    let spec = |name, comment| spec("memory", name, comment);
    let filled = || asm().memory(0, &(0..96).collect::<Vec<u8>>());
    let copy = |to: u64, from: u64, length: u64| {
        filled()
            .push(length)
            .push(from)
            .push(to)
            .op(MCOPY)
            .ops(&[MSIZE, DUP1, PUSH0, KECCAK256])
            .sstore(0)
            .sstore(1)
            .op(GAS)
            .sstore(2)
    };
    vec![
        spec("mcopy_apart", "No overlap.")
            .contract(TARGET, 0, copy(64, 0, 32))
            .succeeds()
            .sees(TARGET, 1, 96),
        spec("mcopy_forward", "Overlapping, to the right.").contract(TARGET, 0, copy(5, 1, 60)).succeeds(),
        spec("mcopy_backward", "Overlapping, to the left.").contract(TARGET, 0, copy(1, 5, 60)).succeeds(),
        spec("mcopy_in_place", "Onto itself.").contract(TARGET, 0, copy(7, 7, 50)).succeeds(),
        spec("mcopy_of_nothing", "Zero bytes, also far away, expand nothing.")
            .contract(TARGET, 0, copy(1 << 40, 1 << 41, 0))
            .succeeds()
            .sees(TARGET, 1, 96),
        spec("mcopy_beyond", "The source expands memory.")
            .contract(TARGET, 0, copy(0, 200, 10))
            .succeeds()
            .sees(TARGET, 1, 224),
        spec("mcopy_too_far", "More memory than gas.").contract(TARGET, 0, copy(1 << 40, 0, 1)).fails(),
        spec("copies_of_code_and_data", "CODECOPY, CALLDATACOPY and MSTORE8.")
            .contract(
                TARGET,
                0,
                asm()
                    .push(100)
                    .push(3)
                    .push(1)
                    .op(CODECOPY)
                    .push(50)
                    .push(2)
                    .push(70)
                    .op(CALLDATACOPY)
                    .push(0x1ff)
                    .push(150)
                    .op(MSTORE8)
                    .ops(&[MSIZE, PUSH0, KECCAK256])
                    .sstore(0),
            )
            .data([vec![9; 40]])
            .succeeds(),
    ]
}
