//! Yamux with our own window limits. libp2p's wrapper offers no way to change the receive window of 1 GiB per
//! connection, which a hostile peer could make us fill; this one is the same thin adapter with limits set.

use futures::{AsyncRead, AsyncWrite, future};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use std::collections::VecDeque;
use std::io;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Streams of one connection, both directions, including those being closed.
pub(crate) const STREAMS_MAX: usize = 48;

/// Bytes one connection may have received without our reading them: 256 KiB for each stream plus what busy
/// streams may grow by.
pub(crate) const CONNECTION_WINDOW_BYTES_MAX: usize = 24 << 20;

/// Streams a peer opened that wait for negotiation; further ones are reset.
const PENDING_INBOUND_MAX: usize = 16;

const _: () = assert!(STREAMS_MAX * yamux::DEFAULT_CREDIT as usize <= CONNECTION_WINDOW_BYTES_MAX);

/// The upgrade that turns a secured connection into a multiplexed one.
#[derive(Clone)]
pub(crate) struct BoundedYamux;

impl BoundedYamux {
    fn config() -> yamux::Config {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        config.set_max_connection_receive_window(Some(CONNECTION_WINDOW_BYTES_MAX));
        config
    }
}

impl UpgradeInfo for BoundedYamux {
    type Info = &'static str;
    type InfoIter = iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for BoundedYamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        future::ready(Ok(Muxer::new(yamux::Connection::new(socket, Self::config(), yamux::Mode::Server))))
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for BoundedYamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        future::ready(Ok(Muxer::new(yamux::Connection::new(socket, Self::config(), yamux::Mode::Client))))
    }
}

/// A multiplexed connection.
///
/// # Invariants
/// Yamux makes progress only when asked for the next inbound stream, but libp2p asks for progress without wanting
/// a stream; streams that appear then wait in `pending`, at most [`PENDING_INBOUND_MAX`].
pub(crate) struct Muxer<C> {
    connection: yamux::Connection<C>,
    pending: VecDeque<yamux::Stream>,
    waker: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(connection: yamux::Connection<C>) -> Self {
        Self { connection, pending: VecDeque::new(), waker: None }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, yamux::ConnectionError>> {
        self.connection
            .poll_next_inbound(cx)
            .map(|stream| stream.unwrap_or(Err(yamux::ConnectionError::Closed)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = yamux::Stream;
    type Error = yamux::ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        if let Some(stream) = self.pending.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let polled = self.poll_next(cx);
        if polled.is_pending() {
            self.waker = Some(cx.waker().clone());
        }
        polled
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        self.connection.poll_new_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connection.poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        match self.poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(stream)) => {
                if self.pending.len() < PENDING_INBOUND_MAX {
                    self.pending.push_back(stream);
                    if let Some(waker) = self.waker.take() {
                        waker.wake();
                    }
                }
                // There may be more to do; give other tasks a turn first.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
