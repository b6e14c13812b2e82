//! Starts the processes of a network, restarts what dies, and stops everything in order.
//!
//! All children are started from one thread that lives as long as the supervisor: the system ends them when that
//! thread ends, so that not even SIGKILL of the supervisor leaves an orphan.

use crate::error::{CliError, CliResult};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

/// Wait before the first restart; doubles with every further one.
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(5);

/// A process that ran this long starts over with the shortest wait.
const STABLE: Duration = Duration::from_secs(10);

/// How long a process may take to stop before it is killed.
const STOP_TIME: Duration = Duration::from_secs(15);

/// A log file larger than this is set aside at the next start of its process.
const LOG_BYTES_MAX: u64 = 64 << 20;

const TAIL_BYTES: u64 = 4096;

/// Which process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// consensusd.
    Consensus,
    /// executord.
    Execution,
}

impl Role {
    /// Its subcommand, also the name of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensusd",
            Self::Execution => "executord",
        }
    }
}

/// How far stopping has come. Consensus stops first, so that nothing is asked of an executor that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything runs.
    Run,
    /// Consensus processes stop.
    StopConsensus,
    /// Execution processes stop too.
    StopAll,
    /// No more waiting.
    Kill,
}

/// What happened to a process.
#[derive(Clone, Debug)]
pub struct ProcessEvent {
    pub node: usize,
    pub role: Role,
    pub change: Change,
}

/// The change.
#[derive(Clone, Debug)]
pub enum Change {
    /// It runs.
    Started {
        pid: u32,
        /// How often it was started again.
        restarts: u32,
    },
    /// It ended without being asked to.
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
        /// The last line it wrote.
        last_line: String,
    },
    /// It cannot be started, or it ended after it was asked to.
    Stopped {
        /// Whether it had to be killed.
        killed: bool,
    },
}

/// One supervised process.
pub struct Process {
    pub node: usize,
    pub role: Role,
    /// The node's directory: working directory of the process.
    pub dir: PathBuf,
    /// Whether to start it again when it ends by itself.
    pub restart: bool,
    pub events: mpsc::UnboundedSender<ProcessEvent>,
    pub phase: watch::Receiver<Phase>,
}

enum End {
    Exited(ExitStatus),
    StopAsked,
}

impl Process {
    /// Keeps the process running until the phase says otherwise.
    pub async fn supervise(mut self) -> CliResult {
        let (mut wait, mut restarts) = (RESTART_FIRST, 0);
        loop {
            let started = Instant::now();
            let mut child = self.start()?;
            self.tell(Change::Started { pid: child.id().unwrap_or(0), restarts });
            let end = tokio::select! {
                status = child.wait() => End::Exited(status.map_err(CliError::while_trying("wait for a process"))?),
                () = self.stop_asked() => End::StopAsked,
            };
            match end {
                End::StopAsked => return self.stop(child).await,
                End::Exited(status) => {
                    self.remove_pid();
                    let last_line = last_line(&self.log_path());
                    self.tell(Change::Exited { code: status.code(), signal: status.signal(), last_line });
                }
            }
            if !self.restart {
                self.stop_asked().await;
                return Ok(());
            }
            wait = if started.elapsed() > STABLE { RESTART_FIRST } else { wait };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop_asked() => return Ok(()),
            }
            wait = (wait * 2).min(RESTART_MAX);
            restarts += 1;
        }
    }

    fn tell(&self, change: Change) {
        // The receiver outlives the processes; without one nobody is interested.
        let _ = self.events.send(ProcessEvent { node: self.node, role: self.role, change });
    }

    async fn stop_asked(&mut self) {
        let threshold = match self.role {
            Role::Consensus => Phase::StopConsensus,
            Role::Execution => Phase::StopAll,
        };
        // An error means that the supervisor is gone, which is a stop as well.
        let _ = self.phase.wait_for(|phase| *phase >= threshold).await;
    }

    fn start(&self) -> CliResult<Child> {
        let log = self.open_log()?;
        let errors = log.try_clone().map_err(CliError::while_trying("share a log file"))?;
        // This very binary, even if the file was replaced since the start.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("tandem")
            .args([
                self.role.name(),
                "--config",
                "node.toml",
                "--parent-pid",
                &std::process::id().to_string(),
            ])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C in a terminal goes to the supervisor alone, which stops in order.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(CliError::while_trying(format!("start {}", self.role.name())))?;
        if let Some(pid) = child.id() {
            let path = self.pid_path();
            fs::write(&path, format!("{pid}\n"))
                .map_err(CliError::while_trying(format!("write {}", path.display())))?;
        }
        Ok(child)
    }

    /// SIGTERM, and SIGKILL when that takes too long.
    async fn stop(&mut self, mut child: Child) -> CliResult {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended this moment, which is just as well.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let mut phase = self.phase.clone();
        let in_time = tokio::select! {
            ended = child.wait() => ended.is_ok(),
            () = tokio::time::sleep(STOP_TIME) => false,
            _ = phase.wait_for(|phase| *phase == Phase::Kill) => false,
        };
        if !in_time {
            child.kill().await.map_err(CliError::while_trying(format!("kill {}", self.role.name())))?;
        }
        self.remove_pid();
        self.tell(Change::Stopped { killed: !in_time });
        Ok(())
    }

    fn pid_path(&self) -> PathBuf {
        self.dir.join(format!("{}.pid", self.role.name()))
    }

    fn remove_pid(&self) {
        // A stale file is recognised as such at the next start.
        let _ = fs::remove_file(self.pid_path());
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("logs").join(format!("{}.log", self.role.name()))
    }

    fn open_log(&self) -> CliResult<File> {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            let aside = path.with_extension("log.1");
            fs::rename(&path, &aside)
                .map_err(CliError::while_trying(format!("rename {}", path.display())))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(CliError::while_trying(format!("open {}", path.display())))
    }
}

/// The last line of a log file, without terminal colours.
pub fn last_line(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_line_of_a_log_is_found_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(last_line(&path), "");
        fs::write(&path, format!("{}\nerror: the end\n\n", "x".repeat(100_000))).unwrap();
        assert_eq!(last_line(&path), "error: the end");
    }
}
