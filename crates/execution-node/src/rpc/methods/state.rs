//! Accounts, and calls that change nothing.

use super::{Table, stored};
use crate::rpc::{
    api::{Api, Target},
    error::RpcResult,
    params::Args,
    simulate,
};
use alloy_eips::{BlockId, eip2930::AccessListResult};
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest, state::StateOverride};
use execution::{BlockEnv, CallRequest, StateOverrides, StateView};
use jsonrpsee::types::Params;
use serde::Serialize;
use state::StateSnapshot;

pub(super) fn register(table: &mut Table) {
    table.cheap("eth_getBalance", balance);
    table.cheap("eth_getTransactionCount", transaction_count);
    table.cheap("eth_getCode", code);
    table.cheap("eth_getStorageAt", storage_at);
    table.cheap("eth_getAccountInfo", account_info);
    table.heavy("eth_call", call);
    table.heavy("eth_estimateGas", estimate_gas);
    table.heavy("eth_createAccessList", create_access_list);
}

fn balance(api: &Api, params: &Params<'_>) -> RpcResult<U256> {
    let args = Args::new(params, 2)?;
    let address: Address = args.required(0, "address")?;
    let state = api.state(api.target(args.optional(1, "block")?)?)?;
    Ok(stored(state.account(address))?.unwrap_or_default().balance)
}

/// The account's nonce; with `pending`, the one after its pending transactions.
fn transaction_count(api: &Api, params: &Params<'_>) -> RpcResult<U64> {
    let args = Args::new(params, 2)?;
    let address: Address = args.required(0, "address")?;
    let target = api.target(args.optional(1, "block")?)?;
    if target == Target::Pending
        && let Some(nonce) = api.chain.pool().pending_nonce(&address)
    {
        return Ok(U64::from(nonce));
    }
    let account = stored(api.state(target)?.account(address))?;
    Ok(U64::from(account.unwrap_or_default().nonce))
}

fn code(api: &Api, params: &Params<'_>) -> RpcResult<Bytes> {
    let args = Args::new(params, 2)?;
    let address: Address = args.required(0, "address")?;
    let state = api.state(api.target(args.optional(1, "block")?)?)?;
    let account = stored(state.account(address))?.unwrap_or_default();
    stored(state.code(account.code_hash))
}

fn storage_at(api: &Api, params: &Params<'_>) -> RpcResult<B256> {
    let args = Args::new(params, 3)?;
    let (address, slot): (Address, U256) = (args.required(0, "address")?, args.required(1, "slot")?);
    let state = api.state(api.target(args.optional(2, "block")?)?)?;
    Ok(stored(state.storage(address, slot))?.into())
}

/// Balance, nonce and code in one answer; Foundry asks for it first.
#[derive(Clone, Serialize)]
struct AccountInfo {
    balance: U256,
    nonce: U64,
    code: Bytes,
}

fn account_info(api: &Api, params: &Params<'_>) -> RpcResult<AccountInfo> {
    let args = Args::new(params, 2)?;
    let address: Address = args.required(0, "address")?;
    let state = api.state(api.target(args.optional(1, "block")?)?)?;
    let account = stored(state.account(address))?.unwrap_or_default();
    let code = stored(state.code(account.code_hash))?;
    Ok(AccountInfo { balance: account.balance, nonce: U64::from(account.nonce), code })
}

/// What a call works on.
struct Simulated {
    request: CallRequest,
    state: StateSnapshot,
    env: BlockEnv,
    overrides: StateOverrides,
}

/// Reads `[transaction, block, state overrides, block overrides]`.
fn simulated(api: &Api, args: &Args<'_>) -> RpcResult<Simulated> {
    let request: TransactionRequest = args.required(0, "transaction")?;
    let target = api.target(args.optional::<BlockId>(1, "block")?)?;
    let overrides = simulate::state_overrides(args.optional::<StateOverride>(2, "state overrides")?)?;
    let request = simulate::call_request(request, api.chain.chain_id())?;
    let (state, mut env) = api.state_and_env(target)?;
    if let Some(block) = args.optional::<BlockOverrides>(3, "block overrides")? {
        simulate::override_block(&mut env, block)?;
    }
    Ok(Simulated { request, state, env, overrides })
}

fn call(api: &Api, params: &Params<'_>) -> RpcResult<Bytes> {
    let Simulated { request, state, env, overrides } = simulated(api, &Args::new(params, 4)?)?;
    let gas_max = api.config.call_gas_max;
    simulate::call_answer(execution::call(&state, api.chain.rules(), &env, &request, &overrides, gas_max))
}

fn estimate_gas(api: &Api, params: &Params<'_>) -> RpcResult<U64> {
    let Simulated { request, state, env, overrides } = simulated(api, &Args::new(params, 4)?)?;
    let gas_max = api.config.call_gas_max;
    let gas = execution::estimate_gas(&state, api.chain.rules(), &env, &request, &overrides, gas_max)?;
    Ok(U64::from(gas))
}

fn create_access_list(api: &Api, params: &Params<'_>) -> RpcResult<AccessListResult> {
    let Simulated { request, state, env, overrides } = simulated(api, &Args::new(params, 4)?)?;
    let (rules, gas_max) = (api.chain.rules(), api.config.call_gas_max);
    let found = execution::create_access_list(&state, rules, &env, &request, &overrides, gas_max);
    simulate::access_list_answer(found)
}
