//! What goes wrong in a world: nodes, disks, executors, links and clocks.

use crate::byzantine::Behaviour;
use crate::checks::{no_proof_without_the_vote, nothing_forgotten};
use crate::disk::CrashPoint;
use crate::executor::SimExecutor;
use crate::storage::{Failure, Frailty};
use crate::world::{What, World};
use consensus::{Disk, EngineReply, Input, Replica};
use rand::Rng;
use rand::seq::IndexedRandom;

/// One thing that goes wrong, or ends.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Some node's power goes in a coming write.
    Crash,
    Restart(usize),
    ExecutorDies,
    ExecutorReturns {
        node: usize,
        forgetful: bool,
    },
    Partition,
    /// A partition ends; `again` says whether another one follows.
    Heal {
        again: bool,
    },
    Slow,
    Fast(usize),
    SlowLink,
    FastLink(usize, usize),
    Reconnect,
    ClockJump,
    DiskFull,
    SpaceAgain(usize),
    /// A frail disk breaks its promise.
    DiskWeak,
    /// Old messages come again.
    Replay,
    /// An amnesiac restarts.
    Amnesia(usize),
    /// Everything heals.
    End,
}

/// Mean time between restarts of an amnesiac.
const AMNESIA_EVERY_MS: u64 = 4_000;

