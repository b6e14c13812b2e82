use super::*;
use proptest::prelude::*;

#[test]
fn genesis_validators_are_registered_and_form_the_sets_of_the_first_two_epochs() {
    let mut chain = Chain::new(&[5, 1, 2], fast());
    for epoch in [0, 1] {
        assert_eq!(chain.weights(epoch), [(0, 5), (1, 1), (2, 2)], "in the genesis' order");
    }
    assert_eq!(chain.set(2), None);
    assert_eq!(chain.info(1).status, abi::Status::Active);
    assert_eq!(chain.view(&abi::stakeOfCall { account: account(2) }), U256::from(2 * COIN));
    assert_eq!(chain.view(&abi::paramsCall {}).unbondingEpochs, 4);
    let before = chain.set(1).unwrap();
    assert_eq!(chain.close(), before, "nothing changes, not even the order");
}

#[test]
fn a_registered_validator_votes_two_epochs_later() {
    let mut chain = Chain::new(&[10, 10, 10, 10], fast());
    chain.height = 3;
    chain.register(7, 5);
    let registered = abi::Registered::decode_log_data(&chain.logs[0]).unwrap();
    assert_eq!((registered.validator, registered.stake), (account(7), U256::from(5 * COIN)));
    assert_eq!(chain.info(7).status, abi::Status::Pending);
    chain.close();
    assert_eq!(chain.weights(1), [(0, 10), (1, 10), (2, 10), (3, 10)]);
    assert_eq!(chain.weights(2), [(0, 10), (1, 10), (2, 10), (3, 10), (7, 5)]);
    assert_eq!(chain.info(7).status, abi::Status::Active);
    assert_eq!(chain.set(2).unwrap()[4].public_key, secret(7).public_key());
}

#[test]
fn a_key_needs_a_proof_and_belongs_to_one_validator_for_ever() {
    let mut chain = Chain::new(&[1, 1], fast());
    let mut call = registration(5);
    call.proofOfPossession = registration(6).proofOfPossession;
    assert!(matches!(chain.refused(5, COIN, &call), Error::BadProofOfPossession(_)));
    call.proofOfPossession = Bytes::from_static(&[1; 95]);
    assert!(matches!(chain.refused(5, COIN, &call), Error::BadProofOfPossession(_)));
    call = registration(5);
    call.pubkey = Bytes::from_static(&[0xc0; 48]);
    assert!(matches!(chain.refused(5, COIN, &call), Error::BadPublicKey(_)));
    call.pubkey = Bytes::new();
    assert!(matches!(chain.refused(5, COIN, &call), Error::BadPublicKey(_)));
    assert!(matches!(chain.refused(5, COIN, &registration(1)), Error::KeyInUse(_)), "a founder's");
    chain.register(5, 1);
    chain.ok(5, 0, &rotation(50));
    assert!(matches!(chain.refused(6, COIN, &registration(5)), Error::KeyInUse(_)), "an old one");
    assert!(matches!(chain.refused(6, COIN, &registration(50)), Error::KeyInUse(_)), "the new one");
    chain.ok(5, 0, &rotation(5));
}

#[test]
fn a_new_key_counts_from_the_next_computed_set_on() {
    let mut chain = Chain::new(&[1, 1, 1], fast());
    chain.ok(1, 0, &rotation(40));
    assert_eq!(chain.set(1).unwrap()[1].public_key, secret(1).public_key());
    let set = chain.close();
    assert_eq!(set[1].public_key, secret(40).public_key());
    assert_eq!(chain.set(1).unwrap()[1].public_key, secret(1).public_key(), "what signed then can be judged");
    assert!(matches!(chain.refused(9, 0, &rotation(41)), Error::NotRegistered(_)));
}

#[test]
fn stake_taken_back_is_paid_after_the_weight_is_gone_and_the_unbonding_is_over() {
    let mut chain = Chain::new(&[40, 40, 40, 40], fast());
    chain.ok(0, 0, &abi::unstakeCall { amount: U256::from(10 * COIN) });
    assert!(matches!(chain.refused(0, 0, &abi::withdrawCall {}), Error::NothingToWithdraw(_)));
    chain.close();
    assert_eq!(chain.weights(2)[0], (0, 30));
    let info = chain.info(0);
    assert_eq!((info.leaving, info.unbonding[0].releaseEpoch), (U256::ZERO, 2 + 4));
    while chain.epoch() < 5 {
        chain.close();
    }
    let Error::NothingToWithdraw(refused) = chain.refused(0, 0, &abi::withdrawCall {}) else { panic!() };
    assert_eq!((refused.currentEpoch, refused.nextEpoch), (5, 6));
    chain.close();
    chain.ok(0, 0, &abi::withdrawCall {});
    assert_eq!(chain.paid[&account(0)], 10 * COIN);
    assert_eq!(chain.balance, chain.owed(4));
    assert!(matches!(chain.refused(0, 0, &abi::withdrawCall {}), Error::NothingToWithdraw(_)));
}

