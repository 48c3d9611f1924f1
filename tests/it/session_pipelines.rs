//! Requests of a session that are sent without awaiting answers: run in order, each answered in its turn, whatever fails.

use std::time::Duration;

use tidegate_client::{Begin, Error, Outcome, proto::session_response::Response};
use tonic::Code;

use crate::{
    asking::{
        begin, commit, done, failed, last, primary_alone, rollback, session_read, session_write, tell, until_backends,
    },
    harness::Bed,
};

async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    let client = bed.client().await;
    for sql in [
        "CREATE TABLE marks (n int PRIMARY KEY)",
        "CREATE TABLE refs (n int REFERENCES marks DEFERRABLE INITIALLY DEFERRED)",
    ] {
        client.execute(sql, []).await.expect(sql);
    }
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_in_flight_are_answered_in_order_and_errors_stay_with_their_own() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let most = session.opened().max_unanswered as usize;
    // Every third fails, alternately in PostgreSQL and before it; every fourth is a read.
    let expected: Vec<_> = (1..=most)
        .map(|n| {
            let (request, answer) = match n {
                n if n % 6 == 3 => (session_write("INSERT INTO marks VALUES (1/0)"), Err(Code::InvalidArgument)),
                n if n % 6 == 0 => (session_write("COMMIT"), Err(Code::InvalidArgument)),
                n if n % 4 == 0 => (session_read("SELECT n FROM marks ORDER BY n DESC LIMIT 1"), Ok(())),
                n => (session_write(&format!("INSERT INTO marks VALUES ({n})")), Ok(())),
            };
            (session.send(0, None, request).expect("it is sent"), answer)
        })
        .collect();
    assert!(matches!(session.send(0, None, session_read("SELECT 1")), Err(Error::TooManyUnanswered)));
    for (id, expected) in &expected {
        let answer = last(&mut session).await;
        assert_eq!(answer.request_id, *id, "in order");
        match expected {
            Ok(()) => assert!(!matches!(answer.response, Some(Response::Failure(_))), "{answer:?}"),
            Err(code) => assert_eq!(failed(answer).0, *code),
        }
    }
    let written = expected.iter().filter(|(_, answer)| answer.is_ok()).count();
    let reads = (1..=most).filter(|n| n % 4 == 0 && n % 6 != 0).count();
    let count = tell(&bed.client().await, "SELECT count(*) FROM marks").await.expect("a count");
    assert_eq!(count, (written - reads).to_string());
    session.close().await.expect("the session ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_inside_a_pipelined_transaction_lets_nothing_behind_it_through() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let begun = session.send(0, None, begin()).expect("it is sent");
    for request in [
        session_write("INSERT INTO marks VALUES (1)"),
        session_write("INSERT INTO marks VALUES (1)"),
        session_write("INSERT INTO marks VALUES (2)"),
        commit(),
        rollback(),
        session_write("INSERT INTO marks VALUES (3)"),
    ] {
        session.send(begun, None, request).expect("it is sent");
    }
    let outside = session.send(0, None, session_write("INSERT INTO marks VALUES (4)")).expect("it is sent");
    done(last(&mut session).await);
    done(last(&mut session).await);
    assert_eq!(failed(last(&mut session).await).0, Code::AlreadyExists);
    for _ in 0..2 {
        assert_eq!(failed(last(&mut session).await).1, "TRANSACTION_FAILED");
    }
    done(last(&mut session).await);
    assert_eq!(failed(last(&mut session).await).1, "TRANSACTION_NOT_OPEN");
    assert_eq!(done(last(&mut session).await), outside);
    assert_eq!(tell(&bed.client().await, "SELECT sum(n) FROM marks").await.expect("a sum"), "4");

    // What only the COMMIT finds out: nothing is kept, and it says so.
    let begun = session.send(0, None, begin()).expect("it is sent");
    session.send(begun, None, session_write("INSERT INTO refs VALUES (77)")).expect("it is sent");
    session.send(begun, None, commit()).expect("it is sent");
    done(last(&mut session).await);
    done(last(&mut session).await);
    let answer = last(&mut session).await;
    let Some(Response::Failure(failure)) = &answer.response else { panic!("{answer:?}") };
    assert_eq!(failure.postgres.as_ref().expect("PostgreSQL's part").sqlstate, "23503");
    assert_eq!(failure.outcome(), Outcome::RolledBack);
    session.send(begun, None, rollback()).expect("it is sent");
    assert_eq!(failed(last(&mut session).await).1, "TRANSACTION_NOT_OPEN");
    assert_eq!(tell(&bed.client().await, "SELECT count(*) FROM refs").await.expect("a count"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begin_that_the_client_gave_up_is_rolled_back() {
    let bed = start().await;
    let mut session = bed.client().await.session().await.expect("the session opens");
    // Given up, but not ended: what comes behind it waits.
    let sleeping = session.write("INSERT INTO marks SELECT 1 FROM pg_sleep(600)", []);
    let asleep = "query LIKE '%pg_sleep%' AND state = 'active'";
    tokio::select! {
        ended = sleeping => panic!("it has ended: {ended:?}"),
        () = until_backends(bed.cluster.primary(), asleep, 1) => {}
    }
    session.set_timeout(Some(Duration::from_millis(500)));
    let given_up = session.begin(Begin::new()).await.map(drop);
    assert!(matches!(given_up, Err(Error::TimedOut)), "{given_up:?}");
    session.set_timeout(None);
    let wake = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'INSERT%'";
    bed.cluster.primary().sql(wake).await.expect("the backend is told to stop");
    let mut transaction = session.begin(Begin::new()).await.expect("no other is open");
    transaction.write("INSERT INTO marks VALUES (2)", []).await.expect("it is written");
    transaction.commit().await.expect("it commits");
}
