//! What node tests need: an executor in memory, networks of nodes in one process, and a small HTTP client.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use consensus_node::{Config, Error, run, write_key};
use crypto::{SecretKey, merkle, tagged_hash};
use engine_api::{Endpoint, Engine, JwtSecret, ServerHandle, capabilities_of, serve};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use types::engine::{
    BuiltPayload, Capabilities, EngineError, FinalizedState, Forkchoice, PayloadRequest, PayloadStatus,
};
use types::{Address, B256, Epoch, Genesis, Header, Height, RejectionCode, SystemInputs, Validator};

/// Longest a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// An executor whose state is one hash. Its finalized blocks survive [`Executor::crash`], nothing else does.
pub struct Executor {
    capabilities: Capabilities,
    inner: Mutex<Chain>,
    pub transactions_wait: AtomicBool,
}

struct Chain {
    executed: HashMap<B256, Executed>,
    durable: HashMap<B256, Executed>,
    finalized: FinalizedState,
}

#[derive(Clone, Copy)]
struct Executed {
    height: Height,
    parent_hash: B256,
    state_hash: B256,
}

impl Executor {
    pub fn new(genesis: &Genesis) -> Arc<Self> {
        let state_hash = tagged_hash("test state", &[genesis.hash().as_slice()]);
        let capabilities = capabilities_of(genesis, state_hash, "test-executor/1".into());
        let finalized = FinalizedState { height: Height::ZERO, block_hash: genesis.hash(), state_hash };
        let root = Executed { height: Height::ZERO, parent_hash: B256::ZERO, state_hash };
        let durable = HashMap::from([(genesis.hash(), root)]);
        let inner = Mutex::new(Chain { executed: durable.clone(), durable, finalized });
        Arc::new(Self { capabilities, inner, transactions_wait: AtomicBool::new(true) })
    }

    pub fn finalized(&self) -> FinalizedState {
        self.inner.lock().unwrap().finalized
    }

    /// Forgets what was not final, as a restart does.
    pub fn crash(&self) {
        let mut chain = self.inner.lock().unwrap();
        chain.executed = chain.durable.clone();
    }

    fn execute(parent_state: B256, payload: &[u8], inputs: &SystemInputs) -> B256 {
        tagged_hash("test state", &[parent_state.as_slice(), payload, inputs.randao_mix.as_slice()])
    }
}

const RECEIPTS: B256 = B256::repeat_byte(0x77);

impl Engine for Executor {
    async fn capabilities(&self) -> Result<Capabilities, EngineError> {
        Ok(self.capabilities.clone())
    }

    async fn build_payload(&self, request: PayloadRequest) -> Result<BuiltPayload, EngineError> {
        let chain = self.inner.lock().unwrap();
        let Some(parent) = chain.executed.get(&request.parent_hash) else {
            return Err(EngineError::UnknownBlock(request.parent_hash));
        };
        let payload = request.height.get().to_le_bytes().repeat(40);
        Ok(BuiltPayload {
            commitment: merkle::payload_root(&payload),
            state_hash: Self::execute(parent.state_hash, &payload, &request.system_inputs),
            receipts_hash: RECEIPTS,
            encoding: 1,
            transactions: 1,
            gas_used: 21_000,
            payload,
        })
    }

    async fn new_payload(
        &self,
        header: Header,
        payload: Vec<u8>,
        inputs: SystemInputs,
    ) -> Result<PayloadStatus, EngineError> {
        let mut chain = self.inner.lock().unwrap();
        let Some(parent) = chain.executed.get(&header.parent_hash).copied() else {
            return Ok(PayloadStatus::Syncing);
        };
        if header.height != parent.height.next() {
            let reason = format!("height {} on a parent of height {}", header.height, parent.height);
            return Ok(PayloadStatus::Invalid { code: RejectionCode::BadHeader, reason });
        }
        let state_hash = Self::execute(parent.state_hash, &payload, &inputs);
        let executed = Executed { height: header.height, parent_hash: header.parent_hash, state_hash };
        chain.executed.insert(header.hash(), executed);
        Ok(PayloadStatus::Valid { state_hash, receipts_hash: RECEIPTS, next_validators: None })
    }

