//! Messages waiting to be sent to one peer on one lane.
//!
//! Bounded by messages and by bytes. What does not fit pushes out the *oldest* waiting message: consensus and the
//! transaction pool both care about the newest most, and both repeat what matters. Drops are counted.

use crate::error::lock;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Capacity of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

/// # Invariants
/// `bytes` is the sum of the waiting messages' lengths; both bounds hold after every push.
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    ready: Notify,
    bounds: Bounds,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { waiting: Mutex::default(), ready: Notify::new(), bounds, dropped: AtomicU64::new(0) }
    }

    /// Adds a message. Returns how many were dropped for it (including itself, if it alone exceeds the bounds).
    pub(crate) fn push(&self, message: Bytes) -> u64 {
        let mut waiting = lock(&self.waiting);
        waiting.bytes += message.len();
        waiting.messages.push_back(message);
        let mut dropped = 0;
        while waiting.messages.len() > self.bounds.messages_max || waiting.bytes > self.bounds.bytes_max {
            let Some(oldest) = waiting.messages.pop_front() else { break };
            waiting.bytes -= oldest.len();
            dropped += 1;
        }
        drop(waiting);
        self.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.ready.notify_one();
        dropped
    }

    /// Waits until there is something to send. Safe to cancel: nothing is taken.
    pub(crate) async fn wait(&self) {
        loop {
            let notified = self.ready.notified();
            if !lock(&self.waiting).messages.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Moves waiting messages into `batch`: at least one if there is any, further ones while they fit `bytes_max`
    /// in total.
    pub(crate) fn take(&self, batch: &mut Vec<Bytes>, bytes_max: usize) {
        let mut waiting = lock(&self.waiting);
        let mut taken = 0;
        while let Some(next) = waiting.messages.front() {
            if !batch.is_empty() && taken + next.len() > bytes_max {
                break;
            }
            taken += next.len();
            waiting.bytes -= next.len();
            batch.extend(waiting.messages.pop_front());
        }
    }

    /// Messages dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Messages and bytes waiting.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let waiting = lock(&self.waiting);
        (waiting.messages.len(), waiting.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &Outbox, bytes_max: usize) -> Vec<u8> {
        let mut batch = Vec::new();
        outbox.take(&mut batch, bytes_max);
        batch.iter().map(|message| message[0]).collect()
    }

    #[test]
    fn overflow_by_count_or_bytes_drops_the_oldest_and_counts_it() {
        let outbox = Outbox::new(Bounds { messages_max: 3, bytes_max: 100 });
        for number in 0..5u8 {
            outbox.push(Bytes::from(vec![number; 10]));
        }
        assert_eq!((outbox.waiting(), outbox.dropped()), ((3, 30), 2));
        assert_eq!(outbox.push(Bytes::from(vec![9; 80])), 1, "3 messages of 100 bytes fit");
        assert_eq!(outbox.waiting(), (3, 100));
        assert_eq!(drain(&outbox, 1000), [3, 4, 9]);
        assert_eq!(outbox.push(Bytes::from(vec![1; 101])), 1, "a message beyond the bounds drops itself");
        assert_eq!(outbox.waiting(), (0, 0));
    }

    #[test]
    fn a_batch_holds_at_least_one_message_and_no_more_than_asked_for() {
        let outbox = Outbox::new(Bounds { messages_max: 10, bytes_max: 1000 });
        for number in 0..4u8 {
            outbox.push(Bytes::from(vec![number; 10]));
        }
        assert_eq!(drain(&outbox, 5), [0]);
        assert_eq!(drain(&outbox, 20), [1, 2]);
        assert_eq!(drain(&outbox, 20), [3]);
        assert!(drain(&outbox, 20).is_empty());
    }
}
