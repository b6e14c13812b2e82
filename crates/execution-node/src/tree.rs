//! Executed blocks that are not final yet: a small tree above the finalized head.

use alloy_primitives::map::{B256Map, B256Set};
use execution::{Layer, LtHash, StateDiff};
use state::{BlockRecord, ExecutedBlock, StateSnapshot};
use std::sync::Arc;
use types::{Address, B256};

/// Un-finalized blocks in memory: as many as consensus keeps in its own tree, so that it never waits for room
/// here. Normally there are a handful; a long stall brings a sibling with every view. A block that had to go is
/// asked for again by answering "unknown".
pub(crate) const UNFINALIZED_BLOCKS_MAX: usize = 512;

/// An executed block that is not final.
#[derive(Debug)]
pub(crate) struct Node {
    pub block: Arc<ExecutedBlock>,
    pub diff: Arc<StateDiff>,
    pub lthash: LtHash,
    arrival: u64,
}

/// The finalized block that a tree stands on, with the state after it. The state is part of the tree, because the
/// store goes on to the next block before the tree does: looked up apart, path and state might not fit.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub record: BlockRecord,
    pub lthash: LtHash,
    pub state: StateSnapshot,
}

/// # Invariants
/// - Every node's parent is the root or another node, one height below.
/// - At most [`UNFINALIZED_BLOCKS_MAX`] nodes.
#[derive(Debug)]
pub(crate) struct BlockTree {
    base: Base,
    head: B256,
    nodes: B256Map<Arc<Node>>,
    next_arrival: u64,
}

/// Why a block is not kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotKept {
    /// No room: every block that could go leads to the head.
    Full,
    /// Its parent is not here any more: another block of that height became final while it was executed.
    Abandoned,
}

impl BlockTree {
    /// A tree above a finalized block.
    pub fn new(base: Base) -> Self {
        let head = base.record.hash;
        Self { base, head, nodes: B256Map::default(), next_arrival: 0 }
    }

    /// The finalized block below all others.
    pub fn base(&self) -> &Base {
        &self.base
    }

    fn root(&self) -> B256 {
        self.base.record.hash
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn get(&self, hash: &B256) -> Option<&Arc<Node>> {
        self.nodes.get(hash)
    }

    /// Whether the block is the root or above it.
    pub fn contains(&self, hash: &B256) -> bool {
        *hash == self.root() || self.nodes.contains_key(hash)
    }

    /// The blocks from `hash` down to the one above the root, newest first; empty for the root itself.
    pub fn path(&self, hash: &B256) -> Option<Vec<Arc<Node>>> {
        let (mut path, mut at) = (Vec::new(), *hash);
        while at != self.root() {
            let node = self.nodes.get(&at)?;
            path.push(node.clone());
            at = node.block.record.parent_hash;
        }
        Some(path)
    }

    /// Whether `ancestor` is `descendant` or below it (the root is below all).
    pub fn is_ancestor(&self, ancestor: &B256, descendant: &B256) -> bool {
        let Some(path) = self.path(descendant) else { return false };
        *ancestor == self.root() || path.iter().any(|node| node.block.record.hash == *ancestor)
    }

    /// Adds a block above another one. When the tree is full the oldest leaf off the head's chain goes.
    pub fn insert(
        &mut self,
        block: Arc<ExecutedBlock>,
        diff: Arc<StateDiff>,
        lthash: LtHash,
    ) -> Result<(), NotKept> {
        if !self.contains(&block.record.parent_hash) {
            return Err(NotKept::Abandoned);
        }
        if self.nodes.len() >= UNFINALIZED_BLOCKS_MAX {
            let leaf = self.oldest_spare_leaf(&block.record.parent_hash).ok_or(NotKept::Full)?;
            self.nodes.remove(&leaf);
        }
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.nodes.insert(block.record.hash, Arc::new(Node { block, diff, lthash, arrival }));
        Ok(())
    }

    /// Moves the head, which protects its chain from eviction.
    pub fn set_head(&mut self, head: B256) {
        self.head = head;
    }

    /// Makes a block right above the root the new root and returns the blocks that are abandoned by it.
    pub fn advance(&mut self, base: Base) -> Vec<Arc<Node>> {
        debug_assert_eq!(base.record.parent_hash, self.root(), "blocks are finalized one by one");
        self.nodes.remove(&base.record.hash);
        self.base = base;
        let abandoned = self.off_the_root();
        let abandoned: Vec<_> = abandoned.iter().filter_map(|hash| self.nodes.remove(hash)).collect();
        if !self.contains(&self.head) {
            self.head = self.root();
        }
        abandoned
    }

    /// Blocks that do not lead to the root, found in one pass: parents come before their children.
    fn off_the_root(&self) -> Vec<B256> {
        let mut ascending: Vec<&BlockRecord> = self.nodes.values().map(|node| &node.block.record).collect();
        ascending.sort_unstable_by_key(|record| record.height);
        let mut kept = B256Set::from_iter([self.root()]);
        let mut abandoned = Vec::new();
        for record in ascending {
            if kept.contains(&record.parent_hash) {
                kept.insert(record.hash);
            } else {
                abandoned.push(record.hash);
            }
        }
        abandoned
    }

    fn oldest_spare_leaf(&self, keep: &B256) -> Option<B256> {
        let parents = self.nodes.values().map(|node| node.block.record.parent_hash);
        let mut needed: B256Set = parents.collect();
        for chain in [self.head, *keep] {
            let path = self.path(&chain).unwrap_or_default();
            needed.extend(path.iter().map(|node| node.block.record.hash));
        }
        let spare = self.nodes.iter().filter(|(hash, _)| !needed.contains(*hash));
        spare.min_by_key(|(_, node)| node.arrival).map(|(hash, _)| *hash)
    }
}

/// The diffs of a path as layers for an overlay.
pub(crate) fn layers(path: &[Arc<Node>]) -> Vec<Layer> {
    let layer = |node: &Arc<Node>| Layer {
        height: node.block.record.height,
        block_hash: node.block.record.hash,
        diff: node.diff.clone(),
    };
    path.iter().map(layer).collect()
}

/// A sender's nonce as changed by the blocks of a path, or `None` when they left it alone.
pub(crate) fn nonce_above(path: &[Arc<Node>], address: &Address) -> Option<u64> {
    let change = path.iter().find_map(|node| node.diff.account(address))?;
    Some(change.new.map_or(0, |info| info.nonce))
}
