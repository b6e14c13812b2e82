//! Detection of slashable pairs while they happen, and the evidence that waits for a block (C-8.4).
//!
//! [`Watch`] remembers, for every validator of an epoch, what it signed lately. Votes come to it unverified, as they
//! come to the tallies: a signature is checked only when its statement contradicts another one. What certificates
//! prove is verified already. The watch of an epoch is kept for one epoch more, because a second signature may be
//! released when the epoch is over. [`Checks`] bounds what suspicion may cost. [`Pool`] holds what was proven until a
//! final block holds it.
//!
//! # Invariants
//! - Nothing becomes evidence that was not verified.
//! - A statement that was not verified never takes the place of another one, so nobody can push out what convicts it.
//! - A validator's statements, of whatever epoch, cost at most [`CHECKS_PER_VIEW`] signature checks per view, the
//!   certificates of the epoch before that it sends at most [`LATE_CERTIFICATES_PER_VIEW`] more, and it is worth one
//!   piece of evidence per epoch.
//!
//! # What it misses
//! A pair of which one statement is more than [`VIEWS_KEPT`] views old and not the author's last of its kind; votes of
//! views more than the window ahead; a pair whose second half comes when the epoch after its own is over too; a pair
//! whose halves came before and after a restart; a pair whose halves no single honest validator received; what a
//! validator signs after spending its checks on bad signatures, until the next view. `tandem db audit` finds what is in
//! certificates, however old.

use crate::audit::Statements;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::limits::{EVIDENCE_BLOCK_BYTES_MAX, EVIDENCE_PER_BLOCK_MAX};
use types::{
    B256, Claim, Domain, Epoch, Evidence, EvidenceError, Height, Offence, PublicKey, ValidatorIndex,
    ValidatorSet, View, Witness, encode,
};

/// Views behind the current one whose statements are remembered. With [`VIEWS_AHEAD`] it bounds what is remembered of
/// a validator: 49 statements of each of four kinds, and the last one before of each.
pub const VIEWS_KEPT: u64 = 32;

/// Views ahead of the current one whose statements are remembered: as many as votes are counted for.
pub const VIEWS_AHEAD: u64 = 16;

/// Signatures of one validator that are checked on suspicion while this node is in one view, of all epochs together.
pub const CHECKS_PER_VIEW: u32 = 4;

/// Certificates of the epoch before that one validator gets checked while this node is in one view.
pub const LATE_CERTIFICATES_PER_VIEW: u32 = 4;

/// Pieces of evidence that wait for a block. Each names somebody no other one names, so the guilty fill it at most
/// once per epoch; it is far above what a block takes.
pub const PENDING_MAX: usize = 1024;

/// Their bytes.
pub const PENDING_BYTES_MAX: usize = 4 << 20;

/// A validator and the epoch whose set gives the index its meaning.
pub type Offender = (Epoch, ValidatorIndex);

/// What validators signed lately in one epoch.
#[derive(Debug)]
pub struct Watch {
    epoch: Epoch,
    seen: BTreeMap<ValidatorIndex, Seen>,
    /// Proven guilty: one piece of evidence per validator and epoch is enough.
    convicted: BTreeSet<ValidatorIndex>,
}

#[derive(Debug, Default)]
struct Seen {
    statements: Statements<Proof>,
}

/// The signature checks that validators were worth while this node is in one view. By key, because an index means
/// another validator in another epoch: who votes in two epochs gets no more than who votes in one.
#[derive(Debug, Default)]
pub struct Checks {
    /// Where this node is.
    at: (Epoch, View),
    statements: BTreeMap<PublicKey, u32>,
    certificates: BTreeMap<PublicKey, u32>,
}

impl Checks {
    /// Where this node is now: what was spent elsewhere is forgotten.
    pub fn enter(&mut self, epoch: Epoch, view: View) {
        if self.at != (epoch, view) {
            *self = Self { at: (epoch, view), ..Self::default() };
        }
    }

    /// Takes the check of a statement of `by`, if one is left.
    fn statement_of(&mut self, by: PublicKey) -> bool {
        take_one(&mut self.statements, by, CHECKS_PER_VIEW)
    }

    /// Whether a certificate of the epoch before that `by` sends may still be checked.
    pub fn hears(&self, by: &PublicKey) -> bool {
        self.certificates.get(by).is_none_or(|count| *count < LATE_CERTIFICATES_PER_VIEW)
    }

    /// Takes the check of a certificate of the epoch before that `by` sent, if one is left.
    pub fn late_certificate_of(&mut self, by: PublicKey) -> bool {
        take_one(&mut self.certificates, by, LATE_CERTIFICATES_PER_VIEW)
    }
}

fn take_one(spent: &mut BTreeMap<PublicKey, u32>, by: PublicKey, most: u32) -> bool {
    let count = spent.entry(by).or_default();
    let left = *count < most;
    *count += u32::from(left);
    left
}

