//! Executed blocks that are not final yet: a small tree above the finalized head.

use alloy_primitives::map::{B256Map, B256Set};
use execution::{Layer, LtHash, StateDiff};
use state::ExecutedBlock;
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

/// # Invariants
/// - Every node's parent is the root or another node, one height below.
/// - At most [`UNFINALIZED_BLOCKS_MAX`] nodes.
#[derive(Debug)]
pub(crate) struct BlockTree {
    root: B256,
    head: B256,
    nodes: B256Map<Arc<Node>>,
    next_arrival: u64,
}

/// No room: every block that could go leads to the head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TreeFull;

impl BlockTree {
    /// A tree above the finalized block `root`.
    pub fn new(root: B256) -> Self {
        Self { root, head: root, nodes: B256Map::default(), next_arrival: 0 }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn get(&self, hash: &B256) -> Option<&Arc<Node>> {
        self.nodes.get(hash)
    }

    /// Whether the block is the root or above it.
    pub fn contains(&self, hash: &B256) -> bool {
        *hash == self.root || self.nodes.contains_key(hash)
    }

    /// The blocks from `hash` down to the one above the root, newest first; empty for the root itself.
    pub fn path(&self, hash: &B256) -> Option<Vec<Arc<Node>>> {
        let (mut path, mut at) = (Vec::new(), *hash);
        while at != self.root {
            let node = self.nodes.get(&at)?;
            path.push(node.clone());
            at = node.block.record.parent_hash;
        }
        Some(path)
    }

    /// Whether `ancestor` is `descendant` or below it (the root is below all).
    pub fn is_ancestor(&self, ancestor: &B256, descendant: &B256) -> bool {
        let Some(path) = self.path(descendant) else { return false };
        *ancestor == self.root || path.iter().any(|node| node.block.record.hash == *ancestor)
    }

    /// Adds a block whose parent is in the tree. When the tree is full the oldest leaf off the head's chain goes.
    pub fn insert(
        &mut self,
        block: Arc<ExecutedBlock>,
        diff: Arc<StateDiff>,
        lthash: LtHash,
    ) -> Result<(), TreeFull> {
        if self.nodes.len() >= UNFINALIZED_BLOCKS_MAX {
            let leaf = self.oldest_spare_leaf(&block.record.parent_hash).ok_or(TreeFull)?;
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

    /// Makes a child of the root the new root and returns the blocks that are abandoned by it.
    pub fn advance_root(&mut self, root: B256) -> Vec<Arc<Node>> {
        let Some(node) = self.nodes.remove(&root) else { return Vec::new() };
        debug_assert_eq!(node.block.record.parent_hash, self.root, "blocks are finalized one by one");
        self.root = root;
        let kept = |tree: &Self, hash: &B256| tree.path(hash).is_some();
        let abandoned: Vec<B256> = self.nodes.keys().filter(|hash| !kept(self, hash)).copied().collect();
        if !self.contains(&self.head) {
            self.head = root;
        }
        abandoned.iter().filter_map(|hash| self.nodes.remove(hash)).collect()
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
