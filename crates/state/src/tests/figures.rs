//! Figures, printed: `cargo test --release -p state -- --ignored --nocapture figures`.

#![allow(clippy::disallowed_methods)] // It measures: here the clock is the point.

use super::*;
use std::time::{Duration, Instant};

#[test]
#[ignore = "prints figures; run alone on an idle machine"]
fn figures_of_committing_and_reading_blocks_of_5000_transfers() {
    const COUNT: u64 = 5_000;
    const BLOCKS: u64 = 20;
    let directory = tempfile::tempdir().unwrap();
    let mut model = Model::new(COUNT);
    let store_options = StateOptions { history_blocks: 1024, ..StateOptions::new(directory.path()) };
    let store = StateStore::open(store_options.clone(), &model.genesis).unwrap();
    let mut commits = Vec::new();
    for block in 0..BLOCKS {
        let transfers: Vec<_> = model
            .keys
            .iter()
            .map(|key| {
                let to = Address::from_word(crypto::hash(
                    &[key.address().as_slice(), &block.to_le_bytes()].concat(),
                ));
                key.transfer(CHAIN_ID, block, to, U256::from(1))
            })
            .collect();
        model.build(transfers);
        model.states.remove(0);
        let start = Instant::now();
        model.commit_to(&store, block + 1).unwrap();
        commits.push(start.elapsed());
    }
    commits.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    println!(
        "durable commit of {COUNT} transfers: p50 {:.1} ms, max {:.1} ms",
        ms(commits[10]),
        ms(commits[19])
    );

    let addresses: Vec<_> = model.state().accounts().map(|(address, _)| *address).collect();
    let read = |name: &str, view: &StateSnapshot| {
        let start = Instant::now();
        addresses.iter().for_each(|address| assert!(view.account(*address).is_ok()));
        let each = start.elapsed().as_secs_f64() * 1e6 / addresses.len() as f64;
        println!("{name:28} {each:6.2} µs each of {}", addresses.len());
    };
    read("account reads, cached", &store.view());
    read("account reads, 10 blocks ago", &store.at(BLOCKS - 10).unwrap());
    drop(store);
    let start = Instant::now();
    let store = StateStore::open(store_options, &model.genesis).unwrap();
    println!("reopen                       {:6.1} ms", ms(start.elapsed()));
    read("account reads, cold", &store.view());
    read("account reads, warm", &store.view());
    let start = Instant::now();
    store.verify().unwrap();
    println!("verify {} accounts       {:6.1} ms", addresses.len(), ms(start.elapsed()));
    let start = Instant::now();
    let block = store.block(BLOCKS).unwrap().unwrap();
    println!("read a whole block           {:6.1} ms", ms(start.elapsed()));
    let start = Instant::now();
    let location = store.locate(&block.transactions[17].hash()).unwrap().unwrap();
    store.receipt(location).unwrap().unwrap();
    println!("one receipt by hash          {:6.3} ms", ms(start.elapsed()));
}
