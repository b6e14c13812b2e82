//! Threads that meet, with who ran what fixed by hand.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    testing::TestKey,
    tests::{CHAIN_ID, Chain, LIMITS, coins, deployer, tx},
    verify,
};
use alloy_primitives::{Address, Bytes, TxKind, U256};

/// Increments slot 0.
const COUNTER: [u8; 9] = [0x60, 0x00, 0x54, 0x60, 0x01, 0x01, 0x5f, 0x55, 0x00];

/// A chain with a counter, and what calls it.
fn chain() -> (Chain, Address) {
    let mut chain = Chain::new(40);
    let key = chain.keys[39].clone();
    chain.run(vec![key.sign(tx(0, TxKind::Create, 300_000, deployer(&COUNTER)))]);
    (chain, key.address().create(0))
}

fn call(key: &TestKey, nonce: u64, to: Address) -> RecoveredTx {
    key.sign(tx(nonce, TxKind::Call(to), 100_000, Bytes::from_static(b"add one")))
}

/// What came of a batch whose parts ran on a thread each.
struct Joined {
    /// Included at once, in the order of the lanes, and after all was tried again.
    kept: usize,
    again: Vec<usize>,
    built: Vec<RecoveredTx>,
    skipped: Vec<SkippedTx>,
    learned: Vec<Address>,
}

/// Runs parts of a batch as if each had run on a thread of its own, all at once, then what has to be tried again, and
/// has the verifier judge the block.
fn join(chain: &Chain, transactions: &[RecoveredTx], parts: &[Vec<u32>]) -> Joined {
    let (env, stop) = (chain.env(), || false);
    let room = Room::new(LIMITS.bytes, LIMITS.objects);
    let site = Site {
        view: &chain.state,
        rules: &chain.rules,
        env: &env,
        room,
        stop: &stop,
        stopped: AtomicBool::new(false),
    };
    let mut memory = BuildMemory::new();
    let mut build = Build::new(site, &mut memory, env.gas_limit);
    let full = AtomicBool::new(false);
    let run = |part: &Vec<u32>| {
        run_chunks(&build.site, &build.block.sheet, transactions, std::iter::once(part), 4, &full).unwrap()
    };
    let works = parts.iter().map(run).collect();
    let (_, again) = build.join(works, transactions);
    let kept = build.block.included.len();
    let again: Vec<usize> = (0..transactions.len()).filter(|place| again[*place]).collect();
    build.serial(&mut again.iter().map(|place| (*place as u32, transactions[*place].clone()))).unwrap();

    let Build { mut block, skipped, .. } = build;
    let row = Row::of(&block.sheet);
    let (lanes, _) = pack::pack(&block, &row, LIMITS.bytes);
    let payload = assemble::payload(&block, &row, &lanes).unwrap();
    let diff = assemble::changes(&block.sheet);
    let included = assemble::transactions(&block, &lanes);
    let (receipts, _) = assemble::receipts(std::mem::take(&mut block.ran), &lanes);
    let judged = verify(&chain.state, &chain.rules, &env, &chain.lthash, &payload, &included, &[]).unwrap();
    assert_eq!(judged.receipts, receipts);
    // The verifier's diff has the fees too.
    for (address, change) in diff.accounts() {
        assert_eq!(judged.diff.account(&address), Some(&change));
    }
    assert_eq!(judged.diff.slots(), diff.slots());
    let kinds = transactions.iter().filter_map(kind_of);
    let learned: BTreeSet<Address> = kinds.flat_map(|kind| memory.hot(&kind).collect::<Vec<_>>()).collect();
    let built = included.iter().cloned().collect();
    Joined { kept, again, built, skipped, learned: learned.into_iter().collect() }
}

#[test]
fn threads_that_do_not_meet_keep_everything() {
    let (chain, _) = chain();
    let transfer = |n: usize| chain.keys[n].transfer(CHAIN_ID, 0, Address::repeat_byte(n as u8), U256::ONE);
    let transactions: Vec<_> = (0..8).map(transfer).collect();
    let joined = join(&chain, &transactions, &[vec![0, 2, 4], vec![1, 3], vec![5, 6, 7]]);
    assert_eq!((joined.kept, joined.again.len(), joined.learned.len()), (8, 0, 0));
}

