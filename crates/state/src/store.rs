//! The store: opening, committing, reading.
//!
//! # Invariants
//! - One batch per block covers both keyspaces and both heads; it is on disk before the block becomes visible.
//! - Readers take the current [`Version`] and never a lock that is held over an fsync.
//! - After a failed write nothing is written any more: what is on disk is then unknown until it is read again.

use crate::{
    BlockRecord, ExecutedBlock, HistoryError, OpenError, StateError, StateSnapshot, TxLocation, block,
    history::{self, Changes, History},
    rows::{self, ChainHeadRow, StateHeadRow, Table},
    snapshot::{Shared, Version},
};
use alloy_primitives::{Address, B256, Bloom, Bytes, U256, keccak256};
use execution::{
    AccountChange, GenesisState, LtHash, Payload, RecoveredTx, SlotChange, StateDiff, TxReceipt,
    genesis_state, receipts_hash,
};
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable,
    config::{CompressionPolicy, HashRatioPolicy, PartitioningPolicy, PinningPolicy},
};
use parking_lot::{Mutex, RwLock};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use types::{Genesis, Validator, ValidatorIndex, View};

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Directory of the database.
    pub path: PathBuf,
    /// Past heights whose state stays readable.
    pub history_blocks: u64,
    /// Memory for cached database blocks in bytes.
    pub cache_bytes: u64,
    /// Accounts and slots in the hot cache, together.
    pub hot_entries: usize,
    /// After an unclean shutdown the digest is recomputed at open, unless the state has more entries than this
    /// (a million takes about a second); then it is left to [`StateStore::verify`].
    pub verify_entries_max: usize,
}

impl StateOptions {
    /// Defaults for `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            history_blocks: 1024,
            cache_bytes: 64 << 20,
            hot_entries: 1 << 17,
            verify_entries_max: 2_000_000,
        }
    }
}

/// The last block stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its height; 0 is the genesis.
    pub height: u64,
    /// Its consensus hash; the genesis hash at height 0.
    pub block_hash: B256,
    /// Digest of the state after it.
    pub state_hash: B256,
    /// The running digest behind it.
    pub lthash: LtHash,
}

/// The execution database. Share it by `Arc`; reads never wait for a commit.
pub struct StateStore {
    current: RwLock<Arc<Version>>,
    writer: Mutex<Writer>,
    genesis_hash: B256,
    chain_id: u64,
    history_blocks: u64,
    clean_marker: PathBuf,
    /// Whether the digest of the whole state is known to be right: only then is a shutdown noted as clean.
    trusted: AtomicBool,
}

struct Writer {
    database: Database,
    /// Why writing has ended, once it has.
    poisoned: Option<String>,
}

const MEMTABLE_STATE_BYTES: u64 = 48 << 20;
const MEMTABLE_CHAIN_BYTES: u64 = 32 << 20;
const JOURNAL_BYTES: u64 = 256 << 20;

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateStore(head {})", self.version().head.height)
    }
}

/// Opening, committing, checking.
impl StateStore {
    /// Opens the database, or creates it with the genesis state.
    ///
    /// Foreign, locked and damaged directories are refused and left as they are. A journal that was cut short
    /// gives a lower head than before; the missing blocks are replayed by committing them again.
    pub fn open(options: StateOptions, genesis: &Genesis) -> Result<Self, OpenError> {
        fs::create_dir_all(&options.path).map_err(io("creating the directory"))?;
        let database = open_database(&options)?;
        let [state, chain] = open_keyspaces(&database)?;
        let genesis_hash = genesis.hash();
        if state.get(rows::HEAD_KEY).map_err(StateError::database("reading the head"))?.is_none() {
            write_genesis(&database, [&state, &chain], genesis, &genesis_state(genesis)?)?;
        }
        let version = load_version(&database, [state, chain], &options, genesis_hash)?;
        let marker = options.path.join("clean-shutdown");
        let clean = take_marker(&marker)?;
        let store = Self {
            current: RwLock::new(Arc::new(version)),
            writer: Mutex::new(Writer { database, poisoned: None }),
            genesis_hash,
            chain_id: genesis.config.chain_id,
            history_blocks: options.history_blocks,
            clean_marker: marker,
            trusted: AtomicBool::new(clean),
        };
        if !clean {
            store.verify_after_crash(options.verify_entries_max)?;
        }
        Ok(store)
    }

