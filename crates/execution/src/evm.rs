//! The seam to revm: environments in, changes out.

use crate::RecoveredTx;
use crate::{BlockEnv, Rules};
use alloy_consensus::Transaction;
use alloy_eips::Typed2718;
use revm::context::TxEnv;
use revm::context_interface::either::Either;

/// revm's form of a transaction.
pub(crate) fn tx_env(transaction: &RecoveredTx) -> TxEnv {
    let envelope = transaction.envelope();
    let priority_fee = envelope.max_priority_fee_per_gas();
    TxEnv {
        tx_type: envelope.ty(),
        caller: transaction.sender(),
        gas_limit: envelope.gas_limit(),
        gas_price: envelope.max_fee_per_gas(),
        kind: envelope.kind(),
        value: envelope.value(),
        data: envelope.input().clone(),
        nonce: envelope.nonce(),
        chain_id: envelope.chain_id(),
        access_list: envelope.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: priority_fee,
        blob_hashes: Vec::new(),
        max_fee_per_blob_gas: 0,
        authorization_list: transaction.authorizations().iter().cloned().map(Either::Right).collect(),
    }
}

#[allow(dead_code)]
pub(crate) fn block_env(_rules: &Rules, _env: &BlockEnv) {}
