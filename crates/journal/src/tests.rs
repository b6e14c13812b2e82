//! Properties of the journal, each against real files.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::file::fault;
use proptest::prelude::*;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use tempfile::TempDir;
use types::vote::Signed;
use types::{
    Address, Checkpoint, CommitVote, Epoch, Header, Justify, PrepareVote, Signature, SignerSet, SystemInputs,
    ValidatorIndex, View,
};

const GENESIS: B256 = B256::repeat_byte(1);
const SMALL: Options = Options { block_segment_bytes: 64 << 10 };

fn block(height: u64, salt: u8, payload: usize) -> Arc<Block> {
    let header = Header {
        chain_id: 31337,
        epoch: Epoch::ZERO,
        epoch_start_height: Height::new(1),
        height: Height::new(height),
        view: View::new(height),
        parent_hash: B256::repeat_byte(salt),
        timestamp_ms: height,
        proposer: ValidatorIndex::new(0),
        fee_recipient: Address::ZERO,
        validator_set_id: B256::ZERO,
        next_validator_set_id: B256::ZERO,
        payload_commitment: B256::ZERO,
        state_hash: B256::ZERO,
        receipts_hash: B256::ZERO,
        checkpoint: Checkpoint::default(),
        randao_reveal: Signature::ZERO,
        justify: Justify::Genesis,
        timeout: None,
        last_commit: None,
        system_inputs_hash: B256::ZERO,
    };
    Arc::new(Block { header, system_inputs: SystemInputs::default(), payload: vec![salt; payload] })
}

fn commit(block: &Block) -> CommitQc {
    let vote =
        CommitVote { view: block.header.view, height: block.header.height, block_hash: block.header.hash() };
    CommitQc { epoch: Epoch::ZERO, vote, signers: SignerSet::empty(4), signature: Signature::ZERO }
}

fn mark(block: &Block) -> Record {
    Record::Finalized { height: block.header.height, block_hash: block.header.hash() }
}

fn state(view: u64) -> SignState {
    let statement = PrepareVote {
        source_view: View::ZERO,
        source_hash: B256::ZERO,
        target_view: View::new(view),
        height: Height::new(view),
        block_hash: B256::repeat_byte(view as u8),
    };
    let last_prepare = Some(Signed { statement, signer: ValidatorIndex::new(0), signature: Signature::ZERO });
    SignState {
        epoch: Epoch::ZERO,
        view: View::new(view),
        last_proposal: None,
        last_prepare,
        last_commit: None,
        last_timeout: None,
        lock: None,
        high_qc: None,
        entered_by: None,
    }
}

fn sign(view: u64) -> Record {
    Record::SignState(Box::new(state(view)))
}

fn open(dir: &Path) -> (Journal, Recovered) {
    Journal::open_with(dir, GENESIS, SMALL).unwrap()
}

/// One block per height with everything that belongs to it, as consensus writes it.
fn write_heights(journal: &mut Journal, heights: std::ops::RangeInclusive<u64>) {
    for height in heights {
        let block = block(height, 0, 300);
        journal.persist(&[Record::Block(block.clone()), sign(height)]).unwrap();
        journal.persist(&[Record::Commit(commit(&block))]).unwrap();
        journal.persist(&[mark(&block)]).unwrap();
    }
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Bytes of a file up to the last one that is not zero.
fn used_bytes(path: &Path) -> usize {
    std::fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_new_directory_recovers_to_nothing_and_stays_usable() {
    let dir = TempDir::new().unwrap();
    let (journal, recovered) = open(&dir.path().join("deep/inside"));
    assert_eq!(recovered, Recovered::default());
    assert_eq!(journal.block(&B256::ZERO).unwrap(), None);
    assert_eq!(journal.finalized(Height::new(1)).unwrap(), None);
    assert!(journal.check().unwrap().problems.is_empty());
}

fn evidence(view: u64) -> types::Evidence {
    let vote =
        |block: u8| types::ProposalVote { view: View::new(view), block_hash: B256::repeat_byte(block) };
    let signed = |statement| Signed { statement, signer: ValidatorIndex::new(3), signature: Signature::ZERO };
    let [a, b] = [1, 2].map(|block| types::Witness::Proposal(signed(vote(block))));
    types::Evidence::new(Epoch::ZERO, a, b).unwrap()
}

#[test]
fn evidence_comes_back_in_order_from_any_segment_with_the_block_that_holds_it() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let waiting = StoredEvidence { evidence: evidence(7), included: None };
    let other = StoredEvidence { evidence: evidence(8), included: None };
    let held =
        StoredEvidence { evidence: evidence(7), included: Some((Height::new(90), B256::repeat_byte(9))) };
    let record = |stored: &StoredEvidence| Record::Evidence(Box::new(stored.clone()));
    journal.persist(&[record(&waiting), record(&other)]).unwrap();
    write_heights(&mut journal, 1..=90);
    journal.persist(&[record(&held)]).unwrap();
    write_heights(&mut journal, 91..=200);
    assert!(journal.stats().unwrap().segments > 3);
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.evidence, [waiting, other, held]);
    assert!(journal.check().unwrap().problems.is_empty());
}

