//! A key's history moves to another signer (C-7.6): whatever that one is asked, it contradicts nothing in the history.
#![allow(clippy::unwrap_used, missing_docs)]

use consensus::{Audit, Conflict, Floor, Refusal, Safety, Silence};
use crypto::SecretKey;
use proptest::prelude::*;
use types::{
    B256, Domain, Epoch, Height, PrepareVote, Qc, Signature, SignerSet, Tc, TimeoutGroup, TimeoutReason,
    ValidatorIndex, View,
};

const ME: ValidatorIndex = ValidatorIndex::new(0);
const DOMAIN: Domain = Domain { chain_id: 7, genesis_hash: B256::repeat_byte(0x11), epoch: 3 };

fn signer() -> Safety {
    Safety::new(Some((ME, SecretKey::simulated(0))), DOMAIN, None)
}

fn link(source: u64, target: u64, fork: u8) -> PrepareVote {
    PrepareVote {
        source_view: View::new(source),
        source_hash: block(source, 0),
        target_view: View::new(target),
        height: Height::new(target),
        block_hash: block(target, fork),
    }
}

fn block(view: u64, fork: u8) -> B256 {
    let mut hash = [fork; 32];
    hash[..8].copy_from_slice(&view.to_le_bytes());
    B256::new(hash)
}

/// The signer takes certificates as verified.
fn qc(vote: PrepareVote) -> Qc {
    let signers = SignerSet::empty(4);
    Qc { epoch: Epoch::new(3), vote, signers, signature: Signature::ZERO }
}

fn tc(view: u64) -> Tc {
    let group = TimeoutGroup {
        high_qc_view: View::ZERO,
        last_prepared_view: View::ZERO,
        reason: TimeoutReason::Expired,
        signers: SignerSet::empty(4),
    };
    let (epoch, groups) = (Epoch::new(3), vec![group]);
    Tc { epoch, view: View::new(view), groups, signature: Signature::ZERO, high_qc: None }
}

/// What a signer may be asked.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Propose(u64, u8),
    Prepare { source: u64, skip: u64, fork: u8 },
    Commit { source: u64, skip: u64 },
    Timeout(u64),
    Learn(u64),
}

fn ask() -> impl Strategy<Value = Ask> {
    let view = || 1u64..14;
    prop_oneof![
        (view(), 0u8..2).prop_map(|(view, fork)| Ask::Propose(view, fork)),
        (0u64..12, 1u64..4, 0u8..2).prop_map(|(source, skip, fork)| Ask::Prepare { source, skip, fork }),
        (0u64..12, 1u64..4).prop_map(|(source, skip)| Ask::Commit { source, skip }),
        view().prop_map(Ask::Timeout),
        view().prop_map(Ask::Learn),
    ]
}

