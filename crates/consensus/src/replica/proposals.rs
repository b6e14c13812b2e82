//! Proposals: checking what a proposer sends, and the prepare vote (C-4.1).

use super::{Now, Replica};
use crate::disk::Record;
use crate::evidence::Trust;
use crate::ready::{Event, Request};
use crate::tree::Verdict;
use crypto::merkle::payload_root;
use std::sync::Arc;
use types::limits::{HEADER_BYTES_MAX, SYSTEM_INPUTS_BYTES_MAX};
use types::message::Reproposal;
use types::{
    B256, Block, Checkpoint, CommitQc, CommitVote, ConsensusMessage, Domain, Header, Justify, PrepareVote,
    Proposal, ProposalVote, RejectionCode, TimeoutReason, ValidatorIndex, View, Witness, block::randao_mix,
    encode, vote::Signed,
};

/// A proposal on its way to being believed.
#[derive(Debug)]
pub(super) struct Arrival {
    from: ValidatorIndex,
    view: View,
    hash: B256,
    signed: Signed<ProposalVote>,
    block: Arc<Block>,
    again: Option<Reproposal>,
    /// The executor has it already.
    asked: bool,
}

impl Replica {
    /// What can be seen without a signature check is looked at here. Then the executor begins, if it can, while the
    /// signatures are checked.
    pub(super) fn on_proposal(&mut self, now: Now, from: ValidatorIndex, proposal: Proposal) {
        let view = proposal.signed.statement.view;
        if proposal.signed.signer != from || self.proposer(view) != from {
            return self.misbehaved(from, format!("proposed in view {view}, which is not its own"));
        }
        self.observe(Witness::Proposal(proposal.signed.clone()), Trust::Claimed);
        if !self.in_window(view) {
            self.learn_from_far_proposal(now, from, &proposal);
        }
        if !self.in_window(view) {
            return;
        }
        let hash = proposal.block.header.hash();
        if proposal.signed.statement.block_hash != hash {
            return self
                .misbehaved(from, format!("signed another block than the one it sent in view {view}"));
        }
        match self.proposed.get(&view) {
            Some(known) if *known == hash => return,
            Some(_) => return self.misbehaved(from, format!("proposed two blocks in view {view}")),
            None => {}
        }
        let Proposal { signed, block, again } = proposal;
        let mut arrival = Arrival { from, view, hash, signed, block: Arc::new(block), again, asked: false };
        if !self.may_execute_early(&arrival) {
            return self.verify_proposal(now, arrival);
        }
        self.executed_early = view;
        arrival.asked = true;
        self.ready.request(Request::NewPayload { block_hash: hash, block: arrival.block.clone() });
        self.unverified = Some(arrival);
    }

    /// Whether the executor may begin with a block nobody has verified yet (C-3.5): one per view at most, of the right
    /// proposer, and everything about it is right but, perhaps, its signatures. The executor's verdict does not depend
    /// on them.
    fn may_execute_early(&self, arrival: &Arrival) -> bool {
        let Arrival { view, hash, block, again, .. } = arrival;
        let (view, header) = (*view, &block.header);
        view > self.executed_early
            && (view == self.view() || view == self.view().next())
            && header.view == view
            && again.is_none()
            // Which takes signature checks too.
            && block.system_inputs.evidence.is_empty()
            && self.halted.is_none()
            && self.executor.up().is_some()
            && !self.tree.contains(hash)
            && self.tree.parent_info(&header.parent_hash).is_some_and(|parent| parent.executed)
            && !self.contradicts_final(&header.parent_hash)
            && self.check_block(block).is_ok()
            && self.check_against_parent(block).is_ok()
    }

    /// Whether a proposal waits for its signatures to be checked; the replica wants to be called again at once for that.
    pub fn has_unverified(&self) -> bool {
        self.unverified.is_some()
    }

    pub(super) fn verify_waiting(&mut self, now: Now) {
        if let Some(arrival) = self.unverified.take() {
            self.verify_proposal(now, arrival);
        }
    }

    /// The executor forgot what it was given.
    pub(super) fn forget_early_execution(&mut self) {
        if let Some(arrival) = &mut self.unverified {
            arrival.asked = false;
        }
    }

