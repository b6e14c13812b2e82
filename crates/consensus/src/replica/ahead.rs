//! Signing ahead. Between a node's own message and the answers to it there is nothing to do for a whole message delay;
//! what it will sign next is known by then. Only the computation moves: whether a signature may leave is decided when
//! it is asked for, by the same rules, after the same write to the disk.

use super::Replica;
use super::proposals::link_to;
use crate::tree::Verdict;
use types::CommitVote;

impl Replica {
    /// Signs what this node will probably be asked for next. Call it when everything was sent that others wait for.
    pub fn work_ahead(&mut self) {
        if self.halted.is_some() || self.safety.highest_timeout_view() >= self.view() {
            return;
        }
        if self.safety.last_prepared_view() < self.view() {
            self.reveal_ahead();
            self.prepare_ahead();
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
}
