//! COPY when somebody is slow, or gone: whoever waits holds the other side up, limits end what lasts too long, and what
//! is cut off at any point leaves no row, no lock and no backend behind.

use std::time::Duration;

use tidegate::dev::Server;
use tidegate_client::{
    Begin, NoticeKind, Outcome, RawSession,
    proto::{SessionNotice, session_response::Response},
};
use tonic::Code;

use crate::{
    asking::{begin, primary_alone, tell, until_backends},
    copy::{COPY_MARKS, copy_in, copy_out, failed, last, rows, session, start},
    harness::{Bed, within},
};

const COUNT: &str = "SELECT count(*) FROM marks";
const COPIES: &str = "state <> 'idle' AND (query LIKE 'COPY%' OR query LIKE 'BEGIN%')";
const ENDLESS: &str = "COPY (SELECT repeat('x', 1000), generate_series(1, 1000000000)) TO STDOUT";

/// No COPY runs, no transaction is open, and nothing of the table is locked or kept.
async fn nothing_is_left(bed: &Bed) {
    let primary = bed.cluster.primary();
    until_backends(primary, COPIES, 0).await;
    until_backends(primary, "state LIKE 'idle in transaction%'", 0).await;
    assert_eq!(tell(&bed.client().await, COUNT).await.expect("a count"), "0");
    let lock = "BEGIN; LOCK TABLE marks IN ACCESS EXCLUSIVE MODE; COMMIT";
    within("the table is free", primary.sql(lock)).await.expect("it is free");
}

