//! Random blocks: builder, oracle, plain revm and replay on any number of threads agree on right payloads and on wrong
//! ones, and the blocks exercise what they are for.

use workloads::{check, coverage};

/// Seeds of the usual run.
const SEEDS: u64 = 2_000;

#[test]
fn random_blocks_give_the_same_bytes_whoever_runs_them() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let report = check::many(0..SEEDS, jobs, |_| {}).unwrap_or_else(|difference| panic!("{difference}"));
    println!(
        "{} blocks, {} transactions, {} payloads: {}",
        report.blocks, report.transactions, report.payloads, report.coverage
    );
    assert_eq!(report.blocks, SEEDS * check::BLOCKS_PER_SEED);
    for required in [coverage::REQUIRED, check::REQUIRED] {
        let missing = report.coverage.missing(required);
        assert!(missing.is_empty(), "never exercised: {missing:?}");
    }
    for mistake in
        ["call: StackUnderflow", "call: InvalidJump", "create: StackUnderflow", "create: InvalidJump"]
    {
        assert_eq!(report.coverage.hits(mistake), 0, "{mistake}: the generator writes bad code");
    }
}
