//! Who is connected. One connection per peer, one peer per consensus key.

use super::fetch::Serving;
use super::peer::{ActiveLink, Peer};
use super::{Binding, MeshLimits, PeerInfo};
use crate::control::Stop;
use crate::error::lock;
use crypto::PublicKey;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Identities whose fetches are remembered after they disconnected, before those without any are forgotten.
const SERVING_REMEMBERED_MAX: usize = 4096;

/// # Invariants
/// A peer is in `peers` while a connection with it is active. `by_key` names only peers in `peers` whose proof was
/// verified, at most one per key.
pub(crate) struct Registry {
    limits: MeshLimits,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    peers: HashMap<PeerId, Arc<Peer>>,
    by_key: HashMap<PublicKey, Arc<Peer>>,
    serving: HashMap<PeerId, Arc<Serving>>,
}

impl Registry {
    pub(crate) fn new(limits: MeshLimits) -> Self {
        Self { limits, tables: Mutex::default() }
    }

    /// Takes a connection whose handshake is complete. Of two with one peer the higher rank is kept, which both
    /// sides decide alike; the other is retired. `proven` says whether the binding was verified.
    ///
    /// Returns the peer the connection belongs to, or `None` if another node speaks for its key with a higher rank.
    pub(crate) fn admit(
        &self,
        node: PeerId,
        binding: Option<Binding>,
        proven: bool,
        link: ActiveLink,
    ) -> Option<Arc<Peer>> {
        let mut tables = lock(&self.tables);
        let key = binding.as_ref().map(Binding::key);
        if let Some(other) = key.filter(|_| proven).and_then(|key| tables.by_key.get(&key)).cloned()
            && other.node != node
        {
            if other.with_link(|active| active.rank > link.rank) {
                return None;
            }
            tracing::warn!(old = %other.node, new = %node, "a validator changed its network identity");
            other.with_link(|active| active.stop(Stop::Retire));
            tables.remove(&other);
        }
        let peer = match tables.peers.get(&node).cloned() {
            Some(peer) if peer.binding.as_ref().map(Binding::key) == key => {
                replace_if_higher(&peer, link);
                peer
            }
            other => {
                if let Some(other) = other {
                    // The same node speaks for another key now: it must have been set up anew.
                    other.with_link(|active| active.stop(Stop::Close));
                    tables.remove(&other);
                }
                let serving = tables.serving_of(node);
                let peer = Arc::new(Peer::new(node, binding, &self.limits, serving, link));
                tables.peers.insert(node, peer.clone());
                peer
            }
        };
        if let Some(key) = key.filter(|_| proven) {
            tables.by_key.insert(key, peer.clone());
        }
        Some(peer)
    }

    /// The peer's proof was verified after it was admitted. False if another node has its key already.
    pub(crate) fn prove(&self, peer: &Arc<Peer>) -> bool {
        let mut tables = lock(&self.tables);
        let Some(key) = peer.binding.as_ref().map(Binding::key) else { return false };
        Arc::ptr_eq(tables.by_key.entry(key).or_insert_with(|| peer.clone()), peer)
    }

    /// A connection ended. True if it was the one in use: then the peer is gone.
    pub(crate) fn leave(&self, peer: &Arc<Peer>, connection: ConnectionId) -> bool {
        let mut tables = lock(&self.tables);
        if peer.with_link(|active| active.id) != connection {
            return false;
        }
        tables.remove(peer);
        true
    }

    pub(crate) fn is_linked(&self, node: &PeerId) -> bool {
        lock(&self.tables).peers.contains_key(node)
    }

    /// The peer that proved this key.
    pub(crate) fn by_key(&self, key: &PublicKey) -> Option<Arc<Peer>> {
        lock(&self.tables).by_key.get(key).cloned()
    }

    /// Everybody, in the order of their identities.
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = lock(&self.tables).peers.values().cloned().collect();
        peers.sort_by_key(|peer| peer.node);
        peers
    }

    pub(crate) fn snapshot(&self) -> Vec<PeerInfo> {
        let mut infos: Vec<_> = self.all().iter().map(|peer| peer.info()).collect();
        infos.sort_by_key(|info| (info.validator.is_none(), info.validator));
        infos
    }
}

fn replace_if_higher(peer: &Peer, link: ActiveLink) {
    peer.with_link(|active| {
        if link.rank > active.rank {
            active.stop(Stop::Retire);
            *active = link;
        } else {
            link.stop(Stop::Retire);
        }
    });
}

impl Tables {
    fn remove(&mut self, peer: &Arc<Peer>) {
        if self.peers.get(&peer.node).is_some_and(|p| Arc::ptr_eq(p, peer)) {
            self.peers.remove(&peer.node);
        }
        self.by_key.retain(|_, p| !Arc::ptr_eq(p, peer));
    }

    /// The counters of a node's fetches. They are kept while they say anything, whatever became of the connection.
    fn serving_of(&mut self, node: PeerId) -> Arc<Serving> {
        if self.serving.len() >= SERVING_REMEMBERED_MAX {
            self.serving
                .retain(|_, serving| Arc::strong_count(serving) > 1 || !serving.is_idle(Instant::now()));
        }
        self.serving.entry(node).or_default().clone()
    }
}
