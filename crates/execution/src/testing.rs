//! Deterministic keys and an in-memory state, for tests of this crate and of those above it.

use crate::{
    Access, AccessSet, AccountInfo, Object, Payload, PayloadError, RecoveredTx, SegmentPlan, StateDiff,
    StateView, TxEnvelope, ViewError,
};
use alloy_consensus::{SignableTransaction, Transaction as _, TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2718::Encodable2718,
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{
    Address, B256, Bytes, KECCAK256_EMPTY, Signature, TxKind, U256, keccak256,
    map::{AddressMap, B256Map, HashMap},
};
use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};

/// A key anybody can compute: never for funds that matter.
#[derive(Clone, Debug)]
pub struct TestKey {
    secret: SecretKey,
    address: Address,
}

impl TestKey {
    /// Key number `n`.
    pub fn new(n: u64) -> Self {
        let seed = crypto::tagged_hash("tandem test key", &[&n.to_le_bytes()]);
        Self::from_secret(seed).expect("a hash is a valid scalar but for 2^-128 of all seeds")
    }

    /// The key with this secret, unless it is no scalar of the curve.
    pub fn from_secret(secret: B256) -> Option<Self> {
        let secret = SecretKey::from_byte_array(secret.0).ok()?;
        let public = PublicKey::from_secret_key(SECP256K1, &secret).serialize_uncompressed();
        Some(Self { secret, address: Address::from_raw_public_key(&public[1..]) })
    }

    /// Its account.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a hash.
    pub fn sign_hash(&self, hash: B256) -> Signature {
        let signed = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(hash.0), &self.secret);
        let (parity, bytes) = signed.serialize_compact();
        let [r, s] = [&bytes[..32], &bytes[32..]].map(U256::from_be_slice);
        Signature::new(r, s, i32::from(parity) & 1 == 1)
    }

    /// Signs an EIP-1559 transaction.
    pub fn sign(&self, tx: TxEip1559) -> RecoveredTx {
        let signature = self.sign_hash(tx.signature_hash());
        self.seal(TxEnvelope::Eip1559(tx.into_signed(signature)))
    }

    /// Signs a legacy transaction.
    pub fn sign_legacy(&self, tx: TxLegacy) -> RecoveredTx {
        let signature = self.sign_hash(tx.signature_hash());
        self.seal(TxEnvelope::Legacy(tx.into_signed(signature)))
    }

    /// Signs an EIP-2930 transaction.
    pub fn sign_eip2930(&self, tx: TxEip2930) -> RecoveredTx {
        let signature = self.sign_hash(tx.signature_hash());
        self.seal(TxEnvelope::Eip2930(tx.into_signed(signature)))
    }

    /// Signs an EIP-7702 transaction.
    pub fn sign_eip7702(&self, tx: TxEip7702) -> RecoveredTx {
        let signature = self.sign_hash(tx.signature_hash());
        self.seal(TxEnvelope::Eip7702(tx.into_signed(signature)))
    }

    /// Signs an EIP-7702 authorization.
    pub fn authorize(&self, authorization: Authorization) -> SignedAuthorization {
        let signature = self.sign_hash(authorization.signature_hash());
        authorization.into_signed(signature)
    }

    /// A transfer of `value` with a fee cap of 100 gwei and a tip of 1 gwei.
    pub fn transfer(&self, chain_id: u64, nonce: u64, to: Address, value: U256) -> RecoveredTx {
        self.sign(TxEip1559 {
            chain_id,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 100_000_000_000,
            max_priority_fee_per_gas: 1_000_000_000,
            to: TxKind::Call(to),
            value,
            ..Default::default()
        })
    }

    fn seal(&self, envelope: TxEnvelope) -> RecoveredTx {
        RecoveredTx::from_stored(envelope.encoded_2718().into(), self.address)
            .expect("a transaction just encoded can be decoded unless it exceeds the size limit")
    }
}

/// A payload of these lanes, one segment each, with the access sets that plain transfers have.
pub fn payload_of(lanes: &[&[RecoveredTx]]) -> Result<Payload, PayloadError> {
    let set = |tx: &RecoveredTx| {
        let accounts = [Some(tx.sender()), tx.envelope().to()].into_iter().flatten();
        let written = |address| Access { object: Object::account(address), written: true };
        AccessSet::new(accounts.map(written).collect())
    };
    let lane = |transactions: &&[RecoveredTx]| {
        let transactions = transactions.iter().map(|tx| (tx.encoded().clone(), set(tx))).collect();
        vec![SegmentPlan { taken: Vec::new(), transactions }]
    };
    Payload::new(lanes.iter().map(lane).collect())
}

/// A state in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    accounts: AddressMap<AccountInfo>,
    storage: HashMap<(Address, U256), U256>,
    code: B256Map<Bytes>,
    hashes: HashMap<u64, B256>,
}

impl MemoryState {
    /// Takes over a block's changes, and its hash for BLOCKHASH.
    pub fn apply(&mut self, height: u64, hash: B256, diff: &StateDiff) {
        for (address, change) in diff.accounts() {
            match change.new {
                Some(info) => self.accounts.insert(address, info),
                None => self.accounts.remove(&address),
            };
        }
        for (key, change) in diff.slots() {
            match change.new.is_zero() {
                true => self.storage.remove(&key),
                false => self.storage.insert(key, change.new),
            };
        }
        self.code.extend(diff.codes().into_iter().map(|(hash, code)| (hash, code.clone())));
        self.hashes.insert(height, hash);
    }

    /// Sets an account; an empty one does not exist.
    pub fn put_account(&mut self, address: Address, info: AccountInfo) {
        match info.is_empty() {
            true => self.accounts.remove(&address),
            false => self.accounts.insert(address, info),
        };
    }

    /// Sets a slot; zero is absent.
    pub fn put_slot(&mut self, address: Address, slot: U256, value: U256) {
        match value.is_zero() {
            true => self.storage.remove(&(address, slot)),
            false => self.storage.insert((address, slot), value),
        };
    }

    /// Stores code and gives its hash.
    pub fn put_code(&mut self, code: Bytes) -> B256 {
        let hash = keccak256(&code);
        self.code.insert(hash, code);
        hash
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (&Address, &AccountInfo)> {
        self.accounts.iter()
    }

    /// All slots that are not zero.
    pub fn slots(&self) -> impl Iterator<Item = (&(Address, U256), &U256)> {
        self.storage.iter()
    }
}

impl StateView for MemoryState {
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
        Ok(self.accounts.get(&address).copied())
    }

    fn code(&self, hash: B256) -> Result<Bytes, ViewError> {
        match self.code.get(&hash) {
            Some(code) => Ok(code.clone()),
            None if hash == KECCAK256_EMPTY => Ok(Bytes::new()),
            None => Err(ViewError::MissingCode(hash)),
        }
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, ViewError> {
        Ok(self.storage.get(&(address, slot)).copied().unwrap_or_default())
    }

    fn block_hash(&self, height: u64) -> Result<B256, ViewError> {
        Ok(self.hashes.get(&height).copied().unwrap_or_default())
    }
}
