//! Transactions with their senders. Recovering a sender costs an order of magnitude more than executing a
//! transfer, so it is done once, kept, and done in parallel where a whole payload is new.

use crate::{InvalidPayload, InvalidPayloadCode, Payload};
use alloy_consensus::{
    EthereumTxEnvelope, Transaction, TxEip4844, TxLegacy, crypto::SECP256K1N_HALF,
    transaction::RlpEcdsaDecodableTx,
};
use alloy_eips::{
    eip2718::{
        Decodable2718, EIP1559_TX_TYPE_ID, EIP2930_TX_TYPE_ID, EIP4844_TX_TYPE_ID, EIP7702_TX_TYPE_ID,
        Eip2718Error,
    },
    eip7702::{
        RecoveredAuthority, RecoveredAuthorization, SignedAuthorization, constants::PER_EMPTY_ACCOUNT_COST,
    },
};
use alloy_primitives::{Address, B256, Bytes, Signature, keccak256};
use rayon::prelude::*;
use secp256k1::{
    Message, SECP256K1,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};
use types::limits::TRANSACTION_BYTES_MAX;

/// First byte of an RLP list, and so of a legacy transaction.
const RLP_LIST: u8 = 0xc0;

/// A signed Ethereum transaction. Blob transactions decode to it but are refused by [`RecoveredTx::decode`].
pub type TxEnvelope = EthereumTxEnvelope<TxEip4844>;

/// Bytes that are no transaction this chain accepts, whatever its state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// Size out of range.
    #[error("transaction has {length} bytes, allowed are 1 to {max}")]
    Length {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Unknown EIP-2718 type.
    #[error("transaction type {0} is not supported")]
    UnsupportedType(u8),
    /// EIP-4844.
    #[error("blob transactions are not supported on this chain")]
    Blob,
    /// Not canonical RLP.
    #[error("transaction is malformed: {0}")]
    Malformed(String),
    /// `s` above half the curve order (EIP-2).
    #[error("signature is malleable: s is above half the curve order")]
    HighS,
    /// No public key gives this signature.
    #[error("signature recovers to no sender")]
    Signature,
}

/// A transaction with its sender. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct RecoveredTx(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    envelope: TxEnvelope,
    sender: Address,
    hash: B256,
    encoded: Bytes,
    /// Recovered when first asked for: a transaction that cannot pay for its authorizations is refused before.
    authorities: OnceLock<Vec<RecoveredAuthorization>>,
}

impl PartialEq for RecoveredTx {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}
impl Eq for RecoveredTx {}

impl RecoveredTx {
    /// Parses EIP-2718 bytes and recovers the sender.
    pub fn decode(encoded: &[u8]) -> Result<Self, TxError> {
        Self::from_bytes(Bytes::copy_from_slice(encoded))
    }

    /// [`Self::decode`] without copying the bytes.
    pub fn from_bytes(encoded: Bytes) -> Result<Self, TxError> {
        let envelope = parse(&encoded)?;
        let sender = recover(envelope.signature(), envelope.signature_hash())?;
        Ok(Self::assemble(envelope, sender, encoded))
    }

    /// Parses bytes whose sender is already known, from this node's own storage. A wrong `sender` is believed.
    pub fn from_stored(encoded: Bytes, sender: Address) -> Result<Self, TxError> {
        Ok(Self::assemble(parse(&encoded)?, sender, encoded))
    }

    fn assemble(envelope: TxEnvelope, sender: Address, encoded: Bytes) -> Self {
        let hash = keccak256(&encoded);
        Self(Arc::new(Inner { envelope, sender, hash, encoded, authorities: OnceLock::new() }))
    }

    /// The transaction and its signature.
    pub fn envelope(&self) -> &TxEnvelope {
        &self.0.envelope
    }

    /// Who signed it.
    pub fn sender(&self) -> Address {
        self.0.sender
    }

