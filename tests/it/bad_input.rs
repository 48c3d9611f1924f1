//! What a caller gets wrong is refused with a code, a reason, the field to blame and what became of the work; and it
//! costs nobody else a connection.

use tidegate_client::{
    Outcome,
    proto::{self, value::Kind},
};
use tonic::Code;

use crate::{
    asking::{
        Stub, ask, backends, context, failure, int, primary_alone, read_request, statement, stub, tell, text,
        write_request,
    },
    harness::Bed,
};

/// A call that must fail, and how.
struct Case {
    what: &'static str,
    call: Call,
    code: Code,
    reason: &'static str,
    field: &'static str,
    outcome: Outcome,
    /// Parts of the message.
    says: &'static [&'static str],
}

enum Call {
    Read(proto::ExecuteReadRequest),
    Write(proto::ExecuteWriteRequest),
}

/// Fails before anything ran.
fn refused(
    (what, call): (&'static str, Call),
    (code, reason, field): (Code, &'static str, &'static str),
    says: &'static [&'static str],
) -> Case {
    Case { what, call, code, reason, field, outcome: Outcome::NotExecuted, says }
}

/// Fails in PostgreSQL.
fn undone(case: Case) -> Case {
    Case { outcome: Outcome::RolledBack, ..case }
}

fn read(sql: &'static str, params: Vec<proto::Value>) -> (&'static str, Call) {
    (sql, Call::Read(read_request(sql, params)))
}

fn write(sql: &'static str, params: Vec<proto::Value>) -> (&'static str, Call) {
    (sql, Call::Write(write_request(sql, params)))
}

fn read_with(what: &'static str, change: impl FnOnce(&mut proto::ExecuteReadRequest)) -> (&'static str, Call) {
    let mut request = read_request("SELECT 1", vec![]);
    change(&mut request);
    (what, Call::Read(request))
}

fn write_with(what: &'static str, change: impl FnOnce(&mut proto::ExecuteWriteRequest)) -> (&'static str, Call) {
    let mut request = write_request("INSERT INTO things VALUES (1, NULL, NULL)", vec![]);
    change(&mut request);
    (what, Call::Write(request))
}

fn in_context(change: impl FnOnce(&mut proto::CallContext)) -> Option<proto::CallContext> {
    context().map(|mut context| {
        change(&mut context);
        context
    })
}

fn unset() -> proto::Value {
    proto::Value { kind: None }
}

fn array(elements: Vec<proto::Value>) -> proto::Value {
    proto::Value { kind: Some(Kind::ArrayValue(proto::ArrayValue { elements, ..Default::default() })) }
}

const INVALID: Code = Code::InvalidArgument;

fn texts_and_contexts() -> Vec<Case> {
    let missing = (INVALID, "SQL_MISSING", "statement.sql");
    vec![
        refused(
            read_with("unknown database", |r| r.context = in_context(|c| c.database = "nowhere".into())),
            (Code::NotFound, "DATABASE_UNKNOWN", "context.database"),
            &["nowhere", "app"],
        ),
        refused(
            read_with("oversize session id", |r| r.context = in_context(|c| c.session_id = "s".repeat(129))),
            (INVALID, "FIELD_INVALID", "context.session_id"),
            &["129", "128"],
        ),
        refused(
            read_with("a token that is none", |r| r.context = in_context(|c| c.positions = vec!["nonsense".into()])),
            (INVALID, "POSITION_MALFORMED", "context.positions"),
            &[],
        ),
        refused(
            read_with("too many tokens", |r| r.context = in_context(|c| c.positions = vec![String::new(); 257])),
            (INVALID, "FIELD_INVALID", "context.positions"),
            &["257", "256"],
        ),
        refused(read_with("no statement", |r| r.statement = None), (INVALID, "FIELD_MISSING", "statement"), &["sql"]),
        refused(
            write_with("no statements", |r| r.statements.clear()),
            (INVALID, "FIELD_MISSING", "statements"),
            &["at least one"],
        ),
        refused(read("", vec![]), missing, &[]),
        refused(read(" \n\t ; ;", vec![]), missing, &[]),
        refused(read("-- nothing\n/* and /* nothing */ */", vec![]), missing, &[]),
        refused(
            write_with("an empty second statement", |r| r.statements.push(statement("/**/", vec![]))),
            (INVALID, "SQL_MISSING", "statements[1].sql"),
            &[],
        ),
        refused(
            read("SELECT 1; SELECT 2", vec![]),
            (INVALID, "SQL_MULTIPLE_STATEMENTS", "statement.sql"),
            &["ExecuteWrite"],
        ),
        refused(
            write("INSERT INTO things VALUES (1); DROP TABLE things", vec![]),
            (INVALID, "SQL_MULTIPLE_STATEMENTS", "statements[0].sql"),
            &[],
        ),
        refused(write("VACUUM", vec![]), (INVALID, "OUTSIDE_TRANSACTION_REQUIRED", "statements[0].sql"), &[]),
        refused(
            write_with("two statements outside a transaction", |r| {
                r.statements.push(r.statements[0].clone());
                r.outside_transaction = true;
            }),
            (INVALID, "FIELD_INVALID", "outside_transaction"),
            &["exactly one"],
        ),
    ]
}

