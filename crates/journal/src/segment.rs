//! The head of every file: which format, which chain, which log and which segment of it.

use crate::JournalError;
use crate::file::{LogFile, PAGE};
use std::path::Path;
use types::B256;

/// Version of all formats in the directory.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"TNDMJRNL";
const HEAD_BYTES: usize = 124;
const CHECKSUM_AT: usize = HEAD_BYTES - 16;

/// Which file it is. Frozen numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum FileKind {
    Identity = 0,
    SignState = 1,
    Blocks = 2,
}

/// Head of a file; fills one page together with zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub kind: FileKind,
    /// Number of the segment in its log.
    pub number: u64,
    /// Number of the first record that may stand in it.
    pub first_sequence: u64,
    /// Bytes of the file.
    pub capacity: u64,
    pub genesis_hash: B256,
    /// The directory's secret.
    pub salt: [u8; 32],
}

/// What a page says that should be a head.
pub(crate) enum ReadHead {
    Intact(Head),
    /// Intact, but of another version.
    Version(u32),
    Damaged,
}

impl Head {
    /// The head as a whole page.
    pub fn page(&self) -> Vec<u8> {
        let mut bytes = vec![0; PAGE as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        for (at, value) in [(16, self.number), (24, self.first_sequence), (32, self.capacity)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[40..72].copy_from_slice(self.genesis_hash.as_slice());
        bytes[72..104].copy_from_slice(&self.salt);
        let checksum = checksum(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..HEAD_BYTES].copy_from_slice(&checksum);
        bytes
    }

    /// Reads the head on the page that starts at `offset`.
    pub fn read(file: &LogFile, offset: u64, expected: FileKind) -> Result<ReadHead, JournalError> {
        let mut bytes = [0; HEAD_BYTES];
        file.read_at(&mut bytes, offset)?;
        Ok(Self::parse(&bytes, expected))
    }

    /// The head in these bytes.
    pub fn parse(bytes: &[u8; HEAD_BYTES], expected: FileKind) -> ReadHead {
        if bytes[..8] != MAGIC || bytes[CHECKSUM_AT..] != checksum(&bytes[..CHECKSUM_AT]) {
            return ReadHead::Damaged;
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if u32_at(8) != FORMAT_VERSION {
            return ReadHead::Version(u32_at(8));
        }
        if u32_at(12) != expected as u32 {
            return ReadHead::Damaged;
        }
        ReadHead::Intact(Self {
            kind: expected,
            number: u64_at(16),
            first_sequence: u64_at(24),
            capacity: u64_at(32),
            genesis_hash: B256::from_slice(&bytes[40..72]),
            salt: bytes[72..104].try_into().expect("thirty-two bytes"),
        })
    }

    /// Bytes of a head; the rest of its page is zero.
    pub const BYTES: usize = HEAD_BYTES;

    /// Makes any bytes pass the magic and the checksum. For the fuzz targets.
    pub fn reseal(bytes: &mut [u8; HEAD_BYTES]) {
        bytes[..8].copy_from_slice(&MAGIC);
        let checksum = checksum(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum);
    }

    /// Reads the head of a file that keeps `copies` of it on its first pages, and says whether all are intact and
    /// equal. The highest number wins where a torn write left two. `None` when none is intact.
    pub fn read_any(
        file: &LogFile,
        copies: u64,
        expected: FileKind,
    ) -> Result<Option<(Self, bool)>, JournalError> {
        let mut found: Vec<Self> = Vec::new();
        for copy in 0..copies {
            match Self::read(file, copy * PAGE, expected)? {
                ReadHead::Intact(head) => found.push(head),
                ReadHead::Version(version) => return Err(version_error(file.path(), version)),
                ReadHead::Damaged => {}
            }
        }
        let whole = found.len() as u64 == copies && found.windows(2).all(|pair| pair[0] == pair[1]);
        Ok(found.into_iter().max_by_key(|head| head.number).map(|head| (head, whole)))
    }
}

pub(crate) fn version_error(path: &Path, found: u32) -> JournalError {
    JournalError::Version { path: path.to_owned(), found, supported: FORMAT_VERSION }
}

fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("tandem v1 journal head");
    let hash = hasher.update(bytes).finalize();
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}
