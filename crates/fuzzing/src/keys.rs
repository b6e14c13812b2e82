//! Files that hold a validator's key or what it has signed: keystores, slashing-protection files.

use crate::files::SMALL;
use crate::reader::Reader;
use consensus::{Floor, Restraint};
use consensus_node::{parse_protection, print_protection};
use crypto::{PublicKey, SecretKey};
use journal::Journal;
use keystore::{
    Details, FILE_BYTES_MAX, Kdf, Keystore, KeystoreError, PBKDF2_ROUNDS_MAX, Password, SCRYPT_MEMORY_MAX,
    SCRYPT_WORK_MAX,
};
use std::collections::BTreeMap;
use types::{B256, Epoch, View};

// Keystores.

/// What a run may spend on a key: n*r*p of scrypt, rounds of PBKDF2.
const WORK_MAX: u64 = 256;

/// The password that is tried on every file.
const PASSWORD: &str = "password";

/// A keystore (EIP-2335); the first byte says whether the rest is the file, the parameters of its key derivation, or a
/// secret with its password. What is accepted asks for no more than the limits, reads back as itself, and can be tried
/// with a password; what is encrypted opens with its password and with no other.
pub fn keystore(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => keystore_file(body),
        1 => kdf_parameters(&mut Reader::new(body)),
        _ => encrypted(&mut Reader::new(body)),
    }
}

fn keystore_file(bytes: &[u8]) {
    let Ok(keystore) = Keystore::parse(bytes) else { return };
    assert!(Keystore::looks_like_one(bytes));
    assert!(is_within_limits(keystore.kdf()), "{}", keystore.kdf());
    // Written with line breaks and indents, it has more bytes than it may have come with.
    if bytes.len() < FILE_BYTES_MAX / 2 {
        assert_eq!(Keystore::parse(keystore.to_json().as_bytes()).as_ref(), Ok(&keystore));
    }
    if is_cheap(keystore.kdf()) {
        match keystore.decrypt(&Password::new(PASSWORD).unwrap()) {
            Ok(secret) => assert!(!secret.is_empty()),
            Err(error) => assert_eq!(error, KeystoreError::WrongPassword),
        }
    }
}

/// Any numbers in an otherwise good file: it is refused exactly when they are beyond the limits.
fn kdf_parameters(reader: &mut Reader<'_>) {
    let salt = vec![7; 8];
    let kdf = match reader.byte() % 2 {
        0 => Kdf::Scrypt { n: any_number(reader), r: any_number(reader), p: any_number(reader), salt },
        _ => Kdf::Pbkdf2 { c: any_number(reader), salt },
    };
    let file = file_with(&kdf);
    match Keystore::parse(file.as_bytes()) {
        Ok(keystore) => {
            assert!(is_within_limits(&kdf), "{kdf} is accepted");
            assert_eq!(keystore.kdf(), &kdf);
        }
        Err(error) => assert!(!is_within_limits(&kdf), "{kdf} is refused: {error}"),
    }
}

/// Powers of two, their neighbours, and small numbers: where limits are.
fn any_number(reader: &mut Reader<'_>) -> u64 {
    let (power, beside) = (1_u64 << reader.below(64), u64::from(reader.byte()));
    match reader.byte() % 4 {
        0 => power,
        1 => power.saturating_add(beside),
        2 => power.saturating_sub(beside),
        _ => beside,
    }
}

/// The limits in the words of their documentation, computed so that nothing overflows.
fn is_within_limits(kdf: &Kdf) -> bool {
    match *kdf {
        Kdf::Pbkdf2 { c, .. } => (1..=PBKDF2_ROUNDS_MAX).contains(&c),
        Kdf::Scrypt { n, r, p, .. } => {
            let [wide_n, wide_r, wide_p] = [n, r, p].map(u128::from);
            let product =
                |factors: [u128; 3]| factors.into_iter().try_fold(1_u128, |all, one| all.checked_mul(one));
            let is_at_most =
                |value: Option<u128>, limit: u64| value.is_some_and(|value| value <= limit.into());
            n >= 2
                && n.is_power_of_two()
                && r >= 1
                && p >= 1
                && u128::from(n.ilog2()) < 16 * wide_r
                && is_at_most(product([128, wide_r, wide_n + wide_p + 1]), SCRYPT_MEMORY_MAX)
                && is_at_most(product([wide_n, wide_r, wide_p]), SCRYPT_WORK_MAX)
        }
    }
}

fn is_cheap(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Scrypt { n, r, p, .. } => n.saturating_mul(*r).saturating_mul(*p) <= WORK_MAX,
        Kdf::Pbkdf2 { c, .. } => *c <= WORK_MAX,
    }
}

