//! Keys and values of the two keyspaces.
//!
//! `state` holds what a commit overwrites: accounts, slots, code and the head with its digest. `chain` holds what
//! is written once: blocks, receipts, indexes and undo records, and a head of its own. A batch covers both; but
//! when a damaged journal is cut short, each keyspace falls back on its own, so both heads are compared at open.
//!
//! Accounts and slots are keyed by keccak, so that a trie can range-scan its leaves; the values repeat the
//! address and the slot, which the digest's leaves need.

use crate::{StateError, TxLocation};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use borsh::{BorshDeserialize, BorshSerialize};
use execution::{AccountInfo, LtHash};

pub(crate) const FORMAT_VERSION: u8 = 2;

pub(crate) const ACCOUNT: u8 = b'a';
pub(crate) const SLOT: u8 = b's';
const CODE: u8 = b'c';
pub(crate) const HEAD_KEY: &[u8] = b"mhead";

const RECORD: u8 = b'h';
const HEIGHT_OF: u8 = b'i';
const TRANSACTIONS: u8 = b't';
const RECEIPTS: u8 = b'r';
const OUTLINE: u8 = b'l';
const LOCATION: u8 = b'x';
const SET_HASH: u8 = b'v';
const SET: u8 = b'w';
const UNDO: u8 = b'u';
const UNDO_FILTER: u8 = b'f';

pub(crate) const ACCOUNT_ROW: usize = 92;
pub(crate) const SLOT_ROW: usize = 84;

pub(crate) fn account_key(address: &Address) -> [u8; 33] {
    prefixed(ACCOUNT, &keccak256(address))
}

pub(crate) fn slot_key(address: &Address, slot: &U256) -> [u8; 65] {
    let mut key = [0; 65];
    key[0] = SLOT;
    key[1..33].copy_from_slice(keccak256(address).as_slice());
    key[33..].copy_from_slice(keccak256(slot.to_be_bytes::<32>()).as_slice());
    key
}

pub(crate) fn code_key(hash: &B256) -> [u8; 33] {
    prefixed(CODE, hash)
}

pub(crate) fn record_key(height: u64) -> [u8; 9] {
    numbered(RECORD, height)
}

pub(crate) fn height_of_key(hash: &B256) -> [u8; 33] {
    prefixed(HEIGHT_OF, hash)
}

pub(crate) fn transactions_key(height: u64) -> [u8; 9] {
    numbered(TRANSACTIONS, height)
}

pub(crate) fn receipts_key(height: u64) -> [u8; 9] {
    numbered(RECEIPTS, height)
}

pub(crate) fn outline_key(height: u64) -> [u8; 9] {
    numbered(OUTLINE, height)
}

pub(crate) fn set_hash_key(height: u64) -> [u8; 9] {
    numbered(SET_HASH, height)
}

pub(crate) fn set_key(hash: &B256) -> [u8; 33] {
    prefixed(SET, hash)
}

pub(crate) fn location_key(hash: &B256) -> [u8; 33] {
    prefixed(LOCATION, hash)
}

pub(crate) fn undo_key(height: u64) -> [u8; 9] {
    numbered(UNDO, height)
}

pub(crate) fn undo_filter_key(height: u64) -> [u8; 9] {
    numbered(UNDO_FILTER, height)
}

fn prefixed(kind: u8, hash: &B256) -> [u8; 33] {
    let mut key = [kind; 33];
    key[1..].copy_from_slice(hash.as_slice());
    key
}

fn numbered(kind: u8, height: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&height.to_be_bytes());
    key
}

/// `nonce u64 LE ‖ balance 32 BE ‖ code hash 32 ‖ address 20`.
pub(crate) fn account_row(address: &Address, info: &AccountInfo) -> [u8; ACCOUNT_ROW] {
    let mut row = [0; ACCOUNT_ROW];
    row[..8].copy_from_slice(&info.nonce.to_le_bytes());
    row[8..40].copy_from_slice(&info.balance.to_be_bytes::<32>());
    row[40..72].copy_from_slice(info.code_hash.as_slice());
    row[72..].copy_from_slice(address.as_slice());
    row
}

pub(crate) fn read_account_row(row: &[u8]) -> Result<(Address, AccountInfo), StateError> {
    let row: &[u8; ACCOUNT_ROW] =
        row.try_into().map_err(|_| StateError::corrupt("account", format!("{} bytes", row.len())))?;
    let mut nonce = [0; 8];
    nonce.copy_from_slice(&row[..8]);
    let info = AccountInfo {
        nonce: u64::from_le_bytes(nonce),
        balance: U256::from_be_slice(&row[8..40]),
        code_hash: B256::from_slice(&row[40..72]),
    };
    Ok((Address::from_slice(&row[72..]), info))
}

