//! Evidence: bytes that prove to anybody who knows an epoch's validator set that members of it signed what no honest
//! validator signs (specs/consensus.md, C-8; layout in specs/block.md, B-9).
//!
//! Evidence is two [`Witness`]es of one epoch. A witness proves who made a statement: one signed vote, or a
//! certificate, whose bitmap and aggregate prove it of every signer. Everybody in both is accused.
//!
//! The rules are in one place, [`Claim::offence`]; whoever looks for pairs (audit, detection) asks it.

use crate::certificate::check_groups;
use crate::limits::EVIDENCE_BYTES_MAX;
use crate::vote::{Signed, Statement};
use crate::{
    B256, CertificateError, CommitQc, CommitVote, DecodeError, Domain, Epoch, PrepareVote, ProposalVote, Qc,
    Signature, SignerSet, Tc, TimeoutGroup, TimeoutVote, ValidatorIndex, ValidatorSet, View,
};
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::bls::{verify_aggregate, verify_grouped};
use crypto::tagged_hash;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Which rule a pair of statements breaks (C-8.1). Discriminants are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Offence {
    /// E1: two prepares with one target and different links.
    DoublePrepare = 1,
    /// E1c: two commits in one view.
    DoubleCommit = 2,
    /// Ep: two proposals in one view.
    DoubleProposal = 3,
    /// E2: commit(v) and a link s -> t with s < v < t.
    Crossing = 4,
    /// E3: links s1 -> t1 and s2 -> t2 with s1 < s2 < t2 < t1.
    Surround = 5,
    /// E4: commit(v) and timeout(w) with w >= v that reports a certificate below v.
    Amnesia = 6,
}

impl Offence {
    /// The name the specs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::DoublePrepare => "E1",
            Self::DoubleCommit => "E1c",
            Self::DoubleProposal => "Ep",
            Self::Crossing => "E2",
            Self::Surround => "E3",
            Self::Amnesia => "E4",
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self:?}", self.name())
    }
}

/// A statement of any kind. The order is that of witnesses in evidence: by kind, then by the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// A proposal.
    Proposal(ProposalVote),
    /// A commit vote.
    Commit(CommitVote),
    /// A prepare vote.
    Prepare(PrepareVote),
    /// A timeout.
    Timeout(TimeoutVote),
}

impl Claim {
    /// The view it is about; a link's target.
    pub fn view(&self) -> View {
        match self {
            Self::Proposal(vote) => vote.view,
            Self::Commit(vote) => vote.view,
            Self::Prepare(link) => link.target_view,
            Self::Timeout(vote) => vote.view,
        }
    }

    /// Which rule one validator breaks that makes both statements in one epoch; `None` when it may (C-8.1).
    pub fn offence(&self, other: &Self) -> Option<Offence> {
        let (first, second) = if self <= other { (self, other) } else { (other, self) };
        match (first, second) {
            (Self::Proposal(a), Self::Proposal(b)) => {
                (a.view == b.view && a != b).then_some(Offence::DoubleProposal)
            }
            (Self::Commit(a), Self::Commit(b)) => {
                (a.view == b.view && a != b).then_some(Offence::DoubleCommit)
            }
            (Self::Prepare(a), Self::Prepare(b)) if a.target_view == b.target_view => {
                (a != b).then_some(Offence::DoublePrepare)
            }
            (Self::Prepare(a), Self::Prepare(b)) => {
                (surrounds(a, b) || surrounds(b, a)).then_some(Offence::Surround)
            }
            (Self::Commit(commit), Self::Prepare(link)) => (link.source_view < commit.view
                && commit.view < link.target_view)
                .then_some(Offence::Crossing),
            (Self::Commit(commit), Self::Timeout(timeout)) => (timeout.view >= commit.view
                && timeout.high_qc_view < commit.view)
                .then_some(Offence::Amnesia),
            _ => None,
        }
    }
}

