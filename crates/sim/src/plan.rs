//! What goes wrong in a run, all of it drawn from one seed.
//!
//! Swarm testing: a seed first draws which [`Class`]es of faults happen at all, then how often. Runs in which everything
//! goes wrong at once hide what needs calm around it, and a fault that is always on hides what it masks.

use crate::byzantine::{BEHAVIOURS, Behaviour};
use crate::storage::{FRAILTIES, Frailty};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeSet;

/// A kind of fault that a run has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Validators that lie.
    Liars,
    /// Disks that break their promise; their validators count as faulty.
    FrailDisks,
    /// Power losses in the middle of a write.
    PowerLosses,
    /// Disks without space, for a while.
    FullDisks,
    /// Messages that are lost.
    Losses,
    /// Messages that come twice.
    Duplicates,
    /// Old messages that come again, also to nodes that restarted.
    Replays,
    /// Nodes whose messages are seconds late.
    SlowNodes,
    /// Links whose messages are seconds late, in one direction.
    SlowLinks,
    /// Groups that cannot talk to each other.
    Partitions,
    /// Some partitions let messages pass in one direction.
    OneWay,
    /// Partitions end without either end noticing that there was one.
    SilentHeals,
    /// Reports of connections that nobody lost.
    Reconnects,
    /// Executors that die or stall.
    ExecutorDeaths,
    /// Executors that restart between two calls.
    ExecutorRestarts,
    /// Fetch answers that are cut short.
    ShortAnswers,
    /// Wall clocks that differ.
    ClockSkew,
    /// Wall clocks that jump by hours.
    ClockJumps,
    /// Power losses exactly one block before, at and after the last block of an epoch.
    BoundaryCrashes,
    /// Partitions that begin one block before the last one of an epoch.
    BoundaryPartitions,
}

/// All of them.
pub const CLASSES: [Class; 20] = [
    Class::Liars,
    Class::FrailDisks,
    Class::PowerLosses,
    Class::FullDisks,
    Class::Losses,
    Class::Duplicates,
    Class::Replays,
    Class::SlowNodes,
    Class::SlowLinks,
    Class::Partitions,
    Class::OneWay,
    Class::SilentHeals,
    Class::Reconnects,
    Class::ExecutorDeaths,
    Class::ExecutorRestarts,
    Class::ShortAnswers,
    Class::ClockSkew,
    Class::ClockJumps,
    Class::BoundaryCrashes,
    Class::BoundaryPartitions,
];

/// Uneven sets worth drawing by name: one that can block alone, three of almost one weight, and slopes.
const UNEVEN: [&[u128]; 6] = [
    &[4, 1, 1, 1],
    &[34, 33, 33],
    &[10, 7, 5, 3],
    &[9, 5, 4, 3, 2, 1, 1],
    &[40, 20, 20, 20],
    &[100, 100, 100, 1, 1, 1, 1],
];

/// More heights than any run has.
const ENDLESS: u64 = 1 << 30;

/// [`Plan::pace_ms`] of chains that choose nothing.
pub const DEFAULT_PACE_MS: (u64, u64) = (250, 1_000);

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where every draw comes from.
    pub seed: u64,
    /// What kinds of faults happen.
    pub classes: BTreeSet<Class>,
    /// Stake per validator.
    pub stakes: Vec<u128>,
    /// Validators that lie, with less than a third of stake together with the frail ones.
    pub byzantine: Vec<(usize, Behaviour)>,
    /// Validators whose disks break their promises.
    pub frail: Vec<(usize, Frailty)>,
    /// Consensus runs on real journals in files instead of simulated disks.
    pub journals: bool,
    /// Nodes without a key, which only follow.
    pub followers: usize,
    /// Heights per epoch.
    pub epoch_length: u64,
    /// Power goes around the last block of an epoch.
    pub boundary_crashes: bool,
    /// Partitions begin just before the last block of an epoch.
    pub boundary_partitions: bool,
    /// Whether the set changes from epoch 2 on: the members join, leave, change weights, keys and places.
    pub churn: bool,
    /// One-way delay of a message in microseconds: at least, at most.
    pub delay_us: (u64, u64),
    /// Least time between two blocks in milliseconds, and between empty ones.
    pub pace_ms: (u64, u64),
    /// Messages lost, in thousandths, while faults last.
    pub loss_permille: u32,
    /// Messages delivered twice, in thousandths, while faults last.
    pub duplicate_permille: u32,
    /// Mean time between bursts of old messages in milliseconds; 0 for none. Restarted nodes get one too.
    pub replay_every_ms: u64,
    /// Mean time between crashes of a node in milliseconds; 0 for none.
    pub crash_every_ms: u64,
    /// Mean time between disks running full in milliseconds; 0 for never.
    pub full_every_ms: u64,
    /// Mean time between failures of frail disks in milliseconds.
    pub frail_every_ms: u64,
    /// Mean time between executor deaths or stalls in milliseconds; 0 for none.
    pub executor_fault_every_ms: u64,
    /// Mean time between partitions in milliseconds; 0 for none.
    pub partition_every_ms: u64,
    /// Links come back without either end noticing that they were gone.
    pub silent_heal: bool,
    /// Of the partitions, in thousandths: those that let messages pass in one direction.
    pub one_way_permille: u32,
    /// Mean time between a node's messages becoming seconds late in milliseconds; 0 for never.
    pub slow_every_ms: u64,
    /// Mean time between one link's messages becoming seconds late in milliseconds; 0 for never.
    pub slow_link_every_ms: u64,
    /// Mean time between reports of connections that nobody lost in milliseconds; 0 for none.
    pub reconnect_every_ms: u64,
    /// Executor calls, in thousandths, that find the executor newly restarted; word of that comes later.
    pub executor_restart_permille: u32,
    /// Fetch answers, in thousandths, that are cut short (long ones always may be, for their size).
    pub short_answer_permille: u32,
    /// Mean time between jumps of a node's wall clock by up to hours in milliseconds; 0 for none.
    pub clock_jump_every_ms: u64,
    /// Wall clocks are off by up to this many milliseconds.
    pub clock_skew_ms: u64,
    /// How long faults last.
    pub faults_ms: u64,
    /// Heights every node must finalize after the faults.
    pub heights_after: u64,
    /// Time allowed for that.
    pub recovery_ms: u64,
}

