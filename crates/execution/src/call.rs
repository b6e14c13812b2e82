//! Read-only execution for JSON-RPC: calls and gas estimation.

use crate::{BlockEnv, InvalidTx, Rules, StateView, ViewError};
use alloy_eips::{eip2930::AccessList, eip7702::SignedAuthorization};
use alloy_primitives::{Address, Bytes, Log, U256, map::AddressMap};

/// A transaction that is only simulated. Fields left out are filled in as geth does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRequest {
    /// Caller; the zero address when left out.
    pub from: Option<Address>,
    /// Callee; `None` creates a contract.
    pub to: Option<Address>,
    /// Gas limit; the cap when left out, and never above it.
    pub gas: Option<u64>,
    /// Legacy price per gas.
    pub gas_price: Option<u128>,
    /// EIP-1559 fee cap.
    pub max_fee_per_gas: Option<u128>,
    /// EIP-1559 tip.
    pub max_priority_fee_per_gas: Option<u128>,
    /// Value in wei.
    pub value: U256,
    /// Call data or creation code.
    pub input: Bytes,
    /// Nonce; the account's when left out.
    pub nonce: Option<u64>,
    /// Access list.
    pub access_list: AccessList,
    /// EIP-7702 authorizations.
    pub authorization_list: Vec<SignedAuthorization>,
}

/// Replaces parts of an account for one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountOverride {
    /// Other balance.
    pub balance: Option<U256>,
    /// Other nonce.
    pub nonce: Option<u64>,
    /// Other code.
    pub code: Option<Bytes>,
    /// The whole storage: slots not named read as zero. Excludes `state_diff`.
    pub state: Option<Vec<(U256, U256)>>,
    /// Single slots over the stored ones.
    pub state_diff: Vec<(U256, U256)>,
}

/// Account overrides by address.
pub type StateOverrides = AddressMap<AccountOverride>;

/// What a call did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It returned.
    Success {
        /// Returned bytes; the deployed code for a creation.
        output: Bytes,
        /// Gas used after refunds.
        gas_used: u64,
        /// Logs.
        logs: Vec<Log>,
    },
    /// It reverted with data.
    Revert {
        /// The revert data.
        output: Bytes,
        /// Gas used.
        gas_used: u64,
    },
    /// It stopped with an error that uses all gas.
    Halt {
        /// Which error, in words.
        reason: String,
        /// Whether more gas could have helped.
        out_of_gas: bool,
        /// Gas used.
        gas_used: u64,
    },
}

/// Why a call was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request cannot be a transaction on this state.
    #[error(transparent)]
    Invalid(#[from] InvalidTx),
    /// Legacy and EIP-1559 fees at once.
    #[error("both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified")]
    ConflictingFees,
    /// Both kinds of storage override.
    #[error("account {0} has both 'state' and 'stateDiff'")]
    ConflictingOverride(Address),
    /// The state could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Why no gas limit could be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EstimateError {
    /// It reverts whatever the gas.
    #[error("execution reverted")]
    Revert {
        /// The revert data.
        output: Bytes,
    },
    /// It fails with an error whatever the gas.
    #[error("{reason}")]
    Halt {
        /// Which error, in words.
        reason: String,
    },
    /// It needs more gas than is allowed or can be paid.
    #[error("gas required exceeds allowance ({allowance})")]
    GasTooLow {
        /// Highest gas limit tried.
        allowance: u64,
    },
    /// It could not be executed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Executes `request` on `view` without changing anything, with at most `gas_cap` gas, no balance needed for
/// fees, and no base fee when the request names no price.
pub fn call(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    request: &CallRequest,
    overrides: &StateOverrides,
    gas_cap: u64,
) -> Result<CallOutcome, CallError> {
    let _ = (view, rules, env, request, overrides, gas_cap);
    Err(ViewError::Evm("calls are not implemented yet".into()).into())
}

/// The lowest gas limit with which `request` succeeds, found as geth finds it: by bisection, within 1.5 %.
pub fn estimate_gas(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    request: &CallRequest,
    overrides: &StateOverrides,
    gas_cap: u64,
) -> Result<u64, EstimateError> {
    let _ = (view, rules, env, request, overrides, gas_cap);
    Err(CallError::View(ViewError::Evm("estimation is not implemented yet".into())).into())
}
