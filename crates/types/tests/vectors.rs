//! Conformance vectors of blocks and consensus objects (specs/vectors/block.json and consensus.json). Every encoding
//! and hash is made a second time here, field by field as the specs say and with BLAKE3 alone, and compared with
//! both this crate and the checked-in files.
//!
//! `BLESS=1 cargo test --release -p types --test vectors` rewrites the files. A changed file is a changed format.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::*;
use serde_json::{Value, json};
use std::path::Path;
use types::block::{Header, SystemInputs};
use types::limits;
use types::message::Reproposal;
use types::vote::{Signed, Statement, randao_bytes};
use types::{
    B256, Block, Commit, CommitQc, CommittedBlock, ConsensusMessage, Epoch, FetchRequest, FetchResponse,
    Genesis, Height, Justify, Proposal, ProposalVote, Qc, QuorumRule, Signature, SignatureKind, Stake, Tc,
    Timeout, TimeoutReason, ValidatorIndex, ValidatorSet, View, decode, encode,
};

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

/// Checks a value against its layout and gives the vector's common part.
fn vector<T>(name: &str, value: &T, layout: &Layout) -> serde_json::Map<String, Value>
where
    T: borsh::BorshSerialize + borsh::BorshDeserialize + PartialEq + std::fmt::Debug,
{
    let bytes = encode(value);
    assert_eq!(hex(&bytes), hex(layout.bytes()), "{name}");
    assert_eq!(&decode::<T>(&bytes).unwrap(), value, "{name}");
    let mut map = serde_json::Map::new();
    map.insert("name".into(), json!(name));
    map.insert("layout".into(), json!(layout.lines()));
    map
}

fn with(mut map: serde_json::Map<String, Value>, key: &str, value: Value) -> Value {
    map.insert(key.into(), value);
    Value::Object(map)
}

// Blocks.

fn header_vectors() -> Vec<Value> {
    let vectors = headers().into_iter().map(|(name, header)| {
        let layout = header_layout(&header);
        let hash = derive("tandem v1 block header", &layout.bytes());
        assert_eq!(header.hash(), hash);
        with(vector(name, &header, &layout), "block_hash", json!(hash))
    });
    vectors.collect()
}

fn inputs_vectors() -> Vec<Value> {
    [("only the RANDAO mix", system_inputs()), ("every field", full_system_inputs())]
        .into_iter()
        .map(|(name, inputs)| {
            let layout = inputs_layout(&inputs);
            let hash = derive("tandem v1 system inputs", &layout.bytes());
            assert_eq!(inputs.hash(), hash);
            with(vector(name, &inputs, &layout), "system_inputs_hash", json!(hash))
        })
        .collect()
}

fn block_vector() -> Value {
    let block = block();
    let layout = block_layout(&block);
    let commitment = crypto::merkle::payload_root(&block.payload);
    assert_eq!(block.header.payload_commitment, commitment);
    with(vector("block", &block, &layout), "payload_commitment", json!(commitment))
}

fn randao_vector() -> Value {
    let (parent, reveal) = (B256::repeat_byte(0x33), headers()[0].1.randao_reveal);
    let bytes = signing_bytes(&domain(), SignatureKind::Randao, &1u64.to_le_bytes());
    assert_eq!(randao_bytes(&domain(), View::new(1)), bytes);
    assert_eq!(key(3).sign(&bytes), reveal);
    json!({
        "parent_mix": parent, "view": 1, "signing_bytes": hex(bytes), "key": 3, "reveal": hex(reveal.0),
        "mix": mix_after(parent, &reveal),
    })
}

fn set_vectors() -> Vec<Value> {
    let sets = [(0, &[1u128, 1, 1, 1][..]), (0, &[4, 1, 1, 1]), (9, &[34, 33, 33]), (1, &[1 << 119, 1])];
    let mut vectors: Vec<_> =
        sets.map(|(epoch, stakes)| set_vector(&set_of(epoch, stakes), QuorumRule::default())).into();
    let strict = QuorumRule { numerator: 3, denominator: 4 };
    let members = four().validators().to_vec();
    vectors.push(set_vector(&ValidatorSet::new(Epoch::ZERO, members, strict).unwrap(), strict));
    vectors
}

