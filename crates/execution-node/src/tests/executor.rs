//! Build, validate, finalize, with restarts in between.

use super::harness::{Harness, Proposed, proposed, request, transfer, valid};
use crate::fault::Fault;
use crate::tree::UNFINALIZED_BLOCKS_MAX;
use alloy_consensus::TxEip1559;
use alloy_primitives::{B256, Bytes, TxKind, U256};
use alloy_sol_types::SolCall;
use execution::StateView;
use execution::testing::TestKey;
use staking::{REGISTRY, abi::IValidatorRegistry as abi};
use std::time::Instant;
use types::engine::{EngineError, Forkchoice, PayloadStatus};
use types::evidence::{Evidence, Witness};
use types::vote::Signed;
use types::{CommitVote, Epoch, Height, RejectionCode, Validator, ValidatorIndex, View};

fn nonce(harness: &Harness, key: u64) -> u64 {
    let (_, state) = harness.chain.head_state().unwrap();
    let address = execution::testing::TestKey::new(key).address();
    state.account(address).unwrap().map_or(0, |account| account.nonce)
}

fn forkchoice(head: B256, safe: B256, finalized: B256) -> Forkchoice {
    Forkchoice { head, safe, finalized }
}

#[test]
fn every_executor_computes_what_the_proposer_computed() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut proposer, mut validator) = (Harness::open(here.path()), Harness::open(there.path()));
    proposer.pool([transfer(0, 0), transfer(0, 1), transfer(1, 0)]);
    let genesis = proposer.genesis_hash();
    let first = proposer.extend(genesis, 1, 1);
    proposer.pool([transfer(2, 0)]);
    // On top of the un-finalized first block: its transactions are not taken again.
    let second = proposer.extend(first.hash(), 2, 2);
    for block in [&first, &second] {
        assert_eq!(validator.validate(block), valid(block));
    }
    for harness in [&mut proposer, &mut validator] {
        harness.finalize(second.hash());
        let head = harness.chain.head();
        assert_eq!((head.record.hash, head.transactions.len()), (second.hash(), 1));
        let first_block = harness.chain.block_by_number(Height::new(1)).unwrap().unwrap();
        assert_eq!(first_block.transactions.len(), 3);
        assert_eq!(first_block.receipts.len(), 3);
        assert_eq!((nonce(harness, 0), nonce(harness, 1), nonce(harness, 2)), (2, 1, 1));
        assert_eq!(harness.chain.pool().status().pending, 0, "mined transactions leave the pool");
    }
}

#[test]
fn an_own_payload_is_not_executed_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.pool([transfer(0, 0)]);
    let block = harness.propose(harness.genesis_hash(), 1, 1);
    assert_eq!(harness.executor.built_waiting(), 1);
    assert_eq!(harness.validate(&block), valid(&block));
    assert_eq!(harness.executor.built_waiting(), 0, "the kept execution was used");
    // The same payload in another environment is another block, executed for itself.
    let other_request = request(harness.genesis_hash(), 1, 2);
    let other = harness.executor.build(&other_request).unwrap();
    let mut other = proposed(&other_request, other);
    other.header.fee_recipient =
        B256::repeat_byte(9).0[..20].try_into().map(alloy_primitives::Address::new).unwrap();
    let PayloadStatus::Valid { state_hash, .. } = harness.validate(&other) else { panic!("it is valid") };
    assert_ne!(state_hash, other.header.state_hash, "another account earned the fees");
    assert_eq!(harness.executor.built_waiting(), 1);
}

