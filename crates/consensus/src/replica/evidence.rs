//! Evidence on its way into a block (C-8.4): what this node saw goes to the watch of its epoch, the current one or the
//! one before; what it proves, and what others prove, waits in the pool, is told to everybody once, proposed, and
//! checked before it is voted on.

use super::{Certificate, Now, Replica};
use crate::disk::{Disk, DiskError, Record};
use crate::evidence::{
    BadInclusion, Checks, Judge, Offender, Period, Pool, Rations, StoredEvidence, Trust, Watch, check_shape,
    names, offenders_of,
};
use crate::ready::{Event, Outbound};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use types::{
    B256, Block, Commit, ConsensusMessage, Domain, Epoch, Evidence, Header, Height, Proposal, PublicKey,
    RejectionCode, Timeout, ValidatorIndex, ValidatorSet, View, Witness,
};

/// Evidence of peers that waits to be checked in the same step.
const INBOX_MAX: usize = 16;
/// Pieces told to a peer when its link comes up.
const RETOLD_MAX: usize = 8;

/// What a replica knows of other validators' offences.
#[derive(Debug)]
pub(super) struct Offences {
    watch: Watch,
    former: Option<Former>,
    checks: Checks,
    pool: Pool,
    rations: Rations,
    inbox: VecDeque<(PublicKey, Evidence)>,
}

/// The watch of the epoch before: a second signature may come when its epoch is over.
#[derive(Debug)]
struct Former {
    watch: Watch,
    set: Arc<ValidatorSet>,
    domain: Domain,
    /// The view in which this node left that epoch.
    view: View,
}

impl Former {
    fn new(watch: Watch, set: Arc<ValidatorSet>, domain: Domain, view: View) -> Self {
        let domain = Domain { epoch: set.epoch().get(), ..domain };
        Self { watch, set, domain, view }
    }

    fn judge(&self) -> Judge<'_> {
        Judge { set: &self.set, domain: &self.domain, view: self.view }
    }

    fn observe(&mut self, checks: &mut Checks, witness: Witness, trust: Trust) -> Vec<Evidence> {
        let judge = Judge { set: &self.set, domain: &self.domain, view: self.view };
        self.watch.observe(judge, checks, witness, trust)
    }
}

impl Offences {
    pub(super) fn new(epoch: Epoch, period: Period) -> Self {
        let (former, checks, rations, inbox) = Default::default();
        Self { watch: Watch::new(epoch), former, checks, pool: Pool::new(period), rations, inbox }
    }

    fn watches(&mut self) -> impl Iterator<Item = &mut Watch> {
        std::iter::once(&mut self.watch).chain(self.former.as_mut().map(|former| &mut former.watch))
    }

    /// Stops watching who is proven guilty.
    fn convict(&mut self, guilty: impl IntoIterator<Item = Offender>) {
        for (epoch, index) in guilty {
            self.watches().filter(|watch| watch.epoch() == epoch).for_each(|watch| watch.convict(index));
        }
    }
}

impl Replica {
    // Getters.

    /// Evidence that waits for a block, oldest first.
    pub fn evidence_pending(&self) -> &[crate::evidence::Pending] {
        self.offences.pool.pending()
    }

    /// Who was named by evidence in which final block, within the epochs that evidence is valid for.
    pub fn evidence_included(&self) -> &BTreeMap<Offender, Height> {
        self.offences.pool.included()
    }

    /// Statements of validators remembered to compare new ones with.
    pub fn statements_watched(&self) -> usize {
        let former = self.offences.former.as_ref().map_or(0, |former| former.watch.len());
        self.offences.watch.len().saturating_add(former)
    }

    // Start.

    /// Takes back what was pending, and whom final blocks had named. What a block was about to hold when the node
    /// stopped, and that block is not final here, waits again.
    pub(super) fn restore_evidence(&mut self, stored: Vec<StoredEvidence>) {
        let final_height = self.tree.root().height;
        let (done, waiting): (Vec<_>, Vec<_>) = stored
            .into_iter()
            .partition(|stored| stored.included.is_some_and(|(height, _)| height <= final_height));
        let pool = &mut self.offences.pool;
        for StoredEvidence { evidence, included } in done {
            let height = included.map_or(final_height, |(height, _)| height);
            pool.include(offenders_of(&evidence), height);
        }
        for StoredEvidence { evidence, .. } in waiting {
            pool.add(evidence);
        }
        pool.expire(self.set.epoch());
        // What was only seen is on no disk: the epoch before is watched anew, around the view its boundary became final in.
        let former = self.previous.clone().zip(self.epoch_root.commit.as_ref());
        self.offences.former = former.map(|(set, commit)| {
            Former::new(Watch::new(set.epoch()), set, self.domain, commit.vote.view.next())
        });
        let pool = &self.offences.pool;
        let pending = pool.pending().iter().flat_map(|pending| pending.names());
        let guilty: Vec<_> = pending.chain(pool.included().keys().copied()).collect();
        self.offences.convict(guilty);
    }

