//! COPY in a session, in and out: what goes in comes out again, whatever the format; errors are told at once, and leave
//! the connection fit; transactions and positions hold as for any write.

use std::hash::{DefaultHasher, Hasher};

use tidegate_client::{
    Begin, Client, CopyOut, Error, HostRole, Outcome, RawSession, ReadOptions, RouteReason, Session,
    proto::{self, SessionResponse, session_request::Request, session_response::Response},
};
use tonic::Code;

use crate::{
    asking::{ask, begin, commit, primary_alone, rollback, session_read, strong, tell},
    harness::{Bed, pause_all, read_int, resume_all, within},
};

pub const COPY_MARKS: &str = "COPY marks FROM STDIN";
const COUNT: &str = "SELECT count(*) FROM marks";
const PID: &str = "SELECT pg_backend_pid()";

/// One connection for reads, one for writes: whoever comes next gets the one on which a COPY failed.
pub async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed
}

pub async fn session(bed: &Bed) -> Session {
    bed.client().await.session().await.expect("the session opens")
}

pub fn copy_in(sql: &str) -> Request {
    Request::CopyIn(proto::SessionCopy { sql: sql.into() })
}

pub fn copy_out(sql: &str) -> Request {
    Request::CopyOut(proto::SessionCopy { sql: sql.into() })
}

/// The next last response.
pub async fn last(session: &mut RawSession) -> SessionResponse {
    within("a last response", async {
        loop {
            let response = session.receive().await.expect("the session goes on");
            if response.last {
                return response;
            }
        }
    })
    .await
}

pub fn rows(response: &SessionResponse) -> u64 {
    match &response.response {
        Some(Response::Done(done)) => done.rows_affected,
        other => panic!("not done: {other:?}"),
    }
}