#[derive(Clone, Debug)]
struct Proof {
    witness: Arc<Witness>,
    verified: bool,
}

/// How a witness came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its signatures were verified.
    Verified,
    /// Not verified, and no single liar can have made it up for others: a vote from its author, or a certificate in a
    /// block that a quorum has certified.
    Claimed,
}

/// What is needed to check a signature.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The epoch's validators.
    pub set: &'a ValidatorSet,
    /// The chain's signing domain in that epoch.
    pub domain: &'a Domain,
    /// The view of that epoch which this node is in, or was in when it left the epoch.
    pub view: View,
}

impl Judge<'_> {
    /// Whether what was said about a view is remembered.
    fn remembers(&self, view: View) -> bool {
        let (now, view) = (self.view.get(), view.get());
        view.saturating_add(VIEWS_KEPT) >= now && view <= now.saturating_add(VIEWS_AHEAD)
    }
}

impl Watch {
    /// A watch over an epoch.
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, seen: BTreeMap::new(), convicted: BTreeSet::new() }
    }

    /// The epoch watched.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Stops watching a validator of this epoch that is proven guilty.
    pub fn convict(&mut self, validator: ValidatorIndex) {
        self.seen.remove(&validator);
        self.convicted.insert(validator);
    }

    /// Statements remembered, of all validators.
    pub fn len(&self) -> usize {
        self.seen.values().map(|seen| seen.statements.len()).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a witness, if it verified, would convict somebody or be remembered of somebody.
    pub fn is_news(&self, judge: Judge<'_>, witness: &Witness) -> bool {
        witness.statements().into_iter().any(|(claim, by)| {
            let watched = judge.set.get(by).is_some() && !self.convicted.contains(&by);
            watched
                && self
                    .seen
                    .get(&by)
                    .map_or(judge.remembers(claim.view()), |seen| seen.is_news(judge, &claim))
        })
    }

    /// Takes what a witness proves, or would prove if it were verified, and returns the evidence that it completes.
    pub fn observe(
        &mut self,
        judge: Judge<'_>,
        checks: &mut Checks,
        witness: Witness,
        trust: Trust,
    ) -> Vec<Evidence> {
        let witness = Arc::new(witness);
        let (mut found, mut named): (Vec<Evidence>, BTreeSet<ValidatorIndex>) = Default::default();
        for (claim, by) in witness.statements() {
            let Some(author) = judge.set.get(by) else { continue };
            if self.convicted.contains(&by) || named.contains(&by) {
                continue;
            }
            let mut checks = || checks.statement_of(author.public_key);
            let proof = Proof { witness: Arc::clone(&witness), verified: trust == Trust::Verified };
            if let Some(evidence) = self.seen.entry(by).or_default().take(judge, &mut checks, claim, proof) {
                named.extend(evidence.offenders());
                found.push(evidence);
            }
        }
        found
    }
}

impl Seen {
    fn is_news(&self, judge: Judge<'_>, claim: &Claim) -> bool {
        self.statements.conflict(claim).is_some()
            || (judge.remembers(claim.view()) && self.statements.has_room_for(claim))
    }

    /// `checks` takes one of the checks that the author is worth, if there is one left.
    fn take(
        &mut self,
        judge: Judge<'_>,
        checks: &mut dyn FnMut() -> bool,
        claim: Claim,
        mut proof: Proof,
    ) -> Option<Evidence> {
        if let Some(known) = self.statements.get_mut(&claim) {
            if proof.verified && !known.verified {
                *known = proof;
            }
            return None;
        }
        // Each round ends the search or removes a statement that was never signed.
        while let Some((_, other)) = self.statements.conflict(&claim) {
            let mut known = self.statements.get_mut(&other)?.clone();
            if !known.check(judge, checks)? {
                self.statements.remove(&other);
                continue;
            }
            *self.statements.get_mut(&other)? = known.clone();
            if !proof.check(judge, checks)? {
                return None;
            }
            let (first, second) = ((*known.witness).clone(), (*proof.witness).clone());
            return Evidence::new(Epoch::new(judge.domain.epoch), first, second).ok();
        }
        self.keep(judge, claim, proof);
        None
    }

    fn keep(&mut self, judge: Judge<'_>, claim: Claim, proof: Proof) {
        if judge.remembers(claim.view()) {
            self.statements.insert(claim, proof);
            self.statements.prune(View::new(judge.view.get().saturating_sub(VIEWS_KEPT)));
        }
    }
}

impl Proof {
    /// Whether it is good; `None` when no check is left to find out.
    fn check(&mut self, judge: Judge<'_>, checks: &mut dyn FnMut() -> bool) -> Option<bool> {
        if !self.verified {
            if !checks() {
                return None;
            }
            self.verified = self.witness.verify(judge.set, judge.domain).is_ok();
        }
        Some(self.verified)
    }
}

