//! Stand-in signatures for the simulator: keyed hashes that anybody can compute. They cost 1 µs where BLS costs
//! 700, and let the simulator run the real core over thousands of seeds.
//!
//! They cannot appear in a real network: [`VerifyingKey`] is made from bytes only through curve validation, which
//! a stand-in key (first byte 0, no compression flag) never passes.

use crate::bls::{PublicKey, SIGNATURE_DST, Signature, VerifyingKey};

const MARK: [u8; 4] = [0, b'S', b'I', b'M'];
const MAC_START: usize = 32;

pub(crate) fn public_key(number: u64) -> PublicKey {
    let mut bytes = [0; 48];
    bytes[..4].copy_from_slice(&MARK);
    bytes[4..12].copy_from_slice(&number.to_le_bytes());
    PublicKey(bytes)
}

pub(crate) fn sign(key: &PublicKey, message: &[u8], dst: &[u8]) -> Signature {
    let mut hasher = blake3::Hasher::new_derive_key("tandem simulated signature");
    hasher.update(&key.0).update(dst).update(message);
    let mut bytes = [0; 96];
    bytes[..4].copy_from_slice(&MARK);
    hasher.finalize_xof().fill(&mut bytes[MAC_START..]);
    Signature(bytes)
}

/// The sum of stand-ins, or `None` when any signature is not one.
pub(crate) fn aggregate(signatures: &[Signature]) -> Option<Signature> {
    if signatures.is_empty() || signatures.iter().any(|s| s.0[..4] != MARK) {
        return None;
    }
    let mut sum = Signature([0; 96]);
    sum.0[..4].copy_from_slice(&MARK);
    signatures.iter().for_each(|s| xor_into(&mut sum, s));
    Some(sum)
}

pub(crate) fn verify_grouped(groups: &[(Vec<&VerifyingKey>, Vec<u8>)], signature: &Signature) -> bool {
    let expected: Vec<Signature> = groups
        .iter()
        .flat_map(|(keys, message)| keys.iter().map(|k| sign(&k.to_bytes(), message, SIGNATURE_DST)))
        .collect();
    aggregate(&expected).as_ref() == Some(signature)
}

fn xor_into(sum: &mut Signature, other: &Signature) {
    for (a, b) in sum.0[MAC_START..].iter_mut().zip(&other.0[MAC_START..]) {
        *a ^= b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bls::{SecretKey, aggregate, verify_aggregate};

    #[test]
    fn a_stand_in_key_never_passes_curve_validation() {
        assert!(VerifyingKey::try_from(SecretKey::simulated(7).public_key()).is_err());
    }

    #[test]
    fn stand_ins_aggregate_like_the_real_thing_and_real_keys_refuse_them() {
        let secrets: Vec<_> = (0..3).map(SecretKey::simulated).collect();
        let keys: Vec<_> = secrets.iter().map(|s| VerifyingKey::simulated(s.public_key())).collect();
        let sum = aggregate(&secrets.iter().map(|s| s.sign(b"m")).collect::<Vec<_>>()).expect("stand-ins");
        assert!(verify_aggregate(&keys.iter().collect::<Vec<_>>(), b"m", &sum));
        assert!(!verify_aggregate(&keys[..2].iter().collect::<Vec<_>>(), b"m", &sum));
        let real = VerifyingKey::try_from(SecretKey::from_seed(&[1; 32]).public_key()).expect("valid");
        assert!(!verify_aggregate(&[&real], b"m", &secrets[0].sign(b"m")));
        assert!(!verify_aggregate(&[&keys[0], &real], b"m", &sum));
    }
}
