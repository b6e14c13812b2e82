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
    let ran = std::mem::take(&mut block.ran);
    let (receipts, _) = assemble::receipts(ran, &block, &lanes, env.base_fee);
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

#[test]
fn a_lesson_is_believed_for_some_builds_and_longer_each_time_it_proves_true_again() {
    let mut memory = BuildMemory::new();
    let kind = (Address::repeat_byte(1), Some([1, 2, 3, 4]));
    let hot = Address::repeat_byte(2);
    let mut believed = || {
        memory.begin();
        memory.met(kind, hot);
        let mut builds = 0;
        while memory.hot(&kind).any(|address| address == hot) {
            memory.begin();
            builds += 1;
        }
        builds
    };
    let lengths = [believed(), believed(), believed()];
    assert!(lengths[0] > 1 && lengths[1] == 2 * lengths[0] && lengths[2] == 2 * lengths[1], "{lengths:?}");
    for _ in 0..12 {
        believed();
    }
    assert_eq!(believed(), believed(), "it does not grow for ever");
}

#[test]
fn calls_that_were_seen_not_to_meet_are_believed_until_they_meet() {
    let mut memory = BuildMemory::new();
    let kind = (Address::repeat_byte(1), Some([1, 2, 3, 4]));
    assert!(!memory.is_free(&kind));
    memory.freed(kind);
    assert!(memory.is_free(&kind));
    memory.met(kind, kind.0);
    assert!(!memory.is_free(&kind));
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_not_believed_any_more_makes_room() {
    let mut memory = BuildMemory::new();
    let kind = |n: u64| (Address::from_word(U256::from(n).into()), None);
    for n in 0..10_000 {
        memory.met(kind(n), Address::ZERO);
        memory.freed(kind(n));
    }
    let known = |memory: &BuildMemory, n: u64| memory.hot(&kind(n)).next().is_some();
    assert!(known(&memory, 0) && !known(&memory, 9_999));
    for n in 0..20_u8 {
        memory.met(kind(0), Address::repeat_byte(n));
    }
    assert!(memory.hot(&kind(0)).count() <= 4);
    (0..3_000).for_each(|_| memory.begin());
    memory.met(kind(9_999), Address::ZERO);
    assert!(known(&memory, 9_999) && !known(&memory, 0));
}

/// Which candidates are guessed to be independent of the first.
fn apart(memory: &BuildMemory, transactions: &[RecoveredTx]) -> Vec<usize> {
    // So many of each that no two groups share a chunk.
    let chunk = |number: u32| number as usize % transactions.len();
    let many: Vec<_> = (0..32).flat_map(|_| transactions.to_vec()).collect();
    let groups = groups::group(&many, memory);
    let with_first = groups.chunks.iter().find(|members| members.contains(&0)).unwrap();
    let with_first: BTreeSet<_> = with_first.iter().map(|number| chunk(*number)).collect();
    (0..transactions.len()).filter(|number| !with_first.contains(number)).collect()
}

#[test]
fn candidates_are_grouped_by_sender_recipient_and_the_addresses_they_name() {
    let (chain, counter) = chain();
    let key = |n: usize| &chain.keys[n];
    let [alice, bob, token] = [0xa1, 0xb0, 0x70].map(Address::repeat_byte);
    let pay = |n: usize, to: Address| key(n).transfer(CHAIN_ID, 0, to, U256::ONE);
    let send = |n: usize, to: Address| {
        let words = [to.into_word().0, U256::from(1_000_000).to_be_bytes::<32>()].concat();
        let input = [&[0xa9, 0x05, 0x9c, 0xbb][..], &words].concat();
        key(n).sign(tx(0, TxKind::Call(token), 80_000, input.into()))
    };
    let memory = BuildMemory::new();
    assert_eq!(apart(&memory, &[pay(0, alice), pay(1, alice), pay(2, bob), pay(0, bob)]), [0; 0]);
    assert_eq!(apart(&memory, &[pay(0, alice), pay(1, alice), pay(2, bob)]), [2]);
    // One amount in all, but nobody in common; then a recipient, and one who sends himself.
    assert_eq!(apart(&memory, &[send(0, alice), send(1, bob)]), [1]);
    assert_eq!(apart(&memory, &[send(0, alice), send(1, alice), send(2, key(1).address())]), [0; 0]);
    // Calls that name nobody are joined, until they are known not to meet.
    let calls = [call(key(0), 0, counter), call(key(1), 0, counter), pay(2, bob)];
    assert_eq!(apart(&memory, &calls), [2]);
    let mut memory = BuildMemory::new();
    memory.freed(kind_of(&calls[0]).unwrap());
    assert_eq!(apart(&memory, &calls), [1, 2]);
    // A lesson joins what names different people.
    memory.met(kind_of(&send(0, alice)).unwrap(), token);
    assert_eq!(apart(&memory, &[send(0, alice), send(1, bob)]), [0; 0]);
}

#[test]
fn calls_that_name_nobody_and_do_not_meet_are_learned_from_what_was_included() {
    // Each caller has a slot of its own: slot[caller] = 1.
    let own_slot = [0x60, 0x01, 0x33, 0x55, 0x00];
    let mut chain = Chain::new(40);
    let key = chain.keys[39].clone();
    let deploy = |nonce, code: &[u8]| key.sign(tx(nonce, TxKind::Create, 300_000, deployer(code)));
    chain.run(vec![deploy(0, &own_slot), deploy(1, &COUNTER)]);
    let [apart, together] = [0, 1].map(|nonce| key.address().create(nonce));
    let calls: Vec<_> = (0..20)
        .flat_map(|n| [call(&chain.keys[n], 0, apart), call(&chain.keys[n + 19], 0, together)])
        .take(38)
        .collect();
    let mut memory = BuildMemory::new();
    let (state, env, parent) = (&chain.state, chain.env(), &chain.lthash);
    let built =
        build_with(&mut memory, state, &chain.rules, &env, parent, LIMITS, &[], calls.clone(), || false)
            .unwrap();
    assert_eq!(built.transactions.len(), 38);
    assert!(memory.is_free(&kind_of(&calls[0]).unwrap()));
    assert!(!memory.is_free(&kind_of(&calls[1]).unwrap()));
}

#[test]
fn when_much_is_tried_again_whatever_is_guessed_builds_go_serial_for_a_while() {
    let (chain, _) = chain();
    let (env, stop) = (chain.env(), || false);
    let mut memory = BuildMemory::new();
    let site = |room| Site {
        view: &chain.state,
        rules: &chain.rules,
        env: &env,
        room,
        stop: &stop,
        stopped: AtomicBool::new(false),
    };
    let mut after = |batches: &[(usize, usize)]| {
        let mut build = Build::new(site(Room::new(1 << 20, 1 << 10)), &mut memory, env.gas_limit);
        batches.iter().for_each(|(evicted, count)| build.adapt(*evicted, *count));
        (build.batch, build.memory.is_crowded())
    };
    // One bad batch among good ones teaches lessons, no more.
    assert_eq!(after(&[(0, 2048), (200, 256), (0, 256), (10, 512)]), (4 * BATCH_FIRST, false));
    assert_eq!(after(&[(100, 256), (100, 256), (100, 256)]), (BATCH_FIRST, false));
    assert_eq!(after(&[(100, 256), (100, 256), (100, 256), (100, 256)]), (BATCH_FIRST, true));
    (0..BATCH_FIRST).for_each(|_| memory.begin());
    assert!(!memory.is_crowded());
}

#[test]
fn a_creation_and_the_calls_of_what_it_creates_run_on_one_thread() {
    let (chain, _) = chain();
    let created = chain.keys[0].address().create(0);
    // Arguments that name somebody would let calls of a contract run apart from each other.
    let pay = |n: usize, to: Address| {
        let arguments = [&[1, 2, 3, 4], chain.keys[n].address().into_word().as_slice()].concat();
        chain.keys[n].sign(tx(0, TxKind::Call(to), 100_000, arguments.into()))
    };
    let mut batch = vec![chain.keys[0].sign(tx(0, TxKind::Create, 300_000, deployer(&COUNTER)))];
    batch.extend((1..20).map(|n| pay(n, created)));
    batch.extend((20..39).map(|n| pay(n, Address::repeat_byte(0x77))));
    let chunks = groups::group(&batch, &BuildMemory::new()).chunks;
    assert!(chunks.len() > 1);
    assert!(chunks.contains(&(0..20).collect()), "{chunks:?}");
}
