//! executord: engine service, chain, JSON-RPC and metrics.
//!
//! This crate never decides what is final and never votes: it executes what consensus asks for, answers with what
//! came out, and stores what consensus calls final. What is not final is invisible outside the engine service.
//!
//! - [`run`] is the whole process; [`Node`] the same with its parts in reach. [`Config`] says how.
//! - [`Chain`] is the finalized chain for readers, with the [`Pool`] beside it.
//! - The engine service builds and validates on one thread, one call after the other, and makes final on a second:
//!   no vote waits for the disk. A block is executed at most once here, on the state of its parent, and kept in
//!   memory until it is final or abandoned.
//! - A storage error poisons the executor: from then on every engine call is answered with an error, never with a
//!   verdict, until the process is started again.

mod chain;
mod config;
mod data_dir;
mod engine;
mod executor;
mod fault;
mod finalizer;
#[doc(hidden)]
pub mod fuzzing;
mod gossip;
mod lanes;
mod metrics;
mod pool;
pub mod rpc;
mod run;
mod tree;

pub use chain::{Chain, MinedTransaction, SUBSCRIBER_BLOCKS_MAX};
pub use config::{Config, ConfigError, PoolConfig};
pub use data_dir::DataDirError;
pub use fault::{Fault, FaultConfig};
pub use pool::{
    AdmissionLimits, JournalError, Pool, PoolError, PoolOptions, PoolThreads, SUBSCRIBER_TRANSACTIONS_MAX,
};
pub use run::{Error, Node, run};

#[cfg(test)]
mod tests;
