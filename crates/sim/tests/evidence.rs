//! Evidence at one real replica (C-8.4): from a second signature to a final block, also across a restart.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use consensus::{Event, Outbound};
use lab::{Lab, ME, OTHERS, index, view};
use types::limits::EVIDENCE_PER_BLOCK_MAX;
use types::vote::Signed;
use types::{
    B256, Block, ConsensusMessage, Epoch, Evidence, Proposal, ProposalVote, RejectionCode, Signature,
    TimeoutReason, Witness, encode,
};

const LIAR: usize = 1;

/// A second signature that nobody honest makes, of a validator in a view.
fn double(lab: &Lab, by: usize, at: u64) -> Evidence {
    let vote = |block: u8| ProposalVote { view: view(at), block_hash: B256::repeat_byte(block) };
    let [a, b] = [1, 2].map(|block| Witness::Proposal(lab.sign(by, vote(block))));
    Evidence::new(Epoch::ZERO, a, b).unwrap()
}

fn told(lab: &Lab) -> Vec<Evidence> {
    let evidence = |outbound: &Outbound| match outbound {
        Outbound::Broadcast(ConsensusMessage::Evidence(_, evidence)) => Some((**evidence).clone()),
        _ => None,
    };
    lab.sent.iter().filter_map(evidence).collect()
}

fn blamed(lab: &Lab) -> Vec<u32> {
    let who = |outbound: &Outbound| match outbound {
        Outbound::Event(Event::Misbehaviour { validator, .. }) => Some(validator.get()),
        _ => None,
    };
    lab.sent.iter().filter_map(who).collect()
}

/// The same block with evidence in its system inputs, signed by its proposer.
fn with_evidence(lab: &Lab, mut block: Block, evidence: Vec<Vec<u8>>) -> Proposal {
    block.system_inputs.evidence = evidence;
    block.header.system_inputs_hash = block.system_inputs.hash();
    let vote = ProposalVote { view: block.header.view, block_hash: block.header.hash() };
    let by = block.header.proposer.get() as usize;
    Proposal { signed: lab.sign(by, vote), block, again: None }
}

fn send(lab: &mut Lab, from: usize, evidence: &Evidence) {
    lab.receive(from, ConsensusMessage::Evidence(Epoch::ZERO, Box::new(evidence.clone())));
}

fn propose(lab: &mut Lab, proposal: &Proposal) {
    let by = proposal.signed.signer.get() as usize;
    lab.receive(by, ConsensusMessage::Proposal(Epoch::ZERO, Box::new(proposal.clone())));
}

/// What this node said about the first view's block: prepared, or given up with a reason.
fn verdict(lab: &Lab) -> Result<(), Option<RejectionCode>> {
    let state = lab.me().sign_state();
    if state.last_prepare.is_some() {
        return Ok(());
    }
    Err(match state.last_timeout.as_ref().map(|timeout| timeout.signed.statement.reason) {
        Some(TimeoutReason::Rejected { code, .. }) => Some(code),
        Some(TimeoutReason::Expired) | None => None,
    })
}

#[test]
fn a_second_proposal_becomes_evidence_that_is_told_and_kept_across_a_restart() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"one");
    let twin = lab.block(1, None, None, b"two");
    let by = lab.proposer(1);
    let [first, second] = [block, twin].map(|block| with_evidence(&lab, block, Vec::new()));
    propose(&mut lab, &first);
    assert!(told(&lab).is_empty());
    propose(&mut lab, &second);
    let evidence = told(&lab);
    assert_eq!(evidence.len(), 1);
    assert_eq!(evidence[0].verify(&lab.set, &lab.domain), Ok(vec![index(by)]));
    propose(&mut lab, &second);
    assert_eq!(told(&lab).len(), 1, "told once");
    lab.sent.clear();
    lab.start().unwrap();
    let pending: Vec<_> =
        lab.me().evidence_pending().iter().map(|pending| pending.evidence.clone()).collect();
    assert_eq!(pending, evidence);
    let retold = lab.sent.iter().filter(|outbound| {
        matches!(outbound, Outbound::Send(_, ConsensusMessage::Evidence(_, told)) if **told == evidence[0])
    });
    assert_eq!(retold.count(), OTHERS.len(), "told again to each peer that comes up");
}

