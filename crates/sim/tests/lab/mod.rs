//! One real replica on a bench: the test plays its peers and, where it likes, its executor.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use consensus::{EngineReply, Event, Input, Now, Outbound, Replica, Request, Settings, StartError};
use crypto::bls::aggregate;
use crypto::{SecretKey, tagged_hash};
use sim::disk::SimDisk;
use sim::executor::SimExecutor;
use sim::sets::Sets;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use types::block::{Checkpoint, SystemInputs, randao_mix};
use types::engine::{EngineError, PayloadLimits, PayloadRequest, PayloadStatus};
use types::genesis::Timing;
use types::vote::{Signed, Statement, randao_bytes};
use types::{
    Address, B256, Block, Commit, CommitQc, CommitVote, CommittedBlock, ConsensusMessage, Domain, Epoch,
    EpochSchedule, FetchRequest, FetchResponse, Header, Height, Justify, Prepare, PrepareVote, Proposal,
    ProposalVote, Qc, QuorumRule, Signature, SignerSet, Stake, Tc, Timeout, TimeoutGroup, TimeoutReason,
    TimeoutVote, Validator, ValidatorIndex, ValidatorSet, View,
};

pub const GENESIS: B256 = B256::repeat_byte(0x11);
pub const WALL_MS: u64 = 1_700_000_000_000;
/// Three heavy validators and a light one: the light one hardly ever proposes, and two heavy ones need it or the
/// third for a quorum.
pub const STAKES: [u128; 4] = [1000, 1000, 1000, 1];
/// The light one.
pub const ME: usize = 3;
/// The heavy ones: a quorum.
pub const OTHERS: [usize; 3] = [0, 1, 2];
/// All but the one of [`Lab::leading`]: a quorum as well.
pub const LED: [usize; 3] = [1, 2, 3];
/// First views in which the light one does not propose.
pub const VIEWS: u64 = 700;

/// An epoch as peers know it.
#[derive(Clone)]
pub struct Place {
    pub set: Arc<ValidatorSet>,
    /// The set of the epoch after.
    pub next: Arc<ValidatorSet>,
    /// The members' keys, in order.
    pub keys: Vec<SecretKey>,
    /// Seed of the proposer draw.
    pub seed: B256,
    /// What made the last block of the epoch before final; `None` in the first one.
    pub root: Option<CommitQc>,
}

pub struct Lab {
    /// Where the peers are; [`Lab::enter`] moves them.
    pub place: Place,
    /// The set of that place.
    pub set: Arc<ValidatorSet>,
    pub domain: Domain,
    pub settings: Settings,
    pub replica: Option<Replica>,
    pub disk: SimDisk,
    pub executor: SimExecutor,
    /// Executes everything and makes nothing final: knows what blocks must say.
    oracle: SimExecutor,
    mixes: BTreeMap<B256, B256>,
    pub now: Now,
    /// Whether executor requests are answered at once; else they stay in `asked`.
    pub answers: bool,
    pub asked: Vec<Request>,
    pub sent: Vec<Outbound>,
    /// Blocks with this payload make the executor fail without a verdict.
    pub chokes_on: Option<Vec<u8>>,
    pub given: Vec<B256>,
    /// Views of the start-up wait.
    pub wait_views: u64,
}

pub fn index(node: usize) -> ValidatorIndex {
    ValidatorIndex::new(node as u32)
}

thread_local! {
    /// Whether this test's keys are real ones.
    static REAL: Cell<bool> = const { Cell::new(false) };
}

pub fn key(node: usize) -> SecretKey {
    if REAL.get() { SecretKey::from_seed(&[node as u8 + 1; 32]) } else { SecretKey::simulated(node as u64) }
}

pub fn view(number: u64) -> View {
    View::new(number)
}

impl Lab {
    /// The light validator, up, with its executor.
    pub fn new() -> Self {
        Self::of(&STAKES, Some(ME))
    }

