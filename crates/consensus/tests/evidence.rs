//! Detection and the pool (C-8.4): what is proven, what cannot push it out, what honest validators never make.
#![allow(clippy::unwrap_used, missing_docs)]

use consensus::evidence::{
    BadInclusion, CHECKS_PER_VIEW, Checks, Judge, LATE_CERTIFICATES_PER_VIEW, Period, Pool, Rations, Trust,
    VIEWS_AHEAD, VIEWS_KEPT, Watch, check_shape,
};
use consensus::{Refusal, Safety};
use crypto::SecretKey;
use crypto::bls::aggregate;
use proptest::prelude::*;
use std::collections::BTreeSet;
use types::limits::{EVIDENCE_BLOCK_BYTES_MAX, EVIDENCE_PER_BLOCK_MAX};
use types::vote::{Signed, Statement};
use types::{
    Address, B256, Claim, CommitVote, Domain, Epoch, Evidence, Height, Offence, PrepareVote, ProposalVote,
    Qc, QuorumRule, Signature, SignerSet, Stake, Tc, TimeoutGroup, TimeoutReason, TimeoutVote, Validator,
    ValidatorIndex, ValidatorSet, View, Witness, encode,
};

const N: u32 = 7;
const LIAR: u32 = 3;

fn set_of(epoch: u64) -> ValidatorSet {
    let validators = (0..u64::from(N)).map(|i| Validator {
        address: Address::repeat_byte(i as u8 + 1),
        public_key: SecretKey::simulated(i).public_key(),
        stake: Stake::new(1),
    });
    ValidatorSet::simulated(Epoch::new(epoch), validators.collect(), QuorumRule::default()).unwrap()
}

fn domain_of(epoch: u64) -> Domain {
    Domain { chain_id: 1, genesis_hash: B256::repeat_byte(1), epoch }
}

fn signed<S: Statement>(by: u32, statement: S) -> Signed<S> {
    signed_in(0, by, statement)
}

fn signed_in<S: Statement>(epoch: u64, by: u32, statement: S) -> Signed<S> {
    Signed::new(statement, ValidatorIndex::new(by), &SecretKey::simulated(by.into()), &domain_of(epoch))
}

fn forged<S: Statement>(by: u32, statement: S) -> Signed<S> {
    Signed { signature: Signature::ZERO, ..signed(by, statement) }
}

fn link(source: u64, target: u64, block: u8) -> PrepareVote {
    PrepareVote {
        source_view: View::new(source),
        source_hash: B256::repeat_byte(source as u8),
        target_view: View::new(target),
        height: Height::new(target),
        block_hash: B256::repeat_byte(block),
    }
}

fn commit(view: u64, block: u8) -> CommitVote {
    CommitVote { view: View::new(view), height: Height::new(view), block_hash: B256::repeat_byte(block) }
}

fn proposal(view: u64, block: u8) -> ProposalVote {
    ProposalVote { view: View::new(view), block_hash: B256::repeat_byte(block) }
}

fn qc(vote: PrepareVote, signers: &[u32]) -> Witness {
    let signatures: Vec<_> = signers.iter().map(|by| signed(*by, vote).signature).collect();
    let signers = SignerSet::of(N as usize, signers.iter().copied().map(ValidatorIndex::new));
    (&Qc { epoch: Epoch::ZERO, vote, signers, signature: aggregate(&signatures).unwrap() }).into()
}

/// A watch with the view its node is in.
struct Post {
    watch: Watch,
    set: ValidatorSet,
    view: u64,
    checks: Checks,
}

impl Post {
    fn in_view(view: u64) -> Self {
        Self { watch: Watch::new(Epoch::ZERO), set: set_of(0), view, checks: Checks::default() }
    }

    fn sees(&mut self, witness: Witness, trust: Trust) -> Vec<Evidence> {
        let domain = domain_of(0);
        let judge = Judge { set: &self.set, domain: &domain, view: View::new(self.view) };
        self.checks.enter(Epoch::ZERO, View::new(self.view));
        self.watch.observe(judge, &mut self.checks, witness, trust)
    }

