//! The validator mesh: direct, authenticated connections between the validators of a chain.
//!
//! Every message goes straight to its receivers over streams that stay open: small ones (votes, certificates) on
//! one lane, large ones (proposals) on another, so that a proposal on its way never delays a vote. Nothing is
//! relayed. Delivery is best effort: what cannot be queued is dropped and counted, and consensus repeats itself.

pub(crate) mod binding;
pub(crate) mod fetch;
mod peer;
mod registry;
mod session;

pub use binding::{BINDING_LIFETIME_S_MAX, Binding, MeshIdentity, binding_domain};

use crate::driver::{self, Command, Setup};
use crate::error::{HandshakeError, NetError};
use crate::hello::{ChainIdentity, HELLO_PROTOCOL};
use crate::id::{self, NodeId};
use crate::penalty::Penalty;
use crate::transport::Transport;
use bytes::Bytes;
use libp2p::StreamProtocol;
use session::Core;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use types::limits::MESSAGE_BYTES_MAX;
use types::{FetchRequest, FetchResponse, PublicKey, ValidatorSet};

/// Messages up to this size travel on the urgent lane.
pub const URGENT_BYTES_MAX: usize = 16 << 10;

/// Events that wait for the application. Readers then wait in turn, first come first served, so that a peer that
/// sends much gets no larger share than one that sends little.
const EVENTS_WAITING_MAX: usize = 512;

/// Positions of the mesh's protocols.
const HELLO: usize = 0;
const URGENT: usize = 1;
const BULK: usize = 2;
const FETCH: usize = 3;

/// How to run a node of the mesh.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Where to listen. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The other validators, dialed for ever. The own address may be among them.
    pub peers: Vec<SocketAddr>,
    /// File of the ed25519 network key; made, readable by the owner only, if it does not exist.
    pub network_key: PathBuf,
    /// What peers must agree on.
    pub chain: ChainIdentity,
    /// How bytes travel; the same for all nodes.
    pub transport: Transport,
    /// Bounds.
    pub limits: MeshLimits,
}

/// Bounds of a mesh node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeshLimits {
    /// Inbound connections. At least twice the validators, or reconnecting ones find no place.
    pub connections_max: u32,
    /// Inbound connections from one IP address, beyond two for every configured peer there.
    pub connections_per_ip_max: u32,
    /// Connected nodes that are no validators.
    pub observers_max: u32,
    /// Small messages waiting for one peer; the oldest is dropped for a further one.
    pub urgent_waiting_max: u32,
    /// Large messages waiting for one peer, likewise. A proposal that was not sent before the next ones is of no
    /// use any more.
    pub bulk_waiting_max: u32,
    /// Time for a block fetch from request to last byte.
    pub fetch_timeout_ms: u64,
}

impl Default for MeshLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            connections_per_ip_max: 16,
            observers_max: 32,
            urgent_waiting_max: 2048,
            bulk_waiting_max: 4,
            fetch_timeout_ms: 10_000,
        }
    }
}

impl MeshLimits {
    fn check(&self) -> Result<(), NetError> {
        let ranges = [
            ("connections_max", self.connections_max.into(), 1, 65_535, "from 1 to 65535"),
            ("connections_per_ip_max", self.connections_per_ip_max.into(), 0, 65_535, "from 0 to 65535"),
            ("observers_max", self.observers_max.into(), 0, 65_535, "from 0 to 65535"),
            ("urgent_waiting_max", self.urgent_waiting_max.into(), 16, 65_536, "from 16 to 65536"),
            ("bulk_waiting_max", self.bulk_waiting_max.into(), 1, 64, "from 1 to 64"),
            ("fetch_timeout_ms", self.fetch_timeout_ms, 10, 600_000, "from 10 to 600000"),
        ];
        for (field, value, low, high, expected) in ranges {
            if !(low..=high).contains(&value) {
                return Err(NetError::Config { field, value, expected });
            }
        }
        Ok(())
    }
}

