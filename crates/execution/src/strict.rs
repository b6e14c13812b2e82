//! STRICT mode: a transaction whose access list is the whole truth about what it touches (specs/strict.md).
//!
//! It opts in by an entry for [`STRICT_MARKER`] in its EIP-2930 access list, which every wallet can write. The
//! entry's storage keys are words that say more: which listed addresses are only read, and until when the
//! transaction is valid.

use crate::InvalidTx;
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, U256, address, map::AddressMap, map::HashSet};

/// The address whose entry in an access list makes the transaction strict.
pub const STRICT_MARKER: Address = address!("0x0000000000000000000000000000000000001001");

/// First byte of a word that makes a listed address read-only.
const READ_ONLY: u8 = 0x01;
/// First byte of a word that says until which height the transaction is valid.
const VALID_UNTIL: u8 = 0x02;

/// What a strict transaction declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrictList {
    /// Listed addresses, and whether they are read-only.
    addresses: AddressMap<bool>,
    slots: HashSet<(Address, U256)>,
    valid_until: Option<u64>,
}

/// A marker entry that says nothing sensible. Such a transaction is refused everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrictError {
    /// The marker has more than one entry.
    #[error("the access list names the strict marker {STRICT_MARKER} {count} times, it may do so once")]
    MarkerRepeated {
        /// How often.
        count: usize,
    },
    /// A storage key of the marker is no word.
    #[error(
        "strict marker: {word} is no word; known are 0x01, zeros and an address (read-only), and 0x02, zeros and \
         8 bytes of height (valid until)"
    )]
    UnknownWord {
        /// The key.
        word: B256,
    },
    /// A word occurs twice.
    #[error("strict marker: {word} occurs twice")]
    RepeatedWord {
        /// The word.
        word: B256,
    },
    /// Two expiries.
    #[error("strict marker: valid until height {first} and until height {second}, one of them is too many")]
    TwoExpiries {
        /// The first one.
        first: u64,
        /// The second one.
        second: u64,
    },
    /// A read-only address that has no entry of its own.
    #[error("strict marker: {address} is to be read-only, but the access list has no entry for it")]
    ReadOnlyNotListed {
        /// Which address.
        address: Address,
    },
}

/// Why a strict transaction was aborted while it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StrictAbort {
    /// What it did.
    pub fault: StrictFault,
    /// To which account.
    pub address: Address,
    /// To which of its slots; `None` is the account itself.
    pub slot: Option<U256>,
}

/// What a strict transaction must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StrictFault {
    /// Touch what its list does not name.
    Undeclared = 1,
    /// Change what its list says is only read.
    ReadOnly = 2,
}

impl StrictFault {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Undeclared, Self::ReadOnly];
}

impl std::fmt::Display for StrictAbort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.fault {
            StrictFault::Undeclared => "access to undeclared",
            StrictFault::ReadOnly => "write to read-only",
        };
        match self.slot {
            None => write!(f, "strict access list: {what} account {}", self.address),
            Some(slot) => write!(f, "strict access list: {what} slot {slot:#066x} of {}", self.address),
        }
    }
}

impl StrictList {
    /// Reads an access list; `None` when it has no marker, and the transaction is an ordinary one.
    pub fn parse(list: &AccessList) -> Result<Option<Self>, StrictError> {
        let mut markers = list.0.iter().filter(|item| item.address == STRICT_MARKER);
        let Some(marker) = markers.next() else { return Ok(None) };
        match markers.count() {
            0 => Self::read(list, marker).map(Some),
            more => Err(StrictError::MarkerRepeated { count: more + 1 }),
        }
    }

    fn read(list: &AccessList, marker: &AccessListItem) -> Result<Self, StrictError> {
        let mut strict = Self::default();
        for item in list.0.iter().filter(|item| item.address != STRICT_MARKER) {
            strict.addresses.insert(item.address, false);
            strict
                .slots
                .extend(item.storage_keys.iter().map(|key| (item.address, U256::from_be_bytes(key.0))));
        }
        for word in &marker.storage_keys {
            strict.take(*word)?;
        }
        Ok(strict)
    }

    fn take(&mut self, word: B256) -> Result<(), StrictError> {
        match Word::read(word)? {
            Word::ReadOnly(address) => match self.addresses.get_mut(&address) {
                None => Err(StrictError::ReadOnlyNotListed { address }),
                Some(true) => Err(StrictError::RepeatedWord { word }),
                Some(read_only) => {
                    *read_only = true;
                    Ok(())
                }
            },
            Word::ValidUntil(second) => match self.valid_until.replace(second) {
                Some(first) if first == second => Err(StrictError::RepeatedWord { word }),
                Some(first) => Err(StrictError::TwoExpiries { first, second }),
                None => Ok(()),
            },
        }
    }

    /// The last height that an access list names, without reading more of it. Of a list that [`Self::parse`] refuses
    /// it says nothing of use.
    pub fn last_height(list: &AccessList) -> Option<u64> {
        let marker = list.0.iter().find(|item| item.address == STRICT_MARKER)?;
        marker.storage_keys.iter().find_map(|word| match Word::read(*word) {
            Ok(Word::ValidUntil(height)) => Some(height),
            _ => None,
        })
    }

    /// Highest height of a block that may hold the transaction.
    pub fn valid_until(&self) -> Option<u64> {
        self.valid_until
    }

    /// Fails when a block at `height` is too late for the transaction.
    pub fn check_height(&self, height: u64) -> Result<(), InvalidTx> {
        match self.valid_until {
            Some(valid_until) if valid_until < height => Err(InvalidTx::Expired { valid_until, height }),
            _ => Ok(()),
        }
    }

