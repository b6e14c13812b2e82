//! What a genesis fixes for execution: chain id, forks by height, gas limit, base fee.

use crate::{InvalidTx, PAYLOAD_VERSION, RecoveredTx, StrictList, lthash::LTHASH_VERSION};
use alloy_consensus::Transaction;
use alloy_primitives::B256;
use revm::{
    interpreter::gas::calculate_initial_tx_gas,
    primitives::{eip7825, hardfork::SpecId},
};
use staking::StakingRules;
use std::{collections::BTreeMap, fmt};
use types::{Domain, Genesis, QuorumRule};

/// EIP-1559: the gas target is the limit divided by this.
const ELASTICITY: u64 = 2;
/// EIP-1559: the base fee moves by at most one part in this.
const BASE_FEE_DENOMINATOR: u128 = 8;
/// EIP-3860: creation code may be twice as long as code.
const INITCODE_BYTES_MAX: usize = 2 * 0x6000;

/// A hard fork this version executes. Older ones are left out: before Cancun a self-destruct clears storage that
/// a flat state cannot enumerate cheaply. Later ones are not final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// Cancun (2024).
    Cancun,
    /// Prague (2025): EIP-7702.
    Prague,
    /// Osaka (2025): EIP-7825, P-256 precompile.
    Osaka,
}

impl Fork {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::Cancun, Self::Prague, Self::Osaka];

    /// Its name in a genesis.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancun => "cancun",
            Self::Prague => "prague",
            Self::Osaka => "osaka",
        }
    }

    pub(crate) fn spec(self) -> SpecId {
        match self {
            Self::Cancun => SpecId::CANCUN,
            Self::Prague => SpecId::PRAGUE,
            Self::Osaka => SpecId::OSAKA,
        }
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A genesis whose execution rules this version cannot follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Unknown fork name.
    #[error("tandem.forks names \"{name}\", this version executes: cancun, prague, osaka")]
    UnknownFork {
        /// The name found.
        name: String,
    },
    /// No fork is active at height 0.
    #[error("tandem.forks starts at height {first}, one fork must be active at height 0")]
    NoForkAtGenesis {
        /// Lowest activation height found.
        first: u64,
    },
    /// A later fork activates before an earlier one.
    #[error("tandem.forks activates {later} at {later_height}, before {earlier} at {earlier_height}")]
    Order {
        /// The older fork.
        earlier: Fork,
        /// Its height.
        earlier_height: u64,
        /// The newer fork.
        later: Fork,
        /// Its height.
        later_height: u64,
    },
}

/// The execution rules of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    chain_id: u64,
    gas_limit: u64,
    initial_base_fee: u64,
    /// Activation heights, ascending, the first is 0.
    forks: Vec<(u64, Fork)>,
    staking: Option<StakingRules>,
    quorum: QuorumRule,
    genesis_hash: B256,
}

impl Rules {
    /// Reads a genesis.
    pub fn from_genesis(genesis: &Genesis) -> Result<Self, RulesError> {
        Ok(Self {
            chain_id: genesis.config.chain_id,
            gas_limit: genesis.gas_limit,
            initial_base_fee: genesis.base_fee_per_gas,
            forks: parse_forks(&genesis.tandem.forks)?,
            staking: StakingRules::from_genesis(genesis),
            quorum: genesis.tandem.quorum,
            genesis_hash: genesis.hash(),
        })
    }

    /// EIP-155 chain id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Gas limit of every block.
    pub fn gas_limit(&self) -> u64 {
        self.gas_limit
    }

    /// Base fee of block 1.
    pub fn initial_base_fee(&self) -> u64 {
        self.initial_base_fee
    }

    /// The validator registry's rules; `None` on a chain without validators.
    pub fn staking(&self) -> Option<&StakingRules> {
        self.staking.as_ref()
    }

    /// The share of stake that a certificate of this chain needs.
    pub fn quorum(&self) -> QuorumRule {
        self.quorum
    }

