//! Catching up: fetching blocks that certificates prove but this node lacks (C-6.6, specs/consensus.md C-11). Peers
//! are asked one after another; nothing they say is believed without a certificate.

use super::{Now, Replica};
use crate::disk::Record;
use crate::ready::Request;
use crate::tree::{NODES_MAX, Verdict};
use std::sync::Arc;
use types::limits::FETCH_BLOCKS_MAX;
use types::{B256, CommitQc, CommittedBlock, FetchRequest, FetchResponse, Height, ValidatorIndex};

/// How long a certified block may be missing before it is fetched: its proposal is usually on its way.
const GRACE_MS: u64 = 50;
/// Deadline of one fetch.
const FETCH_TIMEOUT_MS: u64 = 3_000;
/// How often a follower, to which nobody sends votes, asks for what is new.
const FOLLOW_MS: u64 = 250;
/// Pause after a fetch that brought nothing.
const PAUSE_MS: u64 = 100;

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
    /// When a follower asks next.
    follow_ms: Option<u64>,
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
            (None, None) => self.follow_ms,
        }
    }

    pub(super) fn peer_connected(&mut self) {
        self.pause_until_ms = 0;
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

    pub(super) fn drive_catchup(&mut self, now: Now) {
        // A peer that does not answer in time is passed over; the next in turn is asked.
        self.catchup.in_flight.take_if(|fetch| now.mono_ms >= fetch.deadline_ms);
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
        let Some(peer) = self.next_peer().filter(|_| room) else { return self.catchup.pause(now) };
        let tip = self.fetched_tip();
        let target = self.commit_head.as_ref().map_or(Height::ZERO, |qc| qc.vote.height);
        // Far behind: ranges upwards. Close: the one block, which may not be final yet.
        let request = if target > tip.next() {
            FetchRequest::Finalized { from: tip.next(), count: FETCH_BLOCKS_MAX }
        } else {
            FetchRequest::ByHash(missing)
        };
        self.fetch(now, peer, request);
    }

    /// The highest block that is final here or fetched and proven so.
    fn fetched_tip(&self) -> Height {
        let root = self.tree.root().height;
        self.catchup.tip.map_or(root, |(height, _)| height.max(root))
    }

    /// A follower that lacks nothing it knows of asks whether there is more.
    fn follow(&mut self, now: Now) {
        if self.index().is_some() || self.catchup.in_flight.is_some() || self.halted.is_some() {
            return;
        }
        if self.catchup.follow_ms.is_some_and(|at| now.mono_ms < at) {
            return;
        }
        self.catchup.follow_ms = Some(now.mono_ms.saturating_add(FOLLOW_MS));
        if let Some(peer) = self.next_peer() {
            let from = self.fetched_tip().next();
            self.fetch(now, peer, FetchRequest::Finalized { from, count: FETCH_BLOCKS_MAX });
        }
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
                if let Some(head) = response.head {
                    self.on_certificate(now, fetch.peer, super::Certificate::Commit(head));
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
            self.catchup.pause(now);
        }
    }

    fn accept_by_hash(&mut self, hash: B256, blocks: Vec<CommittedBlock>) -> bool {
        let Some(CommittedBlock { block, .. }) = blocks.into_iter().next() else { return false };
        if block.header.hash() != hash || self.check_block(&block).is_err() {
            return false;
        }
        self.store(hash, Arc::new(block))
    }

    /// Accepts a run of blocks that starts just above what is here, up to the last one that a commit certificate in
    /// the answer (or the one already known) proves final.
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
        let (mut height, mut parent) = match self.catchup.tip.filter(|(tip, _)| tip.next() == from) {
            Some(tip) => tip,
            None => self.finalized(),
        };
        let (mut chain, mut proven) = (Vec::new(), 0);
        // Some of them may have become final here by other means while the answer was under way.
        let here = height;
        let news = blocks.into_iter().skip_while(|stored| stored.block.header.height <= here);
        for CommittedBlock { block, commit } in news {
            let hash = block.header.hash();
            let linked = block.header.height == height.next() && block.header.parent_hash == parent;
            if !linked || self.check_block(&block).is_err() {
                self.misbehaved(peer, format!("sent a block that does not follow height {height}"));
                return false;
            }
            (height, parent) = (block.header.height, hash);
            chain.push((hash, block));
            let own = commit.filter(|qc| qc.vote.block_hash == hash && self.proves(qc));
            let known = self.commit_head.as_ref().is_some_and(|head| head.vote.block_hash == hash);
            if own.is_some() || known {
                proven = chain.len();
            }
            if let Some(qc) = own {
                self.learn_commit(now, qc);
            }
        }
        for (hash, block) in chain.into_iter().take(proven) {
            let height = block.header.height;
            self.store(hash, Arc::new(block));
            self.catchup.tip = Some((height, hash));
        }
        proven > 0
    }

    fn proves(&mut self, qc: &CommitQc) -> bool {
        let (set, domain) = (self.set.clone(), self.domain);
        self.verified.check(qc, |qc| qc.verify(&set, &domain).is_ok())
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
                let (mut height, mut bytes) = (*from, 0usize);
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
