//! The executor's side: an [`Engine`] behind a socket.

use crate::jwt::{JwtSecret, TokenError};
use crate::proto::{self, engine_server};
use crate::socket::{BoxedStream, Listener};
use crate::wire::{
    FromWire, MESSAGE_BYTES_MAX, NewPayload, ToWire, WireError, hash, status_of, status_of_field,
};
use crate::{AWAIT_MS_MAX, Endpoint, Engine, EngineApiError, compare};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use types::Epoch;
use types::engine::{Capabilities, EngineError, Forkchoice, PayloadRequest};

/// Connections at once. Further ones wait in the socket's backlog.
pub const CONNECTIONS_MAX: usize = 32;

/// Calls of one connection at once.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;

/// Building, executing and forkchoice calls at once, over all connections. Further ones are told to retry.
pub const WORK_CALLS_MAX: usize = 8;

/// Reading calls and heartbeats at once.
pub const READ_CALLS_MAX: usize = 64;

/// Long polls at once.
pub const AWAIT_CALLS_MAX: usize = 64;

/// Time a new connection has to present a valid token before it is closed.
const AUTHENTICATION_TIME: Duration = Duration::from_secs(5);

/// Time running calls have to finish at shutdown before their connections are closed.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Pause after a failed accept: running out of file descriptors must not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// HTTP/2 windows that let a whole payload travel without waiting for window updates.
pub(crate) const WINDOW_BYTES: u32 = 16 << 20;

/// HTTP/2 frame size: large frames keep the cost per megabyte low.
pub(crate) const FRAME_BYTES: u32 = 1 << 20;

/// A running server. Dropping it closes everything at once; [`Self::stopped`] waits for the end.
pub struct ServerHandle {
    endpoint: Endpoint,
    task: AbortOnDropHandle<()>,
    kill: watch::Sender<bool>,
}

impl ServerHandle {
    /// Where it listens; a TCP port 0 has become the real port.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns after the shutdown signal came and every connection is closed.
    pub async fn stopped(mut self) {
        // The task ends only by itself; a panic in it has been reported by the runtime.
        let _ = (&mut self.task).await;
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.kill.send_replace(true);
    }
}

/// Serves `engine` at `endpoint` until `shutdown` resolves. Returns once the endpoint is bound.
pub async fn serve<E: Engine>(
    endpoint: &Endpoint,
    secret: JwtSecret,
    engine: Arc<E>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<ServerHandle, EngineApiError> {
    let listener = Listener::bind(endpoint).await?;
    let endpoint = listener.endpoint().map_err(|error| EngineApiError::io("look at", endpoint, error))?;
    let (kill, killed) = watch::channel(false);
    let (stop, stopping) = oneshot::channel::<()>();
    let (accepted, incoming) = mpsc::channel(1);
    let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, accepted, killed)));
    let service = engine_server::EngineServer::new(Service::new(engine))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let service = InterceptedService::new(service, move |request| authenticate(&secret, request));
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .serve_with_incoming_shutdown(service, ReceiverStream::new(incoming), async move {
            // An error means that the sender is gone, which is a shutdown as well.
            let _ = stopping.await;
        });
    let killer = kill.clone();
    let task = tokio::spawn(async move {
        let serving = tokio::spawn(serving);
        shutdown.await;
        drop(accepting);
        drop(stop);
        finish(serving, &killer).await;
    });
    Ok(ServerHandle { endpoint, task: AbortOnDropHandle::new(task), kill })
}

/// Lets running calls end, then closes what is left.
async fn finish(mut serving: JoinHandle<Result<(), tonic::transport::Error>>, kill: &watch::Sender<bool>) {
    let ended = match tokio::time::timeout(SHUTDOWN_GRACE, &mut serving).await {
        Ok(ended) => ended,
        Err(_) => {
            kill.send_replace(true);
            serving.await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "engine API server ended with an error"),
        Err(error) => tracing::error!(%error, "engine API server task failed"),
    }
}

