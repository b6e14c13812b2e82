//! One replica against everybody: the bytes choose what time, peers, executor and disk do; after each step the rules
//! that hold whatever the others do are checked.
//!
//! The played validators hold all other keys, so a run may go far beyond the faults the protocol stands: what is checked
//! is what a replica owes even then.
//! - Nothing panics, no deadline lies in the past, nothing goes round for ever (the lab's own checks).
//! - Whatever left is covered by the sign-state on disk, and no two statements are slashable, over all restarts.
//! - Epoch, view within it, finalized height and sign-state never go back; a height has one final block.
//! - While the executor is truthful: what is called final is durable there, every epoch has the set the executor named,
//!   and votes are sent only in epochs in which the node is a member.
//! - The tree of blocks is bounded.
//!
//! Some runs have short epochs with sets that change in every way ([`Sets`]): the peers then cross boundaries with the
//! replica, ahead of it or behind it.

use crate::lab::{Lab, Place, STAKES, index, key, view};
use crate::reader::Reader;
use consensus::Disk;
use consensus::tree::NODES_MAX;
use consensus::{EngineReply, Event, Input, Outbound, Request};
use sim::byzantine::BEHAVIOURS;
use sim::checks::{NothingSlashable, OneChain, durable_before_sent, executed_before_final, is_own_word};
use sim::disk::CrashPoint;
use sim::plan::Plan;
use sim::sets::Sets;
use std::sync::Arc;
use types::engine::{EngineError, FinalizedState, PayloadStatus};
use types::epoch::epoch_seed;
use types::message::Reproposal;
use types::vote::Signed;
use types::{
    B256, Block, Commit, CommitQc, ConsensusMessage, Epoch, Height, PrepareVote, Proposal, ProposalVote, Qc,
    RejectionCode, Tc, View, decode, encode,
};

/// Steps of one run.
const STEPS_MAX: usize = 96;

/// Bytes of one step: what, and three numbers.
const STEP_BYTES: usize = 4;

/// Blocks the peers hold at once.
const BLOCKS_MAX: usize = 24;

/// Runs a replica through the steps the bytes say.
pub fn replica(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut world = World::new(reader.byte());
    for _ in 0..STEPS_MAX {
        if reader.is_empty() {
            break;
        }
        let step = [reader.byte(), reader.byte(), reader.byte(), reader.byte()];
        world.step(step, &mut reader);
        world.check();
    }
}

/// What peers made: a block, with the certificates all of them signed.
#[derive(Clone)]
struct Made {
    block: Block,
    qc: Qc,
    commit: CommitQc,
}

/// Epochs of a run, as far as the peers got.
struct Epochs {
    sets: Arc<Sets>,
    /// One for each epoch that the peers entered.
    places: Vec<Place>,
    /// RANDAO mix after the last block of each epoch they left.
    mixes: Vec<B256>,
}

struct World {
    lab: Lab,
    /// The node's number among all validators, which is its index in the first two epochs.
    who: Option<usize>,
    epochs: Option<Epochs>,
    /// What peers made, oldest first.
    blocks: Vec<Made>,
    audit: NothingSlashable,
    chain: OneChain,
    checked: usize,
    position: (Epoch, View),
    height: Height,
    truthful: bool,
}

impl World {
    fn new(kind: u8) -> Self {
        let (lab, who) = match kind % 4 {
            0 => (Lab::new(), Some(crate::lab::ME)),
            1 => (Lab::leading(), Some(0)),
            2 => (Lab::of(&STAKES, None), None),
            _ => (Lab::of(&[1], Some(0)), Some(0)),
        };
        let lengths = [None, Some(1), Some(2), Some(4)];
        let sets = lengths[usize::from(kind / 4 % 4)].map(|length| Arc::new(sets(kind, &lab, length)));
        let lab = match &sets {
            Some(sets) => lab.restarted_with(sets.clone(), who.map(Sets::keys).unwrap_or_default()),
            None => lab,
        };
        let places = vec![lab.place.clone()];
        Self {
            lab,
            who,
            epochs: sets.map(|sets| Epochs { sets, places, mixes: Vec::new() }),
            blocks: Vec::new(),
            audit: NothingSlashable::default(),
            chain: OneChain::default(),
            checked: 0,
            position: (Epoch::ZERO, View::ZERO),
            height: Height::ZERO,
            truthful: true,
        }
    }

