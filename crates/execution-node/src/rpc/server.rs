//! The listener: accepts connections under the limit and hands their requests to the gatekeeper.

use super::{
    config::{RpcConfig, RpcConfigError},
    connection::{ConnectionIo, Connections},
    http::Gatekeeper,
    metrics::{RequestCounters, RpcMetrics},
    service::CallLayer,
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonrpsee::{
    Methods,
    core::traits::IdProvider,
    server::{
        BatchRequestConfig, PingConfig, ServerConfig, ServerHandle, StopHandle, TowerServiceBuilder,
        middleware::rpc::RpcServiceBuilder, stop_channel,
    },
    types::SubscriptionId,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tower::layer::util::{Identity, Stack};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum RpcStartError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] RpcConfigError),
    /// The address cannot be listened on.
    #[error("JSON-RPC cannot listen on {address}: {source}{}", hint(source))]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program has this port; stop it or set another rpc.address)",
        io::ErrorKind::AddrNotAvailable => " (this machine has no such address; set another rpc.address)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need privileges; set another rpc.address)",
        _ => "",
    }
}

/// The running server. Dropping it stops the server without waiting.
#[derive(Debug)]
pub struct RpcHandle {
    address: SocketAddr,
    stop: ServerHandle,
    connections: Arc<Connections>,
    accepting: tokio::task::JoinHandle<()>,
}

/// How long calls in progress may take to end after a stop.
const STOP_GRACE: Duration = Duration::from_secs(3);

impl RpcHandle {
    /// The address it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets calls in progress end (for three seconds at most) and closes all connections.
    pub async fn stop(self) {
        // An error means that it has stopped already.
        let _ = self.stop.stop();
        if tokio::time::timeout(STOP_GRACE, self.connections.drained()).await.is_err() {
            self.connections.close_all();
        }
    }
}

impl Drop for RpcHandle {
    fn drop(&mut self) {
        let _ = self.stop.stop();
        self.accepting.abort();
    }
}

/// What connections share.
struct Shared {
    config: RpcConfig,
    methods: Methods,
    services: TowerServiceBuilder<Stack<CallLayer, Identity>, Identity>,
    gatekeeper: Arc<Gatekeeper>,
    connections: Arc<Connections>,
    metrics: RpcMetrics,
    stopping: StopHandle,
}

/// Binds the address and serves `methods` until the handle is stopped or dropped.
pub(super) async fn start(
    methods: Methods,
    config: RpcConfig,
    metrics: RpcMetrics,
) -> Result<RpcHandle, RpcStartError> {
    let bind_error = |source| RpcStartError::Bind { address: config.address, source };
    let listener = TcpListener::bind(config.address).await.map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    let (stopping, stop) = stop_channel();
    let connections = Connections::new(config.connections_max, metrics.connections().clone());
    let shared = Arc::new(Shared {
        services: services(&config, &metrics, &methods),
        gatekeeper: Arc::new(Gatekeeper::new(&config)),
        connections: connections.clone(),
        methods,
        config,
        metrics,
        stopping,
    });
    let accepting = tokio::spawn(accept(listener, shared));
    tracing::info!(%address, "JSON-RPC listens (HTTP and WebSocket)");
    Ok(RpcHandle { address, stop, connections, accepting })
}

fn services(
    config: &RpcConfig,
    metrics: &RpcMetrics,
    methods: &Methods,
) -> TowerServiceBuilder<Stack<CallLayer, Identity>, Identity> {
    let layer = CallLayer {
        counters: Arc::new(RequestCounters::new(metrics, methods.method_names())),
        response_bytes_max: config.response_bytes_max as usize,
    };
    let server = ServerConfig::builder()
        .max_request_body_size(config.request_bytes_max)
        .max_response_body_size(config.response_bytes_max)
        .max_connections(config.connections_max)
        .max_subscriptions_per_connection(config.connection_subscriptions_max)
        .set_batch_request_config(BatchRequestConfig::Limit(config.batch_calls_max))
        .set_message_buffer_capacity(config.connection_messages_max)
        .set_id_provider(HexIds)
        .enable_ws_ping(PingConfig::new())
        .build();
    jsonrpsee::server::Server::builder()
        .set_config(server)
        .set_rpc_middleware(RpcServiceBuilder::new().layer(layer))
        .to_service_builder()
}

/// Pause after the operating system refused to hand out a connection (mostly: no file descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut stopped = std::pin::pin!(shared.stopping.clone().shutdown());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => return,
        };
        match accepted {
            Ok((stream, _)) => admit(stream, &shared),
            Err(error) => {
                tracing::warn!(%error, "JSON-RPC cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn admit(stream: TcpStream, shared: &Arc<Shared>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection is gone already");
        return;
    }
    let Some((connection, io)) = shared.connections.admit(stream) else {
        shared.metrics.connection_refused();
        tracing::debug!(
            max = shared.config.connections_max,
            "JSON-RPC connection refused: too many are open"
        );
        return;
    };
    tokio::spawn(serve_connection(connection, io, shared.clone()));
}

async fn serve_connection(
    connection: Arc<super::connection::Connection>,
    io: ConnectionIo,
    shared: Arc<Shared>,
) {
    let dispatcher = shared.services.clone().build(shared.methods.clone(), shared.stopping.clone());
    let gatekeeper = shared.gatekeeper.clone();
    let service =
        service_fn(move |request| gatekeeper.clone().handle(dispatcher.clone(), connection.clone(), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(shared.config.idle_ms_max))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let mut stopped = std::pin::pin!(shared.stopping.clone().shutdown());
    let result = tokio::select! {
        result = &mut serving => result,
        () = &mut stopped => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "JSON-RPC connection failed");
    }
}

/// Subscription ids that nobody can guess, in geth's form.
#[derive(Debug)]
struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        random_id().into()
    }
}

/// 128 random bits as a hex quantity.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 16];
    // Ids only have to be unique within this process; without randomness they are merely guessable.
    if getrandom::fill(&mut bytes).is_err() {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        bytes[8..].copy_from_slice(&next.to_be_bytes());
    }
    format!("{:#x}", u128::from_be_bytes(bytes))
}