#[test]
fn of_two_siblings_one_becomes_final_and_the_others_transactions_return() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut ours, mut theirs) = (Harness::open(here.path()), Harness::open(there.path()));
    let genesis = ours.genesis_hash();
    ours.pool([transfer(0, 0)]);
    theirs.pool([transfer(1, 0)]);
    let winner = ours.extend(genesis, 1, 1);
    let loser = theirs.extend(genesis, 1, 2);
    let nephew = theirs.extend(loser.hash(), 2, 3);
    for block in [&loser, &nephew] {
        assert_eq!(ours.validate(block), valid(block));
    }
    ours.finalize(winner.hash());
    assert!(ours.chain.pool().contains(&transfer(1, 0).hash()), "the losing block's transaction is pooled");
    assert_eq!(ours.chain.block_by_hash(loser.hash()).unwrap(), None);
    assert_eq!(ours.shared.tree.lock().len(), 0, "nothing above the losing block is kept either");
    // A contradiction to what is final is no verdict at all.
    let verdict = ours.executor.new_payload(&loser.header, &loser.payload, &loser.inputs);
    assert!(matches!(verdict, Err(EngineError::Illegal(_))), "{verdict:?}");
    assert_eq!(ours.validate(&nephew), PayloadStatus::Syncing);
    let next = ours.extend(winner.hash(), 2, 4);
    ours.finalize(next.hash());
    assert_eq!(nonce(&ours, 1), 1);
}

#[test]
fn an_unknown_parent_is_no_fault() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut proposer, mut validator) = (Harness::open(here.path()), Harness::open(there.path()));
    let first = proposer.extend(proposer.genesis_hash(), 1, 1);
    let second = proposer.extend(first.hash(), 2, 2);
    assert_eq!(validator.validate(&second), PayloadStatus::Syncing);
    let unknown = validator.executor.build(&request(first.hash(), 2, 3));
    assert_eq!(unknown, Err(EngineError::UnknownBlock(first.hash())));
    let head = forkchoice(second.hash(), second.hash(), second.hash());
    assert_eq!(validator.finalizer.forkchoice(&head).err(), Some(EngineError::UnknownBlock(second.hash())));
    assert_eq!(validator.validate(&first), valid(&first));
    assert_eq!(validator.validate(&second), valid(&second));
    validator.finalize(second.hash());
}

#[test]
fn a_refusal_is_final_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.pool([transfer(0, 0)]);
    let genesis = harness.genesis_hash();
    let good = harness.propose(genesis, 1, 1);
    let mut late = good.clone();
    late.header.height = Height::new(2);
    let mut early = good.clone();
    early.header.timestamp_ms = 1;
    let mut foreign = good.clone();
    foreign.header.chain_id = 1;
    // A transaction with a nonce that is not its sender's next.
    let gapped = execution::testing::payload_of(&[&[transfer(1, 5)]]).unwrap().encode();
    let mut wrong = good.clone();
    wrong.header.payload_commitment = execution::Payload::commitment(&gapped);
    wrong.payload = gapped;
    let mut garbage = good.clone();
    garbage.payload = vec![0xff; 100];
    garbage.header.payload_commitment = execution::Payload::commitment(&garbage.payload);
    for (block, expected, words) in [
        (late, RejectionCode::BadHeader, "height is 2, the parent's is 0"),
        (early, RejectionCode::BadHeader, "timestamp is 1 ms"),
        (foreign, RejectionCode::BadHeader, "chain id is 1, this chain's is 31337"),
        (wrong, RejectionCode::InvalidPayload, "nonce too high"),
        (garbage, RejectionCode::InvalidPayload, "payload version is 255"),
    ] {
        let first = harness.validate(&block);
        let PayloadStatus::Invalid { code, reason } = &first else { panic!("{first:?}") };
        assert_eq!(*code, expected);
        assert!(reason.contains(words), "{reason}");
        assert_eq!(harness.validate(&block), first, "the verdict stays");
        // Not even the right body changes a verdict on the header.
        let verdict = harness.executor.new_payload(&block.header, &good.payload, &good.inputs).unwrap();
        assert_eq!(verdict, first);
        assert_eq!(harness.chain.block_by_hash(block.hash()).unwrap(), None);
        let head = forkchoice(block.hash(), genesis, genesis);
        assert!(matches!(harness.finalizer.forkchoice(&head).err(), Some(EngineError::UnknownBlock(_))));
    }
    assert_eq!(harness.validate(&good), valid(&good));
}

