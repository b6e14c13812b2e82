//! Looking at replicas from outside, to count what a run exercised.

use crate::coverage::Coverage;
use crate::faults::Fault;
use crate::world::{What, World};
use consensus::{BuiltAhead, Input, Replica};
use std::collections::BTreeSet;
use types::{ConsensusMessage, Epoch, Height, Qc, View};

/// What was counted already.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Views somebody entered by a timeout certificate.
    timeout_certificates: BTreeSet<View>,
    /// Nodes and views whose commit the guard refused.
    guarded: BTreeSet<(usize, View)>,
    /// Nodes and views whose prepare the lock refused.
    locked: BTreeSet<(usize, View)>,
    /// Heights just below an epoch's last that somebody made final.
    pub(crate) boundaries: BTreeSet<Height>,
    /// Views in which an epoch's last block was proposed again.
    again: BTreeSet<(Epoch, View)>,
}

/// What of a replica is compared before and after an input.
pub(crate) struct Glimpse {
    epoch: Epoch,
    view: View,
    high_qc: View,
    built_ahead: BuiltAhead,
}

impl Glimpse {
    pub(crate) fn of(replica: &Replica) -> Self {
        Self {
            epoch: replica.epoch(),
            view: replica.view(),
            high_qc: high_qc(replica),
            built_ahead: replica.built_ahead(),
        }
    }
}

fn high_qc(replica: &Replica) -> View {
    replica.sign_state().high_qc.as_ref().map_or(View::ZERO, Qc::view)
}

/// Target and source view of a proposed block.
pub(crate) fn proposed_link(input: &Input) -> Option<(View, View)> {
    match input {
        Input::Message { message: ConsensusMessage::Proposal(_, proposal), .. } => {
            Some((proposal.signed.statement.view, proposal.block.header.source().view))
        }
        _ => None,
    }
}

impl World {
    /// Counts what an input led to.
    pub(crate) fn watch(
        &mut self,
        node: usize,
        before: &Glimpse,
        proposed: Option<(View, View)>,
        replica: &Replica,
    ) {
        if let Some(script) = &mut self.script
            && script.enter(replica.view(), self.now_us)
        {
            self.schedule(2 * crate::twins::ROUND_MS * 1000, What::Fault(Fault::End));
        }
        if !self.is_honest(node) {
            return;
        }
        self.count_built_ahead(before.built_ahead, replica.built_ahead());
        if replica.epoch() > before.epoch {
            // Views start again.
            self.seen = Seen::default();
            return;
        }
        let (state, high) = (replica.sign_state(), high_qc(replica));
        if state.view > before.view
            && state.entered_by.is_some()
            && self.seen.timeout_certificates.insert(state.view)
        {
            self.coverage.note("views entered by TC");
        }
        if high > before.high_qc && high < before.view {
            self.coverage.note("late QCs");
        }
        let commit = state.last_commit.as_ref().map_or(View::ZERO, |vote| vote.statement.view);
        let prepare = state.last_prepare.as_ref().map_or(View::ZERO, |vote| vote.statement.target_view);
        let timeout = state.last_timeout.as_ref().map_or(View::ZERO, |t| t.signed.statement.view);
        if high > before.high_qc
            && high > commit
            && (high < prepare || high <= timeout)
            && self.seen.guarded.insert((node, high))
        {
            self.coverage.note(if high < prepare {
                "guard refusals (prepared later)"
            } else {
                "guard refusals (given up)"
            });
        }
        let lock = state.lock.as_ref().map_or(View::ZERO, Qc::view);
        if let Some((target, source)) = proposed
            && target == state.view
            && prepare < target
            && source < lock
            && self.seen.locked.insert((node, target))
        {
            self.coverage.note("lock refusals");
        }
    }

    fn count_built_ahead(&mut self, before: BuiltAhead, after: BuiltAhead) {
        self.coverage.add("payloads built ahead and proposed", after.used - before.used);
        self.coverage.add("payloads built ahead and dropped", after.dropped - before.dropped);
        self.coverage.add("empty payloads built ahead, and again", after.refilled - before.refilled);
    }

    /// Counts what is special in a message that is sent.
    pub(crate) fn watch_sent(&mut self, node: usize, message: &ConsensusMessage) {
        let ConsensusMessage::Proposal(epoch, proposal) = message else { return };
        if proposal.again.is_some() && self.seen.again.insert((*epoch, proposal.signed.statement.view)) {
            self.coverage.note("re-proposals");
        }
        if !self.is_honest(node) && self.sets.schedule().is_boundary(proposal.block.header.height) {
            self.coverage.note("boundary proposals of liars");
        }
    }

    /// All counts of the run.
    pub(crate) fn summary(&self) -> Coverage {
        let mut coverage = self.coverage.clone();
        for node in &self.nodes {
            if let Some(liar) = &node.byzantine {
                coverage.add(&format!("{:?} acts", liar.behaviour), liar.acts);
            }
        }
        coverage
    }
}
