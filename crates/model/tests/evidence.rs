//! Two blocks shown final in conflict convict a third of stake, whichever signers their certificates show (C-8.2).
#![allow(clippy::unwrap_used, missing_docs)]

use consensus::Audit;
use consensus::tally::{Counted, VoteBook};
use crypto::SecretKey;
use model::evidence::{Acquitted, Shown, Statement, statements, statements_in_headers};
use model::universe::Point;
use model::{Court, Shape, Universe};
use std::collections::BTreeMap;
use types::vote::{Signed, Statement as Signable};
use types::{
    Address, B256, Checkpoint, CommitQc, CommitVote, Epoch, Header, Height, Justify, PrepareVote, Qc,
    Signature, SignerSet, ValidatorIndex, View,
};

fn universe(stakes: &[u128], views: u8, last_height: Option<u8>) -> Universe {
    Universe::new(stakes, views, Shape::Tree { variants: 2, last_height }).unwrap()
}

fn court(universe: &Universe) -> Court {
    let stakes: Vec<u128> = universe.set().validators().iter().map(|v| v.stake.get()).collect();
    Court::new(&stakes, universe.set().quorum().get())
}

#[test]
fn every_conflict_within_four_views_convicts_a_third_of_stake_for_every_choice_of_signers() {
    for (stakes, last_height, conflicts) in [
        (&[1, 1, 1, 1][..], None, 3024),
        (&[1, 1, 1, 1], Some(1), 365),
        (&[1, 1, 1], None, 3024),
        (&[4, 1, 1, 1], None, 3024),
        (&[34, 33, 33], None, 3024),
        (&[3, 2, 2, 1, 1], None, 3024),
    ] {
        let universe = universe(stakes, 4, last_height);
        let searched = court(&universe).every_conflict(&universe).unwrap();
        println!("{stakes:?}, last height {last_height:?}: {searched:?}");
        assert_eq!(searched.conflicts, conflicts, "{stakes:?}");
    }
}

fn conflicts(universe: &Universe) -> Vec<(Point, Point)> {
    let blocks: Vec<Point> = (1..=universe.views()).flat_map(|view| universe.points(view)).collect();
    let pairs =
        blocks.iter().enumerate().flat_map(|(i, low)| blocks[i + 1..].iter().map(|high| (*low, *high)));
    pairs.filter(|(low, high)| universe.in_conflict(*low, *high)).collect()
}

fn by_everyone(statements: Vec<Statement>) -> Vec<Shown> {
    statements.into_iter().map(|statement| Shown { statement, signers: 0b1111 }).collect()
}

/// The first conflict, and the signers, for which these certificates convict too few.
fn acquittal(
    universe: &Universe,
    shown: impl Fn(&Universe, Point, Point) -> Vec<Statement>,
) -> Option<Acquitted> {
    let court = court(universe);
    let mut verdicts = conflicts(universe)
        .into_iter()
        .map(|(low, high)| court.least_guilt(universe, &by_everyone(shown(universe, low, high))));
    verdicts.find_map(Result::err)
}

/// The theorem needs the lower block's own prepare certificate; without it some choice of signers goes free.
#[test]
fn without_the_lower_blocks_prepare_certificate_somebody_goes_free() {
    let universe = universe(&[1, 1, 1, 1], 3, None);
    let acquitted = acquittal(&universe, |universe, low, high| {
        let mut all = statements(universe, low, high);
        all.remove(2);
        all
    });
    let acquitted = acquitted.expect("a certified sibling of a final block, built on");
    assert!(acquitted.guilty.count_ones() < 2, "{acquitted}");
}

/// An epoch's last block may be final by a later proposal of itself, whose link starts at its earlier one: headers do not
/// carry that one's certificate, and without it nobody is guilty.
#[test]
fn a_block_proposed_again_needs_the_certificates_of_its_earlier_proposals_too() {
    let plain = universe(&[1, 1, 1, 1], 4, None);
    assert_eq!(acquittal(&plain, statements_in_headers), None);
    let boundary = universe(&[1, 1, 1, 1], 4, Some(1));
    let acquitted = acquittal(&boundary, statements_in_headers).expect("certificates are missing");
    println!("{acquitted}");
    assert_eq!(acquitted.guilty, 0);
    assert_eq!(acquittal(&boundary, statements), None);
}

/// A conflict in real headers, with the signers chosen for each certificate.
struct Real<'a> {
    universe: &'a Universe,
    signers: BTreeMap<Point, u32>,
    headers: BTreeMap<Point, Header>,
}

