//! How reads are shared among the replicas that may take them: by weight, zone and load, by what each has yet to replay,
//! and whatever is known while the primary is away.

use std::{collections::BTreeMap, time::Duration};

use tidegate::{
    app::App,
    clock,
    config::{BalancePolicyConfig, Config, PlaceConfig},
    dev::{ClusterOptions, DATABASE},
    model::{ClusterView, HostView},
};
use tidegate_client::{Client, HostRole, ReadOptions, ReadStream};
use tonic::Code;

use crate::harness::{
    Bed, READ_COUNTER, client_of, count_by_host, create_counters, eventual, poll_until, read_counter, read_int,
    set_counter, stop,
};

/// Too large for what lies between: it holds its connection while nobody reads it.
const LARGE: &str = "SELECT repeat('x', 1000) AS x, generate_series(1, 50000)";

fn replicas(replicas: usize) -> ClusterOptions {
    ClusterOptions { replicas, ..ClusterOptions::default() }
}

async fn counts(client: &Client, tasks: usize, reads: usize) -> BTreeMap<String, usize> {
    count_by_host(client, &eventual(), tasks, reads).await
}

fn assert_counts(found: &BTreeMap<String, usize>, expected: &[(&str, usize)], most_off: usize) {
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{found:?}");
    for (name, count) in expected {
        assert!(found[*name].abs_diff(*count) <= most_off, "{name} should have {count}: {found:?}");
    }
}

/// The configuration of another broker, with these weights and zones of its replicas.
fn placed(config: &Config, places: [(u16, Option<&str>); 3], zone: Option<&str>) -> Config {
    let mut config = config.clone();
    for (host, (weight, zone)) in config.clusters[0].hosts.iter_mut().skip(1).zip(places) {
        host.place = PlaceConfig { weight, zone: zone.map(str::to_owned), priority: 0 };
    }
    config.balance.zone = zone.map(str::to_owned);
    config
}

fn replica<'v>(view: &'v ClusterView, name: &str) -> &'v HostView {
    view.hosts.iter().find(|host| &*host.name == name).expect("a replica of that name")
}

