//! The server itself: bodies, batches, hosts, origins, limits, start and stop.

use super::{
    client::{Http, Ws, patiently},
    node::{GWEI, Node, SPINNER, config},
};
use crate::rpc::{RpcConfig, RpcLinks, RpcStartError, serve};
use serde_json::{Value, json};

const CHAIN_ID_CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;

#[tokio::test]
async fn garbage_gets_an_error_and_the_connection_lives_on() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let deep = format!("[{}", "[".repeat(100_000));
    for (body, code) in [
        (&b"nonsense"[..], -32700),
        (b"", -32700),
        (b"{", -32700),
        (b"[", -32700),
        (b"\xff\xfe\x00", -32700),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_chainId\"", -32700),
        (b"{}", -32700),
        (b"{\"id\":1}", -32600),
        (b"[]", -32600),
        (b"{\"id\":1,\"method\":\"eth_chainId\"}", -32600),
        (b"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"eth_chainId\"}", -32600),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", -32600),
        (deep.as_bytes(), -32700),
    ] {
        let reply = http.post_bytes(body).await;
        let text = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert!(matches!(reply.status, 200 | 400), "{text}");
        assert_eq!(reply.json()["error"]["code"], code, "{text}");
        assert_eq!(http.ok("eth_chainId", json!([])).await, "0x7a69", "after {text}");
    }
}

#[tokio::test]
async fn a_request_whose_id_cannot_be_echoed_is_told_so() {
    let node = Node::start().await;
    let mut http = node.http().await;
    for id in [json!(-1), json!(1.5), json!(1e30), json!(true), json!({})] {
        let reply = http.post(&json!({"jsonrpc": "2.0", "id": id, "method": "eth_chainId"})).await.json();
        assert_eq!((&reply["id"], &reply["error"]["code"]), (&Value::Null, &json!(-32600)), "{id}");
        assert!(
            reply["error"]["message"].as_str().unwrap().starts_with("request was not executed"),
            "{reply}"
        );
    }
    assert_eq!(node.links.metrics.requests("eth_chainId", "ok"), 0);
}

#[tokio::test]
async fn unknown_methods_and_wrong_parameters_have_their_codes() {
    let node = Node::start().await;
    let mut http = node.http().await;
    for method in ["anvil_nodeInfo", "hardhat_metadata", "eth_fillTransaction", "", "eth_chainid", "\u{0}"] {
        assert_eq!(http.fails(method, json!([])).await.0, -32601, "{method}");
    }
    for (method, params) in [
        ("eth_chainId", json!([1])),
        ("eth_getBalance", json!([])),
        ("eth_getBalance", json!(["0x1"])),
        ("eth_getBalance", json!([node.chain.genesis_hash()])),
        ("eth_getBlockByNumber", json!([1, false])),
        ("eth_getBlockByNumber", json!(["1", false])),
        ("eth_getBlockByNumber", json!(["newest", false])),
        ("eth_getBlockByNumber", json!(["0x1ffffffffffffffff", false])),
        ("eth_getBlockByNumber", json!(["latest", "yes"])),
        ("eth_getBlockByNumber", json!(["latest", false, 1])),
        ("eth_getBlockByNumber", json!({"block": "latest"})),
        ("eth_getTransactionReceipt", json!(["0x12"])),
        ("eth_call", json!(["0x12"])),
        ("eth_call", json!([{"to": "0x12"}])),
        ("eth_feeHistory", json!(["many", "latest"])),
        ("eth_uninstallFilter", json!([])),
    ] {
        let (code, text) = http.fails(method, params.clone()).await;
        assert_eq!(code, -32602, "{method} {params}: {text}");
    }
    assert_eq!(node.links.metrics.requests("unknown", "error"), 6);
    assert_eq!(node.links.metrics.requests("eth_getBalance", "invalid"), 3);
    http.ok("eth_chainId", json!([])).await;
    assert_eq!(node.links.metrics.requests("eth_chainId", "ok"), 1);
}

