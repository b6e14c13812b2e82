//! Starting and stopping the whole process, in order.

use crate::chain::Chain;
use crate::config::{Config, ConfigError};
use crate::data_dir::{DataDir, DataDirError};
use crate::engine::{EngineService, ExecutorThreads};
use crate::executor::{Executor, ExecutorShared};
use crate::finalizer::Finalizer;
use crate::gossip::{Gossip, GossipSetup};
use crate::metrics::{self, Metrics};
use crate::pool::{JournalError, Pool, PoolOptions, PoolThreads};
use crate::rpc::{self, RpcLinks, RpcStartError};
use engine_api::{Endpoint, EngineApiError, JwtError, JwtSecret, capabilities_of};
use execution::{GenesisStateError, Rules, RulesError, genesis_state};
use state::{OpenError, StateError, StateOptions, StateStore};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use txpool::AdmissionPolicy;
use types::{Genesis, GenesisError};

/// Longest genesis file that is read.
const GENESIS_BYTES_MAX: u64 = 256 << 20;

/// How long an executor whose storage failed stays to say so.
const FAILED_STAY: Duration = Duration::from_secs(5);

/// Bytes of a payload beside its one transaction.
const PAYLOAD_OVERHEAD_BYTES: u64 = 64;

/// Local transactions on their way to the network.
const OUTGOING_WAITING_MAX: usize = 16_384;

