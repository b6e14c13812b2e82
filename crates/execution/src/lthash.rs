//! The running digest of the state (specs/state_hash.md, S-1 and S-2): a lattice hash, 1024 lanes of 16 bits.
//!
//! Every leaf of the state is hashed to 2048 bytes (BLAKE3 in XOF mode, keyed by a context with the chain id and
//! the format version) and the lanes are added modulo 2^16. Adding and removing leaves commutes, so a block's
//! effect is the sum over its changes, in any order and on any number of threads.
//!
//! # Invariants
//! - A leaf's bytes bind its kind, its full key and its value, so no two leaves of one state are equal: 2^16 equal
//!   leaves would cancel out.
//! - Old values come from the authenticated store only: removing what was never added corrupts the digest.

use crate::{AccountInfo, StateDiff, diff::DiffShard};
use alloy_primitives::{Address, B256, U256};
use rayon::prelude::*;

/// Size of the digest in bytes.
pub const LTHASH_BYTES: usize = 2048;
pub(crate) const LTHASH_VERSION: u8 = 1;

const LANES: usize = LTHASH_BYTES / 2;
const LEAF_CONTEXT: &str = "tandem v1 state leaf";
const STATE_CONTEXT: &str = "tandem v1 state hash";
const KIND_ACCOUNT: u8 = 1;
const KIND_STORAGE: u8 = 2;
/// Changes per parallel task: about a millisecond of hashing.
const CHUNK: usize = 1024;

/// Bytes that are no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a state digest has {LTHASH_BYTES} bytes, not {length}")]
pub struct LtHashError {
    /// Bytes given.
    pub length: usize,
}

/// A running digest of a state, bound to a chain id.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash {
    chain_id: u64,
    lanes: Box<[u16; LANES]>,
}

impl std::fmt::Debug for LtHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LtHash({})", self.state_hash())
    }
}

impl LtHash {
    /// The digest of the empty state.
    pub fn new(chain_id: u64) -> Self {
        Self { chain_id, lanes: Box::new([0; LANES]) }
    }

    /// Reads stored bytes.
    pub fn from_bytes(chain_id: u64, bytes: &[u8]) -> Result<Self, LtHashError> {
        if bytes.len() != LTHASH_BYTES {
            return Err(LtHashError { length: bytes.len() });
        }
        let mut digest = Self::new(chain_id);
        for (lane, pair) in digest.lanes.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Ok(digest)
    }

    /// The bytes to store: the lanes, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// `state_hash`, what stands in a header: the tagged BLAKE3 of the bytes.
    pub fn state_hash(&self) -> B256 {
        crypto::tagged_hash(STATE_CONTEXT, &[&self.to_bytes()])
    }

    /// Adds leaves to the state: full recomputation, in pieces of any size. Empty accounts and zero values count
    /// as absent; no leaf may be added twice.
    pub fn add_leaves(&mut self, accounts: &[(Address, AccountInfo)], slots: &[((Address, U256), U256)]) {
        let account_sum = accounts.par_chunks(CHUNK).map(|chunk| {
            let (mut lanes, mut hasher) = (empty_lanes(), Hasher::new(self.chain_id));
            for (address, info) in chunk {
                hasher.replace(None, account_leaf(address, info).as_ref(), &mut lanes);
            }
            lanes
        });
        let slot_sum = slots.par_chunks(CHUNK).map(|chunk| {
            let (mut lanes, mut hasher) = (empty_lanes(), Hasher::new(self.chain_id));
            for ((address, slot), value) in chunk {
                hasher.replace(None, slot_leaf(address, slot, value).as_ref(), &mut lanes);
            }
            lanes
        });
        let parts: Vec<_> = account_sum.chain(slot_sum).collect();
        parts.iter().for_each(|part| add_lanes(&mut self.lanes, part));
    }

    /// The digest after `diff`.
    #[must_use]
    pub fn apply(&self, diff: &StateDiff) -> Self {
        let shards = diff.shards();
        let mut sum = self.clone();
        if diff.len() <= CHUNK {
            let mut delta = Delta::new(self.chain_id);
            shards.iter().for_each(|shard| delta.add(shard));
            add_lanes(&mut sum.lanes, &delta.lanes);
            return sum;
        }
        let deltas = shards.par_iter().with_max_len(1).map(|shard| {
            let mut delta = Delta::new(self.chain_id);
            delta.add(shard);
            delta.lanes
        });
        let deltas: Vec<_> = deltas.collect();
        deltas.iter().for_each(|delta| add_lanes(&mut sum.lanes, delta));
        sum
    }
}

