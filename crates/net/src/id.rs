//! The identity of a node on a network: its ed25519 network key, never its consensus key.

use crate::error::NetError;
use libp2p::PeerId;
use libp2p::identity::{Keypair, ed25519};
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// A node's network identity: the hash of its network key. Prints as libp2p's base58 text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) PeerId);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const KEY_BYTES: usize = 32;

/// Loads the network key from `path`, or generates one and stores it there, readable by the owner only.
///
/// A file that others can read is refused: whoever has this key can take the node's place in the network (though
/// not in consensus, whose key is another one).
pub(crate) fn load_or_create(path: &Path) -> Result<Keypair, NetError> {
    let refuse = |reason: String| NetError::KeyFile { path: path.to_owned(), reason };
    match fs::File::open(path) {
        Ok(file) => load(file).map_err(refuse),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path).map_err(refuse),
        Err(error) => Err(refuse(error.to_string())),
    }
}

fn load(mut file: fs::File) -> Result<Keypair, String> {
    let mode = file.metadata().map_err(|e| e.to_string())?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("mode {:o} lets others read it, must be 600", mode & 0o777));
    }
    let mut text = String::new();
    (&mut file).take(256).read_to_string(&mut text).map_err(|e| e.to_string())?;
    let mut seed = [0; KEY_BYTES];
    alloy_primitives::hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|_| format!("holds no {KEY_BYTES}-byte hex key"))?;
    keypair(seed)
}

/// Writes to a temporary file first, so that a crash leaves either no key or a whole one.
fn create(path: &Path) -> Result<Keypair, String> {
    let mut seed = [0; KEY_BYTES];
    getrandom::fill(&mut seed).map_err(|e| e.to_string())?;
    let text = alloy_primitives::hex::encode(seed);
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| e.to_string())?;
    keypair(seed)
}

fn keypair(mut seed: [u8; KEY_BYTES]) -> Result<Keypair, String> {
    let secret = ed25519::SecretKey::try_from_bytes(&mut seed).map_err(|e| e.to_string())?;
    Ok(Keypair::from(ed25519::Keypair::from(secret)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/network.key");
        let made = load_or_create(&path).unwrap().public().to_peer_id();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&path).unwrap().public().to_peer_id(), made);
    }

    #[test]
    fn a_readable_or_damaged_key_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_create(&path), Err(NetError::KeyFile { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "not a key").unwrap();
        assert!(matches!(load_or_create(&path), Err(NetError::KeyFile { .. })));
    }
}
