//! Evidence on its way into a block (C-8.4): what this node saw goes to the watch; what it proves, and what others
//! prove, waits in the pool, is told to everybody once, proposed, and checked before it is voted on.

use super::{Certificate, Now, Replica};
use crate::disk::{Disk, DiskError, Record};
use crate::evidence::{
    BadInclusion, Judge, Offender, Pool, Rations, StoredEvidence, Trust, Watch, check_shape, names,
};
use crate::ready::{Event, Outbound};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use types::{
    B256, Block, ConsensusMessage, Epoch, Evidence, Header, Height, RejectionCode, ValidatorIndex,
    ValidatorSet, Witness,
};

/// Evidence of peers that waits to be checked in the same step.
const INBOX_MAX: usize = 16;
/// Pieces told to a peer when its link comes up.
const RETOLD_MAX: usize = 8;

/// What a replica knows of other validators' offences.
#[derive(Debug)]
pub(super) struct Offences {
    watch: Watch,
    pool: Pool,
    rations: Rations,
    inbox: VecDeque<(ValidatorIndex, Evidence)>,
}

impl Offences {
    pub(super) fn new(epoch: Epoch) -> Self {
        let (pool, rations, inbox) = Default::default();
        Self { watch: Watch::new(epoch), pool, rations, inbox }
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
        self.offences.watch.len()
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
            pool.include(evidence.offenders().into_iter().map(|index| (evidence.epoch(), index)), height);
        }
        for StoredEvidence { evidence, .. } in waiting {
            pool.add(evidence);
        }
        pool.expire(self.set.epoch());
        self.watch_again();
    }

    /// A watch over the current epoch that knows who is guilty already.
    fn watch_again(&mut self) {
        let epoch = self.set.epoch();
        let Offences { watch, pool, .. } = &mut self.offences;
        *watch = Watch::new(epoch);
        let pending = pool.pending().iter().flat_map(|pending| pending.names());
        let guilty = pending.chain(pool.included().keys().copied()).filter(|(of, _)| *of == epoch);
        guilty.for_each(|(_, index)| watch.convict(index));
    }

    // Detection.

    /// Looks at what a validator of this epoch signed, or what a certificate proves.
    pub(super) fn observe(&mut self, witness: Witness, trust: Trust) {
        if self.offences.watch.epoch() != self.set.epoch() {
            self.watch_again();
        }
        let judge = Judge { set: &self.set, domain: &self.domain, view: self.safety.state().view };
        let found = self.offences.watch.observe(judge, witness, trust);
        found.into_iter().for_each(|evidence| self.accept_evidence(evidence));
    }

    /// Looks at a certificate that verified.
    pub(super) fn observe_certificate(&mut self, certificate: &Certificate) {
        let witness = match certificate {
            Certificate::Prepare(qc) if qc.epoch == self.set.epoch() => qc.into(),
            Certificate::Timeout(tc) if tc.epoch == self.set.epoch() => tc.into(),
            Certificate::Commit(qc) if qc.epoch == self.set.epoch() => qc.into(),
            _ => return,
        };
        self.observe(witness, Trust::Verified);
    }

    /// Looks at the certificates of a header, all of which verified.
    pub(super) fn observe_header(&mut self, header: &Header) {
        for (epoch, witness) in crate::audit::header_witnesses(header) {
            if epoch == self.set.epoch() {
                self.observe(witness, Trust::Verified);
            }
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
        let Offences { watch, pool, .. } = &mut self.offences;
        if !pool.add(evidence.clone()) {
            return;
        }
        if evidence.epoch() == watch.epoch() {
            evidence.offenders().into_iter().for_each(|index| watch.convict(index));
        }
        self.verified.note(&evidence);
        let boxed = Box::new(evidence);
        let stored = StoredEvidence { evidence: (*boxed).clone(), included: None };
        self.ready.record(Record::Evidence(Box::new(stored)));
        self.broadcast(ConsensusMessage::Evidence(self.set.epoch(), boxed.clone()));
        self.event(Event::Evidence(boxed));
    }

    // Gossip.

    /// Evidence from a peer: what names nobody new costs no signature check.
    pub(super) fn on_evidence(&mut self, now: Now, from: ValidatorIndex, evidence: Evidence) {
        let Offences { pool, rations, inbox, .. } = &mut self.offences;
        if !rations.take(from, now.mono_ms) || inbox.len() >= INBOX_MAX {
            return;
        }
        let accusation = match evidence.accusation() {
            Ok(accusation) => accusation,
            Err(error) => {
                return self.misbehaved(from, format!("sent evidence that proves nothing: {error}"));
            }
        };
        let epoch = evidence.epoch();
        let in_time = epoch >= crate::evidence::oldest_epoch(self.set.epoch()) && epoch <= self.set.epoch();
        if in_time && pool.is_news(accusation.offenders.into_iter().map(|index| (epoch, index))) {
            inbox.push_back((from, evidence));
        }
    }

    /// Checks what peers sent, with the set of its epoch.
    pub(super) fn drive_evidence(&mut self, disk: &impl Disk) -> Result<(), DiskError> {
        while let Some((from, evidence)) = self.offences.inbox.pop_front() {
            let Some(set) = self.set_of(evidence.epoch(), disk)? else { continue };
            match evidence.verify(&set, &self.domain) {
                Ok(_) => self.accept_evidence(evidence),
                Err(error) => self.misbehaved(from, format!("sent evidence that proves nothing: {error}")),
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
        check_shape(&block.system_inputs.evidence, block.header.epoch)
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
        let pieces = match check_shape(&block.system_inputs.evidence, header.epoch) {
            Ok(pieces) if pieces.is_empty() => return Ok(Ok(())),
            Ok(pieces) => pieces,
            Err(error) => return Ok(Err(error)),
        };
        let mut named = self.named_above_root(&header.parent_hash);
        named.extend(self.offences.pool.included().keys().copied());
        for (position, evidence) in pieces.into_iter().enumerate() {
            let epoch = evidence.epoch();
            let accused: Vec<_> = evidence.offenders().into_iter().map(|index| (epoch, index)).collect();
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
            let epoch = evidence.epoch();
            let offenders: Vec<_> = evidence.offenders().into_iter().map(|index| (epoch, index)).collect();
            let Offences { watch, pool, .. } = &mut self.offences;
            pool.include(offenders.iter().copied(), height);
            let watched = offenders.iter().filter(|(epoch, _)| *epoch == watch.epoch());
            let guilty: Vec<_> = watched.map(|(_, index)| *index).collect();
            guilty.into_iter().for_each(|index| watch.convict(index));
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
