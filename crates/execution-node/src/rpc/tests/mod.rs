//! The server over a real chain: a store on disk, the real pool, real blocks; clients speak raw HTTP and
//! WebSocket.

#![allow(clippy::unwrap_used)]

mod blocks;
mod client;
mod filters;
mod lanes;
mod node;
mod sending;
mod server;
mod state;
mod subscriptions;
