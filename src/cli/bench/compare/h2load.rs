//! h2load, the leanest client of HTTP/2 that there is: how it is run, and how its output and its log are read. That calls
//! also succeeded for gRPC it cannot see: see `broker_counts`.

use std::{io, process::Stdio, time::Duration};

use tokio::process::Command;

use super::{
    sample::{Call, Sample, Window},
    scratch::Scratch,
    workload::Request,
};

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum H2loadError {
    #[error("running h2load: {0}; `scripts/setup bench` installs it")]
    Io(#[from] io::Error),
    #[error("h2load failed: {0}")]
    Failed(String),
    #[error("h2load's output is not understood: {0}")]
    NotUnderstood(String),
    #[error("an answer that took {took_us} µs had the HTTP status {status} (-1: its stream was broken off)")]
    Status { status: i32, took_us: u32 },
    #[error("of {total} requests of h2load {succeeded} succeeded")]
    Requests { total: u64, succeeded: u64 },
    #[error("{requests} answers have {bytes} bytes in all: too few to be right")]
    TooSmall { requests: u64, bytes: u64 },
}

/// How callers share connections: as many as services of 16 callers each would have, 16 at the most.
pub(super) fn connections(callers: u32) -> u32 {
    callers.div_ceil(16).clamp(1, 16)
}

/// Runs it for a window: calls by `callers` at a time; an answer has so many bytes at least.
pub(super) async fn run(
    url: &str,
    request: &Request,
    callers: u32,
    window: Window,
    bytes_min: u64,
) -> Result<Sample, H2loadError> {
    let mut times = vec![format!("-D{}s", window.seconds)];
    if window.warm_up_seconds > 0 {
        times.push(format!("--warm-up-time={}s", window.warm_up_seconds));
    }
    let (summary, calls) = call(url, request, callers, &times, None).await?;
    if summary.data_bytes < summary.total * bytes_min {
        return Err(H2loadError::TooSmall { requests: summary.total, bytes: summary.data_bytes });
    }
    // The log has the calls of the window alone.
    let micros: Vec<u32> = calls.iter().map(|call| call.took_us).collect();
    let per_second = summary.total as f64 / f64::from(window.seconds.max(1));
    Ok(Sample { per_second, latencies: micros.into(), lags: Vec::new().into(), calls: summary.total })
}

/// Makes so many calls that all run into their deadline; answers how long each took.
pub(super) async fn run_into_deadline(
    url: &str,
    request: &Request,
    callers: u32,
    count: u32,
    deadline: Duration,
) -> Result<Vec<Call>, H2loadError> {
    let (summary, calls) = call(url, request, callers, &[format!("-n{count}")], Some(deadline)).await?;
    if summary.total != u64::from(count) {
        return Err(H2loadError::Requests { total: count.into(), succeeded: summary.total });
    }
    Ok(calls)
}

async fn call(
    url: &str,
    request: &Request,
    callers: u32,
    extent: &[String],
    deadline: Option<Duration>,
) -> Result<(Summary, Vec<Call>), H2loadError> {
    let scratch = Scratch::new()?;
    let (body, log) = (scratch.path().join("body"), scratch.path().join("log"));
    std::fs::write(&body, &request.body)?;
    let connections = connections(callers);
    let mut command = Command::new("h2load");
    command.args(extent).arg(format!("-c{connections}")).arg(format!("-m{}", callers / connections)).arg("-t1");
    command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
    if let Some(deadline) = deadline {
        command.args(["-H", &format!("grpc-timeout: {}m", deadline.as_millis())]);
    }
    command.arg("-d").arg(&body).arg("--log-file").arg(&log);
    command.arg(format!("{url}{}", request.path)).env("LC_ALL", "C");
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        return Err(H2loadError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = Summary::read(&said).ok_or_else(|| H2loadError::NotUnderstood(said.trim().to_owned()))?;
    if summary.total == 0 || summary.succeeded != summary.total {
        return Err(H2loadError::Requests { total: summary.total, succeeded: summary.succeeded });
    }
    Ok((summary, read_log(&std::fs::read_to_string(&log)?, callers)?))
}

/// What h2load says at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Summary {
    total: u64,
    succeeded: u64,
    /// The answers' bodies.
    data_bytes: u64,
}

impl Summary {
    fn read(said: &str) -> Option<Summary> {
        let line = |start| said.lines().find_map(|line: &str| line.strip_prefix(start));
        let requests = line("requests: ")?;
        let data_bytes =
            line("traffic: ")?.strip_suffix(" data")?.rsplit_once('(')?.1.strip_suffix(')')?.parse().ok()?;
        Some(Summary { total: counted(requests, "total")?, succeeded: counted(requests, "succeeded")?, data_bytes })
    }
}

/// `11616 total, 11616 started, …`
fn counted(line: &str, what: &str) -> Option<u64> {
    line.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
}

/// A status is noted as it comes, but not during the warm-up: 0 is that of an answer which had begun before the window, and
/// ended in it. There is one for each caller at the most. What h2load breaks off at its end it does not log.
fn read_log(log: &str, callers: u32) -> Result<Vec<Call>, H2loadError> {
    let mut begun_before = 0;
    let mut calls = Vec::new();
    for line in log.lines() {
        let (status, call) = logged(line).ok_or_else(|| H2loadError::NotUnderstood(line.to_owned()))?;
        begun_before += u32::from(status == 0);
        if status != 200 && (status != 0 || begun_before > callers) {
            return Err(H2loadError::Status { status, took_us: call.took_us });
        }
        calls.push(call);
    }
    Ok(calls)
}

/// `start status took`, in microseconds.
fn logged(line: &str) -> Option<(i32, Call)> {
    let mut fields = line.split('\t');
    let due_us = fields.next()?.parse().ok()?;
    let status = fields.next()?.parse().ok()?;
    Some((status, Call { due_us, took_us: fields.next()?.parse().ok()?, lag_us: 0 }))
}

#[cfg(test)]
mod tests {
    use super::{Call, H2loadError, Summary, connections, read_log};

    const SAID: &str = "\
Stopped all clients for thread #0

finished in 3.00s, 5808.00 req/s, 741.49KB/s
requests: 11616 total, 11616 started, 11616 done, 11610 succeeded, 6 failed, 0 errored, 0 timeout
status codes: 11616 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.45MB (1518562) total, 72.65KB (74390) headers (space savings 97.15%), 1.38MB (1447901) data
                     min         max         mean         sd        +/- sd
time for request:       90us    609.17ms      2.75ms     13.61ms    99.47%
";

    #[test]
    fn what_h2load_says_is_read() {
        let summary = Summary { total: 11616, succeeded: 11610, data_bytes: 1_447_901 };
        assert_eq!(Summary::read(SAID), Some(summary));
        assert_eq!(Summary::read("finished in 0us"), None);
    }

    #[test]
    fn answers_that_began_in_the_warm_up_count_and_broken_ones_do_not() {
        let call = |took_us| Call { due_us: 1_795_341_591_878_623, took_us, lag_us: 0 };
        let begun_before = "1795341591878623\t0\t41858\n";
        let log = format!("{begun_before}1795341591878623\t200\t340\n");
        assert_eq!(read_log(&log, 1).expect("a log"), [call(41_858), call(340)]);
        let more_than_callers = read_log(&(begun_before.to_owned() + &log), 1);
        assert!(matches!(more_than_callers, Err(H2loadError::Status { status: 0, .. })));
        let broken_off = read_log("1795341591878623\t-1\t340\n", 1);
        assert!(matches!(broken_off, Err(H2loadError::Status { status: -1, took_us: 340 })));
        assert!(matches!(read_log("1795341591878623\t200", 1), Err(H2loadError::NotUnderstood(_))));
    }

    #[test]
    fn every_number_of_callers_is_divided_without_a_rest() {
        for callers in [1, 8, 32, 128, 512, 2000] {
            assert_eq!(connections(callers) * (callers / connections(callers)), callers);
        }
    }
}
