//! A bounded cache of current values in front of the database.
//!
//! # Invariants
//! - An entry is the key's value at every visible height from `since` on: a commit replaces the entries of all
//!   keys it changes before its height becomes visible.
//! - A reader at height h uses an entry when `since <= h`, and adds one only when the shard is at h: a value read
//!   before a commit can never hide that commit.
//! - At most twice the capacity is held: entries live in a young and an old generation; a full young generation
//!   becomes the old one, and the old one is dropped.

use alloy_primitives::map::{DefaultHashBuilder, HashMap};
use parking_lot::Mutex;
use std::{
    hash::{BuildHasher, Hash},
    mem,
};

const SHARDS: usize = 64;

/// A cache of `V` by `K`.
pub(crate) struct HotCache<K, V> {
    shards: Vec<Mutex<Shard<K, V>>>,
    hasher: DefaultHashBuilder,
    shard_capacity: usize,
}

struct Shard<K, V> {
    height: u64,
    young: HashMap<K, Entry<V>>,
    old: HashMap<K, Entry<V>>,
}

#[derive(Clone, Copy)]
struct Entry<V> {
    since: u64,
    value: V,
}

impl<K: Copy + Eq + Hash, V: Copy> HotCache<K, V> {
    /// An empty cache for a store whose head is at `height`.
    pub(crate) fn new(capacity: usize, height: u64) -> Self {
        let shard = || Mutex::new(Shard { height, young: HashMap::default(), old: HashMap::default() });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: DefaultHashBuilder::default(),
            shard_capacity: capacity / (2 * SHARDS),
        }
    }

    /// The value of `key` after the block at `height`, if it is known.
    pub(crate) fn get(&self, key: &K, height: u64) -> Option<V> {
        let mut shard = self.shard(key).lock();
        if let Some(entry) = shard.young.get(key) {
            return (entry.since <= height).then_some(entry.value);
        }
        let entry = *shard.old.get(key)?;
        self.insert(&mut shard, *key, entry);
        (entry.since <= height).then_some(entry.value)
    }

    /// Offers a value read from the state after the block at `height`.
    pub(crate) fn offer(&self, key: K, value: V, height: u64) {
        let mut shard = self.shard(&key).lock();
        if shard.height == height && !shard.young.contains_key(&key) {
            self.insert(&mut shard, key, Entry { since: height, value });
        }
    }

    /// Takes over the changes of the block at `height`. They must be durable, and the block not yet visible.
    pub(crate) fn commit(&self, height: u64, changes: impl Iterator<Item = (K, V)>) {
        // First the heights: from here on nobody can add what it read before this block. Readers at the new height
        // do not exist yet.
        self.shards.iter().for_each(|shard| shard.lock().height = height);
        for (key, value) in changes {
            let mut shard = self.shard(&key).lock();
            self.insert(&mut shard, key, Entry { since: height, value });
        }
    }

    fn insert(&self, shard: &mut Shard<K, V>, key: K, entry: Entry<V>) {
        if shard.young.len() >= self.shard_capacity && !shard.young.contains_key(&key) {
            shard.old = mem::take(&mut shard.young);
        }
        shard.old.remove(&key);
        shard.young.insert(key, entry);
    }

    fn shard(&self, key: &K) -> &Mutex<Shard<K, V>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        &self.shards[index]
    }
}
