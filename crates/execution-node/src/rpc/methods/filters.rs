//! `eth_getLogs` and the filters that are polled.

use super::{Table, stored};
use crate::rpc::{
    api::Api,
    error::{RpcError, RpcResult},
    filters::FilterKind,
    logs::{self, LogBlocks, LogQuery},
    params::Args,
    shapes::{self, RpcTransaction},
};
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::B256;
use alloy_rpc_types_eth::Log;
use execution::RecoveredTx;
use jsonrpsee::types::Params;
use serde::Serialize;
use state::{LogEntry, LogFilter, LogLimits, LogsError};
use std::time::Instant;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};
use types::Height;

pub(super) fn register(table: &mut Table) {
    table.heavy("eth_getLogs", get_logs);
    table.cheap("eth_newFilter", new_log_filter);
    table.cheap("eth_newBlockFilter", new_block_filter);
    table.cheap("eth_newPendingTransactionFilter", new_pending_filter);
    table.heavy("eth_getFilterChanges", changes);
    table.heavy("eth_getFilterLogs", filter_logs);
    table.cheap("eth_uninstallFilter", uninstall);
}

/// What a filter has to tell.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Changes {
    Hashes(Vec<B256>),
    Logs(Vec<Log>),
    Transactions(Vec<RpcTransaction>),
}

fn get_logs(api: &Api, params: &Params<'_>) -> RpcResult<Vec<Log>> {
    let query: LogQuery = Args::new(params, 1)?.required(0, "filter")?;
    run(api, &query)
}

fn filter_logs(api: &Api, params: &Params<'_>) -> RpcResult<Vec<Log>> {
    let id: String = Args::new(params, 1)?.required(0, "filter id")?;
    let filter = api.filters.get(&id, Instant::now())?;
    let query = match &*filter.lock() {
        FilterKind::Logs { query, .. } => query.clone(),
        // geth's words for a filter of another kind.
        _ => return Err(RpcError::Refused("filter not found".into())),
    };
    run(api, &query)
}

fn run(api: &Api, query: &LogQuery) -> RpcResult<Vec<Log>> {
    let (from, to) = match query.blocks {
        LogBlocks::Hash(hash) => {
            let height = stored(api.chain.height_of(hash))?;
            let height = height.ok_or_else(|| RpcError::Refused(format!("unknown block {hash}")))?;
            (height, height)
        }
        LogBlocks::Range { from, to } => (api.height_of_tag(from), api.height_of_tag(to)),
    };
    let head = api.chain.height();
    // A range above the head, or from above it to `latest`, is what pollers ask for when there is nothing
    // new.
    let explicit = |tag| matches!(tag, Some(BlockNumberOrTag::Number(_)));
    let inverted = to < from;
    let by_tag = matches!(query.blocks, LogBlocks::Range { from, to } if !explicit(from) || !explicit(to));
    if (inverted && by_tag) || (!inverted && from > head) {
        return Ok(Vec::new());
    }
    let range = (from.get(), if inverted { to.get() } else { to.min(head).get() });
    logs::search_all(&search(api), range, &query.filter, api.search_limits())
}

/// The chain's search, for plain numbers.
fn search(api: &Api) -> impl Fn(u64, u64, &LogFilter, LogLimits) -> Result<Vec<LogEntry>, LogsError> + '_ {
    |from, to, filter, limits| api.chain.logs(Height::new(from), Height::new(to), filter, limits)
}

fn new_log_filter(api: &Api, params: &Params<'_>) -> RpcResult<String> {
    let query: LogQuery = Args::new(params, 1)?.optional(0, "filter")?.unwrap_or_else(LogQuery::everything);
    let next = api.chain.height().next().get();
    api.filters.install(FilterKind::Logs { query, next }, Instant::now())
}

fn new_block_filter(api: &Api, params: &Params<'_>) -> RpcResult<String> {
    Args::new(params, 0)?;
    let next = api.chain.height().next().get();
    api.filters.install(FilterKind::Blocks { next }, Instant::now())
}

fn new_pending_filter(api: &Api, params: &Params<'_>) -> RpcResult<String> {
    let full = Args::new(params, 1)?.optional(0, "full transactions")?.unwrap_or(false);
    let feed = api.chain.pool().subscribe_admitted();
    api.filters.install(FilterKind::Pending { feed, full }, Instant::now())
}

fn uninstall(api: &Api, params: &Params<'_>) -> RpcResult<bool> {
    let id: String = Args::new(params, 1)?.required(0, "filter id")?;
    Ok(api.filters.uninstall(&id))
}

/// What happened since the last call. A long absence is told in instalments: each answer keeps within the
/// limits, and the next one goes on where it ended.
fn changes(api: &Api, params: &Params<'_>) -> RpcResult<Changes> {
    let id: String = Args::new(params, 1)?.required(0, "filter id")?;
    let filter = api.filters.get(&id, Instant::now())?;
    let mut filter = filter.lock();
    match &mut *filter {
        FilterKind::Blocks { next } => block_changes(api, next).map(Changes::Hashes),
        FilterKind::Logs { query, next } => log_changes(api, query, next).map(Changes::Logs),
        FilterKind::Pending { feed, full } => {
            let new = pending_changes(feed, api.config.logs_results_max);
            Ok(match full {
                true => Changes::Transactions(new.iter().map(shapes::pooled_transaction).collect()),
                false => Changes::Hashes(new.iter().map(RecoveredTx::hash).collect()),
            })
        }
    }
}

fn block_changes(api: &Api, next: &mut u64) -> RpcResult<Vec<B256>> {
    let last = api.chain.height().get().min(next.saturating_add(api.config.logs_blocks_max - 1));
    let mut hashes = Vec::new();
    for height in *next..=last {
        hashes.push(api.record(Height::new(height))?.hash);
    }
    *next = last.saturating_add(1).max(*next);
    Ok(hashes)
}

fn log_changes(api: &Api, query: &LogQuery, next: &mut u64) -> RpcResult<Vec<Log>> {
    let LogBlocks::Range { from, to } = query.blocks else { return Ok(Vec::new()) };
    let number = |tag: Option<BlockNumberOrTag>| match tag {
        Some(BlockNumberOrTag::Number(number)) => Some(number),
        _ => None,
    };
    let limits = api.search_limits();
    let first = number(from).unwrap_or(0).max(*next);
    let wanted = api.chain.height().get().min(number(to).unwrap_or(u64::MAX));
    let last = wanted.min(first.saturating_add(limits.blocks_max - 1));
    if first > last {
        return Ok(Vec::new());
    }
    let mut part = logs::search_some(&search(api), (first, last), &query.filter, limits)?;
    if part.complete_to.is_none() {
        // One block holds more logs than an answer should; a block bounds itself by its gas.
        let whole_block = logs::SearchLimits { results_max: usize::MAX, ..limits };
        part = logs::search_some(&search(api), (first, first), &query.filter, whole_block)?;
    }
    if let Some(complete) = part.complete_to {
        *next = complete.saturating_add(1);
    }
    Ok(part.logs)
}

/// What the pool admitted. A filter polled too rarely misses some: the pool keeps no history.
fn pending_changes(feed: &mut Receiver<RecoveredTx>, max: usize) -> Vec<RecoveredTx> {
    let mut new = Vec::new();
    while new.len() < max {
        match feed.try_recv() {
            Ok(transaction) => new.push(transaction),
            Err(TryRecvError::Lagged(missed)) => tracing::debug!(missed, "pending transaction filter lagged"),
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    new
}
