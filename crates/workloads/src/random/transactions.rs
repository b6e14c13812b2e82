//! Random transactions on a world's present state.

use super::{Who, World};
use crate::{
    chain::{CHAIN_ID, Chain, GWEI, validator},
    contracts::{IPool, IToken},
    random::code::Coder,
};
use alloy_consensus::{TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, map::AddressMap};
use alloy_sol_types::SolCall;
use execution::{
    CallRequest, RecoveredTx, STRICT_MARKER, StateOverrides, StateView, create_access_list, read_only_word,
    testing::TestKey, valid_until_word,
};
use rand::{Rng, seq::IndexedRandom};
use staking::abi::IValidatorRegistry as abi;
use std::sync::LazyLock;
use types::genesis::GenesisValidator;

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Transfer,
    WholeBalance,
    Call,
    Create,
    Delegate,
    Token,
    Swap,
    Stake,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Transfer,
        Self::WholeBalance,
        Self::Call,
        Self::Create,
        Self::Delegate,
        Self::Token,
        Self::Swap,
        Self::Stake,
    ];
}

/// What is wrong with a candidate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flaw {
    NonceTooLow,
    NonceTooHigh,
    Funds,
    IntrinsicGas,
    FeeCap,
    BlockGas,
    ChainId,
    TipAboveCap,
    NoAuthorization,
    Repeated,
}

impl Flaw {
    pub(super) const ALL: [Self; 10] = [
        Self::NonceTooLow,
        Self::NonceTooHigh,
        Self::Funds,
        Self::IntrinsicGas,
        Self::FeeCap,
        Self::BlockGas,
        Self::ChainId,
        Self::TipAboveCap,
        Self::NoAuthorization,
        Self::Repeated,
    ];
}

/// Who may register in a world with a registry, those that are registered included.
static NEWCOMERS: LazyLock<Vec<GenesisValidator>> = LazyLock::new(|| (0..8).map(validator).collect());

/// A transaction before its type is chosen.
#[derive(Clone, Debug)]
struct Draft {
    chain_id: u64,
    nonce: u64,
    gas_limit: u64,
    fee_cap: u128,
    tip: u128,
    to: TxKind,
    value: U256,
    input: Bytes,
    access_list: AccessList,
    /// `Some` makes it an EIP-7702 transaction.
    authorizations: Option<Vec<SignedAuthorization>>,
}

/// `count` candidates.
pub(super) fn draw(world: &mut World, count: usize) -> Vec<RecoveredTx> {
    let mut author = Author { nonces: AddressMap::default(), penniless: Vec::new(), world };
    let mut candidates = Vec::with_capacity(count);
    for _ in 0..count {
        let next = author.candidate(&candidates);
        candidates.push(next);
    }
    candidates
}

struct Author<'a> {
    world: &'a mut World,
    /// Next nonces, as far as they are foreseeable: what fails validation later shifts them.
    nonces: AddressMap<u64>,
    /// Senders that have given everything away: most of what they send later is refused.
    penniless: Vec<Address>,
}

