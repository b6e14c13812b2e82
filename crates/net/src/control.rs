//! The control stream of an accepted connection: pings that notice a dead peer, and the orderly end.
//!
//! A connection that loses against another one with the same peer is *retired*: both sides finish the frame they
//! are writing, close their streams and read the other's to the end, so that no message is lost by it.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::swarm::Stream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Time between pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Consecutive intervals without hearing anything after which a peer counts as dead. Counted in our own ticks,
/// not in elapsed time, so that a process that was itself stopped does not blame its peers.
const SILENT_TICKS_MAX: u32 = 4;

/// Signals a peer may send between two of our ticks.
const SIGNALS_PER_TICK_MAX: u32 = 32;

const SIGNAL_BYTES: usize = 9;
const PING: u8 = 1;
const PONG: u8 = 2;
const RETIRE: u8 = 3;

/// What a connection's tasks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Go on.
    Run,
    /// Finish what is being written, close, read to the end.
    Retire,
    /// Stop at once.
    Close,
}

/// Tells a connection's tasks to stop, at least this hard. True if that is news.
pub(crate) fn tell(stop: &watch::Sender<Stop>, how: Stop) -> bool {
    stop.send_if_modified(|current| std::mem::replace(current, (*current).max(how)) < how)
}

/// Waits until a connection's tasks shall stop, at least in order.
pub(crate) async fn stopping(stop: &mut watch::Receiver<Stop>) {
    let _ = stop.wait_for(|s| *s != Stop::Run).await;
}

/// Counters of one connection.
#[derive(Debug, Default)]
pub(crate) struct LinkStats {
    pub(crate) sent_messages: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_messages: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    rtt_us: AtomicU64,
}

impl LinkStats {
    pub(crate) fn rtt(&self) -> Option<Duration> {
        match self.rtt_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    pub(crate) fn sent(&self, messages: usize, bytes: usize) {
        self.sent_messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_messages.fetch_add(1, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Why the control stream ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControlEnd {
    #[error("no sign of life for {0} s")]
    Dead(u64),
    #[error("the control stream ended")]
    Gone,
    #[error("more than {SIGNALS_PER_TICK_MAX} signals per second")]
    Flood,
    #[error("unknown signal {0}")]
    Unknown(u8),
}

impl ControlEnd {
    pub(crate) fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Flood | Self::Unknown(_))
    }
}

/// Runs the control stream until the connection is dead or gone. Spreads a retirement in both directions.
pub(crate) async fn run(stream: Stream, stop: &watch::Sender<Stop>, stats: &LinkStats) -> ControlEnd {
    let (reader, writer) = stream.split();
    // One place: while a signal is being answered no further one is read, which bounds what a flood can cost.
    let (signals_tx, signals) = mpsc::channel(1);
    tokio::select! {
        end = read_signals(reader, signals_tx) => end,
        end = answer_signals(writer, signals, stop, stats) => end,
    }
}

async fn read_signals(mut reader: impl AsyncRead + Unpin, signals: mpsc::Sender<(u8, u64)>) -> ControlEnd {
    loop {
        let mut frame = [0; SIGNAL_BYTES];
        if reader.read_exact(&mut frame).await.is_err() {
            return ControlEnd::Gone;
        }
        let [kind, nonce @ ..] = frame;
        if signals.send((kind, u64::from_le_bytes(nonce))).await.is_err() {
            return ControlEnd::Gone;
        }
    }
}

async fn answer_signals(
    mut writer: impl AsyncWrite + Unpin,
    mut signals: mpsc::Receiver<(u8, u64)>,
    stop: &watch::Sender<Stop>,
    stats: &LinkStats,
) -> ControlEnd {
    let mut stopped = stop.subscribe();
    let mut tick = tokio::time::interval(PING_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut silent_ticks, mut heard, mut told) = (0u32, 0u32, false);
    let mut ping: (u64, Option<Instant>) = (0, None);
    loop {
        let signal = tokio::select! {
            () = stopping(&mut stopped), if !told => {
                told = true;
                (RETIRE, 0)
            }
            _ = tick.tick() => {
                silent_ticks = if heard == 0 { silent_ticks + 1 } else { 0 };
                heard = 0;
                if silent_ticks > SILENT_TICKS_MAX {
                    return ControlEnd::Dead(u64::from(SILENT_TICKS_MAX) * PING_INTERVAL.as_secs());
                }
                ping = (ping.0.wrapping_add(1), Some(Instant::now()));
                (PING, ping.0)
            }
            signal = signals.recv() => {
                heard += 1;
                if heard > SIGNALS_PER_TICK_MAX {
                    return ControlEnd::Flood;
                }
                match signal {
                    None => return ControlEnd::Gone,
                    Some((PING, nonce)) => (PONG, nonce),
                    Some((PONG, nonce)) => {
                        if let (true, Some(sent)) = (nonce == ping.0, ping.1.take()) {
                            let us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                            stats.rtt_us.store(us.max(1), Ordering::Relaxed);
                        }
                        continue;
                    }
                    Some((RETIRE, _)) => {
                        tell(stop, Stop::Retire);
                        continue;
                    }
                    Some((kind, _)) => return ControlEnd::Unknown(kind),
                }
            }
        };
        let mut frame = [signal.0; SIGNAL_BYTES];
        frame[1..].copy_from_slice(&signal.1.to_le_bytes());
        // A peer that does not read makes this wait: it counts as silent then, like one that does not answer.
        let write = async { writer.write_all(&frame).await.is_ok() && writer.flush().await.is_ok() };
        let patience = PING_INTERVAL * SILENT_TICKS_MAX;
        match tokio::time::timeout(patience, write).await {
            Ok(true) => {}
            Ok(false) => return ControlEnd::Gone,
            Err(_) => return ControlEnd::Dead(patience.as_secs()),
        }
    }
}
