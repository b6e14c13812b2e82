//! Creation and destruction of contracts.

use crate::{asm::*, spec::*};
use alloy_primitives::{Address, U256, keccak256};
use execution::Fork;
use revm::bytecode::opcode::*;

pub(super) fn specs() -> Vec<Spec> {
    [transactions(), opcodes(), collisions(), same_transaction(), later_transaction()].concat()
}

/// Runtime code that stores its call value plus one.
fn runtime() -> Vec<u8> {
    asm().op(CALLVALUE).mark(0).build()
}

fn created() -> Address {
    sender().create(NONCE)
}

fn transactions() -> Vec<Spec> {
    let spec = |name, comment| spec("create", name, comment);
    vec![
        spec("by_transaction", "Code is deployed.").creates(deployer(&runtime())).value([0, 9]).succeeds(),
        spec("by_legacy_transaction", "Without bytes, signed by the runner.")
            .creates(deployer(&runtime()))
            .fees(Fees::Price(20))
            .unsigned()
            .succeeds(),
        spec("of_nothing_by_transaction", "Empty creation code makes an account with a nonce.")
            .creates(Vec::new())
            .value([0, 1])
            .succeeds(),
        spec("by_transaction_on_a_funded_address", "An account with a balance alone is no obstacle.")
            .balance(created(), 77)
            .creates(deployer(&runtime()))
            .value([1])
            .succeeds(),
        spec("by_transaction_that_reverts", "No account, value comes back.")
            .creates(asm().store(0, 1).revert(0, 32).build())
            .value([0, 9])
            .fails()
            .gone(created()),
        spec("by_transaction_with_storage", "Creation code writes slots.")
            .creates([asm().store(1, 2).store(3, 4).build(), asm().ret(0, 3).build()].concat())
            .succeeds()
            .sees(created(), 3, 4),
        spec("by_transaction_of_code_that_begins_with_ef", "EIP-3541.")
            .creates(deployer(&[0xef, 0x00]))
            .fails()
            .gone(created()),
        spec("by_transaction_of_a_delegation", "A delegation cannot be deployed.")
            .creates(deployer(&delegation(OTHER)))
            .fails()
            .gone(created()),
        spec("by_transaction_too_long", "EIP-170: one byte more than 24,576.")
            .creates(asm().ret(0, 0x6001).build())
            .gas([10_000_000])
            .fails(),
        spec("by_transaction_of_the_longest_code", "EIP-170: 24,576 bytes.")
            .creates(asm().ret(0, 0x6000).build())
            .gas([10_000_000])
            .succeeds(),
        spec("by_transaction_without_gas_for_the_deposit", "The account does not come to be.")
            .creates(asm().ret(0, 1_000).build())
            .gas([150_000])
            .fails()
            .gone(created()),
        spec("by_transaction_with_the_longest_creation_code", "EIP-3860: 49,152 bytes.")
            .creates(vec![0; 0xc000])
            .unsigned()
            .gas([2_000_000])
            .succeeds(),
        spec("by_transaction_that_calls_itself_back", "The account has no code yet.")
            .creates(
                asm()
                    .ops(&[ADDRESS, EXTCODESIZE])
                    .mark(0)
                    .ops(&[ADDRESS, EXTCODEHASH])
                    .mark(1)
                    .call(Call::Plain, created(), None, 0, (0, 0))
                    .mark(2)
                    .ret(0, 1)
                    .build(),
            )
            .succeeds()
            .sees(created(), 2, 2),
    ]
}