    /// What the chain's validators sign under in epoch 0.
    pub fn domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, genesis_hash: self.genesis_hash, epoch: 0 }
    }

    /// The fork active at `height`.
    pub fn fork_at(&self, height: u64) -> Fork {
        let active = self.forks.iter().rev().find(|(from, _)| *from <= height);
        active.expect("construction demands a fork at height 0").1
    }

    /// Base fee of the block after one that had `base_fee` and used `gas_used` (EIP-1559). The first block has the
    /// genesis' base fee; a base fee of 0 stays 0, so that a zero-fee chain remains one.
    pub fn next_base_fee(&self, parent_height: u64, gas_used: u64, base_fee: u64) -> u64 {
        if parent_height == 0 {
            return self.initial_base_fee;
        }
        let target = (self.gas_limit / ELASTICITY).max(1);
        if base_fee == 0 || gas_used == target {
            return base_fee;
        }
        // base_fee and gas_used fit 64 bits, their product fits 128.
        let distance = u128::from(gas_used.abs_diff(target));
        let delta = u128::from(base_fee) * distance / u128::from(target) / BASE_FEE_DENOMINATOR;
        let delta = u64::try_from(delta).unwrap_or(u64::MAX);
        match gas_used > target {
            true => base_fee.saturating_add(delta.max(1)),
            false => base_fee.saturating_sub(delta),
        }
    }

    /// Hash of the fork schedule and of the versions of all formats that execution fixes; exchanged in handshakes
    /// so that nodes with different rules never share a chain.
    pub fn rules_hash(&self) -> B256 {
        let mut bytes = vec![PAYLOAD_VERSION, LTHASH_VERSION];
        bytes.extend_from_slice(&self.chain_id.to_le_bytes());
        bytes.extend_from_slice(&self.gas_limit.to_le_bytes());
        bytes.extend_from_slice(&self.initial_base_fee.to_le_bytes());
        for (height, fork) in &self.forks {
            bytes.extend_from_slice(&height.to_le_bytes());
            bytes.push(fork.spec() as u8);
        }
        crypto::tagged_hash("tandem v1 execution rules", &[&bytes])
    }

    /// Gas a transaction costs before its first instruction, at `height`: the larger of the intrinsic gas and the
    /// calldata floor (EIP-7623).
    pub fn intrinsic_gas(&self, height: u64, transaction: &RecoveredTx) -> u64 {
        let envelope = transaction.envelope();
        let access_list = envelope.access_list().map(|list| list.0.as_slice()).unwrap_or_default();
        let gas = calculate_initial_tx_gas(
            self.fork_at(height).spec(),
            envelope.input(),
            envelope.is_create(),
            access_list.len() as u64,
            access_list.iter().map(|item| item.storage_keys.len() as u64).sum(),
            envelope.authorization_list().map_or(0, <[_]>::len) as u64,
            None,
        );
        gas.initial_total_gas().max(gas.floor_gas())
    }

    /// Everything that makes a transaction invalid at `height` whatever the state: chain id, type, gas limits,
    /// fee order, creation size. The pool asks before it looks at the account.
    pub fn check_stateless(&self, height: u64, transaction: &RecoveredTx) -> Result<(), InvalidTx> {
        let envelope = transaction.envelope();
        let fork = self.fork_at(height);
        let (gas_limit, chain_id) = (envelope.gas_limit(), envelope.chain_id());
        if chain_id.is_some_and(|id| id != self.chain_id) {
            return Err(InvalidTx::WrongChainId { have: chain_id, want: self.chain_id });
        }
        if envelope.is_eip7702() {
            if fork < Fork::Prague {
                return Err(InvalidTx::TypeNotActive(format!("EIP-7702 needs prague, active is {fork}")));
            }
            if envelope.authorization_list().is_none_or(<[_]>::is_empty) {
                return Err(InvalidTx::EmptyAuthorizationList);
            }
        }
        if fork >= Fork::Osaka && gas_limit > eip7825::TX_GAS_LIMIT_CAP {
            return Err(InvalidTx::GasLimitAboveCap { gas_limit, cap: eip7825::TX_GAS_LIMIT_CAP });
        }
        if gas_limit > self.gas_limit {
            return Err(InvalidTx::BlockGasExceeded { gas_limit, available: self.gas_limit });
        }
        if envelope.max_priority_fee_per_gas().is_some_and(|tip| tip > envelope.max_fee_per_gas()) {
            return Err(InvalidTx::TipAboveFeeCap);
        }
        if envelope.is_create() && envelope.input().len() > INITCODE_BYTES_MAX {
            return Err(InvalidTx::InitCodeTooLong);
        }
        if envelope.nonce() == u64::MAX {
            return Err(InvalidTx::NonceMax);
        }
        let required = self.intrinsic_gas(height, transaction);
        if required > gas_limit {
            return Err(InvalidTx::IntrinsicGas { gas_limit, required });
        }
        let strict = envelope.access_list().map_or(Ok(None), StrictList::parse)?;
        strict.map_or(Ok(()), |strict| strict.check_height(height))
    }
}

fn parse_forks(named: &BTreeMap<String, u64>) -> Result<Vec<(u64, Fork)>, RulesError> {
    if named.is_empty() {
        return Ok(vec![(0, Fork::Osaka)]);
    }
    let mut forks = Vec::with_capacity(named.len());
    for (name, height) in named {
        let fork = Fork::ALL.into_iter().find(|fork| fork.name() == name.to_ascii_lowercase());
        forks.push((fork.ok_or_else(|| RulesError::UnknownFork { name: name.clone() })?, *height));
    }
    forks.sort_unstable();
    for pair in forks.windows(2) {
        let ((earlier, earlier_height), (later, later_height)) = (pair[0], pair[1]);
        if later_height < earlier_height || earlier == later {
            return Err(RulesError::Order { earlier, earlier_height, later, later_height });
        }
    }
    match forks[0].1 {
        0 => Ok(forks.into_iter().map(|(fork, height)| (height, fork)).collect()),
        first => Err(RulesError::NoForkAtGenesis { first }),
    }
}
