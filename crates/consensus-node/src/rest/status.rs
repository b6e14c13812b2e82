//! `/node/v1/*`: where the node stands and, when it does not move, exactly why and who is missing.

use super::{Answer, ApiError, App, views};
use crate::driver::Core;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use consensus::StallReason;
use engine_api::Health;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use types::{Address, B256, Height, PublicKey, Stake, ValidatorIndex, View};

/// How long a second holder of the own key stays in the status after it was last noticed. Nodes dial each other again
/// every few seconds.
const KEY_ELSEWHERE_SHOWN: Duration = Duration::from_secs(300);

/// The answer of `/node/v1/status`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// No reason below stops it.
    pub healthy: bool,
    pub role: &'static str,
    pub index: Option<ValidatorIndex>,
    pub public_key: Option<PublicKey>,
    pub chain_id: u64,
    pub genesis_hash: B256,
    pub epoch: Option<types::Epoch>,
    pub view: Option<View>,
    pub proposer: Option<Member>,
    /// Last finalized height.
    pub height: Option<Height>,
    pub hash: Option<B256>,
    pub certified_height: Option<Height>,
    pub committed_height: Option<Height>,
    pub validators: Option<Presence>,
    pub engine: EngineReport,
    pub uptime_s: u64,
    /// Slashable acts proven to this node.
    pub evidence: Option<Offences>,
    /// Why consensus does not move, the most fundamental reason first.
    pub reasons: Vec<Reason>,
}

/// Evidence known here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Offences {
    /// Pieces that wait for a block.
    pub pending: usize,
    /// Validators that final blocks name, within the epochs evidence is valid for.
    pub named: usize,
}

/// How much of the validator set is here.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Presence {
    pub total: usize,
    pub connected: usize,
    pub total_stake: Stake,
    pub connected_stake: Stake,
    pub required_stake: Stake,
}

/// A validator, as far as an operator needs to know whom to call.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Member {
    pub index: ValidatorIndex,
    pub address: Option<Address>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EngineReport {
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
}

/// Why consensus does not move.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The journal failed: nothing is signed until the operator has mended it.
    DiskFailed { message: String },
    /// The consensus thread is held up, which only its disk can do.
    NotAnswering { message: String },
    /// Something is wrong that needs a human.
    Halted { message: String },
    /// The directory was copied or restored: nothing is signed until the operator says that it is the only one.
    CopiedDirectory { message: String },
    /// The start-up wait for another instance of this validator's key.
    DoppelgangerWait { message: String, views_left: u64, left_ms: u64 },
    /// Another node proved that it holds this validator's key.
    KeyElsewhere { message: String, seconds_ago: u64 },
    /// The executor cannot be reached or does not answer.
    EngineDown { message: String },
    /// The executor belongs to another chain or other rules.
    EngineMismatch { message: String },
    /// The executor is being given blocks it lacks.
    EngineCatchingUp { message: String },
    /// No validator was ever connected since the start.
    WaitingForPeers { message: String, missing: Vec<Member> },
    /// Too little stake is connected.
    BelowQuorum { message: String, connected_stake: Stake, required_stake: Stake, missing: Vec<Member> },
    /// Blocks are being fetched.
    Syncing { message: String, height: Height, target: Height, behind: u64 },
    /// Views keep failing under these proposers.
    Timeouts { message: String, failed: u32, proposer: Member },
}

