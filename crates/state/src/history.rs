//! States of the recent past: per block the old values of what it changed.
//!
//! The value of a key after height h is the old value in the first record above h that has the key, or the
//! current one when none has. Records are found by filters kept in memory, sorted fingerprints of the changed
//! keys, so that a read costs one probe per height and one record where the key really changed.

use crate::StateError;
use alloy_primitives::{Address, B256, Bytes, U256};
use execution::{AccountChange, AccountInfo, SlotChange, StateDiff};
use std::{collections::VecDeque, sync::Arc};

/// Fingerprints of all readable past blocks together: 64 MiB of memory. Beyond it the oldest heights are given
/// up early.
pub(crate) const FINGERPRINTS_MAX: usize = 16 << 20;

/// `address 20 ‖ kind u8 (0 absent, 1 present) ‖ nonce u64 LE ‖ balance 32 BE ‖ code hash 32`.
const ACCOUNT_BYTES: usize = 93;
/// `address 20 ‖ slot 32 BE ‖ old value 32 BE`.
const SLOT_BYTES: usize = 84;
const SLOT_KEY_BYTES: usize = 52;

/// Which past heights are readable, and where to look.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Filters of the blocks up to the head, ascending and without a gap; the state below the first is readable.
    filters: VecDeque<Filter>,
    head: u64,
    fingerprints: usize,
}

/// Which keys a block changed.
#[derive(Clone, Debug)]
struct Filter {
    height: u64,
    sorted: Arc<[u32]>,
}

impl History {
    /// A history that reaches back to `head` only.
    pub(crate) fn new(head: u64) -> Self {
        Self { filters: VecDeque::new(), head, fingerprints: 0 }
    }

    /// The lowest readable height.
    pub(crate) fn oldest(&self) -> u64 {
        self.head - self.filters.len() as u64
    }

    /// Adds the block after the head.
    pub(crate) fn push(&mut self, sorted: Arc<[u32]>) {
        self.head += 1;
        self.fingerprints += sorted.len();
        self.filters.push_back(Filter { height: self.head, sorted });
    }

    /// Adds the block at the lowest height not covered, while a store is opened from the head down.
    pub(crate) fn push_older(&mut self, sorted: Arc<[u32]>) {
        let height = self.oldest();
        self.fingerprints += sorted.len();
        self.filters.push_front(Filter { height, sorted });
    }

    /// Drops the oldest blocks until at most `blocks_max` and the memory bound remain; gives the dropped heights.
    pub(crate) fn prune(&mut self, blocks_max: u64) -> Vec<u64> {
        let mut dropped = Vec::new();
        while self.filters.len() as u64 > blocks_max || self.fingerprints > FINGERPRINTS_MAX {
            let Some(filter) = self.filters.pop_front() else { break };
            self.fingerprints -= filter.sorted.len();
            dropped.push(filter.height);
        }
        dropped
    }

    /// Heights above `height` whose blocks may have changed the key with `fingerprint`, ascending.
    pub(crate) fn candidates(&self, height: u64, fingerprint: u32) -> impl Iterator<Item = u64> {
        let skip = usize::try_from(height - self.oldest()).unwrap_or(usize::MAX);
        let may_have = move |filter: &&Filter| filter.sorted.binary_search(&fingerprint).is_ok();
        self.filters.iter().skip(skip).filter(may_have).map(|filter| filter.height)
    }
}

/// Fingerprint of an account.
pub(crate) fn account_fingerprint(address: &Address) -> u32 {
    tail(address.as_slice())
}

/// Fingerprint of a slot. Slots of one contract are often small consecutive numbers or hashes; both spread.
pub(crate) fn slot_fingerprint(address: &Address, slot: &U256) -> u32 {
    let slot = slot.to_be_bytes::<32>();
    let mixed =
        tail(address.as_slice()) ^ tail(&slot).wrapping_add(1).wrapping_mul(0x9e37_79b1) ^ tail(&slot[..16]);
    mixed.rotate_left(7)
}