fn refused_statements() -> Vec<Case> {
    let texts = [
        ("BEGIN", "Session"),
        ("commit", "Session"),
        ("/* sly */ ROLLBACK", "Session"),
        ("SAVEPOINT s", "savepoint"),
        ("SET search_path = evil", "leak"),
        ("SET LOCAL transaction_read_only = off", "leak"),
        ("RESET ALL", "leak"),
        ("COPY things FROM STDIN", "copy_in"),
        ("LISTEN gossip", "Listen"),
        ("PREPARE p AS SELECT 1", "prepares it"),
        ("DISCARD ALL", "leak"),
    ];
    let both = texts.into_iter().flat_map(|(sql, says)| {
        let says: &'static [&'static str] = vec![says].leak();
        [
            refused(read(sql, vec![]), (INVALID, "SQL_REFUSED", "statement.sql"), says),
            refused(write(sql, vec![]), (INVALID, "SQL_REFUSED", "statements[0].sql"), says),
        ]
    });
    both.collect()
}

fn parameters() -> Vec<Case> {
    let type_of = |field| (INVALID, "PARAMETER_TYPE", field);
    vec![
        refused(
            read("SELECT $1::int + $2::int", vec![int(1)]),
            (INVALID, "PARAMETER_COUNT", "statement.params"),
            &["2", "1"],
        ),
        refused(
            write("DELETE FROM things", vec![int(1)]),
            (INVALID, "PARAMETER_COUNT", "statements[0].params"),
            &["0", "1"],
        ),
        refused(
            read("SELECT $1::int, $2::text", vec![int(1), unset()]),
            (INVALID, "VALUE_UNSET", "statement.params[1]"),
            &["$2", "NULL"],
        ),
        refused(
            read("SELECT $1::int[]", vec![array(vec![int(1), unset()])]),
            (INVALID, "VALUE_UNSET", "statement.params[0]"),
            &["$1"],
        ),
        refused(
            read("SELECT $1::int", vec![text("one")]),
            type_of("statement.params[0]"),
            &["$1", "int4", "text_value"],
        ),
        refused(
            read("SELECT $1::int2", vec![int(70_000)]),
            type_of("statement.params[0]"),
            &["$1", "int2", "int64_value"],
        ),
        refused(
            write("INSERT INTO things VALUES ($1, $2, NULL)", vec![int(1), int(7)]),
            type_of("statements[0].params[1]"),
            &["$2", "date", "int64_value"],
        ),
        // Only the server can tell.
        undone(refused(
            read("SELECT $1::int, $2::date", vec![int(1), text("2024-13-45")]),
            type_of("statement.params[1]"),
            &["$2", "date", "text_value", "out of range"],
        )),
        undone(refused(
            write("INSERT INTO things VALUES (1, $1, NULL)", vec![text("2024-13-45")]),
            type_of("statements[0].params[0]"),
            &["$1", "date", "text_value", "out of range"],
        )),
        undone(refused(
            write("INSERT INTO things VALUES (1, NULL, $1) RETURNING id", vec![text("furious")]),
            type_of("statements[0].params[0]"),
            &["$1", "mood", "text_value"],
        )),
    ]
}

