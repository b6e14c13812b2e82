//! Statements that come when their epoch is over (C-8.4), at one real replica in its second epoch.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use consensus::Outbound;
use consensus::evidence::LATE_CERTIFICATES_PER_VIEW;
use lab::{Lab, ME, OTHERS, Place, index, view};
use std::sync::Arc;
use types::epoch::epoch_seed;
use types::message::Reproposal;
use types::{
    B256, Block, Commit, CommitQc, CommitVote, ConsensusMessage, Epoch, Evidence, Offence, PrepareVote,
    Proposal, ProposalVote, Qc, Signature, encode,
};

/// Of the epoch before.
const LIAR: usize = 0;
/// The others: a quorum with the light one.
const REST: [usize; 3] = [1, 2, ME];

/// The boundary becomes final by commits of everybody but the liar.
fn end_epoch(lab: &mut Lab, chain: &[(Block, Qc)]) {
    let commit = lab.commit_qc(&chain[3].0, &REST);
    lab.receive(1, ConsensusMessage::CommitQc(commit));
    assert_eq!((lab.me().epoch(), lab.height()), (Epoch::new(1), 4));
    lab.sent.clear();
}

/// What the peers make in the second epoch, which begins at what `root` made final.
fn in_second_epoch<T>(lab: &mut Lab, root: &CommitQc, make: impl FnOnce(&mut Lab) -> T) -> T {
    let first = lab.place.clone();
    let members = || first.set.validators().to_vec();
    let [set, next] =
        [1, 2].map(|epoch| Arc::new(first.set.successor(Epoch::new(epoch), members()).unwrap()));
    let seed = epoch_seed(lab.settings.seed, set.epoch());
    lab.enter(Place { set, next, seed, root: Some(root.clone()), ..first.clone() });
    let made = make(lab);
    lab.enter(first);
    made
}

/// The second epoch's first block, its proposal and its certificate.
fn opening(lab: &mut Lab, root: &CommitQc) -> (Block, ConsensusMessage, Qc) {
    in_second_epoch(lab, root, |lab| {
        let block = lab.block(1, None, None, b"first");
        let (proposal, qc) = (lab.proposal(&block), lab.qc(&block, &OTHERS));
        (block, proposal, qc)
    })
}

fn told(lab: &Lab) -> Vec<Evidence> {
    let evidence = |outbound: &Outbound| match outbound {
        Outbound::Broadcast(ConsensusMessage::Evidence(epoch, evidence)) => {
            assert_eq!(*epoch, Epoch::new(1), "the epoch of the sender");
            Some((**evidence).clone())
        }
        _ => None,
    };
    lab.sent.iter().filter_map(evidence).collect()
}

/// One piece of evidence of the epoch before was found: of what, and against whom.
fn found(lab: &Lab) -> (Offence, Vec<u32>) {
    let evidence = told(lab);
    assert_eq!(evidence.len(), 1, "{evidence:?}");
    assert_eq!(evidence[0].epoch(), Epoch::ZERO);
    let guilty = evidence[0].verify(&lab.set, &lab.domain).unwrap();
    let pending = lab.me().evidence_pending();
    assert_eq!((pending.len(), &pending[0].evidence), (1, &evidence[0]));
    (pending[0].offence, guilty.into_iter().map(|index| index.get()).collect())
}

fn prepare(lab: &Lab, by: usize, at: u64, block: u8) -> ConsensusMessage {
    let vote = PrepareVote {
        source_view: view(at - 1),
        source_hash: B256::ZERO,
        target_view: view(at),
        height: types::Height::new(4),
        block_hash: B256::repeat_byte(block),
    };
    ConsensusMessage::Prepare(Epoch::ZERO, lab.sign(by, vote))
}

fn commit(lab: &Lab, vote: CommitVote, qc: &Qc) -> ConsensusMessage {
    ConsensusMessage::Commit(Epoch::ZERO, Commit { signed: lab.sign(LIAR, vote), qc: qc.clone() })
}

fn again(lab: &Lab, at: u64, block: &Block, source: &Qc) -> ConsensusMessage {
    let vote = ProposalVote { view: view(at), block_hash: block.header.hash() };
    let again = Some(Reproposal { source: source.clone(), timeout: None });
    let proposal = Proposal { signed: lab.sign(lab.proposer(at), vote), block: block.clone(), again };
    ConsensusMessage::Proposal(Epoch::ZERO, Box::new(proposal))
}

/// A certificate of the boundary's view for another block, which everybody in it prepared beside the boundary.
fn twin(lab: &mut Lab, chain: &[(Block, Qc)], signers: &[usize]) -> (Block, Qc) {
    let block = lab.block(4, Some(&chain[2].1), None, b"twin");
    let qc = lab.qc(&block, signers);
    (block, qc)
}

