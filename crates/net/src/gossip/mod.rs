//! The transaction network of executors: batches of raw transactions, each checked by the application before it
//! goes any further.
//!
//! Flooding over long-lived streams, not gossipsub: executors have few, static peers, and for those gossipsub 0.50
//! costs 3.4 times the CPU and twice the latency (tests/measure.rs; four connected nodes on two cores, 20,000
//! transactions/s of 110 B in 100 batches/s: 38 against 127 ms of CPU per second for all four, median 0.30 against
//! 0.62 ms; at full speed from one node to three 1,310,000 against 350,000 transactions/s). The publisher sends a batch to all its peers at once. A
//! receiver that accepts it forwards it only to those of its peers that are not connected to whoever sent it, for
//! those have it from there; every node tells its peers whom it is connected to. In a fully connected network
//! nothing is forwarded, in any other a batch crosses each gap at once, without waiting for any heartbeat.

pub(crate) mod batch;
mod session;

pub use batch::BATCH_BYTES_MAX;

use crate::driver::{self, Command, Setup};
use crate::error::{HandshakeError, NetError};
use crate::hello::{ChainIdentity, HELLO_PROTOCOL};
use crate::id::{self, NodeId};
use crate::transport::Transport;
use bytes::Bytes;
use crypto::B256;
use libp2p::StreamProtocol;
use session::Core;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Events that wait for the application; readers then wait in turn.
const EVENTS_WAITING_MAX: usize = 256;

/// Positions of the network's protocols.
const HELLO: usize = 0;
const BATCHES: usize = 1;
const NEIGHBOURS: usize = 2;

/// How to run a node of the transaction network.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// Where to listen. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// Other executors, dialed for ever. The own address may be among them.
    pub peers: Vec<SocketAddr>,
    /// File of the ed25519 network key; made, readable by the owner only, if it does not exist.
    pub network_key: PathBuf,
    /// What peers must agree on.
    pub chain: ChainIdentity,
    /// How bytes travel; the same for all nodes.
    pub transport: Transport,
    /// Bounds.
    pub limits: GossipLimits,
}

/// Bounds of a node of the transaction network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GossipLimits {
    /// Inbound connections.
    pub connections_max: u32,
    /// Inbound connections from one IP address, beyond two for every configured peer there.
    pub connections_per_ip_max: u32,
    /// Batches waiting for one peer; the oldest is dropped for a further one.
    pub waiting_batches_max: u32,
    /// Bytes of batches waiting for one peer.
    pub waiting_bytes_max: u32,
}

impl Default for GossipLimits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            connections_per_ip_max: 16,
            waiting_batches_max: 1024,
            waiting_bytes_max: 32 << 20,
        }
    }
}

impl GossipLimits {
    fn check(&self) -> Result<(), NetError> {
        let ranges = [
            ("connections_max", self.connections_max, 1, 1000, "from 1 to 1000"),
            ("connections_per_ip_max", self.connections_per_ip_max, 0, 65_535, "from 0 to 65535"),
            ("waiting_batches_max", self.waiting_batches_max, 1, 65_536, "from 1 to 65536"),
            (
                "waiting_bytes_max",
                self.waiting_bytes_max,
                BATCH_BYTES_MAX as u32,
                1 << 30,
                "from 1 MiB to 1 GiB",
            ),
        ];
        for (field, value, low, high, expected) in ranges {
            if !(low..=high).contains(&value) {
                return Err(NetError::Config { field, value: value.into(), expected });
            }
        }
        Ok(())
    }
}

/// What the transaction network tells the application.
#[derive(Debug)]
pub enum TxGossipEvent {
    /// A batch this node has not seen before. Answer with [`TxGossipHandle::report`], soon: until then it counts
    /// against what its sender may have in memory here, and goes nowhere.
    Batch {
        /// Who sent it to us.
        from: NodeId,
        /// Its identity, for the report.
        id: B256,
        /// The raw transactions, each of a possible size, otherwise unchecked. They share one buffer: copy what
        /// is to be kept.
        transactions: Vec<Bytes>,
    },
    /// A peer is connected.
    Connected(NodeId),
    /// It is not any more.
    Disconnected(NodeId),
    /// A handshake failed. At most one per address and half a minute.
    Refused {
        /// The other side; port 0 for one that dialed us.
        address: SocketAddr,
        /// Why.
        error: HandshakeError,
    },
}

