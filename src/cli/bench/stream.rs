//! `tidegate bench stream`: one long result through a broker, read to its end and checked; its speed, and what it costs the
//! broker in memory, also while nobody reads.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
use tidegate_client::{Batch, Client, ReadOptions, Value};

use super::{
    broker::{Broker, BrokerError, Resident},
    conclude, note,
};
use crate::{
    cli::{fail, local::PATIENCE, say},
    clock,
    config::parse_duration,
    dev::{Cluster, ClusterOptions, DevError, Server},
};

/// How much the broker's resident memory may grow.
const GROWTH_MAX_BYTES: u64 = 64 << 20;
/// The wait event of a backend whose peer does not take what it sends.
const CANNOT_SEND: &str = "ClientWrite";
/// How often progress is told.
const STEPS: u64 = 10;
/// Longer than any run: what bounds it is the person who waits.
const TIMEOUT: Duration = Duration::from_secs(86_400);

/// One row after the other, made while they are sent: a function in FROM would first be stored whole.
const SQL: &str = "SELECT n, 'row ' || n AS name, (n * 1.25)::numeric(20, 2) AS price, \
     timestamptz '2024-01-01 00:00:00Z' + n * interval '1 second' AS at, n / 8.0::float8 AS ratio \
     FROM (SELECT generate_series(1, $1::int8) AS n) AS series";

/// Stream one long result through a broker, and measure speed and the broker's memory.
#[derive(Args, Debug)]
#[command(after_help = "\
Starts a PostgreSQL and, as a process of its own, a broker, on free ports; reads
rows of five columns (int8, text, numeric, timestamptz, float8); and checks them.

Examples:
  tidegate bench stream
  tidegate bench stream --pause 20s          # nobody reads for a while, half-way
  tidegate bench stream --rows 1000000 --json

Needs Linux (/proc). For figures that mean something use a release build: make bench-stream.
Exit codes: 0 every row came, and the broker's resident memory grew by less than 64 MiB; 1 otherwise; 2 the arguments
are wrong.")]
pub(super) struct StreamArgs {
    /// How many rows
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000_000))]
    rows: u64,
    /// Half-way, read nothing for this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pause: Option<Duration>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error(transparent)]
    Cluster(#[from] DevError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the stream failed: {0}")]
    Read(#[from] tidegate_client::Error),
    #[error("row {0} is not what was asked for")]
    Row(u64),
}

/// What was measured.
struct Measured {
    rows: u64,
    value_bytes: u64,
    first_row: Duration,
    /// From the call to the last row, without the pause.
    reading: Duration,
    before: Resident,
    peak: Resident,
    pause: Option<Paused>,
}

/// What was seen while nobody read.
struct Paused {
    length: Duration,
    at_row: u64,
    /// What PostgreSQL's backend waited for at the end: its event in pg_stat_activity. `ClientWrite`: it cannot send.
    backend_waits_for: String,
    from: Resident,
    to: Resident,
}

pub(super) async fn run(args: StreamArgs) -> ExitCode {
    conclude(measure(&args), |measured| measured.conclude(&args)).await
}

async fn measure(args: &StreamArgs) -> Result<Measured, BenchError> {
    let note = |line: String| note(args.json, line);
    note("Starting a PostgreSQL, and a broker in a process of its own …".into());
    let cluster = Cluster::start(ClusterOptions { replicas: 0, ..ClusterOptions::default() }).await?;
    // Nobody reads during the pause: that is to be measured, not refused.
    let idle = args.pause.unwrap_or_default() + PATIENCE + Duration::from_secs(60);
    let configuration = [("TIDEGATE_TIMEOUTS_STREAM_IDLE_TIMEOUT", format!("{}ms", idle.as_millis()))];
    let (broker, client) = Broker::start(&cluster.primary().direct_url(), &configuration).await?;
    note(format!("Streaming {} rows of 5 columns …", args.rows));
    let measured = Run { args, broker: &broker, server: cluster.primary(), note: &note }.stream(&client).await?;
    drop(client);
    broker.stop().await?;
    cluster.shutdown().await?;
    Ok(measured)
}

struct Run<'a> {
    args: &'a StreamArgs,
    broker: &'a Broker,
    server: &'a Server,
    note: &'a dyn Fn(String),
}

