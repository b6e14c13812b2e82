//! The light client against chains whose validator sets change, and against everything a server may do about them.
#![allow(clippy::unwrap_used)]

mod chain;

use chain::{Chain, EPOCH_LENGTH, GENESIS, Keys, members, schedule};
use light_client::{Checkpoint, CheckpointError, Fork, LightClient, Refusal, Update};
use proptest::prelude::*;
use types::{B256, CertificateError, CommitQc, Epoch, Header, Height, Offence, Signature, Stake, View};

/// Refuses, and leaves the client as it was.
fn refused(client: &LightClient, update: &Update) -> Refusal {
    let mut tried = client.clone();
    let refusal = tried.apply(update).unwrap_err();
    assert_eq!(tried, *client, "a refused update changes nothing");
    refusal
}

#[test]
fn one_header_of_each_epoch_leads_from_genesis_to_the_head_with_real_signatures() {
    let chain = Chain::new(Keys::Real, 6);
    let mut client = LightClient::new(chain.genesis()).unwrap().trusting_for(u64::MAX);
    for height in [3, 8, 9, 14, 20, 23] {
        let proven = client.apply(&chain.update(height)).unwrap();
        let (header, _) = &chain.blocks[height as usize - 1];
        assert_eq!((proven.height, proven.block_hash), (header.height, header.hash()));
        assert_eq!((proven.state_hash, proven.epoch), (Some(header.state_hash), header.epoch));
    }
    assert_eq!(client.set().id(), chain.sets[5].id());
}

#[test]
fn every_height_in_turn_and_any_one_per_epoch_end_at_the_same_head() {
    let chain = Chain::new(Keys::Simulated, 5);
    let mut every = chain.client();
    for height in 1..=20 {
        every.apply(&chain.update(height)).unwrap();
    }
    assert_eq!(every.head(), chain.client_at(20).head());
    assert_eq!(every.checkpoint(), chain.client_at(20).checkpoint());
}

#[test]
fn a_client_goes_on_from_the_checkpoint_it_wrote() {
    let chain = Chain::new(Keys::Real, 4);
    let mut before = LightClient::new(chain.genesis()).unwrap();
    before.apply(&chain.update(2)).unwrap();
    before.apply(&chain.update(8)).unwrap();
    let text = serde_json::to_string_pretty(&before.checkpoint()).unwrap();
    let mut after = LightClient::new(Checkpoint::parse(&text).unwrap()).unwrap();
    assert_eq!(after.head().block_hash, before.head().block_hash);
    assert_eq!(after.apply(&chain.update(11)), before.apply(&chain.update(11)));
    assert_eq!(after.checkpoint(), before.checkpoint());
}

#[test]
fn a_checkpoint_that_contradicts_itself_is_refused_by_name() {
    let chain = Chain::new(Keys::Real, 2);
    let good = chain.genesis();
    let broken = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = good.clone();
        change(&mut checkpoint);
        Checkpoint::parse(&serde_json::to_string(&checkpoint).unwrap()).unwrap_err()
    };
    assert!(matches!(broken(&|c| c.epoch_length = 0), CheckpointError::NoEpochs));
    assert!(matches!(broken(&|c| c.epoch = Epoch::new(1)), CheckpointError::WrongEpoch { .. }));
    assert!(matches!(broken(&|c| c.height = Height::new(9)), CheckpointError::WrongEpoch { .. }));
    assert!(matches!(broken(&|c| c.block_hash = B256::ZERO), CheckpointError::NotGenesis { .. }));
    assert!(matches!(broken(&|c| c.validators.swap(0, 1)), CheckpointError::WrongSet { .. }));
    assert!(matches!(broken(&|c| c.validators[0].stake = Stake::new(41)), CheckpointError::WrongSet { .. }));
    assert!(matches!(broken(&|c| c.quorum.denominator = 1), CheckpointError::BadSet(_)));
    assert!(matches!(broken(&|c| c.validators.clear()), CheckpointError::BadSet(_)));
    let long = " ".repeat(light_client::CHECKPOINT_BYTES_MAX + 1);
    assert!(matches!(Checkpoint::parse(&long), Err(CheckpointError::TooLong { .. })));
    assert!(matches!(Checkpoint::parse("{}"), Err(CheckpointError::Json(_))));
}

