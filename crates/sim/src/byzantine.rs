//! Validators that break the rules, as named types. Each runs the real replica and key and then lies with what it
//! sends, so that it stays plausible; together they hold less than a third of stake.

use crypto::SecretKey;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use types::vote::Signed;
use types::{
    B256, Commit, CommitQc, CommitVote, ConsensusMessage, Domain, Epoch, Height, Justify, Prepare,
    PrepareVote, Proposal, ProposalVote, Qc, Signature, Timeout, TimeoutVote, ValidatorIndex, View,
};

/// How a validator misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Proposes one block to half of the others and another one to the rest, and votes for both.
    Equivocator,
    /// Keeps its votes back and releases them late.
    LateReleaser,
    /// Sends each vote to only some of the others.
    Withholder,
    /// Never proposes, never votes, only times out.
    Nuller,
    /// Forgets what it signed whenever it restarts.
    Amnesiac,
    /// Votes for every proposal and commits every certificate it sees, whatever it is locked on.
    WrongLock,
    /// Sends votes and certificates that do not verify or are far ahead.
    Spammer,
    /// Proposes blocks with a wrong state hash.
    InvalidPayloadLeader,
    /// Proposes blocks on which every executor fails without a verdict.
    PoisonLeader,
    /// Proposes late and to some only, with whatever it has heard meanwhile.
    LateProposer,
    /// Shows a certificate to one node at a time, and lends its votes to whoever gives a view up.
    Hoarder,
    /// Runs twice: two honest programs with one key and separate disks.
    Twins,
    /// Votes and proposes twice, and shows the second of each only when the epoch is over.
    LateDoubler,
}

/// All of them.
pub const BEHAVIOURS: [Behaviour; 13] = [
    Behaviour::Equivocator,
    Behaviour::LateReleaser,
    Behaviour::Withholder,
    Behaviour::Nuller,
    Behaviour::Amnesiac,
    Behaviour::WrongLock,
    Behaviour::Spammer,
    Behaviour::InvalidPayloadLeader,
    Behaviour::PoisonLeader,
    Behaviour::LateProposer,
    Behaviour::Hoarder,
    Behaviour::Twins,
    Behaviour::LateDoubler,
];

/// Second statements that are kept back, the latest ones.
const KEPT_BACK_MAX: usize = 6;
/// How long after an epoch's end they are on their way at most, in microseconds.
pub const RELEASE_US_MAX: u64 = 2_000_000;

/// A message to one node, after an extra delay in microseconds.
pub type Sent = (usize, ConsensusMessage, u64);

/// One Byzantine validator.
#[derive(Debug)]
pub struct Byzantine {
    /// What it does.
    pub behaviour: Behaviour,
    /// How often it did what no honest validator does.
    pub acts: u64,
    index: ValidatorIndex,
    key: SecretKey,
    domain: Domain,
    /// The second block of a view, by view.
    twins: BTreeMap<View, B256>,
    /// What it committed without being asked: once each, or several liars would provoke each other without end.
    committed: BTreeSet<(View, B256)>,
    /// What is released when the epoch is over.
    kept: VecDeque<ConsensusMessage>,
}

impl Byzantine {
    /// A liar with the key of a validator.
    pub fn new(behaviour: Behaviour, index: ValidatorIndex, key: SecretKey, domain: Domain) -> Self {
        let (twins, committed, kept) = Default::default();
        Self { behaviour, acts: 0, index, key, domain, twins, committed, kept }
    }

    /// A new epoch: views start again, under another domain and perhaps at another place. Returns what it kept back
    /// from the one that is over.
    pub fn enter_epoch(&mut self, epoch: Epoch, index: ValidatorIndex) -> Vec<ConsensusMessage> {
        self.domain.epoch = epoch.get();
        self.index = index;
        self.twins.clear();
        self.committed.clear();
        self.take_kept()
    }

    /// What it kept back, when its epoch is over.
    pub fn take_kept(&mut self) -> Vec<ConsensusMessage> {
        self.acts += self.kept.len() as u64;
        std::mem::take(&mut self.kept).into()
    }

