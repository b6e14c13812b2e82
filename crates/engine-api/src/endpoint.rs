//! Where the Engine API is served.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a Unix socket in bytes. The system's own limit is 107 on Linux and 103 on macOS; the socket is
/// bound under a name four bytes longer first.
pub const SOCKET_PATH_BYTES_MAX: usize = 99;

/// A Unix socket or a loopback TCP port. Written `unix:/run/tandem/engine.sock` (or just a path) or
/// `127.0.0.1:8551`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A Unix socket: the default, reachable by this user only.
    Unix(PathBuf),
    /// A TCP port on the loopback interface.
    Tcp(SocketAddr),
}

/// Why a text names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a path nor an address.
    #[error(
        "\"{0}\" is neither a socket path (unix:/path/engine.sock) nor a loopback address (127.0.0.1:8551)"
    )]
    Unreadable(String),
    /// The Engine API has no encryption: it must not leave the machine.
    #[error("{0} is not a loopback address; the engine API is served on this machine only")]
    NotLoopback(SocketAddr),
    /// The system limits the length of socket paths.
    #[error("socket path of {length} bytes, at most {SOCKET_PATH_BYTES_MAX} are possible: {path}")]
    PathTooLong {
        /// Its length in bytes.
        length: usize,
        /// The path.
        path: String,
    },
}

impl Endpoint {
    /// Checks that the endpoint can be served: loopback only, path short enough.
    pub fn check(&self) -> Result<(), EndpointError> {
        match self {
            Self::Unix(path) => {
                let length = path.as_os_str().len();
                if length <= SOCKET_PATH_BYTES_MAX {
                    return Ok(());
                }
                Err(EndpointError::PathTooLong { length, path: path.display().to_string() })
            }
            Self::Tcp(address) if address.ip().is_loopback() => Ok(()),
            Self::Tcp(address) => Err(EndpointError::NotLoopback(*address)),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let endpoint = match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Self::Unix(path.strip_prefix("//").unwrap_or(path).into()),
            Some(_) => return Err(EndpointError::Unreadable(text.into())),
            None if text.contains('/') => Self::Unix(text.into()),
            None => Self::Tcp(text.parse().map_err(|_| EndpointError::Unreadable(text.into()))?),
        };
        endpoint.check()?;
        Ok(endpoint)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_and_loopback_addresses_are_endpoints_and_print_as_they_parse() {
        for (text, expected) in [
            ("unix:/run/a.sock", Endpoint::Unix("/run/a.sock".into())),
            ("unix:///run/a.sock", Endpoint::Unix("/run/a.sock".into())),
            ("./a.sock", Endpoint::Unix("./a.sock".into())),
            ("127.0.0.1:8551", Endpoint::Tcp(([127, 0, 0, 1], 8551).into())),
        ] {
            let parsed: Endpoint = text.parse().unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string().parse::<Endpoint>().unwrap(), expected);
        }
    }

    #[test]
    fn other_machines_nonsense_and_long_paths_are_refused() {
        let public = ([10, 0, 0, 1], 8551).into();
        assert_eq!("10.0.0.1:8551".parse::<Endpoint>(), Err(EndpointError::NotLoopback(public)));
        for text in ["", "unix:", "localhost", "8551"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Unreadable(text.into())));
        }
        let path = format!("/{}", "x".repeat(150));
        assert_eq!(path.parse::<Endpoint>(), Err(EndpointError::PathTooLong { length: 151, path }));
    }
}
