//! A network of separate processes whose validators come, go and change keys, by transactions to the registry.
#![allow(clippy::unwrap_used)]

mod support;

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use alloy_sol_types::SolCall;
use crypto::SecretKey;
use execution::testing::TestKey;
use serde_json::{Value, json};
use staking::{REGISTRY, abi::IValidatorRegistry as abi};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{TANDEM, eventually, json_rpc};
use tempfile::TempDir;

const CHAIN: u64 = 4711;
const EPOCH: u64 = 8;
const COIN: u128 = 1_000_000_000_000_000_000;
const NODES: usize = 5;

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[100 + n; 32])
}

fn account(n: usize) -> TestKey {
    TestKey::new(n as u64)
}

/// Nodes 0 to 3 are the first validators, the first with more than a third of the stake; node 4 follows at first.
struct Network {
    dir: TempDir,
    offset: u16,
    processes: Vec<[Option<Child>; 2]>,
}

impl Network {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let offset = free_offset();
        std::fs::write(dir.path().join("genesis.json"), genesis().to_string()).unwrap();
        let mut network = Self { dir, offset, processes: Vec::new() };
        for node in 0..NODES {
            network.init(node);
            network.processes.push([None, None]);
            network.run(node);
        }
        network
    }

    fn path(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node-{node}"))
    }

    fn init(&self, node: usize) {
        let key_file = self.dir.path().join(format!("key-{node}.json"));
        consensus_node::write_key(&key_file, &key(node as u8)).unwrap();
        let mut command = Command::new(TANDEM);
        command.args(["init", "--listen", "127.0.0.1", "--port-offset", &self.port(0, node).to_string()]);
        command.arg("--dir").arg(self.path(node)).arg("--key").arg(key_file);
        command.arg("--genesis").arg(self.dir.path().join("genesis.json"));
        for other in (0..NODES).filter(|other| *other != node) {
            command.args(["--peer", &format!("127.0.0.1:{}", self.port(9000, other))]);
            command.args(["--tx-peer", &format!("127.0.0.1:{}", self.port(30303, other))]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn run(&mut self, node: usize) {
        for (slot, process) in self.processes[node].iter_mut().zip(["executord", "consensusd"]) {
            *slot = Some(launch(&self.dir.path().join(format!("node-{node}")), process));
        }
    }

    fn stop(&mut self, node: usize) {
        for slot in self.processes[node].iter_mut().rev() {
            end(slot);
        }
    }

    fn port(&self, base: u16, node: usize) -> u16 {
        base + self.offset + node as u16
    }

    fn rpc(&self, node: usize, method: &str, params: Value) -> Option<Value> {
        let answer = json_rpc(self.port(8545, node), method, params)?;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer.get("result").cloned()
    }

    fn height(&self, node: usize) -> u64 {
        let text = self.rpc(node, "eth_blockNumber", json!([]));
        text.and_then(|text| u64::from_str_radix(text.as_str()?.strip_prefix("0x")?, 16).ok()).unwrap_or(0)
    }

    /// Sends a call of the registry by the owner of `node` and waits until it is final with success.
    fn tell(&self, node: usize, value: u128, input: impl SolCall) {
        let owner = account(node);
        let nonce = self.rpc(0, "eth_getTransactionCount", json!([owner.address(), "latest"])).unwrap();
        let nonce = u64::from_str_radix(nonce.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap();
        let signed = owner.sign(TxEip1559 {
            chain_id: CHAIN,
            nonce,
            gas_limit: 1_000_000,
            max_fee_per_gas: 100_000_000_000,
            max_priority_fee_per_gas: 1_000_000_000,
            to: TxKind::Call(REGISTRY),
            value: U256::from(value),
            input: input.abi_encode().into(),
            ..Default::default()
        });
        let raw = hex::encode_prefixed(signed.encoded());
        let hash = self.rpc(0, "eth_sendRawTransaction", json!([raw])).unwrap();
        let receipt = eventually("a receipt", || {
            self.rpc(0, "eth_getTransactionReceipt", json!([hash])).filter(Value::is_object)
        });
        assert_eq!(receipt["status"], "0x1", "{receipt}");
    }

    fn ask<C: SolCall>(&self, input: C) -> C::Return {
        let call = json!({"to": REGISTRY, "data": hex::encode_prefixed(input.abi_encode())});
        let output = self.rpc(0, "eth_call", json!([call, "latest"])).unwrap();
        C::abi_decode_returns(&hex::decode(output.as_str().unwrap()).unwrap()).unwrap()
    }

    /// Waits until the set of the running epoch is as wanted.
    fn await_set(&self, what: &str, wanted: impl Fn(&[abi::Member]) -> bool) {
        eventually(what, || {
            let abi::epochsReturn { current, .. } = self.ask(abi::epochsCall {});
            wanted(&self.ask(abi::validatorSetCall { epoch: U256::from(current) })).then_some(())
        });
    }

    /// Waits until every node of `nodes` is `blocks` above where node 0 is now.
    fn await_blocks(&self, what: &str, blocks: u64, nodes: &[usize]) {
        let goal = self.height(0) + blocks;
        eventually(what, || nodes.iter().all(|node| self.height(*node) >= goal).then_some(()));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        (0..self.processes.len()).for_each(|node| self.stop(node));
    }
}

fn launch(dir: &Path, process: &str) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join(format!("{process}.log")))
        .unwrap();
    Command::new(TANDEM)
        .args([process, "--config"])
        .arg(dir.join("node.toml"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn end(slot: &mut Option<Child>) {
    if let Some(mut child) = slot.take() {
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().unwrap();
    }
}

fn genesis() -> Value {
    let balance = format!("{:#x}", U256::from(1_000_000 * COIN));
    let alloc: serde_json::Map<String, Value> =
        (0..NODES).map(|n| (account(n).address().to_string(), json!({"balance": balance}))).collect();
    let validator = |(n, coins): (u8, u128)| {
        json!({
            "address": account(n.into()).address(), "public_key": key(n).public_key(),
            "proof_of_possession": key(n).prove_possession(), "stake": (coins * COIN).to_string(),
        })
    };
    let validators = [(0, 400), (1, 200), (2, 200), (3, 200)].map(validator);
    json!({
        "config": {"chainId": CHAIN},
        "timestamp": "0x65000000",
        "gasLimit": "0x3938700",
        "alloc": alloc,
        "tandem": {
            "validators": validators,
            "epoch_length": EPOCH,
            "timing": {"block_interval_ms": 50, "empty_block_interval_ms": 50},
        },
    })
}

/// An offset at which all ports of all nodes are free now.
fn free_offset() -> u16 {
    let first = 2_500 + (std::process::id() % 200) as u16 * 10;
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let all_free = |offset: &u16| {
        (0..NODES as u16).all(|node| {
            [8545, 5052, 9200, 9100, 9000].into_iter().all(|base| free(base + offset + node))
                && free(30_303 + (offset + node))
        })
    };
    (0..100).map(|step| 100 + (first + step * 10) % 2_300).find(all_free).expect("a free range of ports")
}

fn bytes(key: &SecretKey) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(&key.public_key().0), Bytes::copy_from_slice(&key.prove_possession().0))
}

fn is_member(set: &[abi::Member], address: Address) -> bool {
    set.iter().any(|member| member.validator == address)
}

#[test]
fn validators_join_leave_and_change_keys_while_the_chain_goes_on() {
    let mut network = Network::start();
    eventually("the first block", || (network.height(0) >= 1).then_some(()));

    // Node 4 registers: it follows until its first epoch, two after the running one.
    let (pubkey, proof) = bytes(&key(4));
    network.tell(4, 200 * COIN, abi::registerCall { pubkey, proofOfPossession: proof });
    // Node 1 gets a second key, which it may use from the epoch on in which the registry says so.
    let fresh = key(50);
    consensus_node::write_key(&network.path(1).join("next.json"), &fresh).unwrap();
    let config = network.path(1).join("node.toml");
    let settings = std::fs::read_to_string(&config).unwrap();
    let line = settings.lines().find(|line| line.starts_with("key_file")).unwrap();
    let settings = settings.replace(line, &format!("{line}\nnext_key_file = \"next.json\""));
    std::fs::write(&config, settings).unwrap();
    network.stop(1);
    network.run(1);
    let (new_pubkey, proof) = bytes(&fresh);
    network.tell(1, 0, abi::rotateKeyCall { newPubkey: new_pubkey.clone(), proofOfPossession: proof });
    // Node 3 leaves.
    network.tell(3, 0, abi::exitCall {});

    network.await_set("the set with everything changed", |set| {
        let rotated = set.iter().any(|member| member.pubkey == new_pubkey);
        rotated && is_member(set, account(4).address()) && !is_member(set, account(3).address()) && {
            set.iter().map(|member| member.weight).sum::<U256>() == U256::from(1000 * COIN)
        }
    });
    // Who left is not needed any more.
    network.await_blocks("blocks of the new set", EPOCH, &[0, 1, 2, 4]);
    network.stop(3);
    network.await_blocks("blocks without who left", EPOCH, &[0, 1, 2, 4]);
    // Without node 2 a quorum needs the newcomer and the new key: 400 + 200 + 200 of 1000.
    network.stop(2);
    network.await_blocks("blocks by newcomer and new key", 2 * EPOCH, &[0, 1, 4]);
    network.run(2);
    network.run(3);
    network.await_blocks("everybody caught up", EPOCH, &[0, 1, 2, 3, 4]);

    let common = (0..NODES).map(|node| network.height(node)).min().unwrap();
    for height in 1..=common {
        let block = |node| {
            let block = network.rpc(node, "eth_getBlockByNumber", json!([format!("{height:#x}"), false]));
            let block = block.unwrap();
            (block["hash"].clone(), block["stateRoot"].clone())
        };
        let first = block(0);
        assert!(first.0.is_string());
        assert!((1..NODES).all(|node| block(node) == first), "height {height}");
    }
}
