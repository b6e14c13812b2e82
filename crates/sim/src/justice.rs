//! What becomes of those who sign what no honest validator signs (C-8.4): what an honest validator received is
//! detected at once, what was detected ends in a final block, nobody is named twice, and nobody honest ever.

use crate::byzantine::Behaviour;
use crate::world::World;
use consensus::audit::Statements;
use consensus::{Input, Replica, evidence};
use std::collections::{BTreeMap, BTreeSet};
use types::{Block, Claim, ConsensusMessage, Epoch, Evidence, Height, ValidatorIndex, View};

/// The book of one run.
#[derive(Debug, Default)]
pub struct Justice {
    /// Proven guilty to an honest validator.
    convicted: BTreeSet<evidence::Offender>,
    /// Named by evidence in a final block, and in which.
    named: BTreeMap<evidence::Offender, Height>,
    /// Final heights looked at.
    heights: BTreeSet<Height>,
    /// What each node received in its present life.
    received: BTreeMap<usize, Received>,
}

/// In the epoch a node is in and the one before.
#[derive(Debug, Default)]
struct Received {
    life: u64,
    now: Heard,
    before: Option<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    epoch: Epoch,
    /// The view the node is in, or left the epoch in.
    view: View,
    from: BTreeMap<ValidatorIndex, Statements<()>>,
}

impl Received {
    /// A node is where it is: what it heard in another life counts for nothing, what it heard in the epoch before that
    /// for one epoch more.
    fn enter(&mut self, life: u64, epoch: Epoch, view: View) {
        if self.life != life {
            *self = Self { life, now: Heard { epoch, ..Heard::default() }, before: None };
        }
        if self.now.epoch != epoch {
            let left = std::mem::replace(&mut self.now, Heard { epoch, ..Heard::default() });
            self.before = Some(left).filter(|left| left.epoch.next() == epoch);
        }
        self.now.view = view;
    }

    fn of(&mut self, epoch: Epoch) -> Option<&mut Heard> {
        std::iter::once(&mut self.now).chain(&mut self.before).find(|heard| heard.epoch == epoch)
    }
}

/// A vote as it arrives.
pub(crate) struct Arrival {
    epoch: Epoch,
    from: ValidatorIndex,
    claim: Claim,
}

/// The statement of its sender that an input holds.
pub(crate) fn arrival(input: &Input) -> Option<Arrival> {
    let Input::Message { from, message } = input else { return None };
    let claim = match message {
        ConsensusMessage::Proposal(_, p) => Claim::Proposal(p.signed.statement),
        ConsensusMessage::Prepare(_, vote) => Claim::Prepare(vote.statement),
        ConsensusMessage::Commit(_, commit) => Claim::Commit(commit.signed.statement),
        ConsensusMessage::Timeout(_, timeout) => Claim::Timeout(timeout.signed.statement),
        _ => return None,
    };
    Some(Arrival { epoch: message.epoch(), from: *from, claim })
}

impl Justice {
    /// Everybody who was proven guilty to an honest validator and whom no final block names yet, though a block of
    /// `epoch` still may.
    pub fn unpunished(&self, epoch: Epoch) -> Vec<evidence::Offender> {
        let due = |(of, _): &&evidence::Offender| *of >= crate::EVIDENCE_PERIOD.oldest(epoch);
        self.convicted.iter().filter(due).filter(|name| !self.named.contains_key(*name)).copied().collect()
    }
}

impl World {
    /// A node says it has proof of somebody's guilt.
    pub(crate) fn convict(&mut self, node: usize, evidence: &Evidence) -> Result<(), String> {
        let names = self.guilty(evidence)?;
        self.coverage.note("evidence found");
        // What a disk that loses data remembers, or what a node knows that nobody listens to, need not reach a block.
        if self.is_accountable(node)
            && self.sets.index(self.nodes[node].who, self.nodes[node].epoch).is_some()
        {
            self.justice.convicted.extend(names);
        }
        Ok(())
    }