    async fn forkchoice_updated(&self, forkchoice: Forkchoice) -> Result<FinalizedState, EngineError> {
        let mut chain = self.inner.lock().unwrap();
        let Some(Executed { height, state_hash, .. }) = chain.executed.get(&forkchoice.finalized).copied()
        else {
            return Err(EngineError::UnknownBlock(forkchoice.finalized));
        };
        if height < chain.finalized.height {
            return Err(EngineError::Illegal(format!("back from {} to {height}", chain.finalized.height)));
        }
        let mut hash = forkchoice.finalized;
        while !chain.durable.contains_key(&hash) {
            let block = chain.executed[&hash];
            chain.durable.insert(hash, block);
            hash = block.parent_hash;
        }
        chain.finalized = FinalizedState { height, block_hash: forkchoice.finalized, state_hash };
        Ok(chain.finalized)
    }

    async fn finalized_state(&self) -> Result<FinalizedState, EngineError> {
        Ok(self.finalized())
    }

    async fn validator_set(&self, epoch: Epoch) -> Result<Vec<Validator>, EngineError> {
        Err(EngineError::Illegal(format!("epoch {epoch} is not fixed")))
    }

    async fn await_transactions(&self, _: B256, max_wait: Duration) -> Result<bool, EngineError> {
        if self.transactions_wait.load(Ordering::Relaxed) {
            return Ok(true);
        }
        tokio::time::sleep(max_wait).await;
        Ok(false)
    }
}

/// A network on one machine: one directory, one genesis, one key and one executor per validator.
pub struct Network {
    pub dir: TempDir,
    pub genesis: Genesis,
    pub configs: Vec<Config>,
    pub executors: Vec<Arc<Executor>>,
}

impl Network {
    pub fn new(validators: usize) -> Self {
        Self::with_followers(validators, 0)
    }

    pub fn with_followers(validators: usize, followers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys: Vec<SecretKey> = (0..validators).map(|_| SecretKey::generate()).collect();
        let genesis = genesis(&keys, 31337);
        std::fs::write(dir.path().join("genesis.json"), serde_json::to_vec(&genesis).unwrap()).unwrap();
        let nodes = validators + followers;
        let ports: Vec<[SocketAddr; 3]> = (0..nodes).map(|_| free_ports()).collect();
        let peers: Vec<SocketAddr> = ports.iter().map(|ports| ports[0]).collect();
        let configs = ports
            .iter()
            .enumerate()
            .map(|(index, [p2p, rest, metrics])| {
                let home = dir.path().join(format!("n{index}"));
                std::fs::create_dir(&home).unwrap();
                let key_file = keys.get(index).map(|key| {
                    let path = home.join("validator.json");
                    write_key(&path, key).unwrap();
                    path
                });
                Config {
                    genesis: dir.path().join("genesis.json"),
                    data_dir: home.join("data"),
                    key_file,
                    p2p_listen: *p2p,
                    peers: peers.clone(),
                    rest_listen: *rest,
                    metrics_listen: *metrics,
                    engine_endpoint: Endpoint::Unix(home.join("engine.sock")),
                    jwt_secret: home.join("jwt.hex"),
                    ..Config::default()
                }
            })
            .collect();
        let executors = (0..nodes).map(|_| Executor::new(&genesis)).collect();
        Self { dir, genesis, configs, executors }
    }

    /// Starts the executor and the consensus process of a node.
    pub async fn start(&self, index: usize) -> Node {
        let executor = self.start_executor(index).await;
        let mut node = self.start_consensus(index);
        node.executor = Some(executor);
        node
    }

    pub fn start_consensus(&self, index: usize) -> Node {
        Node::start(self.configs[index].clone())
    }

    pub async fn start_executor(&self, index: usize) -> ServerHandle {
        let config = &self.configs[index];
        let secret = JwtSecret::load_or_create(&config.jwt_secret).unwrap();
        let executor = self.executors[index].clone();
        serve(&config.engine_endpoint, secret, executor, std::future::pending()).await.unwrap()
    }
}

