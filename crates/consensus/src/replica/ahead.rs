//! Computing ahead. Between a node's own message and the answers to it there is nothing to do for a whole message delay;
//! what it will sign or verify next is known by then. Only the computation moves: whether a signature may leave is decided
//! when it is asked for, by the same rules, after the same write to the disk.

use super::Replica;
use super::proposals::link_to;
use crate::tree::Verdict;
use crypto::bls::Expected;
use types::CommitVote;
use types::vote::randao_bytes;

impl Replica {
    /// Signs and verifies what this node will probably be asked for next. Call it when everything was sent that others
    /// wait for.
    pub fn work_ahead(&mut self) {
        let gave_up = self.safety.highest_timeout_view() >= self.view();
        // A proposal that waits to be verified comes first.
        if self.halted.is_some() || gave_up || self.unverified.is_some() {
            return;
        }
        if self.safety.last_prepared_view() < self.view() {
            self.reveal_ahead();
            self.prepare_ahead();
            self.expect_reveal();
        } else {
            self.commit_ahead();
        }
    }

    /// While the executor judges the block of this view.
    fn prepare_ahead(&mut self) {
        let node = self.proposed.get(&self.view()).and_then(|hash| self.tree.get(hash));
        if let Some(node) = node.filter(|node| node.verdict == Verdict::Executing) {
            let link = link_to(&node.block.header, node.hash);
            self.safety.vote_ahead(&link);
        }
    }

    /// While the others prepare what this node prepared.
    fn commit_ahead(&mut self) {
        let Some(prepared) = self.safety.state().last_prepare.as_ref().map(|vote| vote.statement) else {
            return;
        };
        let (view, height, block_hash) = (prepared.target_view, prepared.height, prepared.block_hash);
        if view == self.view() {
            self.safety.vote_ahead(&CommitVote { view, height, block_hash });
        }
    }

    /// Before the proposal comes: a proposer of the next view asks for its payload when it prepares this view's block.
    fn reveal_ahead(&mut self) {
        let next = self.view().next();
        if self.index() == Some(self.proposer(next)) {
            self.safety.reveal_ahead(next);
        }
    }

    /// Before the proposal comes: the reveal in it is over the view, by its proposer.
    fn expect_reveal(&mut self) {
        let view = self.view();
        let known = self.expected.as_ref().is_some_and(|(of, _)| *of == view);
        if known || self.proposed.contains_key(&view) {
            return;
        }
        let proposer = self.proposer(view);
        if let Some(key) = self.set.key(proposer).filter(|_| Some(proposer) != self.index()) {
            let expected = Expected::new(key, randao_bytes(&self.domain, view));
            self.expected = expected.map(|expected| (view, expected));
        }
    }
}
