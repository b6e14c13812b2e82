//! The processes, their directories and what they report.

use crate::Args;
use crate::executor::NullExecutor;
use crate::proc::{Usage, usage};
use consensus_node::{Config, write_key};
use crypto::SecretKey;
use engine_api::{Endpoint, JwtSecret, ServerHandle, serve};
use serde_json::json;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use types::{Address, Genesis};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Longest wait for the processes to finalize their first block.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Consensus processes that run, and their executors.
pub struct Network {
    dir: PathBuf,
    nodes: Vec<Child>,
    metrics: Vec<SocketAddr>,
    executors: Vec<ServerHandle>,
}

/// All processes at one moment.
pub struct Sample {
    pub height: f64,
    at: Instant,
    usage: Usage,
    fsyncs: f64,
    messages: f64,
}

/// The difference of two samples, per height.
pub struct Figures {
    pub heights_per_second: f64,
    user_ms: f64,
    system_ms: f64,
    fsyncs: f64,
    messages: f64,
    switches: f64,
}

impl Network {
    /// Makes the directories and starts everything.
    pub async fn start(args: &Args) -> Result<Self> {
        let dir = args.dir.join(format!("consensus-bench-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        fs::create_dir_all(socket_dir())?;
        let keys: Vec<SecretKey> = (0..args.validators).map(|_| SecretKey::generate()).collect();
        let genesis = genesis(&keys)?;
        fs::write(dir.join("genesis.json"), serde_json::to_vec(&genesis)?)?;
        let ports = free_ports(3 * args.validators)?;
        let peers: Vec<SocketAddr> = ports.iter().step_by(3).copied().collect();
        let mut network = Self { dir, nodes: Vec::new(), metrics: Vec::new(), executors: Vec::new() };
        for (index, (key, ports)) in keys.iter().zip(ports.chunks(3)).enumerate() {
            let home = network.dir.join(format!("n{index}"));
            fs::create_dir_all(&home)?;
            write_key(&home.join("validator.json"), key)?;
            let config = Config {
                genesis: network.dir.join("genesis.json").canonicalize()?,
                data_dir: "data".into(),
                key_file: Some("validator.json".into()),
                p2p_listen: ports[0],
                peers: peers.clone(),
                rest_listen: ports[1],
                metrics_listen: ports[2],
                engine_endpoint: Endpoint::Unix(socket_dir().join(format!("{index}.sock"))),
                jwt_secret: home.canonicalize()?.join("jwt.hex"),
                ..Config::default()
            };
            let secret = JwtSecret::load_or_create(&config.jwt_secret)?;
            let executor = NullExecutor::new(&genesis);
            let server = serve(&config.engine_endpoint, secret, executor, std::future::pending()).await?;
            network.executors.push(server);
            network.metrics.push(ports[2]);
            network.nodes.push(spawn(args, &home, &config)?);
        }
        Ok(network)
    }

    /// Waits for the first blocks, and a while longer.
    pub async fn settle(&mut self, warm_up: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.all_alive()?;
            if self.sample().await.is_ok_and(|sample| sample.height >= 5.0) {
                break;
            }
            if begun.elapsed() > START_TIME_MAX {
                return Err(
                    format!("no block within {START_TIME_MAX:?}; logs: {}", self.dir.display()).into()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(warm_up).await;
        Ok(())
    }

    /// An error when a process has ended.
    pub fn all_alive(&mut self) -> Result<()> {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = node.try_wait()? {
                return Err(format!("node {index} ended with {status}; logs: {}", self.dir.display()).into());
            }
        }
        Ok(())
    }

    /// Reads all processes. The height is the lowest finalized one.
    pub async fn sample(&self) -> Result<Sample> {
        let mut sample = Sample {
            height: f64::MAX,
            at: Instant::now(),
            usage: Usage::default(),
            fsyncs: 0.0,
            messages: 0.0,
        };
        for (node, address) in self.nodes.iter().zip(&self.metrics) {
            let text = http_get(*address, "/metrics").await?;
            let sum = |name: &str| -> f64 {
                let lines = text.lines().filter(|line| line.starts_with(name));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
            };
            sample.height = sample.height.min(sum("tandem_consensus_finalized_height "));
            sample.fsyncs += sum("tandem_consensus_journal_fsync_seconds_count");
            sample.messages += sum("tandem_consensus_messages_total{direction=\"received\"");
            let used = usage(node.id())?;
            sample.usage.user_seconds += used.user_seconds;
            sample.usage.system_seconds += used.system_seconds;
            sample.usage.switches += used.switches;
        }
        Ok(sample)
    }

    /// Ends the processes and removes their directories.
    pub async fn stop(mut self) {
        self.kill();
        for executor in std::mem::take(&mut self.executors) {
            drop(executor);
        }
    }

    fn kill(&mut self) {
        for node in &mut self.nodes {
            // One that has ended already is as good.
            let _ = node.kill();
            let _ = node.wait();
        }
        self.nodes.clear();
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_dir_all(socket_dir());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Sample {
    /// What happened between two samples.
    pub fn since(&self, before: &Self) -> Figures {
        let heights = (self.height - before.height).max(1.0);
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        Figures {
            heights_per_second: (self.height - before.height) / seconds,
            user_ms: (self.usage.user_seconds - before.usage.user_seconds) * 1000.0 / heights,
            system_ms: (self.usage.system_seconds - before.usage.system_seconds) * 1000.0 / heights,
            fsyncs: (self.fsyncs - before.fsyncs) / heights,
            messages: (self.messages - before.messages) / heights,
            switches: (self.usage.switches - before.usage.switches) / heights,
        }
    }
}

impl Figures {
    /// CPU time of all processes per height.
    pub fn cpu_ms(&self) -> f64 {
        self.user_ms + self.system_ms
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9.1}  {:>13.2}  {:>4.1}  {:>6.2}  {:>12.1}  {:>15.1}  {:>15.1}",
            self.heights_per_second,
            self.cpu_ms(),
            self.user_ms,
            self.system_ms,
            self.fsyncs,
            self.messages,
            self.switches
        )
    }
}

/// Runs the node a configuration file describes until this process is ended.
pub async fn be_a_node(file: &Path) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let node: toml::Table = toml::from_str(&fs::read_to_string(file)?)?;
    let consensus = node.get("consensus").ok_or("the file has no [consensus] section")?;
    let base = file.parent().unwrap_or(Path::new(""));
    let config = Config::parse(&toml::to_string(consensus)?, base)?;
    Ok(consensus_node::run(config, std::future::pending()).await?)
}

fn spawn(args: &Args, home: &Path, config: &Config) -> Result<Child> {
    let file = home.join("node.toml");
    fs::write(&file, toml::to_string(&json!({ "consensus": config }))?)?;
    let mut command = match &args.tandem {
        Some(tandem) => {
            let mut command = Command::new(tandem);
            command.arg("consensusd").arg("--config").arg(&file);
            command
        }
        None => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--node").arg(&file);
            command
        }
    };
    command.args(["--runtime-threads", &args.runtime_threads.to_string()]);
    let log = File::create(home.join("log"))?;
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

/// Paths of sockets have to be short, whatever directory is measured.
fn socket_dir() -> PathBuf {
    std::env::temp_dir().join(format!("consensus-bench-{}", std::process::id()))
}

/// Equal stake, no pause between blocks, timers that do not matter.
fn genesis(keys: &[SecretKey]) -> Result<Genesis> {
    let validators: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            json!({
                "address": Address::left_padding_from(&(index as u64 + 1).to_be_bytes()),
                "public_key": key.public_key(),
                "proof_of_possession": key.prove_possession(),
                "stake": "32000000000000000000",
            })
        })
        .collect();
    let json = json!({
        "config": { "chainId": 31337 },
        "timestamp": 1,
        "gasLimit": 30_000_000,
        "alloc": {},
        "tandem": {
            "validators": validators,
            // One epoch, as long as it takes.
            "epoch_length": 1u64 << 32,
            "timing": { "delta_ms": 500, "block_interval_ms": 0, "empty_block_interval_ms": 0, "work_ms": 500 },
        },
    });
    Ok(Genesis::parse(&json.to_string())?)
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Result<Vec<SocketAddr>> {
    let listeners =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<std::io::Result<Vec<_>>>()?;
    Ok(listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?)
}

async fn http_get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let (_, body) = response.split_once("\r\n\r\n").ok_or("no HTTP response")?;
    Ok(body.to_owned())
}