fn set_vector(set: &ValidatorSet, rule: QuorumRule) -> Value {
    let layout = set_layout(set, rule);
    let id = derive("tandem v1 validator set", &layout.bytes());
    assert_eq!(set.id(), id);
    let (n, d, total) = (u128::from(rule.numerator), u128::from(rule.denominator), set.total().get());
    // The least stake with stake * denominator >= total * numerator, and with stake * 3 >= total.
    let (quorum, amplify) = (set.quorum().get(), set.amplify().get());
    assert!(quorum * d >= total * n && (quorum - 1) * d < total * n);
    assert!(amplify * 3 >= total && (amplify - 1) * 3 < total);
    json!({
        "layout": layout.lines(), "validator_set_id": id, "total": set.total(),
        "quorum": set.quorum(), "amplify": set.amplify(),
    })
}

/// The genesis with every optional key left out or in another of its accepted spellings.
fn genesis_file() -> Value {
    let validators: Vec<_> = (1..=4u8)
        .map(|i| {
            json!({
                "address": format!("0x{}", hex::encode([0xa0 + i; 20])), "public_key": hex(public(i).0),
                "proof_of_possession": hex(key(i).prove_possession().0), "stake": "1000000000000000000",
            })
        })
        .collect();
    json!({
        "config": { "chainId": 31337, "homesteadBlock": 0 },
        "timestamp": "0x65920080",
        "gasLimit": "1000000000",
        "difficulty": "0x0",
        "alloc": {
            "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266": { "balance": "0x21e19e0c9bab2400000" },
            "0x0000000000000000000000000000000000001000": {
                "balance": "0x0", "nonce": 1, "code": "0x6001600055",
                "storage": { format!("0x{}", "00".repeat(32)): format!("0x{}", "11".repeat(32)) },
            },
        },
        "tandem": { "validators": validators, "forks": { "prague": 0, "osaka": 1000 } },
    })
}

/// What B-5 says the hashed text is: defaults filled in, quantities in hex, empty members left out, keys sorted, no
/// spaces. Written by hand.
fn genesis_canonical() -> String {
    let zeros = "00".repeat(32);
    let contract = format!(
        r#"{{"balance":"0x0","code":"0x6001600055","nonce":"0x1","storage":{{"0x{zeros}":"0x{}"}}}}"#,
        "11".repeat(32)
    );
    let validator = |i: u8| {
        format!(
            r#"{{"address":"0x{}","proof_of_possession":"{}","public_key":"{}","stake":"1000000000000000000"}}"#,
            hex::encode([0xa0 + i; 20]),
            hex(key(i).prove_possession().0),
            hex(public(i).0)
        )
    };
    let validators = [1, 2, 3, 4].map(validator).join(",");
    let timing = concat!(
        r#"{"backoff_max":8,"block_interval_ms":250,"clock_drift_ms_max":10000,"delta_ms":100,"#,
        r#""empty_block_interval_ms":1000,"work_ms":300}"#
    );
    let staking = concat!(
        r#"{"max_candidates":512,"max_validators":128,"min_stake":"1","#,
        r#""slash_basis_points":500,"stake_change_cap_denominator":4,"stake_change_cap_numerator":1,"#,
        r#""unbonding_epochs":16}"#
    );
    let section = format!(
        r#"{{"epoch_length":32,"forks":{{"osaka":1000,"prague":0}},"payload_bytes_max":4194304,"quorum":{{"denominator":3,"numerator":2}},"staking":{staking},"timing":{timing},"validators":[{validators}]}}"#
    );
    let alloc = format!(
        r#"{{"0x0000000000000000000000000000000000001000":{contract},"0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266":{{"balance":"0x21e19e0c9bab2400000"}}}}"#
    );
    format!(
        r#"{{"alloc":{alloc},"baseFeePerGas":"0x3b9aca00","config":{{"chainId":31337,"homesteadBlock":0}},"difficulty":"0x0","extraData":"0x","gasLimit":"0x3b9aca00","tandem":{section},"timestamp":"0x65920080"}}"#
    )
}

fn genesis_vector() -> Value {
    let file = genesis_file();
    let genesis = Genesis::parse(&file.to_string()).unwrap();
    let canonical = genesis_canonical();
    let hash = derive("tandem v1 genesis", canonical.as_bytes());
    assert_eq!(serde_json::to_value(&genesis).unwrap().to_string(), canonical);
    assert_eq!(genesis.hash(), hash);
    let seed = derive("tandem v1 genesis seed", hash.as_slice());
    assert_eq!(genesis.seed(), seed);
    json!({ "file": file, "canonical": canonical, "hash": hash, "seed": seed })
}

