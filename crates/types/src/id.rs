//! Newtypes for the numbers of consensus. There is no `From<u64>`: a height cannot become a view by accident.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            BorshSerialize, BorshDeserialize, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw number.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The raw number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The successor; stays at the maximum rather than wrap.
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The predecessor, or `None` for zero.
            pub const fn previous(self) -> Option<Self> {
                match self.0.checked_sub(1) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Position of a block in the chain; genesis is 0.
    Height(u64)
);
number!(
    /// A slot of the proposer schedule inside an epoch; starts at 1, the epoch's root counts as certified at 0.
    View(u64)
);
number!(
    /// A span of heights with one validator set.
    Epoch(u64)
);
number!(
    /// Position of a validator in the canonical set of an epoch.
    ValidatorIndex(u32)
);
number!(
    /// Position of an execution lane in a payload.
    LaneId(u16)
);

/// Voting weight, in the chain's smallest unit. Sums are checked when a set is built
/// ([`crate::limits::TOTAL_STAKE_MAX`]), so sums of a set's members cannot overflow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Stake(u128);

impl Stake {
    /// No stake.
    pub const ZERO: Self = Self(0);

    /// Wraps a raw amount.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The raw amount.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The sum; stays at the maximum rather than wrap.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; zero rather than negative.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Stake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Stake {
    /// A decimal string: JSON numbers cannot hold 128 bits.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Stake {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}
