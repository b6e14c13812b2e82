//! What the engine calls that execute do: build and validate. One call after the other, on one thread; what is final
//! becomes durable beside them (`finalizer`).

use crate::chain::Chain;
use crate::fault::Fault;
use crate::metrics::Metrics;
use crate::tree::{Base, BlockTree, Node, NotKept, layers, nonce_above};
use alloy_primitives::{Bytes, map::B256Map};
use execution::{
    BlockEnv, BlockOutcome, BuildLimits, BuildMemory, ExecuteError, InvalidPayloadCode, InvalidTx, LtHash,
    Overlay, Payload, PayloadTransactions, RecoveredTx, SkippedTx, ViewError,
};
use parking_lot::Mutex;
use state::{BlockRecord, ExecutedBlock, StateError, StateSnapshot};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use txpool::Selection;
use types::engine::{BuiltPayload, EngineError, FinalizedState, PayloadRequest, PayloadStatus};
use types::limits::PAYLOAD_BYTES_MAX;
use types::{Address, B256, Header, Height, RejectionCode, SystemInputs, Validator};

/// Version of the payload encoding, as told to consensus.
const PAYLOAD_ENCODING: u32 = execution::PAYLOAD_VERSION as u32;

/// Own payloads whose execution is kept for their NewPayload.
const BUILT_MAX: usize = 4;

/// Refused blocks remembered, so that a verdict never changes.
const REFUSED_MAX: usize = 1024;

/// Transactions taken from the pool at once while building.
const SELECT_CHUNK: usize = 512;

/// What the executor's thread, the finalizer's and readers share.
#[derive(Debug)]
pub(crate) struct ExecutorShared {
    pub chain: Chain,
    pub tree: Mutex<BlockTree>,
    /// Why the storage cannot be trusted any more; final until the process restarts.
    pub poison: Mutex<Option<String>>,
    /// Told when `poison` is set.
    pub poisoned: tokio::sync::Notify,
    /// Blocks that are final, newest first, while the pool has not taken their transactions out yet.
    pub cleaning: Mutex<Vec<Arc<Node>>>,
}

/// Builds and validates.
#[derive(Debug)]
pub(crate) struct Executor {
    shared: Arc<ExecutorShared>,
    metrics: Metrics,
    build_time_max: Duration,
    built: VecDeque<Built>,
    memory: BuildMemory,
    refused: Refused,
    fault: Option<Fault>,
}

/// A payload built here, with its execution.
#[derive(Debug)]
struct Built {
    parent_hash: B256,
    env: BlockEnv,
    /// Hash of the system inputs.
    inputs: B256,
    commitment: B256,
    executed: Executed,
}

#[derive(Debug)]
struct Executed {
    transactions: PayloadTransactions,
    outcome: BlockOutcome,
    /// Lanes and access sets, as they are kept with the block.
    outline: Bytes,
}

/// A known block to build upon.
struct Parent {
    record: BlockRecord,
    lthash: LtHash,
    /// Blocks up to it, newest first, that the pool does not know of.
    path: Vec<Arc<Node>>,
    view: Overlay<StateSnapshot>,
}

/// Why there is no verdict "valid".
enum NoVerdict {
    Invalid { code: RejectionCode, reason: String, final_for_header: bool },
    Syncing,
    Failed(EngineError),
}

impl From<EngineError> for NoVerdict {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

impl ExecutorShared {
    pub fn new(chain: Chain) -> Self {
        let lthash = chain.store().head().lthash;
        let base = Base { record: chain.head().record.clone(), lthash, state: chain.store().view() };
        Self {
            chain,
            tree: Mutex::new(BlockTree::new(base)),
            poison: Mutex::new(None),
            poisoned: tokio::sync::Notify::new(),
            cleaning: Mutex::new(Vec::new()),
        }
    }

