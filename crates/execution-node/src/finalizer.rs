//! Making blocks final: one forkchoice after the other, on a thread of its own, so that a sync of the disk delays
//! neither a vote nor a proposal.
//!
//! # Invariants
//! - Nothing else commits to the store or moves the tree's root.
//! - A block is durable, then shown to readers, then the root of the tree, in this order: whoever misses it in the
//!   tree finds it in the chain.
//! - No lock is held over a commit.

use crate::executor::ExecutorShared;
use crate::lanes::LaneFigures;
use crate::metrics::Metrics;
use crate::tree::{Base, Node};
use execution::{Payload, RecoveredTx, StateDiff};
use state::{ExecutedBlock, StateError, StateStore};
use std::sync::Arc;
use std::time::Instant;
use txpool::AccountState;
use types::engine::{EngineError, FinalizedState, Forkchoice};
use types::{Address, B256, Height};

/// Where final blocks go. The store, but for tests that look at what happens while it writes.
pub(crate) trait Durable: Send {
    /// Returns when the block is on disk.
    fn commit(&self, store: &StateStore, node: &Node) -> Result<(), StateError>;
}

/// The store itself.
#[derive(Debug)]
pub(crate) struct Disk;

impl Durable for Disk {
    fn commit(&self, store: &StateStore, node: &Node) -> Result<(), StateError> {
        store.commit(&node.block, &node.diff, &node.lthash)
    }
}

/// Executes ForkchoiceUpdated.
pub(crate) struct Finalizer {
    shared: Arc<ExecutorShared>,
    metrics: Metrics,
    durable: Box<dyn Durable>,
}

/// A finalized forkchoice, and what is left to do after it was answered.
pub(crate) struct Finalized {
    pub state: FinalizedState,
    pub cleanup: Cleanup,
}

/// What a finalization means for the pool.
#[derive(Default)]
pub(crate) struct Cleanup {
    finalized: Vec<Arc<Node>>,
    abandoned: Vec<Arc<Node>>,
}

/// What a legal forkchoice asks for.
enum Move {
    /// Everything named is final already.
    Replay,
    /// These blocks above the durable head, newest first, become final.
    Forward(Vec<Arc<Node>>),
}

impl Finalizer {
    pub fn new(shared: Arc<ExecutorShared>, metrics: Metrics) -> Self {
        Self { shared, metrics, durable: Box::new(Disk) }
    }

    #[cfg(test)]
    pub fn with_durable(mut self, durable: Box<dyn Durable>) -> Self {
        self.durable = durable;
        self
    }

    /// Moves the head and makes everything up to `finalized` durable, block by block.
    pub fn forkchoice(&mut self, forkchoice: &Forkchoice) -> Result<Finalized, EngineError> {
        self.shared.check()?;
        let mut cleanup = Cleanup::default();
        if let Move::Forward(path) = self.check_forkchoice(forkchoice)? {
            *self.shared.cleaning.lock() = path.clone();
            for node in path.into_iter().rev() {
                cleanup.abandoned.extend(self.finalize(&node)?);
                cleanup.finalized.push(node);
            }
        }
        Ok(Finalized { state: self.shared.finalized_state(), cleanup })
    }

    /// The pool's share of a finalization; done after the answer, before the next forkchoice.
    pub fn clean_up(&mut self, cleanup: Cleanup) {
        let chain = &self.shared.chain;
        for node in &cleanup.finalized {
            let record = &node.block.record;
            let next_base_fee = chain.rules().next_base_fee(record.height, record.gas_used, record.base_fee);
            chain.pool().advance(record.height, next_base_fee, &account_states(&node.diff));
        }
        self.shared.cleaning.lock().clear();
        cleanup.finalized.iter().for_each(|node| self.count_lanes(&node.block));
        let abandoned = cleanup.abandoned.iter().flat_map(|node| node.block.transactions.iter().cloned());
        let abandoned: Vec<RecoveredTx> = abandoned.collect();
        if !abandoned.is_empty() {
            chain.pool().readmit(abandoned);
        }
    }

