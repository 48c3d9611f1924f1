//! One budget covers every stage of a call: when it is used up the call fails as DEADLINE_EXCEEDED, nothing goes on
//! on the server, and the connection, or the next one, serves others.

use std::{future::Future, time::Duration};

use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use tidegate::model::HostHealth;
use tidegate_client::{
    Begin, Client, Error, Outcome,
    proto::{self, broker_service_client::BrokerServiceClient, session_response::Response},
};
use tonic::{Code, Request, Status, body::Body};

use crate::{
    asking::{
        ask, begin, failure, primary_alone, read_request, session_read, session_write, statement, tell, until_backends,
        write_request,
    },
    harness::{Bed, within},
};

/// Of the calls that are to fail; and of those that must run by then, on a machine with much to do.
const SHORT: &str = "400m";
const RUNNING: &str = "3S";
const SLEEPS: &str = "state = 'active' AND query LIKE '%pg_sleep%'";
const SLEEP: &str = "SELECT pg_sleep(600)::text";

/// The generated client over hyper's: tonic's own channel would start a timer too, and sometimes win.
struct Untimed(BrokerServiceClient<Http<HttpConnector, Body>>);

impl Untimed {
    fn of(bed: &Bed) -> Untimed {
        let http = Http::builder(TokioExecutor::new()).http2_only(true).build_http();
        Untimed(BrokerServiceClient::with_origin(http, bed.url().parse().expect("a URL")))
    }

    /// The read's first failure, which may come behind rows.
    async fn read(&self, sql: &str, timeout: &str) -> Result<(), Error> {
        let mut stream = self.start_read(sql, timeout).await?;
        while stream.message().await.map_err(Error::from)?.is_some() {}
        Ok(())
    }

    async fn start_read(
        &self,
        sql: &str,
        timeout: &str,
    ) -> Result<tonic::Streaming<proto::ExecuteReadResponse>, Status> {
        let mut message = read_request(sql, vec![]);
        let consistency = proto::Consistency::Strong.into();
        message.options = Some(proto::ReadOptions { consistency, ..Default::default() });
        Ok(self.0.clone().execute_read(with_timeout(message, timeout)).await?.into_inner())
    }

    async fn write(&self, message: proto::ExecuteWriteRequest, timeout: &str) -> Result<(), Error> {
        Ok(self.0.clone().execute_write(with_timeout(message, timeout)).await.map(drop)?)
    }
}

fn with_timeout<T>(message: T, timeout: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().expect("metadata"));
    request
}

fn writes(statements: &[&str]) -> proto::ExecuteWriteRequest {
    let statements = statements.iter().map(|sql| statement(sql, vec![])).collect();
    proto::ExecuteWriteRequest { statements, ..write_request("", vec![]) }
}

