//! `/consensus/v1/evidence`: who was proven to have signed what no honest validator signs.

use super::{Answer, App};
use crate::driver::Core;
use alloy_primitives::hex;
use axum::Json;
use axum::extract::State;
use consensus::evidence::Pending;
use serde_json::{Value, json};
use types::{Epoch, ValidatorIndex};

/// Pieces shown with their bytes.
const SHOWN_MAX: usize = 64;
/// Offenders shown.
const NAMED_MAX: usize = 4096;

pub(super) async fn evidence(State(app): State<App>) -> Answer {
    let genesis = app.0.genesis.clone();
    let answer = app
        .ask(move |core| {
            let (pending, named) = (core.replica.evidence_pending(), core.replica.evidence_included());
            let shown: Vec<Value> =
                pending.iter().take(SHOWN_MAX).map(|pending| waiting(core, pending)).collect();
            let named: Vec<Value> = named
                .iter()
                .take(NAMED_MAX)
                .map(|((epoch, index), height)| {
                    json!({ "epoch": epoch, "validator": member(core, *epoch, *index), "height": height })
                })
                .collect();
            json!({
                "chain_id": genesis.chain_id,
                "genesis_hash": genesis.hash,
                "pending_count": pending.len(),
                "pending": shown,
                "included": named,
            })
        })
        .await?;
    Ok(Json(answer))
}

fn waiting(core: &Core<'_>, pending: &Pending) -> Value {
    let epoch = pending.evidence.epoch();
    let views = pending.evidence.accusation().map(|said| [said.views.0, said.views.1]).unwrap_or_default();
    let each = |index: &ValidatorIndex| member(core, epoch, *index);
    let ids = pending.offenders.iter().filter_map(|index| pending.evidence.id(*index).ok());
    json!({
        "epoch": epoch,
        "offence": pending.offence.name(),
        "views": views,
        "offenders": pending.offenders.iter().map(each).collect::<Vec<_>>(),
        "ids": ids.collect::<Vec<_>>(),
        "evidence": hex::encode_prefixed(&pending.bytes),
    })
}

/// The address is known while the epoch lasts; the index is what the evidence says.
fn member(core: &Core<'_>, epoch: Epoch, index: ValidatorIndex) -> Value {
    let set = core.replica.validators();
    let address = (set.epoch() == epoch).then(|| set.get(index).map(|validator| validator.address)).flatten();
    json!({ "index": index, "address": address })
}
