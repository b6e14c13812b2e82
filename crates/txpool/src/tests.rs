#![allow(clippy::unwrap_used)]

use super::tip_index::{Ranked, TipIndex};
use super::*;
use alloy_consensus::{SignableTransaction, TxEip1559, TxEip7702, TxLegacy};
use alloy_eips::{eip2718::Encodable2718, eip2930::AccessListItem};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use execution::{Fork, RecoveredTx, TxEnvelope};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const GWEI: u128 = 1_000_000_000;
const ETHER: u128 = GWEI * GWEI;
const CHAIN: u64 = 31337;

fn sender(index: u8) -> Address {
    Address::repeat_byte(index + 1)
}

fn transfer(from: u8, nonce: u64, fee: u128, tip: u128) -> RecoveredTx {
    padded(from, nonce, fee, tip, 0)
}

/// The signature is nobody's: the pool believes the sender it is given. The recipient keeps hashes apart.
fn padded(from: u8, nonce: u64, fee: u128, tip: u128, padding: usize) -> RecoveredTx {
    let transaction = TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 21_000 + 40 * padding as u64,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: tip,
        to: TxKind::Call(sender(from)),
        value: U256::ZERO,
        input: vec![0; padding].into(),
        ..Default::default()
    };
    let encoded = TxEnvelope::from(transaction.into_signed(Signature::test_signature())).encoded_2718();
    RecoveredTx::from_stored(encoded.into(), sender(from)).unwrap()
}

fn rich(nonce: u64) -> AccountState {
    AccountState { nonce, balance: U256::from(ETHER), delegated: false }
}

fn pool() -> Pool {
    Pool::new(Limits::default(), GWEI as u64)
}

fn small(transactions_max: usize) -> Pool {
    Pool::new(Limits { transactions_max, ..Limits::default() }, GWEI as u64)
}

fn select(pool: &Pool, base_fee: u64) -> Vec<RecoveredTx> {
    pool.select(&mut Selection::new(base_fee), usize::MAX, |_| None)
}

fn order(selected: &[RecoveredTx]) -> Vec<(u8, u64)> {
    selected.iter().map(|tx| (tx.sender()[0] - 1, tx.nonce())).collect()
}

impl Pool {
    /// Recomputes everything that is kept incrementally.
    fn check_invariants(&self) {
        let base_fee = self.heads_base_fee();
        let (mut status, mut hashes, mut sequences) = (Status::default(), 0, BTreeMap::new());
        let mut last_heights = BTreeSet::new();
        let (mut heads, mut pending_tails, mut queued_tails) =
            (TipIndex::default(), TipIndex::default(), TipIndex::default());
        for index in [&mut heads, &mut pending_tails, &mut queued_tails] {
            index.set_base_fee(base_fee);
        }
        for (address, account) in &self.accounts {
            assert!(!account.slots.is_empty(), "an account without transactions is kept");
            let (mut next, mut spent, mut open, mut floor) =
                (account.state.nonce, U256::ZERO, true, None::<Price>);
            let (mut total, mut pending) = (U256::ZERO, 0);
            for (nonce, slot) in &account.slots {
                assert!(*nonce >= account.state.nonce, "a used nonce is kept");
                assert_eq!((*nonce, *address), (slot.transaction.nonce(), slot.transaction.sender()));
                total += slot.cost;
                spent += slot.cost;
                open &= *nonce == next && spent <= account.state.balance;
                if open {
                    pending += 1;
                    next += 1;
                }
                let expected = floor.map_or(slot.price, |floor| floor.lowest(slot.price));
                assert_eq!(slot.floor, expected, "floor of nonce {nonce}");
                floor = Some(expected);
                assert!(self.contains(&slot.transaction.hash()));
                assert_eq!(self.get(&slot.transaction.hash()), Some(&slot.transaction));
                sequences.insert(slot.sequence, (*address, *nonce));
                last_heights.extend(slot.last_height.map(|last| (last, slot.transaction.hash())));
                hashes += 1;
                status.bytes += slot.transaction.encoded().len();
            }
            assert_eq!((account.pending(), account.cost), (pending, total));
            status.pending += pending;
            status.queued += account.slots.len() - pending;
            if let Some(first) = account.slots.get(&account.state.nonce).filter(|_| pending > 0) {
                heads.insert(Ranked { price: first.price, sequence: first.sequence, address: *address });
            }
            let last = account.slots.values().next_back().unwrap();
            let tail = Ranked { price: last.floor, sequence: last.sequence, address: *address };
            if account.slots.len() > pending { &mut queued_tails } else { &mut pending_tails }.insert(tail);
        }
        assert_eq!(self.status(), status);
        self.check_indices(hashes, &sequences, &last_heights, [&heads, &pending_tails, &queued_tails]);
        assert!(status.pending + status.queued <= self.limits().transactions_max);
        assert!(status.bytes <= self.limits().bytes_max);
    }
}