    fn verify_proposal(&mut self, now: Now, arrival: Arrival) {
        let (from, view) = (arrival.from, arrival.view);
        self.verify_together(&arrival.signed, &arrival.block.header);
        let (set, domain) = (self.set.clone(), self.domain);
        if !self.verified.check(&arrival.signed, |signed| signed.verify(&set, &domain)) {
            return self.misbehaved(from, format!("bad signature on its proposal of view {view}"));
        }
        self.accept_proposal(now, arrival);
    }

    /// A proposal beyond the window still shows how far the others are.
    fn learn_from_far_proposal(&mut self, now: Now, from: ValidatorIndex, proposal: &Proposal) {
        let header = &proposal.block.header;
        if let Some(Reproposal { source, timeout }) = &proposal.again {
            self.on_certificate(now, from, super::Certificate::Prepare(source.clone()));
            if let Some(tc) = timeout {
                self.on_certificate(now, from, super::Certificate::Timeout(tc.clone()));
            }
        }
        if let Justify::Prepare(qc) = &header.justify {
            self.on_certificate(now, from, super::Certificate::Prepare(qc.clone()));
        }
        if let Some(tc) = &header.timeout {
            self.on_certificate(now, from, super::Certificate::Timeout(tc.clone()));
        }
        if let Some(commit) = &header.last_commit {
            self.on_certificate(now, from, super::Certificate::Commit(commit.clone()));
        }
    }

    fn accept_proposal(&mut self, now: Now, arrival: Arrival) {
        let Arrival { from, view, hash, block, again, asked, .. } = arrival;
        self.proposed.insert(view, hash);
        // Checked before the executor was asked.
        let sound = if asked { Ok(()) } else { self.check_block(&block) };
        let checked = sound.and_then(|()| match &again {
            None => self.check_certificates(&block.header, view),
            Some(again) => self.check_again(&block.header, hash, view, again),
        });
        if let Err(reason) = checked {
            self.misbehaved(from, format!("its block of view {view} is refused: {reason}"));
            let height = block.header.height;
            self.event(Event::Rejected { height, block_hash: hash, reason });
            if view == self.view() {
                self.give_up(
                    now,
                    TimeoutReason::Rejected { block_hash: hash, code: RejectionCode::BadHeader },
                );
            }
            return;
        }
        // Of a block that is proposed again, nobody here checked the header's certificates: a quorum did.
        let trust = if again.is_some() { Trust::Claimed } else { Trust::Verified };
        self.observe_header(&block.header, trust);
        let Header { justify, timeout, last_commit, .. } = block.header.clone();
        if self.tree.insert(hash, block.clone()) {
            self.ready.record(Record::Block(block));
            if asked {
                self.tree.judge(&hash, Verdict::Executing);
            }
        }
        // What the proposal carries is processed before the vote on it (C-4.3).
        if let Some(again) = again {
            self.again.insert(view, again.clone());
            self.observe((&again.source).into(), Trust::Verified);
            again.timeout.iter().for_each(|tc| self.observe(tc.into(), Trust::Verified));
            self.learn_qc(now, again.source);
            if let Some(tc) = again.timeout {
                self.learn_tc(now, tc);
            }
            return;
        }
        if let Justify::Prepare(qc) = justify {
            self.learn_qc(now, qc);
        }
        if let Some(tc) = timeout {
            self.learn_tc(now, tc);
        }
        if let Some(commit) = last_commit {
            self.learn_commit(now, commit);
        }
    }

