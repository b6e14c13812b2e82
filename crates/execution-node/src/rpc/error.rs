//! What a call is answered when it fails. Codes and wording follow geth, because wallets and libraries match
//! on them: reverts are code 3 with the revert bytes in `data`, refusals are -32000 with the usual sentence.

use alloy_primitives::{B256, Bytes, U256};
use jsonrpsee::types::ErrorObjectOwned;

/// Why a call failed, by what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The parameters are not what the method takes.
    #[error("{0}")]
    InvalidParams(String),
    /// The contract reverted; `data` carries its output.
    #[error("{}", revert_message(.0))]
    Reverted(Bytes),
    /// The request was understood and cannot be served: a refused transaction, an unknown block, failed code.
    #[error("{0}")]
    Refused(String),
    /// State of a height outside the window this node keeps.
    #[error(
        "state at block {height} is not available here: this node keeps blocks {oldest} to {newest}; ask for a \
         height in that range or an archive node"
    )]
    HistoryUnavailable {
        /// The height asked for.
        height: u64,
        /// Oldest height kept.
        oldest: u64,
        /// Latest height.
        newest: u64,
    },
    /// A bound of this server; the text names it and what to do.
    #[error("{0}")]
    LimitExceeded(String),
    /// The call took longer than allowed.
    #[error("{0}")]
    TimedOut(String),
    /// `eth_sendRawTransactionSync`: accepted, but not in a block in time (EIP-7966).
    #[error(
        "the transaction was added to the pool but was not in a final block within {waited_ms} ms; ask for its \
         receipt later"
    )]
    SyncTimeout {
        /// The accepted transaction.
        transaction: B256,
        /// How long the call waited.
        waited_ms: u64,
    },
    /// `eth_sendRawTransactionSync`: it cannot be included before the transactions with lower nonces
    /// (EIP-7966).
    #[error("nonce gap: the transaction waits in the queue until nonce {expected} arrives")]
    SyncNonceGap {
        /// The nonce that must come first.
        expected: u64,
    },
    /// A fault of this node.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Result of a method.
pub type RpcResult<T> = Result<T, RpcError>;

/// geth's code for everything it refuses without a better one.
const REFUSED_CODE: i32 = -32000;
const TIMEOUT_CODE: i32 = -32002;
const LIMIT_CODE: i32 = -32005;
const INVALID_PARAMS_CODE: i32 = -32602;
const INTERNAL_CODE: i32 = -32603;
const REVERTED_CODE: i32 = 3;
const SYNC_TIMEOUT_CODE: i32 = 4;
const SYNC_NONCE_GAP_CODE: i32 = 6;

impl RpcError {
    /// The JSON-RPC error code.
    pub fn code(&self) -> i32 {
        match self {
            Self::InvalidParams(_) => INVALID_PARAMS_CODE,
            Self::Reverted(_) => REVERTED_CODE,
            Self::Refused(_) | Self::HistoryUnavailable { .. } => REFUSED_CODE,
            Self::LimitExceeded(_) => LIMIT_CODE,
            Self::TimedOut(_) => TIMEOUT_CODE,
            Self::SyncTimeout { .. } => SYNC_TIMEOUT_CODE,
            Self::SyncNonceGap { .. } => SYNC_NONCE_GAP_CODE,
            Self::Internal(_) => INTERNAL_CODE,
        }
    }

    /// A refusal in the words of whoever refused.
    pub(super) fn refused(reason: impl ToString) -> Self {
        Self::Refused(reason.to_string())
    }

    /// A fault of this node: logged here, since the caller can do nothing about it.
    pub(super) fn internal(reason: impl ToString) -> Self {
        let reason = reason.to_string();
        tracing::error!(%reason, "JSON-RPC call failed");
        Self::Internal(reason)
    }
}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        let (code, message) = (error.code(), error.to_string());
        match error {
            RpcError::Reverted(output) => Self::owned(code, message, Some(output)),
            RpcError::SyncTimeout { transaction, .. } => Self::owned(code, message, Some(transaction)),
            RpcError::SyncNonceGap { expected } => Self::owned(code, message, Some(format!("{expected:#x}"))),
            _ => Self::owned(code, message, None::<()>),
        }
    }
}

