//! From a proven block down to older ones, by parent hashes.

use crate::client::Proven;
use crate::refusal::Refusal;
use types::{B256, Header, Height};

/// The way down from a proven block. A header with the hash its child names needs no certificate of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestors {
    /// What the next header must have.
    height: Height,
    hash: B256,
    chain_id: u64,
}

impl Ancestors {
    /// Below a proven header.
    pub(crate) fn below(header: &Header) -> Self {
        let height = header.height.previous().unwrap_or(Height::ZERO);
        Self { height, hash: header.parent_hash, chain_id: header.chain_id }
    }

    /// Height and hash of the block to give next.
    pub fn wanted(&self) -> (Height, B256) {
        (self.height, self.hash)
    }

    /// Takes the wanted header; the next one wanted is its parent. One hash of work.
    pub fn step(&mut self, header: &Header) -> Result<Proven, Refusal> {
        if self.height == Height::ZERO {
            return Err(Refusal::AtGenesis { hash: self.hash });
        }
        let found = header.hash();
        if found != self.hash || header.height != self.height {
            return Err(Refusal::NotTheParent {
                height: self.height,
                expected: self.hash,
                found,
                found_height: header.height,
            });
        }
        if header.chain_id != self.chain_id {
            return Err(Refusal::WrongChain { found: header.chain_id, expected: self.chain_id });
        }
        *self = Self::below(header);
        Ok(Proven::of(header))
    }
}
