//! One validator (or follower) as a state machine: the BFT rules, the pacemaker, the executor's leash and catching
//! up, without IO.
//!
//! Call order: [`Replica::new`] with what the disk recovered; then, for every event, [`Replica::handle`], start the
//! requests of the returned [`Ready`], persist it, send what that releases; call `handle` with [`Input::Tick`] when
//! [`Replica::deadline`] has passed. Getters never change anything.
//!
//! # Invariants
//! - Views, the finalized height and the highest known commit certificate never move back.
//! - Nothing unverified is stored: certificates are checked before they are learnt, blocks before they enter the tree.
//! - Every collection is bounded by the validator set, a window of views, or [`crate::tree::NODES_MAX`].

mod ahead;
mod catchup;
mod epochs;
mod evidence;
mod executor;
mod guard;
mod leader;
mod pacemaker;
mod prebuild;
mod proposals;
mod status;
mod together;
mod votes;

use crate::certificate::Certificate;
use crate::disk::{Disk, DiskError, Record, Recovered, SignState};
use crate::evidence::Period;
use crate::ready::{Event, Outbound, Ready};
use crate::restraint::Floor;
use crate::safety::Safety;
use crate::tally::{TimeoutBook, VoteBook};
use crate::tree::{BlockTree, Root};
use crypto::bls::Expected;
use crypto::{SecretKey, tagged_hash};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use types::engine::{BuiltPayload, EngineError, FinalizedState, PayloadLimits, PayloadStatus};
use types::genesis::Timing;
use types::message::Reproposal;
use types::{
    Address, B256, CommitQc, CommitVote, ConsensusMessage, Domain, Epoch, EpochSchedule, FetchResponse,
    Genesis, Height, PrepareVote, PublicKey, Qc, ValidatorIndex, ValidatorSet, View,
};

pub use guard::WaitStatus;
pub use prebuild::BuiltAhead;
pub use status::{Decision, DecisionStatus, StallReason, Status};

/// Views behind the current one for which votes are still counted: finality of the last views.
const VIEWS_BEHIND_MAX: u64 = 8;
/// Views ahead of the current one for which votes are kept.
const VIEWS_AHEAD_MAX: u64 = 16;
/// Verified certificates remembered so that the same bytes are checked once.
const VERIFIED_MAX: usize = 256;
/// Passes of [`Replica::advance`] per input; a lone validator moves a few views in one.
const ADVANCE_PASSES_MAX: usize = 8;
/// Prepare certificates kept by view.
const QCS_MAX: usize = 64;

/// Time, given by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never goes back. Drives every timer.
    pub mono_ms: u64,
    /// Milliseconds since 1970. Only stamps proposals and bounds theirs.
    pub wall_ms: u64,
}

/// What a replica is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of block 0.
    pub genesis_hash: B256,
    /// Timestamp of block 0 in milliseconds.
    pub genesis_timestamp_ms: u64,
    /// Seed of epoch 0's proposer draw and of the RANDAO chain.
    pub seed: B256,
    /// Who votes in epoch 0 and, as the same members, in epoch 1.
    pub validators: Arc<ValidatorSet>,
    /// Pace and timers.
    pub timing: Timing,
    /// Limits of a payload.
    pub limits: PayloadLimits,
    /// Heights per epoch.
    pub epochs: EpochSchedule,
    /// For how long evidence is valid.
    pub evidence_period: Period,
    /// Consensus keys, for validators: the one of a set that knows several is the first of them.
    pub keys: Vec<SecretKey>,
    /// Account that earns the fees of own blocks; `None` for the validator's own.
    pub fee_recipient: Option<Address>,
}

