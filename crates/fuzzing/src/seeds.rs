//! Well-formed inputs the fuzzers start from. They are made, not drawn: the same ones at every run, but for the journal's
//! random salt, which no input holds.

use crate::lab::{Lab, OTHERS};
use crate::{certificates, files, keys, light, replica, rpc};
use alloy_primitives::{Address, U256};
use execution::testing::TestKey;
use execution::{Payload, RecoveredTx};
use types::{
    ConsensusMessage, Epoch, FetchRequest, FetchResponse, Height, Justify, Prepare, SignerSet, encode,
};

/// Inputs by target.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = Vec::new();
    all.extend(consensus());
    all.extend(net::fuzzing::seeds());
    all.extend(engine_api::fuzzing::seeds());
    all.extend(journal::fuzzing::seeds().into_iter().map(|bytes| ("journal_piece", bytes)));
    all.push(("journal_piece", [vec![1], files::sign_state()].concat()));
    all.extend(
        [&[][..], &[2, 0, 3, 0, 1, 1], &[1, 3, 40, 0], &[0, 2, 0, 0, 3, 2, 0, 0]]
            .map(|b| ("journal_files", b.to_vec())),
    );
    all.extend(certificates::evidence_seeds().into_iter().map(|bytes| ("evidence", bytes)));
    all.extend(settings());
    all.extend(execution());
    all.extend(rpc::seeds().into_iter().map(|bytes| ("rpc", bytes)));
    all.extend(keys::seeds());
    all.extend(light::seeds());
    all.extend(replica::seeds().into_iter().map(|bytes| ("replica", bytes)));
    all
}

fn consensus() -> Vec<(&'static str, Vec<u8>)> {
    let mut lab = Lab::new();
    let chain = lab.chain(2);
    let tc = lab.tc(3, &OTHERS, Some(&chain[1].1), 2);
    let mut late = lab.block(4, Some(&chain[1].1), Some(tc.clone()), b"payload");
    late.header.last_commit = Some(lab.commit_qc(&chain[0].0, &OTHERS));
    let (block, qc) = &chain[1];
    let mut boundary = block.header.clone();
    boundary.justify = Justify::EpochBoundary(lab.commit_qc(&chain[0].0, &OTHERS));
    let commit_qc = lab.commit_qc(block, &OTHERS);
    let signed = lab.sign(1, Lab::commit_vote(block));
    let prepare: Prepare = lab.sign(2, Lab::link(block));
    let messages = [
        lab.proposal(&late),
        ConsensusMessage::Prepare(Epoch::ZERO, prepare),
        ConsensusMessage::Commit(Epoch::ZERO, types::Commit { signed, qc: qc.clone() }),
        lab.timeout(0, 3, Some(qc)),
        ConsensusMessage::Qc(qc.clone()),
        ConsensusMessage::Tc(tc.clone()),
        ConsensusMessage::CommitQc(commit_qc.clone()),
    ];
    let stored = Lab::stored(block, Some(commit_qc.clone()));
    let response = FetchResponse { blocks: vec![stored.clone()], head: Some(commit_qc) };
    let request = FetchRequest::Finalized { from: Height::new(1), count: 9 };
    let tagged = |tag: u8, body: Vec<u8>| [vec![tag], body].concat();
    let everyone = SignerSet::of(certificates::SET.len(), certificates::SET.indices());
    let mut all: Vec<_> = messages.iter().map(|message| ("messages", encode(message))).collect();
    all.extend([
        ("blocks", tagged(0, encode(&late))),
        ("blocks", tagged(1, encode(&stored))),
        ("blocks", tagged(2, encode(&late.system_inputs))),
        ("blocks", tagged(3, encode(&late.header))),
        ("blocks", tagged(3, encode(&boundary))),
        ("fetch", tagged(0, encode(&request))),
        ("fetch", tagged(0, encode(&FetchRequest::ByHash(block.header.hash())))),
        ("fetch", tagged(1, encode(&response))),
        ("fetch", tagged(2, tagged(0, encode(&response)))),
        ("fetch", vec![2, 1]),
        ("certificates", tagged(1, encode(&certificates::qc(&everyone)))),
        ("certificates", tagged(1, encode(&certificates::commit_qc(&everyone)))),
        ("certificates", tagged(1, encode(&certificates::tc(&everyone, 3)))),
        ("certificates", vec![0, 0, 0]),
        ("certificates", vec![0, 1, 1, 9, 0, 1]),
        ("certificates", vec![0, 0, 2, 3, 200, 0, 4]),
        ("bls", bls()),
    ]);
    all
}

fn bls() -> Vec<u8> {
    let secret = crypto::SecretKey::from_seed(&[2; 32]);
    [&secret.public_key().0[..], &secret.sign(b"message").0, b"message"].concat()
}

fn settings() -> Vec<(&'static str, Vec<u8>)> {
    let consensus = toml::to_string(&consensus_node::Config::default()).unwrap();
    let engine = engine_api::Endpoint::Unix("engine.sock".into());
    let execution =
        toml::to_string(&execution_node::Config::new("genesis.json", "execution", engine, "jwt.hex"))
            .unwrap();
    vec![
        ("genesis", serde_json::to_vec(&rpc::genesis()).unwrap()),
        ("config", [&[0], consensus.as_bytes()].concat()),
        ("config", [&[1], execution.as_bytes()].concat()),
    ]
}

fn execution() -> Vec<(&'static str, Vec<u8>)> {
    let key = TestKey::new(0);
    let transfer = |nonce| key.transfer(31337, nonce, Address::repeat_byte(0xaa), U256::from(1));
    let legacy = key.sign_legacy(alloy_consensus::TxLegacy {
        chain_id: Some(31337),
        gas_limit: 21_000,
        gas_price: 1_000_000_000,
        ..Default::default()
    });
    let authorization = alloy_eips::eip7702::Authorization {
        chain_id: U256::from(31337),
        address: Address::repeat_byte(1),
        nonce: 0,
    };
    let delegating = key.sign_eip7702(alloy_consensus::TxEip7702 {
        chain_id: 31337,
        gas_limit: 100_000,
        authorization_list: vec![key.authorize(authorization)],
        ..Default::default()
    });
    let listing = key.sign_eip2930(alloy_consensus::TxEip2930 {
        chain_id: 31337,
        gas_limit: 30_000,
        ..Default::default()
    });
    let bytes = |tx: &RecoveredTx| tx.encoded().to_vec();
    let lanes = execution::testing::payload_of(&[&[transfer(0), transfer(1)]]).unwrap();
    let mut all: Vec<_> =
        [transfer(0), legacy, delegating, listing].iter().map(|tx| ("transaction", bytes(tx))).collect();
    all.push(("payload", lanes.encode()));
    all.push(("payload", Payload::default().encode()));
    all
}
