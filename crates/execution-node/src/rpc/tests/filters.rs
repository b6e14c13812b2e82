//! Log queries and polled filters over many blocks.

use super::{
    client::Http,
    node::{EMITTER, GWEI, Node, config, raw},
};
use crate::rpc::RpcConfig;
use alloy_primitives::{Address, B256};
use serde_json::{Value, json};

const X: B256 = B256::repeat_byte(0xaa);
const Y: B256 = B256::repeat_byte(0xbb);

/// Heights of the blocks of some logs.
fn heights(logs: &Value) -> Vec<u64> {
    let height = |log: &Value| u64::from_str_radix(&log["blockNumber"].as_str().unwrap()[2..], 16).unwrap();
    logs.as_array().unwrap().iter().map(height).collect()
}

async fn changes(http: &mut Http, id: &Value) -> Value {
    http.ok("eth_getFilterChanges", json!([id])).await
}

#[tokio::test]
async fn logs_are_found_by_address_topic_range_and_block() {
    let node = Node::start().await;
    let mut http = node.http().await;
    node.mine(vec![node.emit(0, 0, X), node.emit(1, 0, Y)]);
    let second = node.mine(vec![node.emit(0, 0, Y)]);
    node.mine(vec![node.transfer(0, 0)]);
    for (filter, expected) in [
        (json!({"fromBlock": "0x0", "toBlock": "latest"}), vec![1, 1, 2]),
        (json!({"fromBlock": "earliest", "topics": [X]}), vec![1]),
        (json!({"fromBlock": "0x1", "toBlock": "0x1", "topics": [[X, Y]]}), vec![1, 1]),
        (json!({"fromBlock": "0x0", "address": EMITTER, "topics": [Y]}), vec![1, 2]),
        (json!({"fromBlock": "0x0", "address": [Address::ZERO]}), vec![]),
        (json!({"fromBlock": "0x0", "topics": [null, X]}), vec![]),
        (json!({"blockHash": second.record.hash}), vec![2]),
        (json!({}), vec![]),
        (json!({"fromBlock": "0x2", "toBlock": "0x64"}), vec![2]),
        (json!({"fromBlock": "0x32", "toBlock": "0x64"}), vec![]),
        (json!({"fromBlock": "0x1", "toBlock": "pending"}), vec![1, 1, 2]),
        (json!({"fromBlock": "0x4", "toBlock": "latest"}), vec![]),
        (json!({"fromBlock": "0x4"}), vec![]),
    ] {
        let logs = http.ok("eth_getLogs", json!([filter])).await;
        assert_eq!(heights(&logs), expected, "{filter}");
    }
    assert_eq!(http.fails("eth_getLogs", json!([{"fromBlock": "0x2", "toBlock": "0x1"}])).await.0, -32602);
    assert_eq!(http.fails("eth_getLogs", json!([{"blockHash": X}])).await.0, -32000);
    assert_eq!(http.fails("eth_getLogs", json!([{"topics": ["0x12"]}])).await.0, -32602);
    assert_eq!(http.fails("eth_getLogs", json!([])).await.0, -32602);
}

#[tokio::test]
async fn log_queries_are_bounded_and_say_what_to_do() {
    let limits = RpcConfig { logs_blocks_max: 4, logs_results_max: 3, ..config() };
    let node = Node::start_with(limits, GWEI as u64, |_| {}).await;
    let mut http = node.http().await;
    (0..6).for_each(|_| drop(node.mine(vec![node.emit(0, 0, X)])));
    let (code, text) = http.fails("eth_getLogs", json!([{"fromBlock": "0x1", "toBlock": "0x6"}])).await;
    assert_eq!(code, -32005);
    assert_eq!(text, "query spans 6 blocks, at most 4 are allowed; ask in steps of 4 blocks or fewer");
    let (code, text) = http.fails("eth_getLogs", json!([{"fromBlock": "0x1", "toBlock": "0x4"}])).await;
    assert_eq!(code, -32005);
    assert_eq!(text, "query returns more than 3 results; try the range 0x1 to 0x3 and go on from there");
    let id = http.ok("eth_newFilter", json!([{"fromBlock": "0x1", "toBlock": "0x6"}])).await;
    assert_eq!(http.fails("eth_getFilterLogs", json!([id])).await.0, -32005);
}

