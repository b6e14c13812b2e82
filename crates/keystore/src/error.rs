//! Why a keystore was refused. No message quotes a secret or a password.

/// A keystore that cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeystoreError {
    /// The file is too big to be one.
    #[error("the keystore has {bytes} bytes, at most {limit} are read")]
    FileTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON of the right shape.
    #[error("not an EIP-2335 keystore: {0}")]
    Json(String),
    /// Another version of the format.
    #[error("keystore version {found}: only version 4 (EIP-2335) is supported")]
    Version {
        /// Which.
        found: u64,
    },
    /// A function the standard does not name.
    #[error("keystore {field} is \"{found}\": only {supported} is supported")]
    Unsupported {
        /// Which field.
        field: &'static str,
        /// What it says.
        found: String,
        /// What is known.
        supported: &'static str,
    },
    /// A field that is no hex, or of the wrong length.
    #[error("keystore field {field}: {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The secret is empty or too long.
    #[error("the keystore's secret has {bytes} bytes, must have 1 to {limit}")]
    SecretLength {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A key derivation parameter outside of what is supported: the file could otherwise take all memory or hours.
    #[error("keystore {kdf} parameter {name} is {found}, must be {expected}")]
    Parameter {
        /// Which function.
        kdf: &'static str,
        /// Which parameter.
        name: &'static str,
        /// What the file says.
        found: u64,
        /// What it may be.
        expected: String,
    },
    /// The key derivation would take too much memory.
    #[error(
        "the keystore's scrypt parameters n={n}, r={r}, p={p} need {bytes} bytes of memory, at most {limit} are allowed"
    )]
    Memory {
        /// Cost.
        n: u64,
        /// Block size.
        r: u64,
        /// Parallelism.
        p: u64,
        /// What they need; the highest number where it does not fit.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The key derivation would take too long.
    #[error(
        "the keystore's scrypt parameters n={n}, r={r}, p={p} ask for n*r*p = {work}, at most {limit} is allowed"
    )]
    Work {
        /// Cost.
        n: u64,
        /// Block size.
        r: u64,
        /// Parallelism.
        p: u64,
        /// Their product; the highest number where it does not fit.
        work: u64,
        /// The limit.
        limit: u64,
    },
    /// The checksum does not match.
    #[error("wrong password, or the keystore is damaged: its checksum does not match")]
    WrongPassword,
    /// Nothing is left of the password after control characters are removed.
    #[error("the password is empty")]
    EmptyPassword,
    /// The password is too long.
    #[error("the password has {bytes} bytes, at most {limit} are supported")]
    PasswordTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The operating system has no randomness.
    #[error("the operating system provides no randomness: {0}")]
    Randomness(String),
}
