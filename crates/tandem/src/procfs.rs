//! CPU time and memory of processes, from /proc. Zero where the system has none.

use std::fs;

/// Clock ticks per second of /proc/PID/stat: fixed at 100 by Linux's user interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds since it started, all threads.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

/// Usage of a process; `None` when it is gone.
pub fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib =
        resident.and_then(|text| text.split_whitespace().next()).and_then(|text| text.parse::<u64>().ok());
    Some(Usage { cpu_seconds: cpu_seconds(&pid.to_string())?, memory_bytes: kib.unwrap_or(0) << 10 })
}

/// CPU seconds of this process.
pub fn own_cpu_seconds() -> f64 {
    cpu_seconds("self").unwrap_or(0.0)
}

/// The arguments a process was started with; `None` when it is gone.
pub fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect())
}

/// Working directory of a process.
pub fn working_directory(pid: u32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold spaces: fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|text| text.parse::<u64>().ok());
    Some((ticks(11)? + ticks(12)?) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_has_a_command_line() {
        let own = usage(std::process::id());
        assert!(own.is_some_and(|usage| usage.memory_bytes > 100_000));
        assert!(command_line(std::process::id()).is_some_and(|args| !args[0].is_empty()));
        assert_eq!(usage(u32::MAX), None);
    }
}