impl Settings {
    /// Settings of a chain, for one node of it.
    pub fn new(
        genesis: &Genesis,
        keys: Vec<SecretKey>,
        fee_recipient: Option<Address>,
    ) -> Result<Self, types::ValidatorSetError> {
        let validators = Arc::new(genesis.validator_set()?);
        Ok(Self {
            chain_id: genesis.config.chain_id,
            genesis_hash: genesis.hash(),
            genesis_timestamp_ms: genesis.timestamp.saturating_mul(1000),
            seed: genesis.seed(),
            timing: genesis.tandem.timing,
            limits: PayloadLimits {
                bytes: genesis.tandem.payload_bytes_max,
                gas: genesis.gas_limit,
                objects: u64::MAX,
            },
            epochs: EpochSchedule::new(genesis.tandem.epoch_length),
            evidence_period: Period(genesis.tandem.staking.unbonding_epochs),
            fee_recipient,
            validators,
            keys,
        })
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A message over the authenticated link of a validator.
    Message {
        /// Who sent it, in the set of the message's epoch.
        from: ValidatorIndex,
        /// The message.
        message: ConsensusMessage,
    },
    /// The link to a validator is up.
    Connected(ValidatorIndex),
    /// The link to a validator is down.
    Disconnected(ValidatorIndex),
    /// The executor answered or changed its state.
    Engine(EngineReply),
    /// Answer to a [`Request::Fetch`].
    Fetched {
        /// Of the request.
        id: u64,
        /// What came; `Err` says why nothing did.
        result: Result<FetchResponse, String>,
    },
    /// Another process proved over a link that it holds this validator's key.
    OwnKeyElsewhere,
}

/// What the executor says.
#[derive(Clone, Debug)]
pub enum EngineReply {
    /// It is there, with this durable head. Also after every restart of it.
    Up(FinalizedState),
    /// It is not there, for this reason.
    Down(String),
    /// Whether a transaction can be included.
    Pending {
        /// Of the request.
        id: u64,
        /// The answer.
        result: Result<bool, EngineError>,
    },
    /// A payload.
    Built {
        /// Of the request.
        id: u64,
        /// The answer.
        result: Result<BuiltPayload, EngineError>,
    },
    /// A verdict.
    Judged {
        /// Of the block.
        block_hash: B256,
        /// The answer.
        result: Result<PayloadStatus, EngineError>,
    },
    /// A block is final and durable in the executor.
    Finalized {
        /// The block asked for.
        block_hash: B256,
        /// The answer.
        result: Result<FinalizedState, EngineError>,
    },
}

/// Why a replica could not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The sign-state is of another key or epoch: signing on from it would help nobody and accuse this key.
    #[error(
        "the sign-state in this directory is of validator {found:?} in epoch {epoch}, this node is {own:?} in epoch {expected}: start the node with the key that made the directory, or with a directory of its own"
    )]
    ForeignSignState {
        /// Who signed last.
        found: Option<ValidatorIndex>,
        /// Epoch of the sign-state.
        epoch: Epoch,
        /// This node.
        own: Option<ValidatorIndex>,
        /// Epoch of the set.
        expected: Epoch,
    },
    /// The disk lacks the block it says is final.
    #[error(
        "the store marks height {height} final but lacks block {block_hash}: restore the block log or start with an empty consensus directory and a fresh key"
    )]
    MissingFinalized {
        /// The height.
        height: Height,
        /// The block.
        block_hash: B256,
    },
    /// The disk lacks what it wrote before it entered the epoch.
    #[error(
        "the store lacks the validators of epoch {epoch}: restore the block log or start with an empty consensus directory and a fresh key"
    )]
    MissingEpoch {
        /// The epoch.
        epoch: Epoch,
    },
    /// What the disk holds makes no set.
    #[error("the validators stored for epoch {epoch} make no set: {source}")]
    BadEpoch {
        /// The epoch.
        epoch: Epoch,
        /// What is wrong with them.
        source: types::ValidatorSetError,
    },
    /// The disk lacks the block an epoch starts at, or its certificate.
    #[error(
        "the store lacks the block or the commit certificate of height {height}, at which epoch {epoch} starts: restore the block log or start with an empty consensus directory and a fresh key"
    )]
    MissingBoundary {
        /// The epoch.
        epoch: Epoch,
        /// Height of the block.
        height: Height,
    },
}

