//! What this validator may sign (C-4, C-7). The only code in the project that makes consensus votes.
//!
//! Every method either refuses, changing nothing, or updates the sign-state and returns the signed message. The
//! caller must make [`Safety::state`] durable before the message leaves ([`crate::Ready`] enforces it).
//!
//! # Invariants
//! - `last_prepare`, `last_commit`, `last_timeout`, `last_proposal` only ever move to higher views.
//! - `lock` never falls, and never rises without a vote: learning a certificate later raises `high_qc` only.

use crate::disk::SignState;
use crate::restraint::{Floor, Silence};
use crypto::SecretKey;
use std::collections::VecDeque;
use types::injected;
use types::vote::{Signed, Statement, randao_bytes};
use types::{
    B256, CommitVote, Domain, Epoch, PrepareVote, ProposalVote, Qc, Signature, Tc, Timeout, TimeoutReason,
    TimeoutVote, ValidatorIndex, View,
};

/// Why a signature was refused. None of these is an error: they are the protocol being safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This node holds no key of the set.
    #[error("not a validator of this epoch")]
    NotAValidator,
    /// Votes are for the current view.
    #[error("vote for view {asked} in view {current}")]
    WrongView {
        /// View of the vote.
        asked: View,
        /// View the node is in.
        current: View,
    },
    /// One prepare per view, views only rise.
    #[error("already prepared in view {last}")]
    AlreadyPrepared {
        /// Target of the last prepare.
        last: View,
    },
    /// One commit per view, views only rise.
    #[error("already committed in view {last}")]
    AlreadyCommitted {
        /// View of the last commit.
        last: View,
    },
    /// One proposal per view, views only rise.
    #[error("already proposed in view {last}")]
    AlreadyProposed {
        /// View of the last proposal.
        last: View,
    },
    /// A view given up is never voted in.
    #[error("view {last} was already given up")]
    TimedOut {
        /// Highest view given up.
        last: View,
    },
    /// The link starts below the lock.
    #[error("link starts at view {from}, locked on view {lock}")]
    BelowLock {
        /// Source of the link.
        from: View,
        /// View of the lock.
        lock: View,
    },
    /// The link starts at the lock's view with another block: more than a third of stake is faulty.
    #[error("link starts at another block than the one locked on in view {lock}")]
    ConflictsWithLock {
        /// View of the lock.
        lock: View,
    },
    /// The link starts below what the timeout certificate reports.
    #[error("link starts at view {from}, the timeout certificate reports view {reported}")]
    BelowTimeoutCertificate {
        /// Source of the link.
        from: View,
        /// Highest certificate its signers reported.
        reported: View,
    },
    /// The link skips views without proof that they were given up.
    #[error("link from view {from} to view {to} skips views without a timeout certificate of the last one")]
    SkipsViews {
        /// Source of the link.
        from: View,
        /// Target of the link.
        to: View,
    },
    /// The commit guard (C-4.2): the node has prepared in a later view.
    #[error("commit for view {asked} after a prepare in view {prepared}")]
    PreparedLater {
        /// View of the commit.
        asked: View,
        /// Target of the last prepare.
        prepared: View,
    },
    /// The key has signed that far elsewhere (C-7.6).
    #[error(
        "{what} of view {asked} in epoch {epoch}: this key has signed up to view {floor} of epoch {floor_epoch}"
    )]
    BelowFloor {
        /// Which statement.
        what: &'static str,
        /// Its epoch.
        epoch: Epoch,
        /// Its view.
        asked: View,
        /// Epoch up to which the key has signed.
        floor_epoch: Epoch,
        /// View up to which it has signed there, for this statement.
        floor: View,
    },
    /// Nothing at all is signed for now (C-7.7 to C-7.9).
    #[error("nothing is signed: {0}")]
    Silent(Silence),
}

/// Signatures made ahead: a prepare, a commit, a reveal, and what is left of the view before.
const AHEAD_MAX: usize = 4;

