//! A deterministic simulator: the real [`consensus::Replica`] of every validator, one thread, one seed. Networks,
//! disks, executors and clocks are simulated; the same seed gives the same run, byte for byte.
//!
//! It never sleeps, never reads a clock and never touches a file. A [`Plan`] says what goes wrong; [`World`] runs it;
//! [`checks`] holds one checker per property:
//! - one chain: no two nodes finalize different blocks at a height (C-5.1);
//! - honest nodes never sign a slashable pair (C-8);
//! - durable before sent (C-7);
//! - executed and durable before final (C-5.3);
//! - after the faults end, every node finalizes again (C-6).

pub mod byzantine;
pub mod checks;
pub mod disk;
pub mod executor;
pub mod plan;
pub mod world;

pub use plan::Plan;
pub use world::{Report, World, run};
