//! What threads share while they run lanes, under loom: every interleaving and every order of memory that the C11 model
//! allows, for two and three threads.
#![allow(clippy::unwrap_used)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}
#[path = "../src/shared.rs"]
mod shared;

use loom::{sync::Arc, thread};
use shared::{GasMeter, Queue};

#[test]
fn every_piece_is_taken_by_exactly_one_thread() {
    for threads in [2, 3] {
        loom::model(move || {
            let queue = Arc::new(Queue::new(3));
            let take = |queue: Arc<Queue>| move || std::iter::from_fn(|| queue.take()).collect::<Vec<_>>();
            let workers: Vec<_> = (1..threads).map(|_| thread::spawn(take(queue.clone()))).collect();
            let mut taken = take(queue)();
            for worker in workers {
                taken.extend(worker.join().unwrap());
            }
            taken.sort_unstable();
            assert_eq!(taken, [0, 1, 2]);
        });
    }
}

#[test]
fn gas_beyond_the_limit_is_told_to_somebody_in_every_order_and_never_without_cause() {
    for (limit, exceeded) in [(60, false), (59, true)] {
        loom::model(move || {
            let meter = Arc::new(GasMeter::new(limit));
            let add = |meter: Arc<GasMeter>| move || [10, 20].map(|gas| meter.add(gas));
            let worker = thread::spawn(add(meter.clone()));
            let own = add(meter.clone())();
            let all_within = worker.join().unwrap().into_iter().chain(own).all(|within| within);
            assert_eq!((meter.exceeded(), all_within), (exceeded, !exceeded));
        });
    }
}
