//! Accountability: what each validator is known to have signed, and the pairs no honest validator ever signs (C-8).
//!
//! Feed it votes or whole certificates in any order; it names a validator when two of its statements contradict, and
//! gives the evidence when both came with their signatures. The rules are [`Claim::offence`]'s; [`Statements`] only
//! knows where to look for what a claim may contradict.
//!
//! | pair | statements of one validator |
//! |---|---|
//! | E1 | two prepares with one target and different links |
//! | E1c | two commits in one view |
//! | Ep | two proposals in one view |
//! | E2 | commit(v) and a link s -> t with s < v < t |
//! | E3 | links s1 -> t1 and s2 -> t2 with s1 < s2 < t2 < t1 |
//! | E4 | timeout(w) reporting a certificate below v, with w >= v, and commit(v) |

use crate::certificate::Certificate;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use types::{
    Claim, CommitQc, CommitVote, Epoch, Evidence, Header, Offence, PrepareVote, ProposalVote, Qc, Tc,
    TimeoutVote, ValidatorIndex, View, Witness,
};

/// Two statements that cannot both be an honest validator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who signed both.
    pub validator: ValidatorIndex,
    /// In which epoch.
    pub epoch: Epoch,
    /// Which rule they break.
    pub offence: Offence,
    /// Both statements.
    pub what: String,
    /// The proof, when both statements came with their signatures.
    pub evidence: Option<Box<Evidence>>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { validator, epoch, offence, what, .. } = self;
        write!(f, "validator {validator} in epoch {epoch}: {offence}: {what}")
    }
}

/// Statements of one validator in one epoch, each with whatever proves it.
#[derive(Clone, Debug)]
pub struct Statements<P> {
    proposals: Shelf<P>,
    commits: Shelf<P>,
    /// By target view.
    prepares: Shelf<P>,
    timeouts: Shelf<P>,
}

type Shelf<P> = BTreeMap<View, (Claim, P)>;

impl<P> Default for Statements<P> {
    fn default() -> Self {
        let (proposals, commits, prepares, timeouts) = Default::default();
        Self { proposals, commits, prepares, timeouts }
    }
}

impl<P> Statements<P> {
    /// A statement here that no honest validator makes beside `claim`.
    pub fn conflict(&self, claim: &Claim) -> Option<(Offence, Claim)> {
        let rule = |(other, _): &(Claim, P)| claim.offence(other).map(|offence| (offence, *other));
        let same = self.shelf(claim).get(&claim.view()).and_then(rule);
        let others = || match claim {
            Claim::Proposal(_) => None,
            Claim::Commit(commit) => {
                let links = self.prepares.range(commit.view.next()..).find_map(|(_, entry)| rule(entry));
                links.or_else(|| self.timeouts.range(commit.view..).find_map(|(_, entry)| rule(entry)))
            }
            Claim::Prepare(link) => {
                let (source, target) = (link.source_view, link.target_view);
                let crossed = between(&self.commits, source, target).find_map(rule);
                let inner = || between(&self.prepares, source, target).find_map(rule);
                let outer = || self.prepares.range(target.next()..).find_map(|(_, entry)| rule(entry));
                crossed.or_else(inner).or_else(outer)
            }
            Claim::Timeout(timeout) => {
                between(&self.commits, timeout.high_qc_view, timeout.view.next()).find_map(rule)
            }
        };
        same.or_else(others)
    }

    /// What is known of exactly this statement.
    pub fn get_mut(&mut self, claim: &Claim) -> Option<&mut P> {
        self.shelf_mut(claim)
            .get_mut(&claim.view())
            .filter(|(known, _)| known == claim)
            .map(|(_, proof)| proof)
    }

    /// Whether [`Statements::insert`] would note it. Of each kind there is one statement per view: the first one stays,
    /// unless the other one reports less than a timeout that is here, which shows more amnesia.
    pub fn has_room_for(&self, claim: &Claim) -> bool {
        let lower = |known: &Claim| match (known, claim) {
            (Claim::Timeout(known), Claim::Timeout(new)) => new.high_qc_view < known.high_qc_view,
            _ => false,
        };
        self.shelf(claim).get(&claim.view()).is_none_or(|(known, _)| lower(known))
    }

    /// Notes a statement, if there is room for it.
    pub fn insert(&mut self, claim: Claim, proof: P) {
        if self.has_room_for(&claim) {
            self.shelf_mut(&claim).insert(claim.view(), (claim, proof));
        }
    }

