//! `tandem keys protection`: what restrains a stopped node's key from signing, moved to another machine or lifted by its
//! operator. Import only ever raises; nothing here makes a node sign what it would have refused before (C-7.6).

use crate::error::{CliError, CliResult};
use crate::node_file::NodeFile;
use crate::{files, genesis};
use consensus::{Floor, Restraint};
use crypto::PublicKey;
use journal::{Journal, JournalError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use types::{B256, Epoch, View};

/// Version of the interchange format.
const FORMAT_VERSION: &str = "1";

/// Bytes of a protection file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Subcommands of `tandem keys protection`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what keeps a stopped node's key from signing.
    #[command(
        after_help = "Example:\n  tandem keys protection status --dir node\n\nExit codes: 0 shown, 1 not readable (no \
        journal, in use), 2 wrong usage"
    )]
    Status(Node),
    /// Write how far the node's key has signed, for import where the key goes next. Stop the node for good first.
    #[command(
        after_help = "Example:\n  tandem keys protection export --dir node --out protection.json\n\nExit codes: 0 \
        written, 1 refused, 2 wrong usage"
    )]
    Export {
        #[command(flatten)]
        node: Node,
        /// Where to write the file. An existing file is never replaced.
        #[arg(long, default_value = "protection.json")]
        out: PathBuf,
    },
    /// Make a stopped node refuse to sign at or below what a file says. Only raises; repeating it changes nothing.
    #[command(
        after_help = "Example:\n  tandem keys protection import --dir node protection.json\n\nExit codes: 0 imported, 1 \
        refused (another chain, damaged file, node running), 2 wrong usage"
    )]
    Import {
        #[command(flatten)]
        node: Node,
        /// The file.
        file: PathBuf,
    },
    /// Say that a copied or restored directory is the only one with its key, now and in future, so that it may sign.
    #[command(
        after_help = "Example:\n  tandem keys protection accept --dir node\n\nTwo nodes that sign with one key are \
        slashed. Let the node follow the chain first: it learns from certificates what its key signed since.\n\nExit \
        codes: 0 accepted, 1 refused, 2 wrong usage"
    )]
    Accept(Node),
    /// Say that the cause of an alarm is gone, so that the node may sign again.
    #[command(
        name = "clear-alarm",
        after_help = "Example:\n  tandem keys protection clear-alarm --dir node\n\nExit codes: 0 cleared, or there was \
        none; 1 refused, 2 wrong usage"
    )]
    ClearAlarm(Node),
}

/// Which node.
#[derive(Debug, clap::Args)]
pub struct Node {
    /// The node's directory, with its node.toml. The node must be stopped.
    #[arg(long, default_value = "node")]
    dir: PathBuf,
}

/// The file, in the manner of EIP-3076. Numbers are decimal strings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interchange {
    metadata: Metadata,
    data: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    interchange_format_version: String,
    chain_id: Decimal,
    genesis_hash: B256,
}

/// How far one key has signed in its last epoch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    pubkey: PublicKey,
    epoch: Decimal,
    last_source: Decimal,
    last_target: Decimal,
    last_commit: Decimal,
    last_timeout: Decimal,
    last_proposal: Decimal,
    lock_view: Decimal,
}

/// A number as a decimal string: JSON readers may round bigger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal(u64);

impl Serialize for Decimal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as Deserialize>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl Entry {
    fn new(pubkey: PublicKey, floor: &Floor) -> Self {
        let Floor { epoch, source, target, commit, timeout, proposal, lock } = *floor;
        let [last_source, last_target, last_commit, last_timeout, last_proposal, lock_view] =
            [source, target, commit, timeout, proposal, lock].map(|view| Decimal(view.get()));
        let epoch = Decimal(epoch.get());
        Self { pubkey, epoch, last_source, last_target, last_commit, last_timeout, last_proposal, lock_view }
    }

    fn floor(&self) -> Floor {
        let view = |number: Decimal| View::new(number.0);
        Floor {
            epoch: Epoch::new(self.epoch.0),
            source: view(self.last_source),
            target: view(self.last_target),
            commit: view(self.last_commit),
            timeout: view(self.last_timeout),
            proposal: view(self.last_proposal),
            lock: view(self.lock_view),
        }
    }
}

