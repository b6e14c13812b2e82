//! The checker finds what follows when a rule is missing, and the shortest way to it.
#![allow(clippy::unwrap_used, missing_docs)]

use model::network::{NEVER_SLASHABLE, ONE_CHAIN};
use model::search::shortest;
use model::{Alphabet, Lone, ModelError, Network, Settings, Timeouts, Weakness, lone};

fn network(weakness: Weakness, timeouts: Timeouts) -> Result<Network, ModelError> {
    let (stakes, byzantine) = (vec![1, 1, 1, 1], vec![3]);
    let settings =
        Settings { stakes, byzantine, views: 3, variants: 1, last_height: None, timeouts, weakness };
    Network::new(settings)
}

/// Steps of the shortest trace to a fork; `None` when all states were seen and none is one.
fn fork(weakness: Weakness, timeouts: Timeouts) -> Option<usize> {
    let found = shortest(|| network(weakness, timeouts), ONE_CHAIN).unwrap();
    let steps = found.as_ref().map(|(actions, _)| actions.len());
    println!("{weakness:?}, timeouts {timeouts:?}: fork after {steps:?} steps");
    let (actions, end) = found?;
    actions.iter().for_each(|action| println!("    {action:?}"));
    println!("  {end:?}");
    steps
}

/// Steps of the shortest trace of one validator to a slashable pair.
fn slashable(weakness: Weakness, alphabet: Alphabet) -> Option<usize> {
    let found = shortest(|| Lone::new(3, alphabet, weakness), lone::NEVER_SLASHABLE).unwrap();
    println!("{weakness:?}: slashable: {found:?}");
    found.map(|(actions, _)| actions.len())
}

/// The published counterexample (specs/consensus.md, "The guard, and why"). Two steps longer when timeouts have to be signed.
#[test]
fn without_the_guard_a_vote_released_late_forks_the_chain() {
    assert_eq!(fork(Weakness::NoGuard, Timeouts::Free), Some(8));
    assert_eq!(fork(Weakness::NoGuard, Timeouts::Signed), Some(10));
    assert_eq!(slashable(Weakness::NoGuard, Alphabet::Votes), Some(2));
}

#[test]
fn each_half_of_the_guard_is_missed() {
    assert_eq!(fork(Weakness::NoPrepareGuard, Timeouts::Free), Some(8));
    assert_eq!(slashable(Weakness::NoPrepareGuard, Alphabet::Votes), Some(2));
    assert_eq!(slashable(Weakness::NoTimeoutGuard, Alphabet::Votes), Some(2));
}

#[test]
fn without_the_lock_the_chain_forks() {
    assert_eq!(fork(Weakness::NoLock, Timeouts::Free), Some(8));
    assert_eq!(fork(Weakness::NoLockNoReport, Timeouts::Signed), Some(10));
    assert_eq!(slashable(Weakness::NoLock, Alphabet::Votes), Some(2));
}

/// Lock and report hold the chain together each by itself; the lock alone keeps its owner from slashing.
#[test]
fn timeout_certificates_with_true_reports_are_a_second_net_below_the_lock() {
    assert_eq!(fork(Weakness::NoLock, Timeouts::Signed), None);
    assert_eq!(fork(Weakness::NoReport, Timeouts::Signed), None);
    assert!(shortest(|| network(Weakness::NoLock, Timeouts::Signed), NEVER_SLASHABLE).unwrap().is_some());
}

#[test]
fn the_halves_of_the_guard_are_a_second_net_below_each_other() {
    assert_eq!(fork(Weakness::NoPrepareGuard, Timeouts::Signed), None);
    assert_eq!(fork(Weakness::NoTimeoutGuard, Timeouts::Signed), None);
}

#[test]
fn a_validator_that_forgets_on_restart_forks_the_chain_and_is_slashable() {
    assert_eq!(fork(Weakness::Amnesia, Timeouts::Free), Some(8));
    assert_eq!(slashable(Weakness::Amnesia, Alphabet::Votes), Some(2));
    assert_eq!(slashable(Weakness::Amnesia, Alphabet::Proposals), Some(2));
}

#[test]
fn the_network_shows_the_slashable_pairs_too() {
    for weakness in [Weakness::NoGuard, Weakness::NoPrepareGuard, Weakness::NoTimeoutGuard, Weakness::NoLock]
    {
        let found = shortest(|| network(weakness, Timeouts::Signed), NEVER_SLASHABLE).unwrap();
        assert!(found.is_some(), "{weakness:?}");
    }
}