/// Why executord did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage failed while running; nothing was made final since.
    #[error("the storage failed: {0}; mend it (space, permissions, hardware) and start again")]
    Storage(String),
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The genesis is not usable.
    #[error("{path}: {source}")]
    Genesis {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: GenesisError,
    },
    /// The genesis asks for rules this version does not have.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The genesis allocates no valid state.
    #[error(transparent)]
    GenesisState(#[from] GenesisStateError),
    /// The data directory is in use or cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The state did not open.
    #[error("state in {path}: {source}")]
    Open {
        /// Which directory.
        path: PathBuf,
        /// What is wrong with it.
        source: OpenError,
    },
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The transaction journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The secret is missing or bad.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// The Engine API cannot be served.
    #[error(transparent)]
    Engine(#[from] EngineApiError),
    /// JSON-RPC cannot be served.
    #[error(transparent)]
    Rpc(#[from] RpcStartError),
    /// The transaction network cannot be joined.
    #[error("transaction network: {0}")]
    Net(#[from] net::NetError),
    /// The metrics port cannot be listened on.
    #[error("metrics cannot listen on {address}: {source} (set another metrics_listen)")]
    Metrics {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Runs an executor until `shutdown` resolves.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
    let node = Node::start(config).await?;
    let shared = node.shared.clone();
    tokio::select! {
        () = shutdown => {}
        // The engine's answers and the health page say why for a while; then whoever supervises the process starts
        // it again, and again, until the storage is mended: that is how it recovers without anybody's help.
        () = async { shared.poisoned.notified().await; tokio::time::sleep(FAILED_STAY).await } => {}
    }
    tracing::info!("stopping");
    node.stop().await;
    let poison = shared.poison.lock().clone();
    poison.map_or(Ok(()), |reason| Err(Error::Storage(reason)))
}

/// A running executor. [`Self::stop`] ends it in order; dropping it ends it without waiting.
pub struct Node {
    chain: Chain,
    shared: Arc<ExecutorShared>,
    engine: engine_api::ServerHandle,
    rpc: rpc::RpcHandle,
    metrics_address: Option<SocketAddr>,
    metrics: Option<tokio::task::JoinHandle<()>>,
    gossip: Option<Gossip>,
    executor: ExecutorThreads,
    pool: PoolThreads,
    shutdown: watch::Sender<bool>,
    // Last: the directory is let go when everything that writes to it is gone.
    _data_dir: DataDir,
}

impl Node {
    /// Starts everything: state, pool, servers. Whatever fails, nothing is left running.
    pub async fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        let secret = JwtSecret::load(&config.jwt_secret)?;
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || Opened::open(&opening));
        let opened = opened.await.map_err(|error| Error::Thread(io::Error::other(error)))??;
        let Opened { chain, pool, data_dir, genesis_state_hash } = opened;
        let (shutdown, _) = watch::channel(false);
        let shared = Arc::new(ExecutorShared::new(chain.clone()));
        let counters = Metrics::default();
        counters.started(chain.height().get());
        let build_time_max = config.build_time_max(chain.genesis());
        let fault = config.fault.fault;
        if let Some(fault) = fault {
            tracing::warn!(?fault, "this node misbehaves on purpose; its blocks will be refused");
        }
        let executor = Executor::new(shared.clone(), counters.clone(), build_time_max, fault);
        let finalizer = Finalizer::new(shared.clone(), counters.clone());
        let version = format!("tandem-executord/{}", env!("CARGO_PKG_VERSION"));
        let capabilities = capabilities_of(chain.genesis(), genesis_state_hash, version);
        let (service, executor) =
            EngineService::start(executor, finalizer, shared.clone(), capabilities, counters.clone())
                .map_err(Error::Thread)?;

        let links = RpcLinks::default();
        let metrics_listener = bind_metrics(config.metrics_listen).await?;
        let rpc = rpc::serve(chain.clone(), config.rpc.clone(), links.clone()).await?;
        let metrics_address = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let metrics = metrics_listener.map(|listener| {
            let registry = counters.registry(&links.metrics, &shared);
            tokio::spawn(metrics::serve(listener, registry, shared.clone(), told(&shutdown)))
        });
        let gossip = match config.p2p_listen {
            Some(listen) => {
                let network_key = config.data_dir.join("network.key");
                let setup = GossipSetup { listen, peers: config.peers.clone(), network_key };
                let (to_network, outgoing) = mpsc::channel(OUTGOING_WAITING_MAX);
                let peers = links.peers.clone();
                let gossip =
                    Gossip::start(setup, chain.genesis(), chain.pool().clone(), outgoing, peers).await?;
                chain.pool().publish_to(to_network);
                Some(gossip)
            }
            None => None,
        };
        let engine =
            engine_api::serve(&config.engine_endpoint, secret, Arc::new(service), told(&shutdown)).await?;
        tracing::info!(
            chain_id = chain.chain_id(),
            height = %chain.height(),
            engine = %engine.endpoint(),
            rpc = %rpc.address(),
            "executord is ready"
        );
        Ok(Self {
            chain,
            shared,
            engine,
            rpc,
            metrics_address,
            metrics,
            gossip,
            executor,
            pool,
            shutdown,
            _data_dir: data_dir,
        })
    }

    /// The finalized chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Where the Engine API listens, with the real port.
    pub fn engine_endpoint(&self) -> &Endpoint {
        self.engine.endpoint()
    }

    /// Where JSON-RPC listens, with the real port.
    pub fn rpc_address(&self) -> SocketAddr {
        self.rpc.address()
    }

    /// Where other executors reach this one, with the real port.
    pub fn p2p_address(&self) -> Option<SocketAddr> {
        self.gossip.as_ref().map(Gossip::address)
    }

    /// Where metrics are served, with the real port.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Stops: no new calls, running ones end, pool and state are closed.
    pub async fn stop(self) {
        let Self { chain, engine, rpc, metrics, gossip, executor, pool, shutdown, _data_dir, .. } = self;
        shutdown.send_replace(true);
        rpc.stop().await;
        engine.stopped().await;
        if let Some(gossip) = gossip {
            gossip.stop().await;
        }
        if let Some(metrics) = metrics {
            // It ends by the same signal; a panic in it has been reported by the runtime.
            let _ = metrics.await;
        }
        let threads = tokio::task::spawn_blocking(move || {
            executor.stop();
            pool.stop();
            drop(chain);
        });
        if let Err(error) = threads.await {
            tracing::error!(%error, "stopping");
        }
    }
}

/// What is on disk, opened.
struct Opened {
    chain: Chain,
    pool: PoolThreads,
    data_dir: DataDir,
    genesis_state_hash: types::B256,
}

impl Opened {
    fn open(config: &Config) -> Result<Self, Error> {
        let genesis = read_genesis(&config.genesis)?;
        let rules = Arc::new(Rules::from_genesis(&genesis)?);
        let at_genesis = genesis_state(&genesis)?;
        let data_dir = DataDir::lock(&config.data_dir, &config.lock_file())?;
        let path = config.state_dir();
        let options = StateOptions {
            history_blocks: config.history_blocks,
            cache_bytes: config.cache_mib << 20,
            ..StateOptions::new(&path)
        };
        let store = StateStore::open(options, &genesis).map_err(|source| Error::Open { path, source })?;
        let store = Arc::new(store);
        let (height, next_base_fee) = next_base_fee(&store, &rules)?;
        let room = genesis.tandem.payload_bytes_max.saturating_sub(PAYLOAD_OVERHEAD_BYTES);
        let options = PoolOptions {
            limits: config.pool.limits(),
            admission: config.pool.admission(),
            transaction_bytes_max: usize::try_from(room).unwrap_or(usize::MAX),
            policy: AdmissionPolicy {
                tip_floor: config.pool.tip_floor_wei.into(),
                allow_unprotected: config.pool.allow_unprotected,
            },
            journal: config.pool.journal_path(&config.data_dir),
        };
        let (pool, threads) = Pool::start(options, rules.clone(), store.clone(), height, next_base_fee)?;
        let chain = Chain::new(genesis, &at_genesis, rules, store, pool)?;
        Ok(Self { chain, pool: threads, data_dir, genesis_state_hash: at_genesis.state_hash })
    }
}

fn next_base_fee(store: &StateStore, rules: &Rules) -> Result<(u64, u64), StateError> {
    let height = store.head().height;
    match height {
        0 => Ok((0, rules.initial_base_fee())),
        height => match store.record(height)? {
            Some(head) => Ok((height, rules.next_base_fee(height, head.gas_used, head.base_fee))),
            None => {
                let reason = format!("the head's record, height {height}, is missing");
                Err(StateError::Corrupt { what: "block", reason })
            }
        },
    }
}

fn read_genesis(path: &Path) -> Result<Genesis, Error> {
    let read = |source| Error::Read { path: path.into(), source };
    let length = std::fs::metadata(path).map_err(read)?.len();
    if length > GENESIS_BYTES_MAX {
        let reason = format!("the file has {length} bytes, at most {GENESIS_BYTES_MAX} are read");
        return Err(read(io::Error::new(io::ErrorKind::InvalidData, reason)));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    Genesis::parse(&text).map_err(|source| Error::Genesis { path: path.into(), source })
}

async fn bind_metrics(address: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    match address {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            listener.map(Some).map_err(|source| Error::Metrics { address, source })
        }
        None => Ok(None),
    }
}

/// Resolves when the node is told to stop, or is gone.
fn told(shutdown: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut receiver = shutdown.subscribe();
    async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}