/// Evidence that became pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The proof.
    pub evidence: Evidence,
    /// Its canonical bytes, as blocks hold them.
    pub bytes: Vec<u8>,
    /// Whom it names.
    pub offenders: Vec<ValidatorIndex>,
    /// Of what.
    pub offence: Offence,
}

impl Pending {
    fn new(evidence: Evidence) -> Result<Self, EvidenceError> {
        let accusation = evidence.accusation()?;
        let bytes = encode(&evidence);
        Ok(Self { evidence, bytes, offenders: accusation.offenders, offence: accusation.offence })
    }

    /// The offenders with their epoch.
    pub fn names(&self) -> impl Iterator<Item = Offender> + '_ {
        self.offenders.iter().map(|index| (self.evidence.epoch(), *index))
    }
}

/// Verified evidence that waits for a block, and whom the final chain has named already.
#[derive(Debug)]
pub struct Pool {
    period: Period,
    pending: Vec<Pending>,
    /// Everybody in `pending`.
    accused: BTreeSet<Offender>,
    bytes: usize,
    /// Named by evidence in a final block of this height.
    included: BTreeMap<Offender, Height>,
}

impl Pool {
    /// An empty pool of evidence that is valid for that long.
    pub fn new(period: Period) -> Self {
        let (pending, accused, bytes, included) = Default::default();
        Self { period, pending, accused, bytes, included }
    }

    /// For how long evidence is valid.
    pub fn period(&self) -> Period {
        self.period
    }

    /// What waits, oldest first.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// Who is named in which final block, within the epochs that evidence is valid for.
    pub fn included(&self) -> &BTreeMap<Offender, Height> {
        &self.included
    }

    /// Whether evidence against these names anybody new.
    pub fn is_news(&self, mut offenders: impl Iterator<Item = Offender>) -> bool {
        offenders.any(|name| !self.accused.contains(&name) && !self.included.contains_key(&name))
    }

    /// Adds verified evidence. False when it names nobody new or there is no room.
    pub fn add(&mut self, evidence: Evidence) -> bool {
        let Ok(pending) = Pending::new(evidence) else { return false };
        let bytes = self.bytes.saturating_add(pending.bytes.len());
        if !self.is_news(pending.names()) || self.pending.len() >= PENDING_MAX || bytes > PENDING_BYTES_MAX {
            return false;
        }
        self.accused.extend(pending.names());
        self.bytes = bytes;
        self.pending.push(pending);
        true
    }

    /// A final block named these: what names nobody else need not wait any more.
    pub fn include(&mut self, offenders: impl IntoIterator<Item = Offender>, height: Height) {
        for name in offenders {
            self.included.entry(name).or_insert(height);
        }
        self.retain(|pending, included| pending.names().any(|name| !included.contains_key(&name)));
    }

    /// Forgets what no block may hold any more.
    pub fn expire(&mut self, current: Epoch) {
        let oldest = self.period.oldest(current);
        self.included.retain(|(epoch, _), _| *epoch >= oldest);
        self.retain(|pending, _| pending.evidence.epoch() >= oldest);
    }

    fn retain(&mut self, keep: impl Fn(&Pending, &BTreeMap<Offender, Height>) -> bool) {
        let included = &self.included;
        self.pending.retain(|pending| keep(pending, included));
        self.accused = self.pending.iter().flat_map(Pending::names).collect();
        self.bytes = self.pending.iter().map(|pending| pending.bytes.len()).sum();
    }

    /// What a block of `epoch` takes on a branch that names `named` above the final block: oldest first, each naming
    /// somebody new there, within the limits of a block.
    pub fn select(&self, epoch: Epoch, named: &BTreeSet<Offender>) -> Vec<Vec<u8>> {
        let (mut named, mut chosen, mut bytes) = (named.clone(), Vec::new(), 0usize);
        for pending in &self.pending {
            let fits = bytes.saturating_add(pending.bytes.len()) <= EVIDENCE_BLOCK_BYTES_MAX;
            let news =
                pending.names().any(|name| !named.contains(&name) && !self.included.contains_key(&name));
            if chosen.len() < EVIDENCE_PER_BLOCK_MAX
                && fits
                && news
                && self.period.holds(pending.evidence.epoch(), epoch)
            {
                bytes += pending.bytes.len();
                named.extend(pending.names());
                chosen.push(pending.bytes.clone());
            }
        }
        chosen
    }
}

/// Epochs for which evidence is valid: as long as the stake it is about stays bound (`unbonding_epochs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub u64);

