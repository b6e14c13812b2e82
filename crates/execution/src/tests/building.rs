//! Building on several threads: whatever is guessed and whoever wins a race, payload and outcome are what the oracle,
//! its verifier and replay make of them.

use super::*;
use alloy_consensus::TxEip7702;
use alloy_eips::eip7702::Authorization;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const RECIPIENT: Address = Address::repeat_byte(0xaa);
const COUNTER: Address = Address::repeat_byte(0xc1);
const BOARD: Address = Address::repeat_byte(0xc2);
const CELLS: Address = Address::repeat_byte(0xc3);

/// Increments slot 0.
const COUNTER_CODE: [u8; 9] = [0x60, 0x00, 0x54, 0x60, 0x01, 0x01, 0x5f, 0x55, 0x00];
/// With input: slot 0 = its first word. Without: the caller's slot = slot 0.
const BOARD_CODE: [u8; 15] =
    [0x36, 0x60, 0x09, 0x57, 0x5f, 0x54, 0x33, 0x55, 0x00, 0x5b, 0x5f, 0x35, 0x5f, 0x55, 0x00];

/// A chain with the contracts above and [`STORE`] in its genesis.
fn chain(accounts: u64) -> Chain {
    Chain::with(accounts, |genesis| {
        genesis.gas_limit = 1_000_000_000;
        let contracts: [(Address, &'static [u8]); 3] =
            [(COUNTER, &COUNTER_CODE), (BOARD, &BOARD_CODE), (CELLS, &STORE)];
        for (address, code) in contracts {
            let account = GenesisAccount { code: Bytes::from_static(code), ..Default::default() };
            genesis.alloc.insert(address, account);
        }
    })
}

fn call(key: &TestKey, nonce: u64, to: Address, input: Bytes) -> RecoveredTx {
    key.sign(tx(nonce, TxKind::Call(to), 100_000, input))
}

fn person(n: u64) -> Address {
    Address::from_word(crypto::hash(&n.to_le_bytes()))
}

fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Builds on so many threads, and has the oracle, the verifier and replay judge the result.
fn build_on(
    threads: usize,
    chain: &Chain,
    memory: &mut BuildMemory,
    limits: BuildLimits,
    candidates: &[RecoveredTx],
) -> (Payload, BuiltBlock) {
    let env = chain.env();
    let build = || {
        let candidates = candidates.iter().cloned();
        let (state, rules, lthash) = (&chain.state, &chain.rules, &chain.lthash);
        build_with(memory, state, rules, &env, lthash, limits, &[], candidates, || false).unwrap()
    };
    let built = on(threads, build);
    let payload = judge(chain, &built);
    assert!(payload.objects.len() as u64 <= limits.objects && built.payload.len() as u64 <= limits.bytes);
    assert!(built.outcome.gas_used <= limits.gas.min(env.gas_limit));
    (payload, built)
}

fn judge(chain: &Chain, built: &BuiltBlock) -> Payload {
    let (env, state) = (chain.env(), &chain.state);
    let payload = Payload::decode(&built.payload).unwrap();
    assert_eq!(Payload::commitment(&built.payload), built.commitment);
    let known = |hash: &B256| built.transactions.iter().find(|tx| tx.hash() == *hash).cloned();
    let transactions = recover_payload(&payload, known).unwrap();
    assert_eq!(transactions, built.transactions);
    let verified = verify(state, &chain.rules, &env, &chain.lthash, &payload, &transactions, &[]);
    assert_eq!(verified.as_ref(), Ok(&built.outcome));
    for threads in [1, 2] {
        let run = || replay(state, &chain.rules, &env, &chain.lthash, &payload, &transactions, &[]);
        assert_eq!(on(threads, run).as_ref(), Ok(&built.outcome), "replay on {threads} threads");
    }
    payload
}

const THREADS: [usize; 4] = [1, 2, 4, 8];

/// On every number of threads, and again with what was learned: all candidates are included.
fn all_are_included(chain: &Chain, candidates: &[RecoveredTx]) -> Vec<Payload> {
    let mut payloads = Vec::new();
    for threads in THREADS {
        let (mut memory, mut blind) = (BuildMemory::new(), BuildMemory::blind());
        for blind_now in [false, false, true] {
            let memory = if blind_now { &mut blind } else { &mut memory };
            let (payload, built) = build_on(threads, chain, memory, LIMITS, candidates);
            assert_eq!(built.skipped, []);
            assert_eq!(built.transactions.len(), candidates.len());
            payloads.push(payload);
        }
    }
    payloads
}

fn segments(payload: &Payload) -> usize {
    payload.lanes.iter().map(|lane| lane.segments.len()).sum()
}

#[test]
fn independent_transfers_are_spread_over_lanes() {
    let chain = chain(200);
    let candidates: Vec<_> =
        (0..200).map(|n| chain.keys[n].transfer(CHAIN_ID, 0, person(n as u64), U256::ONE)).collect();
    for payload in all_are_included(&chain, &candidates) {
        assert_eq!(payload.lanes.len(), 200 / 16);
        assert!(payload.lanes.iter().all(|lane| (16..18).contains(&lane.len())));
    }
}

#[test]
fn a_counter_that_all_increment_is_one_lane_cut_into_segments() {
    let chain = chain(400);
    let candidates: Vec<_> = chain.keys.iter().map(|key| call(key, 0, COUNTER, Bytes::new())).collect();
    for payload in all_are_included(&chain, &candidates) {
        assert_eq!(payload.lanes.len(), 1);
        assert_eq!(segments(&payload), 400 / 32);
        let taken: Vec<_> = payload.lanes[0].segments.iter().map(|segment| segment.taken.len()).collect();
        assert!(taken[0] == 0 && taken[1..].iter().all(|taken| *taken == 1), "{taken:?}");
    }
}

#[test]
fn a_hot_recipient_beside_independent_transfers_is_cut_and_the_others_are_not() {
    let chain = chain(600);
    let candidates: Vec<_> = (0..600)
        .map(|n| {
            let to = if n % 2 == 0 { RECIPIENT } else { person(n as u64) };
            chain.keys[n].transfer(CHAIN_ID, 0, to, U256::from(n))
        })
        .collect();
    for payload in all_are_included(&chain, &candidates) {
        assert_eq!(payload.lanes.len(), 600 / 16);
        assert!(payload.lanes[0].segments.len() > 4);
        assert!(payload.lanes[1..].iter().all(|lane| lane.segments.len() == 1));
    }
}

#[test]
fn nonces_of_a_sender_stay_in_order() {
    let chain = chain(8);
    let candidates: Vec<_> = (0..30)
        .flat_map(|nonce| {
            let to = move |n: u64| if nonce % 7 == 0 { person(99) } else { person(100 + n) };
            chain.keys.iter().zip(0..).map(move |(key, n)| key.transfer(CHAIN_ID, nonce, to(n), U256::ONE))
        })
        .collect();
    all_are_included(&chain, &candidates);
}

#[test]
fn readers_of_a_value_that_nobody_writes_are_independent_and_one_writer_joins_them() {
    let chain = chain(101);
    let read = |n: usize| call(&chain.keys[n], 0, BOARD, Bytes::new());
    let readers: Vec<_> = (0..100).map(read).collect();
    for payload in all_are_included(&chain, &readers) {
        assert_eq!(payload.lanes.len(), 6);
    }
    for at in [0, 50, 100] {
        let mut all = readers.clone();
        all.insert(at, call(&chain.keys[100], 0, BOARD, U256::from(7).to_be_bytes::<32>().into()));
        for payload in all_are_included(&chain, &all) {
            assert_eq!(payload.lanes.len(), 1);
        }
    }
}

#[test]
fn a_contract_deployed_in_a_hot_lane_is_taken_over_by_no_segment() {
    let chain = chain(200);
    let deployed = chain.keys[0].address().create(1);
    let mut candidates: Vec<_> = chain.keys.iter().map(|key| call(key, 0, COUNTER, Bytes::new())).collect();
    candidates.push(chain.keys[0].sign(tx(1, TxKind::Create, 300_000, deployer(&COUNTER_CODE))));
    candidates.extend(chain.keys[1..].iter().map(|key| call(key, 1, deployed, Bytes::new())));
    let (create, mut blind) = (candidates[200].encoded().clone(), 0);
    for payload in all_are_included(&chain, &candidates) {
        assert_eq!(payload.lanes.len(), 1);
        let segments = &payload.lanes[0].segments;
        let deploys = |segment: &Segment| segment.transactions.iter().any(|tx| tx.encoded == create);
        assert_eq!(segments.iter().position(deploys), Some(segments.len() - 1));
        // Where candidates were taken for independent, the deployment may come early, and all is one segment.
        let in_order = payload.transactions().eq(candidates.iter().map(RecoveredTx::encoded));
        blind += usize::from(!in_order);
        assert!(!in_order || segments.len() > 3);
    }
    assert!(blind <= THREADS.len(), "{blind} of {} payloads are in another order", 3 * THREADS.len());
}

#[test]
fn an_account_delegated_in_a_hot_lane_is_taken_over_by_no_segment() {
    let chain = chain(200);
    let [alice, bob] = [0, 1].map(|n| chain.keys[n].clone());
    let mut candidates: Vec<_> =
        chain.keys[1..].iter().map(|key| call(key, 0, COUNTER, Bytes::new())).collect();
    let authorization = Authorization { chain_id: U256::from(CHAIN_ID), address: COUNTER, nonce: 0 };
    candidates.push(bob.sign_eip7702(TxEip7702 {
        chain_id: CHAIN_ID,
        nonce: 1,
        gas_limit: 300_000,
        max_fee_per_gas: u128::from(100 * GWEI),
        max_priority_fee_per_gas: 1,
        to: alice.address(),
        authorization_list: vec![alice.authorize(authorization)],
        ..Default::default()
    }));
    candidates.extend(chain.keys[2..].iter().map(|key| call(key, 1, alice.address(), Bytes::new())));
    for payload in all_are_included(&chain, &candidates) {
        assert!(segments(&payload) > 1);
    }
}

#[test]
fn candidates_that_cannot_be_included_are_named_with_their_reasons() {
    let chain = chain(100);
    let mut candidates = Vec::new();
    for (n, key) in chain.keys.iter().enumerate() {
        candidates.push(key.transfer(CHAIN_ID, 0, person(n as u64), U256::ONE));
        candidates.push(key.transfer(CHAIN_ID, 5, person(n as u64), U256::ONE));
        candidates.push(key.transfer(CHAIN_ID, 1, person(n as u64), coins(20_000)));
        candidates.push(key.transfer(CHAIN_ID, 1, RECIPIENT, U256::ONE));
    }
    for threads in THREADS {
        let (_, built) = build_on(threads, &chain, &mut BuildMemory::new(), LIMITS, &candidates);
        assert_eq!((built.transactions.len(), built.skipped.len()), (200, 200));
        let kind = |skipped: &SkippedTx| match skipped.reason {
            Some(InvalidTx::NonceTooHigh { .. }) => 1,
            Some(InvalidTx::InsufficientFunds { .. }) => 2,
            _ => panic!("{skipped:?}"),
        };
        let high = built.skipped.iter().filter(|skipped| kind(skipped) == 1).count();
        assert_eq!(high, 100);
    }
}

#[test]
fn no_limit_is_exceeded_however_small() {
    let chain = chain(120);
    let mut candidates = Vec::new();
    for (n, key) in chain.keys.iter().enumerate() {
        candidates.push(call(key, 0, CELLS, store_input(n as u64 / 2, 5)));
        candidates.push(call(key, 1, COUNTER, Bytes::new()));
        candidates.push(key.transfer(CHAIN_ID, 2, person(n as u64), U256::ONE));
    }
    for threads in THREADS {
        let mut memory = BuildMemory::new();
        let mut build = |limits| build_on(threads, &chain, &mut memory, limits, &candidates).1;
        for gas in [0, 20_999, 21_000, 100_000, 700_000, 3_000_000] {
            let built = build(BuildLimits { gas, ..LIMITS });
            assert!(built.outcome.gas_used + 121_000 > gas || gas < 200_000);
        }
        for bytes in [300, 500, 2_000, 10_000, 30_000] {
            let built = build(BuildLimits { bytes, ..LIMITS });
            assert!(!built.transactions.is_empty());
        }
        for objects in [0, 1, 2, 10, 100, 200] {
            let built = build(BuildLimits { objects, ..LIMITS });
            assert_eq!(built.transactions.is_empty(), objects < 3, "{objects}");
        }
    }
}

#[test]
fn building_stops_when_told_to_and_what_it_has_is_a_payload() {
    let chain = chain(300);
    let candidates: Vec<_> =
        (0..300).map(|n| chain.keys[n].transfer(CHAIN_ID, 0, person(n as u64), U256::ONE)).collect();
    for threads in THREADS {
        for allowed in [0, 1, 40, 150] {
            let asked = AtomicUsize::new(0);
            let stop = || asked.fetch_add(1, Ordering::Relaxed) >= allowed;
            let (state, rules, lthash) = (&chain.state, &chain.rules, &chain.lthash);
            let build =
                || build(state, rules, &chain.env(), lthash, LIMITS, &[], candidates.iter().cloned(), stop);
            let built = on(threads, build).unwrap();
            judge(&chain, &built);
            assert_eq!(built.transactions.len(), allowed);
        }
    }
}

#[test]
fn what_a_build_learned_of_a_hot_contract_is_used_by_the_next_and_is_forgotten_in_time() {
    let chain = chain(600);
    // Nothing in such a call tells that all meet in slot 0.
    let candidates: Vec<_> =
        chain.keys.iter().map(|key| call(key, 0, BOARD, U256::from(7).to_be_bytes::<32>().into())).collect();
    let mut memory = BuildMemory::new();
    for _ in 0..12 {
        let (_, built) = build_on(4, &chain, &mut memory, LIMITS, &candidates);
        assert_eq!(built.transactions.len(), 600);
    }
}

/// What a random transaction does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Count,
    Read,
    Post(u64),
    Store(u64, u64),
    Pay(u8),
    Deploy,
    CallDeployed(u8),
    Delegate(u8),
    TooEarly,
    TooMuch,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Count),
        2 => Just(Act::Read),
        1 => (0_u64..3).prop_map(Act::Post),
        4 => (0_u64..12, prop_oneof![Just(0), Just(1), Just(0xdead)]).prop_map(|(k, v)| Act::Store(k, v)),
        6 => any::<u8>().prop_map(Act::Pay),
        1 => Just(Act::Deploy),
        2 => any::<u8>().prop_map(Act::CallDeployed),
        1 => any::<u8>().prop_map(Act::Delegate),
        1 => Just(Act::TooEarly),
        1 => Just(Act::TooMuch),
    ]
}