fn encrypted(reader: &mut Reader<'_>) {
    let salt = vec![reader.byte(); reader.below(40)];
    let kdf = match reader.byte() % 2 {
        0 => {
            let (n, r, p) = (2 << reader.below(4), 1 + reader.below(2) as u64, 1 + reader.below(2) as u64);
            Kdf::Scrypt { n, r, p, salt }
        }
        _ => Kdf::Pbkdf2 { c: 1 + reader.below(16) as u64, salt },
    };
    let secret = vec![reader.byte(); reader.below(48)];
    let text = String::from_utf8_lossy(reader.take(512)).into_owned();
    let Ok(password) = Password::new(&text) else { return };
    let details =
        Details { description: Some(text.clone()), public_key: Some(text.clone()), path: text.clone() };
    let made = match Keystore::encrypt(&secret, &password, kdf, details.clone()) {
        Ok(made) => made,
        Err(error) => return assert!(secret.is_empty(), "{error}"),
    };
    let read = Keystore::parse(made.to_json().as_bytes()).unwrap();
    assert_eq!((&read, read.details()), (&made, &details));
    assert_eq!(*read.decrypt(&password).unwrap(), secret);
    // A letter more is another password: no normalisation takes it away.
    let other = Password::new(&(text + "x")).unwrap();
    assert_eq!(read.decrypt(&other).unwrap_err(), KeystoreError::WrongPassword);
}

