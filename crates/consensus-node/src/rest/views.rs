//! Consensus objects as JSON: heights, views and times as numbers, stakes as decimal strings (they do not fit a JSON
//! number), hashes, keys and signatures as 0x-hex.

use crate::feed::FinalBlock;
use alloy_primitives::hex;
use serde_json::{Value, json};
use types::{
    B256, CommitQc, Header, Height, Justify, Qc, SignerSet, Stake, Tc, TimeoutReason, Validator,
    ValidatorIndex, ValidatorSet, View, encode,
};

/// How far a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Finalized,
    Certified,
    Proposed,
}

impl Standing {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Finalized => "finalized",
            Self::Certified => "certified",
            Self::Proposed => "proposed",
        }
    }
}

/// A whole header, with its canonical bytes for whoever verifies.
pub(super) fn header(hash: B256, header: &Header, payload_bytes: usize, standing: Standing) -> Value {
    json!({
        "hash": hash,
        "status": standing.name(),
        "chain_id": header.chain_id,
        "epoch": header.epoch,
        "epoch_start_height": header.epoch_start_height,
        "height": header.height,
        "view": header.view,
        "parent_hash": header.parent_hash,
        "timestamp_ms": header.timestamp_ms,
        "proposer": header.proposer,
        "fee_recipient": header.fee_recipient,
        "validator_set_id": header.validator_set_id,
        "next_validator_set_id": header.next_validator_set_id,
        "payload_commitment": header.payload_commitment,
        "payload_bytes": payload_bytes,
        "state_hash": header.state_hash,
        "receipts_hash": header.receipts_hash,
        "checkpoint": { "height": header.checkpoint.height, "root": header.checkpoint.root },
        "randao_reveal": header.randao_reveal,
        "justify": justify(&header.justify),
        "timeout": header.timeout.as_ref().map(timeout),
        "last_commit": header.last_commit.as_ref().map(commit_summary),
        "system_inputs_hash": header.system_inputs_hash,
        "encoded": hex::encode_prefixed(encode(header)),
    })
}

/// The facts of a block that lists and event streams show.
pub(super) fn summary(block: &FinalBlock) -> Value {
    json!({
        "height": block.header.height,
        "hash": block.block_hash,
        "epoch": block.header.epoch,
        "view": block.header.view,
        "parent_hash": block.header.parent_hash,
        "proposer": block.header.proposer,
        "timestamp_ms": block.header.timestamp_ms,
        "state_hash": block.header.state_hash,
        "payload_bytes": block.payload_bytes,
        "views_skipped": block.header.timeout.is_some(),
        "finalized_at_ms": block.finalized_at_ms,
        "has_own_certificate": block.commit.is_some(),
    })
}

/// A commit certificate with the weight behind it.
pub(super) fn commit(qc: &CommitQc, set: &ValidatorSet) -> Value {
    json!({
        "epoch": qc.epoch,
        "view": qc.vote.view,
        "height": qc.vote.height,
        "block_hash": qc.vote.block_hash,
        "signers": signers(&qc.signers),
        "signed_stake": set.stake_of(&qc.signers),
        "required_stake": set.quorum(),
        "signature": qc.signature,
        "encoded": hex::encode_prefixed(encode(qc)),
    })
}

pub(super) fn validator(index: ValidatorIndex, validator: &Validator, connected: Option<bool>) -> Value {
    json!({
        "index": index,
        "address": validator.address,
        "public_key": validator.public_key,
        "stake": validator.stake,
        "connected": connected,
    })
}

/// Block 0 has no header: it is the genesis file.
pub(super) fn genesis(hash: B256, timestamp_ms: u64, chain_id: u64) -> Value {
    json!({
        "hash": hash,
        "status": Standing::Finalized.name(),
        "chain_id": chain_id,
        "height": Height::ZERO,
        "view": View::ZERO,
        "timestamp_ms": timestamp_ms,
        "genesis": true,
    })
}

pub(super) fn stake_share(part: Stake, whole: Stake) -> f64 {
    if whole == Stake::ZERO { 0.0 } else { part.get() as f64 / whole.get() as f64 }
}

fn justify(justify: &Justify) -> Value {
    match justify {
        Justify::Genesis => json!({ "kind": "genesis" }),
        Justify::EpochBoundary(qc) => json!({ "kind": "epoch_boundary", "commit": commit_summary(qc) }),
        Justify::Prepare(qc) => json!({ "kind": "prepare", "certificate": prepare(qc) }),
    }
}

fn prepare(qc: &Qc) -> Value {
    json!({
        "epoch": qc.epoch,
        "source_view": qc.vote.source_view,
        "source_hash": qc.vote.source_hash,
        "target_view": qc.vote.target_view,
        "height": qc.vote.height,
        "block_hash": qc.vote.block_hash,
        "signers": signers(&qc.signers),
    })
}

fn commit_summary(qc: &CommitQc) -> Value {
    json!({
        "epoch": qc.epoch,
        "view": qc.vote.view,
        "height": qc.vote.height,
        "block_hash": qc.vote.block_hash,
        "signers": signers(&qc.signers),
    })
}

fn timeout(tc: &Tc) -> Value {
    let groups: Vec<Value> = tc
        .groups
        .iter()
        .map(|group| {
            let reason = match group.reason {
                TimeoutReason::Expired => json!({ "kind": "expired" }),
                TimeoutReason::Rejected { block_hash, code } => {
                    json!({ "kind": "rejected", "block_hash": block_hash, "code": code })
                }
            };
            json!({ "high_qc_view": group.high_qc_view, "reason": reason, "signers": signers(&group.signers) })
        })
        .collect();
    json!({ "epoch": tc.epoch, "view": tc.view, "groups": groups })
}

fn signers(set: &SignerSet) -> Vec<ValidatorIndex> {
    set.iter().collect()
}
