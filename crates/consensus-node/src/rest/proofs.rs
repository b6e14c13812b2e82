//! What a light client follows the chain by (specs/light_client.md): final headers with their certificates and the
//! validators who signed them, of any epoch that is stored.

use super::chain::{height, set_of};
use super::{Answer, ApiError, App};
use crate::driver::Core;
use alloy_primitives::hex;
use axum::Json;
use axum::extract::{Path, State};
use consensus::Disk;
use serde_json::json;
use std::sync::Arc;
use types::{CommitQc, Header, Height, ValidatorSet, encode};

/// How far above a height the header that proves it is looked for. Only a view whose commit votes were lost leaves a
/// height without a certificate of its own, and the last height of an epoch always has one.
const SEARCH_MAX: u64 = 64;

/// A final header with its certificate, and the set that signed it.
struct Provable {
    header: Header,
    commit: CommitQc,
    set: Arc<ValidatorSet>,
}

/// The next final header, from a height on, that has a certificate of its own.
pub(super) async fn update(State(app): State<App>, Path(text): Path<String>) -> Answer {
    let wanted = height(&text)?;
    if wanted == Height::ZERO {
        return Err(ApiError::not_found("block 0 is the genesis file and needs no certificate"));
    }
    let Provable { header, commit, set } = app.ask(move |core| find(core, wanted)).await??;
    Ok(Json(json!({
        "height": wanted,
        "proven_by_height": header.height,
        "block_hash": commit.vote.block_hash,
        "header": hex::encode_prefixed(encode(&header)),
        "commit": hex::encode_prefixed(encode(&commit)),
        "epoch": set.epoch(),
        "validator_set_id": set.id(),
        "quorum": set.rule(),
        "validators": set.validators(),
    })))
}

fn find(core: &Core<'_>, wanted: Height) -> Result<Provable, ApiError> {
    let (finalized, _) = core.finalized;
    let found = match stored(core, wanted, finalized)? {
        Some(found) => Some(found),
        None => newest(core, wanted)?,
    };
    let (header, commit) = found.ok_or_else(|| {
        ApiError::not_found(format!(
            "no certificate of height {wanted} or soon above it is stored; the last final height is {finalized}"
        ))
    })?;
    let set = set_of(core, header.epoch)?;
    Ok(Provable { header, commit, set })
}

fn stored(
    core: &Core<'_>,
    wanted: Height,
    finalized: Height,
) -> Result<Option<(Header, CommitQc)>, ApiError> {
    let last = finalized.get().min(wanted.get().saturating_add(SEARCH_MAX));
    for height in wanted.get()..=last {
        let stored = core.journal.finalized(Height::new(height)).map_err(ApiError::disk)?;
        if let Some((block, commit)) = stored.and_then(|stored| Some((stored.block, stored.commit?))) {
            return Ok(Some((block.header, commit)));
        }
    }
    Ok(None)
}

/// The highest certificate known, where its block is here: it proves what became final a moment ago.
fn newest(core: &Core<'_>, wanted: Height) -> Result<Option<(Header, CommitQc)>, ApiError> {
    let Some(commit) = core.replica.commit_head().filter(|qc| qc.vote.height >= wanted) else {
        return Ok(None);
    };
    let hash = commit.vote.block_hash;
    let block = match core.replica.unfinalized(&hash) {
        Some(block) => Some(block.clone()),
        None => core.journal.block(&hash).map_err(ApiError::disk)?,
    };
    Ok(block.map(|block| (block.header.clone(), commit.clone())))
}
