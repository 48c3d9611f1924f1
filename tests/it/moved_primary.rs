//! A primary that comes back at another address while the old one is still listed, and one that leaves the configuration:
//! what may be written, who may be read, and until when.

use std::time::{Duration, Instant};

use tidegate::{
    config::{ConfiguredRole, HostConfig, PostgresUrl},
    dev::{ClusterOptions, Server},
    model::{HostView, Lsn},
};
use tidegate_client::{Begin, HostRole, Outcome, Statement};
use tonic::Code;

use crate::{
    asking::{failure, strong, tell, until_backends},
    harness::{
        Bed, READ_COUNTER, create_counters, poll_until, read_counter, read_counter_until, read_int, set_counter, within,
    },
    reload::{apply, without},
};

/// Has the primary write a checkpoint and its replicas make restartpoints of it, until they are proved on its history.
pub async fn prove_by_checkpoints(bed: &Bed, primary: &Server, replicas: &[&Server]) {
    let are_proved = || {
        let view = bed.view();
        let is_proved = |replica: &&Server| {
            view.hosts.iter().any(|host| &*host.name == replica.name() && host.history == view.history)
        };
        view.history.is_some() && replicas.iter().all(is_proved)
    };
    // The first one may come before the broker has looked, and is then no proof; and whoever writes them faster than
    // the broker looks shows it a different one on each server.
    for _ in 0..10 {
        primary.sql("CHECKPOINT").await.expect("a checkpoint");
        for replica in replicas {
            replica.catch_up(primary).await.expect("it follows");
            replica.sql("CHECKPOINT").await.expect("a restartpoint");
        }
        if tokio::time::timeout(Duration::from_secs(3), bed.wait_until("they are proved", are_proved)).await.is_ok() {
            return;
        }
    }
    panic!("no checkpoint proves the replicas: {:?}", bed.view());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_moved_is_a_conflict_until_its_old_address_is_gone_and_its_replicas_then_prove_themselves() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let client = bed.session_client("writer").await;
    let [primary, first, second] = [bed.cluster.primary(), bed.cluster.replica(0), bed.cluster.replica(1)];
    set_counter(&client, 1).await;
    read_counter_until("a replica has it", &client, 1, |receipt| receipt.role() == HostRole::Replica).await;

    // It starts anew at another address, and for a while both are listed.
    primary.proxy().cut().await;
    primary.restart().await.expect("it is started elsewhere");
    let mut both = bed.config.clone();
    let moved = HostConfig {
        name: "moved".into(),
        configured_role: ConfiguredRole::Replica,
        url: PostgresUrl::parse(&primary.direct_url()).expect("a URL"),
        ..both.clusters[0].hosts[0].clone()
    };
    both.clusters[0].hosts.push(moved);
    apply(bed.app(), &both).await;
    bed.wait_until("both claims are known", || bed.view().conflict).await;
    // It could as well be a copy, with the old one alive where this broker cannot see it.
    let refused = client.execute("UPDATE counters SET n = 100", []).await.map(drop).expect_err("nobody may write");
    assert_eq!(failure(&refused).reason, "PRIMARY_CONFLICT");
    // And nobody knows since when: its replicas could be these.
    let refused = client.read(READ_COUNTER, []).await.map(drop).expect_err("no replica is proved");
    assert_eq!(failure(&refused).reason, "PRIMARY_CONFLICT");

    // The old address is listed no more, which decides it. Whose replicas they are nobody knows yet.
    apply(bed.app(), &without(&both, primary)).await;
    bed.wait_until("the one that is left is the primary", || {
        bed.view().primary_host().is_some_and(|host| &*host.name == "moved")
    })
    .await;
    set_counter(&client, 2).await;
    for replica in [first, second] {
        replica.catch_up(primary).await.expect("it follows");
    }
    let (n, receipt) = read_counter(&client).await;
    assert_eq!((n, receipt.role()), (2, HostRole::Primary), "{receipt:?}");

    prove_by_checkpoints(&bed, primary, &[first, second]).await;
    set_counter(&client, 3).await;
    for replica in [first, second] {
        read_counter_until("each serves again", &client, 3, |receipt| receipt.host == replica.name()).await;
    }
    // One that starts anew proves itself by what its control file says already.
    first.restart().await.expect("it starts anew");
    bed.wait_until("it is proved again", || {
        let view = bed.view();
        view.hosts
            .iter()
            .any(|host| &*host.name == first.name() && host.is_up_replica() && host.history == view.history)
    })
    .await;
    read_counter_until("it serves again", &client, 3, |receipt| receipt.host == first.name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_moved_in_one_step_is_written_to_at_once_and_its_replicas_prove_themselves() {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |_| {}).await;
    create_counters(&bed).await;
    let client = bed.session_client("writer").await;
    let (primary, replica) = (bed.cluster.primary(), bed.cluster.replica(0));
    set_counter(&client, 1).await;
    read_counter_until("the replica has it", &client, 1, |receipt| receipt.host == replica.name()).await;
    let before = bed.view().history;

    // Whether it is the same disk nobody can tell; were it a copy, the replica could still follow the first one.
    primary.kill().await.expect("it is killed");
    bed.wait_until("it is missed", || bed.view().primary.is_none()).await;
    let mut moved = bed.config.clone();
    moved.clusters[0].hosts[0].name = "moved".into();
    apply(bed.app(), &moved).await;
    primary.start().await.expect("it is started elsewhere");
    bed.wait_until("it is found", || bed.view().primary_host().is_some_and(|host| &*host.name == "moved")).await;
    assert!(!bed.view().conflict && bed.view().history != before);
    set_counter(&client, 2).await;
    let written: Lsn = primary.sql_value("SELECT pg_current_wal_flush_lsn()").await.expect("a position");
    let follower =
        || bed.view().hosts.iter().find(|host| &*host.name == replica.name()).cloned().expect("it is listed");
    bed.wait_until("the replica was asked since", || follower().replay >= Some(written)).await;
    assert_eq!(follower().history, None, "the number says nothing");
    let (n, receipt) = read_counter(&client).await;
    assert_eq!((n, receipt.role()), (2, HostRole::Primary), "{receipt:?}");

    prove_by_checkpoints(&bed, primary, &[replica]).await;
    set_counter(&client, 3).await;
    read_counter_until("it serves again", &client, 3, |receipt| receipt.host == replica.name()).await;
    // Under its name it goes on as it was.
    primary.restart().await.expect("it starts anew");
    set_counter(&client, 4).await;
    read_counter_until("it serves on", &client, 4, |receipt| receipt.host == replica.name()).await;
}

/// Waits until nothing more may be committed on the primary of before, which has no successor.
async fn until_its_right_ends(bed: &Bed, host: &HostView) {
    #[allow(clippy::disallowed_methods, reason = "what is waited for is a moment")]
    let may_end = || bed.view().is_primary(host.id, host.incarnation, Instant::now());
    poll_until("its last lease has lapsed", async || !may_end()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_began_on_a_primary_that_left_without_a_successor_commits_within_its_lease_or_never() {
    let lease = Duration::from_secs(3);
    let options = ClusterOptions { replicas: 1, ..ClusterOptions::default() };
    let bed = Bed::with(options, |config| config.health.lease = lease).await;
    create_counters(&bed).await;
    let client = bed.client().await;
    let primary = bed.cluster.primary();
    let mut session = client.session().await.expect("a session");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("UPDATE counters SET n = n + 10 WHERE id = 1", []).await.expect("a write");
    // It waits for the row, in a transaction of its own.
    let waiting = tokio::spawn({
        let client = client.clone();
        let add = || Statement::new("UPDATE counters SET n = n + 100 WHERE id = 1");
        async move { client.write([add(), add()]).await.map(drop) }
    });
    until_backends(primary, "wait_event_type = 'Lock'", 1).await;

    let host = bed.view().hosts[0].clone();
    apply(bed.app(), &without(&bed.config, primary)).await;
    assert_eq!(bed.view().primary, None);
    until_its_right_ends(&bed, &host).await;
    let error = transaction.commit().await.expect_err("nobody confirms that it is the primary");
    let refused = failure(&error);
    let is = (refused.code, refused.reason.as_str(), refused.outcome);
    assert_eq!(is, (Code::Unavailable, "NO_PRIMARY_AVAILABLE", Outcome::RolledBack), "{refused:?}");
    let error = within("it has the row now", waiting).await.expect("it ends").expect_err("it may not commit either");
    let refused = failure(&error);
    let is = (refused.code, refused.reason.as_str(), refused.outcome);
    assert_eq!(is, (Code::Unavailable, "NO_PRIMARY_AVAILABLE", Outcome::RolledBack), "{refused:?}");
    until_backends(primary, "true", 0).await;
    assert_eq!(primary.sql_value::<i64>(READ_COUNTER).await.expect("it answers"), 0);

    // It is back in the configuration, and with it the role.
    apply(bed.app(), &bed.config).await;
    tell(&client, "UPDATE counters SET n = n + 1 WHERE id = 1").await.expect("it is the primary");
    assert_eq!(read_int(&client, READ_COUNTER, strong()).await.0, 1);
}