/// A file that is good but for these parameters. No password opens it.
fn file_with(kdf: &Kdf) -> String {
    let (function, parameters, salt) = match kdf {
        Kdf::Scrypt { n, r, p, salt } => ("scrypt", format!(r#""n":{n},"r":{r},"p":{p}"#), salt),
        Kdf::Pbkdf2 { c, salt } => ("pbkdf2", format!(r#""c":{c},"prf":"hmac-sha256""#), salt),
    };
    let salt = alloy_primitives::hex::encode(salt);
    let (checksum, iv, message) = ("5a".repeat(32), "00".repeat(16), "11".repeat(32));
    format!(
        r#"{{"crypto":{{"kdf":{{"function":"{function}","params":{{"dklen":32,{parameters},"salt":"{salt}"}},"message":""}},"checksum":{{"function":"sha256","params":{{}},"message":"{checksum}"}},"cipher":{{"function":"aes-128-ctr","params":{{"iv":"{iv}"}},"message":"{message}"}}}},"path":"","uuid":"1d85ae20-35c5-4611-98e8-aa14a633906f","version":4}}"#
    )
}

// Slashing protection.

const CHAIN_ID: u64 = 7;
const GENESIS: B256 = crate::lab::GENESIS;

/// A slashing-protection file, imported over what a node may know before; the first byte says what that is, its highest
/// bit whether a journal on disk takes part. An import never lowers a floor, holds everything the file says, and
/// nothing changes when what it led to is exported and imported again.
pub fn protection(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(body) else { return };
    let Ok(file) = parse_protection(text, CHAIN_ID, GENESIS) else { return };
    assert!(file.is_sorted_by(|one, two| one.0 < two.0), "each key once");
    let before = known_before(*kind, &file);
    let mut after = before.clone();
    after.tighten(&floors(&file));
    for (key, floor) in before.floors.iter().chain(&file) {
        assert!(restrains(&after.floor_of(key), floor), "{floor:?} fell to {:?}", after.floor_of(key));
    }
    let exported = print_protection(&after.floors, CHAIN_ID, GENESIS);
    let again = parse_protection(&exported, CHAIN_ID, GENESIS).unwrap();
    assert_eq!(by_key(&again), by_key(&after.floors), "what was exported is not what is known");
    let mut twice = after.clone();
    twice.tighten(&floors(&again));
    assert_eq!(twice, after, "the second import changed something");
    if kind & 0x80 != 0 {
        on_disk(&before, &file, &again);
    }
}

/// The same through a journal that is closed and opened in between.
fn on_disk(before: &Restraint, file: &[(PublicKey, Floor)], exported: &[(PublicKey, Floor)]) {
    let dir = tempfile::TempDir::new().unwrap();
    for floors in [&before.floors, file, exported] {
        let (mut journal, _) = Journal::open_with(dir.path(), GENESIS, SMALL).unwrap();
        journal.raise_floors(floors).unwrap();
    }
    let (journal, recovered) = Journal::open_with(dir.path(), GENESIS, SMALL).unwrap();
    assert_eq!(journal.restraint(), recovered.restraint);
    assert_eq!(by_key(&recovered.restraint.floors), by_key(exported));
}

/// Floors of some of the file's keys, below, above and beside the file's own, and of a key it does not name.
fn known_before(kind: u8, file: &[(PublicKey, Floor)]) -> Restraint {
    let step = u64::from(kind & 7);
    let changed = file.iter().take(usize::from(kind >> 3 & 7)).enumerate().map(|(at, (key, floor))| {
        let other = match (at + usize::from(kind)) % 4 {
            0 => Floor { epoch: Epoch::new(floor.epoch.get().saturating_sub(step)), ..*floor },
            1 => Floor { epoch: Epoch::new(floor.epoch.get().saturating_add(step)), ..Floor::default() },
            2 => Floor { target: View::new(floor.target.get().saturating_add(step)), ..*floor },
            _ => Floor { source: View::ZERO, commit: View::new(step), ..*floor },
        };
        (*key, other)
    });
    let stranger = (SecretKey::simulated(1_000_000).public_key(), Floor::default());
    let floors = changed.chain([stranger]).filter(|_| kind & 0x40 == 0).collect();
    Restraint { floors, alarm: (step == 5).then(|| "looked at by nobody".into()), copied: None }
}

/// Whether whatever `lower` keeps from being signed, `upper` does as well.
fn restrains(upper: &Floor, lower: &Floor) -> bool {
    let views =
        |floor: &Floor| [floor.source, floor.target, floor.commit, floor.timeout, floor.proposal, floor.lock];
    let covered = || views(upper).iter().zip(views(lower)).all(|(upper, lower)| *upper >= lower);
    upper.epoch > lower.epoch || (upper.epoch == lower.epoch && covered())
}

fn floors(floors: &[(PublicKey, Floor)]) -> Restraint {
    Restraint { floors: floors.to_vec(), ..Restraint::default() }
}

fn by_key(floors: &[(PublicKey, Floor)]) -> BTreeMap<PublicKey, Floor> {
    let map: BTreeMap<_, _> = floors.iter().copied().collect();
    assert_eq!(map.len(), floors.len(), "a key stands there twice");
    map
}

// Where to start.

/// The standard's own scrypt parameters: read, never derived here.
const SCRYPT_OF_THE_STANDARD: Kdf = Kdf::Scrypt { n: 262_144, r: 8, p: 1, salt: Vec::new() };

/// Well-formed inputs to start from.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let tagged = |tag: u8, body: &[u8]| [&[tag], body].concat();
    let tiny =
        [Kdf::Scrypt { n: 16, r: 1, p: 1, salt: vec![1; 32] }, Kdf::Pbkdf2 { c: 2, salt: vec![2; 32] }];
    let mut all = vec![
        ("keystore", tagged(0, file_with(&SCRYPT_OF_THE_STANDARD).as_bytes())),
        ("keystore", tagged(0, OPENS.as_bytes())),
        ("keystore", tagged(1, &[0, 18, 0, 0, 3, 0, 0, 0, 0, 0])),
        ("keystore", tagged(1, &[1, 23, 0, 0])),
        ("keystore", tagged(2, &[1, 32, 0, 2, 1, 1, 5, 32, b'p', b'w', 0xc3, 0xa4])),
        ("keystore", tagged(2, &[1, 32, 1, 3, 5, 32, b'p', b'w'])),
    ];
    all.extend(tiny.iter().map(|kdf| ("keystore", tagged(0, file_with(kdf).as_bytes()))));
    let key = |number| SecretKey::simulated(number).public_key();
    let views = [1, 2, 3, 4, 5].map(View::new);
    let [source, commit, timeout, proposal, target] = views;
    let low = Floor { epoch: Epoch::new(3), source, target, commit, timeout, proposal, lock: source };
    let high = Floor { epoch: Epoch::new(u64::MAX), target: View::new(u64::MAX), ..Floor::default() };
    let files = [vec![], vec![(key(1), low)], vec![(key(2), high), (key(1), low), (key(2), low)]];
    for (at, file) in files.iter().enumerate() {
        let text = print_protection(file, CHAIN_ID, GENESIS);
        let kinds = [0x00, 0x1b, 0x9a].map(|kind: u8| kind + at as u8);
        all.extend(kinds.map(|kind| ("protection", tagged(kind, text.as_bytes()))));
    }
    all
}

/// Five zero bytes under [`PASSWORD`], computed with another implementation of the functions it names.
const OPENS: &str = r#"{"crypto":{"kdf":{"function":"pbkdf2","params":{"dklen":32,"c":2,"prf":"hmac-sha256","salt":"07070707070707070707070707070707"},"message":""},"checksum":{"function":"sha256","params":{},"message":"c579daed1b75ccef402c86ab31197e652ada0770dbb88fdf23f94b4dc9273ed3"},"cipher":{"function":"aes-128-ctr","params":{"iv":"00000000000000000000000000000000"},"message":"53fb01152f"}},"description":"","pubkey":"00","path":"m","uuid":"","version":4}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_that_opens_does_open() {
        let keystore = Keystore::parse(OPENS.as_bytes()).unwrap();
        assert_eq!(*keystore.decrypt(&Password::new(PASSWORD).unwrap()).unwrap(), [0; 5]);
    }
}
