//! Executes a payload on a state view: receipts, state diff, hashes.
