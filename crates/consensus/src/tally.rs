//! Counting votes into certificates (C-1.2). Signatures are checked once, as an aggregate, when the stake is there;
//! only if that fails are they checked one by one and the liars dropped. Votes arrive over authenticated links, so
//! a bad signature is its sender's fault.
//!
//! # Invariants
//! - A signature is checked on its own at most once, and a liar is not counted again in that view: each validator can
//!   spoil one aggregate per statement, not one per message.
//! - A validator counts at most once per statement, and for at most two statements per view (the second is kept as
//!   the mark of an equivocator).
//! - A book keeps votes for a bounded window of views.

use crypto::bls::{Witness, aggregate, aggregate_verified};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Those known to be good on their own: checked one by one, or the own vote.
    checked: BTreeSet<ValidatorIndex>,
    /// Some of them were held and not added yet.
    held: bool,
    certified: bool,
}

impl Votes {
    /// Any vote that is known to be good.
    fn witness<'a>(&'a self, set: &'a ValidatorSet) -> Option<Witness<'a>> {
        let good = self.checked.iter();
        good.filter_map(|i| Some(Witness { key: set.key(*i)?, signature: self.signatures.get(i)? })).next()
    }
}

/// Votes of one kind in one view.
#[derive(Clone, Debug)]
pub struct Tally<S> {
    by_statement: BTreeMap<S, Votes>,
    /// Validators that sent a bad signature.
    liars: BTreeSet<ValidatorIndex>,
}

impl<S> Default for Tally<S> {
    fn default() -> Self {
        Self { by_statement: BTreeMap::new(), liars: BTreeSet::new() }
    }
}

impl<S: Statement + Ord + Copy> Tally<S> {
    /// Notes that the certificate for this statement is known: further votes for it prove nothing new and are not
    /// verified.
    pub fn settle(&mut self, statement: S) {
        self.by_statement.entry(statement).or_default().certified = true;
    }

    /// Counts a vote this node made. Its signature is good, which makes verifying the others' cheaper.
    pub fn add_own(
        &mut self,
        set: &ValidatorSet,
        domain: &Domain,
        vote: &Signed<S>,
        liars: &mut Vec<ValidatorIndex>,
    ) -> Counted<Aggregate<S>> {
        self.by_statement.entry(vote.statement).or_default().checked.insert(vote.signer);
        self.add(set, domain, vote, liars)
    }

    /// Counts a vote; `liars` receives validators whose signatures turn out bad.
    pub fn add(
        &mut self,
        set: &ValidatorSet,
        domain: &Domain,
        vote: &Signed<S>,
        liars: &mut Vec<ValidatorIndex>,
    ) -> Counted<Aggregate<S>> {
        let Some(votes) = self.admit(set, vote) else { return Counted::Ignored };
        let news = !votes.signatures.contains_key(&vote.signer);
        if !std::mem::take(&mut votes.held) && !news {
            return Counted::Ignored;
        }
        votes.signatures.entry(vote.signer).or_insert(vote.signature);
        let known_liars = liars.len();
        let certified = certify(set, domain, &vote.statement, votes, liars);
        self.liars.extend(&liars[known_liars..]);
        match certified {
            Some(aggregate) => Counted::Certified(aggregate),
            None => Counted::Pending,
        }
    }

    /// Takes in a vote that is going to be added soon. The first one that is added then counts all of those held, and
    /// one certificate covers as many votes as have arrived: the more of them, the more often all validators make the
    /// same one.
    pub fn hold(&mut self, set: &ValidatorSet, vote: &Signed<S>) {
        if let Some(votes) = self.admit(set, vote)
            && !votes.signatures.contains_key(&vote.signer)
        {
            votes.signatures.insert(vote.signer, vote.signature);
            votes.held = true;
        }
    }

    /// Where a vote counts, if it may.
    fn admit(&mut self, set: &ValidatorSet, vote: &Signed<S>) -> Option<&mut Votes> {
        let others = self
            .by_statement
            .iter()
            .filter(|(s, v)| **s != vote.statement && v.signatures.contains_key(&vote.signer));
        let too_many = others.count() >= STATEMENTS_PER_VALIDATOR_MAX;
        if set.get(vote.signer).is_none() || too_many || self.liars.contains(&vote.signer) {
            return None;
        }
        Some(self.by_statement.entry(vote.statement).or_default()).filter(|votes| !votes.certified)
    }

