//! Which word holds what (specs/staking.md, ST-7).
//!
//! A slot is `kind u8 ‖ body ‖ field u16` as a 256-bit number, so that no two meanings share a slot: no hashing is
//! needed, the state keys slots by hash itself.

use crate::{Registry, Words};
use alloy_primitives::{Address, U256, keccak256};
use types::{Epoch, PublicKey, Stake, Validator};

const CANDIDATE_COUNT: u8 = 1;
const CANDIDATES: u8 = 2;
const RECORD: u8 = 3;
const KEY_OWNER: u8 = 4;
const NEWEST_SET: u8 = 5;
const SET_OF_EPOCH: u8 = 6;
const SET_LENGTH: u8 = 7;
const SET_MEMBER: u8 = 8;

const HEAD: u16 = 0;
const STAKE: u16 = 1;
const WEIGHT: u16 = 2;
const KEY_HIGH: u16 = 3;
const KEY_LOW: u16 = 4;
const UNBONDING: u16 = 16;

/// Unbonding amounts of one validator that are kept apart; more join the last one.
pub(crate) const UNBONDING_MAX: u8 = 16;

fn slot(kind: u8, body: U256, field: u16) -> U256 {
    (U256::from(kind) << 248) | (body << 16) | U256::from(field)
}

fn numbered(kind: u8, number: u64, field: u16) -> U256 {
    slot(kind, U256::from(number), field)
}

fn of_account(account: Address, field: u16) -> U256 {
    slot(RECORD, U256::from_be_slice(account.as_slice()), field)
}

fn of_key(key: &PublicKey) -> U256 {
    // 248 bits of a hash are as hard to collide as is needed.
    (U256::from(KEY_OWNER) << 248) | (U256::from_be_bytes(keccak256(key.0).0) >> 8)
}

/// Two 128-bit numbers in a word.
fn pair(low: u128, high: u128) -> U256 {
    U256::from(low) | (U256::from(high) << 128)
}

fn unpair(word: U256) -> (u128, u128) {
    ((word & U256::from(u128::MAX)).to(), (word >> 128usize).to())
}

fn u64_at(word: U256, shift: usize) -> u64 {
    ((word >> shift) & U256::from(u64::MAX)).to()
}

fn address_word(account: Address) -> U256 {
    U256::from_be_slice(account.as_slice())
}

fn word_address(word: U256) -> Address {
    Address::from_word(word.into())
}

/// Where a validator stands. What of it is in the newest set is its weight's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Never registered.
    #[default]
    None = 0,
    /// Registered.
    Registered = 1,
    /// Wants out.
    Exiting = 2,
    /// Out.
    Exited = 3,
    /// Convicted.
    Tombstoned = 4,
}

impl Status {
    fn from_word(word: U256) -> Self {
        match word.byte(0) {
            1 => Self::Registered,
            2 => Self::Exiting,
            3 => Self::Exited,
            4 => Self::Tombstoned,
            _ => Self::None,
        }
    }
}

/// First word of a validator's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: Status,
    /// Unbonding amounts in use.
    pub(crate) unbonding: u8,
    /// Place in the list of candidates plus one; 0 outside it.
    pub(crate) place: u32,
    /// Since when its weight differs from what it should be, as an epoch plus one; 0 when it does not.
    pub(crate) since: u64,
}

/// Stake words of a validator's record, in wei.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bond {
    /// What its weight is drawn towards.
    pub(crate) stake: u128,
    /// Taken back while the weight is still there.
    pub(crate) leaving: u128,
}

/// The third word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    /// Weight in the newest set.
    pub(crate) weight: u128,
    /// Burned so far.
    pub(crate) slashed: u128,
}

/// An amount on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unbonding {
    pub(crate) amount: u128,
    /// First epoch in which it may be withdrawn.
    pub(crate) release: u64,
}

