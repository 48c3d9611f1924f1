//! What holds up a lane, or ends it: a slow read costs its neighbours a bound and no more; a deadline, a caller that leaves,
//! a lost connection cost them nothing.

use std::{sync::Arc, time::Duration};

use tidegate::dev::Server;
use tidegate_client::{Begin, Client, Outcome, ReadOptions, Session, params, proto};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};
use tonic::Code;

use crate::{
    asking::{failure, int, read_request, stub, until_backends},
    harness::{Bed, eventual, poll_until, read_rows, within},
    lanes::{ANSWERED, POINT, point, read_on, start, start_with, until_on_lanes},
};

/// Clean and short, until somebody locks the table.
const HELD: &str = "SELECT n FROM held WHERE n = $1";

/// A lane on which both are prepared.
async fn start_held(bed: &Bed) -> Client {
    let client = bed.client().await;
    client.execute("CREATE TABLE held (n int)", []).await.expect("the table is made");
    client.execute("INSERT INTO held VALUES (1)", []).await.expect("the row is inserted");
    bed.wait_until_caught_up().await;
    until_on_lanes(bed, &client, HELD, params![1]).await;
    until_on_lanes(bed, &client, POINT, params![1]).await;
    client
}

/// Locks the table, on the replicas too, until the sender is dropped.
async fn lock(bed: &Bed) -> oneshot::Sender<()> {
    lock_and(bed, &[]).await.0
}

