//! A simulated executor: its state hash chains over payload commitments, un-finalized blocks are lost when it dies,
//! finalized ones are not.

use crate::sets::Sets;
use crypto::merkle::payload_root;
use crypto::tagged_hash;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::engine::{BuiltPayload, EngineError, FinalizedState, Forkchoice, PayloadRequest, PayloadStatus};
use types::{B256, Block, Height};

/// The executor of one node.
#[derive(Debug)]
pub struct SimExecutor {
    /// Durable chain: (block hash, state hash) by height, genesis first.
    durable: Vec<(B256, B256)>,
    /// Executed, not final: parent, height and state hash by block hash.
    overlays: BTreeMap<B256, (B256, Height, B256)>,
    /// Timestamps of all blocks ever executed; a block includes every transaction before.
    stamps: BTreeMap<B256, u64>,
    /// Who votes when; without it no block ends an epoch.
    sets: Option<Arc<Sets>>,
    /// Answers calls.
    pub alive: bool,
    /// Computes wrong state hashes for what it builds.
    pub lies: bool,
    /// Builds payloads on which every executor fails.
    pub poisons: bool,
}

/// What a payload starts with that no executor can judge.
pub(crate) const POISON: &[u8] = b"poison";
/// The state hash of an executor that lies.
pub(crate) const WRONG_STATE: B256 = B256::repeat_byte(0xee);

impl SimExecutor {
    /// An executor at genesis.
    pub fn new(genesis_hash: B256) -> Self {
        Self {
            durable: vec![(genesis_hash, B256::ZERO)],
            overlays: BTreeMap::new(),
            stamps: BTreeMap::new(),
            sets: None,
            alive: true,
            lies: false,
            poisons: false,
        }
    }

    /// The same with epochs.
    pub fn with_sets(genesis_hash: B256, sets: Arc<Sets>) -> Self {
        Self { sets: Some(sets), ..Self::new(genesis_hash) }
    }

    /// The process dies and comes back: only what is durable remains.
    pub fn restart(&mut self) {
        self.overlays.clear();
        self.alive = true;
    }

    /// Its durable head.
    pub fn head(&self) -> FinalizedState {
        let (block_hash, state_hash) = *self.durable.last().expect("genesis is always there");
        FinalizedState { height: Height::new(self.durable.len() as u64 - 1), block_hash, state_hash }
    }

    /// Durable block hash at a height.
    pub fn durable_at(&self, height: Height) -> Option<B256> {
        self.durable.get(height.get() as usize).map(|(hash, _)| *hash)
    }

    fn state_of(&self, hash: &B256) -> Option<(Height, B256)> {
        if let Some((_, height, state)) = self.overlays.get(hash) {
            return Some((*height, *state));
        }
        let at = self.durable.iter().rposition(|(h, _)| h == hash)?;
        Some((Height::new(at as u64), self.durable[at].1))
    }

    /// Timestamp of an executed block in milliseconds; 0 for the genesis and for what it never saw.
    pub fn timestamp_ms(&self, hash: &B256) -> u64 {
        self.stamps.get(hash).copied().unwrap_or(0)
    }

    /// Builds `payload` on the asked parent.
    pub fn build(&self, request: &PayloadRequest, payload: Vec<u8>) -> Result<BuiltPayload, EngineError> {
        let (height, state) =
            self.state_of(&request.parent_hash).ok_or(EngineError::UnknownBlock(request.parent_hash))?;
        if height.next() != request.height {
            return Err(EngineError::Illegal(format!("height {} on parent {height}", request.height)));
        }
        let payload = if self.poisons { [POISON, &payload].concat() } else { payload };
        let commitment = payload_root(&payload);
        let state_hash = if self.lies { WRONG_STATE } else { execute(state, commitment) };
        Ok(BuiltPayload {
            transactions: u32::from(!payload.is_empty()),
            payload,
            encoding: 1,
            commitment,
            state_hash,
            receipts_hash: commitment,
            gas_used: 0,
        })
    }

    /// Executes a block.
    pub fn new_payload(&mut self, block: &Block) -> Result<PayloadStatus, EngineError> {
        let (header, hash) = (&block.header, block.header.hash());
        let sets = self.sets.as_ref().filter(|sets| sets.schedule().is_boundary(header.height));
        let next_validators = sets.map(|sets| sets.members(header.epoch.next().next()));
        let valid = |state_hash| PayloadStatus::Valid {
            state_hash,
            receipts_hash: header.payload_commitment,
            next_validators: next_validators.clone(),
        };
        if header.height <= self.head().height {
            // As the real one does: a block that contradicts what is final is the caller's mistake.
            return match self.durable.get(header.height.get() as usize) {
                Some((known, state_hash)) if *known == hash => Ok(valid(*state_hash)),
                _ => Err(EngineError::Illegal(format!("another block is final at height {}", header.height))),
            };
        }
        if block.payload.starts_with(POISON) {
            return Err(EngineError::Internal("cannot say whether this is valid".into()));
        }
        let path_is_known = self.descends(&header.parent_hash);
        let Some((_, state)) = self.state_of(&header.parent_hash).filter(|_| path_is_known) else {
            return Ok(PayloadStatus::Syncing);
        };
        let state_hash = execute(state, header.payload_commitment);
        self.overlays.insert(hash, (header.parent_hash, header.height, state_hash));
        self.stamps.insert(hash, header.timestamp_ms);
        Ok(valid(state_hash))
    }

    /// Whether a block is the durable head or executed on top of it.
    fn descends(&self, hash: &B256) -> bool {
        let (mut at, head) = (*hash, self.head().block_hash);
        while let Some((parent, ..)) = self.overlays.get(&at).filter(|_| at != head) {
            at = *parent;
        }
        at == head
    }

    /// Makes blocks durable.
    pub fn forkchoice(&mut self, choice: Forkchoice) -> Result<FinalizedState, EngineError> {
        let (height, _) =
            self.state_of(&choice.finalized).ok_or(EngineError::UnknownBlock(choice.finalized))?;
        if height < self.head().height {
            return Err(EngineError::Illegal(format!(
                "finalized {} goes back to {height}",
                self.head().height
            )));
        }
        let (mut at, mut path) = (choice.finalized, Vec::new());
        while at != self.head().block_hash {
            let Some((parent, _, state)) = self.overlays.get(&at).copied() else {
                return Err(EngineError::Illegal(format!("{at} does not descend from the finalized block")));
            };
            path.push((at, state));
            at = parent;
        }
        self.durable.extend(path.into_iter().rev());
        // Siblings of what became final go, with everything on top of them.
        let kept: Vec<B256> = self.overlays.keys().filter(|hash| self.descends(hash)).copied().collect();
        let head = self.head();
        self.overlays.retain(|hash, _| kept.contains(hash) && *hash != head.block_hash);
        Ok(head)
    }
}

fn execute(parent_state: B256, commitment: B256) -> B256 {
    tagged_hash("tandem simulated execution", &[parent_state.as_slice(), commitment.as_slice()])
}
