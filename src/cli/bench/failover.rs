//! `tidegate bench failover`: crashes and planned switch-overs under steady writers through a broker; how long after each
//! promotion writes go on, the longest that a writer waited, and whether all that was acknowledged is there.

use std::{
    collections::HashMap,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};
use tidegate_client::{Client, Outcome, params};
use tokio::{sync::watch, task::JoinSet};

use super::broker::{Broker, BrokerError};
use crate::{
    cli::{fail, local::PATIENCE, say, stop_signal},
    clock,
    dev::{Cluster, ClusterOptions, DevError, Server},
};

const TABLE: &str = "CREATE TABLE journal (writer bigint NOT NULL, n bigint NOT NULL)";
const INSERT: &str = "INSERT INTO journal VALUES ($1, $2)";
const SYNCHRONOUS: &str = "synchronous_standby_names";

/// Measure how long writes wait for a failover.
#[derive(Args, Debug)]
#[command(after_help = "\
Starts a PostgreSQL primary with two replicas and, as a process of its own, a broker, on free ports. Writers insert rows
one after the other without a pause, while round by round the primary crashes (kill -9, with synchronous replication)
or is stopped in order, and a replica is promoted; the old primary comes back as a replica.

Examples:
  tidegate bench failover
  tidegate bench failover --rounds 20 --writers 64
  tidegate bench failover --json

Times are from the return of pg_promote() to the answer of the first write on the new primary; below 0: it was answered
before that, as pg_promote() looks every 100 ms only.
Exit codes: 0 in every round writes went on within a second, and every acknowledged write is there, once; 1 otherwise;
2 the arguments are wrong.")]
pub(super) struct FailoverArgs {
    /// How many failovers: crashes and planned switch-overs in turns
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How many writers at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    writers: u32,
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
    #[error("making the table failed: {0}")]
    Table(#[from] tidegate_client::Error),
    #[error("no write went on within {PATIENCE:?} after a promotion")]
    NotResumed,
    #[error("a writer has ended early")]
    Writer,
}

/// One failover.
struct Round {
    is_crash: bool,
    /// From pg_promote()'s return to the first answer of the new primary, in milliseconds.
    resumed_ms: i64,
    /// The longest that one of the writers was without an acknowledgement.
    gap: Duration,
}

/// What all rounds came to.
struct Measured {
    rounds: Vec<Round>,
    acknowledged: usize,
    /// Calls that failed: not kept for certain, and of unknown outcome.
    failed: usize,
    unknown: usize,
    /// Acknowledged rows that are not there, or more than once.
    missing: usize,
    doubled: usize,
}

pub(super) async fn run(args: FailoverArgs) -> ExitCode {
    let measured = tokio::select! {
        measured = measure(&args) => measured,
        // What was started is stopped by being dropped.
        () = stop_signal() => return fail("stopped before the end"),
    };
    match measured {
        Ok(measured) => measured.conclude(&args),
        Err(error) => fail(error),
    }
}

async fn measure(args: &FailoverArgs) -> Result<Measured, BenchError> {
    let note = |line: String| {
        if !args.json {
            say(line);
        }
    };
    note("Starting a PostgreSQL with two replicas, and a broker in a process of its own …".into());
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let replicas: Vec<_> = cluster.replicas().iter().map(|replica| replica.direct_url()).collect();
    let configuration = [("TIDEGATE_REPLICAS", replicas.join(","))];
    let (broker, client) = Broker::start(&cluster.primary().direct_url(), &configuration).await?;
    client.execute(TABLE, []).await?;
    let mut writers = Writers::start(&client, args.writers);
    let mut rounds = Vec::new();
    let mut servers = cluster.servers().to_vec();
    for number in 1..=args.rounds {
        let round = fail_over(&servers, number, &mut writers).await?;
        note(format!(
            "{number:>4}. {:<12} writes went on {}; the longest wait of a writer was {:.0} ms",
            name(round.is_crash),
            after(round.resumed_ms),
            round.gap.as_secs_f64() * 1e3
        ));
        rounds.push(round);
        servers.rotate_left(1);
    }
    let told = writers.finish().await?;
    let measured = judge(rounds, told, &servers[0]).await?;
    drop(client);
    broker.stop().await?;
    cluster.shutdown().await?;
    Ok(measured)
}

/// Ends the first server, and promotes the second; both others follow it.
async fn fail_over(servers: &[Arc<Server>], number: u32, writers: &mut Writers) -> Result<Round, BenchError> {
    let is_crash = number % 2 == 1;
    let [old, heir, other] = servers else { return Err(BenchError::Writer) };
    heir.set(SYNCHRONOUS, "").await?;
    // What was acknowledged before a crash is to be on the heir.
    old.set(SYNCHRONOUS, if is_crash { heir.name() } else { "" }).await?;
    heir.catch_up(old).await?;
    writers.all_on(number).await?;
    writers.begin_round(number);
    if is_crash {
        old.kill().await?
    } else {
        old.stop().await?
    }
    let promoted = "SELECT pg_promote(true, 60); SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let promoted = heir.sql(promoted).await?;
    let promoted_ms: i64 = promoted.lines().last().and_then(|line| line.parse().ok()).ok_or(BenchError::NotResumed)?;
    let (resumed_ms, gap) = writers.all_on(number + 1).await?;
    if is_crash {
        old.rebuild_from(heir).await?
    } else {
        old.rejoin(heir).await?
    }
    other.follow(heir).await?;
    Ok(Round { is_crash, resumed_ms: resumed_ms - promoted_ms, gap })
}

/// What a writer has seen since the round began.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    round: u32,
    /// The timeline of its last acknowledged write.
    timeline: u32,
    /// When the first one on that timeline was acknowledged (Unix time in milliseconds).
    since_ms: i64,
    gap: Duration,
}

