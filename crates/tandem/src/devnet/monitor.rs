//! Watches a running network over its public interfaces, like any user would.

use super::layout::Layout;
use crate::http::{Connection, Url};
use crate::rpc::{Rpc, RpcError, parse_quantity};
use crate::status::{NodeStatus, fetch};
use serde::Deserialize;
use serde_json::json;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Time for the nodes' answers while the network stops.
const LAST_LOOK_TIME: Duration = Duration::from_millis(500);

/// Between two looks while a node starts, and afterwards.
const POLL_STARTING: Duration = Duration::from_millis(15);
const POLL: Duration = Duration::from_millis(250);

/// Span of the shown rates.
const RATE_SPAN: Duration = Duration::from_secs(5);

/// Blocks asked for in one look; after a gap only the newest are.
const BLOCKS_PER_LOOK_MAX: u64 = 32;

/// What is known of one node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Its last answer; `None` while it does not answer.
    pub status: Option<NodeStatus>,
    /// Why it does not answer.
    pub error: String,
    /// Whether it has finalized a block that its RPC shows.
    pub ready: bool,
}

/// What is known of the chain.
#[derive(Clone, Debug, Default)]
pub struct ChainView {
    pub height: u64,
    pub hash: String,
    /// When that height was first seen.
    pub seen: Option<Instant>,
    pub pending: u64,
    pub queued: u64,
    /// Recent blocks: when seen, height, transactions.
    recent: VecDeque<(Instant, u64, u64)>,
    /// Blocks not yet told as events.
    pub news: Vec<BlockNews>,
}

/// A new final block.
#[derive(Clone, Debug)]
pub struct BlockNews {
    pub height: u64,
    pub hash: String,
    pub transactions: u64,
}

impl ChainView {
    /// Transactions and blocks per second of late.
    pub fn rates(&self, now: Instant) -> (f64, f64) {
        let recent: Vec<_> =
            self.recent.iter().filter(|(seen, ..)| now.duration_since(*seen) <= RATE_SPAN).collect();
        let span = RATE_SPAN.as_secs_f64();
        let transactions: u64 = recent.iter().map(|(.., transactions)| transactions).sum();
        (transactions as f64 / span, recent.len() as f64 / span)
    }

    fn add(&mut self, now: Instant, news: BlockNews) {
        while self.recent.front().is_some_and(|(seen, ..)| now.duration_since(*seen) > RATE_SPAN) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, news.height, news.transactions));
        self.height = news.height;
        self.hash.clone_from(&news.hash);
        self.seen = Some(now);
        self.news.push(news);
    }
}

/// Everything known, shared with whoever shows it.
#[derive(Clone)]
pub struct Monitor {
    nodes: Arc<Mutex<Vec<NodeView>>>,
    chain: Arc<Mutex<ChainView>>,
    rpcs: Vec<Url>,
    /// Rung at every change that somebody may wait for.
    pub changed: Arc<Notify>,
}

impl Monitor {
    /// Starts watching; one task per node and one for the chain.
    pub fn start(layout: &Layout) -> Self {
        let monitor = Self {
            nodes: Arc::new(Mutex::new(vec![NodeView::default(); layout.ports.len()])),
            chain: Arc::default(),
            rpcs: layout.ports.iter().map(|ports| url(ports.rpc)).collect(),
            changed: Arc::default(),
        };
        for (node, ports) in layout.ports.iter().enumerate() {
            tokio::spawn(monitor.clone().watch_node(node, url(ports.rest), url(ports.rpc)));
        }
        tokio::spawn(monitor.clone().watch_chain());
        monitor
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The chain.
    pub fn chain(&self) -> MutexGuard<'_, ChainView> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every node has finalized a block.
    pub fn all_ready(&self) -> bool {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).iter().all(|node| node.ready)
    }

    async fn watch_node(self, node: usize, rest: Url, rpc: Url) {
        let mut connection = Connection::new(rest, TIMEOUT);
        let mut rpc = Rpc::new(rpc, TIMEOUT);
        let mut ready = false;
        loop {
            let (status, error) = match fetch(&mut connection).await {
                Ok(status) => (Some(status), String::new()),
                Err(error) => (None, error),
            };
            let has_block = status.as_ref().is_some_and(|s| s.engine.state == "up" && s.height >= Some(1));
            if !ready && has_block {
                ready = rpc.quantity("eth_blockNumber", json!([])).await.is_ok_and(|height| height >= 1);
            }
            if let Some(view) = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(node) {
                *view = NodeView { status, error, ready };
            }
            self.changed.notify_one();
            tokio::time::sleep(if ready { POLL } else { POLL_STARTING }).await;
        }
    }

    /// The highest final height of any node, asked for now: what was seen before lags behind.
    pub async fn last_height(&self) -> u64 {
        let asking = self.rpcs.iter().map(|url| async move {
            Rpc::new(url.clone(), LAST_LOOK_TIME).quantity("eth_blockNumber", json!([])).await.unwrap_or(0)
        });
        let highest = futures::future::join_all(asking).await.into_iter().max().unwrap_or(0);
        u64::try_from(highest).unwrap_or(u64::MAX).max(self.chain().height)
    }

    async fn watch_chain(self) {
        for url in self.rpcs.iter().cycle() {
            let mut rpc = Rpc::new(url.clone(), TIMEOUT);
            // Until this node stops answering; then the next one.
            while self.look_at_chain(&mut rpc).await.is_ok() {
                self.changed.notify_one();
                tokio::time::sleep(POLL).await;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn look_at_chain(&self, rpc: &mut Rpc) -> Result<(), RpcError> {
        let head = rpc.quantity("eth_blockNumber", json!([])).await?;
        let head = u64::try_from(head).unwrap_or(u64::MAX);
        let known = self.chain().height;
        let first = (known + 1).max(head.saturating_sub(BLOCKS_PER_LOOK_MAX - 1)).max(1);
        for height in first..=head {
            let Some(block) = block(rpc, height).await? else { break };
            self.chain().add(Instant::now(), block);
        }
        if let Ok(pool) = rpc.call::<PoolStatus>("txpool_status", json!([])).await {
            let mut chain = self.chain();
            chain.pending = parse_quantity(&pool.pending).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            chain.queued = parse_quantity(&pool.queued).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct PoolStatus {
    pending: String,
    queued: String,
}

#[derive(Deserialize)]
struct BlockAnswer {
    hash: String,
    transactions: Vec<serde::de::IgnoredAny>,
}

async fn block(rpc: &mut Rpc, height: u64) -> Result<Option<BlockNews>, RpcError> {
    let answer: Option<BlockAnswer> =
        rpc.call("eth_getBlockByNumber", json!([format!("{height:#x}"), false])).await?;
    Ok(answer.map(|block| BlockNews {
        height,
        hash: block.hash,
        transactions: block.transactions.len() as u64,
    }))
}

fn url(address: SocketAddr) -> Url {
    Url { host: address.ip().to_string(), port: address.port(), path: "/".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_forget_what_is_old() {
        let mut chain = ChainView::default();
        let start = Instant::now();
        let news = |height| BlockNews { height, hash: String::new(), transactions: 10 };
        chain.add(start, news(1));
        chain.add(start + Duration::from_secs(1), news(2));
        assert_eq!(chain.rates(start + Duration::from_secs(2)), (4.0, 0.4));
        assert_eq!(chain.rates(start + Duration::from_millis(5_500)), (2.0, 0.2));
        chain.add(start + Duration::from_secs(60), news(3));
        assert_eq!(chain.recent.len(), 1);
    }
}
