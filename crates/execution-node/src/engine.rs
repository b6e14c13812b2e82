//! The engine service: hands calls that execute to one thread and calls that make final to another, each one after
//! the other, and answers the rest from memory.

use crate::executor::{Executor, ExecutorShared};
use crate::finalizer::Finalizer;
use crate::metrics::Metrics;
use engine_api::{AWAIT_MS_MAX, Engine};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use types::engine::{
    BuiltPayload, Capabilities, EngineError, FinalizedState, Forkchoice, PayloadRequest, PayloadStatus,
};
use types::{B256, Epoch, Header, SystemInputs, Validator};

/// Calls waiting for each of the two threads. The server admits few at once anyway.
const CALLS_WAITING_MAX: usize = 32;

type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// What the thread that executes is asked.
enum Call {
    Build(Box<PayloadRequest>, Reply<BuiltPayload>),
    NewPayload(Box<(Header, Vec<u8>, SystemInputs)>, Reply<PayloadStatus>),
    Stop,
}

/// What the thread that makes final is asked.
enum Finality {
    Forkchoice(Forkchoice, Reply<FinalizedState>),
    Stop,
}

/// The threads that work. They finish the calls before the stop, and answer no later one.
pub(crate) struct ExecutorThreads {
    calls: mpsc::Sender<Call>,
    finality: mpsc::Sender<Finality>,
    threads: [JoinHandle<()>; 2],
}

impl ExecutorThreads {
    /// Stops them and waits for their end. Blocks.
    pub fn stop(self) {
        // Each fails only when its thread has ended already.
        let _ = self.calls.blocking_send(Call::Stop);
        let _ = self.finality.blocking_send(Finality::Stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the executor had panicked");
            }
        }
    }
}

/// The executor as consensus sees it.
#[derive(Debug)]
pub(crate) struct EngineService {
    calls: mpsc::Sender<Call>,
    finality: mpsc::Sender<Finality>,
    shared: Arc<ExecutorShared>,
    capabilities: Capabilities,
    metrics: Metrics,
}

impl EngineService {
    /// Starts the two threads.
    pub fn start(
        executor: Executor,
        finalizer: Finalizer,
        shared: Arc<ExecutorShared>,
        capabilities: Capabilities,
        metrics: Metrics,
    ) -> std::io::Result<(Self, ExecutorThreads)> {
        let (calls, waiting) = mpsc::channel(CALLS_WAITING_MAX);
        let of_thread = shared.clone();
        let executing = std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || execute(executor, &of_thread, waiting))?;
        let (finality, waiting) = mpsc::channel(CALLS_WAITING_MAX);
        let of_thread = shared.clone();
        // Should it fail, the first thread ends by itself: nobody can call it any more.
        let finalizing = std::thread::Builder::new()
            .name("finalizer".into())
            .spawn(move || finalize(finalizer, &of_thread, waiting))?;
        let threads = ExecutorThreads {
            calls: calls.clone(),
            finality: finality.clone(),
            threads: [executing, finalizing],
        };
        Ok((Self { calls, finality, shared, capabilities, metrics }, threads))
    }

    async fn call<T, C>(
        &self,
        queue: &mpsc::Sender<C>,
        method: &'static str,
        status: impl Fn(&T) -> &'static str,
        make: impl FnOnce(Reply<T>) -> C,
    ) -> Result<T, EngineError> {
        let started = Instant::now();
        let (reply, answer) = oneshot::channel();
        let stopped = || EngineError::Unavailable("executor is stopping".into());
        let result = match queue.send(make(reply)).await {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(stopped())),
            Err(_) => Err(stopped()),
        };
        let outcome = result.as_ref().map_or_else(error_status, status);
        self.metrics.engine_request(method, outcome, started.elapsed());
        result
    }

    async fn minable(&self, parent_hash: B256) -> Result<bool, EngineError> {
        let mut changes = self.shared.chain.pool().changes();
        loop {
            changes.mark_unchanged();
            if self.shared.has_transactions(&parent_hash)? {
                return Ok(true);
            }
            if changes.changed().await.is_err() {
                return Err(EngineError::Unavailable("executor is stopping".into()));
            }
        }
    }
}

impl Engine for EngineService {
    async fn capabilities(&self) -> Result<Capabilities, EngineError> {
        Ok(self.capabilities.clone())
    }

