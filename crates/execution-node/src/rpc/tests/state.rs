//! Accounts, calls, estimates, fees and the node's own answers.

use super::node::{CHAIN_ID, ENVIRONMENT, GWEI, Node, REVERTER, SPINNER, STORER, config, key, nope};
use alloy_primitives::{Address, B256, TxKind, U256};
use serde_json::{Value, json};

fn word(value: u64) -> Value {
    json!(B256::from(U256::from(value)))
}

fn quantity(value: &Value) -> u128 {
    u128::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

#[tokio::test]
async fn balance_nonce_code_and_storage_are_read_at_any_kept_height() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let store = |value: u64| {
        node.transaction(0, 0, |tx| {
            tx.to = TxKind::Call(STORER);
            tx.input = B256::from(U256::from(value)).0.into();
        })
    };
    let first = node.mine(vec![store(7)]);
    node.mine(vec![store(8), node.transfer(1, 0)]);
    let sender = key(0).address();
    for (block, nonce, slot) in [
        (json!("0x0"), 0, 0),
        (json!("0x1"), 1, 7),
        (json!({"blockNumber": "0x1"}), 1, 7),
        (json!({"blockHash": first.record.hash}), 1, 7),
        (json!({"blockHash": first.record.hash, "requireCanonical": true}), 1, 7),
        (json!("earliest"), 0, 0),
        (json!("latest"), 2, 8),
        (json!("pending"), 2, 8),
        (json!("safe"), 2, 8),
        (json!("finalized"), 2, 8),
        (Value::Null, 2, 8),
    ] {
        let count = http.ok("eth_getTransactionCount", json!([sender, block])).await;
        assert_eq!(count, format!("{nonce:#x}"), "{block}");
        assert_eq!(http.ok("eth_getStorageAt", json!([STORER, "0x0", block])).await, word(slot), "{block}");
    }
    assert_eq!(http.ok("eth_getBalance", json!([Address::repeat_byte(0x77), "latest"])).await, "0x1");
    assert_eq!(http.ok("eth_getBalance", json!([Address::repeat_byte(0x77), "0x1"])).await, "0x0");
    assert_eq!(http.ok("eth_getBalance", json!([Address::repeat_byte(0x99)])).await, "0x0");
    assert_eq!(http.ok("eth_getCode", json!([sender, "latest"])).await, "0x");
    let padded_slot = json!([STORER, B256::ZERO, "latest"]);
    assert_eq!(http.ok("eth_getStorageAt", padded_slot).await, word(8));
    let info = http.ok("eth_getAccountInfo", json!([Address::repeat_byte(0x77), "latest"])).await;
    assert_eq!(info, json!({"balance": "0x1", "nonce": "0x0", "code": "0x"}));
}

#[tokio::test]
async fn heights_out_of_reach_are_refused_with_the_numbers() {
    let node = Node::start_with(config(), GWEI as u64, |options| options.history_blocks = 2).await;
    let mut http = node.http().await;
    (0..6).for_each(|_| drop(node.mine(vec![node.transfer(0, 0)])));
    let (code, text) = http.fails("eth_getBalance", json!([STORER, "0x64"])).await;
    assert_eq!(code, -32000);
    assert_eq!(text, "header not found: block 100 is above the latest block 6");
    let (code, text) = http.fails("eth_getBalance", json!([STORER, "0x1"])).await;
    assert_eq!(code, -32000);
    assert!(text.starts_with("state at block 1 is not available here: this node keeps blocks "), "{text}");
    assert!(text.contains(" to 6;"), "{text}");
    let (code, text) =
        http.fails("eth_call", json!([{"to": STORER}, {"blockHash": B256::repeat_byte(3)}])).await;
    assert_eq!(code, -32000);
    assert!(text.starts_with("header for hash not found"), "{text}");
}

#[tokio::test]
async fn calls_return_data_and_see_their_block() {
    let node = Node::start().await;
    let mut http = node.http().await;
    node.mine(vec![]);
    let sender = key(0).address();
    assert_eq!(http.ok("eth_call", json!([{"to": STORER}])).await, word(0));
    let output = http.ok("eth_call", json!([{"to": ENVIRONMENT, "from": sender}, "latest"])).await;
    let word_of = |output: &Value, index: usize| {
        U256::from_str_radix(&output.as_str().unwrap()[2 + 64 * index..2 + 64 * (index + 1)], 16).unwrap()
    };
    assert_eq!(word_of(&output, 0), U256::from(1));
    assert_eq!(word_of(&output, 1), U256::from(0x6500_0000));
    assert_eq!(word_of(&output, 3), U256::from_be_slice(sender.as_slice()));
    let pending = http.ok("eth_call", json!([{"to": ENVIRONMENT}, "pending"])).await;
    assert_eq!(word_of(&pending, 0), U256::from(2));
    let overridden = json!([{"to": ENVIRONMENT}, "latest", {}, {"number": "0x63", "time": "0x64"}]);
    let output = http.ok("eth_call", overridden).await;
    assert_eq!((word_of(&output, 0), word_of(&output, 1)), (U256::from(99), U256::from(100)));
}

