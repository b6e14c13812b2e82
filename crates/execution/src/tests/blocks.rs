use super::*;
use alloy_consensus::{TxEip7702, TxLegacy};
use alloy_eips::{eip2935, eip7702::Authorization};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const RECIPIENT: Address = Address::repeat_byte(0x11);

fn balance(chain: &Chain, address: Address) -> U256 {
    chain.state.account(address).unwrap().unwrap_or_default().balance
}

#[test]
fn a_transfer_moves_value_pays_the_tip_and_burns_the_base_fee() {
    let mut chain = Chain::new(2);
    let env = chain.env();
    let outcome = chain.run(vec![chain.keys[0].transfer(CHAIN_ID, 0, RECIPIENT, U256::from(5))]);
    assert_eq!(outcome.gas_used, 21_000);
    assert_eq!(balance(&chain, RECIPIENT), U256::from(5));
    assert_eq!(balance(&chain, env.fee_recipient), U256::from(21_000 * GWEI));
    let paid = U256::from(21_000 * 2 * GWEI) + U256::from(5);
    assert_eq!(balance(&chain, chain.keys[0].address()), coins(10_000) - paid);
    let receipt = &outcome.receipts[0];
    assert!(receipt.succeeded());
    assert_eq!((receipt.to, receipt.from), (Some(RECIPIENT), chain.keys[0].address()));
    assert_eq!(receipt.effective_gas_price, u128::from(2 * GWEI));
    assert_eq!(chain.full_digest(), outcome.lthash);
}

#[test]
fn a_deployed_contract_stores_logs_and_reverts() {
    let mut chain = Chain::new(1);
    let key = chain.keys[0].clone();
    let contract = key.address().create(0);
    let outcome = chain.run(vec![
        key.sign(tx(0, TxKind::Create, 200_000, deployer(&STORE))),
        key.sign(tx(1, TxKind::Call(contract), 100_000, store_input(1, 42))),
        key.sign(tx(2, TxKind::Call(contract), 100_000, store_input(2, 0xdead))),
        key.sign(tx(3, TxKind::Call(contract), 100_000, store_input(3, 9))),
    ]);
    let status: Vec<_> = outcome.receipts.iter().map(TxReceipt::succeeded).collect();
    assert_eq!(status, [true, true, false, true]);
    assert_eq!(outcome.receipts[0].contract_address, Some(contract));
    assert_eq!(outcome.receipts[1].logs()[0].topics(), [B256::from(U256::from(1))]);
    assert!(outcome.receipts[2].logs().is_empty());
    assert_eq!(outcome.receipts[3].first_log_index, 1);
    assert_eq!(outcome.logs_bloom, *outcome.receipts[1].bloom() | *outcome.receipts[3].bloom());
    let slot = |n: u64| chain.state.storage(contract, U256::from(n)).unwrap();
    assert_eq!((slot(1), slot(2), slot(3)), (U256::from(42), U256::ZERO, U256::from(9)));
    assert_eq!(
        chain.state.code(chain.state.account(contract).unwrap().unwrap().code_hash).unwrap(),
        Bytes::from_static(&STORE)
    );
    // Clearing the slots again leaves no trace of them in the digest.
    chain.run(vec![
        key.sign(tx(4, TxKind::Call(contract), 100_000, store_input(1, 0))),
        key.sign(tx(5, TxKind::Call(contract), 100_000, store_input(3, 0))),
    ]);
    assert_eq!(chain.state.slots().count(), 0);
    assert_eq!(chain.full_digest(), chain.lthash);
}

#[test]
fn a_contract_that_destroys_itself_while_created_leaves_nothing_behind() {
    let mut chain = Chain::new(1);
    let created = chain.keys[0].address().create(0);
    let outcome = chain.run(vec![chain.keys[0].sign(tx(0, TxKind::Create, 200_000, VANISH.to_vec().into()))]);
    assert!(outcome.receipts[0].succeeded());
    assert_eq!(chain.state.account(created).unwrap(), None);
    assert!(outcome.diff.slots().is_empty() && outcome.diff.codes().is_empty());
    assert_eq!(chain.full_digest(), chain.lthash);
}

