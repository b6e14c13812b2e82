//! Searching logs.

use crate::{BlockRecord, StateError, StateStore, block, rows, snapshot::Version};
use alloy_primitives::{Address, B256, Bloom, BloomInput, Bytes, Log};
use fjall::Readable;

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

    /// Whether a block or receipt with this bloom can hold a wanted log.
    pub fn may_match(&self, bloom: &Bloom) -> bool {
        BloomFilter::new(self).may_match(bloom)
    }
}

/// A filter's alternatives, hashed once per search.
struct BloomFilter(Vec<Vec<Bloom>>);

impl BloomFilter {
    fn new(filter: &LogFilter) -> Self {
        let bloom = |raw: &[u8]| Bloom::from(BloomInput::Raw(raw));
        let addresses = filter.addresses.iter().map(|address| bloom(address.as_slice())).collect();
        let topics =
            filter.topics.iter().map(|accepted| accepted.iter().map(|t| bloom(t.as_slice())).collect());
        let positions = std::iter::once(addresses).chain(topics);
        Self(positions.filter(|alternatives: &Vec<Bloom>| !alternatives.is_empty()).collect())
    }

    fn may_match(&self, bloom: &Bloom) -> bool {
        self.0.iter().all(|alternatives| alternatives.iter().any(|wanted| bloom.contains(wanted)))
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
    #[error("query returns more than {max} logs; it fits up to block {last_complete:?}")]
    TooManyResults {
        /// Logs allowed.
        max: usize,
        /// Last block up to which all logs fit, if there is one.
        last_complete: Option<u64>,
    },
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl StateStore {
    /// Logs of the blocks `from..=to` (cut at the head) that match, in order.
    pub fn logs(
        &self,
        from: u64,
        to: u64,
        filter: &LogFilter,
        limits: LogLimits,
    ) -> Result<Vec<LogEntry>, LogsError> {
        let version = self.version();
        let head = version.head.height;
        if to < from {
            return Err(LogsError::InvertedRange { from, to });
        }
        if from > head {
            return Err(LogsError::BeyondHead { from, head });
        }
        let to = to.min(head);
        let blocks = (to - from).saturating_add(1);
        if blocks > limits.blocks_max {
            return Err(LogsError::RangeTooLong { blocks, max: limits.blocks_max });
        }
        search(&version, from, to, filter, limits.results_max)
    }
}

fn search(
    version: &Version,
    from: u64,
    to: u64,
    filter: &LogFilter,
    results_max: usize,
) -> Result<Vec<LogEntry>, LogsError> {
    let blooms = BloomFilter::new(filter);
    let range = rows::record_key(from)..=rows::record_key(to);
    let mut found = Vec::new();
    for row in version.snapshot.range(&version.shared.chain, range) {
        let row = row.value().map_err(StateError::database("scanning blocks"))?;
        let record: BlockRecord = rows::read("block", &row)?;
        if !blooms.may_match(&record.logs_bloom) {
            continue;
        }
        collect(version, &record, filter, results_max, &mut found)?;
        if found.len() > results_max {
            let last_complete = record.height.checked_sub(1).filter(|height| *height >= from);
            return Err(LogsError::TooManyResults { max: results_max, last_complete });
        }
    }
    Ok(found)
}

/// Adds a block's matches, one more than allowed at most: a single block can hold millions of logs.
fn collect(
    version: &Version,
    record: &BlockRecord,
    filter: &LogFilter,
    results_max: usize,
    found: &mut Vec<LogEntry>,
) -> Result<(), StateError> {
    let Some(row) = version.chain_row(&rows::receipts_key(record.height))? else {
        return Err(StateError::corrupt("receipts", format!("none at height {}", record.height)));
    };
    for (index, receipt) in block::read_receipts(Bytes::copy_from_slice(&row))?.iter().enumerate() {
        for (offset, log) in receipt.logs().iter().enumerate() {
            if found.len() > results_max {
                return Ok(());
            }
            if filter.matches(log) {
                found.push(LogEntry {
                    height: record.height,
                    block_hash: record.hash,
                    timestamp_ms: record.timestamp_ms,
                    tx_hash: receipt.tx_hash,
                    tx_index: u32::try_from(index).unwrap_or(u32::MAX),
                    log_index: receipt.first_log_index + offset as u64,
                    log: log.clone(),
                });
            }
        }
    }
    Ok(())
}
