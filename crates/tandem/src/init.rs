//! `tandem init`: makes the directory of one node.

use crate::error::{CliError, CliResult};
use crate::node_file::{NodeFile, NodePaths};
use crate::{files, genesis};
use engine_api::{Endpoint, JwtSecret};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Offsets are added to all ports; the highest one is executord's p2p port.
pub const PORT_OFFSET_MAX: u16 = 30_000;

/// Arguments of `tandem init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to make. Nothing in it is ever replaced.
    #[arg(long, default_value = "node")]
    dir: PathBuf,
    /// Genesis file of the chain; copied into the directory.
    #[arg(long)]
    genesis: PathBuf,
    /// The validator's key file, as `tandem keys new` writes it. Without it the node follows and never votes.
    #[arg(long)]
    key: Option<PathBuf>,
    /// File with the keystore's password, mode 0600. It stays where it is; node.toml names it.
    #[arg(long, requires = "key")]
    password_file: Option<PathBuf>,
    /// Views the node follows without signing after every start, to hear another instance of its key in time; 0 for
    /// none.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(..=consensus_node::DOPPELGANGER_VIEWS_MAX))]
    doppelganger_views: u64,
    /// Where other nodes reach this one.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    listen: IpAddr,
    /// Consensus address (host:9000) of another node; repeat for each.
    #[arg(long = "peer")]
    peers: Vec<SocketAddr>,
    /// Transaction gossip address (host:30303) of another node; repeat for each.
    #[arg(long = "tx-peer")]
    tx_peers: Vec<SocketAddr>,
    /// Added to all port numbers.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=i64::from(PORT_OFFSET_MAX)))]
    port_offset: u16,
}

/// All listening addresses of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// eth JSON-RPC over HTTP and WebSocket.
    pub rpc: SocketAddr,
    /// Consensus REST.
    pub rest: SocketAddr,
    /// Metrics of executord.
    pub execution_metrics: SocketAddr,
    /// Metrics of consensusd.
    pub consensus_metrics: SocketAddr,
    /// Consensus network.
    pub consensus_p2p: SocketAddr,
    /// Transaction network.
    pub execution_p2p: SocketAddr,
}

impl Ports {
    /// The usual ports plus `offset`; the networks listen on `p2p`, everything else on this machine only.
    pub fn new(offset: u16, p2p: IpAddr) -> Self {
        let port = |base: u16| base.saturating_add(offset);
        let local = |base| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(base));
        Self {
            rpc: local(8545),
            rest: local(5052),
            execution_metrics: local(9200),
            consensus_metrics: local(9100),
            consensus_p2p: SocketAddr::new(p2p, port(9000)),
            execution_p2p: SocketAddr::new(p2p, port(30303)),
        }
    }

    /// All of them with what they are for.
    pub fn all(&self) -> [(&'static str, SocketAddr); 6] {
        [
            ("eth JSON-RPC", self.rpc),
            ("consensus REST", self.rest),
            ("execution metrics", self.execution_metrics),
            ("consensus metrics", self.consensus_metrics),
            ("consensus p2p", self.consensus_p2p),
            ("execution p2p", self.execution_p2p),
        ]
    }
}

/// The settings of a node whose files have their usual names beside node.toml.
pub fn node_file(
    genesis: &str,
    ports: &Ports,
    has_key: bool,
    peers: Vec<SocketAddr>,
    tx_peers: Vec<SocketAddr>,
) -> NodeFile {
    let endpoint = Endpoint::Unix("engine.sock".into());
    let consensus = consensus_node::Config {
        genesis: genesis.into(),
        key_file: has_key.then(|| "validator.json".into()),
        p2p_listen: ports.consensus_p2p,
        peers,
        rest_listen: ports.rest,
        metrics_listen: ports.consensus_metrics,
        engine_endpoint: endpoint.clone(),
        ..consensus_node::Config::default()
    };
    let mut execution = execution_node::Config::new(genesis, "execution", endpoint, "jwt.hex");
    execution.rpc.address = ports.rpc;
    execution.metrics_listen = Some(ports.execution_metrics);
    execution.p2p_listen = Some(ports.execution_p2p);
    execution.peers = tx_peers;
    NodeFile::new(consensus, execution)
}

/// Runs `tandem init`.
pub fn run(args: &Args) -> CliResult {
    let chain = genesis::load(&args.genesis)?;
    let paths = NodePaths::new(&args.dir);
    if paths.config().exists() {
        return Err(CliError::new(format!(
            "{} is a node directory already; nothing was changed",
            args.dir.display()
        )));
    }
    let password_file = args
        .password_file
        .as_ref()
        .map(|path| path.canonicalize().map_err(CliError::while_trying(format!("find {}", path.display()))));
    let password_file = password_file.transpose()?;
    if let Some(path) = &args.key {
        // Before anything is made: does it open?
        consensus_node::unlock_key(path, password_file.as_deref())
            .map_err(|error| CliError::new(error.to_string()))?;
    }
    files::create_dir(&args.dir)?;
    files::write_new(&args.dir.join("genesis.json"), genesis::to_json(&chain)?.as_bytes(), 0o644)?;
    if let Some(key) = &args.key {
        files::write_new(&paths.key(), files::read_text(key)?.as_bytes(), 0o600)?;
    }
    JwtSecret::load_or_create(&paths.jwt()).map_err(|error| CliError::new(error.to_string()))?;
    let ports = Ports::new(args.port_offset, args.listen);
    let has_key = args.key.is_some();
    let file = node_file("genesis.json", &ports, has_key, args.peers.clone(), args.tx_peers.clone());
    let views = if has_key { args.doppelganger_views } else { 0 };
    let file = file.guarded(password_file, views);
    let comment = "Settings of one Tandem node. Relative paths are relative to this file.";
    // Last: a directory with node.toml is complete.
    files::write_new(&paths.config(), file.text(comment)?.as_bytes(), 0o644)?;
    let config = paths.config();
    println!("{} written. Start both processes:", config.display());
    println!("  tandem executord --config {0}\n  tandem consensusd --config {0}", config.display());
    Ok(())
}
