//! `/consensus/v1/*`: headers, certificates, decisions, validators.

use super::{Answer, ApiError, App, GenesisFacts, views};
use crate::driver::Core;
use axum::Json;
use axum::extract::{Path, Query, State};
use consensus::{DecisionStatus, Disk};
use serde::Deserialize;
use serde_json::{Value, json};
use std::str::FromStr;
use std::sync::Arc;
use types::{B256, Block, CommitQc, Epoch, EpochSchedule, Height, ValidatorSet, View};
use views::Standing;

/// Headers in one list.
const RECENT_MAX: usize = crate::feed::RECENT_MAX;

/// Views in one proposer schedule.
const SCHEDULE_MAX: u64 = 256;

/// How far above a height the certificate that proves it is looked for. Only a view whose commit votes were lost
/// leaves a height without its own.
const PROOF_SEARCH_MAX: u64 = 64;

/// Names a block: a height, `head`, `finalized`, `genesis` or a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockId {
    Height(Height),
    Hash(B256),
    Head,
    Finalized,
}

impl FromStr for BlockId {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let unreadable = || {
            ApiError::bad_request(
                "a block is named by height, head, finalized, genesis or a 0x-hash of 32 bytes",
            )
        };
        match text {
            "head" => Ok(Self::Head),
            "finalized" => Ok(Self::Finalized),
            "genesis" => Ok(Self::Height(Height::ZERO)),
            _ if text.starts_with("0x") => text.parse().map(Self::Hash).map_err(|_| unreadable()),
            _ => height(text).map(Self::Height).map_err(|_| unreadable()),
        }
    }
}

pub(super) fn height(text: &str) -> Result<Height, ApiError> {
    let refused = || ApiError::bad_request("a height is a decimal number below 2^64");
    // `parse` would also take a leading plus sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    text.parse().map(Height::new).map_err(|_| refused())
}

/// A block that was found.
enum Found {
    Genesis,
    Block { hash: B256, block: Arc<Block>, standing: Standing },
}

impl Found {
    fn view(&self, genesis: &GenesisFacts) -> Value {
        match self {
            Self::Genesis => views::genesis(genesis.hash, genesis.timestamp_ms, genesis.chain_id),
            Self::Block { hash, block, standing } => {
                views::header(*hash, &block.header, block.payload.len(), *standing)
            }
        }
    }
}

