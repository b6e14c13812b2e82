#![allow(clippy::unwrap_used)]

use super::journal::Journal;
use super::*;
use crate::tests::harness::{CHAIN, genesis, pool_options, transfer};
use alloy_consensus::TxEip1559;
use execution::testing::TestKey;
use state::StateOptions;
use std::path::Path;

/// A pool on the genesis state; opening another on the same directory is a restart.
struct Service {
    pool: Pool,
    threads: PoolThreads,
    store: Arc<StateStore>,
}

impl Service {
    fn open(directory: &Path) -> Self {
        Self::open_with(directory, pool_options(directory))
    }

    fn open_with(directory: &Path, options: PoolOptions) -> Self {
        let genesis = genesis(64);
        let rules = Arc::new(Rules::from_genesis(&genesis).unwrap());
        let store = Arc::new(StateStore::open(StateOptions::new(directory.join("state")), &genesis).unwrap());
        let (pool, threads) = Pool::start(options, rules, store.clone(), 0, 1_000_000_000).unwrap();
        Self { pool, threads, store }
    }

    /// As `kill -9` leaves the journal: as it is now, whatever stopping would still write.
    fn crash(self, directory: &Path) {
        let path = directory.join("transactions.journal");
        let left = std::fs::read(&path).unwrap();
        self.threads.stop();
        drop((self.pool, self.store));
        std::fs::write(&path, left).unwrap();
    }
}

fn encoded(from: u64, nonce: u64) -> Bytes {
    transfer(from, nonce).encoded().clone()
}

fn large(from: u64, nonce: u64) -> RecoveredTx {
    TestKey::new(from).sign(TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 1_100_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1,
        to: Address::ZERO.into(),
        input: vec![0; 100_000].into(),
        ..Default::default()
    })
}

fn sorted(mut hashes: Vec<B256>) -> Vec<B256> {
    hashes.sort_unstable();
    hashes
}

fn pooled(pool: &Pool) -> Vec<B256> {
    let content = pool.content().into_iter();
    sorted(content.flat_map(|c| c.pending.into_iter().chain(c.queued)).map(|tx| tx.hash()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_connections_submit_at_once_and_every_transaction_is_admitted_once() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path());
    let mut announced = service.pool.subscribe_admitted();
    let submit = |from: u64| {
        let pool = service.pool.clone();
        tokio::spawn(async move {
            for nonce in 0..20 {
                pool.submit(encoded(from, nonce)).await.unwrap();
            }
            // Once more over another connection.
            let again = pool.submit(encoded(from, 7)).await;
            assert_eq!(again, Err(Refusal::AlreadyKnown.into()));
        })
    };
    let tasks: Vec<_> = (0..32).map(submit).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(service.pool.status().pending, 640);
    let mut hashes = Vec::new();
    for _ in 0..640 {
        hashes.push(announced.recv().await.unwrap().hash());
    }
    assert_eq!(sorted(hashes), pooled(&service.pool));
    assert_eq!(service.pool.pending_nonce(&TestKey::new(3).address()), Some(20));
    assert_eq!(service.pool.pending_nonce(&TestKey::new(60).address()), None);
}

#[tokio::test]
async fn a_refusal_reaches_the_submitter_in_geths_words() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path());
    let stranger = service.pool.submit(encoded(99, 0)).await.unwrap_err();
    let expected =
        "insufficient funds for gas * price + value: balance 0, tx cost 2100000000000001, overshot";
    assert!(stranger.to_string().starts_with(expected), "{stranger}");
    assert_eq!(stranger.code(), -32000);
    let mut garbled = encoded(0, 0).to_vec();
    garbled.truncate(50);
    let garbled = service.pool.submit(garbled.into()).await.unwrap_err();
    assert!(matches!(garbled, PoolError::Refused(Refusal::Malformed(_))), "{garbled}");
    let empty = service.pool.submit(Bytes::new()).await.unwrap_err();
    assert_eq!(empty.to_string(), "rlp: typed transaction too short");
    let blob = service.pool.submit(Bytes::from_static(&[3, 0xc0])).await.unwrap_err();
    assert_eq!(blob.to_string(), "transaction type not supported: type 3 rejected");
}

#[tokio::test]
async fn peers_transactions_are_answered_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path());
    let batch = [encoded(0, 0), Bytes::from_static(b"no transaction"), encoded(0, 1), encoded(0, 0)];
    let results = service.pool.submit_from_peer(batch.into_iter().map(|bytes| bytes.0).collect()).await;
    assert_eq!(results[0], Ok(transfer(0, 0).hash()));
    assert!(matches!(&results[1], Err(PoolError::Refused(refusal)) if refusal.blames_peer()), "{results:?}");
    assert_eq!(results[2], Ok(transfer(0, 1).hash()));
    assert_eq!(results[3], Err(Refusal::AlreadyKnown.into()));
    assert!(!Refusal::AlreadyKnown.blames_peer());
    assert!(service.pool.local_transactions(9).is_empty(), "only local ones are kept and repeated");
}

