//! The directory of a development network: made once, locked while it runs, reused when started again.

use super::Args;
use crate::accounts::{self, DEV_MNEMONIC};
use crate::error::{CliError, CliResult};
use crate::genesis::{self, DEV_CHAIN_ID, Parameters};
use crate::init::{Ports, node_file};
use crate::keys::DEFAULT_STAKE;
use crate::node_file::NodePaths;
use crate::{files, procfs};
use crypto::SecretKey;
use engine_api::JwtSecret;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use types::genesis::Timing;
use types::{Genesis, Stake};

const MARKER: &str = "devnet.json";
const GENESIS: &str = "genesis.json";
const LOCK: &str = "devnet.lock";
const DEFAULT_VALIDATORS: u32 = 4;
const DEFAULT_ACCOUNTS: u32 = 10;
const DEFAULT_BLOCK_INTERVAL_MS: u64 = 250;

/// Validators' owner accounts stand far behind the funded ones in the mnemonic, so that fees never change the
/// balances people expect of those.
const FIRST_OWNER: u32 = 1_000_000;

/// What a directory was made for. Written before anything else and again, complete, after everything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// Version of the layout.
    tandem_devnet: u32,
    complete: bool,
    validators: u32,
    chain_id: u64,
    accounts: u32,
    block_interval_ms: u64,
}

const LAYOUT_VERSION: u32 = 1;

/// A prepared and locked directory.
pub struct Layout {
    /// Absolute path.
    pub dir: PathBuf,
    pub genesis: Genesis,
    pub ports: Vec<Ports>,
    _lock: File,
}

impl Layout {
    /// Makes or reuses the directory and checks everything that could stop the processes.
    pub fn prepare(args: &Args) -> CliResult<Self> {
        refuse_foreign(&args.dir)?;
        files::create_dir(&args.dir)?;
        let dir = args
            .dir
            .canonicalize()
            .map_err(CliError::while_trying(format!("open {}", args.dir.display())))?;
        let lock = lock(&dir)?;
        refuse_running_nodes(&dir)?;
        let old = read_marker(&dir)?;
        let old = match old {
            // An unfinished directory never ran: nothing in it is worth keeping.
            Some(marker) if args.fresh || !marker.complete => {
                clear(&dir)?;
                None
            }
            other => other,
        };
        let marker = match old {
            Some(marker) => {
                compare(args, &marker, &dir)?;
                marker
            }
            None => create(&dir, args)?,
        };
        let ports = ports(args, marker.validators)?;
        refuse_used_ports(&ports)?;
        let genesis = genesis::load(&dir.join(GENESIS))?;
        write_node_files(&dir, &ports)?;
        Ok(Self { dir, genesis, ports, _lock: lock })
    }

    /// Directory of one node.
    pub fn node_dir(&self, node: usize) -> PathBuf {
        node_dir(&self.dir, node)
    }
}

fn node_dir(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("node-{node}"))
}

/// Refuses a directory that holds something else than a development network.
fn refuse_foreign(dir: &Path) -> CliResult {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CliError::while_trying(format!("open {}", dir.display()))(error)),
    };
    let names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    if names.iter().any(|name| name == MARKER) {
        return Ok(());
    }
    match names.iter().find(|name| *name != LOCK) {
        None => Ok(()),
        Some(name) => Err(CliError::new(format!(
            "{} holds {name} and was not made by `tandem devnet`; nothing was changed. Choose another --dir",
            dir.display()
        ))),
    }
}

fn lock(dir: &Path) -> CliResult<File> {
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(CliError::while_trying(format!("open {}", path.display())))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            // Only a hint for people; an unreadable one is left out.
            let _ = file.take(32).read_to_string(&mut owner);
            return Err(CliError::new(format!(
                "another devnet runs in {} (process {}): stop it with Ctrl-C or kill, or choose another --dir and \
                 --base-port-offset",
                dir.display(),
                owner.trim()
            )));
        }
        Err(errno) => return Err(CliError::while_trying(format!("lock {}", path.display()))(errno)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(CliError::while_trying(format!("write {}", path.display())))?;
    Ok(file)
}

/// Nodes of a supervisor that was killed die with it. Whatever else still works in here must end first.
fn refuse_running_nodes(dir: &Path) -> CliResult {
    for node in (0..).map(|node| node_dir(dir, node)).take_while(|node| node.is_dir()) {
        for role in ["consensusd", "executord"] {
            let path = node.join(format!("{role}.pid"));
            let Ok(text) = fs::read_to_string(&path) else { continue };
            match text.trim().parse::<u32>() {
                Ok(pid) if is_node(pid, role, &node) => {
                    return Err(CliError::new(format!(
                        "process {pid} ({role}) still works in {}: end it with `kill {pid}`, then start again",
                        node.display()
                    )));
                }
                // The file of a process that is gone.
                _ => fs::remove_file(&path)
                    .map_err(CliError::while_trying(format!("remove the stale {}", path.display())))?,
            }
        }
    }
    Ok(())
}

