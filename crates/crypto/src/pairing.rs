//! Products of pairings: all verification comes down to whether one of them is 1. Several Miller loops share their
//! squarings and the final exponentiation, and nothing leaves the calling thread.

use blst::min_pk::{AggregatePublicKey, PublicKey, SecretKey, Signature};
use blst::{BLST_ERROR, Pairing, blst_fp12, blst_p1_affine, blst_p2_affine};
use std::sync::OnceLock;

/// Bytes of a random coefficient. One bit is spent on being odd: a batch with a bad member passes with a chance of at
/// most 2^-63.
const COEFFICIENT_BYTES: usize = 8;

/// The library's own way of saying that a term comes without a signature.
const NO_SIGNATURE: Option<&'static blst_p2_affine> = None;

/// A product of pairings under construction. Anything a verifier must refuse makes it fail for good.
pub(crate) struct Product {
    pairing: Pairing<'static>,
    failed: bool,
}

impl Product {
    /// The empty product, for messages hashed under `dst`.
    pub(crate) fn new(dst: &'static [u8]) -> Self {
        Self { pairing: Pairing::new(true, dst), failed: false }
    }

    /// Times `e(key, hash(message))`. Fails for the point at infinity, which cancelling keys add up to.
    pub(crate) fn hashed(&mut self, key: &PublicKey, message: &[u8]) {
        let key: blst_p1_affine = (*key).into();
        let code = self.pairing.aggregate(&key, false, &NO_SIGNATURE, false, message, &[]);
        self.failed |= code != BLST_ERROR::BLST_SUCCESS;
    }

    /// Times `e(key, point)`.
    pub(crate) fn raw(&mut self, key: &PublicKey, point: &Signature) {
        let (key, point): (blst_p1_affine, blst_p2_affine) = ((*key).into(), (*point).into());
        self.failed |= key == blst_p1_affine::default() || point == blst_p2_affine::default();
        if !self.failed {
            self.pairing.raw_aggregate(&point, &key);
        }
    }

    /// Times `e(-key, signature)`; fails unless the signature is a finite point of the subgroup.
    pub(crate) fn minus(&mut self, key: &PublicKey, signature: &Signature) {
        self.failed |= signature.validate(true).is_err();
        self.raw(&negated(key), signature);
    }

    /// Times `e(-g1, signature)`: the right side of every verification, once per product.
    pub(crate) fn minus_signature(&mut self, signature: &Signature) {
        self.failed |= signature.validate(true).is_err();
        self.raw(minus_generator(), signature);
    }

    /// Whether nothing failed and the product is 1.
    pub(crate) fn finish(mut self) -> bool {
        if self.failed {
            return false;
        }
        self.pairing.commit();
        blst_fp12::finalverify(&self.pairing.as_fp12(), &blst_fp12::default())
    }
}

/// One verification of a batch: key, message, signature.
pub(crate) type Term<'a> = (PublicKey, &'a [u8], Signature);

/// A coefficient for this process, and `-g1` times it. It may serve again and again: a batch that fails rules out one
/// of 2^63 values.
struct Weight {
    bytes: [u8; COEFFICIENT_BYTES],
    minus: PublicKey,
}

impl Weight {
    /// `None` without randomness.
    fn get() -> Option<&'static Self> {
        static WEIGHT: OnceLock<Option<Weight>> = OnceLock::new();
        WEIGHT.get_or_init(Self::draw).as_ref()
    }

    fn draw() -> Option<Self> {
        let mut bytes = [0; COEFFICIENT_BYTES];
        getrandom::fill(&mut bytes).ok()?;
        bytes[0] |= 1;
        // Coefficients are little-endian, secret keys are not.
        let mut scalar = [0; 32];
        scalar[..COEFFICIENT_BYTES].copy_from_slice(&bytes);
        scalar.reverse();
        let minus = negated(&SecretKey::from_bytes(&scalar).ok()?.sk_to_pk());
        Some(Self { bytes, minus })
    }
}

/// The half of a weighted verification that needs no signature: `e(weight * key, hash(message))`, computed.
#[derive(Debug)]
pub(crate) struct Half(Pairing<'static>);

impl Half {
    /// `None` without randomness, or for a key at infinity.
    pub(crate) fn new(key: &PublicKey, message: &[u8], dst: &'static [u8]) -> Option<Self> {
        let weight = &Weight::get()?.bytes;
        let (mut product, key) = (Pairing::new(true, dst), blst_p1_affine::from(*key));
        let bits = 8 * COEFFICIENT_BYTES;
        let code = product.mul_n_aggregate(&key, false, &NO_SIGNATURE, false, weight, bits, message, &[]);
        product.commit();
        (code == BLST_ERROR::BLST_SUCCESS).then_some(Self(product))
    }
}

/// Whether all terms verify, each weighted by a coefficient that nobody outside can know; `None` without randomness.
/// `half` brings one more term, with its signature.
pub(crate) fn all_verify(
    terms: &[Term<'_>],
    half: Option<(&Half, Signature)>,
    dst: &'static [u8],
) -> Option<bool> {
    let mut coefficients = vec![0; terms.len() * COEFFICIENT_BYTES];
    getrandom::fill(&mut coefficients).ok()?;
    let mut pairing = Pairing::new(true, dst);
    for (i, (key, message, signature)) in terms.iter().enumerate() {
        let (key, point): (blst_p1_affine, blst_p2_affine) = ((*key).into(), (*signature).into());
        if point == blst_p2_affine::default() {
            return Some(false);
        }
        // One term may go unweighted: the others' weights are unknown relative to it.
        let code = if i == 0 {
            pairing.aggregate(&key, false, &point, true, message, &[])
        } else {
            let coefficient = &mut coefficients[i * COEFFICIENT_BYTES..][..COEFFICIENT_BYTES];
            // Zero would ignore the term.
            coefficient[0] |= 1;
            pairing.mul_n_aggregate(
                &key,
                false,
                &point,
                true,
                coefficient,
                8 * COEFFICIENT_BYTES,
                message,
                &[],
            )
        };
        if code != BLST_ERROR::BLST_SUCCESS {
            return Some(false);
        }
    }
    if let Some((half, signature)) = half {
        if signature.validate(true).is_err() {
            return Some(false);
        }
        pairing.raw_aggregate(&signature.into(), &Weight::get()?.minus.into());
        pairing.commit();
        if pairing.merge(&half.0) != BLST_ERROR::BLST_SUCCESS {
            return Some(false);
        }
    }
    pairing.commit();
    Some(pairing.finalverify(None))
}

fn negated(key: &PublicKey) -> PublicKey {
    let positive = AggregatePublicKey::from_public_key(key);
    let mut sum = positive;
    sum.sub_aggregate(&positive);
    sum.sub_aggregate(&positive);
    sum.to_public_key()
}

fn minus_generator() -> &'static PublicKey {
    static MINUS_GENERATOR: OnceLock<PublicKey> = OnceLock::new();
    MINUS_GENERATOR.get_or_init(|| {
        let mut one = [0; 32];
        one[31] = 1;
        let one = SecretKey::from_bytes(&one).expect("1 is a scalar below the group order");
        negated(&one.sk_to_pk())
    })
}
