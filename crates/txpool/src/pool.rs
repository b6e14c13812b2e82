//! The pool: admission, replacement, eviction, expiry, and what a finalized block changes.

use crate::account::{Account, AccountState, Slot};
use crate::rules::Offer;
use crate::tip_index::{Ranked, TipIndex};
use crate::{Limits, Price, Refusal};
use alloy_consensus::Transaction;
use alloy_primitives::{
    Address, B256,
    map::{AddressMap, B256Map},
};
use execution::{RecoveredTx, StrictList};
use std::collections::{BTreeMap, BTreeSet};

/// Extra percentage a replacement pays on both fees.
pub const REPLACEMENT_BUMP_PERCENT: u128 = 10;

/// How full the pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Transactions that could be mined in the next blocks.
    pub pending: usize,
    /// Transactions behind a nonce gap, or beyond their sender's balance.
    pub queued: usize,
    /// Encoded bytes of all.
    pub bytes: usize,
}

/// An admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inserted {
    /// Whether it can be mined next, given its predecessors; else it is queued.
    pub pending: bool,
    /// The transaction it took the place of.
    pub replaced: Option<RecoveredTx>,
    /// Transactions that had to go for it.
    pub evicted: Vec<RecoveredTx>,
}

/// One sender's transactions in nonce order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderContent {
    /// The sender.
    pub sender: Address,
    /// Its minable transactions.
    pub pending: Vec<RecoveredTx>,
    /// Its waiting transactions.
    pub queued: Vec<RecoveredTx>,
}

/// A bounded set of transactions, ordered for proposers.
///
/// Getters: `get`, `contains`, `account`, `next_nonce`, `status`, `content`, `select`, `next_expiry_ms`.
/// Inputs: `insert`, `advance`, `set_height`, `expire`, `remove`. Time and account states are arguments; the pool never asks.
///
/// # Invariants
/// - `by_hash` and `by_sequence` hold exactly the slots of all accounts; `bytes` is their encoded length. `by_last_height`
///   holds those that name a height; it is above `height`.
/// - `heads` ranks every account with a pending transaction by its first one; `pending_tails` and `queued_tails`
///   rank every account by its last one, apart by whether that one is pending.
/// - After any input the pool is within its limits.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    pub(crate) accounts: AddressMap<Account>,
    by_hash: B256Map<(Address, u64)>,
    by_sequence: BTreeMap<u64, (Address, u64)>,
    by_last_height: BTreeSet<(u64, B256)>,
    height: u64,
    pub(crate) heads: TipIndex,
    pending_tails: TipIndex,
    queued_tails: TipIndex,
    next_sequence: u64,
    status: Status,
}

impl Pool {
    /// An empty pool for blocks at `base_fee`.
    pub fn new(limits: Limits, base_fee: u64) -> Self {
        let mut pool = Self {
            limits,
            accounts: AddressMap::default(),
            by_hash: B256Map::default(),
            by_sequence: BTreeMap::new(),
            by_last_height: BTreeSet::new(),
            height: 0,
            heads: TipIndex::default(),
            pending_tails: TipIndex::default(),
            queued_tails: TipIndex::default(),
            next_sequence: 0,
            status: Status::default(),
        };
        pool.set_base_fee(base_fee);
        pool
    }

    /// A pooled transaction.
    pub fn get(&self, hash: &B256) -> Option<&RecoveredTx> {
        let (address, nonce) = self.by_hash.get(hash)?;
        Some(&self.accounts.get(address)?.slots.get(nonce)?.transaction)
    }

    /// Whether a transaction is pooled.
    pub fn contains(&self, hash: &B256) -> bool {
        self.by_hash.contains_key(hash)
    }

    /// The state the pool knows of a sender; only of senders with pooled transactions.
    pub fn account(&self, address: &Address) -> Option<AccountState> {
        self.accounts.get(address).map(|account| account.state)
    }

    /// The nonce after a sender's pending transactions; `None` for senders without pooled transactions.
    pub fn next_nonce(&self, address: &Address) -> Option<u64> {
        self.accounts.get(address).map(|account| account.pending_end)
    }