/// Records of validators.
impl<W: Words> Registry<'_, W> {
    pub(crate) fn head(&mut self, account: Address) -> Result<Head, W::Error> {
        let word = self.words.load(of_account(account, HEAD))?;
        Ok(Head {
            status: Status::from_word(word),
            unbonding: word.byte(1),
            place: u64_at(word, 16) as u32,
            since: u64_at(word, 48),
        })
    }

    pub(crate) fn set_head(&mut self, account: Address, head: Head) -> Result<(), W::Error> {
        let word = U256::from(head.status as u8)
            | (U256::from(head.unbonding) << 8)
            | (U256::from(head.place) << 16)
            | (U256::from(head.since) << 48);
        self.words.store(of_account(account, HEAD), word)
    }

    pub(crate) fn bond(&mut self, account: Address) -> Result<Bond, W::Error> {
        let (stake, leaving) = unpair(self.words.load(of_account(account, STAKE))?);
        Ok(Bond { stake, leaving })
    }

    pub(crate) fn set_bond(&mut self, account: Address, bond: Bond) -> Result<(), W::Error> {
        self.words.store(of_account(account, STAKE), pair(bond.stake, bond.leaving))
    }

    pub(crate) fn weight(&mut self, account: Address) -> Result<Weight, W::Error> {
        let (weight, slashed) = unpair(self.words.load(of_account(account, WEIGHT))?);
        Ok(Weight { weight, slashed })
    }

    pub(crate) fn set_weight(&mut self, account: Address, weight: Weight) -> Result<(), W::Error> {
        self.words.store(of_account(account, WEIGHT), pair(weight.weight, weight.slashed))
    }

    pub(crate) fn key(&mut self, account: Address) -> Result<PublicKey, W::Error> {
        let high = self.words.load(of_account(account, KEY_HIGH))?;
        let low = self.words.load(of_account(account, KEY_LOW))?;
        Ok(key_of_words(high, low.to_be_bytes::<32>()[16..].try_into().unwrap_or_default()))
    }

    pub(crate) fn set_key(&mut self, account: Address, key: &PublicKey) -> Result<(), W::Error> {
        self.words.store(of_account(account, KEY_HIGH), U256::from_be_slice(&key.0[..32]))?;
        self.words.store(of_account(account, KEY_LOW), U256::from_be_slice(&key.0[32..]))?;
        self.words.store(of_key(key), address_word(account))
    }

    /// Who ever used a key; zero for nobody.
    pub(crate) fn key_owner(&mut self, key: &PublicKey) -> Result<Address, W::Error> {
        Ok(word_address(self.words.load(of_key(key))?))
    }

    pub(crate) fn unbonding(&mut self, account: Address, index: u8) -> Result<Unbonding, W::Error> {
        let word = self.words.load(of_account(account, UNBONDING + u16::from(index)))?;
        let (amount, release) = unpair(word);
        Ok(Unbonding { amount, release: release as u64 })
    }

    pub(crate) fn set_unbonding(
        &mut self,
        account: Address,
        index: u8,
        entry: Unbonding,
    ) -> Result<(), W::Error> {
        let word = pair(entry.amount, entry.release.into());
        self.words.store(of_account(account, UNBONDING + u16::from(index)), word)
    }
}

/// The list of candidates: everybody who is in the newest set or may get into the next.
impl<W: Words> Registry<'_, W> {
    pub(crate) fn candidate_count(&mut self) -> Result<u32, W::Error> {
        Ok(u64_at(self.words.load(numbered(CANDIDATE_COUNT, 0, 0))?, 0) as u32)
    }

    pub(crate) fn candidate(&mut self, place: u32) -> Result<Address, W::Error> {
        Ok(word_address(self.words.load(numbered(CANDIDATES, place.into(), 0))?))
    }

    /// Appends to the list and returns the place plus one.
    pub(crate) fn push_candidate(&mut self, account: Address) -> Result<u32, W::Error> {
        let count = self.candidate_count()?;
        self.words.store(numbered(CANDIDATES, count.into(), 0), address_word(account))?;
        self.words.store(numbered(CANDIDATE_COUNT, 0, 0), U256::from(count + 1))?;
        Ok(count + 1)
    }

    /// Takes a validator off the list; the last one takes its place.
    pub(crate) fn remove_candidate(&mut self, head: &mut Head) -> Result<(), W::Error> {
        let Some(place) = head.place.checked_sub(1) else { return Ok(()) };
        let Some(last) = self.candidate_count()?.checked_sub(1) else { return Ok(()) };
        if place != last {
            let moved = self.candidate(last)?;
            self.words.store(numbered(CANDIDATES, place.into(), 0), address_word(moved))?;
            let moved_head = self.head(moved)?;
            self.set_head(moved, Head { place: place + 1, ..moved_head })?;
        }
        self.words.store(numbered(CANDIDATES, last.into(), 0), U256::ZERO)?;
        self.words.store(numbered(CANDIDATE_COUNT, 0, 0), U256::from(last))?;
        head.place = 0;
        Ok(())
    }
}

