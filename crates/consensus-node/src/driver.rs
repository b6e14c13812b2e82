//! The consensus thread: owns the replica and the journal, and is the only one to touch them.
//!
//! It never waits for the network or the executor; it waits for the disk, because nothing may leave before it is
//! durable. What it waits for otherwise is one closed set of [`Event`]s.
//!
//! # Invariants
//! - Messages leave only through [`consensus::Ready::persist`], which is only called here.
//! - After a disk error nothing is given to the replica any more; questions are still answered, so that the status
//!   can say what happened.

use crate::clock::Clock;
use crate::engine_link::EngineCall;
use crate::feed::{Feed, FinalBlock};
use crate::metrics::{MessageLabels, Metrics, OffenceLabel, ValidatorLabel};
use consensus::{
    BuiltAhead, Disk, DiskError, EngineReply, Input, Now, Outbound, Ready, Replica, Request, Silence,
};
use engine_api::EngineError;
use journal::Journal;
use net::{HandshakeError, MeshEvent, MeshHandle, Penalty};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use types::evidence::Accusation;
use types::{
    B256, ConsensusMessage, Epoch, Evidence, FetchRequest, FetchResponse, Height, PublicKey, ValidatorIndex,
    ValidatorSet,
};

/// Answers of the executor and of fetches that wait for the thread.
pub(crate) const INPUTS_MAX: usize = 1024;

/// Questions that wait for the thread.
pub(crate) const QUESTIONS_MAX: usize = 64;

/// Inputs that wait already are handled together, up to this many: one write to the disk covers them all.
const INPUTS_PER_STEP_MAX: usize = 64;

/// At most one log line about one validator's misbehaviour in this time.
const MISBEHAVIOUR_LOG_MS: u64 = 10_000;

/// How long a node whose disk failed stays to say so before it ends. Whoever supervises it starts it again, and
/// again, until the disk is mended: that is how it recovers without anybody's help.
const FAILED_STAY: Duration = Duration::from_secs(10);

/// Blocks read back at start for the feed.
const REMEMBERED_MAX: u64 = 64;

/// A block this far below the highest proven one is being caught up on; its finality time says nothing.
const CATCHING_UP_HEIGHTS: u64 = 2;

/// What the thread waits for.
pub(crate) enum Event {
    /// For the replica: an answer of the executor, a fetch, or the time.
    Input(Input),
    /// A message of a validator.
    Message(PublicKey, ConsensusMessage),
    /// Bytes of a validator that are no message.
    Garbage(PublicKey),
    /// The link to a validator is up or down.
    Link(PublicKey, bool),
    /// A peer wants blocks.
    Serve(FetchRequest, oneshot::Sender<FetchResponse>),
    /// Somebody wants to know something.
    Question(Question),
    /// The end.
    Stop,
}

/// A look at the state; cannot change it.
pub(crate) type Question = Box<dyn FnOnce(&Core<'_>) + Send>;

/// What a question sees.
pub(crate) struct Core<'a> {
    pub replica: &'a Replica,
    pub journal: &'a Journal,
    pub now: Now,
    /// The last final block whose record is durable. The replica runs ahead of it when the disk fails.
    pub finalized: (Height, B256),
    /// Set when the disk failed: the replica stands still since then.
    pub failure: Option<&'a DiskError>,
    /// When another node last proved that it holds this validator's key.
    pub own_key_elsewhere: Option<Instant>,
    /// Whether any validator was ever connected since the start.
    pub met_anyone: bool,
}

/// Asks the consensus thread.
#[derive(Clone)]
pub(crate) struct Asker(pub(crate) mpsc::Sender<Question>);

impl Asker {
    /// The answer, or `None` when the thread has too many questions or is gone. Waits as long as the disk does.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |core| {
            // Whoever asked may have given up.
            let _ = answer.send(look(core));
        });
        self.0.try_send(question).ok()?;
        answered.await.ok()
    }
}

