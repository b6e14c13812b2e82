//! The bytes of a record: a fixed header, then the payload (specs live in the crate documentation).
//!
//! All checksums are keyed with a secret of the directory, so that no peer can put bytes into a block that look
//! like a record.

use types::B256;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 112;

const MAGIC: [u8; 4] = *b"TREC";
const CHECKSUM_BYTES: usize = 16;
const PAYLOAD_CHECKSUM_AT: usize = HEADER_BYTES - 2 * CHECKSUM_BYTES;
const HEADER_CHECKSUM_AT: usize = HEADER_BYTES - CHECKSUM_BYTES;
const LAST_OF_BATCH: u8 = 1;

/// What a record holds. Frozen numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    SignState = 1,
    Block = 2,
    Commit = 3,
    Finalized = 4,
    Epoch = 5,
    Evidence = 6,
}

impl Kind {
    pub fn from_u8(value: u8) -> Option<Self> {
        [Self::SignState, Self::Block, Self::Commit, Self::Finalized, Self::Epoch, Self::Evidence]
            .into_iter()
            .find(|kind| *kind as u8 == value)
    }
}

/// Everything about a record but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub kind: Kind,
    /// Whether the batch ends here.
    pub last: bool,
    /// Bytes of the payload.
    pub length: u32,
    /// Number of the record in its log, without gaps.
    pub sequence: u64,
    /// Number of the first record that was written together with this one.
    pub batch: u64,
    /// Newest durable record of the other log when this one was written.
    pub other: u64,
    /// Height of the block concerned.
    pub height: u64,
    /// Hash of the block concerned.
    pub hash: B256,
    payload_checksum: [u8; CHECKSUM_BYTES],
}

/// The key of one segment's checksums.
#[derive(Clone, Debug)]
pub(crate) struct ChecksumKey([u8; 32]);

impl ChecksumKey {
    /// `salt` is the directory's secret; `log` and `segment` make a record of one place invalid in another.
    pub fn new(salt: &[u8; 32], log: u8, segment: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tandem v1 journal checksum");
        hasher.update(salt).update(&[log]).update(&segment.to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Checksum of a payload.
    pub fn of(&self, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
        truncated(blake3::keyed_hash(&self.0, bytes))
    }

    fn of_header(&self, header: &[u8], offset: u64) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(header).update(&offset.to_le_bytes());
        truncated(hasher.finalize())
    }
}

fn truncated(hash: blake3::Hash) -> [u8; CHECKSUM_BYTES] {
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    short
}

impl RecordHeader {
    /// A header without its payload's length and checksum, which [`seal`] fills in.
    pub fn new(kind: Kind, sequence: u64, batch: u64, other: u64, height: u64, hash: B256) -> Self {
        let payload_checksum = [0; CHECKSUM_BYTES];
        Self { kind, last: false, length: 0, sequence, batch, other, height, hash, payload_checksum }
    }

    /// Reads a header that lies at `offset`. `None` unless every bit is as written.
    pub fn read(bytes: &[u8], offset: u64, key: &ChecksumKey) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        if bytes[..4] != MAGIC
            || bytes[HEADER_CHECKSUM_AT..] != key.of_header(&bytes[..HEADER_CHECKSUM_AT], offset)
        {
            return None;
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Self {
            kind: Kind::from_u8(bytes[4])?,
            last: bytes[5] & LAST_OF_BATCH != 0,
            length: u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")),
            sequence: u64_at(16),
            batch: u64_at(24),
            other: u64_at(32),
            height: u64_at(40),
            hash: B256::from_slice(&bytes[48..80]),
            payload_checksum: bytes[PAYLOAD_CHECKSUM_AT..HEADER_CHECKSUM_AT]
                .try_into()
                .expect("sixteen bytes"),
        })
    }

    /// Whether `payload` is what was written.
    pub fn matches(&self, payload: &[u8], key: &ChecksumKey) -> bool {
        payload.len() == self.length as usize && key.of(payload) == self.payload_checksum
    }

    /// Bytes of header and payload.
    pub fn total_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }

    fn write(&self, bytes: &mut [u8], offset: u64, key: &ChecksumKey) {
        bytes[..HEADER_BYTES].fill(0);
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind as u8;
        bytes[5] = if self.last { LAST_OF_BATCH } else { 0 };
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        for (at, value) in [(16, self.sequence), (24, self.batch), (32, self.other), (40, self.height)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[48..80].copy_from_slice(self.hash.as_slice());
        bytes[PAYLOAD_CHECKSUM_AT..HEADER_CHECKSUM_AT].copy_from_slice(&self.payload_checksum);
        let checksum = key.of_header(&bytes[..HEADER_CHECKSUM_AT], offset);
        bytes[HEADER_CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum);
    }
}

/// Completes the record in `bytes`, whose payload stands behind room for the header, for the file offset `offset`.
/// The caller bounds the payload to u32.
pub(crate) fn seal(header: &mut RecordHeader, bytes: &mut [u8], offset: u64, key: &ChecksumKey) {
    let payload = &bytes[HEADER_BYTES..];
    header.length = u32::try_from(payload.len()).expect("the caller bounds payloads");
    header.payload_checksum = key.of(payload);
    header.write(bytes, offset, key);
}

/// Makes any bytes of a header's length pass the header's checksum. For the fuzz targets.
pub(crate) fn reseal(bytes: &mut [u8], offset: u64, key: &ChecksumKey) {
    if bytes.len() >= HEADER_BYTES {
        bytes[..4].copy_from_slice(&MAGIC);
        let checksum = key.of_header(&bytes[..HEADER_CHECKSUM_AT], offset);
        bytes[HEADER_CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_only_with_every_bit_at_its_own_place_and_under_its_own_key() {
        let key = ChecksumKey::new(&[7; 32], 1, 1);
        let mut header = RecordHeader::new(Kind::Block, 5, 4, 3, 2, B256::repeat_byte(9));
        let mut bytes = vec![1; HEADER_BYTES + 10];
        seal(&mut header, &mut bytes, 512, &key);
        assert_eq!(RecordHeader::read(&bytes, 512, &key), Some(header));
        assert!(header.matches(&bytes[HEADER_BYTES..], &key));
        assert_eq!(RecordHeader::read(&bytes, 1024, &key), None);
        assert_eq!(RecordHeader::read(&bytes, 512, &ChecksumKey::new(&[7; 32], 1, 2)), None);
        for bit in 0..HEADER_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::read(&bytes, 512, &key), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
