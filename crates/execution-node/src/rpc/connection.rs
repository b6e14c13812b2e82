//! One TCP connection: its place under the connection limit, its back-pressure and the switch that closes it.
//!
//! The WebSocket server starts a task per message and queues answers without looking at what the client still
//! has to read. So the bound sits below it, at the socket: while a client has too many calls running, too
//! many unread bytes, or takes nothing at all, nothing more is read from it.
//!
//! # Invariants
//! - Whoever makes the gate open again wakes the reader after the change is visible.
//! - A closed connection yields end-of-file to readers and an error to writers, at once and for ever.

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Calls of one WebSocket connection that run at once before reading pauses.
const RUNNING_CALLS_MAX: usize = 64;

/// Answered bytes a WebSocket client has not read yet before reading pauses.
const UNREAD_BYTES_MAX: usize = 8 << 20;

/// Shared handle of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    websocket: AtomicBool,
    running: AtomicUsize,
    unread_bytes: AtomicUsize,
    /// The socket takes no more bytes: the client does not read.
    write_blocked: AtomicBool,
    closed: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Connection {
    fn new() -> Self {
        Self {
            websocket: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            unread_bytes: AtomicUsize::new(0),
            write_blocked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }
    }

    /// From now on answers are queued per message: accounting begins.
    pub(super) fn upgrade(&self) {
        self.websocket.store(true, Ordering::Release);
    }

    pub(super) fn is_websocket(&self) -> bool {
        self.websocket.load(Ordering::Acquire)
    }

    /// Counts a call as running until the guard is dropped.
    pub(super) fn begin_call(self: &Arc<Self>) -> RunningCall {
        self.running.fetch_add(1, Ordering::AcqRel);
        RunningCall(self.clone())
    }

    /// Counts bytes handed to the queue of outgoing messages.
    pub(super) fn queued(&self, bytes: usize) {
        self.unread_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Ends the connection, whatever it is doing.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// An HTTP connection has one request at a time and needs no gate.
    fn may_read(&self) -> bool {
        !self.is_websocket()
            || (self.running.load(Ordering::Acquire) < RUNNING_CALLS_MAX
                && self.unread_bytes.load(Ordering::Acquire) < UNREAD_BYTES_MAX
                && !self.write_blocked.load(Ordering::Acquire))
    }

    /// What the socket said to a write.
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        if result.is_pending() {
            self.write_blocked.store(true, Ordering::Release);
            return;
        }
        if self.write_blocked.swap(false, Ordering::AcqRel) {
            self.reader.wake();
        }
        if let Poll::Ready(Ok(bytes)) = result {
            self.delivered(*bytes);
        }
    }

    /// Bytes reached the socket. Frame headers and pings were never counted in, so the sum may not go below
    /// zero.
    fn delivered(&self, bytes: usize) {
        let before = self.unread_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |unread| {
            (unread > 0).then(|| unread.saturating_sub(bytes))
        });
        if before.is_ok_and(|before| before >= UNREAD_BYTES_MAX) {
            self.reader.wake();
        }
    }
}

/// A call in progress.
#[derive(Debug)]
pub(super) struct RunningCall(Arc<Connection>);

impl Drop for RunningCall {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) >= RUNNING_CALLS_MAX {
            self.0.reader.wake();
        }
    }
}

/// All open connections and the limit on them.
#[derive(Debug)]
pub(super) struct Connections {
    permits: Arc<Semaphore>,
    max: u32,
    open: Mutex<HashMap<u64, Weak<Connection>>>,
    next_id: AtomicU64,
    gauge: prometheus_client::metrics::gauge::Gauge,
}

impl Connections {
    pub(super) fn new(max: u32, gauge: prometheus_client::metrics::gauge::Gauge) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(max as usize)),
            max,
            open: Mutex::default(),
            next_id: AtomicU64::new(0),
            gauge,
        })
    }

    /// Takes a socket under the limit; gives it up when the limit is reached.
    pub(super) fn admit(self: &Arc<Self>, stream: TcpStream) -> Option<(Arc<Connection>, ConnectionIo)> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let connection = Arc::new(Connection::new());
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(id, Arc::downgrade(&connection));
        self.gauge.inc();
        let place = Place { connections: self.clone(), id, _permit: permit };
        Some((connection.clone(), ConnectionIo { stream, connection, _place: place }))
    }

    /// Waits until every connection is gone.
    pub(super) async fn drained(&self) {
        // An error would mean a closed semaphore; it never is, and it would mean the same.
        let _ = self.permits.acquire_many(self.max).await;
    }

    /// Closes whatever is still open.
    pub(super) fn close_all(&self) {
        for connection in self.open.lock().values().filter_map(Weak::upgrade) {
            connection.close();
        }
    }
}

