//! Evidence: every slashable pair and nothing else, with frozen bytes (C-8, B-9). The vectors are
//! specs/vectors/evidence.json; `BLESS=1 cargo test --release -p types --test evidence` rewrites them.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use types::evidence::{Claim, Joint, JointTimeouts};
use types::vote::Statement;
use types::{
    B256, CommitVote, Domain, Epoch, Evidence, EvidenceError, Height, Offence, PrepareVote, ProposalVote,
    TimeoutReason, TimeoutVote, ValidatorIndex, View, Witness, encode, limits,
};

const EXPIRED: TimeoutReason = TimeoutReason::Expired;

fn other_link(source: u64, target: u64) -> PrepareVote {
    PrepareVote { block_hash: B256::repeat_byte(0xee), ..prepare_vote(source, target) }
}

fn other_commit(view: u64) -> CommitVote {
    CommitVote { block_hash: B256::repeat_byte(0xee), ..commit_vote(view) }
}

fn proposal(view: u64, block: u8) -> ProposalVote {
    ProposalVote { view: View::new(view), block_hash: B256::repeat_byte(block) }
}

fn qc_of(vote: PrepareVote, indices: &[u32]) -> Witness {
    (&qc_by(&four(), &domain(), vote, indices)).into()
}

fn commit_qc_of(vote: CommitVote, indices: &[u32]) -> Witness {
    (&commit_qc_by(&four(), &domain(), vote, indices)).into()
}

fn tc_of(votes: &[(TimeoutVote, &[u32])]) -> Witness {
    (&tc_by(&four(), &domain(), votes, None)).into()
}

/// Name, witnesses, the offence and who is guilty: every pair of C-8.1, from votes, certificates and both.
fn guilty() -> Vec<(&'static str, Witness, Witness, Offence, Vec<u32>)> {
    use Witness::{Commit, Prepare, Proposal, Timeout};
    let (low, high) = (timeout_vote(7, 4, 4, EXPIRED), timeout_vote(7, 5, 5, EXPIRED));
    vec![
        (
            "E1: two prepares, other block",
            Prepare(signed(prepare_vote(4, 5), 3)),
            Prepare(signed(other_link(4, 5), 3)),
            Offence::DoublePrepare,
            vec![3],
        ),
        (
            "E1: two prepares, other source",
            Prepare(signed(prepare_vote(3, 5), 0)),
            Prepare(signed(prepare_vote(4, 5), 0)),
            Offence::DoublePrepare,
            vec![0],
        ),
        (
            "E1: two certificates",
            qc_of(prepare_vote(4, 5), &[0, 1, 2]),
            qc_of(other_link(4, 5), &[1, 2, 3]),
            Offence::DoublePrepare,
            vec![1, 2],
        ),
        (
            "E1: a vote and a certificate",
            Prepare(signed(other_link(4, 5), 2)),
            qc_of(prepare_vote(4, 5), &[0, 1, 2]),
            Offence::DoublePrepare,
            vec![2],
        ),
        (
            "E1c: two commits",
            Commit(signed(commit_vote(5), 1)),
            Commit(signed(other_commit(5), 1)),
            Offence::DoubleCommit,
            vec![1],
        ),
        (
            "E1c: two certificates",
            commit_qc_of(commit_vote(5), &[0, 1, 3]),
            commit_qc_of(other_commit(5), &[0, 2, 3]),
            Offence::DoubleCommit,
            vec![0, 3],
        ),
        (
            "Ep: two proposals",
            Proposal(signed(proposal(6, 1), 2)),
            Proposal(signed(proposal(6, 2), 2)),
            Offence::DoubleProposal,
            vec![2],
        ),
        (
            "E2: a commit and a link across it",
            Commit(signed(commit_vote(5), 2)),
            Prepare(signed(prepare_vote(4, 6), 2)),
            Offence::Crossing,
            vec![2],
        ),
        (
            "E2: both certificates of a header",
            commit_qc_of(commit_vote(5), &[0, 1, 2]),
            qc_of(prepare_vote(4, 9), &[0, 2, 3]),
            Offence::Crossing,
            vec![0, 2],
        ),
        (
            "E3: one link inside another",
            Prepare(signed(prepare_vote(1, 9), 0)),
            Prepare(signed(prepare_vote(3, 7), 0)),
            Offence::Surround,
            vec![0],
        ),
        (
            "E4: a commit and a later timeout below it",
            Commit(signed(commit_vote(5), 3)),
            Timeout(signed(low, 3)),
            Offence::Amnesia,
            vec![3],
        ),
        (
            "E4: a commit certificate and a timeout certificate",
            commit_qc_of(commit_vote(5), &[0, 1, 2]),
            tc_of(&[(low, &[0, 3]), (high, &[1, 2])]),
            Offence::Amnesia,
            vec![0],
        ),
    ]
}