pub fn failed(response: SessionResponse) -> proto::Failure {
    match response.response {
        Some(Response::Failure(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

async fn all(mut copy: CopyOut<'_>) -> (Vec<u8>, u64) {
    let mut data = Vec::new();
    while let Some(piece) = copy.next().await.expect("data") {
        data.extend(piece);
    }
    (data, copy.rows().expect("the end"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_rows_go_in_and_come_out_as_they_were() {
    const ROWS: u64 = 1_000_000;
    let bed = start().await;
    let mut session = session(&bed).await;
    session.write("CREATE TABLE lines (n int8, line text)", []).await.expect("the table is made");
    let line = |n: u64| format!("{n}\tline {n} of a million, with some text behind it\n");
    let (mut written, mut read) = (DefaultHasher::new(), DefaultHasher::new());

    let mut copy = session.copy_in("COPY lines FROM STDIN").expect("it is sent");
    let mut piece = Vec::new();
    for n in 0..ROWS {
        piece.extend(line(n).bytes());
        if piece.len() > 100_000 || n == ROWS - 1 {
            written.write(&piece);
            copy.send(std::mem::take(&mut piece)).await.expect("it is taken");
        }
    }
    assert_eq!(copy.finish().await.expect("it is kept"), ROWS);
    let proof = "SELECT count(*) FILTER (WHERE line = 'line ' || n || ' of a million, with some text behind it') \
                 || ' ' || sum(n) FROM lines";
    let expected = format!("{ROWS} {}", ROWS * (ROWS - 1) / 2);
    assert_eq!(tell(&bed.client().await, proof).await.expect("a proof"), expected);

    let mut copy = session.copy_out("COPY lines TO STDOUT").await.expect("it starts");
    let (mut bytes, mut largest) = (0, 0);
    while let Some(piece) = copy.next().await.expect("data") {
        read.write(&piece);
        (bytes, largest) = (bytes + piece.len(), largest.max(piece.len()));
    }
    assert_eq!(copy.rows(), Some(ROWS));
    assert_eq!(copy.receipt().map(|receipt| receipt.host.as_str()), Some("primary"));
    assert!(bytes > 50_000_000 && largest <= 64 << 10, "{bytes} {largest}");
    assert_eq!(written.finish(), read.finish());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_goes_round_however_it_is_cut() {
    let bed = start().await;
    let mut session = session(&bed).await;
    for table in ["there", "back"] {
        let sql = format!("CREATE TABLE {table} (n int, t text, b bytea, d timestamptz)");
        session.write(&sql, []).await.expect("the table is made");
    }
    let fill = "INSERT INTO there SELECT n, E'a\\tb\\n\"' || n, decode(repeat('00ff', n), 'hex'), now() \
                FROM generate_series(1, 50) AS n UNION ALL SELECT NULL, '', NULL, NULL";
    session.write(fill, []).await.expect("rows");
    for options in ["", "(FORMAT csv, HEADER, NULL 'to stdin')", "(FORMAT binary)"] {
        let out = session.copy_out(format!("COPY (SELECT * FROM there) TO STDOUT {options}")).await;
        let (data, rows) = all(out.expect("it starts")).await;
        assert_eq!(rows, 51, "{options}");
        for size in [1, 7, 4096, data.len()] {
            session.write("TRUNCATE back", []).await.expect("it is empty");
            let mut copy = session.copy_in(format!("copy back from stdin {options}")).expect("it is sent");
            for piece in data.chunks(size) {
                copy.send(piece).await.expect("it is taken");
            }
            assert_eq!(copy.finish().await.expect("it is kept"), 51, "{options}");
            let differ = "SELECT count(*) FROM (SELECT * FROM there EXCEPT ALL SELECT * FROM back) AS d";
            assert_eq!(tell(&bed.client().await, differ).await.expect("a count"), "0", "{options} {size}");
        }
    }
    // Nothing at all is data, too.
    let (data, rows) = all(session.copy_out("COPY marks TO STDOUT").await.expect("it starts")).await;
    assert_eq!((data.len(), rows), (0, 0));
    assert_eq!(session.copy_in(COPY_MARKS).expect("it is sent").finish().await.expect("it is kept"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_told_at_once_and_what_is_still_sent_is_passed_over() {
    let bed = start().await;
    let client = bed.client().await;
    let pid = tell(&client, PID).await.expect("a pid");
    let mut session = client.raw_session().await.expect("the session opens");
    let id = session.send(0, None, copy_in(COPY_MARKS)).expect("it is sent");
    session.send_copy_data(id, b"1\n2\nthree\n4\n".to_vec()).await.expect("it is sent");
    // Its end is not sent yet.
    let failure = failed(last(&mut session).await);
    assert_eq!((failure.code, failure.outcome()), (Code::InvalidArgument as i32, Outcome::RolledBack));
    let postgres = failure.postgres.expect("PostgreSQL's account");
    assert_eq!(
        (postgres.sqlstate.as_str(), postgres.context.as_str()),
        ("22P02", "COPY marks, line 3, column n: \"three\"")
    );
    for _ in 0..100 {
        session.send_copy_data(id, vec![b'x'; 100_000]).await.expect("it is sent");
    }
    session.end_copy(id, String::new()).expect("it is sent");
    session.send(0, None, session_read(COUNT)).expect("it is sent");
    assert!(matches!(last(&mut session).await.response, Some(Response::Read(_))));
    assert_eq!(tell(&client, PID).await.expect("a pid"), pid, "the connection is as good as before");
    assert_eq!(tell(&client, COUNT).await.expect("a count"), "0");

    // The client hears of it while it sends.
    let mut session = client.session().await.expect("the session opens");
    let mut copy = session.copy_in(COPY_MARKS).expect("it is sent");
    let error = loop {
        if let Err(error) = copy.send("one\n").await {
            break error;
        }
    };
    assert_eq!(error.sqlstate(), Some("22P02"));
    assert!(matches!(copy.finish().await, Err(Error::CopyFailed)));
    assert_eq!(session.write("INSERT INTO marks VALUES (1)", []).await.expect("a write").rows_affected, 1);
}

/// What fails before PostgreSQL has looked at any data is answered twice by PostgreSQL; the connection must not be off by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_before_its_data_leaves_the_connection_and_savepoint_free_transactions_in_order() {
    let bed = start().await;
    let client = bed.client().await;
    let owner = bed.cluster.primary();
    owner.sql("CREATE TABLE secret (n int)").await.expect("a table of another");
    for sql in [
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$",
        "CREATE TABLE guarded (n int)",
        "CREATE TRIGGER no BEFORE INSERT ON guarded FOR EACH STATEMENT EXECUTE FUNCTION no()",
    ] {
        client.execute(sql, []).await.expect(sql);
    }
    let pid = tell(&client, PID).await.expect("a pid");
    let mut session = client.raw_session().await.expect("the session opens");
    let cases = [
        ("COPY nowhere FROM STDIN", "42P01"),
        ("COPY secret FROM STDIN", "42501"),
        ("COPY marks (m) FROM STDIN", "42703"),
        ("COPY marks FROM STDIN (FORMAT odd)", "22023"),
        ("COPY marks FROM STDIN nonsense", "42601"),
        ("COPY guarded FROM STDIN", "P0001"),
    ];
    for round in 0..3 {
        for (sql, sqlstate) in cases {
            let id = session.send(0, None, copy_in(sql)).expect("it is sent");
            if round == 1 {
                session.send_copy_data(id, b"1\n".to_vec()).await.expect("it is sent");
            }
            if round != 2 {
                session.end_copy(id, String::new()).expect("it is sent");
            }
            let failure = failed(last(&mut session).await);
            assert_eq!(failure.postgres.expect("PostgreSQL's account").sqlstate, sqlstate, "{sql}");
            if round == 2 {
                session.end_copy(id, String::new()).expect("it is sent");
            }
            assert_eq!(tell(&client, PID).await.expect("a pid"), pid, "{sql}: the connection goes on, in step");
        }
    }
    // In a transaction: it has failed, and can be rolled back on its connection.
    for (sql, _) in cases {
        let transaction = session.send(0, None, begin()).expect("it is sent");
        rows(&last(&mut session).await);
        let id = session.send(transaction, None, copy_in(sql)).expect("it is sent");
        session.end_copy(id, String::new()).expect("it is sent");
        failed(last(&mut session).await);
        session.send(transaction, None, commit()).expect("it is sent");
        assert_eq!(failed(last(&mut session).await).reason, "TRANSACTION_FAILED", "{sql}");
        session.send(transaction, None, rollback()).expect("it is sent");
        rows(&last(&mut session).await);
    }
    assert_eq!(tell(&client, PID).await.expect("a pid"), pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_transaction_a_copy_shares_its_fate() {
    let bed = start().await;
    let client = bed.client().await;
    let mut session = client.session().await.expect("the session opens");
    for keep in [false, true] {
        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        let mut copy = transaction.copy_in(COPY_MARKS).expect("it is sent");
        copy.send("1\n2\n3\n").await.expect("it is taken");
        assert_eq!(copy.finish().await.expect("it is copied"), 3);
        let out = transaction.copy_out("COPY (UPDATE marks SET n = n + 1 RETURNING n) TO STDOUT").await;
        assert_eq!(all(out.expect("it starts")).await, (b"2\n3\n4\n".to_vec(), 3));
        assert_eq!(ask(&client, COUNT).await.expect("a count"), "0", "nobody else sees them yet");
        if keep { transaction.commit().await } else { transaction.rollback().await }.expect("it ends");
        assert_eq!(tell(&client, COUNT).await.expect("a count"), if keep { "3" } else { "0" });
    }
    // Outside of one a copy out only reads.
    let error = session.copy_out("COPY (DELETE FROM marks RETURNING n) TO STDOUT").await.map(drop);
    let error = error.expect_err("it would write");
    assert_eq!((error.reason(), error.outcome()), ("WRITE_IN_READ", Outcome::RolledBack));
    // An abort fails the transaction, and says why.
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    let mut copy = transaction.copy_in(COPY_MARKS).expect("it is sent");
    copy.send("4\n").await.expect("it is taken");
    copy.cancel("changed my mind");
    let error = transaction.commit().await.expect_err("it has failed");
    assert_eq!(error.reason(), "TRANSACTION_FAILED");
    assert_eq!(tell(&client, COUNT).await.expect("a count"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_a_copy_run_after_it_and_an_abort_is_answered() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    // All at once, before any answer; the read is even sent before the data has ended.
    let copy = session.send(0, None, copy_in(COPY_MARKS)).expect("it is sent");
    session.send_copy_data(copy, b"1\n2\n".to_vec()).await.expect("it is sent");
    let read = session.send(0, None, session_read("SELECT 7")).expect("it is sent");
    session.end_copy(copy, String::new()).expect("it is sent");
    let aborted = session.send(0, None, copy_in(COPY_MARKS)).expect("it is sent");
    session.send_copy_data(aborted, b"3\n".to_vec()).await.expect("it is sent");
    session.end_copy(aborted, "no more".into()).expect("it is sent");
    let out = session.send(0, None, copy_out("COPY marks TO STDOUT")).expect("it is sent");
    let done = last(&mut session).await;
    assert_eq!((done.request_id, rows(&done)), (copy, 2));
    assert!(!done.position.is_empty() && done.receipt.is_some());
    assert_eq!(last(&mut session).await.request_id, read);
    let answer = last(&mut session).await;
    assert_eq!(answer.request_id, aborted);
    let failure = failed(answer);
    assert_eq!((failure.reason.as_str(), failure.outcome()), ("COPY_ABORTED", Outcome::RolledBack));
    assert!(failure.message.contains("no more"), "{}", failure.message);
    let piece = session.receive().await.expect("a piece");
    assert!(piece.request_id == out && !piece.last);
    assert_eq!(piece.response, Some(Response::CopyData(proto::CopyData { data: b"1\n2\n".to_vec() })));
    assert_eq!(rows(&last(&mut session).await), 2);
    session.close().await.expect("the session ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_copied_in_is_read_back_on_whichever_host() {
    let bed = Bed::start().await;
    let client = bed.client().await;
    client.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    bed.wait_until_caught_up().await;
    pause_all(&bed).await;
    let mut session = client.session().await.expect("the session opens");
    let mut copy = session.copy_in(COPY_MARKS).expect("it is sent");
    copy.send("1\n").await.expect("it is taken");
    copy.finish().await.expect("it is kept");
    let (count, receipt) = read_int(&client, COUNT, ReadOptions::new()).await;
    assert_eq!((count, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));
    let mut out = session.copy_out("COPY marks TO STDOUT").await.expect("it starts");
    assert_eq!(out.next().await.expect("data"), Some(b"1\n".to_vec()));
    assert_eq!((out.next().await.expect("the end"), out.rows()), (None, Some(1)));
    assert_eq!(out.receipt().map(|receipt| receipt.role()), Some(HostRole::Primary));
    resume_all(&bed).await;
    within("a replica has it", async {
        loop {
            let (count, receipt) = read_int(&client, COUNT, ReadOptions::new()).await;
            assert_eq!(count, 1, "a stale read: {receipt:?}");
            let mut out = session.copy_out("COPY marks TO STDOUT").await.expect("it starts");
            assert_eq!(out.next().await.expect("data"), Some(b"1\n".to_vec()), "a stale copy");
            assert_eq!(out.next().await.expect("the end"), None);
            let copied_from = out.receipt().map(|receipt| receipt.role());
            if (receipt.role(), copied_from) == (HostRole::Replica, Some(HostRole::Replica)) {
                return;
            }
        }
    })
    .await;
    // What a standby cannot copy comes from the primary.
    session.write("CREATE UNLOGGED TABLE fleeting AS SELECT 2 AS n", []).await.expect("the table is made");
    bed.wait_until_caught_up().await;
    let mut out = session.copy_out("COPY fleeting TO STDOUT").await.expect("it starts");
    assert_eq!(out.next().await.expect("data"), Some(b"2\n".to_vec()));
    assert_eq!(out.next().await.expect("the end"), None);
    assert_eq!(out.receipt().map(|receipt| receipt.role()), Some(HostRole::Primary));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_server_and_what_is_no_copy_are_refused_and_the_session_goes_on() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let cases = [
        (copy_in("COPY marks FROM '/etc/passwd'"), "SQL_REFUSED", "copy_in.sql"),
        (copy_in("COPY marks FROM /* STDIN */ PROGRAM 'id'"), "SQL_REFUSED", "copy_in.sql"),
        (copy_in("COPY marks TO STDOUT"), "SQL_REFUSED", "copy_in.sql"),
        (copy_in("SELECT 1"), "SQL_REFUSED", "copy_in.sql"),
        (copy_in(""), "SQL_MISSING", "copy_in.sql"),
        (copy_in("COPY marks FROM STDIN; DROP TABLE marks"), "SQL_MULTIPLE_STATEMENTS", "copy_in.sql"),
        (copy_out("COPY marks TO '/tmp/x'"), "SQL_REFUSED", "copy_out.sql"),
        (copy_out("COPY (SELECT 'TO STDOUT') TO PROGRAM 'cat'"), "SQL_REFUSED", "copy_out.sql"),
        (copy_out("COPY marks FROM STDIN"), "SQL_REFUSED", "copy_out.sql"),
    ];
    for (request, reason, field) in cases {
        let is_in = matches!(request, Request::CopyIn(_));
        let id = session.send(0, None, request).expect("it is sent");
        let failure = failed(last(&mut session).await);
        let is = (failure.code, failure.reason.as_str(), failure.field.as_str(), failure.outcome());
        assert_eq!(is, (Code::InvalidArgument as i32, reason, field, Outcome::NotExecuted));
        if is_in {
            session.send_copy_data(id, b"1\n".to_vec()).await.expect("it is sent");
            session.end_copy(id, String::new()).expect("it is sent");
        }
    }
    session.send(0, None, session_read(COUNT)).expect("it is sent");
    assert!(matches!(last(&mut session).await.response, Some(Response::Read(_))));
    session.close().await.expect("the session ends well");
    let rows = read_int(&bed.client().await, COUNT, strong()).await;
    assert_eq!(rows.0, 0);

    // Pieces of nothing, and a COPY within a COPY, break the protocol.
    let client: Client = bed.client().await;
    let session = client.raw_session().await.expect("the session opens");
    session.send_copy_data(99, b"1\n".to_vec()).await.expect("it is sent");
    assert_eq!(ended(session).await, ("FIELD_INVALID".into(), "request_id".into()));
    let mut session = client.raw_session().await.expect("the session opens");
    session.send(0, None, copy_in(COPY_MARKS)).expect("it is sent");
    session.send(0, None, copy_in(COPY_MARKS)).expect("it is sent");
    assert_eq!(ended(session).await, ("FIELD_INVALID".into(), "copy_in".into()));
}

/// The reason and the field with which the stream ends.
async fn ended(mut session: RawSession) -> (String, String) {
    within("the stream ends", async {
        loop {
            if let Err(error) = session.receive().await {
                let failure = error.failure().unwrap_or_else(|| panic!("{error:?}"));
                return (failure.reason.clone(), failure.field.clone());
            }
        }
    })
    .await
}
