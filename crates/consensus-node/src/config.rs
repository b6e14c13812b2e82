//! The settings of one consensus process. Read once, checked once; a key that is not known here is an error, so that
//! a misspelt setting never passes for its default.

use crate::Error;
use engine_api::Endpoint;
use net::Transport;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use types::Address;

/// Configured peers.
pub const PEERS_MAX: usize = 1024;

/// Views of the start-up wait.
pub const DOPPELGANGER_VIEWS_MAX: u64 = 10_000;

/// Host names and origins in one list.
pub const NAMES_MAX: usize = 64;

/// Everything `tandem consensusd` needs. Relative paths are relative to the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Genesis file, the same for every node of the chain.
    #[serde(default = "default_genesis")]
    pub genesis: PathBuf,
    /// Directory of this process alone: journal and network key. Made when missing. It holds what was signed: a copy
    /// of it, or an old backup, must never run.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// File with the validator's BLS key, readable by its owner only: a keystore (EIP-2335), which needs
    /// `password_file`, or a plain key. Without it the node follows and never votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// The key that this validator is changing to, while a key rotation is under way: from the epoch on whose set has
    /// it, the node signs with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_key_file: Option<PathBuf>,
    /// File with the password of the keystore, or of both, readable by its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Views followed without signing after every start, to hear another instance of the key before it is too late; 0
    /// for none.
    #[serde(default)]
    pub doppelganger_views: u64,
    /// Where other consensus nodes connect.
    #[serde(default = "default_p2p")]
    pub p2p_listen: SocketAddr,
    /// The other nodes, dialed for ever. The own address may be among them.
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
    /// `tcp` or `quic`; must be the same on all nodes.
    #[serde(default)]
    pub transport: Transport,
    /// REST, events and the dashboard. No authentication: leave it on this machine, or put a proxy in front.
    #[serde(default = "default_rest")]
    pub rest_listen: SocketAddr,
    /// Prometheus metrics at `/metrics`.
    #[serde(default = "default_metrics")]
    pub metrics_listen: SocketAddr,
    /// Where the executor listens: `unix:/path` or `127.0.0.1:port`.
    #[serde(default = "default_engine")]
    pub engine_endpoint: Endpoint,
    /// Secret shared with the executor: 64 hex digits. Made when missing.
    #[serde(default = "default_jwt")]
    pub jwt_secret: PathBuf,
    /// Account that earns the priority fees of this validator's blocks. Default: the validator's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_recipient: Option<Address>,
    /// Host names by which the REST interface may be called, beside this machine's own; `*` allows all. Guards
    /// against web pages that rebind their name to this address.
    #[serde(default)]
    pub rest_allowed_hosts: Vec<String>,
    /// Origins (`https://example.org`) whose web pages may read the REST interface; `*` allows all.
    #[serde(default)]
    pub rest_cors_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            genesis: default_genesis(),
            data_dir: default_data_dir(),
            key_file: None,
            next_key_file: None,
            password_file: None,
            doppelganger_views: 0,
            p2p_listen: default_p2p(),
            peers: Vec::new(),
            transport: Transport::default(),
            rest_listen: default_rest(),
            metrics_listen: default_metrics(),
            engine_endpoint: default_engine(),
            jwt_secret: default_jwt(),
            fee_recipient: None,
            rest_allowed_hosts: Vec::new(),
            rest_cors_origins: Vec::new(),
        }
    }
}

impl Config {
    /// Parses TOML; paths become relative to `base`.
    pub fn parse(toml: &str, base: &Path) -> Result<Self, Error> {
        let config: Self = toml::from_str(toml).map_err(|error| Error::Config(error.to_string()))?;
        let config = config.resolved(base);
        config.check()?;
        Ok(config)
    }

    /// The same with relative paths taken from `base`.
    #[must_use]
    pub fn resolved(mut self, base: &Path) -> Self {
        let own_paths = [&mut self.genesis, &mut self.data_dir, &mut self.jwt_secret];
        let keys = [&mut self.key_file, &mut self.next_key_file, &mut self.password_file];
        for path in own_paths.into_iter().chain(keys.into_iter().flatten()) {
            *path = base.join(&*path);
        }
        if let Endpoint::Unix(path) = &mut self.engine_endpoint {
            *path = base.join(&*path);
        }
        self
    }

