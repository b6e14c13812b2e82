//! Shapes of blocks, transactions and receipts, field by field as geth has them.

use super::node::{CHAIN_ID, EMITTER, GWEI, Node, creation_code, key, raw, storer_runtime};
use alloy_consensus::{TxEip2930, TxLegacy};
use alloy_primitives::{Address, B256, TxKind, U256};
use alloy_rpc_types_eth::{Block, TransactionReceipt};
use serde_json::{Value, json};

/// Sorted keys of an object.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn hex(value: u64) -> Value {
    json!(format!("{value:#x}"))
}

const HEADER_KEYS: [&str; 24] = [
    "baseFeePerGas",
    "blobGasUsed",
    "difficulty",
    "excessBlobGas",
    "extraData",
    "gasLimit",
    "gasUsed",
    "hash",
    "logsBloom",
    "miner",
    "mixHash",
    "nonce",
    "number",
    "parentBeaconBlockRoot",
    "parentHash",
    "receiptsRoot",
    "requestsHash",
    "sha3Uncles",
    "size",
    "stateRoot",
    "tandem",
    "timestamp",
    "transactionsRoot",
    "withdrawalsRoot",
];

fn block_keys() -> Vec<&'static str> {
    let mut keys = HEADER_KEYS.to_vec();
    keys.extend(["transactions", "uncles", "withdrawals"]);
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn a_block_has_geths_fields_and_our_own_beside_them() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let transfer = node.transfer(0, 0);
    let mined = node.mine(vec![transfer.clone()]);
    let record = &mined.record;
    let block = http.ok("eth_getBlockByNumber", json!(["latest", false])).await;
    assert_eq!(keys(&block), block_keys());
    let expected = json!({
        "number": "0x1",
        "hash": record.hash,
        "parentHash": record.parent_hash,
        "stateRoot": record.state_hash,
        "receiptsRoot": record.receipts_hash,
        "transactionsRoot": record.payload_commitment,
        "mixHash": record.prevrandao,
        "miner": Address::repeat_byte(0xfe),
        "gasUsed": "0x5208",
        "gasLimit": "0x3938700",
        "timestamp": "0x65000000",
        "difficulty": "0x0",
        "nonce": "0x0000000000000000",
        "extraData": "0x",
        "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
        "withdrawalsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
        "requestsHash": "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "baseFeePerGas": hex(record.base_fee),
        "size": hex(record.size),
        "transactions": [transfer.hash()],
        "uncles": [],
        "withdrawals": [],
        "tandem": {"timestampMs": hex(record.timestamp_ms), "view": "0x6", "proposer": "0x2"},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&block[field], value, "{field}");
    }
    // Rust tools parse it with these types.
    let parsed: Block = serde_json::from_value(block.clone()).unwrap();
    assert_eq!(parsed.header.hash, record.hash);
    for (method, id) in [
        ("eth_getBlockByNumber", json!("0x1")),
        ("eth_getBlockByNumber", json!("safe")),
        ("eth_getBlockByNumber", json!("finalized")),
        ("eth_getBlockByHash", json!(record.hash)),
    ] {
        assert_eq!(http.ok(method, json!([id, false])).await, block, "{method} {id}");
    }
    let header = http.ok("eth_getHeaderByHash", json!([record.hash])).await;
    assert_eq!(keys(&header), HEADER_KEYS);
    assert_eq!(http.ok("eth_getHeaderByNumber", json!(["0x1"])).await, header);
}

