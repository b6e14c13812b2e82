//! The state at height 0.

use crate::{AccountInfo, LtHash, StateDiff};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use revm::state::Bytecode;
use staking::{MARKER_CODE, REGISTRY, Registry, StakingRules};
use types::{Genesis, genesis::GenesisAccount};

/// The state a genesis describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisState {
    /// All of it, as a change of the empty state.
    pub diff: StateDiff,
    /// Its digest.
    pub lthash: LtHash,
    /// Its `state_hash`.
    pub state_hash: B256,
}

/// A genesis allocation that is no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisStateError {
    /// Storage of an account that may be created or cleared later: it would shine through.
    #[error("genesis account {address} has {slots} storage slots but neither code nor a nonce")]
    StorageWithoutCode {
        /// Which account.
        address: Address,
        /// How many slots.
        slots: usize,
    },
    /// An allocation at the registry's address.
    #[error("genesis account {REGISTRY} is the validator registry's, which is made from the validators")]
    Reserved,
    /// Code that looks like a delegation (0xef01) but is none.
    #[error("code of genesis account {address} is malformed: {reason}")]
    Code {
        /// Which account.
        address: Address,
        /// What is wrong.
        reason: String,
    },
    /// The balances reach 2^128 wei together. Below it no fee or balance can ever overflow.
    #[error("genesis balances reach 2^128 wei at account {address}; all together must stay below")]
    SupplyOverflow {
        /// Account at which the sum overflows.
        address: Address,
    },
}

/// Computes the state at height 0.
pub fn genesis_state(genesis: &Genesis) -> Result<GenesisState, GenesisStateError> {
    let mut diff = StateDiff::default();
    let mut supply = U256::ZERO;
    for (address, account) in &genesis.alloc {
        supply = supply.saturating_add(account.balance);
        if supply > U256::from(u128::MAX) {
            return Err(GenesisStateError::SupplyOverflow { address: *address });
        }
        allocate(&mut diff, *address, account)?;
    }
    if let Some(rules) = StakingRules::from_genesis(genesis) {
        found_registry(&mut diff, &rules, genesis, supply)?;
    }
    let lthash = LtHash::new(genesis.config.chain_id).apply(&diff);
    let state_hash = lthash.state_hash();
    Ok(GenesisState { diff, lthash, state_hash })
}

/// Writes the registry's account. The genesis validators' stake is its balance, part of the chain's supply.
fn found_registry(
    diff: &mut StateDiff,
    rules: &StakingRules,
    genesis: &Genesis,
    supply: U256,
) -> Result<(), GenesisStateError> {
    if genesis.alloc.contains_key(&REGISTRY) {
        return Err(GenesisStateError::Reserved);
    }
    let stakes = genesis.tandem.validators.iter().map(|validator| U256::from(validator.stake.get()));
    let balance = stakes.fold(U256::ZERO, U256::saturating_add);
    if supply.saturating_add(balance) > U256::from(u128::MAX) {
        return Err(GenesisStateError::SupplyOverflow { address: REGISTRY });
    }
    let account = GenesisAccount {
        balance,
        nonce: 1,
        code: MARKER_CODE.into(),
        storage: Registry::found(rules, genesis)
            .iter()
            .map(|(slot, word)| (slot.into(), word.into()))
            .collect(),
    };
    allocate(diff, REGISTRY, &account)
}

fn allocate(
    diff: &mut StateDiff,
    address: Address,
    account: &GenesisAccount,
) -> Result<(), GenesisStateError> {
    let code_hash = if account.code.is_empty() { KECCAK256_EMPTY } else { keccak256(&account.code) };
    let slots = account.storage.len();
    if slots > 0 && account.code.is_empty() && account.nonce == 0 {
        return Err(GenesisStateError::StorageWithoutCode { address, slots });
    }
    diff.set_account(
        address,
        None,
        Some(AccountInfo { nonce: account.nonce, balance: account.balance, code_hash }),
    );
    if !account.code.is_empty() {
        Bytecode::new_raw_checked(account.code.clone())
            .map_err(|error| GenesisStateError::Code { address, reason: error.to_string() })?;
        diff.set_code(code_hash, account.code.clone());
    }
    for (slot, value) in &account.storage {
        diff.set_slot(address, U256::from_be_bytes(slot.0), U256::ZERO, U256::from_be_bytes(value.0));
    }
    Ok(())
}
