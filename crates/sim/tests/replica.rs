//! One replica against peers and an executor that a test plays: what a review looked for, one property each.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use consensus::{EngineReply, Input, Outbound, Request, StartError};
use lab::{GENESIS, LED, Lab, ME, OTHERS, index, view};
use sim::disk::CrashPoint;
use types::{B256, CommitVote, ConsensusMessage, Epoch, FetchRequest, FetchResponse, Height, View};

// Voting.

#[test]
fn a_certified_twin_is_fetched_executed_and_committed_though_the_other_one_came_first() {
    let mut lab = Lab::new();
    let (first, second) = (lab.block(1, None, None, b"first"), lab.block(1, None, None, b"second"));
    lab.propose(&first);
    assert_eq!(lab.prepared(), [Lab::link(&first)]);
    lab.propose(&second);
    assert_eq!(lab.prepared().len(), 1, "one prepare per view");
    let qc = lab.qc(&second, &OTHERS);
    lab.receive(1, ConsensusMessage::Qc(qc));
    lab.pass(60);
    let (id, _, request) = lab.fetch().expect("the certified block is missing");
    assert_eq!(request, FetchRequest::ByHash(second.header.hash()));
    lab.fetched(id, vec![Lab::stored(&second, None)], None);
    assert_eq!(lab.committed(), [Lab::commit_vote(&second)]);
    let commit = lab.commit_qc(&second, &OTHERS);
    lab.receive(1, ConsensusMessage::CommitQc(commit));
    assert_eq!(lab.me().finalized(), (Height::new(1), second.header.hash()));
}

#[test]
fn nothing_is_voted_on_without_the_own_executors_verdict() {
    let mut lab = Lab::new();
    lab.answers = false;
    let block = lab.block(1, None, None, b"a");
    let qc = lab.qc(&block, &OTHERS);
    lab.propose(&block);
    assert!(lab.prepared().is_empty());
    lab.receive(1, ConsensusMessage::Qc(qc));
    assert!(lab.committed().is_empty(), "a certificate is no verdict");
    let result = lab.executor.new_payload(&block);
    lab.input(Input::Engine(EngineReply::Judged { block_hash: block.header.hash(), result }));
    assert_eq!(lab.committed(), [Lab::commit_vote(&block)]);
}

#[test]
fn a_prepare_needs_a_certificate_that_verifies() {
    let mut lab = Lab::new();
    let chain = lab.chain(1);
    let (parent, good) = &chain[0];
    lab.propose(parent);
    let mut forged = good.clone();
    forged.signature = lab.qc(parent, &[0, 1]).signature;
    let block = lab.block(2, Some(&forged), None, b"on a forged certificate");
    lab.propose(&block);
    assert_eq!(lab.prepared(), [Lab::link(parent)]);
    assert_eq!(lab.me().view(), view(1), "nothing is learnt from it");
    assert_eq!(lab.accused(), [lab.proposer(2)]);
}

#[test]
fn a_proposal_with_the_timeout_certificate_of_an_earlier_view_is_refused() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"1");
    lab.propose(&block);
    let stale = lab.tc(1, &OTHERS, None, 0);
    for number in 1..=2 {
        let tc = lab.tc(number, &OTHERS, None, 0);
        lab.receive(1, ConsensusMessage::Tc(tc));
    }
    let block = lab.block(3, None, Some(stale), b"3");
    lab.propose(&block);
    assert!(!lab.prepared().iter().any(|vote| vote.target_view == view(3)));
    assert_eq!(lab.accused(), [lab.proposer(3)]);
}

#[test]
fn a_vote_waits_for_a_stamp_ahead_of_the_clock_and_is_cast_when_the_clock_gets_there() {
    let mut lab = Lab::new();
    let drift = lab.settings.timing.clock_drift_ms_max;
    let block = lab.block_at(1, None, None, b"early", lab.now.wall_ms + drift + 300);
    lab.propose(&block);
    lab.pass(299);
    assert!(lab.prepared().is_empty());
    assert_eq!(lab.me().deadline(), lab.now.mono_ms + 1, "no other event is needed");
    lab.pass(1);
    assert_eq!(lab.prepared(), [Lab::link(&block)]);
}