/// Where events come from.
pub(crate) struct Sources {
    pub inputs: mpsc::Receiver<Input>,
    pub mesh: mpsc::Receiver<MeshEvent>,
    pub questions: mpsc::Receiver<Question>,
    pub stop: watch::Receiver<bool>,
}

impl Sources {
    /// The next event, or a tick at the deadline. The choice among waiting sources is random, so that none starves
    /// another; only the end comes first.
    async fn next(&mut self, deadline: Instant) -> Event {
        loop {
            if *self.stop.borrow() {
                return Event::Stop;
            }
            if Instant::now() >= deadline {
                return Event::Input(Input::Tick);
            }
            let event = tokio::select! {
                // A stop and a lost sender mean the same.
                _ = self.stop.changed() => None,
                input = self.inputs.recv() => input.map(Event::Input),
                event = self.mesh.recv() => event.and_then(event_of_mesh),
                question = self.questions.recv() => question.map(Event::Question),
                () = tokio::time::sleep_until(deadline.into()) => None,
            };
            match event {
                Some(event) => return event,
                // A closed source must not become a busy loop.
                None if self.inputs.is_closed() || self.mesh.is_closed() => return Event::Stop,
                None => {}
            }
        }
    }
}

impl Sources {
    /// `first` and the inputs and messages that wait behind it and may share its step, and the event that ended the
    /// search.
    fn gather(&mut self, first: Event) -> (VecDeque<Event>, Option<Event>) {
        let mut events = VecDeque::from([first]);
        while events.len() < INPUTS_PER_STEP_MAX {
            match self.waiting() {
                Some(event @ Event::Message(..)) => events.push_back(event),
                Some(Event::Input(input)) if !reads_the_disk(&input) => events.push_back(Event::Input(input)),
                other => return (events, other),
            }
        }
        (events, None)
    }

    /// The answers of the executor and of fetches that wait and may share a step, and what ended the search.
    fn gather_answers(&mut self) -> (VecDeque<Input>, Option<Event>) {
        let mut inputs = VecDeque::new();
        while inputs.len() < INPUTS_PER_STEP_MAX {
            match self.inputs.try_recv() {
                Ok(input) if reads_the_disk(&input) => return (inputs, Some(Event::Input(input))),
                Ok(input) => inputs.push_back(input),
                Err(_) => break,
            }
        }
        (inputs, None)
    }

    /// An input that is there already.
    fn waiting(&mut self) -> Option<Event> {
        if let Ok(input) = self.inputs.try_recv() {
            return Some(Event::Input(input));
        }
        while let Ok(event) = self.mesh.try_recv() {
            if let Some(event) = event_of_mesh(event) {
                return Some(event);
            }
        }
        None
    }
}

/// Whether the replica looks final blocks up for an input: those of the step before must be on disk by then.
fn reads_the_disk(input: &Input) -> bool {
    matches!(input, Input::Engine(EngineReply::Up(_) | EngineReply::Down(_)))
}

fn event_of_mesh(event: MeshEvent) -> Option<Event> {
    Some(match event {
        MeshEvent::Message { from, bytes } => match types::decode::<ConsensusMessage>(&bytes) {
            Ok(message) => Event::Message(from, message),
            Err(_) => Event::Garbage(from),
        },
        MeshEvent::Connected(validator) => Event::Link(validator, true),
        MeshEvent::Disconnected(validator) => Event::Link(validator, false),
        MeshEvent::Fetch { request, reply, .. } => Event::Serve(request, reply),
        MeshEvent::Refused { address, error } => {
            tracing::warn!(%address, %error, "peer handshake failed");
            match error {
                HandshakeError::OwnKey { .. } => Event::Input(Input::OwnKeyElsewhere),
                _ => return None,
            }
        }
    })
}

