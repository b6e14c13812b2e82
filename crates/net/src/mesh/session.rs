//! The life of one connection of the mesh: handshake, lanes, role changes, end.

use super::binding::{Binding, OwnBinding, binding_domain};
use super::peer::{ActiveLink, Peer};
use super::registry::Registry;
use super::{
    BULK, FETCH, HELLO, MeshEvent, MeshIdentity, MeshLimits, MeshStats, URGENT, URGENT_BYTES_MAX, fetch,
    is_sendable,
};
use crate::control::{self, LinkStats, Stop, stopping, tell};
use crate::driver::{Connection, Ended, Network, until};
use crate::error::{HandshakeError, lock};
use crate::frame::FrameError;
use crate::hello::{self, ChainIdentity, HANDSHAKE_TIMEOUT, NetworkKind, Rank, unix_ms};
use crate::id::NodeId;
use crate::lane::{LaneReader, send_all};
use crate::link::ProtocolIndex;
use crate::penalty::{Penalty, PenaltyBook};
use bytes::Bytes;
use crypto::{Domain, PublicKey, VerifyingKey};
use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use types::ValidatorSet;
use types::limits::{MESSAGE_BYTES_MAX, VALIDATORS_MAX};

/// Proofs whose signatures are remembered as good.
const PROVEN_MAX: usize = 2 * VALIDATORS_MAX;

/// Signature checks at the same time, and those that may wait for it on connections we did not dial. A flood of
/// false proofs then costs at most one core for a moment, and connections that we dial are not affected.
const UNSOLICITED_CHECKS_MAX: usize = 32;

/// How long a retired connection is read on at least, and at most.
const RETIRE_LINGER_MIN: Duration = Duration::from_millis(300);
const RETIRE_LINGER_MAX: Duration = Duration::from_secs(3);

/// Everything the connections of a mesh share.
pub(crate) struct Core {
    pub(super) chain: ChainIdentity,
    pub(super) limits: MeshLimits,
    pub(super) events: mpsc::Sender<MeshEvent>,
    pub(super) fetch: fetch::State,
    pub(super) counters: Counters,
    node: NodeId,
    own: OwnBinding,
    domain: Domain,
    registry: Registry,
    roster: watch::Sender<BTreeMap<PublicKey, VerifyingKey>>,
    penalties: Mutex<PenaltyBook<PublicKey>>,
    proven: Mutex<HashSet<Binding>>,
    checking: Semaphore,
    unsolicited: Semaphore,
    observers: Arc<Semaphore>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) dropped_full: AtomicU64,
    pub(super) dropped_unconnected: AtomicU64,
    pub(super) refused_handshakes: AtomicU64,
    pub(super) fetches_served: AtomicU64,
    pub(super) fetches_refused: AtomicU64,
}

/// A completed handshake.
struct Greeted {
    stream: Stream,
    rank: Rank,
    binding: Option<Binding>,
    role: Role,
}

/// What a peer may do: a validator anything, an observer only fetch, in one of a few places.
struct Role {
    validator: Option<PublicKey>,
    place: Option<OwnedSemaphorePermit>,
}

/// How a task of a connection ended.
enum TaskEnd {
    Sender(Result<(), String>),
    Reader(FrameError),
}

