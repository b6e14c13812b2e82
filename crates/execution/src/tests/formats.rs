use super::*;
use alloy_consensus::{SignableTransaction, TxEip4844};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::Signature;
use proptest::prelude::*;

proptest! {
    #[test]
    fn decoding_arbitrary_bytes_never_panics_and_what_decodes_encodes_back(
        mut bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), any::<u8>()], 0..200),
        ours in prop::bool::weighted(0.8),
    ) {
        if ours && let Some(first) = bytes.first_mut() {
            *first = PAYLOAD_VERSION;
        }
        if let Ok(payload) = Payload::decode(&bytes) {
            prop_assert_eq!(payload.encode(), bytes.clone());
            let _ = recover_payload(&payload, |_| None);
        }
        let _ = RecoveredTx::decode(&bytes);
    }

    #[test]
    fn a_mutated_transaction_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let good = TestKey::new(1).transfer(CHAIN_ID, 0, Address::ZERO, U256::from(1));
        let mut bytes = good.encoded().to_vec();
        bytes[at.index(good.encoded().len())] = value;
        if let Ok(other) = RecoveredTx::decode(&bytes) {
            prop_assert_eq!(other.encoded().as_ref(), &bytes[..]);
            prop_assert!(bytes == good.encoded().as_ref() || other.hash() != good.hash());
        }
    }
}

#[test]
fn senders_are_recovered_and_known_transactions_are_taken_as_they_are() {
    let keys: Vec<_> = (0..20).map(TestKey::new).collect();
    let signed: Vec<_> =
        keys.iter().map(|key| key.transfer(CHAIN_ID, 0, Address::ZERO, U256::from(1))).collect();
    for (key, tx) in keys.iter().zip(&signed) {
        let decoded = RecoveredTx::decode(tx.encoded()).unwrap();
        assert_eq!((decoded.sender(), decoded.hash()), (key.address(), tx.hash()));
        assert_eq!(decoded.envelope().tx_hash(), &tx.hash());
    }
    let payload = payload_of(&[&signed]).unwrap();
    let believed = RecoveredTx::from_stored(signed[3].encoded().clone(), Address::repeat_byte(9)).unwrap();
    let recovered =
        recover_payload(&payload, |hash| (*hash == believed.hash()).then(|| believed.clone())).unwrap();
    assert_eq!(recovered.lanes[0][3].sender(), Address::repeat_byte(9));
    assert_eq!(recovered.lanes[0][4].sender(), keys[4].address());
}

#[test]
fn a_transaction_that_occurs_twice_makes_the_payload_invalid() {
    let tx = TestKey::new(1).transfer(CHAIN_ID, 0, Address::ZERO, U256::from(1));
    let payload = payload_of(&[&[tx.clone(), tx]]).unwrap();
    let error = recover_payload(&payload, |_| None).unwrap_err();
    assert_eq!((error.code, error.index), (InvalidPayloadCode::DuplicateTransaction, Some(1)));
}

#[test]
fn blob_malleable_unknown_and_oversized_transactions_are_refused_by_type() {
    let key = TestKey::new(1);
    let blob = TxEip4844 { chain_id: CHAIN_ID, ..Default::default() };
    let signature = key.sign_hash(blob.signature_hash());
    let blob = TxEnvelope::Eip4844(blob.into_signed(signature)).encoded_2718();
    assert_eq!(RecoveredTx::decode(&blob), Err(TxError::Blob));

    let tx = tx(0, TxKind::Create, 100_000, Bytes::new());
    let signature = key.sign_hash(tx.signature_hash());
    let order =
        U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16).unwrap();
    let malleable = Signature::new(signature.r(), order - signature.s(), !signature.v());
    let seal = |signature| TxEnvelope::Eip1559(tx.clone().into_signed(signature)).encoded_2718();
    assert_eq!(RecoveredTx::decode(&seal(malleable)), Err(TxError::HighS));
    let zero = Signature::new(U256::ZERO, U256::ZERO, false);
    assert_eq!(RecoveredTx::decode(&seal(zero)), Err(TxError::Signature));
    let too_big = Signature::new(order, U256::from(1), false);
    assert_eq!(RecoveredTx::decode(&seal(too_big)), Err(TxError::Signature));

    assert_eq!(RecoveredTx::decode(&[0x7f, 1, 2]), Err(TxError::UnsupportedType(0x7f)));
    assert!(matches!(RecoveredTx::decode(&[]), Err(TxError::Length { length: 0, .. })));
    let max = types::limits::TRANSACTION_BYTES_MAX;
    assert_eq!(RecoveredTx::decode(&vec![2; max + 1]), Err(TxError::Length { length: max + 1, max }));
    let mut trailing = seal(signature);
    trailing.push(0);
    assert!(matches!(RecoveredTx::decode(&trailing), Err(TxError::Malformed(_))));
    // Lists that are no legacy transaction: empty, cut off.
    for list in [&[0xc0][..], &[0xf8, 0x6c, 0x80]] {
        assert!(matches!(RecoveredTx::decode(list), Err(TxError::Malformed(_))), "{list:?}");
    }
}