#[test]
fn the_first_nonce_is_pending_and_a_gap_queues() {
    let mut pool = pool();
    assert!(pool.insert(transfer(0, 5, 2 * GWEI, 1), rich(5), 0).unwrap().pending);
    assert!(!pool.insert(transfer(0, 7, 2 * GWEI, 1), rich(5), 0).unwrap().pending);
    assert_eq!((pool.status().pending, pool.status().queued), (1, 1));
    assert_eq!(pool.next_nonce(&sender(0)), Some(6));
    assert!(pool.insert(transfer(0, 6, 2 * GWEI, 1), rich(5), 0).unwrap().pending);
    assert_eq!((pool.status().pending, pool.status().queued), (3, 0));
    assert_eq!(pool.next_nonce(&sender(0)), Some(8));
    pool.check_invariants();
}

/// A strict transfer that names its last height.
fn until(from: u8, nonce: u64, last: u64, fee: u128) -> RecoveredTx {
    let words = vec![execution::valid_until_word(last)];
    let transaction = TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 30_000,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(sender(from)),
        access_list: vec![AccessListItem { address: execution::STRICT_MARKER, storage_keys: words }].into(),
        ..Default::default()
    };
    let encoded = TxEnvelope::from(transaction.into_signed(Signature::test_signature())).encoded_2718();
    RecoveredTx::from_stored(encoded.into(), sender(from)).unwrap()
}

#[test]
fn a_transaction_that_names_its_last_height_leaves_when_the_next_block_is_beyond_it() {
    let mut pool = pool();
    assert_eq!(pool.set_height(9), []);
    let late = pool.insert(until(0, 0, 9, GWEI), rich(0), 0).unwrap_err();
    assert_eq!(
        late.to_string(),
        "transaction expired: it is valid until height 9, the next block has height 10"
    );
    for (from, last) in [(0, 10), (1, 11), (2, 10), (3, u64::MAX)] {
        pool.insert(until(from, 0, last, GWEI), rich(0), 0).unwrap();
    }
    pool.insert(transfer(0, 1, GWEI, 1), rich(0), 0).unwrap();
    // One is replaced by another that names no height.
    pool.insert(transfer(2, 0, 2 * GWEI, 2), rich(0), 0).unwrap();
    pool.check_invariants();
    assert_eq!(pool.set_height(10), [until(0, 0, 10, GWEI)]);
    assert_eq!((pool.status().pending, pool.status().queued), (3, 1), "its successor waits");
    pool.check_invariants();
    pool.remove(&until(3, 0, u64::MAX, GWEI).hash());
    assert_eq!(pool.set_height(u64::MAX), [until(1, 0, 11, GWEI)]);
    pool.check_invariants();
}

