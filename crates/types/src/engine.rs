//! The Engine API's values: what consensus asks an executor and what it answers (specs/engine_api.md). The wire
//! form lives in the `engine-api` crate.

use crate::{Address, B256, Height, RejectionCode, SystemInputs, Validator, ValidatorIndex, View};
use serde::{Deserialize, Serialize};

/// Asks for a payload on top of an executed parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadRequest {
    /// Block to build on.
    pub parent_hash: B256,
    /// Height of the new block.
    pub height: Height,
    /// View it will be proposed in.
    pub view: View,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Its proposer.
    pub proposer: ValidatorIndex,
    /// Account that earns its priority fees.
    pub fee_recipient: Address,
    /// How much it may hold.
    pub limits: PayloadLimits,
    /// Consensus' own inputs; `randao_mix` is the block's PREVRANDAO.
    pub system_inputs: SystemInputs,
}

/// Upper bounds of a payload. The executor also applies the genesis gas limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadLimits {
    /// Encoded bytes.
    pub bytes: u64,
    /// Gas.
    pub gas: u64,
    /// State objects touched.
    pub objects: u64,
}

/// A payload the executor built and executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltPayload {
    /// Encoded payload, opaque to consensus.
    pub payload: Vec<u8>,
    /// Version of the encoding.
    pub encoding: u32,
    /// Merkle root over its 1 KiB leaves.
    pub commitment: B256,
    /// State digest after it.
    pub state_hash: B256,
    /// Root over its receipts.
    pub receipts_hash: B256,
    /// Number of transactions.
    pub transactions: u32,
    /// Gas used.
    pub gas_used: u64,
}

/// An executor's verdict on a block. Final once Valid or Invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadStatus {
    /// Executed; consensus compares the hashes with the header's.
    Valid {
        /// State digest after the block, as computed here.
        state_hash: B256,
        /// Root over the receipts, as computed here.
        receipts_hash: B256,
        /// At the last block of an epoch: the set of the epoch after the next.
        next_validators: Option<Vec<Validator>>,
    },
    /// Refused, whatever comes later.
    Invalid {
        /// What kind of fault.
        code: RejectionCode,
        /// What exactly, with the numbers.
        reason: String,
    },
    /// The parent is not known here: ask again after giving it.
    Syncing,
}

/// Where the chain is, as consensus sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forkchoice {
    /// Highest certified block.
    pub head: B256,
    /// The same.
    pub safe: B256,
    /// Highest finalized block; durable in the executor before it answers.
    pub finalized: B256,
}

/// The executor's durable head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalizedState {
    /// Its height.
    pub height: Height,
    /// Its block hash.
    pub block_hash: B256,
    /// State digest after it.
    pub state_hash: B256,
}

/// Who an executor is, exchanged before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Version of the Engine API.
    pub protocol_version: u32,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of the genesis file.
    pub genesis_hash: B256,
    /// Hash of the rules the node executes by: fork schedule and format versions.
    pub rules_hash: B256,
    /// State digest at height 0.
    pub genesis_state_hash: B256,
    /// Name and version of the software.
    pub client_version: String,
}

/// Why an Engine API call did not get an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The executor cannot be reached, died, or did not answer in time. Retry later; never vote.
    #[error("executor unavailable: {0}")]
    Unavailable(String),
    /// The executor refused the caller's credentials.
    #[error("executor refused the credentials: {0}")]
    Unauthenticated(String),
    /// The call contradicts the chain's state; nothing changed.
    #[error("illegal engine call: {0}")]
    Illegal(String),
    /// The executor does not know the parent or head named.
    #[error("unknown block {0}")]
    UnknownBlock(B256),
    /// The executor serves another chain or other rules.
    #[error("executor mismatch: {0}")]
    Mismatch(String),
    /// The executor failed; its storage may be unusable.
    #[error("executor failed: {0}")]
    Internal(String),
}
