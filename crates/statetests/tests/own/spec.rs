//! What a fixture of our own consists of, before an oracle says what must come out.

use crate::asm::Asm;
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address};
use execution::{Fork, testing::TestKey};
use std::collections::BTreeMap;

pub(crate) const PROPOSER: Address = address!("c01bba5e00000000000000000000000000000001");
pub(crate) const TARGET: Address = address!("7a9e700000000000000000000000000000000001");
pub(crate) const OTHER: Address = address!("07be200000000000000000000000000000000002");
pub(crate) const THIRD: Address = address!("7b12d00000000000000000000000000000000003");
pub(crate) const NOBODY: Address = address!("00b0d90000000000000000000000000000000009");
pub(crate) const NONCE: u64 = 5;
pub(crate) const FUNDS: u64 = 1_000_000_000_000_000_000;
pub(crate) const BLOCK_GAS: u64 = 30_000_000;

/// Number `n` of the keys that fixtures sign with.
pub(crate) fn secret(n: u8) -> B256 {
    B256::repeat_byte(n)
}

pub(crate) fn key(n: u8) -> TestKey {
    TestKey::from_secret(secret(n)).unwrap()
}

/// Who sends every transaction.
pub(crate) fn sender() -> Address {
    key(1).address()
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Acct {
    pub(crate) nonce: u64,
    pub(crate) balance: U256,
    pub(crate) code: Bytes,
    pub(crate) storage: BTreeMap<U256, U256>,
}

#[derive(Clone, Debug)]
pub(crate) struct Env {
    pub(crate) coinbase: Address,
    pub(crate) gas_limit: u64,
    pub(crate) number: u64,
    pub(crate) timestamp: u64,
    pub(crate) base_fee: u64,
    pub(crate) random: B256,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fees {
    /// Legacy, or EIP-2930 with an access list.
    Price(u128),
    /// EIP-1559 or EIP-7702: cap and tip.
    Dynamic(u128, u128),
}

#[derive(Clone, Debug)]
pub(crate) struct Tx {
    pub(crate) data: Vec<Bytes>,
    pub(crate) gas: Vec<u64>,
    pub(crate) value: Vec<U256>,
    pub(crate) to: TxKind,
    pub(crate) nonce: u64,
    pub(crate) chain_id: u64,
    pub(crate) fees: Fees,
    pub(crate) access_list: Option<AccessList>,
    pub(crate) authorizations: Option<Vec<SignedAuthorization>>,
    /// Whether a legacy transaction names its chain.
    pub(crate) protected: bool,
    /// Bytes in place of the signed transaction.
    pub(crate) raw: Option<Bytes>,
}

/// What a spec's author expects; the oracle must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It is executed.
    Executed,
    /// It succeeds.
    Success,
    /// It reverts or halts.
    Failure,
    /// It is refused, under this name.
    Refused(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) folder: &'static str,
    pub(crate) name: String,
    pub(crate) comment: &'static str,
    pub(crate) pre: BTreeMap<Address, Acct>,
    pub(crate) env: Env,
    pub(crate) tx: Tx,
    pub(crate) forks: Vec<Fork>,
    pub(crate) expect: Expect,
    /// Slots that must hold a value in every variant, so that a test tests what it says.
    pub(crate) sees: Vec<(Address, u64, U256)>,
    /// Accounts that must not exist afterwards.
    pub(crate) gone: Vec<Address>,
    /// Whether the signed bytes are part of the fixture; otherwise a runner signs.
    pub(crate) with_bytes: bool,
}

/// A test in which [`sender`] calls [`TARGET`].
pub(crate) fn spec(folder: &'static str, name: impl Into<String>, comment: &'static str) -> Spec {
    let funded = Acct { nonce: NONCE, balance: U256::from(FUNDS), ..Default::default() };
    Spec {
        folder,
        name: name.into(),
        comment,
        pre: BTreeMap::from([(sender(), funded)]),
        env: Env {
            coinbase: PROPOSER,
            gas_limit: BLOCK_GAS,
            number: 1_000,
            timestamp: 1_700_000_000,
            base_fee: 7,
            random: B256::repeat_byte(0x77),
        },
        tx: Tx {
            data: vec![Bytes::new()],
            // Enough for what is left of a frame, one part of 64, to go on with a few stores.
            gas: vec![10_000_000],
            value: vec![U256::ZERO],
            to: TxKind::Call(TARGET),
            nonce: NONCE,
            chain_id: 1,
            fees: Fees::Dynamic(1_000, 3),
            access_list: None,
            authorizations: None,
            protected: true,
            raw: None,
        },
        forks: Fork::ALL.to_vec(),
        expect: Expect::Executed,
        sees: Vec::new(),
        gone: Vec::new(),
        with_bytes: true,
    }
}

impl Spec {
    pub(crate) fn account(mut self, address: Address, account: Acct) -> Self {
        self.pre.insert(address, account);
        self
    }

    pub(crate) fn without(mut self, address: Address) -> Self {
        self.pre.remove(&address);
        self
    }

    /// A contract with a nonce of 1 and this balance.
    pub(crate) fn contract(self, address: Address, balance: u64, code: Asm) -> Self {
        self.code(address, balance, code.build())
    }

    pub(crate) fn code(self, address: Address, balance: u64, code: Vec<u8>) -> Self {
        let balance = U256::from(balance);
        self.account(address, Acct { nonce: 1, balance, code: code.into(), ..Default::default() })
    }

    pub(crate) fn slot(mut self, address: Address, slot: u64, value: u64) -> Self {
        let account = self.pre.get_mut(&address).unwrap();
        account.storage.insert(U256::from(slot), U256::from(value));
        self
    }

    pub(crate) fn balance(self, address: Address, balance: u64) -> Self {
        self.account(address, Acct { balance: U256::from(balance), ..Default::default() })
    }

    pub(crate) fn to(mut self, to: Address) -> Self {
        self.tx.to = TxKind::Call(to);
        self
    }

    pub(crate) fn creates(mut self, code: Vec<u8>) -> Self {
        self.tx.to = TxKind::Create;
        self.tx.data = vec![code.into()];
        self
    }

    pub(crate) fn data(mut self, data: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.tx.data = data.into_iter().map(Bytes::from).collect();
        self
    }

    pub(crate) fn value(mut self, values: impl IntoIterator<Item = u64>) -> Self {
        self.tx.value = values.into_iter().map(U256::from).collect();
        self
    }

    pub(crate) fn gas(mut self, gas: impl IntoIterator<Item = u64>) -> Self {
        self.tx.gas = gas.into_iter().collect();
        self
    }

    pub(crate) fn fees(mut self, fees: Fees) -> Self {
        self.tx.fees = fees;
        self
    }

    pub(crate) fn access(mut self, list: &[(Address, &[u64])]) -> Self {
        let item = |(address, slots): &(Address, &[u64])| AccessListItem {
            address: *address,
            storage_keys: slots.iter().map(|slot| B256::from(U256::from(*slot))).collect(),
        };
        self.tx.access_list = Some(AccessList(list.iter().map(item).collect()));
        self
    }

    pub(crate) fn authorize(mut self, list: impl IntoIterator<Item = SignedAuthorization>) -> Self {
        self.tx.authorizations = Some(list.into_iter().collect());
        self
    }

    pub(crate) fn forks(mut self, forks: &[Fork]) -> Self {
        self.forks = forks.to_vec();
        self
    }

    pub(crate) fn since(self, fork: Fork) -> Self {
        let forks: Vec<Fork> = Fork::ALL.into_iter().filter(|other| *other >= fork).collect();
        self.forks(&forks)
    }

    pub(crate) fn succeeds(mut self) -> Self {
        self.expect = Expect::Success;
        self
    }

    pub(crate) fn fails(mut self) -> Self {
        self.expect = Expect::Failure;
        self
    }

    pub(crate) fn refused(mut self, exception: &'static str) -> Self {
        self.expect = Expect::Refused(exception);
        self
    }

    pub(crate) fn sees(mut self, address: Address, slot: u64, value: impl TryInto<U256>) -> Self {
        let value = value.try_into().unwrap_or_else(|_| panic!("a literal has 256 bits"));
        self.sees.push((address, slot, value));
        self
    }

    pub(crate) fn gone(mut self, address: Address) -> Self {
        self.gone.push(address);
        self
    }

    pub(crate) fn unsigned(mut self) -> Self {
        self.with_bytes = false;
        self
    }

    pub(crate) fn env(mut self, change: impl FnOnce(&mut Env)) -> Self {
        change(&mut self.env);
        self
    }

    pub(crate) fn tx(mut self, change: impl FnOnce(&mut Tx)) -> Self {
        change(&mut self.tx);
        self
    }
}

/// An authorization of key `n` for `delegate`.
pub(crate) fn authorization(n: u8, chain_id: u64, delegate: Address, nonce: u64) -> SignedAuthorization {
    key(n).authorize(Authorization { chain_id: U256::from(chain_id), address: delegate, nonce })
}

/// Code of an account that is delegated to `delegate`.
pub(crate) fn delegation(delegate: Address) -> Bytes {
    [&[0xef, 0x01, 0x00], delegate.as_slice()].concat().into()
}
