//! What a failed command tells its user: one text that says what to do, and an exit code.

use std::fmt;

/// A command that did not do what was asked.
#[derive(Debug)]
pub struct CliError {
    text: String,
    code: u8,
}

/// Result of a command.
pub type CliResult<T = ()> = Result<T, CliError>;

/// Something failed or is in the way; nothing was lost.
pub const FAILED: u8 = 1;
/// The command ran to its end and found a problem in what it examined.
pub const PROBLEM_FOUND: u8 = 3;

impl CliError {
    /// A failure (exit code 1).
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: FAILED }
    }

    /// A problem found in what was examined (exit code 3).
    pub fn problem(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: PROBLEM_FOUND }
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// For `map_err`: puts what was tried before the cause.
    pub fn while_trying<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |cause| Self::new(format!("cannot {what}: {cause}"))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
