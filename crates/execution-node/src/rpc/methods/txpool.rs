//! Looking into the pool.

use super::Table;
use crate::rpc::{
    api::Api,
    error::{RpcError, RpcResult},
    params::Args,
    shapes::{self, RpcTransaction},
};
use ::txpool::SenderContent;
use alloy_primitives::{Address, U64};
use execution::RecoveredTx;
use jsonrpsee::types::Params;
use serde::Serialize;
use std::collections::BTreeMap;

/// Transactions one answer may hold.
const TRANSACTIONS_MAX: usize = 20_000;

pub(super) fn register(table: &mut Table) {
    table.cheap("txpool_status", status);
    table.heavy("txpool_content", content);
    table.heavy("txpool_contentFrom", content_from);
    table.heavy("txpool_inspect", inspect);
}

#[derive(Clone, Serialize)]
struct Status {
    pending: U64,
    queued: U64,
}

/// Transactions by nonce (in decimal, as geth writes it).
type ByNonce<T> = BTreeMap<String, T>;

/// The pool's two halves.
#[derive(Clone, Debug, Default, Serialize)]
struct Halves<T> {
    pending: T,
    queued: T,
}

fn status(api: &Api, params: &Params<'_>) -> RpcResult<Status> {
    Args::new(params, 0)?;
    let status = api.chain.pool().status();
    Ok(Status { pending: U64::from(status.pending), queued: U64::from(status.queued) })
}

fn content(api: &Api, params: &Params<'_>) -> RpcResult<Halves<BTreeMap<Address, ByNonce<RpcTransaction>>>> {
    Args::new(params, 0)?;
    all(api, shapes::pooled_transaction)
}

fn inspect(api: &Api, params: &Params<'_>) -> RpcResult<Halves<BTreeMap<Address, ByNonce<String>>>> {
    Args::new(params, 0)?;
    all(api, shapes::summary_of)
}

fn content_from(api: &Api, params: &Params<'_>) -> RpcResult<Halves<ByNonce<RpcTransaction>>> {
    let sender: Address = Args::new(params, 1)?.required(0, "address")?;
    let Some(found) = api.chain.pool().content_of(&sender) else { return Ok(Halves::default()) };
    let SenderContent { pending, queued, .. } = found;
    Ok(Halves {
        pending: by_nonce(&pending, shapes::pooled_transaction),
        queued: by_nonce(&queued, shapes::pooled_transaction),
    })
}

fn all<T>(api: &Api, show: fn(&RecoveredTx) -> T) -> RpcResult<Halves<BTreeMap<Address, ByNonce<T>>>> {
    let pool = api.chain.pool();
    let status = pool.status();
    let count = status.pending.saturating_add(status.queued);
    if count > TRANSACTIONS_MAX {
        return Err(RpcError::LimitExceeded(format!(
            "the pool holds {count} transactions, at most {TRANSACTIONS_MAX} are listed; use txpool_status or \
             txpool_contentFrom"
        )));
    }
    let (mut pending, mut queued) = (BTreeMap::new(), BTreeMap::new());
    for content in pool.content() {
        if !content.pending.is_empty() {
            pending.insert(content.sender, by_nonce(&content.pending, show));
        }
        if !content.queued.is_empty() {
            queued.insert(content.sender, by_nonce(&content.queued, show));
        }
    }
    Ok(Halves { pending, queued })
}

fn by_nonce<T>(transactions: &[RecoveredTx], show: fn(&RecoveredTx) -> T) -> ByNonce<T> {
    transactions.iter().map(|transaction| (transaction.nonce().to_string(), show(transaction))).collect()
}
