//! Twins (Bano et al., "Twins: BFT systems made robust"): one identity runs twice, each instance honest by itself, and
//! all networks and leaders of a few views are gone through in order. Two honest instances of one key make most of what
//! Byzantine validators do: equivocation, amnesia, double votes.
//!
//! A [`Scenario`] fixes for each of the first views who leads it, who hears the proposal of whom, and who hears the
//! votes of whom: five nodes (A, B, C and the twins D and D'), split into groups. What goes across groups is lost, or
//! comes when the view is over. The network of a view heals after [`ROUND_MS`], or no view without a quorum in a group
//! would ever end; timeouts are repeated then, votes are not. After the last of these views everything heals, and the
//! chain must move.
//!
//! Scenarios that differ only in the names of A, B, C or in which twin is which are the same; one of each is run.

use crate::plan::Plan;
use crate::world::{Report, World};
use crate::{Coverage, byzantine::Behaviour};
use crypto::tagged_hash;
use std::collections::BTreeMap;
use types::{B256, ConsensusMessage, QuorumRule, Stake, Validator, ValidatorSet, View};

/// Nodes: A, B, C, D and its twin.
pub const NODES: usize = 5;
const IDENTITIES: usize = 4;
const TWIN_OF: usize = 3;
/// How long the network of a view lasts from the moment the first node enters it: longer than any timer of the first
/// views.
pub const ROUND_MS: u64 = 1_600;

/// Which group each node is in; groups are numbered by their first member.
pub type Split = [u8; NODES];

/// The conditions of one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Round {
    /// Who leads: 0 to 3; the twins lead together.
    pub leader: u8,
    /// Who hears whose proposal.
    pub proposals: Split,
    /// Who hears whose votes and certificates.
    pub votes: Split,
}

/// What becomes of messages across groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Across {
    /// They are lost.
    Lost,
    /// They arrive this many milliseconds after the view's network healed.
    Late(u64),
}

/// What is gone through: lost, and late by three delays within the timers of the next view.
pub const ACROSS: [Across; 4] = [Across::Lost, Across::Late(20), Across::Late(250), Across::Late(700)];

/// One scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The first views.
    pub rounds: Vec<Round>,
    /// What becomes of messages across groups.
    pub across: Across,
}

/// How many groups are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Views with conditions of their own.
    pub rounds: usize,
    /// Groups a network may fall into.
    pub groups: u8,
    /// Proposals and votes of a view may meet different networks.
    pub phases: bool,
}

/// The script of a world: which messages pass.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    scenario: Scenario,
    /// When the first node entered each view.
    entered_us: BTreeMap<View, u64>,
}

/// What the script says about a message.
pub(crate) enum Route {
    Open,
    Lost,
    Later(u64),
}

impl Script {
    /// Notes that a node entered a view. True for the first one that leaves the last view of the scenario.
    pub(crate) fn enter(&mut self, view: View, now_us: u64) -> bool {
        let over = View::new(self.scenario.rounds.len() as u64);
        let was_over = self.entered_us.last_key_value().is_some_and(|(last, _)| *last > over);
        self.entered_us.entry(view).or_insert(now_us);
        view > over && !was_over
    }

    /// What becomes of a message sent now.
    pub(crate) fn route(&self, now_us: u64, from: usize, to: usize, message: &ConsensusMessage) -> Route {
        let view = view_of(message);
        let round = view.get().checked_sub(1).and_then(|at| self.scenario.rounds.get(at as usize));
        let Some(round) = round else { return Route::Open };
        let heals_us = self.entered_us.get(&view).copied().unwrap_or(now_us) + ROUND_MS * 1000;
        let split = match message {
            ConsensusMessage::Proposal(..) => &round.proposals,
            _ => &round.votes,
        };
        match (split[from] == split[to] || now_us >= heals_us, self.scenario.across) {
            (true, _) => Route::Open,
            // Whoever gives a view up repeats it.
            (false, _) if matches!(message, ConsensusMessage::Timeout(..)) => Route::Lost,
            (false, Across::Lost) => Route::Lost,
            (false, Across::Late(after_ms)) => Route::Later(heals_us - now_us + after_ms * 1000),
        }
    }
}

