use super::*;
use alloy_primitives::{hex, map::HashMap};

const CAP: u64 = 50_000_000;

fn deployed() -> (Chain, Address) {
    let mut chain = Chain::new(1);
    let key = chain.keys[0].clone();
    let contract = key.address().create(0);
    chain.run(vec![key.sign(tx(0, TxKind::Create, 200_000, deployer(&STORE)))]);
    (chain, contract)
}

fn run(chain: &Chain, request: &CallRequest, overrides: &StateOverrides) -> Result<CallOutcome, CallError> {
    call(&chain.state, &chain.rules, &chain.env(), request, overrides, CAP)
}

fn estimate(chain: &Chain, request: &CallRequest) -> Result<u64, EstimateError> {
    estimate_gas(&chain.state, &chain.rules, &chain.env(), request, &StateOverrides::default(), CAP)
}

#[test]
fn a_call_needs_no_balance_for_fees_and_changes_nothing() {
    let (chain, contract) = deployed();
    let before = chain.state.clone();
    let request = CallRequest { to: Some(contract), input: store_input(1, 2), ..Default::default() };
    let CallOutcome::Success { logs, gas_used, .. } =
        run(&chain, &request, &StateOverrides::default()).unwrap()
    else {
        panic!()
    };
    assert_eq!(logs.len(), 1);
    assert!(gas_used > 40_000);
    assert_eq!(chain.state, before);
    let unpaid = CallRequest { gas_price: Some(1), ..request.clone() };
    let error = run(&chain, &unpaid, &StateOverrides::default()).unwrap_err();
    assert!(matches!(error, CallError::Invalid(InvalidTx::InsufficientFunds { .. })), "{error}");
    let poor = CallRequest { value: U256::from(1), ..request };
    let error = run(&chain, &poor, &StateOverrides::default()).unwrap_err();
    assert!(matches!(error, CallError::Invalid(InvalidTx::InsufficientFunds { .. })), "{error}");
}

#[test]
fn a_revert_comes_back_with_its_data_and_a_halt_with_its_reason() {
    let (chain, contract) = deployed();
    let reverting = CallRequest { to: Some(contract), input: store_input(1, 0xdead), ..Default::default() };
    let outcome = run(&chain, &reverting, &StateOverrides::default()).unwrap();
    assert!(matches!(outcome, CallOutcome::Revert { .. }));
    assert_eq!(estimate(&chain, &reverting), Err(EstimateError::Revert { output: Bytes::new() }));

    // revert(0, 4) after mstore8(3, 0x2a)
    let code: &[u8] = &[0x60, 0x2a, 0x60, 0x03, 0x53, 0x60, 0x04, 0x60, 0x00, 0xfd];
    let code = Bytes::from_static(code);
    let overrides =
        StateOverrides::from_iter([(contract, AccountOverride { code: Some(code), ..Default::default() })]);
    let CallOutcome::Revert { output, .. } = run(&chain, &reverting, &overrides).unwrap() else { panic!() };
    assert_eq!(output, Bytes::from_static(&[0, 0, 0, 0x2a]));

    let overrides = StateOverrides::from_iter([(
        contract,
        AccountOverride { code: Some(Bytes::from_static(&[0xfe])), ..Default::default() },
    )]);
    let CallOutcome::Halt { reason, out_of_gas, .. } = run(&chain, &reverting, &overrides).unwrap() else {
        panic!()
    };
    assert_eq!((reason.as_str(), out_of_gas), ("invalid opcode: INVALID", false));
}

#[test]
fn a_precompile_says_in_words_why_it_failed() {
    let (chain, _) = deployed();
    let request = CallRequest { to: Some(Address::with_last_byte(9)), ..Default::default() };
    let CallOutcome::Halt { reason, .. } = run(&chain, &request, &StateOverrides::default()).unwrap() else {
        panic!()
    };
    assert_eq!(reason, "wrong input length for blake2");
}

/// A proof of c-kzg-4844's test vectors (`verify_kzg_proof_case_correct_proof_4_4`), and the same for another value.
#[test]
fn point_evaluation_accepts_a_proof_and_refuses_a_wrong_one() {
    let (chain, _) = deployed();
    let commitment = hex!(
        "8f59a8d2a1a625a17f3fea0fe5eb8c896db3764f3185481bc22f91b4aaffcca2"
        "5f26936857bc3a7c2539ea8ec3a952b7"
    );
    let versioned_hash = hex!("01e798154708fe7789429634053cbf9f99b619f9f084048927333fce637f549b");
    let z = hex!("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000000");
    let y = hex!("1522a4a7f34e1ea350ae07c29c96c7e79655aa926122e95fe69fcbd932ca49e9");
    let proof = hex!(
        "a62ad71d14c5719385c0686f1871430475bf3a00f0aa3f7b8dd99a9abc216074"
        "4faf0070725e00b60ad9a026a15b1a8c"
    );
    let evaluate = |y: [u8; 32]| {
        let input = [&versioned_hash[..], &z, &y, &commitment, &proof].concat().into();
        let request = CallRequest { to: Some(Address::with_last_byte(10)), input, ..Default::default() };
        run(&chain, &request, &StateOverrides::default()).unwrap()
    };
    let CallOutcome::Success { output, .. } = evaluate(y) else { panic!() };
    assert_eq!(output[..32], U256::from(4096).to_be_bytes::<32>());
    let mut other = y;
    other[31] ^= 1;
    assert!(matches!(evaluate(other), CallOutcome::Halt { .. }));
}

