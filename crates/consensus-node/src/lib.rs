//! consensusd: the event loop around the core, REST and metrics.
