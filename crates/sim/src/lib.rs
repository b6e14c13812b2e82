//! A deterministic simulator: the real [`consensus::Replica`] of every validator, one thread, one seed. Networks,
//! disks, executors and clocks are simulated; the same seed gives the same run, byte for byte.
//!
//! It never sleeps, never reads a clock, and touches files only in runs on real journals. A [`Plan`] says what goes wrong; [`World`] runs it;
//! [`checks`] holds one checker per property:
//! - one chain: no two nodes finalize different blocks at a height (C-5.1);
//! - honest nodes never sign a slashable pair (C-8);
//! - whoever signs one is detected by whom it reaches, named by a final block once, and nobody else is (C-8.4);
//! - durable before sent (C-7);
//! - executed and durable before final (C-5.3);
//! - after the faults end, every node finalizes again (C-6).

mod boundary;
pub mod byzantine;
pub mod checks;
pub mod coverage;
pub mod disk;
pub mod executor;
mod faults;
mod justice;
mod narrate;
pub mod plan;
pub mod sets;
pub mod storage;
pub mod twins;
mod watch;
pub mod world;

/// Epochs for which evidence is valid in simulations: the fewest of any chain, and many of theirs.
pub const EVIDENCE_PERIOD: consensus::evidence::Period =
    consensus::evidence::Period(types::genesis::UNBONDING_EPOCHS_MIN);

pub use coverage::Coverage;
pub use plan::Plan;
pub use world::{Failure, Report, World, run, run_logged};
