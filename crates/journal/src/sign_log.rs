//! The sign-state log: two small files that are written in turns, so that the log never grows.
//!
//! A record is written twice in one write, each copy on pages of its own: a crash in the middle of the write leaves
//! both incomplete (the entry was never acknowledged: it is dropped), while a damaged sector costs one copy at most
//! (the other one is used). Only the newest record counts.
//!
//! # Invariants
//! - Record numbers rise by one. A number that is missing between two that are there is damage, never a crash.
//! - The newest record is never overwritten: it is either in the other file or before the write position.

use crate::JournalError;
use crate::file::{Draft, Fill, LogFile, PAGE};
use crate::record::{ChecksumKey, HEADER_BYTES, Kind, RecordHeader, seal};
use crate::segment::{FileKind, Head};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use types::B256;

/// Bytes of each of the two files. Holds records of up to 510 KiB: the largest sign-state, with certificates of
/// 1024 validators, is below 256 KiB.
pub(crate) const SIGN_SEGMENT_BYTES: u64 = if cfg!(test) { 128 << 10 } else { 1 << 20 };

const HEAD_COPIES: u64 = 2;
const FIRST_RECORD_AT: u64 = HEAD_COPIES * PAGE;
const COPY_BYTES_MAX: u64 = (SIGN_SEGMENT_BYTES - FIRST_RECORD_AT) / 2;

/// The newest record, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignRecord {
    /// Its number; 0 when nothing was ever written.
    pub sequence: u64,
    /// Newest record of the block log it vouches for.
    pub blocks: u64,
    /// The encoded sign-state; empty for number 0.
    pub payload: Vec<u8>,
}

/// The open log.
#[derive(Debug)]
pub(crate) struct SignLog {
    files: [LogFile; 2],
    /// Which of the files is written.
    active: usize,
    /// The current life of each file; every turn raises it above both.
    generations: [u64; 2],
    /// Where the next record goes.
    position: u64,
    sequence: u64,
    salt: [u8; 32],
    genesis_hash: B256,
    /// Copies that did not verify at open while another copy did.
    damaged_copies: u64,
    /// What [`SignLog::repair`] has to do.
    wear: Wear,
}

/// Redundancy lost to a crash or to the disk.
#[derive(Debug)]
struct Wear {
    /// Whether both copies of the active file's head are intact.
    head_whole: bool,
    /// First record of the active file.
    oldest: u64,
    /// Whether the newest record has one intact copy only.
    newest_damaged: bool,
}

pub(crate) fn paths(dir: &Path) -> [PathBuf; 2] {
    [dir.join("sign-a.log"), dir.join("sign-b.log")]
}

/// One of the two files of an empty log.
pub(crate) fn draft(
    dir: &Path,
    which: usize,
    genesis_hash: B256,
    salt: [u8; 32],
) -> Result<Draft, JournalError> {
    // The first one is in its first life, the second one waits for the first turn.
    let head = head(1 - which as u64, 1, genesis_hash, salt);
    LogFile::draft(&paths(dir)[which], &head_pages(&head), SIGN_SEGMENT_BYTES, Fill::Zeros)
}

impl SignLog {
    /// Opens the log and finds the newest record. Writes nothing.
    pub fn open(dir: &Path, genesis_hash: B256, salt: [u8; 32]) -> Result<(Self, SignRecord), JournalError> {
        let [a, b] = paths(dir);
        let files = [LogFile::open(&a, true)?, LogFile::open(&b, true)?];
        let found = [read_head(&files[0], genesis_hash)?, read_head(&files[1], genesis_hash)?];
        let Some(newest_intact) = found.iter().flatten().map(|(head, _)| head.number).max() else {
            return Err(JournalError::damaged(&a, 0, "the heads of both sign-state files are damaged"));
        };
        // A turn writes the head together with the first record: a crash may leave a file without a head. All that
        // such a file can hold is the generation after the other file's.
        let number = |i: usize| found[i].as_ref().map_or(newest_intact + 1, |(head, _)| head.number);
        let generations = [number(0), number(1)];
        let key = |i: usize| ChecksumKey::new(&salt, FileKind::SignState as u8, generations[i]);
        let mut scans = [Scan::of(&files[0], &key(0))?, Scan::of(&files[1], &key(1))?];
        let active = usize::from(scans[1].newest > scans[0].newest);
        let first = found[active].as_ref().map_or(scans[active].oldest, |(head, _)| head.first_sequence);
        scans[active].check(&files[active], first)?;
        let scan = &mut scans[active];
        let record = scan.record.take().unwrap_or(SignRecord { sequence: 0, blocks: 0, payload: Vec::new() });
        let wear = Wear {
            head_whole: found[active].as_ref().is_some_and(|(_, all_copies)| *all_copies),
            oldest: scan.oldest,
            newest_damaged: scan.newest_damaged,
        };
        let log = Self {
            files,
            active,
            generations,
            position: scan.end,
            sequence: record.sequence,
            salt,
            genesis_hash,
            damaged_copies: scan.damaged_copies,
            wear,
        };
        Ok((log, record))
    }