/// A connection's entry in [`Connections`]; lives exactly as long as its socket.
#[derive(Debug)]
struct Place {
    connections: Arc<Connections>,
    id: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.id);
        self.connections.gauge.dec();
    }
}

/// The socket behind its gate.
#[derive(Debug)]
pub(super) struct ConnectionIo {
    stream: TcpStream,
    connection: Arc<Connection>,
    _place: Place,
}

impl AsyncRead for ConnectionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Registered before the state is looked at: a change in between wakes this task.
        self.connection.reader.register(cx.waker());
        if self.connection.is_closed() {
            return Poll::Ready(Ok(()));
        }
        if !self.connection.may_read() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.connection.writer.register(cx.waker());
        if self.connection.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, data);
        self.connection.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connection.writer.register(cx.waker());
        if self.connection.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.connection.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A WebSocket connection's server end and its client.
    async fn pair() -> (Arc<Connections>, Arc<Connection>, ConnectionIo, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let connections = Connections::new(1, Default::default());
        let (connection, io) = connections.admit(server).unwrap();
        connection.upgrade();
        (connections, connection, io, client)
    }

    #[tokio::test]
    async fn nothing_is_read_while_too_many_calls_run() {
        let (_connections, connection, mut io, mut client) = pair().await;
        let mut calls: Vec<_> = (0..RUNNING_CALLS_MAX).map(|_| connection.begin_call()).collect();
        client.write_all(b"x").await.unwrap();
        let mut byte = [0];
        let mut read = std::pin::pin!(io.read(&mut byte));
        assert!(futures::poll!(read.as_mut()).is_pending());
        let (read, ()) = tokio::join!(read, async { drop(calls.pop()) });
        assert_eq!(read.unwrap(), 1);
    }

    #[tokio::test]
    async fn nothing_is_read_while_answers_pile_up() {
        let (_connections, connection, mut io, mut client) = pair().await;
        let answer = vec![0; 1 << 10];
        connection.queued(UNREAD_BYTES_MAX);
        client.write_all(b"x").await.unwrap();
        let mut byte = [0];
        assert!(futures::poll!(std::pin::pin!(io.read(&mut byte))).is_pending());
        io.write_all(&answer).await.unwrap();
        assert_eq!(io.read(&mut byte).await.unwrap(), 1);
        io.write_all(&vec![0; 1 << 10]).await.unwrap();
        connection.delivered(usize::MAX);
        assert_eq!(
            connection.unread_bytes.load(Ordering::Acquire),
            0,
            "uncounted bytes do not count backwards"
        );
    }

    #[tokio::test]
    async fn nothing_is_read_while_the_client_reads_nothing() {
        let (_connections, _connection, io, mut client) = pair().await;
        let (mut reader, mut writer) = tokio::io::split(io);
        let block = vec![0; 64 << 10];
        let mut taken = 0;
        loop {
            let mut writing = std::pin::pin!(writer.write(&block));
            match futures::poll!(writing.as_mut()) {
                Poll::Ready(count) => taken += count.unwrap(),
                Poll::Pending => break,
            }
            tokio::task::yield_now().await;
        }
        client.write_all(b"x").await.unwrap();
        let mut byte = [0];
        assert!(futures::poll!(std::pin::pin!(reader.read(&mut byte))).is_pending());
        let mut received = vec![0; taken];
        client.read_exact(&mut received).await.unwrap();
        writer.write_all(&block).await.unwrap();
        assert_eq!(reader.read(&mut byte).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_closed_connection_wakes_its_reader_and_frees_its_place() {
        let (connections, connection, mut io, mut client) = pair().await;
        let (mut byte, mut closing) = ([0], [0]);
        let (read, ()) = tokio::join!(io.read(&mut byte), async { connection.close() });
        assert_eq!(read.unwrap(), 0);
        assert_eq!(io.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        drop(io);
        connections.drained().await;
        assert_eq!(client.read(&mut closing).await.unwrap_or(0), 0);
    }
}