/// `value 32 BE ‖ address 20 ‖ slot 32 BE`.
pub(crate) fn slot_row(address: &Address, slot: &U256, value: &U256) -> [u8; SLOT_ROW] {
    let mut row = [0; SLOT_ROW];
    row[..32].copy_from_slice(&value.to_be_bytes::<32>());
    row[32..52].copy_from_slice(address.as_slice());
    row[52..].copy_from_slice(&slot.to_be_bytes::<32>());
    row
}

pub(crate) fn read_slot_row(row: &[u8]) -> Result<((Address, U256), U256), StateError> {
    let row: &[u8; SLOT_ROW] =
        row.try_into().map_err(|_| StateError::corrupt("storage slot", format!("{} bytes", row.len())))?;
    let [value, slot] = [&row[..32], &row[52..]].map(U256::from_be_slice);
    Ok(((Address::from_slice(&row[32..52]), slot), value))
}

/// `height u64 LE ‖ index u32 LE`.
pub(crate) fn location_row(height: u64, index: u32) -> [u8; 12] {
    let mut row = [0; 12];
    row[..8].copy_from_slice(&height.to_le_bytes());
    row[8..].copy_from_slice(&index.to_le_bytes());
    row
}

pub(crate) fn read_location_row(row: &[u8]) -> Result<TxLocation, StateError> {
    match row.split_first_chunk::<8>() {
        Some((height, index)) if index.len() == 4 => Ok(TxLocation {
            height: u64::from_le_bytes(*height),
            index: u32::from_le_bytes([index[0], index[1], index[2], index[3]]),
        }),
        _ => Err(StateError::corrupt("transaction location", format!("{} bytes", row.len()))),
    }
}

/// Head of the `state` keyspace.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct StateHeadRow {
    pub(crate) version: u8,
    pub(crate) genesis_hash: B256,
    pub(crate) chain_id: u64,
    pub(crate) height: u64,
    pub(crate) block_hash: B256,
    pub(crate) lthash: Vec<u8>,
}

impl StateHeadRow {
    pub(crate) fn read(row: &[u8]) -> Result<(Self, LtHash), StateError> {
        let head: Self = read("head of the state", row)?;
        if head.version != FORMAT_VERSION {
            let reason = format!("format version {}, this version reads {FORMAT_VERSION}", head.version);
            return Err(StateError::corrupt("head of the state", reason));
        }
        let lthash = LtHash::from_bytes(head.chain_id, &head.lthash)
            .map_err(|error| StateError::corrupt("head of the state", error))?;
        Ok((head, lthash))
    }
}

/// Head of the `chain` keyspace.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct ChainHeadRow {
    pub(crate) height: u64,
    pub(crate) block_hash: B256,
}

pub(crate) fn write<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory cannot fail and no collection exceeds u32::MAX")
}

pub(crate) fn read<T: BorshDeserialize>(what: &'static str, row: &[u8]) -> Result<T, StateError> {
    borsh::from_slice(row).map_err(|error| StateError::corrupt(what, error))
}

/// Writes items so that each can be read alone: `count u32 ‖ end offset u32 per item ‖ items`.
pub(crate) fn write_table(items: &[Vec<u8>]) -> Vec<u8> {
    let data: usize = items.iter().map(Vec::len).sum();
    let mut table = Vec::with_capacity(4 + 4 * items.len() + data);
    let put = |table: &mut Vec<u8>, value: usize| {
        let value = u32::try_from(value).expect("a block's transactions and receipts stay far below 4 GiB");
        table.extend_from_slice(&value.to_le_bytes());
    };
    put(&mut table, items.len());
    let mut end = 0;
    for item in items {
        end += item.len();
        put(&mut table, end);
    }
    items.iter().for_each(|item| table.extend_from_slice(item));
    table
}

/// Reads a table of items.
pub(crate) struct Table {
    bytes: Bytes,
    what: &'static str,
    count: usize,
}

impl Table {
    pub(crate) fn open(what: &'static str, bytes: Bytes) -> Result<Self, StateError> {
        let count = number(&bytes, 0).ok_or_else(|| StateError::corrupt(what, "no item count"))?;
        Ok(Self { bytes, what, count })
    }

    /// Item `index`, or `None` when there is no such item.
    pub(crate) fn get(&self, index: usize) -> Result<Option<Bytes>, StateError> {
        if index >= self.count {
            return Ok(None);
        }
        let start = match index {
            0 => Some(0),
            _ => number(&self.bytes, 4 * index),
        };
        let end = number(&self.bytes, 4 * (index + 1));
        let data = 4 * (self.count + 1);
        match (start, end) {
            (Some(start), Some(end)) if start <= end && data + end <= self.bytes.len() => {
                Ok(Some(self.bytes.slice(data + start..data + end)))
            }
            _ => Err(StateError::corrupt(self.what, format!("item {index} of {} lies outside", self.count))),
        }
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = Result<Bytes, StateError>> {
        (0..self.count).filter_map(|index| self.get(index).transpose())
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let raw: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(raw)).ok()
}