    /// Restores redundancy: both copies of the active file's head, both copies of the newest record. Only to be called
    /// once `newest` is known to be the newest record ever acknowledged: its copy gets the next number.
    pub fn repair(&mut self, newest: &SignRecord) -> Result<(), JournalError> {
        let Wear { head_whole, oldest, newest_damaged } = self.wear;
        if self.damaged_copies > 0 || !head_whole {
            tracing::warn!(
                file = %self.files[self.active].path().display(), damaged_copies = self.damaged_copies, head_whole,
                "one of two copies in the sign-state log is incomplete; the other one is used"
            );
        }
        if !head_whole {
            let head = head(self.generations[self.active], oldest.max(1), self.genesis_hash, self.salt);
            self.files[self.active].write_at(&head_pages(&head), 0)?;
            self.files[self.active].sync()?;
        }
        if newest_damaged {
            self.append_bytes(newest.blocks, &newest.payload)?;
        }
        Ok(())
    }

    /// Number of the newest record.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Copies found damaged at open while their twin was intact.
    pub fn damaged_copies(&self) -> u64 {
        self.damaged_copies
    }

    /// Reads all records of the current generation again and counts them.
    pub fn check(&self) -> Result<u64, JournalError> {
        let file = &self.files[self.active];
        let scan = Scan::of(file, &self.key())?;
        scan.check(file, scan.oldest)?;
        if scan.newest != self.sequence {
            let what = format!("ends at sign-state {}, not {}", scan.newest, self.sequence);
            return Err(JournalError::damaged(file.path(), scan.end, what));
        }
        Ok(if scan.newest == 0 { 0 } else { scan.newest - scan.oldest + 1 })
    }

    /// Appends a record and makes it durable: one write, one sync. `blocks` is the block log's newest durable record.
    pub fn append(&mut self, blocks: u64, payload: &impl borsh::BorshSerialize) -> Result<(), JournalError> {
        self.append_bytes(blocks, &types::encode(payload))
    }

