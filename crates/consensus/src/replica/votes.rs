//! Votes and certificates: counting, learning, and the commit vote (C-4.2).

use super::{Certificate, Now, QCS_MAX, Replica};
use crate::disk::Record;
use crate::evidence::Trust;
use crate::tally::{Aggregate, Counted};
use crate::tree::Verdict;
use types::{
    Commit, CommitQc, CommitVote, ConsensusMessage, Prepare, PrepareVote, Qc, Tc, ValidatorIndex, Witness,
    vote::Signed,
};

impl Replica {
    pub(super) fn on_prepare(&mut self, now: Now, from: ValidatorIndex, vote: Prepare) {
        let PrepareVote { source_view, target_view, .. } = vote.statement;
        // What it signed may convict it, whatever else is wrong with the message.
        if vote.signer == from {
            self.observe(Witness::Prepare(vote.clone()), Trust::Claimed);
        }
        if vote.signer != from || source_view >= target_view {
            return self.misbehaved(from, "sent a prepare vote that is malformed or not its own");
        }
        if self.in_window(target_view) {
            self.count_prepare(now, vote);
        }
    }

    pub(super) fn count_prepare(&mut self, now: Now, vote: Prepare) {
        let mut liars = Vec::new();
        let (set, domain, own) = (self.set.clone(), self.domain, self.index());
        let known = self.qcs.get(&vote.statement.target_view).is_some_and(|qc| qc.vote == vote.statement);
        let tally = self.prepares.at(vote.statement.target_view);
        if known {
            tally.settle(vote.statement);
        }
        let counted = if own == Some(vote.signer) {
            tally.add_own(&set, &domain, &vote, &mut liars)
        } else {
            tally.add(&set, &domain, &vote, &mut liars)
        };
        self.blame(liars);
        if let Counted::Certified(Aggregate { statement, signers, signature }) = counted {
            let qc = Qc { epoch: self.epoch(), vote: statement, signers, signature };
            self.verified.note(&qc);
            self.observe((&qc).into(), Trust::Verified);
            self.learn_qc(now, qc);
        }
    }

    pub(super) fn on_commit(&mut self, now: Now, from: ValidatorIndex, commit: Commit) {
        let CommitVote { view, height, block_hash } = commit.signed.statement;
        let answers = (commit.qc.vote.target_view, commit.qc.vote.height, commit.qc.vote.block_hash)
            == (view, height, block_hash);
        if commit.signed.signer == from {
            self.observe(Witness::Commit(commit.signed.clone()), Trust::Claimed);
        }
        if commit.signed.signer != from || !answers {
            return self
                .misbehaved(from, "sent a commit vote that is not its own or answers another certificate");
        }
        // A certificate for the same link that is known already need not be verified again.
        let known = self.qcs.get(&view).is_some_and(|qc| qc.vote == commit.qc.vote);
        if !known {
            self.on_certificate(now, from, Certificate::Prepare(commit.qc));
        }
        // A vote whose certificate did not verify answers nothing.
        let answered = known || self.qcs.get(&view).is_some_and(|qc| qc.vote.block_hash == block_hash);
        if answered && self.in_window(view) {
            self.count_commit(now, commit.signed);
        }
    }

    pub(super) fn count_commit(&mut self, now: Now, vote: Signed<CommitVote>) {
        let mut liars = Vec::new();
        let (set, domain, own) = (self.set.clone(), self.domain, self.index());
        let CommitVote { height, block_hash, .. } = vote.statement;
        let root = self.tree.root();
        let known = self.commit_qcs.get(&height).is_some_and(|qc| qc.vote == vote.statement)
            || height < root.height
            || (height, block_hash) == (root.height, root.hash);
        let tally = self.commits.at(vote.statement.view);
        if known {
            tally.settle(vote.statement);
        }
        let counted = if own == Some(vote.signer) {
            tally.add_own(&set, &domain, &vote, &mut liars)
        } else {
            tally.add(&set, &domain, &vote, &mut liars)
        };
        self.blame(liars);
        if let Counted::Certified(Aggregate { statement, signers, signature }) = counted {
            let qc = CommitQc { epoch: self.epoch(), vote: statement, signers, signature };
            self.verified.note(&qc);
            self.observe((&qc).into(), Trust::Verified);
            self.learn_commit(now, qc);
        }
    }

    fn blame(&mut self, liars: Vec<ValidatorIndex>) {
        liars
            .into_iter()
            .for_each(|liar| self.misbehaved(liar, "sent a vote whose signature does not verify"));
    }

    /// A certificate from a peer: verified, then learnt.
    pub(super) fn on_certificate(&mut self, now: Now, from: ValidatorIndex, certificate: Certificate) {
        let (set, domain) = (self.set.clone(), self.domain);
        let valid = match &certificate {
            Certificate::Prepare(qc) => self.verified.check(qc, |qc| qc.verify(&set, &domain).is_ok()),
            Certificate::Timeout(tc) => self.verified.check(tc, |tc| tc.verify(&set, &domain).is_ok()),
            Certificate::Commit(qc) => self.verified.check(qc, |qc| qc.verify(&set, &domain).is_ok()),
        };
        if valid {
            self.observe_certificate(&certificate);
        }
        match certificate {
            _ if !valid => self.misbehaved(from, "sent a certificate that does not verify"),
            Certificate::Prepare(qc) => self.learn_qc(now, qc),
            Certificate::Timeout(tc) => self.learn_tc(now, tc),
            Certificate::Commit(qc) => self.learn_commit(now, qc),
        }
    }

