//! Log queries: parsing what a caller asks for, and searching within this server's limits.

use super::{
    error::{RpcError, RpcResult},
    shapes::log_of_entry,
};
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{Address, B256};
use alloy_rpc_types_eth::Log;
use serde::Deserialize;
use state::{LogEntry, LogFilter, LogLimits, LogsError};
use std::time::{Duration, Instant};

/// Addresses of one filter.
const ADDRESSES_MAX: usize = 1_000;
/// Topic positions a log can have.
const TOPIC_POSITIONS_MAX: usize = 4;
/// Alternatives at one topic position.
const TOPIC_ALTERNATIVES_MAX: usize = 1_000;

/// Blocks a caller asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogBlocks {
    /// One block by hash.
    Hash(B256),
    /// An inclusive range; left out means the latest block.
    Range {
        /// First block.
        from: Option<BlockNumberOrTag>,
        /// Last block.
        to: Option<BlockNumberOrTag>,
    },
}

/// A parsed log query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogQuery {
    pub(super) blocks: LogBlocks,
    pub(super) filter: LogFilter,
}

impl LogQuery {
    /// What an empty filter object asks for.
    pub(super) fn everything() -> Self {
        Self { blocks: LogBlocks::Range { from: None, to: None }, filter: LogFilter::default() }
    }
}

/// The JSON shape. Unknown keys are ignored, as in geth.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawQuery {
    from_block: Option<BlockNumberOrTag>,
    to_block: Option<BlockNumberOrTag>,
    block_hash: Option<B256>,
    address: Option<OneOrMany<Address>>,
    topics: Option<Vec<Option<OneOrMany<Option<B256>>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "not a hex string of the right length (20 bytes for an address, 32 for a topic) or a list of them"
)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(items) => items,
            Self::One(item) => vec![item],
        }
    }
}

impl<'de> Deserialize<'de> for LogQuery {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawQuery::deserialize(deserializer)?;
        Self::try_from(raw).map_err(serde::de::Error::custom)
    }
}

impl TryFrom<RawQuery> for LogQuery {
    type Error = String;

    fn try_from(raw: RawQuery) -> Result<Self, String> {
        let blocks = match (raw.block_hash, raw.from_block, raw.to_block) {
            (Some(hash), None, None) => LogBlocks::Hash(hash),
            (Some(_), _, _) => {
                return Err("cannot specify both blockHash and fromBlock/toBlock, choose one".into());
            }
            (None, from, to) => LogBlocks::Range { from, to },
        };
        let addresses = raw.address.map(OneOrMany::into_vec).unwrap_or_default();
        let positions = raw.topics.unwrap_or_default();
        if addresses.len() > ADDRESSES_MAX {
            return Err(format!("{} addresses given, at most {ADDRESSES_MAX} are allowed", addresses.len()));
        }
        if positions.len() > TOPIC_POSITIONS_MAX {
            return Err(format!(
                "{} topic positions given, a log has at most {TOPIC_POSITIONS_MAX}",
                positions.len()
            ));
        }
        let topics = positions.into_iter().map(alternatives).collect::<Result<_, _>>()?;
        Ok(Self { blocks, filter: LogFilter { addresses, topics } })
    }
}

/// The alternatives at one position. A null among them matches anything, which makes the others moot.
fn alternatives(position: Option<OneOrMany<Option<B256>>>) -> Result<Vec<B256>, String> {
    let given = position.map(OneOrMany::into_vec).unwrap_or_default();
    if given.len() > TOPIC_ALTERNATIVES_MAX {
        return Err(format!(
            "{} topics at one position, at most {TOPIC_ALTERNATIVES_MAX} are allowed",
            given.len()
        ));
    }
    let wanted: Option<Vec<B256>> = given.into_iter().collect();
    Ok(wanted.unwrap_or_default())
}

/// Limits of this server.
#[derive(Clone, Copy, Debug)]
pub(super) struct SearchLimits {
    pub(super) blocks_max: u64,
    pub(super) results_max: usize,
    pub(super) time_max: Duration,
}

/// Blocks searched between two looks at the clock.
const SLICE_BLOCKS: u64 = 512;

/// The store's search: inclusive range, filter, limits.
pub(super) type Search<'a> = &'a dyn Fn(u64, u64, &LogFilter, LogLimits) -> Result<Vec<LogEntry>, LogsError>;

