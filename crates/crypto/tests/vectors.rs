//! Conformance vectors of hashes, Merkle trees, signing bytes and BLS signatures (specs/vectors/merkle.json and
//! bls.json). Every value is computed a second time here, from what the specs say and with the primitive libraries
//! alone, and compared with both this crate and the checked-in file.
//!
//! `BLESS=1 cargo test --release -p crypto --test vectors` rewrites the files. A changed file is a changed format.
#![allow(clippy::unwrap_used, missing_docs)]

use alloy_primitives::U256;
use crypto::bls::{aggregate, verify_aggregate, verify_grouped};
use crypto::merkle::{PAYLOAD_LEAF_BYTES, Proof, payload_root, prove, root};
use crypto::{B256, Domain, PublicKey, SecretKey, Signature, SignatureKind, VerifyingKey, tagged_hash};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// Compares `made` with the checked-in file, or writes the file when BLESS=1.
fn check_file(name: &str, made: &Value) {
    let path = Path::new("../../specs/vectors").join(name);
    let text = format!("{}\n", serde_json::to_string_pretty(made).unwrap());
    if std::env::var("BLESS").is_ok_and(|v| v == "1") {
        return std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, text, "specs/vectors/{name} differs: a frozen format changed (BLESS=1 rewrites it)");
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn derive(context: &str, input: &[u8]) -> B256 {
    B256::from(*blake3::Hasher::new_derive_key(context).update(input).finalize().as_bytes())
}

/// Byte `i` is `i mod 251`, as in the published BLAKE3 vectors.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

// Merkle trees: S-3 by its recursive reading. The left part of `n` leaves is the largest power of two below `n`.

fn reference_top(leaves: &[Vec<u8>]) -> B256 {
    match leaves {
        [] => B256::ZERO,
        [leaf] => derive("tandem v1 merkle leaf", leaf),
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(split);
            let pair = [reference_top(left), reference_top(right)].concat();
            derive("tandem v1 merkle node", &pair)
        }
    }
}

fn reference_root(leaves: &[Vec<u8>]) -> B256 {
    let mut input = (leaves.len() as u64).to_le_bytes().to_vec();
    input.extend_from_slice(reference_top(leaves).as_slice());
    derive("tandem v1 merkle root", &input)
}

fn cut(payload: &[u8]) -> Vec<Vec<u8>> {
    payload.chunks(1024).map(<[u8]>::to_vec).collect()
}

fn slices(leaves: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    leaves.iter().map(Vec::as_slice)
}

fn trees() -> Vec<Vec<Vec<u8>>> {
    let mut all: Vec<_> = (0..=9).map(|n| (0..n).map(|i| vec![i as u8; i % 4]).collect()).collect();
    all.push((0..33).map(|i| vec![i as u8]).collect());
    all
}

#[test]
fn merkle_vectors() {
    assert_eq!(PAYLOAD_LEAF_BYTES, 1024);
    // The first value is BLAKE3's own published vector for key derivation from no input.
    let published = "0x2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d";
    let context = "BLAKE3 2019-12-27 16:29:52 test vectors context";
    assert_eq!(tagged_hash(context, &[]).to_string(), published);
    let split = tagged_hash("tandem v1 merkle leaf", &[b"ab", b"c"]);
    assert_eq!(split, derive("tandem v1 merkle leaf", b"abc"), "parts are concatenated");
    assert_eq!(crypto::hash(b"abc").0, *blake3::hash(b"abc").as_bytes());

    let trees: Vec<_> = trees()
        .iter()
        .map(|leaves| {
            assert_eq!(root(slices(leaves)), reference_root(leaves));
            json!({ "leaves": leaves.iter().map(hex).collect::<Vec<_>>(), "root": reference_root(leaves) })
        })
        .collect();
    let payloads: Vec<_> = [0, 1, 1023, 1024, 1025, 2048, 2049, 3072, 4097, 7168, 65_536, 1_000_003]
        .into_iter()
        .map(|length| {
            let payload = pattern(length);
            assert_eq!(payload_root(&payload), reference_root(&cut(&payload)));
            json!({ "length": length, "leaves": length.div_ceil(1024), "root": payload_root(&payload) })
        })
        .collect();
    let leaves = cut(&pattern(4097));
    let proofs: Vec<_> = (0..leaves.len())
        .map(|index| {
            let proof = prove(slices(&leaves), index).unwrap();
            assert!(proof.verify(reference_root(&leaves), &leaves[index]));
            json!({ "index": index, "siblings": proof.siblings })
        })
        .collect();
    check_file(
        "merkle.json",
        &json!({
            "about": "specs/state_hash.md, S-3. Payload byte i is i mod 251.",
            "trees": trees,
            "payload_roots": payloads,
            "proofs": { "payload_length": 4097, "leaf_count": leaves.len(), "root": reference_root(&leaves),
                        "of_leaf": proofs },
        }),
    );
}

