//! What bytes of a damaged disk meet: entry points of the fuzz targets. Not part of the interface. A panic here is a
//! finding.
//!
//! Checksums are keyed, so that bytes from outside never pass them. To get behind them, the bytes are sealed first, as
//! if the damage had happened in memory.

use crate::block_log::{parse_index, sealed_index};
use crate::record::{ChecksumKey, HEADER_BYTES, Kind, RecordHeader, reseal, seal};
use crate::segment::{FileKind, Head, ReadHead};
use crate::sign_log::SignRecord;
use consensus::SignState;
use std::num::NonZeroU32;
use std::path::Path;
use types::B256;

const SALT: [u8; 32] = [7; 32];
const OFFSET: u64 = 4096;

/// A piece of a log; the first byte says which.
pub fn piece(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => record(body),
        1 => sign_state(body),
        2 => index(body),
        _ => head(body),
    }
}

fn record(bytes: &[u8]) {
    let key = ChecksumKey::new(&SALT, 1, 1);
    let found = RecordHeader::read(bytes, OFFSET, &key);
    assert_eq!(found, None, "nobody guesses a keyed checksum");
    let mut bytes = bytes.to_vec();
    reseal(&mut bytes, OFFSET, &key);
    if let Some(header) = RecordHeader::read(&bytes, OFFSET, &key) {
        assert_eq!(header.total_bytes(), HEADER_BYTES as u64 + u64::from(header.length));
        let _ = header.matches(&bytes[HEADER_BYTES..], &key);
        let (mut header, mut whole) = (header, bytes.clone());
        seal(&mut header, &mut whole, OFFSET, &key);
        assert_eq!(RecordHeader::read(&whole, OFFSET, &key), Some(header));
        assert!(header.matches(&whole[HEADER_BYTES..], &key));
    }
}

fn sign_state(bytes: &[u8]) {
    let record = SignRecord { sequence: 1, blocks: 0, payload: bytes.to_vec() };
    if let Ok(state) = crate::decode_sign_state(Path::new("journal"), &record) {
        let state: SignState = state.expect("record 1 holds a sign-state");
        let again = types::encode(&state);
        let padding = bytes.strip_prefix(&*again).expect("one encoding");
        assert!(padding.iter().all(|byte| *byte == 0));
    }
}

fn index(bytes: &[u8]) {
    let (number, genesis) = (NonZeroU32::MIN, B256::repeat_byte(0x11));
    assert!(parse_index(bytes, number, genesis, 1).is_none(), "the checksum is a hash");
    // A list that passes its checksum is believed but for its bounds, which readers check.
    let _ = parse_index(&sealed_index(bytes), number, genesis, 1);
}

fn head(bytes: &[u8]) {
    let mut page = bytes.to_vec();
    page.resize(Head::BYTES, 0);
    let mut whole = [0; Head::BYTES];
    whole.copy_from_slice(&page[..Head::BYTES]);
    Head::reseal(&mut whole);
    for kind in [FileKind::Identity, FileKind::SignState, FileKind::Blocks] {
        if let ReadHead::Intact(head) = Head::parse(&whole, kind) {
            assert_eq!(head.page()[..72], whole[..72]);
            assert_eq!(head.kind, kind);
        }
    }
}

/// Well-formed inputs to start from; the fuzz targets' crate adds a sign-state.
pub fn seeds() -> Vec<Vec<u8>> {
    let key = ChecksumKey::new(&SALT, 1, 1);
    let mut header = RecordHeader::new(Kind::Block, 5, 4, 3, 2, B256::repeat_byte(9));
    let mut record = vec![1; HEADER_BYTES + 10];
    seal(&mut header, &mut record, OFFSET + 1, &key);
    let head = Head {
        kind: FileKind::Blocks,
        number: 1,
        first_sequence: 1,
        capacity: 1 << 16,
        genesis_hash: B256::repeat_byte(0x11),
        salt: SALT,
    };
    let listed: (u32, B256, u64, u32) = (1, B256::repeat_byte(0x11), 1, 0);
    [(0, record), (2, types::encode(&listed)), (3, head.page()[..128].to_vec())]
        .into_iter()
        .map(|(kind, body)| [vec![kind], body].concat())
        .collect()
}
