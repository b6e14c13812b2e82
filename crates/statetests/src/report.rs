//! What a suite came to.

use crate::{Failure, Passed, Skip, Verdict, suite::Entry};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

/// Width of the column of folder names.
const FOLDER_WIDTH_MAX: usize = 48;

/// Counts of one folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderTally {
    /// Cases whose state and logs are the expected ones.
    pub executed: u64,
    /// Cases whose transaction was refused, as expected.
    pub refused: u64,
    /// Of these, those refused for another reason than the fixture names.
    pub other_reason: u64,
    /// Of those executed, the ones that no payload has room for, and so were not replayed.
    pub not_replayed: u64,
    /// Of those executed, the ones whose state includes Ethereum's beacon root.
    pub beacon_root: u64,
    /// Cases, and unreadable files, that failed.
    pub failed: u64,
    /// Cases that are no tests of this chain, by reason.
    pub skipped: BTreeMap<Skip, u64>,
}

impl FolderTally {
    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed(Passed::Executed { beacon_root, replayed, .. }) => {
                self.executed += 1;
                self.not_replayed += u64::from(!replayed);
                self.beacon_root += u64::from(*beacon_root);
            }
            Verdict::Passed(Passed::Refused { same_reason, .. }) => {
                self.refused += 1;
                self.other_reason += u64::from(!same_reason);
            }
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(skip) => *self.skipped.entry(skip.clone()).or_default() += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.executed += other.executed;
        self.refused += other.refused;
        self.other_reason += other.other_reason;
        self.beacon_root += other.beacon_root;
        self.not_replayed += other.not_replayed;
        self.failed += other.failed;
        for (skip, count) in &other.skipped {
            *self.skipped.entry(skip.clone()).or_default() += count;
        }
    }

    /// Cases that did what they must.
    pub fn passed(&self) -> u64 {
        self.executed + self.refused
    }

    /// Cases that ran.
    pub fn ran(&self) -> u64 {
        self.passed() + self.failed
    }

    fn skipped_in_all(&self) -> u64 {
        self.skipped.values().sum()
    }
}

/// Every case of a suite with its verdict.
#[derive(Clone, Debug)]
pub struct Report {
    entries: Vec<Entry>,
    folders: BTreeMap<String, FolderTally>,
    total: FolderTally,
}

impl Report {
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        let mut folders: BTreeMap<String, FolderTally> = BTreeMap::new();
        for entry in &entries {
            folders.entry(entry.folder.clone()).or_default().count(&entry.verdict);
        }
        let mut total = FolderTally::default();
        folders.values().for_each(|tally| total.add(tally));
        Self { entries, folders, total }
    }

    /// Counts of the whole suite.
    pub fn total(&self) -> &FolderTally {
        &self.total
    }

    /// Counts by top folder.
    pub fn folders(&self) -> &BTreeMap<String, FolderTally> {
        &self.folders
    }

    /// Whether something ran and nothing failed.
    pub fn succeeded(&self) -> bool {
        self.total.failed == 0 && self.total.passed() > 0
    }

    /// What failed.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.entries.iter().filter_map(|entry| match &entry.verdict {
            Verdict::Failed(failure) => Some((entry.case.as_str(), failure)),
            _ => None,
        })
    }

    /// Every case, or unreadable file, with its verdict.
    pub fn verdicts(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        self.entries.iter().map(|entry| (entry.case.as_str(), &entry.verdict))
    }

    /// The report for a terminal, with the first `failures` failures.
    pub fn summary(&self, failures: usize) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_summary(&mut text, failures);
        text
    }

    fn write_summary(&self, text: &mut String, failures: usize) -> fmt::Result {
        let longest = self.folders.keys().map(String::len).max().unwrap_or_default();
        let width = longest.clamp("folder".len(), FOLDER_WIDTH_MAX);
        writeln!(text, "{:width$}  {:>8} {:>8} {:>8}", "folder", "passed", "failed", "skipped")?;
        let rows = self.folders.iter().map(|(folder, tally)| (folder.as_str(), tally));
        for (folder, tally) in rows.chain([("all", &self.total)]) {
            let (passed, failed, skipped) = (tally.passed(), tally.failed, tally.skipped_in_all());
            writeln!(text, "{folder:width$}  {passed:>8} {failed:>8} {skipped:>8}")?;
        }
        writeln!(
            text,
            "\npassed: {} executed, {} refused as expected",
            self.total.executed, self.total.refused
        )?;
        let (beacon, other) = (self.total.beacon_root, self.total.other_reason);
        if self.total.not_replayed > 0 {
            let count = self.total.not_replayed;
            writeln!(
                text,
                "        {count} of these not replayed: they touch more than a payload can declare"
            )?;
        }
        if beacon > 0 {
            writeln!(
                text,
                "        {beacon} of these on a state with the beacon root of a block of Ethereum"
            )?;
        }
        if other > 0 {
            writeln!(
                text,
                "        {other} of these refused for another reason than the fixture names (see --json)"
            )?;
        }
        for (skip, count) in &self.total.skipped {
            writeln!(text, "skipped: {count:>8}  {skip}")?;
        }
        self.write_failures(text, failures)
    }

    fn write_failures(&self, text: &mut String, most: usize) -> fmt::Result {
        for (case, failure) in self.failures().take(most) {
            writeln!(text, "\nFAILED {case}\n    {failure}\n    again: --filter '{case}'")?;
        }
        let hidden = self.failures().count().saturating_sub(most);
        if hidden > 0 {
            writeln!(
                text,
                "\n{hidden} more failures (--failures {}, or --json FILE for all)",
                most + hidden
            )?;
        }
        Ok(())
    }

    /// Everything, for programs.
    pub fn to_json(&self) -> Value {
        let folders: BTreeMap<&String, Value> =
            self.folders.iter().map(|(folder, tally)| (folder, tally_json(tally))).collect();
        let cases: Vec<Value> =
            self.entries.iter().map(|entry| verdict_json(&entry.case, &entry.verdict)).collect();
        json!({ "total": tally_json(&self.total), "folders": folders, "cases": cases })
    }
}

fn tally_json(tally: &FolderTally) -> Value {
    let skipped: BTreeMap<String, u64> =
        tally.skipped.iter().map(|(skip, count)| (skip.to_string(), *count)).collect();
    json!({
        "passed": tally.passed(),
        "executed": tally.executed,
        "executed_with_beacon_root": tally.beacon_root,
        "executed_but_not_replayed": tally.not_replayed,
        "refused": tally.refused,
        "refused_for_another_reason": tally.other_reason,
        "failed": tally.failed,
        "skipped": skipped,
    })
}

fn verdict_json(case: &str, verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Passed(Passed::Executed { gas_used, succeeded, replayed, beacon_root }) => {
            json!({
                "case": case, "verdict": "passed", "gas_used": gas_used, "succeeded": succeeded,
                "replayed": replayed, "beacon_root": beacon_root,
            })
        }
        Verdict::Passed(Passed::Refused { reason, same_reason }) => {
            json!({ "case": case, "verdict": "passed", "refused": reason, "same_reason": same_reason })
        }
        Verdict::Skipped(skip) => json!({ "case": case, "verdict": "skipped", "reason": skip.to_string() }),
        Verdict::Failed(failure) => {
            json!({ "case": case, "verdict": "failed", "reason": failure.to_string() })
        }
    }
}