fn opcodes() -> Vec<Spec> {
    let spec = |name, comment| spec("create", name, comment);
    let stored = |code: &[u8], value, salt| asm().create(code, value, salt).sstore(0);
    let child = TARGET.create(1);
    let code = deployer(&runtime());
    let code2 = TARGET.create2(U256::from(5).to_be_bytes(), keccak256(&code));
    vec![
        spec("by_opcode", "CREATE: the address, the nonce, a call of the new contract.")
            .contract(TARGET, 10, stored(&code, 3, None).call(Call::Plain, child, None, 2, (0, 0)).record(1))
            .succeeds()
            .sees(TARGET, 0, word(child))
            .sees(child, 0, 3),
        spec("by_opcode_with_a_salt", "CREATE2.")
            .contract(
                TARGET,
                10,
                stored(&code, 3, Some(5)).call(Call::Plain, code2, None, 2, (0, 0)).record(1),
            )
            .succeeds()
            .sees(TARGET, 0, word(code2)),
        spec("twice_with_a_salt", "The second CREATE2 collides with the first.")
            .contract(TARGET, 10, stored(&code, 0, Some(5)).create(&code, 0, Some(5)).record(1))
            .succeeds()
            .sees(TARGET, 1, 1),
        spec("twice", "Two contracts with two nonces.")
            .contract(TARGET, 10, stored(&code, 0, None).create(&code, 1, None).sstore(1))
            .succeeds()
            .sees(TARGET, 1, word(TARGET.create(2))),
        spec("with_more_value_than_there_is", "No creation, no nonce.")
            .contract(TARGET, 10, asm().create(&code, 11, None).mark(0).create(&code, 11, Some(5)).mark(1))
            .succeeds()
            .sees(TARGET, 0, 1)
            .sees(TARGET, 1, 1),
        spec("that_reverts_with_data", "Return data of a failed creation; the nonce counts.")
            .contract(TARGET, 10, {
                let code = asm().memory(0, &[0xaa; 32]).revert(0, 32).build();
                asm().create(&code, 1, None).record(0)
            })
            .succeeds()
            .sees(TARGET, 1, 32)
            .gone(child),
        spec("that_runs_out_of_gas", "63 of 64 parts are gone.")
            .contract(TARGET, 10, asm().create(&[INVALID], 1, None).mark(0).store(1, 1))
            .succeeds()
            .sees(TARGET, 0, 1)
            .gone(child),
        spec("of_code_that_begins_with_ef", "EIP-3541 inside a call.")
            .contract(TARGET, 10, asm().create(&deployer(&[0xef]), 0, None).mark(0))
            .succeeds()
            .sees(TARGET, 0, 1),
        spec("inside_a_creation", "Creation code creates.")
            .contract(TARGET, 10, {
                let inner = deployer(&runtime());
                let outer =
                    [asm().create(&inner, 1, None).sstore(0).build(), asm().ret(0, 1).build()].concat();
                stored(&outer, 2, None)
            })
            .succeeds()
            .sees(child, 0, word(child.create(1))),
        spec("with_the_highest_nonce", "A nonce that cannot grow: no creation.")
            .account(
                TARGET,
                Acct {
                    nonce: u64::MAX,
                    code: stored(&code, 0, None).store(1, 1).build().into(),
                    ..Default::default()
                },
            )
            .succeeds()
            .sees(TARGET, 0, 0)
            .sees(TARGET, 1, 1),
        spec(
            "with_too_long_creation_code",
            "EIP-3860 in opcodes: 49,152 bytes pass, one more fails the frame.",
        )
        .data([U256::from(0xc000).to_be_bytes_vec(), U256::from(0xc001).to_be_bytes_vec()])
        .contract(
            TARGET,
            0,
            asm().store(9, 1).push(0).op(CALLDATALOAD).ops(&[PUSH0, PUSH0, CREATE]).mark(0),
        ),
    ]
}

fn collisions() -> Vec<Spec> {
    let spec = |name, comment| spec("collision", name, comment);
    let code = deployer(&runtime());
    let child = TARGET.create(1);
    let child2 = TARGET.create2(U256::from(5).to_be_bytes(), keccak256(&code));
    let nonce = || Acct { nonce: 1, ..Default::default() };
    let occupied = || Acct { code: vec![STOP].into(), balance: U256::from(4), ..Default::default() };
    let attempt = |salt| asm().create(&code, 1, salt).mark(0).op(GAS).sstore(1);
    vec![
        spec("of_a_transaction_with_code", "All gas is burned, the nonce counts.")
            .account(created(), occupied())
            .creates(code.clone())
            .value([0, 1])
            .fails(),
        spec("of_a_transaction_with_a_nonce", "An account that has sent is an obstacle.")
            .account(created(), nonce())
            .creates(code.clone())
            .fails(),
        spec("of_create_with_code", "The creator goes on with one part of 64.")
            .account(child, occupied())
            .contract(TARGET, 10, attempt(None))
            .succeeds()
            .sees(TARGET, 0, 1),
        spec("of_create2_with_code", "The same with a salt.")
            .account(child2, occupied())
            .contract(TARGET, 10, attempt(Some(5)))
            .succeeds()
            .sees(TARGET, 0, 1),
        spec("of_create2_with_a_nonce", "The same with a nonce in the way.")
            .account(child2, nonce())
            .contract(TARGET, 10, attempt(Some(5)))
            .succeeds()
            .sees(TARGET, 0, 1),
        spec("of_create2_with_a_delegation", "A delegated account is in the way.")
            .account(child2, Acct { nonce: 1, code: delegation(OTHER), ..Default::default() })
            .since(Fork::Prague)
            .contract(TARGET, 10, attempt(Some(5)))
            .succeeds()
            .sees(TARGET, 0, 1),
        spec("of_create2_with_a_balance", "A balance alone is not in the way.")
            .balance(child2, 6)
            .contract(TARGET, 10, attempt(Some(5)))
            .succeeds(),
    ]
}

