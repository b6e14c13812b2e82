//! The validator's key file: `{"secret_key": "0x..", "public_key": "0x.."}`, for its owner's eyes only.

use crate::Error;
use crypto::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of a key file.
const FILE_BYTES_MAX: u64 = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    secret_key: String,
    public_key: PublicKey,
}

#[derive(Serialize)]
struct NewKeyFile<'a> {
    secret_key: &'a str,
    public_key: PublicKey,
}

/// Reads a key file. Refused when others can read it, and when its two keys do not belong together: then it was
/// edited or damaged.
pub fn load_key(path: &Path) -> Result<SecretKey, Error> {
    let refuse = |problem: String| Error::Key { path: path.into(), problem };
    let io = |source| Error::File { action: "read the validator key", path: path.into(), source };
    let file = fs::File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refuse(format!("mode {mode:o} lets others read it; run chmod 600 on it")));
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(io)?;
    // The parser's message could quote the secret, so only its place is told.
    let parsed: KeyFile = serde_json::from_slice(&text).map_err(|error| {
        refuse(format!(
            "not JSON of the form {{\"secret_key\", \"public_key\"}} (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    let digits = Zeroizing::new(parsed.secret_key);
    let mut secret = Zeroizing::new([0; 32]);
    alloy_primitives::hex::decode_to_slice(digits.as_str(), secret.as_mut())
        .map_err(|_| refuse("secret_key is not 32 bytes of hex".into()))?;
    let secret = SecretKey::from_bytes(&secret).map_err(|error| refuse(error.to_string()))?;
    if secret.public_key() != parsed.public_key {
        return Err(refuse(format!(
            "public_key is {}, the secret key's is {}",
            parsed.public_key,
            secret.public_key()
        )));
    }
    Ok(secret)
}

/// Writes a new key file with mode 0600; never replaces one.
pub fn write_key(path: &Path, key: &SecretKey) -> Result<(), Error> {
    let io = |source| Error::File { action: "write the validator key", path: path.into(), source };
    let secret = Zeroizing::new(alloy_primitives::hex::encode_prefixed(*key.to_bytes()));
    let content = NewKeyFile { secret_key: &secret, public_key: key.public_key() };
    let json = serde_json::to_vec_pretty(&content).expect("two strings are JSON");
    let json = Zeroizing::new(json);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(&json).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_written_key_is_private_reads_back_and_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("validator.json");
        let key = SecretKey::generate();
        write_key(&path, &key).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_key(&path).unwrap().public_key(), key.public_key());
        assert!(matches!(write_key(&path, &SecretKey::generate()), Err(Error::File { .. })));
    }

    #[test]
    fn readable_damaged_and_mismatched_key_files_are_refused_without_quoting_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("validator.json");
        let key = SecretKey::generate();
        write_key(&path, &key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_key(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let secret = alloy_primitives::hex::encode(*key.to_bytes());
        let other = SecretKey::generate().public_key();
        let damaged = [
            good.replace(&key.public_key().to_string(), &other.to_string()),
            good.replace(&secret, &secret[2..]),
            good.replace(&secret, &"0".repeat(64)),
            good.replace("secret_key", "secret"),
            good[..good.len() / 2].to_owned(),
            String::new(),
        ];
        for content in damaged {
            fs::write(&path, &content).unwrap();
            let text = load_key(&path).unwrap_err().to_string();
            assert!(!text.contains(&secret[2..20]), "{text}");
        }
        assert!(matches!(load_key(&dir.path().join("none")), Err(Error::File { .. })));
    }
}
