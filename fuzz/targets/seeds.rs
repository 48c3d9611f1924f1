//! Writes the seeds that are not plain text: `scripts/fuzz seeds`. Those of `statement` are files to be edited by hand.
//! Built as the targets are, and so linked with what their instrumentation calls.

use std::{fs, path::Path};

use libfuzzer_sys as _;
use prost::Message;
use tidegate::proto::{
    ArrayValue, CallContext, Consistency, ExecuteReadRequest, ExecuteWriteRequest, ListenRequest, NullValue,
    ReadOptions, RowValue, SessionBegin, SessionCommit, SessionCopy, SessionOpen, SessionRead, SessionRequest,
    SessionRollback, SessionWrite, Statement, Value, session_request::Request, value::Kind,
};
use tidegate_fuzz::token;

fn main() -> std::io::Result<()> {
    for (target, seeds) in [("request", requests()), ("params", params()), ("rows", rows()), ("token", tokens())] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::TextValue(text.to_owned()))
}

fn int(number: i64) -> Value {
    value(Kind::Int64Value(number))
}

fn null() -> Value {
    value(Kind::NullValue(NullValue::Unspecified.into()))
}

fn array(elements: Vec<Value>, dimensions: &[i32], lower_bounds: &[i32]) -> Value {
    let (dimensions, lower_bounds) = (dimensions.to_vec(), lower_bounds.to_vec());
    value(Kind::ArrayValue(ArrayValue { elements, dimensions, lower_bounds }))
}

fn row(fields: Vec<Value>) -> Value {
    value(Kind::RowValue(RowValue { fields }))
}

fn statement(sql: &str, params: Vec<Value>) -> Option<Statement> {
    Some(Statement { sql: sql.to_owned(), params })
}

fn context() -> Option<CallContext> {
    Some(CallContext {
        database: "app".to_owned(),
        session_id: "user-7".to_owned(),
        positions: vec![token::sign(&[1])],
        operation: "GET /tags".to_owned(),
        settings: [("app.tenant".to_owned(), r"O'Neill\'); --".to_owned())].into(),
        ..CallContext::default()
    })
}

/// Kind, headers, message.
fn request(kind: u8, headers: &str, message: &impl Message) -> Vec<u8> {
    let length = u8::try_from(headers.len()).expect("short headers");
    [&[kind, length], headers.as_bytes(), &message.encode_to_vec()].concat()
}

fn session(request: Request) -> SessionRequest {
    SessionRequest { request_id: 2, request: Some(request), ..SessionRequest::default() }
}

fn requests() -> Seeds {
    let options = |consistency: Consistency, seconds| ReadOptions {
        consistency: consistency.into(),
        max_staleness: seconds,
        max_message_bytes: 1 << 20,
        ..ReadOptions::default()
    };
    let second = tonic_duration(1);
    let read = ExecuteReadRequest {
        context: context(),
        statement: statement("SELECT $1::int", vec![int(7)]),
        options: Some(options(Consistency::Bounded, Some(second))),
    };
    let write = ExecuteWriteRequest {
        context: context(),
        statements: statement("INSERT INTO t VALUES ($1)", vec![text("a")]).into_iter().collect(),
        isolation: 3,
        ..ExecuteWriteRequest::default()
    };
    let read_of_session =
        SessionRead { statement: statement("SELECT 1", Vec::new()), options: Some(options(Consistency::Strong, None)) };
    let write_of_session = SessionWrite { statement: statement("DELETE FROM t", Vec::new()), ..Default::default() };
    let write_with_a_key = SessionWrite { idempotency_key: "k".to_owned(), ..write_of_session.clone() };
    let begin = SessionBegin { isolation: 2, read_only: true, deferrable: true, ..SessionBegin::default() };
    let copy = |sql: &str| SessionCopy { sql: sql.to_owned() };
    let rollback = SessionRollback { to_savepoint: "s".to_owned() };
    let traced = SessionRequest {
        transaction_id: 1,
        timeout: Some(tonic_duration(-1)),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        positions: vec!["t".to_owned()],
        ..session(Request::Commit(SessionCommit {}))
    };
    vec![
        ("read", request(b'r', "t100m", &read)),
        ("read_with_tokens", request(b'r', "pAQ,AQ\npAQ", &read)),
        ("read_with_a_bad_timeout", request(b'r', "t1x", &read)),
        ("read_of_nothing", request(b'r', "", &ExecuteReadRequest::default())),
        ("write", request(b'w', "", &write)),
        ("write_with_a_key", request(b'w', "", &ExecuteWriteRequest { idempotency_key: "k".to_owned(), ..write })),
        ("session_open", request(b's', "", &session(Request::Open(SessionOpen { context: context() })))),
        ("session_read", request(b's', "", &session(Request::Read(read_of_session)))),
        ("session_write", request(b's', "", &session(Request::Write(write_of_session)))),
        ("session_write_with_a_key", request(b's', "", &session(Request::Write(write_with_a_key)))),
        ("session_begin", request(b's', "", &session(Request::Begin(begin)))),
        ("session_commit", request(b's', "", &traced)),
        ("session_copy_in", request(b's', "", &session(Request::CopyIn(copy("COPY t FROM STDIN"))))),
        ("session_copy_out", request(b's', "", &session(Request::CopyOut(copy("COPY t TO STDOUT"))))),
        ("session_rollback", request(b's', "", &session(Request::Rollback(rollback)))),
        ("listen", request(b'l', "pAQ", &ListenRequest { context: context(), channels: vec!["c".to_owned()] })),
    ]
}

