//! Networking: the validator mesh, transaction gossip, block fetch. The only user of libp2p.
//!
//! This crate never interprets a message, never verifies a block and never decides whom to trust beyond the
//! validator set it is given: it moves bytes between authenticated peers, bounded in every direction.
//!
//! - [`mesh`]: consensusd's network. Direct links between validators; votes and proposals on their own lanes.
//! - [`gossip`]: executord's network. Batches of raw transactions, relayed only after the application's verdict.
//!
//! The two share no queue, no port and no task: however busy the transaction network is, votes do not wait for it.

mod control;
mod dial;
mod driver;
pub mod error;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod gossip;
mod hello;
pub mod id;
mod lane;
mod link;
pub mod mesh;
mod muxer;
mod outbox;
mod penalty;
mod rate;
mod transport;

pub use error::{HandshakeError, NetError};
pub use gossip::{
    GossipConfig, GossipLimits, GossipPeerInfo, GossipStats, TxGossip, TxGossipEvent, TxGossipHandle, Verdict,
};
pub use hello::{ChainIdentity, PROTOCOL_VERSION};
pub use id::NodeId;
pub use mesh::{Mesh, MeshConfig, MeshEvent, MeshHandle, MeshIdentity, MeshLimits, MeshStats, PeerInfo};
pub use penalty::Penalty;
pub use transport::Transport;
