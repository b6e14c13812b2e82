//! Canonical encodings: what decodes has exactly one encoding, the bytes it came from.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt::Debug;
use types::{
    Block, CommitQc, CommittedBlock, ConsensusMessage, FetchRequest, FetchResponse, Header, Qc, SystemInputs,
    Tc, decode, encode,
};

/// Decodes, and checks that the encoding is the one given and decodes to the same again.
pub fn canonical<T: BorshSerialize + BorshDeserialize + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = decode(bytes).ok()?;
    let again = encode(&value);
    assert_eq!(again, bytes, "another encoding of {value:?}");
    assert_eq!(decode::<T>(&again).as_ref(), Ok(&value));
    Some(value)
}

/// A message of the validator mesh.
pub fn messages(bytes: &[u8]) {
    if let Some(message) = canonical::<ConsensusMessage>(bytes) {
        let _ = (message.epoch(), message.kind());
        if let ConsensusMessage::Proposal(_, proposal) = &message {
            canonical::<Block>(&encode(&proposal.block));
        }
    }
}

/// Headers, blocks and what is stored of them; the first byte says which.
pub fn blocks(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => drop(canonical::<Block>(body)),
        1 => drop(canonical::<CommittedBlock>(body)),
        2 => drop(canonical::<SystemInputs>(body)),
        _ => {
            if let Some(header) = canonical::<Header>(body) {
                // The source is the parent, whatever the numbers say.
                let source = header.source();
                assert!(
                    source.view == types::View::ZERO || matches!(header.justify, types::Justify::Prepare(_))
                );
                assert_ne!(header.hash(), header.parent_hash);
            }
        }
    }
}

/// Requests for blocks and their answers; the first byte says which.
pub fn fetch(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => drop(canonical::<FetchRequest>(body)),
        1 => drop(canonical::<FetchResponse>(body)),
        _ => net::fuzzing::fetch_answer(body),
    }
}

/// Certificates without a set; used by the targets that have one.
pub fn certificate(bytes: &[u8]) -> (Option<Qc>, Option<CommitQc>, Option<Tc>) {
    (canonical(bytes), canonical(bytes), canonical(bytes))
}

/// Frames of a stream, with a small limit that the first byte chooses.
pub fn frames(bytes: &[u8]) {
    let Some((limit, body)) = bytes.split_first() else { return };
    net::fuzzing::frames(body, usize::from(*limit) * 37 + 1);
}