    /// Checks that need nothing but the block and the settings: also for blocks fetched from peers.
    pub(super) fn check_block(&self, block: &Block) -> Result<(), String> {
        let header = &block.header;
        let expect = |what: &str, holds: bool| if holds { Ok(()) } else { Err(format!("wrong {what}")) };
        expect("chain id", header.chain_id == self.settings.chain_id)?;
        let (first, last) = (self.settings.epochs.first(self.epoch()), self.boundary());
        expect("epoch", header.epoch == self.epoch() && header.epoch_start_height == first)?;
        let in_epoch = (first..=last).contains(&header.height) || types::injected!(BoundaryWithoutFinality);
        expect("height for its epoch", in_epoch)?;
        expect("validator set", header.validator_set_id == self.set.id())?;
        expect("next validator set", header.next_validator_set_id == self.next.set.id())?;
        expect("proposer", header.proposer == self.proposer(header.view))?;
        expect("checkpoint", header.checkpoint == Checkpoint::default())?;
        expect("payload size", block.payload.len() as u64 <= self.settings.limits.bytes)?;
        expect("payload commitment", header.payload_commitment == payload_root(&block.payload))?;
        expect("system inputs hash", header.system_inputs_hash == block.system_inputs.hash())?;
        let inputs = &block.system_inputs;
        let inactive = inputs.liveness.is_empty() && inputs.penalties.is_none();
        expect("system inputs: only the RANDAO mix and evidence are active", inactive)?;
        self.check_evidence_shape(block)?;
        expect("header size", encode(header).len() <= HEADER_BYTES_MAX)?;
        expect("system inputs size", encode(inputs).len() <= SYSTEM_INPUTS_BYTES_MAX)?;
        let source = header.source();
        expect("parent in its justification", source.block_hash == header.parent_hash)?;
        expect("height", source.height.next() == header.height)?;
        expect("source view", source.view < header.view)?;
        let on_root = header.height == first && header.parent_hash == self.epoch_root.hash;
        expect(
            "justification for its place in the epoch",
            match &header.justify {
                Justify::Genesis => on_root && first.get() == 1,
                Justify::EpochBoundary(commit) => {
                    let CommitVote { height, block_hash, .. } = commit.vote;
                    on_root && (height.next(), block_hash) == (first, header.parent_hash)
                }
                Justify::Prepare(_) => header.height > first,
            },
        )?;
        let consecutive = source.view.next() == header.view;
        expect(
            "timeout certificate: needed exactly when views were skipped",
            header.timeout.is_some() != consecutive,
        )
    }

    /// Checks every certificate and signature in a header proposed in `view`.
    fn check_certificates(&mut self, header: &Header, view: View) -> Result<(), String> {
        if header.view != view {
            return Err(format!("header of view {} proposed in view {view}", header.view));
        }
        let (set, domain) = (self.set.clone(), self.domain);
        let justified = match &header.justify {
            Justify::Genesis => true,
            Justify::Prepare(qc) => {
                types::injected!(UnverifiedSource)
                    || self.verified.check(qc, |qc| qc.verify(&set, &domain).is_ok())
            }
            Justify::EpochBoundary(commit) => self.proves_boundary(commit),
        };
        if !justified {
            return Err("the parent's certificate does not verify".into());
        }
        if let Some(tc) = &header.timeout {
            let right_view = tc.view.next() == view || types::injected!(StaleTc);
            if !right_view || !self.verified.check(tc, |tc| tc.verify(&set, &domain).is_ok()) {
                return Err(format!("no valid timeout certificate of the view before {view}"));
            }
        }
        if let Some(commit) = &header.last_commit
            && !self.verified.check(commit, |qc| qc.verify(&set, &domain).is_ok())
        {
            return Err("the commit certificate does not verify".into());
        }
        if self.reveal_is_valid(header) { Ok(()) } else { Err("the RANDAO reveal does not verify".into()) }
    }

    fn proves_boundary(&mut self, commit: &CommitQc) -> bool {
        let Some((set, epoch)) = self.previous.clone().zip(self.epoch().previous()) else { return false };
        let domain = Domain { epoch: epoch.get(), ..self.domain };
        self.verified.check(commit, |qc| qc.verify(&set, &domain).is_ok())
    }

    /// Checks why an epoch's last block may be proposed again in `view` (C-8.3). Its own header needs no second look: a
    /// quorum has certified it.
    fn check_again(
        &mut self,
        header: &Header,
        hash: B256,
        view: View,
        again: &Reproposal,
    ) -> Result<(), String> {
        let Reproposal { source, timeout } = again;
        if header.height != self.boundary() || header.view >= view {
            return Err(format!(
                "only an epoch's last block is proposed again, not height {}",
                header.height
            ));
        }
        if source.vote.block_hash != hash || source.vote.height != header.height || source.view() >= view {
            return Err("the certificate it is proposed again with is not an earlier one of its own".into());
        }
        let (set, domain) = (self.set.clone(), self.domain);
        if !self.verified.check(source, |qc| qc.verify(&set, &domain).is_ok()) {
            return Err("the certificate it is proposed again with does not verify".into());
        }
        let consecutive = source.view().next() == view;
        match timeout {
            None if consecutive => Ok(()),
            Some(tc)
                if !consecutive
                    && tc.view.next() == view
                    && self.verified.check(tc, |tc| tc.verify(&set, &domain).is_ok()) =>
            {
                Ok(())
            }
            _ => {
                Err("a timeout certificate of the view before is needed exactly when views were skipped"
                    .into())
            }
        }
    }