fn view_of(message: &ConsensusMessage) -> View {
    match message {
        ConsensusMessage::Proposal(_, p) => p.signed.statement.view,
        ConsensusMessage::Prepare(_, vote) => vote.statement.target_view,
        ConsensusMessage::Commit(_, commit) => commit.signed.statement.view,
        ConsensusMessage::Timeout(_, timeout) => timeout.signed.statement.view,
        ConsensusMessage::Qc(qc) => qc.view(),
        ConsensusMessage::Tc(tc) => tc.view,
        ConsensusMessage::CommitQc(qc) => qc.vote.view,
        ConsensusMessage::Evidence(_, evidence) => {
            evidence.accusation().map_or(View::ZERO, |said| said.views.0.max(said.views.1))
        }
    }
}

/// All splits of the nodes into at most `groups` groups, each once.
pub fn splits(groups: u8) -> Vec<Split> {
    let mut all = vec![[0; NODES]];
    for node in 1..NODES {
        all = all
            .into_iter()
            .flat_map(|split| {
                let used = split[..node].iter().max().copied().unwrap_or(0) + 1;
                (0..(used + 1).min(groups)).map(move |group| {
                    let mut next = split;
                    next[node] = group;
                    next
                })
            })
            .collect();
    }
    all
}

/// Every renaming that changes nothing: of A, B and C, and of the twins.
fn renamings() -> Vec<[usize; NODES]> {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let twins = [[3, 4], [4, 3]];
    orders.iter().flat_map(|[a, b, c]| twins.map(|[d, e]| [*a, *b, *c, d, e])).collect()
}

fn renamed(round: &Round, names: &[usize; NODES]) -> Round {
    let rename = |split: &Split| {
        let mut moved: Split = [0; NODES];
        (0..NODES).for_each(|node| moved[names[node]] = split[node]);
        numbered(&moved)
    };
    let leader = if usize::from(round.leader) == TWIN_OF {
        round.leader
    } else {
        names[usize::from(round.leader)] as u8
    };
    Round { leader, proposals: rename(&round.proposals), votes: rename(&round.votes) }
}

/// The same groups, numbered by their first member.
fn numbered(split: &Split) -> Split {
    let (mut numbers, mut next) = ([u8::MAX; NODES], 0);
    split.map(|group| {
        let number = &mut numbers[usize::from(group)];
        if *number == u8::MAX {
            (*number, next) = (next, next + 1);
        }
        *number
    })
}

/// All scenarios within bounds, numbered.
#[derive(Debug)]
pub struct Space {
    bounds: Bounds,
    /// The conditions one view can have.
    choices: Vec<Round>,
    renamings: Vec<[usize; NODES]>,
    /// For each order of leaders, a seed whose draw gives it.
    seeds: BTreeMap<Vec<u8>, u64>,
}

impl Space {
    /// The space of some bounds.
    pub fn new(bounds: Bounds) -> Self {
        let splits = splits(bounds.groups);
        let mut choices = Vec::new();
        for leader in 0..IDENTITIES as u8 {
            for proposals in &splits {
                let votes: &[Split] = if bounds.phases { &splits } else { std::slice::from_ref(proposals) };
                choices.extend(votes.iter().map(|votes| Round {
                    leader,
                    proposals: *proposals,
                    votes: *votes,
                }));
            }
        }
        Self { bounds, choices, renamings: renamings(), seeds: leader_seeds(bounds.rounds) }
    }

    /// How many scenarios there are, renamed ones included.
    pub fn len(&self) -> u64 {
        (self.choices.len() as u64).pow(self.bounds.rounds as u32)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }

