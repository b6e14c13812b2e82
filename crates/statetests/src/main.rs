//! `cargo run --release -p statetests -- FOLDER`: Ethereum's state tests through this chain's executor.

use clap::Parser;
use statetests::{Progress, Report, Suite, SuiteError};
use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    time::Instant,
};

/// Runs Ethereum's state tests through Tandem's executor and compares state roots, logs and refusals.
///
/// FOLDER holds fixtures in the format of ethereum/tests' GeneralStateTests or of the execution specification's
/// state_tests; blockchain tests and other files among them are counted and left out. Forks this chain does not
/// execute are counted and left out too.
///
/// Exit code 0 when something ran and nothing failed, 1 when a case failed or nothing ran, 2 when the folder or the
/// command line is unusable.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  statetests ~/fixtures/state_tests\n  statetests tests/GeneralStateTests --filter stCreate2 --jobs 2\n  statetests fixtures --filter 'push0.json::push0::Prague/d0g0v0'   one case\n  TANDEM_STATE_TESTS=~/fixtures statetests --json report.json"
)]
struct Args {
    /// Folder of fixtures, or one file.
    #[arg(env = "TANDEM_STATE_TESTS")]
    folder: PathBuf,
    /// Run only cases whose name, FILE::TEST::FORK/dNgNvN, contains this.
    #[arg(long, default_value = "", hide_default_value = true)]
    filter: String,
    /// Threads; 0 is one for every core.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    jobs: u16,
    /// Failures to print.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Write every case with its verdict to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(report) if report.succeeded() => ExitCode::SUCCESS,
        Ok(report) => {
            if report.total().ran() == 0 {
                eprintln!(
                    "nothing ran: no case of a fork this chain executes has a name with \"{}\"",
                    args.filter
                );
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Suite(#[from] SuiteError),
    #[error("{}: {source}", path.display())]
    Report { path: PathBuf, source: io::Error },
}

fn run(args: &Args) -> Result<Report, RunError> {
    let suite = Suite::discover(&args.folder)?.filtered(args.filter.as_str());
    let started = Instant::now();
    let bar = Bar::new(suite.files());
    let report = suite.run(args.jobs.into(), &bar)?;
    bar.clear();
    let ran = report.total().ran();
    let seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &args.json {
        let failed = |source| RunError::Report { path: path.clone(), source };
        fs::write(path, format!("{:#}\n", report.to_json())).map_err(failed)?;
    }
    // A reader that has gone (`| head`) is no failure of the tests.
    let _ = write!(io::stdout(), "{}\n{ran} cases in {seconds:.1} s\n", report.summary(args.failures));
    Ok(report)
}

/// A progress bar on standard error, if that is a terminal.
struct Bar {
    files: usize,
    shown: bool,
    state: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    files: usize,
    ran: usize,
    failed: usize,
    /// Thousandths last drawn.
    drawn: usize,
}

impl Bar {
    const WIDTH: usize = 32;

    fn new(files: usize) -> Self {
        Self { files, shown: io::stderr().is_terminal(), state: Mutex::default() }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }

    fn draw(&self, counts: &Counts) {
        let filled = Self::WIDTH * counts.files / self.files.max(1);
        let bar = "#".repeat(filled) + &".".repeat(Self::WIDTH.saturating_sub(filled));
        let (files, all, ran, failed) = (counts.files, self.files, counts.ran, counts.failed);
        let _ = write!(io::stderr(), "\r\x1b[2K[{bar}] {files}/{all} files, {ran} cases, {failed} failed");
    }
}

impl Progress for Bar {
    fn file_done(&self, ran: usize, failed: usize) {
        if !self.shown {
            return;
        }
        let mut counts = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        counts.files += 1;
        counts.ran += ran;
        counts.failed += failed;
        let thousandths = 1000 * counts.files / self.files.max(1);
        if thousandths > counts.drawn || counts.files == self.files {
            counts.drawn = thousandths;
            self.draw(&counts);
        }
    }
}