    fn hears(&mut self, witness: Witness) -> Vec<Evidence> {
        self.sees(witness, Trust::Claimed)
    }

    fn guilty(&self, evidence: &[Evidence]) -> Vec<u32> {
        let verdict = |e: &Evidence| e.verify(&self.set, &domain_of(0)).unwrap();
        evidence.iter().flat_map(verdict).map(ValidatorIndex::get).collect()
    }
}

#[test]
fn two_contradicting_votes_are_evidence_once_both_signatures_are_checked() {
    let mut post = Post::in_view(5);
    assert!(post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 1)))).is_empty());
    assert!(post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 1)))).is_empty(), "the same again");
    let found = post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 2))));
    assert_eq!(post.guilty(&found), [LIAR]);
    assert_eq!(found[0].accusation().unwrap().offence, Offence::DoublePrepare);
}

#[test]
fn a_forged_vote_neither_convicts_nor_takes_the_place_of_a_real_one() {
    let mut post = Post::in_view(5);
    post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 1))));
    assert!(post.hears(Witness::Prepare(forged(LIAR, link(4, 5, 9)))).is_empty());
    let found = post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 2))));
    assert_eq!(post.guilty(&found), [LIAR]);
}

#[test]
fn a_forged_vote_that_came_first_makes_room_for_real_ones() {
    let mut post = Post::in_view(5);
    post.hears(Witness::Prepare(forged(LIAR, link(4, 5, 9))));
    assert!(post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 1)))).is_empty());
    let found = post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 2))));
    assert_eq!(post.guilty(&found), [LIAR]);
}

#[test]
fn a_validator_gets_few_checks_per_view_and_new_ones_in_the_next() {
    let mut post = Post::in_view(5);
    post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 1))));
    for junk in 0..2 * CHECKS_PER_VIEW as u8 {
        assert!(post.hears(Witness::Prepare(forged(LIAR, link(4, 5, 100 + junk)))).is_empty());
    }
    let second = Witness::Prepare(signed(LIAR, link(4, 5, 2)));
    assert!(post.hears(second.clone()).is_empty(), "its checks are spent");
    post.view = 6;
    let found = post.hears(second);
    assert_eq!(post.guilty(&found), [LIAR], "checks come back with the view");
}

/// A node that has left epoch 0 in view 9 and is in view 1 of epoch 1 now, with a watch over each.
struct Later {
    before: Post,
    now: Watch,
    set: ValidatorSet,
    view: u64,
}

impl Later {
    fn hears(&mut self, epoch: u64, witness: Witness) -> Vec<Evidence> {
        self.before.checks.enter(Epoch::new(1), View::new(self.view));
        let (domain, checks) = (domain_of(epoch), &mut self.before.checks);
        let (watch, set, view) = match epoch {
            0 => (&mut self.before.watch, &self.before.set, self.before.view),
            _ => (&mut self.now, &self.set, self.view),
        };
        let judge = Judge { set, domain: &domain, view: View::new(view) };
        watch.observe(judge, checks, witness, Trust::Claimed)
    }
}

fn after_the_epoch(before: Post) -> Later {
    Later { before, now: Watch::new(Epoch::new(1)), set: set_of(1), view: 1 }
}

