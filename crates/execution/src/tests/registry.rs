//! The validator registry as transactions, contracts and blocks see it.

use super::*;
use alloy_sol_types::{SolCall, SolEvent, SolInterface};
use crypto::SecretKey;
use staking::{MARKER_CODE, REGISTRY, abi::IValidatorRegistry as abi};
use types::evidence::{Evidence, Witness};
use types::genesis::GenesisValidator;
use types::vote::Signed;
use types::{CommitVote, Domain, Epoch, Height, Stake, ValidatorIndex, View};

const EPOCH: u64 = 4;
const COIN: u128 = 1_000_000_000_000_000_000;

fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n + 1; 32])
}

/// A chain with four validators of 100 coins, whose accounts are keys 0 to 3, and more funded keys.
fn chain() -> Chain {
    Chain::with(8, |genesis| {
        let validator = |n: u8| GenesisValidator {
            address: TestKey::new(n.into()).address(),
            public_key: secret(n).public_key(),
            proof_of_possession: secret(n).prove_possession(),
            stake: Stake::new(100 * COIN),
        };
        genesis.tandem.validators = (0..4).map(validator).collect();
        genesis.tandem.epoch_length = EPOCH;
        genesis.tandem.staking.unbonding_epochs = 4;
        genesis.tandem.staking.min_stake = Stake::new(COIN);
        genesis.check().unwrap();
    })
}

fn registration(n: u8) -> abi::registerCall {
    abi::registerCall {
        pubkey: Bytes::copy_from_slice(&secret(n).public_key().0),
        proofOfPossession: Bytes::copy_from_slice(&secret(n).prove_possession().0),
    }
}

impl Chain {
    fn nonce(&self, n: usize) -> u64 {
        self.state.account(self.keys[n].address()).unwrap().unwrap_or_default().nonce
    }

    fn send(&self, n: usize, to: Address, value: u128, input: Vec<u8>) -> RecoveredTx {
        let base = tx(self.nonce(n), TxKind::Call(to), 1_000_000, input.into());
        self.keys[n].sign(TxEip1559 { value: U256::from(value), ..base })
    }

    /// A call in a block of its own, which the oracle executes to the same outcome.
    fn tell(&mut self, n: usize, to: Address, value: u128, input: impl SolCall) -> TxReceipt {
        let transaction = self.send(n, to, value, input.abi_encode());
        let outcome = self.execute(vec![transaction.clone()]).unwrap();
        assert_eq!(self.run(vec![transaction]), outcome);
        assert_eq!(self.full_digest(), outcome.lthash);
        outcome.receipts[0].clone()
    }

    fn ask<C: SolCall>(&self, input: C) -> C::Return {
        let request =
            CallRequest { to: Some(REGISTRY), input: input.abi_encode().into(), ..Default::default() };
        let outcome = call(&self.state, &self.rules, &self.env(), &request, &Default::default(), 30_000_000);
        let CallOutcome::Success { output, .. } = outcome.unwrap() else { panic!() };
        C::abi_decode_returns(&output).unwrap()
    }

    /// Runs empty blocks to the end of the epoch and gives the set it computes.
    fn close(&mut self) -> Vec<types::Validator> {
        loop {
            let outcome = self.run(Vec::new());
            assert_eq!(outcome.system.next_validators.is_some(), self.height.is_multiple_of(EPOCH));
            if let Some(set) = outcome.system.next_validators {
                return set.to_vec();
            }
        }
    }

    fn balance_of(&self, address: Address) -> u128 {
        self.state.account(address).unwrap().unwrap_or_default().balance.to()
    }

    /// Deploys code and gives its address.
    fn deploy(&mut self, n: usize, code: &[u8]) -> Address {
        let nonce = self.nonce(n);
        self.run(vec![self.keys[n].sign(tx(nonce, TxKind::Create, 300_000, deployer(code)))]);
        self.keys[n].address().create(nonce)
    }
}

/// Code that hands its call data and value to the registry and returns, or reverts with, the answer. With
/// `then_revert` it reverts after a success too.
fn forwarder(opcode: u8, then_revert: bool) -> Vec<u8> {
    let value: &[u8] = if opcode == 0xf1 { &[0x34] } else { &[] };
    let mut code = vec![0x36, 0x5f, 0x5f, 0x37, 0x5f, 0x5f, 0x36, 0x5f];
    code.extend_from_slice(value);
    code.extend_from_slice(&[0x61, 0x10, 0x00, 0x5a, opcode, 0x3d, 0x5f, 0x5f, 0x3e]);
    let target = u8::try_from(code.len() + 6).unwrap();
    code.extend_from_slice(&[0x60, target, 0x57, 0x3d, 0x5f, 0xfd]);
    code.extend_from_slice(&[0x5b, 0x3d, 0x5f, if then_revert { 0xfd } else { 0xf3 }]);
    code
}

