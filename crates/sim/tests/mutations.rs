//! Do the tests notice? Each test injects one bug into consensus and asserts that a scenario, the Twins or the swarm
//! catches it within a fixed budget of seeds, and that the same passes without the bug (specs/mutations.md).
//!
//! `cargo test --release -p sim --features mutations --test mutations`
#![cfg(feature = "mutations")]
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use consensus::{EngineReply, Input};
use lab::{Lab, OTHERS, view};
use sim::twins::{ACROSS, Bounds, Scenario, Space};
use sim::{Plan, World};
use types::mutation::{Mutation, with};
use types::{ConsensusMessage, Domain, View};

/// A scenario: what is wrong, if anything is.
type Check = fn() -> Result<(), String>;

/// Scenario, name of the bug, and what the complaint must say, one thing "or" another.
fn caught_by(check: Check, mutation: Mutation, complaint: &str) {
    check().unwrap_or_else(|what| panic!("fails without the bug: {what}"));
    match with(Some(mutation), check) {
        Ok(()) => panic!("{mutation:?} survives"),
        Err(what) => {
            let right = complaint.split(" or ").any(|right| what.contains(right));
            assert!(right, "{mutation:?} is caught for another reason: {what}");
            println!("{mutation:?} caught: {}", what.lines().next().unwrap_or_default());
        }
    }
}

fn expect(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

// The networks.

/// Runs seeds until one fails.
fn swarm(seeds: std::ops::Range<u64>, plan: impl Fn(u64) -> Plan) -> Result<(), String> {
    seeds.into_iter().try_for_each(|seed| {
        World::new(plan(seed)).run().map(drop).map_err(|what| format!("seed {seed}: {what}"))
    })
}

fn twins(turns: std::ops::Range<u64>) -> Result<(), String> {
    let space = Space::new(Bounds { rounds: 3, groups: 2, phases: true });
    turns.into_iter().try_for_each(|turn| {
        ACROSS.into_iter().try_for_each(|across| {
            let scenario = Scenario { rounds: space.rounds(space.sample(turn)), across };
            space.run(&scenario).map(drop).map_err(|what| format!("turn {turn}: {what}"))
        })
    })
}

#[test]
fn no_guard_is_caught_by_twins() {
    caught_by(|| twins(0..150), Mutation::NoGuard, "SLASHABLE");
}

#[test]
fn a_guard_that_forgets_prepares_is_caught_by_twins() {
    caught_by(|| twins(0..150), Mutation::NoPreparedGuard, "SLASHABLE");
}

#[test]
fn a_guard_that_forgets_timeouts_is_caught_by_twins() {
    caught_by(|| twins(0..150), Mutation::NoTimeoutGuard, "SLASHABLE");
}

#[test]
fn no_lock_is_caught_by_the_swarm() {
    caught_by(|| swarm(0..300, Plan::from_seed), Mutation::NoLock, "SLASHABLE");
}

#[test]
fn sending_before_the_fsync_is_caught_by_the_swarm() {
    caught_by(|| swarm(0..100, Plan::from_seed), Mutation::SendBeforeFsync, "not durable");
}

#[test]
fn votes_and_proofs_in_one_batch_are_caught_by_the_swarm() {
    caught_by(|| swarm(0..300, Plan::from_seed), Mutation::OneBatch, "PROOF WITHOUT THE VOTE");
}

#[test]
fn a_quorum_by_count_is_caught_by_the_swarm() {
    let uneven = || swarm(0..50, |seed| Plan::with_stakes(seed, &[100, 100, 100, 1, 1, 1, 1]));
    caught_by(uneven, Mutation::QuorumByCount, "two thirds");
}

#[test]
fn a_quorum_of_one_unit_less_is_caught_by_the_swarm() {
    caught_by(
        || swarm(0..50, |seed| Plan::with_stakes(seed, &[1; 4])),
        Mutation::QuorumMinusOne,
        "two thirds",
    );
}

#[test]
fn building_on_a_boundary_that_is_not_final_is_caught_by_the_swarm() {
    // Epochs shorter than a message delay show other symptoms of it first.
    use sim::plan::DEFAULT_PACE_MS as PACE_MS;
    let short = || {
        swarm(0..100, |seed| Plan { epoch_length: 4, pace_ms: PACE_MS, ..Plan::with_stakes(seed, &[1; 4]) })
    };
    // A node that is left behind asks for ever for what nobody can prove to it, or two begin the epoch at other blocks.
    let complaint = "NOT LIVE or BUSY LOOP or wrong justification for its place in the epoch";
    caught_by(short, Mutation::BoundaryWithoutFinality, complaint);
}

// One replica on a bench.

fn a_late_certificate_leaves_the_lock_alone() -> Result<(), String> {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"late");
    lab.propose(&block);
    lab.pass(5_000);
    assert_eq!(lab.timed_out()[0], view(1), "it gave the view up");
    let tc = lab.tc(1, &OTHERS, None, 1);
    lab.receive(1, ConsensusMessage::Tc(tc));
    let qc = lab.qc(&block, &OTHERS);
    lab.receive(1, ConsensusMessage::Qc(qc));
    let state = lab.me().sign_state();
    assert_eq!(state.high_qc.as_ref().map_or(View::ZERO, |qc| qc.view()), view(1), "it is learnt");
    expect(state.lock.is_none(), "a certificate learnt late raised the lock")
}

