//! Finding our servers' processes, and signalling them. A process is ours only if its command line has our marker: a
//! random text that each server carries in `cluster_name`, and so the postmaster in its arguments and each child in its
//! title. A pid alone proves nothing, since systems use them again.

use std::{path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Command, time::sleep};

use super::error::DevError;

const POLL: Duration = Duration::from_millis(5);

/// The pids of the processes that carry the marker. A process that has ended but was not waited for is not among them.
pub(super) async fn with_marker(marker: &str) -> Result<Vec<i32>, DevError> {
    if Path::new("/proc/self/cmdline").exists() {
        return from_proc(marker);
    }
    // No /proc (macOS, BSD).
    let output = Command::new("ps").args(["-A", "-o", "pid=", "-o", "args="]).output().await;
    let output = output.map_err(DevError::io("run ps"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|line| line.contains(marker)).filter_map(first_number).collect())
}

fn from_proc(marker: &str) -> Result<Vec<i32>, DevError> {
    let entries = std::fs::read_dir("/proc").map_err(DevError::io("list /proc"))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // A process may end between the listing and the reading: unreadable means not there.
    let carries = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(marker.len()).any(|window| window == marker.as_bytes())
    };
    Ok(pids.filter(carries).collect())
}

fn first_number(line: &str) -> Option<i32> {
    line.split_whitespace().next()?.parse().ok()
}

/// Sends a signal. A process that is gone already is no error.
pub(super) fn signal(pid: i32, signal: Signal) -> Result<(), DevError> {
    let Some(target) = Pid::from_raw(pid).filter(|_| pid > 1) else { return Ok(()) };
    match kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(DevError::Io { action: format!("signal process {pid}"), source: errno.into() }),
    }
}

/// Sends a signal to every process with the marker, until a round finds no new one: a postmaster that was hit last may
/// have forked meanwhile. Answers how many there were.
pub(super) async fn signal_all(marker: &str, what: Signal) -> Result<usize, DevError> {
    let mut reached = Vec::new();
    loop {
        let new: Vec<_> = with_marker(marker).await?.into_iter().filter(|pid| !reached.contains(pid)).collect();
        if new.is_empty() {
            return Ok(reached.len());
        }
        for pid in &new {
            signal(*pid, what)?;
        }
        reached.extend(new);
    }
}

/// Waits until no process with the marker is left; false if some were after `bound`.
pub(super) async fn wait_gone(marker: &str, bound: Duration) -> Result<bool, DevError> {
    let gone = async {
        while !with_marker(marker).await?.is_empty() {
            sleep(POLL).await;
        }
        Ok(())
    };
    tokio::time::timeout(bound, gone).await.map_or(Ok(false), |done| done.map(|()| true))
}
