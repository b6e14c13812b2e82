//! Random states and random blocks on them.
//!
//! A [`World`] is a small chain made from a seed: accounts with and without keys, contracts of random bytecode that
//! call, create and destroy each other, a token and a pool, delegated accounts. [`World::candidates`] draws the
//! transactions of one block, valid ones and some that a builder has to leave out. How likely each kind of thing is,
//! is drawn from the seed too, so that some worlds are all conflicts and others have none.

mod code;
mod deck;
mod transactions;

use crate::{
    chain::{Chain, GWEI, block_hash, coins},
    contracts,
    coverage::{Coverage, is_precompile},
    keys,
};
use alloy_consensus::Transaction;
use alloy_eips::eip2935::{HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE};
use alloy_primitives::{Address, Bytes, U256, keccak256};
use code::{Coder, Deploy, End, Sink, Statement, Value, create2_address};
use deck::Deck;
use execution::{
    AccountInfo, BlockOutcome, Fork, RecoveredTx, SkippedTx, StateDiff, StateView, testing::TestKey,
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use transactions::{Flaw, Kind};

/// Kinds of accounts that code and transactions name.
#[derive(Clone, Copy, Debug)]
enum Who {
    Contract,
    Sender,
    Stranger,
    Nobody,
    Precompile,
    FeeRecipient,
    Foreseen,
    Token,
    Registry,
}

impl Who {
    const ALL: [Self; 9] = [
        Self::Contract,
        Self::Sender,
        Self::Stranger,
        Self::Nobody,
        Self::Precompile,
        Self::FeeRecipient,
        Self::Foreseen,
        Self::Token,
        Self::Registry,
    ];
}

/// What is how likely in a world.
#[derive(Clone, Debug)]
struct Swarm {
    statements: Deck<Statement>,
    values: Deck<Value>,
    sinks: Deck<Sink>,
    ends: Deck<End>,
    deploys: Deck<Deploy>,
    whos: Deck<Who>,
    kinds: Deck<Kind>,
    flaws: Deck<Flaw>,
    /// One in so many candidates has a flaw.
    flaw_ratio: u32,
}

impl Swarm {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            statements: Deck::draw_weights(rng, &Statement::ALL),
            values: Deck::draw_weights(rng, &Value::ALL),
            sinks: Deck::draw_weights(rng, &Sink::ALL),
            // Code that always fails hides what it does.
            ends: Deck::draw_weights(rng, &End::ALL).add(End::Stop, 16),
            deploys: Deck::draw_weights(rng, &Deploy::ALL).add(Deploy::Code, 2),
            whos: Deck::draw_weights(rng, &Who::ALL),
            kinds: Deck::draw_weights(rng, &Kind::ALL),
            flaws: Deck::draw_weights(rng, &Flaw::ALL),
            flaw_ratio: *[4, 12, 40].choose(rng).expect("not empty"),
        }
    }
}

/// The accounts of a world.
#[derive(Clone, Debug, Default)]
struct Cast {
    senders: Vec<TestKey>,
    contracts: Vec<Address>,
    strangers: Vec<Address>,
    /// Accounts whose code is creation code, with its length.
    libraries: Vec<(Address, usize)>,
    /// Addresses that creations may yield.
    foreseen: Vec<Address>,
    tokens: [Address; 2],
    pool: Address,
    fee_recipient: Address,
    /// Slots that contracts mostly use.
    slots: u64,
}

impl Cast {
    fn address(&self, who: Who, rng: &mut ChaCha8Rng) -> Address {
        match who {
            Who::Contract => pick(&self.contracts, rng),
            Who::Sender => self.senders.choose(rng).map(TestKey::address).unwrap_or_default(),
            Who::Stranger => pick(&self.strangers, rng),
            Who::Nobody => numbered(0xdd, rng.random_range(0..4)),
            Who::Precompile => Address::from_word(U256::from(rng.random_range(1..=0x11u64)).into()),
            Who::FeeRecipient => self.fee_recipient,
            Who::Foreseen => pick(&self.foreseen, rng),
            Who::Token => pick(&self.tokens, rng),
            Who::Registry => staking::REGISTRY,
        }
    }
}

fn pick(addresses: &[Address], rng: &mut ChaCha8Rng) -> Address {
    addresses.choose(rng).copied().unwrap_or_default()
}

/// Account number `n` of the kind that a first byte tells.
fn numbered(kind: u8, n: u64) -> Address {
    let mut bytes = [0x11; 20];
    bytes[0] = kind;
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    bytes.into()
}

