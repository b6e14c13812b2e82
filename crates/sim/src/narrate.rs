//! Events as one line each, for the log of a failing run and for the hash of a run.

use crate::world::What;
use consensus::{EngineReply, Request};
use std::fmt::Write;
use types::engine::PayloadStatus;
use types::{B256, ConsensusMessage, FetchRequest, Qc, Tc};

/// A message in a few words: kind, views, height and the beginning of the block's hash.
pub fn message(message: &ConsensusMessage) -> String {
    match message {
        ConsensusMessage::Proposal(epoch, p) => {
            let header = &p.block.header;
            let (view, hash) = (p.signed.statement.view, short(&p.signed.statement.block_hash));
            let again = if p.again.is_some() { " again" } else { "" };
            let skips = if header.timeout.is_some() { " with tc" } else { "" };
            let source = header.source();
            format!("proposal e{epoch} v{view}{again} h{} {hash} on v{}{skips}", header.height, source.view)
        }
        ConsensusMessage::Prepare(epoch, vote) => {
            let link = &vote.statement;
            let (from, to, hash) = (link.source_view, link.target_view, short(&link.block_hash));
            format!("prepare e{epoch} v{from}->v{to} h{} {hash} by {}", link.height, vote.signer)
        }
        ConsensusMessage::Commit(epoch, commit) => {
            let vote = &commit.signed.statement;
            let hash = short(&vote.block_hash);
            format!("commit e{epoch} v{} h{} {hash} by {}", vote.view, vote.height, commit.signed.signer)
        }
        ConsensusMessage::Timeout(epoch, timeout) => {
            let vote = &timeout.signed.statement;
            let (high, prepared) = (vote.high_qc_view, vote.last_prepared_view);
            let reason = match vote.reason {
                types::TimeoutReason::Expired => String::new(),
                types::TimeoutReason::Rejected { block_hash, code } => {
                    format!(" rejects {} ({code:?})", short(&block_hash))
                }
            };
            let by = timeout.signed.signer;
            format!("timeout e{epoch} v{} qc v{high} prepared v{prepared}{reason} by {by}", vote.view)
        }
        ConsensusMessage::Qc(qc) => format!("qc {}", prepare_certificate(qc)),
        ConsensusMessage::Tc(tc) => timeout_certificate(tc),
        ConsensusMessage::Evidence(epoch, evidence) => match evidence.accusation() {
            Ok(said) => {
                format!("evidence e{epoch} {} of {:?} in {:?}", said.offence, said.offenders, said.views)
            }
            Err(error) => format!("evidence e{epoch}: {error}"),
        },
        ConsensusMessage::CommitQc(qc) => {
            let vote = &qc.vote;
            format!("commit_qc e{} v{} h{} {}", qc.epoch, vote.view, vote.height, short(&vote.block_hash))
        }
    }
}

fn prepare_certificate(qc: &Qc) -> String {
    let (link, signers) = (&qc.vote, names(&qc.signers));
    let hash = short(&link.block_hash);
    format!("e{} v{}->v{} h{} {hash} of {signers}", qc.epoch, link.source_view, link.target_view, link.height)
}

fn timeout_certificate(tc: &Tc) -> String {
    let groups: Vec<String> = tc
        .groups
        .iter()
        .map(|group| {
            let (high, prepared) = (group.high_qc_view, group.last_prepared_view);
            format!("{} (qc v{high} prepared v{prepared})", names(&group.signers))
        })
        .collect();
    format!("tc e{} v{} of {}", tc.epoch, tc.view, groups.join(" "))
}

fn names(signers: &types::SignerSet) -> String {
    signers.iter().map(|index| index.to_string()).collect::<Vec<_>>().join("+")
}

/// The beginning of a hash.
pub fn short(hash: &B256) -> String {
    hash.0[..3].iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An event in one line.
pub(crate) fn event(what: &What) -> String {
    match what {
        What::Tick { node, .. } => format!("n{node} timer"),
        What::Deliver { from, to, letter } => format!("n{to} <- n{from} {}", letter.line),
        What::Reply { node, reply, .. } => format!("n{node} <- executor: {}", answer(reply)),
        What::Call { node, request, .. } => format!("n{node} -> executor: {}", call(request)),
        What::Finalize { node, choice, .. } => {
            format!("n{node} -> executor: finalize {}", short(&choice.finalized))
        }
        What::FetchAsked { from, to, request, .. } => format!("n{to} <- n{from} fetch {}", fetch(request)),
        What::Fetched { node, result, .. } => match result {
            Ok(answer) => {
                let blocks: Vec<String> =
                    answer.blocks.iter().map(|b| b.block.header.height.to_string()).collect();
                let head = answer.head.as_ref().map_or("none".into(), |qc| format!("h{}", qc.vote.height));
                format!("n{node} fetched heights [{}] head {head}", blocks.join(" "))
            }
            Err(error) => format!("n{node} fetched nothing: {error}"),
        },
        What::Fault(fault) => format!("FAULT {fault:?}"),
    }
}

fn fetch(request: &FetchRequest) -> String {
    match request {
        FetchRequest::ByHash(hash) => format!("block {}", short(hash)),
        FetchRequest::Finalized { from, count } => format!("{count} final blocks from h{from}"),
    }
}

fn call(request: &Request) -> String {
    match request {
        Request::AwaitTransactions { parent_hash, wait_ms_max, .. } => {
            format!("transactions on {} within {wait_ms_max} ms?", short(parent_hash))
        }
        Request::Build { request, .. } => {
            format!("build v{} h{} on {}", request.view, request.height, short(&request.parent_hash))
        }
        Request::NewPayload { block_hash, block } => {
            format!("judge v{} h{} {}", block.header.view, block.header.height, short(block_hash))
        }
        Request::FinalizedState => "where are you?".into(),
        Request::Fetch { peer, request, .. } => format!("fetch from {peer} {}", fetch(request)),
    }
}

fn answer(reply: &EngineReply) -> String {
    match reply {
        EngineReply::Up(head) => format!("up at h{} {}", head.height, short(&head.block_hash)),
        EngineReply::Down(reason) => format!("down, {reason}"),
        EngineReply::Pending { result, .. } => format!("transactions: {result:?}"),
        EngineReply::Built { result, .. } => match result {
            Ok(built) => format!("built {} state {}", short(&built.commitment), short(&built.state_hash)),
            Err(error) => format!("not built: {error}"),
        },
        EngineReply::Judged { block_hash, result } => {
            let verdict = match result {
                Ok(PayloadStatus::Valid { state_hash, .. }) => format!("valid, state {}", short(state_hash)),
                Ok(PayloadStatus::Invalid { code, reason }) => format!("invalid, {code:?}: {reason}"),
                Ok(PayloadStatus::Syncing) => "its parent is not known".into(),
                Err(error) => format!("no verdict: {error}"),
            };
            format!("{}: {verdict}", short(block_hash))
        }
        EngineReply::Finalized { block_hash, result } => match result {
            Ok(head) => format!("{} is durable, head h{}", short(block_hash), head.height),
            Err(error) => format!("{} is not durable: {error}", short(block_hash)),
        },
    }
}