#[test]
fn refusals_speak_as_geth_does() {
    let mut pool = pool();
    let low = pool.insert(transfer(0, 3, GWEI, 1), rich(5), 0).unwrap_err();
    assert_eq!(low.to_string(), "nonce too low: next nonce 5, tx nonce 3");
    let poor = AccountState { nonce: 0, balance: U256::from(10), delegated: false };
    let poor = pool.insert(transfer(0, 0, GWEI, 1), poor, 0).unwrap_err();
    assert_eq!(
        poor.to_string(),
        "insufficient funds for gas * price + value: balance 10, tx cost 21000000000000, overshot 20999999999990"
    );
    pool.insert(transfer(0, 5, 100 * GWEI, GWEI), rich(5), 0).unwrap();
    let known = pool.insert(transfer(0, 5, 100 * GWEI, GWEI), rich(5), 0).unwrap_err();
    assert_eq!(known.to_string(), "already known");
    let same = pool.insert(transfer(0, 5, 109 * GWEI, 2 * GWEI), rich(5), 0).unwrap_err();
    assert_eq!(same.to_string(), "replacement transaction underpriced");
    assert_eq!(same.code(), -32000);
}

#[test]
fn a_replacement_pays_ten_percent_more_in_both_fees() {
    let mut pool = pool();
    let old = transfer(0, 0, 100 * GWEI, 10 * GWEI);
    pool.insert(old.clone(), rich(0), 0).unwrap();
    for (fee, tip) in [(110 * GWEI, 10 * GWEI), (109 * GWEI, 11 * GWEI), (110 * GWEI - 1, 11 * GWEI)] {
        let refused = pool.insert(transfer(0, 0, fee, tip), rich(0), 0);
        assert_eq!(refused, Err(Refusal::ReplacementUnderpriced), "{fee} {tip}");
    }
    let inserted = pool.insert(transfer(0, 0, 110 * GWEI, 11 * GWEI), rich(0), 0).unwrap();
    assert_eq!(inserted.replaced, Some(old.clone()));
    assert!(!pool.contains(&old.hash()));
    pool.check_invariants();
}

#[test]
fn a_free_transaction_is_replaced_only_by_one_that_pays() {
    let mut pool = Pool::new(Limits::default(), 0);
    pool.insert(padded(0, 0, 0, 0, 0), rich(0), 0).unwrap();
    assert_eq!(pool.insert(padded(0, 0, 0, 0, 1), rich(0), 0), Err(Refusal::ReplacementUnderpriced));
    pool.insert(padded(0, 0, 1, 1, 1), rich(0), 0).unwrap();
}

#[test]
fn the_balance_covers_all_of_a_senders_transactions() {
    let mut pool = pool();
    let state = AccountState { nonce: 0, balance: U256::from(21_000 * GWEI * 5 / 2), delegated: false };
    pool.insert(transfer(0, 0, GWEI, 1), state, 0).unwrap();
    pool.insert(transfer(0, 1, GWEI, 1), state, 0).unwrap();
    let refused = pool.insert(transfer(0, 2, GWEI, 1), state, 0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "insufficient funds for gas * price + value: balance 52500000000000, queued cost 42000000000000, \
         tx cost 21000000000000, overshot 10500000000000"
    );
    // A replacement only has to pay for itself.
    pool.insert(transfer(0, 1, GWEI * 11 / 10, 2), state, 0).unwrap();
}

