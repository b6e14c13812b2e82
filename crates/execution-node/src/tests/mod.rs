#![allow(clippy::unwrap_used)]

mod executor;
mod harness;
mod node;
