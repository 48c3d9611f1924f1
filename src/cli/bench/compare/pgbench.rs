//! pgbench: how it is run, against one server or several at once, and how its log is read.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::process::Command;

use super::{
    sample::{Call, Sample, Window},
    scratch::Scratch,
    workload::Workload,
};

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum PgbenchError {
    #[error("running pgbench: {0}")]
    Io(#[from] io::Error),
    #[error("pgbench failed: {0}")]
    Failed(String),
    #[error("pgbench says nothing of failed transactions; is it of PostgreSQL 15 or newer? It said: {0}")]
    NotUnderstood(String),
    #[error("pgbench counts {0} failed transactions")]
    Transactions(u64),
    #[error("of {seconds} s of pgbench too little was left when all of {callers} callers were connected")]
    Connecting { seconds: u32, callers: u32 },
    #[error("a line of pgbench's log is not understood: {0}")]
    Line(String),
}

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Prepared,
    Extended,
    Simple,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Prepared => "prepared",
            Mode::Extended => "extended",
            Mode::Simple => "simple",
        }
    }
}

/// Where pgbench connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) user: &'static str,
}

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Run<'a> {
    pub(super) workload: Workload,
    pub(super) endpoints: &'a [Endpoint],
    pub(super) callers: u32,
    pub(super) mode: Mode,
    pub(super) window: Window,
    /// Transactions a second, for an open loop.
    pub(super) rate: Option<f64>,
}

/// The program, and where it may write.
#[derive(Debug)]
pub(super) struct Pgbench {
    pub(super) program: PathBuf,
    pub(super) threads: u32,
}

impl Pgbench {
    /// Runs it, for as long as it takes to measure a whole window after all callers are connected: pgbench counts the time of
    /// connecting as part of its own.
    pub(super) async fn run(&self, run: &Run<'_>) -> Result<Sample, PgbenchError> {
        let mut seconds = run.window.whole_seconds() + connecting_seconds(run.callers, run.window);
        let mut calls_before = 0;
        for _ in 0..LONGER {
            let logs = self.logs(run, seconds).await?;
            if let Some(sample) = run.window.of_processes(&logs, run.rate.is_some()) {
                return Ok(Sample { calls: calls_before + sample.calls, ..sample });
            }
            calls_before += logs.iter().map(|log| log.len() as u64).sum::<u64>();
            seconds *= 2;
        }
        Err(PgbenchError::Connecting { seconds: seconds / 2, callers: run.callers })
    }

    /// One process for each server, at the same time, each with its part of the callers: their logs.
    async fn logs(&self, run: &Run<'_>, seconds: u32) -> Result<Vec<Vec<Call>>, PgbenchError> {
        let scratch = Scratch::new()?;
        let mut scripts = Vec::new();
        for (number, script) in run.workload.scripts().into_iter().enumerate() {
            let path = scratch.path().join(format!("{number}.sql"));
            std::fs::write(&path, script.text)?;
            scripts.push(format!("{}@{}", path.display(), script.weight));
        }
        let parts = parts(run.callers, run.endpoints.len());
        let processes = run.endpoints.iter().zip(&parts).enumerate().filter(|(_, (_, callers))| **callers > 0);
        let processes: Vec<_> = processes.collect();
        let threads = (self.threads as usize / processes.len().max(1)).max(1);
        let runs = processes.into_iter().map(|(number, (endpoint, callers))| {
            let folder = scratch.path().join(format!("log{number}"));
            self.process(Process { run, endpoint, callers: *callers, threads, seconds }, &scripts, folder)
        });
        try_join_all(runs).await
    }

    /// Its logs, one a thread, go to a folder of its own.
    async fn process(
        &self,
        Process { run, endpoint, callers, threads, seconds }: Process<'_>,
        scripts: &[String],
        folder: PathBuf,
    ) -> Result<Vec<Call>, PgbenchError> {
        std::fs::create_dir(&folder)?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.args(["-n", "-l", "-h", "127.0.0.1", "-M", run.mode.name(), "-U", endpoint.user]);
        command.args(["-p", &endpoint.port.to_string(), "-c", &callers.to_string()]);
        command.args(["-j", &threads.min(callers as usize).to_string(), "-T", &seconds.to_string()]);
        command.args(scripts.iter().flat_map(|script| ["-f", script]));
        for (name, value) in run.workload.variables() {
            command.args(["-D", &format!("{name}={value}")]);
        }
        if let Some(rate) = run.rate {
            let share = rate * f64::from(callers) / f64::from(run.callers);
            command.args(["-R", &format!("{share:.3}")]);
        }
        command.arg("--log-prefix").arg(folder.join("log")).arg(&endpoint.database).env("LC_ALL", "C");
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await?;
        if !output.status.success() {
            return Err(PgbenchError::Failed(first_lines(&output.stderr)));
        }
        match failed(&String::from_utf8_lossy(&output.stdout)) {
            Some(0) => {}
            Some(failed) => return Err(PgbenchError::Transactions(failed)),
            None => return Err(PgbenchError::NotUnderstood(first_lines(&output.stdout))),
        }
        let mut calls = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            read_log(&entry?.path(), &mut calls)?;
        }
        Ok(calls)
    }
}

