//! While there is no primary: what needs one waits for it until its deadline, in a room of limited size; what needs none
//! goes on.

use std::{future::Future, time::Duration};

use tidegate::{
    config::{Config, DatabaseConfig},
    dev::ClusterOptions,
};
use tidegate_client::{
    Begin, Client, Error, HostRole, ListenEvent, Outcome, ReadOptions, Receipt, RouteReason, Statement, WriteOptions,
};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::{
    asking::{begin, failed, failure, last, primary_alone, strong},
    harness::{
        Bed, PATIENCE, READ_COUNTER, create_counters, pause_all, poll_until, read_counter, read_int, resume_all,
        set_counter, within,
    },
};

const ADD: &str = "UPDATE counters SET n = n + 1 WHERE id = 1";

async fn bed_with(replicas: usize, change: impl FnOnce(&mut Config)) -> Bed {
    let bed = Bed::with(ClusterOptions { replicas, ..ClusterOptions::default() }, change).await;
    create_counters(&bed).await;
    bed.init_keys().await;
    bed.wait_until_caught_up().await;
    bed
}

async fn kill_primary(bed: &Bed) {
    bed.cluster.primary().kill().await.expect("the primary dies");
    bed.wait_until("the primary is missed", || bed.view().primary.is_none()).await;
}

fn waiting(bed: &Bed, kind: &str) -> f64 {
    bed.metric(&["tidegate_primary_waiting{", &format!("kind=\"{kind}\"")])
}

async fn until_waiting(bed: &Bed, kind: &str, count: usize) {
    poll_until(&format!("{count} calls wait ({kind})"), || async { waiting(bed, kind) == count as f64 }).await;
}

fn start<T: Send + 'static>(
    call: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> JoinHandle<Result<T, Error>> {
    tokio::spawn(call)
}

fn write(client: &Client, options: WriteOptions) -> JoinHandle<Result<Receipt, Error>> {
    let client = client.clone();
    start(async move { Ok(client.write_with([Statement::new(ADD)], options).await?.receipt) })
}

