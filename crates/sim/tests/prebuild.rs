//! Building ahead (C-6.9) on the bench: a validator that proposes in the second view has the first one's block.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use consensus::{BuiltAhead, EngineReply, Input, Outbound, Request};
use lab::{GENESIS, LED, Lab, index, view};
use types::engine::{EngineError, PayloadRequest};
use types::{B256, Block, ConsensusMessage, Proposal, Qc};

/// A leader of the second view whose chain is paced by messages alone, or by the intervals that chains have.
fn leading(block_interval_ms: u64, empty_block_interval_ms: u64) -> Lab {
    let mut lab = Lab::leading();
    let timing = &mut lab.settings.timing;
    (timing.block_interval_ms, timing.empty_block_interval_ms) = (block_interval_ms, empty_block_interval_ms);
    lab.start().unwrap();
    lab
}

/// The same, after the first view's block was executed and prepared; requests are answered by the test from there on.
fn prepared(mut lab: Lab) -> (Lab, Block, Qc) {
    let block = lab.block(1, None, None, b"first");
    lab.answers = false;
    lab.asked.clear();
    lab.propose(&block);
    judge(&mut lab, &block);
    assert_eq!(lab.prepared(), [Lab::link(&block)]);
    let qc = lab.qc(&block, &LED);
    (lab, block, qc)
}

fn judge(lab: &mut Lab, block: &Block) {
    let result = lab.executor.new_payload(block);
    lab.input(Input::Engine(EngineReply::Judged { block_hash: block.header.hash(), result }));
}

/// The builds asked for since the last look.
fn builds(lab: &mut Lab) -> Vec<(u64, PayloadRequest)> {
    let asked = lab.asked.extract_if(.., |request| matches!(request, Request::Build { .. }));
    let builds = asked.filter_map(|request| match request {
        Request::Build { id, request } => Some((id, *request)),
        _ => None,
    });
    builds.collect()
}

/// The one build asked for since the last look.
fn build(lab: &mut Lab) -> (u64, PayloadRequest) {
    let [build] = builds(lab).try_into().expect("one build");
    build
}

/// The long polls begun since the last look.
fn polls(lab: &mut Lab) -> Vec<(u64, B256)> {
    let asked = lab.asked.extract_if(.., |request| matches!(request, Request::AwaitTransactions { .. }));
    let polls = asked.filter_map(|request| match request {
        Request::AwaitTransactions { id, parent_hash, .. } => Some((id, parent_hash)),
        _ => None,
    });
    polls.collect()
}

fn built(lab: &mut Lab, (id, request): &(u64, PayloadRequest), payload: &[u8]) {
    let result = lab.executor.build(request, payload.to_vec());
    lab.input(Input::Engine(EngineReply::Built { id: *id, result }));
}

fn pending(lab: &mut Lab, id: u64) {
    lab.input(Input::Engine(EngineReply::Pending { id, result: Ok(true) }));
}

fn proposals(lab: &Lab) -> Vec<Proposal> {
    let proposal = |message: &ConsensusMessage| match message {
        ConsensusMessage::Proposal(_, proposal) => Some((**proposal).clone()),
        _ => None,
    };
    lab.messages().filter_map(proposal).collect()
}

fn certify(lab: &mut Lab, qc: &Qc) {
    lab.receive(1, ConsensusMessage::Qc(qc.clone()));
}

const USED: BuiltAhead = BuiltAhead { used: 1, dropped: 0, refilled: 0 };
const DROPPED: BuiltAhead = BuiltAhead { used: 0, dropped: 1, refilled: 0 };

