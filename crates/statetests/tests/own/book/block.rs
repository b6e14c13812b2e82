//! What a transaction sees of its block.

use crate::{asm::*, spec::*};
use alloy_primitives::{Address, B256, U256, address};
use execution::Fork;
use revm::bytecode::opcode::*;

const BEACON_ROOTS: Address = address!("000f3df6d732807ef1319fb7b8bb8522d0beac02");

pub(super) fn specs() -> Vec<Spec> {
    let spec = |name, comment| spec("block", name, comment);
    let environment = || {
        let seen = [
            COINBASE,
            TIMESTAMP,
            NUMBER,
            DIFFICULTY,
            GASLIMIT,
            CHAINID,
            BASEFEE,
            BLOBBASEFEE,
            GASPRICE,
            ORIGIN,
            SELFBALANCE,
        ];
        let code =
            seen.iter().enumerate().fold(asm(), |asm, (slot, opcode)| asm.op(*opcode).mark(slot as u64));
        code.push(0).op(BLOBHASH).mark(20).push(U256::MAX).op(BLOBHASH).mark(21)
    };
    let hashes = |numbers: &[u64]| {
        let read =
            |asm: Asm, (slot, number): (usize, &u64)| asm.push(*number).op(BLOCKHASH).mark(slot as u64);
        numbers.iter().enumerate().fold(asm(), read)
    };
    vec![
        spec("environment", "Every opcode that tells of the block.")
            .contract(TARGET, 5, environment())
            .succeeds()
            .sees(TARGET, 2, 1_001)
            .sees(TARGET, 5, 2)
            .sees(TARGET, 6, 8)
            .sees(TARGET, 7, 2)
            .sees(TARGET, 8, 11)
            .sees(TARGET, 20, 1),
        spec("environment_at_the_edges", "The highest values a block can hold.")
            .env(|env| {
                env.number = u64::MAX;
                env.timestamp = u64::MAX / 1000;
                env.random = B256::repeat_byte(0xff);
                env.coinbase = Address::ZERO;
                env.base_fee = 0;
            })
            .contract(TARGET, 5, environment())
            .succeeds(),
        spec("environment_of_an_inner_call", "The same in a static call.")
            .contract(OTHER, 0, {
                asm().op(NUMBER).push(0).op(MSTORE).op(GASPRICE).push(32).op(MSTORE).ret(0, 64)
            })
            .contract(TARGET, 0, asm().call(Call::Static, OTHER, None, 0, (0, 0)).record(0))
            .succeeds()
            .sees(TARGET, 1, 64),
        spec("hashes", "The last 256 blocks, and none else.")
            .contract(TARGET, 0, hashes(&[999, 998, 745, 744, 743, 0, 1_000, 1_001, u64::MAX]))
            .succeeds()
            .sees(TARGET, 4, 1)
            .sees(TARGET, 6, 1),
        spec("hashes_of_a_young_chain", "Below a height of 256.")
            .env(|env| env.number = 3)
            .contract(TARGET, 0, hashes(&[0, 1, 2, 3, 4]))
            .succeeds()
            .sees(TARGET, 3, 1),
        spec("hash_of_an_impossible_height", "A number beyond 64 bits.")
            .contract(TARGET, 0, asm().push(U256::MAX).op(BLOCKHASH).mark(0))
            .succeeds()
            .sees(TARGET, 0, 1),
        spec("at_height_0", "A block has no parent.")
            .env(|env| env.number = 0)
            .contract(TARGET, 0, hashes(&[0, 1]))
            .succeeds(),
        spec("gas_limit_used_up", "A transaction may have all of the block's gas.")
            .contract(TARGET, 0, asm().op(GAS).sstore(0))
            .env(|env| env.gas_limit = 16_000_000)
            .gas([16_000_000])
            .succeeds(),
        spec("with_the_largest_transaction", "EIP-7825 allows 2^24 gas from Osaka on.")
            .contract(TARGET, 0, asm().op(GAS).sstore(0))
            .gas([1 << 24])
            .since(Fork::Osaka)
            .succeeds(),
        spec("with_the_beacon_roots_contract", "It is like any contract; nothing is written to it.")
            .contract(BEACON_ROOTS, 0, asm().push(0).op(SLOAD).ret(0, 0))
            .contract(TARGET, 0, asm().call(Call::Plain, BEACON_ROOTS, None, 0, (0, 0)).mark(0))
            .succeeds(),
    ]
}
