//! The validator's key file, for its owner's eyes only: a keystore (EIP-2335), or a plain key as
//! `{"secret_key": "0x..", "public_key": "0x.."}`.

use crate::Error;
use crypto::{PublicKey, SecretKey};
use keystore::{Details, FILE_BYTES_MAX as KEYSTORE_BYTES_MAX, Kdf, Keystore, PASSWORD_BYTES_MAX, Password};
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

/// Reads a key file of either kind; a keystore needs the file with its password.
pub fn unlock_key(path: &Path, password_file: Option<&Path>) -> Result<SecretKey, Error> {
    let refuse = |problem: String| Error::Key { path: path.into(), problem };
    let Some(keystore) = read_keystore(path)? else {
        return match password_file {
            Some(_) => Err(refuse(
                "it is a plain key, so there is no use for a password file: remove the setting, or encrypt the key \
                 with `tandem keys import`"
                    .into(),
            )),
            None => load_key(path),
        };
    };
    let Some(password_file) = password_file else {
        return Err(refuse(
            "it is a keystore: name the file with its password (password_file in node.toml, \
            --password-file of commands)"
                .into(),
        ));
    };
    open_keystore(&keystore, &read_password(password_file)?).map_err(refuse)
}

/// The public key a key file names, without the password of a keystore.
pub fn public_key_of(path: &Path) -> Result<PublicKey, Error> {
    let refuse = |problem: String| Error::Key { path: path.into(), problem };
    let Some(keystore) = read_keystore(path)? else {
        return load_key(path).map(|key| key.public_key());
    };
    let named = keystore.details().public_key.as_deref().unwrap_or_default();
    named.trim_start_matches("0x").parse().map_err(|_| refuse("the keystore names no public key".into()))
}

/// The keystore in a file; `None` when it is a key file of the plain kind.
pub fn read_keystore(path: &Path) -> Result<Option<Keystore>, Error> {
    let text = read_private(path, KEYSTORE_BYTES_MAX as u64, "read the validator key")?;
    if !Keystore::looks_like_one(&text) {
        return Ok(None);
    }
    let refuse =
        |error: keystore::KeystoreError| Error::Key { path: path.into(), problem: error.to_string() };
    Keystore::parse(&text).map(Some).map_err(refuse)
}

/// The key in a keystore, if the password is right and the file's public key is the secret's.
pub fn open_keystore(keystore: &Keystore, password: &Password) -> Result<SecretKey, String> {
    let secret = keystore.decrypt(password).map_err(|error| error.to_string())?;
    let secret: &[u8; 32] = secret
        .as_slice()
        .try_into()
        .map_err(|_| format!("its secret has {} bytes, a validator key has 32", secret.len()))?;
    let key = SecretKey::from_bytes(secret).map_err(|error| error.to_string())?;
    let own = key.public_key().to_string();
    match &keystore.details().public_key {
        Some(named) if named.trim_start_matches("0x").eq_ignore_ascii_case(own.trim_start_matches("0x")) => {
            Ok(key)
        }
        Some(named) => Err(format!("it names public key {named}, the secret's is {own}")),
        None => Ok(key),
    }
}

/// Reads a password file. Refused when others can read it, and when it holds no password.
pub fn read_password(path: &Path) -> Result<Password, Error> {
    let refuse = |problem: String| Error::Password { path: path.into(), problem };
    // One more byte than allowed, so that a longer one is noticed.
    let text = read_private(path, PASSWORD_BYTES_MAX as u64 + 1, "read the password")?;
    let text = std::str::from_utf8(&text).map_err(|_| refuse("it is not UTF-8 text".into()))?;
    Password::new(text).map_err(|error| refuse(error.to_string()))
}

/// Encrypts a key into a new keystore file with mode 0600; never replaces one.
pub fn write_keystore(path: &Path, key: &SecretKey, password: &Password, kdf: Kdf) -> Result<(), Error> {
    let refuse =
        |error: keystore::KeystoreError| Error::Key { path: path.into(), problem: error.to_string() };
    let public_key = key.public_key().to_string().trim_start_matches("0x").to_owned();
    let details = Details {
        description: Some("Tandem validator key".into()),
        public_key: Some(public_key),
        path: String::new(),
    };
    let keystore = Keystore::encrypt(key.to_bytes().as_slice(), password, kdf, details).map_err(refuse)?;
    write_private(path, keystore.to_json().as_bytes())
}

