//! How bytes travel: TCP + Noise + yamux, or QUIC. Both authenticate the other side's network key and encrypt.

use crate::error::NetError;
use crate::muxer::{BoundedYamux, CONNECTION_WINDOW_BYTES_MAX, STREAMS_MAX};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport as _, noise, quic, tcp};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Which transport a network uses. All its nodes must use the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP with Noise and yamux. Cheaper and faster on a good network (tests/measure.rs, loopback: one way 21 against
    /// 41 µs at a vote's pace, 40 against 60 µs of CPU per message for both ends together, a 1 MiB proposal 0.8
    /// against 1.5 ms of CPU, and no CPU at all when idle).
    #[default]
    Tcp,
    /// QUIC over UDP. Loses nothing to head-of-line blocking on lossy links.
    Quic,
}

/// Time for the transport's own handshake: accept, encrypt, multiplex.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes the kernel may hold unsent per TCP connection. A proposal that fills megabytes of socket buffer would
/// hold up every later vote on the connection; with this bound the multiplexer decides what goes next.
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// A QUIC connection without any packet for this long is dead.
const QUIC_IDLE_MS_MAX: u32 = 6_000;

/// Bytes of one QUIC stream that may be in flight.
const QUIC_STREAM_WINDOW_BYTES_MAX: u32 = 12 << 20;

const _: () = assert!((QUIC_STREAM_WINDOW_BYTES_MAX as usize) < CONNECTION_WINDOW_BYTES_MAX);

pub(crate) fn build(
    transport: Transport,
    key: &Keypair,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    match transport {
        Transport::Tcp => tcp_transport(key),
        Transport::Quic => Ok(quic_transport(key)),
    }
}

fn tcp_transport(key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let noise = noise::Config::new(key).map_err(|error| NetError::Broken { reason: error.to_string() })?;
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|stream, _| bound_unsent(stream))
        .upgrade(Version::V1)
        .authenticate(noise)
        .multiplex(BoundedYamux)
        .timeout(CONNECT_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed())
}

fn quic_transport(key: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    let mut config = quic::Config::new(key);
    config.handshake_timeout = CONNECT_TIMEOUT;
    config.max_idle_timeout = QUIC_IDLE_MS_MAX;
    config.keep_alive_interval = Duration::from_millis(u64::from(QUIC_IDLE_MS_MAX) / 3);
    config.max_concurrent_stream_limit = STREAMS_MAX as u32;
    config.max_stream_data = QUIC_STREAM_WINDOW_BYTES_MAX;
    config.max_connection_data = CONNECTION_WINDOW_BYTES_MAX as u32;
    quic::tokio::Transport::new(config).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed()
}

/// A kernel that does not know the option only loses fairness between large and small messages.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn bound_unsent(stream: tcp::tokio::TcpStream) -> tcp::tokio::TcpStream {
    if let Err(error) = socket2::SockRef::from(&stream.0).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        tracing::debug!(%error, "cannot bound unsent bytes of a connection");
    }
    stream
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn bound_unsent(stream: tcp::tokio::TcpStream) -> tcp::tokio::TcpStream {
    let _ = UNSENT_BYTES_MAX;
    stream
}

/// Whether `address` is free. libp2p listens with `SO_REUSEPORT`, with which a second node of the same user would
/// silently share the port; this makes it an error.
pub(crate) fn check_free(transport: Transport, address: SocketAddr) -> Result<(), NetError> {
    if address.port() == 0 {
        return Ok(());
    }
    let bound = match transport {
        Transport::Tcp => std::net::TcpListener::bind(address).map(drop),
        Transport::Quic => std::net::UdpSocket::bind(address).map(drop),
    };
    bound.map_err(|error| NetError::Listen { address, reason: error.to_string() })
}

pub(crate) fn to_multiaddr(transport: Transport, address: SocketAddr) -> Multiaddr {
    let base = Multiaddr::from(address.ip());
    match transport {
        Transport::Tcp => base.with(Protocol::Tcp(address.port())),
        Transport::Quic => base.with(Protocol::Udp(address.port())).with(Protocol::QuicV1),
    }
}

pub(crate) fn to_socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut ip = None;
    for part in address.iter() {
        match part {
            Protocol::Ip4(v4) => ip = Some(IpAddr::V4(v4)),
            Protocol::Ip6(v6) => ip = Some(IpAddr::V6(v6)),
            Protocol::Tcp(port) | Protocol::Udp(port) => return Some(SocketAddr::new(ip?, port)),
            _ => return None,
        }
    }
    None
}
