//! Follows finality on one node: with Tandem the latest block is a final one.

use super::tally::Tally;
use crate::http::Url;
use crate::rpc::{Rpc, RpcError};
use alloy_primitives::B256;
use serde::Deserialize;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The part of a block that matters here.
#[derive(Deserialize)]
struct BlockHashes {
    transactions: Vec<B256>,
}

/// Reads new blocks into the tally.
pub struct Follower {
    urls: Vec<Url>,
    current: usize,
    rpc: Rpc,
    next_height: u64,
    poll: Duration,
}

impl Follower {
    /// Starts behind the block that `rpc`'s node shows now.
    pub async fn new(urls: Vec<Url>, poll: Duration) -> Result<Self, RpcError> {
        let mut rpc = Rpc::new(urls[0].clone(), ANSWER_TIMEOUT);
        let head = rpc.quantity("eth_blockNumber", json!([])).await?;
        let next_height = u64::try_from(head).unwrap_or(u64::MAX).saturating_add(1);
        Ok(Self { urls, current: 0, rpc, next_height, poll })
    }

    /// Runs until every accepted transaction is final after the senders are done, or until nothing became final for
    /// `settle` since then.
    pub async fn run(mut self, tally: &Tally, settle: Duration) {
        let (mut seen, mut progress_at) = (0, Instant::now());
        loop {
            if let Err(RpcError::Unreachable { .. }) = self.read_new_blocks(tally).await {
                self.current = (self.current + 1) % self.urls.len();
                self.rpc = Rpc::new(self.urls[self.current].clone(), ANSWER_TIMEOUT);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let finalized = tally.finalized();
            if finalized > seen || !tally.senders_done.load(Ordering::Acquire) {
                (seen, progress_at) = (finalized, Instant::now());
            } else if finalized >= tally.accepted.load(Ordering::Acquire) || progress_at.elapsed() > settle {
                return;
            }
            tokio::time::sleep(self.poll).await;
        }
    }

    async fn read_new_blocks(&mut self, tally: &Tally) -> Result<(), RpcError> {
        let head = self.rpc.quantity("eth_blockNumber", json!([])).await?;
        while u128::from(self.next_height) <= head {
            let number = format!("{:#x}", self.next_height);
            let block: Option<BlockHashes> =
                self.rpc.call("eth_getBlockByNumber", json!([number, false])).await?;
            let Some(block) = block else { return Ok(()) };
            tally.block(&block.transactions);
            self.next_height += 1;
        }
        Ok(())
    }
}
