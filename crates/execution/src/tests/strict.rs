//! Strict transactions and the lists they need, over random contracts.

use super::{lanes, *};
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip7702::Authorization,
};
use proptest::prelude::*;

const TARGET: Address = Address::repeat_byte(0xc1);
const LIBRARY: Address = Address::repeat_byte(0xc2);
const VAULT: Address = Address::repeat_byte(0xc3);
const DELEGATED: Address = Address::repeat_byte(0xc4);
const STRANGER: Address = Address::repeat_byte(0xc5);
const GAS: u64 = 5_000_000;

/// One thing a contract does.
#[derive(Clone, Debug)]
enum Step {
    Load(u8),
    Store(u8, u8),
    Balance(Address),
    Call {
        to: Address,
        value: u8,
    },
    Delegate(Address),
    /// Deploys a contract whose constructor writes a slot and reads another.
    Create(u8),
    /// Calls something that reverts, and goes on.
    Failing,
}

impl Step {
    fn code(&self, code: &mut Vec<u8>) {
        let push = |code: &mut Vec<u8>, address: &Address| {
            code.push(0x73);
            code.extend_from_slice(address.as_slice());
        };
        match self {
            Self::Load(slot) => code.extend([0x60, *slot, 0x54, 0x50]),
            Self::Store(slot, value) => code.extend([0x60, *value, 0x60, *slot, 0x55]),
            Self::Balance(address) => {
                push(code, address);
                code.extend([0x31, 0x50]);
            }
            Self::Call { to, value } => {
                code.extend([0x5f, 0x5f, 0x5f, 0x5f, 0x60, *value]);
                push(code, to);
                code.extend([0x5a, 0xf1, 0x50]);
            }
            Self::Delegate(to) => {
                code.extend([0x5f, 0x5f, 0x5f, 0x5f]);
                push(code, to);
                code.extend([0x5a, 0xf4, 0x50]);
            }
            Self::Create(slot) => {
                // mstore(0, initcode); initcode = sstore(slot, 7), sload(slot + 1)
                let init = [0x60, 0x07, 0x60, *slot, 0x55, 0x60, slot + 1, 0x54, 0x50];
                code.push(0x68);
                code.extend(init);
                code.extend([0x5f, 0x52, 0x60, 9, 0x60, 32 - 9, 0x5f, 0xf0, 0x50]);
            }
            Self::Failing => Self::Call { to: VAULT, value: 0xff }.code(code),
        }
    }
}

fn code_of(steps: &[Step], reverts: bool) -> Bytes {
    let mut code = Vec::new();
    steps.iter().for_each(|step| step.code(&mut code));
    code.extend(if reverts { &[0x5f, 0x5f, 0xfd][..] } else { &[0x5f, 0x5f, 0xa0, 0x00] });
    code.into()
}

/// A chain where the target does `steps`, the library writes, the vault refuses more value than it likes, and an
/// account delegates to the library.
fn chain_with(steps: &[Step], reverts: bool) -> Chain {
    chain_of(3, steps, reverts)
}

fn chain_of(keys: u64, steps: &[Step], reverts: bool) -> Chain {
    let library = code_of(&[Step::Load(3), Step::Store(4, 9)], false);
    // Writes slot 1, then reverts when 0xff wei came with the call.
    let vault = [
        0x60, 1, 0x60, 1, 0x55, 0x34, 0x60, 0xff, 0x14, 0x60, 0x0e, 0x57, 0x00, 0x00, 0x5b, 0x5f, 0x5f, 0xfd,
    ];
    let delegation = [&[0xef, 0x01, 0x00][..], LIBRARY.as_slice()].concat();
    Chain::with(keys, |genesis| {
        for (address, code) in [
            (TARGET, code_of(steps, reverts)),
            (LIBRARY, library),
            (VAULT, vault.to_vec().into()),
            (DELEGATED, delegation.into()),
        ] {
            let storage = [(B256::with_last_byte(2), B256::with_last_byte(5))].into();
            let account = GenesisAccount { code, storage, balance: U256::from(1_000), ..Default::default() };
            genesis.alloc.insert(address, account);
        }
        genesis.alloc.insert(STRANGER, GenesisAccount { balance: U256::from(1), ..Default::default() });
    })
}

fn marker(words: Vec<B256>) -> AccessListItem {
    AccessListItem { address: STRICT_MARKER, storage_keys: words }
}