// What the handle calls. None of it waits.
impl Core {
    pub(super) fn new(
        chain: ChainIdentity,
        node: NodeId,
        identity: MeshIdentity,
        limits: MeshLimits,
        events: mpsc::Sender<MeshEvent>,
    ) -> Self {
        let domain = binding_domain(&chain);
        let own = OwnBinding::new(identity, domain, node);
        // Signs now rather than during the first handshake.
        let _ = own.current();
        Self {
            chain,
            limits,
            events,
            fetch: fetch::State::default(),
            counters: Counters::default(),
            node,
            own,
            domain,
            registry: Registry::new(limits),
            roster: watch::Sender::default(),
            penalties: Mutex::default(),
            proven: Mutex::default(),
            checking: Semaphore::new(1),
            unsolicited: Semaphore::new(UNSOLICITED_CHECKS_MAX),
            observers: Arc::new(Semaphore::new(limits.observers_max as usize)),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn set_validators(&self, sets: &[Arc<ValidatorSet>]) {
        let members = sets.iter().flat_map(|set| set.indices().map(|index| (set.get(index), set.key(index))));
        let roster: BTreeMap<_, _> =
            members.filter_map(|(member, key)| Some((member?.public_key, *key?))).collect();
        let spoke_for = self.own.key();
        self.own.speak_for_member(sets);
        self.roster.send_replace(roster);
        if self.own.key() != spoke_for {
            self.registry.all().iter().for_each(|peer| peer.with_link(|link| link.stop(Stop::Close)));
        }
    }

    /// The connected peer that speaks for this validator now.
    pub(super) fn validator(&self, key: &PublicKey) -> Option<Arc<Peer>> {
        self.registry.by_key(key).filter(|peer| peer.role().is_some())
    }

    pub(super) fn send(&self, to: &PublicKey, message: Bytes) -> bool {
        if !self.may_send(&message) {
            return false;
        }
        let Some(peer) = self.validator(to) else {
            self.counters.dropped_unconnected.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        self.queue(&peer, message);
        true
    }

    pub(super) fn broadcast(&self, message: Bytes) -> usize {
        if !self.may_send(&message) {
            return 0;
        }
        let validators: Vec<_> =
            self.registry.all().into_iter().filter(|peer| peer.role().is_some()).collect();
        validators.iter().for_each(|peer| self.queue(peer, message.clone()));
        validators.len()
    }

    /// Observers have nothing to say, and nobody would listen.
    fn may_send(&self, message: &Bytes) -> bool {
        if !is_sendable(message) {
            tracing::error!(bytes = message.len(), "a message of this size cannot be sent");
            return false;
        }
        self.own.key().is_some()
    }

    fn queue(&self, peer: &Peer, message: Bytes) {
        let outbox = if message.len() <= URGENT_BYTES_MAX { &peer.urgent } else { &peer.bulk };
        let dropped = outbox.push(message);
        if dropped > 0 {
            self.counters.dropped_full.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    pub(super) fn penalize(&self, validator: &PublicKey, reason: Penalty) {
        if !self.roster.borrow().contains_key(validator) {
            return;
        }
        if lock(&self.penalties).count(*validator, reason, Instant::now()) {
            tracing::warn!(%validator, ?reason, "validator kept out for misbehaviour");
            if let Some(peer) = self.registry.by_key(validator) {
                peer.with_link(|link| link.stop(Stop::Close));
            }
        }
    }

    pub(super) fn stats(&self) -> MeshStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MeshStats {
            dropped_full: read(&self.counters.dropped_full),
            dropped_unconnected: read(&self.counters.dropped_unconnected),
            refused_handshakes: read(&self.counters.refused_handshakes),
            fetches_served: read(&self.counters.fetches_served),
            fetches_refused: read(&self.counters.fetches_refused),
        }
    }
}

impl Network for Core {
    fn name(&self) -> &'static str {
        NetworkKind::Mesh.name()
    }

    fn is_linked(&self, peer: &PeerId) -> bool {
        self.registry.is_linked(peer)
    }

    async fn serve(self: Arc<Self>, mut connection: Connection) -> Ended {
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(&mut connection));
        let timeout_ms = HANDSHAKE_TIMEOUT.as_millis() as u64;
        match handshake.await.unwrap_or(Err(HandshakeError::Timeout { timeout_ms })) {
            Ok(greeted) => self.run(connection, greeted).await,
            Err(error) => {
                self.counters.refused_handshakes.fetch_add(1, Ordering::Relaxed);
                Ended::Refused(error)
            }
        }
    }

    fn refused(&self, address: SocketAddr, error: HandshakeError) {
        // Only news for an operator: when the application is behind, the log has it.
        let _ = self.events.try_send(MeshEvent::Refused { address, error });
    }
}

// The handshake.
impl Core {
    async fn handshake(&self, connection: &mut Connection) -> Result<Greeted, HandshakeError> {
        let mut stream = hello::first_stream(connection, HELLO).await?;
        let Connection { peer, dialed, .. } = *connection;
        let rank =
            hello::greet(&mut stream, &self.chain, NetworkKind::Mesh, self.node.0, peer, dialed).await?;
        let binding: Option<Binding> = hello::exchange(&mut stream, &self.own.current()).await?;
        let (verdict, role) = match self.judge(peer, dialed, binding.as_ref()).await {
            Ok(role) => (Ok(()), Some(role)),
            Err(error) => (Err(error), None),
        };
        hello::settle(&mut stream, verdict).await?;
        let role = role.unwrap_or(Role { validator: None, place: None });
        Ok(Greeted { stream, rank, binding, role })
    }

    async fn judge(
        &self,
        peer: PeerId,
        dialed: bool,
        binding: Option<&Binding>,
    ) -> Result<Role, HandshakeError> {
        if let Some(binding) = binding {
            binding.check(peer, unix_ms() / 1000)?;
            if let Some(left) = lock(&self.penalties).banned_for(&binding.key(), Instant::now()) {
                let remaining_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                return Err(HandshakeError::Banned { remaining_ms });
            }
        }
        match self.role_of(peer, dialed, binding).await? {
            Some(key) => Ok(Role { validator: Some(key), place: None }),
            None => Ok(Role { validator: None, place: self.observer_place(dialed)? }),
        }
    }

    /// An observer's place; one that we dialed ourselves needs none.
    fn observer_place(&self, dialed: bool) -> Result<Option<OwnedSemaphorePermit>, HandshakeError> {
        if dialed {
            return Ok(None);
        }
        let limit = u64::from(self.limits.observers_max);
        let place = self.observers.clone().try_acquire_owned();
        place.map(Some).map_err(|_| HandshakeError::Full { kind: "observers", limit })
    }

    /// Which validator a peer is: the one whose key it proves to speak for, if that is one.
    async fn role_of(
        &self,
        peer: PeerId,
        dialed: bool,
        binding: Option<&Binding>,
    ) -> Result<Option<PublicKey>, HandshakeError> {
        let Some(binding) = binding else { return Ok(None) };
        let key = binding.key();
        let found = self.roster.borrow().get(&key).copied();
        let Some(verifying) = found else { return Ok(None) };
        if !lock(&self.proven).contains(binding) {
            self.check_signature(binding, verifying, dialed).await?;
        }
        if self.own.holds(&key) {
            return Err(HandshakeError::OwnKey { node: NodeId(peer) });
        }
        Ok(Some(key))
    }

    async fn check_signature(
        &self,
        binding: &Binding,
        key: crypto::VerifyingKey,
        dialed: bool,
    ) -> Result<(), HandshakeError> {
        let _place = match dialed {
            true => None,
            false => Some(self.unsolicited.try_acquire().map_err(|_| HandshakeError::Full {
                kind: "proofs to check",
                limit: UNSOLICITED_CHECKS_MAX as u64,
            })?),
        };
        let _turn = self.checking.acquire().await;
        let (owned, domain) = (binding.clone(), self.domain);
        let checked = tokio::task::spawn_blocking(move || owned.is_signed_by(&key, &domain)).await;
        if !checked.unwrap_or(false) {
            return Err(HandshakeError::BindingSignature { key: binding.key() });
        }
        let mut proven = lock(&self.proven);
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert(binding.clone());
        Ok(())
    }
}

// After the handshake.
impl Core {
    async fn run(self: Arc<Self>, connection: Connection, greeted: Greeted) -> Ended {
        let Greeted { stream, rank, binding, role } = greeted;
        connection.accept();
        let stop = Arc::new(watch::Sender::new(Stop::Run));
        let stats = Arc::new(LinkStats::default());
        let link = ActiveLink {
            id: connection.id,
            rank,
            address: connection.address,
            dialed: connection.dialed,
            since: Instant::now(),
            opener: connection.streams.opener.clone(),
            stop: stop.clone(),
            stats: stats.clone(),
        };
        let proven = role.validator.is_some();
        let Some(peer) = self.registry.admit(connection.peer, binding, proven, link) else {
            return Ended::Retired;
        };
        let membership = Membership { core: self.clone(), peer: peer.clone(), connection: connection.id };
        peer.set_role(role.validator);
        self.announce(&peer).await;
        let session = Session { core: self.clone(), peer: peer.clone(), stop, stats, place: role.place };
        let ended = session.run(connection, stream).await;
        if let (Ended::Violation(_), Some(validator)) = (&ended, peer.role()) {
            self.penalize(&validator, Penalty::Malformed);
        }
        drop(membership);
        self.announce(&peer).await;
        ended
    }

    /// Tells the application the peer's role, if it changed.
    async fn announce(&self, peer: &Peer) {
        let mut announced = peer.announced.lock().await;
        let role = peer.role();
        if *announced == role {
            return;
        }
        if let Some(before) = announced.take() {
            let _ = self.events.send(MeshEvent::Disconnected(before)).await;
        }
        if let Some(now) = role {
            *announced = role;
            let _ = self.events.send(MeshEvent::Connected(now)).await;
        }
    }
}

/// Takes the connection off the registry, whatever ends its task.
struct Membership {
    core: Arc<Core>,
    peer: Arc<Peer>,
    connection: ConnectionId,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.core.registry.leave(&self.peer, self.connection) {
            self.peer.set_role(None);
        }
    }
}

/// A connection after its handshake.
struct Session {
    core: Arc<Core>,
    peer: Arc<Peer>,
    stop: Arc<watch::Sender<Stop>>,
    stats: Arc<LinkStats>,
    place: Option<OwnedSemaphorePermit>,
}

impl Session {
    async fn run(mut self, connection: Connection, control: Stream) -> Ended {
        let mut inbound = connection.streams.inbound;
        let (stop, stats) = (self.stop.clone(), self.stats.clone());
        let mut control = std::pin::pin!(control::run(control, &stop, &stats));
        let mut roster = self.core.roster.subscribe();
        // It may have changed since the role was determined.
        roster.mark_changed();
        let mut stopped = self.stop.subscribe();
        let mut tasks = JoinSet::new();
        let mut open = [false; FETCH + 1];
        if self.core.own.key().is_some() {
            self.spawn_senders(&connection.streams.opener, &mut tasks);
        }
        let mut lingers = std::pin::pin!(linger(&mut stopped));
        let mut retire_by: Option<Instant> = None;
        loop {
            if retire_by.is_some() && tasks.is_empty() {
                return Ended::Retired;
            }
            tokio::select! {
                end = &mut control => return self.on_control_end(&end),
                stream = inbound.recv() => match stream {
                    None => return Ended::Lost("the connection was closed".to_owned()),
                    Some((FETCH, stream)) => fetch::spawn_serve(&self.core, &self.peer, stream),
                    Some((protocol, stream)) => {
                        let once = open.get_mut(protocol).map(|open| !std::mem::replace(open, true));
                        if protocol == HELLO || once != Some(true) {
                            return Ended::Violation(format!("opened stream kind {protocol} twice"));
                        }
                        self.spawn_reader(protocol, stream, &mut tasks);
                    }
                },
                Some(end) = tasks.join_next() => {
                    if let Some(ended) = self.on_task_end(end) {
                        return ended;
                    }
                }
                _ = roster.changed() => {
                    if let Err(ended) = self.reassess(connection.dialed).await {
                        return ended;
                    }
                }
                how = &mut lingers, if retire_by.is_none() => match how {
                    Stop::Close => return Ended::Lost("closed".to_owned()),
                    _ => retire_by = Some(Instant::now() + RETIRE_LINGER_MAX),
                },
                () = until(retire_by) => return Ended::Retired,
            }
        }
    }

