//! The settings of one executor. Read once, checked once; a key that is not known here is an error, so that a
//! misspelt setting never passes for its default.

use crate::fault::FaultConfig;
use crate::pool::AdmissionLimits;
use crate::rpc::{RpcConfig, RpcConfigError};
use engine_api::{Endpoint, EndpointError};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use types::Genesis;

/// Settings of executord.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The chain's genesis file. Its hash names the chain: a data directory of another genesis is refused.
    pub genesis: PathBuf,
    /// Where state, blocks and the transaction journal are kept. One process at a time; losing it costs a
    /// download of the chain, never money or votes.
    pub data_dir: PathBuf,
    /// Where the Engine API is served: a Unix socket path or a loopback address. Whoever reaches it and holds
    /// the secret decides what is final here.
    pub engine_endpoint: Endpoint,
    /// File with 64 hex digits: the secret that both processes of a node share. Must exist; readable by its
    /// owner only.
    pub jwt_secret: PathBuf,
    /// Where other executors reach this one for transactions. `None`: this node neither relays nor receives
    /// transactions, and only its own blocks hold what its users send.
    #[serde(default)]
    pub p2p_listen: Option<SocketAddr>,
    /// Executors to connect to. Without any, this one waits to be connected to.
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
    /// Where `/metrics` and `/health` are served. `None` serves them nowhere.
    #[serde(default)]
    pub metrics_listen: Option<SocketAddr>,
    /// Past heights whose state stays readable, for `eth_call` and the like at older blocks. More costs disk.
    #[serde(default = "default_history_blocks")]
    pub history_blocks: u64,
    /// Memory for cached database blocks, in MiB. Less makes reads of cold state slower.
    #[serde(default = "default_cache_mib")]
    pub cache_mib: u64,
    /// Longest time building a payload may take, in milliseconds; 0 means half of the genesis' `work_ms`. Longer
    /// gives fuller blocks, and views that time out when validators need longer than `work_ms` to check them.
    #[serde(default)]
    pub build_ms_max: u64,
    /// JSON-RPC.
    #[serde(default)]
    pub rpc: RpcConfig,
    /// Transaction pool.
    #[serde(default)]
    pub pool: PoolConfig,
    /// Deliberate misbehaviour, for tests.
    #[serde(default)]
    pub fault: FaultConfig,
}

