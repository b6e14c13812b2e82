//! What tests with processes of their own share: patience, and HTTP without a library.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub const TANDEM: &str = env!("CARGO_BIN_EXE_tandem");

/// Bound of every wait. Machines that build at the same time are slow.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Looks again and again until `look` finds something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A request to this machine; `head` has its first lines. `None` without a JSON answer.
pub fn http(port: u16, head: &str, body: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(format!("{head}Host: localhost\r\nConnection: close\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

pub fn get(port: u16, path: &str) -> Option<Value> {
    http(port, &format!("GET {path} HTTP/1.1\r\n"), "")
}

/// The whole answer to a JSON-RPC call.
pub fn json_rpc(port: u16, method: &str, params: Value) -> Option<Value> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let length = body.len();
    let head = format!("POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
    http(port, &head, &body)
}