impl Real<'_> {
    fn header(&mut self, block: Point) -> Header {
        if let Some(header) = self.headers.get(&block) {
            return header.clone();
        }
        let source = self.universe.source(block);
        let (parent_hash, height, justify) = match source.view {
            0 => (self.universe.domain().genesis_hash, Height::new(1), Justify::Genesis),
            _ => {
                let parent = self.header(source);
                (parent.hash(), parent.height.next(), Justify::Prepare(self.qc(source)))
            }
        };
        let header = Header {
            chain_id: self.universe.domain().chain_id,
            epoch: Epoch::ZERO,
            epoch_start_height: Height::new(1),
            height,
            view: View::new(block.view.into()),
            parent_hash,
            timestamp_ms: block.name.into(),
            proposer: ValidatorIndex::new(0),
            fee_recipient: Address::ZERO,
            validator_set_id: self.universe.set().id(),
            next_validator_set_id: self.universe.set().id(),
            payload_commitment: B256::ZERO,
            state_hash: B256::ZERO,
            receipts_hash: B256::ZERO,
            checkpoint: Checkpoint::default(),
            randao_reveal: Signature([0; 96]),
            justify,
            timeout: None,
            last_commit: None,
            system_inputs_hash: B256::ZERO,
        };
        self.headers.insert(block, header.clone());
        header
    }

    fn qc(&mut self, block: Point) -> Qc {
        let header = self.header(block);
        let vote = PrepareVote {
            source_view: header.source().view,
            source_hash: header.source().block_hash,
            target_view: header.view,
            height: header.height,
            block_hash: header.hash(),
        };
        let (signers, signature) = self.sum(vote, self.signers.get(&block).copied().unwrap_or(0b1111));
        let qc = Qc { epoch: Epoch::ZERO, vote, signers, signature };
        qc.verify(self.universe.set(), &self.universe.domain()).unwrap();
        qc
    }

    fn commit_qc(&mut self, block: Point, signers: u32) -> CommitQc {
        let header = self.header(block);
        let vote = CommitVote { view: header.view, height: header.height, block_hash: header.hash() };
        let (signers, signature) = self.sum(vote, signers);
        let qc = CommitQc { epoch: Epoch::ZERO, vote, signers, signature };
        qc.verify(self.universe.set(), &self.universe.domain()).unwrap();
        qc
    }

    fn sum<S: Signable + Ord + Copy>(&self, vote: S, signers: u32) -> (SignerSet, Signature) {
        let (set, domain) = (self.universe.set(), self.universe.domain());
        let mut book = VoteBook::default();
        let mut formed = None;
        for index in set.indices().filter(|index| signers >> index.get() & 1 == 1) {
            let signed = Signed::new(vote, index, &SecretKey::simulated(index.get().into()), &domain);
            // A book closes a certificate at the quorum, which here is everybody who was chosen.
            if let Counted::Certified(sum) = book.at(View::ZERO).add(set, &domain, &signed, &mut Vec::new()) {
                formed = Some((sum.signers, sum.signature));
            }
        }
        formed.expect("a quorum was chosen")
    }
}

/// Everybody whom the auditor names, from certificates and the headers of one branch.
fn audited(commits: &[CommitQc], qcs: &[Qc], headers: &[Header]) -> u32 {
    let mut audit = Audit::default();
    let mut guilty = 0u32;
    let mut note = |signer: ValidatorIndex, honest: bool| guilty |= u32::from(!honest) << signer.get();
    for qc in commits {
        qc.signers.iter().for_each(|by| note(by, audit.commit(qc.epoch, by, qc.vote).is_ok()));
    }
    let carried = headers.iter().filter_map(|header| match &header.justify {
        Justify::Prepare(qc) => Some(qc),
        Justify::Genesis | Justify::EpochBoundary(_) => None,
    });
    for qc in qcs.iter().chain(carried) {
        qc.signers.iter().for_each(|by| note(by, audit.prepare(qc.epoch, by, qc.vote).is_ok()));
    }
    guilty
}

/// The court judges points and bitmaps; here the same conflicts are real headers and verified certificates.
#[test]
fn the_court_convicts_whom_the_auditor_convicts_from_real_headers() {
    let universe = universe(&[1, 1, 1, 1], 3, None);
    let court = court(&universe);
    let quorums = [0b0111, 0b1011, 0b1101, 0b1110];
    let mut compared = 0;
    for (number, (low, high)) in conflicts(&universe).into_iter().enumerate() {
        let all = statements(&universe, low, high);
        // Every certificate takes another turn through the quorums.
        for turn in 0..4 {
            let signers = |at: usize| quorums[(turn * (at + 1) + number + at) % 4];
            let shown: Vec<Shown> = all
                .iter()
                .enumerate()
                .map(|(at, statement)| Shown { statement: *statement, signers: signers(at) })
                .collect();
            let chosen = shown.iter().skip(2).filter_map(|shown| match shown.statement {
                Statement::Prepare(link) => Some((link.block, shown.signers)),
                Statement::Commit(_) => None,
            });
            let mut real = Real { universe: &universe, signers: chosen.collect(), headers: BTreeMap::new() };
            let headers: Vec<Header> = universe.branch(high).map(|block| real.header(block)).collect();
            for pair in headers.windows(2) {
                assert_eq!(pair[0].parent_hash, pair[1].hash(), "a chain of headers");
            }
            let commits = [real.commit_qc(low, signers(0)), real.commit_qc(high, signers(1))];
            let qcs = [real.qc(low), real.qc(high)];
            let found = audited(&commits, &qcs, &headers);
            assert_eq!(found, court.guilty(&universe, &shown), "{low:?} against {high:?}: {shown:?}");
            assert!(found.count_ones() >= 2, "a third of four");
            compared += 1;
        }
    }
    assert_eq!(compared, 4 * 297);
}
