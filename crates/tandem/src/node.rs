//! `tandem consensusd` and `tandem executord`: the two processes of a node.

use crate::error::{CliError, CliResult};
use crate::node_file::NodeFile;
use std::future::Future;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is logged unless RUST_LOG says otherwise. The JSON-RPC library would log hostile requests one by one.
const DEFAULT_LOG: &str = "info,jsonrpsee-server=off";

/// Arguments of both processes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's configuration file.
    #[arg(long, default_value = "node.toml")]
    config: PathBuf,
    /// Die with this process: the supervisor that started this one.
    #[arg(long, hide = true)]
    parent_pid: Option<i32>,
    /// Threads for everything but consensus, execution and signature checks; by default as many as processors, at
    /// most 4.
    #[arg(long, hide = true)]
    runtime_threads: Option<usize>,
}

/// Runs a consensus process until it is told to stop.
pub fn consensusd(args: &Args) -> CliResult {
    start(args)?;
    let config = NodeFile::load(&args.config)?.into_consensus(&args.config)?;
    run(args, async move { consensus_node::run(config, stop_signal()?).await.map_err(failed) })
}

/// Runs an execution process until it is told to stop.
pub fn executord(args: &Args) -> CliResult {
    start(args)?;
    let config = NodeFile::load(&args.config)?.into_execution(&args.config)?;
    run(args, async move { execution_node::run(config, stop_signal()?).await.map_err(failed) })
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::new(error.to_string())
}

fn start(args: &Args) -> CliResult {
    if let Some(parent) = args.parent_pid {
        die_with(parent)?;
    }
    start_logging();
    if !args.config.exists() {
        return Err(missing_config(&args.config));
    }
    Ok(())
}

fn missing_config(path: &Path) -> CliError {
    CliError::new(format!(
        "no configuration file {}: pass --config, or make a node directory with `tandem init`",
        path.display()
    ))
}

/// Asks the system to end this process with its parent, whatever ends that one.
fn die_with(parent: i32) -> CliResult {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(CliError::while_trying("tie this process to its supervisor"))?;
    // The parent may have died before the request.
    match rustix::process::getppid() {
        Some(pid) if pid.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(CliError::new(format!("the supervisor {parent} that started this process is gone"))),
    }
}

fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Its own complaint about a log that cannot be written would go to the same full disk, and panic.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Logging that is set up already, by a test, stays.
    let _ = subscriber.try_init();
}

fn run(args: &Args, node: impl Future<Output = CliResult>) -> CliResult {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.runtime_threads.unwrap_or(processors.min(4)).max(1))
        .enable_all()
        .build()
        .map_err(CliError::while_trying("start the runtime"))?;
    let result = runtime.block_on(node);
    // A blocking task that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// Resolves at the first SIGINT or SIGTERM.
pub fn stop_signal() -> CliResult<impl Future<Output = ()> + Send + 'static> {
    let listen = |kind| signal(kind).map_err(CliError::while_trying("listen for signals"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