fn surrounds(outer: &PrepareVote, inner: &PrepareVote) -> bool {
    outer.source_view < inner.source_view
        && inner.source_view < inner.target_view
        && inner.target_view < outer.target_view
}

/// A statement that several validators signed, with the sum of their signatures. No quorum is needed to prove it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Joint<S> {
    /// What they state.
    pub statement: S,
    /// Who they are.
    pub signers: SignerSet,
    /// Aggregate signature.
    pub signature: Signature,
}

/// The timeouts of one view, by groups of equal statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct JointTimeouts {
    /// The view given up.
    pub view: View,
    /// Signers by equal statement, in strictly ascending order of statement.
    pub groups: Vec<TimeoutGroup>,
    /// Aggregate over all groups.
    pub signature: Signature,
}

/// Proof that one or more validators made a statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Witness {
    /// A signed proposal.
    Proposal(Signed<ProposalVote>),
    /// A signed commit vote.
    Commit(Signed<CommitVote>),
    /// A signed prepare vote.
    Prepare(Signed<PrepareVote>),
    /// A signed timeout.
    Timeout(Signed<TimeoutVote>),
    /// What a commit certificate proves.
    Commits(Joint<CommitVote>),
    /// What a prepare certificate proves.
    Prepares(Joint<PrepareVote>),
    /// What a timeout certificate proves.
    Timeouts(JointTimeouts),
}

impl From<&Qc> for Witness {
    fn from(qc: &Qc) -> Self {
        Self::Prepares(Joint { statement: qc.vote, signers: qc.signers.clone(), signature: qc.signature })
    }
}

impl From<&CommitQc> for Witness {
    fn from(qc: &CommitQc) -> Self {
        Self::Commits(Joint { statement: qc.vote, signers: qc.signers.clone(), signature: qc.signature })
    }
}

impl From<&Tc> for Witness {
    fn from(tc: &Tc) -> Self {
        let Tc { view, groups, signature, .. } = tc;
        Self::Timeouts(JointTimeouts { view: *view, groups: groups.clone(), signature: *signature })
    }
}

/// Who made a claim.
enum Authors<'a> {
    One(ValidatorIndex),
    Many(&'a SignerSet),
}

impl Authors<'_> {
    fn all(&self) -> Vec<ValidatorIndex> {
        match self {
            Self::One(index) => vec![*index],
            Self::Many(signers) => signers.iter().collect(),
        }
    }

    fn contains(&self, index: ValidatorIndex) -> bool {
        match self {
            Self::One(only) => *only == index,
            Self::Many(signers) => signers.contains(index),
        }
    }
}

impl Witness {
    /// The statements it proves, each with who made it: one, or one per group of timeouts.
    fn claims(&self) -> Vec<(Claim, Authors<'_>)> {
        match self {
            Self::Proposal(s) => vec![(Claim::Proposal(s.statement), Authors::One(s.signer))],
            Self::Commit(s) => vec![(Claim::Commit(s.statement), Authors::One(s.signer))],
            Self::Prepare(s) => vec![(Claim::Prepare(s.statement), Authors::One(s.signer))],
            Self::Timeout(s) => vec![(Claim::Timeout(s.statement), Authors::One(s.signer))],
            Self::Commits(joint) => vec![(Claim::Commit(joint.statement), Authors::Many(&joint.signers))],
            Self::Prepares(joint) => vec![(Claim::Prepare(joint.statement), Authors::Many(&joint.signers))],
            Self::Timeouts(joint) => {
                let claim = |group: &TimeoutGroup| Claim::Timeout(group.statement(joint.view));
                joint.groups.iter().map(|group| (claim(group), Authors::Many(&group.signers))).collect()
            }
        }
    }

