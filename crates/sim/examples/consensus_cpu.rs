//! What consensus costs: the real replica with real BLS keys, all validators in one thread, messages encoded and
//! decoded as on the wire, disks in memory, executors that do nothing, a network whose delay is virtual.
//!
//! ```sh
//! cargo run --release -p sim --example consensus_cpu -- --validators 4,16,64,100
//! cargo run --release -p sim --example consensus_cpu --features meter -- --validators 4,16,64,100     # with the phases
//! ```
//!
//! Time is CPU time, so a busy machine matters little. What is timed is what a node does with an
//! input: decode, [`Replica::handle`], encode what it sends. Writing to a disk and to sockets is not in it.

use clap::Parser;
use consensus::{EngineReply, Input, Now, Outbound, Recovered, Replica, Request, Settings};
use crypto::SecretKey;
use crypto::meter::{Phase, span};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sim::disk::SimDisk;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use types::engine::{BuiltPayload, FinalizedState, PayloadStatus};
use types::{Address, B256, ConsensusMessage, Genesis, Height, ValidatorIndex};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures the CPU time of consensus, by the size of the set.
#[derive(Debug, Parser)]
struct Args {
    /// Sizes of the sets to measure.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 16, 64, 100])]
    validators: Vec<usize>,
    /// Blocks per size, after three that are not counted.
    #[arg(long, default_value_t = 30)]
    blocks: u64,
}

const STATE: B256 = B256::repeat_byte(0x51);
/// Blocks that are not counted.
const WARM_UP: u64 = 3;
/// One-way delay of a message in virtual microseconds: at least, at most.
const DELAY_US: (u64, u64) = (500, 1_500);
/// Virtual microseconds an executor takes.
const EXECUTOR_US: u64 = 100;

fn main() -> Result<()> {
    let args = Args::parse();
    println!(
        "validators  blocks  CPU ms/block/node: median      p90  views/s on one core  bytes received/block/node{}",
        split::titles()
    );
    for count in &args.validators {
        let mut network = Network::new(*count)?;
        network.run_until(WARM_UP)?;
        network.start_counting();
        for block in 1..=args.blocks {
            network.run_until(WARM_UP + block)?;
            eprint!("\r{count} validators: {block} of {} blocks", args.blocks);
        }
        eprint!("\r");
        println!("{}", network.report());
    }
    Ok(())
}

/// One validator.
struct Node {
    replica: Replica,
    disk: SimDisk,
    executed: BTreeMap<B256, Height>,
    tick_at_us: u64,
}

enum What {
    Tick { node: usize },
    Message { from: usize, to: usize, bytes: Arc<Vec<u8>> },
    Engine { node: usize, reply: EngineReply },
}

struct Network {
    rng: ChaCha8Rng,
    now_us: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), What>,
    nodes: Vec<Node>,
    /// CPU time of all nodes in this block.
    spent: Duration,
    received: u64,
    height: u64,
    per_block: Vec<Duration>,
}

impl Network {
    fn new(count: usize) -> Result<Self> {
        let keys: Vec<SecretKey> = (0..count as u64).map(key).collect();
        let genesis = genesis(&keys)?;
        let mut network = Self {
            rng: ChaCha8Rng::seed_from_u64(count as u64),
            now_us: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            nodes: Vec::new(),
            spent: Duration::ZERO,
            received: 0,
            height: 0,
            per_block: Vec::new(),
        };
        for key in &keys {
            let settings = Settings::new(&genesis, vec![key.clone()], None)?;
            let disk = SimDisk::default();
            let replica = Replica::new(settings, Recovered::default(), &disk, network.now())?;
            let executed = BTreeMap::from([(genesis.hash(), Height::ZERO)]);
            network.nodes.push(Node { replica, disk, executed, tick_at_us: u64::MAX });
        }
        for node in 0..count {
            let head = FinalizedState { height: Height::ZERO, block_hash: genesis.hash(), state_hash: STATE };
            network.schedule(0, What::Engine { node, reply: EngineReply::Up(head) });
        }
        Ok(network)
    }