/// One validator or follower.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    set: Arc<ValidatorSet>,
    /// Seed of this epoch's proposer draw.
    seed: B256,
    /// Who votes in the next epoch.
    next: epochs::Electorate,
    /// The set of the epoch before.
    previous: Option<Arc<ValidatorSet>>,
    /// What the boundary, which is final, says about the epoch after the next one.
    coming: Option<epochs::Electorate>,
    domain: Domain,
    safety: Safety,
    /// How far the own keys have signed elsewhere.
    floors: BTreeMap<PublicKey, Floor>,
    /// A sign-state of a later epoch than the one this disk leads to: nothing is signed until then.
    ahead: Option<SignState>,
    tree: BlockTree,
    /// Block 0 of the epoch: what links of view 0 start at.
    epoch_root: epochs::EpochRoot,
    early: epochs::Early,

    prepares: VoteBook<PrepareVote>,
    commits: VoteBook<CommitVote>,
    timeouts: TimeoutBook,
    qcs: BTreeMap<View, Qc>,
    /// Own commit certificates of blocks above the root, by height.
    commit_qcs: BTreeMap<Height, CommitQc>,
    /// The highest commit certificate known.
    commit_head: Option<CommitQc>,
    verified: VerifiedCache,
    /// The reveal of a view whose proposal is still to come, verified as far as it can be without.
    expected: Option<(View, Expected)>,
    /// First block proposed in each view of the window.
    proposed: BTreeMap<View, B256>,
    /// A proposal that the executor works on already, while its signatures are still to be checked.
    unverified: Option<proposals::Arrival>,
    /// The highest view in which the executor was given a block that was not verified.
    executed_early: View,
    /// Of those, the ones that were proposed before, with the reason.
    again: BTreeMap<View, Reproposal>,

    pacemaker: pacemaker::Pacemaker,
    leader: Option<leader::Leading>,
    /// What is built for the next view while this one lasts.
    prebuild: Option<prebuild::Prebuild>,
    built_ahead: BuiltAhead,
    rhythm: prebuild::Rhythm,
    /// The build request whose answer is outstanding.
    building: Option<u64>,
    executor: executor::Executor,
    catchup: catchup::CatchUp,
    offences: evidence::Offences,
    connected: BTreeSet<ValidatorIndex>,
    /// When, and in which view, a validator that is behind was last helped.
    helped: BTreeMap<ValidatorIndex, (View, u64)>,
    /// When the clock lets this node vote on the proposal of the current view.
    vote_at_ms: Option<u64>,
    /// A certificate to forward unless a commit vote carries it in the same step.
    forward: Option<Qc>,
    halted: Option<String>,
    guard: guard::Guard,
    next_id: u64,
    sign_state_changed: bool,
    /// An epoch was just entered: there is work that no input will announce.
    wake: bool,
    ready: Ready,
}