fn sign(chain: &Chain, acts: &[(u8, Act)]) -> Vec<RecoveredTx> {
    let mut nonces: Vec<u64> = chain
        .keys
        .iter()
        .map(|key| chain.state.account(key.address()).unwrap().unwrap_or_default().nonce)
        .collect();
    let mut deployed = vec![COUNTER];
    let mut signed = Vec::new();
    for (sender, act) in acts {
        let sender = usize::from(*sender) % chain.keys.len();
        let (key, nonce) = (&chain.keys[sender], nonces[sender]);
        let anybody = |n: u8| match usize::from(n) {
            n if n < 128 => chain.keys[n % chain.keys.len()].address(),
            n => person(n as u64),
        };
        nonces[sender] += u64::from(!matches!(act, Act::TooEarly | Act::TooMuch));
        signed.push(match *act {
            Act::Count => call(key, nonce, COUNTER, Bytes::new()),
            Act::Read => call(key, nonce, BOARD, Bytes::new()),
            Act::Post(value) => call(key, nonce, BOARD, U256::from(value).to_be_bytes::<32>().into()),
            Act::Store(slot, value) => call(key, nonce, CELLS, store_input(slot, value)),
            Act::Pay(to) => key.transfer(CHAIN_ID, nonce, anybody(to), coins(900)),
            Act::Deploy => {
                deployed.push(key.address().create(nonce));
                key.sign(tx(nonce, TxKind::Create, 300_000, deployer(&COUNTER_CODE)))
            }
            Act::CallDeployed(n) => call(key, nonce, deployed[usize::from(n) % deployed.len()], Bytes::new()),
            Act::Delegate(to) => {
                let other = usize::from(to) % chain.keys.len();
                let authorization = Authorization {
                    chain_id: U256::ZERO,
                    address: [COUNTER, BOARD, Address::ZERO][usize::from(to) % 3],
                    nonce: nonces[other],
                };
                key.sign_eip7702(TxEip7702 {
                    chain_id: CHAIN_ID,
                    nonce,
                    gas_limit: 200_000,
                    max_fee_per_gas: u128::from(100 * GWEI),
                    max_priority_fee_per_gas: 7,
                    to: anybody(to),
                    authorization_list: vec![chain.keys[other].authorize(authorization)],
                    ..Default::default()
                })
            }
            Act::TooEarly => key.transfer(CHAIN_ID, nonce + 9, RECIPIENT, U256::ONE),
            Act::TooMuch => key.transfer(CHAIN_ID, nonce, RECIPIENT, coins(1 << 40)),
        });
    }
    signed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_candidates_give_what_oracle_verifier_and_replay_say(
        blocks in prop::collection::vec(prop::collection::vec((any::<u8>(), act()), 16..160), 1..3),
        senders in 2_u64..40,
        threads in 2_usize..9,
        tight in any::<bool>(),
        blind in any::<bool>(),
    ) {
        let mut chain = chain(senders);
        let mut memory = if blind { BuildMemory::blind() } else { BuildMemory::new() };
        for acts in &blocks {
            let candidates = sign(&chain, acts);
            let limits = match tight {
                true => BuildLimits { bytes: 9_000, gas: 2_000_000, objects: 90 },
                false => LIMITS,
            };
            let (_, built) = build_on(threads, &chain, &mut memory, limits, &candidates);
            // Running out of limits aside, every candidate is included or named.
            if !tight {
                prop_assert_eq!(built.transactions.len() + built.skipped.len(), candidates.len());
            }
            chain.advance(&built.outcome);
            prop_assert_eq!(chain.full_digest(), built.outcome.lthash);
        }
    }
}