    /// Stake behind each statement, for status pages.
    pub fn stakes(&self, set: &ValidatorSet) -> Vec<(S, Stake)> {
        self.by_statement.iter().map(|(s, votes)| (*s, stake_of(set, votes.signatures.keys()))).collect()
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
        let signed: Vec<_> = votes.signatures.iter().filter_map(|(i, s)| Some((set.key(*i)?, s))).collect();
        aggregate_verified(&signed, &message, votes.witness(set))
    };
    let signature = verified(votes).or_else(|| {
        let checked = &mut votes.checked;
        votes.signatures.retain(|index, signature| {
            let good =
                checked.contains(index) || set.key(*index).is_some_and(|key| key.verify(&message, signature));
            if good {
                checked.insert(*index);
            } else {
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
    /// Those whose latest signature was checked on its own.
    checked: BTreeSet<ValidatorIndex>,
    /// The highest view each liar lied in; its word counts again above it.
    liars: BTreeMap<ValidatorIndex, View>,
}

impl TimeoutBook {
    /// Notes a timeout whose carried certificate is verified and is the one the statement names. Returns whether
    /// it is news.
    pub fn add(&mut self, timeout: Timeout) -> bool {
        let (signer, view) = (timeout.signed.signer, timeout.signed.statement.view);
        let newer = self.latest.get(&signer).is_none_or(|t| t.signed.statement.view < view)
            && self.liars.get(&signer).is_none_or(|lied| *lied < view);
        if newer {
            self.latest.insert(signer, timeout);
            self.checked.remove(&signer);
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

    /// The certificate of a view, once quorum stake gave up on it and the aggregate verifies. Liars are dropped and
    /// appended to `liars`.
    pub fn certify(
        &mut self,
        set: &ValidatorSet,
        domain: &Domain,
        view: View,
        liars: &mut Vec<ValidatorIndex>,
    ) -> Option<Tc> {
        let found = self.verified(set, domain, view);
        if found.is_some() || !set.is_quorum(self.stake_at(set, view)) {
            return found;
        }
        for find_liars in [Self::bad_signatures, Self::cancelling_groups] {
            let found = find_liars(self, set, domain, view);
            for liar in &found {
                self.latest.remove(liar);
                self.liars.insert(*liar, view);
            }
            if !found.is_empty() {
                liars.extend(found);
                let mended = self.verified(set, domain, view);
                if mended.is_some() {
                    return mended;
                }
            }
        }
        None
    }

    fn verified(&self, set: &ValidatorSet, domain: &Domain, view: View) -> Option<Tc> {
        let quorum = set.is_quorum(self.stake_at(set, view));
        quorum.then(|| self.assemble(set, view)).flatten().filter(|tc| tc.verify(set, domain).is_ok())
    }

    fn bad_signatures(&mut self, set: &ValidatorSet, domain: &Domain, view: View) -> Vec<ValidatorIndex> {
        let unchecked = self.latest.iter().filter(|(index, _)| !self.checked.contains(index));
        let at_view = unchecked.filter(|(_, timeout)| timeout.signed.statement.view == view);
        let (good, bad): (Vec<_>, Vec<_>) = at_view
            .map(|(index, timeout)| (*index, timeout.signed.verify(set, domain)))
            .partition(|(_, good)| *good);
        self.checked.extend(good.into_iter().map(|(index, _)| index));
        bad.into_iter().map(|(index, _)| index).collect()
    }

    /// Keys that cancel out (`k` and `-k` both prove possession) make a group whose key is the point at infinity, which
    /// no verifier accepts although every single signature is good. Nobody honest can be in such a group: its members
    /// know the sum of each other's secret keys.
    fn cancelling_groups(&mut self, set: &ValidatorSet, domain: &Domain, view: View) -> Vec<ValidatorIndex> {
        let mut groups: BTreeMap<types::TimeoutVote, (Vec<ValidatorIndex>, Vec<Signature>)> = BTreeMap::new();
        for (index, timeout) in self.at(view) {
            let (members, signatures) = groups.entry(timeout.signed.statement).or_default();
            members.push(*index);
            signatures.push(timeout.signed.signature);
        }
        let stands =
            |statement: &types::TimeoutVote, members: &[ValidatorIndex], signatures: &[Signature]| {
                let keys: Vec<_> = members.iter().filter_map(|index| set.key(*index)).collect();
                let message = statement.signing_bytes(domain);
                aggregate(signatures).is_ok_and(|sum| crypto::bls::verify_aggregate(&keys, &message, &sum))
            };
        let cancelling =
            groups.into_iter().filter(|(statement, (members, sigs))| !stands(statement, members, sigs));
        cancelling.flat_map(|(_, (members, _))| members).collect()
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
