//! Bringing a node up, in the order in which mistakes are cheapest to notice, and taking it down.

use crate::clock::Clock;
use crate::driver::{Asker, Driver, INPUTS_MAX, QUESTIONS_MAX, Sources};
use crate::engine_link::{CALLS_MAX, EngineLink};
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::rest::{Access, App, GenesisFacts, Shared};
use crate::{Config, Error, http, rest, unlock_key};
use consensus::{Replica, Settings};
use crypto::SecretKey;
use engine_api::{ClientConfig, EngineClient, JwtSecret, capabilities_of, rules_hash};
use journal::Journal;
use net::{ChainIdentity, Mesh, MeshConfig, MeshEvent, MeshHandle, MeshIdentity, MeshLimits};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use types::{B256, Genesis, GenesisError};

/// Bytes of a genesis file.
const GENESIS_BYTES_MAX: u64 = 256 << 20;

/// Time the consensus thread has to finish its last write at shutdown.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Name and version, as the executor and peers see it.
const CLIENT_VERSION: &str = concat!("tandem-consensusd/", env!("CARGO_PKG_VERSION"));

/// Runs a consensus node until `shutdown` resolves or it cannot go on.
///
/// Everything that can be wrong with files, ports and settings is noticed before anything is signed. A missing
/// executor or missing peers are no errors: the node waits for them and its status says so.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    config.check()?;
    let genesis = load_genesis(&config.genesis)?;
    let keys = load_validator_keys(&config).await?;
    let rest = http::bind(config.rest_listen, "the REST interface", "rest_listen").await?;
    let metrics = http::bind(config.metrics_listen, "metrics", "metrics_listen").await?;
    let secret = JwtSecret::load_or_create(&config.jwt_secret)?;
    let settings = Settings::new(&genesis, keys, config.fee_recipient)
        .map_err(|source| Error::Genesis { path: config.genesis.clone(), source: source.into() })?;
    let (journal, recovered) = {
        let (dir, hash) = (config.journal_dir(), settings.genesis_hash);
        // Opening reads the whole log; other tasks of this runtime go on meanwhile.
        tokio::task::spawn_blocking(move || Journal::open(dir, hash))
            .await
            .map_err(|error| Error::Crashed(format!("opening the journal: {error}")))??
    };
    let clock = Clock::start();
    let replica = Replica::new(settings.clone(), recovered, &journal, clock.now())?
        .with_doppelganger_wait(config.doppelganger_views, clock.now());
    say_role(&settings, &replica);
    let (mesh, events) = start_mesh(&config, &genesis, &settings, &replica).await?;
    let identity = capabilities_of(&genesis, B256::ZERO, CLIENT_VERSION.into());
    let engine = EngineClient::new(ClientConfig::new(config.engine_endpoint.clone(), secret, identity));
    tracing::info!(
        chain_id = settings.chain_id,
        genesis = %settings.genesis_hash,
        height = %replica.finalized().0,
        p2p = %mesh.local_address(),
        "consensus node starts"
    );
    let node = Node { config, genesis, settings, clock, mesh, engine };
    node.serve(journal, replica, events, Ports { rest, metrics }, shutdown).await
}

struct Ports {
    rest: TcpListener,
    metrics: TcpListener,
}

struct Node {
    config: Config,
    genesis: Genesis,
    settings: Settings,
    clock: Clock,
    mesh: MeshHandle,
    engine: EngineClient,
}

impl Node {
    async fn serve(
        self,
        journal: Journal,
        replica: Replica,
        mesh_events: mpsc::Receiver<MeshEvent>,
        ports: Ports,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        let (stop, stopping) = watch::channel(false);
        let (inputs, input_queue) = mpsc::channel(INPUTS_MAX);
        let (questions, question_queue) = mpsc::channel(QUESTIONS_MAX);
        let (calls, call_queue) = mpsc::channel(CALLS_MAX);
        let (feed, metrics) = (Arc::new(Feed::new()), Arc::new(Metrics::new()));
        let final_at_ms = Arc::new(AtomicU64::new(0));
        let link = EngineLink::new(self.engine.clone(), inputs.clone(), metrics.clone(), final_at_ms.clone());
        let _link = AbortOnDropHandle::new(tokio::spawn(link.run(call_queue)));
        let app = self.app(Asker(questions), feed.clone(), metrics.clone());
        let _servers = self.start_servers(&app, ports, &stopping);
        let driver = Driver {
            replica,
            journal,
            clock: self.clock,
            mesh: self.mesh.clone(),
            engine: calls,
            inputs,
            final_at_ms,
            tasks: tokio::runtime::Handle::current(),
            feed,
            metrics,
        };
        let sources =
            Sources { inputs: input_queue, mesh: mesh_events, questions: question_queue, stop: stopping };
        let mut ended = spawn_thread(driver, sources)?;
        let result = tokio::select! {
            () = shutdown => {
                stop.send_replace(true);
                tracing::info!("stopping");
                match tokio::time::timeout(STOP_TIME, &mut ended).await {
                    Ok(ended) => outcome(ended),
                    Err(_) => Err(Error::Crashed(format!("it did not stop within {} s", STOP_TIME.as_secs()))),
                }
            }
            ended = &mut ended => outcome(ended).and(Err(Error::Crashed("the mesh or the engine link ended".into()))),
        };
        stop.send_replace(true);
        self.mesh.shutdown().await;
        result
    }

