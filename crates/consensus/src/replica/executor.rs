//! The executor's leash (C-5.3): replaying what it missed, giving it blocks in order, making blocks final. Fail
//! closed: without a live executor at the chain's height nothing is voted on.

use super::{EngineReply, Now, Replica};
use crate::disk::{Disk, DiskError, Record};
use crate::ready::{Event, Outbound, Request};
use crate::tree::Verdict;
use std::collections::BTreeMap;
use types::engine::{EngineError, FinalizedState, Forkchoice, PayloadStatus};
use types::{B256, Height, RejectionCode};

/// Pause before an executor that failed is asked for its state again.
const RETRY_MS: u64 = 200;
/// Longest time a block waits that the executor gave no verdict on.
const HOLD_MS_MAX: u64 = 5_000;
/// Blocks replayed between two calls that make them final.
const REPLAY_BATCH: u64 = 32;

/// What is known of the executor.
#[derive(Debug)]
pub(super) struct Executor {
    state: State,
    /// A call that makes this block final is under way.
    finalizing: Option<B256>,
    /// When to ask a failed executor again.
    retry_ms: Option<u64>,
    /// Why the last call failed, until one succeeds.
    last_error: Option<String>,
    /// Blocks it gave no verdict on, so that one it chokes on cannot keep it from all others.
    held: BTreeMap<B256, Held>,
}

/// A block that is not given to the executor for a while.
#[derive(Debug)]
struct Held {
    failures: u32,
    until_ms: Option<u64>,
}

#[derive(Debug)]
enum State {
    Down(String),
    /// Giving it finalized blocks it lacks.
    Replaying {
        next: Height,
        block_hash: B256,
        /// State hash and receipts hash in its header.
        hashes: (B256, B256),
        durable: Height,
    },
    Up(FinalizedState),
}

impl Default for Executor {
    fn default() -> Self {
        let state = State::Down("not connected yet".into());
        Self { state, finalizing: None, retry_ms: None, last_error: None, held: BTreeMap::new() }
    }
}

impl Executor {
    /// Its durable head, when it is there and not behind.
    pub(super) fn up(&self) -> Option<FinalizedState> {
        match &self.state {
            State::Up(head) => Some(*head),
            State::Down(_) | State::Replaying { .. } => None,
        }
    }

    pub(super) fn down_reason(&self) -> Option<String> {
        match &self.state {
            State::Down(reason) => Some(reason.clone()),
            State::Replaying { next, .. } => Some(format!("replaying block {next} to the executor")),
            State::Up(_) => None,
        }
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let held = self.held.values().filter_map(|held| held.until_ms).min();
        self.retry_ms.into_iter().chain(held.filter(|_| self.up().is_some())).min()
    }

    /// The first failure may be the executor's restart; from the second one on the block waits, twice as long each
    /// time.
    fn hold(&mut self, now: Now, block_hash: B256) {
        let held = self.held.entry(block_hash).or_insert(Held { failures: 0, until_ms: None });
        let pause_ms = (RETRY_MS << held.failures.min(8)).min(HOLD_MS_MAX);
        held.until_ms = (held.failures > 0).then(|| now.mono_ms.saturating_add(pause_ms));
        held.failures = held.failures.saturating_add(1);
    }
}

impl Replica {
    pub(super) fn on_engine(
        &mut self,
        now: Now,
        reply: EngineReply,
        disk: &impl Disk,
    ) -> Result<(), DiskError> {
        match reply {
            EngineReply::Up(head) => return self.on_engine_up(now, head, disk),
            EngineReply::Down(reason) => {
                self.engine_lost(reason);
                self.executor.retry_ms = Some(now.mono_ms.saturating_add(RETRY_MS));
            }
            EngineReply::Pending { id, result } => {
                self.on_watched(now, id, result == Ok(true));
                self.on_pending(now, id, result);
            }
            EngineReply::Built { id, result } => self.on_built(now, id, result),
            EngineReply::Judged { block_hash, result } => {
                return self.on_judged(now, block_hash, result, disk);
            }
            EngineReply::Finalized { block_hash, result } => self.on_finalized(now, block_hash, result),
        }
        Ok(())
    }

    fn engine_lost(&mut self, reason: String) {
        self.executor.state = State::Down(reason);
        self.executor.finalizing = None;
        self.executor.retry_ms = None;
        self.tree.forget_execution();
        self.drop_prebuilt();
        self.forget_early_execution();
        self.building = None;
        let by_timeout = self.safety.state().entered_by.is_some();
        // Whatever was being built is lost with the executor; start the view's lead afresh when it is back, unless
        // the proposal is out already.
        if self.own_proposal(self.view()).is_none() && self.leader.is_some() {
            let now = Now { mono_ms: self.pacemaker.entered_ms, wall_ms: 0 };
            self.start_leading(now, by_timeout);
        }
    }

