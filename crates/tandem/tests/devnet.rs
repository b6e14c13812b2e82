//! The real thing: whole networks of separate processes, started by the `tandem` binary itself.
#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Bound of every wait. Machines that build at the same time are slow.
const PATIENCE: Duration = Duration::from_secs(120);

const TANDEM: &str = env!("CARGO_BIN_EXE_tandem");

/// Offsets below 2,400 keep all ports under the range that systems hand out by themselves.
static NEXT_OFFSET: AtomicU16 = AtomicU16::new(0);

fn next_offset() -> u16 {
    let start = 100 + (std::process::id() % 100) as u16 * 20;
    100 + (start + NEXT_OFFSET.fetch_add(10, Ordering::Relaxed)) % 2_300
}

/// A running `tandem devnet`.
struct Devnet {
    child: Child,
    lines: Receiver<Value>,
    /// Every event so far.
    events: Vec<Value>,
    dir: PathBuf,
    offset: u16,
}

impl Devnet {
    /// Starts a network and waits until it is ready.
    fn start(dir: &Path, options: &[&str]) -> Self {
        // Another program may hold a port: then the next offset is tried.
        for _ in 0..20 {
            let mut devnet = Self::launch(dir, next_offset(), options);
            if devnet.wait_for("ready", |event| event["event"] == "ready").is_some() {
                return devnet;
            }
            let mut errors = String::new();
            devnet.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            assert!(errors.contains("cannot listen"), "devnet did not start: {errors}");
        }
        panic!("no free ports");
    }

