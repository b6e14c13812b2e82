//! Epochs: which set votes, and moving from one epoch to the next (C-8.3).
//!
//! The last block of an epoch, its boundary, is final before anything is built on it; until then it is proposed again
//! itself. The executor's verdict on it names the set of the epoch after the next one. So both sets a node needs are on
//! its disk, as good as final, when an epoch begins, and no set ever depends on who happens to be up.

use super::{Now, Replica, Settings, StartError, VerifiedCache};
use crate::disk::{Disk, DiskError, Record};
use crate::ready::{Event, Outbound};
use crate::restraint::Floor;
use crate::safety::Safety;
use crate::tally::{TimeoutBook, VoteBook};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::epoch::{EpochInfo, epoch_seed};
use types::{
    B256, CommitQc, ConsensusMessage, Domain, Epoch, Height, Validator, ValidatorIndex, ValidatorSet, View,
};

/// Messages of the next epoch kept per validator until this node is there, beside proposals of its first views.
const EARLY_VOTES_MAX: usize = 8;
/// Bytes of one of them; a vote with a certificate of the largest set has fewer.
const EARLY_VOTE_BYTES_MAX: usize = 4 << 10;
/// First views of an epoch whose proposals are kept.
const EARLY_VIEWS_MAX: u64 = 4;

/// Who votes in an epoch, and the seed of its proposer draw.
#[derive(Clone, Debug)]
pub(super) struct Electorate {
    pub(super) set: Arc<ValidatorSet>,
    pub(super) seed: B256,
}

/// The final block an epoch starts at.
#[derive(Clone, Debug)]
pub(super) struct EpochRoot {
    pub(super) height: Height,
    pub(super) hash: B256,
    /// What made it final; `None` for genesis.
    pub(super) commit: Option<CommitQc>,
}

/// Messages of the next epoch, from nodes that are there already.
#[derive(Debug, Default)]
pub(super) struct Early {
    votes: BTreeMap<ValidatorIndex, Vec<ConsensusMessage>>,
    proposals: BTreeMap<View, (ValidatorIndex, ConsensusMessage)>,
}

impl Electorate {
    /// The electorate of an epoch, from the settings for the first two and from the disk for all others.
    pub(super) fn load(settings: &Settings, disk: &impl Disk, epoch: Epoch) -> Result<Self, StartError> {
        let first = &settings.validators;
        let (members, seed) = match epoch.get() {
            0 => return Ok(Self { set: first.clone(), seed: settings.seed }),
            1 => (first.validators().to_vec(), epoch_seed(settings.seed, epoch)),
            _ => {
                let info = disk.epoch(epoch)?.ok_or(StartError::MissingEpoch { epoch })?;
                (info.validators, info.seed)
            }
        };
        let set = first.successor(epoch, members).map_err(|source| StartError::BadEpoch { epoch, source })?;
        Ok(Self { set: Arc::new(set), seed })
    }

    pub(super) fn proposer(&self, view: View) -> ValidatorIndex {
        self.set.proposer(&self.seed, view)
    }
}

impl EpochRoot {
    /// The root of an epoch that has begun.
    pub(super) fn load(settings: &Settings, disk: &impl Disk, epoch: Epoch) -> Result<Self, StartError> {
        let height = settings.epochs.first(epoch).previous().unwrap_or(Height::ZERO);
        if height == Height::ZERO {
            return Ok(Self { height, hash: settings.genesis_hash, commit: None });
        }
        let stored = disk.finalized(height)?.ok_or(StartError::MissingBoundary { epoch, height })?;
        let commit = stored.commit.ok_or(StartError::MissingBoundary { epoch, height })?;
        Ok(Self { height, hash: commit.vote.block_hash, commit: Some(commit) })
    }
}

impl Replica {
    // Getters.

    /// The epoch this node is in.
    pub fn epoch(&self) -> Epoch {
        self.set.epoch()
    }

    /// The set of the next epoch.
    pub fn next_validators(&self) -> &Arc<ValidatorSet> {
        &self.next.set
    }

    /// The set of the epoch before, whose members are still listened to: what they sign late may convict them.
    pub fn previous_validators(&self) -> Option<&Arc<ValidatorSet>> {
        self.previous.as_ref()
    }

