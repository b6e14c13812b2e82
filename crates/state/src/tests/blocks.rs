use super::*;
use alloy_consensus::TxEip1559;
use alloy_primitives::{Bytes, TxKind};

const GWEI: u128 = 1_000_000_000;

/// Creation code of a contract that logs `calldata[0..32]` as topic with no data.
const LOGGER: [u8; 20] = [
    0x60, 0x08, 0x60, 0x0c, 0x60, 0x00, 0x39, 0x60, 0x08, 0x60, 0x00, 0xf3, // deploy 8 bytes
    0x5f, 0x35, 0x5f, 0x5f, 0xa1, 0x00, 0x00, 0x00, // log1(0, 0, calldata[0])
];

fn call(nonce: u64, to: TxKind, input: Bytes) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 200_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to,
        input,
        ..Default::default()
    }
}

fn topic(n: u64) -> B256 {
    B256::from(U256::from(n))
}

/// Three blocks: a deployment and a transfer, logs 1 and 2, logs 1 and 3.
fn logging_chain() -> (Model, Address) {
    let mut model = Model::new(2);
    let [alice, bob] = [model.keys[0].clone(), model.keys[1].clone()];
    let logger = alice.address().create(0);
    model.build(vec![
        alice.sign(call(0, TxKind::Create, LOGGER.to_vec().into())),
        bob.transfer(CHAIN_ID, 0, Address::repeat_byte(5), U256::from(77)),
    ]);
    let log = |key: &TestKey, nonce, n| key.sign(call(nonce, TxKind::Call(logger), topic(n).0.into()));
    model.build(vec![log(&alice, 1, 1), log(&bob, 1, 2)]);
    model.build(vec![log(&bob, 2, 1), log(&alice, 2, 3)]);
    (model, logger)
}

#[test]
fn a_new_store_holds_the_genesis_and_a_reopened_one_what_was_committed() {
    let directory = tempfile::tempdir().unwrap();
    let (model, _) = logging_chain();
    let store = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap();
    assert_eq!(store.head(), model.heads[0]);
    model.assert_equal(&store.view(), 0);
    model.catch_up(&store);
    for _ in 0..2 {
        assert_eq!(store.head(), model.heads[3]);
        store.verify().unwrap();
    }
    drop(store);
    let store = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap();
    assert_eq!(store.head(), model.heads[3]);
    assert_eq!(store.genesis_hash(), model.genesis.hash());
    (0..=3).for_each(|height| model.assert_equal(&store.at(height).unwrap(), height));
    assert_eq!(store.record(0).unwrap().unwrap().hash, model.genesis.hash());
}

#[test]
fn blocks_transactions_and_receipts_are_found_by_height_and_hash() {
    let directory = tempfile::tempdir().unwrap();
    let (model, _) = logging_chain();
    let store = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap();
    model.catch_up(&store);
    for (block, _, _) in &model.blocks {
        let height = block.record.height;
        assert_eq!(store.block(height).unwrap().as_ref(), Some(block));
        assert_eq!(store.height_of(&block.record.hash).unwrap(), Some(height));
        for (index, (tx, receipt)) in (0u32..).zip(block.transactions.iter().zip(&block.receipts)) {
            let location = store.locate(&tx.hash()).unwrap().unwrap();
            assert_eq!(location, TxLocation { height, index });
            let found = store.transaction(location).unwrap().unwrap();
            assert_eq!((found.hash(), found.sender()), (tx.hash(), tx.sender()));
            assert_eq!(store.receipt(location).unwrap().as_ref(), Some(receipt));
        }
        assert_eq!(store.transaction(TxLocation { height, index: 2 }).unwrap(), None);
    }
    assert_eq!(store.block(4).unwrap(), None);
    assert_eq!(store.record(u64::MAX).unwrap(), None);
    assert_eq!(store.height_of(&B256::ZERO).unwrap(), None);
    assert_eq!(store.locate(&B256::ZERO).unwrap(), None);
}

