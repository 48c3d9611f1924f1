//! The connection to PostgreSQL is cut at every single protocol message of a write, either way, and what the caller is
//! told is then held against the rows that are there.

use std::collections::BTreeMap;

use tidegate::dev::{Direction, Server};
use tidegate_client::{Begin, Client, Error, Outcome, Statement, WriteOptions, params};

use crate::{
    asking::{primary_alone, tell, until_backends, until_none_in_use},
    harness::{Bed, poll_until, quietly},
};

/// A broker with one connection for writes, whose probers are silent: what passes the proxy is the write alone.
struct Stage {
    bed: Bed,
    /// How many connections the probers opened.
    probers: u64,
    /// Their backends.
    spared: String,
}

impl Stage {
    async fn start() -> Self {
        let bed = Bed::with(primary_alone(), quietly).await;
        let probers = bed.cluster.primary().proxy().taken();
        let pids = "SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE application_name = 'tidegate'";
        let spared = bed.cluster.primary().sql(pids).await.expect("the server answers").trim().to_owned();
        bed.client().await.execute("CREATE TABLE marks (n bigint)", []).await.expect("the table is made");
        bed.init_keys().await;
        Self { bed, probers, spared }
    }

    /// Waits until what was asked for is over: on the server, whose backends go on when they are cut off, and here.
    async fn rest(&self) {
        let works = "state <> 'idle' OR wait_event IS DISTINCT FROM 'ClientRead'";
        until_backends(self.bed.cluster.primary(), works, 0).await;
        until_none_in_use(&self.bed).await;
    }

    /// Puts a new connection, which has prepared nothing of the write, in the place of those that there are.
    async fn renew(&self, client: &Client) {
        self.rest().await;
        let end = format!(
            "SELECT coalesce(bool_and(pg_terminate_backend(pid, 30000)), true) FROM pg_stat_activity \
             WHERE application_name = 'tidegate' AND pid NOT IN ({})",
            self.spared
        );
        let ended = self.bed.cluster.primary().sql(&end).await.expect("the server answers");
        assert_eq!(ended.trim(), "t", "the backends end");
        // The broker may learn of it from this very write.
        poll_until("a connection is there", || async { tell(client, "SELECT 1").await.is_ok() }).await;
    }
}

/// What a caller was told.
type Told = Result<(), Error>;

/// Runs a write with the connection cut at message 0, 1, 2, … both ways, until it passes uncut: on a connection that has
/// yet to prepare it, and on one that has done it before. Answers what was told of each; the write's number is its key
/// there and its mark in the table.
async fn cut_everywhere(stage: &Stage, write: impl AsyncFn(Client, i64) -> Told) -> BTreeMap<i64, Outcome> {
    let (client, proxy) = (stage.bed.client().await, stage.bed.cluster.primary().proxy());
    let (mut n, mut told) = (0, BTreeMap::new());
    for (is_prepared, direction) in
        [false, true].into_iter().flat_map(|it| [(it, Direction::ToServer), (it, Direction::ToClient)])
    {
        for message in 0.. {
            stage.renew(&client).await;
            if is_prepared {
                n += 1;
                write(client.clone(), n).await.expect("a write that nobody disturbs");
                told.insert(n, Outcome::Committed);
            }
            stage.rest().await;
            n += 1;
            let cut = proxy.cut_at(stage.probers, direction, message);
            let outcome = match write(client.clone(), n).await {
                Ok(()) => Outcome::Committed,
                Err(error) => error.outcome(),
            };
            told.insert(n, outcome);
            // What follows on the answer is cut, too.
            stage.rest().await;
            if !cut.reached() {
                assert_eq!(outcome, Outcome::Committed, "a write that nobody disturbed");
                eprintln!("{direction:?}, prepared before: {is_prepared}: cut at {message} messages");
                break;
            }
        }
    }
    told
}

