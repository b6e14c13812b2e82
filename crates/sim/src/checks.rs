//! One checker per property. A violation is a message; the world stops at the first.

use crate::executor::SimExecutor;
use consensus::{Audit, SignState};
use crypto::tagged_hash;
use std::collections::{BTreeMap, BTreeSet};
use types::{
    B256, CommitQc, ConsensusMessage, Header, Height, Justify, Qc, Validator, ValidatorIndex, View, encode,
};

/// One chain: a height has one final block, whoever says so (C-5.1).
#[derive(Debug, Default)]
pub struct OneChain {
    blocks: BTreeMap<Height, B256>,
}

impl OneChain {
    /// Notes that a node made `block_hash` final at `height`.
    pub fn finalized(&mut self, node: usize, height: Height, block_hash: B256) -> Result<(), String> {
        let known = *self.blocks.entry(height).or_insert(block_hash);
        if known == block_hash {
            return Ok(());
        }
        Err(format!("FORK at height {height}: node {node} finalized {block_hash}, another {known}"))
    }

    /// Highest final height anywhere.
    pub fn height(&self) -> Height {
        self.blocks.last_key_value().map_or(Height::ZERO, |(height, _)| *height)
    }
}

/// Honest validators never sign a slashable pair (C-8).
#[derive(Debug, Default)]
pub struct NothingSlashable {
    audit: Audit,
    /// Certificates taken in.
    certificates: BTreeSet<B256>,
}

impl NothingSlashable {
    /// Notes a message an honest validator sent.
    pub fn sent(&mut self, by: ValidatorIndex, message: &ConsensusMessage) -> Result<(), String> {
        match message {
            ConsensusMessage::Proposal(epoch, p) => self.audit.proposal(*epoch, by, p.signed.statement),
            ConsensusMessage::Prepare(epoch, v) => self.audit.prepare(*epoch, by, v.statement),
            ConsensusMessage::Commit(epoch, c) => self.audit.commit(*epoch, by, c.signed.statement),
            ConsensusMessage::Timeout(epoch, t) => self.audit.timeout(*epoch, by, t.signed.statement),
            ConsensusMessage::Qc(_)
            | ConsensusMessage::Tc(_)
            | ConsensusMessage::CommitQc(_)
            | ConsensusMessage::Evidence(..) => Ok(()),
        }
        .map_err(slashable)
    }

    /// Notes what the certificates in a message show of validators that are `accountable`: a vote that was never sent
    /// by itself may come out in a certificate. The message is an honest validator's, so they are verified.
    pub fn shown(
        &mut self,
        message: &ConsensusMessage,
        accountable: impl Fn(ValidatorIndex) -> bool,
    ) -> Result<(), String> {
        let (qc, commit) = match message {
            ConsensusMessage::Proposal(_, p) => {
                (prepare_of(&p.block.header), p.block.header.last_commit.as_ref())
            }
            ConsensusMessage::Commit(_, commit) => (Some(&commit.qc), None),
            ConsensusMessage::Timeout(_, timeout) => (timeout.high_qc.as_ref(), None),
            ConsensusMessage::Qc(qc) => (Some(qc), None),
            ConsensusMessage::CommitQc(qc) => (None, Some(qc)),
            ConsensusMessage::Prepare(..) | ConsensusMessage::Tc(_) | ConsensusMessage::Evidence(..) => {
                (None, None)
            }
        };
        if let Some(qc) =
            qc.filter(|qc| self.certificates.insert(tagged_hash("tandem seen qc", &[&encode(*qc)])))
        {
            let signers = qc.signers.iter().filter(|index| accountable(*index));
            signers
                .into_iter()
                .try_for_each(|by| self.audit.prepare(qc.epoch, by, qc.vote))
                .map_err(slashable)?;
        }
        if let Some(qc) =
            commit.filter(|qc| self.certificates.insert(tagged_hash("tandem seen commit", &[&encode(*qc)])))
        {
            let signers = qc.signers.iter().filter(|index| accountable(*index));
            signers
                .into_iter()
                .try_for_each(|by| self.audit.commit(qc.epoch, by, qc.vote))
                .map_err(slashable)?;
        }
        Ok(())
    }
}

fn prepare_of(header: &Header) -> Option<&Qc> {
    match &header.justify {
        Justify::Prepare(qc) => Some(qc),
        Justify::Genesis | Justify::EpochBoundary(_) => None,
    }
}

fn slashable(conflict: consensus::Conflict) -> String {
    format!("SLASHABLE: {conflict}")
}

/// Whether a message says what its sender signed itself: a vote or a proposal, and not what others have proven.
pub fn is_own_word(message: &ConsensusMessage) -> bool {
    !matches!(
        message,
        ConsensusMessage::Qc(_)
            | ConsensusMessage::Tc(_)
            | ConsensusMessage::CommitQc(_)
            | ConsensusMessage::Evidence(..)
    )
}

