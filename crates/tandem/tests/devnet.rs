//! The real thing: whole networks of separate processes, started by the `tandem` binary itself.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;
use support::{PATIENCE, TANDEM, eventually, get, json_rpc};
use tempfile::TempDir;

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
        let answer = json_rpc(8545 + self.offset + node, method, params);
        answer.map_or(Value::Null, |answer| answer["result"].clone())
    }

    fn height(&self, node: u16) -> u64 {
        let text = self.rpc(node, "eth_blockNumber", json!([]));
        text.as_str().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()).unwrap_or(0)
    }

    fn status(&self, node: u16) -> Value {
        get(5052 + self.offset + node, "/node/v1/status").unwrap_or(Value::Null)
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
    let reason = eventually("a reason", || {
        let status = net.status(1);
        status["reasons"].as_array()?.iter().find(|reason| reason["code"] == "engine_down").cloned()
    });
    assert!(reason["message"].as_str().is_some_and(|text| !text.is_empty()));
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

/// A server between `tandem verify` and a node that changes what the node says.
struct Liar {
    port: u16,
}

impl Liar {
    /// Every JSON answer to a path goes through `change`; `None` becomes "not found".
    fn start(node: u16, change: impl Fn(&str, Value) -> Option<Value> + Send + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Ends with the test's process: it only waits for connections.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                Self::answer(stream, node, &change);
            }
        });
        Self { port }
    }

    fn answer(mut stream: TcpStream, node: u16, change: &dyn Fn(&str, Value) -> Option<Value>) {
        let mut request = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                match request.read_line(&mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) if line == "\r\n" => break,
                    Ok(_) => lines.push(line),
                }
            }
            let path = lines[0].split(' ').nth(1).unwrap().to_owned();
            let answer = get(node, &path);
            let (status, body) = match answer.and_then(|answer| change(&path, answer)) {
                Some(answer) => ("200 OK", answer.to_string()),
                None => ("404 Not Found", "{}".to_owned()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
                return;
            }
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Another digit at a place of a hex text.
fn bent(value: &Value, at: usize) -> Value {
    let mut text = value.as_str().unwrap().to_owned();
    let other = if &text[at..=at] == "0" { "1" } else { "0" };
    text.replace_range(at..=at, other);
    json!(text)
}

fn verify(args: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let output = tandem(&[&["verify", "--json"], args].concat());
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines, String::from_utf8(output.stderr).unwrap())
}

type Change = Box<dyn Fn(&str, Value) -> Option<Value> + Send>;

/// What a node may do to its answers, the exit code that gets it, and what the user is told.
fn lies(node: u16) -> Vec<(i32, &'static str, Change)> {
    /// Changes one field where the answer has it.
    fn field(name: &'static str, change: impl Fn(&Value) -> Value + Send + 'static) -> Change {
        Box::new(move |_, mut answer| {
            if answer[name].is_string() {
                answer[name] = change(&answer[name]);
            }
            Some(answer)
        })
    }
    let last = |text: &Value| text.as_str().unwrap().len() - 1;
    let of_update = |height: u64, change: fn(&mut Value)| -> Change {
        Box::new(move |path: &str, mut answer| {
            if path.ends_with(&format!("/update/{height}")) {
                change(&mut answer);
            }
            Some(answer)
        })
    };
    let other_question = move |path: &str, answer| match path.ends_with("/update/8") {
        true => get(node, "/consensus/v1/update/12"),
        false => Some(answer),
    };
    vec![
        // A digit of the header's state hash.
        (3, "the certificate is for block", field("header", |text| bent(text, 2 + 2 * 210))),
        (3, "does not hold", field("commit", move |text| bent(text, last(text)))),
        (3, "not hex", field("commit", |_| json!("0xzz"))),
        (3, "canonical", field("header", |text| json!(text.as_str().unwrap().to_owned() + "00"))),
        (3, "have the id", of_update(8, |answer| answer["validators"][0]["stake"] = json!("1"))),
        (3, "make no set", of_update(8, |answer| answer["validators"] = json!([]))),
        (3, "not the answer of a Tandem node", of_update(8, |answer| *answer = json!({"news": 1}))),
        (3, "asked to prove height 8, it proved height 12", Box::new(other_question)),
        (1, "404", Box::new(|path, answer| (!path.ends_with("/update/8")).then_some(answer))),
        (
            3,
            "withholds what is final",
            Box::new(|_, mut answer| {
                if answer["finalized"].is_object() {
                    answer["finalized"]["height"] = json!(2);
                }
                Some(answer)
            }),
        ),
    ]
}

