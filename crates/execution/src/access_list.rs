//! `eth_createAccessList`: the access list a transaction should have, found by running it.

use crate::{
    BlockEnv, CallError, CallOutcome, CallRequest, InvalidTx, Rules, STRICT_MARKER, StateOverrides,
    StateView, StrictList,
    call::{Overridden, Simulation},
    guard, read_only_word, valid_until_word,
};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, U256, map::AddressSet};
use revm::{context::TxEnv, primitives::TxKind, state::EvmState};
use std::collections::{BTreeMap, BTreeSet};

/// Runs until the list must have settled. Each one adds to it, so all but contrived contracts need two.
const RUNS_MAX: usize = 16;

/// The access list of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessListOutcome {
    /// The list, in ascending order.
    pub access_list: AccessList,
    /// Gas used with this list.
    pub gas_used: u64,
    /// How it failed, if it did; the list says what it touched until then.
    pub error: Option<String>,
}

/// Finds what `request` touches on `view`, and what that costs with the list that says so.
///
/// As in geth the list leaves out what every transaction has warm: sender, recipient or created contract, precompiles
/// and those who authorise; their slots are listed. A request whose own list names [`STRICT_MARKER`] gets one that is
/// complete for strict mode: the marker, the request's last height, and who of those listed is only read.
pub fn create_access_list(
    view: &dyn StateView,
    rules: &Rules,
    env: &BlockEnv,
    request: &CallRequest,
    overrides: &StateOverrides,
    gas_cap: u64,
) -> Result<AccessListOutcome, CallError> {
    let strict = StrictList::parse(&request.access_list).map_err(InvalidTx::from)?;
    if let Some(strict) = &strict {
        strict.check_height(env.height)?;
    }
    let view = Overridden::new(view, overrides)?;
    let mut found = Found::of_request(request, strict);
    for _ in 0..RUNS_MAX {
        let request = CallRequest { access_list: found.list(), ..request.clone() };
        let simulation = Simulation::new(&view, rules, env, &request)?;
        let gas = simulation.granted(&request, gas_cap)?;
        let before = found.clone();
        let (outcome, ()) = simulation
            .explore(gas, |transaction, precompiles, state| found.add(transaction, precompiles, state))?;
        if found == before {
            return Ok(answer(outcome, request.access_list));
        }
    }
    Err(CallError::AccessListUnsettled { runs: RUNS_MAX })
}

fn answer(outcome: CallOutcome, access_list: AccessList) -> AccessListOutcome {
    let (gas_used, error) = match outcome {
        CallOutcome::Success { gas_used, .. } => (gas_used, None),
        CallOutcome::Revert { gas_used, .. } => (gas_used, Some("execution reverted".into())),
        CallOutcome::Halt { gas_used, reason, .. } => (gas_used, Some(reason)),
    };
    AccessListOutcome { access_list, gas_used, error }
}

/// What was found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    slots: BTreeMap<Address, BTreeSet<U256>>,
    strict: bool,
    valid_until: Option<u64>,
    /// Listed addresses that the last run only read.
    read_only: BTreeSet<Address>,
}

impl Found {
    /// What the request lists itself stays.
    fn of_request(request: &CallRequest, strict: Option<StrictList>) -> Self {
        let valid_until = strict.as_ref().and_then(StrictList::valid_until);
        let mut found = Self { strict: strict.is_some(), valid_until, ..Self::default() };
        let is_marker = |item: &&AccessListItem| strict.is_some() && item.address == STRICT_MARKER;
        for item in request.access_list.iter().filter(|item| !is_marker(item)) {
            let slots = found.slots.entry(item.address).or_default();
            slots.extend(item.storage_keys.iter().map(|key| U256::from_be_bytes(key.0)));
        }
        found
    }

    fn add(&mut self, transaction: &TxEnv, precompiles: &AddressSet, state: &EvmState) {
        let implied = self.implied(transaction, precompiles, state);
        for (address, account) in state.iter() {
            if account.storage.is_empty() && implied.contains(address) {
                continue;
            }
            self.slots.entry(*address).or_default().extend(account.storage.keys());
        }
        let only_read = |address: &&Address| {
            let account = state.get(*address);
            account.is_none_or(|account| {
                !guard::is_changed(account) && account.changed_storage_slots().count() == 0
            })
        };
        self.read_only = match self.strict {
            true => self.slots.keys().filter(only_read).copied().collect(),
            false => BTreeSet::new(),
        };
    }

    /// Accounts that need no entry for themselves.
    fn implied(&self, transaction: &TxEnv, precompiles: &AddressSet, state: &EvmState) -> AddressSet {
        let target = guard::target(transaction);
        let mut implied = precompiles.clone();
        implied.extend([transaction.caller, target]);
        implied.extend(guard::authorities(transaction));
        if self.strict {
            return implied;
        }
        // What a transaction creates is warm, and so is the code its recipient delegates to.
        implied.extend(state.iter().filter(|(_, account)| account.is_created()).map(|(address, _)| *address));
        if matches!(transaction.kind, TxKind::Call(_)) {
            let code = state.get(&target).and_then(|account| account.info.code.as_ref());
            implied.extend(code.and_then(|code| code.eip7702_address()));
        }
        implied
    }

    fn list(&self) -> AccessList {
        let mut list: BTreeMap<Address, Vec<B256>> = BTreeMap::new();
        for (address, slots) in &self.slots {
            list.insert(*address, slots.iter().map(|slot| B256::from(*slot)).collect());
        }
        if self.strict {
            let read_only = self.read_only.iter().map(|address| read_only_word(*address));
            list.insert(STRICT_MARKER, read_only.chain(self.valid_until.map(valid_until_word)).collect());
        }
        let item = |(address, storage_keys)| AccessListItem { address, storage_keys };
        AccessList(list.into_iter().map(item).collect())
    }
}
