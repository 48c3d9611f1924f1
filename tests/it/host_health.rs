//! When hosts get requests: one that hangs is found out, one that flaps is kept waiting, and a primary that does not confirm
//! its role loses it.

use std::time::Duration;

use tidegate::{clock, dev::ClusterOptions, model::HostHealth};
use tidegate_client::{Consistency, Outcome, ReadOptions};

use crate::{
    asking::{failure, strong},
    harness::{Bed, READ_COUNTER, create_counters, read_int, set_counter},
};

/// Replicas are hosts 1 and 2.
fn health(bed: &Bed, host: usize) -> HostHealth {
    bed.view().hosts[host].health
}

async fn wait_for_health(bed: &Bed, host: usize, health: HostHealth) {
    let what = format!("host {host} is {}", health.as_str());
    bed.wait_until(&what, || bed.view().hosts[host].health == health).await;
}

/// Reads that need no position, none of which may be answered by that host.
async fn is_not_used(bed: &Bed, host: &str) {
    let client = bed.client().await;
    for _ in 0..20 {
        let eventual = ReadOptions::new().consistency(Consistency::Eventual);
        let (_, receipt) = read_int(&client, READ_COUNTER, eventual).await;
        assert_ne!(receipt.host, host, "{receipt:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hangs_is_found_out_and_used_again_when_it_answers() {
    let bed = Bed::with(ClusterOptions::default(), |config| {
        config.probe.timeout = Duration::from_secs(1);
        // Others that wait for a busy machine are to stay in use.
        config.health.failures = 2;
        config.pool.connect_timeout = Duration::from_secs(3);
    })
    .await;
    create_counters(&bed).await;
    let replica = bed.cluster.replica(0);
    replica.pause().await.expect("the replica hangs");
    wait_for_health(&bed, 1, HostHealth::Down).await;
    is_not_used(&bed, "replica1").await;
    let transitions = |to: &str| bed.metric(&["tidegate_host_transitions_total", "replica1", &format!("to=\"{to}\"")]);
    assert_eq!((transitions("suspect"), transitions("down")), (1.0, 1.0), "by two failures, one after the other");
    replica.unpause().await.expect("the replica goes on");
    wait_for_health(&bed, 1, HostHealth::Up).await;
    bed.wait_until("it has caught up", || bed.view().hosts[1].passed_sample_at.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_flaps_is_quarantined_unless_nobody_else_is_left() {
    let bed = Bed::with(ClusterOptions::default(), |config| {
        config.health.quarantine = Duration::from_secs(60);
        config.health.slow_start = Duration::from_secs(600);
    })
    .await;
    create_counters(&bed).await;
    assert_eq!(bed.view().hosts[1].ramp(clock::now()), 100, "at the start nobody is held back");
    for expected in [HostHealth::Up, HostHealth::Quarantined] {
        bed.cluster.replica(0).proxy().cut().await;
        wait_for_health(&bed, 1, HostHealth::Down).await;
        bed.cluster.replica(0).proxy().restore().await;
        wait_for_health(&bed, 1, expected).await;
        assert!(bed.view().hosts[1].ramp(clock::now()) < 100, "it begins slowly");
    }
    assert!(bed.metric(&["tidegate_host_quarantine_seconds", "replica1"]) > 0.0);
    is_not_used(&bed, "replica1").await;

    bed.cluster.replica(1).proxy().cut().await;
    wait_for_health(&bed, 2, HostHealth::Down).await;
    assert_eq!(health(&bed, 1), HostHealth::Quarantined, "the primary is left");
    bed.cluster.primary().proxy().cut().await;
    wait_for_health(&bed, 1, HostHealth::Up).await;
    let eventual = ReadOptions::new().consistency(Consistency::Eventual);
    let (_, receipt) = read_int(&bed.client().await, READ_COUNTER, eventual).await;
    assert_eq!(receipt.host, "replica1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_cannot_confirm_its_role_gets_no_writes() {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |config| {
        // The lease lapses while a probe still waits for its answer: it is not the probe's failure that ends the role.
        config.health.lease = Duration::from_secs(4);
    })
    .await;
    create_counters(&bed).await;
    let client = bed.client().await;
    set_counter(&client, 1).await;
    bed.wait_until_caught_up().await;
    bed.cluster.primary().proxy().blackhole().await;
    bed.wait_until("the lease has lapsed", || bed.view().primary.is_none()).await;
    assert_eq!(health(&bed, 0), HostHealth::Up, "no probe has failed yet");
    let error = client.execute("UPDATE counters SET n = 2", []).await.map(drop).expect_err("there is no primary");
    let refused = failure(&error);
    assert_eq!(
        (refused.reason.as_str(), refused.outcome),
        ("NO_PRIMARY_AVAILABLE", Outcome::NotExecuted),
        "{refused:?}"
    );
    let (n, receipt) = read_int(&client, READ_COUNTER, ReadOptions::new().consistency(Consistency::Eventual)).await;
    assert_eq!((n, receipt.host.as_str()), (1, "replica1"), "reads that need no primary go on");

    // What was swallowed is delivered now: no write was among it.
    bed.cluster.primary().proxy().restore().await;
    bed.wait_until("the role is confirmed again", || bed.view().primary.is_some()).await;
    assert_eq!(read_int(&client, READ_COUNTER, strong()).await.0, 1);
    set_counter(&client, 3).await;
    assert_eq!(read_int(&client, READ_COUNTER, strong()).await.0, 3);
}
