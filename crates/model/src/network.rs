//! A network of honest validators and one adversary.
//!
//! The state is the set of statements that honest validators have signed. Everything else follows from it: a certificate
//! can be shown to anybody as soon as the signatures exist (the adversary adds its own to all of them), nothing has to
//! be shown, and views are entered and certificates learnt just before the vote that needs them. specs/model.md says
//! why this leaves out no behaviour.

use crate::evidence::{Court, Shown, Statement};
use crate::log::Log;
use crate::signer::{Deed, Rule, Signer};
use crate::universe::{Link, ModelError, Point, ROOT, Shape, Universe};
use stateright::{Model, Property};
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// No two final blocks are in conflict.
pub const ONE_CHAIN: &str = "final blocks are on one chain";
/// No honest validator signs a slashable pair.
pub const NEVER_SLASHABLE: &str = "no honest validator is slashable";
/// Conflicting final blocks convict a third of stake, whichever signers their certificates show.
pub const PAID_FOR: &str = "every conflict convicts a third of stake and nobody honest";
/// The model can finalize in its last view.
pub const FINALITY: &str = "a block of the last view is final";
/// The model has the case that the guard and the lock are for.
pub const PASSED_OVER: &str = "a certified block is passed over";
/// The model has forks.
pub const FORK: &str = "the chain forks";

/// How timeouts are modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Timeouts {
    /// Honest validators sign timeouts; timeout certificates exist when the signatures do.
    Signed,
    /// Every timeout certificate exists from the start, reports nothing, and costs nobody a timeout. More than any network
    /// can do, and fewer states.
    Free,
}

/// What to model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Stakes of all validators.
    pub stakes: Vec<u128>,
    /// Indices of the Byzantine ones.
    pub byzantine: Vec<u32>,
    /// Views.
    pub views: u8,
    /// Different blocks per view and parent.
    pub variants: u8,
    /// Height of the epoch's last block, if within reach (C-8.3).
    pub last_height: Option<u8>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Rules to take away.
    pub without: Vec<Rule>,
}

/// What the honest validators have signed, in canonical order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State(pub Vec<Log>);

/// An honest validator signs something. Validators of equal stake change places when states are brought into canonical
/// order, so `by` says where the signer stands in the state before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Position in the state.
    pub by: usize,
    /// What it signs.
    pub deed: Deed,
}

/// The model.
#[derive(Debug)]
pub struct Network {
    settings: Settings,
    signer: Signer,
    court: Court,
    /// Honest validators in ascending order of stake.
    honest: Vec<u32>,
    byzantine: Vec<u32>,
    byzantine_stake: u128,
    /// Reorderings of `honest` that keep the stakes.
    orders: Vec<Vec<usize>>,
    judged: RwLock<HashMap<Vec<Shown>, bool>>,
}

impl Network {
    /// The model of these settings.
    pub fn new(settings: Settings) -> Result<Self, ModelError> {
        let shape = Shape::Tree { variants: settings.variants, last_height: settings.last_height };
        let universe = Universe::new(&settings.stakes, settings.views, shape)?;
        let validators = settings.stakes.len();
        let outside = settings.byzantine.iter().find(|index| **index as usize >= validators);
        if let Some(index) = outside {
            return Err(ModelError::NoSuchValidator { index: *index, validators });
        }
        let stake = |index: &u32| settings.stakes[*index as usize];
        let (byzantine, mut honest): (Vec<u32>, Vec<u32>) =
            (0..validators as u32).partition(|index| settings.byzantine.contains(index));
        honest.sort_by_key(stake);
        let byzantine_stake = byzantine.iter().map(stake).sum();
        let quorum = universe.set().quorum().get();
        if byzantine_stake >= quorum {
            return Err(ModelError::ByzantineQuorum { byzantine: byzantine_stake, quorum });
        }
        let stakes: Vec<u128> = honest.iter().map(stake).collect();
        Ok(Self {
            orders: orders_keeping(&stakes),
            court: Court::new(&settings.stakes, universe.set().quorum().get()),
            signer: Signer::new(universe, &settings.without),
            settings,
            honest,
            byzantine,
            byzantine_stake,
            judged: RwLock::default(),
        })
    }