    /// How full the pool is.
    pub fn status(&self) -> Status {
        self.status
    }

    /// One sender's transactions.
    pub fn content_of(&self, sender: &Address) -> Option<SenderContent> {
        self.accounts.get(sender).map(|account| content(*sender, account))
    }

    /// All senders' transactions, in no particular order.
    pub fn content(&self) -> impl Iterator<Item = SenderContent> + '_ {
        self.accounts.iter().map(|(sender, account)| content(*sender, account))
    }

    /// When the oldest transaction's time is over.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.oldest().map(|(_, slot)| slot.admitted_ms.saturating_add(self.limits.lifetime_ms))
    }

    /// Admits a transaction that passed [`crate::AdmissionRules::check`]. `state` is the sender's at the newest
    /// block given to [`Self::advance`]; for a sender the pool knows, its own knowledge counts.
    pub fn insert(
        &mut self,
        transaction: RecoveredTx,
        state: AccountState,
        now_ms: u64,
    ) -> Result<Inserted, Refusal> {
        if self.contains(&transaction.hash()) {
            return Err(Refusal::AlreadyKnown);
        }
        let (address, nonce, hash) = (transaction.sender(), transaction.nonce(), transaction.hash());
        let offer = Offer::of(transaction.envelope());
        let last_height = transaction.envelope().access_list().and_then(StrictList::last_height);
        if let Some(valid_until) = last_height.filter(|last| *last <= self.height) {
            return Err(Refusal::Expired { valid_until, next: self.height.saturating_add(1) });
        }
        let fresh = Account::new(state);
        check_account(&self.limits, self.accounts.get(&address).unwrap_or(&fresh), nonce, &offer)?;
        let slot = Slot {
            transaction,
            price: offer.price,
            floor: offer.price,
            cost: offer.cost,
            sequence: self.next_sequence,
            admitted_ms: now_ms,
            last_height,
        };
        self.next_sequence += 1;
        let replaced = self.place(slot, state);
        let evicted = self.trim(hash, &replaced)?;
        let pending = self.accounts.get(&address).is_some_and(|account| nonce < account.pending_end);
        let transactions = |slots: Vec<Slot>| slots.into_iter().map(|slot| slot.transaction).collect();
        Ok(Inserted {
            pending,
            replaced: replaced.map(|slot| slot.transaction),
            evicted: transactions(evicted),
        })
    }

    /// Takes over a finalized block: the next block's base fee, and the new state of accounts it changed. Costs
    /// O(accounts of the block that have pooled transactions). Returns what is no longer pooled.
    pub fn advance(
        &mut self,
        next_base_fee: u64,
        changed: impl IntoIterator<Item = (Address, AccountState)>,
    ) -> Vec<RecoveredTx> {
        let mut removed = Vec::new();
        for (address, state) in changed {
            if self.accounts.contains_key(&address) {
                let used = self.change(address, state, |account| account.advance(state));
                removed.extend(used.into_iter().map(|slot| self.forget(slot)));
            }
        }
        self.set_base_fee(next_base_fee);
        removed
    }

    /// Takes over the height of the newest finalized block. Returns the transactions that no later block may hold,
    /// which are no longer pooled.
    pub fn set_height(&mut self, height: u64) -> Vec<RecoveredTx> {
        self.height = height;
        let mut removed = Vec::new();
        while let Some((last, hash)) =
            self.by_last_height.first().copied().filter(|(last, _)| *last <= height)
        {
            match self.remove(&hash) {
                Some(transaction) => removed.push(transaction),
                // Never so: every listed hash is pooled. Taking it out keeps the loop finite whatever happens.
                None => {
                    self.by_last_height.remove(&(last, hash));
                }
            }
        }
        removed
    }

    /// Removes transactions whose time is over.
    pub fn expire(&mut self, now_ms: u64) -> Vec<RecoveredTx> {
        let mut removed = Vec::new();
        while let Some((hash, slot)) = self.oldest() {
            if slot.admitted_ms.saturating_add(self.limits.lifetime_ms) > now_ms {
                break;
            }
            removed.extend(self.remove(&hash));
        }
        removed
    }

    /// Removes one transaction; its sender's later ones wait for another in its place.
    pub fn remove(&mut self, hash: &B256) -> Option<RecoveredTx> {
        let (address, nonce) = *self.by_hash.get(hash)?;
        let state = self.account(&address)?;
        let slot = self.change(address, state, |account| account.take(nonce))?;
        Some(self.forget(slot))
    }

    fn oldest(&self) -> Option<(B256, &Slot)> {
        let (_, (address, nonce)) = self.by_sequence.first_key_value()?;
        let slot = self.accounts.get(address)?.slots.get(nonce)?;
        Some((slot.transaction.hash(), slot))
    }

    /// Puts a checked transaction in and returns the one it replaced.
    fn place(&mut self, slot: Slot, state: AccountState) -> Option<Slot> {
        let (address, nonce) = (slot.transaction.sender(), slot.transaction.nonce());
        self.by_hash.insert(slot.transaction.hash(), (address, nonce));
        self.by_sequence.insert(slot.sequence, (address, nonce));
        if let Some(last) = slot.last_height {
            self.by_last_height.insert((last, slot.transaction.hash()));
        }
        self.status.bytes += slot.transaction.encoded().len();
        let replaced = self.change(address, state, |account| account.put(slot));
        if let Some(old) = &replaced {
            self.unlist(old);
        }
        replaced
    }

    /// Evicts the worst until the limits hold. When that would be the newcomer itself, everything is put back
    /// and the newcomer is refused.
    fn trim(&mut self, newcomer: B256, replaced: &Option<Slot>) -> Result<Vec<Slot>, Refusal> {
        let mut evicted = Vec::new();
        while self.status.pending + self.status.queued > self.limits.transactions_max
            || self.status.bytes > self.limits.bytes_max
        {
            let queued = self.queued_tails.lowest();
            let Some((_, address)) = queued.or_else(|| self.pending_tails.lowest()) else { break };
            let Some(state) = self.account(&address) else { break };
            let Some(slot) = self.change(address, state, Account::pop_last) else { break };
            self.unlist(&slot);
            if slot.transaction.hash() == newcomer {
                let replaced = replaced.iter().map(|old| (state, old.clone()));
                for (state, slot) in evicted.into_iter().rev().chain(replaced) {
                    self.place(slot, state);
                }
                return Err(if queued.is_some() { Refusal::Full } else { Refusal::Underpriced });
            }
            evicted.push((state, slot));
        }
        Ok(evicted.into_iter().map(|(_, slot)| slot).collect())
    }

    fn forget(&mut self, slot: Slot) -> RecoveredTx {
        self.unlist(&slot);
        slot.transaction
    }

    fn unlist(&mut self, slot: &Slot) {
        self.by_hash.remove(&slot.transaction.hash());
        self.by_sequence.remove(&slot.sequence);
        if let Some(last) = slot.last_height {
            self.by_last_height.remove(&(last, slot.transaction.hash()));
        }
        self.status.bytes -= slot.transaction.encoded().len();
    }

    /// Changes one account (a new one starts from `state`) and keeps rankings and counts in step.
    fn change<R>(
        &mut self,
        address: Address,
        state: AccountState,
        change: impl FnOnce(&mut Account) -> R,
    ) -> R {
        let account = self.accounts.entry(address).or_insert_with(|| Account::new(state));
        let before = Standing::of(account, address);
        let result = change(account);
        let after = Standing::of(account, address);
        if account.slots.is_empty() {
            self.accounts.remove(&address);
        }
        if before.head != after.head {
            before.head.into_iter().for_each(|head| self.heads.remove(head));
            after.head.into_iter().for_each(|head| self.heads.insert(head));
        }
        if (before.tail, before.queued > 0) != (after.tail, after.queued > 0) {
            before.tail.into_iter().for_each(|tail| self.tails(&before).remove(tail));
            after.tail.into_iter().for_each(|tail| self.tails(&after).insert(tail));
        }
        self.status.pending = self.status.pending - before.pending + after.pending;
        self.status.queued = self.status.queued - before.queued + after.queued;
        result
    }

    fn tails(&mut self, standing: &Standing) -> &mut TipIndex {
        if standing.queued > 0 { &mut self.queued_tails } else { &mut self.pending_tails }
    }

    fn set_base_fee(&mut self, base_fee: u64) {
        for index in [&mut self.heads, &mut self.pending_tails, &mut self.queued_tails] {
            index.set_base_fee(base_fee);
        }
    }
}

