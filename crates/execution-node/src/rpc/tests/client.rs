//! Clients that show what is really on the wire.

use futures::io::{BufReader, BufWriter};
use serde_json::{Value, json};
use soketto::handshake::{Client, ServerResponse};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// Nothing in these tests takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("hangs")
}

/// One HTTP/1.1 connection.
pub(super) struct Http {
    stream: TcpStream,
    buffered: Vec<u8>,
    next_id: u64,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Http {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffered: Vec::new(), next_id: 0 }
    }

    /// Calls a method; `Err` is the JSON-RPC error object.
    pub(super) async fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.next_id += 1;
        let id = self.next_id;
        let reply = self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        assert_eq!(reply.status, 200);
        let mut answer = reply.json();
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(id)), "{answer}");
        match answer.get("error") {
            Some(_) => Err(answer["error"].take()),
            None => Ok(answer.get_mut("result").expect("result or error").take()),
        }
    }

    /// Calls a method that must succeed.
    pub(super) async fn ok(&mut self, method: &str, params: Value) -> Value {
        self.call(method, params.clone()).await.unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    /// Calls a method that must fail; gives code and message.
    pub(super) async fn fails(&mut self, method: &str, params: Value) -> (i64, String) {
        let error = self.call(method, params.clone()).await.expect_err(method);
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    pub(super) async fn post(&mut self, body: &Value) -> Reply {
        self.post_bytes(body.to_string().as_bytes()).await
    }

    pub(super) async fn post_bytes(&mut self, body: &[u8]) -> Reply {
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}"
        );
        self.exchange(&head, body).await
    }

    /// Sends a request (head without its last line ends) and reads the reply.
    pub(super) async fn exchange(&mut self, head: &str, body: &[u8]) -> Reply {
        // One write: the pieces of a request must not wait for each other's acknowledgement.
        let request = [head.as_bytes(), b"\r\n\r\n", body].concat();
        patiently(async {
            self.stream.write_all(&request).await.unwrap();
            self.reply().await
        })
        .await
    }

    async fn reply(&mut self) -> Reply {
        let end = loop {
            if let Some(end) = self.buffered.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            self.read_some().await;
        };
        let head = String::from_utf8(self.buffered[..end].to_vec()).unwrap();
        let mut reply = Reply { status: head[9..12].parse().unwrap(), head, body: Vec::new() };
        let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.buffered.len() < end + 4 + length {
            self.read_some().await;
        }
        reply.body = self.buffered[end + 4..end + 4 + length].to_vec();
        self.buffered.drain(..end + 4 + length);
        reply
    }

    async fn read_some(&mut self) {
        let mut chunk = [0; 16 << 10];
        let count = self.stream.read(&mut chunk).await.unwrap();
        assert_ne!(count, 0, "connection closed");
        self.buffered.extend_from_slice(&chunk[..count]);
    }

    /// Whether the server has closed the connection (waits until it does).
    pub(super) async fn closed(&mut self) -> bool {
        let mut byte = [0];
        !matches!(patiently(self.stream.read(&mut byte)).await, Ok(1))
    }
}

type Stream = BufReader<BufWriter<Compat<TcpStream>>>;

/// One WebSocket connection.
pub(super) struct Ws {
    sender: soketto::Sender<Stream>,
    receiver: soketto::Receiver<Stream>,
    next_id: u64,
    /// Notifications that came while an answer was waited for.
    notifications: std::collections::VecDeque<Value>,
}

impl Ws {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream).await
    }

    pub(super) async fn over(stream: TcpStream) -> Self {
        let mut client = Client::new(BufReader::new(BufWriter::new(stream.compat())), "localhost", "/");
        match patiently(client.handshake()).await.unwrap() {
            ServerResponse::Accepted { .. } => {}
            other => panic!("{other:?}"),
        }
        let (sender, receiver) = client.into_builder().finish();
        Self { sender, receiver, next_id: 0, notifications: Default::default() }
    }

    pub(super) async fn send(&mut self, text: &str) {
        patiently(async {
            self.sender.send_text(text).await.unwrap();
            self.sender.flush().await.unwrap();
        })
        .await;
    }

    /// Sends and waits for ever if the server does not read.
    pub(super) async fn send_without_patience(&mut self, text: &str) {
        self.sender.send_text(text).await.unwrap();
        self.sender.flush().await.unwrap();
    }

    /// The next message; `None` when the connection is closed.
    pub(super) async fn receive(&mut self) -> Option<Value> {
        let mut data = Vec::new();
        patiently(self.receiver.receive_data(&mut data)).await.ok()?;
        Some(serde_json::from_slice(&data).unwrap())
    }

    pub(super) async fn call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.next_id += 1;
        let id = json!(self.next_id);
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
        loop {
            let mut message = self.receive().await.expect("connection closed");
            if message["id"] != id {
                self.notifications.push_back(message);
                continue;
            }
            return match message.get("error") {
                Some(_) => Err(message["error"].take()),
                None => Ok(message["result"].take()),
            };
        }
    }

    /// Subscribes and gives the id.
    pub(super) async fn subscribe(&mut self, params: Value) -> String {
        self.call("eth_subscribe", params).await.unwrap().as_str().unwrap().to_owned()
    }

    /// The next notification of subscription `id`; no other may come.
    pub(super) async fn next(&mut self, id: &str) -> Value {
        let mut message = match self.notifications.pop_front() {
            Some(message) => message,
            None => self.receive().await.expect("connection closed"),
        };
        assert_eq!((&message["jsonrpc"], &message["method"]), (&json!("2.0"), &json!("eth_subscription")));
        assert_eq!(message["params"]["subscription"], id);
        message["params"]["result"].take()
    }
}
