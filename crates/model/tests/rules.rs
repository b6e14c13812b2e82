//! The rules as they are, in every state within the bounds of specs/model.md; larger bounds are the binary's.
//!
//! Numbers of states are part of the claims: another number means that another rule was checked.
#![allow(clippy::unwrap_used, missing_docs)]

use model::network::{FINALITY, FORK, PASSED_OVER};
use model::search::{Explored, explore};
use model::{Alphabet, Lone, Network, Settings, Timeouts};

fn settings(stakes: &[u128], byzantine: &[u32], views: u8) -> Settings {
    Settings {
        stakes: stakes.to_vec(),
        byzantine: byzantine.to_vec(),
        views,
        variants: 2,
        last_height: None,
        timeouts: Timeouts::Signed,
        without: Vec::new(),
    }
}

/// Explores a network with less than a third of faulty stake; nothing breaks, and the interesting states are among those
/// seen. Returns the number of states.
fn one_chain(settings: Settings) -> usize {
    let model = Network::new(settings.clone()).unwrap();
    assert!(model.within_assumption());
    let Explored { distinct, depth, broken, reached } = explore(model);
    println!("{settings:?}: {distinct} states, depth {depth}");
    assert_eq!(broken, [""; 0]);
    assert_eq!(reached, [FINALITY, PASSED_OVER]);
    distinct
}

/// Explores a network with more; every fork is paid for, and there are forks. Returns the number of states.
fn paid_for(settings: Settings) -> usize {
    let model = Network::new(settings.clone()).unwrap();
    assert!(!model.within_assumption());
    let Explored { distinct, depth, broken, reached } = explore(model);
    println!("{settings:?}: {distinct} states, depth {depth}");
    assert_eq!(broken, [""; 0]);
    assert_eq!(reached, [FINALITY, PASSED_OVER, FORK]);
    distinct
}

#[test]
fn four_validators_one_faulty_three_views_never_fork_and_nobody_honest_is_slashable() {
    assert_eq!(one_chain(settings(&[1, 1, 1, 1], &[3], 3)), 1_308_633);
}

#[test]
fn nor_do_they_when_timeout_certificates_cost_nothing() {
    let free = |views, variants| Settings {
        timeouts: Timeouts::Free,
        variants,
        ..settings(&[1, 1, 1, 1], &[3], views)
    };
    assert_eq!(one_chain(free(3, 2)), 107_504);
    assert_eq!(one_chain(free(4, 1)), 2_074_945);
}

#[test]
fn nor_does_a_network_whose_members_weigh_differently() {
    // Two light validators are faulty: the heavy one and one of them are a quorum.
    assert_eq!(one_chain(settings(&[4, 1, 1, 1], &[2, 3], 3)), 34_558);
    assert_eq!(one_chain(settings(&[34, 33, 33], &[2], 3)), 34_558);
    let honest = Settings { variants: 1, ..settings(&[34, 33, 33], &[], 3) };
    assert_eq!(one_chain(honest), 328_369);
}

#[test]
fn nor_does_an_epochs_last_block_that_is_proposed_again() {
    let boundary = Settings { last_height: Some(1), variants: 1, ..settings(&[1, 1, 1, 1], &[3], 3) };
    assert_eq!(one_chain(boundary.clone()), 308_138);
    let free = Settings { timeouts: Timeouts::Free, variants: 2, ..boundary };
    assert_eq!(one_chain(free), 57_351);
}

#[test]
fn nor_do_seven_validators_of_whom_two_are_faulty() {
    let seven = Settings { variants: 1, ..settings(&[1; 7], &[5, 6], 2) };
    assert_eq!(one_chain(seven), 45_981);
}

#[test]
fn with_half_the_stake_faulty_every_fork_convicts_a_third_and_nobody_honest() {
    assert_eq!(paid_for(settings(&[1, 1, 1, 1], &[2, 3], 3)), 145_199);
    // The heavy validator alone is more than a third.
    assert_eq!(paid_for(settings(&[4, 1, 1, 1], &[0], 2)), 83_344);
}

#[test]
fn no_environment_makes_an_honest_validator_sign_a_slashable_pair() {
    for (views, alphabet, states) in [(4, Alphabet::Votes, 28_837), (4, Alphabet::Proposals, 2_380)] {
        let explored = explore(Lone::new(views, alphabet, &[]).unwrap());
        assert_eq!((explored.broken, explored.reached.len()), (vec![], 1), "{alphabet:?}");
        assert_eq!(explored.distinct, states, "{alphabet:?}");
    }
}
