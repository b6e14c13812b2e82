//! Contracts that loads call: a token, a constant-product pool, a counter. Storage layouts, checks and events are
//! those of the well-known Solidity sources, so that what a transaction touches is what it touches elsewhere.

use crate::asm::{Asm, Label};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolEvent, sol};
use revm::bytecode::opcode as op;

sol! {
    /// ERC-20, as far as loads need it.
    interface IToken {
        /// Tokens moved.
        event Transfer(address indexed from, address indexed to, uint256 value);
        /// An allowance was set.
        event Approval(address indexed owner, address indexed spender, uint256 value);
        /// Moves tokens of the caller.
        function transfer(address to, uint256 value) external returns (bool);
        /// Moves tokens of another account within its allowance.
        function transferFrom(address from, address to, uint256 value) external returns (bool);
        /// Sets an allowance.
        function approve(address spender, uint256 value) external returns (bool);
        /// Balance of an account.
        function balanceOf(address owner) external view returns (uint256);
    }

    /// A pool of two tokens: Uniswap V2's formula, fee, events and storage slots.
    interface IPool {
        /// The reserves after a swap.
        event Sync(uint112 reserve0, uint112 reserve1);
        /// A swap.
        event Swap(address indexed sender, uint256 amount0In, uint256 amount1In,
            uint256 amount0Out, uint256 amount1Out, address indexed to);
        /// Gives `amountIn` of one token and takes at least `minOut` of the other.
        function swap(bool zeroForOne, uint256 amountIn, uint256 minOut) external returns (uint256);
    }
}

/// Slot of `mapping(address => uint256) balanceOf` of the token.
pub const TOKEN_BALANCES: u64 = 0;
/// Slot of `mapping(address => mapping(address => uint256)) allowance` of the token.
pub const TOKEN_ALLOWANCES: u64 = 1;
/// Slots of the pool: its tokens, its packed reserves, its lock.
pub const POOL_TOKENS: [u64; 2] = [6, 7];
/// `uint112 reserve0, uint112 reserve1, uint32 blockTimestampLast`.
pub const POOL_RESERVES: u64 = 8;
/// 1 while no swap runs.
pub const POOL_LOCK: u64 = 12;

/// The slot of a mapping's entry.
pub fn mapping_slot(key: B256, base: B256) -> B256 {
    keccak256([key.0, base.0].concat())
}

/// The slot of an account's token balance.
pub fn balance_slot(owner: Address) -> U256 {
    mapping_slot(owner.into_word(), U256::from(TOKEN_BALANCES).into()).into()
}

/// The slot of an allowance.
pub fn allowance_slot(owner: Address, spender: Address) -> U256 {
    let of_owner = mapping_slot(owner.into_word(), U256::from(TOKEN_ALLOWANCES).into());
    mapping_slot(spender.into_word(), of_owner).into()
}

/// A pool's packed reserves.
pub fn reserves(reserve0: u128, reserve1: u128, timestamp: u32) -> U256 {
    U256::from(reserve0) | U256::from(reserve1) << 112 | U256::from(timestamp) << 224
}

/// What a pool with these reserves gives for `amount_in`.
pub fn amount_out(amount_in: U256, reserve_in: U256, reserve_out: U256) -> U256 {
    let with_fee = amount_in * U256::from(997);
    with_fee * reserve_out / (reserve_in * U256::from(1000) + with_fee)
}

/// `slot 0 += 1`, whatever it is called with; returns the new value.
pub fn counter() -> Bytes {
    let mut asm = Asm::new();
    asm.push(0).ops(&[op::SLOAD]).push(1).ops(&[op::ADD, op::DUP1]).push(0).ops(&[op::SSTORE]);
    asm.mstore(0).return_word(0).build()
}

// Memory of the token.
const FROM: u64 = 0x40;
const TO: u64 = 0x60;
const VALUE: u64 = 0x80;

