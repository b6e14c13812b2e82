//! Who votes in which epoch of a run: members that join, leave, weigh more or less, change keys and change places, all
//! drawn from the seed. Faulty validators keep key and stake, and hold less than a third of stake in every epoch; only
//! those leave that have something to say afterwards.

use crate::byzantine::Behaviour;
use crate::plan::Plan;
use crypto::SecretKey;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use types::{Address, Epoch, EpochSchedule, PublicKey, Stake, Validator, ValidatorIndex};

/// Epochs drawn; later ones repeat them.
const DRAWN: u64 = 64;
/// Keys a validator changes between.
const KEYS: u64 = 3;
/// Distance between the key numbers of one validator.
const KEY_STRIDE: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
struct Member {
    who: usize,
    stake: u128,
    key: u64,
}

/// The sets of a run.
#[derive(Clone, Debug)]
pub struct Sets {
    schedule: EpochSchedule,
    epochs: Vec<Vec<Member>>,
}

impl Sets {
    /// The sets of a plan: the first two epochs have its stakes.
    pub fn new(plan: &Plan) -> Self {
        let first: Vec<_> = plan
            .stakes
            .iter()
            .enumerate()
            .map(|(who, stake)| Member { who, stake: *stake, key: 0 })
            .collect();
        let drawn = |epoch| if plan.churn { draw(plan, &first, epoch) } else { first.clone() };
        let epochs = (0..DRAWN).map(|epoch| if epoch < 2 { first.clone() } else { drawn(epoch) });
        Self { schedule: EpochSchedule::new(plan.epoch_length), epochs: epochs.collect() }
    }

    /// How heights fall into epochs.
    pub fn schedule(&self) -> EpochSchedule {
        self.schedule
    }

    /// All keys a validator ever signs with.
    pub fn keys(who: usize) -> Vec<SecretKey> {
        (0..KEYS).map(|key| secret(who, key)).collect()
    }

    /// The members of an epoch, in order.
    pub fn members(&self, epoch: Epoch) -> Vec<Validator> {
        let member = |m: &Member| Validator {
            address: Address::left_padding_from(&(m.who as u64 + 1).to_be_bytes()),
            public_key: secret(m.who, m.key).public_key(),
            stake: Stake::new(m.stake),
        };
        self.of(epoch).iter().map(member).collect()
    }

    /// A validator's place in an epoch.
    pub fn index(&self, who: usize, epoch: Epoch) -> Option<ValidatorIndex> {
        let place = self.of(epoch).iter().position(|member| member.who == who)?;
        Some(ValidatorIndex::new(place as u32))
    }

    /// The key a validator has in an epoch.
    pub fn key(&self, who: usize, epoch: Epoch) -> Option<PublicKey> {
        let member = self.of(epoch).iter().find(|member| member.who == who)?;
        Some(secret(who, member.key).public_key())
    }

    /// Who has a place in an epoch.
    pub fn who(&self, index: ValidatorIndex, epoch: Epoch) -> Option<usize> {
        self.of(epoch).get(index.get() as usize).map(|member| member.who)
    }

    /// Whether links to a validator count for a node of an epoch: it votes in that one or the next, or did in the one
    /// before.
    pub fn speaks(&self, who: usize, epoch: Epoch) -> bool {
        let votes_in = |epoch| self.index(who, epoch).is_some();
        votes_in(epoch) || votes_in(epoch.next()) || epoch.previous().is_some_and(votes_in)
    }

    fn of(&self, epoch: Epoch) -> &[Member] {
        let (epoch, drawn) = (epoch.get(), DRAWN - 2);
        let at = if epoch < 2 { epoch } else { 2 + (epoch - 2) % drawn };
        &self.epochs[at as usize]
    }
}

fn secret(who: usize, key: u64) -> SecretKey {
    SecretKey::simulated(who as u64 + key * KEY_STRIDE)
}

fn draw(plan: &Plan, first: &[Member], epoch: u64) -> Vec<Member> {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed.rotate_left(17) ^ (epoch << 32));
    let faulty = |who: usize| {
        plan.byzantine.iter().any(|(liar, _)| *liar == who)
            || plan.frail.iter().any(|(frail, _)| *frail == who)
    };
    // Whoever shows its second votes when an epoch is over may have left by then.
    let may_leave = |who: usize| plan.byzantine.contains(&(who, Behaviour::LateDoubler));
    let newcomers = (first.len()..first.len() + plan.followers).map(|who| Member { who, stake: 1, key: 0 });
    let mut members = Vec::new();
    for member in first.iter().copied().chain(newcomers) {
        let stays = rng.random_bool(if member.who < first.len() { 0.8 } else { 0.6 });
        let key = if rng.random_bool(0.3) { rng.random_range(0..KEYS) } else { 0 };
        let stake = match rng.random_range(0..4) {
            0 => member.stake * 2,
            1 => (member.stake / 2).max(1),
            _ => member.stake,
        };
        if faulty(member.who) && (stays || !may_leave(member.who)) {
            members.push(member);
        } else if stays && !faulty(member.who) {
            members.push(Member { stake, key, ..member });
        }
    }
    let total: u128 = members.iter().map(|member| member.stake).sum();
    let held: u128 = members.iter().filter(|member| faulty(member.who)).map(|member| member.stake).sum();
    if held * 3 >= total {
        members = first.to_vec();
    }
    if rng.random() {
        members.shuffle(&mut rng);
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_change_in_every_way_and_faulty_stake_stays_below_a_third() {
        let (mut joins, mut leaves, mut rotations, mut moves) = (0, 0, 0, 0);
        for seed in 0..200 {
            let mut plan = Plan::from_seed(seed);
            plan.churn = true;
            let sets = Sets::new(&plan);
            for epoch in (0..20).map(Epoch::new) {
                let (now, next) = (sets.of(epoch), sets.of(epoch.next()));
                let total: u128 = now.iter().map(|member| member.stake).sum();
                let liars = plan.byzantine.iter().map(|(who, _)| *who);
                let faulty: Vec<usize> = liars.chain(plan.frail.iter().map(|(who, _)| *who)).collect();
                let held: u128 = now.iter().filter(|m| faulty.contains(&m.who)).map(|m| m.stake).sum();
                assert!(held * 3 < total, "seed {seed}, epoch {epoch}");
                let find = |set: &[Member], who| set.iter().position(|m: &Member| m.who == who);
                for (place, member) in next.iter().enumerate() {
                    match find(now, member.who) {
                        None => joins += 1,
                        Some(before) => {
                            rotations += usize::from(now[before].key != member.key);
                            moves += usize::from(before != place);
                        }
                    }
                }
                leaves += now.iter().filter(|member| find(next, member.who).is_none()).count();
            }
        }
        for (what, count) in
            [("joins", joins), ("leaves", leaves), ("rotations", rotations), ("moves", moves)]
        {
            assert!(count > 100, "{count} {what}");
        }
    }
}