#[test]
fn the_minimum_must_remain_unless_a_validator_leaves() {
    let mut chain = Chain::new(&[4, 4], fast());
    let most = abi::unstakeCall { amount: U256::from(4 * COIN) };
    assert!(matches!(chain.refused(0, 0, &most), Error::StakeTooLow(_)));
    let more = abi::unstakeCall { amount: U256::MAX };
    assert!(matches!(chain.refused(0, 0, &more), Error::InsufficientStake(_)));
    assert!(matches!(chain.refused(0, 0, &abi::unstakeCall { amount: U256::ZERO }), Error::ZeroAmount(_)));
    assert!(matches!(chain.refused(0, 0, &abi::addStakeCall {}), Error::ZeroAmount(_)));
    assert!(matches!(chain.refused(7, COIN / 2, &registration(7)), Error::StakeTooLow(_)));
    assert!(matches!(chain.refused(0, COIN, &registration(0)), Error::AlreadyRegistered(_)));
    assert!(matches!(chain.refused(0, 5, &abi::exitCall {}), Error::NotPayable(_)));
    chain.ok(0, 0, &abi::exitCall {});
    assert!(matches!(chain.refused(0, 0, &abi::exitCall {}), Error::NotRegistered(_)));
}

#[test]
fn who_exits_leaves_the_next_computed_set_and_may_come_back() {
    let mut chain = Chain::new(&[10, 10, 10, 10], fast());
    chain.ok(2, 0, &abi::exitCall {});
    assert_eq!(chain.info(2).status, abi::Status::Exiting);
    chain.close();
    assert_eq!(chain.weights(2), [(0, 10), (1, 10), (3, 10)]);
    assert_eq!(chain.info(2).status, abi::Status::Exited);
    chain.register(2, 10);
    chain.close();
    assert_eq!(chain.weights(3), [(0, 10), (1, 10), (3, 10), (2, 9)], "at the end, and capped");
    assert_eq!(chain.balance, chain.owed(4));
}

#[test]
fn a_chain_whose_validators_all_leave_keeps_its_set() {
    let mut chain = Chain::new(&[3, 2], fast());
    let before = chain.set(1).unwrap();
    for n in [0, 1] {
        chain.ok(n, 0, &abi::exitCall {});
    }
    for _ in 0..5 {
        assert_eq!(chain.close(), before);
    }
    assert_eq!(chain.info(0).status, abi::Status::Exiting);
    chain.register(9, 100);
    for _ in 0..40 {
        chain.close();
    }
    assert_eq!(chain.weights(chain.epoch() + 1), [(9, 100)], "with a successor they can go");
    for n in [0, 1] {
        chain.ok(n, 0, &abi::withdrawCall {});
    }
    assert_eq!((chain.paid[&account(0)], chain.paid[&account(1)]), (3 * COIN, 2 * COIN));
}

#[test]
fn a_heavy_validator_comes_and_goes_in_steps_of_the_cap() {
    let mut chain =
        Chain::new(&[10, 10, 10, 10], genesis::Staking { unbonding_epochs: 4, ..Default::default() });
    chain.register(9, 60);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let set = chain.close();
        seen.push(set.get(4).map_or(0, |heavy| heavy.stake.get() * 100 / COIN));
    }
    assert_eq!(seen, [1000, 2250, 3812, 5765, 6000], "a quarter of the set's weight each time");
    chain.ok(9, 0, &abi::exitCall {});
    chain.close();
    assert_eq!(chain.info(9).leaving, U256::from(60 * COIN), "as long as it has weight, nothing unbonds");
    while chain.info(9).status == abi::Status::Exiting {
        chain.close();
    }
    let release = chain.info(9).unbonding[0].releaseEpoch;
    assert_eq!(release, chain.epoch() + 1 + 4);
    assert_eq!(chain.balance, chain.owed(10));
}

