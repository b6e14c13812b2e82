//! JSON-RPC requests.

use execution_node::fuzzing::RpcBench;
use serde_json::{Value, json};
use std::sync::{LazyLock, Mutex, PoisonError};
use tempfile::TempDir;
use types::Genesis;

struct Bench {
    rpc: RpcBench,
    _directory: TempDir,
}

static BENCH: LazyLock<Mutex<Bench>> = LazyLock::new(|| {
    let directory = TempDir::new().unwrap();
    let rpc = RpcBench::open(directory.path(), genesis()).unwrap();
    Mutex::new(Bench { rpc, _directory: directory })
});

/// What a body that is JSON gets: an answer, and never "internal error". A body is either a whole request or, after
/// one byte that names the method, its parameters.
pub fn request(bytes: &[u8]) {
    let Some((selector, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let bench = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let mut methods = bench.rpc.methods();
    methods.sort_unstable();
    let body = match usize::from(*selector).checked_sub(1).and_then(|i| methods.get(i)) {
        Some(method) => format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{text}}}"#),
        None => text.to_owned(),
    };
    let Some(answer) = bench.rpc.answer(&body) else { return };
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["jsonrpc"], "2.0");
    let error = &answer["error"];
    assert_ne!(error["code"], -32603, "{body}: {error}");
    assert!(error.is_null() || error["message"].is_string());
    assert_eq!(bench.rpc.height(), 0);
}

/// One account with funds and one with code that loops.
pub fn genesis() -> Genesis {
    let secret = crypto::SecretKey::from_seed(&[7; 32]);
    let rich = execution::testing::TestKey::new(0).address();
    let genesis = json!({
        "config": {"chainId": 31337},
        "timestamp": "0x65000000",
        "gasLimit": "0x1c9c380",
        "alloc": {
            rich.to_string(): {"balance": "0xde0b6b3a7640000"},
            "0x00000000000000000000000000000000000000aa": {"balance": "0x0", "code": "0x5b600056"},
        },
        "tandem": {"validators": [{
            "address": "0x0101010101010101010101010101010101010101",
            "public_key": secret.public_key(),
            "proof_of_possession": secret.prove_possession(),
            "stake": "1000000000000000000",
        }]},
    });
    Genesis::parse(&genesis.to_string()).unwrap()
}

/// One request for each method.
pub fn seeds() -> Vec<Vec<u8>> {
    let bench = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let mut methods = bench.rpc.methods();
    methods.sort_unstable();
    let rich = execution::testing::TestKey::new(0).address();
    let call =
        format!(r#"{{"from":"{rich}","to":"0x00000000000000000000000000000000000000aa","gas":"0x5208"}}"#);
    let hash = format!("\"0x{}\"", "11".repeat(32));
    let params = |method: &str| match method {
        "eth_call" | "eth_estimateGas" | "eth_createAccessList" => format!(r#"[{call},"latest"]"#),
        "eth_getLogs" | "eth_newFilter" => {
            r#"[{"fromBlock":"0x0","toBlock":"latest","topics":[null,[]]}]"#.into()
        }
        "eth_getBlockByNumber" => r#"["latest",true]"#.into(),
        "eth_getStorageAt" => format!(r#"["{rich}","0x0","latest"]"#),
        "eth_getBalance" | "eth_getCode" | "eth_getTransactionCount" => format!(r#"["{rich}","earliest"]"#),
        "eth_feeHistory" => r#"["0x4","latest",[10,50.5]]"#.into(),
        "eth_sendRawTransaction" | "eth_sendRawTransactionSync" => r#"["0x02f8"]"#.into(),
        name if name.contains("ByHash") || name.contains("Hash") || name.contains("Receipt") => {
            format!("[{hash}]")
        }
        "eth_subscribe" => r#"["logs",{}]"#.into(),
        _ => "[]".into(),
    };
    let named = (1u8..).zip(&methods).map(|(i, method)| [vec![i], params(method).into_bytes()].concat());
    let whole = br#" {"jsonrpc":"2.0","id":"x","method":"eth_chainId"}"#.to_vec();
    named.chain([[&[0][..], &whole].concat()]).collect()
}
