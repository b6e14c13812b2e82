//! Errors of setting the Engine API up. Errors of calls are [`types::engine::EngineError`].

use crate::{Endpoint, EndpointError};
use std::path::PathBuf;

/// Why the Engine API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum EngineApiError {
    /// The endpoint itself cannot be served.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Another process serves this endpoint.
    #[error("{0} is already served by another process; stop it or choose another endpoint")]
    InUse(Endpoint),
    /// Something that is no socket is in the way. It is left alone.
    #[error("{0} exists and is not a socket; move it away or choose another endpoint")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot {action} {endpoint}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        endpoint: Endpoint,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl EngineApiError {
    pub(crate) fn io(action: &'static str, endpoint: &Endpoint, source: std::io::Error) -> Self {
        Self::Io { action, endpoint: endpoint.clone(), source }
    }
}
