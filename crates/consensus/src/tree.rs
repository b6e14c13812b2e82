//! Blocks above the finalized one: what is stored, what the executor said of them, what certifies them (C-5).
//!
//! # Invariants
//! - Every node's height is above the root's, and at most [`NODES_MAX`] nodes are kept.
//! - A verdict once given never changes: `Invalid` stays, `Valid` only turns back into `Waiting` when the executor
//!   restarted and forgot it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::{B256, Block, Height, RejectionCode, Validator, View};

/// Blocks kept above the finalized height.
pub const NODES_MAX: usize = 512;

/// What is known about a block's execution here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet asked: the parent is missing or not executed, or the executor is away.
    Waiting,
    /// Asked.
    Executing,
    /// Executed; its hashes are the header's.
    Valid,
    /// Refused for good.
    Invalid(RejectionCode),
}

/// A block of the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// The block.
    pub block: Arc<Block>,
    /// Its hash.
    pub hash: B256,
    /// What the executor says.
    pub verdict: Verdict,
    /// Of an epoch's last block, once executed: the validators of the epoch after the next one.
    pub next_validators: Option<Vec<Validator>>,
}

/// The last finalized block: what the tree hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: B256,
    /// Its timestamp in milliseconds.
    pub timestamp_ms: u64,
    /// RANDAO mix after it.
    pub randao_mix: B256,
}

/// What a child needs to know of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentInfo {
    /// Height of the parent.
    pub height: Height,
    /// Timestamp of the parent in milliseconds.
    pub timestamp_ms: u64,
    /// RANDAO mix after the parent.
    pub randao_mix: B256,
    /// Whether the executor holds it executed.
    pub executed: bool,
    /// Whether it was found invalid.
    pub invalid: bool,
}

/// The tree.
#[derive(Clone, Debug)]
pub struct BlockTree {
    root: Root,
    nodes: BTreeMap<B256, Node>,
}

impl BlockTree {
    /// A tree that is only its root.
    pub fn new(root: Root) -> Self {
        Self { root, nodes: BTreeMap::new() }
    }

    /// The finalized block.
    pub fn root(&self) -> Root {
        self.root
    }

    /// A block above the root.
    pub fn get(&self, hash: &B256) -> Option<&Node> {
        self.nodes.get(hash)
    }

    /// Whether the block is the root or above it.
    pub fn contains(&self, hash: &B256) -> bool {
        *hash == self.root.hash || self.nodes.contains_key(hash)
    }

    /// Number of blocks above the root.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is only the root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All blocks above the root, in no meaningful but a fixed order.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Adds a block above the root. False when it is not above, already there, or the tree is full.
    pub fn insert(&mut self, hash: B256, block: Arc<Block>) -> bool {
        if block.header.height <= self.root.height || self.contains(&hash) || self.nodes.len() >= NODES_MAX {
            return false;
        }
        self.nodes.insert(hash, Node { block, hash, verdict: Verdict::Waiting, next_validators: None });
        true
    }

    /// Sets the verdict of a block that has none yet.
    pub fn judge(&mut self, hash: &B256, verdict: Verdict) {
        if let Some(node) = self.nodes.get_mut(hash).filter(|n| !matches!(n.verdict, Verdict::Invalid(_))) {
            node.verdict = verdict;
        }
    }

    /// What the executor said of the validators to come, with its verdict.
    pub fn note_validators(&mut self, hash: &B256, members: Vec<Validator>) {
        if let Some(node) = self.nodes.get_mut(hash) {
            node.next_validators = Some(members);
        }
    }

    /// The executor restarted: everything it knew above the root is gone.
    pub fn forget_execution(&mut self) {
        self.nodes
            .values_mut()
            .filter(|n| !matches!(n.verdict, Verdict::Invalid(_)))
            .for_each(|n| n.verdict = Verdict::Waiting);
    }

    /// What a child of `hash` needs to know, if the block is here.
    pub fn parent_info(&self, hash: &B256) -> Option<ParentInfo> {
        if *hash == self.root.hash {
            let Root { height, timestamp_ms, randao_mix, .. } = self.root;
            return Some(ParentInfo { height, timestamp_ms, randao_mix, executed: true, invalid: false });
        }
        self.nodes.get(hash).map(|node| ParentInfo {
            height: node.block.header.height,
            timestamp_ms: node.block.header.timestamp_ms,
            randao_mix: node.block.system_inputs.randao_mix,
            executed: node.verdict == Verdict::Valid,
            invalid: matches!(node.verdict, Verdict::Invalid(_)),
        })
    }

    /// Blocks that can be given to the executor now: unasked, with an executed parent.
    pub fn executable(&self) -> Vec<B256> {
        self.nodes
            .values()
            .filter(|n| n.verdict == Verdict::Waiting)
            .filter(|n| {
                self.parent_info(&n.block.header.parent_hash).is_some_and(|p| p.executed || p.invalid)
            })
            .map(|n| n.hash)
            .collect()
    }

    /// The blocks from just above the root up to `hash`, ascending; `Err` names the first ancestor missing.
    pub fn path(&self, hash: &B256) -> Result<Vec<&Node>, B256> {
        let (mut path, mut at) = (Vec::new(), *hash);
        while at != self.root.hash {
            let node = self.nodes.get(&at).ok_or(at)?;
            path.push(node);
            at = node.block.header.parent_hash;
        }
        path.reverse();
        Ok(path)
    }

    /// Drops blocks of views before `oldest` that lead to none of `anchors`: siblings that failed. A certificate that
    /// comes late brings such a block back from the store. Without this a long run of failed views would fill the
    /// tree for good, since only a new block can empty it.
    pub fn prune(&mut self, oldest: View, anchors: impl IntoIterator<Item = B256>) {
        let mut needed = BTreeSet::new();
        for anchor in anchors {
            let mut at = anchor;
            while let Some(node) = self.nodes.get(&at).filter(|_| needed.insert(at)) {
                at = node.block.header.parent_hash;
            }
        }
        self.nodes.retain(|hash, node| node.block.header.view >= oldest || needed.contains(hash));
    }

    /// Moves the root up to a child of it and drops everything that does not descend from it.
    pub fn finalize(&mut self, hash: &B256) {
        let Some(node) = self.nodes.remove(hash) else { return };
        let header = &node.block.header;
        self.root = Root {
            height: header.height,
            hash: *hash,
            timestamp_ms: header.timestamp_ms,
            randao_mix: node.block.system_inputs.randao_mix,
        };
        let root = self.root;
        self.nodes.retain(|_, n| n.block.header.height > root.height);
        let mut orphans: Vec<B256> = self
            .nodes
            .values()
            .filter(|n| {
                n.block.header.height == root.height.next() && n.block.header.parent_hash != root.hash
            })
            .map(|n| n.hash)
            .collect();
        while let Some(orphan) = orphans.pop() {
            self.nodes.remove(&orphan);
            orphans
                .extend(self.nodes.values().filter(|n| n.block.header.parent_hash == orphan).map(|n| n.hash));
        }
    }
}