    /// Checks what can be checked without touching a file or a socket.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Config(what));
        self.engine_endpoint.check().map_err(|error| Error::Config(error.to_string()))?;
        if self.peers.len() > PEERS_MAX {
            return refuse(format!("{} peers, at most {PEERS_MAX} are supported", self.peers.len()));
        }
        if self.doppelganger_views > DOPPELGANGER_VIEWS_MAX {
            let found = self.doppelganger_views;
            return refuse(format!(
                "doppelganger_views is {found}, at most {DOPPELGANGER_VIEWS_MAX} are supported"
            ));
        }
        if self.password_file.is_some() && self.key_file.is_none() {
            return refuse("password_file is set, key_file is not: name the keystore, or remove both".into());
        }
        if let Some(peer) = self.peers.iter().find(|peer| peer.port() == 0 || peer.ip().is_unspecified()) {
            return refuse(format!("peer {peer} is no address that can be dialed"));
        }
        for (name, list) in
            [("rest_allowed_hosts", &self.rest_allowed_hosts), ("rest_cors_origins", &self.rest_cors_origins)]
        {
            if list.len() > NAMES_MAX {
                return refuse(format!(
                    "{name} has {} entries, at most {NAMES_MAX} are supported",
                    list.len()
                ));
            }
        }
        for origin in self.rest_cors_origins.iter().filter(|origin| *origin != "*") {
            let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
                matches!(scheme, "http" | "https") && !host.is_empty() && !host.contains('/')
            });
            if !is_origin {
                return refuse(format!(
                    "rest_cors_origins: \"{origin}\" is no origin like https://example.org"
                ));
            }
        }
        if self.metrics_listen == self.rest_listen && self.rest_listen.port() != 0 {
            return refuse(format!("rest_listen and metrics_listen are both {}", self.rest_listen));
        }
        Ok(())
    }

    /// Where the journal is.
    pub fn journal_dir(&self) -> PathBuf {
        self.data_dir.join("journal")
    }

    /// Where the ed25519 network key is.
    pub fn network_key(&self) -> PathBuf {
        self.data_dir.join("network.key")
    }
}

fn default_genesis() -> PathBuf {
    "genesis.json".into()
}

fn default_data_dir() -> PathBuf {
    "consensus".into()
}

fn default_p2p() -> SocketAddr {
    ([127, 0, 0, 1], 9000).into()
}

fn default_rest() -> SocketAddr {
    ([127, 0, 0, 1], 5052).into()
}

fn default_metrics() -> SocketAddr {
    ([127, 0, 0, 1], 9100).into()
}

fn default_engine() -> Endpoint {
    Endpoint::Unix("engine.sock".into())
}

fn default_jwt() -> PathBuf {
    "jwt.hex".into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(toml: &str) -> String {
        Config::parse(toml, Path::new("/base")).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_means_the_defaults_next_to_it() {
        let config = Config::parse("", Path::new("/base")).unwrap();
        assert_eq!(config, Config::default().resolved(Path::new("/base")));
        assert_eq!(config.genesis, Path::new("/base/genesis.json"));
        assert_eq!(config.engine_endpoint, Endpoint::Unix("/base/engine.sock".into()));
        assert_eq!(config.metrics_listen.port(), 9100);
    }

    #[test]
    fn a_written_configuration_reads_back_as_it_was() {
        let mut config = Config { key_file: Some("/k.json".into()), ..Config::default() };
        config.peers = vec![([127, 0, 0, 1], 9001).into()];
        config.rest_cors_origins = vec!["https://example.org".into(), "*".into()];
        let config = config.resolved(Path::new("/base"));
        assert_eq!(Config::parse(&toml::to_string(&config).unwrap(), Path::new("/other")).unwrap(), config);
    }

    #[test]
    fn unknown_keys_wrong_types_and_impossible_values_are_refused_by_name() {
        for (toml, names) in [
            ("keyfile = 'x'", "keyfile"),
            ("rest_listen = 'localhost'", "rest_listen"),
            ("transport = 'udp'", "udp"),
            ("engine_endpoint = '10.0.0.1:1'", "loopback"),
            ("fee_recipient = '0x12'", "fee_recipient"),
            ("peers = ['0.0.0.0:9000']", "0.0.0.0:9000"),
            ("peers = ['127.0.0.1:0']", "127.0.0.1:0"),
            ("rest_cors_origins = ['example.org']", "example.org"),
            ("password_file = 'x'", "key_file"),
            ("doppelganger_views = 10001", "doppelganger_views"),
            ("rest_listen = '127.0.0.1:1'\nmetrics_listen = '127.0.0.1:1'", "metrics_listen"),
            ("= 1", "TOML"),
        ] {
            let text = refused(toml);
            assert!(text.contains(names), "{toml}: {text}");
        }
    }
}