fn writes_in_reads() -> Vec<Case> {
    let texts = [
        "INSERT INTO things VALUES (1, NULL, NULL)",
        "WITH gone AS (DELETE FROM things RETURNING id) SELECT * FROM gone",
        "SELECT * INTO copied FROM things",
        "SELECT nextval('numbers')",
        "CREATE TABLE made (id int)",
        "CREATE TEMP TABLE made (id int)",
        "DO $$ BEGIN INSERT INTO things VALUES (1, NULL, NULL); END $$",
        "SELECT write_a_thing()",
        "EXPLAIN ANALYZE INSERT INTO things VALUES (1, NULL, NULL)",
        "SELECT id FROM things FOR UPDATE",
        "TRUNCATE things",
    ];
    let says: &[&str] = &["ExecuteWrite"];
    let mut cases: Vec<_> =
        texts.into_iter().map(|sql| undone(refused(read(sql, vec![]), (INVALID, "WRITE_IN_READ", ""), says))).collect();
    cases.push(refused(read("VACUUM", vec![]), (INVALID, "WRITE_IN_READ", "statement.sql"), says));
    // PostgreSQL does not let a transaction that has begun to read become a writing one.
    for sql in [
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT set_config('transaction_read_only', 'off', false), write_a_thing()",
        "DO $$ BEGIN SET LOCAL transaction_read_only = off; INSERT INTO things VALUES (1, NULL, NULL); END $$",
    ] {
        cases.push(undone(refused(
            read(sql, vec![]),
            (Code::FailedPrecondition, "POSTGRES_ERROR", ""),
            &["before any query"],
        )));
    }
    cases
}

fn unsupported() -> Vec<Case> {
    let options = |change: fn(&mut proto::ReadOptions)| {
        move |request: &mut proto::ExecuteReadRequest| change(request.options.get_or_insert_default())
    };
    let type_ = |name| (Code::Unimplemented, "TYPE_UNSUPPORTED", name);
    vec![
        refused(
            read_with("max_wait", options(|o| o.max_wait = Some(prost_types::Duration { seconds: -1, nanos: 0 }))),
            (INVALID, "FIELD_INVALID", "options.max_wait"),
            &["options.max_wait", "negative"],
        ),
        refused(
            read_with(
                "max_wait with STRONG",
                options(|o| {
                    o.set_consistency(proto::Consistency::Strong);
                    o.max_wait = Some(prost_types::Duration { seconds: 1, nanos: 0 });
                }),
            ),
            (INVALID, "FIELD_INVALID", "options.max_wait"),
            &["CONSISTENCY_SESSION"],
        ),
        refused(
            read_with("BOUNDED without a bound", options(|o| o.set_consistency(proto::Consistency::Bounded))),
            (INVALID, "FIELD_MISSING", "options.max_staleness"),
            &[],
        ),
        refused(
            read_with("a bound without BOUNDED", options(|o| o.max_staleness = Some(Default::default()))),
            (INVALID, "FIELD_INVALID", "options.max_staleness"),
            &[],
        ),
        refused(
            read_with("too small a message", options(|o| o.max_message_bytes = 1)),
            (INVALID, "FIELD_INVALID", "options.max_message_bytes"),
            &[],
        ),
        refused(
            write_with("too long a key", |r| r.idempotency_key = "k".repeat(256)),
            (INVALID, "FIELD_INVALID", "idempotency_key"),
            &["256", "255"],
        ),
        refused(
            read("SELECT worth AS \"the worth\" FROM things", vec![]),
            type_("statement.sql"),
            &["money", "\"the worth\"::text"],
        ),
        refused(
            write("INSERT INTO things VALUES (1) RETURNING worth", vec![]),
            type_("statements[0].sql"),
            &["money", "lc_monetary"],
        ),
    ]
}

