//! What is pushed over WebSockets.

use super::{
    client::{Ws, patiently},
    node::{EMITTER, GWEI, Node, config, raw},
};
use crate::rpc::RpcConfig;
use alloy_primitives::B256;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

const X: B256 = B256::repeat_byte(0xaa);
const Y: B256 = B256::repeat_byte(0xbb);

#[tokio::test]
async fn calls_and_batches_work_over_websocket() {
    let node = Node::start().await;
    let mut ws = Ws::connect(node.rpc.address()).await;
    assert_eq!(ws.call("eth_chainId", json!([])).await.unwrap(), "0x7a69");
    assert_eq!(ws.call("eth_nothing", json!([])).await.unwrap_err()["code"], -32601);
    ws.send("nonsense").await;
    assert_eq!(ws.receive().await.unwrap()["error"]["code"], -32700);
    ws.send(r#"[{"jsonrpc":"2.0","id":1,"method":"eth_chainId"},{"jsonrpc":"2.0","id":2,"method":"x"}]"#)
        .await;
    let answers = ws.receive().await.unwrap();
    assert_eq!((&answers[0]["result"], &answers[1]["error"]["code"]), (&json!("0x7a69"), &json!(-32601)));
}

#[tokio::test]
async fn every_final_block_is_pushed_in_order() {
    let node = Node::start().await;
    let mut ws = Ws::connect(node.rpc.address()).await;
    node.mine(vec![]);
    let id = ws.subscribe(json!(["newHeads"])).await;
    assert!(id.starts_with("0x"), "{id}");
    let mut http = node.http().await;
    for _ in 0..50 {
        node.mine(vec![]);
    }
    for height in 2..=51_u64 {
        let header = ws.next(&id).await;
        assert_eq!(header["number"], format!("{height:#x}"));
        assert!(header.get("transactions").is_none());
        assert_eq!(header, http.ok("eth_getHeaderByNumber", json!([format!("{height:#x}")])).await);
    }
    assert_eq!(ws.call("eth_unsubscribe", json!([id])).await.unwrap(), true);
    assert_eq!(ws.call("eth_unsubscribe", json!([id])).await.unwrap(), false);
    node.mine(vec![]);
    assert_eq!(ws.call("eth_blockNumber", json!([])).await.unwrap(), "0x34");
}

#[tokio::test]
async fn matching_logs_are_pushed_in_order() {
    let node = Node::start().await;
    let mut ws = Ws::connect(node.rpc.address()).await;
    let id = ws.subscribe(json!(["logs", {"address": EMITTER, "topics": [X]}])).await;
    let mut all = Ws::connect(node.rpc.address()).await;
    let all_id = all.subscribe(json!(["logs"])).await;
    node.mine(vec![node.emit(0, 0, X), node.emit(1, 0, Y), node.emit(2, 0, X)]);
    node.mine(vec![node.transfer(0, 0)]);
    node.mine(vec![node.emit(0, 0, X)]);
    let mut http = node.http().await;
    let expected = http.ok("eth_getLogs", json!([{"fromBlock": "0x0", "topics": [X]}])).await;
    for log in expected.as_array().unwrap() {
        assert_eq!(&ws.next(&id).await, log);
    }
    for topic in [X, Y, X, X] {
        assert_eq!(all.next(&all_id).await["topics"], json!([topic]));
    }
}

#[tokio::test]
async fn admitted_transactions_are_pushed() {
    let node = Node::start().await;
    let (mut hashes, mut full) =
        (Ws::connect(node.rpc.address()).await, Ws::connect(node.rpc.address()).await);
    let hashes_id = hashes.subscribe(json!(["newPendingTransactions"])).await;
    let full_id = full.subscribe(json!(["newPendingTransactions", true])).await;
    let transfer = node.transfer(0, 0);
    node.http().await.ok("eth_sendRawTransaction", raw(&transfer)).await;
    assert_eq!(hashes.next(&hashes_id).await, json!(transfer.hash()));
    let shown = full.next(&full_id).await;
    assert_eq!((&shown["hash"], &shown["blockHash"]), (&json!(transfer.hash()), &Value::Null));
}

#[tokio::test]
async fn wrong_subscriptions_are_refused() {
    let limits = RpcConfig { connection_subscriptions_max: 1, ..config() };
    let node = Node::start_with(limits, GWEI as u64, |_| {}).await;
    let mut ws = Ws::connect(node.rpc.address()).await;
    for params in [json!([]), json!(["syncing"]), json!(["logs", {"address": 7}]), json!([1]), json!({})] {
        let error = ws.call("eth_subscribe", params.clone()).await.unwrap_err();
        assert_eq!(error["code"], -32602, "{params}: {error}");
    }
    ws.subscribe(json!(["newHeads"])).await;
    assert_eq!(ws.call("eth_subscribe", json!(["newHeads"])).await.unwrap_err()["code"], -32006);
    let (code, text) = node.http().await.fails("eth_subscribe", json!(["newHeads"])).await;
    assert_eq!((code, text.starts_with("notifications not supported")), (-32601, true));
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_loses_its_connection() {
    let limits = RpcConfig { connection_messages_max: 4, subscriber_stall_ms_max: 50, ..config() };
    let node = Node::start_with(limits, GWEI as u64, |_| {}).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let stream = socket.connect(node.rpc.address()).await.unwrap();
    let mut ws = Ws::over(stream).await;
    let id = ws.subscribe(json!(["newHeads"])).await;
    // Heads are pushed until the sockets' buffers and the queue are full and the stall time is over.
    patiently(async {
        while node.links.metrics.subscribers_dropped() == 0 {
            node.mine(vec![]);
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut height = 0;
    while let Some(message) = ws.receive().await {
        height += 1;
        assert_eq!(message["params"]["subscription"], id);
        assert_eq!(message["params"]["result"]["number"], format!("{height:#x}"), "in order up to the end");
    }
    assert!(height < node.chain.height().get());
}

#[tokio::test]
async fn a_client_that_does_not_read_answers_is_not_read_from() {
    let node =
        Node::start_with(RpcConfig { connection_messages_max: 4, ..config() }, GWEI as u64, |_| {}).await;
    let transactions = (0..3).flat_map(|n| (0..200).map(move |ahead| (n, ahead)));
    node.mine(transactions.map(|(n, ahead)| node.transfer(n, ahead)).collect());
    let mut ws = Ws::connect(node.rpc.address()).await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": ["0x1", true]});
    // Large requests with large answers: a server that reads on takes them all at once. They are more than
    // the operating system's own buffers take.
    let padded = format!("{call}{}", " ".repeat(100_000));
    let flood = async {
        for _ in 0..600 {
            ws.send_without_patience(&padded).await;
        }
    };
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(2), flood).await.is_err(),
        "all requests were read"
    );
    assert_eq!(node.http().await.ok("eth_blockNumber", json!([])).await, "0x1");
}
