//! What a devnet tells its user: JSON events for programs, lines for logs, a live screen for people.

use super::layout::Layout;
use super::monitor::Monitor;
use super::supervisor::{Change, ProcessEvent, Role};
use crate::procfs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two summary lines where there is no terminal.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Json,
    Lines,
    Screen,
}

/// The output of one run.
pub struct Output {
    style: Style,
    dir: PathBuf,
    chain_id: u64,
    rpc: Vec<String>,
    rest: Vec<String>,
    started: Instant,
    /// Lines of the live screen that the next one overwrites.
    drawn: usize,
    last_summary: Instant,
    /// Process id and CPU use of every process, as last measured.
    processes: BTreeMap<(usize, Role), Measured>,
    ready: bool,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    pid: Option<u32>,
    cpu_seconds: f64,
    at: Instant,
    percent: f64,
    memory_bytes: u64,
}

impl Output {
    /// JSON when asked for, a live screen on a terminal, lines otherwise.
    pub fn new(json: bool, layout: &Layout, started: Instant) -> Self {
        let style = match json {
            true => Style::Json,
            false if std::io::stdout().is_terminal() => Style::Screen,
            false => Style::Lines,
        };
        Self {
            style,
            dir: layout.dir.clone(),
            chain_id: layout.genesis.config.chain_id,
            rpc: layout.ports.iter().map(|ports| format!("http://{}", ports.rpc)).collect(),
            rest: layout.ports.iter().map(|ports| format!("http://{}", ports.rest)).collect(),
            started,
            drawn: 0,
            last_summary: started,
            processes: BTreeMap::new(),
            ready: false,
        }
    }

    /// The first words.
    pub fn starting(&mut self) {
        let nodes = self.rpc.len();
        let text =
            format!("starting {nodes} validators, chain id {}, in {}", self.chain_id, self.dir.display());
        self.tell(
            &json!({"event": "starting", "validators": nodes, "chain_id": self.chain_id, "dir": self.dir}),
            &text,
        );
    }

    /// Every node has finalized a block.
    pub fn ready(&mut self) {
        self.ready = true;
        let seconds = self.started.elapsed().as_secs_f64();
        let event = json!({
            "event": "ready",
            "seconds": seconds,
            "chain_id": self.chain_id,
            "validators": self.rpc.len(),
            "dir": self.dir,
            "rpc": self.rpc,
            "rest": self.rest,
        });
        let text = format!(
            "ready after {seconds:.2} s: JSON-RPC {}, chain id {}; dashboard {}",
            self.rpc[0], self.chain_id, self.rest[0]
        );
        self.tell(&event, &text);
    }

    /// A process changed.
    pub fn process(&mut self, event: &ProcessEvent) {
        let (node, process) = (event.node, event.role.name());
        let key = (event.node, event.role);
        let mut measured =
            Measured { pid: None, cpu_seconds: 0.0, at: Instant::now(), percent: 0.0, memory_bytes: 0 };
        match &event.change {
            Change::Started { pid, restarts } => {
                measured.pid = Some(*pid);
                let name = if *restarts == 0 { "started" } else { "restarted" };
                let json = json!({"event": name, "node": node, "process": process, "pid": pid, "restarts": restarts});
                let text = format!("node {node}: {process} {name} (process {pid})");
                if *restarts > 0 || self.style != Style::Screen {
                    self.tell(&json, &text);
                }
            }
            Change::Exited { code, signal, last_line } => {
                let how = match (code, signal) {
                    (_, Some(signal)) => format!("was killed by signal {signal}"),
                    (Some(code), None) => format!("exited with code {code}: {last_line}"),
                    (None, None) => "ended".into(),
                };
                let json = json!({"event": "exited", "node": node, "process": process, "code": code, "signal": signal,
                    "message": last_line});
                self.tell(&json, &format!("node {node}: {process} {how}"));
            }
            Change::Stopped { killed } => {
                let json =
                    json!({"event": "exited", "node": node, "process": process, "code": 0, "killed": killed});
                let how = if *killed { "had to be killed" } else { "stopped" };
                if *killed || self.style == Style::Json {
                    self.tell(&json, &format!("node {node}: {process} {how}"));
                }
            }
        }
        self.processes.insert(key, measured);
    }

    /// Shows what is new since the last call.
    pub fn refresh(&mut self, monitor: &Monitor) {
        let news = std::mem::take(&mut monitor.chain().news);
        match self.style {
            Style::Json => {
                for block in news {
                    self.tell(
                        &json!({"event": "height", "height": block.height, "hash": block.hash,
                            "transactions": block.transactions}),
                        "",
                    );
                }
            }
            Style::Lines => self.summary(monitor),
            Style::Screen => self.draw(monitor),
        }
    }

    /// Stopping takes a moment.
    pub fn stopping(&mut self) {
        self.tell(&json!({"event": "stopping"}), "stopping; press Ctrl-C again to kill");
    }

    /// The last words.
    pub fn stopped(&mut self, height: u64) {
        self.tell(
            &json!({"event": "stopped", "height": height}),
            &format!("stopped at height {height}; start again in {} to go on", self.dir.display()),
        );
    }

