//! Binding proofs: a consensus key says which network key speaks for it.
//!
//! The network key and the consensus key are different keys on purpose: a remote signer never signs handshakes,
//! and losing the network key loses no stake. The proof is signed once and shown at every connection; it names
//! the network key, so that nobody else can show it, and expires, so that a leaked network key loses its use.

use crate::error::{HandshakeError, lock};
use crate::hello::unix_ms;
use crate::id::NodeId;
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::{Domain, PublicKey, SecretKey, Signature, SignatureKind, VerifyingKey};
use libp2p::PeerId;
use std::fmt;
use std::sync::{Arc, Mutex};
use types::ValidatorSet;

/// Longest remaining life of a proof that is accepted.
pub const BINDING_LIFETIME_S_MAX: u64 = 8 * 24 * 3600;

/// Life of the proofs this node makes.
const BINDING_LIFETIME_S: u64 = 7 * 24 * 3600;

const _: () = assert!(BINDING_LIFETIME_S < BINDING_LIFETIME_S_MAX);

/// The proof: `key` lets the holder of network identity `peer` speak for it until `expires_unix_s`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Binding {
    statement: Statement,
    signature: Signature,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
struct Statement {
    key: PublicKey,
    peer: Vec<u8>,
    expires_unix_s: u64,
}

impl Binding {
    /// Makes a proof with `sign`, which signs the bytes it is given with the secret half of `key`. The chain is in
    /// the domain: a proof made for one genesis is worthless for another.
    pub fn make(
        domain: &Domain,
        node: NodeId,
        key: PublicKey,
        expires_unix_s: u64,
        sign: impl FnOnce(&[u8]) -> Signature,
    ) -> Self {
        let statement = Statement { key, peer: node.0.to_bytes(), expires_unix_s };
        let signature = sign(&statement.signing_bytes(domain));
        Self { statement, signature }
    }

    /// The consensus key it speaks for, if the proof holds.
    pub fn key(&self) -> PublicKey {
        self.statement.key
    }

    /// Everything that can be checked without the curve.
    pub(crate) fn check(&self, connected: PeerId, now_unix_s: u64) -> Result<(), HandshakeError> {
        let Statement { peer, expires_unix_s, .. } = &self.statement;
        if *peer != connected.to_bytes() {
            let bound = PeerId::from_bytes(peer).map_or_else(|_| "(malformed)".to_owned(), |p| p.to_string());
            return Err(HandshakeError::BindingPeer { bound, connected: NodeId(connected) });
        }
        let Some(lifetime_s) = expires_unix_s.checked_sub(now_unix_s).filter(|left| *left > 0) else {
            return Err(HandshakeError::BindingExpired { expired_unix_s: *expires_unix_s, now_unix_s });
        };
        if lifetime_s > BINDING_LIFETIME_S_MAX {
            return Err(HandshakeError::BindingTooLong { lifetime_s, limit_s: BINDING_LIFETIME_S_MAX });
        }
        Ok(())
    }

    /// Whether `key` signed it: about a millisecond of work.
    pub(crate) fn is_signed_by(&self, key: &VerifyingKey, domain: &Domain) -> bool {
        key.verify(&self.statement.signing_bytes(domain), &self.signature)
    }
}

impl Statement {
    fn signing_bytes(&self, domain: &Domain) -> Vec<u8> {
        domain.signing_bytes(SignatureKind::PeerBinding, &types::encode(self))
    }
}

/// The domain of binding proofs: they belong to a chain, not to an epoch.
pub fn binding_domain(chain: &crate::ChainIdentity) -> Domain {
    Domain { chain_id: chain.chain_id, genesis_hash: chain.genesis_hash, epoch: 0 }
}

type SignFn = Arc<dyn Fn(&[u8]) -> Signature + Send + Sync>;

/// Whom this node speaks for in the mesh.
#[derive(Clone)]
pub struct MeshIdentity(Kind);

#[derive(Clone)]
enum Kind {
    Observer,
    /// Never empty.
    Validator(Vec<(PublicKey, SignFn)>),
    Fixed(Box<Binding>),
}

impl fmt::Debug for MeshIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Observer => f.write_str("MeshIdentity(observer)"),
            Kind::Validator(keys) => f.debug_list().entries(keys.iter().map(|(key, _)| key)).finish(),
            Kind::Fixed(binding) => write!(f, "MeshIdentity(proof for {:?})", binding.key()),
        }
    }
}

impl MeshIdentity {
    /// A node without a key: it may fetch blocks.
    pub fn observer() -> Self {
        Self(Kind::Observer)
    }

    /// A validator whose key is at hand.
    pub fn validator(secret: SecretKey) -> Self {
        Self::signer(secret.public_key(), move |bytes| secret.sign(bytes))
    }

    /// A validator whose key is elsewhere: `sign` is asked about once in three days. It may block briefly.
    pub fn signer(key: PublicKey, sign: impl Fn(&[u8]) -> Signature + Send + Sync + 'static) -> Self {
        Self(Kind::Validator(vec![(key, Arc::new(sign))]))
    }

