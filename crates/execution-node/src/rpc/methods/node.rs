//! The node itself.

use super::Table;
use crate::rpc::{api::Api, error::RpcResult, params::Args};
use alloy_primitives::{Address, B256, Bytes, U64, keccak256};
use jsonrpsee::types::Params;
use std::{collections::BTreeMap, sync::atomic::Ordering};

pub(super) fn register(table: &mut Table) {
    table.cheap("eth_chainId", chain_id);
    table.cheap("eth_syncing", syncing);
    table.cheap("eth_accounts", accounts);
    table.cheap("net_version", network);
    table.cheap("net_listening", listening);
    table.cheap("net_peerCount", peer_count);
    table.cheap("web3_clientVersion", client_version);
    table.cheap("web3_sha3", sha3);
    table.cheap("rpc_modules", modules);
}

fn chain_id(api: &Api, params: &Params<'_>) -> RpcResult<U64> {
    Args::new(params, 0)?;
    Ok(U64::from(api.chain.chain_id()))
}

/// What is readable here is final; how far others are is consensus' knowledge.
fn syncing(_: &Api, params: &Params<'_>) -> RpcResult<bool> {
    Args::new(params, 0)?;
    Ok(false)
}

/// This node holds no keys.
fn accounts(_: &Api, params: &Params<'_>) -> RpcResult<Vec<Address>> {
    Args::new(params, 0)?;
    Ok(Vec::new())
}

fn network(api: &Api, params: &Params<'_>) -> RpcResult<String> {
    Args::new(params, 0)?;
    Ok(api.chain.chain_id().to_string())
}

fn listening(_: &Api, params: &Params<'_>) -> RpcResult<bool> {
    Args::new(params, 0)?;
    Ok(true)
}

fn peer_count(api: &Api, params: &Params<'_>) -> RpcResult<U64> {
    Args::new(params, 0)?;
    Ok(U64::from(api.peers.load(Ordering::Relaxed)))
}

fn client_version(_: &Api, params: &Params<'_>) -> RpcResult<String> {
    Args::new(params, 0)?;
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    Ok(format!("Tandem/v{version}/{os}-{arch}"))
}

fn sha3(_: &Api, params: &Params<'_>) -> RpcResult<B256> {
    let data: Bytes = Args::new(params, 1)?.required(0, "data")?;
    Ok(keccak256(data))
}

fn modules(_: &Api, params: &Params<'_>) -> RpcResult<BTreeMap<&'static str, &'static str>> {
    Args::new(params, 0)?;
    Ok(["eth", "net", "rpc", "txpool", "web3"].into_iter().map(|name| (name, "1.0")).collect())
}
