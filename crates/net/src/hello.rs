//! The handshake of every connection, before anything else is read from it.
//!
//! The dialer opens one stream. Both sides send a [`Hello`] and compare versions, chain and rules; then whatever
//! the network adds (binding proofs, in the mesh); then both say whether they accept. The stream stays open
//! afterwards: it carries the connection's pings and its orderly end (see [`crate::control`]).

use crate::driver::Connection;
use crate::error::HandshakeError;
use crate::frame::{FrameError, read_frame, write_frame};
use crate::link::ProtocolIndex;
use alloy_primitives::B256;
use borsh::{BorshDeserialize, BorshSerialize};
use libp2p::swarm::Stream;
use libp2p::{PeerId, StreamProtocol};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Generation of the wire protocol; raised by every incompatible change.
pub const PROTOCOL_VERSION: u16 = 1;

/// The handshake's stream. Free of the chain id, so that nodes of different chains can tell each other so.
pub(crate) const HELLO_PROTOCOL: StreamProtocol = StreamProtocol::new("/tandem/hello/1.0.0");

/// Time for the whole handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of one handshake frame.
const HELLO_BYTES_MAX: usize = 1024;

/// Time a refused peer gets to read why.
const REFUSAL_LINGER: Duration = Duration::from_millis(500);

/// What must be equal on both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainIdentity {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of the genesis.
    pub genesis_hash: B256,
    /// Hash of the rules this version applies (forks, limits, timing).
    pub rules_hash: B256,
}

/// Which network a node speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkKind {
    Mesh,
    Transactions,
}

impl NetworkKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mesh => "validator mesh",
            Self::Transactions => "transaction gossip",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Mesh => 1,
            Self::Transactions => 2,
        }
    }

    fn name_of(code: u8) -> &'static str {
        match code {
            1 => Self::Mesh.name(),
            2 => Self::Transactions.name(),
            _ => "unknown",
        }
    }
}

/// Which of several connections with one peer is kept: the one dialed last, by the dialer's clock, then by
/// identity. Both sides know both numbers, so both keep the same one whatever order they saw them in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    dialed_at_ms: u64,
    dialer: PeerId,
}

#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Hello {
    network: u8,
    chain_id: u64,
    genesis_hash: B256,
    rules_hash: B256,
    sent_at_ms: u64,
}

/// The stream of the handshake: the dialer opens it, and nothing else may come before it.
pub(crate) async fn first_stream(
    connection: &mut Connection,
    hello: ProtocolIndex,
) -> Result<Stream, HandshakeError> {
    let gone = |reason: String| HandshakeError::Broken { reason };
    if connection.dialed {
        return connection.streams.opener.open(hello).await.map_err(|error| gone(error.to_string()));
    }
    match connection.streams.inbound.recv().await {
        None => Err(gone("the connection was closed".to_owned())),
        Some((protocol, stream)) if protocol == hello => Ok(stream),
        Some((protocol, _)) => Err(HandshakeError::Malformed {
            reason: format!("stream kind {protocol} came before the handshake"),
        }),
    }
}

/// Sends our greeting, reads theirs and compares. Returns the connection's rank.
pub(crate) async fn greet(
    stream: &mut Stream,
    chain: &ChainIdentity,
    network: NetworkKind,
    me: PeerId,
    peer: PeerId,
    dialed: bool,
) -> Result<Rank, HandshakeError> {
    let sent_at_ms = unix_ms();
    write_frame(stream, &greeting(chain, network, sent_at_ms)).await.map_err(broken)?;
    let bytes = read_frame(stream, HELLO_BYTES_MAX).await.map_err(unreadable)?;
    let theirs = compare(&bytes, chain, network)?;
    Ok(match dialed {
        true => Rank { dialed_at_ms: sent_at_ms, dialer: me },
        false => Rank { dialed_at_ms: theirs.sent_at_ms, dialer: peer },
    })
}

/// What we send: the version, then our side of what [`compare`] compares.
pub(crate) fn greeting(chain: &ChainIdentity, network: NetworkKind, sent_at_ms: u64) -> Vec<u8> {
    let ours = Hello {
        network: network.code(),
        chain_id: chain.chain_id,
        genesis_hash: chain.genesis_hash,
        rules_hash: chain.rules_hash,
        sent_at_ms,
    };
    let mut bytes = PROTOCOL_VERSION.to_le_bytes().to_vec();
    bytes.extend_from_slice(&types::encode(&ours));
    bytes
}

/// The version stands first and alone, so that any later layout can still be refused by number.
pub(crate) fn compare(
    bytes: &[u8],
    chain: &ChainIdentity,
    network: NetworkKind,
) -> Result<Hello, HandshakeError> {
    let malformed = |reason: String| HandshakeError::Malformed { reason };
    let (version, rest) = bytes.split_first_chunk::<2>().ok_or_else(|| malformed("no version".to_owned()))?;
    let version = u16::from_le_bytes(*version);
    if version != PROTOCOL_VERSION {
        return Err(HandshakeError::WrongVersion { ours: PROTOCOL_VERSION, theirs: version });
    }
    let theirs: Hello = types::decode(rest).map_err(|error| malformed(error.to_string()))?;
    if theirs.network != network.code() {
        let theirs = NetworkKind::name_of(theirs.network);
        return Err(HandshakeError::WrongNetwork { ours: network.name(), theirs });
    }
    if theirs.chain_id != chain.chain_id {
        return Err(HandshakeError::WrongChain { ours: chain.chain_id, theirs: theirs.chain_id });
    }
    if theirs.genesis_hash != chain.genesis_hash {
        return Err(HandshakeError::WrongGenesis { ours: chain.genesis_hash, theirs: theirs.genesis_hash });
    }
    if theirs.rules_hash != chain.rules_hash {
        return Err(HandshakeError::WrongRules { ours: chain.rules_hash, theirs: theirs.rules_hash });
    }
    Ok(theirs)
}

