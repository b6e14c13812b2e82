//! Random blocks against the oracle, as many as you like.
//!
//! ```sh
//! cargo run --release -p workloads --example random_blocks -- --seeds 100000 --jobs 2
//! ```

use clap::Parser;
use std::{process::ExitCode, sync::Mutex, time::Duration, time::Instant};
use workloads::{check, coverage};

/// Checks that builder, oracle, plain revm and replay agree on random blocks.
#[derive(Debug, Parser)]
struct Args {
    /// Seeds to check; each makes a state and two blocks on it.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Seeds that are checked at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let start = Instant::now();
    let shown = Mutex::new(start);
    let blocks = args.seeds * check::BLOCKS_PER_SEED;
    let progress = |report: &check::Report| {
        let Ok(mut shown) = shown.lock() else { return };
        if shown.elapsed() > Duration::from_secs(1) {
            *shown = Instant::now();
            let rate = report.blocks as f64 / start.elapsed().as_secs_f64();
            let left = (blocks - report.blocks) as f64 / rate;
            let done = 30 * report.blocks / blocks.max(1);
            let bar: String = (0..30).map(|n| if n < done { '#' } else { '.' }).collect();
            eprint!("\r[{bar}] {} of {blocks} blocks, {rate:.0}/s, {left:.0} s left   ", report.blocks);
        }
    };
    match check::many(args.from..args.from + args.seeds, args.jobs.max(1), progress) {
        Ok(report) => {
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "\r{} blocks, {} transactions, {} payloads in {seconds:.0} s: no difference{:30}",
                report.blocks, report.transactions, report.payloads, ""
            );
            println!("{}", report.coverage);
            let missing =
                [coverage::REQUIRED, check::REQUIRED].map(|required| report.coverage.missing(required));
            println!("never exercised: {:?}", missing.concat());
            ExitCode::SUCCESS
        }
        Err(difference) => {
            eprintln!("\r{difference}");
            ExitCode::FAILURE
        }
    }
}
