//! What a node says about itself: where it stands and why it does not move (getters only).

use super::{Now, Replica, WaitStatus};
use types::{B256, Height, Stake, ValidatorIndex, ValidatorSet, View};

/// Why consensus is not moving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StallReason {
    /// Something is wrong that needs a human.
    Halted(String),
    /// The directory was copied or restored; nobody has said yet that it is the only one.
    Copied {
        /// What shows it.
        what: String,
        /// A statement of the own key that is not in this directory, if one was seen.
        seen: Option<String>,
    },
    /// The start-up wait for a second instance of the own key.
    Waiting {
        /// How far it is.
        wait: WaitStatus,
        /// Why it began anew, if it did.
        seen: Option<String>,
    },
    /// The executor is away or behind.
    Executor(String),
    /// Too little stake is connected.
    BelowQuorum {
        /// Stake connected, this node's included.
        connected: Stake,
        /// Stake needed.
        required: Stake,
        /// Who is missing.
        missing: Vec<ValidatorIndex>,
    },
    /// Blocks are being fetched.
    Syncing {
        /// Height here.
        at: Height,
        /// Height proven to exist.
        target: Height,
    },
    /// Views keep failing.
    Timeouts {
        /// Views given up since the last progress.
        failed: u32,
        /// Proposer of the current view.
        proposer: ValidatorIndex,
    },
}

/// A snapshot for status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Current view.
    pub view: View,
    /// Proposer of it.
    pub proposer: ValidatorIndex,
    /// This node's index, if it is a validator.
    pub index: Option<ValidatorIndex>,
    /// Last finalized height.
    pub finalized: Height,
    /// Its hash.
    pub finalized_hash: B256,
    /// Highest certified height.
    pub certified: Height,
    /// Highest height a commit certificate proves.
    pub committed: Height,
    /// Validators this node has a link to.
    pub connected: Vec<ValidatorIndex>,
    /// Why it does not move, most fundamental reason first; empty when all is well.
    pub reasons: Vec<StallReason>,
}

/// Public decision of a height (C-1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionStatus {
    /// Not decided.
    Pending,
    /// Final.
    Committed,
    /// The block proposed at it can no longer become final in its view.
    Rejected,
}

/// Stakes behind a height's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub status: DecisionStatus,
    /// Stake needed.
    pub required: Stake,
    /// Stake that committed.
    pub approved: Stake,
    /// Stake that gave up on the block as invalid.
    pub rejected: Stake,
    /// The block the figures are of, if one is known.
    pub block_hash: Option<B256>,
}

impl Replica {
    /// Where the node stands.
    pub fn status(&self, now: Now) -> Status {
        let (finalized, finalized_hash) = self.finalized();
        Status {
            view: self.view(),
            proposer: self.proposer(self.view()),
            index: self.index(),
            finalized,
            finalized_hash,
            certified: self.high().height,
            committed: self.committed_height(),
            connected: self.connected.iter().copied().collect(),
            reasons: self.stall_reasons(now),
        }
    }

    fn committed_height(&self) -> Height {
        self.commit_head.as_ref().map_or(self.finalized().0, |qc| qc.vote.height.max(self.finalized().0))
    }

    fn stall_reasons(&self, now: Now) -> Vec<StallReason> {
        let alarm = self.alarmed().map(|alarm| StallReason::Halted(alarm.to_owned()));
        let mut reasons: Vec<StallReason> = alarm.into_iter().collect();
        let seen = self.seen_elsewhere().map(String::from);
        if let Some(copied) = self.copied() {
            reasons.push(StallReason::Copied { what: copied.what.clone(), seen });
        } else if let Some(wait) = self.waiting(now) {
            reasons.push(StallReason::Waiting { wait, seen });
        }
        if let Some(reason) = self.executor.down_reason() {
            let detail = self.executor.last_error().filter(|error| *error != reason);
            let text = detail.map_or(reason.clone(), |error| format!("{reason} (last error: {error})"));
            reasons.push(StallReason::Executor(text));
        }
        let here = |index: &ValidatorIndex| Some(*index) == self.index() || self.connected.contains(index);
        let connected =
            self.set.indices().filter(here).fold(Stake::ZERO, |sum, i| sum.plus(self.set.stake(i)));
        if !self.set.is_quorum(connected) {
            let missing = self.set.indices().filter(|index| !here(index)).collect();
            reasons.push(StallReason::BelowQuorum { connected, required: self.set.quorum(), missing });
        }
        let (at, target) = (self.finalized().0, self.committed_height());
        if target.get() > at.get() + 1 {
            reasons.push(StallReason::Syncing { at, target });
        }
        let failed = self.pacemaker.failures();
        if failed > 1 {
            reasons.push(StallReason::Timeouts { failed, proposer: self.proposer(self.view()) });
        }
        reasons
    }

    /// The decision of a height. Heights at or below the finalized one are Committed by the stake of their
    /// certificate, which the caller passes in with the set that signed it when the store has one.
    pub fn decision(&self, height: Height, stored: Option<(&types::CommitQc, &ValidatorSet)>) -> Decision {
        let known = self.commit_qcs.get(&height).map(|qc| (qc, &*self.set));
        let required = stored.map_or(&*self.set, |(_, set)| set).quorum();
        if let Some((qc, set)) = stored.or(known) {
            let approved = set.stake_of(&qc.signers);
            let status = if height <= self.finalized().0 {
                DecisionStatus::Committed
            } else {
                DecisionStatus::Pending
            };
            return Decision {
                status,
                required,
                approved,
                rejected: Stake::ZERO,
                block_hash: Some(qc.vote.block_hash),
            };
        }
        if height <= self.finalized().0 {
            let status = DecisionStatus::Committed;
            return Decision {
                status,
                required,
                approved: required,
                rejected: Stake::ZERO,
                block_hash: None,
            };
        }
        let votes = self.commits.iter().flat_map(|(_, tally)| tally.stakes(&self.set));
        let best = votes.filter(|(vote, _)| vote.height == height).max_by_key(|(_, stake)| *stake);
        let candidate = best.map(|(vote, stake)| (vote.block_hash, stake)).or_else(|| {
            let node = self.proposed.values().rev().filter_map(|hash| self.tree.get(hash));
            node.filter(|n| n.block.header.height == height).map(|n| (n.hash, Stake::ZERO)).next()
        });
        let Some((block_hash, approved)) = candidate else {
            let status = DecisionStatus::Pending;
            return Decision {
                status,
                required,
                approved: Stake::ZERO,
                rejected: Stake::ZERO,
                block_hash: None,
            };
        };
        let rejected = self.timeouts.stake_rejecting(&self.set, block_hash);
        let lost = self.set.total().minus(rejected) < required;
        let status = if lost { DecisionStatus::Rejected } else { DecisionStatus::Pending };
        Decision { status, required, approved, rejected, block_hash: Some(block_hash) }
    }
}
