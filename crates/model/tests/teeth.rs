//! The checker finds what follows when rules are missing, and the shortest way to it.
#![allow(clippy::unwrap_used, missing_docs)]

use model::network::{NEVER_SLASHABLE, ONE_CHAIN};
use model::search::{Trace, shortest};
use model::signer::Rule::{self, Lock, Memory, PrepareGuard, Report, TimeoutGuard};
use model::{Alphabet, Lone, ModelError, Network, Settings, Timeouts, lone};

fn network(without: &[Rule], timeouts: Timeouts) -> Result<Network, ModelError> {
    Network::new(Settings {
        stakes: vec![1, 1, 1, 1],
        byzantine: vec![3],
        views: 3,
        variants: 1,
        last_height: None,
        timeouts,
        without: without.to_vec(),
    })
}

/// Steps of the shortest trace to a fork; `None` when all states were seen and none is one.
fn fork(without: &[Rule], timeouts: Timeouts) -> Option<usize> {
    let found = shortest(|| network(without, timeouts), ONE_CHAIN).unwrap();
    let steps = found.as_ref().map(|trace| trace.actions.len());
    println!("without {without:?}, timeouts {timeouts:?}: a fork after {steps:?} steps");
    let Trace { actions, end } = found?;
    actions.iter().for_each(|action| println!("    {action:?}"));
    println!("  {end:?}");
    steps
}

/// Steps of the shortest trace of one validator to a slashable pair.
fn slashable(without: &[Rule], alphabet: Alphabet) -> Option<usize> {
    let found = shortest(|| Lone::new(3, alphabet, without), lone::NEVER_SLASHABLE).unwrap();
    let actions = found.map(|trace| trace.actions);
    println!("without {without:?}: slashable after {actions:?}");
    actions.map(|actions| actions.len())
}

/// The published counterexample (specs/consensus.md, "The guard, and why"); two steps more when timeouts are signed.
#[test]
fn without_the_guard_a_vote_released_late_forks_the_chain() {
    assert_eq!(fork(&[PrepareGuard, TimeoutGuard], Timeouts::Free), Some(8));
    assert_eq!(fork(&[PrepareGuard, TimeoutGuard], Timeouts::Signed), Some(10));
    assert_eq!(slashable(&[PrepareGuard, TimeoutGuard], Alphabet::Votes), Some(2));
}

/// Timeout certificates that report nothing leave the lock and the guard's first half alone with the chain.
#[test]
fn when_timeouts_prove_nothing_the_lock_and_half_the_guard_are_each_needed() {
    assert_eq!(fork(&[PrepareGuard], Timeouts::Free), Some(8));
    assert_eq!(fork(&[Lock], Timeouts::Free), Some(8));
    assert_eq!(fork(&[TimeoutGuard, Report], Timeouts::Free), None);
}

/// Two nets below each other: the lock with the guard's first half, and the report with its second. One hole forks
/// nothing, wherever it is; a hole in each forks.
fn forks_only_with_holes_in_both_nets(first: &[Rule]) {
    for second in [&[][..], &[TimeoutGuard], &[Report], &[TimeoutGuard, Report]] {
        let without = [first, second].concat();
        let holes = !first.is_empty() && !second.is_empty();
        assert_eq!(fork(&without, Timeouts::Signed), holes.then_some(10), "{without:?}");
    }
}

#[test]
fn with_the_first_net_whole_nothing_forks() {
    forks_only_with_holes_in_both_nets(&[]);
}

#[test]
fn without_the_first_half_of_the_guard_the_second_net_holds() {
    forks_only_with_holes_in_both_nets(&[PrepareGuard]);
}

#[test]
fn without_the_lock_the_second_net_holds() {
    forks_only_with_holes_in_both_nets(&[Lock]);
}

#[test]
fn without_both_the_second_net_holds() {
    forks_only_with_holes_in_both_nets(&[PrepareGuard, Lock]);
}

#[test]
fn every_missing_rule_but_the_report_makes_its_owner_slashable() {
    for rule in [PrepareGuard, TimeoutGuard, Lock, Memory] {
        assert_eq!(slashable(&[rule], Alphabet::Votes), Some(2), "{rule:?}");
        let found = shortest(|| network(&[rule], Timeouts::Signed), NEVER_SLASHABLE).unwrap();
        assert!(found.is_some(), "{rule:?}");
    }
    assert_eq!(slashable(&[Report], Alphabet::Votes), None);
    assert_eq!(slashable(&[Memory], Alphabet::Proposals), Some(2));
}

#[test]
fn validators_that_forget_on_restart_fork_the_chain() {
    assert_eq!(fork(&[Memory], Timeouts::Free), Some(8));
}
