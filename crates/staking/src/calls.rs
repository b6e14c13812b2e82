//! Calls of the registry's ABI.

use crate::{
    Host, Registry, Status,
    abi::IValidatorRegistry::{self as abi, IValidatorRegistryCalls as Call},
    layout::{Bond, Head, Unbonding},
};
use alloy_primitives::{Address, Bytes, LogData, U256};
use alloy_sol_types::{SolCall, SolError, SolEvent, SolInterface, SolValue};
use types::{Epoch, PublicKey, Signature, Validator};

/// Gas of checking a proof of possession: what EIP-2537 asks for the pairing of two pairs and two maps to G2, and
/// something for the subgroup checks.
pub const POSSESSION_GAS: u64 = 160_000;

/// Gas of every call, beside the words, logs and payments it makes.
const CALL_GAS: u64 = 200;
/// Gas per 32 bytes read or returned.
const WORD_GAS: u64 = 6;

/// Why a call failed. It has no effect then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// The registry refuses: an encoded custom error.
    Revert(Bytes),
    /// A call that changes something, inside a static call.
    StaticCall,
    /// The surroundings failed, or the gas ran out.
    Host(E),
}

impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Self::Host(error)
    }
}

type Answer<T, H> = Result<T, Failure<<H as crate::Words>::Error>>;

fn refuse<T, E>(error: impl SolError) -> Result<T, Failure<E>> {
    Err(Failure::Revert(error.abi_encode().into()))
}