#[test]
fn a_body_that_does_not_belong_to_its_header_does_not_condemn_the_header() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let block = harness.propose(harness.genesis_hash(), 1, 1);
    let wrong_payload = harness.executor.new_payload(&block.header, &[1, 2, 3], &block.inputs).unwrap();
    assert!(matches!(wrong_payload, PayloadStatus::Invalid { code: RejectionCode::BadCommitment, .. }));
    let wrong_inputs =
        harness.executor.new_payload(&block.header, &block.payload, &Default::default()).unwrap();
    assert!(matches!(wrong_inputs, PayloadStatus::Invalid { code: RejectionCode::BadSystemInputs, .. }));
    assert_eq!(harness.validate(&block), valid(&block));
}

#[test]
fn a_block_that_contradicts_its_own_execution_cannot_be_built_upon() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.pool([transfer(0, 0)]);
    let honest = harness.propose(harness.genesis_hash(), 1, 1);
    let mut lie = honest.clone();
    lie.header.state_hash = B256::repeat_byte(1);
    // The computed hashes come back; consensus compares them with the header.
    assert_eq!(harness.validate(&lie), valid(&honest));
    assert_eq!(harness.validate(&lie), valid(&honest));
    let on_top = harness.executor.build(&request(lie.hash(), 2, 2));
    assert_eq!(on_top, Err(EngineError::UnknownBlock(lie.hash())));
    assert_eq!(harness.validate(&honest), valid(&honest));
}

#[test]
fn an_illegal_forkchoice_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let genesis = harness.genesis_hash();
    let first = harness.extend(genesis, 1, 1).hash();
    let second = harness.extend(first, 2, 2).hash();
    let third = harness.extend(second, 3, 3).hash();
    let sibling = harness.extend(first, 2, 4).hash();
    harness.finalize(first);
    let zero = B256::ZERO;
    for (head, safe, finalized) in [
        (zero, zero, second),       // no head, but something final
        (zero, first, zero),        // no head, but something safe
        (second, third, second),    // safe above the head
        (third, second, third),     // final above safe
        (third, sibling, first),    // safe on another branch
        (sibling, sibling, second), // final on another branch
        (third, third, genesis),    // back below what is final
        (third, third, zero),       // the same
        (first, first, second),     // final above a final head
    ] {
        let refused = harness.finalizer.forkchoice(&forkchoice(head, safe, finalized)).err();
        assert!(matches!(refused, Some(EngineError::Illegal(_))), "{head} {safe} {finalized}: {refused:?}");
        assert_eq!(harness.chain.head().record.hash, first);
        assert_eq!(harness.shared.tree.lock().len(), 3);
    }
    let unknown = B256::repeat_byte(0x77);
    for (head, safe, finalized) in [(unknown, first, first), (third, third, unknown)] {
        let refused = harness.finalizer.forkchoice(&forkchoice(head, safe, finalized)).err();
        assert_eq!(refused, Some(EngineError::UnknownBlock(unknown)));
    }
    // The head may be ahead of what is final, and may move to another branch.
    for head in [third, sibling] {
        let moved = harness.finalizer.forkchoice(&forkchoice(head, first, first)).unwrap();
        assert_eq!(moved.state.height, Height::new(1));
    }
    harness.finalize(third);
}

#[test]
fn what_is_final_is_answered_again_after_consensus_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let genesis = harness.genesis_hash();
    let first = harness.extend(genesis, 1, 1);
    let second = harness.extend(first.hash(), 2, 2);
    harness.finalize(second.hash());
    for block in [&first, &second] {
        assert_eq!(harness.validate(block), valid(block));
        let replay = forkchoice(block.hash(), block.hash(), block.hash());
        let state = harness.finalizer.forkchoice(&replay).unwrap().state;
        assert_eq!((state.height, state.block_hash), (Height::new(2), second.hash()));
    }
    let zero = B256::ZERO;
    assert_eq!(
        harness.finalizer.forkchoice(&forkchoice(zero, zero, zero)).unwrap().state.height,
        Height::new(2)
    );
}

