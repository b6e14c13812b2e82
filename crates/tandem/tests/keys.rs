//! An operator's day with one validator's key: keystore and password file, a copied directory, its history moved.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use support::{TANDEM, eventually, get};
use tempfile::TempDir;

const OWNER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

fn tandem(home: &Path, arguments: &[&str]) -> Output {
    Command::new(TANDEM).args(arguments).current_dir(home).stdin(Stdio::null()).output().unwrap()
}

/// Runs a command that must succeed; gives what it printed.
fn done(home: &Path, arguments: &[&str]) -> String {
    let output = tandem(home, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must refuse; gives what it said.
fn refused(home: &Path, arguments: &[&str]) -> String {
    let output = tandem(home, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?} was not refused");
    String::from_utf8(output.stderr).unwrap()
}

fn secret_file(home: &Path, name: &str, text: &str) {
    let path = home.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A home with a password file, a keystore made with it, and its public file.
fn home_with_keystore() -> TempDir {
    let home = TempDir::new().unwrap();
    secret_file(home.path(), "password", "correct horse battery staple\n");
    let new = ["keys", "new", "--password-file", "password", "--kdf", "pbkdf2", "--address", OWNER];
    done(home.path(), &new);
    home
}

#[test]
fn a_keystore_is_made_inspected_exported_and_imported_and_opens_with_its_password_only() {
    let home = home_with_keystore();
    let home = home.path();
    let text = std::fs::read_to_string(home.join("validator.json")).unwrap();
    assert!(text.contains("\"crypto\"") && !text.contains("secret_key"), "{text}");
    let public: Value =
        serde_json::from_str(&std::fs::read_to_string(home.join("validator.pub.json")).unwrap()).unwrap();
    let key = public["public_key"].as_str().unwrap().trim_start_matches("0x").to_owned();
    let shown = done(home, &["keys", "inspect", "validator.json"]);
    assert!(shown.contains(&key) && shown.contains("pbkdf2"), "{shown}");
    assert!(done(home, &["keys", "list", "."]).contains(&key));
    let export = ["keys", "export", "validator.json", "--address", OWNER, "--password-file", "password"];
    let exported: Value = serde_json::from_str(&done(home, &export)).unwrap();
    assert_eq!(exported, public);
    secret_file(home, "wrong", "incorrect horse");
    let text = refused(home, &["keys", "inspect", "validator.json", "--password-file", "wrong"]);
    assert!(text.contains("wrong password"), "{text}");
    secret_file(home, "empty", "\n");
    let new = |password| ["keys", "new", "--out", "x.json", "--address", OWNER, "--password-file", password];
    assert!(refused(home, &new("empty")).contains("empty"));
    std::fs::set_permissions(home.join("wrong"), std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refused(home, &new("wrong")).contains("chmod 600"));
    assert!(!home.join("x.json").exists());
    let plain =
        "keys import --plain --out plain.json --keystore validator.json --keystore-password-file password";
    let plain: Vec<&str> = plain.split(' ').chain(["--address", OWNER]).collect();
    assert!(done(home, &plain).contains(&key));
    assert!(done(home, &["keys", "inspect", "plain.json"]).contains(&key));
    assert!(refused(home, &plain).contains("exists"));
}

/// The two processes of a node, ended with the test.
#[test]
fn a_genesis_says_for_how_many_epochs_its_checkpoint_is_trusted() {
    let home = home_with_keystore();
    let home = home.path();
    done(home, &["genesis", "new", "--validator", "validator.pub.json", "--chain-id", "4242"]);
    let path = home.join("genesis.json");
    let mut genesis: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for epochs in [16, 7] {
        genesis["tandem"]["staking"]["unbonding_epochs"] = epochs.into();
        std::fs::write(&path, genesis.to_string()).unwrap();
        let checkpoint = done(home, &["verify", "checkpoint", "--genesis", "genesis.json"]);
        let checkpoint: Value = serde_json::from_str(&checkpoint).unwrap();
        assert_eq!(checkpoint["unbonding_epochs"], epochs);
    }
}

struct Node {
    processes: Vec<Child>,
    rest: u16,
}

impl Node {
    fn start(dir: &Path, offset: u16) -> Self {
        let config = dir.join("node.toml");
        let process = |name: &str| {
            let log = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
            let mut command = Command::new(TANDEM);
            command.arg(name).arg("--config").arg(&config).stdout(Stdio::null()).stderr(log);
            command.spawn().unwrap()
        };
        Self { processes: vec![process("executord"), process("consensusd")], rest: 5052 + offset }
    }

    fn status(&self) -> Option<Value> {
        get(self.rest, "/node/v1/status")
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let status = || self.status().filter(|status| holds(status));
        eventually(what, status)
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        for child in self.processes.iter_mut().rev() {
            if matches!(child.try_wait(), Ok(None)) {
                kill_process(Pid::from_child(child), Signal::TERM).unwrap();
                child.wait().unwrap();
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

fn height(status: &Value) -> u64 {
    status["height"].as_u64().unwrap_or(0)
}

fn has_reason(status: &Value, code: &str) -> bool {
    status["reasons"].as_array().is_some_and(|reasons| reasons.iter().any(|reason| reason["code"] == code))
}

#[test]
fn a_keystore_node_signs_its_copy_refuses_until_accepted_and_its_history_moves() {
    let home = home_with_keystore();
    let home = home.path();
    let genesis = "genesis new --validator validator.pub.json --chain-id 4242 --block-interval 50ms \
                   --empty-block-interval 100ms";
    done(home, &genesis.split_whitespace().collect::<Vec<_>>());
    let offset = 100 + (std::process::id() % 100) as u16 * 20 + 7;
    let port = offset.to_string();
    let init = "init --dir node --genesis genesis.json --key validator.json --password-file password --listen 127.0.0.1 \
                --doppelganger-views 2 --port-offset";
    done(home, &init.split_whitespace().chain([port.as_str()]).collect::<Vec<_>>());

    let node = Node::start(&home.join("node"), offset);
    let status = node.wait_for("blocks", |status| height(status) >= 3);
    assert_eq!(status["role"], "validator", "{status}");
    let text = refused(home, &["keys", "protection", "accept", "--dir", "node"]);
    assert!(text.contains("in use"), "a running node's key is not touched: {text}");
    node.stop();

    assert!(Command::new("cp").args(["-a", "node", "copy"]).current_dir(home).status().unwrap().success());
    let copy = Node::start(&home.join("copy"), offset);
    let status = copy.wait_for("refusal", |status| has_reason(status, "copied_directory"));
    let text = status["reasons"].to_string();
    assert!(text.contains("tandem keys protection accept --dir"), "{text}");
    let before = height(&copy.wait_for("executor", |status| status["engine"]["state"] == "up"));
    // Longer than the start-up wait and several views: a validator that signs would have made blocks.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(height(&copy.status().unwrap()), before, "it signs nothing");
    copy.stop();

    let shown = done(home, &["keys", "protection", "status", "--dir", "copy"]);
    assert!(shown.contains("COPIED") && shown.contains("no alarm"), "{shown}");
    assert!(done(home, &["keys", "protection", "accept", "--dir", "copy"]).contains("accepted"));
    assert!(done(home, &["keys", "protection", "accept", "--dir", "copy"]).contains("nothing to accept"));
    let copy = Node::start(&home.join("copy"), offset);
    copy.wait_for("blocks of the accepted copy", |status| height(status) > before);
    copy.stop();

    history_moves(home, &port);
}

/// From `copy` to a fresh directory, once and again.
fn history_moves(home: &Path, port: &str) {
    done(home, &["keys", "protection", "export", "--dir", "copy", "--out", "history.json"]);
    let history: Value =
        serde_json::from_str(&std::fs::read_to_string(home.join("history.json")).unwrap()).unwrap();
    let target = history["data"][0]["last_target"].as_str().unwrap().to_owned();
    assert!(target.parse::<u64>().unwrap() > 0, "{history}");
    let init =
        "init --dir fresh --genesis genesis.json --key validator.json --password-file password --port-offset";
    done(home, &init.split_whitespace().chain([port]).collect::<Vec<_>>());
    let import = ["keys", "protection", "import", "--dir", "fresh", "history.json"];
    assert!(done(home, &import).contains("1 raised"));
    assert!(done(home, &import).contains("0 raised"));
    let shown = done(home, &["keys", "protection", "status", "--dir", "fresh"]);
    assert!(shown.contains(&format!("-> {target},")), "{shown}");
    let foreign = std::fs::read_to_string(home.join("history.json")).unwrap().replace("\"4242\"", "\"1\"");
    std::fs::write(home.join("foreign.json"), foreign).unwrap();
    let text = refused(home, &["keys", "protection", "import", "--dir", "fresh", "foreign.json"]);
    assert!(text.contains("chain 1 ") && text.contains("chain 4242"), "{text}");
}
