//! `cargo run --release -p sim -- --seed N`: one run, or `--seeds COUNT` of them; `twins` goes through scenarios.
#![allow(
    clippy::disallowed_methods,
    reason = "progress and limits of a run, not the run, are told by the clock"
)]

use clap::{Args as Arguments, Parser, Subcommand};
use sim::twins::{Across, Bounds, Scenario, Space, Tally, describe};
use sim::{Coverage, Plan, run, run_logged};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs simulated networks. Exit code 0 when every property held, 1 with the failing seed and its event log.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  sim --seed 42                  one run, its plan and report\n  sim --seed 42 --log            one run with its event log, one line per event\n  sim --seeds 2000 --jobs 2      seeds 0 to 1999 on two cores\n  sim --seed 10000 --minutes 60  an hour of seeds from 10000 on\n  sim --seeds 200 --journals     on real journals in files instead of simulated disks"
)]
struct Args {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, counting up from the first.
    #[arg(long, default_value_t = 1, conflicts_with_all = ["minutes", "forever"])]
    seeds: u64,
    /// Run new seeds for this many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Run new seeds until one fails.
    #[arg(long, conflicts_with = "minutes")]
    forever: bool,
    /// Networks run at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// Consensus writes to real journals in files, with faults put into their bytes.
    #[arg(long)]
    journals: bool,
    /// Print the event log in full.
    #[arg(long)]
    log: bool,
    #[command(subcommand)]
    mode: Option<Mode>,
}

#[derive(Subcommand)]
enum Mode {
    /// Goes through all leaders and networks of the first views of four validators, one of which runs twice.
    Twins(Twins),
}

/// Exit code 0 when every property held in every scenario, 1 with the scenario, its number and its log.
#[derive(Arguments)]
#[command(
    after_help = "Examples:\n  sim twins --rounds 2                       all of two views\n  sim twins --rounds 3 --phases --sample 50000   random ones of three views, votes on networks of their own\n  sim twins --rounds 3 --phases --only 4711 --late 300 --log"
)]
struct Twins {
    /// Views with a leader and a network of their own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=5))]
    rounds: u8,
    /// Groups that a network falls into at most.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=5))]
    groups: u8,
    /// Proposals and votes of one view meet different networks.
    #[arg(long)]
    phases: bool,
    /// That many random scenarios instead of all.
    #[arg(long)]
    sample: Option<u64>,
    /// One scenario by number.
    #[arg(long)]
    only: Option<u64>,
    /// Only with messages across groups that many milliseconds late (0: lost).
    #[arg(long)]
    late: Option<u64>,
    /// Scenarios run at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// Print the event log of the one scenario.
    #[arg(long)]
    log: bool,
}

/// Lines of the log that a failing run among many shows.
const TAIL_LINES: usize = 60;
/// Pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// What all runs came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    heights: u64,
    crashes: u64,
    /// Slowest recovery and its seed.
    slowest: (u64, u64),
    coverage: Coverage,
    failed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Mode::Twins(args)) = &args.mode {
        return twins(args);
    }
    let alone = args.seeds == 1 && args.minutes.is_none() && !args.forever;
    if alone { one(&args) } else { many(&args) }
}

fn plan(args: &Args, seed: u64) -> Plan {
    Plan { journals: args.journals, ..Plan::from_seed(seed) }
}

fn again(args: &Args, seed: u64) -> String {
    let journals = if args.journals { " --journals" } else { "" };
    format!("again: cargo run --release -p sim -- --seed {seed}{journals} --log")
}

fn one(args: &Args) -> ExitCode {
    let plan = plan(args, args.seed);
    let (result, log) = run_logged(&plan);
    if args.log {
        log.iter().for_each(|line| println!("{line}"));
    }
    println!("{plan:#?}");
    match result {
        Ok(report) => {
            println!("{report:#?}\nseed {} passed", args.seed);
            ExitCode::SUCCESS
        }
        Err(what) => {
            if !args.log {
                print_tail(&log);
            }
            eprintln!("seed {} FAILED: {what}\n{}", args.seed, again(args, args.seed));
            ExitCode::FAILURE
        }
    }
}

fn print_tail(log: &[String]) {
    log[log.len().saturating_sub(TAIL_LINES)..].iter().for_each(|line| eprintln!("{line}"));
}