    fn step(&mut self, [what, a, b, c]: [u8; STEP_BYTES], reader: &mut Reader<'_>) {
        if self.lab.replica.is_none() {
            self.restart();
        }
        match what % 24 {
            0 => self.lab.pass([1, 10, 100, 400, 1_000, 3_000, 10_000, 60_000][usize::from(a % 8)]),
            1..=4 => self.make_block(a, b, c),
            5 => self.propose(a, None),
            6 => self.propose(a, Some((b, c))),
            7 => self.prepare(a, b, c),
            8 => self.commit(a, b),
            9 => self.timeout(a, b, c),
            10 => self.certificate(a, b, c),
            11 => self.mangled(a, b, c),
            12 => self.raw(a, reader),
            13 => self.answer(a, b),
            14 => self.lie(a, b, c),
            15 => self.lab.answers = a % 4 != 0,
            16 => self.link(a, b),
            17 => self.fetched(a, b, c),
            18 => self.crash(a, b),
            19 => self.restart(),
            20 => self.executor_dies(),
            21 => self.clock(a, b),
            22 if self.epochs.is_some() => self.epoch_step(a, b, c),
            // A view in which everything goes well, so that runs get far.
            _ => self.good_view(a),
        }
    }

    // Peers.

    /// The epoch the peers are in.
    fn epoch(&self) -> Epoch {
        self.lab.set.epoch()
    }

    /// This node's place in that epoch.
    fn me(&self) -> Option<usize> {
        self.place_in(self.epoch())
    }

    fn place_in(&self, epoch: Epoch) -> Option<usize> {
        let Some(epochs) = &self.epochs else { return self.who };
        self.who.and_then(|who| epochs.sets.index(who, epoch)).map(|index| index.get() as usize)
    }

    fn number(&self, relative: u8) -> u64 {
        let replica = self.lab.replica.as_ref().filter(|replica| replica.epoch() == self.epoch());
        let ahead = || self.parent(0).map_or(1, |qc| qc.view().get() + 1);
        let current = replica.map_or_else(ahead, |replica| replica.view().get());
        (current + u64::from(relative % 32)).saturating_sub(8).max(1)
    }

    /// A certificate of the peers' epoch; `None` for the block it starts at.
    fn parent(&self, choice: u8) -> Option<Qc> {
        let at = self.blocks.len().checked_sub(usize::from(choice % 4))?;
        let made = &self.blocks[at.checked_sub(1)?];
        (made.qc.epoch == self.epoch()).then(|| made.qc.clone())
    }

    fn made(&self, choice: u8) -> Option<Made> {
        let at = self.blocks.len().checked_sub(1 + usize::from(choice % 8))?;
        Some(self.blocks[at].clone())
    }

    fn block(&self, choice: u8) -> Option<(Block, Qc)> {
        self.made(choice).map(|made| (made.block, made.qc))
    }

    fn peers(&self) -> Vec<usize> {
        (0..self.lab.set.len()).filter(|peer| Some(*peer) != self.me()).collect()
    }

    fn peer(&self, choice: u8) -> usize {
        let peers = self.peers();
        peers.get(usize::from(choice) % peers.len().max(1)).copied().unwrap_or(0)
    }

    /// A block on one of the last ones, with a timeout certificate where views were skipped (or not).
    fn make_block(&mut self, a: u8, b: u8, c: u8) {
        let (number, parent) = (self.number(a), self.parent(b));
        if parent.as_ref().is_some_and(|qc| qc.view().get() >= number)
            || Some(self.lab.proposer(number)) == self.me()
        {
            return;
        }
        let source = parent.as_ref().map_or(View::ZERO, Qc::view);
        let skipped = number > source.get() + 1 && !c.is_multiple_of(8);
        let timeout = skipped.then(|| self.tc(number - 1, parent.as_ref(), source.get()));
        let at = self.lab.now.wall_ms.saturating_add(u64::from(b / 64) * 4_000);
        let block = self.lab.block_at(number, parent.as_ref(), timeout, &[b'p', c], at);
        self.keep(block, c);
    }

    /// Certifies a block and keeps it, for a while.
    fn keep(&mut self, block: Block, signers: u8) {
        let qc = self.lab.qc(&block, &self.signers(signers));
        let commit = self.lab.commit_qc(&block, &self.signers(0));
        self.blocks.push(Made { block, qc, commit });
        if self.blocks.len() > BLOCKS_MAX {
            self.blocks.remove(0);
        }
    }

