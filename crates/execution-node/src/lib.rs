//! executord: engine service, chain, JSON-RPC and metrics.
