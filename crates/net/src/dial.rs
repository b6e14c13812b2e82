//! When to dial which configured peer. Pure: the time is an argument, the next deadline an output.

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Wait before the first retry; doubles with every failure. Small, because most failures are restarts.
const RETRY_BASE: Duration = Duration::from_millis(50);

/// Longest wait while a peer does not answer.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Longest wait while a peer answers but the handshake fails (another genesis, an expired proof).
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// How often to check whether a peer that is connected otherwise still is.
const LINKED_CHECK: Duration = Duration::from_secs(1);

/// How a connection to a configured peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialOutcome {
    /// Nobody answered.
    Unreachable,
    /// The handshake failed.
    Refused,
    /// It worked and was lost later.
    Lost,
    /// Another connection with the same peer is kept.
    Duplicate,
    /// The address is our own.
    Own,
}

/// # Invariants
/// One entry per address; at most one dial or connection per entry at any time.
#[derive(Default)]
pub(crate) struct DialTable {
    entries: Vec<Entry>,
}

struct Entry {
    address: SocketAddr,
    peer: Option<PeerId>,
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Busy(ConnectionId),
    Own,
}

impl DialTable {
    /// Adds an address, to be dialed at once. False if it is known already.
    pub(crate) fn add(&mut self, address: SocketAddr, now: Instant) -> bool {
        let known = self.entries.iter().any(|entry| entry.address == address);
        if !known {
            let state = State::Waiting { until: now };
            self.entries.push(Entry { address, peer: None, failures: 0, state });
        }
        !known
    }

    /// When to look again.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let waits = self.entries.iter().filter_map(|entry| match entry.state {
            State::Waiting { until } => Some(until),
            State::Busy(_) | State::Own => None,
        });
        waits.min()
    }

    /// An address to dial now, unless its peer is connected already. Call again until `None`.
    pub(crate) fn due(&mut self, now: Instant, is_linked: impl Fn(&PeerId) -> bool) -> Option<SocketAddr> {
        for entry in &mut self.entries {
            match entry.state {
                State::Waiting { until } if until <= now => {}
                _ => continue,
            }
            if entry.peer.as_ref().is_some_and(&is_linked) {
                entry.state = State::Waiting { until: now + LINKED_CHECK };
                continue;
            }
            return Some(entry.address);
        }
        None
    }

    /// A dial of `address` began.
    pub(crate) fn started(&mut self, address: SocketAddr, connection: ConnectionId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.address == address) {
            entry.state = State::Busy(connection);
        }
    }

    /// A dial reached `peer`. Returns the address that was dialed.
    pub(crate) fn reached(&mut self, connection: ConnectionId, peer: PeerId) -> Option<SocketAddr> {
        let entry = self.busy(connection)?;
        entry.peer = Some(peer);
        Some(entry.address)
    }

    /// The handshake worked: the next failure starts from the shortest wait again.
    pub(crate) fn accepted(&mut self, connection: ConnectionId) {
        if let Some(entry) = self.busy(connection) {
            entry.failures = 0;
        }
    }

    /// A dial or its connection ended; `jitter` is a random number.
    pub(crate) fn ended(&mut self, connection: ConnectionId, outcome: DialOutcome, now: Instant, jitter: u8) {
        let Some(entry) = self.busy(connection) else { return };
        let wait = match outcome {
            DialOutcome::Own => {
                entry.state = State::Own;
                return;
            }
            DialOutcome::Lost | DialOutcome::Duplicate => {
                entry.failures = 0;
                backoff(0, RETRY_MAX, jitter)
            }
            DialOutcome::Unreachable => backoff(entry.failures, RETRY_MAX, jitter),
            DialOutcome::Refused => backoff(entry.failures, REFUSED_MAX, jitter),
        };
        entry.failures = entry.failures.saturating_add(1);
        entry.state = State::Waiting { until: now + wait };
    }

    /// A connection with `peer` ended that we had not dialed: dial it soon.
    pub(crate) fn peer_left(&mut self, peer: &PeerId, now: Instant, jitter: u8) {
        let soon = now + backoff(0, RETRY_MAX, jitter);
        for entry in self.entries.iter_mut().filter(|entry| entry.peer.as_ref() == Some(peer)) {
            if let State::Waiting { until } = entry.state {
                entry.state = State::Waiting { until: until.min(soon) };
            }
        }
    }

    fn busy(&mut self, connection: ConnectionId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.state == State::Busy(connection))
    }
}

/// Doubles up to `max`, then 75 to 125 % of it, so that nodes that failed together do not return together.
fn backoff(failures: u32, max: Duration, jitter: u8) -> Duration {
    let wait = RETRY_BASE.saturating_mul(1 << failures.min(16)).min(max);
    wait * (192 + u32::from(jitter) / 2) / 256
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address() -> SocketAddr {
        "127.0.0.1:1000".parse().unwrap()
    }

    fn dial(table: &mut DialTable, id: usize, now: Instant) -> ConnectionId {
        assert_eq!(table.due(now, |_| false), Some(address()));
        let connection = ConnectionId::new_unchecked(id);
        table.started(address(), connection);
        assert_eq!((table.due(now, |_| false), table.next_at()), (None, None), "one dial at a time");
        connection
    }

    #[test]
    fn waits_double_to_a_cap_and_start_over_after_success() {
        let (mut table, mut now) = (DialTable::default(), Instant::now());
        assert!(table.add(address(), now) && !table.add(address(), now));
        let mut waits = Vec::new();
        for id in 0..12 {
            let connection = dial(&mut table, id, now);
            table.ended(connection, DialOutcome::Unreachable, now, 128);
            waits.push(table.next_at().unwrap() - now);
            now = table.next_at().unwrap();
        }
        assert_eq!(waits[..3], [50, 100, 200].map(Duration::from_millis));
        assert_eq!(waits[11], RETRY_MAX);
        let connection = dial(&mut table, 99, now);
        table.reached(connection, PeerId::random());
        table.accepted(connection);
        table.ended(connection, DialOutcome::Lost, now, 128);
        assert_eq!(table.next_at().unwrap() - now, RETRY_BASE);
    }

    #[test]
    fn a_peer_that_is_connected_is_not_dialed_until_it_leaves() {
        let (mut table, now) = (DialTable::default(), Instant::now());
        table.add(address(), now);
        let (connection, peer) = (dial(&mut table, 1, now), PeerId::random());
        table.reached(connection, peer);
        table.ended(connection, DialOutcome::Duplicate, now, 0);
        let later = now + Duration::from_millis(100);
        assert_eq!(table.due(later, |p| *p == peer), None);
        assert_eq!(table.next_at(), Some(later + LINKED_CHECK));
        table.peer_left(&peer, later, 0);
        assert!(table.next_at().unwrap() < later + RETRY_BASE);
    }

    #[test]
    fn our_own_address_is_never_dialed_again() {
        let (mut table, now) = (DialTable::default(), Instant::now());
        table.add(address(), now);
        let connection = dial(&mut table, 1, now);
        table.ended(connection, DialOutcome::Own, now, 0);
        assert_eq!(table.due(now + Duration::from_secs(99), |_| false), None);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for jitter in [0, 128, 255] {
            let wait = backoff(3, RETRY_MAX, jitter);
            assert!((300..=500).contains(&wait.as_millis()), "{wait:?}");
        }
    }
}