/// Everything the thread works with.
pub(crate) struct Driver {
    pub replica: Replica,
    pub journal: Journal,
    pub clock: Clock,
    pub mesh: MeshHandle,
    pub engine: mpsc::Sender<EngineCall>,
    pub inputs: mpsc::Sender<Input>,
    /// When the executor last said that a block is final and durable, in milliseconds since 1970.
    pub final_at_ms: Arc<AtomicU64>,
    /// Where fetches run.
    pub tasks: Handle,
    pub feed: Arc<Feed>,
    pub metrics: Arc<Metrics>,
}

/// What the thread remembers beside the replica.
struct State {
    driver: Driver,
    failure: Option<DiskError>,
    own_key_elsewhere: Option<Instant>,
    /// What kept the signer silent at the last look.
    silence: Option<Silence>,
    /// When to end after a failure.
    ends_at: Option<Instant>,
    finalized: (Height, B256),
    met_anyone: bool,
    roster: Roster,
    head: B256,
    /// As the metrics have it.
    built_ahead: BuiltAhead,
    complained_ms: BTreeMap<PublicKey, u64>,
    /// Indices of the current set whose links the replica does not know of yet.
    newcomers: Vec<ValidatorIndex>,
}

/// Who is who: the mesh knows keys, the replica indices in the set of an epoch.
struct Roster {
    previous: Option<Arc<ValidatorSet>>,
    current: Arc<ValidatorSet>,
    next: Arc<ValidatorSet>,
    /// Validators that the mesh has a link to.
    linked: BTreeSet<PublicKey>,
}

impl Roster {
    fn of(replica: &Replica) -> Self {
        Self {
            previous: replica.previous_validators().cloned(),
            current: replica.validators().clone(),
            next: replica.next_validators().clone(),
            linked: BTreeSet::new(),
        }
    }

    /// The index of a validator in an epoch's set; one beyond any set where it has none.
    fn index(&self, key: &PublicKey, epoch: Epoch) -> ValidatorIndex {
        let sets = [Some(&self.current), Some(&self.next), self.previous.as_ref()];
        let set = sets.into_iter().flatten().find(|set| set.epoch() == epoch);
        set.and_then(|set| set.index_of(key)).unwrap_or(ValidatorIndex::new(u32::MAX))
    }

    /// The key of a member of the current set.
    fn key(&self, index: ValidatorIndex) -> Option<PublicKey> {
        self.current.get(index).map(|validator| validator.public_key)
    }
}

impl Driver {
    /// Runs until told to stop. Call it on a thread of its own.
    pub(crate) fn run(self, mut sources: Sources) -> std::io::Result<()> {
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut state = State::new(self);
        state.remember_recent();
        state.take([Input::Tick].into());
        // What ended the last search for inputs.
        let mut held = None;
        timer.block_on(async {
            loop {
                let deadline = state.deadline();
                if let Some(failure) = state.failure.as_ref().filter(|_| Instant::now() >= deadline) {
                    return Err(std::io::Error::other(failure.to_string()));
                }
                let event = match held.take() {
                    Some(event) => event,
                    None => sources.next(deadline).await,
                };
                match event {
                    event @ (Event::Input(_) | Event::Message(..)) => {
                        let (events, other) = sources.gather(event);
                        held = other;
                        let inputs = events.into_iter().filter_map(|event| state.input_of(event)).collect();
                        state.take(inputs);
                        while state.verifies() {
                            let answers =
                                || if held.is_none() { sources.gather_answers() } else { Default::default() };
                            held = state.verify(answers).or(held.take());
                        }
                    }
                    Event::Garbage(from) => {
                        state.misbehaved(&from, Penalty::Malformed, "sent bytes that are no message")
                    }
                    Event::Link(validator, up) => state.link(validator, up),
                    Event::Serve(request, reply) => state.serve(&request, reply),
                    Event::Question(question) => question(&state.core()),
                    Event::Stop => return Ok(()),
                }
            }
        })
    }
}

