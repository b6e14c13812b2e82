//! Receipts and their hash.

use crate::StrictAbort;
use alloy_consensus::{Receipt, ReceiptEnvelope, ReceiptWithBloom, TxType};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bloom, Bytes, Log};
use rayon::prelude::*;

/// A transaction's receipt with all that JSON-RPC tells about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxReceipt {
    /// The canonical part: type, status, cumulative gas, logs, bloom.
    pub envelope: ReceiptEnvelope,
    /// Hash of the transaction.
    pub tx_hash: B256,
    /// Its sender.
    pub from: Address,
    /// Its recipient; `None` for a creation.
    pub to: Option<Address>,
    /// The contract it created.
    pub contract_address: Option<Address>,
    /// Gas it used.
    pub gas_used: u64,
    /// What it paid per gas, in wei.
    pub effective_gas_price: u128,
    /// Index in the block of its first log.
    pub first_log_index: u64,
    /// Why it was aborted, if it was strict and did what it had not declared. Not part of the canonical receipt: it
    /// follows from the block, like everything else here.
    pub abort: Option<StrictAbort>,
}

impl TxReceipt {
    /// Whether the transaction succeeded.
    pub fn succeeded(&self) -> bool {
        self.envelope.status()
    }

    /// Its logs.
    pub fn logs(&self) -> &[Log] {
        self.envelope.logs()
    }

    /// Bloom of its logs.
    pub fn bloom(&self) -> &Bloom {
        self.envelope.logs_bloom()
    }

    /// Gas of the block up to and including it.
    pub fn cumulative_gas_used(&self) -> u64 {
        self.envelope.cumulative_gas_used()
    }

    /// The canonical EIP-2718 bytes, bloom included.
    pub fn canonical_bytes(&self) -> Bytes {
        self.envelope.encoded_2718().into()
    }

    /// Makes the canonical part; the bloom is computed from the logs.
    pub fn envelope(
        kind: TxType,
        succeeded: bool,
        cumulative_gas_used: u64,
        logs: Vec<Log>,
    ) -> ReceiptEnvelope {
        let logs_bloom = logs.iter().collect::<Bloom>();
        let receipt = Receipt { status: succeeded.into(), cumulative_gas_used, logs };
        ReceiptEnvelope::from_typed(kind, ReceiptWithBloom { receipt, logs_bloom })
    }

    /// [`Self::envelope`] with an empty bloom, for [`Self::fill_bloom`] to fill.
    pub(crate) fn envelope_without_bloom(
        kind: TxType,
        succeeded: bool,
        gas_used: u64,
        logs: Vec<Log>,
    ) -> ReceiptEnvelope {
        let receipt = Receipt { status: succeeded.into(), cumulative_gas_used: gas_used, logs };
        ReceiptEnvelope::from_typed(kind, ReceiptWithBloom { receipt, logs_bloom: Bloom::ZERO })
    }

    /// Computes the bloom from the logs: four hashes and more per log, which need not keep a lane waiting.
    pub(crate) fn fill_bloom(&mut self) {
        let inner = self.inner_mut();
        inner.logs_bloom = inner.receipt.logs.iter().collect();
    }

    fn inner_mut(&mut self) -> &mut ReceiptWithBloom<Receipt<Log>> {
        let (ReceiptEnvelope::Legacy(inner)
        | ReceiptEnvelope::Eip2930(inner)
        | ReceiptEnvelope::Eip1559(inner)
        | ReceiptEnvelope::Eip4844(inner)
        | ReceiptEnvelope::Eip7702(inner)) = &mut self.envelope;
        inner
    }
}

/// `receipts_hash`: Merkle root over the canonical receipts (specs/state_hash.md, S-3).
pub fn receipts_hash(receipts: &[TxReceipt]) -> B256 {
    let encoded: Vec<Bytes> = receipts.par_iter().with_min_len(256).map(TxReceipt::canonical_bytes).collect();
    crypto::merkle::root(encoded.iter().map(AsRef::as_ref))
}