fn request(chain: &Chain, access_list: Vec<AccessListItem>) -> CallRequest {
    CallRequest {
        from: Some(chain.keys[0].address()),
        to: Some(TARGET),
        gas: Some(GAS),
        access_list: AccessList(access_list),
        ..Default::default()
    }
}

fn list_of(chain: &Chain, request: &CallRequest) -> AccessListOutcome {
    let none = StateOverrides::default();
    create_access_list(&chain.state, &chain.rules, &chain.env(), request, &none, GAS).unwrap()
}

/// The list of a strict call to the target, as `eth_createAccessList` makes it.
fn strict_list(chain: &Chain) -> Vec<AccessListItem> {
    list_of(chain, &request(chain, vec![marker(vec![])])).access_list.0
}

fn send(chain: &Chain, list: Vec<AccessListItem>) -> RecoveredTx {
    let call = tx(0, TxKind::Call(TARGET), GAS, Bytes::new());
    chain.keys[0].sign(TxEip1559 { access_list: AccessList(list), ..call })
}

/// What a block of this one transaction does, by the oracle; replay must do the same on any number of threads.
fn outcome(chain: &Chain, transaction: RecoveredTx) -> BlockOutcome {
    let transactions = lanes::known(chain, vec![transaction]);
    let payload = Payload::new(lanes::plan(&[vec![(&transactions, vec![])]])).unwrap();
    lanes::judge(chain, &payload).unwrap()
}

fn aborted(chain: &Chain, transaction: &RecoveredTx) -> StrictAbort {
    let outcome = outcome(chain, transaction.clone());
    let receipt = &outcome.receipts[0];
    let abort = receipt.abort.unwrap_or_else(|| panic!("{transaction:?} was not aborted: {receipt:?}"));
    assert!(!receipt.succeeded() && receipt.logs().is_empty());
    assert_eq!(receipt.gas_used, transaction.gas_limit());
    let sender = chain.keys[0].address();
    let touched: Vec<Address> = outcome.diff.accounts().iter().map(|(address, _)| *address).collect();
    let mut expected = vec![sender, chain.env().fee_recipient];
    expected.sort();
    assert_eq!((touched, outcome.diff.slots().len(), outcome.diff.codes().len()), (expected, 0, 0));
    let change = outcome.diff.account(&sender).unwrap();
    let (old, new) = (change.old.unwrap(), change.new.unwrap());
    let fee = U256::from(receipt.effective_gas_price) * U256::from(receipt.gas_used);
    assert_eq!((new.nonce, new.balance), (old.nonce + 1, old.balance - fee));
    let tip =
        U256::from(receipt.effective_gas_price - u128::from(chain.base_fee)) * U256::from(receipt.gas_used);
    assert_eq!(outcome.diff.account(&chain.env().fee_recipient).unwrap().new.unwrap().balance, tip);
    abort
}

/// Everything but what the fee changes.
fn effect(chain: &Chain, outcome: &BlockOutcome) -> impl PartialEq + std::fmt::Debug {
    let payers = [chain.keys[0].address(), chain.env().fee_recipient];
    let mut accounts = outcome.diff.accounts();
    accounts.retain(|(address, _)| !payers.contains(address));
    let receipt = &outcome.receipts[0];
    let nonce = outcome.diff.account(&payers[0]).unwrap().new.unwrap().nonce;
    let codes: Vec<_> = outcome.diff.codes().into_iter().map(|(hash, _)| hash).collect();
    (
        accounts,
        outcome.diff.slots(),
        codes,
        nonce,
        receipt.succeeded(),
        receipt.logs().to_vec(),
        receipt.abort,
    )
}