#[test]
fn every_pair_is_found_when_its_second_half_comes_after_the_epoch() {
    let timeout = |view: u64, high: u64| TimeoutVote {
        view: View::new(view),
        high_qc_view: View::new(high),
        last_prepared_view: View::new(high),
        reason: TimeoutReason::Expired,
    };
    let prepare = |vote| Witness::Prepare(signed(LIAR, vote));
    let committed = |vote| Witness::Commit(signed(LIAR, vote));
    let pairs = [
        (Offence::DoublePrepare, prepare(link(8, 9, 1)), prepare(link(8, 9, 2))),
        (Offence::DoubleCommit, committed(commit(8, 1)), committed(commit(8, 2))),
        (
            Offence::DoubleProposal,
            Witness::Proposal(signed(LIAR, proposal(9, 1))),
            Witness::Proposal(signed(LIAR, proposal(9, 2))),
        ),
        (Offence::Crossing, committed(commit(7, 1)), prepare(link(6, 9, 1))),
        (Offence::Surround, prepare(link(6, 7, 1)), prepare(link(5, 9, 1))),
        (Offence::Amnesia, committed(commit(7, 1)), Witness::Timeout(signed(LIAR, timeout(9, 6)))),
    ];
    for (offence, first, second) in pairs {
        for (first, second) in [(&first, &second), (&second, &first)] {
            let mut post = Post::in_view(9);
            assert!(post.hears(first.clone()).is_empty());
            let mut later = after_the_epoch(post);
            let found = later.hears(0, second.clone());
            assert_eq!(later.before.guilty(&found), [LIAR], "{offence}");
            assert_eq!(found[0].accusation().unwrap().offence, offence);
            assert_eq!(found[0].epoch(), Epoch::ZERO);
        }
    }
}

#[test]
fn statements_of_two_epochs_never_make_a_pair() {
    let mut post = Post::in_view(9);
    post.hears(Witness::Prepare(signed(LIAR, link(0, 1, 1))));
    let mut later = after_the_epoch(post);
    assert!(later.hears(1, Witness::Prepare(signed_in(1, LIAR, link(0, 1, 2)))).is_empty());
    let elsewhere = Witness::Prepare(signed_in(1, LIAR, link(0, 1, 3)));
    assert!(later.hears(0, elsewhere).is_empty(), "signed for epoch 1, sent as a vote of epoch 0");
}

#[test]
fn a_flood_of_the_epoch_before_costs_its_author_the_checks_it_has_anyway() {
    let mut post = Post::in_view(9);
    post.hears(Witness::Prepare(signed(LIAR, link(8, 9, 1))));
    let mut later = after_the_epoch(post);
    later.hears(1, Witness::Prepare(signed_in(1, LIAR, link(0, 1, 1))));
    for junk in 0..2 * CHECKS_PER_VIEW as u8 {
        assert!(later.hears(0, Witness::Prepare(forged(LIAR, link(8, 9, 100 + junk)))).is_empty());
    }
    let old = Witness::Prepare(signed(LIAR, link(8, 9, 2)));
    let new = Witness::Prepare(signed_in(1, LIAR, link(0, 1, 2)));
    assert!(later.hears(0, old.clone()).is_empty(), "its checks are spent");
    assert!(later.hears(1, new.clone()).is_empty(), "in both epochs");
    let other = LIAR + 1;
    later.hears(0, Witness::Prepare(signed(other, link(8, 9, 1))));
    assert_eq!(later.hears(0, Witness::Prepare(signed(other, link(8, 9, 2)))).len(), 1, "others have theirs");
    later.view = 2;
    assert_eq!(later.hears(0, old).len(), 1);
    assert_eq!(later.hears(1, new).len(), 1, "two pairs cost no more than a view has");
}

#[test]
fn a_sender_gets_few_certificates_of_the_epoch_before_checked_in_a_view() {
    let key = |by: u64| SecretKey::simulated(by).public_key();
    let mut checks = Checks::default();
    let taken = |checks: &mut Checks, by| (0..100).filter(|_| checks.late_certificate_of(key(by))).count();
    checks.enter(Epoch::new(1), View::new(1));
    assert_eq!(taken(&mut checks, 1), LATE_CERTIFICATES_PER_VIEW as usize);
    checks.enter(Epoch::new(1), View::new(1));
    assert_eq!(taken(&mut checks, 1), 0);
    assert_eq!(taken(&mut checks, 2), LATE_CERTIFICATES_PER_VIEW as usize);
    checks.enter(Epoch::new(1), View::new(2));
    assert_eq!(taken(&mut checks, 1), LATE_CERTIFICATES_PER_VIEW as usize);
}