#[test]
fn logs_are_found_by_address_and_topic_within_the_callers_limits() {
    let directory = tempfile::tempdir().unwrap();
    let (model, logger) = logging_chain();
    let store = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap();
    model.catch_up(&store);
    let limits = LogLimits { blocks_max: 10, results_max: 10 };
    let find = |from, to, filter: &LogFilter| {
        let entries = store.logs(from, to, filter, limits).unwrap();
        entries.iter().map(|e| (e.height, e.tx_index, e.log_index, e.log.topics()[0])).collect::<Vec<_>>()
    };
    let all = vec![(2, 0, 0, topic(1)), (2, 1, 1, topic(2)), (3, 0, 0, topic(1)), (3, 1, 1, topic(3))];
    let by =
        |addresses: &[Address], topics: Vec<Vec<B256>>| LogFilter { addresses: addresses.to_vec(), topics };
    assert_eq!(find(0, 9, &LogFilter::default()), all);
    assert_eq!(find(0, 3, &by(&[logger], vec![])), all);
    assert_eq!(find(3, 3, &LogFilter::default()), all[2..]);
    assert_eq!(find(0, 3, &by(&[Address::ZERO], vec![])), []);
    assert_eq!(find(0, 3, &by(&[Address::ZERO, logger], vec![vec![topic(1)]])), [all[0], all[2]]);
    assert_eq!(find(0, 3, &by(&[], vec![vec![topic(2), topic(3)]])), [all[1], all[3]]);
    assert_eq!(find(0, 3, &by(&[], vec![vec![], vec![topic(1)]])), []);
    let entry = &store.logs(2, 2, &LogFilter::default(), limits).unwrap()[1];
    let (block, _, _) = &model.blocks[1];
    assert_eq!((entry.block_hash, entry.tx_hash), (block.record.hash, block.transactions[1].hash()));

    let with = |from, to, blocks_max, results_max| {
        store.logs(from, to, &LogFilter::default(), LogLimits { blocks_max, results_max }).unwrap_err()
    };
    assert_eq!(with(2, 1, 9, 9), LogsError::InvertedRange { from: 2, to: 1 });
    assert_eq!(with(4, 9, 9, 9), LogsError::BeyondHead { from: 4, head: 3 });
    assert_eq!(with(1, 3, 2, 9), LogsError::RangeTooLong { blocks: 3, max: 2 });
    assert_eq!(with(0, 3, 9, 3), LogsError::TooManyResults { max: 3, last_complete: Some(2) });
    assert_eq!(with(2, 2, 9, 1), LogsError::TooManyResults { max: 1, last_complete: None });
}

#[test]
fn a_block_that_does_not_follow_or_contradicts_itself_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (model, _) = logging_chain();
    let store = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap();
    let (block, diff, lthash) = &model.blocks[0];
    assert!(matches!(model.commit_to(&store, 2), Err(StateError::NotNext { height: 2, head_height: 0, .. })));
    let mut orphan = block.clone();
    orphan.record.parent_hash = B256::ZERO;
    assert!(matches!(store.commit(&orphan, diff, lthash), Err(StateError::NotNext { height: 1, .. })));
    let wrong_digest = store.commit(block, diff, &model.blocks[1].2);
    assert!(matches!(wrong_digest, Err(StateError::Inconsistent { height: 1, .. })));
    let mut short = block.clone();
    short.receipts.pop();
    assert!(matches!(store.commit(&short, diff, lthash), Err(StateError::Inconsistent { .. })));
    assert_eq!(store.head(), model.heads[0]);
    model.catch_up(&store);
    assert!(matches!(model.commit_to(&store, 3), Err(StateError::NotNext { .. })));
    store.verify().unwrap();
}

#[test]
fn a_foreign_genesis_and_a_directory_in_use_are_refused_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (model, _) = logging_chain();
    let store = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap();
    model.catch_up(&store);
    let again = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap_err();
    assert_eq!(again, OpenError::Locked { path: directory.path().to_path_buf() });
    drop(store);
    let other = Model::new(3);
    let error = StateStore::open(options(directory.path(), 8), &other.genesis).unwrap_err();
    assert_eq!(
        error,
        OpenError::ForeignGenesis { stored: model.genesis.hash(), expected: other.genesis.hash() }
    );
    assert!(error.to_string().contains(&other.genesis.hash().to_string()));
    let store = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap();
    assert_eq!(store.head(), model.heads[3]);
}