    /// Whether the list names the account.
    pub fn lists_account(&self, address: &Address) -> bool {
        self.addresses.contains_key(address)
    }

    /// Whether the list names the slot.
    pub fn lists_slot(&self, address: &Address, slot: &U256) -> bool {
        self.slots.contains(&(*address, *slot))
    }

    /// Whether the account and its slots are only read.
    pub fn is_read_only(&self, address: &Address) -> bool {
        self.addresses.get(address) == Some(&true)
    }
}

/// A storage key of the marker's entry.
enum Word {
    ReadOnly(Address),
    ValidUntil(u64),
}

impl Word {
    fn read(word: B256) -> Result<Self, StrictError> {
        let unknown = StrictError::UnknownWord { word };
        let (kind, rest) = (word[0], &word[1..]);
        let value_bytes = match kind {
            READ_ONLY => 20,
            VALID_UNTIL => 8,
            _ => return Err(unknown),
        };
        let (zeros, value) = rest.split_at(rest.len() - value_bytes);
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(unknown);
        }
        Ok(match kind {
            READ_ONLY => Self::ReadOnly(Address::from_slice(value)),
            _ => Self::ValidUntil(U256::from_be_slice(value).saturating_to()),
        })
    }
}

/// The word that makes a listed address read-only.
pub fn read_only_word(address: Address) -> B256 {
    let mut word = address.into_word();
    word[0] = READ_ONLY;
    word
}

/// The word that says up to which height a transaction is valid.
pub fn valid_until_word(height: u64) -> B256 {
    let mut word = B256::ZERO;
    word[0] = VALID_UNTIL;
    word[24..].copy_from_slice(&height.to_be_bytes());
    word
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LISTED: Address = Address::repeat_byte(0x11);
    const OTHER: Address = Address::repeat_byte(0x22);

    fn list(words: &[B256]) -> AccessList {
        AccessList(vec![
            AccessListItem { address: LISTED, storage_keys: vec![B256::with_last_byte(7)] },
            AccessListItem { address: STRICT_MARKER, storage_keys: words.to_vec() },
        ])
    }

    fn refused(words: &[B256]) -> StrictError {
        StrictList::parse(&list(words)).unwrap_err()
    }

    #[test]
    fn a_list_without_the_marker_is_an_ordinary_one() {
        let ordinary = AccessList(list(&[]).0[..1].to_vec());
        assert_eq!(StrictList::parse(&ordinary), Ok(None));
        assert_eq!(StrictList::parse(&AccessList::default()), Ok(None));
    }

    #[test]
    fn the_marker_makes_the_list_the_whole_truth_and_its_words_narrow_it() {
        let bare = StrictList::parse(&list(&[])).unwrap().unwrap();
        assert!(bare.lists_account(&LISTED) && !bare.is_read_only(&LISTED));
        assert!(bare.lists_slot(&LISTED, &U256::from(7)) && !bare.lists_slot(&LISTED, &U256::from(8)));
        assert!(!bare.lists_account(&OTHER) && !bare.lists_account(&STRICT_MARKER));
        assert_eq!(bare.check_height(u64::MAX), Ok(()));
        let words = [read_only_word(LISTED), valid_until_word(90)];
        let narrowed = StrictList::parse(&list(&words)).unwrap().unwrap();
        assert!(narrowed.is_read_only(&LISTED) && !narrowed.is_read_only(&OTHER));
        assert_eq!(narrowed.check_height(90), Ok(()));
        assert_eq!(StrictList::last_height(&list(&words)), narrowed.valid_until());
        assert_eq!(StrictList::last_height(&list(&words[..1])), None);
        let late = narrowed.check_height(91).unwrap_err();
        assert_eq!(late, InvalidTx::Expired { valid_until: 90, height: 91 });
        assert!(!late.may_become_valid());
        let last = StrictList::parse(&list(&[valid_until_word(u64::MAX)])).unwrap().unwrap();
        assert_eq!(last.valid_until(), Some(u64::MAX));
    }

    #[test]
    fn words_that_say_nothing_sensible_are_refused() {
        let mut dirty_address = read_only_word(LISTED);
        dirty_address[11] = 1;
        let mut dirty_height = valid_until_word(5);
        dirty_height[23] = 1;
        for word in
            [B256::ZERO, B256::with_last_byte(1), B256::repeat_byte(0x03), dirty_address, dirty_height]
        {
            assert_eq!(refused(&[word]), StrictError::UnknownWord { word });
        }
        let twice = read_only_word(LISTED);
        assert_eq!(refused(&[twice, twice]), StrictError::RepeatedWord { word: twice });
        let until = valid_until_word(5);
        assert_eq!(refused(&[until, until]), StrictError::RepeatedWord { word: until });
        let two = [until, valid_until_word(6)];
        assert_eq!(refused(&two), StrictError::TwoExpiries { first: 5, second: 6 });
        for address in [OTHER, STRICT_MARKER] {
            assert_eq!(refused(&[read_only_word(address)]), StrictError::ReadOnlyNotListed { address });
        }
        let mut repeated = list(&[]);
        repeated.0.push(repeated.0[1].clone());
        assert_eq!(StrictList::parse(&repeated), Err(StrictError::MarkerRepeated { count: 2 }));
    }

    #[test]
    fn ordinary_entries_may_repeat_as_in_any_access_list() {
        let mut twice = list(&[read_only_word(LISTED)]);
        twice.0.push(AccessListItem { address: LISTED, storage_keys: vec![B256::with_last_byte(8)] });
        let strict = StrictList::parse(&twice).unwrap().unwrap();
        assert!(strict.is_read_only(&LISTED));
        assert!([7, 8].iter().all(|slot| strict.lists_slot(&LISTED, &U256::from(*slot))));
    }
}
