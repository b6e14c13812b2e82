//! The contracts of the loads do what their Solidity models do, and the loads do what they say.
#![allow(clippy::unwrap_used)]

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, TxKind, U256};
use alloy_sol_types::{SolCall, SolEvent};
use execution::{AccountInfo, BlockOutcome, Fork, RecoveredTx, StateView};
use std::collections::BTreeSet;
use workloads::{
    asm::{Asm, deployer},
    chain::{CHAIN_ID, Chain, GWEI, coins},
    contracts::{self, IPool, IToken},
    keys::key,
    loads::{Load, Stage},
};

const TOKENS: [Address; 2] = [Address::repeat_byte(0xa0), Address::repeat_byte(0xa1)];
const POOL: Address = Address::repeat_byte(0xb0);

/// Two tokens of which key 0 has 1,000 each, and a pool with 10,000 of each.
fn market() -> Chain {
    let mut chain = Chain::new(&[(Fork::Osaka, 0)], 30_000_000, GWEI);
    let state = chain.state_mut();
    for n in 0..3 {
        state.put_account(key(n).address(), AccountInfo { balance: coins(1), ..Default::default() });
    }
    for (address, code) in
        [(TOKENS[0], contracts::token()), (TOKENS[1], contracts::token()), (POOL, contracts::pool())]
    {
        let code_hash = state.put_code(code);
        state.put_account(address, AccountInfo { nonce: 1, balance: U256::ZERO, code_hash });
    }
    for (slot, token) in contracts::POOL_TOKENS.into_iter().zip(TOKENS) {
        state.put_slot(POOL, U256::from(slot), token.into_word().into());
        state.put_slot(token, contracts::balance_slot(POOL), U256::from(10_000));
        state.put_slot(token, contracts::balance_slot(key(0).address()), U256::from(1_000));
    }
    state.put_slot(POOL, U256::from(contracts::POOL_RESERVES), contracts::reserves(10_000, 10_000, 0));
    state.put_slot(POOL, U256::from(contracts::POOL_LOCK), U256::from(1));
    chain
}

fn call(sender: u64, nonce: u64, to: Address, call: impl SolCall) -> RecoveredTx {
    key(sender).sign(TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 300_000,
        max_fee_per_gas: u128::from(2 * GWEI),
        to: TxKind::Call(to),
        input: call.abi_encode().into(),
        ..Default::default()
    })
}

fn run(chain: &mut Chain, transactions: Vec<RecoveredTx>) -> BlockOutcome {
    let outcome = chain.execute(transactions).unwrap();
    chain.advance(&outcome);
    outcome
}

fn tokens(chain: &Chain, token: Address, owner: Address) -> u64 {
    chain.state.storage(token, contracts::balance_slot(owner)).unwrap().to()
}

#[test]
fn a_token_moves_its_owners_balance_and_logs_it() {
    let (mut chain, [from, to]) = (market(), [0, 1].map(|n| key(n).address()));
    let outcome =
        run(&mut chain, vec![call(0, 0, TOKENS[0], IToken::transferCall { to, value: U256::from(300) })]);
    assert!(outcome.receipts[0].succeeded());
    assert_eq!([tokens(&chain, TOKENS[0], from), tokens(&chain, TOKENS[0], to)], [700, 300]);
    let event = IToken::Transfer::decode_log(&outcome.receipts[0].logs()[0]).unwrap();
    assert_eq!((event.from, event.to, event.value), (from, to, U256::from(300)));
}

#[test]
fn a_token_refuses_more_than_the_balance_and_calls_it_does_not_know() {
    let (mut chain, to) = (market(), key(1).address());
    let too_much = IToken::transferCall { to, value: U256::from(1_001) };
    let to_nobody = IToken::transferCall { to: Address::ZERO, value: U256::from(1) };
    let unknown = IPool::swapCall { zeroForOne: true, amountIn: U256::ZERO, minOut: U256::ZERO };
    let outcome = run(
        &mut chain,
        vec![
            call(0, 0, TOKENS[0], too_much),
            call(0, 1, TOKENS[0], to_nobody),
            call(0, 2, TOKENS[0], unknown),
        ],
    );
    assert!(outcome.receipts.iter().all(|receipt| !receipt.succeeded() && receipt.logs().is_empty()));
    assert!(outcome.diff.slots().is_empty());
}

#[test]
fn an_allowance_is_needed_and_used_up() {
    let (mut chain, [owner, spender]) = (market(), [0, 1].map(|n| key(n).address()));
    let spend = |value| IToken::transferFromCall { from: owner, to: spender, value: U256::from(value) };
    let allow = IToken::approveCall { spender, value: U256::from(100) };
    let outcome = run(
        &mut chain,
        vec![
            call(1, 0, TOKENS[0], spend(1)),
            call(0, 0, TOKENS[0], allow),
            call(1, 1, TOKENS[0], spend(60)),
            call(1, 2, TOKENS[0], spend(60)),
        ],
    );
    let succeeded: Vec<_> = outcome.receipts.iter().map(|receipt| receipt.succeeded()).collect();
    assert_eq!(succeeded, [false, true, true, false]);
    let approval = IToken::Approval::decode_log(&outcome.receipts[1].logs()[0]).unwrap();
    assert_eq!((approval.owner, approval.spender), (owner, spender));
    let left = chain.state.storage(TOKENS[0], contracts::allowance_slot(owner, spender)).unwrap();
    assert_eq!((left, tokens(&chain, TOKENS[0], spender)), (U256::from(40), 60));
}

