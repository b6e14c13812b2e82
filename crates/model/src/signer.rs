//! An honest validator: the project's own [`Safety`], asked anew for every step.
//!
//! A step starts from what is durable, as after a crash: the sign-state is put together from the statements signed so
//! far, a [`Safety`] is made of it, views are entered and certificates learnt as the replica does, and one signature is
//! asked for. What it says is noted. The sign-state it leaves must be the one put together from the new statements;
//! any drift between the two is a panic.

use crate::log::Log;
use crate::universe::{Link, Point, ROOT, Universe};
use consensus::{Audit, Safety, SignState};
use crypto::SecretKey;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use types::vote::Signed;
use types::{
    CommitVote, Epoch, PrepareVote, ProposalVote, Qc, Timeout, TimeoutReason, TimeoutVote, ValidatorIndex,
    View,
};

const ME: ValidatorIndex = ValidatorIndex::new(0);

/// A rule that can be taken away, to see that the checker misses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Rule {
    /// A commit vote looks at the last prepare (C-4.2).
    PrepareGuard,
    /// A commit vote looks at views given up (C-4.2).
    TimeoutGuard,
    /// A prepare vote looks at the lock (C-4.1, 3).
    Lock,
    /// A prepare vote looks at what the timeout certificate reports (C-4.1, 4).
    Report,
    /// A restart remembers what was signed (C-7).
    Memory,
}

/// One signature a validator may be asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// A prepare vote, with the highest certificate that the timeout certificate in the header reports, if there is one.
    Prepare(Link, Option<Point>),
    /// A commit vote on a certificate of this block.
    Commit(Point),
    /// A timeout of a view by a validator whose highest certificate is this.
    GiveUp(u8, Point),
    /// A proposal.
    Propose(Point),
}

impl std::fmt::Debug for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prepare(Link { source, block }, None) => write!(f, "prepares {source:?}->{block:?}"),
            Self::Prepare(Link { source, block }, Some(high)) => {
                write!(f, "prepares {source:?}->{block:?} by a timeout certificate reporting {high:?}")
            }
            Self::Commit(block) => write!(f, "commits {block:?}"),
            Self::GiveUp(view, high) => write!(f, "gives up view {view} reporting {high:?}"),
            Self::Propose(block) => write!(f, "proposes {block:?}"),
        }
    }
}

/// Asks the real rules and remembers their answers: they depend on the validator's own statements and the deed alone.
#[derive(Debug)]
pub struct Signer {
    universe: Universe,
    without: Vec<Rule>,
    answers: RwLock<HashMap<(Log, Deed), Option<Log>>>,
}

impl Signer {
    /// A signer in a universe, without some of the rules.
    pub fn new(universe: Universe, without: &[Rule]) -> Self {
        Self { universe, without: without.to_vec(), answers: RwLock::default() }
    }

    /// The universe.
    pub fn universe(&self) -> &Universe {
        &self.universe
    }

