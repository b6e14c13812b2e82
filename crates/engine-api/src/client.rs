//! consensusd's side: a connection that keeps itself, with a deadline on every call (EA-6).

use crate::jwt::JwtSecret;
use crate::proto::{self, engine_client};
use crate::server::{FRAME_BYTES, WINDOW_BYTES};
use crate::socket::{self, BoxedStream};
use crate::wire::{FromWire, MESSAGE_BYTES_MAX, NewPayload, ToWire, WireError, error_of, malformed_answer};
use crate::{AWAIT_MS_MAX, Endpoint, compare};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use types::engine::{
    BuiltPayload, Capabilities, EngineError, FinalizedState, Forkchoice, PayloadRequest, PayloadStatus,
};
use types::{B256, Epoch, Header, SystemInputs, Validator};

type Grpc = engine_client::EngineClient<Channel>;

/// How long a token is used before a new one is made. Far below the 60 seconds a server accepts.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(5);

/// Everything a client needs to know. The defaults of [`Self::new`] suit every network.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where the executor listens.
    pub endpoint: Endpoint,
    /// The secret shared with it.
    pub secret: JwtSecret,
    /// Who this side is ([`crate::capabilities_of`]); an executor that differs is never used.
    pub identity: Capabilities,
    /// How long each kind of call may take.
    pub deadlines: Deadlines,
    /// Time between two heartbeats. Default 250 ms.
    pub heartbeat_interval: Duration,
    /// Time a heartbeat may take before the executor counts as down. Default 600 ms: with the interval before it,
    /// a frozen executor is noticed within a second. Calls that still run are not given up by it.
    pub heartbeat_deadline: Duration,
    /// Silence after which the connection is replaced by a new one. Default 15 s, longer than every deadline.
    pub silence_max: Duration,
    /// Pause after the first failed attempt to connect; doubles up to `reconnect_delay_max`. Default 50 ms.
    pub reconnect_delay_min: Duration,
    /// Longest pause between attempts to connect. Default 500 ms.
    pub reconnect_delay_max: Duration,
}

/// How long each kind of call may take. A call past its deadline fails with [`EngineError::Unavailable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Identity on a new connection. Default 1 s.
    pub exchange: Duration,
    /// Building a payload. Default 2 s.
    pub build_payload: Duration,
    /// Executing a block. Default 8 s, as Ethereum's specification has it.
    pub new_payload: Duration,
    /// Making a block durable. Default 8 s, likewise.
    pub forkchoice_updated: Duration,
    /// Reading calls. Default 1 s.
    pub read: Duration,
    /// How much longer than its `max_wait` a long poll may take. Default 1 s.
    pub await_slack: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            exchange: Duration::from_secs(1),
            build_payload: Duration::from_secs(2),
            new_payload: Duration::from_secs(8),
            forkchoice_updated: Duration::from_secs(8),
            read: Duration::from_secs(1),
            await_slack: Duration::from_secs(1),
        }
    }
}

impl ClientConfig {
    /// A configuration with the default times.
    pub fn new(endpoint: Endpoint, secret: JwtSecret, identity: Capabilities) -> Self {
        Self {
            endpoint,
            secret,
            identity,
            deadlines: Deadlines::default(),
            heartbeat_interval: Duration::from_millis(250),
            heartbeat_deadline: Duration::from_millis(600),
            silence_max: Duration::from_secs(15),
            reconnect_delay_min: Duration::from_millis(50),
            reconnect_delay_max: Duration::from_millis(500),
        }
    }
}

/// Whether the executor answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Connected, identified and answering heartbeats.
    Up,
    /// Not connected, refusing the credentials, or silent; with the reason.
    Down(String),
    /// Connected to an executor of another chain, genesis, protocol or rules; names both sides.
    Mismatch(String),
}

impl Health {
    fn of(error: &EngineError) -> Self {
        match error {
            EngineError::Mismatch(reason) => Self::Mismatch(reason.clone()),
            other => Self::Down(other.to_string()),
        }
    }
}

