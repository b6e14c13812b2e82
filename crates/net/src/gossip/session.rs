//! The life of one connection of the transaction network, and what all of them share.

use super::batch::{BATCH_BYTES_MAX, Candidate, Pending, Seen, batch_id, decode_batch, encode_batches};
use super::{BATCHES, GossipLimits, GossipPeerInfo, GossipStats, HELLO, NEIGHBOURS, TxGossipEvent, Verdict};
use crate::control::{self, LinkStats, Stop, stopping, tell};
use crate::driver::{Connection, Ended, Network, until};
use crate::error::{HandshakeError, lock};
use crate::frame::FrameError;
use crate::hello::{self, ChainIdentity, HANDSHAKE_TIMEOUT, NetworkKind, Rank};
use crate::id::NodeId;
use crate::lane::{Budget, LaneReader, send_all};
use crate::outbox::{Bounds, Outbox};
use crate::penalty::{Penalty, PenaltyBook};
use bytes::Bytes;
use crypto::B256;
use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Bytes of one peer's batches in memory here until their verdicts, and what a batch counts for at least.
const BUDGET_BYTES: usize = 8 << 20;
const LEAST_BYTES: u32 = 4 << 10;

/// Peers a node may say it is connected to, and the bytes of saying so.
const NEIGHBOURS_MAX: usize = 2048;
const NEIGHBOURS_BYTES_MAX: usize = NEIGHBOURS_MAX * 64;

/// Of several waiting lists of neighbours only the newest matters.
const NEIGHBOURS_WAITING: Bounds = Bounds { messages_max: 1, bytes_max: NEIGHBOURS_BYTES_MAX };

/// How often batches without a verdict are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// Time for the streams of a replaced connection to run dry.
const RETIRE_LINGER: Duration = Duration::from_secs(1);

const _: () = assert!(BUDGET_BYTES >= BATCH_BYTES_MAX);

/// Everything the connections of the network share.
pub(crate) struct Core {
    chain: ChainIdentity,
    limits: GossipLimits,
    node: NodeId,
    events: mpsc::Sender<TxGossipEvent>,
    peers: Mutex<HashMap<PeerId, Arc<Peer>>>,
    batches: Mutex<Batches>,
    penalties: Mutex<PenaltyBook<PeerId>>,
    counters: Counters,
}

#[derive(Default)]
struct Batches {
    seen: Seen,
    pending: Pending,
}

#[derive(Default)]
struct Counters {
    published_transactions: AtomicU64,
    received_batches: AtomicU64,
    duplicate_batches: AtomicU64,
    forwarded_batches: AtomicU64,
    dropped_batches: AtomicU64,
    expired_batches: AtomicU64,
    refused_handshakes: AtomicU64,
}

/// A connected peer and the connection in use with it.
struct Peer {
    node: PeerId,
    outbox: Arc<Outbox>,
    neighbours_outbox: Arc<Outbox>,
    budget: Budget,
    /// Whom it says it is connected to. A lie costs only the liar: it gets batches twice or not at all.
    neighbours: Mutex<HashSet<PeerId>>,
    link: Mutex<Link>,
}

struct Link {
    id: ConnectionId,
    rank: Rank,
    address: SocketAddr,
    since: Instant,
    stop: Arc<watch::Sender<Stop>>,
    stats: Arc<LinkStats>,
}