    /// Fails when the storage cannot be trusted any more.
    pub fn check(&self) -> Result<(), EngineError> {
        match &*self.poison.lock() {
            Some(reason) => Err(EngineError::Internal(reason.clone())),
            None => Ok(()),
        }
    }

    pub fn poison(&self, reason: String) -> EngineError {
        tracing::error!(reason, "executor storage failed; no further engine call will be answered");
        self.poisoned.notify_one();
        EngineError::Internal(self.poison.lock().get_or_insert(reason).clone())
    }

    pub fn finalized_state(&self) -> FinalizedState {
        let head = self.chain.head();
        let BlockRecord { height, hash, state_hash, .. } = head.record;
        FinalizedState { height: Height::new(height), block_hash: hash, state_hash }
    }

    /// Whether the pool has something for a block on top of `parent_hash`.
    pub fn has_transactions(&self, parent_hash: &B256) -> Result<bool, EngineError> {
        let parent = self.parent(parent_hash).ok_or(EngineError::UnknownBlock(*parent_hash))?;
        let Parent { record, path, .. } = parent;
        let base_fee = self.chain.rules().next_base_fee(record.height, record.gas_used, record.base_fee);
        let mut selection = Selection::new(base_fee);
        let first = self.chain.pool().select(&mut selection, 1, |sender| nonce_above(&path, sender));
        Ok(!first.is_empty())
    }

    fn view_error(&self, error: ViewError) -> EngineError {
        match error {
            ViewError::Evm(reason) => EngineError::Internal(reason),
            storage => self.poison(storage.to_string()),
        }
    }

    /// A block of the tree with the state after it. Both are taken at once: a commit that ends meanwhile changes
    /// neither.
    fn parent(&self, hash: &B256) -> Option<Parent> {
        let (mut path, base) = {
            let tree = self.tree.lock();
            (tree.path(hash)?, tree.base().clone())
        };
        let (record, lthash) = match path.first() {
            Some(node) => (node.block.record.clone(), node.lthash.clone()),
            None => (base.record, base.lthash),
        };
        let view = Overlay::new(base.state, layers(&path));
        // What became final a moment ago may still be in the pool; it is not includable for that. Looked up after the
        // path: what has left the tree by then is either here or out of the pool.
        path.extend(self.cleaning.lock().iter().cloned());
        Some(Parent { record, lthash, path, view })
    }
}

impl Executor {
    pub fn new(
        shared: Arc<ExecutorShared>,
        metrics: Metrics,
        build_time_max: Duration,
        fault: Option<Fault>,
    ) -> Self {
        let (built, memory, refused) = (VecDeque::new(), BuildMemory::new(), Refused::default());
        Self { shared, metrics, build_time_max, built, memory, refused, fault }
    }

    /// Builds and executes a payload from the pool.
    pub fn build(&mut self, request: &PayloadRequest) -> Result<BuiltPayload, EngineError> {
        self.shared.check()?;
        self.forget_abandoned();
        let started = Instant::now();
        let parent =
            self.shared.parent(&request.parent_hash).ok_or(EngineError::UnknownBlock(request.parent_hash))?;
        let header = (request.height, request.timestamp_ms);
        check_position(&parent.record, header).map_err(EngineError::Illegal)?;
        let env = self.env(&parent.record, header, request.fee_recipient, &request.system_inputs);
        let limits = BuildLimits {
            bytes: request.limits.bytes.min(self.payload_bytes_max()),
            gas: request.limits.gas.min(env.gas_limit),
            objects: request.limits.objects,
        };
        let chain = self.shared.chain.clone();
        let candidates = Candidates::new(&chain, env.base_fee, &parent.path, limits.bytes.saturating_mul(2));
        let deadline = started + self.build_time_max;
        let stop = || Instant::now() >= deadline;
        let built = execution::build_with(
            &mut self.memory,
            &parent.view,
            chain.rules(),
            &env,
            &parent.lthash,
            limits,
            &request.system_inputs.evidence,
            candidates,
            stop,
        )
        .map_err(|error| match error {
            ExecuteError::Invalid(error) => EngineError::Illegal(error.to_string()),
            ExecuteError::View(error) => self.shared.view_error(error),
        })?;
        drop_hopeless(&chain, &built.skipped);
        self.metrics.built(started.elapsed());
        let answer = BuiltPayload {
            encoding: PAYLOAD_ENCODING,
            commitment: built.commitment,
            state_hash: self.reported(built.outcome.state_hash),
            receipts_hash: built.outcome.receipts_hash,
            transactions: u32::try_from(built.transactions.len()).unwrap_or(u32::MAX),
            gas_used: built.outcome.gas_used,
            payload: built.payload,
        };
        let outline = built.outline.into();
        let executed = Executed { transactions: built.transactions, outcome: built.outcome, outline };
        self.remember(Built {
            parent_hash: request.parent_hash,
            env,
            inputs: request.system_inputs.hash(),
            commitment: built.commitment,
            executed,
        });
        Ok(answer)
    }