/// What the mesh tells the application.
#[derive(Debug)]
pub enum MeshEvent {
    /// A validator sent bytes: between 1 and [`MESSAGE_BYTES_MAX`], otherwise unchecked.
    Message {
        /// The key of the sender, who spoke for a validator when it arrived.
        from: PublicKey,
        /// The message. Drop it soon: until then it counts against what may be in memory of this sender.
        bytes: Bytes,
    },
    /// A validator is connected and proved its key.
    Connected(PublicKey),
    /// It is not any more, or is no validator any more.
    Disconnected(PublicKey),
    /// Somebody asks for blocks.
    Fetch {
        /// Who: a validator, or `None` for an observer.
        from: Option<PublicKey>,
        /// What.
        request: FetchRequest,
        /// The answer; dropping it tells the peer that there is none.
        reply: oneshot::Sender<FetchResponse>,
    },
    /// A handshake failed, one way or the other. At most one per address and half a minute.
    Refused {
        /// The other side; port 0 for one that dialed us.
        address: SocketAddr,
        /// Why.
        error: HandshakeError,
    },
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its network identity.
    pub node: NodeId,
    /// Key of the validator it speaks for; `None` for an observer.
    pub validator: Option<PublicKey>,
    /// The other end of the connection.
    pub address: SocketAddr,
    /// Whether this node dialed.
    pub dialed: bool,
    /// How long the connection has been up.
    pub connected_for: Duration,
    /// Last measured round trip.
    pub rtt: Option<Duration>,
    /// Messages sent on this connection.
    pub sent_messages: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages received on this connection.
    pub received_messages: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Messages dropped because this peer took too few.
    pub dropped_messages: u64,
    /// Messages waiting to be sent to it.
    pub waiting_messages: usize,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshStats {
    /// Messages dropped because a peer's queue was full.
    pub dropped_full: u64,
    /// Messages not sent because the receiver was not connected.
    pub dropped_unconnected: u64,
    /// Handshakes that failed.
    pub refused_handshakes: u64,
    /// Fetch requests answered.
    pub fetches_served: u64,
    /// Fetch requests turned away because of a limit.
    pub fetches_refused: u64,
}

/// The validator mesh; see the [module](self).
pub struct Mesh;

impl Mesh {
    /// Binds, starts dialing and returns how to use the mesh and what it reports. It stops when every handle is
    /// gone or [`MeshHandle::shutdown`] is called.
    ///
    /// Nobody counts as a validator before [`MeshHandle::set_validators`] was called.
    pub async fn start(
        config: MeshConfig,
        identity: MeshIdentity,
    ) -> Result<(MeshHandle, mpsc::Receiver<MeshEvent>), NetError> {
        config.limits.check()?;
        let key = id::load_or_create(&config.network_key)?;
        let (events, events_rx) = mpsc::channel(EVENTS_WAITING_MAX);
        let node = NodeId(key.public().to_peer_id());
        let core = Arc::new(Core::new(config.chain, node, identity, config.limits, events));
        let setup = Setup {
            key,
            transport: config.transport,
            listen: config.listen,
            peers: config.peers,
            protocols: protocols(config.chain.chain_id),
            connections_max: config.limits.connections_max,
            connections_per_ip_max: config.limits.connections_per_ip_max,
        };
        let started = driver::start(setup, core.clone()).await?;
        let handle =
            MeshHandle { core, address: started.address, commands: started.commands, ended: started.ended };
        Ok((handle, events_rx))
    }
}

fn protocols(chain_id: u64) -> Vec<StreamProtocol> {
    let named = ["urgent", "bulk", "fetch"].map(|name| {
        StreamProtocol::try_from_owned(format!("/tandem/{chain_id}/{name}/1.0.0"))
            .expect("it starts with a slash")
    });
    std::iter::once(HELLO_PROTOCOL).chain(named).collect()
}

/// Uses a running mesh. Cheap to clone. Nothing here waits except [`fetch`](Self::fetch) and
/// [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct MeshHandle {
    core: Arc<Core>,
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
    ended: watch::Receiver<bool>,
}

impl MeshHandle {
    // Getters.

    /// Where this node listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// This node's network identity.
    pub fn node_id(&self) -> NodeId {
        self.core.node()
    }

    /// Everybody connected.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.core.registry().snapshot()
    }

    /// Counters.
    pub fn stats(&self) -> MeshStats {
        self.core.stats()
    }

    // Inputs.

    /// Sets who counts as a validator: the members of all `sets`, usually of this epoch, the next and the one before, the
    /// one that counts most first. Connections stay;
    /// peers that gain or lose their place are reported. This node speaks with the first of its own keys that is in a
    /// set; when that becomes another one, its connections are made anew.
    pub fn set_validators(&self, sets: &[Arc<ValidatorSet>]) {
        self.core.set_validators(sets);
    }

    /// Adds a peer to dial for ever.
    pub async fn add_peer(&self, address: SocketAddr) -> Result<(), NetError> {
        self.commands.send(Command::AddPeer(address)).await.map_err(|_| NetError::Stopped)
    }

    /// Sends to one validator. False if it was not queued: not connected, ourselves, empty or too large a message,
    /// or this node is an observer. A full queue drops its oldest message, not this one.
    pub fn send(&self, to: &PublicKey, message: Bytes) -> bool {
        self.core.send(to, message)
    }

    /// Sends to all connected validators but ourselves. Returns to how many it was queued.
    pub fn broadcast(&self, message: Bytes) -> usize {
        self.core.broadcast(message)
    }

    /// Fetches blocks from one validator, or from any peer in turn. What comes back is bounded and well-formed,
    /// but not verified.
    pub async fn fetch(
        &self,
        target: Option<PublicKey>,
        request: FetchRequest,
    ) -> Result<FetchResponse, NetError> {
        self.core.fetch(target, &request).await
    }

    /// Counts misbehaviour that only the application can see against a validator. Enough of it disconnects the
    /// validator and keeps it out for a while, longer each time; reconnecting does not clear the count.
    pub fn penalize(&self, validator: &PublicKey, reason: Penalty) {
        self.core.penalize(validator, reason);
    }

    /// Stops the mesh and waits until its sockets are closed.
    pub async fn shutdown(&self) {
        let _ = self.commands.send(Command::Stop).await;
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// Whether a message can be sent at all, and on which lane.
fn is_sendable(message: &Bytes) -> bool {
    (1..=MESSAGE_BYTES_MAX).contains(&message.len())
}

#[cfg(test)]
mod tests;
