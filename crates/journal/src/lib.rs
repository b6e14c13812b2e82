//! Consensus disk: the sign-state log and the block store.