    /// Whose signatures a certificate gets: never this node's, of which it knows nothing. Sometimes too few.
    fn signers(&self, choice: u8) -> Vec<usize> {
        let mut peers = self.peers();
        if choice % 16 == 15 {
            peers.truncate(1);
        }
        if peers.is_empty() { vec![0] } else { peers }
    }

    fn tc(&self, number: u64, high: Option<&Qc>, last_prepared: u64) -> Tc {
        self.lab.tc(number, &self.signers(0), high, last_prepared.min(number))
    }

    fn receive(&mut self, from: usize, message: ConsensusMessage) {
        if self.lab.replica.is_some() {
            self.lab.receive(from, message);
        }
    }

    /// A proposal, as made or with a header field changed and signed again.
    fn propose(&mut self, choice: u8, change: Option<(u8, u8)>) {
        let Some((mut block, _)) = self.block(choice) else { return };
        if let Some((field, value)) = change {
            change_field(&mut block, field, value);
        }
        let vote = ProposalVote { view: block.header.view, block_hash: block.header.hash() };
        let by = block.header.proposer.get() as usize;
        if !self.is_peer(&block) {
            return;
        }
        let signed = self.lab.sign(by, vote);
        let proposal = Proposal { signed, block, again: None };
        self.receive(by, ConsensusMessage::Proposal(self.epoch(), Box::new(proposal)));
    }

    /// Whether peers made a block, in the epoch they are in.
    fn is_peer(&self, block: &Block) -> bool {
        let by = block.header.proposer.get() as usize;
        by < self.lab.set.len() && Some(by) != self.me()
    }

    fn prepare(&mut self, choice: u8, by: u8, change: u8) {
        let Some((block, _)) = self.block(choice) else { return };
        let (by, mut link) = (self.peer(by), Lab::link(&block));
        match change % 8 {
            1 => link.source_view = view(change.into()),
            2 => link.target_view = view(self.number(change)),
            3 => link.block_hash = B256::repeat_byte(change),
            4 => link.height = Height::new(change.into()),
            _ => {}
        }
        let message = ConsensusMessage::Prepare(self.epoch(), self.signed(by, link, change));
        self.receive(by, message);
    }

    fn commit(&mut self, choice: u8, by: u8) {
        let Some((block, qc)) = self.block(choice) else { return };
        let by = self.peer(by);
        let signed = self.signed(by, Lab::commit_vote(&block), choice);
        self.receive(by, ConsensusMessage::Commit(self.epoch(), Commit { signed, qc }));
    }

    /// A statement, sometimes signed with somebody else's key.
    fn signed<S: types::vote::Statement + Copy>(&self, by: usize, statement: S, choice: u8) -> Signed<S> {
        match choice {
            250.. => Signed::new(statement, index(by), &key(by + 1), &self.lab.domain),
            _ => self.lab.sign(by, statement),
        }
    }

    fn timeout(&mut self, a: u8, by: u8, high: u8) {
        let (number, by, high) = (self.number(a), self.peer(by), self.parent(high));
        let message = self.lab.timeout(by, number, high.as_ref());
        self.receive(by, message);
    }

    fn certificate(&mut self, kind: u8, choice: u8, from: u8) {
        let Some((block, qc)) = self.block(choice) else { return };
        let message = match kind % 3 {
            0 => ConsensusMessage::Qc(qc),
            1 => ConsensusMessage::CommitQc(self.lab.commit_qc(&block, &self.signers(from))),
            _ => ConsensusMessage::Tc(self.tc(self.number(from), Some(&qc), qc.view().get())),
        };
        self.receive(self.peer(from), message);
    }

    /// A message the replica itself sent, or a certificate, with one byte changed.
    fn mangled(&mut self, at: u8, flip: u8, from: u8) {
        let Some((block, qc)) = self.block(from) else { return };
        let message = match at % 3 {
            0 => ConsensusMessage::Qc(qc),
            1 if self.is_peer(&block) => self.lab.proposal(&block),
            _ => ConsensusMessage::Tc(self.tc(self.number(flip), Some(&qc), 0)),
        };
        let mut bytes = encode(&message);
        let position = usize::from(at) * 7 % bytes.len();
        bytes[position] ^= flip;
        if let Ok(message) = decode(&bytes) {
            self.receive(self.peer(from), message);
        }
    }

