//! executord: engine service, chain, JSON-RPC and metrics.

mod chain;
mod pool;
pub mod rpc;

pub use chain::{Chain, MinedTransaction, SUBSCRIBER_BLOCKS_MAX};
pub use pool::{
    AdmissionLimits, JournalError, Pool, PoolError, PoolOptions, PoolThreads, SUBSCRIBER_TRANSACTIONS_MAX,
};