    /// The last committed block.
    pub fn head(&self) -> Head {
        self.version().head.clone()
    }

    /// Hash of the genesis the data belong to.
    pub fn genesis_hash(&self) -> B256 {
        self.genesis_hash
    }

    /// Applies one finalized block that follows the head; durable and visible when it returns. `lthash` is the
    /// digest after it, `diff` what it changed.
    pub fn commit(&self, block: &ExecutedBlock, diff: &StateDiff, lthash: &LtHash) -> Result<(), StateError> {
        let mut writer = self.writer.lock();
        if let Some(reason) = &writer.poisoned {
            return Err(StateError::Poisoned(reason.clone()));
        }
        let version = self.version();
        check_block(&version.head, block, lthash)?;
        let height = block.record.height;
        let changes = Changes::new(diff);
        let mut history = version.history.clone();
        let fingerprints = changes.fingerprints();
        history.push(fingerprints.clone());
        let pruned = history.prune(self.history_blocks);

        let mut batch = writer.database.batch().durability(Some(PersistMode::SyncData));
        put_state(&mut batch, &version.shared.state, &changes);
        put_block(&mut batch, &version.shared.chain, block);
        put_undo(&mut batch, &version.shared.chain, height, &changes, &fingerprints, &pruned);
        let head = Head {
            height,
            block_hash: block.record.hash,
            state_hash: block.record.state_hash,
            lthash: lthash.clone(),
        };
        self.put_heads(&mut batch, &version.shared, &head);
        if let Err(error) = batch.commit() {
            let error = StateError::database("committing a block")(error);
            tracing::error!(height, %error, "the state database takes no more writes");
            writer.poisoned = Some(error.to_string());
            return Err(error);
        }
        version
            .shared
            .accounts
            .commit(height, changes.accounts.iter().map(|(address, change)| (*address, change.new)));
        version.shared.slots.commit(height, changes.slots.iter().map(|(key, change)| (*key, change.new)));
        let snapshot = writer.database.snapshot();
        let next = Version { shared: version.shared.clone(), snapshot, head, history };
        *self.current.write() = Arc::new(next);
        Ok(())
    }

    /// Recomputes the digest of the whole state at the head and compares it with the committed one.
    pub fn verify(&self) -> Result<(), StateError> {
        let version = self.version();
        let computed = full_digest(&version, self.chain_id)?;
        if computed == version.head.lthash {
            self.trusted.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.trusted.store(false, Ordering::Relaxed);
        Err(StateError::DigestMismatch {
            height: version.head.height,
            computed: computed.state_hash(),
            stored: version.head.lthash.state_hash(),
        })
    }

    fn verify_after_crash(&self, entries_max: usize) -> Result<(), StateError> {
        let version = self.version();
        let entries = version.shared.state.approximate_len();
        if entries > entries_max {
            tracing::warn!(entries, "unclean shutdown; the state is too large to be verified at start");
            return Ok(());
        }
        self.verify()
    }

    fn put_heads(&self, batch: &mut OwnedWriteBatch, shared: &Shared, head: &Head) {
        put_heads(batch, [&shared.state, &shared.chain], head, self.genesis_hash, self.chain_id);
    }

    pub(crate) fn version(&self) -> Arc<Version> {
        self.current.read().clone()
    }
}

/// States.
impl StateStore {
    /// The state at the head.
    pub fn view(&self) -> StateSnapshot {
        let version = self.version();
        let height = version.head.height;
        StateSnapshot::new(version, height)
    }

    /// The state after the block at `height`.
    pub fn at(&self, height: u64) -> Result<StateSnapshot, HistoryError> {
        let version = self.version();
        let (oldest, newest) = (version.history.oldest(), version.head.height);
        match (oldest..=newest).contains(&height) {
            true => Ok(StateSnapshot::new(version, height)),
            false => Err(HistoryError { requested: height, oldest, newest }),
        }
    }
}

/// Blocks, transactions and receipts. Heights above the head and unknown hashes give `None`.
impl StateStore {
    /// The block at `height`, without its transactions.
    pub fn record(&self, height: u64) -> Result<Option<BlockRecord>, StateError> {
        let row = self.version().row_at(height, &rows::record_key(height))?;
        row.map(|row| rows::read("block", &row)).transpose()
    }

