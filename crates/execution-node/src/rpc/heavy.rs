//! Where expensive calls run: on blocking threads, a few at a time, with a bounded line of waiters. Cheap
//! calls never wait behind them.

use super::error::{RpcError, RpcResult};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Semaphore;

/// Bounded concurrency for work that takes milliseconds or more.
#[derive(Debug)]
pub(super) struct HeavyWork {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    running_max: usize,
    waiting_max: usize,
}

impl HeavyWork {
    /// `running_max` 0 means one per CPU, at least two so that one long call does not block all others.
    pub(super) fn new(running_max: usize, waiting_max: usize) -> Self {
        let cpus = || std::thread::available_parallelism().map_or(2, |cpus| cpus.get().max(2));
        let running_max = if running_max == 0 { cpus() } else { running_max };
        Self {
            turns: Arc::new(Semaphore::new(running_max)),
            waiting: AtomicUsize::new(0),
            running_max,
            waiting_max,
        }
    }

    /// Runs `work` when its turn comes. A caller that goes away while waiting costs nothing; one that goes
    /// away later keeps its turn until the work ends, so the bound holds.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> RpcResult<T> + Send + 'static,
    ) -> RpcResult<T> {
        let turn = match self.turns.clone().try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) => {
                let _waiter = self.wait()?;
                self.turns
                    .clone()
                    .acquire_owned()
                    .await
                    .map_err(|_| RpcError::internal("server is stopping"))?
            }
        };
        let result = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        result.await.unwrap_or_else(|error| Err(RpcError::internal(error)))
    }

    fn wait(&self) -> RpcResult<Waiter<'_>> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.waiting_max {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(RpcError::LimitExceeded(format!(
                "server is busy: {} expensive calls run and {} wait; try again later",
                self.running_max, self.waiting_max
            )));
        }
        Ok(Waiter(&self.waiting))
    }
}

struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    #[tokio::test(flavor = "multi_thread")]
    async fn surplus_callers_are_refused_and_the_others_get_their_turn() {
        let heavy = Arc::new(HeavyWork::new(1, 1));
        let (started, on_start) = tokio::sync::oneshot::channel();
        let (release, on_release) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let heavy = heavy.clone();
            async move {
                let work = move || {
                    started.send(()).unwrap();
                    on_release.recv().unwrap();
                    Ok(1)
                };
                heavy.run(work).await
            }
        });
        on_start.await.unwrap();
        let mut second = std::pin::pin!(heavy.run(|| Ok(2)));
        assert!(futures::poll!(second.as_mut()).is_pending());
        let refused = heavy.run(|| Ok(3)).await.unwrap_err();
        assert_eq!(refused.code(), -32005);
        release.send(()).unwrap();
        assert_eq!((first.await.unwrap(), second.await), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn work_that_panics_is_an_internal_error() {
        let error = HeavyWork::new(1, 0).run::<()>(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(error.code(), -32603);
    }
}