/// One of the processes of a run.
struct Process<'a> {
    run: &'a Run<'a>,
    endpoint: &'a Endpoint,
    callers: u32,
    threads: usize,
    seconds: u32,
}

/// How often a run is made longer, each time twice as long.
const LONGER: u32 = 4;

/// What connecting may take, beside what the warm-up leaves for it. On a busy machine it takes more.
pub(super) fn connecting_seconds(callers: u32, window: Window) -> u32 {
    callers / 512 + u32::from(window.warm_up_seconds == 0)
}

/// So many callers, in parts that differ by one at most.
fn parts(callers: u32, servers: usize) -> Vec<u32> {
    let servers = u32::try_from(servers.max(1)).unwrap_or(1);
    (0..servers).map(|number| callers / servers + u32::from(number < callers % servers)).collect()
}

fn first_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().filter(|line| !line.is_empty()).take(3).collect::<Vec<_>>().join("; ")
}

/// How many transactions failed.
fn failed(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix("number of failed transactions: "))?;
    line.split(' ').next()?.parse().ok()
}

fn read_log(path: &Path, calls: &mut Vec<Call>) -> Result<(), PgbenchError> {
    for line in std::fs::read_to_string(path)?.lines() {
        calls.push(call(line).ok_or_else(|| PgbenchError::Line(line.to_owned()))?);
    }
    Ok(())
}

/// `client transaction latency script seconds microseconds [lag]`: the latency is from when the transaction was due, with a
/// rate that is before it was sent; the time is that of its end.
fn call(line: &str) -> Option<Call> {
    let mut fields = line.split(' ').skip(2);
    let took_us: u32 = fields.next()?.parse().ok()?;
    let (seconds, micros): (u64, u64) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    let lag_us = fields.next().map_or(Some(0), |lag| lag.parse().ok())?;
    Some(Call { due_us: (seconds * 1_000_000 + micros).checked_sub(took_us.into())?, took_us, lag_us })
}

#[cfg(test)]
mod tests {
    use super::{Call, call, failed, parts};

    const SAID: &str = "\
pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: p.sql
scaling factor: 1
query mode: prepared
number of clients: 4
number of threads: 2
maximum number of tries: 1
duration: 2 s
number of transactions actually processed: 46926
number of failed transactions: 0 (0.000%)
latency average = 0.161 ms
initial connection time = 118.008 ms
tps = 24814.837926 (without initial connection time)
";

    #[test]
    fn what_pgbench_says_is_read() {
        assert_eq!(failed(SAID), Some(0));
        assert_eq!(failed(&SAID.replace(": 0 (0.000%)", ": 12 (0.026%)")), Some(12));
        assert_eq!(failed("pgbench (14.1)\n"), None);
    }

    #[test]
    fn lines_of_its_log_are_read_with_and_without_a_rate() {
        let closed = call("3 2 67 0 1795341609 22297");
        assert_eq!(closed, Some(Call { due_us: 1_795_341_609_022_230, took_us: 67, lag_us: 0 }));
        // Due 225920 µs before its end, of which it waited 13343 to be sent.
        let open = call("0 1 225920 0 1795341611 466713 13343");
        assert_eq!(open, Some(Call { due_us: 1_795_341_611_240_793, took_us: 225_920, lag_us: 13_343 }));
        assert_eq!(call("0 1 failed 0 1795341611 466713"), None);
        assert_eq!(call(""), None);
    }

    #[test]
    fn callers_are_shared_evenly() {
        assert_eq!(parts(128, 2), [64, 64]);
        assert_eq!(parts(1, 2), [1, 0]);
        assert_eq!(parts(9, 2), [5, 4]);
    }
}