#[test]
fn overriding_code_that_no_account_can_hold_is_refused() {
    let (chain, contract) = deployed();
    let broken = AccountOverride { code: Some(Bytes::from_static(&[0xef, 1, 0, 7])), ..Default::default() };
    let request = CallRequest { to: Some(contract), ..Default::default() };
    let error = run(&chain, &request, &StateOverrides::from_iter([(contract, broken)])).unwrap_err();
    assert!(matches!(error, CallError::OverrideCode { address, .. } if address == contract), "{error}");
}

#[test]
fn overrides_replace_balance_code_and_storage_for_one_call() {
    let (chain, contract) = deployed();
    // return sload(calldata[0])
    let load = Bytes::from_static(&[0x60, 0x00, 0x35, 0x54, 0x60, 0x00, 0x52, 0x60, 0x20, 0x60, 0x00, 0xf3]);
    let read = |account: AccountOverride, slot: u64| {
        let account = AccountOverride { code: Some(load.clone()), ..account };
        let overrides = StateOverrides::from_iter([(contract, account)]);
        let input = U256::from(slot).to_be_bytes::<32>().to_vec().into();
        let request = CallRequest { to: Some(contract), input, ..Default::default() };
        match run(&chain, &request, &overrides).unwrap() {
            CallOutcome::Success { output, .. } => U256::from_be_slice(&output),
            other => panic!("{other:?}"),
        }
    };
    let slots = HashMap::from_iter([(U256::from(5), U256::from(77))]);
    let single = AccountOverride { state_diff: slots.clone(), ..Default::default() };
    let whole = AccountOverride { state: Some(slots.clone()), ..Default::default() };
    assert_eq!(read(single.clone(), 5), U256::from(77));
    assert_eq!(read(whole.clone(), 5), U256::from(77));
    assert_eq!(read(whole, 6), U256::ZERO);
    assert_eq!(read(AccountOverride::default(), 5), U256::ZERO);

    let both = AccountOverride { state: Some(slots.clone()), state_diff: slots, ..Default::default() };
    let overrides = StateOverrides::from_iter([(contract, both)]);
    let error = run(&chain, &CallRequest::default(), &overrides).unwrap_err();
    assert_eq!(error, CallError::ConflictingOverride(contract));

    let rich = AccountOverride { balance: Some(coins(1)), ..Default::default() };
    let overrides = StateOverrides::from_iter([(Address::ZERO, rich)]);
    let paid = CallRequest { to: Some(Address::repeat_byte(3)), value: U256::from(9), ..Default::default() };
    assert!(matches!(run(&chain, &paid, &overrides), Ok(CallOutcome::Success { .. })));
}

#[test]
fn estimates_are_enough_and_close() {
    let (mut chain, contract) = deployed();
    let key = chain.keys[0].clone();
    let from = Some(key.address());
    let transfer =
        CallRequest { from, to: Some(Address::repeat_byte(1)), value: U256::from(1), ..Default::default() };
    assert_eq!(estimate(&chain, &transfer), Ok(21_000));

    let store = CallRequest { from, to: Some(contract), input: store_input(1, 2), ..Default::default() };
    let gas = estimate(&chain, &store).unwrap();
    let outcome = chain.run(vec![key.sign(tx(1, TxKind::Call(contract), gas, store_input(1, 2)))]);
    assert!(outcome.receipts[0].succeeded());
    assert!(gas - outcome.gas_used <= outcome.gas_used * 2 / 100 + 1, "{gas} for {}", outcome.gas_used);

    let create = CallRequest { from, input: deployer(&STORE), ..Default::default() };
    let gas = estimate(&chain, &create).unwrap();
    let outcome = chain.run(vec![key.sign(tx(2, TxKind::Create, gas, deployer(&STORE)))]);
    assert!(outcome.receipts[0].succeeded());
}

#[test]
fn an_estimate_is_bounded_by_what_the_sender_can_pay() {
    let (chain, contract) = deployed();
    let from = Some(chain.keys[0].address());
    let priced = |cap: u128| CallRequest {
        from,
        to: Some(contract),
        input: store_input(1, 2),
        max_fee_per_gas: Some(cap),
        ..Default::default()
    };
    assert!(estimate(&chain, &priced(u128::from(GWEI))).is_ok());
    // 10,000 coins pay for fewer than 30,000 gas at this price.
    let error = estimate(&chain, &priced(10u128.pow(18) / 3)).unwrap_err();
    assert!(matches!(error, EstimateError::GasTooLow { allowance } if allowance < 30_000), "{error}");
    let conflicting = CallRequest { gas_price: Some(1), ..priced(1) };
    assert_eq!(estimate(&chain, &conflicting), Err(CallError::ConflictingFees.into()));
    let loop_forever = StateOverrides::from_iter([(
        contract,
        AccountOverride { code: Some(Bytes::from_static(&[0x5b, 0x60, 0x00, 0x56])), ..Default::default() },
    )]);
    let request = CallRequest { to: Some(contract), ..Default::default() };
    let error =
        estimate_gas(&chain.state, &chain.rules, &chain.env(), &request, &loop_forever, CAP).unwrap_err();
    assert_eq!(error, EstimateError::GasTooLow { allowance: 1 << 24 });
}
