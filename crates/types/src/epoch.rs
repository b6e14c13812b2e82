//! Epochs: which heights they span, what is fixed before one begins (specs/consensus.md, C-8.3).

use crate::{B256, Epoch, Height, Validator};
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::tagged_hash;

/// How heights fall into epochs: every epoch has the same number of them, epoch 0 starts at height 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSchedule {
    length: u64,
}

impl EpochSchedule {
    /// Epochs of `length` heights; 0 counts as 1.
    pub const fn new(length: u64) -> Self {
        Self { length: if length == 0 { 1 } else { length } }
    }

    /// Heights per epoch.
    pub const fn length(self) -> u64 {
        self.length
    }

    /// The epoch of a height; genesis counts to epoch 0.
    pub const fn epoch_of(self, height: Height) -> Epoch {
        Epoch::new(height.get().saturating_sub(1) / self.length)
    }

    /// First height of an epoch.
    pub const fn first(self, epoch: Epoch) -> Height {
        Height::new(epoch.get().saturating_mul(self.length).saturating_add(1))
    }

    /// Last height of an epoch: its boundary.
    pub const fn last(self, epoch: Epoch) -> Height {
        Height::new(epoch.next().get().saturating_mul(self.length))
    }

    /// Whether a height ends its epoch.
    pub const fn is_boundary(self, height: Height) -> bool {
        height.get() > 0 && height.get().is_multiple_of(self.length)
    }
}

/// What is fixed about an epoch before the epoch before it begins.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochInfo {
    /// Which epoch.
    pub epoch: Epoch,
    /// Seed of its proposer draw.
    pub seed: B256,
    /// Its validators in canonical order.
    pub validators: Vec<Validator>,
}

/// Seed of an epoch's proposer draw, from the RANDAO mix after the last block of the epoch before the previous one
/// (of genesis, for epoch 1): everybody knows it one epoch ahead, nobody before that.
pub fn epoch_seed(mix: B256, epoch: Epoch) -> B256 {
    tagged_hash("tandem v1 epoch seed", &[mix.as_slice(), &epoch.get().to_le_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_height_from_one_on_is_in_exactly_one_epoch() {
        for length in 1..9 {
            let schedule = EpochSchedule::new(length);
            let mut height = Height::new(1);
            for epoch in (0..20).map(Epoch::new) {
                assert_eq!(schedule.first(epoch), height);
                while height <= schedule.last(epoch) {
                    assert_eq!(schedule.epoch_of(height), epoch);
                    assert_eq!(schedule.is_boundary(height), height == schedule.last(epoch));
                    height = height.next();
                }
            }
        }
        assert!(!EpochSchedule::new(1).is_boundary(Height::ZERO));
    }

    #[test]
    fn the_last_epochs_do_not_overflow() {
        let schedule = EpochSchedule::new(u64::MAX / 2);
        assert_eq!(schedule.last(Epoch::new(u64::MAX)), Height::new(u64::MAX));
        assert_eq!(schedule.epoch_of(Height::new(u64::MAX)), Epoch::new(2));
    }
}
