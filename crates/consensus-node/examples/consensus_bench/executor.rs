//! An executor that does nothing: every payload is empty, every block valid.

use engine_api::{Engine, capabilities_of};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use types::engine::{
    BuiltPayload, Capabilities, EngineError, FinalizedState, Forkchoice, PayloadRequest, PayloadStatus,
};
use types::{B256, Epoch, Genesis, Header, Height, SystemInputs, Validator};

const STATE: B256 = B256::repeat_byte(0x51);
const RECEIPTS: B256 = B256::repeat_byte(0x52);

/// Knows heights and nothing else.
pub struct NullExecutor {
    capabilities: Capabilities,
    chain: Mutex<Chain>,
}

struct Chain {
    finalized: FinalizedState,
    /// Blocks that are not final yet, and the final one.
    heights: HashMap<B256, Height>,
}

impl NullExecutor {
    pub fn new(genesis: &Genesis) -> Arc<Self> {
        let finalized =
            FinalizedState { height: Height::ZERO, block_hash: genesis.hash(), state_hash: STATE };
        let heights = HashMap::from([(genesis.hash(), Height::ZERO)]);
        Arc::new(Self {
            capabilities: capabilities_of(genesis, STATE, "null-executor/1".into()),
            chain: Mutex::new(Chain { finalized, heights }),
        })
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for NullExecutor {
    async fn capabilities(&self) -> Result<Capabilities, EngineError> {
        Ok(self.capabilities.clone())
    }

    async fn build_payload(&self, request: PayloadRequest) -> Result<BuiltPayload, EngineError> {
        if !self.chain().heights.contains_key(&request.parent_hash) {
            return Err(EngineError::UnknownBlock(request.parent_hash));
        }
        Ok(BuiltPayload {
            payload: Vec::new(),
            encoding: 1,
            commitment: crypto::merkle::payload_root(&[]),
            state_hash: STATE,
            receipts_hash: RECEIPTS,
            transactions: 0,
            gas_used: 0,
        })
    }

    async fn new_payload(
        &self,
        header: Header,
        _payload: Vec<u8>,
        _inputs: SystemInputs,
    ) -> Result<PayloadStatus, EngineError> {
        let mut chain = self.chain();
        if !chain.heights.contains_key(&header.parent_hash) {
            return Ok(PayloadStatus::Syncing);
        }
        chain.heights.insert(header.hash(), header.height);
        Ok(PayloadStatus::Valid { state_hash: STATE, receipts_hash: RECEIPTS, next_validators: None })
    }

    async fn forkchoice_updated(&self, forkchoice: Forkchoice) -> Result<FinalizedState, EngineError> {
        let mut chain = self.chain();
        let Some(height) = chain.heights.get(&forkchoice.finalized).copied() else {
            return Err(EngineError::UnknownBlock(forkchoice.finalized));
        };
        chain.finalized = FinalizedState { height, block_hash: forkchoice.finalized, state_hash: STATE };
        chain.heights.retain(|_, other| *other >= height);
        Ok(chain.finalized)
    }

    async fn finalized_state(&self) -> Result<FinalizedState, EngineError> {
        Ok(self.chain().finalized)
    }

    async fn validator_set(&self, epoch: Epoch) -> Result<Vec<Validator>, EngineError> {
        Err(EngineError::Illegal(format!("epoch {epoch} is not fixed")))
    }

    async fn await_transactions(&self, _: B256, max_wait: Duration) -> Result<bool, EngineError> {
        tokio::time::sleep(max_wait).await;
        Ok(false)
    }
}
