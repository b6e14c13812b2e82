//! What all methods share: the chain, the caches, and the meaning of block tags.

use super::{
    config::RpcConfig,
    error::{RpcError, RpcResult},
    fees::{self, SUGGESTION_BLOCKS, TipSamples},
    filters::Filters,
    heavy::HeavyWork,
    json::{Json, JsonCache},
    logs::SearchLimits,
    metrics::RpcMetrics,
    shapes,
};
use crate::chain::Chain;
use alloy_eips::{BlockId, BlockNumberOrTag};
use execution::{BlockEnv, RecoveredTx};
use parking_lot::Mutex;
use state::{BlockRecord, ExecutedBlock, HistoryError, StateSnapshot};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::sync::{Semaphore, broadcast, watch};
use types::Height;

/// Everything the methods work on.
pub(super) struct Api {
    pub(super) chain: Chain,
    pub(super) config: RpcConfig,
    pub(super) metrics: RpcMetrics,
    /// Connected executors, kept by whoever runs the network.
    pub(super) peers: Arc<AtomicU64>,
    pub(super) heavy: HeavyWork,
    pub(super) filters: Filters<broadcast::Receiver<RecoveredTx>>,
    /// Latest announced height. Every waiter reads the blocks themselves, so none is missed or held in
    /// memory.
    pub(super) heads: watch::Receiver<u64>,
    pub(super) sync_sends: Semaphore,
    pub(super) blocks: JsonCache<BlockKey>,
    pub(super) headers: JsonCache<u64>,
    pub(super) rewards: Mutex<RewardCache>,
    tips: Mutex<TipSamples>,
    tip_floor: u128,
}

/// A serialised block: height, and whether with whole transactions.
pub(super) type BlockKey = (u64, bool);

/// Height and percentiles (as bits).
pub(super) type RewardKey = (u64, Arc<[u64]>);

/// Rewards of past blocks, oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct RewardCache {
    by_key: HashMap<RewardKey, Vec<u128>>,
    order: VecDeque<RewardKey>,
}

/// Blocks whose rewards are kept.
const REWARDS_MAX: usize = 4_096;

impl RewardCache {
    pub(super) fn get(&self, key: &RewardKey) -> Option<Vec<u128>> {
        self.by_key.get(key).cloned()
    }

    pub(super) fn put(&mut self, key: RewardKey, rewards: Vec<u128>) {
        if self.by_key.insert(key.clone(), rewards).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > REWARDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}

/// Suggested tip where nobody bids: what wallets assume anyway.
const TIP_FLOOR_WEI: u128 = 1_000_000_000;

/// A block a caller names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A final block.
    Final(Height),
    /// The pool on top of the last final block.
    Pending,
}

impl Api {
    pub(super) fn new(
        chain: Chain,
        config: RpcConfig,
        metrics: RpcMetrics,
        peers: Arc<AtomicU64>,
        heads: watch::Receiver<u64>,
    ) -> Self {
        let default_floor = if chain.rules().initial_base_fee() == 0 { 0 } else { TIP_FLOOR_WEI };
        Self {
            heavy: HeavyWork::new(config.heavy_calls_max, config.heavy_waiting_max),
            filters: Filters::new(config.filters_max, Duration::from_millis(config.filter_idle_ms_max)),
            sync_sends: Semaphore::new(config.sync_send_waiting_max),
            blocks: JsonCache::new(),
            headers: JsonCache::new(),
            rewards: Mutex::default(),
            tips: Mutex::default(),
            tip_floor: config.tip_floor_wei.map_or(default_floor, u128::from),
            chain,
            config,
            metrics,
            peers,
            heads,
        }
    }

    /// The block a tag or number names. It may be above the head; reading it tells.
    pub(super) fn target_of_tag(&self, tag: BlockNumberOrTag) -> Target {
        match tag {
            BlockNumberOrTag::Latest | BlockNumberOrTag::Safe | BlockNumberOrTag::Finalized => {
                Target::Final(self.chain.height())
            }
            BlockNumberOrTag::Earliest => Target::Final(Height::ZERO),
            BlockNumberOrTag::Pending => Target::Pending,
            BlockNumberOrTag::Number(number) => Target::Final(Height::new(number)),
        }
    }

    /// The block an EIP-1898 identifier names; left out means the latest. Every block known here is
    /// canonical.
    pub(super) fn target(&self, id: Option<BlockId>) -> RpcResult<Target> {
        match id {
            None => Ok(Target::Final(self.chain.height())),
            Some(BlockId::Number(tag)) => Ok(self.target_of_tag(tag)),
            Some(BlockId::Hash(hash)) => {
                let height = self.chain.height_of(hash.block_hash).map_err(RpcError::internal)?;
                let unknown = || RpcError::Refused(format!("header for hash not found: {}", hash.block_hash));
                height.map(Target::Final).ok_or_else(unknown)
            }
        }
    }

