//! Transactions and receipts.

use super::{
    Table,
    blocks::{final_height, height_by_hash},
    stored,
};
use crate::rpc::{
    api::Api,
    error::RpcResult,
    params::Args,
    shapes::{self, RpcReceipt, RpcTransaction},
};
use alloy_primitives::{B256, Bytes, U64};
use jsonrpsee::types::Params;
use types::Height;

pub(super) fn register(table: &mut Table) {
    table.cheap("eth_getTransactionByHash", by_hash);
    table.cheap("eth_getTransactionReceipt", receipt);
    table.cheap("eth_getRawTransactionByHash", raw_by_hash);
    table.cheap("eth_getTransactionByBlockNumberAndIndex", by_number_and_index);
    table.cheap("eth_getTransactionByBlockHashAndIndex", by_block_hash_and_index);
}

fn by_hash(api: &Api, params: &Params<'_>) -> RpcResult<Option<RpcTransaction>> {
    let hash: B256 = Args::new(params, 1)?.required(0, "transaction hash")?;
    if let Some(found) = stored(api.chain.mined_transaction(hash))? {
        return Ok(Some(shapes::mined_transaction(&found.transaction, &found.block, found.index.into())));
    }
    if let Some(pooled) = api.chain.pool().get(&hash) {
        return Ok(Some(shapes::pooled_transaction(&pooled)));
    }
    // It may have left the pool for a block between the two looks.
    let found = stored(api.chain.mined_transaction(hash))?;
    Ok(found.map(|found| shapes::mined_transaction(&found.transaction, &found.block, found.index.into())))
}

/// The receipt of a transaction in a final block; null before.
fn receipt(api: &Api, params: &Params<'_>) -> RpcResult<Option<RpcReceipt>> {
    let hash: B256 = Args::new(params, 1)?.required(0, "transaction hash")?;
    receipt_by_hash(api, hash)
}

pub(super) fn receipt_by_hash(api: &Api, hash: B256) -> RpcResult<Option<RpcReceipt>> {
    let found = stored(api.chain.receipt(hash))?;
    Ok(found.map(|(mined, receipt)| shapes::receipt_of(&receipt, &mined.block, mined.index.into())))
}

fn raw_by_hash(api: &Api, params: &Params<'_>) -> RpcResult<Option<Bytes>> {
    let hash: B256 = Args::new(params, 1)?.required(0, "transaction hash")?;
    let mined = stored(api.chain.mined_transaction(hash))?.map(|found| found.transaction);
    Ok(mined.or_else(|| api.chain.pool().get(&hash)).map(|transaction| transaction.encoded().clone()))
}

fn by_number_and_index(api: &Api, params: &Params<'_>) -> RpcResult<Option<RpcTransaction>> {
    let args = Args::new(params, 2)?;
    let (height, index) = (final_height(api, &args)?, args.required(1, "transaction index")?);
    by_position(api, height, index)
}

fn by_block_hash_and_index(api: &Api, params: &Params<'_>) -> RpcResult<Option<RpcTransaction>> {
    let args = Args::new(params, 2)?;
    let (height, index) = (height_by_hash(api, &args)?, args.required(1, "transaction index")?);
    by_position(api, height, index)
}

fn by_position(api: &Api, height: Option<Height>, index: U64) -> RpcResult<Option<RpcTransaction>> {
    let Some(height) = height else { return Ok(None) };
    let Some(block) = api.block(height)? else { return Ok(None) };
    let index = index.to::<u64>();
    let transaction = usize::try_from(index).ok().and_then(|index| block.transactions.get(index));
    Ok(transaction.map(|transaction| shapes::mined_transaction(transaction, &block.record, index)))
}
