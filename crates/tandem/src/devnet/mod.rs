//! `tandem devnet`: a whole network on one machine.

mod layout;
mod monitor;
mod output;
mod supervisor;

use crate::error::{CliError, CliResult};
use layout::Layout;
use monitor::Monitor;
use output::Output;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use supervisor::{Change, Phase, Process, ProcessEvent, Role};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Validators on one machine: 2N processes and 6N ports.
const VALIDATORS_MAX: i64 = 64;

/// Exits of one process before the network was ever ready, after which starting is given up.
const START_EXITS_MAX: u32 = 5;

/// Some launchers send one Ctrl-C twice: a second signal counts as another one after this time only.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

const REFRESH: Duration = Duration::from_millis(250);

/// Arguments of `tandem devnet`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Validators; 4 for a new network.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=VALIDATORS_MAX))]
    validators: Option<u32>,
    /// Directory of the network's keys, data and logs.
    #[arg(long, default_value = "./devnet")]
    dir: PathBuf,
    /// Delete the network in --dir and start a new one.
    #[arg(long)]
    fresh: bool,
    /// Least time between two blocks; 250ms for a new network.
    #[arg(long, value_parser = crate::duration::parse_ms)]
    block_interval: Option<u64>,
    /// Added to all port numbers.
    #[arg(long, default_value_t = 0)]
    base_port_offset: u16,
    /// EIP-155 chain id; 31337 for a new network.
    #[arg(long)]
    chain_id: Option<u64>,
    /// Funded accounts of the development mnemonic; 10 for a new network.
    #[arg(long)]
    accounts: Option<u32>,
    /// Gas limit of the blocks of a new network.
    #[arg(long)]
    gas_limit: Option<u64>,
    /// Heights per epoch of a new network.
    #[arg(long)]
    epoch_length: Option<u64>,
    /// Do not start processes again that end.
    #[arg(long)]
    no_restart: bool,
    /// Print one JSON event per line.
    #[arg(long)]
    json: bool,
}

/// Runs a network until it is told to stop.
pub fn run(args: &Args) -> CliResult {
    let started = Instant::now();
    let layout = Layout::prepare(args)?;
    // One thread, this one: the children's lives hang on it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::while_trying("start the runtime"))?;
    runtime.block_on(async {
        let output = Output::new(args.json, &layout, started);
        Network::start(&layout, output, args.no_restart)?.run().await
    })
}

struct Network {
    output: Output,
    monitor: Monitor,
    phase: watch::Sender<Phase>,
    events: mpsc::UnboundedReceiver<ProcessEvent>,
    processes: Vec<(Role, JoinHandle<CliResult>)>,
    signals: [Signal; 3],
    ready: bool,
    early_exits: BTreeMap<(usize, Role), u32>,
    logs: PathBuf,
}

impl Network {
    fn start(layout: &Layout, mut output: Output, no_restart: bool) -> CliResult<Self> {
        let listen = |kind| signal(kind).map_err(CliError::while_trying("listen for signals"));
        let signals = [
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ];
        output.starting();
        let (phase, phases) = watch::channel(Phase::Run);
        let (sender, events) = mpsc::unbounded_channel();
        let mut processes = Vec::new();
        for role in [Role::Execution, Role::Consensus] {
            for node in 0..layout.ports.len() {
                let process = Process {
                    node,
                    role,
                    dir: layout.node_dir(node),
                    restart: !no_restart,
                    events: sender.clone(),
                    phase: phases.clone(),
                };
                processes.push((role, tokio::spawn(process.supervise())));
            }
        }
        let monitor = Monitor::start(layout);
        let (ready, early_exits, logs) = (false, BTreeMap::new(), layout.dir.clone());
        Ok(Self { output, monitor, phase, events, processes, signals, ready, early_exits, logs })
    }

    async fn run(mut self) -> CliResult {
        let result = self.run_until_stopped().await;
        self.stop().await;
        result
    }

    async fn run_until_stopped(&mut self) -> CliResult {
        let mut refresh = tokio::time::interval(REFRESH);
        loop {
            let changed = self.monitor.changed.clone();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.process_changed(&event)?,
                    None => return Err(CliError::new("all supervisors ended")),
                },
                () = changed.notified(), if !self.ready => self.look_whether_ready(),
                _ = refresh.tick() => self.output.refresh(&self.monitor),
                () = any(&mut self.signals) => return Ok(()),
            }
            // A supervisor ends by itself only when it cannot start its process at all.
            if let Some(failed) = self.processes.iter().position(|(_, process)| process.is_finished()) {
                let (_, process) = self.processes.swap_remove(failed);
                return process.await.unwrap_or_else(|error| Err(CliError::new(error.to_string())));
            }
        }
    }

    fn look_whether_ready(&mut self) {
        if self.monitor.all_ready() {
            self.ready = true;
            self.output.ready();
        }
    }

    fn process_changed(&mut self, event: &ProcessEvent) -> CliResult {
        self.output.process(event);
        if let (Change::Exited { last_line, .. }, false) = (&event.change, self.ready) {
            let exits = self.early_exits.entry((event.node, event.role)).or_default();
            *exits += 1;
            if *exits >= START_EXITS_MAX {
                let log = self.logs.join(format!("node-{}/logs/{}.log", event.node, event.role.name()));
                return Err(CliError::new(format!(
                    "{} of node {} does not start: {last_line} (see {})",
                    event.role.name(),
                    event.node,
                    log.display()
                )));
            }
        }
        Ok(())
    }

    /// Consensus first, then execution; another signal kills what is left.
    async fn stop(&mut self) {
        let (asked, mut height) = (Instant::now(), 0);
        self.output.stopping();
        for (phase, role) in [(Phase::StopConsensus, Role::Consensus), (Phase::StopAll, Role::Execution)] {
            self.phase.send_if_modified(|current| {
                let later = phase > *current;
                *current = phase.max(*current);
                later
            });
            self.wait_for(role, asked).await;
            if role == Role::Consensus {
                height = self.monitor.last_height().await;
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.output.process(&event);
        }
        self.output.stopped(height);
    }

    async fn wait_for(&mut self, role: Role, asked: Instant) {
        let (mut waiting, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.processes).into_iter().partition(|(of, _)| *of == role);
        self.processes = rest;
        while let Some((_, process)) = waiting.last_mut() {
            tokio::select! {
                // How it ended was told as an event.
                _ = process => drop(waiting.pop()),
                () = any(&mut self.signals) => {
                    if asked.elapsed() > SAME_SIGNAL {
                        self.phase.send_replace(Phase::Kill);
                    }
                }
            }
        }
    }
}

/// Resolves at the next of these signals.
async fn any(signals: &mut [Signal; 3]) {
    let [interrupt, terminate, hangup] = signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