#[test]
fn everything_acknowledged_is_found_after_reopening_across_segments() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    write_heights(&mut journal, 1..=200);
    let stats = journal.stats().unwrap();
    assert!(stats.segments > 3, "{stats:?}");
    assert_eq!((stats.blocks, stats.commits, stats.sign_states), (200, 200, 200));
    drop(journal);
    for remove_indices in [false, true] {
        if remove_indices {
            for entry in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.extension().is_some_and(|extension| extension == "idx") {
                    std::fs::remove_file(entry).unwrap();
                }
            }
        }
        let (journal, recovered) = open(dir.path());
        assert_eq!(recovered.sign_state, Some(state(200)));
        assert_eq!(recovered.finalized, Some((Height::new(200), block(200, 0, 300).header.hash())));
        assert_eq!(recovered.commit, Some(commit(&block(200, 0, 300))));
        assert!(recovered.blocks.is_empty());
        for height in 1..=200 {
            let found = journal.finalized(Height::new(height)).unwrap().unwrap();
            assert_eq!((&found.block, found.commit), (&*block(height, 0, 300), Some(commit(&found.block))));
        }
        let report = journal.check().unwrap();
        assert!(report.problems.is_empty(), "{report:?}");
        assert!(report.records >= 600);
    }
}

#[test]
fn only_blocks_above_the_finalized_height_are_recovered_in_the_order_they_were_stored() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    write_heights(&mut journal, 1..=2);
    let (lost, b, a) = (block(2, 9, 10), block(4, 1, 10), block(3, 2, 10));
    journal
        .persist(&[Record::Block(lost.clone()), Record::Block(b.clone()), Record::Block(a.clone())])
        .unwrap();
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.blocks, vec![b, a]);
    assert_eq!(journal.block(&lost.header.hash()).unwrap(), Some(lost));
}

#[test]
fn storing_again_costs_nothing_and_a_contradicting_mark_is_refused() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    write_heights(&mut journal, 1..=1);
    let used = journal.stats().unwrap().bytes_used;
    let stored = block(1, 0, 300);
    journal
        .persist(&[Record::Block(stored.clone()), Record::Commit(commit(&stored)), mark(&stored)])
        .unwrap();
    assert_eq!(journal.stats().unwrap().bytes_used, used);
    let sibling = block(1, 7, 10);
    let error = journal.persist(&[Record::Block(sibling.clone()), mark(&sibling)]).unwrap_err();
    assert!(error.0.contains("is final already"), "{error}");
    assert!(journal.persist(&[]).is_err(), "a refused write poisons the instance");
}

#[test]
fn marks_must_rise_by_one_and_name_stored_blocks() {
    for (records, expected) in [
        (vec![Record::Block(block(3, 0, 1)), mark(&block(3, 0, 1))], "expected 2"),
        (vec![mark(&block(2, 0, 1))], "is not stored"),
    ] {
        let dir = TempDir::new().unwrap();
        let (mut journal, _) = open(dir.path());
        write_heights(&mut journal, 1..=1);
        let error = journal.persist(&records).unwrap_err();
        assert!(error.0.contains(expected), "{error}");
    }
}

