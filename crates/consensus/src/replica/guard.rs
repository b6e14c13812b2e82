//! One key, one signer (C-7.7 to C-7.9): reasons to sign nothing, the start-up wait for a second instance, and the
//! watch for signatures of the own key that this node did not make.
//!
//! The gate itself is in [`crate::Safety`], which alone holds the key: this module only tells it when it is shut.

use super::{Now, Replica};
use crate::disk::Record;
use crate::ready::Event;
use crate::restraint::{Copied, Floor, Restraint, Silence};
use types::genesis::Timing;
use types::{CommitQc, Qc, Stake, Tc, View};

/// A wait that hears too few validators lasts at most this many times as long.
const DEAF_FACTOR: u64 = 4;

/// What is known of other instances of the own key.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Why signing stopped until an operator has looked.
    alarm: Option<String>,
    copied: Option<Copied>,
    wait: Option<Wait>,
    /// Views of a wait.
    wait_views: u64,
    /// Set for keys that several nodes share on purpose, in simulations.
    blind: bool,
    /// The last statement of the own key that somebody else made, for people.
    seen: Option<String>,
}

/// The start-up wait.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// Views that still have to be entered.
    views: u64,
    /// Views it began with.
    of: u64,
    begun_ms: u64,
    /// Time spent with links to quorum stake, up to `counted_ms`.
    heard_ms: u64,
    counted_ms: u64,
    /// Whether there were such links then.
    hearing: bool,
    /// That many views of a live chain take at least so long.
    least_ms: u64,
    /// And at most so long: nobody signs for longer only because nobody signs.
    most_ms: u64,
}

impl Wait {
    fn new(views: u64, timing: &Timing, now_ms: u64) -> Self {
        // The base timer of C-6.5 on an idle chain: a live chain enters a view in less.
        let view_ms = timing.empty_block_interval_ms + 3 * timing.delta_ms + 2 * timing.work_ms;
        Self {
            views,
            of: views,
            begun_ms: now_ms,
            heard_ms: 0,
            counted_ms: now_ms,
            hearing: false,
            least_ms: views.saturating_mul(timing.block_interval_ms),
            most_ms: views.saturating_mul(view_ms),
        }
    }

    fn pass(&mut self, now_ms: u64, hearing: bool) {
        if self.hearing {
            self.heard_ms = self.heard_ms.saturating_add(now_ms.saturating_sub(self.counted_ms));
        }
        (self.counted_ms, self.hearing) = (now_ms, hearing);
    }

    fn is_over(&self) -> bool {
        let elapsed_ms = self.counted_ms.saturating_sub(self.begun_ms);
        (self.views == 0 && elapsed_ms >= self.least_ms)
            || self.heard_ms >= self.most_ms
            || elapsed_ms >= self.most_ms.saturating_mul(DEAF_FACTOR)
    }

    /// When it ends at the latest as things are.
    fn deadline(&self) -> u64 {
        let deaf_ms = self.begun_ms.saturating_add(self.most_ms.saturating_mul(DEAF_FACTOR));
        let by_time = self.counted_ms.saturating_add(self.most_ms.saturating_sub(self.heard_ms));
        let by_views = self.begun_ms.saturating_add(self.least_ms);
        let heard = if self.hearing { by_time } else { u64::MAX };
        let viewed = if self.views == 0 { by_views } else { u64::MAX };
        deaf_ms.min(heard).min(viewed)
    }
}

/// How the start-up wait stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitStatus {
    /// Views still to be entered.
    pub views_left: u64,
    /// Views it began with.
    pub views: u64,
    /// Milliseconds after which it ends even if no view is entered, with the links of now.
    pub left_ms: u64,
}

impl Replica {
    /// Follows `views` views without signing before it takes part (C-7.9). To be called before the first input; 0 means
    /// no wait.
    #[must_use]
    pub fn with_doppelganger_wait(mut self, views: u64, now: Now) -> Self {
        if !self.settings.keys.is_empty() {
            self.guard.wait_views = views;
            self.begin_wait(now);
        }
        self.tell_signer();
        self
    }

    /// Does not look for signatures of the own key that others made. For simulations of a key that several nodes
    /// share, which are about what such a key can do to the others.
    #[must_use]
    pub fn without_own_key_watch(mut self) -> Self {
        self.guard.blind = true;
        self
    }

    // Getters.

