//! `eth_subscribe`: what happened is pushed over the WebSocket.
//!
//! A subscription is a position in the chain, like a filter: woken at every new block, it reads what lies
//! between its position and the head, in order. What waits for a slow reader is the connection's bounded
//! queue; a reader that stalls, or falls too far behind, loses its connection, and a log line says so.

use super::{
    api::Api,
    connection::Connection,
    error::{RpcError, RpcResult},
    json::Json,
    logs::LogQuery,
    methods::Table,
    params::Args,
    shapes,
};
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionSink,
    core::{SubscriptionError, middleware::Extensions},
    types::Params,
};
use state::{ExecutedBlock, LogFilter};
use std::{sync::Arc, time::Duration};
use tokio::sync::broadcast::error::RecvError;
use types::Height;

/// What a client can subscribe to.
#[derive(Clone, Debug)]
enum Topic {
    NewHeads,
    Logs(LogFilter),
    PendingTransactions { full: bool },
}

/// Adds `eth_subscribe` and `eth_unsubscribe`.
pub(super) fn register(table: &mut Table) {
    table
        .module
        .register_subscription("eth_subscribe", "eth_subscription", "eth_unsubscribe", subscribe)
        .expect("method names are unique");
}

async fn subscribe(
    params: Params<'static>,
    pending: PendingSubscriptionSink,
    api: Arc<Api>,
    extensions: Extensions,
) -> Result<(), SubscriptionError> {
    let topic = match topic(&params) {
        Ok(topic) => topic,
        Err(error) => {
            pending.reject(error).await;
            return Ok(());
        }
    };
    // The position is taken before the client learns of its subscription: what comes after that is not
    // missed.
    let next = api.chain.height().next();
    let feed = api.chain.pool().subscribe_admitted();
    let sink = pending.accept().await?;
    let connection = extensions.get::<Arc<Connection>>().cloned();
    let subscriber = Subscriber { api, sink, connection };
    let ended = match topic {
        Topic::PendingTransactions { full } => subscriber.follow_pool(feed, full).await,
        Topic::NewHeads => {
            drop(feed);
            subscriber.follow_chain(next, None).await
        }
        Topic::Logs(filter) => {
            drop(feed);
            subscriber.follow_chain(next, Some(filter)).await
        }
    };
    subscriber.finish(ended);
    Ok(())
}

fn topic(params: &Params<'_>) -> RpcResult<Topic> {
    let args = Args::new(params, 2)?;
    let name: String = args.required(0, "subscription name")?;
    match name.as_str() {
        "newHeads" => Ok(Topic::NewHeads),
        "logs" => {
            let query = args.optional(1, "filter")?.unwrap_or_else(LogQuery::everything);
            Ok(Topic::Logs(query.filter))
        }
        "newPendingTransactions" => {
            Ok(Topic::PendingTransactions { full: args.optional(1, "full transactions")?.unwrap_or(false) })
        }
        other => Err(RpcError::InvalidParams(format!(
            "no \"{other}\" subscription in eth namespace: use newHeads, logs or newPendingTransactions"
        ))),
    }
}

/// Why a subscription ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("unsubscribed or disconnected")]
    ByClient,
    #[error("the node stops")]
    Stopping,
    #[error("reader took nothing for {0} ms")]
    Stalled(u64),
    #[error("reader is {behind} blocks behind, at most {max} are allowed")]
    Behind { behind: u64, max: u64 },
    #[error("reader missed {0} pool transactions")]
    Missed(u64),
    #[error(transparent)]
    Failed(#[from] RpcError),
}

struct Subscriber {
    api: Arc<Api>,
    sink: SubscriptionSink,
    connection: Option<Arc<Connection>>,
}

