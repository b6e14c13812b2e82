//! Sending transactions, and looking at them in the pool.

use super::{
    client::patiently,
    node::{Node, config, key, raw},
};
use crate::rpc::RpcConfig;
use alloy_primitives::B256;
use serde_json::{Value, json};

#[tokio::test]
async fn a_sent_transaction_is_pending_without_a_receipt_and_then_final() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let transfer = node.transfer(0, 0);
    let sender = key(0).address();
    assert_eq!(http.ok("eth_sendRawTransaction", raw(&transfer)).await, json!(transfer.hash()));
    let shown = http.ok("eth_getTransactionByHash", json!([transfer.hash()])).await;
    for field in ["blockHash", "blockNumber", "transactionIndex"] {
        assert_eq!(shown.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(shown["from"], json!(sender));
    assert_eq!(http.ok("eth_getTransactionReceipt", json!([transfer.hash()])).await, Value::Null);
    assert_eq!(http.ok("eth_getTransactionCount", json!([sender, "latest"])).await, "0x0");
    assert_eq!(http.ok("eth_getTransactionCount", json!([sender, "pending"])).await, "0x1");
    assert_eq!(http.ok("txpool_status", json!([])).await, json!({"pending": "0x1", "queued": "0x0"}));
    node.mine(vec![transfer.clone()]);
    assert_eq!(http.ok("eth_getTransactionReceipt", json!([transfer.hash()])).await["status"], "0x1");
    assert_eq!(http.ok("eth_getTransactionByHash", json!([transfer.hash()])).await["blockNumber"], "0x1");
    assert_eq!(http.ok("txpool_status", json!([])).await, json!({"pending": "0x0", "queued": "0x0"}));
}

#[tokio::test]
async fn refusals_have_geths_code_and_words() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let transfer = node.transfer(0, 0);
    node.mine(vec![node.transfer(1, 0)]);
    http.ok("eth_sendRawTransaction", raw(&transfer)).await;
    let cheaper = node.transaction(0, 0, |tx| tx.gas_limit = 30_000);
    let used = key(1).sign(alloy_consensus::TxEip1559 {
        chain_id: super::node::CHAIN_ID,
        gas_limit: 21_000,
        max_fee_per_gas: 100 * super::node::GWEI,
        to: alloy_primitives::TxKind::Call(key(0).address()),
        ..Default::default()
    });
    for (params, words) in [
        (raw(&transfer), "already known"),
        (raw(&cheaper), "replacement transaction underpriced"),
        (raw(&used), "nonce too low"),
        (
            raw(&node.transaction(2, 0, |tx| tx.value = alloy_primitives::U256::MAX >> 1)),
            "insufficient funds for gas * price + value",
        ),
        (raw(&node.transaction(2, 0, |tx| tx.gas_limit = 20_000)), "intrinsic gas too low"),
        (raw(&node.transaction(2, 0, |tx| tx.chain_id = 1)), "invalid chain id"),
        (json!(["0x"]), ""),
        (json!(["0x02ffff"]), ""),
        (json!(["0x7e01"]), ""),
    ] {
        let (code, text) = http.fails("eth_sendRawTransaction", params).await;
        assert_eq!(code, -32000, "{text}");
        assert!(text.contains(words), "{text} should say {words}");
    }
    for params in
        [json!([]), json!(["nonsense"]), json!(["0x123"]), json!([7]), json!([{}]), json!(["0x00", 1])]
    {
        assert_eq!(http.fails("eth_sendRawTransaction", params).await.0, -32602);
    }
}