#[test]
fn a_delegation_makes_an_account_run_code_and_a_bad_authorization_is_ignored() {
    let mut chain = Chain::new(3);
    let [deploy, alice, bob] = [0, 1, 2].map(|i| chain.keys[i].clone());
    let contract = deploy.address().create(0);
    chain.run(vec![deploy.sign(tx(0, TxKind::Create, 200_000, deployer(&STORE)))]);
    let authorization = |nonce| Authorization { chain_id: U256::from(CHAIN_ID), address: contract, nonce };
    let delegate = TxEip7702 {
        chain_id: CHAIN_ID,
        nonce: 0,
        gas_limit: 300_000,
        max_fee_per_gas: u128::from(100 * GWEI),
        max_priority_fee_per_gas: 1,
        to: alice.address(),
        input: store_input(7, 8),
        authorization_list: vec![alice.authorize(authorization(0)), bob.authorize(authorization(9))],
        ..Default::default()
    };
    let outcome = chain.run(vec![bob.sign_eip7702(delegate)]);
    assert!(outcome.receipts[0].succeeded());
    assert_eq!(chain.state.storage(alice.address(), U256::from(7)).unwrap(), U256::from(8));
    assert!(!chain.state.account(bob.address()).unwrap().unwrap().has_code());
    // A delegated account still sends, and a later block reads its code from the state.
    chain.run(vec![
        alice.transfer(CHAIN_ID, 1, RECIPIENT, U256::from(1)),
        bob.sign(tx(1, TxKind::Call(alice.address()), 100_000, store_input(7, 0))),
    ]);
    assert_eq!(chain.state.slots().count(), 0);
    assert_eq!(chain.full_digest(), chain.lthash);
}

#[test]
fn the_history_contract_of_eip_2935_gets_the_parent_hash_when_the_genesis_deploys_it() {
    let mut chain = Chain::with(1, |genesis| {
        let code = eip2935::HISTORY_STORAGE_CODE.clone();
        let account = GenesisAccount { nonce: 1, code, ..Default::default() };
        genesis.alloc.insert(eip2935::HISTORY_STORAGE_ADDRESS, account);
    });
    for height in 1..4 {
        let parent = chain.state.block_hash(height - 1).unwrap();
        let outcome = chain.run(Vec::new());
        let stored = chain.state.storage(eip2935::HISTORY_STORAGE_ADDRESS, U256::from(height - 1)).unwrap();
        assert_eq!(B256::from(stored), parent);
        let ours = outcome.diff.accounts().is_empty() && outcome.diff.slots().len() == 1;
        assert!(ours, "the system call changes that slot and nothing else");
        assert_eq!(chain.full_digest(), outcome.lthash);
    }
}

#[test]
fn blockhash_gives_consensus_hashes_and_prevrandao_the_mix() {
    // storage[0] = blockhash(number - 1); storage[1] = prevrandao; storage[2] = timestamp
    let code =
        [0x60, 0x01, 0x43, 0x03, 0x40, 0x60, 0x00, 0x55, 0x44, 0x60, 0x01, 0x55, 0x42, 0x60, 0x02, 0x55];
    let mut chain = Chain::new(1);
    let key = chain.keys[0].clone();
    let contract = key.address().create(0);
    chain.run(vec![key.sign(tx(0, TxKind::Create, 200_000, deployer(&code)))]);
    let env = chain.env();
    chain.run(vec![key.sign(tx(1, TxKind::Call(contract), 200_000, Bytes::new()))]);
    let slot = |n: u64| B256::from(chain.state.storage(contract, U256::from(n)).unwrap());
    assert_eq!(slot(0), chain.state.block_hash(1).unwrap());
    assert_eq!(slot(1), env.prevrandao);
    assert_eq!(U256::from_be_bytes(slot(2).0), U256::from(env.timestamp_ms / 1000));
}

