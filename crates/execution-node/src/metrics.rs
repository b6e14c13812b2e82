//! What executord counts, and the endpoint that shows it (Prometheus text format).

use crate::executor::ExecutorShared;
use crate::lanes::LaneFigures;
use crate::rpc::RpcMetrics;
use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets, linear_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};
use state::BlockRecord;
use std::sync::Arc;
use std::time::Duration;

/// Prefix of every metric.
const PREFIX: &str = "tandem_execution";

/// The executor's counters. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    height: Gauge,
    transactions: Counter,
    gas: Counter,
    execution: Histogram,
    build: Histogram,
    commit: Histogram,
    lanes: Histogram,
    segments: Histogram,
    widest_lane: Histogram,
    serial_blocks: Counter,
    replayed_blocks: Counter,
    access_bytes: Counter,
    engine: Family<EngineLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineLabels {
    method: &'static str,
    status: &'static str,
}

/// From 0.1 ms to 6.5 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 17))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            height: Gauge::default(),
            transactions: Counter::default(),
            gas: Counter::default(),
            execution: seconds(),
            build: seconds(),
            commit: seconds(),
            lanes: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
            segments: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            widest_lane: Histogram::new(linear_buckets(0.1, 0.1, 10)),
            serial_blocks: Counter::default(),
            replayed_blocks: Counter::default(),
            access_bytes: Counter::default(),
            engine: Family::new_with_constructor(seconds),
        }
    }
}

impl Metrics {
    pub fn started(&self, height: u64) {
        self.height.set(i64::try_from(height).unwrap_or(i64::MAX));
    }

    pub fn built(&self, time: Duration) {
        self.build.observe(time.as_secs_f64());
    }

    pub fn executed(&self, time: Duration) {
        self.execution.observe(time.as_secs_f64());
        self.replayed_blocks.inc();
    }

    /// Counts a final block's lanes; blocks without transactions have none.
    pub fn lanes(&self, figures: &LaneFigures, outline_bytes: usize) {
        if figures.lanes.is_empty() {
            return;
        }
        self.lanes.observe(figures.lanes.len() as f64);
        self.segments.observe(figures.segments() as f64);
        self.widest_lane.observe(figures.share(figures.widest()) as f64 / 1000.0);
        self.serial_blocks.inc_by(u64::from(figures.segments() == 1));
        self.access_bytes.inc_by(outline_bytes as u64);
    }

    pub fn finalized(&self, block: &BlockRecord, commit_time: Duration) {
        self.height.set(i64::try_from(block.height).unwrap_or(i64::MAX));
        self.transactions.inc_by(block.transaction_count.into());
        self.gas.inc_by(block.gas_used);
        self.commit.observe(commit_time.as_secs_f64());
    }

    pub fn engine_request(&self, method: &'static str, status: &'static str, time: Duration) {
        self.engine.get_or_create_owned(&EngineLabels { method, status }).observe(time.as_secs_f64());
    }

    /// A registry with everything this process shows.
    pub fn registry(&self, rpc: &RpcMetrics, shared: &Arc<ExecutorShared>) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("head_height", "Height of the newest finalized block", self.height.clone());
        registry.register("transactions", "Finalized transactions since start", self.transactions.clone());
        registry.register("gas", "Gas of finalized transactions since start", self.gas.clone());
        let seconds = Unit::Seconds;
        for (name, help, histogram) in [
            ("execution", "Time to recover and execute a received payload", &self.execution),
            ("build", "Time to select and execute an own payload", &self.build),
            ("commit", "Time to make a finalized block durable", &self.commit),
        ] {
            registry.register_with_unit(name, help, seconds.clone(), histogram.clone());
        }
        for (name, help, histogram) in [
            ("lanes", "Lanes of a final block with transactions", &self.lanes),
            ("segments", "Pieces of all lanes of a final block: what can run at once", &self.segments),
            ("widest_lane_share", "Share of the heaviest lane in a final block's gas", &self.widest_lane),
        ] {
            registry.register(name, help, histogram.clone());
        }
        for (name, help, counter) in [
            (
                "serial_blocks",
                "Final blocks with transactions in one piece, which run serially",
                &self.serial_blocks,
            ),
            (
                "replayed_blocks",
                "Payloads that were executed because they were not built here",
                &self.replayed_blocks,
            ),
            ("access_bytes", "Bytes of lanes and access sets in final payloads", &self.access_bytes),
        ] {
            registry.register(name, help, counter.clone());
        }
        let help = "Engine API calls by method and outcome, waiting included";
        registry.register_with_unit("engine_request", help, seconds, self.engine.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the software", build);
        registry.register_collector(Box::new(Live(shared.clone())));
        rpc.register(&mut registry);
        registry
    }
}

/// Values that are looked up when asked for.
#[derive(Debug)]
struct Live(Arc<ExecutorShared>);

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let pool = self.0.chain.pool();
        let status = pool.status();
        let poisoned = i64::from(self.0.poison.lock().is_some());
        let unfinalized = self.0.tree.lock().len();
        let gauges = [
            ("txpool_pending", "Pooled transactions that could be mined next", whole(status.pending)),
            ("txpool_queued", "Pooled transactions that wait for others", whole(status.queued)),
            ("txpool_bytes", "Encoded bytes of all pooled transactions", whole(status.bytes)),
            ("txpool_waiting", "Transactions waiting for admission", whole(pool.waiting())),
            ("unfinalized_blocks", "Executed blocks that are not final yet", whole(unfinalized)),
            ("storage_failed", "1 when a storage error stopped the executor", poisoned),
        ];
        for (name, help, value) in gauges {
            put_gauge(&mut encoder, name, help, value)?;
        }
        if let Some(process) = ProcessUse::read() {
            put_gauge(
                &mut encoder,
                "process_resident_memory_bytes",
                "Resident memory",
                process.memory_bytes,
            )?;
            let counter = ConstCounter::new(process.cpu_seconds);
            let name = "process_cpu_seconds";
            let descriptor =
                encoder.encode_descriptor(name, "Processor time used", None, counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        Ok(())
    }
}

fn put_gauge(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    value: i64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn whole(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What this process uses, where the system tells.
struct ProcessUse {
    memory_bytes: i64,
    cpu_seconds: f64,
}

impl ProcessUse {
    fn read() -> Option<Self> {
        let pages: i64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Fields are counted behind the command name, which is in parentheses and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let user: f64 = fields.next()?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        let page_bytes = i64::try_from(rustix::param::page_size()).ok()?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self { memory_bytes: pages.saturating_mul(page_bytes), cpu_seconds: (user + system) / ticks })
    }
}

/// Serves `/metrics` and `/health` on `listener` until `shutdown` resolves.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    registry: Registry,
    shared: Arc<ExecutorShared>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let state = Arc::new((registry, shared));
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/health", get(show_health))
        .with_state(state);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(shutdown).await {
        tracing::error!(%error, "metrics server ended");
    }
}

type Served = State<Arc<(Registry, Arc<ExecutorShared>)>>;

async fn show_metrics(State(state): Served) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &state.0) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => {
            let kind = "text/plain; charset=utf-8";
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, kind)], error.to_string())
        }
    }
}

async fn show_health(State(state): Served) -> impl IntoResponse {
    match &*state.1.poison.lock() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
