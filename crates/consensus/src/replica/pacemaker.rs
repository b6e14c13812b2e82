//! Views and their timers (C-6).

use super::{Now, Replica, VIEWS_BEHIND_MAX};
use crate::evidence::Trust;
use crate::ready::{Event, Outbound, Request};
use types::genesis::Timing;
use types::{Commit, ConsensusMessage, Qc, Tc, Timeout, TimeoutReason, ValidatorIndex, View, Witness};

/// Timers of the current view.
#[derive(Debug)]
pub(super) struct Pacemaker {
    /// When the view was entered.
    pub(super) entered_ms: u64,
    /// When to give the view up.
    expires_ms: u64,
    /// When to send the own timeout again, once given up.
    repeat_ms: Option<u64>,
    /// Views given up since the last progress.
    failures: u32,
    repeat_interval_ms: u64,
    /// Whether the proposer of this view may wait for transactions; then the request that tells of them.
    idle: Option<Idle>,
}

/// A view whose proposer may have nothing to include yet.
#[derive(Debug)]
struct Idle {
    asked: Option<u64>,
}

impl Pacemaker {
    pub(super) fn new(timing: &Timing, now_ms: u64) -> Self {
        let repeat_interval_ms = (2 * timing.delta_ms).max(100);
        Self {
            entered_ms: now_ms,
            expires_ms: now_ms,
            repeat_ms: None,
            failures: 0,
            repeat_interval_ms,
            idle: None,
        }
    }

    pub(super) fn deadline(&self) -> u64 {
        self.repeat_ms.unwrap_or(self.expires_ms)
    }

    /// Views given up since the last progress.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The chain moved: back to the base timer (C-6.5).
    pub(super) fn on_progress(&mut self) {
        self.failures = 0;
    }

    fn start(&mut self, timing: &Timing, now_ms: u64, by_timeout: bool) {
        // C-6.5: after a timeout certificate entry skew, the leader's wait, proposal and votes, plus building and
        // validating; after a prepare certificate the leader may also pace itself while there is nothing to include.
        let base = if by_timeout {
            5 * timing.delta_ms + 2 * timing.work_ms
        } else {
            timing.empty_block_interval_ms + 3 * timing.delta_ms + 2 * timing.work_ms
        };
        self.entered_ms = now_ms;
        self.expires_ms = now_ms.saturating_add(self.backed_off(timing, base));
        self.repeat_ms = None;
        // Where empty blocks come as fast as others there is nothing to be told.
        let may_idle = !by_timeout && timing.empty_block_interval_ms > timing.block_interval_ms;
        self.idle = may_idle.then_some(Idle { asked: None });
    }

    /// There is something to include: the proposer has no reason to wait beyond the least block interval.
    fn expect_proposal(&mut self, timing: &Timing, now_ms: u64) {
        let from = now_ms.max(self.entered_ms.saturating_add(timing.block_interval_ms));
        let expires_ms =
            from.saturating_add(self.backed_off(timing, 3 * timing.delta_ms + 2 * timing.work_ms));
        self.expires_ms = self.expires_ms.min(expires_ms);
        self.idle = None;
    }

    fn backed_off(&self, timing: &Timing, base_ms: u64) -> u64 {
        let percent = (100 + 50 * u64::from(self.failures)).min(100 * u64::from(timing.backoff_max));
        base_ms.saturating_mul(percent) / 100
    }
}

impl Replica {
    pub(super) fn start_view_timers(&mut self, now: Now, by_timeout: bool) {
        self.pacemaker.start(&self.settings.timing, now.mono_ms, by_timeout);
        self.start_leading(now, by_timeout);
    }

    pub(super) fn enter_view(&mut self, now: Now, view: View, entered_by: Option<Tc>) {
        let by_timeout = entered_by.is_some();
        let missed = entered_by.as_ref().map(|tc| self.proposer(tc.view));
        if let Some(tc) = &entered_by {
            self.tell_leader(view, tc);
        }
        if by_timeout {
            self.pacemaker.failures = self.pacemaker.failures.saturating_add(1);
        }
        self.safety.enter(view, entered_by);
        self.guard_view_entered();
        let oldest = View::new(view.get().saturating_sub(VIEWS_BEHIND_MAX));
        self.prepares.prune(oldest);
        self.commits.prune(oldest);
        self.proposed = self.proposed.split_off(&oldest);
        self.again = self.again.split_off(&oldest);
        let anchors = self.anchors();
        self.tree.prune(oldest, anchors);
        self.keep_prebuilt_for(view);
        self.start_view_timers(now, by_timeout);
        self.event(Event::View { view, missed });
    }