#[test]
fn a_payload_with_a_transaction_that_may_not_be_included_is_invalid_with_its_index_and_reason() {
    let chain = Chain::new(2);
    let good = chain.keys[0].transfer(CHAIN_ID, 0, RECIPIENT, U256::from(1));
    let key = &chain.keys[1];
    let base = || tx(0, TxKind::Call(RECIPIENT), 21_000, Bytes::new());
    let cases = [
        (key.sign(TxEip1559 { nonce: 3, ..base() }), "nonce too high: transaction has 3, account is at 0"),
        (chain.keys[0].transfer(CHAIN_ID, 0, RECIPIENT, U256::from(2)), "nonce too low"),
        (key.sign(TxEip1559 { value: coins(20_000), ..base() }), "insufficient funds"),
        (
            key.sign(TxEip1559 { chain_id: 1, ..base() }),
            "invalid chain id for signer: have Some(1), want 31337",
        ),
        (
            key.sign(TxEip1559 { gas_limit: 20_999, ..base() }),
            "intrinsic gas too low: have 20999, want 21000",
        ),
        (key.sign(TxEip1559 { gas_limit: 1 << 24 | 1, ..base() }), "gas limit too high"),
        (key.sign(TxEip1559 { gas_limit: u64::MAX, ..base() }), "left in the block"),
        (key.sign(TxEip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 1, ..base() }), "base fee"),
        (key.sign(TxEip1559 { max_priority_fee_per_gas: u128::MAX, ..base() }), "priority fee"),
        (key.sign(TxEip1559 { max_fee_per_gas: u128::MAX, ..base() }), "insufficient funds"),
        (key.sign(TxEip1559 { nonce: u64::MAX, ..base() }), "nonce"),
        (TestKey::new(99).transfer(CHAIN_ID, 0, RECIPIENT, U256::ZERO), "insufficient funds"),
    ];
    for (bad, reason) in cases {
        let error = chain.execute(vec![good.clone(), bad.clone()]).unwrap_err();
        let ExecuteError::Invalid(invalid) = error else { panic!("{error}") };
        assert_eq!(invalid.index, Some(1));
        assert!(invalid.reason.contains(reason), "{invalid} lacks {reason}");
        // The builder leaves the same transaction out and goes on.
        let after = chain.keys[0].transfer(CHAIN_ID, 1, RECIPIENT, U256::from(1));
        let built = chain.build(vec![good.clone(), bad.clone(), after.clone()]);
        assert_eq!(built.skipped.len(), 1);
        assert_eq!(built.skipped[0].hash, bad.hash());
        assert_eq!(built.transactions, PayloadTransactions::single_lane(vec![good.clone(), after]));
    }
}

#[test]
fn gas_limits_of_a_block_are_enforced_by_execution_and_by_building() {
    let chain = Chain::with(1, |genesis| genesis.gas_limit = 50_000);
    let transfers: Vec<_> =
        (0..3).map(|nonce| chain.keys[0].transfer(CHAIN_ID, nonce, RECIPIENT, U256::from(1))).collect();
    let ExecuteError::Invalid(invalid) = chain.execute(transfers.clone()).unwrap_err() else { panic!() };
    assert_eq!(invalid.code, InvalidPayloadCode::GasLimit);
    let built = chain.build(transfers.clone());
    assert_eq!(built.transactions.len(), 2);
    let limits = BuildLimits { gas: 21_000, ..LIMITS };
    let one = build(
        &chain.state,
        &chain.rules,
        &chain.env(),
        &chain.lthash,
        limits,
        &[],
        transfers.clone(),
        || false,
    );
    assert_eq!(one.unwrap().transactions.len(), 1);
    let room = BuildLimits { bytes: 300, ..LIMITS };
    let one =
        build(&chain.state, &chain.rules, &chain.env(), &chain.lthash, room, &[], transfers.clone(), || {
            false
        });
    let one = one.unwrap();
    assert!(one.transactions.len() == 1 && one.payload.len() as u64 <= room.bytes);
    let asked = AtomicUsize::new(0);
    let stop = || asked.fetch_add(1, Ordering::Relaxed) > 0;
    let limits = LIMITS;
    let stopped =
        build(&chain.state, &chain.rules, &chain.env(), &chain.lthash, limits, &[], transfers, stop);
    assert_eq!(stopped.unwrap().transactions.len(), 1);
}

#[test]
fn a_zero_fee_chain_stays_one_and_other_base_fees_follow_eip_1559() {
    let free = Chain::with(1, |genesis| genesis.base_fee_per_gas = 0);
    assert_eq!(free.rules.next_base_fee(5, 60_000_000, 0), 0);
    let rules = Chain::new(1).rules;
    assert_eq!(rules.next_base_fee(0, 0, 0), GWEI);
    assert_eq!(rules.next_base_fee(1, 30_000_000, GWEI), GWEI);
    assert_eq!(rules.next_base_fee(1, 60_000_000, GWEI), 1_125_000_000);
    assert_eq!(rules.next_base_fee(1, 0, GWEI), 875_000_000);
    assert_eq!(rules.next_base_fee(1, 60_000_000, 7), 8);
    assert_eq!(rules.next_base_fee(1, 60_000_000, u64::MAX), u64::MAX);
}

