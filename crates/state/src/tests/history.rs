use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// A block's changes: (address, value) of accounts and (address, slot, value) of slots; 0 removes.
type Block = (Vec<(u8, u64)>, Vec<(u8, u8, u64)>);

/// Few keys, so that values change back and forth.
fn changes() -> impl Strategy<Value = Block> {
    let accounts = prop::collection::vec((0u8..6, prop_oneof![Just(0u64), 1u64..5]), 0..6);
    let slots = prop::collection::vec((0u8..3, 0u8..4, prop_oneof![Just(0u64), 1u64..5]), 0..6);
    (accounts, slots)
}

fn apply(model: &mut Model, (accounts, slots): &Block) {
    let info = |value: u64| AccountInfo { nonce: value, balance: U256::from(value), ..Default::default() };
    let accounts: Vec<_> = accounts
        .iter()
        .map(|(address, value)| (Address::repeat_byte(*address), (*value > 0).then(|| info(*value))))
        .collect();
    let slots: Vec<_> = slots
        .iter()
        .map(|(address, slot, value)| {
            ((Address::repeat_byte(*address), U256::from(*slot)), U256::from(*value))
        })
        .collect();
    model.change(&accounts, &slots);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_height_in_the_window_reads_as_it_was_and_others_are_refused_with_the_window(
        blocks in prop::collection::vec(changes(), 1..14),
        window in 0u64..6,
        reopen_after in any::<prop::sample::Index>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = Model::new(2);
        let mut store = StateStore::open(options(directory.path(), window), &model.genesis).unwrap();
        let reopen_after = reopen_after.index(blocks.len());
        let mut held = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            apply(&mut model, block);
            model.catch_up(&store);
            if index == reopen_after {
                held.clear();
                drop(store);
                store = StateStore::open(options(directory.path(), window), &model.genesis).unwrap();
            }
            let newest = model.height();
            let oldest = newest.saturating_sub(window);
            for height in 0..=newest + 1 {
                match store.at(height) {
                    Ok(view) => {
                        prop_assert!((oldest..=newest).contains(&height));
                        model.assert_equal(&view, height);
                        held.push(view);
                    }
                    Err(error) => {
                        prop_assert!(!(oldest..=newest).contains(&height));
                        prop_assert_eq!(error, HistoryError { requested: height, oldest, newest });
                    }
                }
            }
        }
        // Snapshots taken long ago still show what they showed.
        held.iter().for_each(|view| model.assert_equal(view, view.height()));
        store.verify().unwrap();
    }
}

#[test]
fn readers_see_whole_blocks_only_while_others_are_committed() {
    const BLOCKS: u64 = 60;
    const ACCOUNTS: u8 = 16;
    let directory = tempfile::tempdir().unwrap();
    let mut model = Model::new(0);
    // Every block gives all accounts the same balance: its own height.
    for height in 1..=BLOCKS {
        let info = AccountInfo { nonce: 1, balance: U256::from(height), ..Default::default() };
        let accounts: Vec<_> = (1..=ACCOUNTS).map(|n| (Address::repeat_byte(n), Some(info))).collect();
        let slots: Vec<_> =
            (1..=ACCOUNTS).map(|n| ((Address::repeat_byte(n), U256::from(1)), U256::from(height))).collect();
        model.change(&accounts, &slots);
    }
    let store = StateStore::open(options(directory.path(), 8), &model.genesis).unwrap();
    model.commit_to(&store, 1).unwrap();
    let done = AtomicBool::new(false);
    let check = |view: &StateSnapshot| {
        for n in 1..=ACCOUNTS {
            let address = Address::repeat_byte(n);
            assert_eq!(view.account(address).unwrap().unwrap().balance, U256::from(view.height()));
            assert_eq!(view.storage(address, U256::from(1)).unwrap(), U256::from(view.height()));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let newest = store.view();
                    check(&newest);
                    if let Ok(past) = store.at(newest.height().saturating_sub(5).max(1)) {
                        check(&past);
                    }
                }
            });
        }
        for height in 2..=BLOCKS {
            model.commit_to(&store, height).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&store.view());
}

#[test]
fn a_shorter_window_after_a_restart_drops_what_lies_outside() {
    let directory = tempfile::tempdir().unwrap();
    let mut model = Model::new(1);
    (1..=6u64).for_each(|n| apply(&mut model, &(vec![(1, n)], vec![(1, 1, n)])));
    let store = StateStore::open(options(directory.path(), 10), &model.genesis).unwrap();
    model.catch_up(&store);
    drop(store);
    let store = StateStore::open(options(directory.path(), 2), &model.genesis).unwrap();
    assert_eq!(store.at(3).unwrap_err(), HistoryError { requested: 3, oldest: 4, newest: 6 });
    model.assert_equal(&store.at(4).unwrap(), 4);
}
