//! Why a consensus process could not start, or ended. Each text says what to do.

use consensus::StartError;
use engine_api::JwtError;
use journal::JournalError;
use net::NetError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use types::GenesisError;

/// Why [`crate::run`] ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration says something impossible.
    #[error("configuration: {0}")]
    Config(String),
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The genesis file is no genesis.
    #[error("{path}: {source}")]
    Genesis {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: GenesisError,
    },
    /// The validator key cannot be used.
    #[error("validator key {path}: {problem}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The keystore's password cannot be used.
    #[error("password file {path}: {problem}")]
    Password {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The secret shared with the executor cannot be used.
    #[error(transparent)]
    Secret(#[from] JwtError),
    /// The data directory is in use, of another chain, or damaged.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What the journal holds makes no state to continue from.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The validator mesh cannot start.
    #[error("validator mesh: {0}")]
    Net(#[from] NetError),
    /// A port is taken or may not be used.
    #[error(
        "cannot listen on {address} for {purpose}: {source}; choose another {setting} or stop what uses it"
    )]
    Listen {
        /// Which port.
        address: SocketAddr,
        /// For what.
        purpose: &'static str,
        /// The setting to change.
        setting: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The consensus thread cannot be started or ended by a panic.
    #[error("the consensus thread ended unexpectedly: {0}")]
    Crashed(String),
}
