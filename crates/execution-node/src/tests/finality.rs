//! What happens while a block becomes durable: votes and proposals go on, and a kill at any point is survived.

use super::harness::{Harness, Proposed, proposed, request, transfer, valid};
use crate::engine::{EngineService, ExecutorThreads};
use crate::finalizer::Durable;
use crate::pool::PoolThreads;
use crate::tree::{Node, NotKept};
use engine_api::{Engine, capabilities_of};
use state::{StateError, StateStore};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use types::engine::{EngineError, Forkchoice, PayloadStatus};
use types::{B256, Height};

/// Where a commit is held.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    NotWritten,
    /// On disk, but nobody has been told.
    Written,
}

/// A disk that stops before and after it writes, until the test lets it go on.
struct Held {
    reached: mpsc::Sender<Stage>,
    go_on: mpsc::Receiver<()>,
    fails: bool,
}

impl Held {
    fn stop_at(&self, stage: Stage) {
        // A test that failed has gone, and lets everything go on.
        let _ = self.reached.send(stage);
        let _ = self.go_on.recv();
    }
}

impl Durable for Held {
    fn commit(&self, store: &StateStore, node: &Node) -> Result<(), StateError> {
        self.stop_at(Stage::NotWritten);
        if self.fails {
            let reason = "no space left on device".into();
            return Err(StateError::Database { doing: "committing a block", reason });
        }
        store.commit(&node.block, &node.diff, &node.lthash)?;
        self.stop_at(Stage::Written);
        Ok(())
    }
}

/// The engine service of a harness over a disk that is held.
struct Bench {
    service: Arc<EngineService>,
    threads: ExecutorThreads,
    reached: mpsc::Receiver<Stage>,
    go_on: mpsc::Sender<()>,
    _pool_threads: PoolThreads,
}

impl Bench {
    /// Consumes the harness' executor; what tests look at is shared and stays.
    fn start(harness: Harness, fails: bool) -> (Self, Arc<crate::executor::ExecutorShared>) {
        let ((reached, at), (go_on, released)) = (mpsc::channel(), mpsc::channel());
        let Harness { executor, finalizer, metrics, shared, chain, pool_threads } = harness;
        let finalizer = finalizer.with_durable(Box::new(Held { reached, go_on: released, fails }));
        let capabilities = capabilities_of(chain.genesis(), B256::ZERO, "test".into());
        let (service, threads) =
            EngineService::start(executor, finalizer, shared.clone(), capabilities, metrics).unwrap();
        (
            Self { service: Arc::new(service), threads, reached: at, go_on, _pool_threads: pool_threads },
            shared,
        )
    }

    /// Asks for finality of `hash`; the answer comes when the disk lets it.
    fn finalize(&self, hash: B256) -> tokio::task::JoinHandle<Result<B256, EngineError>> {
        let service = self.service.clone();
        tokio::spawn(async move {
            let all = Forkchoice { head: hash, safe: hash, finalized: hash };
            service.forkchoice_updated(all).await.map(|state| state.block_hash)
        })
    }

    fn wait_for(&self, stage: Stage) {
        assert_eq!(tokio::task::block_in_place(|| self.reached.recv()), Ok(stage));
    }

    fn release(&self) {
        self.go_on.send(()).unwrap();
    }

    async fn verdict(&self, block: &Proposed) -> Result<PayloadStatus, EngineError> {
        let Proposed { header, payload, inputs } = block.clone();
        self.service.new_payload(header, payload, inputs).await
    }

    async fn propose(&self, parent: B256, height: u64, view: u64) -> Proposed {
        let request = request(parent, height, view);
        let built = self.service.build_payload(request.clone()).await.unwrap();
        proposed(&request, built)
    }

    fn stop(self) {
        tokio::task::block_in_place(|| self.threads.stop());
    }
}

