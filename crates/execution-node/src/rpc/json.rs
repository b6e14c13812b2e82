//! Answers that are serialised once and sent many times.

use super::error::{RpcError, RpcResult};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::{collections::VecDeque, sync::Arc};

/// A finished piece of JSON. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub(super) struct Json(Arc<RawValue>);

impl Json {
    pub(super) fn of(value: &impl Serialize) -> RpcResult<Self> {
        let raw = serde_json::value::to_raw_value(value).map_err(RpcError::internal)?;
        Ok(Self(raw.into()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.get().len()
    }

    /// An owned copy, as subscriptions need it.
    pub(super) fn to_raw(&self) -> Box<RawValue> {
        (*self.0).to_owned()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The latest answers by key, oldest forgotten first. For a few hot, immutable answers: lookup is a scan.
#[derive(Debug)]
pub(super) struct JsonCache<K> {
    entries: Mutex<VecDeque<(K, Json)>>,
}

/// Answers kept.
const ENTRIES_MAX: usize = 16;
/// Larger answers are not kept.
const ENTRY_BYTES_MAX: usize = 2 << 20;

impl<K: PartialEq + Copy> JsonCache<K> {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default() }
    }

    pub(super) fn get(&self, key: K) -> Option<Json> {
        let entries = self.entries.lock();
        entries.iter().rev().find(|(other, _)| *other == key).map(|(_, json)| json.clone())
    }

    pub(super) fn put(&self, key: K, json: &Json) {
        if json.len() > ENTRY_BYTES_MAX {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.iter().any(|(other, _)| *other == key) {
            return;
        }
        if entries.len() >= ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back((key, json.clone()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_cache_keeps_the_newest_and_nothing_huge() {
        let cache = JsonCache::new();
        (0..=ENTRIES_MAX).for_each(|key| cache.put(key, &Json::of(&key).unwrap()));
        assert!(cache.get(0).is_none());
        assert_eq!(serde_json::to_string(&cache.get(ENTRIES_MAX).unwrap()).unwrap(), ENTRIES_MAX.to_string());
        cache.put(99, &Json::of(&"x".repeat(ENTRY_BYTES_MAX)).unwrap());
        assert!(cache.get(99).is_none());
    }
}