fn indices(of: &[u32]) -> Vec<ValidatorIndex> {
    of.iter().copied().map(ValidatorIndex::new).collect()
}

fn evidence(a: &Witness, b: &Witness) -> Evidence {
    Evidence::new(Epoch::ZERO, a.clone(), b.clone()).unwrap()
}

#[test]
fn every_slashable_pair_is_evidence_of_exactly_its_offenders_in_either_order() {
    for (name, a, b, offence, offenders) in guilty() {
        let made = evidence(&a, &b);
        assert_eq!(made, evidence(&b, &a), "{name}");
        let accusation = made.accusation().unwrap();
        assert_eq!((accusation.offence, &accusation.offenders), (offence, &indices(&offenders)), "{name}");
        assert_eq!(made.verify(&four(), &domain()), Ok(indices(&offenders)), "{name}");
        assert_eq!(Evidence::decode(&encode(&made)), Ok(made), "{name}");
    }
}

#[test]
fn one_offence_of_one_validator_has_one_id_whatever_proves_it() {
    let three = ValidatorIndex::new(2);
    let by_votes = evidence(
        &Witness::Prepare(signed(prepare_vote(4, 5), 2)),
        &Witness::Prepare(signed(other_link(4, 5), 2)),
    );
    let by_certificates =
        evidence(&qc_of(other_link(4, 5), &[1, 2, 3]), &qc_of(prepare_vote(4, 5), &[0, 1, 2]));
    assert_eq!(by_votes.id(three), by_certificates.id(three));
    assert_ne!(by_certificates.id(three), by_certificates.id(ValidatorIndex::new(1)));
    let mut ids: Vec<_> = guilty()
        .iter()
        .map(|(_, a, b, _, offenders)| evidence(a, b).id(ValidatorIndex::new(offenders[0])).unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    // Validator 0 commits view 5 twice and crosses it, and so on: only equal offences share an id.
    assert_eq!(ids.len(), guilty().len());
}

#[test]
fn witnesses_in_the_other_order_are_refused() {
    for (name, a, b, ..) in guilty() {
        let made = evidence(&a, &b);
        let (first, second) = made.witnesses();
        let swapped = [&encode(&made)[..9], &encode(second), &encode(first)].concat();
        assert_eq!(Evidence::decode(&swapped), Err(EvidenceError::NotCanonical), "{name}");
        let raw: Evidence = types::decode(&swapped).unwrap();
        assert_eq!(raw.verify(&four(), &domain()), Err(EvidenceError::NotCanonical), "{name}");
    }
}

#[test]
fn no_bit_of_evidence_can_be_changed() {
    for (name, a, b, ..) in guilty() {
        let bytes = encode(&evidence(&a, &b));
        // Signatures cost a pairing each: of their bits, some; of everything else, all.
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let Ok(read) = Evidence::decode(&bent) else { continue };
            let in_signature = read.epoch() == Epoch::ZERO
                && read.accusation() == evidence(&a, &b).accusation()
                && bit % 37 != 0;
            if !in_signature {
                assert!(read.verify(&four(), &domain()).is_err(), "{name}: bit {bit}");
            }
        }
    }
}

#[test]
fn evidence_is_valid_for_its_chain_and_epoch_only() {
    for (name, a, b, _, offenders) in guilty() {
        let made = evidence(&a, &b);
        let refused =
            |domain: Domain| assert_eq!(made.verify(&four(), &domain), Err(EvidenceError::BadSignature));
        refused(Domain { chain_id: 1, ..domain() });
        refused(Domain { genesis_hash: B256::ZERO, ..domain() });
        // The epoch is the evidence's own.
        let verdict = made.verify(&four(), &Domain { epoch: 7, ..domain() });
        assert_eq!(verdict, Ok(indices(&offenders)), "{name}");
        let later = set_of(1, &[1, 1, 1, 1]);
        let expected = EvidenceError::WrongEpoch { found: Epoch::ZERO, expected: Epoch::new(1) };
        assert_eq!(made.verify(&later, &domain()), Err(expected));
        let moved = Evidence::new(Epoch::new(1), a, b).unwrap();
        assert_eq!(moved.verify(&later, &domain()), Err(EvidenceError::BadSignature), "{name}");
    }
}