/// A secret file's bytes, up to a limit. Refused when others can read it.
fn read_private(path: &Path, limit: u64, action: &'static str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let io = |source| Error::File { action, path: path.into(), source };
    let file = fs::File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let problem = format!("mode {mode:o} lets others read it; run chmod 600 on it");
        return Err(Error::Key { path: path.into(), problem });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Writes a new file with mode 0600, whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let io = |source| Error::File { action: "write the validator key", path: path.into(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a key is none, and would be in the way of the next attempt.
        let _ = fs::remove_file(path);
        io(error)
    })
}

/// Reads a plain key file. Refused when others can read it, and when its two keys do not belong together: then it was
/// edited or damaged.
pub fn load_key(path: &Path) -> Result<SecretKey, Error> {
    let refuse = |problem: String| Error::Key { path: path.into(), problem };
    let text = read_private(path, FILE_BYTES_MAX, "read the validator key")?;
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

/// Writes a new plain key file with mode 0600; never replaces one.
pub fn write_key(path: &Path, key: &SecretKey) -> Result<(), Error> {
    let secret = Zeroizing::new(alloy_primitives::hex::encode_prefixed(*key.to_bytes()));
    let content = NewKeyFile { secret_key: &secret, public_key: key.public_key() };
    let mut json = Zeroizing::new(serde_json::to_vec_pretty(&content).expect("two strings are JSON"));
    json.push(b'\n');
    write_private(path, &json)
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

    fn cheap() -> Kdf {
        Kdf::Pbkdf2 { c: 2, salt: vec![7; 32] }
    }

    #[test]
    fn a_keystore_opens_with_its_password_file_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let [path, password, other] =
            ["validator.json", "password", "other"].map(|name| dir.path().join(name));
        let key = SecretKey::generate();
        write_keystore(&path, &key, &Password::new("correct horse").unwrap(), cheap()).unwrap();
        write_private(&password, b"correct horse\n").unwrap();
        write_private(&other, b"battery staple").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(unlock_key(&path, Some(&password)).unwrap().public_key(), key.public_key());
        let refused = |password: Option<&Path>| unlock_key(&path, password).unwrap_err().to_string();
        assert!(refused(Some(&other)).contains("wrong password"), "{}", refused(Some(&other)));
        assert!(refused(None).contains("password_file"), "{}", refused(None));
        for (text, says) in [(&b"\n"[..], "empty"), (&[0xff, 0xfe], "UTF-8"), (&[b'a'; 5000], "4097 bytes")] {
            fs::write(&other, text).unwrap();
            assert!(refused(Some(&other)).contains(says), "{}", refused(Some(&other)));
        }
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(Some(&password)).contains("chmod 600"), "{}", refused(Some(&password)));
        assert!(refused(Some(&dir.path().join("none"))).contains("cannot read the password"));
    }

    #[test]
    fn a_plain_key_needs_no_password_and_a_keystore_of_another_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let [plain, swapped, password] =
            ["plain.json", "swapped.json", "password"].map(|name| dir.path().join(name));
        let key = SecretKey::generate();
        write_key(&plain, &key).unwrap();
        write_private(&password, b"p").unwrap();
        assert_eq!(unlock_key(&plain, None).unwrap().public_key(), key.public_key());
        assert!(unlock_key(&plain, Some(&password)).unwrap_err().to_string().contains("plain key"));
        let details = Details { public_key: Some("ab".repeat(48)), ..Details::default() };
        let secret = key.to_bytes();
        let store = Keystore::encrypt(&*secret, &Password::new("p").unwrap(), cheap(), details).unwrap();
        write_private(&swapped, store.to_json().as_bytes()).unwrap();
        let text = unlock_key(&swapped, Some(&password)).unwrap_err().to_string();
        assert!(text.contains("names public key abab"), "{text}");
    }
}