    /// An epoch was entered. What was seen of the one before, which this node left in `view`, is kept while this one
    /// lasts.
    pub(super) fn watch_next_epoch(&mut self, view: View) {
        let sets: Vec<_> = self.sets_heard().cloned().collect();
        let offences = &mut self.offences;
        let watch = std::mem::replace(&mut offences.watch, Watch::new(self.set.epoch()));
        offences.former = self.previous.clone().map(|set| Former::new(watch, set, self.domain, view));
        offences.rations.retain(|key| sets.iter().any(|set| set.index_of(key).is_some()));
    }

    // Detection.

    /// Looks at what a validator of this epoch signed, or what a certificate proves.
    pub(super) fn observe(&mut self, witness: Witness, trust: Trust) {
        self.observe_in(self.set.epoch(), witness, trust);
    }

    /// The same in this epoch or the one before; what is of another one nobody can judge here.
    fn observe_in(&mut self, epoch: Epoch, witness: Witness, trust: Trust) {
        let view = self.safety.state().view;
        let Offences { watch, former, checks, .. } = &mut self.offences;
        checks.enter(self.set.epoch(), view);
        let found = if epoch == self.set.epoch() {
            let judge = Judge { set: &self.set, domain: &self.domain, view };
            watch.observe(judge, checks, witness, trust)
        } else if let Some(former) = former.as_mut().filter(|former| former.watch.epoch() == epoch) {
            former.observe(checks, witness, trust)
        } else {
            Vec::new()
        };
        found.into_iter().for_each(|evidence| self.accept_evidence(evidence));
    }

    /// Looks at a certificate that verified.
    pub(super) fn observe_certificate(&mut self, certificate: &Certificate) {
        let (epoch, witness) = certificate.witness();
        self.observe_in(epoch, witness, Trust::Verified);
    }

    /// Looks at the certificates of a header.
    pub(super) fn observe_header(&mut self, header: &Header, trust: Trust) {
        for (epoch, witness) in crate::audit::header_witnesses(header) {
            self.observe_in(epoch, witness, trust);
        }
    }

    /// Looks at what comes when its epoch is over. Nothing is learnt from it but whom it convicts: the certificates in it
    /// are checked only if they show anything, and few of them.
    pub(super) fn observe_late(&mut self, from: ValidatorIndex, message: &ConsensusMessage) {
        let Some(sender) = self.key_in(message.epoch(), from) else { return };
        let vote = match message {
            ConsensusMessage::Proposal(_, proposal) => Some(Witness::Proposal(proposal.signed.clone())),
            ConsensusMessage::Prepare(_, vote) => Some(Witness::Prepare(vote.clone())),
            ConsensusMessage::Commit(_, commit) => Some(Witness::Commit(commit.signed.clone())),
            ConsensusMessage::Timeout(_, timeout) => Some(Witness::Timeout(timeout.signed.clone())),
            _ => None,
        };
        // The link says whose vote it is; its signature is looked at when it contradicts another one.
        if let Some(vote) = vote
            && vote.statements().iter().all(|(_, by)| *by == from)
        {
            self.observe_in(message.epoch(), vote, Trust::Claimed);
        }
        for certificate in carried(message) {
            self.observe_late_certificate(&sender, &certificate);
        }
    }

    /// Looks at a certificate of the epoch before that a validator sent.
    pub(super) fn observe_late_certificate(&mut self, sender: &PublicKey, certificate: &Certificate) {
        let (epoch, witness) = certificate.witness();
        let view = self.safety.state().view;
        let Offences { former, checks, .. } = &mut self.offences;
        let Some(former) = former.as_ref().filter(|former| former.watch.epoch() == epoch) else { return };
        checks.enter(self.set.epoch(), view);
        let looks = checks.hears(sender) && former.watch.is_news(former.judge(), &witness);
        if !looks || !checks.late_certificate_of(*sender) {
            return;
        }
        if certificate.verify(&former.set, &former.domain) {
            self.observe_in(epoch, witness, Trust::Verified);
        } else {
            self.blame_key(sender, "sent a certificate of the epoch before that does not verify");
        }
    }

    /// The key that an index means in a message's epoch: this one, the next or the one before.
    fn key_in(&self, epoch: Epoch, index: ValidatorIndex) -> Option<PublicKey> {
        let set = self.sets_heard().find(|set| set.epoch() == epoch)?;
        set.get(index).map(|validator| validator.public_key)
    }

