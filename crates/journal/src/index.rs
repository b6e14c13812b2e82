//! Where every block and certificate is, in memory: 48 bytes per block and 32 per finalized height.

use crate::JournalError;
use crate::record::Kind;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroU32;
use types::{B256, Epoch, Height};

/// Records of evidence that are given back at open. A validator costs two per epoch it offends in.
const EVIDENCE_MAX: usize = 4096;

/// A record's place. Segments are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub segment: NonZeroU32,
    pub offset: u32,
}

/// One record of a segment, as the index file of a sealed segment lists it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct IndexEntry {
    pub kind: u8,
    pub offset: u32,
    pub length: u32,
    pub height: u64,
    pub hash: B256,
}

#[derive(Clone, Copy, Debug, Default)]
struct Places {
    block: Option<Location>,
    commit: Option<Location>,
}

/// The index and what recovery needs beside it.
///
/// # Invariants
/// - `finalized` lists consecutive heights from `finalized_from` on, each of a stored block.
#[derive(Debug, Default)]
pub(crate) struct Index {
    places: HashMap<B256, Places>,
    finalized_from: u64,
    finalized: Vec<B256>,
    highest_commit: Option<(u64, B256)>,
    epochs: BTreeMap<u64, Location>,
    blocks: u64,
    commits: u64,
    /// The latest evidence, oldest first.
    evidence: VecDeque<(B256, Location)>,
}

/// A finalized mark that contradicts what is stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MarkError {
    /// It skips heights or goes back.
    Height { expected: u64 },
    /// Another block is final at that height.
    Conflict { stored: B256 },
    /// No such block is stored.
    UnknownBlock,
}

impl Index {
    pub fn block(&self, hash: &B256) -> Option<Location> {
        self.places.get(hash)?.block
    }

    pub fn commit(&self, hash: &B256) -> Option<Location> {
        self.places.get(hash)?.commit
    }

    /// Block with the highest commit certificate.
    pub fn highest_commit(&self) -> Option<B256> {
        self.highest_commit.map(|(_, hash)| hash)
    }

    /// The latest evidence stored, oldest first.
    pub fn evidence(&self) -> impl Iterator<Item = (B256, Location)> + '_ {
        self.evidence.iter().copied()
    }

    /// Who votes in an epoch.
    pub fn epoch(&self, epoch: Epoch) -> Option<Location> {
        self.epochs.get(&epoch.get()).copied()
    }

    pub fn finalized_hash(&self, height: Height) -> Option<B256> {
        let position = height.get().checked_sub(self.finalized_from)?;
        self.finalized.get(usize::try_from(position).ok()?).copied()
    }

    pub fn finalized_head(&self) -> Option<(Height, B256)> {
        let hash = *self.finalized.last()?;
        Some((Height::new(self.finalized_from + (self.finalized.len() as u64 - 1)), hash))
    }

    pub fn first_finalized(&self) -> Option<Height> {
        (!self.finalized.is_empty()).then(|| Height::new(self.finalized_from))
    }

    /// Blocks and commit certificates listed.
    pub fn counts(&self) -> (u64, u64) {
        (self.blocks, self.commits)
    }

    /// Whether a finalized mark may follow; `Ok(false)` when it is already there.
    pub fn check_mark(&self, height: u64, hash: &B256, stored: bool) -> Result<bool, MarkError> {
        if let Some(known) = self.finalized_hash(Height::new(height)) {
            return if known == *hash { Ok(false) } else { Err(MarkError::Conflict { stored: known }) };
        }
        let expected = self.finalized_head().map_or(height, |(head, _)| head.get().saturating_add(1));
        match () {
            () if height != expected => Err(MarkError::Height { expected }),
            () if !stored => Err(MarkError::UnknownBlock),
            () => Ok(true),
        }
    }

    /// Adds a durable record.
    pub fn add(&mut self, segment: NonZeroU32, entry: &IndexEntry) -> Result<(), MarkError> {
        let location = Location { segment, offset: entry.offset };
        match Kind::from_u8(entry.kind) {
            Some(Kind::Block) => {
                self.blocks += 1;
                self.places.entry(entry.hash).or_default().block.get_or_insert(location);
            }
            Some(Kind::Commit) => {
                self.commits += 1;
                self.places.entry(entry.hash).or_default().commit.get_or_insert(location);
                if self.highest_commit.is_none_or(|(height, _)| entry.height > height) {
                    self.highest_commit = Some((entry.height, entry.hash));
                }
            }
            Some(Kind::Finalized) => {
                let stored = self.block(&entry.hash).is_some();
                if self.check_mark(entry.height, &entry.hash, stored)? {
                    if self.finalized.is_empty() {
                        self.finalized_from = entry.height;
                    }
                    self.finalized.push(entry.hash);
                }
            }
            Some(Kind::Evidence) => {
                self.evidence.retain(|(hash, _)| *hash != entry.hash);
                self.evidence.push_back((entry.hash, location));
                if self.evidence.len() > EVIDENCE_MAX {
                    self.evidence.pop_front();
                }
            }
            Some(Kind::Epoch) => {
                self.epochs.entry(entry.height).or_insert(location);
            }
            Some(Kind::SignState) | None => {}
        }
        Ok(())
    }
}

impl MarkError {
    /// The refusal of a mark that is about to be written.
    pub fn refused(self, height: u64, hash: &B256) -> JournalError {
        JournalError::Refused(self.describe(height, hash))
    }

    pub fn describe(&self, height: u64, hash: &B256) -> String {
        match self {
            Self::Height { expected } => {
                format!("block {hash} marked final at height {height}, expected {expected}")
            }
            Self::Conflict { stored } => {
                format!("block {hash} marked final at height {height}, where block {stored} is final already")
            }
            Self::UnknownBlock => format!("block {hash} marked final at height {height} is not stored"),
        }
    }
}
