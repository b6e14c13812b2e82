//! From a password to a key, within limits that a hostile file cannot pass.

use crate::format::{self, KdfModule, KdfParams};
use crate::{KeystoreError, Password};
use std::fmt;
use zeroize::Zeroizing;

/// Memory scrypt may take: twice what the standard's parameters take.
pub const SCRYPT_MEMORY_MAX: u64 = 512 << 20;

/// n*r*p of scrypt: eight times the standard's, some seconds of one processor.
pub const SCRYPT_WORK_MAX: u64 = 1 << 24;

/// Rounds of PBKDF2: forty times the standard's, some seconds of one processor.
pub const PBKDF2_ROUNDS_MAX: u64 = 10_000_000;

const KEY_BYTES: u64 = 32;
const SALT_BYTES_MAX: usize = 1024;
const PRF: &str = "hmac-sha256";

/// A key derivation function with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kdf {
    /// scrypt (RFC 7914): memory-hard.
    Scrypt {
        /// Cost, a power of two.
        n: u64,
        /// Block size.
        r: u64,
        /// Parallelism.
        p: u64,
        /// Salt.
        salt: Vec<u8>,
    },
    /// PBKDF2 (RFC 8018) with HMAC-SHA-256: takes no memory.
    Pbkdf2 {
        /// Rounds.
        c: u64,
        /// Salt.
        salt: Vec<u8>,
    },
}

impl Kdf {
    /// scrypt as the standard's test vectors and other tools use it: 256 MiB, about a second.
    pub fn scrypt() -> Result<Self, KeystoreError> {
        Ok(Self::Scrypt { n: 262_144, r: 8, p: 1, salt: random::<32>()?.to_vec() })
    }

    /// PBKDF2 likewise: little memory, a tenth of a second.
    pub fn pbkdf2() -> Result<Self, KeystoreError> {
        Ok(Self::Pbkdf2 { c: 262_144, salt: random::<32>()?.to_vec() })
    }