    /// Whatever the rest of the input decodes to.
    fn raw(&mut self, from: u8, reader: &mut Reader<'_>) {
        if let Ok(message) = decode::<ConsensusMessage>(reader.take(4096)) {
            self.receive(self.peer(from), message);
        }
    }

    fn link(&mut self, up: u8, by: u8) {
        let peer = index(self.peer(by));
        self.lab.input(if up.is_multiple_of(2) { Input::Connected(peer) } else { Input::Disconnected(peer) });
    }

    fn fetched(&mut self, kind: u8, choice: u8, count: u8) {
        let Some((id, ..)) = self.lab.fetch() else { return };
        let result = match (kind % 4, self.made(choice)) {
            (0, Some(made)) => {
                let first = self.blocks.len().saturating_sub(1 + usize::from(count % 16));
                let stored = self.blocks[first..].iter().map(|made| {
                    let is_boundary = self.lab.settings.epochs.is_boundary(made.block.header.height);
                    let has_commit = kind.is_multiple_of(8) || (is_boundary && kind % 16 != 4);
                    Lab::stored(&made.block, has_commit.then(|| made.commit.clone()))
                });
                Ok(types::FetchResponse { blocks: stored.collect(), head: Some(made.commit) })
            }
            (1, Some(made)) => {
                Ok(types::FetchResponse { blocks: vec![Lab::stored(&made.block, None)], head: None })
            }
            (2, _) => Ok(types::FetchResponse::default()),
            _ => Err("it has nothing".into()),
        };
        self.lab.input(Input::Fetched { id, result });
    }

    /// The next view in order: proposed, certified and committed by everybody.
    fn good_view(&mut self, from: u8) {
        if self.epochs.is_some() {
            self.enter_newest();
            self.cross(true, from);
            self.wait_for_own_block();
        }
        self.make_block(8, 0, 1);
        let Some(Made { qc, commit, .. }) = self.made(0) else { return };
        self.propose(0, None);
        self.receive(self.peer(from), ConsensusMessage::Qc(qc));
        self.receive(self.peer(from), ConsensusMessage::CommitQc(commit));
    }

    /// Where the view is the node's own: time to propose, and its block becomes one that peers certify.
    fn wait_for_own_block(&mut self) {
        let number = self.number(8);
        if self.me() != Some(self.lab.proposer(number)) {
            return;
        }
        self.lab.pass(3_000);
        let proposed = self.lab.messages().filter_map(|message| match message {
            ConsensusMessage::Proposal(epoch, proposal) if *epoch == self.epoch() => Some(&proposal.block),
            _ => None,
        });
        let proposed = proposed.filter(|block| block.header.view == view(number)).last().cloned();
        let Some(block) = proposed.filter(|block| self.lab.knows(&block.header.parent_hash)) else { return };
        self.lab.adopt(&block);
        self.keep(block, 0);
    }

    // Epochs.

    fn epoch_step(&mut self, what: u8, a: u8, b: u8) {
        match what % 8 {
            0 => self.cross(true, b),
            // The peers move on, and the replica has to find out.
            1 => self.cross(false, b),
            2 => self.propose_again(a, b),
            // What peers say from here on, they say in an epoch they have left.
            3 => self.enter_past(a),
            4 => self.enter_newest(),
            5 => self.wrong_set(a, b),
            6 => self.boundary_certificate(b),
            _ => self.early(a, b),
        }
    }

    fn enter_past(&mut self, back: u8) {
        let Some(epochs) = &self.epochs else { return };
        let at = epochs.places.len().saturating_sub(1 + usize::from(back % 4));
        self.lab.enter(epochs.places[at].clone());
    }

    fn enter_newest(&mut self) {
        self.enter_past(0);
    }

    /// The last block of the peers' epoch with what makes it final: the one that is final at the replica, or else the
    /// last one that peers made.
    fn boundary(&self) -> Option<(Block, CommitQc)> {
        let height = self.lab.settings.epochs.last(self.epoch());
        let stored = self.lab.disk.finalized(height).ok().flatten();
        let known = stored.filter(|stored| self.lab.knows(&stored.block.header.hash()));
        if let Some((block, Some(commit))) = known.map(|stored| (stored.block, stored.commit)) {
            return Some((block, commit));
        }
        let fits = |made: &&Made| made.qc.epoch == self.epoch() && made.block.header.height == height;
        self.blocks.iter().rev().find(fits).map(|made| (made.block.clone(), made.commit.clone()))
    }

