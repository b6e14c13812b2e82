//! Damage to the files: the store opens at an earlier whole block or refuses. It never panics and never shows a
//! state that was not committed.

use super::*;
use fjall::{Database, KeyspaceCreateOptions};
use std::{fs, path::PathBuf, process::Command};

const BLOCKS: u64 = 12;

fn model() -> Model {
    let mut model = Model::new(4);
    for block in 0..BLOCKS {
        let transfers = model
            .keys
            .iter()
            .map(|key| {
                key.transfer(CHAIN_ID, block, Address::with_last_byte(block as u8 + 1), U256::from(block + 1))
            })
            .collect();
        model.build(transfers);
    }
    model
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}

/// A copy as a crash leaves it: without the note of a clean shutdown.
fn crashed_copy(original: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_directory(original, copy.path());
    let _ = fs::remove_file(copy.path().join("clean-shutdown"));
    copy
}

fn journal(directory: &Path) -> PathBuf {
    let mut journals: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    journals.sort();
    journals.pop().unwrap()
}

/// Last byte of the journal that is not preallocated zeros.
fn journal_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// Opens a damaged copy. A store that opens must be whole and able to go on; gives its height at open.
fn reopen(model: &Model, directory: &Path) -> Result<u64, OpenError> {
    let store = StateStore::open(options(directory, 4), &model.genesis)?;
    let head = store.head();
    assert_eq!(head, model.heads[head.height as usize]);
    store.verify().unwrap();
    model.assert_equal(&store.view(), head.height);
    assert_eq!(store.record(head.height + 1).unwrap(), None);
    model.catch_up(&store);
    model.assert_equal(&store.view(), BLOCKS);
    model.assert_equal(&store.at(BLOCKS - 1).unwrap(), BLOCKS - 1);
    store.verify().unwrap();
    Ok(head.height)
}

fn stored(model: &Model) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = StateStore::open(options(directory.path(), 4), &model.genesis).unwrap();
    model.catch_up(&store);
    drop(store);
    directory
}

#[test]
fn a_journal_cut_anywhere_opens_at_an_earlier_whole_block() {
    let model = model();
    let original = stored(&model);
    let bytes = fs::read(journal(original.path())).unwrap();
    let end = journal_end(&bytes);
    let mut heights = Vec::new();
    for cut in (0..24).map(|step| end * step / 24).chain([end - 1, end]) {
        let copy = crashed_copy(original.path());
        fs::write(journal(copy.path()), &bytes[..cut]).unwrap();
        heights.push(reopen(&model, copy.path()).unwrap());
    }
    assert!(heights.is_sorted(), "{heights:?}");
    assert_eq!((heights[0], *heights.last().unwrap()), (0, BLOCKS));
    assert!(heights.iter().any(|height| (1..BLOCKS).contains(height)));
}

