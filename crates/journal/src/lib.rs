//! The consensus disk of one validator: its sign-state, and every block and commit certificate it stored.
//!
//! This crate never decides what to write, never deletes a record that counts, never repairs damage by forgetting:
//! a journal that shows less than was acknowledged refuses to open (specs/consensus.md, C-7).
//!
//! # Files
//! ```text
//! LOCK                 held while a process uses the directory
//! IDENTITY             format version, genesis hash and the secret that keys all checksums; written last at creation
//! RESTRAINT            what restrains signing beside the sign-state, and where the directory was made ([`guard`])
//! sign-a.log sign-b.log  the sign-state, in turns, every record twice ([`sign_log`])
//! blocks-00000001.log …  blocks, certificates, finalized marks, validator sets, evidence ([`block_log`]); .idx lists a sealed segment's records
//! ```
//! Both logs number their records and name the other log's newest durable record in each of their own. So when one
//! log lost what had been acknowledged, the other one proves it, even if the loss looks like a torn write.
//!
//! # Invariants
//! - A record is acknowledged only after its fdatasync returned; block records before the sign-state that needs them.
//! - After a failed write or sync nothing is written any more by this instance.

mod block_log;
mod cache;
mod error;
mod file;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod index;
mod record;
mod segment;
mod sign_log;

#[cfg(test)]
mod tests;

pub use error::JournalError;

use block_log::{BlockLog, BlockScan, Entry};
use cache::BlockCache;
use consensus::evidence::StoredEvidence;
use consensus::{Disk, DiskError, Durable, Floor, Record, Recovered, Restraint, SignState};
use crypto::PublicKey;
use file::{DirLock, Fill, LogFile, PAGE, sync_parent};
use guard::GuardFile;
use index::Location;
use record::Kind;
use segment::{FileKind, Head};
use sign_log::{SignLog, SignRecord};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use types::{B256, Block, CommitQc, CommittedBlock, Epoch, EpochInfo, Height};

/// Size of a new block segment unless [`Options`] say otherwise.
pub const BLOCK_SEGMENT_BYTES: u64 = 64 << 20;

/// How a journal stores.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of a new block segment. Bigger ones mean fewer files; each is reserved on disk at once.
    pub block_segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { block_segment_bytes: BLOCK_SEGMENT_BYTES }
    }
}

/// How much a journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Block segments.
    pub segments: u64,
    /// Bytes reserved on disk, both logs.
    pub bytes_reserved: u64,
    /// Bytes of block segments in use.
    pub bytes_used: u64,
    /// Blocks stored, final or not.
    pub blocks: u64,
    /// Commit certificates stored.
    pub commits: u64,
    /// Sign-states written since creation.
    pub sign_states: u64,
    /// Lowest finalized height stored.
    pub first_finalized: Option<Height>,
    /// Highest finalized height.
    pub finalized: Option<Height>,
}

/// Result of [`Journal::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// Records whose checksums match.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sign-state copies that were damaged at open; the record itself was intact in its other copy.
    pub damaged_copies: u64,
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
}

/// The open journal of one validator.
#[derive(Debug)]
pub struct Journal {
    sign: SignLog,
    blocks: BlockLog,
    guard: GuardFile,
    cache: Mutex<BlockCache>,
    poison: Option<DiskError>,
    dir: PathBuf,
    _lock: DirLock,
}

impl Journal {
    /// Opens the journal in `dir`, creating it when the directory is empty or missing.
    pub fn open(dir: impl AsRef<Path>, genesis_hash: B256) -> Result<(Self, Recovered), JournalError> {
        Self::open_with(dir, genesis_hash, Options::default())
    }