impl World {
    /// Does what a fault says.
    pub(crate) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Crash => self.crash_some_node(),
            Fault::Restart(node) => self.restart(node)?,
            Fault::ExecutorDies => self.executor_dies()?,
            Fault::ExecutorReturns { node, forgetful } => self.executor_returns(node, forgetful)?,
            Fault::Partition => self.partition(true),
            Fault::Heal { again } => self.heal(again)?,
            Fault::Slow => self.slow_down(),
            Fault::Fast(node) => self.nodes[node].slow_us = 0,
            Fault::SlowLink => self.slow_a_link(),
            Fault::FastLink(from, to) => drop(self.slow_links.remove(&(from, to))),
            Fault::DiskFull => self.fill_some_disk(),
            Fault::SpaceAgain(node) => self.nodes[node].storage.set_full(false),
            Fault::DiskWeak => self.weaken_some_disk(),
            Fault::Amnesia(node) => {
                self.nodes[node].storage.arm(CrashPoint::Complete, 0);
                self.again(AMNESIA_EVERY_MS, Fault::Amnesia(node));
            }
            Fault::Replay => {
                self.deliver_again(None);
                self.again(self.plan.replay_every_ms, Fault::Replay);
            }
            Fault::Reconnect => self.reconnect()?,
            Fault::ClockJump => self.clock_jumps(),
            Fault::End => self.end_of_faults()?,
        }
        Ok(())
    }

    fn end_of_faults(&mut self) -> Result<(), String> {
        self.faults = false;
        self.heal(false)?;
        self.slow_links.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].slow_us = 0;
            self.nodes[node].skew_ms = self.draw_skew();
            self.nodes[node].storage.relax();
            if !self.nodes[node].executor.alive {
                self.executor_returns(node, true)?;
            }
            if self.nodes[node].replica.is_none() {
                self.restart(node)?;
            }
        }
        Ok(())
    }

    /// The first fault of each kind.
    pub(crate) fn schedule_faults(&mut self) {
        let frail_every_ms = if self.plan.frail.is_empty() { 0 } else { self.plan.frail_every_ms };
        for (every_ms, fault) in [
            (self.plan.crash_every_ms, Fault::Crash),
            (self.plan.full_every_ms, Fault::DiskFull),
            (frail_every_ms, Fault::DiskWeak),
            (self.plan.replay_every_ms, Fault::Replay),
            (self.plan.executor_fault_every_ms, Fault::ExecutorDies),
            (self.plan.partition_every_ms, Fault::Partition),
            (self.plan.slow_every_ms, Fault::Slow),
            (self.plan.slow_link_every_ms, Fault::SlowLink),
            (self.plan.reconnect_every_ms, Fault::Reconnect),
            (self.plan.clock_jump_every_ms, Fault::ClockJump),
        ] {
            if every_ms > 0 {
                self.schedule(every_ms * 1000, What::Fault(fault));
            }
        }
        for (node, behaviour) in self.plan.byzantine.clone() {
            if behaviour == Behaviour::Amnesiac {
                self.schedule(AMNESIA_EVERY_MS * 1000, What::Fault(Fault::Amnesia(node)));
            }
        }
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
        let spared = self.rng.random_range(0..3);
        self.nodes[node].storage.arm(point, spared);
        self.tell(|| format!("n{node} will lose power: {point:?} of write {}", spared + 1));
        self.again(self.plan.crash_every_ms, Fault::Crash);
    }

    /// A `persist` did not come back: the power went, or there is no space.
    pub(crate) fn persist_failed(&mut self, node: usize) -> Result<(), String> {
        match self.nodes[node].storage.failure() {
            Some(Failure::Full) => {
                self.coverage.note("writes without space");
                self.process_ends(node)
            }
            _ => self.power_lost(node),
        }
    }

    fn power_lost(&mut self, node: usize) -> Result<(), String> {
        self.crashes += 1;
        self.coverage.note("power losses in writes");
        let remembers = self.nodes[node].storage.claimed().is_some();
        let liar = self.nodes[node].byzantine.as_mut();
        if let Some(liar) = liar.filter(|liar| liar.behaviour == Behaviour::Amnesiac) {
            liar.acts += u64::from(remembers);
            self.nodes[node].storage.forget_votes();
        }
        let shown = self.nodes[node].storage.power_off();
        if let Some(weakness) = shown {
            self.coverage.note(weakness.name());
            self.tell(|| format!("n{node} {}", weakness.name()));
        }
        // Half of the time the whole machine goes, and the executor's memory with it; with its disk, its state.
        if self.rng.random() {
            match shown {
                Some(Frailty::DiskLost) => {
                    self.nodes[node].executor = SimExecutor::with_sets(self.genesis_hash(), self.sets.clone())
                }
                _ => self.nodes[node].executor.restart(),
            }
            self.nodes[node].executor_life += 1;
        }
        self.process_ends(node)
    }

    /// A read of a frail disk failed: the node ends, as a real one does.
    pub(crate) fn disk_fails(&mut self, node: usize) -> Result<(), String> {
        self.coverage.note("reads of damaged blocks");
        self.process_ends(node)
    }

    fn process_ends(&mut self, node: usize) -> Result<(), String> {
        self.tell(|| format!("n{node} ends"));
        self.nodes[node].replica = None;
        self.nodes[node].life += 1;
        self.nodes[node].tick_at_us = u64::MAX;
        let delay = self.rng.random_range(1_000..3_000_000);
        self.schedule(delay, What::Fault(Fault::Restart(node)));
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if self.linked.remove(&pair(node, other)) {
                self.tell_link(other, node, false)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].replica.is_some() {
            return Ok(());
        }
        // A disk that shows less than it had acknowledged: an operator replaces it, sooner or later.
        if self.nodes[node].refuses && (!self.faults || self.rng.random()) {
            self.nodes[node].refuses = false;
            self.nodes[node].storage.replace();
            self.coverage.note("damaged disks replaced");
        }
        match self.started(node) {
            Ok(replica) => {
                let (epoch, who) = (replica.epoch(), self.nodes[node].who);
                self.nodes[node].epoch = epoch;
                self.nodes[node].replica = Some(replica);
                let index = self.sets.index(who, epoch);
                if let (Some(liar), Some(index)) = (&mut self.nodes[node].byzantine, index) {
                    liar.enter_epoch(epoch, index);
                }
            }
            Err(why) if self.nodes[node].frail.is_some() => {
                self.coverage.note("starts refused for damage");
                self.tell(|| format!("n{node} refuses to start: {why}"));
                self.nodes[node].refuses = true;
                let delay = self.rng.random_range(500_000..4_000_000);
                self.schedule(delay, What::Fault(Fault::Restart(node)));
                return Ok(());
            }
            Err(why) => return Err(format!("REFUSED TO START: node {node} after an honest crash: {why}")),
        }
        if self.nodes[node].executor.alive {
            let head = self.nodes[node].executor.head();
            self.handle(node, Input::Engine(EngineReply::Up(head)))?;
        }
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.connect(node, other)?;
        }
        if self.faults && !self.history.is_empty() {
            self.deliver_again(Some(node));
        }
        self.handle(node, Input::Tick)
    }

    /// What a start finds. An accountable validator finds everything it had called durable (C-7.5), and the block it
    /// voted for last (C-9).
    fn started(&mut self, node: usize) -> Result<Replica, String> {
        let (settings, now) = (self.settings(node), self.now(node));
        let claimed = self.nodes[node].storage.claimed().cloned();
        let recovered = self.nodes[node].storage.recover()?;
        if self.is_accountable(node) {
            nothing_forgotten(claimed.as_ref(), recovered.sign_state.as_ref())?;
            if let Some(qc) = &recovered.commit {
                let own = self.index_of(node, qc.epoch);
                no_proof_without_the_vote(own, qc, recovered.sign_state.as_ref())?;
            }
            if let Some(vote) = recovered.sign_state.as_ref().and_then(|state| state.last_prepare.as_ref()) {
                let hash = vote.statement.block_hash;
                let stored = self.nodes[node].storage.block(&hash).map_err(|error| error.to_string())?;
                stored.ok_or(format!("voted for block {hash}, which is not stored"))?;
            }
        }
        let replica = Replica::new(settings, recovered, &self.nodes[node].storage, now);
        let replica = replica.map_err(|error| error.to_string())?;
        // Twins and validators that forget their votes would notice themselves and stop. So would those whose disks
        // forget; half of them may, the other half shows what they do to the others if not.
        let frail = self.nodes[node].frail.is_some();
        let blind = self.nodes[node].byzantine.is_some() || (frail && self.plan.seed.is_multiple_of(2));
        Ok(if blind { replica.without_own_key_watch() } else { replica })
    }

    /// Links two nodes that run and can talk, unless they are linked.
    fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        let run = self.nodes[a].replica.is_some() && self.nodes[b].replica.is_some();
        if !run || self.cut.contains(&(a, b)) || self.cut.contains(&(b, a)) || !self.linked.insert(pair(a, b))
        {
            return Ok(());
        }
        self.tell_link(a, b, true)?;
        self.tell_link(b, a, true)
    }

    fn executor_dies(&mut self) -> Result<(), String> {
        let node = self.rng.random_range(0..self.nodes.len());
        let forgetful = self.rng.random();
        if self.faults && self.nodes[node].executor.alive {
            self.nodes[node].executor.alive = false;
            self.coverage.note("executor deaths");
            self.tell(|| format!("n{node} executor dies"));
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

    /// Groups that cannot talk, for a while; `again`: and others after it.
    pub(crate) fn partition(&mut self, again: bool) {
        if !self.faults {
            return;
        }
        let side: Vec<bool> = self.nodes.iter().map(|_| self.rng.random()).collect();
        let one_way = self.rng.random_ratio(self.plan.one_way_permille, 1000);
        self.coverage.note(if one_way { "one-way partitions" } else { "partitions" });
        self.tell(|| {
            let names = |left| (0..side.len()).filter(|node| side[*node] == left).collect::<Vec<_>>();
            let arrow = if one_way { "hears nothing from" } else { "is cut off from" };
            format!("{:?} {arrow} {:?}", names(true), names(false))
        });
        for a in 0..side.len() {
            for b in 0..side.len() {
                if side[a] != side[b] && !(one_way && side[a]) {
                    self.cut.insert((a, b));
                }
            }
        }
        let lasts = self.rng.random_range(10_000..5_000_000);
        self.schedule(lasts, What::Fault(Fault::Heal { again }));
    }

    /// Everything a node sends takes up to seconds for a while.
    fn slow_down(&mut self) {
        if !self.faults {
            return;
        }
        let node = self.rng.random_range(0..self.nodes.len());
        self.coverage.note("slow nodes");
        self.nodes[node].slow_us = self.rng.random_range(100_000..4_000_000);
        let lasts = self.rng.random_range(100_000..6_000_000);
        self.schedule(lasts, What::Fault(Fault::Fast(node)));
        self.again(self.plan.slow_every_ms, Fault::Slow);
    }

    /// What one node sends to another takes up to seconds for a while; the way back does not.
    fn slow_a_link(&mut self) {
        if !self.faults {
            return;
        }
        let (from, to) =
            (self.rng.random_range(0..self.nodes.len()), self.rng.random_range(0..self.nodes.len()));
        self.coverage.note("slow links");
        let late = self.rng.random_range(100_000..4_000_000);
        self.slow_links.insert((from, to), late);
        let lasts = self.rng.random_range(100_000..6_000_000);
        self.schedule(lasts, What::Fault(Fault::FastLink(from, to)));
        self.again(self.plan.slow_link_every_ms, Fault::SlowLink);
    }

    /// Old messages come again, to whom they were sent or to one node.
    fn deliver_again(&mut self, only: Option<usize>) {
        if !self.faults || self.history.is_empty() {
            return;
        }
        for _ in 0..self.rng.random_range(1..=30) {
            let (from, to, letter) = self.history.choose(&mut self.rng).cloned().expect("it is not empty");
            let to = only.unwrap_or(to);
            if self.nodes[to].who == self.nodes[from].who {
                continue;
            }
            self.coverage.note("replayed messages");
            let delay = self.rng.random_range(0..200_000);
            self.schedule(delay, What::Deliver { from, to, letter });
        }
    }

    /// Some disk has no space left for a while.
    fn fill_some_disk(&mut self) {
        if !self.faults {
            return;
        }
        let node = self.rng.random_range(0..self.nodes.len());
        self.nodes[node].storage.set_full(true);
        self.tell(|| format!("n{node} has no space left"));
        let lasts = self.rng.random_range(100_000..8_000_000);
        self.schedule(lasts, What::Fault(Fault::SpaceAgain(node)));
        self.again(self.plan.full_every_ms, Fault::DiskFull);
    }

    /// A frail disk begins to break its promise; a power loss soon shows it.
    fn weaken_some_disk(&mut self) {
        if !self.faults {
            return;
        }
        if let Some((node, how)) = self.plan.frail.choose(&mut self.rng).copied()
            && self.nodes[node].replica.is_some()
        {
            self.nodes[node].storage.weaken(how);
            self.tell(|| format!("n{node} has a weak disk: {how:?}"));
            let point = if self.rng.random() { CrashPoint::Before } else { CrashPoint::Complete };
            let spared = self.rng.random_range(0..40);
            self.nodes[node].storage.arm(point, spared);
        }
        self.again(self.plan.frail_every_ms, Fault::DiskWeak);
    }

    /// A link is reported up again, sometimes without having been reported down.
    fn reconnect(&mut self) -> Result<(), String> {
        let links: Vec<_> = self.linked.iter().copied().collect();
        if let Some((a, b)) = links.choose(&mut self.rng).copied() {
            if self.rng.random() {
                self.tell_link(a, b, false)?;
            }
            self.tell_link(a, b, true)?;
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
        self.coverage.note("clock jumps");
        self.nodes[node].skew_ms = self.rng.random_range(-20_000_000..=20_000_000);
        self.again(self.plan.clock_jump_every_ms, Fault::ClockJump);
    }

    fn heal(&mut self, again: bool) -> Result<(), String> {
        for (a, b) in std::mem::take(&mut self.cut) {
            if !self.plan.silent_heal {
                self.linked.remove(&pair(a, b));
            }
            self.connect(a, b)?;
        }
        if again {
            self.again(self.plan.partition_every_ms, Fault::Partition);
        }
        Ok(())
    }
}

pub(crate) fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
