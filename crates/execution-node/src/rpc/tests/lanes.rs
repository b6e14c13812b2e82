//! Lanes, access sets and strict transactions as users see them.

use super::node::{Node, STORER, key, raw};
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, B256, TxKind, U256};
use execution::{RecoveredTx, STRICT_MARKER, valid_until_word};
use serde_json::{Value, json};

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

fn store(node: &Node, n: u64, value: u64, list: &Value) -> RecoveredTx {
    let list: AccessList = serde_json::from_value(list.clone()).unwrap();
    node.transaction(n, 0, |tx| {
        tx.to = TxKind::Call(STORER);
        tx.input = B256::from(U256::from(value)).0.into();
        tx.access_list = list;
    })
}

#[tokio::test]
async fn the_lanes_of_a_block_hold_its_transactions_in_order_and_its_gas() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let sent = vec![node.transfer(0, 0), store(&node, 1, 7, &json!([])), node.transfer(2, 0)];
    let block = node.mine(sent);
    for id in [json!("0x1"), json!("latest"), json!(block.record.hash), Value::Null] {
        let lanes = http.ok("tandem_lanes", json!([id])).await;
        assert_eq!((&lanes["number"], &lanes["hash"]), (&json!("0x1"), &json!(block.record.hash)));
        let all = lanes["lanes"].as_array().unwrap();
        let segments: Vec<&Value> =
            all.iter().flat_map(|lane| lane["segments"].as_array().unwrap()).collect();
        let hashes: Vec<&Value> =
            segments.iter().flat_map(|segment| segment["transactions"].as_array().unwrap()).collect();
        let expected: Vec<Value> = block.transactions.iter().map(|tx| json!(tx.hash())).collect();
        assert_eq!(hashes, expected.iter().collect::<Vec<_>>());
        for gas in [
            number(&lanes["gasUsed"]),
            all.iter().map(|lane| number(&lane["gasUsed"])).sum(),
            segments.iter().map(|segment| number(&segment["gasUsed"])).sum(),
        ] {
            assert_eq!(gas, block.record.gas_used);
        }
        let longest = segments.iter().map(|segment| number(&segment["gasUsed"])).max();
        assert_eq!(Some(number(&lanes["longestSegmentGas"])), longest);
        let weights: u64 = all.iter().map(|lane| lane["weight"].as_u64().unwrap()).sum();
        assert!((1000 - all.len() as u64..=1000).contains(&weights), "{weights}");
        // Three senders, the recipient, the contract and its slot.
        assert_eq!(lanes["objects"], "0x6");
        assert_eq!(lanes["accessBytes"], format!("{:#x}", block.outline.len()));
    }
    assert_eq!(http.ok("tandem_lanes", json!(["0x0"])).await["lanes"], json!([]));
    assert_eq!(http.ok("tandem_lanes", json!(["0x9"])).await, Value::Null);
    assert_eq!(http.ok("tandem_lanes", json!(["pending"])).await, Value::Null);
}

#[tokio::test]
async fn the_access_set_of_a_transaction_names_objects_and_what_was_done_to_them() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let stored = store(&node, 1, 7, &json!([]));
    let block = node.mine(vec![node.transfer(0, 0), stored.clone()]);
    let answer = http.ok("tandem_accessSets", json!([stored.hash()])).await;
    let index = block.transactions.iter().position(|tx| tx.hash() == stored.hash()).unwrap();
    assert_eq!(answer["transactionIndex"], format!("{index:#x}"));
    assert_eq!((&answer["blockNumber"], &answer["blockHash"]), (&json!("0x1"), &json!(block.record.hash)));
    let lanes = http.ok("tandem_lanes", json!(["0x1"])).await;
    let (lane, segment) = (number(&answer["lane"]) as usize, number(&answer["segment"]) as usize);
    let segment = &lanes["lanes"][lane]["segments"][segment];
    assert!(segment["transactions"].as_array().unwrap().contains(&json!(stored.hash())));
    let mut expected = [
        (key(1).address(), json!({"address": key(1).address(), "kind": "write"})),
        (STORER, json!({"address": STORER, "kind": "read"})),
        (STORER, json!({"address": STORER, "slot": B256::ZERO, "kind": "write"})),
    ];
    expected.sort_by_key(|(address, _)| *address);
    let expected: Vec<Value> = expected.into_iter().map(|(_, access)| access).collect();
    assert_eq!(answer["accesses"], json!(expected));
    assert_eq!(http.ok("tandem_accessSets", json!([B256::ZERO])).await, Value::Null);
}

