//! The blocks that benchmarks run: one kind of transaction each, every transaction from a sender of its own, on a
//! state of millions of accounts.

use crate::{
    chain::{CHAIN_ID, Chain, GWEI, coins},
    contracts::{self, IPool, IToken},
    keys,
};
use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, TxKind, U256, keccak256};
use alloy_sol_types::SolCall;
use execution::{AccountInfo, Fork, RecoveredTx, testing::TestKey};
use rayon::prelude::*;
use std::fmt;

/// A kind of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Transfers, each to another account.
    Transfers,
    /// Token transfers, each to another account.
    Erc20,
    /// Token transfers, all to one account.
    Erc20OneRecipient,
    /// Calls of one counter.
    Counter,
    /// Swaps on [`POOLS`] pools that share nothing but two tokens.
    Pools,
    /// Swaps on one pool.
    OnePool,
    /// 70 % transfers and token transfers to other accounts each, 30 % swaps on one pool.
    Mixed,
}

/// Pools of [`Load::Pools`].
pub const POOLS: usize = 256;

impl Load {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Transfers,
        Self::Erc20,
        Self::Erc20OneRecipient,
        Self::Counter,
        Self::Pools,
        Self::OnePool,
        Self::Mixed,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transfers => "transfers",
            Self::Erc20 => "erc20",
            Self::Erc20OneRecipient => "erc20-one-recipient",
            Self::Counter => "counter",
            Self::Pools => "pools",
            Self::OnePool => "one-pool",
            Self::Mixed => "mixed",
        }
    }

    /// The load of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|load| load.name() == name)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The state that all loads run on.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The chain at height 0. Its digest is not that of this state but of the empty one: what a block adds to a
    /// digest depends on its changes alone, and hashing millions of accounts would only take time.
    pub chain: Chain,
    senders: Vec<TestKey>,
    accounts: u64,
}

const TOKENS: [Address; 2] = [Address::repeat_byte(0xa0), Address::repeat_byte(0xa1)];
const COUNTER: Address = Address::repeat_byte(0xc0);
/// Who gets the tokens of [`Load::Erc20OneRecipient`].
const RECIPIENT: Address = Address::repeat_byte(0xbe);
/// Of the accounts that no load needs, one in so many holds tokens.
const HOLDERS: u64 = 4;
const RESERVE: u128 = 1 << 80;

/// Account number `n` that nobody has a key of.
fn account(n: u64) -> Address {
    Address::from_word(keccak256(n.to_be_bytes()))
}

fn pool(n: usize) -> Address {
    let mut bytes = [0xb0; 20];
    bytes[12..].copy_from_slice(&(n as u64).to_be_bytes());
    bytes.into()
}

impl Stage {
    /// A state of `accounts` accounts, of which `senders` can send.
    pub fn new(accounts: u64, senders: usize) -> Self {
        let chain = Chain::new(&[(Fork::Osaka, 0)], u64::MAX / 2, GWEI);
        let mut stage = Self { chain, senders: keys::make(senders as u64), accounts };
        stage.populate();
        stage.deploy();
        stage
    }

    fn populate(&mut self) {
        let others: Vec<_> = (0..self.accounts).into_par_iter().map(account).collect();
        let senders: Vec<_> = self.senders.iter().map(TestKey::address).collect();
        let slots = |owners: Vec<Address>| -> Vec<U256> {
            owners.into_par_iter().map(contracts::balance_slot).collect()
        };
        let holders = slots(others.iter().step_by(HOLDERS as usize).copied().collect());
        let sender_slots = slots(senders.clone());
        let state = self.chain.state_mut();
        for address in others.iter().chain(&senders) {
            state.put_account(*address, AccountInfo { balance: coins(10), ..AccountInfo::default() });
        }
        for slot in holders {
            state.put_slot(TOKENS[0], slot, U256::from(GWEI));
        }
        for slot in sender_slots {
            TOKENS.iter().for_each(|token| state.put_slot(*token, slot, coins(1)));
        }
    }

