#![allow(clippy::unwrap_used)]

mod executor;
mod finality;
pub(crate) mod harness;
mod node;