    fn boundary_certificate(&mut self, from: u8) {
        if let Some((_, commit)) = self.boundary() {
            self.receive(self.peer(from), ConsensusMessage::CommitQc(commit));
        }
    }

    /// The peers go on to the next epoch, when they have a block to start it at; the replica may be told.
    fn cross(&mut self, tell: bool, from: u8) {
        let Some((block, commit)) = self.boundary() else { return };
        if tell {
            self.receive(self.peer(from), ConsensusMessage::CommitQc(commit.clone()));
        }
        let (epoch, next) = (self.epoch(), self.epoch().next());
        let Some(epochs) = &mut self.epochs else { return };
        // From an epoch they had left before, they come back to the one they had entered then.
        if epochs.places.len() as u64 == next.get() {
            epochs.mixes.push(block.system_inputs.randao_mix);
            let settings = &self.lab.settings;
            let mix = epoch.previous().map_or(settings.seed, |before| epochs.mixes[before.get() as usize]);
            let members = |epoch| {
                let members = epochs.sets.members(epoch);
                Arc::new(settings.validators.successor(epoch, members).unwrap())
            };
            let place = Place {
                set: members(next),
                next: members(next.next()),
                keys: keys(&epochs.sets, next),
                seed: epoch_seed(mix, next),
                root: Some(commit),
            };
            epochs.places.push(place);
        }
        self.lab.enter(epochs.places[next.get() as usize].clone());
    }

    /// The boundary once more, in a later view of its epoch, with or without proof that the views between failed.
    fn propose_again(&mut self, relative: u8, choice: u8) {
        let boundary = self.lab.settings.epochs.last(self.epoch());
        let Some((block, source)) = self.block(choice).filter(|(block, _)| block.header.height == boundary)
        else {
            return;
        };
        let number = self.number(relative);
        let by = self.lab.proposer(number);
        if Some(by) == self.me() || number <= source.view().get() {
            return;
        }
        let skipped = number > source.view().get() + 1 && !choice.is_multiple_of(8);
        let timeout = skipped.then(|| self.tc(number - 1, Some(&source), source.view().get()));
        let block_hash = block.header.hash();
        let link = PrepareVote {
            source_view: source.view(),
            source_hash: source.vote.block_hash,
            target_view: view(number),
            height: block.header.height,
            block_hash,
        };
        let signed = self.lab.sign(by, ProposalVote { view: view(number), block_hash });
        let again = Some(Reproposal { source, timeout });
        let proposal = Proposal { signed, block, again };
        self.receive(by, ConsensusMessage::Proposal(self.epoch(), Box::new(proposal)));
        for peer in self.peers() {
            self.receive(peer, ConsensusMessage::Prepare(self.epoch(), self.lab.sign(peer, link)));
        }
    }

    /// An executor that names validators nobody else knows, or such as make no set.
    fn wrong_set(&mut self, how: u8, choice: u8) {
        let Some((block, _)) = self.block(choice) else { return };
        self.truthful = false;
        let mut members = self.lab.set.validators().to_vec();
        match how % 4 {
            0 => members.clear(),
            1 => members.extend(members.clone()),
            2 => members.reverse(),
            _ => members.truncate(1),
        }
        let status = PayloadStatus::Valid {
            state_hash: block.header.state_hash,
            receipts_hash: block.header.receipts_hash,
            next_validators: Some(members),
        };
        let block_hash = block.header.hash();
        self.lab.input(Input::Engine(EngineReply::Judged { block_hash, result: Ok(status) }));
    }

    /// What peers already say in the epoch after theirs.
    fn early(&mut self, relative: u8, by: u8) {
        let Some(epochs) = &self.epochs else { return };
        let (here, next) = (self.lab.place.clone(), self.epoch().next());
        let (set, after) = (here.next.clone(), here.set.clone());
        let keys = keys(&epochs.sets, next);
        self.lab.enter(Place { set, next: after, keys, seed: here.seed, root: None });
        self.timeout(relative, by, 0);
        self.lab.enter(here);
    }

    // The executor.

