//! Who is guilty when two final blocks are in conflict: from the certificates that show them final, and nothing else.
//!
//! The adversary chooses which signers each certificate shows, as long as they are a quorum of those who signed. A claim
//! about evidence must hold for every choice; fewer signers convict fewer, so the least quorums are enough.

use crate::universe::{Link, Point, Universe};
use consensus::Audit;
use types::{Epoch, ValidatorIndex};

/// What a certificate certifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Statement {
    /// A link.
    Prepare(Link),
    /// A block.
    Commit(Point),
}

/// A certificate and everybody who can be made to appear on it, as a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shown {
    /// What it certifies.
    pub statement: Statement,
    /// Who has signed.
    pub signers: u32,
}

/// What it takes to show two blocks final and somebody guilty: both certificates of both, and the headers of the higher
/// one's branch, each with its parent's certificate (C-8.2). `low` is not above `high`. A block proposed again comes with
/// the certificates of its earlier proposals, which are in proposals and in no header.
pub fn statements(universe: &Universe, low: Point, high: Point) -> Vec<Statement> {
    let link = |block: Point| Statement::Prepare(Link { source: universe.source(block), block });
    let mut all = vec![Statement::Commit(low), Statement::Commit(high), link(low)];
    all.extend(universe.branch(high).map(link));
    all
}

/// As [`statements`], from headers alone.
pub fn statements_in_headers(universe: &Universe, low: Point, high: Point) -> Vec<Statement> {
    let branch: Vec<Point> = universe.branch(high).collect();
    let earlier = |block: Point| {
        branch.iter().any(|at| universe.source(*at) == block && universe.is_same_block(*at, block))
    };
    let mut all = statements(universe, low, high);
    let mut position = 0;
    all.retain(|statement| {
        // The lower block's certificate is shown for itself, also when the block was proposed again later.
        position += 1;
        position <= 3 || !matches!(statement, Statement::Prepare(link) if earlier(link.block))
    });
    all
}

/// Signers with which certificates convict too little stake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificates {shown:?} with signers {signers:?} convict {guilty:#b} only")]
pub struct Acquitted {
    /// The certificates.
    pub shown: Vec<Shown>,
    /// The signers chosen for each.
    pub signers: Vec<u32>,
    /// Who is guilty.
    pub guilty: u32,
}

/// What was gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Pairs of conflicting final blocks.
    pub conflicts: u64,
    /// Choices of signers, counted where a third of stake was guilty or all certificates had signers.
    pub choices: u64,
}

/// Judges certificates by stake.
#[derive(Clone, Debug)]
pub struct Court {
    stakes: Vec<u128>,
    /// Quorums without a member too many.
    quorums: Vec<u32>,
}

impl Court {
    /// A court of validators with these stakes.
    pub fn new(stakes: &[u128], quorum: u128) -> Self {
        let mut court = Self { stakes: stakes.to_vec(), quorums: Vec::new() };
        let enough = |signers: u32| court.stake(signers) >= quorum;
        let everyone = 1u32 << stakes.len();
        let least = |signers: &u32| {
            let without_one = (0..stakes.len()).map(|i| signers & !(1 << i)).filter(|less| less != signers);
            enough(*signers) && without_one.into_iter().all(|less| !enough(less))
        };
        court.quorums = (1..everyone).filter(least).collect();
        court
    }

    fn stake(&self, signers: u32) -> u128 {
        self.stakes.iter().enumerate().filter(|(i, _)| signers >> i & 1 == 1).map(|(_, stake)| stake).sum()
    }

    fn is_third(&self, signers: u32) -> bool {
        self.stake(signers) * 3 >= self.stakes.iter().sum()
    }

    /// Everybody whom the certificates convict when they show all their signers.
    pub fn guilty(&self, universe: &Universe, shown: &[Shown]) -> u32 {
        let contradictions = contradictions(universe, shown);
        contradictions.iter().fold(0, |guilty, (a, b)| guilty | shown[*a].signers & shown[*b].signers)
    }

    /// Whether every choice of signers convicts a third of stake. Returns the number of choices.
    pub fn least_guilt(&self, universe: &Universe, shown: &[Shown]) -> Result<u64, Acquitted> {
        let search = Search {
            court: self,
            shown,
            contradictions: contradictions(universe, shown),
            quorums: shown
                .iter()
                .map(|certificate| {
                    let within = |quorum: &&u32| *quorum & !certificate.signers == 0;
                    self.quorums.iter().filter(within).copied().collect()
                })
                .collect(),
        };
        search.run(&mut Vec::new(), 0)
    }

    /// Every pair of conflicting blocks in the universe with every choice of signers, whoever is faulty: the theorem
    /// of accountability, within bounds.
    pub fn every_conflict(&self, universe: &Universe) -> Result<Searched, Acquitted> {
        let everyone = (1u32 << self.stakes.len()) - 1;
        let blocks: Vec<Point> = (1..=universe.views()).flat_map(|view| universe.points(view)).collect();
        let mut searched = Searched::default();
        for (i, low) in blocks.iter().enumerate() {
            for high in blocks[i + 1..].iter().filter(|high| universe.in_conflict(*low, **high)) {
                let shown: Vec<Shown> = statements(universe, *low, *high)
                    .into_iter()
                    .map(|statement| Shown { statement, signers: everyone })
                    .collect();
                searched.conflicts += 1;
                searched.choices += self.least_guilt(universe, &shown)?;
            }
        }
        Ok(searched)
    }
}

struct Search<'a> {
    court: &'a Court,
    shown: &'a [Shown],
    contradictions: Vec<(usize, usize)>,
    /// For each certificate.
    quorums: Vec<Vec<u32>>,
}

impl Search<'_> {
    /// Chooses signers for one certificate after the other. Guilt only grows, so a choice that convicts a third already
    /// need not be continued.
    fn run(&self, chosen: &mut Vec<u32>, guilty: u32) -> Result<u64, Acquitted> {
        if self.court.is_third(guilty) {
            return Ok(1);
        }
        let at = chosen.len();
        let Some(quorums) = self.quorums.get(at) else {
            return Err(Acquitted { shown: self.shown.to_vec(), signers: chosen.clone(), guilty });
        };
        let mut choices = 0;
        for quorum in quorums {
            let with = self.contradictions.iter().filter(|(_, later)| *later == at);
            let more = with.fold(0, |more, (earlier, _)| more | chosen[*earlier] & quorum);
            chosen.push(*quorum);
            choices += self.run(chosen, guilty | more)?;
            chosen.pop();
        }
        Ok(choices)
    }
}

/// Pairs of certificates, the earlier first, that nobody may sign both of: by the project's own auditor.
fn contradictions(universe: &Universe, shown: &[Shown]) -> Vec<(usize, usize)> {
    let pairs = (0..shown.len()).flat_map(|later| (0..later).map(move |earlier| (earlier, later)));
    pairs.filter(|(a, b)| contradict(universe, shown[*a].statement, shown[*b].statement)).collect()
}

fn contradict(universe: &Universe, a: Statement, b: Statement) -> bool {
    let mut audit = Audit::default();
    let (epoch, signer) = (Epoch::ZERO, ValidatorIndex::new(0));
    let mut judge = |statement: Statement| match statement {
        Statement::Prepare(link) => audit.prepare(epoch, signer, universe.prepare_vote(link)),
        Statement::Commit(block) => audit.commit(epoch, signer, universe.commit_vote(block)),
    };
    [a, b].into_iter().any(|statement| judge(statement).is_err())
}
