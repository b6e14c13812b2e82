//! A whole state in memory, with its Merkle Patricia root.

use crate::{Account, Skip};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256, map::B256Map};
use alloy_trie::{TrieAccount, root};
use execution::{AccountInfo, LtHash, StateDiff, StateView, ViewError};
use std::collections::BTreeMap;

/// Accounts, storage and code.
#[derive(Clone, Debug, Default)]
pub struct WorldState {
    accounts: BTreeMap<Address, (AccountInfo, BTreeMap<U256, U256>)>,
    code: B256Map<Bytes>,
}

impl WorldState {
    /// The state of a fixture; `Err` names an account whose nonce has more than 64 bits.
    pub fn new(accounts: &BTreeMap<Address, Account>) -> Result<Self, Address> {
        let mut state = Self::default();
        for (address, account) in accounts {
            let nonce = account.nonce.to_u64().ok_or(*address)?;
            let code_hash = if account.code.is_empty() { KECCAK256_EMPTY } else { keccak256(&account.code) };
            let slots = account.storage.iter().map(|(key, value)| (key.0.0, value.0));
            let storage = slots.filter(|(_, value)| !value.is_zero()).collect();
            state.code.insert(code_hash, account.code.clone());
            state
                .accounts
                .insert(*address, (AccountInfo { nonce, balance: account.balance.0, code_hash }, storage));
        }
        Ok(state)
    }

    /// Whether a chain of today can be in this state.
    pub(crate) fn possible(&self) -> Result<(), Skip> {
        for (info, storage) in self.accounts.values() {
            match (info.nonce == 0 && !info.has_code(), storage.is_empty()) {
                (true, false) => return Err(Skip::StorageAlone),
                (true, true) if info.balance.is_zero() => return Err(Skip::EmptyAccount),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes over a block's changes; `Err` names an account that does not exist and was given a slot.
    pub fn apply(&mut self, diff: &StateDiff) -> Result<(), Address> {
        for (address, change) in diff.accounts() {
            match change.new {
                Some(info) => self.accounts.entry(address).or_default().0 = info,
                None => drop(self.accounts.remove(&address)),
            }
        }
        for ((address, slot), change) in diff.slots() {
            let (_, storage) = self.accounts.get_mut(&address).ok_or(address)?;
            match change.new.is_zero() {
                true => storage.remove(&slot),
                false => storage.insert(slot, change.new),
            };
        }
        self.code.extend(diff.codes().into_iter().map(|(hash, code)| (hash, code.clone())));
        Ok(())
    }

    /// Writes a slot of an account that exists.
    pub(crate) fn set_slot(&mut self, address: Address, slot: u64, value: u64) {
        if let Some((_, storage)) = self.accounts.get_mut(&address)
            && value != 0
        {
            storage.insert(U256::from(slot), U256::from(value));
        }
    }

    /// The state without an account and its storage.
    pub(crate) fn without(mut self, address: &Address) -> Self {
        self.accounts.remove(address);
        self
    }

    /// Merkle Patricia root.
    pub fn root(&self) -> B256 {
        let accounts = self.accounts.iter().map(|(address, (info, storage))| {
            let slots = storage.iter().map(|(slot, value)| (B256::from(*slot), *value));
            let root = root::storage_root_unhashed(slots);
            (*address, TrieAccount::new(info.nonce, info.balance, root, info.code_hash))
        });
        root::state_root_unhashed(accounts)
    }

    /// This chain's own digest of the state, computed from nothing.
    pub fn digest(&self, chain_id: u64) -> LtHash {
        let accounts: Vec<_> = self.accounts.iter().map(|(address, (info, _))| (*address, *info)).collect();
        let slots = self.accounts.iter().flat_map(|(address, (_, storage))| {
            storage.iter().map(move |(slot, value)| ((*address, *slot), *value))
        });
        let mut digest = LtHash::new(chain_id);
        digest.add_leaves(&accounts, &slots.collect::<Vec<_>>());
        digest
    }

    /// Whether the account has code.
    pub fn has_code(&self, address: &Address) -> bool {
        self.accounts.get(address).is_some_and(|(info, _)| info.has_code())
    }

    /// Where this state is not `expected`, at most `limit` lines.
    pub fn differences(&self, expected: &Self, limit: usize) -> Vec<String> {
        let all = self.accounts.keys().chain(expected.accounts.keys());
        let mut addresses: Vec<&Address> = all.collect();
        addresses.sort_unstable();
        addresses.dedup();
        let lines = addresses.into_iter().flat_map(|address| {
            let (have, want) = (self.accounts.get(address), expected.accounts.get(address));
            account_differences(*address, have, want)
        });
        lines.take(limit).collect()
    }
}

type Stored = (AccountInfo, BTreeMap<U256, U256>);

fn account_differences(address: Address, have: Option<&Stored>, want: Option<&Stored>) -> Vec<String> {
    let (Some((info, storage)), Some((want_info, want_storage))) = (have, want) else {
        return match (have, want) {
            (Some(_), None) => vec![format!("{address}: exists, must not")],
            (None, Some(_)) => vec![format!("{address}: does not exist, must")],
            _ => Vec::new(),
        };
    };
    let mut lines = Vec::new();
    if info.nonce != want_info.nonce {
        lines.push(format!("{address}: nonce {}, must be {}", info.nonce, want_info.nonce));
    }
    if info.balance != want_info.balance {
        lines.push(format!("{address}: balance {}, must be {}", info.balance, want_info.balance));
    }
    if info.code_hash != want_info.code_hash {
        lines.push(format!("{address}: code {}, must be {}", info.code_hash, want_info.code_hash));
    }
    let mut slots: Vec<&U256> = storage.keys().chain(want_storage.keys()).collect();
    slots.sort_unstable();
    slots.dedup();
    for slot in slots {
        let value = |storage: &BTreeMap<U256, U256>| storage.get(slot).copied().unwrap_or_default();
        let (have, want) = (value(storage), value(want_storage));
        if have != want {
            lines.push(format!("{address}: slot {slot:#x} is {have:#x}, must be {want:#x}"));
        }
    }
    lines
}

impl StateView for WorldState {
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
        Ok(self.accounts.get(&address).map(|(info, _)| *info))
    }

    fn code(&self, hash: B256) -> Result<Bytes, ViewError> {
        match self.code.get(&hash) {
            Some(code) => Ok(code.clone()),
            None if hash == KECCAK256_EMPTY => Ok(Bytes::new()),
            None => Err(ViewError::MissingCode(hash)),
        }
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, ViewError> {
        let storage = self.accounts.get(&address).and_then(|(_, storage)| storage.get(&slot));
        Ok(storage.copied().unwrap_or_default())
    }

    /// State tests have no chain; they define the hash of a block as the keccak of its number in decimal digits.
    fn block_hash(&self, height: u64) -> Result<B256, ViewError> {
        Ok(keccak256(height.to_string()))
    }
}
