//! Building ahead (C-6.9): the proposer of the next view has its payload built when the block of this view is executed
//! here, while the votes that certify it are on their way, and no earlier than it takes to be done when they are there.
//! The payload is used when that block then is the parent; otherwise it is dropped and the view builds as if nothing had
//! been asked.
//!
//! Nothing is signed or sent for it, so no rule of voting knows of it: what the block says was already decided when it
//! was asked for, and everybody checks that block like any other.
//!
//! # Invariants
//! - One payload ahead at a time, for the next view or the one just entered, and none is asked for while the answer to
//!   an earlier request is outstanding.
//! - Nothing is asked for before the pace allows the block itself.

use super::leader::{Order, Pacing};
use super::{Now, Replica};
use crate::ready::Request;
use std::collections::VecDeque;
use types::engine::{BuiltPayload, EngineError};
use types::{B256, View};

/// What became of payloads that were built ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuiltAhead {
    /// Proposed.
    pub used: u64,
    /// For nothing: the parent was not certified in time, the executor restarted, or the payload got too old.
    pub dropped: u64,
    /// Empty ones that were built again because a transaction came meanwhile.
    pub refilled: u64,
}

/// Views and builds that a rhythm is read from.
const BEATS_MAX: usize = 8;
/// A payload should be there this much before the certificate.
const MARGIN_MS: u64 = 2;

/// How long certificates and payloads took of late. What is asked for too early lacks the transactions that came since;
/// what is asked for too late is waited for.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    /// The prepare vote whose certificate is awaited: its view, whether for an own block, and when it was made.
    voted: Option<(View, bool, u64)>,
    /// From the own prepare vote to the certificate, for blocks of others and for own ones: these are seen a message
    /// delay earlier.
    waits_ms: [VecDeque<u64>; 2],
    /// From a request to its payload.
    builds_ms: VecDeque<u64>,
}

impl Rhythm {
    pub(super) fn voted(&mut self, now: Now, view: View, own: bool) {
        self.voted = Some((view, own, now.mono_ms));
    }

    pub(super) fn certified(&mut self, now: Now, view: View) {
        if let Some((_, own, at_ms)) = self.voted.take_if(|(voted, ..)| *voted == view) {
            beat(&mut self.waits_ms[usize::from(own)], now.mono_ms.saturating_sub(at_ms));
        }
    }

    pub(super) fn built(&mut self, now: Now, order: &Order) {
        beat(&mut self.builds_ms, now.mono_ms.saturating_sub(order.asked_ms));
    }

    /// When to ask for a payload that shall be there when the block voted on is certified: by the shortest wait and the
    /// longest build of late. At once, while little is known.
    fn ask_at_ms(&self, view: View) -> u64 {
        let Some((_, own, at_ms)) = self.voted.filter(|(voted, ..)| *voted == view) else { return 0 };
        let waits = &self.waits_ms[usize::from(own)];
        let (Some(wait), Some(build)) = (waits.iter().min(), self.builds_ms.iter().max()) else {
            return at_ms;
        };
        at_ms.saturating_add(wait.saturating_sub(build.saturating_add(MARGIN_MS)))
    }
}

fn beat(beats: &mut VecDeque<u64>, ms: u64) {
    beats.push_back(ms);
    if beats.len() > BEATS_MAX {
        beats.pop_front();
    }
}

/// A payload for a view that is not entered yet.
#[derive(Debug)]
pub(super) struct Prebuild {
    /// View it would be proposed in.
    view: View,
    /// Before, it would only get old.
    not_before_ms: u64,
    /// When a block on this parent may be proposed; the parent is the block of the view before.
    pacing: Pacing,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Not yet time, or nothing to include.
    Pacing,
    /// The executor builds.
    Building { order: Order, refill: bool },
    /// Built. Of an empty payload, the request that tells of transactions.
    Built { order: Order, payload: Box<BuiltPayload>, asked: Option<u64> },
    /// The executor gave none.
    Failed,
}

