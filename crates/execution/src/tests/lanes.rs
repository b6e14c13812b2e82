//! Lanes by hand: what the format refuses, what replay enforces, and that the oracle's verifier agrees on each case.

use super::*;
use alloy_eips::eip2930::AccessList;

const RECIPIENT: Address = Address::repeat_byte(0xaa);

/// Increments slot 0 and logs nothing.
const COUNTER: [u8; 9] = [0x60, 0x00, 0x54, 0x60, 0x01, 0x01, 0x5f, 0x55, 0x00];

/// A chain with counters at fixed addresses.
fn chain() -> (Chain, Vec<Address>) {
    let counters: Vec<Address> = (1..=3).map(|n| Address::repeat_byte(0xc0 + n)).collect();
    let chain = Chain::with(6, |genesis| {
        for counter in &counters {
            let account = GenesisAccount { code: Bytes::from_static(&COUNTER), ..Default::default() };
            genesis.alloc.insert(*counter, account);
        }
    });
    (chain, counters)
}

/// A transaction with the access set it has when it runs after `before`.
pub(super) struct Known {
    pub(super) tx: RecoveredTx,
    pub(super) set: AccessSet,
}

pub(super) fn known(chain: &Chain, transactions: Vec<RecoveredTx>) -> Vec<Known> {
    let env = chain.env();
    let mut run = crate::run::BlockRun::new(&chain.state, &chain.rules, &env, &[]).unwrap();
    let run = |tx: RecoveredTx| {
        let Ok(set) = run.transact(&tx) else { panic!("a transaction of this test is refused") };
        Known { set, tx }
    };
    transactions.into_iter().map(run).collect()
}

pub(super) type Piece<'a> = (&'a [Known], Vec<(Object, ObjectValue)>);

pub(super) fn plan(lanes: &[Vec<Piece<'_>>]) -> Vec<LanePlan> {
    let piece = |(transactions, taken): &Piece<'_>| SegmentPlan {
        taken: taken.clone(),
        transactions: transactions.iter().map(|k| (k.tx.encoded().clone(), k.set.clone())).collect(),
    };
    lanes.iter().map(|lane| lane.iter().map(piece).collect()).collect()
}

/// Replay on 1, 2, 4 and 8 threads and the verifier: all accept with equal outcomes or all refuse with one code.
pub(super) fn judge(chain: &Chain, payload: &Payload) -> Result<BlockOutcome, InvalidPayloadCode> {
    let bytes = payload.encode();
    let payload = Payload::decode(&bytes).unwrap();
    let transactions = recover_payload(&payload, |_| None).unwrap();
    let env = chain.env();
    let code = |result: Result<BlockOutcome, ExecuteError>| match result {
        Ok(outcome) => Ok(outcome),
        Err(ExecuteError::Invalid(invalid)) => Err(invalid.code),
        Err(ExecuteError::View(error)) => panic!("{error}"),
    };
    let expected =
        code(verify(&chain.state, &chain.rules, &env, &chain.lthash, &payload, &transactions, &[]));
    for threads in [1, 2, 4, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let run = || replay(&chain.state, &chain.rules, &env, &chain.lthash, &payload, &transactions, &[]);
        assert_eq!(code(pool.install(run)), expected, "{threads} threads");
    }
    if let Ok(outcome) = &expected {
        let serial = execute(&chain.state, &chain.rules, &env, &chain.lthash, &transactions, &[]);
        assert_eq!(serial.as_ref(), Ok(outcome));
    }
    expected
}

fn call(key: &TestKey, nonce: u64, to: Address) -> RecoveredTx {
    key.sign(tx(nonce, TxKind::Call(to), 100_000, Bytes::new()))
}

