//! The JSON format of state tests.

use crate::quantity::{Quantity, Wide, byte_lists, bytes};
use alloy_primitives::{Address, B256, Bytes};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a file gives no cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FixtureError {
    /// The file cannot be read.
    #[error("cannot be read: {reason}")]
    Read {
        /// What the system said.
        reason: String,
    },
    /// The file is longer than any fixture.
    #[error("has {bytes} bytes, at most {max} are read")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// Longest allowed.
        max: u64,
    },
    /// The file is not a JSON object.
    #[error("is no JSON object: {reason}")]
    Json {
        /// What is wrong.
        reason: String,
    },
    /// One of its tests does not have the format.
    #[error("test \"{test}\" is malformed: {reason}")]
    Test {
        /// Which.
        test: String,
        /// What is wrong.
        reason: String,
    },
}

/// One test: a pre-state, an environment, and a transaction in several variants with what each must do by fork.
#[derive(Clone, Debug, Deserialize)]
pub struct Fixture {
    /// The block.
    pub env: Env,
    /// The state before it.
    pub pre: BTreeMap<Address, Account>,
    /// The transaction, with lists to choose from.
    pub transaction: Transaction,
    /// What must come out, by fork.
    pub post: BTreeMap<String, Vec<Post>>,
    /// Chain parameters, in newer fixtures.
    #[serde(default)]
    pub config: Config,
}

/// The environment of the block.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Env {
    /// Fee recipient.
    pub current_coinbase: Address,
    /// Gas limit.
    pub current_gas_limit: Quantity,
    /// Height.
    pub current_number: Quantity,
    /// Seconds since 1970.
    pub current_timestamp: Quantity,
    /// Base fee; 10 wei where an old fixture has none.
    pub current_base_fee: Option<Quantity>,
    /// Work, before the merge; stands in for PREVRANDAO where there is none.
    pub current_difficulty: Option<Quantity>,
    /// PREVRANDAO.
    pub current_random: Option<Quantity>,
    /// Determines the blob base fee.
    pub current_excess_blob_gas: Option<Quantity>,
}

/// An account of a state.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Account {
    /// Balance in wei.
    #[serde(default)]
    pub balance: Quantity,
    /// Nonce.
    #[serde(default)]
    pub nonce: Quantity,
    /// Code.
    #[serde(default, deserialize_with = "bytes")]
    pub code: Bytes,
    /// Slots; those of zero are absent.
    #[serde(default)]
    pub storage: BTreeMap<StorageKey, Quantity>,
}

/// A slot's key: [`Quantity`] as the key of a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct StorageKey(pub Quantity);

/// The transaction with the lists that [`Indexes`] choose from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    /// Input or creation code.
    #[serde(deserialize_with = "byte_lists")]
    pub data: Vec<Bytes>,
    /// Gas limits.
    pub gas_limit: Vec<Wide>,
    /// Values in wei.
    pub value: Vec<Wide>,
    /// Recipient; empty or absent for a creation.
    #[serde(default)]
    pub to: Option<String>,
    /// Nonce.
    pub nonce: Wide,
    /// Key to sign with.
    #[serde(default)]
    pub secret_key: Option<Quantity>,
    /// Who is to be the signer.
    #[serde(default)]
    pub sender: Option<Address>,
    /// Price of legacy and EIP-2930 transactions.
    #[serde(default)]
    pub gas_price: Option<Wide>,
    /// Fee cap of EIP-1559.
    #[serde(default)]
    pub max_fee_per_gas: Option<Wide>,
    /// Tip of EIP-1559.
    #[serde(default)]
    pub max_priority_fee_per_gas: Option<Wide>,
    /// Of blob transactions.
    #[serde(default)]
    pub max_fee_per_blob_gas: Option<Wide>,
    /// Of blob transactions.
    #[serde(default)]
    pub blob_versioned_hashes: Option<Vec<B256>>,
    /// Access lists, chosen together with `data`.
    #[serde(default)]
    pub access_lists: Option<Vec<Option<Vec<AccessListItem>>>>,
    /// EIP-7702.
    #[serde(default)]
    pub authorization_list: Option<Vec<Authorization>>,
    /// Whether a legacy transaction is signed for a chain (EIP-155).
    #[serde(default)]
    pub protected: Option<bool>,
}

/// An entry of an access list.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessListItem {
    /// Account.
    pub address: Address,
    /// Its slots.
    #[serde(default)]
    pub storage_keys: Vec<Quantity>,
}

/// A signed EIP-7702 authorization.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// Chain, or 0 for any.
    pub chain_id: Wide,
    /// Delegate.
    pub address: Address,
    /// The authority's nonce.
    pub nonce: Wide,
    /// Signature parity.
    #[serde(default)]
    pub y_parity: Option<Wide>,
    /// The same under the name that every fixture has.
    #[serde(default)]
    pub v: Option<Wide>,
    /// Signature.
    pub r: Wide,
    /// Signature.
    pub s: Wide,
}

/// What one variant of the transaction must do.
#[derive(Clone, Debug, Deserialize)]
pub struct Post {
    /// Merkle Patricia root of the state.
    pub hash: B256,
    /// Keccak of the RLP of all logs.
    pub logs: B256,
    /// Which variant.
    pub indexes: Indexes,
    /// The signed transaction.
    #[serde(default)]
    pub txbytes: Option<String>,
    /// Why the transaction must be refused.
    #[serde(default, rename = "expectException")]
    pub expect_exception: Option<String>,
    /// The state in full, in newer fixtures.
    #[serde(default)]
    pub state: Option<BTreeMap<Address, Account>>,
}

/// Chooses from the transaction's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Indexes {
    /// Of `data` and `access_lists`.
    pub data: usize,
    /// Of `gas_limit`.
    pub gas: usize,
    /// Of `value`.
    pub value: usize,
}

/// Chain parameters.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// EIP-155 chain id.
    pub chainid: Quantity,
}

impl Default for Config {
    fn default() -> Self {
        Self { chainid: Quantity(alloy_primitives::U256::ONE) }
    }
}

/// The tests of a file by name. What is no state test (blockchain tests lie in the same folders) is `None`.
pub fn parse(file: &[u8]) -> Result<Vec<(String, Option<Fixture>)>, FixtureError> {
    let tests: BTreeMap<String, Value> =
        serde_json::from_slice(file).map_err(|error| FixtureError::Json { reason: error.to_string() })?;
    let tests = tests.into_iter().filter(|(name, _)| name != "_info");
    tests.map(|(test, value)| parse_test(test, value)).collect()
}

fn parse_test(test: String, value: Value) -> Result<(String, Option<Fixture>), FixtureError> {
    let is_state_test = value.get("transaction").is_some() && value.get("post").is_some();
    if !is_state_test {
        return Ok((test, None));
    }
    match serde_json::from_value(value) {
        Ok(fixture) => Ok((test, Some(fixture))),
        Err(error) => Err(FixtureError::Test { test, reason: error.to_string() }),
    }
}
