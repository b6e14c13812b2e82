//! What the fuzz targets in `fuzz/` call: one plain function for everything that takes bytes from a peer, an executor,
//! a file or a caller. A function returns when the bytes were judged, and panics when a rule is broken; the rules stand
//! in its documentation. `tests/replay.rs` runs the kept corpora through the same functions, so that `cargo test`
//! needs no fuzzer.
//!
//! This crate is no part of a node.

// A panic here is the finding.
#![allow(clippy::unwrap_used)]

mod certificates;
mod codec;
mod execution_inputs;
mod files;
mod keys;
mod light;
mod reader;
mod replica;
mod rpc;
mod seeds;

#[path = "../../sim/tests/lab/mod.rs"]
mod lab;
#[path = "../../light-client/tests/chain/mod.rs"]
mod light_chain;

pub use seeds::seeds;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the binary in `fuzz/fuzz_targets` and of the directory in `fuzz/corpus`.
    pub name: &'static str,
    /// What it runs.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "messages", run: codec::messages },
    Target { name: "blocks", run: codec::blocks },
    Target { name: "fetch", run: codec::fetch },
    Target { name: "certificates", run: certificates::certificates },
    Target { name: "evidence", run: certificates::evidence },
    Target { name: "bls", run: certificates::bls },
    Target { name: "hello", run: net::fuzzing::hello },
    Target { name: "binding", run: net::fuzzing::binding },
    Target { name: "frames", run: codec::frames },
    Target { name: "gossip_batch", run: net::fuzzing::batch },
    Target { name: "engine_api", run: engine_api::fuzzing::message },
    Target { name: "token", run: engine_api::fuzzing::token },
    Target { name: "journal_piece", run: journal::fuzzing::piece },
    Target { name: "journal_files", run: files::journal },
    Target { name: "genesis", run: files::genesis },
    Target { name: "config", run: files::config },
    Target { name: "keystore", run: keys::keystore },
    Target { name: "protection", run: keys::protection },
    Target { name: "payload", run: execution_inputs::payload },
    Target { name: "transaction", run: execution_inputs::transaction },
    Target { name: "rpc", run: rpc::request },
    Target { name: "light_client", run: light::light_client },
    Target { name: "light_files", run: light::light_files },
    Target { name: "replica", run: replica::replica },
];

/// Runs one target.
///
/// # Panics
/// When there is no such target, and when the bytes break a rule.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).run)(bytes);
}