// Forged.

/// Every field of a header, changed.
type Change = (&'static str, fn(&mut Header));

fn changes() -> Vec<Change> {
    vec![
        ("chain_id", |h| h.chain_id += 1),
        ("epoch", |h| h.epoch = h.epoch.next()),
        ("epoch_start_height", |h| h.epoch_start_height = h.epoch_start_height.next()),
        ("height", |h| h.height = h.height.next()),
        ("view", |h| h.view = h.view.next()),
        ("parent_hash", |h| h.parent_hash.0[0] ^= 1),
        ("timestamp_ms", |h| h.timestamp_ms += 1),
        ("proposer", |h| h.proposer = h.proposer.next()),
        ("fee_recipient", |h| h.fee_recipient.0[0] ^= 1),
        ("validator_set_id", |h| h.validator_set_id.0[0] ^= 1),
        ("next_validator_set_id", |h| h.next_validator_set_id.0[0] ^= 1),
        ("payload_commitment", |h| h.payload_commitment.0[0] ^= 1),
        ("state_hash", |h| h.state_hash.0[0] ^= 1),
        ("receipts_hash", |h| h.receipts_hash.0[0] ^= 1),
        ("checkpoint", |h| h.checkpoint.root.0[0] ^= 1),
        ("randao_reveal", |h| h.randao_reveal.0[0] ^= 1),
        ("justify", |h| {
            h.justify = match &h.justify {
                types::Justify::Genesis => types::Justify::EpochBoundary(certificate()),
                _ => types::Justify::Genesis,
            }
        }),
        ("timeout", |h| h.timeout = Some(empty_tc())),
        ("last_commit", |h| h.last_commit = Some(certificate())),
        ("system_inputs_hash", |h| h.system_inputs_hash.0[0] ^= 1),
    ]
}

fn certificate() -> CommitQc {
    Chain::new(Keys::Simulated, 1).blocks[0].1.clone()
}

fn empty_tc() -> types::Tc {
    types::Tc {
        epoch: Epoch::ZERO,
        view: View::new(1),
        groups: Vec::new(),
        signature: Signature::ZERO,
        high_qc: None,
    }
}

#[test]
fn no_field_of_a_header_can_be_changed() {
    let chain = Chain::new(Keys::Simulated, 3);
    let client = chain.client_at(4);
    for height in [5, 7, 8] {
        for (field, change) in changes() {
            let mut update = chain.update(height);
            change(&mut update.header);
            assert_ne!(update, chain.update(height), "{field}");
            refused(&client, &update);
            // The same with a certificate that names the changed header, under the old signatures.
            update.commit.vote.block_hash = update.header.hash();
            update.commit.vote.height = update.header.height;
            refused(&client, &update);
        }
    }
}

#[test]
fn no_byte_of_an_update_can_be_changed() {
    let chain = Chain::new(Keys::Simulated, 2);
    let client = chain.client_at(4);
    let good = chain.update(6);
    let bytes = types::encode(&good);
    for at in 0..bytes.len() {
        for flip in [1, 0x80] {
            let mut bent = bytes.clone();
            bent[at] ^= flip;
            if let Ok(update) = types::decode::<Update>(&bent) {
                refused(&client, &update);
            }
        }
    }
    assert!(client.clone().apply(&good).is_ok());
}

#[test]
fn too_little_stake_is_named_with_both_numbers() {
    let chain = Chain::new(Keys::Real, 2);
    let client = LightClient::new(chain.genesis()).unwrap();
    // 66 of 100 do not exist here; 60 are the most below the quorum of 67.
    for (signers, stake) in [(&[0, 2][..], 60), (&[1, 2, 3], 60), (&[0], 40)] {
        let mut update = chain.update(2);
        update.commit = chain.commit(&update.header, signers);
        let (height, quorum) = (Height::new(2), Stake::new(67));
        assert_eq!(refused(&client, &update), Refusal::NoQuorum { height, stake: Stake::new(stake), quorum });
        // Claimed signers that did not sign.
        update.commit.signers = chain.update(2).commit.signers;
        let source = CertificateError::BadSignature;
        assert_eq!(refused(&client, &update), Refusal::Certificate { height, source });
    }
}

#[test]
fn a_certificate_of_another_epoch_or_chain_does_not_hold() {
    let chain = Chain::new(Keys::Simulated, 4);
    let client = chain.client_at(6);
    let mut update = chain.update(7);
    update.commit = chain.commit_as(&update.header, Epoch::new(2), &[0, 1, 2, 3]);
    assert!(matches!(
        refused(&client, &update),
        Refusal::Certificate { source: CertificateError::WrongEpoch { .. }, .. }
    ));
    let foreign = Checkpoint {
        genesis_hash: B256::repeat_byte(9),
        block_hash: B256::repeat_byte(9),
        ..chain.genesis()
    };
    let foreign = LightClient::with_set(foreign, (*chain.sets[0]).clone()).unwrap();
    let height = Height::new(1);
    let source = CertificateError::BadSignature;
    assert_eq!(refused(&foreign, &chain.update(1)), Refusal::Certificate { height, source });
    let foreign = Checkpoint { chain_id: 1, ..chain.genesis() };
    let foreign = LightClient::with_set(foreign, (*chain.sets[0]).clone()).unwrap();
    assert_eq!(refused(&foreign, &chain.update(1)), Refusal::WrongChain { found: 31337, expected: 1 });
}

#[test]
fn the_old_set_cannot_speak_for_the_next_epoch() {
    let chain = Chain::new(Keys::Simulated, 3);
    let client = chain.client_at(4);
    // Every member of epoch 0 signs a header of epoch 1 that names its own set, and calls itself that set.
    let mut update = chain.update(5);
    update.header.validator_set_id = chain.sets[0].id();
    update.commit = chain.commit_as(&update.header, Epoch::ZERO, &[0, 1, 2, 3]);
    update.validators = Some(members(Keys::Simulated, 0));
    let epoch = Epoch::new(1);
    let old = chain.sets[0].successor(epoch, members(Keys::Simulated, 0)).unwrap().id();
    assert_eq!(
        refused(&client, &update),
        Refusal::WrongSet { epoch, found: old, expected: chain.sets[1].id() }
    );
    update.validators = Some(members(Keys::Simulated, 1));
    assert!(matches!(refused(&client, &update), Refusal::WrongSetInHeader { .. }));
    update.header = chain.update(5).header;
    update.commit = chain.commit_as(&update.header, Epoch::ZERO, &[0, 1, 2, 3]);
    assert!(matches!(
        refused(&client, &update),
        Refusal::Certificate { source: CertificateError::WrongEpoch { .. }, .. }
    ));
}

#[test]
fn swapped_missing_reordered_and_impossible_sets_are_refused() {
    let chain = Chain::new(Keys::Simulated, 3);
    let client = chain.client_at(4);
    let with = |validators| Update { validators, ..chain.update(5) };
    let epoch = Epoch::new(1);
    assert_eq!(refused(&client, &with(None)), Refusal::SetMissing { epoch });
    let wrong = |members: Vec<types::Validator>| {
        matches!(refused(&client, &with(Some(members))), Refusal::WrongSet { .. })
    };
    assert!(wrong(members(Keys::Simulated, 2)), "the set of another epoch");
    let good = members(Keys::Simulated, 1);
    let mut reordered = good.clone();
    reordered.swap(1, 2);
    assert!(wrong(reordered));
    let mut heavier = good.clone();
    heavier[3].stake = Stake::new(1_000);
    assert!(wrong(heavier));
    assert!(wrong(good[..3].to_vec()));
    assert!(matches!(refused(&client, &with(Some(Vec::new()))), Refusal::BadSet { .. }));
    let too_many = vec![good[0].clone(); 1025];
    assert!(matches!(refused(&client, &with(Some(too_many))), Refusal::BadSet { .. }));
}

#[test]
fn no_epoch_can_be_skipped() {
    let chain = Chain::new(Keys::Simulated, 4);
    let at_genesis = chain.client();
    let known = |known| Refusal::SkippedEpoch { found: Epoch::new(known + 1), known: Epoch::new(known) };
    // Nothing of epoch 0 is proven yet: not even the set of epoch 1 is.
    assert_eq!(refused(&at_genesis, &chain.update(5)), known(0));
    assert_eq!(refused(&chain.client_at(3), &chain.update(9)), known(1));
}

#[test]
fn what_is_proven_already_or_of_a_past_epoch_is_stale() {
    let chain = Chain::new(Keys::Simulated, 3);
    let client = chain.client_at(7);
    for found in [1, 4, 6, 7] {
        let (found, proven) = (Height::new(found), Height::new(7));
        assert_eq!(refused(&client, &chain.update(found.get())), Refusal::Stale { found, proven });
    }
}

#[test]
fn a_boundary_proposed_again_is_final_in_a_later_view() {
    let chain = Chain::new(Keys::Simulated, 2);
    let mut update = chain.update(4);
    let vote = types::CommitVote { view: View::new(9), ..update.commit.vote };
    update.commit = chain.commit_vote(Epoch::ZERO, vote, &[0, 1]);
    assert!(chain.client().apply(&update).is_ok());
    let vote = types::CommitVote { view: View::ZERO, ..update.commit.vote };
    update.commit = chain.commit_vote(Epoch::ZERO, vote, &[0, 1]);
    assert!(matches!(refused(&chain.client(), &update), Refusal::ViewBeforeProposal { .. }));
}

// Faulty quorums.

/// A final sibling of the block at `height`.
fn sibling(chain: &Chain, height: u64, signers: &[u64]) -> Update {
    let shorter = Chain {
        keys: chain.keys,
        blocks: chain.blocks[..height as usize - 1].to_vec(),
        sets: chain.sets.clone(),
    };
    let header = shorter.next_header(Height::new(height), 99);
    let commit = chain.commit(&header, signers);
    Update { validators: chain.update(height).validators, header, commit }
}

#[test]
fn two_final_blocks_of_one_height_come_back_as_a_proof_that_accuses_whoever_signed_both() {
    let chain = Chain::new(Keys::Real, 2);
    let mut client = LightClient::new(chain.genesis()).unwrap();
    client.apply(&chain.update(2)).unwrap();
    let other = sibling(&chain, 2, &[0, 2, 3]);
    let Refusal::Forked(fork) = refused(&client, &other) else { panic!("not seen as a fork") };
    assert_eq!(*fork, Fork { first: chain.update(2).commit, header: other.header, second: other.commit });
    let sets = |epoch: Epoch| chain.sets.get(epoch.get() as usize).map(|set| &**set);
    assert_eq!(fork.verify(sets, &chain::domain(Epoch::ZERO)), Ok(true));
    let evidence = fork.evidence().unwrap();
    assert_eq!(evidence.accusation().unwrap().offence, Offence::DoubleCommit);
    let guilty = evidence.verify(&chain.sets[0], &chain::domain(Epoch::ZERO)).unwrap();
    assert_eq!(guilty.iter().map(|index| index.get()).collect::<Vec<_>>(), [0]);
    // A proof with one word changed proves nothing.
    let mut forged = (*fork).clone();
    forged.second.signature = forged.first.signature;
    assert!(forged.verify(sets, &chain::domain(Epoch::ZERO)).is_err());
    let mut no_fork = (*fork).clone();
    (no_fork.header, no_fork.second) = (chain.update(2).header, chain.update(2).commit);
    assert_eq!(no_fork.verify(sets, &chain::domain(Epoch::ZERO)), Ok(false));
    assert_eq!(fork.verify(|_| None, &chain::domain(Epoch::ZERO)), Ok(false));
}

#[test]
fn a_final_child_of_another_parent_is_a_fork_also_where_an_epoch_begins() {
    let chain = Chain::new(Keys::Simulated, 3);
    for height in [2, 4] {
        let client = chain.client_at(height);
        let mut header = chain.update(height + 1).header;
        header.parent_hash = B256::repeat_byte(0xee);
        let commit = chain.commit(&header, &[0, 1]);
        let update = Update { header, commit, ..chain.update(height + 1) };
        let Refusal::Forked(fork) = refused(&client, &update) else { panic!("not seen as a fork") };
        assert!(fork.contradicts());
        assert_eq!(fork.evidence(), None, "of two views");
    }
}

#[test]
fn a_final_block_beside_the_checkpoint_says_that_the_checkpoint_is_of_another_history() {
    let chain = Chain::new(Keys::Simulated, 2);
    let checkpoint = Checkpoint { block_hash: B256::repeat_byte(5), ..chain.client_at(2).checkpoint() };
    let client = LightClient::with_set(checkpoint, (*chain.sets[0]).clone()).unwrap();
    for height in [2, 3] {
        let refusal = refused(&client, &chain.update(height));
        assert!(
            matches!(refusal, Refusal::AgainstCheckpoint { trusted_height, .. } if trusted_height == Height::new(2))
        );
    }
}

#[test]
fn two_next_sets_in_one_epoch_are_refused() {
    let chain = Chain::new(Keys::Simulated, 2);
    let client = chain.client_at(2);
    let mut header = chain.update(4).header;
    header.next_validator_set_id = B256::repeat_byte(3);
    let commit = chain.commit(&header, &[0, 1]);
    let update = Update { header, commit, validators: None };
    assert!(matches!(refused(&client, &update), Refusal::NextSetChanged { .. }));
}

// Withheld.

#[test]
fn a_server_that_withholds_is_noticed_by_a_known_height_or_by_the_clock() {
    let chain = Chain::new(Keys::Simulated, 2);
    let client = chain.client_at(6);
    assert_eq!(client.check_recent(Height::new(6), 7_000, 1_000), Ok(()));
    let (proven, expected) = (Height::new(6), Height::new(7));
    assert_eq!(client.check_recent(expected, 7_000, 1_000), Err(Refusal::Withheld { proven, expected }));
    let too_old = Refusal::TooOld { height: proven, age_ms: 1_001, age_ms_max: 1_000 };
    assert_eq!(client.check_recent(proven, 7_001, 1_000), Err(too_old));
    assert_eq!(client.check_recent(proven, 0, 0), Ok(()), "a block of the future is not old");
}

#[test]
fn trust_ends_after_its_period_unless_it_is_renewed() {
    let chain = Chain::new(Keys::Simulated, 9);
    let mut client = chain.client().trusting_for(2);
    for epoch in 1..=3 {
        client.apply(&chain.update(epoch * EPOCH_LENGTH)).unwrap();
    }
    let expired = |found| Refusal::TrustExpired {
        trusted: Epoch::ZERO,
        period: 2,
        last: Epoch::new(2),
        found: Epoch::new(found),
    };
    assert_eq!(refused(&client, &chain.update(13)), expired(3));
    assert_eq!(client.check_trust(Epoch::new(2)), Ok(()));
    assert_eq!(client.check_trust(Epoch::new(8)), Err(expired(8)));
    client.renew_trust();
    assert!(client.apply(&chain.update(13)).is_ok());
    assert_eq!(client.check_trust(Epoch::new(4)), Ok(()));
}

#[test]
fn trust_lasts_as_long_as_the_chain_binds_stake_also_from_later_checkpoints() {
    let chain = Chain::new(Keys::Simulated, 9);
    let start = |checkpoint| LightClient::with_set(checkpoint, (*chain.sets[0]).clone());
    for unbonding_epochs in [4, 5, 16, 1024] {
        let client = start(Checkpoint { unbonding_epochs, ..chain.genesis() }).unwrap();
        assert_eq!(client.check_trust(Epoch::new(unbonding_epochs)), Ok(()));
        let refusal = client.check_trust(Epoch::new(unbonding_epochs + 1)).unwrap_err().to_string();
        let says =
            format!("ends with epoch {unbonding_epochs}, after {unbonding_epochs} epochs, and this is epoch");
        assert!(refusal.contains(&says), "{refusal}");
        assert_eq!(client.checkpoint().unbonding_epochs, unbonding_epochs);
    }
    for found in [0, 3, 1025, u64::MAX] {
        let refused = start(Checkpoint { unbonding_epochs: found, ..chain.genesis() }).unwrap_err();
        assert_eq!(refused, CheckpointError::UnbondingEpochs { found });
    }
    // Followed over more epochs than the period, the trust is that in the start; a new start begins it anew.
    let mut client = start(Checkpoint { unbonding_epochs: 4, ..chain.genesis() }).unwrap();
    for epoch in 1..=5 {
        client.apply(&chain.update(epoch * EPOCH_LENGTH)).unwrap();
    }
    assert!(matches!(refused(&client, &chain.update(21)), Refusal::TrustExpired { period: 4, .. }));
    let mut later = LightClient::with_set(client.checkpoint(), (*chain.sets[4]).clone()).unwrap();
    assert!(later.apply(&chain.update(21)).is_ok());
}

#[test]
fn a_checkpoint_takes_the_period_from_its_genesis_and_an_old_file_means_the_least() {
    let chain = Chain::new(Keys::Real, 1);
    let text = serde_json::to_string(&chain.genesis()).unwrap();
    assert_eq!(Checkpoint::parse(&text).unwrap().unbonding_epochs, chain.genesis().unbonding_epochs);
    let field = format!(r#""unbonding_epochs":{},"#, chain.genesis().unbonding_epochs);
    assert!(text.contains(&field), "{text}");
    let old = Checkpoint::parse(&text.replace(&field, "")).unwrap();
    assert_eq!(old.unbonding_epochs, light_client::TRUST_EPOCHS_MIN);
}

// Ancestors.

#[test]
fn ancestors_are_proven_by_their_hashes_down_to_the_genesis() {
    let chain = Chain::new(Keys::Simulated, 2);
    let client = chain.client_at(7);
    let mut down = client.ancestors().unwrap();
    for height in (1..7).rev() {
        let header = &chain.blocks[height as usize - 1].0;
        assert_eq!(down.wanted(), (Height::new(height), header.hash()));
        for (field, change) in changes() {
            let mut forged = header.clone();
            change(&mut forged);
            assert!(matches!(down.step(&forged), Err(Refusal::NotTheParent { .. })), "{field}");
        }
        assert_eq!(down.step(header).unwrap().state_hash, Some(header.state_hash));
    }
    assert_eq!(down.wanted(), (Height::ZERO, GENESIS));
    assert_eq!(down.step(&chain.blocks[0].0), Err(Refusal::AtGenesis { hash: GENESIS }));
    assert!(chain.client().ancestors().is_none());
}

proptest! {
    /// Whatever is handed in, in whatever order: the head only rises, is a block of the chain, and has the chain's set.
    #[test]
    fn any_order_of_true_updates_ends_at_a_block_of_the_chain(
        heights in prop::collection::vec(1u64..=20, 1..40),
        wrong_set in prop::collection::vec(0u64..12, 40),
    ) {
        let chain = Chain::new(Keys::Simulated, 5);
        let mut client = chain.client();
        for (height, wrong) in heights.into_iter().zip(wrong_set) {
            let mut update = chain.update(height);
            let epoch = update.header.epoch.get();
            if wrong < 6 && wrong != epoch {
                update.validators = Some(members(Keys::Simulated, wrong));
            }
            let before = client.clone();
            match client.apply(&update) {
                Ok(proven) => {
                    let (next, known) = (before.head().epoch.next(), before.head().epoch);
                    prop_assert!(proven.height > before.head().height);
                    prop_assert!(proven.epoch == known || proven.epoch == next);
                    prop_assert_eq!(proven.block_hash, chain.blocks[height as usize - 1].0.hash());
                    prop_assert_eq!(client.set().id(), chain.sets[epoch as usize].id());
                    prop_assert_eq!(schedule().epoch_of(proven.height), proven.epoch);
                }
                Err(_) => prop_assert_eq!(&client, &before),
            }
        }
    }
}
