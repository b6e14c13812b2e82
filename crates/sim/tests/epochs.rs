//! The end of an epoch, seen by one replica (C-8.3).
#![allow(clippy::unwrap_used)]

mod lab;

use consensus::{Event, Outbound};
use lab::{Lab, ME, OTHERS, index, key, view};
use types::message::Reproposal;
use types::vote::Signed;
use types::{
    Block, ConsensusMessage, Domain, Epoch, EpochSchedule, PrepareVote, Proposal, ProposalVote, Qc, Tc,
};

/// A light validator in epochs of four heights, which has seen and certified all four; the last of them.
fn at_the_boundary() -> (Lab, Block, Qc) {
    let (lab, chain) = Lab::at_the_boundary();
    let (boundary, qc) = chain[3].clone();
    (lab, boundary, qc)
}

/// The boundary proposed again by the proposer of a view.
fn again(lab: &Lab, number: u64, block: &Block, source: &Qc, timeout: Option<Tc>) -> ConsensusMessage {
    let block_hash = block.header.hash();
    let signed = lab.sign(lab.proposer(number), ProposalVote { view: view(number), block_hash });
    let again = Some(Reproposal { source: source.clone(), timeout });
    ConsensusMessage::Proposal(Epoch::ZERO, Box::new(Proposal { signed, block: block.clone(), again }))
}

fn link_again(number: u64, block: &Block, source: &Qc) -> PrepareVote {
    PrepareVote {
        source_view: source.view(),
        source_hash: source.vote.block_hash,
        target_view: view(number),
        height: block.header.height,
        block_hash: block.header.hash(),
    }
}

#[test]
fn a_boundary_proposed_again_is_prepared_with_its_own_certificate_as_source() {
    let (mut lab, boundary, qc) = at_the_boundary();
    let message = again(&lab, 5, &boundary, &qc, None);
    lab.receive(lab.proposer(5), message);
    assert_eq!(lab.prepared().last(), Some(&link_again(5, &boundary, &qc)));
    assert_eq!(lab.accused(), [0usize; 0]);
}

#[test]
fn a_boundary_proposed_again_after_a_failed_view_needs_its_timeout_certificate() {
    for justified in [true, false] {
        let (mut lab, boundary, qc) = at_the_boundary();
        let tc = lab.tc(5, &OTHERS, Some(&qc), 4);
        lab.receive(0, ConsensusMessage::Tc(tc.clone()));
        assert_eq!(lab.me().view(), view(6));
        let leader = lab.proposer(6);
        let message = again(&lab, 6, &boundary, &qc, justified.then_some(tc));
        lab.receive(leader, message);
        let prepared = lab.prepared().contains(&link_again(6, &boundary, &qc));
        assert_eq!((prepared, lab.accused().is_empty()), (justified, justified));
    }
}

#[test]
fn a_boundary_proposed_again_is_not_held_to_clocks_that_were_set_back_since_it_was_certified() {
    let mut lab = Lab::new();
    lab.settings.epochs = EpochSchedule::new(1);
    lab.disk = sim::disk::SimDisk::default();
    lab.start().unwrap();
    let hours_ahead = lab.now.wall_ms + 5 * 3_600_000;
    let boundary = lab.block_at(1, None, None, b"stamped by a clock that was ahead", hours_ahead);
    lab.propose(&boundary);
    assert!(lab.prepared().is_empty(), "its first proposal waits for the clock");
    let qc = lab.qc(&boundary, &OTHERS);
    lab.receive(0, ConsensusMessage::Qc(qc.clone()));
    let message = again(&lab, 2, &boundary, &qc, None);
    lab.receive(lab.proposer(2), message);
    assert_eq!(lab.prepared(), [link_again(2, &boundary, &qc)]);
}

