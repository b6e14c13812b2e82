//! Catching up: fetching blocks that certificates prove but this node lacks (C-6.6, specs/consensus.md C-11). Peers
//! are asked one after another; nothing they say is believed without a certificate.

use super::{Now, Replica};
use crate::disk::Record;
use crate::evidence::Trust;
use crate::ready::Request;
use crate::tree::{NODES_MAX, Verdict};
use std::sync::Arc;
use types::limits::{FETCH_BLOCKS_MAX, FETCH_BYTES_MAX};
use types::{B256, CommitQc, CommittedBlock, FetchRequest, FetchResponse, Height, ValidatorIndex};

/// How long a certified block may be missing before it is fetched: its proposal is usually on its way.
const GRACE_MS: u64 = 50;
/// Deadline of one fetch.
const FETCH_TIMEOUT_MS: u64 = 3_000;
/// How often a follower, to which nobody sends votes, asks for what is new.
const FOLLOW_MS: u64 = 250;
/// Pause after a fetch that brought nothing.
const PAUSE_MS: u64 = 100;

/// Blocks, bytes and time one peer gets to prove what it sends.
const UNPROVEN_BLOCKS_MAX: usize = FETCH_BLOCKS_MAX as usize;
const UNPROVEN_BYTES_MAX: usize = 8 * FETCH_BYTES_MAX;
const UNPROVEN_MS_MAX: u64 = 30_000;

/// State of catching up.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    in_flight: Option<InFlight>,
    /// Block found missing, and since when.
    missing: Option<(B256, u64)>,
    /// Not before.
    pause_until_ms: u64,
    /// Peers are asked in turn.
    turn: u32,
    /// The highest fetched block on the chain of proven blocks, when ahead of the root.
    tip: Option<(Height, B256)>,
    /// Blocks on top of that which one peer sent and no certificate proves yet.
    unproven: Option<Unproven>,
    /// When a follower asks next.
    follow_ms: Option<u64>,
    /// Others seem to be further than what certificates here prove.
    behind: bool,
}

/// A run of blocks that waits for its proof. A block may be final by a descendant's certificate only, and an answer may
/// have no room for the descendant; so the same peer is asked to go on, for a while.
#[derive(Debug)]
struct Unproven {
    peer: ValidatorIndex,
    since_ms: u64,
    bytes: usize,
    /// What the run is on top of.
    base: (Height, B256),
    blocks: Vec<(B256, Arc<types::Block>)>,
}

impl Unproven {
    fn top(&self) -> (Height, B256) {
        self.blocks.last().map_or(self.base, |(hash, block)| (block.header.height, *hash))
    }

    fn may_go_on(&self, now: Now) -> bool {
        self.blocks.len() < UNPROVEN_BLOCKS_MAX
            && self.bytes < UNPROVEN_BYTES_MAX
            && now.mono_ms < self.since_ms.saturating_add(UNPROVEN_MS_MAX)
    }
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    peer: ValidatorIndex,
    request: FetchRequest,
    deadline_ms: u64,
}

impl CatchUp {
    pub(super) fn deadline(&self) -> Option<u64> {
        match (&self.in_flight, self.missing) {
            (Some(fetch), _) => Some(fetch.deadline_ms),
            (None, Some((_, since))) => Some(self.pause_until_ms.max(since.saturating_add(GRACE_MS))),
            (None, None) => self.follow_ms.map(|at| at.max(self.pause_until_ms)),
        }
    }

    pub(super) fn peer_connected(&mut self) {
        self.pause_until_ms = 0;
    }

    /// Somebody sent a message of a later epoch. It proves nothing, but asking costs little.
    pub(super) fn others_are_ahead(&mut self) {
        self.behind = true;
    }

    /// Peers have new indices, and there may be more to fetch than the epoch before had.
    pub(super) fn new_epoch(&mut self) {
        let behind = std::mem::take(&mut self.behind) || self.tip.is_some();
        *self = Self { turn: self.turn, behind, ..Self::default() };
    }

    pub(super) fn tip_hash(&self) -> Option<B256> {
        self.tip.map(|(_, hash)| hash)
    }

    fn pause(&mut self, now: Now) {
        self.pause_until_ms = now.mono_ms.saturating_add(PAUSE_MS);
    }
}

