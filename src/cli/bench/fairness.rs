//! `tidegate bench fairness`: many more calls at a time than there are connections to PostgreSQL: how long each waits, and
//! whether a caller of few calls waits behind one of many.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde_json::{Value as Json, json};
use tidegate_client::{Client, Value, params};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::{
    broker::{Broker, BrokerError},
    conclude, note,
};
use crate::{
    cli::{fail, say},
    clock,
    dev::{Cluster, ClusterOptions, DevError},
};

/// Callers are told apart by their address: so many of this machine's own.
const ADDRESSES: u8 = 20;
/// Calls at a time on one HTTP/2 connection: what the broker allows by default, and some to spare.
const CALLS_PER_CONNECTION: usize = 1000;
/// Calls, one after the other, of each address that makes few.
const FEW: u32 = 50;
/// Nobody may wait longer than the mean times this.
const MAX_TO_MEAN: f64 = 3.0;
/// Longer than any run: what bounds it is the person who waits.
const TIMEOUT: Duration = Duration::from_secs(3600);

const READ: &str = "SELECT n FROM turns WHERE id = $1";
const WRITE: &str = "UPDATE turns SET n = n + 1 WHERE id = $1";

/// Measure whether many calls on few connections all have their turn.
#[derive(Args, Debug)]
#[command(after_help = "\
Starts a PostgreSQL and, as a process of its own, a broker, on free ports. So many calls at a time as --calls says come from
20 addresses, which are the callers, each again as soon as it was answered: reads, then writes. Then all of them come from one
address, and the others make 50 each, one at a time.

Examples:
  tidegate bench fairness
  tidegate bench fairness --calls 2000 --rounds 20
  tidegate bench fairness --json

Needs Linux (127.0.0.0/8). For figures that mean something use a release build.
Exit codes: 0 every call was answered, nobody waited longer than three times the mean, and who made few calls did not wait for
who made many; 1 otherwise; 2 the arguments are wrong.")]
pub(super) struct FairnessArgs {
    /// How many calls at a time
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    calls: u32,
    /// How many calls one after the other
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Connections to PostgreSQL
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(7..=90))]
    connections: u32,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub(super) enum FairnessError {
    #[error(transparent)]
    Cluster(#[from] DevError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("a call failed: {0}")]
    Call(#[from] tidegate_client::Error),
    #[error("connecting from {from}: {error}")]
    Connect { from: IpAddr, error: tonic::transport::Error },
    #[error("a caller has ended early")]
    Ended,
}

/// How long calls took, from each one's start to its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    calls: usize,
    mean: Duration,
    p99: Duration,
    max: Duration,
}

/// What was measured.
pub(super) struct Measured {
    reads: Waits,
    writes: Waits,
    /// Of the one address that all calls come from, and of those that make one call at a time.
    many: Waits,
    few: Waits,
    /// Connections to PostgreSQL at the end, when all that were opened are idle.
    connections: u32,
    connections_max: u32,
}

pub(super) async fn run(args: FairnessArgs) -> ExitCode {
    let measured = measure(args.calls, args.rounds, args.connections, |line| note(args.json, line));
    conclude(measured, |measured| measured.conclude(args.json)).await
}

/// Measures with so many calls at a time, so many one after the other, and so many connections to PostgreSQL.
pub(super) async fn measure(
    calls: u32,
    rounds: u32,
    connections: u32,
    note: impl Fn(String),
) -> Result<Measured, FairnessError> {
    note("Starting a PostgreSQL, and a broker in a process of its own …".into());
    let cluster = Cluster::start(ClusterOptions { replicas: 0, ..ClusterOptions::default() }).await?;
    let configuration = [
        ("TIDEGATE_POOL_CONNECTIONS_PER_HOST", connections.to_string()),
        // All are to wait, and nobody is to be sent away.
        ("TIDEGATE_POOL_MAX_QUEUE", "1000000".into()),
        ("TIDEGATE_POOL_MAX_QUEUE_AGE", "1h".into()),
    ];
    let (broker, client) = Broker::start(&cluster.primary().direct_url(), &configuration).await?;
    client.execute("CREATE TABLE turns (id bigint PRIMARY KEY, n bigint NOT NULL)", []).await?;
    client
        .execute(
            "INSERT INTO turns SELECT id, 0 FROM generate_series(0, $1) AS id",
            params![i64::from(calls) + i64::from(ADDRESSES)],
        )
        .await?;
    let run = Run { url: broker.url(), calls: calls as usize, rounds };
    let (reads, writes) = (run.evenly(READ).await?, run.evenly(WRITE).await?);
    note(format!("{calls} calls at a time, from {ADDRESSES} addresses alike\n  reads   {reads}\n  writes  {writes}"));
    let (many, few) = run.unevenly().await?;
    note(format!("all writes of one address, and one at a time of the others\n  the one {many}\n  others  {few}"));
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidegate'";
    let opened = cluster.primary().sql_value(count).await?;
    drop(client);
    broker.stop().await?;
    cluster.shutdown().await?;
    Ok(Measured { reads, writes, many, few, connections: opened, connections_max: connections })
}

struct Run<'a> {
    url: &'a str,
    calls: usize,
    rounds: u32,
}

