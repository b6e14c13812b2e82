//! A block's lanes in figures: what JSON-RPC tells of them and what metrics count.

use execution::{Payload, TxReceipt};
use std::ops::Range;

/// A block's lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneFigures {
    /// The lanes, in order.
    pub lanes: Vec<LaneFigure>,
    /// Objects that the block's transactions touch.
    pub objects: usize,
    /// Gas of all transactions.
    pub gas: u64,
}

/// One lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneFigure {
    /// Gas of its transactions.
    pub gas: u64,
    /// Its pieces, in order.
    pub segments: Vec<SegmentFigure>,
}

/// A piece of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentFigure {
    /// Gas of its transactions.
    pub gas: u64,
    /// Values it takes over from the pieces before it.
    pub taken: usize,
    /// Its transactions, by their position in the block.
    pub transactions: Range<usize>,
}

impl LaneFigures {
    /// Reads a payload's outline with the receipts of its block.
    pub fn of(outline: &Payload, receipts: &[TxReceipt]) -> Self {
        let mut figures = Self { objects: outline.objects.len(), ..Self::default() };
        let mut next = 0;
        for lane in &outline.lanes {
            let mut figure = LaneFigure::default();
            for segment in &lane.segments {
                let transactions = next..next + segment.transactions.len();
                next = transactions.end;
                let own = receipts.get(transactions.clone()).unwrap_or_default();
                let gas = own.iter().fold(0_u64, |sum, receipt| sum.saturating_add(receipt.gas_used));
                figure.gas = figure.gas.saturating_add(gas);
                figure.segments.push(SegmentFigure { gas, taken: segment.taken.len(), transactions });
            }
            figures.gas = figures.gas.saturating_add(figure.gas);
            figures.lanes.push(figure);
        }
        figures
    }

    /// Number of pieces of all lanes.
    pub fn segments(&self) -> usize {
        self.lanes.iter().map(|lane| lane.segments.len()).sum()
    }

    /// Share of the block's gas in thousandths.
    pub fn share(&self, gas: u64) -> u64 {
        let share = u128::from(gas) * 1000 / u128::from(self.gas.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Gas of the heaviest lane.
    pub fn widest(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.gas).max().unwrap_or_default()
    }

    /// Gas of the heaviest piece: with cores enough, replay lasts as long as this one.
    pub fn longest_segment(&self) -> u64 {
        let segments = self.lanes.iter().flat_map(|lane| &lane.segments);
        segments.map(|segment| segment.gas).max().unwrap_or_default()
    }
}
