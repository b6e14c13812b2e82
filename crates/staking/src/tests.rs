#![allow(clippy::unwrap_used)]

mod calls;
mod sets;

use crate::abi::IValidatorRegistry::{self as abi, IValidatorRegistryErrors as Error};
use crate::*;
use alloy_primitives::{Bytes, LogData, U256};
use alloy_sol_types::{SolCall, SolEvent, SolInterface};
use crypto::SecretKey;
use std::collections::BTreeMap;
use std::convert::Infallible;
use types::genesis::{ChainConfig, GenesisValidator, TandemGenesis, Timing};
use types::{QuorumRule, Stake, Validator};

/// One coin in wei.
const COIN: u128 = 1_000_000_000_000_000_000;
/// Heights per epoch of test chains.
const LENGTH: u64 = 8;

fn account(n: u64) -> Address {
    Address::left_padding_from(&(0x1_0000 + n).to_be_bytes())
}

fn secret(n: u64) -> SecretKey {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    SecretKey::from_seed(&seed)
}

/// A registry with its balance, outside any EVM.
struct Chain {
    rules: StakingRules,
    words: MemoryWords,
    balance: u128,
    paid: BTreeMap<Address, u128>,
    burned: u128,
    logs: Vec<LogData>,
    height: u64,
}

impl Chain {
    /// Founders 0, 1, ... with these stakes in coins.
    fn new(stakes: &[u128], params: genesis::Staking) -> Self {
        let founder = |(n, stake): (u64, &u128)| GenesisValidator {
            address: account(n),
            public_key: secret(n).public_key(),
            proof_of_possession: secret(n).prove_possession(),
            stake: Stake::new(stake * COIN),
        };
        let genesis = Genesis {
            config: ChainConfig { chain_id: 1, other: BTreeMap::new() },
            timestamp: 0,
            gas_limit: 30_000_000,
            base_fee_per_gas: 0,
            extra_data: Bytes::new(),
            alloc: BTreeMap::new(),
            tandem: TandemGenesis {
                validators: (0..).zip(stakes).map(founder).collect(),
                quorum: QuorumRule::default(),
                epoch_length: LENGTH,
                staking: params,
                timing: Timing::default(),
                payload_bytes_max: 1 << 20,
                forks: BTreeMap::new(),
            },
            other: BTreeMap::new(),
        };
        genesis.check().unwrap();
        let rules = StakingRules::from_genesis(&genesis).unwrap();
        let words = Registry::found(&rules, &genesis);
        let balance = stakes.iter().sum::<u128>() * COIN;
        Self { rules, words, balance, paid: BTreeMap::new(), burned: 0, logs: Vec::new(), height: 1 }
    }

    fn epoch(&self) -> u64 {
        (self.height - 1) / LENGTH
    }

    /// One call; without effect when it fails.
    fn call(
        &mut self,
        caller: Address,
        value: u128,
        input: &impl SolCall,
    ) -> Result<Bytes, Failure<Infallible>> {
        let mut frame = Frame { words: self.words.clone(), paid: Vec::new(), logs: Vec::new() };
        let mut registry = Registry::at(&self.rules, self.height, &mut frame);
        let output = registry.execute(caller, U256::from(value), &input.abi_encode(), false)?;
        self.words = frame.words;
        self.balance += value;
        for (to, amount) in frame.paid {
            self.balance -= amount;
            *self.paid.entry(to).or_default() += amount;
        }
        self.logs.extend(frame.logs);
        Ok(output)
    }

    fn ok(&mut self, caller: u64, value: u128, input: &impl SolCall) {
        self.call(account(caller), value, input).unwrap();
    }

    fn refused(&mut self, caller: u64, value: u128, input: &impl SolCall) -> Error {
        let before = self.words.clone();
        let Err(Failure::Revert(output)) = self.call(account(caller), value, input) else {
            panic!("not refused");
        };
        assert_eq!(self.words, before);
        Error::abi_decode(&output).unwrap()
    }

    fn register(&mut self, n: u64, coins: u128) {
        self.ok(n, coins * COIN, &registration(n));
    }

