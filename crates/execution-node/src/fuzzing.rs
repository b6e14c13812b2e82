//! The JSON-RPC without sockets: entry point of the fuzz targets. Not part of the interface.

use crate::chain::Chain;
use crate::pool::{AdmissionLimits, Pool, PoolOptions, PoolThreads};
use crate::rpc::{RpcConfig, dispatcher};
use execution::{Rules, genesis_state};
use state::{StateOptions, StateStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use txpool::AdmissionPolicy;
use types::Genesis;

/// Waits of a call are cut to this: a caller that hangs up.
const PATIENCE: Duration = Duration::from_millis(50);

/// A chain at its genesis, and its dispatcher.
pub struct RpcBench {
    methods: jsonrpsee::Methods,
    chain: Chain,
    runtime: tokio::runtime::Runtime,
    _threads: PoolThreads,
}

impl RpcBench {
    /// Opens a store in `directory`.
    pub fn open(directory: &Path, genesis: Genesis) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let rules = Arc::new(Rules::from_genesis(&genesis).map_err(|e| text(&e))?);
        let store = StateStore::open(StateOptions::new(directory.join("state")), &genesis);
        let store = Arc::new(store.map_err(|e| text(&e))?);
        let options = PoolOptions {
            limits: txpool::Limits::default(),
            admission: AdmissionLimits { threads: 1, ..AdmissionLimits::default() },
            transaction_bytes_max: types::limits::TRANSACTION_BYTES_MAX,
            policy: AdmissionPolicy::default(),
            journal: None,
        };
        let (pool, threads) = Pool::start(options, rules.clone(), store.clone(), 0, genesis.base_fee_per_gas)
            .map_err(|e| text(&e))?;
        let state = genesis_state(&genesis).map_err(|e| text(&e))?;
        let chain = Chain::new(genesis, &state, rules, store, pool).map_err(|e| text(&e))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| text(&e))?;
        let config = RpcConfig { sync_send_ms_max: 1, filters_max: 8, ..RpcConfig::default() };
        let methods = runtime.block_on(async { dispatcher(chain.clone(), config) });
        Ok(Self { methods, chain, runtime, _threads: threads })
    }

    /// Answers one request; `None` when it is none, or asks to wait.
    pub fn answer(&self, body: &str) -> Option<String> {
        let answer = async { tokio::time::timeout(PATIENCE, self.methods.raw_json_request(body, 1)).await };
        match self.runtime.block_on(answer) {
            Ok(Ok((answer, _))) => Some(answer.get().to_owned()),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Names of all methods.
    pub fn methods(&self) -> Vec<&'static str> {
        self.methods.method_names().collect()
    }

    /// Height of the chain: no request moves it.
    pub fn height(&self) -> u64 {
        self.chain.height().get()
    }
}
