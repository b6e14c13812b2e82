//! What validators sign (specs/block.md, B-3). The epoch, chain and kind are in the signing domain
//! ([`crypto::Domain`]), so equal bodies of different kinds or epochs never share a signature.

use crate::{B256, Domain, Height, Signature, SignatureKind, ValidatorIndex, View, encode};
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::SecretKey;
use crypto::bls::Claim;
use serde::{Deserialize, Serialize};

/// A prepare vote: a Casper-FFG link from the certified parent view to the target view (C-4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PrepareVote {
    /// View of the certificate the block builds on; 0 for the epoch's root.
    pub source_view: View,
    /// Block that certificate is for.
    pub source_hash: B256,
    /// View voted in.
    pub target_view: View,
    /// Height of the block voted for.
    pub height: Height,
    /// Block voted for.
    pub block_hash: B256,
}

/// A commit vote: "I saw the prepare certificate of this view while in it" (C-4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct CommitVote {
    /// View of the prepare certificate.
    pub view: View,
    /// Height of the certified block.
    pub height: Height,
    /// The certified block.
    pub block_hash: B256,
}

/// A timeout: "I give up on this view" (C-3, C-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct TimeoutVote {
    /// The view given up.
    pub view: View,
    /// View of the highest prepare certificate the sender knows; 0 for the epoch's root.
    pub high_qc_view: View,
    /// The last view the sender prepared in; 0 for none.
    pub last_prepared_view: View,
    /// Why.
    pub reason: TimeoutReason,
}

/// Why a validator gave up on a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum TimeoutReason {
    /// The view's timer ran out, or enough others gave up.
    Expired,
    /// The proposed block was found invalid here.
    Rejected {
        /// The refused block.
        block_hash: B256,
        /// What is wrong with it.
        code: RejectionCode,
    },
}

/// Why a block was refused. Discriminants are frozen.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum RejectionCode {
    /// A header field contradicts the chain.
    BadHeader = 0,
    /// The payload does not match its commitment.
    BadCommitment = 1,
    /// The executor refused the payload.
    InvalidPayload = 2,
    /// The executor computed another state hash.
    StateHashMismatch = 3,
    /// The executor computed another receipts hash.
    ReceiptsHashMismatch = 4,
    /// The system inputs are not the ones consensus derives.
    BadSystemInputs = 5,
}

/// What a proposer signs: the view and the block it proposes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct ProposalVote {
    /// View of the proposal; differs from the header's view only when a block is proposed again.
    pub view: View,
    /// The block.
    pub block_hash: B256,
}

/// A statement a validator can sign.
pub trait Statement: BorshSerialize {
    /// The kind that separates its signatures from all others.
    const KIND: SignatureKind;

    /// The bytes under the signature.
    fn signing_bytes(&self, domain: &Domain) -> Vec<u8> {
        if crate::injected!(WrongDomain) {
            let nowhere = Domain { chain_id: 0, genesis_hash: B256::ZERO, epoch: 0 };
            return nowhere.signing_bytes(Self::KIND, &encode(self));
        }
        domain.signing_bytes(Self::KIND, &encode(self))
    }
}

impl Statement for PrepareVote {
    const KIND: SignatureKind = SignatureKind::Prepare;
}
impl Statement for CommitVote {
    const KIND: SignatureKind = SignatureKind::Commit;
}
impl Statement for TimeoutVote {
    const KIND: SignatureKind = SignatureKind::Timeout;
}
impl Statement for ProposalVote {
    const KIND: SignatureKind = SignatureKind::Proposal;
}

/// A statement with its author and signature. Says nothing about validity: see [`Signed::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signed<S> {
    /// What is stated.
    pub statement: S,
    /// Who states it.
    pub signer: ValidatorIndex,
    /// The signature over [`Statement::signing_bytes`].
    pub signature: Signature,
}

impl<S: Statement> Signed<S> {
    /// Signs `statement` as `signer`.
    pub fn new(statement: S, signer: ValidatorIndex, key: &SecretKey, domain: &Domain) -> Self {
        let signature = key.sign(&statement.signing_bytes(domain));
        Self { statement, signer, signature }
    }

    /// What [`Signed::verify`] checks, to be verified with others; `None` for a signer outside the set.
    pub fn claim<'a>(&self, set: &'a crate::ValidatorSet, domain: &Domain) -> Option<Claim<'a>> {
        let keys = vec![set.key(self.signer)?];
        Some(Claim { keys, message: self.statement.signing_bytes(domain), signature: self.signature })
    }

    /// Whether the signer is in the set and signed.
    pub fn verify(&self, set: &crate::ValidatorSet, domain: &Domain) -> bool {
        set.key(self.signer)
            .is_some_and(|key| key.verify(&self.statement.signing_bytes(domain), &self.signature))
    }
}

/// The bytes a proposer signs as its RANDAO reveal: the view (the epoch is in the domain).
pub fn randao_bytes(domain: &Domain, view: View) -> Vec<u8> {
    domain.signing_bytes(SignatureKind::Randao, &view.get().to_le_bytes())
}