#[test]
fn forks_are_read_by_name_and_height() {
    let with = |forks: &[(&str, u64)]| {
        let mut genesis = genesis(BTreeMap::new());
        genesis.tandem.forks = forks.iter().map(|(name, height)| (name.to_string(), *height)).collect();
        Rules::from_genesis(&genesis)
    };
    let rules = with(&[("cancun", 0), ("prague", 10), ("osaka", 20)]).unwrap();
    let active = [0, 9, 10, 19, 20, u64::MAX].map(|height| rules.fork_at(height));
    assert_eq!(active, [Fork::Cancun, Fork::Cancun, Fork::Prague, Fork::Prague, Fork::Osaka, Fork::Osaka]);
    let newest = with(&[]).unwrap();
    assert_eq!(newest.fork_at(0), Fork::Osaka);
    assert_eq!(newest.rules_hash(), with(&[("osaka", 0)]).unwrap().rules_hash());
    assert_ne!(newest.rules_hash(), rules.rules_hash());
    assert_eq!(with(&[("frontier", 0)]), Err(RulesError::UnknownFork { name: "frontier".into() }));
    assert_eq!(with(&[("osaka", 3)]), Err(RulesError::NoForkAtGenesis { first: 3 }));
    let order = with(&[("cancun", 0), ("osaka", 5), ("prague", 9)]);
    assert!(matches!(order, Err(RulesError::Order { earlier: Fork::Prague, later: Fork::Osaka, .. })));
}

#[test]
fn an_impossible_allocation_is_refused() {
    let state = |account: GenesisAccount| {
        genesis_state(&genesis(BTreeMap::from([(Address::ZERO, account)]))).map(|state| state.diff.len())
    };
    let storage = BTreeMap::from([(B256::ZERO, B256::repeat_byte(1))]);
    let bare = GenesisAccount { storage: storage.clone(), balance: U256::from(1), ..Default::default() };
    assert_eq!(state(bare), Err(GenesisStateError::StorageWithoutCode { address: Address::ZERO, slots: 1 }));
    let contract = GenesisAccount { storage, code: Bytes::from_static(&[0]), ..Default::default() };
    assert_eq!(state(contract), Ok(2));
    let rich = GenesisAccount { balance: U256::MAX, ..Default::default() };
    assert_eq!(state(rich), Err(GenesisStateError::SupplyOverflow { address: Address::ZERO }));
    let odd = GenesisAccount { code: Bytes::from_static(&[0xef, 0x01, 0x00, 0x00]), ..Default::default() };
    assert!(matches!(state(odd), Err(GenesisStateError::Code { .. })));
}

#[test]
fn the_stateless_check_agrees_with_execution() {
    let chain = Chain::new(1);
    let check = |tx: TxEip1559| chain.rules.check_stateless(1, &chain.keys[0].sign(tx));
    let base = || tx(0, TxKind::Call(Address::ZERO), 21_000, Bytes::new());
    assert_eq!(check(base()), Ok(()));
    assert_eq!(
        check(TxEip1559 { chain_id: 5, ..base() }),
        Err(InvalidTx::WrongChainId { have: Some(5), want: CHAIN_ID })
    );
    // EIP-7623: 100 non-zero bytes cost 400 tokens, at least 10 gas each.
    assert_eq!(
        check(TxEip1559 { input: vec![1; 100].into(), gas_limit: 24_999, ..base() }),
        Err(InvalidTx::IntrinsicGas { gas_limit: 24_999, required: 25_000 })
    );
    assert_eq!(
        check(TxEip1559 { gas_limit: (1 << 24) + 1, ..base() }),
        Err(InvalidTx::GasLimitAboveCap { gas_limit: (1 << 24) + 1, cap: 1 << 24 })
    );
    assert_eq!(
        check(TxEip1559 { max_priority_fee_per_gas: u128::MAX, ..base() }),
        Err(InvalidTx::TipAboveFeeCap)
    );
    let long = tx(0, TxKind::Create, 10_000_000, vec![0; 49_153].into());
    assert_eq!(check(long), Err(InvalidTx::InitCodeTooLong));
}

proptest! {
    #[test]
    fn the_digest_is_independent_of_order_and_grouping(
        entries in prop::collection::btree_map(any::<[u8; 20]>(), (any::<u64>(), 1u64..), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let accounts: Vec<_> = entries
            .iter()
            .map(|(address, (nonce, balance))| {
                let info = AccountInfo { nonce: *nonce, balance: U256::from(*balance), ..Default::default() };
                (Address::from(*address), info)
            })
            .collect();
        let slots: Vec<_> = accounts.iter().map(|(address, info)| ((*address, info.balance), info.balance)).collect();
        let mut whole = LtHash::new(CHAIN_ID);
        whole.add_leaves(&accounts, &slots);
        let mut diff = StateDiff::default();
        accounts.iter().rev().for_each(|(address, info)| diff.set_account(*address, None, Some(*info)));
        slots.iter().for_each(|((address, slot), value)| diff.set_slot(*address, *slot, U256::ZERO, *value));
        prop_assert_eq!(&LtHash::new(CHAIN_ID).apply(&diff), &whole);
        let cut = if accounts.is_empty() { 0 } else { cut.index(accounts.len()) };
        let mut parts = LtHash::new(CHAIN_ID);
        parts.add_leaves(&accounts[cut..], &slots);
        parts.add_leaves(&accounts[..cut], &[]);
        prop_assert_eq!(&parts, &whole);
        prop_assert_eq!(&LtHash::from_bytes(CHAIN_ID, &whole.to_bytes()).unwrap(), &whole);

        // Taking everything away again leads back to the empty state.
        let mut back = StateDiff::default();
        accounts.iter().for_each(|(address, info)| back.set_account(*address, Some(*info), None));
        slots.iter().for_each(|((address, slot), value)| back.set_slot(*address, *slot, *value, U256::ZERO));
        prop_assert_eq!(whole.apply(&back), LtHash::new(CHAIN_ID));
    }
}