#[test]
fn a_batch_bigger_than_a_segment_gets_a_segment_of_its_own_size() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let big = block(1, 3, 300 << 10);
    journal.persist(&[Record::Block(big.clone())]).unwrap();
    let bigger = block(2, 4, 500 << 10);
    journal.persist(&[Record::Block(bigger.clone()), sign(1)]).unwrap();
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.blocks, vec![big, bigger]);
    assert!(journal.check().unwrap().problems.is_empty());
}

#[test]
fn two_instances_cannot_share_a_directory() {
    let dir = TempDir::new().unwrap();
    let (_journal, _) = open(dir.path());
    let error = Journal::open(dir.path(), GENESIS).unwrap_err();
    assert!(matches!(error, JournalError::Locked { .. }));
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn a_journal_of_another_chain_is_refused_naming_both() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let other = B256::repeat_byte(2);
    let error = Journal::open(dir.path(), other).unwrap_err();
    assert!(matches!(error, JournalError::ForeignGenesis { .. }));
    let text = error.to_string();
    assert!(text.contains(&GENESIS.to_string()) && text.contains(&other.to_string()), "{text}");
    assert_eq!(Journal::genesis_of(dir.path()).unwrap(), Some(GENESIS));
}

#[test]
fn a_missing_file_is_refused_by_name_and_nothing_is_created_over_orphans() {
    for file in ["sign-a.log", "sign-b.log", "blocks-00000001.log", "blocks-00000002.log", "IDENTITY"] {
        let dir = TempDir::new().unwrap();
        let (mut journal, _) = open(dir.path());
        write_heights(&mut journal, 1..=200);
        drop(journal);
        std::fs::remove_file(dir.path().join(file)).unwrap();
        for _ in 0..2 {
            match Journal::open_with(dir.path(), GENESIS, SMALL).unwrap_err() {
                JournalError::Missing { path } => assert_eq!(path, dir.path().join(file)),
                other => panic!("{file}: {other}"),
            }
        }
    }
}

#[test]
fn losing_the_last_segment_is_proven_by_the_sign_state() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    write_heights(&mut journal, 1..=200);
    let last = journal.stats().unwrap().segments;
    drop(journal);
    std::fs::remove_file(dir.path().join(format!("blocks-{last:08}.log"))).unwrap();
    let error = Journal::open_with(dir.path(), GENESIS, SMALL).unwrap_err();
    assert!(matches!(error, JournalError::BlocksLost { .. }), "{error}");
}

#[test]
fn an_older_sign_state_log_put_back_is_proven_by_the_blocks() {
    let (dir, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut journal, _) = open(dir.path());
    write_heights(&mut journal, 1..=3);
    copy_dir(dir.path(), backup.path());
    write_heights(&mut journal, 4..=6);
    drop(journal);
    for name in ["sign-a.log", "sign-b.log"] {
        std::fs::copy(backup.path().join(name), dir.path().join(name)).unwrap();
    }
    let error = Journal::open_with(dir.path(), GENESIS, SMALL).unwrap_err();
    assert!(matches!(error, JournalError::SignStateWentBack { found: 3, proven: 6, .. }), "{error}");
}

