//! Streams of single connections, handed to the task that serves the connection.
//!
//! `libp2p-stream` is not used: it addresses streams by peer and picks a random connection, keeps an entry for
//! every connection there ever was, and cannot say when a connection ended. Here each connection has its own two
//! bounded channels, which close when it ends.

use crate::rate::{Rate, Usage};
use futures::future::{Ready, ready};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::UpgradeInfo;
use libp2p::core::{Endpoint, InboundUpgrade, OutboundUpgrade};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    Stream, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Negotiated inbound streams that wait for the connection's task; further ones are reset.
const INBOUND_WAITING_MAX: usize = 16;

/// Requests for outbound streams that wait for the connection.
const OPEN_WAITING_MAX: usize = 16;

/// Time for negotiating one stream.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Position of a protocol in the network's list.
pub(crate) type ProtocolIndex = usize;

/// The connection-side ends of a new connection's channels.
pub(crate) struct LinkStreams {
    /// Streams the peer opened, with their protocol.
    pub(crate) inbound: mpsc::Receiver<(ProtocolIndex, Stream)>,
    /// Opens streams to the peer.
    pub(crate) opener: Opener,
}

/// Opens streams on one connection.
#[derive(Clone)]
pub(crate) struct Opener {
    protocols: Arc<[StreamProtocol]>,
    requests: mpsc::Sender<OpenRequest>,
}

struct OpenRequest {
    protocol: StreamProtocol,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Stream, OpenError>>;

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the connection is closed")]
    Closed,
    #[error("opening a stream: {0}")]
    Io(std::io::Error),
}

impl Opener {
    /// Opens a stream for one of the network's protocols.
    pub(crate) async fn open(&self, protocol: ProtocolIndex) -> Result<Stream, OpenError> {
        let protocol = self.protocols.get(protocol).cloned().ok_or(OpenError::Closed)?;
        let (reply, stream) = oneshot::channel();
        self.requests.send(OpenRequest { protocol, reply }).await.map_err(|_| OpenError::Closed)?;
        stream.await.map_err(|_| OpenError::Closed)?
    }
}

/// The behaviour: makes a handler and a channel pair per connection, and bounds inbound connections per IP
/// address.
pub(crate) struct Links {
    protocols: Arc<[StreamProtocol]>,
    fresh: HashMap<ConnectionId, LinkStreams>,
    inbound_ips: HashMap<ConnectionId, IpAddr>,
    sources: HashMap<IpAddr, Source>,
    per_ip_max: usize,
    extra_per_ip: HashMap<IpAddr, usize>,
}

/// An IP address that connects to us.
struct Source {
    open: usize,
    usage: Usage,
}

/// IP addresses without a connection whose rate is remembered.
const SOURCES_MAX: usize = 4096;

/// New connections per IP address: each costs a key exchange.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);
const CONNECT_BURST: u32 = 64;

/// An address has too many connections here, or makes them too fast.
#[derive(Debug, thiserror::Error)]
enum TooManyFromAddress {
    #[error("{ip} has {limit} connections already")]
    Open { ip: IpAddr, limit: usize },
    #[error("{ip} connects more than {} times per second", 1000 / CONNECT_INTERVAL.as_millis())]
    Fast { ip: IpAddr },
}

impl Links {
    pub(crate) fn new(protocols: Arc<[StreamProtocol]>, per_ip_max: usize) -> Self {
        Self {
            protocols,
            fresh: HashMap::new(),
            inbound_ips: HashMap::new(),
            sources: HashMap::new(),
            per_ip_max,
            extra_per_ip: HashMap::new(),
        }
    }

    /// A configured peer's address: its host may have two more connections (one, and one replacing it).
    pub(crate) fn expect_peer_at(&mut self, ip: IpAddr) {
        let extra = self.extra_per_ip.entry(ip).or_default();
        *extra = extra.saturating_add(2);
    }

    /// The channels of a connection that was just established; once per connection.
    pub(crate) fn take(&mut self, connection: ConnectionId) -> Option<LinkStreams> {
        self.fresh.remove(&connection)
    }