/// A client of one executor. Cheap to clone; the connection ends with the last clone.
///
/// Calls fail at once with the reason while there is no identified executor, and never wait for one.
#[derive(Clone)]
pub struct EngineClient(Arc<Inner>);

struct Inner {
    config: Arc<ClientConfig>,
    tokens: Arc<Tokens>,
    link: watch::Receiver<Link>,
    health: watch::Receiver<Health>,
    _supervisor: AbortOnDropHandle<()>,
}

/// The connection calls may use: only one whose executor identified itself.
#[derive(Clone)]
enum Link {
    Down(EngineError),
    Up { grpc: Grpc, executor: Arc<Capabilities> },
}

impl EngineClient {
    /// Starts connecting in the background; needs a tokio runtime around it, but no executor yet.
    pub fn new(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        let tokens = Arc::new(Tokens::new(config.secret.clone()));
        let starting = EngineError::Unavailable(format!("connecting to {}", config.endpoint));
        let (health_sender, health) = watch::channel(Health::of(&starting));
        let (link_sender, link) = watch::channel(Link::Down(starting));
        let supervisor = Supervisor {
            config: config.clone(),
            tokens: tokens.clone(),
            link: link_sender,
            health: health_sender,
        };
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run()));
        Self(Arc::new(Inner { config, tokens, link, health, _supervisor: supervisor }))
    }

    /// Follows the executor's health.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.health.clone()
    }

    /// Waits until the executor is up, at most `max_wait`.
    pub async fn ready(&self, max_wait: Duration) -> Result<(), EngineError> {
        let mut link = self.0.link.clone();
        let up = link.wait_for(|link| matches!(link, Link::Up { .. }));
        match tokio::time::timeout(max_wait, up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(EngineError::Unavailable("the client is stopping".into())),
            Err(_) => self.connected().map(|_| ()),
        }
    }

    /// What the connected executor says of itself.
    pub fn executor(&self) -> Option<Arc<Capabilities>> {
        match &*self.0.link.borrow() {
            Link::Up { executor, .. } => Some(executor.clone()),
            Link::Down(_) => None,
        }
    }

    /// Builds and executes a payload.
    pub async fn build_payload(&self, request: &PayloadRequest) -> Result<BuiltPayload, EngineError> {
        let deadline = self.0.config.deadlines.build_payload;
        let call = |mut grpc: Grpc, request| async move { grpc.get_payload(request).await };
        answer(BuiltPayload::from_wire(self.call("GetPayload", deadline, request.to_wire(), call).await?))
    }

    /// Executes a block.
    pub async fn new_payload(
        &self,
        header: &Header,
        payload: &[u8],
        system_inputs: &SystemInputs,
    ) -> Result<PayloadStatus, EngineError> {
        let request = NewPayload::wire(header, payload, system_inputs)
            .map_err(|error| EngineError::Illegal(format!("malformed call: {error}")))?;
        let deadline = self.0.config.deadlines.new_payload;
        let call = |mut grpc: Grpc, request| async move { grpc.new_payload(request).await };
        answer(PayloadStatus::from_wire(self.call("NewPayload", deadline, request, call).await?))
    }

    /// Moves the head and makes the finalized block durable. One call at a time: the next after this answered.
    pub async fn forkchoice_updated(&self, forkchoice: &Forkchoice) -> Result<FinalizedState, EngineError> {
        let deadline = self.0.config.deadlines.forkchoice_updated;
        let call = |mut grpc: Grpc, request| async move { grpc.forkchoice_updated(request).await };
        let response = self.call("ForkchoiceUpdated", deadline, forkchoice.to_wire(), call).await?;
        answer(FinalizedState::from_wire(response.finalized))
    }

    /// The durable head.
    pub async fn finalized_state(&self) -> Result<FinalizedState, EngineError> {
        let deadline = self.0.config.deadlines.read;
        let call = |mut grpc: Grpc, request| async move { grpc.finalized_state(request).await };
        let response = self.call("FinalizedState", deadline, proto::FinalizedStateRequest {}, call).await?;
        answer(FinalizedState::from_wire(response.finalized))
    }

    /// The validator set of an epoch, in canonical order.
    pub async fn validator_set(&self, epoch: Epoch) -> Result<Vec<Validator>, EngineError> {
        let deadline = self.0.config.deadlines.read;
        let request = proto::GetValidatorSetRequest { epoch: epoch.get() };
        let call = |mut grpc: Grpc, request| async move { grpc.get_validator_set(request).await };
        answer(Vec::from_wire(self.call("GetValidatorSet", deadline, request, call).await?.set))
    }

    /// True as soon as the executor's pool holds a transaction for a block on `parent_hash`; false after
    /// `max_wait`, cut to [`AWAIT_MS_MAX`].
    pub async fn await_transactions(
        &self,
        parent_hash: B256,
        max_wait: Duration,
    ) -> Result<bool, EngineError> {
        let max_wait_ms = max_wait.as_millis().min(u128::from(AWAIT_MS_MAX)) as u64;
        let deadline = Duration::from_millis(max_wait_ms).saturating_add(self.0.config.deadlines.await_slack);
        let request = proto::AwaitTransactionsRequest { parent_hash: parent_hash.to_vec(), max_wait_ms };
        let call = |mut grpc: Grpc, request| async move { grpc.await_transactions(request).await };
        Ok(self.call("AwaitTransactions", deadline, request, call).await?.pending)
    }

    async fn call<Q, A, F>(
        &self,
        method: &'static str,
        deadline: Duration,
        request: Q,
        call: impl FnOnce(Grpc, Request<Q>) -> F,
    ) -> Result<A, EngineError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let grpc = self.connected()?;
        within(method, deadline, call(grpc, self.0.tokens.sign(request)?)).await
    }

    fn connected(&self) -> Result<Grpc, EngineError> {
        match &*self.0.link.borrow() {
            Link::Up { grpc, .. } => Ok(grpc.clone()),
            Link::Down(error) => Err(error.clone()),
        }
    }
}