#[cfg(test)]
impl Pool {
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn heads_base_fee(&self) -> u64 {
        self.heads.base_fee()
    }

    pub(crate) fn check_indices(
        &self,
        hashes: usize,
        by_sequence: &BTreeMap<u64, (Address, u64)>,
        by_last_height: &BTreeSet<(u64, B256)>,
        [heads, pending_tails, queued_tails]: [&TipIndex; 3],
    ) {
        assert_eq!(&self.by_last_height, by_last_height);
        assert!(by_last_height.first().is_none_or(|(last, _)| *last > self.height));
        assert_eq!((self.by_hash.len(), &self.by_sequence), (hashes, by_sequence));
        assert_eq!(&self.heads, heads);
        assert_eq!(&self.pending_tails, pending_tails);
        assert_eq!(&self.queued_tails, queued_tails);
    }
}

/// How an account is ranked and counted.
struct Standing {
    head: Option<Ranked>,
    tail: Option<Ranked>,
    pending: usize,
    queued: usize,
}

impl Standing {
    fn of(account: &Account, address: Address) -> Self {
        Self {
            head: account.head(address),
            tail: account.tail(address),
            pending: account.pending(),
            queued: account.queued(),
        }
    }
}

fn content(sender: Address, account: &Account) -> SenderContent {
    let of = |slots: std::collections::btree_map::Range<'_, u64, Slot>| {
        slots.map(|(_, slot)| slot.transaction.clone()).collect()
    };
    SenderContent {
        sender,
        pending: of(account.slots.range(..account.pending_end)),
        queued: of(account.slots.range(account.pending_end..)),
    }
}

