//! What execution is tested and measured with. No part of a node.
//!
//! - [`random::World`] makes random states and blocks from a seed; [`coverage`] counts what they exercise.
//! - [`loads`] makes the blocks that benchmarks run, on a state of millions of accounts.
//! - [`contracts`] are a token, a pool and a counter, written with [`asm`].
//! - [`plain`] is revm without any of our code: the baseline, and the oracle's oracle.

pub mod asm;
pub mod chain;
pub mod check;

pub mod contracts;
pub mod coverage;
pub mod keys;
pub mod loads;
pub mod plain;
pub mod random;
