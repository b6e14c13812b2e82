//! The finalized chain as readers see it: JSON-RPC, the pool and metrics.

use crate::pool::Pool;
use alloy_primitives::Bytes;
use execution::{BlockEnv, GenesisState, Payload, RecoveredTx, Rules, TxReceipt};
use parking_lot::{Mutex, RwLock};
use state::{
    BlockRecord, ExecutedBlock, HistoryError, LogEntry, LogFilter, LogLimits, LogsError, StateError,
    StateSnapshot, StateStore, TxLocation,
};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast;
use types::{Address, B256, Genesis, Height, Validator, ValidatorIndex, View};

/// Finalized blocks a subscriber may lag behind before it misses some.
pub const SUBSCRIBER_BLOCKS_MAX: usize = 1024;

/// Recent finalized blocks kept in memory: readers ask for little else.
const RECENT_BLOCKS_MAX: usize = 64;

/// Transactions in all recent blocks together.
const RECENT_TRANSACTIONS_MAX: usize = 100_000;

/// The finalized chain. Cheap to clone; all clones see the same.
///
/// Un-finalized blocks are not visible here, and neither is anything that was refused. A block is announced
/// ([`Self::subscribe`]) after it is durable and readable.
#[derive(Clone, Debug)]
pub struct Chain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    genesis: Genesis,
    genesis_block: Arc<ExecutedBlock>,
    rules: Arc<Rules>,
    store: Arc<StateStore>,
    pool: Pool,
    head: RwLock<Arc<ExecutedBlock>>,
    recent: Mutex<Recent>,
    finalized: broadcast::Sender<Arc<ExecutedBlock>>,
}

/// A transaction in its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinedTransaction {
    /// The block, without its other transactions.
    pub block: BlockRecord,
    /// Position in the block.
    pub index: u32,
    /// The transaction.
    pub transaction: RecoveredTx,
}

