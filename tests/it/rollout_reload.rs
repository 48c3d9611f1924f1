//! Moves of databases, begun, driven and ended by reloads while calls go on: no call fails, nothing that stays is made anew,
//! and what a session wrote before is not unseen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tidegate::{
    config::{ClusterConfig, Config, RolloutConfig},
    dev::{ClusterOptions, DATABASE},
};
use tidegate_client::{Begin, Client, Consistency, HostRole, ReadOptions};

use crate::{
    asking::{ask, primary_alone, until_backends},
    harness::{Bed, create_counters, poll_until, read_counter, read_counter_until, read_int, set_counter, within},
    reload::apply,
    rollout::{OWN, host, make_sides, move_to, own_cluster, read_side, rollout, two_clusters, write_side},
};

fn moved(config: &Config, change: impl FnOnce(&mut RolloutConfig)) -> Config {
    let mut config = config.clone();
    change(&mut config.rollouts[0]);
    config
}

async fn pid(client: &Client) -> String {
    ask(client, "SELECT pg_backend_pid()").await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_changes_how_far_it_is_keeps_both_sides_as_they_are() {
    let (bed, own) = two_clusters(Duration::from_secs(30)).await;
    let (app, client) = (bed.app(), bed.client().await);
    let forced = |use_own| moved(&bed.config, |rollout| rollout.use_own = use_own);
    let mut sides = [(bed.cluster.primary(), None), (own.primary(), None)];
    for _ in 0..2 {
        for (side, (server, known)) in sides.iter_mut().enumerate() {
            let changes = apply(app, &forced(Some(side == 1))).await;
            assert_eq!(changes.len(), 1, "{changes:?}");
            assert_eq!(read_side(&client).await, side as i64 + 1);
            // A call behind another may use a second connection: what counts is that the first is still there.
            match known {
                None => *known = Some(pid(&client).await),
                Some(pid) => {
                    let look = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
                    assert_eq!(server.sql_value::<i64>(&look).await.expect("an answer"), 1, "the pools stay");
                }
            }
        }
    }
    assert_eq!(apply(app, &forced(None)).await, [format!("database {DATABASE}: 0.00 %, use_own = true → 0.00 %")]);
    assert_eq!(read_side(&client).await, 1);
    // What is set meanwhile lasts until the configuration says something else of it.
    move_to(&bed, Some(true), 0);
    let mut other = forced(None);
    other.consistency.max_lag = Duration::from_millis(501);
    assert_eq!(apply(app, &other).await.len(), 1);
    assert_eq!(read_side(&client).await, 2);
    other.rollouts[0].percentage_hundredths = 1;
    assert_eq!(apply(app, &other).await.len(), 1);
    assert_eq!(read_side(&client).await, 1);
}

/// Counts in a row of its own, and looks at it after each write, until it is told to end.
async fn count(client: Client, id: u32, over: Arc<AtomicBool>, calls: Arc<AtomicU64>) -> bool {
    let write = format!("UPDATE counts SET n = $1 WHERE id = {id} RETURNING side");
    let read = format!("SELECT n FROM counts WHERE id = {id}");
    let mut n = 0_i64;
    let mut is_on_own = false;
    loop {
        // Once more after it was told.
        let last = over.load(Ordering::Relaxed);
        n += 1;
        let written = client.execute(&write, [n.into()]).await.expect("no write fails");
        assert!(written.receipt.cluster == OWN || !is_on_own, "it went back");
        is_on_own = written.receipt.cluster == OWN;
        for _ in 0..3 {
            let (seen, receipt) = read_int(&client, &read, ReadOptions::new()).await;
            assert_eq!(seen, n, "written in {}, read in {receipt:?}", written.receipt.cluster);
        }
        calls.fetch_add(4, Ordering::Relaxed);
        if last {
            return is_on_own;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_percentage_that_rises_under_load_fails_no_call_and_unsees_no_write() {
    let (bed, own) = two_clusters(Duration::from_secs(30)).await;
    let callers = 8;
    for server in [bed.cluster.primary(), own.primary()] {
        let table = format!(
            "CREATE TABLE counts (id int PRIMARY KEY, n bigint, side int); \
             INSERT INTO counts SELECT n, 0, 0 FROM generate_series(1, {callers}) n; GRANT ALL ON counts TO PUBLIC;"
        );
        server.sql(&table).await.expect("the table is made");
    }
    let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut running = Vec::new();
    for id in 1..=callers {
        let client = bed.session_client(&format!("caller {id}")).await;
        running.push(tokio::spawn(count(client, id, Arc::clone(&over), Arc::clone(&calls))));
    }
    for hundredths in [1_000, 2_500, 5_000, 7_500, 9_000, 10_000] {
        let config = moved(&bed.config, |rollout| rollout.percentage_hundredths = hundredths);
        assert_eq!(apply(bed.app(), &config).await.len(), 1);
        let so_far = calls.load(Ordering::Relaxed);
        poll_until("calls are answered between reloads", async || {
            let ended = running.iter().any(tokio::task::JoinHandle::is_finished);
            ended || calls.load(Ordering::Relaxed) > so_far + 16 * u64::from(callers)
        })
        .await;
    }
    over.store(true, Ordering::Relaxed);
    for caller in running {
        assert!(within("the caller ends", caller).await.expect("no call failed"), "all have moved");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_begins_and_ends_by_reloads_while_a_session_is_on() {
    let bed = Bed::with(primary_alone(), |config| {
        config.consistency.stick_timeout = Duration::from_secs(60);
        config.lanes.connections = 0;
    })
    .await;
    let own = own_cluster().await;
    make_sides(&bed, &own).await;
    let app = bed.app();
    let writer = bed.session_client("writer").await;
    assert!(!write_side(&writer, "").await.0);
    let mut session = writer.session().await.expect("a session");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("UPDATE sides SET note = 'open'", []).await.expect("a write");
    let before = pid(&bed.client().await).await;

    let mut config = bed.config.clone();
    config.clusters.extend(crate::harness::config_for(&own).clusters);
    config.rollouts.push(RolloutConfig { use_own: Some(true), ..rollout() });
    let changes = apply(app, &config).await;
    let expected = format!("database {DATABASE}: is being moved to {DATABASE} in cluster own: 0.00 %, use_own = true");
    assert_eq!(changes, ["cluster own: added".to_owned(), expected]);
    // It wrote before anybody kept what it writes to this database: all that it wrote there counts.
    assert_eq!(read_side(&writer).await, 1);
    assert_eq!(read_side(&bed.session_client("another").await).await, 2);
    transaction.write("UPDATE sides SET note = 'still open'", []).await.expect("a write");
    transaction.commit().await.expect("it commits where it began");
    assert_eq!(read_side(&writer).await, 1);
    assert!(write_side(&writer, "").await.0, "writes go where they are placed, at once");
    assert_eq!(read_side(&writer).await, 2);
    let on_own = pid(&bed.client().await).await;

    // Back, and on again: the origin's pools were there all the time.
    let ended = Config { rollouts: vec![], ..config.clone() };
    assert_eq!(apply(app, &ended).await, [format!("database {DATABASE}: is not being moved any more")]);
    assert_eq!((read_side(&bed.client().await).await, pid(&bed.client().await).await), (1, before));
    until_backends(own.primary(), &format!("pid = {on_own}"), 0).await;
    assert_eq!(apply(app, &config).await.len(), 1);
    assert_eq!(read_side(&bed.client().await).await, 2);
    let on_own = pid(&bed.client().await).await;

    // The end: the database is where it was moved to. Who is there stays there, connections and all.
    let mut there = writer.session().await.expect("a session");
    let mut transaction = there.begin(Begin::new()).await.expect("it begins");
    transaction.write("UPDATE sides SET note = 'at the end'", []).await.expect("a write");
    let mut last = ended;
    last.databases[0].cluster = OWN.into();
    last.clusters.retain(|cluster| cluster.name == OWN);
    assert_eq!(apply(app, &last).await.len(), 3);
    transaction.commit().await.expect("it commits");
    assert_eq!(read_side(&writer).await, 2);
    assert_eq!(pid(&bed.client().await).await, on_own);
    until_backends(bed.cluster.primary(), "true", 0).await;
    let note = own.primary().sql("SELECT note FROM sides").await.expect("a note");
    assert_eq!(note.trim(), "at the end");
    assert!(app.broker().unready().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_follow_from_one_reload_on_and_have_a_primary_of_their_own_from_another() {
    let bed = Bed::with(ClusterOptions::default(), |config| {
        config.clusters[0].hosts.truncate(1);
        config.consistency.stick_timeout = Duration::from_secs(60);
    })
    .await;
    create_counters(&bed).await;
    let (app, origin) = (bed.app(), bed.cluster.name().to_owned());
    let reader = bed.session_client("reader").await;
    let writer = bed.session_client("writer").await;
    set_counter(&writer, 1).await;
    assert_eq!(read_counter(&reader).await.1.role(), HostRole::Primary);

    let mut config = bed.config.clone();
    let hosts = bed.cluster.replicas().iter().map(|server| host(server)).collect();
    config.clusters.push(ClusterConfig { name: OWN.into(), hosts, discovery: None });
    config.rollouts.push(RolloutConfig { use_own: Some(true), reuse_primary: true, ..rollout() });
    assert_eq!(apply(app, &config).await.len(), 2);
    for client in [&reader, &writer] {
        let receipt = read_counter_until("a follower takes it", client, 1, |it| it.cluster == OWN).await;
        assert_eq!(receipt.role(), HostRole::Replica);
    }
    // Another host of it comes and goes.
    let mut alone = config.clone();
    alone.clusters[1].hosts.truncate(1);
    assert_eq!(apply(app, &alone).await.len(), 1);
    until_backends(bed.cluster.replica(1), "true", 0).await;
    set_counter(&writer, 2).await;
    let receipt = read_counter_until("the follower takes it", &writer, 2, |it| it.cluster == OWN).await;
    assert_eq!(receipt.host, bed.cluster.replica(0).name());

    // Promoted, and configured as what it is now.
    bed.cluster.replica(0).promote().await.expect("the replica is promoted");
    bed.wait_until("it follows no more", || app.topology().snapshot().clusters[1].refused.is_some()).await;
    set_counter(&writer, 3).await;
    let mut own = alone.clone();
    own.rollouts[0].reuse_primary = false;
    assert_eq!(apply(app, &own).await.len(), 1);
    bed.wait_until("it is a primary of its own", || app.topology().snapshot().clusters[1].primary.is_some()).await;
    let (n, receipt) = read_counter(&writer).await;
    assert_eq!((n, &receipt.cluster), (3, &origin), "what it wrote is not there");
    let (n, receipt) = read_counter(&bed.session_client("new").await).await;
    assert_eq!((n, receipt.cluster.as_str()), (2, OWN));
    set_counter(&writer, 4).await;
    let strong = ReadOptions::new().consistency(Consistency::Strong);
    let (n, receipt) = read_int(&writer, "SELECT n FROM counters WHERE id = 1", strong).await;
    assert_eq!((n, receipt.cluster.as_str(), receipt.role()), (4, OWN, HostRole::Primary));
    let left = bed.cluster.primary().sql_in(DATABASE, "SELECT n FROM counters WHERE id = 1").await.expect("a number");
    assert_eq!(left.trim(), "3", "writes go to the own primary alone");
}