/// The same, and does this in the transaction. The task ends once that is known to be committed.
async fn lock_and(bed: &Bed, change: &'static [&'static str]) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (release, released) = oneshot::channel::<()>();
    let mut session: Session = bed.client().await.session().await.expect("the session opens");
    let (locked, is_locked) = oneshot::channel();
    let committed = tokio::spawn(async move {
        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        for sql in ["LOCK TABLE held"].iter().chain(change) {
            transaction.write(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        locked.send(()).expect("the test waits");
        let _ = released.await;
        transaction.commit().await.expect("it commits");
    });
    is_locked.await.expect("it is locked");
    // Nobody else would flush what says so, and the replica could replay nothing.
    let flush = "SELECT pg_logical_emit_message(true, 'lanes', 'flush')";
    bed.cluster.primary().sql(flush).await.expect("the primary answers");
    for replica in bed.cluster.replicas() {
        poll_until("the lock is replayed", || async {
            let held =
                "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'held'::regclass";
            replica.sql_value::<i64>(held).await.expect("the replica answers") > 0
        })
        .await;
    }
    (release, committed)
}

fn spawn_held(client: &Client, options: ReadOptions) -> JoinHandle<Result<i64, tidegate_client::Error>> {
    let client = client.clone();
    tokio::spawn(async move {
        let rows = client.read_with(HELD, params![1], options).await?.rows().await?;
        Ok(rows.iter().next().expect("a row").get::<i64>(0).expect("an integer"))
    })
}

async fn until_held(replica: &Server, count: i64) {
    until_backends(replica, "wait_event_type = 'Lock' AND query LIKE 'SELECT n FROM held%'", count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_read_holds_up_its_neighbours_no_longer_than_agreed_and_is_answered_itself() {
    let bed = start(|config| {
        config.lanes.patience = Duration::from_secs(5);
        // The slow one and its neighbours fill it.
        (config.lanes.connections, config.lanes.depth) = (1, 21);
    })
    .await;
    let client = start_held(&bed).await;
    let release = lock(&bed).await;
    let slow = spawn_held(&client, eventual());
    until_held(bed.cluster.replica(0), 1).await;
    // The lock is held until these have their answers.
    let mut neighbours = JoinSet::new();
    for id in 1..=20 {
        let client = client.clone();
        neighbours.spawn(async move { assert_eq!(point(&client, id).await, 7 * id) });
    }
    within("the neighbours are answered", neighbours.join_all()).await;
    poll_until("it is demoted", || {
        std::future::ready(bed.metric(&["tidegate_lane_demotions_total", "stalled"]) >= 1.0)
    })
    .await;
    assert!(!slow.is_finished(), "nobody cancels it");
    // What is left on the old lane takes nobody's place on another.
    until_on_lanes(&bed, &client, POINT, params![2]).await;
    assert_eq!(bed.metric(&["tidegate_wait_duration_seconds_count{what=\"lane\"}"]), 0.0, "nobody waited for a place");
    drop(release);
    assert_eq!(within("it is answered", slow).await.expect("the task ends").expect("a read"), 1);
    assert_eq!(bed.metric(&["tidegate_cancellations"]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_counts_once_though_the_server_stops_the_statement_after_it_is_forgiven() {
    // Short for few points, and longer than the server's limit for all.
    const CUBE: &str =
        "SELECT count(*) FROM points a, points b, points c WHERE a.id <= $1 AND b.id <= $1 AND c.id <= $1";
    let bed = start(|config| config.lanes.patience = Duration::from_secs(5)).await;
    let client = bed.client().await;
    until_on_lanes(&bed, &client, CUBE, params![1]).await;
    let slow = {
        let client = client.clone();
        tokio::spawn(async move { client.read_with(CUBE, params![1000], eventual()).await.map(drop) })
    };
    let counts = |metric: &'static str, reason: &'static str| bed.metric(&[metric, reason]);
    let demotions = || counts("tidegate_lane_demotions_total", "stalled");
    poll_until("it is demoted", || std::future::ready(demotions() >= 1.0)).await;
    until_on_lanes(&bed, &client, CUBE, params![1]).await;
    poll_until("the server has stopped it", || {
        std::future::ready(counts("tidegate_lane_reads_left_total", "error") >= 1.0)
    })
    .await;
    assert_eq!(demotions(), 1.0);
    slow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_lane_that_stalls_asks_another_replica_first() {
    let bed = start_with(2, |config| {
        config.lanes.patience = Duration::from_secs(5);
        config.lanes.connections = 1;
    })
    .await;
    let client = start_held(&bed).await;
    poll_until("both are prepared on the lanes of both replicas", || async {
        let before = bed.metric(ANSWERED);
        // They take turns.
        for sql in [POINT, POINT, HELD, HELD] {
            read_rows(&client, sql, params![1], eventual()).await;
        }
        bed.metric(ANSWERED) == before + 4.0
    })
    .await;
    let release = lock(&bed).await;
    let slow = spawn_held(&client, eventual());
    poll_until("it is held up", || std::future::ready(bed.metric(&["tidegate_lane_reads_in_flight"]) >= 1.0)).await;
    let mut neighbours = JoinSet::new();
    for id in 1..=10 {
        let client = client.clone();
        neighbours.spawn(async move {
            let read = client.read_with(POINT, params![id], eventual()).await.expect("a read");
            read.rows().await.expect("its rows").receipt().attempts
        });
    }
    let attempts = within("the neighbours are answered", neighbours.join_all()).await;
    assert!(attempts.contains(&2), "those behind it go to the other replica: {attempts:?}");
    assert!(!slow.is_finished());
    drop(release);
    assert_eq!(within("it is answered", slow).await.expect("the task ends").expect("a read"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_left_that_was_sent_before_a_change_of_the_schema_is_met_by_nobody_after_it() {
    let bed = start(|config| config.lanes.connections = 1).await;
    let client = start_held(&bed).await;
    for sql in [
        "CREATE SCHEMA evil",
        "CREATE TABLE evil.points AS SELECT id, -1 AS v FROM points",
        "CREATE FUNCTION leaks() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM set_config('search_path', 'evil, public', false); RETURN 1; END $$",
    ] {
        client.execute(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    bed.wait_until_caught_up().await;
    until_on_lanes(&bed, &client, HELD, params![1]).await;
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    let view = &["ALTER TABLE held RENAME TO kept", "CREATE VIEW held AS SELECT n * leaks() AS n FROM kept"];
    let (release, committed) = lock_and(&bed, view).await;
    // Clean by all that is known when it is sent.
    let held = spawn_held(&client, eventual());
    until_held(bed.cluster.replica(0), 1).await;
    assert_eq!(bed.metric(&["tidegate_lane_reads_in_flight"]), 1.0);
    drop(release);
    assert_eq!(within("it is answered", held).await.expect("the task ends").expect("a read"), 1);
    // Before it hears of the commit the broker cannot know.
    within("it is committed", committed).await.expect("the task ends");
    poll_until("lanes answer by verdicts of after the change", || async {
        let before = bed.metric(ANSWERED);
        assert_eq!(point(&client, 3).await, 21);
        bed.metric(ANSWERED) > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_and_a_caller_that_leaves_cost_their_neighbours_nothing() {
    let bed = start(|config| config.lanes.connections = 1).await;
    let client = start_held(&bed).await;
    let release = lock(&bed).await;
    let leaves = spawn_held(&client, eventual());
    until_held(bed.cluster.replica(0), 1).await;
    // Without a client's own clock.
    let mut late = read_request(HELD, vec![int(1)]);
    late.options = Some(proto::ReadOptions { consistency: proto::Consistency::Eventual.into(), ..Default::default() });
    let mut late = tonic::Request::new(late);
    late.metadata_mut().insert("grpc-timeout", "300m".parse().expect("metadata"));
    let mut stub = stub(&bed).await;
    let late = within("its deadline passes", stub.execute_read(late)).await;
    let error = tidegate_client::Error::from(late.map(drop).expect_err("it is late"));
    assert_eq!((error.code(), error.outcome()), (Code::DeadlineExceeded, Outcome::RolledBack), "{error:?}");
    assert_eq!(failure(&error).reason, "DEADLINE_EXCEEDED");
    let answered = bed.metric(ANSWERED);
    let behind = {
        let client = client.clone();
        tokio::spawn(async move { point(&client, 5).await })
    };
    poll_until("it is in line", || std::future::ready(bed.metric(&["tidegate_lane_reads_in_flight"]) >= 3.0)).await;
    leaves.abort();
    drop(release);
    assert_eq!(within("it is answered", behind).await.expect("the task ends"), 35);
    assert_eq!(bed.metric(ANSWERED), answered + 1.0, "on the lane, as if nothing had happened");
    assert_eq!(bed.metric(&["tidegate_cancellations"]), 0.0);
    until_held(bed.cluster.replica(0), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_beyond_the_depth_wait_in_a_queue_of_bounded_length() {
    let bed = start(|config| {
        (config.lanes.connections, config.lanes.depth) = (1, 2);
        config.pool.max_queue = 2;
    })
    .await;
    let client = start_held(&bed).await;
    let release = lock(&bed).await;
    let mut reads = JoinSet::new();
    for n in 1..=4 {
        let client = client.clone();
        reads.spawn(async move { client.read_with(HELD, params![1], eventual()).await.map(drop) });
        let (series, count) = if n <= 2 { ("in_flight", n) } else { ("waiting", n - 2) };
        let name = format!("tidegate_lane_reads_{series}");
        poll_until("it has its place", || std::future::ready(bed.metric(&[name.as_str()]) >= f64::from(count))).await;
    }
    let refused = client.read_with(HELD, params![1], eventual()).await.map(drop).expect_err("the queue is full");
    assert_eq!((refused.code(), refused.outcome()), (Code::ResourceExhausted, Outcome::NotExecuted), "{refused:?}");
    assert_eq!(bed.metric(&["tidegate_sheds", "queue=\"lane\"", "cause=\"full\""]), 1.0);
    drop(release);
    for read in within("all are answered", reads.join_all()).await {
        read.expect("a read");
    }
    poll_until("nobody waits", || std::future::ready(bed.metric(&["tidegate_lane_reads_waiting"]) == 0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_ends_while_a_read_waits_in_line_is_no_verdict_for_it() {
    let bed = start(|config| (config.lanes.connections, config.lanes.depth) = (1, 1)).await;
    let client = start_held(&bed).await;
    let release = lock(&bed).await;
    let held = spawn_held(&client, eventual());
    until_held(bed.cluster.replica(0), 1).await;
    let waits = {
        let client = client.clone();
        tokio::spawn(async move { point(&client, 6).await })
    };
    poll_until("it is in line", || std::future::ready(bed.metric(&["tidegate_lane_reads_waiting"]) >= 1.0)).await;
    // Whatever it changes: what was proved before is not proved any more.
    client.execute("CREATE TABLE another (n int)", []).await.expect("the table is made");
    let answered = bed.metric(ANSWERED);
    drop(release);
    assert_eq!(within("the one before it is answered", held).await.expect("the task ends").expect("a read"), 1);
    assert_eq!(within("it is answered", waits).await.expect("the task ends"), 42);
    assert_eq!(bed.metric(ANSWERED), answered + 1.0, "only the one that was sent before");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_and_a_restart_under_load_fail_no_read() {
    let bed = Arc::new(start(|_| {}).await);
    let client = bed.client().await;
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    let (stop, readers) = read_on(&client);
    let replica = bed.cluster.replica(0);
    for _ in 0..5 {
        let answered = bed.metric(ANSWERED);
        poll_until("lanes answer", || std::future::ready(bed.metric(ANSWERED) > answered)).await;
        let pid: i64 = replica
            .sql_value(
                "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE application_name = 'tidegate' \
                 AND query LIKE 'SELECT v FROM points%'",
            )
            .await
            .expect("the replica answers");
        if pid != 0 {
            replica.terminate_backend(pid as i32).await.expect("it is told to end");
        }
    }
    replica.restart().await.expect("it is back");
    let answered = bed.metric(ANSWERED);
    poll_until("lanes answer again", || std::future::ready(bed.metric(ANSWERED) > answered)).await;
    stop.cancel();
    within("the readers end", readers.join_all()).await;
}
