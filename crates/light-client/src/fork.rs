//! Proof that quorum stake made two histories final.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use types::{CertificateError, CommitQc, Domain, Evidence, Header, ValidatorSet, Witness};

/// Two final blocks that cannot be in one chain: of one height, or of two consecutive heights where the upper one names
/// another parent. At least a third of the stake of a set signed against the rules.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Fork {
    /// Certificate of the block that was proven first.
    pub first: CommitQc,
    /// Header of the other block.
    pub header: Header,
    /// Its certificate.
    pub second: CommitQc,
}

impl Fork {
    /// Whether both certificates hold and the blocks contradict each other. `sets` gives the set of an epoch; the epoch
    /// of `domain` does not matter.
    pub fn verify<'a>(
        &self,
        sets: impl Fn(types::Epoch) -> Option<&'a ValidatorSet>,
        domain: &Domain,
    ) -> Result<bool, CertificateError> {
        for qc in [&self.first, &self.second] {
            let Some(set) = sets(qc.epoch) else { return Ok(false) };
            qc.verify(set, &Domain { epoch: qc.epoch.get(), ..*domain })?;
        }
        Ok(self.contradicts())
    }

    /// Whether the blocks cannot be in one chain, whatever the signatures.
    pub fn contradicts(&self) -> bool {
        let (first, header) = (&self.first.vote, &self.header);
        let hash = header.hash();
        if (self.second.vote.block_hash, self.second.vote.height) != (hash, header.height) {
            return false;
        }
        let siblings = first.height == header.height && first.block_hash != hash;
        let estranged = first.height.next() == header.height && first.block_hash != header.parent_hash;
        siblings || estranged
    }

    /// Evidence against everybody who signed both, when that alone is an offence: commits of one view. Of other views
    /// the certificates between them tell who is guilty.
    pub fn evidence(&self) -> Option<Evidence> {
        if self.first.epoch != self.second.epoch {
            return None;
        }
        Evidence::new(self.first.epoch, Witness::from(&self.first), Witness::from(&self.second)).ok()
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = (&self.first, &self.second);
        write!(
            f,
            "two histories are final: block {} of height {} (epoch {}, view {}) and block {} of height {} (epoch {}, view {})",
            first.vote.block_hash,
            first.vote.height,
            first.epoch,
            first.vote.view,
            second.vote.block_hash,
            second.vote.height,
            second.epoch,
            second.vote.view
        )
    }
}