/// What changes add to a digest.
struct Delta {
    lanes: Box<[u16; LANES]>,
    hasher: Hasher,
}

impl Delta {
    fn new(chain_id: u64) -> Self {
        Self { lanes: empty_lanes(), hasher: Hasher::new(chain_id) }
    }

    fn add(&mut self, shard: &DiffShard) {
        for (address, change) in shard.accounts() {
            let [old, new] =
                [&change.old, &change.new].map(|v| v.as_ref().and_then(|info| account_leaf(address, info)));
            self.hasher.replace(old.as_ref(), new.as_ref(), &mut self.lanes);
        }
        for ((address, slot), change) in shard.slots() {
            let [old, new] = [&change.old, &change.new].map(|v| slot_leaf(address, slot, v));
            self.hasher.replace(old.as_ref(), new.as_ref(), &mut self.lanes);
        }
    }
}

/// `kind ‖ address ‖ length u32 ‖ nonce u64 ‖ balance (32, big-endian) ‖ code hash`.
type AccountLeaf = [u8; 97];
/// `kind ‖ address ‖ slot (32, big-endian) ‖ length u32 ‖ value (32, big-endian)`.
type SlotLeaf = [u8; 89];

fn account_leaf(address: &Address, info: &AccountInfo) -> Option<AccountLeaf> {
    if info.is_empty() {
        return None;
    }
    let mut leaf = [0; 97];
    leaf[0] = KIND_ACCOUNT;
    leaf[1..21].copy_from_slice(address.as_slice());
    leaf[21..25].copy_from_slice(&72u32.to_le_bytes());
    leaf[25..33].copy_from_slice(&info.nonce.to_le_bytes());
    leaf[33..65].copy_from_slice(&info.balance.to_be_bytes::<32>());
    leaf[65..97].copy_from_slice(info.code_hash.as_slice());
    Some(leaf)
}

fn slot_leaf(address: &Address, slot: &U256, value: &U256) -> Option<SlotLeaf> {
    if value.is_zero() {
        return None;
    }
    let mut leaf = [0; 89];
    leaf[0] = KIND_STORAGE;
    leaf[1..21].copy_from_slice(address.as_slice());
    leaf[21..53].copy_from_slice(&slot.to_be_bytes::<32>());
    leaf[53..57].copy_from_slice(&32u32.to_le_bytes());
    leaf[57..89].copy_from_slice(&value.to_be_bytes::<32>());
    Some(leaf)
}

fn empty_lanes() -> Box<[u16; LANES]> {
    Box::new([0; LANES])
}

fn add_lanes(lanes: &mut [u16; LANES], other: &[u16; LANES]) {
    lanes.iter_mut().zip(other).for_each(|(lane, other)| *lane = lane.wrapping_add(*other));
}

/// Hashes leaves of one chain. The context's key is derived once.
struct Hasher {
    base: blake3::Hasher,
    buffer: [u8; LTHASH_BYTES],
}

impl Hasher {
    fn new(chain_id: u64) -> Self {
        let mut key = blake3::Hasher::new_derive_key(LEAF_CONTEXT);
        key.update(&chain_id.to_le_bytes()).update(&[LTHASH_VERSION]);
        let base = blake3::Hasher::new_keyed(key.finalize().as_bytes());
        Self { base, buffer: [0; LTHASH_BYTES] }
    }

    fn replace<const N: usize>(
        &mut self,
        old: Option<&[u8; N]>,
        new: Option<&[u8; N]>,
        lanes: &mut [u16; LANES],
    ) {
        if let Some(leaf) = old {
            self.each_lane(leaf, lanes, u16::wrapping_sub);
        }
        if let Some(leaf) = new {
            self.each_lane(leaf, lanes, u16::wrapping_add);
        }
    }

    fn each_lane(&mut self, leaf: &[u8], lanes: &mut [u16; LANES], combine: impl Fn(u16, u16) -> u16) {
        self.base.reset();
        self.base.update(leaf).finalize_xof().fill(&mut self.buffer);
        for (lane, pair) in lanes.iter_mut().zip(self.buffer.chunks_exact(2)) {
            *lane = combine(*lane, u16::from_le_bytes([pair[0], pair[1]]));
        }
    }
}
