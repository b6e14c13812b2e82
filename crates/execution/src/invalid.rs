//! Why a payload or a transaction is refused.

use crate::ViewError;
use alloy_primitives::U256;
use revm::context::result::InvalidTransaction;

/// Why a block could not be executed, split by blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// The payload is wrong and stays wrong: the proposer's fault.
    #[error(transparent)]
    Invalid(#[from] InvalidPayload),
    /// This node could not read its state or failed: says nothing about the block.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// A payload no honest proposer sends. Final.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid payload ({code:?}{}): {reason}", at(.index))]
pub struct InvalidPayload {
    /// What kind of fault.
    pub code: InvalidPayloadCode,
    /// Which transaction, in canonical order.
    pub index: Option<usize>,
    /// What exactly, with the numbers.
    pub reason: String,
}

impl InvalidPayload {
    pub(crate) fn too_much_gas(limit: u64) -> Self {
        let reason = format!("transactions use more than the block's {limit} gas");
        Self { code: InvalidPayloadCode::GasLimit, index: None, reason }
    }
}

fn at(index: &Option<usize>) -> String {
    index.map(|index| format!(", transaction {index}")).unwrap_or_default()
}

/// What is wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum InvalidPayloadCode {
    /// Not the payload format.
    Encoding = 1,
    /// A transaction cannot be parsed, is of a refused type, or its signature is bad.
    MalformedTransaction = 2,
    /// A transaction occurs twice.
    DuplicateTransaction = 3,
    /// A transaction must not be included in this state.
    InvalidTransaction = 4,
    /// The transactions use more gas than the block may.
    GasLimit = 5,
    /// Evidence among the system inputs proves nothing.
    Evidence = 6,
    /// The payload or a part of it is larger than allowed.
    TooLarge = 7,
    /// More lanes or segments than allowed.
    TooManyLanes = 8,
    /// The object table, an access set or a list of taken values does not ascend.
    Order = 9,
    /// Two lanes touch an object that one of them writes.
    FalseIndependence = 10,
    /// A transaction touches or writes what its access set does not say.
    UndeclaredAccess = 11,
    /// An access set or the object table says more than happens.
    UnusedEntry = 12,
    /// A segment begins with other values than the one before it ends with, or lists too few or too many.
    SegmentValue = 13,
}

impl From<crate::PayloadError> for InvalidPayload {
    fn from(error: crate::PayloadError) -> Self {
        Self { code: error.code(), index: None, reason: error.to_string() }
    }
}