#[test]
fn a_chain_whose_clocks_were_once_ahead_goes_on_with_its_last_stamp() {
    let mut lab = Lab::new();
    let ahead = lab.now.wall_ms + 5 * 3_600_000;
    let first = lab.block_at(1, None, None, b"1", ahead);
    lab.propose(&first);
    assert!(lab.prepared().is_empty(), "hours ahead of the clock");
    let qc = lab.qc(&first, &OTHERS);
    let second = lab.block_at(2, Some(&qc), None, b"2", ahead);
    lab.propose(&second);
    assert_eq!(lab.prepared(), [Lab::link(&second)], "a stamp cannot be below the parent's");
}

#[test]
fn a_validator_far_behind_votes_on_the_proposal_that_shows_it_the_current_view() {
    let mut lab = Lab::new();
    let chain = lab.chain(30);
    let last = &chain[29].0;
    lab.propose(last);
    assert_eq!(lab.me().view(), view(30));
    for (block, _) in chain[..29].iter().rev() {
        lab.pass(51);
        let (id, _, request) = lab.fetch().expect("a block is missing");
        assert_eq!(request, FetchRequest::ByHash(block.header.hash()));
        lab.fetched(id, vec![Lab::stored(block, None)], None);
    }
    assert_eq!(lab.prepared(), [Lab::link(last)]);
}

/// Leaves a certificate its names and takes their signatures.
fn forge(signature: &mut types::Signature, lab: &Lab) {
    let vote = CommitVote { view: view(77), height: Height::new(77), block_hash: GENESIS };
    *signature = lab.sign(0, vote).signature;
}

#[test]
fn a_certificate_is_verified_wherever_it_comes_in() {
    type Way = fn(&mut Lab, &types::Block, &types::Qc);
    let ways: [(&str, Way); 8] = [
        ("prepare certificate", |lab, _, qc| {
            let mut qc = qc.clone();
            forge(&mut qc.signature, lab);
            lab.receive(1, ConsensusMessage::Qc(qc));
        }),
        ("timeout certificate", |lab, _, _| {
            let mut tc = lab.tc(1, &OTHERS, None, 0);
            forge(&mut tc.signature, lab);
            lab.receive(1, ConsensusMessage::Tc(tc));
        }),
        ("commit certificate", |lab, block, _| {
            let mut commit = lab.commit_qc(block, &OTHERS);
            forge(&mut commit.signature, lab);
            lab.receive(1, ConsensusMessage::CommitQc(commit));
        }),
        ("prepare certificate in a timeout", |lab, _, qc| {
            let mut qc = qc.clone();
            forge(&mut qc.signature, lab);
            let timeout = lab.timeout(1, 2, Some(&qc));
            lab.receive(1, timeout);
        }),
        ("prepare certificate in a commit", |lab, block, qc| {
            let mut qc = qc.clone();
            forge(&mut qc.signature, lab);
            let signed = lab.sign(1, Lab::commit_vote(block));
            lab.receive(1, ConsensusMessage::Commit(Epoch::ZERO, types::Commit { signed, qc }));
        }),
        ("timeout certificate in a header", |lab, _, _| {
            let mut tc = lab.tc(1, &OTHERS, None, 0);
            forge(&mut tc.signature, lab);
            let block = lab.block(2, None, Some(tc), b"skips");
            lab.propose(&block);
        }),
        ("commit certificate in a header", |lab, block, qc| {
            let mut commit = lab.commit_qc(block, &OTHERS);
            forge(&mut commit.signature, lab);
            let mut next = lab.block(2, Some(qc), None, b"next");
            next.header.last_commit = Some(commit);
            lab.propose(&next);
        }),
        ("commit certificate in a fetched range", |lab, block, _| {
            let mut bad = lab.commit_qc(block, &OTHERS);
            forge(&mut bad.signature, lab);
            // A head of view 0, so that the view stays.
            let head = CommitVote { view: View::ZERO, ..Lab::commit_vote(&lab.chain(3)[2].0) };
            let head = lab.commit_qc_of(head, &OTHERS);
            lab.receive(1, ConsensusMessage::CommitQc(head));
            lab.pass(60);
            let (id, peer, _) = lab.fetch().expect("three blocks are missing");
            lab.fetched(id, vec![Lab::stored(block, Some(bad))], None);
            assert_eq!(lab.me().unfinalized_len(), 0, "nothing proves it");
            // Whoever sends it is not accused of a certificate it may have been given; of a head it is.
            let mut head = lab.commit_qc(block, &OTHERS);
            forge(&mut head.signature, lab);
            lab.pass(110);
            let (id, again, _) = lab.fetch().expect("it asks on");
            assert_eq!(again, peer, "its run waits for a proof");
            lab.fetched(id, Vec::new(), Some(head));
        }),
    ];
    for (way, send) in ways {
        let mut lab = Lab::new();
        let (block, qc) = lab.chain(1).remove(0);
        send(&mut lab, &block, &qc);
        assert_eq!(lab.accused().len(), 1, "{way}");
        assert_eq!((lab.me().view(), lab.height()), (view(1), 0), "{way}");
        assert!(lab.me().sign_state().high_qc.is_none() && lab.prepared().is_empty(), "{way}");
    }
}