    /// Height of the block with `hash`.
    pub fn height_of(&self, hash: &B256) -> Result<Option<u64>, StateError> {
        let version = self.version();
        let row = version.chain_row(&rows::height_of_key(hash))?;
        let height: Option<u64> = row.map(|row| rows::read("block height", &row)).transpose()?;
        Ok(height.filter(|height| *height <= version.head.height))
    }

    /// The block at `height` with transactions and receipts.
    pub fn block(&self, height: u64) -> Result<Option<ExecutedBlock>, StateError> {
        let Some(record) = self.record(height)? else { return Ok(None) };
        match (self.transactions(height)?, self.receipts(height)?, self.outline(height)?) {
            (Some(transactions), Some(receipts), Some(outline)) => {
                let next_validators = self.next_validators(height)?.map(Arc::new);
                Ok(Some(ExecutedBlock { record, transactions, receipts, next_validators, outline }))
            }
            _ => Err(StateError::corrupt(
                "block",
                format!("height {height} lacks its transactions, receipts or lanes"),
            )),
        }
    }

    /// The validators that the block at `height` fixed for the epoch after the next one, if it ended an epoch.
    pub fn next_validators(&self, height: u64) -> Result<Option<Vec<Validator>>, StateError> {
        let version = self.version();
        let Some(row) = version.row_at(height, &rows::set_hash_key(height))? else { return Ok(None) };
        let hash: B256 = rows::read("hash of a validator set", &row)?;
        let missing =
            || StateError::corrupt("validator set", format!("the one of height {height} is missing"));
        let row = version.chain_row(&rows::set_key(&hash))?.ok_or_else(missing)?;
        rows::read("validator set", &row).map(Some)
    }

    /// The transactions of the block at `height`.
    pub fn transactions(&self, height: u64) -> Result<Option<Vec<RecoveredTx>>, StateError> {
        self.table(height, rows::transactions_key(height))?.map(block::read_transactions).transpose()
    }

    /// The receipts of the block at `height`.
    pub fn receipts(&self, height: u64) -> Result<Option<Vec<TxReceipt>>, StateError> {
        self.table(height, rows::receipts_key(height))?.map(block::read_receipts).transpose()
    }

    /// Lanes and access sets of the block at `height`: [`execution::Payload::into_outline`].
    pub fn outline(&self, height: u64) -> Result<Option<Bytes>, StateError> {
        self.table(height, rows::outline_key(height))
    }

    /// Where the transaction with `hash` stands.
    pub fn locate(&self, hash: &B256) -> Result<Option<TxLocation>, StateError> {
        let version = self.version();
        let row = version.chain_row(&rows::location_key(hash))?;
        let location = row.map(|row| rows::read_location_row(&row)).transpose()?;
        Ok(location.filter(|location| location.height <= version.head.height))
    }

    /// One transaction, without decoding the others of its block.
    pub fn transaction(&self, at: TxLocation) -> Result<Option<RecoveredTx>, StateError> {
        let item = self.item("transactions", at, rows::transactions_key(at.height))?;
        item.map(block::read_transaction).transpose()
    }

    /// One receipt, without decoding the others of its block.
    pub fn receipt(&self, at: TxLocation) -> Result<Option<TxReceipt>, StateError> {
        let item = self.item("receipts", at, rows::receipts_key(at.height))?;
        item.map(|item| block::read_receipt(&item)).transpose()
    }

    fn table(&self, height: u64, key: [u8; 9]) -> Result<Option<Bytes>, StateError> {
        Ok(self.version().row_at(height, &key)?.map(|row| Bytes::copy_from_slice(&row)))
    }