    /// Whether faulty stake is below a third, so that the rules promise one chain.
    pub fn within_assumption(&self) -> bool {
        self.byzantine_stake * 3 < self.signer.universe().set().total().get()
    }

    /// Distinct questions the real rules have answered.
    pub fn answers(&self) -> usize {
        self.signer.answers()
    }

    fn universe(&self) -> &Universe {
        self.signer.universe()
    }

    // Certificates that can be shown.

    fn stake_of(&self, state: &State, signed: impl Fn(&Log) -> bool) -> u128 {
        let signers = state.0.iter().zip(&self.honest).filter(|(log, _)| signed(log));
        signers.map(|(_, index)| self.settings.stakes[*index as usize]).sum()
    }

    /// Whether the adversary can complete a certificate that this honest stake has signed.
    fn completes(&self, honest_stake: u128) -> bool {
        let total = types::Stake::new(honest_stake + self.byzantine_stake);
        self.universe().set().is_quorum(total)
    }

    fn blocks_with(&self, state: &State, signed: impl Fn(&Log, u8) -> Option<Point>) -> Vec<Point> {
        let mut blocks = Vec::new();
        for view in 1..=self.settings.views {
            let mut named: Vec<Point> = state.0.iter().filter_map(|log| signed(log, view)).collect();
            named.sort_unstable();
            named.dedup();
            named.retain(|block| {
                self.completes(self.stake_of(state, |log| signed(log, view) == Some(*block)))
            });
            blocks.extend(named);
        }
        blocks
    }

    /// Blocks with a prepare certificate, ascending by view.
    fn certified(&self, state: &State) -> Vec<Point> {
        self.blocks_with(state, |log, view| log.prepared(view).map(|link| link.block))
    }

    /// Blocks with a commit certificate.
    fn finalized(&self, state: &State) -> Vec<Point> {
        self.blocks_with(state, Log::committed)
    }

    /// The lowest report that a timeout certificate of `view` can make. Higher ones forbid more (C-4.1, 4) and teach
    /// their readers more.
    fn least_report(&self, state: &State, view: u8) -> Option<Point> {
        if self.settings.timeouts == Timeouts::Free {
            return Some(ROOT);
        }
        if view == 0 {
            return None;
        }
        let mut reports: Vec<(Point, u128)> = state
            .0
            .iter()
            .zip(&self.honest)
            .filter_map(|(log, index)| Some((log.gave_up(view)?, self.settings.stakes[*index as usize])))
            .collect();
        reports.sort_unstable();
        let mut stake = 0;
        reports.into_iter().find_map(|(report, more)| {
            stake += more;
            self.completes(stake).then_some(report)
        })
    }

    // What honest validators may do.

    fn prepares(&self, state: &State, certified: &[Point], deeds: &mut Vec<Deed>) {
        let used = |block: Point| {
            state.0.iter().any(|log| log.prepared(block.view).is_some_and(|link| link.block == block))
        };
        for view in 1..=self.settings.views {
            let report = self.least_report(state, view - 1);
            let sources = std::iter::once(&ROOT).chain(certified).filter(|source| source.view < view);
            for source in sources {
                let skips = source.view + 1 < view;
                let skipped = report.filter(|_| skips);
                if skips && skipped.is_none() {
                    continue;
                }
                let blocks = self.universe().children(*source, view);
                // Blocks of one parent differ in name alone: a second one is named when a first one is.
                let fresh = blocks.iter().position(|block| !used(*block)).unwrap_or(blocks.len());
                let named = blocks.iter().take(fresh + 1);
                deeds.extend(named.map(|b| Deed::Prepare(Link { source: *source, block: *b }, skipped)));
            }
        }
    }