#[test]
fn a_zeroed_page_or_a_flipped_byte_opens_at_an_earlier_whole_block_or_is_refused() {
    let model = model();
    let original = stored(&model);
    let bytes = fs::read(journal(original.path())).unwrap();
    let end = journal_end(&bytes);
    let (mut earlier, mut refused) = (0, 0);
    for step in 0..24 {
        for zero in [true, false] {
            let copy = crashed_copy(original.path());
            let mut damaged = bytes.clone();
            let at = end * step / 24;
            match zero {
                true => damaged[at..(at + 4096).min(end)].fill(0),
                false => damaged[at] ^= 0x55,
            }
            fs::write(journal(copy.path()), damaged).unwrap();
            match reopen(&model, copy.path()) {
                Ok(height) => earlier += u64::from(height < BLOCKS),
                Err(OpenError::State(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(earlier > 0 && refused > 0, "{earlier} opened earlier, {refused} refused");
}

/// Flushes one keyspace and then loses the journal, so that the keyspaces end at different heights.
fn lose_journal_after_flushing(model: &Model, flushed: &str) -> Result<u64, OpenError> {
    let original = stored(model);
    let database = Database::builder(original.path()).worker_threads(1).open().unwrap();
    database.keyspace(flushed, KeyspaceCreateOptions::default).unwrap().rotate_memtable_and_wait().unwrap();
    drop(database);
    let copy = crashed_copy(original.path());
    let journals: Vec<_> = fs::read_dir(copy.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    for path in journals {
        let bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        fs::write(path, &bytes[..end / 2]).unwrap();
    }
    reopen(model, copy.path())
}

#[test]
fn a_state_ahead_of_its_blocks_is_refused_and_blocks_ahead_of_the_state_are_replayed() {
    let model = model();
    let error = lose_journal_after_flushing(&model, "state").unwrap_err();
    assert!(matches!(error, OpenError::State(StateError::BlocksMissing { state: BLOCKS, .. })), "{error}");
    let height = lose_journal_after_flushing(&model, "chain").unwrap();
    assert!(height < BLOCKS);
}

#[test]
fn a_state_that_is_not_the_committed_one_is_found_after_a_crash_and_by_verify() {
    let model = model();
    let original = stored(&model);
    let database = Database::builder(original.path()).worker_threads(1).open().unwrap();
    let state = database.keyspace("state", KeyspaceCreateOptions::default).unwrap();
    let address = model.keys[0].address();
    let forged = AccountInfo { balance: U256::from(1), ..Default::default() };
    state.insert(crate::rows::account_key(&address), crate::rows::account_row(&address, &forged)).unwrap();
    database.persist(fjall::PersistMode::SyncAll).unwrap();
    drop((state, database));

    for _ in 0..2 {
        let copy = crashed_copy(original.path());
        let error = StateStore::open(options(copy.path(), 4), &model.genesis).unwrap_err();
        assert!(
            matches!(error, OpenError::State(StateError::DigestMismatch { height: BLOCKS, .. })),
            "{error}"
        );
        // The refusal is not forgotten by the next start.
        let again = StateStore::open(options(copy.path(), 4), &model.genesis).unwrap_err();
        assert!(matches!(again, OpenError::State(StateError::DigestMismatch { .. })), "{again}");
    }
    let store = StateStore::open(options(original.path(), 4), &model.genesis).unwrap();
    assert!(matches!(store.verify(), Err(StateError::DigestMismatch { .. })));
}

const FULL_DISK: &str = "TANDEM_TEST_FULL_DISK";

/// The body of the test below, in a process whose files may not grow beyond a limit.
#[test]
#[ignore = "run by the test below"]
fn in_a_process_with_a_file_size_limit() {
    let Some(path) = std::env::var_os(FULL_DISK) else { return };
    let mut model = Model::new(1);
    let store = StateStore::open(options(Path::new(&path), 4), &model.genesis).unwrap();
    let failed = (1..200u64).find_map(|n| {
        let slots: Vec<_> = (0..5_000)
            .map(|slot| {
                let key = U256::from_be_bytes(crypto::hash(&(n * 10_000 + slot).to_le_bytes()).0);
                ((Address::repeat_byte(1), key), key)
            })
            .collect();
        model.change(&[], &slots);
        model.states.remove(0);
        model.commit_to(&store, n).err().map(|error| (n, error))
    });
    let (height, error) = failed.expect("the limit is reached");
    assert!(matches!(error, StateError::Database { .. }), "{error}");
    // Reads go on at the last good block; writes do not.
    assert_eq!(store.head().height, height - 1);
    assert_eq!(store.view().storage(Address::repeat_byte(1), U256::from(3)).unwrap(), U256::ZERO);
    assert!(matches!(model.commit_to(&store, height), Err(StateError::Poisoned(_))));
    println!("poisoned at {height}");
}

#[test]
#[cfg(unix)]
fn a_full_disk_is_a_typed_error_that_poisons_and_a_restart_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let test = "tests::crash::in_a_process_with_a_file_size_limit";
    // A file size limit stands in for a full disk: writes fail, and the signal that would kill is ignored. The
    // unit is 512 bytes; the journal is preallocated with 64 MiB, the limit lies a little above.
    let script = "trap '' XFSZ; ulimit -f 140000; exec \"$0\" --ignored --exact \"$1\" --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(FULL_DISK, directory.path())
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let height: u64 =
        text.split("poisoned at ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(height > 1, "{text}");

    let store = StateStore::open(options(directory.path(), 4), &Model::new(1).genesis).unwrap();
    assert!(store.head().height >= height - 1, "{} < {height}", store.head().height);
    store.verify().unwrap();
}
