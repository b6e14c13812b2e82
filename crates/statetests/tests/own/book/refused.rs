//! Transactions that no block may include.

use crate::{asm::*, spec::*};
use alloy_consensus::{SignableTransaction, TxEip1559, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Bytes, Signature, TxKind, U256};
use execution::{Fork, TxEnvelope};
use revm::bytecode::opcode::*;

pub(super) fn specs() -> Vec<Spec> {
    [by_state(), by_gas(), by_fees(), by_kind(), by_bytes()].concat()
}

fn base(name: &'static str, comment: &'static str) -> Spec {
    spec("refused", name, comment).balance(OTHER, 1).to(OTHER)
}

fn by_state() -> Vec<Spec> {
    let sends = |code: Vec<u8>| Acct {
        nonce: NONCE,
        balance: U256::from(FUNDS),
        code: code.into(),
        ..Default::default()
    };
    vec![
        base("nonce_too_low", "Already used.")
            .tx(|tx| tx.nonce = NONCE - 1)
            .refused("TransactionException.NONCE_MISMATCH_TOO_LOW"),
        base("nonce_too_high", "One before it is missing.")
            .tx(|tx| tx.nonce = NONCE + 1)
            .refused("TransactionException.NONCE_MISMATCH_TOO_HIGH"),
        base("nonce_that_cannot_grow", "EIP-2681.")
            .account(sender(), Acct { nonce: u64::MAX, balance: U256::from(FUNDS), ..Default::default() })
            .tx(|tx| tx.nonce = u64::MAX)
            .refused("TransactionException.NONCE_IS_MAX"),
        base("one_wei_missing", "The highest fee and the value must be there.")
            .gas([21_000])
            .tx(|tx| tx.value = vec![U256::from(FUNDS - 21_000 * 1_000 + 1)])
            .refused("TransactionException.INSUFFICIENT_ACCOUNT_FUNDS"),
        base("without_an_account", "The sender does not exist.")
            .without(sender())
            .tx(|tx| tx.nonce = 0)
            .refused("TransactionException.INSUFFICIENT_ACCOUNT_FUNDS"),
        base("value_beyond_all", "Value and fee together exceed 256 bits.")
            .tx(|tx| tx.value = vec![U256::MAX])
            .refused("TransactionException.INSUFFICIENT_ACCOUNT_FUNDS"),
        base("sender_with_code", "EIP-3607.")
            .account(sender(), sends(asm().store(0, 1).build()))
            .refused("TransactionException.SENDER_NOT_EOA"),
        base("sender_with_code_like_a_delegation", "0xef0101 is none.")
            .account(sender(), sends(vec![0xef, 0x00, 0x01]))
            .refused("TransactionException.SENDER_NOT_EOA"),
        base("for_another_chain", "EIP-1559.")
            .tx(|tx| tx.chain_id = 2)
            .refused("TransactionException.INVALID_CHAINID"),
        base("for_another_chain_legacy", "EIP-155.")
            .fees(Fees::Price(50))
            .tx(|tx| tx.chain_id = 2)
            .refused("TransactionException.INVALID_CHAINID"),
    ]
}

fn by_gas() -> Vec<Spec> {
    let too_low = "TransactionException.INTRINSIC_GAS_TOO_LOW";
    let below_floor = "TransactionException.INTRINSIC_GAS_BELOW_FLOOR_GAS_COST";
    vec![
        base("intrinsic_gas", "20,999.").gas([0, 20_999]).refused(too_low),
        base("intrinsic_gas_of_data", "4 and 16 gas for a byte.")
            .data([[vec![0; 10], vec![1; 10]].concat()])
            .gas([21_199])
            .forks(&[Fork::Cancun])
            .refused(too_low),
        base("intrinsic_gas_of_a_creation", "53,000 and 2 for a word.")
            .creates(vec![STOP; 33])
            .gas([53_003])
            .refused(too_low),
        base("intrinsic_gas_of_an_access_list", "2,400 and 1,900.")
            .access(&[(OTHER, &[1, 2])])
            .gas([21_000 + 2_400 + 3_799])
            .refused(too_low),
        base("intrinsic_gas_of_an_authorization", "25,000.")
            .authorize([authorization(2, 1, OTHER, 0)])
            .gas([45_999])
            .since(Fork::Prague)
            .refused(too_low),
        base("floor_gas_of_data", "EIP-7623: 40 gas for a byte.")
            .data([vec![1; 1_000]])
            .gas([21_000 + 39_999])
            .since(Fork::Prague)
            .refused(below_floor),
        base("more_gas_than_the_block", "One more than the block's limit.")
            .env(|env| env.gas_limit = 10_000_000)
            .gas([10_000_001])
            .refused("TransactionException.GAS_ALLOWANCE_EXCEEDED"),
        base("much_more_gas_than_the_block", "As much as can be written.")
            .fees(Fees::Dynamic(7, 0))
            .gas([u64::MAX])
            .forks(&[Fork::Cancun, Fork::Prague])
            .refused("TransactionException.GAS_ALLOWANCE_EXCEEDED"),
        base("more_gas_than_any_transaction", "EIP-7825: one more than 2^24.")
            .gas([(1 << 24) + 1])
            .since(Fork::Osaka)
            .refused("TransactionException.GAS_LIMIT_EXCEEDS_MAXIMUM"),
        base("creation_code_too_long", "EIP-3860: 49,153 bytes.")
            .creates(vec![STOP; 0xc001])
            .gas([5_000_000])
            .unsigned()
            .refused("TransactionException.INITCODE_SIZE_EXCEEDED"),
    ]
}