    /// Why nothing is signed for now.
    pub fn silence(&self) -> Option<Silence> {
        if self.guard.alarm.is_some() {
            return Some(Silence::Alarm);
        }
        let copied = self.guard.copied.as_ref().map(|_| Silence::Copied);
        copied.or(self.guard.wait.map(|_| Silence::Waiting))
    }

    /// The start-up wait, while it lasts.
    pub fn waiting(&self, now: Now) -> Option<WaitStatus> {
        let wait = self.guard.wait?;
        let left_ms = wait.deadline().saturating_sub(now.mono_ms);
        Some(WaitStatus { views_left: wait.views, views: wait.of, left_ms })
    }

    pub(super) fn alarmed(&self) -> Option<&str> {
        self.guard.alarm.as_deref()
    }

    pub(super) fn copied(&self) -> Option<&Copied> {
        self.guard.copied.as_ref()
    }

    /// The last sight of the own key elsewhere.
    pub(super) fn seen_elsewhere(&self) -> Option<&str> {
        self.guard.seen.as_deref()
    }

    pub(super) fn guard_deadline(&self) -> Option<u64> {
        self.guard.wait.map(|wait| wait.deadline())
    }

    // Inputs.

    /// What the disk says, at start.
    pub(super) fn restrain(&mut self, restraint: Restraint) {
        // Only signing stays stopped: whether the node can follow the chain is judged anew.
        self.guard.alarm = restraint.alarm;
        // A node without a key has nothing to be silent about.
        self.guard.copied = restraint.copied.filter(|_| !self.settings.keys.is_empty());
        self.tell_signer();
    }

    /// Lets the wait pass and tells the signer; before anything of this step could be signed.
    pub(super) fn drive_guard(&mut self, now: Now) {
        if let Some(mut wait) = self.guard.wait.take() {
            wait.pass(now.mono_ms, self.hears_quorum());
            self.guard.wait = Some(wait).filter(|wait| !wait.is_over());
        }
        self.tell_signer();
    }

    /// Stops signing until an operator clears it, also after a restart. The first alarm stays: what follows from it is
    /// less telling.
    pub(super) fn alarm(&mut self, reason: String) {
        if self.guard.alarm.is_none() {
            self.ready.record(Record::Restraint(Box::new(Restraint::alarm(&reason))));
            self.event(Event::Alarm(reason.clone()));
            self.guard.alarm = Some(reason);
            self.tell_signer();
        }
    }

    pub(super) fn tell_signer(&mut self) {
        self.safety.silence_for(self.silence());
    }

    /// A view was entered: one more in which another instance would have been heard.
    pub(super) fn guard_view_entered(&mut self) {
        if let Some(wait) = &mut self.guard.wait {
            wait.views = wait.views.saturating_sub(1);
        }
    }

    /// Another process proved over a link that it holds the own key. During the start-up wait it begins anew: the
    /// older instance may be about to stop.
    pub(super) fn on_own_key_elsewhere(&mut self, now: Now) {
        self.guard.seen =
            Some("another node proved over the network that it holds this validator's key".into());
        if self.guard.wait.is_some() {
            self.begin_wait(now);
        }
    }

    fn begin_wait(&mut self, now: Now) {
        let views = self.guard.wait_views;
        self.guard.wait = (views > 0).then(|| Wait::new(views, &self.settings.timing, now.mono_ms));
    }

    /// An epoch begins with this block. Whatever the key signed before the copy was noticed belongs to epochs that began
    /// before; in one that began later it has signed nothing (C-7.7). Another instance that still runs is heard in a wait.
    pub(super) fn guard_epoch_began(&mut self, now: Now, root_ms: u64) {
        let drift_ms = self.settings.timing.clock_drift_ms_max;
        if self
            .guard
            .copied
            .as_ref()
            .is_some_and(|copied| root_ms > copied.noticed_ms.saturating_add(drift_ms))
        {
            self.guard.copied = None;
            self.begin_wait(now);
        }
        self.tell_signer();
    }

    fn hears_quorum(&self) -> bool {
        let heard = self.connected.iter().copied().chain(self.index());
        self.set.is_quorum(heard.fold(Stake::ZERO, |sum, index| sum.plus(self.set.stake(index))))
    }

    // The watch. All certificates are verified before they get here.

