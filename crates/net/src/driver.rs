//! The task that owns a network's libp2p swarm: listens, dials the configured peers for ever, starts one task per
//! connection and closes the connection when that task ends. It never touches a message.

use crate::dial::{DialOutcome, DialTable};
use crate::error::{HandshakeError, NetError};
use crate::link::{LinkStreams, Links};
use crate::transport::{self, Transport};
use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::ConnectedPoint;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{PeerId, StreamProtocol};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};

/// Inbound connections whose transport handshake runs at the same time.
const PENDING_INBOUND_MAX: u32 = 64;

/// Connections with one peer: one, one replacing it, and one of each being closed.
const PER_PEER_MAX: u32 = 4;

/// Inbound streams of one connection that negotiate their protocol at the same time.
const NEGOTIATING_STREAMS_MAX: usize = 16;

/// Time to bind the listen address.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// At most one log line about refusals per remote address in this time.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Remote addresses remembered for that.
const REFUSAL_LOG_ADDRESSES_MAX: usize = 256;

/// What differs between the two networks: how a connection is served once it exists.
pub(crate) trait Network: Send + Sync + 'static {
    /// For logs.
    fn name(&self) -> &'static str;

    /// Whether an accepted connection with this peer is up.
    fn is_linked(&self, peer: &PeerId) -> bool;

    /// Runs a connection from its handshake to its end.
    fn serve(self: Arc<Self>, connection: Connection) -> impl Future<Output = Ended> + Send;

    /// A handshake failed; called at most once per address and [`REFUSAL_LOG_INTERVAL`].
    fn refused(&self, address: SocketAddr, error: HandshakeError);
}

/// A connection to serve.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
    pub(crate) dialed: bool,
    pub(crate) streams: LinkStreams,
    accepted: mpsc::Sender<ConnectionId>,
}

impl Connection {
    /// To be called when the handshake is complete. A lost notice only lengthens a later wait.
    pub(crate) fn accept(&self) {
        let _ = self.accepted.try_send(self.id);
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The handshake failed.
    Refused(HandshakeError),
    /// The peer broke the protocol after the handshake.
    Violation(String),
    /// The connection was lost.
    Lost(String),
    /// Another connection with the same peer is kept.
    Retired,
}

/// What a network needs to come up.
pub(crate) struct Setup {
    pub(crate) key: Keypair,
    pub(crate) transport: Transport,
    pub(crate) listen: SocketAddr,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) protocols: Vec<StreamProtocol>,
    pub(crate) connections_max: u32,
    pub(crate) connections_per_ip_max: u32,
}

/// Requests to a running driver. Dropping all senders stops it.
pub(crate) enum Command {
    AddPeer(SocketAddr),
    Stop,
}

const COMMANDS_WAITING_MAX: usize = 64;

/// The driver's outside: where it listens, how to command it and when it has ended.
pub(crate) struct Started {
    pub(crate) address: SocketAddr,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) ended: tokio::sync::watch::Receiver<bool>,
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    limits: connection_limits::Behaviour,
    links: Links,
}

/// Binds the listen address and starts the driver.
pub(crate) async fn start<N: Network>(setup: Setup, network: Arc<N>) -> Result<Started, NetError> {
    transport::check_free(setup.transport, setup.listen)?;
    let mut swarm = swarm(&setup)?;
    let refuse = |reason: String| NetError::Listen { address: setup.listen, reason };
    swarm
        .listen_on(transport::to_multiaddr(setup.transport, setup.listen))
        .map_err(|error| refuse(error.to_string()))?;
    let bound = tokio::time::timeout(LISTEN_TIMEOUT, listening(&mut swarm)).await;
    let port =
        bound.map_err(|_| refuse("no answer from the operating system".to_owned()))?.map_err(refuse)?;
    let address = SocketAddr::new(setup.listen.ip(), port);
    let (commands, commands_rx) = mpsc::channel(COMMANDS_WAITING_MAX);
    let (ended_tx, ended) = tokio::sync::watch::channel(false);
    let (accepted, accepted_rx) = mpsc::channel(COMMANDS_WAITING_MAX);
    let mut driver = Driver {
        swarm,
        network,
        transport: setup.transport,
        dials: DialTable::default(),
        sessions: JoinSet::new(),
        accepted,
        connections: HashMap::new(),
        refusals: HashMap::new(),
    };
    setup.peers.iter().for_each(|peer| driver.add_peer(*peer));
    tokio::spawn(async move {
        driver.run(commands_rx, accepted_rx).await;
        drop(driver);
        let _ = ended_tx.send(true);
    });
    Ok(Started { address, commands, ended })
}

fn swarm(setup: &Setup) -> Result<Swarm<Behaviour>, NetError> {
    let transport = transport::build(setup.transport, &setup.key)?;
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INBOUND_MAX))
        .with_max_established_incoming(Some(setup.connections_max))
        .with_max_established_per_peer(Some(PER_PEER_MAX));
    let per_ip_max = usize::try_from(setup.connections_per_ip_max).unwrap_or(usize::MAX);
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        links: Links::new(setup.protocols.clone().into(), per_ip_max),
    };
    let config = libp2p::swarm::Config::with_tokio_executor()
        .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX);
    Ok(Swarm::new(transport, behaviour, setup.key.public().to_peer_id(), config))
}

async fn listening(swarm: &mut Swarm<Behaviour>) -> Result<u16, String> {
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                if let Some(bound) = transport::to_socket_address(&address) {
                    return Ok(bound.port());
                }
            }
            SwarmEvent::ListenerClosed { reason, .. } => return Err(format!("{reason:?}")),
            SwarmEvent::ListenerError { error, .. } => return Err(error.to_string()),
            _ => {}
        }
    }
}