    /// The same with other options.
    pub fn open_with(
        dir: impl AsRef<Path>,
        genesis_hash: B256,
        options: Options,
    ) -> Result<(Self, Recovered), JournalError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(JournalError::io("create", dir))?;
        let lock = DirLock::take(dir)?;
        let segment_bytes = options.block_segment_bytes.clamp(16 * PAGE, u32::MAX.into());
        let salt = match read_identity(dir, genesis_hash)? {
            Some(salt) => salt,
            None => initialise(dir, genesis_hash, segment_bytes)?,
        };
        let (mut sign, sign_record) = SignLog::open(dir, genesis_hash, salt)?;
        let (blocks, scan) = BlockLog::open(dir, genesis_hash, salt, segment_bytes)?;
        let guard = GuardFile::open(dir, &salt)?;
        compare_logs(dir, &sign, &sign_record, &blocks, &scan)?;
        sign.repair(&sign_record)?;
        let cache = Mutex::new(BlockCache::default());
        let journal = Self { sign, blocks, guard, cache, poison: None, dir: dir.to_owned(), _lock: lock };
        let recovered = journal.recover(&sign_record, &scan)?;
        Ok((journal, recovered))
    }

    /// Whether `dir` holds a journal. For tools that must not create one.
    pub fn exists(dir: impl AsRef<Path>) -> bool {
        dir.as_ref().join(IDENTITY).exists()
    }

    /// The chain a journal belongs to, without opening it; `None` where there is none.
    pub fn genesis_of(dir: impl AsRef<Path>) -> Result<Option<B256>, JournalError> {
        Ok(identity(dir.as_ref())?.map(|head| head.genesis_hash))
    }

    /// What restrains signing beside the sign-state.
    pub fn restraint(&self) -> Restraint {
        self.guard.restraint()
    }

    /// Raises how far keys have signed elsewhere; nothing falls (C-7.6).
    pub fn raise_floors(&mut self, floors: &[(PublicKey, Floor)]) -> Result<(), JournalError> {
        self.guard.tighten(&Restraint { floors: floors.to_vec(), ..Restraint::default() })
    }

    /// An operator's word that this directory, found copied or restored, is the only one in use (C-7.7).
    pub fn accept_place(&mut self) -> Result<(), JournalError> {
        self.guard.accept()
    }

    /// An operator's word that the cause of an alarm is gone (C-7.8). Gives the alarm that was.
    pub fn clear_alarm(&mut self) -> Result<Option<String>, JournalError> {
        self.guard.clear_alarm()
    }

    /// Sizes and counts.
    pub fn stats(&self) -> Result<Stats, JournalError> {
        let (segments, reserved, bytes_used) = self.blocks.sizes()?;
        let (blocks, commits) = self.blocks.index().counts();
        Ok(Stats {
            segments,
            bytes_reserved: reserved + 2 * sign_log::SIGN_SEGMENT_BYTES,
            bytes_used,
            blocks,
            commits,
            sign_states: self.sign.sequence(),
            first_finalized: self.blocks.index().first_finalized(),
            finalized: self.blocks.index().finalized_head().map(|(height, _)| height),
        })
    }

    /// Reads everything and verifies all checksums. Takes as long as reading the disk takes.
    pub fn check(&self) -> Result<CheckReport, JournalError> {
        let (mut records, bytes, mut problems) = self.blocks.check()?;
        match self.sign.check() {
            Ok(found) => records += found,
            Err(error) => problems.push(error.to_string()),
        }
        Ok(CheckReport { records, bytes, damaged_copies: self.sign.damaged_copies(), problems })
    }

    fn recover(&self, sign: &SignRecord, scan: &BlockScan) -> Result<Recovered, JournalError> {
        let mut blocks = Vec::with_capacity(scan.open_blocks.len());
        for hash in &scan.open_blocks {
            blocks.extend(self.read_block(hash)?);
        }
        let commit = match self.blocks.index().highest_commit() {
            Some(hash) => self.read_commit(&hash)?,
            None => None,
        };
        let finalized = self.blocks.index().finalized_head();
        let evidence = self.read_evidence()?;
        let (sign_state, restraint) = (decode_sign_state(&self.dir, sign)?, self.guard.restraint());
        Ok(Recovered { sign_state, finalized, blocks, commit, evidence, restraint })
    }

    fn read_block(&self, hash: &B256) -> Result<Option<Arc<Block>>, JournalError> {
        let Some(location) = self.blocks.index().block(hash) else { return Ok(None) };
        if let Some(block) = self.cache().get(hash) {
            return Ok(Some(block));
        }
        let payload = self.blocks.read(location, Kind::Block, hash)?;
        let block: Block = self.decode(location.segment, location.offset, &payload)?;
        let block = Arc::new(block);
        self.cache().insert(*hash, Arc::clone(&block), payload.len());
        Ok(Some(block))
    }

    fn read_commit(&self, hash: &B256) -> Result<Option<CommitQc>, JournalError> {
        let Some(location) = self.blocks.index().commit(hash) else { return Ok(None) };
        let payload = self.blocks.read(location, Kind::Commit, hash)?;
        self.decode(location.segment, location.offset, &payload).map(Some)
    }

    fn read_evidence(&self) -> Result<Vec<StoredEvidence>, JournalError> {
        let read = |(hash, location): (B256, Location)| {
            let payload = self.blocks.read(location, Kind::Evidence, &hash)?;
            self.decode(location.segment, location.offset, &payload)
        };
        self.blocks.index().evidence().map(read).collect()
    }

    fn decode<T: borsh::BorshDeserialize>(
        &self,
        segment: std::num::NonZeroU32,
        offset: u32,
        payload: &[u8],
    ) -> Result<T, JournalError> {
        let path = block_log::segment_path(&self.dir, segment);
        types::decode(payload).map_err(|error| JournalError::damaged(&path, offset.into(), error.to_string()))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, BlockCache> {
        // The cache holds checked blocks only; a panic elsewhere cannot leave a wrong one in it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let entries: Vec<Entry<'_>> = records
            .iter()
            .filter_map(|record| match record {
                Record::Block(block) => Some(Entry::Block(block, block.header.hash())),
                Record::Commit(qc) => Some(Entry::Commit(qc)),
                Record::Finalized { height, block_hash } => Some(Entry::Finalized(*height, *block_hash)),
                Record::Evidence(stored) => Some(Entry::Evidence(stored, evidence_id(stored))),
                Record::Epoch(info) => Some(Entry::Epoch(info)),
                Record::SignState(_) | Record::Restraint(_) => None,
            })
            .collect();
        for record in records {
            if let Record::Restraint(more) = record {
                self.guard.tighten(more)?;
            }
        }
        self.blocks.append(self.sign.sequence(), &entries)?;
        let sign_state = records.iter().rev().find_map(|record| match record {
            Record::SignState(state) => Some(state),
            _ => None,
        });
        if let Some(state) = sign_state {
            self.sign.append(self.blocks.sequence(), state.as_ref())?;
        }
        Ok(())
    }
}