#[tokio::test]
async fn calls_take_state_overrides() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let seven = B256::from(U256::from(7));
    for overrides in [
        json!({STORER.to_string(): {"state": {B256::ZERO.to_string(): seven}}}),
        json!({STORER.to_string(): {"stateDiff": {B256::ZERO.to_string(): seven}}}),
    ] {
        assert_eq!(http.ok("eth_call", json!([{"to": STORER}, "latest", overrides])).await, word(7));
    }
    let poor = Address::repeat_byte(0x55);
    let rich = json!([{"from": poor, "to": STORER, "value": "0x5"}, "latest", {poor.to_string(): {"balance": "0x5"}}]);
    http.ok("eth_call", rich).await;
    let code = json!([{"to": poor}, "latest", {poor.to_string(): {"code": "0x600160005260206000f3"}}]);
    assert_eq!(http.ok("eth_call", code).await, word(1));
    let both = json!({STORER.to_string(): {"state": {}, "stateDiff": {B256::ZERO.to_string(): seven}}});
    assert_eq!(http.fails("eth_call", json!([{"to": STORER}, "latest", both])).await.0, -32602);
    let unknown = json!({STORER.to_string(): {"stat": {}}});
    assert_eq!(http.fails("eth_call", json!([{"to": STORER}, "latest", unknown])).await.0, -32602);
}

#[tokio::test]
async fn reverts_are_code_3_with_the_reason_and_the_bytes() {
    let node = Node::start().await;
    let mut http = node.http().await;
    for (method, params) in
        [("eth_call", json!([{"to": REVERTER}, "latest"])), ("eth_estimateGas", json!([{"to": REVERTER}]))]
    {
        let error = http.call(method, params).await.unwrap_err();
        assert_eq!(
            error,
            json!({"code": 3, "message": "execution reverted: nope", "data": nope()}),
            "{method}"
        );
    }
}

#[tokio::test]
async fn calls_that_cannot_be_are_refused_in_words() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let endless = http.fails("eth_call", json!([{"to": SPINNER}])).await;
    assert_eq!(endless.0, -32000);
    assert!(endless.1.contains("out of gas"), "{}", endless.1);
    let (code, _) =
        http.fails("eth_call", json!([{"to": STORER, "gasPrice": "0x1", "maxFeePerGas": "0x1"}])).await;
    assert_eq!(code, -32602);
    let poor = Address::repeat_byte(0x55);
    let (code, text) = http.fails("eth_call", json!([{"from": poor, "to": STORER, "value": "0x5"}])).await;
    assert_eq!(code, -32000);
    assert!(text.contains("insufficient funds"), "{text}");
    let (code, text) = http.fails("eth_call", json!([{"to": STORER, "chainId": "0x1"}])).await;
    assert_eq!((code, text.contains("chainId does not match")), (-32000, true));
    let (code, _) = http.fails("eth_call", json!([{"to": STORER, "data": "0x01", "input": "0x02"}])).await;
    assert_eq!(code, -32602);
    let blob = json!([{"to": STORER, "blobVersionedHashes": [B256::ZERO]}]);
    assert_eq!(http.fails("eth_call", blob).await.0, -32000);
}

#[tokio::test]
async fn estimates_suffice_and_nonces_ahead_do_not_matter() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let sender = key(0).address();
    let transfer = json!([{"from": sender, "to": Address::repeat_byte(1), "value": "0x1"}]);
    assert_eq!(http.ok("eth_estimateGas", transfer).await, "0x5208");
    let store =
        json!([{"from": sender, "to": STORER, "data": B256::repeat_byte(1), "nonce": "0x5"}, "pending"]);
    let gas = quantity(&http.ok("eth_estimateGas", store).await) as u64;
    let transaction = node.transaction(0, 0, |tx| {
        tx.to = TxKind::Call(STORER);
        tx.input = B256::repeat_byte(1).0.into();
        tx.gas_limit = gas;
    });
    assert!(node.mine(vec![transaction]).receipts[0].succeeded());
}

