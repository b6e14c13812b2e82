//! What must hold for every random block, by seed.
//!
//! 1. What the builder says a block does is what the oracle finds, and what plain revm finds.
//! 2. The builder's lanes, and naive lanes cut at random, replay to the oracle's bytes on any number of threads.
//! 3. A payload that is changed somewhere is refused exactly when the oracle's verifier refuses it, and never
//!    panics; where it is accepted, the bytes are the oracle's.

mod mutation;
mod packing;

use crate::{coverage::Coverage, plain, random::World};
use alloy_primitives::map::B256Map;
use execution::{
    BlockEnv, BlockOutcome, BuildMemory, BuiltBlock, ExecuteError, InvalidPayload, LanePlan, Payload,
    PayloadTransactions, RecoveredTx, recover_payload,
};
use mutation::Mutation;
use packing::Footprint;
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{
    fmt,
    ops::Range,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Blocks that one seed makes.
pub const BLOCKS_PER_SEED: u64 = 2;

/// Numbers of threads that replays run on.
pub const THREADS: [usize; 4] = [1, 2, 4, 8];

static POOLS: LazyLock<Vec<rayon::ThreadPool>> = LazyLock::new(|| {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    THREADS.map(|threads| pool(threads).expect("threads can be started")).into()
});

/// A block for which something did not hold.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The world's seed.
    pub seed: u64,
    /// The block's height.
    pub height: u64,
    /// What was different.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, height, what } = self;
        write!(f, "seed {seed} height {height}: {what}\nrun it again: cargo run --release -p workloads ")?;
        write!(f, "--example random_blocks -- --from {seed} --seeds 1")
    }
}

/// What was checked.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Blocks.
    pub blocks: u64,
    /// Transactions included in them.
    pub transactions: u64,
    /// Payloads replayed, changed ones included.
    pub payloads: u64,
    /// What all that exercised.
    pub coverage: Coverage,
}

impl std::ops::AddAssign<&Self> for Report {
    fn add_assign(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.transactions += other.transactions;
        self.payloads += other.payloads;
        self.coverage += &other.coverage;
    }
}

/// What every run of some thousand blocks has to hit beside [`crate::coverage::REQUIRED`].
pub const REQUIRED: &[&str] = &[
    "to: the registry",
    "epoch: closed",
    "built: several lanes",
    "built: one lane",
    "built: segments",
    "lanes: several",
    "lanes: one",
    "segments: several",
    "bytes: refused by the decoder",
    "bytes: decoded",
    "mutant: accepted",
    "mutant: refused UndeclaredAccess",
    "mutant: refused UnusedEntry",
    "mutant: refused FalseIndependence",
    "mutant: refused SegmentValue",
    "mutant: refused InvalidTransaction",
    "mutant: refused DuplicateTransaction",
    "mutant: refused GasLimit",
];

/// Checks many seeds on `jobs` threads. `progress` is called after each seed with the sum so far. Stops at the first
/// difference.
pub fn many(seeds: Range<u64>, jobs: usize, progress: impl Fn(&Report) + Sync) -> Result<Report, Difference> {
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Ok(Report::default())));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(&seeds, &next, &sum, &progress));
        }
    });
    sum.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn work(
    seeds: &Range<u64>,
    next: &AtomicU64,
    sum: &Mutex<Result<Report, Difference>>,
    progress: &(impl Fn(&Report) + Sync),
) {
    // Serial work stays on this thread instead of waking up the global pool for each hash.
    let _own = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            return;
        }
        let result = self::seed(seed);
        let mut sum = sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Ok(total) = sum.as_mut() else { return };
        match result {
            Ok(report) => {
                *total += &report;
                progress(total);
            }
            Err(difference) => {
                *sum = Err(difference);
                return;
            }
        }
    }
}

/// Checks the blocks of one seed.
pub fn seed(seed: u64) -> Result<Report, Difference> {
    let mut world = World::new(seed);
    let mut report = Report::default();
    // Guesses keep threads apart; without any they meet as often as they can.
    let mut memory = if seed.is_multiple_of(2) { BuildMemory::blind() } else { BuildMemory::new() };
    for _ in 0..BLOCKS_PER_SEED {
        let height = world.chain.height + 1;
        let outcome =
            block(&mut world, &mut memory, &mut report).map_err(|what| Difference { seed, height, what })?;
        world.advance(&outcome);
    }
    Ok(report)
}