fn answer<T>(parsed: Result<T, WireError>) -> Result<T, EngineError> {
    parsed.map_err(|error| malformed_answer(&error))
}

async fn within<A>(
    method: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<Response<A>, Status>>,
) -> Result<A, EngineError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(error_of(&status)),
        Err(_) => Err(EngineError::Unavailable(format!(
            "{method} had no answer within {} ms",
            deadline.as_millis()
        ))),
    }
}

/// Makes tokens, at most one every few seconds.
struct Tokens {
    secret: JwtSecret,
    current: Mutex<Option<(Instant, MetadataValue<Ascii>)>>,
}

impl Tokens {
    fn new(secret: JwtSecret) -> Self {
        Self { secret, current: Mutex::new(None) }
    }

    fn sign<Q>(&self, message: Q) -> Result<Request<Q>, EngineError> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.header()?);
        Ok(request)
    }

    fn header(&self) -> Result<MetadataValue<Ascii>, EngineError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, header)) = &*current
            && made.elapsed() < TOKEN_AGE_MAX
        {
            return Ok(header.clone());
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| EngineError::Unauthenticated("this machine's clock is before 1970".into()))?;
        let mut header: MetadataValue<Ascii> = format!("Bearer {}", self.secret.token(now.as_secs()))
            .parse()
            .expect("a token is base64 and dots");
        header.set_sensitive(true);
        *current = Some((Instant::now(), header.clone()));
        Ok(header)
    }
}

/// Keeps one connection: connect, identify, publish, watch; from the start when it is lost.
struct Supervisor {
    config: Arc<ClientConfig>,
    tokens: Arc<Tokens>,
    link: watch::Sender<Link>,
    health: watch::Sender<Health>,
}

impl Supervisor {
    async fn run(self) {
        let mut delay = self.config.reconnect_delay_min;
        loop {
            let error = match self.connect().await {
                Ok((grpc, executor, closed)) => {
                    delay = self.config.reconnect_delay_min;
                    tracing::info!(endpoint = %self.config.endpoint, version = executor.client_version, "executor is up");
                    self.link.send_replace(Link::Up { grpc: grpc.clone(), executor: Arc::new(executor) });
                    self.health.send_replace(Health::Up);
                    self.watch(grpc, closed).await
                }
                Err(error) => error,
            };
            self.lose(error);
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(self.config.reconnect_delay_max);
        }
    }

