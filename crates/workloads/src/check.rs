//! What must hold for every random block, by seed.

use crate::{coverage::Coverage, plain, random::World};
use execution::{BlockOutcome, BuiltBlock, RecoveredTx};
use std::fmt;

/// Blocks that one seed makes.
pub const BLOCKS_PER_SEED: u64 = 2;

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
        write!(
            f,
            "seed {} height {}: {}\nrun it again: cargo run --release -p workloads --example random_blocks -- \
             --from {} --seeds 1",
            self.seed, self.height, self.what, self.seed
        )
    }
}

/// What was checked.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Blocks.
    pub blocks: u64,
    /// Transactions included in them.
    pub transactions: u64,
    /// What they exercised.
    pub coverage: Coverage,
}

impl std::ops::AddAssign<&Self> for Report {
    fn add_assign(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.transactions += other.transactions;
        self.coverage += &other.coverage;
    }
}

/// Checks the blocks of one seed.
pub fn seed(seed: u64) -> Result<Report, Difference> {
    let mut world = World::new(seed);
    let mut report = Report::default();
    for _ in 0..BLOCKS_PER_SEED {
        let height = world.chain.height + 1;
        let outcome = block(&mut world, &mut report).map_err(|what| Difference { seed, height, what })?;
        world.advance(&outcome);
    }
    Ok(report)
}

fn block(world: &mut World, report: &mut Report) -> Result<BlockOutcome, String> {
    let candidates = world.candidates();
    let built = build(world, candidates)?;
    let oracle = oracle(world, &built)?;
    same("the oracle and the builder", &oracle, &built.outcome)?;
    let included: Vec<_> = built.transactions.iter().cloned().collect();
    report.coverage += &against_plain(world, &included, &oracle)?;
    world.cover(&included, &oracle, &built.skipped, &mut report.coverage);
    report.blocks += 1;
    report.transactions += included.len() as u64;
    Ok(oracle)
}

fn build(world: &World, candidates: Vec<RecoveredTx>) -> Result<BuiltBlock, String> {
    let chain = &world.chain;
    let (env, limits) = (chain.env(), chain.limits());
    execution::build(&*chain.state, &chain.rules, &env, &chain.lthash, limits, &[], candidates, || false)
        .map_err(|error| format!("the builder failed: {error}"))
}

fn oracle(world: &World, built: &BuiltBlock) -> Result<BlockOutcome, String> {
    let chain = &world.chain;
    execution::execute(&*chain.state, &chain.rules, &chain.env(), &chain.lthash, &built.transactions, &[])
        .map_err(|error| format!("the oracle refuses what was built: {error}"))
}

/// Byte-equal outcomes.
fn same(who: &str, one: &BlockOutcome, other: &BlockOutcome) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    let receipts = one.receipts.iter().zip(&other.receipts).position(|(one, other)| one != other);
    Err(format!(
        "{who} differ: state {} {}, receipts {} {}, first different receipt {receipts:?}, gas {} {}, diff equal: {}\n\
         one: {:?}\nother: {:?}",
        one.state_hash,
        other.state_hash,
        one.receipts_hash,
        other.receipts_hash,
        one.gas_used,
        other.gas_used,
        one.diff == other.diff,
        one.diff,
        other.diff,
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
    if oracle.diff.accounts() != plain.diff.accounts() {
        return Err(format!(
            "accounts {:?}, plain revm's {:?}",
            oracle.diff.accounts(),
            plain.diff.accounts()
        ));
    }
    if oracle.diff.slots() != plain.diff.slots() {
        return Err(format!("slots {:?}, plain revm's {:?}", oracle.diff.slots(), plain.diff.slots()));
    }
    Ok(plain.coverage)
}
