//! Senders: one task per connection, each with its own accounts, so that nonces arrive in order.

use super::sign::SignedTransfer;
use super::tally::Tally;
use crate::http::{Connection, Url};
use crate::rpc::ErrorObject;
use serde::Deserialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a sender keeps trying the same transactions before it gives its account up.
const PATIENCE: Duration = Duration::from_secs(60);

const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What all senders share.
pub struct Work {
    pub transfers: Vec<SignedTransfer>,
    pub tally: Tally,
    pub urls: Vec<Url>,
    /// Transactions per request.
    pub batch: usize,
    /// Transactions per second over all connections; `None` for as many as the nodes take.
    pub rate: Option<f64>,
    /// When to stop sending.
    pub deadline: Option<Instant>,
    /// Transactions that were given a place in the rate's schedule.
    pub scheduled: AtomicU64,
}

/// What a node said about one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The node has no room now.
    Later(String),
    Refused(String),
}

#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    error: Option<ErrorObject>,
}

/// Sends the transactions of `queue`, in order, over one connection.
pub async fn run(work: Arc<Work>, queue: Vec<(usize, u32)>, connection_number: usize) {
    let mut sender = Sender::new(&work, connection_number);
    let mut queue = VecDeque::from(queue);
    while !queue.is_empty() {
        if work.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return;
        }
        let count = work.batch.min(queue.len());
        work.wait_for_turn(count).await;
        let batch: Vec<(usize, u32)> = queue.drain(..count).collect();
        for lost_account in sender.deliver(batch).await {
            // Without this transaction none of the account's later ones can ever be included.
            let before = queue.len();
            queue.retain(|(account, _)| *account != lost_account);
            let skipped = (before - queue.len()) as u64;
            if skipped > 0 {
                work.tally.refuse("not sent: an earlier transaction of the account was refused", skipped);
            }
        }
    }
}

impl Work {
    /// Waits until the rate allows `count` more transactions.
    async fn wait_for_turn(&self, count: usize) {
        let Some(rate) = self.rate else { return };
        let position = self.scheduled.fetch_add(count as u64, Ordering::Relaxed);
        let due = self.tally.start() + Duration::from_secs_f64(position as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
    }
}

struct Sender<'a> {
    work: &'a Work,
    url: usize,
    connection: Connection,
    body: Vec<u8>,
}

impl<'a> Sender<'a> {
    fn new(work: &'a Work, number: usize) -> Self {
        let url = number % work.urls.len();
        Self {
            work,
            url,
            connection: Connection::new(work.urls[url].clone(), ANSWER_TIMEOUT),
            body: Vec::new(),
        }
    }

    /// Sends a batch until every transaction of it is accepted or refused. Returns accounts that lost one.
    async fn deliver(&mut self, mut batch: Vec<(usize, u32)>) -> Vec<usize> {
        let tally = &self.work.tally;
        let started = Instant::now();
        let (mut lost, mut wait) = (Vec::new(), RETRY_FIRST);
        let mut attempt = 0;
        loop {
            let verdicts = self.attempt(&batch, attempt > 0).await;
            let mut again = Vec::new();
            for ((account, transaction), verdict) in batch.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::Accepted => drop(tally.accepted.fetch_add(1, Ordering::Relaxed)),
                    Verdict::Later(_) if started.elapsed() < PATIENCE => again.push((account, transaction)),
                    Verdict::Later(reason) | Verdict::Refused(reason) => {
                        tally.refuse(&reason, 1);
                        lost.push(account);
                    }
                }
            }
            if again.is_empty() {
                return lost;
            }
            batch = again;
            attempt += 1;
            tally.retries.fetch_add(batch.len() as u64, Ordering::Relaxed);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// One request. After a failed one the next goes to the next node.
    async fn attempt(&mut self, batch: &[(usize, u32)], repeated: bool) -> Vec<Verdict> {
        self.write_body(batch);
        for (_, transaction) in batch {
            self.work.tally.sending(*transaction);
        }
        let request = self.connection.url().post(&self.body);
        match self.connection.exchange(&request).await {
            Ok(response) if response.status == 200 => read_verdicts(&response.body, batch.len(), repeated),
            Ok(response) => vec![Verdict::Later(format!("HTTP status {}", response.status)); batch.len()],
            Err(error) => {
                self.work.tally.reconnects.fetch_add(1, Ordering::Relaxed);
                self.url = (self.url + 1) % self.work.urls.len();
                self.connection = Connection::new(self.work.urls[self.url].clone(), ANSWER_TIMEOUT);
                vec![Verdict::Later(format!("node unreachable: {error}")); batch.len()]
            }
        }
    }