    /// A block became final: its evidence is good, and each piece names somebody new.
    pub(crate) fn punish(&mut self, block: &Block) -> Result<(), String> {
        let height = block.header.height;
        if !self.justice.heights.insert(height) {
            return Ok(());
        }
        for item in &block.system_inputs.evidence {
            let evidence =
                Evidence::decode(item).map_err(|error| format!("BAD EVIDENCE at {height}: {error}"))?;
            let names = self.guilty(&evidence)?;
            if names.iter().all(|name| self.justice.named.contains_key(name)) {
                return Err(format!("TWICE: evidence at height {height} names {names:?} again"));
            }
            for name in names {
                self.justice.named.entry(name).or_insert(height);
            }
            self.coverage.note("evidence final");
        }
        Ok(())
    }

    /// The nodes that have a place in an epoch.
    fn who_is(&self, index: ValidatorIndex, epoch: Epoch) -> Vec<usize> {
        self.sets.who(index, epoch).map_or(Vec::new(), |who| self.places_of(who))
    }

    /// Whom evidence names, once it is checked.
    fn guilty(&self, evidence: &Evidence) -> Result<Vec<evidence::Offender>, String> {
        let epoch = evidence.epoch();
        let verdict = evidence.verify(&self.set_of(epoch), &self.domain());
        let offenders = verdict.map_err(|error| format!("BAD EVIDENCE: {error}"))?;
        let honest = |index: &&ValidatorIndex| {
            self.who_is(**index, epoch).iter().all(|node| self.is_accountable(*node))
        };
        match offenders.iter().find(honest) {
            Some(honest) => Err(format!("EVIDENCE against the honest validator {honest}: {evidence:?}")),
            None => Ok(offenders.into_iter().map(|index| (epoch, index)).collect()),
        }
    }

    /// Whoever sent two statements that contradict each other to one honest node, both of views close to the node's,
    /// is known there as guilty when the node has handled the second one, also when their epoch is over by then.
    pub(crate) fn demand_detection(
        &mut self,
        node: usize,
        arrival: Option<Arrival>,
        view_before: View,
        replica: &Replica,
    ) -> Result<(), String> {
        let (life, place) = (self.nodes[node].life, self.nodes[node].epoch);
        let received = self.justice.received.entry(node).or_default();
        received.enter(life, place, view_before);
        let Some(Arrival { epoch, from, claim }) = arrival else { return Ok(()) };
        // What comes early is handled later; what ends an epoch is looked at before that.
        let judged = received.of(epoch).is_some() && place == replica.epoch();
        if !judged || !self.is_accountable(node) {
            return Ok(());
        }
        let sender = self.who_is(from, epoch);
        // A spammer's signatures are bad now and then, and cost it the checks it gets.
        let spams = |place: &usize| {
            self.nodes[*place].byzantine.as_ref().is_some_and(|liar| liar.behaviour == Behaviour::Spammer)
        };
        if sender.iter().any(spams) || sender.contains(&node) {
            return Ok(());
        }
        let Some(heard) = self.justice.received.entry(node).or_default().of(epoch) else { return Ok(()) };
        let now = heard.view.get();
        let close = |view: View| {
            view.get().saturating_add(evidence::VIEWS_KEPT / 2) >= now
                && view.get() <= now.saturating_add(evidence::VIEWS_AHEAD)
        };
        let from_sender = heard.from.entry(from).or_default();
        let conflict = from_sender.conflict(&claim).filter(|(_, other)| close(other.view()));
        if close(claim.view()) {
            from_sender.insert(claim, ());
        }
        let Some((offence, other)) = conflict.filter(|_| close(claim.view())) else { return Ok(()) };
        if knows(replica, epoch, from) {
            let late = epoch < place;
            self.coverage.note(if late { "offences received late" } else { "offences received" });
            return Ok(());
        }
        Err(format!("UNDETECTED: node {node} received {other:?} and {claim:?} of {from} ({offence})"))
    }
}

fn knows(replica: &Replica, epoch: Epoch, guilty: ValidatorIndex) -> bool {
    let name = (epoch, guilty);
    let pending = || replica.evidence_pending().iter().flat_map(|pending| pending.names()).any(|n| n == name);
    replica.evidence_included().contains_key(&name) || pending()
}
