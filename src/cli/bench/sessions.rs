//! `tidegate bench sessions`: what an idle Session stream takes of a broker's memory, and what sessions take that have
//! written once and are gone.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tidegate_client::{Client, RouteReason, Session, params};

use super::{
    broker::{Broker, BrokerError, Resident},
    conclude, note,
};
use crate::{
    cli::{fail, say},
    dev::{Cluster, ClusterOptions, DevError, Server},
};

/// How much an idle stream may take.
const STREAM_BYTES_MAX: u64 = 20 << 10;
/// How much the broker may grow by sessions that it remembers: less than any entry for each would take.
const REMEMBERED_BYTES_MAX: u64 = 2 << 20;
/// Streams on one HTTP/2 connection: what the broker allows by default, and one to spare for other calls.
const STREAMS_PER_CONNECTION: u32 = 1000;
/// Calls at a time, while streams are opened and sessions write.
const AT_A_TIME: usize = 64;
/// Sessions that write before the memory is measured, so that pools and buffers have their size.
const WARM_UP: u32 = 5000;
/// How many of the remembered sessions are asked whether they are.
const ASKED: u32 = 100;
/// What ends in the background has ended by then.
const SETTLING: Duration = Duration::from_secs(1);

/// Measure what idle sessions, and sessions that are gone, take of a broker's memory.
#[derive(Args, Debug)]
#[command(after_help = "\
Starts a PostgreSQL primary with a replica and, as a process of its own, a broker, on free ports. Opens Session streams, 1000
on a connection, and leaves them idle; lets each write once; closes them. Then lets as many sessions again as --remembered
says write once by ExecuteWrite, and asks some of them whether the broker knows of it.

Examples:
  tidegate bench sessions
  tidegate bench sessions --streams 50000 --remembered 0
  tidegate bench sessions --json

Needs Linux (/proc). For figures that mean something use a release build.
Exit codes: 0 an idle stream takes 20 KiB at most and no connection to PostgreSQL, and remembered sessions take nothing; 1
otherwise; 2 the arguments are wrong.")]
pub(super) struct SessionsArgs {
    /// How many Session streams
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    streams: u32,
    /// How many sessions that write once and are gone
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    remembered: u32,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionsError {
    #[error(transparent)]
    Cluster(#[from] DevError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("a session failed: {0}")]
    Session(#[from] tidegate_client::Error),
}

/// What was measured.
pub(super) struct Measured {
    streams: u32,
    /// The broker with the connections alone.
    before: Resident,
    /// With every stream open, and nothing asked yet.
    idle: Resident,
    /// With every stream idle again, after a write each.
    used: Resident,
    /// With every stream closed.
    closed: Resident,
    /// Connections to PostgreSQL before the streams, and with them.
    connections: (u32, u32),
    remembered: Remembered,
}

/// What sessions take that are gone.
struct Remembered {
    sessions: u32,
    before: Resident,
    after: Resident,
    /// Of those asked, how many the broker knew to have written.
    known: u32,
    asked: u32,
}

pub(super) async fn run(args: SessionsArgs) -> ExitCode {
    let measured = measure(args.streams, args.remembered, |line| note(args.json, line));
    conclude(measured, |measured| measured.conclude(args.json)).await
}

/// Measures with so many idle streams, and so many remembered sessions.
pub(super) async fn measure(streams: u32, remembered: u32, note: impl Fn(String)) -> Result<Measured, SessionsError> {
    note("Starting a PostgreSQL with a replica, and a broker in a process of its own …".into());
    let cluster = Cluster::start(ClusterOptions { replicas: 1, ..ClusterOptions::default() }).await?;
    let configuration = [
        ("TIDEGATE_REPLICAS", cluster.replica(0).direct_url()),
        // What was written is to be known until it was asked for.
        ("TIDEGATE_CONSISTENCY_STICK_TIMEOUT", "1h".into()),
    ];
    let (broker, client) = Broker::start(&cluster.primary().direct_url(), &configuration).await?;
    client.execute("CREATE TABLE visits (session bigint NOT NULL)", []).await?;
    let run = Run { broker: &broker, client: &client, server: cluster.primary(), note: &note };
    write_once(&client, "warm-up", WARM_UP.min(remembered)).await?;
    let (idle, connections) = run.streams(streams).await?;
    let [before, idle, used, closed] = idle;
    let remembered = run.remember(remembered).await?;
    drop(client);
    broker.stop().await?;
    cluster.shutdown().await?;
    Ok(Measured { streams, before, idle, used, closed, connections, remembered })
}

struct Run<'a> {
    broker: &'a Broker,
    client: &'a Client,
    server: &'a Server,
    note: &'a dyn Fn(String),
}

impl Run<'_> {
    /// The memory before, with idle streams, with such as wrote once, and without them; the connections to PostgreSQL before
    /// and with idle ones.
    async fn streams(&self, count: u32) -> Result<([Resident; 4], (u32, u32)), SessionsError> {
        let mut clients = Vec::new();
        for _ in 0..count.div_ceil(STREAMS_PER_CONNECTION) {
            let client = Client::connect(self.broker.url()).await?;
            // The connection's own buffers are not the streams'.
            client.session().await?.close().await?;
            clients.push(client);
        }
        let connections_before = self.connections().await?;
        let before = self.settled().await?;
        (self.note)(format!("Opening {count} streams on {} connections …", clients.len()));
        let open = |number: u32| {
            let client = clients[(number / STREAMS_PER_CONNECTION) as usize].for_session(format!("stream {number}"));
            async move { client.session().await }
        };
        let opening = stream::iter(0..count).map(open).buffer_unordered(AT_A_TIME);
        let sessions: Vec<Session> = opening.try_collect().await?;
        let idle = self.settled().await?;
        let connections_with = self.connections().await?;
        (self.note)(format!("{:>12} idle streams: broker {before}, then {idle}", sessions.len()));
        let write = |(number, mut session): (usize, Session)| async move {
            session.write("INSERT INTO visits VALUES ($1)", params![number as i64]).await?;
            Ok::<_, SessionsError>(session)
        };
        let writing = stream::iter(sessions).enumerate().map(write).buffer_unordered(AT_A_TIME);
        let sessions: Vec<Session> = writing.try_collect().await?;
        let used = self.settled().await?;
        (self.note)(format!("{:>12} idle again after a write each: broker {used}", sessions.len()));
        let closing = stream::iter(sessions).map(Session::close).buffer_unordered(AT_A_TIME);
        closing.try_collect::<()>().await?;
        let closed = self.settled().await?;
        Ok(([before, idle, used, closed], (connections_before, connections_with)))
    }

    async fn remember(&self, sessions: u32) -> Result<Remembered, SessionsError> {
        let before = self.settled().await?;
        (self.note)(format!("{sessions} sessions write once …"));
        write_once(self.client, "visitor", sessions).await?;
        let after = self.settled().await?;
        let asked = ASKED.min(sessions);
        let step = sessions.checked_div(asked).unwrap_or(1) as usize;
        let mut known = 0;
        for number in (0..sessions).step_by(step).take(asked as usize) {
            // A client without tokens: the broker's own memory is all that can tell.
            let visitor = self.client.for_session(format!("visitor {number}"));
            let rows = visitor.read("SELECT 1", []).await?.rows().await?;
            known += u32::from(rows.receipt().reason() != RouteReason::NoPosition);
        }
        Ok(Remembered { sessions, before, after, known, asked })
    }

    async fn settled(&self) -> Result<Resident, SessionsError> {
        tokio::time::sleep(SETTLING).await;
        Ok(self.broker.resident()?)
    }

    async fn connections(&self) -> Result<u32, SessionsError> {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidegate'";
        Ok(self.server.sql_value(count).await?)
    }
}

/// So many sessions of that name write once each.
async fn write_once(client: &Client, name: &str, sessions: u32) -> Result<(), SessionsError> {
    let write = |number: u32| async move {
        let visitor = client.for_session(format!("{name} {number}"));
        visitor.execute("INSERT INTO visits VALUES ($1)", params![i64::from(number)]).await.map(drop)
    };
    let writing = stream::iter(0..sessions).map(write).buffer_unordered(AT_A_TIME);
    Ok(writing.try_collect::<()>().await?)
}

impl Measured {
    /// Resident memory of the broker for each idle stream, in bytes.
    pub(super) fn idle_bytes_per_stream(&self) -> u64 {
        self.per_stream(self.idle)
    }

