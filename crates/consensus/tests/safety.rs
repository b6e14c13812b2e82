//! What may be signed (C-4, C-7), against four validators of equal stake: A and B honest, C honest, D Byzantine.
#![allow(clippy::unwrap_used, missing_docs)]

use consensus::tally::{Aggregate, Counted, TimeoutBook, VoteBook};
use consensus::{Refusal, Safety};
use crypto::SecretKey;
use types::vote::Signed;
use types::{
    Address, B256, CommitVote, Domain, Epoch, Height, PrepareVote, Qc, QuorumRule, RejectionCode, SignerSet,
    Stake, Tc, Timeout, TimeoutReason, Validator, ValidatorIndex, ValidatorSet, View,
};

const GENESIS: B256 = B256::repeat_byte(0x11);
const B1: B256 = B256::repeat_byte(0xb1);
const B2: B256 = B256::repeat_byte(0xb2);

struct Network {
    set: ValidatorSet,
    domain: Domain,
}

impl Network {
    fn new(stakes: &[u128]) -> Self {
        let validators = stakes.iter().enumerate().map(|(i, stake)| Validator {
            address: Address::repeat_byte(i as u8 + 1),
            public_key: SecretKey::simulated(i as u64).public_key(),
            stake: Stake::new(*stake),
        });
        let set = ValidatorSet::simulated(Epoch::ZERO, validators.collect(), QuorumRule::default()).unwrap();
        Self { set, domain: Domain { chain_id: 7, genesis_hash: GENESIS, epoch: 0 } }
    }

    fn signer(&self, index: u32) -> Safety {
        let identity = (ValidatorIndex::new(index), SecretKey::simulated(index.into()));
        Safety::new(Some(identity), self.domain, None)
    }

    fn qc(&self, votes: &[Signed<PrepareVote>]) -> Option<Qc> {
        let (mut book, mut liars) = (VoteBook::default(), Vec::new());
        for vote in votes {
            let counted = book.at(vote.statement.target_view).add(&self.set, &self.domain, vote, &mut liars);
            if let Counted::Certified(c) = counted {
                return Some(Qc {
                    epoch: Epoch::ZERO,
                    vote: c.statement,
                    signers: c.signers,
                    signature: c.signature,
                });
            }
        }
        None
    }

    fn tc(&self, view: View, timeouts: Vec<Timeout>) -> Tc {
        let mut book = TimeoutBook::default();
        timeouts.into_iter().for_each(|timeout| assert!(book.add(timeout)));
        book.certify(&self.set, &self.domain, view, &mut Vec::new()).expect("quorum stake timed out")
    }
}

fn view(number: u64) -> View {
    View::new(number)
}

fn link(source: (u64, B256), target: u64, height: u64, block_hash: B256) -> PrepareVote {
    PrepareVote {
        source_view: view(source.0),
        source_hash: source.1,
        target_view: view(target),
        height: Height::new(height),
        block_hash,
    }
}

fn forged(network: &Network, index: u32, vote: PrepareVote) -> Signed<PrepareVote> {
    Signed::new(vote, ValidatorIndex::new(index), &SecretKey::simulated(index.into()), &network.domain)
}

/// The counterexample of C-4: one faulty validator, and the chain forks unless the guard refuses.
///
/// ```text
/// view 1  D leads, A and B prepare B1; D keeps its vote back          -> no certificate
///         A, B, C time out                                            -> TC(1), highest certificate 0
/// view 2  C leads on genesis, A, B, C prepare B2 (link 0 -> 2)
///         before QC(2) is seen, D releases its vote of view 1         -> QC(1) forms
///         A and B would answer with commit(1): B1 final; then QC(2) is answered: B2 final, both at height 1
/// ```
#[test]
fn a_vote_released_late_cannot_fork_the_chain() {
    let network = Network::new(&[1, 1, 1, 1]);
    let (mut a, mut b, mut c) = (network.signer(0), network.signer(1), network.signer(2));
    let first = link((0, GENESIS), 1, 1, B1);
    let mut votes =
        vec![a.prepare(view(1), first, None, None).unwrap(), b.prepare(view(1), first, None, None).unwrap()];
    assert!(network.qc(&votes).is_none());

    let timeouts = [&mut a, &mut b, &mut c].map(|s| s.timeout(view(1), TimeoutReason::Expired).unwrap());
    let tc = network.tc(view(1), timeouts.to_vec());
    assert_eq!(tc.high_qc_view(), View::ZERO);
    let second = link((0, GENESIS), 2, 1, B2);
    let mut later = Vec::new();
    for signer in [&mut a, &mut b, &mut c] {
        signer.enter(view(2), Some(tc.clone()));
        later.push(signer.prepare(view(2), second, None, Some(&tc)).unwrap());
    }

    votes.push(forged(&network, 3, first));
    let released = network.qc(&votes).expect("three of four prepared B1");
    for signer in [&mut a, &mut b] {
        // The lock does not help: it is still on genesis.
        assert_eq!(signer.lock_view(), View::ZERO);
        let refused = signer.commit(&released);
        assert_eq!(refused, Err(Refusal::PreparedLater { asked: view(1), prepared: view(2) }));
    }
    assert_eq!(c.commit(&released), Err(Refusal::PreparedLater { asked: view(1), prepared: view(2) }));

    let honest = network.qc(&later).expect("three of four prepared B2");
    for signer in [&mut a, &mut b, &mut c] {
        assert!(signer.commit(&honest).is_ok());
    }
}

