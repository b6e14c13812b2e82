//! The event loop of a simulated network.

use crate::byzantine::{Behaviour, Byzantine, Sent};
use crate::checks::{
    NothingSlashable, OneChain, certified_by_two_thirds, durable_before_sent, executed_before_final,
};
use crate::coverage::Coverage;
use crate::executor::SimExecutor;
use crate::faults::{Fault, pair};
use crate::justice::{self, Justice};
use crate::narrate;
use crate::plan::Plan;
use crate::sets::Sets;
use crate::storage::{Frailty, Storage};
use crate::twins::{Route, Script};
use crate::watch::{Glimpse, Seen, proposed_link};
use consensus::{EngineReply, Event, Input, Now, Outbound, Replica, Request, Settings};
use crypto::{SecretKey, tagged_hash};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use types::engine::{EngineError, PayloadLimits};
use types::genesis::Timing;
use types::limits::FETCH_BLOCKS_MAX;
use types::{
    Address, B256, ConsensusMessage, Domain, Epoch, FetchRequest, FetchResponse, Height, QuorumRule, Stake,
    Validator, ValidatorIndex, ValidatorSet,
};

/// Lines of the event log kept for a failure report.
const LOG_LINES_MAX: usize = 200_000;
/// Messages kept to be delivered again.
const HISTORY_MAX: usize = 400;
const CHAIN_ID: u64 = 31337;
/// Wall clock at the start of every run, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A transaction comes in every second one of these spans, on average.
const TRANSACTION_SLOT_MS: u64 = 500;
/// Spans looked through for one.
const TRANSACTION_SLOTS_MAX: usize = 64;

/// Longest ways of a call to the executor, of a block to be made final, and of an answer, in microseconds.
const CALL_US_MAX: u64 = 3_000;
const FINALIZE_US_MAX: u64 = 4_000;
const REPLY_US_MAX: u64 = 500;
/// Longest that one block takes there.
const EXECUTION_US_MAX: u64 = CALL_US_MAX + FINALIZE_US_MAX + 2 * REPLY_US_MAX;

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Hash over every event, in order: equal for equal seeds.
    pub trace: B256,
    /// Highest final height.
    pub height: Height,
    /// Highest view entered.
    pub views: u64,
    /// Events handled.
    pub events: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// What it exercised.
    pub coverage: Coverage,
    /// Virtual milliseconds from the end of the faults until every node had finalized the asked heights.
    pub recovery_ms: u64,
}

/// Why a run failed, with the last events.
#[derive(Debug)]
pub struct Failure {
    /// The violated property.
    pub what: String,
    /// The event log's tail, one line per event.
    pub log: Vec<String>,
}

/// Runs a plan to its end. A failing run is run again with its log, which is the same run.
pub fn run(plan: &Plan) -> Result<Report, Box<Failure>> {
    World::new(plan.clone()).run().map_err(|_| Box::new(fail_again(plan)))
}

/// The seed of the proposer draw of a run.
pub(crate) fn seed_of(seed: u64) -> B256 {
    tagged_hash("tandem simulation seed", &[&seed.to_le_bytes()])
}

/// The validators of a run.
pub(crate) fn validators(stakes: &[u128]) -> Vec<Validator> {
    let validator = |(i, stake): (usize, &u128)| Validator {
        address: Address::left_padding_from(&(i as u64 + 1).to_be_bytes()),
        public_key: SecretKey::simulated(i as u64).public_key(),
        stake: Stake::new(*stake),
    };
    stakes.iter().enumerate().map(validator).collect()
}

fn fail_again(plan: &Plan) -> Failure {
    let mut world = World::new(plan.clone());
    world.keep_log();
    let what = match world.run() {
        Err(what) => what,
        Ok(_) => "NOT DETERMINISTIC: the run failed once and then passed".into(),
    };
    Failure { what, log: world.take_log() }
}

/// Runs a plan and keeps its event log.
pub fn run_logged(plan: &Plan) -> (Result<Report, String>, Vec<String>) {
    let mut world = World::new(plan.clone());
    world.keep_log();
    let result = world.run();
    (result, world.take_log())
}

#[derive(Debug)]
pub(crate) struct Node {
    /// The validator it is; a number outside the set for followers.
    pub(crate) who: usize,
    pub(crate) replica: Option<Replica>,
    /// The epoch it last said it is in.
    pub(crate) epoch: Epoch,
    pub(crate) storage: Storage,
    pub(crate) executor: SimExecutor,
    /// Rises with every crash; answers to an earlier life are dropped.
    pub(crate) life: u64,
    /// Rises with every death of the executor.
    pub(crate) executor_life: u64,
    pub(crate) tick_at_us: u64,
    pub(crate) skew_ms: i64,
    /// Its messages may be late by up to this much.
    pub(crate) slow_us: u64,
    pub(crate) byzantine: Option<Byzantine>,
    /// How its disk breaks promises; then its signatures may conflict.
    pub(crate) frail: Option<Frailty>,
    /// It refuses to start from its disk, until that is replaced.
    pub(crate) refuses: bool,
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) message: ConsensusMessage,
    /// The message in a line.
    pub(crate) line: String,
    digest: B256,
}