/// Runs `tandem keys protection`.
pub fn run(command: &Command) -> CliResult {
    match command {
        Command::Status(node) => status(&Stopped::open(node)?),
        Command::Export { node, out } => export(&Stopped::open(node)?, out),
        Command::Import { node, file } => import(Stopped::open(node)?, file),
        Command::Accept(node) => accept(Stopped::open(node)?),
        Command::ClearAlarm(node) => clear_alarm(Stopped::open(node)?),
    }
}

/// A node that does not run, and cannot be started meanwhile: the journal's lock is held.
struct Stopped {
    journal: Journal,
    /// What its own sign-state shows.
    own: Option<Floor>,
    key: Option<PublicKey>,
    chain_id: u64,
    genesis_hash: B256,
}

impl Stopped {
    fn open(node: &Node) -> CliResult<Self> {
        let path = node.dir.join("node.toml");
        let config = NodeFile::load(&path)?.into_consensus(&path)?;
        let chain = genesis::load(&config.genesis)?;
        let genesis_hash = chain.hash();
        // A directory without a journal gets one: whoever moves a key imports before the first start.
        let (journal, recovered) = Journal::open(config.journal_dir(), genesis_hash).map_err(failed)?;
        let key = config.key_file.as_deref().map(consensus_node::public_key_of).transpose();
        let key = key.map_err(|error| CliError::new(error.to_string()))?;
        let own = recovered.sign_state.as_ref().map(Floor::of);
        Ok(Self { journal, own, key, chain_id: chain.config.chain_id, genesis_hash })
    }

    /// How far each key has signed, the own sign-state included.
    fn floors(&self) -> Restraint {
        let mut restraint = self.journal.restraint();
        if let (Some(key), Some(own)) = (self.key, self.own) {
            restraint.tighten(&Restraint::floor(key, own));
        }
        restraint
    }
}

fn status(node: &Stopped) -> CliResult {
    let restraint = node.floors();
    match &restraint.alarm {
        Some(alarm) => println!("ALARM: {alarm}\n  cleared by: tandem keys protection clear-alarm"),
        None => println!("no alarm"),
    }
    match &restraint.copied {
        Some(copied) => println!("COPIED: {}\n  accepted by: tandem keys protection accept", copied.what),
        None => println!("the directory is where it was made or accepted"),
    }
    for (key, floor) in &restraint.floors {
        let Floor { epoch, source, target, commit, timeout, proposal, lock } = floor;
        println!(
            "{key}: epoch {epoch}: prepared {source} -> {target}, committed {commit}, given up {timeout}, proposed \
             {proposal}, locked on {lock}"
        );
    }
    Ok(())
}

fn export(node: &Stopped, out: &Path) -> CliResult {
    let floors = node.floors().floors;
    if floors.is_empty() {
        return Err(CliError::new(
            "this node has never signed anything and imported nothing: nothing to export",
        ));
    }
    let metadata = Metadata {
        interchange_format_version: FORMAT_VERSION.into(),
        chain_id: Decimal(node.chain_id),
        genesis_hash: node.genesis_hash,
    };
    let data: Vec<Entry> = floors.iter().map(|(key, floor)| Entry::new(*key, floor)).collect();
    let count = data.len();
    let json = serde_json::to_string_pretty(&Interchange { metadata, data })
        .map_err(CliError::while_trying("write JSON"))?;
    files::write_new(out, (json + "\n").as_bytes(), 0o600)?;
    println!("{} written: {count} keys. From now on this node must not run with them.", out.display());
    Ok(())
}

fn import(mut node: Stopped, file: &Path) -> CliResult {
    let floors = read(file, node.chain_id, node.genesis_hash)?;
    let before = node.journal.restraint();
    node.journal.raise_floors(&floors).map_err(failed)?;
    let after = node.journal.restraint();
    let keys: std::collections::BTreeSet<PublicKey> = floors.iter().map(|(key, _)| *key).collect();
    let raised = keys.iter().filter(|key| before.floor_of(key) != after.floor_of(key)).count();
    println!("{} keys read, {raised} raised; nothing was lowered", keys.len());
    if node.key.is_some_and(|key| !keys.contains(&key)) {
        println!("note: the file says nothing of this node's own key");
    }
    Ok(())
}