    /// The verdict on a block; executes it unless that happened before.
    pub fn new_payload(
        &mut self,
        header: &Header,
        payload: &[u8],
        system_inputs: &SystemInputs,
    ) -> Result<PayloadStatus, EngineError> {
        self.shared.check()?;
        self.forget_abandoned();
        let hash = header.hash();
        if let Some((code, reason)) = self.refused.get(&hash) {
            return Ok(PayloadStatus::Invalid { code, reason });
        }
        if let Some(status) = self.known(header, hash)? {
            return Ok(status);
        }
        match self.validate(header, hash, payload, system_inputs) {
            Ok(status) => Ok(status),
            Err(NoVerdict::Syncing) => Ok(PayloadStatus::Syncing),
            Err(NoVerdict::Failed(error)) => Err(error),
            Err(NoVerdict::Invalid { code, reason, final_for_header }) => {
                tracing::warn!(height = %header.height, block = %hash, ?code, reason, "block refused");
                if final_for_header {
                    self.refused.insert(hash, code, reason.clone());
                }
                Ok(PayloadStatus::Invalid { code, reason })
            }
        }
    }

    #[cfg(test)]
    pub fn built_waiting(&self) -> usize {
        self.built.len()
    }

    /// The answer for a block that was executed before.
    fn known(&self, header: &Header, hash: B256) -> Result<Option<PayloadStatus>, EngineError> {
        if let Some(node) = self.shared.tree.lock().get(&hash) {
            let next_validators = node.block.next_validators.as_deref().cloned();
            return Ok(Some(valid(&node.block.record, next_validators)));
        }
        let chain = &self.shared.chain;
        let finalized = chain.height();
        if header.height > finalized {
            return Ok(None);
        }
        let poison = |error: StateError| self.shared.poison(error.to_string());
        match chain.record(header.height).map_err(poison)? {
            Some(record) if record.hash == hash => {
                let next_validators = chain.next_validators(header.height).map_err(poison)?;
                Ok(Some(valid(&record, next_validators)))
            }
            _ => Err(EngineError::Illegal(format!(
                "block {hash} at height {} contradicts the finalized chain, which is at height {finalized}",
                header.height
            ))),
        }
    }