#[test]
fn a_format_of_another_version_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let path = dir.path().join(IDENTITY);
    let mut bytes = std::fs::read(&path).unwrap();
    for copy in [0, PAGE as usize] {
        bytes[copy + 8] = 2;
        let checksum = {
            let mut hasher = blake3::Hasher::new_derive_key("tandem v1 journal head");
            *hasher.update(&bytes[copy..copy + 108]).finalize().as_bytes()
        };
        bytes[copy + 108..copy + 124].copy_from_slice(&checksum[..16]);
    }
    std::fs::write(&path, bytes).unwrap();
    let error = Journal::open(dir.path(), GENESIS).unwrap_err();
    assert!(matches!(error, JournalError::Version { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn the_sign_state_log_never_grows_and_always_shows_the_newest_record() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let before = journal.stats().unwrap().bytes_reserved;
    for view in 1..=600 {
        journal.persist(&[sign(view)]).unwrap();
        if view % 97 == 0 {
            drop(journal);
            let (reopened, recovered) = open(dir.path());
            assert_eq!(recovered.sign_state, Some(state(view)));
            journal = reopened;
        }
    }
    assert_eq!(journal.stats().unwrap().bytes_reserved, before);
    assert_eq!(journal.stats().unwrap().sign_states, 600);
}

#[test]
fn the_last_sign_state_of_a_batch_wins() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    journal.persist(&[sign(1), sign(2)]).unwrap();
    drop(journal);
    assert_eq!(open(dir.path()).1.sign_state, Some(state(2)));
}

/// A crash while the last batch was being written leaves any of its bytes unwritten: the rest must be found.
#[test]
fn a_torn_last_batch_is_dropped_whole_and_the_log_goes_on() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    write_heights(&mut journal, 1..=2);
    let path = dir.path().join("blocks-00000001.log");
    let before = used_bytes(&path).next_multiple_of(512);
    let extra = [block(3, 1, 600), block(3, 2, 600)];
    journal.persist(&[Record::Block(extra[0].clone()), Record::Block(extra[1].clone())]).unwrap();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    for unwritten in (before..used_bytes(&path)).step_by(13) {
        let copy = TempDir::new().unwrap();
        copy_dir(dir.path(), copy.path());
        let mut torn = whole.clone();
        // Sectors reach the disk in any order: here all but one arrived, there all after one are missing.
        let sector = unwritten - unwritten % 512;
        if unwritten % 2 == 0 {
            torn[sector..sector + 512].fill(0)
        } else {
            torn[unwritten..].fill(0)
        }
        std::fs::write(copy.path().join("blocks-00000001.log"), torn).unwrap();
        let (mut journal, recovered) = open(copy.path());
        let expected = if recovered.blocks.is_empty() { vec![] } else { extra.to_vec() };
        assert_eq!(recovered.blocks, expected, "{unwritten}");
        assert_eq!(recovered.finalized.unwrap().0, Height::new(2));
        // The place is written again, by a shorter and by a longer batch, and reads back.
        write_heights(&mut journal, 3..=5);
        drop(journal);
        let (journal, recovered) = open(copy.path());
        assert_eq!(recovered.finalized.unwrap().0, Height::new(5));
        assert!(journal.check().unwrap().problems.is_empty());
    }
}

#[test]
fn a_torn_sign_state_is_dropped_or_whole_never_mixed() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    for view in 1..=3 {
        journal.persist(&[sign(view)]).unwrap();
    }
    let path = dir.path().join("sign-a.log");
    let old = std::fs::read(&path).unwrap();
    journal.persist(&[sign(4)]).unwrap();
    drop(journal);
    let new = std::fs::read(&path).unwrap();
    let sectors: Vec<usize> =
        (0..new.len()).step_by(512).filter(|s| new[*s..s + 512] != old[*s..s + 512]).collect();
    assert!(sectors.len() < 12);
    for arrived in 0u32..1 << sectors.len() {
        let copy = TempDir::new().unwrap();
        copy_dir(dir.path(), copy.path());
        let mut torn = old.clone();
        for (i, sector) in sectors.iter().enumerate().filter(|(i, _)| arrived >> i & 1 == 1) {
            let _ = i;
            torn[*sector..sector + 512].copy_from_slice(&new[*sector..sector + 512]);
        }
        std::fs::write(copy.path().join("sign-a.log"), torn).unwrap();
        let (mut journal, recovered) = open(copy.path());
        let view = recovered.sign_state.unwrap().view.get();
        assert!(view == 3 || view == 4);
        assert!(arrived != (1 << sectors.len()) - 1 || view == 4);
        journal.persist(&[sign(5)]).unwrap();
        drop(journal);
        assert_eq!(open(copy.path()).1.sign_state, Some(state(5)));
    }
}