/// `execution reverted`, with the reason when the output is Solidity's `Error(string)` or `Panic(uint256)`.
fn revert_message(output: &[u8]) -> String {
    match decode_error_string(output).or_else(|| decode_panic(output)) {
        Some(reason) => format!("execution reverted: {reason}"),
        None => "execution reverted".into(),
    }
}

const ERROR_SELECTOR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
const PANIC_SELECTOR: [u8; 4] = [0x4e, 0x48, 0x7b, 0x71];

/// ABI decoding of one string: offset, length, bytes. Output is the contract's, so nothing is trusted.
fn decode_error_string(output: &[u8]) -> Option<String> {
    let body = output.strip_prefix(&ERROR_SELECTOR)?;
    let offset = word_at(body, 0)?;
    let length = word_at(body, offset)?;
    let start = offset.checked_add(32)?;
    let text = body.get(start..start.checked_add(length)?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn decode_panic(output: &[u8]) -> Option<String> {
    let body = output.strip_prefix(&PANIC_SELECTOR)?;
    let code = U256::from_be_slice(body.get(..32)?);
    let known = match code.try_into().unwrap_or(u64::MAX) {
        0x00 => "generic panic",
        0x01 => "assert(false)",
        0x11 => "arithmetic underflow or overflow",
        0x12 => "division or modulo by zero",
        0x21 => "enum overflow",
        0x22 => "invalid encoded storage byte array accessed",
        0x31 => "out-of-bounds array access; popping on an empty array",
        0x32 => "out-of-bounds access of an array or bytesN",
        0x41 => "out of memory",
        0x51 => "uninitialized function",
        _ => return Some(format!("unknown panic code: {code:#x}")),
    };
    Some(known.into())
}

fn word_at(body: &[u8], offset: usize) -> Option<usize> {
    let word = body.get(offset..offset.checked_add(32)?)?;
    U256::from_be_slice(word).try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error_string(text: &[u8]) -> Vec<u8> {
        let mut output = ERROR_SELECTOR.to_vec();
        output.extend_from_slice(&U256::from(32).to_be_bytes::<32>());
        output.extend_from_slice(&U256::from(text.len()).to_be_bytes::<32>());
        output.extend_from_slice(text);
        output.resize(4 + 64 + text.len().next_multiple_of(32), 0);
        output
    }

    #[test]
    fn a_revert_reason_is_decoded_and_the_bytes_are_kept() {
        let output = Bytes::from(error_string(b"not the owner"));
        let error = ErrorObjectOwned::from(RpcError::Reverted(output.clone()));
        assert_eq!((error.code(), error.message()), (3, "execution reverted: not the owner"));
        assert_eq!(error.data().unwrap().get(), format!("\"{output}\""));
    }

    #[test]
    fn panics_have_the_usual_names() {
        let mut output = PANIC_SELECTOR.to_vec();
        output.extend_from_slice(&U256::from(0x11).to_be_bytes::<32>());
        assert_eq!(revert_message(&output), "execution reverted: arithmetic underflow or overflow");
        output[34] = 1;
        assert_eq!(revert_message(&output), "execution reverted: unknown panic code: 0x111");
    }

    #[test]
    fn hostile_revert_data_gives_the_bare_message() {
        let huge = U256::MAX.to_be_bytes::<32>();
        let mut lying_offset = ERROR_SELECTOR.to_vec();
        lying_offset.extend_from_slice(&huge);
        let mut lying_length = ERROR_SELECTOR.to_vec();
        lying_length.extend_from_slice(&U256::from(32).to_be_bytes::<32>());
        lying_length.extend_from_slice(&huge);
        let truncated = &error_string(b"hello")[..70];
        for output in
            [&b""[..], b"\x08\xc3\x79\xa0", b"\x4e\x48\x7b\x71\x01", &lying_offset, &lying_length, truncated]
        {
            assert_eq!(revert_message(output), "execution reverted");
        }
    }
}