#[test]
fn a_block_removes_used_nonces_and_demotes_what_cannot_be_paid() {
    let mut pool = pool();
    for nonce in 0..4 {
        pool.insert(transfer(0, nonce, GWEI, 1), rich(0), 0).unwrap();
    }
    let state = AccountState { nonce: 2, balance: U256::from(21_000 * GWEI), delegated: false };
    let removed = pool.advance(GWEI as u64, [(sender(0), state), (sender(9), rich(7))]);
    assert_eq!(removed.iter().map(RecoveredTx::nonce).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((pool.status().pending, pool.status().queued), (1, 1));
    pool.check_invariants();
    pool.advance(GWEI as u64, [(sender(0), rich(2))]);
    assert_eq!((pool.status().pending, pool.status().queued), (2, 0));
    pool.check_invariants();
}

#[test]
fn per_account_limits_hold_and_name_their_numbers() {
    let limits = Limits { account_transactions_max: 3, account_queued_max: 1, ..Limits::default() };
    let mut pool = Pool::new(limits, 0);
    pool.insert(transfer(0, 2, GWEI, 1), rich(0), 0).unwrap();
    let queued = pool.insert(transfer(0, 3, GWEI, 1), rich(0), 0);
    assert_eq!(queued, Err(Refusal::QueuedLimit { queued: 1, limit: 1 }));
    pool.insert(transfer(0, 0, GWEI, 1), rich(0), 0).unwrap();
    pool.insert(transfer(0, 1, GWEI, 1), rich(0), 0).unwrap();
    let full = pool.insert(transfer(0, 3, GWEI, 1), rich(0), 0);
    assert_eq!(full, Err(Refusal::AccountLimit { pooled: 3, limit: 3 }));
    let delegated = AccountState { delegated: true, ..rich(0) };
    let mut pool = Pool::new(Limits { delegated_account_transactions_max: 1, ..Limits::default() }, 0);
    pool.insert(transfer(0, 0, GWEI, 1), delegated, 0).unwrap();
    let refused = pool.insert(transfer(0, 1, GWEI, 1), delegated, 0);
    assert_eq!(refused, Err(Refusal::DelegatedLimit { limit: 1 }));
}

#[test]
fn a_full_pool_keeps_what_pays_best_and_lets_queued_ones_go_first() {
    let mut pool = small(3);
    pool.insert(transfer(0, 0, 10 * GWEI, 3), rich(0), 0).unwrap();
    pool.insert(transfer(1, 0, 10 * GWEI, 2), rich(0), 0).unwrap();
    let gapped = transfer(2, 1, 10 * GWEI, 9);
    pool.insert(gapped.clone(), rich(0), 0).unwrap();
    let inserted = pool.insert(transfer(3, 0, 10 * GWEI, 1), rich(0), 0).unwrap();
    assert_eq!(order(&inserted.evicted), [(2, 1)], "queued transactions go before pending ones");
    assert_eq!(pool.insert(gapped, rich(0), 0), Err(Refusal::Full));
    assert_eq!(
        pool.insert(transfer(4, 0, 10 * GWEI, 1), rich(0), 0),
        Err(Refusal::Underpriced),
        "equal: older stays"
    );
    let inserted = pool.insert(transfer(4, 0, 10 * GWEI, 2), rich(0), 0).unwrap();
    assert_eq!(order(&inserted.evicted), [(3, 0)]);
    pool.check_invariants();
}

#[test]
fn a_dear_last_nonce_does_not_protect_cheap_ones_before_it() {
    let mut pool = small(2);
    pool.insert(transfer(0, 0, 10 * GWEI, 1), rich(0), 0).unwrap();
    pool.insert(transfer(0, 1, 10 * GWEI, 9 * GWEI), rich(0), 0).unwrap();
    let inserted = pool.insert(transfer(1, 0, 10 * GWEI, 2), rich(0), 0).unwrap();
    assert_eq!(order(&inserted.evicted), [(0, 1)]);
    pool.check_invariants();
}

#[test]
fn a_refused_newcomer_leaves_the_pool_as_it_was() {
    let limits = Limits { bytes_max: 1_000, ..Limits::default() };
    let mut pool = Pool::new(limits, GWEI as u64);
    for index in 0..8 {
        pool.insert(transfer(index, 0, 10 * GWEI, if index < 3 { 1 } else { 9 }), rich(0), 0).unwrap();
    }
    let before = order(&select(&pool, GWEI as u64));
    // Better than three of them, but too large for the room they would make.
    assert_eq!(pool.insert(padded(8, 0, 10 * GWEI, 2, 800), rich(0), 0), Err(Refusal::Underpriced));
    assert_eq!(order(&select(&pool, GWEI as u64)), before);
    pool.check_invariants();
    // The same as a replacement: the replaced one comes back as well.
    assert_eq!(pool.insert(padded(0, 0, 11 * GWEI, 2, 800), rich(0), 0), Err(Refusal::Underpriced));
    assert_eq!(order(&select(&pool, GWEI as u64)), before);
    pool.check_invariants();
}

#[test]
fn transactions_leave_when_their_time_is_over() {
    let mut pool = Pool::new(Limits { lifetime_ms: 1000, ..Limits::default() }, 0);
    pool.insert(transfer(0, 0, GWEI, 1), rich(0), 5).unwrap();
    pool.insert(transfer(0, 1, GWEI, 1), rich(0), 500).unwrap();
    assert_eq!(pool.next_expiry_ms(), Some(1005));
    assert!(pool.expire(1004).is_empty());
    assert_eq!(order(&pool.expire(1005)), [(0, 0)]);
    assert_eq!((pool.status().pending, pool.status().queued), (0, 1));
    pool.check_invariants();
    assert_eq!(pool.expire(u64::MAX).len(), 1);
    assert_eq!((pool.status(), pool.next_expiry_ms()), (Status::default(), None));
}

#[test]
fn selection_takes_the_best_effective_tip_and_keeps_nonce_order() {
    let mut pool = pool();
    let base = GWEI as u64;
    pool.insert(transfer(0, 0, 10 * GWEI, 5), rich(0), 0).unwrap();
    pool.insert(transfer(0, 1, 10 * GWEI, 50), rich(0), 0).unwrap();
    pool.insert(transfer(1, 0, GWEI + 7, 9), rich(0), 0).unwrap();
    pool.insert(transfer(2, 0, GWEI - 1, 9), rich(0), 0).unwrap();
    pool.insert(transfer(3, 1, 10 * GWEI, 99), rich(0), 0).unwrap();
    assert_eq!(order(&select(&pool, base)), [(1, 0), (0, 0), (0, 1)]);
    // At a lower base fee sender 2 pays a tip of 0 and comes last.
    assert_eq!(order(&select(&pool, base - 1)), [(1, 0), (0, 0), (0, 1), (2, 0)]);
}

#[test]
fn selection_starts_above_the_nonces_of_the_block_built_upon() {
    let mut pool = pool();
    for nonce in 0..4 {
        pool.insert(transfer(0, nonce, 10 * GWEI, 5), rich(0), 0).unwrap();
    }
    let selected = pool.select(&mut Selection::new(1), 9, |address| (*address == sender(0)).then_some(2));
    assert_eq!(order(&selected), [(0, 2), (0, 3)]);
}

#[test]
fn a_selection_survives_changes_of_the_pool_between_its_chunks() {
    let mut pool = pool();
    for index in 0..6 {
        pool.insert(transfer(index, 0, 10 * GWEI, 10 - u128::from(index)), rich(0), 0).unwrap();
    }
    let mut selection = Selection::new(GWEI as u64);
    let first = pool.select(&mut selection, 2, |_| None);
    pool.advance(2 * GWEI as u64, [(sender(0), rich(1)), (sender(2), rich(1))]);
    pool.insert(transfer(0, 1, 10 * GWEI, 99), rich(1), 0).unwrap();
    let rest = pool.select(&mut selection, 9, |_| None);
    assert_eq!(order(&first), [(0, 0), (1, 0)]);
    // Sender 0 had nothing more when its turn was over: what came since waits for the next block.
    assert_eq!(order(&rest), [(3, 0), (4, 0), (5, 0)]);
}

#[test]
fn stateless_rules_refuse_in_geths_words() {
    let rules = AdmissionRules::new(CHAIN, 30_000_000, 100_000, Fork::Osaka, AdmissionPolicy::default());
    let base = TxEip1559 {
        chain_id: CHAIN,
        gas_limit: 60_000,
        max_fee_per_gas: 2,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(Address::ZERO),
        ..Default::default()
    };
    let check = |transaction: TxEip1559| {
        let envelope = TxEnvelope::from(transaction.into_signed(Signature::test_signature()));
        rules.check(&envelope, envelope.encode_2718_len()).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(check(base.clone()), Ok(()));
    let input = |length: usize| Bytes::from(vec![1; length]);
    let cases = [
        (TxEip1559 { chain_id: 1, ..base.clone() }, "invalid chain id for signer: have 1 want 31337"),
        (
            TxEip1559 { gas_limit: 20_999, ..base.clone() },
            "intrinsic gas too low: gas 20999, minimum needed 21000",
        ),
        (
            TxEip1559 { gas_limit: 60_000, input: input(1000), ..base.clone() },
            "insufficient gas for floor data gas cost: gas 60000, minimum needed 61000",
        ),
        (TxEip1559 { gas_limit: 30_000_001, ..base.clone() }, "exceeds block gas limit"),
        (
            TxEip1559 { gas_limit: 16_777_217, ..base.clone() },
            "transaction gas limit too high (cap: 16777216, tx: 16777217)",
        ),
        (
            TxEip1559 { max_priority_fee_per_gas: 3, ..base.clone() },
            "max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: 3, maxFeePerGas: 2",
        ),
        (TxEip1559 { nonce: u64::MAX, ..base.clone() }, "nonce has max value"),
        (
            TxEip1559 { to: TxKind::Create, gas_limit: 9_000_000, input: input(49_153), ..base.clone() },
            "max initcode size exceeded: code size 49153, limit 49152",
        ),
        (
            TxEip1559 { gas_limit: 9_000_000, input: input(100_000), ..base.clone() },
            "oversized data: transaction size 100",
        ),
        (
            TxEip1559 {
                access_list: vec![AccessListItem {
                    address: execution::STRICT_MARKER,
                    storage_keys: vec![B256::ZERO],
                }]
                .into(),
                ..base.clone()
            },
            "strict marker: 0x0000000000000000000000000000000000000000000000000000000000000000 is no word",
        ),
    ];
    for (transaction, expected) in cases {
        let refusal = check(transaction).unwrap_err();
        assert!(refusal.starts_with(expected), "{refusal}");
    }
}

#[test]
fn types_unprotected_ones_and_the_tip_floor_follow_fork_and_policy() {
    let rules = |fork, tip_floor, allow_unprotected| {
        AdmissionRules::new(
            CHAIN,
            30_000_000,
            1 << 17,
            fork,
            AdmissionPolicy { tip_floor, allow_unprotected },
        )
    };
    let legacy =
        TxLegacy { gas_limit: 21_000, gas_price: 5, to: TxKind::Call(Address::ZERO), ..Default::default() };
    let legacy = TxEnvelope::from(legacy.into_signed(Signature::test_signature()));
    let refused = rules(Fork::Osaka, 0, false).check(&legacy, 100).unwrap_err();
    assert_eq!(refused.to_string(), "only replay-protected (EIP-155) transactions allowed over RPC");
    assert_eq!(rules(Fork::Osaka, 5, true).check(&legacy, 100), Ok(()));
    let refused = rules(Fork::Osaka, 6, true).check(&legacy, 100).unwrap_err();
    assert_eq!(refused.to_string(), "transaction underpriced: gas tip cap 5, minimum needed 6");
    let set_code = TxEip7702 { chain_id: CHAIN, gas_limit: 100_000, ..Default::default() };
    let set_code = TxEnvelope::from(set_code.into_signed(Signature::test_signature()));
    assert_eq!(rules(Fork::Cancun, 0, false).check(&set_code, 100), Err(Refusal::TypeNotSupported(4)));
    assert_eq!(rules(Fork::Prague, 0, false).check(&set_code, 100), Err(Refusal::EmptyAuthorizations));
}

#[derive(Clone, Debug)]
enum Step {
    Insert { from: u8, nonce: u64, fee: u128, tip: u128, padding: usize },
    Advance { base_fee: u64, changes: Vec<(u8, u64, u128)> },
    Remove(prop::sample::Index),
    Expire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let insert =
        (0u8..5, 0u64..10, 1u128..60, 0u128..40, 0usize..200).prop_map(|(from, nonce, fee, tip, padding)| {
            Step::Insert { from, nonce, fee, tip: tip.min(fee), padding }
        });
    let change = (0u8..5, 0u64..4, 0u128..6_000_000);
    let advance = (0u64..50, prop::collection::vec(change, 0..3))
        .prop_map(|(base_fee, changes)| Step::Advance { base_fee, changes });
    prop_oneof![
        8 => insert,
        2 => advance,
        1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => (0u64..40).prop_map(Step::Expire),
    ]
}

/// The order by definition: of all senders' next transactions always the best, among equals the oldest.
fn naive_selection(pool: &Pool, base_fee: u64) -> Vec<B256> {
    let mut next: BTreeMap<Address, u64> =
        pool.accounts.iter().map(|(address, account)| (*address, account.state.nonce)).collect();
    let mut selected = Vec::new();
    loop {
        let offers = next.iter().filter_map(|(address, nonce)| {
            let account = &pool.accounts[address];
            let slot = account.slots.get(nonce).filter(|_| *nonce < account.pending_end)?;
            let tip = slot.price.effective_tip(base_fee);
            (tip >= 0).then_some((tip, std::cmp::Reverse(slot.sequence), *address, slot.transaction.hash()))
        });
        let Some((_, _, address, hash)) = offers.max() else { return selected };
        *next.get_mut(&address).unwrap() += 1;
        selected.push(hash);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn indices_counts_and_limits_agree_after_any_sequence(steps in prop::collection::vec(step(), 1..80), other_base_fee in 0u64..60) {
        let limits = Limits {
            transactions_max: 14,
            bytes_max: 3_000,
            account_transactions_max: 6,
            account_queued_max: 3,
            lifetime_ms: 100,
            ..Limits::default()
        };
        let mut pool = Pool::new(limits, 10);
        let mut states = [AccountState { balance: U256::from(3_000_000), ..AccountState::default() }; 5];
        let mut now_ms = 0;
        for step in steps {
            match step {
                Step::Insert { from, nonce, fee, tip, padding } => {
                    let before: BTreeSet<B256> = hashes(&pool);
                    let transaction = padded(from, nonce, fee, tip, padding);
                    let hash = transaction.hash();
                    match pool.insert(transaction, states[from as usize], now_ms) {
                        Ok(inserted) => {
                            let gone = inserted.evicted.iter().chain(&inserted.replaced).map(RecoveredTx::hash);
                            let mut expected = before;
                            expected.insert(hash);
                            gone.for_each(|hash| { expected.remove(&hash); });
                            prop_assert_eq!(hashes(&pool), expected);
                        }
                        Err(_) => prop_assert_eq!(hashes(&pool), before),
                    }
                }
                Step::Advance { base_fee, changes } => {
                    for (index, used, balance) in &changes {
                        let state = &mut states[*index as usize];
                        *state = AccountState { nonce: state.nonce + used, balance: U256::from(*balance), ..*state };
                    }
                    let changed = changes.iter().map(|(index, ..)| (sender(*index), states[*index as usize]));
                    pool.advance(base_fee, changed);
                }
                Step::Remove(index) => {
                    let all: Vec<B256> = hashes(&pool).into_iter().collect();
                    if !all.is_empty() {
                        pool.remove(index.get(&all));
                    }
                }
                Step::Expire(later) => {
                    now_ms += later;
                    pool.expire(now_ms);
                }
            }
            pool.check_invariants();
        }
        for base_fee in [pool.heads_base_fee(), other_base_fee] {
            let mut selection = Selection::new(base_fee);
            let mut chunked = Vec::new();
            loop {
                let chunk = pool.select(&mut selection, 2, |_| None);
                if chunk.is_empty() { break; }
                chunked.extend(chunk.iter().map(RecoveredTx::hash));
            }
            prop_assert_eq!(chunked, naive_selection(&pool, base_fee));
        }
    }
}

fn hashes(pool: &Pool) -> BTreeSet<B256> {
    pool.content()
        .flat_map(|content| content.pending.into_iter().chain(content.queued))
        .map(|tx| tx.hash())
        .collect()
}
