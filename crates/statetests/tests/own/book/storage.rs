//! Storage with its refunds, transient storage, access lists.

use crate::{asm::*, spec::*};
use alloy_primitives::Address;
use revm::bytecode::opcode::*;

pub(super) fn specs() -> Vec<Spec> {
    [stores(), transient(), access_lists()].concat()
}

fn stores() -> Vec<Spec> {
    let spec = |name: &str, comment| spec("storage", name, comment);
    // EIP-2200's cases: the original value and what is written one after the other.
    let sequences: [(&str, u64, &[u64]); 14] = [
        ("0_0", 0, &[0]),
        ("0_1", 0, &[1]),
        ("0_1_0", 0, &[1, 0]),
        ("0_1_2", 0, &[1, 2]),
        ("0_1_0_1", 0, &[1, 0, 1]),
        ("1_0", 1, &[0]),
        ("1_1", 1, &[1]),
        ("1_2", 1, &[2]),
        ("1_0_1", 1, &[0, 1]),
        ("1_2_1", 1, &[2, 1]),
        ("1_2_0", 1, &[2, 0]),
        ("1_0_2", 1, &[0, 2]),
        ("1_0_1_0", 1, &[0, 1, 0]),
        ("1_2_0_1_0", 1, &[2, 0, 1, 0]),
    ];
    let refunds = sequences.iter().map(|(name, original, writes)| {
        let writes = writes.iter().fold(asm(), |asm, value| asm.store(0, *value));
        spec(&format!("refund_{name}"), "Gas and refund of writes to one slot.")
            .contract(TARGET, 0, writes.op(GAS).sstore(1))
            .slot(TARGET, 0, *original)
            .succeeds()
    });
    let clear = |count: u64| (0..count).fold(asm(), |asm, slot| asm.store(slot, 0));
    let cleared = |name, comment, count, code: Asm| {
        (0..count)
            .fold(spec(name, comment).contract(TARGET, 0, code), |spec, slot| spec.slot(TARGET, slot, 7))
    };
    let others = [
        cleared("refund_up_to_a_fifth", "The refund is capped by the gas used.", 20, clear(20)).succeeds(),
        cleared("refund_of_a_reverted_clear", "A revert takes the refund back.", 5, clear(5).revert(0, 0))
            .fails(),
        cleared("refund_of_a_call_that_reverts", "The same inside a call.", 5, clear(5).revert(0, 0))
            .contract(OTHER, 0, asm().call(Call::Plain, TARGET, None, 0, (0, 0)).mark(0))
            .to(OTHER)
            .succeeds()
            .sees(OTHER, 0, 1),
        spec("of_many_slots", "A hundred new slots.")
            .contract(TARGET, 0, (0..100).fold(asm(), |asm, slot| asm.store(slot * 1_000, slot)))
            .gas([3_000_000])
            .succeeds(),
        spec("with_little_gas", "EIP-2200: no store with 2,300 gas or less.")
            .contract(OTHER, 0, asm().store(0, 1))
            .slot(OTHER, 0, 1)
            .contract(
                TARGET,
                0,
                asm()
                    .call(Call::Plain, OTHER, Some(2_305), 0, (0, 0))
                    .mark(0)
                    .call(Call::Plain, OTHER, Some(2_306), 0, (0, 0))
                    .mark(1)
                    .call(Call::Plain, OTHER, Some(2_307), 0, (0, 0))
                    .mark(2),
            )
            .succeeds(),
        spec("of_two_contracts_with_one_code", "The same slots of two accounts.")
            .contract(OTHER, 0, asm().op(CALLVALUE).mark(0))
            .contract(THIRD, 0, asm().op(CALLVALUE).mark(0))
            .contract(
                TARGET,
                10,
                asm()
                    .call(Call::Plain, OTHER, None, 1, (0, 0))
                    .op(POP)
                    .call(Call::Plain, THIRD, None, 2, (0, 0))
                    .op(POP)
                    .call(Call::Delegate, THIRD, None, 0, (0, 0))
                    .op(POP),
            )
            .succeeds()
            .sees(OTHER, 0, 2)
            .sees(THIRD, 0, 3)
            .sees(TARGET, 0, 1),
        spec("read_cold_and_warm", "Gas of the first and the second access.")
            .contract(
                TARGET,
                0,
                asm().op(GAS).push(3).op(SLOAD).op(GAS).push(3).op(SLOAD).op(GAS).sstore(0).op(POP).sstore(1),
            )
            .slot(TARGET, 3, 9)
            .succeeds(),
    ];
    refunds.chain(others).collect()
}