/// The other half of the guard: a validator that gave view 1 up but has not prepared in view 2 yet.
#[test]
fn a_view_given_up_is_never_committed() {
    let network = Network::new(&[1, 1, 1, 1]);
    let mut signers = [0, 1, 2].map(|i| network.signer(i));
    let vote = link((0, GENESIS), 1, 1, B1);
    let votes: Vec<_> = signers.iter_mut().map(|s| s.prepare(view(1), vote, None, None).unwrap()).collect();
    signers[0].timeout(view(1), TimeoutReason::Expired).unwrap();
    let qc = network.qc(&votes).unwrap();
    assert_eq!(signers[0].commit(&qc), Err(Refusal::TimedOut { last: view(1) }));
    assert!(signers[1].commit(&qc).is_ok());
}

#[test]
fn a_certificate_learnt_late_raises_the_high_qc_but_not_the_lock() {
    let network = Network::new(&[1, 1, 1]);
    let vote = link((0, GENESIS), 1, 1, B1);
    let qc = network.qc(&[0, 1].map(|i| forged(&network, i, vote))).unwrap();
    let mut late = network.signer(2);
    late.learn(&qc);
    assert_eq!((late.high_qc_view(), late.lock_view()), (view(1), View::ZERO));
    assert!(late.commit(&qc).is_ok());
    assert_eq!(late.lock_view(), view(1));
}

#[test]
fn a_commit_locks_and_later_links_must_not_start_below_the_lock() {
    let network = Network::new(&[1, 1, 1]);
    let vote = link((0, GENESIS), 1, 1, B1);
    let qc = network.qc(&[0, 1].map(|i| forged(&network, i, vote))).unwrap();
    let mut signer = network.signer(0);
    signer.commit(&qc).unwrap();
    let others = [1, 2].map(|i| network.signer(i).timeout(view(2), TimeoutReason::Expired).unwrap());
    let tc = network.tc(view(2), others.to_vec());
    signer.enter(view(3), Some(tc.clone()));
    let below = signer.prepare(view(3), link((0, GENESIS), 3, 1, B2), None, Some(&tc));
    assert_eq!(below, Err(Refusal::BelowLock { from: View::ZERO, lock: view(1) }));
    let other = signer.prepare(view(3), link((1, B2), 3, 2, B2), None, Some(&tc));
    assert_eq!(other, Err(Refusal::ConflictsWithLock { lock: view(1) }));
    assert!(signer.prepare(view(3), link((1, B1), 3, 2, B2), Some(&qc), Some(&tc)).is_ok());
}

/// E3: a prepare locks on the certificate it starts at, also one that nobody else may know.
#[test]
fn a_prepare_locks_on_its_source_so_that_no_later_link_surrounds_it() {
    let network = Network::new(&[1, 1, 1, 1]);
    let qc = network.qc(&[0, 1, 2].map(|i| forged(&network, i, link((0, GENESIS), 1, 1, B1)))).unwrap();
    let mut signer = network.signer(3);
    signer.enter(view(2), None);
    signer.prepare(view(2), link((1, B1), 2, 2, B2), Some(&qc), None).unwrap();
    assert_eq!(signer.lock_view(), view(1));
    let others = [0, 1, 2].map(|i| network.signer(i).timeout(view(2), TimeoutReason::Expired).unwrap());
    let tc = network.tc(view(2), others.to_vec());
    signer.enter(view(3), Some(tc.clone()));
    let below = signer.prepare(view(3), link((0, GENESIS), 3, 1, B2), None, Some(&tc));
    assert_eq!(below, Err(Refusal::BelowLock { from: View::ZERO, lock: view(1) }));
}

