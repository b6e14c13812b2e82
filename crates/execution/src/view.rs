//! Reading state: the trait every state source implements, and the stack of diffs above a source.

use crate::StateDiff;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use std::sync::Arc;

/// What an account is, apart from its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// Number of transactions sent, or of contracts created.
    pub nonce: u64,
    /// Balance in wei.
    pub balance: U256,
    /// Keccak of the code; [`KECCAK256_EMPTY`] without code.
    pub code_hash: B256,
}

impl Default for AccountInfo {
    fn default() -> Self {
        Self { nonce: 0, balance: U256::ZERO, code_hash: KECCAK256_EMPTY }
    }
}

impl AccountInfo {
    /// Empty by EIP-161: such an account does not exist in the state.
    pub fn is_empty(&self) -> bool {
        self.nonce == 0 && self.balance.is_zero() && !self.has_code()
    }

    /// Whether the account has code (a contract, or an EIP-7702 delegation).
    pub fn has_code(&self) -> bool {
        self.code_hash != KECCAK256_EMPTY
    }
}

/// Why a state could not be read. Our disk or a bug: never the fault of a block or a transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The storage below failed.
    #[error("state storage failed: {0}")]
    Storage(String),
    /// An account names code that is not stored.
    #[error("code {0} is named by an account but not stored")]
    MissingCode(B256),
    /// A stored record cannot be read.
    #[error("stored record of {what} is corrupt: {reason}")]
    Corrupt {
        /// What kind of record.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The EVM failed in a way that is neither the transaction's nor the disk's fault.
    #[error("EVM failed internally: {0}")]
    Evm(String),
}

impl revm::database_interface::DBErrorMarker for ViewError {}

/// A consistent state after some block. Reads are repeatable: a view never changes under its user.
pub trait StateView: Send + Sync {
    /// The account, or `None` when it does not exist.
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, ViewError>;
    /// Code by its keccak. The empty hash gives empty code.
    fn code(&self, hash: B256) -> Result<Bytes, ViewError>;
    /// A storage slot; zero when absent.
    fn storage(&self, address: Address, slot: U256) -> Result<U256, ViewError>;
    /// Consensus block hash at `height`; zero when the height is unknown to the view.
    fn block_hash(&self, height: u64) -> Result<B256, ViewError>;
}

macro_rules! forward_view {
    ($($pointer:ty),*) => {$(
        impl<V: StateView + ?Sized> StateView for $pointer {
            fn account(&self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
                (**self).account(address)
            }
            fn code(&self, hash: B256) -> Result<Bytes, ViewError> {
                (**self).code(hash)
            }
            fn storage(&self, address: Address, slot: U256) -> Result<U256, ViewError> {
                (**self).storage(address, slot)
            }
            fn block_hash(&self, height: u64) -> Result<B256, ViewError> {
                (**self).block_hash(height)
            }
        }
    )*};
}
forward_view!(&V, Box<V>, Arc<V>);

/// One executed block above a base state.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Height of the block.
    pub height: u64,
    /// Its consensus hash.
    pub block_hash: B256,
    /// What it changed.
    pub diff: Arc<StateDiff>,
}

/// A base state with executed blocks on top: the state after an un-finalized block.
#[derive(Clone, Debug)]
pub struct Overlay<V> {
    base: V,
    /// Newest first.
    layers: Vec<Layer>,
}

impl<V: StateView> Overlay<V> {
    /// `layers` from the newest block down to the first one above `base`.
    pub fn new(base: V, layers: Vec<Layer>) -> Self {
        Self { base, layers }
    }

    /// The state below all layers.
    pub fn base(&self) -> &V {
        &self.base
    }

    /// The layers, newest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }
}

impl<V: StateView> StateView for Overlay<V> {
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
        match self.layers.iter().find_map(|layer| layer.diff.account(&address)) {
            Some(change) => Ok(change.new),
            None => self.base.account(address),
        }
    }

    fn code(&self, hash: B256) -> Result<Bytes, ViewError> {
        match self.layers.iter().find_map(|layer| layer.diff.code(&hash)) {
            Some(code) => Ok(code.clone()),
            None => self.base.code(hash),
        }
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, ViewError> {
        match self.layers.iter().find_map(|layer| layer.diff.slot(&address, &slot)) {
            Some(change) => Ok(change.new),
            None => self.base.storage(address, slot),
        }
    }

    fn block_hash(&self, height: u64) -> Result<B256, ViewError> {
        match self.layers.iter().find(|layer| layer.height == height) {
            Some(layer) => Ok(layer.block_hash),
            None => self.base.block_hash(height),
        }
    }
}
