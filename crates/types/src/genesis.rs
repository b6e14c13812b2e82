//! The genesis file: geth's layout plus a `tandem` section (specs/block.md, B-5). Both processes read it; its
//! hash is the hash of block 0 and part of every handshake.

use crate::{
    Address, B256, Bytes, Epoch, PublicKey, QuorumRule, Signature, Stake, U256, Validator, ValidatorSet,
    ValidatorSetError,
};
use crypto::{VerifyingKey, tagged_hash};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A parsed genesis file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Genesis {
    /// Chain configuration, geth style. Tandem reads `chainId`; other keys are kept for other tools.
    pub config: ChainConfig,
    /// Seconds since 1970 of block 0.
    #[serde(default, with = "quantity")]
    pub timestamp: u64,
    /// Gas limit of every block.
    #[serde(with = "quantity")]
    pub gas_limit: u64,
    /// Base fee of block 1 in wei. 0 makes a zero-fee chain: it stays 0.
    #[serde(default = "default_base_fee", with = "quantity")]
    pub base_fee_per_gas: u64,
    /// Extra data shown in block 0.
    #[serde(default)]
    pub extra_data: Bytes,
    /// Accounts at height 0.
    pub alloc: BTreeMap<Address, GenesisAccount>,
    /// Everything that is Tandem's own.
    pub tandem: TandemGenesis,
    /// Keys of other tools, kept as they are (difficulty, nonce, mixHash, ...).
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// The `config` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainConfig {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Keys of other tools.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// One account at height 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAccount {
    /// Balance in wei.
    pub balance: U256,
    /// Nonce.
    #[serde(default, with = "quantity", skip_serializing_if = "is_zero")]
    pub nonce: u64,
    /// Contract code.
    #[serde(default, skip_serializing_if = "no_bytes")]
    pub code: Bytes,
    /// Contract storage; zero values are absent slots.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage: BTreeMap<B256, B256>,
}

/// The `tandem` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TandemGenesis {
    /// The first validator set.
    pub validators: Vec<GenesisValidator>,
    /// Stake a certificate needs.
    #[serde(default)]
    pub quorum: QuorumRule,
    /// Heights per epoch.
    #[serde(default = "default_epoch_length")]
    pub epoch_length: u64,
    /// Who may validate, and how sets change.
    #[serde(default)]
    pub staking: Staking,
    /// Pace and timers of consensus.
    #[serde(default)]
    pub timing: Timing,
    /// Largest encoded payload in bytes.
    #[serde(default = "default_payload_bytes")]
    pub payload_bytes_max: u64,
    /// Hard forks by activation height, for example `{"prague": 0, "osaka": 1000}`. Empty means Osaka
    /// from genesis, in this and every later version: the schedule of a running chain never changes by an upgrade.
    #[serde(default)]
    pub forks: BTreeMap<String, u64>,
}

/// One validator of the first set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisValidator {
    /// Owner's account.
    pub address: Address,
    /// Consensus key.
    pub public_key: PublicKey,
    /// Proof that the owner holds the key.
    pub proof_of_possession: Signature,
    /// Voting weight.
    pub stake: Stake,
}

/// Parameters of the validator registry (specs/staking.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Staking {
    /// Validators in one set.
    pub max_validators: u32,
    /// Validators registered at one time, those in no set included.
    pub max_candidates: u32,
    /// Least stake of a validator, in wei. A chain of value wants more than the default of 1: every registration is work.
    pub min_stake: Stake,
    /// Share of a set's stake that may enter or leave with the next set: numerator.
    pub stake_change_cap_numerator: u32,
    /// The same: denominator. The share must be below one third.
    pub stake_change_cap_denominator: u32,
    /// Epochs after its last weight for which stake can still be slashed, and cannot be withdrawn.
    pub unbonding_epochs: u64,
    /// Part of an offender's weight that is burned, in 1/10000.
    pub slash_basis_points: u32,
}

impl Default for Staking {
    fn default() -> Self {
        Self {
            max_validators: 128,
            max_candidates: 512,
            min_stake: Stake::new(1),
            stake_change_cap_numerator: 1,
            stake_change_cap_denominator: 4,
            unbonding_epochs: 16,
            slash_basis_points: 500,
        }
    }
}

/// Most validators that may be registered at one time: the work of computing a set.
const CANDIDATES_MAX: u64 = 2048;
/// Fewest epochs for which stake can be bound: evidence is valid as long and needs time to be found, told and included.
pub const UNBONDING_EPOCHS_MIN: u64 = 4;
/// Most epochs whose sets are kept, and for which stake can be bound.
pub const UNBONDING_EPOCHS_MAX: u64 = 1024;

