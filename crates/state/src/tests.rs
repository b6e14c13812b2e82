#![allow(clippy::unwrap_used)]

mod blocks;
mod crash;
mod figures;
mod history;

use crate::*;
use alloy_primitives::{Address, B256, Bloom, U256};
use execution::{
    AccountInfo, BlockEnv, BuildLimits, LtHash, RecoveredTx, Rules, StateDiff, StateView, genesis_state,
    receipts_hash,
    testing::{MemoryState, TestKey},
};
use std::{collections::BTreeMap, path::Path};
use types::{
    Genesis, ValidatorIndex, View,
    genesis::{ChainConfig, GenesisAccount, TandemGenesis, Timing},
};

const CHAIN_ID: u64 = 31337;

fn genesis_for(keys: &[TestKey]) -> Genesis {
    let account = GenesisAccount { balance: U256::from(10).pow(U256::from(22)), ..Default::default() };
    Genesis {
        config: ChainConfig { chain_id: CHAIN_ID, other: BTreeMap::new() },
        timestamp: 1_700_000_000,
        gas_limit: 1_000_000_000,
        base_fee_per_gas: 1_000_000_000,
        extra_data: Default::default(),
        alloc: keys.iter().map(|key| (key.address(), account.clone())).collect(),
        tandem: TandemGenesis {
            validators: Vec::new(),
            quorum: Default::default(),
            epoch_length: 32,
            staking: Default::default(),
            timing: Timing::default(),
            payload_bytes_max: 4 << 20,
            forks: BTreeMap::new(),
        },
        other: BTreeMap::new(),
    }
}

fn options(path: &Path, history_blocks: u64) -> StateOptions {
    StateOptions { history_blocks, cache_bytes: 8 << 20, hot_entries: 256, ..StateOptions::new(path) }
}

/// A chain in memory beside the store under test: what every height looked like.
struct Model {
    genesis: Genesis,
    rules: Rules,
    keys: Vec<TestKey>,
    /// The state at each height.
    states: Vec<MemoryState>,
    heads: Vec<Head>,
    blocks: Vec<(ExecutedBlock, StateDiff, LtHash)>,
}

impl Model {
    fn new(accounts: u64) -> Self {
        let keys: Vec<_> = (0..accounts).map(TestKey::new).collect();
        let genesis = genesis_for(&keys);
        let start = genesis_state(&genesis).unwrap();
        let mut state = MemoryState::default();
        state.apply(0, genesis.hash(), &start.diff);
        let head = Head {
            height: 0,
            block_hash: genesis.hash(),
            state_hash: start.state_hash,
            lthash: start.lthash,
        };
        let rules = Rules::from_genesis(&genesis).unwrap();
        Self { genesis, rules, keys, states: vec![state], heads: vec![head], blocks: Vec::new() }
    }

    fn height(&self) -> u64 {
        self.blocks.len() as u64
    }

    fn state(&self) -> &MemoryState {
        self.states.last().unwrap()
    }

    fn env(&self) -> BlockEnv {
        BlockEnv {
            height: self.height() + 1,
            timestamp_ms: 1_700_000_000_000 + 250 * (self.height() + 1),
            prevrandao: B256::repeat_byte(7),
            fee_recipient: Address::repeat_byte(0xfe),
            gas_limit: self.rules.gas_limit(),
            base_fee: self.rules.initial_base_fee(),
        }
    }

    /// Executes `candidates` as the next block.
    fn build(&mut self, candidates: Vec<RecoveredTx>) {
        let (env, parent) = (self.env(), self.heads.last().unwrap().clone());
        let limits = BuildLimits { bytes: 4 << 20, gas: u64::MAX, objects: u64::MAX };
        let built = execution::build(
            self.state(),
            &self.rules,
            &env,
            &parent.lthash,
            limits,
            &[],
            candidates,
            || false,
        )
        .unwrap();
        assert_eq!(built.skipped, Vec::new());
        let transactions: Vec<_> = built.transactions.iter().cloned().collect();
        let outcome = built.outcome;
        let record = BlockRecord {
            fee_recipient: env.fee_recipient,
            gas_used: outcome.gas_used,
            logs_bloom: outcome.logs_bloom,
            state_hash: outcome.state_hash,
            receipts_hash: outcome.receipts_hash,
            payload_commitment: built.commitment,
            size: built.payload.len() as u64,
            transaction_count: transactions.len() as u32,
            ..self.empty_record(outcome.state_hash)
        };
        let block = ExecutedBlock {
            record,
            transactions,
            receipts: outcome.receipts,
            next_validators: outcome.system.next_validators,
            outline: built.outline.into(),
        };
        self.push(block, outcome.diff.as_ref().clone(), outcome.lthash);
    }