#[tokio::test]
async fn fees_follow_the_chain() {
    let node = Node::start().await;
    let mut http = node.http().await;
    assert_eq!(quantity(&http.ok("eth_maxPriorityFeePerGas", json!([])).await), GWEI);
    let paying = |n: u64, tip: u128| node.transaction(n, 0, |tx| tx.max_priority_fee_per_gas = tip * GWEI);
    node.mine(vec![paying(0, 3), paying(1, 5)]);
    node.mine(vec![]);
    let tip = quantity(&http.ok("eth_maxPriorityFeePerGas", json!([])).await);
    assert!((3 * GWEI..=5 * GWEI).contains(&tip), "{tip}");
    let base_fee = u128::from(node.chain.next_base_fee());
    assert_eq!(quantity(&http.ok("eth_gasPrice", json!([])).await), base_fee + tip);
    assert_eq!(quantity(&http.ok("eth_baseFee", json!([])).await), base_fee);
    assert_eq!(http.ok("eth_blobBaseFee", json!([])).await, "0x1");

    let history = http.ok("eth_feeHistory", json!(["0x5", "latest", [0, 50.0, 100]])).await;
    assert_eq!(history["oldestBlock"], "0x0");
    assert_eq!(history["baseFeePerGas"].as_array().unwrap().len(), 4);
    assert_eq!(quantity(&history["baseFeePerGas"][3]), base_fee);
    let (three, five) = (json!(format!("{:#x}", 3 * GWEI)), json!(format!("{:#x}", 5 * GWEI)));
    assert_eq!(
        history["reward"],
        json!([["0x0", "0x0", "0x0"], [three, three, five], ["0x0", "0x0", "0x0"]])
    );
    assert_eq!(history["gasUsedRatio"], json!([0.0, 42_000.0 / 60_000_000.0, 0.0]));
    // Answered from the cache the second time.
    assert_eq!(http.ok("eth_feeHistory", json!([5, "pending", [0, 50.0, 100]])).await, history);
    let without = http.ok("eth_feeHistory", json!(["2", "0x1"])).await;
    assert_eq!(without["oldestBlock"], "0x0");
    assert!(without.get("reward").is_none());
    let nothing = http.ok("eth_feeHistory", json!(["0x0", "latest", []])).await;
    assert_eq!((&nothing["oldestBlock"], &nothing["gasUsedRatio"]), (&json!("0x0"), &json!([])));
    let huge = http.ok("eth_feeHistory", json!(["0xffffffffffffffff", "latest"])).await;
    assert_eq!(huge["oldestBlock"], "0x0");
    let (code, text) = http.fails("eth_feeHistory", json!(["0x1", "0x64"])).await;
    assert_eq!((code, text.as_str()), (-32000, "request beyond head block: requested 100, head 2"));
    assert_eq!(http.fails("eth_feeHistory", json!(["0x1", "latest", [50, 10]])).await.0, -32000);
}

#[tokio::test]
async fn a_zero_fee_chain_asks_for_nothing() {
    let node = Node::start_with(config(), 0, |_| {}).await;
    let mut http = node.http().await;
    let free = node.transaction(0, 0, |tx| (tx.max_fee_per_gas, tx.max_priority_fee_per_gas) = (0, 0));
    node.mine(vec![free]);
    assert_eq!(http.ok("eth_gasPrice", json!([])).await, "0x0");
    assert_eq!(http.ok("eth_maxPriorityFeePerGas", json!([])).await, "0x0");
    let history = http.ok("eth_feeHistory", json!(["0x2", "latest", [50]])).await;
    assert_eq!(history["baseFeePerGas"], json!(["0x0", "0x0", "0x0"]));
}

#[tokio::test]
async fn the_node_introduces_itself() {
    let node = Node::start().await;
    let mut http = node.http().await;
    node.links.peers.store(3, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(http.ok("eth_chainId", json!([])).await, format!("{CHAIN_ID:#x}"));
    assert_eq!(http.ok("net_version", json!([])).await, CHAIN_ID.to_string());
    assert_eq!(http.ok("net_listening", json!([])).await, true);
    assert_eq!(http.ok("net_peerCount", json!([])).await, "0x3");
    assert_eq!(http.ok("eth_syncing", json!([])).await, false);
    assert_eq!(http.ok("eth_accounts", json!([])).await, json!([]));
    assert_eq!(http.ok("eth_blockNumber", json!([])).await, "0x0");
    let version = http.ok("web3_clientVersion", json!([])).await;
    assert!(version.as_str().unwrap().starts_with("Tandem/v"), "{version}");
    let hash = "0x47173285a8d7341e5e972fc677286384f802f8ef42a5ec5f03bbfa254cb01fad";
    assert_eq!(http.ok("web3_sha3", json!(["0x68656c6c6f20776f726c64"])).await, hash);
    let modules = http.ok("rpc_modules", json!([])).await;
    assert_eq!(modules, json!({"eth": "1.0", "net": "1.0", "rpc": "1.0", "txpool": "1.0", "web3": "1.0"}));
}