/// What the executor says about the set after next when it is given the block.
fn next_set(harness: &mut Harness, block: &Proposed) -> Option<Vec<Validator>> {
    match harness.validate(block) {
        PayloadStatus::Valid { next_validators, .. } => next_validators,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_block_of_an_epoch_names_the_set_after_next_whenever_it_is_asked_about() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut harness = Harness::open(here.path());
    let secret = crypto::SecretKey::from_seed(&[8; 32]);
    let input = abi::registerCall {
        pubkey: Bytes::copy_from_slice(&secret.public_key().0),
        proofOfPossession: Bytes::copy_from_slice(&secret.prove_possession().0),
    };
    let owner = TestKey::new(0);
    harness.pool([owner.sign(TxEip1559 {
        chain_id: super::harness::CHAIN,
        gas_limit: 1_000_000,
        max_fee_per_gas: 100_000_000_000,
        to: TxKind::Call(REGISTRY),
        value: U256::from(10).pow(U256::from(18)),
        input: input.abi_encode().into(),
        ..Default::default()
    })]);
    let founders = harness.chain.genesis().validator_set().unwrap().validators().to_vec();
    let mut blocks: Vec<Proposed> = Vec::new();
    for height in 1..=64 {
        let parent = blocks.last().map_or(harness.genesis_hash(), Proposed::hash);
        blocks.push(harness.propose(parent, height, height));
        let set = next_set(&mut harness, &blocks[height as usize - 1]);
        assert_eq!(set.is_some(), height % 32 == 0, "at height {height}");
        if height < 62 {
            harness.finalize(blocks[height as usize - 1].hash());
        }
    }
    // The founder of this chain has 1 wei; who registered with a coin follows by the cap, one wei at a time.
    let first = next_set(&mut harness, &blocks[31]).unwrap();
    assert_eq!((first.len(), &first[0]), (2, &founders[0]));
    assert_eq!((first[1].address, first[1].public_key), (owner.address(), secret.public_key()));
    let second = next_set(&mut harness, &blocks[63]).unwrap();
    assert_ne!(first, second);
    harness.finalize(blocks[63].hash());
    for reopened in [false, true] {
        if reopened {
            drop(harness);
            harness = Harness::open(here.path());
        }
        assert_eq!(next_set(&mut harness, &blocks[31]), Some(first.clone()), "final for long");
        assert_eq!(next_set(&mut harness, &blocks[63]), Some(second.clone()), "the head");
        assert_eq!(next_set(&mut harness, &blocks[62]), None);
    }
    // Another executor, which executes instead of building, says the same.
    let mut other = Harness::open(there.path());
    for block in &blocks {
        let expected = next_set(&mut harness, block);
        assert_eq!(next_set(&mut other, block), expected);
    }
    assert_eq!(next_set(&mut other, &blocks[31]), Some(first), "not final yet");
}

#[test]
fn a_block_with_evidence_that_proves_nothing_is_refused_for_its_system_inputs() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let domain = harness.chain.rules().domain();
    let secret = crypto::SecretKey::from_seed(&[7; 32]);
    let evidence = |secret: &crypto::SecretKey| {
        let vote = |byte| {
            let statement = CommitVote {
                view: View::new(3),
                height: Height::new(1),
                block_hash: B256::repeat_byte(byte),
            };
            Witness::Commit(Signed::new(statement, ValidatorIndex::ZERO, secret, &domain))
        };
        types::encode(&Evidence::new(Epoch::ZERO, vote(1), vote(2)).unwrap())
    };
    let mut request = request(harness.genesis_hash(), 1, 1);
    request.system_inputs.evidence = vec![evidence(&secret)];
    let built = harness.executor.build(&request).unwrap();
    let good = proposed(&request, built.clone());
    assert_eq!(harness.validate(&good), valid(&good));
    // Built with other system inputs, so executed for itself, with another outcome.
    let mut without = good.clone();
    without.inputs.evidence.clear();
    without.header.system_inputs_hash = without.inputs.hash();
    let PayloadStatus::Valid { state_hash, .. } = harness.validate(&without) else { panic!() };
    assert_ne!(state_hash, good.header.state_hash);
    request.system_inputs.evidence = vec![evidence(&crypto::SecretKey::from_seed(&[9; 32]))];
    assert!(matches!(harness.executor.build(&request), Err(EngineError::Illegal(_))));
    let forged = proposed(&request, built);
    let PayloadStatus::Invalid { code, reason } = harness.validate(&forged) else { panic!() };
    assert_eq!(code, RejectionCode::BadSystemInputs);
    assert!(reason.contains("a signature does not verify"), "{reason}");
}

