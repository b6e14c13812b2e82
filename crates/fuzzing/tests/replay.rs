//! The kept corpora and the seeds, through the functions the fuzzers call.
#![allow(clippy::unwrap_used)]

use fuzzing::TARGETS;
use std::fs;
use std::path::{Path, PathBuf};

/// All corpora together stay smaller than this.
const CORPORA_BYTES_MAX: u64 = 2 << 20;

fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../fuzz")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_is_judged_without_breaking_a_rule() {
    for target in TARGETS {
        let inputs = files(&root().join("corpus").join(target.name));
        assert!(!inputs.is_empty(), "{} keeps no corpus", target.name);
        for input in inputs {
            // Shown by the test harness when the next line panics.
            println!("{} {}", target.name, input.display());
            (target.run)(&fs::read(&input).unwrap());
        }
    }
}

#[test]
fn every_well_formed_input_is_judged_without_breaking_a_rule() {
    let seeds = fuzzing::seeds();
    for target in TARGETS {
        let own: Vec<_> = seeds.iter().filter(|(name, _)| *name == target.name).collect();
        assert!(!own.is_empty(), "{} has no seed", target.name);
        for (name, bytes) in own {
            println!("{name} {}", alloy_primitives::hex::encode(&bytes[..bytes.len().min(64)]));
            (target.run)(bytes);
            // Cut and bent at every place, so that this test finds something by itself.
            for at in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
                (target.run)(&bytes[..at]);
                let mut bent = bytes.clone();
                bent[at] ^= 0x11;
                (target.run)(&bent);
            }
        }
    }
}

#[test]
fn the_fuzzers_and_the_corpora_are_those_of_the_targets() {
    let names = |paths: Vec<PathBuf>| -> Vec<String> {
        paths.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    let mut targets: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    targets.sort();
    assert_eq!(names(files(&root().join("fuzz_targets"))), targets);
    assert_eq!(names(files(&root().join("corpus"))), targets);
    let kept = TARGETS.iter().flat_map(|target| files(&root().join("corpus").join(target.name)));
    let bytes: u64 = kept.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes < CORPORA_BYTES_MAX, "{bytes} bytes of corpora");
}
