//! Requests of `eth_call` and `eth_estimateGas`: from JSON-RPC's types to the executor's.

use super::error::{RpcError, RpcResult};
use alloy_eips::eip2930::AccessListResult;
use alloy_primitives::{U256, map::HashMap};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest, state::StateOverride};
use execution::{
    AccessListOutcome, AccountOverride, BlockEnv, CallError, CallOutcome, CallRequest, EstimateError,
    StateOverrides,
};

/// The executor's form of a request; refuses what this chain does not have.
pub(super) fn call_request(request: TransactionRequest, chain_id: u64) -> RpcResult<CallRequest> {
    if let Some(have) = request.chain_id.filter(|have| *have != chain_id) {
        return Err(RpcError::Refused(format!(
            "chainId does not match node's (have={have}, want={chain_id})"
        )));
    }
    let blobs = request.blob_versioned_hashes.as_ref().is_some_and(|hashes| !hashes.is_empty());
    if blobs || request.sidecar.is_some() {
        return Err(RpcError::Refused("blob transactions are not supported on this chain".into()));
    }
    let input = request.input.try_into_unique_input().map_err(|_| {
        RpcError::InvalidParams("both \"data\" and \"input\" are set and not equal, use \"input\"".into())
    })?;
    Ok(CallRequest {
        from: request.from,
        to: request.to.and_then(|to| to.into_to()),
        gas: request.gas,
        gas_price: request.gas_price,
        max_fee_per_gas: request.max_fee_per_gas,
        max_priority_fee_per_gas: request.max_priority_fee_per_gas,
        value: request.value.unwrap_or_default(),
        input: input.unwrap_or_default(),
        nonce: request.nonce,
        access_list: request.access_list.unwrap_or_default(),
        authorization_list: request.authorization_list.unwrap_or_default(),
    })
}

/// The executor's form of state overrides.
pub(super) fn state_overrides(given: Option<StateOverride>) -> RpcResult<StateOverrides> {
    let slots = |map: alloy_primitives::map::B256HashMap<alloy_primitives::B256>| {
        map.into_iter().map(|(slot, value)| (slot.into(), value.into())).collect::<HashMap<U256, U256>>()
    };
    let mut overrides = StateOverrides::default();
    for (address, account) in given.unwrap_or_default() {
        if account.move_precompile_to.is_some() {
            return Err(RpcError::InvalidParams("movePrecompileToAddress is not supported".into()));
        }
        let account = AccountOverride {
            balance: account.balance,
            nonce: account.nonce,
            code: account.code,
            state: account.state.map(slots),
            state_diff: account.state_diff.map(slots).unwrap_or_default(),
        };
        overrides.insert(address, account);
    }
    Ok(overrides)
}

/// Changes `env` as the caller asks.
pub(super) fn override_block(env: &mut BlockEnv, given: BlockOverrides) -> RpcResult<()> {
    if given.block_hash.is_some_and(|hashes| !hashes.is_empty()) {
        return Err(RpcError::InvalidParams("overriding blockHash is not supported".into()));
    }
    let narrow = |value: U256, what: &str| {
        u64::try_from(value)
            .map_err(|_| RpcError::InvalidParams(format!("{what} override {value} exceeds 64 bits")))
    };
    if let Some(number) = given.number {
        env.height = narrow(number, "number")?;
    }
    if let Some(base_fee) = given.base_fee {
        env.base_fee = narrow(base_fee, "baseFeePerGas")?;
    }
    if let Some(seconds) = given.time {
        let milliseconds = seconds.checked_mul(1_000);
        let too_late = || RpcError::InvalidParams(format!("time override {seconds} is out of range"));
        env.timestamp_ms = milliseconds.ok_or_else(too_late)?;
    }
    env.gas_limit = given.gas_limit.unwrap_or(env.gas_limit);
    env.fee_recipient = given.coinbase.unwrap_or(env.fee_recipient);
    env.prevrandao = given.random.unwrap_or(env.prevrandao);
    Ok(())
}

/// The answer of `eth_call`.
pub(super) fn call_answer(result: Result<CallOutcome, CallError>) -> RpcResult<alloy_primitives::Bytes> {
    match result? {
        CallOutcome::Success { output, .. } => Ok(output),
        CallOutcome::Revert { output, .. } => Err(RpcError::Reverted(output)),
        CallOutcome::Halt { reason, .. } => Err(RpcError::Refused(reason)),
    }
}

/// The answer of `eth_createAccessList`: a transaction that fails has a list too.
pub(super) fn access_list_answer(
    result: Result<AccessListOutcome, CallError>,
) -> RpcResult<AccessListResult> {
    let AccessListOutcome { access_list, gas_used, error } = result?;
    Ok(AccessListResult { access_list, gas_used: U256::from(gas_used), error })
}

impl From<CallError> for RpcError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::View(error) => Self::internal(error),
            CallError::ConflictingFees
            | CallError::ConflictingOverride(_)
            | CallError::OverrideCode { .. } => Self::InvalidParams(error.to_string()),
            CallError::Invalid(_) => Self::Refused(format!("err: {error}")),
            CallError::AccessListUnsettled { .. } => Self::refused(error),
        }
    }
}

impl From<EstimateError> for RpcError {
    fn from(error: EstimateError) -> Self {
        match error {
            EstimateError::Revert { output } => Self::Reverted(output),
            EstimateError::Call(error) => error.into(),
            EstimateError::Halt { .. } | EstimateError::GasTooLow { .. } => Self::refused(error),
        }
    }
}