/// Blocks that another executor made on the same genesis: siblings at height 1.
fn siblings(count: u64) -> Vec<Proposed> {
    let directory = tempfile::tempdir().unwrap();
    let mut other = Harness::open(directory.path());
    other.pool([transfer(1, 0)]);
    let genesis = other.genesis_hash();
    (0..count).map(|n| other.extend(genesis, 1, 100 + n)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_and_proposals_are_answered_while_a_block_becomes_durable_and_finality_only_after() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let genesis = harness.genesis_hash();
    harness.pool([transfer(0, 0), transfer(0, 1)]);
    let first = harness.extend(genesis, 1, 1);
    harness.pool([transfer(0, 2), transfer(2, 0)]);
    let (bench, shared) = Bench::start(harness, false);
    let finality = bench.finalize(first.hash());
    let mut latest = first.clone();
    let siblings = siblings(2);
    for (round, stage) in [Stage::NotWritten, Stage::Written].into_iter().enumerate() {
        bench.wait_for(stage);
        // A block upon the one that is being written.
        let next = bench.propose(first.hash(), 2, 2 + round as u64).await;
        assert_eq!(execution::Payload::decode(&next.payload).unwrap().transactions().count(), 2);
        assert_eq!(bench.verdict(&next).await, Ok(valid(&next)));
        // A block that contradicts it: executed on the state below, also when the store is one block ahead.
        let sibling = &siblings[round];
        assert_eq!(bench.verdict(sibling).await, Ok(valid(sibling)));
        let state = bench.service.finalized_state().await.unwrap();
        assert_eq!((state.height, state.block_hash), (Height::ZERO, genesis));
        let minable = bench.service.await_transactions(next.hash(), Duration::from_millis(1)).await;
        assert_eq!(minable, Ok(false), "what is being written is not minable again");
        assert!(!finality.is_finished());
        latest = next;
        bench.release();
    }
    assert_eq!(finality.await.unwrap(), Ok(first.hash()));
    assert!(matches!(bench.verdict(&siblings[0]).await, Err(EngineError::Illegal(_))));
    assert_eq!(bench.verdict(&first).await, Ok(valid(&first)), "known, though final");
    assert_eq!(shared.tree.lock().len(), 2, "the two blocks upon it");
    let finality = bench.finalize(latest.hash());
    for stage in [Stage::NotWritten, Stage::Written] {
        bench.wait_for(stage);
        bench.release();
    }
    assert_eq!(finality.await.unwrap(), Ok(latest.hash()));
    bench.stop();
    assert_eq!(shared.chain.height(), Height::new(2));
    shared.chain.store().verify().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_silences_the_thread_that_executes_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let genesis = harness.genesis_hash();
    let first = harness.extend(genesis, 1, 1);
    let (bench, shared) = Bench::start(harness, true);
    let finality = bench.finalize(first.hash());
    bench.wait_for(Stage::NotWritten);
    assert_eq!(bench.verdict(&first).await, Ok(valid(&first)), "nothing has failed yet");
    bench.release();
    let failed = finality.await.unwrap();
    assert!(matches!(&failed, Err(EngineError::Internal(reason)) if reason.contains("no space")));
    assert_eq!(bench.verdict(&first).await.err(), failed.clone().err());
    assert_eq!(bench.service.build_payload(request(genesis, 1, 2)).await.err(), failed.clone().err());
    assert_eq!(bench.service.finalized_state().await.err(), failed.err());
    assert_eq!(shared.chain.head().record.hash, genesis);
    bench.stop();
}

#[test]
fn a_block_whose_branch_lost_while_it_was_executed_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let winner = harness.extend(harness.genesis_hash(), 1, 1);
    let loser = harness.extend(harness.genesis_hash(), 1, 2);
    let nephew = harness.extend(loser.hash(), 2, 3);
    let late = harness.shared.tree.lock().get(&nephew.hash()).unwrap().clone();
    harness.finalize(winner.hash());
    let mut tree = harness.shared.tree.lock();
    let insert = tree.insert(late.block.clone(), late.diff.clone(), late.lthash.clone());
    assert_eq!((insert, tree.len()), (Err(NotKept::Abandoned), 0));
}

/// A disk whose files are copied before and after it writes: what a process killed at that moment leaves behind.
struct Photographed {
    data: PathBuf,
    copies: PathBuf,
}

impl Durable for Photographed {
    fn commit(&self, store: &StateStore, node: &Node) -> Result<(), StateError> {
        let height = node.block.record.height;
        copy_directory(&self.data, &self.copies.join(format!("{height}-before")));
        store.commit(&node.block, &node.diff, &node.lthash)?;
        copy_directory(&self.data, &self.copies.join(format!("{height}-after")));
        Ok(())
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &target),
            false => {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

#[test]
fn killed_before_or_after_the_write_an_executor_goes_on_with_what_consensus_repeats() {
    let (directory, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut harness = Harness::open(directory.path());
    let mut blocks = Vec::new();
    let mut parent = harness.genesis_hash();
    for height in 1..=3 {
        harness.pool([transfer(0, height - 1)]);
        blocks.push(harness.extend(parent, height, height));
        parent = blocks[height as usize - 1].hash();
    }
    let photographed = Photographed { data: directory.path().into(), copies: copies.path().into() };
    harness.finalizer = harness.finalizer.with_durable(Box::new(photographed));
    // Three blocks with one forkchoice: a kill may fall between any two of them.
    let all = Forkchoice { head: parent, safe: parent, finalized: parent };
    let finalized = harness.finalizer.forkchoice(&all).unwrap();
    harness.finalizer.clean_up(finalized.cleanup);
    for (height, moment) in (1..=3).flat_map(|height| [(height, "before"), (height, "after")]) {
        let mut killed = Harness::open(&copies.path().join(format!("{height}-{moment}")));
        let kept = if moment == "after" { height } else { height - 1 };
        assert_eq!(killed.chain.height(), Height::new(kept as u64), "{height} {moment}");
        killed.chain.store().verify().unwrap();
        // Consensus was not answered: it gives what is missing and asks again.
        for block in &blocks[kept..] {
            assert_eq!(killed.validate(block), valid(block));
        }
        let state = killed.finalizer.forkchoice(&all).unwrap().state;
        assert_eq!((state.height, state.block_hash), (Height::new(3), parent));
        assert_eq!(killed.shared.finalized_state(), harness.shared.finalized_state());
    }
}