impl Letter {
    fn new(message: ConsensusMessage) -> Arc<Self> {
        let line = narrate::message(&message);
        let digest = tagged_hash("tandem simulated message", &[&types::encode(&message)]);
        Arc::new(Self { message, line, digest })
    }
}

#[derive(Debug)]
pub(crate) enum What {
    Tick { node: usize, life: u64 },
    Deliver { from: usize, to: usize, letter: Arc<Letter> },
    Reply { node: usize, life: u64, executor_life: u64, reply: EngineReply },
    Call { node: usize, life: u64, executor_life: u64, request: Request },
    Finalize { node: usize, life: u64, executor_life: u64, choice: types::engine::Forkchoice },
    FetchAsked { from: usize, life: u64, id: u64, to: usize, request: FetchRequest },
    Fetched { node: usize, life: u64, id: u64, result: Result<FetchResponse, String> },
    Fault(Fault),
}

/// A simulated network.
#[derive(Debug)]
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) now_us: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), What>,
    pub(crate) sets: Arc<Sets>,
    pub(crate) nodes: Vec<Node>,
    /// Pairs of which the first cannot talk to the second.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Pairs with a connection; a silent partition leaves it standing.
    pub(crate) linked: BTreeSet<(usize, usize)>,
    /// Pairs of which the first's messages to the second are late by up to this many microseconds.
    pub(crate) slow_links: BTreeMap<(usize, usize), u64>,
    /// Messages that may come again: from, to and what.
    pub(crate) history: Vec<(usize, usize, Arc<Letter>)>,
    pub(crate) faults: bool,
    one_chain: OneChain,
    nothing_slashable: NothingSlashable,
    /// What liars signed, to count how often it conflicts.
    lies: NothingSlashable,
    finalized: Vec<Height>,
    trace: B256,
    log: Option<VecDeque<String>>,
    events: u64,
    pub(crate) crashes: u64,
    same_instant: u64,
    pub(crate) coverage: Coverage,
    pub(crate) seen: Seen,
    /// The network of the first views, when a scenario fixes it.
    pub(crate) script: Option<Script>,
    pub(crate) justice: Justice,
}