/// One seed's chain.
#[derive(Clone, Debug)]
pub struct World {
    /// Where it came from.
    pub seed: u64,
    /// State and environment.
    pub chain: Chain,
    rng: ChaCha8Rng,
    swarm: Swarm,
    cast: Cast,
    /// Whether there are many senders and large blocks.
    crowded: bool,
}

/// One world in so many is crowded.
const CROWDED: u64 = 24;

impl World {
    /// The world of a seed, before its first block.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let swarm = Swarm::draw(&mut rng);
        let (chain, cast, crowded) = (random_chain(&mut rng), Cast::default(), seed.is_multiple_of(CROWDED));
        let mut world = Self { seed, chain, rng, swarm, cast, crowded };
        if crowded {
            world.swarm.flaw_ratio = 40;
        }
        world.people();
        world.libraries();
        world.foresee();
        world.market();
        world.contracts();
        world.delegations();
        world.chain.lthash = world.chain.full_digest();
        world
    }

    /// The candidates of the next block, in the order in which a builder shall try them.
    pub fn candidates(&mut self) -> Vec<RecoveredTx> {
        let count = match self.rng.random_range(0..400) {
            _ if self.crowded => self.rng.random_range(50..400),
            0..=1 => self.rng.random_range(100..600),
            2..=30 => self.rng.random_range(25..80),
            31..=130 => self.rng.random_range(8..25),
            _ => self.rng.random_range(1..8),
        };
        transactions::draw(self, count)
    }

    /// Takes over a block, and lets another account earn the next one's fees at times.
    pub fn advance(&mut self, outcome: &BlockOutcome) {
        self.chain.advance(outcome);
        if self.rng.random_ratio(1, 2) {
            self.choose_fee_recipient();
        }
    }

    /// Counts what kinds of transactions a block on the present state included, and why others were left out.
    pub fn cover(
        &self,
        included: &[RecoveredTx],
        outcome: &BlockOutcome,
        skipped: &[SkippedTx],
        coverage: &mut Coverage,
    ) {
        for (transaction, receipt) in included.iter().zip(&outcome.receipts) {
            self.cover_transaction(transaction, coverage);
            coverage.hit(if receipt.succeeded() { "tx: succeeded" } else { "tx: failed" });
        }
        let mut senders: Vec<_> = included.iter().map(RecoveredTx::sender).collect();
        senders.sort_unstable();
        coverage.add(
            "tx: several of one sender",
            senders.windows(2).filter(|two| two[0] == two[1]).count() as u64,
        );
        for (sender, change) in outcome.diff.accounts() {
            let emptied = change.new.is_some_and(|new| new.balance.is_zero() && new.nonce > 0);
            if emptied && senders.binary_search(&sender).is_ok() {
                coverage.hit("whole balance");
            }
        }
        for transaction in skipped {
            let reason = transaction.reason.as_ref().map_or("NoRoom".into(), |reason| format!("{reason:?}"));
            let name: String = reason.chars().take_while(|c| c.is_alphanumeric()).collect();
            coverage.hit(&format!("skipped: {name}"));
        }
    }

    fn cover_transaction(&self, transaction: &RecoveredTx, coverage: &mut Coverage) {
        let envelope = transaction.envelope();
        coverage.hit(match envelope.tx_type() {
            alloy_consensus::TxType::Legacy => "tx: legacy",
            alloy_consensus::TxType::Eip2930 => "tx: eip2930",
            alloy_consensus::TxType::Eip7702 => "tx: eip7702",
            _ => "tx: eip1559",
        });
        if envelope.access_list().is_some_and(|list| !list.is_empty()) {
            coverage.hit("tx: access list");
        }
        if transaction.effective_tip(self.chain.base_fee) == Some(0) {
            coverage.hit("tx: zero tip");
        }
        let (sender, earner) = (transaction.sender(), self.chain.fee_recipient);
        if sender == earner {
            coverage.hit("sender is the fee recipient");
        }
        for authorization in transaction.authorizations() {
            let cleared = authorization.address.is_zero();
            coverage.hit(if cleared { "delegation: cleared" } else { "delegation: set" });
            if authorization.authority().is_some_and(|authority| authority != sender) {
                coverage.hit("delegation: sponsored");
            }
        }
        let Some(to) = envelope.to() else { return coverage.hit("tx: creation") };
        let code = self.code_of(to);
        let features = [
            (to == earner, "to: the fee recipient"),
            (to == sender, "to: itself"),
            (to == staking::REGISTRY && self.has_registry(), "to: the registry"),
            (is_precompile(to), "to: a precompile"),
            (matches!(self.chain.state.account(to), Ok(None)) && !is_precompile(to), "to: nobody yet"),
            (code.starts_with(&[0xef, 0x01]), "to: a delegated account"),
            (!code.is_empty(), "to: a contract"),
        ];
        features.iter().filter(|(hit, _)| *hit).for_each(|(_, feature)| coverage.hit(feature));
    }

    /// Whether there is a validator registry, which plain revm knows nothing of.
    pub fn has_registry(&self) -> bool {
        self.chain.rules.staking().is_some()
    }

    /// Whether the next block's fork has EIP-7702.
    fn has_delegations(&self) -> bool {
        self.chain.rules.fork_at(self.chain.height + 1) >= Fork::Prague
    }

    fn code_of(&self, address: Address) -> Bytes {
        let account = self.chain.state.account(address).ok().flatten().unwrap_or_default();
        self.chain.state.code(account.code_hash).unwrap_or_default()
    }

    fn put(&mut self, address: Address, nonce: u64, balance: U256, code: Bytes) {
        let state = self.chain.state_mut();
        let code_hash = state.put_code(code);
        state.put_account(address, AccountInfo { nonce, balance, code_hash });
    }

    /// Senders, rich and poor, and accounts that nobody has a key of.
    fn people(&mut self) {
        let count = *[2u64, 4, 8, 16, 64].choose(&mut self.rng).expect("not empty");
        let count = if self.crowded { 240 } else { count };
        for n in 0..count {
            let balance = match self.rng.random_range(0..8) {
                // Enough for some transactions only.
                0 => U256::from(self.rng.random_range(1..400_000) * GWEI),
                _ => coins(self.rng.random_range(1..1_000)),
            };
            let nonce = self.rng.random_range(0..3);
            let key = keys::key(n);
            self.put(key.address(), nonce, balance, Bytes::new());
            self.cast.senders.push(key);
        }
        for n in 0..4 {
            self.put(numbered(0xee, n), 0, U256::from(n + 1), Bytes::new());
            self.cast.strangers.push(numbered(0xee, n));
        }
        self.cast.slots = *[1, 2, 4, 16, 64].choose(&mut self.rng).expect("not empty");
        let contracts = *[1u64, 2, 4, 8, 24].choose(&mut self.rng).expect("not empty");
        self.cast.contracts = (0..contracts).map(|n| numbered(0xcc, n)).collect();
        self.choose_fee_recipient();
    }

    fn choose_fee_recipient(&mut self) {
        let address = match self.rng.random_range(0..8) {
            0 => self.cast.address(Who::Sender, &mut self.rng),
            1 => self.cast.address(Who::Contract, &mut self.rng),
            2 => self.cast.address(Who::Nobody, &mut self.rng),
            3 => self.cast.address(Who::Precompile, &mut self.rng),
            4 => self.cast.address(Who::Foreseen, &mut self.rng),
            _ => numbered(0xfe, 0),
        };
        (self.cast.fee_recipient, self.chain.fee_recipient) = (address, address);
    }

    fn libraries(&mut self) {
        for n in 0..self.rng.random_range(1..5) {
            let code = Coder::new(&mut self.rng, &self.swarm, &self.cast).init();
            self.cast.libraries.push((numbered(0xab, n), code.len()));
            self.put(numbered(0xab, n), 1, U256::ZERO, code);
        }
    }

    /// Computes where creations of the coming blocks may put accounts; some of the places are taken already.
    fn foresee(&mut self) {
        let mut places = Vec::new();
        for contract in &self.cast.contracts {
            for (library, _) in &self.cast.libraries {
                let code = self.code_of(*library);
                places.extend([0, 1].map(|salt| create2_address(*contract, salt, &code)));
            }
            places.extend([1, 2].map(|nonce| contract.create(nonce)));
        }
        places.extend(
            self.cast.senders.iter().take(4).flat_map(|key| [0, 1, 2].map(|n| key.address().create(n))),
        );
        let kept = places.choose_multiple(&mut self.rng, 8).copied().collect::<Vec<_>>();
        for (n, place) in kept.iter().enumerate() {
            match n {
                0 | 1 => self.put(*place, 0, U256::from(5), Bytes::new()),
                2 => self.put(*place, 1, U256::ZERO, Bytes::new()),
                3 => self.put(*place, 1, U256::ZERO, contracts::counter()),
                _ => {}
            }
        }
        self.cast.foreseen = kept;
    }

    /// Two tokens and a pool between them; every sender owns some of both.
    fn market(&mut self) {
        let (tokens, pool) = ([numbered(0xaa, 0), numbered(0xaa, 1)], numbered(0xaa, 2));
        (self.cast.tokens, self.cast.pool) = (tokens, pool);
        let owners: Vec<_> = self.cast.senders.iter().map(TestKey::address).collect();
        for token in tokens {
            self.put(token, 1, U256::ZERO, contracts::token());
            for owner in &owners {
                let balance = U256::from(self.rng.random_range(0..2_000u64));
                let state = self.chain.state_mut();
                state.put_slot(token, contracts::balance_slot(*owner), balance);
                state.put_slot(token, contracts::allowance_slot(*owner, pool), U256::MAX);
            }
        }
        self.put(pool, 1, U256::ZERO, contracts::pool());
        let state = self.chain.state_mut();
        contracts::POOL_TOKENS.iter().zip(tokens).for_each(|(slot, token)| {
            state.put_slot(pool, U256::from(*slot), token.into_word().into());
            state.put_slot(token, contracts::balance_slot(pool), U256::from(1_000_000));
        });
        state.put_slot(
            pool,
            U256::from(contracts::POOL_RESERVES),
            contracts::reserves(1_000_000, 1_000_000, 0),
        );
        state.put_slot(pool, U256::from(contracts::POOL_LOCK), U256::from(1));
    }

    fn contracts(&mut self) {
        for contract in self.cast.contracts.clone() {
            let statements = self.rng.random_range(1..8);
            let code = Coder::new(&mut self.rng, &self.swarm, &self.cast).runtime(statements);
            let balance =
                U256::from(*[0u64, 1, 100, 5_000_000_000].choose(&mut self.rng).expect("not empty"));
            self.put(contract, 1, balance, code);
            for slot in 0..self.cast.slots {
                let value = self.rng.random_range(0..4u64);
                self.chain.state_mut().put_slot(contract, U256::from(slot), U256::from(value));
            }
        }
    }

    /// Some senders run a contract's code from the start, and a stranger too.
    fn delegations(&mut self) {
        let mut accounts: Vec<_> = self.cast.senders.iter().map(TestKey::address).collect();
        accounts.retain(|_| self.rng.random_ratio(1, 6));
        accounts.extend(self.cast.strangers.first());
        for account in accounts {
            let who = *[Who::Contract, Who::Contract, Who::Token, Who::Sender, Who::Precompile]
                .choose(&mut self.rng)
                .expect("not empty");
            let target = self.cast.address(who, &mut self.rng);
            let old = self.chain.state.account(account).ok().flatten().unwrap_or_default();
            self.put(account, old.nonce.max(1), old.balance, delegation(target));
        }
    }
}