fn limit_vectors() -> Value {
    json!({
        "VALIDATORS_MAX": limits::VALIDATORS_MAX,
        "TOTAL_STAKE_MAX": limits::TOTAL_STAKE_MAX.to_string(),
        "PAYLOAD_BYTES_MAX": limits::PAYLOAD_BYTES_MAX,
        "TRANSACTION_BYTES_MAX": limits::TRANSACTION_BYTES_MAX,
        "HEADER_BYTES_MAX": limits::HEADER_BYTES_MAX,
        "SYSTEM_INPUTS_BYTES_MAX": limits::SYSTEM_INPUTS_BYTES_MAX,
        "MESSAGE_BYTES_MAX": limits::MESSAGE_BYTES_MAX,
        "FETCH_BLOCKS_MAX": limits::FETCH_BLOCKS_MAX,
        "FETCH_BYTES_MAX": limits::FETCH_BYTES_MAX,
        "TIMEOUT_GROUPS_MAX": limits::TIMEOUT_GROUPS_MAX,
    })
}

#[test]
fn block_vectors() {
    check_file(
        "block.json",
        &json!({
            "about": "specs/block.md. A layout lists the fields in order with their bytes; their concatenation is \
                      the encoding. Key n is derived from 32 bytes of value n; validator i holds key i + 1. Unless \
                      said otherwise chain id 31337, genesis hash 32 times 0x11, epoch 0.",
            "headers": header_vectors(),
            "system_inputs": inputs_vectors(),
            "block": block_vector(),
            "randao": randao_vector(),
            "validator_sets": set_vectors(),
            "genesis": genesis_vector(),
            "limits": limit_vectors(),
            "refused": refused_blocks(),
        }),
    );
}

// Refused encodings.

/// What the decoder says, in words that do not depend on the library.
fn decode_error<T: borsh::BorshDeserialize>(bytes: &[u8]) -> &'static str {
    let Err(error) = decode::<T>(bytes) else { return "accepted" };
    assert_eq!(error.length, bytes.len());
    let known = [
        ("Not all bytes read", "trailing bytes"),
        ("Unexpected length of input", "truncated"),
        ("failed to fill whole buffer", "truncated"),
        ("Unexpected variant tag", "unknown variant"),
        ("Invalid Option representation", "bad option tag"),
    ];
    let found = known.iter().find(|(text, _)| error.reason.contains(text));
    found.unwrap_or_else(|| panic!("unexpected decoder error: {error}")).1
}

fn refuse<T: borsh::BorshDeserialize>(kind: &str, name: &str, bytes: Vec<u8>, error: &str) -> Value {
    assert_eq!(decode_error::<T>(&bytes), error, "{kind}: {name}");
    json!({ "type": kind, "name": name, "bytes": hex(bytes), "error": error })
}

fn changed(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    assert_ne!(bytes[at], value);
    bytes[at] = value;
    bytes
}

fn longer(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0]].concat()
}

fn refused_blocks() -> Vec<Value> {
    let first = encode(&headers()[0].1);
    // Fixed fields up to the justification; block.md gives the offsets.
    let justify_at = 400;
    assert_eq!(first.len(), justify_at + 1 + 1 + 1 + 32);
    let inputs = encode(&full_system_inputs());
    let last = inputs.len() - 1;
    vec![
        refuse::<Header>("header", "nothing", Vec::new(), "truncated"),
        refuse::<Header>("header", "last byte missing", first[..first.len() - 1].to_vec(), "truncated"),
        refuse::<Header>("header", "one byte more", longer(&first), "trailing bytes"),
        refuse::<Header>("header", "justification 3", changed(&first, justify_at, 3), "unknown variant"),
        refuse::<Header>(
            "header",
            "timeout present = 2",
            changed(&first, justify_at + 1, 2),
            "bad option tag",
        ),
        refuse::<Header>(
            "header",
            "commit present = 255",
            changed(&first, justify_at + 2, 255),
            "bad option tag",
        ),
        refuse::<Header>(
            "header",
            "timeout announced and missing",
            changed(&first, justify_at + 1, 1),
            "truncated",
        ),
        refuse::<SystemInputs>(
            "system_inputs",
            "evidence count 2^32 - 1",
            {
                let mut bytes = inputs.clone();
                bytes[32..36].fill(0xff);
                bytes
            },
            "truncated",
        ),
        refuse::<SystemInputs>(
            "system_inputs",
            "item longer than the rest",
            changed(&inputs, 36, 200),
            "truncated",
        ),
        refuse::<SystemInputs>("system_inputs", "penalties cut", inputs[..last].to_vec(), "truncated"),
        refuse::<Block>(
            "block",
            "payload length one more",
            {
                let block = encode(&block());
                let length_at = block.len() - b"payload".len() - 4;
                changed(&block, length_at, 8)
            },
            "truncated",
        ),
        refuse::<Block>(
            "block",
            "payload length one less",
            {
                let block = encode(&block());
                let length_at = block.len() - b"payload".len() - 4;
                changed(&block, length_at, 6)
            },
            "trailing bytes",
        ),
    ]
}