    /// The same with real signatures, for the rest of the test.
    pub fn with_real_keys() -> Self {
        REAL.set(true);
        Self::new()
    }

    /// A node that proposes in none of the first views, unless it is alone.
    pub fn of(stakes: &[u128], me: Option<usize>) -> Self {
        let idle = |set: &ValidatorSet, seed: &B256| {
            let mine = |number| Some(set.proposer(seed, view(number))) == me.map(index);
            set.len() == 1 || !(1..=VIEWS).any(mine)
        };
        Self::seeded(stakes, me, idle)
    }

    /// A heavy validator that leads the second view.
    pub fn leading() -> Self {
        let second =
            |set: &ValidatorSet, seed: &B256| [1, 0] == [1, 2].map(|v| set.proposer(seed, view(v)).get());
        Self::seeded(&STAKES, Some(0), second)
    }

    /// The light validator in view 5 of the first epoch, of four heights, which has seen and certified all of them.
    pub fn at_the_boundary() -> (Self, Vec<(Block, Qc)>) {
        let mut lab = Self::new();
        lab.settings.epochs = EpochSchedule::new(4);
        lab.disk = SimDisk::default();
        lab.start().unwrap();
        let chain = lab.chain(4);
        for (block, qc) in &chain {
            lab.propose(block);
            lab.receive(1, ConsensusMessage::Qc(qc.clone()));
        }
        assert_eq!((lab.me().view(), lab.me().epoch()), (view(5), Epoch::ZERO));
        (lab, chain)
    }

    /// One of several nodes of the same chain.
    pub fn with_seed_of(stakes: &[u128], me: usize) -> Self {
        Self::seeded(stakes, Some(me), |_, _| true)
    }

    /// One of four equal validators, which proposes in none of the first five views.
    pub fn equal() -> Self {
        let idle = |set: &ValidatorSet, seed: &B256| {
            (1..=5).all(|number| set.proposer(seed, view(number)) != index(ME))
        };
        Self::seeded(&[1000; 4], Some(ME), idle)
    }

    fn seeded(stakes: &[u128], me: Option<usize>, fits: impl Fn(&ValidatorSet, &B256) -> bool) -> Self {
        let validators = stakes.iter().enumerate().map(|(i, stake)| Validator {
            address: Address::left_padding_from(&(i as u64 + 1).to_be_bytes()),
            public_key: key(i).public_key(),
            stake: Stake::new(*stake),
        });
        let of = if REAL.get() { ValidatorSet::new } else { ValidatorSet::simulated };
        let set = of(Epoch::ZERO, validators.collect(), QuorumRule::default()).unwrap();
        let seeds = (0u64..).map(|i| tagged_hash("tandem lab seed", &[&i.to_le_bytes()]));
        let seed = seeds.into_iter().find(|seed| fits(&set, seed)).unwrap();
        let set = Arc::new(set);
        let settings = Settings {
            chain_id: 31337,
            genesis_hash: GENESIS,
            genesis_timestamp_ms: WALL_MS - 10_000,
            seed,
            validators: set.clone(),
            timing: Timing::default(),
            limits: PayloadLimits { bytes: 8 << 20, gas: 30_000_000, objects: u64::MAX },
            epochs: EpochSchedule::new(1 << 30),
            evidence_period: sim::EVIDENCE_PERIOD,
            keys: me.map(key).into_iter().collect(),
            fee_recipient: None,
        };
        let next = set.successor(Epoch::new(1), set.validators().to_vec()).unwrap();
        let keys = (0..stakes.len()).map(key).collect();
        let mut lab = Self {
            place: Place { set: set.clone(), next: Arc::new(next), keys, seed, root: None },
            domain: Domain { chain_id: 31337, genesis_hash: GENESIS, epoch: 0 },
            set,
            replica: None,
            disk: SimDisk::default(),
            executor: SimExecutor::new(GENESIS),
            oracle: SimExecutor::new(GENESIS),
            mixes: BTreeMap::from([(GENESIS, seed)]),
            now: Now { mono_ms: 1_000, wall_ms: WALL_MS },
            answers: true,
            asked: Vec::new(),
            sent: Vec::new(),
            chokes_on: None,
            given: Vec::new(),
            wait_views: 0,
            settings,
        };
        lab.start().unwrap();
        lab
    }