    /// Whoever knows a higher certificate than the timeout certificate reports tells the view's proposer, which waits
    /// for exactly that (C-6.2). A lock raised by a prepare vote alone travels in no other message.
    fn tell_leader(&mut self, view: View, tc: &Tc) {
        let proposer = self.proposer(view);
        if let Some(qc) = self.safety.state().high_qc.clone().filter(|qc| qc.view() > tc.high_qc_view())
            && Some(proposer) != self.index()
        {
            self.ready.outbound(Outbound::Send(proposer, ConsensusMessage::Qc(qc)));
        }
    }

    pub(super) fn drive_pacemaker(&mut self, now: Now) {
        if self.index().is_none() {
            return;
        }
        self.watch_for_transactions(now);
        let view = self.view();
        let given_up = self.safety.highest_timeout_view() == view;
        let amplified = self.timeouts.amplified_view(&self.set).is_some_and(|others| others >= view);
        if !given_up && (now.mono_ms >= self.pacemaker.expires_ms || amplified) {
            self.give_up(now, TimeoutReason::Expired);
        } else if given_up && self.pacemaker.repeat_ms.is_none_or(|at| now.mono_ms >= at) {
            self.send_own_timeout(now);
        }
    }

    /// Asks the own executor to tell when there is something to include, so that a dead proposer of an idle chain is
    /// passed over as fast as one of a busy chain.
    fn watch_for_transactions(&mut self, now: Now) {
        let parent_hash = self.high().block_hash;
        let executed = self.tree.parent_info(&parent_hash).is_some_and(|parent| parent.executed);
        let proposed = self.proposed.contains_key(&self.view());
        if proposed || !executed || self.leader.is_some() || self.executor.up().is_none() {
            return;
        }
        let wait_ms_max = self.pacemaker.expires_ms.saturating_sub(now.mono_ms);
        if self.pacemaker.idle.as_ref().is_some_and(|idle| idle.asked.is_none()) {
            let id = self.fresh_id();
            self.pacemaker.idle = Some(Idle { asked: Some(id) });
            self.ready.request(Request::AwaitTransactions { id, parent_hash, wait_ms_max });
        }
    }

    pub(super) fn on_watched(&mut self, now: Now, id: u64, pending: bool) {
        let asked = self.pacemaker.idle.as_ref().is_some_and(|idle| idle.asked == Some(id));
        if asked && pending {
            self.pacemaker.expect_proposal(&self.settings.timing, now.mono_ms);
        }
    }

    /// Times the current view out, once (C-6.6).
    pub(super) fn give_up(&mut self, now: Now, reason: TimeoutReason) {
        let view = self.view();
        if self.safety.highest_timeout_view() >= view {
            return;
        }
        // While the executor is away, or after an alarm, the node has no say: no vote of any kind (fail closed).
        if self.halted.is_some() || self.executor.up().is_none() {
            self.pacemaker.expires_ms = now.mono_ms.saturating_add(self.pacemaker.repeat_interval_ms);
            return;
        }
        match self.safety.timeout(view, reason) {
            Ok(_) => {
                self.sign_state_changed = true;
                self.leader = None;
                self.send_own_timeout(now);
            }
            Err(_) => {
                self.pacemaker.expires_ms = now.mono_ms.saturating_add(self.pacemaker.repeat_interval_ms)
            }
        }
    }

    /// Sends the stored timeout (never a newly signed one) and counts it.
    fn send_own_timeout(&mut self, now: Now) {
        self.pacemaker.repeat_ms = Some(now.mono_ms.saturating_add(self.pacemaker.repeat_interval_ms));
        if let Some(timeout) = self.safety.state().last_timeout.clone() {
            self.broadcast(ConsensusMessage::Timeout(self.epoch(), timeout.clone()));
            self.count_timeout(now, timeout);
        }
    }