/// Whatever is sent is covered by the sign-state on disk (C-7).
pub fn durable_before_sent(
    durable: Option<&SignState>,
    by: ValidatorIndex,
    message: &ConsensusMessage,
) -> Result<(), String> {
    let Some(state) = durable else {
        let error = || format!("validator {by} sent a {} before any sign-state was durable", message.kind());
        return if is_own_word(message) { Err(error()) } else { Ok(()) };
    };
    if is_own_word(message) && state.epoch != message.epoch() {
        let (epoch, kind) = (message.epoch(), message.kind());
        return match state.epoch > epoch {
            true => Ok(()),
            false => {
                let durable = state.epoch;
                Err(format!(
                    "validator {by} sent a {kind} of epoch {epoch} that is not durable: its disk is in epoch {durable}"
                ))
            }
        };
    }
    let covered = match message {
        ConsensusMessage::Proposal(_, p) => state.last_proposal.is_some_and(|(view, hash)| {
            view > p.signed.statement.view
                || (view, hash) == (p.signed.statement.view, p.signed.statement.block_hash)
        }),
        ConsensusMessage::Prepare(_, v) => state
            .last_prepare
            .as_ref()
            .is_some_and(|last| last == v || last.statement.target_view > v.statement.target_view),
        ConsensusMessage::Commit(_, c) => {
            let lock = state.lock.as_ref().map_or(View::ZERO, |qc| qc.view());
            lock >= c.signed.statement.view
                && state
                    .last_commit
                    .as_ref()
                    .is_some_and(|last| last.statement.view >= c.signed.statement.view)
        }
        ConsensusMessage::Timeout(_, t) => state
            .last_timeout
            .as_ref()
            .is_some_and(|last| last == t || last.signed.statement.view > t.signed.statement.view),
        ConsensusMessage::Qc(_)
        | ConsensusMessage::Tc(_)
        | ConsensusMessage::CommitQc(_)
        | ConsensusMessage::Evidence(..) => true,
    };
    if covered {
        Ok(())
    } else {
        Err(format!("validator {by} sent a {} that is not durable: {message:?}", message.kind()))
    }
}

/// A final block's certificate holds two thirds of stake. Counted here anew, not with the arithmetic that made it.
pub fn certified_by_two_thirds(members: &[Validator], qc: &CommitQc) -> Result<(), String> {
    let stake_of = |index: usize| members.get(index).map_or(0, |member| member.stake.get());
    let signed: u128 = qc.signers.iter().map(|index| stake_of(index.get() as usize)).sum();
    let total: u128 = members.iter().map(|member| member.stake.get()).sum();
    if signed * 3 >= total * 2 {
        return Ok(());
    }
    Err(format!("TOO LITTLE: {signed} of {total} is not two thirds of stake, at height {}", qc.vote.height))
}

/// A height is final at a node only when its executor holds it durably (C-5.3).
pub fn executed_before_final(
    executor: &SimExecutor,
    node: usize,
    height: Height,
    hash: B256,
) -> Result<(), String> {
    match executor.durable_at(height) {
        Some(durable) if durable == hash => Ok(()),
        other => Err(format!("node {node} says {hash} is final at {height}, its executor holds {other:?}")),
    }
}

/// A commit certificate on disk never holds an own vote that the sign-state does not remember (C-7.3): the node would
/// go on as if it had not voted.
pub fn no_proof_without_the_vote(
    own: ValidatorIndex,
    qc: &CommitQc,
    found: Option<&SignState>,
) -> Result<(), String> {
    let remembered = found.is_some_and(|state| {
        let last = state.last_commit.as_ref().map_or(View::ZERO, |vote| vote.statement.view);
        state.epoch > qc.epoch || (state.epoch == qc.epoch && last >= qc.vote.view)
    });
    if remembered || !qc.signers.contains(own) {
        return Ok(());
    }
    Err(format!(
        "PROOF WITHOUT THE VOTE: a certificate of view {} holds a vote that is forgotten",
        qc.vote.view
    ))
}

/// A start finds a sign-state that restrains at least as much as the one that was called durable (C-7.5).
pub fn nothing_forgotten(claimed: Option<&SignState>, found: Option<&SignState>) -> Result<(), String> {
    let Some(claimed) = claimed else { return Ok(()) };
    let Some(found) = found else { return Err("FORGOTTEN: the whole sign-state".into()) };
    let restraints = |state: &SignState| {
        [
            state.view,
            state.last_proposal.map_or(View::ZERO, |(view, _)| view),
            state.last_prepare.as_ref().map_or(View::ZERO, |vote| vote.statement.target_view),
            state.last_commit.as_ref().map_or(View::ZERO, |vote| vote.statement.view),
            state.last_timeout.as_ref().map_or(View::ZERO, |timeout| timeout.signed.statement.view),
            state.lock.as_ref().map_or(View::ZERO, |qc| qc.view()),
            state.high_qc.as_ref().map_or(View::ZERO, |qc| qc.view()),
        ]
    };
    if found.epoch != claimed.epoch {
        let (found, claimed) = (found.epoch, claimed.epoch);
        return if found > claimed {
            Ok(())
        } else {
            Err(format!("FORGOTTEN: epoch {found} after {claimed}"))
        };
    }
    let less = restraints(found).iter().zip(restraints(claimed)).any(|(found, claimed)| *found < claimed);
    if found.epoch < claimed.epoch || (found.epoch == claimed.epoch && less) {
        return Err(format!("FORGOTTEN: {found:?} is less than {claimed:?}"));
    }
    Ok(())
}