    fn validate(
        &mut self,
        header: &Header,
        hash: B256,
        payload: &[u8],
        system_inputs: &SystemInputs,
    ) -> Result<PayloadStatus, NoVerdict> {
        self.check_body(header, payload, system_inputs)?;
        let parent = self.shared.parent(&header.parent_hash).ok_or(NoVerdict::Syncing)?;
        check_position(&parent.record, (header.height, header.timestamp_ms)).map_err(|reason| {
            NoVerdict::Invalid { code: RejectionCode::BadHeader, reason, final_for_header: true }
        })?;
        let position = (header.height, header.timestamp_ms);
        let env = self.env(&parent.record, position, header.fee_recipient, system_inputs);
        let inputs = header.system_inputs_hash;
        let built_here = self.take_built(&header.parent_hash, &env, inputs, &header.payload_commitment);
        let from_here = built_here.is_some();
        let executed = match built_here {
            Some(executed) => executed,
            None => self.execute(&parent, &env, payload, &system_inputs.evidence)?,
        };
        let Executed { transactions, outcome, outline } = executed;
        let (state_hash, receipts_hash) = (outcome.state_hash, outcome.receipts_hash);
        let next_validators = outcome.system.next_validators.clone();
        if state_hash == header.state_hash && receipts_hash == header.receipts_hash {
            let BlockOutcome { receipts, diff, lthash, .. } = outcome;
            let record = BlockRecord {
                gas_used: outcome.gas_used,
                logs_bloom: outcome.logs_bloom,
                state_hash,
                receipts_hash,
                size: payload.len() as u64,
                transaction_count: u32::try_from(transactions.len()).unwrap_or(u32::MAX),
                ..record_of(header, hash, &env)
            };
            let transactions = transactions.lanes.into_iter().flatten().collect();
            let next_validators = next_validators.clone();
            let block = Arc::new(ExecutedBlock { record, transactions, receipts, next_validators, outline });
            let kept = self.shared.tree.lock().insert(block, diff, lthash);
            match kept {
                Ok(()) => {}
                Err(NotKept::Full) => {
                    let reason = "too many blocks wait for finality, and all lead to the head";
                    return Err(EngineError::Unavailable(reason.into()).into());
                }
                // Its branch lost while it was executed: the answer is the one it would get now.
                Err(NotKept::Abandoned) => {
                    return self.known(header, hash)?.ok_or(NoVerdict::Syncing);
                }
            }
        } else if from_here {
            // Consensus compares the answer with the header; a header that contradicts its own payload is refused
            // there. The block is not kept: nothing may be built upon it.
            let executed = Executed { transactions, outcome, outline };
            let commitment = header.payload_commitment;
            self.remember(Built { parent_hash: header.parent_hash, env, inputs, commitment, executed });
        }
        let state_hash = if from_here { self.reported(state_hash) } else { state_hash };
        let next_validators = next_validators.as_deref().cloned();
        Ok(PayloadStatus::Valid { state_hash, receipts_hash, next_validators })
    }

    /// Everything that can be checked without the parent.
    fn check_body(
        &self,
        header: &Header,
        payload: &[u8],
        system_inputs: &SystemInputs,
    ) -> Result<(), NoVerdict> {
        let chain_id = self.shared.chain.chain_id();
        // A header of another chain is wrong for ever. A body that does not belong to its header says nothing
        // about the header: the right body may still come.
        let invalid =
            |code, final_for_header, reason| Err(NoVerdict::Invalid { code, reason, final_for_header });
        if header.chain_id != chain_id {
            let reason = format!("chain id is {}, this chain's is {chain_id}", header.chain_id);
            return invalid(RejectionCode::BadHeader, true, reason);
        }
        let inputs_hash = system_inputs.hash();
        if inputs_hash != header.system_inputs_hash {
            let reason =
                format!("system inputs hash to {inputs_hash}, header has {}", header.system_inputs_hash);
            return invalid(RejectionCode::BadSystemInputs, false, reason);
        }
        let SystemInputs { randao_mix: _, evidence: _, liveness, penalties } = system_inputs;
        if !liveness.is_empty() || penalties.is_some() {
            let reason = "system inputs beside the RANDAO mix and evidence are not active yet".into();
            return invalid(RejectionCode::BadSystemInputs, true, reason);
        }
        let commitment = Payload::commitment(payload);
        if commitment != header.payload_commitment {
            let reason = format!("payload commits to {commitment}, header has {}", header.payload_commitment);
            return invalid(RejectionCode::BadCommitment, false, reason);
        }
        let bytes_max = self.payload_bytes_max();
        if payload.len() as u64 > bytes_max {
            let reason = format!("payload has {} bytes, the genesis allows {bytes_max}", payload.len());
            return invalid(RejectionCode::InvalidPayload, true, reason);
        }
        Ok(())
    }

