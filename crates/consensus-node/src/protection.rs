//! The slashing-protection file, in the manner of EIP-3076: how far keys have signed, carried from one machine to
//! another. Reading one never lowers anything: what it says is added to what a journal knows (C-7.6).

use consensus::Floor;
use consensus::restraint::FLOORS_MAX;
use crypto::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{B256, Epoch, View};

/// Version of the format.
const FORMAT_VERSION: &str = "1";

/// Bytes of a file: several times what [`FLOORS_MAX`] keys need.
pub const PROTECTION_BYTES_MAX: usize = 16 << 20;

/// Why a slashing-protection file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtectionError {
    /// Longer than any may be.
    #[error("{bytes} bytes, at most {PROTECTION_BYTES_MAX} are supported")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON of the right shape.
    #[error("no protection file: {0}")]
    Json(String),
    /// Another version of the format.
    #[error("format version {found:?}, only {FORMAT_VERSION:?} is supported")]
    Version {
        /// Which.
        found: String,
    },
    /// What was signed on another chain restrains nothing here.
    #[error(
        "it is of chain {found} with genesis {found_genesis}, this node is of chain {expected} with genesis \
         {expected_genesis}"
    )]
    WrongChain {
        /// Chain id it says.
        found: u64,
        /// Genesis hash it says.
        found_genesis: B256,
        /// Chain id of the node.
        expected: u64,
        /// Genesis hash of the node.
        expected_genesis: B256,
    },
    /// More keys than a journal remembers.
    #[error("{found} keys, at most {FLOORS_MAX} are supported")]
    TooManyKeys {
        /// Different keys in it.
        found: usize,
    },
}

/// The file. Numbers are decimal strings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interchange {
    metadata: Metadata,
    data: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    interchange_format_version: String,
    chain_id: Decimal,
    genesis_hash: B256,
}

/// How far one key has signed in its last epoch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    pubkey: PublicKey,
    epoch: Decimal,
    last_source: Decimal,
    last_target: Decimal,
    last_commit: Decimal,
    last_timeout: Decimal,
    last_proposal: Decimal,
    lock_view: Decimal,
}

/// A number as a decimal string: JSON readers may round bigger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal(u64);

impl Serialize for Decimal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as Deserialize>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl Entry {
    fn new(pubkey: PublicKey, floor: &Floor) -> Self {
        let Floor { epoch, source, target, commit, timeout, proposal, lock } = *floor;
        let [last_source, last_target, last_commit, last_timeout, last_proposal, lock_view] =
            [source, target, commit, timeout, proposal, lock].map(|view| Decimal(view.get()));
        let epoch = Decimal(epoch.get());
        Self { pubkey, epoch, last_source, last_target, last_commit, last_timeout, last_proposal, lock_view }
    }

    fn floor(&self) -> Floor {
        let view = |number: Decimal| View::new(number.0);
        Floor {
            epoch: Epoch::new(self.epoch.0),
            source: view(self.last_source),
            target: view(self.last_target),
            commit: view(self.last_commit),
            timeout: view(self.last_timeout),
            proposal: view(self.last_proposal),
            lock: view(self.lock_view),
        }
    }
}

/// Reads a file of the given chain: one floor for each key, keys ascending. A key that it names several times has
/// signed everything that any of the entries says.
pub fn parse_protection(
    text: &str,
    chain_id: u64,
    genesis_hash: B256,
) -> Result<Vec<(PublicKey, Floor)>, ProtectionError> {
    if text.len() > PROTECTION_BYTES_MAX {
        return Err(ProtectionError::TooLong { bytes: text.len() });
    }
    let Interchange { metadata, data } =
        serde_json::from_str(text).map_err(|error| ProtectionError::Json(error.to_string()))?;
    check_metadata(metadata, chain_id, genesis_hash)?;
    let mut floors: BTreeMap<PublicKey, Floor> = BTreeMap::new();
    for entry in &data {
        floors.entry(entry.pubkey).or_default().raise(&entry.floor());
    }
    if floors.len() > FLOORS_MAX {
        return Err(ProtectionError::TooManyKeys { found: floors.len() });
    }
    Ok(floors.into_iter().collect())
}

