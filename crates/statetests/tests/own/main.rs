//! Fixtures of our own, in the format of Ethereum's state tests: what plain revm computes for the specs of `book`.
//! `BLESS=1` writes them anew.
#![allow(clippy::unwrap_used)]

mod asm;
mod book;
mod oracle;
mod runner;
mod spec;
