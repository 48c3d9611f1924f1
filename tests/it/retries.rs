//! What the broker tries again by itself (rule 16): reads on another host until the first row, writes only while it is
//! certain that nothing ran.

use std::{future::Future, time::Duration};

use tidegate::{
    dev::{ClusterOptions, Server},
    model::HostHealth,
};
use tidegate_client::{Client, Consistency, Error, HostRole, Outcome, ReadOptions, Receipt, Statement, WriteOptions};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::{
    asking::{ask, backends, failure, primary_alone, strong, tell},
    harness::{Bed, create_counters, poll_until, read_int, within},
};

/// A primary and a replica that never waits for its readers.
async fn with_impatient_replica() -> Bed {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |_| {}).await;
    create_counters(&bed).await;
    bed.cluster.replica(0).set("max_standby_streaming_delay", "0").await.expect("the setting is changed");
    bed
}

fn anywhere() -> ReadOptions {
    ReadOptions::new().consistency(Consistency::Eventual)
}

/// A read that hangs on one server, and on no other: with its snapshot, and a lock on the table.
fn hangs_on(server: &Server) -> String {
    let hang = format!("CASE WHEN inet_server_port() = {} THEN 600 ELSE 0 END", server.port());
    format!("SELECT id FROM counters, pg_sleep({hang}) WHERE id = 1")
}

const HANGS: &str = "state = 'active' AND query LIKE '%pg_sleep%'";

fn start_read(client: &Client, sql: String) -> JoinHandle<Result<Receipt, Error>> {
    let client = client.clone();
    tokio::spawn(async move { Ok(client.read_with(&sql, [], anywhere()).await?.rows().await?.receipt().clone()) })
}

/// Ends in a conflict with whoever still sees the rows as they are: they are removed for good.
async fn remove_what_is_seen(bed: &Bed) {
    // VACUUM removes nothing that another transaction on the primary may still see.
    poll_until("no reader is left on the replica", || async {
        let primary = bed.cluster.primary();
        primary.sql("UPDATE counters SET n = n + 1; VACUUM counters").await.expect("old rows are removed");
        backends(bed.cluster.replica(0), "state = 'active'").await == 0
    })
    .await;
}

async fn terminate_what_hangs(server: &Server) {
    let pid = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' \
               AND pid <> pg_backend_pid()";
    let pid: i32 = server.sql_value(pid).await.expect("one hangs");
    server.terminate_backend(pid).await.expect("it is told to end");
}