/// The call's time is up, and this is what became of its work.
async fn expect_late(what: &str, call: impl Future<Output = Result<(), Error>>, outcomes: &[Outcome]) {
    let error = within(what, call).await.expect_err(what);
    let failure = failure(&error);
    assert_eq!((failure.code, failure.reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"), "{what}");
    assert!(outcomes.contains(&failure.outcome), "{what}: {failure:?}");
}

async fn start(connections: u32) -> (Bed, Client, Untimed) {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = connections).await;
    let client = bed.client().await;
    tell(&client, "CREATE TABLE marks (n int)").await.expect("the table is made");
    let untimed = Untimed::of(&bed);
    (bed, client, untimed)
}

/// Everything has stopped, nothing was kept, and reads and writes go on.
async fn expect_at_rest(bed: &Bed, client: &Client) {
    until_backends(bed.cluster.primary(), "state <> 'idle'", 0).await;
    assert_eq!(ask(client, "SELECT count(*) FROM marks").await.expect("a read"), "0");
    tell(client, "UPDATE marks SET n = 1").await.expect("a write");
}

const UNDONE: &[Outcome] = &[Outcome::RolledBack];
const NEVER_RAN: &[Outcome] = &[Outcome::NotExecuted];

#[tokio::test(flavor = "multi_thread")]
async fn in_line_for_a_connection() {
    // One for reads on the primary, one for writes.
    let (bed, client, untimed) = start(2).await;
    let (reader, writer) = (client.clone(), client.clone());
    let reading = tokio::spawn(async move { ask(&reader, SLEEP).await });
    let writing = tokio::spawn(async move { tell(&writer, SLEEP).await });
    until_backends(bed.cluster.primary(), SLEEPS, 2).await;
    expect_late("a read", untimed.read("SELECT 1", SHORT), NEVER_RAN).await;
    expect_late("a write", untimed.write(writes(&["INSERT INTO marks VALUES (1)"]), SHORT), NEVER_RAN).await;
    reading.abort();
    writing.abort();
    expect_at_rest(&bed, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_connecting_to_a_host_that_does_not_answer() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let (client, untimed) = (bed.client().await, Untimed::of(&bed));
    // No connection but the prober's was made yet, and it is not missed at once.
    bed.cluster.primary().proxy().blackhole().await;
    expect_late("a read", untimed.read("SELECT 1", "100m"), NEVER_RAN).await;
    expect_late("a write", untimed.write(writes(&["SELECT 1"]), "100m"), NEVER_RAN).await;
    bed.cluster.primary().proxy().restore().await;
    bed.wait_until("the primary is back", || bed.view().hosts[0].health == HostHealth::Up).await;
    tell(&client, "CREATE TABLE marks (n int)").await.expect("a write");
    expect_at_rest(&bed, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_preparing_behind_a_lock() {
    let (bed, client, untimed) = start(11).await;
    let mut session = client.session().await.expect("the session opens");
    let mut holder = session.begin(Begin::new()).await.expect("it begins");
    holder.write("LOCK TABLE marks", []).await.expect("the table is locked");
    expect_late("a read", untimed.read("SELECT n FROM marks", SHORT), NEVER_RAN).await;
    let insert = "INSERT INTO marks VALUES (1)";
    expect_late("a write", untimed.write(writes(&[insert]), SHORT), NEVER_RAN).await;
    expect_late("a later statement", untimed.write(writes(&["SELECT 1", insert]), RUNNING), UNDONE).await;
    until_backends(bed.cluster.primary(), "wait_event_type = 'Lock'", 0).await;
    holder.rollback().await.expect("the table is free");
    session.close().await.expect("the session ends well");
    expect_at_rest(&bed, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_running() {
    // Room for all at once.
    let (bed, client, untimed) = start(17).await;
    let (insert, sleep) = ("INSERT INTO marks VALUES (1)", "INSERT INTO marks SELECT 1 FROM pg_sleep(600)");
    // A statement that commits by itself might have done so, if its cancel came too late: then it is not known.
    let alone = &[Outcome::RolledBack, Outcome::Unknown];
    tokio::join!(
        expect_late("a read", untimed.read(SLEEP, RUNNING), UNDONE),
        expect_late("a write by itself", untimed.write(writes(&[sleep]), RUNNING), alone),
        expect_late("a transaction", untimed.write(writes(&[insert, sleep]), RUNNING), UNDONE),
        expect_late("rows", untimed.write(writes(&[SLEEP]), RUNNING), UNDONE),
        expect_late("a block", untimed.write(writes(&["DO $$ BEGIN PERFORM pg_sleep(600); END $$"]), RUNNING), UNDONE),
    );
    expect_at_rest(&bed, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_streaming_to_a_caller_that_is_slow() {
    let (bed, client, untimed) = start(2).await;
    let endless = "SELECT repeat('x', 1000), generate_series(1, 1000000000)";
    let mut stream = untimed.start_read(endless, RUNNING).await.expect("it starts");
    assert!(stream.message().await.expect("rows").is_some());
    // Nothing more is taken until the statement is gone.
    until_backends(bed.cluster.primary(), "state = 'active'", 0).await;
    let rest = async {
        while stream.message().await.map_err(Error::from)?.is_some() {}
        Ok(())
    };
    expect_late("the stream", rest, UNDONE).await;
    expect_at_rest(&bed, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_request_in_a_session() {
    let (bed, client, _) = start(13).await;
    let mut session = client.raw_session().await.expect("the session opens");
    let short = Some(Duration::from_secs(2));
    let mut failed = async |transaction, request, outcomes: &[Outcome]| {
        session.send(transaction, short, request).expect("it is sent");
        let Some(Response::Failure(failure)) = session.receive().await.expect("an answer").response else {
            panic!("it is late")
        };
        let (outcome, error) = (failure.outcome(), Error::from(failure));
        assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
        assert!(outcomes.contains(&outcome), "{outcome:?}: {error:?}");
    };
    failed(0, session_read(SLEEP), UNDONE).await;
    failed(0, session_write("INSERT INTO marks SELECT 1 FROM pg_sleep(600)"), &[Outcome::RolledBack, Outcome::Unknown])
        .await;
    let transaction = session.send(0, None, begin()).expect("it is sent");
    assert!(matches!(session.receive().await.expect("an answer").response, Some(Response::Done(_))));
    let mut failed = async |request| {
        session.send(transaction, short, request).expect("it is sent");
        let Some(Response::Failure(failure)) = session.receive().await.expect("an answer").response else {
            panic!("it fails")
        };
        failure.reason
    };
    assert_eq!(failed(session_read(SLEEP)).await, "DEADLINE_EXCEEDED");
    assert_eq!(failed(session_write("SELECT 1")).await, "TRANSACTION_FAILED", "on the same connection");
    session.close().await.expect("the session ends well, and the transaction with it");
    expect_at_rest(&bed, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_of_the_servers_own_is_not_the_callers() {
    let (mut bed, client, _) = start(13).await;
    let role = "ALTER ROLE tidegate SET statement_timeout = '2s'; ALTER ROLE tidegate SET lock_timeout = '500ms'";
    bed.cluster.primary().sql(role).await.expect("the role is altered");
    drop(client);
    // Connections made before have the old settings.
    bed.restart_broker().await;
    let (client, untimed) = (bed.client().await, Untimed::of(&bed));
    let mut session = client.session().await.expect("the session opens");
    let mut holder = session.begin(Begin::new()).await.expect("it begins");
    holder.write("LOCK TABLE marks", []).await.expect("the table is locked");
    let sleeps = writes(&["SELECT 1", SLEEP]);
    let cases = [
        ("a read", untimed.read(SLEEP, "20S").await, "57014", Code::Cancelled),
        ("a transaction", untimed.write(sleeps, "20S").await, "57014", Code::Cancelled),
        ("a lock", untimed.write(writes(&["SELECT 1", "TRUNCATE marks"]), "20S").await, "55P03", Code::Aborted),
    ];
    for (what, answer, sqlstate, code) in cases {
        let error = answer.expect_err(what);
        let said = (error.code(), error.reason(), error.sqlstate(), failure(&error).outcome);
        assert_eq!(said, (code, "POSTGRES_ERROR", Some(sqlstate), Outcome::RolledBack), "{what}");
    }
    holder.rollback().await.expect("the table is free");
    session.close().await.expect("the session ends well");
    expect_at_rest(&bed, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_ones_are_taken_at_their_word_or_refused() {
    let (bed, client, untimed) = start(2).await;
    for none in ["0n", "0S", "1n", "00000000H"] {
        expect_late(none, untimed.read("SELECT 1", none), NEVER_RAN).await;
        expect_late(none, untimed.write(writes(&["INSERT INTO marks VALUES (1)"]), none), NEVER_RAN).await;
    }
    for long in ["99999999H", "99999999S", "00000060S"] {
        untimed.read("SELECT 1", long).await.expect(long);
        untimed.write(writes(&["SELECT 1"]), long).await.expect(long);
    }
    for wrong in ["", "S", "5", "5s", "-5S", "+5S", "5.5S", "5 S", "123456789n", "0x5S", "∞S"] {
        let Ok(value) = tonic::metadata::MetadataValue::try_from(wrong.as_bytes()) else { panic!("{wrong}") };
        let mut request = Request::new(read_request("SELECT 1", vec![]));
        request.metadata_mut().insert("grpc-timeout", value);
        let error = untimed.0.clone().execute_read(request).await.map(drop).map_err(Error::from).expect_err(wrong);
        let said = (error.code(), error.reason(), failure(&error).field.as_str());
        assert_eq!(said, (Code::InvalidArgument, "FIELD_INVALID", "grpc-timeout"), "{wrong:?}");
    }
    expect_at_rest(&bed, &client).await;
}
