//! The Ethereum JSON-RPC of executord: HTTP and WebSocket on one port.
//!
//! This module never changes the chain and never decides anything: it reads what is final, and hands
//! transactions to the pool. Everything it does is bounded by [`RpcConfig`]; whatever a caller sends, the
//! answer is a JSON-RPC error with geth's code and wording at worst.
//!
//! - [`serve`] starts the server; [`RpcHandle::stop`] ends it.
//! - A request passes the gatekeeper (`http`: host, origin, size, time), the dispatcher (jsonrpsee), the
//!   counters (`service`) and one function of `methods`. Expensive functions take a turn on blocking threads
//!   (`heavy`).
//! - Blocks are final when they appear here. So filters and subscriptions are mere positions in the chain, and
//!   `latest`, `safe` and `finalized` are one block.

mod api;
mod config;
mod connection;
mod error;
mod fees;
mod filters;
mod heavy;
mod http;
mod json;
mod logs;
mod methods;
mod metrics;
mod params;
mod quantity;
mod server;
mod service;
mod shapes;
mod simulate;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use config::{RpcConfig, RpcConfigError};
pub use error::RpcError;
pub use metrics::RpcMetrics;
pub use server::{RpcHandle, RpcStartError};

use crate::chain::Chain;
use api::Api;
use std::sync::{Arc, atomic::AtomicU64};
use tokio::sync::{broadcast::error::RecvError, watch};

/// What the server shares with the rest of the process.
#[derive(Clone, Debug, Default)]
pub struct RpcLinks {
    /// Where requests are counted.
    pub metrics: RpcMetrics,
    /// Connected executors, for `net_peerCount`; whoever runs the network keeps it.
    pub peers: Arc<AtomicU64>,
}

/// Checks the settings, binds the address and serves until the handle is stopped or dropped.
pub async fn serve(chain: Chain, config: RpcConfig, links: RpcLinks) -> Result<RpcHandle, RpcStartError> {
    config.check()?;
    let heads = follow_heads(&chain);
    let api = Arc::new(Api::new(chain, config.clone(), links.metrics.clone(), links.peers, heads));
    let mut table = methods::table(api);
    subscriptions::register(&mut table);
    server::start(table.module.into(), config, links.metrics).await
}

/// The dispatcher without a server, for the fuzz targets.
pub(crate) fn dispatcher(chain: Chain, config: RpcConfig) -> jsonrpsee::Methods {
    let heads = follow_heads(&chain);
    let api = Api::new(chain, config, RpcMetrics::default(), Arc::default(), heads);
    let mut table = methods::table(Arc::new(api));
    subscriptions::register(&mut table);
    table.module.into()
}

/// Turns announced blocks into the latest height. Waiters watch the number: a slow one then holds no blocks
/// in memory, as it would by lagging on the announcements themselves. Ends with the chain or the last waiter.
fn follow_heads(chain: &Chain) -> watch::Receiver<u64> {
    let mut announced = chain.subscribe();
    let (sender, receiver) = watch::channel(chain.height().get());
    let chain = chain.clone();
    tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                received = announced.recv() => received,
                () = sender.closed() => return,
            };
            match received {
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    sender.send_replace(chain.height().get());
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    receiver
}