#[test]
fn a_certificate_is_news_only_if_it_shows_more_than_is_known() {
    let mut post = Post::in_view(9);
    post.sees(qc(link(8, 9, 1), &[0, 1, 2, 3, 4]), Trust::Verified);
    let is_news = |post: &Post, witness: &Witness| {
        let domain = domain_of(0);
        post.watch.is_news(Judge { set: &post.set, domain: &domain, view: View::new(post.view) }, witness)
    };
    assert!(!is_news(&post, &qc(link(8, 9, 1), &[0, 1, 2, 3, 4])), "the same");
    assert!(!is_news(&post, &qc(link(8, 9, 1), &[0, 1, 2])), "fewer signers");
    assert!(is_news(&post, &qc(link(8, 9, 1), &[0, 1, 2, 3, 5])), "another signer");
    assert!(is_news(&post, &qc(link(8, 9, 2), &[4])), "a contradiction");
    assert!(!is_news(&post, &qc(link(8, 9 + VIEWS_AHEAD + 1, 1), &[6])), "beyond what is remembered");
    assert!(is_news(&post, &qc(link(7, 9 + VIEWS_AHEAD + 1, 1), &[4])), "but what surrounds convicts");
    for by in 0..5 {
        post.watch.convict(ValidatorIndex::new(by));
    }
    assert!(!is_news(&post, &qc(link(8, 9, 2), &[0, 1, 2, 3, 4])), "all guilty already");
    assert!(!is_news(&post, &qc(link(8, 9, 2), &[N + 4])), "nobody");
}

#[test]
fn a_vote_and_a_certificate_convict_and_two_certificates_convict_everybody_in_both() {
    let mut post = Post::in_view(5);
    post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 2))));
    let found = post.sees(qc(link(4, 5, 1), &[0, 1, 2, LIAR, 4]), Trust::Verified);
    assert_eq!(post.guilty(&found), [LIAR]);
    let mut post = Post::in_view(5);
    post.sees(qc(link(4, 5, 1), &[0, 1, 2, 3, 4]), Trust::Verified);
    let found = post.sees(qc(link(4, 5, 2), &[2, 3, 4, 5, 6]), Trust::Verified);
    assert_eq!((found.len(), post.guilty(&found)), (1, vec![2, 3, 4]));
}

#[test]
fn crossing_is_found_across_many_views_because_the_last_commit_is_kept() {
    let mut post = Post::in_view(5);
    post.sees(Witness::Commit(signed(LIAR, commit(5, 1))), Trust::Claimed);
    post.view = 5 + 20 * VIEWS_KEPT;
    // Many statements of the other kinds later.
    for view in post.view - 3..post.view {
        post.hears(Witness::Proposal(signed(LIAR, proposal(view, 1))));
    }
    let found = post.hears(Witness::Prepare(signed(LIAR, link(4, post.view, 1))));
    assert_eq!(post.guilty(&found), [LIAR]);
    assert_eq!(found[0].accusation().unwrap().offence, Offence::Crossing);
}

#[test]
fn the_guilty_are_not_watched_any_more_and_indices_outside_the_set_never_are() {
    let mut post = Post::in_view(5);
    post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 1))));
    post.watch.convict(ValidatorIndex::new(LIAR));
    assert!(post.watch.is_empty());
    assert!(post.hears(Witness::Prepare(signed(LIAR, link(4, 5, 2)))).is_empty());
    post.hears(Witness::Prepare(signed(N + 4, link(4, 5, 1))));
    assert!(post.watch.is_empty());
}