#[test]
fn a_proposal_counts_only_from_its_proposer_and_with_its_signature() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"1");
    let proposer = lab.proposer(1);
    let other = OTHERS.into_iter().find(|other| *other != proposer).unwrap();
    let ConsensusMessage::Proposal(epoch, proposal) = lab.proposal(&block) else { unreachable!() };
    let vote = proposal.signed.statement;
    let mut unsigned = proposal.clone();
    unsigned.signed.signature = lab.sign(other, vote).signature;
    lab.receive(proposer, ConsensusMessage::Proposal(epoch, unsigned));
    assert_eq!(lab.accused(), [proposer]);
    // Another validator's block, in its own name and in the proposer's.
    let mut own = proposal.clone();
    own.signed = lab.sign(other, vote);
    lab.receive(other, ConsensusMessage::Proposal(epoch, own));
    lab.receive(other, ConsensusMessage::Proposal(epoch, proposal.clone()));
    let mut stolen = block.clone();
    stolen.header.proposer = index(other);
    lab.receive(proposer, {
        let vote = types::ProposalVote { view: view(1), block_hash: stolen.header.hash() };
        let signed = lab.sign(proposer, vote);
        let proposal = types::Proposal { signed, block: stolen, again: None };
        ConsensusMessage::Proposal(epoch, Box::new(proposal))
    });
    assert_eq!(lab.accused(), [proposer, other, other, proposer]);
    assert!(lab.prepared().is_empty());
}

// Bounds.

#[test]
fn a_long_run_of_failed_views_fills_neither_the_tree_nor_the_way_back_after_a_restart() {
    let mut lab = Lab::new();
    let certified = lab.block(1, None, None, b"certified");
    let qc = lab.qc(&certified, &OTHERS);
    lab.propose(&certified);
    lab.receive(1, ConsensusMessage::Qc(qc.clone()));
    for number in 2..=600 {
        let skipped = (number > 2).then(|| lab.tc(number - 1, &OTHERS, Some(&qc), 1));
        let failed = lab.block(number, Some(&qc), skipped, &number.to_le_bytes());
        lab.propose(&failed);
        let tc = lab.tc(number, &OTHERS, Some(&qc), 1);
        lab.receive(1, ConsensusMessage::Tc(tc));
        assert!(lab.me().unfinalized_len() < 40, "{} in view {number}", lab.me().unfinalized_len());
    }
    for restart in [false, true] {
        if restart {
            lab.start().unwrap();
            assert!(lab.me().unfinalized_len() < 40);
        }
        let number = lab.me().view().get();
        let tc = lab.tc(number, &OTHERS, Some(&qc), 1);
        lab.receive(1, ConsensusMessage::Tc(tc.clone()));
        let block = lab.block(number + 1, Some(&qc), Some(tc), b"at last");
        lab.propose(&block);
        assert_eq!(lab.prepared().last(), Some(&Lab::link(&block)), "restarted: {restart}");
    }
}

#[test]
fn a_block_dropped_from_the_tree_comes_back_from_the_own_store_when_it_is_certified_late() {
    let mut lab = Lab::new();
    let late = lab.block(1, None, None, b"late");
    lab.propose(&late);
    for number in 1..=20 {
        let tc = lab.tc(number, &OTHERS, None, 0);
        lab.receive(1, ConsensusMessage::Tc(tc));
    }
    assert_eq!(lab.me().unfinalized_len(), 0);
    let qc = lab.qc(&late, &OTHERS);
    lab.receive(1, ConsensusMessage::Qc(qc));
    assert!(lab.me().unfinalized(&late.header.hash()).is_some());
    assert!(lab.fetch().is_none());
}

