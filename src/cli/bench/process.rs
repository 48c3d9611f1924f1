//! What the kernel says of a process: its memory and its processor time (proc(5)).

use std::{fmt, io, time::Duration};

use rustix::process::Pid;

/// The kernel counts processor time for programs in these (`USER_HZ`), on every architecture that Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;

/// Why a figure is not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error("{what}: {error} (Linux only)")]
    Io { what: &'static str, error: io::Error },
    #[error("/proc/PID/{file} says no {figure}")]
    NoFigure { file: &'static str, figure: &'static str },
}

/// Resident memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resident {
    kib: u64,
}

impl Resident {
    pub(super) fn mib(self) -> f64 {
        self.kib as f64 / 1024.0
    }

    pub(super) fn bytes(self) -> u64 {
        self.kib * 1024
    }

    pub(super) fn above(self, base: Resident) -> Resident {
        Resident { kib: self.kib.saturating_sub(base.kib) }
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.1} MiB", self.mib())
    }
}

/// A line of `/proc/PID/status`: `VmRSS`, what the process takes now, or `VmHWM`, the most that it took.
pub(super) fn memory(pid: Pid, figure: &'static str) -> Result<Resident, ProcessError> {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(path);
    let status = status.map_err(|error| ProcessError::Io { what: "read a process's memory", error })?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib| Resident { kib }).ok_or(ProcessError::NoFigure { file: "status", figure })
}

/// The peak counts from now on.
pub(super) fn forget_peak(pid: Pid) -> Result<(), ProcessError> {
    let path = format!("/proc/{}/clear_refs", pid.as_raw_nonzero());
    std::fs::write(path, "5").map_err(|error| ProcessError::Io { what: "reset a process's peak of memory", error })
}

/// The processor time of all threads since the process began, in steps of 10 ms.
pub(super) fn processor_time(pid: Pid) -> Result<Duration, ProcessError> {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(path);
    let stat = stat.map_err(|error| ProcessError::Io { what: "read a process's processor time", error })?;
    let ticks = ticks(&stat).ok_or(ProcessError::NoFigure { file: "stat", figure: "utime and stime" })?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The processor time of this process, and of the programs that it has run and waited for, in steps of 10 ms each.
pub(super) fn own_processor_time() -> Result<Own, ProcessError> {
    let stat = std::fs::read_to_string("/proc/self/stat");
    let stat = stat.map_err(|error| ProcessError::Io { what: "read one's own processor time", error })?;
    let [itself, programs] = ticks_of_both(&stat).ok_or(ProcessError::NoFigure { file: "stat", figure: "cutime" })?;
    let time = |ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
    Ok(Own { itself: time(itself), programs: time(programs) })
}

/// What this process has taken, and what programs took that it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) itself: Duration,
    pub(super) programs: Duration,
}

fn ticks(stat: &str) -> Option<u64> {
    ticks_of_both(stat).map(|[own, _]| own)
}

/// `utime` and `stime`; `cutime` and `cstime`. The program's name, the second field, may hold blanks and parentheses.
fn ticks_of_both(stat: &str) -> Option<[u64; 2]> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let mut sum = || Some(fields.next()?? + fields.next()??);
    Some([sum()?, sum()?])
}

#[cfg(test)]
mod tests {
    use super::{ticks, ticks_of_both};

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat =
            "41 (a (b) c) S 0 0 0 0 -1 4194560 235192 1455822091 0 278301 3693 23768 4088447 1076187 20 0 14 0 9";
        assert_eq!(ticks(stat), Some(3693 + 23768));
        assert_eq!(ticks_of_both(stat), Some([3693 + 23768, 4_088_447 + 1_076_187]));
        assert_eq!(ticks("41 (a) S 0"), None);
    }
}
