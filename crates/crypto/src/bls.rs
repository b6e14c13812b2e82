//! BLS12-381 signatures, min-pk (48-byte public keys, 96-byte signatures), proof-of-possession ciphersuite:
//! the variant Ethereum validators use (draft-irtf-cfrg-bls-signature-05, section 4.2.3).
//!
//! Signatures here are *attributable*: an aggregate travels with the bitmap of its signers.

use crate::meter::{Phase, span};
use crate::pairing::{Half, Product, Term, all_verify};
use crate::simulated;
use alloy_primitives::hex;
use blst::{BLST_ERROR, min_pk};
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use zeroize::Zeroizing;

pub(crate) const SIGNATURE_DST: &[u8] = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";
const POSSESSION_DST: &[u8] = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";

/// Why key or signature bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlsError {
    /// The secret scalar is zero or not below the group order.
    #[error("not a BLS secret key: the scalar must be non-zero and below the group order")]
    BadSecretKey,
    /// Not a point of the prime-order subgroup, or the point at infinity.
    #[error("not a valid BLS public key: {0:?}")]
    BadPublicKey(BlstCode),
    /// The signature bytes are no group element.
    #[error("not a valid BLS signature: {0:?}")]
    BadSignature(BlstCode),
    /// Nothing to aggregate.
    #[error("cannot aggregate zero signatures")]
    Empty,
}

/// The curve library's own code for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlstCode(BLST_ERROR);

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}…", hex::encode(&self.0[..4]))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.0))
            }
        }
        impl std::str::FromStr for $name {
            type Err = hex::FromHexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fixed_bytes!(
    /// A compressed public key (48 bytes). Bytes only: [`VerifyingKey`] is the checked point.
    PublicKey, 48
);
fixed_bytes!(
    /// A compressed signature or aggregate (96 bytes). Unchecked until verified.
    Signature, 96
);

impl Signature {
    /// 96 zero bytes: no valid signature; stands where the genesis certificate has none.
    pub const ZERO: Self = Self([0; 96]);
}

/// A secret key; wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct SecretKey(Secret);

#[derive(Clone)]
enum Secret {
    Bls(min_pk::SecretKey),
    Simulated(PublicKey),
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl SecretKey {
    /// A fresh key from the operating system's randomness.
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut()).expect("the operating system provides randomness");
        Self::from_seed(&seed)
    }

    /// The key derived from 32 bytes of keying material (`KeyGen` of the BLS draft).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Secret::Bls(min_pk::SecretKey::key_gen(seed, &[]).expect("32 bytes of keying material suffice")))
    }

    /// A key for simulations only; see [`simulated`](crate::simulated).
    pub fn simulated(number: u64) -> Self {
        Self(Secret::Simulated(simulated::public_key(number)))
    }

    /// Parses a 32-byte big-endian scalar.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BlsError> {
        min_pk::SecretKey::from_bytes(bytes)
            .map(|key| Self(Secret::Bls(key)))
            .map_err(|_| BlsError::BadSecretKey)
    }

    /// The 32-byte big-endian scalar, wiped when dropped; zeros for a simulated key, which has none.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        match &self.0 {
            Secret::Bls(key) => Zeroizing::new(key.to_bytes()),
            Secret::Simulated(_) => Zeroizing::new([0; 32]),
        }
    }

    /// This key's public half.
    pub fn public_key(&self) -> PublicKey {
        match &self.0 {
            Secret::Bls(key) => PublicKey(key.sk_to_pk().to_bytes()),
            Secret::Simulated(public) => *public,
        }
    }

    /// Signs `message`; deterministic.
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.sign_with(message, SIGNATURE_DST)
    }

    /// Proof that the holder of this public key knows the secret (guards against rogue keys).
    pub fn prove_possession(&self) -> Signature {
        self.sign_with(&self.public_key().0, POSSESSION_DST)
    }

    fn sign_with(&self, message: &[u8], dst: &[u8]) -> Signature {
        let _span = span(Phase::Sign);
        match &self.0 {
            Secret::Bls(key) => Signature(key.sign(message, dst, &[]).to_bytes()),
            Secret::Simulated(public) => simulated::sign(public, message, dst),
        }
    }
}

/// A public key whose point was decompressed and checked to be in the subgroup, once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(Verifying);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verifying {
    Bls(min_pk::PublicKey),
    Simulated(PublicKey),
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_bytes(), f)
    }
}

impl TryFrom<PublicKey> for VerifyingKey {
    type Error = BlsError;