#[test]
fn locking_on_a_late_certificate_is_caught_on_the_bench() {
    caught_by(a_late_certificate_leaves_the_lock_alone, Mutation::LockOnLateQc, "raised the lock");
}

fn a_certificate_is_no_verdict() -> Result<(), String> {
    let mut lab = Lab::new();
    lab.answers = false;
    let block = lab.block(1, None, None, b"a");
    lab.propose(&block);
    let qc = lab.qc(&block, &OTHERS);
    lab.receive(1, ConsensusMessage::Qc(qc));
    expect(lab.committed().is_empty(), "committed what the own executor did not judge")?;
    let result = lab.executor.new_payload(&block);
    lab.input(Input::Engine(EngineReply::Judged { block_hash: block.header.hash(), result }));
    assert_eq!(lab.committed(), [Lab::commit_vote(&block)]);
    Ok(())
}

#[test]
fn committing_without_a_verdict_is_caught_on_the_bench() {
    caught_by(a_certificate_is_no_verdict, Mutation::CommitUnexecuted, "did not judge");
}

fn only_the_last_views_timeout_certificate_justifies_a_skip() -> Result<(), String> {
    let mut lab = Lab::new();
    let stale = lab.tc(1, &OTHERS, None, 0);
    for number in 1..=2 {
        let tc = lab.tc(number, &OTHERS, None, 0);
        lab.receive(1, ConsensusMessage::Tc(tc));
    }
    let block = lab.block(3, None, Some(stale), b"3");
    lab.propose(&block);
    expect(lab.prepared().is_empty(), "prepared with a stale timeout certificate")
}

#[test]
fn a_stale_timeout_certificate_is_caught_on_the_bench() {
    let check = only_the_last_views_timeout_certificate_justifies_a_skip;
    caught_by(check, Mutation::StaleTc, "stale timeout certificate");
}

fn nothing_is_prepared_below_what_a_quorum_reported() -> Result<(), String> {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"certified");
    let qc = lab.qc(&block, &OTHERS);
    let tc = lab.tc(2, &OTHERS, Some(&qc), 1);
    lab.receive(1, ConsensusMessage::Tc(tc.clone()));
    let below = lab.block(3, None, Some(tc), b"below it");
    lab.propose(&below);
    expect(lab.prepared().is_empty(), "prepared below the timeout certificate's report")
}

#[test]
fn a_link_below_the_timeout_certificate_is_caught_on_the_bench() {
    caught_by(nothing_is_prepared_below_what_a_quorum_reported, Mutation::BelowTc, "below the timeout");
}

fn a_forged_source_is_refused() -> Result<(), String> {
    let mut lab = Lab::new();
    let chain = lab.chain(1);
    let (parent, good) = &chain[0];
    lab.propose(parent);
    let mut forged = good.clone();
    forged.signature = lab.qc(parent, &[0, 1]).signature;
    let block = lab.block(2, Some(&forged), None, b"on a forged certificate");
    lab.propose(&block);
    expect(lab.prepared() == [Lab::link(parent)], "prepared on a certificate nobody verified")
}

#[test]
fn an_unverified_source_is_caught_on_the_bench() {
    caught_by(a_forged_source_is_refused, Mutation::UnverifiedSource, "nobody verified");
}

fn certificates_of_another_chain_are_refused() -> Result<(), String> {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"a");
    let own = lab.domain;
    lab.domain = Domain { chain_id: own.chain_id + 1, ..own };
    let qc = lab.qc(&block, &OTHERS);
    lab.receive(1, ConsensusMessage::Qc(qc));
    expect(lab.me().view() == view(1), "a certificate of another chain was believed")
}

#[test]
fn a_domain_without_the_chain_is_caught_on_the_bench() {
    caught_by(certificates_of_another_chain_are_refused, Mutation::WrongDomain, "another chain");
}
