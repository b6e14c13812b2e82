//! Twins scenarios as tests; `sim twins` goes through larger sets.
#![allow(clippy::unwrap_used, missing_docs)]

use sim::twins::{ACROSS, Bounds, Scenario, Space, Tally, splits};

const TWO_VIEWS: Bounds = Bounds { rounds: 2, groups: 2, phases: false };

fn run_all(space: &Space, numbers: impl Iterator<Item = u64>) -> Tally {
    let mut tally = Tally::default();
    for number in numbers {
        for across in ACROSS {
            let scenario = Scenario { rounds: space.rounds(number), across };
            let report = space.run(&scenario).unwrap_or_else(|what| panic!("scenario {number}: {what}"));
            tally.add(&report);
        }
    }
    tally
}

#[test]
fn all_leaders_and_two_group_networks_of_two_views_are_safe_and_end_in_progress() {
    let space = Space::new(TWO_VIEWS);
    let first = |number: &u64| space.is_first(&space.rounds(*number));
    let tally = run_all(&space, (0..space.len()).filter(first));
    assert_eq!(tally.scenarios, 510 * 4);
    assert!(
        tally.guilty > tally.scenarios / 2,
        "twins that never sign a slashable pair test nothing: {tally:?}"
    );
}

#[test]
fn random_scenarios_of_three_views_with_votes_on_networks_of_their_own_are_safe_and_end_in_progress() {
    let space = Space::new(Bounds { rounds: 3, groups: 2, phases: true });
    let tally = run_all(&space, (1_000_000..1_000_300).map(|turn| space.sample(turn)));
    // Refusals by the lock are rare here; the swarm has them.
    for what in ["guard refusals (prepared later)", "guard refusals (given up)", "late QCs"] {
        assert!(tally.coverage.of(what) > 0, "{what}: {}", tally.coverage);
    }
}

#[test]
fn of_scenarios_that_differ_in_names_only_exactly_one_is_run() {
    assert_eq!((splits(2).len(), splits(5).len()), (16, 52), "Stirling numbers");
    let space = Space::new(Bounds { rounds: 1, groups: 5, phases: false });
    let run = (0..space.len()).filter(|number| space.is_first(&space.rounds(*number))).count();
    let orbits = orbits_by_definition(&space);
    assert_eq!(run, orbits);
}

/// Scenarios of one view up to renaming, from invariants: how the leader's kind and the groups look without names.
fn orbits_by_definition(space: &Space) -> usize {
    let look = |number| {
        let round = space.rounds(number)[0];
        // A group as (ordinary members without the leader, the leader's in it, twins in it).
        let mut groups = std::collections::BTreeMap::<u8, (u8, bool, u8)>::new();
        for (node, group) in round.proposals.iter().enumerate() {
            let look = groups.entry(*group).or_default();
            match node {
                3 | 4 => look.2 += 1,
                _ if node == usize::from(round.leader) => look.1 = true,
                _ => look.0 += 1,
            }
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort();
        (round.leader == 3, groups)
    };
    (0..space.len()).map(look).collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn the_same_scenario_gives_the_same_run() {
    let space = Space::new(TWO_VIEWS);
    let twice = [(); 2].map(|()| run_all(&space, 1000..1010).trace);
    assert_eq!(twice[0], twice[1]);
}
