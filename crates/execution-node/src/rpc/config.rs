//! What an operator can set about the JSON-RPC server, checked once before it starts.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// Settings of the JSON-RPC server. Every limit bounds what one caller can make the node hold or do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RpcConfig {
    /// Where to listen, for HTTP and WebSocket alike. Port 0 takes any free one. Anything but a loopback
    /// address opens the node's reads and its pool to that network.
    pub address: SocketAddr,
    /// Web origins whose pages may read answers (CORS, and the `Origin` of WebSocket handshakes); `*` allows
    /// every page. Programs and browser extensions send no such header and are not affected.
    pub cors_origins: Vec<String>,
    /// Names accepted in the `Host` header; `*` accepts any. IP addresses are always accepted: only a name
    /// can be pointed at this machine by somebody else (DNS rebinding).
    pub hosts: Vec<String>,
    /// Open TCP connections; further ones are closed at once.
    pub connections_max: u32,
    /// Bytes of one request body or WebSocket message.
    pub request_bytes_max: u32,
    /// Bytes of one response, a batch counting as one.
    pub response_bytes_max: u32,
    /// Calls in one batch.
    pub batch_calls_max: u32,
    /// Subscriptions of one WebSocket connection.
    pub connection_subscriptions_max: u32,
    /// Messages that wait for a slow WebSocket reader before its subscriptions stop feeding it.
    pub connection_messages_max: u32,
    /// How long a subscriber may accept nothing before its connection is closed.
    pub subscriber_stall_ms_max: u64,
    /// How many blocks a subscriber may lag behind before its connection is closed.
    pub subscriber_lag_blocks_max: u64,
    /// Time for one HTTP request, reading it included.
    pub request_ms_max: u64,
    /// How long an HTTP connection may stay idle between requests.
    pub idle_ms_max: u64,
    /// Expensive calls (`eth_call`, `eth_estimateGas`, `eth_getLogs`, ...) at once; 0 means one per CPU, at
    /// least two.
    pub heavy_calls_max: usize,
    /// Expensive calls that may wait for a turn; further ones are refused.
    pub heavy_waiting_max: usize,
    /// Gas of one `eth_call` or `eth_estimateGas`.
    pub call_gas_max: u64,
    /// Time one log query may take.
    pub logs_ms_max: u64,
    /// Blocks one log query may span.
    pub logs_blocks_max: u64,
    /// Logs one answer may hold.
    pub logs_results_max: usize,
    /// Installed filters, of all callers together.
    pub filters_max: usize,
    /// How long a filter lives without being polled.
    pub filter_idle_ms_max: u64,
    /// Blocks one `eth_feeHistory` may span; longer requests are shortened, as in other clients.
    pub fee_history_blocks_max: u64,
    /// Smallest suggested priority fee in wei; `None` means 1 gwei, and nothing on a chain without fees.
    pub tip_floor_wei: Option<u64>,
    /// Default and longest wait of `eth_sendRawTransactionSync`.
    pub sync_send_ms_max: u64,
    /// Callers that may wait in `eth_sendRawTransactionSync` at once.
    pub sync_send_waiting_max: usize,
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8545)),
            cors_origins: Vec::new(),
            hosts: vec!["localhost".into()],
            connections_max: 2_000,
            request_bytes_max: 5 << 20,
            response_bytes_max: 32 << 20,
            batch_calls_max: 1_000,
            connection_subscriptions_max: 128,
            connection_messages_max: 256,
            subscriber_stall_ms_max: 10_000,
            subscriber_lag_blocks_max: 512,
            request_ms_max: 30_000,
            idle_ms_max: 120_000,
            heavy_calls_max: 0,
            heavy_waiting_max: 512,
            call_gas_max: 50_000_000,
            logs_ms_max: 10_000,
            logs_blocks_max: 10_000,
            logs_results_max: 20_000,
            filters_max: 4_096,
            filter_idle_ms_max: 300_000,
            fee_history_blocks_max: 1_024,
            tip_floor_wei: None,
            sync_send_ms_max: 20_000,
            sync_send_waiting_max: 4_096,
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcConfigError {
    /// A limit is outside its range.
    #[error("rpc.{field} is {value}, must be from {low} to {high}")]
    OutOfRange {
        /// Which one.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        low: u64,
        /// The most it may be.
        high: u64,
    },
    /// An origin that no browser would send.
    #[error("rpc.cors_origins has {0:?}, must be * or scheme://host[:port] without a path")]
    Origin(String),
    /// A host that no request would name.
    #[error("rpc.hosts has {0:?}, must be * or a host name without a port")]
    Host(String),
}

const DAY_MS: u64 = 86_400_000;

impl RpcConfig {
    /// Checks every range.
    pub fn check(&self) -> Result<(), RpcConfigError> {
        let ranges = [
            ("connections_max", self.connections_max.into(), 1, 1_000_000),
            ("request_bytes_max", self.request_bytes_max.into(), 1 << 10, 1 << 30),
            ("response_bytes_max", self.response_bytes_max.into(), 1 << 10, 1 << 30),
            ("batch_calls_max", self.batch_calls_max.into(), 1, 1_000_000),
            ("connection_subscriptions_max", self.connection_subscriptions_max.into(), 0, 1_000_000),
            ("connection_messages_max", self.connection_messages_max.into(), 1, 1_000_000),
            ("subscriber_stall_ms_max", self.subscriber_stall_ms_max, 1, DAY_MS),
            ("subscriber_lag_blocks_max", self.subscriber_lag_blocks_max, 1, u64::MAX),
            ("request_ms_max", self.request_ms_max, 1, DAY_MS),
            ("idle_ms_max", self.idle_ms_max, 1, DAY_MS),
            ("heavy_calls_max", self.heavy_calls_max as u64, 0, 512),
            ("heavy_waiting_max", self.heavy_waiting_max as u64, 0, 1_000_000),
            ("call_gas_max", self.call_gas_max, 21_000, i64::MAX as u64),
            ("logs_ms_max", self.logs_ms_max, 1, DAY_MS),
            ("logs_blocks_max", self.logs_blocks_max, 1, u64::MAX),
            ("logs_results_max", self.logs_results_max as u64, 1, 10_000_000),
            ("filters_max", self.filters_max as u64, 0, 1_000_000),
            ("filter_idle_ms_max", self.filter_idle_ms_max, 1, DAY_MS),
            ("fee_history_blocks_max", self.fee_history_blocks_max, 1, 1 << 16),
            ("sync_send_ms_max", self.sync_send_ms_max, 1, DAY_MS),
            ("sync_send_waiting_max", self.sync_send_waiting_max as u64, 0, 1_000_000),
        ];
        for (field, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(RpcConfigError::OutOfRange { field, value, low, high });
            }
        }
        if let Some(origin) = self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(RpcConfigError::Origin(origin.clone()));
        }
        if let Some(host) = self.hosts.iter().find(|host| !is_host(host)) {
            return Err(RpcConfigError::Host(host.clone()));
        }
        Ok(())
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return text == "*" || text == "null" };
    let printable = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    printable(scheme) && printable(rest) && !rest.contains('/')
}

fn is_host(text: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    text == "*" || text.parse::<std::net::IpAddr>().is_ok() || (!text.is_empty() && text.bytes().all(name))
}
