//! Random blocks: the builder, the oracle and plain revm agree, and the blocks exercise what they are for.

use rayon::prelude::*;
use workloads::{check, coverage};

/// Seeds of the usual run.
const SEEDS: u64 = 1_500;

#[test]
fn random_blocks_give_the_same_bytes_whoever_runs_them() {
    let report = (0..SEEDS)
        .into_par_iter()
        .map(|seed| check::seed(seed).unwrap_or_else(|difference| panic!("{difference}")))
        .reduce(check::Report::default, |mut sum, report| {
            sum += &report;
            sum
        });
    println!("{} blocks, {} transactions: {}", report.blocks, report.transactions, report.coverage);
    assert_eq!(report.blocks, SEEDS * check::BLOCKS_PER_SEED);
    let missing = report.coverage.missing(coverage::REQUIRED);
    assert!(missing.is_empty(), "never exercised: {missing:?}");
    for mistake in ["call: StackUnderflow", "call: InvalidJump", "create: StackUnderflow"] {
        assert_eq!(report.coverage.hits(mistake), 0, "{mistake}: the generator writes bad code");
    }
}