// What the handle calls. None of it waits.
impl Core {
    pub(super) fn new(
        chain: ChainIdentity,
        node: NodeId,
        limits: GossipLimits,
        events: mpsc::Sender<TxGossipEvent>,
    ) -> Self {
        Self {
            chain,
            limits,
            node,
            events,
            peers: Mutex::default(),
            batches: Mutex::default(),
            penalties: Mutex::default(),
            counters: Counters::default(),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn peer_count(&self) -> usize {
        lock(&self.peers).len()
    }

    pub(super) fn snapshot(&self) -> Vec<GossipPeerInfo> {
        let mut infos: Vec<_> = self.all().iter().map(|peer| peer.info()).collect();
        infos.sort_by_key(|info| info.node);
        infos
    }

    pub(super) fn publish(&self, transactions: &[Bytes]) -> usize {
        let (batches, taken) = encode_batches(transactions);
        let peers = self.all();
        for batch in batches {
            // A batch published before goes out again: peers may have come since.
            lock(&self.batches).seen.insert(batch_id(&batch));
            peers.iter().for_each(|peer| self.queue(peer, batch.clone()));
        }
        self.counters.published_transactions.fetch_add(taken as u64, Ordering::Relaxed);
        taken
    }

    pub(super) fn report(&self, id: B256, verdict: Verdict) {
        let Some(candidate) = lock(&self.batches).pending.take(&id) else { return };
        match verdict {
            Verdict::Accept => self.forward(&candidate),
            Verdict::Ignore => {}
            Verdict::Reject => candidate.senders.iter().for_each(|sender| self.penalize(*sender)),
        }
    }

    /// Sends a batch on to the peers that cannot have it from one of its senders.
    fn forward(&self, candidate: &Candidate) {
        for peer in self.all() {
            let has_it = |sender: &PeerId| peer.node == *sender || lock(&peer.neighbours).contains(sender);
            if !candidate.senders.iter().any(has_it) {
                self.counters.forwarded_batches.fetch_add(1, Ordering::Relaxed);
                self.queue(&peer, candidate.encoded.clone());
            }
        }
    }

    fn queue(&self, peer: &Peer, batch: Bytes) {
        let dropped = peer.outbox.push(batch);
        if dropped > 0 {
            self.counters.dropped_batches.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn penalize(&self, node: PeerId) {
        if lock(&self.penalties).count(node, Penalty::Malformed, Instant::now()) {
            tracing::warn!(%node, "executor kept out for misbehaviour");
            if let Some(peer) = lock(&self.peers).get(&node) {
                lock(&peer.link).stop(Stop::Close);
            }
        }
    }

    pub(super) fn stats(&self) -> GossipStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GossipStats {
            published_transactions: read(&self.counters.published_transactions),
            received_batches: read(&self.counters.received_batches),
            duplicate_batches: read(&self.counters.duplicate_batches),
            forwarded_batches: read(&self.counters.forwarded_batches),
            dropped_batches: read(&self.counters.dropped_batches),
            expired_batches: read(&self.counters.expired_batches),
            refused_handshakes: read(&self.counters.refused_handshakes),
        }
    }

    fn all(&self) -> Vec<Arc<Peer>> {
        lock(&self.peers).values().cloned().collect()
    }
}

/// Forgets batches without a verdict, until the network stops.
pub(super) async fn expire_pending(core: Weak<Core>, mut ended: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => return,
            () = tokio::time::sleep(EXPIRY_INTERVAL) => {}
        }
        let Some(core) = core.upgrade() else { return };
        let expired = lock(&core.batches).pending.expire(Instant::now());
        core.counters.expired_batches.fetch_add(expired as u64, Ordering::Relaxed);
    }
}

impl Network for Core {
    fn name(&self) -> &'static str {
        NetworkKind::Transactions.name()
    }

    fn is_linked(&self, peer: &PeerId) -> bool {
        lock(&self.peers).contains_key(peer)
    }

    async fn serve(self: Arc<Self>, mut connection: Connection) -> Ended {
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(&mut connection));
        let timeout_ms = HANDSHAKE_TIMEOUT.as_millis() as u64;
        match handshake.await.unwrap_or(Err(HandshakeError::Timeout { timeout_ms })) {
            Ok((stream, rank)) => self.run(connection, stream, rank).await,
            Err(error) => {
                self.counters.refused_handshakes.fetch_add(1, Ordering::Relaxed);
                Ended::Refused(error)
            }
        }
    }

    fn refused(&self, address: SocketAddr, error: HandshakeError) {
        // Only news for an operator: when the application is behind, the log has it.
        let _ = self.events.try_send(TxGossipEvent::Refused { address, error });
    }
}

// One connection.
impl Core {
    async fn handshake(&self, connection: &mut Connection) -> Result<(Stream, Rank), HandshakeError> {
        let mut stream = hello::first_stream(connection, HELLO).await?;
        let Connection { peer, dialed, .. } = *connection;
        let kind = NetworkKind::Transactions;
        let rank = hello::greet(&mut stream, &self.chain, kind, self.node.0, peer, dialed).await?;
        let banned = lock(&self.penalties).banned_for(&peer, Instant::now());
        let verdict = banned.map_or(Ok(()), |left| {
            let remaining_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            Err(HandshakeError::Banned { remaining_ms })
        });
        hello::settle(&mut stream, verdict).await?;
        Ok((stream, rank))
    }

