//! A session's limits and its protocol: what ends the stream, and with which status.

use std::time::Duration;

use tidegate::config::Config;
use tidegate_client::{
    NoticeKind, Outcome,
    proto::{SessionCancel, SessionOpen, SessionRequest, session_request::Request, session_response::Response},
};
use tonic::{Code, Streaming};

use crate::{
    asking::{
        begin, commit, context, done, failure, go, primary_alone, session_read, session_write, stub, tell,
        until_backends,
    },
    harness::{Bed, within},
};

async fn start(change: impl FnOnce(&mut Config)) -> Bed {
    let bed = Bed::with(primary_alone(), change).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed
}

fn numbered(request_id: u64, request: Request) -> SessionRequest {
    SessionRequest { request_id, request: Some(request), ..Default::default() }
}

fn open() -> Request {
    Request::Open(SessionOpen { context: context() })
}

/// Sends these requests, keeps the sending side open, and answers how many responses came and how the stream ended.
async fn outcome_of(bed: &Bed, requests: Vec<SessionRequest>) -> (usize, tidegate_client::Error) {
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter(requests), tokio_stream::pending());
    let mut answers: Streaming<_> = match stub(bed).await.session(requests).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return (0, status.into()),
    };
    within("the session ends", async {
        let mut count = 0;
        loop {
            match answers.message().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => panic!("it ended well"),
                Err(status) => return (count, status.into()),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_the_protocol_is_ended_and_told_why() {
    let bed = start(|_| {}).await;
    let invalid = Code::InvalidArgument;
    let write = || session_write("INSERT INTO marks VALUES (1)");
    let mut elsewhere = context();
    elsewhere.get_or_insert_default().database = "nowhere".into();
    let elsewhere = Request::Open(SessionOpen { context: elsewhere });
    for (what, requests, answers, code, reason, field) in [
        ("nothing opened", vec![numbered(1, write())], 0, invalid, "FIELD_MISSING", "open"),
        ("an id of zero", vec![numbered(0, open())], 0, invalid, "FIELD_INVALID", "request_id"),
        ("no growth", vec![numbered(5, open()), numbered(5, write())], 1, invalid, "FIELD_INVALID", "request_id"),
        ("a step back", vec![numbered(5, open()), numbered(4, write())], 1, invalid, "FIELD_INVALID", "request_id"),
        ("no such database", vec![numbered(1, elsewhere)], 0, Code::NotFound, "DATABASE_UNKNOWN", "context.database"),
    ] {
        let (count, error) = outcome_of(&bed, requests).await;
        let failure = failure(&error);
        let is = (count, failure.code, failure.reason.as_str(), failure.field.as_str());
        assert_eq!(is, (answers, code, reason, field), "{what}: {error}");
    }
    assert_eq!(tell(&bed.client().await, "SELECT count(*) FROM marks").await.expect("a count"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_open_and_an_empty_request_are_failures_in_band() {
    let bed = start(|_| {}).await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    session.send(0, None, open()).expect("it is sent");
    let answer = session.receive().await.expect("an answer");
    assert!(matches!(answer.response, Some(Response::Failure(failure)) if failure.field == "open"));
    session.send(0, None, session_write("INSERT INTO marks VALUES (1)")).expect("it is sent");
    assert!(matches!(session.receive().await.expect("an answer").response, Some(Response::Write(_))));
    session.close().await.expect("the session ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_unanswered_requests_than_announced_end_the_stream_and_what_runs() {
    let bed = start(|config| config.session.max_unanswered = 2).await;
    let mut requests = vec![numbered(1, open()), numbered(2, session_read("SELECT pg_sleep(600)::text"))];
    requests.extend((3..10).map(|id| numbered(id, session_write("INSERT INTO marks VALUES (1)"))));
    let (_, error) = outcome_of(&bed, requests).await;
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "TOO_MANY_UNANSWERED"), "{error}");
    until_backends(bed.cluster.primary(), "state = 'active'", 0).await;
    assert_eq!(tell(&bed.client().await, "SELECT count(*) FROM marks").await.expect("a count"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_it_has_lived_for_as_long_as_it_may() {
    let bed = start(|config| config.session.max_lifetime = Duration::from_millis(300)).await;
    let begun = SessionRequest { request_id: 2, request: Some(begin()), ..Default::default() };
    let (count, error) = outcome_of(&bed, vec![numbered(1, open()), begun]).await;
    // Two answers, and a notice ahead of the end.
    assert_eq!((count, error.code(), error.reason()), (3, Code::Aborted, "SESSION_LIFETIME"), "{error}");
    assert_eq!(error.outcome(), Outcome::RolledBack);
    until_backends(bed.cluster.primary(), "state LIKE 'idle in transaction%'", 0).await;
    // What still runs then is stopped, however long it may take, and has its answer.
    let sleeping = SessionRequest {
        timeout: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..numbered(2, session_read("SELECT pg_sleep(600)::text"))
    };
    let (count, error) = outcome_of(&bed, vec![numbered(1, open()), sleeping]).await;
    assert_eq!((count, error.code(), error.reason()), (3, Code::Aborted, "SESSION_LIFETIME"), "{error}");
    until_backends(bed.cluster.primary(), "state = 'active'", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beside_a_transaction_do_not_keep_it() {
    let bed = start(|config| config.session.transaction_idle_timeout = Duration::from_millis(300)).await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    done(go(&mut session, 0, begin()).await);
    let notice = within("the transaction is lost", async {
        loop {
            go(&mut session, 0, session_read("SELECT 1")).await;
            if let Some(notice) = session.take_notice() {
                return notice;
            }
        }
    });
    assert_eq!(notice.await.kind(), NoticeKind::TransactionLost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_close_takes_no_answer_away() {
    let bed = start(|_| {}).await;
    for _ in 0..20 {
        let cancel = || Request::Cancel(SessionCancel { target_request_id: 1 });
        let mut requests = vec![numbered(1, open())];
        requests.extend((2..8).map(|id| numbered(id, cancel())));
        let answers = stub(&bed).await.session(tokio_stream::iter(requests)).await.expect("the session opens");
        let mut answers = answers.into_inner();
        let mut answered = Vec::new();
        while let Some(answer) = answers.message().await.expect("the session ends well") {
            answered.push(answer.request_id);
        }
        assert_eq!(answered, (1..8).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_sends_nothing_is_rolled_back_with_a_notice() {
    let bed = start(|config| config.session.transaction_idle_timeout = Duration::from_millis(300)).await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let begun = session.send(0, None, begin()).expect("it is sent");
    session.receive().await.expect("it begins");
    session.send(begun, None, session_write("INSERT INTO marks VALUES (1)")).expect("it is sent");
    session.receive().await.expect("it is written");
    until_backends(bed.cluster.primary(), "state LIKE 'idle in transaction%'", 0).await;
    session.send(begun, None, commit()).expect("it is sent");
    let answer = session.receive().await.expect("an answer");
    assert!(matches!(answer.response, Some(Response::Failure(failure)) if failure.reason == "TRANSACTION_NOT_OPEN"));
    let notice = session.take_notice().expect("a notice came first");
    assert_eq!(notice.kind(), NoticeKind::TransactionLost, "{}", notice.message);
    assert_eq!(tell(&bed.client().await, "SELECT count(*) FROM marks").await.expect("a count"), "0");
    session.close().await.expect("the session goes on, and ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_an_open_transaction_end_and_then_ends_the_session() {
    let mut bed = start(|_| {}).await;
    let mut idle = bed.client().await.raw_session().await.expect("the session opens");
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let begun = session.send(0, None, begin()).expect("it is sent");
    session.receive().await.expect("it begins");
    bed.app().begin_shutdown();
    let error = within("the idle session is ended", idle.receive()).await.expect_err("it is ended");
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "DRAINING"), "{error}");
    session.send(begun, None, session_write("INSERT INTO marks VALUES (1)")).expect("it is sent");
    assert!(matches!(session.receive().await.expect("it is written").response, Some(Response::Write(_))));
    session.send(begun, None, commit()).expect("it is sent");
    assert!(matches!(session.receive().await.expect("it commits").response, Some(Response::Done(_))));
    assert_eq!(session.take_notice().expect("a notice").kind(), NoticeKind::Draining);
    let error = within("the session is ended", session.receive()).await.expect_err("it is ended");
    assert_eq!(error.reason(), "DRAINING", "{error}");
    bed.stop_broker().await;
    let count: i64 = bed.cluster.primary().sql_value("SELECT count(*) FROM marks").await.expect("a count");
    assert_eq!(count, 1);
}
