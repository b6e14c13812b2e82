//! The parallel executor, phase by phase, beside sequential revm with a plain cache in the same run.
//!
//! ```sh
//! cargo bench -p workloads --bench lanes -- --help
//! ```
//!
//! Every round measures every variant once, each time beginning with another one; ratios are taken inside a round and
//! their median is told, so that what else the machine does falls on all alike. CPU time is that of the whole process.

mod measure;

use alloy_consensus::{Receipt, ReceiptEnvelope, ReceiptWithBloom, TxType};
use alloy_primitives::{B256, Bloom};
use clap::Parser;
use execution::{
    BlockEnv, BlockOutcome, BuildMemory, BuiltBlock, LanesRun, Payload, PayloadTransactions, RecoveredTx,
    StateDiff, recover_payload,
};
use measure::{Sample, Table};
use rayon::ThreadPool;
use revm::context::result::ExecutionResult;
use state::{BlockRecord, ExecutedBlock, StateOptions, StateStore};
use std::{collections::HashMap, error::Error, path::PathBuf, sync::Mutex};
use workloads::{
    chain::{Chain, GWEI, block_hash, genesis},
    loads::{Load, Stage},
    plain::Baseline,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures building, replay, hashing and commit of blocks of one kind of transaction each.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Kinds of blocks; all of them when left out.
    #[arg(long, value_delimiter = ',', value_parser = |name: &str| Load::named(name).ok_or_else(names))]
    workload: Vec<Load>,
    /// Transactions in a block.
    #[arg(long, default_value_t = 10_000)]
    txs: usize,
    /// Numbers of threads; one thread is always measured.
    #[arg(long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// Rounds, after one that is not counted.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Accounts in the state.
    #[arg(long, default_value_t = 2_000_000)]
    accounts: u64,
    /// Small and fast: 2,000 transactions, 50,000 accounts, 3 rounds.
    #[arg(long)]
    quick: bool,
    /// Measures blocks of 1,000 to 50,000 transactions instead, to see whether cost grows linearly.
    #[arg(long)]
    linear: bool,
    /// One JSON object per line instead of tables.
    #[arg(long)]
    json: bool,
    /// Where the database of the commit phase is made; the system's directory for temporary files when left out.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn names() -> String {
    format!("known are {}", Load::ALL.map(Load::name).join(", "))
}

const LINEAR: [usize; 5] = [1_000, 5_000, 10_000, 20_000, 50_000];

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.txs, args.accounts, args.rounds) = (2_000, 50_000, 3);
    }
    if args.workload.is_empty() {
        args.workload = Load::ALL.into();
    }
    if args.threads.is_empty() {
        args.threads = (1..=std::thread::available_parallelism()?.get()).collect();
    }
    args.threads.push(1);
    args.threads.sort_unstable();
    args.threads.dedup();
    let sizes = if args.linear { LINEAR.to_vec() } else { vec![args.txs] };
    let senders = sizes.iter().copied().max().unwrap_or_default();
    eprintln!("making a state of {} accounts, {senders} of them with keys", args.accounts);
    let stage = Stage::new(args.accounts.max(senders as u64), senders);
    let pool = |threads: &usize| rayon::ThreadPoolBuilder::new().num_threads(*threads).build();
    let pools: Vec<ThreadPool> = args.threads.iter().map(pool).collect::<std::result::Result<_, _>>()?;
    for load in &args.workload {
        let mut tables = Vec::new();
        for size in &sizes {
            let table = Bench::new(&args, &stage, &pools, *load, *size)?.run()?;
            match (args.json, args.linear) {
                (true, _) => print!("{}", table.json()),
                (false, false) => println!("{table}"),
                (false, true) => tables.push(table),
            }
        }
        if !tables.is_empty() {
            println!("{}", measure::growth(&tables));
        }
    }
    Ok(())
}

