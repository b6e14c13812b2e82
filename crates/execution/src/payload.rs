//! The payload format (specs/lanes.md, L-2): which transactions run in which lane, and what each of them touches.
//!
//! Decoding checks everything that can be seen without executing: that lanes are independent, that no entry of the
//! object table is superfluous, that segments list exactly what they take over. What remains for execution is that
//! the access sets and the listed values are true.
//!
//! # Invariants
//! - A payload has one encoding: numbers are minimal, tables and sets ascend strictly.
//! - Announced counts reserve nothing: memory grows with bytes that are really there, and by a bounded factor.

use crate::{Access, AccessSet, AccountInfo, InvalidPayloadCode, Object, ObjectValue};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use std::ops::Range;
use types::limits::{PAYLOAD_BYTES_MAX, TRANSACTION_BYTES_MAX};

/// First byte of an encoded payload.
pub const PAYLOAD_VERSION: u8 = 2;

/// Lanes in one payload.
pub const LANES_MAX: usize = 64;

/// Segments of all lanes of one payload together.
pub const SEGMENTS_MAX: usize = 256;

/// Objects in one payload.
pub const OBJECTS_MAX: usize = 1 << 18;

/// A block's transactions in lanes, with all they touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Every object that some transaction touches, in ascending order.
    pub objects: Vec<TableEntry>,
    /// The lanes, in order.
    pub lanes: Vec<Lane>,
    /// The access sets of all transactions, one after the other.
    entries: Vec<Entry>,
}

/// An object of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Which.
    pub object: Object,
    /// Who may touch it.
    pub owner: Owner,
}

/// Who may touch an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Transactions of this lane only; they may write it.
    Lane(u8),
    /// Everybody; nobody writes it.
    Shared,
}

/// Transactions that run one after another, independent of all other lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Its pieces, in order. A lane that is not cut is one segment.
    pub segments: Vec<Segment>,
}

impl Lane {
    /// Number of transactions.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.transactions.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A piece of a lane that can run beside the others, because it lists what they would hand over to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Objects that earlier segments of the lane wrote and this one touches, by their index in the table, ascending,
    /// with their values at its beginning.
    pub taken: Vec<(u32, ObjectValue)>,
    /// Its transactions, in order.
    pub transactions: Vec<PayloadTx>,
}

/// A transaction in a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadTx {
    /// EIP-2718 bytes.
    pub encoded: Bytes,
    /// Where in [`Payload::entries`] its access set is.
    access: Range<u32>,
}

impl PayloadTx {
    /// A transaction whose access set is at `access` in the list that [`Payload::numbered`] takes.
    pub(crate) fn new(encoded: Bytes, access: Range<u32>) -> Self {
        Self { encoded, access }
    }
}

/// An entry of an access set: an index into the object table, and whether the object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index into [`Payload::objects`].
    pub object: u32,
    /// Whether it is written.
    pub written: bool,
}

/// A lane as [`Payload::new`] takes it: segments of transactions with their access sets.
pub type LanePlan = Vec<SegmentPlan>;

/// A segment as [`Payload::new`] takes it.
#[derive(Clone, Debug, Default)]
pub struct SegmentPlan {
    /// What it takes over, in ascending order of the objects.
    pub taken: Vec<(Object, ObjectValue)>,
    /// EIP-2718 bytes and access set of each transaction.
    pub transactions: Vec<(Bytes, AccessSet)>,
}