#[test]
fn a_view_is_given_up_at_once_with_a_third_of_stake_that_gave_it_up_or_a_later_one_and_not_with_less() {
    for at in [1, 5] {
        let mut lab = Lab::new();
        let [first, second] = [1, 2].map(|by| lab.timeout(by, at, None));
        lab.receive(1, first.clone());
        lab.receive(1, first);
        assert_eq!(lab.timed_out(), [], "one of four, view {at}");
        lab.receive(2, second);
        assert_eq!(lab.timed_out(), [view(1)], "two of four, view {at}");
    }
}

#[test]
fn an_old_timeout_is_answered_once_per_view_and_pause() {
    let mut lab = Lab::new();
    for number in 1..=3 {
        let tc = lab.tc(number, &OTHERS, None, 0);
        lab.receive(1, ConsensusMessage::Tc(tc));
    }
    lab.sent.clear();
    let (old, older) = (lab.timeout(0, 2, None), lab.timeout(0, 1, None));
    for _ in 0..50 {
        lab.receive(0, old.clone());
        lab.receive(0, older.clone());
    }
    let answers = |lab: &Lab| lab.sent.iter().filter(|sent| matches!(sent, Outbound::Send(..))).count();
    assert_eq!(answers(&lab), 1);
    lab.pass(lab.settings.timing.delta_ms);
    lab.receive(0, old);
    assert_eq!(answers(&lab), 2);
}

// The executor.

#[test]
fn an_executor_that_chokes_on_a_block_still_serves_all_others() {
    let mut lab = Lab::new();
    lab.chokes_on = Some(b"chokes".to_vec());
    let poison = lab.block(1, None, None, b"chokes");
    lab.propose(&poison);
    lab.pass(2_000);
    assert!(lab.timed_out().contains(&view(1)), "the executor lives, so the view is given up");
    let tc = lab.tc(1, &OTHERS, None, 0);
    lab.receive(1, ConsensusMessage::Tc(tc.clone()));
    let good = lab.block(2, None, Some(tc), b"good");
    lab.propose(&good);
    lab.pass(500);
    assert_eq!(lab.prepared(), [Lab::link(&good)]);
    lab.given.clear();
    lab.pass(60_000);
    let tries = lab.given.iter().filter(|hash| **hash == poison.header.hash()).count();
    assert!(tries < 20, "{tries} tries in a minute");
}

#[test]
fn a_restart_with_the_executor_ahead_never_asks_it_about_siblings_of_its_final_block() {
    let mut lab = Lab::new();
    let sibling = lab.block(1, None, None, b"sibling");
    lab.propose(&sibling);
    let tc = lab.tc(1, &OTHERS, None, 1);
    lab.receive(1, ConsensusMessage::Tc(tc.clone()));
    let block = lab.block(2, None, Some(tc), b"block");
    lab.propose(&block);
    let choice = |hash| types::engine::Forkchoice { head: hash, safe: hash, finalized: hash };
    lab.executor.forkchoice(choice(block.header.hash())).unwrap();
    lab.given.clear();
    lab.start().unwrap();
    assert_eq!(lab.given, [block.header.hash()]);
    assert_eq!(lab.height(), 0, "nothing proves it final yet");
    let commit = lab.commit_qc(&block, &OTHERS);
    lab.receive(1, ConsensusMessage::CommitQc(commit));
    assert_eq!(lab.height(), 1);
}