fn check_metadata(metadata: Metadata, chain_id: u64, genesis_hash: B256) -> Result<(), ProtectionError> {
    if metadata.interchange_format_version != FORMAT_VERSION {
        let found = metadata.interchange_format_version.chars().take(64).collect();
        return Err(ProtectionError::Version { found });
    }
    if (metadata.chain_id.0, metadata.genesis_hash) != (chain_id, genesis_hash) {
        return Err(ProtectionError::WrongChain {
            found: metadata.chain_id.0,
            found_genesis: metadata.genesis_hash,
            expected: chain_id,
            expected_genesis: genesis_hash,
        });
    }
    Ok(())
}

/// The text of a file.
pub fn print_protection(floors: &[(PublicKey, Floor)], chain_id: u64, genesis_hash: B256) -> String {
    let metadata = Metadata {
        interchange_format_version: FORMAT_VERSION.into(),
        chain_id: Decimal(chain_id),
        genesis_hash,
    };
    let data = floors.iter().map(|(key, floor)| Entry::new(*key, floor)).collect();
    let file = Interchange { metadata, data };
    serde_json::to_string_pretty(&file).expect("strings and lists are JSON") + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crypto::SecretKey;

    const GENESIS: B256 = B256::repeat_byte(1);

    fn key(number: u64) -> PublicKey {
        SecretKey::simulated(number).public_key()
    }

    fn floor(epoch: u64, source: u64, target: u64) -> Floor {
        let (source, target) = (View::new(source), View::new(target));
        Floor { epoch: Epoch::new(epoch), source, target, ..Floor::default() }
    }

    #[test]
    fn what_is_exported_reads_back_as_it_was_with_numbers_beyond_those_of_json_readers() {
        let floor = Floor {
            epoch: Epoch::new(u64::MAX),
            source: View::new(1),
            target: View::new((1 << 53) + 1),
            commit: View::new(3),
            timeout: View::new(4),
            proposal: View::new(5),
            lock: View::new(6),
        };
        let floors = [(key(1), floor)];
        let text = print_protection(&floors, 7, GENESIS);
        assert!(text.contains(r#""last_target": "9007199254740993""#), "{text}");
        assert_eq!(parse_protection(&text, 7, GENESIS).unwrap(), floors);
    }

    #[test]
    fn another_chain_version_or_shape_is_refused_with_both_sides_named() {
        let good = print_protection(&[], 7, GENESIS);
        let refused = |text: &str, chain_id, genesis| {
            parse_protection(text, chain_id, B256::repeat_byte(genesis)).unwrap_err().to_string()
        };
        let (other_chain, other_genesis) = (refused(&good, 8, 1), refused(&good, 7, 2));
        assert!(other_chain.contains("chain 7") && other_chain.contains("chain 8"), "{other_chain}");
        assert!(other_genesis.contains("0x0101") && other_genesis.contains("0x0202"), "{other_genesis}");
        assert!(refused(&good.replace(r#""1""#, r#""5""#), 7, 1).contains(r#"version "5", only "1""#));
        for text in ["", "{}", "[]", &good.replace("data", "date"), &good.replace(r#""7""#, r#""-7""#)] {
            assert!(refused(text, 7, 1).contains("no protection file"), "{text}");
        }
    }

    #[test]
    fn entries_of_one_key_add_up_whatever_their_order() {
        let entries = [(key(1), floor(2, 3, 4)), (key(1), floor(1, 9, 9)), (key(1), floor(2, 1, 7))];
        let [a, b, c] = entries;
        for order in [[a, b, c], [b, c, a], [c, a, b], [c, b, a]] {
            let text = print_protection(&order, 7, GENESIS);
            assert_eq!(parse_protection(&text, 7, GENESIS).unwrap(), [(key(1), floor(2, 3, 7))]);
        }
    }

    #[test]
    fn more_keys_than_a_journal_remembers_are_refused_with_their_number() {
        let floors: Vec<_> = (0..=FLOORS_MAX as u64).map(|number| (key(number), floor(1, 0, 1))).collect();
        let error = parse_protection(&print_protection(&floors, 7, GENESIS), 7, GENESIS).unwrap_err();
        assert_eq!(error, ProtectionError::TooManyKeys { found: FLOORS_MAX + 1 });
        let most = print_protection(&floors[1..], 7, GENESIS);
        assert_eq!(parse_protection(&most, 7, GENESIS).unwrap().len(), FLOORS_MAX);
    }
}
