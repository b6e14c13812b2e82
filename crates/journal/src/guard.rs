//! The restraint file: what restrains signing beside the sign-state (C-7.6 to C-7.8), and where the journal belongs.
//!
//! It is small and changes rarely, so it is replaced as a whole. A journal without it, or with a damaged one, refuses
//! to open: what it restrained is not known any more.

use crate::JournalError;
use crate::file::{LogFile, PAGE, replace};
use crate::record::ChecksumKey;
use borsh::{BorshDeserialize, BorshSerialize};
use consensus::restraint::FLOORS_MAX;
use consensus::{Copied, Floor, Restraint};
use crypto::PublicKey;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: [u8; 8] = *b"TNDMGARD";
const VERSION: u32 = 1;
/// Magic, version, length of the content, checksum.
const HEAD_BYTES: usize = 8 + 4 + 4 + 16;
/// Far above what [`FLOORS_MAX`] floors and an alarm need.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files of the journal that are made once and never replaced: what they are on disk is where the journal is.
const LANDMARKS: [&str; 3] = ["IDENTITY", "sign-a.log", "sign-b.log"];
/// No log is checksummed with this number.
const CHECKSUM_LOG: u8 = 0xff;

/// What a file is on its file system, as far as copying changes it and moving, chmod, chown and a reboot do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Landmark {
    inode: u64,
    /// Nanoseconds since 1970 at which the inode was made, where the file system keeps that.
    born_ns: Option<u128>,
    /// The device, only where no birth time tells two file systems apart: its number may change with a reboot.
    device: Option<u64>,
}

impl Landmark {
    fn of(path: &Path) -> Result<Self, JournalError> {
        let metadata = std::fs::metadata(path).map_err(JournalError::io("look at", path))?;
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.map(|born| born.as_nanos());
        let device = born_ns.is_none().then(|| metadata.dev());
        Ok(Self { inode: metadata.ino(), born_ns, device })
    }
}

type Place = [Landmark; LANDMARKS.len()];

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Content {
    /// Where the journal was made, or was accepted by its operator.
    place: Place,
    /// Another place where it was found, and when first, in milliseconds since 1970.
    found: Option<(Place, u64)>,
    alarm: Option<String>,
    floors: Vec<(PublicKey, Floor)>,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct GuardFile {
    path: PathBuf,
    key: ChecksumKey,
    content: Content,
    /// Where the journal is now.
    here: Place,
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("RESTRAINT")
}

fn checksum_key(salt: &[u8; 32]) -> ChecksumKey {
    ChecksumKey::new(salt, CHECKSUM_LOG, 0)
}

/// Makes the file of a new journal whose landmarks are still drafts, given in the order of [`LANDMARKS`].
pub(crate) fn create(dir: &Path, salt: &[u8; 32], drafts: [&Path; 3]) -> Result<(), JournalError> {
    let [identity, sign_a, sign_b] = drafts;
    let place = [Landmark::of(identity)?, Landmark::of(sign_a)?, Landmark::of(sign_b)?];
    let content = Content { place, found: None, alarm: None, floors: Vec::new() };
    write(&path_in(dir), &checksum_key(salt), &content)
}

fn write(path: &Path, key: &ChecksumKey, content: &Content) -> Result<(), JournalError> {
    let content = types::encode(content);
    let length = u32::try_from(content.len()).ok().filter(|length| u64::from(*length) < FILE_BYTES_MAX);
    let length = length.ok_or_else(|| {
        let (bytes, limit) = (content.len(), FILE_BYTES_MAX);
        JournalError::Refused(format!("a restraint file of {bytes} bytes, at most {limit} are supported"))
    })?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + content.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&key.of(&content));
    bytes.extend_from_slice(&content);
    crate::file::fault::write().map_err(JournalError::io("write", path))?;
    replace(path, &bytes)
}