/// What the leader of a view finds when it wants to build.
pub(super) enum Prebuilt {
    /// To be proposed.
    Ready(Order, Box<BuiltPayload>),
    /// To be waited for.
    UnderWay(Order),
}

impl Replica {
    /// What became of the payloads that this node had built ahead, since it started.
    pub fn built_ahead(&self) -> BuiltAhead {
        self.built_ahead
    }

    pub(super) fn prebuild_deadline(&self) -> Option<u64> {
        let prebuild = self.prebuild.as_ref().filter(|prebuild| matches!(prebuild.stage, Stage::Pacing))?;
        let waits = prebuild.view > self.view() && self.may_prebuild(&prebuild.pacing.parent);
        waits.then(|| prebuild.pacing.due_ms().max(prebuild.not_before_ms))
    }

    /// Asks for a payload on the block of this view when the next view is this node's, and it is time.
    pub(super) fn drive_prebuild(&mut self, now: Now) {
        if self.prebuild.is_none()
            && let Some((view, parent)) = self.next_lead()
        {
            let pacing = self.pace(now, parent, false);
            let not_before_ms = self.rhythm.ask_at_ms(self.view());
            self.prebuild = Some(Prebuild { view, not_before_ms, pacing, stage: Stage::Pacing });
        }
        let Some(mut prebuild) = self.prebuild.take() else { return };
        if prebuild.view > self.view() && self.may_prebuild(&prebuild.pacing.parent) {
            self.drive_prebuild_stage(now, &mut prebuild);
        }
        self.prebuild = Some(prebuild);
    }

    fn drive_prebuild_stage(&mut self, now: Now, prebuild: &mut Prebuild) {
        match &mut prebuild.stage {
            Stage::Pacing if now.mono_ms < prebuild.pacing.due_ms() => {
                self.ask_for_transactions(now, &mut prebuild.pacing);
            }
            Stage::Pacing if now.mono_ms >= prebuild.not_before_ms => {
                prebuild.stage = self.order_ahead(now, prebuild.view, prebuild.pacing.parent, false);
            }
            // Idle chains stay idle and a first transaction gets its block at once, so whoever holds an empty payload
            // wants to hear of the first transaction.
            Stage::Built { payload, asked: asked @ None, .. } if payload.transactions == 0 => {
                let id = self.fresh_id();
                *asked = Some(id);
                let (parent_hash, wait_ms_max) = (prebuild.pacing.parent, self.prebuilt_age_ms_max());
                self.ready.request(Request::AwaitTransactions { id, parent_hash, wait_ms_max });
            }
            Stage::Pacing | Stage::Built { .. } | Stage::Building { .. } | Stage::Failed => {}
        }
    }

    /// The view after this one and the block that will be its parent if the votes for it meet: when that view is this
    /// node's, which has prepared the block and has not given the view up. Nothing is built on an epoch's last block.
    fn next_lead(&self) -> Option<(View, B256)> {
        let view = self.view();
        let prepared = self.safety.state().last_prepare.as_ref()?.statement;
        let hopeful = prepared.target_view == view
            && prepared.height < self.boundary()
            && self.safety.highest_timeout_view() < view;
        let next = view.next();
        (hopeful && self.may_prebuild(&prepared.block_hash) && self.index() == Some(self.proposer(next)))
            .then_some((next, prepared.block_hash))
    }

    fn may_prebuild(&self, parent: &B256) -> bool {
        self.halted.is_none()
            && self.silence().is_none()
            && self.building.is_none()
            && self.executor.up().is_some()
            && self.tree.parent_info(parent).is_some_and(|parent| parent.executed)
    }

    fn order_ahead(&mut self, now: Now, view: View, parent: B256, refill: bool) -> Stage {
        self.order(now, view, parent).map_or(Stage::Failed, |order| Stage::Building { order, refill })
    }

    /// A payload waits for its certificate about as long as messages take. One that waited longer lacks too much of what
    /// came since, and its stamp is old.
    fn prebuilt_age_ms_max(&self) -> u64 {
        2 * self.settings.timing.delta_ms
    }

    // What comes back.