#[test]
fn the_registry_is_an_account_with_the_validators_stake() {
    let mut chain = chain();
    let account = chain.state.account(REGISTRY).unwrap().unwrap();
    assert_eq!(chain.state.code(account.code_hash).unwrap().as_ref(), MARKER_CODE);
    assert_eq!(account.balance, U256::from(400 * COIN));
    assert_eq!(chain.full_digest(), chain.lthash, "all of it is ordinary state");
    let set = chain.ask(abi::validatorSetCall { epoch: U256::from(1) });
    assert_eq!(set.len(), 4);
    assert_eq!(set[2].pubkey, registration(2).pubkey);
    assert_eq!(chain.ask(abi::epochsCall {}).newestSet, 1);
    let members = registry_set(&chain.state, chain.rules.staking().unwrap(), Epoch::new(1)).unwrap().unwrap();
    assert_eq!(chain.close(), members, "nothing happened, nothing changes");
}

#[test]
fn a_genesis_that_allocates_the_registry_is_refused() {
    let mut genesis = genesis(BTreeMap::from([(REGISTRY, GenesisAccount::default())]));
    genesis.tandem.validators = vec![GenesisValidator {
        address: Address::repeat_byte(1),
        public_key: secret(1).public_key(),
        proof_of_possession: secret(1).prove_possession(),
        stake: Stake::new(COIN),
    }];
    assert_eq!(genesis_state(&genesis).unwrap_err(), GenesisStateError::Reserved);
}

#[test]
fn a_registration_by_transaction_moves_stake_logs_and_votes_two_epochs_later() {
    let mut chain = chain();
    let before = chain.balance_of(REGISTRY);
    let receipt = chain.tell(5, REGISTRY, 30 * COIN, registration(5));
    assert!(receipt.succeeded());
    let log = &receipt.logs()[0];
    assert_eq!(log.address, REGISTRY);
    let event = abi::Registered::decode_log_data(&log.data).unwrap();
    assert_eq!((event.validator, event.stake), (chain.keys[5].address(), U256::from(30 * COIN)));
    assert_eq!(chain.balance_of(REGISTRY), before + 30 * COIN);
    let set = chain.close();
    assert_eq!(set.len(), 5);
    assert_eq!((set[4].address, set[4].stake), (chain.keys[5].address(), Stake::new(30 * COIN)));
    assert_eq!(chain.ask(abi::validatorSetCall { epoch: U256::from(1) }).len(), 4);
    assert_eq!(chain.ask(abi::validatorSetCall { epoch: U256::from(2) }).len(), 5);
}

#[test]
fn a_refused_call_gives_the_value_back_and_says_why() {
    let mut chain = chain();
    let (registry, sender) = (chain.balance_of(REGISTRY), chain.balance_of(chain.keys[5].address()));
    let slots = chain.state.slots().count();
    let receipt = chain.tell(5, REGISTRY, COIN / 2, registration(5));
    assert!(!receipt.succeeded() && receipt.logs().is_empty());
    assert_eq!(chain.balance_of(REGISTRY), registry);
    let fee = u128::from(receipt.gas_used) * receipt.effective_gas_price;
    assert_eq!(chain.balance_of(chain.keys[5].address()), sender - fee);
    assert_eq!(chain.state.slots().count(), slots);
    let request = CallRequest {
        from: Some(chain.keys[5].address()),
        to: Some(REGISTRY),
        value: U256::from(COIN / 2),
        input: registration(5).abi_encode().into(),
        ..Default::default()
    };
    let outcome = call(&chain.state, &chain.rules, &chain.env(), &request, &Default::default(), 30_000_000);
    let CallOutcome::Revert { output, .. } = outcome.unwrap() else { panic!() };
    let error = abi::IValidatorRegistryErrors::abi_decode(&output).unwrap();
    assert!(matches!(error, abi::IValidatorRegistryErrors::StakeTooLow(_)));
    let plain = chain.send(5, REGISTRY, COIN, Vec::new());
    assert!(!chain.run(vec![plain]).receipts[0].succeeded(), "no stake by a plain transfer");
}