#[test]
fn a_sibling_given_while_a_block_is_made_final_is_no_failure_of_the_executor() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"block");
    lab.propose(&block);
    let tc = lab.tc(1, &OTHERS, None, 1);
    lab.receive(1, ConsensusMessage::Tc(tc.clone()));
    let sibling = lab.block(2, None, Some(tc), b"sibling");
    lab.answers = false;
    lab.propose(&sibling);
    // The question about the sibling is on its way when the certificate arrives; its answer comes first.
    let commit = lab.commit_qc(&block, &OTHERS);
    lab.receive(1, ConsensusMessage::CommitQc(commit));
    let hash = block.header.hash();
    let finalized =
        lab.executor.forkchoice(types::engine::Forkchoice { head: hash, safe: hash, finalized: hash });
    let refused = lab.executor.new_payload(&sibling);
    assert!(refused.is_err());
    lab.input(Input::Engine(EngineReply::Judged { block_hash: sibling.header.hash(), result: refused }));
    lab.input(Input::Engine(EngineReply::Finalized { block_hash: hash, result: finalized }));
    assert_eq!(lab.height(), 1);
    assert!(lab.me().status(lab.now).reasons.is_empty(), "{:?}", lab.me().status(lab.now).reasons);
}

#[test]
fn a_lone_validator_notices_that_its_executor_forgot_the_parent() {
    let mut lab = Lab::of(&[1], Some(0));
    lab.pass(500);
    lab.answers = false;
    lab.asked.clear();
    // It asks to build on a block that only its executor's memory held, and the executor restarted unnoticed.
    let (id, request) = lab.until_build();
    let error = types::engine::EngineError::UnknownBlock(request.parent_hash);
    lab.asked.clear();
    lab.input(Input::Engine(EngineReply::Built { id, result: Err(error) }));
    lab.pass(300);
    assert!(lab.asked.iter().any(|request| matches!(request, Request::FinalizedState)), "{:?}", lab.asked);
}

#[test]
fn an_executor_that_computes_another_state_for_a_final_block_is_an_alarm() {
    let mut lab = Lab::new();
    let chain = lab.chain(2);
    for (block, _) in &chain {
        lab.propose(block);
        let commit = lab.commit_qc(block, &OTHERS);
        lab.receive(1, ConsensusMessage::CommitQc(commit));
    }
    assert_eq!(lab.height(), 2);
    // Its data directory was lost; it replays, and gets something else.
    lab.executor = sim::executor::SimExecutor::new(GENESIS);
    lab.executor.lies = true;
    lab.answers = false;
    let head = lab.executor.head();
    lab.input(Input::Engine(EngineReply::Up(head)));
    let hash = chain[0].0.header.hash();
    let result = Ok(types::engine::PayloadStatus::Valid {
        state_hash: B256::repeat_byte(9),
        receipts_hash: chain[0].0.header.receipts_hash,
        next_validators: None,
    });
    lab.input(Input::Engine(EngineReply::Judged { block_hash: hash, result }));
    assert_eq!(lab.alarms(), 1);
    assert!(!lab.sent.iter().rev().take(2).any(|sent| matches!(sent, Outbound::Finalize(_))));
}

#[test]
fn an_executor_with_another_final_block_is_an_alarm_below_at_and_above_the_own_height() {
    for at in 1..=3 {
        let mut lab = Lab::new();
        let chain = lab.chain(3);
        for (block, _) in &chain[..2] {
            lab.propose(block);
            let commit = lab.commit_qc(block, &OTHERS);
            lab.receive(1, ConsensusMessage::CommitQc(commit));
        }
        let mut head = lab.executor.head();
        (head.height, head.block_hash) = (Height::new(at), B256::repeat_byte(0xbb));
        lab.answers = false;
        lab.input(Input::Engine(EngineReply::Up(head)));
        // Above: only when the third block is proven final.
        lab.propose(&chain[2].0);
        let commit = lab.commit_qc(&chain[2].0, &OTHERS);
        lab.receive(1, ConsensusMessage::CommitQc(commit));
        assert_eq!(lab.alarms(), 1, "at height {at}");
    }
}

// The disk.

/// E4 after a crash: a certificate with the own signature must never be on disk without the vote (ADR 5).
#[test]
fn power_lost_at_any_write_leaves_no_certificate_without_the_own_vote_in_it() {
    let mut certificates = 0;
    let points = [CrashPoint::Before, CrashPoint::After(1), CrashPoint::After(2), CrashPoint::Complete];
    for (spared, point) in (0..12).flat_map(|spared| points.map(|point| (spared, point))) {
        let mut lab = Lab::of(&[1], Some(0));
        (lab.disk.crash, lab.disk.spared) = (Some(point), spared);
        lab.pass(20_000);
        assert!(lab.replica.is_none(), "power goes at the latest at write {spared}");
        let recovered = lab.disk.recover();
        if let Some(commit) = recovered.commit {
            let own = recovered.sign_state.and_then(|state| state.last_commit);
            assert!(
                own.is_some_and(|own| own.statement.view >= commit.vote.view),
                "{point:?} after {spared}"
            );
            certificates += 1;
        }
    }
    assert!(certificates > 0);
}