impl State {
    fn new(driver: Driver) -> Self {
        Self {
            finalized: driver.replica.finalized(),
            failure: None,
            own_key_elsewhere: None,
            silence: None,
            ends_at: None,
            met_anyone: false,
            roster: Roster::of(&driver.replica),
            head: B256::ZERO,
            built_ahead: BuiltAhead::default(),
            complained_ms: BTreeMap::new(),
            newcomers: Vec::new(),
            driver,
        }
    }

    fn core(&self) -> Core<'_> {
        Core {
            replica: &self.driver.replica,
            journal: &self.driver.journal,
            now: self.driver.clock.now(),
            finalized: self.finalized,
            failure: self.failure.as_ref(),
            own_key_elsewhere: self.own_key_elsewhere,
            met_anyone: self.met_anyone,
        }
    }

    fn deadline(&self) -> Instant {
        self.ends_at.unwrap_or_else(|| self.driver.clock.instant(self.driver.replica.deadline()))
    }

    /// Takes inputs and messages, as many as possible in one step.
    fn take(&mut self, mut inputs: VecDeque<Input>) {
        while !inputs.is_empty() && self.failure.is_none() {
            self.step(Ready::default(), &mut inputs);
        }
    }

    /// Whether a proposal waits for its signatures to be checked.
    fn verifies(&self) -> bool {
        self.driver.replica.has_unverified() && self.failure.is_none()
    }

    /// Checks the signatures of the proposal that waits, in a step of its own: it takes longer than what came together
    /// with the proposal should wait. The executor has judged the block by the end of it, most of the time; then one
    /// write covers the block and the vote. Gives back what ended the search for that answer.
    fn verify(&mut self, answers: impl FnOnce() -> (VecDeque<Input>, Option<Event>)) -> Option<Event> {
        let (mut ready, epoch) = (Ready::default(), self.driver.replica.epoch());
        let checked = self.think(&mut ready, &mut [Input::Tick].into());
        if let Err(error) = checked {
            self.fail(error);
            return None;
        }
        // What comes after an epoch's end waits until the end is durable.
        let (mut inputs, held) =
            if self.driver.replica.epoch() == epoch { answers() } else { Default::default() };
        self.step(ready, &mut inputs);
        self.take(inputs);
        held
    }

    /// Takes inputs up to an epoch's end: from there on indices mean another set. `ready` is what went before and is
    /// not done yet.
    fn step(&mut self, ready: Ready, inputs: &mut VecDeque<Input>) {
        if let Err(error) = self.try_step(ready, inputs) {
            self.fail(error);
        }
        // Validators that an epoch made such, and which were linked before.
        let newcomers = std::mem::take(&mut self.newcomers);
        self.take(newcomers.into_iter().map(Input::Connected).collect());
    }

    fn fail(&mut self, error: DiskError) {
        let stay_s = FAILED_STAY.as_secs();
        tracing::error!(%error, stay_s, "the disk failed: this node signs nothing any more and ends soon");
        self.driver.metrics.disk_failed.set(1);
        self.failure = Some(error);
        self.ends_at = Some(Instant::now() + FAILED_STAY);
    }

    fn link(&mut self, validator: PublicKey, up: bool) {
        if up {
            self.met_anyone = true;
            self.roster.linked.insert(validator);
            tracing::info!(%validator, "validator connected");
        } else {
            self.roster.linked.remove(&validator);
            tracing::info!(%validator, "validator disconnected");
        }
        let linked = self.roster.linked.len();
        self.driver.metrics.peers.set(i64::try_from(linked).unwrap_or(i64::MAX));
        if let Some(index) = self.roster.current.index_of(&validator) {
            let input = if up { Input::Connected(index) } else { Input::Disconnected(index) };
            self.take([input].into());
        }
    }

    /// From now on indices mean other sets.
    fn change_epoch(&mut self, epoch: Epoch, current: Arc<ValidatorSet>, next: Arc<ValidatorSet>) {
        tracing::info!(%epoch, validators = current.len(), set = %current.id(), "epoch begins");
        self.driver.metrics.epoch.set(gauge(epoch.get()));
        let left = std::mem::replace(&mut self.roster.current, current.clone());
        // Who has left is heard for one epoch more: what it signed late may convict it.
        self.driver.mesh.set_validators(&[current, next.clone(), left.clone()]);
        let (linked, current) = (&self.roster.linked, &self.roster.current);
        let joined = linked.iter().filter(|key| left.index_of(key).is_none());
        self.newcomers = joined.filter_map(|key| current.index_of(key)).collect();
        self.roster.previous = Some(left);
        self.roster.next = next;
        // Bounds what is remembered of validators that left.
        self.complained_ms.clear();
    }

    fn count(&self, direction: &'static str, message: &ConsensusMessage) {
        self.driver.metrics.messages.get_or_create(&MessageLabels { direction, kind: message.kind() }).inc();
    }

    /// Inputs, requests, disk, and only then the world (C-7).
    fn try_step(&mut self, mut ready: Ready, inputs: &mut VecDeque<Input>) -> Result<(), DiskError> {
        self.think(&mut ready, inputs)?;
        let writes = !ready.records().is_empty();
        let begun = Instant::now();
        let released = ready.persist(&mut self.driver.journal)?;
        if writes {
            self.driver.metrics.journal_fsync.observe(begun.elapsed().as_secs_f64());
        }
        for outbound in released {
            self.release(outbound);
        }
        self.driver.replica.work_ahead();
        self.publish();
        Ok(())
    }

    fn think(&mut self, ready: &mut Ready, inputs: &mut VecDeque<Input>) -> Result<(), DiskError> {
        let epoch = self.driver.replica.epoch();
        self.driver.replica.expect(inputs.make_contiguous());
        while self.driver.replica.epoch() == epoch
            && let Some(input) = inputs.pop_front()
        {
            let Driver { replica, journal, clock, .. } = &mut self.driver;
            let mut more = replica.handle(clock.now(), input, journal)?;
            for request in more.take_requests() {
                self.start(request);
            }
            ready.append(more);
        }
        Ok(())
    }

    fn input_of(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Input(Input::OwnKeyElsewhere) => {
                tracing::error!(
                    "another node proved that it holds this validator's key: stop one of the two; if both sign, the key is slashed"
                );
                self.own_key_elsewhere = Some(Instant::now());
                Some(Input::OwnKeyElsewhere)
            }
            Event::Input(input) => Some(input),
            Event::Message(from, message) => {
                self.count("received", &message);
                let from = self.roster.index(&from, message.epoch());
                Some(Input::Message { from, message })
            }
            Event::Garbage(_) | Event::Link(..) | Event::Serve(..) | Event::Question(_) | Event::Stop => None,
        }
    }

    fn start(&self, request: Request) {
        match request {
            Request::AwaitTransactions { id, parent_hash, wait_ms_max } => {
                self.call(EngineCall::Await { id, parent_hash, wait_ms_max });
            }
            Request::Build { id, request } => self.call(EngineCall::Build { id, request }),
            Request::NewPayload { block_hash, block } => {
                self.call(EngineCall::NewPayload { block_hash, block })
            }
            Request::FinalizedState => self.call(EngineCall::FinalizedState),
            Request::Fetch { id, peer, request } => {
                let (mesh, inputs) = (self.driver.mesh.clone(), self.driver.inputs.clone());
                let peer = self.roster.key(peer);
                self.driver.tasks.spawn(async move {
                    let result = mesh.fetch(peer, request).await.map_err(|error| error.to_string());
                    // A replica that is gone needs no answer.
                    let _ = inputs.send(Input::Fetched { id, result }).await;
                });
            }
        }
    }

    /// Hands a call to the engine link. One that does not fit is answered as unavailable; the replica asks again.
    fn call(&self, call: EngineCall) {
        let Err(refused) = self.driver.engine.try_send(call) else { return };
        let error = EngineError::Unavailable("too many engine calls wait".into());
        let reply = refused.into_inner().failed(error);
        let inputs = self.driver.inputs.clone();
        self.driver.tasks.spawn(async move {
            let _ = inputs.send(Input::Engine(reply)).await;
        });
    }

    fn release(&mut self, outbound: Outbound) {
        match outbound {
            Outbound::Send(to, message) => {
                self.count("sent", &message);
                // What cannot be sent now is repeated by the replica's timers.
                if let Some(key) = self.roster.key(to) {
                    let _ = self.driver.mesh.send(&key, types::encode(&message).into());
                }
            }
            Outbound::Broadcast(message) => {
                self.count("sent", &message);
                if let ConsensusMessage::Proposal(_, proposal) = &message {
                    let age_ms = crate::clock::wall_ms().saturating_sub(proposal.block.header.timestamp_ms);
                    self.driver.metrics.proposals.inc();
                    self.driver.metrics.proposal.observe(age_ms as f64 / 1000.0);
                }
                let _ = self.driver.mesh.broadcast(types::encode(&message).into());
            }
            Outbound::Finalize(forkchoice) => self.call(EngineCall::Finalize(forkchoice)),
            Outbound::Event(event) => self.tell(event),
        }
    }

    fn tell(&mut self, event: consensus::Event) {
        use consensus::Event as Told;
        let metrics = &self.driver.metrics;
        match event {
            Told::Finalized { block, block_hash, commit } => {
                let final_at_ms = self.driver.final_at_ms.load(Ordering::Relaxed);
                let height = block.header.height;
                let proven = self.driver.replica.commit_head().map_or(height, |qc| qc.vote.height);
                if proven.get().saturating_sub(height.get()) <= CATCHING_UP_HEIGHTS {
                    let age_ms = final_at_ms.saturating_sub(block.header.timestamp_ms);
                    metrics.finality.observe(age_ms as f64 / 1000.0);
                }
                tracing::info!(%height, hash = %block_hash, bytes = block.payload.len(), "finalized");
                self.driver.feed.finalized(FinalBlock {
                    block_hash,
                    header: block.header.clone(),
                    payload_bytes: block.payload.len(),
                    commit,
                    finalized_at_ms: Some(final_at_ms),
                });
            }
            Told::View { view, missed } => {
                if let Some(validator) = missed {
                    metrics.timeouts.inc();
                    metrics
                        .missed_proposals
                        .get_or_create(&ValidatorLabel { validator: validator.get() })
                        .inc();
                    tracing::info!(%view, %validator, "the view before timed out under this proposer");
                }
            }
            Told::Misbehaviour { validator, what } => {
                if let Some(key) = self.roster.key(validator) {
                    self.misbehaved(&key, Penalty::InvalidSignature, &what);
                }
            }
            Told::Evidence(evidence) => self.accuse(&evidence, None),
            Told::EvidenceFinal { height, evidence } => self.accuse(&evidence, Some(height)),
            Told::Rejected { height, block_hash, reason } => {
                metrics.rejected_blocks.inc();
                tracing::warn!(%height, hash = %block_hash, reason, "refused a proposed block");
            }
            Told::Epoch { epoch, validators, next } => self.change_epoch(epoch, validators, next),
            Told::SetRefused { epoch, reason } => {
                tracing::error!(%epoch, reason, "the executor's validators are refused; the set before stays");
            }
            Told::Alarm(reason) => tracing::error!(reason, "ALARM: this node signs nothing any more"),
        }
    }

    /// Somebody was proven guilty, or a final block says so.
    fn accuse(&self, evidence: &Evidence, included: Option<Height>) {
        let Ok(Accusation { offence, offenders, .. }) = evidence.accusation() else { return };
        let (epoch, label) = (evidence.epoch(), OffenceLabel { offence: offence.name() });
        let offenders: Vec<u32> = offenders.into_iter().map(ValidatorIndex::get).collect();
        match included {
            None => {
                self.driver.metrics.evidence.found.get_or_create(&label).inc();
                tracing::error!(%epoch, ?offenders, %offence, "EVIDENCE: signed what no honest validator signs");
            }
            Some(height) => {
                self.driver.metrics.evidence.included.get_or_create(&label).inc();
                tracing::warn!(%height, %epoch, ?offenders, %offence, "evidence is in a final block");
            }
        }
    }

    fn misbehaved(&mut self, validator: &PublicKey, penalty: Penalty, what: &str) {
        let index = self.roster.index(validator, self.roster.current.epoch());
        let label = ValidatorLabel { validator: index.get() };
        self.driver.metrics.misbehaviour.get_or_create(&label).inc();
        self.driver.mesh.penalize(validator, penalty);
        let now_ms = self.driver.clock.mono_ms();
        let quiet = self.complained_ms.get(validator).is_some_and(|at| now_ms < at + MISBEHAVIOUR_LOG_MS);
        if !quiet {
            self.complained_ms.insert(*validator, now_ms);
            tracing::warn!(%validator, %index, what, "validator misbehaved");
        }
    }

    fn publish(&mut self) {
        let Driver { replica, metrics, feed, .. } = &self.driver;
        let silence = replica.silence();
        if silence != self.silence {
            match silence {
                Some(reason) => tracing::warn!("this node signs nothing: {reason}"),
                None => tracing::info!("nothing keeps this node from signing any more"),
            }
            self.silence = silence;
        }
        self.finalized = replica.finalized();
        let (finalized, finalized_hash) = self.finalized;
        let (height, view, hash) = match &replica.sign_state().high_qc {
            Some(qc) => (qc.vote.height, qc.vote.target_view, qc.vote.block_hash),
            None => (finalized, types::View::ZERO, finalized_hash),
        };
        let committed = replica.commit_head().map_or(finalized, |qc| qc.vote.height.max(finalized));
        metrics.height.set(gauge(height.get()));
        metrics.finalized_height.set(gauge(finalized.get()));
        metrics.committed_height.set(gauge(committed.get()));
        metrics.view.set(gauge(replica.view().get()));
        let built_ahead = replica.built_ahead();
        if built_ahead != self.built_ahead {
            metrics.built_ahead(self.built_ahead, built_ahead);
            self.built_ahead = built_ahead;
        }
        metrics.evidence.pending.set(gauge(replica.evidence_pending().len() as u64));
        metrics.evidence.offenders.set(gauge(replica.evidence_included().len() as u64));
        if hash != self.head {
            feed.head(height, view, hash);
            self.head = hash;
        }
    }

    fn serve(&mut self, request: &FetchRequest, reply: oneshot::Sender<FetchResponse>) {
        if self.failure.is_some() {
            return;
        }
        match self.driver.replica.serve(request, &self.driver.journal) {
            // A peer that went away needs no answer.
            Ok(response) => drop(reply.send(response)),
            Err(error) => tracing::error!(%error, "cannot read a block that a peer asked for"),
        }
    }

    /// Fills the feed with the last blocks of the run before.
    fn remember_recent(&mut self) {
        let (finalized, _) = self.driver.replica.finalized();
        let first = finalized.get().saturating_sub(REMEMBERED_MAX - 1).max(1);
        for height in first..=finalized.get() {
            match self.driver.journal.finalized(Height::new(height)) {
                Ok(Some(stored)) => self.driver.feed.remember(Arc::new(FinalBlock {
                    block_hash: stored.block.header.hash(),
                    payload_bytes: stored.block.payload.len(),
                    header: stored.block.header,
                    commit: stored.commit,
                    finalized_at_ms: None,
                })),
                Ok(None) => {}
                Err(error) => return tracing::warn!(%error, height, "cannot read back a finalized block"),
            }
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