/// The `[pool]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// Transactions in all. When full, what pays least goes first.
    pub transactions_max: usize,
    /// Encoded bytes of all transactions, in MiB.
    pub mib_max: usize,
    /// Transactions of one sender. Bounds what a busy service may have in flight.
    pub account_transactions_max: usize,
    /// Transactions of one sender that wait behind a nonce gap.
    pub account_queued_max: usize,
    /// Transactions of one sender with delegated code (EIP-7702), whose transactions anyone may void.
    pub delegated_account_transactions_max: usize,
    /// Minutes a transaction may stay.
    pub lifetime_minutes: u64,
    /// Least priority fee in wei that is admitted. 0 admits everything; leave it so on a chain without fees.
    pub tip_floor_wei: u64,
    /// Admit legacy transactions without a chain id. Some deployment schemes need them; anybody may replay them
    /// from other chains.
    pub allow_unprotected: bool,
    /// Keep local transactions over restarts, in a file in the data directory.
    pub journal: bool,
    /// Threads that check transactions; 0 means one per processor.
    pub threads: usize,
    /// Submissions that may wait for a check; further callers wait longer.
    pub waiting_max: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        let limits = txpool::Limits::default();
        let admission = AdmissionLimits::default();
        Self {
            transactions_max: limits.transactions_max,
            mib_max: limits.bytes_max >> 20,
            account_transactions_max: limits.account_transactions_max,
            account_queued_max: limits.account_queued_max,
            delegated_account_transactions_max: limits.delegated_account_transactions_max,
            lifetime_minutes: limits.lifetime_ms / 60_000,
            tip_floor_wei: 0,
            allow_unprotected: false,
            journal: true,
            threads: 0,
            waiting_max: admission.local_waiting_max,
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not the expected TOML.
    #[error("configuration: {0}")]
    Toml(String),
    /// A path is empty.
    #[error("{field} is empty, must be a path")]
    NoPath {
        /// Which one.
        field: &'static str,
    },
    /// A number is out of range.
    #[error("{field} is {value}, must be from {low} to {high}")]
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
    /// The endpoint cannot be served.
    #[error("engine_endpoint: {0}")]
    Endpoint(#[from] EndpointError),
    /// The RPC section.
    #[error(transparent)]
    Rpc(#[from] RpcConfigError),
    /// Two servers on one port.
    #[error("{first} and {second} are both {address}")]
    SameAddress {
        /// One setting.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Peers without a network.
    #[error("peers has {count} entries, but p2p_listen is not set: there is no network to connect with")]
    PeersWithoutNetwork {
        /// How many peers.
        count: usize,
    },
    /// Too many peers.
    #[error("peers has {count} entries, at most {max} are possible")]
    TooManyPeers {
        /// How many peers.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// A fault without the word that it is meant.
    #[error(
        "fault.fault is set: this node would misbehave on purpose; tests set fault.i_am_testing = true as well"
    )]
    Fault,
}

/// Executors one connects to by configuration.
const PEERS_MAX: usize = 256;

impl Config {
    /// Defaults for everything but the four settings that have none.
    pub fn new(
        genesis: impl Into<PathBuf>,
        data_dir: impl Into<PathBuf>,
        engine_endpoint: Endpoint,
        jwt_secret: impl Into<PathBuf>,
    ) -> Self {
        Self {
            genesis: genesis.into(),
            data_dir: data_dir.into(),
            engine_endpoint,
            jwt_secret: jwt_secret.into(),
            p2p_listen: None,
            peers: Vec::new(),
            metrics_listen: None,
            history_blocks: default_history_blocks(),
            cache_mib: default_cache_mib(),
            build_ms_max: 0,
            rpc: RpcConfig::default(),
            pool: PoolConfig::default(),
            fault: FaultConfig::default(),
        }
    }

    /// Parses and checks a TOML text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Toml(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Checks every value.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (field, path) in
            [("genesis", &self.genesis), ("data_dir", &self.data_dir), ("jwt_secret", &self.jwt_secret)]
        {
            if path.as_os_str().is_empty() {
                return Err(ConfigError::NoPath { field });
            }
        }
        self.check_ranges()?;
        self.engine_endpoint.check()?;
        self.rpc.check()?;
        self.check_addresses()?;
        match self.peers.len() {
            0 => {}
            count if self.p2p_listen.is_none() => return Err(ConfigError::PeersWithoutNetwork { count }),
            count if count > PEERS_MAX => return Err(ConfigError::TooManyPeers { count, max: PEERS_MAX }),
            _ => {}
        }
        if self.fault.fault.is_some() && !self.fault.i_am_testing {
            return Err(ConfigError::Fault);
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let pool = &self.pool;
        let ranges = [
            ("history_blocks", self.history_blocks, 1, 1 << 32),
            ("cache_mib", self.cache_mib, 8, 1 << 20),
            ("build_ms_max", self.build_ms_max, 0, 600_000),
            ("pool.transactions_max", pool.transactions_max as u64, 1, 10_000_000),
            ("pool.mib_max", pool.mib_max as u64, 1, 1 << 16),
            ("pool.account_transactions_max", pool.account_transactions_max as u64, 1, 10_000_000),
            ("pool.account_queued_max", pool.account_queued_max as u64, 0, 10_000_000),
            (
                "pool.delegated_account_transactions_max",
                pool.delegated_account_transactions_max as u64,
                1,
                10_000_000,
            ),
            ("pool.lifetime_minutes", pool.lifetime_minutes, 1, 1 << 20),
            ("pool.threads", pool.threads as u64, 0, 512),
            ("pool.waiting_max", pool.waiting_max as u64, 1, 1_000_000),
        ];
        for (field, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                return Err(ConfigError::OutOfRange { field, value, low, high });
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let engine = match &self.engine_endpoint {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Unix(_) => None,
        };
        // The p2p port is UDP and TCP of its own; the others are TCP.
        let named = [
            ("rpc.address", Some(self.rpc.address)),
            ("engine_endpoint", engine),
            ("metrics_listen", self.metrics_listen),
            ("p2p_listen", self.p2p_listen),
        ];
        for (index, (first, a)) in named.iter().enumerate() {
            for (second, b) in &named[index + 1..] {
                if let (Some(a), Some(b)) = (a, b)
                    && a == b
                    && a.port() != 0
                {
                    return Err(ConfigError::SameAddress { first, second, address: *a });
                }
            }
        }
        Ok(())
    }

    /// Longest time for building a payload.
    pub(crate) fn build_time_max(&self, genesis: &Genesis) -> Duration {
        match self.build_ms_max {
            0 => Duration::from_millis((genesis.tandem.timing.work_ms / 2).max(1)),
            configured => Duration::from_millis(configured),
        }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.data_dir.join("state")
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.data_dir.join("LOCK")
    }
}

impl PoolConfig {
    pub(crate) fn limits(&self) -> txpool::Limits {
        txpool::Limits {
            transactions_max: self.transactions_max,
            bytes_max: self.mib_max << 20,
            account_transactions_max: self.account_transactions_max,
            account_queued_max: self.account_queued_max,
            delegated_account_transactions_max: self.delegated_account_transactions_max,
            lifetime_ms: self.lifetime_minutes * 60_000,
        }
    }

    pub(crate) fn admission(&self) -> AdmissionLimits {
        let defaults = AdmissionLimits::default();
        let threads = if self.threads == 0 { defaults.threads } else { self.threads };
        AdmissionLimits { threads, local_waiting_max: self.waiting_max, peer_waiting_max: self.waiting_max }
    }

    pub(crate) fn journal_path(&self, data_dir: &Path) -> Option<PathBuf> {
        self.journal.then(|| data_dir.join("transactions.journal"))
    }
}

fn default_history_blocks() -> u64 {
    1024
}

fn default_cache_mib() -> u64 {
    128
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fault::Fault;

    const LEAST: &str = "genesis = \"g.json\"\ndata_dir = \"data\"\nengine_endpoint = \"unix:e.sock\"\n\
                         jwt_secret = \"jwt.hex\"\n";

    #[test]
    fn four_settings_are_enough_and_the_rest_are_the_defaults() {
        let config = Config::parse(LEAST).unwrap();
        assert_eq!(config, Config::new("g.json", "data", "unix:e.sock".parse().unwrap(), "jwt.hex"));
        assert_eq!(Config::parse(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_value() {
        let cases = [
            ("colour = 1\n", "unknown field `colour`"),
            ("history_blocks = 0\n", "history_blocks is 0, must be from 1 to 4294967296"),
            ("peers = [\"127.0.0.1:1\"]\n", "peers has 1 entries, but p2p_listen is not set"),
            (
                "metrics_listen = \"127.0.0.1:8545\"\n",
                "rpc.address and metrics_listen are both 127.0.0.1:8545",
            ),
            ("[pool]\nlifetime_minutes = 0\n", "pool.lifetime_minutes is 0"),
            ("[pool]\nlifetime = 0\n", "unknown field `lifetime`"),
            ("[rpc]\nbatch_calls_max = 0\n", "rpc.batch_calls_max is 0"),
            ("[fault]\nfault = \"wrong_state_hash\"\n", "fault.i_am_testing = true"),
            ("[fault]\nfault = \"sulk\"\n", "unknown variant `sulk`"),
        ];
        for (addition, expected) in cases {
            let error = Config::parse(&format!("{LEAST}{addition}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_fault_needs_the_word_that_it_is_meant() {
        let text = format!("{LEAST}[fault]\nfault = \"wrong_state_hash\"\ni_am_testing = true\n");
        assert_eq!(Config::parse(&text).unwrap().fault.fault, Some(Fault::WrongStateHash));
    }
}
