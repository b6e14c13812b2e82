//! Consensus objects: identifiers, headers, votes, certificates, validator sets with ALL quorum arithmetic,
//! messages, the genesis file, and their canonical encoding (borsh, <https://borsh.io>).
//!
//! This crate never does IO, never signs and never decides what to do: it says what things are, what they hash
//! to and whether a certificate is valid for a set. Formats are frozen by specs/block.md and its vectors.

pub mod block;
pub mod certificate;
pub mod engine;
pub mod epoch;
pub mod evidence;
pub mod genesis;
pub mod id;
pub mod limits;
pub mod message;
pub mod mutation;
pub mod validator;
pub mod vote;

use crypto::meter::{Phase, span};

pub use alloy_primitives::{Address, B256, Bytes, U256};
pub use block::{Block, Checkpoint, Header, Justify, SystemInputs};
pub use certificate::{CertificateError, CommitQc, Qc, Tc, TimeoutGroup};
pub use crypto::{Domain, PublicKey, Signature, SignatureKind};
pub use epoch::{EpochInfo, EpochSchedule};
pub use evidence::{Claim, Evidence, EvidenceError, Offence, Witness};
pub use genesis::{Genesis, GenesisError};
pub use id::{Epoch, Height, LaneId, Stake, ValidatorIndex, View};
pub use message::{
    Commit, CommittedBlock, ConsensusMessage, FetchRequest, FetchResponse, Prepare, Proposal, Timeout,
};
pub use validator::{QuorumRule, SignerSet, Validator, ValidatorSet, ValidatorSetError};
pub use vote::{CommitVote, PrepareVote, ProposalVote, RejectionCode, TimeoutReason, TimeoutVote};

/// Canonical bytes of a value.
pub fn encode<T: borsh::BorshSerialize + ?Sized>(value: &T) -> Vec<u8> {
    let _span = span(Phase::Encode);
    borsh::to_vec(value).expect("writing to memory cannot fail and no collection exceeds u32::MAX")
}

/// Parses canonical bytes: every byte must be used, every discriminant known.
pub fn decode<T: borsh::BorshDeserialize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let _span = span(Phase::Encode);
    borsh::from_slice(bytes).map_err(|source| DecodeError { length: bytes.len(), reason: source.to_string() })
}

/// Bytes that are no canonical encoding of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes are not a canonical encoding: {reason}")]
pub struct DecodeError {
    /// How many bytes were given.
    pub length: usize,
    /// What the decoder stumbled over.
    pub reason: String,
}