    /// A call failed in a way only the executor's state can explain: look at it again after a pause.
    pub(super) fn engine_failed(&mut self, now: Now, error: &EngineError) {
        self.engine_lost(error.to_string());
        self.executor.last_error = Some(error.to_string());
        self.executor.retry_ms = Some(now.mono_ms.saturating_add(RETRY_MS));
    }

    /// The executor is there (again). If it lacks finalized blocks they are replayed from the own store; if it is
    /// ahead, its extra blocks must be the ones a stored commit certificate proves.
    fn on_engine_up(&mut self, now: Now, head: FinalizedState, disk: &impl Disk) -> Result<(), DiskError> {
        self.engine_lost("starting".into());
        let root = self.tree.root();
        let own = match head.height {
            height if height == root.height => Some(root.hash),
            height if height > root.height => None,
            Height::ZERO => Some(self.settings.genesis_hash),
            height => disk.finalized(height)?.map(|stored| stored.block.header.hash()),
        };
        if let Some(own) = own.filter(|own| *own != head.block_hash) {
            self.halt_on_other_chain(head, own);
            return Ok(());
        }
        if head.height < root.height {
            let (next, durable) = (head.height.next(), head.height);
            let hashes = (B256::ZERO, B256::ZERO);
            self.executor.state = State::Replaying { next, block_hash: B256::ZERO, hashes, durable };
            return self.replay(now, disk);
        }
        self.executor.state = State::Up(head);
        self.executor.last_error = None;
        Ok(())
    }

    fn halt_on_other_chain(&mut self, head: FinalizedState, own: B256) {
        let FinalizedState { height, block_hash, .. } = head;
        self.halt(format!(
            "the executor holds block {block_hash} at final height {height}, consensus holds {own}"
        ));
    }

    fn replay(&mut self, now: Now, disk: &impl Disk) -> Result<(), DiskError> {
        let State::Replaying { next, block_hash, hashes, .. } = &mut self.executor.state else {
            return Ok(());
        };
        match disk.finalized(*next)? {
            Some(stored) => {
                let header = &stored.block.header;
                (*block_hash, *hashes) = (header.hash(), (header.state_hash, header.receipts_hash));
                let block = std::sync::Arc::new(stored.block);
                self.ready.request(Request::NewPayload { block_hash: *block_hash, block });
            }
            None => {
                let reason = format!("the executor needs block {next}, which the block store lacks");
                self.engine_failed(now, &EngineError::Internal(reason));
            }
        }
        Ok(())
    }

    fn on_judged(
        &mut self,
        now: Now,
        block_hash: B256,
        mut result: Result<PayloadStatus, EngineError>,
        disk: &impl Disk,
    ) -> Result<(), DiskError> {
        let mut members = None;
        match &self.executor.state {
            State::Down(_) => return Ok(()),
            State::Replaying { block_hash: asked, .. } => {
                return if *asked == block_hash { self.on_replayed(now, result, disk) } else { Ok(()) };
            }
            State::Up(_) => {}
        }
        let Some(node) = self.tree.get(&block_hash).filter(|node| node.verdict == Verdict::Executing) else {
            return Ok(());
        };
        let (header, height) = (&node.block.header, node.block.header.height);
        let no_verdict = matches!(result, Ok(PayloadStatus::Syncing) | Err(_));
        if no_verdict && self.contradicts_final(&block_hash) {
            // A sibling, or on top of one, of a block that became final meanwhile: the executor is right.
            self.tree.judge(&block_hash, Verdict::Waiting);
            return Ok(());
        }
        let is_boundary = height == self.boundary();
        let refusal = match result {
            // Fail closed: the chain cannot go on from a boundary that names no set.
            Ok(PayloadStatus::Valid { next_validators: None, .. }) if is_boundary => {
                let reason =
                    format!("it named no validators with the last block of the epoch, height {height}");
                self.executor.hold(now, block_hash);
                self.engine_failed(now, &EngineError::Internal(reason));
                return Ok(());
            }
            Ok(PayloadStatus::Valid { state_hash, receipts_hash, ref mut next_validators }) => {
                members = next_validators.take();
                if state_hash != header.state_hash {
                    let reason = format!("state hash {} in the header, {state_hash} here", header.state_hash);
                    Some((RejectionCode::StateHashMismatch, reason))
                } else if receipts_hash != header.receipts_hash {
                    let reason =
                        format!("receipts hash {} in the header, {receipts_hash} here", header.receipts_hash);
                    Some((RejectionCode::ReceiptsHashMismatch, reason))
                } else {
                    None
                }
            }
            Ok(PayloadStatus::Invalid { code, reason }) => Some((code, reason)),
            // It lacks the parent although this node thinks otherwise: look at its state again.
            Ok(PayloadStatus::Syncing) => {
                let error = EngineError::UnknownBlock(header.parent_hash);
                self.executor.hold(now, block_hash);
                self.engine_failed(now, &error);
                return Ok(());
            }
            // It is ahead, with blocks this node does not know, and this is a sibling of one: no failure of its.
            Err(EngineError::Illegal(_)) => {
                self.executor.hold(now, block_hash);
                self.tree.judge(&block_hash, Verdict::Waiting);
                return Ok(());
            }
            Err(error) => {
                self.executor.hold(now, block_hash);
                self.engine_failed(now, &error);
                return Ok(());
            }
        };
        self.executor.held.remove(&block_hash);
        if let Some(members) = members.filter(|_| is_boundary) {
            self.tree.note_validators(&block_hash, members);
        }
        match refusal {
            None => self.tree.judge(&block_hash, Verdict::Valid),
            Some((code, reason)) => self.refuse(height, block_hash, code, reason),
        }
        Ok(())
    }