    /// Whoever has left cannot be blamed any more, and is not heard for long.
    fn blame_key(&mut self, key: &PublicKey, what: impl Into<String>) {
        if let Some(index) = self.set.index_of(key) {
            self.misbehaved(index, what);
        }
    }

    /// Two verified certificates that contradict each other prove it by themselves, however old they are.
    pub(super) fn accuse(&mut self, epoch: Epoch, first: Witness, second: Witness) {
        if let Ok(evidence) = Evidence::new(epoch, first, second) {
            self.accept_evidence(evidence);
        }
    }

    /// Verified evidence, found here or by others: it waits for a block, on disk, and everybody is told once.
    fn accept_evidence(&mut self, evidence: Evidence) {
        if !self.offences.pool.add(evidence.clone()) {
            return;
        }
        self.offences.convict(offenders_of(&evidence));
        self.verified.note(&evidence);
        let boxed = Box::new(evidence);
        let stored = StoredEvidence { evidence: (*boxed).clone(), included: None };
        self.ready.record(Record::Evidence(Box::new(stored)));
        self.broadcast(ConsensusMessage::Evidence(self.set.epoch(), boxed.clone()));
        self.event(Event::Evidence(boxed));
    }

    // Gossip.

    /// Evidence from a peer, which may be an epoch ahead or behind: what names nobody new costs no signature check.
    pub(super) fn on_evidence(&mut self, now: Now, sent_in: Epoch, from: ValidatorIndex, evidence: Evidence) {
        let Some(sender) = self.key_in(sent_in, from) else { return };
        let Offences { pool, rations, inbox, .. } = &mut self.offences;
        if !rations.take(sender, now.mono_ms) || inbox.len() >= INBOX_MAX {
            return;
        }
        let accusation = match evidence.accusation() {
            Ok(accusation) => accusation,
            Err(error) => {
                return self.blame_key(&sender, format!("sent evidence that proves nothing: {error}"));
            }
        };
        let epoch = evidence.epoch();
        if pool.period().holds(epoch, self.set.epoch())
            && pool.is_news(accusation.offenders.into_iter().map(|index| (epoch, index)))
        {
            inbox.push_back((sender, evidence));
        }
    }

    /// Checks what peers sent, with the set of its epoch.
    pub(super) fn drive_evidence(&mut self, disk: &impl Disk) -> Result<(), DiskError> {
        while let Some((sender, evidence)) = self.offences.inbox.pop_front() {
            let Some(set) = self.set_of(evidence.epoch(), disk)? else { continue };
            match evidence.verify(&set, &self.domain) {
                Ok(_) => self.accept_evidence(evidence),
                Err(error) => {
                    self.blame_key(&sender, format!("sent evidence that proves nothing: {error}"));
                }
            }
        }
        Ok(())
    }

    /// A link came up: the peer may have missed what was told.
    pub(super) fn retell_evidence(&mut self, peer: ValidatorIndex) {
        let epoch = self.set.epoch();
        for pending in self.offences.pool.pending().iter().take(RETOLD_MAX) {
            let message = ConsensusMessage::Evidence(epoch, Box::new(pending.evidence.clone()));
            self.ready.outbound(Outbound::Send(peer, message));
        }
    }

    /// An epoch was entered: what was told may have been lost, and there are fewer epochs left for it.
    pub(super) fn announce_evidence_again(&mut self) {
        self.offences.pool.expire(self.set.epoch());
        let epoch = self.set.epoch();
        let pending = self.offences.pool.pending().iter().take(RETOLD_MAX);
        let messages: Vec<_> = pending.map(|pending| Box::new(pending.evidence.clone())).collect();
        messages.into_iter().for_each(|evidence| self.broadcast(ConsensusMessage::Evidence(epoch, evidence)));
    }

    // Inclusion.

    /// The evidence for an own block on `parent`.
    pub(super) fn evidence_for(&self, parent: &B256) -> Vec<Vec<u8>> {
        if self.offences.pool.pending().is_empty() {
            return Vec::new();
        }
        self.offences.pool.select(self.set.epoch(), &self.named_above_root(parent))
    }

    /// Whom the blocks name from just above the final one up to `tip`.
    fn named_above_root(&self, tip: &B256) -> BTreeSet<Offender> {
        let path = self.tree.path(tip).unwrap_or_default();
        path.into_iter().flat_map(|node| names(&node.block.system_inputs.evidence)).collect()
    }

    /// The part of a block's check that needs nothing but the block.
    pub(super) fn check_evidence_shape(&self, block: &Block) -> Result<(), String> {
        check_shape(&block.system_inputs.evidence, block.header.epoch, self.offences.pool.period())
            .map(drop)
            .map_err(|error| format!("evidence in the system inputs: {error}"))
    }