impl Disk for Journal {
    /// At most one write and one fdatasync per log; the block log is durable before the sign-state is written.
    fn persist(&mut self, records: &[Record]) -> Result<Durable, DiskError> {
        if let Some(error) = &self.poison {
            return Err(DiskError(format!("not written, because an earlier write failed: {}", error.0)));
        }
        if let Err(error) = self.write(records) {
            let error = DiskError::from(error);
            self.poison = Some(error.clone());
            return Err(error);
        }
        for record in records {
            if let Record::Block(block) = record {
                self.cache().insert(block.header.hash(), Arc::clone(block), block.payload.len());
            }
        }
        Ok(Durable::after_fsync())
    }

    fn block(&self, hash: &B256) -> Result<Option<Arc<Block>>, DiskError> {
        Ok(self.read_block(hash)?)
    }

    fn finalized(&self, height: Height) -> Result<Option<CommittedBlock>, DiskError> {
        let Some(hash) = self.blocks.index().finalized_hash(height) else { return Ok(None) };
        let Some(block) = self.read_block(&hash)? else { return Ok(None) };
        let commit = self.read_commit(&hash)?;
        Ok(Some(CommittedBlock { block: Arc::unwrap_or_clone(block), commit }))
    }

    fn epoch(&self, epoch: Epoch) -> Result<Option<EpochInfo>, DiskError> {
        let Some(location) = self.blocks.index().epoch(epoch) else { return Ok(None) };
        let payload = self.blocks.read(location, Kind::Epoch, &B256::ZERO)?;
        Ok(Some(self.decode(location.segment, location.offset, &payload)?))
    }
}

fn evidence_id(stored: &StoredEvidence) -> B256 {
    let mut hasher = blake3::Hasher::new_derive_key("tandem v1 stored evidence");
    B256::from(*hasher.update(&types::encode(stored)).finalize().as_bytes())
}

const IDENTITY: &str = "IDENTITY";
const IDENTITY_COPIES: u64 = 2;

fn identity(dir: &Path) -> Result<Option<Head>, JournalError> {
    let path = dir.join(IDENTITY);
    if !path.exists() {
        return Ok(None);
    }
    let file = LogFile::open(&path, false)?;
    match Head::read_any(&file, IDENTITY_COPIES, FileKind::Identity)? {
        Some((head, _)) => Ok(Some(head)),
        None => Err(JournalError::damaged(&path, 0, "both copies of the identity are damaged")),
    }
}