impl Run<'_> {
    async fn stream(&self, client: &Client) -> Result<Measured, BenchError> {
        self.broker.forget_peak()?;
        let before = self.broker.resident()?;
        let began = clock::now();
        let since = |began: Instant| clock::now().saturating_duration_since(began);
        let options = ReadOptions::new().timeout(TIMEOUT);
        let count = i64::try_from(self.args.rows).unwrap_or(i64::MAX);
        let mut stream = client.read_with(SQL, [Value::from(count)], options).await?;
        let first_row = since(began);
        let (mut rows, mut value_bytes, mut pause) = (0, 0, None);
        let mut paused = Duration::ZERO;
        while let Some(batch) = stream.next().await? {
            let told = rows * STEPS / self.args.rows;
            value_bytes += check(&batch, rows)?;
            rows += batch.len() as u64;
            if rows * STEPS / self.args.rows > told {
                let seconds = (since(began) - paused).as_secs_f64();
                (self.note)(format!("{rows:>12} rows {seconds:>8.1} s   broker {}", self.broker.resident()?));
            }
            if let (Some(length), None, true) = (self.args.pause, &pause, rows * 2 >= self.args.rows) {
                let (seen, took) = self.pause(length, rows).await?;
                paused = took;
                pause = Some(seen);
            }
        }
        let reading = since(began).saturating_sub(paused);
        let peak = self.broker.peak()?;
        Ok(Measured { rows, value_bytes, first_row, reading, before, peak, pause })
    }

    /// Reads nothing: until all the buffers on the way are full and PostgreSQL cannot send, and then for a while. Answers
    /// how long all that took.
    async fn pause(&self, length: Duration, at_row: u64) -> Result<(Paused, Duration), BenchError> {
        let began = clock::now();
        let from = self.broker.resident()?;
        self.until_full().await?;
        tokio::time::sleep(length).await;
        // On a busy machine what is on its way may make a little room meanwhile: that fills up, too.
        let backend_waits_for = self.until_full().await?;
        let to = self.broker.resident()?;
        (self.note)(format!(
            "             nobody read for {} s; PostgreSQL waits for {backend_waits_for}; broker {from}, then {to}",
            length.as_secs_f64()
        ));
        let paused = Paused { length, at_row, backend_waits_for, from, to };
        Ok((paused, clock::now().saturating_duration_since(began)))
    }

    /// Waits until PostgreSQL cannot send; answers what it waits for. If that never comes, the memory tells where the rows
    /// went.
    async fn until_full(&self) -> Result<String, BenchError> {
        let began = clock::now();
        loop {
            let waits_for = self.backend_waits_for().await?;
            if waits_for == CANNOT_SEND || clock::now().saturating_duration_since(began) > PATIENCE {
                return Ok(waits_for);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn backend_waits_for(&self) -> Result<String, BenchError> {
        let waits = "SELECT coalesce(max(wait_event), 'nothing') FROM pg_stat_activity \
                     WHERE application_name = 'tidegate' AND state = 'active' AND query LIKE '%generate_series%'";
        Ok(self.server.sql(waits).await?)
    }
}

/// Every row's number, and all of the first and the last row of a batch. Answers the bytes of the values: numbers are 8.
fn check(batch: &Batch, before: u64) -> Result<u64, BenchError> {
    let mut bytes = 0;
    let last = batch.len().saturating_sub(1);
    for (at, row) in batch.rows().enumerate() {
        let expected = before + at as u64 + 1;
        let wrong = || BenchError::Row(expected);
        if u64::try_from(row.get::<i64>(0)?).map_err(|_| wrong())? != expected {
            return Err(wrong());
        }
        let (name, price, time): (&str, &str, &str) = (row.get(1)?, row.get(2)?, row.get(3)?);
        bytes += (name.len() + price.len() + time.len()) as u64 + 16;
        if at == 0 || at == last {
            let hundredths = expected * 125;
            let price_is = price == format!("{}.{:02}", hundredths / 100, hundredths % 100);
            let seconds = format!("{:02}:{:02}", expected / 60 % 60, expected % 60);
            let time_is = time.ends_with(&format!(":{seconds}+00"));
            let ratio_is = row.get::<f64>(4)? == expected as f64 / 8.0;
            if name != format!("row {expected}") || !price_is || !time_is || !ratio_is {
                return Err(wrong());
            }
        }
    }
    Ok(bytes)
}

impl Measured {
    fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.reading.as_secs_f64().max(f64::EPSILON)
    }

    fn megabytes_per_second(&self) -> f64 {
        self.value_bytes as f64 / 1e6 / self.reading.as_secs_f64().max(f64::EPSILON)
    }

    fn growth(&self) -> Resident {
        self.peak.above(self.before)
    }

    /// What is not as it must be.
    fn problem(&self, args: &StreamArgs) -> Option<String> {
        if self.rows != args.rows {
            return Some(format!("{} rows came, and {} were asked for", self.rows, args.rows));
        }
        let growth = self.growth();
        (growth.bytes() >= GROWTH_MAX_BYTES)
            .then(|| format!("the broker's memory grew by {growth}; 64 MiB is too much"))
    }

    /// The last lines, or the document.
    fn conclude(&self, args: &StreamArgs) -> ExitCode {
        let problem = self.problem(args);
        if args.json {
            let pause = self.pause.as_ref().map(|pause| {
                json!({
                    "seconds": pause.length.as_secs_f64(),
                    "at_row": pause.at_row,
                    "backend_waits_for": pause.backend_waits_for,
                    "broker_bytes_from": pause.from.bytes(),
                    "broker_bytes_to": pause.to.bytes(),
                })
            });
            let document = json!({
                "ok": problem.is_none(),
                "problem": problem,
                "rows": self.rows,
                "seconds": self.reading.as_secs_f64(),
                "rows_per_second": self.rows_per_second(),
                "value_bytes": self.value_bytes,
                "first_row_seconds": self.first_row.as_secs_f64(),
                "broker_bytes_before": self.before.bytes(),
                "broker_bytes_peak": self.peak.bytes(),
                "broker_bytes_growth": self.growth().bytes(),
                "pause": pause,
            });
            say(document.to_string());
        } else {
            say(format!("\nrows           {} in {:.1} s", self.rows, self.reading.as_secs_f64()));
            say(format!("rows/s         {:.0}", self.rows_per_second()));
            let megabytes = self.value_bytes as f64 / 1e6;
            say(format!("values         {megabytes:.0} MB, {:.1} MB/s", self.megabytes_per_second()));
            say(format!("first row      after {:.1} ms", self.first_row.as_secs_f64() * 1e3));
            let (before, peak, growth) = (self.before, self.peak, self.growth());
            say(format!(
                "broker memory  {before} before, {peak} at the most: {growth} more (less than 64 MiB is well)"
            ));
        }
        problem.map_or(ExitCode::SUCCESS, fail)
    }
}
