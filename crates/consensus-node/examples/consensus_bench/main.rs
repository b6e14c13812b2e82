//! Consensus alone: real consensus processes over loopback, each with an executor that does nothing.
//!
//! ```sh
//! cargo run --release -p consensus-node --example consensus_bench -- --seconds 20 --dir /var/tmp/bench
//! ```
//!
//! The executors live in this process and answer every block VALID with constant hashes; payloads are empty, blocks
//! follow each other without a pause. What is measured is the consensus processes only: heights per second, and the
//! CPU time all of them spend per height. The latter hardly depends on what else the machine does.
//!
//! It is an example and no command of `tandem`, so that no node can be given such an executor by mistake.

mod executor;
mod network;
mod proc;

use clap::Parser;
use network::Network;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Measures consensus processes with an executor that does nothing.
#[derive(Debug, Parser)]
struct Args {
    /// How many validators.
    #[arg(long, default_value_t = 4)]
    validators: usize,
    /// How long to measure, after a warm-up of two seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How often to measure; figures are medians.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Where the consensus directories are made and removed again: a disk or a tmpfs.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Runs `PROGRAM consensusd` instead of the same code built into this program.
    #[arg(long, value_name = "PROGRAM")]
    tandem: Option<PathBuf>,
    /// Worker threads of each process, as for `tandem consensusd`.
    #[arg(long, default_value_t = 2)]
    runtime_threads: usize,
    /// Be a consensus process with this configuration.
    #[arg(long, hide = true)]
    node: Option<PathBuf>,
}

const WARM_UP: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.runtime_threads)
        .enable_all()
        .build()?;
    match &args.node {
        Some(config) => runtime.block_on(network::be_a_node(config)),
        None => runtime.block_on(measure(&args)),
    }
}

async fn measure(args: &Args) -> Result<(), Box<dyn Error>> {
    println!("round  heights/s  CPU ms/height  user  system  fsync/height  messages/height  switches/height");
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let mut network = Network::start(args).await?;
        network.settle(WARM_UP).await?;
        let before = network.sample().await?;
        for second in 1..=args.seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            network.all_alive()?;
            let height = network.sample().await?.height - before.height;
            eprint!("\rround {round}: {second} of {} s, {height} heights", args.seconds);
        }
        eprintln!();
        let figures = network.sample().await?.since(&before);
        println!("{round:>5}  {figures}");
        rounds.push(figures);
        network.stop().await;
    }
    let median = |pick: fn(&network::Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    println!(
        "median {:.1} heights/s, {:.2} CPU ms per height over {} processes",
        median(|figures| figures.heights_per_second),
        median(|figures| figures.cpu_ms()),
        args.validators
    );
    Ok(())
}
