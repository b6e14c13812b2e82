//! How much the pool holds.

/// Bounds of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transactions in all.
    pub transactions_max: usize,
    /// Encoded bytes in all. A transaction takes about one KiB of memory beside them.
    pub bytes_max: usize,
    /// Transactions of one sender. High, because services send thousands per second from one account; a sender
    /// must be able to pay for all of them at once, and cheap ones are evicted first.
    pub account_transactions_max: usize,
    /// Transactions of one sender behind a nonce gap. Parallel connections and gossip reorder a busy sender's
    /// transactions by up to a few thousand.
    pub account_queued_max: usize,
    /// Transactions of one sender that runs another's code (EIP-7702): anyone may void them at once.
    pub delegated_account_transactions_max: usize,
    /// How long a transaction may stay, in milliseconds.
    pub lifetime_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transactions_max: 100_000,
            bytes_max: 128 << 20,
            account_transactions_max: 16_384,
            account_queued_max: 4_096,
            delegated_account_transactions_max: 16,
            lifetime_ms: 3 * 60 * 60 * 1000,
        }
    }
}
