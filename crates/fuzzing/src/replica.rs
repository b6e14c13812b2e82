//! One replica against everybody: the bytes choose what time, peers, executor and disk do; after each step the rules
//! that hold whatever the others do are checked.
//!
//! The played validators hold all other keys, so a run may go far beyond the faults the protocol stands: what is checked
//! is what a replica owes even then.
//! - Nothing panics, no deadline lies in the past, nothing goes round for ever (the lab's own checks).
//! - Whatever left is covered by the sign-state on disk, and no two statements are slashable, over all restarts.
//! - View, finalized height and sign-state never go back.
//! - While the executor is truthful: what is called final is durable there.
//! - The tree of blocks is bounded.

use crate::lab::{Lab, STAKES, index, key, view};
use crate::reader::Reader;
use consensus::tree::NODES_MAX;
use consensus::{EngineReply, Event, Input, Outbound, Request};
use sim::checks::{NothingSlashable, durable_before_sent, executed_before_final};
use sim::disk::CrashPoint;
use types::engine::{EngineError, FinalizedState, PayloadStatus};
use types::vote::Signed;
use types::{
    B256, Block, Commit, ConsensusMessage, Epoch, Height, Proposal, ProposalVote, Qc, RejectionCode, Tc,
    View, decode, encode,
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

struct World {
    lab: Lab,
    me: Option<usize>,
    /// What peers made, oldest first, each with the certificate everybody signed for it.
    blocks: Vec<(Block, Qc)>,
    audit: NothingSlashable,
    checked: usize,
    view: View,
    height: Height,
    truthful: bool,
}

impl World {
    fn new(kind: u8) -> Self {
        let (lab, me) = match kind % 4 {
            0 => (Lab::new(), Some(crate::lab::ME)),
            1 => (Lab::leading(), Some(0)),
            2 => (Lab::of(&STAKES, None), None),
            _ => (Lab::of(&[1], Some(0)), Some(0)),
        };
        Self {
            lab,
            me,
            blocks: Vec::new(),
            audit: NothingSlashable::default(),
            checked: 0,
            view: View::ZERO,
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
            // A view in which everything goes well, so that runs get far.
            _ => self.good_view(a),
        }
    }

    // Peers.

    fn number(&self, relative: u8) -> u64 {
        let current = self.lab.replica.as_ref().map_or(1, |replica| replica.view().get());
        (current + u64::from(relative % 32)).saturating_sub(8).max(1)
    }

    fn parent(&self, choice: u8) -> Option<Qc> {
        let at = (self.blocks.len() + 1).checked_sub(1 + usize::from(choice % 4))?;
        at.checked_sub(1).map(|at| self.blocks[at].1.clone())
    }

    fn block(&self, choice: u8) -> Option<(Block, Qc)> {
        let at = self.blocks.len().checked_sub(1 + usize::from(choice % 8))?;
        Some(self.blocks[at].clone())
    }

    fn peers(&self) -> Vec<usize> {
        (0..self.lab.set.len()).filter(|peer| Some(*peer) != self.me).collect()
    }

    fn peer(&self, choice: u8) -> usize {
        let peers = self.peers();
        peers.get(usize::from(choice) % peers.len().max(1)).copied().unwrap_or(0)
    }

    /// A block on one of the last ones, with a timeout certificate where views were skipped (or not).
    fn make_block(&mut self, a: u8, b: u8, c: u8) {
        let (number, parent) = (self.number(a), self.parent(b));
        if parent.as_ref().is_some_and(|qc| qc.view().get() >= number)
            || Some(self.lab.proposer(number)) == self.me
        {
            return;
        }
        let source = parent.as_ref().map_or(View::ZERO, Qc::view);
        let skipped = number > source.get() + 1 && !c.is_multiple_of(8);
        let timeout = skipped.then(|| self.tc(number - 1, parent.as_ref(), source.get()));
        let at = self.lab.now.wall_ms.saturating_add(u64::from(b / 64) * 4_000);
        let block = self.lab.block_at(number, parent.as_ref(), timeout, &[b'p', c], at);
        let qc = self.lab.qc(&block, &self.signers(c));
        self.blocks.push((block, qc));
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
        if Some(by) == self.me || by >= self.lab.set.len() {
            return;
        }
        let signed = self.lab.sign(by, vote);
        let proposal = Proposal { signed, block, again: None };
        self.receive(by, ConsensusMessage::Proposal(Epoch::ZERO, Box::new(proposal)));
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
        let message = ConsensusMessage::Prepare(Epoch::ZERO, self.signed(by, link, change));
        self.receive(by, message);
    }

    fn commit(&mut self, choice: u8, by: u8) {
        let Some((block, qc)) = self.block(choice) else { return };
        let by = self.peer(by);
        let signed = self.signed(by, Lab::commit_vote(&block), choice);
        self.receive(by, ConsensusMessage::Commit(Epoch::ZERO, Commit { signed, qc }));
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
            1 => self.lab.proposal(&block),
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
        let result = match (kind % 4, self.block(choice)) {
            (0, Some((block, _))) => {
                let head = self.lab.commit_qc(&block, &self.signers(count));
                let first = self.blocks.len().saturating_sub(1 + usize::from(count % 16));
                let stored = self.blocks[first..].iter().map(|(block, _)| {
                    Lab::stored(
                        block,
                        kind.is_multiple_of(8).then(|| self.lab.commit_qc(block, &self.signers(0))),
                    )
                });
                Ok(types::FetchResponse { blocks: stored.collect(), head: Some(head) })
            }
            (1, Some((block, _))) => {
                Ok(types::FetchResponse { blocks: vec![Lab::stored(&block, None)], head: None })
            }
            (2, _) => Ok(types::FetchResponse::default()),
            _ => Err("it has nothing".into()),
        };
        self.lab.input(Input::Fetched { id, result });
    }

    /// The next view in order: proposed, certified and committed by everybody.
    fn good_view(&mut self, from: u8) {
        self.make_block(8, 0, 1);
        let Some((block, qc)) = self.block(0) else { return };
        let commit = self.lab.commit_qc(&block, &self.signers(0));
        self.propose(0, None);
        self.receive(self.peer(from), ConsensusMessage::Qc(qc));
        self.receive(self.peer(from), ConsensusMessage::CommitQc(commit));
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
        self.view = self.view.min(self.lab.replica.as_ref().map_or(self.view, |replica| replica.view()));
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
        for outbound in &self.lab.sent[self.checked..] {
            match (outbound, self.me) {
                (Outbound::Send(_, message) | Outbound::Broadcast(message), Some(me)) => {
                    durable_before_sent(self.lab.disk.sign_state(), index(me), message).unwrap();
                    self.audit.sent(index(me), message).unwrap();
                }
                (Outbound::Send(_, message) | Outbound::Broadcast(message), None) => {
                    assert!(matches!(
                        message,
                        ConsensusMessage::Qc(_)
                            | ConsensusMessage::Tc(_)
                            | ConsensusMessage::CommitQc(_)
                            | ConsensusMessage::Evidence(..)
                    ));
                }
                (Outbound::Event(Event::Finalized { block, block_hash, .. }), _) if self.truthful => {
                    let height = block.header.height;
                    executed_before_final(&self.lab.executor, 0, height, *block_hash).unwrap();
                }
                _ => {}
            }
        }
        self.checked = self.lab.sent.len();
        let Some(replica) = &self.lab.replica else { return };
        let (view, height) = (replica.view(), replica.finalized().0);
        assert!(view >= self.view && height >= self.height, "went back to view {view}, height {height}");
        (self.view, self.height) = (view, height);
        assert!(replica.unfinalized_len() <= NODES_MAX);
        let _ = replica.status(self.lab.now);
    }
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
    for crash in 0..16 {
        seeds.push(run(0, &[good, [18, crash, crash / 4, 0], good, good, [19, 0, 0, 0], good]));
        seeds.push(run(1, &[[18, crash, crash / 4, 0], [0, 6, 0, 0], [19, 0, 0, 0], [0, 6, 0, 0]]));
    }
    seeds
}
