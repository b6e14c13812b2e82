//! What the registry runs on.

use alloy_primitives::{Address, LogData, U256};
use std::{collections::BTreeMap, convert::Infallible};

/// Storage of the registry's account: words by slot, zero where nothing was written.
pub trait Words {
    /// Why a word cannot be had.
    type Error;

    /// Reads a word.
    fn load(&mut self, slot: U256) -> Result<U256, Self::Error>;

    /// Writes a word.
    fn store(&mut self, slot: U256, value: U256) -> Result<(), Self::Error>;
}

/// A call's surroundings: storage whose use is charged, and effects that a revert undoes.
pub trait Host: Words {
    /// Takes gas.
    fn charge(&mut self, gas: u64) -> Result<(), Self::Error>;

    /// Writes a log of the registry.
    fn emit(&mut self, log: LogData) -> Result<(), Self::Error>;

    /// Pays wei out of the registry's balance.
    fn pay(&mut self, to: Address, amount: u128) -> Result<(), Self::Error>;
}

/// Words in memory: for building a genesis, and for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryWords(BTreeMap<U256, U256>);

impl MemoryWords {
    /// All words that are not zero, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (U256, U256)> + '_ {
        self.0.iter().map(|(slot, value)| (*slot, *value))
    }
}

impl Words for MemoryWords {
    type Error = Infallible;

    fn load(&mut self, slot: U256) -> Result<U256, Infallible> {
        Ok(self.0.get(&slot).copied().unwrap_or_default())
    }

    fn store(&mut self, slot: U256, value: U256) -> Result<(), Infallible> {
        match value.is_zero() {
            true => self.0.remove(&slot),
            false => self.0.insert(slot, value),
        };
        Ok(())
    }
}