#[tokio::test]
async fn batches_are_answered_entry_by_entry() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let reply = http
        .post(&json!([
            {"jsonrpc": "2.0", "id": 7, "method": "eth_chainId"},
            {"jsonrpc": "2.0", "id": "eight", "method": "eth_getBalance", "params": []},
            {"jsonrpc": "2.0", "method": "eth_chainId"},
            {"jsonrpc": "2.0", "id": 9, "method": "nothing"},
            42,
            {"jsonrpc": "2.0", "id": 10, "method": "eth_call", "params": [{"to": super::node::REVERTER}]},
        ]))
        .await;
    let answers = reply.json();
    let of = |index: usize| (&answers[index]["id"], &answers[index]["error"]["code"]);
    assert_eq!(answers.as_array().unwrap().len(), 5);
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": 7, "result": "0x7a69"}));
    assert_eq!(of(1), (&json!("eight"), &json!(-32602)));
    assert_eq!(of(2), (&json!(9), &json!(-32601)));
    assert_eq!(of(3), (&Value::Null, &json!(-32600)));
    assert_eq!(of(4), (&json!(10), &json!(3)));
    assert_eq!(node.links.metrics.requests("eth_chainId", "ok"), 1);
}

#[tokio::test]
async fn large_batches_and_bodies_are_refused_and_the_connection_lives_on() {
    let limits = RpcConfig { batch_calls_max: 3, request_bytes_max: 2_000, ..config() };
    let node = Node::start_with(limits, GWEI as u64, |_| {}).await;
    let mut http = node.http().await;
    let call: Value = serde_json::from_str(CHAIN_ID_CALL).unwrap();
    assert_eq!(http.post(&json!(vec![&call; 3])).await.json().as_array().unwrap().len(), 3);
    let reply = http.post(&json!(vec![&call; 4])).await.json();
    assert_eq!(reply["error"]["code"], -32010);
    let reply = http.post_bytes(&vec![b' '; 1_000_000]).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (413, &json!(-32007)));
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("at most 2000"));
    assert_eq!(http.ok("eth_chainId", json!([])).await, "0x7a69");
    let mut ws = Ws::connect(node.rpc.address()).await;
    ws.send(&" ".repeat(3_000)).await;
    assert_eq!(ws.receive().await.unwrap()["error"]["code"], -32007);
    // A body of unknown length is cut off at the limit.
    let head =
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked";
    let mut other = node.http().await;
    let body = format!("{:x}\r\n{{{}\r\n0\r\n\r\n", 2_101, " ".repeat(2_100));
    let reply = other.exchange(head, body.as_bytes()).await;
    assert!(matches!(reply.status, 413 | 500), "{}", reply.head);
}

#[tokio::test]
async fn large_answers_are_refused_instead_of_sent() {
    let node =
        Node::start_with(RpcConfig { response_bytes_max: 2_000, ..config() }, GWEI as u64, |_| {}).await;
    let mut http = node.http().await;
    node.mine((0..40).map(|ahead| node.transfer(0, ahead)).collect());
    assert_eq!(http.fails("eth_getBlockByNumber", json!(["0x1", true])).await.0, -32008);
    let call: Value = serde_json::from_str(CHAIN_ID_CALL).unwrap();
    assert_eq!(http.post(&json!(vec![call; 200])).await.json()["error"]["code"], -32011);
}