    pub(crate) fn read(module: KdfModule) -> Result<Self, KeystoreError> {
        let KdfParams { c, dklen, n, p, prf, r, salt } = module.params;
        let kdf = match module.function.as_str() {
            "scrypt" => "scrypt",
            "pbkdf2" => "pbkdf2",
            other => {
                let found = other.chars().take(64).collect();
                return Err(KeystoreError::Unsupported {
                    field: "key derivation function",
                    found,
                    supported: "scrypt or pbkdf2",
                });
            }
        };
        if dklen != KEY_BYTES {
            let expected = KEY_BYTES.to_string();
            return Err(KeystoreError::Parameter { kdf, name: "dklen", found: dklen, expected });
        }
        let salt = format::bytes("kdf.params.salt", &salt)?;
        let there = |name: &'static str, value: Option<u64>| {
            let missing = || KeystoreError::Field { field: name, problem: format!("missing for {kdf}") };
            value.ok_or_else(missing)
        };
        if kdf == "scrypt" {
            return Ok(Self::Scrypt { n: there("n", n)?, r: there("r", r)?, p: there("p", p)?, salt });
        }
        crate::expect("pseudorandom function", prf.as_deref().unwrap_or_default(), PRF)?;
        Ok(Self::Pbkdf2 { c: there("c", c)?, salt })
    }

    pub(crate) fn write(&self) -> KdfModule {
        let (function, params) = match self {
            Self::Scrypt { n, r, p, .. } => {
                ("scrypt", KdfParams { n: Some(*n), r: Some(*r), p: Some(*p), ..KdfParams::default() })
            }
            Self::Pbkdf2 { c, .. } => {
                ("pbkdf2", KdfParams { c: Some(*c), prf: Some(PRF.into()), ..KdfParams::default() })
            }
        };
        let params = KdfParams { dklen: KEY_BYTES, salt: hex::encode(self.salt()), ..params };
        KdfModule { function: function.into(), params, message: String::new() }
    }

    fn salt(&self) -> &[u8] {
        match self {
            Self::Scrypt { salt, .. } | Self::Pbkdf2 { salt, .. } => salt,
        }
    }

    /// Refuses what would take too much memory or time, before any of it is taken.
    pub(crate) fn check(&self) -> Result<(), KeystoreError> {
        if self.salt().len() > SALT_BYTES_MAX {
            let problem = format!("{} bytes, at most {SALT_BYTES_MAX} are supported", self.salt().len());
            return Err(KeystoreError::Field { field: "kdf.params.salt", problem });
        }
        let refuse =
            |kdf, name, found, expected| Err(KeystoreError::Parameter { kdf, name, found, expected });
        match *self {
            Self::Pbkdf2 { c, .. } if c == 0 || c > PBKDF2_ROUNDS_MAX => {
                refuse("pbkdf2", "c", c, format!("from 1 to {PBKDF2_ROUNDS_MAX}"))
            }
            Self::Pbkdf2 { .. } => Ok(()),
            Self::Scrypt { n, .. } if n < 2 || !n.is_power_of_two() => {
                refuse("scrypt", "n", n, "a power of two, 2 or more".into())
            }
            Self::Scrypt { r: 0, .. } => refuse("scrypt", "r", 0, "1 or more".into()),
            Self::Scrypt { p: 0, .. } => refuse("scrypt", "p", 0, "1 or more".into()),
            // RFC 7914, section 2: a block of 128 * r bytes numbers no more than 2^(16 * r) others.
            Self::Scrypt { n, r, .. } if u64::from(n.trailing_zeros()) >= r.saturating_mul(16) => {
                refuse("scrypt", "n", n, format!("below 2^{} for r={r}", r.saturating_mul(16)))
            }
            Self::Scrypt { n, r, p, .. } => check_scrypt(n, r, p),
        }
    }

    pub(crate) fn derive(&self, password: &Password) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
        self.check()?;
        let mut key = Zeroizing::new([0; 32]);
        match self {
            Self::Scrypt { n, r, p, salt } => {
                let (small_r, small_p) = (narrow("r", *r)?, narrow("p", *p)?);
                let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
                let refused = |problem: String| KeystoreError::Field { field: "kdf.params", problem };
                let params = scrypt::Params::new(log_n, small_r, small_p, 32)
                    .map_err(|error| refused(error.to_string()))?;
                scrypt::scrypt(password.bytes(), salt, &params, key.as_mut())
                    .map_err(|error| refused(error.to_string()))?;
            }
            Self::Pbkdf2 { c, salt } => {
                let rounds = narrow("c", *c)?;
                pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password.bytes(), salt, rounds, key.as_mut());
            }
        }
        Ok(key)
    }
}

/// A number that `check` has bounded far below 2^32.
fn narrow(name: &'static str, value: u64) -> Result<u32, KeystoreError> {
    let expected = format!("at most {}", u32::MAX);
    value.try_into().map_err(|_| KeystoreError::Parameter {
        kdf: "scrypt or pbkdf2",
        name,
        found: value,
        expected,
    })
}

fn check_scrypt(n: u64, r: u64, p: u64) -> Result<(), KeystoreError> {
    // n + p blocks of 128*r bytes, and one to work on.
    let blocks = n.saturating_add(p).saturating_add(1);
    let bytes = blocks.saturating_mul(r).saturating_mul(128);
    // The standard's own parameters, just above a half of the limit, must pass for every p that the work allows.
    if bytes > SCRYPT_MEMORY_MAX {
        return Err(KeystoreError::Memory { n, r, p, bytes, limit: SCRYPT_MEMORY_MAX });
    }
    let work = n.saturating_mul(r).saturating_mul(p);
    if work > SCRYPT_WORK_MAX {
        return Err(KeystoreError::Work { n, r, p, work, limit: SCRYPT_WORK_MAX });
    }
    Ok(())
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeystoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeystoreError::Randomness(error.to_string()))?;
    Ok(bytes)
}

impl fmt::Display for Kdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scrypt { n, r, p, .. } => write!(f, "scrypt (n={n}, r={r}, p={p})"),
            Self::Pbkdf2 { c, .. } => write!(f, "pbkdf2 (c={c}, {PRF})"),
        }
    }
}