impl Replica {
    /// A replica that continues where the disk left off.
    pub fn new(
        settings: Settings,
        recovered: Recovered,
        disk: &impl Disk,
        now: Now,
    ) -> Result<Self, StartError> {
        let genesis = Root {
            height: Height::ZERO,
            hash: settings.genesis_hash,
            timestamp_ms: settings.genesis_timestamp_ms,
            randao_mix: settings.seed,
        };
        let root = match recovered.finalized {
            None => genesis,
            Some((height, block_hash)) => {
                let block =
                    disk.block(&block_hash)?.ok_or(StartError::MissingFinalized { height, block_hash })?;
                Root {
                    height,
                    hash: block_hash,
                    timestamp_ms: block.header.timestamp_ms,
                    randao_mix: block.system_inputs.randao_mix,
                }
            }
        };
        let epoch = settings.epochs.epoch_of(root.height.next());
        let epochs::Electorate { set, seed } = epochs::Electorate::load(&settings, disk, epoch)?;
        let next = epochs::Electorate::load(&settings, disk, epoch.next())?;
        let before = epoch.previous().map(|epoch| epochs::Electorate::load(&settings, disk, epoch));
        let previous = before.transpose()?.map(|before| before.set);
        let epoch_root = epochs::EpochRoot::load(&settings, disk, epoch)?;
        let domain =
            Domain { chain_id: settings.chain_id, genesis_hash: settings.genesis_hash, epoch: epoch.get() };
        // A sign-state of an epoch left behind restrains nothing any more; one of a later epoch restrains everything.
        let (state, ahead) = match recovered.sign_state {
            Some(state) if state.epoch == epoch => (Some(state), None),
            state => (None, state.filter(|state| state.epoch > epoch)),
        };
        let identity = epochs::identity_in(&settings, &set).filter(|_| ahead.is_none());
        if let Some(state) = &state {
            check_sign_state(state, identity.as_ref().map(|(index, _)| *index), epoch)?;
        }
        let own_keys = settings.keys.iter().map(crypto::SecretKey::public_key);
        let floors: BTreeMap<_, _> = own_keys.map(|key| (key, recovered.restraint.floor_of(&key))).collect();
        let floor = epochs::floor_in(&floors, &set, identity.as_ref());
        let safety = Safety::new(identity, domain, state).restrained(floor, None);
        let mut replica = Self {
            seed,
            next,
            previous,
            coming: None,
            floors,
            ahead,
            epoch_root,
            early: epochs::Early::default(),
            again: BTreeMap::new(),
            wake: false,
            pacemaker: pacemaker::Pacemaker::new(&settings.timing, now.mono_ms),
            tree: BlockTree::new(root),
            qcs: safety
                .state()
                .high_qc
                .iter()
                .chain(&safety.state().lock)
                .map(|qc| (qc.view(), qc.clone()))
                .collect(),
            commit_head: recovered.commit,
            prepares: VoteBook::default(),
            commits: VoteBook::default(),
            timeouts: TimeoutBook::default(),
            commit_qcs: BTreeMap::new(),
            verified: VerifiedCache::default(),
            proposed: BTreeMap::new(),
            expected: None,
            unverified: None,
            executed_early: View::ZERO,
            leader: None,
            prebuild: None,
            built_ahead: BuiltAhead::default(),
            rhythm: prebuild::Rhythm::default(),
            building: None,
            executor: executor::Executor::default(),
            catchup: catchup::CatchUp::default(),
            offences: evidence::Offences::new(set.epoch(), settings.evidence_period),
            connected: BTreeSet::new(),
            helped: BTreeMap::new(),
            vote_at_ms: None,
            forward: None,
            halted: None,
            guard: guard::Guard::default(),
            next_id: 0,
            sign_state_changed: false,
            ready: Ready::default(),
            settings,
            set,
            domain,
            safety,
        };
        replica.restore_evidence(recovered.evidence);
        replica.restrain(recovered.restraint);
        if let Some(root) = disk.block(&replica.epoch_root.hash)? {
            replica.guard_epoch_began(now, root.header.timestamp_ms);
        }
        replica.restore(recovered.blocks, now);
        Ok(replica)
    }