    /// (Re)starts the replica from its disk; the executor reports itself.
    pub fn start(&mut self) -> Result<(), StartError> {
        let recovered = self.disk.recover();
        let replica = Replica::new(self.settings.clone(), recovered, &self.disk, self.now)?;
        self.replica = Some(replica.with_doppelganger_wait(self.wait_views, self.now));
        let head = self.executor.head();
        self.input(Input::Engine(EngineReply::Up(head)));
        let members = self.replica.as_ref().map_or(0, |replica| replica.validators().len());
        for other in 0..members {
            self.input(Input::Connected(index(other)));
        }
        Ok(())
    }

    /// The same node from the beginning, in a chain whose epochs and sets are these.
    pub fn restarted_with(mut self, sets: Arc<Sets>, keys: Vec<SecretKey>) -> Self {
        self.settings.epochs = sets.schedule();
        self.settings.keys = keys;
        self.executor = SimExecutor::with_sets(GENESIS, sets.clone());
        self.oracle = SimExecutor::with_sets(GENESIS, sets);
        self.disk = SimDisk::default();
        self.sent.clear();
        self.start().unwrap();
        self
    }

    /// Moves the peers to another epoch, the replica wherever it is.
    pub fn enter(&mut self, place: Place) {
        self.set = place.set.clone();
        self.domain = Domain { epoch: place.set.epoch().get(), ..self.domain };
        self.place = place;
    }

    /// Whether blocks can be made on a block.
    pub fn knows(&self, hash: &B256) -> bool {
        self.mixes.contains_key(hash)
    }

