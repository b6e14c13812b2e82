//! EIP-7702.

use crate::{asm::*, spec::*};
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_primitives::{Address, U256};
use execution::Fork;
use revm::bytecode::opcode::*;

pub(super) fn specs() -> Vec<Spec> {
    let all = [set(), not_set(), used()].concat();
    all.into_iter().map(|spec| spec.since(Fork::Prague)).collect()
}

/// Account of key 2, which signs most authorizations.
fn authority() -> Address {
    key(2).address()
}

/// Tells whose storage it runs on.
fn delegate() -> Asm {
    asm().op(ADDRESS).sstore(0).op(CALLER).sstore(1).op(CALLVALUE).mark(2)
}

fn base(name: &'static str, comment: &'static str) -> Spec {
    spec("delegation", name, comment).contract(OTHER, 0, delegate()).to(authority()).balance(authority(), 100)
}

fn set() -> Vec<Spec> {
    let here = |nonce| authorization(2, 1, OTHER, nonce);
    let existing = |spec: Spec, code: Address| {
        spec.account(
            authority(),
            Acct { nonce: 4, balance: U256::from(9), code: delegation(code), ..Default::default() },
        )
    };
    vec![
        base("set", "An account gets a delegation and runs it at once.")
            .authorize([here(0)])
            .value([0, 7])
            .succeeds()
            .sees(authority(), 0, word(authority())),
        base("set_without_bytes", "Signed by the runner.").authorize([here(0)]).unsigned().succeeds(),
        base("set_for_any_chain", "Chain 0.").authorize([authorization(2, 0, OTHER, 0)]).succeeds().sees(
            authority(),
            2,
            1,
        ),
        base("set_by_the_sender", "Its nonce is already one higher.")
            .to(sender())
            .authorize([authorization(1, 1, OTHER, NONCE + 1)])
            .succeeds()
            .sees(sender(), 0, word(sender())),
        spec(
            "delegation",
            "set_for_an_account_that_does_not_exist",
            "No refund, and the account comes to be.",
        )
        .contract(OTHER, 0, delegate())
        .contract(TARGET, 0, asm().store(0, 1))
        .authorize([here(0)])
        .succeeds(),
        base("set_twice", "The last one holds.")
            .contract(THIRD, 0, asm().store(9, 9))
            .authorize([here(0), authorization(2, 1, THIRD, 1)])
            .succeeds()
            .sees(authority(), 9, 9),
        base("set_by_several", "Two accounts in one transaction.")
            .authorize([here(0), authorization(3, 1, OTHER, 0)])
            .succeeds(),
        existing(base("replaced", "A delegation in place of another."), THIRD)
            .authorize([here(4)])
            .succeeds(),
        existing(base("cleared", "A delegation to the zero address clears the code."), OTHER)
            .authorize([authorization(2, 1, Address::ZERO, 4)])
            .succeeds()
            .sees(authority(), 0, 0),
        base("cleared_where_there_is_none", "The nonce counts.")
            .authorize([authorization(2, 1, Address::ZERO, 0)])
            .succeeds(),
        base("set_by_a_transaction_that_reverts", "The delegation stays.")
            .contract(THIRD, 0, asm().revert(0, 0))
            .to(THIRD)
            .authorize([here(0)])
            .fails(),
        base("set_by_a_transaction_out_of_gas", "The delegation stays.")
            .contract(THIRD, 0, asm().op(INVALID))
            .to(THIRD)
            .authorize([here(0)])
            .fails(),
        base("set_to_the_fee_recipient", "The fee recipient signs.")
            .env(|env| env.coinbase = authority())
            .authorize([here(0)])
            .succeeds(),
    ]
}

fn not_set() -> Vec<Spec> {
    let refused =
        |name, comment, list: Vec<SignedAuthorization>| base(name, comment).authorize(list).succeeds();
    let good = authorization(2, 1, OTHER, 0);
    let inner = |nonce| Authorization { chain_id: U256::from(1), address: OTHER, nonce };
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let order = U256::from_str_radix(order, 16).unwrap();
    let malleable =
        SignedAuthorization::new_unchecked(inner(0), 1 - good.y_parity(), good.r(), order - good.s());
    vec![
        refused("with_a_wrong_nonce", "Too high: skipped.", vec![authorization(2, 1, OTHER, 1)]).sees(
            authority(),
            2,
            0,
        ),
        refused("with_a_wrong_chain", "Skipped.", vec![authorization(2, 2, OTHER, 0)]).sees(
            authority(),
            2,
            0,
        ),
        refused("with_the_highest_nonce", "Skipped.", vec![authorization(2, 1, OTHER, u64::MAX)]),
        refused("with_a_malleable_signature", "s in the upper half: skipped.", vec![malleable]),
        refused(
            "with_an_impossible_signature",
            "Nobody signed this.",
            vec![SignedAuthorization::new_unchecked(inner(0), 0, U256::ZERO, U256::ZERO)],
        ),
        refused(
            "with_a_wrong_parity",
            "Neither 0 nor 1: skipped.",
            vec![SignedAuthorization::new_unchecked(inner(0), 27, good.r(), good.s())],
        ),
        refused("twice_the_same", "The second has a used nonce.", vec![good.clone(), good.clone()]).sees(
            authority(),
            2,
            1,
        ),
        refused(
            "good_after_bad",
            "One does not spoil the next.",
            vec![authorization(2, 9, OTHER, 0), good.clone()],
        )
        .sees(authority(), 2, 1),
        refused("of_a_contract", "An account with code of its own cannot delegate.", vec![good])
            .code(authority(), 3, asm().store(7, 7).build())
            .sees(authority(), 7, 7),
    ]
}

