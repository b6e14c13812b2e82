//! Development accounts: BIP-39 mnemonic, BIP-32 derivation along Ethereum's path m/44'/60'/0'/0/i.
//!
//! Their keys are public knowledge. They must never hold anything of value outside a development chain.

use crate::error::{CliError, CliResult};
use alloy_primitives::{Address, keccak256};
use bip39::{Language, Mnemonic};
use hmac::{Hmac, Mac};
use secp256k1::{PublicKey, Scalar, SecretKey};
use sha2::Sha512;

/// The mnemonic every development chain uses.
pub const DEV_MNEMONIC: &str = "test test test test test test test test test test test junk";

/// Accounts one command may derive.
pub const ACCOUNTS_MAX: u32 = 100_000;

const HARDENED: u32 = 1 << 31;

/// A key with its Ethereum address.
#[derive(Clone)]
pub struct Account {
    /// The address.
    pub address: Address,
    /// The key.
    pub key: SecretKey,
}

/// The first `count` accounts of a mnemonic.
pub fn derive(mnemonic: &str, count: u32) -> CliResult<Vec<Account>> {
    derive_from(mnemonic, 0, count)
}

/// `count` accounts of a mnemonic from index `first` on.
pub fn derive_from(mnemonic: &str, first: u32, count: u32) -> CliResult<Vec<Account>> {
    if count > ACCOUNTS_MAX {
        return Err(CliError::new(format!("{count} accounts, at most {ACCOUNTS_MAX} are supported")));
    }
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, mnemonic)
        .map_err(CliError::while_trying("read the mnemonic"))?;
    let seed = mnemonic.to_seed_normalized("");
    let parent = [44 | HARDENED, 60 | HARDENED, HARDENED, 0]
        .iter()
        .try_fold(Node::master(&seed), |node, index| Some(node?.child(*index)))
        .flatten()
        .ok_or_else(|| CliError::new("the mnemonic leads to an invalid key; use another one"))?;
    // An index without a valid key has a chance of 2^-127; BIP-32 says to go on with the next one.
    Ok((first..HARDENED)
        .filter_map(|index| parent.child(index))
        .take(count as usize)
        .map(|node| account(node.key))
        .collect())
}

/// The account of a key.
pub fn account(key: SecretKey) -> Account {
    let public = PublicKey::from_secret_key_global(&key).serialize_uncompressed();
    Account { address: Address::from_slice(&keccak256(&public[1..])[12..]), key }
}

/// An extended private key.
struct Node {
    key: SecretKey,
    chain_code: [u8; 32],
}

impl Node {
    fn master(seed: &[u8]) -> Option<Self> {
        let (key, chain_code) = split(b"Bitcoin seed", &[seed]);
        Some(Self { key: SecretKey::from_byte_array(key).ok()?, chain_code })
    }

    fn child(&self, index: u32) -> Option<Self> {
        let index_bytes = index.to_be_bytes();
        let (tweak, chain_code) = if index >= HARDENED {
            split(&self.chain_code, &[&[0], &self.key.secret_bytes(), &index_bytes])
        } else {
            let public = PublicKey::from_secret_key_global(&self.key).serialize();
            split(&self.chain_code, &[&public, &index_bytes])
        };
        let key = self.key.add_tweak(&Scalar::from_be_bytes(tweak).ok()?).ok()?;
        Some(Self { key, chain_code })
    }
}

/// HMAC-SHA512, cut into its halves.
fn split(key: &[u8], parts: &[&[u8]]) -> ([u8; 32], [u8; 32]) {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    let bytes = mac.finalize().into_bytes();
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&bytes[..32]);
    right.copy_from_slice(&bytes[32..]);
    (left, right)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_dev_mnemonic_gives_the_ten_addresses_everybody_knows() {
        let expected = [
            "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
            "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
            "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
            "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
            "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
            "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
            "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
        ];
        let found: Vec<String> =
            derive(DEV_MNEMONIC, 10).unwrap().iter().map(|a| a.address.to_checksum(None)).collect();
        assert_eq!(found, expected);
        let first = derive(DEV_MNEMONIC, 1).unwrap().remove(0);
        let key = alloy_primitives::hex::encode(first.key.secret_bytes());
        assert_eq!(key, "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
    }

    #[test]
    fn a_wrong_mnemonic_is_refused() {
        assert!(derive("test test test", 1).is_err());
        assert!(derive(DEV_MNEMONIC, ACCOUNTS_MAX + 1).is_err());
    }
}