/// Name, bytes and the error of what must be refused.
fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let link = |vote, index| Witness::Prepare(signed(vote, index));
    let good = evidence(&link(prepare_vote(4, 5), 3), &link(other_link(4, 5), 3));
    let raw = |first: &Witness, second: &Witness| {
        [vec![1], Epoch::ZERO.get().to_le_bytes().to_vec(), encode(first), encode(second)].concat()
    };
    let joint = |vote: PrepareVote, indices: &[u32]| qc_of(vote, indices);
    let version_2 = [&[2], &encode(&good)[1..]].concat();
    let mut wide = qc_by(&four(), &domain(), other_link(4, 5), &[1, 2, 3]);
    wide.signers = raw_bitmap(&[0b1110, 0]);
    let mut empty_groups = tc();
    empty_groups.groups.clear();
    let mut overlapping = tc_by(
        &four(),
        &domain(),
        &[(timeout_vote(7, 3, 4, EXPIRED), &[0, 1]), (timeout_vote(7, 4, 4, EXPIRED), &[1, 2])],
        None,
    );
    overlapping.high_qc = None;
    let committed = Witness::Commit(signed(commit_vote(5), 0));
    let stranger =
        |vote| Witness::Prepare(types::vote::Signed { signer: ValidatorIndex::new(9), ..signed(vote, 3) });
    vec![
        ("nothing", Vec::new(), "Malformed"),
        ("version 2", version_2, "Malformed"),
        ("one byte more", [encode(&good), vec![0]].concat(), "Malformed"),
        ("one byte less", encode(&good)[..encode(&good).len() - 1].to_vec(), "Malformed"),
        ("too long", vec![1; limits::EVIDENCE_BYTES_MAX + 1], "TooLong"),
        (
            "one statement twice",
            raw(&link(prepare_vote(4, 5), 3), &link(prepare_vote(4, 5), 3)),
            "NotCanonical",
        ),
        ("the other order", raw(good.witnesses().1, good.witnesses().0), "NotCanonical"),
        ("two validators", raw(&link(prepare_vote(4, 5), 2), &link(other_link(4, 5), 3)), "NoOffence"),
        (
            "certificates without a common signer",
            raw(&joint(prepare_vote(4, 5), &[0, 1]), &joint(other_link(4, 5), &[2, 3])),
            "NoOffence",
        ),
        ("honest links", raw(&link(prepare_vote(4, 5), 3), &link(prepare_vote(5, 6), 3)), "NoOffence"),
        ("a timeout certificate without groups", raw(&committed, &(&empty_groups).into()), "NoOffence"),
        ("overlapping groups", raw(&committed, &(&overlapping).into()), "Certificate"),
        (
            "a bitmap of two bytes",
            raw(&joint(prepare_vote(4, 5), &[0, 1, 2]), &(&wide).into()),
            "Certificate",
        ),
        (
            "a signer outside the set",
            raw(&stranger(prepare_vote(4, 5)), &stranger(other_link(4, 5))),
            "UnknownValidator",
        ),
        (
            "a forged vote",
            {
                let mut forged = signed(other_link(4, 5), 3);
                forged.signature = signed(prepare_vote(4, 5), 3).signature;
                raw(&link(prepare_vote(4, 5), 3), &Witness::Prepare(forged))
            },
            "BadSignature",
        ),
        (
            "a certificate that claims a fourth signer",
            {
                let mut qc = qc_by(&four(), &domain(), other_link(4, 5), &[1, 2]);
                qc.signers = signers(4, &[1, 2, 3]);
                raw(&link(prepare_vote(4, 5), 3), &(&qc).into())
            },
            "BadSignature",
        ),
        (
            "prepares in place of commits",
            {
                let votes = CommitVote { view: View::new(5), height: Height::new(5), block_hash: B256::ZERO };
                let prepares = sign(&prepare_vote(4, 5), &domain(), &[0, 1, 2]);
                let bogus = Witness::Commits(Joint {
                    statement: votes,
                    signers: signers(4, &[0, 1, 2]),
                    signature: prepares,
                });
                let timeout = Witness::Timeout(signed(timeout_vote(7, 4, 4, EXPIRED), 0));
                raw(&bogus, &timeout)
            },
            "BadSignature",
        ),
    ]
}

fn error_of(bytes: &[u8]) -> String {
    let verdict = Evidence::decode(bytes).and_then(|evidence| evidence.verify(&four(), &domain()));
    let error = format!("{:?}", verdict.unwrap_err());
    error.split([' ', '(']).next().unwrap().to_owned()
}

#[test]
fn what_proves_nothing_is_refused_with_its_reason() {
    for (name, bytes, error) in refused() {
        assert_eq!(error_of(&bytes), error, "{name}");
    }
}

