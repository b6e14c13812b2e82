//! Why a journal cannot be opened, read or written, and what to do about it.

use consensus::DiskError;
use std::path::{Path, PathBuf};
use types::B256;

/// What an operator must do before a damaged journal may be replaced. Part of every refusal.
const ADVICE: &str = "Refusing to sign: votes may have left this node that the file no longer shows. Keep the \
     directory, run `tandem db check`, and look at the disk. Rejoin with an empty journal only after the epoch of the \
     last vote has passed, or with a new validator key";

/// A journal that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system failed a call.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another process uses the directory.
    #[error("the journal {} is in use by {owner}: stop that process first, two validators must never share a key",
        dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds the lock, as far as it is known.
        owner: String,
    },
    /// The directory belongs to another chain.
    #[error("the journal {} belongs to the chain with genesis {found}, this node runs genesis {expected}: use another \
        data directory or the matching genesis file", dir.display())]
    ForeignGenesis {
        /// The directory.
        dir: PathBuf,
        /// Genesis hash in the directory.
        found: B256,
        /// Genesis hash of the node.
        expected: B256,
    },
    /// Written by another version.
    #[error("{} has format version {found}, this version reads {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version this code reads and writes.
        supported: u32,
    },
    /// Acknowledged bytes are gone or changed.
    #[error("{} is damaged at byte {offset}: {what}. {ADVICE}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// A file of an initialised journal is gone.
    #[error("{} is missing although the journal was initialised. {ADVICE}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The block log proves that a newer sign-state was written than the one found.
    #[error("the sign-state in {} went back: the newest record is number {found}, the block log proves number {proven} \
        was written. {ADVICE}", dir.display())]
    SignStateWentBack {
        /// The directory.
        dir: PathBuf,
        /// Newest record found.
        found: u64,
        /// Newest record proven.
        proven: u64,
    },
    /// The sign-state proves that more blocks were written than are found.
    #[error("the block log in {} lost records: it ends at number {found}, the sign-state proves number {proven} was \
        written. {ADVICE}", dir.display())]
    BlocksLost {
        /// The directory.
        dir: PathBuf,
        /// Last record found.
        found: u64,
        /// Last record proven.
        proven: u64,
    },
    /// A record that no version of this code writes.
    #[error("{} holds an impossible record {sequence}: {what}. {ADVICE}", path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// Number of the record.
        sequence: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The caller asked for something that must never be written. Nothing was.
    #[error("refused to write: {0}")]
    Refused(String),
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, what: what.into() }
    }
}

impl From<JournalError> for DiskError {
    fn from(error: JournalError) -> Self {
        Self(error.to_string())
    }
}