/// Asks; what is signed goes to the audit.
fn answer(signer: &mut Safety, audit: &mut Audit, ask: Ask) -> Result<(), Conflict> {
    let epoch = Epoch::new(3);
    match ask {
        Ask::Propose(view, fork) => {
            let signed = signer.propose(View::new(view), block(view, fork));
            signed.map_or(Ok(()), |signed| audit.proposal(epoch, ME, signed.statement))
        }
        Ask::Prepare { source, skip, fork } => {
            let (link, source_qc) = (link(source, source + skip, fork), qc(link(0, source, 0)));
            let (source_qc, tc) = ((source > 0).then_some(&source_qc), tc(source + skip - 1));
            let signed = signer.prepare(View::new(source + skip), link, source_qc, Some(&tc));
            signed.map_or(Ok(()), |signed| audit.prepare(epoch, ME, signed.statement))
        }
        Ask::Commit { source, skip } => {
            let signed = signer.commit(&qc(link(source, source + skip, 0)));
            signed.map_or(Ok(()), |signed| audit.commit(epoch, ME, signed.statement))
        }
        Ask::Timeout(view) => {
            let signed = signer.timeout(View::new(view), TimeoutReason::Expired);
            signed.map_or(Ok(()), |timeout| audit.timeout(epoch, ME, timeout.signed.statement))
        }
        Ask::Learn(view) => {
            signer.learn(&qc(link(view - 1, view, 0)));
            Ok(())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn after_an_import_nothing_signed_contradicts_the_exported_history(
        before in prop::collection::vec(ask(), 1..30),
        after in prop::collection::vec(ask(), 1..30),
    ) {
        let (mut old, mut audit) = (signer(), Audit::default());
        for ask in before {
            let audited = answer(&mut old, &mut audit, ask);
            prop_assert!(audited.is_ok(), "the old signer alone: {audited:?}");
        }
        let mut new = signer().restrained(Floor::of(old.state()), None);
        for ask in after {
            let audited = answer(&mut new, &mut audit, ask);
            prop_assert!(audited.is_ok(), "{:?} over {:?}: {audited:?}", ask, new.floor());
        }
    }

    #[test]
    fn raising_takes_the_maximum_in_any_order_and_any_number_of_times(
        floors in prop::collection::vec((0u64..3, prop::array::uniform6(0u64..4)), 1..8),
    ) {
        let floors: Vec<Floor> = floors.into_iter().map(|(epoch, views)| {
            let [source, target, commit, timeout, proposal, lock] = views.map(View::new);
            Floor { epoch: Epoch::new(epoch), source, target, commit, timeout, proposal, lock }
        }).collect();
        let all = |floors: &mut dyn Iterator<Item = &Floor>| {
            let mut sum = Floor::default();
            for floor in floors {
                sum.raise(floor);
            }
            sum
        };
        let sum = all(&mut floors.iter());
        prop_assert_eq!(sum, all(&mut floors.iter().rev()));
        let mut again = sum;
        prop_assert!(floors.iter().all(|floor| !again.raise(floor)), "nothing is above the sum");
        let latest = floors.iter().map(|floor| floor.epoch).max().unwrap();
        prop_assert_eq!(sum.epoch, latest);
        let top = floors.iter().filter(|floor| floor.epoch == latest).map(|floor| floor.target).max();
        prop_assert_eq!(Some(sum.target), top);
    }
}

/// The property above would also hold of a signer that signs nothing.
#[test]
fn after_an_import_the_signer_goes_on_above_it() {
    let floor = Floor {
        epoch: Epoch::new(3),
        source: View::new(4),
        target: View::new(5),
        commit: View::new(4),
        timeout: View::new(2),
        proposal: View::new(3),
        lock: View::new(4),
    };
    let mut signer = signer().restrained(floor, None);
    let source = qc(link(4, 5, 0));
    assert!(matches!(
        signer.propose(View::new(3), block(3, 0)),
        Err(Refusal::BelowFloor { what: "proposal", .. })
    ));
    signer.learn(&source);
    signer.commit(&source).unwrap();
    signer.propose(View::new(6), block(6, 0)).unwrap();
    signer.prepare(View::new(6), link(5, 6, 0), Some(&source), None).unwrap();
    signer.timeout(View::new(6), TimeoutReason::Expired).unwrap();
}

#[test]
fn a_floor_of_an_earlier_epoch_is_no_bound_and_one_of_a_later_epoch_forbids_everything() {
    let views = View::new(100);
    let at = |epoch| Floor {
        epoch: Epoch::new(epoch),
        source: views,
        target: views,
        commit: views,
        timeout: views,
        proposal: views,
        lock: views,
    };
    let mut past = signer().restrained(at(2), None);
    past.propose(View::new(1), block(1, 0)).unwrap();
    past.prepare(View::new(1), link(0, 1, 0), None, None).unwrap();
    past.timeout(View::new(1), TimeoutReason::Expired).unwrap();
    let mut coming = signer().restrained(at(4), None);
    let asked = View::new(1000);
    let refused = coming.propose(asked, block(1000, 0)).unwrap_err();
    let expected = Refusal::BelowFloor {
        what: "proposal",
        epoch: Epoch::new(3),
        asked,
        floor_epoch: Epoch::new(4),
        floor: views,
    };
    assert_eq!(refused, expected);
    assert!(
        refused.to_string().contains("view 1000 in epoch 3")
            && refused.to_string().contains("view 100 of epoch 4")
    );
    assert!(coming.prepare(asked, link(999, 1000, 0), Some(&qc(link(998, 999, 0))), None).is_err());
    assert!(coming.commit(&qc(link(999, 1000, 0))).is_err());
    assert!(coming.timeout(asked, TimeoutReason::Expired).is_err());
}

#[test]
fn a_silent_signer_makes_no_signature_of_any_kind() {
    for reason in [Silence::Alarm, Silence::Copied, Silence::Waiting] {
        let mut signer = signer();
        signer.silence_for(Some(reason));
        let refused = Err(Refusal::Silent(reason));
        assert_eq!(signer.propose(View::new(1), block(1, 0)).map(drop), refused);
        assert_eq!(signer.prepare(View::new(1), link(0, 1, 0), None, None).map(drop), refused);
        assert_eq!(signer.commit(&qc(link(0, 1, 0))).map(drop), refused);
        assert_eq!(signer.timeout(View::new(1), TimeoutReason::Expired).map(drop), refused);
        assert_eq!(signer.reveal(View::new(1)).map(drop), refused);
        let state = signer.state().clone();
        assert_eq!(
            Floor::of(&state),
            Floor { epoch: Epoch::new(3), ..Floor::default() },
            "nothing is noted either"
        );
        signer.silence_for(None);
        signer.propose(View::new(1), block(1, 0)).unwrap();
    }
}
