//! The event loop of a simulated network.

use crate::byzantine::{Behaviour, Byzantine, Sent};
use crate::checks::{NothingSlashable, OneChain, durable_before_sent, executed_before_final};
use crate::disk::{CrashPoint, SimDisk};
use crate::executor::SimExecutor;
use crate::plan::Plan;
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
use types::{
    Address, B256, ConsensusMessage, Domain, Epoch, FetchRequest, FetchResponse, Height, QuorumRule, Stake,
    Validator, ValidatorIndex, ValidatorSet,
};

/// Lines of the event log kept for a failure report.
const LOG_LINES_MAX: usize = 4_000;
const CHAIN_ID: u64 = 31337;
/// Wall clock at the start of every run, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A transaction comes in every second one of these spans, on average.
const TRANSACTION_SLOT_MS: u64 = 500;
/// Spans looked through for one.
const TRANSACTION_SLOTS_MAX: usize = 64;

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

/// Runs a plan to its end.
pub fn run(plan: &Plan) -> Result<Report, Box<Failure>> {
    let mut world = World::new(plan.clone());
    world.run().map_err(|what| Box::new(Failure { what, log: world.log.iter().cloned().collect() }))
}

#[derive(Debug)]
struct Node {
    /// The validator it is; a number outside the set for followers.
    who: usize,
    replica: Option<Replica>,
    disk: SimDisk,
    executor: SimExecutor,
    /// Rises with every crash; answers to an earlier life are dropped.
    life: u64,
    /// Rises with every death of the executor.
    executor_life: u64,
    tick_at_us: u64,
    skew_ms: i64,
    /// Its messages may be late by up to this much.
    slow_us: u64,
    byzantine: Option<Byzantine>,
}

#[derive(Debug)]
enum What {
    Tick { node: usize, life: u64 },
    Deliver { from: usize, to: usize, message: Arc<ConsensusMessage> },
    Reply { node: usize, life: u64, executor_life: u64, reply: EngineReply },
    Call { node: usize, life: u64, executor_life: u64, request: Request },
    Finalize { node: usize, life: u64, executor_life: u64, choice: types::engine::Forkchoice },
    FetchAsked { from: usize, life: u64, id: u64, to: usize, request: FetchRequest },
    Fetched { node: usize, life: u64, id: u64, result: Result<FetchResponse, String> },
    Fault(Fault),
}

#[derive(Clone, Debug)]
enum Fault {
    Crash,
    Restart(usize),
    ExecutorDies,
    ExecutorReturns { node: usize, forgetful: bool },
    Partition,
    Heal,
    Slow,
    Fast(usize),
    Reconnect,
    ClockJump,
    End,
}

/// A simulated network.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    rng: ChaCha8Rng,
    now_us: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), What>,
    set: Arc<ValidatorSet>,
    nodes: Vec<Node>,
    /// Pairs of which the first cannot talk to the second.
    cut: BTreeSet<(usize, usize)>,
    /// Pairs with a connection; a silent partition leaves it standing.
    linked: BTreeSet<(usize, usize)>,
    faults: bool,
    one_chain: OneChain,
    nothing_slashable: NothingSlashable,
    finalized: Vec<Height>,
    trace: B256,
    log: VecDeque<String>,
    events: u64,
    crashes: u64,
    same_instant: u64,
}

