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

/// The actions of a shortest trace that breaks (or, for a "sometimes" property, reaches) `property`, and the state it
/// ends in; `None` after all states were seen without one.
///
/// The checker notices a discovery only after a block of states, and may have passed over shorter traces of the same
/// block; so a first search finds a bound, and shallow searches then find the shortest trace within it.
pub fn shortest<M>(
    model: impl Fn() -> Result<M, ModelError>,
    property: &'static str,
) -> Result<Option<(Vec<M::Action>, M::State)>, ModelError>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let search = |steps: Option<usize>| -> Result<Option<(Vec<M::Action>, M::State)>, ModelError> {
        let mut search = model()?.checker().finish_when(HasDiscoveries::AnyOf([property].into()));
        if let Some(steps) = steps {
            search = search.target_max_depth(steps + 2);
        }
        let found = search.spawn_bfs().join().discovery(property);
        Ok(found.map(|path| {
            let end = path.last_state().clone();
            (path.into_actions(), end)
        }))
    };
    let Some(first) = search(None)? else { return Ok(None) };
    for steps in 0..first.0.len() {
        if let Some(shorter) = search(Some(steps))? {
            return Ok(Some(shorter));
        }
    }
    Ok(Some(first))
}