    /// Forgets a statement.
    pub fn remove(&mut self, claim: &Claim) {
        let shelf = self.shelf_mut(claim);
        if shelf.get(&claim.view()).is_some_and(|(known, _)| known == claim) {
            shelf.remove(&claim.view());
        }
    }

    /// Forgets what is about views before `oldest`, but for the last statement of each kind.
    pub fn prune(&mut self, oldest: View) {
        for shelf in [&mut self.proposals, &mut self.commits, &mut self.prepares, &mut self.timeouts] {
            let last = shelf.range(..oldest).next_back().map(|(view, _)| *view);
            if let Some(last) = last {
                *shelf = shelf.split_off(&last);
            }
        }
    }

    /// Number of statements.
    pub fn len(&self) -> usize {
        [&self.proposals, &self.commits, &self.prepares, &self.timeouts].map(BTreeMap::len).iter().sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shelf(&self, claim: &Claim) -> &Shelf<P> {
        match claim {
            Claim::Proposal(_) => &self.proposals,
            Claim::Commit(_) => &self.commits,
            Claim::Prepare(_) => &self.prepares,
            Claim::Timeout(_) => &self.timeouts,
        }
    }

    fn shelf_mut(&mut self, claim: &Claim) -> &mut Shelf<P> {
        match claim {
            Claim::Proposal(_) => &mut self.proposals,
            Claim::Commit(_) => &mut self.commits,
            Claim::Prepare(_) => &mut self.prepares,
            Claim::Timeout(_) => &mut self.timeouts,
        }
    }
}

/// Statements of views above `low` and below `high`.
fn between<P>(shelf: &Shelf<P>, low: View, high: View) -> impl Iterator<Item = &(Claim, P)> {
    let low = low.next();
    shelf.range(low..high.max(low)).map(|(_, entry)| entry)
}

/// Everything known to be signed, by epoch and validator.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    signed: BTreeMap<(Epoch, ValidatorIndex), Statements<Option<Arc<Witness>>>>,
    statements: u64,
}

impl Audit {
    /// Statements taken in, equal ones included.
    pub fn statements(&self) -> u64 {
        self.statements
    }

    /// A proposal of `by`.
    pub fn proposal(&mut self, epoch: Epoch, by: ValidatorIndex, vote: ProposalVote) -> Result<(), Conflict> {
        self.judge(epoch, by, Claim::Proposal(vote), None)
    }

    /// A prepare vote of `by`.
    pub fn prepare(&mut self, epoch: Epoch, by: ValidatorIndex, link: PrepareVote) -> Result<(), Conflict> {
        self.judge(epoch, by, Claim::Prepare(link), None)
    }

    /// A commit vote of `by`.
    pub fn commit(&mut self, epoch: Epoch, by: ValidatorIndex, vote: CommitVote) -> Result<(), Conflict> {
        self.judge(epoch, by, Claim::Commit(vote), None)
    }

    /// A timeout of `by`.
    pub fn timeout(&mut self, epoch: Epoch, by: ValidatorIndex, vote: TimeoutVote) -> Result<(), Conflict> {
        self.judge(epoch, by, Claim::Timeout(vote), None)
    }

    /// Verified proof of statements: one of each of its authors. All who contradict themselves.
    pub fn witness(&mut self, epoch: Epoch, witness: Witness) -> Vec<Conflict> {
        let witness = Arc::new(witness);
        let mut conflicts = Vec::new();
        for (claim, by) in witness.statements() {
            conflicts.extend(self.judge(epoch, by, claim, Some(&witness)).err());
        }
        conflicts
    }

    /// A verified prepare certificate: a link of each of its signers.
    pub fn qc(&mut self, qc: &Qc) -> Result<(), Conflict> {
        first(self.witness(qc.epoch, qc.into()))
    }

    /// A verified commit certificate: a commit of each of its signers.
    pub fn commit_qc(&mut self, qc: &CommitQc) -> Result<(), Conflict> {
        first(self.witness(qc.epoch, qc.into()))
    }

    /// A verified timeout certificate: a timeout of each of its signers.
    pub fn tc(&mut self, tc: &Tc) -> Result<(), Conflict> {
        first(self.witness(tc.epoch, tc.into()))?;
        tc.high_qc.iter().try_for_each(|qc| self.qc(qc))
    }

    /// A header whose certificates are verified: every statement it carries.
    pub fn header(&mut self, header: &Header) -> Result<(), Conflict> {
        header_witnesses(header)
            .into_iter()
            .try_for_each(|(epoch, witness)| first(self.witness(epoch, witness)))
    }

