//! Model checking of the voting rules (specs/model.md): every state of small networks, with the project's own signer
//! ([`consensus::Safety`]), auditor ([`consensus::Audit`]), votes and certificates. No rule is written down here again.
//!
//! - [`Network`]: honest validators against an adversary that signs everything. No fork below a third of faulty stake,
//!   and above it no fork without evidence.
//! - [`Lone`]: one honest validator, shown every certificate there could be. Nothing slashable is signed.
//! - [`Court`]: every conflict of final blocks, with every choice of signers. A third of stake is guilty.
//!
//! A [`Rule`] can be taken away, to see that the checker finds what follows.

pub mod evidence;
pub mod log;
pub mod lone;
pub mod network;
pub mod search;
pub mod signer;
pub mod universe;

pub use evidence::Court;
pub use lone::{Alphabet, Lone};
pub use network::{Network, Settings, Timeouts};
pub use signer::Rule;
pub use universe::{ModelError, Shape, Universe};
