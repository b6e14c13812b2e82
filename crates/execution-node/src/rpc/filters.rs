//! Installed filters. A filter over blocks or logs is a position in the chain: blocks are final when they
//! appear here, so what it has not told yet is everything above that position. Nothing is buffered, lost or
//! told twice.

use super::{
    error::{RpcError, RpcResult},
    logs::LogQuery,
    server::random_id,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// What a filter reports, and how far it has.
#[derive(Debug)]
pub(super) enum FilterKind<P> {
    /// Hashes of new blocks.
    Blocks {
        /// Next height to report.
        next: u64,
    },
    /// Logs of new blocks.
    Logs {
        /// Which ones.
        query: LogQuery,
        /// Next height to report.
        next: u64,
    },
    /// Transactions new in the pool.
    Pending {
        /// Where they come from.
        feed: P,
        /// Whole transactions instead of hashes.
        full: bool,
    },
}

/// All installed filters, bounded and forgetful.
#[derive(Debug)]
pub(super) struct Filters<P> {
    entries: Mutex<HashMap<String, Entry<P>>>,
    max: usize,
    idle_max: Duration,
}

#[derive(Debug)]
struct Entry<P> {
    last_used: Instant,
    /// Locked while a poll moves it on: parallel polls of one filter share the news between them.
    kind: Arc<Mutex<FilterKind<P>>>,
}

impl<P> Filters<P> {
    pub(super) fn new(max: usize, idle_max: Duration) -> Self {
        Self { entries: Mutex::default(), max, idle_max }
    }

    /// Installs a filter and gives its id.
    pub(super) fn install(&self, kind: FilterKind<P>, now: Instant) -> RpcResult<String> {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| now.saturating_duration_since(entry.last_used) < self.idle_max);
        if entries.len() >= self.max {
            let max = self.max;
            let text =
                format!("{max} filters are installed, the most this node keeps; uninstall some or subscribe");
            return Err(RpcError::LimitExceeded(text));
        }
        let id = random_id();
        entries.insert(id.clone(), Entry { last_used: now, kind: Arc::new(Mutex::new(kind)) });
        Ok(id)
    }

    /// The filter with this id; asking keeps it alive.
    pub(super) fn get(&self, id: &str, now: Instant) -> RpcResult<Arc<Mutex<FilterKind<P>>>> {
        let mut entries = self.entries.lock();
        let live = |entry: &&mut Entry<P>| now.saturating_duration_since(entry.last_used) < self.idle_max;
        match entries.get_mut(id).filter(live) {
            Some(entry) => {
                entry.last_used = now;
                Ok(entry.kind.clone())
            }
            None => {
                entries.remove(id);
                // geth's words; clients install a new filter when they read them.
                Err(RpcError::Refused("filter not found".into()))
            }
        }
    }

    /// Removes a filter; whether there was one.
    pub(super) fn uninstall(&self, id: &str) -> bool {
        self.entries.lock().remove(id).is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn blocks() -> FilterKind<()> {
        FilterKind::Blocks { next: 1 }
    }

    #[test]
    fn a_filter_lives_while_it_is_polled_and_is_forgotten_when_idle() {
        let (filters, start) = (Filters::new(2, IDLE), Instant::now());
        let id = filters.install(blocks(), start).unwrap();
        assert!(filters.get(&id, start + IDLE / 2).is_ok());
        assert!(filters.get(&id, start + IDLE).is_ok());
        let error = filters.get(&id, start + IDLE * 2).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (-32000, "filter not found"));
    }

    #[test]
    fn the_number_of_filters_is_bounded_and_idle_ones_make_room() {
        let (filters, start) = (Filters::new(2, IDLE), Instant::now());
        let first = filters.install(blocks(), start).unwrap();
        let second = filters.install(blocks(), start + IDLE / 2).unwrap();
        assert_ne!(first, second);
        assert_eq!(filters.install(blocks(), start + IDLE / 2).unwrap_err().code(), -32005);
        assert!(filters.install(blocks(), start + IDLE).is_ok());
        assert!(filters.get(&first, start + IDLE).is_err());
        assert!(filters.uninstall(&second) && !filters.uninstall(&second));
    }
}