/// Sends a value and reads the peer's of the same kind.
pub(crate) async fn exchange<T: BorshSerialize + BorshDeserialize>(
    stream: &mut Stream,
    ours: &T,
) -> Result<T, HandshakeError> {
    write_frame(stream, &types::encode(ours)).await.map_err(broken)?;
    let bytes = read_frame(stream, HELLO_BYTES_MAX).await.map_err(unreadable)?;
    types::decode(&bytes).map_err(|error| HandshakeError::Malformed { reason: error.to_string() })
}

/// Tells the peer whether we accept it and hears whether it accepts us.
pub(crate) async fn settle(
    stream: &mut Stream,
    verdict: Result<(), HandshakeError>,
) -> Result<(), HandshakeError> {
    let code = verdict.as_ref().err().map_or(0, refusal_code);
    write_frame(stream, &[code]).await.map_err(broken)?;
    if let Err(error) = verdict {
        // Closing at once could overtake the code on its way.
        let _ = tokio::time::timeout(REFUSAL_LINGER, read_frame(stream, HELLO_BYTES_MAX)).await;
        return Err(error);
    }
    let answer = read_frame(stream, HELLO_BYTES_MAX).await.map_err(unreadable)?;
    match answer.first() {
        Some(0) => Ok(()),
        code => {
            Err(HandshakeError::RefusedByPeer { reason: refusal_reason(code.copied().unwrap_or(u8::MAX)) })
        }
    }
}

fn refusal_code(error: &HandshakeError) -> u8 {
    match error {
        HandshakeError::BindingPeer { .. } => 1,
        HandshakeError::BindingExpired { .. } => 2,
        HandshakeError::BindingTooLong { .. } => 3,
        HandshakeError::BindingSignature { .. } => 4,
        HandshakeError::Banned { .. } => 5,
        HandshakeError::Full { .. } => 6,
        HandshakeError::OwnKey { .. } => 7,
        _ => u8::MAX,
    }
}

fn refusal_reason(code: u8) -> &'static str {
    match code {
        1 => "our binding proof is for another network key",
        2 => "our binding proof has expired by its clock",
        3 => "our binding proof is valid for too long",
        4 => "our binding proof is not signed by the key it names",
        5 => "we are kept out after misbehaviour",
        6 => "it has no place for us",
        7 => "it speaks for the same consensus key",
        _ => "it gave no known reason",
    }
}

fn broken(error: std::io::Error) -> HandshakeError {
    HandshakeError::Broken { reason: error.to_string() }
}

fn unreadable(error: FrameError) -> HandshakeError {
    match error {
        FrameError::TooLarge { .. }
        | FrameError::Empty
        | FrameError::Malformed { .. }
        | FrameError::Truncated { .. } => HandshakeError::Malformed { reason: error.to_string() },
        FrameError::End | FrameError::Io(_) => HandshakeError::Broken { reason: error.to_string() },
    }
}

pub(crate) fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CHAIN: ChainIdentity =
        ChainIdentity { chain_id: 7, genesis_hash: B256::repeat_byte(1), rules_hash: B256::repeat_byte(2) };

    fn greeting(chain: &ChainIdentity, version: u16, network: NetworkKind) -> Vec<u8> {
        let hello = Hello {
            network: network.code(),
            chain_id: chain.chain_id,
            genesis_hash: chain.genesis_hash,
            rules_hash: chain.rules_hash,
            sent_at_ms: 5,
        };
        [version.to_le_bytes().to_vec(), types::encode(&hello)].concat()
    }

    #[test]
    fn every_difference_is_refused_naming_both_sides() {
        let check = |bytes: Vec<u8>| compare(&bytes, &CHAIN, NetworkKind::Mesh).map(|h| h.sent_at_ms);
        assert_eq!(check(greeting(&CHAIN, 1, NetworkKind::Mesh)), Ok(5));
        assert_eq!(
            check(greeting(&CHAIN, 9, NetworkKind::Mesh)),
            Err(HandshakeError::WrongVersion { ours: 1, theirs: 9 })
        );
        assert!(matches!(
            check(greeting(&CHAIN, 1, NetworkKind::Transactions)),
            Err(HandshakeError::WrongNetwork { .. })
        ));
        let other = B256::repeat_byte(9);
        assert_eq!(
            check(greeting(&ChainIdentity { chain_id: 8, ..CHAIN }, 1, NetworkKind::Mesh)),
            Err(HandshakeError::WrongChain { ours: 7, theirs: 8 })
        );
        let refused = check(greeting(&ChainIdentity { genesis_hash: other, ..CHAIN }, 1, NetworkKind::Mesh));
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains(&other.to_string()) && text.contains(&CHAIN.genesis_hash.to_string()),
            "{text}"
        );
        let refused = check(greeting(&ChainIdentity { rules_hash: other, ..CHAIN }, 1, NetworkKind::Mesh));
        assert_eq!(refused, Err(HandshakeError::WrongRules { ours: CHAIN.rules_hash, theirs: other }));
    }

    #[test]
    fn any_truncation_or_extension_of_a_greeting_is_malformed() {
        let whole = greeting(&CHAIN, 1, NetworkKind::Mesh);
        for length in 0..whole.len() {
            let refused = compare(&whole[..length], &CHAIN, NetworkKind::Mesh);
            assert!(matches!(refused, Err(HandshakeError::Malformed { .. })), "{length}");
        }
        let longer = [whole, vec![0]].concat();
        assert!(matches!(compare(&longer, &CHAIN, NetworkKind::Mesh), Err(HandshakeError::Malformed { .. })));
    }
}
