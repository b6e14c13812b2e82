//! The data directory, one process at a time.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process works in it.
    #[error("data directory {path} is in use by process {owner}; stop it first")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process id as it wrote it down.
        owner: String,
    },
    /// The system refuses.
    #[error("data directory {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A locked data directory. The system frees it with the process, however that ends.
#[derive(Debug)]
pub(crate) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the directory if needed and locks it through `lock_file`.
    pub fn lock(path: &Path, lock_file: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.into(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(lock_file)
            .map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataDirError::InUse { path: path.into(), owner: read_owner(&mut file) });
            }
            Err(error) => return Err(io(error.into())),
        }
        write_owner(&mut file).map_err(io)?;
        Ok(Self { _lock: file })
    }
}

fn read_owner(file: &mut File) -> String {
    let mut owner = String::new();
    match file.take(32).read_to_string(&mut owner) {
        Ok(_) if !owner.trim().is_empty() => owner.trim().to_owned(),
        _ => "unknown".into(),
    }
}

fn write_owner(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_is_locked_until_its_owner_is_gone() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("execution");
        let lock_file = path.join("LOCK");
        let held = DataDir::lock(&path, &lock_file).unwrap();
        let refused = DataDir::lock(&path, &lock_file).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
        drop(held);
        DataDir::lock(&path, &lock_file).unwrap();
    }
}