async fn accept(
    listener: Listener,
    accepted: mpsc::Sender<io::Result<Connection>>,
    killed: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "engine API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if accepted.send(Ok(Connection::new(stream, slot, killed.clone()))).await.is_err() {
            return;
        }
    }
}

/// Whether a connection has presented a valid token yet.
#[derive(Clone, Default)]
struct Standing(Arc<AtomicBool>);

/// An accepted connection: closed when it does not authenticate in time, or when the server ends.
struct Connection {
    stream: BoxedStream,
    standing: Standing,
    closing: Pin<Box<dyn Future<Output = io::Error> + Send>>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: BoxedStream, slot: OwnedSemaphorePermit, killed: watch::Receiver<bool>) -> Self {
        let standing = Standing::default();
        let closing = Box::pin(closing(standing.clone(), killed));
        Self { stream, standing, closing, _slot: slot }
    }
}

async fn closing(standing: Standing, mut killed: watch::Receiver<bool>) -> io::Error {
    let unauthenticated = async {
        tokio::time::sleep(AUTHENTICATION_TIME).await;
        if standing.0.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = unauthenticated => io::Error::new(io::ErrorKind::TimedOut, "no valid token in time"),
        _ = killed.wait_for(|killed| *killed) => io::Error::new(io::ErrorKind::ConnectionAborted, "server stopped"),
    }
}

impl Connected for Connection {
    type ConnectInfo = Standing;