/// The token's code.
pub fn token() -> Bytes {
    let mut asm = Asm::new();
    let fail = asm.label();
    let functions = dispatch(
        &mut asm,
        fail,
        [
            (IToken::transferCall::SELECTOR, 2),
            (IToken::transferFromCall::SELECTOR, 3),
            (IToken::approveCall::SELECTOR, 2),
            (IToken::balanceOfCall::SELECTOR, 1),
        ],
    );
    asm.place(functions[0]).ops(&[op::CALLER]).mstore(FROM);
    address_argument(&mut asm, 0, fail).mstore(TO).calldata(0x24).mstore(VALUE);
    move_tokens(&mut asm, fail);

    asm.place(functions[1]);
    address_argument(&mut asm, 0, fail).mstore(FROM);
    address_argument(&mut asm, 1, fail).mstore(TO).calldata(0x44).mstore(VALUE);
    spend_allowance(&mut asm, fail);
    move_tokens(&mut asm, fail);

    asm.place(functions[2]).ops(&[op::CALLER]).mstore(FROM);
    address_argument(&mut asm, 0, fail).mstore(TO).calldata(0x24).mstore(VALUE);
    asm.mload(VALUE);
    allowance(&mut asm).ops(&[op::SSTORE]);
    log_value(&mut asm, IToken::Approval::SIGNATURE_HASH);
    return_true(&mut asm);

    asm.place(functions[3]);
    address_argument(&mut asm, 0, fail)
        .mapping_slot(TOKEN_BALANCES)
        .ops(&[op::SLOAD])
        .mstore(0)
        .return_word(0);
    asm.place(fail).revert().build()
}

/// Refuses value, unknown selectors and short call data; gives each function a label to be placed.
fn dispatch<const N: usize>(asm: &mut Asm, fail: Label, functions: [([u8; 4], u64); N]) -> [Label; N] {
    let bodies = functions.map(|_| asm.label());
    asm.ops(&[op::CALLVALUE]).jump_if(fail).push(0).ops(&[op::CALLDATALOAD]).push(0xe0).ops(&[op::SHR]);
    for ((selector, words), body) in functions.into_iter().zip(bodies) {
        let next = asm.label();
        asm.ops(&[op::DUP1]).push(u32::from_be_bytes(selector)).ops(&[op::EQ, op::ISZERO]).jump_if(next);
        asm.ops(&[op::POP]).push(4 + 32 * words).ops(&[op::CALLDATASIZE, op::LT]).jump_if(fail);
        asm.jump(body).place(next);
    }
    asm.jump(fail);
    bodies
}

/// `[] -> [address]`: argument number `index`, refused when its upper bytes are not zero.
fn address_argument(asm: &mut Asm, index: u64, fail: Label) -> &mut Asm {
    asm.calldata(4 + 32 * index).ops(&[op::DUP1]).push(160).ops(&[op::SHR]).jump_if(fail)
}

/// `[] -> [slot]`: FROM's allowance for TO.
fn allowance(asm: &mut Asm) -> &mut Asm {
    asm.mload(FROM).mapping_slot(TOKEN_ALLOWANCES).push(0x20).ops(&[op::MSTORE]).mload(TO);
    asm.push(0).ops(&[op::MSTORE]).push(0x40).push(0).ops(&[op::KECCAK256])
}

/// Lowers FROM's allowance for the caller by VALUE, unless it is without limit.
fn spend_allowance(asm: &mut Asm, fail: Label) {
    let unlimited = asm.label();
    asm.mload(FROM).mapping_slot(TOKEN_ALLOWANCES).push(0x20).ops(&[op::MSTORE, op::CALLER]);
    asm.push(0).ops(&[op::MSTORE]).push(0x40).push(0).ops(&[op::KECCAK256, op::DUP1, op::SLOAD]);
    // [slot, allowed]
    asm.ops(&[op::DUP1, op::NOT, op::ISZERO]).jump_if(unlimited);
    asm.mload(VALUE).ops(&[op::DUP2, op::LT]).jump_if(fail);
    asm.mload(VALUE).ops(&[op::DUP2, op::SUB, op::DUP3, op::SSTORE]);
    asm.place(unlimited).ops(&[op::POP, op::POP]);
}

