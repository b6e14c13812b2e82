//! Batches of transactions: their encoding, which ones were seen, and which ones await the application's verdict.

use bytes::Bytes;
use crypto::{B256, tagged_hash};
use libp2p::PeerId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use types::limits::TRANSACTION_BYTES_MAX;

/// Bytes of one encoded batch.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Identities of batches remembered per generation; two generations are kept.
const SEEN_MAX: usize = 1 << 16;

/// Batches awaiting a verdict, and their bytes. Beyond that the oldest are forgotten, as if ignored.
const PENDING_MAX: usize = 4096;
const PENDING_BYTES_MAX: usize = 64 << 20;

/// A batch without a verdict for this long is forgotten.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(10);

const LENGTH_BYTES: usize = 4;

const _: () = assert!(TRANSACTION_BYTES_MAX + 2 * LENGTH_BYTES <= BATCH_BYTES_MAX);

/// What identifies a batch: the hash of its encoding.
pub(crate) fn batch_id(encoded: &[u8]) -> B256 {
    tagged_hash("tandem v1 transaction batch", &[encoded])
}

/// Encodes transactions (borsh, `Vec<Vec<u8>>`) into as many batches as their bytes need. Empty and oversized
/// transactions are left out; returns how many were taken.
pub(crate) fn encode_batches(transactions: &[Bytes]) -> (Vec<Bytes>, usize) {
    let (mut batches, mut taken) = (Vec::new(), 0);
    let (mut batch, mut count) = (vec![0; LENGTH_BYTES], 0u32);
    let mut finish = |batch: &mut Vec<u8>, count: &mut u32| {
        batch[..LENGTH_BYTES].copy_from_slice(&count.to_le_bytes());
        batches.push(Bytes::from(std::mem::replace(batch, vec![0; LENGTH_BYTES])));
        *count = 0;
    };
    for transaction in transactions {
        if !(1..=TRANSACTION_BYTES_MAX).contains(&transaction.len()) {
            continue;
        }
        if batch.len() + LENGTH_BYTES + transaction.len() > BATCH_BYTES_MAX {
            finish(&mut batch, &mut count);
        }
        batch.extend_from_slice(&(transaction.len() as u32).to_le_bytes());
        batch.extend_from_slice(transaction);
        count += 1;
        taken += 1;
    }
    if count > 0 {
        finish(&mut batch, &mut count);
    }
    (batches, taken)
}

/// The transactions of an encoded batch, sharing its memory. `None` unless every byte is accounted for and every
/// transaction has a possible size.
pub(crate) fn decode_batch(encoded: &Bytes) -> Option<Vec<Bytes>> {
    let mut at = 0;
    let count = read_length(encoded, &mut at)?;
    // A transaction takes at least five bytes, so a false count cannot make us allocate.
    if count == 0 || count > (encoded.len() - at) / (LENGTH_BYTES + 1) {
        return None;
    }
    let mut transactions = Vec::with_capacity(count);
    for _ in 0..count {
        let length = read_length(encoded, &mut at)?;
        let end = at.checked_add(length)?;
        if !(1..=TRANSACTION_BYTES_MAX).contains(&length) || end > encoded.len() {
            return None;
        }
        transactions.push(encoded.slice(at..end));
        at = end;
    }
    (at == encoded.len()).then_some(transactions)
}

fn read_length(encoded: &[u8], at: &mut usize) -> Option<usize> {
    let bytes = encoded.get(*at..)?.first_chunk::<LENGTH_BYTES>()?;
    *at += LENGTH_BYTES;
    Some(u32::from_le_bytes(*bytes) as usize)
}

/// Batches this node has had already.
#[derive(Default)]
pub(crate) struct Seen {
    current: HashSet<B256>,
    previous: HashSet<B256>,
}

impl Seen {
    /// True if the batch is new.
    pub(crate) fn insert(&mut self, id: B256) -> bool {
        if self.previous.contains(&id) || !self.current.insert(id) {
            return false;
        }
        if self.current.len() >= SEEN_MAX {
            self.previous = std::mem::take(&mut self.current);
        }
        true
    }
}

/// A batch that awaits its verdict.
pub(crate) struct Candidate {
    pub(crate) encoded: Bytes,
    /// Who sent it to us.
    pub(crate) senders: Vec<PeerId>,
    /// Its share of the first sender's budget, given back with the verdict.
    pub(crate) _permit: OwnedSemaphorePermit,
    since: Instant,
}

impl Candidate {
    pub(crate) fn new(encoded: Bytes, sender: PeerId, permit: OwnedSemaphorePermit, now: Instant) -> Self {
        Self { encoded, senders: vec![sender], _permit: permit, since: now }
    }
}

/// Senders remembered per candidate.
const SENDERS_MAX: usize = 64;

/// # Invariants
/// `bytes` is the sum over `candidates`; both bounds hold after every insertion. `order` names every candidate
/// (and possibly some that are gone), oldest first, and is no longer than twice [`PENDING_MAX`].
#[derive(Default)]
pub(crate) struct Pending {
    candidates: HashMap<B256, Candidate>,
    order: VecDeque<B256>,
    bytes: usize,
}