    fn connect_info(&self) -> Standing {
        self.standing.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.closing.as_mut().poll(cx) {
            // The future is done; whoever reads again gets the same end.
            self.closing = Box::pin(std::future::ready(io::Error::from(error.kind())));
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Runs before a request's body is read: who has no valid token costs nothing more (EA-3).
fn authenticate(secret: &JwtSecret, request: Request<()>) -> Result<Request<()>, Status> {
    let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    let token = header
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match token.ok_or(TokenError::Missing).and_then(|(_, token)| secret.verify(token.trim(), now)) {
        Ok(()) => {
            if let Some(standing) = request.extensions().get::<Standing>() {
                standing.0.store(true, Ordering::Relaxed);
            }
            Ok(request)
        }
        Err(error) => {
            tracing::warn!(%error, "engine API call refused");
            Err(status_of(&EngineError::Unauthenticated(error.to_string())))
        }
    }
}

struct Service<E> {
    engine: Arc<E>,
    work: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    awaits: Arc<Semaphore>,
    /// Forkchoice calls are processed in the order they arrive; this mutex is fair.
    forkchoice: Arc<Mutex<()>>,
}

impl<E: Engine> Service<E> {
    fn new(engine: Arc<E>) -> Self {
        Self {
            engine,
            work: Arc::new(Semaphore::new(WORK_CALLS_MAX)),
            reads: Arc::new(Semaphore::new(READ_CALLS_MAX)),
            awaits: Arc::new(Semaphore::new(AWAIT_CALLS_MAX)),
            forkchoice: Arc::default(),
        }
    }

    /// Runs a call to its end as a task of its own, whatever becomes of the caller.
    async fn run<T: Send + 'static>(
        &self,
        slots: &Arc<Semaphore>,
        call: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, Status> {
        let slot = slots.clone().try_acquire_owned().map_err(|_| busy())?;
        let task = tokio::spawn(async move {
            let answer = call.await;
            drop(slot);
            answer
        });
        answer_of(task.await)
    }
}

fn answer_of<T>(joined: Result<Result<T, EngineError>, tokio::task::JoinError>) -> Result<T, Status> {
    match joined {
        Ok(answer) => answer.map_err(|error| status_of(&error)),
        Err(error) => {
            tracing::error!(%error, "an engine call panicked");
            Err(status_of(&EngineError::Internal(
                "the executor panicked in this call; its log says where".into(),
            )))
        }
    }
}

fn busy() -> Status {
    status_of(&EngineError::Unavailable("too many calls of this kind are running".into()))
}

fn parsed<T>(parsed: Result<T, WireError>) -> Result<T, Status> {
    parsed.map_err(|error| status_of_field(&error))
}

#[tonic::async_trait]
impl<E: Engine> engine_server::Engine for Service<E> {
    async fn exchange(
        &self,
        request: Request<proto::ExchangeRequest>,
    ) -> Result<Response<proto::ExchangeResponse>, Status> {
        let consensus = parsed(Capabilities::from_wire(request.into_inner().consensus))?;
        let engine = self.engine.clone();
        let executor = self.run(&self.reads, async move { engine.capabilities().await }).await?;
        compare(&consensus, &executor).map_err(|error| status_of(&error))?;
        Ok(Response::new(proto::ExchangeResponse { executor: Some(executor.to_wire()) }))
    }

    async fn get_payload(
        &self,
        request: Request<proto::GetPayloadRequest>,
    ) -> Result<Response<proto::GetPayloadResponse>, Status> {
        let request = parsed(PayloadRequest::from_wire(request.into_inner()))?;
        let engine = self.engine.clone();
        let built = self.run(&self.work, async move { engine.build_payload(request).await }).await?;
        Ok(Response::new(built.to_wire()))
    }

    async fn new_payload(
        &self,
        request: Request<proto::NewPayloadRequest>,
    ) -> Result<Response<proto::NewPayloadResponse>, Status> {
        let NewPayload { header, payload, system_inputs } =
            parsed(NewPayload::from_wire(request.into_inner()))?;
        let engine = self.engine.clone();
        let call = async move { engine.new_payload(header, payload, system_inputs).await };
        Ok(Response::new(self.run(&self.work, call).await?.to_wire()))
    }

    async fn forkchoice_updated(
        &self,
        request: Request<proto::ForkchoiceUpdatedRequest>,
    ) -> Result<Response<proto::ForkchoiceUpdatedResponse>, Status> {
        let forkchoice = parsed(Forkchoice::from_wire(request.into_inner()))?;
        let (engine, order) = (self.engine.clone(), self.forkchoice.clone());
        let call = async move {
            let _turn = order.lock().await;
            engine.forkchoice_updated(forkchoice).await
        };
        let finalized = self.run(&self.work, call).await?.to_wire();
        Ok(Response::new(proto::ForkchoiceUpdatedResponse { finalized: Some(finalized) }))
    }

    async fn get_validator_set(
        &self,
        request: Request<proto::GetValidatorSetRequest>,
    ) -> Result<Response<proto::GetValidatorSetResponse>, Status> {
        let epoch = Epoch::new(request.into_inner().epoch);
        let engine = self.engine.clone();
        let set = self.run(&self.reads, async move { engine.validator_set(epoch).await }).await?.to_wire();
        Ok(Response::new(proto::GetValidatorSetResponse { set: Some(set) }))
    }

    async fn finalized_state(
        &self,
        _: Request<proto::FinalizedStateRequest>,
    ) -> Result<Response<proto::FinalizedStateResponse>, Status> {
        let engine = self.engine.clone();
        let finalized = self.run(&self.reads, async move { engine.finalized_state().await }).await?.to_wire();
        Ok(Response::new(proto::FinalizedStateResponse { finalized: Some(finalized) }))
    }

    async fn await_transactions(
        &self,
        request: Request<proto::AwaitTransactionsRequest>,
    ) -> Result<Response<proto::AwaitTransactionsResponse>, Status> {
        let request = request.into_inner();
        let parent_hash = parsed(hash("parent_hash", &request.parent_hash))?;
        let max_wait = Duration::from_millis(request.max_wait_ms.min(AWAIT_MS_MAX));
        let _slot = self.awaits.try_acquire().map_err(|_| busy())?;
        let engine = self.engine.clone();
        // A task, so that a panic is answered; dropped with the call, because a wait nobody waits for is waste.
        let task = tokio::spawn(async move { engine.await_transactions(parent_hash, max_wait).await });
        let pending = answer_of(AbortOnDropHandle::new(task).await)?;
        Ok(Response::new(proto::AwaitTransactionsResponse { pending }))
    }
}
