//! Validator sets and every piece of quorum arithmetic (specs/consensus.md, C-1). Everything counts stake;
//! nothing counts heads.

use crate::limits::{TOTAL_STAKE_MAX, VALIDATORS_MAX};
use crate::{Address, B256, Epoch, PublicKey, Stake, ValidatorIndex, View};
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::{VerifyingKey, tagged_hash};
use serde::{Deserialize, Serialize};

/// One member of a set.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Validator {
    /// Account that owns the validator.
    pub address: Address,
    /// Consensus key.
    pub public_key: PublicKey,
    /// Voting weight.
    pub stake: Stake,
}

/// The share of stake a certificate needs: at least `numerator/denominator`, never below 2/3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuorumRule {
    /// Numerator, at least 1.
    pub numerator: u8,
    /// Denominator, at least the numerator.
    pub denominator: u8,
}

impl Default for QuorumRule {
    fn default() -> Self {
        Self { numerator: 2, denominator: 3 }
    }
}

/// Why a set was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// A set needs members.
    #[error("a validator set needs at least one validator")]
    Empty,
    /// Too many members.
    #[error("{count} validators, at most {VALIDATORS_MAX} are supported")]
    TooMany {
        /// How many were given.
        count: usize,
    },
    /// A member without weight.
    #[error("validator {index} has no stake")]
    NoStake {
        /// Which one.
        index: usize,
    },
    /// Too much weight.
    #[error("total stake exceeds 2^120")]
    TooMuchStake,
    /// A key that is no curve point.
    #[error("validator {index}: {source}")]
    BadKey {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        source: crypto::BlsError,
    },
    /// Two members share a key or an address.
    #[error("validators {first} and {second} share a key or an address")]
    Duplicate {
        /// The earlier one.
        first: usize,
        /// The later one.
        second: usize,
    },
    /// A quorum below two thirds or above one is no BFT quorum.
    #[error("quorum {numerator}/{denominator} must lie between 2/3 and 1")]
    BadQuorum {
        /// Given numerator.
        numerator: u8,
        /// Given denominator.
        denominator: u8,
    },
}

/// The validators of one epoch in canonical order, with checked keys.
///
/// # Invariants
/// At least one member, every stake > 0, total <= 2^120, keys valid and distinct, quorum in `[2W/3, W]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    epoch: Epoch,
    validators: Vec<Validator>,
    keys: Vec<VerifyingKey>,
    total: Stake,
    rule: QuorumRule,
    id: B256,
}

impl ValidatorSet {
    /// Checks and freezes a set. Proofs of possession are checked where validators register (genesis, staking).
    pub fn new(
        epoch: Epoch,
        validators: Vec<Validator>,
        rule: QuorumRule,
    ) -> Result<Self, ValidatorSetError> {
        Self::with_keys(epoch, validators, rule, VerifyingKey::try_from)
    }

    /// The same with stand-in keys, for simulations only.
    pub fn simulated(
        epoch: Epoch,
        validators: Vec<Validator>,
        rule: QuorumRule,
    ) -> Result<Self, ValidatorSetError> {
        Self::with_keys(epoch, validators, rule, |key| Ok(VerifyingKey::simulated(key)))
    }

    /// The set of another epoch of the same chain: same quorum rule, and keys that are in both are not checked anew.
    pub fn successor(&self, epoch: Epoch, validators: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        let known: std::collections::BTreeMap<_, _> =
            self.validators.iter().map(|v| v.public_key).zip(&self.keys).collect();
        let check = |key: PublicKey| match known.get(&key) {
            Some(checked) => Ok(**checked),
            None => self.keys[0].checked_like(key),
        };
        Self::with_keys(epoch, validators, self.rule, check)
    }

