//! Between the replica and its executor: carries the replica's calls out, brings answers back, and says when the
//! executor comes and goes. Fail closed: what has no answer is reported as an error, never as a verdict.

use crate::metrics::Metrics;
use consensus::{EngineReply, Input};
use engine_api::{EngineClient, EngineError, Health};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use types::engine::{Forkchoice, PayloadRequest};
use types::{B256, Block};

/// Calls that wait to be started.
pub(crate) const CALLS_MAX: usize = 1024;

/// Blocks to make final that wait for the one before; the replica asks for one at a time.
const FINALIZE_MAX: usize = 16;

/// What the replica wants of the executor.
#[derive(Debug)]
pub(crate) enum EngineCall {
    Await { id: u64, parent_hash: B256, wait_ms_max: u64 },
    Build { id: u64, request: Box<PayloadRequest> },
    NewPayload { block_hash: B256, block: Arc<Block> },
    FinalizedState,
    Finalize(Forkchoice),
}

impl EngineCall {
    /// The answer when there is none.
    pub(crate) fn failed(self, error: EngineError) -> EngineReply {
        match self {
            Self::Await { id, .. } => EngineReply::Pending { id, result: Err(error) },
            Self::Build { id, .. } => EngineReply::Built { id, result: Err(error) },
            Self::NewPayload { block_hash, .. } => EngineReply::Judged { block_hash, result: Err(error) },
            Self::FinalizedState => EngineReply::Down(error.to_string()),
            Self::Finalize(forkchoice) => {
                EngineReply::Finalized { block_hash: forkchoice.finalized, result: Err(error) }
            }
        }
    }
}

/// The task that serves [`EngineCall`]s.
pub(crate) struct EngineLink {
    shared: Shared,
    finalize: mpsc::Sender<Forkchoice>,
    /// The newest long poll. An older one is of no use any more and is dropped with its replacement.
    awaiting: Option<AbortOnDropHandle<()>>,
    _finalizer: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Shared {
    client: EngineClient,
    inputs: mpsc::Sender<Input>,
    metrics: Arc<Metrics>,
    /// When a block was last final and durable there. One at a time is made so, and the replica is told of it before it
    /// asks for the next, so the thread that tells the world finds the right time here although it may be busy for
    /// milliseconds when the answer comes.
    final_at_ms: Arc<AtomicU64>,
}

impl EngineLink {
    pub(crate) fn new(
        client: EngineClient,
        inputs: mpsc::Sender<Input>,
        metrics: Arc<Metrics>,
        final_at_ms: Arc<AtomicU64>,
    ) -> Self {
        let shared = Shared { client, inputs, metrics, final_at_ms };
        let (finalize, queue) = mpsc::channel(FINALIZE_MAX);
        let finalizer = AbortOnDropHandle::new(tokio::spawn(shared.clone().finalize_in_order(queue)));
        Self { shared, finalize, awaiting: None, _finalizer: finalizer }
    }

    /// Runs until the replica's side is gone. Health and the executor's durable head are reported by this one task,
    /// so that they arrive in the order they were seen.
    pub(crate) async fn run(mut self, mut calls: mpsc::Receiver<EngineCall>) {
        let mut health = self.shared.client.health();
        health.mark_changed();
        loop {
            tokio::select! {
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let seen = health.borrow_and_update().clone();
                    match seen {
                        Health::Up => self.report_head().await,
                        Health::Down(reason) | Health::Mismatch(reason) => {
                            self.shared.reply(EngineReply::Down(reason)).await;
                        }
                    }
                }
                call = calls.recv() => match call {
                    Some(EngineCall::FinalizedState) => self.report_head().await,
                    Some(call) => self.start(call),
                    None => return,
                },
            }
        }
    }

    async fn report_head(&self) {
        // Between a missed heartbeat and the next one calls may still pass; the health decides.
        let health = self.shared.client.health().borrow().clone();
        let reply = match health {
            Health::Up => {
                match self.shared.timed("FinalizedState", self.shared.client.finalized_state()).await {
                    Ok(head) => EngineReply::Up(head),
                    Err(error) => EngineReply::Down(error.to_string()),
                }
            }
            Health::Down(reason) | Health::Mismatch(reason) => EngineReply::Down(reason),
        };
        self.shared.reply(reply).await;
    }

    fn start(&mut self, call: EngineCall) {
        let shared = self.shared.clone();
        match call {
            EngineCall::Await { id, parent_hash, wait_ms_max } => {
                let wait = Duration::from_millis(wait_ms_max);
                self.awaiting = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                    let result = shared.client.await_transactions(parent_hash, wait).await;
                    shared.reply(EngineReply::Pending { id, result }).await;
                })));
            }
            EngineCall::Build { id, request } => drop(tokio::spawn(async move {
                let result = shared.timed("GetPayload", shared.client.build_payload(&request)).await;
                shared.reply(EngineReply::Built { id, result }).await;
            })),
            EngineCall::NewPayload { block_hash, block } => drop(tokio::spawn(async move {
                let call = shared.client.new_payload(&block.header, &block.payload, &block.system_inputs);
                let result = shared.timed("NewPayload", call).await;
                shared.reply(EngineReply::Judged { block_hash, result }).await;
            })),
            EngineCall::Finalize(forkchoice) => {
                if let Err(refused) = self.finalize.try_send(forkchoice) {
                    let forkchoice = refused.into_inner();
                    drop(tokio::spawn(async move {
                        let error = EngineError::Unavailable("too many blocks wait to be made final".into());
                        shared.reply(EngineCall::Finalize(forkchoice).failed(error)).await;
                    }));
                }
            }
            EngineCall::FinalizedState => {}
        }
    }
}

impl Shared {
    /// One forkchoice call at a time, in the replica's order (EA-9).
    async fn finalize_in_order(self, mut queue: mpsc::Receiver<Forkchoice>) {
        while let Some(forkchoice) = queue.recv().await {
            let result = self.timed("ForkchoiceUpdated", self.client.forkchoice_updated(&forkchoice)).await;
            if result.is_ok() {
                self.final_at_ms.store(crate::clock::wall_ms(), Ordering::Relaxed);
            }
            self.reply(EngineReply::Finalized { block_hash: forkchoice.finalized, result }).await;
        }
    }

    async fn timed<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let start = Instant::now();
        let result = call.await;
        self.metrics.engine_call(method, start.elapsed(), &result);
        result
    }

    async fn reply(&self, reply: EngineReply) {
        // A replica that is gone needs no answer.
        let _ = self.inputs.send(Input::Engine(reply)).await;
    }
}
