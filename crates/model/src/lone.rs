//! One honest validator in the worst environment: every certificate exists, also ones that contradict each other.
//!
//! Whatever a network can show a validator is a part of that, whatever the faulty stake is. So what is never signed here
//! is never signed at all.

use crate::log::Log;
use crate::signer::{Deed, Rule, Signer};
use crate::universe::{Link, ModelError, Point, ROOT, Shape, Universe};
use stateright::{Model, Property};

/// The property of this model.
pub const NEVER_SLASHABLE: &str = "nothing slashable is signed";

/// What the validator is asked to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Prepares, commits and timeouts.
    Votes,
    /// Proposals and timeouts: no other vote bears on them.
    Proposals,
}

/// A validator alone with its adversaries.
#[derive(Debug)]
pub struct Lone {
    signer: Signer,
    alphabet: Alphabet,
}

impl Lone {
    /// A validator over `views` views with two blocks each, without some of the rules.
    pub fn new(views: u8, alphabet: Alphabet, without: &[Rule]) -> Result<Self, ModelError> {
        let universe = Universe::new(&[1, 1, 1, 1], views, Shape::Flat { variants: 2 })?;
        Ok(Self { signer: Signer::new(universe, without), alphabet })
    }

    fn links(&self) -> impl Iterator<Item = Deed> {
        let universe = self.signer.universe();
        (1..=universe.views()).flat_map(move |view| {
            let sources = (0..view).flat_map(|below| universe.points(below));
            sources.flat_map(move |source| {
                // The weakest timeout certificate, where one is needed: a stricter one allows less and leaves no trace.
                let skipped = (source.view + 1 < view).then_some(ROOT);
                let link = move |block| Deed::Prepare(Link { source, block }, skipped);
                universe.children(source, view).iter().copied().map(link)
            })
        })
    }
}

impl Model for Lone {
    type State = Log;
    type Action = Deed;

    fn init_states(&self) -> Vec<Log> {
        vec![Log::default()]
    }

    fn actions(&self, log: &Log, deeds: &mut Vec<Deed>) {
        let universe = self.signer.universe();
        let blocks = || (1..=universe.views()).flat_map(|view| universe.points(view));
        match self.alphabet {
            Alphabet::Votes => {
                deeds.extend(self.links());
                deeds.extend(blocks().map(Deed::Commit));
            }
            Alphabet::Proposals => deeds.extend(blocks().map(Deed::Propose)),
        }
        for view in 1..=universe.views() {
            let highs = (0..view).flat_map(|below| universe.points(below));
            deeds.extend(
                highs.filter(|high| high.view >= log.high().view).map(|high| Deed::GiveUp(view, high)),
            );
        }
    }

    fn next_state(&self, log: &Log, deed: Deed) -> Option<Log> {
        self.signer.ask(*log, deed).map(|next| canonical(&next))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_SLASHABLE, |_, log: &Log| !log.guilty()),
            Property::sometimes("every view is voted in", |model: &Self, log: &Log| {
                let voted = |view| match model.alphabet {
                    Alphabet::Votes => log.committed(view).is_some() && log.prepared(view).is_some(),
                    Alphabet::Proposals => log.proposed(view).is_some(),
                };
                (1..=model.signer.universe().views()).all(voted)
            }),
        ]
    }
}

/// The blocks of one view differ in name alone: the first one mentioned is called 0, the second 1.
fn canonical(log: &Log) -> Log {
    let mut seen: Vec<Point> = Vec::new();
    for view in log.views() {
        let link = log.prepared(view);
        let points = [
            link.map(|link| link.source),
            log.proposed(view),
            link.map(|link| link.block),
            log.committed(view),
            log.gave_up(view),
        ];
        for point in points.into_iter().flatten().filter(|point| *point != ROOT) {
            if !seen.contains(&point) {
                seen.push(point);
            }
        }
    }
    let name = |point: Point| {
        let of_view = seen.iter().filter(|other| other.view == point.view);
        let position = of_view.clone().position(|other| *other == point).unwrap_or(usize::from(point.name));
        Point { view: point.view, name: position as u8 }
    };
    log.renamed(name)
}
