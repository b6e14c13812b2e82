//! Certificates: what makes a quorum, and everything that must not pass for one (C-1.2, C-1.4, C-1.5).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::*;
use crypto::bls::aggregate;
use proptest::prelude::*;
use types::vote::Statement;
use types::{
    CertificateError, CommitQc, Domain, Epoch, Qc, QuorumRule, Signature, SignerSet, Stake, Tc,
    TimeoutReason, TimeoutVote, ValidatorSet, View,
};

/// The indices in a bit mask.
fn picked(mask: u32) -> Vec<u32> {
    (0..8).filter(|i| mask >> i & 1 == 1).collect()
}

/// Certificates of all three kinds by the same signers.
fn by(set: &ValidatorSet, domain: &Domain, indices: &[u32]) -> (Qc, CommitQc, Tc) {
    let timeout = timeout_vote(5, 0, 0, TimeoutReason::Expired);
    (
        qc_by(set, domain, prepare_vote(4, 5), indices),
        commit_qc_by(set, domain, commit_vote(5), indices),
        tc_by(set, domain, &[(timeout, indices)], None),
    )
}

fn verdicts(
    set: &ValidatorSet,
    domain: &Domain,
    (qc, commit, tc): &(Qc, CommitQc, Tc),
) -> Vec<Result<(), CertificateError>> {
    vec![qc.verify(set, domain), commit.verify(set, domain), tc.verify(set, domain)]
}

#[test]
fn every_subset_of_stake_certifies_exactly_from_the_quorum_upwards() {
    for stakes in [&[1u128, 1, 1, 1][..], &[4, 1, 1, 1], &[34, 33, 33], &[10, 7, 5, 3]] {
        let set = set_of(0, stakes);
        for mask in 1u32..1 << stakes.len() {
            let indices = picked(mask);
            let stake = Stake::new(indices.iter().map(|i| stakes[*i as usize]).sum());
            let expected = match stake.get() * 3 >= stakes.iter().sum::<u128>() * 2 {
                true => Ok(()),
                false => Err(CertificateError::NoQuorum { stake, quorum: set.quorum() }),
            };
            let certificates = by(&set, &domain(), &indices);
            assert_eq!(verdicts(&set, &domain(), &certificates), vec![expected; 3], "{stakes:?} {indices:?}");
        }
    }
}

#[test]
fn one_unit_of_stake_decides_at_the_largest_stakes() {
    // W = 2^120 - 1 is a multiple of 3: the quorum is 2W/3 exactly.
    let third = ((1u128 << 120) - 1) / 3;
    for (first, enough) in [(2 * third, true), (2 * third - 1, false)] {
        let set = set_of(0, &[first, 3 * third - first]);
        let verdict = by(&set, &domain(), &[0]).0.verify(&set, &domain());
        assert_eq!(verdict.is_ok(), enough, "{verdict:?}");
    }
}

#[test]
fn three_of_four_heads_without_stake_are_no_quorum_and_one_heavy_head_is() {
    let set = set_of(0, &[7, 1, 1, 1]);
    assert!(by(&set, &domain(), &[0]).0.verify(&set, &domain()).is_ok());
    let heads = by(&set, &domain(), &[1, 2, 3]);
    let expected = CertificateError::NoQuorum { stake: Stake::new(3), quorum: Stake::new(7) };
    assert_eq!(verdicts(&set, &domain(), &heads), vec![Err(expected); 3]);
}

#[test]
fn a_stricter_quorum_rule_refuses_what_two_thirds_would_accept() {
    let strict = QuorumRule { numerator: 4, denominator: 5 };
    let members = four().validators().to_vec();
    let set = ValidatorSet::new(Epoch::ZERO, members, strict).unwrap();
    assert!(verdicts(&set, &domain(), &by(&set, &domain(), &[0, 1, 2])).iter().all(Result::is_err));
    assert!(verdicts(&set, &domain(), &by(&set, &domain(), &[0, 1, 2, 3])).iter().all(Result::is_ok));
}