    /// A validator with several keys, of which it speaks with one at a time: the first that is in a validator set.
    pub fn validators(secrets: impl IntoIterator<Item = SecretKey>) -> Self {
        let signer = |secret: SecretKey| {
            let sign: SignFn = Arc::new({
                let secret = secret.clone();
                move |bytes: &[u8]| secret.sign(bytes)
            });
            (secret.public_key(), sign)
        };
        let keys: Vec<_> = secrets.into_iter().map(signer).collect();
        Self(if keys.is_empty() { Kind::Observer } else { Kind::Validator(keys) })
    }

    /// A proof that was made elsewhere, and has to be renewed there.
    pub fn proof(binding: Binding) -> Self {
        Self(Kind::Fixed(Box::new(binding)))
    }

    /// The consensus keys held; it speaks for one at a time.
    pub fn keys(&self) -> Vec<PublicKey> {
        match &self.0 {
            Kind::Observer => Vec::new(),
            Kind::Validator(keys) => keys.iter().map(|(key, _)| *key).collect(),
            Kind::Fixed(binding) => vec![binding.key()],
        }
    }
}

/// Hands out this node's proof and renews it in time.
pub(crate) struct OwnBinding {
    identity: MeshIdentity,
    domain: Domain,
    node: NodeId,
    state: Mutex<Speaking>,
}

#[derive(Default)]
struct Speaking {
    /// Which of the keys.
    key: usize,
    binding: Option<Binding>,
}

impl OwnBinding {
    pub(crate) fn new(identity: MeshIdentity, domain: Domain, node: NodeId) -> Self {
        Self { identity, domain, node, state: Mutex::default() }
    }

    /// The key this node speaks for now.
    pub(crate) fn key(&self) -> Option<PublicKey> {
        let at = lock(&self.state).key;
        self.identity.keys().get(at).copied()
    }

    /// Whether one of this node's keys is this one.
    pub(crate) fn holds(&self, key: &PublicKey) -> bool {
        self.identity.keys().contains(key)
    }

    /// Speaks for the first own key in the first set that has one; for the first key when none has.
    pub(crate) fn speak_for_member(&self, sets: &[Arc<ValidatorSet>]) {
        let keys = self.identity.keys();
        let member = |set: &Arc<ValidatorSet>| keys.iter().position(|key| set.index_of(key).is_some());
        let key = sets.iter().find_map(member).unwrap_or(0);
        let mut state = lock(&self.state);
        if state.key != key {
            *state = Speaking { key, binding: None };
        }
    }

    /// The proof to show now.
    pub(crate) fn current(&self) -> Option<Binding> {
        let mut state = lock(&self.state);
        let (key, sign) = match &self.identity.0 {
            Kind::Observer => return None,
            Kind::Fixed(binding) => return Some((**binding).clone()),
            Kind::Validator(keys) => keys.get(state.key)?,
        };
        let now = unix_ms() / 1000;
        let fresh = |b: &Binding| b.statement.expires_unix_s > now.saturating_add(BINDING_LIFETIME_S / 2);
        if !state.binding.as_ref().is_some_and(fresh) {
            let expires = now.saturating_add(BINDING_LIFETIME_S);
            state.binding = Some(Binding::make(&self.domain, self.node, *key, expires, |bytes| sign(bytes)));
        }
        state.binding.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloy_primitives::B256;

    const NOW: u64 = 1_000_000;

    fn domain() -> Domain {
        Domain { chain_id: 7, genesis_hash: B256::repeat_byte(1), epoch: 0 }
    }

    fn binding(peer: PeerId, expires: u64) -> (Binding, VerifyingKey) {
        let secret = SecretKey::from_seed(&[1; 32]);
        let made = Binding::make(&domain(), NodeId(peer), secret.public_key(), expires, |b| secret.sign(b));
        (made, VerifyingKey::try_from(secret.public_key()).unwrap())
    }

    #[test]
    fn a_proof_holds_only_for_its_peer_its_time_its_key_and_its_chain() {
        let peer = PeerId::random();
        let (good, key) = binding(peer, NOW + 10);
        assert_eq!(good.check(peer, NOW), Ok(()));
        assert!(good.is_signed_by(&key, &domain()));
        assert!(matches!(good.check(PeerId::random(), NOW), Err(HandshakeError::BindingPeer { .. })));
        assert!(matches!(good.check(peer, NOW + 10), Err(HandshakeError::BindingExpired { .. })));
        let (long, _) = binding(peer, NOW + BINDING_LIFETIME_S_MAX + 1);
        assert!(matches!(long.check(peer, NOW), Err(HandshakeError::BindingTooLong { .. })));
        assert!(!good.is_signed_by(&key, &Domain { chain_id: 8, ..domain() }));
        let other = VerifyingKey::try_from(SecretKey::from_seed(&[2; 32]).public_key()).unwrap();
        assert!(!good.is_signed_by(&other, &domain()));
        let mut stolen = good.clone();
        stolen.statement.peer = PeerId::random().to_bytes();
        assert!(!stolen.is_signed_by(&key, &domain()), "the peer is under the signature");
    }

    #[test]
    fn own_proofs_are_reused_while_fresh() {
        let secret = SecretKey::from_seed(&[1; 32]);
        let own = OwnBinding::new(MeshIdentity::validator(secret), domain(), NodeId(PeerId::random()));
        assert_eq!(own.current(), own.current());
        assert!(own.current().is_some());
        let observer = OwnBinding::new(MeshIdentity::observer(), domain(), NodeId(PeerId::random()));
        assert_eq!(observer.current(), None);
    }
}
