//! Calls that wait while a reload moves their database go on where it is now, once each. Those of a database that was
//! removed are told so.

use std::time::Duration;

use tidegate::{
    config::{ClusterConfig, Config, RolloutConfig},
    dev::{Cluster, ClusterOptions, DATABASE},
    postgres::KeyTable,
};
use tidegate_client::{Client, Consistency, HostRole, Outcome, ReadOptions, RouteReason};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::{
    asking::{
        ask, begin, commit, done, failure, go, primary_alone, session_read, session_write, strong, tell, until_backends,
    },
    harness::{
        Bed, PATIENCE, READ_COUNTER, config_for, create_counters, pause_all, poll_until, read_int, resume_all,
        set_counter, within,
    },
    idempotency::{key, spawn_insert},
    reload::apply,
    rollout::{OWN, make_sides, move_to, own_cluster, rollout, two_clusters, write_side},
};

const SLEEPING: &str = "state = 'active' AND query LIKE '%pg_sleep%'";

/// Two clusters with the same tables, and a database on the first: its configurations there and on the second.
async fn start(options: ClusterOptions, change: impl FnOnce(&mut Config)) -> (Bed, Cluster, [Config; 2]) {
    let own = own_cluster().await;
    let bed = Bed::with(options, |config| {
        config.clusters.extend(config_for(&own).clusters);
        change(config);
    })
    .await;
    make_sides(&bed, &own).await;
    for (server, cluster) in [bed.cluster.primary(), own.primary()].into_iter().zip(&bed.config.clusters) {
        server.sql("CREATE TABLE marks (n bigint); GRANT ALL ON marks TO PUBLIC;").await.expect("the table is made");
        let target = tidegate::app::target(&cluster.hosts[0], &bed.config);
        let (mut table, _) = KeyTable::open(&target).await.expect("the primary answers");
        table.create().await.expect("the table is made");
    }
    let here = bed.config.clone();
    let mut there = here.clone();
    there.databases[0].cluster = OWN.into();
    (bed, own, [here, there])
}

/// Awaits that so many reads and writes wait for a cluster's primary.
async fn until_waiting(bed: &Bed, cluster: &str, expected: [f64; 2]) {
    let cluster = format!("cluster=\"{cluster}\"");
    let waiting = |kind| bed.metric(&["tidegate_primary_waiting{", &cluster, kind]);
    let now = || [waiting("kind=\"read\""), waiting("kind=\"write\"")];
    poll_until(&format!("{expected:?} wait"), || async { now() == expected }).await;
}

fn spawn<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(call)
}

