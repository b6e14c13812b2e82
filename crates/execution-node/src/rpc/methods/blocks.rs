//! Blocks, headers and counts.

use super::{Table, stored};
use crate::rpc::{
    api::{Api, Target},
    error::{RpcError, RpcResult},
    json::Json,
    params::Args,
    shapes::{self, RpcReceipt},
};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, U64};
use jsonrpsee::types::Params;
use types::Height;

pub(super) fn register(table: &mut Table) {
    table.cheap("eth_blockNumber", block_number);
    table.dispatched("eth_getBlockByNumber", block_by_number, wants_transactions);
    table.dispatched("eth_getBlockByHash", block_by_hash, wants_transactions);
    table.cheap("eth_getHeaderByNumber", header_by_number);
    table.cheap("eth_getHeaderByHash", header_by_hash);
    table.heavy("eth_getBlockReceipts", block_receipts);
    table.cheap("eth_getBlockTransactionCountByNumber", transaction_count_by_number);
    table.cheap("eth_getBlockTransactionCountByHash", transaction_count_by_hash);
    table.cheap("eth_getUncleCountByBlockNumber", uncle_count_by_number);
    table.cheap("eth_getUncleCountByBlockHash", uncle_count_by_hash);
    table.cheap("eth_getUncleByBlockNumberAndIndex", uncle_by_number);
    table.cheap("eth_getUncleByBlockHashAndIndex", uncle_by_hash);
}

/// Serialising thousands of whole transactions takes milliseconds.
fn wants_transactions(params: &Params<'_>) -> bool {
    Args::new(params, 2)
        .and_then(|args| args.optional(1, "full transactions"))
        .is_ok_and(|full| full == Some(true))
}

fn block_number(api: &Api, params: &Params<'_>) -> RpcResult<U64> {
    Args::new(params, 0)?;
    Ok(U64::from(api.chain.height().get()))
}

fn block_by_number(api: &Api, params: &Params<'_>) -> RpcResult<Option<Json>> {
    let args = Args::new(params, 2)?;
    let tag: BlockNumberOrTag = args.required(0, "block number or tag")?;
    let full = args.optional(1, "full transactions")?.unwrap_or(false);
    match api.target_of_tag(tag) {
        Target::Final(height) => api.block_json(height, full),
        Target::Pending => {
            let (head, env) = (api.chain.head(), api.chain.next_block_env());
            let header = shapes::pending_header(&head.record, &env, api.chain.rules().fork_at(env.height));
            Json::of(&shapes::pending_block(header, full)).map(Some)
        }
    }
}

fn block_by_hash(api: &Api, params: &Params<'_>) -> RpcResult<Option<Json>> {
    let args = Args::new(params, 2)?;
    let full = args.optional(1, "full transactions")?.unwrap_or(false);
    match height_by_hash(api, &args)? {
        Some(height) => api.block_json(height, full),
        None => Ok(None),
    }
}

fn header_by_number(api: &Api, params: &Params<'_>) -> RpcResult<Option<Json>> {
    match final_height(api, &Args::new(params, 1)?)? {
        Some(height) => api.header_json(height),
        None => Ok(None),
    }
}

fn header_by_hash(api: &Api, params: &Params<'_>) -> RpcResult<Option<Json>> {
    match height_by_hash(api, &Args::new(params, 1)?)? {
        Some(height) => api.header_json(height),
        None => Ok(None),
    }
}

fn block_receipts(api: &Api, params: &Params<'_>) -> RpcResult<Option<Vec<RpcReceipt>>> {
    let id: BlockId = Args::new(params, 1)?.required(0, "block")?;
    let height = match id {
        BlockId::Hash(hash) => stored(api.chain.height_of(hash.block_hash))?,
        BlockId::Number(tag) => match api.target_of_tag(tag) {
            Target::Final(height) => Some(height),
            Target::Pending => None,
        },
    };
    let Some(height) = height else { return Ok(None) };
    Ok(api.block(height)?.map(|block| shapes::receipts_of(&block)))
}

fn transaction_count_by_number(api: &Api, params: &Params<'_>) -> RpcResult<Option<U64>> {
    let tag: BlockNumberOrTag = Args::new(params, 1)?.required(0, "block number or tag")?;
    match api.target_of_tag(tag) {
        Target::Final(height) => transaction_count(api, Some(height)),
        Target::Pending => Ok(Some(U64::from(api.chain.pool().status().pending))),
    }
}

fn transaction_count_by_hash(api: &Api, params: &Params<'_>) -> RpcResult<Option<U64>> {
    transaction_count(api, height_by_hash(api, &Args::new(params, 1)?)?)
}

fn transaction_count(api: &Api, height: Option<Height>) -> RpcResult<Option<U64>> {
    let Some(height) = height else { return Ok(None) };
    Ok(stored(api.chain.record(height))?.map(|record| U64::from(record.transaction_count)))
}

/// There are no uncles: the count of a known block is zero.
fn uncle_count_by_number(api: &Api, params: &Params<'_>) -> RpcResult<Option<U64>> {
    let known = final_height(api, &Args::new(params, 1)?)?;
    Ok(known.filter(|height| *height <= api.chain.height()).map(|_| U64::ZERO))
}

fn uncle_count_by_hash(api: &Api, params: &Params<'_>) -> RpcResult<Option<U64>> {
    Ok(height_by_hash(api, &Args::new(params, 1)?)?.map(|_| U64::ZERO))
}

fn uncle_by_number(_: &Api, params: &Params<'_>) -> RpcResult<()> {
    let args = Args::new(params, 2)?;
    args.required::<BlockNumberOrTag>(0, "block number or tag")?;
    args.required::<U64>(1, "uncle index").map(drop)
}

fn uncle_by_hash(_: &Api, params: &Params<'_>) -> RpcResult<()> {
    let args = Args::new(params, 2)?;
    args.required::<B256>(0, "block hash")?;
    args.required::<U64>(1, "uncle index").map(drop)
}

/// The height the first parameter names; nothing for `pending`.
pub(super) fn final_height(api: &Api, args: &Args<'_>) -> RpcResult<Option<Height>> {
    match api.target_of_tag(args.required(0, "block number or tag")?) {
        Target::Final(height) => Ok(Some(height)),
        Target::Pending => Ok(None),
    }
}

/// The height of the block whose hash is the first parameter.
pub(super) fn height_by_hash(api: &Api, args: &Args<'_>) -> RpcResult<Option<Height>> {
    let hash: B256 = args.required(0, "block hash")?;
    api.chain.height_of(hash).map_err(RpcError::internal)
}
