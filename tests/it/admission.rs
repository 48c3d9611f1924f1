//! Who is let in when there is too much to do: reads that fall back to the primary and transactions that stay open have
//! shares of its connections, and writes keep theirs (rule 13); callers take turns, and none waits for ever.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tidegate::dev::DATABASE;
use tidegate_client::{Client, Consistency, Error, Outcome, ReadOptions};
use tokio::{net::TcpSocket, task::JoinHandle};
use tonic::{Code, transport::Endpoint};

use crate::{
    asking::{
        ask, begin, commit, done, failed, failure, go, primary_alone, session_write, strong, tell, until_backends,
    },
    harness::{Bed, PATIENCE, create_counters, pause_all, poll_until, resume_all, set_counter, within},
};

const SLEEPING: &str = "state = 'active' AND query LIKE '%pg_sleep%'";
const SLEEP: &str = "SELECT pg_sleep(60)::text";

/// Reads that hold a connection to the primary until they are aborted.
fn drown(client: &Client, count: usize) -> Vec<JoinHandle<()>> {
    let sleeper = |client: Client| async move { drop(client.read_with(SLEEP, [], strong()).await) };
    (0..count).map(|_| tokio::spawn(sleeper(client.clone()))).collect()
}

/// Refused for now: nothing ran, and it is said when to come back.
fn expect_shed(error: &Error) {
    let refusal = failure(error);
    assert_eq!((error.code(), refusal.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{refusal:?}");
    assert_eq!(refusal.outcome, Outcome::NotExecuted);
    let delay = refusal.retry_delay.expect("a retry can help, so it says when");
    assert!(delay >= Duration::from_millis(50) && delay <= Duration::from_millis(7500), "{delay:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_drown_the_primary_leave_its_writes_their_connections() {
    let bed = Bed::with(primary_alone(), |config| {
        // Of four for calls two are for reads; three more callers may wait.
        config.pool.connections_per_host = 9;
        config.pool.max_queue = 3;
    })
    .await;
    let client = bed.client().await;
    tell(&client, "CREATE TABLE marks (n int)").await.expect("the table is made");

    let sleepers = drown(&client, 5);
    until_backends(bed.cluster.primary(), SLEEPING, 2).await;
    let queue = r#"use="primary_read""#;
    poll_until("the queue is full", async || bed.metric(&["tidegate_queue_waiting", queue]) == 3.0).await;
    let full = client.read_with(SLEEP, [], strong()).await.map(drop).expect_err("the queue is full");
    expect_shed(&full);
    assert!(bed.metric(&["_queue_oldest_seconds", queue]) > 0.0);
    assert!(bed.metric(&["tidegate_sheds_total", r#"cause="full""#, r#"queue="primary_read""#]) == 1.0);
    assert_eq!(bed.metric(&["tidegate_budget_connections", queue]), 2.0);

    for n in 0..20 {
        tell(&client, &format!("INSERT INTO marks VALUES ({n})")).await.expect("writes pass");
    }
    until_backends(bed.cluster.primary(), SLEEPING, 2).await;
    sleepers.iter().for_each(JoinHandle::abort);
    until_backends(bed.cluster.primary(), SLEEPING, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_fall_back_and_transactions_that_stay_open_leave_room_for_writes() {
    let bed = Bed::with(Default::default(), |config| {
        // Of eight for calls four are for reads, and four for writes: of these three for transactions.
        config.pool.connections_per_host = 13;
        config.pool.max_queue_age = Duration::from_secs(2);
        config.consistency.stick_timeout = Duration::from_secs(600);
    })
    .await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let primary = bed.cluster.primary();

    // No replica has what these have written: they read from the primary, slowly, and are more than it has room for.
    let mut sleepers = Vec::new();
    for n in 0..8 {
        let client = bed.session_client(&format!("session-{n}")).await;
        set_counter(&client, 1).await;
        sleepers.push(tokio::spawn(async move { client.read(SLEEP, []).await.map(drop) }));
    }
    until_backends(primary, SLEEPING, 4).await;
    poll_until("the others are sent away", || async {
        bed.metric(&["tidegate_sheds_total", r#"cause="age""#, r#"queue="primary_read""#]) == 4.0
    })
    .await;
    assert!(bed.metric(&["tidegate_routes_total", r#"reason="BEHIND""#]) >= 8.0);

    // Transactions that stay open take no more than their share of the rest, and are told so.
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut session = bed.client().await.raw_session().await.expect("the session opens");
        let transaction = done(go(&mut session, 0, begin()).await);
        held.push((session, transaction));
    }
    let mut another = bed.client().await.raw_session().await.expect("the session opens");
    let refused = failed(go(&mut another, 0, begin()).await);
    assert_eq!(refused, (Code::ResourceExhausted, "OVERLOADED".into(), Outcome::NotExecuted));
    let client = bed.client().await;
    for n in 0..20 {
        set_counter(&client, n).await;
    }
    until_backends(primary, SLEEPING, 4).await;
    for (session, transaction) in &mut held {
        done(go(session, *transaction, session_write("SELECT 1")).await);
        done(go(session, *transaction, commit()).await);
    }
    done(go(&mut another, 0, begin()).await);

    let mut shed = 0;
    for sleeper in sleepers {
        if sleeper.is_finished() {
            expect_shed(&sleeper.await.expect("it ends").expect_err("it was sent away"));
            shed += 1;
        } else {
            sleeper.abort();
        }
    }
    assert_eq!(shed, 4);
    resume_all(&bed).await;
}

/// A client behind another address of this machine.
pub async fn client_from(bed: &Bed, address: &'static str) -> Client {
    let to = bed.app().grpc_address();
    let connect = move |_| async move {
        let socket = TcpSocket::new_v4()?;
        socket.bind(std::net::SocketAddr::new(address.parse().expect("an address"), 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(TokioIo::new(stream))
    };
    let endpoint = Endpoint::from_shared(bed.url()).expect("a URL");
    let channel = endpoint.connect_with_connector(tower::service_fn(connect)).await.expect("the broker accepts it");
    Client::builder().database(DATABASE).timeout(PATIENCE).over(channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_its_limit_and_its_turn_among_others() {
    let bed = Bed::with(primary_alone(), |config| {
        config.limits.database_concurrency = Some(3);
        config.limits.caller_concurrency = Some(2);
    })
    .await;
    let (greedy, other) = (client_from(&bed, "127.0.0.1").await, client_from(&bed, "127.0.0.2").await);
    let primary = bed.cluster.primary();
    let sleepers = drown(&greedy, 20);
    until_backends(primary, SLEEPING, 2).await;
    let waiting = || bed.metric(&["tidegate_calls_waiting"]);
    poll_until("the rest waits", || async { waiting() == 18.0 }).await;
    assert!(bed.metric(&["tidegate_calls_oldest_seconds"]) > 0.0);
    for _ in 0..20 {
        assert_eq!(ask(&other, "SELECT 1").await.expect("another caller's turn"), "1");
    }
    // A transaction counts until its end; whoever waits behind it does so until its deadline at the latest.
    let mut session = other.raw_session().await.expect("the session opens");
    let transaction = done(go(&mut session, 0, begin()).await);
    let late = other.read_with("SELECT 1", [], strong().timeout(Duration::from_secs(1))).await;
    let late = late.map(drop).expect_err("three run");
    assert_eq!((late.code(), late.outcome()), (Code::DeadlineExceeded, Outcome::NotExecuted), "{late}");
    let mut behind = tokio::spawn({
        let other = other.clone();
        async move { ask(&other, "SELECT 1").await }
    });
    poll_until("it waits, too", || async { waiting() == 19.0 }).await;
    done(go(&mut session, transaction, commit()).await);
    // Its place is for the one caller that has not reached its limit, though eighteen came before.
    assert_eq!(within("its turn", &mut behind).await.expect("it ends").expect("it is let in"), "1");
    sleepers.iter().for_each(JoinHandle::abort);
    poll_until("nobody waits", || async { waiting() == 0.0 && bed.metric(&["tidegate_calls_running"]) == 0.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_primary_takes_nobodys_turn() {
    let bed = Bed::with(Default::default(), |config| config.limits.database_concurrency = Some(1)).await;
    create_counters(&bed).await;
    bed.wait_until_caught_up().await;
    bed.cluster.primary().kill().await.expect("the primary dies");
    bed.wait_until("the primary is missed", || bed.view().primary.is_none()).await;
    let client = bed.client().await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { tell(&client, "SELECT 1").await }
    });
    poll_until("the write waits", || async { bed.metric(&["tidegate_primary_waiting{", r#"kind="write""#]) == 1.0 })
        .await;
    let read = within(
        "a replica reads",
        client.read_with("SELECT n FROM counters", [], ReadOptions::new().consistency(Consistency::Eventual)),
    )
    .await;
    drop(read.expect("it has its turn"));
    waiting.abort();
}
