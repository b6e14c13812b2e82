//! Positional parameters: each method says how many it takes and what each one is called.

use super::error::{RpcError, RpcResult};
use jsonrpsee::types::Params;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The parameters of one call, still unparsed.
pub(super) struct Args<'a>(Vec<&'a RawValue>);

impl<'a> Args<'a> {
    /// Splits the parameters; more than `max` is refused like in geth, since the surplus would be ignored.
    pub(super) fn new(params: &'a Params<'_>, max: usize) -> RpcResult<Self> {
        let Some(text) = params.as_str().filter(|text| *text != "null") else { return Ok(Self(Vec::new())) };
        if !text.starts_with('[') {
            return Err(RpcError::InvalidParams("non-array args: give the parameters as an array".into()));
        }
        let values: Vec<&RawValue> = serde_json::from_str(text)
            .map_err(|error| RpcError::InvalidParams(format!("parameters are not a JSON array: {error}")))?;
        if values.len() > max {
            return Err(RpcError::InvalidParams(format!("too many arguments, want at most {max}")));
        }
        Ok(Self(values))
    }

    /// The parameter at `index`; absent or null is refused.
    pub(super) fn required<T: Deserialize<'a>>(&self, index: usize, what: &str) -> RpcResult<T> {
        self.optional(index, what)?.ok_or_else(|| {
            RpcError::InvalidParams(format!("missing value for required argument {index} ({what})"))
        })
    }

    /// The parameter at `index`, if given and not null.
    pub(super) fn optional<T: Deserialize<'a>>(&self, index: usize, what: &str) -> RpcResult<Option<T>> {
        let Some(raw) = self.0.get(index) else { return Ok(None) };
        serde_json::from_str::<Option<T>>(raw.get())
            .map_err(|error| RpcError::InvalidParams(format!("invalid argument {index} ({what}): {error}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(text: &str, max: usize) -> RpcError {
        let params = Params::new(Some(text));
        match Args::new(&params, max) {
            Err(error) => error,
            Ok(args) => args.required::<u64>(0, "number").unwrap_err(),
        }
    }

    #[test]
    fn missing_surplus_and_malformed_parameters_are_named() {
        assert_eq!(error("[]", 1).to_string(), "missing value for required argument 0 (number)");
        assert_eq!(error("[null]", 1).to_string(), "missing value for required argument 0 (number)");
        assert_eq!(error("[1,2]", 1).to_string(), "too many arguments, want at most 1");
        assert!(error("{\"a\":1}", 1).to_string().starts_with("non-array args"));
        assert!(error("[\"x\"]", 1).to_string().starts_with("invalid argument 0 (number): invalid type"));
        assert_eq!(error("[]", 1).code(), -32602);
    }

    #[test]
    fn absent_params_are_an_empty_list() {
        for params in [Params::new(None), Params::new(Some("null")), Params::new(Some(" [] "))] {
            assert!(Args::new(&params, 0).unwrap().optional::<u64>(0, "x").unwrap().is_none());
        }
    }
}