fn tonic_duration(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// A quote in rows in one another.
fn quote_within(depth: usize) -> Value {
    (0..depth).fold(text("\""), |inner, _| row(vec![inner]))
}

fn param(types: &str, fields: Vec<Value>) -> Vec<u8> {
    [types.as_bytes(), b"\n", &RowValue { fields }.encode_to_vec()].concat()
}

fn params() -> Seeds {
    let double = |number| value(Kind::DoubleValue(number));
    let bytes = value(Kind::BytesValue(vec![0, 0xff, b'\\']));
    let awkward = || vec![text("a \"b\" \\ {c}, (d); NULL"), text(""), null(), text("NULL")];
    vec![
        ("numbers", param("int2 int4 int8 oid float4 float8 numeric", (1..8).map(int).collect())),
        ("doubles", param("float4 float8 numeric", vec![double(0.1), double(f64::NAN), double(-1e-300)])),
        ("texts", param("text uuid jsonb ?", vec![text("a"), text("x"), text("{}"), text("1")])),
        ("others", param("bool bytea =int4", vec![value(Kind::BoolValue(true)), bytes.clone(), int(-1)])),
        ("array", param("[text", vec![array(awkward(), &[2, 2], &[0, -1])])),
        ("array_of_bytes", param("[bytea", vec![array(vec![bytes, null()], &[], &[])])),
        ("array_of_boxes", param("[=box", vec![array(vec![text("(1,1),(0,0)"), null()], &[2], &[])])),
        ("vector", param("int2vector", vec![array(vec![int(1), int(2)], &[], &[])])),
        ("row", param("(text,text,text,text)", vec![row(awkward())])),
        (
            "rows_in_arrays_in_rows",
            param(
                "(int4,[(text,float4))",
                vec![row(vec![int(1), array(vec![row(vec![text("\"\\"), double(0.1)]), null()], &[], &[])])],
            ),
        ),
        ("a_row_of_nothing", param("()", vec![row(Vec::new())])),
        ("rows_around_a_quote", param(&format!("{}text{}", "(".repeat(20), ")".repeat(20)), vec![quote_within(20)])),
        ("nothing", param("text", vec![Value { kind: None }])),
    ]
}

/// A line of types, the room, and cells.
fn cells(types: &str, room: u8, cells: &[Option<&[u8]>]) -> Vec<u8> {
    let mut bytes = [types.as_bytes(), b"\n", &[room]].concat();
    for cell in cells {
        let length = cell.map_or(u16::MAX, |cell| u16::try_from(cell.len()).expect("a short cell"));
        bytes.extend(length.to_be_bytes());
        bytes.extend(cell.unwrap_or_default());
    }
    bytes
}

/// A cell of many equal parts in a column of a type; `count` is what the front says and how often the part comes.
fn repeated(types: &str, front: &[u8], part: &[u8], count: u16) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short parts");
    let head = [types.as_bytes(), b"\n\0", &(u16::MAX - 1).to_be_bytes(), &count.to_be_bytes()].concat();
    [&head, [length(front), length(part)].as_slice(), front, part].concat()
}

/// Parts, each behind its length of four bytes.
fn sized(parts: &[&[u8]]) -> Vec<u8> {
    let sized = |part: &&[u8]| [&u32::try_from(part.len()).expect("a short part").to_be_bytes(), *part].concat();
    parts.iter().flat_map(sized).collect()
}