#[test]
fn a_proof_with_one_field_changed_does_not_verify() {
    let leaves = cut(&pattern(4097));
    let root = reference_root(&leaves);
    for index in 0..leaves.len() {
        let good = prove(slices(&leaves), index).unwrap();
        let with = |change: &dyn Fn(&mut Proof)| {
            let mut proof = good.clone();
            change(&mut proof);
            proof.verify(root, &leaves[index])
        };
        assert!(with(&|_| {}));
        assert!(!with(&|p| p.index = p.leaf_count));
        assert!(!with(&|p| p.index = u64::MAX));
        assert!(!with(&|p| p.leaf_count += 1));
        assert!(!with(&|p| p.leaf_count = u64::MAX));
        assert!(!with(&|p| p.siblings.push(B256::ZERO)));
        assert!(!with(&|p| p.siblings.truncate(p.siblings.len() - 1)));
        assert!(!with(&|p| p.siblings[0] = B256::repeat_byte(1)));
        assert!(!good.verify(root, &leaves[index][..leaves[index].len() - 1]));
    }
}

// Signatures: C-1.4 and C-1.5.

/// C-1.5, spelled out.
fn reference_signing_bytes(chain_id: u64, genesis: B256, epoch: u64, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"tandem".to_vec();
    bytes.extend(chain_id.to_le_bytes());
    bytes.extend(genesis.0);
    bytes.extend(epoch.to_le_bytes());
    bytes.extend([kind, 1]);
    bytes.extend(body);
    bytes
}