/// Holds what was told against the rows, once all backends have ended: `rows` of each write that is committed, none of
/// others, and whole ones only.
async fn expect_honest(server: &Server, what: &str, rows: i64, told: &BTreeMap<i64, Outcome>) {
    until_backends(server, "state <> 'idle'", 0).await;
    let counted = server.sql("SELECT n, count(*) FROM marks GROUP BY n").await.expect("the server answers");
    let counted: BTreeMap<i64, i64> = counted
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(n, count)| (n.parse().expect("a number"), count.parse().expect("a count")))
        .collect();
    server.sql("TRUNCATE marks").await.expect("the table is emptied");
    for (n, outcome) in told {
        let there = counted.get(n).copied().unwrap_or(0);
        let honest = match outcome {
            Outcome::Committed => there == rows,
            Outcome::NotExecuted | Outcome::RolledBack => there == 0,
            Outcome::Unknown => there == 0 || there == rows,
            Outcome::Unspecified => false,
        };
        assert!(honest, "{what}, write {n}: told {outcome:?}, and there are {there} rows: {told:?}");
    }
    let count = |wanted: Outcome| told.values().filter(|&&outcome| outcome == wanted).count();
    eprintln!(
        "{what}: {} writes: {} committed, {} rolled back, {} not executed, {} unknown",
        told.len(),
        count(Outcome::Committed),
        count(Outcome::RolledBack),
        count(Outcome::NotExecuted),
        count(Outcome::Unknown),
    );
    assert!(told.len() > 60, "{what}: the exchange has more messages than that: {told:?}");
}

const INSERT: &str = "INSERT INTO marks VALUES ($1)";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_without_a_key_is_told_is_true_wherever_its_connection_is_cut() {
    let stage = Stage::start().await;
    let primary = stage.bed.cluster.primary();

    let told = cut_everywhere(&stage, async |client: Client, n| client.execute(INSERT, params![n]).await.map(drop));
    // It commits by itself: nobody has an id to ask by.
    expect_honest(primary, "a statement alone", 1, &told.await).await;

    let told = cut_everywhere(&stage, async |client: Client, n| {
        client.execute("INSERT INTO marks VALUES ($1) RETURNING n", params![n]).await.map(drop)
    })
    .await;
    expect_honest(primary, "a statement with RETURNING", 1, &told).await;
    assert!(!told.values().any(|outcome| *outcome == Outcome::Unknown), "its transaction's id is known: {told:?}");

    let told = cut_everywhere(&stage, async |client: Client, n| {
        client.write([Statement::new(INSERT).bind(n), Statement::new(INSERT).bind(n)]).await.map(drop)
    })
    .await;
    expect_honest(primary, "two statements", 2, &told).await;
    assert!(!told.values().any(|outcome| *outcome == Outcome::Unknown), "its transaction's id is known: {told:?}");

    let told = cut_everywhere(&stage, async |client: Client, n| {
        let mut session = client.session().await?;
        let mut transaction = session.begin(Begin::new()).await?;
        transaction.write(INSERT, params![n]).await?;
        transaction.write(INSERT, params![n]).await?;
        transaction.commit().await
    })
    .await;
    expect_honest(primary, "a session's transaction", 2, &told).await;
    assert!(!told.values().any(|outcome| *outcome == Outcome::Unknown), "its transaction's id is known: {told:?}");
}

/// A write that inserts one row, with a key of its own.
async fn keyed(client: &Client, n: i64) -> Result<bool, Error> {
    let options = WriteOptions::new().idempotency_key(format!("write {n}"));
    let written =
        client.write_with([Statement::new("INSERT INTO marks VALUES ($1) RETURNING n").bind(n)], options).await?;
    assert_eq!(written.results[0].rows.row(0).expect("a row").get::<i64>(0).expect("its value"), n);
    Ok(written.replayed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_a_key_is_done_once_wherever_its_connection_is_cut() {
    let stage = Stage::start().await;
    let primary = stage.bed.cluster.primary();

    let told = cut_everywhere(&stage, async |client: Client, n| keyed(&client, n).await.map(drop)).await;
    expect_honest(primary, "a write with a key", 1, &told).await;
    assert!(!told.values().any(|outcome| *outcome == Outcome::Unknown), "the key resolves it: {told:?}");

    primary.sql("TRUNCATE tidegate.idempotency_keys").await.expect("the keys are forgotten");
    let told = cut_everywhere(&stage, async |client: Client, n| {
        let mut again = 0;
        while let Err(error) = keyed(&client, n).await {
            again += 1;
            assert!(again < 3, "{error}");
        }
        // Once more, by a caller who did not hear of it.
        assert!(keyed(&client, n).await.expect("the stored result"), "write {n} is not done again");
        Ok(())
    })
    .await;
    expect_honest(primary, "a write with a key, repeated until it is done", 1, &told).await;
}
