//! What a strict transaction may touch, enforced between revm and the state (specs/strict.md, X-3).
//!
//! # Invariants
//! - What a strict transaction did not declare is never read from the state: neither its value nor that it was asked
//!   for reaches the outcome.
//! - Without a strict transaction nothing here does anything.

use crate::{StrictAbort, StrictFault, StrictList};
use alloy_primitives::{Address, B256, U256, map::AddressSet};
use revm::{
    Database,
    context::TxEnv,
    context_interface::either::Either,
    database_interface::DBErrorMarker,
    primitives::TxKind,
    state::{Account, AccountInfo, Bytecode, EvmState},
};

/// The limits of the strict transaction that runs.
#[derive(Debug)]
pub(crate) struct Guard {
    list: StrictList,
    /// Accounts that no list needs to name: the sender, the recipient or created contract, those who delegate, and
    /// the precompiles.
    implied: AddressSet,
}

impl Guard {
    /// The limits of `transaction`, which declared `list`.
    pub(crate) fn new(list: StrictList, transaction: &TxEnv, precompiles: &AddressSet) -> Self {
        let mut implied = precompiles.clone();
        implied.insert(transaction.caller);
        implied.insert(target(transaction));
        implied.extend(authorities(transaction));
        Self { list, implied }
    }

    fn allows_account(&self, address: &Address) -> bool {
        self.implied.contains(address) || self.list.lists_account(address)
    }

    /// The first fault, by address and slot, of a transaction that ran to its end.
    pub(crate) fn judge(&self, state: &EvmState) -> Option<StrictAbort> {
        let faults = state.iter().filter_map(|(address, account)| self.judge_account(*address, account));
        faults.min_by_key(|abort| (abort.address, abort.slot))
    }

    fn judge_account(&self, address: Address, account: &Account) -> Option<StrictAbort> {
        if !self.allows_account(&address) {
            return Some(StrictAbort { fault: StrictFault::Undeclared, address, slot: None });
        }
        let read_only = self.list.is_read_only(&address);
        if read_only && is_changed(account) {
            return Some(StrictAbort { fault: StrictFault::ReadOnly, address, slot: None });
        }
        // A slot of a contract that the transaction created is not loaded from below, so it is judged here.
        let faults = account.storage.iter().filter_map(|(slot, value)| {
            let fault = match () {
                () if !self.list.lists_slot(&address, slot) => StrictFault::Undeclared,
                () if read_only && value.is_changed() => StrictFault::ReadOnly,
                () => return None,
            };
            Some(StrictAbort { fault, address, slot: Some(*slot) })
        });
        faults.min_by_key(|abort| abort.slot)
    }
}

/// Whom a transaction calls, or which contract it creates.
pub(crate) fn target(transaction: &TxEnv) -> Address {
    match transaction.kind {
        TxKind::Call(to) => to,
        TxKind::Create => transaction.caller.create(transaction.nonce),
    }
}

/// Who signed a transaction's authorizations (EIP-7702).
pub(crate) fn authorities(transaction: &TxEnv) -> impl Iterator<Item = Address> {
    transaction.authorization_list.iter().filter_map(|authorization| match authorization {
        Either::Left(signed) => signed.recover_authority().ok(),
        Either::Right(recovered) => recovered.authority(),
    })
}

/// Whether a transaction left an account's nonce, balance or code other than it found them.
pub(crate) fn is_changed(account: &Account) -> bool {
    let (new, old) = (&account.info, account.original_info());
    let same = (new.nonce, new.balance, new.code_hash) == (old.nonce, old.balance, old.code_hash);
    account.is_selfdestructed() || !same
}

/// A state behind the limits of the strict transaction that runs, if it is one.
#[derive(Debug)]
pub(crate) struct Guarded<DB> {
    pub(crate) state: DB,
    pub(crate) guard: Option<Box<Guard>>,
}

/// What a guarded state says instead of a value.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum GuardedError<E> {
    #[error("{0}")]
    Strict(StrictAbort),
    #[error(transparent)]
    State(E),
}

impl<E: DBErrorMarker> DBErrorMarker for GuardedError<E> {}

impl<DB: Database> Guarded<DB> {
    pub(crate) fn new(state: DB) -> Self {
        Self { state, guard: None }
    }

    fn admit(&self, address: Address, slot: Option<U256>) -> Result<(), GuardedError<DB::Error>> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let allowed = match &slot {
            None => guard.allows_account(&address),
            Some(slot) => guard.list.lists_slot(&address, slot),
        };
        let undeclared = StrictAbort { fault: StrictFault::Undeclared, address, slot };
        if allowed { Ok(()) } else { Err(GuardedError::Strict(undeclared)) }
    }
}

impl<DB: Database> Database for Guarded<DB> {
    type Error = GuardedError<DB::Error>;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        self.admit(address, None)?;
        self.state.basic(address).map_err(GuardedError::State)
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        self.state.code_by_hash(code_hash).map_err(GuardedError::State)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        self.admit(address, Some(slot))?;
        self.state.storage(address, slot).map_err(GuardedError::State)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        self.state.block_hash(number).map_err(GuardedError::State)
    }
}