fn words(words: &[i32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// `1e131000` in eight bytes and a digit: digits, weight, sign, scale.
const LONG_NUMERIC: [u8; 10] = [0, 1, 0x7f, 0xee, 0, 0, 0, 0, 0, 1];

/// A text in a row of one field, that in another, and so on.
fn rows_around(text: &[u8], depth: usize) -> Vec<u8> {
    (0..depth).fold(text.to_vec(), |inner, _| [words(&[1, 25]), sized(&[&inner])].concat())
}

fn rows() -> Seeds {
    let one = 1_i32.to_be_bytes();
    let array = [words(&[1, 0, 23, 2, 1]), sized(&[&one]), words(&[-1])].concat();
    let row = [words(&[2, 23]), sized(&[&one]), words(&[25]), sized(&[b"a b"])].concat();
    let range = [vec![2], sized(&[&one, &one])].concat();
    let long_range = [vec![6], sized(&[&LONG_NUMERIC, &LONG_NUMERIC])].concat();
    let many = [words(&[2]), sized(&[&range, &[1]])].concat();
    let long_many = [words(&[2]), sized(&[long_range.as_slice(); 2])].concat();
    let claims = words(&[1, 0, 23, i32::MAX, 1]);
    let hstore = [words(&[2]), sized(&[b"key", b"value", b"none"]), words(&[-1])].concat();
    let inet = [2, 32, 0, 4, 127, 0, 0, 1];
    let vector = [words(&[1]), b"word\0\0\x01\x40\x05".to_vec()].concat();
    let query = [words(&[3]), vec![2, 2, 1, 0, 0, b'a', 0, 1, 0, 0, b'b', 0]].concat();
    let points = [words(&[1]), vec![0; 16]].concat();
    let quotes = [vec![10], sized(&[&rows_around(b"\"\\\"", 8)])].concat();
    let eight = 1_i64.to_be_bytes();
    let scalars = [Some(&[1][..]), Some(&[0, 1]), Some(&one), None, Some(b"text"), Some(b"\x01{}")];
    vec![
        ("scalars", cells("bool int2 int4 int8 text jsonb", 0, &[&scalars[..], &scalars[..]].concat())),
        ("wide", cells("xid8 oid float4 float8 bytea", 0, &[Some(&eight), Some(&one), Some(&one), Some(&eight), None])),
        ("times", cells("date time timestamptz", 0, &[Some(&one), Some(&eight), Some(&eight)])),
        ("interval", cells("interval timetz uuid", 0, &[Some(&[1; 16]), Some(&[0; 12]), Some(&[9; 16])])),
        ("numeric", cells("numeric", 0, &[Some(&LONG_NUMERIC), None])),
        ("array", cells("[int4 [text", 0, &[Some(&array), Some(&array)])),
        ("a_claim", cells("[int4 record", 0, &[Some(&claims), Some(&words(&[i32::MAX]))])),
        ("row", cells("(int4,text) record", 0, &[Some(&row), Some(&row)])),
        ("range", cells("int4range ~=int4 nummultirange", 0, &[Some(&range), Some(&range), Some(&long_many)])),
        ("multirange", cells("int4multirange *int4", 0, &[Some(&many), Some(&many)])),
        ("extensions", cells("hstore citext ltree", 0, &[Some(&hstore), Some(b"a"), Some(b"\x01a.b")])),
        ("network", cells("inet cidr macaddr bit", 0, &[Some(&inet), Some(&inet), Some(&[1; 6]), Some(&words(&[0]))])),
        ("search", cells("tsvector tsquery", 0, &[Some(&vector), Some(&query)])),
        ("geometry", cells("point polygon circle", 0, &[Some(&[0; 16]), Some(&points), Some(&[0; 24])])),
        ("others", cells("! ? pg_lsn tid", 0, &[Some(b"a"), Some(&[0, 1]), Some(&eight), Some(&[0, 0, 0, 1, 0, 2])])),
        ("little_room", cells("text", 2, &[Some(b"fits"), Some(&[b'x'; 60]), Some(b"fits too"), None])),
        ("long_multirange", repeated("*numeric", &words(&[9000]), &sized(&[&long_range]), 9000)),
        ("long_array", repeated("[numeric", &words(&[1, 0, 1700, 9000, 1]), &sized(&[&LONG_NUMERIC]), 9000)),
        ("quotes_in_rows_in_a_range", cells("~((((((((text))))))))", 0, &[Some(&quotes)])),
        ("padded", cells("bpchar [bpchar", 0, &[Some(b"a  "), None])),
        ("exceptions", cells("int4 money", 0, &[Some(&one), Some(&eight)])),
    ]
}

fn tokens() -> Seeds {
    let mut position = vec![1];
    position.extend(7_u64.to_be_bytes());
    position.extend(2_u32.to_be_bytes());
    position.extend(0x16_B374_D848_u64.to_be_bytes());
    position.extend(1_700_000_000_000_u64.to_be_bytes());
    position.extend(1_700_000_000_000_u64.to_be_bytes());
    position.extend(b"\x04main");
    let payload = [&[1], position.as_slice()].concat();
    let changed = |change: u8| [&[b'p', change, 0, 9, 0x20], position.as_slice(), position.as_slice()].concat();
    vec![
        ("text", [b"t", token::sign(&payload).as_bytes()].concat()),
        (
            "text_of_a_stranger",
            b"tAQEAAAAAAAAABwAAAAIAAAAWs3TYSAAAAYvP5WgAAAABi8_laAAEbWFpbkRk3GmMZVkovmUlDrkwxCQ".to_vec(),
        ),
        ("text_malformed", b"tAQ==".to_vec()),
        ("signed", [b"s", payload.as_slice()].concat()),
        ("signed_twice", [b"s", payload.as_slice(), position.as_slice()].concat()),
        ("signed_later_version", b"s\x02".to_vec()),
        ("cut", changed(0)),
        ("grown", changed(1)),
        ("shrunk", changed(2)),
        ("flipped", changed(3)),
        ("appended", changed(4)),
    ]
}