    /// Blocks that certificates lead to, and those of the last views. Others failed; should a certificate still come,
    /// [`Replica::load_missing`] finds them.
    fn restore(&mut self, mut blocks: Vec<Arc<types::Block>>, now: Now) {
        // Blocks of an epoch that ended without them.
        blocks.retain(|block| block.header.epoch == self.epoch());
        blocks.sort_by_key(|block| (block.header.height, block.header.view));
        let blocks: Vec<_> = blocks.into_iter().map(|block| (block.header.hash(), block)).collect();
        let by_hash: BTreeMap<_, _> = blocks.iter().map(|(hash, block)| (*hash, block)).collect();
        for anchor in self.anchors() {
            let mut at = anchor;
            while let Some(block) = by_hash.get(&at).filter(|block| self.tree.insert(at, Arc::clone(block))) {
                at = block.header.parent_hash;
            }
        }
        for (hash, block) in &blocks {
            let view = block.header.view;
            if self.in_window(view)
                && (self.tree.contains(hash) || self.tree.insert(*hash, block.clone()))
                && self.was_proposed(view, hash, block)
            {
                self.proposed.entry(view).or_insert(*hash);
            }
        }
        if let Some(commit) = self.commit_head.clone().filter(|commit| commit.epoch == self.epoch()) {
            self.commit_qcs.insert(commit.vote.height, commit);
        }
        let by_timeout = self.safety.state().entered_by.is_some();
        self.start_view_timers(now, by_timeout);
        // The own votes count again; those of others come when links come up.
        let state = self.safety.state();
        let (prepare, commit) = (state.last_prepare.clone(), state.last_commit.clone());
        if let Some(vote) = prepare.filter(|vote| self.in_window(vote.statement.target_view)) {
            self.count_prepare(now, vote);
        }
        if let Some(vote) = commit.filter(|vote| self.in_window(vote.statement.view)) {
            self.count_commit(now, vote);
        }
    }

    /// Whether a stored block's proposer signed it: of an own block whose sign-state did not reach the disk nobody heard.
    fn was_proposed(&self, view: View, hash: &B256, block: &types::Block) -> bool {
        Some(block.header.proposer) != self.index()
            || self.safety.state().last_proposal.is_some_and(|(last, own)| last > view || own == *hash)
    }

    // Getters.

    /// The view the node is in.
    pub fn view(&self) -> View {
        self.safety.state().view
    }

    /// The last finalized height and its hash: certified, executed and durable in the executor.
    pub fn finalized(&self) -> (Height, B256) {
        (self.tree.root().height, self.tree.root().hash)
    }

    /// The highest commit certificate known; its block may still be on its way.
    pub fn commit_head(&self) -> Option<&CommitQc> {
        self.commit_head.as_ref()
    }

    /// The validator set.
    pub fn validators(&self) -> &Arc<ValidatorSet> {
        &self.set
    }

    /// This node's index, if it is a validator.
    pub fn index(&self) -> Option<ValidatorIndex> {
        self.safety.index()
    }

    /// The proposer of a view.
    pub fn proposer(&self, view: View) -> ValidatorIndex {
        self.set.proposer(&self.seed, view)
    }

    /// The sign-state as it would be persisted.
    pub fn sign_state(&self) -> &crate::SignState {
        self.safety.state()
    }

    /// A block above the finalized one.
    pub fn unfinalized(&self, hash: &B256) -> Option<&Arc<types::Block>> {
        self.tree.get(hash).map(|node| &node.block)
    }

    /// Blocks held above the finalized one.
    pub fn unfinalized_len(&self) -> usize {
        self.tree.len()
    }

    /// When to call [`Replica::handle`] with [`Input::Tick`] at the latest, on the monotonic clock.
    pub fn deadline(&self) -> u64 {
        if self.wake || self.has_unverified() {
            return 0;
        }
        // Followers have no say in views.
        let mut deadline = if self.index().is_some() { self.pacemaker.deadline() } else { u64::MAX };
        let others =
            [self.leader_deadline(), self.catchup.deadline(), self.executor.deadline(), self.vote_at_ms];
        let rare = [self.guard_deadline(), self.prebuild_deadline()];
        for other in others.into_iter().chain(rare).flatten() {
            deadline = deadline.min(other);
        }
        deadline
    }

    // The one input.