/// What a writer was told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<(i64, i64)>,
    failed: usize,
    unknown: usize,
}

struct Writers {
    tasks: JoinSet<Told>,
    seen: Vec<watch::Receiver<Seen>>,
    /// The present round; 0: stop.
    round: watch::Sender<u32>,
}

impl Writers {
    fn start(client: &Client, count: u32) -> Writers {
        let round = watch::channel(1).0;
        let (mut tasks, mut seen) = (JoinSet::new(), Vec::new());
        for number in 0..count {
            let (sender, receiver) = watch::channel(Seen::default());
            seen.push(receiver);
            let client = client.for_session(format!("writer {number}"));
            tasks.spawn(write_on(client, i64::from(number), round.subscribe(), sender));
        }
        Writers { tasks, seen, round }
    }

    fn begin_round(&self, number: u32) {
        self.round.send_replace(number);
    }

    /// Until each has had a write acknowledged on this timeline: when the first one had, and the longest gap of all.
    async fn all_on(&mut self, timeline: u32) -> Result<(i64, Duration), BenchError> {
        let (mut first, mut gap) = (i64::MAX, Duration::ZERO);
        for writer in &mut self.seen {
            let on = tokio::time::timeout(PATIENCE, writer.wait_for(|seen| seen.timeline >= timeline)).await;
            let seen = *on.map_err(|_| BenchError::NotResumed)?.map_err(|_| BenchError::Writer)?;
            (first, gap) = (first.min(seen.since_ms), gap.max(seen.gap));
        }
        Ok((first, gap))
    }

    async fn finish(mut self) -> Result<Told, BenchError> {
        self.round.send_replace(0);
        let mut all = Told::default();
        while let Some(told) = self.tasks.join_next().await {
            let told = told.map_err(|_| BenchError::Writer)?;
            all.acknowledged.extend(told.acknowledged);
            (all.failed, all.unknown) = (all.failed + told.failed, all.unknown + told.unknown);
        }
        Ok(all)
    }
}

