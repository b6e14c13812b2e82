//! Passwords, normalised as EIP-2335 demands, so that every tool on every keyboard derives the same key.

use crate::KeystoreError;
use std::fmt;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Bytes of a password before normalisation.
pub const PASSWORD_BYTES_MAX: usize = 4096;

/// A password: NFKD, without control characters, never empty; wiped when dropped, never printed.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Normalises a password. A line break at its end is a control character like any other, so a file with one and a
    /// file without one hold the same password.
    pub fn new(text: &str) -> Result<Self, KeystoreError> {
        if text.len() > PASSWORD_BYTES_MAX {
            let bytes = text.len();
            return Err(KeystoreError::PasswordTooLong { bytes, limit: PASSWORD_BYTES_MAX });
        }
        // Room for any decomposition: a buffer that grows would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len().saturating_mul(24)));
        let mut buffer = Zeroizing::new([0; 4]);
        for character in text.nfkd().filter(|character| !is_stripped(*character)) {
            bytes.extend_from_slice(character.encode_utf8(&mut *buffer).as_bytes());
        }
        if bytes.is_empty() { Err(KeystoreError::EmptyPassword) } else { Ok(Self(bytes)) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// C0, C1 and Delete.
fn is_stripped(character: char) -> bool {
    matches!(character, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}')
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_standards_example_normalises_to_its_bytes() {
        let password = Password::new("𝔱𝔢𝔰𝔱𝔭𝔞𝔰𝔰𝔴𝔬𝔯𝔡🔑").unwrap();
        assert_eq!(hex::encode(password.bytes()), "7465737470617373776f7264f09f9491");
    }

    #[test]
    fn control_characters_are_no_part_of_a_password_and_spaces_are() {
        let plain = Password::new("pass word").unwrap();
        let noisy = Password::new("\tpa\0ss\u{7f} wo\u{80}r\u{9f}d\r\n").unwrap();
        assert_eq!(plain.bytes(), noisy.bytes());
        assert_ne!(plain.bytes(), Password::new(" pass word").unwrap().bytes());
    }

    #[test]
    fn composed_and_decomposed_letters_are_the_same() {
        let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
        assert_eq!(Password::new(composed).unwrap().bytes(), Password::new(decomposed).unwrap().bytes());
    }

    #[test]
    fn empty_and_endless_passwords_are_refused() {
        for text in ["", "\n", "\r\n\t\0\u{85}"] {
            assert_eq!(Password::new(text).unwrap_err(), KeystoreError::EmptyPassword);
        }
        let long = "a".repeat(PASSWORD_BYTES_MAX + 1);
        let error = Password::new(&long).unwrap_err();
        assert_eq!(error, KeystoreError::PasswordTooLong { bytes: 4097, limit: 4096 });
        assert!(!format!("{:?}", Password::new("secret").unwrap()).contains("secret"));
    }
}