    /// Checks the evidence of a block whose parent is executed here: each piece verifies and names somebody whom the
    /// branch has not named before (C-8.4).
    pub(super) fn check_evidence(
        &mut self,
        block: &Block,
        block_hash: &B256,
        disk: &impl Disk,
    ) -> Result<Result<(), (RejectionCode, String)>, DiskError> {
        let verdict = self.judge_evidence(block, block_hash, disk)?;
        let refusal = |error: BadInclusion| (RejectionCode::BadSystemInputs, error.to_string());
        Ok(verdict.map_err(refusal))
    }

    fn judge_evidence(
        &mut self,
        block: &Block,
        block_hash: &B256,
        disk: &impl Disk,
    ) -> Result<Result<(), BadInclusion>, DiskError> {
        let header = &block.header;
        let pieces =
            match check_shape(&block.system_inputs.evidence, header.epoch, self.offences.pool.period()) {
                Ok(pieces) if pieces.is_empty() => return Ok(Ok(())),
                Ok(pieces) => pieces,
                Err(error) => return Ok(Err(error)),
            };
        let mut named = self.named_above_root(&header.parent_hash);
        named.extend(self.offences.pool.included().keys().copied());
        for (position, evidence) in pieces.into_iter().enumerate() {
            let epoch = evidence.epoch();
            let accused = offenders_of(&evidence);
            if accused.iter().all(|name| named.contains(name)) {
                return Ok(Err(BadInclusion::Stale { position }));
            }
            named.extend(accused);
            let Some(set) = self.set_of(epoch, disk)? else {
                // Quorum stake that knew the set has checked what is proven final.
                if self.is_proven(block_hash) {
                    continue;
                }
                return Ok(Err(BadInclusion::UnknownSet { position, epoch }));
            };
            let domain = self.domain;
            if !self.verified.check(&evidence, |evidence| evidence.verify(&set, &domain).is_ok())
                && let Err(error) = evidence.verify(&set, &domain)
            {
                return Ok(Err(BadInclusion::Invalid { position, error }));
            }
        }
        Ok(Ok(()))
    }

    fn is_proven(&self, block_hash: &B256) -> bool {
        self.proven_path().is_some_and(|path| path.iter().any(|(hash, _)| hash == block_hash))
    }

    /// A block is being marked final: whom it names is named for good. Called before its mark is recorded, so that the
    /// mark never is on disk without this.
    pub(super) fn evidence_is_final(&mut self, block: &Block, block_hash: B256) {
        let height = block.header.height;
        for evidence in block.system_inputs.evidence.iter().filter_map(|item| Evidence::decode(item).ok()) {
            let offenders = offenders_of(&evidence);
            self.offences.pool.include(offenders.iter().copied(), height);
            self.offences.convict(offenders);
            let included = Some((height, block_hash));
            let stored = StoredEvidence { evidence: evidence.clone(), included };
            self.ready.record(Record::Evidence(Box::new(stored)));
            self.event(Event::EvidenceFinal { height, evidence: Box::new(evidence) });
        }
        self.offences.pool.expire(block.header.epoch);
    }

    /// The set of an epoch that evidence may be of.
    fn set_of(&self, epoch: Epoch, disk: &impl Disk) -> Result<Option<Arc<ValidatorSet>>, DiskError> {
        if epoch > self.set.epoch() { Ok(None) } else { self.validators_of(epoch, disk) }
    }
}

/// The certificates in a message.
fn carried(message: &ConsensusMessage) -> Vec<Certificate> {
    let prepare = |qc: &types::Qc| Certificate::Prepare(qc.clone());
    match message {
        ConsensusMessage::Proposal(_, proposal) => carried_by_proposal(proposal),
        ConsensusMessage::Commit(_, Commit { qc, .. }) => vec![prepare(qc)],
        ConsensusMessage::Timeout(_, Timeout { high_qc, .. }) => high_qc.iter().map(prepare).collect(),
        ConsensusMessage::Qc(qc) => vec![prepare(qc)],
        ConsensusMessage::Tc(tc) => Certificate::of_timeout(tc),
        ConsensusMessage::CommitQc(qc) => vec![Certificate::Commit(qc.clone())],
        ConsensusMessage::Prepare(..) | ConsensusMessage::Evidence(..) => Vec::new(),
    }
}

fn carried_by_proposal(proposal: &Proposal) -> Vec<Certificate> {
    let mut carried = Certificate::of_header(&proposal.block.header);
    if let Some(again) = &proposal.again {
        carried.push(Certificate::Prepare(again.source.clone()));
        carried.extend(again.timeout.iter().flat_map(Certificate::of_timeout));
    }
    carried
}
