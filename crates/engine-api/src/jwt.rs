//! The token on every call (EA-3): JWT with HS256 over a 32-byte secret that both processes read from one file, as
//! between Ethereum's clients.
//!
//! Only HS256 exists here, so the code is the HMAC and two JSON objects. A general JWT library would bring RSA and
//! three signature curves along, one of them under an open security advisory.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::Sha256;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// How far a token's `iat` may be from the server's clock, in seconds.
pub const IAT_DRIFT_S_MAX: u64 = 60;

/// Bytes of a token. Longer ones are refused unread.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Bytes of a secret file: 64 digits, `0x` and white space fit well.
const FILE_BYTES_MAX: u64 = 1024;

/// The shared secret. Wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct JwtSecret(Zeroizing<[u8; 32]>);

/// Why no secret could be had.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The file cannot be read or written.
    #[error("cannot {action} engine API secret {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("engine API secret {path} must hold 64 hex digits (32 bytes): {problem}")]
    BadFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with its content.
        problem: String,
    },
    /// The text is no secret.
    #[error("an engine API secret is 64 hex digits (32 bytes): {0}")]
    BadHex(String),
}

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No `authorization: Bearer` header.
    #[error("no bearer token in the authorization header")]
    Missing,
    /// Not a token of this form.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// Signed by another algorithm, or by none.
    #[error("token algorithm \"{0}\" is not HS256")]
    WrongAlgorithm(String),
    /// Made with another secret.
    #[error("token signature does not verify: the two processes use different secrets")]
    WrongSignature,
    /// Issued too long ago or in the future.
    #[error("token issued at {iat}, the clock here shows {now}: more than {IAT_DRIFT_S_MAX} s apart")]
    Stale {
        /// The token's time.
        iat: u64,
        /// This clock's.
        now: u64,
    },
}

/// `{"alg":"HS256","typ":"JWT"}`.
#[derive(Deserialize)]
struct JoseHeader {
    alg: String,
}

/// The claims that matter; unknown ones are ignored, as Ethereum's specification asks.
#[derive(Deserialize)]
struct Claims {
    iat: u64,
}

impl std::fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JwtSecret(..)")
    }
}