/// The turn from one file to the other rewrites a head: the most delicate write of all.
#[test]
fn a_torn_turn_of_the_sign_state_log_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let (mut view, mut turns) = (0, 0);
    // The third turn overwrites a file that was full before.
    let (name, old) = loop {
        let files =
            ["sign-a.log", "sign-b.log"].map(|name| (name, std::fs::read(dir.path().join(name)).unwrap()));
        view += 1;
        journal.persist(&[sign(view)]).unwrap();
        let turned = files.into_iter().find(|(name, old)| {
            let new = std::fs::read(dir.path().join(name)).unwrap();
            new[..PAGE as usize] != old[..PAGE as usize]
        });
        turns += u32::from(turned.is_some());
        match turned {
            Some(found) if turns == 3 => break found,
            _ => {}
        }
    };
    drop(journal);
    let new = std::fs::read(dir.path().join(name)).unwrap();
    let pages: Vec<usize> =
        (0..new.len()).step_by(512).filter(|s| new[*s..s + 512] != old[*s..s + 512]).collect();
    for arrived in 0u32..1 << pages.len() {
        let copy = TempDir::new().unwrap();
        copy_dir(dir.path(), copy.path());
        let mut torn = old.clone();
        for (_, sector) in pages.iter().enumerate().filter(|(i, _)| arrived >> i & 1 == 1) {
            torn[*sector..sector + 512].copy_from_slice(&new[*sector..sector + 512]);
        }
        std::fs::write(copy.path().join(name), torn).unwrap();
        let (mut journal, recovered) = open(copy.path());
        let found = recovered.sign_state.unwrap().view.get();
        assert!(found == view || found == view - 1, "{found} of {view}, arrived {arrived:b}");
        assert!(arrived != (1 << pages.len()) - 1 || found == view);
        for next in view + 1..view + 4 {
            journal.persist(&[sign(next)]).unwrap();
        }
        drop(journal);
        assert_eq!(open(copy.path()).1.sign_state, Some(state(view + 3)));
    }
}

/// A journal that is damaged again and again, each time from its original files.
struct Patient {
    dir: TempDir,
    originals: Vec<(PathBuf, Vec<u8>)>,
}

