//! The transaction pool: a bounded, pure data structure.