#[test]
fn every_malformed_certificate_is_refused_with_its_own_error() {
    for (name, certificate, expected) in refused_certificates() {
        let error = certificate.verify(&four(), &domain()).expect_err(name);
        assert!(format!("{error:?}").starts_with(expected), "{} {name}: {error}", certificate.kind());
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn a_certificate_of_one_set_is_none_of_another_with_the_same_size() {
    let (ours, theirs) = (four(), set_of(0, &[1, 1, 1, 1, 1]));
    let certificates = by(&ours, &domain(), &[0, 1, 2]);
    assert!(verdicts(&theirs, &domain(), &certificates).iter().all(Result::is_err));
    // Same keys, other epoch: refused by the epoch even where the signature would verify.
    let later = set_of(1, &[1, 1, 1, 1]);
    let wrong = CertificateError::WrongEpoch { found: Epoch::ZERO, expected: Epoch::new(1) };
    assert_eq!(verdicts(&later, &domain(), &certificates), vec![Err(wrong); 3]);
    // The epoch field changed to fit: the signing domain refuses.
    let (mut qc, mut commit, mut tc) = certificates;
    (qc.epoch, commit.epoch, tc.epoch) = (Epoch::new(1), Epoch::new(1), Epoch::new(1));
    let domain = Domain { epoch: 1, ..domain() };
    assert_eq!(verdicts(&later, &domain, &(qc, commit, tc)), vec![Err(CertificateError::BadSignature); 3]);
}

#[test]
fn duplicate_signers_never_count_twice() {
    let (set, vote) = (four(), prepare_vote(4, 5));
    let one = key(1).sign(&vote.signing_bytes(&domain()));
    for copies in 2..=4 {
        let signature = aggregate(&vec![one; copies]).unwrap();
        for indices in [&[0u32][..], &[0, 1], &[0, 1, 2], &[0, 1, 2, 3]] {
            let qc = Qc { epoch: Epoch::ZERO, vote, signers: signers(4, indices), signature };
            assert!(qc.verify(&set, &domain()).is_err(), "{copies} copies as {indices:?}");
        }
    }
    // The same validator under two statements of one timeout certificate.
    let statements: [(TimeoutVote, &[u32]); 2] = [
        (timeout_vote(5, 0, 0, TimeoutReason::Expired), &[0, 1]),
        (timeout_vote(5, 0, 4, TimeoutReason::Expired), &[1]),
    ];
    let tc = tc_by(&set, &domain(), &statements, None);
    assert_eq!(tc.verify(&set, &domain()), Err(CertificateError::BadGroups("empty or overlapping")));
}

#[test]
fn a_timeout_certificate_reports_its_highest_certificate_and_its_signers() {
    let (tc, set) = (tc(), four());
    assert_eq!(tc.verify(&set, &domain()), Ok(()));
    assert_eq!(tc.high_qc_view(), View::new(5));
    assert_eq!(tc.signers(&set), signers(4, &[0, 1, 2, 3]));
    let early = tc_without_certificate();
    assert_eq!(early.high_qc_view(), View::ZERO);
}

#[test]
fn an_aggregate_may_be_assembled_in_any_order_and_is_the_same_bytes() {
    let vote = prepare_vote(4, 5);
    let parts: Vec<Signature> = [2, 0, 3].map(|i| key(i + 1).sign(&vote.signing_bytes(&domain()))).into();
    let mut sorted = parts.clone();
    sorted.sort_unstable();
    assert_eq!(aggregate(&parts), aggregate(&sorted));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stakes and signers: valid exactly when the signers' stake reaches two thirds.
    #[test]
    fn certificates_count_stake_whatever_the_distribution(stakes in prop::collection::vec(1u128..1 << 40, 1..8), mask in 1u32..256) {
        let set = set_of(0, &stakes);
        let indices: Vec<u32> = picked(mask).into_iter().filter(|i| (*i as usize) < stakes.len()).collect();
        prop_assume!(!indices.is_empty());
        let stake: u128 = indices.iter().map(|i| stakes[*i as usize]).sum();
        let enough = stake * 3 >= stakes.iter().sum::<u128>() * 2;
        for verdict in verdicts(&set, &domain(), &by(&set, &domain(), &indices)) {
            prop_assert_eq!(verdict.is_ok(), enough);
        }
    }

    /// No bitmap but the signers' own makes their aggregate valid.
    #[test]
    fn an_aggregate_fits_one_bitmap_only(signed in 1u32..16, claimed in 0u8..=255) {
        let (set, vote) = (four(), prepare_vote(4, 5));
        let signature = sign(&vote, &domain(), &picked(signed));
        let signers: SignerSet = raw_bitmap(&[claimed]);
        let qc = Qc { epoch: Epoch::ZERO, vote, signers, signature };
        let honest = u32::from(claimed) == signed && signed.count_ones() >= 3;
        prop_assert_eq!(qc.verify(&set, &domain()).is_ok(), honest);
    }
}