async fn waiting_for_a_lock(server: &Server) {
    until_backends(server, "wait_event_type = 'Lock' AND query LIKE 'COPY%'", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_waits_for_a_lock_stops_its_client_and_goes_on_later() {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 13).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    let mut holder = session(&bed).await;
    let mut lock = holder.begin(Begin::new()).await.expect("it begins");
    lock.write("LOCK TABLE marks", []).await.expect("it is locked");

    let mut session = session(&bed).await;
    let mut copy = session.copy_in(COPY_MARKS).expect("it is sent");
    let piece = "1\n".repeat(32 << 10);
    let mut sent = 0_usize;
    // A second without room means that there is none.
    while tokio::time::timeout(Duration::from_secs(1), copy.send(piece.as_str())).await.is_ok_and(|sent| sent.is_ok()) {
        sent += piece.len();
        assert!(sent < 8 << 20, "nothing stops the client: {sent}");
    }
    waiting_for_a_lock(bed.cluster.primary()).await;
    lock.rollback().await.expect("the lock is gone");
    while sent < 16 << 20 {
        copy.send(piece.as_str()).await.expect("it is taken");
        sent += piece.len();
    }
    let copied = copy.finish().await.expect("it is kept");
    // The piece that found no room may have been given up, or not.
    assert!(copied >= (sent / 2) as u64, "{copied}");
    assert_eq!(tell(&bed.client().await, COUNT).await.expect("a count"), copied.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_copy_wherever_it_is() {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 13).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    // Enough to begin with, on any machine.
    let short = Some(Duration::from_secs(2));
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    // While it waits for data; while it waits for a lock; while nobody reads it; in a transaction.
    let id = session.send(0, short, copy_in(COPY_MARKS)).expect("it is sent");
    session.send_copy_data(id, b"1\n".to_vec()).await.expect("it is sent");
    expect_late(&mut session).await;
    session.end_copy(id, String::new()).expect("it is sent");
    {
        let mut holder = crate::copy::session(&bed).await;
        let mut lock = holder.begin(Begin::new()).await.expect("it begins");
        lock.write("LOCK TABLE marks", []).await.expect("it is locked");
        let id = session.send(0, short, copy_in(COPY_MARKS)).expect("it is sent");
        expect_late(&mut session).await;
        session.end_copy(id, String::new()).expect("it is sent");
        lock.rollback().await.expect("the lock is gone");
    }
    session.send(0, short, copy_out(ENDLESS)).expect("it is sent");
    expect_late(&mut session).await;
    let transaction = session.send(0, None, begin()).expect("it is sent");
    rows(&last(&mut session).await);
    session.send(transaction, short, copy_out(ENDLESS)).expect("it is sent");
    expect_late(&mut session).await;
    session.close().await.expect("the session ends well");
    nothing_is_left(&bed).await;
}

async fn expect_late(session: &mut RawSession) {
    let failure = failed(last(session).await);
    let is = (failure.code, failure.reason.as_str(), failure.outcome());
    assert_eq!(is, (Code::DeadlineExceeded as i32, "DEADLINE_EXCEEDED", Outcome::RolledBack));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_leaves_nothing_behind() {
    let bed = start().await;
    let client = bed.client().await;
    for in_transaction in [false, true] {
        for stage in ["begun", "with data", "half-closed", "out"] {
            let mut session = client.raw_session().await.expect("the session opens");
            let transaction = if in_transaction {
                let id = session.send(0, None, begin()).expect("it is sent");
                rows(&last(&mut session).await);
                id
            } else {
                0
            };
            if stage == "out" {
                session.send(transaction, None, copy_out(ENDLESS)).expect("it is sent");
                session.receive().await.expect("a piece");
                drop(session);
                nothing_is_left(&bed).await;
                continue;
            }
            let id = session.send(transaction, None, copy_in(COPY_MARKS)).expect("it is sent");
            if stage != "begun" {
                session.send_copy_data(id, "1\n".repeat(10_000).into_bytes()).await.expect("it is sent");
            }
            let copies = "state = 'active' AND query LIKE 'COPY%'";
            until_backends(bed.cluster.primary(), copies, 1).await;
            if stage == "half-closed" {
                session.close().await.expect("the session ends in order");
            } else {
                drop(session);
            }
            nothing_is_left(&bed).await;
        }
    }
    // The server goes.
    let mut session = client.raw_session().await.expect("the session opens");
    let id = session.send(0, None, copy_in(COPY_MARKS)).expect("it is sent");
    session.send_copy_data(id, b"1\n".to_vec()).await.expect("it is sent");
    let primary = bed.cluster.primary();
    let find = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%'";
    until_backends(primary, "state = 'active' AND query LIKE 'COPY%'", 1).await;
    primary.terminate_backend(primary.sql_value(find).await.expect("its pid")).await.expect("it is terminated");
    let failure = failed(last(&mut session).await);
    assert_eq!(failure.outcome(), Outcome::RolledBack, "{failure:?}");
    session.end_copy(id, String::new()).expect("it is sent");
    session.close().await.expect("the session ends well");
    nothing_is_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_loses_its_copy_and_its_transaction() {
    let limit = Duration::from_millis(300);
    let bed = Bed::with(primary_alone(), |config| config.session.transaction_idle_timeout = limit).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    for in_transaction in [false, true] {
        let transaction = if in_transaction { session.send(0, None, begin()).expect("it is sent") } else { 0 };
        if in_transaction {
            rows(&last(&mut session).await);
        }
        let id = session.send(transaction, None, copy_in(COPY_MARKS)).expect("it is sent");
        session.send_copy_data(id, b"1\n".to_vec()).await.expect("it is sent");
        let failure = failed(last(&mut session).await);
        assert_eq!((failure.reason.as_str(), failure.outcome()), ("STREAM_IDLE", Outcome::RolledBack));
        session.end_copy(id, String::new()).expect("it is sent");
        if in_transaction {
            session.send(transaction, None, crate::asking::commit()).expect("it is sent");
            assert_eq!(failed(last(&mut session).await).reason, "TRANSACTION_NOT_OPEN");
            let notice = session.take_notice().map(|notice: SessionNotice| notice.kind());
            assert_eq!(notice, Some(NoticeKind::TransactionLost));
        }
        nothing_is_left(&bed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_out_that_nobody_reads_stops_the_server_and_is_ended() {
    let bed = Bed::with(primary_alone(), |config| {
        config.timeouts.stream_idle_timeout = Duration::from_millis(500);
        config.pool.connections_per_host = 2;
    })
    .await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    session.send(0, None, copy_out(ENDLESS)).expect("it is sent");
    let primary = bed.cluster.primary();
    until_backends(primary, "state = 'active' AND query LIKE 'COPY%'", 1).await;
    until_backends(primary, COPIES, 0).await;
    let mut received = 0;
    // The session has ended; what was under way still arrives.
    while let Ok(response) = session.receive().await {
        if let Some(Response::CopyData(piece)) = response.response {
            received += piece.data.len();
        }
    }
    assert!(received < 16 << 20, "no more was under way than fits into windows and sockets: {received}");
    nothing_is_left(&bed).await;
}
