//! The block log: blocks, commit certificates, finalized marks and evidence in segment files.
//!
//! What one `persist` call hands over is one batch: one write, one sync, in one segment. A crash can tear the last
//! batch only; it is then dropped whole. Everything before it was acknowledged, so anything wrong there is damage.
//!
//! # Invariants
//! - Record numbers rise by one over all segments. The head of a segment names its first one.
//! - A batch starts at a multiple of 512, so that no acknowledged sector is written again.
//! - The file of a segment has its full size before its final name appears.

use crate::JournalError;
use crate::file::{Draft, Fill, LogFile, PAGE, replace};
use crate::index::{Index, IndexEntry, Location};
use crate::record::{ChecksumKey, HEADER_BYTES, Kind, RecordHeader, seal};
use crate::segment::{FileKind, Head};
use borsh::{BorshDeserialize, BorshSerialize};
use consensus::evidence::StoredEvidence;
use std::collections::HashSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use types::{B256, Height};

/// Bytes one batch may have. Far above 64 blocks of usual size, far below what a segment offset can address.
pub(crate) const BATCH_BYTES_MAX: u64 = 1 << 30;

/// Zeros written behind a batch when the log gets to bytes that were only reserved so far. Writing to those changes
/// the file system's metadata, which makes a sync slow now and then; writing over zeros does not.
const ZEROS_AHEAD_BYTES: u64 = 256 << 10;

const FIRST_BATCH_AT: u64 = PAGE;
const BATCH_ALIGNMENT: u64 = 512;
const RECORD_ALIGNMENT: u64 = 16;
const WINDOW_BYTES: u64 = 64 << 10;
const FIRST_SEGMENT: NonZeroU32 = NonZeroU32::MIN;

