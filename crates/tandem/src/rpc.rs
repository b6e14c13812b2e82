//! JSON-RPC calls over [`crate::http`].

use crate::http::{Connection, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// A JSON-RPC endpoint.
pub struct Rpc {
    connection: Connection,
    next_id: u64,
}

/// A call without a result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The server did not answer.
    #[error("{url} does not answer: {source}")]
    Unreachable {
        /// Its address.
        url: Url,
        /// What happened.
        source: std::io::Error,
    },
    /// The answer is not JSON-RPC.
    #[error("{url} answered {method} with something else than JSON-RPC (HTTP {status})")]
    Unreadable {
        /// Its address.
        url: Url,
        /// What was called.
        method: String,
        /// HTTP status.
        status: u16,
    },
    /// The server refused the call.
    #[error("{method} failed: {message} (code {code})")]
    Refused {
        /// What was called.
        method: String,
        /// JSON-RPC error code.
        code: i64,
        /// The server's words.
        message: String,
    },
}

/// The error object of an answer.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorObject {
    /// Code.
    pub code: i64,
    /// Text.
    pub message: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    error: Option<ErrorObject>,
}

impl Rpc {
    /// An endpoint at `url`.
    pub fn new(url: Url, timeout: Duration) -> Self {
        Self { connection: Connection::new(url, timeout), next_id: 1 }
    }

    /// Its address.
    pub fn url(&self) -> &Url {
        self.connection.url()
    }

    /// Calls a method. A missing or null result reads as `T`'s null: use `Option` or `Value` where that may be.
    pub async fn call<T: for<'a> Deserialize<'a>>(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<T, RpcError> {
        let id = self.next_id;
        self.next_id += 1;
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        let url = self.connection.url().clone();
        let response = self
            .connection
            .exchange(&url.post(body.as_bytes()))
            .await
            .map_err(|source| RpcError::Unreachable { url: url.clone(), source })?;
        let unreadable =
            || RpcError::Unreadable { url: url.clone(), method: method.into(), status: response.status };
        let answer: Answer<T> = serde_json::from_slice(&response.body).map_err(|_| unreadable())?;
        match (answer.result, answer.error) {
            (_, Some(error)) => {
                Err(RpcError::Refused { method: method.into(), code: error.code, message: error.message })
            }
            (Some(result), None) => Ok(result),
            (None, None) => serde_json::from_value(Value::Null).map_err(|_| unreadable()),
        }
    }

    /// Calls a method that answers with a hex quantity.
    pub async fn quantity(&mut self, method: &str, params: Value) -> Result<u128, RpcError> {
        let text: String = self.call(method, params).await?;
        parse_quantity(&text).ok_or_else(|| RpcError::Unreadable {
            url: self.url().clone(),
            method: method.into(),
            status: 200,
        })
    }
}

/// `0x1f` as a number.
pub fn parse_quantity(text: &str) -> Option<u128> {
    u128::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