impl World {
    /// A network at genesis.
    pub fn new(plan: Plan) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(plan.seed ^ 0x7a6e_d31f);
        let validators = plan.stakes.iter().enumerate().map(|(i, stake)| Validator {
            address: Address::left_padding_from(&(i as u64 + 1).to_be_bytes()),
            public_key: SecretKey::simulated(i as u64).public_key(),
            stake: Stake::new(*stake),
        });
        let set = ValidatorSet::simulated(Epoch::ZERO, validators.collect(), QuorumRule::default());
        let set = Arc::new(set.expect("plans hold valid stakes"));
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
            faults: true,
            one_chain: OneChain::default(),
            nothing_slashable: NothingSlashable::default(),
            finalized: vec![Height::ZERO; count],
            trace: B256::ZERO,
            log: VecDeque::new(),
            events: 0,
            crashes: 0,
            same_instant: 0,
            set,
            plan,
        };
        for index in 0..count {
            let skew_ms = world.draw_skew();
            let twin = index.checked_sub(world.plan.stakes.len() + world.plan.followers);
            world.nodes.push(Node {
                who: twin.map_or(index, |twin| twins[twin]),
                replica: None,
                disk: SimDisk::default(),
                executor: SimExecutor::new(world.genesis_hash()),
                life: 0,
                executor_life: 0,
                tick_at_us: u64::MAX,
                skew_ms,
                slow_us: 0,
                byzantine: None,
            });
            let delay = world.rng.random_range(0..50_000);
            world.schedule(delay, What::Fault(Fault::Restart(index)));
        }
        world.corrupt();
        for (every_ms, fault) in [
            (world.plan.crash_every_ms, Fault::Crash),
            (world.plan.executor_fault_every_ms, Fault::ExecutorDies),
            (world.plan.partition_every_ms, Fault::Partition),
            (world.plan.slow_every_ms, Fault::Slow),
            (world.plan.reconnect_every_ms, Fault::Reconnect),
            (world.plan.clock_jump_every_ms, Fault::ClockJump),
        ] {
            if every_ms > 0 {
                world.schedule(every_ms * 1000, What::Fault(fault));
            }
        }
        world.schedule(world.plan.faults_ms * 1000, What::Fault(Fault::End));
        world
    }

    fn draw_skew(&mut self) -> i64 {
        let skew = self.plan.clock_skew_ms as i64;
        if skew == 0 { 0 } else { self.rng.random_range(-skew..=skew) }
    }

    fn corrupt(&mut self) {
        let domain = Domain { chain_id: CHAIN_ID, genesis_hash: self.genesis_hash(), epoch: 0 };
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
    fn places_of(&self, validator: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].who == validator).collect()
    }

    fn index_of(&self, node: usize) -> ValidatorIndex {
        ValidatorIndex::new(self.nodes[node].who as u32)
    }

    fn is_honest(&self, node: usize) -> bool {
        self.nodes[node].byzantine.is_none()
    }

    /// The executor of a node, for tests that make it lie or die.
    pub fn executor(&mut self, node: usize) -> &mut SimExecutor {
        &mut self.nodes[node].executor
    }

    /// A node's replica, when it runs.
    pub fn replica(&self, node: usize) -> Option<&Replica> {
        self.nodes[node].replica.as_ref()
    }

    fn is_validator(&self, node: usize) -> bool {
        self.nodes[node].who < self.plan.stakes.len()
    }

    fn genesis_hash(&self) -> B256 {
        B256::repeat_byte(0x11)
    }

    fn settings(&self, node: usize) -> Settings {
        Settings {
            chain_id: CHAIN_ID,
            genesis_hash: self.genesis_hash(),
            genesis_timestamp_ms: EPOCH_MS - 10_000,
            seed: tagged_hash("tandem simulation seed", &[&self.plan.seed.to_le_bytes()]),
            validators: self.set.clone(),
            timing: Timing { delta_ms: 100, work_ms: 50, ..Timing::default() },
            limits: PayloadLimits { bytes: 1 << 20, gas: 30_000_000, objects: u64::MAX },
            key: self.is_validator(node).then(|| SecretKey::simulated(self.nodes[node].who as u64)),
            fee_recipient: Address::ZERO,
        }
    }

    /// Runs to the end of the plan: faults, then healing, then the heights asked for.
    pub fn run(&mut self) -> Result<Report, String> {
        let deadline_us = (self.plan.faults_ms + self.plan.recovery_ms) * 1000;
        let (mut target, mut healed_us) = (None, 0);
        while self.step()? {
            if !self.faults && target.is_none() {
                target = Some(Height::new(self.one_chain.height().get() + self.plan.heights_after));
                healed_us = self.now_us;
            }
            let honest = (0..self.nodes.len()).filter(|node| self.is_honest(*node));
            if target.is_some_and(|target| honest.into_iter().all(|node| self.finalized[node] >= target)) {
                let views =
                    self.nodes.iter().filter_map(|n| n.replica.as_ref()).map(|r| r.view().get()).max();
                return Ok(Report {
                    trace: self.trace,
                    height: self.one_chain.height(),
                    views: views.unwrap_or(0),
                    events: self.events,
                    crashes: self.crashes,
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
            What::Deliver { from, to, message } => {
                self.provoke(to, &message);
                let from = self.index_of(from);
                self.handle(to, Input::Message { from, message: (*message).clone() })?;
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
        let line = match what {
            What::Deliver { from, to, message } => format!("{from} -> {to} {message:?}"),
            other => format!("{other:?}"),
        };
        self.trace = tagged_hash(
            "tandem trace",
            &[self.trace.as_slice(), &self.now_us.to_le_bytes(), line.as_bytes()],
        );
        let short: String = line.chars().take(260).collect();
        self.log.push_back(format!("{:>10.3} {short}", self.now_us as f64 / 1000.0));
        if self.log.len() > LOG_LINES_MAX {
            self.log.pop_front();
        }
    }

    fn schedule(&mut self, delay_us: u64, what: What) {
        self.sequence += 1;
        self.queue.insert((self.now_us + delay_us, self.sequence), what);
    }

    fn now(&self, node: usize) -> Now {
        let mono_ms = self.now_us / 1000;
        Now { mono_ms, wall_ms: (EPOCH_MS + mono_ms).saturating_add_signed(self.nodes[node].skew_ms) }
    }

    /// Gives a node an input and does what it says, in the order the shell of a real node does.
    fn handle(&mut self, node: usize, input: Input) -> Result<(), String> {
        let now = self.now(node);
        let Some(mut replica) = self.nodes[node].replica.take() else { return Ok(()) };
        let mut ready = replica.handle(now, input, &self.nodes[node].disk).map_err(|e| e.to_string())?;
        for request in ready.take_requests() {
            self.start(node, request);
        }
        let deadline = replica.deadline();
        if deadline <= now.mono_ms {
            return Err(format!(
                "BUSY LOOP: node {node} wants to be called again at {deadline}, it is {}",
                now.mono_ms
            ));
        }
        match ready.persist(&mut self.nodes[node].disk) {
            Ok(outbound) => {
                self.nodes[node].replica = Some(replica);
                for effect in outbound {
                    self.outbound(node, effect)?;
                }
                self.set_tick(node, deadline);
            }
            Err(_) => self.power_lost(node)?,
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
                let places = self.places_of(peer.get() as usize);
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
                let delay = self.rng.random_range(50..3_000);
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
                let payload: Vec<u8> =
                    (0..payload_size).map(|i| (i as u64 ^ request.view.get()) as u8).collect();
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
        let delay = self.rng.random_range(20..500);
        self.schedule(delay, What::Reply { node, life, executor_life, reply });
    }

    fn outbound(&mut self, node: usize, effect: Outbound) -> Result<(), String> {
        let index = self.index_of(node);
        match effect {
            Outbound::Send(to, message) => self.send(node, index, &[to.get() as usize], message),
            Outbound::Broadcast(message) => {
                // Votes and proposals go to validators only.
                let own = self.nodes[node].who;
                let others: Vec<usize> = (0..self.plan.stakes.len()).filter(|other| *other != own).collect();
                self.send(node, index, &others, message)
            }
            Outbound::Finalize(choice) => {
                let (life, executor_life) = (self.nodes[node].life, self.nodes[node].executor_life);
                let delay = self.rng.random_range(50..4_000);
                self.schedule(delay, What::Finalize { node, life, executor_life, choice });
                Ok(())
            }
            Outbound::Event(Event::Finalized { block, block_hash, .. }) => {
                let height = block.header.height;
                if !self.is_honest(node) {
                    return Ok(());
                }
                executed_before_final(&self.nodes[node].executor, node, height, block_hash)?;
                self.one_chain.finalized(node, height, block_hash)?;
                self.finalized[node] = self.finalized[node].max(height);
                Ok(())
            }
            Outbound::Event(Event::Alarm(what)) if self.is_honest(node) => {
                Err(format!("ALARM at node {node}: {what}"))
            }
            Outbound::Event(Event::Misbehaviour { validator, what })
                if self.is_honest(node) && self.is_honest(validator.get() as usize) =>
            {
                Err(format!("node {node} accuses the honest validator {validator}: {what}"))
            }
            Outbound::Event(_) => Ok(()),
        }
    }

    fn send(
        &mut self,
        node: usize,
        index: ValidatorIndex,
        to: &[usize],
        message: ConsensusMessage,
    ) -> Result<(), String> {
        let to: Vec<usize> = to.iter().flat_map(|validator| self.places_of(*validator)).collect();
        if !self.is_validator(node) {
            // The mesh refuses messages of nodes outside the set.
            return Ok(());
        }
        if let Some(liar) = &mut self.nodes[node].byzantine {
            let sent = liar.twist(&to, &message, &mut self.rng);
            self.send_lies(node, sent);
            return Ok(());
        }
        durable_before_sent(&self.nodes[node].disk, index, &message)?;
        self.nothing_slashable.sent(index, &message)?;
        let message = Arc::new(message);
        for to in to {
            let copies =
                1 + usize::from(self.faults && self.rng.random_ratio(self.plan.duplicate_permille, 1000));
            for _ in 0..copies {
                if let Some(delay) = self.link_delay(node, to) {
                    self.schedule(delay, What::Deliver { from: node, to, message: message.clone() });
                }
            }
        }
        Ok(())
    }

    fn send_lies(&mut self, node: usize, sent: Vec<Sent>) {
        for (to, message, extra) in sent {
            if let Some(delay) = self.link_delay(node, to) {
                self.schedule(delay + extra, What::Deliver { from: node, to, message: Arc::new(message) });
            }
        }
    }

    fn provoke(&mut self, node: usize, message: &ConsensusMessage) {
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
        let late = self.nodes[from].slow_us;
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
            Some(replica) => Ok(replica.serve(request, &self.nodes[to].disk).map_err(|e| e.to_string())?),
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

    // Faults.

    fn fault(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Crash => self.crash_some_node(),
            Fault::Restart(node) => self.restart(node)?,
            Fault::ExecutorDies => self.executor_dies()?,
            Fault::ExecutorReturns { node, forgetful } => self.executor_returns(node, forgetful)?,
            Fault::Partition => self.partition(),
            Fault::Heal => self.heal()?,
            Fault::Slow => self.slow_down(),
            Fault::Fast(node) => self.nodes[node].slow_us = 0,
            Fault::Reconnect => self.reconnect()?,
            Fault::ClockJump => self.clock_jumps(),
            Fault::End => {
                self.faults = false;
                self.heal()?;
                for node in 0..self.nodes.len() {
                    self.nodes[node].slow_us = 0;
                    self.nodes[node].skew_ms = self.draw_skew();
                    self.nodes[node].disk.crash = None;
                    if !self.nodes[node].executor.alive {
                        self.executor_returns(node, true)?;
                    }
                    if self.nodes[node].replica.is_none() {
                        self.restart(node)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn again(&mut self, every_ms: u64, fault: Fault) {
        if self.faults {
            let delay = self.rng.random_range(1..=2 * every_ms * 1000);
            self.schedule(delay, What::Fault(fault));
        }
    }

    /// The next fsync of some node does not come back as it should.
    fn crash_some_node(&mut self) {
        if !self.faults {
            return;
        }
        let node = self.rng.random_range(0..self.nodes.len());
        let point = match self.rng.random_range(0..4) {
            0 => CrashPoint::Before,
            1 => CrashPoint::Complete,
            count => CrashPoint::After(count - 1),
        };
        self.nodes[node].disk.crash = Some(point);
        self.nodes[node].disk.spared = self.rng.random_range(0..3);
        self.again(self.plan.crash_every_ms, Fault::Crash);
    }

    fn power_lost(&mut self, node: usize) -> Result<(), String> {
        self.crashes += 1;
        self.nodes[node].replica = None;
        self.nodes[node].life += 1;
        self.nodes[node].tick_at_us = u64::MAX;
        if self.nodes[node].byzantine.as_ref().is_some_and(|b| b.behaviour == Behaviour::Amnesiac) {
            self.nodes[node].disk.forget_votes();
        }
        // Half of the time the whole machine goes, and the executor's memory with it.
        if self.rng.random() {
            self.nodes[node].executor.restart();
            self.nodes[node].executor_life += 1;
        }
        let delay = self.rng.random_range(1_000..3_000_000);
        self.schedule(delay, What::Fault(Fault::Restart(node)));
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if self.linked.remove(&pair(node, other)) {
                self.handle(other, Input::Disconnected(self.index_of(node)))?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].replica.is_some() {
            return Ok(());
        }
        let (settings, now) = (self.settings(node), self.now(node));
        let recovered = self.nodes[node].disk.recover();
        let replica =
            Replica::new(settings, recovered, &self.nodes[node].disk, now).map_err(|e| e.to_string())?;
        self.nodes[node].replica = Some(replica);
        if self.nodes[node].executor.alive {
            let head = self.nodes[node].executor.head();
            self.handle(node, Input::Engine(EngineReply::Up(head)))?;
        }
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.connect(node, other)?;
        }
        self.handle(node, Input::Tick)
    }

    /// Links two nodes that run and can talk, unless they are linked.
    fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        let run = self.nodes[a].replica.is_some() && self.nodes[b].replica.is_some();
        if !run || self.cut.contains(&(a, b)) || self.cut.contains(&(b, a)) || !self.linked.insert(pair(a, b))
        {
            return Ok(());
        }
        self.handle(a, Input::Connected(self.index_of(b)))?;
        self.handle(b, Input::Connected(self.index_of(a)))
    }

    fn executor_dies(&mut self) -> Result<(), String> {
        let node = self.rng.random_range(0..self.nodes.len());
        let forgetful = self.rng.random();
        if self.faults && self.nodes[node].executor.alive {
            self.nodes[node].executor.alive = false;
            self.handle(node, Input::Engine(EngineReply::Down("simulated death".into())))?;
            let delay = self.rng.random_range(10_000..4_000_000);
            self.schedule(delay, What::Fault(Fault::ExecutorReturns { node, forgetful }));
        }
        self.again(self.plan.executor_fault_every_ms, Fault::ExecutorDies);
        Ok(())
    }

    fn executor_returns(&mut self, node: usize, forgetful: bool) -> Result<(), String> {
        if self.nodes[node].executor.alive {
            return Ok(());
        }
        if forgetful {
            self.nodes[node].executor.restart();
            self.nodes[node].executor_life += 1;
        }
        self.nodes[node].executor.alive = true;
        let head = self.nodes[node].executor.head();
        self.handle(node, Input::Engine(EngineReply::Up(head)))
    }

    fn partition(&mut self) {
        if !self.faults {
            return;
        }
        let side: Vec<bool> = self.nodes.iter().map(|_| self.rng.random()).collect();
        let one_way = self.rng.random_ratio(self.plan.one_way_permille, 1000);
        for a in 0..side.len() {
            for b in 0..side.len() {
                if side[a] != side[b] && !(one_way && side[a]) {
                    self.cut.insert((a, b));
                }
            }
        }
        let lasts = self.rng.random_range(10_000..5_000_000);
        self.schedule(lasts, What::Fault(Fault::Heal));
    }

    /// Everything a node sends takes up to seconds for a while.
    fn slow_down(&mut self) {
        if !self.faults {
            return;
        }
        let node = self.rng.random_range(0..self.nodes.len());
        self.nodes[node].slow_us = self.rng.random_range(100_000..4_000_000);
        let lasts = self.rng.random_range(100_000..6_000_000);
        self.schedule(lasts, What::Fault(Fault::Fast(node)));
        self.again(self.plan.slow_every_ms, Fault::Slow);
    }

    /// A link is reported up again, sometimes without having been reported down.
    fn reconnect(&mut self) -> Result<(), String> {
        let links: Vec<_> = self.linked.iter().copied().collect();
        if let Some((a, b)) = links.choose(&mut self.rng).copied() {
            if self.rng.random() {
                self.handle(a, Input::Disconnected(self.index_of(b)))?;
            }
            self.handle(a, Input::Connected(self.index_of(b)))?;
        }
        self.again(self.plan.reconnect_every_ms, Fault::Reconnect);
        Ok(())
    }

    /// A wall clock moves by up to hours, in either direction, and back at the next jump.
    fn clock_jumps(&mut self) {
        if !self.faults {
            return;
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].skew_ms = self.draw_skew();
        }
        let node = self.rng.random_range(0..self.nodes.len());
        self.nodes[node].skew_ms = self.rng.random_range(-20_000_000..=20_000_000);
        self.again(self.plan.clock_jump_every_ms, Fault::ClockJump);
    }

    fn heal(&mut self) -> Result<(), String> {
        for (a, b) in std::mem::take(&mut self.cut) {
            if !self.plan.silent_heal {
                self.linked.remove(&pair(a, b));
            }
            self.connect(a, b)?;
        }
        if self.plan.partition_every_ms > 0 {
            self.again(self.plan.partition_every_ms, Fault::Partition);
        }
        Ok(())
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
