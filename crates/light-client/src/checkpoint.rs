//! What a client starts from.

use serde::{Deserialize, Serialize};
use types::genesis::{UNBONDING_EPOCHS_MAX, UNBONDING_EPOCHS_MIN};
use types::{
    B256, Epoch, EpochSchedule, Genesis, GenesisError, Height, QuorumRule, Validator, ValidatorSet,
    ValidatorSetError,
};

/// Bytes of a checkpoint file: 1,024 validators fit several times.
pub const CHECKPOINT_BYTES_MAX: usize = 1 << 20;

/// Epochs for which a checkpoint is trusted that does not say how long stake stays bound: the least of any chain.
pub const TRUST_EPOCHS_MIN: u64 = UNBONDING_EPOCHS_MIN;

/// A block that is taken to be final, and the validators of its epoch. Whoever is given one has to trust who gives it;
/// everything after it is proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of block 0.
    pub genesis_hash: B256,
    /// Heights per epoch.
    pub epoch_length: u64,
    /// Stake a certificate needs.
    pub quorum: QuorumRule,
    /// Epochs for which stake stays bound after it lost its weight: as long as that, the checkpoint is trusted.
    #[serde(default = "least_unbonding_epochs")]
    pub unbonding_epochs: u64,
    /// Epoch of the block.
    pub epoch: Epoch,
    /// Its height; 0 for the genesis.
    pub height: Height,
    /// Its hash.
    pub block_hash: B256,
    /// Digest of the state after it; absent for the genesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<B256>,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Id of the epoch's validator set.
    pub validator_set_id: B256,
    /// Id of the next epoch's, as the block names it; absent for the genesis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_validator_set_id: Option<B256>,
    /// The epoch's validators in canonical order.
    pub validators: Vec<Validator>,
}

/// Of checkpoint files that were written before they said it.
const fn least_unbonding_epochs() -> u64 {
    TRUST_EPOCHS_MIN
}

/// Why a checkpoint is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Longer than any may be.
    #[error("checkpoint of {bytes} bytes, at most {CHECKPOINT_BYTES_MAX} are allowed")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Not the expected JSON.
    #[error("not a checkpoint: {0}")]
    Json(String),
    /// Its height is not in its epoch.
    #[error("checkpoint of epoch {found} at height {height}, which is in epoch {expected}")]
    WrongEpoch {
        /// Epoch it says.
        found: Epoch,
        /// Its height.
        height: Height,
        /// Epoch of that height.
        expected: Epoch,
    },
    /// An epoch has at least one height.
    #[error("checkpoint with an epoch length of 0")]
    NoEpochs,
    /// No chain binds stake for so short or so long.
    #[error(
        "checkpoint of a chain that binds stake for {found} epochs, must be from {TRUST_EPOCHS_MIN} to \
         {UNBONDING_EPOCHS_MAX}"
    )]
    UnbondingEpochs {
        /// What it says.
        found: u64,
    },
    /// Block 0 is the genesis.
    #[error("checkpoint of height 0 names block {found}, the genesis is {expected}")]
    NotGenesis {
        /// Block it names.
        found: B256,
        /// Its own genesis hash.
        expected: B256,
    },
    /// Its validators make no set.
    #[error("the checkpoint's validators make no set: {0}")]
    BadSet(#[from] ValidatorSetError),
    /// Its validators are not those it names.
    #[error("the checkpoint's validators have the id {found}, it names {expected}")]
    WrongSet {
        /// Id of its validators.
        found: B256,
        /// Id it names.
        expected: B256,
    },
    /// The genesis is none.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

impl Checkpoint {
    /// The start of a chain.
    pub fn genesis(genesis: &Genesis) -> Result<Self, CheckpointError> {
        let set = genesis.validator_set()?;
        Ok(Self {
            chain_id: genesis.config.chain_id,
            genesis_hash: genesis.hash(),
            epoch_length: genesis.tandem.epoch_length,
            quorum: genesis.tandem.quorum,
            unbonding_epochs: genesis.tandem.staking.unbonding_epochs,
            epoch: set.epoch(),
            height: Height::ZERO,
            block_hash: genesis.hash(),
            state_hash: None,
            timestamp_ms: genesis.timestamp.saturating_mul(1000),
            validator_set_id: set.id(),
            next_validator_set_id: None,
            validators: set.validators().to_vec(),
        })
    }

    /// Parses a checkpoint file and checks that it agrees with itself, keys included.
    pub fn parse(json: &str) -> Result<Self, CheckpointError> {
        if json.len() > CHECKPOINT_BYTES_MAX {
            return Err(CheckpointError::TooLong { bytes: json.len() });
        }
        let checkpoint: Self =
            serde_json::from_str(json).map_err(|error| CheckpointError::Json(error.to_string()))?;
        checkpoint.set()?;
        Ok(checkpoint)
    }

    /// The validators as a set, after checking that the parts of the checkpoint agree.
    pub fn set(&self) -> Result<ValidatorSet, CheckpointError> {
        let set = ValidatorSet::new(self.epoch, self.validators.clone(), self.quorum)?;
        self.check(&set)?;
        Ok(set)
    }

    /// Checks numbers and that `set` is the one it names.
    pub(crate) fn check(&self, set: &ValidatorSet) -> Result<(), CheckpointError> {
        if self.epoch_length == 0 {
            return Err(CheckpointError::NoEpochs);
        }
        if !(TRUST_EPOCHS_MIN..=UNBONDING_EPOCHS_MAX).contains(&self.unbonding_epochs) {
            return Err(CheckpointError::UnbondingEpochs { found: self.unbonding_epochs });
        }
        let expected = self.schedule().epoch_of(self.height);
        if self.epoch != expected || set.epoch() != expected {
            let found = if self.epoch == expected { set.epoch() } else { self.epoch };
            return Err(CheckpointError::WrongEpoch { found, height: self.height, expected });
        }
        if self.height == Height::ZERO && self.block_hash != self.genesis_hash {
            return Err(CheckpointError::NotGenesis { found: self.block_hash, expected: self.genesis_hash });
        }
        if set.id() != self.validator_set_id {
            return Err(CheckpointError::WrongSet { found: set.id(), expected: self.validator_set_id });
        }
        Ok(())
    }

    /// How heights fall into epochs.
    pub fn schedule(&self) -> EpochSchedule {
        EpochSchedule::new(self.epoch_length)
    }
}