    fn try_from(key: PublicKey) -> Result<Self, BlsError> {
        min_pk::PublicKey::key_validate(&key.0)
            .map(|point| Self(Verifying::Bls(point)))
            .map_err(|code| BlsError::BadPublicKey(BlstCode(code)))
    }
}

impl VerifyingKey {
    /// The verifying half of [`SecretKey::simulated`]. Never produced from bytes that came from outside:
    /// [`TryFrom<PublicKey>`] makes real keys only.
    pub fn simulated(key: PublicKey) -> Self {
        Self(Verifying::Simulated(key))
    }

    /// Checks another key of the same sort: simulated ones make simulated ones, real ones make real ones.
    pub fn checked_like(&self, key: PublicKey) -> Result<Self, BlsError> {
        match &self.0 {
            Verifying::Bls(_) => Self::try_from(key),
            Verifying::Simulated(_) => Ok(Self::simulated(key)),
        }
    }

    /// The compressed key.
    pub fn to_bytes(&self) -> PublicKey {
        match &self.0 {
            Verifying::Bls(key) => PublicKey(key.to_bytes()),
            Verifying::Simulated(key) => *key,
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        self.verify_with(message, signature, SIGNATURE_DST)
    }

    /// Whether `proof` shows possession of this key.
    pub fn verify_possession(&self, proof: &Signature) -> bool {
        self.verify_with(&self.to_bytes().0, proof, POSSESSION_DST)
    }

    fn verify_with(&self, message: &[u8], signature: &Signature, dst: &'static [u8]) -> bool {
        let _span = span(Phase::Certificates);
        let key = match &self.0 {
            Verifying::Bls(key) => key,
            Verifying::Simulated(key) => return simulated::sign(key, message, dst) == *signature,
        };
        let Ok(point) = min_pk::Signature::from_bytes(&signature.0) else { return false };
        let mut product = Product::new(dst);
        product.hashed(key, message);
        product.minus_signature(&point);
        product.finish()
    }

    fn point(&self) -> Option<&min_pk::PublicKey> {
        match &self.0 {
            Verifying::Bls(key) => Some(key),
            Verifying::Simulated(_) => None,
        }
    }
}

/// Adds signatures up. Each must be a group element; whether it is *valid* shows when the aggregate is verified.
pub fn aggregate(signatures: &[Signature]) -> Result<Signature, BlsError> {
    if let Some(sum) = simulated::aggregate(signatures) {
        return Ok(sum);
    }
    sum_of_points(signatures.iter()).map(|sum| Signature(sum.to_bytes()))
}

fn sum_of_points<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Result<min_pk::Signature, BlsError> {
    let points = signatures
        .map(|s| min_pk::Signature::from_bytes(&s.0).map_err(|code| BlsError::BadSignature(BlstCode(code))))
        .collect::<Result<Vec<_>, _>>()?;
    let refs: Vec<&min_pk::Signature> = points.iter().collect();
    if refs.is_empty() {
        return Err(BlsError::Empty);
    }
    let sum = min_pk::AggregateSignature::aggregate(&refs, false)
        .map_err(|code| BlsError::BadSignature(BlstCode(code)))?;
    Ok(sum.to_signature())
}

/// The sum of real keys; `None` for no keys and for stand-ins.
fn sum_of_keys<'a>(keys: impl Iterator<Item = &'a VerifyingKey>) -> Option<min_pk::PublicKey> {
    let refs = keys.map(VerifyingKey::point).collect::<Option<Vec<_>>>()?;
    Some(min_pk::AggregatePublicKey::aggregate(&refs, false).ok()?.to_public_key())
}

/// Verifies an aggregate in which every key signed the same `message`. False for an empty key list.
///
/// Safe against rogue keys only because every key in a validator set proved possession.
pub fn verify_aggregate(keys: &[&VerifyingKey], message: &[u8], signature: &Signature) -> bool {
    verify_grouped(&[(keys.to_vec(), message.to_vec())], signature)
}

/// Verifies an aggregate over groups: all keys of a group signed the group's message. False when there is no group
/// or one is empty. Costs one pairing per group, not per key.
pub fn verify_grouped(groups: &[(Vec<&VerifyingKey>, Vec<u8>)], signature: &Signature) -> bool {
    let _span = span(Phase::Certificates);
    if groups.is_empty() || groups.iter().any(|(members, _)| members.is_empty()) {
        return false;
    }
    if groups.iter().flat_map(|(members, _)| members).all(|key| key.point().is_none()) {
        return simulated::verify_grouped(groups, signature);
    }
    let Ok(point) = min_pk::Signature::from_bytes(&signature.0) else { return false };
    let mut product = Product::new(SIGNATURE_DST);
    for (members, message) in groups {
        let Some(sum) = sum_of_keys(members.iter().copied()) else { return false };
        product.hashed(&sum, message);
    }
    product.minus_signature(&point);
    product.finish()
}

