use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use types::PublicKey;
use types::limits::TOTAL_STAKE_MAX;

fn key(n: u64) -> PublicKey {
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    PublicKey(bytes)
}

fn member(n: u64, weight: u128) -> Validator {
    Validator { address: account(n), public_key: key(n), stake: Stake::new(weight) }
}

fn candidate(n: u64, stake: u128) -> Candidate {
    Candidate { address: account(n), public_key: key(n), stake, ejected: false, since: u64::MAX }
}

fn limits(max_validators: usize) -> Limits {
    Limits { max_validators, min_stake: 1, cap_numerator: 1, cap_denominator: 4 }
}

fn total(set: &[Validator]) -> u128 {
    set.iter().map(|member| member.stake.get()).sum()
}

fn weights(set: &[Validator]) -> BTreeMap<Address, u128> {
    set.iter().map(|member| (member.address, member.stake.get())).collect()
}

/// What must be true of any step from one set to the next.
pub(super) fn check_step(before: &[Validator], after: &[Validator], numerator: u128, denominator: u128) {
    assert!(!after.is_empty());
    assert!(after.iter().all(|member| member.stake.get() > 0));
    let (old, new) = (weights(before), weights(after));
    assert_eq!(new.len(), after.len(), "nobody twice");
    let everybody: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let of = |weights: &BTreeMap<Address, u128>, who: &Address| weights.get(who).copied().unwrap_or(0);
    let change: u128 = everybody.iter().map(|who| of(&old, who).abs_diff(of(&new, who))).sum();
    let cap = (total(before) * numerator / denominator).max(1);
    assert!(change <= cap, "changed by {change}, cap {cap}");
    let stays: u128 = everybody.iter().map(|who| of(&old, who).min(of(&new, who))).sum();
    if total(before) >= denominator {
        assert!(stays * 3 > total(before) * 2, "the old set keeps its quorum");
        assert!(stays * 3 > total(after) * 2, "and is one of the new set");
    }
    let kept: Vec<_> = before.iter().map(|m| m.address).filter(|a| new.contains_key(a)).collect();
    let order: Vec<_> = after.iter().map(|m| m.address).collect();
    assert_eq!(order[..kept.len()], kept, "who stays keeps the order");
    assert!(order[kept.len()..].is_sorted(), "who is new follows by address");
}

#[test]
fn the_largest_stakes_win_and_ties_go_to_the_lower_address() {
    let candidates: Vec<_> = [(1, 5), (2, 9), (3, 5), (4, 1)].map(|(n, stake)| candidate(n, stake)).into();
    let set = next_set(&[], &candidates, &limits(2));
    assert_eq!(set, [member(1, 5), member(2, 9)]);
}

#[test]
fn the_longest_wait_moves_first_and_the_ejected_before_all() {
    let before = [member(1, 100), member(2, 100), member(3, 100), member(4, 100)];
    let mut candidates: Vec<_> = [(1, 0), (2, 0), (3, 0), (4, 100)].map(|(n, s)| candidate(n, s)).into();
    candidates[0].since = 9;
    candidates[1].since = 3;
    candidates[2] = Candidate { ejected: true, stake: 77, ..candidates[2].clone() };
    let order = |set: &[Validator]| set.iter().map(|m| m.address).collect::<Vec<_>>();
    let mut set = next_set(&before, &candidates, &limits(10));
    assert_eq!(order(&set), [account(1), account(2), account(4)], "3 is ejected");
    set = next_set(&set, &candidates, &limits(10));
    assert_eq!(weights(&set)[&account(2)], 25, "then 2, which asked first, as far as the cap goes");
    assert_eq!(weights(&set)[&account(1)], 100);
}

#[test]
fn a_newcomer_waits_for_a_free_seat() {
    let before = [member(1, 100), member(2, 40)];
    let candidates = [candidate(1, 100), candidate(2, 40), candidate(3, 50)];
    let mut set = before.to_vec();
    let mut steps = 0;
    while weights(&set).contains_key(&account(2)) {
        set = next_set(&set, &candidates, &limits(2));
        assert!(set.len() <= 2);
        steps += 1;
    }
    assert_eq!(steps, 3, "the smallest goes in steps, its seat is taken as long");
    assert_eq!(set[1].address, account(3));
}

#[test]
fn the_lightest_sets_can_change_too() {
    let set = next_set(&[member(1, 1)], &[candidate(2, 1)], &limits(4));
    assert_eq!(set, [member(1, 1), member(2, 1)]);
    assert_eq!(next_set(&set, &[candidate(1, 0), candidate(2, 1)], &limits(4)), [member(2, 1)]);
    let three = [member(1, 1), member(2, 1), member(3, 1)];
    let after = next_set(&three, &[candidate(1, 1), candidate(2, 1)], &limits(4));
    assert_eq!(after, [member(1, 1), member(2, 1)]);
}

#[test]
fn the_greatest_stakes_do_not_overflow() {
    let huge = TOTAL_STAKE_MAX - 5;
    let before = [member(1, huge)];
    let candidates = [candidate(1, u128::MAX), candidate(2, u128::MAX)];
    let set = next_set(&before, &candidates, &limits(4));
    assert_eq!(total(&set), TOTAL_STAKE_MAX);
}

fn random_set() -> impl Strategy<Value = Vec<Validator>> {
    prop::collection::btree_map(0u64..12, 1u128..1_000_000, 1..8)
        .prop_map(|members| members.into_iter().map(|(n, weight)| member(n, weight)).collect())
}

fn random_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (prop_oneof![1 => Just(0u128), 4 => 1u128..1_000_000], prop::bool::weighted(0.1), 0u64..5);
    prop::collection::btree_map(0u64..14, one, 0..14).prop_map(|candidates| {
        let of = |(n, (stake, ejected, since))| Candidate { ejected, since, ..candidate(n, stake) };
        candidates.into_iter().map(of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn every_step_keeps_the_quorum_and_the_cap(
        before in random_set(), candidates in random_candidates(), max in 8usize..12, denominator in 4u32..20,
    ) {
        let limits = Limits { max_validators: max, min_stake: 50, cap_numerator: 1, cap_denominator: denominator };
        let after = next_set(&before, &candidates, &limits);
        check_step(&before, &after, 1, denominator.into());
        prop_assert!(after.len() <= max);
        let mut shuffled = candidates.clone();
        shuffled.reverse();
        prop_assert_eq!(next_set(&before, &shuffled, &limits), after, "whatever the order of the registry");
    }

    /// The queue always drains: with no further changes the wanted set is reached.
    #[test]
    fn steps_lead_to_the_wanted_set(before in random_set(), candidates in random_candidates(), max in 8usize..12) {
        let limits = limits(max);
        let wanted = next_set(&[], &candidates, &limits);
        let mut set = before.clone();
        for step in 0.. {
            let next = next_set(&set, &candidates, &limits);
            if next == set {
                break;
            }
            set = next;
            prop_assert!(step < 400, "no end in sight");
        }
        let expected = if wanted.is_empty() { weights(&before) } else { weights(&wanted) };
        prop_assert_eq!(weights(&set), expected);
    }
}