#[test]
fn skipped_views_need_the_timeout_certificate_of_the_last_one_and_its_highest_certificate() {
    let network = Network::new(&[1, 1, 1]);
    let qc1 = network.qc(&[0, 1].map(|i| forged(&network, i, link((0, GENESIS), 1, 1, B1)))).unwrap();
    let timeouts = [0, 1].map(|i| {
        let mut signer = network.signer(i);
        signer.learn(&qc1);
        signer.timeout(view(2), TimeoutReason::Expired).unwrap()
    });
    let tc = network.tc(view(2), timeouts.to_vec());
    let mut signer = network.signer(2);
    signer.enter(view(3), Some(tc.clone()));
    let target = link((0, GENESIS), 3, 1, B2);
    assert_eq!(
        signer.prepare(view(3), target, None, None),
        Err(Refusal::SkipsViews { from: View::ZERO, to: view(3) })
    );
    assert_eq!(
        signer.prepare(view(3), target, None, Some(&tc)),
        Err(Refusal::BelowTimeoutCertificate { from: View::ZERO, reported: view(1) })
    );
    // A certificate of an earlier view proves nothing about the views after it.
    let old = [0, 1].map(|i| network.signer(i).timeout(view(1), TimeoutReason::Expired).unwrap());
    let stale = network.tc(view(1), old.to_vec());
    assert_eq!(
        signer.prepare(view(3), link((1, B1), 3, 2, B2), Some(&qc1), Some(&stale)),
        Err(Refusal::SkipsViews { from: view(1), to: view(3) })
    );
    assert!(signer.prepare(view(3), link((1, B1), 3, 2, B2), Some(&qc1), Some(&tc)).is_ok());
}

#[test]
fn each_view_gets_one_prepare_one_commit_one_proposal_and_one_timeout_also_after_a_restart() {
    let network = Network::new(&[1, 1, 1]);
    let mut signer = network.signer(0);
    signer.propose(view(1), B1).unwrap();
    let vote = link((0, GENESIS), 1, 1, B1);
    signer.prepare(view(1), vote, None, None).unwrap();
    let identity = (ValidatorIndex::new(0), SecretKey::simulated(0));
    let mut restarted = Safety::new(Some(identity), network.domain, Some(signer.state().clone()));
    assert_eq!(restarted.propose(view(1), B2), Err(Refusal::AlreadyProposed { last: view(1) }));
    let other = link((0, GENESIS), 1, 1, B2);
    assert_eq!(
        restarted.prepare(view(1), other, None, None),
        Err(Refusal::AlreadyPrepared { last: view(1) })
    );
    let qc = network.qc(&[0, 1].map(|i| forged(&network, i, vote))).unwrap();
    restarted.commit(&qc).unwrap();
    assert_eq!(restarted.commit(&qc), Err(Refusal::AlreadyCommitted { last: view(1) }));
    // E4: who committed in a view does not give it up.
    let refused = restarted.timeout(view(1), TimeoutReason::Expired);
    assert_eq!(refused, Err(Refusal::AlreadyCommitted { last: view(1) }));
    let timeout = restarted.timeout(view(2), TimeoutReason::Expired).unwrap();
    restarted.learn(&network.qc(&[0, 1].map(|i| forged(&network, i, link((1, B1), 2, 2, B2)))).unwrap());
    let again = restarted.timeout(view(2), TimeoutReason::Expired).unwrap();
    assert_eq!(again, timeout, "the stored message is sent again, never a new one");
}

#[test]
fn a_node_without_a_key_signs_nothing() {
    let network = Network::new(&[1, 1, 1]);
    let mut follower = Safety::new(None, network.domain, None);
    let vote = link((0, GENESIS), 1, 1, B1);
    assert_eq!(follower.prepare(view(1), vote, None, None), Err(Refusal::NotAValidator));
    assert_eq!(follower.propose(view(1), B1), Err(Refusal::NotAValidator));
    assert!(follower.timeout(view(1), TimeoutReason::Expired).is_err());
}

