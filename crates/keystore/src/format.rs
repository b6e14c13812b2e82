//! The JSON of a keystore.

use crate::KeystoreError;
use serde::{Deserialize, Serialize};

/// Hex digits of one field.
const HEX_DIGITS_MAX: usize = 4096;

#[derive(Serialize, Deserialize)]
pub(crate) struct File {
    pub crypto: Crypto,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pubkey: Option<String>,
    pub path: String,
    pub uuid: String,
    pub version: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Crypto {
    pub kdf: KdfModule,
    pub checksum: Checksum,
    pub cipher: Cipher,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct KdfModule {
    pub function: String,
    pub params: KdfParams,
    pub message: String,
}

/// The parameters of both functions; which must be there depends on the function.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct KdfParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub c: Option<u64>,
    pub dklen: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r: Option<u64>,
    pub salt: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Checksum {
    pub function: String,
    pub params: Empty,
    pub message: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Empty {}

#[derive(Serialize, Deserialize)]
pub(crate) struct Cipher {
    pub function: String,
    pub params: CipherParams,
    pub message: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CipherParams {
    pub iv: String,
}

/// A field of hex digits, with or without prefix.
pub(crate) fn bytes(field: &'static str, text: &str) -> Result<Vec<u8>, KeystoreError> {
    if text.len() > HEX_DIGITS_MAX {
        let problem = format!("{} digits, at most {HEX_DIGITS_MAX} are supported", text.len());
        return Err(KeystoreError::Field { field, problem });
    }
    hex::decode(text.strip_prefix("0x").unwrap_or(text))
        .map_err(|error| KeystoreError::Field { field, problem: error.to_string() })
}

/// The same of a fixed length.
pub(crate) fn array<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], KeystoreError> {
    let bytes = bytes(field, text)?;
    let length = bytes.len();
    bytes
        .try_into()
        .map_err(|_| KeystoreError::Field { field, problem: format!("{length} bytes instead of {N}") })
}
