//! consensusd: one event loop around the consensus core, with everything it needs from the world: the journal, the
//! validator mesh, the executor, REST and metrics.
//!
//! This crate never decides anything about votes, blocks or finality: that is [`consensus`]. It never touches a
//! transaction: that is the executor's. It carries events in, and orders out, in the order the core demands.
//!
//! - [`Config`]: the settings. [`run`]: the process. [`load_key`], [`write_key`]: the validator's key file.
//! - [`parse_protection`], [`print_protection`]: the slashing-protection file.

mod clock;
mod config;
mod driver;
mod engine_link;
mod error;
mod feed;
mod http;
mod key;
mod metrics;
mod protection;
mod rest;
mod run;

pub use config::Config;
pub use config::DOPPELGANGER_VIEWS_MAX;
pub use error::Error;
pub use key::{
    load_key, open_keystore, public_key_of, read_keystore, read_password, unlock_key, write_key,
    write_keystore,
};
pub use protection::{PROTECTION_BYTES_MAX, ProtectionError, parse_protection, print_protection};
pub use run::run;