impl Run<'_> {
    /// Every address has as many calls as the others.
    async fn evenly(&self, sql: &'static str) -> Result<Waits, FairnessError> {
        let mut callers = Vec::new();
        for address in 0..ADDRESSES {
            callers.push(Caller::connect(self.url, address, self.calls.div_ceil(usize::from(ADDRESSES))).await?);
        }
        let never = CancellationToken::new();
        let loops = (0..self.calls).map(|number| {
            let client = callers[number % callers.len()].client(number / callers.len());
            tokio::spawn(one_after_the_other(client, sql, number, self.rounds, never.clone()))
        });
        Waits::of(loops.collect()).await
    }

    /// One address has all the calls, again and again until the others are done; of each other one is under way at a time. (A
    /// number of calls for the one would take long: it has one turn in twenty.)
    async fn unevenly(&self) -> Result<(Waits, Waits), FairnessError> {
        let greedy = Caller::connect(self.url, 0, self.calls).await?;
        let mut others = Vec::new();
        for address in 1..ADDRESSES {
            others.push(Caller::connect(self.url, address, 1).await?);
        }
        let ended = CancellationToken::new();
        let start = |client: Client, number, rounds| {
            tokio::spawn(one_after_the_other(client, WRITE, number, rounds, ended.clone()))
        };
        let many = (0..self.calls).map(|number| start(greedy.client(number), number, u32::MAX)).collect();
        // Rows of their own: nobody is to wait for a lock.
        let few = others.iter().zip(0..).map(|(other, at)| start(other.client(0), self.calls + at, FEW)).collect();
        let few = Waits::of(few).await;
        ended.cancel();
        Ok((Waits::of(many).await?, few?))
    }
}

/// One address, with as many connections as its calls need.
struct Caller(Vec<Client>);

impl Caller {
    async fn connect(url: &str, address: u8, calls: usize) -> Result<Caller, FairnessError> {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + address));
        let error = |error| FairnessError::Connect { from, error };
        let mut clients = Vec::new();
        for _ in 0..calls.div_ceil(CALLS_PER_CONNECTION) {
            let endpoint = Endpoint::from_shared(url.to_owned()).map_err(error)?.local_address(Some(from));
            let channel = endpoint.connect().await.map_err(error)?;
            clients.push(Client::builder().timeout(TIMEOUT).remember_positions(false).over(channel));
        }
        Ok(Caller(clients))
    }

    fn client(&self, call: usize) -> Client {
        self.0[call % self.0.len()].clone()
    }
}