fn check_account(limits: &Limits, account: &Account, nonce: u64, offer: &Offer) -> Result<(), Refusal> {
    let AccountState { nonce: next, balance, delegated } = account.state;
    if nonce < next {
        return Err(Refusal::NonceTooLow { next, nonce });
    }
    if offer.cost > balance {
        return Err(Refusal::InsufficientFunds { balance, cost: offer.cost });
    }
    let old = account.slots.get(&nonce);
    if old.is_some_and(|old| !outbids(&offer.price, &old.price)) {
        return Err(Refusal::ReplacementUnderpriced);
    }
    let queued = account.cost.saturating_sub(old.map(|old| old.cost).unwrap_or_default());
    if queued.saturating_add(offer.cost) > balance {
        return Err(Refusal::Overdrawn { balance, queued, cost: offer.cost });
    }
    let (pooled, queued) = (account.slots.len(), account.queued());
    if old.is_some() {
        return Ok(());
    }
    if delegated && pooled >= limits.delegated_account_transactions_max {
        return Err(Refusal::DelegatedLimit { limit: limits.delegated_account_transactions_max });
    }
    if pooled >= limits.account_transactions_max {
        return Err(Refusal::AccountLimit { pooled, limit: limits.account_transactions_max });
    }
    if nonce != account.pending_end && queued >= limits.account_queued_max {
        return Err(Refusal::QueuedLimit { queued, limit: limits.account_queued_max });
    }
    Ok(())
}

/// Whether `new` may take the place of `old`: more in both fees, by at least the bump.
fn outbids(new: &Price, old: &Price) -> bool {
    let enough = |new: u128, old: u128| {
        let bump = (old / 100).saturating_mul(REPLACEMENT_BUMP_PERCENT)
            + (old % 100 * REPLACEMENT_BUMP_PERCENT).div_ceil(100);
        new > old && new >= old.saturating_add(bump)
    };
    enough(new.fee, old.fee) && enough(new.tip, old.tip)
}
