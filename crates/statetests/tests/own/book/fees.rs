//! Transfers, and who pays and earns what.

use crate::{asm::*, spec::*};
use alloy_primitives::{Address, U256};
use revm::bytecode::opcode::*;

pub(super) fn specs() -> Vec<Spec> {
    [transfers(), fees()].concat()
}

fn transfers() -> Vec<Spec> {
    let spec = |name, comment| spec("transfers", name, comment).gas([21_000, 50_000]);
    let precompile = Address::with_last_byte(4);
    vec![
        spec("to_a_new_account", "Value creates an account.").gas([21_000]).to(NOBODY).value([12]).succeeds(),
        spec("to_an_account", "Values add up.").balance(OTHER, 7).to(OTHER).value([0, 1, 1 << 40]).succeeds(),
        spec("of_nothing_to_nobody", "Zero value creates no account.").to(NOBODY).succeeds().gone(NOBODY),
        spec("to_oneself", "Only the fee goes.").to(sender()).value([0, 5]).succeeds(),
        spec("to_the_fee_recipient", "Value and fee both arrive.").to(PROPOSER).value([0, 5]).succeeds(),
        spec("to_a_precompile", "A precompile holds value.")
            .gas([22_000])
            .to(precompile)
            .value([0, 5])
            .succeeds(),
        spec("of_everything", "Value and highest fee are exactly the balance.")
            .gas([21_000])
            .to(NOBODY)
            .tx(|tx| tx.value = vec![U256::from(FUNDS - 21_000 * 1_000)])
            .succeeds(),
        spec("with_data", "Data to an account without code costs gas only.")
            .gas([60_000])
            .balance(OTHER, 1)
            .to(OTHER)
            .data([vec![0; 100], vec![1; 100], [vec![0; 500], vec![1; 500]].concat()])
            .succeeds(),
        spec("without_bytes", "A fixture without the signed transaction is signed by the runner.")
            .to(NOBODY)
            .value([3])
            .unsigned()
            .succeeds(),
    ]
}

fn fees() -> Vec<Spec> {
    let spec = |name, comment| spec("fees", name, comment);
    let to = |spec: Spec| spec.gas([21_000]).to(OTHER).value([1]).succeeds();
    let balance_of_coinbase = || asm().ops(&[COINBASE, BALANCE]).mark(0);
    vec![
        to(spec("of_a_legacy_transaction", "The price minus the base fee is earned.").fees(Fees::Price(100))),
        to(spec("of_a_transaction_of_no_chain", "Signed before EIP-155.")
            .fees(Fees::Price(100))
            .tx(|tx| tx.protected = false)),
        to(spec("of_a_legacy_transaction_at_the_base_fee", "Nothing is earned.").fees(Fees::Price(7)))
            .gone(PROPOSER),
        to(spec("without_bytes_legacy", "Signed by the runner.").fees(Fees::Price(100)).unsigned()),
        to(spec("without_bytes_of_no_chain", "Signed by the runner.")
            .fees(Fees::Price(100))
            .tx(|tx| tx.protected = false)
            .unsigned()),
        to(spec("with_a_tip", "The tip is earned.").fees(Fees::Dynamic(50, 20))),
        to(spec("with_a_tip_cut_by_the_cap", "The cap limits the tip.").fees(Fees::Dynamic(10, 10))),
        to(spec("without_a_tip", "The fee recipient earns nothing and is not created.")
            .fees(Fees::Dynamic(50, 0)))
        .gone(PROPOSER),
        to(spec("at_the_base_fee", "The cap is the base fee.").fees(Fees::Dynamic(7, 5))).gone(PROPOSER),
        to(spec("without_a_base_fee", "All of the price is earned.")
            .env(|env| env.base_fee = 0)
            .fees(Fees::Dynamic(50, 20))),
        to(spec("without_any_fee", "A chain without fees.")
            .env(|env| env.base_fee = 0)
            .fees(Fees::Dynamic(0, 0)))
        .gone(PROPOSER),
        to(spec("earned_by_the_sender", "Sender and fee recipient are one.")
            .env(|env| env.coinbase = sender())),
        to(spec("earned_by_the_recipient", "Recipient and fee recipient are one.")
            .env(|env| env.coinbase = OTHER)),
        spec("are_not_seen_by_the_transaction", "The fee recipient's balance while the transaction runs.")
            .balance(PROPOSER, 1_000)
            .contract(TARGET, 0, balance_of_coinbase())
            .succeeds()
            .sees(TARGET, 0, 1_001),
        spec("of_a_new_recipient_are_not_seen", "The fee recipient does not exist yet.")
            .contract(TARGET, 0, balance_of_coinbase().op(COINBASE).op(EXTCODEHASH).mark(1))
            .succeeds()
            .sees(TARGET, 0, 1)
            .sees(TARGET, 1, 1),
        spec("beside_value_to_the_recipient", "The fee recipient gets value from a contract, and the fee.")
            .contract(TARGET, 10, asm().call(Call::Plain, PROPOSER, None, 4, (0, 0)).mark(0))
            .succeeds()
            .sees(TARGET, 0, 2),
        spec("of_a_recipient_with_code", "The fee recipient is the contract that runs.")
            .env(|env| env.coinbase = TARGET)
            .contract(TARGET, 10, asm().op(SELFBALANCE).sstore(0))
            .succeeds()
            .sees(TARGET, 0, 10),
        spec("of_a_recipient_that_pays_itself", "The fee recipient's only change is the fee.")
            .env(|env| env.coinbase = TARGET)
            .contract(TARGET, 10, asm().call(Call::Plain, TARGET, Some(0), 1, (0, 0)).op(POP))
            .succeeds(),
        spec("of_a_transaction_that_reverts", "Fees are paid all the same.")
            .contract(TARGET, 0, asm().store(0, 1).revert(0, 0))
            .value([0, 5])
            .fails(),
        spec("of_a_transaction_out_of_gas", "All gas is paid.")
            .contract(TARGET, 0, asm().op(INVALID))
            .fails(),
    ]
}
