//! A simulated consensus disk. Everything in it is durable; what a crash interrupts is lost from some record on.

use consensus::evidence::StoredEvidence;
use consensus::{Disk, DiskError, Durable, Record, Recovered, Restraint, SignState};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{B256, Block, CommitQc, CommittedBlock, Epoch, EpochInfo, Height};

/// Where in a `persist` call the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// Nothing of the batch is written.
    Before,
    /// The first records are written (one fsync of several came back).
    After(usize),
    /// Everything is written, nothing that waits for it happens.
    Complete,
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    sign_state: Option<SignState>,
    blocks: BTreeMap<B256, Arc<Block>>,
    order: Vec<B256>,
    commits: BTreeMap<Height, CommitQc>,
    finalized: BTreeMap<Height, B256>,
    evidence: Vec<StoredEvidence>,
    /// What restrains signing; an operator may change it while the node is down.
    pub restraint: Restraint,
    epochs: BTreeMap<Epoch, EpochInfo>,
    /// When set, a coming `persist` crashes there.
    pub crash: Option<CrashPoint>,
    /// Calls that still succeed before it.
    pub spared: u32,
    /// Number of `persist` calls that succeeded.
    pub syncs: u64,
}

impl SimDisk {
    /// The durable sign-state.
    pub fn sign_state(&self) -> Option<&SignState> {
        self.sign_state.as_ref()
    }

    /// Highest height marked final.
    pub fn finalized_height(&self) -> Height {
        self.finalized.last_key_value().map_or(Height::ZERO, |(height, _)| *height)
    }

    /// Loses the sign-state, as an operator does who restores an old backup.
    pub fn forget_votes(&mut self) {
        self.sign_state = None;
    }

    /// What a start finds.
    pub fn recover(&mut self) -> Recovered {
        self.crash = None;
        let finalized = self.finalized.last_key_value().map(|(height, hash)| (*height, *hash));
        let height = finalized.map_or(Height::ZERO, |(height, _)| height);
        Recovered {
            sign_state: self.sign_state.clone(),
            finalized,
            blocks: self
                .order
                .iter()
                .filter_map(|h| self.blocks.get(h))
                .filter(|b| b.header.height > height)
                .cloned()
                .collect(),
            commit: self.commits.last_key_value().map(|(_, qc)| qc.clone()),
            evidence: self.evidence.clone(),
            restraint: self.restraint.clone(),
        }
    }

    /// Writes the first `count` records, blocks before the sign-state that may vote for them.
    fn write_all(&mut self, records: &[Record], count: usize) {
        let (sign, others): (Vec<_>, Vec<_>) =
            records.iter().partition(|r| matches!(r, Record::SignState(_)));
        others.into_iter().chain(sign).take(count).for_each(|record| self.write(record));
    }

    fn crash_at(&mut self, point: CrashPoint, records: &[Record]) -> Result<Durable, DiskError> {
        let written = match point {
            CrashPoint::Before => 0,
            CrashPoint::After(count) => count,
            CrashPoint::Complete => records.len(),
        };
        self.write_all(records, written);
        Err(DiskError("simulated power loss".into()))
    }

    fn write(&mut self, record: &Record) {
        match record {
            Record::SignState(state) => self.sign_state = Some((**state).clone()),
            Record::Block(block) => {
                let hash = block.header.hash();
                if self.blocks.insert(hash, block.clone()).is_none() {
                    self.order.push(hash);
                }
            }
            Record::Commit(qc) => {
                self.commits.insert(qc.vote.height, qc.clone());
            }
            Record::Evidence(stored) => self.evidence.push((**stored).clone()),
            Record::Restraint(more) => self.restraint.tighten(more),
            Record::Finalized { height, block_hash } => {
                assert!(self.blocks.contains_key(block_hash), "a finalized block must be stored first");
                assert_eq!(height.get(), self.finalized_height().get() + 1, "finalized heights rise by one");
                self.finalized.insert(*height, *block_hash);
            }
            Record::Epoch(info) => {
                let known = self.epochs.entry(info.epoch).or_insert_with(|| (**info).clone());
                assert_eq!(known, &**info, "an epoch's set never changes");
            }
        }
    }
}

impl Disk for SimDisk {
    fn persist(&mut self, records: &[Record]) -> Result<Durable, DiskError> {
        // A planned crash hits any one of a step's fsyncs.
        if self.crash.is_some() && self.spared > 0 {
            self.spared -= 1;
        } else if let Some(point) = self.crash {
            return self.crash_at(point, records);
        }
        self.write_all(records, records.len());
        self.syncs += 1;
        Ok(Durable::after_fsync())
    }

    fn block(&self, hash: &B256) -> Result<Option<Arc<Block>>, DiskError> {
        Ok(self.blocks.get(hash).cloned())
    }

    fn finalized(&self, height: Height) -> Result<Option<CommittedBlock>, DiskError> {
        Ok(self.finalized.get(&height).and_then(|hash| self.blocks.get(hash)).map(|block| CommittedBlock {
            block: (**block).clone(),
            commit: self.commits.get(&height).filter(|qc| qc.vote.block_hash == block.header.hash()).cloned(),
        }))
    }

    fn epoch(&self, epoch: Epoch) -> Result<Option<EpochInfo>, DiskError> {
        Ok(self.epochs.get(&epoch).cloned())
    }
}
