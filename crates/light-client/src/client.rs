//! The client: what is proven, and what proves more.

use crate::ancestors::Ancestors;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::fork::Fork;
use crate::refusal::Refusal;
use borsh::{BorshDeserialize, BorshSerialize};
use types::limits::HEADER_BYTES_MAX;
use types::{
    B256, CertificateError, CommitQc, Domain, Epoch, EpochSchedule, Header, Height, Validator, ValidatorSet,
};

/// A header that is said to be final, with what proves it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Update {
    /// The header.
    pub header: Header,
    /// Its commit certificate.
    pub commit: CommitQc,
    /// The validators of the header's epoch, where that is the one after the client's; not looked at otherwise.
    pub validators: Option<Vec<Validator>>,
}

/// A block that was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub block_hash: B256,
    /// Digest of the whole state after it; `None` for a genesis nobody executed here.
    pub state_hash: Option<B256>,
    /// Merkle root over its receipts.
    pub receipts_hash: Option<B256>,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp_ms: u64,
}

impl Proven {
    pub(crate) fn of(header: &Header) -> Self {
        Self {
            epoch: header.epoch,
            height: header.height,
            block_hash: header.hash(),
            state_hash: Some(header.state_hash),
            receipts_hash: Some(header.receipts_hash),
            timestamp_ms: header.timestamp_ms,
        }
    }
}

/// Follows one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LightClient {
    domain: Domain,
    schedule: EpochSchedule,
    checkpoint: Checkpoint,
    /// The set of the head's epoch.
    set: ValidatorSet,
    /// Id of the next epoch's set, once a final header named it.
    next_set_id: Option<B256>,
    head: Proven,
    /// What proved the head; `None` while it is the checkpoint itself.
    last: Option<(Header, CommitQc)>,
    /// Last epoch the trust reaches.
    trusted: Epoch,
    trust_period: u64,
}

impl LightClient {
    /// A client that trusts `checkpoint`, for as many epochs as its chain binds stake.
    pub fn new(checkpoint: Checkpoint) -> Result<Self, CheckpointError> {
        let set = checkpoint.set()?;
        Self::with_set(checkpoint, set)
    }

    /// The same with the checkpoint's set already built (a simulation's has stand-in keys).
    pub fn with_set(checkpoint: Checkpoint, set: ValidatorSet) -> Result<Self, CheckpointError> {
        checkpoint.check(&set)?;
        Ok(Self {
            domain: Domain {
                chain_id: checkpoint.chain_id,
                genesis_hash: checkpoint.genesis_hash,
                epoch: checkpoint.epoch.get(),
            },
            schedule: checkpoint.schedule(),
            set,
            next_set_id: checkpoint.next_validator_set_id,
            head: Proven {
                epoch: checkpoint.epoch,
                height: checkpoint.height,
                block_hash: checkpoint.block_hash,
                state_hash: checkpoint.state_hash,
                receipts_hash: None,
                timestamp_ms: checkpoint.timestamp_ms,
            },
            last: None,
            trusted: checkpoint.epoch,
            trust_period: checkpoint.unbonding_epochs,
            checkpoint,
        })
    }

    /// Trusts for another number of epochs; `u64::MAX` for ever.
    #[must_use]
    pub fn trusting_for(mut self, epochs: u64) -> Self {
        self.trust_period = epochs;
        self
    }

    /// The last proven block.
    pub fn head(&self) -> Proven {
        self.head
    }

    /// Its header, once there is one.
    pub fn header(&self) -> Option<&Header> {
        self.last.as_ref().map(|(header, _)| header)
    }

    /// The set of the head's epoch.
    pub fn set(&self) -> &ValidatorSet {
        &self.set
    }

    /// How heights fall into epochs.
    pub fn schedule(&self) -> EpochSchedule {
        self.schedule
    }