    fn app(&self, asker: Asker, feed: Arc<Feed>, metrics: Arc<Metrics>) -> App {
        App::new(Shared {
            asker,
            feed,
            metrics,
            engine: self.engine.clone(),
            mesh: self.mesh.clone(),
            genesis: GenesisFacts {
                chain_id: self.settings.chain_id,
                hash: self.settings.genesis_hash,
                timestamp_ms: self.settings.genesis_timestamp_ms,
                epoch_length: self.genesis.tandem.epoch_length,
            },
            public_keys: self.settings.keys.iter().map(SecretKey::public_key).collect(),
            started: Instant::now(),
        })
    }

    fn start_servers(
        &self,
        app: &App,
        ports: Ports,
        stopping: &watch::Receiver<bool>,
    ) -> [AbortOnDropHandle<()>; 2] {
        let access = Access {
            listen: self.config.rest_listen,
            allowed_hosts: self.config.rest_allowed_hosts.clone(),
            cors_origins: self.config.rest_cors_origins.clone(),
        };
        let rest = http::serve(ports.rest, rest::router(app.clone(), &access), stopping.clone());
        let metrics = http::serve(ports.metrics, rest::metrics_router(app.clone()), stopping.clone());
        [AbortOnDropHandle::new(tokio::spawn(rest)), AbortOnDropHandle::new(tokio::spawn(metrics))]
    }
}

type Ended = oneshot::Receiver<std::io::Result<()>>;

/// A thread of its own: the replica's BLS work and the journal's fsync must not hold up the runtime's tasks.
fn spawn_thread(driver: Driver, sources: Sources) -> Result<Ended, Error> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("consensus".into())
        .spawn(move || {
            // Nobody listens any more when the process gave up waiting.
            let _ = done.send(driver.run(sources));
        })
        .map_err(|error| Error::Crashed(format!("it cannot be started: {error}")))?;
    Ok(ended)
}

fn outcome(ended: Result<std::io::Result<()>, oneshot::error::RecvError>) -> Result<(), Error> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::Crashed(error.to_string())),
        Err(_) => Err(Error::Crashed("it panicked; its message is on the standard error stream".into())),
    }
}

/// Decrypting a keystore takes a second of one processor.
async fn load_validator_keys(config: &Config) -> Result<Vec<SecretKey>, Error> {
    let files: Vec<PathBuf> = config.key_file.iter().chain(&config.next_key_file).cloned().collect();
    let password_file = config.password_file.clone();
    let unlock = move || files.iter().map(|file| unlock_key(file, password_file.as_deref())).collect();
    tokio::task::spawn_blocking(unlock)
        .await
        .map_err(|error| Error::Crashed(format!("decrypting the validator key: {error}")))?
}

fn load_genesis(path: &Path) -> Result<Genesis, Error> {
    let io = |source| Error::File { action: "read the genesis file", path: path.into(), source };
    let refuse = |source| Error::Genesis { path: path.into(), source };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > GENESIS_BYTES_MAX {
        let text = format!("{length} bytes, at most {GENESIS_BYTES_MAX} are supported");
        return Err(refuse(GenesisError::Json(text)));
    }
    Genesis::parse(&std::fs::read_to_string(path).map_err(io)?).map_err(refuse)
}

fn say_role(settings: &Settings, replica: &Replica) {
    let epoch = replica.epoch();
    match (settings.keys.first().map(SecretKey::public_key), replica.index()) {
        (None, _) => tracing::info!("no key_file: this node follows and never votes"),
        (Some(_), Some(index)) => tracing::info!(%index, %epoch, "validator"),
        (Some(key), None) => tracing::warn!(
            %key, %epoch,
            "this key is not in the validator set of the epoch: the node follows, and votes once it is; check key_file"
        ),
    }
}

async fn start_mesh(
    config: &Config,
    genesis: &Genesis,
    settings: &Settings,
    replica: &Replica,
) -> Result<(MeshHandle, mpsc::Receiver<MeshEvent>), Error> {
    let chain = ChainIdentity {
        chain_id: settings.chain_id,
        genesis_hash: settings.genesis_hash,
        rules_hash: rules_hash(genesis),
    };
    let mesh_config = MeshConfig {
        listen: config.p2p_listen,
        peers: config.peers.clone(),
        network_key: config.network_key(),
        chain,
        transport: config.transport,
        limits: MeshLimits::default(),
    };
    let identity = MeshIdentity::validators(settings.keys.iter().cloned());
    let (mesh, events) = Mesh::start(mesh_config, identity).await?;
    mesh.set_validators(&replica.sets_heard().cloned().collect::<Vec<_>>());
    Ok((mesh, events))
}