    /// Checks that need the parent. Called when the parent is executed.
    pub(super) fn check_against_parent(&self, block: &Block) -> Result<(), (RejectionCode, String)> {
        let header = &block.header;
        let Some(parent) = self.tree.parent_info(&header.parent_hash) else { return Ok(()) };
        if parent.invalid {
            return Err((RejectionCode::BadHeader, "its parent is invalid".into()));
        }
        if header.height != parent.height.next() {
            let reason = format!("height {} on a parent of height {}", header.height, parent.height);
            return Err((RejectionCode::BadHeader, reason));
        }
        if header.timestamp_ms < parent.timestamp_ms {
            let reason =
                format!("timestamp {} below the parent's {}", header.timestamp_ms, parent.timestamp_ms);
            return Err((RejectionCode::BadHeader, reason));
        }
        if block.system_inputs.randao_mix != randao_mix(parent.randao_mix, &header.randao_reveal) {
            return Err((
                RejectionCode::BadSystemInputs,
                "the RANDAO mix is not the parent's with the reveal".into(),
            ));
        }
        Ok(())
    }

    /// Votes for the block proposed in the current view once it is executed here, or gives the view up at once when
    /// it is invalid (C-3, C-4.1).
    pub(super) fn try_prepare(&mut self, now: Now) {
        let view = self.view();
        self.vote_at_ms = None;
        if self.halted.is_some() || self.safety.last_prepared_view() >= view || self.executor.up().is_none() {
            return;
        }
        let Some(node) = self.proposed.get(&view).and_then(|hash| self.tree.get(hash)) else { return };
        match node.verdict {
            Verdict::Waiting | Verdict::Executing => {}
            Verdict::Invalid(code) => {
                let block_hash = node.hash;
                self.give_up(now, TimeoutReason::Rejected { block_hash, code });
            }
            Verdict::Valid => {
                // A stamp cannot be below the parent's: were the parent's own held against it, a chain whose clocks were
                // once ahead would stand still until they are there again.
                let parent_ms =
                    self.tree.parent_info(&node.block.header.parent_hash).map_or(0, |p| p.timestamp_ms);
                let drift_ms = self.settings.timing.clock_drift_ms_max;
                let latest_ms = now.wall_ms.saturating_add(drift_ms).max(parent_ms);
                let early_ms = node.block.header.timestamp_ms.saturating_sub(latest_ms);
                // A quorum has accepted the stamp of a block that is proposed again; waiting for clocks that were set back
                // since would only keep its epoch from ending.
                if early_ms > 0 && !self.again.contains_key(&view) {
                    self.vote_at_ms = Some(now.mono_ms.saturating_add(early_ms));
                    return;
                }
                let (block, hash) = (node.block.clone(), node.hash);
                self.prepare(now, &block.header, hash);
            }
        }
    }

    fn prepare(&mut self, now: Now, header: &Header, block_hash: B256) {
        let view = self.view();
        // A block proposed again links to its own newest certificate.
        let again = self.again.get(&view).cloned();
        let (link, qc, skipped) = match (&again, &header.justify) {
            (Some(again), _) => {
                let link = PrepareVote {
                    source_view: again.source.view(),
                    source_hash: block_hash,
                    target_view: view,
                    height: header.height,
                    block_hash,
                };
                (link, Some(&again.source), again.timeout.as_ref())
            }
            (None, Justify::Prepare(qc)) => (link_to(header, block_hash), Some(qc), header.timeout.as_ref()),
            (None, _) => (link_to(header, block_hash), None, header.timeout.as_ref()),
        };
        if let Ok(vote) = self.safety.prepare(view, link, qc, skipped) {
            self.sign_state_changed = true;
            self.rhythm.voted(now, view, Some(header.proposer) == self.index());
            self.broadcast(ConsensusMessage::Prepare(self.epoch(), vote.clone()));
            self.count_prepare(now, vote);
        }
    }
}

/// What a prepare vote for a block in the view it was made in says.
pub(super) fn link_to(header: &Header, block_hash: B256) -> PrepareVote {
    let source = header.source();
    PrepareVote {
        source_view: source.view,
        source_hash: source.block_hash,
        target_view: header.view,
        height: header.height,
        block_hash,
    }
}