    /// Makes the next block of raw changes, without transactions.
    fn change(&mut self, accounts: &[(Address, Option<AccountInfo>)], slots: &[((Address, U256), U256)]) {
        let mut diff = StateDiff::default();
        for (address, new) in accounts {
            diff.set_account(*address, self.state().account(*address).unwrap(), *new);
        }
        for ((address, slot), new) in slots {
            diff.set_slot(*address, *slot, self.state().storage(*address, *slot).unwrap(), *new);
        }
        let lthash = self.heads.last().unwrap().lthash.apply(&diff);
        let record = self.empty_record(lthash.state_hash());
        let (transactions, receipts) = Default::default();
        let outline = execution::Payload::default().into_outline().into();
        let block = ExecutedBlock { record, transactions, receipts, next_validators: None, outline };
        self.push(block, diff, lthash);
    }

    fn empty_record(&self, state_hash: B256) -> BlockRecord {
        let (env, parent) = (self.env(), self.heads.last().unwrap());
        let hash = crypto::tagged_hash("test block", &[parent.block_hash.as_slice(), state_hash.as_slice()]);
        BlockRecord {
            height: env.height,
            hash,
            parent_hash: parent.block_hash,
            timestamp_ms: env.timestamp_ms,
            view: View::new(env.height),
            proposer: ValidatorIndex::new(2),
            fee_recipient: env.fee_recipient,
            gas_limit: env.gas_limit,
            gas_used: 0,
            base_fee: env.base_fee,
            prevrandao: env.prevrandao,
            logs_bloom: Bloom::ZERO,
            state_hash,
            receipts_hash: receipts_hash(&[]),
            payload_commitment: B256::ZERO,
            size: 0,
            transaction_count: 0,
        }
    }

    fn push(&mut self, block: ExecutedBlock, diff: StateDiff, lthash: LtHash) {
        let record = &block.record;
        let mut state = self.state().clone();
        state.apply(record.height, record.hash, &diff);
        self.heads.push(Head {
            height: record.height,
            block_hash: record.hash,
            state_hash: record.state_hash,
            lthash: lthash.clone(),
        });
        self.states.push(state);
        self.blocks.push((block, diff, lthash));
    }

    fn commit_to(&self, store: &StateStore, height: u64) -> Result<(), StateError> {
        let (block, diff, lthash) = &self.blocks[height as usize - 1];
        store.commit(block, diff, lthash)
    }

    /// Commits everything the store does not have yet.
    fn catch_up(&self, store: &StateStore) {
        for height in store.head().height + 1..=self.height() {
            self.commit_to(store, height).unwrap();
        }
    }

    /// Compares a view with the model's state at `height`, over every key that ever existed.
    fn assert_equal(&self, view: &dyn StateView, height: u64) {
        let expected = &self.states[height as usize];
        let mut addresses: Vec<Address> = self.keys.iter().map(TestKey::address).collect();
        let mut slots = Vec::new();
        for state in &self.states {
            addresses.extend(state.accounts().map(|(address, _)| *address));
            slots.extend(state.slots().map(|(key, _)| *key));
        }
        addresses.push(Address::repeat_byte(0xcc));
        addresses.sort_unstable();
        addresses.dedup();
        slots.sort_unstable();
        slots.dedup();
        for address in addresses {
            let (found, wanted) = (view.account(address).unwrap(), expected.account(address).unwrap());
            assert_eq!(found, wanted, "account {address} at height {height}");
            let hash = wanted.unwrap_or_default().code_hash;
            assert_eq!(view.code(hash).unwrap(), expected.code(hash).unwrap());
        }
        for (address, slot) in slots {
            let (found, wanted) =
                (view.storage(address, slot).unwrap(), expected.storage(address, slot).unwrap());
            assert_eq!(found, wanted, "slot {slot} of {address} at height {height}");
        }
        for known in 0..=self.height() {
            let wanted = if known <= height { self.heads[known as usize].block_hash } else { B256::ZERO };
            assert_eq!(view.block_hash(known).unwrap(), wanted);
        }
    }
}
