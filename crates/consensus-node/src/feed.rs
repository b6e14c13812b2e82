//! What became final lately, for whoever reads along: the REST interface, its event stream and the dashboard.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::broadcast;
use types::{B256, CommitQc, Header, Height, View};

/// Finalized blocks kept in memory.
pub(crate) const RECENT_MAX: usize = 256;

/// Notices a slow reader may be behind before it misses some.
const NOTICES_MAX: usize = 256;

/// A finalized block without its payload.
#[derive(Debug)]
pub(crate) struct FinalBlock {
    pub block_hash: B256,
    pub header: Header,
    pub payload_bytes: usize,
    /// Its own commit certificate, where it has one.
    pub commit: Option<CommitQc>,
    /// When the executor said that it is final and durable there, in milliseconds since 1970; `None` when that was before
    /// this start.
    pub finalized_at_ms: Option<u64>,
}

/// Something new.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// Another block is the highest certified one.
    Head { height: Height, view: View, block_hash: B256 },
    /// A block became final.
    Finalized(Arc<FinalBlock>),
}

/// Written by the consensus thread, read by everybody.
#[derive(Debug)]
pub(crate) struct Feed {
    recent: RwLock<VecDeque<Arc<FinalBlock>>>,
    notices: broadcast::Sender<Notice>,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self { recent: RwLock::default(), notices: broadcast::Sender::new(NOTICES_MAX) }
    }

    pub(crate) fn finalized(&self, block: FinalBlock) {
        let block = Arc::new(block);
        self.remember(block.clone());
        // No receiver is no error.
        let _ = self.notices.send(Notice::Finalized(block));
    }

    /// Adds a block that was final before this start.
    pub(crate) fn remember(&self, block: Arc<FinalBlock>) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(block);
    }

    pub(crate) fn head(&self, height: Height, view: View, block_hash: B256) {
        let _ = self.notices.send(Notice::Head { height, view, block_hash });
    }

    /// The last `count` blocks, newest first.
    pub(crate) fn recent(&self, count: usize) -> Vec<Arc<FinalBlock>> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.iter().rev().take(count).cloned().collect()
    }

    pub(crate) fn follow(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}
