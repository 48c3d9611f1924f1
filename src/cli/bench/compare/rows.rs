//! Long results: how many rows a second each program takes in. psql, a plain loop and the broker's Rust client; in Python,
//! psycopg and the broker's stub.

use std::{io, path::Path, process::Stdio};

use serde_json::Value;
use tidegate_client::{Client, ReadOptions};
use tokio::process::Command;

use super::{arena::Arena, report::Rows, stats::Spread, workload::stream_sql};
use crate::{
    clock,
    dev::{DATABASE, SUPERUSER, Server},
    postgres::{PlainError, read_all_plain},
};

/// Both programs of Python, in one file that the other is passed to.
const PYTHON: &str = include_str!("../../../../bench/rows.py");
/// Where `scripts/setup bench` makes Python's environment, from the repository's root.
pub(super) const PYTHON_BIN: &str = "target/bench-venv/bin/python";
const PYTHON_CLIENT: &str = "clients/python/src";

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowsError {
    #[error("running {program}: {error}")]
    Io { program: &'static str, error: io::Error },
    #[error("{program} failed: {said}")]
    Failed { program: &'static str, said: String },
    #[error(transparent)]
    Plain(#[from] PlainError),
    #[error("a stream failed: {0}")]
    Read(#[from] tidegate_client::Error),
    #[error("{program} took in {rows} rows with the sum {sum}, which is wrong")]
    Wrong { program: &'static str, rows: u64, sum: i64 },
}

/// A program that takes in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Psql,
    Plain,
    Broker,
    Psycopg,
    PythonStub,
}

impl Reader {
    fn name(self) -> &'static str {
        match self {
            Reader::Psql => "psql COPY",
            Reader::Plain => "tokio-postgres",
            Reader::Broker | Reader::PythonStub => "broker",
            Reader::Psycopg => "psycopg",
        }
    }
}

/// In interleaved rounds: psql's COPY, a plain tokio-postgres loop, the broker.
pub(super) async fn streams(arena: &Arena, rows: u64, rounds: u32) -> Result<Vec<Rows>, RowsError> {
    interleaved(arena, &[Reader::Psql, Reader::Plain, Reader::Broker], rows, rounds).await
}

/// In interleaved rounds: psycopg, and the broker's stub.
pub(super) async fn python(arena: &Arena, rows: u64, rounds: u32) -> Result<Vec<Rows>, RowsError> {
    interleaved(arena, &[Reader::Psycopg, Reader::PythonStub], rows, rounds).await
}

async fn interleaved(arena: &Arena, readers: &[Reader], rows: u64, rounds: u32) -> Result<Vec<Rows>, RowsError> {
    let mut measured: Vec<Vec<f64>> = vec![Vec::new(); readers.len()];
    for _ in 0..rounds {
        for (reader, rates) in readers.iter().zip(&mut measured) {
            rates.push(rows as f64 / read(arena, *reader, rows).await?.max(f64::EPSILON));
        }
    }
    let all = readers.iter().zip(measured).filter_map(|(reader, rows_per_second)| {
        let median = Spread::of(rows_per_second.iter().copied())?.median;
        Some(Rows { system: reader.name(), rows, rows_per_second, median })
    });
    Ok(all.collect())
}

/// One program, once: how many seconds it took.
async fn read(arena: &Arena, reader: Reader, rows: u64) -> Result<f64, RowsError> {
    let (sql, replica) = (stream_sql(rows), arena.cluster.replica(0));
    let began = clock::now();
    let (count, sum) = match reader {
        // It says neither; its exit code says that nothing failed.
        Reader::Psql => copy(arena, replica, &sql).await.map(|()| (rows, sum_of(rows)))?,
        Reader::Plain => read_all_plain(&replica.direct_url(), &sql).await?,
        Reader::Broker => through_broker(&arena.client, &sql).await?,
        Reader::Psycopg => return in_python(reader, &replica.direct_url(), &sql, rows).await,
        Reader::PythonStub => return in_python(reader, arena.broker.url(), &sql, rows).await,
    };
    let seconds = clock::now().saturating_duration_since(began).as_secs_f64();
    check(reader.name(), rows, count, sum)?;
    Ok(seconds)
}

fn sum_of(rows: u64) -> i64 {
    i64::try_from(rows * (rows + 1) / 2).unwrap_or(i64::MAX)
}

fn check(program: &'static str, expected: u64, rows: u64, sum: i64) -> Result<(), RowsError> {
    if (rows, sum) == (expected, sum_of(expected)) { Ok(()) } else { Err(RowsError::Wrong { program, rows, sum }) }
}

async fn copy(arena: &Arena, replica: &Server, sql: &str) -> Result<(), RowsError> {
    let mut command = arena.cluster.installation().command("psql");
    command.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", SUPERUSER, "-d", DATABASE]);
    command.args(["-p", &replica.port().to_string(), "-c", &format!("COPY ({sql}) TO STDOUT")]);
    succeeded("psql", command.stdout(Stdio::null())).await.map(|_| ())
}

/// Takes each value out, as the plain loop does.
async fn through_broker(client: &Client, sql: &str) -> Result<(u64, i64), RowsError> {
    let mut stream = client.read_with(sql, [], ReadOptions::new()).await?;
    let (mut count, mut sum) = (0, 0_i64);
    while let Some(batch) = stream.next().await? {
        for row in batch.rows() {
            let values: (&str, f64, bool, &str) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            std::hint::black_box(values);
            sum = sum.wrapping_add(row.get(0)?);
        }
        count += batch.len() as u64;
    }
    Ok((count, sum))
}

/// The program measures itself, without its own start.
async fn in_python(reader: Reader, address: &str, sql: &str, rows: u64) -> Result<f64, RowsError> {
    let program = if reader == Reader::Psycopg { "psycopg" } else { "the Python stub" };
    let mut command = Command::new(PYTHON_BIN);
    command.args(["-c", PYTHON, if reader == Reader::Psycopg { "psycopg" } else { "broker" }, address, sql]);
    command.env("PYTHONPATH", PYTHON_CLIENT).stdin(Stdio::null()).kill_on_drop(true);
    let said = succeeded(program, &mut command).await?;
    let document: Value = serde_json::from_str(&said).unwrap_or_default();
    let (count, sum) = (document["rows"].as_u64(), document["sum"].as_i64());
    check(program, rows, count.unwrap_or_default(), sum.unwrap_or_default())?;
    document["seconds"].as_f64().ok_or(RowsError::Failed { program, said })
}

async fn succeeded(program: &'static str, command: &mut Command) -> Result<String, RowsError> {
    let output = command.kill_on_drop(true).output().await.map_err(|error| RowsError::Io { program, error })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(RowsError::Failed { program, said: said.lines().last().unwrap_or_default().to_owned() })
}

/// Draws the charts of a report into its folder.
pub(super) async fn draw(folder: &Path) -> Result<(), RowsError> {
    let mut command = Command::new(PYTHON_BIN);
    command.args(["-c", include_str!("../../../../bench/charts.py")]).arg(folder).stdin(Stdio::null());
    succeeded("bench/charts.py", &mut command).await.map(drop)
}
