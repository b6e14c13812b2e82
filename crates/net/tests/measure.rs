//! Latency and CPU of both networks on the loopback interface. Not run by
//! default: `cargo test --release -p net --test measure -- --ignored --nocapture --test-threads 1`.
#![allow(clippy::unwrap_used, missing_docs)]

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use crypto::SecretKey;
use net::{
    ChainIdentity, GossipConfig, GossipLimits, Mesh, MeshConfig, MeshEvent, MeshHandle, MeshIdentity,
    MeshLimits, Transport, TxGossip, TxGossipEvent, TxGossipHandle, Verdict,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;
use types::{Epoch, PublicKey, QuorumRule, Stake, Validator, ValidatorSet};

const CHAIN: ChainIdentity =
    ChainIdentity { chain_id: 7, genesis_hash: B256::repeat_byte(1), rules_hash: B256::repeat_byte(2) };

/// CPU time of this process so far, all threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn secret(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number + 1; 32])
}

fn key(number: u8) -> PublicKey {
    secret(number).public_key()
}

fn set(n: u8) -> Arc<ValidatorSet> {
    let validators = (0..n).map(|number| Validator {
        address: Address::repeat_byte(number + 1),
        public_key: secret(number).public_key(),
        stake: Stake::new(1),
    });
    Arc::new(ValidatorSet::new(Epoch::ZERO, validators.collect(), QuorumRule::default()).unwrap())
}

struct Meshes {
    handles: Vec<MeshHandle>,
    events: Vec<mpsc::Receiver<MeshEvent>>,
    _folders: Vec<TempDir>,
}

async fn meshes(n: u8, transport: Transport) -> Meshes {
    let (mut handles, mut events, mut folders) = (Vec::<MeshHandle>::new(), Vec::new(), Vec::new());
    for number in 0..n {
        let folder = tempfile::tempdir().unwrap();
        let config = MeshConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: handles.iter().map(|handle| handle.local_address()).collect(),
            network_key: folder.path().join("key"),
            chain: CHAIN,
            transport,
            limits: MeshLimits::default(),
        };
        let (handle, received) = Mesh::start(config, MeshIdentity::validator(secret(number))).await.unwrap();
        handle.set_validators(&[set(n)]);
        handles.push(handle);
        events.push(received);
        folders.push(folder);
    }
    for received in &mut events {
        let mut connected = 0;
        while connected + 1 < n {
            connected += u8::from(matches!(received.recv().await.unwrap(), MeshEvent::Connected(_)));
        }
    }
    Meshes { handles, events, _folders: folders }
}

async fn message(events: &mut mpsc::Receiver<MeshEvent>) -> Bytes {
    loop {
        if let MeshEvent::Message { bytes, .. } = events.recv().await.unwrap() {
            return bytes;
        }
    }
}

fn percentiles(mut samples: Vec<Duration>) -> String {
    samples.sort();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    format!("p50 {:?} p99 {:?} max {:?}", at(0.5), at(0.99), at(1.0))
}

/// Ping-pong of a 200-byte vote at the pace of a busy chain, then streams of votes and of proposals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn mesh_latency_and_cpu_by_transport() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let Meshes { handles, mut events, _folders } = meshes(2, transport).await;
        let (mut b_events, mut a_events) = (events.pop().unwrap(), events.pop().unwrap());
        let echo = handles[1].clone();
        let echoing = tokio::spawn(async move {
            loop {
                let bytes = message(&mut b_events).await;
                echo.send(&key(0), bytes.slice(..bytes.len().min(200)));
            }
        });
        let to = key(1);
        for (bytes, rounds, pause) in [(200, 2000, true), (200, 5000, false), (1 << 20, 100, false)] {
            let (mut samples, start, cpu_before) = (Vec::new(), Instant::now(), cpu());
            for _ in 0..rounds {
                if pause {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let sent = Instant::now();
                handles[0].send(&to, Bytes::from(vec![1; bytes]));
                message(&mut a_events).await;
                samples.push(sent.elapsed());
            }
            let cpu_per_message = (cpu() - cpu_before) / (2 * rounds);
            println!(
                "{transport:?}: round trip of {bytes} B {}: {}, CPU {cpu_per_message:?} per message (both ends), {:?}",
                if pause { "paced" } else { "back to back" },
                percentiles(samples),
                start.elapsed()
            );
        }
        let (count, cpu_before, start) = (200_000u32, cpu(), Instant::now());
        let mut sent = 0;
        let mut received = 0;
        while received < count {
            while sent < count && sent - received < 1000 {
                handles[0].send(&to, Bytes::from(vec![1; 200]));
                sent += 1;
            }
            message(&mut a_events).await;
            received += 1;
        }
        println!(
            "{transport:?}: stream of 200 B each way: {:.0}/s each way, CPU {:?} per message",
            f64::from(count) / start.elapsed().as_secs_f64(),
            (cpu() - cpu_before) / (2 * count)
        );
        echoing.abort();
        let (cpu_before, start) = (cpu(), Instant::now());
        tokio::time::sleep(Duration::from_secs(5)).await;
        println!(
            "{transport:?}: idle, both nodes in one process: {:?} CPU per second",
            (cpu() - cpu_before).div_f64(start.elapsed().as_secs_f64())
        );
    }
}