    /// Takes an event and says what to do. After an error the replica must not be used again.
    pub fn handle(&mut self, now: Now, input: Input, disk: &impl Disk) -> Result<Ready, DiskError> {
        self.drive_guard(now);
        if std::mem::take(&mut self.wake) {
            self.replay_early(now);
        }
        // Whatever else came with a proposal is looked at before its signatures: the executor needs the time.
        if matches!(
            input,
            Input::Tick
                | Input::Engine(EngineReply::Judged { .. })
                | Input::Message { message: ConsensusMessage::Proposal(..), .. }
        ) {
            self.verify_waiting(now);
        }
        match input {
            Input::Tick => {}
            Input::Message { from, message } => self.on_message(now, from, message),
            Input::Connected(validator) => self.on_connected(validator),
            Input::Disconnected(validator) => {
                self.connected.remove(&validator);
            }
            Input::Engine(reply) => self.on_engine(now, reply, disk)?,
            Input::Fetched { id, result } => self.on_fetched(now, id, result),
            Input::OwnKeyElsewhere => self.on_own_key_elsewhere(now),
        }
        self.drive_guard(now);
        self.advance(now, disk)?;
        if std::mem::take(&mut self.sign_state_changed) {
            self.ready.record(Record::SignState(Box::new(self.safety.state().clone())));
        }
        self.change_epoch(now);
        Ok(std::mem::take(&mut self.ready))
    }

    /// Everything that may have become possible, in the order the rules demand: finality, execution, commit votes
    /// before prepare votes (C-4.3), timeouts, proposing, catching up. Repeated while it moves anything, because an
    /// own vote can complete a certificate.
    fn advance(&mut self, now: Now, disk: &impl Disk) -> Result<(), DiskError> {
        for _ in 0..ADVANCE_PASSES_MAX {
            let before = self.progress();
            self.try_finalize();
            self.drive_evidence(disk)?;
            self.drive_executor(now, disk)?;
            self.try_commit(now);
            self.flush_forward();
            self.try_prepare(now);
            self.drive_pacemaker(now);
            self.drive_leader(now);
            self.drive_prebuild(now);
            self.load_missing(disk)?;
            self.drive_catchup(now);
            if self.progress() == before {
                break;
            }
        }
        Ok(())
    }

    /// What a pass of [`Replica::advance`] can move; each part only rises.
    fn progress(&self) -> (View, Option<View>, View, Option<View>, View, Height, Option<Height>) {
        let state = self.safety.state();
        (
            state.view,
            state.last_proposal.map(|(view, _)| view),
            self.safety.last_prepared_view(),
            state.last_commit.as_ref().map(|commit| commit.statement.view),
            self.safety.highest_timeout_view(),
            self.tree.root().height,
            self.commit_head.as_ref().map(|qc| qc.vote.height),
        )
    }

    fn on_message(&mut self, now: Now, from: ValidatorIndex, message: ConsensusMessage) {
        if message.epoch() != self.epoch() {
            return self.on_foreign_epoch(now, from, message);
        }
        if self.set.get(from).is_none() || Some(from) == self.index() {
            return;
        }
        match message {
            ConsensusMessage::Proposal(_, proposal) => self.on_proposal(now, from, *proposal),
            ConsensusMessage::Prepare(_, vote) => self.on_prepare(now, from, vote),
            ConsensusMessage::Commit(_, commit) => self.on_commit(now, from, commit),
            ConsensusMessage::Timeout(_, timeout) => self.on_timeout(now, from, timeout),
            ConsensusMessage::Qc(qc) => self.on_certificate(now, from, Certificate::Prepare(qc)),
            ConsensusMessage::Tc(tc) => self.on_certificate(now, from, Certificate::Timeout(tc)),
            ConsensusMessage::CommitQc(qc) => self.on_certificate(now, from, Certificate::Commit(qc)),
            ConsensusMessage::Evidence(epoch, evidence) => self.on_evidence(now, epoch, from, *evidence),
        }
    }

    // Helpers shared by the parts.