#[tokio::test]
async fn a_restart_loses_no_accepted_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path());
    for from in 0..8 {
        for nonce in 0..4 {
            service.pool.submit(encoded(from, nonce)).await.unwrap();
        }
    }
    service.pool.submit(encoded(9, 5)).await.unwrap();
    let before = pooled(&service.pool);
    service.crash(directory.path());
    let service = Service::open(directory.path());
    assert_eq!(pooled(&service.pool), before);
    assert_eq!((service.pool.status().pending, service.pool.status().queued), (32, 1));
    assert_eq!(service.pool.local_transactions(100).len(), 33);
    // And after a clean stop as well.
    service.threads.stop();
    drop((service.pool, service.store));
    assert_eq!(pooled(&Service::open(directory.path()).pool), before);
}

#[tokio::test]
async fn a_damaged_tail_costs_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path());
    for nonce in 0..3 {
        service.pool.submit(encoded(0, nonce)).await.unwrap();
    }
    service.crash(directory.path());
    let path = directory.path().join("transactions.journal");
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = whole.clone();
    longer.extend_from_slice(&[0xff; 9]);
    for (content, kept) in [(whole[..whole.len() - 1].to_vec(), 2), (flipped, 2), (longer, 3)] {
        std::fs::write(&path, content).unwrap();
        let service = Service::open(directory.path());
        assert_eq!(service.pool.status().pending, kept);
        // The file goes on behind what was good.
        service.pool.submit(encoded(0, kept as u64)).await.unwrap();
        service.crash(directory.path());
        let service = Service::open(directory.path());
        assert_eq!(service.pool.status().pending, kept + 1);
        service.crash(directory.path());
    }
}

#[test]
fn a_file_that_is_no_journal_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    std::fs::write(&path, b"my only copy of something else entirely").unwrap();
    assert!(matches!(Journal::open(&path, 1 << 20), Err(JournalError::Foreign { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"my only copy of something else entirely");
    // A header cut short by a crash at birth is a new journal.
    std::fs::write(&path, b"tandem tran").unwrap();
    assert!(Journal::open(&path, 1 << 20).unwrap().1.is_empty());
}

#[test]
fn a_full_journal_refuses_and_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (mut journal, _) = Journal::open(&path, 1_000).unwrap();
    let record = |byte: u8| (B256::repeat_byte(byte), Bytes::from(vec![byte; 400]));
    journal.append(&[record(1), record(2)]).unwrap();
    assert!(journal.append(&[record(3)]).unwrap_err().to_string().contains("journal is full"));
    let (_, kept) = Journal::open(&path, 1_000).unwrap();
    assert_eq!(kept, [record(1).1, record(2).1]);
}

#[tokio::test]
async fn the_journal_forgets_what_is_mined_and_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path());
    let path = directory.path().join("transactions.journal");
    for nonce in 0..100 {
        service.pool.submit(large(0, nonce).encoded().clone()).await.unwrap();
    }
    let full = std::fs::metadata(&path).unwrap().len();
    assert!(full > 10_000_000);
    service.pool.upkeep(0);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), full, "all of it is alive");
    let state = AccountState { nonce: 99, balance: alloy_primitives::U256::MAX, delegated: false };
    service.pool.advance(1, 1_000_000_000, &[(TestKey::new(0).address(), state)]);
    service.pool.upkeep(0);
    assert!(std::fs::metadata(&path).unwrap().len() < 101_000);
    // Rewritten, it still takes and keeps transactions.
    service.pool.submit(encoded(1, 0)).await.unwrap();
    service.crash(directory.path());
    let (_, kept) = Journal::open(&path, 1 << 30).unwrap();
    assert_eq!(kept, [large(0, 99).encoded().clone(), encoded(1, 0)]);
}

#[tokio::test]
async fn a_stopped_pool_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let Service { pool, threads, .. } = Service::open(directory.path());
    threads.stop();
    assert_eq!(pool.submit(encoded(0, 0)).await, Err(PoolError::Stopping));
}

#[tokio::test]
async fn a_block_that_arrives_during_admission_is_taken_into_account() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path());
    // The pool is at a height whose state the store does not have any more, or not yet: the newest counts.
    service.pool.advance(7, 1_000_000_000, &[]);
    service.pool.submit(encoded(0, 0)).await.unwrap();
    assert_eq!(service.pool.status().pending, 1);
}

/// Figures for docs/benchmarks.md: `cargo test --release -p execution-node admission_rate -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn admission_rate() {
    const EACH: u64 = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let service = Service::open(directory.path());
    let signed: Vec<Vec<Bytes>> =
        (0..64).map(|from| (0..EACH).map(|nonce| encoded(from, nonce)).collect()).collect();
    let started = std::time::Instant::now();
    let submit = |transactions: Vec<Bytes>| {
        let pool = service.pool.clone();
        tokio::spawn(async move {
            for encoded in transactions {
                pool.submit(encoded).await.unwrap();
            }
        })
    };
    let tasks: Vec<_> = signed.into_iter().map(submit).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0} admissions per second", (64 * EACH) as f64 / seconds);
    let mut selection = Selection::new(1_000_000_000);
    let started = std::time::Instant::now();
    let selected = service.pool.select(&mut selection, 10_000, |_| None);
    println!("{} selected in {:?}", selected.len(), started.elapsed());
}