fn read(file: &Path, chain_id: u64, genesis_hash: B256) -> CliResult<Vec<(PublicKey, Floor)>> {
    let refuse =
        |problem: String| CliError::new(format!("{}: {problem}; nothing was changed", file.display()));
    let length =
        std::fs::metadata(file).map_err(CliError::while_trying(format!("read {}", file.display())))?.len();
    if length > FILE_BYTES_MAX {
        return Err(refuse(format!("{length} bytes, at most {FILE_BYTES_MAX} are supported")));
    }
    let parsed: Interchange = serde_json::from_str(&files::read_text(file)?)
        .map_err(|error| refuse(format!("no protection file: {error}")))?;
    let Metadata { interchange_format_version: version, chain_id: chain, genesis_hash: genesis } =
        parsed.metadata;
    if version != FORMAT_VERSION {
        return Err(refuse(format!("format version \"{version}\", only \"{FORMAT_VERSION}\" is supported")));
    }
    if (chain.0, genesis) != (chain_id, genesis_hash) {
        return Err(refuse(format!(
            "it is of chain {} with genesis {genesis}, this node is of chain {chain_id} with genesis {genesis_hash}",
            chain.0
        )));
    }
    Ok(parsed.data.iter().map(|entry| (entry.pubkey, entry.floor())).collect())
}

fn accept(mut node: Stopped) -> CliResult {
    let Some(copied) = node.journal.restraint().copied else {
        println!("nothing to accept: the directory is where it was made or accepted");
        return Ok(());
    };
    node.journal.accept_place().map_err(failed)?;
    println!("{}\naccepted: this node signs again. No other copy may run, now or later.", copied.what);
    Ok(())
}

fn clear_alarm(mut node: Stopped) -> CliResult {
    match node.journal.clear_alarm().map_err(failed)? {
        Some(alarm) => println!("cleared: {alarm}"),
        None => println!("there was no alarm"),
    }
    Ok(())
}

fn failed(error: JournalError) -> CliError {
    CliError::new(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crypto::SecretKey;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("protection.json");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn interchange(floors: &[(PublicKey, Floor)]) -> Interchange {
        let metadata = Metadata {
            interchange_format_version: FORMAT_VERSION.into(),
            chain_id: Decimal(7),
            genesis_hash: B256::repeat_byte(1),
        };
        Interchange { metadata, data: floors.iter().map(|(key, floor)| Entry::new(*key, floor)).collect() }
    }

    #[test]
    fn what_is_exported_reads_back_as_it_was_with_numbers_beyond_those_of_json_readers() {
        let floor = Floor {
            epoch: Epoch::new(u64::MAX),
            source: View::new(1),
            target: View::new((1 << 53) + 1),
            commit: View::new(3),
            timeout: View::new(4),
            proposal: View::new(5),
            lock: View::new(6),
        };
        let floors = [(SecretKey::from_seed(&[1; 32]).public_key(), floor)];
        let text = serde_json::to_string(&interchange(&floors)).unwrap();
        assert!(text.contains(r#""last_target":"9007199254740993""#), "{text}");
        let (_dir, path) = file(&text);
        assert_eq!(read(&path, 7, B256::repeat_byte(1)).unwrap(), floors);
    }

    #[test]
    fn another_chain_version_or_shape_is_refused_with_both_sides_named() {
        let good = serde_json::to_string(&interchange(&[])).unwrap();
        let refused = |text: &str, chain_id, genesis| {
            let (_dir, path) = file(text);
            read(&path, chain_id, B256::repeat_byte(genesis)).unwrap_err().to_string()
        };
        let (other_chain, other_genesis) = (refused(&good, 8, 1), refused(&good, 7, 2));
        assert!(other_chain.contains("chain 7") && other_chain.contains("chain 8"), "{other_chain}");
        assert!(other_genesis.contains("0x0101") && other_genesis.contains("0x0202"), "{other_genesis}");
        assert!(refused(&good.replace(r#""1""#, r#""5""#), 7, 1).contains("format version"));
        for text in ["", "{}", "[]", &good.replace("data", "date"), &good.replace(r#""7""#, r#""-7""#)] {
            assert!(refused(text, 7, 1).contains("no protection file"), "{text}");
        }
    }
}