    fn count_lanes(&self, block: &ExecutedBlock) {
        match Payload::decode_outline(&block.outline) {
            Ok(outline) => {
                self.metrics.lanes(&LaneFigures::of(&outline, &block.receipts), block.outline.len());
            }
            Err(error) => {
                tracing::error!(height = block.record.height, %error, "lanes of a block unreadable")
            }
        }
    }

    /// Checks a forkchoice as a whole, before anything changes; then moves the head, which protects the blocks that
    /// become final from making room for others.
    fn check_forkchoice(&self, forkchoice: &Forkchoice) -> Result<Move, EngineError> {
        let Forkchoice { head, safe, finalized } = *forkchoice;
        let chain = &self.shared.chain;
        let durable = self.shared.finalized_state();
        // Zero names no block yet: the same as the genesis.
        let genesis = chain.genesis_hash();
        let named = |hash: B256| if hash.is_zero() { genesis } else { hash };
        if head.is_zero() && !(safe.is_zero() && finalized.is_zero()) {
            return Err(EngineError::Illegal(format!(
                "head is zero but safe is {safe} and finalized {finalized}"
            )));
        }
        let (head, safe, finalized) = (named(head), named(safe), named(finalized));
        let (head_height, finalized_height) = (self.final_height(head)?, self.final_height(finalized)?);
        if let Some(head_height) = head_height {
            // The head is final, so is what is at or below it: at most a replay after consensus restarted.
            return match (finalized_height, self.final_height(safe)?) {
                (Some(finalized), Some(safe)) if finalized <= safe && safe <= head_height => Ok(Move::Replay),
                _ => Err(EngineError::Illegal(format!(
                    "finalized {finalized} and safe {safe} are not at or below head {head}, which is final"
                ))),
            };
        }
        let mut tree = self.shared.tree.lock();
        if !tree.contains(&head) {
            return Err(EngineError::UnknownBlock(head));
        }
        let Some(path) = tree.path(&finalized) else {
            return match finalized_height {
                Some(height) => Err(EngineError::Illegal(format!(
                    "finalized would go back from height {} ({}) to {height} ({finalized})",
                    durable.height, durable.block_hash
                ))),
                None => Err(EngineError::UnknownBlock(finalized)),
            };
        };
        if !tree.is_ancestor(&finalized, &safe) || !tree.is_ancestor(&safe, &head) {
            return Err(EngineError::Illegal(format!(
                "finalized {finalized}, safe {safe} and head {head} are not on one chain in this order"
            )));
        }
        tree.set_head(head);
        Ok(Move::Forward(path))
    }

    fn final_height(&self, hash: B256) -> Result<Option<Height>, EngineError> {
        self.shared.chain.height_of(hash).map_err(|error| self.shared.poison(error.to_string()))
    }

    /// Commits one block above the durable head, then shows it to readers, then lets the tree stand on it.
    fn finalize(&self, node: &Arc<Node>) -> Result<Vec<Arc<Node>>, EngineError> {
        let started = Instant::now();
        let chain = &self.shared.chain;
        let committed = self.durable.commit(chain.store(), node);
        committed.map_err(|error| self.shared.poison(error.to_string()))?;
        chain.publish(node.block.clone());
        let (record, lthash) = (node.block.record.clone(), node.lthash.clone());
        let base = Base { record, lthash, state: chain.store().view() };
        let abandoned = self.shared.tree.lock().advance(base);
        self.metrics.finalized(&node.block.record, started.elapsed());
        Ok(abandoned)
    }
}

fn account_states(diff: &StateDiff) -> Vec<(Address, AccountState)> {
    let state = |info: execution::AccountInfo| AccountState {
        nonce: info.nonce,
        balance: info.balance,
        // A pooled sender signed a transaction, so code on it can only be a delegation.
        delegated: info.has_code(),
    };
    diff.accounts()
        .into_iter()
        .map(|(address, change)| (address, change.new.map(state).unwrap_or_default()))
        .collect()
}
