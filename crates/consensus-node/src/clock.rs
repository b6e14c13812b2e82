//! The one place that reads clocks.

use consensus::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest sleep between two looks at the deadline.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Both clocks of the process; the monotonic one starts at zero with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms(), wall_ms: wall_ms() }
    }

    pub(crate) fn mono_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When a deadline of the monotonic clock is reached; soon enough to sleep until.
    pub(crate) fn instant(&self, mono_ms: u64) -> Instant {
        let latest = Instant::now() + SLEEP_MAX;
        self.start.checked_add(Duration::from_millis(mono_ms)).map_or(latest, |at| at.min(latest))
    }
}

/// Milliseconds since 1970; zero on a machine whose clock is before that.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