#[test]
fn a_crash_leaves_a_block_applied_wholly_or_not_at_all_and_replay_ends_in_the_same_state() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The undisturbed run.
    let mut model = Harness::open(there.path());
    model.pool((0..4).map(|nonce| transfer(0, nonce)));
    let mut blocks = Vec::new();
    let mut parent = model.genesis_hash();
    for height in 1..=4 {
        model.pool([transfer(1, height - 1)]);
        blocks.push(model.extend(parent, height, height));
        parent = blocks[height as usize - 1].hash();
        model.finalize(parent);
    }
    // The same blocks with a crash after every step: executed, or finalized.
    for (index, block) in blocks.iter().enumerate() {
        let mut harness = Harness::open(here.path());
        assert_eq!(harness.chain.height().get(), index as u64);
        assert_eq!(harness.validate(block), valid(block));
        drop(harness);
        let mut harness = Harness::open(here.path());
        assert_eq!(harness.chain.height().get(), index as u64, "an un-finalized block is gone");
        let head = forkchoice(block.hash(), block.hash(), block.hash());
        assert_eq!(harness.finalizer.forkchoice(&head).err(), Some(EngineError::UnknownBlock(block.hash())));
        assert_eq!(harness.validate(block), valid(block));
        harness.finalize(block.hash());
        drop(harness);
        let mut harness = Harness::open(here.path());
        assert_eq!(harness.chain.head().record.hash, block.hash(), "a finalized block stays");
        assert_eq!(harness.validate(block), valid(block));
    }
    let harness = Harness::open(here.path());
    assert_eq!(harness.chain.head(), model.chain.head());
    assert_eq!(harness.shared.finalized_state(), model.shared.finalized_state());
    harness.chain.store().verify().unwrap();
}

#[test]
fn several_blocks_become_final_at_once_and_are_announced_in_order_when_readable() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let mut announced = harness.chain.subscribe();
    let mut parent = harness.genesis_hash();
    for height in 1..=3 {
        harness.pool([transfer(0, height - 1)]);
        parent = harness.extend(parent, height, height).hash();
    }
    assert_eq!(announced.try_recv().err(), Some(tokio::sync::broadcast::error::TryRecvError::Empty));
    harness.finalize(parent);
    for height in 1..=3 {
        let block = announced.try_recv().unwrap();
        assert_eq!(block.record.height, height);
        let hash = block.transactions[0].hash();
        let (found, index) = harness.chain.transaction(hash).unwrap().unwrap();
        assert_eq!((found, index), (block, 0));
        let (mined, receipt) = harness.chain.receipt(hash).unwrap().unwrap();
        assert_eq!((mined.block.height, receipt.tx_hash), (height, hash));
    }
}