#[test]
fn with_a_payload_built_ahead_the_proposal_leaves_in_the_step_of_the_certificate() {
    let (mut lab, first, qc) = prepared(leading(0, 0));
    let asked = build(&mut lab);
    let PayloadRequest { parent_hash, view: of, proposer, .. } = asked.1;
    assert_eq!((parent_hash, of, proposer), (first.header.hash(), view(2), index(0)));
    built(&mut lab, &asked, b"ahead");
    assert!(proposals(&lab).is_empty(), "nothing leaves before the certificate");
    certify(&mut lab, &qc);
    let [proposal] = proposals(&lab).try_into().expect("one proposal");
    let header = &proposal.block.header;
    assert_eq!((header.view, header.parent_hash), (view(2), first.header.hash()));
    assert_eq!((header.source(), &proposal.block.payload[..]), ((&qc).into(), &b"ahead"[..]));
    assert_eq!(proposal.block.system_inputs.hash(), header.system_inputs_hash);
    // The commit vote first, and no other build.
    let place = |wanted: fn(&ConsensusMessage) -> bool| lab.messages().position(wanted).unwrap();
    let commit = place(|message| matches!(message, ConsensusMessage::Commit(..)));
    assert!(commit < place(|message| matches!(message, ConsensusMessage::Proposal(..))));
    assert_eq!((builds(&mut lab).len(), lab.me().built_ahead()), (0, USED));
    // The own executor judges it like any other's.
    let own = lab.asked.iter().any(
        |request| matches!(request, Request::NewPayload { block_hash, .. } if *block_hash == header.hash()),
    );
    assert!(own, "{:?}", lab.asked);
    judge(&mut lab, &proposal.block);
    assert_eq!(lab.prepared().last(), Some(&Lab::link(&proposal.block)));
}

#[test]
fn a_payload_that_is_still_being_built_when_the_certificate_comes_is_waited_for() {
    let (mut lab, _, qc) = prepared(leading(0, 0));
    let asked = build(&mut lab);
    certify(&mut lab, &qc);
    assert_eq!((proposals(&lab).len(), builds(&mut lab).len()), (0, 0), "one build at a time");
    built(&mut lab, &asked, b"ahead");
    assert_eq!((proposals(&lab).len(), lab.me().built_ahead()), (1, USED));
}

#[test]
fn a_payload_on_a_block_that_is_not_certified_is_dropped() {
    let (mut lab, first, _) = prepared(leading(0, 0));
    let asked = build(&mut lab);
    built(&mut lab, &asked, b"ahead");
    let tc = lab.tc(1, &LED, None, 0);
    lab.receive(1, ConsensusMessage::Tc(tc));
    lab.pass(1_000);
    let again = build(&mut lab);
    assert_eq!(again.1.parent_hash, GENESIS, "what is certified");
    built(&mut lab, &again, b"on the genesis");
    let [proposal] = proposals(&lab).try_into().expect("one proposal");
    assert_eq!(proposal.block.header.parent_hash, GENESIS);
    assert_ne!(proposal.block.header.parent_hash, first.header.hash());
    assert_eq!((&proposal.block.payload[..], lab.me().built_ahead()), (&b"on the genesis"[..], DROPPED));
}

#[test]
fn an_executor_that_restarts_takes_the_payload_built_ahead_with_it() {
    let (mut lab, first, qc) = prepared(leading(0, 0));
    let lost = build(&mut lab);
    built(&mut lab, &lost, b"lost");
    lab.executor.restart();
    lab.input(Input::Engine(EngineReply::Down("restart".into())));
    assert_eq!(lab.me().built_ahead(), DROPPED);
    let head = lab.executor.head();
    lab.input(Input::Engine(EngineReply::Up(head)));
    assert!(builds(&mut lab).is_empty(), "it does not know the parent");
    judge(&mut lab, &first);
    let again = build(&mut lab);
    // An answer of its earlier life.
    built(&mut lab, &lost, b"lost");
    built(&mut lab, &again, b"again");
    certify(&mut lab, &qc);
    let [proposal] = proposals(&lab).try_into().expect("one proposal");
    assert_eq!(&proposal.block.payload[..], b"again");
}