/// Whatever ends the read on the replica before its first row, its caller sees the answer of the primary.
async fn expect_a_second_attempt<F: Future<Output = ()>>(bed: &Bed, what: &str, end: impl FnOnce() -> F) {
    let (client, replica) = (bed.client().await, bed.cluster.replica(0));
    // What a read on the primary has pruned on its way, unflushed yet, would end this one in place of `end`.
    let primary = bed.cluster.primary();
    primary.sql("VACUUM counters; SELECT pg_logical_emit_message(true, 'test', '')").await.expect("all is flushed");
    replica.catch_up(primary).await.expect("it has replayed all");
    let mut read = start_read(&client, hangs_on(replica));
    // One that the primary answered, as the replica was not proved to see enough after a crash, hangs nowhere.
    within("the read hangs on the replica", async {
        while backends(replica, HANGS).await == 0 {
            if read.is_finished() {
                read = start_read(&client, hangs_on(replica));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    end().await;
    let receipt = within(what, read).await.expect("the read ends").unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((receipt.attempts, receipt.role()), (2, HostRole::Primary), "{what}: {receipt:?}");
    bed.wait_until("the replica serves again", || bed.view().hosts[1].health == HostHealth::Up).await;
    poll_until("the replica answers again", || async {
        read_int(&client, "SELECT n FROM counters WHERE id = 1", anywhere()).await.1.role() == HostRole::Replica
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_tried_elsewhere_whatever_ended_it_before_its_first_row() {
    let bed = with_impatient_replica().await;
    let (primary, replica) = (bed.cluster.primary(), bed.cluster.replica(0));
    expect_a_second_attempt(&bed, "its snapshot was in the way of replay", || remove_what_is_seen(&bed)).await;
    let log = replica.log().expect("a log");
    assert!(log.contains("canceling statement due to conflict with recovery"), "a real conflict: {log}");
    expect_a_second_attempt(&bed, "its lock was in the way of replay", || async {
        // A lock and no more: a change of the table may also remove rows of the catalogue that the read's snapshot sees.
        let lock = "BEGIN; LOCK TABLE counters IN ACCESS EXCLUSIVE MODE; COMMIT";
        primary.sql(lock).await.expect("the table is locked");
    })
    .await;
    let log = replica.log().expect("a log");
    assert!(log.contains("relation lock"), "a conflict of another kind: {log}");
    expect_a_second_attempt(&bed, "its backend was told to end", || terminate_what_hangs(replica)).await;
    expect_a_second_attempt(&bed, "its server crashed and recovers", || async {
        let other = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'";
        replica.kill_backend(replica.sql_value(other).await.expect("a pid")).await.expect("it is killed");
    })
    .await;
    expect_a_second_attempt(&bed, "its connection was cut", || async {
        replica.proxy().cut().await;
        replica.proxy().restore().await;
        terminate_what_hangs(replica).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_stood_in_the_way_of_replay_after_its_first_row_is_not_repeated() {
    let bed = with_impatient_replica().await;
    let (client, replica) = (bed.client().await, bed.cluster.replica(0));
    let endless = "SELECT repeat('x', 1000), generate_series(1, 1000000000) FROM counters";
    let mut stream = client.read_with(endless, [], anywhere()).await.expect("it starts");
    let retries = bed.metric(&["tidegate_retries_total", "read"]);
    assert!(stream.next().await.expect("rows").is_some());
    // Only while its rows are taken does the standby get to stop it.
    let taken = async {
        loop {
            match stream.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("an endless result has ended"),
                Err(error) => return error,
            }
        }
    };
    let (error, ()) = within("the read is stopped", futures_util::future::join(taken, remove_what_is_seen(&bed))).await;
    let failure = failure(&error);
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "RECOVERY_CONFLICT"), "{failure:?}");
    assert_eq!((failure.outcome, error.sqlstate()), (Outcome::RolledBack, Some("40001")));
    assert!(failure.retry_delay.is_some(), "{failure:?}");
    let receipt = failure.receipt.as_ref().expect("a receipt");
    assert_eq!((receipt.attempts, receipt.host.as_str()), (1, replica.name()));
    assert_eq!(bed.metric(&["tidegate_retries_total", "read"]), retries, "nothing was repeated");
}

/// With the code of a conflict, and none: what a statement raises itself, wherever it runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_statement_itself_is_not_taken_for_a_conflict() {
    let bed = with_impatient_replica().await;
    let client = bed.client().await;
    let raise = "CREATE FUNCTION raise_40001() RETURNS int LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = '40001'; END $$";
    tell(&client, raise).await.expect("the function is made");
    bed.wait_until_caught_up().await;
    for options in [anywhere(), strong()] {
        let retries = bed.metric(&["tidegate_retries_total", "read"]);
        let stream = client.read_with("SELECT raise_40001()", [], options).await;
        let error = stream.map(drop).expect_err("it raises");
        assert_eq!((error.code(), failure(&error).reason.as_str()), (Code::Aborted, "POSTGRES_ERROR"));
        assert_eq!(failure(&error).receipt.as_ref().map(|receipt| receipt.attempts), Some(1));
        assert_eq!(bed.metric(&["tidegate_retries_total", "read"]), retries);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_for_a_primary_that_restarts_and_is_done_once() {
    let bed = Bed::with(primary_alone(), |config| config.probe.interval = Duration::from_millis(50)).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    tell(&client, "CREATE TABLE marks (n int)").await.expect("the table is made");
    for transaction in [false, true] {
        primary.stop().await.expect("the primary stops");
        let tried = bed.metric(&["tidegate_retries_total", "write"]);
        let writer = client.clone();
        let write = tokio::spawn(async move {
            let mark = Statement::new("INSERT INTO marks VALUES (1)");
            let one_or_two = if transaction { vec![Statement::new("SELECT 1"), mark] } else { vec![mark] };
            writer.write_with(one_or_two, WriteOptions::new()).await
        });
        poll_until("it was tried again", || async { bed.metric(&["tidegate_retries_total", "write"]) > tried }).await;
        primary.start().await.expect("the primary is back");
        let written = write.await.expect("the call ends").expect("it is written in the end");
        assert!(written.receipt.attempts > 1, "{:?}", written.receipt);
    }
    assert_eq!(ask(&client, "SELECT count(*) FROM marks").await.expect("a count"), "2", "each once");
}
