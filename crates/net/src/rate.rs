//! A rate limit that remembers one instant (the generic cell rate algorithm). Pure: the time is an argument.

use std::time::{Duration, Instant};

/// One event per `interval` in the long run, at most `burst` at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) interval: Duration,
    pub(crate) burst: u32,
}

/// What one source has used of its rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// When everything used so far will have been earned back.
    settled_at: Instant,
}

impl Usage {
    /// Nothing used yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { settled_at: now }
    }

    /// Counts an event; false, and not counted, if it exceeds the rate.
    pub(crate) fn count(&mut self, rate: Rate, now: Instant) -> bool {
        let settled_at = self.settled_at.max(now) + rate.interval;
        if settled_at - now > rate.interval.saturating_mul(rate.burst) {
            return false;
        }
        self.settled_at = settled_at;
        true
    }

    /// Whether forgetting this usage would change nothing.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        self.settled_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_once_and_then_only_the_rate() {
        let rate = Rate { interval: Duration::from_millis(10), burst: 5 };
        let mut now = Instant::now();
        let mut usage = Usage::new(now);
        let count = |usage: &mut Usage, now| (0..100).filter(|_| usage.count(rate, now)).count();
        assert_eq!(count(&mut usage, now), 5);
        assert!(!usage.is_settled(now));
        now += Duration::from_millis(25);
        assert_eq!(count(&mut usage, now), 2);
        now += Duration::from_secs(100);
        assert!(usage.is_settled(now));
        assert_eq!(count(&mut usage, now), 5, "idle time is not saved up");
    }
}