    fn in_window(&self, view: View) -> bool {
        let current = self.view().get();
        view.get().saturating_add(VIEWS_BEHIND_MAX) >= current
            && view.get() <= current.saturating_add(VIEWS_AHEAD_MAX)
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn broadcast(&mut self, message: ConsensusMessage) {
        self.ready.outbound(Outbound::Broadcast(message));
    }

    fn event(&mut self, event: Event) {
        self.ready.outbound(Outbound::Event(event));
    }

    fn misbehaved(&mut self, validator: ValidatorIndex, what: impl Into<String>) {
        self.event(Event::Misbehaviour { validator, what: what.into() });
    }

    fn halt(&mut self, reason: String) {
        if self.halted.is_none() {
            self.alarm(reason.clone());
            self.halted = Some(reason);
        }
    }

    /// Blocks whose ancestors must stay: what certificates, the lock, catching up or the executor may still need.
    fn anchors(&self) -> Vec<B256> {
        let state = self.safety.state();
        let certified = [&state.high_qc, &state.lock].into_iter().flatten().map(|qc| qc.vote.block_hash);
        let committed = self.commit_head.iter().map(|qc| qc.vote.block_hash);
        let executed = self.executor.up().map(|head| head.block_hash);
        certified.chain(committed).chain(self.catchup.tip_hash()).chain(executed).collect()
    }

    /// The highest certified block as (view, height, hash): the epoch's root when nothing is certified yet.
    fn high(&self) -> types::certificate::CertifiedRef {
        match &self.safety.state().high_qc {
            Some(qc) => qc.into(),
            None => types::certificate::CertifiedRef {
                view: View::ZERO,
                height: self.epoch_root.height,
                block_hash: self.epoch_root.hash,
            },
        }
    }
}

/// Refuses a sign-state that another key made, or one of another epoch.
fn check_sign_state(
    state: &crate::SignState,
    own: Option<ValidatorIndex>,
    expected: Epoch,
) -> Result<(), StartError> {
    let signers = [
        state.last_prepare.as_ref().map(|vote| vote.signer),
        state.last_commit.as_ref().map(|vote| vote.signer),
        state.last_timeout.as_ref().map(|timeout| timeout.signed.signer),
    ];
    let foreign = signers.into_iter().flatten().find(|signer| Some(*signer) != own);
    if foreign.is_some() || state.epoch != expected {
        return Err(StartError::ForeignSignState { found: foreign, epoch: state.epoch, own, expected });
    }
    Ok(())
}

/// Hashes of certificates that verified, so that the same bytes are checked once.
#[derive(Debug, Default)]
struct VerifiedCache {
    known: BTreeSet<B256>,
    order: VecDeque<B256>,
}

impl VerifiedCache {
    /// Whether the certificate is valid: known, or `check` says so now.
    fn check<C: borsh::BorshSerialize>(&mut self, certificate: &C, check: impl FnOnce(&C) -> bool) -> bool {
        let id = Self::id(certificate);
        if self.knows(&id) {
            return true;
        }
        if !check(certificate) {
            return false;
        }
        self.note_id(id);
        true
    }

    /// Notes a certificate this node assembled from verified votes.
    fn note<C: borsh::BorshSerialize>(&mut self, certificate: &C) {
        self.note_id(Self::id(certificate));
    }

    /// Names a certificate, of whatever type, by its bytes.
    fn id<C: borsh::BorshSerialize>(certificate: &C) -> B256 {
        let kind = std::any::type_name::<C>().as_bytes();
        let length = (kind.len() as u64).to_le_bytes();
        tagged_hash("tandem v1 verified certificate", &[&length, kind, &types::encode(certificate)])
    }

    fn knows(&self, id: &B256) -> bool {
        self.known.contains(id)
    }

    fn note_id(&mut self, id: B256) {
        if self.known.insert(id) {
            self.order.push_back(id);
            if self.order.len() > VERIFIED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}
