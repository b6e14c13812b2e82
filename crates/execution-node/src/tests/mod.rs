#![allow(clippy::unwrap_used)]

mod executor;
pub(crate) mod harness;
mod node;