    async fn build_payload(&self, request: PayloadRequest) -> Result<BuiltPayload, EngineError> {
        let make = |reply| Call::Build(Box::new(request), reply);
        self.call(&self.calls, "build_payload", |_| "ok", make).await
    }

    async fn new_payload(
        &self,
        header: Header,
        payload: Vec<u8>,
        system_inputs: SystemInputs,
    ) -> Result<PayloadStatus, EngineError> {
        let status = |status: &PayloadStatus| match status {
            PayloadStatus::Valid { .. } => "valid",
            PayloadStatus::Invalid { .. } => "invalid",
            PayloadStatus::Syncing => "syncing",
        };
        let block = Box::new((header, payload, system_inputs));
        self.call(&self.calls, "new_payload", status, |reply| Call::NewPayload(block, reply)).await
    }

    async fn forkchoice_updated(&self, forkchoice: Forkchoice) -> Result<FinalizedState, EngineError> {
        let make = |reply| Finality::Forkchoice(forkchoice, reply);
        self.call(&self.finality, "forkchoice_updated", |_| "ok", make).await
    }

    async fn finalized_state(&self) -> Result<FinalizedState, EngineError> {
        self.shared.check()?;
        Ok(self.shared.finalized_state())
    }

    async fn validator_set(&self, epoch: Epoch) -> Result<Vec<Validator>, EngineError> {
        self.shared.check()?;
        let chain = &self.shared.chain;
        let computed_at = chain.rules().staking().and_then(|rules| rules.height_of_set(epoch));
        let Some(height) = computed_at else {
            let set = chain.genesis().validator_set();
            let set = set.map_err(|error| EngineError::Internal(format!("genesis validators: {error}")))?;
            return Ok(set.validators().to_vec());
        };
        let head = chain.height();
        let set = chain.next_validators(height).map_err(|error| self.shared.poison(error.to_string()))?;
        set.ok_or_else(|| {
            let reason =
                format!("the set of epoch {epoch} is fixed by height {height}, the chain is at {head}");
            EngineError::Illegal(reason)
        })
    }

    async fn await_transactions(&self, parent_hash: B256, max_wait: Duration) -> Result<bool, EngineError> {
        self.shared.check()?;
        let max_wait = max_wait.min(Duration::from_millis(AWAIT_MS_MAX));
        match tokio::time::timeout(max_wait, self.minable(parent_hash)).await {
            Ok(result) => result,
            Err(_) => Ok(false),
        }
    }
}

fn execute(mut executor: Executor, shared: &ExecutorShared, mut calls: mpsc::Receiver<Call>) {
    while let Some(call) = calls.blocking_recv() {
        match call {
            Call::Stop => return,
            Call::Build(request, reply) => {
                // A caller that went away needs no answer; here and below.
                let _ = reply.send(guarded(shared, || executor.build(&request)));
            }
            Call::NewPayload(block, reply) => {
                let (header, payload, inputs) = &*block;
                let _ = reply.send(guarded(shared, || executor.new_payload(header, payload, inputs)));
            }
        }
    }
}

fn finalize(mut finalizer: Finalizer, shared: &ExecutorShared, mut calls: mpsc::Receiver<Finality>) {
    while let Some(Finality::Forkchoice(forkchoice, reply)) = calls.blocking_recv() {
        match guarded(shared, || finalizer.forkchoice(&forkchoice)) {
            Ok(finalized) => {
                let _ = reply.send(Ok(finalized.state));
                let cleaned = guarded(shared, || {
                    finalizer.clean_up(finalized.cleanup);
                    Ok(())
                });
                if let Err(error) = cleaned {
                    tracing::error!(%error, "pool did not follow the finalized chain");
                }
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }
}

/// Runs a call so that a bug in it cannot leave the node half alive: after a panic nothing is answered any more. Nor
/// is what a call found out while the other thread met with a failure.
fn guarded<T>(
    shared: &ExecutorShared,
    call: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let reason = format!("executor panicked: {}", panic_text(&*panic));
        Err(shared.poison(reason))
    });
    result.and_then(|answer| shared.check().map(|()| answer))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown panic")
}

fn error_status(error: &EngineError) -> &'static str {
    match error {
        EngineError::Unavailable(_) => "unavailable",
        EngineError::Unauthenticated(_) => "unauthenticated",
        EngineError::Illegal(_) => "illegal",
        EngineError::UnknownBlock(_) => "unknown_block",
        EngineError::Mismatch(_) => "mismatch",
        EngineError::Internal(_) => "internal",
    }
}