#[test]
fn what_is_remembered_is_bounded_whatever_is_sent() {
    let mut post = Post::in_view(1);
    for view in 1..1_000 {
        post.view = view;
        for ahead in [0, 1, VIEWS_AHEAD, VIEWS_AHEAD + 1, 1 << 40] {
            let at = view + ahead;
            post.hears(Witness::Prepare(signed(LIAR, link(at - 1, at, 1))));
            post.hears(Witness::Commit(signed(LIAR, commit(at, 1))));
            post.hears(Witness::Proposal(signed(LIAR, proposal(at, 1))));
        }
    }
    let per_kind = VIEWS_KEPT + 1 + VIEWS_AHEAD + 1;
    assert!(post.watch.len() as u64 <= 4 * per_kind, "{}", post.watch.len());
    assert!(post.watch.len() as u64 >= VIEWS_KEPT, "{}", post.watch.len());
}

#[test]
fn a_timeout_certificate_convicts_who_forgot_a_commit() {
    let mut post = Post::in_view(8);
    post.hears(Witness::Commit(signed(LIAR, commit(6, 1))));
    let group = |high: u64, signers: &[u32]| TimeoutGroup {
        high_qc_view: View::new(high),
        last_prepared_view: View::new(high),
        reason: TimeoutReason::Expired,
        signers: SignerSet::of(N as usize, signers.iter().copied().map(ValidatorIndex::new)),
    };
    let groups = vec![group(5, &[0, LIAR]), group(6, &[1, 2, 4])];
    let sign = |group: &TimeoutGroup| {
        let statement = group.statement(View::new(7));
        group.signers.iter().map(|by| signed(by.get(), statement).signature).collect::<Vec<_>>()
    };
    let signatures: Vec<_> = groups.iter().flat_map(sign).collect();
    let signature = aggregate(&signatures).unwrap();
    let tc = Tc { epoch: Epoch::ZERO, view: View::new(7), groups, signature, high_qc: None };
    let found = post.sees((&tc).into(), Trust::Verified);
    assert_eq!(post.guilty(&found), [LIAR], "validator 0 never committed view 6");
}

// The pool.

fn double(epoch: u64, by: u32, view: u64) -> Evidence {
    let [a, b] = [1, 2].map(|block| Witness::Proposal(signed_in(epoch, by, proposal(view, block))));
    Evidence::new(Epoch::new(epoch), a, b).unwrap()
}

const PERIOD: Period = Period(4);

fn names(evidence: &Evidence) -> Vec<(Epoch, ValidatorIndex)> {
    evidence.offenders().into_iter().map(|index| (evidence.epoch(), index)).collect()
}

#[test]
fn the_pool_holds_one_piece_per_offender_and_epoch() {
    let mut pool = Pool::new(PERIOD);
    assert!(pool.add(double(0, 1, 5)));
    assert!(!pool.add(double(0, 1, 5)), "the same");
    assert!(!pool.add(double(0, 1, 6)), "another offence of the same validator");
    assert!(pool.add(double(1, 1, 6)), "another epoch");
    assert!(pool.add(double(0, 2, 5)));
    assert_eq!(pool.pending().len(), 3);
}

#[test]
fn what_a_final_block_names_leaves_the_pool_and_never_comes_back() {
    let mut pool = Pool::new(PERIOD);
    let both = double(0, 1, 5);
    pool.add(both.clone());
    pool.add(double(0, 2, 5));
    pool.include(names(&both), Height::new(9));
    assert_eq!(pool.pending().len(), 1);
    assert!(!pool.add(double(0, 1, 8)));
    assert_eq!(pool.included().get(&(Epoch::ZERO, ValidatorIndex::new(1))), Some(&Height::new(9)));
    pool.include(names(&double(0, 1, 8)), Height::new(11));
    assert_eq!(pool.included().get(&(Epoch::ZERO, ValidatorIndex::new(1))), Some(&Height::new(9)));
}