impl Reason {
    /// What the node's health is with this reason.
    fn severity(&self) -> StatusCode {
        match self {
            Self::Syncing { .. } | Self::EngineCatchingUp { .. } | Self::DoppelgangerWait { .. } => {
                StatusCode::PARTIAL_CONTENT
            }
            // Others' failed views are no fault of this node.
            Self::Timeouts { .. } => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// 200: takes part (or follows). 206: catching up. 503: cannot; the body says why.
pub(super) async fn health(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let report = report(&app).await;
    let code = report.reasons.iter().map(Reason::severity).max().unwrap_or(StatusCode::OK);
    let status = match code {
        StatusCode::OK => "ok",
        StatusCode::PARTIAL_CONTENT => "syncing",
        _ => "stalled",
    };
    (code, Json(json!({ "status": status, "reasons": report.reasons })))
}

pub(super) async fn status(State(app): State<App>) -> Json<Report> {
    Json(report(&app).await)
}

pub(super) async fn version(State(app): State<App>) -> Json<Value> {
    let engine = app.0.engine.executor();
    Json(json!({
        "name": "tandem-consensusd",
        "version": env!("CARGO_PKG_VERSION"),
        "engine_protocol": engine_api::PROTOCOL_VERSION,
        "p2p_protocol": net::PROTOCOL_VERSION,
        "executor": engine.map(|capabilities| capabilities.client_version.clone()),
    }))
}

pub(super) async fn peers(State(app): State<App>) -> Answer {
    let set = app.ask(|core| core.replica.validators().clone()).await?;
    let own = &app.0.public_keys;
    let connected = app.0.mesh.peers();
    let of = |key| connected.iter().find(|peer| peer.validator == Some(key));
    let validators: Vec<Value> = set
        .indices()
        .filter_map(|index| set.get(index).map(|member| (index, member)))
        .filter(|(_, member)| !own.contains(&member.public_key))
        .map(|(index, member)| {
            let link = of(member.public_key).map(link);
            json!({ "index": index, "address": member.address, "connected": link.is_some(), "link": link })
        })
        .collect();
    let observers: Vec<Value> = connected.iter().filter(|peer| peer.validator.is_none()).map(link).collect();
    let address = app.0.mesh.local_address();
    Ok(Json(json!({
        "node_id": app.0.mesh.node_id().to_string(),
        "listen": address,
        "connected": connected.len(),
        "validators": validators,
        "observers": observers,
    })))
}

fn link(peer: &net::PeerInfo) -> Value {
    json!({
        "node_id": peer.node.to_string(),
        "remote": peer.address,
        "direction": if peer.dialed { "outbound" } else { "inbound" },
        "connected_s": peer.connected_for.as_secs(),
        "rtt_ms": peer.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        "sent_messages": peer.sent_messages,
        "sent_bytes": peer.sent_bytes,
        "received_messages": peer.received_messages,
        "received_bytes": peer.received_bytes,
        "dropped_messages": peer.dropped_messages,
    })
}

/// Never fails: what cannot be asked is itself a reason.
pub(super) async fn report(app: &App) -> Report {
    let health = app.0.engine.health().borrow().clone();
    let engine = EngineReport {
        state: match health {
            Health::Up => "up",
            Health::Down(_) => "down",
            Health::Mismatch(_) => "mismatch",
        },
        reason: match &health {
            Health::Up => None,
            Health::Down(reason) | Health::Mismatch(reason) => Some(reason.clone()),
        },
        client_version: app.0.engine.executor().map(|executor| executor.client_version.clone()),
    };
    let mut report = Report {
        healthy: true,
        role: if app.0.public_keys.is_empty() { "follower" } else { "validator" },
        index: None,
        public_key: app.0.public_keys.first().copied(),
        chain_id: app.0.genesis.chain_id,
        genesis_hash: app.0.genesis.hash,
        epoch: None,
        view: None,
        proposer: None,
        height: None,
        hash: None,
        certified_height: None,
        committed_height: None,
        validators: None,
        engine,
        uptime_s: app.0.started.elapsed().as_secs(),
        evidence: None,
        reasons: Vec::new(),
    };
    match app.ask(move |core| Inside::of(core, &health)).await {
        Ok(inside) => inside.complete(&mut report),
        Err(ApiError { message, .. }) => report.reasons.push(Reason::NotAnswering { message }),
    }
    report.healthy = report.reasons.is_empty();
    report
}

/// What only the consensus thread knows.
struct Inside {
    status: consensus::Status,
    epoch: types::Epoch,
    presence: Presence,
    proposer: Member,
    offences: Offences,
    reasons: Vec<Reason>,
}

impl Inside {
    fn of(core: &Core<'_>, health: &Health) -> Self {
        let mut status = core.replica.status(core.now);
        (status.finalized, status.finalized_hash) = core.finalized;
        let set = core.replica.validators();
        let here = |index: &ValidatorIndex| Some(*index) == status.index || status.connected.contains(index);
        let connected_stake =
            set.indices().filter(here).fold(Stake::ZERO, |sum, index| sum.plus(set.stake(index)));
        let presence = Presence {
            total: set.len(),
            connected: set.indices().filter(here).count(),
            total_stake: set.total(),
            connected_stake,
            required_stake: set.quorum(),
        };
        let proposer = member(core, status.proposer);
        let reasons = reasons(core, &status, health);
        let offences = Offences {
            pending: core.replica.evidence_pending().len(),
            named: core.replica.evidence_included().len(),
        };
        Self { epoch: set.epoch(), presence, proposer, offences, reasons, status }
    }

    fn complete(self, report: &mut Report) {
        report.role = if self.status.index.is_some() { "validator" } else { "follower" };
        report.index = self.status.index;
        report.epoch = Some(self.epoch);
        report.view = Some(self.status.view);
        report.proposer = Some(self.proposer);
        report.height = Some(self.status.finalized);
        report.hash = Some(self.status.finalized_hash);
        report.certified_height = Some(self.status.certified);
        report.committed_height = Some(self.status.committed);
        report.validators = Some(self.presence);
        report.evidence = Some(self.offences);
        report.reasons = self.reasons;
    }
}

fn reasons(core: &Core<'_>, status: &consensus::Status, health: &Health) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(failure) = core.failure {
        let message = format!("{failure}; nothing is signed until it is mended and the node restarted");
        reasons.push(Reason::DiskFailed { message });
    }
    if let Some(at) = core.own_key_elsewhere.filter(|at| at.elapsed() < KEY_ELSEWHERE_SHOWN) {
        let message = "another node proved over the network that it holds this validator's key: stop one of the \
                       two; if both sign, the key is slashed";
        let seconds_ago = at.elapsed().as_secs();
        reasons.push(Reason::KeyElsewhere { message: message.into(), seconds_ago });
    }
    // The link notices before the replica is told.
    let replica_knows = status.reasons.iter().any(|reason| matches!(reason, StallReason::Executor(_)));
    match health {
        Health::Down(message) if !replica_knows => {
            reasons.push(Reason::EngineDown { message: message.clone() })
        }
        Health::Mismatch(message) if !replica_knows => {
            reasons.push(Reason::EngineMismatch { message: message.clone() });
        }
        _ => {}
    }
    reasons.extend(status.reasons.iter().map(|reason| told(core, reason, health)));
    reasons
}

fn told(core: &Core<'_>, reason: &StallReason, health: &Health) -> Reason {
    match reason {
        StallReason::Halted(message) => Reason::Halted {
            message: format!(
                "{message}. Nothing is signed until the cause is gone and, with the node stopped, `tandem keys \
                 protection clear-alarm --dir <node directory>` was run"
            ),
        },
        StallReason::Copied { what, seen } => {
            let seen = seen
                .as_ref()
                .map_or(String::new(), |seen| format!(" Seen on the network since: this key signed {seen}."));
            let message = format!(
                "{what}. It was copied or restored from a backup, so votes may have left that it does not show: \
                 nothing is signed.{seen} If no other copy runs or will ever run, stop this node and run `tandem keys \
                 protection accept --dir <node directory>`"
            );
            Reason::CopiedDirectory { message }
        }
        StallReason::Waiting { wait, seen } => {
            let consensus::WaitStatus { views_left, views, left_ms } = *wait;
            let seen = seen.as_ref().map_or(String::new(), |seen| format!("; it began anew because {seen}"));
            let message = format!(
                "listening for another instance of this key before signing: {views_left} of {views} views left, at \
                 most {} s{seen} (doppelganger_views)",
                left_ms.div_ceil(1000)
            );
            Reason::DoppelgangerWait { message, views_left, left_ms }
        }
        // The link knows better than the replica why it is down, and sooner.
        StallReason::Executor(message) => match health {
            Health::Up => Reason::EngineCatchingUp { message: message.clone() },
            Health::Down(message) => Reason::EngineDown { message: message.clone() },
            Health::Mismatch(message) => Reason::EngineMismatch { message: message.clone() },
        },
        StallReason::BelowQuorum { connected, required, missing } => {
            below_quorum(core, *connected, *required, missing)
        }
        StallReason::Syncing { at, target } => {
            let behind = target.get().saturating_sub(at.get());
            let message = format!("{behind} blocks behind: final up to {at}, proven up to {target}");
            Reason::Syncing { message, height: *at, target: *target, behind }
        }
        StallReason::Timeouts { failed, proposer } => Reason::Timeouts {
            message: format!(
                "{failed} views in a row failed; now waiting for validator {proposer} to propose"
            ),
            failed: *failed,
            proposer: member(core, *proposer),
        },
    }
}

fn below_quorum(core: &Core<'_>, connected: Stake, required: Stake, missing: &[ValidatorIndex]) -> Reason {
    let set = core.replica.validators();
    let missing: Vec<Member> = missing.iter().map(|index| member(core, *index)).collect();
    let names: Vec<String> = missing
        .iter()
        .take(16)
        .map(|who| match who.address {
            Some(address) => format!("{} ({address})", who.index),
            None => who.index.to_string(),
        })
        .collect();
    let names = names.join(", ");
    if !core.met_anyone {
        let message = format!("no other validator has connected yet; waiting for {names}");
        return Reason::WaitingForPeers { message, missing };
    }
    let percent = |stake: Stake| 100.0 * views::stake_share(stake, set.total());
    let message = format!(
        "below quorum: {:.1}% of stake is connected, {:.1}% is needed; missing validators {names}",
        percent(connected),
        percent(required)
    );
    Reason::BelowQuorum { message, connected_stake: connected, required_stake: required, missing }
}

fn member(core: &Core<'_>, index: ValidatorIndex) -> Member {
    Member { index, address: core.replica.validators().get(index).map(|validator| validator.address) }
}
