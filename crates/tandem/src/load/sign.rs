//! Signing ahead: the load itself must cost the machine as little as possible while it is measured.

use crate::accounts::Account;
use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use secp256k1::{Message, SECP256K1};
use std::sync::atomic::{AtomicU64, Ordering};

/// What all transactions of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Highest total fee per gas in wei.
    pub max_fee: u128,
    /// Tip per gas in wei.
    pub tip: u128,
}

/// Gas of a plain transfer.
pub const TRANSFER_GAS: u64 = 21_000;

/// A transaction ready to send.
#[derive(Clone, Debug)]
pub struct SignedTransfer {
    /// Its hash.
    pub hash: B256,
    /// Its EIP-2718 bytes as 0x-hex.
    pub raw_hex: String,
}

/// Signs one transfer.
pub fn transfer(from: &Account, nonce: u64, to: Address, value: U256, terms: &Terms) -> SignedTransfer {
    let transaction = TxEip1559 {
        chain_id: terms.chain_id,
        nonce,
        gas_limit: TRANSFER_GAS,
        max_fee_per_gas: terms.max_fee,
        max_priority_fee_per_gas: terms.tip,
        to: TxKind::Call(to),
        value,
        access_list: Default::default(),
        input: Bytes::new(),
    };
    let digest = Message::from_digest(transaction.signature_hash().0);
    let (recovery, compact) = SECP256K1.sign_ecdsa_recoverable(digest, &from.key).serialize_compact();
    let parity = i32::from(recovery) & 1 == 1;
    let signature =
        Signature::new(U256::from_be_slice(&compact[..32]), U256::from_be_slice(&compact[32..]), parity);
    let signed = transaction.into_signed(signature);
    let raw = signed.encoded_2718();
    SignedTransfer { hash: *signed.hash(), raw_hex: alloy_primitives::hex::encode_prefixed(raw) }
}

/// A transfer to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Position of the sender.
    pub from: usize,
    /// Its nonce.
    pub nonce: u64,
    /// The receiver.
    pub to: Address,
}

/// Signs all `plans` on all cores, in order; `done` counts up while it works.
pub fn sign_all(
    accounts: &[Account],
    plans: &[Plan],
    terms: &Terms,
    done: &AtomicU64,
) -> Vec<SignedTransfer> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = plans.len().div_ceil(threads).max(1);
    let sign = |plan: &Plan| {
        let signed = transfer(&accounts[plan.from], plan.nonce, plan.to, U256::from(1), terms);
        done.fetch_add(1, Ordering::Relaxed);
        signed
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = plans
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(sign).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("signing does not panic")).collect()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::accounts::{DEV_MNEMONIC, derive};
    use execution::RecoveredTx;

    #[test]
    fn signed_transfers_decode_to_their_sender_hash_and_nonce_in_order() {
        let accounts = derive(DEV_MNEMONIC, 3).unwrap();
        let terms = Terms { chain_id: 31337, max_fee: 100, tip: 1 };
        let plans: Vec<Plan> =
            (0..30).map(|i| Plan { from: i % 3, nonce: i as u64 / 3, to: Address::repeat_byte(9) }).collect();
        let done = AtomicU64::new(0);
        let signed = sign_all(&accounts, &plans, &terms, &done);
        assert_eq!(done.into_inner(), 30);
        for (plan, transfer) in plans.iter().zip(signed) {
            let raw = alloy_primitives::hex::decode(transfer.raw_hex).unwrap();
            let decoded = RecoveredTx::decode(&raw).unwrap();
            assert_eq!(decoded.sender(), accounts[plan.from].address);
            assert_eq!(decoded.hash(), transfer.hash);
            assert_eq!(alloy_consensus::Transaction::nonce(decoded.envelope()), plan.nonce);
        }
    }
}
