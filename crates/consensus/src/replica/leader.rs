//! Proposing: the wait after a failed view, pacing, building, sending (C-6.3, C-6.7).

use super::prebuild::Prebuilt;
use super::{Now, Replica};
use crate::disk::Record;
use crate::ready::Request;
use crate::tree::Verdict;
use std::sync::Arc;
use types::block::{Block, Checkpoint, Header, Justify, SystemInputs, randao_mix};
use types::engine::{BuiltPayload, EngineError, PayloadRequest};
use types::message::Reproposal;
use types::{Address, B256, ConsensusMessage, Proposal, Qc, Signature, View};

/// Pause before a failed executor request is made again.
const RETRY_MS: u64 = 100;

/// The proposer's work in one view.
#[derive(Debug)]
pub(super) struct Leading {
    view: View,
    by_timeout: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Waiting for certificates others may hold, until then (C-6.3).
    Waiting { until_ms: u64 },
    /// Waiting before a failed executor request is made again.
    Retrying { until_ms: u64 },
    /// The epoch's last block is certified: its commit certificate is expected until then, after which it is proposed
    /// again (C-8.3).
    Closing { until_ms: u64 },
    /// Pacing, on this parent.
    Pacing(Pacing),
    /// The executor builds.
    Building(Order),
    /// Sent.
    Proposed(Box<Proposal>),
    /// The signer refuses: this node proposed in the view before a restart (C-7), or gave it up.
    Refused,
}

/// When a block may be proposed on a parent.
#[derive(Clone, Debug)]
pub(super) struct Pacing {
    pub(super) parent: B256,
    /// Not before: the least block interval.
    earliest_ms: u64,
    /// Not later, even with nothing to include.
    empty_ms: u64,
    /// Request that tells of transactions.
    pub(super) asked: Option<u64>,
    pub(super) pending: bool,
}

impl Pacing {
    /// When to propose, as far as is known.
    pub(super) fn due_ms(&self) -> u64 {
        if self.pending { self.earliest_ms.min(self.empty_ms) } else { self.empty_ms }
    }
}

/// A payload that was asked for, and what its block says beside it.
#[derive(Debug)]
pub(super) struct Order {
    /// Of the request.
    pub(super) id: u64,
    pub(super) parent: B256,
    pub(super) timestamp_ms: u64,
    /// When it was asked for.
    pub(super) asked_ms: u64,
    inputs: SystemInputs,
    reveal: Signature,
}

impl Replica {
    pub(super) fn start_leading(&mut self, now: Now, by_timeout: bool) {
        let view = self.view();
        self.leader = (self.index() == Some(self.proposer(view))).then(|| Leading {
            view,
            by_timeout,
            stage: Stage::Waiting { until_ms: now.mono_ms.saturating_add(2 * self.settings.timing.delta_ms) },
        });
    }

    pub(super) fn leader_deadline(&self) -> Option<u64> {
        match &self.leader.as_ref()?.stage {
            Stage::Waiting { until_ms } | Stage::Retrying { until_ms } | Stage::Closing { until_ms } => {
                Some(*until_ms)
            }
            Stage::Pacing(pacing) => Some(pacing.due_ms()),
            Stage::Building(_) | Stage::Proposed(_) | Stage::Refused => None,
        }
        .filter(|_| self.ready_to_lead())
    }

    pub(super) fn own_proposal(&self, view: View) -> Option<Proposal> {
        match &self.leader.as_ref().filter(|leading| leading.view == view)?.stage {
            Stage::Proposed(proposal) => Some((**proposal).clone()),
            _ => None,
        }
    }

    /// Whether a block of this view can be justified, its parent is executed here and the executor answers.
    fn ready_to_lead(&self) -> bool {
        let parent = self.tree.parent_info(&self.high().block_hash);
        let justified = self.high().view.next() == self.view() || self.safety.state().entered_by.is_some();
        justified
            && self.silence().is_none()
            && self.executor.up().is_some()
            && parent.is_some_and(|p| p.executed)
    }

