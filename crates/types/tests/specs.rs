//! The specs and the code name each other truly: every rule the code cites exists, every test a spec cites exists,
//! and every hash context of a frozen format stands in a spec.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new("../..").to_owned()
}

fn spec(name: &str) -> String {
    fs::read_to_string(root().join("specs").join(name)).unwrap()
}

/// All Rust sources of the workspace, this file excepted.
fn sources() -> Vec<(PathBuf, String)> {
    let (mut folders, mut found) = (vec![root().join("crates")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("types/tests/specs.rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// The rule numbers a text cites: `prefix` and digits, with one optional sub-number.
fn cited(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let inside_a_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
        let rest = &text[at + prefix.len()..];
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if inside_a_word || number.is_empty() {
            continue;
        }
        let sub = rest[number.len()..].strip_prefix('.').unwrap_or_default();
        let sub: String = sub.chars().take_while(char::is_ascii_digit).collect();
        rules.insert(if sub.is_empty() { number } else { format!("{number}.{sub}") });
    }
    rules
}

#[test]
fn every_rule_the_code_cites_exists() {
    let specs = [
        ("C-", spec("consensus.md")),
        ("B-", spec("block.md")),
        ("S-", spec("state_hash.md")),
        ("EA-", spec("engine_api.md")),
    ];
    let mut citations = 0;
    for (path, text) in sources() {
        for (prefix, spec) in &specs {
            for rule in cited(&text, prefix) {
                let heading = spec.contains(&format!("## {prefix}{rule} "));
                let paragraph = spec.contains(&format!("**{prefix}{rule}"));
                assert!(heading || paragraph, "{} cites {prefix}{rule}, which is in no spec", path.display());
                citations += 1;
            }
        }
    }
    assert!(citations > 40, "only {citations} citations found: the search is broken");
}

/// A test's name is a sentence: lower case with at least four underscores. `name…` cites by prefix.
#[test]
fn every_test_the_specs_cite_exists() {
    let sources: String = sources().into_iter().map(|(_, text)| text).collect();
    let mut citations = 0;
    for name in ["consensus.md", "block.md", "state_hash.md", "engine_api.md", "light_client.md"] {
        for quoted in spec(name).split('`').skip(1).step_by(2) {
            let (test, end) = match quoted.strip_suffix('…') {
                Some(prefix) => (prefix, ""),
                None => (quoted, "("),
            };
            let sentence = test.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if sentence && test.matches('_').count() >= 4 {
                assert!(
                    sources.contains(&format!("fn {test}{end}")),
                    "{name} cites {test}, which does not exist"
                );
                citations += 1;
            }
        }
    }
    assert!(citations > 10, "only {citations} citations found: the search is broken");
}

#[test]
fn hash_contexts_of_frozen_formats_are_named_in_the_specs() {
    let specs: String = ["block.md", "state_hash.md"].map(spec).concat();
    let named: BTreeSet<&str> = specs.split('`').filter(|text| text.starts_with("tandem v1 ")).collect();
    let frozen = ["crypto/src", "types/src", "execution/src/lthash.rs"];
    let mut found = BTreeSet::new();
    for (path, text) in sources() {
        let path = path.to_string_lossy().replace('\\', "/");
        if frozen.iter().any(|part| path.contains(part)) {
            found.extend(text.split('"').filter(|t| t.starts_with("tandem v1 ")).map(str::to_owned));
        }
    }
    assert!(found.len() >= 12, "only {found:?} found: the search is broken");
    for context in &found {
        assert!(named.contains(context.as_str()), "`{context}` is in no spec");
    }
}