    /// Timeouts of the last view enable nothing.
    fn timeouts(&self, state: &State, certified: &[Point], log: &Log, deeds: &mut Vec<Deed>) {
        let finalized = self.finalized(state);
        for view in log.view()..self.settings.views {
            let Some(known) = self.least_known_in(state, certified, &finalized, log, view) else { continue };
            let own = log.high();
            if own.view >= known {
                deeds.push(Deed::GiveUp(view, own));
            }
            let learnt = certified
                .iter()
                .filter(|high| high.view > own.view && high.view >= known && high.view < view);
            deeds.extend(learnt.map(|high| Deed::GiveUp(view, *high)));
        }
    }

    /// The view of the certificate that a validator in `view` knows at least, if it can be in it.
    fn least_known_in(
        &self,
        state: &State,
        certified: &[Point],
        finalized: &[Point],
        log: &Log,
        view: u8,
    ) -> Option<u8> {
        let before = view - 1;
        // A commit certificate moves the view and teaches no prepare certificate (C-6.1).
        if view == log.view() || finalized.iter().any(|block| block.view == before) {
            return Some(0);
        }
        let by_qc = certified.iter().any(|block| block.view == before).then_some(before);
        let by_tc = self.least_report(state, before).map(|report| report.view);
        by_tc.into_iter().chain(by_qc).min()
    }

    // Equal states.

    /// Whether blocks of one parent are told apart by name, so that equal states may differ in names.
    fn has_names(&self) -> bool {
        // A validator that forgets overwrites its statements, and blocks may be named that no log shows prepared.
        self.settings.variants > 1 && !self.settings.without.contains(&Rule::Memory)
    }

    fn canonical(&self, mut state: State) -> State {
        if !self.has_names() {
            let stake = |at: usize| self.settings.stakes[self.honest[at] as usize];
            let mut from = 0;
            while from < state.0.len() {
                let equals = (from..state.0.len()).take_while(|at| stake(*at) == stake(from)).count();
                state.0[from..from + equals].sort_unstable();
                from += equals;
            }
            return state;
        }
        let reordered = self.orders.iter().map(|order| {
            let logs: Vec<Log> = order.iter().map(|at| state.0[*at]).collect();
            State(self.renamed(logs))
        });
        reordered.min().unwrap_or(state)
    }

    /// Names the blocks of each parent in the order in which they are voted for.
    fn renamed(&self, logs: Vec<Log>) -> Vec<Log> {
        let mut names: Vec<(Point, Point)> = vec![(ROOT, ROOT)];
        let find = |names: &[(Point, Point)], old: Point| {
            names.iter().find(|(known, _)| *known == old).map(|(_, new)| *new)
        };
        for view in 1..=self.settings.views {
            for link in logs.iter().filter_map(|log| log.prepared(view)) {
                if find(&names, link.block).is_some() {
                    continue;
                }
                let source = find(&names, link.source).unwrap_or(link.source);
                let siblings = self.universe().children(source, view);
                let free = siblings.iter().find(|block| names.iter().all(|(_, new)| new != *block));
                names.push((link.block, *free.unwrap_or(&link.block)));
            }
        }
        logs.iter().map(|log| log.renamed(|point| find(&names, point).unwrap_or(point))).collect()
    }

    // Properties.

    fn conflicts(&self, state: &State) -> Vec<(Point, Point)> {
        let finalized = self.finalized(state);
        let pairs = finalized.iter().enumerate().flat_map(|(i, a)| {
            finalized[i + 1..].iter().map(move |b| if a.view <= b.view { (*a, *b) } else { (*b, *a) })
        });
        pairs.filter(|(a, b)| self.universe().in_conflict(*a, *b)).collect()
    }