fn block(world: &mut World, memory: &mut BuildMemory, report: &mut Report) -> Result<BlockOutcome, String> {
    let candidates = world.candidates();
    let mut rng = ChaCha8Rng::seed_from_u64(world.seed ^ world.chain.height << 48);
    let built = build(world, memory, candidates, &mut rng)?;
    let oracle = oracle(world, &built.transactions)?;
    same("the builder", &built.outcome, &oracle)?;
    let included: Vec<_> = built.transactions.iter().cloned().collect();
    if !world.has_registry() {
        report.coverage += &against_plain(world, &included, &oracle)?;
    }
    report.coverage.add("epoch: closed", u64::from(oracle.system.next_validators.is_some()));
    world.cover(&included, &oracle, &built.skipped, &mut report.coverage);
    report.blocks += 1;
    report.transactions += included.len() as u64;

    let mut judge = Judge::new(world, &included, rng, report);
    let payload = judge.built(&built)?;
    let footprints = footprints(&payload, &included);
    judge.naive(&footprints, &oracle)?;
    judge.mutants(&built, &footprints)?;
    Ok(oracle)
}

/// Builds on a random number of threads, at times with little room.
fn build(
    world: &World,
    memory: &mut BuildMemory,
    candidates: Vec<RecoveredTx>,
    rng: &mut ChaCha8Rng,
) -> Result<BuiltBlock, String> {
    let chain = &world.chain;
    let (env, mut limits) = (chain.env(), chain.limits());
    let mut tries = u64::MAX;
    match rng.random_range(0..16) {
        0 => limits.bytes = rng.random_range(100..3_000),
        1 => limits.gas = rng.random_range(21_000..400_000),
        2 => limits.objects = rng.random_range(1..30),
        3 => tries = rng.random_range(0..20),
        _ => {}
    }
    let asked = AtomicU64::new(0);
    let stop = || asked.fetch_add(1, Ordering::Relaxed) >= tries;
    let pool = POOLS.choose(rng).expect("not empty");
    let (state, rules, parent) = (&*chain.state, &chain.rules, &chain.lthash);
    let build = || execution::build_with(memory, state, rules, &env, parent, limits, &[], candidates, stop);
    let built = pool.install(build).map_err(|error| format!("the builder failed: {error}"))?;
    let (bytes, gas) = (built.payload.len() as u64, built.outcome.gas_used);
    if bytes > limits.bytes || gas > limits.gas.min(env.gas_limit) {
        return Err(format!("the builder was given {limits:?} and built {bytes} bytes with {gas} gas"));
    }
    Ok(built)
}

fn oracle(world: &World, transactions: &PayloadTransactions) -> Result<BlockOutcome, String> {
    let chain = &world.chain;
    execution::execute(&*chain.state, &chain.rules, &chain.env(), &chain.lthash, transactions, &[])
        .map_err(|error| format!("the oracle refuses what was built: {error}"))
}

/// Byte-equal outcomes.
fn same(who: &str, outcome: &BlockOutcome, oracle: &BlockOutcome) -> Result<(), String> {
    if outcome == oracle {
        return Ok(());
    }
    let receipt = outcome.receipts.iter().zip(&oracle.receipts).position(|(one, other)| one != other);
    Err(format!(
        "{who} differs from the oracle: state hash {} and {}, first different receipt {receipt:?}, gas {} and {}\n\
         {:?}\noracle: {:?}",
        outcome.state_hash, oracle.state_hash, outcome.gas_used, oracle.gas_used, outcome.diff, oracle.diff,
    ))
}

/// The oracle against plain revm: receipts, accounts and slots.
fn against_plain(world: &World, included: &[RecoveredTx], oracle: &BlockOutcome) -> Result<Coverage, String> {
    let chain = &world.chain;
    let plain = plain::execute(&*chain.state, &chain.rules, &chain.env(), included)
        .map_err(|error| format!("plain revm refuses what was built: {error}"))?;
    for (index, (receipt, plain)) in oracle.receipts.iter().zip(&plain.receipts).enumerate() {
        let equal = receipt.succeeded() == plain.succeeded
            && receipt.gas_used == plain.gas_used
            && receipt.logs() == plain.logs;
        if !equal {
            return Err(format!("receipt {index} is {receipt:?}, plain revm's {plain:?}"));
        }
    }
    let (accounts, slots) = (oracle.diff.accounts(), oracle.diff.slots());
    if accounts != plain.diff.accounts() {
        return Err(format!("accounts {accounts:?}, plain revm's {:?}", plain.diff.accounts()));
    }
    if slots != plain.diff.slots() {
        return Err(format!("slots {slots:?}, plain revm's {:?}", plain.diff.slots()));
    }
    Ok(plain.coverage)
}

