//! Why a transaction was not admitted, in the words wallets and tools already match on.

use alloy_primitives::{Address, U256};

/// JSON-RPC code of a refused transaction; what geth answers and every client expects.
pub const REFUSED: i32 = -32000;

/// A refusal. The text is geth's, with the numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The same transaction is pooled.
    #[error("already known")]
    AlreadyKnown,
    /// The bytes are no transaction.
    #[error("rlp: {0}")]
    Malformed(String),
    /// The signature has no valid signer.
    #[error("invalid sender")]
    InvalidSender,
    /// A type this chain does not have.
    #[error("transaction type not supported: type {0} rejected")]
    TypeNotSupported(u8),
    /// Signed for another chain.
    #[error("invalid chain id for signer: have {have} want {want}")]
    WrongChain {
        /// Chain id of the transaction.
        have: u64,
        /// Chain id here.
        want: u64,
    },
    /// Signed for no chain in particular.
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    /// Too many bytes.
    #[error("oversized data: transaction size {size}, limit {limit}")]
    Oversized {
        /// Its encoded size.
        size: usize,
        /// Largest size.
        limit: usize,
    },
    /// Initcode above the fork's limit.
    #[error("max initcode size exceeded: code size {size}, limit {limit}")]
    InitcodeTooLarge {
        /// Its size.
        size: usize,
        /// Largest size.
        limit: usize,
    },
    /// Could never fit a block.
    #[error("exceeds block gas limit")]
    AboveBlockGasLimit,
    /// Above the fork's limit for one transaction (EIP-7825).
    #[error("transaction gas limit too high (cap: {cap}, tx: {gas})")]
    AboveTransactionGasCap {
        /// Its gas limit.
        gas: u64,
        /// Largest gas limit.
        cap: u64,
    },
    /// Tip above fee.
    #[error(
        "max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: {tip}, maxFeePerGas: {fee}"
    )]
    TipAboveFee {
        /// Max priority fee.
        tip: u128,
        /// Max fee.
        fee: u128,
    },
    /// Gas limit below what the transaction costs before it runs.
    #[error("intrinsic gas too low: gas {gas}, minimum needed {needed}")]
    IntrinsicGas {
        /// Its gas limit.
        gas: u64,
        /// Least gas limit.
        needed: u64,
    },
    /// Gas limit below the calldata floor (EIP-7623).
    #[error("insufficient gas for floor data gas cost: gas {gas}, minimum needed {needed}")]
    FloorGas {
        /// Its gas limit.
        gas: u64,
        /// Least gas limit.
        needed: u64,
    },
    /// A set-code transaction that sets nothing.
    #[error("EIP-7702 transaction with empty auth list")]
    EmptyAuthorizations,
    /// The largest nonce can never be used.
    #[error("nonce has max value")]
    NonceMax,
    /// Already used.
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow {
        /// The account's nonce.
        next: u64,
        /// The transaction's.
        nonce: u64,
    },
    /// The sender is a contract (EIP-3607).
    #[error("sender not an eoa: address {0}")]
    SenderIsContract(Address),
    /// Balance below what this transaction may cost.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {}",
        cost.saturating_sub(*balance)
    )]
    InsufficientFunds {
        /// The sender's balance.
        balance: U256,
        /// What it may cost.
        cost: U256,
    },
    /// Balance below what all the sender's pooled transactions may cost together.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, queued cost {queued}, tx cost {cost}, overshot {}",
        queued.saturating_add(*cost).saturating_sub(*balance)
    )]
    Overdrawn {
        /// The sender's balance.
        balance: U256,
        /// What its pooled transactions may cost.
        queued: U256,
        /// What this one may cost.
        cost: U256,
    },
    /// Below the fee this node asks for.
    #[error("transaction underpriced: gas tip cap {tip}, minimum needed {needed}")]
    BelowFloor {
        /// Max priority fee.
        tip: u128,
        /// This node's floor.
        needed: u128,
    },
    /// The pool is full of better ones.
    #[error("transaction underpriced")]
    Underpriced,
    /// Replaces a pooled one without paying enough more for it.
    #[error("replacement transaction underpriced")]
    ReplacementUnderpriced,
    /// Too many transactions of one sender.
    #[error("account limit exceeded: {pooled} pooled transactions, limit {limit}")]
    AccountLimit {
        /// Its pooled transactions.
        pooled: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many transactions of one sender behind a nonce gap.
    #[error("account limit exceeded: {queued} transactions queued behind a nonce gap, limit {limit}")]
    QueuedLimit {
        /// Its queued transactions.
        queued: usize,
        /// The limit.
        limit: usize,
    },
    /// Anyone may drain a delegated account and void its transactions, so it gets few places.
    #[error("in-flight transaction limit reached for delegated accounts: limit {limit}")]
    DelegatedLimit {
        /// The limit.
        limit: usize,
    },
    /// A strict transaction whose marker entry says nothing sensible.
    #[error(transparent)]
    Strict(#[from] execution::StrictError),
    /// A strict transaction that came too late.
    #[error("transaction expired: it is valid until height {valid_until}, the next block has height {next}")]
    Expired {
        /// Highest height it names.
        valid_until: u64,
        /// Height of the next block.
        next: u64,
    },
    /// The pool is full and this one waits behind a gap.
    #[error("txpool is full")]
    Full,
}

impl Refusal {
    /// JSON-RPC error code.
    pub const fn code(&self) -> i32 {
        REFUSED
    }

    /// Whether a peer that sent this transaction is at fault: no honest node relays it, in whatever state it is.
    pub const fn blames_peer(&self) -> bool {
        match self {
            // Set-code transactions come with a fork; a peer may be a block ahead.
            Self::TypeNotSupported(kind) => *kind != alloy_eips::eip2718::EIP7702_TX_TYPE_ID,
            Self::Malformed(_)
            | Self::InvalidSender
            | Self::WrongChain { .. }
            | Self::Oversized { .. }
            | Self::TipAboveFee { .. }
            | Self::EmptyAuthorizations
            | Self::Strict(_)
            | Self::NonceMax => true,
            _ => false,
        }
    }
}
