//! What can be refused without looking at any account.

use crate::{Price, Refusal};
use alloy_consensus::Transaction;
use alloy_eips::Typed2718;
use alloy_eips::eip2718::EIP7702_TX_TYPE_ID;
use alloy_primitives::U256;
use execution::{Fork, StrictList, TxEnvelope, TxError};
use revm::context_interface::cfg::GasParams;
use revm::primitives::{eip3860, eip7825, hardfork::SpecId};
use types::limits::TRANSACTION_BYTES_MAX;

/// The chain's rules and this node's policy, as far as admission needs them.
#[derive(Clone, Debug)]
pub struct AdmissionRules {
    chain_id: u64,
    block_gas_limit: u64,
    size_max: usize,
    tip_floor: u128,
    allow_unprotected: bool,
    fork: Fork,
    gas: GasParams,
}

/// What an operator decides about admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionPolicy {
    /// Least priority fee in wei.
    pub tip_floor: u128,
    /// Admit legacy transactions without a chain id, which anybody may replay from other chains.
    pub allow_unprotected: bool,
}

/// What an admitted transaction offers and may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub price: Price,
    pub cost: U256,
}

impl AdmissionRules {
    /// Rules of a chain whose blocks hold up to `block_gas_limit` gas and whose payloads leave room for
    /// transactions of up to `size_max` bytes, under `fork`.
    pub fn new(
        chain_id: u64,
        block_gas_limit: u64,
        size_max: usize,
        fork: Fork,
        AdmissionPolicy { tip_floor, allow_unprotected }: AdmissionPolicy,
    ) -> Self {
        let size_max = size_max.min(TRANSACTION_BYTES_MAX);
        let gas = GasParams::new_spec(spec(fork));
        Self { chain_id, block_gas_limit, size_max, tip_floor, allow_unprotected, fork, gas }
    }

    /// The hard fork checked for.
    pub fn fork(&self) -> Fork {
        self.fork
    }

    /// Switches to the hard fork of the next block.
    pub fn set_fork(&mut self, fork: Fork) {
        if fork != self.fork {
            (self.fork, self.gas) = (fork, GasParams::new_spec(spec(fork)));
        }
    }

    /// Checks everything that needs neither the sender nor any account. Costs microseconds: it runs before the
    /// signature is looked at.
    pub fn check(&self, transaction: &TxEnvelope, encoded_length: usize) -> Result<(), Refusal> {
        if encoded_length > self.size_max {
            return Err(Refusal::Oversized { size: encoded_length, limit: self.size_max });
        }
        self.check_kind(transaction)?;
        self.check_fees(transaction)?;
        self.check_gas(transaction)
    }

    fn check_kind(&self, transaction: &TxEnvelope) -> Result<(), Refusal> {
        match transaction.ty() {
            0..=2 => {}
            EIP7702_TX_TYPE_ID if self.fork >= Fork::Prague => {}
            other => return Err(Refusal::TypeNotSupported(other)),
        }
        match transaction.chain_id() {
            Some(have) if have != self.chain_id => {
                return Err(Refusal::WrongChain { have, want: self.chain_id });
            }
            None if !self.allow_unprotected => return Err(Refusal::Unprotected),
            _ => {}
        }
        if transaction.nonce() == u64::MAX {
            return Err(Refusal::NonceMax);
        }
        if transaction.authorization_list().is_some_and(<[_]>::is_empty) {
            return Err(Refusal::EmptyAuthorizations);
        }
        transaction.access_list().map_or(Ok(None), StrictList::parse)?;
        Ok(())
    }

    fn check_fees(&self, transaction: &TxEnvelope) -> Result<(), Refusal> {
        let Price { fee, tip } = price(transaction);
        if tip > fee {
            return Err(Refusal::TipAboveFee { tip, fee });
        }
        if tip < self.tip_floor {
            return Err(Refusal::BelowFloor { tip, needed: self.tip_floor });
        }
        Ok(())
    }

    fn check_gas(&self, transaction: &TxEnvelope) -> Result<(), Refusal> {
        let gas = transaction.gas_limit();
        if gas > self.block_gas_limit {
            return Err(Refusal::AboveBlockGasLimit);
        }
        let cap = eip7825::TX_GAS_LIMIT_CAP;
        if self.fork >= Fork::Osaka && gas > cap {
            return Err(Refusal::AboveTransactionGasCap { gas, cap });
        }
        let initcode = if transaction.is_create() { transaction.input().len() } else { 0 };
        if initcode > eip3860::MAX_INITCODE_SIZE {
            return Err(Refusal::InitcodeTooLarge { size: initcode, limit: eip3860::MAX_INITCODE_SIZE });
        }
        let list = transaction.access_list();
        let keys = list.map_or(0, |list| list.storage_keys_count());
        let authorizations = transaction.authorization_list().map_or(0, <[_]>::len);
        let initial = self.gas.initial_tx_gas(
            transaction.input(),
            transaction.is_create(),
            list.map_or(0, |list| list.len()) as u64,
            keys as u64,
            authorizations as u64,
            None,
        );
        if gas < initial.initial_total_gas() {
            return Err(Refusal::IntrinsicGas { gas, needed: initial.initial_total_gas() });
        }
        if self.fork >= Fork::Prague && gas < initial.floor_gas() {
            return Err(Refusal::FloorGas { gas, needed: initial.floor_gas() });
        }
        Ok(())
    }
}

impl Offer {
    pub fn of(transaction: &TxEnvelope) -> Self {
        let price = price(transaction);
        let gas = U256::from(transaction.gas_limit());
        let cost = U256::from(price.fee).saturating_mul(gas).saturating_add(transaction.value());
        Self { price, cost }
    }
}

impl From<TxError> for Refusal {
    fn from(error: TxError) -> Self {
        match error {
            TxError::Length { length: 0, .. } => Self::Malformed("typed transaction too short".into()),
            TxError::Length { length, max } => Self::Oversized { size: length, limit: max },
            TxError::UnsupportedType(kind) => Self::TypeNotSupported(kind),
            TxError::Blob => Self::TypeNotSupported(alloy_eips::eip2718::EIP4844_TX_TYPE_ID),
            TxError::Malformed(reason) => Self::Malformed(reason),
            TxError::HighS | TxError::Signature => Self::InvalidSender,
        }
    }
}

fn spec(fork: Fork) -> SpecId {
    match fork {
        Fork::Cancun => SpecId::CANCUN,
        Fork::Prague => SpecId::PRAGUE,
        Fork::Osaka => SpecId::OSAKA,
    }
}

fn price(transaction: &TxEnvelope) -> Price {
    Price { fee: transaction.max_fee_per_gas(), tip: transaction.priority_fee_or_price() }
}
