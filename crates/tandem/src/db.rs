//! `tandem db`: looking at consensus journals while their nodes are stopped.

use crate::error::{CliError, CliResult};
use crate::evidence::EvidenceFile;
use consensus::audit::header_witnesses;
use consensus::{Audit, Disk, Recovered, SignState};
use journal::{Journal, JournalError};
use std::path::{Path, PathBuf};
use types::{Evidence, Height, Witness};

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
        /// Write the evidence against everybody found guilty, and what the journals hold of it, into this directory;
        /// `tandem evidence verify` checks the files.
        #[arg(long, value_name = "DIR")]
        evidence: Option<PathBuf>,
    },
}

/// Runs `tandem db`.
pub fn run(command: &Command) -> CliResult {
    match command {
        Command::Check { dir } => check(&open(dir)?.0),
        Command::Stats { dir, json } => stats(&open(dir)?.0, *json),
        Command::Audit { dirs, evidence } => audit(dirs, evidence.as_deref()),
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

/// Conflicts shown; a validator that signs everything makes many.
const CONFLICTS_SHOWN_MAX: usize = 64;

/// What the journals say together.
#[derive(Default)]
struct Findings {
    audit: Audit,
    chain: std::collections::BTreeMap<Height, types::B256>,
    conflicts: Vec<String>,
    /// One piece per offender.
    evidence: std::collections::BTreeMap<(types::Epoch, types::ValidatorIndex), Evidence>,
    genesis_hash: Option<types::B256>,
    chain_id: Option<u64>,
}

fn audit(dirs: &[PathBuf], evidence_dir: Option<&Path>) -> CliResult {
    let mut found = Findings::default();
    for dir in dirs {
        found.read(dir)?;
    }
    if let Some(into) = evidence_dir {
        for evidence in found.evidence.values() {
            let file = EvidenceFile::of(evidence, found.chain_id, found.genesis_hash);
            println!("{} against {:?}: {}", file.offence, file.offenders, file.write_into(into)?.display());
        }
    }
    let (votes, heights) = (found.audit.statements(), found.chain.len());
    if found.conflicts.is_empty() {
        println!("{votes} votes in {} journals over {heights} final heights: no conflict", dirs.len());
        return Ok(());
    }
    found.conflicts.iter().take(CONFLICTS_SHOWN_MAX).for_each(|conflict| println!("{conflict}"));
    let (conflicts, guilty) = (found.conflicts.len(), found.evidence.len());
    Err(CliError::problem(format!(
        "{conflicts} conflicts in {votes} votes over {heights} final heights; evidence against {guilty} validators"
    )))
}

impl Findings {
    fn read(&mut self, dir: &Path) -> CliResult {
        let (journal, recovered) = open(dir)?;
        self.genesis_hash = journal_genesis(dir)?.or(self.genesis_hash);
        for (epoch, witness) in own_votes(recovered.sign_state.as_ref()) {
            self.add(dir, epoch, witness);
        }
        recovered.blocks.iter().for_each(|block| self.header(dir, &block.header));
        recovered.commit.iter().for_each(|qc| self.add(dir, qc.epoch, qc.into()));
        for stored in recovered.evidence {
            self.keep(stored.evidence);
        }
        let mut height = journal.stats().map_err(failed)?.first_finalized.unwrap_or(Height::ZERO);
        while let Some(stored) =
            journal.finalized(height).map_err(|error| CliError::new(error.to_string()))?
        {
            self.header(dir, &stored.block.header);
            stored.commit.iter().for_each(|qc| self.add(dir, qc.epoch, qc.into()));
            let hash = stored.block.header.hash();
            let known = *self.chain.entry(height).or_insert(hash);
            if known != hash {
                let fork = format!("FORK at height {height}: {hash}, another node holds {known}");
                self.conflicts.push(format!("{}: {fork}", dir.display()));
            }
            height = height.next();
        }
        Ok(())
    }

    fn header(&mut self, dir: &Path, header: &types::Header) {
        self.chain_id = Some(header.chain_id);
        for (epoch, witness) in header_witnesses(header) {
            self.add(dir, epoch, witness);
        }
    }

    fn add(&mut self, dir: &Path, epoch: types::Epoch, witness: Witness) {
        for conflict in self.audit.witness(epoch, witness) {
            self.conflicts.push(format!("{}: {conflict}", dir.display()));
            if let Some(evidence) = conflict.evidence {
                self.keep(*evidence);
            }
        }
    }

    fn keep(&mut self, evidence: Evidence) {
        for index in evidence.offenders() {
            self.evidence.entry((evidence.epoch(), index)).or_insert_with(|| evidence.clone());
        }
    }
}

fn journal_genesis(dir: &Path) -> CliResult<Option<types::B256>> {
    let journal_dir = if Journal::exists(dir) { dir.to_owned() } else { dir.join("journal") };
    Journal::genesis_of(&journal_dir).map_err(failed)
}

/// The last votes of the journal's own validator, which need not have reached any certificate.
fn own_votes(state: Option<&SignState>) -> Vec<(types::Epoch, Witness)> {
    let Some(state) = state else { return Vec::new() };
    let mut witnesses: Vec<Witness> = Vec::new();
    witnesses.extend(state.last_prepare.clone().map(Witness::Prepare));
    witnesses.extend(state.last_commit.clone().map(Witness::Commit));
    witnesses.extend(state.last_timeout.clone().map(|timeout| Witness::Timeout(timeout.signed)));
    witnesses.extend(state.lock.iter().chain(&state.high_qc).map(Witness::from));
    witnesses.into_iter().map(|witness| (state.epoch, witness)).collect()
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
