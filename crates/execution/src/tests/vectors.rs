//! Golden vectors of specs/state_hash.md: formats cannot drift unnoticed. `BLESS=1` rewrites the file.

use super::*;
use serde_json::{Value, json};
use std::{env, fs, path::Path};

fn vectors() -> Value {
    let account = |nonce: u64, balance: u64, code: &[u8]| AccountInfo {
        nonce,
        balance: U256::from(balance),
        code_hash: if code.is_empty() { AccountInfo::default().code_hash } else { crypto::keccak256(code) },
    };
    let one = (Address::repeat_byte(0x11), account(1, 1_000, &[]));
    let two = (Address::repeat_byte(0x22), account(0, u64::MAX, &[0x60, 0x00]));
    let slot = ((two.0, U256::from(7)), U256::from(9));
    let digest = |chain_id: u64, accounts: &[(Address, AccountInfo)], slots: &[((Address, U256), U256)]| {
        let mut digest = LtHash::new(chain_id);
        digest.add_leaves(accounts, slots);
        json!({
            "chain_id": chain_id,
            "accounts": accounts.iter().map(|(address, info)| json!({
                "address": address, "nonce": info.nonce, "balance": info.balance, "code_hash": info.code_hash,
            })).collect::<Vec<_>>(),
            "slots": slots.iter().map(|((address, slot), value)| json!({
                "address": address, "slot": slot, "value": value,
            })).collect::<Vec<_>>(),
            "lthash_head": Bytes::copy_from_slice(&digest.to_bytes()[..64]),
            "state_hash": digest.state_hash(),
        })
    };
    let state = vec![
        digest(CHAIN_ID, &[], &[]),
        digest(CHAIN_ID, &[one], &[]),
        digest(1, &[one], &[]),
        digest(CHAIN_ID, &[one, two], &[slot]),
    ];

    let mut chain = Chain::new(2);
    let key = chain.keys[0].clone();
    let contract = key.address().create(0);
    let transactions = vec![
        key.sign(tx(0, TxKind::Create, 200_000, deployer(&STORE))),
        key.sign(tx(1, TxKind::Call(contract), 100_000, store_input(1, 42))),
        key.sign(tx(2, TxKind::Call(contract), 100_000, store_input(2, 0xdead))),
        chain.keys[1].transfer(CHAIN_ID, 0, key.address(), U256::from(12)),
    ];
    let built = chain.build(transactions);
    chain.advance(&built.outcome);
    let block = json!({
        "payload": Bytes::from(built.payload.clone()),
        "payload_commitment": built.commitment,
        "receipts": built.outcome.receipts.iter().map(TxReceipt::canonical_bytes).collect::<Vec<_>>(),
        "receipts_hash": built.outcome.receipts_hash,
        "state_hash": built.outcome.state_hash,
        "gas_used": built.outcome.gas_used,
    });
    json!({
        "state": state,
        "block": block,
        "empty_payload": Bytes::from(Payload::default().encode()),
        "empty_payload_commitment": Payload::commitment(&Payload::default().encode()),
        "empty_receipts_hash": receipts_hash(&[]),
        "rules_hash": chain.rules.rules_hash(),
    })
}

#[test]
fn state_hash_receipts_hash_and_payload_commitment_match_the_published_vectors() {
    let path = Path::new("../../specs/vectors/state_hash.json");
    let computed = serde_json::to_string_pretty(&vectors()).unwrap() + "\n";
    if env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &computed).unwrap();
    }
    let published = fs::read_to_string(path).unwrap();
    assert!(published == computed, "vectors differ; if the formats changed on purpose, raise their versions");
}

/// specs/state_hash.md S-1 and S-2, written a second time from the text.
#[test]
fn the_published_state_hashes_follow_from_the_specification() {
    let path = Path::new("../../specs/vectors/state_hash.json");
    let published: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let bytes = |value: &Value| value.as_str().unwrap().parse::<Bytes>().unwrap().to_vec();
    let word = |value: &Value| value.as_str().unwrap().parse::<U256>().unwrap().to_be_bytes::<32>().to_vec();
    for state in published["state"].as_array().unwrap() {
        let mut key = blake3::Hasher::new_derive_key("tandem v1 state leaf");
        key.update(&state["chain_id"].as_u64().unwrap().to_le_bytes()).update(&[1]);
        let key = *key.finalize().as_bytes();
        let mut lanes = vec![0u16; 1024];
        let mut add = |leaf: Vec<u8>| {
            let mut output = [0; 2048];
            blake3::Hasher::new_keyed(&key).update(&leaf).finalize_xof().fill(&mut output);
            for (lane, value) in lanes.iter_mut().zip(output.chunks(2)) {
                *lane = lane.wrapping_add(u16::from(value[0]) + 256 * u16::from(value[1]));
            }
        };
        for account in state["accounts"].as_array().unwrap() {
            let nonce = account["nonce"].as_u64().unwrap().to_le_bytes().to_vec();
            let (address, code) = (bytes(&account["address"]), bytes(&account["code_hash"]));
            add([vec![1], address, vec![72, 0, 0, 0], nonce, word(&account["balance"]), code].concat());
        }
        for slot in state["slots"].as_array().unwrap() {
            let address = bytes(&slot["address"]);
            add([vec![2], address, word(&slot["slot"]), vec![32, 0, 0, 0], word(&slot["value"])].concat());
        }
        let digest: Vec<u8> = lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect();
        let mut hasher = blake3::Hasher::new_derive_key("tandem v1 state hash");
        let hash = hasher.update(&digest).finalize();
        assert_eq!(bytes(&state["state_hash"]), hash.as_bytes());
        assert_eq!(bytes(&state["lthash_head"]), digest[..64]);
    }
}
