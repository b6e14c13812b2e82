//! The BFT core: order and stake-weighted finality, as state machines without IO.
//!
//! This crate never reads a clock, a socket or a file, never draws randomness and knows no async runtime: time is
//! an argument, messages and verdicts are inputs, everything to do is an output. The rules are numbered in
//! specs/consensus.md and cited here.
//!
//! - [`Replica`]: one validator or follower. Feed it [`Input`]s, do what its [`Ready`] says, call it again at its
//!   [`Replica::deadline`].
//! - [`Safety`]: what may be signed. [`tally`]: votes into certificates. [`tree`]: blocks above the final one.
//! - [`Disk`]: what it needs from storage. [`Audit`]: who signed what no honest validator signs.

pub mod audit;
mod certificate;
pub mod disk;
pub mod evidence;
pub mod ready;
pub mod replica;
pub mod restraint;
pub mod safety;
pub mod tally;
pub mod tree;

pub use audit::{Audit, Conflict};
pub use disk::{Disk, DiskError, Durable, Record, Recovered, SignState};
pub use ready::{Event, Outbound, Ready, Request};
pub use replica::{
    BuiltAhead, Decision, DecisionStatus, EngineReply, Input, Now, Replica, Settings, StallReason,
    StartError, Status, WaitStatus,
};
pub use restraint::{Copied, Floor, Restraint, Silence};
pub use safety::{Refusal, Safety};
