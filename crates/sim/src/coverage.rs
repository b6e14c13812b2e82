//! What runs exercised: counts by name, so that one sees the net is cast wide.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of things that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<String, u64>,
}

impl Coverage {
    /// One more of `what`.
    pub fn note(&mut self, what: &str) {
        self.add(what, 1);
    }

    /// `count` more of `what`.
    pub fn add(&mut self, what: &str, count: u64) {
        match self.counts.get_mut(what) {
            Some(sum) => *sum += count,
            None => drop(self.counts.insert(what.to_owned(), count)),
        }
    }

    /// How often `what` happened.
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(what, count)| self.add(what, *count));
    }
}

/// One line, in alphabetical order.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&parts.join(", "))
    }
}