    /// Learns a verified prepare certificate: raises `high_qc` (never the lock), enters the next view (C-6.1).
    pub(super) fn learn_qc(&mut self, now: Now, qc: Qc) {
        let view = qc.view();
        self.watch_prepares(&qc);
        if let Some(known) = self.qcs.get(&view) {
            if known.vote.block_hash != qc.vote.block_hash {
                let known = known.into();
                self.accuse(qc.epoch, known, (&qc).into());
                self.halt(format!(
                    "two prepare certificates in view {view}: more than a third of stake is faulty"
                ));
            }
            return;
        }
        self.safety.learn(&qc);
        self.qcs.insert(view, qc.clone());
        while self.qcs.len() > QCS_MAX {
            self.qcs.pop_first();
        }
        self.rhythm.certified(now, view);
        if view >= self.view() {
            self.forward = Some(qc);
            self.enter_view(now, view.next(), None);
        }
    }

    /// Learns a verified timeout certificate: enters the next view (C-6.1).
    pub(super) fn learn_tc(&mut self, now: Now, tc: Tc) {
        self.watch_timeouts(&tc);
        if let Some(qc) = tc.high_qc.clone() {
            self.learn_qc(now, qc);
        }
        if tc.view >= self.view() {
            self.broadcast(ConsensusMessage::Tc(tc.clone()));
            self.enter_view(now, tc.view.next(), Some(tc));
        } else if tc.view.next() == self.view() && self.high().view < tc.view {
            // Entered by a commit certificate without its prepare certificate: this is what a proposal needs.
            self.safety.justify_entry(tc);
        }
    }

    /// Learns a verified commit certificate: its block and all ancestors are final (C-5.1).
    pub(super) fn learn_commit(&mut self, now: Now, qc: CommitQc) {
        let CommitVote { view, height, block_hash } = qc.vote;
        self.watch_commits(&qc);
        let root = self.tree.root();
        let known = self.commit_qcs.get(&height).map(|known| known.vote.block_hash);
        let known = known.or((height == root.height).then_some(root.hash));
        if let Some(other) = known.filter(|known| *known != block_hash) {
            if let Some(known) = self.commit_qcs.get(&height).map(Witness::from) {
                self.accuse(qc.epoch, known, (&qc).into());
            }
            return self.halt(format!(
                "commit certificates for {block_hash} and {other} at height {height}: more than a third of stake is faulty"
            ));
        }
        if height <= root.height {
            return;
        }
        let news = self.commit_head.as_ref().is_none_or(|head| head.vote.height < height);
        if news || !self.commit_qcs.contains_key(&height) {
            self.ready.record(Record::Commit(qc.clone()));
        }
        self.commit_qcs.entry(height).or_insert_with(|| qc.clone());
        if self.commit_qcs.len() > crate::tree::NODES_MAX {
            self.commit_qcs.pop_first();
        }
        if news {
            self.commit_head = Some(qc);
            self.pacemaker.on_progress();
        }
        if view >= self.view() {
            self.enter_view(now, view.next(), None);
        }
    }

    /// Answers the highest prepare certificate with a commit vote, once its block is executed here and unless the
    /// guard forbids it (C-4.2). A certificate for an invalid block means the chain and this executor disagree.
    pub(super) fn try_commit(&mut self, now: Now) {
        if self.halted.is_some() || self.executor.up().is_none() {
            return;
        }
        let Some(qc) = self.safety.state().high_qc.clone() else { return };
        let verdict = match self.tree.get(&qc.vote.block_hash) {
            Some(node) => node.verdict,
            // Finalized here, or not received yet: nothing to add.
            None => return,
        };
        if let Verdict::Invalid(code) = verdict {
            let PrepareVote { height, block_hash, .. } = qc.vote;
            return self.halt(format!(
                "quorum stake certified block {block_hash} at height {height}, which this executor finds invalid ({code:?})"
            ));
        }
        if verdict != Verdict::Valid && !types::injected!(CommitUnexecuted) {
            return;
        }
        if let Ok(signed) = self.safety.commit(&qc) {
            self.sign_state_changed = true;
            self.forward = None;
            self.broadcast(ConsensusMessage::Commit(self.epoch(), Commit { signed: signed.clone(), qc }));
            self.count_commit(now, signed);
        }
    }

    /// Forwards the certificate the view was entered by, when no commit vote carried it (C-6.1).
    pub(super) fn flush_forward(&mut self) {
        if let Some(qc) = self.forward.take() {
            self.broadcast(ConsensusMessage::Qc(qc));
        }
    }
}