#[test]
fn a_second_vote_that_comes_when_the_epoch_is_over_is_evidence_of_that_epoch() {
    type Messages = fn(&mut Lab, &[(Block, Qc)]) -> (usize, ConsensusMessage, ConsensusMessage);
    let cases: [(Offence, Messages); 4] = [
        (Offence::DoublePrepare, |lab, _| (LIAR, prepare(lab, LIAR, 5, 1), prepare(lab, LIAR, 5, 2))),
        (Offence::DoubleCommit, |lab, chain| {
            let (boundary, qc) = &chain[3];
            let vote = Lab::commit_vote(boundary);
            let second = CommitVote { block_hash: B256::repeat_byte(2), ..vote };
            (LIAR, commit(lab, vote, qc), commit(lab, second, qc))
        }),
        (Offence::DoubleProposal, |lab, chain| {
            let (boundary, qc) = &chain[3];
            let second = lab.block(5, Some(&chain[2].1), None, b"second");
            (lab.proposer(5), again(lab, 5, boundary, qc), lab.proposal(&second))
        }),
        (Offence::Amnesia, |lab, chain| {
            let (boundary, qc) = &chain[3];
            let vote = Lab::commit_vote(boundary);
            (LIAR, commit(lab, vote, qc), lab.timeout(LIAR, 6, Some(&chain[1].1)))
        }),
    ];
    for (offence, messages) in cases {
        let (mut lab, chain) = Lab::at_the_boundary();
        let (liar, first, second) = messages(&mut lab, &chain);
        lab.receive(liar, first);
        end_epoch(&mut lab, &chain);
        assert!(told(&lab).is_empty());
        lab.receive(liar, second.clone());
        assert_eq!(found(&lab), (offence, vec![liar as u32]));
        lab.receive(liar, second);
        assert_eq!(told(&lab).len(), 1, "told once");
        assert_eq!(lab.accused(), [0usize; 0], "{offence}");
        lab.start().unwrap();
        assert_eq!(lab.me().evidence_pending().len(), 1, "it is on the disk");
    }
}

#[test]
fn a_vote_against_a_certificate_of_the_epoch_before_convicts_and_the_other_way_round() {
    let (mut lab, chain) = Lab::at_the_boundary();
    end_epoch(&mut lab, &chain);
    let message = prepare(&lab, LIAR, 4, 9);
    lab.receive(LIAR, message);
    assert_eq!(found(&lab), (Offence::DoublePrepare, vec![LIAR as u32]));
    let (mut lab, chain) = Lab::at_the_boundary();
    let message = prepare(&lab, LIAR, 5, 1);
    lab.receive(LIAR, message);
    end_epoch(&mut lab, &chain);
    let (mut link, source) = (Lab::link(&chain[3].0), chain[3].0.header.hash());
    (link.source_view, link.source_hash, link.target_view) = (view(4), source, view(5));
    let qc = lab.qc_of(link, &OTHERS);
    lab.receive(2, ConsensusMessage::Qc(qc));
    assert_eq!(found(&lab), (Offence::DoublePrepare, vec![LIAR as u32]));
}

#[test]
fn a_late_header_shows_what_its_certificates_prove() {
    let (mut lab, chain) = Lab::at_the_boundary();
    let (_, qc) = twin(&mut lab, &chain, &[LIAR, 1, ME]);
    let block = lab.block(5, Some(&qc), None, b"on the twin");
    end_epoch(&mut lab, &chain);
    lab.propose(&block);
    assert_eq!(found(&lab), (Offence::DoublePrepare, vec![LIAR as u32, 1]));
    assert_eq!(lab.alarms(), 0, "nothing else is learnt from it");
}

/// The liar timed out as if it had not committed the boundary; the header of the next epoch shows that it had.
fn forgotten_commit() -> (Lab, CommitQc) {
    let (mut lab, chain) = Lab::at_the_boundary();
    let timeout = lab.timeout(LIAR, 5, Some(&chain[2].1));
    lab.receive(LIAR, timeout);
    let commit = lab.commit_qc(&chain[3].0, &OTHERS);
    end_epoch(&mut lab, &chain);
    (lab, commit)
}

#[test]
fn the_first_header_of_an_epoch_shows_who_committed_the_boundary() {
    let (mut lab, root) = forgotten_commit();
    let (first, proposal, _) = opening(&mut lab, &root);
    lab.receive(first.header.proposer.get() as usize, proposal);
    assert_eq!(found(&lab), (Offence::Amnesia, vec![LIAR as u32]));
    assert_eq!(lab.accused(), [0usize; 0]);
    let prepared = lab.prepared();
    assert_eq!(prepared.last().map(|link| link.block_hash), Some(first.header.hash()), "it is a good block");
}

