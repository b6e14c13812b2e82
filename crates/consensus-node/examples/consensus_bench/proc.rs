//! What /proc says of a process.

use std::fs;
use std::io;

/// Clock ticks per second of /proc/PID/stat: fixed at 100 by Linux's user interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub user_seconds: f64,
    pub system_seconds: f64,
    /// Times a thread went to sleep or was displaced.
    pub switches: f64,
}

/// Usage of a process, all threads that live.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces: fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) as f64;
    let mut switches = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has just ended has no status.
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        switches +=
            counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum::<f64>();
    }
    let (user_seconds, system_seconds) = (ticks(11) / TICKS_PER_SECOND, ticks(12) / TICKS_PER_SECOND);
    Ok(Usage { user_seconds, system_seconds, switches })
}