fn transient() -> Vec<Spec> {
    let spec = |name, comment| spec("transient", name, comment);
    let tstore = |slot: u64, value: u64| asm().push(value).push(slot).op(TSTORE);
    let tload = |slot: u64| asm().push(slot).op(TLOAD);
    vec![
        spec("written_and_read", "It holds within the transaction, and apart from storage.")
            .contract(TARGET, 0, tstore(1, 42).ops(&tload(1).build()).sstore(0).push(1).op(SLOAD).mark(1))
            .succeeds()
            .sees(TARGET, 0, 42)
            .sees(TARGET, 1, 1),
        spec("of_another_contract", "Every account has its own.")
            .contract(OTHER, 0, tload(1).mark(0))
            .contract(TARGET, 0, tstore(1, 42).call(Call::Plain, OTHER, None, 0, (0, 0)).mark(0))
            .succeeds()
            .sees(OTHER, 0, 1),
        spec("by_delegatecall", "It is the caller's.")
            .contract(OTHER, 0, tload(1).sstore(0).ops(&tstore(1, 7).build()))
            .contract(
                TARGET,
                0,
                tstore(1, 42)
                    .call(Call::Delegate, OTHER, None, 0, (0, 0))
                    .mark(2)
                    .ops(&tload(1).build())
                    .sstore(1),
            )
            .succeeds()
            .sees(TARGET, 0, 42)
            .sees(TARGET, 1, 7),
        spec("undone_by_a_revert", "A reverted call leaves nothing.")
            .contract(OTHER, 0, tstore(1, 7).revert(0, 0))
            .contract(
                TARGET,
                0,
                tstore(1, 42)
                    .call(Call::Delegate, OTHER, None, 0, (0, 0))
                    .mark(2)
                    .ops(&tload(1).build())
                    .sstore(1),
            )
            .succeeds()
            .sees(TARGET, 1, 42),
        spec("read_in_a_static_call", "Reading is allowed.")
            .contract(OTHER, 0, tload(1).ops(&[PUSH0, MSTORE]).ret(0, 32))
            .contract(TARGET, 0, tstore(1, 42).call(Call::Static, OTHER, None, 0, (0, 0)).record(0))
            .succeeds()
            .sees(TARGET, 0, 2),
        spec("with_little_gas", "No sentry as for storage: 100 gas are enough.")
            .contract(OTHER, 0, tstore(1, 1))
            .contract(
                TARGET,
                0,
                asm()
                    .call(Call::Plain, OTHER, Some(105), 0, (0, 0))
                    .mark(0)
                    .call(Call::Plain, OTHER, Some(106), 0, (0, 0))
                    .mark(1),
            )
            .succeeds(),
    ]
}

fn access_lists() -> Vec<Spec> {
    let spec = |name, comment| spec("access_list", name, comment).gas([200_000]);
    // Gas of reading two slots of its own and the balances of two accounts.
    let reads = || {
        asm()
            .op(GAS)
            .push(1)
            .op(SLOAD)
            .op(GAS)
            .push(2)
            .op(SLOAD)
            .op(GAS)
            .address(OTHER)
            .op(BALANCE)
            .op(GAS)
            .address(THIRD)
            .op(BALANCE)
            .op(GAS)
            .sstore(10)
            .op(POP)
            .sstore(11)
            .op(POP)
            .sstore(12)
            .op(POP)
            .sstore(13)
            .op(POP)
            .sstore(14)
    };
    let target = |spec: Spec| spec.contract(TARGET, 0, reads()).balance(OTHER, 3).succeeds();
    let precompile = Address::with_last_byte(2);
    vec![
        target(spec("empty", "A list of nothing.").access(&[])),
        target(spec("absent", "No list at all.")),
        target(spec("of_slots", "The listed slot is warm.").access(&[(TARGET, &[1])])),
        target(spec("of_accounts", "The listed account is warm.").access(&[(OTHER, &[]), (THIRD, &[])])),
        target(
            spec("of_an_earlier_kind", "EIP-2930.")
                .access(&[(TARGET, &[1, 2]), (OTHER, &[])])
                .fees(Fees::Price(30)),
        ),
        target(
            spec("of_an_earlier_kind_without_bytes", "EIP-2930, signed by the runner.")
                .access(&[(TARGET, &[1, 2]), (OTHER, &[])])
                .fees(Fees::Price(30))
                .unsigned(),
        ),
        target(spec("with_repetitions", "Entries twice are paid twice.").access(&[
            (TARGET, &[1, 1, 1]),
            (OTHER, &[]),
            (TARGET, &[1]),
            (OTHER, &[5]),
        ])),
        target(spec("of_what_is_warm_anyway", "Sender, recipient, fee recipient, a precompile.").access(&[
            (sender(), &[]),
            (TARGET, &[]),
            (PROPOSER, &[]),
            (precompile, &[7]),
        ])),
        target(
            spec("of_slots_that_are_not_read", "Unused entries are paid.").access(&[(NOBODY, &[1, 2, 3])]),
        )
        .gone(NOBODY),
        spec("of_the_new_contract", "A creation lists its own address.")
            .creates(
                [
                    asm().op(GAS).push(1).op(SLOAD).op(GAS).sstore(2).op(POP).sstore(3).build(),
                    asm().ret(0, 1).build(),
                ]
                .concat(),
            )
            .access(&[(sender().create(NONCE), &[1])])
            .succeeds(),
        spec("with_a_reverted_access", "What a reverted call warmed is cold again.")
            .contract(OTHER, 0, asm().address(THIRD).op(BALANCE).revert(0, 0))
            .contract(
                TARGET,
                0,
                asm()
                    .call(Call::Plain, OTHER, None, 0, (0, 0))
                    .mark(0)
                    .op(GAS)
                    .address(THIRD)
                    .op(BALANCE)
                    .op(GAS)
                    .sstore(1)
                    .op(POP)
                    .sstore(2),
            )
            .succeeds()
            .sees(TARGET, 0, 1),
        spec("and_the_warm_fee_recipient", "EIP-3651.")
            .contract(TARGET, 0, asm().op(GAS).op(COINBASE).op(BALANCE).op(GAS).sstore(1).op(POP).sstore(2))
            .succeeds(),
    ]
}
