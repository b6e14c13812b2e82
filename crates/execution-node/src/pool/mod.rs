//! The pool as a service: admission on worker threads, a journal for local transactions, notifications.
//!
//! Recovering a sender costs ten times what everything else at admission costs, so it happens on a fixed set of
//! threads with no lock held, in batches as large as the queue is long; the pool itself is locked for the
//! microseconds that its own work takes. Recovered senders stay with the pooled transactions, so validating a
//! block of pooled transactions recovers nothing.

mod admission;
mod journal;

pub use admission::AdmissionLimits;
pub use journal::JournalError;

use admission::{Job, Queue};
use alloy_primitives::{
    Address, B256, Bytes,
    map::{AddressMap, B256Map},
};
use execution::{RecoveredTx, Rules, StateView, UnrecoveredTx, ViewError};
use journal::Journal;
use parking_lot::Mutex;
use state::StateStore;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use txpool::{
    AccountState, AdmissionPolicy, AdmissionRules, Limits, Refusal, Selection, SenderContent, Status,
};

use crate::chain::unix_ms;

/// Admitted transactions a subscriber may lag behind before it misses some.
pub const SUBSCRIBER_TRANSACTIONS_MAX: usize = 8192;

/// How often expiry and the journal are looked after.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Attempts to read account states without a block arriving in between, before they are read under the lock.
const UNLOCKED_ATTEMPTS: u32 = 3;

/// Settings of the pool service.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// What the pool may hold.
    pub limits: Limits,
    /// What may wait for admission, and on how many threads it is worked off.
    pub admission: AdmissionLimits,
    /// Largest transaction that fits a payload, in bytes.
    pub transaction_bytes_max: usize,
    /// What the operator decides.
    pub policy: AdmissionPolicy,
    /// Where local transactions are kept over restarts; `None` keeps none.
    pub journal: Option<PathBuf>,
}

/// Why a submission has no hash to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The transaction was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The node is stopping.
    #[error("node is stopping")]
    Stopping,
    /// The sender's account could not be read.
    #[error("sender's account could not be read: {0}")]
    State(#[from] ViewError),
    /// The transaction could not be made safe against a restart and was not admitted.
    #[error("transaction journal failed: {0}")]
    Journal(String),
}

impl PoolError {
    /// JSON-RPC error code.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Stopping | Self::State(_) | Self::Journal(_) => -32603,
        }
    }
}

/// The pool. Cheap to clone; all clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<StateStore>,
    rules: Arc<Rules>,
    shared: Mutex<Shared>,
    journal: Option<Mutex<Journal>>,
    queue: Queue,
    admitted: broadcast::Sender<RecoveredTx>,
    outgoing: Mutex<Option<mpsc::Sender<bytes::Bytes>>>,
    /// Counts changes that may make a transaction minable.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Shared {
    pool: txpool::Pool,
    /// Newest finalized block the pool knows of.
    height: u64,
    admission: Arc<AdmissionRules>,
}

/// Keeps the pool's threads; stops them when dropped or told to.
#[derive(Debug)]
pub struct PoolThreads {
    pool: Pool,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the service on the state of `store`. Transactions of the journal are submitted again; those that
    /// are no longer valid are dropped.
    pub fn start(
        options: PoolOptions,
        rules: Arc<Rules>,
        store: Arc<StateStore>,
        height: u64,
        next_base_fee: u64,
    ) -> Result<(Self, PoolThreads), JournalError> {
        let (journal, kept) = match &options.journal {
            Some(path) => {
                let (journal, kept) = Journal::open(path, options.limits.bytes_max as u64 * 2)?;
                (Some(Mutex::new(journal)), kept)
            }
            None => (None, Vec::new()),
        };
        let fork = rules.fork_at(height.saturating_add(1));
        let (chain_id, gas_limit, size_max) =
            (rules.chain_id(), rules.gas_limit(), options.transaction_bytes_max);
        let admission = AdmissionRules::new(chain_id, gas_limit, size_max, fork, options.policy);
        let mut pool = txpool::Pool::new(options.limits, next_base_fee);
        pool.set_height(height);
        let shared = Shared { pool, height, admission: Arc::new(admission) };
        let inner = Inner {
            store,
            rules,
            shared: Mutex::new(shared),
            journal,
            queue: Queue::new(&options.admission),
            admitted: broadcast::channel(SUBSCRIBER_TRANSACTIONS_MAX).0,
            outgoing: Mutex::new(None),
            changes: watch::channel(0).0,
        };
        let pool = Self(Arc::new(inner));
        pool.readmit_journal(kept);
        let threads = pool.spawn_threads(options.admission.threads)?;
        Ok((pool.clone(), PoolThreads { pool, threads }))
    }