/// The signer: key, domain and sign-state.
#[derive(Clone, Debug)]
pub struct Safety {
    identity: Option<(ValidatorIndex, SecretKey)>,
    domain: Domain,
    state: SignState,
    /// What was signed before it was asked for. Signatures are deterministic, so these are the ones that would be made
    /// then; none leaves but through the rules below.
    ahead: VecDeque<(Vec<u8>, Signature)>,
    floor: Floor,
    silence: Option<Silence>,
}

impl Safety {
    /// A signer for one epoch. `state` is what was durable; `None` on a first start.
    pub fn new(
        identity: Option<(ValidatorIndex, SecretKey)>,
        domain: Domain,
        state: Option<SignState>,
    ) -> Self {
        let fresh = SignState {
            epoch: Epoch::new(domain.epoch),
            view: View::new(1),
            last_proposal: None,
            last_prepare: None,
            last_commit: None,
            last_timeout: None,
            lock: None,
            high_qc: None,
            entered_by: None,
        };
        Self {
            identity,
            domain,
            state: state.unwrap_or(fresh),
            ahead: VecDeque::new(),
            floor: Floor::default(),
            silence: None,
        }
    }

    /// The same, bound by how far the key has signed elsewhere (C-7.6), and silent if there is a reason.
    #[must_use]
    pub fn restrained(mut self, floor: Floor, silence: Option<Silence>) -> Self {
        (self.floor, self.silence) = (floor, silence);
        self
    }

    // Getters.

    /// The record to make durable.
    pub fn state(&self) -> &SignState {
        &self.state
    }

    /// This node's index, if it is a validator.
    pub fn index(&self) -> Option<ValidatorIndex> {
        self.identity.as_ref().map(|(index, _)| *index)
    }

    /// How far the key has signed elsewhere; never falls.
    pub fn floor(&self) -> &Floor {
        &self.floor
    }

    /// How far the key has signed at all.
    pub fn signed(&self) -> Floor {
        let mut signed = Floor::of(&self.state);
        signed.raise(&self.floor);
        signed
    }

    /// Target view of the last prepare; 0 for none.
    pub fn last_prepared_view(&self) -> View {
        self.state.last_prepare.as_ref().map_or(View::ZERO, |vote| vote.statement.target_view)
    }

    /// Highest view given up; 0 for none.
    pub fn highest_timeout_view(&self) -> View {
        self.state.last_timeout.as_ref().map_or(View::ZERO, |timeout| timeout.signed.statement.view)
    }

    /// View of the lock; 0 for the epoch's root.
    pub fn lock_view(&self) -> View {
        self.state.lock.as_ref().map_or(View::ZERO, Qc::view)
    }

    /// View of the highest known certificate; 0 for the epoch's root.
    pub fn high_qc_view(&self) -> View {
        self.state.high_qc.as_ref().map_or(View::ZERO, Qc::view)
    }

    /// The RANDAO reveal for a view.
    pub fn reveal(&self, view: View) -> Result<Signature, Refusal> {
        let (_, key) = self.signer()?;
        Ok(self.signature(key, &randao_bytes(&self.domain, view)))
    }

    // Signing ahead, while there is nothing else to do.

    /// Signs the reveal of a view that this node will propose in.
    pub fn reveal_ahead(&mut self, view: View) {
        self.sign_ahead(randao_bytes(&self.domain, view));
    }

    /// Signs what [`Safety::prepare`] or [`Safety::commit`] will be asked for, or not: whether it may leave is decided
    /// there, and nothing of it is remembered until then.
    pub fn vote_ahead(&mut self, statement: &impl Statement) {
        self.sign_ahead(statement.signing_bytes(&self.domain));
    }

    fn sign_ahead(&mut self, message: Vec<u8>) {
        let Ok((_, key)) = self.signer() else { return };
        if self.ahead.iter().all(|(signed, _)| *signed != message) {
            let signature = key.sign(&message);
            if self.ahead.len() >= AHEAD_MAX {
                self.ahead.pop_front();
            }
            self.ahead.push_back((message, signature));
        }
    }

