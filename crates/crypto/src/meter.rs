//! Where the time of a thread goes, for benchmarks. Without the feature `meter` nothing here costs anything.

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Phase {
    /// Anything that is not one of the others.
    Rest,
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
}

/// All of them.
pub const PHASES: [Phase; 6] =
    [Phase::Rest, Phase::Sign, Phase::Votes, Phase::Certificates, Phase::Hash, Phase::Encode];

#[cfg(feature = "meter")]
pub use on::{Span, span, take};

#[cfg(feature = "meter")]
mod on {
    use super::{PHASES, Phase};
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    std::thread_local! {
        static PHASE: Cell<Phase> = const { Cell::new(Phase::Rest) };
        static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
        static SPENT: Cell<[Duration; PHASES.len()]> = const { Cell::new([Duration::ZERO; PHASES.len()]) };
    }

    /// While it lives, the thread is in a phase; what it was in before goes on afterwards.
    #[derive(Debug)]
    pub struct Span(Phase);

    /// Enters a phase.
    #[must_use]
    pub fn span(phase: Phase) -> Span {
        Span(enter(phase))
    }

    impl Drop for Span {
        fn drop(&mut self) {
            enter(self.0);
        }
    }

    /// Time of this thread per phase since the last call, in the order of [`PHASES`]; the first call starts the clock.
    pub fn take() -> [Duration; PHASES.len()] {
        let phase = PHASE.get();
        enter(phase);
        SPENT.replace([Duration::ZERO; PHASES.len()])
    }

    fn enter(phase: Phase) -> Phase {
        let (now, before) = (Instant::now(), PHASE.replace(phase));
        if let Some(since) = SINCE.replace(Some(now)) {
            let mut spent = SPENT.get();
            spent[before as usize] += now - since;
            SPENT.set(spent);
        }
        before
    }
}

/// Nothing, without the feature `meter`.
#[cfg(not(feature = "meter"))]
#[derive(Debug)]
pub struct Span;

/// Enters a phase: nothing without the feature `meter`.
#[cfg(not(feature = "meter"))]
#[inline(always)]
pub fn span(_: Phase) -> Span {
    Span
}