/// The traffic of four validators at 4 blocks/s: one 256 KiB proposal, four prepares, four commits per block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn mesh_of_four_at_the_pace_of_blocks() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let Meshes { handles, events, _folders } = meshes(4, transport).await;
        for mut received in events {
            tokio::spawn(async move { while received.recv().await.is_some() {} });
        }
        let (blocks, cpu_before, start) = (40u32, cpu(), Instant::now());
        for block in 0..blocks {
            handles[(block % 4) as usize].broadcast(Bytes::from(vec![1; 256 << 10]));
            for handle in handles.iter().chain(&handles) {
                handle.broadcast(Bytes::from(vec![1; 300]));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        println!(
            "{transport:?}: four validators, 4 blocks/s of 256 KiB: {:?} CPU per second for all four",
            (cpu() - cpu_before).div_f64(start.elapsed().as_secs_f64())
        );
    }
}

/// From the start of a restarted node to its peers seeing it as a validator again; it dials them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn mesh_reconnection_after_a_restart() {
    for (transport, dials) in [(Transport::Tcp, true), (Transport::Tcp, false), (Transport::Quic, true)] {
        let Meshes { handles, mut events, _folders } = meshes(2, transport).await;
        let mut a_events = events.remove(0);
        let mut samples = Vec::new();
        let address = handles[1].local_address();
        let mut b = handles[1].clone();
        if !dials {
            handles[0].add_peer(address).await.unwrap();
        }
        for _ in 0..20 {
            b.shutdown().await;
            while !matches!(a_events.recv().await.unwrap(), MeshEvent::Disconnected(_)) {}
            tokio::time::sleep(Duration::from_millis(1000)).await;
            let start = Instant::now();
            let config = MeshConfig {
                listen: address,
                peers: if dials { vec![handles[0].local_address()] } else { Vec::new() },
                network_key: _folders[1].path().join("key"),
                chain: CHAIN,
                transport,
                limits: MeshLimits::default(),
            };
            let (restarted, _events) = Mesh::start(config, MeshIdentity::validator(secret(1))).await.unwrap();
            restarted.set_validators(&[set(2)]);
            while !matches!(a_events.recv().await.unwrap(), MeshEvent::Connected(_)) {}
            samples.push(start.elapsed());
            b = restarted;
        }
        println!("{transport:?}: connected after a restart that dials ({dials}): {}", percentiles(samples));
    }
}

async fn gossips(
    n: usize,
    transport: Transport,
) -> (Vec<TxGossipHandle>, Vec<mpsc::Receiver<TxGossipEvent>>, Vec<TempDir>) {
    let (mut handles, mut events, mut folders) = (Vec::<TxGossipHandle>::new(), Vec::new(), Vec::new());
    for _ in 0..n {
        let folder = tempfile::tempdir().unwrap();
        let config = GossipConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: handles.iter().map(|handle| handle.local_address()).collect(),
            network_key: folder.path().join("key"),
            chain: CHAIN,
            transport,
            limits: GossipLimits::default(),
        };
        let (handle, received) = TxGossip::start(config).await.unwrap();
        handles.push(handle);
        events.push(received);
        folders.push(folder);
    }
    while handles.iter().any(|handle| handle.peer_count() + 1 < n) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    (handles, events, folders)
}

const RATE: usize = 20_000;
const SECONDS: usize = 5;
const BATCHES_PER_SECOND: usize = 100;

fn batch(number: usize) -> Vec<Bytes> {
    let count = RATE / BATCHES_PER_SECOND;
    (0..count)
        .map(|i| Bytes::from([vec![7; 94], (number * count + i).to_le_bytes().to_vec(), vec![8; 8]].concat()))
        .collect()
}

/// Four executors, fully connected, 20,000 transactions of 110 B per second in 100 batches, all accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn gossip_at_twenty_thousand_transactions_per_second() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (handles, events, _folders) = gossips(4, transport).await;
        let (latencies, mut measured) = mpsc::unbounded_channel();
        let epoch = Instant::now();
        for (mut received, handle) in events.into_iter().zip(handles.clone()) {
            let latencies = latencies.clone();
            tokio::spawn(async move {
                while let Some(event) = received.recv().await {
                    if let TxGossipEvent::Batch { id, transactions, .. } = event {
                        handle.report(id, Verdict::Accept);
                        let _ = latencies.send((Instant::now(), transactions.len()));
                    }
                }
            });
        }
        let (cpu_before, mut samples) = (cpu(), Vec::new());
        for number in 0..BATCHES_PER_SECOND * SECONDS {
            let sent = Instant::now();
            handles[number % 4].publish(batch(number));
            for _ in 0..3 {
                let (at, count) = measured.recv().await.unwrap();
                assert_eq!(count, RATE / BATCHES_PER_SECOND);
                samples.push(at - sent);
            }
            tokio::time::sleep(
                Duration::from_millis(1000 / BATCHES_PER_SECOND as u64).saturating_sub(sent.elapsed()),
            )
            .await;
        }
        println!(
            "flooding {transport:?}: {RATE} tx/s to 4 nodes: {}, CPU {:?} per second for all four; {:?}; {:?}",
            percentiles(samples),
            (cpu() - cpu_before).div_f64(epoch.elapsed().as_secs_f64()),
            epoch.elapsed(),
            handles[0].stats()
        );
        // As fast as it goes, from one node.
        let (cpu_before, start, batches) = (cpu(), Instant::now(), 2000);
        let (mut sent, mut received) = (0, 0);
        while received < 3 * batches {
            while sent < batches && 3 * sent < received + 30 {
                handles[0].publish(batch(100_000 + sent));
                sent += 1;
            }
            measured.recv().await.unwrap();
            received += 1;
        }
        println!(
            "flooding {transport:?}: one node to three at full speed: {:.0} tx/s, CPU {:?} per transaction delivered",
            (batches * batch(0).len()) as f64 / start.elapsed().as_secs_f64(),
            (cpu() - cpu_before) / (3 * batches * batch(0).len()) as u32
        );
    }
}