    /// Every statement it proves, with who made it. Whether it does prove them is [`Witness::verify`]'s to say.
    pub fn statements(&self) -> Vec<(Claim, ValidatorIndex)> {
        let each =
            |(claim, authors): (Claim, Authors<'_>)| authors.all().into_iter().map(move |by| (claim, by));
        self.claims().into_iter().flat_map(each).collect()
    }

    /// Checks shape and signatures. The domain is the evidence's epoch's.
    pub fn verify(&self, set: &ValidatorSet, domain: &Domain) -> Result<(), EvidenceError> {
        match self {
            Self::Proposal(signed) => check_signed(signed, set, domain),
            Self::Commit(signed) => check_signed(signed, set, domain),
            Self::Prepare(signed) => check_signed(signed, set, domain),
            Self::Timeout(signed) => check_signed(signed, set, domain),
            Self::Commits(joint) => check_joint(joint, set, domain),
            Self::Prepares(joint) => check_joint(joint, set, domain),
            Self::Timeouts(joint) => check_timeouts(joint, set, domain),
        }
    }
}

fn check_signed<S: Statement>(
    signed: &Signed<S>,
    set: &ValidatorSet,
    domain: &Domain,
) -> Result<(), EvidenceError> {
    if set.get(signed.signer).is_none() {
        return Err(EvidenceError::UnknownValidator { index: signed.signer, validators: set.len() });
    }
    if signed.verify(set, domain) { Ok(()) } else { Err(EvidenceError::BadSignature) }
}

fn check_joint<S: Statement>(
    joint: &Joint<S>,
    set: &ValidatorSet,
    domain: &Domain,
) -> Result<(), EvidenceError> {
    if !joint.signers.fits(set.len()) {
        return Err(EvidenceError::Certificate(CertificateError::BadBitmap { validators: set.len() }));
    }
    let keys: Vec<_> = joint.signers.iter().filter_map(|index| set.key(index)).collect();
    if verify_aggregate(&keys, &joint.statement.signing_bytes(domain), &joint.signature) {
        Ok(())
    } else {
        Err(EvidenceError::BadSignature)
    }
}

fn check_timeouts(joint: &JointTimeouts, set: &ValidatorSet, domain: &Domain) -> Result<(), EvidenceError> {
    check_groups(set, joint.view, &joint.groups)?;
    let message = |group: &TimeoutGroup| {
        let keys = group.signers.iter().filter_map(|index| set.key(index)).collect();
        (keys, group.statement(joint.view).signing_bytes(domain))
    };
    let groups: Vec<_> = joint.groups.iter().map(message).collect();
    if verify_grouped(&groups, &joint.signature) { Ok(()) } else { Err(EvidenceError::BadSignature) }
}

/// Version of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
enum Version {
    V1 = 1,
}

/// Two witnesses that accuse at least one validator. Says nothing about their signatures: see [`Evidence::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Evidence {
    version: Version,
    epoch: Epoch,
    first: Witness,
    second: Witness,
}

/// What evidence says, before anybody checked its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accusation {
    /// Which rule was broken.
    pub offence: Offence,
    /// The views of both statements, in the order of the witnesses.
    pub views: (View, View),
    /// By whom, ascending.
    pub offenders: Vec<ValidatorIndex>,
}

/// Why evidence proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Longer than any may be.
    #[error("evidence of {bytes} bytes, at most {EVIDENCE_BYTES_MAX} are allowed")]
    TooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// No canonical encoding.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The set given is of another epoch.
    #[error("evidence of epoch {found}, the validator set is epoch {expected}'s")]
    WrongEpoch {
        /// Epoch of the evidence.
        found: Epoch,
        /// Epoch of the set.
        expected: Epoch,
    },
    /// The witnesses are in the wrong order: every piece of evidence has one encoding.
    #[error("the witnesses are not in canonical order")]
    NotCanonical,
    /// An honest validator may make both statements, or nobody made both.
    #[error("nobody is shown to have made two statements that contradict each other")]
    NoOffence,
    /// A signer outside the set.
    #[error("validator {index} is not in a set of {validators}")]
    UnknownValidator {
        /// Who signed.
        index: ValidatorIndex,
        /// Size of the set.
        validators: usize,
    },
    /// A bitmap or timeout groups that no certificate has.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A signature does not verify.
    #[error("a signature does not verify")]
    BadSignature,
}