impl Chain {
    /// Opens the chain over its store. `genesis_state` is the state at height 0.
    pub(crate) fn new(
        genesis: Genesis,
        genesis_state: &GenesisState,
        rules: Arc<Rules>,
        store: Arc<StateStore>,
        pool: Pool,
    ) -> Result<Self, StateError> {
        let genesis_block = Arc::new(genesis_block(&genesis, genesis_state));
        let head = match store.head().height {
            0 => genesis_block.clone(),
            height => Arc::new(store.block(height)?.ok_or_else(|| missing(height))?),
        };
        let inner = Inner {
            genesis,
            genesis_block,
            rules,
            store,
            pool,
            head: RwLock::new(head),
            recent: Mutex::default(),
            finalized: broadcast::channel(SUBSCRIBER_BLOCKS_MAX).0,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The genesis file.
    pub fn genesis(&self) -> &Genesis {
        &self.0.genesis
    }

    /// Hash of block 0.
    pub fn genesis_hash(&self) -> B256 {
        self.0.genesis_block.record.hash
    }

    /// EIP-155 chain id.
    pub fn chain_id(&self) -> u64 {
        self.0.rules.chain_id()
    }

    /// Forks, gas limit, base fee rule.
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// The transaction pool.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// The newest finalized block.
    pub fn head(&self) -> Arc<ExecutedBlock> {
        self.0.head.read().clone()
    }

    /// Height of the newest finalized block.
    pub fn height(&self) -> Height {
        Height::new(self.0.head.read().record.height)
    }

    /// A finalized block with transactions and receipts.
    pub fn block_by_number(&self, height: Height) -> Result<Option<Arc<ExecutedBlock>>, StateError> {
        let (height, head) = (height.get(), self.head());
        if height == 0 {
            return Ok(Some(self.0.genesis_block.clone()));
        }
        if height >= head.record.height {
            return Ok((height == head.record.height).then_some(head));
        }
        if let Some(block) = self.0.recent.lock().get(height) {
            return Ok(Some(block));
        }
        Ok(self.0.store.block(height)?.map(Arc::new))
    }

    /// A finalized block by its consensus hash.
    pub fn block_by_hash(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, StateError> {
        match self.height_of(hash)? {
            Some(height) => self.block_by_number(height),
            None => Ok(None),
        }
    }

    /// Height of the finalized block with this consensus hash.
    pub fn height_of(&self, hash: B256) -> Result<Option<Height>, StateError> {
        let head = self.head();
        if hash == self.genesis_hash() {
            return Ok(Some(Height::ZERO));
        }
        if hash == head.record.hash {
            return Ok(Some(Height::new(head.record.height)));
        }
        // The store may already hold a block that is not announced yet.
        let height = self.0.store.height_of(&hash)?.filter(|height| *height <= head.record.height);
        Ok(height.map(Height::new))
    }

    /// A finalized block without its transactions: much cheaper for old blocks.
    pub fn record(&self, height: Height) -> Result<Option<BlockRecord>, StateError> {
        let (height, head) = (height.get(), self.head());
        if height == 0 {
            return Ok(Some(self.0.genesis_block.record.clone()));
        }
        if height >= head.record.height {
            return Ok((height == head.record.height).then(|| head.record.clone()));
        }
        if let Some(block) = self.0.recent.lock().get(height) {
            return Ok(Some(block.record.clone()));
        }
        self.0.store.record(height)
    }

    /// The validators that the finalized block at `height` fixed for the epoch after the next one, if it ended one.
    pub fn next_validators(&self, height: Height) -> Result<Option<Vec<Validator>>, StateError> {
        let (height, head) = (height.get(), self.head());
        if height >= head.record.height {
            let at_head = height == head.record.height;
            return Ok(head.next_validators.as_deref().filter(|_| at_head).cloned());
        }
        if let Some(block) = self.0.recent.lock().get(height) {
            return Ok(block.next_validators.as_deref().cloned());
        }
        self.0.store.next_validators(height)
    }

    /// The block that holds a transaction, and its position in it.
    pub fn transaction(&self, hash: B256) -> Result<Option<(Arc<ExecutedBlock>, usize)>, StateError> {
        let Some(at) = self.locate(hash)? else { return Ok(None) };
        let block = self.block_by_number(Height::new(at.height))?.ok_or_else(|| missing(at.height))?;
        Ok(Some((block, at.index as usize)))
    }

    /// A transaction with its block, without reading the block's other transactions.
    pub fn mined_transaction(&self, hash: B256) -> Result<Option<MinedTransaction>, StateError> {
        let Some(at) = self.locate(hash)? else { return Ok(None) };
        let block = self.record(Height::new(at.height))?.ok_or_else(|| missing(at.height))?;
        let transaction = match self.recent_at(at, |block, index| block.transactions.get(index).cloned()) {
            Some(transaction) => transaction,
            None => self.0.store.transaction(at)?.ok_or_else(|| missing(at.height))?,
        };
        Ok(Some(MinedTransaction { block, index: at.index, transaction }))
    }

    /// A receipt with its transaction and block, without reading the others of the block.
    pub fn receipt(&self, hash: B256) -> Result<Option<(MinedTransaction, TxReceipt)>, StateError> {
        let Some(mined) = self.mined_transaction(hash)? else { return Ok(None) };
        let at = TxLocation { height: mined.block.height, index: mined.index };
        let receipt = match self.recent_at(at, |block, index| block.receipts.get(index).cloned()) {
            Some(receipt) => receipt,
            None => self.0.store.receipt(at)?.ok_or_else(|| missing(at.height))?,
        };
        Ok(Some((mined, receipt)))
    }

    /// Lanes and access sets of a finalized block; its transactions are empty there.
    pub fn outline(&self, height: Height) -> Result<Option<Payload>, StateError> {
        let (height, head) = (height.get(), self.head());
        let bytes = match self.0.recent.lock().get(height) {
            Some(block) => Some(block.outline.clone()),
            None if height == 0 => Some(self.0.genesis_block.outline.clone()),
            None if height == head.record.height => Some(head.outline.clone()),
            None if height > head.record.height => None,
            None => self.0.store.outline(height)?,
        };
        let read = |bytes: Bytes| Payload::decode_outline(&bytes);
        bytes.map(read).transpose().map_err(|error| StateError::Corrupt {
            what: "lanes of a block",
            reason: format!("height {height}: {error}"),
        })
    }

    /// The state after a finalized block, as far back as history is kept.
    pub fn state_at(&self, height: Height) -> Result<StateSnapshot, HistoryError> {
        self.0.store.at(height.get())
    }

    /// The state after [`Self::head`] with that block.
    pub fn head_state(&self) -> Result<(Arc<ExecutedBlock>, StateSnapshot), HistoryError> {
        let head = self.head();
        let state = self.0.store.at(head.record.height)?;
        Ok((head, state))
    }

    /// Logs of finalized blocks `from..=to` that match, in order.
    pub fn logs(
        &self,
        from: Height,
        to: Height,
        filter: &LogFilter,
        limits: LogLimits,
    ) -> Result<Vec<LogEntry>, LogsError> {
        let to = to.min(self.height());
        self.0.store.logs(from.get(), to.get(), filter, limits)
    }

    /// Every block finalized from now on, in order. A receiver that lags more than [`SUBSCRIBER_BLOCKS_MAX`] is
    /// told how many it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<ExecutedBlock>> {
        self.0.finalized.subscribe()
    }

    /// The environment of the next block as far as it is known: for calls on `pending` and `latest`.
    pub fn next_block_env(&self) -> BlockEnv {
        let head = &self.head().record;
        BlockEnv {
            height: head.height.saturating_add(1),
            timestamp_ms: unix_ms().max(head.timestamp_ms),
            prevrandao: head.prevrandao,
            fee_recipient: head.fee_recipient,
            gas_limit: self.0.rules.gas_limit(),
            base_fee: self.next_base_fee(),
        }
    }

    /// The environment a finalized block ran in.
    pub fn env_of(&self, block: &BlockRecord) -> BlockEnv {
        BlockEnv {
            height: block.height,
            timestamp_ms: block.timestamp_ms,
            prevrandao: block.prevrandao,
            fee_recipient: block.fee_recipient,
            gas_limit: block.gas_limit,
            base_fee: block.base_fee,
        }
    }

    /// Base fee of the block after the head.
    pub fn next_base_fee(&self) -> u64 {
        let head = &self.head().record;
        self.0.rules.next_base_fee(head.height, head.gas_used, head.base_fee)
    }

    /// Makes a block that the store just committed visible and announces it.
    pub(crate) fn publish(&self, block: Arc<ExecutedBlock>) {
        self.0.recent.lock().push(block.clone());
        *self.0.head.write() = block.clone();
        // Fails only when nobody listens.
        let _ = self.0.finalized.send(block);
    }

    pub(crate) fn store(&self) -> &Arc<StateStore> {
        &self.0.store
    }

    fn locate(&self, hash: B256) -> Result<Option<TxLocation>, StateError> {
        let head = self.height().get();
        Ok(self.0.store.locate(&hash)?.filter(|at| at.height <= head))
    }

    fn recent_at<T>(&self, at: TxLocation, pick: impl Fn(&ExecutedBlock, usize) -> Option<T>) -> Option<T> {
        let block = self.0.recent.lock().get(at.height)?;
        pick(&block, at.index as usize)
    }
}

/// The newest blocks, consecutive, bounded by count and by transactions.
#[derive(Debug, Default)]
struct Recent {
    blocks: VecDeque<Arc<ExecutedBlock>>,
    transactions: usize,
}

impl Recent {
    fn get(&self, height: u64) -> Option<Arc<ExecutedBlock>> {
        let first = self.blocks.front()?.record.height;
        let index = usize::try_from(height.checked_sub(first)?).ok()?;
        self.blocks.get(index).cloned()
    }

    fn push(&mut self, block: Arc<ExecutedBlock>) {
        self.transactions += block.transactions.len();
        self.blocks.push_back(block);
        while self.blocks.len() > RECENT_BLOCKS_MAX || self.transactions > RECENT_TRANSACTIONS_MAX {
            let Some(oldest) = self.blocks.pop_front() else { break };
            self.transactions -= oldest.transactions.len();
        }
    }
}

/// Milliseconds since 1970 by the local clock. Never used for anything nodes must agree on.
pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn missing(height: u64) -> StateError {
    StateError::Corrupt { what: "block", reason: format!("height {height} is indexed but not stored") }
}

fn genesis_block(genesis: &Genesis, state: &GenesisState) -> ExecutedBlock {
    let payload = Payload::default().encode();
    let record = BlockRecord {
        height: 0,
        hash: genesis.hash(),
        parent_hash: B256::ZERO,
        timestamp_ms: genesis.timestamp.saturating_mul(1000),
        view: View::ZERO,
        proposer: ValidatorIndex::ZERO,
        fee_recipient: Address::ZERO,
        gas_limit: genesis.gas_limit,
        gas_used: 0,
        base_fee: genesis.base_fee_per_gas,
        prevrandao: genesis.seed(),
        logs_bloom: Default::default(),
        state_hash: state.state_hash,
        receipts_hash: execution::receipts_hash(&[]),
        payload_commitment: Payload::commitment(&payload),
        size: payload.len() as u64,
        transaction_count: 0,
    };
    let outline = Payload::default().into_outline().into();
    ExecutedBlock { record, transactions: Vec::new(), receipts: Vec::new(), next_validators: None, outline }
}
