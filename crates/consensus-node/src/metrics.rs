//! What a Prometheus server sees (`tandem_consensus_*`, `tandem_evidence_*`). Labels are validators, methods and kinds: all bounded.

use consensus::BuiltAhead;
use engine_api::EngineError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ValidatorLabel {
    pub validator: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct CallLabels {
    pub method: &'static str,
    pub status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct MessageLabels {
    pub direction: &'static str,
    pub kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    pub outcome: &'static str,
}

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub height: Gauge,
    pub finalized_height: Gauge,
    pub committed_height: Gauge,
    pub view: Gauge,
    pub epoch: Gauge,
    pub peers: Gauge,
    pub stalled: Gauge,
    pub disk_failed: Gauge,
    pub timeouts: Counter,
    pub proposals: Counter,
    pub rejected_blocks: Counter,
    pub missed_proposals: Family<ValidatorLabel, Counter>,
    pub misbehaviour: Family<ValidatorLabel, Counter>,
    pub messages: Family<MessageLabels, Counter>,
    pub finality: Histogram,
    pub proposal: Histogram,
    payloads_ahead: Family<OutcomeLabel, Counter>,
    pub engine_requests: Family<CallLabels, Histogram, fn() -> Histogram>,
    pub journal_fsync: Histogram,
    pub evidence: EvidenceMetrics,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct OffenceLabel {
    pub offence: &'static str,
}

/// Slashable acts (`tandem_evidence_*`).
#[derive(Debug)]
pub(crate) struct EvidenceMetrics {
    registry: Registry,
    pub found: Family<OffenceLabel, Counter>,
    pub included: Family<OffenceLabel, Counter>,
    pub pending: Gauge,
    pub offenders: Gauge,
}

impl EvidenceMetrics {
    fn new() -> Self {
        let (found, included) = (Family::default(), Family::default());
        let (pending, offenders) = (Gauge::default(), Gauge::default());
        let mut registry = Registry::with_prefix("tandem_evidence");
        registry.register("found", "Evidence verified here, found or heard of, by offence", found.clone());
        registry.register("included", "Evidence in final blocks, by offence", included.clone());
        registry.register("pending", "Evidence that waits for a block", pending.clone());
        registry.register(
            "offenders",
            "Validators named by evidence in final blocks, within the epochs it is valid for",
            offenders.clone(),
        );
        Self { registry, found, included, pending, offenders }
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tandem_consensus");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the software", build);
        let mut metrics = Self {
            registry,
            height: Gauge::default(),
            finalized_height: Gauge::default(),
            committed_height: Gauge::default(),
            view: Gauge::default(),
            epoch: Gauge::default(),
            peers: Gauge::default(),
            stalled: Gauge::default(),
            disk_failed: Gauge::default(),
            timeouts: Counter::default(),
            proposals: Counter::default(),
            rejected_blocks: Counter::default(),
            missed_proposals: Family::default(),
            misbehaviour: Family::default(),
            messages: Family::default(),
            finality: Histogram::new([0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0]),
            proposal: request_histogram(),
            payloads_ahead: Family::default(),
            engine_requests: Family::new_with_constructor(request_histogram as fn() -> Histogram),
            evidence: EvidenceMetrics::new(),
            journal_fsync: Histogram::new([
                0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
            ]),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register("height", "Highest certified height", self.height.clone());
        registry.register("finalized_height", "Last finalized height", self.finalized_height.clone());
        registry.register(
            "committed_height",
            "Highest height proven final, executed here or not",
            self.committed_height.clone(),
        );
        registry.register("view", "Current view", self.view.clone());
        registry.register("epoch", "Current epoch", self.epoch.clone());
        registry.register("peers", "Validators connected", self.peers.clone());
        registry.register(
            "stalled",
            "Reasons why consensus does not move; 0 when all is well",
            self.stalled.clone(),
        );
        registry.register(
            "disk_failed",
            "1 when the journal failed and signing stopped",
            self.disk_failed.clone(),
        );
        registry.register("timeouts", "Views entered because the one before failed", self.timeouts.clone());
        registry.register("proposals", "Blocks proposed by this node", self.proposals.clone());
        registry.register(
            "rejected_blocks",
            "Proposed blocks refused by this node",
            self.rejected_blocks.clone(),
        );
        registry.register(
            "missed_proposals",
            "Views that failed under this validator's lead",
            self.missed_proposals.clone(),
        );
        registry.register("misbehaviour", "Rule violations seen of a validator", self.misbehaviour.clone());
        registry.register("messages", "Consensus messages by direction and kind", self.messages.clone());
        registry.register_with_unit(
            "finality",
            "From a block's timestamp to its finality here",
            Unit::Seconds,
            self.finality.clone(),
        );
        registry.register_with_unit(
            "proposal",
            "From an own block's timestamp to its proposal leaving: building it, the parent's certificate, durability",
            Unit::Seconds,
            self.proposal.clone(),
        );
        registry.register(
            "payloads_ahead",
            "Payloads built before the parent was certified: proposed, dropped, or empty and built again",
            self.payloads_ahead.clone(),
        );
        registry.register_with_unit(
            "engine_request",
            "Calls to the executor by method and outcome",
            Unit::Seconds,
            self.engine_requests.clone(),
        );
        registry.register_with_unit(
            "journal_fsync",
            "Making a batch of records durable",
            Unit::Seconds,
            self.journal_fsync.clone(),
        );
    }

    /// The text Prometheus reads.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, and every metric was registered whole.
        let _ = prometheus_client::encoding::text::encode_registry(&mut text, &self.evidence.registry);
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// What became of payloads built ahead between two looks.
    pub(crate) fn built_ahead(&self, before: BuiltAhead, after: BuiltAhead) {
        let outcomes = [
            ("used", before.used, after.used),
            ("dropped", before.dropped, after.dropped),
            ("refilled", before.refilled, after.refilled),
        ];
        for (outcome, before, after) in outcomes {
            let more = after.saturating_sub(before);
            self.payloads_ahead.get_or_create(&OutcomeLabel { outcome }).inc_by(more);
        }
    }

    pub(crate) fn engine_call<T>(
        &self,
        method: &'static str,
        took: Duration,
        result: &Result<T, EngineError>,
    ) {
        let status = match result {
            Ok(_) => "ok",
            Err(EngineError::Unavailable(_)) => "unavailable",
            Err(EngineError::Unauthenticated(_)) => "unauthenticated",
            Err(EngineError::Illegal(_)) => "illegal",
            Err(EngineError::UnknownBlock(_)) => "unknown_block",
            Err(EngineError::Mismatch(_)) => "mismatch",
            Err(EngineError::Internal(_)) => "internal",
        };
        self.engine_requests.get_or_create(&CallLabels { method, status }).observe(took.as_secs_f64());
    }
}

fn request_histogram() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_names_users_hold_on_to_are_there() {
        let metrics = Metrics::new();
        metrics.missed_proposals.get_or_create(&ValidatorLabel { validator: 2 }).inc();
        metrics.engine_call("NewPayload", Duration::from_millis(3), &Ok(()));
        metrics.evidence.found.get_or_create(&OffenceLabel { offence: "E1" }).inc();
        metrics.built_ahead(BuiltAhead::default(), BuiltAhead { used: 3, dropped: 1, refilled: 0 });
        let text = metrics.encode();
        for name in [
            "tandem_consensus_payloads_ahead_total{outcome=\"used\"} 3",
            "tandem_evidence_found_total{offence=\"E1\"} 1",
            "tandem_evidence_pending 0",
            "tandem_evidence_offenders 0",
            "tandem_consensus_height 0",
            "tandem_consensus_finalized_height 0",
            "tandem_consensus_view 0",
            "tandem_consensus_timeouts_total 0",
            "tandem_consensus_proposals_total 0",
            "tandem_consensus_missed_proposals_total{validator=\"2\"} 1",
            "tandem_consensus_finality_seconds_bucket",
            "tandem_consensus_proposal_seconds_count 0",
            "tandem_consensus_engine_request_seconds_count{method=\"NewPayload\",status=\"ok\"} 1",
            "tandem_consensus_peers 0",
            "tandem_consensus_journal_fsync_seconds_bucket",
            "tandem_consensus_build_info{version=",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