impl Subscriber {
    /// Reports blocks, or the logs in them that match, from `next` on.
    async fn follow_chain(&self, mut next: Height, filter: Option<LogFilter>) -> Ended {
        let mut heads = self.api.heads.clone();
        loop {
            let head = Height::new(*heads.borrow_and_update());
            while next <= head {
                if let Err(ended) = self.report(next, self.api.chain.height(), filter.as_ref()).await {
                    return ended;
                }
                next = next.next();
            }
            tokio::select! {
                changed = heads.changed() => if changed.is_err() { return Ended::Stopping },
                () = self.sink.closed() => return Ended::ByClient,
            }
        }
    }

    async fn report(&self, height: Height, head: Height, filter: Option<&LogFilter>) -> Result<(), Ended> {
        let (behind, max) =
            (head.get().saturating_sub(height.get()), self.api.config.subscriber_lag_blocks_max);
        if behind > max {
            return Err(Ended::Behind { behind, max });
        }
        let Some(filter) = filter else {
            let header = self.api.header_json(height)?.ok_or_else(|| not_stored(height))?;
            return self.push(&header).await;
        };
        let block = self.api.block(height)?.ok_or_else(|| not_stored(height))?;
        for log in matching_logs(&block, filter) {
            self.push(&Json::of(&log)?).await?;
        }
        Ok(())
    }

    /// Reports what the pool admits.
    async fn follow_pool(
        &self,
        mut feed: tokio::sync::broadcast::Receiver<execution::RecoveredTx>,
        full: bool,
    ) -> Ended {
        loop {
            let received = tokio::select! {
                received = feed.recv() => received,
                () = self.sink.closed() => return Ended::ByClient,
            };
            let json = match received {
                Ok(transaction) if full => Json::of(&shapes::pooled_transaction(&transaction)),
                Ok(transaction) => Json::of(&transaction.hash()),
                Err(RecvError::Lagged(missed)) => return Ended::Missed(missed),
                Err(RecvError::Closed) => return Ended::Stopping,
            };
            let pushed = match json {
                Ok(json) => self.push(&json).await,
                Err(error) => Err(error.into()),
            };
            if let Err(ended) = pushed {
                return ended;
            }
        }
    }

    async fn push(&self, message: &Json) -> Result<(), Ended> {
        let stall_ms = self.api.config.subscriber_stall_ms_max;
        if let Some(connection) = &self.connection {
            connection.queued(message.len());
        }
        let sent = self.sink.send_timeout(message.to_raw(), Duration::from_millis(stall_ms)).await;
        sent.map_err(|error| match error {
            jsonrpsee::SendTimeoutError::Timeout(_) => Ended::Stalled(stall_ms),
            jsonrpsee::SendTimeoutError::Closed(_) => Ended::ByClient,
        })
    }

    /// A subscription that ends without the client's doing takes the connection with it: a client that reads
    /// on would wait for news for ever.
    fn finish(&self, ended: Ended) {
        match ended {
            Ended::ByClient | Ended::Stopping => return,
            Ended::Stalled(_) | Ended::Behind { .. } | Ended::Missed(_) => {
                self.api.metrics.subscriber_dropped();
                tracing::warn!(reason = %ended, "WebSocket subscriber dropped");
            }
            Ended::Failed(_) => tracing::error!(reason = %ended, "WebSocket subscription failed"),
        }
        if let Some(connection) = &self.connection {
            connection.close();
        }
    }
}

/// A block's logs that match, as JSON-RPC shows them.
fn matching_logs(block: &ExecutedBlock, filter: &LogFilter) -> Vec<alloy_rpc_types_eth::Log> {
    let mut found = Vec::new();
    for (index, receipt) in block.receipts.iter().enumerate() {
        for (at, log) in receipt.logs().iter().enumerate().filter(|(_, log)| filter.matches(log)) {
            found.push(shapes::log_of_receipt(log, at as u64, receipt, &block.record, index as u64));
        }
    }
    found
}

fn not_stored(height: Height) -> RpcError {
    RpcError::internal(format!("announced block {height} is not stored"))
}
