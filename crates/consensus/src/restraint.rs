//! What keeps a key from signing beside the sign-state (C-7.6 to C-7.8): votes it is known to have cast elsewhere, an
//! alarm, a directory that was copied. All of it only ever restrains; lifting an alarm or accepting a copied directory
//! is an operator's explicit command on the stopped node's disk.

use crate::disk::SignState;
use crate::safety::Refusal;
use borsh::{BorshDeserialize, BorshSerialize};
use crypto::PublicKey;
use types::{Epoch, Qc, View};

/// Keys a node remembers floors of: its own ones, past and coming, and those of a file it imported.
pub const FLOORS_MAX: usize = 4096;

/// Bytes of a remembered alarm.
const ALARM_BYTES_MAX: usize = 4096;

/// How far a key has signed, by statement: nothing at or below is signed again. Views are those of `epoch`; in epochs
/// before it nothing is signed at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Floor {
    /// Epoch of the views.
    pub epoch: Epoch,
    /// Source of the last link prepared.
    pub source: View,
    /// Target of the last link prepared.
    pub target: View,
    /// Last view committed.
    pub commit: View,
    /// Last view given up.
    pub timeout: View,
    /// Last view proposed in.
    pub proposal: View,
    /// View locked on.
    pub lock: View,
}

impl Floor {
    /// What a sign-state shows.
    pub fn of(state: &SignState) -> Self {
        let link = state.last_prepare.as_ref().map(|vote| vote.statement);
        Self {
            epoch: state.epoch,
            source: link.map_or(View::ZERO, |link| link.source_view),
            target: link.map_or(View::ZERO, |link| link.target_view),
            commit: state.last_commit.as_ref().map_or(View::ZERO, |vote| vote.statement.view),
            timeout: state.last_timeout.as_ref().map_or(View::ZERO, |t| t.signed.statement.view),
            proposal: state.last_proposal.map_or(View::ZERO, |(view, _)| view),
            lock: state.lock.as_ref().map_or(View::ZERO, Qc::view),
        }
    }

    /// Takes the maximum: a later epoch replaces all views, in one epoch each view by itself. Says whether anything
    /// rose.
    pub fn raise(&mut self, other: &Self) -> bool {
        let before = *self;
        if other.epoch > self.epoch {
            *self = *other;
        } else if other.epoch == self.epoch {
            *self = Self {
                epoch: self.epoch,
                source: self.source.max(other.source),
                target: self.target.max(other.target),
                commit: self.commit.max(other.commit),
                timeout: self.timeout.max(other.timeout),
                proposal: self.proposal.max(other.proposal),
                lock: self.lock.max(other.lock),
            };
        }
        *self != before
    }

    /// May `view` be proposed in?
    pub(crate) fn check_proposal(&self, epoch: Epoch, view: View) -> Result<(), Refusal> {
        self.above("proposal", epoch, view, self.proposal.max(self.timeout))
    }

    /// May a link be prepared?
    pub(crate) fn check_prepare(&self, epoch: Epoch, source: View, target: View) -> Result<(), Refusal> {
        self.above("prepare", epoch, target, self.target.max(self.timeout))?;
        // A commit locks on its view, and every link locks on its source, also where a file does not say so.
        let lock = self.lock.max(self.source).max(self.commit);
        self.not_below("source of a link", epoch, source, lock)
    }

    /// May `view` be committed?
    pub(crate) fn check_commit(&self, epoch: Epoch, view: View) -> Result<(), Refusal> {
        self.above("commit", epoch, view, self.commit.max(self.timeout))?;
        self.not_below("commit", epoch, view, self.target)
    }

    /// May `view` be given up, reporting a certificate of view `reported`?
    pub(crate) fn check_timeout(&self, epoch: Epoch, view: View, reported: View) -> Result<(), Refusal> {
        self.above("timeout", epoch, view, self.timeout.max(self.commit))?;
        // A timeout says what was prepared last, which cannot be above its own view.
        self.not_below("timeout", epoch, view, self.target)?;
        self.not_below("certificate in a timeout", epoch, reported, self.commit)
    }

    fn above(&self, what: &'static str, epoch: Epoch, asked: View, floor: View) -> Result<(), Refusal> {
        self.admits(what, epoch, asked, floor, asked > floor)
    }

    fn not_below(&self, what: &'static str, epoch: Epoch, asked: View, floor: View) -> Result<(), Refusal> {
        self.admits(what, epoch, asked, floor, asked >= floor)
    }

    fn admits(
        &self,
        what: &'static str,
        epoch: Epoch,
        asked: View,
        floor: View,
        holds: bool,
    ) -> Result<(), Refusal> {
        if epoch > self.epoch || (epoch == self.epoch && holds) {
            return Ok(());
        }
        Err(Refusal::BelowFloor { what, epoch, asked, floor_epoch: self.epoch, floor })
    }
}

/// A directory that is not where its journal was made: copied, or restored from a backup.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Copied {
    /// What shows it.
    pub what: String,
    /// When it was noticed first, in milliseconds since 1970: what the original may have signed is older.
    pub noticed_ms: u64,
}

/// Everything that restrains beside the sign-state, as a disk keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Restraint {
    /// Why signing stopped, until an operator has looked.
    pub alarm: Option<String>,
    /// Set while nobody has said that this copy of a directory is the only one.
    pub copied: Option<Copied>,
    /// How far keys have signed elsewhere.
    pub floors: Vec<(PublicKey, Floor)>,
}

impl Restraint {
    /// An alarm alone.
    pub fn alarm(reason: &str) -> Self {
        let mut end = reason.len().min(ALARM_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { alarm: Some(reason[..end].to_owned()), ..Self::default() }
    }

    /// One key's floor alone.
    pub fn floor(key: PublicKey, floor: Floor) -> Self {
        Self { floors: vec![(key, floor)], ..Self::default() }
    }

    /// The floor of a key.
    pub fn floor_of(&self, key: &PublicKey) -> Floor {
        self.floors.iter().find(|(known, _)| known == key).map_or(Floor::default(), |(_, floor)| *floor)
    }

    /// Adds what another one restrains; nothing of this one is lost. The first alarm stays: what follows from it is
    /// less telling.
    pub fn tighten(&mut self, other: &Self) {
        if self.alarm.is_none() {
            self.alarm.clone_from(&other.alarm);
        }
        if self.copied.is_none() {
            self.copied.clone_from(&other.copied);
        }
        for (key, floor) in &other.floors {
            match self.floors.iter_mut().find(|(known, _)| known == key) {
                Some((_, known)) => {
                    known.raise(floor);
                }
                None => self.floors.push((*key, *floor)),
            }
        }
    }
}

/// Why the signer signs nothing at all for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// An alarm that no operator has cleared.
    Alarm,
    /// The directory was copied or restored.
    Copied,
    /// The start-up wait for a second instance of the same key.
    Waiting,
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Alarm => "an alarm has stopped signing",
            Self::Copied => "this directory was copied or restored",
            Self::Waiting => "listening for another instance of this key",
        })
    }
}