    fn deploy(&mut self) {
        let senders: Vec<_> = self.senders.iter().map(TestKey::address).collect();
        let state = self.chain.state_mut();
        let [token, counter, pool_code] =
            [contracts::token(), contracts::counter(), contracts::pool()].map(|code| state.put_code(code));
        let contract = |code_hash| AccountInfo { nonce: 1, balance: U256::ZERO, code_hash };
        TOKENS.iter().for_each(|address| state.put_account(*address, contract(token)));
        state.put_account(COUNTER, contract(counter));
        state.put_slot(TOKENS[0], contracts::balance_slot(RECIPIENT), U256::from(1));
        for n in 0..POOLS {
            let pool = pool(n);
            state.put_account(pool, contract(pool_code));
            for (slot, token) in contracts::POOL_TOKENS.into_iter().zip(TOKENS) {
                state.put_slot(pool, U256::from(slot), token.into_word().into());
                state.put_slot(token, contracts::balance_slot(pool), U256::from(RESERVE));
            }
            state.put_slot(
                pool,
                U256::from(contracts::POOL_RESERVES),
                contracts::reserves(RESERVE, RESERVE, 1),
            );
            state.put_slot(pool, U256::from(contracts::POOL_LOCK), U256::from(1));
        }
        for (n, owner) in senders.into_iter().enumerate() {
            for pool in [pool(n % POOLS), pool(0)] {
                let slot = contracts::allowance_slot(owner, pool);
                TOKENS.iter().for_each(|token| state.put_slot(*token, slot, U256::MAX));
            }
        }
    }

    /// How many transactions a block of this stage can have.
    pub fn capacity(&self) -> usize {
        self.senders.len()
    }

    /// A block of `count` transactions, signed on all cores.
    ///
    /// # Panics
    /// If there are fewer senders or accounts than transactions.
    pub fn block(&self, load: Load, count: usize) -> Vec<RecoveredTx> {
        assert!(
            count <= self.senders.len() && count as u64 <= self.accounts,
            "a sender and a recipient for each"
        );
        self.senders[..count].par_iter().enumerate().map(|(n, key)| self.transaction(load, n, key)).collect()
    }

    fn transaction(&self, load: Load, n: usize, key: &TestKey) -> RecoveredTx {
        // Recipients are spread over the whole state and never the same, unless the prime divides the number of
        // accounts.
        let recipient = account((n as u64 * 7_919) % self.accounts);
        match load {
            Load::Transfers => sign(key, 21_000, recipient, U256::from(1), Bytes::new()),
            Load::Erc20 => send_tokens(key, recipient),
            Load::Erc20OneRecipient => send_tokens(key, RECIPIENT),
            Load::Counter => sign(key, 60_000, COUNTER, U256::ZERO, Bytes::new()),
            Load::Pools => swap(key, pool(n % POOLS), n),
            Load::OnePool => swap(key, pool(0), n),
            Load::Mixed => match n % 10 {
                0..3 => swap(key, pool(0), n),
                3..7 => send_tokens(key, recipient),
                _ => sign(key, 21_000, recipient, U256::from(1), Bytes::new()),
            },
        }
    }
}

fn send_tokens(key: &TestKey, to: Address) -> RecoveredTx {
    let call = IToken::transferCall { to, value: U256::from(1_000) };
    sign(key, 80_000, TOKENS[0], U256::ZERO, call.abi_encode().into())
}

fn swap(key: &TestKey, pool: Address, n: usize) -> RecoveredTx {
    let amount = U256::from(1_000_000 + n);
    let call = IPool::swapCall {
        zeroForOne: (n / POOLS).is_multiple_of(2),
        amountIn: amount,
        minOut: U256::from(1),
    };
    sign(key, 200_000, pool, U256::ZERO, call.abi_encode().into())
}

fn sign(key: &TestKey, gas_limit: u64, to: Address, value: U256, input: Bytes) -> RecoveredTx {
    key.sign(TxEip1559 {
        chain_id: CHAIN_ID,
        nonce: 0,
        gas_limit,
        max_fee_per_gas: u128::from(100 * GWEI),
        max_priority_fee_per_gas: u128::from(GWEI),
        to: TxKind::Call(to),
        value,
        input,
        ..Default::default()
    })
}