/// One kind of block in one size.
struct Bench<'a> {
    args: &'a Args,
    chain: &'a Chain,
    env: BlockEnv,
    pools: &'a [ThreadPool],
    /// What the builds of each pool learned.
    memories: Vec<Mutex<BuildMemory>>,
    candidates: Vec<RecoveredTx>,
    known: HashMap<B256, RecoveredTx>,
    bytes: Vec<u8>,
    payload: Payload,
    transactions: PayloadTransactions,
    outcome: BlockOutcome,
    table: Table,
}

impl<'a> Bench<'a> {
    fn new(
        args: &'a Args,
        stage: &'a Stage,
        pools: &'a [ThreadPool],
        load: Load,
        size: usize,
    ) -> Result<Self> {
        let (chain, candidates) = (&stage.chain, stage.block(load, size));
        let built = build(chain, &mut BuildMemory::new(), &candidates)?;
        let payload = Payload::decode(&built.payload)?;
        let count = built.transactions.len();
        let table = Table {
            load: load.name(),
            transactions: count,
            left_out: size - count,
            lanes: payload.lanes.len(),
            segments: payload.lanes.iter().map(|lane| lane.segments.len()).sum(),
            payload_bytes: built.payload.len(),
            access_bytes: payload.access_bytes(),
            rows: Vec::new(),
        };
        Ok(Self {
            args,
            chain,
            env: chain.env(),
            pools,
            memories: pools.iter().map(|_| Mutex::default()).collect(),
            known: candidates.iter().map(|tx| (tx.hash(), tx.clone())).collect(),
            candidates,
            bytes: built.payload,
            payload,
            transactions: built.transactions,
            outcome: built.outcome,
            table,
        })
    }