    /// Whose members are heard: this epoch's set, the next one's, the one before's.
    pub fn sets_heard(&self) -> impl Iterator<Item = &Arc<ValidatorSet>> {
        [&self.set, &self.next.set].into_iter().chain(&self.previous)
    }

    /// The set of any epoch up to the next one, as far as it is stored.
    pub fn validators_of(
        &self,
        epoch: Epoch,
        disk: &impl Disk,
    ) -> Result<Option<Arc<ValidatorSet>>, DiskError> {
        if epoch == self.epoch() {
            return Ok(Some(self.set.clone()));
        }
        match Electorate::load(&self.settings, disk, epoch) {
            Ok(electorate) => Ok(Some(electorate.set)),
            Err(StartError::Disk(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Last height of this epoch.
    pub(super) fn boundary(&self) -> Height {
        self.settings.epochs.last(self.epoch())
    }

    // Leaving an epoch.

    /// What the boundary, which is just becoming final, says about the epoch after the next one. A list that makes no
    /// set must not stop the chain: the next epoch's members then stay for one epoch more, at every node alike.
    pub(super) fn note_boundary(&mut self, members: Vec<Validator>, mix: B256) {
        let epoch = self.epoch().next().next();
        let set = self.set.successor(epoch, members).unwrap_or_else(|error| {
            let reason = format!("the executor's validators for epoch {epoch} make no set: {error}");
            self.event(Event::SetRefused { epoch, reason });
            let stay = self.next.set.validators().to_vec();
            self.next.set.successor(epoch, stay).expect("the members of a set make a set")
        });
        let (seed, validators) = (epoch_seed(mix, epoch), set.validators().to_vec());
        self.ready.record(Record::Epoch(Box::new(EpochInfo { epoch, seed, validators })));
        self.coming = Some(Electorate { set: Arc::new(set), seed });
    }

    /// Moves on when the boundary is final. The sign-state of the epoch left behind stays on disk until the first vote
    /// in the new one replaces it: positions are compared by epoch first, so nothing falls.
    pub(super) fn change_epoch(&mut self, now: Now) {
        let is_over = self.tree.root().height == self.boundary();
        let Some(after) = self.coming.take_if(|_| is_over) else { return };
        let left_in = self.view();
        let entered = std::mem::replace(&mut self.next, after);
        self.seed = entered.seed;
        let left = std::mem::replace(&mut self.set, entered.set);
        let by_key = |index: &ValidatorIndex| left.get(*index).and_then(|v| self.set.index_of(&v.public_key));
        self.connected = self.connected.iter().filter_map(by_key).collect();
        self.previous = Some(left);
        let root = self.tree.root();
        let commit = self.commit_head.clone().filter(|qc| qc.vote.block_hash == root.hash);
        // What it knows are bytes that held in the epoch left behind; not all of them say so.
        self.verified = VerifiedCache::default();
        commit.iter().for_each(|qc| self.verified.note(qc));
        self.epoch_root = EpochRoot { height: root.height, hash: root.hash, commit };
        self.domain = Domain { epoch: self.epoch().get(), ..self.domain };
        let ahead = self.ahead.take_if(|state| state.epoch <= self.set.epoch());
        let identity = identity_in(&self.settings, &self.set).filter(|_| self.ahead.is_none());
        let floor = floor_in(&self.floors, &self.set, identity.as_ref());
        let state = ahead.filter(|state| state.epoch == self.set.epoch());
        self.safety = Safety::new(identity, self.domain, state).restrained(floor, None);
        self.guard_epoch_began(now, root.timestamp_ms);
        self.watch_next_epoch(left_in);
        self.forget_views();
        self.pacemaker.on_progress();
        self.start_view_timers(now, false);
        let (epoch, validators) = (self.epoch(), self.set.clone());
        self.event(Event::Epoch { epoch, validators, next: self.next.set.clone() });
        self.announce_evidence_again();
        self.wake = true;
    }

    /// Views start again at 1: nothing that is kept by view may survive.
    fn forget_views(&mut self) {
        self.prepares = VoteBook::default();
        self.commits = VoteBook::default();
        self.timeouts = TimeoutBook::default();
        self.qcs.clear();
        self.commit_qcs.clear();
        self.proposed.clear();
        (self.unverified, self.executed_early, self.expected) = (None, View::ZERO, None);
        self.again.clear();
        self.helped.clear();
        self.leader = None;
        self.drop_prebuilt();
        self.forward = None;
        self.vote_at_ms = None;
        self.catchup.new_epoch();
    }

    // Messages of other epochs.

    /// The sender is an index in the set of the message's epoch.
    pub(super) fn on_foreign_epoch(&mut self, now: Now, from: ValidatorIndex, message: ConsensusMessage) {
        let epoch = message.epoch();
        if epoch == self.epoch().next() {
            self.catchup.others_are_ahead();
            match message {
                ConsensusMessage::Evidence(_, evidence) => self.on_evidence(now, epoch, from, *evidence),
                message => self.keep_early(from, message),
            }
        } else if epoch.next() == self.epoch() {
            self.observe_late(from, &message);
            self.help_into_epoch(now, from, &message);
            if let ConsensusMessage::Evidence(_, evidence) = message {
                self.on_evidence(now, epoch, from, *evidence);
            }
        } else if epoch > self.epoch() {
            self.catchup.others_are_ahead();
        }
    }

    /// Without this, whoever hears of the boundary's finality a moment later than the first proposer of the next epoch
    /// would miss that proposal.
    fn keep_early(&mut self, from: ValidatorIndex, message: ConsensusMessage) {
        if self.next.set.get(from).is_none() {
            return;
        }
        if let ConsensusMessage::Proposal(_, proposal) = &message {
            let view = proposal.signed.statement.view;
            if (1..=EARLY_VIEWS_MAX).contains(&view.get()) && self.next.proposer(view) == from {
                self.early.proposals.entry(view).or_insert((from, message));
            }
            return;
        }
        // Certificates are sent again to whoever needs them; votes are not.
        let is_vote = matches!(
            message,
            ConsensusMessage::Prepare(..) | ConsensusMessage::Commit(..) | ConsensusMessage::Timeout(..)
        );
        let kept = self.early.votes.entry(from).or_default();
        if is_vote && kept.len() < EARLY_VOTES_MAX && types::encode(&message).len() <= EARLY_VOTE_BYTES_MAX {
            kept.push(message);
        }
    }

    /// Called with the first input after the change: what it leads to must not be in one batch with the boundary's mark,
    /// which is written after sign-states.
    pub(super) fn replay_early(&mut self, now: Now) {
        let Early { votes, proposals } = std::mem::take(&mut self.early);
        let votes = votes.into_iter().flat_map(|(from, kept)| kept.into_iter().map(move |m| (from, m)));
        for (from, message) in proposals.into_values().chain(votes) {
            self.on_message(now, from, message);
        }
    }

    /// Whoever still gives up views of the epoch before lacks its boundary's certificate.
    fn help_into_epoch(&mut self, now: Now, from: ValidatorIndex, message: &ConsensusMessage) {
        let key = self.previous.as_ref().and_then(|set| set.get(from)).map(|v| v.public_key);
        let Some(peer) = key.and_then(|key| self.set.index_of(&key)) else { return };
        let Some(commit) = self.epoch_root.commit.clone() else { return };
        let stuck = matches!(message, ConsensusMessage::Timeout(..));
        if stuck && Some(peer) != self.index() && self.may_help(now, peer) {
            self.ready.outbound(Outbound::Send(peer, ConsensusMessage::CommitQc(commit)));
        }
    }
}

/// The first of this node's keys that is in the set, with its index.
pub(super) fn identity_in(
    settings: &Settings,
    set: &ValidatorSet,
) -> Option<(ValidatorIndex, crypto::SecretKey)> {
    settings.keys.iter().find_map(|key| set.index_of(&key.public_key()).map(|index| (index, key.clone())))
}

/// How far the key that signs in a set has signed elsewhere.
pub(super) fn floor_in(
    floors: &BTreeMap<types::PublicKey, Floor>,
    set: &ValidatorSet,
    identity: Option<&(ValidatorIndex, crypto::SecretKey)>,
) -> Floor {
    let key = identity.and_then(|(index, _)| set.get(*index)).map(|own| own.public_key);
    key.and_then(|key| floors.get(&key).copied()).unwrap_or_default()
}