async fn write_on(client: Client, writer: i64, round: watch::Receiver<u32>, seen: watch::Sender<Seen>) -> Told {
    let (mut told, mut last): (Told, Instant) = (Told::default(), clock::now());
    for n in 1.. {
        let round = *round.borrow();
        if round == 0 {
            break;
        }
        match client.execute(INSERT, params![writer, n]).await {
            Ok(written) => {
                told.acknowledged.push((writer, n));
                let (now, unix_ms) = (clock::now(), i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX));
                let gap = now.saturating_duration_since(last);
                last = now;
                seen.send_modify(|seen| {
                    if seen.round != round {
                        *seen = Seen { round, gap: Duration::ZERO, ..*seen };
                    }
                    if seen.timeline != written.receipt.timeline {
                        (seen.timeline, seen.since_ms) = (written.receipt.timeline, unix_ms);
                    }
                    seen.gap = seen.gap.max(gap);
                });
            }
            Err(error) if error.outcome() == Outcome::Unknown => told.unknown += 1,
            Err(_) => told.failed += 1,
        }
    }
    told
}

/// Holds what the writers were told against what there is.
async fn judge(rounds: Vec<Round>, told: Told, primary: &Server) -> Result<Measured, BenchError> {
    let rows = primary.sql("SELECT writer, n, count(*) FROM journal GROUP BY 1, 2").await?;
    let numbers = |line: &str| {
        let mut numbers = line.split('|').map_while(|number| number.parse::<i64>().ok());
        Some(((numbers.next()?, numbers.next()?), numbers.next()?))
    };
    let rows: HashMap<_, _> = rows.lines().filter_map(numbers).collect();
    let Told { acknowledged, failed, unknown } = told;
    let missing = acknowledged.iter().filter(|row| !rows.contains_key(row)).count();
    let doubled = rows.values().filter(|times| **times > 1).count();
    Ok(Measured { rounds, acknowledged: acknowledged.len(), failed, unknown, missing, doubled })
}

fn name(is_crash: bool) -> &'static str {
    if is_crash { "crash" } else { "switch-over" }
}

fn after(ms: i64) -> String {
    if ms < 0 { format!("{} ms before pg_promote() returned", -ms) } else { format!("{ms} ms after pg_promote()") }
}

impl Measured {
    fn slowest_ms(&self) -> i64 {
        self.rounds.iter().map(|round| round.resumed_ms).max().unwrap_or_default()
    }

    /// What is not as it must be.
    fn problem(&self) -> Option<String> {
        if self.missing + self.doubled > 0 {
            return Some(format!("{} acknowledged writes are missing, {} rows doubled", self.missing, self.doubled));
        }
        let slowest = self.slowest_ms();
        (slowest >= 1000).then(|| format!("writes went on {slowest} ms after a promotion; a second is too much"))
    }

    /// The last lines, or the document.
    fn conclude(&self, args: &FailoverArgs) -> ExitCode {
        let problem = self.problem();
        if args.json {
            let round = |round: &Round| {
                json!({
                    "kind": name(round.is_crash),
                    "resumed_after_promotion_ms": round.resumed_ms,
                    "longest_gap_ms": round.gap.as_secs_f64() * 1e3,
                })
            };
            let document = json!({
                "ok": problem.is_none(),
                "problem": problem,
                "writers": args.writers,
                "rounds": self.rounds.iter().map(round).collect::<Value>(),
                "resumed_after_promotion_ms_max": self.slowest_ms(),
                "acknowledged": self.acknowledged,
                "failed": self.failed,
                "unknown": self.unknown,
                "missing": self.missing,
                "doubled": self.doubled,
            });
            say(document.to_string());
        } else {
            let gap = self.rounds.iter().map(|round| round.gap).max().unwrap_or_default();
            say(format!("\nwrites went on   {} at the latest (less than 1000 ms is well)", after(self.slowest_ms())));
            say(format!("longest wait     {:.0} ms, the fault and the promotion included", gap.as_secs_f64() * 1e3));
            say(format!("acknowledged     {}: {} missing, {} doubled", self.acknowledged, self.missing, self.doubled));
            say(format!("failed           {}, and {} of unknown outcome", self.failed, self.unknown));
        }
        problem.map_or(ExitCode::SUCCESS, fail)
    }
}