impl Patient {
    fn new(dir: TempDir) -> Self {
        let paths = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let originals = paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        Self { dir, originals }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Opens the journal after `damage` to one file's bytes; `None` when it refuses.
    fn survives(&self, damage: impl Fn(&mut Vec<u8>), file: &str) -> Option<Recovered> {
        let path = self.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let result = open_and_compare(self.path());
        for (path, original) in &self.originals {
            if std::fs::read(path).unwrap() != *original {
                std::fs::write(path, original).unwrap();
            }
        }
        result
    }
}

/// Whatever opens must read back right.
fn open_and_compare(dir: &Path) -> Option<Recovered> {
    match Journal::open_with(dir, GENESIS, SMALL) {
        Ok((journal, recovered)) => {
            // What is readable must be right.
            for height in 1..=3 {
                if let Ok(Some(found)) = journal.finalized(Height::new(height)) {
                    assert_eq!(found.block, *block(height, 0, 300));
                    assert!(found.commit.is_none_or(|qc| qc == commit(&found.block)));
                }
            }
            let _ = journal.check().unwrap();
            Some(recovered)
        }
        Err(error) => {
            assert!(!matches!(error, JournalError::Io { .. }), "{error}");
            None
        }
    }
}

fn small_journal() -> Patient {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    write_heights(&mut journal, 1..=3);
    journal.persist(&[Record::Block(block(4, 0, 40)), sign(4)]).unwrap();
    drop(journal);
    Patient::new(dir)
}

fn check_prefix(recovered: &Recovered, what: &str) {
    let view = recovered.sign_state.as_ref().map_or(0, |state| state.view.get());
    assert_eq!(view, 4, "{what}: the sign-state went back");
    assert_eq!(recovered.finalized.map(|(height, _)| height), Some(Height::new(3)), "{what}");
    assert_eq!(recovered.commit, Some(commit(&block(3, 0, 300))), "{what}");
    assert_eq!(recovered.blocks, vec![block(4, 0, 40)], "{what}");
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let dir = small_journal();
    for file in ["blocks-00000001.log", "sign-a.log", "sign-b.log", IDENTITY] {
        let used = used_bytes(&dir.path().join(file)).max(PAGE as usize);
        for length in (0..used).step_by(61).chain([used]) {
            if let Some(recovered) = dir.survives(|bytes| bytes.truncate(length), file) {
                check_prefix(&recovered, &format!("{file} cut at {length}"));
                assert_eq!(file, IDENTITY, "a cut log must not open");
            }
        }
    }
}

#[test]
fn a_log_whose_end_was_never_written_opens_with_what_was_acknowledged_or_refuses() {
    let dir = small_journal();
    for file in ["blocks-00000001.log", "sign-a.log"] {
        let used = used_bytes(&dir.path().join(file));
        for end in (PAGE as usize..used).step_by(11) {
            let erased = dir.survives(|bytes| bytes[end..].fill(0), file);
            // Each log proves what the other one held, but for the newest sign-state, which nothing follows.
            if let Some(mut recovered) = erased {
                let state = recovered.sign_state.as_mut().unwrap();
                assert!(state.view.get() >= 3, "{file} zeroed from {end}: {:?}", state.view);
                *state = self::state(4);
                check_prefix(&recovered, &format!("{file} zeroed from {end}"));
            }
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_harmless_or_refused_never_a_wrong_value() {
    let dir = small_journal();
    for file in ["blocks-00000001.log", "sign-a.log", "sign-b.log", IDENTITY] {
        let used = used_bytes(&dir.path().join(file));
        // Behind the first 512 bytes of a page of the other files there is padding only.
        for at in (0..used).filter(|at| file.starts_with("blocks") || at % (PAGE as usize) < 512) {
            let flipped = dir.survives(|bytes| bytes[at] ^= 1 << (at % 8), file);
            if let Some(recovered) = flipped {
                check_prefix(&recovered, &format!("{file} flipped at {at}"));
            } else {
                assert_eq!(file, "blocks-00000001.log", "flip at {at}: two copies survive any single flip");
            }
        }
    }
}

#[test]
fn damage_between_intact_records_names_the_file_and_what_to_do() {
    let dir = small_journal();
    let path = dir.path().join("blocks-00000001.log");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 64], PAGE).unwrap();
    drop(file);
    let error = Journal::open_with(dir.path(), GENESIS, SMALL).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, JournalError::Damaged { offset: PAGE, .. }), "{text}");
    assert!(text.contains("blocks-00000001.log") && text.contains("Refusing to sign"), "{text}");
}

#[test]
fn damage_inside_an_old_block_is_found_when_it_is_read_and_by_a_check() {
    let dir = small_journal();
    let path = dir.path().join("blocks-00000001.log");
    // Inside the first block's payload.
    let bytes = std::fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let at = PAGE as usize + record::HEADER_BYTES + 20;
    file.write_all_at(&[!bytes[at]], at as u64).unwrap();
    drop(file);
    let (journal, _) = open(dir.path());
    assert!(journal.finalized(Height::new(1)).unwrap_err().0.contains("checksum"));
    assert!(journal.finalized(Height::new(2)).unwrap().is_some());
    let report = journal.check().unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_written_any_more() {
    for successes in 0..4 {
        let dir = TempDir::new().unwrap();
        let (mut journal, _) = open(dir.path());
        write_heights(&mut journal, 1..=1);
        // Write and sync of the block log, write and sync of the sign-state log.
        fault::REMAINING.set(Some(successes));
        let next = block(2, 0, 10);
        let first = journal.persist(&[Record::Block(next.clone()), sign(2)]).unwrap_err();
        fault::REMAINING.set(None);
        let second = journal.persist(&[sign(3)]).unwrap_err();
        assert!(second.0.contains(&first.0), "{second}");
        assert!(journal.finalized(Height::new(1)).unwrap().is_some(), "reading goes on");
        drop(journal);
        let (_, recovered) = open(dir.path());
        let view = recovered.sign_state.unwrap().view.get();
        assert!(view == 1 || (view == 2 && successes == 3), "{view} after {successes}");
        assert!(view != 2 || recovered.blocks == vec![next]);
    }
}

#[test]
fn a_full_disk_is_a_typed_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = full.write_all_at(&[1], 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    fault::REMAINING.set(Some(0));
    let error = journal.persist(&[Record::Block(block(1, 0, 10))]).unwrap_err();
    fault::REMAINING.set(None);
    assert!(error.0.contains("No space left"), "{error}");
}

#[test]
fn a_sign_state_too_big_for_its_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let mut huge = state(1);
    let qc = types::Qc {
        epoch: Epoch::ZERO,
        vote: state(1).last_prepare.unwrap().statement,
        signers: SignerSet::empty(8 << 20),
        signature: Signature::ZERO,
    };
    huge.lock = Some(qc);
    let error = journal.persist(&[Record::SignState(Box::new(huge))]).unwrap_err();
    assert!(error.0.contains("at most"), "{error}");
}