    fn now(&self) -> Now {
        let mono_ms = self.now_us / 1000;
        Now { mono_ms, wall_ms: 1_700_000_000_000 + mono_ms }
    }

    fn schedule(&mut self, delay_us: u64, what: What) {
        self.sequence += 1;
        self.queue.insert((self.now_us + delay_us, self.sequence), what);
    }

    /// Runs until the first node has finalized a height.
    fn run_until(&mut self, height: u64) -> Result<()> {
        while self.height < height {
            let Some(((at, _), what)) = self.queue.pop_first() else {
                return Err("the network fell silent".into());
            };
            self.now_us = at;
            match what {
                What::Tick { node } if self.nodes[node].tick_at_us != at => {}
                What::Tick { node } => self.handle(node, || Ok(Input::Tick))?,
                What::Engine { node, reply } => self.handle(node, || Ok(Input::Engine(reply)))?,
                What::Message { from, to, bytes } => {
                    self.received += bytes.len() as u64;
                    self.handle(to, || {
                        let message: ConsensusMessage = types::decode(&bytes)?;
                        Ok(Input::Message { from: ValidatorIndex::new(from as u32), message })
                    })?;
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, index: usize, input: impl FnOnce() -> Result<Input>) -> Result<()> {
        let now = self.now();
        let node = &mut self.nodes[index];
        let (begun, measured) = (cpu_time(), span(Phase::Rest));
        let input = input()?;
        let mut ready = node.replica.handle(now, input, &node.disk)?;
        drop(measured);
        let thinking = cpu_time() - begun;
        let requests = ready.take_requests();
        let outbound = ready.persist(&mut node.disk)?;
        let deadline_us = node.replica.deadline().saturating_mul(1000);
        let (begun, measured) = (cpu_time(), span(Phase::Rest));
        let encoded = |message| Arc::new(types::encode(message));
        let sent: Vec<(Option<usize>, Arc<Vec<u8>>)> = outbound
            .iter()
            .filter_map(|outbound| match outbound {
                Outbound::Send(to, message) => Some((Some(to.get() as usize), encoded(message))),
                Outbound::Broadcast(message) => Some((None, encoded(message))),
                Outbound::Finalize(_) | Outbound::Event(_) => None,
            })
            .collect();
        drop(measured);
        self.spent += thinking + (cpu_time() - begun);
        self.deliver(index, sent);
        for request in requests {
            self.execute(index, request);
        }
        for outbound in outbound {
            self.take_note(index, outbound)?;
        }
        let at_us = deadline_us.max(self.now_us + 1);
        if deadline_us < u64::MAX / 2 && self.nodes[index].tick_at_us != at_us {
            self.nodes[index].tick_at_us = at_us;
            self.schedule(at_us - self.now_us, What::Tick { node: index });
        }
        Ok(())
    }

    fn deliver(&mut self, from: usize, sent: Vec<(Option<usize>, Arc<Vec<u8>>)>) {
        for (to, bytes) in sent {
            let all = 0..self.nodes.len();
            for to in all.filter(|node| *node != from && to.is_none_or(|to| to == *node)) {
                let delay = self.rng.random_range(DELAY_US.0..=DELAY_US.1);
                self.schedule(delay, What::Message { from, to, bytes: bytes.clone() });
            }
        }
    }

    /// An executor that does nothing.
    fn execute(&mut self, node: usize, request: Request) {
        let reply = match request {
            Request::Build { id, .. } => EngineReply::Built {
                id,
                result: Ok(BuiltPayload {
                    payload: Vec::new(),
                    encoding: 1,
                    commitment: crypto::merkle::payload_root(&[]),
                    state_hash: STATE,
                    receipts_hash: STATE,
                    transactions: 0,
                    gas_used: 0,
                }),
            },
            Request::NewPayload { block_hash, block } => {
                self.nodes[node].executed.insert(block_hash, block.header.height);
                let valid =
                    PayloadStatus::Valid { state_hash: STATE, receipts_hash: STATE, next_validators: None };
                EngineReply::Judged { block_hash, result: Ok(valid) }
            }
            // Nothing is ever missing here and no block waits for a transaction.
            Request::AwaitTransactions { .. } | Request::FinalizedState | Request::Fetch { .. } => return,
        };
        self.schedule(EXECUTOR_US, What::Engine { node, reply });
    }

    fn take_note(&mut self, node: usize, outbound: Outbound) -> Result<()> {
        match outbound {
            Outbound::Finalize(choice) => {
                let height =
                    self.nodes[node].executed.get(&choice.finalized).copied().ok_or("not executed")?;
                self.nodes[node].executed.retain(|_, other| *other >= height);
                let head = FinalizedState { height, block_hash: choice.finalized, state_hash: STATE };
                let reply = EngineReply::Finalized { block_hash: choice.finalized, result: Ok(head) };
                self.schedule(EXECUTOR_US, What::Engine { node, reply });
            }
            Outbound::Event(consensus::Event::Finalized { block, .. })
                if block.header.height.get() > self.height =>
            {
                self.height = block.header.height.get();
                self.per_block.push(std::mem::take(&mut self.spent));
            }
            Outbound::Event(
                consensus::Event::Misbehaviour { .. }
                | consensus::Event::Alarm(_)
                | consensus::Event::Rejected { .. },
            ) => return Err(format!("node {node}: {outbound:?}").into()),
            _ => {}
        }
        Ok(())
    }

    fn start_counting(&mut self) {
        self.per_block.clear();
        (self.spent, self.received) = (Duration::ZERO, 0);
        let _ = split::phases();
    }

    fn report(&mut self) -> String {
        let (nodes, blocks) = (self.nodes.len() as f64, self.per_block.len() as f64);
        let phases = split::phases();
        self.per_block.sort_unstable();
        let ms = |at: usize| self.per_block.get(at).map_or(0.0, |spent| spent.as_secs_f64() * 1000.0);
        let (median, p90) = (ms(self.per_block.len() / 2), ms(self.per_block.len() * 9 / 10));
        let received = self.received as f64 / nodes / blocks;
        format!(
            "{nodes:>10}  {blocks:>6}  {:>25.3}  {:>7.3}  {:>19.1}  {received:>25.0}{}",
            median / nodes,
            p90 / nodes,
            1000.0 / median,
            split::columns(&phases, nodes * blocks)
        )
    }
}

fn key(number: u64) -> SecretKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(&seed)
}

fn genesis(keys: &[SecretKey]) -> Result<Genesis> {
    let validators: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            serde_json::json!({
                "address": Address::left_padding_from(&(index as u64 + 1).to_be_bytes()),
                "public_key": key.public_key(),
                "proof_of_possession": key.prove_possession(),
                "stake": "32000000000000000000",
            })
        })
        .collect();
    let json = serde_json::json!({
        "config": { "chainId": 31337 },
        "timestamp": 1,
        "gasLimit": 30_000_000,
        "alloc": {},
        "tandem": {
            "validators": validators,
            "epoch_length": 1u64 << 32,
            "timing": { "delta_ms": 500, "block_interval_ms": 0, "empty_block_interval_ms": 0, "work_ms": 500 },
        },
    });
    Ok(Genesis::parse(&json.to_string())?)
}

/// CPU time of this process, which does nothing else.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(feature = "meter")]
mod split {
    use crypto::meter::{PHASES, set_clock, take};
    use std::time::Duration;

    pub fn phases() -> [Duration; PHASES.len()] {
        set_clock(super::cpu_time);
        take()
    }

    pub fn titles() -> String {
        PHASES.iter().map(|phase| format!("  {:>12}", format!("{phase:?}"))).collect()
    }

    /// Milliseconds per phase and block and node.
    pub fn columns(phases: &[Duration; PHASES.len()], of: f64) -> String {
        phases.iter().map(|spent| format!("  {:>12.3}", spent.as_secs_f64() * 1000.0 / of)).collect()
    }
}

#[cfg(not(feature = "meter"))]
mod split {
    use std::time::Duration;

    /// Nothing is measured by phase.
    pub fn phases() -> [Duration; 0] {
        []
    }

    pub fn titles() -> &'static str {
        ""
    }

    pub fn columns(_: &[Duration; 0], _: f64) -> &'static str {
        ""
    }
}
