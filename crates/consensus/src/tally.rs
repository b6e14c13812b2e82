//! Counting votes into certificates (C-1.2). Signatures are checked once, as an aggregate, when the stake is there;
//! only if that fails are they checked one by one and the liars dropped. Votes arrive over authenticated links, so
//! a bad signature is its sender's fault.
//!
//! # Invariants
//! - A validator counts at most once per statement, and for at most two statements per view (the second is kept as
//!   the mark of an equivocator).
//! - A book keeps votes for a bounded window of views.

use crypto::bls::{aggregate, verify_grouped};
use std::collections::BTreeMap;
use types::vote::{Signed, Statement};
use types::{
    Domain, Qc, Signature, SignerSet, Stake, Tc, Timeout, TimeoutGroup, TimeoutReason, ValidatorIndex,
    ValidatorSet, View,
};

/// Different statements one validator may have in one view.
const STATEMENTS_PER_VALIDATOR_MAX: usize = 2;

/// What a vote led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted<C> {
    /// Nothing yet.
    Pending,
    /// Seen before, or one statement too many.
    Ignored,
    /// The stake is there and verified.
    Certified(C),
}

/// A verified aggregate over one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate<S> {
    /// What was signed.
    pub statement: S,
    /// By whom.
    pub signers: SignerSet,
    /// The sum of the signatures.
    pub signature: Signature,
}

#[derive(Clone, Debug, Default)]
struct Votes {
    signatures: BTreeMap<ValidatorIndex, Signature>,
    certified: bool,
}

/// Votes of one kind in one view.
#[derive(Clone, Debug)]
pub struct Tally<S> {
    by_statement: BTreeMap<S, Votes>,
}

impl<S> Default for Tally<S> {
    fn default() -> Self {
        Self { by_statement: BTreeMap::new() }
    }
}

impl<S: Statement + Ord + Copy> Tally<S> {
    /// Counts a vote; `liars` receives validators whose signatures turn out bad.
    pub fn add(
        &mut self,
        set: &ValidatorSet,
        domain: &Domain,
        vote: &Signed<S>,
        liars: &mut Vec<ValidatorIndex>,
    ) -> Counted<Aggregate<S>> {
        let others = self
            .by_statement
            .iter()
            .filter(|(s, v)| **s != vote.statement && v.signatures.contains_key(&vote.signer));
        if set.get(vote.signer).is_none() || others.count() >= STATEMENTS_PER_VALIDATOR_MAX {
            return Counted::Ignored;
        }
        let votes = self.by_statement.entry(vote.statement).or_default();
        if votes.certified || votes.signatures.contains_key(&vote.signer) {
            return Counted::Ignored;
        }
        votes.signatures.insert(vote.signer, vote.signature);
        match certify(set, domain, &vote.statement, votes, liars) {
            Some(aggregate) => Counted::Certified(aggregate),
            None => Counted::Pending,
        }
    }

    /// Stake behind each statement, for status pages.
    pub fn stakes(&self, set: &ValidatorSet) -> Vec<(S, Stake)> {
        self.by_statement.iter().map(|(s, votes)| (*s, stake_of(set, votes.signatures.keys()))).collect()
    }

    /// Everyone who voted, whatever for.
    pub fn voters(&self, set: &ValidatorSet) -> SignerSet {
        SignerSet::of(set.len(), self.by_statement.values().flat_map(|v| v.signatures.keys().copied()))
    }
}

fn certify<S: Statement + Copy>(
    set: &ValidatorSet,
    domain: &Domain,
    statement: &S,
    votes: &mut Votes,
    liars: &mut Vec<ValidatorIndex>,
) -> Option<Aggregate<S>> {
    if !set.is_quorum(stake_of(set, votes.signatures.keys())) {
        return None;
    }
    let message = statement.signing_bytes(domain);
    let verified = |votes: &Votes| {
        let signatures: Vec<_> = votes.signatures.values().copied().collect();
        let keys: Vec<_> = votes.signatures.keys().filter_map(|i| set.key(*i)).collect();
        aggregate(&signatures).ok().filter(|sum| crypto::bls::verify_aggregate(&keys, &message, sum))
    };
    let signature = verified(votes).or_else(|| {
        votes.signatures.retain(|index, signature| {
            let good = set.key(*index).is_some_and(|key| key.verify(&message, signature));
            if !good {
                liars.push(*index);
            }
            good
        });
        if set.is_quorum(stake_of(set, votes.signatures.keys())) { verified(votes) } else { None }
    })?;
    votes.certified = true;
    let signers = SignerSet::of(set.len(), votes.signatures.keys().copied());
    Some(Aggregate { statement: *statement, signers, signature })
}

fn stake_of<'a>(set: &ValidatorSet, voters: impl Iterator<Item = &'a ValidatorIndex>) -> Stake {
    voters.fold(Stake::ZERO, |sum, index| sum.plus(set.stake(*index)))
}

/// Tallies by view, for a window of views.
#[derive(Clone, Debug)]
pub struct VoteBook<S> {
    views: BTreeMap<View, Tally<S>>,
}

impl<S> Default for VoteBook<S> {
    fn default() -> Self {
        Self { views: BTreeMap::new() }
    }
}

impl<S: Statement + Ord + Copy> VoteBook<S> {
    /// The tally of a view, made when needed. The caller has checked that the view is in the window.
    pub fn at(&mut self, view: View) -> &mut Tally<S> {
        self.views.entry(view).or_default()
    }

