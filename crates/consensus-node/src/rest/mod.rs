//! The REST interface (JSON), its event stream, its description and the dashboard. Reads only: nothing here can
//! change what the node does. Every list is bounded and every handler waits a bounded time.

mod chain;
mod events;
mod evidence;
mod guard;
mod proofs;
mod status;
mod views;

use crate::driver::{Asker, Core};
use crate::feed::Feed;
use crate::metrics::Metrics;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use engine_api::EngineClient;
use net::MeshHandle;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use types::{B256, PublicKey};

/// How long a question may wait for the consensus thread; it is busy only while its disk is.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Event streams at once.
const STREAMS_MAX: usize = 64;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub asker: Asker,
    pub feed: Arc<Feed>,
    pub metrics: Arc<Metrics>,
    pub engine: EngineClient,
    pub mesh: MeshHandle,
    pub genesis: GenesisFacts,
    /// The key this node was given, whether in the set or not.
    pub public_keys: Vec<PublicKey>,
    pub started: Instant,
}

/// What the interface says of the genesis.
#[derive(Clone, Debug)]
pub(crate) struct GenesisFacts {
    pub chain_id: u64,
    pub hash: B256,
    pub timestamp_ms: u64,
    pub epoch_length: u64,
}

/// Which web pages and host names may use the interface.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub listen: SocketAddr,
    pub allowed_hosts: Vec<String>,
    pub cors_origins: Vec<String>,
}

/// An answer that is no success: `{"code": 404, "message": ".."}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
    }

    fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: message.into() }
    }

    fn disk(error: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: error.to_string() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.status.as_u16(), "message": self.message });
        (self.status, Json(body)).into_response()
    }
}

type Answer = Result<Json<Value>, ApiError>;

impl App {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Asks the consensus thread; an error when it does not answer in time.
    async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core<'_>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(ANSWER_TIME, self.0.asker.ask(look)).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(ApiError::unavailable("too many questions wait for the consensus thread")),
            Err(_) => {
                let waited = ANSWER_TIME.as_millis();
                Err(ApiError::unavailable(format!("the consensus thread did not answer within {waited} ms")))
            }
        }
    }
}

/// The whole interface.
pub(crate) fn router(app: App, access: &Access) -> Router {
    let streams = Arc::new(Semaphore::new(STREAMS_MAX));
    let routes = Router::new()
        .route("/", get(dashboard))
        .route("/openapi.json", get(openapi))
        .route("/node/v1/health", get(status::health))
        .route("/node/v1/status", get(status::status))
        .route("/node/v1/peers", get(status::peers))
        .route("/node/v1/version", get(status::version))
        .route("/consensus/v1/head", get(chain::head))
        .route("/consensus/v1/headers", get(chain::recent))
        .route("/consensus/v1/headers/{id}", get(chain::header))
        .route("/consensus/v1/commit/{height}", get(chain::commit))
        .route("/consensus/v1/update/{height}", get(proofs::update))
        .route("/consensus/v1/decision/{height}", get(chain::decision))
        .route("/consensus/v1/validators", get(chain::validators))
        .route("/consensus/v1/proposers", get(chain::proposers))
        .route("/consensus/v1/epoch", get(chain::epoch))
        .route("/consensus/v1/evidence", get(evidence::evidence))
        .route("/consensus/v1/events", get(move |state, query| events::stream(state, query, streams.clone())))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app);
    guard::protect(routes, access)
}

/// The metrics port.
pub(crate) fn metrics_router(app: App) -> Router {
    Router::new().route("/metrics", get(metrics)).fallback(unknown).with_state(app)
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let report = status::report(&app).await;
    app.0.metrics.stalled.set(i64::try_from(report.reasons.len()).unwrap_or(i64::MAX));
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, HeaderValue::from_static(format))], app.0.metrics.encode())
}

async fn dashboard() -> impl IntoResponse {
    // The page needs nothing but itself and this server, and may do nothing else.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy))];
    (headers, Html(include_str!("dashboard.html")))
}

async fn openapi() -> impl IntoResponse {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], include_str!("openapi.json"))
}

async fn unknown() -> ApiError {
    ApiError::not_found("no such path; /openapi.json lists them all")
}

async fn wrong_method() -> ApiError {
    ApiError { status: StatusCode::METHOD_NOT_ALLOWED, message: "only GET is possible here".into() }
}