/// Why bytes, or lanes, are no payload.
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
    /// A number that is not encoded as short as possible, or too large.
    #[error("number before byte {at} of the payload is not minimal or above 2^64 - 1")]
    Number {
        /// Where it ends.
        at: usize,
    },
    /// A byte or value that the format does not have there.
    #[error("{what} before byte {at} of the payload")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where it ends.
        at: usize,
    },
    /// More lanes, segments or objects than allowed.
    #[error("payload has {count} {what}, at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
        /// How many are allowed.
        max: usize,
    },
    /// A lane without segments, a segment without transactions.
    #[error("lane {lane} has {what}")]
    Empty {
        /// Which lane.
        lane: usize,
        /// What is missing.
        what: &'static str,
    },
    /// A transaction of impossible size.
    #[error("a transaction of lane {lane} has {length} bytes, allowed are 1 to {TRANSACTION_BYTES_MAX}")]
    TransactionLength {
        /// Which lane.
        lane: usize,
        /// Its length.
        length: u64,
    },
    /// The object table, an access set or a list of taken values does not ascend.
    #[error("{what} before byte {at} of the payload are not in ascending order")]
    Order {
        /// Which list.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// An access set names an object beyond the table.
    #[error("lane {lane} refers to object {index}, the table has {objects}")]
    UnknownObject {
        /// Which lane.
        lane: usize,
        /// The index.
        index: u64,
        /// Objects in the table.
        objects: usize,
    },
    /// Lanes share an object that one of them writes.
    #[error("lane {lane} {what} {object}, which belongs to {owner:?}: lanes are not independent")]
    Dependent {
        /// Which lane.
        lane: usize,
        /// What it does to it.
        what: &'static str,
        /// The object.
        object: Object,
        /// Who may touch it.
        owner: Owner,
    },
    /// An object of the table that nobody touches.
    #[error("{object} is in the object table, but no transaction touches it")]
    Unused {
        /// The object.
        object: Object,
    },
    /// A segment lists too little or too much.
    #[error("segment {segment} of lane {lane} {what} {object}")]
    Taken {
        /// Which lane.
        lane: usize,
        /// Which segment of it.
        segment: usize,
        /// What is wrong.
        what: &'static str,
        /// With what.
        object: Object,
    },
}

impl PayloadError {
    /// What kind of fault it is.
    pub fn code(&self) -> InvalidPayloadCode {
        match self {
            Self::TooLong { .. } | Self::TransactionLength { .. } => InvalidPayloadCode::TooLarge,
            Self::TooMany { what: "lanes" | "segments", .. } => InvalidPayloadCode::TooManyLanes,
            Self::TooMany { .. } => InvalidPayloadCode::TooLarge,
            Self::Order { .. } => InvalidPayloadCode::Order,
            Self::Dependent { .. } => InvalidPayloadCode::FalseIndependence,
            Self::Unused { .. } => InvalidPayloadCode::UnusedEntry,
            Self::Taken { .. } => InvalidPayloadCode::SegmentValue,
            _ => InvalidPayloadCode::Encoding,
        }
    }
}

impl Payload {
    /// Makes a payload of lanes and checks it as [`Self::decode`] would.
    pub fn new(lanes: Vec<LanePlan>) -> Result<Self, PayloadError> {
        let count = lanes.len() as u64;
        at_most("lanes", count, LANES_MAX)?;
        let (objects, numbers) = table(&lanes)?;
        let mut payload = Self { objects, lanes: Vec::with_capacity(lanes.len()), entries: Vec::new() };
        for lane in lanes {
            let segments = lane.into_iter().map(|plan| payload.place(plan, &numbers)).collect();
            payload.lanes.push(Lane { segments });
        }
        payload.check()?;
        Ok(payload)
    }

    /// [`Self::new`] of lanes whose objects are numbered already.
    pub(crate) fn numbered(
        objects: Vec<TableEntry>,
        lanes: Vec<Lane>,
        entries: Vec<Entry>,
    ) -> Result<Self, PayloadError> {
        at_most("lanes", lanes.len() as u64, LANES_MAX)?;
        at_most("objects", objects.len() as u64, OBJECTS_MAX)?;
        let payload = Self { objects, lanes, entries };
        payload.check()?;
        Ok(payload)
    }

    fn place(&mut self, plan: SegmentPlan, numbers: &Numbers) -> Segment {
        let taken = plan.taken.into_iter().map(|(object, value)| (numbers.of(&object), value)).collect();
        let transactions = plan.transactions.into_iter();
        let transactions = transactions
            .map(|(encoded, set)| {
                let start = self.entries.len() as u32;
                self.entries.extend(
                    set.iter()
                        .map(|access| Entry { object: numbers.of(&access.object), written: access.written }),
                );
                PayloadTx { encoded, access: start..self.entries.len() as u32 }
            })
            .collect();
        Segment { taken, transactions }
    }

    /// The entries of a transaction's access set, in ascending order of the objects.
    pub fn access(&self, transaction: &PayloadTx) -> &[Entry] {
        let Range { start, end } = transaction.access;
        self.entries.get(start as usize..end as usize).unwrap_or_default()
    }

    /// A transaction's access set.
    pub fn access_set(&self, transaction: &PayloadTx) -> AccessSet {
        let access = |entry: &Entry| Access {
            object: self.objects[entry.object as usize].object,
            written: entry.written,
        };
        AccessSet::new(self.access(transaction).iter().map(access).collect())
    }

