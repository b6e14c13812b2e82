//! What happens to the registry outside transactions: its founding, the end of an epoch, convictions.

use crate::{
    Candidate, Limits, MemoryWords, Registry, StakingRules, Status, Words,
    layout::{Bond, Head, UNBONDING_MAX, Unbonding, Weight},
    next_set,
};
use alloy_primitives::{Address, U256};
use types::{Epoch, Genesis, Validator};

/// What a conviction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slash {
    /// The validator's account.
    pub offender: Address,
    /// Burned, in wei: the registry's balance shrinks by it.
    pub burned: u128,
}

/// A candidate with its record.
struct Entry {
    address: Address,
    head: Head,
    bond: Bond,
    weight: Weight,
    candidate: Candidate,
}

impl Registry<'_, MemoryWords> {
    /// The registry's words at height 0: the genesis' validators, and the sets of epochs 0 and 1.
    pub fn found(rules: &StakingRules, genesis: &Genesis) -> MemoryWords {
        let mut words = MemoryWords::default();
        let Ok(()) = Registry::at(rules, 0, &mut words).register_founders(genesis);
        words
    }
}

impl<W: Words> Registry<'_, W> {
    fn register_founders(&mut self, genesis: &Genesis) -> Result<(), W::Error> {
        let mut set = Vec::with_capacity(genesis.tandem.validators.len());
        for founder in &genesis.tandem.validators {
            let (address, stake) = (founder.address, founder.stake.get());
            let place = self.push_candidate(address)?;
            self.set_head(address, Head { status: Status::Registered, place, ..Head::default() })?;
            self.set_bond(address, Bond { stake, leaving: 0 })?;
            self.set_weight(address, Weight { weight: stake, slashed: 0 })?;
            self.set_key(address, &founder.public_key)?;
            set.push(Validator { address, public_key: founder.public_key, stake: founder.stake });
        }
        self.keep_set(Epoch::ZERO, &set)?;
        self.keep_set(Epoch::new(1), &set)
    }

    /// The set of an epoch in canonical order; `None` when it is not computed yet or not kept any more.
    pub fn validator_set(&mut self, epoch: Epoch) -> Result<Option<Vec<Validator>>, W::Error> {
        self.set_of(epoch)
    }

    /// Ends the running epoch: computes and keeps the set of the epoch after the next one, lets go of who left, and
    /// starts the unbonding of stake that has no weight in it any more.
    pub fn close_epoch(&mut self) -> Result<Vec<Validator>, W::Error> {
        let computed = self.epoch.next().next();
        let previous = self.set_of(self.epoch.next())?.unwrap_or_default();
        let entries = self.entries()?;
        let candidates: Vec<_> = entries.iter().map(|entry| entry.candidate.clone()).collect();
        let params = &self.rules.params;
        let limits = Limits {
            max_validators: params.max_validators as usize,
            min_stake: params.min_stake.get(),
            cap_numerator: params.stake_change_cap_numerator,
            cap_denominator: params.stake_change_cap_denominator,
        };
        let set = next_set(&previous, &candidates, &limits);
        let weights: std::collections::BTreeMap<Address, u128> =
            set.iter().map(|member| (member.address, member.stake.get())).collect();
        for entry in entries {
            let weight = weights.get(&entry.address).copied().unwrap_or(0);
            self.settle(entry, weight, computed)?;
        }
        self.keep_set(computed, &set)?;
        Ok(set)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, W::Error> {
        (0..self.candidate_count()?).map(|place| self.entry(place)).collect()
    }

    fn entry(&mut self, place: u32) -> Result<Entry, W::Error> {
        let address = self.candidate(place)?;
        let (head, bond) = (self.head(address)?, self.bond(address)?);
        let weight = self.weight(address)?;
        let candidate = Candidate {
            address,
            public_key: self.key(address)?,
            stake: bond.stake,
            ejected: head.status == Status::Tombstoned,
            since: if head.since == 0 { u64::MAX } else { head.since },
        };
        Ok(Entry { address, head, bond, weight, candidate })
    }

    /// Brings one record in line with the computed set.
    fn settle(&mut self, entry: Entry, weight: u128, computed: Epoch) -> Result<(), W::Error> {
        let Entry { address, mut head, mut bond, weight: before, .. } = entry;
        // Removals move other records' places.
        head.place = self.head(address)?.place;
        let old_head = head;
        if before.weight != weight {
            self.set_weight(address, Weight { weight, ..before })?;
        }
        head.since = match (weight == bond.stake, head.since) {
            (true, _) => 0,
            (false, 0) => computed.get().saturating_add(1),
            (false, since) => since,
        };
        if bond.leaving > 0 && weight <= bond.stake {
            self.start_unbonding(address, &mut head, bond.leaving, computed)?;
            bond.leaving = 0;
            self.set_bond(address, bond)?;
        }
        if head.status != Status::Registered && weight == 0 {
            self.remove_candidate(&mut head)?;
            head.since = 0;
            if head.status == Status::Exiting {
                head.status = Status::Exited;
            }
        }
        if head != old_head {
            self.set_head(address, head)?;
        }
        Ok(())
    }

    /// Puts an amount on its way out. `free_from` is the first epoch in which it has no weight. The caller stores
    /// `head`.
    pub(crate) fn start_unbonding(
        &mut self,
        address: Address,
        head: &mut Head,
        amount: u128,
        free_from: Epoch,
    ) -> Result<(), W::Error> {
        let release = free_from.get().saturating_add(self.rules.params.unbonding_epochs);
        if let Some(last) = head.unbonding.checked_sub(1) {
            let entry = self.unbonding(address, last)?;
            if entry.release == release || head.unbonding >= UNBONDING_MAX {
                let amount = entry.amount.saturating_add(amount);
                return self.set_unbonding(address, last, Unbonding { amount, release });
            }
        }
        self.set_unbonding(address, head.unbonding, Unbonding { amount, release })?;
        head.unbonding += 1;
        Ok(())
    }

    /// Convicts a validator of a fault in `epoch`: burns part of the weight it had there, as far as it still has it,
    /// and puts it out for ever. `None` when nothing is to be done: it is convicted already, or was no member.
    pub fn slash(&mut self, epoch: Epoch, offender: Address) -> Result<Option<Slash>, W::Error> {
        let set = self.set_of(epoch)?.unwrap_or_default();
        let Some(member) = set.iter().find(|member| member.address == offender) else { return Ok(None) };
        let mut head = self.head(offender)?;
        if head.status == Status::Tombstoned {
            return Ok(None);
        }
        let share = U256::from(member.stake.get()) * U256::from(self.rules.params.slash_basis_points);
        let due: u128 = (share / U256::from(10_000)).saturating_to();
        let burned = self.burn(offender, &mut head, due)?;
        let mut weight = self.weight(offender)?;
        weight.slashed = weight.slashed.saturating_add(burned);
        self.set_weight(offender, weight)?;
        head.status = Status::Tombstoned;
        head.since = self.epoch.get().saturating_add(1);
        self.set_head(offender, head)?;
        Ok(Some(Slash { offender, burned }))
    }

    /// Takes up to `due` from stake, from what is leaving, and from what is unbonding; what is left of the stake
    /// leaves. Matured amounts that were not withdrawn are spent as well: they are there.
    fn burn(&mut self, offender: Address, head: &mut Head, due: u128) -> Result<u128, W::Error> {
        let mut left = due;
        let mut take = |amount: u128| {
            let taken = amount.min(left);
            left -= taken;
            amount - taken
        };
        let bond = self.bond(offender)?;
        let (stake, leaving) = (take(bond.stake), take(bond.leaving));
        for index in (0..head.unbonding).rev() {
            let entry = self.unbonding(offender, index)?;
            self.set_unbonding(offender, index, Unbonding { amount: take(entry.amount), ..entry })?;
        }
        let bond = Bond { stake: 0, leaving: stake.saturating_add(leaving) };
        self.set_bond(offender, bond)?;
        Ok(due - left)
    }
}