    fn run(mut self) -> Result<Table> {
        self.check()?;
        let directory = match &self.args.dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        };
        let genesis = genesis(&[], self.chain.gas_limit, GWEI);
        let store = StateStore::open(StateOptions::new(directory.path()), &genesis)?;
        let mut head = genesis.hash();
        let variants = 4 + 2 * self.pools.len();
        for round in 0..=self.args.rounds {
            let mut samples = Vec::new();
            for step in 0..variants {
                let variant = (round + step) % variants;
                self.variant(variant, &store, &mut head, &mut samples)?;
            }
            if round > 0 {
                self.table.add_round(samples);
            }
        }
        Ok(self.table)
    }

    /// Measures one variant: plain revm, the same with receipts and changes, decoding, commit, then building and replay on each number of threads.
    fn variant(
        &self,
        variant: usize,
        store: &StateStore,
        head: &mut B256,
        samples: &mut Vec<Sample>,
    ) -> Result<()> {
        match variant {
            0 => drop(Sample::take(samples, "plain revm", 1, || self.plain())?),
            1 => drop(Sample::take(samples, "with outcome", 1, || self.plain_outcome())?),
            2 => drop(Sample::take(samples, "decode", 1, || self.decode())?),
            3 => {
                let block = self.executed(store.head().height + 1, *head);
                *head = block.record.hash;
                let (diff, lthash) = (&self.outcome.diff, &self.outcome.lthash);
                Sample::take(samples, "commit", 1, || Ok(store.commit(&block, diff, lthash)?))?;
            }
            more => {
                let pool = &self.pools[(more - 4) / 2];
                let threads = pool.current_num_threads();
                if more % 2 == 0 {
                    let mut memory = self.memories[(more - 4) / 2].lock().map_err(|e| e.to_string())?;
                    let memory = &mut *memory;
                    let build =
                        || build(self.chain, memory, &self.candidates).map_err(|error| error.to_string());
                    let build = || pool.install(build);
                    drop(Sample::take(samples, "build", threads, || Ok(build()?))?);
                } else {
                    let ran = Sample::take(samples, "replay", threads, || self.replay(pool))?;
                    let close = || Ok(pool.install(|| ran.close())?);
                    let closed = Sample::take(samples, "assemble", threads, close)?;
                    let seal = || Ok(pool.install(|| closed.seal(&self.chain.lthash)));
                    drop(Sample::take(samples, "hashes", threads, seal)?);
                }
            }
        }
        Ok(())
    }

    fn plain(&self) -> Result<(Baseline<'_>, Vec<ExecutionResult>)> {
        let mut evm = Baseline::new(&*self.chain.state, &self.chain.rules, &self.env);
        let mut results = Vec::with_capacity(self.transactions.len());
        for transaction in self.transactions.iter() {
            results.push(evm.transact(transaction)?);
        }
        Ok((evm, results))
    }

    /// Plain revm, and then what replay and assembling give beside: receipts, their blooms not yet computed, and the
    /// changes.
    fn plain_outcome(&self) -> Result<(Baseline<'_>, Vec<ReceiptEnvelope>, StateDiff)> {
        let (evm, results) = self.plain()?;
        let (mut gas, mut receipts) = (0, Vec::with_capacity(results.len()));
        for result in results {
            gas += result.tx_gas_used();
            let (status, logs) = (result.is_success().into(), result.into_logs());
            let receipt = Receipt { status, cumulative_gas_used: gas, logs };
            let receipt = ReceiptWithBloom { receipt, logs_bloom: Bloom::ZERO };
            receipts.push(ReceiptEnvelope::from_typed(TxType::Eip1559, receipt));
        }
        let diff = evm.diff()?;
        Ok((evm, receipts, diff))
    }

    fn decode(&self) -> Result<PayloadTransactions> {
        let payload = Payload::decode(&self.bytes)?;
        let known = |hash: &_| self.known.get(hash).cloned();
        recover_payload(&payload, known).map_err(|invalid| format!("{invalid:?}").into())
    }

    fn replay(&self, pool: &ThreadPool) -> Result<LanesRun<'_>> {
        let (state, rules) = (&*self.chain.state, &self.chain.rules);
        let run = || execution::run_lanes(state, rules, &self.env, &self.payload, &self.transactions, &[]);
        Ok(pool.install(run)?)
    }

    /// What is measured does what the oracle does.
    fn check(&self) -> Result<()> {
        let (state, rules, parent) = (&*self.chain.state, &self.chain.rules, &self.chain.lthash);
        let oracle = execution::execute(state, rules, &self.env, parent, &self.transactions, &[])?;
        let (_, results) = self.plain()?;
        if results.iter().map(|result| result.tx_gas_used()).sum::<u64>() != oracle.gas_used
            || self.outcome != oracle
        {
            return Err("plain revm, the builder and the oracle differ".into());
        }
        for pool in self.pools {
            let ran = self.replay(pool)?;
            if pool.install(|| ran.close())?.seal(parent) != oracle {
                return Err("replay and the oracle differ".into());
            }
        }
        Ok(())
    }

    fn executed(&self, height: u64, parent_hash: B256) -> ExecutedBlock {
        let outcome = &self.outcome;
        let record = BlockRecord {
            height,
            hash: block_hash(height),
            parent_hash,
            timestamp_ms: self.env.timestamp_ms,
            view: types::View::new(0),
            proposer: types::ValidatorIndex::new(0),
            fee_recipient: self.env.fee_recipient,
            gas_limit: self.env.gas_limit,
            gas_used: outcome.gas_used,
            base_fee: outcome.base_fee,
            prevrandao: self.env.prevrandao,
            logs_bloom: outcome.logs_bloom,
            state_hash: outcome.state_hash,
            receipts_hash: outcome.receipts_hash,
            payload_commitment: Payload::commitment(&self.bytes),
            size: self.bytes.len() as u64,
            transaction_count: self.transactions.len() as u32,
        };
        let transactions = self.transactions.iter().cloned().collect();
        let outline = self.payload.clone().into_outline().into();
        ExecutedBlock {
            record,
            transactions,
            receipts: outcome.receipts.clone(),
            next_validators: None,
            outline,
        }
    }
}

fn build(chain: &Chain, memory: &mut BuildMemory, candidates: &[RecoveredTx]) -> Result<BuiltBlock> {
    let (env, limits, candidates) = (chain.env(), chain.limits(), candidates.iter().cloned());
    let (state, rules, parent) = (&*chain.state, &chain.rules, &chain.lthash);
    Ok(execution::build_with(memory, state, rules, &env, parent, limits, &[], candidates, || false)?)
}