#[test]
fn an_executor_that_forgot_the_parent_is_asked_for_its_state() {
    let (mut lab, first, _) = prepared(leading(0, 0));
    let (id, _) = build(&mut lab);
    lab.asked.clear();
    let error = EngineError::UnknownBlock(first.header.hash());
    lab.input(Input::Engine(EngineReply::Built { id, result: Err(error) }));
    lab.pass(300);
    assert!(lab.asked.contains(&Request::FinalizedState), "{:?}", lab.asked);
}

#[test]
fn a_build_ahead_that_fails_is_made_again_when_the_view_is_entered() {
    let (mut lab, _, qc) = prepared(leading(0, 0));
    let (id, _) = build(&mut lab);
    let error = EngineError::Unavailable("busy".into());
    lab.input(Input::Engine(EngineReply::Built { id, result: Err(error) }));
    lab.pass(50);
    assert!(builds(&mut lab).is_empty(), "not before");
    certify(&mut lab, &qc);
    let again = build(&mut lab);
    built(&mut lab, &again, b"again");
    assert_eq!(proposals(&lab).len(), 1);
}

#[test]
fn a_payload_that_waited_too_long_for_its_certificate_is_built_again() {
    let (mut lab, _, qc) = prepared(leading(0, 0));
    let old = build(&mut lab);
    built(&mut lab, &old, b"old");
    lab.pass(2 * lab.settings.timing.delta_ms + 1);
    certify(&mut lab, &qc);
    assert_eq!((proposals(&lab).len(), lab.me().built_ahead()), (0, DROPPED));
    let new = build(&mut lab);
    assert!(new.1.timestamp_ms > old.1.timestamp_ms);
    built(&mut lab, &new, b"new");
    let [proposal] = proposals(&lab).try_into().expect("one proposal");
    assert_eq!(proposal.block.header.timestamp_ms, new.1.timestamp_ms);
}

#[test]
fn where_certificates_take_longer_than_payloads_the_payload_is_asked_for_so_late_that_it_is_fresh() {
    const WAIT_MS: u64 = 20;
    let mut lab = leading(0, 0);
    let (mut number, mut parent) = (1, None);
    // Until it has seen certificates of others' blocks, has built, and is to follow somebody else.
    while number < 6 || lab.proposer(number) == 0 || lab.proposer(number + 1) != 0 {
        let block = if lab.proposer(number) == 0 {
            let block = proposals(&lab).last().unwrap().block.clone();
            lab.adopt(&block);
            block
        } else {
            let block = lab.block(number, parent.as_ref(), None, &number.to_le_bytes());
            lab.propose(&block);
            block
        };
        lab.pass(WAIT_MS);
        let qc = lab.qc(&block, &LED);
        certify(&mut lab, &qc);
        (number, parent) = (number + 1, Some(qc));
    }
    let block = lab.block(number, parent.as_ref(), None, b"last");
    lab.answers = false;
    lab.asked.clear();
    lab.propose(&block);
    judge(&mut lab, &block);
    lab.pass(WAIT_MS - 3);
    assert_eq!((builds(&mut lab).len(), polls(&mut lab).len()), (0, 0));
    lab.pass(1);
    let asked = build(&mut lab);
    assert_eq!(asked.1.parent_hash, block.header.hash());
    built(&mut lab, &asked, b"fresh");
    lab.pass(2);
    let (sent, qc) = (proposals(&lab).len(), lab.qc(&block, &LED));
    certify(&mut lab, &qc);
    assert_eq!(proposals(&lab).len(), sent + 1);
}

#[test]
fn nothing_is_built_or_proposed_before_the_block_interval_is_over() {
    let (mut lab, first, qc) = prepared(leading(250, 1_000));
    let [(id, parent)] = polls(&mut lab).try_into().expect("one poll");
    assert_eq!(parent, first.header.hash());
    pending(&mut lab, id);
    lab.pass(100);
    certify(&mut lab, &qc);
    lab.pass(149);
    assert_eq!(
        (builds(&mut lab).len(), polls(&mut lab).len()),
        (0, 0),
        "it was told of transactions already"
    );
    lab.pass(1);
    let asked = build(&mut lab);
    built(&mut lab, &asked, b"paced");
    assert_eq!(proposals(&lab).len(), 1);
}