#[tokio::test]
async fn sending_synchronously_answers_with_the_final_receipt() {
    let node = Node::start().await;
    let (mut http, mut other) = (node.http().await, node.http().await);
    let transfer = node.transfer(0, 0);
    let params = raw(&transfer);
    let waiting = tokio::spawn(async move { http.ok("eth_sendRawTransactionSync", params).await });
    patiently(async {
        while other.ok("txpool_status", json!([])).await["pending"] != "0x1" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.mine(vec![]);
    node.mine(vec![transfer.clone()]);
    let receipt = waiting.await.unwrap();
    assert_eq!(
        (&receipt["transactionHash"], &receipt["blockNumber"]),
        (&json!(transfer.hash()), &json!("0x2"))
    );
}

#[tokio::test]
async fn waiting_in_vain_says_so_and_keeps_the_transaction() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let (next, gapped) = (node.transfer(0, 0), node.transfer(1, 4));
    let error = http.call("eth_sendRawTransactionSync", json!([next.encoded(), 1])).await.unwrap_err();
    assert_eq!((&error["code"], &error["data"]), (&json!(4), &json!(next.hash())));
    let error = http.call("eth_sendRawTransactionSync", json!([gapped.encoded(), "0x1"])).await.unwrap_err();
    assert_eq!((&error["code"], &error["data"]), (&json!(6), &json!("0x0")));
    assert_eq!(http.ok("txpool_status", json!([])).await, json!({"pending": "0x1", "queued": "0x1"}));
}

#[tokio::test]
async fn waiting_callers_are_bounded() {
    let node = Node::start_with(RpcConfig { sync_send_waiting_max: 0, ..config() }, 0, |_| {}).await;
    let mut http = node.http().await;
    let (code, _) = http.fails("eth_sendRawTransactionSync", raw(&node.transfer(0, 0))).await;
    assert_eq!(code, -32005);
    assert_eq!(http.ok("txpool_status", json!([])).await["pending"], "0x0");
}

#[tokio::test]
async fn a_batch_of_transactions_reaches_the_pool_in_order() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let transfers: Vec<_> = (0..100).map(|ahead| node.transfer(0, ahead)).collect();
    let numbered = transfers.iter().enumerate();
    let calls: Vec<Value> = numbered
        .map(|(id, tx)| json!({"jsonrpc": "2.0", "id": id, "method": "eth_sendRawTransaction", "params": raw(tx)}))
        .collect();
    let answers = http.post(&json!(calls)).await.json();
    for (id, transfer) in transfers.iter().enumerate() {
        assert_eq!(answers[id], json!({"jsonrpc": "2.0", "id": id, "result": transfer.hash()}));
    }
    assert_eq!(http.ok("txpool_status", json!([])).await, json!({"pending": "0x64", "queued": "0x0"}));
}

#[tokio::test]
async fn the_pool_can_be_looked_into() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let (next, gapped) = (node.transfer(0, 0), node.transfer(1, 4));
    http.ok("eth_sendRawTransaction", raw(&next)).await;
    http.ok("eth_sendRawTransaction", raw(&gapped)).await;
    let (first, second) = (key(0).address().to_string(), key(1).address().to_string());
    let content = http.ok("txpool_content", json!([])).await;
    let sender_of = |half: &str| content[half].as_object().unwrap().keys().next().unwrap().clone();
    assert!(
        sender_of("pending").eq_ignore_ascii_case(&first)
            && sender_of("queued").eq_ignore_ascii_case(&second)
    );
    assert_eq!(content["pending"][sender_of("pending")]["0"]["hash"], json!(next.hash()));
    assert_eq!(content["queued"][sender_of("queued")]["4"]["hash"], json!(gapped.hash()));
    let from = http.ok("txpool_contentFrom", json!([second])).await;
    assert_eq!((&from["pending"], &from["queued"]["4"]["nonce"]), (&json!({}), &json!("0x4")));
    let nobody = http.ok("txpool_contentFrom", json!([alloy_primitives::Address::ZERO])).await;
    assert_eq!(nobody, json!({"pending": {}, "queued": {}}));
    let line = http.ok("txpool_inspect", json!([])).await["pending"][sender_of("pending")]["0"].clone();
    assert!(line.as_str().unwrap().ends_with(": 1 wei + 200000 gas × 100000000000 wei"), "{line}");
    assert_eq!(http.ok("eth_getBlockTransactionCountByNumber", json!(["pending"])).await, "0x1");
    assert_eq!(http.ok("eth_getTransactionByHash", json!([B256::ZERO])).await, Value::Null);
}
