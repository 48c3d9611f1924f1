//! The cancel of one request of a session: it overtakes the queue, stops what runs, and hits nothing else.

use std::{collections::HashMap, time::Duration};

use tidegate::dev::ClusterOptions;
use tidegate_client::{
    Outcome, RawSession, ReadOptions,
    proto::{self, SessionResponse, session_request::Request, session_response::Response},
};
use tonic::Code;

use crate::{
    asking::{
        ask, begin, commit, done, failed, go, last, primary_alone, session_read, session_write, tell, until_backends,
    },
    harness::Bed,
};

const SLEEPS: &str = "state = 'active' AND query LIKE '%pg_sleep%'";

async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed
}

/// The last responses to so many requests, by their ids.
async fn lasts(session: &mut RawSession, count: usize) -> HashMap<u64, SessionResponse> {
    let mut all = HashMap::new();
    while all.len() < count {
        let response = last(session).await;
        assert!(all.insert(response.request_id, response).is_none(), "a second last response");
    }
    all
}

fn savepoint() -> proto::SessionSavepoint {
    proto::SessionSavepoint { name: "s".into(), release: false }
}

fn cancelled(outcome: Outcome) -> (Code, String, Outcome) {
    (Code::Cancelled, "REQUEST_CANCELLED".into(), outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_overtakes_the_queue_and_stops_what_runs_and_what_waits() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    for request in [
        session_read("SELECT pg_sleep(600)::text"),
        session_write("INSERT INTO marks SELECT 1 FROM pg_sleep(600)"),
        session_write("SELECT pg_sleep(600)::text"),
    ] {
        let running = session.send(0, None, request).expect("it is sent");
        let waiting = session.send(0, None, session_write("INSERT INTO marks VALUES (2)")).expect("it is sent");
        let kept = session.send(0, None, session_write("INSERT INTO marks VALUES (3)")).expect("it is sent");
        until_backends(bed.cluster.primary(), SLEEPS, 1).await;
        // What waits first: its answer comes in its turn, that of the cancel at once, while the other still runs.
        let of_waiting = session.cancel(waiting).expect("it is sent");
        assert_eq!(done(last(&mut session).await), of_waiting);
        let of_running = session.cancel(running).expect("it is sent");
        let mut all = lasts(&mut session, 4).await;
        let mut take = |id| all.remove(&id).expect("an answer");
        done(take(of_running));
        assert_eq!(failed(take(running)), cancelled(Outcome::RolledBack));
        assert_eq!(failed(take(waiting)), cancelled(Outcome::NotExecuted));
        done(take(kept));
        // Without effect: it has its answer; it never was.
        for target in [running, kept] {
            let again = session.cancel(target).expect("it is sent");
            assert_eq!(done(last(&mut session).await), again);
        }
    }
    assert_eq!(tell(&bed.client().await, "SELECT sum(n) FROM marks").await.expect("a sum"), "9", "3 thrice");
    // A cancel carries nothing but its target, which is an earlier request.
    for (transaction, target, field) in
        [(0, 9999, "cancel.target_request_id"), (0, 0, "cancel.target_request_id"), (7, 1, "transaction_id")]
    {
        let cancel = Request::Cancel(proto::SessionCancel { target_request_id: target });
        session.send(transaction, None, cancel).expect("it is sent");
        let answer = last(&mut session).await;
        assert!(matches!(&answer.response, Some(Response::Failure(failure)) if failure.field == field), "{answer:?}");
    }
    assert!(bed.metric(&["tidegate_cancellations_total", "request"]) >= 3.0);
    session.close().await.expect("the session ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_inside_a_transaction_fails_it_and_a_cancelled_begin_opens_none() {
    let bed = start().await;
    let client = bed.client().await;
    let mut session = client.raw_session().await.expect("the session opens");
    let sleep = "SELECT pg_sleep(600)::text";
    for request in [session_read(sleep), session_write(sleep)] {
        let begun = done(go(&mut session, 0, begin()).await);
        done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (1)")).await);
        done(go(&mut session, begun, Request::Savepoint(savepoint())).await);
        let running = session.send(begun, None, request).expect("it is sent");
        let behind = session.send(begun, None, session_read("SELECT 1")).expect("it is sent");
        until_backends(bed.cluster.primary(), SLEEPS, 1).await;
        let cancel = session.cancel(running).expect("it is sent");
        let mut all = lasts(&mut session, 3).await;
        done(all.remove(&cancel).expect("an answer"));
        assert_eq!(failed(all.remove(&running).expect("an answer")), cancelled(Outcome::RolledBack));
        assert_eq!(failed(all.remove(&behind).expect("an answer")).1, "TRANSACTION_FAILED");
        // Healed, and nothing of the cancel is left to hit what follows.
        let back = proto::SessionRollback { to_savepoint: "s".into() };
        done(go(&mut session, begun, Request::Rollback(back)).await);
        done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (2)")).await);
        done(go(&mut session, begun, commit()).await);
    }
    assert_eq!(tell(&client, "SELECT sum(n) FROM marks").await.expect("a sum"), "6");

    let mut holder = client.session().await.expect("the session opens");
    let held = holder.begin(Default::default()).await.expect("it takes the only connection");
    let begun = session.send(0, None, begin()).expect("it is sent");
    let behind = session.send(begun, None, session_write("INSERT INTO marks VALUES (9)")).expect("it is sent");
    let cancel = session.cancel(begun).expect("it is sent");
    let mut all = lasts(&mut session, 3).await;
    done(all.remove(&cancel).expect("an answer"));
    assert_eq!(failed(all.remove(&begun).expect("an answer")), cancelled(Outcome::NotExecuted));
    assert_eq!(failed(all.remove(&behind).expect("an answer")).1, "TRANSACTION_NOT_OPEN");
    held.rollback().await.expect("it is rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_never_cancelled() {
    let bed = Bed::with(ClusterOptions::default(), |_| {}).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed.wait_until_caught_up().await;
    let client = bed.client().await;
    let mut session = client.raw_session().await.expect("the session opens");
    // A COMMIT waits for a replica that stands still.
    bed.cluster.primary().set("synchronous_standby_names", "replica1").await.expect("the setting is changed");
    bed.cluster.replica(0).pause().await.expect("the replica stands still");
    let begun = session.send(0, None, begin()).expect("it is sent");
    session.send(begun, None, session_write("INSERT INTO marks VALUES (1)")).expect("it is sent");
    let committing = session.send(begun, None, commit()).expect("it is sent");
    // Behind it one that waits in the queue; it is committed before its turn comes.
    until_backends(bed.cluster.primary(), "wait_event = 'SyncRep'", 1).await;
    let cancel = session.cancel(committing).expect("it is sent");
    let mut all = lasts(&mut session, 3).await;
    done(all.remove(&cancel).expect("answered while the commit goes on"));
    until_backends(bed.cluster.primary(), "wait_event = 'SyncRep'", 1).await;
    bed.cluster.replica(0).unpause().await.expect("the replica goes on");
    assert_eq!(done(last(&mut session).await), committing);
    assert_eq!(ask(&client, "SELECT count(*) FROM marks").await.expect("a count"), "1");

    // Nor one that waits for its turn.
    let begun = done(go(&mut session, 0, begin()).await);
    let sleep =
        session.send(begun, None, session_write("INSERT INTO marks SELECT 2 FROM pg_sleep(0.2)")).expect("sent");
    let committing = session.send(begun, None, commit()).expect("it is sent");
    let cancel = session.cancel(committing).expect("it is sent");
    let mut all = lasts(&mut session, 3).await;
    for id in [sleep, committing, cancel] {
        done(all.remove(&id).expect("an answer"));
    }
    assert_eq!(ask(&client, "SELECT sum(n) FROM marks").await.expect("a sum"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_behind_a_cancelled_one_is_never_hit() {
    let bed = start().await;
    let client = bed.client().await;
    let mut session = client.raw_session().await.expect("the session opens");
    let mut stopped = 0;
    for n in 0..100_u64 {
        let sleep = || session_write("SELECT 1 FROM pg_sleep(0.002)");
        let pinned = n % 2 == 0;
        let begun = if pinned { done(go(&mut session, 0, begin()).await) } else { 0 };
        if pinned {
            done(go(&mut session, begun, Request::Savepoint(savepoint())).await);
        }
        // Around the statement's own 2 ms: before it, at its end, behind it. What follows is on its heels.
        let target = session.send(begun, None, sleep()).expect("it is sent");
        tokio::time::sleep(Duration::from_micros(n * 40)).await;
        let cancel = session.cancel(target).expect("it is sent");
        let back = proto::SessionRollback { to_savepoint: "s".into() };
        let behind = if pinned { vec![Request::Rollback(back), sleep(), commit()] } else { vec![sleep()] };
        let behind: Vec<_> =
            behind.into_iter().map(|request| session.send(begun, None, request).expect("it is sent")).collect();
        let mut all = lasts(&mut session, 2 + behind.len()).await;
        done(all.remove(&cancel).expect("an answer"));
        let first = all.remove(&target).expect("an answer");
        if matches!(first.response, Some(Response::Failure(_))) {
            assert_eq!(failed(first).1, "REQUEST_CANCELLED");
            stopped += 1;
        }
        for id in behind {
            done(all.remove(&id).unwrap_or_else(|| panic!("try {n}: no answer")));
        }
    }
    assert!(stopped > 0, "some were stopped");
    // A connection whose cancel cannot be absorbed in time is closed: the exception, not what keeps the next one safe.
    let made = bed.metric(&["tidegate_connects_total", r#"result="ok""#]);
    assert!(made <= 20.0, "{made} connections were made for 100 cancels");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_cancels_a_read_half_way() {
    let bed = start().await;
    let mut session = bed.client().await.session().await.expect("the session opens");
    let endless = "SELECT repeat('x', 1000), generate_series(1, 1000000000)";
    let mut stream = session.read(endless, [], ReadOptions::new()).await.expect("it starts");
    assert!(stream.next().await.expect("rows").is_some());
    stream.cancel().await.expect("it is stopped");
    until_backends(bed.cluster.primary(), "state = 'active' AND query LIKE '%generate_series%'", 0).await;
    let written = session.write("INSERT INTO marks VALUES (1)", []).await.expect("the session goes on");
    assert_eq!(written.rows_affected, 1);
    session.close().await.expect("the session ends well");
}