impl Replica {
    /// The blocks from just above the root to the highest one proven final here, with their verdicts.
    pub(super) fn proven_path(&self) -> Option<Vec<(B256, Verdict)>> {
        let head = self.commit_head.as_ref().map(|qc| (qc.vote.height, qc.vote.block_hash));
        let candidates = [head, self.catchup.tip];
        let path = candidates.into_iter().flatten().find_map(|(_, hash)| self.tree.path(&hash).ok())?;
        Some(path.into_iter().map(|node| (node.hash, node.verdict)).collect())
    }

    /// The certified block whose absence holds this node up, lowest first.
    fn missing_block(&self) -> Option<B256> {
        let root = self.tree.root().height;
        let commit =
            self.commit_head.as_ref().filter(|qc| qc.vote.height > root).map(|qc| qc.vote.block_hash);
        let high = self.safety.state().high_qc.as_ref().filter(|qc| qc.vote.height > root);
        [commit, high.map(|qc| qc.vote.block_hash)]
            .into_iter()
            .flatten()
            .find_map(|hash| self.tree.path(&hash).err())
    }

    /// Takes blocks that certificates or the executor name back from the own store: a restart, or a certificate that
    /// came late, may need one that had been dropped from the tree.
    pub(super) fn load_missing(&mut self, disk: &impl crate::Disk) -> Result<(), crate::DiskError> {
        let root = self.tree.root().height;
        let executed = self.executor.up().filter(|head| head.height > root).map(|head| head.block_hash);
        while self.tree.len() + (FETCH_BLOCKS_MAX as usize) < NODES_MAX {
            let unknown = executed.and_then(|hash| self.tree.path(&hash).err());
            let stored = [self.missing_block(), unknown].into_iter().flatten();
            let mut found = None;
            for hash in stored {
                found = found.or(disk.block(&hash)?.map(|block| (hash, block)));
            }
            let Some((hash, block)) = found else { break };
            if !self.tree.insert(hash, block) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn drive_catchup(&mut self, now: Now) {
        // A peer that does not answer in time is passed over; the next in turn is asked.
        if self.catchup.in_flight.take_if(|fetch| now.mono_ms >= fetch.deadline_ms).is_some() {
            self.catchup.unproven = None;
        }
        let Some(missing) = self.missing_block().filter(|_| self.halted.is_none()) else {
            self.catchup.missing = None;
            return self.follow(now);
        };
        if self.catchup.missing.is_none_or(|(hash, _)| hash != missing) {
            self.catchup.missing = Some((missing, now.mono_ms));
        }
        let due = self.catchup.deadline().is_some_and(|at| now.mono_ms >= at);
        let room = self.tree.len() + FETCH_BLOCKS_MAX as usize <= NODES_MAX;
        if self.catchup.in_flight.is_some() || !due {
            return;
        }
        // A full tree drains as blocks become final; look again after a pause.
        if !room {
            return self.catchup.pause(now);
        }
        // Far behind: ranges upwards. Close: the one block, which may not be final yet.
        let target = self.commit_head.as_ref().map_or(Height::ZERO, |qc| qc.vote.height);
        if target > self.fetched_tip().next() {
            return self.fetch_range(now);
        }
        match self.next_peer() {
            Some(peer) => self.fetch(now, peer, FetchRequest::ByHash(missing)),
            None => self.catchup.pause(now),
        }
    }

    /// Asks for final blocks above what is here: the peer whose run waits for its proof, or the next one.
    fn fetch_range(&mut self, now: Now) {
        let connected = &self.connected;
        self.catchup.unproven.take_if(|run| !connected.contains(&run.peer) || !run.may_go_on(now));
        let run = self.catchup.unproven.as_ref().map(|run| (run.peer, run.top().0));
        let tip = self.fetched_tip();
        match run.or_else(|| self.next_peer().map(|peer| (peer, tip))) {
            Some((peer, top)) => {
                // Who signs for a later epoch is known when this one's blocks are final.
                let left = self.boundary().get().saturating_sub(top.get());
                let count = u32::try_from(left).unwrap_or(u32::MAX).min(FETCH_BLOCKS_MAX);
                if count > 0 {
                    self.fetch(now, peer, FetchRequest::Finalized { from: top.next(), count });
                }
            }
            None => self.catchup.pause(now),
        }
    }

    /// The highest block that is final here or fetched and proven so.
    fn fetched_tip(&self) -> Height {
        let root = self.tree.root().height;
        self.catchup.tip.map_or(root, |(height, _)| height.max(root))
    }

    /// A node that lacks nothing it knows of asks whether there is more: a follower, to which nobody sends votes, and a
    /// validator that may be in an epoch which the others have left.
    fn follow(&mut self, now: Now) {
        let stuck = self.safety.highest_timeout_view() == self.view();
        let asks = self.index().is_none() || self.catchup.behind || stuck;
        if !asks || self.halted.is_some() {
            self.catchup.follow_ms = None;
            return;
        }
        if self.catchup.in_flight.is_some() {
            return;
        }
        if self.catchup.follow_ms.is_some_and(|at| now.mono_ms < at) {
            return;
        }
        self.catchup.follow_ms = Some(now.mono_ms.saturating_add(FOLLOW_MS));
        self.fetch_range(now);
    }

    fn fetch(&mut self, now: Now, peer: ValidatorIndex, request: FetchRequest) {
        let id = self.fresh_id();
        let deadline_ms = now.mono_ms.saturating_add(FETCH_TIMEOUT_MS);
        self.catchup.in_flight = Some(InFlight { id, peer, request: request.clone(), deadline_ms });
        self.ready.request(Request::Fetch { id, peer, request });
    }

    fn next_peer(&mut self) -> Option<ValidatorIndex> {
        let peers: Vec<_> = self.connected.iter().copied().collect();
        self.catchup.turn = self.catchup.turn.wrapping_add(1);
        (!peers.is_empty()).then(|| peers[self.catchup.turn as usize % peers.len()])
    }

    pub(super) fn on_fetched(&mut self, now: Now, id: u64, result: Result<FetchResponse, String>) {
        let Some(fetch) = self.catchup.in_flight.take_if(|fetch| fetch.id == id) else { return };
        let accepted = match result {
            Err(_) => false,
            Ok(response) => {
                match response.head {
                    Some(head) if head.epoch == self.epoch() => {
                        self.on_certificate(now, fetch.peer, super::Certificate::Commit(head));
                    }
                    Some(head) if head.epoch.next() == self.epoch() => {
                        let sender = self.set.get(fetch.peer).map(|peer| peer.public_key);
                        let head = super::Certificate::Commit(head);
                        sender.iter().for_each(|sender| self.observe_late_certificate(sender, &head));
                    }
                    head => self.catchup.behind |= head.is_some_and(|head| head.epoch > self.epoch()),
                }
                match fetch.request {
                    FetchRequest::ByHash(hash) => self.accept_by_hash(hash, response.blocks),
                    FetchRequest::Finalized { from, .. } => {
                        self.accept_range(now, fetch.peer, from, response.blocks)
                    }
                }
            }
        };
        if !accepted {
            self.catchup.behind = false;
            self.catchup.unproven = None;
            self.catchup.pause(now);
        }
    }

    fn accept_by_hash(&mut self, hash: B256, blocks: Vec<CommittedBlock>) -> bool {
        let Some(CommittedBlock { block, .. }) = blocks.into_iter().next() else { return false };
        if block.header.hash() != hash || self.check_block(&block).is_err() {
            return false;
        }
        self.observe_header(&block.header, Trust::Claimed);
        self.store(hash, Arc::new(block))
    }

    /// Accepts a run of blocks that starts just above what is here, up to the last one that a commit certificate in
    /// the answer (or the one already known) proves final. Without any the run waits for the peer's next answer.
    fn accept_range(
        &mut self,
        now: Now,
        peer: ValidatorIndex,
        from: Height,
        blocks: Vec<CommittedBlock>,
    ) -> bool {
        if blocks.is_empty() || blocks.len() > FETCH_BLOCKS_MAX as usize {
            return false;
        }
        let mut run = self.run_up_to(now, peer, from);
        let (here, mut proven) = (run.top().0, 0);
        // Some of them may have become final here by other means while the answer was under way.
        let last = self.boundary();
        let news = blocks
            .into_iter()
            .skip_while(|stored| stored.block.header.height <= here)
            .take_while(|stored| stored.block.header.height <= last);
        for CommittedBlock { block, commit } in news {
            let (hash, (height, parent)) = (block.header.hash(), run.top());
            let linked = block.header.height == height.next() && block.header.parent_hash == parent;
            if !linked || self.check_block(&block).is_err() {
                self.misbehaved(peer, format!("sent a block that does not follow height {height}"));
                return false;
            }
            run.bytes = run.bytes.saturating_add(types::encode(&block).len());
            run.blocks.push((hash, Arc::new(block)));
            let own = commit.filter(|qc| qc.vote.block_hash == hash && self.proves(qc));
            let known = self.commit_head.as_ref().is_some_and(|head| head.vote.block_hash == hash);
            if own.is_some() || known {
                proven = run.blocks.len();
            }
            if let Some(qc) = own {
                self.learn_commit(now, qc);
            }
        }
        if proven == 0 {
            // Nothing above an epoch's last block proves it.
            let waits = run.top().0 > here && run.top().0 < last && run.may_go_on(now);
            self.catchup.unproven = Some(run).filter(|_| waits);
            return waits;
        }
        for (hash, block) in run.blocks.into_iter().take(proven) {
            let height = block.header.height;
            self.observe_header(&block.header, Trust::Claimed);
            // What does not fit is asked for again; the tip must not run ahead of what is here.
            if height > self.tree.root().height && !self.store(hash, block) {
                break;
            }
            self.catchup.tip = Some((height, hash));
        }
        true
    }

    /// The run that ends just below `from`: the waiting one, or a new one on what is here.
    fn run_up_to(&mut self, now: Now, peer: ValidatorIndex, from: Height) -> Unproven {
        let waiting =
            self.catchup.unproven.take().filter(|run| run.peer == peer && run.top().0.next() == from);
        let base = match self.catchup.tip.filter(|(tip, _)| tip.next() == from) {
            Some(tip) => tip,
            None => self.finalized(),
        };
        waiting.unwrap_or(Unproven { peer, since_ms: now.mono_ms, bytes: 0, base, blocks: Vec::new() })
    }

    fn proves(&mut self, qc: &CommitQc) -> bool {
        let (set, domain) = (self.set.clone(), self.domain);
        let valid = self.verified.check(qc, |qc| qc.verify(&set, &domain).is_ok());
        if valid {
            self.observe(qc.into(), Trust::Verified);
        }
        valid
    }

    fn store(&mut self, hash: B256, block: Arc<types::Block>) -> bool {
        let fresh = self.tree.insert(hash, block.clone());
        if fresh {
            self.ready.record(Record::Block(block));
        }
        fresh || self.tree.contains(&hash)
    }

    /// Answers a peer's request from the store: at most the asked count, the limits, and what is final.
    pub fn serve(
        &self,
        request: &FetchRequest,
        disk: &impl crate::Disk,
    ) -> Result<FetchResponse, crate::DiskError> {
        let mut response = FetchResponse { blocks: Vec::new(), head: self.commit_head.clone() };
        match request {
            FetchRequest::ByHash(hash) => {
                let block = match self.tree.get(hash) {
                    Some(node) => Some(node.block.clone()),
                    None => disk.block(hash)?,
                };
                response
                    .blocks
                    .extend(block.map(|block| CommittedBlock { block: (*block).clone(), commit: None }));
            }
            FetchRequest::Finalized { from, count } => {
                // The transport refuses a longer answer, and would refuse it again.
                let (mut height, mut bytes) = (*from, 1024 + types::encode(&response.head).len());
                for _ in 0..(*count).min(FETCH_BLOCKS_MAX) {
                    let Some(stored) = disk.finalized(height)? else { break };
                    bytes = bytes.saturating_add(types::encode(&stored).len());
                    // One block always fits; the rest of the limit is the head certificate's.
                    if !response.blocks.is_empty() && bytes > types::limits::MESSAGE_BYTES_MAX {
                        break;
                    }
                    response.blocks.push(stored);
                    height = height.next();
                }
            }
        }
        Ok(response)
    }
}
