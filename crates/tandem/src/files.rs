//! Small files, written whole or not at all.

use crate::error::{CliError, CliResult};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of a text file this tool reads: a genesis with a million accounts is smaller.
const TEXT_BYTES_MAX: u64 = 256 << 20;

/// Reads a text file.
pub fn read_text(path: &Path) -> CliResult<String> {
    read_text_within(path, TEXT_BYTES_MAX)
}

/// Reads the beginning of a text file, at most so many bytes.
pub fn read_text_within(path: &Path, bytes_max: u64) -> CliResult<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max).read_to_string(&mut text))
        .map_err(CliError::while_trying(format!("read {}", path.display())))?;
    Ok(text)
}

/// Writes a new file; an existing one is never touched.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> CliResult {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(CliError::new(format!(
                "{} exists and is not replaced: choose another name or remove it",
                path.display()
            )));
        }
        Err(error) => return Err(CliError::while_trying(format!("create {}", path.display()))(error)),
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
        // What is not whole would be in the way of the next attempt.
        let _ = fs::remove_file(path);
        CliError::while_trying(format!("write {}", path.display()))(error)
    })
}

/// Writes a file, replacing an older one in one step.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> CliResult {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(CliError::while_trying(format!("write {}", path.display())))
}

/// Makes a directory and its parents.
pub fn create_dir(path: &Path) -> CliResult {
    fs::create_dir_all(path).map_err(CliError::while_trying(format!("create {}", path.display())))
}