impl Staking {
    fn check(&self, validators: &[GenesisValidator]) -> Result<(), GenesisError> {
        let (members, candidates) = (u64::from(self.max_validators), u64::from(self.max_candidates));
        let (numerator, denominator) =
            (u64::from(self.stake_change_cap_numerator), u64::from(self.stake_change_cap_denominator));
        let set_max = crate::limits::VALIDATORS_MAX as u64;
        let ranges = [
            ("tandem.staking.max_validators", members, 1, set_max, "from 1 to 1024"),
            (
                "tandem.staking.max_candidates",
                candidates,
                members,
                CANDIDATES_MAX,
                "from max_validators to 2048",
            ),
            ("tandem.staking.stake_change_cap_denominator", denominator, 4, 1_000_000, "from 4 to 1000000"),
            (
                "tandem.staking.stake_change_cap_numerator",
                numerator,
                1,
                denominator.saturating_sub(1) / 3,
                "at least 1 and below one third of the denominator",
            ),
            (
                "tandem.staking.unbonding_epochs",
                self.unbonding_epochs,
                UNBONDING_EPOCHS_MIN,
                UNBONDING_EPOCHS_MAX,
                "from 4 to 1024",
            ),
            (
                "tandem.staking.slash_basis_points",
                self.slash_basis_points.into(),
                0,
                10_000,
                "from 0 to 10000",
            ),
        ];
        check_ranges(&ranges)?;
        if self.min_stake == Stake::ZERO {
            return Err(GenesisError::OutOfRange {
                field: "tandem.staking.min_stake",
                value: 0,
                expected: "at least 1 wei",
            });
        }
        if validators.len() > self.max_validators as usize {
            return Err(GenesisError::OutOfRange {
                field: "tandem.staking.max_validators",
                value: members,
                expected: "at least the number of validators",
            });
        }
        match validators.iter().position(|validator| validator.stake < self.min_stake) {
            Some(index) => Err(GenesisError::StakeTooLow {
                index,
                stake: validators[index].stake,
                min_stake: self.min_stake,
            }),
            None => Ok(()),
        }
    }
}

/// Pace and timers, in milliseconds. All nodes must agree for liveness, none for safety.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Δ: bound on message delay once the network is well.
    pub delta_ms: u64,
    /// Least time between two blocks.
    pub block_interval_ms: u64,
    /// Time between blocks when there is nothing to include.
    pub empty_block_interval_ms: u64,
    /// Time allowed for building and for validating a block.
    pub work_ms: u64,
    /// Highest multiple of the base view timer that repeated failures lead to.
    pub backoff_max: u32,
    /// How far ahead of the local clock a proposal's timestamp may be.
    pub clock_drift_ms_max: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            delta_ms: 100,
            block_interval_ms: 250,
            empty_block_interval_ms: 1000,
            work_ms: 300,
            backoff_max: 8,
            clock_drift_ms_max: 10_000,
        }
    }
}

/// Why a genesis was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not the expected JSON.
    #[error("genesis is not valid JSON of the expected shape: {0}")]
    Json(String),
    /// The validators make no set.
    #[error("genesis validators: {0}")]
    Validators(#[from] ValidatorSetError),
    /// A validator does not hold its key.
    #[error("genesis validator {index}: proof of possession does not verify for {key}")]
    Possession {
        /// Which one.
        index: usize,
        /// The key in question.
        key: PublicKey,
    },
    /// A validator of the first set could not stay in the registry.
    #[error("genesis validator {index} has stake {stake}, tandem.staking.min_stake is {min_stake}")]
    StakeTooLow {
        /// Which one.
        index: usize,
        /// Its stake.
        stake: Stake,
        /// The least.
        min_stake: Stake,
    },
    /// A number is out of range.
    #[error("genesis {field} is {value}, must be {expected}")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        expected: &'static str,
    },
}

impl Genesis {
    /// Parses and checks a genesis file.
    pub fn parse(json: &str) -> Result<Self, GenesisError> {
        let genesis: Self = serde_json::from_str(json).map_err(|e| GenesisError::Json(e.to_string()))?;
        genesis.check()?;
        Ok(genesis)
    }

    /// Checks ranges, keys and proofs of possession.
    pub fn check(&self) -> Result<(), GenesisError> {
        let section = &self.tandem;
        let timing = &section.timing;
        let payload_limit = crate::limits::PAYLOAD_BYTES_MAX as u64;
        let ranges = [
            ("config.chainId", self.config.chain_id, 1, u64::MAX / 2 - 36, "from 1 to 2^63 - 37"),
            ("gasLimit", self.gas_limit, 5_000, i64::MAX as u64, "from 5000 to 2^63 - 1"),
            ("tandem.epoch_length", section.epoch_length, 4, 1 << 32, "from 4 to 2^32"),
            (
                "tandem.payload_bytes_max",
                section.payload_bytes_max,
                1 << 10,
                payload_limit,
                "from 1 KiB to 8 MiB",
            ),
            ("tandem.timing.delta_ms", timing.delta_ms, 1, 60_000, "from 1 to 60000"),
            ("tandem.timing.block_interval_ms", timing.block_interval_ms, 0, 600_000, "from 0 to 600000"),
            (
                "tandem.timing.empty_block_interval_ms",
                timing.empty_block_interval_ms,
                timing.block_interval_ms,
                3_600_000,
                "from block_interval_ms to 3600000",
            ),
            ("tandem.timing.work_ms", timing.work_ms, 1, 600_000, "from 1 to 600000"),
            ("tandem.timing.backoff_max", timing.backoff_max.into(), 1, 1000, "from 1 to 1000"),
            (
                "tandem.timing.clock_drift_ms_max",
                timing.clock_drift_ms_max,
                1,
                86_400_000,
                "from 1 to 86400000",
            ),
        ];
        check_ranges(&ranges)?;
        self.validator_set()?;
        section.staking.check(&section.validators)?;
        for (index, validator) in section.validators.iter().enumerate() {
            let key = validator.public_key;
            let holds = VerifyingKey::try_from(key)
                .is_ok_and(|k| k.verify_possession(&validator.proof_of_possession));
            if !holds {
                return Err(GenesisError::Possession { index, key });
            }
        }
        Ok(())
    }

