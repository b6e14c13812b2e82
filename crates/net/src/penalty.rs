//! Misbehaviour that only the application can see, counted per identity: the consensus key in the mesh, the
//! network key in the transaction network.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Identities with a record.
const RECORDS_MAX: usize = 1024;

/// What a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Penalty {
    /// A message that does not decode.
    Malformed,
    /// A signature or certificate that does not verify.
    InvalidSignature,
    /// A fetched block or certificate that is wrong.
    WrongData,
    /// Far more messages than the protocol calls for.
    Flood,
}

impl Penalty {
    fn points(self) -> u32 {
        match self {
            Self::Malformed | Self::InvalidSignature => 20,
            Self::WrongData => 50,
            Self::Flood => 10,
        }
    }
}

/// Points at which a peer is kept out.
const BAN_POINTS: u32 = 100;

/// One point is forgiven in this time.
const FORGIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The first time out; doubles with each.
const BAN_BASE: Duration = Duration::from_secs(5);

/// The longest time out. Short: keeping a validator out costs the chain, not only the validator.
const BAN_MAX: Duration = Duration::from_secs(160);

/// Pure: the time is an argument.
///
/// # Invariants
/// At most [`RECORDS_MAX`] records; when all are in use, further identities go unpunished.
pub(crate) struct PenaltyBook<K> {
    records: HashMap<K, Record>,
}

impl<K> Default for PenaltyBook<K> {
    fn default() -> Self {
        Self { records: HashMap::new() }
    }
}

struct Record {
    points: u32,
    counted_at: Instant,
    bans: u32,
    banned_until: Option<Instant>,
}

impl<K: Eq + Hash> PenaltyBook<K> {
    /// Counts; true if the peer is to be kept out from now on.
    pub(crate) fn count(&mut self, key: K, penalty: Penalty, now: Instant) -> bool {
        if !self.records.contains_key(&key) && self.records.len() >= RECORDS_MAX {
            self.records.retain(|_, record| record.points_at(now) > 0 || record.is_banned(now));
            if self.records.len() >= RECORDS_MAX {
                return false;
            }
        }
        let fresh = Record { points: 0, counted_at: now, bans: 0, banned_until: None };
        let record = self.records.entry(key).or_insert(fresh);
        record.points = record.points_at(now).saturating_add(penalty.points());
        record.counted_at = now;
        if record.points < BAN_POINTS {
            return false;
        }
        record.points = 0;
        let time = BAN_BASE.saturating_mul(1 << record.bans.min(16)).min(BAN_MAX);
        record.banned_until = Some(now + time);
        record.bans = record.bans.saturating_add(1);
        true
    }

    /// How long this key is still kept out.
    pub(crate) fn banned_for(&self, key: &K, now: Instant) -> Option<Duration> {
        let until = self.records.get(key)?.banned_until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

impl Record {
    fn points_at(&self, now: Instant) -> u32 {
        let forgiven = now.saturating_duration_since(self.counted_at).as_secs() / FORGIVE_INTERVAL.as_secs();
        self.points.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    fn is_banned(&self, now: Instant) -> bool {
        self.banned_until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_faults_are_forgiven_and_frequent_ones_keep_a_peer_out_ever_longer() {
        let (mut book, key, mut now) = (PenaltyBook::default(), 1, Instant::now());
        for _ in 0..50 {
            assert!(!book.count(key, Penalty::Malformed, now));
            now += Duration::from_secs(30);
        }
        for time in [5, 10, 20] {
            let banned = (0..5).filter(|_| book.count(key, Penalty::Malformed, now)).count();
            assert_eq!(banned, 1);
            assert_eq!(book.banned_for(&key, now), Some(Duration::from_secs(time)));
            now += Duration::from_secs(time);
            assert_eq!(book.banned_for(&key, now), None);
        }
        assert_eq!(book.banned_for(&2, now), None);
    }
}