#[test]
fn a_timeout_certificate_in_more_groups_than_fit_is_no_evidence() {
    let group = |i: u64| types::TimeoutGroup {
        high_qc_view: View::new(i),
        last_prepared_view: View::new(i),
        reason: rejected(),
        signers: raw_bitmap(&[0xff; 128]),
    };
    let timeouts = JointTimeouts {
        view: View::new(1000),
        groups: (0..200).map(group).collect(),
        signature: types::Signature::ZERO,
    };
    let made =
        Evidence::new(Epoch::ZERO, Witness::Commit(signed(commit_vote(5), 0)), Witness::Timeouts(timeouts));
    assert!(matches!(made, Err(EvidenceError::TooLong { .. })), "{made:?}");
}

// The second writer.

fn signed_layout(layout: Layout, signer: u32, signature: impl AsRef<[u8]>) -> Layout {
    Layout::new().nested("statement", layout).u32("signer", signer).raw("signature", signature)
}

fn joint_layout(layout: Layout, signers: &types::SignerSet, signature: impl AsRef<[u8]>) -> Layout {
    Layout::new()
        .nested("statement", layout)
        .string("signers", &bitmap(4, signers))
        .raw("signature", signature)
}

fn witness_layout(witness: &Witness) -> Layout {
    let (kind, name, inner) = match witness {
        Witness::Proposal(s) => {
            let vote =
                Layout::new().u64("view", s.statement.view.get()).raw("block_hash", s.statement.block_hash);
            (0, "proposal", signed_layout(vote, s.signer.get(), s.signature.0))
        }
        Witness::Commit(s) => {
            (1, "commit", signed_layout(commit_layout(&s.statement), s.signer.get(), s.signature.0))
        }
        Witness::Prepare(s) => {
            (2, "prepare", signed_layout(prepare_layout(&s.statement), s.signer.get(), s.signature.0))
        }
        Witness::Timeout(s) => {
            (3, "timeout", signed_layout(timeout_layout(&s.statement), s.signer.get(), s.signature.0))
        }
        Witness::Commits(j) => {
            (4, "commits", joint_layout(commit_layout(&j.statement), &j.signers, j.signature.0))
        }
        Witness::Prepares(j) => {
            (5, "prepares", joint_layout(prepare_layout(&j.statement), &j.signers, j.signature.0))
        }
        Witness::Timeouts(j) => {
            let group = |group: &types::TimeoutGroup| {
                Layout::new()
                    .u64("high_qc_view", group.high_qc_view.get())
                    .u64("last_prepared_view", group.last_prepared_view.get())
                    .nested("reason", reason_layout(&group.reason))
                    .string("signers", &bitmap(4, &group.signers))
            };
            let inner = Layout::new().u64("view", j.view.get()).list("groups", &j.groups, group);
            (6, "timeouts", inner.raw("signature", j.signature.0))
        }
    };
    Layout::new().u8("tag", kind).nested(name, inner)
}

fn evidence_layout(evidence: &Evidence) -> Layout {
    let (first, second) = evidence.witnesses();
    Layout::new()
        .u8("version", 1)
        .u64("epoch", evidence.epoch().get())
        .nested("first", witness_layout(first))
        .nested("second", witness_layout(second))
}

fn id_layout(evidence: &Evidence, offender: ValidatorIndex) -> Layout {
    let accusation = evidence.accusation().unwrap();
    let number = match accusation.offence {
        Offence::DoublePrepare => 1,
        Offence::DoubleCommit => 2,
        Offence::DoubleProposal => 3,
        Offence::Crossing => 4,
        Offence::Surround => 5,
        Offence::Amnesia => 6,
    };
    Layout::new()
        .u64("epoch", evidence.epoch().get())
        .u32("offender", offender.get())
        .u8("offence", number)
        .u64("first_view", accusation.views.0.get())
        .u64("second_view", accusation.views.1.get())
}

fn vectors() -> Vec<Value> {
    let each = |(name, a, b, offence, offenders): (&str, Witness, Witness, Offence, Vec<u32>)| {
        let made = evidence(&a, &b);
        let layout = evidence_layout(&made);
        assert_eq!(hex(encode(&made)), hex(layout.bytes()), "{name}");
        let ids: Vec<_> = indices(&offenders)
            .into_iter()
            .map(|offender| {
                let id = derive("tandem v1 evidence", &id_layout(&made, offender).bytes());
                assert_eq!(made.id(offender), Ok(id), "{name}");
                id
            })
            .collect();
        json!({
            "name": name, "offence": offence.name(), "offenders": offenders, "ids": ids, "layout": layout.lines(),
        })
    };
    guilty().into_iter().map(each).collect()
}