    pub fn me(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    /// Gives an input and everything that follows from it at the same instant.
    pub fn input(&mut self, input: Input) {
        let mut queue = VecDeque::from([input]);
        let mut steps = 0;
        while let Some(input) = queue.pop_front() {
            steps += 1;
            assert!(steps < 10_000, "the replica and its executor talk for ever");
            let replica = self.replica.as_mut().unwrap();
            let mut ready = replica.handle(self.now, input, &self.disk).unwrap();
            // It may ask for one more look at once; a busy loop ends at the bound above.
            if replica.deadline() <= self.now.mono_ms {
                queue.push_back(Input::Tick);
            }
            for request in ready.take_requests() {
                match self.answers.then(|| self.answer(&request)).flatten() {
                    Some(reply) => queue.push_back(Input::Engine(reply)),
                    None => self.asked.push(request),
                }
            }
            // Power went: what was not written is gone, and so is the replica.
            let Ok(released) = ready.persist(&mut self.disk) else { return self.replica = None };
            for outbound in released {
                if let Outbound::Finalize(choice) = &outbound
                    && self.answers
                {
                    let result = self.executor.forkchoice(*choice);
                    let block_hash = choice.finalized;
                    queue.push_back(Input::Engine(EngineReply::Finalized { block_hash, result }));
                }
                self.sent.push(outbound);
            }
        }
    }

    fn answer(&mut self, request: &Request) -> Option<EngineReply> {
        Some(match request {
            Request::NewPayload { block_hash, block } => {
                self.given.push(*block_hash);
                let chokes = self.chokes_on.as_ref() == Some(&block.payload);
                let result = if chokes {
                    Err(EngineError::Internal("it cannot say".into()))
                } else {
                    self.executor.new_payload(block).map(|status| self.at_boundary(block, status))
                };
                EngineReply::Judged { block_hash: *block_hash, result }
            }
            Request::FinalizedState => EngineReply::Up(self.executor.head()),
            Request::Build { id, request } => {
                EngineReply::Built { id: *id, result: self.executor.build(request, vec![7; 7]) }
            }
            Request::AwaitTransactions { .. } | Request::Fetch { .. } => return None,
        })
    }

    /// The set never changes, unless the executor says otherwise.
    fn at_boundary(&self, block: &Block, status: PayloadStatus) -> PayloadStatus {
        match status {
            PayloadStatus::Valid { state_hash, receipts_hash, next_validators: None }
                if self.settings.epochs.is_boundary(block.header.height) =>
            {
                let next_validators = Some(self.set.validators().to_vec());
                PayloadStatus::Valid { state_hash, receipts_hash, next_validators }
            }
            other => other,
        }
    }

    /// Lets time pass, with a tick at every deadline.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        while self.replica.is_some() {
            let next = self.me().deadline().min(end).max(self.now.mono_ms + 1);
            let step = next - self.now.mono_ms;
            self.now = Now { mono_ms: next, wall_ms: self.now.wall_ms + step };
            if next >= end {
                return self.input(Input::Tick);
            }
            self.input(Input::Tick);
        }
    }

    // What peers make.

    pub fn proposer(&self, number: u64) -> usize {
        self.set.proposer(&self.place.seed, view(number)).get() as usize
    }

    /// A good block of a view on a certified parent (`None`: on what the epoch starts at).
    pub fn block(&mut self, number: u64, parent: Option<&Qc>, timeout: Option<Tc>, payload: &[u8]) -> Block {
        let at = self.now.wall_ms;
        self.block_at(number, parent, timeout, payload, at)
    }

    pub fn block_at(
        &mut self,
        number: u64,
        parent: Option<&Qc>,
        timeout: Option<Tc>,
        payload: &[u8],
        timestamp_ms: u64,
    ) -> Block {
        let start = self.place.root.clone();
        let root = start.as_ref().map_or((Height::ZERO, GENESIS), |qc| (qc.vote.height, qc.vote.block_hash));
        let (height, parent_hash) = parent.map_or(root, |qc| (qc.vote.height, qc.vote.block_hash));
        let proposer = self.proposer(number);
        let randao_reveal = self.place.keys[proposer].sign(&randao_bytes(&self.domain, view(number)));
        let mix = randao_mix(self.mixes[&parent_hash], &randao_reveal);
        let system_inputs = SystemInputs { randao_mix: mix, ..SystemInputs::default() };
        let request = PayloadRequest {
            parent_hash,
            height: height.next(),
            view: view(number),
            timestamp_ms,
            proposer: index(proposer),
            fee_recipient: Address::ZERO,
            limits: self.settings.limits,
            system_inputs: system_inputs.clone(),
        };
        let built = self.oracle.build(&request, payload.to_vec()).unwrap();
        let header = Header {
            chain_id: 31337,
            epoch: self.set.epoch(),
            epoch_start_height: self.settings.epochs.first(self.set.epoch()),
            height: height.next(),
            view: view(number),
            parent_hash,
            timestamp_ms,
            proposer: index(proposer),
            fee_recipient: Address::ZERO,
            validator_set_id: self.set.id(),
            next_validator_set_id: self.place.next.id(),
            payload_commitment: built.commitment,
            state_hash: built.state_hash,
            receipts_hash: built.receipts_hash,
            checkpoint: Checkpoint::default(),
            randao_reveal,
            justify: match (parent, start) {
                (Some(qc), _) => Justify::Prepare(qc.clone()),
                (None, Some(commit)) => Justify::EpochBoundary(commit),
                (None, None) => Justify::Genesis,
            },
            timeout,
            last_commit: None,
            system_inputs_hash: system_inputs.hash(),
        };
        let block = Block { header, system_inputs, payload: payload.to_vec() };
        self.oracle.new_payload(&block).unwrap();
        self.mixes.insert(block.header.hash(), mix);
        block
    }

    /// Learns of a block made elsewhere, so that others can be made on it.
    pub fn adopt(&mut self, block: &Block) {
        self.oracle.new_payload(block).unwrap();
        self.mixes.insert(block.header.hash(), block.system_inputs.randao_mix);
    }

    /// A chain of blocks on the genesis, one per view from 1, each with its prepare certificate.
    pub fn chain(&mut self, length: u64) -> Vec<(Block, Qc)> {
        let mut chain: Vec<(Block, Qc)> = Vec::new();
        for number in 1..=length {
            let parent = chain.last().map(|(_, qc)| qc.clone());
            let block = self.block(number, parent.as_ref(), None, &number.to_le_bytes());
            let qc = self.qc(&block, &OTHERS);
            chain.push((block, qc));
        }
        chain
    }

    pub fn sign<S: Statement>(&self, by: usize, statement: S) -> Signed<S> {
        Signed::new(statement, index(by), &self.place.keys[by], &self.domain)
    }

    pub fn link(block: &Block) -> PrepareVote {
        let (header, source) = (&block.header, block.header.source());
        PrepareVote {
            source_view: source.view,
            source_hash: source.block_hash,
            target_view: header.view,
            height: header.height,
            block_hash: header.hash(),
        }
    }

    pub fn commit_vote(block: &Block) -> CommitVote {
        let header = &block.header;
        CommitVote { view: header.view, height: header.height, block_hash: header.hash() }
    }

    fn sum<S: Statement + Copy>(&self, statement: S, signers: &[usize]) -> (SignerSet, Signature) {
        let signatures: Vec<_> = signers.iter().map(|by| self.sign(*by, statement).signature).collect();
        let set = SignerSet::of(self.set.len(), signers.iter().map(|by| index(*by)));
        (set, aggregate(&signatures).unwrap())
    }

    pub fn qc(&self, block: &Block, signers: &[usize]) -> Qc {
        self.qc_of(Self::link(block), signers)
    }

    pub fn qc_of(&self, vote: PrepareVote, signers: &[usize]) -> Qc {
        let (signers, signature) = self.sum(vote, signers);
        Qc { epoch: self.set.epoch(), vote, signers, signature }
    }

    pub fn commit_qc(&self, block: &Block, signers: &[usize]) -> CommitQc {
        self.commit_qc_of(Self::commit_vote(block), signers)
    }

    pub fn commit_qc_of(&self, vote: CommitVote, signers: &[usize]) -> CommitQc {
        let (signers, signature) = self.sum(vote, signers);
        CommitQc { epoch: self.set.epoch(), vote, signers, signature }
    }

    /// All signers say the same.
    pub fn tc(&self, number: u64, signers: &[usize], high_qc: Option<&Qc>, last_prepared: u64) -> Tc {
        let statement = TimeoutVote {
            view: view(number),
            high_qc_view: high_qc.map_or(View::ZERO, Qc::view),
            last_prepared_view: view(last_prepared),
            reason: TimeoutReason::Expired,
        };
        let (signers, signature) = self.sum(statement, signers);
        let TimeoutVote { high_qc_view, last_prepared_view, reason, .. } = statement;
        let groups = vec![TimeoutGroup { high_qc_view, last_prepared_view, reason, signers }];
        Tc { epoch: self.set.epoch(), view: view(number), groups, signature, high_qc: high_qc.cloned() }
    }

    pub fn timeout(&self, by: usize, number: u64, high_qc: Option<&Qc>) -> ConsensusMessage {
        let statement = TimeoutVote {
            view: view(number),
            high_qc_view: high_qc.map_or(View::ZERO, Qc::view),
            last_prepared_view: View::ZERO,
            reason: TimeoutReason::Expired,
        };
        let timeout = Timeout { signed: self.sign(by, statement), high_qc: high_qc.cloned() };
        ConsensusMessage::Timeout(self.set.epoch(), timeout)
    }

    pub fn proposal(&self, block: &Block) -> ConsensusMessage {
        let vote = ProposalVote { view: block.header.view, block_hash: block.header.hash() };
        let signed = self.sign(block.header.proposer.get() as usize, vote);
        let proposal = Proposal { signed, block: block.clone(), again: None };
        ConsensusMessage::Proposal(self.set.epoch(), Box::new(proposal))
    }

    pub fn stored(block: &Block, commit: Option<CommitQc>) -> CommittedBlock {
        CommittedBlock { block: block.clone(), commit }
    }

    // What peers send.

    pub fn receive(&mut self, from: usize, message: ConsensusMessage) {
        self.input(Input::Message { from: index(from), message });
    }

    pub fn propose(&mut self, block: &Block) {
        let (from, message) = (block.header.proposer.get() as usize, self.proposal(block));
        self.receive(from, message);
    }

    /// Lets time pass until the replica has a payload built, and returns that request.
    pub fn until_build(&mut self) -> (u64, PayloadRequest) {
        for _ in 0..5_000 {
            let build = self.asked.iter().find_map(|request| match request {
                Request::Build { id, request } => Some((*id, (**request).clone())),
                _ => None,
            });
            match build {
                Some(found) => return found,
                None => self.pass(1),
            }
        }
        panic!("it never builds");
    }

    /// The last fetch that has not been answered.
    pub fn fetch(&mut self) -> Option<(u64, usize, FetchRequest)> {
        let at = self.asked.iter().rposition(|request| matches!(request, Request::Fetch { .. }))?;
        match self.asked.remove(at) {
            Request::Fetch { id, peer, request } => Some((id, peer.get() as usize, request)),
            _ => None,
        }
    }

    pub fn fetched(&mut self, id: u64, blocks: Vec<CommittedBlock>, head: Option<CommitQc>) {
        self.input(Input::Fetched { id, result: Ok(FetchResponse { blocks, head }) });
    }

    // What the replica did.

    pub fn messages(&self) -> impl Iterator<Item = &ConsensusMessage> {
        self.sent.iter().filter_map(|outbound| match outbound {
            Outbound::Send(_, message) | Outbound::Broadcast(message) => Some(message),
            _ => None,
        })
    }

    pub fn prepared(&self) -> Vec<PrepareVote> {
        let prepare = |message: &ConsensusMessage| match message {
            ConsensusMessage::Prepare(_, Prepare { statement, .. }) => Some(*statement),
            _ => None,
        };
        self.messages().filter_map(prepare).collect()
    }

    pub fn committed(&self) -> Vec<CommitVote> {
        let commit = |message: &ConsensusMessage| match message {
            ConsensusMessage::Commit(_, Commit { signed, .. }) => Some(signed.statement),
            _ => None,
        };
        self.messages().filter_map(commit).collect()
    }

    pub fn timed_out(&self) -> Vec<View> {
        let timeout = |message: &ConsensusMessage| match message {
            ConsensusMessage::Timeout(_, timeout) => Some(timeout.signed.statement.view),
            _ => None,
        };
        self.messages().filter_map(timeout).collect()
    }

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.sent.iter().filter_map(|outbound| match outbound {
            Outbound::Event(event) => Some(event),
            _ => None,
        })
    }

    pub fn alarms(&self) -> usize {
        self.events().filter(|event| matches!(event, Event::Alarm(_))).count()
    }

    pub fn accused(&self) -> Vec<usize> {
        let accused = |event: &Event| match event {
            Event::Misbehaviour { validator, .. } => Some(validator.get() as usize),
            _ => None,
        };
        self.events().filter_map(accused).collect()
    }

    pub fn height(&self) -> u64 {
        self.me().finalized().0.get()
    }
}