    /// Encoded bytes that say what transactions touch: all but the transactions themselves.
    pub fn access_bytes(&self) -> usize {
        let transactions: usize = self.transactions().map(|tx| tx.len()).sum();
        self.encode().len() - transactions
    }

    /// Encoded bytes.
    pub fn encode(&self) -> Vec<u8> {
        let transactions: usize = self.transactions().map(|tx| 3 + tx.len()).sum();
        let estimate = 16 + transactions + 4 * self.entries.len() + 35 * self.objects.len();
        let mut bytes = Vec::with_capacity(estimate);
        bytes.push(PAYLOAD_VERSION);
        put_objects(&mut bytes, &self.objects);
        put_number(&mut bytes, self.lanes.len() as u64);
        for lane in &self.lanes {
            put_number(&mut bytes, lane.segments.len() as u64);
            for segment in &lane.segments {
                self.put_segment(&mut bytes, segment);
            }
        }
        bytes
    }

    fn put_segment(&self, bytes: &mut Vec<u8>, segment: &Segment) {
        put_number(bytes, segment.taken.len() as u64);
        for (object, value) in &segment.taken {
            put_number(bytes, u64::from(*object));
            put_value(bytes, value);
        }
        put_number(bytes, segment.transactions.len() as u64);
        for transaction in &segment.transactions {
            put_number(bytes, transaction.encoded.len() as u64);
            bytes.extend_from_slice(&transaction.encoded);
            let entries = self.access(transaction);
            put_number(bytes, entries.len() as u64);
            let mut next = 0;
            for entry in entries {
                put_number(bytes, u64::from(entry.object - next) << 1 | u64::from(entry.written));
                next = entry.object + 1;
            }
        }
    }

    /// Parses encoded bytes and checks all that can be checked without executing. The transactions share one copy of
    /// the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        Self::parse(bytes, false)
    }

    fn parse(bytes: &[u8], outline: bool) -> Result<Self, PayloadError> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(PayloadError::TooLong { length: bytes.len(), max: PAYLOAD_BYTES_MAX });
        }
        let mut reader = Reader { bytes: Bytes::copy_from_slice(bytes), at: 0, outline };
        match reader.byte()? {
            PAYLOAD_VERSION => {}
            version => return Err(PayloadError::Version { version }),
        }
        let mut payload = Self { objects: reader.objects()?, ..Self::default() };
        let count = reader.number()?;
        at_most("lanes", count, LANES_MAX)?;
        let mut segments = 0;
        for lane in 0..count as usize {
            let lane = reader.lane(lane, &mut payload, &mut segments)?;
            payload.lanes.push(lane);
        }
        match bytes.len() - reader.at {
            0 => {}
            extra => return Err(PayloadError::TrailingBytes { extra }),
        }
        payload.check()?;
        Ok(payload)
    }

    /// The encoding without the transactions' bytes: what is worth keeping where those are kept already.
    pub fn into_outline(mut self) -> Vec<u8> {
        let segments = self.lanes.iter_mut().flat_map(|lane| &mut lane.segments);
        for transaction in segments.flat_map(|segment| &mut segment.transactions) {
            transaction.encoded = Bytes::new();
        }
        self.encode()
    }

    /// Parses what [`Self::into_outline`] gave. The transactions are empty.
    pub fn decode_outline(bytes: &[u8]) -> Result<Self, PayloadError> {
        Self::parse(bytes, true)
    }

    /// `payload_commitment` of encoded bytes.
    pub fn commitment(encoded: &[u8]) -> B256 {
        crypto::merkle::payload_root(encoded)
    }

    /// All transactions in canonical order.
    pub fn transactions(&self) -> impl Iterator<Item = &Bytes> {
        let segments = self.lanes.iter().flat_map(|lane| &lane.segments);
        segments.flat_map(|segment| &segment.transactions).map(|transaction| &transaction.encoded)
    }

    /// What the bytes alone show: independence, use of every object, and what segments must list (L-3).
    fn check(&self) -> Result<(), PayloadError> {
        let segments = self.lanes.iter().map(|lane| lane.segments.len() as u64).sum();
        at_most("segments", segments, SEGMENTS_MAX)?;
        let mut used = vec![false; self.objects.len()];
        let mut written = vec![false; self.objects.len()];
        for (number, lane) in self.lanes.iter().enumerate() {
            if lane.segments.is_empty() {
                return Err(PayloadError::Empty { lane: number, what: "no segment" });
            }
            for (position, segment) in lane.segments.iter().enumerate() {
                self.check_segment((number, position), segment, &mut used, &mut written)?;
            }
        }
        match used.iter().position(|used| !used) {
            None => Ok(()),
            Some(index) => Err(PayloadError::Unused { object: self.objects[index].object }),
        }
    }

    fn check_segment(
        &self,
        (lane, position): (usize, usize),
        segment: &Segment,
        used: &mut [bool],
        written: &mut [bool],
    ) -> Result<(), PayloadError> {
        if segment.transactions.is_empty() {
            return Err(PayloadError::Empty { lane, what: "a segment without transactions" });
        }
        let mut needed = Vec::new();
        for entry in segment.transactions.iter().flat_map(|transaction| self.access(transaction)) {
            let TableEntry { object, owner } = self.objects[entry.object as usize];
            let allowed = match owner {
                Owner::Lane(owner) => usize::from(owner) == lane,
                Owner::Shared => !entry.written,
            };
            if !allowed {
                let what = if entry.written { "writes" } else { "reads" };
                return Err(PayloadError::Dependent { lane, what, object, owner });
            }
            used[entry.object as usize] = true;
            // Objects belong to one lane, so what is written was written by an earlier segment of this one.
            if position > 0 && written[entry.object as usize] {
                needed.push(entry.object);
            }
        }
        for entry in segment.transactions.iter().flat_map(|transaction| self.access(transaction)) {
            written[entry.object as usize] |= entry.written;
        }
        needed.sort_unstable();
        needed.dedup();
        self.check_taken((lane, position), segment, &needed)
    }

    fn check_taken(
        &self,
        (lane, segment): (usize, usize),
        plan: &Segment,
        needed: &[u32],
    ) -> Result<(), PayloadError> {
        let listed = || plan.taken.iter().map(|(object, _)| object);
        if needed.iter().eq(listed()) {
            return Ok(());
        }
        let taken: Vec<u32> = listed().copied().collect();
        let missing = needed.iter().find(|object| taken.binary_search(object).is_err());
        let (what, index) = match missing {
            Some(object) => ("does not list the value it takes over of", *object),
            None => {
                let extra = taken.iter().find(|object| needed.binary_search(object).is_err());
                ("lists a value that it does not take over, of", extra.copied().unwrap_or_default())
            }
        };
        let object = self.objects[index as usize].object;
        Err(PayloadError::Taken { lane, segment, what, object })
    }
}

