//! Certificates of any kind, and where they are found.

use types::{CommitQc, Domain, Epoch, Header, Justify, Qc, Tc, ValidatorSet, Witness};

/// A certificate of any kind, as it arrives.
pub(crate) enum Certificate {
    Prepare(Qc),
    Timeout(Tc),
    Commit(CommitQc),
}

impl Certificate {
    /// All that a header carries.
    pub fn of_header(header: &Header) -> Vec<Self> {
        let mut certificates = Vec::new();
        match &header.justify {
            Justify::Genesis => {}
            Justify::Prepare(qc) => certificates.push(Self::Prepare(qc.clone())),
            Justify::EpochBoundary(qc) => certificates.push(Self::Commit(qc.clone())),
        }
        certificates.extend(header.timeout.iter().flat_map(Self::of_timeout));
        certificates.extend(header.last_commit.iter().cloned().map(Self::Commit));
        certificates
    }

    /// A timeout certificate and the prepare certificate in it.
    pub fn of_timeout(tc: &Tc) -> Vec<Self> {
        let high_qc = tc.high_qc.iter().cloned().map(Self::Prepare);
        std::iter::once(Self::Timeout(tc.clone())).chain(high_qc).collect()
    }

    /// What it proves, with its epoch. It must be verified before that is used.
    pub fn witness(&self) -> (Epoch, Witness) {
        match self {
            Self::Prepare(qc) => (qc.epoch, qc.into()),
            Self::Timeout(tc) => (tc.epoch, tc.into()),
            Self::Commit(qc) => (qc.epoch, qc.into()),
        }
    }

    pub fn verify(&self, set: &ValidatorSet, domain: &Domain) -> bool {
        match self {
            Self::Prepare(qc) => qc.verify(set, domain).is_ok(),
            Self::Timeout(tc) => tc.verify(set, domain).is_ok(),
            Self::Commit(qc) => qc.verify(set, domain).is_ok(),
        }
    }
}
