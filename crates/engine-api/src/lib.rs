//! The contract between consensusd and executord (specs/engine_api.md): gRPC over a Unix socket or the loopback
//! interface, with a token on every call. The only user of tonic.
//!
//! This crate never decides anything about blocks: it carries questions and verdicts between the two processes,
//! says who the other side is and whether it answers. An answer that did not arrive, or that does not parse, is an
//! error and never a verdict.
//!
//! - [`Engine`] is what an executor implements; [`serve`] puts it behind a socket.
//! - [`EngineClient`] is what consensusd calls; it connects, checks identity and reconnects by itself.

mod client;
mod endpoint;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod jwt;
mod server;
mod socket;
mod wire;

pub use client::{ClientConfig, EngineClient, Health};
pub use endpoint::{Endpoint, EndpointError};
pub use error::EngineApiError;
pub use identity::{PROTOCOL_VERSION, capabilities_of, compare, rules_hash};
pub use jwt::{JwtError, JwtSecret, TokenError};
pub use server::{ServerHandle, serve};
pub use types::engine::{
    BuiltPayload, Capabilities, EngineError, FinalizedState, Forkchoice, PayloadLimits, PayloadRequest,
    PayloadStatus,
};

use std::future::Future;
use std::time::Duration;
use types::{B256, Epoch, Header, SystemInputs, Validator};

/// Longest wait of one [`Engine::await_transactions`], in milliseconds. Longer wishes are cut to it.
pub const AWAIT_MS_MAX: u64 = 30_000;

/// Bytes of a reason text on the wire; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 1024;

/// What an executor does for consensus. Write the methods as `async fn`.
///
/// Every call runs as its own task and is run to its end even when the caller went away, so an implementation is
/// never cancelled half-way (except `await_transactions`, which changes nothing). Several calls may run at once;
/// [`Self::forkchoice_updated`] calls come one after the other. A panic is answered as [`EngineError::Internal`].
pub trait Engine: Send + Sync + 'static {
    /// Who this executor is. Must answer from memory: it is also the heartbeat.
    fn capabilities(&self) -> impl Future<Output = Result<Capabilities, EngineError>> + Send;

    /// Builds and executes a payload. An unknown parent is [`EngineError::UnknownBlock`].
    fn build_payload(
        &self,
        request: PayloadRequest,
    ) -> impl Future<Output = Result<BuiltPayload, EngineError>> + Send;

    /// Executes a block. An unknown parent is [`PayloadStatus::Syncing`], never `Invalid`. An error is no verdict.
    fn new_payload(
        &self,
        header: Header,
        payload: Vec<u8>,
        system_inputs: SystemInputs,
    ) -> impl Future<Output = Result<PayloadStatus, EngineError>> + Send;

    /// Moves the head; answers after the finalized block is durable. An illegal order is
    /// [`EngineError::Illegal`] and changes nothing.
    fn forkchoice_updated(
        &self,
        forkchoice: Forkchoice,
    ) -> impl Future<Output = Result<FinalizedState, EngineError>> + Send;

    /// The durable head.
    fn finalized_state(&self) -> impl Future<Output = Result<FinalizedState, EngineError>> + Send;

    /// The set of an epoch, in canonical order. An epoch not fixed yet is [`EngineError::Illegal`].
    fn validator_set(&self, epoch: Epoch)
    -> impl Future<Output = Result<Vec<Validator>, EngineError>> + Send;

    /// True as soon as the pool holds a transaction that can be included on top of `parent_hash`; false after
    /// `max_wait` (at most [`AWAIT_MS_MAX`]) without one. May be dropped at any await point.
    fn await_transactions(
        &self,
        parent_hash: B256,
        max_wait: Duration,
    ) -> impl Future<Output = Result<bool, EngineError>> + Send;
}

/// Code made from specs/engine.proto.
#[allow(missing_docs, clippy::all)]
mod proto {
    tonic::include_proto!("tandem.engine.v1");
}