    fn refuse(&mut self, height: Height, block_hash: B256, code: RejectionCode, reason: String) {
        self.tree.judge(&block_hash, Verdict::Invalid(code));
        self.event(Event::Rejected { height, block_hash, reason });
    }

    /// One replayed block was executed: make it final in batches, then the next one.
    fn on_replayed(
        &mut self,
        now: Now,
        result: Result<PayloadStatus, EngineError>,
        disk: &impl Disk,
    ) -> Result<(), DiskError> {
        let State::Replaying { next, block_hash, hashes, durable } = &mut self.executor.state else {
            return Ok(());
        };
        match result {
            Ok(PayloadStatus::Valid { state_hash, receipts_hash, .. })
                if (state_hash, receipts_hash) != *hashes =>
            {
                let message = format!(
                    "the executor computes state {state_hash} and receipts {receipts_hash} for final block {next}, its header has {} and {}",
                    hashes.0, hashes.1
                );
                self.halt(message);
                Ok(())
            }
            Ok(PayloadStatus::Valid { .. }) => {
                let (done, hash) = (*next, *block_hash);
                let last = done == self.tree.root().height;
                if last || done.get() - durable.get() >= REPLAY_BATCH {
                    self.executor.finalizing = Some(hash);
                    self.ready.outbound(Outbound::Finalize(Forkchoice {
                        head: hash,
                        safe: hash,
                        finalized: hash,
                    }));
                    return Ok(());
                }
                *next = done.next();
                self.replay(now, disk)
            }
            Ok(PayloadStatus::Invalid { code, reason }) => {
                let message = format!("the executor refuses final block {next} ({code:?}): {reason}");
                self.halt(message);
                Ok(())
            }
            Ok(PayloadStatus::Syncing) => {
                let error = EngineError::UnknownBlock(*block_hash);
                self.engine_failed(now, &error);
                Ok(())
            }
            Err(error) => {
                self.engine_failed(now, &error);
                Ok(())
            }
        }
    }

    fn on_finalized(&mut self, now: Now, block_hash: B256, result: Result<FinalizedState, EngineError>) {
        if self.executor.finalizing != Some(block_hash) {
            return;
        }
        self.executor.finalizing = None;
        let head = match result {
            Ok(head) => head,
            Err(error) => return self.engine_failed(now, &error),
        };
        self.executor.last_error = None;
        match &mut self.executor.state {
            State::Down(_) => {}
            State::Replaying { next, durable, .. } => {
                if head.height >= self.tree.root().height {
                    self.executor.state = State::Up(head);
                } else {
                    // Replay goes on from `drive_executor`.
                    (*durable, *next) = (head.height, head.height.next());
                    self.executor.retry_ms = Some(now.mono_ms);
                }
            }
            State::Up(durable) => {
                *durable = head;
                self.advance_root(&block_hash);
            }
        }
    }