fn at_most(what: &'static str, count: u64, max: usize) -> Result<(), PayloadError> {
    if count > max as u64 { Err(PayloadError::TooMany { what, count, max }) } else { Ok(()) }
}

/// Where objects stand in the table.
struct Numbers(Vec<Object>);

impl Numbers {
    fn of(&self, object: &Object) -> u32 {
        // The table was made of the same lanes; an object that only a list of taken values names stands nowhere, and
        // the check that follows refuses the number.
        self.0.binary_search(object).unwrap_or(0) as u32
    }
}

/// The object table of lanes: owned where somebody writes or only one lane looks.
fn table(lanes: &[LanePlan]) -> Result<(Vec<TableEntry>, Numbers), PayloadError> {
    let mut all: Vec<(Object, u8, bool)> = Vec::new();
    for (lane, plan) in lanes.iter().enumerate() {
        let sets = plan.iter().flat_map(|segment| &segment.transactions).map(|(_, set)| set);
        all.extend(sets.flatten().map(|access| (access.object, lane as u8, access.written)));
    }
    all.sort_unstable();
    let groups = all.chunk_by(|a, b| a.0 == b.0);
    let objects: Vec<TableEntry> = groups
        .map(|group| {
            let (object, lane, _) = group[0];
            let shared = group.iter().any(|(_, other, _)| *other != lane);
            // Of several lanes, one that writes owns the object: the others are found by the check.
            let writer = group.iter().find(|(_, _, written)| *written);
            let owner = match (shared, writer) {
                (true, None) => Owner::Shared,
                (_, Some((_, writer, _))) => Owner::Lane(*writer),
                (false, None) => Owner::Lane(lane),
            };
            TableEntry { object, owner }
        })
        .collect();
    at_most("objects", objects.len() as u64, OBJECTS_MAX)?;
    let numbers = Numbers(objects.iter().map(|entry| entry.object).collect());
    Ok((objects, numbers))
}