#[test]
fn the_header_of_a_fetched_block_shows_the_same() {
    let (mut lab, root) = forgotten_commit();
    let (first, _, qc) = opening(&mut lab, &root);
    lab.receive(1, ConsensusMessage::Qc(qc));
    lab.pass(60);
    let (id, ..) = lab.fetch().expect("the certified block is missing");
    assert!(told(&lab).is_empty());
    lab.fetched(id, vec![Lab::stored(&first, None)], None);
    assert_eq!(found(&lab), (Offence::Amnesia, vec![LIAR as u32]));
}

#[test]
fn the_head_of_a_peer_that_is_still_in_the_epoch_before_is_looked_at() {
    let (mut lab, chain) = Lab::at_the_boundary();
    let first = commit(
        &lab,
        CommitVote { block_hash: B256::repeat_byte(2), ..Lab::commit_vote(&chain[3].0) },
        &chain[3].1,
    );
    lab.receive(LIAR, first);
    let head = lab.commit_qc(&chain[3].0, &OTHERS);
    end_epoch(&mut lab, &chain);
    // Of an epoch to come: it asks what it has missed.
    lab.receive(1, ConsensusMessage::Tc(types::Tc { epoch: Epoch::new(2), ..lab.tc(1, &OTHERS, None, 0) }));
    lab.pass(1);
    let (id, ..) = lab.fetch().expect("others seem to be ahead");
    lab.fetched(id, Vec::new(), Some(head));
    assert_eq!(found(&lab), (Offence::DoubleCommit, vec![LIAR as u32]));
}

#[test]
fn certificates_of_the_epoch_before_are_checked_only_if_they_are_news_and_few_of_a_sender() {
    let (mut lab, chain) = Lab::at_the_boundary();
    let (_, real) = twin(&mut lab, &chain, &[LIAR, 1, ME]);
    end_epoch(&mut lab, &chain);
    let forged = |lab: &Lab, block: u8| {
        let qc = lab.qc(&chain[3].0, &OTHERS);
        let vote = PrepareVote { block_hash: B256::repeat_byte(block), ..qc.vote };
        ConsensusMessage::Qc(Qc { vote, signature: Signature::ZERO, ..qc })
    };
    for block in 0..100 {
        let message = forged(&lab, block);
        lab.receive(1, message);
    }
    let few = LATE_CERTIFICATES_PER_VIEW as usize;
    assert_eq!(lab.accused(), vec![1; few], "each check that fails is told");
    lab.receive(1, ConsensusMessage::Qc(real.clone()));
    assert!(told(&lab).is_empty(), "its checks are spent");
    // What is known already costs nothing, however often it is sent.
    for (_, qc) in chain.iter().cycle().take(100) {
        lab.receive(2, ConsensusMessage::Qc(qc.clone()));
    }
    assert_eq!(lab.accused().len(), few);
    let commit = lab.commit_qc(&chain[3].0, &OTHERS);
    let (_, _, qc) = opening(&mut lab, &commit);
    lab.receive(2, ConsensusMessage::Qc(qc));
    assert_eq!(lab.me().view(), view(2));
    for block in 0..100 {
        let message = forged(&lab, block);
        lab.receive(1, message);
    }
    assert_eq!(lab.accused(), vec![1; 2 * few], "a view later it has as many again");
    lab.receive(2, ConsensusMessage::Qc(real));
    assert_eq!(found(&lab), (Offence::DoublePrepare, vec![LIAR as u32, 1]));
}

#[test]
fn votes_of_the_epoch_before_count_from_their_author_only_and_are_not_counted_as_votes() {
    let (mut lab, chain) = Lab::at_the_boundary();
    let first = prepare(&lab, LIAR, 5, 1);
    lab.receive(LIAR, first);
    end_epoch(&mut lab, &chain);
    let second = prepare(&lab, LIAR, 5, 2);
    lab.receive(1, second.clone());
    assert!(told(&lab).is_empty(), "the link says whose vote it is");
    lab.input(consensus::Input::Message { from: index(17), message: second.clone() });
    assert!(told(&lab).is_empty(), "nobody has that place");
    let (view_before, state) = (lab.me().view(), lab.me().sign_state().clone());
    lab.receive(LIAR, second);
    assert_eq!(found(&lab), (Offence::DoublePrepare, vec![LIAR as u32]));
    assert_eq!((lab.me().view(), lab.me().sign_state()), (view_before, &state));
}

