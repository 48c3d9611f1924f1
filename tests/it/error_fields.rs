//! Every diagnostic field of PostgreSQL reaches the caller: whole where there is room, else cut between characters and
//! marked; in a status and in a session's message alike.

use tidegate_client::{Client, Error, proto::PostgresError};

use crate::{
    asking::{failure, primary_alone, tell},
    harness::Bed,
};

const SCHEMA: &[&str] = &[
    "CREATE TABLE flags (id int PRIMARY KEY, name text NOT NULL)",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE FUNCTION outer_one() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN inner_one(); END $$",
    "CREATE FUNCTION inner_one() RETURNS int LANGUAGE plpgsql AS \
       $$ BEGIN EXECUTE 'SELECT ''ö'', nonsense'; RETURN 1; END $$",
    "CREATE FUNCTION tell_all(size int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING \
       message = repeat('m', size), detail = repeat('日', size), hint = repeat('% ', size), errcode = 'TD001', \
       column = repeat('c', size), constraint = repeat('ö', size), datatype = 'dt', table = 'tt', schema = 'ss'; END $$",
];

async fn start() -> (Bed, Client) {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let client = bed.client().await;
    for statement in SCHEMA {
        tell(&client, statement).await.expect(statement);
    }
    (bed, client)
}

fn postgres(error: &Error) -> &PostgresError {
    failure(error).postgres.as_ref().expect("PostgreSQL's part")
}

async fn failing(client: &Client, sql: &str) -> PostgresError {
    postgres(&client.execute(sql, []).await.map(drop).expect_err(sql)).clone()
}

/// The places in PostgreSQL's source are another matter with each version.
fn without_source(mut error: PostgresError) -> PostgresError {
    assert!(error.file.ends_with(".c") && error.line > 0 && !error.routine.is_empty(), "{error:?}");
    (error.file, error.line, error.routine) = Default::default();
    error
}

fn expected(sqlstate: &str, message: &str) -> PostgresError {
    let (sqlstate, severity) = (sqlstate.into(), "ERROR".into());
    PostgresError { sqlstate, severity, message: message.into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_of_a_real_error_arrives() {
    let (_bed, client) = start().await;
    tell(&client, "INSERT INTO flags VALUES (1, 'one')").await.expect("a row");
    let twice = failing(&client, "INSERT INTO flags VALUES (1, 'two')").await;
    let wanted = PostgresError {
        detail: "Key (id)=(1) already exists.".into(),
        schema: "public".into(),
        table: "flags".into(),
        constraint: "flags_pkey".into(),
        ..expected("23505", "duplicate key value violates unique constraint \"flags_pkey\"")
    };
    assert_eq!(without_source(twice), wanted);

    let null = failing(&client, "INSERT INTO flags VALUES (2, NULL)").await;
    assert_eq!((null.column.as_str(), null.table.as_str(), null.sqlstate.as_str()), ("name", "flags", "23502"));
    assert_eq!(null.detail, "Failing row contains (2, null).");

    let domain = failing(&client, "SELECT (0 - 1)::positive").await;
    assert_eq!((domain.data_type.as_str(), domain.constraint.as_str()), ("positive", "positive_check"));

    // In characters, not bytes.
    let column = failing(&client, "SELECT 'öä', nonsense FROM flags").await;
    assert_eq!((column.position, column.internal_position), (14, 0), "{column:?}");
    let function = failing(&client, "SELECT no_such_function(1)").await;
    assert!(function.hint.contains("No function matches"), "{function:?}");

    let within = without_source(failing(&client, "SELECT outer_one()").await);
    assert_eq!((within.position, within.internal_position), (0, 13), "{within:?}");
    assert_eq!(within.internal_query, "SELECT 'ö', nonsense");
    let calls: Vec<_> = within.context.lines().collect();
    assert!(calls[0].contains("inner_one()") && calls[calls.len() - 1].contains("outer_one()"), "{calls:?}");
    assert!(!within.truncated);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_are_cut_and_marked_in_a_status_and_whole_in_a_session() {
    let (_bed, client) = start().await;
    let short = failing(&client, "SELECT tell_all(3)").await;
    assert_eq!((short.message.as_str(), short.detail.as_str(), short.hint.as_str()), ("mmm", "日日日", "% % % "));
    assert_eq!((short.schema.as_str(), short.table.as_str(), short.data_type.as_str()), ("ss", "tt", "dt"));
    assert!(!short.truncated);

    for size in [500, 5_000] {
        let sql = format!("SELECT tell_all({size})");
        let long = failing(&client, &sql).await;
        assert!(long.truncated, "{long:?}");
        assert_eq!((long.sqlstate.as_str(), long.schema.as_str()), ("TD001", "ss"), "what is short stays whole");
        for (text, of) in [(&long.message, 'm'), (&long.detail, '日'), (&long.constraint, 'ö')] {
            let start = text.strip_suffix('…').unwrap_or_else(|| panic!("not marked: {text}"));
            assert!(start.chars().all(|c| c == of) && start.len() > 50, "cut between characters: {text}");
        }
        let mut session = client.session().await.expect("the session opens");
        let error = session.write(&sql, []).await.map(drop).expect_err("it raises");
        let whole = postgres(&error);
        assert_eq!(whole.message.len(), size);
        // 16 KiB each, there.
        assert_eq!(whole.detail.chars().count() == size, size * 3 <= 16 << 10, "{}", whole.detail.len());
        assert_eq!(whole.truncated, size * 3 > 16 << 10);
    }
}