/// A running consensus process, in this one.
pub struct Node {
    pub rest: SocketAddr,
    pub metrics: SocketAddr,
    pub executor: Option<ServerHandle>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<Result<(), Error>>,
}

impl Node {
    pub fn start(config: Config) -> Self {
        let (stop, stopping) = oneshot::channel::<()>();
        let (rest, metrics) = (config.rest_listen, config.metrics_listen);
        let ended = tokio::spawn(async move {
            let stopping = async {
                let _ = stopping.await;
            };
            run(config, stopping).await.inspect_err(|error| eprintln!("node ended: {error}"))
        });
        Self { rest, metrics, executor: None, stop: Some(stop), ended }
    }

    /// Stops and returns how it ended.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.executor = None;
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, self.ended).await.expect("stops in time").unwrap()
    }

    /// Returns how it ends by itself.
    pub async fn ended(self) -> Result<(), Error> {
        tokio::time::timeout(PATIENCE, self.ended).await.expect("ends in time").unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = http_get(self.rest, path).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// The JSON of a path that must answer 200, as soon as the server is up.
    pub async fn json(&self, path: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((200, body)) = try_get(self.rest, path).await
                && let Ok(value) = serde_json::from_str(&body)
            {
                return value;
            }
            assert!(!self.ended.is_finished(), "the node ended by itself");
            assert!(Instant::now() < deadline, "{path} does not answer 200");
            pause().await;
        }
    }

    /// The status once it fulfils a condition.
    pub async fn status_when(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.json("/node/v1/status").await;
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "never: {what}; the last status is {status:#}");
            pause().await;
        }
    }

    /// Honest nodes must not be taken for faulty ones, whatever was restarted.
    pub async fn accuses_nobody(&self) {
        let (_, metrics) = http_get(self.metrics, "/metrics").await;
        let accused = metrics.lines().find(|line| line.starts_with("tandem_consensus_misbehaviour_total{"));
        assert_eq!(accused, None);
    }

    pub async fn height_reaches(&self, height: u64) {
        self.status_when(&format!("height {height}"), |status| status["height"].as_u64() >= Some(height))
            .await;
    }
}

/// Between two looks at something that has no other way to be waited for.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

pub fn reason<'a>(status: &'a Value, code: &str) -> Option<&'a Value> {
    status["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == code)
}

pub fn genesis(keys: &[SecretKey], chain_id: u64) -> Genesis {
    let validators: Vec<Value> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            json!({
                "address": Address::repeat_byte(index as u8 + 1),
                "public_key": key.public_key(),
                "proof_of_possession": key.prove_possession(),
                "stake": "100",
            })
        })
        .collect();
    let json = json!({
        "config": { "chainId": chain_id },
        "timestamp": 1,
        "gasLimit": 30_000_000,
        "alloc": {},
        "tandem": {
            "validators": validators,
            "timing": { "delta_ms": 50, "block_interval_ms": 20, "empty_block_interval_ms": 60, "work_ms": 200 },
        },
    });
    Genesis::parse(&json.to_string()).unwrap()
}

/// Three free ports that nobody gets by accident: below the range the system hands out, each given once.
pub fn free_ports() -> [SocketAddr; 3] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    [(); 3].map(|()| {
        loop {
            let offset = NEXT.fetch_add(1, Ordering::Relaxed);
            let base = 10_000 + (std::process::id() % 40) as u16 * 500;
            let address = SocketAddr::from(([127, 0, 0, 1], base + offset));
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    })
}

pub fn http_get(address: SocketAddr, path: &str) -> impl Future<Output = (u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    async move { http(address, &request).await.expect("answers") }
}

async fn try_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    http(address, &request).await
}

/// Sends raw bytes and returns the status and the body of what comes back.
pub async fn http(address: SocketAddr, request: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut response = Vec::new();
        // An abrupt end after the response is an end like any other.
        let _ = stream.read_to_end(&mut response).await;
        let response = String::from_utf8_lossy(&response).into_owned();
        let (head, body) = response.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok()?
}