#[test]
fn after_a_restart_the_epoch_before_is_watched_anew_and_who_was_convicted_stays_so() {
    let (mut lab, chain) = Lab::at_the_boundary();
    let [first, second, third] = [1, 2, 3].map(|block| prepare(&lab, LIAR, 5, block));
    lab.receive(LIAR, first);
    end_epoch(&mut lab, &chain);
    lab.start().unwrap();
    lab.receive(LIAR, second);
    assert!(told(&lab).is_empty(), "what was only seen is on no disk");
    lab.receive(LIAR, third.clone());
    assert_eq!(found(&lab), (Offence::DoublePrepare, vec![LIAR as u32]));
    lab.start().unwrap();
    lab.sent.clear();
    let fourth = prepare(&lab, LIAR, 5, 4);
    lab.receive(LIAR, third);
    lab.receive(LIAR, fourth);
    assert!(told(&lab).is_empty());
    assert_eq!((lab.me().evidence_pending().len(), lab.me().statements_watched()), (1, 0));
}

#[test]
fn two_epochs_later_nobody_looks_at_it_any_more() {
    let (mut lab, chain) = Lab::at_the_boundary();
    let [first, second] = [1, 2].map(|block| prepare(&lab, LIAR, 5, block));
    lab.receive(LIAR, first);
    end_epoch(&mut lab, &chain);
    let root = lab.commit_qc(&chain[3].0, &REST);
    let (messages, commit) = in_second_epoch(&mut lab, &root, |lab| {
        let chain = lab.chain(4);
        let message = |(block, qc): &(Block, Qc)| (block.header.proposer, lab.proposal(block), qc.clone());
        let messages: Vec<_> = chain.iter().map(message).collect();
        (messages, lab.commit_qc(&chain[3].0, &REST))
    });
    for (by, proposal, qc) in messages {
        lab.receive(by.get() as usize, proposal);
        lab.receive(1, ConsensusMessage::Qc(qc));
    }
    lab.receive(1, ConsensusMessage::CommitQc(commit));
    assert_eq!((lab.me().epoch(), lab.height()), (Epoch::new(2), 8));
    lab.sent.clear();
    lab.receive(LIAR, second);
    assert!(lab.me().evidence_pending().is_empty());
    assert_eq!(lab.messages().count(), 0);
}

#[test]
fn evidence_of_peers_that_are_an_epoch_behind_or_ahead_is_taken() {
    let pair = |lab: &Lab, by: usize| {
        let vote = |block: u8| ProposalVote { view: view(3), block_hash: B256::repeat_byte(block) };
        let [a, b] = [1, 2].map(|block| types::Witness::Proposal(lab.sign(by, vote(block))));
        Box::new(Evidence::new(Epoch::ZERO, a, b).unwrap())
    };
    let (mut lab, chain) = Lab::at_the_boundary();
    let ahead = pair(&lab, 0);
    lab.receive(1, ConsensusMessage::Evidence(Epoch::new(1), ahead));
    assert_eq!(lab.me().evidence_pending().len(), 1);
    end_epoch(&mut lab, &chain);
    let behind = pair(&lab, 2);
    lab.receive(1, ConsensusMessage::Evidence(Epoch::ZERO, behind));
    assert_eq!(lab.me().evidence_pending().len(), 2);
    let far = pair(&lab, 1);
    lab.receive(0, ConsensusMessage::Evidence(Epoch::new(3), far));
    assert_eq!(lab.me().evidence_pending().len(), 2, "nobody knows who that is");
}

#[test]
fn evidence_of_the_epoch_before_is_voted_for_and_final_in_a_block_of_the_next() {
    let (mut lab, root) = forgotten_commit();
    let vote = prepare(&lab, LIAR, 4, 9);
    lab.receive(LIAR, vote);
    let (_, guilty) = found(&lab);
    let evidence = vec![encode(&told(&lab)[0])];
    let (first, proposal, commit) = in_second_epoch(&mut lab, &root, |lab| {
        let mut block = lab.block(1, None, None, b"first");
        block.system_inputs.evidence = evidence;
        block.header.system_inputs_hash = block.system_inputs.hash();
        let (proposal, commit) = (lab.proposal(&block), lab.commit_qc(&block, &OTHERS));
        (block, proposal, commit)
    });
    lab.receive(first.header.proposer.get() as usize, proposal);
    assert_eq!(lab.prepared().last().map(|link| link.block_hash), Some(first.header.hash()));
    lab.receive(1, ConsensusMessage::CommitQc(commit));
    assert_eq!(lab.height(), 5);
    assert!(lab.me().evidence_pending().is_empty());
    let named: Vec<_> =
        lab.me().evidence_included().keys().map(|(epoch, who)| (epoch.get(), who.get())).collect();
    assert_eq!(named, [(0, guilty[0])]);
}