/// Created and destroyed in one transaction: the account goes.
fn same_transaction() -> Vec<Spec> {
    let spec = |name, comment| spec("selfdestruct", name, comment);
    let child = TARGET.create(1);
    let dies = |beneficiary| asm().store(1, 5).selfdestruct(beneficiary).build();
    let create_and_call = |runtime: &[u8]| {
        asm().create(&deployer(runtime), 3, None).mark(0).call(Call::Plain, child, None, 2, (0, 0)).mark(1)
    };
    let created_and_looked_at = |runtime: &[u8]| {
        create_and_call(runtime).address(child).op(EXTCODESIZE).mark(2).address(child).op(BALANCE).mark(3)
    };
    vec![
        spec("in_creation_code", "It never exists.")
            .creates(dies(OTHER))
            .value([0, 5])
            .succeeds()
            .gone(created()),
        spec("in_creation_code_to_itself", "Its value is burned.")
            .creates(dies(created()))
            .value([0, 5])
            .succeeds()
            .gone(created()),
        spec("of_a_new_contract", "Code stays until the end, value goes at once.")
            .contract(TARGET, 10, created_and_looked_at(&dies(OTHER)))
            .succeeds()
            .sees(TARGET, 3, 1)
            .gone(child),
        spec("of_a_new_contract_to_itself", "Its value is burned.")
            .contract(TARGET, 10, created_and_looked_at(&dies(child)))
            .succeeds()
            .gone(child),
        spec("of_a_new_contract_that_gets_value_later", "What comes after is burned at the end.")
            .contract(
                TARGET,
                10,
                create_and_call(&dies(OTHER)).call(Call::Plain, child, None, 4, (0, 0)).mark(4),
            )
            .succeeds()
            .gone(child),
        spec("of_a_new_contract_twice", "The second has nothing to send.")
            .contract(
                TARGET,
                10,
                create_and_call(&dies(NOBODY)).call(Call::Plain, child, None, 0, (0, 0)).mark(4),
            )
            .succeeds()
            .gone(child),
        spec("of_a_new_contract_undone", "A revert takes the destruction back.")
            .contract(OTHER, 0, asm().call(Call::Plain, child, None, 0, (0, 0)).mark(0).revert(0, 0))
            .contract(
                TARGET,
                10,
                asm()
                    .create(&deployer(&dies(THIRD)), 3, None)
                    .mark(0)
                    .call(Call::Plain, OTHER, None, 0, (0, 0))
                    .mark(1),
            )
            .succeeds()
            .sees(TARGET, 1, 1),
        spec("and_create2_at_the_same_place", "The address is taken until the end of the transaction.")
            .contract(TARGET, 10, {
                let code = deployer(&dies(OTHER));
                let child = TARGET.create2(U256::from(5).to_be_bytes(), keccak256(&code));
                asm()
                    .create(&code, 1, Some(5))
                    .mark(0)
                    .call(Call::Plain, child, None, 1, (0, 0))
                    .mark(1)
                    .create(&code, 1, Some(5))
                    .mark(2)
            })
            .succeeds()
            .sees(TARGET, 2, 1),
        spec(
            "of_the_fee_recipient",
            "A contract at the fee recipient's address that does not outlive the transaction.",
        )
        .env(|env| env.coinbase = created())
        .creates(dies(OTHER))
        .value([0, 5])
        .succeeds(),
    ]
}

/// A contract from before: only its balance goes (EIP-6780).
fn later_transaction() -> Vec<Spec> {
    let spec = |name, comment| spec("selfdestruct", name, comment);
    let dying = |beneficiary| asm().store(1, 5).selfdestruct(beneficiary);
    vec![
        spec("of_an_old_contract", "Code, storage and nonce stay.")
            .contract(TARGET, 10, dying(OTHER))
            .value([0, 5])
            .succeeds()
            .sees(TARGET, 1, 5),
        spec("of_an_old_contract_to_nobody", "The beneficiary comes to be.")
            .contract(TARGET, 10, dying(NOBODY))
            .succeeds(),
        spec("of_an_old_contract_without_funds_to_nobody", "The beneficiary does not come to be.")
            .contract(TARGET, 0, dying(NOBODY))
            .succeeds()
            .gone(NOBODY),
        spec("of_an_old_contract_to_itself", "Nothing happens.")
            .contract(TARGET, 10, dying(TARGET))
            .succeeds(),
        spec("of_an_old_contract_to_the_fee_recipient", "Balance and fee arrive.")
            .contract(TARGET, 10, dying(PROPOSER))
            .succeeds(),
        spec("of_the_caller_by_delegatecall", "The caller's balance goes.")
            .contract(OTHER, 0, dying(THIRD))
            .contract(TARGET, 10, asm().call(Call::Delegate, OTHER, None, 0, (0, 0)).mark(0))
            .succeeds()
            .sees(TARGET, 1, 5),
        spec("of_an_old_contract_that_is_paid_again", "Destroyed, paid, destroyed.")
            .contract(OTHER, 3, dying(THIRD))
            .contract(
                TARGET,
                10,
                asm()
                    .call(Call::Plain, OTHER, None, 1, (0, 0))
                    .mark(0)
                    .call(Call::Plain, OTHER, None, 2, (0, 0))
                    .mark(1),
            )
            .succeeds(),
    ]
}
