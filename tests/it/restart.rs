//! A broker that has forgotten, and positions that have expired: a session still sees its writes (rules 8 and 10).

use std::time::Duration;

use tidegate::{config::Config, dev::ClusterOptions, model::HostHealth};
use tidegate_client::{Client, Consistency, HostRole, ReadOptions, RouteReason};

use crate::harness::{
    Bed, READ_COUNTER, create_counters, pause_all, read_counter, read_counter_until, read_int, resume_all, set_counter,
    within,
};

/// Positions bind for two seconds; the other limits keep their proportion.
fn short(config: &mut Config) {
    config.consistency.stick_timeout = Duration::from_secs(2);
    config.consistency.max_lag = Duration::from_millis(1500);
    config.consistency.max_clock_skew = Duration::from_millis(500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_its_write_through_a_broker_that_has_forgotten_it() {
    let mut bed = Bed::start().await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    set_counter(&bed.session_client("writer").await, 1).await;
    bed.stop_broker().await;
    bed.start_broker_when("every host answers", |view| {
        view.primary.is_some() && view.hosts.iter().all(|host| host.health == HostHealth::Up)
    })
    .await;

    let client = bed.session_client("writer").await;
    for _ in 0..20 {
        let (n, receipt) = read_counter(&client).await;
        assert_eq!((n, receipt.role()), (1, HostRole::Primary), "{receipt:?}");
    }
    resume_all(&bed).await;
    read_counter_until("a replica", &client, 1, |receipt| receipt.role() == HostRole::Replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_of_a_new_broker_binds_sessions_for_one_stick_timeout() {
    let long_enough_to_be_seen = |config: &mut Config| {
        short(config);
        config.consistency.stick_timeout = Duration::from_secs(4);
    };
    let mut bed = Bed::with(ClusterOptions::default(), long_enough_to_be_seen).await;
    create_counters(&bed).await;
    bed.restart_broker().await;
    let (session, nobody) = (bed.session_client("any").await, bed.client().await);

    let (_, receipt) = read_counter(&nobody).await;
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::NoPosition));
    let (_, receipt) = read_counter(&session).await;
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::CaughtUp), "the floor binds it");
    let free = |receipt: &tidegate_client::Receipt| receipt.reason() == RouteReason::NoPosition;
    let receipt = read_counter_until("the floor binds no more", &session, 0, free).await;
    assert_eq!(receipt.role(), HostRole::Replica);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_expires_when_replicas_have_long_passed_it() {
    let bed = Bed::with(ClusterOptions::default(), short).await;
    create_counters(&bed).await;
    for replica in bed.cluster.replicas() {
        replica.apply_delay(Duration::from_millis(700)).await.expect("replay is delayed");
    }
    let client = bed.session_client("writer").await;
    let token = set_counter(&client, 1).await;
    let bearer = bed.connect(Client::builder().position(token).remember_positions(false)).await;
    for holder in [&client, &bearer] {
        let expired = |receipt: &tidegate_client::Receipt| receipt.reason() == RouteReason::PositionExpired;
        let receipt = read_counter_until("the position expires", holder, 1, expired).await;
        assert_eq!((receipt.role(), receipt.required_lsn.as_str()), (HostRole::Replica, ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_position_expires_into_a_stale_read() {
    let bed = Bed::with(ClusterOptions::default(), short).await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let client = bed.session_client("writer").await;
    set_counter(&client, 1).await;
    // Expired it has, as its receipt names no position; the replicas are too far behind for any read by then.
    let unbound = |receipt: &tidegate_client::Receipt| receipt.required_lsn.is_empty();
    let receipt = read_counter_until("the position expires", &client, 1, unbound).await;
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Primary, RouteReason::Behind));
    let eventual = ReadOptions::new().consistency(Consistency::Eventual);
    let (n, receipt) = read_int(&bed.client().await, READ_COUNTER, eventual).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));

    resume_all(&bed).await;
    let receipt = read_counter_until("a replica", &client, 1, |receipt| receipt.role() == HostRole::Replica).await;
    assert_eq!(receipt.reason(), RouteReason::PositionExpired);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_do_not_expire_while_no_primary_can_be_reached() {
    let bed = Bed::with(ClusterOptions::default(), short).await;
    create_counters(&bed).await;
    let behind = bed.cluster.replica(0);
    behind.pause_replay().await.expect("replay pauses");
    let (client, anybody) = (bed.session_client("writer").await, bed.client().await);
    set_counter(&client, 1).await;
    read_counter_until("the other replica", &client, 1, |receipt| receipt.role() == HostRole::Replica).await;
    bed.cluster.primary().proxy().cut().await;
    bed.wait_until("the primary is missed", || !bed.view().primary_reachable).await;

    // For longer than a stick timeout, by the broker's own clock: replica2's measurements carry it.
    let since = bed.view().hosts[2].measured_at.expect("a measurement");
    within("a stick timeout passes", async {
        loop {
            let (n, receipt) = read_counter(&client).await;
            assert_eq!((n, receipt.host.as_str()), (1, bed.cluster.replica(1).name()), "{receipt:?}");
            assert_eq!(receipt.reason(), RouteReason::CaughtUp);
            let (_, receipt) = read_counter(&anybody).await;
            assert_eq!(receipt.host, bed.cluster.replica(1).name(), "only what has passed the last sample serves");
            if bed.view().hosts[2].measured_at.expect("a measurement") > since + Duration::from_secs(3) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