impl JwtSecret {
    /// A fresh secret from the operating system's randomness.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).expect("the operating system provides randomness");
        Self(bytes)
    }

    /// Parses 64 hex digits, with or without `0x`, white space around them allowed.
    pub fn from_hex(text: &str) -> Result<Self, JwtError> {
        let digits = text.trim();
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, bytes.as_mut())
            .map_err(|error| JwtError::BadHex(format!("found {} characters: {error}", digits.len())))?;
        Ok(Self(bytes))
    }

    /// Reads the secret from its file.
    pub fn load(path: &Path) -> Result<Self, JwtError> {
        let io = |source| JwtError::Io { action: "read", path: path.into(), source };
        let mut text = Zeroizing::new(String::new());
        let file = fs::File::open(path).map_err(io)?;
        match file.take(FILE_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(JwtError::BadFile { path: path.into(), problem: "it is not text".into() });
            }
            Err(error) => return Err(io(error)),
        }
        Self::from_hex(&text).map_err(|error| match error {
            JwtError::BadHex(problem) => JwtError::BadFile { path: path.into(), problem },
            other => other,
        })
    }

    /// Reads the secret, or makes one when there is no file. Two processes that start at once end with the same
    /// secret: the file appears whole, and only the first one wins.
    pub fn load_or_create(path: &Path) -> Result<Self, JwtError> {
        match Self::load(path) {
            Err(JwtError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let io = |source| JwtError::Io { action: "create", path: path.into(), source };
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", hex::encode(&Self::generate().0[..8])));
        let draft = PathBuf::from(draft);
        let written =
            write_private(&draft, &Self::generate()).and_then(|()| match fs::hard_link(&draft, path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            });
        let removed = fs::remove_file(&draft);
        written.and(removed).map_err(io)?;
        Self::load(path)
    }

    /// A token issued at `iat`, in seconds since 1970.
    pub fn token(&self, iat: u64) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"iat":{iat}}}"#));
        let message = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.mac(message.as_bytes()).finalize().into_bytes());
        format!("{message}.{signature}")
    }

    /// Checks a token against the clock `now`, in seconds since 1970.
    pub fn verify(&self, token: &str, now: u64) -> Result<(), TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed("longer than 4096 bytes"));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("no three parts"))?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed("no three parts"))?;
        let header: JoseHeader = part(header).ok_or(TokenError::Malformed("unreadable header"))?;
        if header.alg != "HS256" {
            return Err(TokenError::WrongAlgorithm(header.alg.chars().take(16).collect()));
        }
        let signature =
            URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed("unreadable signature"))?;
        // `verify_slice` compares in constant time.
        self.mac(message.as_bytes()).verify_slice(&signature).map_err(|_| TokenError::WrongSignature)?;
        let Claims { iat } = part(claims).ok_or(TokenError::Malformed("no numeric iat claim"))?;
        if iat.abs_diff(now) > IAT_DRIFT_S_MAX {
            return Err(TokenError::Stale { iat, now });
        }
        Ok(())
    }

    fn mac(&self, message: &[u8]) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(self.0.as_ref())
            .expect("HMAC takes keys of any length")
            .chain_update(message)
    }
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn write_private(path: &Path, secret: &JwtSecret) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let digits = Zeroizing::new(hex::encode(secret.0.as_ref()));
    file.write_all(digits.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: u64 = 1_700_000_000;

    fn secret() -> JwtSecret {
        JwtSecret::from_hex(&"11".repeat(32)).unwrap()
    }

    fn forge(header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = secret().mac(message.as_bytes()).finalize().into_bytes();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn the_rfc_7515_example_verifies() {
        // RFC 7515, appendix A.1: its claims have no iat, so everything before that check is exercised.
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mac = Hmac::<Sha256>::new_from_slice(&URL_SAFE_NO_PAD.decode(key).unwrap()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        mac.chain_update(message).verify_slice(&signature).unwrap();
        assert_eq!(part::<JoseHeader>(message.split_once('.').unwrap().0).unwrap().alg, "HS256");
    }

    #[test]
    fn a_token_is_good_for_sixty_seconds_either_way() {
        let token = secret().token(NOW);
        for now in [NOW - 60, NOW, NOW + 60] {
            assert_eq!(secret().verify(&token, now), Ok(()));
        }
        for now in [NOW - 61, NOW + 61] {
            assert_eq!(secret().verify(&token, now), Err(TokenError::Stale { iat: NOW, now }));
        }
    }

    #[test]
    fn unknown_claims_are_ignored() {
        let token = forge(r#"{"typ":"JWT","alg":"HS256"}"#, r#"{"iat":1700000000,"id":"x","exp":1}"#);
        assert_eq!(secret().verify(&token, NOW), Ok(()));
    }

    #[test]
    fn algorithm_none_and_others_are_refused_even_when_the_rest_fits() {
        for alg in ["none", "HS512", "hs256", ""] {
            let token = forge(&format!(r#"{{"alg":"{alg}"}}"#), r#"{"iat":1700000000}"#);
            assert_eq!(secret().verify(&token, NOW), Err(TokenError::WrongAlgorithm(alg.into())));
        }
        let unsigned = forge(r#"{"alg":"none"}"#, r#"{"iat":1700000000}"#);
        let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
        assert_eq!(secret().verify(&unsigned, NOW), Err(TokenError::WrongAlgorithm("none".into())));
    }

    #[test]
    fn wrong_secret_changed_claims_and_garbage_are_refused() {
        let foreign = JwtSecret::generate().token(NOW);
        assert_eq!(secret().verify(&foreign, NOW), Err(TokenError::WrongSignature));
        let token = secret().token(NOW);
        let moved = token.replacen(&URL_SAFE_NO_PAD.encode(r#"{"iat":1700000000}"#), "e30", 1);
        assert_eq!(secret().verify(&moved, NOW), Err(TokenError::WrongSignature));
        for claims in ["{}", r#"{"iat":"1700000000"}"#, r#"{"iat":-1}"#, "[]", "\u{1}"] {
            let refused = secret().verify(&forge(r#"{"alg":"HS256"}"#, claims), NOW);
            assert_eq!(refused, Err(TokenError::Malformed("no numeric iat claim")), "{claims}");
        }
        for garbage in
            ["", ".", "..", "...", "a.b", "a.b.c", "é.é.é", &"x".repeat(5000), &token[..token.len() - 1]]
        {
            assert!(secret().verify(garbage, NOW).is_err(), "{garbage}");
        }
    }

    #[test]
    fn a_created_secret_is_private_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwt.hex");
        let created = JwtSecret::load_or_create(&path).unwrap();
        let again = JwtSecret::load_or_create(&path).unwrap();
        assert_eq!(created.0, again.0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays behind");
    }

    #[test]
    fn processes_that_create_the_secret_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwt.hex");
        let loaded: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| JwtSecret::load_or_create(&path).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(loaded.iter().all(|secret| secret.0 == loaded[0].0));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft stays behind");
    }

    #[test]
    fn bad_secret_files_are_refused_with_the_reason_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwt.hex");
        for content in [&b""[..], b"0x12", &[b'z'; 64], &[b'1'; 66], &[0xff; 64]] {
            fs::write(&path, content).unwrap();
            let refused = JwtSecret::load_or_create(&path).unwrap_err();
            assert!(matches!(refused, JwtError::BadFile { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        assert!(matches!(JwtSecret::load(&dir.path().join("no")), Err(JwtError::Io { action: "read", .. })));
    }

    #[test]
    fn the_usual_spellings_of_a_secret_file_are_read() {
        for text in ["11".repeat(32), format!("0x{}\n", "11".repeat(32)), format!(" {}\r\n", "11".repeat(32))]
        {
            assert_eq!(JwtSecret::from_hex(&text).unwrap().0, secret().0);
        }
    }
}
