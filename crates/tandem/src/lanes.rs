//! `tandem lanes`: what ran beside what in a block, as bars.

use crate::error::{CliError, CliResult};
use crate::http::Url;
use crate::rpc::{Rpc, parse_quantity};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of `tandem lanes`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// JSON-RPC of an execution node.
    #[arg(long, default_value = "http://127.0.0.1:8545")]
    rpc: Url,
    /// Columns of the longest bar.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=1000))]
    width: u16,
    /// Print the node's answer as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Number, hash or tag of a block.
    #[arg(default_value = "latest")]
    block: String,
}

/// The answer of `tandem_lanes`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockLanes {
    number: Quantity,
    hash: String,
    gas_used: Quantity,
    transaction_count: Quantity,
    objects: Quantity,
    access_bytes: Quantity,
    longest_segment_gas: Quantity,
    lanes: Vec<Lane>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lane {
    gas_used: Quantity,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Segment {
    gas_used: Quantity,
    transactions: Vec<String>,
}

/// A hex quantity. What does not fit is cut to the largest number: it is only drawn.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
struct Quantity(u64);

impl TryFrom<String> for Quantity {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let value = parse_quantity(&text).ok_or_else(|| format!("\"{text}\" is no quantity"))?;
        Ok(Self(u64::try_from(value).unwrap_or(u64::MAX)))
    }
}

/// Runs `tandem lanes`.
pub fn run(args: &Args) -> CliResult {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::while_trying("start the runtime"))?;
    let answer: Value = runtime
        .block_on(async {
            let mut rpc = Rpc::new(args.rpc.clone(), TIMEOUT);
            rpc.call("tandem_lanes", json!([block_id(&args.block)])).await
        })
        .map_err(CliError::while_trying("ask for the lanes"))?;
    if answer.is_null() {
        return Err(CliError::new(format!("{} has no final block {}", args.rpc, args.block)));
    }
    if args.json {
        println!("{answer}");
        return Ok(());
    }
    let block = serde_json::from_value(answer).map_err(CliError::while_trying("read the lanes"))?;
    print!("{}", picture(&block, usize::from(args.width)));
    Ok(())
}

/// A number as JSON-RPC writes it; hashes and tags are left as they are.
fn block_id(given: &str) -> String {
    given.parse::<u64>().map_or_else(|_| given.to_owned(), |number| format!("{number:#x}"))
}

fn picture(block: &BlockLanes, width: usize) -> String {
    let mut text = heading(block);
    let widest = block.lanes.iter().map(|lane| lane.gas_used.0).max().unwrap_or_default();
    for (number, lane) in block.lanes.iter().enumerate() {
        let bar = bar(lane, widest, width);
        let pad = " ".repeat(width.saturating_sub(bar.chars().count()));
        let transactions: usize = lane.segments.iter().map(|segment| segment.transactions.len()).sum();
        let _ = write!(
            text,
            "{number:>4} {bar}{pad} {:>5.1} % {:>12} gas {transactions:>6} tx",
            percent(lane.gas_used.0, block.gas_used.0),
            grouped(lane.gas_used.0)
        );
        if lane.segments.len() > 1 {
            let _ = write!(text, " in {} segments", lane.segments.len());
        }
        text.push_str(if is_hot(lane, block) { "  hot\n" } else { "\n" });
    }
    text
}

fn heading(block: &BlockLanes) -> String {
    let segments: usize = block.lanes.iter().map(|lane| lane.segments.len()).sum();
    let mut text = format!(
        "block {} {}: {} transactions, {} gas, {} lanes in {segments} segments, {} objects, {} access bytes\n",
        block.number.0,
        block.hash,
        block.transaction_count.0,
        grouped(block.gas_used.0),
        block.lanes.len(),
        block.objects.0,
        grouped(block.access_bytes.0)
    );
    if block.longest_segment_gas.0 > 0 {
        let longest = percent(block.longest_segment_gas.0, block.gas_used.0);
        let _ = writeln!(
            text,
            "longest segment {longest:.1} % of the gas: at most {:.1} times as fast as serially",
            100.0 / longest
        );
    }
    text
}