#[test]
fn a_pool_pays_by_the_constant_product_and_keeps_its_reserves() {
    let (mut chain, trader) = (market(), key(0).address());
    let swap =
        |forward| IPool::swapCall { zeroForOne: forward, amountIn: U256::from(500), minOut: U256::from(1) };
    let allow = || IToken::approveCall { spender: POOL, value: U256::MAX };
    let outcome = run(
        &mut chain,
        vec![
            call(0, 0, TOKENS[0], allow()),
            call(0, 1, TOKENS[1], allow()),
            call(0, 2, POOL, swap(true)),
            call(0, 3, POOL, swap(false)),
        ],
    );
    assert!(outcome.receipts.iter().all(|receipt| receipt.succeeded()), "{:?}", outcome.receipts);
    let first = contracts::amount_out(U256::from(500), U256::from(10_000), U256::from(10_000)).to::<u64>();
    let [r0, r1] = [10_500, 10_000 - first];
    let second = contracts::amount_out(U256::from(500), U256::from(r1), U256::from(r0)).to::<u64>();
    let packed = chain.state.storage(POOL, U256::from(contracts::POOL_RESERVES)).unwrap();
    let timestamp = chain.env().timestamp_ms / 1000;
    let (r0, r1) = (r0 - second, r1 + 500);
    assert_eq!(packed, contracts::reserves(r0.into(), r1.into(), timestamp as u32));
    assert_eq!([tokens(&chain, TOKENS[0], POOL), tokens(&chain, TOKENS[1], POOL)], [r0, r1]);
    assert_eq!(tokens(&chain, TOKENS[1], trader), 1_000 + first - 500);
    let logs = outcome.receipts[2].logs();
    let sync = IPool::Sync::decode_log(&logs[2]).unwrap();
    assert_eq!((sync.reserve0.to::<u64>(), sync.reserve1.to::<u64>()), (10_500, 10_000 - first));
    let event = IPool::Swap::decode_log(&logs[3]).unwrap();
    assert_eq!((event.amount0In, event.amount1Out), (U256::from(500), U256::from(first)));
    assert_eq!((event.amount1In, event.amount0Out), (U256::ZERO, U256::ZERO));
}

#[test]
fn a_pool_refuses_a_bad_price_and_a_trader_without_allowance() {
    let mut chain = market();
    let swap = |min| IPool::swapCall { zeroForOne: true, amountIn: U256::from(500), minOut: U256::from(min) };
    let allow = IToken::approveCall { spender: POOL, value: U256::MAX };
    let outcome = run(
        &mut chain,
        vec![call(0, 0, POOL, swap(1)), call(0, 1, TOKENS[0], allow), call(0, 2, POOL, swap(500))],
    );
    let succeeded: Vec<_> = outcome.receipts.iter().map(|receipt| receipt.succeeded()).collect();
    assert_eq!(succeeded, [false, true, false]);
    assert_eq!(tokens(&chain, TOKENS[0], key(0).address()), 1_000);
}

#[test]
fn a_deployer_deploys_what_it_is_given() {
    let mut chain = market();
    let code = contracts::counter();
    let create = key(0).sign(TxEip1559 {
        chain_id: CHAIN_ID,
        gas_limit: 300_000,
        max_fee_per_gas: u128::from(2 * GWEI),
        to: TxKind::Create,
        input: deployer(&code),
        ..Default::default()
    });
    let outcome = run(&mut chain, vec![create]);
    let address = outcome.receipts[0].contract_address.unwrap();
    let hash = chain.state.account(address).unwrap().unwrap().code_hash;
    assert_eq!(chain.state.code(hash).unwrap(), code);
}

#[test]
fn the_assembler_pushes_the_shortest_form_and_finds_its_labels() {
    let mut asm = Asm::new();
    let end = asm.label();
    asm.push(0).push(255).push(256).jump(end).place(end);
    assert_eq!(asm.build(), Bytes::from_static(&[0x5f, 0x60, 0xff, 0x61, 1, 0, 0x61, 0, 10, 0x56, 0x5b]));
}

#[test]
fn every_transaction_of_every_load_succeeds_and_touches_what_its_name_says() {
    let stage = Stage::new(2_000, 600);
    for load in Load::ALL {
        let block = stage.block(load, 600);
        let outcome = stage.chain.execute(block).unwrap();
        assert!(outcome.receipts.iter().all(|receipt| receipt.succeeded()), "{load}");
        let recipients: BTreeSet<_> = outcome.receipts.iter().map(|receipt| receipt.to.unwrap()).collect();
        let slots = outcome.diff.slots().len();
        match load {
            Load::Transfers => assert_eq!((recipients.len(), slots), (600, 0)),
            Load::Erc20 => assert_eq!((recipients.len(), slots), (1, 1_200)),
            Load::Erc20OneRecipient => assert_eq!((recipients.len(), slots), (1, 601)),
            Load::Counter => assert_eq!((recipients.len(), slots), (1, 1)),
            // Both tokens of each trader and pool, and the pool's reserves.
            Load::Pools => assert_eq!((recipients.len(), slots), (256, 1_200 + 3 * 256)),
            Load::OnePool => assert_eq!((recipients.len(), slots), (1, 1_200 + 3)),
            Load::Mixed => assert_eq!((recipients.len(), slots), (2 + 180, 360 + 3 + 480)),
        }
    }
}
