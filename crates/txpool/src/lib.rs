//! The transaction pool: a bounded, pure data structure.
//!
//! This crate never does IO, never reads a clock, never recovers a signature and never locks: transactions come
//! with their sender, account states and the time are arguments.
//!
//! - [`AdmissionRules::check`]: everything that can be refused before the signature is looked at.
//! - [`Pool::insert`]: nonce, balance, replacement, limits; refusals in the words of [`Refusal`].
//! - [`Pool::select`]: what a proposer takes, in O(selected), at any base fee.
//! - [`Pool::advance`]: what a finalized block changes, in O(changed senders).
//!
//! A transaction is *pending* when its sender's nonces lead up to it without a gap and the balance covers them
//! all, else *queued*. When the pool is full, what would pay a proposer least goes first, queued before pending,
//! and always the last nonce of a sender, so that no other is stranded.

mod account;
mod limits;
mod pool;
mod refusal;
mod rules;
mod selection;
mod tip_index;

pub use account::AccountState;
pub use limits::Limits;
pub use pool::{Inserted, Pool, REPLACEMENT_BUMP_PERCENT, SenderContent, Status};
pub use refusal::{REFUSED, Refusal};
pub use rules::{AdmissionPolicy, AdmissionRules};
pub use selection::Selection;
pub use tip_index::Price;

#[cfg(test)]
mod tests;
