//! Hashes, Merkle trees, domain separation and BLS12-381 signatures.
//!
//! This crate never does IO, never reads a clock and never decides what a signature means: callers hand it
//! bytes. It is the only crate that names a curve library.
//!
//! - [`hash`] and [`tagged_hash`]: BLAKE3, plain and domain-separated.
//! - [`merkle`]: the tree behind `payload_commitment` and `receipts_hash`.
//! - [`domain`]: the bytes every consensus signature covers (specs/consensus.md, rule C-1.5).
//! - [`bls`]: min-pk BLS12-381 signatures with proof of possession.
//! - [`meter`]: where time goes, for benchmarks.
//! - [`simulated`]: forgeable stand-ins that make thousands of simulated networks affordable.

pub mod bls;
pub mod domain;
pub mod merkle;
pub mod meter;
mod pairing;
pub mod simulated;

pub use alloy_primitives::{B256, keccak256};
pub use bls::{BlsError, PublicKey, SecretKey, Signature, VerifyingKey};
pub use domain::{Domain, SignatureKind};

/// BLAKE3 of `bytes`.
pub fn hash(bytes: &[u8]) -> B256 {
    let _span = meter::span(meter::Phase::Hash);
    B256::from(*blake3::hash(bytes).as_bytes())
}

/// Domain-separated BLAKE3: `derive_key` mode with `context`, over the concatenation of `parts`.
///
/// `context` is a hard-coded, globally unique string such as `"tandem v1 block header"`. The parts are
/// concatenated without lengths, so at most one of them may have a variable length.
pub fn tagged_hash(context: &'static str, parts: &[&[u8]]) -> B256 {
    let _span = meter::span(meter::Phase::Hash);
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    B256::from(*hasher.finalize().as_bytes())
}