fn spawn_tell(client: &Client, sql: &str) -> JoinHandle<Result<String, tidegate_client::Error>> {
    let (client, sql) = (client.clone(), sql.to_owned());
    spawn(async move { tell(&client, &sql).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_a_primary_go_on_where_their_database_is_now() {
    let (bed, own, [here, there]) = start(primary_alone(), |_| {}).await;
    let client = bed.client().await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(client.raw_session().await.expect("the session opens"));
    }
    bed.cluster.primary().kill().await.expect("it is killed");
    bed.wait_until("the primary is missed", || bed.view().primary.is_none()).await;

    let write = spawn_tell(&client, "INSERT INTO marks VALUES (1)");
    // One of these waits for the other.
    let keyed = [(); 2].map(|()| spawn_insert(&client, 2, key("k")));
    let strong = client.clone();
    let strong = spawn(async move { ask(&strong, "SELECT n FROM sides").await });
    let [mut beginning, mut writing, mut reading] = sessions.try_into().expect("three sessions");
    let begun = spawn(async move {
        let transaction = done(go(&mut beginning, 0, begin()).await);
        done(go(&mut beginning, transaction, session_write("INSERT INTO marks VALUES (3)")).await);
        done(go(&mut beginning, transaction, commit()).await);
        beginning
    });
    let written = spawn(async move { done(go(&mut writing, 0, session_write("INSERT INTO marks VALUES (4)")).await) });
    let read = spawn(async move { go(&mut reading, 0, session_read("SELECT n FROM sides")).await });
    until_waiting(&bed, bed.cluster.name(), [2.0, 4.0]).await;

    // It moves twice: at first only to another database of the same servers, where there is still no primary.
    let mut beside = here.clone();
    beside.databases[0].dbname = "postgres".into();
    apply(bed.app(), &beside).await;
    until_waiting(&bed, bed.cluster.name(), [2.0, 4.0]).await;
    apply(bed.app(), &there).await;
    within("the write goes on", write).await.expect("it ends").expect("it is written");
    let mut replayed = 0;
    for keyed in keyed {
        let written = within("the keyed write goes on", keyed).await.expect("it ends").expect("it is written");
        assert_eq!(written.receipt.cluster, OWN);
        replayed += u32::from(written.replayed());
    }
    assert_eq!(replayed, 1, "of two with one key");
    assert_eq!(within("the read goes on", strong).await.expect("it ends").expect("an answer"), "2");
    let mut session = within("the transaction goes on", begun).await.expect("it commits");
    within("the session's write goes on", written).await.expect("it is written");
    let last = within("the session's read goes on", read).await.expect("it ends");
    assert!(matches!(&last.response, Some(tidegate_client::proto::session_response::Response::Read(_))), "{last:?}");
    until_waiting(&bed, bed.cluster.name(), [0.0, 0.0]).await;
    let marks = "SELECT string_agg(n::text, ',' ORDER BY n) FROM marks";
    assert_eq!(own.primary().sql_in(DATABASE, marks).await.expect("a list").trim(), "1,2,3,4");

    // And on: a session that is open goes along, also when nothing of it waited.
    let transaction = done(go(&mut session, 0, begin()).await);
    done(go(&mut session, transaction, commit()).await);

    // Removed, it is nowhere.
    own.primary().kill().await.expect("it is killed");
    let waiting = [spawn_tell(&client, "INSERT INTO marks VALUES (5)"), spawn_tell(&client, "SELECT 5")];
    until_waiting(&bed, OWN, [0.0, 2.0]).await;
    let mut removed = there.clone();
    removed.databases[0].name = "another".into();
    apply(bed.app(), &removed).await;
    for waiting in waiting {
        let error = within("it is told at once", waiting).await.expect("it ends").expect_err("it is gone");
        assert_eq!((error.reason(), error.outcome()), ("DATABASE_UNKNOWN", Outcome::NotExecuted), "{error}");
    }
    until_waiting(&bed, OWN, [0.0, 0.0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_on_its_side_whichever_part_that_has_meanwhile() {
    let (bed, own, [here, _]) = start(primary_alone(), |_| {}).await;
    // Clusters and databases of the two sides; between them a session is led by what it began on, not by its part.
    let sides = |origin: [&str; 2], moved_to: [&str; 2]| {
        let mut config = here.clone();
        config.databases[0].cluster = origin[0].into();
        config.databases[0].dbname = origin[1].into();
        let ([cluster, dbname], use_own) = (moved_to.map(str::to_owned), Some(true));
        config.rollouts = vec![RolloutConfig { cluster, dbname, use_own, ..rollout() }];
        config
    };
    let main = [bed.cluster.name(), DATABASE];
    let [own_side, beside] = [[OWN, DATABASE], [OWN, "postgres"]];
    apply(bed.app(), &sides(main, own_side)).await;
    let client = bed.client().await;
    let mut writing = client.raw_session().await.expect("the session opens");
    let mut idle = client.raw_session().await.expect("the session opens");
    own.primary().kill().await.expect("it is killed");
    let is_missed = || bed.app().topology().snapshot().clusters.iter().any(|view| view.primary.is_none());
    bed.wait_until("the primary is missed", is_missed).await;

    let written = spawn(async move { go(&mut writing, 0, session_write("INSERT INTO marks VALUES (1)")).await });
    until_waiting(&bed, OWN, [0.0, 1.0]).await;
    let moved = || bed.metric(&["tidegate_retries_total", "\"write\""]);
    let before = moved();
    // Its side leaves; the one that came is made the database itself; that one leaves as well.
    apply(bed.app(), &sides(main, beside)).await;
    poll_until("it waits for the other database there", || async { moved() > before }).await;
    until_waiting(&bed, OWN, [0.0, 1.0]).await;
    apply(bed.app(), &sides(beside, main)).await;
    apply(bed.app(), &sides(own_side, main)).await;
    poll_until("it is placed once more", || async { moved() > before + 1.0 }).await;
    until_waiting(&bed, OWN, [0.0, 1.0]).await;
    own.primary().start().await.expect("it starts again");
    let written = within("the write goes on", written).await.expect("it ends");
    assert_eq!(written.receipt.as_ref().map(|receipt| receipt.cluster.as_str()), Some(OWN), "{written:?}");
    done(written);
    // So does who did nothing all the while.
    let written = go(&mut idle, 0, session_write("INSERT INTO marks VALUES (2)")).await;
    assert_eq!(written.receipt.as_ref().map(|receipt| receipt.cluster.as_str()), Some(OWN), "{written:?}");
    done(written);
    // Its side leaves, and is back before the session says anything: it is the same database, whatever took its place.
    apply(bed.app(), &sides(main, beside)).await;
    apply(bed.app(), &sides(own_side, main)).await;
    let written = go(&mut idle, 0, session_write("INSERT INTO marks VALUES (3)")).await;
    assert_eq!(written.receipt.as_ref().map(|receipt| receipt.cluster.as_str()), Some(OWN), "{written:?}");
    done(written);
    // The move is over: what is left is the database.
    let mut ended = sides(own_side, main);
    ended.rollouts.clear();
    ended.databases[0].cluster = main[0].into();
    apply(bed.app(), &ended).await;
    let written = go(&mut idle, 0, session_write("INSERT INTO marks VALUES (4)")).await;
    assert_eq!(written.receipt.as_ref().map(|receipt| receipt.cluster.as_str()), Some(main[0]), "{written:?}");
    let marks = "SELECT string_agg(n::text, ',' ORDER BY n) FROM marks";
    assert_eq!(own.primary().sql_in(DATABASE, marks).await.expect("a list").trim(), "1,2,3");
}

fn patient() -> ReadOptions {
    ReadOptions::new().max_wait(PATIENCE)
}

async fn until_readers(bed: &Bed, count: f64) {
    poll_until("so many readers wait", || async { bed.metric(&["tidegate_readers_waiting"]) == count }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_a_connection_a_replica_or_their_turn_go_on_there_too() {
    let options = ClusterOptions { replicas: 1, ..ClusterOptions::default() };
    // Two of them for writes.
    let (bed, own, [here, there]) = start(options, |config| config.pool.connections_per_host = 9).await;
    let primary = bed.cluster.primary();
    let client = bed.session_client("a session").await;
    pause_all(&bed).await;
    tell(&client, "UPDATE sides SET note = 'written'").await.expect("a write");
    let sleepers = [(); 2].map(|()| spawn_tell(&client, "SELECT pg_sleep(600)"));
    until_backends(primary, SLEEPING, 2).await;
    let write = spawn_tell(&client, "INSERT INTO marks VALUES (1)");
    let reader = client.clone();
    let read = spawn(async move { read_int(&reader, "SELECT n FROM sides", patient()).await });
    until_readers(&bed, 1.0).await;
    let queued = || bed.metric(&["tidegate_queue_waiting", r#"use="write""#]);
    poll_until("the write waits in line", || async { queued() == 1.0 }).await;

    apply(bed.app(), &there).await;
    within("the write goes on", write).await.expect("it ends").expect("it is written");
    let (side, receipt) = within("the read goes on", read).await.expect("it ends");
    assert_eq!((side, receipt.cluster.as_str()), (2, OWN), "{receipt:?}");
    until_readers(&bed, 0.0).await;
    until_backends(primary, SLEEPING, 2).await;
    sleepers.iter().for_each(JoinHandle::abort);
    until_backends(primary, SLEEPING, 0).await;

    // Its turn is the database's, wherever that is: the one before it may end on the other side.
    let limited = |config: &Config| {
        let mut config = config.clone();
        config.limits.database_concurrency = Some(1);
        config
    };
    apply(bed.app(), &limited(&there)).await;
    let sleeper = spawn_tell(&client, "SELECT pg_sleep(600)");
    until_backends(own.primary(), SLEEPING, 1).await;
    let written = spawn({
        let client = client.clone();
        async move { client.execute("INSERT INTO marks VALUES (2)", []).await }
    });
    poll_until("it waits for its turn", || async { bed.metric(&["tidegate_calls_waiting"]) == 1.0 }).await;
    apply(bed.app(), &limited(&here)).await;
    assert_eq!(bed.metric(&["tidegate_calls_waiting"]), 1.0);
    sleeper.abort();
    let written = within("the write goes on", written).await.expect("it ends").expect("it is written");
    assert_eq!(written.receipt.cluster, bed.cluster.name());
    resume_all(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_session_wrote_meanwhile_is_heeded_where_a_call_goes_on() {
    let (bed, own) = two_clusters(Duration::from_secs(600)).await;
    let third = Cluster::start(ClusterOptions { name: "third".into(), ..primary_alone() }).await;
    let third = third.expect("the cluster starts");
    let table =
        "CREATE TABLE sides (n int, note text); INSERT INTO sides VALUES (3, ''); GRANT ALL ON sides TO PUBLIC;";
    third.primary().sql(table).await.expect("the table is made");
    let [reader, writer] = [bed.session_client("reader").await, bed.session_client("writer").await];
    move_to(&bed, Some(true), 0);
    own.primary().kill().await.expect("it is killed");
    let is_missed = || bed.app().topology().snapshot().clusters[1].primary.is_none();
    bed.wait_until("the primary is missed", is_missed).await;
    let read = spawn({
        let reader = reader.clone();
        async move { read_int(&reader, "SELECT n FROM sides", strong()).await }
    });
    let write = spawn(async move { writer.execute("UPDATE sides SET note = 'moved'", []).await });
    until_waiting(&bed, OWN, [1.0, 1.0]).await;
    // The reader's session writes on the origin, which the next reload keeps.
    move_to(&bed, Some(false), 0);
    assert!(!write_side(&reader, "").await.0);

    let mut config = bed.config.clone();
    config.clusters.retain(|cluster| cluster.name != OWN);
    let ClusterConfig { hosts, .. } = config_for(&third).clusters.remove(0);
    config.clusters.push(ClusterConfig { name: "third".into(), hosts, discovery: None });
    config.rollouts = vec![RolloutConfig { cluster: "third".into(), use_own: Some(true), ..rollout() }];
    apply(bed.app(), &config).await;
    let (side, receipt) = within("the read goes on", read).await.expect("it ends");
    assert_eq!((side, receipt.cluster.as_str()), (1, bed.cluster.name()), "where its session has written: {receipt:?}");
    let written = within("the write goes on", write).await.expect("it ends").expect("it is written");
    assert_eq!(written.receipt.cluster, "third");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_a_reload_makes_shorter_is_so_for_keys_and_for_readers() {
    let options = ClusterOptions { replicas: 1, ..ClusterOptions::default() };
    let (bed, _own, [mut config, _]) = start(options, |_| {}).await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let client = bed.session_client("a session").await;
    set_counter(&client, 1).await;
    config.pool.max_queue = 1;
    assert_eq!(apply(bed.app(), &config).await.len(), 1);

    // Of no session: who gives up waiting for a key reads from the primary.
    let caller = bed.client().await;
    let sleeper = spawn({
        let client = caller.clone();
        async move { client.write_with(["SELECT pg_sleep(600)".into()], key("k")).await.map(drop) }
    });
    until_backends(bed.cluster.primary(), SLEEPING, 1).await;
    // Of two that would wait for it one may.
    let [mut one, mut other] = [(); 2].map(|()| spawn_insert(&caller, 1, key("k")));
    let refused = async { tokio::select!(refused = &mut one => refused, refused = &mut other => refused) };
    let full = within("the queue is full", refused).await.expect("it ends").expect_err("the key is held");
    assert_eq!(full.code(), Code::ResourceExhausted, "{full}");
    assert!(failure(&full).message.contains("at most 1 may"), "{full}");
    [sleeper.abort_handle(), one.abort_handle(), other.abort_handle()].iter().for_each(|call| call.abort());

    let reader = client.clone();
    let read = spawn(async move { read_int(&reader, READ_COUNTER, patient()).await });
    until_readers(&bed, 1.0).await;
    // One more goes to the primary at once, before the first one has waited for long enough.
    let session = patient().consistency(Consistency::Session);
    let (n, receipt) = read_int(&client, READ_COUNTER, session).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));
    until_readers(&bed, 1.0).await;
    resume_all(&bed).await;
    assert_eq!(within("the reader is woken", read).await.expect("it ends").1.reason(), RouteReason::Waited);
}