#[tokio::test]
async fn a_list_made_by_the_node_makes_a_strict_transaction_succeed_and_a_shorter_one_fail_with_the_reason() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let request = json!({
        "from": key(0).address(), "to": STORER, "data": B256::from(U256::from(7)),
        "accessList": [{"address": STRICT_MARKER, "storageKeys": []}],
    });
    let made = http.ok("eth_createAccessList", json!([request])).await;
    let expected = json!([
        {"address": STORER, "storageKeys": [B256::ZERO]},
        {"address": STRICT_MARKER, "storageKeys": []},
    ]);
    assert_eq!((&made["accessList"], made.get("error")), (&expected, None));
    let good = store(&node, 0, 7, &made["accessList"]);
    let bad = store(&node, 1, 7, &json!([expected[1]]));
    node.mine(vec![good.clone(), bad.clone()]);
    let receipt = http.ok("eth_getTransactionReceipt", json!([good.hash()])).await;
    assert_eq!((&receipt["status"], &receipt["gasUsed"]), (&json!("0x1"), &made["gasUsed"]));
    assert_eq!(receipt.get("tandemAbort"), None);
    let receipt = http.ok("eth_getTransactionReceipt", json!([bad.hash()])).await;
    assert_eq!((&receipt["status"], &receipt["gasUsed"]), (&json!("0x0"), &json!("0x30d40")));
    let reason = format!("strict access list: access to undeclared slot {} of {STORER}", B256::ZERO);
    let abort = json!({"reason": reason, "fault": "undeclared", "address": STORER, "slot": B256::ZERO});
    assert_eq!(receipt["tandemAbort"], abort);
    let receipts = http.ok("eth_getBlockReceipts", json!(["latest"])).await;
    assert!(receipts.as_array().unwrap().contains(&receipt));
    // The same in words, before anything is paid.
    let mut shorter = request.clone();
    shorter["to"] = json!(STORER);
    for method in ["eth_call", "eth_estimateGas"] {
        let (code, text) = http.fails(method, json!([shorter])).await;
        assert_eq!((code, text), (-32000, reason.clone()), "{method}");
    }
}

#[tokio::test]
async fn ordinary_requests_get_a_list_as_from_geth_also_when_they_fail() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let plain = json!({"from": key(0).address(), "to": Address::repeat_byte(0x77), "value": "0x1"});
    let made = http.ok("eth_createAccessList", json!([plain, "latest"])).await;
    assert_eq!(made, json!({"accessList": [], "gasUsed": "0x5208"}));
    let reverts = json!({"from": key(0).address(), "to": super::node::REVERTER});
    let made = http.ok("eth_createAccessList", json!([reverts])).await;
    assert_eq!((&made["accessList"], &made["error"]), (&json!([]), &json!("execution reverted")));
    let senseless = json!({
        "from": key(0).address(), "to": STORER,
        "accessList": [{"address": STRICT_MARKER, "storageKeys": [B256::ZERO]}],
    });
    let (code, text) = http.fails("eth_createAccessList", json!([senseless])).await;
    assert!(code == -32000 && text.contains("is no word"), "{text}");
}

#[tokio::test]
async fn a_transaction_past_its_last_height_is_refused_and_leaves_the_pool() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let list = |height| json!([{"address": STRICT_MARKER, "storageKeys": [valid_until_word(height)]}]);
    let expiring = |height| {
        let list: AccessList = serde_json::from_value(list(height)).unwrap();
        node.transaction(0, 0, |tx| tx.access_list = list)
    };
    let (code, text) = http.fails("eth_sendRawTransaction", raw(&expiring(0))).await;
    let expected = "transaction expired: it is valid until height 0, the next block has height 1";
    assert_eq!((code, text.as_str()), (-32000, expected));
    let waiting = expiring(1);
    http.ok("eth_sendRawTransaction", raw(&waiting)).await;
    node.mine(vec![]);
    assert!(!node.chain.pool().contains(&waiting.hash()));
}