#[test]
fn of_threads_that_write_one_object_the_one_with_most_to_lose_keeps_it_and_the_others_try_again() {
    let (chain, counter) = chain();
    let mut transactions: Vec<_> = (0..6).map(|n| call(&chain.keys[n], 0, counter)).collect();
    // Depends on a call that has to be tried again; the one after it does not.
    transactions.push(chain.keys[1].transfer(CHAIN_ID, 1, Address::repeat_byte(9), U256::ONE));
    transactions.push(chain.keys[7].transfer(CHAIN_ID, 0, Address::repeat_byte(8), U256::ONE));
    let joined = join(&chain, &transactions, &[vec![1, 6, 7], vec![0, 2, 3, 4, 5]]);
    assert_eq!((joined.kept, joined.again), (6, vec![1, 6]));
    assert_eq!(joined.built.len(), 8);
    assert_eq!(joined.learned, [counter]);
}

#[test]
fn where_the_claim_that_stands_only_reads_other_readers_stay_and_writers_try_again() {
    let (chain, _) = chain();
    let hot = Address::repeat_byte(0x77);
    let pay = |n: usize, to: Address| chain.keys[n].transfer(CHAIN_ID, 0, to, U256::ONE);
    // A transfer of nothing only looks at its recipient.
    let look = |n: usize| chain.keys[n].transfer(CHAIN_ID, 0, hot, U256::ZERO);
    let transactions = vec![look(0), look(1), look(2), look(3), pay(4, hot), look(5)];
    let joined = join(&chain, &transactions, &[vec![0, 1, 2], vec![3, 4, 5]]);
    // The look before the payment stays, the one after it depends on it.
    assert_eq!((joined.kept, joined.again), (4, vec![4, 5]));
    assert_eq!(joined.built.len(), 6);
}

#[test]
fn a_refusal_that_another_thread_may_have_caused_to_be_wrong_is_tried_again() {
    let (chain, _) = chain();
    let poor = TestKey::new(1000);
    let transactions = vec![
        chain.keys[0].transfer(CHAIN_ID, 0, poor.address(), coins(1)),
        poor.transfer(CHAIN_ID, 0, Address::repeat_byte(3), U256::ONE),
        // Refused whatever happens.
        chain.keys[5].transfer(CHAIN_ID, 9, Address::repeat_byte(3), U256::ONE),
    ];
    let joined = join(&chain, &transactions, &[vec![0], vec![1, 2]]);
    assert_eq!((joined.kept, joined.again), (1, vec![1]));
    assert_eq!(joined.built.len(), 2);
    assert_eq!(joined.skipped.len(), 1);
    assert_eq!(joined.skipped[0].hash, transactions[2].hash());
}

#[test]
fn what_is_given_up_leaves_no_object_in_the_table_and_no_value() {
    let (chain, counter) = chain();
    // The first transaction of the second thread makes accounts and is refused the second time: its nonce is used.
    let transactions = vec![
        call(&chain.keys[0], 0, counter),
        call(&chain.keys[0], 1, counter),
        chain.keys[0].transfer(CHAIN_ID, 0, Address::repeat_byte(0x55), U256::ONE),
        chain.keys[2].transfer(CHAIN_ID, 0, Address::repeat_byte(0x55), U256::ONE),
    ];
    let joined = join(&chain, &transactions, &[vec![0, 1], vec![2, 3]]);
    assert_eq!((joined.kept, joined.again), (2, vec![2, 3]));
    assert_eq!(joined.built.len(), 3);
    assert!(matches!(joined.skipped[0].reason, Some(InvalidTx::NonceTooLow { .. })));
}

#[test]
fn three_threads_that_meet_in_a_ring_end_in_one_order() {
    let (chain, counter) = chain();
    let [a, b, c] = [1, 2, 3].map(|n| Address::repeat_byte(0x40 + n));
    let pay = |n: usize, nonce: u64, to: Address| chain.keys[n].transfer(CHAIN_ID, nonce, to, U256::ONE);
    let transactions = vec![
        pay(0, 0, a),
        pay(0, 1, b),
        call(&chain.keys[0], 2, counter),
        pay(1, 0, b),
        pay(1, 1, c),
        call(&chain.keys[1], 2, counter),
        pay(2, 0, c),
        pay(2, 1, a),
        pay(2, 2, Address::repeat_byte(0x50)),
    ];
    let joined = join(&chain, &transactions, &[vec![0, 1, 2], vec![3, 4, 5], vec![6, 7, 8]]);
    assert_eq!(joined.built.len(), 9);
    assert_eq!(joined.skipped, []);
}