    /// Transaction hash.
    pub fn hash(&self) -> B256 {
        self.0.hash
    }

    /// EIP-2718 bytes.
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    /// EIP-7702 authorizations with their recovered authorities; an unusable signature is marked invalid. The
    /// first call recovers them, at the cost of a sender each.
    pub fn authorizations(&self) -> &[RecoveredAuthorization] {
        let signed = || self.0.envelope.authorization_list().unwrap_or_default();
        self.0.authorities.get_or_init(|| signed().iter().map(recover_authority).collect())
    }

    /// Recovers the authorizations ahead of execution, if the gas limit pays for them at all.
    fn prepare(&self) {
        let count = self.0.envelope.authorization_list().map_or(0, <[_]>::len) as u64;
        if count > 0 && count.saturating_mul(PER_EMPTY_ACCOUNT_COST) <= self.gas_limit() {
            self.authorizations();
        }
    }

    /// Nonce.
    pub fn nonce(&self) -> u64 {
        self.0.envelope.nonce()
    }

    /// Gas limit.
    pub fn gas_limit(&self) -> u64 {
        self.0.envelope.gas_limit()
    }

    /// What the proposer earns per gas at `base_fee`, or `None` when the fee cap is below it.
    pub fn effective_tip(&self, base_fee: u64) -> Option<u128> {
        self.0.envelope.effective_tip_per_gas(base_fee)
    }
}

/// A parsed transaction whose sender is not recovered yet: what a pool looks at before it pays for recovery.
#[derive(Clone, Debug)]
pub struct UnrecoveredTx {
    envelope: TxEnvelope,
    hash: B256,
    encoded: Bytes,
}

impl UnrecoveredTx {
    /// Parses EIP-2718 bytes.
    pub fn parse(encoded: Bytes) -> Result<Self, TxError> {
        let envelope = parse(&encoded)?;
        Ok(Self { envelope, hash: keccak256(&encoded), encoded })
    }

    /// The transaction and its signature, unchecked.
    pub fn envelope(&self) -> &TxEnvelope {
        &self.envelope
    }

    /// Transaction hash.
    pub fn hash(&self) -> B256 {
        self.hash
    }

    /// EIP-2718 bytes.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Recovers the sender.
    pub fn recover(self) -> Result<RecoveredTx, TxError> {
        let sender = recover(self.envelope.signature(), self.envelope.signature_hash())?;
        Ok(RecoveredTx::assemble(self.envelope, sender, self.encoded))
    }
}

/// A payload's transactions, recovered, in their lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PayloadTransactions {
    /// The lanes, in order.
    pub lanes: Vec<Vec<RecoveredTx>>,
}

impl PayloadTransactions {
    /// One lane, or none when there is no transaction.
    pub fn single_lane(transactions: Vec<RecoveredTx>) -> Self {
        Self { lanes: if transactions.is_empty() { Vec::new() } else { vec![transactions] } }
    }

    /// All transactions in canonical order.
    pub fn iter(&self) -> impl Iterator<Item = &RecoveredTx> {
        self.lanes.iter().flatten()
    }

    /// Number of transactions.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(Vec::is_empty)
    }
}