/// A payload's transactions with what it says they touch.
fn footprints(payload: &Payload, included: &[RecoveredTx]) -> Vec<Footprint> {
    let planned = payload.lanes.iter().flat_map(|lane| &lane.segments).flat_map(|s| &s.transactions);
    included.iter().cloned().zip(planned.map(|planned| payload.access_set(planned))).collect()
}

/// Puts payloads on a world's state before verifier and replay.
struct Judge<'a> {
    world: &'a World,
    known: B256Map<RecoveredTx>,
    rng: ChaCha8Rng,
    report: &'a mut Report,
}

/// What became of a payload.
type Verdict = Result<BlockOutcome, InvalidPayload>;

impl<'a> Judge<'a> {
    fn new(world: &'a World, included: &[RecoveredTx], rng: ChaCha8Rng, report: &'a mut Report) -> Self {
        let known = included.iter().map(|transaction| (transaction.hash(), transaction.clone())).collect();
        Self { world, known, rng, report }
    }

    /// The builder's own payload.
    fn built(&mut self, built: &BuiltBlock) -> Result<Payload, String> {
        let payload = Payload::decode(&built.payload).map_err(|error| format!("built payload: {error}"))?;
        let env = self.world.chain.env();
        let verdict = self.judge(&payload, &env, &THREADS)?;
        let lanes = payload.lanes.iter();
        let cut = lanes.clone().any(|lane| lane.segments.len() > 1);
        self.report.coverage.hit(if lanes.len() > 1 { "built: several lanes" } else { "built: one lane" });
        self.report.coverage.add("built: segments", u64::from(cut));
        let outcome = verdict.map_err(|invalid| format!("the built payload is refused: {invalid:?}"))?;
        same("replay of the built payload", &outcome, &built.outcome)?;
        Ok(payload)
    }

    /// Lanes that chance packed give every transaction the receipt, and the state the digest, that they had before.
    fn naive(&mut self, footprints: &[Footprint], oracle: &BlockOutcome) -> Result<(), String> {
        let lanes = packing::lanes(footprints, &mut self.rng);
        let plan = packing::plan(self.world, &lanes, false, &mut self.rng)?;
        let segments = plan.iter().any(|lane| lane.len() > 1);
        let payload = Payload::new(plan).map_err(|error| format!("naive lanes are no payload: {error}"))?;
        let env = self.world.chain.env();
        let verdict = self.judge(&payload, &env, &THREADS)?;
        let outcome = verdict.map_err(|invalid| format!("naive lanes are refused: {invalid:?}"))?;
        if outcome.diff != oracle.diff || outcome.state_hash != oracle.state_hash {
            return Err(format!("naive lanes change {:?}, the oracle {:?}", outcome.diff, oracle.diff));
        }
        let several = payload.lanes.len() > 1;
        self.report.coverage.hit(if several { "lanes: several" } else { "lanes: one" });
        self.report.coverage.add("segments: several", u64::from(segments));
        Ok(())
    }

    /// Naive lanes with something wrong, a block with too little gas, and bytes with something wrong.
    fn mutants(&mut self, built: &BuiltBlock, footprints: &[Footprint]) -> Result<(), String> {
        let lanes = packing::lanes(footprints, &mut self.rng);
        let bold = self.rng.random();
        let plan = packing::plan(self.world, &lanes, bold, &mut self.rng)?;
        if bold {
            self.plan(plan.clone()).map_err(|what| format!("bold cuts: {what}"))?;
        }
        for _ in 0..2 {
            let mut mutant = plan.clone();
            let mutation = *Mutation::ALL.choose(&mut self.rng).expect("not empty");
            mutation.apply(&mut mutant, &mut self.rng);
            self.plan(mutant).map_err(|what| format!("{mutation:?}: {what}"))?;
        }
        if self.rng.random_ratio(1, 8) {
            let mut env = self.world.chain.env();
            env.gas_limit = built.outcome.gas_used.saturating_sub(self.rng.random_range(0..2));
            let payload = Payload::new(plan).map_err(|error| error.to_string())?;
            self.any(&payload, &env).map_err(|what| format!("gas limit {}: {what}", env.gas_limit))?;
        }
        self.bytes(built.payload.clone())
    }