#[test]
fn a_full_registry_lets_go_of_its_smallest_outsider_for_a_larger_one_only() {
    let params = genesis::Staking { max_validators: 2, max_candidates: 4, ..fast() };
    let mut chain = Chain::new(&[10, 10], params);
    chain.register(5, 3);
    chain.register(6, 2);
    chain.close();
    assert_eq!(chain.weights(2), [(0, 10), (1, 10)], "two seats");
    let Error::RegistryFull(full) = chain.refused(7, 2 * COIN, &registration(7)) else { panic!() };
    assert_eq!(full.needMoreThan, U256::from(2 * COIN));
    chain.register(7, 4);
    assert_eq!(chain.info(6).status, abi::Status::Exited);
    assert_eq!(chain.info(6).unbonding[0].amount, U256::from(2 * COIN));
    chain.register(8, 5);
    assert_eq!(chain.info(5).status, abi::Status::Exited);
    assert_eq!(chain.balance, chain.owed(10));
}

#[test]
fn a_convicted_validator_burns_once_leaves_and_never_returns() {
    let mut chain = Chain::new(&[100, 100, 100, 100], fast());
    assert_eq!(chain.slash(0, 9), None, "no member of that set");
    assert_eq!(chain.slash(5, 1), None, "no such set");
    let slash = chain.slash(0, 1).unwrap();
    assert_eq!((slash.offender, slash.burned), (account(1), 5 * COIN));
    assert_eq!(chain.slash(1, 1), None, "once");
    let info = chain.info(1);
    assert_eq!((info.status, info.slashed), (abi::Status::Tombstoned, U256::from(5 * COIN)));
    assert_eq!(info.weight, U256::from(100 * COIN), "its weight stays until the sets are through");
    chain.close();
    assert_eq!(chain.weights(2), [(0, 100), (2, 100), (3, 100)]);
    assert!(matches!(chain.refused(1, COIN, &registration(1)), Error::AlreadyRegistered(_)));
    assert!(matches!(chain.refused(1, 0, &abi::exitCall {}), Error::NotRegistered(_)));
    assert_eq!(chain.balance, chain.owed(4));
    for _ in 0..6 {
        chain.close();
    }
    chain.ok(1, 0, &abi::withdrawCall {});
    assert_eq!(chain.paid[&account(1)], 95 * COIN);
}

#[test]
fn a_conviction_reaches_stake_that_is_on_its_way_out_and_takes_no_more_than_there_is() {
    let all = genesis::Staking { slash_basis_points: 10_000, ..fast() };
    let mut chain = Chain::new(&[10, 10, 10, 10], all);
    chain.ok(3, 0, &abi::exitCall {});
    chain.close();
    assert_eq!(chain.info(3).status, abi::Status::Exited);
    assert_eq!(chain.slash(1, 3).unwrap().burned, 10 * COIN);
    assert_eq!(chain.owed(4), chain.balance);
    // Weight without stake behind it: taken back by a rotation of stakes, then convicted for the heavier time.
    chain.ok(2, 0, &abi::unstakeCall { amount: U256::from(9 * COIN) });
    chain.close();
    for _ in 0..6 {
        chain.close();
    }
    chain.ok(2, 0, &abi::withdrawCall {});
    let epoch = chain.epoch() - 5;
    assert_eq!(chain.slash(epoch, 2).unwrap().burned, COIN, "10 are due, 1 is left");
}

#[test]
fn sets_are_kept_as_long_as_evidence_may_name_them() {
    let mut chain = Chain::new(&[50, 50, 50], fast());
    for round in 0..20 {
        chain.ok(0, COIN, &abi::addStakeCall {});
        chain.close();
        let epoch = chain.epoch();
        for kept in epoch.saturating_sub(4)..=epoch + 1 {
            let weight = chain.weights(kept)[0].1;
            assert_eq!(weight, 50 + u128::from(kept.saturating_sub(1)), "round {round}");
        }
        assert_eq!(chain.set(epoch + 2), None);
        assert!(epoch < 10 || chain.set(epoch - 6).is_none());
    }
    let words = chain.words.iter().count();
    for _ in 0..20 {
        chain.ok(0, COIN, &abi::addStakeCall {});
        chain.close();
    }
    assert_eq!(chain.words.iter().count(), words, "the storage of sets does not grow");
}