fn by_fees() -> Vec<Spec> {
    let below = "TransactionException.INSUFFICIENT_MAX_FEE_PER_GAS";
    vec![
        base("cap_below_the_base_fee", "6 of 7 wei.").fees(Fees::Dynamic(6, 0)).refused(below),
        base("price_below_the_base_fee", "Legacy.").fees(Fees::Price(6)).refused(below),
        base("price_below_the_base_fee_with_a_list", "EIP-2930.")
            .fees(Fees::Price(0))
            .access(&[])
            .refused(below),
        base("tip_above_the_cap", "The tip is part of the cap.")
            .fees(Fees::Dynamic(50, 51))
            .refused("TransactionException.PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS"),
        base("cap_beyond_all", "Gas limit times cap exceeds every balance.")
            .fees(Fees::Dynamic(u128::MAX, 0))
            .refused("TransactionException.INSUFFICIENT_ACCOUNT_FUNDS"),
    ]
}

fn by_kind() -> Vec<Spec> {
    vec![
        base("authorizations_before_prague", "EIP-7702.")
            .authorize([authorization(2, 1, OTHER, 0)])
            .forks(&[Fork::Cancun])
            .refused("TransactionException.TYPE_4_TX_PRE_FORK"),
        base("no_authorizations", "An EIP-7702 transaction has at least one.")
            .authorize([])
            .since(Fork::Prague)
            .refused("TransactionException.TYPE_4_EMPTY_AUTHORIZATION_LIST"),
    ]
}

/// Bytes that are no transaction: the decoder's refusals.
fn by_bytes() -> Vec<Spec> {
    let raw = |name, comment, bytes: Vec<u8>, exception| {
        base(name, comment).tx(|tx| tx.raw = Some(Bytes::from(bytes))).refused(exception)
    };
    let dynamic = TxEip1559 {
        chain_id: 1,
        nonce: NONCE,
        gas_limit: 21_000,
        max_fee_per_gas: 1_000,
        max_priority_fee_per_gas: 3,
        to: TxKind::Call(OTHER),
        ..Default::default()
    };
    let good = key(1).sign(dynamic.clone()).encoded().to_vec();
    let other_type = |kind: u8| [&[kind], &good[1..]].concat();
    let rlp = "TransactionException.RLP";
    let signature = "TransactionException.INVALID_SIGNATURE_VRS";
    vec![
        raw("type_3", "Blobs.", other_type(3), "TransactionException.TYPE_NOT_SUPPORTED"),
        raw("type_5", "Not known.", other_type(5), "TransactionException.TYPE_NOT_SUPPORTED"),
        raw("type_0x7f", "Not known.", other_type(0x7f), "TransactionException.TYPE_NOT_SUPPORTED"),
        raw("cut_short", "The last byte is missing.", good[..good.len() - 1].to_vec(), rlp),
        raw("with_a_byte_too_many", "Bytes after the end.", [good.clone(), vec![0]].concat(), rlp),
        raw("of_nothing", "No bytes at all.", Vec::new(), rlp),
        raw("of_an_empty_list", "A legacy transaction of nothing.", vec![0xc0], rlp),
        raw("malleable", "s in the upper half.", malleable(&dynamic), signature),
        raw("with_zero_signature", "r and s are zero.", unsigned(), signature),
    ]
}

fn malleable(tx: &TxEip1559) -> Vec<u8> {
    let signature = key(1).sign_hash(tx.signature_hash());
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let order = U256::from_str_radix(order, 16).unwrap();
    let mirrored = Signature::new(signature.r(), order - signature.s(), !signature.v());
    TxEnvelope::Eip1559(tx.clone().into_signed(mirrored)).encoded_2718()
}

fn unsigned() -> Vec<u8> {
    let tx = TxLegacy {
        chain_id: Some(1),
        nonce: NONCE,
        gas_price: 50,
        gas_limit: 21_000,
        to: TxKind::Call(OTHER),
        ..Default::default()
    };
    let nobody = Signature::new(U256::ZERO, U256::ZERO, false);
    TxEnvelope::Legacy(tx.into_signed(nobody)).encoded_2718()
}
