//! Executing a proposal while its signatures are checked (C-3.5), and checking what can be checked of it before it comes
//! (C-3.3), on the bench.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use consensus::{EngineReply, Input, Outbound, Ready, Record, Request};
use lab::{Lab, index, view};
use types::block::randao_mix;
use types::engine::PayloadStatus;
use types::vote::randao_bytes;
use types::{B256, Block, ConsensusMessage, Signature};

/// One input and nothing that follows from it.
fn step(lab: &mut Lab, input: Input) -> Ready {
    lab.replica.as_mut().unwrap().handle(lab.now, input, &lab.disk).unwrap()
}

fn proposal(lab: &Lab, block: &Block) -> Input {
    let from = index(block.header.proposer.get() as usize);
    Input::Message { from, message: lab.proposal(block) }
}

/// The same with a signature of somebody else.
fn forged(lab: &Lab, block: &Block) -> Input {
    let Input::Message { from, message: ConsensusMessage::Proposal(epoch, mut proposal) } =
        proposal(lab, block)
    else {
        unreachable!("it is a proposal")
    };
    proposal.signed.signature = Signature([7; 96]);
    Input::Message { from, message: ConsensusMessage::Proposal(epoch, proposal) }
}

fn given(ready: &mut Ready) -> Vec<B256> {
    let given = ready.take_requests().into_iter().filter_map(|request| match request {
        Request::NewPayload { block_hash, .. } => Some(block_hash),
        _ => None,
    });
    given.collect()
}

fn stored(ready: &Ready) -> usize {
    ready.records().iter().filter(|record| matches!(record, Record::Block(_))).count()
}

fn judged(lab: &mut Lab, block: &Block) -> Input {
    let result = lab.executor.new_payload(block);
    assert!(matches!(result, Ok(PayloadStatus::Valid { .. })));
    Input::Engine(EngineReply::Judged { block_hash: block.header.hash(), result })
}

fn votes(lab: &mut Lab, ready: Ready) -> usize {
    let released = ready.persist(&mut lab.disk).unwrap();
    let vote = |sent: &&Outbound| matches!(sent, Outbound::Broadcast(ConsensusMessage::Prepare(..)));
    released.iter().filter(vote).count()
}

#[test]
fn the_executor_begins_before_the_signatures_of_a_proposal_are_checked() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"first");
    let message = proposal(&lab, &block);
    let mut ready = step(&mut lab, message);
    assert_eq!((given(&mut ready), stored(&ready)), (vec![block.header.hash()], 0));
    assert_eq!((lab.me().has_unverified(), lab.me().deadline()), (true, 0), "it wants to be called at once");
    let mut ready = step(&mut lab, Input::Tick);
    assert_eq!((given(&mut ready).len(), stored(&ready)), (0, 1), "asked once, stored when verified");
    assert_eq!(votes(&mut lab, ready), 0, "the executor has not answered");
    let verdict = judged(&mut lab, &block);
    let ready = step(&mut lab, verdict);
    assert_eq!(votes(&mut lab, ready), 1);
}

#[test]
fn a_verdict_that_comes_before_the_signatures_were_checked_has_them_checked_first() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"first");
    let message = proposal(&lab, &block);
    let _ = step(&mut lab, message);
    let verdict = judged(&mut lab, &block);
    let ready = step(&mut lab, verdict);
    assert_eq!(stored(&ready), 1);
    assert_eq!(votes(&mut lab, ready), 1);
}

#[test]
fn a_forged_proposal_that_the_executor_finds_valid_is_neither_stored_nor_voted_on() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"forged");
    let message = forged(&lab, &block);
    lab.input(message);
    assert_eq!(lab.given, [block.header.hash()], "it was executed");
    assert_eq!((lab.prepared().len(), lab.me().unfinalized_len()), (0, 0));
    assert_eq!(lab.accused(), [lab.proposer(1)]);
    // The true one may still come.
    lab.propose(&block);
    assert_eq!(lab.prepared(), [Lab::link(&block)]);
}

#[test]
fn a_proposer_gets_one_block_per_view_executed_without_a_good_signature() {
    let mut lab = Lab::new();
    for number in 0..5u8 {
        let block = lab.block(1, None, None, &[number]);
        let message = forged(&lab, &block);
        lab.input(message);
    }
    assert_eq!((lab.given.len(), lab.prepared().len(), lab.accused().len()), (1, 0, 5));
    let ahead = lab.block(9, None, None, b"of a view far ahead");
    let message = forged(&lab, &ahead);
    lab.input(message);
    assert_eq!(lab.given.len(), 1);
    assert_eq!(lab.me().view(), view(1));
}

#[test]
fn an_executor_that_restarts_while_the_signatures_wait_is_given_the_block_again() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"first");
    let message = proposal(&lab, &block);
    let mut ready = step(&mut lab, message);
    assert_eq!(given(&mut ready).len(), 1);
    let _ = step(&mut lab, Input::Engine(EngineReply::Down("restart".into())));
    lab.executor.restart();
    let head = lab.executor.head();
    lab.input(Input::Tick);
    assert!(lab.prepared().is_empty());
    lab.input(Input::Engine(EngineReply::Up(head)));
    assert_eq!((lab.given.len(), lab.prepared()), (1, vec![Lab::link(&block)]));
}

/// The same block with a reveal that is somebody else's, and everything that follows from it.
fn with_reveal_of(lab: &Lab, by: usize, block: &Block) -> Block {
    let mut forged = block.clone();
    let reveal = lab::key(by).sign(&randao_bytes(&lab.domain, block.header.view));
    forged.header.randao_reveal = reveal;
    forged.system_inputs.randao_mix = randao_mix(lab.settings.seed, &reveal);
    forged.header.system_inputs_hash = forged.system_inputs.hash();
    forged
}

#[test]
fn a_reveal_that_was_expected_is_believed_exactly_when_it_is_the_proposers() {
    for expected in [false, true] {
        for forged in [false, true] {
            let mut lab = Lab::with_real_keys();
            if expected {
                lab.replica.as_mut().unwrap().work_ahead();
            }
            let proposer = lab.proposer(1);
            let good = lab.block(1, None, None, b"first");
            let other = with_reveal_of(&lab, (proposer + 1) % 3, &good);
            assert_eq!(with_reveal_of(&lab, proposer, &good), good);
            lab.propose(if forged { &other } else { &good });
            assert_eq!(lab.accused().len(), usize::from(forged));
            assert_eq!(lab.prepared().len(), usize::from(!forged), "expected: {expected}");
        }
    }
}
