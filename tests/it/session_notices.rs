//! What a session is told unasked: PostgreSQL's notices, a lost transaction, the end of its life; and what becomes of one
//! whose client vanished without a word.

use std::time::Duration;

use tidegate::dev::{DATABASE, Proxy};
use tidegate_client::{Client, NoticeKind, SessionNotice, proto::session_response::Response};

use crate::{
    asking::{
        backends, begin, commit, done, failed, go, last, not_open, primary_alone, rollback, session_read,
        session_write, tell, until_backends,
    },
    harness::{Bed, poll_until},
};

const OPEN: &str = "state LIKE 'idle in transaction%'";

async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed
}

fn said(notice: &SessionNotice) -> (NoticeKind, &str, &str) {
    let postgres = notice.postgres.as_ref().expect("what PostgreSQL said");
    (notice.kind(), postgres.severity.as_str(), notice.message.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_of_an_open_transaction_come_before_the_answer_to_their_statement() {
    let bed = start().await;
    let client = bed.client().await;
    client
        .execute(
            "CREATE FUNCTION speak(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'says %', $1; RETURN 1; END $$",
            [],
        )
        .await
        .expect("the function is made");
    let mut session = client.raw_session().await.expect("the session opens");
    let begun = done(go(&mut session, 0, begin()).await);
    let warn = "DO $$ BEGIN RAISE WARNING 'beware'; END $$";
    for (request, severity, message) in [
        (session_read("SELECT speak('read')"), "NOTICE", "says read"),
        (session_write("SELECT speak('write')"), "NOTICE", "says write"),
        (session_write(warn), "WARNING", "beware"),
        (session_write("SELECT 1 / (speak('last words') - 1)"), "NOTICE", "says last words"),
    ] {
        go(&mut session, begun, request).await;
        let notice = session.take_notice().expect("it came before the answer");
        assert_eq!(said(&notice), (NoticeKind::Postgres, severity, message));
        assert!(session.take_notice().is_none());
    }
    done(go(&mut session, begun, rollback()).await);
    // More than are kept: none holds the session up, and the first ones come.
    let begun = done(go(&mut session, 0, begin()).await);
    let many = "DO $$ BEGIN FOR n IN 1..1000 LOOP RAISE NOTICE '%', n; END LOOP; END $$";
    done(go(&mut session, begun, session_write(many)).await);
    let heard = std::iter::from_fn(|| session.take_notice()).count();
    assert!((1..=64).contains(&heard), "{heard}");
    // The next user of the connection hears nothing of it, and neither does the next transaction.
    done(go(&mut session, begun, commit()).await);
    let begun = done(go(&mut session, 0, begin()).await);
    done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (1)")).await);
    done(go(&mut session, begun, commit()).await);
    assert!(session.take_notice().is_none());
    session.close().await.expect("the session ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_lost_with_its_connection_is_announced() {
    let bed = start().await;
    let primary = bed.cluster.primary();
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let pid_of_open = || async {
        primary
            .sql_value::<i32>("SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'")
            .await
            .expect("a pid")
    };
    // Between requests: the notice comes by itself.
    let begun = done(go(&mut session, 0, begin()).await);
    done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (1)")).await);
    primary.terminate_backend(pid_of_open().await).await.expect("it is terminated");
    until_backends(primary, OPEN, 0).await;
    let gone = || bed.metric(&["tidegate_transactions_open"]) == 0.0;
    poll_until("the broker has noticed", || async { gone() }).await;
    assert_eq!(failed(go(&mut session, begun, commit()).await), not_open());
    let notice = session.take_notice().expect("a notice");
    assert_eq!(notice.kind(), NoticeKind::TransactionLost, "{notice:?}");
    assert_eq!(notice.postgres.as_ref().expect("its last words").sqlstate, "57P01", "{notice:?}");

    // Under a statement: the notice, then the statement's own failure.
    let begun = done(go(&mut session, 0, begin()).await);
    done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (1)")).await);
    let pid = pid_of_open().await;
    session.send(begun, None, session_write("SELECT pg_sleep(600)::text")).expect("it is sent");
    until_backends(primary, "state = 'active' AND query LIKE '%pg_sleep%'", 1).await;
    primary.terminate_backend(pid).await.expect("it is terminated");
    let (_, reason, outcome) = failed(last(&mut session).await);
    assert_eq!(outcome, tidegate_client::Outcome::RolledBack, "{reason}");
    assert_eq!(session.take_notice().expect("a notice").kind(), NoticeKind::TransactionLost);
    assert_eq!(failed(go(&mut session, begun, rollback()).await), not_open());
    assert_eq!(tell(&bed.client().await, "SELECT count(*) FROM marks").await.expect("a count"), "0");
    session.close().await.expect("the session goes on, and ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_sessions_life_is_announced_also_while_a_request_runs() {
    let bed = Bed::with(primary_alone(), |config| config.session.max_lifetime = Duration::from_secs(3)).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let begun = done(go(&mut session, 0, begin()).await);
    done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (1)")).await);
    // Would run beyond its end: announced while it runs, and stopped then.
    session.send(begun, None, session_write("SELECT 1 FROM pg_sleep(600)")).expect("it is sent");
    assert_eq!(failed(last(&mut session).await).1, "DEADLINE_EXCEEDED");
    let notice = session.take_notice().expect("announced while it ran");
    assert_eq!(notice.kind(), NoticeKind::Closing, "{notice:?}");
    let left = Duration::try_from(notice.closes_in.expect("when")).expect("a duration");
    assert_eq!(left, Duration::from_millis(300));
    let error = loop {
        match session.receive().await {
            Ok(response) => assert!(!matches!(response.response, Some(Response::Failure(_))), "{response:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), "SESSION_LIFETIME", "{error}");
    until_backends(bed.cluster.primary(), OPEN, 0).await;
    assert_eq!(tell(&bed.client().await, "SELECT count(*) FROM marks").await.expect("a count"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_without_a_word_loses_its_transaction_and_its_locks() {
    let bed = Bed::with(primary_alone(), |config| {
        config.grpc.keepalive_interval = Duration::from_millis(200);
        // Enough for a busy machine to answer.
        config.grpc.keepalive_timeout = Duration::from_secs(2);
    })
    .await;
    let witness = bed.client().await;
    for sql in ["CREATE TABLE marks (n int)", "INSERT INTO marks VALUES (1)"] {
        witness.execute(sql, []).await.expect(sql);
    }
    let proxy = Proxy::start(bed.app().grpc_address()).await.expect("the proxy starts");
    let far = Client::builder().database(DATABASE).connect(format!("http://127.0.0.1:{}", proxy.port())).await;
    let far = far.expect("the broker accepts connections");
    let mut session = far.raw_session().await.expect("the session opens");
    let begun = done(go(&mut session, 0, begin()).await);
    done(go(&mut session, begun, session_write("UPDATE marks SET n = 2")).await);
    assert_eq!(backends(bed.cluster.primary(), OPEN).await, 1);
    // Quiet is not gone: pings are answered while the way is open, however long nothing is asked.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(backends(bed.cluster.primary(), OPEN).await, 1);

    proxy.blackhole().await;
    // Waits for the row, which the vanished one has locked.
    witness.execute("UPDATE marks SET n = n + 10", []).await.expect("the lock is free again");
    until_backends(bed.cluster.primary(), OPEN, 0).await;
    assert_eq!(tell(&witness, "SELECT n FROM marks").await.expect("a number"), "11", "nothing of it was kept");
    drop(session);
}