#[test]
fn where_the_block_interval_ends_before_the_certificate_comes_the_payload_is_built_then() {
    let (mut lab, _, qc) = prepared(leading(250, 1_000));
    let [(id, _)] = polls(&mut lab).try_into().expect("one poll");
    pending(&mut lab, id);
    lab.pass(249);
    assert!(builds(&mut lab).is_empty());
    lab.pass(1);
    let asked = build(&mut lab);
    built(&mut lab, &asked, b"ahead");
    lab.pass(60);
    certify(&mut lab, &qc);
    assert_eq!((proposals(&lab).len(), lab.me().built_ahead()), (1, USED));
}

#[test]
fn an_idle_chain_builds_nothing_ahead() {
    let (mut lab, _, qc) = prepared(leading(250, 1_000));
    lab.pass(400);
    certify(&mut lab, &qc);
    lab.pass(599);
    assert_eq!((builds(&mut lab).len(), proposals(&lab).len()), (0, 0));
    lab.pass(1);
    assert_eq!(builds(&mut lab).len(), 1, "the empty block, when it is due");
}

#[test]
fn an_empty_payload_is_proposed_only_while_no_transaction_is_there() {
    let (mut lab, _, qc) = prepared(leading(0, 0));
    let asked = build(&mut lab);
    built(&mut lab, &asked, b"");
    assert_eq!(polls(&mut lab).len(), 1);
    certify(&mut lab, &qc);
    assert_eq!(proposals(&lab).len(), 1, "there is none");

    let (mut lab, _, qc) = prepared(leading(0, 0));
    let asked = build(&mut lab);
    built(&mut lab, &asked, b"");
    let [(id, _)] = polls(&mut lab).try_into().expect("one poll");
    pending(&mut lab, id);
    let refill = build(&mut lab);
    certify(&mut lab, &qc);
    assert!(proposals(&lab).is_empty(), "the transaction is on its way into the block");
    built(&mut lab, &refill, b"a transaction");
    let [proposal] = proposals(&lab).try_into().expect("one proposal");
    assert_eq!(&proposal.block.payload[..], b"a transaction");
    assert_eq!(lab.me().built_ahead(), BuiltAhead { refilled: 1, ..USED });
}

#[test]
fn what_the_pool_calls_pending_and_no_block_takes_is_asked_for_once() {
    let (mut lab, _, qc) = prepared(leading(0, 0));
    let asked = build(&mut lab);
    built(&mut lab, &asked, b"");
    let [(id, _)] = polls(&mut lab).try_into().expect("one poll");
    pending(&mut lab, id);
    let again = build(&mut lab);
    built(&mut lab, &again, b"");
    assert_eq!((polls(&mut lab).len(), builds(&mut lab).len()), (0, 0));
    certify(&mut lab, &qc);
    assert_eq!(proposals(&lab).len(), 1);
}

#[test]
fn nothing_is_built_ahead_on_a_view_given_up_or_for_a_view_of_somebody_else() {
    let mut lab = Lab::equal();
    let block = lab.block(1, None, None, b"first");
    lab.propose(&block);
    assert!(builds(&mut lab).is_empty());

    let mut lab = leading(0, 0);
    lab.answers = false;
    lab.asked.clear();
    let block = lab.block(1, None, None, b"first");
    lab.pass(2_000);
    assert_eq!(lab.timed_out().first(), Some(&view(1)));
    lab.propose(&block);
    judge(&mut lab, &block);
    assert!(builds(&mut lab).is_empty());
    let proposed =
        lab.sent.iter().any(|sent| matches!(sent, Outbound::Broadcast(ConsensusMessage::Proposal(..))));
    assert!(!proposed);
}
