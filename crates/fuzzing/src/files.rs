//! Files of an operator: genesis, settings, a journal that a disk damaged.

use crate::lab::{Lab, OTHERS, view};
use crate::reader::Reader;
use consensus::{Disk, Record, Recovered, SignState};
use journal::{Journal, Options};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use types::{B256, Genesis, Height, decode};

/// A genesis file. What is accepted has a set of validators, and reads back as itself.
pub fn genesis(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(genesis) = Genesis::parse(text) else { return };
    let set = genesis.validator_set().unwrap();
    assert!(set.is_quorum(set.total()));
    let again = Genesis::parse(&serde_json::to_string(&genesis).unwrap()).unwrap();
    assert_eq!((again.hash(), &again), (genesis.hash(), &genesis));
    let _ = (execution::Rules::from_genesis(&genesis), genesis.seed());
}

/// The settings of either process; the first byte says whose. What is accepted reads back as itself.
pub fn config(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(body) else { return };
    if kind % 2 == 0 {
        if let Ok(config) = consensus_node::Config::parse(text, Path::new("/node")) {
            let again = toml::to_string(&config).unwrap();
            assert_eq!(consensus_node::Config::parse(&again, Path::new("/other")).unwrap(), config);
        }
    } else if let Ok(config) = execution_node::Config::parse(text) {
        let again = toml::to_string(&config).unwrap();
        assert_eq!(execution_node::Config::parse(&again).unwrap(), config);
    }
}

const GENESIS: B256 = crate::lab::GENESIS;
/// Small segments: a run makes a journal or opens one.
pub const SMALL: Options = Options { block_segment_bytes: 64 << 10 };

/// A journal with a few segments, as its files.
struct Written {
    files: Vec<(PathBuf, Vec<u8>)>,
    recovered: Recovered,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open_with(dir.path(), GENESIS, SMALL).unwrap();
    let mut lab = Lab::new();
    let mut qc = None;
    for number in 1..=6 {
        let block = lab.block(number, qc.as_ref(), None, &[number as u8; 20 << 10]);
        let (height, block_hash) = (Height::new(number), block.header.hash());
        qc = Some(lab.qc(&block, &OTHERS));
        let commit = lab.commit_qc(&block, &OTHERS);
        let mut state = lab.me().sign_state().clone();
        state.view = view(number);
        let votes = [Record::Block(Arc::new(block)), Record::SignState(Box::new(state))];
        journal.persist(&votes).unwrap();
        if number <= 4 {
            journal.persist(&[Record::Commit(commit), Record::Finalized { height, block_hash }]).unwrap();
        }
    }
    drop(journal);
    let (_, recovered) = Journal::open_with(dir.path(), GENESIS, SMALL).unwrap();
    let paths = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.file_name().is_some_and(|name| name != "LOCK"))
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    Written { files, recovered }
});

/// A journal whose files were changed. It opens and shows nothing that was not written, or refuses; opened twice it
/// says the same; and a single damaged byte never makes it show less than was acknowledged without saying so.
pub fn journal(bytes: &[u8]) {
    let written = &*WRITTEN;
    let dir = TempDir::new().unwrap();
    for (name, content) in &written.files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let mut reader = Reader::new(bytes);
    let mut edits = 0;
    while !reader.is_empty() && edits < 16 {
        let (name, content) = &written.files[reader.below(written.files.len())];
        damage(&mut reader, &dir.path().join(name), content);
        edits += 1;
    }
    let Ok((journal, recovered)) = Journal::open_with(dir.path(), GENESIS, SMALL) else { return };
    let _ = journal.check();
    let _ = journal.stats();
    assert!(
        recovered.finalized.map(|(height, _)| height)
            <= written.recovered.finalized.map(|(height, _)| height)
    );
    assert!(view_of(&recovered) <= view_of(&written.recovered));
    assert!(recovered.blocks.iter().all(|block| block.header.height <= Height::new(6)));
    drop(journal);
    let again = Journal::open_with(dir.path(), GENESIS, SMALL).map(|(_, recovered)| recovered);
    assert_eq!(again.unwrap(), recovered);
}

fn view_of(recovered: &Recovered) -> Option<u64> {
    recovered.sign_state.as_ref().map(|state: &SignState| state.view.get())
}

/// One of: a byte changed, a page zeroed, the end cut off, bytes of elsewhere copied here, the file gone.
fn damage(reader: &mut Reader<'_>, path: &Path, content: &[u8]) {
    if !path.exists() || content.is_empty() {
        return;
    }
    let (what, at) = (reader.below(6), usize::from(reader.word()) * 64 % content.len());
    let file = || fs::OpenOptions::new().write(true).open(path).unwrap();
    match what {
        0 | 1 => {
            let at = (at + usize::from(reader.byte())) % content.len();
            file().write_all_at(&[content[at] ^ reader.byte()], at as u64).unwrap();
        }
        2 => file().write_all_at(&vec![0; (content.len() - at).min(512)], at as u64).unwrap(),
        3 => file().set_len(at as u64).unwrap(),
        4 => {
            let from = usize::from(reader.word()) * 64 % content.len();
            let length = (content.len() - from.max(at)).min(4096);
            file().write_all_at(&content[from..from + length], at as u64).unwrap();
        }
        _ => fs::remove_file(path).unwrap(),
    }
}

/// A sign-state with everything in it, to start from.
pub fn sign_state() -> Vec<u8> {
    let mut lab = Lab::new();
    let block = lab.block(1, None, None, b"x");
    lab.propose(&block);
    lab.pass(10_000);
    let bytes = types::encode(lab.me().sign_state());
    assert!(decode::<SignState>(&bytes).is_ok_and(|state| state.last_prepare.is_some()));
    bytes
}