#[test]
fn what_is_signed_ahead_is_what_would_be_signed_and_allows_nothing() {
    let network = Network::new(&[1, 1, 1]);
    let (mut ahead, mut in_time) = (network.signer(0), network.signer(0));
    let (first, second) = (link((0, GENESIS), 1, 1, B1), link((0, GENESIS), 1, 1, B2));
    let commit = CommitVote { view: view(1), height: Height::new(1), block_hash: B1 };
    for statement in [first, second] {
        ahead.vote_ahead(&statement);
    }
    ahead.vote_ahead(&commit);
    (1..=3).for_each(|number| ahead.reveal_ahead(view(number)));
    assert_eq!(ahead.state(), in_time.state(), "no vote was cast");

    for number in 1..=3 {
        assert_eq!(ahead.reveal(view(number)), in_time.reveal(view(number)));
    }
    let vote = ahead.prepare(view(1), first, None, None).unwrap();
    assert_eq!(vote, in_time.prepare(view(1), first, None, None).unwrap());
    assert!(vote.verify(&network.set, &network.domain));
    let refused = ahead.prepare(view(1), second, None, None);
    assert_eq!(refused, Err(Refusal::AlreadyPrepared { last: view(1) }), "although it is signed");
    let qc = network.qc(&[0, 1].map(|i| forged(&network, i, first))).unwrap();
    assert_eq!(ahead.commit(&qc), in_time.commit(&qc));
    ahead.vote_ahead(&CommitVote { view: view(2), ..commit });
    ahead.timeout(view(2), TimeoutReason::Expired).unwrap();
    let qc = network.qc(&[0, 1].map(|i| forged(&network, i, link((1, B1), 2, 2, B2)))).unwrap();
    assert_eq!(ahead.commit(&qc), Err(Refusal::TimedOut { last: view(2) }));
}

#[test]
fn certificates_form_by_stake_not_by_count_and_drop_liars() {
    let network = Network::new(&[4, 1, 1, 1]);
    let vote = link((0, GENESIS), 1, 1, B1);
    let three_small: Vec<_> = [1, 2, 3].map(|i| forged(&network, i, vote)).to_vec();
    assert!(network.qc(&three_small).is_none(), "three of four validators hold 3 of 7");
    let heavy_and_one: Vec<_> = [0, 1].map(|i| forged(&network, i, vote)).to_vec();
    assert!(network.qc(&heavy_and_one).is_some(), "two of four validators hold 5 of 7");

    let (mut book, mut liars) = (VoteBook::default(), Vec::new());
    let mut lie = forged(&network, 1, vote);
    lie.signature = forged(&network, 2, vote).signature;
    let mut add = |vote: &Signed<PrepareVote>, liars: &mut Vec<_>| {
        book.at(view(1)).add(&network.set, &network.domain, vote, liars)
    };
    assert_eq!(add(&lie, &mut liars), Counted::Pending);
    assert_eq!(add(&forged(&network, 0, vote), &mut liars), Counted::Pending);
    assert_eq!(liars, [ValidatorIndex::new(1)]);
    assert!(matches!(add(&forged(&network, 3, vote), &mut liars), Counted::Certified(_)));
}

#[test]
fn a_validator_counts_for_two_statements_of_a_view_and_for_those_alone() {
    let network = Network::new(&[1, 1, 1, 1]);
    let [one, other, third] = [B1, B2, GENESIS].map(|block| link((0, GENESIS), 1, 1, block));
    let (mut book, mut liars) = (VoteBook::default(), Vec::new());
    let mut add = |index, vote| {
        book.at(view(1)).add(&network.set, &network.domain, &forged(&network, index, vote), &mut liars)
    };
    assert_eq!(
        [one, other, third].map(|vote| add(3, vote)),
        [Counted::Pending, Counted::Pending, Counted::Ignored]
    );
    assert_eq!(add(4, one), Counted::Ignored, "there are four validators");
    // Statements of another validator do not use up one's own.
    assert_eq!([0, 1].map(|index| add(index, third)), [Counted::Pending, Counted::Pending]);
    let Counted::Certified(certificate) = add(2, third) else { panic!("three of four votes are there") };
    assert_eq!(certificate.signers, SignerSet::of(4, [0, 1, 2].map(ValidatorIndex::new)));
    assert_eq!(book.at(view(1)).stakes(&network.set).iter().map(|(_, stake)| stake.get()).sum::<u128>(), 5);
    assert!(liars.is_empty());

    book.at(view(2)).add(&network.set, &network.domain, &forged(&network, 0, one), &mut liars);
    book.prune(view(2));
    assert_eq!(book.iter().map(|(view, _)| view).collect::<Vec<_>>(), [view(2)]);
}

