//! Local transactions on disk, so that a restart loses none that was accepted.
//!
//! An append-only file: a header, then per transaction `length u32 LE ‖ crc32 u32 LE ‖ EIP-2718 bytes`. A record
//! is with the operating system before its transaction is answered, so killing the process loses nothing; it is
//! synced to the disk once a second, so a power cut may lose the last second. What is no longer pooled is left
//! behind when the file is rewritten.

use alloy_primitives::{B256, Bytes, map::B256Set};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::limits::TRANSACTION_BYTES_MAX;

const HEADER: &[u8] = b"tandem transaction journal 1\n";
const RECORD_HEADER_BYTES: usize = 8;

/// The file is rewritten when it is this much longer than twice what is alive in it.
const SLACK_BYTES: u64 = 4 << 20;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened, read or written.
    #[error("transaction journal {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is something else; it is left alone.
    #[error("{path} is no transaction journal of this version; move it away to start with an empty one")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// No thread could be started.
    #[error("cannot start a pool thread: {0}")]
    Thread(io::Error),
}

/// # Invariants
/// - `file` ends with a complete record, or the journal is `broken` and refuses to append.
/// - `live` holds the hashes of journaled transactions that are pooled.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// Shared with whoever syncs it: appending does not wait for the disk.
    file: Arc<File>,
    file_bytes: u64,
    live: B256Set,
    bytes_max: u64,
    unsynced: bool,
    broken: bool,
}

impl Journal {
    /// Opens or creates a journal and returns the transactions in it. A torn or damaged tail is cut off. Of a file
    /// longer than `bytes_max` the rest is ignored.
    pub fn open(path: &Path, bytes_max: u64) -> Result<(Self, Vec<Bytes>), JournalError> {
        let io = |source| JournalError::Io { path: path.into(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut content = Vec::new();
        (&mut file)
            .take(bytes_max.saturating_add(HEADER.len() as u64))
            .read_to_end(&mut content)
            .map_err(io)?;
        if !content.starts_with(HEADER) && !HEADER.starts_with(&content) {
            return Err(JournalError::Foreign { path: path.into() });
        }
        if content.len() < HEADER.len() {
            file.set_len(0).map_err(io)?;
            file.seek(SeekFrom::Start(0)).map_err(io)?;
            file.write_all(HEADER).map_err(io)?;
            content = HEADER.to_vec();
        }
        let (kept, good) = read_records(&content);
        let file_bytes = good as u64;
        if file.metadata().map_err(io)?.len() > file_bytes {
            tracing::warn!(path = %path.display(), kept = kept.len(), "transaction journal had a damaged tail");
            file.set_len(file_bytes).map_err(io)?;
        }
        file.seek(SeekFrom::Start(file_bytes)).map_err(io)?;
        let journal = Self {
            path: path.into(),
            file: Arc::new(file),
            file_bytes,
            live: B256Set::default(),
            bytes_max,
            unsynced: true,
            broken: false,
        };
        Ok((journal, kept))
    }

    /// Appends transactions; with the operating system when it returns.
    pub fn append(&mut self, transactions: &[(B256, Bytes)]) -> Result<(), JournalError> {
        let mut records = Vec::new();
        for (_, bytes) in transactions {
            put_record(&mut records, bytes);
        }
        if self.broken || self.file_bytes.saturating_add(records.len() as u64) > self.bytes_max {
            let kind = if self.broken { "an earlier write failed" } else { "journal is full" };
            return Err(self.io(io::Error::other(kind)));
        }
        if let Err(source) = (&*self.file).write_all(&records) {
            self.cut_back();
            return Err(self.io(source));
        }
        self.file_bytes += records.len() as u64;
        self.live.extend(transactions.iter().map(|(hash, _)| *hash));
        self.unsynced = true;
        Ok(())
    }

    /// Marks a transaction read by [`Self::open`] as pooled again.
    pub fn keep(&mut self, hash: B256) {
        self.live.insert(hash);
    }

    /// Hashes of at most `max` journaled transactions that are pooled.
    pub fn live(&self, max: usize) -> Vec<B256> {
        self.live.iter().take(max).copied().collect()
    }

    /// A transaction is no longer pooled.
    pub fn forget(&mut self, hash: &B256) {
        self.live.remove(hash);
    }

    /// Rewrites the file when most of it is dead. `get` finds the bytes of a pooled transaction.
    pub fn compact(&mut self, get: impl Fn(&B256) -> Option<Bytes>) -> Result<(), JournalError> {
        if !self.broken && self.file_bytes <= SLACK_BYTES {
            return Ok(());
        }
        let mut live = Vec::with_capacity(self.live.len());
        self.live.retain(|hash| get(hash).map(|bytes| live.push(bytes)).is_some());
        let live_bytes: u64 = live.iter().map(|bytes| (bytes.len() + RECORD_HEADER_BYTES) as u64).sum();
        if self.broken || self.file_bytes > live_bytes.saturating_mul(2).saturating_add(SLACK_BYTES) {
            self.rewrite(&live).map_err(|source| self.io(source))?;
        }
        Ok(())
    }

    /// The file, if something was appended since the last time; the caller syncs it.
    pub fn take_unsynced(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.unsynced).then(|| self.file.clone())
    }

    /// Syncing what [`Self::take_unsynced`] gave failed.
    pub fn sync_failed(&mut self, source: io::Error) -> JournalError {
        self.unsynced = true;
        self.io(source)
    }

    /// Writes a new file with `live` only and puts it in the old one's place, at once or not at all.
    fn rewrite(&mut self, live: &[Bytes]) -> io::Result<()> {
        let fresh_path = self.path.with_extension("new");
        let mut fresh = BufWriter::new(File::create(&fresh_path)?);
        fresh.write_all(HEADER)?;
        let mut file_bytes = HEADER.len() as u64;
        let mut record = Vec::new();
        for bytes in live {
            record.clear();
            put_record(&mut record, bytes);
            fresh.write_all(&record)?;
            file_bytes += record.len() as u64;
        }
        let fresh = fresh.into_inner().map_err(io::IntoInnerError::into_error)?;
        fresh.sync_all()?;
        std::fs::rename(&fresh_path, &self.path)?;
        if let Some(directory) = self.path.parent().filter(|path| !path.as_os_str().is_empty()) {
            File::open(directory)?.sync_all()?;
        }
        (self.file, self.file_bytes) = (Arc::new(fresh), file_bytes);
        (self.unsynced, self.broken) = (false, false);
        Ok(())
    }

    /// Removes a half-written record; if even that fails, nothing may follow it until the file is rewritten.
    fn cut_back(&mut self) {
        let cut = self.file.set_len(self.file_bytes);
        self.broken = cut.and_then(|()| (&*self.file).seek(SeekFrom::Start(self.file_bytes))).is_err();
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }
}

fn put_record(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("pooled transactions are below 128 KiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The complete records, and where the last of them ends.
fn read_records(content: &[u8]) -> (Vec<Bytes>, usize) {
    let (mut records, mut at) = (Vec::new(), HEADER.len());
    while let Some((bytes, end)) = read_record(content, at) {
        records.push(Bytes::copy_from_slice(bytes));
        at = end;
    }
    (records, at)
}

fn read_record(content: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let word = |at: usize| Some(u32::from_le_bytes(content.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let length = word(at)? as usize;
    if length == 0 || length > TRANSACTION_BYTES_MAX {
        return None;
    }
    let start = at + RECORD_HEADER_BYTES;
    let bytes = content.get(start..start + length)?;
    (word(at + 4)? == crc32fast::hash(bytes)).then_some((bytes, start + length))
}
