//! Headers and blocks (specs/block.md, B-1 and B-2).

use crate::{
    Address, B256, CommitQc, Epoch, Height, Qc, Signature, Tc, ValidatorIndex, View,
    certificate::CertifiedRef, encode,
};
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::tagged_hash;
use serde::{Deserialize, Serialize};

/// A block header. Its hash covers every field, certificates and signatures included; headers alone carry all
/// that a light client or a slasher needs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Epoch of the block.
    pub epoch: Epoch,
    /// First height of that epoch.
    pub epoch_start_height: Height,
    /// Height: the parent's plus one.
    pub height: Height,
    /// View the block was first proposed in.
    pub view: View,
    /// Parent's block hash.
    pub parent_hash: B256,
    /// Proposer's clock in milliseconds since 1970, never below the parent's.
    pub timestamp_ms: u64,
    /// Who proposed it.
    pub proposer: ValidatorIndex,
    /// Account that earns the block's priority fees.
    pub fee_recipient: Address,
    /// The set that votes on it.
    pub validator_set_id: B256,
    /// The set that votes in the next epoch, fixed before this epoch began: who trusts this header's set learns whom
    /// to trust next.
    pub next_validator_set_id: B256,
    /// Merkle root over the payload's 1 KiB leaves.
    pub payload_commitment: B256,
    /// Digest of the whole state after the block.
    pub state_hash: B256,
    /// Merkle root over the receipts.
    pub receipts_hash: B256,
    /// Latest state checkpoint.
    pub checkpoint: Checkpoint,
    /// Proposer's signature over the view: the block's share of randomness.
    pub randao_reveal: Signature,
    /// Why the parent may be built upon.
    pub justify: Justify,
    /// Proof that the views between the parent's and this one were given up.
    pub timeout: Option<Tc>,
    /// The highest commit certificate the proposer knew.
    pub last_commit: Option<CommitQc>,
    /// Hash of the system inputs.
    pub system_inputs_hash: B256,
}

/// Why a parent may be built upon.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Justify {
    /// The parent is the genesis.
    Genesis,
    /// The parent is the finalized last block of the previous epoch.
    EpochBoundary(CommitQc),
    /// The parent has a prepare certificate.
    Prepare(Qc),
}

/// A state checkpoint: the Ethereum state root after the last block of an epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
pub struct Checkpoint {
    /// Height it is of; 0 before the first.
    pub height: Height,
    /// Keccak Merkle-Patricia root; zero before the first.
    pub root: B256,
}

impl Header {
    /// `block_hash`: what votes sign and children name.
    pub fn hash(&self) -> B256 {
        tagged_hash("tandem v1 block header", &[&encode(self)])
    }

    /// The certified block this one builds on, as (view, height, hash).
    pub fn source(&self) -> CertifiedRef {
        match &self.justify {
            Justify::Genesis | Justify::EpochBoundary(_) => CertifiedRef {
                view: View::ZERO,
                height: self.height.previous().unwrap_or(Height::ZERO),
                block_hash: self.parent_hash,
            },
            Justify::Prepare(qc) => qc.into(),
        }
    }
}

/// What consensus tells the executor beside the payload; applied after the last lane.
///
/// `randao_mix` and `evidence` (C-8.4) are active. The other fields are part of the frozen format and must be empty until the
/// rules that fill them are active.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SystemInputs {
    /// RANDAO mix including this block's reveal: the EVM's PREVRANDAO.
    pub randao_mix: B256,
    /// Proofs of slashable acts.
    pub evidence: Vec<Vec<u8>>,
    /// Liveness response aggregates.
    pub liveness: Vec<Vec<u8>>,
    /// Penalties of the epoch that ended.
    pub penalties: Option<Vec<u8>>,
}

impl SystemInputs {
    /// `system_inputs_hash`.
    pub fn hash(&self) -> B256 {
        tagged_hash("tandem v1 system inputs", &[&encode(self)])
    }
}

/// The RANDAO mix after a block: `H(parent mix ‖ reveal)`.
pub fn randao_mix(parent_mix: B256, reveal: &Signature) -> B256 {
    tagged_hash("tandem v1 randao mix", &[parent_mix.as_slice(), &reveal.0])
}

/// A whole block. The payload is opaque to consensus.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Block {
    /// Its header.
    pub header: Header,
    /// System inputs, hashed into the header.
    pub system_inputs: SystemInputs,
    /// Encoded payload, committed in the header.
    pub payload: Vec<u8>,
}