/// Recovers a decoded payload's transactions on all cores, asking `known` (the pool) for each hash first.
///
/// Refuses a transaction that occurs twice and any that [`RecoveredTx::decode`] refuses.
pub fn recover_payload(
    payload: &Payload,
    known: impl Fn(&B256) -> Option<RecoveredTx> + Sync,
) -> Result<PayloadTransactions, InvalidPayload> {
    let encoded: Vec<&Bytes> = payload.transactions().collect();
    let recovered: Vec<Result<RecoveredTx, TxError>> = encoded
        .par_iter()
        .with_min_len(8)
        .map(|bytes| match known(&keccak256(bytes)) {
            Some(transaction) => Ok(transaction),
            None => RecoveredTx::from_bytes((*bytes).clone()),
        })
        .inspect(|recovered| recovered.iter().for_each(RecoveredTx::prepare))
        .collect();
    let mut seen = HashSet::with_capacity(recovered.len());
    let mut flat = Vec::with_capacity(recovered.len());
    for (index, result) in recovered.into_iter().enumerate() {
        let transaction = result.map_err(|error| malformed(index, &error))?;
        if !seen.insert(transaction.hash()) {
            return Err(InvalidPayload {
                code: InvalidPayloadCode::DuplicateTransaction,
                index: Some(index),
                reason: format!("transaction {} occurs twice", transaction.hash()),
            });
        }
        flat.push(transaction);
    }
    let mut flat = flat.into_iter();
    let lanes = payload.lanes.iter().map(|lane| flat.by_ref().take(lane.len()).collect()).collect();
    Ok(PayloadTransactions { lanes })
}

fn malformed(index: usize, error: &TxError) -> InvalidPayload {
    InvalidPayload {
        code: InvalidPayloadCode::MalformedTransaction,
        index: Some(index),
        reason: error.to_string(),
    }
}

fn parse(encoded: &[u8]) -> Result<TxEnvelope, TxError> {
    if encoded.is_empty() || encoded.len() > TRANSACTION_BYTES_MAX {
        return Err(TxError::Length { length: encoded.len(), max: TRANSACTION_BYTES_MAX });
    }
    match encoded[0] {
        EIP4844_TX_TYPE_ID => return Err(TxError::Blob),
        // Below the first byte of an RLP list stands the type of an EIP-2718 envelope.
        EIP2930_TX_TYPE_ID | EIP1559_TX_TYPE_ID | EIP7702_TX_TYPE_ID | RLP_LIST.. => {}
        kind => return Err(TxError::UnsupportedType(kind)),
    }
    TxEnvelope::decode_2718_exact(encoded).map_err(|error| match error {
        Eip2718Error::UnexpectedType(_) if encoded[0] >= RLP_LIST => malformed_legacy(encoded),
        Eip2718Error::UnexpectedType(kind) => TxError::UnsupportedType(kind),
        Eip2718Error::RlpError(error) => TxError::Malformed(error.to_string()),
        other => TxError::Malformed(other.to_string()),
    })
}

/// What is wrong with a legacy transaction: the envelope's decoder only says that it is none.
fn malformed_legacy(mut encoded: &[u8]) -> TxError {
    match TxLegacy::rlp_decode_signed(&mut encoded) {
        Err(error) => TxError::Malformed(error.to_string()),
        Ok(_) => TxError::Malformed("not a legacy transaction".into()),
    }
}

fn recover(signature: &Signature, prehash: B256) -> Result<Address, TxError> {
    if signature.s() > SECP256K1N_HALF {
        return Err(TxError::HighS);
    }
    let mut compact = [0; 64];
    compact[..32].copy_from_slice(&signature.r().to_be_bytes::<32>());
    compact[32..].copy_from_slice(&signature.s().to_be_bytes::<32>());
    let parity = if signature.v() { RecoveryId::One } else { RecoveryId::Zero };
    let signature = RecoverableSignature::from_compact(&compact, parity).map_err(|_| TxError::Signature)?;
    let key = SECP256K1
        .recover_ecdsa(Message::from_digest(prehash.0), &signature)
        .map_err(|_| TxError::Signature)?;
    Ok(Address::from_raw_public_key(&key.serialize_uncompressed()[1..]))
}

pub(crate) fn recover_authority(signed: &SignedAuthorization) -> RecoveredAuthorization {
    let authority = match signed.signature() {
        Ok(signature) => match recover(&signature, signed.signature_hash()) {
            Ok(address) => RecoveredAuthority::Valid(address),
            Err(_) => RecoveredAuthority::Invalid,
        },
        Err(_) => RecoveredAuthority::Invalid,
    };
    RecoveredAuthorization::new_unchecked(signed.inner().clone(), authority)
}
