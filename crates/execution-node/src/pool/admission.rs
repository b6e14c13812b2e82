//! The queue in front of the admission threads.

use super::PoolError;
use alloy_primitives::{B256, Bytes};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Transactions one thread takes at once: 64 recoveries are two milliseconds.
const BATCH_MAX: usize = 64;

/// How much may wait for admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Worker threads.
    pub threads: usize,
    /// Local submissions waiting; further callers wait for a place.
    pub local_waiting_max: usize,
    /// Peers' transactions waiting; further batches wait in the network's queues.
    pub peer_waiting_max: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self { threads, local_waiting_max: 8_192, peer_waiting_max: 8_192 }
    }
}

/// One transaction waiting for admission. Dropping it unanswered tells the submitter that the node stops.
#[derive(Debug)]
pub(super) struct Job {
    pub encoded: Bytes,
    pub local: bool,
    reply: oneshot::Sender<Result<B256, PoolError>>,
    _place: OwnedSemaphorePermit,
}

impl Job {
    pub fn answer(self, result: Result<B256, PoolError>) {
        // The submitter may have gone away; the transaction stays admitted.
        let _ = self.reply.send(result);
    }
}

/// First come, first served; bounded by places that are taken before a job enters.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    jobs_waiting: Condvar,
    closed: Condvar,
    local_places: Arc<Semaphore>,
    peer_places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub fn new(limits: &AdmissionLimits) -> Self {
        Self {
            state: Mutex::default(),
            jobs_waiting: Condvar::new(),
            closed: Condvar::new(),
            local_places: Arc::new(Semaphore::new(limits.local_waiting_max)),
            peer_places: Arc::new(Semaphore::new(limits.peer_waiting_max)),
        }
    }

    pub fn len(&self) -> usize {
        self.state.lock().jobs.len()
    }

    /// Waits for a place in the queue and returns where the answer will come.
    pub async fn enqueue(
        &self,
        encoded: Bytes,
        local: bool,
    ) -> Result<oneshot::Receiver<Result<B256, PoolError>>, PoolError> {
        let places = if local { &self.local_places } else { &self.peer_places };
        let place = places.clone().acquire_owned().await.map_err(|_| PoolError::Stopping)?;
        let (reply, answer) = oneshot::channel();
        self.push(Job { encoded, local, reply, _place: place });
        Ok(answer)
    }

    /// The next jobs, as soon as there are any; `None` once closed.
    pub fn take_batch(&self) -> Option<Vec<Job>> {
        let mut state = self.state.lock();
        while state.jobs.is_empty() && !state.closed {
            self.jobs_waiting.wait(&mut state);
        }
        if state.closed {
            return None;
        }
        let count = state.jobs.len().min(BATCH_MAX);
        Some(state.jobs.drain(..count).collect())
    }

    /// Waits until the queue is closed, at most `timeout`; whether it is.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        while !state.closed {
            if self.closed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.closed
    }

    pub fn close(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.jobs)
        };
        drop(waiting);
        self.local_places.close();
        self.peer_places.close();
        self.jobs_waiting.notify_all();
        self.closed.notify_all();
    }

    fn push(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.closed {
            state.jobs.push_back(job);
            drop(state);
            self.jobs_waiting.notify_one();
        }
    }
}