    fn plan(&mut self, plan: Vec<LanePlan>) -> Result<(), String> {
        let sound = mutation::is_sound(&plan);
        match Payload::new(plan) {
            Ok(_) if !sound => Err("lanes that are no payload became one".into()),
            Err(error) if sound => Err(format!("refused without a reason: {error}")),
            Err(error) => {
                self.report.coverage.hit(&format!("mutant: refused {:?}", error.code()));
                Ok(())
            }
            Ok(payload) => {
                if Payload::decode(&payload.encode()).as_ref() != Ok(&payload) {
                    return Err("a payload changed on its way through its bytes".into());
                }
                let env = self.world.chain.env();
                self.any(&payload, &env)
            }
        }
    }

    fn bytes(&mut self, mut bytes: Vec<u8>) -> Result<(), String> {
        match self.rng.random_range(0..4) {
            0 => bytes.truncate(self.rng.random_range(0..bytes.len())),
            1 => bytes.push(self.rng.random()),
            _ => {
                for _ in 0..self.rng.random_range(1..3) {
                    let at = self.rng.random_range(0..bytes.len());
                    bytes[at] ^= 1 << self.rng.random_range(0..8);
                }
            }
        }
        let Ok(payload) = Payload::decode(&bytes) else {
            self.report.coverage.hit("bytes: refused by the decoder");
            return Ok(());
        };
        if payload.encode() != bytes {
            return Err("bytes were decoded that are not the encoding of what they say".into());
        }
        self.report.coverage.hit("bytes: decoded");
        let env = self.world.chain.env();
        self.any(&payload, &env)
            .map_err(|what| format!("bytes {}: {what}", alloy_primitives::hex::encode(&bytes)))
    }

    /// A payload of which nobody knows whether it is right.
    fn any(&mut self, payload: &Payload, env: &BlockEnv) -> Result<(), String> {
        let threads = *THREADS.choose(&mut self.rng).expect("not empty");
        match self.judge(payload, env, &[threads])? {
            Ok(_) => self.report.coverage.hit("mutant: accepted"),
            Err(invalid) => self.report.coverage.hit(&format!("mutant: refused {:?}", invalid.code)),
        }
        Ok(())
    }

    /// Verifier and replays: all accept, with equal bytes, or all refuse.
    fn judge(&mut self, payload: &Payload, env: &BlockEnv, threads: &[usize]) -> Result<Verdict, String> {
        self.report.payloads += 1;
        let known = |hash: &_| self.known.get(hash).cloned();
        let transactions = match recover_payload(payload, known) {
            Ok(transactions) => transactions,
            Err(invalid) => return Ok(Err(invalid)),
        };
        let chain = &self.world.chain;
        let (state, rules, parent) = (&*chain.state, &chain.rules, &chain.lthash);
        let verdict = verdict(execution::verify(state, rules, env, parent, payload, &transactions, &[]))
            .map_err(|error| format!("the verifier: {error}"))?;
        if let Ok(verified) = &verdict {
            let oracle = execution::execute(state, rules, env, parent, &transactions, &[]);
            same("the verifier", verified, &oracle.map_err(|error| format!("the oracle refuses: {error}"))?)?;
        }
        for (pool, threads) in POOLS.iter().zip(THREADS).filter(|(_, count)| threads.contains(count)) {
            let replay = || execution::replay(state, rules, env, parent, payload, &transactions, &[]);
            let replayed = self::verdict(pool.install(replay)).map_err(|error| format!("replay: {error}"))?;
            match (&replayed, &verdict) {
                (Ok(replayed), Ok(verified)) => {
                    same(&format!("replay on {threads} threads"), replayed, verified)?
                }
                (Err(mine), Err(theirs)) => {
                    let agree = mine.code == theirs.code;
                    self.report.coverage.hit(if agree { "codes: equal" } else { "codes: different" });
                }
                _ => {
                    return Err(format!(
                        "replay on {threads} threads says {replayed:?}, the verifier {verdict:?}"
                    ));
                }
            }
        }
        Ok(verdict)
    }
}

/// A payload's fault is a verdict. Anything else is a fault of ours: nothing is wrong with these states.
fn verdict(result: Result<BlockOutcome, ExecuteError>) -> Result<Verdict, String> {
    match result {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(ExecuteError::Invalid(invalid)) => Ok(Err(invalid)),
        Err(ExecuteError::View(error)) => Err(format!("calls a payload's fault its own: {error}")),
    }
}