    /// Senders start when the peer is a validator: nobody else may be sent to.
    fn spawn_senders(&self, opener: &crate::link::Opener, tasks: &mut JoinSet<TaskEnd>) {
        for (protocol, outbox) in [(URGENT, &self.peer.urgent), (BULK, &self.peer.bulk)] {
            let (opener, outbox, peer) = (opener.clone(), outbox.clone(), self.peer.clone());
            let (mut stop, stats) = (self.stop.subscribe(), self.stats.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = peer.until_validator() => {}
                    () = stopping(&mut stop) => return TaskEnd::Sender(Ok(())),
                }
                TaskEnd::Sender(send_all(opener, protocol, outbox, stop, stats).await)
            });
        }
    }

    fn spawn_reader(&self, protocol: ProtocolIndex, stream: Stream, tasks: &mut JoinSet<TaskEnd>) {
        let (budget, limit) = match protocol {
            URGENT => (self.peer.urgent_budget.clone(), URGENT_BYTES_MAX),
            _ => (self.peer.bulk_budget.clone(), MESSAGE_BYTES_MAX),
        };
        let (peer, stats, events) = (self.peer.clone(), self.stats.clone(), self.core.events.clone());
        let mut reader = LaneReader::new(stream, budget, limit);
        tasks.spawn(async move {
            loop {
                // What an observer sends is not read: its stream fills and stands still.
                peer.until_validator().await;
                let received = match reader.next().await {
                    Ok(received) => received,
                    Err(error) => return TaskEnd::Reader(error),
                };
                stats.received(received.as_ref().len());
                let Some(from) = peer.role() else { continue };
                let bytes = Bytes::from_owner(received);
                if events.send(MeshEvent::Message { from, bytes }).await.is_err() {
                    return TaskEnd::Reader(FrameError::End);
                }
            }
        });
    }

    fn on_control_end(&self, end: &control::ControlEnd) -> Ended {
        match *self.stop.borrow() {
            _ if end.is_misbehaviour() => Ended::Violation(end.to_string()),
            Stop::Retire => Ended::Retired,
            Stop::Run | Stop::Close => Ended::Lost(end.to_string()),
        }
    }

    fn on_task_end(&self, end: Result<TaskEnd, tokio::task::JoinError>) -> Option<Ended> {
        let retiring = *self.stop.borrow() != Stop::Run;
        match end {
            Err(error) => Some(Ended::Lost(format!("a task failed: {error}"))),
            Ok(TaskEnd::Sender(Ok(()))) => None,
            Ok(TaskEnd::Reader(FrameError::End)) => {
                // The peer closes its lanes only when it retires the connection.
                self.peer_retires();
                None
            }
            Ok(TaskEnd::Reader(error)) if error.is_misbehaviour() => {
                Some(Ended::Violation(error.to_string()))
            }
            Ok(TaskEnd::Reader(_) | TaskEnd::Sender(_)) if retiring => None,
            Ok(TaskEnd::Reader(error)) => Some(Ended::Lost(error.to_string())),
            Ok(TaskEnd::Sender(Err(reason))) => Some(Ended::Lost(reason)),
        }
    }

    fn peer_retires(&self) {
        tell(&self.stop, Stop::Retire);
    }

    /// Who is a validator changed: the peer may be none any more, or one only now.
    async fn reassess(&mut self, dialed: bool) -> Result<(), Ended> {
        let binding = self.peer.binding.as_ref();
        // Every connection asks once per set: as good as solicited.
        let role = self.core.role_of(self.peer.node, true, binding).await.map_err(Ended::Refused)?;
        match role {
            Some(_) if !self.core.registry.prove(&self.peer) => return Err(Ended::Retired),
            Some(_) => self.place = None,
            None if self.place.is_none() => {
                self.place = self.core.observer_place(dialed).map_err(Ended::Refused)?;
            }
            None => {}
        }
        self.peer.set_role(role);
        self.core.announce(&self.peer).await;
        Ok(())
    }
}

/// Ends when the connection is to be closed: at once, or a while after it was retired.
async fn linger(stop: &mut watch::Receiver<Stop>) -> Stop {
    stopping(stop).await;
    tokio::select! {
        _ = stop.wait_for(|s| *s == Stop::Close) => Stop::Close,
        () = tokio::time::sleep(RETIRE_LINGER_MIN) => Stop::Retire,
    }
}