/// All matching logs of `from..=to`, or an error that says what to ask instead.
pub(super) fn search_all(
    search: Search<'_>,
    (from, to): (u64, u64),
    filter: &LogFilter,
    limits: SearchLimits,
) -> RpcResult<Vec<Log>> {
    if from > to {
        return Err(RpcError::InvalidParams(format!(
            "invalid block range params: from block {from} to block {to}"
        )));
    }
    let blocks = (to - from).saturating_add(1);
    if blocks > limits.blocks_max {
        let max = limits.blocks_max;
        return Err(RpcError::LimitExceeded(format!(
            "query spans {blocks} blocks, at most {max} are allowed; ask in steps of {max} blocks or fewer"
        )));
    }
    let part = search_some(search, (from, to), filter, limits)?;
    if part.complete_to == Some(to) {
        return Ok(part.logs);
    }
    let advice = match part.complete_to {
        Some(last) => format!("try the range {from:#x} to {last:#x} and go on from there"),
        None => "narrow it by address or topics".into(),
    };
    match part.out_of_time {
        true => {
            let max = limits.time_max.as_millis();
            Err(RpcError::LimitExceeded(format!("query takes longer than {max} ms; {advice}")))
        }
        false => {
            let max = limits.results_max;
            Err(RpcError::LimitExceeded(format!("query returns more than {max} results; {advice}")))
        }
    }
}

/// A prefix of a search that fits the limits.
#[derive(Debug)]
pub(super) struct PartialSearch {
    pub(super) logs: Vec<Log>,
    /// The last block whose logs are all there; `None` when not even the first one's are.
    pub(super) complete_to: Option<u64>,
    /// Whether time rather than the number of results ran out.
    pub(super) out_of_time: bool,
}

/// As many whole blocks of `from..=to` as fit.
pub(super) fn search_some(
    search: Search<'_>,
    (from, to): (u64, u64),
    filter: &LogFilter,
    limits: SearchLimits,
) -> RpcResult<PartialSearch> {
    let started = Instant::now();
    let mut found = PartialSearch { logs: Vec::new(), complete_to: None, out_of_time: false };
    let mut next = from;
    while next <= to {
        if next > from && started.elapsed() > limits.time_max {
            found.out_of_time = true;
            return Ok(found);
        }
        let last = to.min(next.saturating_add(SLICE_BLOCKS - 1));
        let results_max = limits.results_max.saturating_sub(found.logs.len());
        let slice_limits = LogLimits { blocks_max: SLICE_BLOCKS, results_max };
        match search(next, last, filter, slice_limits) {
            Ok(entries) => found.take(entries, last),
            Err(LogsError::TooManyResults { last_complete: Some(last_complete), .. }) => {
                let entries = search(next, last_complete, filter, slice_limits).map_err(logs_error)?;
                found.take(entries, last_complete);
                return Ok(found);
            }
            Err(LogsError::TooManyResults { .. }) => return Ok(found),
            Err(error) => return Err(logs_error(error)),
        }
        let Some(after) = last.checked_add(1) else { break };
        next = after;
    }
    Ok(found)
}

impl PartialSearch {
    fn take(&mut self, entries: Vec<LogEntry>, complete_to: u64) {
        self.logs.extend(entries.into_iter().map(log_of_entry));
        self.complete_to = Some(complete_to);
    }
}

