//! What a proposer or a wallet hands the executor.

use alloy_primitives::Bytes;
use execution::{LANES_MAX, Payload, RecoveredTx, UnrecoveredTx, recover_payload};
use types::limits::TRANSACTION_BYTES_MAX;

/// A payload: one encoding only, bounds on everything, and its transactions are all judged.
pub fn payload(bytes: &[u8]) {
    let Ok(payload) = Payload::decode(bytes) else { return };
    assert_eq!(payload.encode(), bytes);
    assert!(payload.lanes.len() <= LANES_MAX);
    assert!(payload.transactions().all(|tx| (1..=TRANSACTION_BYTES_MAX).contains(&tx.len())));
    let count = payload.transactions().count();
    if let Ok(transactions) = recover_payload(&payload, |_| None) {
        assert_eq!(transactions.len(), count);
        transactions.iter().for_each(|tx| assert!(tx.authorizations().len() <= bytes.len()));
    }
}

/// A transaction: what is accepted is canonical, has one sender, and says the same however it is read.
pub fn transaction(bytes: &[u8]) {
    let Ok(tx) = RecoveredTx::decode(bytes) else { return };
    assert_eq!(tx.encoded().as_ref(), bytes);
    let encoded = encoding(&tx);
    assert_eq!(encoded, bytes, "another encoding of {tx:?}");
    let parsed = UnrecoveredTx::parse(Bytes::copy_from_slice(bytes)).unwrap();
    assert_eq!(parsed.recover().unwrap().sender(), tx.sender());
    let _ = (tx.effective_tip(7), tx.authorizations().len());
}

fn encoding(tx: &RecoveredTx) -> Vec<u8> {
    use alloy_eips::eip2718::Encodable2718;
    tx.envelope().encoded_2718()
}
