//! Requests by method and outcome.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::collections::HashMap;

/// What the server counts. Cheap to clone; clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct RpcMetrics {
    requests: Family<RequestLabels, Counter>,
    connections: Gauge,
    connections_refused: Counter,
    subscribers_dropped: Counter,
}

/// Labels of a request. Both have few values: names of unknown methods are not recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    outcome: &'static str,
}

impl RpcMetrics {
    /// Registers the metrics; names get the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("rpc_requests", "JSON-RPC calls by method and outcome", self.requests.clone());
        registry.register("rpc_connections", "Open JSON-RPC connections", self.connections.clone());
        registry.register(
            "rpc_connections_refused",
            "Connections closed because too many were open",
            self.connections_refused.clone(),
        );
        registry.register(
            "rpc_subscribers_dropped",
            "WebSocket connections closed because their reader was too slow",
            self.subscribers_dropped.clone(),
        );
    }

    /// Calls counted so far for a method (`unknown` stands for all the methods there are not) and an outcome
    /// (`ok`, `error` or `invalid`).
    pub fn requests(&self, method: &'static str, outcome: &'static str) -> u64 {
        self.requests.get_or_create_owned(&RequestLabels { method, outcome }).get()
    }

    /// WebSocket connections closed so far because their reader was too slow.
    pub fn subscribers_dropped(&self) -> u64 {
        self.subscribers_dropped.get()
    }

    pub(super) fn connections(&self) -> &Gauge {
        &self.connections
    }

    pub(super) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub(super) fn subscriber_dropped(&self) {
        self.subscribers_dropped.inc();
    }
}

/// The counters of every known method, looked up once so that a request pays one hash lookup and one
/// addition.
#[derive(Debug)]
pub(super) struct RequestCounters {
    methods: HashMap<&'static str, MethodCounters>,
    unknown: MethodCounters,
}

#[derive(Debug)]
struct MethodCounters {
    ok: Counter,
    error: Counter,
    invalid: Counter,
}

/// JSON-RPC's code for wrong parameters.
const INVALID_PARAMS_CODE: i32 = -32602;

impl RequestCounters {
    pub(super) fn new(metrics: &RpcMetrics, methods: impl Iterator<Item = &'static str>) -> Self {
        let counters = |method| {
            let counter = |outcome| metrics.requests.get_or_create_owned(&RequestLabels { method, outcome });
            MethodCounters { ok: counter("ok"), error: counter("error"), invalid: counter("invalid") }
        };
        Self {
            methods: methods.map(|method| (method, counters(method))).collect(),
            unknown: counters("unknown"),
        }
    }

    pub(super) fn count(&self, method: &str, error_code: Option<i32>) {
        let counters = self.methods.get(method).unwrap_or(&self.unknown);
        match error_code {
            None => counters.ok.inc(),
            Some(INVALID_PARAMS_CODE) => counters.invalid.inc(),
            Some(_) => counters.error.inc(),
        };
    }
}