    fn with_keys(
        epoch: Epoch,
        validators: Vec<Validator>,
        rule: QuorumRule,
        to_key: impl Fn(PublicKey) -> Result<VerifyingKey, crypto::BlsError>,
    ) -> Result<Self, ValidatorSetError> {
        let QuorumRule { numerator, denominator } = rule;
        if numerator == 0 || numerator > denominator || u16::from(numerator) * 3 < u16::from(denominator) * 2
        {
            return Err(ValidatorSetError::BadQuorum { numerator, denominator });
        }
        if validators.is_empty() {
            return Err(ValidatorSetError::Empty);
        }
        if validators.len() > VALIDATORS_MAX {
            return Err(ValidatorSetError::TooMany { count: validators.len() });
        }
        let (mut keys, mut total) = (Vec::with_capacity(validators.len()), 0u128);
        let (mut seen_keys, mut seen_addresses) =
            (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        for (index, validator) in validators.iter().enumerate() {
            if validator.stake == Stake::ZERO {
                return Err(ValidatorSetError::NoStake { index });
            }
            total = total
                .checked_add(validator.stake.get())
                .filter(|sum| *sum <= TOTAL_STAKE_MAX)
                .ok_or(ValidatorSetError::TooMuchStake)?;
            let earlier = seen_keys
                .insert(validator.public_key, index)
                .or(seen_addresses.insert(validator.address, index));
            if let Some(first) = earlier {
                return Err(ValidatorSetError::Duplicate { first, second: index });
            }
            keys.push(
                to_key(validator.public_key).map_err(|source| ValidatorSetError::BadKey { index, source })?,
            );
        }
        let id = tagged_hash("tandem v1 validator set", &[&crate::encode(&(epoch, &validators, rule))]);
        Ok(Self { epoch, validators, keys, total: Stake::new(total), rule, id })
    }

    /// The epoch this set votes in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// `validator_set_id`: hash of the epoch, the members in order and the quorum rule (C-1.3).
    pub fn id(&self) -> B256 {
        self.id
    }

    /// The share of stake a certificate needs.
    pub fn rule(&self) -> QuorumRule {
        self.rule
    }

    /// Number of members. For sizing bitmaps only, never for quorums.
    pub fn len(&self) -> usize {
        self.validators.len()
    }

    /// Always false: a set has members.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// All members in order.
    pub fn validators(&self) -> &[Validator] {
        &self.validators
    }

    /// One member.
    pub fn get(&self, index: ValidatorIndex) -> Option<&Validator> {
        self.validators.get(index.get() as usize)
    }

    /// One member's checked key.
    pub fn key(&self, index: ValidatorIndex) -> Option<&VerifyingKey> {
        self.keys.get(index.get() as usize)
    }

    /// The member with this key.
    pub fn index_of(&self, key: &PublicKey) -> Option<ValidatorIndex> {
        self.validators.iter().position(|v| v.public_key == *key).map(|i| ValidatorIndex::new(i as u32))
    }

    /// All indices in order.
    pub fn indices(&self) -> impl Iterator<Item = ValidatorIndex> + use<> {
        (0..self.validators.len() as u32).map(ValidatorIndex::new)
    }

    /// The weight of a member; zero for a foreign index.
    pub fn stake(&self, index: ValidatorIndex) -> Stake {
        let weigh = |v: &Validator| if crate::injected!(QuorumByCount) { Stake::new(1) } else { v.stake };
        self.get(index).map_or(Stake::ZERO, weigh)
    }

    /// W: the whole stake.
    pub fn total(&self) -> Stake {
        self.total
    }

    /// The least stake of a certificate: `ceil(W * numerator / denominator)` (C-1.2).
    pub fn quorum(&self) -> Stake {
        let total = if crate::injected!(QuorumByCount) { self.len() as u128 } else { self.total.get() };
        let scaled = total * u128::from(self.rule.numerator);
        let least = scaled.div_ceil(u128::from(self.rule.denominator));
        Stake::new(if crate::injected!(QuorumMinusOne) { least.saturating_sub(1) } else { least })
    }

    /// The least stake that holds an honest validator: `ceil(W / 3)` (C-1.2).
    pub fn amplify(&self) -> Stake {
        Stake::new(self.total.get().div_ceil(3))
    }

    /// Whether `stake` makes a certificate.
    pub fn is_quorum(&self, stake: Stake) -> bool {
        stake >= self.quorum()
    }

    /// The weight of a set of signers.
    pub fn stake_of(&self, signers: &SignerSet) -> Stake {
        signers.iter().fold(Stake::ZERO, |sum, index| sum.plus(self.stake(index)))
    }

    /// The proposer of `view`: a stake-weighted draw from `BLAKE3(seed | view)` reduced from 256 bits, walked in
    /// index order (C-6.8). The bias of the reduction is below 2^-136.
    pub fn proposer(&self, seed: &B256, view: View) -> ValidatorIndex {
        let draw = tagged_hash("tandem v1 proposer draw", &[seed.as_slice(), &view.get().to_le_bytes()]);
        let total = alloy_primitives::U256::from(self.total.get());
        let mut point: u128 = (alloy_primitives::U256::from_be_bytes(draw.0) % total).to();
        for (index, validator) in self.validators.iter().enumerate() {
            match point.checked_sub(validator.stake.get()) {
                Some(rest) => point = rest,
                None => return ValidatorIndex::new(index as u32),
            }
        }
        unreachable!("the draw is below the sum of all stakes")
    }
}

/// A bitmap of signers over a set: bit `i % 8` of byte `i / 8`, exactly `ceil(n / 8)` bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct SignerSet(Vec<u8>);

impl SignerSet {
    /// No signers, sized for a set of `n`.
    pub fn empty(n: usize) -> Self {
        Self(vec![0; n.div_ceil(8)])
    }

