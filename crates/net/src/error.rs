//! Errors of the networking layer, split by who is to blame: the operator's configuration, a peer, or nobody (a
//! deadline, a lost connection).

use crate::id::NodeId;
use alloy_primitives::B256;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an operation of this crate failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// A setting is out of range.
    #[error("network setting {field} is {value}, must be {expected}")]
    Config {
        /// Which one.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// The network key file cannot be used.
    #[error("network key file {path}: {reason}")]
    KeyFile {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The listen address cannot be bound.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        reason: String,
    },
    /// A validator is not connected right now.
    #[error("validator {key} is not connected")]
    NotConnected {
        /// Which one.
        key: crypto::PublicKey,
    },
    /// Nobody is connected who could answer.
    #[error("no peer is connected")]
    NoPeer,
    /// The answer did not come in time.
    #[error("no answer within {timeout_ms} ms")]
    Deadline {
        /// The time allowed.
        timeout_ms: u64,
    },
    /// The peer is up but has no capacity for this request now.
    #[error("the peer is busy: {reason}")]
    PeerBusy {
        /// Which of its limits was hit.
        reason: &'static str,
    },
    /// The connection or stream broke.
    #[error("the connection broke: {reason}")]
    Broken {
        /// How.
        reason: String,
    },
    /// The peer answered with bytes that are no answer.
    #[error("the peer misbehaved: {reason}")]
    Misbehaved {
        /// What it did.
        reason: String,
    },
    /// More bytes than a message may have.
    #[error("{bytes} bytes, at most {limit} can be sent")]
    TooLarge {
        /// The size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The network was shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// Why a connection was refused, by us or by the other side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Another protocol generation.
    #[error("protocol version {theirs}, ours is {ours}")]
    WrongVersion {
        /// Our version.
        ours: u16,
        /// The peer's.
        theirs: u16,
    },
    /// An executor dialed a validator mesh or the other way round.
    #[error("the peer belongs to the {theirs} network, this is the {ours} network")]
    WrongNetwork {
        /// Our network.
        ours: &'static str,
        /// The peer's.
        theirs: &'static str,
    },
    /// Another chain id.
    #[error("chain id {theirs}, ours is {ours}")]
    WrongChain {
        /// Our chain id.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// Another genesis.
    #[error("genesis hash {theirs}, ours is {ours}")]
    WrongGenesis {
        /// Our genesis hash.
        ours: B256,
        /// The peer's.
        theirs: B256,
    },
    /// Another rule set for the same genesis.
    #[error("rules hash {theirs}, ours is {ours}")]
    WrongRules {
        /// Our rules hash.
        ours: B256,
        /// The peer's.
        theirs: B256,
    },
    /// The binding proof names another connection's identity: it was stolen or copied.
    #[error("the binding proof is for peer {bound}, the connection is with {connected}")]
    BindingPeer {
        /// The identity in the proof.
        bound: String,
        /// The identity of the connection.
        connected: NodeId,
    },
    /// The binding proof is too old.
    #[error("the binding proof expired at {expired_unix_s}, now is {now_unix_s}")]
    BindingExpired {
        /// When it expired, in Unix seconds.
        expired_unix_s: u64,
        /// Our clock, in Unix seconds.
        now_unix_s: u64,
    },
    /// The binding proof is valid for too long: a leaked network key would be of use for too long.
    #[error("the binding proof lasts {lifetime_s} s, at most {limit_s} s are accepted")]
    BindingTooLong {
        /// Its remaining life.
        lifetime_s: u64,
        /// The limit.
        limit_s: u64,
    },
    /// The consensus key did not sign the binding.
    #[error("the binding proof is not signed by {key}")]
    BindingSignature {
        /// The key it names.
        key: crypto::PublicKey,
    },
    /// Another node speaks for our own consensus key: a copy of this validator is running.
    #[error("{node} speaks for our own consensus key: is a copy of this validator running?")]
    OwnKey {
        /// Who else has it.
        node: NodeId,
    },
    /// The peer misbehaved before and is kept out for a while.
    #[error("kept out for another {remaining_ms} ms after misbehaviour")]
    Banned {
        /// How long still.
        remaining_ms: u64,
    },
    /// No capacity for peers of this kind.
    #[error("all {limit} places for {kind} are taken")]
    Full {
        /// What kind.
        kind: &'static str,
        /// How many there are.
        limit: u64,
    },
    /// The other side refused us.
    #[error("the peer refused this node: {reason}")]
    RefusedByPeer {
        /// What it said.
        reason: &'static str,
    },
    /// Bytes that are no handshake.
    #[error("malformed handshake: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The handshake took too long.
    #[error("no handshake within {timeout_ms} ms")]
    Timeout {
        /// The time allowed.
        timeout_ms: u64,
    },
    /// The connection went away.
    #[error("the connection broke during the handshake: {reason}")]
    Broken {
        /// How.
        reason: String,
    },
}

/// Reads a lock even if a panicking thread held it: every critical section here leaves its data consistent.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