#[test]
fn evidence_vectors() {
    let refused: Vec<_> = refused()
        .into_iter()
        .filter(|(name, ..)| *name != "too long")
        .map(|(name, bytes, error)| json!({ "name": name, "bytes": hex(bytes), "error": error }))
        .collect();
    let made = json!({
        "about": "specs/block.md, B-9. Fixtures as in consensus.json: four validators with stake 1 each in epoch 0; \
                  a layout lists the fields in order with their bytes.",
        "evidence": vectors(),
        "refused": refused,
        "limits": {
            "EVIDENCE_BYTES_MAX": limits::EVIDENCE_BYTES_MAX,
            "EVIDENCE_BLOCK_BYTES_MAX": limits::EVIDENCE_BLOCK_BYTES_MAX,
            "EVIDENCE_PER_BLOCK_MAX": limits::EVIDENCE_PER_BLOCK_MAX,
        },
    });
    let text = format!("{}\n", serde_json::to_string_pretty(&made).unwrap());
    let path = "../../specs/vectors/evidence.json";
    if std::env::var("BLESS").is_ok_and(|v| v == "1") {
        return std::fs::write(path, text).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(stored, text, "{path} differs: a frozen format changed (BLESS=1 rewrites it)");
}

// The rules against their definition.

/// Statements in few views, so that most pairs are close to a rule.
fn claim() -> impl Strategy<Value = Claim> {
    let view = || 0u64..7;
    let block = || 0u8..2;
    prop_oneof![
        (view(), block()).prop_map(|(v, b)| Claim::Proposal(proposal(v, b))),
        (view(), block()).prop_map(|(v, b)| Claim::Commit(CommitVote {
            block_hash: B256::repeat_byte(b),
            ..commit_vote(v)
        })),
        (view(), view(), block()).prop_map(|(s, t, b)| Claim::Prepare(PrepareVote {
            block_hash: B256::repeat_byte(b),
            ..prepare_vote(s, s + 1 + t)
        })),
        (view(), view()).prop_map(|(v, h)| Claim::Timeout(timeout_vote(v, h.min(v), h.min(v), EXPIRED))),
    ]
}

/// C-8.1, written again with plain numbers.
fn table(a: &Claim, b: &Claim) -> Option<Offence> {
    let ordered = |a: &Claim, b: &Claim| match (a, b) {
        (Claim::Proposal(x), Claim::Proposal(y)) if x.view == y.view && x.block_hash != y.block_hash => {
            Some(Offence::DoubleProposal)
        }
        (Claim::Commit(x), Claim::Commit(y)) if x.view == y.view && x != y => Some(Offence::DoubleCommit),
        (Claim::Prepare(x), Claim::Prepare(y)) if x.target_view == y.target_view && x != y => {
            Some(Offence::DoublePrepare)
        }
        (Claim::Prepare(x), Claim::Prepare(y)) => {
            let (s1, t1, s2, t2) = (x.source_view, x.target_view, y.source_view, y.target_view);
            (s1 < s2 && s2 < t2 && t2 < t1).then_some(Offence::Surround)
        }
        (Claim::Commit(x), Claim::Prepare(y)) => {
            (y.source_view < x.view && x.view < y.target_view).then_some(Offence::Crossing)
        }
        (Claim::Commit(x), Claim::Timeout(y)) => {
            (y.high_qc_view < x.view && x.view <= y.view).then_some(Offence::Amnesia)
        }
        _ => None,
    };
    ordered(a, b).or(ordered(b, a))
}

proptest! {
    #[test]
    fn the_rules_are_the_table_and_do_not_know_an_order(a in claim(), b in claim()) {
        prop_assert_eq!(a.offence(&b), table(&a, &b));
        prop_assert_eq!(a.offence(&b), b.offence(&a));
        prop_assert_eq!(a.offence(&a), None);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let verdict = Evidence::decode(&bytes).and_then(|evidence| evidence.verify(&four(), &domain()));
        prop_assert!(verdict.is_err());
    }

    /// Kinds do not mix: a signature under one statement proves no other.
    #[test]
    fn a_statement_signed_as_another_kind_proves_nothing(s in 0u64..5, t in 6u64..9) {
        let (vote, commit) = (prepare_vote(s, t), commit_vote(5));
        let stolen = key(1).sign(&vote.signing_bytes(&domain()));
        let mut forged = signed(commit, 0);
        forged.signature = stolen;
        let made = evidence(&Witness::Commit(forged), &Witness::Prepare(signed(vote, 0)));
        prop_assert_eq!(made.verify(&four(), &domain()), Err(EvidenceError::BadSignature));
    }
}
