//! What builds learn about calls: which of them meet in the state of which contracts.
//!
//! It only decides which candidates a build tries on one thread; what is built is right whatever it says. So it may
//! forget, and a wrong lesson costs time and nothing else.

use crate::RecoveredTx;
use alloy_consensus::Transaction;
use alloy_primitives::{Address, map::HashMap};

/// Kinds of calls remembered.
const KINDS_MAX: usize = 4096;
/// Contracts remembered per kind.
const HOT_MAX: usize = 4;
/// Builds for which a lesson is believed at first; each time it proves true again, twice as many.
const BELIEVED_FIRST: u64 = 8;
/// Doublings at most.
const DOUBLINGS_MAX: u32 = 7;
/// Builds after which a lesson that is not believed any more is forgotten.
const FORGOTTEN_AFTER: u64 = 2048;
/// Builds for which it is believed that calls do not meet.
const FREE_BELIEVED: u64 = 64;
/// How often what is forgotten is cleared away, in builds.
const CLEARED_EVERY: u64 = 64;

/// A kind of call: the contract, and the first four bytes of the input; none for fewer bytes.
pub(super) type Kind = (Address, Option<[u8; 4]>);

/// What a transaction calls; none for a creation.
pub(super) fn kind_of(transaction: &RecoveredTx) -> Option<Kind> {
    let envelope = transaction.envelope();
    let selector = envelope.input().first_chunk::<4>().copied();
    Some((envelope.to()?, selector))
}

/// What builds have learned about the calls of a chain; kept by the caller from one build to the next.
#[derive(Clone, Debug, Default)]
pub struct BuildMemory {
    kinds: HashMap<Kind, Vec<Hot>>,
    /// Kinds of calls that name nobody and yet do not meet, and until before which build that is believed.
    free: HashMap<Kind, u64>,
    /// Number of builds so far.
    build: u64,
    /// That candidates met however they were grouped: believed like a lesson.
    crowded: Option<Hot>,
    /// Takes all candidates for independent.
    blind: bool,
}

/// A lesson: calls of a kind meet in this account or its storage.
#[derive(Clone, Copy, Debug)]
struct Hot {
    address: Address,
    /// Believed before this build.
    until: u64,
    /// How often it proved true again.
    confirmed: u32,
}

impl Hot {
    fn new(address: Address, build: u64) -> Self {
        Self { address, until: build + BELIEVED_FIRST, confirmed: 0 }
    }

    fn confirm(&mut self, build: u64) {
        if self.until <= build {
            self.confirmed = (self.confirmed + 1).min(DOUBLINGS_MAX);
            self.until = build + (BELIEVED_FIRST << self.confirmed);
        }
    }
}

impl BuildMemory {
    /// Nothing learned yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// For tests: learns nothing and takes all candidates for independent, however few they are, so that threads meet
    /// as often as they can.
    pub fn blind() -> Self {
        Self { blind: true, ..Self::default() }
    }

    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    pub(super) fn begin(&mut self) {
        self.build += 1;
        if self.build.is_multiple_of(CLEARED_EVERY) {
            let build = self.build;
            self.kinds.retain(|_, lessons| {
                lessons.retain(|hot| hot.until + FORGOTTEN_AFTER > build);
                !lessons.is_empty()
            });
            self.free.retain(|_, until| *until > build);
        }
    }

    /// Whether nothing was built yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.build <= 1
    }

    /// The accounts in which calls of this kind meet.
    pub(super) fn hot(&self, kind: &Kind) -> impl Iterator<Item = Address> {
        let lessons = self.kinds.get(kind).map(Vec::as_slice).unwrap_or_default();
        lessons.iter().filter(|hot| hot.until > self.build).map(|hot| hot.address)
    }

    /// Whether calls of this kind, which name nobody, were found not to meet.
    pub(super) fn is_free(&self, kind: &Kind) -> bool {
        self.free.get(kind).is_some_and(|until| *until > self.build)
    }

    /// Learns that calls of this kind, which name nobody, did not meet.
    pub(super) fn freed(&mut self, kind: Kind) {
        if self.free.len() < KINDS_MAX || self.free.contains_key(&kind) {
            self.free.insert(kind, self.build + FREE_BELIEVED);
        }
    }

    /// Learns that calls of this kind met in an account.
    pub(super) fn met(&mut self, kind: Kind, address: Address) {
        self.free.remove(&kind);
        let (build, full) = (self.build, self.kinds.len() >= KINDS_MAX);
        let lessons = match self.kinds.get_mut(&kind) {
            Some(lessons) => lessons,
            None if full => return,
            None => self.kinds.entry(kind).or_default(),
        };
        if let Some(hot) = lessons.iter_mut().find(|hot| hot.address == address) {
            hot.confirm(build);
            return;
        }
        if lessons.len() >= HOT_MAX {
            // The one that was confirmed longest ago makes room.
            lessons.sort_unstable_by_key(|hot| std::cmp::Reverse(hot.until));
            lessons.pop();
        }
        lessons.push(Hot::new(address, build));
    }

    /// Whether candidates lately met however they were grouped, so that running several at once is wasted.
    pub(super) fn is_crowded(&self) -> bool {
        !self.blind && self.crowded.is_some_and(|hot| hot.until > self.build)
    }

    /// Learns that candidates met though they were grouped by all that is known.
    pub(super) fn crowd(&mut self) {
        let build = self.build;
        match &mut self.crowded {
            Some(hot) => hot.confirm(build),
            None => self.crowded = Some(Hot::new(Address::ZERO, build)),
        }
    }
}
