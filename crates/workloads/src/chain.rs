//! A chain in memory: rules, state, digest, and the environment of its next block.

use crate::keys::key;
use alloy_primitives::{Address, B256, Bytes, U256};
use crypto::SecretKey;
use execution::{
    BlockEnv, BlockOutcome, BuildLimits, Fork, LtHash, PayloadTransactions, RecoveredTx, Rules,
    genesis_state, testing::MemoryState,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};
use types::{
    Genesis, QuorumRule, Stake,
    genesis::{ChainConfig, GenesisValidator, TandemGenesis, Timing},
};

/// Chain id of all chains made here.
pub const CHAIN_ID: u64 = 31_337;
/// 10^9 wei.
pub const GWEI: u64 = 1_000_000_000;

/// The validators of a chain with a registry: keys 0 to 3, with a stake of 100 wei each.
pub static VALIDATORS: LazyLock<Vec<GenesisValidator>> = LazyLock::new(|| (0..4).map(validator).collect());

/// What account number `n` registers with.
pub fn validator(n: u64) -> GenesisValidator {
    let mut seed = [1; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    let secret = SecretKey::from_seed(&seed);
    GenesisValidator {
        address: key(n).address(),
        public_key: secret.public_key(),
        proof_of_possession: secret.prove_possession(),
        stake: Stake::new(100),
    }
}

/// A state and what the next block on it sees.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The rules.
    pub rules: Rules,
    /// The state after the block at `height`.
    pub state: Arc<MemoryState>,
    /// Digest of that state.
    pub lthash: LtHash,
    /// Height of the newest block.
    pub height: u64,
    /// Base fee of the next block.
    pub base_fee: u64,
    /// Who earns the next block's fees.
    pub fee_recipient: Address,
    /// Gas limit of every block.
    pub gas_limit: u64,
}

impl Chain {
    /// A chain whose forks, oldest first, activate at the given heights, with an empty state at height 0.
    pub fn new(forks: &[(Fork, u64)], gas_limit: u64, base_fee: u64) -> Self {
        Self::of(&genesis(forks, gas_limit, base_fee))
    }

    /// The same with a registry: [`VALIDATORS`] validate, and epochs have two blocks.
    pub fn with_registry(forks: &[(Fork, u64)], gas_limit: u64, base_fee: u64) -> Self {
        let mut genesis = genesis(forks, gas_limit, base_fee);
        genesis.tandem.validators = VALIDATORS.clone();
        genesis.tandem.epoch_length = 2;
        genesis.tandem.staking.min_stake = Stake::new(1);
        genesis.tandem.staking.unbonding_epochs = 1;
        let start = genesis_state(&genesis).expect("the genesis allocates nothing");
        let mut chain = Self::of(&genesis);
        chain.state_mut().apply(0, genesis.hash(), &start.diff);
        chain
    }

    fn of(genesis: &Genesis) -> Self {
        let (gas_limit, base_fee) = (genesis.gas_limit, genesis.base_fee_per_gas);
        Self {
            rules: Rules::from_genesis(genesis).expect("forks in order, the first at height 0"),
            state: Arc::default(),
            lthash: LtHash::new(CHAIN_ID),
            height: 0,
            base_fee,
            fee_recipient: Address::repeat_byte(0xfe),
            gas_limit,
        }
    }

    /// Changes the state beside any block.
    pub fn state_mut(&mut self) -> &mut MemoryState {
        Arc::make_mut(&mut self.state)
    }

    /// Recomputes the digest of the whole state.
    pub fn full_digest(&self) -> LtHash {
        let accounts: Vec<_> = self.state.accounts().map(|(address, info)| (*address, *info)).collect();
        let slots: Vec<_> = self.state.slots().map(|(key, value)| (*key, *value)).collect();
        let mut digest = LtHash::new(CHAIN_ID);
        digest.add_leaves(&accounts, &slots);
        digest
    }

    /// The next block's environment.
    pub fn env(&self) -> BlockEnv {
        BlockEnv {
            height: self.height + 1,
            timestamp_ms: 1_700_000_000_000 + 250 * (self.height + 1),
            prevrandao: B256::repeat_byte(7),
            fee_recipient: self.fee_recipient,
            gas_limit: self.gas_limit,
            base_fee: self.base_fee,
        }
    }

    /// Limits that only the format and the block's gas limit set.
    pub fn limits(&self) -> BuildLimits {
        BuildLimits { bytes: u64::MAX, gas: u64::MAX, objects: u64::MAX }
    }

    /// Runs transactions in the given order, all in one lane, with the oracle.
    pub fn execute(&self, transactions: Vec<RecoveredTx>) -> Result<BlockOutcome, execution::ExecuteError> {
        let transactions = PayloadTransactions::single_lane(transactions);
        execution::execute(&*self.state, &self.rules, &self.env(), &self.lthash, &transactions, &[])
    }

    /// Takes over a block.
    pub fn advance(&mut self, outcome: &BlockOutcome) {
        self.height += 1;
        self.base_fee = self.rules.next_base_fee(self.height, outcome.gas_used, outcome.base_fee);
        let (height, hash) = (self.height, block_hash(self.height));
        self.state_mut().apply(height, hash, &outcome.diff);
        self.lthash = outcome.lthash.clone();
    }
}

/// The hash a chain made here gives to its block at `height`.
pub fn block_hash(height: u64) -> B256 {
    crypto::tagged_hash("tandem workloads block", &[&height.to_le_bytes()])
}

/// `n` times 10^18 wei.
pub fn coins(n: u64) -> U256 {
    U256::from(n) * U256::from(10).pow(U256::from(18))
}

/// The genesis of a chain without accounts.
pub fn genesis(forks: &[(Fork, u64)], gas_limit: u64, base_fee_per_gas: u64) -> Genesis {
    Genesis {
        config: ChainConfig { chain_id: CHAIN_ID, other: BTreeMap::new() },
        timestamp: 1_700_000_000,
        gas_limit,
        base_fee_per_gas,
        extra_data: Bytes::new(),
        alloc: BTreeMap::new(),
        tandem: TandemGenesis {
            validators: Vec::new(),
            quorum: QuorumRule::default(),
            epoch_length: 32,
            staking: Default::default(),
            timing: Timing::default(),
            payload_bytes_max: 8 << 20,
            forks: forks.iter().map(|(fork, height)| (fork.name().into(), *height)).collect(),
        },
        other: BTreeMap::new(),
    }
}