#[test]
fn an_estimate_is_enough_and_less_gas_has_no_effect() {
    let mut chain = chain();
    let input: Bytes = registration(5).abi_encode().into();
    let request = CallRequest {
        from: Some(chain.keys[5].address()),
        to: Some(REGISTRY),
        value: U256::from(COIN),
        input: input.clone(),
        ..Default::default()
    };
    let cap = 30_000_000;
    let estimate =
        estimate_gas(&chain.state, &chain.rules, &chain.env(), &request, &Default::default(), cap).unwrap();
    assert!(estimate > staking::POSSESSION_GAS, "{estimate}");
    let send = |chain: &Chain, gas| {
        let base = tx(chain.nonce(5), TxKind::Call(REGISTRY), gas, input.clone());
        chain.keys[5].sign(TxEip1559 { value: U256::from(COIN), ..base })
    };
    let slots = chain.state.slots().count();
    for gas in [60_000, estimate / 2, estimate * 9 / 10] {
        let receipt = chain.run(vec![send(&chain, gas)]).receipts[0].clone();
        assert!(!receipt.succeeded());
        assert_eq!(receipt.gas_used, gas, "all of it is gone");
        assert_eq!(chain.state.slots().count(), slots);
    }
    let receipt = chain.run(vec![send(&chain, estimate)]).receipts[0].clone();
    assert!(receipt.succeeded(), "{} used of {estimate}", receipt.gas_used);
    assert_eq!(chain.full_digest(), chain.lthash);
}

#[test]
fn a_contract_can_be_a_validator_and_its_revert_undoes_what_the_registry_did() {
    let mut chain = chain();
    let (owner, regretful) =
        (chain.deploy(6, &forwarder(0xf1, false)), chain.deploy(6, &forwarder(0xf1, true)));
    let slots = chain.state.slots().count();
    let receipt = chain.tell(5, regretful, 2 * COIN, registration(5));
    assert!(!receipt.succeeded() && receipt.logs().is_empty());
    assert_eq!((chain.state.slots().count(), chain.balance_of(REGISTRY)), (slots, 400 * COIN));
    assert!(chain.tell(5, owner, 2 * COIN, registration(5)).succeeded());
    chain.close();
    let info = chain.ask(abi::validatorCall { account: owner });
    assert_eq!((info.status, info.stake), (abi::Status::Active, U256::from(2 * COIN)));
    // It leaves and is paid without any code of its running.
    assert!(chain.tell(5, owner, 0, abi::exitCall {}).succeeded());
    for _ in 0..6 {
        chain.close();
    }
    assert!(chain.tell(5, owner, 0, abi::withdrawCall {}).succeeded());
    assert_eq!((chain.balance_of(owner), chain.balance_of(REGISTRY)), (2 * COIN, 400 * COIN));
}

#[test]
fn a_static_call_changes_nothing_and_a_borrowed_one_is_refused() {
    let mut chain = chain();
    let reader = chain.deploy(6, &forwarder(0xfa, false));
    let borrower = chain.deploy(6, &forwarder(0xf4, false));
    assert!(!chain.tell(0, reader, 0, abi::exitCall {}).succeeded());
    assert!(chain.tell(5, reader, 0, abi::validatorSetCall { epoch: U256::ZERO }).succeeded());
    for borrowed in
        [chain.tell(0, borrower, 0, abi::exitCall {}), chain.tell(5, borrower, 0, abi::paramsCall {})]
    {
        assert!(!borrowed.succeeded());
    }
    assert_eq!(
        chain.ask(abi::validatorCall { account: chain.keys[0].address() }).status,
        abi::Status::Active
    );
    assert_eq!(chain.state.slots().filter(|((address, _), _)| *address == borrower).count(), 0);
    // An account that delegates to the registry runs its marker, which fails.
    let authorization =
        alloy_eips::eip7702::Authorization { chain_id: U256::from(CHAIN_ID), address: REGISTRY, nonce: 0 };
    let delegate = alloy_consensus::TxEip7702 {
        chain_id: CHAIN_ID,
        nonce: chain.nonce(5),
        gas_limit: 300_000,
        max_fee_per_gas: u128::from(100 * GWEI),
        max_priority_fee_per_gas: 1,
        to: chain.keys[7].address(),
        input: abi::paramsCall {}.abi_encode().into(),
        authorization_list: vec![chain.keys[7].authorize(authorization)],
        ..Default::default()
    };
    let outcome = chain.run(vec![chain.keys[5].sign_eip7702(delegate)]);
    assert!(!outcome.receipts[0].succeeded());
    assert_eq!(chain.full_digest(), chain.lthash);
}

#[test]
fn a_storage_failure_inside_the_registry_says_nothing_about_the_block() {
    struct Broken(MemoryState);
    impl StateView for Broken {
        fn account(&self, address: Address) -> Result<Option<AccountInfo>, ViewError> {
            self.0.account(address)
        }
        fn code(&self, hash: B256) -> Result<Bytes, ViewError> {
            self.0.code(hash)
        }
        fn storage(&self, _: Address, _: U256) -> Result<U256, ViewError> {
            Err(ViewError::Storage("unreadable".into()))
        }
        fn block_hash(&self, height: u64) -> Result<B256, ViewError> {
            self.0.block_hash(height)
        }
    }
    let mut chain = chain();
    let nested = chain.deploy(6, &forwarder(0xf1, false));
    for to in [REGISTRY, nested] {
        let transactions =
            PayloadTransactions::single_lane(vec![chain.send(5, to, COIN, registration(5).abi_encode())]);
        let view = Broken(chain.state.clone());
        let error =
            execute(&view, &chain.rules, &chain.env(), &chain.lthash, &transactions, &[]).unwrap_err();
        assert_eq!(error, ExecuteError::View(ViewError::Storage("unreadable".into())));
    }
}