impl Period {
    /// The earliest epoch of which a block of `epoch` may hold evidence.
    pub fn oldest(self, epoch: Epoch) -> Epoch {
        Epoch::new(epoch.get().saturating_sub(self.0))
    }

    /// Whether a block of epoch `block` may hold evidence of epoch `of`.
    pub fn holds(self, of: Epoch, block: Epoch) -> bool {
        of >= self.oldest(block) && of <= block
    }
}

/// Why a block's evidence is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInclusion {
    /// Too many pieces.
    #[error("{count} pieces of evidence, at most {EVIDENCE_PER_BLOCK_MAX} are allowed")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Too many bytes.
    #[error("{bytes} bytes of evidence, at most {EVIDENCE_BLOCK_BYTES_MAX} are allowed")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// No evidence.
    #[error("evidence {position}: {error}")]
    Invalid {
        /// Which one.
        position: usize,
        /// What is wrong with it.
        error: EvidenceError,
    },
    /// Too old, or of an epoch to come.
    #[error("evidence {position} is of epoch {found}, a block of epoch {block} may hold {oldest} to {block}")]
    OutOfTime {
        /// Which one.
        position: usize,
        /// Its epoch.
        found: Epoch,
        /// The block's.
        block: Epoch,
        /// The oldest allowed.
        oldest: Epoch,
    },
    /// Everybody it names was named before on this branch.
    #[error("evidence {position} names nobody whom this branch has not named before")]
    Stale {
        /// Which one.
        position: usize,
    },
    /// The set of its epoch is not known here.
    #[error("evidence {position} is of epoch {epoch}, whose validator set is not known here")]
    UnknownSet {
        /// Which one.
        position: usize,
        /// Its epoch.
        epoch: Epoch,
    },
}

/// Checks all that needs neither a validator set nor the branch: counts, sizes, shapes, epochs.
pub fn check_shape(items: &[Vec<u8>], block: Epoch, period: Period) -> Result<Vec<Evidence>, BadInclusion> {
    if items.len() > EVIDENCE_PER_BLOCK_MAX {
        return Err(BadInclusion::TooMany { count: items.len() });
    }
    let bytes = items.iter().map(Vec::len).sum();
    if bytes > EVIDENCE_BLOCK_BYTES_MAX {
        return Err(BadInclusion::TooLong { bytes });
    }
    let decode = |(position, item): (usize, &Vec<u8>)| {
        let evidence = Evidence::decode(item).map_err(|error| BadInclusion::Invalid { position, error })?;
        let (found, oldest) = (evidence.epoch(), period.oldest(block));
        if period.holds(found, block) {
            Ok(evidence)
        } else {
            Err(BadInclusion::OutOfTime { position, found, block, oldest })
        }
    };
    items.iter().enumerate().map(decode).collect()
}

/// Whom the evidence of a block names. For blocks whose evidence was checked: what does not decode names nobody.
pub fn names(items: &[Vec<u8>]) -> Vec<Offender> {
    let evidence = items.iter().filter_map(|item| Evidence::decode(item).ok());
    evidence.flat_map(|evidence| offenders_of(&evidence)).collect()
}

/// Whom a piece of evidence names.
pub(crate) fn offenders_of(evidence: &Evidence) -> Vec<Offender> {
    evidence.offenders().into_iter().map(|index| (evidence.epoch(), index)).collect()
}

/// Pieces of evidence a peer may send: a burst, then one for every pause.
const GOSSIP_BURST: u32 = 8;
const GOSSIP_PAUSE_MS: u64 = 250;

/// How much evidence peers may send.
#[derive(Debug, Default)]
pub struct Rations {
    /// What was used, and when that was.
    used: BTreeMap<PublicKey, (u32, u64)>,
}

impl Rations {
    /// Takes one ration of a peer, if it has one left.
    pub fn take(&mut self, peer: PublicKey, now_ms: u64) -> bool {
        let (used, since_ms) = self.used.entry(peer).or_insert((0, now_ms));
        let earned = now_ms.saturating_sub(*since_ms) / GOSSIP_PAUSE_MS;
        *used = used.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
        *since_ms = since_ms.saturating_add(earned.saturating_mul(GOSSIP_PAUSE_MS));
        if *used >= GOSSIP_BURST {
            return false;
        }
        *used += 1;
        true
    }

    /// Forgets the peers that have no place any more.
    pub fn retain(&mut self, keep: impl Fn(&PublicKey) -> bool) {
        self.used.retain(|peer, _| keep(peer));
    }
}

/// Evidence as the disk keeps it.
#[derive(Clone, Debug, PartialEq, Eq, borsh::BorshSerialize, borsh::BorshDeserialize)]
pub struct StoredEvidence {
    /// The proof, verified before it was stored.
    pub evidence: Evidence,
    /// The block that holds it, when one is final or about to be marked so.
    pub included: Option<(Height, B256)>,
}
