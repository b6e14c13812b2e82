//! Numbers as fixtures write them.

use alloy_primitives::{
    Bytes, U256,
    ruint::{BaseConvertError, ParseError},
};
use serde::{Deserialize, Deserializer, de::Error};

/// A number of up to 256 bits: hexadecimal with any number of leading zeros, decimal, or a JSON number. The marker
/// `0x:bigint` stands in fixtures before numbers that are too large on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(pub U256);

/// A [`Quantity`] of a transaction. Some fixtures have numbers of more than 256 bits there, to be refused: `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide(pub Option<Quantity>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(U256::from(number))),
            Written::Text(text) => Self::parse(&text).map_err(D::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Wide {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(Some(Quantity(U256::from(number))))),
            Written::Text(text) => {
                parse(&text).map(|value| Self(value.map(Quantity))).map_err(D::Error::custom)
            }
        }
    }
}

impl Wide {
    /// The number, if it has 64 bits.
    pub fn to_u64(self) -> Option<u64> {
        self.0.and_then(Quantity::to_u64)
    }

    /// The number, if it has 128 bits.
    pub fn to_u128(self) -> Option<u128> {
        self.0.and_then(Quantity::to_u128)
    }
}

/// The number, or `None` if it has more than 256 bits.
fn parse(text: &str) -> Result<Option<U256>, String> {
    let digits = text.strip_prefix("0x:bigint ").unwrap_or(text);
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some("") => Ok(U256::ZERO),
        Some(hex) => U256::from_str_radix(hex, 16),
        None if digits.is_empty() => return Err("an empty string is no number".into()),
        None => U256::from_str_radix(digits, 10),
    };
    match value {
        Ok(value) => Ok(Some(value)),
        Err(ParseError::BaseConvertError(BaseConvertError::Overflow)) => Ok(None),
        Err(error) => Err(format!("\"{text}\" is no number: {error}")),
    }
}

impl Quantity {
    fn parse(text: &str) -> Result<Self, String> {
        parse(text)?.map(Self).ok_or_else(|| format!("\"{text}\" has more than 256 bits"))
    }

    /// The number, if it has 64 bits.
    pub fn to_u64(self) -> Option<u64> {
        u64::try_from(self.0).ok()
    }

    /// The number, if it has 128 bits.
    pub fn to_u128(self) -> Option<u128> {
        u128::try_from(self.0).ok()
    }
}

/// Bytes in hexadecimal; the empty string is no bytes.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    parse_bytes(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A list of [`bytes`].
pub(crate) fn byte_lists<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse_bytes(text).map_err(D::Error::custom)).collect()
}

fn parse_bytes(text: &str) -> Result<Bytes, String> {
    text.parse().map_err(|error| format!("bytes are no hexadecimal: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_form_that_fixtures_use() {
        let read = |json: &str| serde_json::from_str::<Quantity>(json).map(|quantity| quantity.0);
        for (json, value) in [
            ("\"0x\"", 0),
            ("\"0x00\"", 0),
            ("\"0x0a\"", 10),
            ("\"0XFF\"", 255),
            ("\"17\"", 17),
            ("17", 17),
            ("\"0x:bigint 0x10\"", 16),
        ] {
            assert_eq!(read(json).unwrap(), U256::from(value), "{json}");
        }
        let largest = format!("\"0x{}\"", "f".repeat(64));
        assert_eq!(read(&largest).unwrap(), U256::MAX);
        for wrong in ["\"\"", "\"0xg\"", "-1", "1.5", "null", "[]", &format!("\"0x1{}\"", "0".repeat(64))] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let wide = |json: &str| serde_json::from_str::<Wide>(json).map(|wide| wide.0);
        assert_eq!(wide(&largest).unwrap(), Some(Quantity(U256::MAX)));
        assert_eq!(wide(&format!("\"0x:bigint 0x1{}\"", "0".repeat(64))).unwrap(), None);
        assert_eq!(wide(&format!("\"{}\"", "9".repeat(90))).unwrap(), None);
        assert!(wide("\"0xg\"").is_err());
    }
}