/// Whether a process is a node's: the number alone may belong to somebody else by now.
fn is_node(pid: u32, role: &str, dir: &Path) -> bool {
    let runs_role = procfs::command_line(pid).is_some_and(|args| args.iter().any(|arg| arg == role));
    runs_role && procfs::working_directory(pid).is_some_and(|cwd| cwd == dir)
}

fn read_marker(dir: &Path) -> CliResult<Option<Marker>> {
    let path = dir.join(MARKER);
    if !path.exists() {
        return Ok(None);
    }
    let marker: Marker = serde_json::from_str(&files::read_text(&path)?).map_err(|error| {
        CliError::new(format!("{} is damaged ({error}): use --fresh to start over", path.display()))
    })?;
    if marker.tandem_devnet != LAYOUT_VERSION {
        return Err(CliError::new(format!(
            "{} was made by another version (layout {}, this is {LAYOUT_VERSION}): use --fresh to start over",
            dir.display(),
            marker.tandem_devnet
        )));
    }
    Ok(Some(marker))
}

/// Refuses options that contradict what the directory was made for.
fn compare(args: &Args, marker: &Marker, dir: &Path) -> CliResult {
    let given = [
        ("--validators", args.validators.map(u64::from), u64::from(marker.validators)),
        ("--chain-id", args.chain_id, marker.chain_id),
        ("--accounts", args.accounts.map(u64::from), u64::from(marker.accounts)),
        ("--block-interval", args.block_interval, marker.block_interval_ms),
    ];
    for (option, wanted, made) in given {
        if wanted.is_some_and(|wanted| wanted != made) {
            return Err(CliError::new(format!(
                "{} was made with {option} {made}; leave {option} out to continue that chain, or add --fresh to delete \
                 it and start over",
                dir.display()
            )));
        }
    }
    Ok(())
}