    /// The signers given, sized for a set of `n`. Foreign indices are left out.
    pub fn of(n: usize, signers: impl IntoIterator<Item = ValidatorIndex>) -> Self {
        let mut set = Self::empty(n);
        signers.into_iter().filter(|i| (i.get() as usize) < n).for_each(|i| set.insert(i));
        set
    }

    /// Adds a signer. Panics only if the index does not fit the size, which callers check.
    pub fn insert(&mut self, index: ValidatorIndex) {
        self.0[index.get() as usize / 8] |= 1 << (index.get() % 8);
    }

    /// Whether `index` signed.
    pub fn contains(&self, index: ValidatorIndex) -> bool {
        self.0.get(index.get() as usize / 8).is_some_and(|byte| byte & (1 << (index.get() % 8)) != 0)
    }

    /// The signers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ValidatorIndex> + '_ {
        (0..self.0.len() as u32 * 8).map(ValidatorIndex::new).filter(|i| self.contains(*i))
    }

    /// How many signed. For display and metrics only, never for quorums.
    pub fn count(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Whether the bitmap has exactly the size for `n` members and names no one beyond them.
    pub fn fits(&self, n: usize) -> bool {
        self.0.len() == n.div_ceil(8) && self.iter().all(|i| (i.get() as usize) < n)
    }

    /// Whether some signer is in both.
    pub fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(stakes: &[u128]) -> ValidatorSet {
        let validators = stakes.iter().enumerate().map(|(i, stake)| Validator {
            address: Address::repeat_byte(i as u8 + 1),
            public_key: crypto::SecretKey::from_seed(&[i as u8 + 1; 32]).public_key(),
            stake: Stake::new(*stake),
        });
        ValidatorSet::new(Epoch::ZERO, validators.collect(), QuorumRule::default()).expect("valid test set")
    }

    #[test]
    fn quorum_and_amplify_are_ceilings_of_two_and_one_third_of_stake() {
        for (stakes, quorum, amplify) in [
            (&[1, 1, 1, 1][..], 3, 2),
            (&[1, 1, 1], 2, 1),
            (&[4, 1, 1, 1], 5, 3),
            (&[34, 33, 33], 67, 34),
            (&[1], 1, 1),
        ] {
            let set = set(stakes);
            assert_eq!((set.quorum().get(), set.amplify().get()), (quorum, amplify), "{stakes:?}");
        }
    }

    #[test]
    fn the_largest_total_stake_does_not_overflow() {
        let set = set(&[TOTAL_STAKE_MAX - 1, 1]);
        assert_eq!(set.quorum().get(), (TOTAL_STAKE_MAX * 2).div_ceil(3));
        let over = set.validators.into_iter().map(|v| Validator { stake: Stake::new(TOTAL_STAKE_MAX), ..v });
        let refused = ValidatorSet::new(Epoch::ZERO, over.collect(), QuorumRule::default());
        assert_eq!(refused, Err(ValidatorSetError::TooMuchStake));
    }

    #[test]
    fn quorums_below_two_thirds_are_refused() {
        let validators = set(&[1, 1, 1]).validators;
        for (numerator, denominator) in [(1, 2), (65, 100), (0, 1), (4, 3), (0, 0)] {
            let rule = QuorumRule { numerator, denominator };
            let refused = ValidatorSet::new(Epoch::ZERO, validators.clone(), rule);
            assert_eq!(refused, Err(ValidatorSetError::BadQuorum { numerator, denominator }));
        }
    }

    #[test]
    fn the_proposer_draw_follows_stake() {
        let set = set(&[4, 1, 1, 2]);
        let mut drawn = [0u32; 4];
        for view in 1..=8000 {
            drawn[set.proposer(&B256::repeat_byte(7), View::new(view)).get() as usize] += 1;
        }
        for (index, expected) in [(0, 4000), (1, 1000), (2, 1000), (3, 2000)] {
            assert!(drawn[index].abs_diff(expected) < expected / 6, "{drawn:?}");
        }
    }

    #[test]
    fn a_successor_keeps_rule_and_keys_and_is_checked_like_any_set() {
        let first = set(&[4, 1, 1]);
        let mut members = first.validators.clone();
        members.swap(0, 2);
        let next = first.successor(Epoch::new(1), members.clone()).expect("a valid set");
        assert_eq!(next, ValidatorSet::new(Epoch::new(1), members.clone(), first.rule).expect("a valid set"));
        assert_ne!(next.id(), first.id());
        members[0].public_key = PublicKey([7; 48]);
        assert!(matches!(first.successor(Epoch::new(1), members), Err(ValidatorSetError::BadKey { .. })));
        assert_eq!(first.successor(Epoch::new(1), Vec::new()), Err(ValidatorSetError::Empty));
    }

    #[test]
    fn a_duplicate_key_or_address_is_refused() {
        let mut validators = set(&[1, 1]).validators;
        validators[1].address = validators[0].address;
        let refused = ValidatorSet::new(Epoch::ZERO, validators, QuorumRule::default());
        assert_eq!(refused, Err(ValidatorSetError::Duplicate { first: 0, second: 1 }));
    }

    proptest! {
        /// Two quorums share at least one third of stake, so they share an honest validator (C-1.2).
        #[test]
        fn any_two_quorums_intersect_in_amplify_stake_minus_rounding(stakes in prop::collection::vec(1u128..1000, 1..9), a in any::<u16>(), b in any::<u16>()) {
            let set = set(&stakes);
            let pick = |mask: u16| SignerSet::of(set.len(), set.indices().filter(|i| mask >> i.get() & 1 == 1));
            let (a, b) = (pick(a), pick(b));
            if set.is_quorum(set.stake_of(&a)) && set.is_quorum(set.stake_of(&b)) {
                let shared = SignerSet::of(set.len(), a.iter().filter(|i| b.contains(*i)));
                prop_assert!(set.stake_of(&shared).get() * 3 >= set.total().get());
            }
        }

        #[test]
        fn signer_sets_refuse_bits_beyond_the_set(n in 1usize..40, extra in 0u32..64) {
            let mut bits = SignerSet::empty(n.max(64));
            bits.insert(ValidatorIndex::new(extra));
            let fits = bits.fits(64);
            prop_assert!(fits);
            prop_assert_eq!(SignerSet(bits.0[..n.div_ceil(8)].to_vec()).fits(n), extra as usize >= n.div_ceil(8) * 8 || (extra as usize) < n);
        }
    }
}