/// The highest certified block and the last final one.
pub(super) async fn head(State(app): State<App>) -> Answer {
    let genesis = app.0.genesis.clone();
    let (head, finalized, view) = app
        .ask(move |core| {
            let finalized = find(core, BlockId::Finalized, genesis.hash)?;
            let head = find(core, BlockId::Head, genesis.hash)?;
            let both = (head.map(|f| f.view(&genesis)), finalized.map(|f| f.view(&genesis)));
            Ok::<_, ApiError>((both.0, both.1, core.replica.view()))
        })
        .await??;
    Ok(Json(json!({ "view": view, "head": head, "finalized": finalized })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecentQuery {
    count: Option<usize>,
}

/// The last final blocks, newest first, in short.
pub(super) async fn recent(
    State(app): State<App>,
    query: Result<Query<RecentQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(RecentQuery { count }) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let blocks = app.0.feed.recent(count.unwrap_or(32).min(RECENT_MAX));
    let blocks: Vec<Value> = blocks.iter().map(|block| views::summary(block)).collect();
    Ok(Json(json!({ "headers": blocks })))
}

pub(super) async fn header(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let id: BlockId = id.parse()?;
    let genesis = app.0.genesis.clone();
    let found = app
        .ask(move |core| find(core, id, genesis.hash).map(|found| found.map(|found| found.view(&genesis))))
        .await??;
    found.map(Json).ok_or_else(|| ApiError::not_found("this node does not have that block"))
}

/// The certificate that makes a height final: its own, or that of the next height that has one.
pub(super) async fn commit(State(app): State<App>, Path(text): Path<String>) -> Answer {
    let wanted = height(&text)?;
    if wanted == Height::ZERO {
        return Err(ApiError::not_found("block 0 is the genesis file and needs no certificate"));
    }
    app.ask(move |core| proof(core, wanted)).await?.map(Json)
}

pub(super) async fn decision(State(app): State<App>, Path(text): Path<String>) -> Answer {
    let wanted = height(&text)?;
    let decision = app
        .ask(move |core| {
            let stored = core.journal.finalized(wanted).map_err(ApiError::disk)?;
            let hash = stored.as_ref().map(|stored| stored.block.header.hash());
            let certificate = stored.and_then(|stored| stored.commit);
            let set = match &certificate {
                Some(qc) => set_of(core, qc.epoch)?,
                None => core.replica.validators().clone(),
            };
            let mut decision = core.replica.decision(wanted, certificate.as_ref().map(|qc| (qc, &*set)));
            decision.block_hash = decision.block_hash.or(hash);
            // Final in memory only, on a disk that failed: not decided for anybody to rely on.
            if decision.status == DecisionStatus::Committed && wanted > core.finalized.0 {
                decision.status = DecisionStatus::Pending;
            }
            Ok::<_, ApiError>(decision)
        })
        .await??;
    let status = match decision.status {
        DecisionStatus::Pending => "Pending",
        DecisionStatus::Committed => "Committed",
        DecisionStatus::Rejected => "Rejected",
    };
    Ok(Json(json!({
        "height": wanted,
        "status": status,
        "required": decision.required,
        "approved": decision.approved,
        "rejected": decision.rejected,
        "block_hash": decision.block_hash,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EpochQuery {
    epoch: Option<u64>,
}

type EpochParameters = Result<Query<EpochQuery>, axum::extract::rejection::QueryRejection>;

pub(super) async fn validators(State(app): State<App>, query: EpochParameters) -> Answer {
    let Query(EpochQuery { epoch }) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let (set, here) = app
        .ask(move |core| {
            let status = core.replica.status(core.now);
            let current = core.replica.validators();
            let set = match epoch {
                Some(epoch) => set_of(core, Epoch::new(epoch))?,
                None => current.clone(),
            };
            let present = status.connected.into_iter().chain(status.index);
            let here: Vec<_> = present.filter_map(|index| current.get(index)).map(|v| v.public_key).collect();
            Ok::<_, ApiError>((set, here))
        })
        .await??;
    let members: Vec<Value> = set
        .indices()
        .filter_map(|index| set.get(index).map(|member| (index, member)))
        .map(|(index, member)| views::validator(index, member, Some(here.contains(&member.public_key))))
        .collect();
    Ok(Json(json!({
        "epoch": set.epoch(),
        "validator_set_id": set.id(),
        "total_stake": set.total(),
        "required_stake": set.quorum(),
        "quorum": set.rule(),
        "validators": members,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProposersQuery {
    epoch: Option<u64>,
    from: Option<u64>,
    count: Option<u64>,
}

/// Who proposes in which view: from the current one on, or from `from`.
pub(super) async fn proposers(
    State(app): State<App>,
    query: Result<Query<ProposersQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(ProposersQuery { epoch, from, count }) =
        query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let count = count.unwrap_or(32).min(SCHEDULE_MAX);
    let (current, set, schedule) = app
        .ask(move |core| {
            let current = core.replica.view();
            let first = from.unwrap_or(current.get()).max(1);
            let views = (first..first.saturating_add(count)).map(View::new);
            let schedule: Vec<_> = views.map(|view| (view, core.replica.proposer(view))).collect();
            (current, core.replica.validators().clone(), schedule)
        })
        .await?;
    check_epoch(Ok(Query(EpochQuery { epoch })), set.epoch())?;
    let proposers: Vec<Value> = schedule
        .into_iter()
        .map(|(view, index)| {
            json!({ "view": view, "index": index, "address": set.get(index).map(|member| member.address) })
        })
        .collect();
    Ok(Json(json!({ "epoch": set.epoch(), "current_view": current, "proposers": proposers })))
}

pub(super) async fn epoch(State(app): State<App>) -> Answer {
    let schedule = EpochSchedule::new(app.0.genesis.epoch_length);
    let answer = app
        .ask(move |core| {
            let set = core.replica.validators();
            let (height, _) = core.finalized;
            json!({
                "epoch": set.epoch(),
                "epoch_length": schedule.length(),
                "view": core.replica.view(),
                "height": height,
                "first_height": schedule.first(set.epoch()),
                "last_height": schedule.last(set.epoch()),
                "validator_set_id": set.id(),
                "next_validator_set_id": core.replica.next_validators().id(),
                "validators": set.len(),
                "total_stake": set.total(),
                "required_stake": set.quorum(),
            })
        })
        .await?;
    Ok(Json(answer))
}

fn check_epoch(query: EpochParameters, current: Epoch) -> Result<(), ApiError> {
    let Query(EpochQuery { epoch }) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    match epoch {
        Some(epoch) if epoch != current.get() => {
            Err(ApiError::not_found(format!("epoch {epoch} is not known here; the current one is {current}")))
        }
        _ => Ok(()),
    }
}

/// The set of any epoch whose blocks can be asked for, and of the next.
pub(super) fn set_of(core: &Core<'_>, epoch: Epoch) -> Result<Arc<ValidatorSet>, ApiError> {
    let found = core.replica.validators_of(epoch, core.journal).map_err(ApiError::disk)?;
    found.ok_or_else(|| {
        let current = core.replica.epoch();
        ApiError::not_found(format!("epoch {epoch} is not known here; the current one is {current}"))
    })
}

fn find(core: &Core<'_>, id: BlockId, genesis: B256) -> Result<Option<Found>, ApiError> {
    let (finalized, finalized_hash) = core.finalized;
    match id {
        BlockId::Finalized => by_height(core, finalized),
        BlockId::Head => match &core.replica.sign_state().high_qc {
            Some(qc) => by_hash(core, qc.vote.block_hash, genesis),
            None => by_hash(core, finalized_hash, genesis),
        },
        BlockId::Hash(hash) => by_hash(core, hash, genesis),
        BlockId::Height(height) if height <= finalized => by_height(core, height),
        BlockId::Height(height) => Ok(certified_at(core, height)),
    }
}

fn by_height(core: &Core<'_>, height: Height) -> Result<Option<Found>, ApiError> {
    if height == Height::ZERO {
        return Ok(Some(Found::Genesis));
    }
    let stored = core.journal.finalized(height).map_err(ApiError::disk)?;
    Ok(stored.map(|stored| Found::Block {
        hash: stored.block.header.hash(),
        block: Arc::new(stored.block),
        standing: Standing::Finalized,
    }))
}

fn by_hash(core: &Core<'_>, hash: B256, genesis: B256) -> Result<Option<Found>, ApiError> {
    if hash == genesis {
        return Ok(Some(Found::Genesis));
    }
    if let Some(block) = core.replica.unfinalized(&hash) {
        let certified = certified_path(core).any(|certified| certified.header.hash() == hash);
        let standing = if certified { Standing::Certified } else { Standing::Proposed };
        return Ok(Some(Found::Block { hash, block: block.clone(), standing }));
    }
    let Some(block) = core.journal.block(&hash).map_err(ApiError::disk)? else { return Ok(None) };
    let at_height = core.journal.finalized(block.header.height).map_err(ApiError::disk)?;
    let is_final = at_height.is_some_and(|stored| stored.block.header.hash() == hash);
    let standing = if is_final { Standing::Finalized } else { Standing::Proposed };
    Ok(Some(Found::Block { hash, block, standing }))
}

fn certified_at(core: &Core<'_>, height: Height) -> Option<Found> {
    certified_path(core).find(|block| block.header.height == height).map(|block| Found::Block {
        hash: block.header.hash(),
        block,
        standing: Standing::Certified,
    })
}

/// From the highest certified block down to the finalized one, as far as the blocks are here.
fn certified_path<'a>(core: &'a Core<'_>) -> impl Iterator<Item = Arc<Block>> + 'a {
    let top = core.replica.sign_state().high_qc.as_ref().map(|qc| qc.vote.block_hash);
    let first = top.and_then(|hash| core.replica.unfinalized(&hash).cloned());
    std::iter::successors(first, |block| core.replica.unfinalized(&block.header.parent_hash).cloned())
}

fn proof(core: &Core<'_>, wanted: Height) -> Proof {
    let (finalized, _) = core.finalized;
    let Some(own) = core.journal.finalized(wanted).map_err(ApiError::disk)? else {
        return Err(ApiError::not_found(format!(
            "height {wanted} is not final here; the last final one is {finalized}"
        )));
    };
    let answer = |qc: &CommitQc| {
        Ok(json!({
            "height": wanted,
            "block_hash": own.block.header.hash(),
            "proven_by_height": qc.vote.height,
            "certificate": views::commit(qc, &*set_of(core, qc.epoch)?),
        }))
    };
    if let Some(qc) = &own.commit {
        return answer(qc);
    }
    for height in wanted.get() + 1..=finalized.get().min(wanted.get().saturating_add(PROOF_SEARCH_MAX)) {
        let above = core.journal.finalized(Height::new(height)).map_err(ApiError::disk)?;
        if let Some(qc) = above.and_then(|stored| stored.commit) {
            return answer(&qc);
        }
    }
    match core.replica.commit_head() {
        Some(qc) if qc.vote.height >= wanted => answer(qc),
        _ => Err(ApiError::not_found(format!(
            "no certificate within {PROOF_SEARCH_MAX} heights of {wanted} is stored"
        ))),
    }
}

type Proof = Result<Value, ApiError>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_are_named_by_height_tag_or_hash_and_by_nothing_else() {
        let hash = B256::repeat_byte(7);
        for (text, expected) in [
            ("0", BlockId::Height(Height::ZERO)),
            ("18446744073709551615", BlockId::Height(Height::new(u64::MAX))),
            ("head", BlockId::Head),
            ("finalized", BlockId::Finalized),
            ("genesis", BlockId::Height(Height::ZERO)),
            (&hash.to_string(), BlockId::Hash(hash)),
        ] {
            assert_eq!(text.parse::<BlockId>().unwrap(), expected);
        }
        for text in
            ["", "-1", "+1", "1.0", "18446744073709551616", "latest", "0x", "0x12", "0xzz", " 1", "１"]
        {
            assert!(text.parse::<BlockId>().is_err(), "{text}");
        }
    }
}