    /// Answers a request that waits.
    fn answer(&mut self, choice: u8, how: u8) {
        if self.lab.asked.is_empty() {
            return;
        }
        let request = self.lab.asked.remove(usize::from(choice) % self.lab.asked.len());
        let failed = || EngineError::Unavailable("gone".into());
        let honest = how.is_multiple_of(2);
        let reply = match request {
            Request::NewPayload { block_hash, block } => {
                let result = if honest { self.lab.executor.new_payload(&block) } else { Err(failed()) };
                EngineReply::Judged { block_hash, result }
            }
            Request::Build { id, request } => {
                let built = self.lab.executor.build(&request, vec![how]);
                EngineReply::Built { id, result: if honest { built } else { Err(failed()) } }
            }
            Request::AwaitTransactions { id, .. } => EngineReply::Pending {
                id,
                result: if honest { Ok(how.is_multiple_of(4)) } else { Err(failed()) },
            },
            Request::FinalizedState => EngineReply::Up(self.lab.executor.head()),
            Request::Fetch { id, .. } => {
                return self.lab.input(Input::Fetched { id, result: Err("it is gone".into()) });
            }
        };
        self.lab.input(Input::Engine(reply));
    }

    /// An executor that says what is not so.
    fn lie(&mut self, kind: u8, choice: u8, value: u8) {
        self.truthful = false;
        let block_hash =
            self.block(choice).map_or(B256::repeat_byte(value), |(block, _)| block.header.hash());
        let head = FinalizedState {
            height: Height::new(value.into()),
            block_hash,
            state_hash: B256::repeat_byte(choice),
        };
        let status = match kind / 8 % 3 {
            0 => PayloadStatus::Syncing,
            1 => PayloadStatus::Invalid { code: RejectionCode::InvalidPayload, reason: "so I say".into() },
            _ => PayloadStatus::Valid {
                state_hash: B256::repeat_byte(value),
                receipts_hash: B256::ZERO,
                next_validators: None,
            },
        };
        let reply = match kind % 8 {
            0 => EngineReply::Down("it says".into()),
            1 => EngineReply::Up(head),
            2 => EngineReply::Finalized { block_hash, result: Ok(head) },
            3 => EngineReply::Finalized { block_hash, result: Err(EngineError::Illegal("no".into())) },
            4 => EngineReply::Pending { id: value.into(), result: Ok(true) },
            5 => EngineReply::Judged { block_hash, result: Err(EngineError::Internal("no".into())) },
            _ => EngineReply::Judged { block_hash, result: Ok(status) },
        };
        self.lab.input(Input::Engine(reply));
    }

    fn executor_dies(&mut self) {
        self.lab.executor.restart();
        self.lab.asked.retain(|request| matches!(request, Request::Fetch { .. }));
        self.lab.input(Input::Engine(EngineReply::Down("restarted".into())));
        if self.lab.replica.is_some() {
            let head = self.lab.executor.head();
            self.lab.input(Input::Engine(EngineReply::Up(head)));
        }
    }

    // Power and clock.

    fn crash(&mut self, point: u8, spared: u8) {
        self.lab.disk.crash = Some(match point % 4 {
            0 => CrashPoint::Before,
            1 => CrashPoint::Complete,
            _ => CrashPoint::After(usize::from(point / 4 % 4)),
        });
        self.lab.disk.spared = u32::from(spared % 4);
    }

    fn restart(&mut self) {
        self.lab.replica = None;
        self.lab.asked.clear();
        self.lab.start().unwrap();
        let (epoch, view) = self.position;
        let found = self.lab.me();
        assert!(found.epoch() >= epoch, "started in epoch {} after {epoch}", found.epoch());
        // Views that were entered and not voted in are not on disk.
        self.position = (epoch, view.min(found.view()));
        let durable = self.lab.disk.finalized_height();
        assert!(durable >= self.height, "{} was announced, {durable} is on disk", self.height);
        self.height = durable;
    }

    fn clock(&mut self, a: u8, b: u8) {
        let by = u64::from(a) * 100;
        let wall = &mut self.lab.now.wall_ms;
        *wall = if b.is_multiple_of(2) { wall.saturating_add(by) } else { wall.saturating_sub(by) };
        self.lab.input(Input::Tick);
    }

    // What holds always.