#[test]
fn evidence_from_a_peer_is_passed_on_once_and_what_proves_nothing_is_blamed() {
    let mut lab = Lab::new();
    let good = double(&lab, LIAR, 5);
    send(&mut lab, 0, &good);
    send(&mut lab, 2, &good);
    assert_eq!(told(&lab), [good]);
    assert_eq!(blamed(&lab), Vec::<u32>::new());
    let vote = |block: u8| ProposalVote { view: view(6), block_hash: B256::repeat_byte(block) };
    let forged = Signed { signature: Signature::ZERO, ..lab.sign(0, vote(2)) };
    let real = Witness::Proposal(lab.sign(0, vote(1)));
    let bad = Evidence::new(Epoch::ZERO, real, Witness::Proposal(forged)).unwrap();
    send(&mut lab, 2, &bad);
    assert_eq!(blamed(&lab), [2]);
    assert_eq!(lab.me().evidence_pending().len(), 1);
}

#[test]
fn a_peer_that_sends_more_evidence_than_its_ration_is_not_heard() {
    let mut stakes = [1000; 30];
    stakes[29] = 1;
    let mut lab = Lab::of(&stakes, Some(29));
    for by in 0..20 {
        let evidence = double(&lab, by, 5);
        send(&mut lab, 25, &evidence);
    }
    assert_eq!(lab.me().evidence_pending().len(), 8);
    lab.pass(1_000);
    let evidence = double(&lab, 20, 5);
    send(&mut lab, 25, &evidence);
    assert_eq!(lab.me().evidence_pending().len(), 9);
}

#[test]
fn a_block_with_good_evidence_is_voted_for_and_takes_it_out_of_the_pool_when_final() {
    let mut lab = Lab::new();
    let evidence = double(&lab, LIAR, 5);
    send(&mut lab, 0, &evidence);
    let block = lab.block(1, None, None, b"one");
    let proposal = with_evidence(&lab, block, vec![encode(&evidence)]);
    propose(&mut lab, &proposal);
    assert_eq!(verdict(&lab), Ok(()));
    assert_eq!(lab.me().evidence_pending().len(), 1, "not final yet");
    let commit = lab.commit_qc(&proposal.block, &OTHERS);
    lab.receive(0, ConsensusMessage::CommitQc(commit));
    assert_eq!(lab.me().finalized().0.get(), 1);
    assert!(lab.me().evidence_pending().is_empty());
    assert_eq!(lab.me().evidence_included().len(), 1);
    // Whoever tells of it again, also after a restart, tells nothing new.
    lab.start().unwrap();
    lab.sent.clear();
    let again = double(&lab, LIAR, 7);
    send(&mut lab, 0, &again);
    assert!(told(&lab).is_empty() && lab.me().evidence_pending().is_empty());
    assert_eq!(lab.me().evidence_included().len(), 1);
}