impl Pending {
    /// Adds a candidate. Returns how many older ones were forgotten for it.
    pub(crate) fn insert(&mut self, id: B256, candidate: Candidate) -> usize {
        self.bytes += candidate.encoded.len();
        self.candidates.insert(id, candidate);
        self.order.push_back(id);
        let mut forgotten = 0;
        while self.candidates.len() > PENDING_MAX || self.bytes > PENDING_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            forgotten += usize::from(self.take(&oldest).is_some());
        }
        if self.order.len() > 2 * PENDING_MAX {
            self.order.retain(|id| self.candidates.contains_key(id));
        }
        forgotten
    }

    /// Another peer has the batch as well.
    pub(crate) fn add_sender(&mut self, id: &B256, sender: PeerId) {
        if let Some(candidate) = self.candidates.get_mut(id)
            && candidate.senders.len() < SENDERS_MAX
        {
            candidate.senders.push(sender);
        }
    }

    /// Removes a candidate for its verdict.
    pub(crate) fn take(&mut self, id: &B256) -> Option<Candidate> {
        let candidate = self.candidates.remove(id)?;
        self.bytes -= candidate.encoded.len();
        Some(candidate)
    }

    /// Forgets what waits for too long. Returns how many.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        while let Some(oldest) = self.order.front().copied() {
            match self.candidates.get(&oldest) {
                Some(c) if now.saturating_duration_since(c.since) < VERDICT_TIMEOUT => break,
                Some(_) => expired += usize::from(self.take(&oldest).is_some()),
                None => {}
            }
            self.order.pop_front();
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    fn transactions(count: usize, bytes: usize) -> Vec<Bytes> {
        (0..count).map(|i| Bytes::from(vec![i as u8 | 1; bytes])).collect()
    }

    #[test]
    fn batches_round_trip_are_plain_borsh_and_respect_the_limit() {
        let given = transactions(30, TRANSACTION_BYTES_MAX);
        let (batches, taken) = encode_batches(&given);
        assert_eq!((batches.len(), taken), (5, 30));
        assert!(batches.iter().all(|batch| batch.len() <= BATCH_BYTES_MAX));
        let back: Vec<Bytes> = batches.iter().flat_map(|batch| decode_batch(batch).unwrap()).collect();
        assert_eq!(back, given);
        let plain: Vec<Vec<u8>> = types::decode(&batches[4]).unwrap();
        assert_eq!(plain, given[28..]);
    }

    #[test]
    fn impossible_transactions_are_left_out() {
        let given = [Bytes::new(), Bytes::from(vec![1; TRANSACTION_BYTES_MAX + 1]), Bytes::from_static(b"x")];
        let (batches, taken) = encode_batches(&given);
        assert_eq!((batches.len(), taken), (1, 1));
        assert_eq!(encode_batches(&[]).0.len(), 0);
    }

    #[test]
    fn every_mangled_batch_is_refused() {
        let whole = encode_batches(&transactions(3, 10)).0.remove(0);
        for length in 0..whole.len() {
            assert_eq!(decode_batch(&whole.slice(..length)), None, "{length}");
        }
        let longer = Bytes::from([&whole[..], &[0]].concat());
        assert_eq!(decode_batch(&longer), None);
        assert_eq!(decode_batch(&Bytes::from_static(&[0; 4])), None, "empty");
        assert_eq!(decode_batch(&Bytes::from_static(&[255; 20])), None, "a count far beyond the bytes");
    }

    #[test]
    fn seen_batches_stay_seen_for_a_generation_and_memory_is_bounded() {
        let mut seen = Seen::default();
        let id = |i: usize| B256::from(alloy_primitives::U256::from(i));
        for i in 0..5 * SEEN_MAX {
            assert!(seen.insert(id(i)));
            assert!(!seen.insert(id(i)));
            assert!(i < SEEN_MAX || !seen.insert(id(i - SEEN_MAX + 1)));
            assert!(seen.current.len() + seen.previous.len() <= 2 * SEEN_MAX);
        }
    }

    #[test]
    fn pending_batches_are_bounded_and_expire() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let budget = Arc::new(Semaphore::new(1 << 20));
        let peer = PeerId::random();
        for i in 0..PENDING_MAX + 10 {
            let permit = budget.clone().try_acquire_owned().unwrap();
            let candidate = Candidate::new(Bytes::from(vec![0; 10]), peer, permit, now);
            let forgotten = pending.insert(B256::from(alloy_primitives::U256::from(i)), candidate);
            assert_eq!(forgotten, usize::from(i >= PENDING_MAX));
        }
        assert_eq!(budget.available_permits(), (1 << 20) - PENDING_MAX, "forgotten shares are given back");
        assert_eq!(pending.expire(now), 0);
        assert_eq!(pending.expire(now + VERDICT_TIMEOUT), PENDING_MAX);
        assert_eq!((pending.bytes, budget.available_permits()), (0, 1 << 20));
    }
}