    /// A random scenario's number; the same for the same turn.
    pub fn sample(&self, turn: u64) -> u64 {
        let draw = tagged_hash("tandem twins sample", &[&turn.to_le_bytes()]);
        let number = draw.0[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        number % self.len()
    }

    /// The views of a scenario by number.
    pub fn rounds(&self, mut number: u64) -> Vec<Round> {
        let count = self.choices.len() as u64;
        let mut digits = || {
            let digit = number % count;
            number /= count;
            self.choices[digit as usize]
        };
        (0..self.bounds.rounds).map(|_| digits()).collect()
    }

    /// Whether these views are the one that is run of all their renamings.
    pub fn is_first(&self, rounds: &[Round]) -> bool {
        self.renamings
            .iter()
            .all(|names| rounds.iter().map(|round| renamed(round, names)).ge(rounds.iter().copied()))
    }

    /// The world of a scenario.
    fn world(&self, scenario: &Scenario) -> World {
        let leaders: Vec<u8> = scenario.rounds.iter().map(|round| round.leader).collect();
        let seed = self.seeds[&leaders];
        let mut plan = Plan::quiet(seed, &[1; IDENTITIES]);
        plan.byzantine = vec![(TWIN_OF, Behaviour::Twins)];
        // The world heals as soon as the last of these views is over; this is for those that never are.
        plan.faults_ms = 4 * ROUND_MS * scenario.rounds.len() as u64;
        plan.heights_after = 2;
        plan.recovery_ms = 20_000;
        let mut world = World::new(plan);
        world.script = Some(Script { scenario: scenario.clone(), entered_us: BTreeMap::new() });
        world
    }

    /// Runs a scenario; a violation is a message with the scenario in it.
    pub fn run(&self, scenario: &Scenario) -> Result<Report, String> {
        self.world(scenario).run().map_err(|what| format!("{what}\nin {}", describe(scenario)))
    }

    /// Runs a scenario with its event log.
    pub fn run_logged(&self, scenario: &Scenario) -> (Result<Report, String>, Vec<String>) {
        let mut world = self.world(scenario);
        world.keep_log();
        let result = world.run();
        (result, world.take_log())
    }
}

/// A seed for every order of leaders, by looking at what seeds draw.
fn leader_seeds(rounds: usize) -> BTreeMap<Vec<u8>, u64> {
    let set = identities();
    let (mut found, wanted) = (BTreeMap::new(), IDENTITIES.pow(rounds as u32));
    let mut seed = 0;
    while found.len() < wanted {
        let draw = crate::world::seed_of(seed);
        let leader = |view| set.proposer(&draw, View::new(view)).get() as u8;
        found.entry((1..=rounds as u64).map(leader).collect()).or_insert(seed);
        seed += 1;
    }
    found
}

fn identities() -> ValidatorSet {
    let validators = crate::world::validators(&[1; IDENTITIES]);
    let validators: Vec<Validator> =
        validators.into_iter().map(|v| Validator { stake: Stake::new(1), ..v }).collect();
    ValidatorSet::simulated(types::Epoch::ZERO, validators, QuorumRule::default()).expect("four members")
}

/// A scenario in a line, as its log and its failure name it.
pub fn describe(scenario: &Scenario) -> String {
    let names = ["A", "B", "C", "D", "D'"];
    let groups = |split: &Split| {
        let count = split.iter().max().copied().unwrap_or(0);
        let members = |group| (0..NODES).filter(move |node| split[*node] == group).map(|node| names[node]);
        (0..=count).map(|group| members(group).collect::<String>()).collect::<Vec<_>>().join("|")
    };
    let rounds: Vec<String> = (1..)
        .zip(&scenario.rounds)
        .map(|(view, round)| {
            let leader = names[usize::from(round.leader)];
            format!(
                "v{view} led by {leader}, proposals {}, votes {}",
                groups(&round.proposals),
                groups(&round.votes)
            )
        })
        .collect();
    format!("{}; across {:?}", rounds.join("; "), scenario.across)
}

/// What a set of scenarios came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Scenarios run.
    pub scenarios: u64,
    /// Of them, those in which the twins signed a slashable pair.
    pub guilty: u64,
    /// Slowest recovery in virtual milliseconds.
    pub slowest_ms: u64,
    /// What they exercised.
    pub coverage: Coverage,
    /// Hash over all runs.
    pub trace: B256,
}

impl Tally {
    /// Notes a run.
    pub fn add(&mut self, report: &Report) {
        self.scenarios += 1;
        self.guilty += u64::from(report.coverage.of("slashable pairs of liars") > 0);
        self.slowest_ms = self.slowest_ms.max(report.recovery_ms);
        self.coverage.merge(&report.coverage);
        self.trace = tagged_hash("tandem twins", &[self.trace.as_slice(), report.trace.as_slice()]);
    }
}
