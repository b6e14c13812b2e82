//! Binary BLAKE3 Merkle trees with domain-separated leaves, nodes and root (specs/state_hash.md, S-3).
//!
//! - leaf: `derive_key("tandem v1 merkle leaf", bytes)`
//! - node: `derive_key("tandem v1 merkle node", left ‖ right)`; an odd last node moves up unchanged
//! - root: `derive_key("tandem v1 merkle root", leaf_count (u64 LE) ‖ top)`, so the count is bound;
//!   the top of an empty tree is 32 zero bytes.

use crate::{B256, tagged_hash};

/// Size of a payload leaf in bytes.
pub const PAYLOAD_LEAF_BYTES: usize = 1024;

const LEAF: &str = "tandem v1 merkle leaf";
const NODE: &str = "tandem v1 merkle node";
const ROOT: &str = "tandem v1 merkle root";

/// Root over arbitrary leaves, in order.
pub fn root<'a>(leaves: impl IntoIterator<Item = &'a [u8]>) -> B256 {
    let level: Vec<B256> = leaves.into_iter().map(|leaf| tagged_hash(LEAF, &[leaf])).collect();
    let count = level.len();
    seal(count, fold(level))
}

/// Root over `payload` cut into leaves of [`PAYLOAD_LEAF_BYTES`] (the last may be shorter).
pub fn payload_root(payload: &[u8]) -> B256 {
    root(payload.chunks(PAYLOAD_LEAF_BYTES))
}

/// A path from one leaf to the root. `siblings[i]` is absent where the node moved up unpaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Number of leaves in the tree.
    pub leaf_count: u64,
    /// Position of the proven leaf.
    pub index: u64,
    /// Sibling hashes from the leaf's level upwards.
    pub siblings: Vec<B256>,
}

/// The proof for leaf `index`, or `None` when there is no such leaf.
pub fn prove<'a>(leaves: impl IntoIterator<Item = &'a [u8]>, index: usize) -> Option<Proof> {
    let mut level: Vec<B256> = leaves.into_iter().map(|leaf| tagged_hash(LEAF, &[leaf])).collect();
    let leaf_count = level.len();
    if index >= leaf_count {
        return None;
    }
    let (mut at, mut siblings) = (index, Vec::new());
    while level.len() > 1 {
        if let Some(sibling) = level.get(at ^ 1) {
            siblings.push(*sibling);
        }
        level = next_level(&level);
        at /= 2;
    }
    Some(Proof { leaf_count: leaf_count as u64, index: index as u64, siblings })
}

impl Proof {
    /// Whether `leaf` stands at this proof's index under `root`.
    pub fn verify(&self, root: B256, leaf: &[u8]) -> bool {
        if self.index >= self.leaf_count {
            return false;
        }
        let (mut at, mut width) = (self.index, self.leaf_count);
        let mut node = tagged_hash(LEAF, &[leaf]);
        let mut siblings = self.siblings.iter();
        while width > 1 {
            let unpaired = at == width - 1 && width % 2 == 1;
            if !unpaired {
                let Some(sibling) = siblings.next() else { return false };
                node = if at % 2 == 0 { join(&node, sibling) } else { join(sibling, &node) };
            }
            at /= 2;
            width = width.div_ceil(2);
        }
        siblings.next().is_none()
            && tagged_hash(ROOT, &[&self.leaf_count.to_le_bytes(), node.as_slice()]) == root
    }
}

fn fold(mut level: Vec<B256>) -> B256 {
    while level.len() > 1 {
        level = next_level(&level);
    }
    level.first().copied().unwrap_or(B256::ZERO)
}

fn next_level(level: &[B256]) -> Vec<B256> {
    level.chunks(2).map(|pair| if let [left, right] = pair { join(left, right) } else { pair[0] }).collect()
}

fn join(left: &B256, right: &B256) -> B256 {
    tagged_hash(NODE, &[left.as_slice(), right.as_slice()])
}

fn seal(count: usize, top: B256) -> B256 {
    tagged_hash(ROOT, &[&(count as u64).to_le_bytes(), top.as_slice()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_leaf_proves_and_no_other_leaf_does(count in 1usize..40, pick in any::<prop::sample::Index>()) {
            let leaves: Vec<Vec<u8>> = (0..count).map(|i| vec![i as u8; i % 5]).collect();
            let index = pick.index(count);
            let root = root(leaves.iter().map(Vec::as_slice));
            let proof = prove(leaves.iter().map(Vec::as_slice), index).expect("index is in range");
            prop_assert!(proof.verify(root, &leaves[index]));
            prop_assert!(!proof.verify(root, b"another leaf"));
            let moved = Proof { index: (index as u64 + 1) % count as u64, ..proof };
            prop_assert!(count == 1 || !moved.verify(root, &leaves[index]));
        }
    }

    #[test]
    fn the_count_is_bound_so_an_empty_tree_differs_from_a_zero_leaf() {
        assert_ne!(root(std::iter::empty()), root([[0u8; 32].as_slice()]));
        assert!(prove(std::iter::empty(), 0).is_none());
    }
}