/// The code of an account delegated to `target` (EIP-7702).
fn delegation(target: Address) -> Bytes {
    [&[0xef, 0x01, 0x00], target.as_slice()].concat().into()
}

fn random_chain(rng: &mut ChaCha8Rng) -> Chain {
    let forks: &[(Fork, u64)] = match rng.random_range(0..12) {
        0 => &[(Fork::Cancun, 0)],
        1 => &[(Fork::Prague, 0)],
        2 => &[(Fork::Cancun, 0), (Fork::Prague, 302), (Fork::Osaka, 303)],
        _ => &[(Fork::Osaka, 0)],
    };
    let gas_limit = *[30_000_000, 30_000_000, 30_000_000, 700_000].choose(rng).expect("not empty");
    let base_fee = *[0, 7, GWEI].choose(rng).expect("not empty");
    // A registry counts epochs from height 0 on.
    let mut chain = match rng.random_ratio(1, 8) {
        true => Chain::with_registry(forks, gas_limit, base_fee),
        false => Chain {
            height: *[0, 1, 300].choose(rng).expect("not empty"),
            ..Chain::new(forks, gas_limit, base_fee)
        },
    };
    let (height, keeps_history) = (chain.height, rng.random());
    let state = chain.state_mut();
    for past in height.saturating_sub(4)..=height {
        state.apply(past, block_hash(past), &StateDiff::default());
    }
    if keeps_history {
        let code_hash = keccak256(&HISTORY_STORAGE_CODE);
        state.put_code(HISTORY_STORAGE_CODE.clone());
        state.put_account(HISTORY_STORAGE_ADDRESS, AccountInfo { nonce: 1, balance: U256::ZERO, code_hash });
    }
    chain
}