/// A key and its signature over a message. Both must be known to belong together: the own one, or one verified.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// Who signed.
    pub key: &'a VerifyingKey,
    /// A valid signature of this key.
    pub signature: &'a Signature,
}

/// Adds up the votes for one message and verifies the sum: `None` unless it stands for all of them.
///
/// With a `witness` to the same message nothing is hashed to the curve. Let the witness' key be `g^w` and its
/// signature `H^w` for the message's point `H`; the votes add up to the key `g^x` and the signature `S`. Then
/// `e(g^x, H^w) = e(g^w, S)` holds exactly when `S = H^x`, because `w` is invertible: what `e(g^x, H) = e(g, S)` says.
pub fn aggregate_verified(
    votes: &[(&VerifyingKey, &Signature)],
    message: &[u8],
    witness: Option<Witness<'_>>,
) -> Option<Signature> {
    let _span = span(Phase::Votes);
    let Some(key) = sum_of_keys(votes.iter().map(|(key, _)| *key)) else {
        let signatures: Vec<Signature> = votes.iter().map(|(_, signature)| **signature).collect();
        let keys: Vec<&VerifyingKey> = votes.iter().map(|(key, _)| *key).collect();
        return aggregate(&signatures).ok().filter(|sum| verify_aggregate(&keys, message, sum));
    };
    let sum = sum_of_points(votes.iter().map(|(_, signature)| *signature)).ok()?;
    let mut product = Product::new(SIGNATURE_DST);
    match witness.and_then(|w| Some((w.key.point()?, min_pk::Signature::from_bytes(&w.signature.0).ok()?))) {
        Some((witness_key, signed)) => {
            product.raw(&key, &signed);
            product.minus(witness_key, &sum);
        }
        None => {
            product.hashed(&key, message);
            product.minus_signature(&sum);
        }
    }
    product.finish().then(|| Signature(sum.to_bytes()))
}

/// What one verification asks: whether all of `keys` signed `message`, `signature` being the sum.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Who signed.
    pub keys: Vec<&'a VerifyingKey>,
    /// What.
    pub message: Vec<u8>,
    /// The sum of their signatures.
    pub signature: Signature,
}

impl Claim<'_> {
    /// Whether it is true.
    pub fn holds(&self) -> bool {
        verify_aggregate(&self.keys, &self.message, &self.signature)
    }

    fn term(&self) -> Option<Term<'_>> {
        let key = sum_of_keys(self.keys.iter().copied())?;
        Some((key, &self.message, min_pk::Signature::from_bytes(&self.signature.0).ok()?))
    }
}

/// A claim without its signature: whose it will be and over what is known before it is there, and the part of its
/// verification that needs no more is done. Worth it for one signature, because its weight must stay unknown.
#[derive(Debug)]
pub struct Expected {
    key: VerifyingKey,
    message: Vec<u8>,
    half: Half,
}

impl Expected {
    /// Computes what can be computed; `None` when that is nothing.
    pub fn new(key: &VerifyingKey, message: Vec<u8>) -> Option<Self> {
        let half = Half::new(key.point()?, &message, SIGNATURE_DST)?;
        Some(Self { key: *key, message, half })
    }

    /// Whether this is the claim that was expected.
    fn is(&self, claim: &Claim<'_>) -> bool {
        claim.keys == [&self.key] && claim.message == self.message
    }
}

