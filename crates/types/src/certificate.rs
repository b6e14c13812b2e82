//! Certificates: aggregate signatures of at least quorum stake, with the bitmap of who signed (C-1.2, C-1.4).

use crate::limits::TIMEOUT_GROUPS_MAX;
use crate::vote::Statement;
use crate::{
    B256, CommitVote, Domain, Epoch, Height, PrepareVote, Signature, SignerSet, Stake, TimeoutReason,
    TimeoutVote, ValidatorSet, View,
};
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::bls::{Claim, verify_grouped};

/// Prepare certificate: quorum stake made the same link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Qc {
    /// Epoch whose set signed.
    pub epoch: Epoch,
    /// What was signed.
    pub vote: PrepareVote,
    /// Who signed.
    pub signers: SignerSet,
    /// Aggregate signature.
    pub signature: Signature,
}

/// Commit certificate: proof that a block and all its ancestors are final.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct CommitQc {
    /// Epoch whose set signed.
    pub epoch: Epoch,
    /// What was signed.
    pub vote: CommitVote,
    /// Who signed.
    pub signers: SignerSet,
    /// Aggregate signature.
    pub signature: Signature,
}

/// Timeout certificate: quorum stake gave up on a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Tc {
    /// Epoch whose set signed.
    pub epoch: Epoch,
    /// The view given up.
    pub view: View,
    /// Signers by equal statement, in strictly ascending order of statement.
    pub groups: Vec<TimeoutGroup>,
    /// Aggregate over all groups.
    pub signature: Signature,
    /// The highest prepare certificate any signer reported; `None` for the epoch's root.
    pub high_qc: Option<Qc>,
}

/// The signers of one timeout statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct TimeoutGroup {
    /// Highest certificate they reported.
    pub high_qc_view: View,
    /// Last view they prepared in.
    pub last_prepared_view: View,
    /// Why they gave up.
    pub reason: TimeoutReason,
    /// Who they are.
    pub signers: SignerSet,
}

/// Why a certificate is not valid for a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is for another epoch.
    #[error("certificate of epoch {found}, expected {expected}")]
    WrongEpoch {
        /// Epoch of the certificate.
        found: Epoch,
        /// Epoch of the set.
        expected: Epoch,
    },
    /// The bitmap does not fit the set.
    #[error("signer bitmap does not fit a set of {validators}")]
    BadBitmap {
        /// Size of the set.
        validators: usize,
    },
    /// Too little stake signed.
    #[error("signed by {stake} of stake, {quorum} needed")]
    NoQuorum {
        /// Stake that signed.
        stake: Stake,
        /// Stake needed.
        quorum: Stake,
    },
    /// The link does not go forward.
    #[error("link from view {from} to view {to} does not go forward")]
    BackwardLink {
        /// Source view.
        from: View,
        /// Target view.
        to: View,
    },
    /// The aggregate does not verify.
    #[error("aggregate signature does not verify")]
    BadSignature,
    /// Groups out of order, overlapping, empty or too many.
    #[error("malformed timeout groups: {0}")]
    BadGroups(&'static str),
    /// The carried certificate is not the highest that was reported.
    #[error("carries a certificate of view {carried}, its signers reported view {reported}")]
    WrongHighQc {
        /// View of the carried certificate.
        carried: View,
        /// Highest view reported.
        reported: View,
    },
}

impl Qc {
    /// View the certificate is of.
    pub fn view(&self) -> View {
        self.vote.target_view
    }

    /// Checks epoch, shape, stake and aggregate.
    pub fn verify(&self, set: &ValidatorSet, domain: &Domain) -> Result<(), CertificateError> {
        check_aggregate(&self.claim(set, domain)?)
    }

    /// Checks all but the aggregate, which is left to be verified with others.
    pub fn claim<'a>(&self, set: &'a ValidatorSet, domain: &Domain) -> Result<Claim<'a>, CertificateError> {
        let PrepareVote { source_view, target_view, .. } = self.vote;
        if source_view >= target_view {
            return Err(CertificateError::BackwardLink { from: source_view, to: target_view });
        }
        check_signers(set, self.epoch, &self.signers)?;
        Ok(claim(set, domain, &self.signers, &self.vote, self.signature))
    }
}

impl CommitQc {
    /// Checks epoch, shape, stake and aggregate.
    pub fn verify(&self, set: &ValidatorSet, domain: &Domain) -> Result<(), CertificateError> {
        check_aggregate(&self.claim(set, domain)?)
    }

    /// Checks all but the aggregate, which is left to be verified with others.
    pub fn claim<'a>(&self, set: &'a ValidatorSet, domain: &Domain) -> Result<Claim<'a>, CertificateError> {
        check_signers(set, self.epoch, &self.signers)?;
        Ok(claim(set, domain, &self.signers, &self.vote, self.signature))
    }
}

