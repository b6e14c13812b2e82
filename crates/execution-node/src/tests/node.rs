//! The whole process: start, serve, stop, start again.

use super::harness::{CHAIN, genesis, proposed, request, transfer, valid};
use crate::run::{Error, Node};
use crate::{Config, Fault, run};
use engine_api::{ClientConfig, Endpoint, EngineClient, JwtSecret, capabilities_of};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::engine::{EngineError, Forkchoice};
use types::{B256, Epoch, Height};

const SOON: Duration = Duration::from_secs(20);

/// A config whose files exist, all ports free ones.
fn config(directory: &Path) -> Config {
    let genesis_file = directory.join("genesis.json");
    std::fs::write(&genesis_file, serde_json::to_string(&genesis(4)).unwrap()).unwrap();
    let secret = directory.join("jwt.hex");
    JwtSecret::load_or_create(&secret).unwrap();
    let endpoint = Endpoint::Unix(directory.join("engine.sock"));
    let mut config = Config::new(genesis_file, directory.join("execution"), endpoint, secret);
    let any = "127.0.0.1:0".parse().unwrap();
    (config.rpc.address, config.metrics_listen, config.p2p_listen) = (any, Some(any), Some(any));
    config
}

async fn client(node: &Node, config: &Config) -> EngineClient {
    let secret = JwtSecret::load(&config.jwt_secret).unwrap();
    let identity = capabilities_of(&genesis(4), B256::ZERO, "test".into());
    let client = EngineClient::new(ClientConfig::new(node.engine_endpoint().clone(), secret, identity));
    client.ready(SOON).await.unwrap();
    client
}

async fn get(node: &Node, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(node.metrics_address().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_serves_the_engine_and_goes_on_where_it_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let node = Node::start(config.clone()).await.unwrap();
    let engine = client(&node, &config).await;
    let genesis_hash = node.chain().genesis_hash();
    assert_eq!(engine.finalized_state().await.unwrap().block_hash, genesis_hash);
    assert_eq!(engine.validator_set(Epoch::new(1)).await.unwrap().len(), 1);
    let early = engine.validator_set(Epoch::new(3)).await;
    assert!(matches!(&early, Err(EngineError::Illegal(reason)) if reason.contains("64")), "{early:?}");

    // A waiting proposer is woken by a transaction.
    let waiting = engine.clone();
    let waiting = tokio::spawn(async move { waiting.await_transactions(genesis_hash, SOON).await });
    node.chain().pool().submit(transfer(0, 0).encoded().clone()).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(true));
    assert_eq!(engine.await_transactions(B256::ZERO, SOON).await, Err(EngineError::UnknownBlock(B256::ZERO)));

    let request = request(genesis_hash, 1, 1);
    let block = proposed(&request, engine.build_payload(&request).await.unwrap());
    let verdict = engine.new_payload(&block.header, &block.payload, &block.inputs).await;
    assert_eq!(verdict, Ok(valid(&block)));
    let hash = block.hash();
    let all = Forkchoice { head: hash, safe: hash, finalized: hash };
    let state = engine.forkchoice_updated(&all).await.unwrap();
    assert_eq!((state.height, state.block_hash), (Height::new(1), hash));
    assert_eq!(engine.await_transactions(hash, Duration::from_millis(1)).await, Ok(false));
    // One that is accepted but not mined.
    let kept = node.chain().pool().submit(transfer(0, 1).encoded().clone()).await.unwrap();
    let metrics = get(&node, "/metrics").await;
    for expected in [
        "tandem_execution_head_height 1\n",
        "tandem_execution_transactions_total 1\n",
        "tandem_execution_gas_total 21000\n",
        "tandem_execution_txpool_pending 1\n",
        "tandem_execution_engine_request_seconds_count{method=\"new_payload\",status=\"valid\"} 1\n",
        "tandem_execution_process_resident_memory_bytes",
        "tandem_execution_build_info{version=",
    ] {
        assert!(metrics.contains(expected), "{expected} in {metrics}");
    }
    assert!(get(&node, "/health").await.contains("200 OK"));
    node.stop().await;

    let node = Node::start(config.clone()).await.unwrap();
    let engine = client(&node, &config).await;
    assert_eq!(engine.finalized_state().await, Ok(state));
    assert!(node.chain().pool().contains(&kept), "the journal brought it back");
    assert_eq!(node.chain().chain_id(), CHAIN);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_reach_other_executors() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Node::start(config(here.path())).await.unwrap();
    let mut second = config(there.path());
    second.peers = vec![first.p2p_address().unwrap()];
    let second = Node::start(second).await.unwrap();
    let mut arrived = second.chain().pool().subscribe_admitted();
    let sent = first.chain().pool().submit(transfer(0, 0).encoded().clone()).await.unwrap();
    // Sent before the two have met, it comes with the repetition; afterwards at once.
    let arrived = tokio::time::timeout(Duration::from_secs(60), arrived.recv()).await.unwrap().unwrap();
    assert_eq!(arrived.hash(), sent);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_prevents_a_start_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let good = config(directory.path());
    let node = Node::start(good.clone()).await.unwrap();

    let in_use =
        Node::start(Config { engine_endpoint: "127.0.0.1:0".parse().unwrap(), ..good.clone() }).await;
    let text = in_use.err().unwrap().to_string();
    assert!(text.contains("in use by process"), "{text}");

    let other = tempfile::tempdir().unwrap();
    let elsewhere = || Config { data_dir: other.path().join("execution"), ..good.clone() };
    let mut taken = elsewhere();
    taken.metrics_listen = node.metrics_address();
    assert!(matches!(Node::start(taken).await.err(), Some(Error::Metrics { .. })));
    let mut taken = elsewhere();
    taken.rpc.address = node.rpc_address();
    assert!(matches!(Node::start(taken).await.err(), Some(Error::Rpc(_))));
    let mut taken = elsewhere();
    taken.p2p_listen = node.p2p_address();
    assert!(matches!(Node::start(taken).await.err(), Some(Error::Net(_))));
    assert!(matches!(Node::start(elsewhere()).await.err(), Some(Error::Engine(_))), "the socket is in use");
    node.stop().await;

    let mut foreign = genesis(4);
    foreign.timestamp += 1;
    std::fs::write(&good.genesis, serde_json::to_string(&foreign).unwrap()).unwrap();
    let text = Node::start(good.clone()).await.err().unwrap().to_string();
    assert!(text.contains("belongs to genesis"), "{text}");
    std::fs::write(&good.genesis, "{").unwrap();
    assert!(matches!(Node::start(good.clone()).await.err(), Some(Error::Genesis { .. })));
    std::fs::write(&good.jwt_secret, "not hex").unwrap();
    assert!(matches!(Node::start(good.clone()).await.err(), Some(Error::Jwt(_))));
    let mut faulty = good;
    faulty.fault.fault = Some(Fault::WrongStateHash);
    assert!(matches!(Node::start(faulty).await.err(), Some(Error::Config(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_ends_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(run(config(directory.path()), async {
        // Dropping the sender is a stop as well.
        let _ = stopped.await;
    }));
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}