fn read(path: &Path, key: &ChecksumKey) -> Result<Content, JournalError> {
    let file = LogFile::open(path, false)?;
    let length = file.len()?;
    if length < HEAD_BYTES as u64 || length > FILE_BYTES_MAX + PAGE {
        return Err(JournalError::damaged(path, length, format!("it has {length} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(length).expect("at most a mebibyte")];
    file.read_at(&mut bytes, 0)?;
    let (head, content) = bytes.split_at(HEAD_BYTES);
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    if head[..8] != MAGIC || u32_at(12) as usize != content.len() || head[16..] != key.of(content) {
        return Err(JournalError::damaged(path, 0, "its checksum does not match"));
    }
    if u32_at(8) != VERSION {
        return Err(JournalError::Version { path: path.to_owned(), found: u32_at(8), supported: VERSION });
    }
    types::decode(content).map_err(|error| JournalError::damaged(path, 0, error.to_string()))
}

impl GuardFile {
    /// Opens the file of a journal and notes when the journal was first found where it is now.
    pub fn open(dir: &Path, salt: &[u8; 32]) -> Result<Self, JournalError> {
        let (path, key) = (path_in(dir), checksum_key(salt));
        let content = read(&path, &key)?;
        let [a, b, c] = LANDMARKS.map(|name| Landmark::of(&dir.join(name)));
        let mut file = Self { path, key, content, here: [a?, b?, c?] };
        let known = file.content.found.is_some_and(|(place, _)| place == file.here);
        if file.content.place != file.here && !known {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            let content = Content { found: Some((file.here, now_ms)), ..file.content.clone() };
            file.put(content)?;
        }
        Ok(file)
    }

    pub fn restraint(&self) -> Restraint {
        let Content { alarm, floors, .. } = self.content.clone();
        Restraint { alarm, copied: self.copied(), floors }
    }

    fn copied(&self) -> Option<Copied> {
        if self.content.place == self.here {
            return None;
        }
        let noticed_ms = self.content.found.map_or(0, |(_, at_ms)| at_ms);
        let pairs = LANDMARKS.iter().zip(self.content.place.iter().zip(&self.here));
        let moved = pairs.filter(|(_, (made, here))| made != here);
        let moved: Vec<String> = moved
            .map(|(name, (made, here))| {
                let other = if made.inode == here.inode { ", of another birth" } else { "" };
                format!("{name} is file {}{other}, not {}", here.inode, made.inode)
            })
            .collect();
        let dir = self.path.parent().unwrap_or(Path::new(".")).display();
        Some(Copied {
            what: format!("{dir} is not where its journal was made: {}", moved.join("; ")),
            noticed_ms,
        })
    }

    /// Adds what restrains. Nothing is written when it is no news.
    pub fn tighten(&mut self, more: &Restraint) -> Result<(), JournalError> {
        let mut restraint = self.restraint();
        restraint.tighten(more);
        if restraint.floors.len() > FLOORS_MAX {
            let found = restraint.floors.len();
            let text = format!("floors of {found} keys, at most {FLOORS_MAX} are supported");
            return Err(JournalError::Refused(text));
        }
        let Restraint { alarm, floors, .. } = restraint;
        self.put(Content { alarm, floors, ..self.content.clone() })
    }

    /// The operator says: this is the only copy.
    pub fn accept(&mut self) -> Result<(), JournalError> {
        self.put(Content { place: self.here, found: None, ..self.content.clone() })
    }

    /// The operator says: the cause of the alarm is gone. Gives the alarm.
    pub fn clear_alarm(&mut self) -> Result<Option<String>, JournalError> {
        let cleared = self.content.alarm.clone();
        self.put(Content { alarm: None, ..self.content.clone() })?;
        Ok(cleared)
    }

    fn put(&mut self, content: Content) -> Result<(), JournalError> {
        if content != self.content {
            write(&self.path, &self.key, &content)?;
            self.content = content;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{Journal, JournalError};
    use consensus::{Disk, Floor, Record, Recovered, Restraint};
    use crypto::SecretKey;
    use std::path::Path;
    use tempfile::TempDir;
    use types::{B256, Epoch, View};

    const GENESIS: B256 = B256::repeat_byte(7);

    fn open(dir: &Path) -> (Journal, Recovered) {
        Journal::open(dir, GENESIS).unwrap()
    }

    fn floor(epoch: u64, target: u64) -> Floor {
        Floor { epoch: Epoch::new(epoch), target: View::new(target), ..Floor::default() }
    }

    /// What `cp -a`, rsync, tar and every backup do with files.
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    #[test]
    fn a_new_journal_restrains_nothing_and_moving_it_changes_nothing() {
        let home = TempDir::new().unwrap();
        let (here, there) = (home.path().join("a"), home.path().join("b"));
        assert_eq!(open(&here).1.restraint, Restraint::default());
        assert_eq!(open(&here).1.restraint, Restraint::default(), "also when opened again");
        std::fs::rename(&here, &there).unwrap();
        assert_eq!(open(&there).1.restraint, Restraint::default());
    }

    #[test]
    fn a_copied_journal_says_so_until_it_is_accepted_and_the_original_does_not() {
        let home = TempDir::new().unwrap();
        let [original, copied, again] = ["a", "b", "c"].map(|name| home.path().join(name));
        drop(open(&original));
        copy(&original, &copied);
        let first = open(&copied).1.restraint.copied.unwrap();
        assert!(first.what.contains("IDENTITY") && first.what.contains("sign-a.log"), "{}", first.what);
        assert!(first.noticed_ms > 0);
        assert_eq!(open(&copied).1.restraint.copied.unwrap(), first, "noticed once, not at every start");
        assert_eq!(open(&original).1.restraint.copied, None);
        let (mut journal, _) = open(&copied);
        journal.accept_place().unwrap();
        assert_eq!(journal.restraint().copied, None);
        drop(journal);
        assert_eq!(open(&copied).1.restraint.copied, None);
        copy(&copied, &again);
        assert!(open(&again).1.restraint.copied.is_some());
    }

    #[test]
    fn one_restored_file_among_the_old_ones_is_enough_to_be_noticed() {
        let home = TempDir::new().unwrap();
        let dir = home.path().join("a");
        drop(open(&dir));
        let (log, backup) = (dir.join("sign-b.log"), home.path().join("backup"));
        std::fs::copy(&log, &backup).unwrap();
        std::fs::rename(&backup, &log).unwrap();
        let copied = open(&dir).1.restraint.copied.unwrap();
        assert!(copied.what.contains("sign-b.log") && !copied.what.contains("sign-a.log"), "{}", copied.what);
    }

    #[test]
    fn alarms_and_floors_are_durable_and_only_tighten() {
        let home = TempDir::new().unwrap();
        let [one, two] = [1, 2].map(|seed| SecretKey::from_seed(&[seed; 32]).public_key());
        let (mut journal, _) = open(home.path());
        let restrain = |journal: &mut Journal, restraint| {
            journal.persist(&[Record::Restraint(Box::new(restraint))]).map(drop)
        };
        restrain(&mut journal, Restraint::alarm("first")).unwrap();
        restrain(&mut journal, Restraint::alarm("second")).unwrap();
        restrain(&mut journal, Restraint::floor(one, floor(1, 9))).unwrap();
        restrain(&mut journal, Restraint::floor(one, floor(1, 5))).unwrap();
        journal.raise_floors(&[(two, floor(2, 1)), (one, floor(0, 100))]).unwrap();
        drop(journal);
        let (mut journal, recovered) = open(home.path());
        let restraint = recovered.restraint;
        assert_eq!(restraint.alarm.as_deref(), Some("first"));
        assert_eq!((restraint.floor_of(&one), restraint.floor_of(&two)), (floor(1, 9), floor(2, 1)));
        assert_eq!(journal.clear_alarm().unwrap().as_deref(), Some("first"));
        assert_eq!(journal.clear_alarm().unwrap(), None);
        drop(journal);
        let restraint = open(home.path()).1.restraint;
        assert_eq!((restraint.alarm.clone(), restraint.floors.len()), (None, 2));
    }

    #[test]
    fn more_floors_than_can_be_kept_are_refused_and_nothing_is_lost() {
        let home = TempDir::new().unwrap();
        let (mut journal, _) = open(home.path());
        let key = |number: usize| SecretKey::simulated(number as u64).public_key();
        let floors: Vec<_> = (0..=super::FLOORS_MAX).map(|number| (key(number), floor(1, 1))).collect();
        let error = journal.raise_floors(&floors).unwrap_err();
        assert!(error.to_string().contains("4097 keys, at most 4096"), "{error}");
        journal.raise_floors(&floors[1..]).unwrap();
        drop(journal);
        assert_eq!(open(home.path()).1.restraint.floors.len(), super::FLOORS_MAX);
    }

    #[test]
    fn a_missing_cut_or_changed_restraint_file_is_refused() {
        let home = TempDir::new().unwrap();
        let (mut journal, _) = open(home.path());
        journal.raise_floors(&[(SecretKey::simulated(1).public_key(), floor(1, 9))]).unwrap();
        drop(journal);
        let path = home.path().join("RESTRAINT");
        let intact = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = Journal::open(home.path(), GENESIS).unwrap_err();
            assert!(!matches!(error, JournalError::Io { .. }), "{error}");
            assert!(error.to_string().contains("RESTRAINT"), "{error}");
        };
        for length in 0..intact.len() {
            refused(&intact[..length]);
        }
        for at in 0..intact.len() {
            let mut flipped = intact.clone();
            flipped[at] ^= 1 << (at % 8);
            refused(&flipped);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Journal::open(home.path(), GENESIS), Err(JournalError::Missing { .. })));
        std::fs::write(&path, &intact).unwrap();
        assert_eq!(open(home.path()).1.restraint.floors.len(), 1);
    }

    #[test]
    fn a_restraint_that_cannot_be_written_ends_all_writing() {
        let home = TempDir::new().unwrap();
        let (mut journal, _) = open(home.path());
        crate::file::fault::REMAINING.set(Some(0));
        let record = Record::Restraint(Box::new(Restraint::alarm("x")));
        let first = journal.persist(std::slice::from_ref(&record)).unwrap_err();
        crate::file::fault::REMAINING.set(None);
        assert!(first.0.contains("No space left"), "{first}");
        assert!(journal.persist(&[record]).unwrap_err().0.contains("earlier write failed"));
    }
}