    pub(super) fn drive_leader(&mut self, now: Now) {
        let Some(mut leading) = self.leader.take() else { return };
        if leading.view == self.view() && self.ready_to_lead() {
            self.drive_stage(now, &mut leading);
        }
        // Proposing can enter the next view (a lone validator certifies its own block); a new lead stays.
        if self.leader.is_none() && leading.view == self.view() {
            self.leader = Some(leading);
        }
    }

    fn drive_stage(&mut self, now: Now, leading: &mut Leading) {
        let go = match leading.stage {
            Stage::Waiting { until_ms } => now.mono_ms >= until_ms || self.may_lead_at_once(leading.view),
            Stage::Retrying { until_ms } => now.mono_ms >= until_ms,
            _ => false,
        };
        if go {
            leading.stage = Stage::Pacing(self.pace_of(now, leading));
        }
        if self.high().height == self.boundary() && !types::injected!(BoundaryWithoutFinality) {
            self.close_epoch(now, leading);
        }
        // A certificate that arrived late moves the parent.
        if matches!(&leading.stage, Stage::Pacing(pacing) if pacing.parent != self.high().block_hash) {
            leading.stage = Stage::Pacing(self.pace_of(now, leading));
        }
        if let Stage::Pacing(pacing) = &mut leading.stage {
            if now.mono_ms >= pacing.due_ms() {
                leading.stage = self.build(now, leading.view);
            } else {
                self.ask_for_transactions(now, pacing);
            }
        }
    }

    /// Once.
    pub(super) fn ask_for_transactions(&mut self, now: Now, pacing: &mut Pacing) {
        if pacing.asked.is_none() {
            let id = self.fresh_id();
            pacing.asked = Some(id);
            let (parent_hash, wait_ms_max) = (pacing.parent, pacing.empty_ms.saturating_sub(now.mono_ms));
            self.ready.request(Request::AwaitTransactions { id, parent_hash, wait_ms_max });
        }
    }

    /// Nothing is built on an epoch's last block in its epoch. Usually its commit votes are on their way.
    fn close_epoch(&mut self, now: Now, leading: &mut Leading) {
        match leading.stage {
            Stage::Pacing(_) | Stage::Building(_) => {
                let patience_ms = if leading.by_timeout { 0 } else { 2 * self.settings.timing.delta_ms };
                leading.stage = Stage::Closing { until_ms: now.mono_ms.saturating_add(patience_ms) };
            }
            _ => {}
        }
        if matches!(leading.stage, Stage::Closing { until_ms } if now.mono_ms >= until_ms) {
            leading.stage = self.propose_again(now, leading.view);
        }
    }

    fn propose_again(&mut self, now: Now, view: View) -> Stage {
        let certified = self.safety.state().high_qc.clone();
        let known = certified.and_then(|qc| Some((self.tree.get(&qc.vote.block_hash)?.block.clone(), qc)));
        let Some((block, source)) = known else {
            // It became final meanwhile; the epoch is about to change.
            return Stage::Closing { until_ms: now.mono_ms.saturating_add(RETRY_MS) };
        };
        let hash = source.vote.block_hash;
        let Ok(signed) = self.safety.propose(view, hash) else { return Stage::Refused };
        self.sign_state_changed = true;
        self.verified.note(&source);
        let timeout = self.safety.state().entered_by.clone().filter(|_| source.view().next() != view);
        let again = Reproposal { source, timeout };
        self.proposed.insert(view, hash);
        self.again.insert(view, again.clone());
        let proposal = Proposal { signed, block: (*block).clone(), again: Some(again) };
        self.broadcast(ConsensusMessage::Proposal(self.epoch(), Box::new(proposal.clone())));
        Stage::Proposed(Box::new(proposal))
    }

    /// Whether no higher certificate can exist that this leader lacks (C-6.3): it holds the certificate of the view
    /// before; or nobody in the timeout certificate prepared above what it holds; or all stake reported.
    fn may_lead_at_once(&self, view: View) -> bool {
        let high = self.high().view;
        if high.next() >= view {
            return true;
        }
        let Some(tc) = self.safety.state().entered_by.as_ref() else { return false };
        let prepared = tc.groups.iter().map(|group| group.last_prepared_view).max().unwrap_or(View::ZERO);
        // Reports of all stake: every certificate an honest validator is locked on has been seen.
        let all = self.timeouts.stake_at(&self.set, tc.view) == self.set.total();
        high >= prepared || all
    }

