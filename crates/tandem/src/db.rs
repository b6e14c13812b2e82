//! `tandem db`: looking at consensus journals while their nodes are stopped.

use crate::error::{CliError, CliResult};
use consensus::{Audit, Conflict, Disk, Recovered, SignState};
use journal::{Journal, JournalError};
use std::path::{Path, PathBuf};
use types::{Block, Height};

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
    /// Compare every vote the journals of one network hold: signatures no honest validator makes together (double
    /// votes, crossing and surround links, forgotten commits) and forks. The nodes must be stopped.
    #[command(
        after_help = "Example:\n  tandem db audit ./devnet/node-*/consensus\n\nExit codes: 0 no conflict, \
        1 not readable (no journal, in use), 2 wrong usage, 3 conflict found"
    )]
    Audit {
        /// Consensus data directories, or the journal directories in them.
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
    },
}

/// Runs `tandem db`.
pub fn run(command: &Command) -> CliResult {
    match command {
        Command::Check { dir } => check(&open(dir)?.0),
        Command::Stats { dir, json } => stats(&open(dir)?.0, *json),
        Command::Audit { dirs } => audit(dirs),
    }
}

fn open(dir: &Path) -> CliResult<(Journal, Recovered)> {
    let journal_dir = if Journal::exists(dir) { dir.to_owned() } else { dir.join("journal") };
    let genesis = Journal::genesis_of(&journal_dir).map_err(failed)?.ok_or_else(|| {
        CliError::new(format!(
            "no journal in {0} or {0}/journal: pass a node's consensus data directory",
            dir.display()
        ))
    })?;
    Journal::open(&journal_dir, genesis).map_err(failed)
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

fn audit(dirs: &[PathBuf]) -> CliResult {
    let (mut audit, mut chain) = (Audit::default(), std::collections::BTreeMap::new());
    for dir in dirs {
        let (journal, recovered) = open(dir)?;
        let conflict = |conflict: Conflict| CliError::problem(format!("{}: {conflict}", dir.display()));
        let state = recovered.sign_state.as_ref();
        state.map_or(Ok(()), |state| audit_own_votes(&mut audit, state)).map_err(conflict)?;
        recovered.blocks.iter().try_for_each(|block| audit.header(&block.header)).map_err(conflict)?;
        recovered.commit.iter().try_for_each(|qc| audit.commit_qc(qc)).map_err(conflict)?;
        let mut height = journal.stats().map_err(failed)?.first_finalized.unwrap_or(Height::ZERO);
        while let Some(stored) =
            journal.finalized(height).map_err(|error| CliError::new(error.to_string()))?
        {
            let Block { header, .. } = &stored.block;
            audit.header(header).map_err(conflict)?;
            stored.commit.iter().try_for_each(|qc| audit.commit_qc(qc)).map_err(conflict)?;
            let (hash, known) = (header.hash(), *chain.entry(height).or_insert_with(|| header.hash()));
            if known != hash {
                let message =
                    format!("{}: FORK at height {height}: {hash}, another node holds {known}", dir.display());
                return Err(CliError::problem(message));
            }
            height = height.next();
        }
    }
    let heights = chain.len();
    println!(
        "{} votes in {} journals over {heights} final heights: no conflict",
        audit.statements(),
        dirs.len()
    );
    Ok(())
}

/// The last votes of the journal's own validator, which need not have reached any certificate.
fn audit_own_votes(audit: &mut Audit, state: &SignState) -> Result<(), Conflict> {
    let epoch = state.epoch;
    if let Some(vote) = &state.last_prepare {
        audit.prepare(epoch, vote.signer, vote.statement)?;
    }
    if let Some(vote) = &state.last_commit {
        audit.commit(epoch, vote.signer, vote.statement)?;
    }
    if let Some(timeout) = &state.last_timeout {
        audit.timeout(epoch, timeout.signed.signer, timeout.signed.statement)?;
    }
    state.lock.iter().chain(&state.high_qc).try_for_each(|qc| audit.qc(qc))
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