    fn execute(
        &self,
        parent: &Parent,
        env: &BlockEnv,
        payload: &[u8],
        evidence: &[Vec<u8>],
    ) -> Result<Executed, NoVerdict> {
        let started = Instant::now();
        let invalid = |code, reason| NoVerdict::Invalid { code, reason, final_for_header: true };
        let refused = |reason: String| invalid(RejectionCode::InvalidPayload, reason);
        let payload = Payload::decode(payload).map_err(|error| refused(error.to_string()))?;
        let hashes: Vec<B256> = payload.transactions().map(crypto::keccak256).collect();
        let chain = &self.shared.chain;
        let pooled: B256Map<RecoveredTx> = chain.pool().get_many(&hashes);
        let transactions = execution::recover_payload(&payload, |hash| pooled.get(hash).cloned())
            .map_err(|error| refused(error.to_string()))?;
        let (rules, parent_hash) = (chain.rules(), &parent.lthash);
        let outcome =
            execution::replay(&parent.view, rules, env, parent_hash, &payload, &transactions, evidence)
                .map_err(|error| match error {
                    ExecuteError::Invalid(error) if error.code == InvalidPayloadCode::Evidence => {
                        invalid(RejectionCode::BadSystemInputs, error.reason)
                    }
                    ExecuteError::Invalid(error) => refused(error.to_string()),
                    ExecuteError::View(error) => NoVerdict::Failed(self.shared.view_error(error)),
                })?;
        self.metrics.executed(started.elapsed());
        Ok(Executed { transactions, outcome, outline: payload.into_outline().into() })
    }

    fn env(
        &self,
        parent: &BlockRecord,
        (height, timestamp_ms): (Height, u64),
        fee_recipient: Address,
        system_inputs: &SystemInputs,
    ) -> BlockEnv {
        let rules = self.shared.chain.rules();
        BlockEnv {
            height: height.get(),
            timestamp_ms,
            prevrandao: system_inputs.randao_mix,
            fee_recipient,
            gas_limit: rules.gas_limit(),
            base_fee: rules.next_base_fee(parent.height, parent.gas_used, parent.base_fee),
        }
    }

    fn payload_bytes_max(&self) -> u64 {
        self.shared.chain.genesis().tandem.payload_bytes_max.min(PAYLOAD_BYTES_MAX as u64)
    }

    /// Lets go of own payloads whose parent is not the head's chain any more.
    fn forget_abandoned(&mut self) {
        let tree = self.shared.tree.lock();
        self.built.retain(|built| tree.contains(&built.parent_hash));
    }

    fn remember(&mut self, built: Built) {
        if self.built.len() >= BUILT_MAX {
            self.built.pop_front();
        }
        self.built.push_back(built);
    }

    fn take_built(
        &mut self,
        parent_hash: &B256,
        env: &BlockEnv,
        inputs: B256,
        commitment: &B256,
    ) -> Option<Executed> {
        let matches = |built: &Built| {
            let same_place = built.parent_hash == *parent_hash && built.env == *env;
            same_place && built.inputs == inputs && built.commitment == *commitment
        };
        let at = self.built.iter().position(matches)?;
        self.built.remove(at).map(|built| built.executed)
    }

    /// What this executor says a payload of its own leads to. A lie only where a test asks for one.
    fn reported(&self, state_hash: B256) -> B256 {
        match self.fault {
            Some(Fault::WrongStateHash) => crypto::hash(state_hash.as_slice()),
            None => state_hash,
        }
    }
}

/// Refused blocks, newest last.
#[derive(Debug, Default)]
struct Refused {
    verdicts: B256Map<(RejectionCode, String)>,
    order: VecDeque<B256>,
}

impl Refused {
    fn get(&self, hash: &B256) -> Option<(RejectionCode, String)> {
        self.verdicts.get(hash).cloned()
    }