async fn wait_for_death(bed: &Bed, brokers: [&App; 3], name: &str) {
    for broker in brokers {
        let is_up = || replica(&broker.topology().snapshot().clusters[0], name).is_up_replica();
        poll_until(&format!("{name} is missed"), || async { !is_up() }).await;
    }
    bed.wait_until(&format!("{name} is missed"), || !replica(&bed.view(), name).is_up_replica()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_and_zones_decide_whichever_replicas_are_left() {
    let bed = Bed::with(replicas(3), |_| {}).await;
    create_counters(&bed).await;
    let weights = placed(&bed.config, [(300, None), (100, None), (0, None)], None);
    let zones = placed(&bed.config, [(100, Some("a")), (100, Some("b")), (50, Some("b"))], Some("a"));
    let other_zone = Config { balance: placed(&zones, [(1, None); 3], Some("b")).balance, ..zones.clone() };
    let brokers =
        [bed.second_broker(&weights).await, bed.second_broker(&zones).await, bed.second_broker(&other_zone).await];
    let [by_weight, in_a, in_b] = [
        client_of(&brokers[0], DATABASE).await,
        client_of(&brokers[1], DATABASE).await,
        client_of(&brokers[2], DATABASE).await,
    ];

    assert_counts(&counts(&by_weight, 10, 40).await, &[("replica1", 300), ("replica2", 100)], 4);
    assert_counts(&counts(&in_a, 5, 20).await, &[("replica1", 100)], 0);
    assert_counts(&counts(&in_b, 10, 30).await, &[("replica2", 200), ("replica3", 100)], 4);

    let all = || [&brokers[0], &brokers[1], &brokers[2]];
    bed.cluster.replica(0).kill().await.expect("the replica is killed");
    wait_for_death(&bed, all(), "replica1").await;
    assert_counts(&counts(&by_weight, 5, 20).await, &[("replica2", 100)], 0);
    // Another zone's, by their weights, before the primary.
    assert_counts(&counts(&in_a, 10, 30).await, &[("replica2", 200), ("replica3", 100)], 4);

    bed.cluster.replica(1).kill().await.expect("the replica is killed");
    wait_for_death(&bed, all(), "replica2").await;
    // Of weight 0, and yet before the primary.
    assert_counts(&counts(&by_weight, 5, 20).await, &[("replica3", 100)], 0);
    for broker in brokers {
        stop(broker).await;
    }
}

/// By turns the slow one would get a third, and every third call its delay.
#[tokio::test(flavor = "multi_thread")]
async fn least_loaded_avoids_a_replica_that_is_slow_or_busy() {
    let bed = Bed::with(replicas(3), |config| config.balance.policy = BalancePolicyConfig::LeastLoaded).await;
    create_counters(&bed).await;
    let client = bed.client().await;
    bed.cluster.replica(2).proxy().delay(Duration::from_millis(150));
    let shared = counts(&client, 6, 50).await;
    assert!(shared.get("replica3").is_none_or(|slow| *slow < 60), "{shared:?}");
    assert!(shared["replica1"] > 60 && shared["replica2"] > 60, "{shared:?}");
    bed.cluster.replica(2).proxy().delay(Duration::ZERO);

    // Results that nobody reads stay in hand.
    let mut open: Vec<ReadStream> = Vec::new();
    let of = |open: &[ReadStream], name: &str| {
        open.iter().filter(|stream| stream.receipt().is_some_and(|receipt| receipt.host == name)).count()
    };
    while of(&open, "replica1") < 5 {
        // Each on a connection of its own: what is not read fills the window that all streams of one share.
        open.push(bed.client().await.read_with(LARGE, [], eventual()).await.expect("the read starts"));
        assert!(open.len() < 40, "no replica has many more than the others");
    }
    open.retain(|stream| stream.receipt().is_some_and(|receipt| receipt.host == "replica1"));
    for name in ["replica2", "replica3"] {
        let host = format!("host=\"{name}\"");
        let in_use = || bed.metric(&["tidegate_pool_connections", &host, "pool=\"read\"", "state=\"in_use\""]);
        poll_until("the others are idle", || async { in_use() == 0.0 }).await;
    }
    let shared = counts(&client, 1, 100).await;
    assert!(!shared.contains_key("replica1"), "it has five in hand: {shared:?}");
    drop(open);
    let host = ["tidegate_pool_connections", "host=\"replica1\"", "pool=\"read\"", "state=\"in_use\""];
    poll_until("it is idle, too", || async { bed.metric(&host) == 0.0 }).await;
    let shared = counts(&client, 1, 100).await;
    assert_eq!(shared.len(), 3, "{shared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_too_much_to_replay_take_no_reads_nor_do_they_while_the_primary_is_away() {
    const MAX_LAG_BYTES: usize = 1 << 20;
    let bed = Bed::with(replicas(2), |config| config.consistency.max_lag_bytes = Some(MAX_LAG_BYTES)).await;
    create_counters(&bed).await;
    let client = bed.client().await;
    let lag_bytes = || {
        let view = bed.view();
        view.lag_bytes(replica(&view, "replica1"))
    };
    let shown = |metric: &str| bed.app().broker().metrics().render().contains(&format!("{metric}{{"));
    bed.cluster.replica(0).pause_replay().await.expect("replay pauses");
    let primary = bed.cluster.primary();
    primary
        .sql("CREATE TABLE filler AS SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n")
        .await
        .expect("rows");
    bed.wait_until("replica1 is behind", || lag_bytes().is_some_and(|bytes| bytes > MAX_LAG_BYTES as u64)).await;
    bed.wait_until("replica2 is not", || {
        let view = bed.view();
        view.lag_bytes(replica(&view, "replica2")).is_some_and(|bytes| bytes < MAX_LAG_BYTES as u64)
    })
    .await;
    assert_counts(&counts(&client, 2, 20).await, &[("replica2", 40)], 0);
    assert!(bed.metric(&["tidegate_replica_lag_bytes", "replica1"]) > MAX_LAG_BYTES as f64);
    assert!(shown("tidegate_replica_lag_seconds"));

    bed.cluster.replica(0).resume_replay().await.expect("replay goes on");
    bed.wait_until_caught_up().await;
    assert_counts(&counts(&client, 2, 20).await, &[("replica1", 20), ("replica2", 20)], 0);
    let (_, receipt) = read_counter(&client).await;
    assert!(receipt.staleness.is_some(), "{receipt:?}");

    // A primary that stops in order leaves no replica without its last WAL, but for one that does not replay it.
    bed.cluster.replica(0).pause_replay().await.expect("replay pauses");
    set_counter(&client, 1).await;
    bed.wait_until("only replica2 has seen it", || {
        let view = bed.view();
        replica(&view, "replica2").passed_last_sample && !replica(&view, "replica1").passed_last_sample
    })
    .await;
    primary.stop().await.expect("the primary stops");
    bed.wait_until("the primary is missed", || {
        let view = bed.view();
        view.primary.is_none() && replica(&view, "replica2").passed_last_sample
    })
    .await;
    for options in [ReadOptions::new(), eventual()] {
        for _ in 0..6 {
            let (n, receipt) = read_int(&client, READ_COUNTER, options.clone()).await;
            assert_eq!((n, receipt.host.as_str()), (1, "replica2"), "{receipt:?}");
            assert_eq!(receipt.staleness, None, "a primary that is out of sight may have gone on: {receipt:?}");
        }
    }
    assert!(!shown("tidegate_replica_lag_seconds") && shown("tidegate_replica_lag_bytes"));
    let bounded = ReadOptions::new().max_staleness(Duration::from_secs(3600));
    let error = client.read_with(READ_COUNTER, [], bounded).await.expect_err("no bound can be shown");
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "NO_PRIMARY_AVAILABLE"));
}

/// The bound holds when the read runs, not only when its host was chosen.
#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_that_waited_in_line_shows_nothing_older_than_its_bound() {
    let bound = Duration::from_secs(3);
    let bed = Bed::with(replicas(1), |config| {
        // Of three for calls two are for reads on a replica.
        config.pool.connections_per_host = 8;
        config.probe.interval = Duration::from_millis(100);
    })
    .await;
    create_counters(&bed).await;
    let client = bed.client().await;
    let mut open: Vec<ReadStream> = Vec::new();
    while open.len() < 2 {
        let stream = bed.client().await.read_with(LARGE, [], eventual()).await.expect("the read starts");
        open.extend(Some(stream).filter(|stream| stream.receipt().is_some_and(|r| r.host == "replica1")));
    }
    // A machine that is too busy to probe within the bound sends it to the primary at once.
    let waiting = loop {
        let client = client.clone();
        let read =
            tokio::spawn(async move { read_int(&client, READ_COUNTER, ReadOptions::new().max_staleness(bound)).await });
        let waits = || bed.metric(&["tidegate_pool_waiting", "replica1"]) > 0.0;
        poll_until("the read waits in line", || async { waits() || read.is_finished() }).await;
        if waits() {
            break read;
        }
        read.await.expect("the primary has answered");
    };
    bed.cluster.replica(0).pause_replay().await.expect("replay pauses");
    set_counter(&client, 1).await;
    let written = clock::now();
    bed.wait_until("the replica is too old", || {
        let view = bed.view();
        let staleness = view.staleness(replica(&view, "replica1"), clock::now());
        clock::now() > written + bound && staleness.is_some_and(|staleness| staleness > bound)
    })
    .await;
    for stream in open {
        assert_eq!(stream.rows().await.expect("the read ends").len(), 50_000);
    }
    let (n, receipt) = waiting.await.expect("the read succeeds");
    assert_eq!((n, receipt.role(), receipt.attempts), (1, HostRole::Primary, 2), "{receipt:?}");
    // Its connection was not to blame.
    assert_eq!(bed.metric(&["tidegate_connections_discarded_total", "reason=\"dirty\""]), 0.0);
}