    fn append_bytes(&mut self, blocks: u64, payload: &[u8]) -> Result<(), JournalError> {
        let copy_bytes = (HEADER_BYTES as u64 + payload.len() as u64).next_multiple_of(PAGE);
        if copy_bytes > COPY_BYTES_MAX {
            let bytes = payload.len();
            return Err(JournalError::Refused(format!(
                "a sign-state of {bytes} bytes, at most {COPY_BYTES_MAX} fit"
            )));
        }
        let mut record = vec![0; usize::try_from(copy_bytes).expect("bounded by half a segment")];
        record[HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
        let sequence = self.sequence + 1;
        let header = RecordHeader::new(Kind::SignState, sequence, sequence, blocks, 0, B256::ZERO);
        if self.position + 2 * copy_bytes > SIGN_SEGMENT_BYTES {
            self.turn(header, record)?;
        } else {
            let bytes = twice(header, record, self.position, &self.key());
            self.files[self.active].write_at(&bytes, self.position)?;
            self.position += bytes.len() as u64;
        }
        self.files[self.active].sync()?;
        self.sequence = sequence;
        Ok(())
    }

    /// Starts the other file over with a head and this record, in one write.
    fn turn(&mut self, header: RecordHeader, record: Vec<u8>) -> Result<(), JournalError> {
        let generation = self.generations[0].max(self.generations[1]) + 1;
        self.active = 1 - self.active;
        self.generations[self.active] = generation;
        let head = head(generation, header.sequence, self.genesis_hash, self.salt);
        let mut bytes = head_pages(&head);
        bytes.extend_from_slice(&twice(header, record, FIRST_RECORD_AT, &self.key()));
        self.files[self.active].write_at(&bytes, 0)?;
        self.position = bytes.len() as u64;
        Ok(())
    }

    fn key(&self) -> ChecksumKey {
        ChecksumKey::new(&self.salt, FileKind::SignState as u8, self.generations[self.active])
    }
}

/// The record for both its places. Its padding to whole pages is part of the payload: decoding stops before it.
fn twice(mut header: RecordHeader, record: Vec<u8>, offset: u64, key: &ChecksumKey) -> Vec<u8> {
    header.last = true;
    let mut second = record.clone();
    let mut bytes = record;
    seal(&mut header, &mut bytes, offset, key);
    seal(&mut header, &mut second, offset + bytes.len() as u64, key);
    bytes.extend_from_slice(&second);
    bytes
}

fn head(number: u64, first_sequence: u64, genesis_hash: B256, salt: [u8; 32]) -> Head {
    Head {
        kind: FileKind::SignState,
        number,
        first_sequence,
        capacity: SIGN_SEGMENT_BYTES,
        genesis_hash,
        salt,
    }
}

fn head_pages(head: &Head) -> Vec<u8> {
    head.page().repeat(HEAD_COPIES as usize)
}

/// The head of a file, and whether both its copies are intact and equal.
fn read_head(file: &LogFile, genesis_hash: B256) -> Result<Option<(Head, bool)>, JournalError> {
    let length = file.len()?;
    if length != SIGN_SEGMENT_BYTES {
        let what = format!("the file has {length} bytes instead of {SIGN_SEGMENT_BYTES}");
        return Err(JournalError::damaged(file.path(), length, what));
    }
    let Some((head, whole)) = Head::read_any(file, HEAD_COPIES, FileKind::SignState)? else {
        return Ok(None);
    };
    if head.genesis_hash != genesis_hash || head.capacity != SIGN_SEGMENT_BYTES {
        return Err(JournalError::damaged(file.path(), 0, "the file was not made for this directory"));
    }
    Ok(Some((head, whole)))
}

/// What one file holds of its generation.
struct Scan {
    /// Number of the newest intact record; 0 without any.
    newest: u64,
    /// Number of the oldest one; 0 without any.
    oldest: u64,
    record: Option<SignRecord>,
    /// Behind the newest record.
    end: u64,
    damaged_copies: u64,
    /// Whether the newest record has one intact copy only.
    newest_damaged: bool,
    /// A record number found missing, with the offset of the record behind the gap.
    gap: Option<(u64, u64)>,
}

impl Scan {
    /// Looks at every page of the file: records start at pages.
    fn of(file: &LogFile, key: &ChecksumKey) -> Result<Self, JournalError> {
        let mut bytes = vec![0; SIGN_SEGMENT_BYTES as usize];
        file.read_at(&mut bytes, 0)?;
        let mut copies: BTreeMap<u64, Vec<(u64, RecordHeader)>> = BTreeMap::new();
        for offset in (FIRST_RECORD_AT..SIGN_SEGMENT_BYTES).step_by(PAGE as usize) {
            if let Some(header) = read_copy(&bytes, offset, key) {
                copies.entry(header.sequence).or_default().push((offset, header));
            }
        }
        let mut scan = Self {
            newest: copies.keys().next_back().copied().unwrap_or(0),
            oldest: copies.keys().next().copied().unwrap_or(0),
            record: None,
            end: FIRST_RECORD_AT,
            damaged_copies: 0,
            newest_damaged: false,
            gap: None,
        };
        for (expected, (sequence, found)) in (scan.oldest..).zip(&copies) {
            scan.add(&bytes, expected, *sequence, found);
        }
        Ok(scan)
    }

    fn add(&mut self, bytes: &[u8], expected: u64, sequence: u64, found: &[(u64, RecordHeader)]) {
        let Some((first, header)) = found.first().copied() else { return };
        if sequence != expected && self.gap.is_none() {
            self.gap = Some((expected, first));
        }
        let one_copy = found.len() < 2;
        // A lone copy at the place of the first one: the second one's place follows it.
        let copies_behind = if one_copy && first == self.end { 2 } else { 1 };
        let last = found.last().map_or(first, |(offset, _)| *offset);
        self.end = last + copies_behind * header.total_bytes();
        self.damaged_copies += u64::from(one_copy);
        if sequence == self.newest {
            self.newest_damaged = one_copy;
            let payload = &bytes[first as usize + HEADER_BYTES..][..header.length as usize];
            self.record = Some(SignRecord { sequence, blocks: header.other, payload: payload.to_vec() });
        }
    }

    /// Refuses when a record is gone that must have been acknowledged. Only the file with the newest record is looked
    /// at: the other one may be half overwritten by a turn that a crash interrupted.
    fn check(&self, file: &LogFile, first_sequence: u64) -> Result<(), JournalError> {
        let missing = match self.gap {
            _ if self.newest == 0 => None,
            _ if self.oldest != first_sequence => Some((first_sequence, FIRST_RECORD_AT)),
            gap => gap,
        };
        match missing {
            Some((sequence, offset)) => {
                Err(JournalError::damaged(file.path(), offset, format!("sign-state {sequence} is gone")))
            }
            None => Ok(()),
        }
    }
}

/// The header at `offset` if it and its payload are intact.
fn read_copy(bytes: &[u8], offset: u64, key: &ChecksumKey) -> Option<RecordHeader> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    let header = RecordHeader::read(rest, offset, key)?;
    let payload = rest.get(HEADER_BYTES..HEADER_BYTES.checked_add(header.length as usize)?)?;
    (header.kind == Kind::SignState && header.matches(payload, key)).then_some(header)
}
