//! Which host a read goes to when several would do, and when some or all of them are dead.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate::dev::ClusterOptions;
use tidegate_client::{Client, HostRole, ReadOptions, RouteReason};
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::Code;

use crate::harness::{
    Bed, READ_COUNTER, count_by_host, create_counters, poll_until, read_counter, read_counter_until, set_counter,
};

async fn bed_with(replicas: usize) -> Bed {
    Bed::with(ClusterOptions { replicas, ..ClusterOptions::default() }, |_| {}).await
}

async fn counts(bed: &Bed, tasks: usize, reads: usize) -> BTreeMap<String, usize> {
    count_by_host(&bed.client().await, &ReadOptions::new(), tasks, reads).await
}

fn evenly(hosts: &[&str], each: usize) -> BTreeMap<String, usize> {
    hosts.iter().map(|host| ((*host).to_owned(), each)).collect()
}

/// The broker has noticed that this host is gone, or is back.
async fn wait_for(bed: &Bed, host: &str, up: bool) {
    let is_up = || {
        bed.view()
            .hosts
            .iter()
            .any(|view| &*view.name == host && view.passed_sample_at.is_some() && view.is_up_replica())
    };
    bed.wait_until(&format!("{host} is up: {up}"), || is_up() == up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_take_turns_and_go_on_when_one_is_missing() {
    let bed = bed_with(3).await;
    create_counters(&bed).await;
    assert_eq!(counts(&bed, 1, 90).await, evenly(&["replica1", "replica2", "replica3"], 30));
    assert_eq!(counts(&bed, 20, 30).await, evenly(&["replica1", "replica2", "replica3"], 200));
    let counted = bed.metric(&["tidegate_routes_total", "host=\"replica1\"", "reason=\"NO_POSITION\""]);
    assert_eq!(counted, 230.0);

    bed.cluster.replica(1).kill().await.expect("the replica is killed");
    wait_for(&bed, "replica2", false).await;
    assert_eq!(counts(&bed, 20, 30).await, evenly(&["replica1", "replica3"], 300));

    bed.cluster.replica(1).start().await.expect("the replica starts");
    wait_for(&bed, "replica2", true).await;
    assert_eq!(counts(&bed, 20, 30).await, evenly(&["replica1", "replica2", "replica3"], 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_while_a_replica_dies() {
    let bed = bed_with(3).await;
    create_counters(&bed).await;
    // Readers take a permit a read: the test hands out some before the death, some during it, some after it.
    let permits = Arc::new(Semaphore::new(300));
    let mut readers = JoinSet::new();
    for _ in 0..16 {
        let (client, permits) = (bed.client().await, Arc::clone(&permits));
        readers.spawn(async move {
            while let Ok(permit) = permits.acquire().await {
                permit.forget();
                assert_eq!(read_counter(&client).await.0, 0);
            }
        });
    }
    let before = bed.metric(&["tidegate_routes_total", "reason=\"NO_POSITION\""]);
    permits.add_permits(600);
    bed.cluster.replica(0).kill().await.expect("the replica is killed");
    permits.add_permits(600);
    wait_for(&bed, "replica1", false).await;
    permits.add_permits(300);
    // However long all of them take together: each must begin.
    while let left @ 1.. = permits.available_permits() {
        poll_until("another read begins", async || permits.available_permits() < left).await;
    }
    permits.close();
    while let Some(reader) = readers.join_next().await {
        reader.expect("no read fails");
    }
    let all = bed.metric(&["tidegate_routes_total", "reason=\"NO_POSITION\""]) - before;
    assert!(all >= 1500.0, "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replicas_the_primary_reads() {
    let bed = bed_with(0).await;
    create_counters(&bed).await;
    for client in [bed.client().await, bed.session_client("session").await] {
        let (_, receipt) = read_counter(&client).await;
        assert_eq!((receipt.role(), receipt.reason()), (HostRole::Primary, RouteReason::NoReplica));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_dead_replicas_the_primary_reads_and_with_all_dead_nobody_does() {
    let bed =
        Bed::with(ClusterOptions::default(), |config| config.timeouts.default_timeout = Duration::from_secs(1)).await;
    create_counters(&bed).await;
    for (index, name) in ["replica1", "replica2"].iter().enumerate() {
        bed.cluster.replica(index).kill().await.expect("the replica is killed");
        wait_for(&bed, name, false).await;
    }
    let client = bed.session_client("session").await;
    set_counter(&client, 1).await;
    let (n, receipt) = read_counter(&client).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::NoReplica));

    bed.cluster.primary().kill().await.expect("the primary is killed");
    bed.wait_until("the primary is missed", || bed.view().primary.is_none()).await;
    let rejected = || bed.metric(&["tidegate_rejections_total", "NO_HOSTS_AVAILABLE", "database=\"app\""]);
    assert_eq!(rejected(), 0.0);
    // They wait for a host until their time is up.
    let waiting = bed.unlimited_client(Client::builder().session_id("session")).await;
    let error = waiting.read(READ_COUNTER, []).await.expect_err("no host is up");
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "NO_HOSTS_AVAILABLE"));
    assert!(error.failure().expect("the broker's account").retry_delay.is_some());
    assert_eq!(rejected(), 1.0);
    let error = waiting.execute("UPDATE counters SET n = 2", []).await.expect_err("no host is up");
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "NO_HOSTS_AVAILABLE"));
    assert!(rejected() >= 2.0);

    bed.cluster.primary().start().await.expect("the primary starts");
    bed.wait_until("the primary is back", || bed.view().primary.is_some()).await;
    assert_eq!(read_counter(&client).await.0, 1);
    bed.cluster.replica(0).start().await.expect("the replica starts");
    read_counter_until("a replica", &client, 1, |receipt| receipt.role() == HostRole::Replica).await;
}

/// Kills the primary and promotes the first replica; the second follows it.
async fn fail_over(bed: &Bed) {
    let (promoted, follower) = (bed.cluster.replica(0), bed.cluster.replica(1));
    bed.cluster.primary().kill().await.expect("the primary is killed");
    promoted.promote().await.expect("the replica is promoted");
    follower.follow(promoted).await.expect("the other follows it");
    bed.wait_until("the new primary is found", || bed.view().primary == Some(bed.view().hosts[1].id)).await;
    assert_eq!(bed.view().timeline.map(|timeline| timeline.get()), Some(2));
}

async fn is_served_by_the_follower(what: &str, client: &Client, n: i64) -> RouteReason {
    let receipt = read_counter_until(what, client, n, |receipt| receipt.role() == HostRole::Replica).await;
    assert_eq!((receipt.host.as_str(), receipt.timeline), ("replica2", 2));
    receipt.reason()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_from_before_a_failover_is_honoured_after_it() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let client = bed.session_client("writer").await;
    let token = set_counter(&client, 1).await;
    for replica in bed.cluster.replicas() {
        replica.catch_up(bed.cluster.primary()).await.expect("the replica has it");
    }
    fail_over(&bed).await;
    let bearer = bed.connect(Client::builder().position(token).remember_positions(false)).await;
    for holder in [&client, &bearer] {
        assert_eq!(is_served_by_the_follower("the position is honoured", holder, 1).await, RouteReason::CaughtUp);
    }
    // Writes go to the new primary, and are seen by their session there.
    let written = client.execute("UPDATE counters SET n = 2 WHERE id = 1", []).await.expect("the write succeeds");
    assert_eq!((written.receipt.host.as_str(), written.receipt.timeline), ("replica1", 2));
    assert_eq!(is_served_by_the_follower("the new write is replayed", &client, 2).await, RouteReason::CaughtUp);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_starts_after_a_failover_honours_tokens_from_before_it() {
    let mut bed = Bed::start().await;
    create_counters(&bed).await;
    let token = set_counter(&bed.client().await, 1).await;
    for replica in bed.cluster.replicas() {
        replica.catch_up(bed.cluster.primary()).await.expect("the replica has it");
    }
    fail_over(&bed).await;
    bed.stop_broker().await;
    // The host that is configured as the primary is dead: the others say what the cluster is.
    bed.start_broker_when("the hosts that live are found", |view| {
        view.primary == Some(view.hosts[1].id) && view.hosts[2].passed_sample_at.is_some()
    })
    .await;
    let bearer = bed.connect(Client::builder().position(token).remember_positions(false)).await;
    // In full; but this broker has not seen the promotion, so where exactly the timelines parted nobody has told it.
    let reason = is_served_by_the_follower("the token is honoured", &bearer, 1).await;
    assert_eq!(reason, RouteReason::PositionMayBeLost);
    let session = bed.session_client("writer").await;
    set_counter(&session, 2).await;
    assert_eq!(is_served_by_the_follower("the new write is replayed", &session, 2).await, RouteReason::CaughtUp);
    assert_eq!(read_counter(&session).await.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_failover_lost_pins_nobody() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    for replica in bed.cluster.replicas() {
        replica.set("primary_conninfo", "").await.expect("the replica hears of nothing more");
    }
    let receivers = "SELECT count(*) FROM pg_stat_replication";
    crate::harness::poll_until("no replica streams", async || {
        bed.cluster.primary().sql(receivers).await.expect("an answer") == "0"
    })
    .await;
    let client = bed.session_client("writer").await;
    let token = set_counter(&client, 1).await;
    fail_over(&bed).await;

    let bearer = bed.connect(Client::builder().position(token).remember_positions(false)).await;
    for holder in [&client, &bearer] {
        assert_eq!(is_served_by_the_follower("the session is free", holder, 0).await, RouteReason::PositionMayBeLost);
    }
    set_counter(&client, 2).await;
    assert_eq!(is_served_by_the_follower("the new write is replayed", &client, 2).await, RouteReason::CaughtUp);
    // The old primary comes back as if nothing had happened: it takes no part.
    bed.cluster.primary().start().await.expect("the old primary starts");
    bed.wait_until("the old primary answers", || bed.view().hosts[0].role.is_some()).await;
    for n in 3..=20 {
        let written = client.execute(&format!("UPDATE counters SET n = {n} WHERE id = 1"), []).await;
        assert_eq!(written.expect("the write succeeds").receipt.host, "replica1");
        assert_eq!(read_counter(&client).await.0, n);
    }
}
