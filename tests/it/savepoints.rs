//! Savepoints of a session's transaction: they heal it, nest, and are told apart as PostgreSQL does.

use tidegate_client::{
    Begin, Outcome, RawSession,
    proto::{self, session_request::Request},
};
use tonic::Code;

use crate::{
    asking::{
        ask, begin, commit, done, failed, go, last, not_open, primary_alone, rollback, session_read, session_write,
        tell,
    },
    harness::Bed,
};

async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    bed.client().await.execute("CREATE TABLE marks (n int UNIQUE)", []).await.expect("the table is made");
    bed
}

fn set(name: &str) -> Request {
    Request::Savepoint(proto::SessionSavepoint { name: name.into(), release: false })
}

fn release(name: &str) -> Request {
    Request::Savepoint(proto::SessionSavepoint { name: name.into(), release: true })
}

fn back_to(name: &str) -> Request {
    Request::Rollback(proto::SessionRollback { to_savepoint: name.into() })
}

fn mark(n: i64) -> Request {
    session_write(&format!("INSERT INTO marks VALUES ({n})"))
}

async fn marks(bed: &Bed) -> String {
    ask(&bed.client().await, "SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM marks")
        .await
        .expect("marks")
}

/// What must come of each request, in order: true when it is done.
async fn steps(session: &mut RawSession, requests: impl IntoIterator<Item = (Request, bool)>) -> u64 {
    let begun = done(go(session, 0, begin()).await);
    for (request, works) in requests {
        let what = format!("{request:?}");
        let answer = go(session, begun, request).await;
        let failure = matches!(answer.response, Some(proto::session_response::Response::Failure(_)));
        assert_eq!(!failure, works, "{what}: {answer:?}");
    }
    begun
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_to_a_savepoint_heals_a_failed_transaction_and_undoes_what_came_after() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let fails = || session_write("INSERT INTO marks VALUES (1/0)");
    let begun = steps(
        &mut session,
        [
            (mark(1), true),
            (set("a"), true),
            (mark(2), true),
            (fails(), false),
            (mark(3), false),
            (set("b"), false),
            (release("a"), false),
            (commit(), false),
            (back_to("a"), true),
            (mark(4), true),
            // It is still there.
            (fails(), false),
            (back_to("a"), true),
            (mark(5), true),
        ],
    )
    .await;
    done(go(&mut session, begun, commit()).await);
    assert_eq!(marks(&bed).await, "1 5");

    // The same for a read, and for what the broker refuses, which harms nothing.
    let begun = steps(
        &mut session,
        [(set("a"), true), (session_read("SELECT 1/0"), false), (back_to("a"), true), (session_write("BEGIN"), false)],
    )
    .await;
    done(go(&mut session, begun, mark(6)).await);
    done(go(&mut session, begun, commit()).await);
    assert_eq!(marks(&bed).await, "1 5 6");
    session.close().await.expect("the session ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn savepoints_nest_and_the_newest_of_a_name_counts() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let begun = steps(
        &mut session,
        [
            (set("s"), true),
            (mark(1), true),
            (set("s"), true),
            (mark(2), true),
            (back_to("s"), true), // only 2 is undone
            (release("s"), true),
            (mark(3), true),
            (back_to("s"), true), // now the older one: 1 and 3 are undone
            (mark(4), true),
            (set("outer"), true),
            (mark(5), true),
            (set("inner"), true),
            (mark(6), true),
            (release("outer"), true), // and the inner one with it
            (back_to("inner"), false),
            (mark(7), false),
            (back_to("s"), true),
            (mark(8), true),
        ],
    )
    .await;
    done(go(&mut session, begun, commit()).await);
    assert_eq!(marks(&bed).await, "8");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_savepoint_fails_the_transaction_and_a_wrong_request_does_not() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    for (request, field) in [(back_to("nowhere"), "rollback.to_savepoint"), (release("nowhere"), "savepoint.name")] {
        let begun = done(go(&mut session, 0, begin()).await);
        let answer = go(&mut session, begun, request).await;
        let Some(proto::session_response::Response::Failure(failure)) = &answer.response else { panic!("{answer:?}") };
        let postgres = failure.postgres.as_ref().expect("PostgreSQL's part");
        let is = (postgres.sqlstate.as_str(), failure.field.as_str(), failure.outcome());
        assert_eq!(is, ("3B001", field, Outcome::RolledBack), "{failure:?}");
        assert_eq!(failed(go(&mut session, begun, commit()).await).1, "TRANSACTION_FAILED");
        done(go(&mut session, begun, rollback()).await);
    }
    // Outside a transaction there are none.
    for request in [set("s"), release("s"), back_to("s")] {
        assert_eq!(failed(go(&mut session, 0, request).await), not_open());
    }
    let long = "é".repeat(32); // 64 bytes
    let begun = done(go(&mut session, 0, begin()).await);
    for name in ["", long.as_str(), "a\0b"] {
        for request in [set(name), release(name), back_to(name)] {
            // An empty `to_savepoint` means the whole transaction.
            if matches!(&request, Request::Rollback(rollback) if rollback.to_savepoint.is_empty()) {
                continue;
            }
            let (code, _, outcome) = failed(go(&mut session, begun, request).await);
            assert_eq!((code, outcome), (Code::InvalidArgument, Outcome::NotExecuted), "{name:?}");
        }
    }
    // Names are taken as they stand, whatever is in them.
    let longest = "é".repeat(31);
    for name in ["Case", r#""; COMMIT; --"#, "a b", r"\", "'", longest.as_str()] {
        done(go(&mut session, begun, set(name)).await);
    }
    done(go(&mut session, begun, mark(1)).await);
    assert_eq!(failed(go(&mut session, begun, release("case")).await).2, Outcome::RolledBack, "another name");
    done(go(&mut session, begun, back_to("Case")).await);
    done(go(&mut session, begun, commit()).await);
    assert_eq!(marks(&bed).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_sets_releases_and_goes_back_and_a_pipeline_heals_itself() {
    let bed = start().await;
    let client = bed.client().await;
    let mut session = client.session().await.expect("the session opens");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("INSERT INTO marks VALUES (1)", []).await.expect("it is written");
    transaction.savepoint("before").await.expect("it is set");
    transaction.write("INSERT INTO marks VALUES (1)", []).await.expect_err("it is there already");
    transaction.rollback_to("before").await.expect("the transaction goes on");
    transaction.release("before").await.expect("it is released");
    transaction.commit().await.expect("it commits");
    session.close().await.expect("the session ends well");

    // An insert that may fail, with what to do then, sent at once.
    let mut session = client.raw_session().await.expect("the session opens");
    let begun = session.send(0, None, begin()).expect("it is sent");
    for request in [set("s"), mark(1), back_to("s"), mark(2), commit()] {
        session.send(begun, None, request).expect("it is sent");
    }
    done(last(&mut session).await);
    done(last(&mut session).await);
    assert_eq!(failed(last(&mut session).await).0, Code::AlreadyExists);
    for _ in 0..3 {
        done(last(&mut session).await);
    }
    assert_eq!(tell(&client, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM marks").await.expect("marks"), "1 2");
}