impl Author<'_> {
    fn candidate(&mut self, before: &[RecoveredTx]) -> RecoveredTx {
        let kind = self.world.swarm.kinds.draw(&mut self.world.rng);
        let sender = self.sender();
        let mut draft = self.draft(kind, &sender);
        match self.one_in(self.world.swarm.flaw_ratio) {
            true => {
                let flaw = self.world.swarm.flaws.draw(&mut self.world.rng);
                if let (Flaw::Repeated, Some(again)) = (flaw, before.choose(&mut self.world.rng)) {
                    return again.clone();
                }
                self.spoil(&mut draft, flaw);
            }
            false => *self.next_nonce(sender.address()) += 1,
        }
        self.sign(&sender, draft)
    }

    fn sender(&mut self) -> TestKey {
        let mut choose = || self.world.cast.senders.choose(&mut self.world.rng).expect("a world has senders");
        let sender = choose().clone();
        match self.penniless.contains(&sender.address()) {
            true => choose().clone(),
            false => sender,
        }
    }

    fn one_in(&mut self, ratio: u32) -> bool {
        self.world.rng.random_ratio(1, ratio)
    }

    fn next_nonce(&mut self, account: Address) -> &mut u64 {
        let state = &self.world.chain.state;
        self.nonces
            .entry(account)
            .or_insert_with(|| state.account(account).ok().flatten().unwrap_or_default().nonce)
    }

    fn address(&mut self) -> Address {
        let who = self.world.swarm.whos.draw(&mut self.world.rng);
        self.world.cast.address(who, &mut self.world.rng)
    }

    fn draft(&mut self, kind: Kind, sender: &TestKey) -> Draft {
        let nonce = *self.next_nonce(sender.address());
        let tip = *[0, 1, u128::from(GWEI)].choose(&mut self.world.rng).expect("not empty");
        // Room for a base fee that rises in later blocks is not needed: candidates are drawn for one block.
        let slack = *[0, 0, u128::from(GWEI)].choose(&mut self.world.rng).expect("not empty");
        let mut draft = Draft {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: *[60_000, 120_000, 120_000, 300_000, 600_000]
                .choose(&mut self.world.rng)
                .expect("not empty"),
            fee_cap: u128::from(self.world.chain.base_fee) + tip + slack,
            tip,
            to: TxKind::Call(Address::ZERO),
            value: U256::ZERO,
            input: Bytes::new(),
            access_list: AccessList::default(),
            authorizations: None,
        };
        match kind {
            // Before Prague the type is refused; that has to be seen a few times only.
            Kind::Delegate if !self.world.has_delegations() && !self.one_in(8) => self.call(&mut draft),
            Kind::Stake if !self.world.has_registry() => self.token(&mut draft),
            Kind::Transfer => self.transfer(&mut draft, sender),
            Kind::WholeBalance => self.whole_balance(&mut draft, sender),
            Kind::Call => self.call(&mut draft),
            Kind::Create => self.create(&mut draft),
            Kind::Delegate => self.delegate(&mut draft, sender),
            Kind::Token => self.token(&mut draft),
            Kind::Swap => self.swap(&mut draft),
            Kind::Stake => self.stake(&mut draft),
        }
        if self.one_in(6) {
            draft.access_list =
                if self.one_in(2) { self.strict_list(&draft, sender) } else { self.access_list() };
            draft.gas_limit += 30_000;
        }
        draft
    }

    fn transfer(&mut self, draft: &mut Draft, sender: &TestKey) {
        let to = if self.one_in(10) { sender.address() } else { self.address() };
        draft.to = TxKind::Call(to);
        draft.value = U256::from(self.world.rng.random_range(0..3u64));
        if self.one_in(2) && !self.world.chain.state.account(to).ok().flatten().unwrap_or_default().has_code()
        {
            draft.gas_limit = 21_000;
        }
    }

    /// Leaves nothing behind if the sender does nothing else in the block: tip and cap are the same, so that the
    /// price is known.
    fn whole_balance(&mut self, draft: &mut Draft, sender: &TestKey) {
        self.penniless.push(sender.address());
        let account = self.world.chain.state.account(sender.address()).ok().flatten().unwrap_or_default();
        (draft.gas_limit, draft.tip) = (21_000, draft.fee_cap);
        let who = *[Who::Stranger, Who::Nobody, Who::Sender].choose(&mut self.world.rng).expect("not empty");
        draft.to = TxKind::Call(self.world.cast.address(who, &mut self.world.rng));
        draft.value = account.balance.saturating_sub(U256::from(21_000 * draft.fee_cap));
    }

    fn call(&mut self, draft: &mut Draft) {
        let to = match self.one_in(3) {
            true => self.address(),
            false => self.world.cast.address(Who::Contract, &mut self.world.rng),
        };
        draft.to = TxKind::Call(to);
        let number = self.world.rng.random_range(0..self.world.cast.slots * 2);
        let named = self.address();
        draft.input = [B256::from(U256::from(number)), named.into_word()].concat().into();
        if self.one_in(4) {
            draft.value = U256::from(self.world.rng.random_range(0..3u64));
        }
        if self.one_in(8) {
            // Hardly more than the call itself: it runs out somewhere.
            draft.gas_limit = 22_000 + self.world.rng.random_range(0..20_000);
        }
    }

    fn create(&mut self, draft: &mut Draft) {
        let World { rng, swarm, cast, .. } = &mut *self.world;
        draft.to = TxKind::Create;
        draft.input = Coder::new(rng, swarm, cast).init();
        draft.value = U256::from(rng.random_range(0..2u64));
        draft.gas_limit = draft.gas_limit.max(120_000);
    }

    fn delegate(&mut self, draft: &mut Draft, sender: &TestKey) {
        // The sender's own nonce is one further by the time its authorization is looked at.
        let mut signed = Vec::new();
        for _ in 0..self.world.rng.random_range(1..4) {
            let authority = match self.one_in(3) {
                true => sender.clone(),
                false => self.world.cast.senders.choose(&mut self.world.rng).expect("not empty").clone(),
            };
            let own = u64::from(authority.address() == sender.address());
            let nonce = *self.next_nonce(authority.address()) + own;
            let wrong = u64::from(self.one_in(8));
            let address = if self.one_in(4) { Address::ZERO } else { self.address() };
            let chain_id =
                *[0, CHAIN_ID, CHAIN_ID, CHAIN_ID + 1].choose(&mut self.world.rng).expect("not empty");
            if wrong == 0 && chain_id <= CHAIN_ID {
                *self.next_nonce(authority.address()) += 1;
            }
            let authorization =
                Authorization { chain_id: U256::from(chain_id), address, nonce: nonce + wrong };
            signed.push(authority.authorize(authorization));
        }
        let to = match self.one_in(2) {
            true => self.world.cast.address(Who::Sender, &mut self.world.rng),
            false => self.address(),
        };
        draft.gas_limit += 25_000 * signed.len() as u64;
        (draft.to, draft.authorizations) = (TxKind::Call(to), Some(signed));
    }

    fn token(&mut self, draft: &mut Draft) {
        let (token, to) = (self.world.cast.address(Who::Token, &mut self.world.rng), self.address());
        let value = U256::from(self.world.rng.random_range(0..300u64));
        draft.to = TxKind::Call(token);
        draft.input = IToken::transferCall { to, value }.abi_encode().into();
        draft.gas_limit = draft.gas_limit.max(80_000);
    }

    fn swap(&mut self, draft: &mut Draft) {
        let swap = IPool::swapCall {
            zeroForOne: self.world.rng.random(),
            amountIn: U256::from(self.world.rng.random_range(0..500u64)),
            minOut: U256::from(self.world.rng.random_range(0..4u64)),
        };
        (draft.to, draft.input) = (TxKind::Call(self.world.cast.pool), swap.abi_encode().into());
        draft.gas_limit = draft.gas_limit.max(200_000);
    }

    fn stake(&mut self, draft: &mut Draft) {
        let some = self.world.cast.address(Who::Sender, &mut self.world.rng);
        let rng = &mut self.world.rng;
        let joining = NEWCOMERS.choose(rng).expect("not empty");
        let (pubkey, proof) = (joining.public_key.0, joining.proof_of_possession.0);
        let [pubkey, proof] = [Bytes::copy_from_slice(&pubkey), Bytes::copy_from_slice(&proof)];
        draft.input = match rng.random_range(0..9) {
            0 => abi::registerCall { pubkey, proofOfPossession: proof }.abi_encode(),
            1 => abi::rotateKeyCall { newPubkey: pubkey, proofOfPossession: proof }.abi_encode(),
            2 => abi::unstakeCall { amount: U256::from(rng.random_range(0..200u64)) }.abi_encode(),
            3 => abi::exitCall {}.abi_encode(),
            4 => abi::withdrawCall {}.abi_encode(),
            5 => abi::validatorCall { account: some }.abi_encode(),
            6 => abi::validatorSetCall { epoch: U256::from(rng.random_range(0..3u64)) }.abi_encode(),
            _ => abi::addStakeCall {}.abi_encode(),
        }
        .into();
        if rng.random() {
            draft.value = U256::from(rng.random_range(1..100u64));
        }
        (draft.to, draft.gas_limit) =
            (TxKind::Call(staking::REGISTRY), 900_000.min(self.world.chain.gas_limit / 2));
    }

    /// Entries that the transaction may use or not.
    fn access_list(&mut self) -> AccessList {
        let entries = self.world.rng.random_range(1..4);
        let item = |_| {
            let address = self.address();
            let slots = self.world.rng.random_range(0..3u64);
            let storage_keys = (0..slots).map(|slot| U256::from(slot).into()).collect();
            AccessListItem { address, storage_keys }
        };
        AccessList((0..entries).map(item).collect())
    }

    /// The list of a strict transaction: mostly what the transaction would touch now, less or more of it at times.
    fn strict_list(&mut self, draft: &Draft, sender: &TestKey) -> AccessList {
        let marker = AccessListItem { address: STRICT_MARKER, storage_keys: Vec::new() };
        let request = CallRequest {
            from: Some(sender.address()),
            to: draft.to.to().copied(),
            gas: Some(draft.gas_limit),
            value: draft.value,
            input: draft.input.clone(),
            access_list: AccessList(vec![marker.clone()]),
            authorization_list: draft.authorizations.clone().unwrap_or_default(),
            ..Default::default()
        };
        let Chain { state, rules, gas_limit, height, .. } = &self.world.chain;
        let (height, none) = (*height + 1, StateOverrides::default());
        let found = create_access_list(&**state, rules, &self.world.chain.env(), &request, &none, *gas_limit);
        let mut list = found.map_or_else(|_| vec![marker], |found| found.access_list.0);
        match self.world.rng.random_range(0..8) {
            0 => {
                let place = self.world.rng.random_range(0..list.len());
                list.remove(place);
            }
            1 => list.extend(self.access_list().0),
            2 => {
                let address = list.choose(&mut self.world.rng).map_or(Address::ZERO, |item| item.address);
                self.add_word(&mut list, read_only_word(address));
            }
            3 => {
                let until = self.world.rng.random_range(height.saturating_sub(1)..height + 2);
                self.add_word(&mut list, valid_until_word(until));
            }
            4 => list.iter_mut().for_each(|item| item.storage_keys.truncate(1)),
            _ => {}
        }
        AccessList(list)
    }

    fn add_word(&mut self, list: &mut [AccessListItem], word: B256) {
        let marker = list.iter_mut().find(|item| item.address == STRICT_MARKER);
        if let Some(marker) = marker.filter(|marker| !marker.storage_keys.contains(&word)) {
            marker.storage_keys.push(word);
        }
    }

    fn spoil(&mut self, draft: &mut Draft, flaw: Flaw) {
        match flaw {
            Flaw::NonceTooLow => draft.nonce = draft.nonce.saturating_sub(1),
            Flaw::NonceTooHigh | Flaw::Repeated => draft.nonce += 1,
            Flaw::Funds => draft.value = U256::from(u128::MAX),
            Flaw::IntrinsicGas => draft.gas_limit = 20_000,
            Flaw::FeeCap => {
                draft.fee_cap = u128::from(self.world.chain.base_fee).saturating_sub(1);
                draft.tip = 0;
            }
            Flaw::BlockGas => {
                draft.gas_limit = self.world.chain.gas_limit.saturating_sub(20_000).min(16_000_000)
            }
            Flaw::ChainId => draft.chain_id += 1,
            Flaw::TipAboveCap => draft.tip = draft.fee_cap + 1,
            Flaw::NoAuthorization => draft.authorizations = Some(Vec::new()),
        }
    }

    /// Signs it as a transaction of a type that can say all of it, else of a random one.
    fn sign(&mut self, sender: &TestKey, draft: Draft) -> RecoveredTx {
        let Draft { chain_id, nonce, gas_limit, fee_cap, tip, to, value, input, access_list, authorizations } =
            draft;
        if let (Some(authorization_list), TxKind::Call(to)) = (authorizations, to) {
            return sender.sign_eip7702(TxEip7702 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: fee_cap,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list,
                authorization_list,
                input,
            });
        }
        // With one price only the cap is the price, so the tip is whatever is above the base fee.
        let one_price = tip == fee_cap || (tip < fee_cap && self.one_in(4));
        match (one_price, access_list.is_empty()) {
            (true, true) => {
                let chain_id = if self.one_in(4) && chain_id == CHAIN_ID { None } else { Some(chain_id) };
                sender.sign_legacy(TxLegacy {
                    chain_id,
                    nonce,
                    gas_price: fee_cap,
                    gas_limit,
                    to,
                    value,
                    input,
                })
            }
            (true, false) => sender.sign_eip2930(TxEip2930 {
                chain_id,
                nonce,
                gas_price: fee_cap,
                gas_limit,
                to,
                value,
                access_list,
                input,
            }),
            (false, _) => sender.sign(TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: fee_cap,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list,
                input,
            }),
        }
    }
}