    /// Looks for the own prepare, and the own proposal below it, in a certificate.
    pub(super) fn watch_prepares(&mut self, qc: &Qc) {
        let Some(own) = self.index().filter(|_| !self.guard.blind) else { return };
        let (signed, link) = (self.safety.signed(), qc.vote);
        let epoch = self.epoch();
        if self.proposer(link.target_view) == own && link.target_view > signed.proposal {
            let floor = Floor { epoch, proposal: link.target_view, ..Floor::default() };
            self.sighted("proposal", link.target_view, floor);
        }
        let last = self.safety.state().last_prepare.as_ref().map(|vote| vote.statement);
        let other_link = last.is_some_and(|last| {
            last.target_view == link.target_view
                && last != link
                && last.target_view > self.safety.floor().target
        });
        if qc.signers.contains(own) && (link.target_view > signed.target || other_link) {
            let (source, target) = (link.source_view, link.target_view);
            let floor = Floor { epoch, source, target, lock: source, ..Floor::default() };
            self.sighted("prepare", target, floor);
        }
    }

    /// The same for commits.
    pub(super) fn watch_commits(&mut self, qc: &CommitQc) {
        let view = qc.vote.view;
        let Some(own) = self.index().filter(|_| !self.guard.blind) else { return };
        if qc.signers.contains(own) && view > self.safety.signed().commit {
            let floor = Floor { epoch: self.epoch(), commit: view, lock: view, ..Floor::default() };
            self.sighted("commit", view, floor);
        }
    }

    /// The same for timeouts.
    pub(super) fn watch_timeouts(&mut self, tc: &Tc) {
        let Some(own) = self.index().filter(|_| !self.guard.blind) else { return };
        let signed = tc.groups.iter().any(|group| group.signers.contains(own));
        if signed && tc.view > self.safety.signed().timeout {
            let floor = Floor { epoch: self.epoch(), timeout: tc.view, ..Floor::default() };
            self.sighted("timeout", tc.view, floor);
        }
    }

    /// The own key signed what this node did not. From now on nothing at or below is signed. In a copied directory that
    /// is what was to be expected; otherwise there is a second instance, or the sign-state is an older one.
    fn sighted(&mut self, what: &'static str, view: View, floor: Floor) {
        self.safety.raise_floor(&floor);
        let reported = format!("a {what} of view {view} in epoch {}", self.epoch());
        if let Some(key) = self.index().and_then(|own| self.set.get(own)).map(|own| own.public_key) {
            self.floors.entry(key).or_default().raise(&floor);
            self.ready.record(Record::Restraint(Box::new(Restraint::floor(key, floor))));
        }
        if self.guard.copied.is_none() {
            self.alarm(format!(
                "this validator's key signed {reported} that this node did not sign: another instance runs with the \
                 same key, or the data directory is older than what was signed"
            ));
        }
        self.guard.seen = Some(reported);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(views: u64) -> Wait {
        Wait::new(views, &Timing::default(), 1_000)
    }

    #[test]
    fn views_alone_end_the_wait_but_not_faster_than_a_chain_makes_them() {
        let mut wait = wait(8);
        wait.views = 0;
        wait.pass(1_000 + 8 * 250 - 1, true);
        assert!(!wait.is_over());
        assert_eq!(wait.deadline(), 1_000 + 8 * 250);
        wait.pass(1_000 + 8 * 250, true);
        assert!(wait.is_over());
    }

    #[test]
    fn time_ends_the_wait_and_counts_fully_only_while_quorum_stake_is_linked() {
        let most_ms = 8 * (1_000 + 300 + 600);
        let mut hearing = wait(8);
        hearing.pass(1_000, true);
        assert_eq!(hearing.deadline(), 1_000 + most_ms);
        hearing.pass(1_000 + most_ms, true);
        assert!(hearing.is_over());
        let mut deaf = wait(8);
        deaf.pass(1_000 + most_ms, false);
        assert!(!deaf.is_over());
        assert_eq!(deaf.deadline(), 1_000 + 4 * most_ms);
        deaf.pass(1_000 + 4 * most_ms, false);
        assert!(deaf.is_over());
    }

    #[test]
    fn an_unfinished_wait_never_has_a_deadline_in_the_past() {
        for (views, hearing) in [(1, true), (1, false), (8, true), (8, false), (u64::MAX, true)] {
            let mut wait = wait(views);
            let mut now_ms = 1_000;
            for step in 0..200u64 {
                wait.views = wait.views.saturating_sub(step % 2);
                wait.pass(now_ms, hearing ^ (step % 7 == 0));
                if wait.is_over() {
                    break;
                }
                assert!(wait.deadline() > now_ms, "{wait:?}");
                now_ms += 97;
            }
        }
    }
}