    /// Distinct questions the real rules have answered.
    pub fn answers(&self) -> usize {
        self.answers.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What the validator has signed after the deed, or `None` if the rules refuse it or it adds nothing.
    pub fn act(&self, log: Log, deed: Deed) -> Option<Log> {
        let known = self.answers.read().unwrap_or_else(PoisonError::into_inner).get(&(log, deed)).copied();
        known.unwrap_or_else(|| {
            let answer = self.ask(log, deed);
            self.answers.write().unwrap_or_else(PoisonError::into_inner).insert((log, deed), answer);
            answer
        })
    }

    /// As [`Self::act`], without remembering: for models that ask every question once.
    pub fn ask(&self, log: Log, deed: Deed) -> Option<Log> {
        let mut safety = self.restarted(log, deed);
        let mut next = log;
        match deed {
            Deed::Prepare(link, skipped) => {
                enter(&mut safety, link.block.view);
                let vote = self.universe.prepare_vote(link);
                let unread = self.without.contains(&Rule::Report);
                let tc = match skipped.map(|high| if unread { ROOT } else { high }) {
                    Some(high) => Some(self.universe.tc(link.block.view.checked_sub(1)?, high)?),
                    None => None,
                };
                let current = safety.state().view;
                let signed = safety.prepare(current, vote, self.universe.qc(link.source), tc).ok()?;
                assert_eq!(signed.statement, vote, "signed what was asked for");
                next.prepare(link);
            }
            Deed::Commit(block) => {
                let qc = self.universe.qc(block)?;
                safety.learn(qc);
                enter(&mut safety, block.view + 1);
                let signed = safety.commit(qc).ok()?;
                assert_eq!(signed.statement, self.universe.commit_vote(block), "signed what was asked for");
                next.commit(block);
            }
            Deed::GiveUp(view, high) => {
                let known = log.high();
                if high.view > known.view {
                    safety.learn(self.universe.qc(high)?);
                } else if high != known {
                    return None;
                }
                enter(&mut safety, view);
                // The replica gives up the view it is in, and no other.
                if safety.state().view != view_of(view) {
                    return None;
                }
                let timeout = safety.timeout(view_of(view), TimeoutReason::Expired).ok()?;
                assert_eq!(timeout.signed.statement.view, view_of(view), "signed what was asked for");
                // Asked again, it repeats what it said before.
                if timeout.signed.statement.high_qc_view != view_of(high.view) {
                    return None;
                }
                next.give_up(view, high);
            }
            Deed::Propose(block) => {
                enter(&mut safety, block.view);
                if safety.state().view != view_of(block.view) {
                    return None;
                }
                safety.propose(view_of(block.view), self.universe.hash(block)).ok()?;
                next.propose(block);
            }
        }
        if self.without.is_empty() {
            self.assert_no_drift(&next, safety.state());
        }
        if log.guilty() || self.contradicts(&log, deed, &next) {
            next.convict();
        }
        (next != log).then_some(next)
    }

    // From statements to the sign-state and back.

    fn restarted(&self, log: Log, deed: Deed) -> Safety {
        let mut state = self.sign_state(&log);
        for rule in &self.without {
            match (rule, deed) {
                (Rule::PrepareGuard, Deed::Commit(_)) => state.last_prepare = None,
                (Rule::TimeoutGuard, Deed::Commit(_)) => state.last_timeout = None,
                (Rule::Lock, Deed::Prepare(..)) => state.lock = None,
                (Rule::Memory, _) => state = self.sign_state(&Log::default()),
                _ => {}
            }
        }
        Safety::new(Some((ME, SecretKey::simulated(0))), self.universe.domain(), Some(state))
    }

    /// The sign-state of a validator that has signed exactly this and learnt no more than it had to.
    fn sign_state(&self, log: &Log) -> SignState {
        let (domain, key) = (self.universe.domain(), SecretKey::simulated(0));
        let mut state = Safety::new(None, domain, None).state().clone();
        let latest = |has: &dyn Fn(u8) -> bool| log.views().filter(|view| has(*view)).max();
        state.view = view_of(log.view());
        state.last_prepare = latest(&|view| log.prepared(view).is_some())
            .and_then(|view| log.prepared(view))
            .map(|link| Signed::new(self.universe.prepare_vote(link), ME, &key, &domain));
        state.last_commit = latest(&|view| log.committed(view).is_some())
            .and_then(|view| log.committed(view))
            .map(|block| Signed::new(self.universe.commit_vote(block), ME, &key, &domain));
        state.last_timeout = latest(&|view| log.gave_up(view).is_some()).map(|view| self.timeout(log, view));
        state.last_proposal = latest(&|view| log.proposed(view).is_some())
            .and_then(|view| log.proposed(view))
            .map(|block| (view_of(block.view), self.universe.hash(block)));
        state.lock = self.universe.qc(log.lock()).cloned();
        state.high_qc = self.universe.qc(log.high()).cloned();
        state
    }

    fn timeout(&self, log: &Log, view: u8) -> Timeout {
        let high = log.gave_up(view).unwrap_or(ROOT);
        let statement = timeout_vote(log, view, high);
        let signed = Signed::new(statement, ME, &SecretKey::simulated(0), &self.universe.domain());
        Timeout { signed, high_qc: self.universe.qc(high).cloned() }
    }

    /// The statements are the whole state only if they give the very sign-state that the rules left.
    fn assert_no_drift(&self, log: &Log, left: &SignState) {
        let ours = self.sign_state(log);
        let certified = |qc: &Option<Qc>| qc.as_ref().map(|qc| (qc.view(), qc.vote.block_hash));
        assert_eq!(ours.last_prepare, left.last_prepare, "{log:?}");
        assert_eq!(ours.last_commit, left.last_commit, "{log:?}");
        assert_eq!(ours.last_timeout, left.last_timeout, "{log:?}");
        assert_eq!(ours.last_proposal, left.last_proposal, "{log:?}");
        assert_eq!(certified(&ours.lock), certified(&left.lock), "{log:?}");
        // Of two certificates of one view the first stays, and only its view is ever looked at.
        let high = |state: &SignState| state.high_qc.as_ref().map(Qc::view);
        assert_eq!(high(&ours), high(left), "{log:?}");
        assert_eq!((ours.epoch, ours.view), (left.epoch, left.view), "{log:?}");
    }

    // The auditor.

    /// Whether the deed contradicts what was signed before, by the project's own auditor.
    fn contradicts(&self, before: &Log, deed: Deed, after: &Log) -> bool {
        let mut audit = Audit::default();
        let honest = |log: &Log, audit: &mut Audit| self.statements(log).all(|said| said.judge(audit));
        if !honest(before, &mut audit) {
            return true;
        }
        let new = match deed {
            Deed::Prepare(link, _) => Said::Prepare(self.universe.prepare_vote(link)),
            Deed::Commit(block) => Said::Commit(self.universe.commit_vote(block)),
            Deed::GiveUp(view, high) => Said::Timeout(timeout_vote(after, view, high)),
            Deed::Propose(block) => Said::Proposal(self.proposal(block)),
        };
        !new.judge(&mut audit)
    }

    fn proposal(&self, block: Point) -> ProposalVote {
        ProposalVote { view: view_of(block.view), block_hash: self.universe.hash(block) }
    }

    fn statements(&self, log: &Log) -> impl Iterator<Item = Said> {
        log.views().flat_map(move |view| {
            let prepared = log.prepared(view).map(|link| Said::Prepare(self.universe.prepare_vote(link)));
            let committed = log.committed(view).map(|block| Said::Commit(self.universe.commit_vote(block)));
            let gave_up = log.gave_up(view).map(|high| Said::Timeout(timeout_vote(log, view, high)));
            let proposed = log.proposed(view).map(|block| Said::Proposal(self.proposal(block)));
            [prepared, committed, gave_up, proposed].into_iter().flatten()
        })
    }
}

#[derive(Clone, Copy)]
enum Said {
    Prepare(PrepareVote),
    Commit(CommitVote),
    Timeout(TimeoutVote),
    Proposal(ProposalVote),
}

impl Said {
    fn judge(self, audit: &mut Audit) -> bool {
        let epoch = Epoch::ZERO;
        let verdict = match self {
            Self::Prepare(vote) => audit.prepare(epoch, ME, vote),
            Self::Commit(vote) => audit.commit(epoch, ME, vote),
            Self::Timeout(vote) => audit.timeout(epoch, ME, vote),
            Self::Proposal(vote) => audit.proposal(epoch, ME, vote),
        };
        verdict.is_ok()
    }
}

fn view_of(view: u8) -> View {
    View::new(view.into())
}

/// Views are entered from below only, as the replica does.
fn enter(safety: &mut Safety, view: u8) {
    if view_of(view) > safety.state().view {
        safety.enter(view_of(view), None);
    }
}

/// A prepare above a view given up comes after the timeout, one up to it before: so this is what it reported.
fn timeout_vote(log: &Log, view: u8, high: Point) -> TimeoutVote {
    let prepared = log.views().filter(|at| *at <= view && log.prepared(*at).is_some()).max();
    TimeoutVote {
        view: view_of(view),
        high_qc_view: view_of(high.view),
        last_prepared_view: view_of(prepared.unwrap_or(0)),
        reason: TimeoutReason::Expired,
    }
}
