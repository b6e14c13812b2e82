//! Send-to-final latency of single transfers on an idle chain.

use super::sign::transfer;
use super::tally::{Latency, latency, new_histogram};
use super::{Args, RPC_TIMEOUT, fund, learn_terms, progress};
use crate::accounts;
use crate::error::{CliError, CliResult};
use crate::rpc::Rpc;
use alloy_primitives::U256;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Pauses between transfers are spread over this span, so that they fall on every phase of the block interval.
const PAUSE_SPAN_MS: u64 = 1_000;

const FINALITY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

#[derive(Serialize)]
struct Report {
    transfers: u32,
    /// Send to the pool's answer.
    accepted_ms: Latency,
    /// Send to a receipt in a final block.
    final_ms: Latency,
}

/// Sends `count` transfers one after the other.
pub async fn run(args: &Args, count: u32) -> CliResult {
    let mut rpc = Rpc::new(args.rpc[0].clone(), RPC_TIMEOUT);
    let terms = learn_terms(&mut rpc, args).await?;
    let accounts = accounts::derive(&args.mnemonic, fund::DONORS as u32)?;
    fund::fund(&mut rpc, &accounts, 1, count.into(), &terms).await?;
    let first_nonce = fund::nonces(&mut rpc, &accounts[..1]).await?[0];
    let (mut accepted, mut finalized) = (new_histogram(), new_histogram());
    for i in 0..count {
        // A fixed low-discrepancy sequence: the same run every time, every phase covered.
        let pause_ms = u64::from(i) * 618 % PAUSE_SPAN_MS;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let signed =
            transfer(&accounts[0], first_nonce + u64::from(i), accounts[1].address, U256::from(1), &terms);
        let started = Instant::now();
        let sent: Result<Value, _> = rpc.call("eth_sendRawTransaction", json!([signed.raw_hex])).await;
        sent.map_err(|error| CliError::new(error.to_string()))?;
        accepted.saturating_record(started.elapsed().as_micros() as u64);
        loop {
            let receipt: Option<Value> = rpc
                .call("eth_getTransactionReceipt", json!([signed.hash]))
                .await
                .map_err(|error| CliError::new(error.to_string()))?;
            if receipt.is_some() {
                break;
            }
            if started.elapsed() > FINALITY_TIMEOUT {
                return Err(CliError::problem(format!("{} did not become final in 60 s", signed.hash)));
            }
            tokio::time::sleep(POLL).await;
        }
        finalized.saturating_record(started.elapsed().as_micros() as u64);
        progress(&format!("{}/{count}", i + 1));
    }
    progress("");
    let report = Report { transfers: count, accepted_ms: latency(&accepted), final_ms: latency(&finalized) };
    if args.json {
        println!("{}", serde_json::to_string(&report).map_err(CliError::while_trying("write the report"))?);
    } else {
        let Latency { p50, p90, p99, max } = report.final_ms;
        println!(
            "{count} single transfers, send to final: p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"
        );
        println!(
            "send to pool answer: p50 {:.2} ms, p99 {:.2} ms",
            report.accepted_ms.p50, report.accepted_ms.p99
        );
    }
    Ok(())
}
