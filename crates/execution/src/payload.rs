//! The payload format (specs/state_hash.md, S-4): a version byte, then the borsh encoding of the lanes.
//!
//! `version u8 = 1 ‖ lane count u32 ‖ per lane: transaction count u32 ‖ per transaction: length u32 ‖ EIP-2718 bytes`,
//! integers little-endian. The canonical order of a block's transactions is (lane, index in the lane). A later
//! version adds access sets behind the lanes.

use alloy_primitives::{B256, Bytes};
use types::limits::{PAYLOAD_BYTES_MAX, TRANSACTION_BYTES_MAX};

/// First byte of an encoded payload.
pub const PAYLOAD_VERSION: u8 = 1;

/// Lanes in one payload.
pub const LANES_MAX: usize = 64;

/// A block's transactions, in lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The lanes, in order.
    pub lanes: Vec<Lane>,
}

/// Transactions that run one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// EIP-2718 bytes, in order.
    pub transactions: Vec<Bytes>,
}

/// Bytes that are no payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Longer than a payload may be.
    #[error("payload has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Unknown version byte.
    #[error("payload version is {version}, this node reads {PAYLOAD_VERSION}")]
    Version {
        /// Version found.
        version: u8,
    },
    /// The bytes end too early.
    #[error("payload ends at byte {length} where {expected} more were announced")]
    Truncated {
        /// Bytes given.
        length: usize,
        /// Bytes missing at least.
        expected: usize,
    },
    /// Bytes after the last lane.
    #[error("payload has {extra} bytes after its last lane")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// Too many lanes.
    #[error("payload has {lanes} lanes, at most {LANES_MAX} are allowed")]
    TooManyLanes {
        /// Lanes announced.
        lanes: u32,
    },
    /// A lane without transactions: a payload has one encoding only.
    #[error("lane {lane} is empty")]
    EmptyLane {
        /// Which lane.
        lane: usize,
    },
    /// A transaction of impossible size.
    #[error(
        "transaction {index} of lane {lane} has {length} bytes, allowed are 1 to {TRANSACTION_BYTES_MAX}"
    )]
    TransactionLength {
        /// Which lane.
        lane: usize,
        /// Which transaction in it.
        index: usize,
        /// Its length.
        length: u32,
    },
}

impl Payload {
    /// A payload of one lane, or of none when there is no transaction.
    pub fn single_lane(transactions: Vec<Bytes>) -> Self {
        let lanes = if transactions.is_empty() { Vec::new() } else { vec![Lane { transactions }] };
        Self { lanes }
    }

    /// Encoded bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_length());
        bytes.push(PAYLOAD_VERSION);
        put_count(&mut bytes, self.lanes.len());
        for lane in &self.lanes {
            put_count(&mut bytes, lane.transactions.len());
            for transaction in &lane.transactions {
                put_count(&mut bytes, transaction.len());
                bytes.extend_from_slice(transaction);
            }
        }
        bytes
    }

    /// Length of [`Self::encode`].
    pub fn encoded_length(&self) -> usize {
        let lane_length = |lane: &Lane| 4 + lane.transactions.iter().map(|t| 4 + t.len()).sum::<usize>();
        5 + self.lanes.iter().map(lane_length).sum::<usize>()
    }

    /// Parses encoded bytes. The transactions share one copy of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(PayloadError::TooLong { length: bytes.len(), max: PAYLOAD_BYTES_MAX });
        }
        let mut reader = Reader { bytes: Bytes::copy_from_slice(bytes), at: 0 };
        match reader.take(1)?[0] {
            PAYLOAD_VERSION => {}
            version => return Err(PayloadError::Version { version }),
        }
        let count = reader.count()?;
        if count as usize > LANES_MAX {
            return Err(PayloadError::TooManyLanes { lanes: count });
        }
        let lanes = (0..count as usize).map(|lane| reader.lane(lane)).collect::<Result<_, _>>()?;
        match bytes.len() - reader.at {
            0 => Ok(Self { lanes }),
            extra => Err(PayloadError::TrailingBytes { extra }),
        }
    }

    /// `payload_commitment` of encoded bytes.
    pub fn commitment(encoded: &[u8]) -> B256 {
        crypto::merkle::payload_root(encoded)
    }

    /// All transactions in canonical order.
    pub fn transactions(&self) -> impl Iterator<Item = &Bytes> {
        self.lanes.iter().flat_map(|lane| &lane.transactions)
    }
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("payloads are built under PAYLOAD_BYTES_MAX, far below 4 GiB");
    bytes.extend_from_slice(&count.to_le_bytes());
}

struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    fn take(&mut self, length: usize) -> Result<Bytes, PayloadError> {
        let left = self.bytes.len() - self.at;
        if left < length {
            return Err(PayloadError::Truncated { length: self.bytes.len(), expected: length - left });
        }
        let slice = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(slice)
    }

    fn count(&mut self) -> Result<u32, PayloadError> {
        let raw = self.take(4)?;
        Ok(u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
    }

    fn lane(&mut self, lane: usize) -> Result<Lane, PayloadError> {
        let count = self.count()?;
        if count == 0 {
            return Err(PayloadError::EmptyLane { lane });
        }
        // Announced counts reserve nothing: each transaction is paid for by bytes that are really there.
        let mut transactions = Vec::new();
        for index in 0..count as usize {
            let length = self.count()?;
            if length == 0 || length as usize > TRANSACTION_BYTES_MAX {
                return Err(PayloadError::TransactionLength { lane, index, length });
            }
            transactions.push(self.take(length as usize)?);
        }
        Ok(Lane { transactions })
    }
}
