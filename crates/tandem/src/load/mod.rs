//! `tandem load`: a load generator for any Ethereum JSON-RPC node, so that chains are measured by one tool.
//!
//! Everything is signed ahead. The generator uses one thread while it sends, plain `eth_` methods only, and says how
//! much CPU it took itself.

mod follow;
mod fund;
mod idle;
mod send;
pub mod sign;
mod tally;

use crate::accounts::{self, Account, DEV_MNEMONIC};
use crate::error::{CliError, CliResult};
use crate::http::Url;
use crate::procfs;
use crate::rpc::{Rpc, parse_quantity};
use alloy_primitives::{Address, keccak256};
use follow::Follower;
use send::Work;
use serde::Deserialize;
use serde_json::json;
use sign::{Plan, SignedTransfer, Terms};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tally::{Summary, Tally};

/// Transactions of one run: all are held in memory, about 500 bytes each.
const TXS_MAX: u64 = 5_000_000;

const GWEI: u128 = 1_000_000_000;

const RPC_TIMEOUT: Duration = Duration::from_secs(30);

/// Arguments of `tandem load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// JSON-RPC addresses, separated by commas; senders are spread over them, finality is followed on the first.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:8545")]
    rpc: Vec<Url>,
    /// Transactions to send; 60000 unless --rate and --duration say how many.
    #[arg(long)]
    txs: Option<u64>,
    /// Connections, one sender each.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    /// Sending accounts, derived from the mnemonic and funded from its first ten; as many as connections by default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    accounts: Option<u32>,
    /// Mnemonic of the sending accounts.
    #[arg(long, default_value = DEV_MNEMONIC)]
    mnemonic: String,
    /// What the transactions do.
    #[arg(long, value_enum, default_value_t = Mode::Transfer)]
    mode: Mode,
    /// Different receivers of the transfers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    receivers: u32,
    /// Transactions per second over all connections; as many as the nodes take by default.
    #[arg(long)]
    rate: Option<f64>,
    /// Stop sending after this many seconds.
    #[arg(long)]
    duration: Option<f64>,
    /// Transactions per request (JSON-RPC batch).
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: u32,
    /// Highest total fee per gas in gwei; by default 100 times the current base fee.
    #[arg(long)]
    max_fee_gwei: Option<u64>,
    /// Milliseconds between two looks for new blocks.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    poll_ms: u64,
    /// Seconds without progress after which missing transactions are reported as lost.
    #[arg(long, default_value_t = 60)]
    settle: u64,
    /// Instead of a load: send this many single transfers one by one and report the time to finality of each.
    #[arg(long, value_name = "N")]
    idle_latency: Option<u32>,
    /// Print the report as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What transactions do.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Mode {
    /// Move 1 wei to one of many receivers.
    Transfer,
}

/// Runs the load.
pub fn run(args: &Args) -> CliResult {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::while_trying("start the runtime"))?;
    match args.idle_latency {
        Some(count) => runtime.block_on(idle::run(args, count)),
        None => runtime.block_on(run_load(args)),
    }
}

async fn run_load(args: &Args) -> CliResult {
    let Mode::Transfer = args.mode;
    let txs = count(args)?;
    let mut rpc = Rpc::new(args.rpc[0].clone(), RPC_TIMEOUT);
    let terms = learn_terms(&mut rpc, args).await?;
    let connections = (u64::from(args.connections)).min(txs) as usize;
    let account_count = args.accounts.map_or(connections, |count| count as usize).min(txs as usize);
    let accounts = accounts::derive(&args.mnemonic, account_count.max(fund::DONORS) as u32)?;
    let per_account = txs.div_ceil(account_count as u64);
    fund::fund(&mut rpc, &accounts, account_count, per_account, &terms).await?;
    let nonces = fund::nonces(&mut rpc, &accounts[..account_count]).await?;
    let plans = plan(txs, &nonces, args.receivers);
    let transfers = sign_with_progress(&accounts, &plans, &terms);

    let follower = Follower::new(args.rpc.clone(), Duration::from_millis(args.poll_ms))
        .await
        .map_err(|error| CliError::new(error.to_string()))?;
    let cpu_before = procfs::own_cpu_seconds();
    let tally = Tally::new(transfers.iter().map(|transfer| transfer.hash).collect::<Vec<_>>().into_iter());
    let deadline = args.duration.map(|s| tokio::time::Instant::now() + Duration::from_secs_f64(s));
    let work = Arc::new(Work {
        transfers,
        tally,
        urls: args.rpc.clone(),
        batch: args.batch as usize,
        rate: args.rate,
        deadline,
        scheduled: AtomicU64::new(0),
    });
    let send_time =
        drive(&work, follower, queues(&plans, connections), Duration::from_secs(args.settle)).await;
    let summary = work.tally.summary(send_time, procfs::own_cpu_seconds() - cpu_before);
    print_report(args, &summary)?;
    verdict(&summary)
}