impl Plan {
    /// The run of a seed.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let stakes = draw_stakes(&mut rng);
        Self::draw(seed, rng, stakes)
    }

    /// The run of a seed with a given set.
    pub fn with_stakes(seed: u64, stakes: &[u128]) -> Self {
        Self::draw(seed, ChaCha8Rng::seed_from_u64(seed), stakes.to_vec())
    }

    fn draw(seed: u64, mut rng: ChaCha8Rng, stakes: Vec<u128>) -> Self {
        let classes = draw_classes(&mut rng);
        let slowest = choose(&mut rng, &[2_000, 20_000, 90_000]);
        let (byzantine, frail) = draw_faulty(&mut rng, &stakes, &classes);
        let followers = rng.random_range(0..=1);
        let epoch_length = choose(&mut rng, &[4, 4, 5, 7, 12, ENDLESS]);
        let churn = rng.random_bool(0.7);
        // What a class draws is drawn whether it is on or not, so that a class can be switched off by hand without
        // changing everything else.
        let mut of = |class: Class, choices: &[u64]| {
            let drawn = choose(&mut rng, choices);
            if classes.contains(&class) { drawn } else { 0 }
        };
        Self {
            seed,
            byzantine,
            frail,
            journals: false,
            followers,
            epoch_length,
            churn,
            boundary_crashes: of(Class::BoundaryCrashes, &[1]) == 1,
            boundary_partitions: of(Class::BoundaryPartitions, &[1]) == 1,
            delay_us: (slowest / 8, slowest),
            pace_ms: draw_pace(seed, slowest),
            loss_permille: of(Class::Losses, &[10, 100, 300]) as u32,
            duplicate_permille: of(Class::Duplicates, &[20, 200]) as u32,
            replay_every_ms: of(Class::Replays, &[200, 1_000, 4_000]),
            crash_every_ms: of(Class::PowerLosses, &[700, 3_000]),
            full_every_ms: of(Class::FullDisks, &[1_500, 5_000]),
            frail_every_ms: of(Class::FrailDisks, &[2_000, 8_000]),
            executor_fault_every_ms: of(Class::ExecutorDeaths, &[1_500, 4_000]),
            partition_every_ms: of(Class::Partitions, &[2_000, 6_000]),
            silent_heal: of(Class::SilentHeals, &[1]) == 1,
            one_way_permille: of(Class::OneWay, &[500]) as u32,
            slow_every_ms: of(Class::SlowNodes, &[1_000, 3_000]),
            slow_link_every_ms: of(Class::SlowLinks, &[500, 2_000]),
            reconnect_every_ms: of(Class::Reconnects, &[1_000]),
            executor_restart_permille: of(Class::ExecutorRestarts, &[3, 30, 300]) as u32,
            short_answer_permille: of(Class::ShortAnswers, &[300, 1_000]) as u32,
            clock_jump_every_ms: of(Class::ClockJumps, &[5_000]),
            clock_skew_ms: of(Class::ClockSkew, &[50, 3_000]),
            // The work grows with the square of the set.
            faults_ms: if stakes.len() > 16 {
                8_000
            } else if stakes.len() > 7 {
                15_000
            } else {
                30_000
            },
            heights_after: 5,
            recovery_ms: 60_000,
            classes,
            stakes,
        }
    }

    /// A run in which nothing goes wrong.
    pub fn quiet(seed: u64, stakes: &[u128]) -> Self {
        Self {
            seed,
            classes: BTreeSet::new(),
            stakes: stakes.to_vec(),
            byzantine: Vec::new(),
            frail: Vec::new(),
            journals: false,
            followers: 0,
            epoch_length: ENDLESS,
            churn: false,
            boundary_crashes: false,
            boundary_partitions: false,
            delay_us: (500, 1_000),
            pace_ms: DEFAULT_PACE_MS,
            loss_permille: 0,
            duplicate_permille: 0,
            replay_every_ms: 0,
            crash_every_ms: 0,
            full_every_ms: 0,
            frail_every_ms: 0,
            executor_fault_every_ms: 0,
            partition_every_ms: 0,
            silent_heal: false,
            one_way_permille: 0,
            slow_every_ms: 0,
            slow_link_every_ms: 0,
            reconnect_every_ms: 0,
            executor_restart_permille: 0,
            short_answer_permille: 0,
            clock_jump_every_ms: 0,
            clock_skew_ms: 0,
            faults_ms: 10_000,
            heights_after: 5,
            recovery_ms: 10_000,
        }
    }

    /// Stake of the validators that lie or have a frail disk.
    pub fn faulty_stake(&self) -> u128 {
        let liars = self.byzantine.iter().map(|(node, _)| *node);
        liars.chain(self.frail.iter().map(|(node, _)| *node)).map(|node| self.stakes[node]).sum()
    }
}