    /// What it really sends when its replica sends `message` to `to`.
    pub fn twist(&mut self, to: &[usize], message: &ConsensusMessage, rng: &mut ChaCha8Rng) -> Vec<Sent> {
        let is_vote = matches!(message, ConsensusMessage::Prepare(..) | ConsensusMessage::Commit(..));
        let is_proposal = matches!(message, ConsensusMessage::Proposal(..));
        let straight = |rng: &mut ChaCha8Rng, keep: f64, delay: u64| -> Vec<Sent> {
            to.iter().filter(|_| rng.random_bool(keep)).map(|to| (*to, message.clone(), delay)).collect()
        };
        let sent = match self.behaviour {
            Behaviour::LateReleaser if is_vote => {
                let delay = rng.random_range(0..4_000_000);
                straight(rng, 1.0, delay)
            }
            Behaviour::Withholder if is_vote => straight(rng, 0.4, 0),
            Behaviour::Nuller if is_vote || is_proposal => Vec::new(),
            Behaviour::LateProposer if is_proposal => {
                let delay = rng.random_range(0..2_500_000);
                straight(rng, 0.6, delay)
            }
            // Votes and certificates stay with it; a proposal, and the certificate in it, goes to one node.
            Behaviour::Hoarder => match message {
                ConsensusMessage::Timeout(..) => straight(rng, 1.0, 0),
                ConsensusMessage::Proposal(..) => {
                    to.choose(rng).map(|to| (*to, message.clone(), 0)).into_iter().collect()
                }
                _ => straight(rng, 0.1, 0),
            },
            Behaviour::Equivocator => self.equivocate(to, message),
            Behaviour::LateDoubler => {
                self.keep_back(message, rng);
                straight(rng, 1.0, 0)
            }
            Behaviour::Spammer => {
                let mut sent = straight(rng, 1.0, 0);
                sent.extend(to.iter().map(|to| (*to, self.junk(message, rng), 0)));
                sent
            }
            _ => straight(rng, 1.0, 0),
        };
        self.acts += u64::from(self.misbehaved(to, message, &sent));
        sent
    }

    /// Whether what it sent in place of `message` is more than bad luck: what its trade is about. Amnesia and twins
    /// are counted by the world, which sees them.
    fn misbehaved(&self, to: &[usize], message: &ConsensusMessage, sent: &[Sent]) -> bool {
        let late = || sent.iter().any(|(_, _, delay)| *delay > 500_000);
        match (self.behaviour, message) {
            (Behaviour::LateReleaser | Behaviour::LateProposer, _) => late(),
            (Behaviour::Withholder | Behaviour::Nuller | Behaviour::Hoarder, _) => sent.len() < to.len(),
            (Behaviour::Equivocator, _) => sent.windows(2).any(|pair| pair[0].1 != pair[1].1),
            (Behaviour::Spammer, _) => sent.len() > to.len(),
            (Behaviour::InvalidPayloadLeader, ConsensusMessage::Proposal(_, proposal)) => {
                proposal.block.header.state_hash == crate::executor::WRONG_STATE
            }
            (Behaviour::PoisonLeader, ConsensusMessage::Proposal(_, proposal)) => {
                proposal.block.payload.starts_with(crate::executor::POISON)
            }
            _ => false,
        }
    }