    fn signature(&self, key: &SecretKey, message: &[u8]) -> Signature {
        let ahead = self.ahead.iter().find(|(signed, _)| signed == message);
        ahead.map_or_else(|| key.sign(message), |(_, signature)| *signature)
    }

    // Inputs that sign nothing.

    /// The key has signed that far elsewhere.
    pub fn raise_floor(&mut self, floor: &Floor) {
        self.floor.raise(floor);
    }

    /// Signs nothing while there is a reason.
    pub fn silence_for(&mut self, reason: Option<Silence>) {
        self.silence = reason;
    }

    /// Notes that a view was entered, and by which timeout certificate if by one.
    pub fn enter(&mut self, view: View, entered_by: Option<Tc>) {
        debug_assert!(view > self.state.view, "views only rise");
        self.state.view = view;
        self.state.entered_by = entered_by;
    }

    /// Notes the timeout certificate of the view before the current one, when that was entered without.
    pub fn justify_entry(&mut self, tc: Tc) {
        debug_assert_eq!(tc.view.next(), self.state.view, "a certificate justifies the next view only");
        self.state.entered_by.get_or_insert(tc);
    }

    /// Learns a verified certificate: raises `high_qc`, never the lock (C-4.2).
    pub fn learn(&mut self, qc: &Qc) {
        if qc.view() > self.high_qc_view() {
            self.state.high_qc = Some(qc.clone());
        }
        if injected!(LockOnLateQc) {
            self.raise_lock(qc);
        }
    }

    // Inputs that sign.

    /// A proposal for `view` (C-7: one per view, also across restarts).
    pub fn propose(&mut self, view: View, block_hash: B256) -> Result<Signed<ProposalVote>, Refusal> {
        if let Some((last, _)) = self.state.last_proposal.filter(|(last, _)| *last >= view) {
            return Err(Refusal::AlreadyProposed { last });
        }
        if self.highest_timeout_view() >= view {
            return Err(Refusal::TimedOut { last: self.highest_timeout_view() });
        }
        self.floor.check_proposal(self.state.epoch, view)?;
        let signed = self.sign(ProposalVote { view, block_hash })?;
        self.state.last_proposal = Some((view, block_hash));
        Ok(signed)
    }

    /// A prepare vote for `link` in view `current`, with the timeout certificate the block carries (C-4.1).
    /// `source` is the verified certificate the link starts at; `None` for the epoch's root.
    ///
    /// The caller has checked the proposer, the header, the executor's verdict and storage.
    pub fn prepare(
        &mut self,
        current: View,
        link: PrepareVote,
        source: Option<&Qc>,
        skipped: Option<&Tc>,
    ) -> Result<Signed<PrepareVote>, Refusal> {
        self.check_prepare(current, &link, skipped)?;
        let signed = self.sign(link)?;
        self.state.last_prepare = Some(signed.clone());
        if let Some(qc) = source {
            self.learn(qc);
            self.raise_lock(qc);
        }
        Ok(signed)
    }

    fn check_prepare(&self, current: View, link: &PrepareVote, skipped: Option<&Tc>) -> Result<(), Refusal> {
        let PrepareVote { source_view: from, target_view: to, .. } = *link;
        if to != current {
            return Err(Refusal::WrongView { asked: to, current });
        }
        if to <= self.last_prepared_view() {
            return Err(Refusal::AlreadyPrepared { last: self.last_prepared_view() });
        }
        if to <= self.highest_timeout_view() {
            return Err(Refusal::TimedOut { last: self.highest_timeout_view() });
        }
        if from < self.lock_view() && !injected!(NoLock) {
            return Err(Refusal::BelowLock { from, lock: self.lock_view() });
        }
        let same_view_lock = self.state.lock.as_ref().filter(|lock| lock.view() == from);
        let conflicts = same_view_lock.is_some_and(|lock| lock.vote.block_hash != link.source_hash);
        if conflicts && !injected!(NoLock) {
            return Err(Refusal::ConflictsWithLock { lock: from });
        }
        self.floor.check_prepare(self.state.epoch, from, to)?;
        if from.next() == to {
            return Ok(());
        }
        let Some(tc) = skipped.filter(|tc| tc.view.next() == to || injected!(StaleTc)) else {
            return Err(Refusal::SkipsViews { from, to });
        };
        if from < tc.high_qc_view() && !injected!(BelowTc) {
            return Err(Refusal::BelowTimeoutCertificate { from, reported: tc.high_qc_view() });
        }
        Ok(())
    }