#[test]
fn an_unreadable_state_is_not_the_payloads_fault() {
    struct Broken;
    impl StateView for Broken {
        fn account(&self, _: Address) -> Result<Option<AccountInfo>, ViewError> {
            Err(ViewError::Storage("disk".into()))
        }
        fn code(&self, hash: B256) -> Result<Bytes, ViewError> {
            Err(ViewError::MissingCode(hash))
        }
        fn storage(&self, _: Address, _: U256) -> Result<U256, ViewError> {
            Ok(U256::ZERO)
        }
        fn block_hash(&self, _: u64) -> Result<B256, ViewError> {
            Ok(B256::ZERO)
        }
    }
    let chain = Chain::new(1);
    let transactions =
        PayloadTransactions::single_lane(vec![chain.keys[0].transfer(CHAIN_ID, 0, RECIPIENT, U256::ONE)]);
    let error = execute(&Broken, &chain.rules, &chain.env(), &chain.lthash, &transactions, &[]).unwrap_err();
    assert_eq!(error, ExecuteError::View(ViewError::Storage("disk".into())));
}

/// What a random transaction does.
#[derive(Clone, Debug)]
enum Act {
    Transfer {
        to: u8,
        value: u64,
    },
    Deploy,
    Vanish,
    Store {
        contract: u8,
        key: u64,
        value: u64,
    },
    RandomCode {
        code: Vec<u8>,
    },
    CallPrecompile {
        number: u8,
        input: Vec<u8>,
    },
    Delegate {
        to: u8,
        nonce: u64,
    },
    Legacy {
        to: u8,
    },
    /// Not includable: wrong nonce, wrong chain, too poor, too little gas, below the base fee.
    Bad {
        kind: u8,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (any::<u8>(), any::<u64>()).prop_map(|(to, value)| Act::Transfer { to, value }),
        2 => Just(Act::Deploy),
        1 => Just(Act::Vanish),
        6 => (any::<u8>(), 0u64..4, prop_oneof![Just(0), Just(1), Just(0xdead)])
            .prop_map(|(contract, key, value)| Act::Store { contract, key, value }),
        3 => prop::collection::vec(any::<u8>(), 0..64).prop_map(|code| Act::RandomCode { code }),
        1 => (1u8..20, prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(number, input)| Act::CallPrecompile { number, input }),
        1 => (any::<u8>(), 0u64..3).prop_map(|(to, nonce)| Act::Delegate { to, nonce }),
        1 => any::<u8>().prop_map(|to| Act::Legacy { to }),
        2 => any::<u8>().prop_map(|kind| Act::Bad { kind }),
    ]
}

const SENDERS: u64 = 4;