#[tokio::test]
async fn only_known_hosts_and_origins_are_served() {
    let limits = RpcConfig { cors_origins: vec!["http://localhost:3000".into()], ..config() };
    let node = Node::start_with(limits, GWEI as u64, |_| {}).await;
    let length = CHAIN_ID_CALL.len();
    let head = |extra: &str| {
        format!("POST / HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{extra}")
    };
    let mut http = node.http().await;
    for (extra, status) in [
        ("host: localhost:8545", 200),
        ("host: 127.0.0.1:8545", 200),
        ("host: [::1]:8545", 200),
        ("host: evil.example", 403),
        ("host: evil.example:8545", 403),
    ] {
        assert_eq!(http.exchange(&head(extra), CHAIN_ID_CALL.as_bytes()).await.status, status, "{extra}");
    }
    let mut http = node.http().await;
    let allowed = http
        .exchange(&head("host: localhost\r\norigin: http://localhost:3000"), CHAIN_ID_CALL.as_bytes())
        .await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some("http://localhost:3000"));
    let foreign = http
        .exchange(&head("host: localhost\r\norigin: http://evil.example"), CHAIN_ID_CALL.as_bytes())
        .await;
    assert_eq!(foreign.header("access-control-allow-origin"), None);

    let preflight = "OPTIONS / HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost:3000\r\n\
        access-control-request-method: POST\r\naccess-control-request-headers: content-type";
    let reply = http.exchange(preflight, b"").await;
    assert_eq!((reply.status, reply.header("access-control-allow-headers")), (204, Some("content-type")));
    assert!(reply.header("access-control-allow-methods").unwrap().contains("POST"));

    let upgrade = |origin: &str| {
        format!(
            "GET / HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
        )
    };
    assert_eq!(node.http().await.exchange(&upgrade("http://evil.example"), b"").await.status, 403);
    assert_eq!(node.http().await.exchange(&upgrade("http://localhost:3000"), b"").await.status, 101);
}