    /// Takes one header further. Every refusal leaves the client as it was.
    pub fn apply(&mut self, update: &Update) -> Result<Proven, Refusal> {
        let Update { header, commit, validators } = update;
        self.check_header(header)?;
        let entered = match self.set_of(header.epoch, validators.as_deref())? {
            SetOf::Current => None,
            SetOf::Next(set) => Some(*set),
        };
        let set = entered.as_ref().unwrap_or(&self.set);
        check_set_in_header(header, set)?;
        check_certificate(header, commit, set, &self.domain_of(header.epoch))?;
        // From here on quorum stake says so: what contradicts is the fault of a third of it.
        self.check_history(header, commit)?;
        if let (None, Some(expected)) = (&entered, self.next_set_id)
            && header.next_validator_set_id != expected
        {
            let (height, found) = (header.height, header.next_validator_set_id);
            return Err(Refusal::NextSetChanged { height, found, expected });
        }
        self.advance(header, commit, entered);
        Ok(self.head)
    }

    /// What a client that goes on later starts from.
    pub fn checkpoint(&self) -> Checkpoint {
        let Proven { epoch, height, block_hash, state_hash, timestamp_ms, .. } = self.head;
        Checkpoint {
            epoch,
            height,
            block_hash,
            state_hash,
            timestamp_ms,
            validator_set_id: self.set.id(),
            next_validator_set_id: self.next_set_id,
            validators: self.set.validators().to_vec(),
            ..self.checkpoint.clone()
        }
    }

    /// The way down from the head with its header from anywhere, also where the head is the checkpoint itself.
    pub fn ancestors_of_head(&self, header: &Header) -> Result<Ancestors, Refusal> {
        let Proven { height, block_hash: expected, .. } = self.head;
        let found = header.hash();
        if found != expected {
            return Err(Refusal::NotTheParent { height, expected, found, found_height: header.height });
        }
        Ok(Ancestors::below(header))
    }

    /// The way down from the head; `None` while the head is the checkpoint itself, whose parent nobody knows.
    pub fn ancestors(&self) -> Option<Ancestors> {
        self.header().map(Ancestors::below)
    }

    /// Whether the trust in where this client started still holds in the epoch the caller takes to be the present one
    /// (weak subjectivity). The chain itself cannot tell: validators that took their stake out can sign another history
    /// at no cost. [`LightClient::apply`] refuses by the same rule what is too far from where the client started.
    pub fn check_trust(&self, present: Epoch) -> Result<(), Refusal> {
        let last = Epoch::new(self.trusted.get().saturating_add(self.trust_period));
        if present > last {
            let (trusted, period) = (self.trusted, self.trust_period);
            return Err(Refusal::TrustExpired { trusted, period, last, found: present });
        }
        Ok(())
    }

    /// Trusts the head as it trusted the checkpoint: the caller knows that the head is recent, by its own clock.
    pub fn renew_trust(&mut self) {
        self.trusted = self.head.epoch;
    }

    /// Compares with what the caller knows of the present: a height that exists, and how old the head may be by its
    /// clock. The only way to notice a server that withholds.
    pub fn check_recent(&self, at_least: Height, now_ms: u64, age_ms_max: u64) -> Result<(), Refusal> {
        let Proven { height, timestamp_ms, .. } = self.head;
        if height < at_least {
            return Err(Refusal::Withheld { proven: height, expected: at_least });
        }
        let age_ms = now_ms.saturating_sub(timestamp_ms);
        if age_ms > age_ms_max {
            return Err(Refusal::TooOld { height, age_ms, age_ms_max });
        }
        Ok(())
    }

    fn domain_of(&self, epoch: Epoch) -> Domain {
        Domain { epoch: epoch.get(), ..self.domain }
    }