/// Moves VALUE from FROM to TO, logs it and returns true.
fn move_tokens(asm: &mut Asm, fail: Label) {
    asm.mload(TO).ops(&[op::ISZERO]).jump_if(fail);
    asm.mload(FROM).mapping_slot(TOKEN_BALANCES).ops(&[op::DUP1, op::SLOAD]);
    // [slot, balance]
    asm.mload(VALUE).ops(&[op::DUP2, op::LT]).jump_if(fail);
    asm.mload(VALUE).ops(&[op::SWAP1, op::SUB, op::SWAP1, op::SSTORE]);
    asm.mload(TO).mapping_slot(TOKEN_BALANCES).ops(&[op::DUP1, op::SLOAD]);
    asm.mload(VALUE).ops(&[op::ADD, op::SWAP1, op::SSTORE]);
    log_value(asm, IToken::Transfer::SIGNATURE_HASH);
    return_true(asm);
}

/// Logs VALUE with FROM and TO as topics.
fn log_value(asm: &mut Asm, signature: B256) {
    asm.mload(TO).mload(FROM).push(U256::from_be_bytes(signature.0)).push(0x20).push(VALUE).ops(&[op::LOG3]);
}

fn return_true(asm: &mut Asm) {
    asm.push(1).mstore(0).return_word(0);
}

// Memory of the pool; calls are built from `CALL_DATA` on.
const FORWARD: u64 = 0x80;
const AMOUNT_IN: u64 = 0xa0;
const RESERVES: u64 = 0xc0;
const RESERVE_IN: u64 = 0xe0;
const RESERVE_OUT: u64 = 0x100;
const AMOUNT_OUT: u64 = 0x120;
const LOG_DATA: u64 = 0x140;
const CALL_DATA: u64 = 0x200;

/// The pool's code.
pub fn pool() -> Bytes {
    let mut asm = Asm::new();
    let fail = asm.label();
    let [swap] = dispatch(&mut asm, fail, [(IPool::swapCall::SELECTOR, 3)]);
    asm.place(swap).push(POOL_LOCK).ops(&[op::SLOAD]).push(1).ops(&[op::EQ, op::ISZERO]).jump_if(fail);
    asm.push(0).push(POOL_LOCK).ops(&[op::SSTORE]);
    asm.calldata(0x04).ops(&[op::ISZERO, op::ISZERO]).mstore(FORWARD).calldata(0x24).mstore(AMOUNT_IN);
    asm.push(POOL_RESERVES).ops(&[op::SLOAD]).mstore(RESERVES);
    reserve(&mut asm, false).mstore(RESERVE_IN);
    reserve(&mut asm, true).mstore(RESERVE_OUT);
    price(&mut asm);
    asm.mload(AMOUNT_OUT).ops(&[op::ISZERO]).jump_if(fail);
    asm.calldata(0x44).mload(AMOUNT_OUT).ops(&[op::LT]).jump_if(fail);
    pull_and_pay(&mut asm, fail);
    update_reserves(&mut asm, fail);
    log_swap(&mut asm);
    asm.push(1).push(POOL_LOCK).ops(&[op::SSTORE]).return_word(AMOUNT_OUT);
    asm.place(fail).revert().build()
}

/// `[] -> [bits]`: how far the reserve of the token that comes in (or goes out) is shifted.
fn shift(asm: &mut Asm, out: bool) -> &mut Asm {
    asm.mload(FORWARD);
    if !out {
        asm.ops(&[op::ISZERO]);
    }
    asm.push(112).ops(&[op::MUL])
}

/// `[] -> [reserve]`.
fn reserve(asm: &mut Asm, out: bool) -> &mut Asm {
    asm.push((U256::from(1) << 112) - U256::from(1)).mload(RESERVES);
    shift(asm, out).ops(&[op::SHR, op::AND])
}

/// AMOUNT_OUT = in * 997 * reserve out / (reserve in * 1000 + in * 997).
fn price(asm: &mut Asm) {
    asm.mload(AMOUNT_IN).push(997).ops(&[op::MUL, op::DUP1]);
    asm.mload(RESERVE_IN).push(1000).ops(&[op::MUL, op::ADD, op::SWAP1]);
    // [denominator, in with fee]
    asm.mload(RESERVE_OUT).ops(&[op::MUL, op::DIV]).mstore(AMOUNT_OUT);
}