// Consensus.

fn statement_vector<S>(name: &str, statement: S, layout: Layout, signer: u32) -> Value
where
    S: Statement + borsh::BorshDeserialize + PartialEq + std::fmt::Debug + Copy,
{
    let bytes = signing_bytes(&domain(), S::KIND, &layout.bytes());
    assert_eq!(statement.signing_bytes(&domain()), bytes, "{name}");
    let signed = signed(statement, signer);
    assert!(signed.verify(&four(), &domain()));
    assert_eq!(signed.signature, key(signer as u8 + 1).sign(&bytes));
    let mut map = vector(name, &statement, &layout);
    map.insert("kind".into(), json!(S::KIND as u8));
    map.insert("signing_bytes".into(), json!(hex(bytes)));
    map.insert("signer".into(), json!(signer));
    with(map, "signature", json!(hex(signed.signature.0)))
}

fn proposal_layout(vote: &ProposalVote) -> Layout {
    Layout::new().u64("view", vote.view.get()).raw("block_hash", vote.block_hash)
}

fn statement_vectors() -> Vec<Value> {
    let (expired, refused) =
        (timeout_vote(7, 5, 6, TimeoutReason::Expired), timeout_vote(7, 5, 7, rejected()));
    let (prepare, commit) = (prepare_vote(4, 5), commit_vote(5));
    let proposal = ProposalVote { view: View::new(6), block_hash: block().header.hash() };
    vec![
        statement_vector("prepare", prepare, prepare_layout(&prepare), 0),
        statement_vector("commit", commit, commit_layout(&commit), 1),
        statement_vector("timeout: expired", expired, timeout_layout(&expired), 2),
        statement_vector("timeout: rejected", refused, timeout_layout(&refused), 3),
        statement_vector("proposal", proposal, proposal_layout(&proposal), 2),
    ]
}

fn certificate_vectors() -> Vec<Value> {
    let (set, domain) = (four(), domain());
    for certificate in [Certificate::Qc(qc(4, 5)), Certificate::Commit(commit_qc(5)), Certificate::Tc(tc())] {
        assert_eq!(certificate.verify(&set, &domain), Ok(()));
    }
    assert_eq!(tc_without_certificate().verify(&set, &domain), Ok(()));
    let (tc, early) = (tc(), tc_without_certificate());
    vec![
        Value::Object(vector("prepare certificate", &qc(4, 5), &qc_layout(&qc(4, 5)))),
        Value::Object(vector("commit certificate", &commit_qc(5), &commit_qc_layout(&commit_qc(5)))),
        Value::Object(vector("timeout certificate of three groups", &tc, &tc_layout(&tc))),
        Value::Object(vector("timeout certificate before anything is certified", &early, &tc_layout(&early))),
    ]
}

fn signed_layout<S>(signed: &Signed<S>, statement: Layout) -> Layout {
    Layout::new()
        .nested("statement", statement)
        .u32("signer", signed.signer.get())
        .raw("signature", signed.signature.0)
}

