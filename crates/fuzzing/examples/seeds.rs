//! Writes the well-formed inputs the fuzzers start from: `cargo run --release -p fuzzing --example seeds -- <directory>`
//! makes one directory for each target there.

use std::fs;
use std::io::{Error, Result};
use std::path::PathBuf;

fn main() -> Result<()> {
    let Some(root) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(Error::other("give the directory to write to"));
    };
    for (target, bytes) in fuzzing::seeds() {
        let directory = root.join(target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(crypto::hash(&bytes).to_string().trim_start_matches("0x")), bytes)?;
    }
    Ok(())
}