    fn check(&mut self) {
        for at in self.checked..self.lab.sent.len() {
            match self.lab.sent[at].clone() {
                Outbound::Send(_, message) | Outbound::Broadcast(message) => self.check_sent(&message),
                Outbound::Event(Event::Finalized { block, block_hash, .. }) => {
                    self.check_final(&block, block_hash);
                }
                Outbound::Event(Event::Epoch { epoch, validators, .. }) => {
                    if let Some(epochs) = self.epochs.as_ref().filter(|_| self.truthful) {
                        assert_eq!(validators.validators(), epochs.sets.members(epoch), "epoch {epoch}");
                    }
                }
                _ => {}
            }
        }
        self.checked = self.lab.sent.len();
        let Some(replica) = &self.lab.replica else { return };
        let (position, height) = ((replica.epoch(), replica.view()), replica.finalized().0);
        assert!(
            position >= self.position && height >= self.height,
            "went back from {:?}, height {} to {position:?}, height {height}",
            self.position,
            self.height
        );
        (self.position, self.height) = (position, height);
        assert!(replica.unfinalized_len() <= NODES_MAX);
        // It may be silent in an epoch in which it is a member, never speak in another's place.
        let place = self.place_in(replica.epoch()).map(index);
        assert!(replica.index().is_none() || replica.index() == place || !self.truthful);
        let _ = replica.status(self.lab.now);
    }

    fn check_sent(&mut self, message: &ConsensusMessage) {
        let is_member = self.place_in(message.epoch()).is_some();
        assert!(
            !is_own_word(message) || is_member || (self.who.is_some() && !self.truthful),
            "a {} of epoch {}, in which it has no vote",
            message.kind(),
            message.epoch()
        );
        // Its places differ from epoch to epoch; statements of different epochs never contradict.
        if let Some(who) = self.who.map(index) {
            durable_before_sent(self.lab.disk.sign_state(), who, message).unwrap();
            self.audit.sent(who, message).unwrap();
        }
    }

    fn check_final(&mut self, block: &Block, block_hash: B256) {
        let header = &block.header;
        self.chain.finalized(0, header.height, block_hash).unwrap();
        if self.truthful {
            executed_before_final(&self.lab.executor, 0, header.height, block_hash).unwrap();
        }
        assert_eq!(header.epoch, self.lab.settings.epochs.epoch_of(header.height));
        // What it proposed itself: its peers build on that as well.
        if self.epochs.is_some() && !self.lab.knows(&block_hash) && self.lab.knows(&header.parent_hash) {
            self.lab.adopt(block);
        }
    }
}

/// Sets of a run: its members, two more who join and leave, changes drawn by the kind of the run. The one that leads
/// holds so much that the others stand still when it weighs more: it stays as it is.
fn sets(kind: u8, lab: &Lab, epoch_length: u64) -> Sets {
    let mut plan = Plan::from_seed(u64::from(kind / 16));
    plan.stakes = lab.set.validators().iter().map(|validator| validator.stake.get()).collect();
    plan.byzantine = if kind % 4 == 1 { vec![(0, BEHAVIOURS[0])] } else { Vec::new() };
    plan.frail.clear();
    (plan.followers, plan.epoch_length, plan.churn) = (2, epoch_length, true);
    Sets::new(&plan)
}

/// The keys of an epoch's members, in order.
fn keys(sets: &Sets, epoch: Epoch) -> Vec<crypto::SecretKey> {
    let members = sets.members(epoch);
    let key = |(at, member): (usize, &types::Validator)| {
        let who = sets.who(index(at), epoch).unwrap();
        Sets::keys(who).into_iter().find(|key| key.public_key() == member.public_key).unwrap()
    };
    members.iter().enumerate().map(key).collect()
}

fn change_field(block: &mut Block, field: u8, value: u8) {
    let (header, hash) = (&mut block.header, B256::repeat_byte(value));
    match field % 18 {
        0 => header.chain_id ^= u64::from(value),
        1 => header.epoch = Epoch::new(value.into()),
        2 => header.epoch_start_height = Height::new(value.into()),
        3 => header.height = Height::new(value.into()),
        4 => header.view = View::new(value.into()),
        5 => header.parent_hash = hash,
        6 => header.timestamp_ms = header.timestamp_ms.wrapping_add(u64::from(value) << (value % 48)),
        7 => header.proposer = index(value.into()),
        8 => header.validator_set_id = hash,
        9 => header.payload_commitment = hash,
        10 => header.state_hash = hash,
        11 => header.receipts_hash = hash,
        12 => header.checkpoint.root = hash,
        13 => header.randao_reveal = types::Signature([value; 96]),
        14 => header.timeout = None,
        15 => header.last_commit = None,
        16 => block.system_inputs.evidence.push(vec![value; 3]),
        _ => block.payload.push(value),
    }
}

