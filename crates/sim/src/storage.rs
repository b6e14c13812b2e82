//! A node's storage and what goes wrong with it. Two media: the simulated disk, fast enough for thousands of seeds,
//! and the real `journal` crate on files, with faults put into the files' bytes.
//!
//! What a correct system promises, fault by fault:
//!
//! | fault | promise |
//! |---|---|
//! | power loss before, in or after a write; torn write | nothing acknowledged is lost, the node starts again; never slashable |
//! | no space | the node ends and starts again when there is space; never slashable |
//! | lost fsync: the disk said durable, and was not | may sign twice: its validator counts as faulty |
//! | bits flipped at rest | the node starts from the intact copy or refuses to start; counts as faulty |
//! | whole disk lost, same key on an empty one | may sign twice: counts as faulty; afterwards it follows the chain |
//!
//! The simulated disk takes for granted what the journal's own tests show: a damaged log, or one log older than the
//! other one says, is noticed at start. Runs on journals ([`crate::Plan::journals`]) take nothing for granted.

use crate::disk::{CrashPoint, SimDisk};
use consensus::{Disk, DiskError, Durable, Record, Recovered, SignState};
use journal::{Journal, Options};
use rand::Rng;
use rand::seq::IteratorRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use types::{B256, Block, CommittedBlock, Epoch, EpochInfo, Height};

/// How a disk breaks its promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frailty {
    /// It says durable and is not: after a power loss the tail is missing.
    LostFsync,
    /// Bits flip while nobody looks.
    BitRot,
    /// It is lost as a whole; the validator comes back under the same key on an empty one.
    DiskLost,
}

/// All of them.
pub const FRAILTIES: [Frailty; 3] = [Frailty::LostFsync, Frailty::BitRot, Frailty::DiskLost];

/// Why a `persist` call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The power went.
    PowerLost,
    /// No space left.
    Full,
}

/// The consensus storage of one node.
#[derive(Debug)]
pub struct Storage {
    medium: Medium,
    rng: ChaCha8Rng,
    /// When set, a coming `persist` crashes there.
    crash: Option<CrashPoint>,
    /// Calls that still succeed before it.
    spared: u32,
    /// No space left.
    full: bool,
    /// What the next power loss shows.
    weakness: Option<Frailty>,
    /// What was really durable when the disk began to lie.
    snapshot: Option<Image>,
    /// It refuses to open until it is replaced.
    damaged: bool,
    /// The newest sign-state that was called durable.
    claimed: Option<SignState>,
    failure: Option<Failure>,
}

#[derive(Debug)]
enum Medium {
    Memory(Box<SimDisk>),
    Files(Box<Files>),
}

/// Everything a disk holds at one moment.
#[derive(Clone, Debug)]
enum Image {
    Memory(Box<SimDisk>),
    Files(Bytes),
}

/// File contents by name.
type Bytes = BTreeMap<String, Vec<u8>>;

impl Storage {
    /// An empty simulated disk.
    pub fn simulated(seed: u64) -> Self {
        Self::on(Medium::Memory(Box::default()), seed)
    }