    /// The set of epoch 0.
    pub fn validator_set(&self) -> Result<ValidatorSet, ValidatorSetError> {
        let members = self.tandem.validators.iter().map(|v| Validator {
            address: v.address,
            public_key: v.public_key,
            stake: v.stake,
        });
        ValidatorSet::new(Epoch::ZERO, members.collect(), self.tandem.quorum)
    }

    /// Hash of block 0: of the file's canonical JSON (sorted keys, no spaces), so that formatting is free but
    /// every value counts.
    pub fn hash(&self) -> B256 {
        let value = serde_json::to_value(self).expect("a genesis is plain JSON data");
        tagged_hash("tandem v1 genesis", &[value.to_string().as_bytes()])
    }

    /// Seed of epoch 0's proposer draw and of the RANDAO chain.
    pub fn seed(&self) -> B256 {
        tagged_hash("tandem v1 genesis seed", &[self.hash().as_slice()])
    }
}

/// Field, value, lowest, highest, and the range in words.
type Range = (&'static str, u64, u64, u64, &'static str);

fn check_ranges(ranges: &[Range]) -> Result<(), GenesisError> {
    for &(field, value, low, high, expected) in ranges {
        if !(low..=high).contains(&value) {
            return Err(GenesisError::OutOfRange { field, value, expected });
        }
    }
    Ok(())
}

fn default_base_fee() -> u64 {
    1_000_000_000
}

fn default_epoch_length() -> u64 {
    32
}

fn default_payload_bytes() -> u64 {
    4 << 20
}

fn no_bytes(value: &Bytes) -> bool {
    value.is_empty()
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Numbers as JSON numbers, decimal strings or 0x-hex strings, as geth accepts them; written as hex.
mod quantity {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:#x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Number(number) => {
                number.as_u64().ok_or_else(|| D::Error::custom(format!("{number} is not a 64-bit quantity")))
            }
            serde_json::Value::String(text) => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => text.parse(),
            }
            .map_err(|error| D::Error::custom(format!("\"{text}\" is not a 64-bit quantity: {error}"))),
            other => Err(D::Error::custom(format!("{other} is not a quantity"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(stake: u128) -> GenesisValidator {
        let key = crypto::SecretKey::from_seed(&[1; 32]);
        GenesisValidator {
            address: Address::repeat_byte(1),
            public_key: key.public_key(),
            proof_of_possession: key.prove_possession(),
            stake: Stake::new(stake),
        }
    }

    #[test]
    fn staking_parameters_outside_their_range_are_refused_by_name() {
        let good = Staking { min_stake: Stake::new(1000), ..Default::default() };
        let founders = [founder(good.min_stake.get())];
        assert_eq!(good.check(&founders), Ok(()));
        let cases = [
            (Staking { max_validators: 0, ..good }, "tandem.staking.max_validators"),
            (Staking { max_validators: 2000, ..good }, "tandem.staking.max_validators"),
            (Staking { max_candidates: 100, ..good }, "tandem.staking.max_candidates"),
            (Staking { max_candidates: 2049, ..good }, "tandem.staking.max_candidates"),
            (Staking { stake_change_cap_numerator: 0, ..good }, "tandem.staking.stake_change_cap_numerator"),
            (
                Staking { stake_change_cap_denominator: 3, ..good },
                "tandem.staking.stake_change_cap_denominator",
            ),
            (
                Staking { stake_change_cap_numerator: 2, stake_change_cap_denominator: 6, ..good },
                "tandem.staking.stake_change_cap_numerator",
            ),
            (Staking { unbonding_epochs: 3, ..good }, "tandem.staking.unbonding_epochs"),
            (Staking { slash_basis_points: 10_001, ..good }, "tandem.staking.slash_basis_points"),
            (Staking { min_stake: Stake::ZERO, ..good }, "tandem.staking.min_stake"),
        ];
        for (params, expected) in cases {
            let Err(GenesisError::OutOfRange { field, .. }) = params.check(&founders) else {
                panic!("{params:?}");
            };
            assert_eq!(field, expected);
        }
        let poor = [founder(good.min_stake.get() - 1)];
        assert!(matches!(good.check(&poor), Err(GenesisError::StakeTooLow { index: 0, .. })));
    }
}