    fn pace_of(&mut self, now: Now, leading: &Leading) -> Pacing {
        let parent = self.high().block_hash;
        let ahead = self.pace_ahead(leading.view, parent).filter(|_| !leading.by_timeout);
        ahead.unwrap_or_else(|| self.pace(now, parent, leading.by_timeout))
    }

    /// Pace by the parent's timestamp, never by more than the interval itself, so that a skewed clock cannot stall
    /// the chain. After a timeout certificate an empty block need not wait.
    pub(super) fn pace(&self, now: Now, parent: B256, by_timeout: bool) -> Pacing {
        let timing = &self.settings.timing;
        let parent_ms = self.tree.parent_info(&parent).map_or(now.wall_ms, |p| p.timestamp_ms);
        let after = |interval: u64| {
            let left = parent_ms.saturating_add(interval).saturating_sub(now.wall_ms).min(interval);
            now.mono_ms.saturating_add(left)
        };
        let earliest_ms = after(timing.block_interval_ms);
        // The first block of a chain does not wait either: there is no block before it to pace by.
        let is_genesis = parent == self.settings.genesis_hash;
        let at_once = by_timeout || is_genesis;
        let empty_ms = if at_once { earliest_ms } else { after(timing.empty_block_interval_ms) };
        Pacing { parent, earliest_ms, empty_ms, asked: None, pending: false }
    }

    /// Proposes what was built ahead, waits for what is being built, or asks for a payload.
    fn build(&mut self, now: Now, view: View) -> Stage {
        let parent = self.high().block_hash;
        match self.take_prebuilt(now, view, parent) {
            Some(Prebuilt::Ready(order, payload)) => self.propose_built(view, order, *payload),
            Some(Prebuilt::UnderWay(order)) => Stage::Building(order),
            None => {
                let retry = Stage::Retrying { until_ms: now.mono_ms.saturating_add(RETRY_MS) };
                self.order(now, view, parent).map_or(retry, Stage::Building)
            }
        }
    }

    /// Asks the executor for a payload. `None` when this node cannot propose on that parent.
    pub(super) fn order(&mut self, now: Now, view: View, parent_hash: B256) -> Option<Order> {
        let parent = self.tree.parent_info(&parent_hash)?;
        let reveal = self.safety.reveal(view).ok()?;
        let proposer = self.index()?;
        let inputs = SystemInputs {
            randao_mix: randao_mix(parent.randao_mix, &reveal),
            evidence: self.evidence_for(&parent_hash),
            ..SystemInputs::default()
        };
        let timestamp_ms = now.wall_ms.max(parent.timestamp_ms);
        let id = self.fresh_id();
        let request = Box::new(PayloadRequest {
            parent_hash,
            height: parent.height.next(),
            view,
            timestamp_ms,
            proposer,
            fee_recipient: self.fee_recipient(),
            limits: self.settings.limits,
            system_inputs: inputs.clone(),
        });
        self.building = Some(id);
        self.ready.request(Request::Build { id, request });
        Some(Order { id, parent: parent_hash, timestamp_ms, asked_ms: now.mono_ms, inputs, reveal })
    }

    pub(super) fn on_pending(&mut self, now: Now, id: u64, result: Result<bool, EngineError>) {
        if let Some(Leading { stage: Stage::Pacing(pacing), .. }) = &mut self.leader
            && pacing.asked == Some(id)
        {
            match result {
                Ok(pending) => pacing.pending |= pending,
                Err(_) => pacing.pending = false,
            }
        } else {
            self.on_pending_ahead(now, id, result == Ok(true));
        }
    }

