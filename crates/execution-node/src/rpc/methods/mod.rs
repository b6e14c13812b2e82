//! The methods, by subject. Each is a plain function of the shared [`Api`] and the parameters; the table says
//! how it runs: at once (cheap), on the pool of expensive calls, or asynchronously.

mod blocks;
mod fees;
mod filters;
mod lanes;
mod node;
mod send;
mod state;
mod transactions;
mod txpool;

use super::{
    api::Api,
    error::{RpcError, RpcResult},
    json::Json,
};
use jsonrpsee::{RpcModule, types::Params};
use serde::Serialize;
use std::{future::Future, sync::Arc};

/// Collects the methods.
pub(super) struct Table {
    pub(super) module: RpcModule<Api>,
}

/// Every method of the server except subscriptions.
pub(super) fn table(api: Arc<Api>) -> Table {
    let mut table = Table { module: RpcModule::from_arc(api) };
    blocks::register(&mut table);
    transactions::register(&mut table);
    state::register(&mut table);
    fees::register(&mut table);
    send::register(&mut table);
    filters::register(&mut table);
    txpool::register(&mut table);
    node::register(&mut table);
    lanes::register(&mut table);
    table
}

/// Why registration cannot fail: names are literals, each used once; a test starts the server.
const UNIQUE: &str = "method names are unique";

impl Table {
    /// A method that answers within microseconds.
    fn cheap<R: Serialize + Clone + 'static>(
        &mut self,
        name: &'static str,
        method: fn(&Api, &Params<'_>) -> RpcResult<R>,
    ) {
        self.module.register_method(name, move |params, api, _| method(api, &params)).expect(UNIQUE);
    }

    /// A method that may take long: it runs, and its answer is serialised, away from the connections'
    /// threads.
    fn heavy<R: Serialize + 'static>(
        &mut self,
        name: &'static str,
        method: fn(&Api, &Params<'_>) -> RpcResult<R>,
    ) {
        self.dispatched(name, method, |_| true);
    }

    /// A method that is cheap or heavy depending on its parameters.
    fn dispatched<R: Serialize + 'static>(
        &mut self,
        name: &'static str,
        method: fn(&Api, &Params<'_>) -> RpcResult<R>,
        is_heavy: fn(&Params<'_>) -> bool,
    ) {
        let callback = move |params: Params<'static>, api: Arc<Api>, _| async move {
            if !is_heavy(&params) {
                return Json::of(&method(&api, &params)?);
            }
            let worker = api.clone();
            api.heavy.run(move || Json::of(&method(&worker, &params)?)).await
        };
        self.module.register_async_method(name, callback).expect(UNIQUE);
    }

    /// A method that waits for something.
    fn waiting<R, F>(&mut self, name: &'static str, method: fn(Arc<Api>, Params<'static>) -> F)
    where
        R: Serialize + Clone + 'static,
        F: Future<Output = RpcResult<R>> + Send + 'static,
    {
        self.module.register_async_method(name, move |params, api, _| method(api, params)).expect(UNIQUE);
    }
}

/// Storage failures are this node's fault.
fn stored<T, E: ToString>(result: Result<T, E>) -> RpcResult<T> {
    result.map_err(RpcError::internal)
}