fn many(args: &Args) -> ExitCode {
    let started = Instant::now();
    let ends = args.minutes.map(|minutes| started + Duration::from_secs(60 * minutes));
    let count = if args.forever || ends.is_some() { u64::MAX } else { args.seeds };
    let (next, sum, told) = (AtomicU64::new(0), Mutex::new(Sum::default()), Mutex::new(started));
    let work = || loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        let late = ends.is_some_and(|ends| Instant::now() >= ends);
        if turn >= count || late || sum.lock().is_ok_and(|sum| sum.failed.is_some()) {
            return;
        }
        let seed = args.seed.saturating_add(turn);
        let outcome = run(&plan(args, seed));
        let Ok(mut sum) = sum.lock() else { return };
        match outcome {
            Ok(report) => sum.add(seed, &report),
            Err(failure) => {
                print_tail(&failure.log);
                eprintln!(
                    "{:?}\nseed {seed} FAILED: {}\n{}",
                    plan(args, seed),
                    failure.what,
                    again(args, seed)
                );
                sum.failed = Some(seed);
            }
        }
        if let Ok(mut told) = told.lock()
            && told.elapsed() >= PROGRESS
        {
            *told = Instant::now();
            println!("{:>6} s: {}", started.elapsed().as_secs(), sum.line());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(work);
        }
    });
    let Ok(sum) = sum.into_inner() else { return ExitCode::FAILURE };
    println!("exercised: {}", sum.coverage);
    println!("{} in {} s", sum.line(), started.elapsed().as_secs());
    if sum.failed.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn twins(args: &Twins) -> ExitCode {
    let started = Instant::now();
    let bounds = Bounds { rounds: args.rounds.into(), groups: args.groups, phases: args.phases };
    let space = Space::new(bounds);
    let across: Vec<Across> = match args.late {
        Some(0) => vec![Across::Lost],
        Some(late) => vec![Across::Late(late)],
        None => sim::twins::ACROSS.to_vec(),
    };
    if let Some(number) = args.only {
        return one_scenario(args, &space, across.iter().map(|across| (number, *across)).collect());
    }
    let count = args.sample.unwrap_or(space.len());
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let (sum, told) = (Mutex::new(Tally::default()), Mutex::new(started));
    let work = || loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        if turn >= count || failed.load(Ordering::Relaxed) != u64::MAX {
            return;
        }
        let number = if args.sample.is_some() { space.sample(turn) } else { turn };
        let rounds = space.rounds(number);
        if !space.is_first(&rounds) && args.sample.is_none() {
            continue;
        }
        for across in across.iter().copied() {
            match (space.run(&Scenario { rounds: rounds.clone(), across }), sum.lock()) {
                (Ok(report), Ok(mut sum)) => sum.add(&report),
                (Err(what), _) => {
                    eprintln!("scenario {number} FAILED: {what}");
                    failed.store(number, Ordering::Relaxed);
                    return;
                }
                (Ok(_), Err(_)) => return,
            }
        }
        if let (Ok(mut told), Ok(sum)) = (told.lock(), sum.lock())
            && told.elapsed() >= PROGRESS
        {
            *told = Instant::now();
            println!("{:>6} s: {} scenarios, {turn} of {count}", started.elapsed().as_secs(), sum.scenarios);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(work);
        }
    });
    let Ok(Tally { scenarios, guilty, slowest_ms, coverage, .. }) = sum.into_inner() else {
        return ExitCode::FAILURE;
    };
    println!("exercised: {coverage}");
    println!(
        "{scenarios} scenarios of {bounds:?} passed ({} with renamings, before messages across groups), {guilty} with slashable twins, slowest recovery {slowest_ms} ms, in {} s",
        space.len(),
        started.elapsed().as_secs()
    );
    let failed = failed.into_inner();
    if failed != u64::MAX {
        let phases = if args.phases { " --phases" } else { "" };
        let (rounds, groups) = (args.rounds, args.groups);
        eprintln!("again: sim twins --rounds {rounds} --groups {groups}{phases} --only {failed} --log");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn one_scenario(args: &Twins, space: &Space, runs: Vec<(u64, Across)>) -> ExitCode {
    for (number, across) in runs {
        let scenario = Scenario { rounds: space.rounds(number), across };
        let (result, log) = space.run_logged(&scenario);
        println!("{}", describe(&scenario));
        if args.log {
            log.iter().for_each(|line| println!("{line}"));
        }
        match result {
            Ok(report) => println!("{report:#?}"),
            Err(what) => {
                eprintln!("scenario {number} FAILED: {what}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

impl Sum {
    fn add(&mut self, seed: u64, report: &sim::Report) {
        self.seeds += 1;
        self.heights += report.height.get();
        self.crashes += report.crashes;
        self.slowest = self.slowest.max((report.recovery_ms, seed));
        self.coverage.merge(&report.coverage);
    }

    fn line(&self) -> String {
        let Self { seeds, heights, crashes, slowest: (slowest, seed), .. } = self;
        format!(
            "{seeds} seeds passed, {heights} heights final, {crashes} crashes, slowest recovery {slowest} ms (seed {seed})"
        )
    }
}