    /// The executor holds `block_hash` durably: now, and only now, the heights up to it are final here.
    fn advance_root(&mut self, block_hash: &B256) {
        let Ok(path) = self.tree.path(block_hash) else { return };
        let path: Vec<_> = path
            .into_iter()
            .map(|node| (node.hash, node.block.clone(), node.next_validators.clone()))
            .collect();
        for (hash, block, members) in path {
            let height = block.header.height;
            self.evidence_is_final(&block, hash);
            if let Some(members) = members {
                self.note_boundary(members, block.system_inputs.randao_mix);
            }
            self.ready.record(Record::Finalized { height, block_hash: hash });
            self.tree.finalize(&hash);
            let commit = self.commit_qcs.remove(&height).filter(|qc| qc.vote.block_hash == hash);
            self.event(Event::Finalized { block, block_hash: hash, commit });
        }
        self.commit_qcs = self.commit_qcs.split_off(&self.tree.root().height.next());
    }

    /// Gives the executor every block whose parent it has.
    pub(super) fn drive_executor(&mut self, now: Now, disk: &impl Disk) -> Result<(), DiskError> {
        if self.executor.retry_ms.is_some_and(|at| now.mono_ms >= at) {
            self.executor.retry_ms = None;
            match self.executor.state {
                State::Down(_) => self.ready.request(Request::FinalizedState),
                State::Replaying { .. } => self.replay(now, disk)?,
                State::Up(_) => {}
            }
        }
        if self.executor.up().is_none() {
            return Ok(());
        }
        let tree = &self.tree;
        self.executor.held.retain(|hash, _| tree.get(hash).is_some());
        for held in self.executor.held.values_mut() {
            held.until_ms = held.until_ms.filter(|until| *until > now.mono_ms);
        }
        // A refused block makes its children refusable in the same step, hence the loop; each pass judges or asks
        // for every block it lists, so it ends.
        loop {
            let mut executable = self.tree.executable();
            executable.retain(|hash| {
                let held = self.executor.held.get(hash).is_some_and(|held| held.until_ms.is_some());
                !held && !self.contradicts_final(hash)
            });
            if executable.is_empty() {
                return Ok(());
            }
            for block_hash in executable {
                let Some(block) = self.tree.get(&block_hash).map(|node| node.block.clone()) else { continue };
                let checked = match self.check_against_parent(&block) {
                    Ok(()) => self.check_evidence(&block, &block_hash, disk)?,
                    refused => refused,
                };
                match checked {
                    Ok(()) => {
                        self.tree.judge(&block_hash, Verdict::Executing);
                        self.ready.request(Request::NewPayload { block_hash, block });
                    }
                    Err((code, reason)) => self.refuse(block.header.height, block_hash, code, reason),
                }
            }
        }
    }

    /// Whether a block is on another branch than what the executor holds final, or is just making so: it refuses such
    /// a block as the caller's mistake.
    pub(super) fn contradicts_final(&self, hash: &B256) -> bool {
        let durable = self.executor.up().map(|head| head.block_hash);
        let Some(last) = self.executor.finalizing.or(durable) else { return false };
        // What is not on a known path cannot be told; the executor will say.
        let (Ok(ours), Ok(finals)) = (self.tree.path(hash), self.tree.path(&last)) else { return false };
        ours.iter().zip(&finals).any(|(node, last)| node.hash != last.hash)
    }

    /// Makes the highest block final that is proven so and executed here (C-5.3).
    pub(super) fn try_finalize(&mut self) {
        let Some(durable) = self.executor.up() else { return };
        if self.executor.finalizing.is_some() || self.halted.is_some() {
            return;
        }
        let Some(proven) = self.proven_path() else { return };
        let ahead = durable.height.get().checked_sub(self.tree.root().height.next().get());
        if let Some((own, _)) = ahead.and_then(|at| proven.get(usize::try_from(at).ok()?))
            && *own != durable.block_hash
        {
            return self.halt_on_other_chain(durable, *own);
        }
        let executed = proven.iter().take_while(|(_, verdict)| *verdict == Verdict::Valid);
        let Some((finalized, _)) = executed.last() else { return };
        // Never ask the executor to go back: it may hold more than this node had recorded when it stopped.
        let height = self.tree.get(finalized).map_or(Height::ZERO, |node| node.block.header.height);
        let finalized = *finalized;
        if height < durable.height {
            // It is in a later epoch than this node, which a node whose consensus disk was lost comes across. It found
            // the boundary valid while it holds more than that final, so it holds that final too.
            if height == self.boundary() {
                self.advance_root(&finalized);
            }
            return;
        }
        let high = self.high().block_hash;
        let descends = self.tree.get(&high).is_some_and(|node| node.verdict == Verdict::Valid)
            && self.tree.path(&high).is_ok_and(|path| path.iter().any(|node| node.hash == finalized));
        let head = if descends { high } else { finalized };
        self.executor.finalizing = Some(finalized);
        self.ready.outbound(Outbound::Finalize(Forkchoice { head, safe: head, finalized }));
    }
}
