//! Domain separation: which chain, epoch, message kind and format version a signature is for.

/// What kind of statement a validator signs. The discriminants are frozen (specs/consensus.md, C-1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SignatureKind {
    /// A prepare vote (an FFG link).
    Prepare = 1,
    /// A commit vote.
    Commit = 2,
    /// A timeout.
    Timeout = 3,
    /// A proposal: the proposer's signature over its block.
    Proposal = 4,
    /// A RANDAO reveal.
    Randao = 5,
    /// Binds a network peer identity to a consensus key.
    PeerBinding = 6,
}

/// Version of the signed formats. A change of any signed layout raises it.
pub const SIGNATURE_VERSION: u8 = 1;

/// The context of a consensus signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of the genesis, so that two chains with one id cannot share signatures.
    pub genesis_hash: alloy_primitives::B256,
    /// Epoch whose validator set the statement belongs to.
    pub epoch: u64,
}

impl Domain {
    /// The exact bytes that are signed:
    /// `"tandem" ‖ chain_id (u64 LE) ‖ genesis_hash (32) ‖ epoch (u64 LE) ‖ kind (u8) ‖ version (u8) ‖ body`.
    pub fn signing_bytes(&self, kind: SignatureKind, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(56 + body.len());
        bytes.extend_from_slice(b"tandem");
        bytes.extend_from_slice(&self.chain_id.to_le_bytes());
        bytes.extend_from_slice(self.genesis_hash.as_slice());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.push(kind as u8);
        bytes.push(SIGNATURE_VERSION);
        bytes.extend_from_slice(body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::B256;

    #[test]
    fn equal_bodies_of_different_kinds_epochs_or_chains_never_share_bytes() {
        let base = Domain { chain_id: 1, genesis_hash: B256::ZERO, epoch: 2 };
        let reference = base.signing_bytes(SignatureKind::Prepare, b"x");
        assert_ne!(reference, base.signing_bytes(SignatureKind::Commit, b"x"));
        assert_ne!(reference, Domain { epoch: 3, ..base }.signing_bytes(SignatureKind::Prepare, b"x"));
        assert_ne!(reference, Domain { chain_id: 2, ..base }.signing_bytes(SignatureKind::Prepare, b"x"));
        let other = Domain { genesis_hash: B256::repeat_byte(1), ..base };
        assert_ne!(reference, other.signing_bytes(SignatureKind::Prepare, b"x"));
    }
}