    fn write_body(&mut self, batch: &[(usize, u32)]) {
        self.body.clear();
        let is_batch = batch.len() > 1;
        for (i, (_, transaction)) in batch.iter().enumerate() {
            if is_batch {
                self.body.push(if i == 0 { b'[' } else { b',' });
            }
            self.body.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
            self.body.extend_from_slice(i.to_string().as_bytes());
            self.body.extend_from_slice(br#","method":"eth_sendRawTransaction","params":[""#);
            self.body.extend_from_slice(self.work.transfers[*transaction as usize].raw_hex.as_bytes());
            self.body.extend_from_slice(br#""]}"#);
        }
        if is_batch {
            self.body.push(b']');
        }
    }
}

/// What the answer says about each of `count` transactions. `repeated`: they may have been accepted before.
fn read_verdicts(body: &[u8], count: usize, repeated: bool) -> Vec<Verdict> {
    // The common case costs no JSON parser: nothing but results.
    let mentions_error = body.windows(7).any(|window| window == b"\"error\"");
    if !mentions_error && body.windows(8).any(|window| window == b"\"result\"") {
        return vec![Verdict::Accepted; count];
    }
    let answers: Vec<Answer> = match body.first() {
        Some(b'[') => serde_json::from_slice(body).unwrap_or_default(),
        _ => serde_json::from_slice(body).map(|answer| vec![answer]).unwrap_or_default(),
    };
    let mut verdicts = vec![Verdict::Refused("unreadable answer".into()); count];
    for answer in answers {
        let verdict = answer.error.map_or(Verdict::Accepted, |error| judge(&error.message, repeated));
        match answer.id.and_then(|id| usize::try_from(id).ok()) {
            Some(id) if id < count => verdicts[id] = verdict,
            // An error about the whole request.
            _ => verdicts.fill(verdict),
        }
    }
    verdicts
}

fn judge(message: &str, repeated: bool) -> Verdict {
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["already known", "already imported", "known transaction"]) {
        return Verdict::Accepted;
    }
    // The first attempt's answer was lost, the transaction was not.
    if repeated && says(&["nonce too low"]) {
        return Verdict::Accepted;
    }
    if says(&["full", "limit", "too many", "busy", "overload", "unavailable", "starting", "syncing"]) {
        return Verdict::Later(message.into());
    }
    Verdict::Refused(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_ids_and_words() {
        let accepted = br#"{"jsonrpc":"2.0","id":0,"result":"0x12"}"#;
        assert_eq!(read_verdicts(accepted, 1, false), [Verdict::Accepted]);
        let mixed = br#"[{"id":1,"error":{"code":-32000,"message":"nonce too low"}},{"id":0,"result":"0x"}]"#;
        let refused = Verdict::Refused("nonce too low".into());
        assert_eq!(read_verdicts(mixed, 2, false), [Verdict::Accepted, refused]);
        assert_eq!(read_verdicts(mixed, 2, true), [Verdict::Accepted, Verdict::Accepted]);
        let full = br#"{"id":0,"error":{"code":-32003,"message":"txpool is full"}}"#;
        assert_eq!(read_verdicts(full, 1, false), [Verdict::Later("txpool is full".into())]);
        let whole = br#"{"id":null,"error":{"code":-32600,"message":"batch too large"}}"#;
        assert_eq!(
            read_verdicts(whole, 2, false),
            [Verdict::Refused("batch too large".into()), Verdict::Refused("batch too large".into())]
        );
        assert_eq!(read_verdicts(b"hello", 1, false), [Verdict::Refused("unreadable answer".into())]);
    }
}
