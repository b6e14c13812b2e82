//! Encrypted key files as EIP-2335 describes them (version 4), readable and writable by every staking tool.
//!
//! The file is not trusted: its size, the memory and the work its key derivation asks for are checked before anything
//! is derived. This crate knows bytes only: what kind of key the secret is and whether it belongs to the public key
//! in the file is the caller's to check.
//!
//! - [`Password`]: normalised as the standard demands. [`Keystore`]: parse, decrypt, encrypt, write.
//! - [`Kdf`]: how the password becomes a key, and its limits.

mod error;
mod format;
mod kdf;
mod password;

pub use error::KeystoreError;
pub use kdf::{Kdf, PBKDF2_ROUNDS_MAX, SCRYPT_MEMORY_MAX, SCRYPT_WORK_MAX};
pub use password::{PASSWORD_BYTES_MAX, Password};

use aes::cipher::{KeyIvInit, StreamCipher};
use format::{Checksum, Cipher, CipherParams, Crypto, Empty, File};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a keystore file. Those of other tools have less than 2 KiB.
pub const FILE_BYTES_MAX: usize = 64 << 10;

/// Bytes of an encrypted secret. Validator keys have 32.
pub const SECRET_BYTES_MAX: usize = 1024;

const VERSION: u64 = 4;
const CIPHER: &str = "aes-128-ctr";
const CHECKSUM: &str = "sha256";

/// An encrypted secret with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keystore {
    kdf: Kdf,
    iv: [u8; 16],
    encrypted: Vec<u8>,
    checksum: [u8; 32],
    details: Details,
    uuid: String,
}

/// What a keystore says in clear beside the encrypted secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// For people.
    pub description: Option<String>,
    /// The public key as hex digits without prefix, if the file names it. Not checked against the secret here.
    pub public_key: Option<String>,
    /// Derivation path (EIP-2334); empty for a key that was not derived.
    pub path: String,
}

impl Keystore {
    /// Whether a file may be a keystore: JSON with an object `crypto`. Says nothing of its soundness.
    pub fn looks_like_one(bytes: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Probe {
            #[serde(rename = "crypto")]
            _crypto: serde::de::IgnoredAny,
        }
        bytes.len() <= FILE_BYTES_MAX && serde_json::from_slice::<Probe>(bytes).is_ok()
    }

    /// Reads a keystore and checks everything that needs no password, the limits of its key derivation included.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeystoreError> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(KeystoreError::FileTooLarge { bytes: bytes.len(), limit: FILE_BYTES_MAX });
        }
        let file: File = serde_json::from_slice(bytes).map_err(|e| KeystoreError::Json(e.to_string()))?;
        if file.version != VERSION {
            return Err(KeystoreError::Version { found: file.version });
        }
        let Crypto { kdf, checksum, cipher } = file.crypto;
        expect("checksum function", &checksum.function, CHECKSUM)?;
        expect("cipher", &cipher.function, CIPHER)?;
        let encrypted = format::bytes("cipher.message", &cipher.message)?;
        if encrypted.is_empty() || encrypted.len() > SECRET_BYTES_MAX {
            return Err(KeystoreError::SecretLength { bytes: encrypted.len(), limit: SECRET_BYTES_MAX });
        }
        let kdf = Kdf::read(kdf)?;
        kdf.check()?;
        Ok(Self {
            kdf,
            iv: format::array("cipher.params.iv", &cipher.params.iv)?,
            encrypted,
            checksum: format::array("checksum.message", &checksum.message)?,
            details: Details { description: file.description, public_key: file.pubkey, path: file.path },
            uuid: file.uuid,
        })
    }

    /// The secret, or [`KeystoreError::WrongPassword`]. Takes as long as the derivation does: up to seconds.
    pub fn decrypt(&self, password: &Password) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
        let key = self.kdf.derive(password)?;
        if checksum(&key, &self.encrypted) != self.checksum {
            return Err(KeystoreError::WrongPassword);
        }
        let mut secret = Zeroizing::new(self.encrypted.clone());
        apply_cipher(&key, &self.iv, &mut secret);
        Ok(secret)
    }

    /// Encrypts a secret under fresh randomness: initialisation vector and identifier; the salt is `kdf`'s.
    pub fn encrypt(
        secret: &[u8],
        password: &Password,
        kdf: Kdf,
        details: Details,
    ) -> Result<Self, KeystoreError> {
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            return Err(KeystoreError::SecretLength { bytes: secret.len(), limit: SECRET_BYTES_MAX });
        }
        kdf.check()?;
        let key = kdf.derive(password)?;
        let iv = kdf::random()?;
        // The buffer holds the secret until it is encrypted in place.
        let mut encrypted = Zeroizing::new(secret.to_vec());
        apply_cipher(&key, &iv, &mut encrypted);
        let encrypted = encrypted.to_vec();
        let checksum = checksum(&key, &encrypted);
        Ok(Self { kdf, iv, encrypted, checksum, details, uuid: uuid(kdf::random()?) })
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let crypto = Crypto {
            kdf: self.kdf.write(),
            checksum: Checksum {
                function: CHECKSUM.into(),
                params: Empty {},
                message: hex::encode(self.checksum),
            },
            cipher: Cipher {
                function: CIPHER.into(),
                params: CipherParams { iv: hex::encode(self.iv) },
                message: hex::encode(&self.encrypted),
            },
        };
        let Details { description, public_key, path } = self.details.clone();
        let uuid = self.uuid.clone();
        let file = File { crypto, description, pubkey: public_key, path, uuid, version: VERSION };
        serde_json::to_string_pretty(&file).expect("strings and numbers are JSON") + "\n"
    }

    /// What the file says in clear.
    pub fn details(&self) -> &Details {
        &self.details
    }

    /// The file's identifier.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// How the password becomes a key.
    pub fn kdf(&self) -> &Kdf {
        &self.kdf
    }
}

fn expect(field: &'static str, found: &str, supported: &'static str) -> Result<(), KeystoreError> {
    if found == supported {
        return Ok(());
    }
    Err(KeystoreError::Unsupported { field, found: found.chars().take(64).collect(), supported })
}

fn checksum(key: &[u8; 32], encrypted: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(&key[16..]).chain_update(encrypted).finalize().into()
}

fn apply_cipher(key: &[u8; 32], iv: &[u8; 16], bytes: &mut [u8]) {
    let mut half = Zeroizing::new([0; 16]);
    half.copy_from_slice(&key[..16]);
    ctr::Ctr128BE::<aes::Aes128>::new((&*half).into(), iv.into()).apply_keystream(bytes);
}

/// Random bytes as a version 4 UUID (RFC 9562).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}
