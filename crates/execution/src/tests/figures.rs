//! Figures, printed: `cargo test --release -p execution -- --ignored --nocapture figures`.

#![allow(clippy::disallowed_methods)] // It measures: here the clock is the point.

use super::*;
use std::time::Instant;

#[test]
#[ignore = "prints figures; run alone on an idle machine"]
fn figures_of_a_block_of_5000_transfers() {
    const COUNT: u64 = 5_000;
    let chain = Chain::with(COUNT, |genesis| genesis.gas_limit = 1_000_000_000);
    let transfers: Vec<_> = chain
        .keys
        .iter()
        .map(|key| {
            key.transfer(
                CHAIN_ID,
                0,
                Address::from_word(crypto::hash(key.address().as_slice())),
                U256::from(1),
            )
        })
        .collect();
    let env = chain.env();
    let per = |name: &str, start: Instant| {
        let spent = start.elapsed();
        println!(
            "{name:28} {:7.2} ms, {:6.2} µs each",
            spent.as_secs_f64() * 1e3,
            spent.as_secs_f64() * 1e6 / COUNT as f64
        );
    };
    for _ in 0..3 {
        let start = Instant::now();
        let limits = LIMITS;
        let built =
            build(&chain.state, &chain.rules, &env, &chain.lthash, limits, &[], transfers.clone(), || false)
                .unwrap();
        per("build, all", start);
        assert_eq!(built.transactions.len() as u64, COUNT);

        let start = Instant::now();
        let payload = Payload::decode(&built.payload).unwrap();
        per("decode payload", start);
        let start = Instant::now();
        let recovered = recover_payload(&payload, |_| None).unwrap();
        per("recover senders, all cores", start);
        let known: std::collections::HashMap<_, _> =
            transfers.iter().map(|tx| (tx.hash(), tx.clone())).collect();
        let start = Instant::now();
        recover_payload(&payload, |hash| known.get(hash).cloned()).unwrap();
        per("recover senders, known", start);

        let start = Instant::now();
        let outcome = execute(&chain.state, &chain.rules, &env, &chain.lthash, &recovered, &[]).unwrap();
        per("execute, all", start);
        let start = Instant::now();
        let mut run = crate::run::BlockRun::new(&chain.state, &chain.rules, &env, &[]).unwrap();
        recovered.iter().for_each(|tx| assert!(run.transact(tx).is_ok()));
        per("execute, EVM only", start);
        let start = Instant::now();
        let closed = run.close();
        per("diff", start);
        drop(closed);
        let start = Instant::now();
        let lthash = chain.lthash.apply(&outcome.diff);
        per(&format!("lthash of {} changes", outcome.diff.len()), start);
        assert_eq!(lthash, outcome.lthash);
        let start = Instant::now();
        receipts_hash(&outcome.receipts);
        per("receipts hash", start);
        let start = Instant::now();
        Payload::commitment(&built.payload);
        per("payload commitment", start);
        println!();
    }
}