/// One bar, as long as the lane's share of the widest one; segments take turns in shade. An uncut lane ends in eighths
/// of a column.
fn bar(lane: &Lane, widest: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let scaled = |gas: u64, columns: u128| u128::from(gas) * columns / u128::from(widest.max(1));
    let columns = width as u128;
    if lane.segments.len() < 2 {
        // At most the width times eight.
        let eighths = scaled(lane.gas_used.0, 8 * columns).clamp(1, 8 * columns) as usize;
        return "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
    }
    let (mut text, mut gas, mut drawn) = (String::new(), 0_u64, 0);
    for (number, segment) in lane.segments.iter().enumerate() {
        gas = gas.saturating_add(segment.gas_used.0);
        let end = scaled(gas, columns).min(columns) as usize;
        text.push_str(&if number % 2 == 0 { "█" } else { "▒" }.repeat(end.saturating_sub(drawn)));
        drawn = drawn.max(end);
    }
    if text.is_empty() { "▏".into() } else { text }
}

/// A lane that the others wait for: it had to be cut, or holds more than twice its share.
fn is_hot(lane: &Lane, block: &BlockLanes) -> bool {
    let lanes = block.lanes.len() as u128;
    let above = u128::from(lane.gas_used.0) * lanes > 2 * u128::from(block.gas_used.0);
    lane.segments.len() > 1 || above
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn block(lanes: &[&[(u64, usize)]]) -> BlockLanes {
        let segment = |(gas, count): &(u64, usize)| json!({"gasUsed": format!("{gas:#x}"), "valuesTakenOver": "0x0", "transactions": vec!["0xaa"; *count]});
        let sum = |lane: &[(u64, usize)]| lane.iter().map(|(gas, _)| gas).sum::<u64>();
        let lane = |lane: &&[(u64, usize)]| {
            let segments: Vec<Value> = lane.iter().map(segment).collect();
            json!({"gasUsed": format!("{:#x}", sum(lane)), "weight": 0, "segments": segments})
        };
        let longest =
            lanes.iter().flat_map(|lane| lane.iter()).map(|(gas, _)| *gas).max().unwrap_or_default();
        serde_json::from_value(json!({
            "number": "0x2a", "hash": "0xabcd", "transactionCount": "0x9", "objects": "0x5",
            "gasUsed": format!("{:#x}", lanes.iter().map(|lane| sum(lane)).sum::<u64>()),
            "accessBytes": "0x400", "longestSegmentGas": format!("{longest:#x}"),
            "lanes": lanes.iter().map(lane).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn bars_are_as_long_as_the_gas_and_show_segments_and_hot_lanes() {
        let text =
            picture(&block(&[&[(3_000_000, 5), (3_000_000, 5)], &[(1_500_000, 2)], &[(21_000, 1)]]), 8);
        let expected = "\
            block 42 0xabcd: 9 transactions, 7,521,000 gas, 3 lanes in 4 segments, 5 objects, 1,024 access bytes\n\
            longest segment 39.9 % of the gas: at most 2.5 times as fast as serially\n   \
            0 ████▒▒▒▒  79.8 %    6,000,000 gas     10 tx in 2 segments  hot\n   \
            1 ██        19.9 %    1,500,000 gas      2 tx\n   \
            2 ▏          0.3 %       21,000 gas      1 tx\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn strange_answers_are_drawn_within_the_width() {
        let none = picture(&block(&[]), 8);
        assert_eq!(none.lines().count(), 1);
        let mut lie = block(&[&[(5, 1), (5, 1)]]);
        lie.lanes[0].segments[1].gas_used = Quantity(u64::MAX);
        lie.gas_used = Quantity(0);
        let text = picture(&lie, 8);
        assert!(text.lines().all(|line| line.matches(['█', '▒']).count() <= 8), "{text}");
        let zero = picture(&block(&[&[(0, 0)]]), 8);
        assert!(zero.contains("   0 ▏"), "{zero}");
    }

    #[test]
    fn blocks_are_named_by_number_hash_or_tag() {
        assert_eq!([block_id("42"), block_id("0x2a"), block_id("latest")], ["0x2a", "0x2a", "latest"]);
    }
}