/// Computed sets. Epochs name versions, and equal sets share one, so that a set that never changes is stored once.
impl<W: Words> Registry<'_, W> {
    /// The newest epoch with a set, and its set's version.
    pub(crate) fn newest_set(&mut self) -> Result<(Epoch, u64), W::Error> {
        let word = self.words.load(numbered(NEWEST_SET, 0, 0))?;
        Ok((Epoch::new(u64_at(word, 0)), u64_at(word, 64)))
    }

    /// The set of an epoch in canonical order, unless it is not computed yet or not kept any more.
    pub(crate) fn set_of(&mut self, epoch: Epoch) -> Result<Option<Vec<Validator>>, W::Error> {
        let Some(version) = self.version_of(epoch)? else { return Ok(None) };
        let length = self.set_length(version)?;
        (0..length).map(|index| self.member(version, index)).collect::<Result<_, _>>().map(Some)
    }

    fn version_of(&mut self, epoch: Epoch) -> Result<Option<u64>, W::Error> {
        let ring = self.rules.sets_kept();
        let word = self.words.load(numbered(SET_OF_EPOCH, epoch.get() % ring, 0))?;
        let version = u64_at(word, 64);
        // An entry never written reads as epoch 0 of version 0, which is true of entry 0 and harmless elsewhere.
        Ok((u64_at(word, 0) == epoch.get()).then_some(version))
    }

    fn set_length(&mut self, version: u64) -> Result<u32, W::Error> {
        let ring = self.rules.sets_kept();
        Ok(u64_at(self.words.load(numbered(SET_LENGTH, version % ring, 0))?, 0) as u32)
    }

    fn member_slots(&self, version: u64, index: u32) -> [U256; 3] {
        let body = ((version % self.rules.sets_kept()) << 32) | u64::from(index);
        [0, 1, 2].map(|field| numbered(SET_MEMBER, body, field))
    }

    fn member(&mut self, version: u64, index: u32) -> Result<Validator, W::Error> {
        let [owner, weight, key] = self.member_slots(version, index);
        let address = word_address(self.words.load(owner)?);
        let (weight, key_low) = unpair(self.words.load(weight)?);
        let public_key = key_of_words(self.words.load(key)?, key_low.to_be_bytes());
        Ok(Validator { address, public_key, stake: Stake::new(weight) })
    }

    /// Keeps the set of `epoch`, which follows the newest one.
    pub(crate) fn keep_set(&mut self, epoch: Epoch, set: &[Validator]) -> Result<(), W::Error> {
        let (newest, mut version) = self.newest_set()?;
        if self.set_of(newest)?.as_deref() != Some(set) {
            version += u64::from(newest < epoch);
            self.write_set(version, set)?;
        }
        let word = U256::from(epoch.get()) | (U256::from(version) << 64);
        self.words.store(numbered(SET_OF_EPOCH, epoch.get() % self.rules.sets_kept(), 0), word)?;
        self.words.store(numbered(NEWEST_SET, 0, 0), word)
    }

    fn write_set(&mut self, version: u64, set: &[Validator]) -> Result<(), W::Error> {
        let before = self.set_length(version)?;
        let length = set.len() as u32;
        let ring = self.rules.sets_kept();
        for (index, validator) in (0..).zip(set) {
            let [owner, weight, key] = self.member_slots(version, index);
            let (high, low) = words_of_key(&validator.public_key);
            self.words.store(owner, address_word(validator.address))?;
            self.words.store(weight, pair(validator.stake.get(), u128::from_be_bytes(low)))?;
            self.words.store(key, high)?;
        }
        for index in length..before {
            for unused in self.member_slots(version, index) {
                self.words.store(unused, U256::ZERO)?;
            }
        }
        self.words.store(numbered(SET_LENGTH, version % ring, 0), U256::from(length))
    }
}

fn words_of_key(key: &PublicKey) -> (U256, [u8; 16]) {
    let mut low = [0; 16];
    low.copy_from_slice(&key.0[32..]);
    (U256::from_be_slice(&key.0[..32]), low)
}

fn key_of_words(high: U256, low: [u8; 16]) -> PublicKey {
    let mut key = [0; 48];
    key[..32].copy_from_slice(&high.to_be_bytes::<32>());
    key[32..].copy_from_slice(&low);
    PublicKey(key)
}