impl<H: Host> Registry<'_, H> {
    /// Runs one call and returns its encoded answer. `value` is already in the registry's balance. After a failure the
    /// caller undoes what was written.
    pub fn execute(
        &mut self,
        caller: Address,
        value: U256,
        input: &[u8],
        is_static: bool,
    ) -> Answer<Bytes, H> {
        self.words.charge(CALL_GAS.saturating_add(words_gas(input.len())))?;
        let call = decode(input)?;
        let payable = matches!(call, Call::register(_) | Call::addStake(_));
        if !value.is_zero() && !payable {
            return refuse(abi::NotPayable {});
        }
        // The chain's whole supply is below 2^128 wei (a rule of the genesis), so this never saturates.
        let value: u128 = value.saturating_to();
        if is_static && changes(&call) {
            return Err(Failure::StaticCall);
        }
        let output = match call {
            Call::register(call) => {
                self.register(caller, value, &call.pubkey, &call.proofOfPossession)?;
                Vec::new()
            }
            Call::addStake(_) => self.add_stake(caller, value).map(|()| Vec::new())?,
            Call::unstake(call) => self.unstake(caller, call.amount).map(|()| Vec::new())?,
            Call::exit(_) => self.exit(caller).map(|()| Vec::new())?,
            Call::withdraw(_) => self.withdraw(caller).map(|()| Vec::new())?,
            Call::rotateKey(call) => {
                self.rotate_key(caller, &call.newPubkey, &call.proofOfPossession)?;
                Vec::new()
            }
            Call::validator(call) => abi::validatorCall::abi_encode_returns(&self.info(call.account)?),
            Call::stakeOf(call) => U256::from(self.bond(call.account)?.stake).abi_encode(),
            Call::validatorSet(call) => abi::validatorSetCall::abi_encode_returns(&self.members(call.epoch)?),
            Call::epochs(_) => {
                let newest = self.newest_set()?.0;
                let epochs = abi::epochsReturn { current: self.epoch.get(), newestSet: newest.get() };
                abi::epochsCall::abi_encode_returns(&epochs)
            }
            Call::params(_) => abi::paramsCall::abi_encode_returns(&self.params()),
        };
        self.words.charge(words_gas(output.len()))?;
        Ok(output.into())
    }

    fn register(&mut self, caller: Address, value: u128, pubkey: &[u8], proof: &[u8]) -> Answer<(), H> {
        let head = self.head(caller)?;
        if !matches!(head.status, Status::None | Status::Exited) {
            return refuse(abi::AlreadyRegistered {});
        }
        let need = self.rules.params.min_stake.get();
        if value < need {
            return refuse(abi::StakeTooLow { have: U256::from(value), need: U256::from(need) });
        }
        let key = self.check_key(caller, pubkey, proof)?;
        if self.candidate_count()? >= self.rules.params.max_candidates {
            self.displace(caller, value)?;
        }
        let place = self.push_candidate(caller)?;
        let since = self.waiting_since(0);
        self.set_head(caller, Head { status: Status::Registered, place, since, ..head })?;
        let bond = self.bond(caller)?;
        self.set_bond(caller, Bond { stake: value, ..bond })?;
        self.set_key(caller, &key)?;
        self.emit(abi::Registered {
            validator: caller,
            pubkey: Bytes::copy_from_slice(pubkey),
            stake: U256::from(value),
        })
    }

    fn add_stake(&mut self, caller: Address, value: u128) -> Answer<(), H> {
        let head = self.registered(caller)?;
        if value == 0 {
            return refuse(abi::ZeroAmount {});
        }
        let bond = self.bond(caller)?;
        let stake = bond.stake.saturating_add(value);
        self.set_bond(caller, Bond { stake, ..bond })?;
        self.start_waiting(caller, head)?;
        self.emit(abi::StakeAdded { validator: caller, amount: U256::from(value), stake: U256::from(stake) })
    }

    fn unstake(&mut self, caller: Address, amount: U256) -> Answer<(), H> {
        let head = self.registered(caller)?;
        if amount.is_zero() {
            return refuse(abi::ZeroAmount {});
        }
        let bond = self.bond(caller)?;
        let left = U256::from(bond.stake).checked_sub(amount);
        let Some(stake) = left.map(|left| left.saturating_to::<u128>()) else {
            return refuse(abi::InsufficientStake { have: U256::from(bond.stake), want: amount });
        };
        let need = self.rules.params.min_stake.get();
        if stake < need {
            return refuse(abi::StakeTooLow { have: U256::from(stake), need: U256::from(need) });
        }
        let leaving = bond.leaving.saturating_add(bond.stake - stake);
        self.set_bond(caller, Bond { stake, leaving })?;
        self.start_waiting(caller, head)?;
        self.emit(abi::Unstaked { validator: caller, amount, stake: U256::from(stake) })
    }

    fn exit(&mut self, caller: Address) -> Answer<(), H> {
        let head = self.registered(caller)?;
        let bond = self.bond(caller)?;
        let leaving = bond.leaving.saturating_add(bond.stake);
        self.set_bond(caller, Bond { stake: 0, leaving })?;
        let since = self.waiting_since(head.since);
        self.set_head(caller, Head { status: Status::Exiting, since, ..head })?;
        self.emit(abi::ExitRequested { validator: caller, amount: U256::from(bond.stake) })
    }

    fn withdraw(&mut self, caller: Address) -> Answer<(), H> {
        let mut head = self.head(caller)?;
        let current = self.epoch.get();
        let (mut due, mut next, mut kept) = (0u128, 0u64, 0u8);
        for index in 0..head.unbonding {
            let entry = self.unbonding(caller, index)?;
            if entry.release <= current {
                due = due.saturating_add(entry.amount);
                continue;
            }
            if next == 0 {
                next = entry.release;
            }
            if kept != index {
                self.set_unbonding(caller, kept, entry)?;
            }
            kept += 1;
        }
        for index in kept..head.unbonding {
            self.set_unbonding(caller, index, Unbonding::default())?;
        }
        if due == 0 {
            return refuse(abi::NothingToWithdraw { currentEpoch: current, nextEpoch: next });
        }
        head.unbonding = kept;
        self.set_head(caller, head)?;
        self.words.pay(caller, due)?;
        self.emit(abi::Withdrawn { validator: caller, amount: U256::from(due) })
    }

    fn rotate_key(&mut self, caller: Address, pubkey: &[u8], proof: &[u8]) -> Answer<(), H> {
        self.registered(caller)?;
        let key = self.check_key(caller, pubkey, proof)?;
        self.set_key(caller, &key)?;
        self.emit(abi::KeyRotated { validator: caller, pubkey: Bytes::copy_from_slice(pubkey) })
    }

    /// Checks a key and its proof. A key once used by another validator is never free again: what it signed there may
    /// still be judged.
    fn check_key(&mut self, caller: Address, pubkey: &[u8], proof: &[u8]) -> Answer<PublicKey, H> {
        let Ok(key) = <[u8; 48]>::try_from(pubkey).map(PublicKey) else {
            return refuse(abi::BadPublicKey {});
        };
        let Ok(proof) = <[u8; 96]>::try_from(proof).map(Signature) else {
            return refuse(abi::BadProofOfPossession {});
        };
        let owner = self.key_owner(&key)?;
        if !owner.is_zero() && owner != caller {
            return refuse(abi::KeyInUse {});
        }
        self.words.charge(POSSESSION_GAS)?;
        let Ok(checked) = crypto::VerifyingKey::try_from(key) else { return refuse(abi::BadPublicKey {}) };
        match checked.verify_possession(&proof) {
            true => Ok(key),
            false => refuse(abi::BadProofOfPossession {}),
        }
    }

    /// Makes room for a validator with `stake`: the smallest one without weight goes if it is smaller (of equals the
    /// one with the highest address).
    fn displace(&mut self, by: Address, stake: u128) -> Answer<(), H> {
        let mut smallest: Option<(u128, std::cmp::Reverse<Address>)> = None;
        for place in 0..self.candidate_count()? {
            let account = self.candidate(place)?;
            if self.head(account)?.status == Status::Registered && self.weight(account)?.weight == 0 {
                let found = (self.bond(account)?.stake, std::cmp::Reverse(account));
                smallest = Some(smallest.map_or(found, |best| best.min(found)));
            }
        }
        let Some((least, std::cmp::Reverse(account))) = smallest.filter(|(least, _)| *least < stake) else {
            let need = smallest.map_or(U256::MAX, |(least, _)| U256::from(least));
            return refuse(abi::RegistryFull { have: U256::from(stake), needMoreThan: need });
        };
        let mut head = self.head(account)?;
        let bond = self.bond(account)?;
        self.remove_candidate(&mut head)?;
        // Without weight in the newest set; it may have had some in the set before.
        let free_from = self.newest_set()?.0;
        self.start_unbonding(account, &mut head, least.saturating_add(bond.leaving), free_from)?;
        self.set_head(account, Head { status: Status::Exited, since: 0, ..head })?;
        self.set_bond(account, Bond::default())?;
        self.emit(abi::Displaced { validator: account, by })
    }

    fn registered(&mut self, caller: Address) -> Answer<Head, H> {
        let head = self.head(caller)?;
        match head.status {
            Status::Registered => Ok(head),
            _ => refuse(abi::NotRegistered {}),
        }
    }

    fn waiting_since(&self, since: u64) -> u64 {
        if since == 0 { self.epoch.get().saturating_add(1) } else { since }
    }

    fn start_waiting(&mut self, account: Address, head: Head) -> Answer<(), H> {
        let since = self.waiting_since(head.since);
        if since != head.since {
            self.set_head(account, Head { since, ..head })?;
        }
        Ok(())
    }

    fn emit(&mut self, event: impl SolEvent) -> Answer<(), H> {
        let log: LogData = event.encode_log_data();
        Ok(self.words.emit(log)?)
    }

    fn info(&mut self, account: Address) -> Answer<abi::ValidatorInfo, H> {
        let (head, bond, weight) = (self.head(account)?, self.bond(account)?, self.weight(account)?);
        let pubkey = match head.status {
            Status::None => Bytes::new(),
            _ => Bytes::copy_from_slice(&self.key(account)?.0),
        };
        let status = match head.status {
            Status::None => abi::Status::None,
            Status::Registered if weight.weight == 0 => abi::Status::Pending,
            Status::Registered => abi::Status::Active,
            Status::Exiting => abi::Status::Exiting,
            Status::Exited => abi::Status::Exited,
            Status::Tombstoned => abi::Status::Tombstoned,
        };
        let mut unbonding = Vec::with_capacity(head.unbonding.into());
        for index in 0..head.unbonding {
            let Unbonding { amount, release } = self.unbonding(account, index)?;
            unbonding.push(abi::Unbonding { amount: U256::from(amount), releaseEpoch: release });
        }
        Ok(abi::ValidatorInfo {
            status,
            pubkey,
            stake: U256::from(bond.stake),
            weight: U256::from(weight.weight),
            leaving: U256::from(bond.leaving),
            slashed: U256::from(weight.slashed),
            unbonding,
        })
    }

    fn members(&mut self, epoch: U256) -> Answer<Vec<abi::Member>, H> {
        let Ok(epoch) = u64::try_from(epoch) else { return Ok(Vec::new()) };
        let set = self.set_of(Epoch::new(epoch))?.unwrap_or_default();
        let member = |Validator { address, public_key, stake }: &Validator| abi::Member {
            validator: *address,
            pubkey: Bytes::copy_from_slice(&public_key.0),
            weight: U256::from(stake.get()),
        };
        Ok(set.iter().map(member).collect())
    }

    fn params(&self) -> abi::Params {
        let params = &self.rules.params;
        abi::Params {
            epochLength: self.rules.schedule.length(),
            maxValidators: params.max_validators,
            maxCandidates: params.max_candidates,
            minStake: U256::from(params.min_stake.get()),
            stakeChangeCapNumerator: params.stake_change_cap_numerator,
            stakeChangeCapDenominator: params.stake_change_cap_denominator,
            unbondingEpochs: params.unbonding_epochs,
            slashBasisPoints: params.slash_basis_points,
        }
    }
}

fn decode<E>(input: &[u8]) -> Result<Call, Failure<E>> {
    let selector = input.first_chunk::<4>().copied();
    match selector.filter(|selector| Call::valid_selector(*selector)) {
        None => refuse(abi::UnknownFunction {}),
        Some(_) => Call::abi_decode(input).or_else(|_| refuse(abi::MalformedCall {})),
    }
}

fn changes(call: &Call) -> bool {
    match call {
        Call::register(_)
        | Call::addStake(_)
        | Call::unstake(_)
        | Call::exit(_)
        | Call::withdraw(_)
        | Call::rotateKey(_) => true,
        Call::validator(_) | Call::stakeOf(_) | Call::validatorSet(_) | Call::epochs(_) | Call::params(_) => {
            false
        }
    }
}

fn words_gas(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(32).saturating_mul(WORD_GAS)
}