    /// The height of a range's end; `pending` ends at the last final block.
    pub(super) fn height_of_tag(&self, tag: Option<BlockNumberOrTag>) -> Height {
        match self.target_of_tag(tag.unwrap_or(BlockNumberOrTag::Latest)) {
            Target::Final(height) => height,
            Target::Pending => self.chain.height(),
        }
    }

    /// The state a target names. Pending transactions are not executed ahead: pending state is the latest
    /// one.
    pub(super) fn state(&self, target: Target) -> RpcResult<StateSnapshot> {
        let head = self.chain.height();
        let height = match target {
            Target::Final(height) => height,
            Target::Pending => head,
        };
        if height > head {
            return Err(beyond_head(height, head));
        }
        match self.chain.state_at(height) {
            // The head moved on meanwhile, and this node keeps little history: the new head serves as well.
            Err(_) if height == head && self.chain.height() > head => {
                self.chain.state_at(self.chain.height())
            }
            result => result,
        }
        .map_err(history)
    }

    /// The state a target names and the environment to execute in on it.
    pub(super) fn state_and_env(&self, target: Target) -> RpcResult<(StateSnapshot, BlockEnv)> {
        let state = self.state(target)?;
        let env = match target {
            Target::Pending => self.chain.next_block_env(),
            Target::Final(_) => self.chain.env_of(&self.record(Height::new(state.height()))?),
        };
        Ok((state, env))
    }

    /// A block that must exist.
    pub(super) fn record(&self, height: Height) -> RpcResult<BlockRecord> {
        let record = self.chain.record(height).map_err(RpcError::internal)?;
        record.ok_or_else(|| beyond_head(height, self.chain.height()))
    }

    /// The block at `height` with transactions and receipts, if there is one.
    pub(super) fn block(&self, height: Height) -> RpcResult<Option<Arc<ExecutedBlock>>> {
        self.chain.block_by_number(height).map_err(RpcError::internal)
    }

    /// A block as JSON, from the cache if somebody just asked for it.
    pub(super) fn block_json(&self, height: Height, full: bool) -> RpcResult<Option<Json>> {
        let key = (height.get(), full);
        if let Some(json) = self.blocks.get(key) {
            return Ok(Some(json));
        }
        let Some(block) = self.block(height)? else { return Ok(None) };
        let fork = self.chain.rules().fork_at(height.get());
        let shown = match full {
            true => shapes::block_with_transactions(&block.record, &block.transactions, fork),
            false => {
                let hashes = block.transactions.iter().map(RecoveredTx::hash).collect();
                shapes::block_with_hashes(&block.record, hashes, fork)
            }
        };
        let json = Json::of(&shown)?;
        self.blocks.put(key, &json);
        Ok(Some(json))
    }

    /// A header as JSON, as `newHeads` sends it.
    pub(super) fn header_json(&self, height: Height) -> RpcResult<Option<Json>> {
        if let Some(json) = self.headers.get(height.get()) {
            return Ok(Some(json));
        }
        let Some(record) = self.chain.record(height).map_err(RpcError::internal)? else { return Ok(None) };
        let json = Json::of(&shapes::header_of(&record, self.chain.rules().fork_at(height.get())))?;
        self.headers.put(height.get(), &json);
        Ok(Some(json))
    }

    /// What to offer beside the base fee, from the latest blocks.
    pub(super) fn suggested_tip(&self) -> RpcResult<u128> {
        let head = self.chain.height().get();
        let mut tips = self.tips.lock();
        let missing = tips.missing(head);
        debug_assert!(missing.clone().count() as u64 <= SUGGESTION_BLOCKS);
        for height in missing {
            let Some(block) = self.block(Height::new(height))? else { break };
            tips.add(height, fees::lowest_tips(&block.receipts, block.record.base_fee));
        }
        Ok(tips.suggestion(self.tip_floor))
    }

    pub(super) fn search_limits(&self) -> SearchLimits {
        SearchLimits {
            blocks_max: self.config.logs_blocks_max,
            results_max: self.config.logs_results_max,
            time_max: Duration::from_millis(self.config.logs_ms_max),
        }
    }
}

fn beyond_head(height: Height, head: Height) -> RpcError {
    RpcError::Refused(format!("header not found: block {height} is above the latest block {head}"))
}

fn history(error: HistoryError) -> RpcError {
    RpcError::HistoryUnavailable { height: error.requested, oldest: error.oldest, newest: error.newest }
}