/// What a step of the model does.
#[derive(Clone, Debug)]
enum Step {
    Block { salt: u8, payload: usize, signed: bool },
    Finalize,
    Sign,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 0usize..3000, any::<bool>()).prop_map(|(salt, payload, signed)| Step::Block { salt, payload, signed }),
        2 => Just(Step::Finalize),
        2 => Just(Step::Sign),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_writes_and_reopenings_reads_back_as_a_map_would(steps in prop::collection::vec(step(), 1..120)) {
        let dir = TempDir::new().unwrap();
        let options = Options { block_segment_bytes: 64 << 10 };
        let (mut journal, _) = Journal::open_with(dir.path(), GENESIS, options).unwrap();
        let (mut view, mut finalized, mut open_blocks) = (0u64, 0u64, Vec::<Arc<Block>>::new());
        let mut chain: Vec<Arc<Block>> = Vec::new();
        for step in steps {
            match step {
                Step::Block { salt, payload, signed } => {
                    let new = block(finalized + 1 + u64::from(salt % 2), salt, payload);
                    let mut batch = vec![Record::Block(new.clone())];
                    if signed {
                        view += 1;
                        batch.push(sign(view));
                    }
                    journal.persist(&batch).unwrap();
                    if !open_blocks.iter().any(|known| known.header.hash() == new.header.hash()) {
                        open_blocks.push(new);
                    }
                }
                Step::Finalize => {
                    let next = open_blocks.iter().find(|b| b.header.height.get() == finalized + 1).cloned();
                    if let Some(next) = next {
                        journal.persist(&[Record::Commit(commit(&next)), mark(&next)]).unwrap();
                        finalized += 1;
                        chain.push(next);
                        open_blocks.retain(|b| b.header.height.get() > finalized);
                    }
                }
                Step::Sign => {
                    view += 1;
                    journal.persist(&[sign(view)]).unwrap();
                }
                Step::Reopen => {
                    drop(journal);
                    let (reopened, recovered) = Journal::open_with(dir.path(), GENESIS, options).unwrap();
                    journal = reopened;
                    let hashes = |blocks: &[Arc<Block>]| blocks.iter().map(|b| b.header.hash()).collect::<Vec<_>>();
                    prop_assert_eq!(hashes(&recovered.blocks), hashes(&open_blocks));
                    prop_assert_eq!(recovered.sign_state.map_or(0, |s| s.view.get()), view);
                    prop_assert_eq!(recovered.finalized.map_or(0, |(h, _)| h.get()), finalized);
                    prop_assert_eq!(recovered.commit, chain.last().map(|b| commit(b)));
                }
            }
        }
        for (height, expected) in (1..).zip(&chain) {
            let found = journal.finalized(Height::new(height)).unwrap().unwrap();
            prop_assert_eq!(&found.block.header, &expected.header);
        }
        prop_assert!(journal.check().unwrap().problems.is_empty());
    }
}

