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
    /// What each included transaction leaves, in the same order.
    pub ran: Vec<Ran>,
    pub gas_used: u64,
}

/// A transaction of the block.
#[derive(Debug)]
pub(super) struct Included {
    pub transaction: RecoveredTx,
    /// Into the block's trace.
    pub touches: Range<u32>,
    pub writes: Range<u32>,
    pub gas_used: u64,
}

impl Block {
    /// Includes a transaction whose touches and writes are in the trace.
    pub(super) fn include(
        &mut self,
        transaction: RecoveredTx,
        touches: Range<u32>,
        writes: Range<u32>,
        ran: Ran,
    ) {
        let gas_used = ran.mark.gas_used;
        self.gas_used = self.gas_used.saturating_add(gas_used);
        self.included.push(Included { transaction, touches, writes, gas_used });
        self.ran.push(ran);
    }
}