fn secret(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

fn verifying(number: u8) -> VerifyingKey {
    VerifyingKey::try_from(secret(number).public_key()).unwrap()
}

fn blst_sign(key: &SecretKey, message: &[u8], suffix: &str) -> [u8; 96] {
    let dst = format!("BLS_{suffix}_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_");
    blst::min_pk::SecretKey::from_bytes(&*key.to_bytes())
        .unwrap()
        .sign(message, dst.as_bytes(), &[])
        .to_bytes()
}

fn key_vectors() -> Vec<Value> {
    (1..=4)
        .map(|number| {
            let (key, public) = (secret(number), secret(number).public_key());
            let proof = key.prove_possession();
            assert_eq!(proof.0, blst_sign(&key, &public.0, "POP"));
            assert!(verifying(number).verify_possession(&proof));
            json!({
                "seed": hex([number; 32]), "secret": hex(*key.to_bytes()), "public": hex(public.0),
                "proof_of_possession": hex(proof.0),
            })
        })
        .collect()
}

fn signing_vectors() -> Vec<Value> {
    let genesis_hash = B256::repeat_byte(0x11);
    let kinds = [
        ("prepare", SignatureKind::Prepare, 1),
        ("commit", SignatureKind::Commit, 2),
        ("timeout", SignatureKind::Timeout, 3),
        ("proposal", SignatureKind::Proposal, 4),
        ("randao", SignatureKind::Randao, 5),
        ("peer binding", SignatureKind::PeerBinding, 6),
    ];
    kinds
        .into_iter()
        .map(|(name, kind, number)| {
            let (domain, body) = (Domain { chain_id: 31337, genesis_hash, epoch: 5 }, b"body");
            let bytes = domain.signing_bytes(kind, body);
            assert_eq!(bytes, reference_signing_bytes(31337, genesis_hash, 5, number, body));
            let signature = secret(1).sign(&bytes);
            assert_eq!(signature.0, blst_sign(&secret(1), &bytes, "SIG"));
            assert!(verifying(1).verify(&bytes, &signature));
            json!({
                "name": name, "kind": number, "chain_id": 31337, "genesis_hash": genesis_hash, "epoch": 5,
                "body": hex(body), "signing_bytes": hex(&bytes), "key": 1, "signature": hex(signature.0),
            })
        })
        .collect()
}

fn aggregate_vectors() -> Value {
    let same = aggregate(&[1, 2, 3].map(|k| secret(k).sign(b"same message"))).unwrap();
    let keys = [1, 2, 3].map(verifying);
    assert!(verify_aggregate(&keys.each_ref(), b"same message", &same));
    let parts = [secret(1).sign(b"a"), secret(2).sign(b"a"), secret(3).sign(b"b")];
    let grouped = aggregate(&parts).unwrap();
    let groups = [(vec![&keys[0], &keys[1]], b"a".to_vec()), (vec![&keys[2]], b"b".to_vec())];
    assert!(verify_grouped(&groups, &grouped));
    json!({
        "one_message": { "keys": [1, 2, 3], "message": hex(b"same message"), "aggregate": hex(same.0) },
        "groups": { "members": [{ "keys": [1, 2], "message": hex(b"a") }, { "keys": [3], "message": hex(b"b") }],
                    "aggregate": hex(grouped.0) },
    })
}

fn refused_keys() -> Vec<Value> {
    let filled = |first: u8| {
        let mut bytes = [0; 48];
        bytes[0] = first;
        bytes
    };
    let mut off_curve = [0u8; 48];
    hex::decode_to_slice(format!("8{}e0", "123456789abcdef0".repeat(6).split_at(93).0), &mut off_curve)
        .unwrap();
    let mut off_group = off_curve;
    off_group[47] = 0xef;
    let mut uncompressed_flag = secret(1).public_key().0;
    uncompressed_flag[0] &= 0x7f;
    [
        ("zeros", [0; 48]),
        ("point at infinity", filled(0xc0)),
        ("infinity with the sign flag", filled(0xe0)),
        ("no point of the curve", off_curve),
        ("outside the prime-order subgroup", off_group),
        ("compression flag missing", uncompressed_flag),
        ("coordinate not below the field order", [0xff; 48]),
    ]
    .into_iter()
    .map(|(name, bytes)| {
        let error = VerifyingKey::try_from(PublicKey(bytes)).expect_err(name);
        json!({ "name": name, "public": hex(bytes), "error": error.to_string() })
    })
    .collect()
}

fn refused_signatures() -> Vec<Value> {
    let (key, good) = (verifying(1), secret(1).sign(b"m"));
    let mut infinity = [0; 96];
    infinity[0] = 0xc0;
    let (mut negated, mut flagless) = (good.0, good.0);
    negated[0] ^= 0x20;
    flagless[0] &= 0x7f;
    [
        ("zeros", [0; 96]),
        ("point at infinity", infinity),
        ("negated", negated),
        ("compression flag missing", flagless),
        ("another key's", secret(2).sign(b"m").0),
        ("over another message", secret(1).sign(b"n").0),
        ("the proof of possession", secret(1).prove_possession().0),
    ]
    .into_iter()
    .map(|(name, bytes)| {
        assert!(!key.verify(b"m", &Signature(bytes)), "{name}");
        assert!(!verify_aggregate(&[&key], b"m", &Signature(bytes)), "{name}");
        json!({ "name": name, "signature": hex(bytes) })
    })
    .collect()
}

#[test]
fn bls_vectors() {
    check_file(
        "bls.json",
        &json!({
            "about": "specs/consensus.md, C-1.4 and C-1.5. Key n is derived from 32 bytes of value n.",
            "keys": key_vectors(),
            "signing": signing_vectors(),
            "aggregates": aggregate_vectors(),
            "refused_public_keys": refused_keys(),
            "refused_signatures": { "key": 1, "message": hex(b"m"), "list": refused_signatures() },
        }),
    );
}

/// The variant is Ethereum's: one vector of the consensus specs' `bls/sign` suite.
#[test]
fn signatures_are_those_of_ethereums_consensus_layer() {
    let mut scalar = [0; 32];
    hex::decode_to_slice("263dbd792f5b1be47ed85f8938c0f29586af0d3ac7b977f21c278fe1462040e3", &mut scalar)
        .unwrap();
    let key = SecretKey::from_bytes(&scalar).unwrap();
    let expected = "0xb6ed936746e01f8ecf281f020953fbf1f01debd5657c4a383940b020b26507f6076334f91e2366c96e9ab279fb515809\
                    0352ea1c5b0c9274504f4f0e7053af24802e51e4568d164fe986834f41e55c8e850ce1f98458c0cfc9ab380b55285a55";
    assert_eq!(key.sign(&[0; 32]).to_string(), expected);
}

/// Both keys prove possession, so a set may hold both; whoever groups signers must expect it.
#[test]
fn a_group_whose_keys_cancel_out_never_verifies() {
    let mut order = [0; 32];
    hex::decode_to_slice("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", &mut order)
        .unwrap();
    let opposite = U256::from_be_bytes(order) - U256::from_be_bytes(*secret(1).to_bytes());
    let opposite = SecretKey::from_bytes(&opposite.to_be_bytes()).unwrap();
    let key = VerifyingKey::try_from(opposite.public_key()).unwrap();
    assert!(key.verify_possession(&opposite.prove_possession()));
    let sum = aggregate(&[secret(1).sign(b"x"), opposite.sign(b"x"), secret(2).sign(b"y")]).unwrap();
    let (first, other) = (verifying(1), verifying(2));
    let alone = [(vec![&first, &key], b"x".to_vec()), (vec![&other], b"y".to_vec())];
    assert!(!verify_grouped(&alone, &sum));
    let sum = aggregate(&[secret(1).sign(b"x"), opposite.sign(b"x"), secret(2).sign(b"x")]).unwrap();
    assert!(verify_aggregate(&[&first, &key, &other], b"x", &sum));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_leaves_have_the_root_of_the_recursive_definition(leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..70)) {
        prop_assert_eq!(root(slices(&leaves)), reference_root(&leaves));
    }

    #[test]
    fn arbitrary_proofs_never_panic(leaf_count in any::<u64>(), index in any::<u64>(), siblings in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
        let siblings = siblings.into_iter().map(B256::from).collect();
        let proof = Proof { leaf_count, index, siblings };
        prop_assert!(!proof.verify(B256::ZERO, b"leaf"));
    }

    #[test]
    fn arbitrary_keys_and_signatures_never_panic(key in prop::collection::vec(any::<u8>(), 48), signature in prop::collection::vec(any::<u8>(), 96)) {
        let mut bytes = [0; 48];
        bytes.copy_from_slice(&key);
        let _ = VerifyingKey::try_from(PublicKey(bytes));
        let mut bytes = [0; 96];
        bytes.copy_from_slice(&signature);
        prop_assert!(!verifying(1).verify(b"m", &Signature(bytes)));
        prop_assert!(!verify_aggregate(&[&verifying(1)], b"m", &Signature(bytes)));
        let _ = aggregate(&[Signature(bytes), secret(1).sign(b"m")]);
    }
}
