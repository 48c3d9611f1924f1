//! `max_wait`: a read waits for a replica to catch up instead of loading the primary, and is woken when it has.

use std::time::Duration;

use tidegate_client::{Begin, Client, Consistency, HostRole, ReadOptions, RouteReason};
use tokio::task::JoinSet;

use crate::harness::{
    Bed, PATIENCE, READ_COUNTER, create_counters, pause_all, poll_until, read_int, resume_all, set_counter, within,
};

/// The replicas stand still, and the session has written since.
async fn start(change: impl FnOnce(&mut tidegate::config::Config)) -> (Bed, Client) {
    let bed = Bed::with(tidegate::dev::ClusterOptions::default(), change).await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let client = bed.session_client("writer").await;
    set_counter(&client, 1).await;
    (bed, client)
}

fn patient(consistency: Consistency) -> ReadOptions {
    ReadOptions::new().consistency(consistency).max_wait(PATIENCE)
}

async fn until_waiting(bed: &Bed, readers: usize) {
    let waiting = || bed.metric(&["tidegate_readers_waiting"]);
    poll_until("they wait", || std::future::ready(waiting() == readers as f64)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_wait_for_a_replica_and_are_woken_when_it_has_caught_up() {
    let (bed, client) = start(|_| {}).await;
    let mut readers = JoinSet::new();
    for reader in 0..100 {
        let client = client.clone();
        let consistency = if reader % 2 == 0 { Consistency::Session } else { Consistency::Causal };
        readers.spawn(async move { read_int(&client, READ_COUNTER, patient(consistency)).await });
    }
    let mut session = client.session().await.expect("the session opens");
    let in_transaction = async {
        let begin = Begin::new().on_replica(&patient(Consistency::Session));
        let transaction = session.begin(begin).await.expect("it begins");
        let receipt = transaction.receipt().expect("a receipt").clone();
        transaction.commit().await.expect("it commits");
        receipt
    };
    let resume = async {
        until_waiting(&bed, 101).await;
        resume_all(&bed).await;
    };
    let (receipt, ()) = tokio::join!(within("the transaction begins", in_transaction), resume);
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::Waited));
    while let Some(read) = within("the readers are woken", readers.join_next()).await {
        let (n, receipt) = read.expect("the read succeeds");
        assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Replica, RouteReason::Waited));
        assert!(receipt.waited.expect("a time").nanos > 0);
    }
    until_waiting(&bed, 0).await;
    assert_eq!(bed.metric(&["tidegate_wait_duration_seconds_count", "replay"]), 101.0);
    assert_eq!(bed.metric(&["tidegate_routes_total", "BEHIND"]), 0.0);
    // What is caught up is not waited for.
    let (_, receipt) = read_int(&client, READ_COUNTER, patient(Consistency::Session)).await;
    assert_eq!(receipt.reason(), RouteReason::CaughtUp);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_answers_when_none_catches_up_in_time() {
    let wait = Duration::from_millis(50);
    let (bed, client) = start(|config| config.consistency.max_wait = wait).await;
    // As configured; as asked for; and never so long that the deadline passes meanwhile.
    let late = patient(Consistency::Session).timeout(Duration::from_secs(2));
    for (options, least) in [
        (ReadOptions::new(), wait),
        (ReadOptions::new().max_wait(wait * 2), wait * 2),
        (late, Duration::from_millis(900)),
    ] {
        let (n, receipt) = read_int(&client, READ_COUNTER, options).await;
        assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));
        let waited: Duration = receipt.waited.expect("a time").try_into().expect("a duration");
        assert!(waited >= least, "{waited:?} {least:?}");
    }
    let waits = || bed.metric(&["tidegate_wait_duration_seconds_count", "replay"]);
    assert_eq!(waits(), 3.0);
    // Zero: not at all. Nor do reads wait that nothing could make fresher.
    let impatient = ReadOptions::new().max_wait(Duration::ZERO);
    assert_eq!(read_int(&client, READ_COUNTER, impatient).await.1.role(), HostRole::Primary);
    for consistency in [Consistency::Strong, Consistency::Eventual] {
        read_int(&client, READ_COUNTER, ReadOptions::new().consistency(consistency)).await;
    }
    assert_eq!(waits(), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_wait_and_who_leaves_makes_room() {
    let (bed, client) = start(|config| config.pool.max_queue = 3).await;
    let spawn = |readers: &mut JoinSet<_>| {
        let client = client.clone();
        readers.spawn(async move { read_int(&client, READ_COUNTER, patient(Consistency::Session)).await.1 })
    };
    let mut readers = JoinSet::new();
    let first = spawn(&mut readers);
    (0..2).for_each(|_| drop(spawn(&mut readers)));
    until_waiting(&bed, 3).await;
    // One more goes to the primary at once.
    let (_, receipt) = read_int(&client, READ_COUNTER, patient(Consistency::Session)).await;
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Primary, RouteReason::Behind));
    first.abort();
    until_waiting(&bed, 2).await;
    spawn(&mut readers);
    until_waiting(&bed, 3).await;
    resume_all(&bed).await;
    let mut waited = 0;
    while let Some(read) = within("the readers are woken", readers.join_next()).await {
        waited += usize::from(read.is_ok_and(|receipt| receipt.reason() == RouteReason::Waited));
    }
    assert_eq!(waited, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_waits_until_a_replica_is_fresh() {
    let (bed, client) = start(|_| {}).await;
    // It has to hold once more when the connection is at hand, on a busy machine too.
    let bound = Duration::from_secs(3);
    bed.wait_until("the replicas are too old", || {
        let (view, now) = (bed.view(), tidegate::clock::now());
        view.hosts[1..].iter().all(|host| view.lag(host, now).is_none_or(|lag| lag > bound))
    })
    .await;
    let bounded = ReadOptions::new().max_staleness(bound).max_wait(PATIENCE);
    let read = read_int(&client, READ_COUNTER, bounded);
    let resume = async {
        until_waiting(&bed, 1).await;
        resume_all(&bed).await;
    };
    let ((n, receipt), ()) = tokio::join!(within("a replica is fresh", read), resume);
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Replica, RouteReason::Waited));
}
