//! Guesses which candidates of a batch meet, from their senders, recipients and arguments and from what earlier builds
//! learned. Those go into one group, which one thread runs in order.

use super::memory::{BuildMemory, kind_of};
use crate::RecoveredTx;
use alloy_consensus::Transaction;
use alloy_primitives::{
    Address,
    map::{DefaultHashBuilder, HashMap},
};
use std::hash::BuildHasher;

/// Arguments of a call that are looked at.
const ARGUMENTS: usize = 4;
/// A candidate counts for at most this much gas: limits are often far above what is used.
const WEIGHT_MAX: u64 = 100_000;
/// Candidates that a thread takes at once, at least.
const CHUNK: usize = 16;

/// Why candidates may meet.
#[derive(Hash)]
enum Key<'a> {
    /// The account itself: its nonce, its balance.
    Account(&'a Address),
    /// What a contract keeps about somebody.
    Entry(&'a Address, &'a [u8]),
    /// Anything of a contract.
    Contract(&'a Address),
}

/// A batch in pieces that probably do not meet.
pub(super) struct Groups {
    /// Numbers of candidates in order; the heaviest pieces come first.
    pub chunks: Vec<Vec<u32>>,
    /// The heaviest group's part of the whole, in percent.
    pub heaviest: u64,
}

/// Groups the candidates of a batch.
pub(super) fn group(batch: &[RecoveredTx], memory: &BuildMemory) -> Groups {
    if memory.is_blind() {
        let chunks = (0..batch.len() as u32).map(|number| vec![number]).collect();
        return Groups { chunks, heaviest: 0 };
    }
    let roots = join(batch, memory);
    let (mut sizes, mut weights) = (vec![0_usize; batch.len()], vec![0_u64; batch.len()]);
    for (root, transaction) in roots.iter().zip(batch) {
        sizes[*root as usize] += 1;
        weights[*root as usize] += transaction.gas_limit().min(WEIGHT_MAX);
    }
    let heaviest = 100 * weights.iter().max().copied().unwrap_or_default();
    let total: u64 = weights.iter().sum();

    // A large group is a chunk of its own; small ones share one until it is full.
    let mut places = vec![usize::MAX; batch.len()];
    let (mut chunks, mut open, mut open_size): (Vec<(u64, Vec<u32>)>, _, _) = (Vec::new(), None, 0);
    for (number, root) in roots.iter().map(|root| *root as usize).enumerate() {
        if places[root] == usize::MAX {
            let (size, weight) = (sizes[root], weights[root]);
            let place = match open {
                Some(place) if size < CHUNK => place,
                _ => {
                    chunks.push((0, Vec::with_capacity(size.max(2 * CHUNK))));
                    chunks.len() - 1
                }
            };
            places[root] = place;
            if size < CHUNK {
                open_size = if open.is_some() { open_size + size } else { size };
                open = (open_size < CHUNK).then_some(place);
            } else {
                chunks[place].0 = weight;
            }
        }
        chunks[places[root]].1.push(number as u32);
    }
    chunks.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let chunks = chunks.into_iter().map(|(_, members)| members).collect();
    Groups { chunks, heaviest: heaviest / total.max(1) }
}

/// The first candidate of each candidate's group.
fn join(batch: &[RecoveredTx], memory: &BuildMemory) -> Vec<u32> {
    let mut groups = Joined::new(batch.len());
    join_creations(&mut groups, batch);
    let hasher = DefaultHashBuilder::default();
    let mut first: HashMap<u64, u32> = HashMap::default();
    first.reserve(3 * batch.len());
    for (number, transaction) in batch.iter().enumerate() {
        let number = number as u32;
        // Two keys of one hash only join what need not be joined.
        let mut meet = |key: Key<'_>| {
            let other = *first.entry(hasher.hash_one(key)).or_insert(number);
            groups.join(number, other);
        };
        let sender = transaction.sender();
        meet(Key::Account(&sender));
        let Some(kind) = kind_of(transaction) else { continue };
        let envelope = transaction.envelope();
        let (to, input) = (&kind.0, envelope.input());
        if input.is_empty() || !envelope.value().is_zero() {
            meet(Key::Account(to));
        }
        let mut known = false;
        for contract in memory.hot(&kind) {
            known |= contract == *to;
            meet(Key::Contract(&contract));
        }
        if known || kind.1.is_none() {
            continue;
        }
        let mut named = false;
        for address in addresses(input) {
            named = true;
            meet(Key::Entry(to, address));
        }
        match named || memory.is_free(&kind) {
            true => meet(Key::Entry(to, sender.as_slice())),
            false => meet(Key::Contract(to)),
        }
    }
    (0..batch.len() as u32).map(|number| groups.root(number)).collect()
}

/// Joins calls with what creates the contract they call: before that there is nothing to call, and whoever does
/// succeeds without an effect.
fn join_creations(groups: &mut Joined, batch: &[RecoveredTx]) {
    let numbered = || (0..).zip(batch);
    let created: HashMap<Address, u32> = numbered()
        .filter(|(_, transaction)| transaction.envelope().is_create())
        .map(|(number, transaction)| (transaction.sender().create(transaction.nonce()), number))
        .collect();
    if created.is_empty() {
        return;
    }
    for (number, transaction) in numbered() {
        if let Some(creation) = transaction.envelope().to().and_then(|to| created.get(&to)) {
            groups.join(number, *creation);
        }
    }
}

/// The addresses among the first arguments of a call.
pub(super) fn addresses(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.get(4..).unwrap_or_default().chunks_exact(32).take(ARGUMENTS).filter_map(as_address)
}

/// The last 20 bytes of an argument that looks like an address: amounts have zeros where it begins.
fn as_address(word: &[u8]) -> Option<&[u8]> {
    let (zeros, address) = word.split_at(12);
    let plausible = zeros.iter().all(|byte| *byte == 0) && address[..4].iter().any(|byte| *byte != 0);
    plausible.then_some(address)
}

/// Sets that grow together. The root of one is its lowest member.
pub(super) struct Joined {
    parents: Vec<u32>,
}

impl Joined {
    pub(super) fn new(count: usize) -> Self {
        Self { parents: (0..count as u32).collect() }
    }

    pub(super) fn root(&mut self, mut number: u32) -> u32 {
        while self.parents[number as usize] != number {
            let above = self.parents[self.parents[number as usize] as usize];
            self.parents[number as usize] = above;
            number = above;
        }
        number
    }

    pub(super) fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }
}