    /// An empty journal in a directory of its own, in memory where the system has such a place.
    pub fn journal(seed: u64, genesis_hash: B256) -> std::io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("tandem-sim-").tempdir_in(place)?;
        Ok(Self::on(Medium::Files(Box::new(Files { dir, genesis_hash, journal: None })), seed))
    }

    fn on(medium: Medium, seed: u64) -> Self {
        Self {
            medium,
            rng: ChaCha8Rng::seed_from_u64(seed),
            crash: None,
            spared: 0,
            full: false,
            weakness: None,
            snapshot: None,
            damaged: false,
            claimed: None,
            failure: None,
        }
    }

    /// The newest sign-state that was called durable.
    pub fn claimed(&self) -> Option<&SignState> {
        self.claimed.as_ref()
    }

    /// Why the last `persist` failed.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// The power goes at `point` of a `persist` to come, after `spared` more calls.
    pub fn arm(&mut self, point: CrashPoint, spared: u32) {
        (self.crash, self.spared) = (Some(point), spared);
    }

    /// No crash is to come, and there is space.
    pub fn relax(&mut self) {
        (self.crash, self.full, self.weakness) = (None, false, None);
        self.snapshot = None;
    }

    /// Space runs out, or comes back.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// The disk breaks a promise: the next power loss shows it.
    pub fn weaken(&mut self, how: Frailty) {
        if self.weakness.is_none() {
            self.weakness = Some(how);
            self.snapshot = (how == Frailty::LostFsync).then(|| self.medium.image());
        }
    }

    /// Loses the sign-state, as an operator does who restores an old backup. Simulated disks only.
    pub fn forget_votes(&mut self) {
        if let Medium::Memory(disk) = &mut self.medium {
            disk.forget_votes();
            self.claimed = None;
        }
    }

    /// An empty disk takes its place.
    pub fn replace(&mut self) {
        self.medium.wipe();
        (self.damaged, self.claimed) = (false, None);
        self.relax();
    }

    /// What a power loss leaves. Returns the weakness it showed.
    pub fn power_off(&mut self) -> Option<Frailty> {
        self.medium.close();
        let weakness = self.weakness.take();
        match weakness {
            Some(Frailty::LostFsync) => self.roll_back(),
            Some(Frailty::BitRot) => self.rot(),
            Some(Frailty::DiskLost) => self.replace(),
            None => {}
        }
        weakness
    }

    /// The tail of one log, or of both, was never written. One log alone is proven short by the other.
    fn roll_back(&mut self) {
        let Some(image) = self.snapshot.take() else { return };
        let which = self.rng.random_range(0..4);
        match (&mut self.medium, image) {
            (Medium::Memory(disk), Image::Memory(old)) => {
                if which > 1 && disk.syncs != old.syncs {
                    self.damaged = true;
                }
                *disk = old;
            }
            (Medium::Files(files), Image::Files(old)) => {
                let mut bytes = files.read();
                let lost = |name: &String| match which {
                    0 | 1 => true,
                    2 => name.starts_with("sign"),
                    _ => name.starts_with("blocks"),
                };
                bytes.retain(|name, _| old.contains_key(name) || !lost(name));
                bytes.extend(old.into_iter().filter(|(name, _)| lost(name)));
                files.write(&bytes);
            }
            _ => unreachable!("a disk never changes its kind"),
        }
    }

    fn rot(&mut self) {
        match &mut self.medium {
            // Half of what is stored is stored twice.
            Medium::Memory(_) => self.damaged = self.rng.random(),
            Medium::Files(files) => {
                let mut bytes = files.read();
                for _ in 0..self.rng.random_range(1..=3) {
                    flip_a_bit(&mut bytes, &mut self.rng);
                }
                files.write(&bytes);
            }
        }
    }

    /// What a start finds, or why it must not go on.
    pub fn recover(&mut self) -> Result<Recovered, String> {
        if self.damaged {
            return Err("the disk shows less than it had acknowledged".into());
        }
        self.failure = None;
        let recovered = match &mut self.medium {
            Medium::Memory(disk) => disk.recover(),
            Medium::Files(files) => files.open()?,
        };
        self.claimed = recovered.sign_state.clone();
        Ok(recovered)
    }

    fn crash_at(&mut self, point: CrashPoint, records: &[Record]) -> DiskError {
        match &mut self.medium {
            Medium::Memory(disk) => {
                disk.crash = Some(point);
                drop(disk.persist(records));
                disk.crash = None;
            }
            Medium::Files(files) => files.crash_at(point, records, &mut self.rng),
        }
        self.failure = Some(Failure::PowerLost);
        DiskError("simulated power loss".into())
    }
}

impl Disk for Storage {
    fn persist(&mut self, records: &[Record]) -> Result<Durable, DiskError> {
        if self.full {
            self.failure = Some(Failure::Full);
            return Err(DiskError("no space left on device".into()));
        }
        // A planned crash hits any one of a step's fsyncs.
        if self.crash.is_some() && self.spared > 0 {
            self.spared -= 1;
        } else if let Some(point) = self.crash.take() {
            return Err(self.crash_at(point, records));
        }
        let durable = match &mut self.medium {
            Medium::Memory(disk) => disk.persist(records)?,
            Medium::Files(files) => files.opened_mut()?.persist(records)?,
        };
        let state = records.iter().rev().find_map(|record| match record {
            Record::SignState(state) => Some((**state).clone()),
            _ => None,
        });
        self.claimed = state.or(self.claimed.take());
        Ok(durable)
    }

    fn block(&self, hash: &B256) -> Result<Option<Arc<Block>>, DiskError> {
        match &self.medium {
            Medium::Memory(disk) => disk.block(hash),
            Medium::Files(files) => files.opened()?.block(hash),
        }
    }

    fn finalized(&self, height: Height) -> Result<Option<CommittedBlock>, DiskError> {
        match &self.medium {
            Medium::Memory(disk) => disk.finalized(height),
            Medium::Files(files) => files.opened()?.finalized(height),
        }
    }

    fn epoch(&self, epoch: Epoch) -> Result<Option<EpochInfo>, DiskError> {
        match &self.medium {
            Medium::Memory(disk) => disk.epoch(epoch),
            Medium::Files(files) => files.opened()?.epoch(epoch),
        }
    }
}