#[test]
fn a_block_with_evidence_that_proves_nothing_or_nothing_new_is_refused() {
    let fake = || {
        let vote = |block: u8| ProposalVote { view: view(5), block_hash: B256::repeat_byte(block) };
        let zero = |vote| {
            Witness::Proposal(Signed { statement: vote, signer: index(0), signature: Signature::ZERO })
        };
        encode(&Evidence::new(Epoch::ZERO, zero(vote(1)), zero(vote(2))).unwrap())
    };
    let good = |lab: &Lab| encode(&double(lab, LIAR, 5));
    let later = |lab: &Lab| encode(&double(lab, LIAR, 6));
    let next_epoch = |lab: &Lab| {
        let [a, b] = [1, 2].map(|block| ProposalVote { view: view(5), block_hash: B256::repeat_byte(block) });
        let [a, b] = [a, b].map(|vote| Witness::Proposal(lab.sign(LIAR, vote)));
        encode(&Evidence::new(Epoch::new(1), a, b).unwrap())
    };
    let cases: Vec<(&str, Vec<Vec<u8>>, RejectionCode)> = {
        let lab = Lab::new();
        vec![
            ("forged", vec![fake()], RejectionCode::BadSystemInputs),
            ("the same twice", vec![good(&lab), good(&lab)], RejectionCode::BadSystemInputs),
            ("one offender twice", vec![good(&lab), later(&lab)], RejectionCode::BadSystemInputs),
            ("no evidence", vec![b"nothing".to_vec()], RejectionCode::BadHeader),
            ("of an epoch to come", vec![next_epoch(&lab)], RejectionCode::BadHeader),
            ("too many", vec![good(&lab); EVIDENCE_PER_BLOCK_MAX + 1], RejectionCode::BadHeader),
        ]
    };
    for (name, evidence, code) in cases {
        let mut lab = Lab::new();
        let block = lab.block(1, None, None, b"one");
        let proposal = with_evidence(&lab, block, evidence);
        propose(&mut lab, &proposal);
        assert_eq!(verdict(&lab), Err(Some(code)), "{name}");
    }
}

#[test]
fn evidence_in_an_ancestor_that_is_not_final_yet_counts_as_named() {
    let mut lab = Lab::new();
    let evidence = encode(&double(&lab, LIAR, 5));
    let first = lab.block(1, None, None, b"one");
    let first = with_evidence(&lab, first, vec![evidence.clone()]);
    lab.adopt(&first.block);
    propose(&mut lab, &first);
    assert_eq!(verdict(&lab), Ok(()));
    let parent = lab.qc(&first.block, &OTHERS);
    let child = lab.block(2, Some(&parent), None, b"two");
    let child = with_evidence(&lab, child, vec![evidence]);
    propose(&mut lab, &child);
    let reason = lab.me().sign_state().last_timeout.as_ref().map(|timeout| timeout.signed.statement.reason);
    let refused =
        matches!(reason, Some(TimeoutReason::Rejected { code: RejectionCode::BadSystemInputs, .. }));
    assert!(refused, "{reason:?}");
}

#[test]
fn an_own_block_holds_what_is_pending() {
    let mut lab = Lab::leading();
    let evidence = double(&lab, LIAR, 5);
    send(&mut lab, 2, &evidence);
    let first = lab.block(1, None, None, b"one");
    let proposal = with_evidence(&lab, first, Vec::new());
    propose(&mut lab, &proposal);
    let qc = lab.qc(&proposal.block, &[1, 2, 3]);
    lab.receive(1, ConsensusMessage::Qc(qc));
    lab.pass(3_000);
    let own = lab.sent.iter().find_map(|outbound| match outbound {
        Outbound::Broadcast(ConsensusMessage::Proposal(_, proposal)) => Some(proposal.block.clone()),
        _ => None,
    });
    assert_eq!(own.expect("it leads view 2").system_inputs.evidence, [encode(&evidence)]);
}

#[test]
fn two_certificates_of_one_view_leave_evidence_behind_before_the_alarm() {
    let mut lab = Lab::new();
    let (one, two) = (lab.block(1, None, None, b"one"), lab.block(1, None, None, b"two"));
    let (one, two) = (lab.qc(&one, &OTHERS), lab.qc(&two, &OTHERS));
    lab.receive(0, ConsensusMessage::Qc(one));
    lab.receive(0, ConsensusMessage::Qc(two));
    let alarmed = lab.sent.iter().any(|outbound| matches!(outbound, Outbound::Event(Event::Alarm(_))));
    assert!(alarmed);
    let evidence = told(&lab);
    assert_eq!(evidence.len(), 1);
    assert_eq!(evidence[0].offenders(), OTHERS.map(index));
    assert!(!evidence[0].offenders().contains(&index(ME)));
}
