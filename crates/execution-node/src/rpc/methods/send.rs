//! Sending transactions.

use super::{Table, transactions::receipt_by_hash};
use crate::{
    pool::PoolError,
    rpc::{
        api::Api,
        error::{RpcError, RpcResult},
        params::Args,
        quantity::Count,
        shapes::RpcReceipt,
    },
};
use alloy_primitives::{B256, Bytes};
use jsonrpsee::types::Params;
use std::{sync::Arc, time::Duration};

pub(super) fn register(table: &mut Table) {
    table.waiting("eth_sendRawTransaction", send);
    table.waiting("eth_sendRawTransactionSync", send_sync);
}

async fn send(api: Arc<Api>, params: Params<'static>) -> RpcResult<B256> {
    let encoded: Bytes = Args::new(&params, 1)?.required(0, "signed transaction")?;
    Ok(api.chain.pool().submit(encoded).await?)
}

/// EIP-7966: answers with the receipt, which here is final.
async fn send_sync(api: Arc<Api>, params: Params<'static>) -> RpcResult<RpcReceipt> {
    let args = Args::new(&params, 2)?;
    let encoded: Bytes = args.required(0, "signed transaction")?;
    let longest = api.config.sync_send_ms_max;
    let wait_ms = match args.optional(1, "timeout in milliseconds")? {
        Some(Count(wanted)) if wanted > 0 => wanted.min(longest),
        _ => longest,
    };
    let _place = api.sync_sends.try_acquire().map_err(|_| {
        let max = api.config.sync_send_waiting_max;
        RpcError::LimitExceeded(format!("{max} callers wait already; use eth_sendRawTransaction and poll"))
    })?;
    // Watching starts before the transaction can be included.
    let mut heads = api.heads.clone();
    let hash = api.chain.pool().submit(encoded).await?;
    let included = async {
        loop {
            if let Some(receipt) = receipt_by_hash(&api, hash)? {
                return Ok(receipt);
            }
            if heads.changed().await.is_err() {
                return Err(RpcError::Internal("node is stopping".into()));
            }
        }
    };
    match tokio::time::timeout(Duration::from_millis(wait_ms), included).await {
        Ok(result) => result,
        Err(_) => Err(not_included(&api, hash, wait_ms)),
    }
}

fn not_included(api: &Api, transaction: B256, waited_ms: u64) -> RpcError {
    let pool = api.chain.pool();
    let gap = pool.get(&transaction).and_then(|pooled| {
        let expected = pool.pending_nonce(&pooled.sender())?;
        (expected < pooled.nonce()).then_some(expected)
    });
    match gap {
        Some(expected) => RpcError::SyncNonceGap { expected },
        None => RpcError::SyncTimeout { transaction, waited_ms },
    }
}

impl From<PoolError> for RpcError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Refused(refusal) => Self::refused(refusal),
            PoolError::Stopping => Self::Internal(error.to_string()),
            PoolError::State(_) | PoolError::Journal(_) => Self::internal(error),
        }
    }
}