/// Takes AMOUNT_IN of one token from the caller and gives AMOUNT_OUT of the other.
fn pull_and_pay(asm: &mut Asm, fail: Label) {
    selector(asm, IToken::transferFromCall::SELECTOR).ops(&[op::CALLER]).mstore(CALL_DATA + 4);
    asm.ops(&[op::ADDRESS]).mstore(CALL_DATA + 36).mload(AMOUNT_IN).mstore(CALL_DATA + 68);
    call_token(asm, 100, false, fail);
    selector(asm, IToken::transferCall::SELECTOR).ops(&[op::CALLER]).mstore(CALL_DATA + 4);
    asm.mload(AMOUNT_OUT).mstore(CALL_DATA + 36);
    call_token(asm, 68, true, fail);
}

fn selector(asm: &mut Asm, selector: [u8; 4]) -> &mut Asm {
    asm.push(U256::from_be_slice(&selector) << 224).mstore(CALL_DATA)
}

/// Calls a token with `size` bytes of CALL_DATA; it has to return true.
fn call_token(asm: &mut Asm, size: u64, out: bool, fail: Label) {
    asm.push(0x20).push(0).push(size).push(CALL_DATA).push(0);
    // The token that comes in is the second one unless the swap is forward.
    asm.push(POOL_TOKENS[0]).mload(FORWARD);
    if !out {
        asm.ops(&[op::ISZERO]);
    }
    asm.ops(&[op::ADD, op::SLOAD, op::GAS, op::CALL, op::ISZERO]).jump_if(fail);
    asm.mload(0).push(1).ops(&[op::EQ, op::ISZERO]).jump_if(fail);
}

/// Stores what the reserves are now; refuses one that does not fit its 112 bits.
fn update_reserves(asm: &mut Asm, fail: Label) {
    asm.mload(AMOUNT_IN).mload(RESERVE_IN).ops(&[op::ADD, op::DUP1]).push(112).ops(&[op::SHR]).jump_if(fail);
    shift(asm, false).ops(&[op::SHL]);
    asm.mload(AMOUNT_OUT).mload(RESERVE_OUT).ops(&[op::SUB]);
    shift(asm, true).ops(&[op::SHL, op::OR]);
    asm.ops(&[op::TIMESTAMP]).push(0xffff_ffffu32).ops(&[op::AND]).push(224).ops(&[
        op::SHL,
        op::OR,
        op::DUP1,
    ]);
    asm.mstore(RESERVES).push(POOL_RESERVES).ops(&[op::SSTORE]);
}

/// Sync, then Swap.
fn log_swap(asm: &mut Asm) {
    let mask = (U256::from(1) << 112) - U256::from(1);
    asm.mload(RESERVES).push(mask).ops(&[op::AND]).mstore(LOG_DATA);
    asm.mload(RESERVES).push(112).ops(&[op::SHR]).push(mask).ops(&[op::AND]).mstore(LOG_DATA + 0x20);
    asm.push(U256::from_be_bytes(IPool::Sync::SIGNATURE_HASH.0)).push(0x40).push(LOG_DATA).ops(&[op::LOG1]);
    // Forward: in, 0, 0, out. Backward: 0, in, out, 0.
    asm.mload(AMOUNT_IN).mload(FORWARD).ops(&[op::MUL]).mstore(LOG_DATA);
    asm.mload(AMOUNT_IN).mload(FORWARD).ops(&[op::ISZERO, op::MUL]).mstore(LOG_DATA + 0x20);
    asm.mload(AMOUNT_OUT).mload(FORWARD).ops(&[op::ISZERO, op::MUL]).mstore(LOG_DATA + 0x40);
    asm.mload(AMOUNT_OUT).mload(FORWARD).ops(&[op::MUL]).mstore(LOG_DATA + 0x60);
    asm.ops(&[op::CALLER, op::CALLER]).push(U256::from_be_bytes(IPool::Swap::SIGNATURE_HASH.0));
    asm.push(0x80).push(LOG_DATA).ops(&[op::LOG3]);
}