#[test]
fn a_block_takes_what_its_branch_does_not_name_yet_within_its_limits() {
    let mut pool = Pool::new(PERIOD);
    let many = EVIDENCE_PER_BLOCK_MAX as u64 + 5;
    for epoch in 0..many {
        pool.add(double(epoch, 1, 5));
    }
    let epoch = Epoch::new(many);
    let chosen = pool.select(epoch, &BTreeSet::new());
    assert_eq!(chosen.len() as u64, PERIOD.0.min(EVIDENCE_PER_BLOCK_MAX as u64));
    assert!(check_shape(&chosen, epoch, PERIOD).is_ok());
    assert!(chosen.iter().map(Vec::len).sum::<usize>() <= EVIDENCE_BLOCK_BYTES_MAX);
    let first: BTreeSet<_> = names(&Evidence::decode(&chosen[0]).unwrap()).into_iter().collect();
    assert_eq!(pool.select(epoch, &first), chosen[1..]);
    pool.expire(Epoch::new(many + PERIOD.0));
    assert!(pool.pending().is_empty(), "too old for any block");
}

#[test]
fn evidence_of_a_block_is_refused_for_its_count_its_length_its_bytes_and_its_age() {
    let item = |epoch| encode(&double(epoch, 1, 5));
    let at = Epoch::new(9);
    assert_eq!(check_shape(&vec![item(9); 9], at, PERIOD), Err(BadInclusion::TooMany { count: 9 }));
    let long = vec![vec![0; EVIDENCE_BLOCK_BYTES_MAX / 2 + 1]; 2];
    assert_eq!(
        check_shape(&long, at, PERIOD),
        Err(BadInclusion::TooLong { bytes: EVIDENCE_BLOCK_BYTES_MAX + 2 })
    );
    assert!(matches!(
        check_shape(&[vec![1, 2, 3]], at, PERIOD),
        Err(BadInclusion::Invalid { position: 0, .. })
    ));
    for (epoch, fits) in [(9, true), (5, true), (4, false), (10, false)] {
        assert_eq!(check_shape(&[item(epoch)], at, PERIOD).is_ok(), fits, "epoch {epoch}");
    }
}

#[test]
fn a_peer_has_a_burst_and_then_one_piece_at_a_time() {
    let key = |by: u64| SecretKey::simulated(by).public_key();
    let (mut rations, peer) = (Rations::default(), key(1));
    let burst = (0..100).filter(|_| rations.take(peer, 1_000)).count();
    assert_eq!(burst, 8);
    assert!(!rations.take(peer, 1_249));
    assert!(rations.take(peer, 1_250));
    assert!(!rations.take(peer, 1_250));
    let later = (0..100).filter(|_| rations.take(peer, u64::MAX)).count();
    assert_eq!(later, 8, "no more than a burst however long it was silent");
    assert!(rations.take(key(2), 1_000), "others have their own");
    rations.retain(|known| *known != peer);
    assert!(rations.take(peer, 1_000), "who left and came back begins anew");
}

// Honest validators.

#[derive(Clone, Copy, Debug)]
enum Deed {
    Enter(u64),
    Propose(u8),
    Prepare { back: u64, block: u8, by_timeout: bool },
    Commit { back: u64, block: u8 },
    TimeOut,
    Learn { ahead: u64, block: u8 },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (1u64..4).prop_map(Deed::Enter),
        (0u8..3).prop_map(Deed::Propose),
        (1u64..6, 0u8..3, any::<bool>()).prop_map(|(back, block, by_timeout)| Deed::Prepare {
            back,
            block,
            by_timeout
        }),
        (0u64..6, 0u8..3).prop_map(|(back, block)| Deed::Commit { back, block }),
        Just(Deed::TimeOut),
        (0u64..3, 0u8..3).prop_map(|(ahead, block)| Deed::Learn { ahead, block }),
    ]
}

/// A certificate as a peer would send it: what is in it does not matter to the signer.
fn certificate(source: u64, target: u64, block: u8) -> Qc {
    let signers = SignerSet::of(N as usize, (0..5).map(ValidatorIndex::new));
    Qc { epoch: Epoch::ZERO, vote: link(source, target, block), signers, signature: Signature::ZERO }
}