#[test]
fn an_own_block_whose_proposal_was_never_signed_on_disk_gets_no_vote() {
    let mut lab = Lab::leading();
    let tc = lab.tc(1, &LED, None, 0);
    lab.disk.crash = Some(CrashPoint::After(1));
    lab.receive(1, ConsensusMessage::Tc(tc.clone()));
    lab.pass(2_000);
    assert!(lab.replica.is_none(), "power goes between the block and the sign-state");
    lab.start().unwrap();
    assert!(lab.disk.sign_state().is_none() && lab.me().unfinalized_len() == 1);
    lab.receive(1, ConsensusMessage::Tc(tc));
    lab.pass(300);
    let proposed: Vec<_> = lab
        .messages()
        .filter_map(|message| match message {
            ConsensusMessage::Proposal(_, proposal) => Some(proposal.signed.statement.block_hash),
            _ => None,
        })
        .collect();
    let voted: Vec<_> = lab.prepared().iter().map(|vote| vote.block_hash).collect();
    assert_eq!((proposed.len(), &voted), (1, &proposed));
}

// Catching up.

#[test]
fn final_blocks_without_own_certificates_are_caught_up_on_though_each_answer_holds_one() {
    let mut lab = Lab::new();
    let chain = lab.chain(20);
    let head = lab.commit_qc(&chain[19].0, &OTHERS);
    lab.receive(1, ConsensusMessage::CommitQc(head));
    let mut peers = Vec::new();
    while lab.height() < 20 {
        lab.pass(110);
        let (id, peer, request) = lab.fetch().unwrap_or_else(|| panic!("stuck at {}", lab.height()));
        let at = match request {
            FetchRequest::Finalized { from, .. } => from.get() as usize - 1,
            FetchRequest::ByHash(hash) => chain.iter().position(|(b, _)| b.header.hash() == hash).unwrap(),
        };
        peers.push(peer);
        assert!(peers.len() <= 40, "it asks again and again: {peers:?}");
        // Only every tenth height has a certificate of its own.
        let commit = (at % 10 == 9).then(|| lab.commit_qc(&chain[at].0, &OTHERS));
        lab.fetched(id, vec![Lab::stored(&chain[at].0, commit)], None);
    }
    assert!(lab.accused().is_empty(), "nobody lied");
}

#[test]
fn a_peer_that_never_proves_what_it_sends_costs_bounded_memory_and_time() {
    let mut lab = Lab::new();
    let chain = lab.chain(200);
    let head = lab.commit_qc(&chain[199].0, &OTHERS);
    lab.receive(1, ConsensusMessage::CommitQc(head));
    let mut first = None;
    for answers in 0..200 {
        lab.pass(110);
        let (id, peer, request) = lab.fetch().expect("it goes on asking");
        let FetchRequest::Finalized { from, .. } = request else { panic!("{request:?}") };
        if *first.get_or_insert(peer) != peer {
            return assert!(answers <= 64, "{answers} answers of one peer");
        }
        let block = &chain[from.get() as usize - 1].0;
        lab.fetched(id, vec![Lab::stored(block, None)], None);
        assert_eq!(lab.me().unfinalized_len(), 0, "nothing unproven is stored");
    }
    panic!("the same peer was asked for ever");
}

#[test]
fn a_halted_follower_rests() {
    let mut lab = Lab::of(&lab::STAKES, None);
    lab.pass(600);
    let mut head = lab.executor.head();
    head.block_hash = B256::repeat_byte(0xbb);
    lab.input(Input::Engine(EngineReply::Up(head)));
    assert_eq!(lab.alarms(), 1);
    lab.asked.clear();
    // The bench refuses deadlines in the past.
    lab.pass(5_000);
    lab.input(Input::Tick);
    assert!(lab.asked.is_empty());
}