/// # Invariants
/// `connections` has an entry exactly for the connections whose session runs in `sessions`, by task.
struct Driver<N> {
    swarm: Swarm<Behaviour>,
    network: Arc<N>,
    transport: Transport,
    dials: DialTable,
    sessions: JoinSet<Ended>,
    accepted: mpsc::Sender<ConnectionId>,
    connections: HashMap<task::Id, Served>,
    refusals: HashMap<SocketAddr, Instant>,
}

#[derive(Clone, Copy)]
struct Served {
    id: ConnectionId,
    peer: PeerId,
    address: SocketAddr,
    dialed: bool,
}

impl<N: Network> Driver<N> {
    async fn run(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut accepted: mpsc::Receiver<ConnectionId>,
    ) {
        loop {
            self.dial_due();
            let next_dial = self.dials.next_at();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                Some(ended) = self.sessions.join_next_with_id() => self.on_session_ended(ended),
                Some(connection) = accepted.recv() => self.dials.accepted(connection),
                command = commands.recv() => match command {
                    Some(Command::AddPeer(address)) => self.add_peer(address),
                    Some(Command::Stop) | None => return,
                },
                () = until(next_dial) => {}
            }
        }
    }

    fn add_peer(&mut self, address: SocketAddr) {
        if self.dials.add(address, Instant::now()) {
            self.swarm.behaviour_mut().links.expect_peer_at(address.ip());
        }
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        while let Some(address) = self.dials.due(now, |peer| self.network.is_linked(peer)) {
            // A port of its own: with the listening port, two nodes that dial each other at the same moment
            // would collide.
            let options = DialOpts::unknown_peer_id()
                .address(transport::to_multiaddr(self.transport, address))
                .allocate_new_port()
                .build();
            let connection = options.connection_id();
            self.dials.started(address, connection);
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(network = self.network.name(), %address, %error, "cannot dial");
                // Only our own listen address has no dialable address left.
                let own = matches!(error, DialError::NoAddresses | DialError::LocalPeerId { .. });
                self.dial_failed(connection, own);
            }
        }
    }

    fn dial_failed(&mut self, connection: ConnectionId, own: bool) {
        let outcome = if own { DialOutcome::Own } else { DialOutcome::Unreachable };
        self.dials.ended(connection, outcome, Instant::now(), random_byte());
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(connection_id, peer_id, &endpoint);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                tracing::debug!(network = self.network.name(), %error, "dial failed");
                self.dial_failed(connection_id, matches!(error, DialError::LocalPeerId { .. }));
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                tracing::debug!(network = self.network.name(), %error, address = %send_back_addr, "inbound failed");
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::error!(network = self.network.name(), ?reason, "no longer listening");
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, id: ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
        let remote = transport::to_socket_address(endpoint.get_remote_address());
        let (Some(address), Some(streams)) = (remote, self.swarm.behaviour_mut().links.take(id)) else {
            self.swarm.close_connection(id);
            return;
        };
        let dialed = endpoint.is_dialer();
        if dialed {
            self.dials.reached(id, peer);
        }
        let connection = Connection { id, peer, address, dialed, streams, accepted: self.accepted.clone() };
        let task = self.sessions.spawn(self.network.clone().serve(connection));
        self.connections.insert(task.id(), Served { id, peer, address, dialed });
    }

    fn on_session_ended(&mut self, ended: Result<(task::Id, Ended), task::JoinError>) {
        let (task, ended) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Ended::Violation(format!("serving it failed: {error}"))),
        };
        let Some(Served { id, peer, address, dialed }) = self.connections.remove(&task) else { return };
        self.swarm.close_connection(id);
        let now = Instant::now();
        let outcome = match ended {
            Ended::Refused(error) => {
                // Inbound connections come from a fresh port each time.
                let source = if dialed { address } else { SocketAddr::new(address.ip(), 0) };
                self.report_refusal(source, error, now);
                DialOutcome::Refused
            }
            Ended::Violation(reason) => {
                tracing::warn!(network = self.network.name(), %address, %peer, reason, "peer broke the protocol");
                DialOutcome::Refused
            }
            Ended::Lost(reason) => {
                tracing::debug!(network = self.network.name(), %address, %peer, reason, "connection lost");
                DialOutcome::Lost
            }
            Ended::Retired => DialOutcome::Duplicate,
        };
        self.dials.ended(id, outcome, now, random_byte());
        if outcome != DialOutcome::Refused {
            self.dials.peer_left(&peer, now, random_byte());
        }
    }

    /// Connections that merely broke (scanners, restarts) are no news.
    fn report_refusal(&mut self, address: SocketAddr, error: HandshakeError, now: Instant) {
        if matches!(error, HandshakeError::Broken { .. }) {
            tracing::debug!(network = self.network.name(), %address, %error, "no handshake");
            return;
        }
        let recent = |at: &Instant| now.duration_since(*at) < REFUSAL_LOG_INTERVAL;
        if self.refusals.get(&address).is_some_and(recent) {
            tracing::debug!(network = self.network.name(), %address, %error, "handshake refused");
            return;
        }
        if self.refusals.len() >= REFUSAL_LOG_ADDRESSES_MAX {
            self.refusals.retain(|_, at| recent(at));
        }
        if self.refusals.len() < REFUSAL_LOG_ADDRESSES_MAX {
            self.refusals.insert(address, now);
            tracing::warn!(network = self.network.name(), %address, %error, "handshake refused");
            self.network.refused(address, error);
        }
    }
}

/// Waits for a deadline, if there is one.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// A random byte for jitter. Without the operating system's randomness there is no jitter, which is harmless.
fn random_byte() -> u8 {
    let mut byte = [128];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