/// Runs to start from: good views, then trouble of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let run = |kind: u8, steps: &[[u8; STEP_BYTES]]| [&[kind][..], steps.as_flattened()].concat();
    let good = [23, 0, 0, 0];
    let mut seeds = vec![
        run(0, &[good; 6]),
        run(1, &[[0, 4, 0, 0], good, [0, 4, 0, 0], good]),
        run(2, &[good; 6]),
        run(3, &[[0, 6, 0, 0]; 4]),
        run(
            0,
            &[
                [1, 8, 0, 1],
                [5, 0, 0, 0],
                [7, 0, 0, 0],
                [7, 0, 1, 0],
                [7, 0, 2, 0],
                [8, 0, 0, 0],
                [8, 0, 1, 0],
            ],
        ),
        run(0, &[good, [0, 6, 0, 0], [9, 8, 0, 0], [9, 8, 1, 0], [1, 9, 1, 1], [5, 0, 0, 0]]),
    ];
    for what in 0..22 {
        seeds.push(run(0, &[good, good, [what, 1, 0, 2], good, [what, 3, 1, 7], [0, 5, 0, 0], good]));
    }
    for kind in (4..16).chain([20, 37, 58, 79, 104, 141, 172]) {
        seeds.push(run(kind, &[good; 24]));
        seeds.push(run(kind, &[good, good, [22, 1, 0, 0], good, [22, 6, 0, 0], [17, 8, 0, 9], good, good]));
    }
    for what in 0..8 {
        let steps = [good, good, [1, 8, 0, 1], [22, what, 9, 1], [0, 5, 0, 0], [22, what, 1, 0], good, good];
        seeds.push(run(8, &steps));
        seeds.push(run(21, &[steps, steps].concat()));
    }
    for crash in 0..16 {
        let crossing = [18, crash, crash / 4, 0];
        seeds.push(run(8, &[good, good, crossing, [22, 0, 0, 0], [19, 0, 0, 0], good, good, good]));
        seeds.push(run(0, &[good, [18, crash, crash / 4, 0], good, good, [19, 0, 0, 0], good]));
        seeds.push(run(1, &[[18, crash, crash / 4, 0], [0, 6, 0, 0], [19, 0, 0, 0], [0, 6, 0, 0]]));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A run in which nothing goes wrong.
    fn good_run(kind: u8) -> World {
        let mut world = World::new(kind);
        for _ in 0..STEPS_MAX {
            world.step([23, 0, 0, 0], &mut Reader::new(&[]));
            world.check();
        }
        world
    }

    #[test]
    fn good_views_end_every_epoch_and_begin_the_next_one() {
        for (length, kinds) in [(1, 4..7), (2, 8..11), (4, 12..15)] {
            for kind in kinds {
                let World { height, position: (epoch, _), .. } = good_run(kind);
                assert!(height.get() > STEPS_MAX as u64 / 2, "run {kind} ends at height {height}");
                assert_eq!(epoch.get(), height.get() / length, "run {kind} at height {height}");
            }
        }
        assert_eq!(good_run(0).position.0, Epoch::ZERO, "runs from before there were epochs have one");
    }

    #[test]
    fn the_replica_goes_through_joins_leaves_changes_of_stake_key_and_place_of_its_own() {
        let mut seen = BTreeSet::new();
        for kind in (0..16).map(|drawn| 4 + 16 * drawn) {
            let world = good_run(kind);
            let sets = &world.epochs.as_ref().unwrap().sets;
            let own = |epoch: Epoch| {
                let index = sets.index(crate::lab::ME, epoch)?;
                Some((index, sets.members(epoch)[index.get() as usize].clone()))
            };
            for epoch in (0..world.position.0.get()).map(Epoch::new) {
                match (own(epoch), own(epoch.next())) {
                    (None, Some(_)) => drop(seen.insert("joins")),
                    (Some(_), None) => drop(seen.insert("leaves")),
                    (Some((place, member)), Some((next_place, next))) => {
                        let changes = [
                            ("moves", place != next_place),
                            ("rotates", member.public_key != next.public_key),
                            ("weighs more or less", member.stake != next.stake),
                        ];
                        seen.extend(changes.iter().filter(|(_, is)| *is).map(|(what, _)| *what));
                    }
                    (None, None) => {}
                }
            }
        }
        assert_eq!(seen.len(), 5, "{seen:?}");
    }
}