    fn launch(dir: &Path, offset: u16, options: &[&str]) -> Self {
        let mut child =
            command(dir, offset, options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event =
                    serde_json::from_str(&line).unwrap_or_else(|_| panic!("not one JSON event: {line}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, events: Vec::new(), dir: dir.to_owned(), offset }
    }

    /// Waits for an event; `None` when the output ended before.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.events.push(event.clone());
                    if wanted(&event) {
                        return Some(event);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no {what} within {PATIENCE:?}: {:?}", self.events),
            }
        }
    }

    /// Process ids by (node, process), as last told.
    fn pids(&self) -> BTreeMap<(u64, String), i32> {
        let started = self.events.iter().filter(|e| e["event"] == "started" || e["event"] == "restarted");
        started
            .map(|event| {
                let key = (event["node"].as_u64().unwrap(), event["process"].as_str().unwrap().to_owned());
                (key, event["pid"].as_i64().unwrap() as i32)
            })
            .collect()
    }

    fn pid(&self, node: u64, process: &str) -> i32 {
        self.pids()[&(node, process.to_owned())]
    }

    fn rpc(&self, node: u16, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let head = format!(
            "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        http(8545 + self.offset + node, &head, &body).map_or(Value::Null, |answer| answer["result"].clone())
    }

    fn height(&self, node: u16) -> u64 {
        let text = self.rpc(node, "eth_blockNumber", json!([]));
        text.as_str().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()).unwrap_or(0)
    }

    fn status(&self, node: u16) -> Value {
        http(5052 + self.offset + node, "GET /node/v1/status HTTP/1.1\r\n", "").unwrap_or(Value::Null)
    }

    fn url(&self, node: u16) -> String {
        format!("http://127.0.0.1:{}", 8545 + self.offset + node)
    }

    /// SIGTERM; the exit code and the last event.
    fn stop(&mut self) -> (Option<i32>, Value) {
        signal(self.child.id() as i32, Signal::TERM);
        let stopped = self.wait_for("stop", |event| event["event"] == "stopped").unwrap();
        (self.child.wait().unwrap().code(), stopped)
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        // A test that failed half-way: the nodes die with their supervisor.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path, offset: u16, options: &[&str]) -> Command {
    let mut command = Command::new(TANDEM);
    command
        .args(["devnet", "--json", "--base-port-offset", &offset.to_string(), "--dir"])
        .arg(dir)
        .args(options);
    command
}

fn tandem(args: &[&str]) -> Output {
    Command::new(TANDEM).args(args).output().unwrap()
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; only its parent has not looked yet.
    stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}

fn http(port: u16, head: &str, body: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(format!("{head}Host: localhost\r\nConnection: close\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Looks again and again until `look` finds something.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn four_validators_agree_outlive_kills_and_stop_in_order() {
    let dir = TempDir::new().unwrap();
    let mut net = Devnet::start(dir.path(), &["--validators", "4"]);
    assert_eq!(net.rpc(3, "eth_chainId", json!([])), "0x7a69");

    // Transactions sent to two nodes become final everywhere.
    let rpcs = format!("{},{}", net.url(0), net.url(2));
    let load = tandem(&["load", "--txs", "400", "--connections", "4", "--json", "--rpc", &rpcs]);
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    let report: Value = serde_json::from_slice(&load.stdout).unwrap();
    assert_eq!((&report["final"], &report["duplicates"]), (&json!(400), &json!(0)), "{report}");

    // A killed process of each kind comes back and catches up.
    for process in ["consensusd", "executord"] {
        let killed = net.pid(2, process);
        signal(killed, Signal::KILL);
        net.wait_for("restart", |e| e["event"] == "restarted" && e["node"] == 2 && e["process"] == process)
            .unwrap();
        assert_ne!(net.pid(2, process), killed);
        let goal = net.height(0) + 3;
        eventually("catching up", || (net.height(2) >= goal).then_some(()));
    }

    // An executor that hangs is noticed and named; its validator comes back by itself.
    let executor = net.pid(1, "executord");
    signal(executor, Signal::STOP);
    let asked = Instant::now();
    let reason = eventually("a reason", || {
        let status = net.status(1);
        status["reasons"].as_array()?.iter().find(|reason| reason["code"] == "engine_down").cloned()
    });
    assert!(reason["message"].as_str().is_some_and(|text| !text.is_empty()));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let goal = net.height(0) + 3;
    eventually("blocks without the fourth validator", || (net.height(0) >= goal).then_some(()));
    signal(executor, Signal::CONT);
    eventually("recovery", || (net.status(1)["healthy"] == true && net.height(1) >= goal).then_some(()));

    // One chain.
    let common = (0..4).map(|node| net.height(node)).min().unwrap();
    for height in 1..=common {
        let blocks =
            (0..4).map(|node| net.rpc(node, "eth_getBlockByNumber", json!([format!("{height:#x}"), false])));
        let keys: Vec<_> = blocks.map(|block| (block["hash"].clone(), block["stateRoot"].clone())).collect();
        assert!(keys[0].0.is_string() && keys.iter().all(|key| *key == keys[0]), "height {height}: {keys:?}");
    }

    let pids = net.pids();
    let (code, stopped) = net.stop();
    assert_eq!(code, Some(0));
    assert!(stopped["height"].as_u64().unwrap() >= common);
    assert!(pids.values().all(|pid| !is_alive(*pid)));
    assert!((0..4).all(|node| !net.dir.join(format!("node-{node}/consensusd.pid")).exists()));
    for node in 0..4 {
        let check =
            tandem(&["db", "check", net.dir.join(format!("node-{node}/consensus")).to_str().unwrap()]);
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }
}

#[test]
fn a_chain_goes_on_where_it_stopped_and_other_options_are_refused() {
    let dir = TempDir::new().unwrap();
    let mut net = Devnet::start(dir.path(), &["--validators", "1", "--chain-id", "4242"]);
    eventually("three blocks", || (net.height(0) >= 3).then_some(()));
    let hash = net.rpc(0, "eth_getBlockByNumber", json!(["0x3", false]))["hash"].clone();
    let second = command(dir.path(), net.offset, &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("another devnet runs") && text.contains(&net.child.id().to_string()), "{text}");
    let (code, stopped) = net.stop();
    assert_eq!(code, Some(0));
    let refused = command(dir.path(), net.offset, &["--chain-id", "5"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--chain-id 4242"));

    let mut again = Devnet::start(dir.path(), &[]);
    assert_eq!(again.rpc(0, "eth_chainId", json!([])), "0x1092");
    assert_eq!(again.rpc(0, "eth_getBlockByNumber", json!(["0x3", false]))["hash"], hash);
    let before = stopped["height"].as_u64().unwrap();
    eventually("new blocks", || (again.height(0) > before).then_some(()));
    assert_eq!(again.stop().0, Some(0));
}

#[test]
fn no_process_outlives_a_killed_supervisor() {
    let dir = TempDir::new().unwrap();
    let mut net = Devnet::start(dir.path(), &["--validators", "1"]);
    let pids: Vec<i32> = net.pids().into_values().collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)));
    net.child.kill().unwrap();
    net.child.wait().unwrap();
    eventually("the nodes' end", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
    // The pid files are stale now, and no obstacle.
    assert!(dir.path().join("node-0/executord.pid").exists());
    assert_eq!(Devnet::start(dir.path(), &[]).stop().0, Some(0));
}
