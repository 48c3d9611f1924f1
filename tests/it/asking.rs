//! Raw requests for tests that look behind the client: messages as the wire has them, and what PostgreSQL is doing.

use tidegate::dev::{ClusterOptions, DATABASE, Server};
use tidegate_client::{
    Client, Consistency, Error, Failure, Outcome, RawSession, ReadOptions, Value,
    proto::{
        self, SessionResponse, broker_service_client::BrokerServiceClient, session_request::Request,
        session_response::Response, value::Kind,
    },
};
use tonic::{Code, transport::Channel};

use crate::{
    documented,
    harness::{Bed, poll_until},
};

pub type Stub = BrokerServiceClient<Channel>;

/// A cluster of one server: what does not depend on replicas starts faster.
pub fn primary_alone() -> ClusterOptions {
    ClusterOptions { replicas: 0, ..ClusterOptions::default() }
}

/// The generated client, on a connection of its own.
pub async fn stub(bed: &Bed) -> Stub {
    Stub::connect(bed.url()).await.expect("the broker accepts connections")
}

pub fn context() -> Option<proto::CallContext> {
    Some(proto::CallContext { database: DATABASE.into(), ..Default::default() })
}

pub fn statement(sql: &str, params: Vec<proto::Value>) -> proto::Statement {
    proto::Statement { sql: sql.into(), params }
}

pub fn text(value: &str) -> proto::Value {
    proto::Value { kind: Some(Kind::TextValue(value.into())) }
}

pub fn int(value: i64) -> proto::Value {
    proto::Value { kind: Some(Kind::Int64Value(value)) }
}

pub fn read_request(sql: &str, params: Vec<proto::Value>) -> proto::ExecuteReadRequest {
    proto::ExecuteReadRequest { context: context(), statement: Some(statement(sql, params)), options: None }
}

pub fn write_request(sql: &str, params: Vec<proto::Value>) -> proto::ExecuteWriteRequest {
    proto::ExecuteWriteRequest { context: context(), statements: vec![statement(sql, params)], ..Default::default() }
}

pub fn session_read(sql: &str) -> Request {
    Request::Read(proto::SessionRead { statement: Some(statement(sql, vec![])), options: None })
}

pub fn session_write(sql: &str) -> Request {
    let statement = Some(statement(sql, vec![]));
    Request::Write(proto::SessionWrite { statement, idempotency_key: String::new() })
}

pub fn begin() -> Request {
    Request::Begin(proto::SessionBegin::default())
}

pub fn commit() -> Request {
    Request::Commit(proto::SessionCommit {})
}

pub fn rollback() -> Request {
    Request::Rollback(proto::SessionRollback::default())
}

/// The last response to the next request.
pub async fn last(session: &mut RawSession) -> SessionResponse {
    loop {
        let response = session.receive().await.expect("a response");
        if response.last {
            return response;
        }
    }
}

pub async fn go(session: &mut RawSession, transaction: u64, request: Request) -> SessionResponse {
    session.send(transaction, None, request).expect("it is sent");
    last(session).await
}

pub fn done(response: SessionResponse) -> u64 {
    assert!(matches!(response.response, Some(Response::Done(_) | Response::Write(_))), "{response:?}");
    response.request_id
}

/// How a request failed: its code, reason and outcome.
pub fn failed(response: SessionResponse) -> (Code, String, Outcome) {
    let Some(Response::Failure(failure)) = response.response else { panic!("no failure: {response:?}") };
    (Code::from_i32(failure.code), failure.reason.clone(), failure.outcome())
}

pub fn not_open() -> (Code, String, Outcome) {
    (Code::FailedPrecondition, "TRANSACTION_NOT_OPEN".into(), Outcome::NotExecuted)
}

/// The broker's account of an error that must have one, and be as docs/errors.md says.
pub fn failure(error: &Error) -> &Failure {
    let failure = error.failure().unwrap_or_else(|| panic!("not a failure of the broker: {error:?}"));
    documented::check(failure);
    failure
}

/// Reads on the primary whatever else there is.
pub fn strong() -> ReadOptions {
    ReadOptions::new().consistency(Consistency::Strong)
}

/// The only value of a read on the primary, as text.
pub async fn ask(client: &Client, sql: &str) -> Result<String, Error> {
    let rows = client.read_with(sql, [], strong()).await?.rows().await?;
    let row = rows.iter().next().expect("a row");
    Ok(show(row.get::<Value>(0)?))
}

/// The only value of a write, as text; nothing, if it returns none.
pub async fn tell(client: &Client, sql: &str) -> Result<String, Error> {
    let written = client.execute(sql, []).await?;
    let row = written.results[0].rows.row(0);
    row.map_or(Ok(String::new()), |row| Ok(show(row.get::<Value>(0)?)))
}

pub fn show(value: Value) -> String {
    match value {
        Value::Text(text) => text,
        Value::Int64(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

/// How many of the broker's backends on a server are as `condition` (on `pg_stat_activity`) says.
pub async fn backends(server: &Server, condition: &str) -> i64 {
    let of_broker = "FROM pg_stat_activity WHERE application_name = 'tidegate' AND pid <> pg_backend_pid()";
    server.sql_value(&format!("SELECT count(*) {of_broker} AND ({condition})")).await.expect("the server answers")
}

/// Awaits the number of the broker's backends that are as `condition` says.
pub async fn until_backends(server: &Server, condition: &str, count: i64) {
    poll_until(&format!("{count} backends with {condition}"), || async { backends(server, condition).await == count })
        .await;
}

/// Waits until every connection is back in its pool: what runs behind an answer (a reset, say) is over then, too.
pub async fn until_none_in_use(bed: &Bed) {
    let in_use = || bed.metric(&["tidegate_pool_connections", "in_use"]);
    poll_until("no connection is in use", || std::future::ready(in_use() == 0.0)).await;
}
