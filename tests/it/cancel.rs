//! A caller that leaves, or whose time is up, stops its statement, and nobody else's (rule 15). What became of a write is
//! said truly, or said to be unknown; a commit is never cancelled.

use std::{future::Future, time::Duration};

use tidegate::dev::{ClusterOptions, DATABASE};
use tidegate_client::{
    Begin, Client, Error, HostRole, Outcome, ReadOptions, RouteReason, Statement, WriteOptions, params,
};
use tokio::task::{JoinHandle, yield_now};
use tonic::Code;

use crate::{
    asking::{ask, primary_alone, strong, tell, until_backends},
    harness::{Bed, poll_until, read_int},
};

const SLEEP: &str = "SELECT pg_sleep(600)::text";
const SLEEPS: &str = "state = 'active' AND query LIKE '%pg_sleep%'";

async fn start() -> Bed {
    // One connection for reads, one for writes: whoever comes next gets the one on which a statement was cancelled.
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed
}

/// A client whose calls have little time.
async fn hurried(bed: &Bed, session_id: &str, timeout: Duration) -> Client {
    let builder = Client::builder().database(DATABASE).session_id(session_id).timeout(timeout);
    builder.connect(bed.url()).await.expect("the broker accepts connections")
}

/// The ways to run for ten minutes.
fn sleepers(client: &Client) -> Vec<(&'static str, JoinHandle<Result<(), Error>>)> {
    fn run(client: &Client, sql: &'static str) -> JoinHandle<Result<(), Error>> {
        let client = client.clone();
        tokio::spawn(async move { client.execute(sql, []).await.map(drop) })
    }
    let reader = client.clone();
    let read = tokio::spawn(async move { reader.read(SLEEP, []).await.map(drop) });
    let in_session = client.clone();
    let session = tokio::spawn(async move {
        let mut session = in_session.session().await?;
        let mut transaction = session.begin(Begin::new()).await?;
        transaction.write(SLEEP, []).await.map(drop)
    });
    vec![
        ("a read", read),
        ("a write by itself", run(client, "INSERT INTO marks SELECT 1 FROM pg_sleep(600)")),
        ("a write with rows", run(client, SLEEP)),
        ("a DO block", run(client, "DO $$ BEGIN PERFORM pg_sleep(600); END $$")),
        ("a session's transaction", session),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_stops_its_statement() {
    // Room for all at once.
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 17).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    let primary = bed.cluster.primary();
    let running = sleepers(&bed.client().await);
    until_backends(primary, SLEEPS, running.len() as i64).await;
    for (_, call) in running {
        call.abort();
    }
    until_backends(primary, SLEEPS, 0).await;
    until_backends(primary, "state LIKE 'idle in transaction%'", 0).await;
    assert_eq!(tell(&bed.client().await, "SELECT count(*) FROM marks").await.expect("a count"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dropped_half_read_stops_its_statement() {
    let bed = start().await;
    let client = bed.client().await;
    let endless = "SELECT repeat('x', 1000), generate_series(1, 1000000000)";
    let mut stream = client.read_with(endless, [], strong()).await.expect("it starts");
    assert!(stream.next().await.expect("rows").is_some());
    drop(stream);
    until_backends(bed.cluster.primary(), "state = 'active' AND query LIKE '%generate_series%'", 0).await;
    assert_eq!(ask(&client, "SELECT 1").await.expect("the connection serves again"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_stops_the_statement_and_says_what_became_of_it() {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 17).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    let client = hurried(&bed, "", Duration::from_secs(3)).await;
    for (what, call) in sleepers(&client) {
        let error = call.await.expect("the call ends").expect_err(what);
        assert_eq!(error.code(), Code::DeadlineExceeded, "{what}: {error}");
        // The client's own timer may win against the broker's answer: then it knows nothing.
        assert!(matches!(error.outcome(), Outcome::RolledBack | Outcome::Unknown), "{what}: {:?}", error.outcome());
    }
    until_backends(bed.cluster.primary(), SLEEPS, 0).await;
    assert_eq!(tell(&bed.client().await, "SELECT count(*) FROM marks").await.expect("a count"), "0");
}

/// Starts a call, leaves it at some point, and at once runs another on the same connection: it must not be hit.
async fn leave_and_go_on<F: Future<Output = ()> + Send + 'static>(
    rounds: u64,
    call: impl Fn() -> F,
    next: impl AsyncFn() -> String,
) {
    let mut pids = Vec::new();
    for round in 0..rounds {
        let sleeper = tokio::spawn(call());
        match round % 5 {
            0 => yield_now().await,
            // At another point each time: while it is sent, prepared, begun, or runs.
            _ => tokio::time::sleep(Duration::from_micros(round * 60)).await,
        }
        sleeper.abort();
        pids.push(next().await);
    }
    pids.dedup();
    assert!((pids.len() as u64) < rounds / 2, "the connection is used again more often than not: {} pids", pids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_cancel_never_hits_the_next_read_of_the_connection() {
    let bed = start().await;
    let client = bed.client().await;
    let call = || {
        let client = client.clone();
        async move { drop(client.read_with("SELECT pg_sleep(10)::text", [], strong()).await) }
    };
    let next =
        async || ask(&client, "SELECT pg_backend_pid() FROM pg_sleep(0.002)").await.expect("nobody cancelled this");
    leave_and_go_on(200, call, next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_cancel_never_hits_the_next_write_of_the_connection() {
    let bed = start().await;
    let client = bed.client().await;
    for sleep in ["INSERT INTO marks SELECT 1 FROM pg_sleep(10)", "SELECT pg_sleep(10)::text"] {
        let call = || {
            let client = client.clone();
            async move { drop(client.execute(sleep, []).await) }
        };
        let next = async || {
            tell(&client, "SELECT pg_backend_pid() FROM pg_sleep(0.002)").await.expect("nobody cancelled this")
        };
        leave_and_go_on(100, call, next).await;
    }
    assert_eq!(tell(&client, "SELECT count(*) FROM marks").await.expect("a count"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_deadline_passes_is_never_reported_as_what_it_is_not() {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 13).await;
    let client = bed.client().await;
    client.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    // Around the statement's own 30 ms, and two where it is clear.
    let limits: Vec<_> = (0..60).map(|step| 10 + step).chain([1, 10_000]).collect();
    let mut told = Vec::new();
    for (n, limit) in limits.iter().enumerate() {
        let mark = || Statement::new("INSERT INTO marks SELECT $1 FROM pg_sleep(0.03)").bind(n as i64);
        let statements = if n % 2 == 0 { vec![mark()] } else { vec![Statement::new("SELECT 1"), mark()] };
        let options = WriteOptions::new().timeout(Duration::from_millis(*limit));
        let outcome = match client.write_with(statements, options).await {
            Ok(_) => Outcome::Committed,
            Err(error) => {
                assert_eq!(error.code(), Code::DeadlineExceeded, "{limit} ms: {error}");
                error.outcome()
            }
        };
        told.push(outcome);
    }
    until_backends(bed.cluster.primary(), SLEEPS, 0).await;
    for (n, (outcome, limit)) in told.iter().zip(&limits).enumerate() {
        let rows = tell(&client, &format!("SELECT count(*) FROM marks WHERE n = {n}")).await.expect("a count");
        let honest = match outcome {
            Outcome::Committed => rows == "1",
            Outcome::NotExecuted | Outcome::RolledBack => rows == "0",
            Outcome::Unknown => rows == "0" || rows == "1",
            Outcome::Unspecified => false,
        };
        assert!(honest, "{limit} ms: told {outcome:?}, and there are {rows} rows");
    }
    assert_eq!(told.last(), Some(&Outcome::Committed));
    assert!(told.contains(&Outcome::RolledBack) || told.contains(&Outcome::NotExecuted), "{told:?}");
}

/// A cluster whose first replica must confirm each commit, and does not answer: a COMMIT waits until it is released.
async fn with_commits_held() -> Bed {
    let bed = Bed::with(ClusterOptions::default(), |_| {}).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed.wait_until_caught_up().await;
    bed.cluster.primary().set("synchronous_standby_names", "replica1").await.expect("the setting is changed");
    bed.cluster.replica(0).pause().await.expect("the replica stands still");
    bed
}

/// Until the commit is released its session reads from the primary; afterwards the row is there, for everybody.
async fn expect_primary_then_release(bed: &Bed, writer: &Client, n: i64) {
    let count = format!("SELECT count(*) FROM marks WHERE n = {n}");
    let (rows, receipt) = read_int(writer, &count, ReadOptions::new()).await;
    assert_eq!((rows, receipt.role(), receipt.reason()), (0, HostRole::Primary, RouteReason::PositionUnknown));
    let other = bed.client().await;
    assert_eq!(read_int(&other, &count, ReadOptions::new()).await.1.reason(), RouteReason::NoPosition);

    bed.cluster.replica(0).unpause().await.expect("the replica goes on");
    poll_until("the commit is done", || async { read_int(writer, &count, ReadOptions::new()).await.0 == 1 }).await;
    let (_, receipt) = read_int(writer, &count, ReadOptions::new()).await;
    assert_eq!(receipt.reason(), RouteReason::PositionUnknown, "for one stick timeout more");
    assert_eq!(ask(&other, &count).await.expect("a count"), "1");
    until_backends(bed.cluster.primary(), "state <> 'idle'", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_not_cancelled_when_its_callers_time_is_up() {
    let bed = with_commits_held().await;
    let writer = bed.session_client("writer").await;
    let two = [Statement::new("SELECT 1"), Statement::new("INSERT INTO marks VALUES (1)")];
    let options = WriteOptions::new().timeout(Duration::from_secs(1));
    let error = writer.write_with(two, options).await.expect_err("the commit waits");
    assert_eq!((error.code(), error.outcome()), (Code::DeadlineExceeded, Outcome::Unknown), "{error}");
    until_backends(bed.cluster.primary(), "wait_event = 'SyncRep'", 1).await;
    expect_primary_then_release(&bed, &writer, 1).await;
    assert!(bed.metric(&["tidegate_cancellations_total", "deadline"]) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_commit_is_not_cancelled_when_its_time_is_up_or_its_caller_leaves() {
    let bed = with_commits_held().await;
    let in_a_hurry = hurried(&bed, "writer", Duration::from_secs(1)).await;
    let mut session = in_a_hurry.session().await.expect("the session opens");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("INSERT INTO marks VALUES ($1)", params![1]).await.expect("it is written");
    let error = transaction.commit().await.expect_err("the commit waits");
    assert_eq!((error.code(), error.outcome()), (Code::DeadlineExceeded, Outcome::Unknown), "{error}");
    let writer = bed.session_client("writer").await;
    // Another one, whose caller does not even wait for that.
    let leaver = bed.session_client("leaver").await;
    let commit = tokio::spawn(async move {
        let mut session = leaver.session().await?;
        let mut transaction = session.begin(Begin::new()).await?;
        transaction.write("INSERT INTO marks VALUES ($1)", params![2]).await?;
        transaction.commit().await
    });
    until_backends(bed.cluster.primary(), "wait_event = 'SyncRep'", 2).await;
    commit.abort();
    expect_primary_then_release(&bed, &writer, 1).await;
    poll_until("the other commit is done", || async {
        ask(&writer, "SELECT count(*) FROM marks WHERE n = 2").await.expect("a count") == "1"
    })
    .await;
}
