//! A session whose write has an unknown outcome: how long the broker asks what became of it when its host or cluster leaves
//! the configuration.

use std::time::Duration;

use tidegate::dev::ClusterOptions;
use tidegate_client::{Client, Outcome, RouteReason, Statement, WriteOptions};

use crate::{
    asking::{backends, until_backends},
    harness::{Bed, poll_until, read_int},
    idempotency::{COUNT, start_with},
    lost_commits::{HELD, hold_commits, lock_holder, release},
};

/// Its connection is lost while it commits, and its backend lives on.
async fn lose_a_write(bed: &Bed, client: &Client) {
    let primary = bed.cluster.primary();
    let writer = client.clone();
    let options = WriteOptions::new().timeout(Duration::from_secs(2));
    let write =
        tokio::spawn(async move { writer.write_with([Statement::new("INSERT INTO marks VALUES (1)")], options).await });
    until_backends(primary, HELD, 1).await;
    primary.proxy().cut().await;
    primary.proxy().restore().await;
    let error = write.await.expect("it ends").map(drop).expect_err("nobody knows");
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    until_watched(bed, 1).await;
    bed.wait_until("the primary answers probes again", || bed.view().primary.is_some()).await;
}

async fn until_watched(bed: &Bed, watched: usize) {
    let what = format!("{watched} backends are watched");
    poll_until(&what, async || bed.metric(&["tidegate_unknown_watched"]) == watched as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_watched_under_its_servers_new_name_and_no_longer_than_its_cluster_is_there() {
    let options = ClusterOptions { replicas: 1, ..ClusterOptions::default() };
    let bed = start_with(Bed::with(options, |_| {}).await).await;
    let (client, primary) = (bed.session_client("a session").await, bed.cluster.primary());
    let _holder = hold_commits(&bed).await;
    lose_a_write(&bed, &client).await;

    // Its host leaves, its server does not: it may still commit, and the session is to see that.
    let mut hosts = bed.config.clusters[0].hosts.clone();
    hosts[0].name = "renamed".into();
    bed.app().set_discovered(bed.cluster.name(), hosts).await;
    bed.wait_until("the primary is known by its new name", || {
        bed.view().primary_host().is_some_and(|host| &*host.name == "renamed")
    })
    .await;
    let (n, receipt) = read_int(&client, COUNT, Default::default()).await;
    assert_eq!((n, receipt.reason, receipt.host.as_str()), (0, RouteReason::PositionUnknown as i32, "renamed"));
    release(primary).await;
    until_watched(&bed, 0).await;
    let (n, receipt) = read_int(&client, COUNT, Default::default()).await;
    assert_eq!((n, receipt.reason), (1, RouteReason::PositionUnknown as i32), "for one stick timeout longer");

    // Its cluster leaves: nobody asks any more, whatever the backend does.
    let _holder = lock_holder(bed.cluster.installation().command("psql"), primary).await;
    lose_a_write(&bed, &client).await;
    let mut without = bed.config.clone();
    (without.clusters, without.databases) = (Vec::new(), Vec::new());
    bed.app().apply(without).await.expect("it is applied");
    until_watched(&bed, 0).await;
    assert_eq!(backends(primary, HELD).await, 1, "it is still there");
    until_backends(primary, "application_name = 'tidegate' AND wait_event IS DISTINCT FROM 'advisory'", 0).await;
    release(primary).await;
}