#[test]
fn only_a_boundary_is_proposed_again_and_only_with_an_earlier_certificate_of_its_own() {
    type Change = fn(&Lab, &Block, &Qc) -> (Block, Qc);
    let changes: [(&str, Change); 3] = [
        ("another block's certificate", |_, boundary, _| {
            let parent = match &boundary.header.justify {
                types::Justify::Prepare(qc) => qc.clone(),
                _ => unreachable!("the fourth block has a certified parent"),
            };
            (boundary.clone(), parent)
        }),
        ("a forged certificate", |_, boundary, qc| {
            let mut forged = qc.clone();
            forged.signers = types::SignerSet::of(4, [index(0), index(1)]);
            (boundary.clone(), forged)
        }),
        ("a certificate of too little stake", |lab, boundary, _| {
            (boundary.clone(), lab.qc(boundary, &[0, ME]))
        }),
    ];
    for (what, change) in changes {
        let (mut lab, boundary, qc) = at_the_boundary();
        let (block, source) = change(&lab, &boundary, &qc);
        let before = lab.prepared().len();
        let (leader, message) = (lab.proposer(5), again(&lab, 5, &block, &source, None));
        lab.receive(leader, message);
        assert_eq!(lab.prepared().len(), before, "{what}");
        assert_eq!(lab.accused(), [leader], "{what}");
    }
}

#[test]
fn nothing_is_built_on_a_boundary_in_its_epoch() {
    let (mut lab, _, qc) = at_the_boundary();
    let child = lab.block(5, Some(&qc), None, b"too early");
    let before = lab.prepared().len();
    lab.propose(&child);
    assert_eq!(lab.prepared().len(), before);
    assert_eq!(lab.accused(), [lab.proposer(5)]);
}

#[test]
fn the_epoch_changes_when_the_boundary_is_final_whatever_the_view_is() {
    let (mut lab, boundary, _) = at_the_boundary();
    let again_in_9 = lab.commit_qc(&boundary, &OTHERS);
    lab.receive(1, ConsensusMessage::CommitQc(again_in_9));
    assert_eq!((lab.height(), lab.me().epoch(), lab.me().view()), (4, Epoch::new(1), view(1)));
    let entered =
        lab.events().filter(|event| matches!(event, Event::Epoch { epoch, .. } if epoch.get() == 1));
    assert_eq!(entered.count(), 1);
    // And again after a restart, from what the disk holds.
    lab.start().unwrap();
    assert_eq!((lab.me().epoch(), lab.me().view()), (Epoch::new(1), view(1)));
    assert_eq!(lab.me().next_validators().epoch(), Epoch::new(2));
}

#[test]
fn votes_of_the_next_epoch_that_come_early_count_when_it_begins() {
    let (mut lab, boundary, _) = at_the_boundary();
    let domain = Domain { epoch: 1, ..lab.domain };
    let timeout = |by: usize| {
        let statement = types::TimeoutVote {
            view: view(1),
            high_qc_view: view(0),
            last_prepared_view: view(0),
            reason: types::TimeoutReason::Expired,
        };
        let signed = Signed::new(statement, index(by), &key(by), &domain);
        ConsensusMessage::Timeout(Epoch::new(1), types::Timeout { signed, high_qc: None })
    };
    for by in OTHERS {
        lab.receive(by, timeout(by));
    }
    assert_eq!(lab.me().epoch(), Epoch::ZERO);
    let commit = lab.commit_qc(&boundary, &OTHERS);
    lab.receive(1, ConsensusMessage::CommitQc(commit));
    assert_eq!((lab.me().epoch(), lab.me().view()), (Epoch::new(1), view(2)), "three of four gave view 1 up");
}

#[test]
fn whoever_is_stuck_in_the_epoch_before_is_sent_the_boundarys_certificate() {
    let (mut lab, boundary, qc) = at_the_boundary();
    let commit = lab.commit_qc(&boundary, &OTHERS);
    lab.receive(1, ConsensusMessage::CommitQc(commit.clone()));
    let late = lab.timeout(2, 5, Some(&qc));
    lab.receive(2, late);
    let answer = Outbound::Send(index(2), ConsensusMessage::CommitQc(commit));
    assert!(lab.sent.contains(&answer));
}
