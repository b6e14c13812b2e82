//! What transactions pay: tips of past blocks, and what to suggest from them.

use execution::TxReceipt;
use std::collections::VecDeque;

/// Blocks a suggestion looks back at.
pub(super) const SUGGESTION_BLOCKS: u64 = 20;
/// Lowest tips taken from each block: they are what just sufficed.
const SAMPLES_PER_BLOCK: usize = 3;
/// Percentile of the samples that is suggested.
const SUGGESTION_PERCENTILE: usize = 60;
/// Tips below this are left out: they are senders who pay nothing, not a price.
const IGNORED_BELOW_WEI: u128 = 2;
/// No suggestion exceeds this (500 gwei), whatever others overpay.
const SUGGESTION_WEI_MAX: u128 = 500_000_000_000;

/// Percentiles of one `eth_feeHistory`.
const PERCENTILES_MAX: usize = 100;

/// The part of the price that went to the proposer.
fn tip_of(receipt: &TxReceipt, base_fee: u64) -> u128 {
    receipt.effective_gas_price.saturating_sub(base_fee.into())
}

/// The lowest tips of a block, ascending.
pub(super) fn lowest_tips(receipts: &[TxReceipt], base_fee: u64) -> Vec<u128> {
    let mut lowest: Vec<u128> = Vec::with_capacity(SAMPLES_PER_BLOCK + 1);
    for tip in
        receipts.iter().map(|receipt| tip_of(receipt, base_fee)).filter(|tip| *tip >= IGNORED_BELOW_WEI)
    {
        let at = lowest.partition_point(|other| *other <= tip);
        if at < SAMPLES_PER_BLOCK {
            lowest.insert(at, tip);
            lowest.truncate(SAMPLES_PER_BLOCK);
        }
    }
    lowest
}

/// Tips at the given percentiles of gas, as geth computes them: transactions sorted by tip, each weighing its
/// gas.
pub(super) fn rewards(
    receipts: &[TxReceipt],
    base_fee: u64,
    gas_used: u64,
    percentiles: &[f64],
) -> Vec<u128> {
    if receipts.is_empty() {
        return vec![0; percentiles.len()];
    }
    let mut tips: Vec<(u128, u64)> = receipts.iter().map(|r| (tip_of(r, base_fee), r.gas_used)).collect();
    tips.sort_unstable();
    let (mut index, mut gas) = (0, tips[0].1);
    percentiles
        .iter()
        .map(|percentile| {
            let threshold = (gas_used as f64 * percentile / 100.0) as u64;
            while gas < threshold && index + 1 < tips.len() {
                index += 1;
                gas = gas.saturating_add(tips[index].1);
            }
            tips[index].0
        })
        .collect()
}

/// Whether percentiles are from 0 to 100 and ascend; the text says what is wrong, as geth does.
pub(super) fn check_percentiles(percentiles: &[f64]) -> Result<(), String> {
    if percentiles.len() > PERCENTILES_MAX {
        return Err(format!("over the query limit {PERCENTILES_MAX}: {} percentiles", percentiles.len()));
    }
    for (index, percentile) in percentiles.iter().enumerate() {
        if !(0.0..=100.0).contains(percentile) {
            return Err(format!("invalid reward percentile: {percentile}"));
        }
        if index > 0 && *percentile <= percentiles[index - 1] {
            let before = percentiles[index - 1];
            return Err(format!(
                "invalid reward percentile: #{}:{before} >= #{index}:{percentile}",
                index - 1
            ));
        }
    }
    Ok(())
}

/// Tip samples of the latest blocks.
#[derive(Debug, Default)]
pub(super) struct TipSamples {
    /// Height and samples, ascending and without gaps.
    blocks: VecDeque<(u64, Vec<u128>)>,
}

impl TipSamples {
    /// Heights whose samples are missing for a suggestion at `head`.
    pub(super) fn missing(&self, head: u64) -> std::ops::RangeInclusive<u64> {
        let wanted = (head + 1).saturating_sub(SUGGESTION_BLOCKS).max(1);
        let known = self.blocks.back().map_or(0, |(height, _)| *height);
        wanted.max(known + 1)..=head
    }

    /// Adds the samples of a block above all known ones.
    pub(super) fn add(&mut self, height: u64, samples: Vec<u128>) {
        match self.blocks.back() {
            Some((last, _)) if height <= *last => return,
            Some((last, _)) if height > *last + 1 => self.blocks.clear(),
            _ => {}
        }
        self.blocks.push_back((height, samples));
        while self.blocks.len() as u64 > SUGGESTION_BLOCKS {
            self.blocks.pop_front();
        }
    }

    /// What to offer beside the base fee to be included soon.
    pub(super) fn suggestion(&self, floor: u128) -> u128 {
        let mut samples: Vec<u128> = self.blocks.iter().flat_map(|(_, tips)| tips).copied().collect();
        samples.sort_unstable();
        let at = samples.len().saturating_sub(1) * SUGGESTION_PERCENTILE / 100;
        samples.get(at).map_or(floor, |tip| (*tip).min(SUGGESTION_WEI_MAX).max(floor))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloy_consensus::TxType;
    use alloy_primitives::{Address, B256};

    fn receipt(tip: u128, gas_used: u64) -> TxReceipt {
        TxReceipt {
            envelope: TxReceipt::envelope(TxType::Eip1559, true, gas_used, Vec::new()),
            tx_hash: B256::ZERO,
            from: Address::ZERO,
            to: None,
            contract_address: None,
            gas_used,
            effective_gas_price: 100 + tip,
            first_log_index: 0,
            abort: None,
        }
    }

    #[test]
    fn rewards_weigh_transactions_by_gas() {
        let receipts = [receipt(30, 10), receipt(10, 80), receipt(20, 10)];
        assert_eq!(
            rewards(&receipts, 100, 100, &[0.0, 50.0, 80.0, 80.5, 85.0, 95.0, 100.0]),
            [10, 10, 10, 10, 20, 30, 30]
        );
        assert_eq!(rewards(&[], 100, 0, &[1.0, 2.0]), [0, 0]);
    }

    #[test]
    fn wrong_percentiles_are_named() {
        assert!(check_percentiles(&[0.0, 50.0, 100.0]).is_ok());
        assert!(check_percentiles(&[]).is_ok());
        for wrong in
            [vec![-1.0], vec![100.5], vec![f64::NAN], vec![50.0, 50.0], vec![60.0, 50.0], vec![1.0; 101]]
        {
            assert!(check_percentiles(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_lowest_tips_are_sampled_without_those_who_pay_nothing() {
        let receipts: Vec<_> = [7, 0, 9, 3, 1, 5].into_iter().map(|tip| receipt(tip, 1)).collect();
        assert_eq!(lowest_tips(&receipts, 100), [3, 5, 7]);
        assert!(lowest_tips(&receipts[1..2], 100).is_empty());
    }

    #[test]
    fn a_suggestion_follows_recent_blocks_within_floor_and_ceiling() {
        let mut samples = TipSamples::default();
        assert_eq!(samples.missing(100), 81..=100);
        assert_eq!(samples.suggestion(5), 5);
        (1..=30).for_each(|height| samples.add(height, vec![u128::from(height)]));
        assert_eq!(samples.missing(31), 31..=31);
        assert!(samples.missing(30).is_empty());
        assert_eq!(samples.suggestion(5), 22);
        assert_eq!(samples.suggestion(500), 500);
        samples.add(31, vec![u128::MAX; 3]);
        samples.add(50, vec![u128::MAX; 3]);
        assert_eq!(samples.suggestion(5), SUGGESTION_WEI_MAX);
    }
}
