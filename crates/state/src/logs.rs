//! Searching logs.

use crate::StateError;
use alloy_primitives::{Address, B256, Log};

/// Which logs are wanted, as in `eth_getLogs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Emitting contracts; empty means any.
    pub addresses: Vec<Address>,
    /// Per topic position the accepted values; an empty position means any, missing positions too.
    pub topics: Vec<Vec<B256>>,
}

impl LogFilter {
    /// Whether `log` is wanted.
    pub fn matches(&self, log: &Log) -> bool {
        let topics = log.topics();
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && self.topics.len() <= topics.len()
            && self
                .topics
                .iter()
                .zip(topics)
                .all(|(accepted, topic)| accepted.is_empty() || accepted.contains(topic))
    }
}

/// How much one search may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Blocks in the range.
    pub blocks_max: u64,
    /// Logs in the answer.
    pub results_max: usize,
}

/// A log with its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Height of its block.
    pub height: u64,
    /// Hash of its block.
    pub block_hash: B256,
    /// Milliseconds since 1970 of its block.
    pub timestamp_ms: u64,
    /// Its transaction.
    pub tx_hash: B256,
    /// Position of that transaction.
    pub tx_index: u32,
    /// Position of the log in the block.
    pub log_index: u64,
    /// The log.
    pub log: Log,
}

/// Why a search was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogsError {
    /// The range ends before it starts.
    #[error("invalid block range: from {from} to {to}")]
    InvertedRange {
        /// First height.
        from: u64,
        /// Last height.
        to: u64,
    },
    /// The range starts above the head.
    #[error("block range starts at {from}, the head is {head}")]
    BeyondHead {
        /// First height.
        from: u64,
        /// Highest stored height.
        head: u64,
    },
    /// The range is too long.
    #[error("block range of {blocks} blocks exceeds the limit of {max}")]
    RangeTooLong {
        /// Blocks asked for.
        blocks: u64,
        /// Blocks allowed.
        max: u64,
    },
    /// The answer would be too long.
    #[error("query returns more than {max} logs; the range up to block {last_complete} fits")]
    TooManyResults {
        /// Logs allowed.
        max: usize,
        /// Last block whose logs all fit; `from - 1` when not even the first does.
        last_complete: u64,
    },
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
}
