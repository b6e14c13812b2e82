//! Two blocks shown final in conflict convict a third of stake, whichever signers their certificates show (C-8.2).
#![allow(clippy::unwrap_used, missing_docs)]

use model::evidence::{Shown, statements};
use model::universe::Point;
use model::{Court, Shape, Universe};

fn universe(stakes: &[u128], views: u8, last_height: Option<u8>) -> Universe {
    Universe::new(stakes, views, Shape::Tree { variants: 2, last_height }).unwrap()
}

fn court(universe: &Universe) -> Court {
    let stakes: Vec<u128> = universe.set().validators().iter().map(|v| v.stake.get()).collect();
    Court::new(&stakes, universe.set().quorum().get())
}

#[test]
fn every_conflict_within_four_views_convicts_a_third_of_stake_for_every_choice_of_signers() {
    for (stakes, last_height, conflicts) in [
        (&[1, 1, 1, 1][..], None, 3024),
        (&[1, 1, 1, 1], Some(1), 365),
        (&[1, 1, 1], None, 3024),
        (&[4, 1, 1, 1], None, 3024),
        (&[34, 33, 33], None, 3024),
        (&[3, 2, 2, 1, 1], None, 3024),
    ] {
        let universe = universe(stakes, 4, last_height);
        let searched = court(&universe).every_conflict(&universe).unwrap();
        println!("{stakes:?}, last height {last_height:?}: {searched:?}");
        assert_eq!(searched.conflicts, conflicts, "{stakes:?}");
    }
}

fn conflicts(universe: &Universe) -> Vec<(Point, Point)> {
    let blocks: Vec<Point> = (1..=universe.views()).flat_map(|view| universe.points(view)).collect();
    let pairs =
        blocks.iter().enumerate().flat_map(|(i, low)| blocks[i + 1..].iter().map(|high| (*low, *high)));
    pairs.filter(|(low, high)| universe.in_conflict(*low, *high)).collect()
}

/// The theorem needs the lower block's own prepare certificate; without it some choice of signers goes free.
#[test]
fn commit_certificates_and_one_branch_alone_convict_too_few() {
    let universe = universe(&[1, 1, 1, 1], 3, None);
    let court = court(&universe);
    let acquitted = conflicts(&universe).into_iter().find_map(|(low, high)| {
        let mut shown: Vec<Shown> = statements(&universe, low, high)
            .into_iter()
            .map(|statement| Shown { statement, signers: 0b1111 })
            .collect();
        assert!(court.least_guilt(&universe, &shown).is_ok());
        shown.remove(2);
        court.least_guilt(&universe, &shown).err()
    });
    let acquitted = acquitted.expect("a certified sibling of a final block, built on");
    assert!(acquitted.guilty.count_ones() < 2, "{acquitted}");
}
