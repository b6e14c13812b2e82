//! Limits every node agrees on. Each bounds what one peer, proposer or file can make a node hold or do.

/// Validators in one set.
pub const VALIDATORS_MAX: usize = 1024;

/// Sum of a set's stake. Leaves room for `total * numerator` in u128 with a numerator up to 255.
pub const TOTAL_STAKE_MAX: u128 = 1 << 120;

/// Encoded payload in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;

/// One transaction's EIP-2718 bytes.
pub const TRANSACTION_BYTES_MAX: usize = 128 << 10;

/// Encoded header in bytes: fixed fields, two certificates, a timeout certificate with one group per validator.
pub const HEADER_BYTES_MAX: usize = 512 << 10;

/// Encoded system inputs in bytes.
pub const SYSTEM_INPUTS_BYTES_MAX: usize = 256 << 10;

/// One piece of evidence in bytes: room for a timeout certificate of 1,024 validators in 170 groups.
pub const EVIDENCE_BYTES_MAX: usize = 32 << 10;

/// All evidence in one block, in bytes of its items.
pub const EVIDENCE_BLOCK_BYTES_MAX: usize = 2 * EVIDENCE_BYTES_MAX;

/// Pieces of evidence in one block.
pub const EVIDENCE_PER_BLOCK_MAX: usize = 8;

/// One consensus message or one fetched block on the wire, in bytes.
pub const MESSAGE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 2 * HEADER_BYTES_MAX + SYSTEM_INPUTS_BYTES_MAX;

/// Blocks in one fetch response.
pub const FETCH_BLOCKS_MAX: u32 = 64;

/// Bytes of one fetch response. At least one block always fits.
pub const FETCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (1 << 20);

/// Groups of equal timeouts in one timeout certificate.
pub const TIMEOUT_GROUPS_MAX: usize = VALIDATORS_MAX;

const _: () = assert!(FETCH_BYTES_MAX > MESSAGE_BYTES_MAX);
const _: () = assert!(EVIDENCE_BLOCK_BYTES_MAX * 2 <= SYSTEM_INPUTS_BYTES_MAX);
const _: () = assert!(TOTAL_STAKE_MAX.leading_zeros() >= 7);
