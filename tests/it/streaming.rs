//! Results on their way: complete, in parts of bounded size, in no hurry and without loss.

use std::time::Duration;

use tidegate_client::{Array, ColumnKind, ReadOptions, Value, params, proto::ExecuteReadResponse};
use tonic::Code;

use crate::{
    asking::{Stub, ask, primary_alone, read_request, strong, stub, until_backends},
    harness::{Bed, poll_until, read_rows},
};

async fn start() -> Bed {
    Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await
}

async fn messages(stub: &mut Stub, sql: &str) -> Vec<ExecuteReadResponse> {
    let mut stream = stub.execute_read(read_request(sql, vec![])).await.expect("it starts").into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.expect("a message") {
        messages.push(message);
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_is_whole_and_its_first_and_last_messages_say_so() {
    let bed = start().await;
    let mut stub = stub(&bed).await.max_decoding_message_size(4 << 20);
    let messages = messages(&mut stub, "SELECT n, 'row ' || n AS name FROM generate_series(1, 200000) n").await;
    assert!(messages.len() > 10, "{} messages", messages.len());
    let (first, last) = (0, messages.len() - 1);
    let mut next = 1;
    for (at, message) in messages.iter().enumerate() {
        assert_eq!(message.header.is_some(), at == first, "message {at}: header");
        assert_eq!(message.summary.is_some(), at == last, "message {at}: summary");
        assert!(prost::Message::encoded_len(message) < 128 << 10, "message {at}: batches are cut at 64 KiB");
        let Some(rows) = &message.rows else { continue };
        for (n, name) in rows.columns[0].int64s.iter().zip(&rows.columns[1].texts) {
            assert_eq!((*n, name.as_str()), (next, format!("row {next}").as_str()));
            next += 1;
        }
        assert_eq!(rows.columns[0].int64s.len(), rows.row_count as usize);
    }
    assert_eq!(next, 200_001);
    assert_eq!(messages[last].summary.as_ref().expect("a summary").row_count, 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_result_is_one_message_with_all_and_an_empty_one_too() {
    let bed = start().await;
    let mut stub = stub(&bed).await;
    for (sql, rows) in [("SELECT 1 AS one", 1), ("SELECT 1 AS one WHERE false", 0), ("SELECT", 1)] {
        let messages = messages(&mut stub, sql).await;
        let [only] = messages.as_slice() else { panic!("{sql}: {} messages", messages.len()) };
        let columns = only.header.as_ref().expect("a header").columns.len();
        assert_eq!(columns, usize::from(sql != "SELECT"), "{sql}");
        assert_eq!(only.rows.as_ref().map_or(0, |rows| rows.row_count), rows, "{sql}");
        assert_eq!(only.summary.as_ref().expect("a summary").row_count, u64::from(rows), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_is_cancelled_and_its_connection_serves_others() {
    let bed = Bed::with(primary_alone(), |config| {
        config.pool.connections_per_host = 2;
        config.timeouts.stream_idle_timeout = Duration::from_millis(300);
    })
    .await;
    let client = bed.client().await;
    let endless = "SELECT repeat('x', 1000) AS x, generate_series(1, 1000000000)";
    let mut stream = client.read_with(endless, [], strong()).await.expect("it starts");
    until_backends(bed.cluster.primary(), "state = 'active' AND query LIKE '%generate_series%'", 0).await;
    assert_eq!(ask(&bed.client().await, "SELECT 1").await.expect("the only connection for reads is free"), "1");
    // Its connection is the one that has just served: it was not closed, and is idle.
    let pool = ["tidegate_pool_connections", r#"pool="read""#];
    let in_state = |state: &str| bed.metric(&[pool[0], pool[1], state]);
    let idle_alone = async || ["idle", "in_use"].map(|state| in_state(&format!("state=\"{state}\""))) == [1.0, 0.0];
    poll_until("the connection is back", idle_alone).await;
    assert_eq!(bed.metric(&["tidegate_connects_total", r#"result="ok""#]), 1.0, "it is the only one ever made");
    assert_eq!(bed.metric(&["tidegate_cancellations_total", "stream_idle"]), 1.0);
    let error = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the result ended well"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.code(), error.reason()), (Code::Cancelled, "STREAM_IDLE"), "{error}");
}

/// A type, a text of it, and how it comes back.
const TYPES: &[(&str, &str, ColumnKind)] = &[
    ("bool", "true", ColumnKind::Bool),
    ("int2", "-32768", ColumnKind::Int64),
    ("int4", "2147483647", ColumnKind::Int64),
    ("int8", "-9223372036854775808", ColumnKind::Int64),
    ("oid", "4294967295", ColumnKind::Int64),
    ("float4", "1.5", ColumnKind::Double),
    ("float8", "-0.1", ColumnKind::Double),
    ("text", "tide \u{1f30a} 'gate'", ColumnKind::Text),
    ("varchar(9)", "nine", ColumnKind::Text),
    ("char(3)", "ab ", ColumnKind::Text),
    ("name", "a_name", ColumnKind::Text),
    ("bytea", "\\x00ff", ColumnKind::Bytes),
    ("numeric", "123456789012345678901234567890.000100", ColumnKind::Text),
    ("numeric", "NaN", ColumnKind::Text),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", ColumnKind::Text),
    ("date", "2024-02-29", ColumnKind::Text),
    ("date", "0044-03-15 BC", ColumnKind::Text),
    ("time", "23:59:59.999999", ColumnKind::Text),
    ("timetz", "12:00:00+02", ColumnKind::Text),
    ("timestamp", "2024-02-29 12:34:56.789", ColumnKind::Text),
    ("timestamptz", "2024-02-29 12:34:56+00", ColumnKind::Text),
    ("timestamptz", "infinity", ColumnKind::Text),
    ("interval", "1 year 2 mons -3 days +04:05:06.7", ColumnKind::Text),
    ("json", "{\"a\":  1}", ColumnKind::Text),
    ("jsonb", "{\"a\": 1}", ColumnKind::Text),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_in_as_text_and_comes_out_as_postgresql_writes_it() {
    let bed = start().await;
    let client = bed.client().await;
    for (type_, sample, kind) in TYPES {
        // `same` is PostgreSQL's own judgement; `there` is the value as it travels.
        let sql = format!("SELECT $1::{type_} AS there, NULL::{type_} AS nothing, $1::{type_}::text AS same");
        let result = client.read(&sql, params![*sample]).await;
        let rows = result.unwrap_or_else(|error| panic!("{type_}: {error}")).rows().await.expect("rows");
        assert_eq!(rows.columns()[0].kind(), *kind, "{type_}");
        let row = rows.iter().next().expect("a row");
        assert_eq!(row.get::<Value>(1).expect("a value"), Value::Null, "{type_}");
        let shown = match row.get::<Value>(0).expect("a value") {
            Value::Text(text) => text,
            Value::Int64(number) => number.to_string(),
            Value::Double(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            Value::Bytes(bytes) => format!("\\x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
            other => panic!("{type_}: {other:?}"),
        };
        assert_eq!(shown, row.get::<&str>(2).expect("a text"), "{type_}");
        let null = read_rows(&client, &format!("SELECT $1::{type_}"), [Value::Null], ReadOptions::new()).await;
        assert_eq!(null.iter().next().expect("a row").get::<Value>(0).expect("a value"), Value::Null, "{type_}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_their_own_kinds_and_arrays_come_back_as_they_went() {
    let bed = start().await;
    let client = bed.client().await;
    let grid = Array { elements: (1..=4).map(Value::from).collect(), dimensions: vec![2, 2], lower_bounds: vec![0, 5] };
    let cases = [
        ("bool", Value::from(false)),
        ("int8", Value::from(i64::MAX)),
        ("float8", Value::from(f64::MIN_POSITIVE)),
        ("bytea", Value::Bytes(vec![0, 1, 255])),
        ("text", Value::from("")),
        ("int4[]", Value::array([Some(1), None, Some(-1)])),
        ("int4[]", Value::Array(grid)),
        ("text[]", Value::array(["", "a,b", "\"quoted\"", "{braces}", "NULL", "back\\slash"])),
        ("bool[]", Value::array([true, false])),
        ("float8[]", Value::array([0.5, -2.0])),
        ("numeric[]", Value::array(["1.10", "-0.003"])),
        ("date[]", Value::array(["2024-02-29", "1999-12-31"])),
        ("uuid[]", Value::array(["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"])),
    ];
    for (type_, value) in cases {
        let sql = format!("SELECT $1::{type_}");
        let result = client.read(&sql, [value.clone()]).await.unwrap_or_else(|error| panic!("{type_}: {error}"));
        let rows = result.rows().await.expect("rows");
        let came = rows.iter().next().expect("a row").get::<Value>(0).expect("a value");
        assert_eq!(as_sent(came, &value), value, "{type_}");
    }
}

/// Dimensions that the sender left to the default come back spelled out.
fn as_sent(came: Value, sent: &Value) -> Value {
    match (came, sent) {
        (Value::Array(mut array), Value::Array(sent)) if sent.dimensions.is_empty() => {
            assert_eq!(array.dimensions, [array.elements.len() as i32]);
            array.dimensions.clear();
            array.lower_bounds.clear();
            Value::Array(array)
        }
        (came, _) => came,
    }
}
