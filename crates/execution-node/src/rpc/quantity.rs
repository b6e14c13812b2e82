//! Numbers as callers write them.

use serde::{Deserialize, Deserializer, de::Error};
use std::fmt;

/// A count: `"0x10"`, `"16"` or `16`, as geth accepts where it accepts more than hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a hex quantity or a number")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Count, E> {
                Ok(Count(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Count, E> {
                let parsed = match text.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => text.parse(),
                };
                parsed.map(Count).map_err(|error| E::custom(format!("{text:?}: {error}")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counts_are_hex_or_decimal() {
        for text in ["16", "\"16\"", "\"0x10\"", "\"0x0010\""] {
            assert_eq!(serde_json::from_str::<Count>(text).unwrap(), Count(16));
        }
        for text in ["-1", "1.5", "\"\"", "\"0x\"", "\"0x1ffffffffffffffff\"", "null", "[]"] {
            assert!(serde_json::from_str::<Count>(text).is_err(), "{text}");
        }
    }
}