fn step() -> impl Strategy<Value = Step> {
    let whom = prop_oneof![
        Just(LIBRARY),
        Just(VAULT),
        Just(DELEGATED),
        Just(STRANGER),
        Just(TestKey::new(1).address()),
        Just(TestKey::new(0).address()),
        Just(Address::with_last_byte(4)),
        Just(Address::repeat_byte(0xfe)),
    ];
    prop_oneof![
        (0u8..6).prop_map(Step::Load),
        (0u8..6, 0u8..3).prop_map(|(slot, value)| Step::Store(slot, value)),
        whom.clone().prop_map(Step::Balance),
        (whom, 0u8..2).prop_map(|(to, value)| Step::Call { to, value }),
        prop_oneof![Just(LIBRARY), Just(VAULT)].prop_map(Step::Delegate),
        (10u8..12).prop_map(Step::Create),
        Just(Step::Failing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_whole_list_changes_nothing_and_no_entry_of_it_can_be_missing(
        steps in prop::collection::vec(step(), 0..9),
        reverts in prop::bool::weighted(0.2),
    ) {
        let chain = chain_with(&steps, reverts);
        let list = strict_list(&chain);
        let ordinary: Vec<_> = list.iter().filter(|item| item.address != STRICT_MARKER).cloned().collect();
        let expected = outcome(&chain, send(&chain, ordinary.clone()));
        let strict = outcome(&chain, send(&chain, list.clone()));
        prop_assert_eq!(effect(&chain, &strict), effect(&chain, &expected));
        prop_assert_eq!(strict.receipts[0].succeeded(), !reverts);
        // Words that make the list narrower are left out where the entry they are about goes.
        let words = list.iter().find(|item| item.address == STRICT_MARKER).unwrap().storage_keys.clone();
        for (at, item) in ordinary.iter().enumerate() {
            let mut without = ordinary.clone();
            without.remove(at);
            let kept = words.iter().filter(|word| **word != read_only_word(item.address)).copied().collect();
            without.push(marker(kept));
            let abort = aborted(&chain, &send(&chain, without));
            prop_assert_eq!((abort.fault, abort.address), (StrictFault::Undeclared, item.address));
            for slot in 0..item.storage_keys.len() {
                let mut without = list.clone();
                let entry = without.iter_mut().find(|entry| entry.address == item.address).unwrap();
                let missing = entry.storage_keys.remove(slot);
                let abort = aborted(&chain, &send(&chain, without));
                let expected = StrictAbort {
                    fault: StrictFault::Undeclared,
                    address: item.address,
                    slot: Some(missing.into()),
                };
                prop_assert_eq!(abort, expected);
            }
            // Who is not named as only read was written: to say otherwise is a lie.
            if !words.contains(&read_only_word(item.address)) {
                let mut lie = ordinary.clone();
                lie.push(marker([words.clone(), vec![read_only_word(item.address)]].concat()));
                let abort = aborted(&chain, &send(&chain, lie));
                prop_assert_eq!((abort.fault, abort.address), (StrictFault::ReadOnly, item.address));
            }
        }
    }
}

#[test]
fn a_list_as_wallets_know_it_leaves_out_what_is_warm_anyway() {
    let steps = [
        Step::Load(2),
        Step::Balance(STRANGER),
        Step::Balance(Address::with_last_byte(4)),
        Step::Call { to: LIBRARY, value: 0 },
        Step::Create(10),
    ];
    let chain = chain_with(&steps, false);
    let found = list_of(&chain, &request(&chain, vec![]));
    let keys = |keys: &[u8]| keys.iter().map(|key| B256::with_last_byte(*key)).collect::<Vec<_>>();
    let item = |address, slots: &[u8]| AccessListItem { address, storage_keys: keys(slots) };
    let mut expected = vec![
        item(TARGET, &[2]),
        item(LIBRARY, &[3, 4]),
        item(STRANGER, &[]),
        item(TARGET.create(0), &[10, 11]),
    ];
    expected.sort_by_key(|item| item.address);
    assert_eq!((found.access_list.0.clone(), found.error), (expected, None));
    // The gas is that of the list that is returned.
    let used = outcome(&chain, send(&chain, found.access_list.0)).receipts[0].gas_used;
    assert_eq!(found.gas_used, used);
    let plain = CallRequest { to: Some(STRANGER), ..request(&chain, vec![]) };
    assert_eq!(list_of(&chain, &plain).access_list, AccessList::default());
    let delegated = CallRequest { to: Some(DELEGATED), ..request(&chain, vec![]) };
    assert_eq!(list_of(&chain, &delegated).access_list.0, [item(DELEGATED, &[3, 4])]);
    let failing = list_of(&chain_with(&steps[..2], true), &request(&chain, vec![]));
    assert_eq!(failing.error.as_deref(), Some("execution reverted"));
    assert_eq!(failing.access_list.0.len(), 2, "what it touched until it failed");
}

#[test]
fn a_strict_list_keeps_the_last_height_and_is_refused_when_that_is_over() {
    let chain = chain_with(&[Step::Load(2), Step::Balance(STRANGER)], false);
    let wish = |height| request(&chain, vec![marker(vec![valid_until_word(height)])]);
    let list = list_of(&chain, &wish(7)).access_list.0;
    let words = &list.iter().find(|item| item.address == STRICT_MARKER).unwrap().storage_keys;
    assert_eq!(*words, [read_only_word(TARGET), read_only_word(STRANGER), valid_until_word(7)]);
    let none = StateOverrides::default();
    let late = create_access_list(&chain.state, &chain.rules, &chain.env(), &wish(0), &none, GAS);
    let expected = InvalidTx::Expired { valid_until: 0, height: 1 };
    assert_eq!(late, Err(CallError::Invalid(expected.clone())));
    let call = call(&chain.state, &chain.rules, &chain.env(), &wish(0), &none, GAS);
    assert_eq!(call, Err(CallError::Invalid(expected)));
}

#[test]
fn an_expired_or_senseless_list_makes_a_block_invalid() {
    let chain = chain_with(&[], false);
    let built = |words: Vec<B256>| {
        let transaction = send(&chain, vec![marker(words)]);
        let refused = chain.execute(vec![transaction.clone()]).err();
        let skipped = chain.build(vec![transaction]).skipped;
        (refused, skipped.into_iter().next().and_then(|skipped| skipped.reason))
    };
    assert_eq!(built(vec![valid_until_word(1)]), (None, None), "the block has height 1");
    for (words, expected) in [
        (
            vec![valid_until_word(0)],
            "transaction expired: it is valid until height 0, the block has height 1",
        ),
        (vec![B256::repeat_byte(9)], "strict marker: 0x0909"),
        (vec![read_only_word(LIBRARY)], "has no entry for it"),
    ] {
        let (refused, skipped) = built(words);
        let Some(ExecuteError::Invalid(invalid)) = refused else { panic!("{refused:?}") };
        assert_eq!(invalid.code, InvalidPayloadCode::InvalidTransaction);
        let skipped = skipped.unwrap();
        assert!(invalid.reason.contains(expected) && skipped.to_string().contains(expected), "{invalid}");
        assert!(!skipped.may_become_valid());
    }
}

#[test]
fn calls_and_estimates_name_what_was_not_declared() {
    let chain = chain_with(&[Step::Load(2)], false);
    let request = request(&chain, vec![marker(vec![])]);
    let none = StateOverrides::default();
    let expected =
        format!("strict access list: access to undeclared slot {} of {TARGET}", B256::with_last_byte(2));
    let called = call(&chain.state, &chain.rules, &chain.env(), &request, &none, GAS).unwrap();
    assert_eq!(called, CallOutcome::Halt { reason: expected.clone(), out_of_gas: false, gas_used: GAS });
    let estimated = estimate_gas(&chain.state, &chain.rules, &chain.env(), &request, &none, GAS);
    assert_eq!(estimated, Err(EstimateError::Halt { reason: expected }));
}

#[test]
fn an_abort_undoes_value_and_delegations_and_reads_nothing_undeclared() {
    let chain = chain_with(&[Step::Balance(STRANGER)], false);
    let (sender, authority) = (&chain.keys[0], &chain.keys[1]);
    let authorization = Authorization { chain_id: U256::from(CHAIN_ID), address: LIBRARY, nonce: 0 };
    let transaction = |list: Vec<AccessListItem>| {
        sender.sign_eip7702(alloy_consensus::TxEip7702 {
            chain_id: CHAIN_ID,
            gas_limit: GAS,
            max_fee_per_gas: u128::from(100 * GWEI),
            max_priority_fee_per_gas: u128::from(GWEI),
            to: TARGET,
            value: U256::from(77),
            access_list: AccessList(list),
            authorization_list: vec![authority.authorize(authorization.clone())],
            ..Default::default()
        })
    };
    let strict = transaction(vec![marker(vec![])]);
    let abort = aborted(&chain, &strict);
    assert_eq!(abort, StrictAbort { fault: StrictFault::Undeclared, address: STRANGER, slot: None });
    assert_eq!(abort.to_string(), format!("strict access list: access to undeclared account {STRANGER}"));
    let set = &lanes::known(&chain, vec![strict])[0].set;
    let read: Vec<_> = set.iter().map(|access| (access.object, access.written)).collect();
    let mut expected = vec![
        (Object::account(sender.address()), true),
        (Object::account(authority.address()), false),
        (Object::account(TARGET), false),
    ];
    expected.sort();
    assert_eq!(read, expected);
    // With the stranger declared all of it happens; the authority needs no entry.
    let stranger = AccessListItem { address: STRANGER, storage_keys: vec![] };
    let done = outcome(&chain, transaction(vec![marker(vec![]), stranger]));
    assert!(done.receipts[0].succeeded());
    assert_eq!(done.diff.account(&authority.address()).unwrap().new.unwrap().nonce, 1);
}

#[test]
fn a_creation_may_touch_its_contract_and_needs_its_slots_declared() {
    let chain = chain_with(&[], false);
    let created = chain.keys[0].address().create(0);
    let deploy = |list: Vec<AccessListItem>| {
        let init = Bytes::from_static(&[0x60, 0x07, 0x60, 0x01, 0x55]);
        let deploy = tx(0, TxKind::Create, GAS, init);
        chain.keys[0].sign(TxEip1559 { access_list: AccessList(list), ..deploy })
    };
    let abort = aborted(&chain, &deploy(vec![marker(vec![])]));
    let slot = Some(U256::from(1));
    assert_eq!(abort, StrictAbort { fault: StrictFault::Undeclared, address: created, slot });
    let slots = AccessListItem { address: created, storage_keys: vec![B256::with_last_byte(1)] };
    let done = outcome(&chain, deploy(vec![slots, marker(vec![])]));
    assert!(done.receipts[0].succeeded());
    assert_eq!(done.diff.slot(&created, &U256::from(1)).unwrap().new, U256::from(7));
}

#[test]
fn an_aborted_transaction_in_a_hot_lane_hands_over_like_any_other() {
    let chain = chain_with(&[Step::Load(2), Step::Store(2, 6)], false);
    let slots = AccessListItem { address: TARGET, storage_keys: vec![B256::with_last_byte(2)] };
    let call = |key: usize, nonce: u64, list: Vec<AccessListItem>| {
        let call = tx(nonce, TxKind::Call(TARGET), 100_000, Bytes::new());
        chain.keys[key].sign(TxEip1559 { access_list: AccessList(list), ..call })
    };
    let lie = vec![slots.clone(), marker(vec![read_only_word(TARGET)])];
    let transactions = lanes::known(
        &chain,
        vec![call(0, 0, lie.clone()), call(1, 0, vec![slots, marker(vec![])]), call(2, 0, lie)],
    );
    let taken = vec![(Object::slot(TARGET, U256::from(2)), ObjectValue::Slot(U256::from(6)))];
    let plan = lanes::plan(&[vec![(&transactions[..2], vec![]), (&transactions[2..], taken)]]);
    let outcome = lanes::judge(&chain, &Payload::new(plan).unwrap()).unwrap();
    let aborts: Vec<bool> = outcome.receipts.iter().map(|receipt| receipt.abort.is_some()).collect();
    // The third changes nothing: the slot has the value already.
    assert_eq!(aborts, [true, false, false]);
}

#[test]
fn a_builder_on_any_number_of_threads_packs_strict_transactions_as_the_oracle_runs_them() {
    let steps = [Step::Load(2), Step::Store(3, 6), Step::Balance(STRANGER)];
    let chain = chain_of(48, &steps, false);
    let whole = strict_list(&chain);
    let mut shorter = whole.clone();
    shorter.retain(|item| item.address != STRANGER);
    shorter.iter_mut().for_each(|item| item.storage_keys.retain(|word| *word != read_only_word(STRANGER)));
    let mut late = whole.clone();
    let marker = late.iter_mut().find(|item| item.address == STRICT_MARKER).unwrap();
    marker.storage_keys.push(valid_until_word(0));
    let candidates: Vec<RecoveredTx> = chain
        .keys
        .iter()
        .enumerate()
        .map(|(n, key)| {
            let list = [Vec::new(), whole.clone(), shorter.clone(), late.clone()][n % 4].clone();
            let call = tx(0, TxKind::Call(TARGET), 200_000, Bytes::new());
            key.sign(TxEip1559 { access_list: AccessList(list), ..call })
        })
        .collect();
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let built = pool.install(|| chain.build(candidates.clone()));
        assert_eq!(built.skipped.len(), 12, "the late ones");
        let late = |skipped: &SkippedTx| matches!(skipped.reason, Some(InvalidTx::Expired { .. }));
        assert!(built.skipped.iter().all(late));
        let aborted = built.outcome.receipts.iter().filter(|receipt| receipt.abort.is_some()).count();
        let succeeded = built.outcome.receipts.iter().filter(|receipt| receipt.succeeded()).count();
        assert_eq!((aborted, succeeded), (12, 24));
        let payload = Payload::decode(&built.payload).unwrap();
        assert_eq!(lanes::judge(&chain, &payload).as_ref(), Ok(&built.outcome));
    }
}
