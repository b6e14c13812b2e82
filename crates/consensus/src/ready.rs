//! What a [`crate::Replica`] wants done, in order: requests that need no durability, records to persist, and
//! messages that may leave only after them. The messages are sealed: the only way to get at them is to give the
//! records to a disk (C-7).

use crate::disk::{Disk, DiskError, Durable, Record};
use std::sync::Arc;
use types::engine::{Forkchoice, PayloadRequest};
use types::injected;
use types::{
    B256, Block, CommitQc, ConsensusMessage, Epoch, Evidence, FetchRequest, Height, ValidatorIndex,
    ValidatorSet, View,
};

/// Work that may start before anything is durable: it reveals no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Answer with [`crate::EngineReply::Pending`] as soon as a transaction can be included on top of `parent_hash`,
    /// or after the wait.
    AwaitTransactions {
        /// Comes back in the answer.
        id: u64,
        /// Block to build on.
        parent_hash: B256,
        /// Longest wait in milliseconds.
        wait_ms_max: u64,
    },
    /// Build a payload.
    Build {
        /// Comes back in the answer.
        id: u64,
        /// What to build.
        request: Box<PayloadRequest>,
    },
    /// Execute and judge a block.
    NewPayload {
        /// Its hash.
        block_hash: B256,
        /// The block.
        block: Arc<Block>,
    },
    /// Ask the executor for its durable head; answered by [`crate::EngineReply::Up`] or `Down`.
    FinalizedState,
    /// Ask a validator for blocks.
    Fetch {
        /// Comes back in the answer.
        id: u64,
        /// Whom to ask.
        peer: ValidatorIndex,
        /// What for.
        request: FetchRequest,
    },
}

/// What may happen only after the records are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Send to one validator.
    Send(ValidatorIndex, ConsensusMessage),
    /// Send to all other validators.
    Broadcast(ConsensusMessage),
    /// Make a block final in the executor (C-5.3).
    Finalize(Forkchoice),
    /// Tell the operator and the feeds.
    Event(Event),
}

/// Things worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A height became final: certified, executed and durable in the executor.
    Finalized {
        /// The block.
        block: Arc<Block>,
        /// Its hash.
        block_hash: B256,
        /// Its own commit certificate, if it has one.
        commit: Option<CommitQc>,
    },
    /// A view was entered.
    View {
        /// Which.
        view: View,
        /// The proposer that let the view before expire, when it did.
        missed: Option<ValidatorIndex>,
    },
    /// A validator broke the rules.
    Misbehaviour {
        /// Who.
        validator: ValidatorIndex,
        /// How.
        what: String,
    },
    /// Validators were proven to have signed what no honest validator signs. Once per offender and epoch.
    Evidence(Box<Evidence>),
    /// A final block holds evidence.
    EvidenceFinal {
        /// Its height.
        height: Height,
        /// The evidence.
        evidence: Box<Evidence>,
    },
    /// A proposed block was refused.
    Rejected {
        /// Its height.
        height: Height,
        /// Its hash.
        block_hash: B256,
        /// Why.
        reason: String,
    },
    /// An epoch was entered: indices mean this set from now on.
    Epoch {
        /// Which.
        epoch: Epoch,
        /// Who votes in it.
        validators: Arc<ValidatorSet>,
        /// Who votes in the one after.
        next: Arc<ValidatorSet>,
    },
    /// The executor named validators that make no set; the set before stays for one epoch more.
    SetRefused {
        /// Epoch they were for.
        epoch: Epoch,
        /// What is wrong with them.
        reason: String,
    },
    /// Something no honest minority can cause; signing has stopped.
    Alarm(String),
}

/// A batch of things to do.
#[derive(Debug, Default)]
#[must_use = "requests must be started and records persisted"]
pub struct Ready {
    requests: Vec<Request>,
    records: Vec<Record>,
    sealed: Vec<Outbound>,
}

impl Ready {
    pub(crate) fn request(&mut self, request: Request) {
        self.requests.push(request);
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.records.push(record);
    }

    pub(crate) fn outbound(&mut self, outbound: Outbound) {
        self.sealed.push(outbound);
    }

    /// Takes the requests out; start them before persisting, they run meanwhile.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// What will be persisted.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Adds what a later input led to, so that one write covers both. Messages of the earlier one then wait for the
    /// records of the later one too.
    pub fn append(&mut self, mut later: Self) {
        if later.records.iter().any(|record| matches!(record, Record::SignState(_))) {
            // Each is the whole state: the later one covers whatever the earlier one did.
            self.records.retain(|record| !matches!(record, Record::SignState(_)));
        }
        self.requests.append(&mut later.requests);
        self.records.append(&mut later.records);
        self.sealed.append(&mut later.sealed);
    }

    /// Makes the records durable and releases what waited for that.
    ///
    /// Blocks and the sign-state come first, certificates and finality marks after: a commit certificate may hold
    /// this node's own vote of the same batch, and must not be on disk while the sign-state that remembers the vote
    /// is not (found by the simulator: such a node would later deny a vote it can be shown to have cast).
    pub fn persist(self, disk: &mut impl Disk) -> Result<Vec<Outbound>, DiskError> {
        let is_vote =
            |r: &Record| matches!(r, Record::Block(_) | Record::SignState(_) | Record::Restraint(_));
        let (votes, proofs): (Vec<_>, Vec<_>) = self.records.into_iter().partition(is_vote);
        let batches = if injected!(OneBatch) {
            vec![proofs.into_iter().chain(votes).collect()]
        } else {
            vec![votes, proofs]
        };
        for batch in batches.into_iter().filter(|batch: &Vec<Record>| !batch.is_empty()) {
            match disk.persist(&batch) {
                Err(_) if injected!(SendBeforeFsync) => break,
                result => {
                    let Durable { .. } = result?;
                }
            }
        }
        Ok(self.sealed)
    }
}
