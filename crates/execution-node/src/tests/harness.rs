//! A real store, pool and executor in a temporary directory.

use crate::chain::Chain;
use crate::executor::{Executor, ExecutorShared};
use crate::fault::Fault;
use crate::finalizer::Finalizer;
use crate::metrics::Metrics;
use crate::pool::{AdmissionLimits, Pool, PoolOptions, PoolThreads};
use alloy_primitives::{Address, B256, U256};
use execution::testing::TestKey;
use execution::{RecoveredTx, Rules, genesis_state};
use serde_json::json;
use state::{StateOptions, StateStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use txpool::AdmissionPolicy;
use types::engine::{BuiltPayload, Forkchoice, PayloadLimits, PayloadRequest, PayloadStatus};
use types::{Epoch, Genesis, Header, Height, Justify, Signature, SystemInputs, ValidatorIndex, View};

pub(crate) const CHAIN: u64 = 31_337;
pub(super) const FEE_RECIPIENT: Address = Address::repeat_byte(0xfe);

/// Generous: the time budget must not decide what a test builds.
const BUILD_TIME: Duration = Duration::from_secs(60);

pub(crate) fn genesis(keys: u64) -> Genesis {
    let balance = format!("{:#x}", U256::from(10).pow(U256::from(22)));
    let alloc: serde_json::Map<_, _> =
        (0..keys).map(|n| (TestKey::new(n).address().to_string(), json!({"balance": balance}))).collect();
    let secret = crypto::SecretKey::from_seed(&[7; 32]);
    serde_json::from_value(json!({
        "config": {"chainId": CHAIN},
        "timestamp": "0x65000000",
        "gasLimit": "0x3b9aca00",
        "alloc": alloc,
        "tandem": {"validators": [{
            "address": Address::repeat_byte(1),
            "public_key": secret.public_key(),
            "proof_of_possession": secret.prove_possession(),
            "stake": "1",
        }]},
    }))
    .unwrap()
}

pub(crate) fn transfer(from: u64, nonce: u64) -> RecoveredTx {
    TestKey::new(from).transfer(CHAIN, nonce, Address::repeat_byte(0xaa), U256::from(1))
}

pub(crate) fn pool_options(directory: &Path) -> PoolOptions {
    PoolOptions {
        limits: txpool::Limits::default(),
        admission: AdmissionLimits { threads: 2, ..AdmissionLimits::default() },
        transaction_bytes_max: 1 << 17,
        policy: AdmissionPolicy::default(),
        journal: Some(directory.join("transactions.journal")),
    }
}

/// One executor; opening another one on the same directory after dropping it is a crash and restart.
pub(super) struct Harness {
    pub executor: Executor,
    pub finalizer: Finalizer,
    pub metrics: Metrics,
    pub shared: Arc<ExecutorShared>,
    pub chain: Chain,
    pub pool_threads: PoolThreads,
}

/// What a proposer hands out.
#[derive(Clone, Debug)]
pub(super) struct Proposed {
    pub header: Header,
    pub payload: Vec<u8>,
    pub inputs: SystemInputs,
}

impl Proposed {
    pub fn hash(&self) -> B256 {
        self.header.hash()
    }
}

impl Harness {
    pub fn open(directory: &Path) -> Self {
        Self::open_with(directory, None)
    }

    pub fn open_with(directory: &Path, fault: Option<Fault>) -> Self {
        let genesis = genesis(4);
        let rules = Arc::new(Rules::from_genesis(&genesis).unwrap());
        let store = StateStore::open(StateOptions::new(directory.join("state")), &genesis).unwrap();
        let (height, store) = (store.head().height, Arc::new(store));
        let (pool, threads) =
            Pool::start(pool_options(directory), rules.clone(), store.clone(), height, 1_000_000_000)
                .unwrap();
        let state = genesis_state(&genesis).unwrap();
        let chain = Chain::new(genesis, &state, rules, store, pool).unwrap();
        let shared = Arc::new(ExecutorShared::new(chain.clone()));
        let metrics = Metrics::default();
        let executor = Executor::new(shared.clone(), metrics.clone(), BUILD_TIME, fault);
        let finalizer = Finalizer::new(shared.clone(), metrics.clone());
        Self { executor, finalizer, metrics, shared, chain, pool_threads: threads }
    }

    pub fn genesis_hash(&self) -> B256 {
        self.chain.genesis_hash()
    }

    pub fn pool(&self, transactions: impl IntoIterator<Item = RecoveredTx>) {
        self.chain.pool().readmit(transactions.into_iter().collect());
    }

    /// Builds on `parent` at `height`; blocks of different `view`s differ in time and hash.
    pub fn propose(&mut self, parent: B256, height: u64, view: u64) -> Proposed {
        let request = request(parent, height, view);
        let built = self.executor.build(&request).unwrap();
        proposed(&request, built)
    }

    pub fn validate(&mut self, block: &Proposed) -> PayloadStatus {
        self.executor.new_payload(&block.header, &block.payload, &block.inputs).unwrap()
    }

    /// Proposes, validates and returns the block.
    pub fn extend(&mut self, parent: B256, height: u64, view: u64) -> Proposed {
        let block = self.propose(parent, height, view);
        assert_eq!(self.validate(&block), valid(&block));
        block
    }

    pub fn finalize(&mut self, hash: B256) {
        let all = Forkchoice { head: hash, safe: hash, finalized: hash };
        let finalized = self.finalizer.forkchoice(&all).unwrap();
        assert_eq!(finalized.state.block_hash, hash);
        self.finalizer.clean_up(finalized.cleanup);
    }
}

pub(super) fn request(parent: B256, height: u64, view: u64) -> PayloadRequest {
    PayloadRequest {
        parent_hash: parent,
        height: Height::new(height),
        view: View::new(view),
        timestamp_ms: 0x6500_0000 * 1000 + view * 250,
        proposer: ValidatorIndex::ZERO,
        fee_recipient: FEE_RECIPIENT,
        limits: PayloadLimits { bytes: 4 << 20, gas: u64::MAX, objects: u64::MAX },
        system_inputs: SystemInputs { randao_mix: B256::repeat_byte(view as u8), ..Default::default() },
    }
}

pub(super) fn proposed(request: &PayloadRequest, built: BuiltPayload) -> Proposed {
    let header = Header {
        chain_id: CHAIN,
        epoch: Epoch::ZERO,
        epoch_start_height: Height::ZERO,
        height: request.height,
        view: request.view,
        parent_hash: request.parent_hash,
        timestamp_ms: request.timestamp_ms,
        proposer: request.proposer,
        fee_recipient: request.fee_recipient,
        validator_set_id: B256::ZERO,
        next_validator_set_id: B256::ZERO,
        payload_commitment: built.commitment,
        state_hash: built.state_hash,
        receipts_hash: built.receipts_hash,
        checkpoint: Default::default(),
        randao_reveal: Signature([0; 96]),
        justify: Justify::Genesis,
        timeout: None,
        last_commit: None,
        system_inputs_hash: request.system_inputs.hash(),
    };
    Proposed { header, payload: built.payload, inputs: request.system_inputs.clone() }
}

/// The verdict that agrees with a block's header.
pub(super) fn valid(block: &Proposed) -> PayloadStatus {
    let Header { state_hash, receipts_hash, .. } = block.header;
    PayloadStatus::Valid { state_hash, receipts_hash, next_validators: None }
}
