//! Accountability: what each validator is known to have signed, and the pairs no honest validator ever signs (C-8).
//!
//! Feed it votes or whole certificates in any order; it names a validator when two of its statements contradict.
//!
//! | pair | statements of one validator |
//! |---|---|
//! | E1 | two prepares with one target and different links |
//! | E1c | two commits in one view |
//! | Ep | two proposals in one view |
//! | E2 | commit(v) and a link s -> t with s < v < t |
//! | E3 | links s1 -> t1 and s2 -> t2 with s1 < s2 < t2 < t1 |
//! | E4 | timeout(w) reporting a certificate below v, with w >= v, and commit(v) |

use std::collections::BTreeMap;
use std::fmt;
use types::{
    B256, CommitQc, CommitVote, Epoch, Header, Justify, PrepareVote, ProposalVote, Qc, Tc, TimeoutVote,
    ValidatorIndex, View,
};

/// Which rule a pair of statements breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// E1.
    DoublePrepare,
    /// E1c.
    DoubleCommit,
    /// Ep.
    DoubleProposal,
    /// E2.
    Crossing,
    /// E3.
    Surround,
    /// E4.
    Amnesia,
}

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
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { validator, epoch, offence, what } = self;
        write!(f, "validator {validator} in epoch {epoch}: {offence:?}: {what}")
    }
}

/// Everything known to be signed, by epoch and validator.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    signed: BTreeMap<(Epoch, ValidatorIndex), Signed>,
    statements: u64,
}

#[derive(Clone, Debug, Default)]
struct Signed {
    proposals: BTreeMap<View, B256>,
    /// By target view.
    links: BTreeMap<View, PrepareVote>,
    commits: BTreeMap<View, CommitVote>,
    timeouts: BTreeMap<View, TimeoutVote>,
}

impl Audit {
    /// Statements taken in, equal ones included.
    pub fn statements(&self) -> u64 {
        self.statements
    }

    /// A proposal of `by`.
    pub fn proposal(&mut self, epoch: Epoch, by: ValidatorIndex, vote: ProposalVote) -> Result<(), Conflict> {
        self.judge(epoch, by, |signed| {
            let old = *signed.proposals.entry(vote.view).or_insert(vote.block_hash);
            pair(old != vote.block_hash, Offence::DoubleProposal, &old, &vote)
        })
    }

    /// A prepare vote of `by`.
    pub fn prepare(&mut self, epoch: Epoch, by: ValidatorIndex, link: PrepareVote) -> Result<(), Conflict> {
        self.judge(epoch, by, |signed| signed.add_link(link))
    }

    /// A commit vote of `by`.
    pub fn commit(&mut self, epoch: Epoch, by: ValidatorIndex, vote: CommitVote) -> Result<(), Conflict> {
        self.judge(epoch, by, |signed| signed.add_commit(vote))
    }

    /// A timeout of `by`.
    pub fn timeout(&mut self, epoch: Epoch, by: ValidatorIndex, vote: TimeoutVote) -> Result<(), Conflict> {
        self.judge(epoch, by, |signed| signed.add_timeout(vote))
    }

    /// A verified prepare certificate: a link of each of its signers.
    pub fn qc(&mut self, qc: &Qc) -> Result<(), Conflict> {
        qc.signers.iter().try_for_each(|by| self.prepare(qc.epoch, by, qc.vote))
    }

    /// A verified commit certificate: a commit of each of its signers.
    pub fn commit_qc(&mut self, qc: &CommitQc) -> Result<(), Conflict> {
        qc.signers.iter().try_for_each(|by| self.commit(qc.epoch, by, qc.vote))
    }

    /// A verified timeout certificate: a timeout of each of its signers.
    pub fn tc(&mut self, tc: &Tc) -> Result<(), Conflict> {
        for group in &tc.groups {
            let statement = group.statement(tc.view);
            group.signers.iter().try_for_each(|by| self.timeout(tc.epoch, by, statement))?;
        }
        tc.high_qc.iter().try_for_each(|qc| self.qc(qc))
    }

    /// A header whose certificates are verified: every statement it carries.
    pub fn header(&mut self, header: &Header) -> Result<(), Conflict> {
        match &header.justify {
            Justify::Genesis => {}
            Justify::EpochBoundary(qc) => self.commit_qc(qc)?,
            Justify::Prepare(qc) => self.qc(qc)?,
        }
        header.timeout.iter().try_for_each(|tc| self.tc(tc))?;
        header.last_commit.iter().try_for_each(|qc| self.commit_qc(qc))
    }

    fn judge(
        &mut self,
        epoch: Epoch,
        validator: ValidatorIndex,
        add: impl FnOnce(&mut Signed) -> Result<(), (Offence, String)>,
    ) -> Result<(), Conflict> {
        self.statements += 1;
        add(self.signed.entry((epoch, validator)).or_default()).map_err(|(offence, what)| Conflict {
            validator,
            epoch,
            offence,
            what,
        })
    }
}

impl Signed {
    fn add_link(&mut self, link: PrepareVote) -> Result<(), (Offence, String)> {
        let PrepareVote { source_view, target_view, .. } = link;
        if let Some(old) = self.links.get(&target_view) {
            return pair(*old != link, Offence::DoublePrepare, old, &link);
        }
        self.links.insert(target_view, link);
        let inside = source_view.next()..target_view.max(source_view.next());
        for crossed in self.commits.range(inside.clone()).map(|(_, commit)| commit) {
            pair(true, Offence::Crossing, crossed, &link)?;
        }
        for other in self.links.values() {
            let surrounds = |outer: &PrepareVote, inner: &PrepareVote| {
                outer.source_view < inner.source_view && inner.target_view < outer.target_view
            };
            pair(surrounds(other, &link) || surrounds(&link, other), Offence::Surround, other, &link)?;
        }
        Ok(())
    }

    fn add_commit(&mut self, vote: CommitVote) -> Result<(), (Offence, String)> {
        if let Some(old) = self.commits.get(&vote.view) {
            return pair(*old != vote, Offence::DoubleCommit, old, &vote);
        }
        self.commits.insert(vote.view, vote);
        for link in self.links.range(vote.view.next()..).map(|(_, link)| link) {
            pair(link.source_view < vote.view, Offence::Crossing, &vote, link)?;
        }
        for timeout in self.timeouts.range(vote.view..).map(|(_, timeout)| timeout) {
            pair(timeout.high_qc_view < vote.view, Offence::Amnesia, &vote, timeout)?;
        }
        Ok(())
    }

    fn add_timeout(&mut self, vote: TimeoutVote) -> Result<(), (Offence, String)> {
        self.timeouts.insert(vote.view, vote);
        for commit in self.commits.range(vote.high_qc_view.next()..).map(|(_, commit)| commit) {
            pair(commit.view <= vote.view, Offence::Amnesia, commit, &vote)?;
        }
        Ok(())
    }
}

fn pair(
    conflicts: bool,
    offence: Offence,
    first: &impl fmt::Debug,
    second: &impl fmt::Debug,
) -> Result<(), (Offence, String)> {
    if conflicts { Err((offence, format!("{first:?} and {second:?}"))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Height, TimeoutReason};

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
