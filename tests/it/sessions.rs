//! Interactive sessions: transactions on one connection, failures in band, and nothing that slips out of a transaction.

use std::time::Duration;

use tidegate_client::{
    Begin, HostRole, Isolation, Outcome, ReadOptions, RouteReason, Statement, params,
    proto::{self, session_request::Request},
};
use tonic::Code;

use crate::{
    asking::{
        ask, backends, begin, commit, done, failed, go, last, not_open, primary_alone, rollback, session_read,
        session_write, show, strong, tell, until_backends,
    },
    harness::{Bed, create_counters, read_int},
};

const OPEN: &str = "state LIKE 'idle in transaction%'";
const COUNT: &str = "SELECT count(*) FROM marks";

async fn start() -> Bed {
    // One connection for writes and transactions, one for reads.
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_one_connection_which_sees_what_others_see_after_the_commit_only() {
    let bed = start().await;
    let (client, other) = (bed.client().await, bed.client().await);
    let mut session = client.session().await.expect("the session opens");
    let settings = &bed.config.session;
    assert_eq!(session.opened().max_unanswered as usize, settings.max_unanswered);
    let idle = session.opened().transaction_idle_timeout.map(|limit| Duration::try_from(limit).expect("a duration"));
    assert_eq!(idle, Some(settings.transaction_idle_timeout));
    assert!(session.opened().max_lifetime.is_some());

    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    let pid = "SELECT pg_backend_pid()";
    let first = transaction.read(pid, []).await.expect("a read").rows().await.expect("rows");
    let written = transaction.write("INSERT INTO marks VALUES ($1), ($2) RETURNING n", params![1, 2]).await;
    let written = written.expect("a write");
    assert_eq!((written.rows_affected, written.rows.len()), (2, 2));
    let second = transaction.read(pid, []).await.expect("a read").rows().await.expect("rows");
    let pid_of = |rows: &tidegate_client::Rows| rows.iter().next().expect("a row").get::<i64>(0).expect("a pid");
    assert_eq!(pid_of(&first), pid_of(&second), "one backend");
    let own = transaction.read(COUNT, []).await.expect("a read").rows().await.expect("rows");
    assert_eq!(pid_of(&own), 2, "its own rows, before the commit");
    assert_eq!(ask(&other, COUNT).await.expect("a count"), "0");
    transaction.commit().await.expect("it commits");
    assert_eq!(ask(&other, COUNT).await.expect("a count"), "2");
    assert_eq!(tell(&other, pid).await.expect("a pid"), pid_of(&first).to_string(), "the connection is free again");
    session.close().await.expect("the session ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_has_the_isolation_and_access_it_was_begun_with() {
    let bed = start().await;
    let mut session = bed.client().await.session().await.expect("the session opens");
    let shown = "SELECT current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only') \
                 || ' ' || current_setting('transaction_deferrable')";
    for (begin, expected) in [
        (Begin::new(), "read committed off off"),
        (Begin::new().isolation(Isolation::RepeatableRead), "repeatable read off off"),
        (Begin::new().isolation(Isolation::Serializable).read_only().deferrable(), "serializable on on"),
    ] {
        let mut transaction = session.begin(begin).await.expect("it begins");
        let rows = transaction.read(shown, []).await.expect("a read").rows().await.expect("rows");
        let row = rows.iter().next().expect("a row");
        assert_eq!(show(row.get(0).expect("a text")), expected);
        transaction.rollback().await.expect("it is rolled back");
    }
    let mut transaction = session.begin(Begin::new().read_only()).await.expect("it begins");
    let error = transaction.write("INSERT INTO marks VALUES (1)", []).await.expect_err("it is read-only");
    assert_eq!((error.reason(), error.outcome()), ("WRITE_IN_READ", Outcome::RolledBack));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_behind_a_begin_that_fails_never_runs() {
    let bed = start().await;
    let mut holder = bed.client().await.session().await.expect("the session opens");
    let held = holder.begin(Begin::new()).await.expect("it takes the only connection");
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    // All at once, before any answer: the begin finds no free connection in its time.
    let begun = session.send(0, Some(Duration::from_millis(200)), begin()).expect("it is sent");
    session.send(begun, None, session_write("INSERT INTO marks VALUES (1)")).expect("it is sent");
    session.send(begun, None, session_read("SELECT 1")).expect("it is sent");
    session.send(begun, None, commit()).expect("it is sent");
    let late = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned(), Outcome::NotExecuted);
    assert_eq!(failed(last(&mut session).await), late);
    for _ in 0..3 {
        assert_eq!(failed(last(&mut session).await), not_open());
    }
    held.rollback().await.expect("it is rolled back");

    bed.cluster.primary().proxy().cut().await;
    let begun = session.send(0, Some(Duration::from_millis(500)), begin()).expect("it is sent");
    session.send(begun, None, session_write("INSERT INTO marks VALUES (2)")).expect("it is sent");
    let (_, reason, outcome) = failed(last(&mut session).await);
    assert_eq!(outcome, Outcome::NotExecuted, "{reason}");
    assert_eq!(failed(last(&mut session).await), not_open());
    bed.cluster.primary().proxy().restore().await;
    bed.wait_until("the primary is up again", || bed.app().topology().snapshot().clusters[0].primary.is_some()).await;

    // A begin while one is open fails, and the open one is as it was.
    let begun = done(go(&mut session, 0, begin()).await);
    let second = session.send(0, None, begin()).expect("it is sent");
    session.send(second, None, session_write("INSERT INTO marks VALUES (3)")).expect("it is sent");
    assert_eq!(failed(last(&mut session).await).1, "TRANSACTION_OPEN");
    assert_eq!(failed(last(&mut session).await), not_open());
    done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (4)")).await);
    done(go(&mut session, begun, commit()).await);
    assert_eq!(tell(&bed.client().await, "SELECT sum(n) FROM marks").await.expect("a sum"), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_can_only_be_rolled_back() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    for mistake in [
        session_write("INSERT INTO marks VALUES (1/0)"),
        session_write("INSERT INTO nowhere VALUES (1)"),
        session_read("SELECT 1/0"),
    ] {
        let begun = done(go(&mut session, 0, begin()).await);
        done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (1)")).await);
        let (_, reason, outcome) = failed(go(&mut session, begun, mistake).await);
        assert_eq!((reason.as_str(), outcome), ("POSTGRES_ERROR", Outcome::RolledBack));
        for request in [session_write("INSERT INTO marks VALUES (2)"), session_read("SELECT 1"), commit()] {
            assert_eq!(failed(go(&mut session, begun, request).await).1, "TRANSACTION_FAILED");
        }
        done(go(&mut session, begun, rollback()).await);
        assert_eq!(failed(go(&mut session, begun, rollback()).await), not_open());
    }
    // A mistake that the broker finds before PostgreSQL hears of it changes nothing.
    let begun = done(go(&mut session, 0, begin()).await);
    for mistake in ["BEGIN", "", "SELECT $1::int"] {
        let (code, ..) = failed(go(&mut session, begun, session_write(mistake)).await);
        assert_eq!(code, Code::InvalidArgument);
    }
    done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (7)")).await);
    done(go(&mut session, begun, commit()).await);
    assert_eq!(ask(&bed.client().await, "SELECT sum(n) FROM marks").await.expect("a sum"), "7");
    session.close().await.expect("the session ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_name_their_transaction_or_run_outside_of_it() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    assert_eq!(failed(go(&mut session, 77, session_write("INSERT INTO marks VALUES (1)")).await), not_open());
    assert_eq!(failed(go(&mut session, 0, commit()).await), not_open());
    let begun = done(go(&mut session, 0, begin()).await);
    done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (2)")).await);
    // Beside the transaction: committed by itself.
    done(go(&mut session, 0, session_write("INSERT INTO marks VALUES (3)")).await);
    assert_eq!(failed(go(&mut session, begun, begin()).await).1, "FIELD_INVALID");
    done(go(&mut session, begun, rollback()).await);
    assert_eq!(ask(&bed.client().await, "SELECT sum(n) FROM marks").await.expect("a sum"), "3");
    let options = proto::ReadOptions { consistency: proto::Consistency::Strong.into(), ..Default::default() };
    let begun = done(go(&mut session, 0, begin()).await);
    let Request::Read(mut read) = session_read("SELECT 1") else { unreachable!("a read") };
    read.options = Some(options);
    assert_eq!(failed(go(&mut session, begun, Request::Read(read)).await).1, "FIELD_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_requests_finishes_what_is_queued_and_rolls_back_what_is_open() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    session.send(0, None, session_write("INSERT INTO marks VALUES (1)")).expect("it is sent");
    let begun = session.send(0, None, begin()).expect("it is sent");
    session.send(begun, None, session_write("INSERT INTO marks VALUES (2)")).expect("it is sent");
    session.close().await.expect("the session ends well");
    assert_eq!(backends(bed.cluster.primary(), OPEN).await, 0, "rolled back before the stream ended");
    assert_eq!(tell(&bed.client().await, "SELECT sum(n) FROM marks").await.expect("a sum"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_dropped_leaves_no_transaction_open() {
    let bed = start().await;
    let client = bed.client().await;
    let mut session = client.raw_session().await.expect("the session opens");
    let begun = done(go(&mut session, 0, begin()).await);
    done(go(&mut session, begun, session_write("INSERT INTO marks VALUES (1)")).await);
    assert_eq!(backends(bed.cluster.primary(), OPEN).await, 1);
    drop(session);
    until_backends(bed.cluster.primary(), OPEN, 0).await;
    assert_eq!(tell(&client, COUNT).await.expect("a count"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_in_a_transaction_fails_the_statement_and_leaves_the_connection_clean() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let pid = tell(&bed.client().await, "SELECT pg_backend_pid()").await.expect("a pid");
    let sleep = "SELECT pg_sleep(600)::text";
    for request in [session_write(sleep), session_read(sleep)] {
        let begun = done(go(&mut session, 0, begin()).await);
        session.send(begun, Some(Duration::from_millis(200)), request).expect("it is sent");
        let late = (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned(), Outcome::RolledBack);
        assert_eq!(failed(last(&mut session).await), late);
        assert_eq!(failed(go(&mut session, begun, session_read("SELECT 1")).await).1, "TRANSACTION_FAILED");
        done(go(&mut session, begun, rollback()).await);
        assert_eq!(tell(&bed.client().await, "SELECT pg_backend_pid()").await.expect("a pid"), pid, "the same backend");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_its_own_writes_and_so_does_whoever_shares_its_id() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    for replica in bed.cluster.replicas() {
        replica.pause_replay().await.expect("replay pauses");
    }
    let client = bed.session_client("shared").await;
    let mut session = client.session().await.expect("the session opens");
    let read = "SELECT n FROM counters WHERE id = 1";
    for (n, in_transaction) in [(1, false), (2, true)] {
        let update = format!("UPDATE counters SET n = {n} WHERE id = 1");
        if in_transaction {
            let mut transaction = session.begin(Begin::new()).await.expect("it begins");
            transaction.write(&update, []).await.expect("a write");
            transaction.commit().await.expect("it commits");
        } else {
            session.write(&update, []).await.expect("a write");
        }
        let rows = session.read(read, [], ReadOptions::new()).await.expect("a read").rows().await.expect("rows");
        assert_eq!(rows.iter().next().expect("a row").get::<i64>(0).expect("a number"), n);
        assert_eq!((rows.receipt().role(), rows.receipt().reason()), (HostRole::Primary, RouteReason::Behind));
        let sharer = bed.session_client("shared").await;
        let (seen, receipt) = read_int(&sharer, read, ReadOptions::new()).await;
        assert_eq!((seen, receipt.role()), (n, HostRole::Primary));
        let stranger = bed.session_client("another").await;
        assert_eq!(read_int(&stranger, read, ReadOptions::new()).await.0, 0, "from a replica, which stands still");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_statements_are_one_transaction_and_each_has_its_result() {
    let bed = start().await;
    let client = bed.client().await;
    let statements = [
        Statement::new("INSERT INTO marks VALUES ($1), ($2)").bind(1).bind(2),
        Statement::new("UPDATE marks SET n = n + 10 WHERE n = $1 RETURNING n").bind(2),
        Statement::new("DELETE FROM marks WHERE n > 100"),
        Statement::new("SELECT sum(n)::int FROM marks"),
    ];
    let written = client.write(statements).await.expect("it commits");
    let affected: Vec<_> = written.results.iter().map(|result| result.rows_affected).collect();
    assert_eq!(affected, [2, 1, 0, 1]);
    let value = |at: usize| written.results[at].rows.row(0).expect("a row").get::<i64>(0).expect("a number");
    assert_eq!((value(1), value(3)), (12, 13));
    assert_eq!(written.results[0].rows.columns().len(), 0);

    let error = client.write(["INSERT INTO marks VALUES (50)".into(), Statement::new("SELECT 1/0")]).await;
    let error = error.expect_err("the second statement fails");
    let failure = error.failure().expect("the broker's account");
    assert_eq!((failure.outcome, failure.statement_index), (Outcome::RolledBack, Some(1)));
    assert_eq!(error.sqlstate(), Some("22012"));
    assert_eq!(read_int(&client, "SELECT sum(n)::int FROM marks", strong()).await.0, 13, "nothing of it was kept");
}
