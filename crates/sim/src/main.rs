//! `cargo run --release -p sim -- --seed N`: one run, or `--seeds COUNT` of them.

use clap::Parser;
use sim::{Plan, run};
use std::process::ExitCode;

/// Runs simulated networks. Exit code 0 when every property held, 1 with the failing seed and its event log.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  sim --seed 42            one run, its plan and report\n  sim --seeds 2000         seeds 0 to 1999\n  sim --seed 42 --log      one run with its event log"
)]
struct Args {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, counting up from the first.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print the event log of a failing run in full.
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (mut heights, mut crashes, mut slowest) = (0, 0, (0, 0));
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let plan = Plan::from_seed(seed);
        match run(&plan) {
            Ok(report) => {
                heights += report.height.get();
                crashes += report.crashes;
                slowest = slowest.max((report.recovery_ms, seed));
                if args.seeds == 1 {
                    println!("{plan:#?}\n{report:#?}");
                } else if seed % 100 == 99 {
                    println!("seed {seed}: {heights} heights, {crashes} crashes so far");
                }
            }
            Err(failure) => {
                let lines = if args.log { failure.log.len() } else { 60 };
                let tail = failure.log.len().saturating_sub(lines);
                failure.log[tail..].iter().for_each(|line| eprintln!("{line}"));
                eprintln!("{plan:?}");
                eprintln!("seed {seed} FAILED: {}", failure.what);
                eprintln!("again: cargo run --release -p sim -- --seed {seed} --log");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{} seeds passed: {heights} heights finalized, {crashes} crashes; slowest recovery {} ms (seed {})",
        args.seeds, slowest.0, slowest.1
    );
    ExitCode::SUCCESS
}
