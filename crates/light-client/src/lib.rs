//! Follows a chain's finality from headers and commit certificates only (specs/light_client.md).
//!
//! This crate does no IO, has no clock and trusts no server: whoever fetches headers hands them in as [`Update`]s, and
//! each one is proven by the validator set the client knows or refused with a [`Refusal`] that says what is wrong. From
//! one [`Checkpoint`] on it goes through the epochs, each final header naming the next epoch's set: one certificate per
//! epoch, however many heights lie between.
//!
//! - [`Checkpoint`] is what is trusted, and what a client writes down to go on from later.
//! - [`LightClient::apply`] takes one proven header further; [`Ancestors`] goes down from it by parent hashes.
//! - What two quorums made final against each other comes back as a [`Fork`]: a proof for third parties.
//!
//! # Invariants
//! - The head never moves back, and everything it says was signed by quorum stake of the set of its epoch.
//! - A refused update changes nothing.
//! - Work per call is one certificate, and the keys of one set where an epoch begins; memory is two sets and one header.

mod ancestors;
mod checkpoint;
mod client;
mod fork;
mod refusal;

pub use ancestors::Ancestors;
pub use checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointError, TRUST_EPOCHS_MIN};
pub use client::{LightClient, Proven, Update};
pub use fork::Fork;
pub use refusal::Refusal;