    pub(super) fn on_prebuilt(&mut self, now: Now, id: u64, result: Result<BuiltPayload, EngineError>) {
        let Some(Prebuild { stage, .. }) = &mut self.prebuild else { return };
        let order = match std::mem::replace(stage, Stage::Failed) {
            Stage::Building { order, refill } if order.id == id => (order, refill),
            other => {
                *stage = other;
                return;
            }
        };
        match (order, result) {
            ((order, refill), Ok(payload)) => {
                self.rhythm.built(now, &order);
                // A payload built again is used as it is: what the pool called pending may not be includable after all.
                let asked = refill.then_some(id);
                *stage = Stage::Built { order, payload: Box::new(payload), asked };
            }
            (_, Err(error @ EngineError::UnknownBlock(_))) => {
                // It forgot a block it had executed, so it restarted.
                self.built_ahead.dropped += 1;
                self.engine_failed(now, &error);
            }
            (_, Err(_)) => self.built_ahead.dropped += 1,
        }
    }

    pub(super) fn on_pending_ahead(&mut self, now: Now, id: u64, pending: bool) {
        let Some(mut prebuild) = self.prebuild.take() else { return };
        match &prebuild.stage {
            Stage::Pacing if prebuild.pacing.asked == Some(id) => prebuild.pacing.pending |= pending,
            Stage::Built { asked, .. } if *asked == Some(id) && pending => {
                if self.may_prebuild(&prebuild.pacing.parent) {
                    self.built_ahead.refilled += 1;
                    prebuild.stage = self.order_ahead(now, prebuild.view, prebuild.pacing.parent, true);
                } else {
                    self.built_ahead.dropped += 1;
                    prebuild.stage = Stage::Failed;
                }
            }
            _ => {}
        }
        self.prebuild = Some(prebuild);
    }

    // The view is entered, or not.

    /// The pace on a parent that was already waited for, so that the executor is not asked again.
    pub(super) fn pace_ahead(&mut self, view: View, parent: B256) -> Option<Pacing> {
        let fits = |prebuild: &&Prebuild| prebuild.view == view && prebuild.pacing.parent == parent;
        self.prebuild.as_ref().filter(fits).map(|prebuild| prebuild.pacing.clone())
    }

    /// The payload for a view on a parent, when that is what was built. Whatever else was is of no use any more.
    pub(super) fn take_prebuilt(&mut self, now: Now, view: View, parent: B256) -> Option<Prebuilt> {
        let Prebuild { view: of, pacing, stage, .. } = self.prebuild.take()?;
        let fits = (of, pacing.parent) == (view, parent);
        match stage {
            Stage::Pacing | Stage::Failed => None,
            Stage::Building { order, .. } if fits => {
                self.built_ahead.used += 1;
                Some(Prebuilt::UnderWay(order))
            }
            Stage::Built { order, payload, .. } if fits && self.is_fresh(now, &order) => {
                self.built_ahead.used += 1;
                Some(Prebuilt::Ready(order, payload))
            }
            Stage::Building { .. } | Stage::Built { .. } => {
                self.built_ahead.dropped += 1;
                None
            }
        }
    }

    fn is_fresh(&self, now: Now, order: &Order) -> bool {
        let parent_ms = self.tree.parent_info(&order.parent).map_or(0, |parent| parent.timestamp_ms);
        // The clock may have been put back meanwhile.
        let stamped = order.timestamp_ms <= now.wall_ms.max(parent_ms);
        stamped && now.mono_ms.saturating_sub(order.asked_ms) <= self.prebuilt_age_ms_max()
    }

    /// Another view is entered: what was built for any other one is of no use.
    pub(super) fn keep_prebuilt_for(&mut self, view: View) {
        if self.prebuild.as_ref().is_some_and(|prebuild| prebuild.view != view) {
            self.drop_prebuilt();
        }
    }

    pub(super) fn drop_prebuilt(&mut self) {
        if let Some(Prebuild { stage: Stage::Building { .. } | Stage::Built { .. }, .. }) =
            self.prebuild.take()
        {
            self.built_ahead.dropped += 1;
        }
    }
}
