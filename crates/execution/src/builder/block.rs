//! What a build has included so far.

use super::{
    sheet::Sheet,
    speculate::{Ran, Trace},
};
use crate::RecoveredTx;
use std::ops::Range;

/// The block that grows: its transactions in an order they ran in, and what they did.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub sheet: Sheet,
    pub trace: Trace,
    pub included: Vec<Included>,
    pub gas_used: u64,
}

/// A transaction of the block.
#[derive(Debug)]
pub(super) struct Included {
    pub transaction: RecoveredTx,
    /// Into the block's trace.
    pub touches: Range<u32>,
    pub writes: Range<u32>,
    pub ran: Box<Ran>,
}

impl Included {
    pub(super) fn gas_used(&self) -> u64 {
        self.ran.receipt.gas_used
    }
}

impl Block {
    pub(super) fn include(&mut self, included: Included) {
        self.gas_used = self.gas_used.saturating_add(included.gas_used());
        self.included.push(included);
    }
}