#[tokio::test]
async fn other_http_requests_get_a_plain_answer() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let reply = http.exchange("GET / HTTP/1.1\r\nhost: localhost", b"").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        http.exchange("PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0", b"").await.status,
        405
    );
    let text = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 2";
    assert_eq!(http.exchange(text, b"{}").await.status, 415);
    let mut garbage = node.http().await;
    let reply = garbage.exchange("\u{1}\u{2} nonsense", b"").await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_places_come_free_again() {
    let node = Node::start_with(RpcConfig { connections_max: 2, ..config() }, GWEI as u64, |_| {}).await;
    let mut first = node.http().await;
    first.ok("eth_chainId", json!([])).await;
    let mut ws = Ws::connect(node.rpc.address()).await;
    ws.call("eth_chainId", json!([])).await.unwrap();
    assert!(node.http().await.closed().await);
    drop(first);
    patiently(async {
        // The server notices the closed connection in its own time.
        while !matches!(node.try_chain_id().await, Some(id) if id == "0x7a69") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ws.call("eth_chainId", json!([])).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let node = Node::start().await;
    let address = node.rpc.address();
    let error =
        serve(node.chain.clone(), RpcConfig { address, ..config() }, RpcLinks::default()).await.unwrap_err();
    assert!(matches!(error, RpcStartError::Bind { .. }));
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("another program has this port"), "{text}");
    let wrong = RpcConfig { batch_calls_max: 0, ..config() };
    let error = serve(node.chain.clone(), wrong, RpcLinks::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "rpc.batch_calls_max is 0, must be from 1 to 1000000");
}

#[tokio::test]
async fn stopping_closes_connections_and_frees_the_port() {
    let node = Node::start().await;
    let (mut http, mut ws) = (node.http().await, Ws::connect(node.rpc.address()).await);
    http.ok("eth_chainId", json!([])).await;
    ws.subscribe(json!(["newHeads"])).await;
    let (chain, address) = (node.chain.clone(), node.rpc.address());
    patiently(node.rpc.stop()).await;
    assert!(http.closed().await);
    assert!(ws.receive().await.is_none());
    let again = serve(chain, RpcConfig { address, ..config() }, RpcLinks::default()).await.unwrap();
    assert_eq!(Http::connect(again.address()).await.ok("eth_chainId", json!([])).await, "0x7a69");
}

#[tokio::test]
async fn expensive_calls_do_not_hold_up_cheap_ones_and_surplus_is_refused() {
    let limits =
        RpcConfig { heavy_calls_max: 1, heavy_waiting_max: 0, call_gas_max: 1_000_000_000, ..config() };
    let node = Node::start_with(limits, GWEI as u64, |_| {}).await;
    let (mut busy, mut http) = (node.http().await, node.http().await);
    let endless = tokio::spawn(async move { busy.fails("eth_call", json!([{"to": SPINNER}])).await });
    let refused = patiently(async {
        loop {
            assert_eq!(http.ok("eth_blockNumber", json!([])).await, "0x0");
            let error = http.call("eth_call", json!([{"to": super::node::STORER}])).await.err();
            match error {
                Some(error) => break error,
                None if endless.is_finished() => panic!("the long call ended too early"),
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert_eq!(refused["code"], -32005);
    assert_eq!(endless.await.unwrap().0, -32000);
}

/// Every method and what it is asked for; the answers do not matter, as long as there is one.
const METHODS: [&str; 50] = [
    "eth_accounts",
    "eth_baseFee",
    "eth_blobBaseFee",
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_gasPrice",
    "eth_getAccountInfo",
    "eth_getBalance",
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getBlockTransactionCountByHash",
    "eth_getBlockTransactionCountByNumber",
    "eth_getCode",
    "eth_getFilterChanges",
    "eth_getFilterLogs",
    "eth_getHeaderByHash",
    "eth_getHeaderByNumber",
    "eth_getLogs",
    "eth_getRawTransactionByHash",
    "eth_getStorageAt",
    "eth_getTransactionByBlockHashAndIndex",
    "eth_getTransactionByBlockNumberAndIndex",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_getUncleByBlockHashAndIndex",
    "eth_getUncleByBlockNumberAndIndex",
    "eth_getUncleCountByBlockHash",
    "eth_getUncleCountByBlockNumber",
    "eth_maxPriorityFeePerGas",
    "eth_newBlockFilter",
    "eth_newFilter",
    "eth_newPendingTransactionFilter",
    "eth_sendRawTransaction",
    "eth_sendRawTransactionSync",
    "eth_subscribe",
    "eth_syncing",
    "eth_uninstallFilter",
    "eth_unsubscribe",
    "net_listening",
    "rpc_modules",
    "txpool_content",
    "txpool_contentFrom",
    "txpool_inspect",
    "txpool_status",
    "web3_sha3",
];

#[tokio::test]
async fn no_parameters_break_a_method() {
    let node = Node::start().await;
    node.mine(vec![node.transfer(0, 0)]);
    let word = alloy_primitives::B256::repeat_byte(0xff);
    let values = [
        json!(null),
        json!(""),
        json!("0x"),
        json!("0xffffffffffffffff"),
        json!("earliest"),
        json!("pending"),
        json!(word),
        json!(super::node::STORER),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(true),
        json!([]),
        json!([[[]], null, 99.9]),
        json!({}),
        json!({"blockHash": word, "blockNumber": "0x0"}),
        json!({"fromBlock": "0x0", "toBlock": "0xffffffffffffffff", "topics": [null, [null]]}),
        json!({"from": super::node::STORER, "to": null, "gas": "0xffffffffffffffff", "value": word, "input": "0xfe"}),
        json!({"to": super::node::STORER, "gasPrice": "0xffffffffffffffffffffffffffffffff", "nonce": "0xffffffffffffffff"}),
    ];
    let mut http = node.http().await;
    for method in METHODS {
        for first in &values {
            for rest in [json!([]), json!(["latest"]), json!(["0x1", "0x0"]), json!([1, {}, {}])] {
                let mut params = vec![first.clone()];
                params.extend(rest.as_array().unwrap().iter().cloned());
                if let Err(error) = http.call(method, json!(params)).await {
                    assert!(error["code"].as_i64() != Some(-32603), "{method} {params:?}: {error}");
                }
            }
        }
    }
}
