//! Deliberate misbehaviour, for tests of the rest of the network only.

use serde::{Deserialize, Serialize};

/// The `[fault]` section. Refused unless `i_am_testing` is true: a validator that runs with it harms itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultConfig {
    /// Which fault to inject.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Must be true for a fault to be accepted.
    #[serde(default)]
    pub i_am_testing: bool,
}

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Reports a wrong state hash for the payloads it builds. Its consensus process believes it and proposes
    /// blocks that every other validator refuses.
    WrongStateHash,
}
