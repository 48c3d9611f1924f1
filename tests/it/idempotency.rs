//! Writes with an idempotency key: done once, whoever repeats them, and answered alike.

use std::time::Duration;

use tidegate_client::{
    Client, Error, HostRole, Isolation, Outcome, ReadOptions, Statement, Value, WriteOptions, Written, params,
    proto::{self, session_request::Request},
};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::{
    asking::{ask, failure, primary_alone, statement, stub, until_none_in_use, write_request},
    check_command::tidegate,
    harness::{Bed, pause_all, quietly, read_int, resume_all},
};

pub const INSERT: &str = "INSERT INTO marks VALUES ($1) RETURNING n, repeat('x', 3) AS x, NULL::text AS nothing";
pub const COUNT: &str = "SELECT count(*) FROM marks";

pub async fn start_with(bed: Bed) -> Bed {
    bed.client().await.execute("CREATE TABLE marks (n bigint)", []).await.expect("the table is made");
    bed.init_keys().await;
    bed
}

pub async fn start() -> Bed {
    start_with(Bed::with(primary_alone(), |_| {}).await).await
}

pub fn key(key: &str) -> WriteOptions {
    WriteOptions::new().idempotency_key(key)
}

pub async fn insert(client: &Client, n: i64, options: WriteOptions) -> Result<Written, Error> {
    client.write_with([Statement::new(INSERT).bind(n)], options).await
}

pub fn spawn_insert(client: &Client, n: i64, options: WriteOptions) -> JoinHandle<Result<Written, Error>> {
    let client = client.clone();
    tokio::spawn(async move { insert(&client, n, options).await })
}