    fn insert(&mut self, hash: B256, code: RejectionCode, reason: String) {
        if self.order.len() >= REFUSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
        if self.verdicts.insert(hash, (code, reason)).is_none() {
            self.order.push_back(hash);
        }
    }
}

/// The pool's transactions in selection order, taken in chunks so that the pool is never locked for long.
struct Candidates<'a> {
    chain: &'a Chain,
    path: &'a [Arc<Node>],
    selection: Selection,
    chunk: std::vec::IntoIter<RecoveredTx>,
    /// Bytes that may still be offered: what does not fit must not make a full pool slow.
    bytes_left: u64,
}

impl<'a> Candidates<'a> {
    fn new(chain: &'a Chain, base_fee: u64, path: &'a [Arc<Node>], bytes_left: u64) -> Self {
        Self { chain, path, selection: Selection::new(base_fee), chunk: Vec::new().into_iter(), bytes_left }
    }
}

impl Iterator for Candidates<'_> {
    type Item = RecoveredTx;

    fn next(&mut self) -> Option<RecoveredTx> {
        if self.chunk.len() == 0 {
            let next_nonce = |sender: &Address| nonce_above(self.path, sender);
            self.chunk = self.chain.pool().select(&mut self.selection, SELECT_CHUNK, next_nonce).into_iter();
        }
        let transaction = self.chunk.next()?;
        self.bytes_left = self.bytes_left.checked_sub(transaction.encoded().len() as u64)?;
        Some(transaction)
    }
}

/// Height and time of a block against its parent's.
fn check_position(parent: &BlockRecord, (height, timestamp_ms): (Height, u64)) -> Result<(), String> {
    let next = Height::new(parent.height).next();
    if height != next {
        return Err(format!("height is {height}, the parent's is {}", parent.height));
    }
    if timestamp_ms < parent.timestamp_ms {
        return Err(format!("timestamp is {timestamp_ms} ms, the parent's is {} ms", parent.timestamp_ms));
    }
    Ok(())
}

fn record_of(header: &Header, hash: B256, env: &BlockEnv) -> BlockRecord {
    BlockRecord {
        height: env.height,
        hash,
        parent_hash: header.parent_hash,
        timestamp_ms: env.timestamp_ms,
        view: header.view,
        proposer: header.proposer,
        fee_recipient: env.fee_recipient,
        gas_limit: env.gas_limit,
        gas_used: 0,
        base_fee: env.base_fee,
        prevrandao: env.prevrandao,
        logs_bloom: Default::default(),
        state_hash: header.state_hash,
        receipts_hash: header.receipts_hash,
        payload_commitment: header.payload_commitment,
        size: 0,
        transaction_count: 0,
    }
}

fn valid(record: &BlockRecord, next_validators: Option<Vec<Validator>>) -> PayloadStatus {
    let BlockRecord { state_hash, receipts_hash, .. } = *record;
    PayloadStatus::Valid { state_hash, receipts_hash, next_validators }
}

/// Takes transactions out of the pool that no later block can hold either.
fn drop_hopeless(chain: &Chain, skipped: &[SkippedTx]) {
    let hopeless = |reason: &InvalidTx| {
        // A nonce that is used up here may be free again if another block becomes final.
        !reason.may_become_valid() && !matches!(reason, InvalidTx::NonceTooLow { .. })
    };
    let hashes: Vec<B256> =
        skipped.iter().filter(|tx| tx.reason.as_ref().is_some_and(hopeless)).map(|tx| tx.hash).collect();
    if !hashes.is_empty() {
        tracing::warn!(count = hashes.len(), "removed transactions that no block can hold");
        chain.pool().remove(&hashes);
    }
}