    fn view<C: SolCall>(&self, input: &C) -> C::Return {
        let mut frame = Frame { words: self.words.clone(), paid: Vec::new(), logs: Vec::new() };
        let mut registry = Registry::at(&self.rules, self.height, &mut frame);
        let output = registry.execute(account(0), U256::ZERO, &input.abi_encode(), true).unwrap();
        C::abi_decode_returns(&output).unwrap()
    }

    fn info(&self, n: u64) -> abi::ValidatorInfo {
        self.view(&abi::validatorCall { account: account(n) })
    }

    fn slash(&mut self, epoch: u64, n: u64) -> Option<Slash> {
        let Ok(slash) =
            Registry::at(&self.rules, self.height, &mut self.words).slash(Epoch::new(epoch), account(n));
        self.burned += slash.map_or(0, |slash| slash.burned);
        self.balance -= slash.map_or(0, |slash| slash.burned);
        slash
    }

    fn set(&mut self, epoch: u64) -> Option<Vec<Validator>> {
        let Ok(set) =
            Registry::at(&self.rules, self.height, &mut self.words).validator_set(Epoch::new(epoch));
        set
    }

    /// Weights in coins of the newest set by founder or registrant number.
    fn weights(&mut self, epoch: u64) -> Vec<(u64, u128)> {
        let number = |address: Address| u64::from_be_bytes(address[12..].try_into().unwrap()) - 0x1_0000;
        let set = self.set(epoch).unwrap();
        set.iter().map(|member| (number(member.address), member.stake.get() / COIN)).collect()
    }

    /// Ends the running epoch and gives the set it computes.
    fn close(&mut self) -> Vec<Validator> {
        self.height = (self.epoch() + 1) * LENGTH;
        let computed = self.rules.computed_at(self.height).unwrap();
        assert_eq!(computed.get(), self.epoch() + 2);
        let Ok(set) = Registry::at(&self.rules, self.height, &mut self.words).close_epoch();
        assert_eq!(self.set(computed.get()).as_ref(), Some(&set));
        self.height += 1;
        set
    }

    /// What the registry owes to everybody that ever could be a validator here.
    fn owed(&self, accounts: u64) -> u128 {
        let of = |n: u64| {
            let info = self.info(n);
            let unbonding: U256 = info.unbonding.iter().map(|entry| entry.amount).sum();
            (info.stake + info.leaving + unbonding).to::<u128>()
        };
        (0..accounts).map(of).sum()
    }
}

struct Frame {
    words: MemoryWords,
    paid: Vec<(Address, u128)>,
    logs: Vec<LogData>,
}

impl Words for Frame {
    type Error = Infallible;

    fn load(&mut self, slot: U256) -> Result<U256, Infallible> {
        self.words.load(slot)
    }

    fn store(&mut self, slot: U256, value: U256) -> Result<(), Infallible> {
        self.words.store(slot, value)
    }
}

impl Host for Frame {
    fn charge(&mut self, _gas: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn emit(&mut self, log: LogData) -> Result<(), Infallible> {
        self.logs.push(log);
        Ok(())
    }

    fn pay(&mut self, to: Address, amount: u128) -> Result<(), Infallible> {
        self.paid.push((to, amount));
        Ok(())
    }
}

fn registration(n: u64) -> abi::registerCall {
    let secret = secret(n);
    abi::registerCall {
        pubkey: Bytes::copy_from_slice(&secret.public_key().0),
        proofOfPossession: Bytes::copy_from_slice(&secret.prove_possession().0),
    }
}

fn rotation(n: u64) -> abi::rotateKeyCall {
    let abi::registerCall { pubkey, proofOfPossession } = registration(n);
    abi::rotateKeyCall { newPubkey: pubkey, proofOfPossession }
}

/// Change without a cap that matters: for tests of something else.
fn fast() -> genesis::Staking {
    genesis::Staking {
        stake_change_cap_numerator: 333_333,
        stake_change_cap_denominator: 1_000_000,
        unbonding_epochs: 4,
        min_stake: Stake::new(COIN),
        ..Default::default()
    }
}