/// Runs senders, follower and live line to their end; returns how long sending took.
async fn drive(
    work: &Arc<Work>,
    follower: Follower,
    queues: Vec<Vec<(usize, u32)>>,
    settle: Duration,
) -> Duration {
    let senders: Vec<_> = queues
        .into_iter()
        .enumerate()
        .map(|(number, queue)| tokio::spawn(send::run(Arc::clone(work), queue, number)))
        .collect();
    let live = tokio::spawn(show_live(Arc::clone(work)));
    let sending = async {
        for sender in senders {
            // A sender that panicked counts as done; what it did not send shows in the report.
            let _ = sender.await;
        }
        work.tally.senders_done.store(true, Ordering::Release);
        work.tally.start().elapsed()
    };
    let (send_time, ()) = tokio::join!(sending, follower.run(&work.tally, settle));
    live.abort();
    send_time
}

/// How many transactions to sign.
fn count(args: &Args) -> CliResult<u64> {
    if args.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
        return Err(CliError::new("--rate must be above 0"));
    }
    if args.duration.is_some_and(|seconds| !(seconds.is_finite() && seconds > 0.0 && seconds < 1e6)) {
        return Err(CliError::new("--duration must be above 0 and below 1000000 seconds"));
    }
    let txs = match (args.txs, args.rate, args.duration) {
        (Some(txs), ..) => txs,
        (None, Some(rate), Some(seconds)) => (rate * seconds).ceil() as u64,
        (None, ..) => 60_000,
    };
    if !(1..=TXS_MAX).contains(&txs) {
        return Err(CliError::new(format!("{txs} transactions asked for, must be from 1 to {TXS_MAX}")));
    }
    Ok(txs)
}

/// The part of a block header that prices depend on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BaseFee {
    base_fee_per_gas: Option<String>,
}

/// Chain id and prices, from the node.
async fn learn_terms(rpc: &mut Rpc, args: &Args) -> CliResult<Terms> {
    let failed = |error: crate::rpc::RpcError| {
        CliError::new(format!(
            "{error}. Is a node running there? Start one with `tandem devnet`, or pass --rpc"
        ))
    };
    let chain_id = rpc.quantity("eth_chainId", json!([])).await.map_err(failed)?;
    let latest: BaseFee = rpc.call("eth_getBlockByNumber", json!(["latest", false])).await.map_err(failed)?;
    let base_fee = latest.base_fee_per_gas.as_deref().and_then(parse_quantity).unwrap_or(0);
    let tip = match rpc.quantity("eth_maxPriorityFeePerGas", json!([])).await {
        Ok(tip) => tip,
        Err(_) => GWEI,
    };
    let max_fee = match args.max_fee_gwei {
        Some(gwei) => u128::from(gwei) * GWEI,
        None => base_fee.saturating_mul(100).saturating_add(tip),
    };
    let chain_id =
        u64::try_from(chain_id).map_err(|_| CliError::new("the node's chain id exceeds 64 bits"))?;
    Ok(Terms { chain_id, max_fee, tip: tip.min(max_fee) })
}

/// Spreads the transactions over the accounts in turns.
fn plan(txs: u64, nonces: &[u64], receivers: u32) -> Vec<Plan> {
    let receivers: Vec<Address> = (0..receivers.min(txs as u32))
        .map(|i| Address::from_slice(&keccak256(format!("tandem load receiver {i}"))[12..]))
        .collect();
    let accounts = nonces.len() as u64;
    (0..txs)
        .map(|i| {
            let from = (i % accounts) as usize;
            Plan { from, nonce: nonces[from] + i / accounts, to: receivers[i as usize % receivers.len()] }
        })
        .collect()
}

/// The transactions of each connection, as (account, transaction): an account belongs to one connection.
fn queues(plans: &[Plan], connections: usize) -> Vec<Vec<(usize, u32)>> {
    let mut queues = vec![Vec::new(); connections];
    for (transaction, plan) in (0u32..).zip(plans) {
        queues[plan.from % connections].push((plan.from, transaction));
    }
    queues
}

