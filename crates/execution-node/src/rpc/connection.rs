//! One TCP connection: its place under the connection limit, its back-pressure and the switch that closes it.
//!
//! The WebSocket server starts a task per message and queues answers without looking at what the client still
//! has to read. So the bound sits below it, at the socket: while a client has too many calls running or too many
//! unread bytes, nothing more is read from it.
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

    fn may_read(&self) -> bool {
        self.running.load(Ordering::Acquire) < RUNNING_CALLS_MAX
            && self.unread_bytes.load(Ordering::Acquire) < UNREAD_BYTES_MAX
    }

    /// Bytes reached the socket. Frame headers and pings were never counted in, so the sum may not go below
    /// zero.
    fn written(&self, bytes: usize) {
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
        if let Poll::Ready(Ok(bytes)) = result {
            self.connection.written(bytes);
        }
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
        if let Poll::Ready(Ok(bytes)) = result {
            self.connection.written(bytes);
        }
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