#[tokio::test]
async fn full_blocks_hold_whole_transactions() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let (first, second) = (node.transfer(0, 0), node.transfer(1, 0));
    let mined = node.mine(vec![first.clone(), second.clone()]);
    let block = http.ok("eth_getBlockByHash", json!([mined.record.hash, true])).await;
    assert_eq!(keys(&block), block_keys());
    assert_eq!(block["transactions"].as_array().unwrap().len(), 2);
    let transaction = &block["transactions"][1];
    let mut fields = keys(transaction);
    // Newer clients add it, older ones do not have it.
    fields.retain(|field| *field != "blockTimestamp");
    let expected_fields = [
        "accessList",
        "blockHash",
        "blockNumber",
        "chainId",
        "from",
        "gas",
        "gasPrice",
        "hash",
        "input",
        "maxFeePerGas",
        "maxPriorityFeePerGas",
        "nonce",
        "r",
        "s",
        "to",
        "transactionIndex",
        "type",
        "v",
        "value",
        "yParity",
    ];
    assert_eq!(fields, expected_fields);
    let expected = json!({
        "hash": second.hash(),
        "from": key(1).address(),
        "blockHash": mined.record.hash,
        "blockNumber": "0x1",
        "transactionIndex": "0x1",
        "type": "0x2",
        "chainId": hex(CHAIN_ID),
        "nonce": "0x0",
        "input": "0x",
        "value": "0x1",
        "gasPrice": hex(2 * GWEI as u64),
        "maxFeePerGas": hex(100 * GWEI as u64),
        "accessList": [],
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&transaction[field], value, "{field}");
    }
    let by_index = json!(["0x1", "0x1"]);
    assert_eq!(&http.ok("eth_getTransactionByBlockNumberAndIndex", by_index).await, transaction);
    let by_index = json!([mined.record.hash, "0x1"]);
    assert_eq!(&http.ok("eth_getTransactionByBlockHashAndIndex", by_index).await, transaction);
    assert_eq!(&http.ok("eth_getTransactionByHash", json!([second.hash()])).await, transaction);
    assert_eq!(http.ok("eth_getRawTransactionByHash", json!([second.hash()])).await, raw(&second)[0]);
    serde_json::from_value::<Block>(block.clone()).unwrap();
}

#[tokio::test]
async fn unknown_things_are_null_and_not_errors() {
    let node = Node::start().await;
    let mut http = node.http().await;
    node.mine(vec![]);
    let nowhere = B256::repeat_byte(9);
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["0x64", false])),
        ("eth_getBlockByNumber", json!(["0xffffffffffffffff", true])),
        ("eth_getBlockByHash", json!([nowhere, false])),
        ("eth_getHeaderByNumber", json!(["0x64"])),
        ("eth_getTransactionByHash", json!([nowhere])),
        ("eth_getTransactionReceipt", json!([nowhere])),
        ("eth_getBlockReceipts", json!(["0x64"])),
        ("eth_getBlockReceipts", json!([nowhere])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["0x1", "0x0"])),
        ("eth_getTransactionByBlockHashAndIndex", json!([nowhere, "0x0"])),
        ("eth_getBlockTransactionCountByNumber", json!(["0x64"])),
        ("eth_getBlockTransactionCountByHash", json!([nowhere])),
        ("eth_getUncleByBlockNumberAndIndex", json!(["0x1", "0x0"])),
        ("eth_getUncleByBlockHashAndIndex", json!([nowhere, "0x0"])),
        ("eth_getUncleCountByBlockHash", json!([nowhere])),
    ] {
        assert_eq!(http.ok(method, params).await, Value::Null, "{method}");
    }
    assert_eq!(http.ok("eth_getUncleCountByBlockNumber", json!(["0x1"])).await, "0x0");
    assert_eq!(http.ok("eth_getBlockTransactionCountByNumber", json!(["latest"])).await, "0x0");
}

#[tokio::test]
async fn genesis_is_block_zero() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let block = http.ok("eth_getBlockByNumber", json!(["earliest", true])).await;
    assert_eq!((&block["number"], &block["transactions"]), (&json!("0x0"), &json!([])));
    assert_eq!(block["hash"], json!(node.chain.genesis_hash()));
    assert_eq!(block["baseFeePerGas"], hex(GWEI as u64));
    assert_eq!(http.ok("eth_getBlockByHash", json!([node.chain.genesis_hash(), true])).await, block);
    assert_eq!(http.ok("eth_getBlockByNumber", json!(["latest", true])).await, block);
}

#[tokio::test]
async fn the_pending_block_is_the_next_one_without_an_identity() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let mined = node.mine(vec![]);
    let block = http.ok("eth_getBlockByNumber", json!(["pending", false])).await;
    for field in ["hash", "miner", "nonce"] {
        assert_eq!(block[field], Value::Null, "{field}");
    }
    assert_eq!((&block["number"], &block["parentHash"]), (&json!("0x2"), &json!(mined.record.hash)));
    assert_eq!(block["baseFeePerGas"], hex(node.chain.next_base_fee()));
}