fn sign_with_progress(accounts: &[Account], plans: &[Plan], terms: &Terms) -> Vec<SignedTransfer> {
    let done = AtomicU64::new(0);
    let total = plans.len() as u64;
    let started = Instant::now();
    let transfers = std::thread::scope(|scope| {
        let signing = scope.spawn(|| sign::sign_all(accounts, plans, terms, &done));
        while !signing.is_finished() {
            let signed = done.load(Ordering::Relaxed);
            let filled = (signed * 30 / total.max(1)) as usize;
            progress(&format!("signing [{:<30}] {signed}/{total}", "#".repeat(filled)));
            std::thread::sleep(Duration::from_millis(100));
        }
        signing.join().expect("signing does not panic")
    });
    end_progress();
    eprintln!("signed {total} transactions in {:.1} s", started.elapsed().as_secs_f64());
    transfers
}

/// One line per second while the load runs.
async fn show_live(work: Arc<Work>) {
    let tally = &work.tally;
    let (mut accepted_before, mut final_before, mut at) = (0, 0, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let seconds = at.elapsed().as_secs_f64();
        let (accepted, finalized) = (tally.accepted.load(Ordering::Relaxed), tally.finalized());
        let rate = |now: u64, before: u64| (now.saturating_sub(before)) as f64 / seconds;
        let line = format!(
            "{:>5.0} s  accepted {accepted} ({:.0}/s)  final {finalized} ({:.0}/s)  waiting {}  refused {}  retries {}",
            tally.start().elapsed().as_secs_f64(),
            rate(accepted, accepted_before),
            rate(finalized, final_before),
            accepted.saturating_sub(finalized),
            tally.refused.load(Ordering::Relaxed),
            tally.retries.load(Ordering::Relaxed),
        );
        (accepted_before, final_before, at) = (accepted, finalized, Instant::now());
        progress(&line);
    }
}

/// Shows a line in place of the previous one; silent where nobody watches.
fn progress(line: &str) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // The terminal may be gone; progress is not worth failing for.
        let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
    }
}

fn end_progress() {
    progress("");
}

fn print_report(args: &Args, summary: &Summary) -> CliResult {
    end_progress();
    if args.json {
        let text = serde_json::to_string(summary).map_err(CliError::while_trying("write the report"))?;
        println!("{text}");
        return Ok(());
    }
    println!(
        "sent        {} in {:.2} s over {} connections",
        summary.sent, summary.send_seconds, args.connections
    );
    println!("accepted    {}", summary.accepted);
    for (reason, count) in &summary.refused {
        println!("refused     {count}: {reason}");
    }
    println!("final       {} in {} blocks", summary.r#final, summary.blocks);
    println!(
        "final tx/s  {:.0} over {:.2} s, first send to last final",
        summary.final_per_second, summary.seconds
    );
    let latency = &summary.latency_ms;
    println!(
        "latency     p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms, send to seen final",
        latency.p50, latency.p90, latency.p99, latency.max
    );
    println!(
        "client      {:.1} CPU s ({:.0} us per transaction), {} retries, {} reconnects",
        summary.client_cpu_seconds,
        summary.client_cpu_seconds * 1e6 / summary.sent.max(1) as f64,
        summary.retries,
        summary.reconnects
    );
    Ok(())
}

/// A load succeeds when everything that was accepted became final, once.
fn verdict(summary: &Summary) -> CliResult {
    if summary.duplicates > 0 {
        return Err(CliError::problem(format!(
            "{} transactions are in two final blocks",
            summary.duplicates
        )));
    }
    if summary.accepted == 0 {
        return Err(CliError::problem("no transaction was accepted"));
    }
    match summary.accepted.saturating_sub(summary.r#final) {
        0 => Ok(()),
        missing => {
            Err(CliError::problem(format!("{missing} accepted transactions did not become final in time")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_rise_by_one_per_account_and_each_account_has_one_connection() {
        let plans = plan(100, &[5, 0, 7], 10);
        let queues = queues(&plans, 2);
        for account in 0..3 {
            let nonces: Vec<u64> = plans.iter().filter(|p| p.from == account).map(|p| p.nonce).collect();
            assert!(nonces.windows(2).all(|pair| pair[1] == pair[0] + 1));
            assert_eq!(queues.iter().filter(|q| q.iter().any(|(from, _)| *from == account)).count(), 1);
        }
        assert_eq!(queues.iter().map(Vec::len).sum::<usize>(), 100);
    }
}
