//! Executes a payload on a state view: receipts, state diff, hashes.
//!
//! This crate never touches a disk, a clock, a socket or an async runtime, and it never decides which block is
//! right: it computes what a block does. Callers hand it a [`StateView`] and get values back.
//!
//! - [`RecoveredTx`] is a transaction with its sender; [`recover_payload`] makes them from payload bytes.
//! - [`Payload`] is the wire format of a block's transactions, in lanes.
//! - [`Rules`] is what a genesis fixes: chain id, forks, gas limit, base fee.
//! - [`replay`] runs a payload lane beside lane and enforces its access sets.
//! - [`execute`] runs a block serially. It is the oracle: whatever runs faster must give the same bytes.
//! - [`build`] selects and executes candidates in one pass and yields payload and outcome.
//! - [`StateDiff`] is what a block changed; [`Overlay`] reads through a stack of them.
//! - [`LtHash`] is the running digest of the whole state; its [`LtHash::state_hash`] stands in the header.
//! - [`call`], [`estimate_gas`] and [`create_access_list`] answer read-only questions of JSON-RPC.
//! - [`StrictList`] is what a transaction declares that wants to touch nothing else.
//!
//! Errors are split by blame: [`InvalidPayload`] is the proposer's fault and final, [`ViewError`] is our disk or a
//! bug and says nothing about the block.

mod access;
mod access_list;
mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}
mod block;
mod builder;
mod call;
mod diff;
mod evm;
mod genesis;
mod guard;
mod invalid;
mod lanes;
mod lthash;
mod payload;
mod receipt;
mod registry;
mod rules;
mod run;
mod sequential;
mod shared;
mod strict;
mod system;
pub mod testing;
mod transaction;
mod view;

pub use access::{Access, AccessSet, Object, ObjectValue};
pub use access_list::{AccessListOutcome, create_access_list};
pub use block::{BlockEnv, BlockOutcome};
pub use builder::{BuildLimits, BuildMemory, BuiltBlock, SkippedTx, build, build_with};
pub use call::{
    AccountOverride, CallError, CallOutcome, CallRequest, EstimateError, StateOverrides, call, estimate_gas,
};
pub use diff::{AccountChange, SlotChange, StateDiff};
pub use genesis::{GenesisState, GenesisStateError, genesis_state};
pub use invalid::{ExecuteError, InvalidPayload, InvalidPayloadCode, InvalidTx};
pub use lanes::{LanesRun, replay, run_lanes};
pub use lthash::{LTHASH_BYTES, LtHash, LtHashError};
pub use payload::{
    Entry, LANES_MAX, Lane, LanePlan, OBJECTS_MAX, Owner, PAYLOAD_VERSION, Payload, PayloadError, PayloadTx,
    SEGMENTS_MAX, Segment, SegmentPlan, TableEntry,
};
pub use receipt::{TxReceipt, receipts_hash};
pub use rules::{Fork, Rules, RulesError};
pub use run::ClosedBlock;
pub use sequential::{execute, verify};
pub use strict::{
    STRICT_MARKER, StrictAbort, StrictError, StrictFault, StrictList, read_only_word, valid_until_word,
};
pub use system::{Conviction, SystemOutcome, registry_set};
pub use transaction::{
    PayloadTransactions, RecoveredTx, TxEnvelope, TxError, UnrecoveredTx, recover_payload,
};
pub use view::{AccountInfo, Layer, Overlay, StateView, ViewError};

#[cfg(test)]
mod tests;