#[tokio::test]
async fn a_log_filter_tells_everything_once_over_many_blocks() {
    let node = Node::start().await;
    let mut http = node.http().await;
    node.mine(vec![node.emit(0, 0, X)]);
    let id = http.ok("eth_newFilter", json!([{"address": EMITTER, "topics": [X]}])).await;
    assert_eq!(changes(&mut http, &id).await, json!([]), "what was before is not news");
    let mut told = Vec::new();
    for round in 0..10 {
        for _ in 0..round % 4 {
            node.mine(vec![node.emit(0, 0, X), node.emit(1, 0, Y)]);
        }
        told.extend(heights(&changes(&mut http, &id).await));
    }
    let head = node.chain.height().get();
    assert_eq!(told, (2..=head).collect::<Vec<_>>());
    assert_eq!(heights(&http.ok("eth_getFilterLogs", json!([id])).await), [head]);
    assert_eq!(http.ok("eth_uninstallFilter", json!([id])).await, true);
    assert_eq!(http.ok("eth_uninstallFilter", json!([id])).await, false);
    assert_eq!(http.fails("eth_getFilterChanges", json!([id])).await, (-32000, "filter not found".into()));
}

#[tokio::test]
async fn a_long_absence_is_told_in_instalments_without_loss_or_repetition() {
    let limits = RpcConfig { logs_blocks_max: 5, logs_results_max: 3, ..config() };
    let node = Node::start_with(limits, GWEI as u64, |_| {}).await;
    let mut http = node.http().await;
    let logs = http.ok("eth_newFilter", json!([{}])).await;
    let blocks = http.ok("eth_newBlockFilter", json!([])).await;
    // The fifth block alone holds more logs than an answer should.
    for count in [1, 2, 0, 2, 4, 0, 1, 1, 1, 1, 0, 0] {
        node.mine((0..count).map(|n| node.emit(n, 0, X)).collect());
    }
    let (mut told, mut hashes, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..6 {
        let part = heights(&changes(&mut http, &logs).await);
        answers.push(part.len());
        told.extend(part);
        hashes.extend(changes(&mut http, &blocks).await.as_array().unwrap().clone());
    }
    assert_eq!(told, [1, 2, 2, 4, 4, 5, 5, 5, 5, 7, 8, 9, 10]);
    assert!(answers.iter().all(|count| *count <= 4), "{answers:?}");
    let expected: Vec<Value> = (1..=12)
        .map(|height| json!(node.chain.record(types::Height::new(height)).unwrap().unwrap().hash))
        .collect();
    assert_eq!(hashes, expected);
}

#[tokio::test]
async fn a_filters_own_range_bounds_its_news() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let id = http.ok("eth_newFilter", json!([{"fromBlock": "0x3", "toBlock": "0x4"}])).await;
    (0..3).for_each(|_| drop(node.mine(vec![node.emit(0, 0, X)])));
    assert_eq!(heights(&changes(&mut http, &id).await), [3]);
    (0..3).for_each(|_| drop(node.mine(vec![node.emit(0, 0, X)])));
    assert_eq!(heights(&changes(&mut http, &id).await), [4]);
    assert_eq!(changes(&mut http, &id).await, json!([]));
}

#[tokio::test]
async fn a_pending_transaction_filter_tells_what_the_pool_admits() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let hashes = http.ok("eth_newPendingTransactionFilter", json!([])).await;
    let full = http.ok("eth_newPendingTransactionFilter", json!([true])).await;
    let transfer = node.transfer(0, 0);
    http.ok("eth_sendRawTransaction", raw(&transfer)).await;
    assert_eq!(changes(&mut http, &hashes).await, json!([transfer.hash()]));
    assert_eq!(changes(&mut http, &hashes).await, json!([]));
    assert_eq!(changes(&mut http, &full).await[0]["hash"], json!(transfer.hash()));
    assert_eq!(http.fails("eth_getFilterLogs", json!([hashes])).await.0, -32000);
}

#[tokio::test]
async fn filters_are_bounded() {
    let node = Node::start_with(RpcConfig { filters_max: 2, ..config() }, GWEI as u64, |_| {}).await;
    let mut http = node.http().await;
    http.ok("eth_newBlockFilter", json!([])).await;
    let id = http.ok("eth_newFilter", json!([{}])).await;
    assert_eq!(http.fails("eth_newBlockFilter", json!([])).await.0, -32005);
    http.ok("eth_uninstallFilter", json!([id])).await;
    http.ok("eth_newPendingTransactionFilter", json!([])).await;
}
