//! Transactions between executors: what is admitted here goes out, what comes in is admitted before it goes on.

use crate::pool::{Pool, PoolError};
use alloy_primitives::B256;
use bytes::Bytes;
use net::gossip::{GossipConfig, TxGossip, TxGossipEvent, TxGossipHandle, Verdict};
use net::{ChainIdentity, NetError, Transport};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use types::Genesis;

/// How long a local transaction waits for others to share its batch. A hundredth of a block, and worth a
/// hundredfold fewer messages under load.
const LINGER: Duration = Duration::from_millis(3);

/// Transactions of one outgoing batch.
const BATCH_TRANSACTIONS_MAX: usize = 1024;

/// Incoming batches checked at once; further ones wait in the network's own bounded queues.
const BATCHES_CHECKED_MAX: usize = 64;

/// How often local transactions that are still not mined are sent again, for peers that missed them.
const REPEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Pause before they are sent to peers that just came, so that several that come together get them together.
const GREETING_PAUSE: Duration = Duration::from_millis(500);

/// Transactions sent again at once.
const REPEAT_MAX: usize = 4096;

/// Where the node finds the network.
#[derive(Clone, Debug)]
pub(crate) struct GossipSetup {
    pub listen: SocketAddr,
    pub peers: Vec<SocketAddr>,
    pub network_key: PathBuf,
}

/// The running network. Dropping it leaves the network.
pub(crate) struct Gossip {
    handle: TxGossipHandle,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Gossip {
    /// Joins the network. `peer_count` is kept at the number of connected executors.
    pub async fn start(
        setup: GossipSetup,
        genesis: &Genesis,
        pool: Pool,
        outgoing: mpsc::Receiver<Bytes>,
        peer_count: Arc<AtomicU64>,
    ) -> Result<Self, NetError> {
        let chain = ChainIdentity {
            chain_id: genesis.config.chain_id,
            genesis_hash: genesis.hash(),
            rules_hash: engine_api::rules_hash(genesis),
        };
        let config = GossipConfig {
            listen: setup.listen,
            peers: setup.peers,
            network_key: setup.network_key,
            chain,
            transport: Transport::default(),
            limits: Default::default(),
        };
        let (handle, events) = TxGossip::start(config).await?;
        let greet = Arc::new(Notify::new());
        let tasks = vec![
            tokio::spawn(send(handle.clone(), outgoing)),
            tokio::spawn(repeat(handle.clone(), pool.clone(), greet.clone())),
            tokio::spawn(receive(handle.clone(), events, pool, peer_count, greet)),
        ];
        Ok(Self { handle, tasks })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.handle.local_address()
    }

    /// Leaves the network.
    pub async fn stop(mut self) {
        self.abort();
        self.handle.shutdown().await;
    }

    fn abort(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Sends local transactions out in batches.
async fn send(handle: TxGossipHandle, mut outgoing: mpsc::Receiver<Bytes>) {
    while let Some(first) = outgoing.recv().await {
        let mut batch = vec![first];
        let deadline = Instant::now() + LINGER;
        while batch.len() < BATCH_TRANSACTIONS_MAX {
            match tokio::time::timeout_at(deadline, outgoing.recv()).await {
                Ok(Some(next)) => batch.push(next),
                Ok(None) | Err(_) => break,
            }
        }
        handle.publish(batch);
    }
}

/// Sends local transactions again that nobody mined: their first batch may have found no peer.
async fn repeat(handle: TxGossipHandle, pool: Pool, greet: Arc<Notify>) {
    loop {
        let greeted = tokio::time::timeout(REPEAT_INTERVAL, greet.notified()).await;
        if greeted.is_ok() {
            tokio::time::sleep(GREETING_PAUSE).await;
        }
        if handle.peer_count() == 0 {
            continue;
        }
        let local = pool.local_transactions(REPEAT_MAX);
        for batch in local.chunks(BATCH_TRANSACTIONS_MAX) {
            handle.publish(batch.iter().map(|transaction| transaction.encoded().0.clone()).collect());
        }
    }
}

async fn receive(
    handle: TxGossipHandle,
    mut events: mpsc::Receiver<TxGossipEvent>,
    pool: Pool,
    peer_count: Arc<AtomicU64>,
    greet: Arc<Notify>,
) {
    let places = Arc::new(Semaphore::new(BATCHES_CHECKED_MAX));
    while let Some(event) = events.recv().await {
        peer_count.store(handle.peer_count() as u64, Ordering::Relaxed);
        match event {
            TxGossipEvent::Batch { id, transactions, .. } => {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                let (handle, pool) = (handle.clone(), pool.clone());
                tokio::spawn(async move {
                    let verdict = check(&pool, transactions).await;
                    handle.report(id, verdict);
                    drop(place);
                });
            }
            TxGossipEvent::Connected(node) => {
                tracing::info!(%node, "transaction peer connected");
                greet.notify_one();
            }
            TxGossipEvent::Disconnected(node) => tracing::info!(%node, "transaction peer disconnected"),
            TxGossipEvent::Refused { address, error } => {
                tracing::warn!(%address, %error, "transaction peer refused");
            }
        }
    }
}

/// Submits a batch and judges it: something new goes on, something no honest node sends is held against the
/// sender.
async fn check(pool: &Pool, transactions: Vec<Bytes>) -> Verdict {
    let results = pool.submit_from_peer(transactions).await;
    let blamed = |result: &Result<B256, PoolError>| matches!(result, Err(PoolError::Refused(refusal)) if refusal.blames_peer());
    if results.iter().any(blamed) {
        Verdict::Reject
    } else if results.iter().any(Result::is_ok) {
        Verdict::Accept
    } else {
        Verdict::Ignore
    }
}