/// The directory's secret; `None` when there is no journal yet.
fn read_identity(dir: &Path, genesis_hash: B256) -> Result<Option<[u8; 32]>, JournalError> {
    match identity(dir)? {
        Some(head) if head.genesis_hash != genesis_hash => Err(JournalError::ForeignGenesis {
            dir: dir.to_owned(),
            found: head.genesis_hash,
            expected: genesis_hash,
        }),
        head => Ok(head.map(|head| head.salt)),
    }
}

/// Makes an empty journal. The identity comes last: where it is missing, nothing was ever acknowledged, unless
/// somebody removed it, which the size of what is there shows.
fn initialise(dir: &Path, genesis_hash: B256, segment_bytes: u64) -> Result<[u8; 32], JournalError> {
    refuse_orphans(dir)?;
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(|error| {
        JournalError::io("draw randomness for", dir)(std::io::Error::other(error.to_string()))
    })?;
    let identity = || {
        let capacity = IDENTITY_COPIES * PAGE;
        let head =
            Head { kind: FileKind::Identity, number: 0, first_sequence: 0, capacity, genesis_hash, salt };
        let pages = head.page().repeat(IDENTITY_COPIES as usize);
        LogFile::draft(&dir.join(IDENTITY), &pages, capacity, Fill::Zeros)
    };
    // Each file waits for the disk; together they wait once.
    let drafts = std::thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| sign_log::draft(dir, 0, genesis_hash, salt)),
            scope.spawn(|| sign_log::draft(dir, 1, genesis_hash, salt)),
            scope.spawn(|| block_log::draft(dir, genesis_hash, salt, segment_bytes)),
            scope.spawn(identity),
        ];
        waiting.map(|thread| thread.join().expect("creating a file does not panic"))
    });
    let [sign_a, sign_b, blocks, identity] = drafts;
    let drafts = [sign_a?, sign_b?, blocks?, identity?];
    // A file keeps its inode and birth under its final name.
    guard::create(dir, &salt, [drafts[3].path(), drafts[0].path(), drafts[1].path()])?;
    for draft in drafts {
        draft.publish()?;
    }
    sync_parent(&dir.join(IDENTITY))?;
    Ok(salt)
}

/// Refuses to initialise over logs that hold records.
fn refuse_orphans(dir: &Path) -> Result<(), JournalError> {
    let missing = || Err(JournalError::Missing { path: dir.join(IDENTITY) });
    let numbers = block_log::list(dir)?;
    if numbers.len() > 1 {
        return missing();
    }
    // A file that was only initialised holds nothing but the pages of its head.
    let block_log = numbers.first().map(|number| (block_log::segment_path(dir, *number), 1));
    for (path, head_pages) in sign_log::paths(dir).map(|path| (path, 2)).into_iter().chain(block_log) {
        if path.exists() && LogFile::open(&path, false)?.has_data_after(head_pages * PAGE)? {
            return missing();
        }
    }
    Ok(())
}

/// Each log proves how far the other one had come.
fn compare_logs(
    dir: &Path,
    sign: &SignLog,
    record: &SignRecord,
    blocks: &BlockLog,
    scan: &BlockScan,
) -> Result<(), JournalError> {
    let dir = dir.to_owned();
    if scan.sign_sequence > sign.sequence() {
        return Err(JournalError::SignStateWentBack {
            dir,
            found: sign.sequence(),
            proven: scan.sign_sequence,
        });
    }
    if record.blocks > blocks.sequence() {
        return Err(JournalError::BlocksLost { dir, found: blocks.sequence(), proven: record.blocks });
    }
    Ok(())
}

fn decode_sign_state(dir: &Path, record: &SignRecord) -> Result<Option<SignState>, JournalError> {
    if record.sequence == 0 {
        return Ok(None);
    }
    let mut rest = record.payload.as_slice();
    let impossible =
        |what: String| JournalError::Impossible { path: dir.to_owned(), sequence: record.sequence, what };
    let state =
        borsh::BorshDeserialize::deserialize(&mut rest).map_err(|error| impossible(error.to_string()))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(impossible(format!("{} bytes follow the sign-state", rest.len())));
    }
    Ok(Some(state))
}