#[test]
fn votes_that_arrived_together_are_all_in_the_certificate_and_liars_among_them_are_dropped() {
    let network = Network::new(&[1, 1, 1, 1]);
    let vote = link((0, GENESIS), 1, 1, B1);
    let votes = [0, 1, 2, 3].map(|i| forged(&network, i, vote));
    for lies in [0, 1] {
        let (mut book, mut liars) = (VoteBook::default(), Vec::new());
        let mut votes = votes.clone();
        if lies == 1 {
            votes[2].signature = votes[3].signature;
        }
        votes[1..].iter().for_each(|vote| book.at(view(1)).hold(&network.set, vote));
        let Counted::Certified(certificate) =
            book.at(view(1)).add_own(&network.set, &network.domain, &votes[0], &mut liars)
        else {
            panic!("three of four votes are good");
        };
        assert_eq!((certificate.signers.count(), liars.len()), (4 - lies, lies));
        let Aggregate { statement: vote, signers, signature } = certificate;
        let qc = Qc { epoch: Epoch::ZERO, vote, signers, signature };
        assert_eq!(qc.verify(&network.set, &network.domain), Ok(()));
        for vote in &votes[1..] {
            let late = book.at(view(1)).add(&network.set, &network.domain, vote, &mut liars);
            assert_eq!(late, Counted::Ignored);
        }
    }
}

#[test]
fn held_votes_below_a_quorum_prove_nothing_and_settled_ones_are_not_verified() {
    let network = Network::new(&[1, 1, 1, 1]);
    let vote = link((0, GENESIS), 1, 1, B1);
    let votes = [0, 1, 2, 3].map(|i| forged(&network, i, vote));
    let (mut book, mut liars) = (VoteBook::default(), Vec::new());
    book.at(view(1)).hold(&network.set, &votes[0]);
    let mut add = |book: &mut VoteBook<PrepareVote>, i: usize| {
        book.at(view(1)).add(&network.set, &network.domain, &votes[i], &mut liars)
    };
    assert_eq!(add(&mut book, 0), Counted::Pending);
    assert_eq!(add(&mut book, 0), Counted::Ignored);
    assert_eq!(add(&mut book, 1), Counted::Pending);
    book.at(view(1)).settle(vote);
    assert_eq!(add(&mut book, 2), Counted::Ignored);
}

#[test]
fn a_timeout_certificate_carries_the_highest_certificate_any_signer_reported() {
    let network = Network::new(&[1, 1, 1, 1]);
    let qc = network.qc(&[0, 1, 3].map(|i| forged(&network, i, link((0, GENESIS), 1, 1, B1)))).unwrap();
    let timeouts = [0, 1, 2].map(|i| {
        let mut signer = network.signer(i);
        if i == 1 {
            signer.learn(&qc);
        }
        signer.timeout(view(2), TimeoutReason::Expired).unwrap()
    });
    let tc = network.tc(view(2), timeouts.to_vec());
    assert_eq!(tc.high_qc_view(), view(1));
    assert_eq!(tc.groups.len(), 2);
    let mut without = tc.clone();
    without.high_qc = None;
    assert!(without.verify(&network.set, &network.domain).is_err());
}