    pub(super) fn on_timeout(&mut self, now: Now, from: ValidatorIndex, mut timeout: Timeout) {
        let statement = timeout.signed.statement;
        let named = timeout.high_qc.as_ref().map_or(View::ZERO, Qc::view);
        let sane = statement.high_qc_view <= statement.view && statement.last_prepared_view <= statement.view;
        if timeout.signed.signer == from {
            self.observe(Witness::Timeout(timeout.signed.clone()), Trust::Claimed);
        }
        if timeout.signed.signer != from || named != statement.high_qc_view || !sane {
            return self.misbehaved(from, "sent a timeout that is malformed or not its own");
        }
        if let Some(qc) = &timeout.high_qc {
            match self.qcs.get(&qc.view()) {
                // Another certificate for the same link is as good, and verified.
                Some(known) if known.vote == qc.vote => timeout.high_qc = Some(known.clone()),
                _ => {
                    let (set, domain) = (self.set.clone(), self.domain);
                    if !self.verified.check(qc, |qc| qc.verify(&set, &domain).is_ok()) {
                        return self
                            .misbehaved(from, "sent a timeout with a certificate that does not verify");
                    }
                    self.observe(qc.into(), Trust::Verified);
                    self.learn_qc(now, qc.clone());
                }
            }
        }
        if statement.view < self.view() {
            return self.answer_old_timeout(now, from);
        }
        self.count_timeout(now, timeout);
    }

    fn count_timeout(&mut self, now: Now, timeout: Timeout) {
        let view = timeout.signed.statement.view;
        if !self.timeouts.add(timeout) || view < self.view() {
            return;
        }
        let mut liars = Vec::new();
        let (set, domain) = (self.set.clone(), self.domain);
        let tc = self.timeouts.certify(&set, &domain, view, &mut liars);
        liars
            .into_iter()
            .for_each(|liar| self.misbehaved(liar, "sent a timeout whose signature does not verify"));
        if let Some(tc) = tc {
            self.verified.note(&tc);
            self.observe((&tc).into(), Trust::Verified);
            self.learn_tc(now, tc);
        }
    }

    /// Helps a validator that is behind, but with at most one answer per view and half Δ: the answer may be far bigger
    /// than the question.
    fn answer_old_timeout(&mut self, now: Now, peer: ValidatorIndex) {
        if self.may_help(now, peer) {
            self.help_along(peer);
        }
    }

    pub(super) fn may_help(&mut self, now: Now, peer: ValidatorIndex) -> bool {
        let (view, pause_ms) = (self.view(), self.settings.timing.delta_ms / 2);
        let fresh = |(at_view, at_ms): &(View, u64)| *at_view == view && now.mono_ms < at_ms + pause_ms;
        let may = !self.helped.get(&peer).is_some_and(fresh);
        if may {
            self.helped.insert(peer, (view, now.mono_ms));
        }
        may
    }

    /// Tells a validator that is behind what passed its view (C-6.6).
    fn help_along(&mut self, peer: ValidatorIndex) {
        let state = self.safety.state();
        let certificates = [
            state.high_qc.clone().map(ConsensusMessage::Qc),
            state.entered_by.clone().map(ConsensusMessage::Tc),
            self.commit_head.clone().map(ConsensusMessage::CommitQc),
        ];
        certificates
            .into_iter()
            .flatten()
            .for_each(|message| self.ready.outbound(Outbound::Send(peer, message)));
    }

    /// A link came up: tell the peer where this node stands, so that nobody waits for what was sent before.
    pub(super) fn on_connected(&mut self, peer: ValidatorIndex) {
        if self.set.get(peer).is_none() || Some(peer) == self.index() {
            return;
        }
        self.connected.insert(peer);
        self.catchup.peer_connected();
        self.help_along(peer);
        self.retell_evidence(peer);
        let (epoch, view, state) = (self.epoch(), self.view(), self.safety.state().clone());
        let mut messages = Vec::new();
        if let Some(proposal) = self.own_proposal(view) {
            messages.push(ConsensusMessage::Proposal(epoch, Box::new(proposal)));
        }
        if let Some(vote) = state.last_prepare.filter(|vote| vote.statement.target_view.next() >= view) {
            messages.push(ConsensusMessage::Prepare(epoch, vote));
        }
        if let Some(signed) = state.last_commit
            && let Some(qc) = self.qcs.get(&signed.statement.view).cloned()
        {
            messages.push(ConsensusMessage::Commit(epoch, Commit { signed, qc }));
        }
        if let Some(timeout) = state.last_timeout.filter(|timeout| timeout.signed.statement.view >= view) {
            messages.push(ConsensusMessage::Timeout(epoch, timeout));
        }
        messages.into_iter().for_each(|message| self.ready.outbound(Outbound::Send(peer, message)));
    }
}