    async fn run(self: Arc<Self>, connection: Connection, control: Stream, rank: Rank) -> Ended {
        connection.accept();
        let stop = Arc::new(watch::Sender::new(Stop::Run));
        let stats = Arc::new(LinkStats::default());
        let Connection { id, address, .. } = connection;
        let link =
            Link { id, rank, address, since: Instant::now(), stop: stop.clone(), stats: stats.clone() };
        let (peer, is_new) = self.admit(connection.peer, link);
        let membership = Membership { core: self.clone(), peer: peer.clone(), connection: id };
        let remote = connection.peer;
        let node = NodeId(remote);
        if is_new {
            let _ = self.events.send(TxGossipEvent::Connected(node)).await;
        }
        let ended = self.clone().run_link(connection, control, &peer, &stop, &stats).await;
        if matches!(ended, Ended::Violation(_)) {
            self.penalize(remote);
        }
        let was_in_use = membership.core.is_in_use(&peer, id);
        drop(membership);
        if was_in_use {
            let _ = self.events.send(TxGossipEvent::Disconnected(node)).await;
        }
        ended
    }

    async fn run_link(
        self: Arc<Self>,
        connection: Connection,
        control: Stream,
        peer: &Arc<Peer>,
        stop: &Arc<watch::Sender<Stop>>,
        stats: &Arc<LinkStats>,
    ) -> Ended {
        let mut inbound = connection.streams.inbound;
        let opener = connection.streams.opener;
        let mut control = std::pin::pin!(control::run(control, stop, stats));
        let mut stopped = stop.subscribe();
        let mut stopping = std::pin::pin!(stopping(&mut stopped));
        let mut retire_by = None;
        let mut tasks = JoinSet::new();
        for (protocol, outbox) in [(BATCHES, &peer.outbox), (NEIGHBOURS, &peer.neighbours_outbox)] {
            let (outbox, stop, stats) = (outbox.clone(), stop.subscribe(), stats.clone());
            let sending = send_all(opener.clone(), protocol, outbox, stop, stats);
            tasks.spawn(async move {
                sending.await.map_err(|error| FrameError::Io(std::io::Error::other(error)))
            });
        }
        let mut open = [false; NEIGHBOURS + 1];
        loop {
            let retiring = *stop.borrow() == Stop::Retire;
            tokio::select! {
                end = &mut control => return match end.is_misbehaviour() {
                    true => Ended::Violation(end.to_string()),
                    false if retiring => Ended::Retired,
                    false => Ended::Lost(end.to_string()),
                },
                stream = inbound.recv() => match stream {
                    None => return Ended::Lost("the connection was closed".to_owned()),
                    Some((protocol, stream)) => {
                        let once = open.get_mut(protocol).map(|open| !std::mem::replace(open, true));
                        if protocol == HELLO || once != Some(true) {
                            return Ended::Violation(format!("opened stream kind {protocol} twice"));
                        }
                        let (core, peer, stats) = (self.clone(), peer.clone(), stats.clone());
                        tasks.spawn(async move { core.read(protocol, stream, &peer, &stats).await });
                    }
                },
                Some(end) = tasks.join_next() => match end {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) if error.is_misbehaviour() => return Ended::Violation(error.to_string()),
                    Ok(Err(FrameError::End)) => {
                        tell(stop, Stop::Retire);
                    }
                    Ok(Err(_)) if retiring => {}
                    Ok(Err(error)) => return Ended::Lost(error.to_string()),
                    Err(error) => return Ended::Lost(format!("a task failed: {error}")),
                },
                () = &mut stopping, if retire_by.is_none() => {
                    if *stop.borrow() == Stop::Close {
                        return Ended::Lost("closed".to_owned());
                    }
                    retire_by = Some(Instant::now() + RETIRE_LINGER);
                }
                () = until(retire_by) => return Ended::Retired,
            }
        }
    }

    async fn read(
        &self,
        protocol: usize,
        stream: Stream,
        peer: &Arc<Peer>,
        stats: &LinkStats,
    ) -> Result<(), FrameError> {
        match protocol {
            BATCHES => self.read_batches(stream, peer, stats).await,
            _ => read_neighbours(stream, peer).await,
        }
    }

    async fn read_batches(
        &self,
        stream: Stream,
        peer: &Arc<Peer>,
        stats: &LinkStats,
    ) -> Result<(), FrameError> {
        let mut reader = LaneReader::new(stream, peer.budget.clone(), BATCH_BYTES_MAX);
        loop {
            let (body, permit) = reader.next().await?.split();
            stats.received(body.len());
            self.counters.received_batches.fetch_add(1, Ordering::Relaxed);
            let encoded = Bytes::from(body);
            let id = batch_id(&encoded);
            if !lock(&self.batches).seen.insert(id) {
                self.counters.duplicate_batches.fetch_add(1, Ordering::Relaxed);
                lock(&self.batches).pending.add_sender(&id, peer.node);
                continue;
            }
            let Some(transactions) = decode_batch(&encoded) else {
                return Err(FrameError::Malformed { what: "a batch of transactions" });
            };
            let candidate = Candidate::new(encoded, peer.node, permit, Instant::now());
            let forgotten = lock(&self.batches).pending.insert(id, candidate);
            self.counters.expired_batches.fetch_add(forgotten as u64, Ordering::Relaxed);
            let event = TxGossipEvent::Batch { from: NodeId(peer.node), id, transactions };
            if self.events.send(event).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Takes a connection whose handshake is complete; of two with one peer the higher rank is kept. True if the
    /// peer is new.
    fn admit(&self, node: PeerId, link: Link) -> (Arc<Peer>, bool) {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(&node).cloned() {
            let mut active = lock(&peer.link);
            if link.rank > active.rank {
                active.stop(Stop::Retire);
                *active = link;
            } else {
                link.stop(Stop::Retire);
            }
            drop(active);
            return (peer, false);
        }
        let bounds = Bounds {
            messages_max: self.limits.waiting_batches_max as usize,
            bytes_max: self.limits.waiting_bytes_max as usize,
        };
        let peer = Arc::new(Peer {
            node,
            outbox: Arc::new(Outbox::new(bounds)),
            neighbours_outbox: Arc::new(Outbox::new(NEIGHBOURS_WAITING)),
            budget: Budget::new(BUDGET_BYTES, LEAST_BYTES),
            neighbours: Mutex::default(),
            link: Mutex::new(link),
        });
        peers.insert(node, peer.clone());
        tell_neighbours(&peers);
        (peer, true)
    }

    fn is_in_use(&self, peer: &Arc<Peer>, connection: ConnectionId) -> bool {
        lock(&peer.link).id == connection
    }

    fn leave(&self, peer: &Arc<Peer>, connection: ConnectionId) {
        let mut peers = lock(&self.peers);
        if self.is_in_use(peer, connection) && peers.get(&peer.node).is_some_and(|p| Arc::ptr_eq(p, peer)) {
            peers.remove(&peer.node);
            tell_neighbours(&peers);
        }
    }
}

/// Tells every peer whom this node is connected to now.
fn tell_neighbours(peers: &HashMap<PeerId, Arc<Peer>>) {
    let nodes: Vec<Vec<u8>> = peers.keys().take(NEIGHBOURS_MAX).map(|peer| peer.to_bytes()).collect();
    let message = Bytes::from(types::encode(&nodes));
    for peer in peers.values() {
        peer.neighbours_outbox.push(message.clone());
    }
}

async fn read_neighbours(stream: Stream, peer: &Peer) -> Result<(), FrameError> {
    let mut reader = LaneReader::new(stream, Budget::new(NEIGHBOURS_BYTES_MAX, 0), NEIGHBOURS_BYTES_MAX);
    loop {
        let (body, _permit) = reader.next().await?.split();
        let malformed = FrameError::Malformed { what: "a list of neighbours" };
        let Ok(nodes) = types::decode::<Vec<Vec<u8>>>(&body) else { return Err(malformed) };
        let nodes: Result<HashSet<PeerId>, _> = nodes.iter().map(|bytes| PeerId::from_bytes(bytes)).collect();
        let Ok(nodes) = nodes else { return Err(malformed) };
        *lock(&peer.neighbours) = nodes;
    }
}

impl Link {
    fn stop(&self, how: Stop) {
        tell(&self.stop, how);
    }
}

impl Peer {
    fn info(&self) -> GossipPeerInfo {
        let link = lock(&self.link);
        GossipPeerInfo {
            node: NodeId(self.node),
            address: link.address,
            connected_for: link.since.elapsed(),
            rtt: link.stats.rtt(),
            dropped_batches: self.outbox.dropped(),
        }
    }
}

/// Takes the connection off the list of peers, whatever ends its task.
struct Membership {
    core: Arc<Core>,
    peer: Arc<Peer>,
    connection: ConnectionId,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.core.leave(&self.peer, self.connection);
    }
}