#[test]
fn answers_stay_below_what_the_transport_takes() {
    let mut lab = Lab::new();
    let mut parent = None;
    for number in 1..=8u64 {
        let block = lab.block(number, parent.as_ref(), None, &vec![number as u8; 3 << 20]);
        lab.propose(&block);
        parent = Some(lab.qc(&block, &OTHERS));
        let commit = lab.commit_qc(&block, &OTHERS);
        lab.receive(1, ConsensusMessage::CommitQc(commit));
    }
    assert_eq!(lab.height(), 8);
    let request = FetchRequest::Finalized { from: Height::new(1), count: 64 };
    let answer: FetchResponse = lab.me().serve(&request, &lab.disk).unwrap();
    assert!(!answer.blocks.is_empty());
    assert!(types::encode(&answer).len() <= types::limits::FETCH_BYTES_MAX);
}

// Certificates and alarms.

#[test]
fn whoever_knows_more_than_the_timeout_certificate_tells_the_next_leader() {
    let mut lab = Lab::new();
    let chain = lab.chain(1);
    lab.propose(&chain[0].0);
    lab.receive(1, ConsensusMessage::Qc(chain[0].1.clone()));
    assert_eq!(lab.me().view(), view(2));
    lab.sent.clear();
    let tc = lab.tc(2, &OTHERS, None, 0);
    lab.receive(1, ConsensusMessage::Tc(tc));
    let leader = index(lab.proposer(3));
    let told = Outbound::Send(leader, ConsensusMessage::Qc(chain[0].1.clone()));
    assert!(lab.sent.contains(&told), "{:?}", lab.sent);
}

#[test]
fn two_final_blocks_at_one_height_are_an_alarm() {
    for finalized in [false, true] {
        let mut lab = Lab::new();
        let (one, two) = (lab.block(1, None, None, b"one"), lab.block(1, None, None, b"two"));
        if finalized {
            lab.propose(&one);
        }
        for block in [&one, &two] {
            let commit = lab.commit_qc(block, &OTHERS);
            lab.receive(1, ConsensusMessage::CommitQc(commit));
        }
        assert_eq!(lab.alarms(), 1);
    }
}

#[test]
fn nothing_is_proposed_after_an_alarm_even_if_the_payload_was_under_way() {
    let mut lab = Lab::leading();
    lab.answers = false;
    let tc = lab.tc(1, &LED, None, 0);
    lab.receive(1, ConsensusMessage::Tc(tc));
    let (id, request) = lab.until_build();
    let built = lab.executor.build(&request, vec![1]);
    for payload in [b"one", b"two"] {
        // Of an earlier view, so that the leader stays where it is.
        let vote = CommitVote {
            view: View::ZERO,
            height: Height::new(1),
            block_hash: lab.block(1, None, None, payload).header.hash(),
        };
        let commit = lab.commit_qc_of(vote, &LED);
        lab.receive(1, ConsensusMessage::CommitQc(commit));
    }
    lab.input(Input::Engine(EngineReply::Built { id, result: built }));
    let proposed = lab.messages().any(|message| matches!(message, ConsensusMessage::Proposal(..)));
    assert_eq!((lab.alarms(), proposed), (1, false));
}

#[test]
fn a_directory_of_another_validator_is_refused() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"1");
    lab.propose(&block);
    lab.settings.keys = vec![lab::key(0)];
    let refused = lab.start();
    assert!(
        matches!(refused, Err(StartError::ForeignSignState { found: Some(found), .. }) if found == index(ME))
    );
}

#[test]
fn a_liar_spoils_an_aggregate_once_per_view_and_is_reported_once() {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"1");
    let link = Lab::link(&block);
    let mut lie = lab.sign(0, link);
    lie.signature = lab.sign(1, link).signature;
    let honest = lab.sign(1, link);
    lab.propose(&block);
    lab.receive(1, ConsensusMessage::Prepare(Epoch::ZERO, honest));
    for _ in 0..20 {
        lab.receive(0, ConsensusMessage::Prepare(Epoch::ZERO, lie.clone()));
    }
    assert_eq!(lab.accused(), [0]);
    assert_eq!(lab.me().view(), view(1));
    let last = lab.sign(2, link);
    lab.receive(2, ConsensusMessage::Prepare(Epoch::ZERO, last));
    assert_eq!(lab.me().view(), view(2), "honest stake alone is a quorum");
}