impl<'a> IntoIterator for &'a AccessSet {
    type Item = &'a Access;
    type IntoIter = std::slice::Iter<'a, Access>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Owner byte of an object that nobody writes.
const SHARED: u8 = 0xfe;
/// Owner byte of an account that is only named for its slots.
const NO_ACCOUNT: u8 = 0xff;

/// `address count ‖ per address: address ‖ owner of the account ‖ slot count ‖ per slot: slot ‖ owner`.
fn put_objects(bytes: &mut Vec<u8>, objects: &[TableEntry]) {
    let groups = || objects.chunk_by(|a, b| a.object.address == b.object.address);
    put_number(bytes, groups().count() as u64);
    for group in groups() {
        bytes.extend_from_slice(group[0].object.address.as_slice());
        let (account, slots) = match group[0].object.slot {
            None => (owner_byte(group[0].owner), &group[1..]),
            Some(_) => (NO_ACCOUNT, group),
        };
        bytes.push(account);
        put_number(bytes, slots.len() as u64);
        for entry in slots {
            put_word(bytes, entry.object.slot.unwrap_or_default());
            bytes.push(owner_byte(entry.owner));
        }
    }
}

fn owner_byte(owner: Owner) -> u8 {
    match owner {
        Owner::Lane(lane) => lane,
        Owner::Shared => SHARED,
    }
}

/// LEB128: seven bits a byte, the lowest first, the top bit says that more follow.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Length and big-endian bytes without leading zeros.
fn put_word(bytes: &mut Vec<u8>, word: U256) {
    let length = word.byte_len();
    bytes.push(length as u8);
    bytes.extend_from_slice(&word.to_be_bytes::<32>()[32 - length..]);
}

const ACCOUNT_ABSENT: u8 = 0;
const ACCOUNT_PLAIN: u8 = 1;
const ACCOUNT_WITH_CODE: u8 = 2;

/// An account is a tag, and then nonce, balance and with code its hash; a slot is its word.
fn put_value(bytes: &mut Vec<u8>, value: &ObjectValue) {
    match value {
        ObjectValue::Slot(word) => put_word(bytes, *word),
        ObjectValue::Account(None) => bytes.push(ACCOUNT_ABSENT),
        ObjectValue::Account(Some(info)) => {
            bytes.push(if info.has_code() { ACCOUNT_WITH_CODE } else { ACCOUNT_PLAIN });
            put_number(bytes, info.nonce);
            put_word(bytes, info.balance);
            if info.has_code() {
                bytes.extend_from_slice(info.code_hash.as_slice());
            }
        }
    }
}

struct Reader {
    bytes: Bytes,
    at: usize,
    /// Whether transactions have no bytes.
    outline: bool,
}

impl Reader {
    fn take(&mut self, length: usize) -> Result<Range<usize>, PayloadError> {
        let left = self.bytes.len() - self.at;
        if left < length {
            return Err(PayloadError::Truncated { length: self.bytes.len(), expected: length - left });
        }
        let range = self.at..self.at + length;
        self.at = range.end;
        Ok(range)
    }

    fn byte(&mut self) -> Result<u8, PayloadError> {
        let at = self.take(1)?.start;
        Ok(self.bytes[at])
    }

    fn number(&mut self) -> Result<u64, PayloadError> {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(PayloadError::Number { at: self.at });
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
            if shift > 63 {
                return Err(PayloadError::Number { at: self.at });
            }
        }
    }

    fn word(&mut self) -> Result<U256, PayloadError> {
        let length = self.byte()?;
        if length > 32 {
            return Err(PayloadError::Malformed { what: "a word of more than 32 bytes", at: self.at });
        }
        let range = self.take(usize::from(length))?;
        let word = &self.bytes[range];
        if word.first() == Some(&0) {
            return Err(PayloadError::Malformed { what: "a word with leading zeros", at: self.at });
        }
        Ok(U256::from_be_slice(word))
    }

    fn address(&mut self) -> Result<Address, PayloadError> {
        let range = self.take(20)?;
        Ok(Address::from_slice(&self.bytes[range]))
    }

    fn owner(&mut self) -> Result<Option<Owner>, PayloadError> {
        match self.byte()? {
            NO_ACCOUNT => Ok(None),
            SHARED => Ok(Some(Owner::Shared)),
            lane if usize::from(lane) < LANES_MAX => Ok(Some(Owner::Lane(lane))),
            _ => Err(PayloadError::Malformed { what: "an owner that is no lane", at: self.at }),
        }
    }

