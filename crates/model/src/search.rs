//! Searching with stateright: all states, or the shortest trace against a property.

use crate::universe::ModelError;
use stateright::{Checker, HasDiscoveries, Model};
use std::fmt::Debug;
use std::hash::Hash;

/// What a search of all states has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Distinct states.
    pub distinct: usize,
    /// Steps of the longest trace to a new state.
    pub depth: usize,
    /// "Always" properties that do not hold.
    pub broken: Vec<&'static str>,
    /// "Sometimes" properties that were reached.
    pub reached: Vec<&'static str>,
}

/// Goes through all states of a model.
pub fn explore<M>(model: M) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let seen = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let fails = |name: &&'static str| seen.model().property(name).expectation.discovery_is_failure();
    let mut found: Vec<&'static str> = seen.discoveries().into_keys().collect();
    found.sort_unstable();
    let (broken, reached) = found.into_iter().partition(fails);
    // The checker counts states along a trace, the first one too.
    Explored {
        distinct: seen.unique_state_count(),
        depth: seen.max_depth().saturating_sub(1),
        broken,
        reached,
    }
}

/// A way through a model.
#[derive(Clone, Debug)]
pub struct Trace<M: Model> {
    /// What is done.
    pub actions: Vec<M::Action>,
    /// What it leads to.
    pub end: M::State,
}

/// A shortest trace that breaks (or, for a "sometimes" property, reaches) `property`; `None` after all states were seen
/// without one.
///
/// The checker notices a discovery only after a block of states, and may have passed over shorter traces of the same
/// block; so a first search finds a bound, and shallow searches then find the shortest trace within it.
pub fn shortest<M>(
    make: impl Fn() -> Result<M, ModelError>,
    property: &'static str,
) -> Result<Option<Trace<M>>, ModelError>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let Some(first) = trace(make()?, property, None) else { return Ok(None) };
    for steps in 0..first.actions.len() {
        if let Some(shorter) = trace(make()?, property, Some(steps)) {
            return Ok(Some(shorter));
        }
    }
    Ok(Some(first))
}

fn trace<M>(model: M, property: &'static str, steps_max: Option<usize>) -> Option<Trace<M>>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let mut search = model.checker().finish_when(HasDiscoveries::AnyOf([property].into()));
    if let Some(steps) = steps_max {
        // The checker counts states, and looks only at those below its bound.
        search = search.target_max_depth(steps + 2);
    }
    let path = search.spawn_bfs().join().discovery(property)?;
    let end = path.last_state().clone();
    Some(Trace { actions: path.into_actions(), end })
}