fn settings() -> Vec<Case> {
    let with =
        |name: &'static str, value: &'static str| in_context(|c| drop(c.settings.insert(name.into(), value.into())));
    let mut cases = Vec::new();
    for (name, field) in [
        ("role", r#"context.settings["role"]"#),
        ("session_authorization", r#"context.settings["session_authorization"]"#),
        ("transaction_read_only", r#"context.settings["transaction_read_only"]"#),
        ("search_path", r#"context.settings["search_path"]"#),
        ("TimeZone", r#"context.settings["TimeZone"]"#),
        ("app.a'b", r#"context.settings["app.a'b"]"#),
    ] {
        let is = (INVALID, "FIELD_INVALID", field);
        let says: &[&str] = &["app.tenant", "statement_timeout"];
        cases.push(refused(read_with("a setting of a read", |r| r.context = with(name, "x")), is, says));
        cases.push(refused(write_with("a setting of a write", |r| r.context = with(name, "x")), is, says));
    }
    // What only PostgreSQL can judge: nothing of the statement runs.
    let is = (INVALID, "POSTGRES_ERROR", "context.settings");
    let write = "INSERT INTO things VALUES (1, NULL, NULL)";
    for (name, says) in [("work_mem", &["work_mem"] as &[_]), ("statement_timeout", &["statement_timeout"])] {
        cases.push(undone(refused(read_with("a read's value", |r| r.context = with(name, "lots")), is, says)));
        let mut request = write_request(write, vec![]);
        request.context = with(name, "lots");
        cases.push(undone(refused(("a write's value", Call::Write(request)), is, says)));
    }
    let mut vacuum = write_request("VACUUM things", vec![]);
    (vacuum.context, vacuum.outside_transaction) = (with("app.tenant", "7"), true);
    let is = (INVALID, "FIELD_INVALID", "outside_transaction");
    cases.push(refused(("settings without a transaction", Call::Write(vacuum)), is, &["context.settings"]));
    cases
}

async fn expect(stub: &mut Stub, case: Case) {
    let status = match case.call {
        Call::Read(request) => stub.execute_read(request).await.err(),
        Call::Write(request) => stub.execute_write(request).await.err(),
    };
    let status = status.unwrap_or_else(|| panic!("{}: it succeeded", case.what));
    let error = tidegate_client::Error::from(status);
    let failure = failure(&error);
    let is = (failure.code, failure.reason.as_str(), failure.field.as_str(), failure.outcome);
    assert_eq!(is, (case.code, case.reason, case.field, case.outcome), "{}: {failure}", case.what);
    for part in case.says {
        assert!(failure.message.contains(part), "{}: {part} is not in {:?}", case.what, failure.message);
    }
}

pub async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    let client = bed.client().await;
    for sql in [
        "CREATE TYPE mood AS ENUM ('calm', 'cross')",
        "CREATE TABLE things (id int, made date, mood mood, worth money)",
        "CREATE SEQUENCE numbers",
        "CREATE FUNCTION write_a_thing() RETURNS int LANGUAGE sql AS 'INSERT INTO things VALUES (1) RETURNING id'",
    ] {
        client.execute(sql, []).await.expect(sql);
    }
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_named_and_costs_nobody_a_connection() {
    let bed = start().await;
    let (client, mut stub) = (bed.client().await, stub(&bed).await);
    let pid = "SELECT pg_backend_pid()";
    let before = (ask(&client, pid).await.expect("a read"), tell(&client, pid).await.expect("a write"));
    let cases =
        [texts_and_contexts(), refused_statements(), parameters(), writes_in_reads(), unsupported(), settings()];
    for case in cases.into_iter().flatten() {
        expect(&mut stub, case).await;
    }
    let after = (ask(&client, pid).await.expect("a read"), tell(&client, pid).await.expect("a write"));
    assert_eq!(after, before, "the same backends serve: ordinary failures cost no connection");
    assert_eq!(backends(bed.cluster.primary(), "state LIKE 'idle in transaction%'").await, 0);
    assert_eq!(ask(&client, "SELECT count(*) FROM things").await.expect("a read"), "0", "nothing was written");
}
