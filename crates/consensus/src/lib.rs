//! The BFT core: order and stake-weighted finality, as state machines without IO.
//!
//! This crate never reads a clock, a socket or a file, never draws randomness and knows no async runtime: time is
//! an argument, messages and verdicts are inputs, everything to do is an output. The rules are numbered in
//! specs/consensus.md and cited here.

pub mod disk;

pub use disk::{Disk, DiskError, Durable, Record, Recovered, SignState};