#[test]
fn a_storage_error_silences_the_executor() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let genesis = harness.genesis_hash();
    let ours = harness.extend(genesis, 1, 1);
    let other = harness.extend(genesis, 1, 2);
    // Something else wrote to the store: what is on disk is not what this executor believes.
    {
        let tree = harness.shared.tree.lock();
        let node = tree.get(&other.hash()).unwrap();
        harness.chain.store().commit(&node.block, &node.diff, &node.lthash).unwrap();
    }
    let hash = ours.hash();
    let failed = harness.finalizer.forkchoice(&forkchoice(hash, hash, hash)).err();
    assert!(matches!(failed, Some(EngineError::Internal(_))), "{failed:?}");
    assert_eq!(harness.executor.build(&request(genesis, 1, 3)).err(), failed);
    let verdict = harness.executor.new_payload(&ours.header, &ours.payload, &ours.inputs);
    assert_eq!(verdict.err(), failed);
    assert_eq!(harness.finalizer.forkchoice(&forkchoice(genesis, genesis, genesis)).err(), failed);
    assert_eq!(harness.chain.head().record.hash, genesis, "the block was not shown");
}

#[test]
fn an_injected_fault_shows_in_own_blocks_only() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut faulty = Harness::open_with(here.path(), Some(Fault::WrongStateHash));
    let mut honest = Harness::open(there.path());
    faulty.pool([transfer(0, 0)]);
    let lie = faulty.propose(faulty.genesis_hash(), 1, 1);
    for _ in 0..2 {
        assert_eq!(faulty.validate(&lie), valid(&lie), "its own consensus believes it");
    }
    let PayloadStatus::Valid { state_hash, .. } = honest.validate(&lie) else { panic!("it executes") };
    assert_ne!(state_hash, lie.header.state_hash, "the others see the lie");
    let truth = honest.extend(honest.genesis_hash(), 1, 2);
    assert_eq!(faulty.validate(&truth), valid(&truth));
    faulty.finalize(truth.hash());
}

#[test]
fn a_long_stall_holds_a_bounded_number_of_blocks_and_keeps_the_heads_chain() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let genesis = harness.genesis_hash();
    let head = harness.extend(genesis, 1, 1);
    harness.finalizer.forkchoice(&forkchoice(head.hash(), genesis, genesis)).unwrap();
    let dropped = harness.extend(genesis, 1, 2);
    for view in 3..UNFINALIZED_BLOCKS_MAX as u64 + 3 {
        harness.extend(genesis, 1, view);
    }
    assert_eq!(harness.shared.tree.lock().len(), UNFINALIZED_BLOCKS_MAX);
    let gone = harness.executor.build(&request(dropped.hash(), 2, 999));
    assert_eq!(gone, Err(EngineError::UnknownBlock(dropped.hash())));
    assert_eq!(harness.validate(&dropped), valid(&dropped), "given again, it is executed again");
    harness.finalize(head.hash());
    assert_eq!(harness.shared.tree.lock().len(), 0);
}

#[test]
fn transactions_are_awaited_on_top_of_the_block_that_holds_them_already() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    let genesis = harness.genesis_hash();
    assert_eq!(harness.shared.has_transactions(&genesis), Ok(false));
    harness.pool([transfer(0, 0)]);
    assert_eq!(harness.shared.has_transactions(&genesis), Ok(true));
    let block = harness.extend(genesis, 1, 1);
    assert_eq!(harness.shared.has_transactions(&block.hash()), Ok(false));
    harness.pool([transfer(0, 1)]);
    assert_eq!(harness.shared.has_transactions(&block.hash()), Ok(true));
    let unknown = B256::repeat_byte(1);
    assert_eq!(harness.shared.has_transactions(&unknown), Err(EngineError::UnknownBlock(unknown)));
}

