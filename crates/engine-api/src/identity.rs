//! Who may talk to whom (EA-4): chain, genesis, protocol and rules must be equal on both sides.

use types::engine::{Capabilities, EngineError};
use types::{B256, Genesis, encode};

/// Version of the Engine API. Raised with every change of engine.proto or its rules that old peers would misread.
pub const PROTOCOL_VERSION: u32 = 1;

/// Versions of the formats both processes must agree on, in the order header, payload encoding, state hash,
/// receipts hash (specs/block.md, specs/state_hash.md).
const FORMAT_VERSIONS: [u32; 4] = [1, 1, 1, 1];

/// Hash of the rules a node executes by: the format versions above, the fork schedule and the payload limit.
pub fn rules_hash(genesis: &Genesis) -> B256 {
    let forks: Vec<(&String, &u64)> = genesis.tandem.forks.iter().collect();
    let rules = (FORMAT_VERSIONS, forks, genesis.tandem.payload_bytes_max, genesis.tandem.epoch_length);
    crypto::tagged_hash("tandem v1 engine rules", &[&encode(&rules)])
}

/// What a process with this genesis says of itself. consensusd has no state: its `genesis_state_hash` is zero.
pub fn capabilities_of(genesis: &Genesis, genesis_state_hash: B256, client_version: String) -> Capabilities {
    Capabilities {
        protocol_version: PROTOCOL_VERSION,
        chain_id: genesis.config.chain_id,
        genesis_hash: genesis.hash(),
        rules_hash: rules_hash(genesis),
        genesis_state_hash,
        client_version,
    }
}

/// Whether two sides may work together; the error names everything that differs, consensus first.
pub fn compare(consensus: &Capabilities, executor: &Capabilities) -> Result<(), EngineError> {
    let pairs = [
        ("protocol version", consensus.protocol_version.to_string(), executor.protocol_version.to_string()),
        ("chain id", consensus.chain_id.to_string(), executor.chain_id.to_string()),
        ("genesis hash", consensus.genesis_hash.to_string(), executor.genesis_hash.to_string()),
        ("rules hash", consensus.rules_hash.to_string(), executor.rules_hash.to_string()),
    ];
    let differences: Vec<String> = pairs
        .into_iter()
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(what, ours, theirs)| format!("{what}: consensus has {ours}, executor has {theirs}"))
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(EngineError::Mismatch(differences.join("; "))) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn capabilities() -> Capabilities {
        Capabilities {
            protocol_version: 1,
            chain_id: 31337,
            genesis_hash: B256::repeat_byte(1),
            rules_hash: B256::repeat_byte(2),
            genesis_state_hash: B256::repeat_byte(3),
            client_version: "a".into(),
        }
    }

    #[test]
    fn state_hash_and_client_version_may_differ() {
        let other =
            Capabilities { genesis_state_hash: B256::ZERO, client_version: "b".into(), ..capabilities() };
        assert_eq!(compare(&capabilities(), &other), Ok(()));
    }

    #[test]
    fn a_mismatch_names_every_difference_with_both_values() {
        let other = Capabilities { chain_id: 7, rules_hash: B256::repeat_byte(9), ..capabilities() };
        let Err(EngineError::Mismatch(text)) = compare(&capabilities(), &other) else {
            panic!("must not match")
        };
        assert!(text.contains("chain id: consensus has 31337, executor has 7"), "{text}");
        assert!(text.contains("rules hash") && text.contains("0x0909") && text.contains("0x0202"), "{text}");
        assert!(!text.contains("genesis hash"), "{text}");
    }
}