    fn handler(&mut self, connection: ConnectionId) -> Handler {
        let (inbound_tx, inbound) = mpsc::channel(INBOUND_WAITING_MAX);
        let (requests, requests_rx) = mpsc::channel(OPEN_WAITING_MAX);
        let opener = Opener { protocols: self.protocols.clone(), requests };
        self.fresh.insert(connection, LinkStreams { inbound, opener });
        Handler { protocols: self.protocols.clone(), inbound: inbound_tx, requests: requests_rx }
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.fresh.remove(&connection);
        let Some(ip) = self.inbound_ips.remove(&connection) else { return };
        if let Some(source) = self.sources.get_mut(&ip) {
            source.open = source.open.saturating_sub(1);
        }
    }

    fn count(&mut self, ip: IpAddr, now: Instant) -> Result<(), TooManyFromAddress> {
        if self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, source| source.open > 0 || !source.usage.is_settled(now));
        }
        if self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, source| source.open > 0);
        }
        let expected = self.extra_per_ip.get(&ip).copied().unwrap_or(0);
        let limit = self.per_ip_max.saturating_add(expected);
        let burst = CONNECT_BURST.saturating_add(u32::try_from(expected).unwrap_or(u32::MAX));
        let source = self.sources.entry(ip).or_insert(Source { open: 0, usage: Usage::new(now) });
        if source.open >= limit {
            return Err(TooManyFromAddress::Open { ip, limit });
        }
        if !source.usage.count(Rate { interval: CONNECT_INTERVAL, burst }, now) {
            return Err(TooManyFromAddress::Fast { ip });
        }
        source.open += 1;
        Ok(())
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

impl NetworkBehaviour for Links {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(ip) = ip_of(remote) else { return Ok(()) };
        self.count(ip, Instant::now()).map_err(ConnectionDenied::new)?;
        self.inbound_ips.insert(connection, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.forget(closed.connection_id),
            FromSwarm::ListenFailure(failure) => self.forget(failure.connection_id),
            FromSwarm::DialFailure(failure) => self.forget(failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One connection's half of the channels, inside libp2p's connection task.
pub(crate) struct Handler {
    protocols: Arc<[StreamProtocol]>,
    inbound: mpsc::Sender<(ProtocolIndex, Stream)>,
    requests: mpsc::Receiver<OpenRequest>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Want;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(self.protocols.clone()), ()).with_timeout(NEGOTIATION_TIMEOUT)
    }

    /// Connections end when their task says so, never for being idle.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Want, Reply, Infallible>> {
        match self.requests.poll_recv(cx) {
            Poll::Ready(Some(OpenRequest { protocol, reply })) => {
                let protocol =
                    SubstreamProtocol::new(Want(protocol), reply).with_timeout(NEGOTIATION_TIMEOUT);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Offer, Want, (), Reply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                info: (),
            }) => {
                let Some(index) = self.protocols.iter().position(|p| *p == protocol) else { return };
                if self.inbound.try_send((index, stream)).is_err() {
                    tracing::debug!(%protocol, "reset an inbound stream: too many wait");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                let _ = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let _ = info.send(Err(open_error(error)));
            }
            _ => {}
        }
    }
}

fn open_error(error: StreamUpgradeError<Infallible>) -> OpenError {
    match error {
        StreamUpgradeError::Timeout => OpenError::Io(std::io::ErrorKind::TimedOut.into()),
        StreamUpgradeError::NegotiationFailed => {
            OpenError::Io(std::io::Error::other("the peer does not speak this protocol"))
        }
        StreamUpgradeError::Io(error) => OpenError::Io(error),
        StreamUpgradeError::Apply(never) => match never {},
    }
}

/// What this node answers to when a peer opens a stream.
pub(crate) struct Offer(Arc<[StreamProtocol]>);

/// Iterates the offered protocols without allocating: libp2p asks for them at every poll of a connection.
pub(crate) struct OfferIter {
    protocols: Arc<[StreamProtocol]>,
    next: usize,
}

impl Iterator for OfferIter {
    type Item = StreamProtocol;

    fn next(&mut self) -> Option<StreamProtocol> {
        let protocol = self.protocols.get(self.next).cloned();
        self.next += 1;
        protocol
    }
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = OfferIter;

    fn protocol_info(&self) -> OfferIter {
        OfferIter { protocols: self.0.clone(), next: 0 }
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

/// The one protocol of a stream this node opens.
pub(crate) struct Want(StreamProtocol);

impl UpgradeInfo for Want {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.0.clone())
    }
}

impl OutboundUpgrade<Stream> for Want {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}
