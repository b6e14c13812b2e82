//! What goes wrong in a run, all of it drawn from one seed.

use crate::byzantine::{BEHAVIOURS, Behaviour};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Validator sets that runs are drawn from: even and uneven, with and without a blocking minority.
const STAKES: [&[u128]; 8] = [
    &[1],
    &[1, 1, 1],
    &[1, 1, 1, 1],
    &[4, 1, 1, 1],
    &[34, 33, 33],
    &[10, 7, 5, 3],
    &[1, 1, 1, 1, 1, 1, 1],
    &[9, 5, 4, 3, 2, 1, 1],
];

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where every draw comes from.
    pub seed: u64,
    /// Stake per validator.
    pub stakes: Vec<u128>,
    /// Validators that lie, with less than a third of stake together.
    pub byzantine: Vec<(usize, Behaviour)>,
    /// Nodes without a key, which only follow.
    pub followers: usize,
    /// One-way delay of a message in microseconds: at least, at most.
    pub delay_us: (u64, u64),
    /// Messages lost, in thousandths, while faults last.
    pub loss_permille: u32,
    /// Messages delivered twice, in thousandths, while faults last.
    pub duplicate_permille: u32,
    /// Mean time between crashes of a node in milliseconds; 0 for none.
    pub crash_every_ms: u64,
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
        let stakes = STAKES.choose(&mut rng).expect("the list is not empty").to_vec();
        Self::draw(seed, rng, stakes)
    }

    /// The run of a seed with a given set.
    pub fn with_stakes(seed: u64, stakes: &[u128]) -> Self {
        Self::draw(seed, ChaCha8Rng::seed_from_u64(seed), stakes.to_vec())
    }

    fn draw(seed: u64, mut rng: ChaCha8Rng, stakes: Vec<u128>) -> Self {
        let often =
            |rng: &mut ChaCha8Rng, choices: &[u64]| *choices.choose(rng).expect("the list is not empty");
        let slowest = often(&mut rng, &[2_000, 20_000, 90_000]);
        Self {
            seed,
            byzantine: draw_liars(&mut rng, &stakes),
            stakes,
            followers: rng.random_range(0..=1),
            delay_us: (rng.random_range(100..=slowest / 2), slowest),
            loss_permille: often(&mut rng, &[0, 0, 10, 100, 300]) as u32,
            duplicate_permille: often(&mut rng, &[0, 20, 200]) as u32,
            crash_every_ms: often(&mut rng, &[0, 700, 3_000]),
            executor_fault_every_ms: often(&mut rng, &[0, 0, 1_500, 4_000]),
            partition_every_ms: often(&mut rng, &[0, 2_000, 6_000]),
            silent_heal: rng.random(),
            one_way_permille: often(&mut rng, &[0, 500]) as u32,
            slow_every_ms: often(&mut rng, &[0, 0, 3_000]),
            reconnect_every_ms: often(&mut rng, &[0, 1_000]),
            executor_restart_permille: often(&mut rng, &[0, 0, 3, 30, 300]) as u32,
            short_answer_permille: often(&mut rng, &[0, 300, 1_000]) as u32,
            clock_jump_every_ms: often(&mut rng, &[0, 0, 5_000]),
            clock_skew_ms: often(&mut rng, &[0, 50, 3_000]),
            faults_ms: 30_000,
            heights_after: 5,
            recovery_ms: 60_000,
        }
    }

    /// A run in which nothing goes wrong.
    pub fn quiet(seed: u64, stakes: &[u128]) -> Self {
        Self {
            seed,
            stakes: stakes.to_vec(),
            byzantine: Vec::new(),
            followers: 0,
            delay_us: (500, 1_000),
            loss_permille: 0,
            duplicate_permille: 0,
            crash_every_ms: 0,
            executor_fault_every_ms: 0,
            partition_every_ms: 0,
            silent_heal: false,
            one_way_permille: 0,
            slow_every_ms: 0,
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
}

/// Half of the runs have liars: as many as fit below a third of stake, in random order, each with a random trade.
fn draw_liars(rng: &mut ChaCha8Rng, stakes: &[u128]) -> Vec<(usize, Behaviour)> {
    let (total, mut held, mut liars) = (stakes.iter().sum::<u128>(), 0, Vec::new());
    let mut order: Vec<usize> = (0..stakes.len()).collect();
    order.shuffle(rng);
    if rng.random() {
        for index in order {
            if (held + stakes[index]) * 3 < total {
                held += stakes[index];
                liars.push((index, *BEHAVIOURS.choose(rng).expect("the list is not empty")));
            }
        }
    }
    liars
}
