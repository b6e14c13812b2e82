//! The contract between consensusd and executord. The only user of tonic.
