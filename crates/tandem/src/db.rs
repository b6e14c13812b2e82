//! `tandem db`: looking at a node's consensus journal while the node is stopped.

use crate::error::{CliError, CliResult};
use journal::{Journal, JournalError};
use std::path::{Path, PathBuf};

/// Subcommands of `tandem db`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read everything and verify all checksums. The node must be stopped.
    #[command(
        after_help = "Example:\n  tandem db check ./devnet/node-0/consensus\n\nExit codes: 0 all checksums match, \
        1 not readable (no journal, in use), 2 wrong usage, 3 damage found"
    )]
    Check {
        /// The consensus data directory, or the journal directory in it.
        dir: PathBuf,
    },
    /// Sizes and counts. The node must be stopped.
    #[command(
        after_help = "Example:\n  tandem db stats ./devnet/node-0/consensus\n\nExit codes: 0 shown, 1 not readable \
        (no journal, in use), 2 wrong usage, 3 damage found"
    )]
    Stats {
        /// The consensus data directory, or the journal directory in it.
        dir: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Runs `tandem db`.
pub fn run(command: &Command) -> CliResult {
    match command {
        Command::Check { dir } => check(&open(dir)?),
        Command::Stats { dir, json } => stats(&open(dir)?, *json),
    }
}

fn open(dir: &Path) -> CliResult<Journal> {
    let journal_dir = if Journal::exists(dir) { dir.to_owned() } else { dir.join("journal") };
    let genesis = Journal::genesis_of(&journal_dir).map_err(failed)?.ok_or_else(|| {
        CliError::new(format!(
            "no journal in {0} or {0}/journal: pass a node's consensus data directory",
            dir.display()
        ))
    })?;
    Journal::open(&journal_dir, genesis).map(|(journal, _)| journal).map_err(failed)
}

fn check(journal: &Journal) -> CliResult {
    let report = journal.check().map_err(failed)?;
    println!("{} records, {} bytes verified", report.records, report.bytes);
    if report.damaged_copies > 0 {
        println!(
            "{} copies of sign-states were damaged; their twins are intact and in use",
            report.damaged_copies
        );
    }
    for problem in &report.problems {
        println!("PROBLEM: {problem}");
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(CliError::problem(format!("{count} problems found"))),
    }
}

fn stats(journal: &Journal, json: bool) -> CliResult {
    let stats = journal.stats().map_err(failed)?;
    let height = |height: Option<types::Height>| height.map_or(serde_json::Value::Null, |h| h.get().into());
    let values = serde_json::json!({
        "first_finalized": height(stats.first_finalized),
        "finalized": height(stats.finalized),
        "blocks": stats.blocks,
        "commits": stats.commits,
        "sign_states": stats.sign_states,
        "segments": stats.segments,
        "bytes_used": stats.bytes_used,
        "bytes_reserved": stats.bytes_reserved,
    });
    if json {
        println!("{values}");
    } else {
        for (name, value) in values.as_object().into_iter().flatten() {
            println!("{:<16} {value}", name.replace('_', " "));
        }
    }
    Ok(())
}

/// Damage is a finding; everything else is in the way.
fn failed(error: JournalError) -> CliError {
    match error {
        JournalError::Io { .. } | JournalError::Locked { .. } | JournalError::Version { .. } => {
            CliError::new(error.to_string())
        }
        _ => CliError::problem(error.to_string()),
    }
}
