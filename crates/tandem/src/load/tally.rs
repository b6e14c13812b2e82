//! What happened to every transaction of a run.

use alloy_primitives::B256;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Different refusal texts kept; further ones are counted together.
const REASONS_MAX: usize = 32;

/// Highest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Counters shared by the senders, the follower and the live line.
pub struct Tally {
    start: Instant,
    index: HashMap<B256, u32>,
    /// Microseconds from `start` to the first attempt to send; 0 before it.
    sent_us: Vec<AtomicU64>,
    pub sent: AtomicU64,
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub retries: AtomicU64,
    pub reconnects: AtomicU64,
    /// Set when no sender has anything left.
    pub senders_done: AtomicBool,
    reasons: Mutex<BTreeMap<String, u64>>,
    finality: Mutex<Finality>,
}

/// What the follower saw.
struct Finality {
    seen: Vec<bool>,
    count: u64,
    duplicates: u64,
    blocks: u64,
    last: Option<Instant>,
    latency_us: Histogram<u64>,
}

/// Snapshot for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Transactions handed to a node at least once.
    pub sent: u64,
    /// Accepted by a pool.
    pub accepted: u64,
    /// Given up, by the node's reason.
    pub refused: BTreeMap<String, u64>,
    /// Seen in a final block.
    pub r#final: u64,
    /// Seen in two final blocks: must be 0.
    pub duplicates: u64,
    /// Final blocks that held any of them.
    pub blocks: u64,
    /// Attempts repeated because a pool was full or a node was away.
    pub retries: u64,
    /// Connections opened again.
    pub reconnects: u64,
    /// Seconds from the first send to the last acceptance.
    pub send_seconds: f64,
    /// Seconds from the first send to the last final transaction.
    pub seconds: f64,
    /// Final transactions per second over `seconds`.
    pub final_per_second: f64,
    /// Send to seen final.
    pub latency_ms: Latency,
    /// CPU seconds of the load generator itself while it sent and followed.
    pub client_cpu_seconds: f64,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// Nine in ten are faster.
    pub p90: f64,
    /// All but one in a hundred are faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Tally {
    /// Nothing sent yet; the clock starts.
    pub fn new(hashes: impl ExactSizeIterator<Item = B256>) -> Self {
        let count = hashes.len();
        Self {
            start: Instant::now(),
            index: (0u32..).zip(hashes).map(|(i, hash)| (hash, i)).collect(),
            sent_us: std::iter::repeat_with(AtomicU64::default).take(count).collect(),
            sent: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            senders_done: AtomicBool::new(false),
            reasons: Mutex::default(),
            finality: Mutex::new(Finality {
                seen: vec![false; count],
                count: 0,
                duplicates: 0,
                blocks: 0,
                last: None,
                latency_us: new_histogram(),
            }),
        }
    }

    pub fn start(&self) -> Instant {
        self.start
    }

    /// Notes the first attempt to send a transaction.
    pub fn sending(&self, transaction: u32) {
        let now = self.start.elapsed().as_micros().max(1) as u64;
        let slot = &self.sent_us[transaction as usize];
        if slot.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes transactions that were given up.
    pub fn refuse(&self, reason: &str, count: u64) {
        self.refused.fetch_add(count, Ordering::Relaxed);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let room = reasons.len() < REASONS_MAX || reasons.contains_key(reason);
        *reasons.entry(if room { reason.to_owned() } else { "other reasons".into() }).or_default() += count;
    }

    /// Notes a final block's transactions.
    pub fn block(&self, hashes: &[B256]) {
        let now = Instant::now();
        let now_us = now.duration_since(self.start).as_micros() as u64;
        let mut finality = self.finality.lock().unwrap_or_else(PoisonError::into_inner);
        let before = finality.count;
        for index in hashes.iter().filter_map(|hash| self.index.get(hash)) {
            if std::mem::replace(&mut finality.seen[*index as usize], true) {
                finality.duplicates += 1;
                continue;
            }
            finality.count += 1;
            let sent_us = self.sent_us[*index as usize].load(Ordering::Relaxed);
            finality.latency_us.saturating_record(now_us.saturating_sub(sent_us));
        }
        if finality.count > before {
            finality.blocks += 1;
            finality.last = Some(now);
        }
    }

    /// Transactions seen final so far.
    pub fn finalized(&self) -> u64 {
        self.finality.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Everything so far.
    pub fn summary(&self, send_time: Duration, client_cpu_seconds: f64) -> Summary {
        let finality = self.finality.lock().unwrap_or_else(PoisonError::into_inner);
        let first_us =
            self.sent_us.iter().map(|us| us.load(Ordering::Relaxed)).filter(|us| *us > 0).min().unwrap_or(0);
        let last_us =
            finality.last.map_or(first_us, |last| last.duration_since(self.start).as_micros() as u64);
        let seconds = last_us.saturating_sub(first_us) as f64 / 1e6;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Summary {
            sent: count(&self.sent),
            accepted: count(&self.accepted),
            refused: self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            r#final: finality.count,
            duplicates: finality.duplicates,
            blocks: finality.blocks,
            retries: count(&self.retries),
            reconnects: count(&self.reconnects),
            send_seconds: send_time.as_secs_f64(),
            seconds,
            final_per_second: if seconds > 0.0 { finality.count as f64 / seconds } else { 0.0 },
            latency_ms: latency(&finality.latency_us),
            client_cpu_seconds,
        }
    }
}

/// An empty latency histogram in microseconds with three significant digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are valid")
}

/// Percentiles of a histogram in microseconds.
pub fn latency(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: histogram.max() as f64 / 1e3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transaction_counts_once_and_foreign_ones_never() {
        let hashes: Vec<B256> = (0..3).map(B256::repeat_byte).collect();
        let tally = Tally::new(hashes.iter().copied());
        tally.sending(0);
        tally.sending(0);
        tally.sending(1);
        tally.block(&[hashes[0], B256::repeat_byte(99)]);
        tally.block(&[hashes[0], hashes[1]]);
        tally.block(&[B256::repeat_byte(98)]);
        tally.refuse("nonce too low", 1);
        let summary = tally.summary(Duration::from_secs(1), 0.0);
        assert_eq!((summary.sent, summary.r#final, summary.duplicates, summary.blocks), (2, 2, 1, 2));
        assert_eq!(summary.refused["nonce too low"], 1);
    }

    #[test]
    fn many_different_reasons_stay_bounded() {
        let tally = Tally::new(std::iter::empty());
        (0..1000).for_each(|i| tally.refuse(&format!("reason {i}"), 1));
        let summary = tally.summary(Duration::ZERO, 0.0);
        assert_eq!(summary.refused.len(), REASONS_MAX + 1);
        assert_eq!(summary.refused.values().sum::<u64>(), 1000);
    }
}
