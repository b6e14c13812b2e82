//! What bytes of a peer meet, without sockets: entry points of the fuzz targets. Not part of the interface. A panic here
//! is a finding.

use crate::frame::{FrameError, PREFIX_BYTES, push_frame, read_frame};
use crate::gossip::batch::{BATCH_BYTES_MAX, decode_batch, encode_batches};
use crate::hello::{ChainIdentity, NetworkKind, PROTOCOL_VERSION, compare};
use crate::mesh::binding::{BINDING_LIFETIME_S_MAX, Binding, binding_domain};
use crate::mesh::fetch::parse;
use alloy_primitives::B256;
use bytes::Bytes;
use futures::executor::block_on;
use futures::io::Cursor;
use libp2p::PeerId;

/// The chain a greeting is compared with.
pub const CHAIN: ChainIdentity = ChainIdentity {
    chain_id: 31337,
    genesis_hash: B256::repeat_byte(0x11),
    rules_hash: B256::repeat_byte(0x22),
};

/// The first frame of a connection. An accepted one has exactly one encoding.
pub fn hello(bytes: &[u8]) {
    if let Ok(hello) = compare(bytes, &CHAIN, NetworkKind::Mesh) {
        let again = [&PROTOCOL_VERSION.to_le_bytes()[..], &types::encode(&hello)].concat();
        assert_eq!(bytes, again);
    }
}

/// The proof that a network key speaks for a consensus key.
pub fn binding(bytes: &[u8]) {
    if let Ok(proof) = types::decode::<Option<Binding>>(bytes) {
        assert_eq!(bytes, types::encode(&proof));
        if let Some(proof) = proof
            && proof.check(peer(), NOW_S).is_ok()
        {
            assert!(proof.check(peer(), NOW_S + BINDING_LIFETIME_S_MAX).is_err(), "every proof expires");
        }
    }
}

/// A stream of frames: what was read is what is there, and an end is told apart from a misbehaviour.
pub fn frames(bytes: &[u8], limit: usize) {
    let mut stream = Cursor::new(bytes);
    let mut again = Vec::new();
    let end = loop {
        match block_on(read_frame(&mut stream, limit)) {
            Ok(body) => {
                assert!((1..=limit).contains(&body.len()));
                push_frame(&mut again, &body);
            }
            Err(error) => break error,
        }
    };
    assert!(bytes.starts_with(&again));
    let left = bytes.len() - again.len();
    match end {
        FrameError::End => assert_eq!(left, 0),
        FrameError::Truncated { .. } => assert!(left > 0),
        FrameError::Empty | FrameError::TooLarge { .. } => assert!(left >= PREFIX_BYTES),
        FrameError::Malformed { .. } | FrameError::Io(_) => panic!("memory gave {end}"),
    }
}

/// The answer to a fetch: its code, then the blocks.
pub fn fetch_answer(bytes: &[u8]) {
    if let Ok(response) = parse(bytes) {
        assert_eq!(bytes[1..], types::encode(&response));
    }
}

/// A batch of transactions.
pub fn batch(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(BATCH_BYTES_MAX)]);
    if let Some(transactions) = decode_batch(&bytes) {
        assert_eq!(encode_batches(&transactions), (vec![bytes], transactions.len()));
    }
}

/// The clock and the network identity a proof is checked against.
const NOW_S: u64 = 1_000_000;

fn peer() -> PeerId {
    let sha256 = [[0x12, 0x20].as_slice(), &[7; 32]].concat();
    PeerId::from_bytes(&sha256).expect("32 bytes of a hash name a peer")
}

/// Well-formed inputs to start from, by target.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let hello = crate::hello::greeting(&CHAIN, NetworkKind::Mesh, 1_700_000_000_000);
    let secret = crypto::SecretKey::simulated(1);
    let (node, key) = (crate::NodeId(peer()), secret.public_key());
    let proof = Binding::make(&binding_domain(&CHAIN), node, key, NOW_S + 10, |bytes| secret.sign(bytes));
    let mut frames = vec![3];
    [&b"x"[..], &[0; 40], b"last"].into_iter().for_each(|body| push_frame(&mut frames, body));
    let batch = encode_batches(&[Bytes::from_static(b"one"), Bytes::from_static(&[0xc0; 50])]).0.remove(0);
    vec![
        ("hello", hello),
        ("binding", types::encode(&Some(proof))),
        ("binding", types::encode(&None::<Binding>)),
        ("frames", frames),
        ("gossip_batch", batch.to_vec()),
    ]
}