/// Whether all claims are true, for less than their verification one by one, and still less for one that was expected.
/// When they are not, this does not say which.
///
/// The claims are added up with random coefficients of 63 bits, so a false one passes with a chance of 2^-63. The verdict
/// on true claims does not depend on the randomness.
pub fn all_hold(claims: &[Claim<'_>], expected: Option<Expected>) -> bool {
    let _span = span(Phase::Certificates);
    let one_by_one = || claims.iter().all(Claim::holds);
    let simulated = |claim: &Claim<'_>| claim.keys.iter().all(|key| key.point().is_none());
    if claims.len() < 2 || claims.iter().any(simulated) {
        return one_by_one();
    }
    let found = claims.iter().position(|claim| expected.as_ref().is_some_and(|expected| expected.is(claim)));
    let others =
        claims.iter().enumerate().filter(|(at, _)| Some(*at) != found).map(|(_, claim)| claim.term());
    let Some(terms) = others.collect::<Option<Vec<_>>>() else { return false };
    let half = match expected.as_ref().zip(found) {
        None => None,
        Some((expected, at)) => match min_pk::Signature::from_bytes(&claims[at].signature.0) {
            Ok(signature) => Some((&expected.half, signature)),
            Err(_) => return false,
        },
    };
    all_verify(&terms, half, SIGNATURE_DST).unwrap_or_else(one_by_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(n: u8) -> Vec<(SecretKey, VerifyingKey)> {
        (0..n)
            .map(|i| {
                let secret = SecretKey::from_seed(&[i + 1; 32]);
                let public = VerifyingKey::try_from(secret.public_key()).expect("derived keys are valid");
                (secret, public)
            })
            .collect()
    }

    #[test]
    fn an_aggregate_verifies_for_exactly_its_signers_and_message() {
        let keys = keys(4);
        let signatures: Vec<_> = keys[..3].iter().map(|(s, _)| s.sign(b"m")).collect();
        let sum = aggregate(&signatures).expect("valid points");
        let three: Vec<_> = keys[..3].iter().map(|(_, p)| p).collect();
        let four: Vec<_> = keys.iter().map(|(_, p)| p).collect();
        assert!(verify_aggregate(&three, b"m", &sum));
        assert!(!verify_aggregate(&three, b"n", &sum));
        assert!(!verify_aggregate(&four, b"m", &sum));
        assert!(!verify_aggregate(&[], b"m", &sum));
    }

    #[test]
    fn groups_with_different_messages_verify_together() {
        let keys = keys(3);
        let signatures = [keys[0].0.sign(b"a"), keys[1].0.sign(b"a"), keys[2].0.sign(b"b")];
        let sum = aggregate(&signatures).expect("valid points");
        let good = [(vec![&keys[0].1, &keys[1].1], b"a".to_vec()), (vec![&keys[2].1], b"b".to_vec())];
        let swapped = [(vec![&keys[0].1, &keys[2].1], b"a".to_vec()), (vec![&keys[1].1], b"b".to_vec())];
        assert!(verify_grouped(&good, &sum));
        assert!(!verify_grouped(&swapped, &sum));
        assert!(!verify_grouped(&[], &sum));
    }

    #[test]
    fn possession_is_not_a_signature_and_not_another_keys() {
        let keys = keys(2);
        let proof = keys[0].0.prove_possession();
        assert!(keys[0].1.verify_possession(&proof));
        assert!(!keys[1].1.verify_possession(&proof));
        assert!(!keys[0].1.verify(&keys[0].0.public_key().0, &proof));
    }

    #[test]
    fn malformed_points_are_refused() {
        assert!(VerifyingKey::try_from(PublicKey([0; 48])).is_err());
        let mut infinity = [0u8; 48];
        infinity[0] = 0xc0;
        assert!(VerifyingKey::try_from(PublicKey(infinity)).is_err());
        assert!(aggregate(&[Signature::ZERO]).is_err());
        assert_eq!(aggregate(&[]), Err(BlsError::Empty));
        assert!(SecretKey::from_bytes(&[0; 32]).is_err());
    }

    fn claims<'a>(keys: &'a [(SecretKey, VerifyingKey)], messages: &[&[u8]]) -> Vec<Claim<'a>> {
        messages
            .iter()
            .map(|message| {
                let signatures: Vec<_> = keys.iter().map(|(secret, _)| secret.sign(message)).collect();
                let signature = aggregate(&signatures).expect("valid points");
                Claim {
                    keys: keys.iter().map(|(_, key)| key).collect(),
                    message: message.to_vec(),
                    signature,
                }
            })
            .collect()
    }

    #[test]
    fn a_batch_holds_exactly_when_each_of_its_claims_does() {
        let keys = keys(3);
        let good = claims(&keys, &[b"a", b"b", b"c"]);
        assert!(all_hold(&good, None) && all_hold(&good[..1], None) && all_hold(&[], None));
        for bad in 0..3 {
            let mut batch = good.clone();
            batch[bad].signature = good[(bad + 1) % 3].signature;
            assert!(!all_hold(&batch, None));
            let mut batch = good.clone();
            batch[bad].message = b"d".to_vec();
            assert!(!all_hold(&batch, None));
            let mut batch = good.clone();
            batch[bad].keys.pop();
            assert!(!all_hold(&batch, None));
            let mut batch = good.clone();
            batch[bad].keys.clear();
            assert!(!all_hold(&batch, None));
            for malformed in [Signature::ZERO, Signature([0xff; 96]), infinity()] {
                let mut batch = good.clone();
                batch[bad].signature = malformed;
                assert!(!all_hold(&batch, None));
            }
        }
    }

    /// What an unweighted sum of the claims would let pass: the errors of two signatures of one author cancel out.
    #[test]
    fn errors_that_cancel_out_do_not_pass_a_batch() {
        let keys = keys(1);
        let (a, b) = (keys[0].0.sign(b"a"), keys[0].0.sign(b"b"));
        let claim = |message: &[u8], signature| Claim {
            keys: vec![&keys[0].1],
            message: message.to_vec(),
            signature,
        };
        let swapped = [claim(b"a", b), claim(b"b", a)];
        let sum = aggregate(&[a, b]).expect("valid points");
        let groups = [(vec![&keys[0].1], b"a".to_vec()), (vec![&keys[0].1], b"b".to_vec())];
        assert!(verify_grouped(&groups, &sum), "the sums are equal");
        assert!(!all_hold(&swapped, None));
    }

    #[test]
    fn an_expected_claim_holds_exactly_when_it_would_without() {
        let keys = keys(3);
        let mut batch = claims(&keys, &[b"a", b"b"]);
        let own = |message: &[u8]| Claim {
            keys: vec![&keys[0].1],
            message: message.to_vec(),
            signature: keys[0].0.sign(message),
        };
        batch.push(own(b"reveal"));
        let expected = || Expected::new(&keys[0].1, b"reveal".to_vec());
        assert!(expected().is_some());
        for len in 0..=2 {
            assert!(all_hold(&batch[len..], expected()));
        }
        for other in
            [Expected::new(&keys[1].1, b"reveal".to_vec()), Expected::new(&keys[0].1, b"other".to_vec())]
        {
            assert!(other.is_some() && all_hold(&batch, other), "what is not expected is verified as ever");
        }
        for bad in [
            keys[0].0.sign(b"a"),
            keys[1].0.sign(b"reveal"),
            Signature::ZERO,
            Signature([0xff; 96]),
            infinity(),
        ] {
            let mut batch = batch.clone();
            batch[2].signature = bad;
            assert!(!all_hold(&batch, expected()));
        }
        for bad in 0..2 {
            let mut batch = batch.clone();
            batch[bad].signature = batch[1 - bad].signature;
            assert!(!all_hold(&batch, expected()));
        }
    }

    /// Two claims with one weight would let errors through that cancel out.
    #[test]
    fn an_expectation_is_met_once() {
        let keys = keys(2);
        let (secret, key) = &keys[0];
        let good = secret.sign(b"m");
        let off = secret.sign(b"other");
        // The flag of a compressed point says which of two opposite ones it is.
        let mut opposite = off;
        opposite.0[0] ^= 0x20;
        let rest = aggregate(&[good, good, opposite]).expect("valid points");
        let claim = |signature| Claim { keys: vec![key], message: b"m".to_vec(), signature };
        let cancelling = [claim(off), claim(rest)];
        assert!(!all_hold(&cancelling, Expected::new(key, b"m".to_vec())));
        assert!(all_hold(&[claim(good), claim(good)], Expected::new(key, b"m".to_vec())));
    }

    #[test]
    fn with_a_witness_votes_add_up_exactly_when_they_do_without() {
        let keys = keys(4);
        let signed: Vec<_> = keys.iter().map(|(secret, _)| secret.sign(b"m")).collect();
        let witness = Some(Witness { key: &keys[3].1, signature: &signed[3] });
        let votes: Vec<_> = keys.iter().zip(&signed).map(|((_, key), signature)| (key, signature)).collect();
        for count in 1..=4 {
            let sum = aggregate(&signed[..count]).expect("valid points");
            assert_eq!(aggregate_verified(&votes[..count], b"m", witness), Some(sum));
            assert_eq!(aggregate_verified(&votes[..count], b"m", None), Some(sum));
        }
        let other = keys[0].0.sign(b"n");
        for bad in [&other, &signed[1], &Signature::ZERO, &infinity()] {
            let mut votes = votes.clone();
            votes[0].1 = bad;
            assert_eq!(aggregate_verified(&votes, b"m", witness), None);
            assert_eq!(aggregate_verified(&votes, b"m", None), None);
        }
        assert_eq!(aggregate_verified(&[], b"m", witness), None);
    }

    fn infinity() -> Signature {
        let mut bytes = [0; 96];
        bytes[0] = 0xc0;
        Signature(bytes)
    }
}