/// Two commits of validator `n` for one view of `epoch`.
fn double_commit(chain: &Chain, epoch: u64, n: u8) -> Vec<u8> {
    let domain = Domain { epoch, ..chain.rules.domain() };
    let vote = |byte| {
        let statement =
            CommitVote { view: View::new(3), height: Height::new(1), block_hash: B256::repeat_byte(byte) };
        Witness::Commit(Signed::new(statement, ValidatorIndex::new(n.into()), &secret(n), &domain))
    };
    types::encode(&Evidence::new(Epoch::new(epoch), vote(1), vote(2)).unwrap())
}

impl Chain {
    fn run_with(&mut self, evidence: &[Vec<u8>]) -> Result<BlockOutcome, ExecuteError> {
        let none = PayloadTransactions::default();
        let outcome = execute(&self.state, &self.rules, &self.env(), &self.lthash, &none, evidence)?;
        let limits = BuildLimits { bytes: 1 << 20, ..LIMITS };
        let env = self.env();
        let built =
            build(&self.state, &self.rules, &env, &self.lthash, limits, evidence, Vec::new(), || false)
                .unwrap();
        assert_eq!(built.outcome, outcome);
        self.advance(&outcome);
        assert_eq!(self.full_digest(), self.lthash);
        Ok(outcome)
    }
}

#[test]
fn evidence_burns_stake_once_and_the_next_computed_set_is_without_the_offender() {
    let mut chain = chain();
    let evidence = double_commit(&chain, 0, 2);
    let outcome = chain.run_with(&[evidence.clone(), evidence.clone()]).unwrap();
    let offender = chain.keys[2].address();
    let conviction = Conviction { offender, epoch: Epoch::ZERO, burned: 5 * COIN };
    assert_eq!(outcome.system.convictions, [conviction]);
    assert_eq!(chain.balance_of(REGISTRY), 395 * COIN);
    assert_eq!(chain.ask(abi::validatorCall { account: offender }).status, abi::Status::Tombstoned);
    let again = chain.run_with(std::slice::from_ref(&evidence)).unwrap();
    assert_eq!((again.system.convictions, chain.balance_of(REGISTRY)), (Vec::new(), 395 * COIN));
    let members: Vec<_> = chain.close().iter().map(|member| member.address).collect();
    assert_eq!(members, [0, 1, 3].map(|n| chain.keys[n].address()));
    while chain.height < EPOCH * 12 {
        chain.close();
    }
    let old = chain.run_with(&[evidence]).unwrap();
    assert_eq!(old.system, SystemOutcome::default(), "older than any set kept: no fault, no effect");
}

#[test]
fn evidence_of_the_last_block_of_an_epoch_counts_for_the_set_computed_there() {
    let mut chain = chain();
    while chain.height + 1 < EPOCH {
        chain.run(Vec::new());
    }
    let outcome = chain.run_with(&[double_commit(&chain, 0, 1)]).unwrap();
    let set = outcome.system.next_validators.unwrap();
    assert_eq!((outcome.system.convictions.len(), set.len()), (1, 3));
}

#[test]
fn evidence_that_proves_nothing_makes_the_block_invalid() {
    let chain = chain();
    let good = double_commit(&chain, 0, 2);
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let foreign = double_commit(&Chain::new(1), 0, 2);
    let cases = [
        (vec![forged], "evidence 0: a signature does not verify"),
        (vec![good.clone(), b"nonsense".to_vec()], "evidence 1: "),
        (vec![foreign], "evidence 0: a signature does not verify"),
        (vec![double_commit(&chain, 7, 2)], "evidence 0: epoch 7 has no validator set yet"),
        (vec![good; 9], "9 pieces of evidence, at most 8 are allowed"),
    ];
    for (evidence, expected) in cases {
        let none = PayloadTransactions::default();
        let error = execute(&chain.state, &chain.rules, &chain.env(), &chain.lthash, &none, &evidence);
        let Err(ExecuteError::Invalid(invalid)) = error else { panic!("{error:?}") };
        assert_eq!(invalid.code, InvalidPayloadCode::Evidence);
        assert!(invalid.reason.starts_with(expected), "{}", invalid.reason);
    }
}
