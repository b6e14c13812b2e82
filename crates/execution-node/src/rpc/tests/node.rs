//! A chain of one's own, driven block by block.

use super::client::Http;
use crate::{
    chain::Chain,
    pool::{AdmissionLimits, Pool, PoolOptions, PoolThreads},
    rpc::{RpcConfig, RpcHandle, RpcLinks, serve},
};
use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, hex, keccak256};
use execution::{BlockEnv, BuildLimits, RecoveredTx, Rules, StateView, testing::TestKey};
use serde_json::{Value, json};
use state::{BlockRecord, ExecutedBlock, StateOptions, StateStore};
use std::sync::Arc;
use types::{Genesis, ValidatorIndex, View};

pub(super) const CHAIN_ID: u64 = 31_337;
/// 1 gwei.
pub(super) const GWEI: u128 = 1_000_000_000;

/// Emits one log: topic 0 is the call data's first word, data the block number.
pub(super) const EMITTER: Address = address!("0x00000000000000000000000000000000000000e1");
/// Reverts with `Error("nope")`.
pub(super) const REVERTER: Address = address!("0x00000000000000000000000000000000000000e2");
/// Returns slot 0 when called without data, else stores the first word there.
pub(super) const STORER: Address = address!("0x00000000000000000000000000000000000000e3");
/// Jumps for ever.
pub(super) const SPINNER: Address = address!("0x00000000000000000000000000000000000000e4");
/// Returns NUMBER, TIMESTAMP, BASEFEE and CALLER.
pub(super) const ENVIRONMENT: Address = address!("0x00000000000000000000000000000000000000e5");

const EMITTER_CODE: &[u8] = &hex!("4360005260003560206000a100");
const STORER_CODE: &[u8] = &hex!("36600f5760005460005260206000f35b60003560005500");
const SPINNER_CODE: &[u8] = &hex!("5b600056");
const ENVIRONMENT_CODE: &[u8] = &hex!("4360005242602052486040523360605260806000f3");

/// `Error("nope")`, ABI encoded.
pub(super) fn nope() -> Bytes {
    let mut data = hex!("08c379a0").to_vec();
    data.extend_from_slice(&U256::from(32).to_be_bytes::<32>());
    data.extend_from_slice(&U256::from(4).to_be_bytes::<32>());
    data.extend_from_slice(b"nope");
    data.resize(100, 0);
    data.into()
}

fn reverter_code() -> Bytes {
    let mut code = hex!("6064600c60003960646000fd").to_vec();
    code.extend_from_slice(&nope());
    code.into()
}

/// Creation code that deploys `runtime`.
pub(super) fn creation_code(runtime: &[u8]) -> Bytes {
    let length = u8::try_from(runtime.len()).unwrap();
    let mut code = vec![0x60, length, 0x60, 0x0c, 0x60, 0x00, 0x39, 0x60, length, 0x60, 0x00, 0xf3];
    code.extend_from_slice(runtime);
    code.into()
}

pub(super) fn storer_runtime() -> &'static [u8] {
    STORER_CODE
}

pub(super) struct Node {
    pub(super) chain: Chain,
    pub(super) rpc: RpcHandle,
    pub(super) links: RpcLinks,
    store: Arc<StateStore>,
    rules: Arc<Rules>,
    _threads: PoolThreads,
    _directory: tempfile::TempDir,
}

/// The keys with funds.
pub(super) fn key(n: u64) -> TestKey {
    TestKey::new(n)
}

fn genesis(base_fee: u64) -> Genesis {
    let ether = |count: u64| format!("{:#x}", U256::from(count) * U256::from(10).pow(U256::from(18)));
    let mut alloc = serde_json::Map::new();
    for n in 0..4 {
        alloc.insert(key(n).address().to_string(), json!({"balance": ether(10_000)}));
    }
    let contracts = [
        (EMITTER, Bytes::from_static(EMITTER_CODE)),
        (REVERTER, reverter_code()),
        (STORER, Bytes::from_static(STORER_CODE)),
        (SPINNER, Bytes::from_static(SPINNER_CODE)),
        (ENVIRONMENT, Bytes::from_static(ENVIRONMENT_CODE)),
    ];
    for (address, code) in contracts {
        alloc.insert(address.to_string(), json!({"balance": "0x0", "nonce": "0x1", "code": code}));
    }
    serde_json::from_value(json!({
        "config": {"chainId": CHAIN_ID},
        "timestamp": "0x65000000",
        "gasLimit": "0x3938700",
        "baseFeePerGas": format!("{base_fee:#x}"),
        "alloc": alloc,
        "tandem": {"validators": []},
    }))
    .unwrap()
}