    /// By how many bytes the broker grew with the sessions that it remembers.
    pub(super) fn remembered_bytes(&self) -> u64 {
        self.remembered.after.above(self.remembered.before).bytes()
    }

    fn per_stream(&self, resident: Resident) -> u64 {
        resident.above(self.before).bytes() / u64::from(self.streams)
    }

    /// What is not as it must be.
    pub(super) fn problem(&self) -> Option<String> {
        let (bytes, (before, with)) = (self.idle_bytes_per_stream(), self.connections);
        let Remembered { known, asked, .. } = self.remembered;
        if bytes > STREAM_BYTES_MAX {
            return Some(format!("an idle stream takes {}; 20 KiB is the most it may", kib(bytes)));
        }
        if with > before {
            return Some(format!("with idle streams there are {with} connections to PostgreSQL, and {before} without"));
        }
        if known < asked {
            return Some(format!("of {asked} sessions that wrote, the broker knows {known}"));
        }
        let grown = self.remembered_bytes();
        (grown > REMEMBERED_BYTES_MAX)
            .then(|| format!("remembered sessions take {}; there is to be no growth", kib(grown)))
    }

    /// The last lines, or the document.
    fn conclude(&self, json: bool) -> ExitCode {
        let problem = self.problem();
        let (streams, Remembered { sessions, known, asked, .. }) = (self.streams, &self.remembered);
        let used = self.per_stream(self.used);
        if json {
            let document = json!({
                "ok": problem.is_none(),
                "problem": problem,
                "streams": streams,
                "bytes_per_idle_stream": self.idle_bytes_per_stream(),
                "bytes_per_idle_stream_after_a_write": used,
                "broker_bytes_before": self.before.bytes(),
                "broker_bytes_idle": self.idle.bytes(),
                "broker_bytes_closed": self.closed.bytes(),
                "postgresql_connections_before": self.connections.0,
                "postgresql_connections_idle": self.connections.1,
                "remembered": sessions,
                "remembered_bytes_growth": self.remembered_bytes(),
                "known": known,
                "asked": asked,
            });
            say(document.to_string());
        } else {
            let idle = self.idle_bytes_per_stream();
            say(format!(
                "\nidle streams   {streams}: {} each (20 KiB is the most); {} each after a write",
                kib(idle),
                kib(used)
            ));
            say(format!("broker memory  {} before, {} idle, {} closed", self.before, self.idle, self.closed));
            say(format!(
                "PostgreSQL     {} connections before, {} with idle streams",
                self.connections.0, self.connections.1
            ));
            let grown = kib(self.remembered_bytes());
            say(format!("remembered     {sessions} sessions: {grown} more; {known} of {asked} asked are known"));
        }
        problem.map_or(ExitCode::SUCCESS, fail)
    }
}

fn kib(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