#[test]
fn independent_lanes_and_a_lane_in_segments_give_what_the_oracle_gives() {
    let (chain, counters) = chain();
    let keys = &chain.keys;
    let first = known(&chain, vec![call(&keys[0], 0, counters[0]), call(&keys[0], 1, counters[0])]);
    let second = known(&chain, vec![keys[1].transfer(CHAIN_ID, 0, RECIPIENT, U256::from(5))]);
    let hot = known(&chain, (2..6).map(|k| call(&keys[k], 0, counters[1])).collect());
    let slot = |value: u64| (Object::slot(counters[1], U256::ZERO), ObjectValue::Slot(U256::from(value)));
    let lanes = plan(&[
        vec![(&first, vec![])],
        vec![(&second, vec![])],
        vec![(&hot[..2], vec![]), (&hot[2..3], vec![slot(2)]), (&hot[3..], vec![slot(3)])],
    ]);
    let payload = Payload::new(lanes).unwrap();
    let outcome = judge(&chain, &payload).unwrap();
    let word = |counter: Address| outcome.diff.slot(&counter, &U256::ZERO).unwrap().new;
    assert_eq!((word(counters[0]), word(counters[1])), (U256::from(2), U256::from(4)));
    assert_eq!(outcome.receipts.len(), 7);
    assert_eq!(outcome.receipts[6].cumulative_gas_used(), outcome.gas_used);
    // The fee recipient was credited once, at the end, with all tips.
    let tips = U256::from(outcome.gas_used) * U256::from(GWEI);
    let change = outcome.diff.account(&chain.env().fee_recipient).unwrap();
    assert_eq!(change.new.unwrap().balance, tips);
}

#[test]
fn a_segment_that_lists_a_wrong_value_is_refused_although_its_reads_never_notice() {
    let (chain, counters) = chain();
    let hot = known(&chain, (0..2).map(|k| call(&chain.keys[k], 0, counters[0])).collect());
    for (value, expected) in [(1, None), (7, Some(InvalidPayloadCode::SegmentValue))] {
        let taken = vec![(Object::slot(counters[0], U256::ZERO), ObjectValue::Slot(U256::from(value)))];
        let payload = Payload::new(plan(&[vec![(&hot[..1], vec![]), (&hot[1..], taken)]])).unwrap();
        assert_eq!(judge(&chain, &payload).err(), expected, "{value}");
    }
}

#[test]
fn a_segment_must_list_exactly_what_it_takes_over() {
    let (chain, counters) = chain();
    let hot = known(&chain, (0..2).map(|k| call(&chain.keys[k], 0, counters[0])).collect());
    let slot = (Object::slot(counters[0], U256::ZERO), ObjectValue::Slot(U256::ONE));
    let code = (Object::account(counters[0]), ObjectValue::Account(None));
    for taken in [vec![], vec![code, slot]] {
        let error = Payload::new(plan(&[vec![(&hot[..1], vec![]), (&hot[1..], taken)]])).unwrap_err();
        assert_eq!(error.code(), InvalidPayloadCode::SegmentValue, "{error}");
    }
}

#[test]
fn a_made_up_account_with_code_nobody_has_is_the_proposers_fault() {
    let (chain, _) = chain();
    let sender = &chain.keys[0];
    let transfers = (0..2).map(|nonce| sender.transfer(CHAIN_ID, nonce, RECIPIENT, U256::from(1))).collect();
    let pair = known(&chain, transfers);
    let info = AccountInfo { nonce: 1, balance: coins(1), code_hash: B256::repeat_byte(3) };
    let mut taken = vec![
        (Object::account(sender.address()), ObjectValue::Account(Some(info))),
        (Object::account(RECIPIENT), ObjectValue::Account(Some(info))),
    ];
    taken.sort_by_key(|(object, _)| *object);
    let payload = Payload::new(plan(&[vec![(&pair[..1], vec![]), (&pair[1..], taken)]])).unwrap();
    assert_eq!(judge(&chain, &payload).err(), Some(InvalidPayloadCode::SegmentValue));
}

