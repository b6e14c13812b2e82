//! Messages between validators, and block fetching (specs/consensus.md, C-3). Decoding is canonical; sizes are
//! bounded by [`crate::limits::MESSAGE_BYTES_MAX`] before a decoder sees the bytes.

use crate::vote::Signed;
use crate::{
    B256, Block, CommitQc, CommitVote, Epoch, Evidence, Height, PrepareVote, ProposalVote, Qc, Tc,
    TimeoutVote,
};
use borsh::{BorshDeserialize, BorshSerialize};

/// A signed prepare vote.
pub type Prepare = Signed<PrepareVote>;

/// A proposal: a block for a view.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// The proposer's signature over view and block hash.
    pub signed: Signed<ProposalVote>,
    /// The block.
    pub block: Block,
    /// Set when a block of an earlier view is proposed again at an epoch's end: its newest certificate and the
    /// proof that views were skipped (C-8).
    pub again: Option<Reproposal>,
}

/// Justification for proposing a block again.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reproposal {
    /// Newest prepare certificate of the block itself.
    pub source: Qc,
    /// Proof that the views in between were given up.
    pub timeout: Option<Tc>,
}

/// A signed commit vote with the certificate it answers, so that whoever locks tells everyone (C-6.2).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Commit {
    /// The vote.
    pub signed: Signed<CommitVote>,
    /// The prepare certificate of the vote's view and block.
    pub qc: Qc,
}

/// A signed timeout with the sender's highest prepare certificate.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Timeout {
    /// The statement.
    pub signed: Signed<TimeoutVote>,
    /// The certificate the statement names; `None` for the epoch's root.
    pub high_qc: Option<Qc>,
}

/// A message of the validator mesh.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ConsensusMessage {
    /// A block for a view.
    Proposal(Epoch, Box<Proposal>),
    /// A prepare vote.
    Prepare(Epoch, Prepare),
    /// A commit vote.
    Commit(Epoch, Commit),
    /// A timeout.
    Timeout(Epoch, Timeout),
    /// A prepare certificate: forwarded on view entry and in answer to old timeouts.
    Qc(Qc),
    /// A timeout certificate, likewise.
    Tc(Tc),
    /// A commit certificate.
    CommitQc(CommitQc),
    /// Evidence against validators, from a node in this epoch (C-8.4).
    Evidence(Epoch, Box<Evidence>),
}

impl ConsensusMessage {
    /// Epoch the message belongs to.
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Proposal(epoch, _)
            | Self::Prepare(epoch, _)
            | Self::Commit(epoch, _)
            | Self::Timeout(epoch, _)
            | Self::Evidence(epoch, _) => *epoch,
            Self::Qc(qc) => qc.epoch,
            Self::Tc(tc) => tc.epoch,
            Self::CommitQc(qc) => qc.epoch,
        }
    }

    /// Short name for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Proposal(..) => "proposal",
            Self::Prepare(..) => "prepare",
            Self::Commit(..) => "commit",
            Self::Timeout(..) => "timeout",
            Self::Qc(_) => "qc",
            Self::Tc(_) => "tc",
            Self::CommitQc(_) => "commit_qc",
            Self::Evidence(..) => "evidence",
        }
    }
}

/// Asks a peer for blocks it stores.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum FetchRequest {
    /// One block, certified or not, by hash.
    ByHash(B256),
    /// Finalized blocks from a height upwards, at most [`crate::limits::FETCH_BLOCKS_MAX`] and
    /// [`crate::limits::FETCH_BYTES_MAX`].
    Finalized {
        /// First height wanted.
        from: Height,
        /// How many at most.
        count: u32,
    },
}

/// Answer to a [`FetchRequest`]. Empty when the peer has nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FetchResponse {
    /// The blocks, ascending by height.
    pub blocks: Vec<CommittedBlock>,
    /// The highest commit certificate the peer knows: tells a node how far it is behind.
    pub head: Option<CommitQc>,
}

/// A stored block with the certificate that finalized it, where one was formed for exactly this block. A block
/// without one is proven final by a descendant's.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CommittedBlock {
    /// The block.
    pub block: Block,
    /// Its commit certificate, if it has its own.
    pub commit: Option<CommitQc>,
}
