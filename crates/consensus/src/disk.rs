//! What consensus needs from a disk (C-7). Two implementations: the `journal` crate and the simulator's disk.

use crate::evidence::StoredEvidence;
use crate::restraint::Restraint;
use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use types::vote::Signed;
use types::{
    B256, Block, CommitQc, CommitVote, CommittedBlock, Epoch, EpochInfo, Height, Prepare, Qc, Tc, Timeout,
    View,
};

/// Everything a validator must not forget, in one record. Replaced as a whole; never lowered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignState {
    /// Epoch the views below belong to.
    pub epoch: Epoch,
    /// Highest view entered.
    pub view: View,
    /// Last own proposal: view and block.
    pub last_proposal: Option<(View, B256)>,
    /// Last own prepare vote, as sent.
    pub last_prepare: Option<Prepare>,
    /// Last own commit vote, as sent.
    pub last_commit: Option<Signed<CommitVote>>,
    /// Last own timeout, as sent, with the certificate it names.
    pub last_timeout: Option<Timeout>,
    /// Certificate this validator is locked on; `None` for the epoch's root.
    pub lock: Option<Qc>,
    /// Highest prepare certificate known.
    pub high_qc: Option<Qc>,
    /// Timeout certificate the current view was entered by, if it was.
    pub entered_by: Option<Tc>,
}

/// One thing to make durable.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// The new sign-state.
    SignState(Box<SignState>),
    /// A block, not yet final. Siblings are allowed.
    Block(Arc<Block>),
    /// A commit certificate. Its block may still be missing.
    Commit(CommitQc),
    /// The block at this height is final and the executor holds it durably. Heights rise by one.
    Finalized {
        /// Height.
        height: Height,
        /// Block hash, of a stored block.
        block_hash: B256,
    },
    /// Evidence that waits for a block, or that a block holds which is just becoming final.
    Evidence(Box<StoredEvidence>),
    /// Something more that restrains signing: an alarm, a floor. Added to what is there ([`Restraint::tighten`]).
    Restraint(Box<Restraint>),
    /// Who votes in an epoch to come. Written before the mark of the final block that fixed it.
    Epoch(Box<EpochInfo>),
}

/// Proof that a batch of records is on disk. Only a [`Disk`] makes one, after its fsync.
#[derive(Debug)]
pub struct Durable(());

impl Durable {
    /// Called by a [`Disk`] after its fsync returned, and by nobody else.
    pub fn after_fsync() -> Self {
        Self(())
    }
}

/// What was found at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Latest sign-state, if any was ever written.
    pub sign_state: Option<SignState>,
    /// Highest height marked final, with its hash.
    pub finalized: Option<(Height, B256)>,
    /// Blocks above the finalized height, in the order they were stored.
    pub blocks: Vec<Arc<Block>>,
    /// The highest commit certificate stored.
    pub commit: Option<CommitQc>,
    /// Evidence stored lately, oldest first: at least all of the epochs it is valid for, as far as the disk's bound allows.
    pub evidence: Vec<StoredEvidence>,
    /// What restrains signing beside the sign-state.
    pub restraint: Restraint,
}

/// A disk that failed. The node stops signing: a disk that failed once is not trusted again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("consensus disk failed: {0}")]
pub struct DiskError(pub String);

/// Durable storage of one validator.
pub trait Disk {
    /// Appends all records and returns after they are durable, or fails for good. When power goes meanwhile, blocks
    /// of the batch must not be missing while its sign-state is there (C-9: what is voted on is stored).
    fn persist(&mut self, records: &[Record]) -> Result<Durable, DiskError>;

    /// A stored block, final or not.
    fn block(&self, hash: &B256) -> Result<Option<Arc<Block>>, DiskError>;

    /// The finalized block at a height with its commit certificate, if it has its own.
    fn finalized(&self, height: Height) -> Result<Option<CommittedBlock>, DiskError>;

    /// What a [`Record::Epoch`] said of an epoch.
    fn epoch(&self, epoch: Epoch) -> Result<Option<EpochInfo>, DiskError>;
}
