//! Why a client believes something not.

use crate::fork::Fork;
use types::{B256, CertificateError, Epoch, Height, Stake, ValidatorSetError, View};

/// Why an update, an ancestor or a checkpoint was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The header is of another chain.
    #[error("header of chain {found}, this is chain {expected}")]
    WrongChain {
        /// Chain id of the header.
        found: u64,
        /// Chain id of the checkpoint.
        expected: u64,
    },
    /// The header is longer than any may be.
    #[error("header of {bytes} bytes, at most {limit} are allowed")]
    HeaderTooLong {
        /// Its encoded size.
        bytes: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Height and epoch of the header do not go together.
    #[error(
        "header of height {height} says epoch {found} that starts at {start}, the height is in epoch {expected}"
    )]
    WrongEpochOfHeight {
        /// Its height.
        height: Height,
        /// Its epoch.
        found: Epoch,
        /// Where it says that epoch starts.
        start: Height,
        /// The epoch of that height.
        expected: Epoch,
    },
    /// The header is of an epoch the client left.
    #[error("header of epoch {found}, the client is in epoch {current}")]
    PastEpoch {
        /// Epoch of the header.
        found: Epoch,
        /// Epoch of the client.
        current: Epoch,
    },
    /// Nobody proved the set of the header's epoch: an update of every epoch in between comes first.
    #[error("header of epoch {found}, the client knows the sets up to epoch {known}")]
    SkippedEpoch {
        /// Epoch of the header.
        found: Epoch,
        /// Last epoch whose set is known.
        known: Epoch,
    },
    /// The header begins an epoch for the client, and the update lacks its members.
    #[error("the update enters epoch {epoch} without its validators")]
    SetMissing {
        /// Which epoch.
        epoch: Epoch,
    },
    /// The members given are no set.
    #[error("the validators given for epoch {epoch} make no set: {source}")]
    BadSet {
        /// Which epoch.
        epoch: Epoch,
        /// What is wrong with them.
        source: ValidatorSetError,
    },
    /// The members given are not those a final header of the epoch before named.
    #[error(
        "the validators given for epoch {epoch} have the id {found}, a final header of the epoch before names {expected}"
    )]
    WrongSet {
        /// Which epoch.
        epoch: Epoch,
        /// Id of the set given.
        found: B256,
        /// Id that was proven.
        expected: B256,
    },
    /// The header names another set than that of its epoch.
    #[error("header of height {height} names the set {found}, the set of its epoch is {expected}")]
    WrongSetInHeader {
        /// Its height.
        height: Height,
        /// Id in the header.
        found: B256,
        /// Id of the set.
        expected: B256,
    },
    /// Two final headers of one epoch name different sets for the next one.
    #[error(
        "header of height {height} names {found} as the next epoch's set, an earlier one of its epoch {expected}"
    )]
    NextSetChanged {
        /// Height of the later header.
        height: Height,
        /// What it names.
        found: B256,
        /// What was proven before.
        expected: B256,
    },
    /// The certificate is about another block.
    #[error(
        "the certificate is for block {voted} at height {voted_height}, the header is {hash} at height {height}"
    )]
    OtherBlock {
        /// Block the certificate is for.
        voted: B256,
        /// Its height.
        voted_height: Height,
        /// Hash of the header.
        hash: B256,
        /// Height of the header.
        height: Height,
    },
    /// The certificate is of a view before the block was first proposed.
    #[error("certificate of view {voted} for a block first proposed in view {proposed}")]
    ViewBeforeProposal {
        /// View of the certificate.
        voted: View,
        /// View of the header.
        proposed: View,
    },
    /// Too little stake signed.
    #[error("certificate of height {height} signed by {stake} of stake, {quorum} needed")]
    NoQuorum {
        /// Height it is for.
        height: Height,
        /// Stake that signed.
        stake: Stake,
        /// Stake needed.
        quorum: Stake,
    },
    /// The certificate does not hold for the set of its epoch for another reason.
    #[error("certificate of height {height} does not hold: {source}")]
    Certificate {
        /// Height it is for.
        height: Height,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// Not above what is proven already.
    #[error("header of height {found} is not above the proven height {proven}")]
    Stale {
        /// Height of the header.
        found: Height,
        /// Height of the client.
        proven: Height,
    },
    /// Quorum stake made final what contradicts what quorum stake made final before: at least a third of some set's
    /// stake is faulty.
    #[error("{0}")]
    Forked(Box<Fork>),
    /// A proven header contradicts the trusted checkpoint: the checkpoint is of another history, or at least a third of
    /// the stake is faulty.
    #[error(
        "final block {found} of height {height} does not continue the trusted block {trusted} of height {trusted_height}"
    )]
    AgainstCheckpoint {
        /// Height of the header.
        height: Height,
        /// Its hash.
        found: B256,
        /// Height of the checkpoint.
        trusted_height: Height,
        /// Hash of the checkpoint.
        trusted: B256,
    },
    /// The checkpoint is older than stake stays bound: those who signed for it may have nothing to lose by now.
    #[error(
        "trust in epoch {trusted} ends with epoch {last}, after {period} epochs, and this is epoch {found}: validators of \
         epoch {trusted} may have taken their stake out and lose nothing by signing another history; get a newer \
         checkpoint from somebody you trust"
    )]
    TrustExpired {
        /// Epoch that was trusted.
        trusted: Epoch,
        /// Epochs it is trusted for.
        period: u64,
        /// The last of them.
        last: Epoch,
        /// Epoch of the header, or the one the caller takes to be the present.
        found: Epoch,
    },
    /// The caller's own idea of the present is ahead of what the server shows.
    #[error(
        "proven up to height {proven}, expected at least {expected}: the server is behind or withholds what is final"
    )]
    Withheld {
        /// Height of the client.
        proven: Height,
        /// Height the caller knows to exist.
        expected: Height,
    },
    /// What is proven last was proposed too long ago by the caller's clock.
    #[error(
        "the last proven block, height {height}, is {age_ms} ms old, at most {age_ms_max} ms are accepted: the chain stands \
         still, or the server withholds what is final"
    )]
    TooOld {
        /// Height of the client.
        height: Height,
        /// How old its block is.
        age_ms: u64,
        /// How old it may be.
        age_ms_max: u64,
    },
    /// Not the next ancestor.
    #[error(
        "the block at height {height} is {expected}, the header given is {found} at height {found_height}"
    )]
    NotTheParent {
        /// Height asked for.
        height: Height,
        /// Its proven hash.
        expected: B256,
        /// Hash of the header given.
        found: B256,
        /// Its height.
        found_height: Height,
    },
    /// The way down has ended: block 0 has no header.
    #[error("block {hash} at height 0 is the genesis, not a header")]
    AtGenesis {
        /// Hash of the genesis as its child names it.
        hash: B256,
    },
}
