//! Transactions that only read, on replicas: routed and proved as reads are, checked at their begin.

use std::time::Duration;

use tidegate::dev::ClusterOptions;
use tidegate_client::{
    Begin, Consistency, HostRole, Isolation, NoticeKind, Outcome, ReadOptions, Receipt, RouteReason, Session,
    proto::{self, session_request::Request},
};

use crate::{
    asking::{failed, failure, go, until_backends},
    harness::{Bed, READ_COUNTER, create_counters, pause_all, poll_until, resume_all, set_counter, within},
};

const IN_RECOVERY: &str = "SELECT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'on'";

async fn start() -> Bed {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    bed
}

fn with(consistency: Consistency) -> Begin {
    Begin::new().on_replica(&ReadOptions::new().consistency(consistency))
}

/// Begins, reads the counter and whether the host is a standby, and ends: with the receipt of the begin.
async fn look(session: &mut Session, begin: Begin) -> (i64, bool, Receipt) {
    let mut transaction = session.begin(begin).await.expect("it begins");
    let receipt = transaction.receipt().expect("a receipt").clone();
    let rows = transaction.read(READ_COUNTER, []).await.expect("a read").rows().await.expect("rows");
    let counter = rows.iter().next().expect("a row").get::<i64>(0).expect("a number");
    assert_eq!(rows.receipt().host, receipt.host);
    let rows = transaction.read(IN_RECOVERY, []).await.expect("a read").rows().await.expect("rows");
    let in_recovery = rows.iter().next().expect("a row").get::<bool>(0).expect("a truth");
    transaction.commit().await.expect("it commits");
    assert_eq!(in_recovery, receipt.role() == HostRole::Replica, "{receipt:?}");
    (counter, in_recovery, receipt)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_only_reads_runs_where_its_consistency_allows() {
    let bed = start().await;
    pause_all(&bed).await;
    let writer = bed.session_client("writer").await;
    let token = set_counter(&writer, 1).await;
    let mut session = writer.session().await.expect("the session opens");
    let mut other = bed.session_client("other").await.session().await.expect("the session opens");
    let mut carrier =
        bed.session_client("carrier").await.with_position(&token).session().await.expect("the session opens");

    let (n, _, receipt) = look(&mut session, with(Consistency::Session)).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));
    let (n, _, receipt) = look(&mut carrier, with(Consistency::Session)).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));
    for consistency in [Consistency::Session, Consistency::Eventual] {
        let (n, _, receipt) = look(&mut other, with(consistency)).await;
        assert_eq!((n, receipt.role()), (0, HostRole::Replica), "{consistency:?}");
    }
    let (n, _, receipt) = look(&mut session, with(Consistency::Eventual)).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (0, HostRole::Replica, RouteReason::NoPosition));
    let (n, _, receipt) = look(&mut other, with(Consistency::Strong)).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Strong));
    let fresh = Begin::new().on_replica(&ReadOptions::new().max_staleness(Duration::from_nanos(1)));
    assert_eq!(look(&mut other, fresh).await.2.role(), HostRole::Primary, "none is as fresh");
    // Without options, and for SERIALIZABLE, which replicas do not have: the primary.
    let serializable = with(Consistency::Eventual).isolation(Isolation::Serializable);
    for begin in [Begin::new().read_only(), serializable.clone(), serializable.deferrable()] {
        assert_eq!(look(&mut other, begin.clone()).await.2.role(), HostRole::Primary, "{begin:?}");
    }

    resume_all(&bed).await;
    bed.wait_until_caught_up().await;
    let (n, _, receipt) = look(&mut session, with(Consistency::Session)).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Replica, RouteReason::CaughtUp));

    // Its own writes fail, wherever it runs, and REPEATABLE READ is one snapshot, taken at the begin.
    let mut transaction = session.begin(with(Consistency::Session)).await.expect("it begins");
    let error = transaction.write("UPDATE counters SET n = 5", []).await.expect_err("it only reads");
    assert_eq!((error.reason(), error.outcome()), ("WRITE_IN_READ", Outcome::RolledBack));
    transaction.rollback().await.expect("it is rolled back");
    let repeatable = with(Consistency::Session).isolation(Isolation::RepeatableRead);
    let mut transaction = session.begin(repeatable).await.expect("it begins");
    assert_eq!(transaction.receipt().expect("a receipt").role(), HostRole::Replica);
    set_counter(&writer, 2).await;
    bed.wait_until_caught_up().await;
    let rows = transaction.read(READ_COUNTER, []).await.expect("a read").rows().await.expect("rows");
    assert_eq!(rows.iter().next().expect("a row").get::<i64>(0).expect("a number"), 1);
    transaction.commit().await.expect("it commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begin_is_tried_on_another_host_and_on_the_primary() {
    let bed = start().await;
    // A default that standbys cannot run.
    let primary = bed.cluster.primary();
    primary.sql("ALTER DATABASE app SET default_transaction_isolation = 'serializable'").await.expect("it is set");
    bed.wait_until_caught_up().await;
    let mut session = bed.client().await.session().await.expect("the session opens");
    let (_, _, receipt) = look(&mut session, with(Consistency::Eventual)).await;
    assert_eq!(receipt.role(), HostRole::Primary, "{receipt:?}");
    assert!(receipt.attempts >= 2, "{receipt:?}");
    primary.sql("ALTER DATABASE app RESET default_transaction_isolation").await.expect("it is reset");
    bed.wait_until_caught_up().await;

    // New connections fail on both replicas, the old ones are gone: what is left is the primary.
    for replica in bed.cluster.replicas() {
        replica.proxy().cut().await;
    }
    let (_, _, receipt) = look(&mut session, with(Consistency::Session)).await;
    assert_eq!(receipt.role(), HostRole::Primary, "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_the_way_of_replay_is_lost_with_a_notice() {
    let options = ClusterOptions {
        replicas: 1,
        settings: vec![("max_standby_streaming_delay".into(), "0".into())],
        ..ClusterOptions::default()
    };
    let bed = Bed::with(options, |_| {}).await;
    create_counters(&bed).await;
    let client = bed.client().await;
    let mut session = client.raw_session().await.expect("the session opens");
    let options = proto::ReadOptions { consistency: Consistency::Eventual.into(), ..Default::default() };
    let begin = proto::SessionBegin {
        isolation: Isolation::RepeatableRead.into(),
        read_only: true,
        options: Some(options),
        ..Default::default()
    };
    let begun = go(&mut session, 0, Request::Begin(begin)).await;
    assert_eq!(begun.receipt.as_ref().expect("a receipt").role(), HostRole::Replica);
    go(&mut session, begun.request_id, crate::asking::session_read(READ_COUNTER)).await;
    // What it still sees is removed on the primary, and replay is not to wait.
    client.execute("UPDATE counters SET n = n + 1", []).await.expect("a write");
    bed.cluster.primary().sql("VACUUM counters").await.expect("it is cleaned");
    until_backends(bed.cluster.replica(0), "state LIKE 'idle in transaction%'", 0).await;
    let notice = within("the notice", async {
        loop {
            // Any request: notices come with its answer.
            let answer = go(&mut session, begun.request_id, crate::asking::session_read(READ_COUNTER)).await;
            if let Some(notice) = session.take_notice() {
                assert_eq!(failed(answer).1, "TRANSACTION_NOT_OPEN");
                return notice;
            }
        }
    })
    .await;
    assert_eq!(notice.kind(), NoticeKind::TransactionLost, "{notice:?}");
    assert_eq!(notice.postgres.as_ref().expect("what PostgreSQL said").sqlstate, "40001", "{notice:?}");
    poll_until("another runs", || async { client.read(READ_COUNTER, []).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_combinations_are_refused_by_name() {
    let bed = Bed::with(crate::asking::primary_alone(), |_| {}).await;
    let mut session = bed.client().await.session().await.expect("the session opens");
    let options = proto::ReadOptions::default;
    let staleness = proto::ReadOptions { max_staleness: Some(Default::default()), ..options() };
    let large = proto::ReadOptions { max_message_bytes: 1 << 20, ..options() };
    let wait = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let waiting = proto::ReadOptions { consistency: Consistency::Eventual.into(), max_wait: wait, ..options() };
    let begin = |isolation: Isolation, read_only, deferrable, options| proto::SessionBegin {
        isolation: isolation.into(),
        read_only,
        deferrable,
        options,
        ..Default::default()
    };
    use Isolation::{ReadCommitted, RepeatableRead, Serializable, Unspecified};
    let cases = [
        (begin(Serializable, false, true, None), "begin.deferrable"),
        (begin(ReadCommitted, true, true, None), "begin.deferrable"),
        (begin(RepeatableRead, true, true, None), "begin.deferrable"),
        (begin(Unspecified, false, false, Some(options())), "begin.options"),
        (begin(Unspecified, true, false, Some(staleness)), "begin.options.max_staleness"),
        (begin(Unspecified, true, false, Some(large)), "begin.options.max_message_bytes"),
        (begin(Unspecified, true, false, Some(waiting)), "begin.options.max_wait"),
        (proto::SessionBegin { isolation: 77, ..Default::default() }, "begin.isolation"),
    ];
    let mut raw = bed.client().await.raw_session().await.expect("the session opens");
    for (begin, field) in cases {
        let answer = go(&mut raw, 0, Request::Begin(begin)).await;
        let Some(proto::session_response::Response::Failure(failure)) = answer.response else {
            panic!("{field}: {answer:?}")
        };
        assert_eq!((failure.field.as_str(), failure.outcome()), (field, Outcome::NotExecuted), "{failure:?}");
        assert!(failure.message.contains(field.rsplit('.').next().unwrap_or(field)) || field.ends_with("consistency"));
    }
    let error = session.read("SELECT 1", [], ReadOptions::new().max_message_bytes(1)).await.map(drop);
    let error = error.expect_err("too small");
    assert_eq!(failure(&error).field, "read.options.max_message_bytes");
    for (sql, part) in [("BEGIN", "write"), ("SELECT $1::int", "write")] {
        let error = session.write(sql, []).await.expect_err("it is refused");
        assert!(failure(&error).field.starts_with(&format!("{part}.statement")), "{error:?}");
    }
    // The database's default may be SERIALIZABLE.
    let deferrable = session.begin(Begin::new().read_only().deferrable()).await.expect("it begins");
    deferrable.rollback().await.expect("it is rolled back");
}