fn read(client: &Client, options: ReadOptions) -> JoinHandle<(i64, Receipt)> {
    let client = client.clone();
    tokio::spawn(async move { read_int(&client, READ_COUNTER, options).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_kind_wait_for_the_promotion_and_are_then_done() {
    let bed = bed_with(2, |_| {}).await;
    let client = bed.session_client("writer").await;
    let (mut session, mut talker) =
        (client.session().await.expect("it opens"), client.session().await.expect("it opens"));
    let mut listener = client.listen(["a"]).await.expect("it listens");
    let token = set_counter(&client, 10).await;
    for replica in bed.cluster.replicas() {
        replica.catch_up(bed.cluster.primary()).await.expect("the replica has it");
    }
    kill_primary(&bed).await;

    // Whoever needs no primary is served as before; how old that is nobody can say.
    for client in [client.clone(), bed.client().await] {
        let (n, receipt) = read_counter(&client).await;
        assert_eq!((n, receipt.role(), &receipt.staleness), (10, HostRole::Replica, &None), "{receipt:?}");
    }
    let transaction = start(async move {
        let mut transaction = session.begin(Begin::new()).await?;
        let attempts = transaction.receipt().map_or(0, |receipt| receipt.attempts);
        transaction.write(ADD, []).await?;
        transaction.commit().await?;
        Ok(attempts)
    });
    let talk = start(async move {
        talker.write_once("in a session", ADD, []).await?;
        talker.write(ADD, []).await
    });
    let plain = write(&client, WriteOptions::new());
    let keyed = write(&client, WriteOptions::new().idempotency_key("alone"));
    let two = {
        let client = client.clone();
        start(async move { Ok(client.write([Statement::new(ADD), Statement::new(ADD)]).await?.receipt) })
    };
    until_waiting(&bed, "write", 5).await;
    let reads = read(&bed.client().await, strong());
    let on_primary = {
        let mut session = bed.client().await.session().await.expect("it opens");
        start(async move { Ok(session.begin(Begin::new().on_replica(&strong())).await?.receipt().cloned()) })
    };
    until_waiting(&bed, "read", 2).await;
    assert!(bed.metric(&["tidegate_primary_waiting_oldest_seconds", "kind=\"write\""]) > 0.0);

    let (heir, other) = (bed.cluster.replica(0), bed.cluster.replica(1));
    heir.promote().await.expect("it is promoted");
    for receipt in [within("a write", plain).await, within("with a key", keyed).await, within("two", two).await] {
        let receipt = receipt.expect("the task ends").expect("it is written");
        assert_eq!((receipt.host.as_str(), receipt.role()), (heir.name(), HostRole::Primary));
        assert!(receipt.timeline == 2 && receipt.attempts > 1, "{receipt:?}");
    }
    assert!(within("a transaction", transaction).await.expect("it ends").expect("it is committed") > 1);
    within("a session's writes", talk).await.expect("it ends").expect("they are written");
    let (_, receipt) = within("a strong read", reads).await.expect("it ends");
    assert_eq!((receipt.host.as_str(), receipt.reason()), (heir.name(), RouteReason::Strong));
    let receipt = within("a transaction that reads", on_primary).await.expect("it ends").expect("it begins");
    assert_eq!(receipt.expect("a receipt").host, heir.name());
    assert_eq!((waiting(&bed, "write"), waiting(&bed, "read")), (0.0, 0.0));
    assert!(bed.metric(&["tidegate_wait_duration_seconds_count", "what=\"primary\""]) >= 7.0);

    // Each was done once; and the session sees all of it, on the replica that follows too.
    assert_eq!(read_counter(&client).await.0, 17);
    let bearer = bed.connect(Client::builder().position(token)).await;
    assert!(read_counter(&bearer).await.0 >= 10);
    other.follow(heir).await.expect("it follows");
    client.execute("NOTIFY a, 'x'", []).await.expect("it is notified");
    while !matches!(within("a gap", listener.next()).await.expect("it goes on"), ListenEvent::Gap { .. }) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_ahead_of_the_replica_waits_for_it_when_the_primary_is_gone() {
    let bed = bed_with(1, |_| {}).await;
    let client = bed.session_client("writer").await;
    pause_all(&bed).await;
    set_counter(&client, 1).await;
    // All of it has arrived, and none of it is replayed.
    let replica = bed.cluster.replica(0);
    let flushed = bed.cluster.primary().flush_lsn().await.expect("a position");
    let received = format!("SELECT pg_last_wal_receive_lsn() >= '{flushed}'");
    poll_until("the replica has received it", || async { replica.sql(&received).await.expect("an answer") == "t" })
        .await;
    kill_primary(&bed).await;
    let read = read(&client, ReadOptions::new());
    until_waiting(&bed, "read", 1).await;
    resume_all(&bed).await;
    let (n, receipt) = within("the replica has replayed it", read).await.expect("it ends");
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Replica, RouteReason::CaughtUp));
    assert_eq!(bed.view().primary, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_ends_with_the_deadline_a_cancel_or_a_full_room() {
    let short = |config: &mut Config| {
        config.timeouts.default_timeout = Duration::from_secs(1);
        config.pool.max_queue = 3;
    };
    let bed = bed_with(1, short).await;
    kill_primary(&bed).await;
    let hasty = bed.unlimited_client(Client::builder()).await;
    let retries = bed.metric(&["tidegate_retries_total", "write"]);
    let writes = [write(&hasty, WriteOptions::new()), write(&hasty, WriteOptions::new().idempotency_key("k"))];
    for ended in writes {
        let error = within("its time is up", ended).await.expect("it ends").expect_err("there is no primary");
        let failure = failure(&error);
        let is = (failure.code, failure.reason.as_str(), failure.outcome);
        assert_eq!(is, (Code::Unavailable, "NO_PRIMARY_AVAILABLE", Outcome::NotExecuted), "{failure:?}");
        assert!(failure.retry_delay.is_some() && failure.message.contains("until the deadline"), "{failure:?}");
    }
    assert_eq!(bed.metric(&["tidegate_retries_total", "write"]), retries + 2.0, "woken by a change, not by a clock");
    let error = hasty.read_with(READ_COUNTER, [], strong()).await.map(drop).expect_err("there is no primary");
    assert_eq!((error.code(), failure(&error).reason.as_str()), (Code::Unavailable, "NO_PRIMARY_AVAILABLE"));

    // As many as may, whatever they are; the next one is told at once, and reads have places of their own.
    let patient = bed.client().await;
    let mut raw = patient.raw_session().await.expect("it opens");
    let begun = raw.send(0, Some(PATIENCE), begin()).expect("it is sent");
    let mut waiters =
        vec![write(&patient, WriteOptions::new()), write(&patient, WriteOptions::new().idempotency_key("k"))];
    until_waiting(&bed, "write", 3).await;
    let error = write(&patient, WriteOptions::new()).await.expect("it ends").expect_err("the room is full");
    let crowded = failure(&error);
    assert_eq!((crowded.code, crowded.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{crowded:?}");
    assert!(crowded.outcome == Outcome::NotExecuted && crowded.retry_delay.is_some(), "{crowded:?}");
    let reader = read(&patient, strong());
    until_waiting(&bed, "read", 1).await;

    // Who leaves, or is cancelled, makes room at once.
    waiters.pop().expect("a call").abort();
    until_waiting(&bed, "write", 2).await;
    raw.cancel(begun).expect("it is sent");
    let (one, other) = (last(&mut raw).await, last(&mut raw).await);
    let answer = if one.request_id == begun { one } else { other };
    assert_eq!(failed(answer), (Code::Cancelled, "REQUEST_CANCELLED".into(), Outcome::NotExecuted));
    until_waiting(&bed, "write", 1).await;
    bed.cluster.primary().start().await.expect("the primary is back");
    waiters.pop().expect("a call").await.expect("it ends").expect("it is written");
    assert_eq!(reader.await.expect("it ends").1.role(), HostRole::Primary);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_not_waited_for_until_the_deadline() {
    let elsewhere = |config: &mut Config| {
        let cluster = config.clusters[0].name.clone();
        config.databases.push(DatabaseConfig { name: "missing".into(), cluster, dbname: "missing".into() });
    };
    let bed = Bed::with(primary_alone(), elsewhere).await;
    // Beyond it the client's own timer would end the call, without a reason.
    let client = Client::builder().database("missing").timeout(PATIENCE).connect(bed.url()).await.expect("it connects");
    let error = client.execute("SELECT 1", []).await.map(drop).expect_err("there is no such database");
    let failure = failure(&error);
    assert_eq!((failure.reason.as_str(), failure.outcome), ("CONNECT_FAILED", Outcome::NotExecuted), "{failure:?}");
    assert_eq!(error.sqlstate(), Some("3D000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_in_line_for_a_primary_that_hangs_is_done_by_the_next_one() {
    // One connection for writes, and one for the reads of the primary.
    let bed = bed_with(1, |config| config.pool.connections_per_host = 2).await;
    let (client, primary, heir) = (bed.client().await, bed.cluster.primary(), bed.cluster.replica(0));
    primary.pause().await.expect("it hangs");
    let hangs = write(&client, WriteOptions::new());
    let in_use = || bed.metric(&["tidegate_pool_connections", primary.name(), "pool=\"write\"", "in_use"]);
    poll_until("the first has the connection", || async { in_use() == 1.0 }).await;
    let in_line = write(&client, WriteOptions::new());
    let waiting = || bed.metric(&["tidegate_pool_waiting", primary.name(), "pool=\"write\""]);
    poll_until("the second waits for it", || async { waiting() == 1.0 }).await;
    heir.promote().await.expect("it is promoted");
    let receipt = in_line.await.expect("it ends").expect("it is written");
    assert_eq!((receipt.host.as_str(), hangs.is_finished()), (heir.name(), false));
    hangs.abort();
}
