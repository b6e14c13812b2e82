//! The validator registry: its rules, its storage, and the set of every epoch (specs/staking.md).
//!
//! The registry is an account of the chain's state whose code is this crate. It never touches a disk, a clock or the
//! EVM: it works on 256-bit words behind [`Words`], which the executor backs with a transaction's journal or with the
//! state of a block. What it decides follows from those words and the genesis alone.
//!
//! - [`Registry::execute`] runs one call of its ABI ([`abi`]).
//! - [`Registry::close_epoch`] computes the set of the epoch after the next; [`next_set`] is the pure rule in it.
//! - [`Registry::slash`] burns stake of a convicted validator.
//! - [`Registry::found`] writes the genesis' validators.

pub mod abi;
mod calls;
mod epochs;
mod layout;
mod set;
mod words;

pub use calls::{Failure, POSSESSION_GAS};
pub use epochs::Slash;
pub use layout::Status;
pub use set::{Candidate, Limits, next_set};
pub use words::{Host, MemoryWords, Words};

use alloy_primitives::{Address, address};
use types::{Epoch, EpochSchedule, Genesis, Height, genesis};

/// The registry's account.
pub const REGISTRY: Address = address!("0000000000000000000000000000000000001000");

/// The account's code. Never run: it says whose it is, and fails wherever something else executes it.
pub const MARKER_CODE: &[u8] = b"\xfetandem validator registry 1";

/// What a genesis fixes for staking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StakingRules {
    /// The parameters.
    pub params: genesis::Staking,
    /// Which heights an epoch has.
    pub schedule: EpochSchedule,
}

impl StakingRules {
    /// Reads a genesis. `None` without validators: then nobody votes and there is no registry (execution alone, as
    /// tools and tests use it).
    pub fn from_genesis(genesis: &Genesis) -> Option<Self> {
        let section = &genesis.tandem;
        let schedule = EpochSchedule::new(section.epoch_length);
        (!section.validators.is_empty()).then_some(Self { params: section.staking, schedule })
    }

    /// The epoch whose set is computed at the end of the block at `height`, if one is.
    pub fn computed_at(&self, height: u64) -> Option<Epoch> {
        let height = Height::new(height);
        self.schedule.is_boundary(height).then(|| self.schedule.epoch_of(height).next().next())
    }

    /// The height at whose end the set of `epoch` is computed; `None` for epochs 0 and 1, whose set is the genesis'.
    pub fn height_of_set(&self, epoch: Epoch) -> Option<Height> {
        let computed_in = epoch.get().checked_sub(2)?;
        Some(self.schedule.last(Epoch::new(computed_in)))
    }

    /// Sets kept at one time: all that evidence may name, and those that wait for their epoch.
    fn sets_kept(&self) -> u64 {
        self.params.unbonding_epochs.saturating_add(3)
    }
}

/// The registry over its words, during one block.
pub struct Registry<'a, W> {
    rules: &'a StakingRules,
    epoch: Epoch,
    words: &'a mut W,
}

impl<'a, W: Words> Registry<'a, W> {
    /// The registry as the block at `height` finds it.
    pub fn at(rules: &'a StakingRules, height: u64, words: &'a mut W) -> Self {
        Self { rules, epoch: rules.schedule.epoch_of(Height::new(height)), words }
    }

    /// The epoch of that block.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

#[cfg(test)]
mod tests;