impl Evidence {
    /// Evidence of two witnesses of one epoch, in any order. Signatures are not checked.
    pub fn new(epoch: Epoch, a: Witness, b: Witness) -> Result<Self, EvidenceError> {
        let (first, second) = if order(&a)? <= order(&b)? { (a, b) } else { (b, a) };
        let evidence = Self { version: Version::V1, epoch, first, second };
        evidence.accusation()?;
        Ok(evidence)
    }

    /// Parses canonical bytes. Signatures are not checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > EVIDENCE_BYTES_MAX {
            return Err(EvidenceError::TooLong { bytes: bytes.len() });
        }
        let evidence: Self = crate::decode(bytes)?;
        evidence.accusation()?;
        Ok(evidence)
    }

    /// The epoch in which both statements were made.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Both witnesses.
    pub fn witnesses(&self) -> (&Witness, &Witness) {
        (&self.first, &self.second)
    }

    /// Who is accused of what. An error when it is too long, or the witnesses are out of order or accuse nobody.
    pub fn accusation(&self) -> Result<Accusation, EvidenceError> {
        let bytes = borsh::object_length(self).unwrap_or(usize::MAX);
        if bytes > EVIDENCE_BYTES_MAX {
            return Err(EvidenceError::TooLong { bytes });
        }
        if order(&self.first)? >= order(&self.second)? {
            return Err(EvidenceError::NotCanonical);
        }
        let (mut found, mut offenders) = (None, BTreeSet::new());
        for (claim, authors) in self.first.claims() {
            for (other, others) in self.second.claims() {
                let Some(offence) = claim.offence(&other) else { continue };
                let both: Vec<_> =
                    authors.all().into_iter().filter(|index| others.contains(*index)).collect();
                if !both.is_empty() {
                    found = Some((offence, (claim.view(), other.view())));
                    offenders.extend(both);
                }
            }
        }
        let (offence, views) = found.ok_or(EvidenceError::NoOffence)?;
        Ok(Accusation { offence, views, offenders: offenders.into_iter().collect() })
    }

    /// Who is accused, ascending; nobody when the evidence is malformed.
    pub fn offenders(&self) -> Vec<ValidatorIndex> {
        self.accusation().map(|accusation| accusation.offenders).unwrap_or_default()
    }

    /// Names one offender's offence: equal for every evidence of it, whatever its witnesses and their order.
    pub fn id(&self, offender: ValidatorIndex) -> Result<B256, EvidenceError> {
        let Accusation { offence, views: (first, second), .. } = self.accusation()?;
        Ok(tagged_hash(
            "tandem v1 evidence",
            &[
                &self.epoch.get().to_le_bytes(),
                &offender.get().to_le_bytes(),
                &[offence as u8],
                &first.get().to_le_bytes(),
                &second.get().to_le_bytes(),
            ],
        ))
    }

    /// Checks everything and names the guilty. `domain` is the chain's; the epoch in it does not matter.
    pub fn verify(&self, set: &ValidatorSet, domain: &Domain) -> Result<Vec<ValidatorIndex>, EvidenceError> {
        if self.epoch != set.epoch() {
            return Err(EvidenceError::WrongEpoch { found: self.epoch, expected: set.epoch() });
        }
        let accusation = self.accusation()?;
        let domain = Domain { epoch: self.epoch.get(), ..*domain };
        self.first.verify(set, &domain)?;
        self.second.verify(set, &domain)?;
        Ok(accusation.offenders)
    }
}

/// What witnesses are ordered by: the first statement.
fn order(witness: &Witness) -> Result<Claim, EvidenceError> {
    witness.claims().first().map(|(claim, _)| *claim).ok_or(EvidenceError::NoOffence)
}