    /// A commit vote answering a verified prepare certificate (C-4.2). The guard: never for a view below the last
    /// prepare's target and never for a view given up, both from the durable state. Without it one faulty validator
    /// that releases its vote late forks the chain.
    pub fn commit(&mut self, qc: &Qc) -> Result<Signed<CommitVote>, Refusal> {
        let view = qc.view();
        if let Some(last) =
            self.state.last_commit.as_ref().map(|c| c.statement.view).filter(|last| *last >= view)
        {
            return Err(Refusal::AlreadyCommitted { last });
        }
        if view < self.last_prepared_view() && !injected!(NoGuard) && !injected!(NoPreparedGuard) {
            return Err(Refusal::PreparedLater { asked: view, prepared: self.last_prepared_view() });
        }
        if view <= self.highest_timeout_view() && !injected!(NoGuard) && !injected!(NoTimeoutGuard) {
            return Err(Refusal::TimedOut { last: self.highest_timeout_view() });
        }
        self.floor.check_commit(self.state.epoch, view)?;
        let PrepareVote { height, block_hash, .. } = qc.vote;
        let signed = self.sign(CommitVote { view, height, block_hash })?;
        self.state.last_commit = Some(signed.clone());
        self.learn(qc);
        self.raise_lock(qc);
        Ok(signed)
    }

    /// A timeout of `view` (C-6). Asked again for the same view, it returns the stored message.
    pub fn timeout(&mut self, view: View, reason: TimeoutReason) -> Result<Timeout, Refusal> {
        if let Some(last) = self.state.last_timeout.as_ref().filter(|last| last.signed.statement.view >= view)
        {
            let last_view = last.signed.statement.view;
            return if last_view == view {
                Ok(last.clone())
            } else {
                Err(Refusal::TimedOut { last: last_view })
            };
        }
        if let Some(last) =
            self.state.last_commit.as_ref().map(|c| c.statement.view).filter(|last| *last >= view)
        {
            return Err(Refusal::AlreadyCommitted { last });
        }
        self.floor.check_timeout(self.state.epoch, view, self.high_qc_view())?;
        let statement = TimeoutVote {
            view,
            high_qc_view: self.high_qc_view(),
            last_prepared_view: self.signed().target,
            reason,
        };
        let timeout = Timeout { signed: self.sign(statement)?, high_qc: self.state.high_qc.clone() };
        self.state.last_timeout = Some(timeout.clone());
        Ok(timeout)
    }

    fn raise_lock(&mut self, qc: &Qc) {
        if qc.view() > self.lock_view() {
            self.state.lock = Some(qc.clone());
        }
    }

    fn sign<S: Statement>(&self, statement: S) -> Result<Signed<S>, Refusal> {
        let (signer, key) = self.signer()?;
        let signature = self.signature(key, &statement.signing_bytes(&self.domain));
        Ok(Signed { statement, signer: *signer, signature })
    }

    /// The only way to the key.
    fn signer(&self) -> Result<&(ValidatorIndex, SecretKey), Refusal> {
        match self.silence {
            Some(reason) => Err(Refusal::Silent(reason)),
            None => self.identity.as_ref().ok_or(Refusal::NotAValidator),
        }
    }
}