fn choose(rng: &mut ChaCha8Rng, choices: &[u64]) -> u64 {
    *choices.choose(rng).expect("the list is not empty")
}

/// Where messages are slow, two of three runs are paced by them: a certificate then comes when the next block is due
/// already. Not drawn from the generator, whose other draws depend on how many there are.
fn draw_pace(seed: u64, slowest_us: u64) -> (u64, u64) {
    match seed % 3 {
        0 if slowest_us >= 90_000 => (0, 0),
        1 if slowest_us >= 20_000 => (60, 1_000),
        _ => DEFAULT_PACE_MS,
    }
}

fn draw_classes(rng: &mut ChaCha8Rng) -> BTreeSet<Class> {
    let share = *[0.15, 0.35, 0.6, 1.0].choose(rng).expect("the list is not empty");
    CLASSES.into_iter().filter(|_| rng.random_bool(share)).collect()
}

/// From one validator to 31; equal, of named shapes, random, on a slope, or with one that can block alone.
fn draw_stakes(rng: &mut ChaCha8Rng) -> Vec<u128> {
    let sizes = [1, 3, 3, 4, 4, 4, 4, 4, 5, 5, 6, 7, 7, 7, 7, 9, 10, 10, 13, 16, 31];
    let n = choose(rng, &sizes) as usize;
    match rng.random_range(0..6) {
        0 | 1 => vec![1; n],
        2 => UNEVEN.choose(rng).expect("the list is not empty").to_vec(),
        3 => (0..n).map(|_| rng.random_range(1..=100)).collect(),
        4 => (1..=n as u128).map(|i| i * i).collect(),
        _ => {
            let mut stakes: Vec<u128> = (0..n).map(|_| rng.random_range(5..=15)).collect();
            let others: u128 = stakes[1..].iter().sum();
            stakes[0] = others.max(1) * rng.random_range(51..=150) / 100 + 1;
            stakes.shuffle(rng);
            stakes
        }
    }
}

type Faulty = (Vec<(usize, Behaviour)>, Vec<(usize, Frailty)>);

/// As many faulty validators as fit below a third of stake, in random order: liars with a random trade, frail disks
/// with a random weakness.
fn draw_faulty(rng: &mut ChaCha8Rng, stakes: &[u128], classes: &BTreeSet<Class>) -> Faulty {
    let (total, mut held) = (stakes.iter().sum::<u128>(), 0);
    let (mut liars, mut frail) = (Vec::new(), Vec::new());
    let mut order: Vec<usize> = (0..stakes.len()).collect();
    order.shuffle(rng);
    for index in order {
        let lies = rng.random();
        let behaviour = *BEHAVIOURS.choose(rng).expect("the list is not empty");
        let frailty = *FRAILTIES.choose(rng).expect("the list is not empty");
        if (held + stakes[index]) * 3 >= total {
            continue;
        }
        match (classes.contains(&Class::Liars), classes.contains(&Class::FrailDisks)) {
            (false, false) => continue,
            (true, false) => liars.push((index, behaviour)),
            (false, true) => frail.push((index, frailty)),
            (true, true) if lies => liars.push((index, behaviour)),
            (true, true) => frail.push((index, frailty)),
        }
        held += stakes[index];
    }
    (liars, frail)
}