#[test]
fn a_node_is_proven_right_over_epochs_and_a_lying_one_is_caught() {
    let dir = TempDir::new().unwrap();
    let mut net = Devnet::start(dir.path(), &["--validators", "3", "--epoch-length", "4"]);
    eventually("three epochs", || (net.height(1) >= 13).then_some(()));
    let (rest, node) = (format!("http://127.0.0.1:{}", 5052 + net.offset + 1), 5052 + net.offset + 1);
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (genesis, trusted, later) = (file("genesis.json"), file("trusted.json"), file("later.json"));
    assert!(tandem(&["verify", "checkpoint", "--genesis", &genesis, "--out", &trusted]).status.success());

    // To the head, through every epoch; then on from what was proven.
    let old = "--accept-old-checkpoint";
    let (code, lines, errors) = verify(&["--from", &trusted, "--rpc", &rest, old, "--out", &later]);
    assert_eq!(code, Some(0), "{errors}");
    let proven = &lines.last().unwrap()["proven"];
    let (height, hash) = (proven["height"].as_u64().unwrap(), proven["block_hash"].as_str().unwrap());
    let header = get(node, &format!("/consensus/v1/headers/{height}")).unwrap();
    assert_eq!((&header["hash"], &header["state_hash"]), (&proven["block_hash"], &proven["state_hash"]));
    let epochs: Vec<_> = lines.iter().filter_map(|line| line["step"]["epoch"].as_u64()).collect();
    assert!(height >= 13 && (0..=3).all(|epoch| epochs.contains(&epoch)), "{lines:?}");
    let (code, _, errors) = verify(&["--from", &later, "--rpc", &rest, old]);
    assert_eq!(code, Some(0), "{errors}");

    // A hash is a checkpoint too, and what is below it is proven by parent hashes.
    let (code, lines, errors) = verify(&["--from", hash, "--rpc", &rest, "--height", "6"]);
    assert_eq!(code, Some(0), "{errors}");
    let sixth = get(node, "/consensus/v1/headers/6").unwrap();
    assert_eq!(lines.last().unwrap()["proven"]["state_hash"], sixth["state_hash"]);

    // One changed field, each time another one.
    for (code, says, change) in lies(node) {
        let liar = Liar::start(node, change);
        let recent = if says.starts_with("withholds") { "1" } else { "600" };
        let (found, lines, errors) =
            verify(&["--from", &trusted, "--rpc", &liar.url(), old, "--max-age", recent]);
        assert!(found == Some(code) && errors.contains(says), "{says}: {found:?} {errors}");
        assert!(lines.iter().all(|line| line["proven"].is_null()), "{says}");
    }

    // Trust that is too old, and a height that does not exist.
    let (code, _, errors) = verify(&["--from", &trusted, "--rpc", &rest, "--trust-epochs", "1"]);
    assert_eq!(code, Some(3), "{errors}");
    assert!(
        errors.contains("trust in epoch 0 ends with epoch 1, after 1 epochs, and this is epoch 2"),
        "{errors}"
    );
    assert!(errors.contains("--accept-old-checkpoint") && !errors.contains("warning"), "{errors}");
    let (code, _, errors) = verify(&["--from", &trusted, "--rpc", &rest, old, "--height", "1000000"]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("404"), "{errors}");
    assert_eq!(net.stop().0, Some(0));
}