/// So many calls about one row, until `ended`: how long each took.
async fn one_after_the_other(
    client: Client,
    sql: &'static str,
    row: usize,
    rounds: u32,
    ended: CancellationToken,
) -> Result<Vec<Duration>, FairnessError> {
    let mut waits = Vec::new();
    while waits.len() < rounds as usize && !ended.is_cancelled() {
        let began = clock::now();
        let row = [Value::from(row as i64)];
        if sql == READ {
            client.read(sql, row).await?.rows().await?;
        } else {
            client.execute(sql, row).await?;
        }
        waits.push(clock::now().saturating_duration_since(began));
    }
    Ok(waits)
}

type Loop = JoinHandle<Result<Vec<Duration>, FairnessError>>;

impl Waits {
    /// Of all calls of these loops; the first error, if one failed.
    async fn of(loops: Vec<Loop>) -> Result<Waits, FairnessError> {
        let mut waits = Vec::new();
        for one in loops {
            waits.extend(one.await.map_err(|_| FairnessError::Ended)??);
        }
        waits.sort_unstable();
        let last = waits.len().checked_sub(1).ok_or(FairnessError::Ended)?;
        let mean = waits.iter().sum::<Duration>().div_f64(waits.len() as f64);
        Ok(Waits { calls: waits.len(), mean, p99: waits[last * 99 / 100], max: waits[last] })
    }

    /// The longest wait, in mean ones.
    pub(super) fn max_to_mean(&self) -> f64 {
        self.max.as_secs_f64() / self.mean.as_secs_f64().max(f64::EPSILON)
    }

    fn document(&self) -> Json {
        json!({
            "calls": self.calls,
            "mean_ms": milliseconds(self.mean),
            "p99_ms": milliseconds(self.p99),
            "max_ms": milliseconds(self.max),
            "max_to_mean": self.max_to_mean(),
        })
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Waits { calls, mean, p99, max } = *self;
        let (mean, p99, max) = (milliseconds(mean), milliseconds(p99), milliseconds(max));
        let ratio = self.max_to_mean();
        write!(out, "{calls:>8} calls waited {mean:.1} ms on average, p99 {p99:.1}, at most {max:.1}: {ratio:.2} times")
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Measured {
    /// The longest wait of a call, in mean ones, where all callers have as many.
    pub(super) fn max_to_mean(&self) -> f64 {
        self.reads.max_to_mean().max(self.writes.max_to_mean())
    }

    /// What is not as it must be.
    pub(super) fn problem(&self) -> Option<String> {
        let ratio = self.max_to_mean();
        if ratio > MAX_TO_MEAN {
            return Some(format!("a call waited {ratio:.2} times the mean; {MAX_TO_MEAN} times is the most"));
        }
        if self.few.max >= self.many.mean {
            let (few, many) = (milliseconds(self.few.max), milliseconds(self.many.mean));
            return Some(format!("a caller of few calls waited {few:.1} ms, one of many {many:.1} ms on average"));
        }
        let Measured { connections, connections_max: most, .. } = *self;
        (connections > most).then(|| format!("there were {connections} connections to PostgreSQL; {most} is the most"))
    }

    /// The last lines, or the document.
    fn conclude(&self, json: bool) -> ExitCode {
        let problem = self.problem();
        let ratio = self.max_to_mean();
        if json {
            let document = json!({
                "ok": problem.is_none(),
                "problem": problem,
                "max_to_mean": ratio,
                "reads": self.reads.document(),
                "writes": self.writes.document(),
                "caller_of_many": self.many.document(),
                "callers_of_few": self.few.document(),
                "postgresql_connections": self.connections,
                "postgresql_connections_max": self.connections_max,
            });
            say(document.to_string());
        } else {
            say(format!("\nlongest wait   {ratio:.2} times the mean ({MAX_TO_MEAN} is the most)"));
            let (few, many) = (milliseconds(self.few.mean), milliseconds(self.many.mean));
            say(format!("few calls      waited {few:.1} ms on average, beside {many:.1} ms of one caller's many"));
            let (connections, most) = (self.connections, self.connections_max);
            say(format!("PostgreSQL     {connections} connections, of {most} allowed; every call was answered"));
        }
        problem.map_or(ExitCode::SUCCESS, fail)
    }
}