    /// What it sends on receiving `message`.
    pub fn provoked(
        &mut self,
        others: &[usize],
        message: &ConsensusMessage,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Sent> {
        if self.behaviour != Behaviour::WrongLock {
            return Vec::new();
        }
        let answer = match message {
            ConsensusMessage::Proposal(epoch, proposal) => {
                let header = &proposal.block.header;
                let source = header.source();
                let link = PrepareVote {
                    source_view: source.view,
                    source_hash: source.block_hash,
                    target_view: header.view,
                    height: header.height,
                    block_hash: header.hash(),
                };
                ConsensusMessage::Prepare(*epoch, self.sign(link))
            }
            ConsensusMessage::Qc(qc) | ConsensusMessage::Commit(_, Commit { qc, .. })
                if self.committed.insert((qc.view(), qc.vote.block_hash)) =>
            {
                self.commit(qc)
            }
            _ => return Vec::new(),
        };
        self.acts += 1;
        others.iter().map(|to| (*to, answer.clone(), rng.random_range(0..3_000_000))).collect()
    }

    fn commit(&self, qc: &Qc) -> ConsensusMessage {
        let PrepareVote { target_view: view, height, block_hash, .. } = qc.vote;
        let signed = self.sign(CommitVote { view, height, block_hash });
        ConsensusMessage::Commit(qc.epoch, Commit { signed, qc: qc.clone() })
    }

    fn sign<S: types::vote::Statement>(&self, statement: S) -> Signed<S> {
        Signed::new(statement, self.index, &self.key, &self.domain)
    }

    /// Every second node gets the twin of a proposal and the vote for it.
    fn equivocate(&mut self, to: &[usize], message: &ConsensusMessage) -> Vec<Sent> {
        let twin = match message {
            ConsensusMessage::Proposal(epoch, proposal) => {
                let twin = self.twin_of(proposal);
                self.twins.insert(twin.signed.statement.view, twin.signed.statement.block_hash);
                ConsensusMessage::Proposal(*epoch, Box::new(twin))
            }
            ConsensusMessage::Prepare(epoch, vote) => match self.twins.get(&vote.statement.target_view) {
                Some(block_hash) => {
                    let twin: Prepare = self.sign(PrepareVote { block_hash: *block_hash, ..vote.statement });
                    ConsensusMessage::Prepare(*epoch, twin)
                }
                None => message.clone(),
            },
            _ => message.clone(),
        };
        let pick = |to: &usize| if to.is_multiple_of(2) { message.clone() } else { twin.clone() };
        to.iter().map(|to| (*to, pick(to), 0)).collect()
    }

    /// Signs a second vote or proposal beside the one that goes out.
    fn keep_back(&mut self, message: &ConsensusMessage, rng: &mut ChaCha8Rng) {
        let block_hash = B256::repeat_byte(rng.random());
        let second = match message {
            ConsensusMessage::Proposal(epoch, proposal) if proposal.again.is_none() => {
                ConsensusMessage::Proposal(*epoch, Box::new(self.twin_of(proposal)))
            }
            ConsensusMessage::Prepare(epoch, vote) => {
                ConsensusMessage::Prepare(*epoch, self.sign(PrepareVote { block_hash, ..vote.statement }))
            }
            ConsensusMessage::Commit(epoch, Commit { signed, qc }) => {
                let signed = self.sign(CommitVote { block_hash, ..signed.statement });
                ConsensusMessage::Commit(*epoch, Commit { signed, qc: qc.clone() })
            }
            _ => return,
        };
        self.kept.push_back(second);
        if self.kept.len() > KEPT_BACK_MAX {
            self.kept.pop_front();
        }
    }

    fn twin_of(&self, proposal: &Proposal) -> Proposal {
        let mut block = proposal.block.clone();
        block.header.timestamp_ms += 1;
        let (view, block_hash) = (block.header.view, block.header.hash());
        Proposal { signed: self.sign(ProposalVote { view, block_hash }), block, again: None }
    }

    /// Something a careless node would believe.
    fn junk(&self, message: &ConsensusMessage, rng: &mut ChaCha8Rng) -> ConsensusMessage {
        let epoch = message.epoch();
        let view = View::new(rng.random_range(1..40));
        let link = PrepareVote {
            source_view: View::ZERO,
            source_hash: B256::ZERO,
            target_view: view,
            height: Height::new(rng.random_range(1..40)),
            block_hash: B256::repeat_byte(rng.random()),
        };
        let forged = Signature(std::array::from_fn(|_| rng.random()));
        let signers = types::SignerSet::of(64, [self.index]);
        match (rng.random_range(0..8), message) {
            (0, _) => ConsensusMessage::Prepare(epoch, Signed { signature: forged, ..self.sign(link) }),
            (1, _) => ConsensusMessage::Prepare(epoch, self.sign(link)),
            (2, ConsensusMessage::Proposal(_, proposal)) => {
                let mut bad = (**proposal).clone();
                if let Justify::Prepare(qc) = &mut bad.block.header.justify {
                    qc.signature = forged;
                }
                let (view, block_hash) = (bad.block.header.view, bad.block.header.hash());
                bad.signed = self.sign(ProposalVote { view, block_hash });
                ConsensusMessage::Proposal(epoch, Box::new(bad))
            }
            (3, ConsensusMessage::Timeout(_, timeout)) => {
                let mut bad = timeout.clone();
                bad.signed.statement.last_prepared_view = View::ZERO;
                if rng.random() {
                    bad.signed = self.sign(bad.signed.statement);
                }
                ConsensusMessage::Timeout(epoch, bad)
            }
            (4, ConsensusMessage::Timeout(_, timeout)) => {
                let view = View::new(timeout.signed.statement.view.get() + rng.random_range(1..1_000));
                let signed = self.sign(TimeoutVote { view, ..timeout.signed.statement });
                ConsensusMessage::Timeout(epoch, Timeout { signed, high_qc: timeout.high_qc.clone() })
            }
            (5, ConsensusMessage::Tc(tc)) => {
                let mut bad = tc.clone();
                bad.view = View::new(bad.view.get() + rng.random_range(1..100));
                ConsensusMessage::Tc(bad)
            }
            (6, ConsensusMessage::Commit(_, commit)) => {
                let vote =
                    CommitVote { block_hash: B256::repeat_byte(rng.random()), ..commit.signed.statement };
                ConsensusMessage::CommitQc(CommitQc { epoch, vote, signers, signature: forged })
            }
            _ => ConsensusMessage::Qc(Qc { epoch, vote: link, signers, signature: forged }),
        }
    }
}
