//! Where the time of a thread goes, for benchmarks. Without the feature `meter` nothing here costs anything.

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Phase {
    /// BLS signatures being made.
    Sign,
    /// Votes being added up and verified.
    Votes,
    /// Proposals and the certificates in them, and certificates by themselves, being verified.
    Certificates,
    /// BLAKE3.
    Hash,
    /// Encoding and decoding.
    Encode,
    /// Anything else that is measured: what [`span`] of it encloses.
    Rest,
}

/// All of them.
pub const PHASES: [Phase; 6] =
    [Phase::Sign, Phase::Votes, Phase::Certificates, Phase::Hash, Phase::Encode, Phase::Rest];

#[cfg(feature = "meter")]
pub use on::{Span, set_clock, span, take};

#[cfg(feature = "meter")]
mod on {
    use super::{PHASES, Phase};
    use std::cell::Cell;
    use std::time::Duration;

    std::thread_local! {
        static CLOCK: Cell<fn() -> Duration> = const { Cell::new(|| Duration::ZERO) };
        /// `None` outside of what is measured.
        static PHASE: Cell<Option<Phase>> = const { Cell::new(None) };
        static SINCE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
        static SPENT: Cell<[Duration; PHASES.len()]> = const { Cell::new([Duration::ZERO; PHASES.len()]) };
    }

    /// Sets what this thread's time is measured by.
    pub fn set_clock(clock: fn() -> Duration) {
        CLOCK.set(clock);
    }

    /// While it lives, the thread is in a phase; what it was in before goes on afterwards.
    #[derive(Debug)]
    pub struct Span(Option<Phase>);

    /// Enters a phase. Measuring begins with [`Phase::Rest`]; outside of it the other phases do not count.
    #[must_use]
    pub fn span(phase: Phase) -> Span {
        let counts = phase == Phase::Rest || PHASE.get().is_some();
        Span(enter(counts.then_some(phase)))
    }

    impl Drop for Span {
        fn drop(&mut self) {
            enter(self.0);
        }
    }

    /// Time of this thread per phase since the last call, in the order of [`PHASES`].
    pub fn take() -> [Duration; PHASES.len()] {
        SPENT.replace([Duration::ZERO; PHASES.len()])
    }

    fn enter(phase: Option<Phase>) -> Option<Phase> {
        let before = PHASE.replace(phase);
        if before != phase {
            let now = CLOCK.get()();
            let since = SINCE.replace(now);
            if let Some(before) = before {
                let mut spent = SPENT.get();
                spent[before as usize] += now.saturating_sub(since);
                SPENT.set(spent);
            }
        }
        before
    }
}

/// Nothing, without the feature `meter`.
#[cfg(not(feature = "meter"))]
#[derive(Debug)]
pub struct Span;

#[cfg(not(feature = "meter"))]
impl Drop for Span {
    #[inline(always)]
    fn drop(&mut self) {}
}

/// Enters a phase: nothing without the feature `meter`.
#[cfg(not(feature = "meter"))]
#[inline(always)]
pub fn span(_: Phase) -> Span {
    Span
}