    fn tell(&mut self, event: &Value, text: &str) {
        match self.style {
            Style::Json => write_out(&format!("{event}\n")),
            Style::Lines => write_out(&format!("{text}\n")),
            Style::Screen => {
                self.erase();
                write_out(&format!("{text}\n"));
            }
        }
    }

    fn summary(&mut self, monitor: &Monitor) {
        if !self.ready || self.last_summary.elapsed() < SUMMARY_EVERY {
            return;
        }
        self.last_summary = Instant::now();
        let nodes = monitor.nodes();
        let healthy =
            nodes.iter().filter(|node| node.status.as_ref().is_some_and(|status| status.healthy)).count();
        let reason = nodes.iter().flat_map(|node| &node.status).find(|status| !status.healthy);
        let chain = monitor.chain();
        let (txs, blocks) = chain.rates(Instant::now());
        let mut line = format!(
            "height {}, {blocks:.1} blocks/s, {txs:.0} tx/s, pool {}, {healthy} of {} nodes healthy",
            chain.height,
            chain.pending,
            nodes.len()
        );
        if let Some(status) = reason {
            line += &format!(": {}", status.reason_line());
        }
        drop(chain);
        write_out(&format!("{line}\n"));
    }

    /// Takes the live screen off the terminal.
    fn erase(&mut self) {
        if self.drawn > 0 {
            write_out(&format!("\x1b[{}A\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    fn draw(&mut self, monitor: &Monitor) {
        self.measure();
        let width = match rustix::termios::tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
            // A terminal that does not know its own size.
            _ => 100,
        };
        let lines = self.screen(monitor);
        let mut text = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        for line in &lines {
            // A line that wraps would put all later ones in the wrong place.
            let cut: String = line.chars().take(width.saturating_sub(1).max(20)).collect();
            text += &format!("{cut}\x1b[K\n");
        }
        text += "\x1b[J";
        self.drawn = lines.len();
        write_out(&text);
    }

    fn screen(&self, monitor: &Monitor) -> Vec<String> {
        let now = Instant::now();
        let nodes = monitor.nodes();
        let chain = monitor.chain().clone();
        let (txs, blocks) = chain.rates(now);
        let up = self.started.elapsed().as_secs();
        let age = chain
            .seen
            .map_or("-".into(), |seen| format!("{:.1} s ago", now.duration_since(seen).as_secs_f64()));
        let mut lines = vec![
            String::new(),
            format!(
                "Tandem devnet   chain id {}   {} validators   up {}:{:02}:{:02}",
                self.chain_id,
                nodes.len(),
                up / 3600,
                up / 60 % 60,
                up % 60
            ),
            format!(
                "final height {} ({age})   {blocks:.1} blocks/s   {txs:.0} tx/s   pool {} pending, {} queued",
                chain.height, chain.pending, chain.queued
            ),
            String::new(),
            format!(
                "{:<5} {:>8} {:>7} {:>6} {:>11} {:>11} {:>9}  status",
                "node", "final", "view", "peers", "consensus %", "execution %", "memory MB"
            ),
        ];
        for (node, view) in nodes.iter().enumerate() {
            lines.push(self.node_line(node, view));
        }
        lines.push(String::new());
        lines.push(format!("JSON-RPC {}   dashboard {}   Ctrl-C stops", self.rpc[0], self.rest[0]));
        lines
    }

    fn node_line(&self, node: usize, view: &super::monitor::NodeView) -> String {
        let number = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        let measured = |role| self.processes.get(&(node, role));
        let percent = |role| measured(role).map_or("-".into(), |m| format!("{:.1}", m.percent));
        let memory: u64 =
            [Role::Consensus, Role::Execution].into_iter().filter_map(measured).map(|m| m.memory_bytes).sum();
        let status = view.status.as_ref();
        let peers = status
            .and_then(|s| s.validators.as_ref())
            .map_or("-".into(), |v| format!("{}/{}", v.connected, v.total));
        let words = match status {
            Some(status) if status.healthy => "ok".into(),
            Some(status) => status.reason_line(),
            None if self.ready => format!("does not answer: {}", view.error),
            None => "starting".into(),
        };
        format!(
            "{node:<5} {:>8} {:>7} {peers:>6} {:>11} {:>11} {:>9}  {words}",
            number(status.and_then(|s| s.height)),
            number(status.and_then(|s| s.view)),
            percent(Role::Consensus),
            percent(Role::Execution),
            memory >> 20,
        )
    }

    /// Updates CPU and memory figures about once per second.
    fn measure(&mut self) {
        for measured in self.processes.values_mut() {
            let Some(usage) = measured.pid.and_then(procfs::usage) else { continue };
            let seconds = measured.at.elapsed().as_secs_f64();
            measured.memory_bytes = usage.memory_bytes;
            if seconds >= 1.0 {
                measured.percent = 100.0 * (usage.cpu_seconds - measured.cpu_seconds).max(0.0) / seconds;
                measured.cpu_seconds = usage.cpu_seconds;
                measured.at = Instant::now();
            }
        }
    }
}

fn write_out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // Whoever read along is gone: the network goes on.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