#[test]
fn lanes_that_share_a_written_object_are_refused_by_the_bytes_alone() {
    let (chain, counters) = chain();
    let hot = known(&chain, (0..2).map(|k| call(&chain.keys[k], 0, counters[0])).collect());
    let error = Payload::new(plan(&[vec![(&hot[..1], vec![])], vec![(&hot[1..], vec![])]])).unwrap_err();
    assert_eq!(error.code(), InvalidPayloadCode::FalseIndependence, "{error}");
    // Hiding the write does not help: then it is undeclared.
    let hide = |known: &Known| Known {
        tx: known.tx.clone(),
        set: AccessSet::new(
            known
                .set
                .iter()
                .map(|a| Access { written: a.written && a.object.slot.is_none(), ..*a })
                .collect(),
        ),
    };
    let hidden: Vec<Known> = hot.iter().map(hide).collect();
    let lanes = plan(&[vec![(&hidden[..1], vec![])], vec![(&hidden[1..], vec![])]]);
    assert_eq!(
        judge(&chain, &Payload::new(lanes).unwrap()).err(),
        Some(InvalidPayloadCode::UndeclaredAccess)
    );
}

#[test]
fn access_sets_must_say_everything_and_nothing_more() {
    let (chain, counters) = chain();
    let one = known(&chain, vec![call(&chain.keys[0], 0, counters[0])]);
    let set = &one[0].set;
    assert_eq!(set.len(), 3, "{set:?}");
    let with = |set: AccessSet| [Known { tx: one[0].tx.clone(), set }];
    let code = |known: &[Known]| {
        let payload = Payload::new(plan(&[vec![(known, vec![])]])).unwrap();
        judge(&chain, &payload).err()
    };
    assert_eq!(code(&one), None);
    for left_out in set.iter() {
        let rest = AccessSet::new(set.iter().filter(|access| *access != left_out).copied().collect());
        assert_eq!(code(&with(rest)), Some(InvalidPayloadCode::UndeclaredAccess), "{left_out:?}");
    }
    let more = Access { object: Object::account(RECIPIENT), written: false };
    let more = AccessSet::new(set.iter().copied().chain([more]).collect());
    assert_eq!(code(&with(more)), Some(InvalidPayloadCode::UnusedEntry));
    let all_written = AccessSet::new(set.iter().map(|access| Access { written: true, ..*access }).collect());
    assert_eq!(code(&with(all_written)), Some(InvalidPayloadCode::UnusedEntry));
    let all_read = AccessSet::new(set.iter().map(|access| Access { written: false, ..*access }).collect());
    assert_eq!(code(&with(all_read)), Some(InvalidPayloadCode::UndeclaredAccess));
}

#[test]
fn an_entry_of_the_access_list_that_is_never_loaded_is_no_access() {
    let (chain, counters) = chain();
    let list = AccessList(vec![alloy_eips::eip2930::AccessListItem {
        address: RECIPIENT,
        storage_keys: vec![B256::ZERO],
    }]);
    let listing = TxEip1559 { access_list: list, ..tx(0, TxKind::Call(counters[0]), 100_000, Bytes::new()) };
    let one = known(&chain, vec![chain.keys[0].sign(listing)]);
    assert!(one[0].set.iter().all(|access| access.object.address != RECIPIENT), "{:?}", one[0].set);
    judge(&chain, &Payload::new(plan(&[vec![(&one, vec![])]])).unwrap()).unwrap();
}

#[test]
fn gas_of_all_lanes_together_is_bounded_by_the_block() {
    let mut chain = Chain::with(4, |genesis| genesis.gas_limit = 70_000);
    let lanes: Vec<Vec<Known>> = (0..4)
        .map(|k| {
            let transfer =
                chain.keys[k].transfer(CHAIN_ID, 0, Address::with_last_byte(0x80 + k as u8), coins(1));
            known(&chain, vec![transfer])
        })
        .collect();
    let payload = |count: usize| {
        let lanes: Vec<Vec<Piece<'_>>> =
            lanes[..count].iter().map(|lane| vec![(&lane[..], vec![])]).collect();
        Payload::new(plan(&lanes)).unwrap()
    };
    assert!(judge(&chain, &payload(3)).is_ok());
    assert_eq!(judge(&chain, &payload(4)).err(), Some(InvalidPayloadCode::GasLimit));
    chain.rules = Chain::with(4, |genesis| genesis.gas_limit = 20_000).rules;
    assert_eq!(judge(&chain, &payload(1)).err(), Some(InvalidPayloadCode::GasLimit));
}