/// `k` and `r - k` (r: the order of the group) both prove possession, and their public keys add up to infinity, which no
/// verifier accepts: two members with such keys and one common statement must not keep the others from a certificate.
#[test]
fn keys_that_cancel_each_other_out_cannot_stop_timeout_certificates() {
    let scalar = |hex: &str| SecretKey::from_bytes(&hex.parse::<B256>().unwrap().0).unwrap();
    let keys: Vec<SecretKey> = [
        scalar("0000000000000000000000000000000000000000000000000000000000000005"),
        scalar("73eda753299d7d483339d80809a1d80553bda402fffe5bfefffffffefffffffc"),
    ]
    .into_iter()
    .chain((1..=5).map(|i| SecretKey::from_seed(&[i; 32])))
    .collect();
    let validators = keys.iter().enumerate().map(|(i, key)| Validator {
        address: Address::repeat_byte(i as u8 + 1),
        public_key: key.public_key(),
        stake: Stake::new(1),
    });
    let set = ValidatorSet::new(Epoch::ZERO, validators.collect(), QuorumRule::default()).unwrap();
    let domain = Domain { chain_id: 7, genesis_hash: GENESIS, epoch: 0 };
    let signer = |i: usize| Safety::new(Some((ValidatorIndex::new(i as u32), keys[i].clone())), domain, None);
    let invented = TimeoutReason::Rejected { block_hash: B1, code: RejectionCode::BadHeader };
    let (mut book, mut liars) = (TimeoutBook::default(), Vec::new());
    let mut certified = None;
    for i in 0..7 {
        let reason = if i < 2 { invented } else { TimeoutReason::Expired };
        let timeout = signer(i).timeout(view(1), reason).unwrap();
        assert!(timeout.signed.verify(&set, &domain), "every single signature is good");
        assert!(book.add(timeout));
        certified = book.certify(&set, &domain, view(1), &mut liars).or(certified);
    }
    let tc = certified.expect("five of seven are honest");
    assert!(tc.verify(&set, &domain).is_ok());
    assert_eq!(liars, [ValidatorIndex::new(0), ValidatorIndex::new(1)]);
}

/// A validator whose timeout did not verify is checked once per view, however often it comes back.
#[test]
fn a_bad_timeout_is_not_counted_again_in_its_view() {
    let network = Network::new(&[1, 1, 1, 1]);
    let timeout =
        |index: u32, at: u64| network.signer(index).timeout(view(at), TimeoutReason::Expired).unwrap();
    let (mut book, mut liars) = (TimeoutBook::default(), Vec::new());
    let mut lie = timeout(0, 1);
    lie.signed.signature = timeout(1, 1).signed.signature;
    for message in [lie.clone(), timeout(1, 1), timeout(2, 1)] {
        assert!(book.add(message));
    }
    assert!(book.certify(&network.set, &network.domain, view(1), &mut liars).is_none());
    assert_eq!(liars, [ValidatorIndex::new(0)]);
    assert!(!book.add(lie));
    assert!(book.add(timeout(3, 1)));
    assert!(book.certify(&network.set, &network.domain, view(1), &mut liars).is_some());
    assert!(book.add(timeout(0, 2)), "its word counts again in later views");
}

#[test]
fn of_each_validator_the_timeout_of_its_highest_view_counts() {
    let network = Network::new(&[3, 2, 2, 1]);
    let mut book = TimeoutBook::default();
    let rejected = |block_hash| TimeoutReason::Rejected { block_hash, code: RejectionCode::BadHeader };
    let mut add =
        |index: u32, at: u64, reason| book.add(network.signer(index).timeout(view(at), reason).unwrap());
    let news = [(1, true), (1, false), (5, true), (4, false), (5, false), (6, true)];
    for (at, is_news) in news {
        assert_eq!(add(0, at, TimeoutReason::Expired), is_news, "view {at}");
    }
    assert!(add(1, 4, rejected(B1)) && add(2, 3, rejected(B1)) && add(3, 4, rejected(B2)));
    let stake_at = [1, 3, 4, 5, 6].map(|at| book.stake_at(&network.set, view(at)).get());
    assert_eq!(stake_at, [0, 2, 3, 0, 3]);
    let rejecting = [B1, B2, GENESIS].map(|block| book.stake_rejecting(&network.set, block).get());
    assert_eq!(rejecting, [4, 1, 0]);
}

/// An honest validator has more than a third of stake with it: C-6.6.
#[test]
fn the_amplified_view_is_the_highest_that_a_third_of_stake_gave_up_on_or_beyond() {
    let network = Network::new(&[3, 2, 2, 1]);
    let mut book = TimeoutBook::default();
    let steps = [(3, 9, None), (1, 2, Some(2)), (2, 7, Some(7)), (0, 8, Some(8)), (1, 10, Some(9))];
    for (index, at, amplified) in steps {
        assert!(book.add(network.signer(index).timeout(view(at), TimeoutReason::Expired).unwrap()));
        assert_eq!(book.amplified_view(&network.set), amplified.map(view), "validator {index} at {at}");
    }
}
