//! Files as the journal uses them: created whole, preallocated, written at offsets, synced explicitly.

use crate::JournalError;
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a page: what a torn write can damage at most beyond its own bytes.
pub(crate) const PAGE: u64 = 4096;

/// How a new file gets its blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Reserved only: instant, right for big segments.
    Reserve,
    /// Written with zeros, so that later syncs never touch metadata: right for small files synced all the time.
    Zeros,
}

/// An open file with its path for error messages.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: File,
    path: PathBuf,
}

impl LogFile {
    /// Creates a file of exactly `capacity` bytes that starts with `head`, durable under its final name when this
    /// returns. Whoever finds that name later finds the whole file.
    pub fn create(path: &Path, head: &[u8], capacity: u64, fill: Fill) -> Result<Self, JournalError> {
        let file = Self::draft(path, head, capacity, fill)?.publish()?;
        sync_parent(path)?;
        Ok(file)
    }

    /// The same under a temporary name: durable, but not yet there.
    pub fn draft(path: &Path, head: &[u8], capacity: u64, fill: Fill) -> Result<Draft, JournalError> {
        let temporary = path.with_extension("new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(JournalError::io("create", &temporary))?;
        let new = Self { file, path: temporary };
        new.allocate(capacity, fill)?;
        new.write_at(head, 0)?;
        new.file.sync_all().map_err(JournalError::io("sync", &new.path))?;
        Ok(Draft { file: new, path: path.to_owned() })
    }

    pub fn open(path: &Path, write: bool) -> Result<Self, JournalError> {
        let file =
            OpenOptions::new().read(true).write(write).open(path).map_err(|source| match source.kind() {
                ErrorKind::NotFound => JournalError::Missing { path: path.to_owned() },
                _ => JournalError::io("open", path)(source),
            })?;
        Ok(Self { file, path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> Result<u64, JournalError> {
        Ok(self.file.metadata().map_err(JournalError::io("look at", &self.path))?.len())
    }

    /// Reads exactly `bytes.len()` bytes. A file that ends before is damaged: it was allocated whole.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), JournalError> {
        self.file.read_exact_at(bytes, offset).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => JournalError::damaged(
                &self.path,
                offset,
                format!("the file ends before {} bytes are read", bytes.len()),
            ),
            _ => JournalError::io("read", &self.path)(source),
        })
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), JournalError> {
        fault::write()
            .and_then(|()| self.file.write_all_at(bytes, offset))
            .map_err(JournalError::io("write", &self.path))
    }

    /// Makes all written bytes durable. The size never changes, so no metadata has to follow.
    pub fn sync(&self) -> Result<(), JournalError> {
        fault::sync().and_then(|()| self.file.sync_data()).map_err(JournalError::io("sync", &self.path))
    }

    /// The next offset at or after `offset` that may hold anything but zeros; `None` when there is none.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(found) => Some(found),
            Err(rustix::io::Errno::NXIO) => None,
            // A file system without holes: everything may be data.
            Err(_) => Some(offset),
        }
    }

    /// Whether anything but zeros stands behind `offset`.
    pub fn has_data_after(&self, mut offset: u64) -> Result<bool, JournalError> {
        let length = self.len()?;
        let mut bytes = vec![0; PAGE as usize];
        while let Some(data) = self.next_data(offset).filter(|data| *data < length) {
            let page = &mut bytes[..PAGE.min(length - data) as usize];
            self.read_at(page, data)?;
            if page.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            offset = data + PAGE;
        }
        Ok(false)
    }

    fn allocate(&self, capacity: u64, fill: Fill) -> Result<(), JournalError> {
        if fill == Fill::Zeros {
            let zeros = vec![0; usize::try_from(capacity).expect("small files only are filled with zeros")];
            return self.write_at(&zeros, 0);
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, capacity) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                self.file.set_len(capacity).map_err(JournalError::io("grow", &self.path))
            }
            Err(errno) => Err(JournalError::io("allocate", &self.path)(errno.into())),
        }
    }
}

/// A whole file that waits for its name.
pub(crate) struct Draft {
    file: LogFile,
    path: PathBuf,
}

impl Draft {
    /// Its temporary name.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the file its name; durable after [`sync_parent`].
    pub fn publish(self) -> Result<LogFile, JournalError> {
        std::fs::rename(&self.file.path, &self.path).map_err(JournalError::io("rename", &self.file.path))?;
        Ok(LogFile { file: self.file.file, path: self.path })
    }
}

/// Writes a small file whole: durable under its final name, or not there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let temporary = path.with_extension("new");
    let write = |file: &mut File| file.write_all(bytes).and_then(|()| file.sync_all());
    let mut file = File::create(&temporary).map_err(JournalError::io("create", &temporary))?;
    write(&mut file).map_err(JournalError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(JournalError::io("rename", &temporary))?;
    sync_parent(path)
}

/// Makes the names in a file's directory durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), JournalError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(JournalError::io("sync", dir))
}

/// An exclusive lock on a directory, held until dropped or the process dies.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub fn take(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join("LOCK");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(JournalError::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(JournalError::Locked { dir: dir.to_owned(), owner: owner_of(&mut file) });
            }
            Err(errno) => return Err(JournalError::io("lock", &path)(errno.into())),
        }
        let note = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(JournalError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// The process id noted in a lock file. Only a hint for people.
fn owner_of(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => format!("process {}", text.trim()),
        _ => "another process".into(),
    }
}

/// Injected faults, for tests only.
pub(crate) mod fault {
    #[cfg(test)]
    std::thread_local! {
        /// Writes and syncs that still succeed on this thread before one fails.
        pub(crate) static REMAINING: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
    }

    #[cfg(test)]
    fn step(errno: rustix::io::Errno) -> std::io::Result<()> {
        REMAINING.with(|remaining| match remaining.get() {
            Some(0) => Err(errno.into()),
            Some(n) => {
                remaining.set(Some(n - 1));
                Ok(())
            }
            None => Ok(()),
        })
    }

    #[cfg(not(test))]
    fn step(_: rustix::io::Errno) -> std::io::Result<()> {
        Ok(())
    }

    pub(crate) fn write() -> std::io::Result<()> {
        step(rustix::io::Errno::NOSPC)
    }

    pub(crate) fn sync() -> std::io::Result<()> {
        step(rustix::io::Errno::IO)
    }
}