#[test]
fn payloads_have_one_encoding_and_everything_else_is_refused_with_the_numbers() {
    let (chain, counters) = chain();
    let hot = known(&chain, (0..2).map(|k| call(&chain.keys[k], 0, counters[0])).collect());
    let taken = vec![(Object::slot(counters[0], U256::ZERO), ObjectValue::Slot(U256::ONE))];
    let payload = Payload::new(plan(&[vec![(&hot[..1], vec![]), (&hot[1..], taken)]])).unwrap();
    let bytes = payload.encode();
    assert_eq!(Payload::decode(&bytes), Ok(payload));
    assert_eq!(Payload::default().encode(), [PAYLOAD_VERSION, 0, 0]);
    for end in 0..bytes.len() {
        let cut = Payload::decode(&bytes[..end]);
        assert!(matches!(cut, Err(PayloadError::Truncated { .. })), "{end}: {cut:?}");
    }
    let mut long = bytes.clone();
    long.push(0);
    assert_eq!(Payload::decode(&long), Err(PayloadError::TrailingBytes { extra: 1 }));
    let over = types::limits::PAYLOAD_BYTES_MAX + 1;
    assert_eq!(Payload::decode(&vec![0; over]), Err(PayloadError::TooLong { length: over, max: over - 1 }));
    assert_eq!(Payload::decode(&[1]), Err(PayloadError::Version { version: 1 }));

    let v = PAYLOAD_VERSION;
    let code = |bytes: &[u8]| Payload::decode(bytes).map_err(|error| (error.code(), error.to_string()));
    for (bytes, expected) in [
        (vec![v, 0, 65], InvalidPayloadCode::TooManyLanes),
        (vec![v, 0, 1, 0x81, 0x02], InvalidPayloadCode::TooManyLanes),
        (vec![v, 0, 1, 0], InvalidPayloadCode::Encoding),
        (vec![v, 0, 1, 1, 0, 0], InvalidPayloadCode::Encoding),
        (vec![v, 0x80, 0x00, 0], InvalidPayloadCode::Encoding),
        (vec![v, 0, 1, 1, 0, 1, 0], InvalidPayloadCode::TooLarge),
        (
            vec![v, 0, 1, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            InvalidPayloadCode::TooLarge,
        ),
        ([&[v, 1][..], &[7; 20], &[0, 0, 0]].concat(), InvalidPayloadCode::UnusedEntry),
        ([&[v, 1][..], &[7; 20], &[0xff, 0, 0]].concat(), InvalidPayloadCode::Encoding),
        ([&[v, 1][..], &[7; 20], &[64, 0, 0]].concat(), InvalidPayloadCode::Encoding),
        ([&[v, 1][..], &[7; 20], &[0, 1, 33], &[1; 33], &[0]].concat(), InvalidPayloadCode::Encoding),
        ([&[v, 1][..], &[7; 20], &[0, 1, 1, 0, 0]].concat(), InvalidPayloadCode::Encoding),
        ([&[v, 2][..], &[7; 20], &[0, 0], &[7; 20], &[0, 0, 0]].concat(), InvalidPayloadCode::Order),
        ([&[v, 1][..], &[7; 20], &[0, 2, 1, 5, 0, 1, 4, 0, 0]].concat(), InvalidPayloadCode::Order),
        (vec![v, 0, 1, 1, 0, 1, 1, 9, 1, 0], InvalidPayloadCode::Encoding),
    ] {
        let refused = code(&bytes).expect_err("refused");
        assert_eq!(refused.0, expected, "{bytes:?}: {}", refused.1);
    }
}