    fn is_paid_for(&self, state: &State) -> bool {
        self.conflicts(state).into_iter().all(|(low, high)| {
            let shown = self.shown(state, low, high);
            let judged = self.judged.read().unwrap_or_else(PoisonError::into_inner).get(&shown).copied();
            judged.unwrap_or_else(|| {
                let honest: u32 = self.honest.iter().map(|index| 1 << index).sum();
                let paid = self.court.least_guilt(self.universe(), &shown).is_ok()
                    && self.court.guilty(self.universe(), &shown) & honest == 0;
                self.judged.write().unwrap_or_else(PoisonError::into_inner).insert(shown, paid);
                paid
            })
        })
    }

    /// The certificates that show two blocks final, with everybody who can be made to appear on them.
    fn shown(&self, state: &State, low: Point, high: Point) -> Vec<Shown> {
        let byzantine: u32 = self.byzantine.iter().map(|index| 1 << index).sum();
        let with = |signed: &dyn Fn(&Log) -> bool| {
            let honest = state.0.iter().zip(&self.honest).filter(|(log, _)| signed(log));
            honest.map(|(_, index)| 1u32 << index).sum::<u32>() | byzantine
        };
        let statements = crate::evidence::statements(self.universe(), low, high);
        let signers = |statement: &Statement| match *statement {
            Statement::Prepare(link) => with(&|log| log.prepared(link.block.view) == Some(link)),
            Statement::Commit(block) => with(&|log| log.committed(block.view) == Some(block)),
        };
        statements.into_iter().map(|statement| Shown { statement, signers: signers(&statement) }).collect()
    }
}

impl Model for Network {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State(vec![Log::default(); self.honest.len()])]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let certified = self.certified(state);
        let mut votes = Vec::new();
        self.prepares(state, &certified, &mut votes);
        votes.extend(certified.iter().copied().map(Deed::Commit));
        let stake = |at: usize| self.settings.stakes[self.honest[at] as usize];
        for (by, log) in state.0.iter().enumerate() {
            // Of validators with equal stake and history it does not matter which one acts.
            if by > 0 && state.0[by - 1] == *log && stake(by - 1) == stake(by) {
                continue;
            }
            actions.extend(votes.iter().map(|deed| Action { by, deed: *deed }));
            if self.settings.timeouts == Timeouts::Signed {
                let mut timeouts = Vec::new();
                self.timeouts(state, &certified, log, &mut timeouts);
                actions.extend(timeouts.into_iter().map(|deed| Action { by, deed }));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let log = self.signer.act(state.0[action.by], action.deed)?;
        let mut next = state.clone();
        next.0[action.by] = log;
        Some(self.canonical(next))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NEVER_SLASHABLE, |_, state: &State| !state.0.iter().any(Log::guilty)),
            Property::sometimes(FINALITY, |model: &Self, state: &State| {
                model.finalized(state).iter().any(|block| block.view == model.settings.views)
            }),
            Property::sometimes(PASSED_OVER, |model: &Self, state: &State| {
                let certified = model.certified(state);
                let last = certified.last().copied().unwrap_or(ROOT);
                certified
                    .iter()
                    .any(|block| block.view < last.view && model.universe().in_conflict(*block, last))
            }),
        ];
        if self.within_assumption() {
            properties
                .push(Property::always(ONE_CHAIN, |model: &Self, state| model.conflicts(state).is_empty()));
        } else {
            properties.push(Property::always(PAID_FOR, |model: &Self, state| model.is_paid_for(state)));
            properties
                .push(Property::sometimes(FORK, |model: &Self, state| !model.conflicts(state).is_empty()));
        }
        properties
    }
}

/// All reorderings that put equal stakes in places of equal stakes; `stakes` ascend.
fn orders_keeping(stakes: &[u128]) -> Vec<Vec<usize>> {
    let mut orders: Vec<Vec<usize>> = vec![Vec::new()];
    for stake in stakes {
        let mut longer = Vec::new();
        for order in &orders {
            for (at, _) in
                stakes.iter().enumerate().filter(|(at, other)| *other == stake && !order.contains(at))
            {
                longer.push(order.iter().copied().chain([at]).collect());
            }
        }
        orders = longer;
    }
    orders
}