fn message_vectors() -> Vec<Value> {
    let header = block().header;
    let proposed = signed(ProposalVote { view: header.view, block_hash: header.hash() }, 2);
    let prepare = signed(prepare_vote(4, 5), 0);
    let commit = Commit { signed: signed(commit_vote(5), 1), qc: qc(4, 5) };
    let timeout =
        Timeout { signed: signed(timeout_vote(7, 5, 6, TimeoutReason::Expired), 2), high_qc: Some(qc(4, 5)) };
    let again = Reproposal { source: qc(4, 5), timeout: Some(tc()) };
    let epoch = Layout::new().u64("epoch", 0);
    let proposal_layout = Layout::new()
        .nested("signed", signed_layout(&proposed, proposal_layout(&proposed.statement)))
        .nested("block", block_layout(&block()));
    let again_layout =
        Layout::new().nested("source", qc_layout(&again.source)).option("timeout", &again.timeout, tc_layout);
    let commit_layout = Layout::new()
        .nested("signed", signed_layout(&commit.signed, commit_layout(&commit.signed.statement)))
        .nested("qc", qc_layout(&commit.qc));
    let timeout_layout = Layout::new()
        .nested("signed", signed_layout(&timeout.signed, timeout_layout(&timeout.signed.statement)))
        .option("high_qc", &timeout.high_qc, qc_layout);
    let proposal = |again| Box::new(Proposal { signed: proposed.clone(), block: block(), again });
    let tag = |number, inner: Layout| Layout::new().u8("tag", number).nested("message", inner);
    let of_epoch = |number, inner: Layout| tag(number, epoch.clone().nested("body", inner));
    let e = Epoch::ZERO;
    let all = [
        (
            "proposal",
            ConsensusMessage::Proposal(e, proposal(None)),
            of_epoch(0, proposal_layout.clone().u8("again.present", 0)),
        ),
        (
            "proposal of a block again",
            ConsensusMessage::Proposal(e, proposal(Some(again))),
            of_epoch(0, proposal_layout.u8("again.present", 1).nested("again", again_layout)),
        ),
        (
            "prepare",
            ConsensusMessage::Prepare(e, prepare.clone()),
            of_epoch(1, signed_layout(&prepare, prepare_layout(&prepare.statement))),
        ),
        ("commit", ConsensusMessage::Commit(e, commit), of_epoch(2, commit_layout)),
        ("timeout", ConsensusMessage::Timeout(e, timeout), of_epoch(3, timeout_layout)),
        ("qc", ConsensusMessage::Qc(qc(4, 5)), tag(4, qc_layout(&qc(4, 5)))),
        ("tc", ConsensusMessage::Tc(tc()), tag(5, tc_layout(&tc()))),
        ("commit_qc", ConsensusMessage::CommitQc(commit_qc(5)), tag(6, commit_qc_layout(&commit_qc(5)))),
    ];
    all.into_iter().map(|(name, message, layout)| Value::Object(vector(name, &message, &layout))).collect()
}

fn fetch_vectors() -> Vec<Value> {
    let committed = CommittedBlock { block: block(), commit: Some(commit_qc(6)) };
    let response = FetchResponse { blocks: vec![committed], head: Some(commit_qc(9)) };
    let response_layout = Layout::new()
        .list("blocks", &response.blocks, |stored| {
            let block = Layout::new().nested("block", block_layout(&stored.block));
            block.option("commit", &stored.commit, commit_qc_layout)
        })
        .option("head", &response.head, commit_qc_layout);
    let by_hash = Layout::new().u8("tag", 0).raw("hash", B256::repeat_byte(5));
    let finalized = Layout::new().u8("tag", 1).u64("from", 17).u32("count", 64);
    let range = FetchRequest::Finalized { from: Height::new(17), count: 64 };
    let nothing = Layout::new().u32("blocks.count", 0).u8("head.present", 0);
    vec![
        Value::Object(vector("by hash", &FetchRequest::ByHash(B256::repeat_byte(5)), &by_hash)),
        Value::Object(vector("finalized from a height", &range, &finalized)),
        Value::Object(vector("answer", &response, &response_layout)),
        Value::Object(vector("empty answer", &FetchResponse::default(), &nothing)),
    ]
}

/// C-6.8 with schoolbook arithmetic: the draw's 256 bits, reduced bit by bit.
fn reference_proposer(stakes: &[u128], seed: B256, view: u64) -> u32 {
    let total: u128 = stakes.iter().sum();
    let draw = derive("tandem v1 proposer draw", &[seed.as_slice(), &view.to_le_bytes()].concat());
    let bits = draw.0.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1));
    let point = bits.fold(0u128, |rest, bit| (rest * 2 + u128::from(bit)) % total);
    let mut upto = 0;
    stakes
        .iter()
        .position(|stake| {
            upto += stake;
            point < upto
        })
        .unwrap() as u32
}