    /// The tally of a view, if any vote came.
    pub fn get(&self, view: View) -> Option<&Tally<S>> {
        self.views.get(&view)
    }

    /// All tallies, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (View, &Tally<S>)> {
        self.views.iter().map(|(view, tally)| (*view, tally))
    }

    /// Forgets views below `view`.
    pub fn prune(&mut self, view: View) {
        self.views = self.views.split_off(&view);
    }
}

/// Timeouts by view. Only the latest view of each validator is kept, so the book is bounded by the set.
#[derive(Clone, Debug, Default)]
pub struct TimeoutBook {
    latest: BTreeMap<ValidatorIndex, Timeout>,
}

impl TimeoutBook {
    /// Notes a timeout whose carried certificate is verified and is the one the statement names. Returns whether
    /// it is news.
    pub fn add(&mut self, timeout: Timeout) -> bool {
        let signer = timeout.signed.signer;
        let newer =
            self.latest.get(&signer).is_none_or(|t| t.signed.statement.view < timeout.signed.statement.view);
        if newer {
            self.latest.insert(signer, timeout);
        }
        newer
    }

    /// Stake that gave up on exactly this view.
    pub fn stake_at(&self, set: &ValidatorSet, view: View) -> Stake {
        stake_of(set, self.at(view).map(|(index, _)| index))
    }

    /// The highest view that at least amplify stake gave up on or beyond: an honest validator is among them
    /// (C-6.6).
    pub fn amplified_view(&self, set: &ValidatorSet) -> Option<View> {
        let mut by_view: Vec<(View, Stake)> =
            self.latest.iter().map(|(i, t)| (t.signed.statement.view, set.stake(*i))).collect();
        by_view.sort_unstable_by(|a, b| b.cmp(a));
        let mut stake = Stake::ZERO;
        by_view.into_iter().find_map(|(view, more)| {
            stake = stake.plus(more);
            (stake >= set.amplify()).then_some(view)
        })
    }

    /// Stake whose latest timeout calls `block_hash` invalid.
    pub fn stake_rejecting(&self, set: &ValidatorSet, block_hash: types::B256) -> Stake {
        let rejects = |t: &Timeout| matches!(t.signed.statement.reason, TimeoutReason::Rejected { block_hash: b, .. } if b == block_hash);
        stake_of(set, self.latest.iter().filter(|(_, t)| rejects(t)).map(|(index, _)| index))
    }

    /// Timeouts of exactly this view.
    pub fn at(&self, view: View) -> impl Iterator<Item = (&ValidatorIndex, &Timeout)> {
        self.latest.iter().filter(move |(_, t)| t.signed.statement.view == view)
    }

    /// The certificate of a view, once quorum stake gave up on it and the aggregate verifies. Liars are dropped.
    pub fn certify(
        &mut self,
        set: &ValidatorSet,
        domain: &Domain,
        view: View,
        liars: &mut Vec<ValidatorIndex>,
    ) -> Option<Tc> {
        if !set.is_quorum(self.stake_at(set, view)) {
            return None;
        }
        if let Some(tc) = self.assemble(set, view).filter(|tc| tc.verify(set, domain).is_ok()) {
            return Some(tc);
        }
        self.latest.retain(|index, timeout| {
            let good = timeout.signed.statement.view != view || timeout.signed.verify(set, domain);
            if !good {
                liars.push(*index);
            }
            good
        });
        if let Some(tc) = self.assemble(set, view).filter(|tc| tc.verify(set, domain).is_ok()) {
            return Some(tc);
        }
        // Every signature is good and the whole is not: some group's keys cancel each other out, which only keys made
        // for that do. Honest stake alone is a quorum.
        for (statement, members) in self.groups(view) {
            let keys = members.iter().filter_map(|index| set.key(*index)).collect();
            let signatures: Vec<_> = members
                .iter()
                .filter_map(|index| self.latest.get(index))
                .map(|t| t.signed.signature)
                .collect();
            let message = statement.signing_bytes(domain);
            let whole = aggregate(&signatures).is_ok_and(|sum| verify_grouped(&[(keys, message)], &sum));
            if !whole {
                members.iter().for_each(|index| drop(self.latest.remove(index)));
                liars.extend(members);
            }
        }
        self.assemble(set, view).filter(|tc| tc.verify(set, domain).is_ok())
    }

    fn groups(&self, view: View) -> BTreeMap<types::TimeoutVote, Vec<ValidatorIndex>> {
        let mut groups: BTreeMap<types::TimeoutVote, Vec<ValidatorIndex>> = BTreeMap::new();
        for (index, timeout) in self.at(view) {
            groups.entry(timeout.signed.statement).or_default().push(*index);
        }
        groups
    }

    fn assemble(&self, set: &ValidatorSet, view: View) -> Option<Tc> {
        let (mut signatures, mut high_qc): (Vec<Signature>, Option<Qc>) = (Vec::new(), None);
        for (_, timeout) in self.at(view) {
            signatures.push(timeout.signed.signature);
            if timeout.high_qc.as_ref().map(Qc::view) > high_qc.as_ref().map(Qc::view) {
                high_qc = timeout.high_qc.clone();
            }
        }
        let groups = self
            .groups(view)
            .into_iter()
            .map(|(statement, members)| TimeoutGroup {
                high_qc_view: statement.high_qc_view,
                last_prepared_view: statement.last_prepared_view,
                reason: statement.reason,
                signers: SignerSet::of(set.len(), members),
            })
            .collect();
        Some(Tc { epoch: set.epoch(), view, groups, signature: aggregate(&signatures).ok()?, high_qc })
    }
}