impl World {
    /// A network at genesis.
    pub fn new(plan: Plan) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x7a6e_d31f);
        let sets = Arc::new(Sets::new(&plan));
        let twins = plan.byzantine.iter().filter(|(_, behaviour)| *behaviour == Behaviour::Twins);
        let twins: Vec<usize> = twins.map(|(node, _)| *node).collect();
        let count = plan.stakes.len() + plan.followers + twins.len();
        let mut world = Self {
            rng,
            now_us: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            nodes: Vec::new(),
            cut: BTreeSet::new(),
            linked: BTreeSet::new(),
            slow_links: BTreeMap::new(),
            history: Vec::new(),
            faults: true,
            one_chain: OneChain::default(),
            nothing_slashable: NothingSlashable::default(),
            lies: NothingSlashable::default(),
            finalized: vec![Height::ZERO; count],
            trace: B256::ZERO,
            log: None,
            events: 0,
            crashes: 0,
            same_instant: 0,
            coverage: Coverage::default(),
            seen: Seen::default(),
            script: None,
            justice: Justice::default(),
            sets,
            plan,
        };
        for index in 0..count {
            let skew_ms = world.draw_skew();
            let storage = world.new_storage(index);
            let twin = index.checked_sub(world.plan.stakes.len() + world.plan.followers);
            world.nodes.push(Node {
                who: twin.map_or(index, |twin| twins[twin]),
                replica: None,
                storage,
                epoch: Epoch::ZERO,
                executor: SimExecutor::with_sets(world.genesis_hash(), world.sets.clone()),
                life: 0,
                executor_life: 0,
                tick_at_us: u64::MAX,
                skew_ms,
                slow_us: 0,
                byzantine: None,
                frail: world.plan.frail.iter().find(|(node, _)| *node == index).map(|(_, how)| *how),
                refuses: false,
            });
            let delay = world.rng.random_range(0..50_000);
            world.schedule(delay, What::Fault(Fault::Restart(index)));
        }
        world.corrupt();
        world.schedule_faults();
        world.schedule(world.plan.faults_ms * 1000, What::Fault(Fault::End));
        world
    }

    /// Liars are on simulated disks always: what they do to them no journal allows.
    fn new_storage(&mut self, node: usize) -> Storage {
        let seed = self.plan.seed.wrapping_mul(1_000).wrapping_add(node as u64);
        let lies = self.plan.byzantine.iter().any(|(liar, _)| *liar == node);
        if !self.plan.journals || lies || node >= self.plan.stakes.len() + self.plan.followers {
            return Storage::simulated(seed);
        }
        Storage::journal(seed, self.genesis_hash()).expect("the system has room for a directory")
    }

    pub(crate) fn draw_skew(&mut self) -> i64 {
        let skew = self.plan.clock_skew_ms as i64;
        if skew == 0 { 0 } else { self.rng.random_range(-skew..=skew) }
    }

    fn corrupt(&mut self) {
        let domain = self.domain();
        for (node, behaviour) in self.plan.byzantine.clone() {
            let (index, key) = (ValidatorIndex::new(node as u32), SecretKey::simulated(node as u64));
            self.nodes[node].executor.lies = behaviour == Behaviour::InvalidPayloadLeader;
            self.nodes[node].executor.poisons = behaviour == Behaviour::PoisonLeader;
            for place in self.places_of(node) {
                let liar = Byzantine::new(behaviour, index, key.clone(), domain);
                self.nodes[place].byzantine = Some(liar);
            }
        }
    }

    /// The nodes that are a validator: one, or two.
    pub(crate) fn places_of(&self, validator: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].who == validator).collect()
    }

    /// A node's place in an epoch; one beyond every set where it has none.
    pub(crate) fn index_of(&self, node: usize, epoch: Epoch) -> ValidatorIndex {
        self.sets.index(self.nodes[node].who, epoch).unwrap_or(ValidatorIndex::new(u32::MAX))
    }

    /// Tells a node of its link to another one, if that is a validator in the node's epoch.
    pub(crate) fn tell_link(&mut self, node: usize, other: usize, up: bool) -> Result<(), String> {
        match self.sets.index(self.nodes[other].who, self.nodes[node].epoch) {
            Some(index) if up => self.handle(node, Input::Connected(index)),
            Some(index) => self.handle(node, Input::Disconnected(index)),
            None => Ok(()),
        }
    }

    /// A node is in another epoch: from now on its indices mean another set.
    fn enter_epoch(&mut self, node: usize, epoch: Epoch) -> Result<(), String> {
        let left = std::mem::replace(&mut self.nodes[node].epoch, epoch);
        let (who, sets) = (self.nodes[node].who, self.sets.clone());
        let kept = self.nodes[node].byzantine.as_mut().map(|liar| match sets.index(who, epoch) {
            Some(index) => liar.enter_epoch(epoch, index),
            None => liar.take_kept(),
        });
        self.release(node, kept.unwrap_or_default());
        self.coverage.note("epochs entered");
        if sets.index(who, left).is_some() != sets.index(who, epoch).is_some() {
            self.coverage.note("validators that joined or left");
        }
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let whose = self.nodes[other].who;
            // Whoever changed its key connected anew with it.
            if self.linked.contains(&pair(node, other)) && sets.key(whose, left) != sets.key(whose, epoch) {
                self.tell_link(node, other, true)?;
            }
        }
        Ok(())
    }

    /// What a liar kept back goes to everybody who is listening, one after the other.
    fn release(&mut self, node: usize, kept: Vec<ConsensusMessage>) {
        let others: Vec<usize> =
            (0..self.nodes.len()).filter(|other| self.nodes[*other].who != self.nodes[node].who).collect();
        for message in kept {
            let late = |rng: &mut ChaCha8Rng| rng.random_range(0..crate::byzantine::RELEASE_US_MAX);
            let sent = others.iter().map(|to| (*to, message.clone(), late(&mut self.rng))).collect();
            self.send_lies(node, sent);
        }
    }

    pub(crate) fn is_honest(&self, node: usize) -> bool {
        self.nodes[node].byzantine.is_none()
    }

    /// Whether what a node signs must never conflict.
    pub(crate) fn is_accountable(&self, node: usize) -> bool {
        self.is_honest(node) && self.nodes[node].frail.is_none()
    }

    /// Validators whose signatures may conflict.
    fn faulty(&self) -> Vec<usize> {
        let liars = self.plan.byzantine.iter().map(|(node, _)| *node);
        liars.chain(self.plan.frail.iter().map(|(node, _)| *node)).collect()
    }

    /// The executor of a node, for tests that make it lie or die.
    pub fn executor(&mut self, node: usize) -> &mut SimExecutor {
        &mut self.nodes[node].executor
    }

    /// A node's replica, when it runs.
    pub fn replica(&self, node: usize) -> Option<&Replica> {
        self.nodes[node].replica.as_ref()
    }

    /// The set of an epoch.
    pub(crate) fn set_of(&self, epoch: Epoch) -> Arc<ValidatorSet> {
        let set = ValidatorSet::simulated(epoch, self.sets.members(epoch), QuorumRule::default());
        Arc::new(set.expect("plans hold valid stakes"))
    }

    /// The chain's signing domain, in epoch 0.
    pub(crate) fn domain(&self) -> Domain {
        Domain { chain_id: CHAIN_ID, genesis_hash: self.genesis_hash(), epoch: 0 }
    }

    pub(crate) fn genesis_hash(&self) -> B256 {
        B256::repeat_byte(0x11)
    }

    pub(crate) fn settings(&self, node: usize) -> Settings {
        Settings {
            chain_id: CHAIN_ID,
            genesis_hash: self.genesis_hash(),
            genesis_timestamp_ms: EPOCH_MS - 10_000,
            seed: seed_of(self.plan.seed),
            validators: self.set_of(Epoch::ZERO),
            timing: Timing {
                delta_ms: 100,
                work_ms: 50,
                block_interval_ms: self.plan.pace_ms.0,
                empty_block_interval_ms: self.plan.pace_ms.1,
                ..Timing::default()
            },
            limits: PayloadLimits { bytes: 1 << 20, gas: 30_000_000, objects: u64::MAX },
            epochs: self.sets.schedule(),
            evidence_period: crate::EVIDENCE_PERIOD,
            keys: if self.has_keys(node) { Sets::keys(self.nodes[node].who) } else { Vec::new() },
            fee_recipient: None,
        }
    }

    /// The latest epoch that a node is in.
    fn last_epoch(&self) -> Epoch {
        self.nodes.iter().map(|node| node.epoch).max().unwrap_or(Epoch::ZERO)
    }

    /// Followers have keys where they may become validators.
    fn has_keys(&self, node: usize) -> bool {
        self.plan.churn || self.nodes[node].who < self.plan.stakes.len()
    }

    /// What the honest node that is furthest behind needs to fetch and execute everything up to `target`, which is no
    /// fault of its own: an answer ends with the epoch, because the set after it is in its last block, some are cut
    /// to a block, and a lone validator makes hundreds of blocks in a second that another node is cut off. Twice, because
    /// liars' answers are asked for again.
    fn catching_up_us(&self, target: Height) -> u64 {
        let honest = (0..self.nodes.len()).filter(|node| self.is_honest(*node));
        let behind = honest.map(|node| target.get().saturating_sub(self.finalized[node].get())).max();
        let cut = self.plan.short_answer_permille > 0;
        let per_answer = if cut { 1 } else { self.plan.epoch_length.clamp(1, FETCH_BLOCKS_MAX.into()) };
        let answers = behind.unwrap_or(0).div_ceil(per_answer);
        2 * answers * (2 * self.plan.delay_us.1 + per_answer * EXECUTION_US_MAX)
    }

    /// Runs to the end of the plan: faults, then healing, then the heights asked for.
    pub fn run(&mut self) -> Result<Report, String> {
        let mut deadline_us = (self.plan.faults_ms + self.plan.recovery_ms) * 1000;
        let (mut target, mut healed_us) = (None, 0);
        while self.step()? {
            if !self.faults && target.is_none() {
                let height = Height::new(self.one_chain.height().get() + self.plan.heights_after);
                target = Some(height);
                healed_us = self.now_us;
                deadline_us += self.catching_up_us(height);
            }
            let honest = (0..self.nodes.len()).filter(|node| self.is_honest(*node));
            let reached =
                target.is_some_and(|target| honest.into_iter().all(|node| self.finalized[node] >= target));
            if reached && self.justice.unpunished(self.last_epoch()).is_empty() {
                let views =
                    self.nodes.iter().filter_map(|n| n.replica.as_ref()).map(|r| r.view().get()).max();
                return Ok(Report {
                    trace: self.trace,
                    height: self.one_chain.height(),
                    views: views.unwrap_or(0),
                    events: self.events,
                    crashes: self.crashes,
                    coverage: self.summary(),
                    recovery_ms: (self.now_us - healed_us) / 1000,
                });
            }
            if self.now_us > deadline_us {
                let now = self.now(0);
                let why: Vec<_> = self
                    .nodes
                    .iter()
                    .map(|n| n.replica.as_ref().map(|r| (r.view(), r.finalized().0, r.status(now).reasons)))
                    .collect();
                if reached {
                    let guilty = self.justice.unpunished(self.last_epoch());
                    return Err(format!("UNPUNISHED: no final block names {guilty:?}"));
                }
                return Err(format!(
                    "NOT LIVE: {} ms after the faults ended nodes are at {:?}, wanted {target:?}; {why:?}",
                    self.plan.recovery_ms, self.finalized
                ));
            }
        }
        Err("the network fell silent".into())
    }

    /// Handles the next event. False when there is none.
    pub fn step(&mut self) -> Result<bool, String> {
        let Some(((at, _), what)) = self.queue.pop_first() else { return Ok(false) };
        self.same_instant = if at == self.now_us { self.same_instant + 1 } else { 0 };
        if self.same_instant > 100_000 {
            return Err("BUSY LOOP: 100000 events in one instant".into());
        }
        self.now_us = at;
        self.events += 1;
        self.note(&what);
        match what {
            What::Tick { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].tick_at_us == at {
                    self.nodes[node].tick_at_us = u64::MAX;
                    self.handle(node, Input::Tick)?;
                }
            }
            What::Deliver { from, to, letter } => {
                // The mesh does not hear whom it counts as no validator.
                if !self.sets.speaks(self.nodes[from].who, self.nodes[to].epoch) {
                    return Ok(true);
                }
                self.provoke(to, &letter.message);
                let from = self.index_of(from, letter.message.epoch());
                self.handle(to, Input::Message { from, message: letter.message.clone() })?;
            }
            What::Reply { node, life, executor_life, reply } => {
                if self.nodes[node].life == life && self.nodes[node].executor_life == executor_life {
                    self.handle(node, Input::Engine(reply))?;
                }
            }
            What::Call { node, life, executor_life, request } => {
                self.executor_call(node, life, executor_life, request)
            }
            What::Finalize { node, life, executor_life, choice } => {
                if self.nodes[node].executor_life == executor_life && self.nodes[node].executor.alive {
                    let result = self.nodes[node].executor.forkchoice(choice);
                    let reply = EngineReply::Finalized { block_hash: choice.finalized, result };
                    self.reply(node, life, executor_life, reply);
                }
            }
            What::FetchAsked { from, life, id, to, request } => {
                self.serve_fetch(from, life, id, to, &request)?
            }
            What::Fetched { node, life, id, result } => {
                if self.nodes[node].life == life {
                    self.handle(node, Input::Fetched { id, result })?;
                }
            }
            What::Fault(fault) => self.fault(fault)?,
        }
        Ok(true)
    }

    fn note(&mut self, what: &What) {
        let line = narrate::event(what);
        let digest = match what {
            What::Deliver { letter, .. } => letter.digest,
            _ => B256::ZERO,
        };
        self.trace = tagged_hash(
            "tandem trace",
            &[self.trace.as_slice(), &self.now_us.to_le_bytes(), digest.as_slice(), line.as_bytes()],
        );
        self.tell(|| line);
    }

    /// From now on events are logged.
    pub fn keep_log(&mut self) {
        self.log.get_or_insert_default();
    }

    /// The lines logged so far.
    pub fn take_log(&mut self) -> Vec<String> {
        self.log.take().into_iter().flatten().collect()
    }

    /// A line of the log, when there is one.
    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push_back(format!("{:>12.3} ms  {}", self.now_us as f64 / 1000.0, line()));
            if log.len() > LOG_LINES_MAX {
                log.pop_front();
            }
        }
    }

    pub(crate) fn schedule(&mut self, delay_us: u64, what: What) {
        self.sequence += 1;
        self.queue.insert((self.now_us + delay_us, self.sequence), what);
    }

    pub(crate) fn now(&self, node: usize) -> Now {
        let mono_ms = self.now_us / 1000;
        Now { mono_ms, wall_ms: (EPOCH_MS + mono_ms).saturating_add_signed(self.nodes[node].skew_ms) }
    }

    /// Gives a node an input and does what it says, in the order the shell of a real node does.
    pub(crate) fn handle(&mut self, node: usize, input: Input) -> Result<(), String> {
        let now = self.now(node);
        let Some(mut replica) = self.nodes[node].replica.take() else { return Ok(()) };
        let (before, proposed) = (Glimpse::of(&replica), proposed_link(&input));
        let (arrival, view_before) = (justice::arrival(&input), replica.view());
        let mut ready = match replica.handle(now, input, &self.nodes[node].storage) {
            Ok(ready) => ready,
            // A damaged block may show up only when it is read.
            Err(_) if self.nodes[node].frail.is_some() => return self.disk_fails(node),
            Err(error) => return Err(error.to_string()),
        };
        self.watch(node, &before, proposed, &replica);
        self.demand_detection(node, arrival, view_before, &replica)?;
        for request in ready.take_requests() {
            self.start(node, request);
        }
        let deadline = replica.deadline();
        // 0 is "at once", which a node says when it entered an epoch.
        if deadline != 0 && deadline <= now.mono_ms {
            return Err(format!(
                "BUSY LOOP: node {node} wants to be called again at {deadline}, it is {}",
                now.mono_ms
            ));
        }
        match ready.persist(&mut self.nodes[node].storage) {
            Ok(outbound) => {
                self.nodes[node].replica = Some(replica);
                for effect in outbound {
                    self.outbound(node, effect)?;
                }
                // Only an injected bug sends what did not become durable.
                if self.nodes[node].storage.failure().is_some() {
                    return self.persist_failed(node);
                }
                self.set_tick(node, deadline);
                if let Some(replica) = &mut self.nodes[node].replica {
                    replica.work_ahead();
                }
            }
            Err(_) => self.persist_failed(node)?,
        }
        Ok(())
    }

    fn set_tick(&mut self, node: usize, deadline_ms: u64) {
        // At least one microsecond ahead, so that a replica that asks for the past shows up as a busy loop.
        let at_us = deadline_ms.saturating_mul(1000).max(self.now_us + 1);
        if deadline_ms != u64::MAX && at_us != self.nodes[node].tick_at_us {
            self.nodes[node].tick_at_us = at_us;
            let life = self.nodes[node].life;
            self.schedule(at_us - self.now_us, What::Tick { node, life });
        }
    }

    fn start(&mut self, node: usize, request: Request) {
        let (life, executor_life) = (self.nodes[node].life, self.nodes[node].executor_life);
        match request {
            Request::Fetch { id, peer, request } => {
                let who = self.sets.who(peer, self.nodes[node].epoch).expect("only members are asked");
                let places = self.places_of(who);
                let to = *places.choose(&mut self.rng).expect("every validator is somewhere");
                match self.link_delay(node, to) {
                    Some(delay) => {
                        self.schedule(delay, What::FetchAsked { from: node, life, id, to, request })
                    }
                    None => self.schedule(
                        1_000_000,
                        What::Fetched { node, life, id, result: Err("no answer".into()) },
                    ),
                }
            }
            request => {
                let delay = self.rng.random_range(50..CALL_US_MAX);
                self.schedule(delay, What::Call { node, life, executor_life, request });
            }
        }
    }

    /// The executor dies unnoticed and is back at once, without what was not durable; its calls under way are never
    /// answered, and word of it comes later.
    fn executor_restarts(&mut self, node: usize) {
        self.nodes[node].executor.restart();
        self.nodes[node].executor_life += 1;
        let (life, executor_life) = (self.nodes[node].life, self.nodes[node].executor_life);
        let (down, up) = (self.rng.random_range(0..300_000), self.rng.random_range(0..400_000));
        let reply = EngineReply::Down("simulated restart".into());
        self.schedule(down, What::Reply { node, life, executor_life, reply });
        self.schedule(down + up, What::Call { node, life, executor_life, request: Request::FinalizedState });
    }

    fn executor_call(&mut self, node: usize, life: u64, executor_life: u64, request: Request) {
        let restarts = self.plan.executor_restart_permille;
        if self.faults && self.nodes[node].executor.alive && self.rng.random_ratio(restarts, 1000) {
            self.executor_restarts(node);
        }
        let dead = !self.nodes[node].executor.alive || self.nodes[node].executor_life != executor_life;
        let gone = || EngineError::Unavailable("simulated death".into());
        let payload_size = *[0usize, 40, 900, 3000].choose(&mut self.rng).expect("the list is not empty");
        let executor = &mut self.nodes[node].executor;
        let reply = match request {
            Request::AwaitTransactions { id, parent_hash, wait_ms_max } => {
                let stamp = executor.timestamp_ms(&parent_hash);
                let (pending, delay) = self.transaction_after(stamp, wait_ms_max);
                let result = if dead { Err(gone()) } else { Ok(pending) };
                let reply = EngineReply::Pending { id, result };
                return self.schedule(delay, What::Reply { node, life, executor_life, reply });
            }
            Request::Build { id, request } => {
                // Twins build different blocks, as two machines do.
                let (size, salt) = if self.script.is_some() { (40, node as u64) } else { (payload_size, 0) };
                let payload: Vec<u8> =
                    (0..size).map(|i| (i as u64 ^ request.view.get() ^ (salt << 4)) as u8).collect();
                let result = if dead { Err(gone()) } else { executor.build(&request, payload) };
                EngineReply::Built { id, result }
            }
            Request::NewPayload { block_hash, block } => {
                let result = if dead { Err(gone()) } else { executor.new_payload(&block) };
                EngineReply::Judged { block_hash, result }
            }
            Request::FinalizedState if dead => EngineReply::Down("simulated death".into()),
            Request::FinalizedState => EngineReply::Up(executor.head()),
            Request::Fetch { .. } => unreachable!("fetches go over the network"),
        };
        // Answers of a dead executor reach the life that is waiting for them.
        let current = self.nodes[node].executor_life;
        self.reply(node, life, current, reply);
    }

    /// Whether a transaction that no block up to `stamp_ms` includes is in the pools within the wait, and after how many
    /// microseconds. All pools hear of the same transactions, within moments.
    fn transaction_after(&mut self, stamp_ms: u64, wait_ms_max: u64) -> (bool, u64) {
        let (now_ms, wait_us) = (EPOCH_MS + self.now_us / 1000, wait_ms_max.saturating_mul(1000));
        let first = stamp_ms.max(EPOCH_MS) / TRANSACTION_SLOT_MS;
        let last = now_ms.saturating_add(wait_ms_max) / TRANSACTION_SLOT_MS;
        for slot in (first..=last).take(TRANSACTION_SLOTS_MAX) {
            let draw = tagged_hash(
                "tandem simulated transactions",
                &[&self.plan.seed.to_le_bytes(), &slot.to_le_bytes()],
            );
            let at_ms = slot * TRANSACTION_SLOT_MS + u64::from(draw[0]);
            if draw[1] < 128 && at_ms > stamp_ms {
                let gossip_us = self.rng.random_range(0..20_000);
                let delay_us = at_ms.saturating_sub(now_ms) * 1000 + gossip_us;
                return (delay_us <= wait_us, delay_us.min(wait_us));
            }
        }
        (false, wait_us)
    }

    fn reply(&mut self, node: usize, life: u64, executor_life: u64, reply: EngineReply) {
        let delay = self.rng.random_range(20..REPLY_US_MAX);
        self.schedule(delay, What::Reply { node, life, executor_life, reply });
    }

    fn outbound(&mut self, node: usize, effect: Outbound) -> Result<(), String> {
        let epoch = self.nodes[node].epoch;
        match effect {
            Outbound::Send(to, message) => {
                let who = self.sets.who(to, epoch).expect("only members are sent to");
                self.send(node, &[who], message)
            }
            Outbound::Broadcast(message) => {
                // Votes and proposals go to validators only, to those of the epochs around this one too.
                let own = self.nodes[node].who;
                let everybody = 0..self.plan.stakes.len() + self.plan.followers;
                let others: Vec<usize> =
                    everybody.filter(|other| *other != own && self.sets.speaks(*other, epoch)).collect();
                self.send(node, &others, message)
            }
            Outbound::Event(Event::Epoch { epoch, .. }) => self.enter_epoch(node, epoch),
            Outbound::Event(Event::SetRefused { epoch, reason }) => {
                Err(format!("node {node} refuses the set of epoch {epoch}: {reason}"))
            }
            Outbound::Finalize(choice) => {
                let (life, executor_life) = (self.nodes[node].life, self.nodes[node].executor_life);
                let delay = self.rng.random_range(50..FINALIZE_US_MAX);
                self.schedule(delay, What::Finalize { node, life, executor_life, choice });
                Ok(())
            }
            Outbound::Event(Event::Finalized { block, block_hash, commit }) => {
                let height = block.header.height;
                if !self.is_honest(node) {
                    return Ok(());
                }
                self.tell(|| format!("n{node} FINAL h{height} {}", narrate::short(&block_hash)));
                executed_before_final(&self.nodes[node].executor, node, height, block_hash)?;
                if let Some(commit) = &commit {
                    certified_by_two_thirds(&self.sets.members(commit.epoch), commit)?;
                }
                self.one_chain.finalized(node, height, block_hash)?;
                self.punish(&block)?;
                self.finalized[node] = self.finalized[node].max(height);
                self.near_boundary(node, height);
                Ok(())
            }
            Outbound::Event(Event::Evidence(evidence)) if self.is_honest(node) => {
                self.convict(node, &evidence)
            }
            // A validator whose disk forgot what it signed finds out, and that is right.
            Outbound::Event(Event::Alarm(what))
                if self.nodes[node].frail.is_some() && what.starts_with("this validator's key signed") =>
            {
                self.coverage.note("own signatures found that a disk forgot");
                Ok(())
            }
            Outbound::Event(Event::Alarm(what)) if self.is_honest(node) => {
                Err(format!("ALARM at node {node}: {what}"))
            }
            Outbound::Event(Event::Misbehaviour { validator, what })
                if self.is_honest(node)
                    && self.sets.who(validator, epoch).is_some_and(|w| self.is_accountable(w)) =>
            {
                Err(format!("node {node} accuses the honest validator {validator}: {what}"))
            }
            Outbound::Event(event) => {
                self.tell(|| match event {
                    Event::View { view, missed } => {
                        let how =
                            missed.map_or(String::new(), |who| format!(", {who} missed the one before"));
                        format!("n{node} enters v{view}{how}")
                    }
                    Event::Misbehaviour { validator, what } => format!("n{node} accuses {validator}: {what}"),
                    Event::Rejected { height, block_hash, reason } => {
                        format!("n{node} rejects h{height} {}: {reason}", narrate::short(&block_hash))
                    }
                    Event::Alarm(what) => format!("n{node} ALARM {what}"),
                    Event::Finalized { .. } | Event::Epoch { .. } | Event::SetRefused { .. } => {
                        format!("n{node} moves on")
                    }
                    Event::Evidence(evidence) => format!("n{node} proves {:?}", evidence.accusation()),
                    Event::EvidenceFinal { height, evidence } => {
                        format!("n{node} holds h{height} final, which proves {:?}", evidence.accusation())
                    }
                });
                Ok(())
            }
        }
    }

    fn send(&mut self, node: usize, to: &[usize], message: ConsensusMessage) -> Result<(), String> {
        self.watch_sent(node, &message);
        let to: Vec<usize> = to.iter().flat_map(|validator| self.places_of(*validator)).collect();
        let index = self.index_of(node, message.epoch());
        if let Some(liar) = &mut self.nodes[node].byzantine {
            let sent = liar.twist(&to, &message, &mut self.rng);
            self.send_lies(node, sent);
            return Ok(());
        }
        durable_before_sent(self.nodes[node].storage.claimed(), index, &message)?;
        if self.is_accountable(node) {
            self.nothing_slashable.sent(index, &message)?;
            let faulty: Vec<usize> = self.faulty();
            self.nothing_slashable.shown(&message, |index| !faulty.contains(&(index.get() as usize)))?;
        }
        let letter = Letter::new(message);
        self.tell(|| format!("n{node} sends {} to {to:?}", letter.line));
        for to in to {
            let copies =
                1 + usize::from(self.faults && self.rng.random_ratio(self.plan.duplicate_permille, 1000));
            for _ in 0..copies {
                self.transmit(node, to, &letter, 0);
            }
        }
        Ok(())
    }

    /// Puts a message on a link, after an extra delay in microseconds.
    pub(crate) fn transmit(&mut self, from: usize, to: usize, letter: &Arc<Letter>, extra_us: u64) {
        self.remember(from, to, letter);
        let route = self
            .script
            .as_ref()
            .filter(|_| self.faults)
            .map(|script| script.route(self.now_us, from, to, &letter.message));
        let extra_us = match route {
            Some(Route::Lost) => return,
            Some(Route::Later(late_us)) => extra_us + late_us,
            Some(Route::Open) | None => extra_us,
        };
        if let Some(delay) = self.link_delay(from, to) {
            self.schedule(delay + extra_us, What::Deliver { from, to, letter: letter.clone() });
        }
    }

    /// Keeps some messages of all times, to be delivered again.
    fn remember(&mut self, from: usize, to: usize, letter: &Arc<Letter>) {
        if self.plan.replay_every_ms == 0 {
            return;
        }
        if self.history.len() < HISTORY_MAX {
            self.history.push((from, to, letter.clone()));
        } else if self.rng.random_ratio(1, 8) {
            let place = self.rng.random_range(0..HISTORY_MAX);
            self.history[place] = (from, to, letter.clone());
        }
    }

    fn send_lies(&mut self, node: usize, sent: Vec<Sent>) {
        for (to, message, extra) in sent {
            if self.lies.sent(self.index_of(node, message.epoch()), &message).is_err() {
                self.coverage.note("slashable pairs of liars");
                if let Some(twin) =
                    self.nodes[node].byzantine.as_mut().filter(|b| b.behaviour == Behaviour::Twins)
                {
                    twin.acts += 1;
                }
            }
            let letter = Letter::new(message);
            self.tell(|| format!("n{node} LIES {} to [{to}]", letter.line));
            self.transmit(node, to, &letter, extra);
        }
    }

    fn provoke(&mut self, node: usize, message: &ConsensusMessage) {
        if message.epoch() != self.nodes[node].epoch {
            return;
        }
        let others: Vec<usize> = (0..self.plan.stakes.len()).filter(|other| *other != node).collect();
        if let Some(liar) = &mut self.nodes[node].byzantine {
            let sent = liar.provoked(&others, message, &mut self.rng);
            self.send_lies(node, sent);
        }
    }

    /// Delay of a message now, or `None` when it is lost.
    fn link_delay(&mut self, from: usize, to: usize) -> Option<u64> {
        let lost = self.faults && self.rng.random_ratio(self.plan.loss_permille, 1000);
        if lost || self.cut.contains(&(from, to)) {
            return None;
        }
        let late = self.nodes[from].slow_us.max(self.slow_links.get(&(from, to)).copied().unwrap_or(0));
        let late = if late == 0 { 0 } else { self.rng.random_range(0..late) };
        Some(late + self.rng.random_range(self.plan.delay_us.0..=self.plan.delay_us.1))
    }

    fn serve_fetch(
        &mut self,
        from: usize,
        life: u64,
        id: u64,
        to: usize,
        request: &FetchRequest,
    ) -> Result<(), String> {
        let result = match &self.nodes[to].replica {
            Some(replica) => match replica.serve(request, &self.nodes[to].storage) {
                Ok(answer) => Ok(answer),
                Err(_) if self.nodes[to].frail.is_some() => {
                    self.disk_fails(to)?;
                    Err("connection lost".into())
                }
                Err(error) => return Err(error.to_string()),
            },
            None => Err("connection refused".into()),
        };
        let result = result.map(|answer| self.bend(to, answer));
        if let Some(delay) = self.link_delay(to, from) {
            self.schedule(delay, What::Fetched { node: from, life, id, result });
        }
        Ok(())
    }

    /// What becomes of a fetch answer: long ones are cut, liars serve what they like.
    fn bend(&mut self, server: usize, mut answer: FetchResponse) -> FetchResponse {
        if self.rng.random_ratio(self.plan.short_answer_permille, 1000) {
            answer.blocks.truncate(self.rng.random_range(1..=4));
        }
        if self.is_honest(server) {
            return answer;
        }
        match self.rng.random_range(0..8) {
            0 => answer.blocks.clear(),
            1 => answer.blocks.reverse(),
            2 => answer.blocks.iter_mut().for_each(|stored| stored.commit = None),
            3 => answer.blocks.iter_mut().for_each(|stored| stored.block.payload.push(0)),
            4 => answer
                .blocks
                .iter_mut()
                .for_each(|stored| stored.block.header.view = stored.block.header.view.next()),
            5 => drop(answer.blocks.drain(..answer.blocks.len() / 2)),
            6 => answer.head = None,
            _ => {}
        }
        answer
    }
}
