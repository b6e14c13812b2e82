//! What a block does beside its transactions (specs/staking.md, ST-4 to ST-6): evidence is judged before the first,
//! convictions take effect and the next set is computed after the last.

use crate::{
    ExecuteError, InvalidPayload, InvalidPayloadCode, Rules, StateView, ViewError, registry::BlockWords,
    run::BlockState,
};
use alloy_primitives::{Address, U256};
use staking::{REGISTRY, Registry, StakingRules};
use std::collections::{BTreeMap, btree_map::Entry};
use std::sync::Arc;
use types::evidence::Evidence;
use types::limits::EVIDENCE_PER_BLOCK_MAX;
use types::{Epoch, Validator, ValidatorSet, ValidatorSetError};

/// What happened after the last transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemOutcome {
    /// Validators convicted by the block's evidence.
    pub convictions: Vec<Conviction>,
    /// After the last block of an epoch: the set of the epoch after the next one.
    pub next_validators: Option<Arc<Vec<Validator>>>,
}

/// A validator that was put out for a provable fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conviction {
    /// Its account.
    pub offender: Address,
    /// The epoch it broke the rules in.
    pub epoch: Epoch,
    /// Stake that was burned, in wei.
    pub burned: u128,
}

/// A block's part beside its transactions, with its evidence judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct SystemStep {
    rules: Option<StakingRules>,
    height: u64,
    /// Who is guilty, and of which epoch, in the order of the evidence.
    guilty: Vec<(Epoch, Address)>,
}

impl SystemStep {
    /// Judges `evidence` against the sets that the registry keeps.
    pub(crate) fn new(
        rules: &Rules,
        height: u64,
        evidence: &[Vec<u8>],
        state: &mut BlockState<'_>,
    ) -> Result<Self, ExecuteError> {
        let mut step = Self { rules: rules.staking().copied(), height, guilty: Vec::new() };
        if evidence.len() > EVIDENCE_PER_BLOCK_MAX {
            let count = evidence.len();
            return Err(invalid(format!(
                "{count} pieces of evidence, at most {EVIDENCE_PER_BLOCK_MAX} are allowed"
            )));
        }
        // A set's keys are points to be checked: once per epoch.
        let mut sets = BTreeMap::new();
        for (index, bytes) in evidence.iter().enumerate() {
            step.judge(rules, bytes, &mut sets, state).map_err(|error| match error {
                Judgement::Proves(nothing) => invalid(format!("evidence {index}: {nothing}")),
                Judgement::View(error) => error.into(),
            })?;
        }
        Ok(step)
    }

    fn judge(
        &mut self,
        rules: &Rules,
        bytes: &[u8],
        sets: &mut BTreeMap<Epoch, ValidatorSet>,
        state: &mut BlockState<'_>,
    ) -> Result<(), Judgement> {
        let evidence = Evidence::decode(bytes).map_err(|error| Judgement::Proves(error.to_string()))?;
        let Some(staking) = &self.rules else {
            return Err(Judgement::Proves("a chain without validators has nobody to judge".into()));
        };
        let epoch = evidence.epoch();
        let set = match sets.entry(epoch) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut words = BlockWords(state);
                let mut registry = Registry::at(staking, self.height, &mut words);
                let Some(members) = registry.validator_set(epoch)? else {
                    // A proposer cannot tell a set that is not kept any more from one it holds itself, so this is no
                    // fault. Of an epoch that is not there yet nobody can know the set.
                    return match epoch <= registry.epoch() {
                        true => Ok(()),
                        false => Err(Judgement::Proves(format!("epoch {epoch} has no validator set yet"))),
                    };
                };
                let set = ValidatorSet::new(epoch, members, rules.quorum());
                let corrupt = |error: ValidatorSetError| ViewError::Corrupt {
                    what: "validator set",
                    reason: error.to_string(),
                };
                entry.insert(set.map_err(corrupt)?)
            }
        };
        let offenders =
            evidence.verify(set, &rules.domain()).map_err(|error| Judgement::Proves(error.to_string()))?;
        let named = offenders.into_iter().filter_map(|index| set.get(index));
        self.guilty.extend(named.map(|validator| (epoch, validator.address)));
        Ok(())
    }

    /// Carries out the convictions and ends the epoch if the block does.
    pub(crate) fn run(self, state: &mut BlockState<'_>) -> Result<SystemOutcome, ViewError> {
        let Some(rules) = self.rules else { return Ok(SystemOutcome::default()) };
        let mut convictions = Vec::new();
        let mut words = BlockWords(state);
        let mut registry = Registry::at(&rules, self.height, &mut words);
        for (epoch, offender) in self.guilty {
            if let Some(slash) = registry.slash(epoch, offender)? {
                convictions.push(Conviction { offender, epoch, burned: slash.burned });
            }
        }
        let next_validators = match rules.computed_at(self.height) {
            Some(_) => Some(Arc::new(registry.close_epoch()?)),
            None => None,
        };
        let burned = convictions.iter().fold(U256::ZERO, |sum, c| sum.saturating_add(U256::from(c.burned)));
        if !burned.is_zero() {
            state.burn(REGISTRY, burned)?;
        }
        Ok(SystemOutcome { convictions, next_validators })
    }
}

/// Why a piece of evidence convicts nobody.
enum Judgement {
    Proves(String),
    View(ViewError),
}

impl From<ViewError> for Judgement {
    fn from(error: ViewError) -> Self {
        Self::View(error)
    }
}

fn invalid(reason: String) -> ExecuteError {
    InvalidPayload { code: InvalidPayloadCode::Evidence, index: None, reason }.into()
}

/// The set of an epoch as a state's registry keeps it.
pub fn registry_set(
    view: &dyn StateView,
    rules: &StakingRules,
    epoch: Epoch,
) -> Result<Option<Vec<Validator>>, ViewError> {
    let mut words = crate::registry::ViewWords(view);
    Registry::at(rules, 0, &mut words).validator_set(epoch)
}