fn proposer_vectors() -> Vec<Value> {
    let seed = derive("tandem v1 genesis seed", &[7; 32]);
    [&[1u128, 1, 1, 1][..], &[4, 1, 1, 1], &[34, 33, 33], &[9, 5, 4, 3, 2, 1, 1], &[1 << 118, 3, 1 << 117]]
        .into_iter()
        .map(|stakes| {
            let set = set_of(0, stakes);
            let drawn: Vec<_> = (1..=40)
                .chain([1 << 40, u64::MAX])
                .map(|view| {
                    let expected = reference_proposer(stakes, seed, view);
                    assert_eq!(set.proposer(&seed, View::new(view)), ValidatorIndex::new(expected));
                    expected
                })
                .collect();
            let stakes: Vec<_> = stakes.iter().map(|stake| Stake::new(*stake)).collect();
            json!({ "seed": seed, "stakes": stakes, "views": "1 to 40, 2^40, 2^64 - 1", "proposers": drawn })
        })
        .collect()
}

fn refused_certificate_vectors() -> Vec<Value> {
    refused_certificates()
        .into_iter()
        .map(|(name, certificate, expected)| {
            let kind = certificate.kind();
            let error = certificate.verify(&four(), &domain()).expect_err(name);
            let variant = format!("{error:?}");
            assert!(variant.starts_with(expected), "{kind}, {name}: {error}");
            json!({ "type": kind, "name": name, "bytes": hex(certificate.bytes()), "error": expected })
        })
        .collect()
}

fn refused_messages() -> Vec<Value> {
    let qc = encode(&qc(4, 5));
    let (tc, vote) = (encode(&tc()), encode(&timeout_vote(7, 5, 7, rejected())));
    let message = encode(&ConsensusMessage::Qc(self::qc(4, 5)));
    let bitmap_length_at = 8 + 88;
    let groups_count_at = 16;
    vec![
        refuse::<ConsensusMessage>("message", "nothing", Vec::new(), "truncated"),
        refuse::<ConsensusMessage>("message", "kind 7", changed(&message, 0, 7), "unknown variant"),
        refuse::<ConsensusMessage>("message", "one byte more", longer(&message), "trailing bytes"),
        refuse::<Qc>("qc", "bitmap length one less", changed(&qc, bitmap_length_at, 0), "trailing bytes"),
        refuse::<Qc>("qc", "bitmap length 255", changed(&qc, bitmap_length_at, 255), "truncated"),
        refuse::<CommitQc>("commit_qc", "a prepare certificate", qc.clone(), "trailing bytes"),
        refuse::<Tc>("tc", "group count one more", changed(&tc, groups_count_at, 4), "unknown variant"),
        refuse::<Tc>(
            "tc",
            "group count 2^32 - 1",
            {
                let mut bytes = tc.clone();
                bytes[groups_count_at..groups_count_at + 4].fill(0xff);
                bytes
            },
            "unknown variant",
        ),
        refuse::<types::TimeoutVote>("timeout vote", "reason 2", changed(&vote, 24, 2), "unknown variant"),
        refuse::<types::TimeoutVote>("timeout vote", "code 6", changed(&vote, 24 + 33, 6), "unknown variant"),
        refuse::<FetchRequest>("fetch request", "kind 2", vec![2; 33], "unknown variant"),
        refuse::<FetchResponse>("fetch response", "head present = 3", vec![0, 0, 0, 0, 3], "bad option tag"),
        refuse::<FetchResponse>(
            "fetch response",
            "2^32 - 1 blocks",
            vec![255, 255, 255, 255, 0],
            "truncated",
        ),
    ]
}

#[test]
fn consensus_vectors() {
    check_file(
        "consensus.json",
        &json!({
            "about": "specs/consensus.md and specs/block.md. Fixtures as in block.json; certificates are of four \
                      validators with stake 1 each.",
            "domain": { "chain_id": 31337, "genesis_hash": domain().genesis_hash, "epoch": 0 },
            "statements": statement_vectors(),
            "certificates": certificate_vectors(),
            "messages": message_vectors(),
            "fetch": fetch_vectors(),
            "proposers": proposer_vectors(),
            "refused_certificates": refused_certificate_vectors(),
            "refused_encodings": refused_messages(),
        }),
    );
}

#[test]
fn the_justification_names_the_parent() {
    for (name, header) in headers() {
        let source = header.source();
        assert_eq!(source.block_hash, header.parent_hash, "{name}");
        assert_eq!(source.height.next(), header.height, "{name}");
        let expected = match &header.justify {
            Justify::Prepare(qc) => qc.view(),
            Justify::Genesis | Justify::EpochBoundary(_) => View::ZERO,
        };
        assert_eq!(source.view, expected, "{name}");
    }
    assert_ne!(Signature::ZERO, headers()[0].1.randao_reveal);
}
