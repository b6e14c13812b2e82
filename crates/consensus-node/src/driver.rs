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
use consensus::{Disk, DiskError, EngineReply, Input, Now, Outbound, Ready, Replica, Request, Silence};
use engine_api::EngineError;
use journal::Journal;
use net::{HandshakeError, MeshEvent, MeshHandle, Penalty};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use types::evidence::Accusation;
use types::{B256, ConsensusMessage, Evidence, FetchRequest, FetchResponse, Height, ValidatorIndex};

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
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it never leaves the stack")]
pub(crate) enum Event {
    /// For the replica: an answer of the executor, a fetch, a message, a link, or the time.
    Input(Input),
    /// Bytes of a validator that are no message.
    Garbage(ValidatorIndex),
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
    /// `first` and the inputs that wait behind it and may share its step, and the event that ended the search.
    fn gather(&mut self, first: Input) -> (Vec<Input>, Option<Event>) {
        let mut inputs = vec![first];
        while inputs.len() < INPUTS_PER_STEP_MAX {
            match self.waiting() {
                Some(Event::Input(input)) if !reads_the_disk(&input) => inputs.push(input),
                other => return (inputs, other),
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
            Ok(message) => Event::Input(Input::Message { from, message }),
            Err(_) => Event::Garbage(from),
        },
        MeshEvent::Connected(validator) => Event::Input(Input::Connected(validator)),
        MeshEvent::Disconnected(validator) => Event::Input(Input::Disconnected(validator)),
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
    connected: i64,
    head: B256,
    complained_ms: BTreeMap<ValidatorIndex, u64>,
}

impl Driver {
    /// Runs until told to stop. Call it on a thread of its own.
    pub(crate) fn run(self, mut sources: Sources) -> std::io::Result<()> {
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut state = State::new(self);
        state.remember_recent();
        state.step(vec![Input::Tick]);
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
                    Event::Input(input) => {
                        let (inputs, other) = sources.gather(input);
                        held = other;
                        state.step(inputs);
                    }
                    Event::Garbage(from) => {
                        state.misbehaved(from, Penalty::Malformed, "sent bytes that are no message")
                    }
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
            driver,
            failure: None,
            own_key_elsewhere: None,
            silence: None,
            ends_at: None,
            met_anyone: false,
            connected: 0,
            head: B256::ZERO,
            complained_ms: BTreeMap::new(),
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

    fn step(&mut self, inputs: Vec<Input>) {
        inputs.iter().for_each(|input| self.note(input));
        if self.failure.is_some() {
            return;
        }
        if let Err(error) = self.try_step(inputs) {
            let stay_s = FAILED_STAY.as_secs();
            tracing::error!(%error, stay_s, "the disk failed: this node signs nothing any more and ends soon");
            self.driver.metrics.disk_failed.set(1);
            self.failure = Some(error);
            self.ends_at = Some(Instant::now() + FAILED_STAY);
        }
    }

    fn note(&mut self, input: &Input) {
        match input {
            Input::Connected(validator) => {
                (self.met_anyone, self.connected) = (true, self.connected + 1);
                tracing::info!(%validator, "validator connected");
            }
            Input::Disconnected(validator) => {
                self.connected -= 1;
                tracing::info!(%validator, "validator disconnected");
            }
            Input::Message { message, .. } => self.count("received", message),
            Input::OwnKeyElsewhere => {
                tracing::error!(
                    "another node proved that it holds this validator's key: stop one of the two; if both sign, the key is slashed"
                );
                self.own_key_elsewhere = Some(Instant::now());
                return;
            }
            Input::Tick | Input::Engine(_) | Input::Fetched { .. } => return,
        }
        self.driver.metrics.peers.set(self.connected);
    }

    fn count(&self, direction: &'static str, message: &ConsensusMessage) {
        self.driver.metrics.messages.get_or_create(&MessageLabels { direction, kind: message.kind() }).inc();
    }

    /// Inputs, requests, disk, and only then the world (C-7).
    fn try_step(&mut self, inputs: Vec<Input>) -> Result<(), DiskError> {
        let mut ready = Ready::default();
        self.driver.replica.expect(&inputs);
        for input in inputs {
            let Driver { replica, journal, clock, .. } = &mut self.driver;
            let mut more = replica.handle(clock.now(), input, journal)?;
            for request in more.take_requests() {
                self.start(request);
            }
            ready.append(more);
        }
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
                self.driver.tasks.spawn(async move {
                    let result = mesh.fetch(Some(peer), request).await.map_err(|error| error.to_string());
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
                let _ = self.driver.mesh.send(to, types::encode(&message).into());
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
                let now = self.driver.clock.now();
                let height = block.header.height;
                let proven = self.driver.replica.commit_head().map_or(height, |qc| qc.vote.height);
                if proven.get().saturating_sub(height.get()) <= CATCHING_UP_HEIGHTS {
                    let age_ms = now.wall_ms.saturating_sub(block.header.timestamp_ms);
                    metrics.finality.observe(age_ms as f64 / 1000.0);
                }
                tracing::info!(%height, hash = %block_hash, bytes = block.payload.len(), "finalized");
                self.driver.feed.finalized(FinalBlock {
                    block_hash,
                    header: block.header.clone(),
                    payload_bytes: block.payload.len(),
                    commit,
                    finalized_at_ms: Some(now.wall_ms),
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
                self.misbehaved(validator, Penalty::InvalidSignature, &what);
            }
            Told::Evidence(evidence) => self.accuse(&evidence, None),
            Told::EvidenceFinal { height, evidence } => self.accuse(&evidence, Some(height)),
            Told::Rejected { height, block_hash, reason } => {
                metrics.rejected_blocks.inc();
                tracing::warn!(%height, hash = %block_hash, reason, "refused a proposed block");
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

    fn misbehaved(&mut self, validator: ValidatorIndex, penalty: Penalty, what: &str) {
        let label = ValidatorLabel { validator: validator.get() };
        self.driver.metrics.misbehaviour.get_or_create(&label).inc();
        self.driver.mesh.penalize(validator, penalty);
        let now_ms = self.driver.clock.mono_ms();
        let quiet = self.complained_ms.get(&validator).is_some_and(|at| now_ms < at + MISBEHAVIOUR_LOG_MS);
        if !quiet && self.driver.replica.validators().get(validator).is_some() {
            self.complained_ms.insert(validator, now_ms);
            tracing::warn!(%validator, what, "validator misbehaved");
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