/// Removes what `create` makes, and nothing else.
fn clear(dir: &Path) -> CliResult {
    for node in (0..).map(|node| node_dir(dir, node)).take_while(|node| node.exists()) {
        fs::remove_dir_all(&node).map_err(CliError::while_trying(format!("remove {}", node.display())))?;
    }
    for name in [GENESIS, MARKER] {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(CliError::while_trying(format!("remove {name}"))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn create(dir: &Path, args: &Args) -> CliResult<Marker> {
    let mut marker = Marker {
        tandem_devnet: LAYOUT_VERSION,
        complete: false,
        validators: args.validators.unwrap_or(DEFAULT_VALIDATORS),
        chain_id: args.chain_id.unwrap_or(DEV_CHAIN_ID),
        accounts: args.accounts.unwrap_or(DEFAULT_ACCOUNTS),
        block_interval_ms: args.block_interval.unwrap_or(DEFAULT_BLOCK_INTERVAL_MS),
    };
    write_marker(dir, &marker)?;
    let owners = accounts::derive_from(DEV_MNEMONIC, FIRST_OWNER, marker.validators)?;
    let mut validators = Vec::with_capacity(owners.len());
    for (node, owner) in owners.iter().enumerate() {
        let paths = NodePaths::new(node_dir(dir, node));
        files::create_dir(&paths.logs())?;
        let key = SecretKey::generate();
        consensus_node::write_key(&paths.key(), &key).map_err(|error| CliError::new(error.to_string()))?;
        JwtSecret::load_or_create(&paths.jwt()).map_err(|error| CliError::new(error.to_string()))?;
        validators.push(genesis::validator(&key, owner.address, Stake::new(DEFAULT_STAKE)));
    }
    let timing = Timing {
        block_interval_ms: marker.block_interval_ms,
        empty_block_interval_ms: marker.block_interval_ms.max(Timing::default().empty_block_interval_ms),
        ..Timing::default()
    };
    let genesis = genesis::build(Parameters {
        chain_id: marker.chain_id,
        validators,
        alloc: genesis::dev_alloc(marker.accounts)?.into_iter().chain([genesis::create2_factory()]).collect(),
        gas_limit: args.gas_limit.unwrap_or(genesis::DEV_GAS_LIMIT),
        base_fee: genesis::BASE_FEE_WEI,
        epoch_length: args.epoch_length.unwrap_or(genesis::EPOCH_LENGTH),
        timing,
        timestamp: genesis::now(),
    })?;
    files::write_new(&dir.join(GENESIS), genesis::to_json(&genesis)?.as_bytes(), 0o644)?;
    marker.complete = true;
    write_marker(dir, &marker)?;
    Ok(marker)
}

fn write_marker(dir: &Path, marker: &Marker) -> CliResult {
    let json = serde_json::to_string_pretty(marker).map_err(CliError::while_trying("write devnet.json"))?;
    files::replace(&dir.join(MARKER), json.as_bytes(), 0o644)
}

fn ports(args: &Args, validators: u32) -> CliResult<Vec<Ports>> {
    let last = u64::from(args.base_port_offset) + u64::from(validators);
    if last > u64::from(crate::init::PORT_OFFSET_MAX) {
        let max = crate::init::PORT_OFFSET_MAX;
        return Err(CliError::new(format!(
            "--base-port-offset plus --validators is {last}, must be at most {max}"
        )));
    }
    let offsets = (args.base_port_offset..).take(validators as usize);
    Ok(offsets.map(|offset| Ports::new(offset, Ipv4Addr::LOCALHOST.into())).collect())
}

fn refuse_used_ports(ports: &[Ports]) -> CliResult {
    for (node, ports) in ports.iter().enumerate() {
        for (purpose, address) in ports.all() {
            if let Err(error) = TcpListener::bind(address) {
                return Err(CliError::new(format!(
                    "cannot listen on {address}, the {purpose} port of node {node}: {error}. Stop what uses it (`ss -ltnp \
                     | grep {}` shows it) or shift all ports with --base-port-offset",
                    address.port()
                )));
            }
        }
    }
    Ok(())
}

/// Written at every start, because ports may be shifted.
fn write_node_files(dir: &Path, ports: &[Ports]) -> CliResult {
    let peers: Vec<SocketAddr> = ports.iter().map(|ports| ports.consensus_p2p).collect();
    let tx_peers: Vec<SocketAddr> = ports.iter().map(|ports| ports.execution_p2p).collect();
    for (node, own) in ports.iter().enumerate() {
        let others =
            |all: &[SocketAddr], own: SocketAddr| all.iter().copied().filter(|peer| *peer != own).collect();
        let peers = others(&peers, own.consensus_p2p);
        let tx_peers = others(&tx_peers, own.execution_p2p);
        let file = node_file("../genesis.json", own, true, peers, tx_peers).open_to_web_pages();
        let paths = NodePaths::new(node_dir(dir, node));
        let comment = "Written by `tandem devnet` at every start. Relative paths are relative to this file.";
        files::replace(&paths.config(), file.text(comment)?.as_bytes(), 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::node_file::NodeFile;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// Arguments for `dir` on ports that other tests do not use.
    fn args(dir: &Path, offset: u16, more: &[&str]) -> Args {
        let offset = offset.to_string();
        let base = ["devnet", "--dir", dir.to_str().unwrap(), "--base-port-offset", &offset];
        Cli::parse_from(base.iter().chain(more)).args
    }

    #[test]
    fn a_directory_is_made_once_and_reused_with_the_same_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        let first =
            Layout::prepare(&args(&path, 11_000, &["--validators", "3", "--accounts", "12"])).unwrap();
        assert_eq!((first.ports.len(), first.genesis.alloc.len()), (3, 12 + 1));
        let config = NodePaths::new(first.node_dir(2)).config();
        let consensus = NodeFile::load(&config).unwrap().into_consensus(&config).unwrap();
        assert_eq!(consensus.peers.len(), 2);
        consensus_node::load_key(&consensus.key_file.unwrap()).unwrap();
        let hash = first.genesis.hash();
        drop(first);
        let again = Layout::prepare(&args(&path, 11_010, &[])).unwrap();
        assert_eq!((again.genesis.hash(), again.ports.len()), (hash, 3));
        drop(again);
        let fresh = Layout::prepare(&args(&path, 11_010, &["--fresh"])).unwrap();
        assert_ne!(fresh.genesis.hash(), hash);
        assert_eq!(fresh.ports.len(), 4);
    }

    #[test]
    fn what_is_in_the_way_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let prepare = |path: &Path, offset, more: &[&str]| {
            Layout::prepare(&args(path, offset, more)).err().map(|e| e.to_string())
        };
        // Somebody's files.
        let foreign = dir.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.txt"), "x").unwrap();
        for more in [&[][..], &["--fresh"]] {
            assert!(prepare(&foreign, 11_020, more).unwrap().contains("thesis.txt"));
        }
        assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
        // Another devnet.
        let path = dir.path().join("net");
        let held = Layout::prepare(&args(&path, 11_020, &["--validators", "1"])).unwrap();
        assert!(prepare(&path, 11_020, &["--fresh"]).unwrap().contains(&std::process::id().to_string()));
        drop(held);
        // Other options.
        let error = prepare(&path, 11_020, &["--validators", "2"]).unwrap();
        assert!(error.contains("--validators 1") && error.contains("--fresh"), "{error}");
        // A port in use.
        let _busy = TcpListener::bind("127.0.0.1:20064").unwrap();
        let error = prepare(&path, 20_064 - 8545, &[]).unwrap();
        assert!(error.contains("127.0.0.1:20064") && error.contains("--base-port-offset"), "{error}");
    }

    #[test]
    fn stale_pid_files_vanish_and_an_unfinished_directory_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        drop(Layout::prepare(&args(&path, 11_040, &["--validators", "1"])).unwrap());
        let pid_file = path.join("node-0/consensusd.pid");
        fs::write(&pid_file, std::process::id().to_string()).unwrap();
        fs::write(path.join("node-0/executord.pid"), "garbage").unwrap();
        let hash = Layout::prepare(&args(&path, 11_040, &[])).unwrap().genesis.hash();
        assert!(!pid_file.exists());
        let marker = fs::read_to_string(path.join(MARKER)).unwrap().replace("true", "false");
        fs::write(path.join(MARKER), marker).unwrap();
        assert_ne!(
            Layout::prepare(&args(&path, 11_040, &["--validators", "1"])).unwrap().genesis.hash(),
            hash
        );
    }
}
