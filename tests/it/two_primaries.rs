//! Several servers that take themselves for the primary (rule 7): the higher timeline wins, and on one timeline nothing is
//! written until an operator decides.

use std::{sync::Arc, time::Instant};

use tidegate::dev::{ClusterOptions, Server};
use tidegate_client::{AdminClient, Client, Consistency, HostRole, Outcome, ReadOptions};
use tonic::Code;

use crate::{
    asking::{failure, strong},
    harness::{Bed, READ_COUNTER, create_counters, read_counter_until, read_int, set_counter},
    moved_primary::prove_by_checkpoints,
};

async fn counter_on(server: &Server) -> i64 {
    server.sql_value(READ_COUNTER).await.expect("the server answers")
}

async fn wait_for_primary(bed: &Bed, host: usize) {
    bed.wait_until("the primary is found", || bed.view().primary == Some(bed.view().hosts[host].id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_left_behind_alive_gets_nothing_more() {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |_| {}).await;
    create_counters(&bed).await;
    let client = bed.session_client("writer").await;
    set_counter(&client, 1).await;
    let (old, new) = (bed.cluster.primary(), bed.cluster.replica(0));
    new.catch_up(old).await.expect("it has everything");
    new.promote().await.expect("the replica is promoted");
    wait_for_primary(&bed, 1).await;
    for n in 2..20 {
        set_counter(&client, n).await;
        assert_eq!(read_int(&client, READ_COUNTER, strong()).await.0, n);
    }
    // It comes and goes, and still says that it is the primary.
    old.proxy().cut().await;
    bed.wait_until("it is missed", || !bed.view().hosts[0].health.is_usable()).await;
    old.proxy().restore().await;
    bed.wait_until("it is back", || bed.view().hosts[0].health.is_usable() && bed.view().hosts[0].role.is_some()).await;
    set_counter(&client, 20).await;
    assert_eq!((counter_on(old).await, counter_on(new).await), (1, 20));
    assert!(!bed.view().conflict);
}

async fn is_refused(client: &Client) {
    let error = client.execute("UPDATE counters SET n = n + 100", []).await.map(drop).expect_err("nobody may write");
    let refused = failure(&error);
    assert_eq!(
        (refused.code, refused.reason.as_str(), refused.outcome, refused.retry_delay),
        (Code::FailedPrecondition, "PRIMARY_CONFLICT", Outcome::NotExecuted, None)
    );
}

/// A replica of the first of both: the session's writes are there.
async fn is_readable(client: &Client, n: i64) {
    let (read, receipt) = read_int(client, READ_COUNTER, ReadOptions::new()).await;
    assert_eq!((read, receipt.host.as_str(), receipt.role()), (n, "replica3", HostRole::Replica), "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_one_timeline_nothing_is_written_until_an_operator_decides() {
    let bed = Bed::with(ClusterOptions { replicas: 3, ..ClusterOptions::default() }, |_| {}).await;
    create_counters(&bed).await;
    let client = bed.session_client("writer").await;
    let [first, second, third] = [0, 1, 2].map(|index| Arc::clone(bed.cluster.replica(index)));
    let [first, second, third] = [&first, &second, &third];
    bed.cluster.primary().kill().await.expect("the primary is killed");
    first.promote().await.expect("it is promoted");
    third.follow(first).await.expect("it follows");
    wait_for_primary(&bed, 1).await;
    set_counter(&client, 1).await;
    read_counter_until("its replica has it", &client, 1, |receipt| receipt.host == "replica3").await;

    // Whose replica that is does not come into doubt: it followed the first while the second was a standby for certain.
    #[allow(clippy::disallowed_methods, reason = "what is waited for is a moment")]
    let followed = Instant::now();
    let is_standby = || bed.view().hosts[2].measured_at.is_some_and(|at| at > followed);
    bed.wait_until("the second is asked again", is_standby).await;
    // Somebody else's fail-over: it never heard of the first, and takes the same number.
    second.promote().await.expect("it is promoted too");
    bed.wait_until("both are seen", || bed.view().conflict).await;
    assert_eq!(bed.metric(&["tidegate_primary_conflict{"]), 1.0);
    is_refused(&client).await;
    is_readable(&client, 1).await;
    let error = client.read_with(READ_COUNTER, [], strong()).await.map(drop).expect_err("nobody is the primary");
    assert_eq!(failure(&error).reason, "PRIMARY_CONFLICT");

    // One of both is out of reach for a moment: the one that is left may be the wrong one.
    for (host, server) in [(1, first), (2, second)] {
        server.proxy().cut().await;
        bed.wait_until("it is missed", || !bed.view().hosts[host].health.is_usable()).await;
        is_refused(&client).await;
        is_readable(&client, 1).await;
        server.proxy().restore().await;
        bed.wait_until("it is back", || bed.view().hosts[host].health.is_usable()).await;
        is_refused(&client).await;
    }

    let admin = AdminClient::connect(bed.url()).await.expect("the broker accepts connections");
    let shown = admin.topology().await.expect("an answer").clusters.remove(0);
    assert_eq!((shown.conflict, shown.primary.as_str()), (vec![first.name().to_owned(), second.name().to_owned()], ""));
    let refused = admin.settle_primary("", third.name()).await.expect_err("a replica cannot be decided for");
    assert_eq!((refused.code(), failure(&refused).reason.as_str()), (Code::FailedPrecondition, "NO_CONFLICT"));
    let settled = admin.settle_primary(bed.cluster.name(), second.name()).await.expect("an operator decides");
    assert_eq!((settled.conflict, settled.primary.as_str()), (vec![], second.name()), "seen with the answer");
    let refused = admin.settle_primary("", second.name()).await.expect_err("it is decided");
    assert_eq!(failure(&refused).reason, "NO_CONFLICT");
    wait_for_primary(&bed, 2).await;
    set_counter(&client, 2).await;
    // The first's branch is lost, and its replica with it, although it is on a timeline of that number and further on.
    let eventual = || ReadOptions::new().consistency(Consistency::Eventual);
    for server in [first, third, second] {
        server.sql("CHECKPOINT").await.expect("a checkpoint");
    }
    for _ in 0..20 {
        assert_eq!(read_int(&client, READ_COUNTER, ReadOptions::new()).await.0, 2);
        assert_eq!(read_int(&bed.client().await, READ_COUNTER, eventual()).await.0, 2);
    }
    assert_eq!((counter_on(first).await, counter_on(second).await), (1, 2));

    // What is left of it is rebuilt, and proves itself by the checkpoints that it has replayed.
    for server in [first, third] {
        server.rebuild_from(second).await.expect("it is rebuilt");
    }
    prove_by_checkpoints(&bed, second, &[first, third]).await;
    set_counter(&client, 3).await;
    for server in [first, third] {
        read_counter_until("they serve again", &client, 3, |receipt| receipt.host == server.name()).await;
    }
}