/// `cargo test --release -p journal -- --ignored --nocapture latency`
#[test]
#[ignore = "a measurement"]
fn latency_of_persist() {
    let dir = TempDir::new_in(std::env::current_dir().unwrap()).unwrap();
    let (mut journal, _) = Journal::open(dir.path(), GENESIS).unwrap();
    let mut measure = |name: &str, make: &dyn Fn(u64) -> Vec<Record>| {
        let mut micros: Vec<u128> = (0..1000)
            .map(|i| {
                let records = make(i);
                let start = std::time::Instant::now();
                journal.persist(&records).unwrap();
                start.elapsed().as_micros()
            })
            .collect();
        micros.sort_unstable();
        println!("{name}: p50 {} us, p90 {} us, p99 {} us", micros[500], micros[900], micros[990]);
    };
    measure("sign-state", &|i| vec![sign(i)]);
    measure("empty block + sign-state", &|i| vec![Record::Block(block(i, 1, 0)), sign(i)]);
    measure("100 KiB block + sign-state", &|i| vec![Record::Block(block(i, 2, 100 << 10)), sign(i)]);
    drop(journal);
    let start = std::time::Instant::now();
    let (_, recovered) = Journal::open(dir.path(), GENESIS).unwrap();
    println!("open with {} open blocks: {:?}", recovered.blocks.len(), start.elapsed());
}

/// `cargo test --release -p journal -- --ignored --nocapture million`
#[test]
#[ignore = "a measurement"]
fn opening_with_a_million_blocks() {
    let dir = TempDir::new_in(std::env::current_dir().unwrap()).unwrap();
    let (mut journal, _) = Journal::open(dir.path(), GENESIS).unwrap();
    for batch in 0..1000u64 {
        let blocks = (1..=1000).map(|i| block(batch * 1000 + i, 0, 0));
        let records =
            blocks.flat_map(|b| [Record::Commit(commit(&b)), mark(&b), Record::Block(b)]).collect::<Vec<_>>();
        let ordered =
            records.chunks(3).flat_map(|c| [c[2].clone(), c[0].clone(), c[1].clone()]).collect::<Vec<_>>();
        journal.persist(&ordered).unwrap();
    }
    println!("{:?}", journal.stats().unwrap());
    drop(journal);
    let start = std::time::Instant::now();
    let (_journal, recovered) = Journal::open(dir.path(), GENESIS).unwrap();
    println!("open at {:?}: {:?}", recovered.finalized.unwrap().0, start.elapsed());
}

/// `cargo test --release -p journal -- --ignored --nocapture creating`
#[test]
#[ignore = "a measurement"]
fn creating_and_reopening() {
    let dir = TempDir::new_in(std::env::current_dir().unwrap()).unwrap();
    for i in 0..8 {
        let path = dir.path().join(i.to_string());
        let start = std::time::Instant::now();
        drop(Journal::open(&path, GENESIS).unwrap());
        let created = start.elapsed();
        drop(Journal::open(&path, GENESIS).unwrap());
        println!("create {created:?}, open {:?}", start.elapsed() - created);
    }
}

#[test]
fn the_validators_of_every_epoch_are_found_after_reopening_and_the_first_word_counts() {
    let dir = TempDir::new().unwrap();
    let info = |epoch: u64, seed: u8| {
        let validator = |i: u8| types::Validator {
            address: Address::repeat_byte(i),
            public_key: types::PublicKey([i; 48]),
            stake: types::Stake::new(u128::from(i)),
        };
        let validators = (1..100).map(validator).collect();
        types::EpochInfo { epoch: Epoch::new(epoch), seed: B256::repeat_byte(seed), validators }
    };
    let (mut journal, _) = open(dir.path());
    for epoch in 2..40 {
        let block = block(epoch - 1, 0, 300);
        journal.persist(&[Record::Block(block.clone()), sign(epoch)]).unwrap();
        journal.persist(&[Record::Epoch(Box::new(info(epoch, 1))), mark(&block)]).unwrap();
    }
    journal.persist(&[Record::Epoch(Box::new(info(7, 9)))]).unwrap();
    assert!(journal.stats().unwrap().segments > 2, "the sets span segments");
    drop(journal);
    let (journal, _) = open(dir.path());
    for epoch in 2..40 {
        assert_eq!(journal.epoch(Epoch::new(epoch)).unwrap(), Some(info(epoch, 1)));
    }
    assert_eq!(journal.epoch(Epoch::new(40)).unwrap(), None);
    assert!(journal.check().unwrap().problems.is_empty());
}