fn logs_error(error: LogsError) -> RpcError {
    match error {
        LogsError::State(error) => RpcError::internal(error),
        LogsError::InvertedRange { .. } | LogsError::BeyondHead { .. } => {
            RpcError::InvalidParams(error.to_string())
        }
        LogsError::RangeTooLong { .. } | LogsError::TooManyResults { .. } => {
            RpcError::LimitExceeded(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn query(value: serde_json::Value) -> LogQuery {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_way_to_write_a_filter_is_understood() {
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let (x, y) = (B256::repeat_byte(8), B256::repeat_byte(9));
        let cases = [
            (json!({}), vec![], vec![]),
            (json!({"address": a, "unknown": 1}), vec![a], vec![]),
            (json!({"address": [a, b], "topics": []}), vec![a, b], vec![]),
            (json!({"address": null, "topics": [x]}), vec![], vec![vec![x]]),
            (json!({"topics": [[x, y], null, y]}), vec![], vec![vec![x, y], vec![], vec![y]]),
            (json!({"topics": [[x, null], []]}), vec![], vec![vec![], vec![]]),
        ];
        for (value, addresses, topics) in cases {
            assert_eq!(query(value.clone()).filter, LogFilter { addresses, topics }, "{value}");
        }
    }

    #[test]
    fn block_choice_is_kept() {
        assert_eq!(query(json!({"blockHash": B256::ZERO})).blocks, LogBlocks::Hash(B256::ZERO));
        let range =
            LogBlocks::Range { from: Some(BlockNumberOrTag::Number(1)), to: Some(BlockNumberOrTag::Latest) };
        assert_eq!(query(json!({"fromBlock": "0x1", "toBlock": "latest"})).blocks, range);
        assert_eq!(query(json!({"fromBlock": null})).blocks, LogBlocks::Range { from: None, to: None });
    }

    #[test]
    fn contradictory_and_oversized_filters_are_refused() {
        let hash = B256::ZERO;
        for value in [
            json!({"blockHash": hash, "fromBlock": "0x1"}),
            json!({"topics": [null, null, null, null, null]}),
            json!({"address": vec![Address::ZERO; ADDRESSES_MAX + 1]}),
            json!({"topics": [vec![hash; TOPIC_ALTERNATIVES_MAX + 1]]}),
            json!({"topics": ["0x12"]}),
            json!({"fromBlock": 5}),
            json!([1]),
            json!("latest"),
        ] {
            assert!(serde_json::from_value::<LogQuery>(value).is_err());
        }
    }

    /// A chain with `per_block` logs in every block.
    fn search_of(
        per_block: usize,
    ) -> impl Fn(u64, u64, &LogFilter, LogLimits) -> Result<Vec<LogEntry>, LogsError> {
        move |from, to, _, limits| {
            assert!(to - from < limits.blocks_max);
            let fitting = limits.results_max.checked_div(per_block).unwrap_or(usize::MAX) as u64;
            if to - from + 1 > fitting {
                let last_complete = (fitting > 0).then(|| from + fitting - 1);
                return Err(LogsError::TooManyResults { max: limits.results_max, last_complete });
            }
            Ok((from..=to).flat_map(|height| vec![entry(height); per_block]).collect())
        }
    }

    fn entry(height: u64) -> LogEntry {
        LogEntry {
            height,
            block_hash: B256::ZERO,
            timestamp_ms: 0,
            tx_hash: B256::ZERO,
            tx_index: 0,
            log_index: 0,
            log: Default::default(),
        }
    }

    const LIMITS: SearchLimits =
        SearchLimits { blocks_max: 2_000, results_max: 3_000, time_max: Duration::from_secs(60) };

    #[test]
    fn long_ranges_are_searched_in_slices_and_lose_nothing() {
        let logs = search_all(&search_of(1), (1, 1_999), &LogFilter::default(), LIMITS).unwrap();
        let heights: Vec<u64> = logs.iter().map(|log| log.block_number.unwrap()).collect();
        assert_eq!(heights, (1..=1_999).collect::<Vec<_>>());
        assert!(search_all(&search_of(0), (7, 7), &LogFilter::default(), LIMITS).unwrap().is_empty());
    }

    #[test]
    fn limits_are_named_with_what_to_do() {
        let error = |range, per_block, limits| {
            let error = search_all(&search_of(per_block), range, &LogFilter::default(), limits).unwrap_err();
            (error.code(), error.to_string())
        };
        let (code, text) = error((0, 2_000), 1, LIMITS);
        assert_eq!(code, -32005);
        assert!(text.contains("spans 2001 blocks, at most 2000"), "{text}");
        let (code, text) = error((1, 1_999), 2, LIMITS);
        assert_eq!(code, -32005);
        assert!(
            text.ends_with("more than 3000 results; try the range 0x1 to 0x5dc and go on from there"),
            "{text}"
        );
        let (_, text) = error((5, 6), 4_000, LIMITS);
        assert!(text.ends_with("narrow it by address or topics"), "{text}");
        let (code, text) = error((1, 1_999), 1, SearchLimits { time_max: Duration::ZERO, ..LIMITS });
        assert_eq!(code, -32005);
        assert!(text.contains("longer than 0 ms; try the range 0x1 to 0x200"), "{text}");
        assert_eq!(error((6, 5), 1, LIMITS).0, -32602);
    }
}
