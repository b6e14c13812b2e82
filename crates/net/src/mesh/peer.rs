//! One peer of the mesh: its role, its queues, its budgets, and the one connection in use with it.

use super::binding::Binding;
use super::fetch::Serving;
use super::{MeshLimits, PeerInfo};
use crate::control::{LinkStats, Stop, tell};
use crate::error::lock;
use crate::hello::Rank;
use crate::id::NodeId;
use crate::lane::Budget;
use crate::link::Opener;
use crate::outbox::{Bounds, Outbox};
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{Semaphore, watch};
use types::PublicKey;
use types::limits::MESSAGE_BYTES_MAX;

/// Bytes of small messages waiting for one peer.
const URGENT_WAITING_BYTES_MAX: usize = 8 << 20;

/// Bytes of one peer's messages in memory here, by lane.
const URGENT_BUDGET_BYTES: usize = 1 << 20;
const BULK_BUDGET_BYTES: usize = 2 * MESSAGE_BYTES_MAX;

/// What a message counts for at least: at most 128 small and 300 large ones of a peer are in memory.
const URGENT_LEAST_BYTES: u32 = 8 << 10;
const BULK_LEAST_BYTES: u32 = 64 << 10;

/// Fetch requests in flight with one peer, in each direction.
pub(crate) const FETCHES_PER_PEER_MAX: usize = 5;

const _: () = assert!(URGENT_BUDGET_BYTES >= super::URGENT_BYTES_MAX);
const _: () = assert!(BULK_BUDGET_BYTES >= MESSAGE_BYTES_MAX);

/// The connection in use with a peer.
pub(crate) struct ActiveLink {
    pub(crate) id: ConnectionId,
    pub(crate) rank: Rank,
    pub(crate) address: SocketAddr,
    pub(crate) dialed: bool,
    pub(crate) since: Instant,
    pub(crate) opener: Opener,
    pub(crate) stop: Arc<watch::Sender<Stop>>,
    pub(crate) stats: Arc<LinkStats>,
}

impl ActiveLink {
    /// Tells the connection's tasks to stop, at least this hard.
    pub(crate) fn stop(&self, how: Stop) {
        tell(&self.stop, how);
    }
}

/// A connected peer. Outlives single connections as long as one replaces the other, so that nothing queued is lost.
pub(crate) struct Peer {
    pub(crate) node: PeerId,
    pub(crate) binding: Option<Binding>,
    pub(crate) urgent: Arc<Outbox>,
    pub(crate) bulk: Arc<Outbox>,
    pub(crate) urgent_budget: Budget,
    pub(crate) bulk_budget: Budget,
    /// Our fetches from it.
    pub(crate) fetching: Arc<Semaphore>,
    /// Its fetches from us; kept by identity, not by connection.
    pub(crate) serving: Arc<Serving>,
    role: watch::Sender<Option<PublicKey>>,
    /// The role the application was last told. Held while telling, so that its view never goes backwards.
    pub(crate) announced: tokio::sync::Mutex<Option<PublicKey>>,
    active: Mutex<ActiveLink>,
}

impl Peer {
    pub(crate) fn new(
        node: PeerId,
        binding: Option<Binding>,
        limits: &MeshLimits,
        serving: Arc<Serving>,
        link: ActiveLink,
    ) -> Self {
        let urgent =
            Bounds { messages_max: limits.urgent_waiting_max as usize, bytes_max: URGENT_WAITING_BYTES_MAX };
        let bulk_messages_max = limits.bulk_waiting_max as usize;
        let bulk =
            Bounds { messages_max: bulk_messages_max, bytes_max: bulk_messages_max * MESSAGE_BYTES_MAX };
        Self {
            node,
            binding,
            urgent: Arc::new(Outbox::new(urgent)),
            bulk: Arc::new(Outbox::new(bulk)),
            urgent_budget: Budget::new(URGENT_BUDGET_BYTES, URGENT_LEAST_BYTES),
            bulk_budget: Budget::new(BULK_BUDGET_BYTES, BULK_LEAST_BYTES),
            fetching: Arc::new(Semaphore::new(FETCHES_PER_PEER_MAX)),
            serving,
            role: watch::Sender::new(None),
            announced: tokio::sync::Mutex::new(None),
            active: Mutex::new(link),
        }
    }

    pub(crate) fn role(&self) -> Option<PublicKey> {
        *self.role.borrow()
    }

    pub(crate) fn set_role(&self, role: Option<PublicKey>) {
        self.role.send_if_modified(|current| std::mem::replace(current, role) != role);
    }

    /// Waits until the peer is a validator.
    pub(crate) async fn until_validator(&self) {
        if self.role().is_some() {
            return;
        }
        let _ = self.role.subscribe().wait_for(Option::is_some).await;
    }

    pub(crate) fn with_link<T>(&self, look: impl FnOnce(&mut ActiveLink) -> T) -> T {
        look(&mut lock(&self.active))
    }

    pub(crate) fn info(&self) -> PeerInfo {
        use std::sync::atomic::Ordering::Relaxed;
        let dropped_messages = self.urgent.dropped() + self.bulk.dropped();
        let waiting_messages = self.urgent.waiting().0 + self.bulk.waiting().0;
        self.with_link(|link| PeerInfo {
            node: NodeId(self.node),
            validator: self.role(),
            address: link.address,
            dialed: link.dialed,
            connected_for: link.since.elapsed(),
            rtt: link.stats.rtt(),
            sent_messages: link.stats.sent_messages.load(Relaxed),
            sent_bytes: link.stats.sent_bytes.load(Relaxed),
            received_messages: link.stats.received_messages.load(Relaxed),
            received_bytes: link.stats.received_bytes.load(Relaxed),
            dropped_messages,
            waiting_messages,
        })
    }
}