/// What the application says about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Worth having: it goes on to whoever has not got it.
    Accept,
    /// Nothing new or nothing wanted: it stays here.
    Ignore,
    /// No honest node would have sent it on: it stays here and counts against its senders.
    Reject,
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct GossipPeerInfo {
    /// Its network identity.
    pub node: NodeId,
    /// The other end of the connection.
    pub address: SocketAddr,
    /// How long the connection has been up.
    pub connected_for: Duration,
    /// Last measured round trip.
    pub rtt: Option<Duration>,
    /// Batches dropped because this peer took too few.
    pub dropped_batches: u64,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GossipStats {
    /// Transactions published here.
    pub published_transactions: u64,
    /// Batches received, also ones received before.
    pub received_batches: u64,
    /// Batches received that had been received before.
    pub duplicate_batches: u64,
    /// Copies of others' batches sent on.
    pub forwarded_batches: u64,
    /// Copies dropped because a peer's queue was full.
    pub dropped_batches: u64,
    /// Batches that got no verdict in time.
    pub expired_batches: u64,
    /// Handshakes that failed.
    pub refused_handshakes: u64,
}

/// The transaction network; see the [module](self).
pub struct TxGossip;

impl TxGossip {
    /// Binds, starts dialing and returns how to use the network and what it reports. It stops when every handle is
    /// gone or [`TxGossipHandle::shutdown`] is called.
    pub async fn start(
        config: GossipConfig,
    ) -> Result<(TxGossipHandle, mpsc::Receiver<TxGossipEvent>), NetError> {
        config.limits.check()?;
        let key = id::load_or_create(&config.network_key)?;
        let (events, events_rx) = mpsc::channel(EVENTS_WAITING_MAX);
        let node = NodeId(key.public().to_peer_id());
        let core = Arc::new(Core::new(config.chain, node, config.limits, events));
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
        tokio::spawn(session::expire_pending(Arc::downgrade(&core), started.ended.clone()));
        let handle = TxGossipHandle {
            core,
            address: started.address,
            commands: started.commands,
            ended: started.ended,
        };
        Ok((handle, events_rx))
    }
}

fn protocols(chain_id: u64) -> Vec<StreamProtocol> {
    let named = ["batches", "neighbours"].map(|name| {
        StreamProtocol::try_from_owned(format!("/tandem/{chain_id}/{name}/1.0.0"))
            .expect("it starts with a slash")
    });
    std::iter::once(HELLO_PROTOCOL).chain(named).collect()
}

/// Uses a running transaction network. Cheap to clone. Nothing here waits except
/// [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct TxGossipHandle {
    core: Arc<Core>,
    address: SocketAddr,
    commands: mpsc::Sender<Command>,
    ended: watch::Receiver<bool>,
}

impl TxGossipHandle {
    // Getters.

    /// Where this node listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// This node's network identity.
    pub fn node_id(&self) -> NodeId {
        self.core.node()
    }

    /// How many peers are connected.
    pub fn peer_count(&self) -> usize {
        self.core.peer_count()
    }

    /// Everybody connected.
    pub fn peers(&self) -> Vec<GossipPeerInfo> {
        self.core.snapshot()
    }

    /// Counters.
    pub fn stats(&self) -> GossipStats {
        self.core.stats()
    }

    // Inputs.

    /// Adds a peer to dial for ever.
    pub async fn add_peer(&self, address: SocketAddr) -> Result<(), NetError> {
        self.commands.send(Command::AddPeer(address)).await.map_err(|_| NetError::Stopped)
    }

    /// Sends own transactions, which the application has checked, to all peers. Returns how many were taken; empty
    /// and oversized ones are not.
    pub fn publish(&self, transactions: Vec<Bytes>) -> usize {
        self.core.publish(&transactions)
    }

    /// Gives the verdict on a batch. A batch that is not known (any more) is ignored.
    pub fn report(&self, id: B256, verdict: Verdict) {
        self.core.report(id, verdict);
    }

    /// Stops the network and waits until its sockets are closed.
    pub async fn shutdown(&self) {
        let _ = self.commands.send(Command::Stop).await;
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

#[cfg(test)]
mod tests;