    /// What shows without a set.
    fn check_header(&self, header: &Header) -> Result<(), Refusal> {
        if header.chain_id != self.domain.chain_id {
            return Err(Refusal::WrongChain { found: header.chain_id, expected: self.domain.chain_id });
        }
        let bytes = borsh::object_length(header).unwrap_or(usize::MAX);
        if bytes > HEADER_BYTES_MAX {
            return Err(Refusal::HeaderTooLong { bytes, limit: HEADER_BYTES_MAX });
        }
        let expected = self.schedule.epoch_of(header.height);
        if header.epoch != expected || header.epoch_start_height != self.schedule.first(expected) {
            return Err(Refusal::WrongEpochOfHeight {
                height: header.height,
                found: header.epoch,
                start: header.epoch_start_height,
                expected,
            });
        }
        self.check_trust(header.epoch)?;
        if header.height < self.head.height || header.height == Height::ZERO {
            return Err(Refusal::Stale { found: header.height, proven: self.head.height });
        }
        Ok(())
    }

    fn set_of(&self, epoch: Epoch, given: Option<&[Validator]>) -> Result<SetOf, Refusal> {
        let current = self.set.epoch();
        if epoch == current {
            return Ok(SetOf::Current);
        }
        if epoch < current {
            return Err(Refusal::PastEpoch { found: epoch, current });
        }
        let Some(expected) = self.next_set_id.filter(|_| epoch == current.next()) else {
            let known = if self.next_set_id.is_some() { current.next() } else { current };
            return Err(Refusal::SkippedEpoch { found: epoch, known });
        };
        let members = given.ok_or(Refusal::SetMissing { epoch })?;
        let set = self.set.successor(epoch, members.to_vec());
        let set = set.map_err(|source| Refusal::BadSet { epoch, source })?;
        if set.id() != expected {
            return Err(Refusal::WrongSet { epoch, found: set.id(), expected });
        }
        Ok(SetOf::Next(Box::new(set)))
    }

    /// Whether a block that is final by its certificate can be in one chain with the head.
    fn check_history(&self, header: &Header, commit: &CommitQc) -> Result<(), Refusal> {
        let (hash, head) = (commit.vote.block_hash, &self.head);
        let contradicts = if header.height == head.height {
            hash != head.block_hash
        } else {
            header.height == head.height.next() && header.parent_hash != head.block_hash
        };
        if contradicts {
            return Err(match &self.last {
                Some((_, first)) => Refusal::Forked(Box::new(Fork {
                    first: first.clone(),
                    header: header.clone(),
                    second: commit.clone(),
                })),
                None => Refusal::AgainstCheckpoint {
                    height: header.height,
                    found: hash,
                    trusted_height: head.height,
                    trusted: head.block_hash,
                },
            });
        }
        if header.height == head.height {
            return Err(Refusal::Stale { found: header.height, proven: head.height });
        }
        Ok(())
    }

    fn advance(&mut self, header: &Header, commit: &CommitQc, entered: Option<ValidatorSet>) {
        if let Some(set) = entered {
            self.set = set;
        }
        self.next_set_id = Some(header.next_validator_set_id);
        self.head = Proven::of(header);
        self.last = Some((header.clone(), commit.clone()));
    }
}

enum SetOf {
    Current,
    Next(Box<ValidatorSet>),
}

fn check_set_in_header(header: &Header, set: &ValidatorSet) -> Result<(), Refusal> {
    if header.validator_set_id == set.id() {
        return Ok(());
    }
    let (height, found) = (header.height, header.validator_set_id);
    Err(Refusal::WrongSetInHeader { height, found, expected: set.id() })
}

fn check_certificate(
    header: &Header,
    commit: &CommitQc,
    set: &ValidatorSet,
    domain: &Domain,
) -> Result<(), Refusal> {
    let (hash, height, vote) = (header.hash(), header.height, &commit.vote);
    if (vote.block_hash, vote.height) != (hash, height) {
        let (voted, voted_height) = (vote.block_hash, vote.height);
        return Err(Refusal::OtherBlock { voted, voted_height, hash, height });
    }
    if vote.view < header.view {
        return Err(Refusal::ViewBeforeProposal { voted: vote.view, proposed: header.view });
    }
    commit.verify(set, domain).map_err(|source| match source {
        CertificateError::NoQuorum { stake, quorum } => Refusal::NoQuorum { height, stake, quorum },
        source => Refusal::Certificate { height, source },
    })
}