    pub(super) fn on_built(&mut self, now: Now, id: u64, result: Result<BuiltPayload, EngineError>) {
        self.building.take_if(|building| *building == id);
        let Some(mut leading) =
            self.leader.take_if(|leading| matches!(&leading.stage, Stage::Building(order) if order.id == id))
        else {
            return self.on_prebuilt(now, id, result);
        };
        if let Err(error @ EngineError::UnknownBlock(_)) = &result {
            // It forgot a block it had executed, so it restarted: a lone validator would hear of it from nobody else.
            self.leader = Some(leading);
            return self.engine_failed(now, error);
        }
        let Stage::Building(order) = std::mem::replace(&mut leading.stage, Stage::Refused) else { return };
        let current = leading.view == self.view() && self.high().block_hash == order.parent;
        if result.is_ok() {
            self.rhythm.built(now, &order);
        }
        leading.stage = match result {
            Ok(payload) if current => self.propose_built(leading.view, order, payload),
            // A failed build is tried again after a pause; one on an old parent at once.
            Ok(_) => Stage::Retrying { until_ms: now.mono_ms },
            Err(_) => Stage::Retrying { until_ms: now.mono_ms.saturating_add(RETRY_MS) },
        };
        self.leader = Some(leading);
    }

    /// Proposes a payload on the highest certified block, which is what it was built on.
    fn propose_built(&mut self, view: View, order: Order, built: BuiltPayload) -> Stage {
        let header = self.header(view, built_into(&built), &order);
        self.propose(view, Block { header, system_inputs: order.inputs, payload: built.payload })
    }

    fn header(
        &self,
        view: View,
        (payload_commitment, state_hash, receipts_hash): (B256, B256, B256),
        order: &Order,
    ) -> Header {
        let high = self.high();
        let justify = match &self.safety.state().high_qc {
            Some(qc) => Justify::Prepare(qc.clone()),
            None => self.epoch_root.commit.clone().map_or(Justify::Genesis, Justify::EpochBoundary),
        };
        let skipped = high.view.next() != view;
        Header {
            chain_id: self.settings.chain_id,
            epoch: self.epoch(),
            epoch_start_height: self.settings.epochs.first(self.epoch()),
            height: high.height.next(),
            view,
            parent_hash: high.block_hash,
            timestamp_ms: order.timestamp_ms,
            proposer: self.proposer(view),
            fee_recipient: self.fee_recipient(),
            validator_set_id: self.set.id(),
            next_validator_set_id: self.next.set.id(),
            payload_commitment,
            state_hash,
            receipts_hash,
            checkpoint: Checkpoint::default(),
            randao_reveal: order.reveal,
            justify,
            timeout: self.safety.state().entered_by.clone().filter(|_| skipped),
            last_commit: self
                .commit_head
                .clone()
                .filter(|commit| commit.epoch == self.epoch() && commit.vote.view <= high.view),
            system_inputs_hash: order.inputs.hash(),
        }
    }

    /// The configured account, or the one that owns this validator.
    fn fee_recipient(&self) -> Address {
        let own = || self.index().and_then(|index| self.set.get(index)).map(|own| own.address);
        self.settings.fee_recipient.or_else(own).unwrap_or_default()
    }

    /// Signs and sends the block; the own executor judges it like everybody's (fail closed).
    fn propose(&mut self, view: View, block: Block) -> Stage {
        let hash = block.header.hash();
        if self.silence().is_some() {
            return Stage::Refused;
        }
        let Ok(signed) = self.safety.propose(view, hash) else {
            return Stage::Refused;
        };
        self.sign_state_changed = true;
        if let Some(qc) = justification(&block.header) {
            self.verified.note(qc);
        }
        let shared = Arc::new(block.clone());
        if self.tree.insert(hash, shared.clone()) {
            self.ready.record(Record::Block(shared));
            self.tree.judge(&hash, Verdict::Waiting);
        }
        self.proposed.insert(view, hash);
        let proposal = Proposal { signed, block, again: None };
        self.broadcast(ConsensusMessage::Proposal(self.epoch(), Box::new(proposal.clone())));
        Stage::Proposed(Box::new(proposal))
    }
}

fn built_into(built: &BuiltPayload) -> (B256, B256, B256) {
    (built.commitment, built.state_hash, built.receipts_hash)
}

fn justification(header: &Header) -> Option<&Qc> {
    match &header.justify {
        Justify::Prepare(qc) => Some(qc),
        Justify::Genesis | Justify::EpochBoundary(_) => None,
    }
}