fn tail(bytes: &[u8]) -> u32 {
    bytes[bytes.len() - 4..].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// A diff's changes in key order, sorted once per commit.
pub(crate) struct Changes<'a> {
    pub(crate) accounts: Vec<(Address, AccountChange)>,
    pub(crate) slots: Vec<((Address, U256), SlotChange)>,
    pub(crate) codes: Vec<(B256, &'a Bytes)>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(diff: &'a StateDiff) -> Self {
        Self { accounts: diff.accounts(), slots: diff.slots(), codes: diff.codes() }
    }

    /// The sorted fingerprints of the changed keys.
    pub(crate) fn fingerprints(&self) -> Arc<[u32]> {
        let accounts = self.accounts.iter().map(|(address, _)| account_fingerprint(address));
        let slots = self.slots.iter().map(|((address, slot), _)| slot_fingerprint(address, slot));
        let mut all: Vec<u32> = accounts.chain(slots).collect();
        all.sort_unstable();
        all.dedup();
        all.into()
    }

    /// The undo record: `account count u32 ‖ accounts ‖ slots`.
    pub(crate) fn undo_record(&self) -> Vec<u8> {
        let length = 4 + self.accounts.len() * ACCOUNT_BYTES + self.slots.len() * SLOT_BYTES;
        let mut record = Vec::with_capacity(length);
        let count = u32::try_from(self.accounts.len()).expect("a block changes fewer than 2^32 accounts");
        record.extend_from_slice(&count.to_le_bytes());
        for (address, change) in &self.accounts {
            let info = change.old.unwrap_or_default();
            record.extend_from_slice(address.as_slice());
            record.push(u8::from(change.old.is_some()));
            record.extend_from_slice(&info.nonce.to_le_bytes());
            record.extend_from_slice(&info.balance.to_be_bytes::<32>());
            record.extend_from_slice(info.code_hash.as_slice());
        }
        for ((address, slot), change) in &self.slots {
            record.extend_from_slice(address.as_slice());
            record.extend_from_slice(&slot.to_be_bytes::<32>());
            record.extend_from_slice(&change.old.to_be_bytes::<32>());
        }
        record
    }
}

pub(crate) fn write_fingerprints(sorted: &[u32]) -> Vec<u8> {
    sorted.iter().flat_map(|fingerprint| fingerprint.to_le_bytes()).collect()
}

pub(crate) fn read_fingerprints(row: &[u8]) -> Result<Arc<[u32]>, StateError> {
    let chunks = row.chunks_exact(4);
    if !chunks.remainder().is_empty() {
        return Err(StateError::corrupt("undo filter", format!("{} bytes", row.len())));
    }
    Ok(chunks.map(|raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]])).collect())
}

/// The account's value before the block, or `None` when the block did not change it.
pub(crate) fn old_account(
    record: &[u8],
    address: &Address,
) -> Result<Option<Option<AccountInfo>>, StateError> {
    let (accounts, _) = split(record)?;
    let Some(row) = search::<ACCOUNT_BYTES>(accounts, address.as_slice()) else { return Ok(None) };
    if row[20] == 0 {
        return Ok(Some(None));
    }
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&row[21..29]);
    Ok(Some(Some(AccountInfo {
        nonce: u64::from_le_bytes(nonce),
        balance: U256::from_be_slice(&row[29..61]),
        code_hash: B256::from_slice(&row[61..93]),
    })))
}

/// The slot's value before the block, or `None` when the block did not change it.
pub(crate) fn old_slot(record: &[u8], address: &Address, slot: &U256) -> Result<Option<U256>, StateError> {
    let (_, slots) = split(record)?;
    let mut key = [0; SLOT_KEY_BYTES];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(&slot.to_be_bytes::<32>());
    Ok(search::<SLOT_BYTES>(slots, &key).map(|row| U256::from_be_slice(&row[SLOT_KEY_BYTES..])))
}

fn split(record: &[u8]) -> Result<(&[u8], &[u8]), StateError> {
    let bad = || StateError::corrupt("undo record", format!("{} bytes", record.len()));
    let (count, rest) = record.split_first_chunk::<4>().ok_or_else(bad)?;
    let accounts = (u32::from_le_bytes(*count) as usize).checked_mul(ACCOUNT_BYTES).ok_or_else(bad)?;
    let (accounts, slots) = rest.split_at_checked(accounts).ok_or_else(bad)?;
    if slots.len() % SLOT_BYTES != 0 {
        return Err(bad());
    }
    Ok((accounts, slots))
}

/// Binary search over rows of `N` bytes that start with their key.
fn search<'a, const N: usize>(rows: &'a [u8], key: &[u8]) -> Option<&'a [u8; N]> {
    let (rows, _) = rows.as_chunks::<N>();
    rows.binary_search_by(|row| row[..key.len()].cmp(key)).ok().map(|index| &rows[index])
}