fn skipped(view: u64, high: Option<Qc>) -> Tc {
    let groups = Vec::new();
    Tc { epoch: Epoch::ZERO, view: View::new(view), groups, signature: Signature::ZERO, high_qc: high }
}

fn act(safety: &mut Safety, deed: Deed) -> Result<Option<Witness>, Refusal> {
    let view = safety.state().view.get();
    Ok(match deed {
        Deed::Enter(by) => {
            safety.enter(View::new(view + by), None);
            None
        }
        Deed::Propose(block) => {
            Some(Witness::Proposal(safety.propose(View::new(view), B256::repeat_byte(block))?))
        }
        Deed::Prepare { back, block, by_timeout } => {
            let source = view.saturating_sub(back);
            let qc = (source > 0).then(|| certificate(source - 1, source, source as u8));
            let tc = by_timeout.then(|| skipped(view.saturating_sub(1), None));
            let vote = link(source, view, block);
            Some(Witness::Prepare(safety.prepare(View::new(view), vote, qc.as_ref(), tc.as_ref())?))
        }
        Deed::Commit { back, block } => {
            let at = view.saturating_sub(back).max(1);
            Some(Witness::Commit(safety.commit(&certificate(at - 1, at, block))?))
        }
        Deed::TimeOut => {
            let timeout = safety.timeout(View::new(view), TimeoutReason::Expired)?;
            Some(Witness::Timeout(timeout.signed))
        }
        Deed::Learn { ahead, block } => {
            safety.learn(&certificate(view + ahead, view + ahead + 1, block));
            None
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever an honest signer is asked to do, by whatever adversary, in whatever order, no two of its statements
    /// are evidence, not even to somebody who forgets nothing.
    #[test]
    fn honest_statements_never_verify_as_evidence(deeds in prop::collection::vec(deed(), 1..80)) {
        let identity = (ValidatorIndex::new(2), SecretKey::simulated(2));
        let mut safety = Safety::new(Some(identity), domain_of(0), None);
        let (mut said, mut post): (Vec<Witness>, Post) = (Vec::new(), Post::in_view(1));
        for deed in deeds {
            if let Ok(Some(witness)) = act(&mut safety, deed) {
                post.view = safety.state().view.get();
                let found = post.hears(witness.clone());
                prop_assert!(found.is_empty(), "{:?}", found);
                for earlier in &said {
                    let made = Evidence::new(Epoch::ZERO, earlier.clone(), witness.clone());
                    prop_assert!(made.is_err(), "{:?}", made);
                }
                said.push(witness);
            }
        }
    }

    /// The bounded watch finds every pair of close views that the plain rules find, and nothing else.
    #[test]
    fn within_its_window_the_watch_finds_exactly_what_the_rules_find(
        votes in prop::collection::vec((0u8..4, 1u64..VIEWS_KEPT, 1u64..4, 0u8..2), 2..12)
    ) {
        let witness = |(kind, view, span, block): (u8, u64, u64, u8)| match kind {
            0 => (Claim::Proposal(proposal(view, block)), Witness::Proposal(signed(LIAR, proposal(view, block)))),
            1 => (Claim::Commit(commit(view, block)), Witness::Commit(signed(LIAR, commit(view, block)))),
            _ => {
                let vote = link(view.saturating_sub(span), view, block);
                (Claim::Prepare(vote), Witness::Prepare(signed(LIAR, vote)))
            }
        };
        let mut post = Post::in_view(VIEWS_KEPT);
        let mut said: Vec<Claim> = Vec::new();
        for vote in votes {
            let (claim, witness) = witness(vote);
            let guilty = said.iter().any(|earlier| earlier.offence(&claim).is_some());
            let found = post.hears(witness);
            prop_assert_eq!(guilty, !found.is_empty(), "{:?} after {:?}", claim, said);
            if guilty {
                break;
            }
            said.push(claim);
        }
    }
}
