//! The checker finds what follows when a rule is missing, and the shortest way to it.
#![allow(clippy::unwrap_used, missing_docs)]

use model::network::{NEVER_SLASHABLE, ONE_CHAIN};
use model::search::shortest;
use model::{Alphabet, Lone, ModelError, Network, Settings, Timeouts, Weakness, lone};

const STEPS_MAX: usize = 16;

fn network(weakness: Weakness, timeouts: Timeouts) -> Result<Network, ModelError> {
    let (stakes, byzantine) = (vec![1, 1, 1, 1], vec![3]);
    let settings =
        Settings { stakes, byzantine, views: 3, variants: 1, last_height: None, timeouts, weakness };
    Network::new(settings)
}

/// Steps of the shortest trace to a fork.
fn fork(weakness: Weakness, timeouts: Timeouts) -> Option<usize> {
    let (actions, end) = shortest(|| network(weakness, timeouts), ONE_CHAIN, STEPS_MAX).unwrap()?;
    println!("{weakness:?}, timeouts {timeouts:?}: a fork after {} steps", actions.len());
    actions.iter().for_each(|action| println!("    {action:?}"));
    println!("  {end:?}");
    Some(actions.len())
}

/// Steps of the shortest trace of one validator to a slashable pair.
fn slashable(weakness: Weakness, alphabet: Alphabet) -> Option<usize> {
    let model = || Lone::new(3, alphabet, weakness);
    let (actions, _) = shortest(model, lone::NEVER_SLASHABLE, STEPS_MAX).unwrap()?;
    println!("{weakness:?}: slashable after {} steps: {actions:?}", actions.len());
    Some(actions.len())
}

#[test]
fn without_the_guard_a_vote_released_late_forks_the_chain() {
    assert_eq!(fork(Weakness::NoGuard, Timeouts::Free), Some(0));
    assert_eq!(fork(Weakness::NoGuard, Timeouts::Signed), Some(0));
    assert_eq!(slashable(Weakness::NoGuard, Alphabet::Votes), Some(2));
}

#[test]
fn without_the_lock_the_chain_forks() {
    assert_eq!(fork(Weakness::NoLock, Timeouts::Free), Some(0));
    assert_eq!(fork(Weakness::NoLock, Timeouts::Signed), Some(0));
    assert_eq!(slashable(Weakness::NoLock, Alphabet::Votes), Some(2));
}

#[test]
fn each_half_of_the_guard_is_missed() {
    assert_eq!(fork(Weakness::NoPrepareGuard, Timeouts::Free), Some(0));
    assert_eq!(slashable(Weakness::NoPrepareGuard, Alphabet::Votes), Some(2));
    assert_eq!(slashable(Weakness::NoTimeoutGuard, Alphabet::Votes), Some(2));
}

#[test]
fn a_validator_that_forgets_on_restart_forks_the_chain_and_is_slashable() {
    assert_eq!(fork(Weakness::Amnesia, Timeouts::Free), Some(0));
    assert_eq!(slashable(Weakness::Amnesia, Alphabet::Votes), Some(2));
    assert_eq!(slashable(Weakness::Amnesia, Alphabet::Proposals), Some(2));
}

#[test]
fn the_network_shows_the_slashable_pairs_too() {
    for weakness in [Weakness::NoGuard, Weakness::NoPrepareGuard, Weakness::NoTimeoutGuard, Weakness::NoLock]
    {
        let found = shortest(|| network(weakness, Timeouts::Signed), NEVER_SLASHABLE, STEPS_MAX).unwrap();
        assert!(found.is_some(), "{weakness:?}");
    }
}