    fn judge(
        &mut self,
        epoch: Epoch,
        validator: ValidatorIndex,
        claim: Claim,
        witness: Option<&Arc<Witness>>,
    ) -> Result<(), Conflict> {
        self.statements += 1;
        let statements = self.signed.entry((epoch, validator)).or_default();
        let conflict = statements.conflict(&claim);
        statements.insert(claim, witness.cloned());
        let Some((offence, other)) = conflict else { return Ok(()) };
        let what = format!("{other:?} and {claim:?}");
        let known = statements.get_mut(&other).and_then(|proof| proof.clone());
        let evidence =
            known.zip(witness).and_then(|(a, b)| Evidence::new(epoch, (*a).clone(), (**b).clone()).ok());
        Err(Conflict { validator, epoch, offence, what, evidence: evidence.map(Box::new) })
    }
}

/// What the certificates in a header prove, each with its epoch. They must be verified before they are used.
pub fn header_witnesses(header: &Header) -> Vec<(Epoch, Witness)> {
    Certificate::of_header(header).iter().map(Certificate::witness).collect()
}

fn first(conflicts: Vec<Conflict>) -> Result<(), Conflict> {
    conflicts.into_iter().next().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{B256, Height, TimeoutReason};

    const ME: ValidatorIndex = ValidatorIndex::new(3);

    fn link(from: u64, to: u64, hash: u8) -> PrepareVote {
        PrepareVote {
            source_view: View::new(from),
            source_hash: B256::ZERO,
            target_view: View::new(to),
            height: Height::new(1),
            block_hash: B256::repeat_byte(hash),
        }
    }

    fn commit(view: u64, hash: u8) -> CommitVote {
        CommitVote { view: View::new(view), height: Height::new(1), block_hash: B256::repeat_byte(hash) }
    }

    fn timeout(view: u64, high: u64) -> TimeoutVote {
        let high_qc_view = View::new(high);
        TimeoutVote {
            view: View::new(view),
            high_qc_view,
            last_prepared_view: high_qc_view,
            reason: TimeoutReason::Expired,
        }
    }

    enum Said {
        Link(PrepareVote),
        Commit(CommitVote),
        Timeout(TimeoutVote),
    }

    fn verdict(statements: &[Said]) -> Option<Offence> {
        let mut audit = Audit::default();
        let mut add = |said: &Said| match said {
            Said::Link(link) => audit.prepare(Epoch::ZERO, ME, *link),
            Said::Commit(vote) => audit.commit(Epoch::ZERO, ME, *vote),
            Said::Timeout(vote) => audit.timeout(Epoch::ZERO, ME, *vote),
        };
        statements.iter().find_map(|said| add(said).err()).map(|conflict| conflict.offence)
    }

    #[test]
    fn every_slashable_pair_is_found_in_either_order() {
        use Said::{Commit, Link, Timeout};
        let cases = [
            (Offence::DoublePrepare, [Link(link(0, 2, 1)), Link(link(0, 2, 2))]),
            (Offence::DoublePrepare, [Link(link(0, 2, 1)), Link(link(1, 2, 1))]),
            (Offence::DoubleCommit, [Commit(commit(2, 1)), Commit(commit(2, 2))]),
            (Offence::Crossing, [Commit(commit(2, 1)), Link(link(1, 3, 1))]),
            (Offence::Surround, [Link(link(1, 9, 1)), Link(link(3, 7, 2))]),
            (Offence::Amnesia, [Commit(commit(5, 1)), Timeout(timeout(5, 4))]),
            (Offence::Amnesia, [Commit(commit(5, 1)), Timeout(timeout(8, 4))]),
        ];
        for (offence, mut pair) in cases {
            assert_eq!(verdict(&pair), Some(offence));
            pair.reverse();
            assert_eq!(verdict(&pair), Some(offence));
        }
    }

    #[test]
    fn what_honest_validators_do_is_no_offence() {
        use Said::{Commit, Link, Timeout};
        let honest = [
            Link(link(0, 1, 1)),
            Commit(commit(1, 1)),
            Link(link(1, 2, 2)),
            Timeout(timeout(2, 1)),
            Link(link(1, 3, 3)),
            Commit(commit(3, 3)),
            Link(link(3, 4, 4)),
            Timeout(timeout(4, 3)),
            Timeout(timeout(5, 3)),
            Link(link(3, 6, 6)),
            Link(link(3, 6, 6)),
        ];
        assert_eq!(verdict(&honest), None);
    }
}
