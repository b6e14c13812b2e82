//! A chain of headers over several epochs whose sets change, with the certificates that make them final.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]
use crypto::bls::aggregate;
use crypto::{Domain, SecretKey};
use light_client::{Checkpoint, LightClient, Update};
use std::sync::Arc;
use types::block::{Checkpoint as StateCheckpoint, SystemInputs};
use types::vote::Statement;
use types::{
    Address, B256, CommitQc, CommitVote, Epoch, EpochSchedule, Header, Height, Justify, QuorumRule,
    Signature, SignerSet, Stake, Validator, ValidatorIndex, ValidatorSet, View,
};

pub const CHAIN_ID: u64 = 31337;
pub const GENESIS: B256 = B256::repeat_byte(0x11);
pub const EPOCH_LENGTH: u64 = 4;
pub const STAKES: [u128; 4] = [40, 30, 20, 10];

/// Whose keys sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    Simulated,
    Real,
}

impl Keys {
    pub fn secret(self, number: u64) -> SecretKey {
        match self {
            Self::Simulated => SecretKey::simulated(number),
            Self::Real => SecretKey::from_seed(&[number as u8 + 1; 32]),
        }
    }

    pub fn set(self, epoch: Epoch, members: Vec<Validator>) -> ValidatorSet {
        match self {
            Self::Simulated => ValidatorSet::simulated(epoch, members, QuorumRule::default()).unwrap(),
            Self::Real => ValidatorSet::new(epoch, members, QuorumRule::default()).unwrap(),
        }
    }
}

/// Blocks 1 to the last, each final by its own certificate. Epoch e has the keys e to e + 3: every epoch one leaves and
/// one joins, and after four nobody of the first is left.
pub struct Chain {
    pub keys: Keys,
    pub blocks: Vec<(Header, CommitQc)>,
    pub sets: Vec<Arc<ValidatorSet>>,
}

pub fn domain(epoch: Epoch) -> Domain {
    Domain { chain_id: CHAIN_ID, genesis_hash: GENESIS, epoch: epoch.get() }
}

pub fn schedule() -> EpochSchedule {
    EpochSchedule::new(EPOCH_LENGTH)
}

pub fn members(keys: Keys, epoch: u64) -> Vec<Validator> {
    let member = |(i, stake): (usize, &u128)| Validator {
        address: Address::left_padding_from(&(epoch + i as u64 + 1).to_be_bytes()),
        public_key: keys.secret(epoch + i as u64).public_key(),
        stake: Stake::new(*stake),
    };
    STAKES.iter().enumerate().map(member).collect()
}

impl Chain {
    pub fn new(keys: Keys, epochs: u64) -> Self {
        let sets = (0..=epochs).map(|e| Arc::new(keys.set(Epoch::new(e), members(keys, e)))).collect();
        let mut chain = Self { keys, blocks: Vec::new(), sets };
        for height in 1..=epochs * EPOCH_LENGTH {
            let header = chain.next_header(Height::new(height), 7);
            let commit = chain.commit(&header, &[0, 1]);
            chain.blocks.push((header, commit));
        }
        chain
    }

    /// A header on the last block.
    pub fn next_header(&self, height: Height, salt: u8) -> Header {
        let parent = self.blocks.last();
        let epoch = schedule().epoch_of(height);
        let at = epoch.get() as usize;
        let justify = match parent {
            None => Justify::Genesis,
            Some((_, commit)) if height == schedule().first(epoch) => Justify::EpochBoundary(commit.clone()),
            // What the light client needs of it is nothing: the commit certificate says it all.
            Some(_) => Justify::Genesis,
        };
        Header {
            chain_id: CHAIN_ID,
            epoch,
            epoch_start_height: schedule().first(epoch),
            height,
            view: View::new(height.get() - schedule().first(epoch).get() + 1),
            parent_hash: parent.map_or(GENESIS, |(header, _)| header.hash()),
            timestamp_ms: 1_000 * height.get(),
            proposer: ValidatorIndex::ZERO,
            fee_recipient: Address::ZERO,
            validator_set_id: self.sets[at].id(),
            next_validator_set_id: self.sets[at + 1].id(),
            payload_commitment: B256::repeat_byte(salt),
            state_hash: B256::repeat_byte(height.get() as u8),
            receipts_hash: B256::ZERO,
            checkpoint: StateCheckpoint::default(),
            randao_reveal: Signature::ZERO,
            justify,
            timeout: None,
            last_commit: None,
            system_inputs_hash: SystemInputs::default().hash(),
        }
    }

    /// A certificate of these members of the header's epoch.
    pub fn commit(&self, header: &Header, signers: &[u64]) -> CommitQc {
        self.commit_as(header, header.epoch, signers)
    }

    /// The same by the set of any epoch, in the domain of the epoch given.
    pub fn commit_as(&self, header: &Header, epoch: Epoch, signers: &[u64]) -> CommitQc {
        let vote = CommitVote { view: header.view, height: header.height, block_hash: header.hash() };
        self.commit_vote(epoch, vote, signers)
    }

    pub fn commit_vote(&self, epoch: Epoch, vote: CommitVote, signers: &[u64]) -> CommitQc {
        let bytes = vote.signing_bytes(&domain(epoch));
        let sign = |i: &u64| self.keys.secret(epoch.get() + i).sign(&bytes);
        let signature = aggregate(&signers.iter().map(sign).collect::<Vec<_>>()).unwrap();
        let indices = signers.iter().map(|i| ValidatorIndex::new(*i as u32));
        CommitQc { epoch, vote, signers: SignerSet::of(STAKES.len(), indices), signature }
    }

    pub fn update(&self, height: u64) -> Update {
        let (header, commit) = self.blocks[height as usize - 1].clone();
        let validators = Some(self.sets[header.epoch.get() as usize].validators().to_vec());
        Update { header, commit, validators }
    }

    pub fn genesis(&self) -> Checkpoint {
        Checkpoint {
            chain_id: CHAIN_ID,
            genesis_hash: GENESIS,
            epoch_length: EPOCH_LENGTH,
            quorum: QuorumRule::default(),
            unbonding_epochs: 16,
            epoch: Epoch::ZERO,
            height: Height::ZERO,
            block_hash: GENESIS,
            state_hash: None,
            timestamp_ms: 0,
            validator_set_id: self.sets[0].id(),
            next_validator_set_id: None,
            validators: self.sets[0].validators().to_vec(),
        }
    }

    /// A client at genesis that trusts for ever.
    pub fn client(&self) -> LightClient {
        let client = LightClient::with_set(self.genesis(), (*self.sets[0]).clone()).unwrap();
        client.trusting_for(u64::MAX)
    }

    /// A client that has proven a height, by one header of each epoch before.
    pub fn client_at(&self, height: u64) -> LightClient {
        let mut client = self.client();
        (1..schedule().epoch_of(Height::new(height)).get() + 1).for_each(|epoch| {
            client.apply(&self.update(epoch * EPOCH_LENGTH)).unwrap();
        });
        if client.head().height < Height::new(height) {
            client.apply(&self.update(height)).unwrap();
        }
        client
    }
}
