//! What transactions cost.

use super::Table;
use crate::rpc::{
    api::{Api, Target},
    error::{RpcError, RpcResult},
    fees,
    params::Args,
    quantity::Count,
};
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{U64, U128};
use alloy_rpc_types_eth::FeeHistory;
use jsonrpsee::types::Params;
use state::BlockRecord;
use std::sync::Arc;
use types::Height;

pub(super) fn register(table: &mut Table) {
    table.cheap("eth_gasPrice", gas_price);
    table.cheap("eth_maxPriorityFeePerGas", max_priority_fee);
    table.cheap("eth_baseFee", base_fee);
    table.cheap("eth_blobBaseFee", blob_base_fee);
    table.heavy("eth_feeHistory", fee_history);
}

fn gas_price(api: &Api, params: &Params<'_>) -> RpcResult<U128> {
    Args::new(params, 0)?;
    let base_fee = u128::from(api.chain.next_base_fee());
    Ok(U128::from(base_fee.saturating_add(api.suggested_tip()?)))
}

fn max_priority_fee(api: &Api, params: &Params<'_>) -> RpcResult<U128> {
    Args::new(params, 0)?;
    Ok(U128::from(api.suggested_tip()?))
}

fn base_fee(api: &Api, params: &Params<'_>) -> RpcResult<U64> {
    Args::new(params, 0)?;
    Ok(U64::from(api.chain.next_base_fee()))
}

/// There are no blobs, so their price is the lowest there is.
fn blob_base_fee(_: &Api, params: &Params<'_>) -> RpcResult<U64> {
    Args::new(params, 0)?;
    Ok(U64::ONE)
}

fn fee_history(api: &Api, params: &Params<'_>) -> RpcResult<FeeHistory> {
    let args = Args::new(params, 3)?;
    let Count(wanted) = args.required(0, "block count")?;
    let tag: BlockNumberOrTag = args.required(1, "newest block")?;
    let percentiles: Option<Vec<f64>> = args.optional(2, "reward percentiles")?;
    fees::check_percentiles(percentiles.as_deref().unwrap_or_default()).map_err(RpcError::Refused)?;
    let head = api.chain.height().get();
    let newest = match api.target_of_tag(tag) {
        Target::Final(height) => height.get(),
        Target::Pending => head,
    };
    if newest > head {
        return Err(RpcError::Refused(format!("request beyond head block: requested {newest}, head {head}")));
    }
    let count = wanted.min(api.config.fee_history_blocks_max).min(newest.saturating_add(1));
    if count == 0 {
        return Ok(FeeHistory::default());
    }
    history(api, newest + 1 - count, newest, percentiles)
}

fn history(api: &Api, oldest: u64, newest: u64, percentiles: Option<Vec<f64>>) -> RpcResult<FeeHistory> {
    let mut answer = FeeHistory { oldest_block: oldest, ..FeeHistory::default() };
    let mut rewards = percentiles.as_ref().map(|_| Vec::new());
    let mut next_base_fee = 0;
    for height in oldest..=newest {
        let record = api.record(Height::new(height))?;
        answer.base_fee_per_gas.push(record.base_fee.into());
        answer.gas_used_ratio.push(ratio(record.gas_used, record.gas_limit));
        answer.base_fee_per_blob_gas.push(1);
        answer.blob_gas_used_ratio.push(0.0);
        next_base_fee = api.chain.rules().next_base_fee(height, record.gas_used, record.base_fee);
        if let (Some(rewards), Some(percentiles)) = (&mut rewards, &percentiles) {
            rewards.push(block_rewards(api, &record, percentiles)?);
        }
    }
    answer.base_fee_per_gas.push(next_base_fee.into());
    answer.base_fee_per_blob_gas.push(1);
    answer.reward = rewards;
    Ok(answer)
}

fn ratio(used: u64, limit: u64) -> f64 {
    if limit == 0 { 0.0 } else { used as f64 / limit as f64 }
}

fn block_rewards(api: &Api, record: &BlockRecord, percentiles: &[f64]) -> RpcResult<Vec<u128>> {
    if percentiles.is_empty() || record.transaction_count == 0 {
        return Ok(vec![0; percentiles.len()]);
    }
    let bits: Arc<[u64]> = percentiles.iter().map(|percentile| percentile.to_bits()).collect();
    let key = (record.height, bits);
    if let Some(known) = api.rewards.lock().get(&key) {
        return Ok(known);
    }
    let block = api.block(Height::new(record.height))?;
    let block = block.ok_or_else(|| RpcError::internal(format!("block {} is not stored", record.height)))?;
    let rewards = fees::rewards(&block.receipts, record.base_fee, record.gas_used, percentiles);
    api.rewards.lock().put(key, rewards.clone());
    Ok(rewards)
}