#[test]
fn unbonding_amounts_are_bounded_and_none_is_lost() {
    let params = genesis::Staking { unbonding_epochs: 1000, ..fast() };
    let mut chain = Chain::new(&[100, 100], params);
    for _ in 0..40 {
        chain.ok(0, 0, &abi::unstakeCall { amount: U256::from(COIN) });
        chain.close();
    }
    assert_eq!(chain.info(0).unbonding.len(), usize::from(crate::layout::UNBONDING_MAX));
    assert_eq!(chain.balance, chain.owed(2));
}

#[test]
fn what_is_no_call_is_refused_with_a_name() {
    let chain = Chain::new(&[1], fast());
    let run = |input: &[u8], is_static| {
        let mut frame = Frame { words: chain.words.clone(), paid: Vec::new(), logs: Vec::new() };
        Registry::at(&chain.rules, 1, &mut frame).execute(account(0), U256::ZERO, input, is_static)
    };
    let named = |output: Result<Bytes, Failure<Infallible>>| {
        let Err(Failure::Revert(output)) = output else { panic!("{output:?}") };
        Error::abi_decode(&output).unwrap()
    };
    assert!(matches!(named(run(&[], false)), Error::UnknownFunction(_)));
    assert!(matches!(named(run(&[1, 2, 3, 4], false)), Error::UnknownFunction(_)));
    assert!(matches!(named(run(&abi::unstakeCall::SELECTOR, false)), Error::MalformedCall(_)));
    assert_eq!(run(&abi::exitCall {}.abi_encode(), true), Err(Failure::StaticCall));
}

/// One thing that may happen to a registry.
#[derive(Clone, Debug)]
enum Act {
    Register(u64, u128),
    Add(u64, u128),
    Unstake(u64, u128),
    Exit(u64),
    Withdraw(u64),
    Rotate(u64, u64),
    Slash(u64, u64),
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0u64..9;
    prop_oneof![
        2 => (who.clone(), 1u128..200).prop_map(|(n, coins)| Act::Register(n, coins)),
        2 => (who.clone(), 1u128..90).prop_map(|(n, coins)| Act::Add(n, coins)),
        2 => (who.clone(), 1u128..90).prop_map(|(n, coins)| Act::Unstake(n, coins)),
        1 => who.clone().prop_map(Act::Exit),
        1 => who.clone().prop_map(Act::Withdraw),
        1 => (who.clone(), 20u64..24).prop_map(|(n, key)| Act::Rotate(n, key)),
        1 => (0u64..4, who).prop_map(|(back, n)| Act::Slash(back, n)),
        6 => Just(Act::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever happens: the registry has exactly what it owes, no set is empty or changes beyond the cap, weights
    /// are backed unless burned, and the list of candidates holds together.
    #[test]
    fn money_and_sets_hold_together_under_any_sequence_of_acts(
        stakes in prop::collection::vec(1u128..100, 1..5),
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let params = genesis::Staking {
            max_validators: 5, max_candidates: 7, unbonding_epochs: 4, ..Default::default()
        };
        let mut chain = Chain::new(&stakes, params);
        for act in acts {
            match act {
                Act::Register(n, coins) => { let _ = chain.call(account(n), coins * COIN, &registration(n)); }
                Act::Add(n, coins) => { let _ = chain.call(account(n), coins * COIN, &abi::addStakeCall {}); }
                Act::Unstake(n, coins) => {
                    let _ = chain.call(account(n), 0, &abi::unstakeCall { amount: U256::from(coins * COIN) });
                }
                Act::Exit(n) => { let _ = chain.call(account(n), 0, &abi::exitCall {}); }
                Act::Withdraw(n) => { let _ = chain.call(account(n), 0, &abi::withdrawCall {}); }
                Act::Rotate(n, key) => { let _ = chain.call(account(n), 0, &rotation(key)); }
                Act::Slash(back, n) => { chain.slash(chain.epoch().saturating_sub(back), n); }
                Act::Close => {
                    let before = chain.set(chain.epoch() + 1).unwrap();
                    let set = chain.close();
                    super::sets::check_step(&before, &set, 1, 4);
                    prop_assert!(set.len() <= 5);
                    let made = types::ValidatorSet::new(Epoch::new(2), set, QuorumRule::default());
                    prop_assert!(made.is_ok(), "{:?}", made);
                }
            }
            prop_assert_eq!(chain.balance, chain.owed(9));
            for n in 0..9 {
                let info = chain.info(n);
                let held: U256 = info.stake + info.leaving;
                prop_assert!(info.weight <= held || info.status == abi::Status::Tombstoned || info.stake >= info.weight,
                    "weight without stake behind it: {}", n);
            }
        }
    }
}