#[tokio::test]
async fn receipts_have_geths_fields_and_logs_are_numbered_through_the_block() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let topic = B256::repeat_byte(5);
    let transactions = vec![node.emit(0, 0, topic), node.transfer(1, 0), node.emit(2, 0, topic)];
    let mined = node.mine(transactions.clone());
    let receipt = http.ok("eth_getTransactionReceipt", json!([transactions[2].hash()])).await;
    let expected_fields = [
        "blockHash",
        "blockNumber",
        "contractAddress",
        "cumulativeGasUsed",
        "effectiveGasPrice",
        "from",
        "gasUsed",
        "logs",
        "logsBloom",
        "status",
        "to",
        "transactionHash",
        "transactionIndex",
        "type",
    ];
    assert_eq!(keys(&receipt), expected_fields);
    let gas_used = mined.receipts[2].gas_used;
    let expected = json!({
        "blockHash": mined.record.hash,
        "blockNumber": "0x1",
        "contractAddress": null,
        "cumulativeGasUsed": hex(mined.record.gas_used),
        "effectiveGasPrice": hex(2 * GWEI as u64),
        "from": key(2).address(),
        "gasUsed": hex(gas_used),
        "status": "0x1",
        "to": EMITTER,
        "transactionHash": transactions[2].hash(),
        "transactionIndex": "0x2",
        "type": "0x2",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&receipt[field], value, "{field}");
    }
    let log = &receipt["logs"][0];
    let expected = json!({
        "address": EMITTER,
        "topics": [topic],
        "data": B256::from(U256::from(1)),
        "blockHash": mined.record.hash,
        "blockNumber": "0x1",
        "blockTimestamp": "0x65000000",
        "transactionHash": transactions[2].hash(),
        "transactionIndex": "0x2",
        "logIndex": "0x1",
        "removed": false,
    });
    assert_eq!(log, &expected);
    let all = http.ok("eth_getBlockReceipts", json!(["latest"])).await;
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!(all[2], receipt);
    assert_eq!(http.ok("eth_getBlockReceipts", json!([{"blockHash": mined.record.hash}])).await, all);
    serde_json::from_value::<TransactionReceipt>(receipt).unwrap();
}

#[tokio::test]
async fn creations_and_failures_show_in_their_receipts() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let create = node.transaction(0, 0, |tx| {
        tx.to = TxKind::Create;
        tx.input = creation_code(storer_runtime());
    });
    let failing = node.transaction(1, 0, |tx| tx.to = TxKind::Call(super::node::REVERTER));
    node.mine(vec![create.clone(), failing.clone()]);
    let receipt = http.ok("eth_getTransactionReceipt", json!([create.hash()])).await;
    let contract = key(0).address().create(0);
    assert_eq!((&receipt["to"], &receipt["contractAddress"]), (&Value::Null, &json!(contract)));
    assert_eq!(
        http.ok("eth_getCode", json!([contract, "latest"])).await,
        format!("0x{}", alloy_primitives::hex::encode(storer_runtime()))
    );
    let receipt = http.ok("eth_getTransactionReceipt", json!([failing.hash()])).await;
    assert_eq!((&receipt["status"], &receipt["logs"]), (&json!("0x0"), &json!([])));
    let transaction = http.ok("eth_getTransactionByHash", json!([create.hash()])).await;
    assert_eq!(transaction["to"], Value::Null);
}

#[tokio::test]
async fn older_transaction_types_keep_their_shape() {
    let node = Node::start().await;
    let mut http = node.http().await;
    let to = TxKind::Call(Address::repeat_byte(1));
    let legacy = key(0).sign_legacy(TxLegacy {
        chain_id: Some(CHAIN_ID),
        gas_price: 5 * GWEI,
        gas_limit: 21_000,
        to,
        ..Default::default()
    });
    let listed = key(1).sign_eip2930(TxEip2930 {
        chain_id: CHAIN_ID,
        gas_price: 5 * GWEI,
        gas_limit: 30_000,
        to,
        ..Default::default()
    });
    node.mine(vec![legacy.clone(), listed.clone()]);
    let shown = http.ok("eth_getTransactionByHash", json!([legacy.hash()])).await;
    assert_eq!((&shown["type"], &shown["gasPrice"]), (&json!("0x0"), &hex(5 * GWEI as u64)));
    assert!(shown.get("maxFeePerGas").is_none() && shown.get("accessList").is_none());
    let v = u64::from_str_radix(shown["v"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    assert!(v == CHAIN_ID * 2 + 35 || v == CHAIN_ID * 2 + 36);
    let shown = http.ok("eth_getTransactionByHash", json!([listed.hash()])).await;
    assert_eq!((&shown["type"], &shown["accessList"]), (&json!("0x1"), &json!([])));
    let receipt = http.ok("eth_getTransactionReceipt", json!([legacy.hash()])).await;
    assert_eq!((&receipt["type"], &receipt["effectiveGasPrice"]), (&json!("0x0"), &hex(5 * GWEI as u64)));
}