fn rows(written: &Written) -> Vec<Vec<Value>> {
    let rows = |batch: &tidegate_client::Batch| {
        batch.rows().map(|row| (0..3).map(|column| row.get(column).expect("a value")).collect()).collect::<Vec<_>>()
    };
    written.results.iter().flat_map(|result| rows(&result.rows)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_answers_the_first_result_and_a_position_that_sees_it() {
    let mut bed = start_with(Bed::start().await).await;
    let client = bed.client().await;
    let first = insert(&client, 1, key("a 'key' \\ with $1 – and more")).await.expect("it is written");
    assert!(!first.replayed());
    // A caller that has seen nothing, and a broker that remembers nothing.
    bed.restart_broker().await;
    bed.wait_until_caught_up().await;
    pause_all(&bed).await;
    assert!(!insert(&bed.client().await, 2, key("another")).await.expect("it is written").replayed());
    let other = bed.client().await;
    let again = insert(&other, 1, key("a 'key' \\ with $1 – and more")).await.expect("the stored result");
    assert!(again.replayed() && !again.position.is_empty());
    assert_eq!(rows(&again), rows(&first), "the same rows");
    assert_eq!(again.results[0].rows.columns(), first.results[0].rows.columns(), "and columns");
    assert_eq!(again.rows_affected(), 1);
    // No replica has replayed what was written since; the answer's position asks for it.
    let (count, receipt) = read_int(&other, COUNT, ReadOptions::new()).await;
    assert_eq!((count, receipt.role()), (2, HostRole::Primary), "{receipt:?}");
    resume_all(&bed).await;

    // Statements that no longer fit do not matter: nothing is prepared for a repetition.
    bed.client().await.execute("DROP TABLE marks", []).await.expect("it is dropped");
    let again = insert(&other, 1, key("a 'key' \\ with $1 – and more")).await.expect("the stored result");
    assert_eq!(rows(&again), rows(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_write_and_a_failed_write_leaves_none() {
    let bed = start().await;
    let client = bed.client().await;
    insert(&client, 1, key("k")).await.expect("it is written");
    let other_isolation = key("k").isolation(Isolation::Serializable);
    let two = [Statement::new(INSERT).bind(1), Statement::new(INSERT).bind(1)];
    for reused in [
        insert(&client, 2, key("k")).await,
        insert(&client, 1, other_isolation).await,
        client.write_with(two, key("k")).await,
        client.write_with([Statement::new("DELETE FROM marks")], key("k")).await,
    ] {
        let error = reused.expect_err("the key is taken");
        let failure = failure(&error);
        let is = (failure.code, failure.reason.as_str(), failure.field.as_str(), failure.outcome);
        assert_eq!(is, (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED", "idempotency_key", Outcome::NotExecuted));
    }
    assert_eq!(ask(&client, COUNT).await.expect("a count"), "1");

    // What was rolled back is not kept, nor is its key.
    let failing = [Statement::new(INSERT).bind(2), Statement::new("SELECT 1 / $1::int").bind(0)];
    let error = client.write_with(failing, key("again")).await.expect_err("1/0");
    assert_eq!((error.outcome(), error.sqlstate()), (Outcome::RolledBack, Some("22012")));
    assert!(!insert(&client, 2, key("again")).await.expect("the key is free").replayed());

    // A transaction that loses its own key does not commit: a repetition would do it twice.
    let selfish = [Statement::new(INSERT).bind(3), Statement::new("DELETE FROM tidegate.idempotency_keys")];
    let error = client.write_with(selfish, key("gone")).await.expect_err("its key is gone");
    assert_eq!(error.outcome(), Outcome::RolledBack, "{error}");
    assert_eq!(ask(&client, COUNT).await.expect("a count"), "2");

    let wrong = [("x".repeat(256), "255 at most"), ("a\0b".to_owned(), "NUL")];
    for (wrong, text) in wrong {
        let error = insert(&client, 4, key(&wrong)).await.expect_err("a wrong key");
        let failure = failure(&error);
        assert_eq!((failure.reason.as_str(), failure.field.as_str()), ("FIELD_INVALID", "idempotency_key"));
        assert!(failure.message.contains(text), "{}", failure.message);
    }
    let vacuum = client.write_with([Statement::new("VACUUM marks")], key("v").outside_transaction()).await;
    assert_eq!(failure(&vacuum.expect_err("no key")).field, "idempotency_key");
    assert!(!insert(&client, 5, key(&"x".repeat(255))).await.expect("as long as may be").replayed());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_calls_at_once_with_one_key_one_is_done() {
    let bed = start().await;
    for (round, isolation) in [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable]
        .into_iter()
        .cycle()
        .take(6)
        .enumerate()
    {
        let mut calls = Vec::new();
        for _ in 0..8 {
            let options = key(&format!("round {round}")).isolation(isolation);
            calls.push(spawn_insert(&bed.client().await, round as i64, options));
        }
        let mut done = 0;
        for call in calls {
            let written = call.await.expect("it ends").unwrap_or_else(|error| panic!("{isolation:?}: {error}"));
            done += u32::from(!written.replayed());
            assert_eq!(written.rows_affected(), 1);
        }
        assert_eq!(done, 1, "{isolation:?}");
    }
    assert_eq!(ask(&bed.client().await, COUNT).await.expect("a count"), "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_writes_with_keys_outside_its_transactions() {
    let bed = start().await;
    let mut session = bed.client().await.session().await.expect("the session opens");
    for replayed in [false, true, true] {
        let (result, was) = session.write_once("k", INSERT, params![1]).await.expect("it is written");
        assert_eq!((result.rows_affected, was), (1, replayed));
    }
    // The same write as a call of its own has the same key.
    let again = insert(&bed.client().await, 1, key("k")).await;
    assert!(again.expect("the stored result").replayed());

    let mut raw = session.into_raw();
    let id = raw.send(0, None, crate::asking::begin()).expect("it is sent");
    raw.receive().await.expect("begun");
    let write = proto::SessionWrite { statement: Some(statement("SELECT 1", vec![])), idempotency_key: "k".into() };
    raw.send(id, None, Request::Write(write)).expect("it is sent");
    let Some(proto::session_response::Response::Failure(failure)) = raw.receive().await.expect("an answer").response
    else {
        panic!("a key inside a transaction")
    };
    assert_eq!((failure.reason.as_str(), failure.field.as_str()), ("FIELD_INVALID", "write.idempotency_key"));
    assert_eq!(ask(&bed.client().await, COUNT).await.expect("a count"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_table_or_the_right_to_it_a_key_is_refused_and_check_says_what_to_do() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let refused = async |why: &str| {
        let error = client.write_with([Statement::new("SELECT 1")], key("k")).await.expect_err("no table");
        let failure = failure(&error);
        let is = (failure.code, failure.reason.as_str(), failure.field.as_str(), failure.outcome);
        let expected = (Code::FailedPrecondition, "IDEMPOTENCY_NOT_SET_UP", "idempotency_key", Outcome::NotExecuted);
        assert_eq!(is, expected, "{error}");
        assert!(failure.message.contains("tidegate check --init") && failure.message.contains(why), "{error}");
    };
    refused("does not exist").await;

    let init = async || {
        let output = tidegate(&["check", "--init", "--json", "--primary", &primary.url()]).await;
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
        (output.status.code(), document["databases"][0].clone())
    };
    let (code, database) = init().await;
    assert_eq!(
        (code, &database["database"], &database["idempotency_keys"]),
        (Some(0), &"app".into(), &"created".into())
    );
    let (code, database) = init().await;
    assert_eq!((code, &database["idempotency_keys"]), (Some(0), &"present".into()));
    let text = tidegate(&["check", "--init", "--primary", &primary.url()]).await;
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(text.contains("CREATE TABLE IF NOT EXISTS tidegate.idempotency_keys"), "{text}");
    assert!(text.contains("app: tidegate.idempotency_keys is there already"), "{text}");
    assert!(!client.write_with([Statement::new("SELECT 1")], key("k")).await.expect("it is written").replayed());

    // The table belongs to somebody else now.
    let seize = "ALTER SCHEMA tidegate OWNER TO postgres; ALTER TABLE tidegate.idempotency_keys OWNER TO postgres";
    primary.sql(seize).await.expect("it is another's");
    refused("permission denied").await;
    let (code, database) = init().await;
    let message = database["message"].as_str().expect("a message").to_owned();
    assert_eq!((code, &database["idempotency_keys"]), (Some(1), &"failed".into()));
    let (_, grants) = message.split_once("must run: ").expect("the grants");
    primary.sql(grants).await.expect("the grants are right");
    assert_eq!(init().await.0, Some(0));
    assert!(client.write_with([Statement::new("SELECT 1")], key("k")).await.expect("as before").replayed());

    // A role without the right to make anything.
    primary
        .sql("DROP SCHEMA tidegate CASCADE; ALTER DATABASE app OWNER TO postgres; REVOKE CREATE ON DATABASE app FROM PUBLIC")
        .await
        .expect("all is gone");
    let (code, database) = init().await;
    let message = database["message"].as_str().expect("a message").to_owned();
    assert_eq!(code, Some(1));
    let grant = message.split_once("run: ").and_then(|(_, rest)| rest.split_once(" and repeat")).expect("a grant").0;
    primary.sql(grant).await.expect("the grant is right");
    assert_eq!(init().await.0, Some(0));
    stub(&bed).await.execute_write(write_request("SELECT 1", vec![])).await.expect("without a key all is as ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_costs_two_turns_and_a_write_with_a_key_no_more_than_a_transaction() {
    let bed = start_with(Bed::with(primary_alone(), quietly).await).await;
    let (client, proxy) = (bed.client().await, bed.cluster.primary().proxy());
    insert(&client, 0, key("first")).await.expect("it is prepared");
    for (name, turns) in [("second", 3), ("second", 2), ("third", 3)] {
        until_none_in_use(&bed).await;
        let count = proxy.count_turns_with(Duration::from_millis(200));
        insert(&client, 0, key(name)).await.expect("a write");
        until_none_in_use(&bed).await;
        assert_eq!(count.turns_by_connection().last().copied(), Some(turns), "{name}");
    }
}