    fn item(&self, what: &'static str, at: TxLocation, key: [u8; 9]) -> Result<Option<Bytes>, StateError> {
        let Some(bytes) = self.table(at.height, key)? else { return Ok(None) };
        Table::open(what, bytes)?.get(at.index as usize)
    }
}

impl Version {
    fn row_at(&self, height: u64, key: &[u8]) -> Result<Option<fjall::UserValue>, StateError> {
        if height > self.head.height {
            return Ok(None);
        }
        self.chain_row(key)
    }
}

impl Drop for StateStore {
    /// Notes that the last batch is complete, so that the next open need not verify. Without the note it does.
    fn drop(&mut self) {
        if self.trusted.load(Ordering::Relaxed) && self.writer.get_mut().poisoned.is_none() {
            let noted = File::create(&self.clean_marker).and_then(|file| file.sync_all());
            if let Err(error) = noted {
                tracing::warn!(%error, "the clean shutdown could not be noted");
            }
        }
    }
}

fn open_database(options: &StateOptions) -> Result<Database, OpenError> {
    let open = || {
        Database::builder(&options.path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()
    };
    // The database is known to panic on some damaged files: damage is an answer here, not a crash.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(fjall::Error::Locked)) => Err(OpenError::Locked { path: options.path.clone() }),
        Ok(Err(error)) => Err(StateError::database("opening")(error).into()),
        Err(_) => {
            let reason = "it panicked on a damaged file".to_string();
            Err(StateError::Database { doing: "opening", reason }.into())
        }
    }
}

fn open_keyspaces(database: &Database) -> Result<[Keyspace; 2], StateError> {
    let state = || {
        KeyspaceCreateOptions::default()
            .data_block_compression_policy(CompressionPolicy::disabled())
            .data_block_hash_ratio_policy(HashRatioPolicy::all(4.0))
            .expect_point_read_hits(true)
            .index_block_pinning_policy(PinningPolicy::all(true))
            .filter_block_pinning_policy(PinningPolicy::all(true))
            .index_block_partitioning_policy(PartitioningPolicy::all(false))
            .filter_block_partitioning_policy(PartitioningPolicy::all(false))
            .max_memtable_size(MEMTABLE_STATE_BYTES)
    };
    let chain = || {
        KeyspaceCreateOptions::default()
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
            .max_memtable_size(MEMTABLE_CHAIN_BYTES)
    };
    let doing = "opening a keyspace";
    Ok([
        database.keyspace("state", state).map_err(StateError::database(doing))?,
        database.keyspace("chain", chain).map_err(StateError::database(doing))?,
    ])
}

fn write_genesis(
    database: &Database,
    [state, chain]: [&Keyspace; 2],
    genesis: &Genesis,
    genesis_state: &GenesisState,
) -> Result<(), StateError> {
    let hash = genesis.hash();
    let block = ExecutedBlock {
        record: genesis_record(genesis, hash, genesis_state.state_hash),
        transactions: Vec::new(),
        receipts: Vec::new(),
        next_validators: None,
        outline: Payload::default().into_outline().into(),
    };
    let head = Head {
        height: 0,
        block_hash: hash,
        state_hash: genesis_state.state_hash,
        lthash: genesis_state.lthash.clone(),
    };
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    put_state(&mut batch, state, &Changes::new(&genesis_state.diff));
    put_block(&mut batch, chain, &block);
    put_heads(&mut batch, [state, chain], &head, hash, genesis.config.chain_id);
    batch.commit().map_err(StateError::database("writing the genesis state"))
}

/// Block 0 as JSON-RPC shows it.
fn genesis_record(genesis: &Genesis, hash: B256, state_hash: B256) -> BlockRecord {
    let payload = Payload::default().encode();
    BlockRecord {
        height: 0,
        hash,
        parent_hash: B256::ZERO,
        timestamp_ms: genesis.timestamp.saturating_mul(1000),
        view: View::ZERO,
        proposer: ValidatorIndex::ZERO,
        fee_recipient: Default::default(),
        gas_limit: genesis.gas_limit,
        gas_used: 0,
        base_fee: genesis.base_fee_per_gas,
        prevrandao: genesis.seed(),
        logs_bloom: Bloom::ZERO,
        state_hash,
        receipts_hash: receipts_hash(&[]),
        payload_commitment: Payload::commitment(&payload),
        size: payload.len() as u64,
        transaction_count: 0,
    }
}

fn load_version(
    database: &Database,
    [state, chain]: [Keyspace; 2],
    options: &StateOptions,
    genesis_hash: B256,
) -> Result<Version, OpenError> {
    let snapshot = database.snapshot();
    let reading = "reading the heads";
    let row = snapshot.get(&state, rows::HEAD_KEY).map_err(StateError::database(reading))?;
    let row = row.ok_or_else(|| StateError::corrupt("head of the state", "missing"))?;
    let (row, lthash) = StateHeadRow::read(&row)?;
    if row.genesis_hash != genesis_hash {
        return Err(OpenError::ForeignGenesis { stored: row.genesis_hash, expected: genesis_hash });
    }
    let blocks = snapshot.get(&chain, rows::HEAD_KEY).map_err(StateError::database(reading))?;
    let blocks = blocks.map(|row| rows::read::<ChainHeadRow>("head of the chain", &row)).transpose()?;
    let blocks = blocks.map(|head| head.height);
    if blocks.is_none_or(|height| height < row.height) {
        return Err(StateError::BlocksMissing { state: row.height, blocks }.into());
    }
    let head =
        Head { height: row.height, block_hash: row.block_hash, state_hash: lthash.state_hash(), lthash };
    let shared = Arc::new(Shared::new(state, chain, options.hot_entries, head.height));
    let mut version = Version { shared, snapshot, history: History::new(head.height), head };
    check_head_record(&version)?;
    version.history = load_history(&version, options.history_blocks)?;
    Ok(version)
}

/// The block at the state's head must be the block the state was written with.
fn check_head_record(version: &Version) -> Result<(), StateError> {
    let head = &version.head;
    let row = version.chain_row(&rows::record_key(head.height))?;
    let record: Option<BlockRecord> = row.map(|row| rows::read("block", &row)).transpose()?;
    match record {
        Some(record) if record.hash == head.block_hash && record.state_hash == head.state_hash => Ok(()),
        Some(record) => Err(StateError::corrupt(
            "head block",
            format!(
                "block {} at height {}, the state is after {}",
                record.hash, head.height, head.block_hash
            ),
        )),
        None => Err(StateError::BlocksMissing { state: head.height, blocks: None }),
    }
}

fn load_history(version: &Version, blocks_max: u64) -> Result<History, StateError> {
    let mut history = History::new(version.head.height);
    let lowest = version.head.height.saturating_sub(blocks_max) + 1;
    for height in (lowest..=version.head.height).rev() {
        let Some(row) = version.chain_row(&rows::undo_filter_key(height))? else { break };
        history.push_older(history::read_fingerprints(&row)?);
    }
    history.prune(blocks_max);
    Ok(history)
}

fn check_block(head: &Head, block: &ExecutedBlock, lthash: &LtHash) -> Result<(), StateError> {
    let record = &block.record;
    if record.height != head.height.saturating_add(1) || record.parent_hash != head.block_hash {
        return Err(StateError::NotNext {
            height: record.height,
            parent_hash: record.parent_hash,
            head_height: head.height,
            head_hash: head.block_hash,
        });
    }
    let inconsistent = |reason: String| Err(StateError::Inconsistent { height: record.height, reason });
    let (transactions, receipts) = (block.transactions.len(), block.receipts.len());
    if transactions != receipts || transactions != record.transaction_count as usize {
        return inconsistent(format!(
            "{transactions} transactions, {receipts} receipts, {} announced",
            record.transaction_count
        ));
    }
    let state_hash = lthash.state_hash();
    if state_hash != record.state_hash {
        return inconsistent(format!("digest {state_hash}, header says {}", record.state_hash));
    }
    Ok(())
}

/// Rows go in by key order: neighbours in the memtable are found in cache, which halves the cost of a commit.
fn put_state(batch: &mut OwnedWriteBatch, state: &Keyspace, changes: &Changes<'_>) {
    let account = |(address, change): &(Address, AccountChange)| {
        (rows::account_key(address), change.new.map(|info| rows::account_row(address, &info)))
    };
    put_sorted(batch, state, changes.accounts.iter().map(account));
    let slot = |((address, slot), change): &((Address, U256), SlotChange)| {
        let row = (!change.new.is_zero()).then(|| rows::slot_row(address, slot, &change.new));
        (rows::slot_key(address, slot), row)
    };
    put_sorted(batch, state, changes.slots.iter().map(slot));
    for (hash, code) in &changes.codes {
        batch.insert(state, rows::code_key(hash), code.as_ref());
    }
}

/// Writes rows, or removes them where there is no value.
fn put_sorted<const K: usize, const V: usize>(
    batch: &mut OwnedWriteBatch,
    keyspace: &Keyspace,
    rows: impl Iterator<Item = ([u8; K], Option<[u8; V]>)>,
) {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable_by_key(|(key, _)| *key);
    for (key, row) in rows {
        match row {
            Some(row) => batch.insert(keyspace, key, row),
            None => batch.remove(keyspace, key),
        }
    }
}

fn put_block(batch: &mut OwnedWriteBatch, chain: &Keyspace, block: &ExecutedBlock) {
    let height = block.record.height;
    batch.insert(chain, rows::record_key(height), rows::write(&block.record));
    batch.insert(chain, rows::height_of_key(&block.record.hash), rows::write(&height));
    batch.insert(chain, rows::transactions_key(height), block::write_transactions(&block.transactions));
    batch.insert(chain, rows::receipts_key(height), block::write_receipts(&block.receipts));
    batch.insert(chain, rows::outline_key(height), block.outline.as_ref());
    if let Some(set) = &block.next_validators {
        // By its hash: most epochs end with the set of the one before.
        let row = rows::write(set.as_ref());
        let hash = keccak256(&row);
        batch.insert(chain, rows::set_hash_key(height), rows::write(&hash));
        batch.insert(chain, rows::set_key(&hash), row);
    }
    let location = |(index, tx): (u32, &RecoveredTx)| {
        (rows::location_key(&tx.hash()), Some(rows::location_row(height, index)))
    };
    put_sorted(batch, chain, (0u32..).zip(&block.transactions).map(location));
}

fn put_undo(
    batch: &mut OwnedWriteBatch,
    chain: &Keyspace,
    height: u64,
    changes: &Changes<'_>,
    fingerprints: &[u32],
    pruned: &[u64],
) {
    batch.insert(chain, rows::undo_key(height), changes.undo_record());
    batch.insert(chain, rows::undo_filter_key(height), history::write_fingerprints(fingerprints));
    for height in pruned {
        batch.remove(chain, rows::undo_key(*height));
        batch.remove(chain, rows::undo_filter_key(*height));
    }
}

fn put_heads(
    batch: &mut OwnedWriteBatch,
    [state, chain]: [&Keyspace; 2],
    head: &Head,
    genesis_hash: B256,
    chain_id: u64,
) {
    let state_head = StateHeadRow {
        version: rows::FORMAT_VERSION,
        genesis_hash,
        chain_id,
        height: head.height,
        block_hash: head.block_hash,
        lthash: head.lthash.to_bytes(),
    };
    let chain_head = ChainHeadRow { height: head.height, block_hash: head.block_hash };
    batch.insert(state, rows::HEAD_KEY, rows::write(&state_head));
    batch.insert(chain, rows::HEAD_KEY, rows::write(&chain_head));
}

/// Rows hashed at once while the whole state is scanned.
const DIGEST_CHUNK: usize = 8192;

fn full_digest(version: &Version, chain_id: u64) -> Result<LtHash, StateError> {
    let mut digest = LtHash::new(chain_id);
    let mut accounts = Vec::with_capacity(DIGEST_CHUNK);
    for row in version.snapshot.prefix(&version.shared.state, [rows::ACCOUNT]) {
        let row = row.value().map_err(StateError::database("scanning accounts"))?;
        accounts.push(rows::read_account_row(&row)?);
        if accounts.len() == DIGEST_CHUNK {
            digest.add_leaves(&accounts, &[]);
            accounts.clear();
        }
    }
    let mut slots = Vec::with_capacity(DIGEST_CHUNK);
    for row in version.snapshot.prefix(&version.shared.state, [rows::SLOT]) {
        let row = row.value().map_err(StateError::database("scanning storage"))?;
        slots.push(rows::read_slot_row(&row)?);
        if slots.len() == DIGEST_CHUNK {
            digest.add_leaves(&[], &slots);
            slots.clear();
        }
    }
    digest.add_leaves(&accounts, &slots);
    Ok(digest)
}

/// Whether the last shutdown was clean. The note is gone for good before anything is written.
fn take_marker(marker: &Path) -> Result<bool, StateError> {
    match fs::remove_file(marker) {
        Ok(()) => {
            let directory = marker.parent().unwrap_or(marker);
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(io("syncing the directory"))?;
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("removing the shutdown note")(error)),
    }
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> StateError {
    move |error| StateError::Database { doing, reason: error.to_string() }
}
