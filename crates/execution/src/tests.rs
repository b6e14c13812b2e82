#![allow(clippy::unwrap_used)]

mod blocks;
mod building;
mod calls;
mod figures;
mod formats;
mod lanes;
mod registry;
mod strict;
mod vectors;

use crate::{testing::*, *};
use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use std::collections::BTreeMap;
use types::{
    Genesis, QuorumRule,
    genesis::{ChainConfig, GenesisAccount, TandemGenesis, Timing},
};

pub(crate) const CHAIN_ID: u64 = 31337;
/// Room for everything.
pub(crate) const LIMITS: BuildLimits = BuildLimits { bytes: 4 << 20, gas: u64::MAX, objects: u64::MAX };
pub(crate) const GWEI: u64 = 1_000_000_000;

/// A genesis without validators: execution does not look at them.
pub(crate) fn genesis(alloc: BTreeMap<Address, GenesisAccount>) -> Genesis {
    Genesis {
        config: ChainConfig { chain_id: CHAIN_ID, other: BTreeMap::new() },
        timestamp: 1_700_000_000,
        gas_limit: 60_000_000,
        base_fee_per_gas: GWEI,
        extra_data: Bytes::new(),
        alloc,
        tandem: TandemGenesis {
            validators: Vec::new(),
            quorum: QuorumRule::default(),
            epoch_length: 32,
            staking: Default::default(),
            timing: Timing::default(),
            payload_bytes_max: 4 << 20,
            forks: BTreeMap::new(),
        },
        other: BTreeMap::new(),
    }
}

pub(crate) fn coins(n: u64) -> U256 {
    U256::from(n) * U256::from(10).pow(U256::from(18))
}

/// A chain in memory with `accounts` funded keys.
pub(crate) struct Chain {
    pub(crate) rules: Rules,
    pub(crate) state: MemoryState,
    pub(crate) lthash: LtHash,
    pub(crate) height: u64,
    pub(crate) base_fee: u64,
    pub(crate) keys: Vec<TestKey>,
}

impl Chain {
    pub(crate) fn new(accounts: u64) -> Self {
        Self::with(accounts, |_| {})
    }

    pub(crate) fn with(accounts: u64, change: impl FnOnce(&mut Genesis)) -> Self {
        let keys: Vec<_> = (0..accounts).map(TestKey::new).collect();
        let account = GenesisAccount { balance: coins(10_000), ..Default::default() };
        let mut genesis = genesis(keys.iter().map(|key| (key.address(), account.clone())).collect());
        change(&mut genesis);
        let start = genesis_state(&genesis).unwrap();
        let mut state = MemoryState::default();
        state.apply(0, genesis.hash(), &start.diff);
        let rules = Rules::from_genesis(&genesis).unwrap();
        Self { base_fee: rules.initial_base_fee(), rules, state, lthash: start.lthash, height: 0, keys }
    }

    pub(crate) fn env(&self) -> BlockEnv {
        BlockEnv {
            height: self.height + 1,
            timestamp_ms: 1_700_000_000_000 + 250 * (self.height + 1),
            prevrandao: B256::repeat_byte(7),
            fee_recipient: Address::repeat_byte(0xfe),
            gas_limit: self.rules.gas_limit(),
            base_fee: self.base_fee,
        }
    }

    pub(crate) fn build(&self, candidates: Vec<RecoveredTx>) -> BuiltBlock {
        build(&self.state, &self.rules, &self.env(), &self.lthash, LIMITS, &[], candidates, || false).unwrap()
    }

    pub(crate) fn execute(&self, transactions: Vec<RecoveredTx>) -> Result<BlockOutcome, ExecuteError> {
        let transactions = PayloadTransactions::single_lane(transactions);
        execute(&self.state, &self.rules, &self.env(), &self.lthash, &transactions, &[])
    }

    pub(crate) fn advance(&mut self, outcome: &BlockOutcome) {
        self.base_fee = self.rules.next_base_fee(self.height + 1, outcome.gas_used, outcome.base_fee);
        self.height += 1;
        self.state.apply(self.height, B256::from(U256::from(self.height)), &outcome.diff);
        self.lthash = outcome.lthash.clone();
    }

    /// Builds and applies a block in which every candidate must be included.
    pub(crate) fn run(&mut self, candidates: Vec<RecoveredTx>) -> BlockOutcome {
        let built = self.build(candidates);
        assert_eq!(built.skipped, Vec::new());
        self.advance(&built.outcome);
        built.outcome
    }

    pub(crate) fn full_digest(&self) -> LtHash {
        let accounts: Vec<_> = self.state.accounts().map(|(address, info)| (*address, *info)).collect();
        let slots: Vec<_> = self.state.slots().map(|(key, value)| (*key, *value)).collect();
        let mut digest = LtHash::new(CHAIN_ID);
        digest.add_leaves(&accounts, &slots);
        digest
    }
}

/// Code that deploys `runtime`.
pub(crate) fn deployer(runtime: &[u8]) -> Bytes {
    let length = u8::try_from(runtime.len()).unwrap();
    let mut code = vec![0x60, length, 0x60, 12, 0x60, 0, 0x39, 0x60, length, 0x60, 0, 0xf3];
    code.extend_from_slice(runtime);
    code.into()
}

/// `storage[word 0] = word 1`, logs word 0 as topic with 32 bytes of data; reverts when word 1 is 0xdead.
pub(crate) const STORE: [u8; 32] = [
    0x60, 0x20, 0x35, 0x60, 0x00, 0x35, 0x55, // sstore
    0x60, 0x00, 0x35, 0x60, 0x20, 0x60, 0x00, 0xa1, // log1
    0x60, 0x20, 0x35, 0x61, 0xde, 0xad, 0x14, 0x60, 0x1a, 0x57, 0x00, // value == 0xdead?
    0x5b, 0x60, 0x00, 0x60, 0x00, 0xfd, // revert
];

/// Creation code that writes a slot and destroys itself.
pub(crate) const VANISH: [u8; 7] = [0x60, 0x05, 0x60, 0x01, 0x55, 0x33, 0xff];

pub(crate) fn store_input(key: u64, value: u64) -> Bytes {
    [U256::from(key).to_be_bytes::<32>(), U256::from(value).to_be_bytes::<32>()].concat().into()
}

pub(crate) fn tx(nonce: u64, to: TxKind, gas_limit: u64, input: Bytes) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit,
        max_fee_per_gas: u128::from(100 * GWEI),
        max_priority_fee_per_gas: u128::from(GWEI),
        to,
        input,
        ..Default::default()
    }
}
