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

/// The actions of a shortest trace that breaks (or, for a "sometimes" property, reaches) `property` within `steps_max`
/// steps, and the state it ends in.
///
/// The checker notices a discovery only after a block of states, and may have passed over shorter traces of the same
/// block; so the bound is raised step by step.
pub fn shortest<M>(
    model: impl Fn() -> Result<M, ModelError>,
    property: &'static str,
    steps_max: usize,
) -> Result<Option<(Vec<M::Action>, M::State)>, ModelError>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    for steps in 0..=steps_max {
        let only = HasDiscoveries::AnyOf([property].into());
        let seen = model()?.checker().target_max_depth(steps + 2).finish_when(only).spawn_bfs().join();
        if let Some(path) = seen.discovery(property) {
            let end = path.last_state().clone();
            return Ok(Some((path.into_actions(), end)));
        }
    }
    Ok(None)
}