    /// A connection whose executor is who it should be, and a signal for its end.
    async fn connect(&self) -> Result<(Grpc, Capabilities, oneshot::Receiver<()>), EngineError> {
        let (endpoint, deadline) = (&self.config.endpoint, self.config.deadlines.exchange);
        let unavailable =
            |reason: String| EngineError::Unavailable(format!("cannot connect to {endpoint}: {reason}"));
        let stream = match tokio::time::timeout(deadline, socket::connect(endpoint)).await {
            Ok(stream) => stream.map_err(|error| unavailable(error.to_string()))?,
            Err(_) => return Err(unavailable(format!("no answer within {} ms", deadline.as_millis()))),
        };
        let (open, closed) = oneshot::channel();
        let channel = channel_over(Watched { stream, _open: open })
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let grpc = Grpc::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let executor = self.exchange(grpc.clone(), deadline).await?;
        Ok((grpc, executor, closed))
    }

    async fn exchange(&self, mut grpc: Grpc, deadline: Duration) -> Result<Capabilities, EngineError> {
        let request = proto::ExchangeRequest { consensus: Some(self.config.identity.to_wire()) };
        let request = self.tokens.sign(request)?;
        let response = within("Exchange", deadline, grpc.exchange(request)).await?;
        let executor = answer(Capabilities::from_wire(response.executor))?;
        compare(&self.config.identity, &executor)?;
        Ok(executor)
    }

    /// Returns why the connection must be given up. Silence alone only changes the health: the executor may be
    /// busy, and an answer that comes late is still right.
    async fn watch(&self, grpc: Grpc, mut closed: oneshot::Receiver<()>) -> EngineError {
        let mut beat = tokio::time::interval(self.config.heartbeat_interval);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_answer = Instant::now();
        loop {
            let heartbeat = async {
                beat.tick().await;
                self.exchange(grpc.clone(), self.config.heartbeat_deadline).await
            };
            let answered = tokio::select! {
                biased;
                _ = &mut closed => return EngineError::Unavailable("the executor closed the connection".into()),
                answered = heartbeat => answered,
            };
            match answered {
                Ok(_) => {
                    last_answer = Instant::now();
                    self.set_health(Health::Up);
                }
                Err(EngineError::Unavailable(reason)) if last_answer.elapsed() < self.config.silence_max => {
                    let silent_ms = last_answer.elapsed().as_millis();
                    self.set_health(Health::Down(format!("no heartbeat for {silent_ms} ms: {reason}")));
                }
                Err(error) => return error,
            }
        }
    }

    fn lose(&self, error: EngineError) {
        self.set_health(Health::of(&error));
        self.link.send_replace(Link::Down(error));
    }

    /// Wakes followers and writes a log line only when something changed.
    fn set_health(&self, health: Health) {
        self.health.send_if_modified(|current| {
            let kind_changed = std::mem::discriminant(current) != std::mem::discriminant(&health);
            match &health {
                Health::Up if kind_changed => tracing::info!("executor answers again"),
                Health::Down(reason) if kind_changed => tracing::warn!(reason, "executor is down"),
                Health::Mismatch(reason) if kind_changed => tracing::error!(reason, "executor does not fit"),
                _ => {}
            }
            let changed = *current != health;
            *current = health;
            changed
        });
    }
}

/// An HTTP/2 channel over exactly this stream: it never reconnects, because a new connection may lead to another
/// executor, which must identify itself first.
async fn channel_over(stream: Watched) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream =
            stream.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "connection lost"));
        std::future::ready(stream)
    });
    // The name only fills the HTTP/2 authority; nothing resolves it.
    tonic::transport::Endpoint::from_static("http://engine.tandem")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .connect_with_connector(connector)
        .await
}

/// A stream whose end is noticed: the transport drops it as soon as the other side closes it.
struct Watched {
    stream: BoxedStream,
    _open: oneshot::Sender<()>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
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
