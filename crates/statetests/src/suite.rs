//! Finds the fixtures of a folder and runs them in parallel.

use crate::{Case, Failure, Fixture, FixtureError, Report, Skip, Verdict, cases, fixture, run};
use rayon::prelude::*;
use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Folders inside folders.
const DEPTH_MAX: usize = 64;

/// Why a suite cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The folder, or one in it, cannot be read.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Folders lie too deep in one another.
    #[error("{}: more than {DEPTH_MAX} folders inside one another", path.display())]
    TooDeep {
        /// The deepest.
        path: PathBuf,
    },
    /// Nothing to run.
    #[error("{}: no JSON file in it", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// Worker threads cannot be started.
    #[error("cannot start {jobs} worker threads: {reason}")]
    Threads {
        /// How many.
        jobs: usize,
        /// What the system said.
        reason: String,
    },
}

/// Is told how far a suite is.
pub trait Progress: Sync {
    /// A file is done: `ran` of its cases ran, `failed` of them failed.
    fn file_done(&self, ran: usize, failed: usize);
}

/// Nobody wants to know.
impl Progress for () {
    fn file_done(&self, _ran: usize, _failed: usize) {}
}

/// Which cases of which files to run.
#[derive(Clone, Debug)]
pub struct Suite {
    root: PathBuf,
    files: Vec<PathBuf>,
    filter: String,
}

/// The verdict on one case, or on a whole file (`case` is its path alone).
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `FILE::TEST::FORK/dNgNvN`.
    pub(crate) case: String,
    /// First folder below the root.
    pub(crate) folder: String,
    pub(crate) verdict: Verdict,
}

impl Suite {
    /// All JSON files below `root`, or `root` itself if it is a file. Hidden files and folders are left out.
    pub fn discover(root: &Path) -> Result<Self, SuiteError> {
        let mut files = Vec::new();
        collect(root, 0, &mut files)?;
        if files.is_empty() {
            return Err(SuiteError::Empty { path: root.into() });
        }
        files.sort_unstable();
        Ok(Self { root: common_folder(root, &files), files, filter: String::new() })
    }

    /// Runs only cases whose name contains `filter`.
    #[must_use]
    pub fn filtered(self, filter: impl Into<String>) -> Self {
        Self { filter: filter.into(), ..self }
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Runs everything on `jobs` threads; 0 is one for every core.
    pub fn run(&self, jobs: usize, progress: &dyn Progress) -> Result<Report, SuiteError> {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(jobs).build();
        let threads = threads.map_err(|error| SuiteError::Threads { jobs, reason: error.to_string() })?;
        let entries: Vec<Vec<Entry>> = threads.install(|| {
            self.files.par_iter().with_max_len(1).map(|path| self.run_file(path, progress)).collect()
        });
        Ok(Report::new(entries.into_iter().flatten().collect()))
    }

    fn run_file(&self, path: &Path, progress: &dyn Progress) -> Vec<Entry> {
        let file = self.name_of(path);
        let folder = match file.split_once('/') {
            Some((folder, _)) => folder.to_owned(),
            None => ".".to_owned(),
        };
        let entry = |case: String, verdict| Entry { case, folder: folder.clone(), verdict };
        let entries = match read(path).and_then(|bytes| fixture::parse(&bytes)) {
            Ok(tests) => self.run_tests(&file, &tests, &entry),
            Err(_) if !self.names(&file) => Vec::new(),
            Err(error) => vec![entry(file, Verdict::Failed(Failure::Malformed(error.to_string())))],
        };
        let ran = entries.iter().filter(|entry| !matches!(entry.verdict, Verdict::Skipped(_))).count();
        let failed = entries.iter().filter(|entry| matches!(entry.verdict, Verdict::Failed(_))).count();
        progress.file_done(ran, failed);
        entries
    }

    fn run_tests(
        &self,
        file: &str,
        tests: &[(String, Option<Fixture>)],
        entry: &(impl Fn(String, Verdict) -> Entry + Sync),
    ) -> Vec<Entry> {
        let mut named = Vec::new();
        let mut entries = Vec::new();
        for (test, fixture) in tests {
            let Some(fixture) = fixture else {
                let case = format!("{file}::{test}");
                if case.contains(&self.filter) {
                    entries.push(entry(case, Verdict::Skipped(Skip::OtherKind)));
                }
                continue;
            };
            let all = cases(fixture).map(|case| (format!("{file}::{test}::{}", case.label()), case));
            named.extend(all.filter(|(name, _)| name.contains(&self.filter)));
        }
        let run = |(name, case): (String, Case<'_>)| entry(name, run_caught(&case));
        entries.extend(named.into_par_iter().map(run).collect::<Vec<_>>());
        entries
    }

    /// Whether the filter may mean something in a file.
    fn names(&self, file: &str) -> bool {
        file.contains(&self.filter) || self.filter.starts_with(file)
    }

    fn name_of(&self, path: &Path) -> String {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let parts = relative.components().map(|part| part.as_os_str().to_string_lossy());
        parts.collect::<Vec<_>>().join("/")
    }
}

/// One case's panic is a finding; it must not hide the others.
fn run_caught(case: &Case<'_>) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| run(case))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Verdict::Failed(Failure::Panicked(text.to_owned()))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, FixtureError> {
    let unreadable = |error: io::Error| FixtureError::Read { reason: error.to_string() };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(FixtureError::TooLong { bytes, max: FILE_BYTES_MAX });
    }
    fs::read(path).map_err(unreadable)
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), SuiteError> {
    if depth > DEPTH_MAX {
        return Err(SuiteError::TooDeep { path: path.into() });
    }
    let failed = |source| SuiteError::Folder { path: path.into(), source };
    if fs::metadata(path).map_err(failed)?.is_file() {
        files.push(path.into());
        return Ok(());
    }
    for item in fs::read_dir(path).map_err(failed)? {
        let item = item.map_err(failed)?;
        // Links are not followed: they may lead in circles.
        let kind = item.file_type().map_err(failed)?;
        let (name, path) = (item.file_name(), item.path());
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    Ok(())
}

/// The deepest folder that holds all files: what lies above it tells nothing in a summary.
fn common_folder(root: &Path, files: &[PathBuf]) -> PathBuf {
    let mut common = match files {
        [first, ..] => first.parent().unwrap_or(root).to_path_buf(),
        [] => root.to_path_buf(),
    };
    while !files.iter().all(|file| file.starts_with(&common)) {
        if !common.pop() {
            return root.to_path_buf();
        }
    }
    common
}