impl TimeoutGroup {
    /// The statement every signer of this group signed.
    pub fn statement(&self, view: View) -> TimeoutVote {
        let Self { high_qc_view, last_prepared_view, reason, .. } = *self;
        TimeoutVote { view, high_qc_view, last_prepared_view, reason }
    }
}

impl Tc {
    /// View of the highest certificate its signers reported; 0 for the epoch's root.
    pub fn high_qc_view(&self) -> View {
        self.high_qc.as_ref().map_or(View::ZERO, Qc::view)
    }

    /// Everyone who signed.
    pub fn signers(&self, set: &ValidatorSet) -> SignerSet {
        SignerSet::of(set.len(), self.groups.iter().flat_map(|group| group.signers.iter()))
    }

    /// Checks epoch, shape, stake, the carried certificate and the aggregate.
    pub fn verify(&self, set: &ValidatorSet, domain: &Domain) -> Result<(), CertificateError> {
        self.check_shape(set)?;
        let reported = self.groups.iter().map(|g| g.high_qc_view).max().unwrap_or(View::ZERO);
        let carried = self.high_qc_view();
        if carried != reported {
            return Err(CertificateError::WrongHighQc { carried, reported });
        }
        if let Some(qc) = &self.high_qc {
            qc.verify(set, domain)?;
        }
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|group| {
                let keys = group.signers.iter().filter_map(|i| set.key(i)).collect();
                (keys, group.statement(self.view).signing_bytes(domain))
            })
            .collect();
        if verify_grouped(&groups, &self.signature) { Ok(()) } else { Err(CertificateError::BadSignature) }
    }

    fn check_shape(&self, set: &ValidatorSet) -> Result<(), CertificateError> {
        let everyone = check_groups(set, self.view, &self.groups)?;
        check_signers(set, self.epoch, &everyone)
    }
}

/// Checks the groups of one view's timeouts and returns all their signers.
pub(crate) fn check_groups(
    set: &ValidatorSet,
    view: View,
    groups: &[TimeoutGroup],
) -> Result<SignerSet, CertificateError> {
    if groups.len() > TIMEOUT_GROUPS_MAX.min(set.len()) {
        return Err(CertificateError::BadGroups("more groups than validators"));
    }
    let statements: Vec<_> = groups.iter().map(|g| g.statement(view)).collect();
    if !statements.windows(2).all(|pair| pair[0] < pair[1]) {
        return Err(CertificateError::BadGroups("not in strictly ascending order"));
    }
    let mut everyone = SignerSet::empty(set.len());
    for group in groups {
        if !group.signers.fits(set.len()) {
            return Err(CertificateError::BadBitmap { validators: set.len() });
        }
        if group.signers.count() == 0 || group.signers.intersects(&everyone) {
            return Err(CertificateError::BadGroups("empty or overlapping"));
        }
        if group.high_qc_view > view || group.last_prepared_view > view {
            return Err(CertificateError::BadGroups("reports a view above the one given up"));
        }
        group.signers.iter().for_each(|i| everyone.insert(i));
    }
    Ok(everyone)
}

fn check_signers(set: &ValidatorSet, epoch: Epoch, signers: &SignerSet) -> Result<(), CertificateError> {
    if epoch != set.epoch() {
        return Err(CertificateError::WrongEpoch { found: epoch, expected: set.epoch() });
    }
    if !signers.fits(set.len()) {
        return Err(CertificateError::BadBitmap { validators: set.len() });
    }
    let stake = set.stake_of(signers);
    if !set.is_quorum(stake) {
        return Err(CertificateError::NoQuorum { stake, quorum: set.quorum() });
    }
    Ok(())
}

fn claim<'a>(
    set: &'a ValidatorSet,
    domain: &Domain,
    signers: &SignerSet,
    statement: &impl Statement,
    signature: Signature,
) -> Claim<'a> {
    let keys = signers.iter().filter_map(|i| set.key(i)).collect();
    Claim { keys, message: statement.signing_bytes(domain), signature }
}

fn check_aggregate(claim: &Claim<'_>) -> Result<(), CertificateError> {
    if claim.holds() { Ok(()) } else { Err(CertificateError::BadSignature) }
}

/// Reference to a certified block: what a header builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct CertifiedRef {
    /// View it was certified in; 0 for the epoch's root.
    pub view: View,
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub block_hash: B256,
}

impl From<&Qc> for CertifiedRef {
    fn from(qc: &Qc) -> Self {
        Self { view: qc.vote.target_view, height: qc.vote.height, block_hash: qc.vote.block_hash }
    }
}