/// Why a well-formed transaction must not be included in a block on this state. Nothing is charged for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTx {
    /// Already used nonce: the transaction can never be included.
    #[error("nonce too low: transaction has {tx}, account is at {state}")]
    NonceTooLow {
        /// Nonce of the transaction.
        tx: u64,
        /// Nonce of the account.
        state: u64,
    },
    /// A nonce before it is missing: it may be included later.
    #[error("nonce too high: transaction has {tx}, account is at {state}")]
    NonceTooHigh {
        /// Nonce of the transaction.
        tx: u64,
        /// Nonce of the account.
        state: u64,
    },
    /// No nonce after this one.
    #[error("nonce has max value")]
    NonceMax,
    /// The balance does not cover value and the highest possible fee.
    #[error("insufficient funds for gas * price + value: have {available}, want {required}")]
    InsufficientFunds {
        /// Value plus gas limit times fee cap.
        required: U256,
        /// The sender's balance.
        available: U256,
    },
    /// The fee cap is below the block's base fee: it may be included later.
    #[error("max fee per gas less than block base fee")]
    FeeCapBelowBaseFee,
    /// The tip is above the fee cap.
    #[error("max priority fee per gas higher than max fee per gas")]
    TipAboveFeeCap,
    /// Signed for another chain.
    #[error("invalid chain id for signer: have {have:?}, want {want}")]
    WrongChainId {
        /// Chain id of the transaction.
        have: Option<u64>,
        /// This chain's.
        want: u64,
    },
    /// More gas than is left in the block: it may be included in a later block.
    #[error("gas limit {gas_limit} exceeds the {available} left in the block")]
    BlockGasExceeded {
        /// Gas limit of the transaction.
        gas_limit: u64,
        /// Gas left.
        available: u64,
    },
    /// More gas than any transaction may have (EIP-7825).
    #[error("transaction gas limit too high (cap: {cap}, tx: {gas_limit})")]
    GasLimitAboveCap {
        /// Gas limit of the transaction.
        gas_limit: u64,
        /// Highest allowed.
        cap: u64,
    },
    /// Less gas than the transaction costs before it runs.
    #[error("intrinsic gas too low: have {gas_limit}, want {required}")]
    IntrinsicGas {
        /// Gas limit of the transaction.
        gas_limit: u64,
        /// What it costs at least.
        required: u64,
    },
    /// The sender has contract code (EIP-3607).
    #[error("sender not an eoa: the account has contract code")]
    SenderHasCode,
    /// Creation code too long (EIP-3860).
    #[error("max initcode size exceeded")]
    InitCodeTooLong,
    /// A type that the active fork does not have.
    #[error("transaction type not supported: {0}")]
    TypeNotActive(String),
    /// An EIP-7702 transaction without authorizations.
    #[error("EIP-7702 transaction with empty auth list")]
    EmptyAuthorizationList,
    /// A strict transaction whose marker entry says nothing sensible.
    #[error(transparent)]
    Strict(#[from] crate::StrictError),
    /// A strict transaction that came too late.
    #[error("transaction expired: it is valid until height {valid_until}, the block has height {height}")]
    Expired {
        /// Highest height it names.
        valid_until: u64,
        /// Height of the block.
        height: u64,
    },
    /// Anything else the EVM refuses.
    #[error("{0}")]
    Other(String),
}

impl InvalidTx {
    /// Whether the same transaction may become valid in a later block.
    pub fn may_become_valid(&self) -> bool {
        matches!(
            self,
            Self::NonceTooHigh { .. }
                | Self::InsufficientFunds { .. }
                | Self::FeeCapBelowBaseFee
                | Self::BlockGasExceeded { .. }
                | Self::SenderHasCode
                | Self::TypeNotActive(_)
        )
    }

    pub(crate) fn from_evm(error: InvalidTransaction, chain_id: u64, tx_chain_id: Option<u64>) -> Self {
        use InvalidTransaction as E;
        match error {
            E::NonceTooLow { tx, state } => Self::NonceTooLow { tx, state },
            E::NonceTooHigh { tx, state } => Self::NonceTooHigh { tx, state },
            E::NonceOverflowInTransaction => Self::NonceMax,
            E::LackOfFundForMaxFee { fee, balance } => {
                Self::InsufficientFunds { required: *fee, available: *balance }
            }
            E::OverflowPaymentInTransaction => {
                Self::InsufficientFunds { required: U256::MAX, available: U256::ZERO }
            }
            E::GasPriceLessThanBasefee => Self::FeeCapBelowBaseFee,
            E::PriorityFeeGreaterThanMaxFee => Self::TipAboveFeeCap,
            E::InvalidChainId | E::MissingChainId => Self::WrongChainId { have: tx_chain_id, want: chain_id },
            E::TxGasLimitGreaterThanCap { gas_limit, cap } => Self::GasLimitAboveCap { gas_limit, cap },
            E::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
                Self::IntrinsicGas { gas_limit, required: initial_gas }
            }
            E::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
                Self::IntrinsicGas { gas_limit, required: gas_floor }
            }
            E::RejectCallerWithCode => Self::SenderHasCode,
            E::CreateInitCodeSizeLimit => Self::InitCodeTooLong,
            E::EmptyAuthorizationList => Self::EmptyAuthorizationList,
            E::Eip2930NotSupported
            | E::Eip1559NotSupported
            | E::Eip7702NotSupported
            | E::Eip4844NotSupported => Self::TypeNotActive(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}