/// A record to append.
pub(crate) enum Entry<'a> {
    Block(&'a types::Block, B256),
    Commit(&'a types::CommitQc),
    Finalized(Height, B256),
    /// With the hash of its encoding.
    Evidence(&'a StoredEvidence, B256),
    Epoch(&'a types::EpochInfo),
}

/// What recovery needs from the log.
#[derive(Debug, Default)]
pub(crate) struct BlockScan {
    /// Blocks above the finalized height, in the order they were stored.
    pub open_blocks: Vec<B256>,
    /// Newest sign-state the log vouches for.
    pub sign_sequence: u64,
}

/// The open log.
#[derive(Debug)]
pub(crate) struct BlockLog {
    dir: PathBuf,
    genesis_hash: B256,
    salt: [u8; 32],
    segment_bytes: u64,
    active: LogFile,
    number: NonZeroU32,
    capacity: u64,
    first_sequence: u64,
    /// Where the next batch goes.
    position: u64,
    /// Up to where the segment was written, zeros included; 0 when not known.
    written: u64,
    /// Number of the newest record; 0 when the log is empty.
    sequence: u64,
    /// The active segment's records.
    listed: Listed,
    index: Index,
}

/// The records of one segment.
#[derive(Debug, Default, BorshSerialize, BorshDeserialize)]
pub(crate) struct Listed {
    entries: Vec<IndexEntry>,
    /// Newest sign-state any of them vouches for.
    sign_sequence: u64,
}

pub(crate) fn segment_path(dir: &Path, number: NonZeroU32) -> PathBuf {
    dir.join(format!("blocks-{number:08}.log"))
}

fn index_path(dir: &Path, number: NonZeroU32) -> PathBuf {
    dir.join(format!("blocks-{number:08}.idx"))
}

/// Numbers of all segment files, ascending; half-made files of a crash are removed.
pub(crate) fn list(dir: &Path) -> Result<Vec<NonZeroU32>, JournalError> {
    let mut numbers = Vec::new();
    let entries = std::fs::read_dir(dir).map_err(JournalError::io("list", dir))?;
    for entry in entries {
        let path = entry.map_err(JournalError::io("list", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("blocks-") && name.ends_with(".new") {
            std::fs::remove_file(&path).map_err(JournalError::io("remove", &path))?;
        }
        let digits = name.strip_prefix("blocks-").and_then(|rest| rest.strip_suffix(".log"));
        numbers.extend(digits.and_then(|digits| digits.parse::<NonZeroU32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The first segment of an empty log.
pub(crate) fn draft(dir: &Path, genesis: B256, salt: [u8; 32], bytes: u64) -> Result<Draft, JournalError> {
    let head = head(FIRST_SEGMENT, 1, bytes, genesis, salt);
    LogFile::draft(&segment_path(dir, FIRST_SEGMENT), &head.page(), bytes, Fill::Reserve)
}

impl BlockLog {
    /// Opens the log: reads the index files of sealed segments and the record headers of the last one.
    pub fn open(
        dir: &Path,
        genesis: B256,
        salt: [u8; 32],
        bytes: u64,
    ) -> Result<(Self, BlockScan), JournalError> {
        let numbers = list(dir)?;
        for (expected, found) in (1..).zip(numbers.iter().map(|number| number.get()).chain([0])) {
            if expected != found && (found != 0 || expected == 1) {
                let number = NonZeroU32::new(expected).unwrap_or(FIRST_SEGMENT);
                return Err(JournalError::Missing { path: segment_path(dir, number) });
            }
        }
        let mut segments = Vec::with_capacity(numbers.len());
        for number in numbers {
            segments.push(Segment::open(dir, number, genesis, salt)?);
        }
        let mut recovery = Recovery::default();
        for pair in segments.windows(2) {
            let listed = pair[0].listed(dir, pair[1].head.first_sequence)?;
            recovery.add_all(&pair[0], &listed.entries, listed.sign_sequence)?;
        }
        let Some(last) = segments.pop() else {
            return Err(JournalError::Missing { path: segment_path(dir, FIRST_SEGMENT) });
        };
        if last.head.first_sequence != recovery.sequence + 1 {
            let what =
                format!("starts with record {}, not {}", last.head.first_sequence, recovery.sequence + 1);
            return Err(JournalError::damaged(last.file.path(), 0, what));
        }
        let scan = last.scan_to_tail()?;
        recovery.add_all(&last, &scan.listed.entries, scan.listed.sign_sequence)?;
        let log = Self {
            dir: dir.to_owned(),
            genesis_hash: genesis,
            salt,
            segment_bytes: bytes,
            number: last.number,
            capacity: last.head.capacity,
            first_sequence: last.head.first_sequence,
            active: LogFile::open(last.file.path(), true)?,
            position: scan.end,
            written: 0,
            sequence: recovery.sequence,
            listed: scan.listed,
            index: recovery.index,
        };
        let finalized = log.index.finalized_head().map(|(height, _)| height.get());
        let candidates = recovery.candidates.into_iter();
        recovery.scan.open_blocks = candidates
            .filter(|(height, _)| finalized.is_none_or(|finalized| *height > finalized))
            .map(|(_, hash)| hash)
            .collect();
        Ok((log, recovery.scan))
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Number of the newest record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Segments, bytes reserved and bytes used.
    pub fn sizes(&self) -> Result<(u64, u64, u64), JournalError> {
        let (mut reserved, mut used) = (self.capacity, self.position);
        for number in (1..self.number.get()).filter_map(NonZeroU32::new) {
            let bytes = LogFile::open(&segment_path(&self.dir, number), false)?.len()?;
            reserved += bytes;
            used += bytes;
        }
        Ok((self.number.get().into(), reserved, used))
    }

    /// Appends what is not stored yet as one batch and makes it durable. `sign` is the newest durable sign-state.
    pub fn append(&mut self, sign: u64, entries: &[Entry<'_>]) -> Result<(), JournalError> {
        let mut batch = self.encode(sign, entries)?;
        if batch.records.is_empty() {
            return Ok(());
        }
        if self.position.saturating_add(batch.bytes.len() as u64) > self.capacity {
            self.start_segment(batch.bytes.len() as u64)?;
        }
        let key = ChecksumKey::new(&self.salt, FileKind::Blocks as u8, self.number.get().into());
        let listed = batch.seal(self.position, &key)?;
        let end = self.position + batch.bytes.len() as u64;
        if end > self.written {
            let zeros = ZEROS_AHEAD_BYTES.min(self.capacity.saturating_sub(end));
            batch.bytes.resize(batch.bytes.len() + zeros as usize, 0);
            self.written = end + zeros;
        }
        self.active.write_at(&batch.bytes, self.position)?;
        self.active.sync()?;
        self.position = end.next_multiple_of(BATCH_ALIGNMENT);
        self.sequence += listed.len() as u64;
        for entry in &listed {
            let (height, hash) = (entry.height, entry.hash);
            self.index.add(self.number, entry).map_err(|error| error.refused(height, &hash))?;
        }
        self.listed.entries.extend(listed);
        self.listed.sign_sequence = self.listed.sign_sequence.max(sign);
        Ok(())
    }

    /// Reads and checks the payload of a record.
    pub fn read(&self, location: Location, kind: Kind, hash: &B256) -> Result<Vec<u8>, JournalError> {
        let key = ChecksumKey::new(&self.salt, FileKind::Blocks as u8, location.segment.get().into());
        let (header, payload) = if location.segment == self.number {
            read_record(&self.active, location.offset.into(), self.capacity, &key)?
        } else {
            let file = LogFile::open(&segment_path(&self.dir, location.segment), false)?;
            read_record(&file, location.offset.into(), file.len()?, &key)?
        };
        if header.kind != kind || header.hash != *hash {
            let path = segment_path(&self.dir, location.segment);
            return Err(JournalError::damaged(
                &path,
                location.offset.into(),
                format!("not the record of {hash}"),
            ));
        }
        Ok(payload)
    }

    /// Checks every checksum of every segment. Returns records and bytes that are fine, and what is not.
    pub fn check(&self) -> Result<(u64, u64, Vec<String>), JournalError> {
        let (mut records, mut bytes, mut problems) = (0, 0, Vec::new());
        let mut next = 1;
        for number in (1..=self.number.get()).filter_map(NonZeroU32::new) {
            let result = Segment::open(&self.dir, number, self.genesis_hash, self.salt).and_then(|segment| {
                let found = segment.check(&mut problems)?;
                let is_last = number == self.number;
                segment.check_range(
                    next,
                    if is_last { self.sequence } else { found.last_sequence },
                    &found,
                )?;
                Ok(found)
            });
            match result {
                Ok(found) => {
                    next = found.last_sequence + 1;
                    records += found.records;
                    bytes += found.bytes;
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        Ok((records, bytes, problems))
    }

    /// Encodes what is new, refusing marks that contradict the log.
    fn encode(&self, sign: u64, entries: &[Entry<'_>]) -> Result<Batch, JournalError> {
        let first = self.sequence + 1;
        let mut batch = Batch::default();
        let (mut blocks, mut commits) = (HashSet::new(), HashSet::new());
        let mut finalized: Option<(u64, B256)> = None;
        for entry in entries {
            let sequence = first + batch.records.len() as u64;
            let header = |kind, height: Height, hash| {
                RecordHeader::new(kind, sequence, first, sign, height.get(), hash)
            };
            match entry {
                Entry::Block(block, hash) if self.index.block(hash).is_none() && blocks.insert(*hash) => {
                    batch.push(header(Kind::Block, block.header.height, *hash), *block)?;
                }
                Entry::Commit(qc) => {
                    let hash = qc.vote.block_hash;
                    if self.index.commit(&hash).is_none() && commits.insert(hash) {
                        batch.push(header(Kind::Commit, qc.vote.height, hash), *qc)?;
                    }
                }
                Entry::Block(..) => {}
                Entry::Evidence(stored, hash) => {
                    let height = stored.included.map_or(Height::ZERO, |(height, _)| height);
                    batch.push(header(Kind::Evidence, height, *hash), *stored)?;
                }
                // The header's height is the epoch's number.
                Entry::Epoch(info) if self.index.epoch(info.epoch).is_none() => {
                    let number = Height::new(info.epoch.get());
                    batch.push(header(Kind::Epoch, number, B256::ZERO), *info)?;
                }
                Entry::Epoch(_) => {}
                Entry::Finalized(height, hash) => {
                    let stored = self.index.block(hash).is_some() || blocks.contains(hash);
                    if self.is_new_mark(finalized, height.get(), hash, stored)? {
                        finalized = Some((height.get(), *hash));
                        batch.push(header(Kind::Finalized, *height, *hash), &())?;
                    }
                }
            }
        }
        Ok(batch)
    }

    /// Whether a mark is to be written, after those in the log and the last one of this batch.
    fn is_new_mark(
        &self,
        last: Option<(u64, B256)>,
        height: u64,
        hash: &B256,
        stored: bool,
    ) -> Result<bool, JournalError> {
        let refused = |error: crate::index::MarkError| error.refused(height, hash);
        match last {
            Some(last) if last == (height, *hash) => Ok(false),
            Some((previous, _)) => {
                let expected = previous.saturating_add(1);
                if height != expected {
                    return Err(refused(crate::index::MarkError::Height { expected }));
                }
                if stored { Ok(true) } else { Err(refused(crate::index::MarkError::UnknownBlock)) }
            }
            None => self.index.check_mark(height, hash, stored).map_err(refused),
        }
    }

    /// Seals the active segment with its index file and starts the next one.
    fn start_segment(&mut self, batch_bytes: u64) -> Result<(), JournalError> {
        if self.listed.entries.is_empty() {
            // Only a batch bigger than a whole segment gets here: replace the empty file by a bigger one.
            return self.replace_active(self.number, batch_bytes);
        }
        write_index(&self.dir, self.number, self.genesis_hash, self.first_sequence, &self.listed)?;
        let next = self.number.checked_add(1).ok_or_else(|| JournalError::Refused("2^32 segments".into()))?;
        self.replace_active(next, batch_bytes)
    }

    fn replace_active(&mut self, number: NonZeroU32, batch_bytes: u64) -> Result<(), JournalError> {
        let capacity = self.segment_bytes.max((FIRST_BATCH_AT + batch_bytes).next_multiple_of(PAGE));
        let head = head(number, self.sequence + 1, capacity, self.genesis_hash, self.salt);
        self.active = create_segment(&self.dir, &head)?;
        (self.number, self.capacity, self.first_sequence) = (number, capacity, head.first_sequence);
        (self.position, self.written) = (FIRST_BATCH_AT, 0);
        self.listed = Listed::default();
        Ok(())
    }
}

fn head(number: NonZeroU32, first_sequence: u64, capacity: u64, genesis_hash: B256, salt: [u8; 32]) -> Head {
    Head { kind: FileKind::Blocks, number: number.get().into(), first_sequence, capacity, genesis_hash, salt }
}

fn create_segment(dir: &Path, head: &Head) -> Result<LogFile, JournalError> {
    let number = u32::try_from(head.number).ok().and_then(NonZeroU32::new).unwrap_or(FIRST_SEGMENT);
    LogFile::create(&segment_path(dir, number), &head.page(), head.capacity, Fill::Reserve)
}

/// A batch being put together: headers wait for the batch's place in the file.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Start and end of each record in `bytes`, and its header.
    records: Vec<(usize, usize, RecordHeader)>,
}

impl Batch {
    fn push(&mut self, header: RecordHeader, payload: &impl BorshSerialize) -> Result<(), JournalError> {
        let start = self.bytes.len().next_multiple_of(RECORD_ALIGNMENT as usize);
        self.bytes.resize(start + HEADER_BYTES, 0);
        payload.serialize(&mut self.bytes).map_err(|error| JournalError::Refused(error.to_string()))?;
        if self.bytes.len() as u64 > BATCH_BYTES_MAX {
            return Err(JournalError::Refused(format!("a batch above {BATCH_BYTES_MAX} bytes")));
        }
        self.records.push((start, self.bytes.len(), header));
        Ok(())
    }

    /// Completes all headers for a batch at `position`; returns the records for the index.
    fn seal(&mut self, position: u64, key: &ChecksumKey) -> Result<Vec<IndexEntry>, JournalError> {
        let count = self.records.len();
        let mut listed = Vec::with_capacity(count);
        for (i, (start, end, header)) in self.records.iter_mut().enumerate() {
            let offset = position + *start as u64;
            let short =
                u32::try_from(offset).map_err(|_| JournalError::Refused("an offset above 4 GiB".into()))?;
            header.last = i + 1 == count;
            seal(header, &mut self.bytes[*start..*end], offset, key);
            listed.push(entry_of(header, short));
        }
        Ok(listed)
    }
}

fn entry_of(header: &RecordHeader, offset: u32) -> IndexEntry {
    let RecordHeader { kind, length, height, hash, .. } = *header;
    IndexEntry { kind: kind as u8, offset, length, height, hash }
}

/// The index file of a sealed segment: its records, so that opening needs no scan.
fn write_index(
    dir: &Path,
    number: NonZeroU32,
    genesis: B256,
    first_sequence: u64,
    listed: &Listed,
) -> Result<(), JournalError> {
    let bytes = types::encode(&(number.get(), genesis, first_sequence, listed));
    replace(&index_path(dir, number), &sealed_index(&bytes))
}

/// An index's content with its checksum.
pub(crate) fn sealed_index(content: &[u8]) -> Vec<u8> {
    [content, &index_checksum(content)].concat()
}

/// The listed records, or `None` when the file is missing, damaged or of another segment: then the segment itself is
/// scanned, which is slower and always right.
fn read_index(dir: &Path, number: NonZeroU32, genesis: B256, first_sequence: u64) -> Option<Listed> {
    parse_index(&std::fs::read(index_path(dir, number)).ok()?, number, genesis, first_sequence)
}

pub(crate) fn parse_index(
    bytes: &[u8],
    number: NonZeroU32,
    genesis: B256,
    first_sequence: u64,
) -> Option<Listed> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if checksum != index_checksum(content) {
        return None;
    }
    let found: (u32, B256, u64, Listed) = types::decode(content).ok()?;
    ((found.0, found.1, found.2) == (number.get(), genesis, first_sequence)).then_some(found.3)
}

fn index_checksum(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("tandem v1 journal index");
    *hasher.update(bytes).finalize().as_bytes()
}

/// Collects the records of all segments at open.
#[derive(Default)]
struct Recovery {
    index: Index,
    sequence: u64,
    /// Blocks that may be above the finalized height.
    candidates: Vec<(u64, B256)>,
    scan: BlockScan,
}

impl Recovery {
    fn add_all(
        &mut self,
        segment: &Segment,
        entries: &[IndexEntry],
        sign_sequence: u64,
    ) -> Result<(), JournalError> {
        self.scan.sign_sequence = self.scan.sign_sequence.max(sign_sequence);
        for entry in entries {
            self.sequence += 1;
            self.index.add(segment.number, entry).map_err(|error| JournalError::Impossible {
                path: segment.file.path().to_owned(),
                sequence: self.sequence,
                what: error.describe(entry.height, &entry.hash),
            })?;
            if entry.kind == Kind::Block as u8 {
                self.candidates.push((entry.height, entry.hash));
            }
        }
        // Blocks at or below the finalized height are done with, siblings included.
        if let Some((finalized, _)) = self.index.finalized_head() {
            self.candidates.retain(|(height, _)| *height > finalized.get());
        }
        Ok(())
    }
}

/// One segment file during open or check.
struct Segment {
    number: NonZeroU32,
    file: LogFile,
    head: Head,
    key: ChecksumKey,
}

/// Result of looking at the last segment.
struct TailScan {
    listed: Listed,
    end: u64,
}

/// Result of checking a segment.
struct Checked {
    records: u64,
    bytes: u64,
    last_sequence: u64,
}

impl Segment {
    fn open(dir: &Path, number: NonZeroU32, genesis: B256, salt: [u8; 32]) -> Result<Self, JournalError> {
        let file = LogFile::open(&segment_path(dir, number), false)?;
        let damaged = |what: String| Err(JournalError::damaged(file.path(), 0, what));
        let Some((head, _)) = Head::read_any(&file, 1, FileKind::Blocks)? else {
            return damaged("its head is damaged".into());
        };
        let length = file.len()?;
        if length != head.capacity {
            return damaged(format!("the file has {length} bytes instead of {}", head.capacity));
        }
        if head.number != u64::from(number.get()) || head.genesis_hash != genesis || head.salt != salt {
            return damaged("the file was not made for this place".into());
        }
        let key = ChecksumKey::new(&salt, FileKind::Blocks as u8, head.number);
        Ok(Self { number, file, head, key })
    }

    /// Records of a sealed segment; the next one starts with record `next_first`.
    fn listed(&self, dir: &Path, next_first: u64) -> Result<Listed, JournalError> {
        let first = self.head.first_sequence;
        let complete = |listed: &Listed| first.checked_add(listed.entries.len() as u64) == Some(next_first);
        if let Some(listed) = read_index(dir, self.number, self.head.genesis_hash, first).filter(complete) {
            return Ok(listed);
        }
        tracing::info!(file = %self.file.path().display(), "no usable index file: scanning the segment");
        let batches = self.scan()?;
        let listed = batches.listed();
        if !complete(&listed) {
            let what = format!("ends before record {}", next_first.saturating_sub(1));
            return Err(JournalError::damaged(self.file.path(), batches.end, what));
        }
        write_index(dir, self.number, self.head.genesis_hash, first, &listed)?;
        Ok(listed)
    }

    /// Records of the last segment, without a batch that a crash tore.
    fn scan_to_tail(&self) -> Result<TailScan, JournalError> {
        let mut batches = self.scan()?;
        if let Some(last) = batches.batches.pop() {
            if self.is_whole(&last)? {
                batches.batches.push(last);
            } else {
                batches.end = last.start;
            }
        }
        let listed = batches.listed();
        let next = self.head.first_sequence + listed.entries.len() as u64;
        if let Some((offset, found)) = self.later_batch(batches.end, next)? {
            let what = format!("record {next} does not read, record {found} behind it at byte {offset} does");
            return Err(JournalError::damaged(self.file.path(), batches.end, what));
        }
        Ok(TailScan { listed, end: batches.end })
    }

    /// All complete batches from the start, by their headers.
    fn scan(&self) -> Result<Batches, JournalError> {
        let mut window = Window::new(&self.file, self.head.capacity);
        let mut found = Batches { batches: Vec::new(), end: FIRST_BATCH_AT };
        let mut next = self.head.first_sequence;
        while let Some(batch) = self.scan_batch(&mut window, found.end, next)? {
            next += batch.records.len() as u64;
            found.end = batch.end.next_multiple_of(BATCH_ALIGNMENT);
            found.batches.push(batch);
        }
        Ok(found)
    }

    fn scan_batch(
        &self,
        window: &mut Window<'_>,
        start: u64,
        first: u64,
    ) -> Result<Option<FoundBatch>, JournalError> {
        let mut batch = FoundBatch { start, end: start, sign: 0, records: Vec::new() };
        loop {
            let offset = batch.end.next_multiple_of(RECORD_ALIGNMENT);
            let Some(bytes) = window.header_at(offset)? else { return Ok(None) };
            let expected = first + batch.records.len() as u64;
            let header = RecordHeader::read(bytes, offset, &self.key);
            let Some(header) = header.filter(|h| h.sequence == expected && h.batch == first) else {
                return Ok(None);
            };
            batch.end = offset.saturating_add(header.total_bytes());
            if batch.end > self.head.capacity {
                return Ok(None);
            }
            batch.sign = batch.sign.max(header.other);
            batch.records.push((offset, header));
            if header.last {
                return Ok(Some(batch));
            }
        }
    }

    /// Whether every payload of a batch is intact.
    fn is_whole(&self, batch: &FoundBatch) -> Result<bool, JournalError> {
        for (offset, header) in &batch.records {
            let mut payload = vec![0; header.length as usize];
            self.file.read_at(&mut payload, offset + HEADER_BYTES as u64)?;
            if !header.matches(&payload, &self.key) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A batch behind `from` that started after record `next`: it proves that `next` was acknowledged.
    fn later_batch(&self, from: u64, next: u64) -> Result<Option<(u64, u64)>, JournalError> {
        let mut window = Window::new(&self.file, self.head.capacity);
        let mut offset = from;
        while let Some(data) = self.file.next_data(offset) {
            offset = offset.max(data - data % BATCH_ALIGNMENT);
            let stop = offset.saturating_add(WINDOW_BYTES);
            while offset < stop {
                let Some(bytes) = window.header_at(offset)? else { return Ok(None) };
                let header = RecordHeader::read(bytes, offset, &self.key);
                if let Some(later) = header.filter(|h| h.sequence == h.batch && h.sequence > next) {
                    return Ok(Some((offset, later.sequence)));
                }
                offset += BATCH_ALIGNMENT;
            }
        }
        Ok(None)
    }

    /// Reads every record with its payload.
    fn check(&self, problems: &mut Vec<String>) -> Result<Checked, JournalError> {
        let found = self.scan()?;
        let mut checked =
            Checked { records: 0, bytes: 0, last_sequence: self.head.first_sequence.saturating_sub(1) };
        for (offset, header) in found.batches.iter().flat_map(|batch| &batch.records) {
            checked.last_sequence = header.sequence;
            match read_record(&self.file, *offset, self.head.capacity, &self.key) {
                Ok(_) => {
                    checked.records += 1;
                    checked.bytes += header.total_bytes();
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        Ok(checked)
    }

    /// Whether the segment holds exactly the records it should.
    fn check_range(&self, first: u64, last: u64, found: &Checked) -> Result<(), JournalError> {
        if self.head.first_sequence == first && found.last_sequence == last {
            return Ok(());
        }
        let (start, end) = (self.head.first_sequence, found.last_sequence);
        let what = format!("holds records {start} to {end}, expected {first} to {last}");
        Err(JournalError::damaged(self.file.path(), 0, what))
    }
}

struct Batches {
    batches: Vec<FoundBatch>,
    end: u64,
}

struct FoundBatch {
    start: u64,
    end: u64,
    sign: u64,
    records: Vec<(u64, RecordHeader)>,
}

impl Batches {
    fn listed(&self) -> Listed {
        let records = self.batches.iter().flat_map(|batch| &batch.records);
        let entry = |(offset, header): &(u64, RecordHeader)| {
            entry_of(header, u32::try_from(*offset).unwrap_or(u32::MAX))
        };
        let sign_sequence = self.batches.iter().map(|batch| batch.sign).max().unwrap_or(0);
        Listed { entries: records.map(entry).collect(), sign_sequence }
    }
}

/// Reads headers through a buffer, so that a scan of small records costs few system calls.
struct Window<'a> {
    file: &'a LogFile,
    capacity: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a LogFile, capacity: u64) -> Self {
        Self { file, capacity, start: 0, bytes: Vec::new() }
    }

    /// The bytes of a header at `offset`; `None` where the file has no room for one.
    fn header_at(&mut self, offset: u64) -> Result<Option<&[u8]>, JournalError> {
        let end = match offset.checked_add(HEADER_BYTES as u64) {
            Some(end) if end <= self.capacity => end,
            _ => return Ok(None),
        };
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let length = WINDOW_BYTES.min(self.capacity - offset);
            self.bytes.resize(length as usize, 0);
            self.file.read_at(&mut self.bytes, offset)?;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + HEADER_BYTES]))
    }
}

fn read_record(
    file: &LogFile,
    offset: u64,
    capacity: u64,
    key: &ChecksumKey,
) -> Result<(RecordHeader, Vec<u8>), JournalError> {
    let damaged = |what: &str| JournalError::damaged(file.path(), offset, what);
    let mut bytes = [0; HEADER_BYTES];
    file.read_at(&mut bytes, offset)?;
    let header = RecordHeader::read(&bytes, offset, key).ok_or_else(|| damaged("the header of a record"))?;
    if offset.saturating_add(header.total_bytes()) > capacity {
        return Err(damaged("the record is longer than its file"));
    }
    let mut payload = vec![0; header.length as usize];
    file.read_at(&mut payload, offset + HEADER_BYTES as u64)?;
    if !header.matches(&payload, key) {
        return Err(damaged("the checksum of a record does not match its bytes"));
    }
    Ok((header, payload))
}