pub(super) fn config() -> RpcConfig {
    RpcConfig { address: "127.0.0.1:0".parse().unwrap(), ..RpcConfig::default() }
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::start_with(config(), GWEI as u64, |_| {}).await
    }

    pub(super) async fn start_with(
        config: RpcConfig,
        base_fee: u64,
        options: impl FnOnce(&mut StateOptions),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let genesis = genesis(base_fee);
        let rules = Arc::new(Rules::from_genesis(&genesis).unwrap());
        let genesis_state = execution::genesis_state(&genesis).unwrap();
        let mut state_options = StateOptions::new(directory.path().join("state"));
        options(&mut state_options);
        let store = Arc::new(StateStore::open(state_options, &genesis).unwrap());
        let pool_options = PoolOptions {
            limits: Default::default(),
            admission: AdmissionLimits { threads: 1, ..Default::default() },
            transaction_bytes_max: 128 << 10,
            policy: txpool::AdmissionPolicy { tip_floor: 0, allow_unprotected: false },
            journal: None,
        };
        let (pool, threads) = Pool::start(pool_options, rules.clone(), store.clone(), 0, base_fee).unwrap();
        let chain = Chain::new(genesis, &genesis_state, rules.clone(), store.clone(), pool).unwrap();
        let links = RpcLinks::default();
        let rpc = serve(chain.clone(), config, links.clone()).await.unwrap();
        Self { chain, rpc, links, store, rules, _threads: threads, _directory: directory }
    }

    pub(super) async fn http(&self) -> Http {
        Http::connect(self.rpc.address()).await
    }

    /// The chain id over a fresh connection, or nothing when the server closes it.
    pub(super) async fn try_chain_id(&self) -> Option<Value> {
        let address = self.rpc.address();
        let asked =
            tokio::spawn(async move { Http::connect(address).await.ok("eth_chainId", json!([])).await });
        asked.await.ok()
    }

    /// A transaction of key `n` with its next final nonce plus `ahead`.
    pub(super) fn transaction(&self, n: u64, ahead: u64, change: impl FnOnce(&mut TxEip1559)) -> RecoveredTx {
        let account = self.store.view().account(key(n).address()).unwrap().unwrap_or_default();
        let mut tx = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: account.nonce + ahead,
            gas_limit: 200_000,
            max_fee_per_gas: 100 * GWEI,
            max_priority_fee_per_gas: GWEI,
            to: TxKind::Call(Address::repeat_byte(0x77)),
            ..Default::default()
        };
        change(&mut tx);
        key(n).sign(tx)
    }

    pub(super) fn transfer(&self, n: u64, ahead: u64) -> RecoveredTx {
        self.transaction(n, ahead, |tx| tx.value = U256::from(1))
    }

    /// A call of the emitter with `topic`.
    pub(super) fn emit(&self, n: u64, ahead: u64, topic: B256) -> RecoveredTx {
        self.transaction(n, ahead, |tx| {
            tx.to = TxKind::Call(EMITTER);
            tx.input = topic.0.into();
        })
    }

    /// Makes the next block final, with these transactions, all of which must fit.
    pub(super) fn mine(&self, transactions: Vec<RecoveredTx>) -> Arc<ExecutedBlock> {
        let head = self.chain.head().record.clone();
        let env = BlockEnv {
            height: head.height + 1,
            timestamp_ms: head.timestamp_ms + 250,
            prevrandao: keccak256(head.height.to_be_bytes()),
            fee_recipient: Address::repeat_byte(0xfe),
            gas_limit: self.rules.gas_limit(),
            base_fee: self.chain.next_base_fee(),
        };
        let (view, stored) = (self.store.view(), self.store.head());
        let limits = BuildLimits { bytes: 4 << 20, gas: env.gas_limit, objects: u64::MAX };
        let built =
            execution::build(&view, &self.rules, &env, &stored.lthash, limits, &[], transactions, || false)
                .unwrap();
        assert!(built.skipped.is_empty(), "{:?}", built.skipped);
        let transactions: Vec<RecoveredTx> = built.transactions.iter().cloned().collect();
        let record = BlockRecord {
            height: env.height,
            hash: keccak256([built.commitment.as_slice(), head.hash.as_slice()].concat()),
            parent_hash: head.hash,
            timestamp_ms: env.timestamp_ms,
            view: View::new(env.height + 5),
            proposer: ValidatorIndex::new(2),
            fee_recipient: env.fee_recipient,
            gas_limit: env.gas_limit,
            gas_used: built.outcome.gas_used,
            base_fee: built.outcome.base_fee,
            prevrandao: env.prevrandao,
            logs_bloom: built.outcome.logs_bloom,
            state_hash: built.outcome.state_hash,
            receipts_hash: built.outcome.receipts_hash,
            payload_commitment: built.commitment,
            size: built.payload.len() as u64,
            transaction_count: transactions.len() as u32,
        };
        let block = ExecutedBlock {
            record,
            transactions,
            receipts: built.outcome.receipts,
            next_validators: built.outcome.system.next_validators,
            outline: built.outline.into(),
        };
        self.store.commit(&block, &built.outcome.diff, &built.outcome.lthash).unwrap();
        let block = Arc::new(block);
        self.chain.publish(block.clone());
        self.advance_pool(&block);
        block
    }

    fn advance_pool(&self, block: &ExecutedBlock) {
        let view = self.store.view();
        let senders = block.transactions.iter().map(RecoveredTx::sender);
        let changed: Vec<_> = senders
            .map(|sender| {
                let info = view.account(sender).unwrap().unwrap_or_default();
                let state =
                    txpool::AccountState { nonce: info.nonce, balance: info.balance, delegated: false };
                (sender, state)
            })
            .collect();
        self.chain.pool().advance(block.record.height, self.chain.next_base_fee(), &changed);
    }
}

/// `params` of a raw transaction.
pub(super) fn raw(transaction: &RecoveredTx) -> Value {
    json!([transaction.encoded()])
}
