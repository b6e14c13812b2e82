//! What runs beside what, and what transactions touch (docs/lanes.md).

use super::{Table, stored};
use crate::{
    lanes::{LaneFigure, LaneFigures, SegmentFigure},
    rpc::{
        api::{Api, Target},
        error::{RpcError, RpcResult},
        params::Args,
    },
};
use alloy_eips::BlockId;
use alloy_primitives::{Address, B256, U64};
use execution::{Access, Payload, PayloadTx, RecoveredTx};
use jsonrpsee::types::Params;
use serde::Serialize;
use types::Height;

pub(super) fn register(table: &mut Table) {
    table.heavy("tandem_lanes", lanes);
    table.heavy("tandem_accessSets", access_sets);
}

/// The lanes of a block.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockLanes {
    number: U64,
    hash: B256,
    gas_used: U64,
    transaction_count: U64,
    objects: U64,
    access_bytes: U64,
    longest_segment_gas: U64,
    lanes: Vec<Lane>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lane {
    gas_used: U64,
    /// Thousandths of the block's gas.
    weight: u64,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Segment {
    gas_used: U64,
    values_taken_over: U64,
    transactions: Vec<B256>,
}

/// Null for a block that is not there.
fn lanes(api: &Api, params: &Params<'_>) -> RpcResult<Option<BlockLanes>> {
    let target = api.target(Args::new(params, 1)?.optional::<BlockId>(0, "block")?)?;
    let Target::Final(height) = target else { return Ok(None) };
    let Some(block) = api.block(height)? else { return Ok(None) };
    let outline = stored(Payload::decode_outline(&block.outline))?;
    let figures = LaneFigures::of(&outline, &block.receipts);
    let segment = |figure: &SegmentFigure| Segment {
        gas_used: U64::from(figure.gas),
        values_taken_over: U64::from(figure.taken),
        transactions: block
            .transactions
            .get(figure.transactions.clone())
            .map(|own| own.iter().map(RecoveredTx::hash).collect())
            .unwrap_or_default(),
    };
    let lane = |figure: &LaneFigure| Lane {
        gas_used: U64::from(figure.gas),
        weight: figures.share(figure.gas),
        segments: figure.segments.iter().map(segment).collect(),
    };
    Ok(Some(BlockLanes {
        number: U64::from(block.record.height),
        hash: block.record.hash,
        gas_used: U64::from(figures.gas),
        transaction_count: U64::from(block.transactions.len()),
        objects: U64::from(figures.objects),
        access_bytes: U64::from(block.outline.len()),
        longest_segment_gas: U64::from(figures.longest_segment()),
        lanes: figures.lanes.iter().map(lane).collect(),
    }))
}

/// What a transaction of a block touched.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TransactionAccesses {
    block_number: U64,
    block_hash: B256,
    transaction_index: U64,
    lane: U64,
    segment: U64,
    accesses: Vec<ObjectAccess>,
}

#[derive(Clone, Debug, Serialize)]
struct ObjectAccess {
    address: Address,
    /// Left out for the account itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<B256>,
    kind: &'static str,
}

impl From<&Access> for ObjectAccess {
    fn from(access: &Access) -> Self {
        Self {
            address: access.object.address,
            slot: access.object.slot.map(B256::from),
            kind: if access.written { "write" } else { "read" },
        }
    }
}

/// Null for a transaction that is in no final block.
fn access_sets(api: &Api, params: &Params<'_>) -> RpcResult<Option<TransactionAccesses>> {
    let hash: B256 = Args::new(params, 1)?.required(0, "transaction hash")?;
    let Some(mined) = stored(api.chain.mined_transaction(hash))? else { return Ok(None) };
    let height = Height::new(mined.block.height);
    let missing = || RpcError::internal(format!("lanes of block {height} do not hold transaction {hash}"));
    let outline = stored(api.chain.outline(height))?.ok_or_else(missing)?;
    let (lane, segment, transaction) = place(&outline, mined.index as usize).ok_or_else(missing)?;
    Ok(Some(TransactionAccesses {
        block_number: U64::from(mined.block.height),
        block_hash: mined.block.hash,
        transaction_index: U64::from(mined.index),
        lane: U64::from(lane),
        segment: U64::from(segment),
        accesses: outline.access_set(transaction).iter().map(ObjectAccess::from).collect(),
    }))
}

/// Lane, segment and entry of the transaction at `index` of the block.
fn place(outline: &Payload, mut index: usize) -> Option<(usize, usize, &PayloadTx)> {
    for (lane, plan) in outline.lanes.iter().enumerate() {
        for (position, segment) in plan.segments.iter().enumerate() {
            match segment.transactions.get(index) {
                Some(transaction) => return Some((lane, position, transaction)),
                None => index -= segment.transactions.len(),
            }
        }
    }
    None
}