    /// Submits a transaction of a local user. It survives a restart once this returns its hash.
    pub async fn submit(&self, encoded: Bytes) -> Result<B256, PoolError> {
        let answer = self.0.queue.enqueue(encoded, true).await?;
        answer.await.unwrap_or(Err(PoolError::Stopping))
    }

    /// Submits a peer's transactions; results in order. Waits for places in the queue: the peers' senders are
    /// then slowed down, not the node.
    pub(crate) async fn submit_from_peer(
        &self,
        transactions: Vec<bytes::Bytes>,
    ) -> Vec<Result<B256, PoolError>> {
        let mut waiting = Vec::with_capacity(transactions.len());
        for encoded in transactions {
            // A copy of its own: pooled transactions must not keep a whole batch in memory.
            waiting.push(self.0.queue.enqueue(Bytes::copy_from_slice(&encoded), false).await);
        }
        let mut results = Vec::with_capacity(waiting.len());
        for answer in waiting {
            results.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(PoolError::Stopping)),
                Err(error) => Err(error),
            });
        }
        results
    }

    /// At most `max` pooled transactions of local users. Empty without a journal.
    pub(crate) fn local_transactions(&self, max: usize) -> Vec<RecoveredTx> {
        let Some(journal) = &self.0.journal else { return Vec::new() };
        let hashes = journal.lock().live(max);
        self.get_many(&hashes).into_values().collect()
    }

    /// Where encoded local transactions are sent on their way to other executors. What finds no room in it is
    /// left to the repetition of [`Self::local_transactions`].
    pub(crate) fn publish_to(&self, outgoing: mpsc::Sender<bytes::Bytes>) {
        *self.0.outgoing.lock() = Some(outgoing);
    }

    /// A pooled transaction.
    pub fn get(&self, hash: &B256) -> Option<RecoveredTx> {
        self.0.shared.lock().pool.get(hash).cloned()
    }

    /// Those of `hashes` that are pooled.
    pub fn get_many<'a>(&self, hashes: impl IntoIterator<Item = &'a B256>) -> B256Map<RecoveredTx> {
        let shared = self.0.shared.lock();
        hashes.into_iter().filter_map(|hash| Some((*hash, shared.pool.get(hash)?.clone()))).collect()
    }

    /// Whether a transaction is pooled.
    pub fn contains(&self, hash: &B256) -> bool {
        self.0.shared.lock().pool.contains(hash)
    }

    /// The nonce after a sender's pending transactions; `None` when it has none, and its account's nonce counts.
    pub fn pending_nonce(&self, sender: &Address) -> Option<u64> {
        self.0.shared.lock().pool.next_nonce(sender)
    }

    /// How full the pool is.
    pub fn status(&self) -> Status {
        self.0.shared.lock().pool.status()
    }

    /// Everything in the pool, by sender.
    pub fn content(&self) -> Vec<SenderContent> {
        self.0.shared.lock().pool.content().collect()
    }

    /// One sender's transactions.
    pub fn content_of(&self, sender: &Address) -> Option<SenderContent> {
        self.0.shared.lock().pool.content_of(sender)
    }

    /// Every transaction admitted from now on. A receiver that lags more than [`SUBSCRIBER_TRANSACTIONS_MAX`] is
    /// told how many it missed.
    pub fn subscribe_admitted(&self) -> broadcast::Receiver<RecoveredTx> {
        self.0.admitted.subscribe()
    }

    /// Transactions waiting for admission.
    pub fn waiting(&self) -> usize {
        self.0.queue.len()
    }

    /// Changes whenever a transaction may have become minable.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Goes on with a selection for a proposer; see [`txpool::Pool::select`].
    pub(crate) fn select(
        &self,
        selection: &mut Selection,
        max: usize,
        next_nonce: impl Fn(&Address) -> Option<u64>,
    ) -> Vec<RecoveredTx> {
        self.0.shared.lock().pool.select(selection, max, next_nonce)
    }

    /// Takes over a finalized block.
    pub(crate) fn advance(&self, height: u64, next_base_fee: u64, changed: &[(Address, AccountState)]) {
        let fork = self.0.rules.fork_at(height.saturating_add(1));
        let removed = {
            let mut shared = self.0.shared.lock();
            shared.height = height;
            if Arc::make_mut(&mut shared.admission).fork() != fork {
                Arc::make_mut(&mut shared.admission).set_fork(fork);
            }
            let mut removed = shared.pool.advance(next_base_fee, changed.iter().copied());
            removed.extend(shared.pool.set_height(height));
            removed
        };
        self.forget(&removed);
        self.notify();
    }

    /// Removes transactions that can never be mined.
    pub(crate) fn remove(&self, hashes: &[B256]) {
        let removed: Vec<_> = {
            let mut shared = self.0.shared.lock();
            hashes.iter().filter_map(|hash| shared.pool.remove(hash)).collect()
        };
        self.forget(&removed);
    }

    /// Puts transactions of abandoned blocks back, where they are still valid.
    pub(crate) fn readmit(&self, transactions: Vec<RecoveredTx>) {
        for result in self.insert(transactions) {
            if let Err(error) = result {
                tracing::debug!(%error, "transaction of an abandoned block not pooled again");
            }
        }
        self.notify();
    }

    /// One round of upkeep: expiry, journal.
    pub(crate) fn upkeep(&self, now_ms: u64) {
        let expired = self.0.shared.lock().pool.expire(now_ms);
        self.forget(&expired);
        if let Some(journal) = &self.0.journal {
            let get = |hash: &B256| self.get(hash).map(|transaction| transaction.encoded().clone());
            let compacted = journal.lock().compact(get);
            if let Err(error) = compacted.and_then(|()| sync(journal)) {
                tracing::error!(%error, "transaction journal");
            }
        }
    }

    fn spawn_threads(&self, workers: usize) -> Result<Vec<JoinHandle<()>>, JournalError> {
        let mut threads = Vec::with_capacity(workers + 1);
        for index in 0..workers {
            let pool = self.clone();
            threads.push(spawn(format!("admission-{index}"), move || {
                while let Some(jobs) = pool.0.queue.take_batch() {
                    pool.process(jobs);
                }
            })?);
        }
        let pool = self.clone();
        threads.push(spawn("pool-upkeep".into(), move || {
            while !pool.0.queue.wait_closed(UPKEEP_INTERVAL) {
                pool.upkeep(unix_ms());
            }
        })?);
        Ok(threads)
    }

    fn readmit_journal(&self, kept: Vec<Bytes>) {
        let total = kept.len();
        let results = self.admit(self.parse(kept.into_iter()));
        let mut admitted = 0;
        for hash in results.into_iter().flatten() {
            admitted += 1;
            self.0.journal.iter().for_each(|journal| journal.lock().keep(hash));
        }
        if total > 0 {
            tracing::info!(total, admitted, "transactions of the journal pooled again");
        }
    }

    /// Works off one batch: everything but the answers.
    fn process(&self, jobs: Vec<Job>) {
        let mut results = self.admit(self.parse(jobs.iter().map(|job| job.encoded.clone())));
        self.journal_local(&jobs, &mut results);
        let admitted = {
            let shared = self.0.shared.lock();
            let hashes = results.iter().flatten();
            hashes.filter_map(|hash| shared.pool.get(hash).cloned()).collect::<Vec<_>>()
        };
        if !admitted.is_empty() {
            self.notify();
        }
        for transaction in admitted {
            // Fails only when nobody listens.
            let _ = self.0.admitted.send(transaction);
        }
        self.publish_local(&jobs, &results);
        for (job, result) in jobs.into_iter().zip(results) {
            job.answer(result);
        }
    }

    /// Everything that can be said without the sender.
    fn parse(&self, encoded: impl Iterator<Item = Bytes>) -> Vec<Result<UnrecoveredTx, PoolError>> {
        let admission = self.0.shared.lock().admission.clone();
        let parse = |encoded| {
            let parsed = UnrecoveredTx::parse(encoded).map_err(Refusal::from)?;
            admission.check(parsed.envelope(), parsed.encoded().len())?;
            Ok(parsed)
        };
        encoded.map(parse).collect()
    }

    /// Recovers and inserts what was parsed; results in order.
    fn admit(&self, parsed: Vec<Result<UnrecoveredTx, PoolError>>) -> Vec<Result<B256, PoolError>> {
        let known: Vec<bool> = {
            let shared = self.0.shared.lock();
            parsed.iter().map(|tx| tx.as_ref().is_ok_and(|tx| shared.pool.contains(&tx.hash()))).collect()
        };
        let recovered = parsed.into_iter().zip(known).map(|(parsed, known)| match (parsed, known) {
            (Ok(_), true) => Err(Refusal::AlreadyKnown.into()),
            (Ok(parsed), false) => parsed.recover().map_err(|error| Refusal::from(error).into()),
            (Err(error), _) => Err(error),
        });
        let recovered: Vec<Result<RecoveredTx, PoolError>> = recovered.collect();
        let transactions = recovered.iter().flatten().cloned().collect();
        let mut inserted = self.insert(transactions).into_iter();
        let merged = recovered.into_iter().map(|recovered| match recovered {
            Ok(_) => inserted.next().unwrap_or(Err(PoolError::Stopping)),
            Err(error) => Err(error),
        });
        merged.collect()
    }

    /// Inserts recovered transactions; results in order. Account states are read with no lock held, and again
    /// when a block was finalized meanwhile.
    fn insert(&self, transactions: Vec<RecoveredTx>) -> Vec<Result<B256, PoolError>> {
        let mut results: Vec<Option<Result<B256, PoolError>>> = vec![None; transactions.len()];
        let mut states = AddressMap::default();
        let mut states_height = None;
        let mut gone = Vec::new();
        for attempt in 0..=UNLOCKED_ATTEMPTS {
            let mut shared = self.0.shared.lock();
            if states_height != Some(shared.height) {
                states.clear();
            }
            let mut missing = Vec::new();
            for (transaction, result) in transactions.iter().zip(&mut results).filter(|(_, r)| r.is_none()) {
                let sender = transaction.sender();
                let known = shared.pool.account(&sender).map(Ok);
                let state = match known.or_else(|| states.get(&sender).cloned()) {
                    Some(state) => state,
                    None if attempt == UNLOCKED_ATTEMPTS => self.read_account(shared.height, sender),
                    None => {
                        missing.push(sender);
                        continue;
                    }
                };
                *result = Some(insert_one(&mut shared.pool, transaction, state, &mut gone));
            }
            if missing.is_empty() {
                break;
            }
            let height = shared.height;
            drop(shared);
            states_height = Some(height);
            for sender in missing {
                states.entry(sender).or_insert_with(|| self.read_account(height, sender));
            }
        }
        self.forget(&gone);
        results.into_iter().map(|result| result.unwrap_or(Err(PoolError::Stopping))).collect()
    }

    fn read_account(&self, height: u64, sender: Address) -> Result<AccountState, PoolError> {
        // Without history the state at the pool's height may just have been replaced; then the newest is right.
        let view = self.0.store.at(height).unwrap_or_else(|_| self.0.store.view());
        let Some(info) = view.account(sender)? else { return Ok(AccountState::default()) };
        let delegated = info.has_code();
        if delegated && !view.code(info.code_hash)?.starts_with(&EIP7702_DELEGATION) {
            return Err(Refusal::SenderIsContract(sender).into());
        }
        Ok(AccountState { nonce: info.nonce, balance: info.balance, delegated })
    }

    /// Makes admitted local transactions safe; those that cannot be are taken out again.
    fn journal_local(&self, jobs: &[Job], results: &mut [Result<B256, PoolError>]) {
        let Some(journal) = &self.0.journal else { return };
        let local: Vec<(B256, Bytes)> = jobs
            .iter()
            .zip(results.iter())
            .filter(|(job, _)| job.local)
            .filter_map(|(job, result)| Some((*result.as_ref().ok()?, job.encoded.clone())))
            .collect();
        if local.is_empty() {
            return;
        }
        let appended = journal.lock().append(&local);
        if let Err(error) = appended {
            tracing::error!(%error, "transaction journal");
            self.remove(&local.iter().map(|(hash, _)| *hash).collect::<Vec<_>>());
            for (_, result) in jobs.iter().zip(results).filter(|(job, result)| job.local && result.is_ok()) {
                *result = Err(PoolError::Journal(error.to_string()));
            }
        }
    }

    fn publish_local(&self, jobs: &[Job], results: &[Result<B256, PoolError>]) {
        let Some(outgoing) = self.0.outgoing.lock().clone() else { return };
        for (job, result) in jobs.iter().zip(results) {
            if job.local && result.is_ok() && outgoing.try_send(job.encoded.0.clone()).is_err() {
                break;
            }
        }
    }

    /// Lets the journal forget what is no longer pooled.
    fn forget(&self, removed: &[RecoveredTx]) {
        if let Some(journal) = self.0.journal.as_ref().filter(|_| !removed.is_empty()) {
            let mut journal = journal.lock();
            removed.iter().for_each(|transaction| journal.forget(&transaction.hash()));
        }
    }

    fn notify(&self) {
        self.0.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

impl PoolThreads {
    /// Stops admission, answers what waits with [`PoolError::Stopping`], and makes the journal durable.
    pub fn stop(mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.pool.0.queue.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a pool thread had panicked");
            }
        }
        if let Some(journal) = &self.pool.0.journal
            && let Err(error) = sync(journal)
        {
            tracing::error!(%error, "transaction journal");
        }
    }
}

impl Drop for PoolThreads {
    fn drop(&mut self) {
        self.close();
    }
}

/// Code of a delegated account starts with this (EIP-7702).
const EIP7702_DELEGATION: [u8; 3] = [0xef, 0x01, 0x00];

/// Makes the journal durable without holding up whoever appends.
fn sync(journal: &Mutex<Journal>) -> Result<(), JournalError> {
    let unsynced = journal.lock().take_unsynced();
    let Some(file) = unsynced else { return Ok(()) };
    file.sync_data().map_err(|source| journal.lock().sync_failed(source))
}

fn insert_one(
    pool: &mut txpool::Pool,
    transaction: &RecoveredTx,
    state: Result<AccountState, PoolError>,
    gone: &mut Vec<RecoveredTx>,
) -> Result<B256, PoolError> {
    let inserted = pool.insert(transaction.clone(), state?, unix_ms())?;
    gone.extend(inserted.replaced);
    gone.extend(inserted.evicted);
    Ok(transaction.hash())
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, JournalError> {
    std::thread::Builder::new().name(name).spawn(body).map_err(JournalError::Thread)
}

#[cfg(test)]
mod tests;
