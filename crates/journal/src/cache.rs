//! The blocks used last, decoded.

use std::collections::VecDeque;
use std::sync::Arc;
use types::{B256, Block};

const BLOCKS_MAX: usize = 64;
const BYTES_MAX: usize = 32 << 20;

/// A small least-recently-used list: a walk over 64 hashes costs less than any map would save.
#[derive(Debug, Default)]
pub(crate) struct BlockCache {
    /// Newest use last.
    entries: VecDeque<(B256, Arc<Block>, usize)>,
    bytes: usize,
}

impl BlockCache {
    pub fn get(&mut self, hash: &B256) -> Option<Arc<Block>> {
        let position = self.entries.iter().position(|(known, ..)| known == hash)?;
        let entry = self.entries.remove(position)?;
        let block = Arc::clone(&entry.1);
        self.entries.push_back(entry);
        Some(block)
    }

    pub fn insert(&mut self, hash: B256, block: Arc<Block>, bytes: usize) {
        if bytes > BYTES_MAX || self.get(&hash).is_some() {
            return;
        }
        self.bytes += bytes;
        self.entries.push_back((hash, block, bytes));
        while self.entries.len() > BLOCKS_MAX || self.bytes > BYTES_MAX {
            let Some((.., freed)) = self.entries.pop_front() else { break };
            self.bytes -= freed;
        }
    }
}