impl Medium {
    fn image(&self) -> Image {
        match self {
            Self::Memory(disk) => Image::Memory(disk.clone()),
            Self::Files(files) => Image::Files(files.read()),
        }
    }

    fn wipe(&mut self) {
        match self {
            Self::Memory(disk) => **disk = SimDisk::default(),
            Self::Files(files) => {
                files.journal = None;
                files.write(&Bytes::new());
            }
        }
    }

    fn close(&mut self) {
        if let Self::Files(files) = self {
            files.journal = None;
        }
    }
}

/// A real journal and its directory.
#[derive(Debug)]
struct Files {
    dir: TempDir,
    genesis_hash: B256,
    journal: Option<Journal>,
}

/// What a disk writes at once: a torn write leaves any of a write's sectors.
const SECTOR: usize = 512;
const LOCK: &str = "LOCK";

impl Files {
    fn open(&mut self) -> Result<Recovered, String> {
        self.journal = None;
        // Small segments, so that runs of a minute fill some.
        let options = Options { block_segment_bytes: 64 << 10 };
        let (journal, recovered) = Journal::open_with(self.dir.path(), self.genesis_hash, options)
            .map_err(|error| error.to_string())?;
        self.journal = Some(journal);
        Ok(recovered)
    }

    fn opened(&self) -> Result<&Journal, DiskError> {
        self.journal.as_ref().ok_or_else(|| DiskError("closed".into()))
    }

    fn opened_mut(&mut self) -> Result<&mut Journal, DiskError> {
        self.journal.as_mut().ok_or_else(|| DiskError("closed".into()))
    }

    fn read(&self) -> Bytes {
        let entries = std::fs::read_dir(self.dir.path()).expect("the directory is this run's own");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let read = |name: String| {
            let bytes = std::fs::read(self.dir.path().join(&name)).expect("nobody else deletes files here");
            (name, bytes)
        };
        names.filter(|name| name != LOCK).map(read).collect()
    }

    /// Makes the directory hold exactly these files.
    fn write(&self, bytes: &Bytes) {
        for name in self.read().keys().filter(|name| !bytes.contains_key(*name)) {
            std::fs::remove_file(self.dir.path().join(name)).expect("nobody else deletes files here");
        }
        for (name, content) in bytes {
            std::fs::write(self.dir.path().join(name), content).expect("the simulation's disk has space");
        }
    }

    fn crash_at(&mut self, point: CrashPoint, records: &[Record], rng: &mut ChaCha8Rng) {
        let before = self.read();
        if let (true, Ok(journal)) = (point != CrashPoint::Before, self.opened_mut()) {
            drop(journal.persist(records));
        }
        self.journal = None;
        if matches!(point, CrashPoint::After(_)) {
            self.write(&torn(&before, self.read(), rng));
        }
    }
}

/// Some sectors of the last write only: of the block log, then nothing of the sign-state, which is written after it; or
/// of the sign-state.
fn torn(before: &Bytes, mut after: Bytes, rng: &mut ChaCha8Rng) -> Bytes {
    let in_blocks = rng.random();
    let kept = *[0.0, 0.5, 0.9].iter().choose(rng).expect("the list is not empty");
    for (name, bytes) in &mut after {
        // The restraint file is replaced by a rename: there is no half of it.
        let written_over = before.get(name).filter(|old| old.len() == bytes.len() && name != "RESTRAINT");
        let Some(old) = written_over else { continue };
        // How much of this file's write reached the disk.
        let kept = match (name.starts_with("blocks"), in_blocks) {
            (true, true) | (false, false) => kept,
            (true, false) => 1.0,
            (false, true) => 0.0,
        };
        for (new, old) in bytes.chunks_mut(SECTOR).zip(old.chunks(SECTOR)) {
            if *new != *old && !rng.random_bool(kept) {
                new.copy_from_slice(old);
            }
        }
    }
    after
}

/// One bit of some sector that holds data.
fn flip_a_bit(bytes: &mut Bytes, rng: &mut ChaCha8Rng) {
    let Some(file) = bytes.values_mut().choose(rng) else { return };
    let used = file.chunks_mut(SECTOR).filter(|sector| sector.iter().any(|byte| *byte != 0));
    if let Some(byte) = used.choose(rng).and_then(|sector| sector.iter_mut().choose(rng)) {
        *byte ^= 1 << rng.random_range(0..8);
    }
}

impl Frailty {
    /// What it did, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::LostFsync => "fsyncs lost",
            Self::BitRot => "disks with flipped bits",
            Self::DiskLost => "disks lost",
        }
    }
}
