//! The layering of ARCHITECTURE.md, checked on what Cargo really builds.
#![allow(clippy::unwrap_used)]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};

/// What each of our crates may name of our own. A new crate gets a line here, and a reason in its own documentation.
const ALLOWED: &[(&str, &[&str])] = &[
    ("crypto", &[]),
    // Bytes in, bytes out: it knows no curve and no chain.
    ("keystore", &[]),
    ("types", &["crypto"]),
    ("consensus", &["crypto", "types"]),
    ("journal", &["crypto", "types", "consensus"]),
    ("net", &["crypto", "types"]),
    ("engine-api", &["crypto", "types"]),
    ("staking", &["crypto", "types"]),
    ("execution", &["crypto", "types", "staking"]),
    ("light-client", &["crypto", "types"]),
    ("txpool", &["crypto", "types", "execution"]),
    ("state", &["crypto", "types", "execution"]),
    ("consensus-node", &["crypto", "keystore", "types", "consensus", "journal", "net", "engine-api"]),
    ("execution-node", &["crypto", "types", "execution", "txpool", "state", "net", "engine-api"]),
    ("model", &["crypto", "types", "consensus"]),
    ("sim", &["crypto", "types", "consensus", "journal"]),
    // No part of a node: makes blocks for tests and benchmarks of execution.
    ("workloads", &["crypto", "types", "staking", "execution"]),
    // No part of a node: Ethereum's state tests.
    ("statetests", &["types", "execution"]),
    // No part of a node: calls every decoder there is.
    (
        "fuzzing",
        &[
            "crypto",
            "types",
            "consensus",
            "journal",
            "keystore",
            "light-client",
            "net",
            "engine-api",
            "execution",
            "consensus-node",
            "execution-node",
            "sim",
        ],
    ),
    (
        "tandem",
        &[
            "crypto",
            "keystore",
            "types",
            "consensus",
            "light-client",
            "journal",
            "engine-api",
            "consensus-node",
            "execution-node",
            "execution",
            "state",
            "net",
        ],
    ),
];

/// Outside crates, by the beginning of their names, that only the listed ones of ours may name.
const RESERVED: &[(&str, &[&str])] = &[
    ("blst", &["crypto"]),
    ("bls12", &["crypto"]),
    ("scrypt", &["keystore"]),
    ("pbkdf2", &["keystore"]),
    ("aes", &["keystore"]),
    ("ark-", &["crypto"]),
    ("k256", &[]),
    ("p256", &[]),
    ("ed25519", &["net"]),
    ("curve25519", &["net"]),
    // Ethereum accounts, not consensus.
    ("secp256k1", &["execution", "tandem"]),
    ("libp2p", &["net"]),
    ("yamux", &["net"]),
    ("quinn", &["net"]),
    ("tonic", &["engine-api"]),
    ("prost", &["engine-api"]),
    ("fjall", &["state"]),
    ("jsonrpsee", &["execution-node"]),
];

/// Pure crates: no runtime, no clock, no randomness of their own.
const PURE: &[&str] = &["crypto", "types", "consensus", "light-client", "staking", "execution", "txpool"];
const IMPURE: &[&str] = &["tokio", "async-std", "futures", "rand", "mio", "tracing-subscriber", "chrono"];

fn workspace() -> Metadata {
    MetadataCommand::new().manifest_path("Cargo.toml").no_deps().exec().unwrap()
}

/// Names of a package's dependencies, those of its tests left out.
fn dependencies(package: &Package) -> BTreeSet<&str> {
    let shipped =
        package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    shipped.map(|dependency| dependency.name.as_str()).collect()
}

#[test]
fn every_crate_names_only_crates_of_lower_layers() {
    let metadata = workspace();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let own: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let Some(allowed) = allowed.get(name) else { panic!("crate {name} has no place in the layering") };
        for dependency in dependencies(package).intersection(&own) {
            assert!(allowed.contains(dependency), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn the_allowed_dependencies_have_no_cycle() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    while settled.len() < allowed.len() {
        let next = allowed.iter().find(|(name, below)| {
            !settled.contains(*name) && below.iter().all(|dependency| settled.contains(dependency))
        });
        settled.insert(next.expect("a crate whose dependencies are all settled").0);
    }
}

#[test]
fn reserved_libraries_are_named_by_their_owners_only() {
    for package in &workspace().packages {
        for dependency in dependencies(package) {
            for (prefix, owners) in RESERVED.iter().filter(|(prefix, _)| dependency.starts_with(prefix)) {
                let name = package.name.as_str();
                assert!(
                    owners.contains(&name),
                    "{name} names {dependency}; {prefix}* is reserved for {owners:?}"
                );
            }
        }
    }
}

#[test]
fn pure_crates_know_no_runtime_no_clock_and_no_randomness() {
    for package in workspace().packages.iter().filter(|package| PURE.contains(&package.name.as_str())) {
        for dependency in dependencies(package) {
            assert!(!IMPURE.contains(&dependency), "{} is pure and must not name {dependency}", package.name);
        }
    }
}

#[test]
fn every_crate_forbids_unsafe_code() {
    for package in &workspace().packages {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} must inherit the workspace's lints",
            package.name
        );
    }
}
