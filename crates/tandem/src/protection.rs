//! `tandem keys protection`: what restrains a stopped node's key from signing, moved to another machine or lifted by its
//! operator. Import only ever raises; nothing here makes a node sign what it would have refused before (C-7.6).

use crate::error::{CliError, CliResult};
use crate::node_file::NodeFile;
use crate::{files, genesis};
use consensus::{Floor, Restraint};
use consensus_node::{PROTECTION_BYTES_MAX, parse_protection, print_protection};
use crypto::PublicKey;
use journal::{Journal, JournalError};
use std::path::{Path, PathBuf};
use types::B256;

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
    let count = floors.len();
    let text = print_protection(&floors, node.chain_id, node.genesis_hash);
    files::write_new(out, text.as_bytes(), 0o600)?;
    println!("{} written: {count} keys. From now on this node must not run with them.", out.display());
    Ok(())
}

fn import(mut node: Stopped, file: &Path) -> CliResult {
    let floors = read(file, node.chain_id, node.genesis_hash)?;
    let before = node.journal.restraint();
    node.journal.raise_floors(&floors).map_err(failed)?;
    let after = node.journal.restraint();
    let raised = floors.iter().filter(|(key, _)| before.floor_of(key) != after.floor_of(key)).count();
    println!("{} keys read, {raised} raised; nothing was lowered", floors.len());
    if node.key.is_some_and(|own| floors.iter().all(|(key, _)| *key != own)) {
        println!("note: the file says nothing of this node's own key");
    }
    Ok(())
}

fn read(file: &Path, chain_id: u64, genesis_hash: B256) -> CliResult<Vec<(PublicKey, Floor)>> {
    // One byte more than may be, so that what is too long is seen to be.
    let text = files::read_text_within(file, PROTECTION_BYTES_MAX as u64 + 1)?;
    parse_protection(&text, chain_id, genesis_hash)
        .map_err(|problem| CliError::new(format!("{}: {problem}; nothing was changed", file.display())))
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