/// Turns acts into signed transactions; nonces count up as if all good ones were included.
fn sign_all(
    chain: &Chain,
    nonces: &mut [u64],
    contracts: &mut Vec<Address>,
    acts: &[(u8, Act)],
) -> Vec<RecoveredTx> {
    let mut signed = Vec::new();
    for (sender, act) in acts {
        let sender = *sender as usize % chain.keys.len();
        let (key, nonce) = (&chain.keys[sender], nonces[sender]);
        let account = |n: u8| match n % 8 {
            n if u64::from(n) < SENDERS => chain.keys[n as usize].address(),
            n => Address::repeat_byte(n),
        };
        let call = |to, input| key.sign(tx(nonce, TxKind::Call(to), 150_000, input));
        let create = |code: Vec<u8>| key.sign(tx(nonce, TxKind::Create, 200_000, code.into()));
        nonces[sender] += u64::from(!matches!(act, Act::Bad { .. }));
        signed.push(match act {
            Act::Transfer { to, value } => key.transfer(CHAIN_ID, nonce, account(*to), U256::from(*value)),
            Act::Deploy => {
                contracts.push(key.address().create(nonce));
                create(deployer(&STORE).to_vec())
            }
            Act::Vanish => create(VANISH.to_vec()),
            Act::Store { contract, key, value } => {
                let known = contracts.get(*contract as usize % contracts.len().max(1));
                call(*known.unwrap_or(&account(*contract)), store_input(*key, *value))
            }
            Act::RandomCode { code } => create(code.clone()),
            Act::CallPrecompile { number, input } => {
                call(Address::with_last_byte(*number), input.clone().into())
            }
            Act::Delegate { to, nonce: claimed } => key.sign_eip7702(TxEip7702 {
                chain_id: CHAIN_ID,
                nonce,
                gas_limit: 200_000,
                max_fee_per_gas: u128::from(100 * GWEI),
                max_priority_fee_per_gas: 7,
                to: account(*to),
                authorization_list: vec![chain.keys[(sender + 1) % chain.keys.len()].authorize(
                    Authorization {
                        chain_id: U256::ZERO,
                        address: contracts.first().copied().unwrap_or_default(),
                        nonce: *claimed,
                    },
                )],
                ..Default::default()
            }),
            Act::Legacy { to } => key.sign_legacy(TxLegacy {
                chain_id: Some(CHAIN_ID),
                nonce,
                gas_price: u128::from(50 * GWEI),
                gas_limit: 60_000,
                to: TxKind::Call(account(*to)),
                value: U256::from(3),
                input: Bytes::from_static(b"hello"),
            }),
            Act::Bad { kind } => {
                let base = tx(nonce, TxKind::Call(account(*kind)), 21_000, Bytes::new());
                key.sign(match kind % 5 {
                    0 => TxEip1559 { nonce: nonce + 7, ..base },
                    1 => TxEip1559 { chain_id: 2, ..base },
                    2 => TxEip1559 { value: coins(1 << 40), ..base },
                    3 => TxEip1559 { gas_limit: 100, ..base },
                    _ => TxEip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 0, ..base },
                })
            }
        });
    }
    signed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn replaying_a_built_payload_gives_the_same_outcome_and_digests_match_recomputation(
        blocks in prop::collection::vec(prop::collection::vec((any::<u8>(), act()), 0..24), 1..4),
    ) {
        let mut chain = Chain::new(SENDERS);
        let base = chain.state.clone();
        let (mut nonces, mut contracts, mut layers) = (vec![0; SENDERS as usize], Vec::new(), Vec::new());
        for acts in &blocks {
            // Delegations bump their authority's nonce: start each block from what the state says.
            for (nonce, key) in nonces.iter_mut().zip(&chain.keys) {
                *nonce = chain.state.account(key.address()).unwrap().unwrap_or_default().nonce;
            }
            let candidates = sign_all(&chain, &mut nonces, &mut contracts, acts);
            let built = chain.build(candidates.clone());

            let payload = Payload::decode(&built.payload).unwrap();
            prop_assert_eq!(Payload::commitment(&built.payload), built.commitment);
            prop_assert_eq!(payload.encode(), built.payload.clone());
            let recovered = recover_payload(&payload, |_| None).unwrap();
            prop_assert_eq!(&recovered, &built.transactions);

            let verified = verify(&chain.state, &chain.rules, &chain.env(), &chain.lthash, &payload, &recovered, &[]).unwrap();
            prop_assert_eq!(&verified, &built.outcome);
            let in_lanes = replay(&chain.state, &chain.rules, &chain.env(), &chain.lthash, &payload, &recovered, &[]).unwrap();
            prop_assert_eq!(&in_lanes, &built.outcome);
            let replayed = execute(&chain.state, &chain.rules, &chain.env(), &chain.lthash, &recovered, &[]).unwrap();
            prop_assert_eq!(&replayed, &built.outcome);
            let overlay = Overlay::new(&base, layers.clone());
            let above = execute(&overlay, &chain.rules, &chain.env(), &chain.lthash, &recovered, &[]).unwrap();
            prop_assert_eq!(&above, &built.outcome);

            // All candidates as they stand, in their own order: refused with an index, or run to the last.
            let count = candidates.len();
            match chain.execute(candidates) {
                Ok(outcome) => prop_assert_eq!(outcome.receipts.len(), count),
                Err(ExecuteError::Invalid(invalid)) => prop_assert!(invalid.index.is_some()),
                Err(ExecuteError::View(error)) => return Err(TestCaseError::fail(error.to_string())),
            }

            chain.advance(&built.outcome);
            prop_assert_eq!(chain.full_digest(), built.outcome.lthash.clone());
            layers.insert(0, Layer {
                height: chain.height,
                block_hash: chain.state.block_hash(chain.height).unwrap(),
                diff: built.outcome.diff.clone(),
            });
        }
    }
}
