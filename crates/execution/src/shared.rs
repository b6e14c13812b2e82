//! All that threads share while they run lanes, beside values nobody changes: who takes which piece, and how much gas
//! all have used together. `tests/shared.rs` compiles this file a second time and runs it under a model checker, in
//! every order that the memory model allows.

use crate::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Hands out the numbers below a count, each once.
pub(crate) struct Queue {
    next: AtomicUsize,
    count: usize,
}

impl Queue {
    pub(crate) fn new(count: usize) -> Self {
        Self { next: AtomicUsize::new(0), count }
    }

    /// The next number, while there is one.
    pub(crate) fn take(&self) -> Option<usize> {
        // Nothing is published through the number, so its order with other memory does not matter.
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        (next < self.count).then_some(next)
    }
}

/// Gas that all threads together have used, against a limit.
///
/// Amounts are below 2^24 each (EIP-7825) or the limit of one transaction, and every thread stops at its first refusal,
/// so the sum cannot wrap.
pub(crate) struct GasMeter {
    used: AtomicU64,
    limit: u64,
}

impl GasMeter {
    pub(crate) fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit }
    }

    /// Adds; says whether all are still within the limit. Whoever passes it is told, in whatever order they add.
    pub(crate) fn add(&self, gas: u64) -> bool {
        self.used.fetch_add(gas, Ordering::Relaxed).saturating_add(gas) <= self.limit
    }

    /// Whether the limit was passed. Asked when all threads are done.
    pub(crate) fn exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit
    }
}