#[test]
fn final_blocks_are_counted_by_their_lanes_and_keep_them_over_a_restart() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut proposer, mut validator) = (Harness::open(here.path()), Harness::open(there.path()));
    proposer.pool([transfer(0, 0), transfer(1, 0)]);
    let full = proposer.extend(proposer.genesis_hash(), 1, 1);
    let empty = proposer.extend(full.hash(), 2, 2);
    for block in [&full, &empty] {
        assert_eq!(validator.validate(block), valid(block));
        proposer.finalize(block.hash());
        validator.finalize(block.hash());
    }
    let shown = |harness: &Harness| {
        let registry = harness.metrics.registry(&Default::default(), &harness.shared);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let outline = |harness: &Harness, height| harness.chain.outline(Height::new(height)).unwrap();
    let block = |harness: &Harness| harness.chain.block_by_number(Height::new(1)).unwrap().unwrap();
    assert_eq!(block(&proposer), block(&validator), "built and replayed blocks are kept alike");
    let bytes = block(&proposer).outline.len();
    for (harness, replayed) in [(&proposer, 0), (&validator, 2)] {
        let text = shown(harness);
        for expected in [
            "tandem_execution_lanes_count 1\n".to_owned(),
            "tandem_execution_segments_count 1\n".to_owned(),
            "tandem_execution_widest_lane_share_count 1\n".to_owned(),
            format!("tandem_execution_replayed_blocks_total {replayed}\n"),
            format!("tandem_execution_access_bytes_total {bytes}\n"),
        ] {
            assert!(text.contains(&expected), "{expected} in {text}");
        }
    }
    let expected = execution::Payload::decode(&full.payload).unwrap();
    drop(validator);
    let reopened = Harness::open(there.path());
    for harness in [&proposer, &reopened] {
        let kept = outline(harness, 1).unwrap();
        assert_eq!(kept.objects, expected.objects);
        assert_eq!(kept.transactions().count(), 2);
        assert!(kept.transactions().all(|transaction| transaction.is_empty()));
        assert!(outline(harness, 2).unwrap().lanes.is_empty());
        assert_eq!(outline(harness, 3), None);
    }
}

/// Figures for docs/benchmarks.md: `cargo test --release -p execution-node block_times -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn block_times() {
    const EACH: u64 = 2_500;
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut proposer, mut validator) = (Harness::open(here.path()), Harness::open(there.path()));
    let mut parent = proposer.genesis_hash();
    for height in 1..=4 {
        let nonces = (height - 1) * EACH..height * EACH;
        let transactions: Vec<_> =
            (0..4).flat_map(|from| nonces.clone().map(move |n| transfer(from, n))).collect();
        // The last block's transactions are new to the validator.
        if height < 4 {
            validator.pool(transactions.clone());
        }
        let started = Instant::now();
        proposer.pool(transactions);
        let pooled = started.elapsed();
        let started = Instant::now();
        let block = proposer.propose(parent, height, height);
        let built = started.elapsed();
        let started = Instant::now();
        assert_eq!(validator.validate(&block), valid(&block));
        let validated = started.elapsed();
        let started = Instant::now();
        assert_eq!(proposer.validate(&block), valid(&block));
        let own = started.elapsed();
        parent = block.hash();
        let hash = parent;
        let all = forkchoice(hash, hash, hash);
        let sibling = proposer.propose(block.header.parent_hash, height, height + 100);
        // Finality on its own thread, and a vote on another block meanwhile.
        let started = Instant::now();
        let (finalized, committed, beside) = {
            let Harness { finalizer, executor, .. } = &mut validator;
            std::thread::scope(|scope| {
                let finality = scope.spawn(move || (finalizer.forkchoice(&all).unwrap(), started.elapsed()));
                let verdict = executor.new_payload(&sibling.header, &sibling.payload, &sibling.inputs);
                let beside = started.elapsed();
                // Whether it was in time depends on the machine.
                assert!(matches!(verdict, Ok(_) | Err(EngineError::Illegal(_))), "{verdict:?}");
                let (finalized, committed) = finality.join().unwrap();
                (finalized, committed, beside)
            })
        };
        let started = Instant::now();
        validator.finalizer.clean_up(finalized.cleanup);
        let cleaned = started.elapsed();
        proposer.finalize(hash);
        let count = validator.chain.head().transactions.len();
        println!(
            "{count} transfers: inserted in {pooled:?}, built in {built:?}, validated in {validated:?} (own: {own:?}), \
             committed in {committed:?}, a sibling validated meanwhile in {beside:?}, pool cleaned in {cleaned:?}"
        );
    }
}