    fn objects(&mut self) -> Result<Vec<TableEntry>, PayloadError> {
        let mut objects: Vec<TableEntry> = Vec::new();
        for _ in 0..self.number()? {
            let address = self.address()?;
            let account = self.owner()?;
            let slots = self.number()?;
            if account.is_none() && slots == 0 {
                return Err(PayloadError::Malformed { what: "an address without objects", at: self.at });
            }
            if let Some(owner) = account {
                self.push(&mut objects, TableEntry { object: Object::account(address), owner })?;
            }
            for _ in 0..slots {
                let slot = self.word()?;
                let malformed = PayloadError::Malformed { what: "a slot without owner", at: self.at };
                let owner = self.owner()?.ok_or(malformed)?;
                self.push(&mut objects, TableEntry { object: Object::slot(address, slot), owner })?;
            }
        }
        Ok(objects)
    }

    fn push(&self, objects: &mut Vec<TableEntry>, entry: TableEntry) -> Result<(), PayloadError> {
        if objects.last().is_some_and(|last| last.object >= entry.object) {
            return Err(PayloadError::Order { what: "objects", at: self.at });
        }
        objects.push(entry);
        at_most("objects", objects.len() as u64, OBJECTS_MAX)
    }

    fn lane(&mut self, lane: usize, payload: &mut Payload, segments: &mut u64) -> Result<Lane, PayloadError> {
        let count = self.number()?;
        *segments = segments.saturating_add(count);
        at_most("segments", *segments, SEGMENTS_MAX)?;
        let segments = (0..count).map(|_| self.segment(lane, payload)).collect::<Result<_, _>>()?;
        Ok(Lane { segments })
    }

    fn segment(&mut self, lane: usize, payload: &mut Payload) -> Result<Segment, PayloadError> {
        let mut segment = Segment::default();
        for _ in 0..self.number()? {
            let index = self.number()?;
            let object = known(lane, index, payload)?;
            if segment.taken.last().is_some_and(|(last, _)| *last >= object) {
                return Err(PayloadError::Order { what: "taken values", at: self.at });
            }
            let value = match payload.objects[object as usize].object.slot {
                None => ObjectValue::Account(self.account()?),
                Some(_) => ObjectValue::Slot(self.word()?),
            };
            segment.taken.push((object, value));
        }
        for _ in 0..self.number()? {
            let transaction = self.transaction(lane, payload)?;
            segment.transactions.push(transaction);
        }
        Ok(segment)
    }

    fn account(&mut self) -> Result<Option<AccountInfo>, PayloadError> {
        let tag = self.byte()?;
        if tag == ACCOUNT_ABSENT {
            return Ok(None);
        }
        if tag > ACCOUNT_WITH_CODE {
            return Err(PayloadError::Malformed { what: "an unknown kind of account", at: self.at });
        }
        let (nonce, balance) = (self.number()?, self.word()?);
        let code_hash = match tag {
            ACCOUNT_WITH_CODE => {
                let range = self.take(32)?;
                B256::from_slice(&self.bytes[range])
            }
            _ => KECCAK256_EMPTY,
        };
        let info = AccountInfo { nonce, balance, code_hash };
        if info.is_empty() || (tag == ACCOUNT_WITH_CODE) != info.has_code() {
            return Err(PayloadError::Malformed {
                what: "an account in a form it does not have",
                at: self.at,
            });
        }
        Ok(Some(info))
    }

    fn transaction(&mut self, lane: usize, payload: &mut Payload) -> Result<PayloadTx, PayloadError> {
        let length = self.number()?;
        if (length == 0) != self.outline || length > TRANSACTION_BYTES_MAX as u64 {
            return Err(PayloadError::TransactionLength { lane, length });
        }
        let range = self.take(length as usize)?;
        let start = payload.entries.len() as u32;
        let mut next = 0_u64;
        for _ in 0..self.number()? {
            let number = self.number()?;
            let index = next.saturating_add(number >> 1);
            let object = known(lane, index, payload)?;
            payload.entries.push(Entry { object, written: number & 1 == 1 });
            next = index + 1;
        }
        Ok(PayloadTx { encoded: self.bytes.slice(range), access: start..payload.entries.len() as u32 })
    }
}

fn known(lane: usize, index: u64, payload: &Payload) -> Result<u32, PayloadError> {
    let objects = payload.objects.len();
    if index >= objects as u64 {
        return Err(PayloadError::UnknownObject { lane, index, objects });
    }
    Ok(index as u32)
}