fn used() -> Vec<Spec> {
    let delegated = |spec: Spec, to: Address| {
        let account = Acct { nonce: 1, balance: U256::from(50), code: delegation(to), ..Default::default() };
        spec.account(authority(), account)
    };
    let base = |name, comment| spec("delegation", name, comment).contract(OTHER, 5, delegate());
    let called = |name: &'static str, kind| {
        delegated(base(name, "A delegated account, called."), OTHER)
            .contract(TARGET, 10, asm().call(kind, authority(), None, 0, (0, 0)).record(10))
            .succeeds()
    };
    let looked_at = |asm: Asm| {
        asm.address(authority())
            .op(EXTCODESIZE)
            .mark(0)
            .address(authority())
            .op(EXTCODEHASH)
            .mark(1)
            .push(40)
            .ops(&[PUSH0, PUSH0])
            .address(authority())
            .op(EXTCODECOPY)
            .push(0)
            .op(MLOAD)
            .sstore(2)
    };
    vec![
        called("called", Call::Plain).sees(authority(), 2, 1),
        called("called_by_callcode", Call::Code).sees(TARGET, 2, 1),
        called("called_by_delegatecall", Call::Delegate).sees(TARGET, 2, 1),
        called("called_by_staticcall", Call::Static).sees(TARGET, 10, 1),
        delegated(base("called_by_transaction", "The recipient is delegated already."), OTHER)
            .to(authority())
            .value([0, 3])
            .succeeds()
            .sees(authority(), 0, word(authority())),
        delegated(base("in_a_chain", "A delegate's delegation is not followed."), THIRD)
            .account(THIRD, Acct { nonce: 1, code: delegation(OTHER), ..Default::default() })
            .contract(TARGET, 0, asm().call(Call::Plain, authority(), None, 0, (0, 0)).record(10))
            .succeeds()
            .sees(TARGET, 10, 1)
            .sees(authority(), 0, 0),
        delegated(base("to_itself", "A delegation in a circle."), authority())
            .contract(TARGET, 0, asm().call(Call::Plain, authority(), None, 0, (0, 0)).record(10))
            .succeeds()
            .sees(TARGET, 10, 1),
        delegated(base("to_a_precompile", "It runs as empty code."), Address::with_last_byte(1))
            .contract(TARGET, 0, asm().call(Call::Plain, authority(), None, 0, (0, 0)).record(10))
            .succeeds()
            .sees(TARGET, 10, 2),
        delegated(base("to_nobody", "There is no code to run."), NOBODY)
            .contract(TARGET, 0, asm().call(Call::Plain, authority(), None, 1, (0, 0)).record(10))
            .code(TARGET, 5, asm().call(Call::Plain, authority(), None, 1, (0, 0)).record(10).build())
            .succeeds()
            .gone(NOBODY),
        delegated(base("looked_at", "Size, hash and copy are those of the designator."), OTHER)
            .contract(TARGET, 0, looked_at(asm()))
            .succeeds()
            .sees(TARGET, 0, 24),
        delegated(base("that_looks_at_itself", "CODESIZE is the delegate's."), THIRD)
            .contract(THIRD, 0, looked_at(asm().op(CODESIZE).mark(5)))
            .to(authority())
            .succeeds()
            .sees(authority(), 0, 24),
        delegated(base("that_destroys_itself", "Only its balance goes."), THIRD)
            .contract(THIRD, 0, asm().selfdestruct(NOBODY))
            .to(authority())
            .succeeds(),
        delegated(base("that_creates", "The authority's nonce makes the address."), THIRD)
            .contract(THIRD, 0, asm().create(&[STOP], 1, None).sstore(0))
            .to(authority())
            .succeeds()
            .sees(authority(), 0, word(authority().create(1))),
        delegated(base("read_cold_and_warm", "Gas of the delegate's own access."), OTHER)
            .contract(
                TARGET,
                0,
                asm()
                    .op(GAS)
                    .call(Call::Static, authority(), Some(5_000), 0, (0, 0))
                    .op(POP)
                    .op(GAS)
                    .call(Call::Static, authority(), Some(5_000), 0, (0, 0))
                    .op(POP)
                    .op(GAS)
                    .sstore(0)
                    .sstore(1)
                    .sstore(2),
            )
            .succeeds(),
        base("of_the_sender", "A delegated account may send.")
            .account(
                sender(),
                Acct {
                    nonce: NONCE,
                    balance: U256::from(FUNDS),
                    code: delegation(OTHER),
                    ..Default::default()
                },
            )
            .contract(TARGET, 0, asm().call(Call::Plain, sender(), None, 0, (0, 0)).mark(0))
            .succeeds()
            .sees(sender(), 0, word(sender())),
    ]
}
