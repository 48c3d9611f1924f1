//! What is said to have become of the work when PostgreSQL reports an error: every kind of call, each kind of error, with
//! its code, SQLSTATE and statement; and the rows are counted.

use tidegate_client::{Begin, Client, Error, Isolation, Outcome, Statement, WriteOptions};
use tonic::Code;

use crate::{
    asking::{ask, failure, primary_alone},
    harness::{Bed, read_int},
};

/// A statement that writes and fails.
struct Kind {
    sql: &'static str,
    sqlstate: &'static str,
    code: Code,
    when: When,
}

/// When PostgreSQL finds out.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// As it parses: nothing has run.
    Preparing,
    Running,
    /// At the end of the statement's transaction.
    Committing,
}

const fn kind(sql: &'static str, sqlstate: &'static str, code: Code, when: When) -> Kind {
    Kind { sql, sqlstate, code, when }
}

const KINDS: &[Kind] = &[
    kind("INSERT INTO marks VALUES (0)", "23505", Code::AlreadyExists, When::Running),
    kind("INSERT INTO marks VALUES (-1)", "23514", Code::FailedPrecondition, When::Running),
    kind("INSERT INTO marks VALUES (NULL)", "23502", Code::FailedPrecondition, When::Running),
    kind("INSERT INTO marks SELECT 1 / n FROM marks WHERE n = 0", "22012", Code::InvalidArgument, When::Running),
    kind("INSERT INTO marks SELECT 100 + raise('40001')", "40001", Code::Aborted, When::Running),
    kind("INSERT INTO marks SELECT 100 + raise('P0001')", "P0001", Code::FailedPrecondition, When::Running),
    kind("INSERT INTO marks SELECT 100 + raise('57014')", "57014", Code::Cancelled, When::Running),
    kind("INSERT INTO marks SELECT 100 + raise('08006')", "08006", Code::Unavailable, When::Running),
    kind("INSERT INTO theirs VALUES (1)", "42501", Code::PermissionDenied, When::Running),
    kind("INSERT INTO nowhere VALUES (1)", "42P01", Code::NotFound, When::Preparing),
    kind("INSERT INTO marks VALUES (1", "42601", Code::InvalidArgument, When::Preparing),
    kind("INSERT INTO children VALUES (99)", "23503", Code::FailedPrecondition, When::Committing),
];

const SCHEMA: &str = "CREATE TABLE marks (n int PRIMARY KEY CHECK (n >= 0)); INSERT INTO marks VALUES (0); \
    CREATE TABLE children (n int REFERENCES marks DEFERRABLE INITIALLY DEFERRED); \
    CREATE FUNCTION raise(code text) RETURNS int LANGUAGE plpgsql AS \
      $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = code; END $$; \
    CREATE PROCEDURE keep_and_fail() LANGUAGE plpgsql AS \
      $$ BEGIN INSERT INTO marks VALUES (500); COMMIT; PERFORM 1 / 0; END $$; \
    GRANT ALL ON marks, children TO tidegate; \
    CREATE TABLE theirs (n int); REVOKE ALL ON theirs FROM PUBLIC; \
    CREATE TABLE twins (n int); INSERT INTO twins VALUES (1), (1); ALTER TABLE twins OWNER TO tidegate;";

async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    bed.cluster.primary().sql(SCHEMA).await.expect("the schema is made");
    bed
}

/// The rows that there are.
async fn marks(client: &Client) -> String {
    ask(client, "SELECT (SELECT count(*) FROM marks) || ' ' || (SELECT count(*) FROM children)").await.expect("a count")
}

/// What was said of one failed call.
fn expect(what: &str, error: &Error, kind: &Kind, outcome: Outcome, statement: Option<u32>) {
    let failure = failure(error);
    let said = (failure.reason.as_str(), error.sqlstate(), failure.code, failure.outcome, failure.statement_index);
    assert_eq!(said, ("POSTGRES_ERROR", Some(kind.sqlstate), kind.code, outcome, statement), "{what}: {failure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_write_that_failed_is_true() {
    let bed = start().await;
    let client = bed.client().await;
    let before = marks(&client).await;
    for kind in KINDS {
        let (of_first, at_commit) = match kind.when {
            When::Preparing => (Outcome::NotExecuted, false),
            When::Running => (Outcome::RolledBack, false),
            When::Committing => (Outcome::RolledBack, true),
        };
        let with_rows = format!("{} RETURNING n", kind.sql);
        let alone = || vec![Statement::new(kind.sql)];
        let behind = || vec![Statement::new("INSERT INTO marks VALUES (200)"), Statement::new(kind.sql)];
        let serializable = WriteOptions::new().isolation(Isolation::Serializable);
        let forms = [
            // Alone, its commit is its own; in a transaction no statement is to blame for what COMMIT finds.
            ("alone", alone(), WriteOptions::new(), of_first, Some(0)),
            (
                "alone, with rows",
                vec![Statement::new(with_rows)],
                WriteOptions::new(),
                of_first,
                Some(0).filter(|_| !at_commit),
            ),
            ("serializable", alone(), serializable, of_first, Some(0).filter(|_| !at_commit)),
            ("behind another", behind(), WriteOptions::new(), Outcome::RolledBack, Some(1).filter(|_| !at_commit)),
        ];
        for (form, statements, options, outcome, statement) in forms {
            let what = format!("{form}: {}", kind.sql);
            let error = client.write_with(statements, options).await.map(drop).expect_err(&what);
            expect(&what, &error, kind, outcome, statement);
            assert_eq!(marks(&client).await, before, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_session_that_failed_is_true() {
    let bed = start().await;
    let client = bed.client().await;
    let before = marks(&client).await;
    for kind in KINDS {
        let what = kind.sql;
        let mut session = client.session().await.expect("the session opens");
        let error = session.write(kind.sql, []).await.map(drop).expect_err(what);
        let outcome = if kind.when == When::Preparing { Outcome::NotExecuted } else { Outcome::RolledBack };
        expect(what, &error, kind, outcome, Some(0));

        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        transaction.write("INSERT INTO marks VALUES (300)", []).await.expect("it is written");
        let failed = transaction.write(kind.sql, []).await;
        if kind.when == When::Committing {
            failed.expect("nothing is wrong yet");
            let error = transaction.commit().await.expect_err(what);
            expect(what, &error, kind, Outcome::RolledBack, None);
        } else {
            expect(what, &failed.map(drop).expect_err(what), kind, Outcome::RolledBack, None);
            let error = transaction.write("INSERT INTO marks VALUES (301)", []).await.expect_err("it has failed");
            assert_eq!((error.reason(), failure(&error).outcome), ("TRANSACTION_FAILED", Outcome::NotExecuted));
            let error = transaction.commit().await.expect_err("a failed transaction is not committed");
            assert_eq!((error.reason(), error.code()), ("TRANSACTION_FAILED", Code::FailedPrecondition));
            assert_eq!(failure(&error).outcome, Outcome::NotExecuted);
        }
        session.close().await.expect("the session ends well");
        assert_eq!(marks(&client).await, before, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_commits_by_itself_and_what_only_reads_say_so_too() {
    let bed = start().await;
    let client = bed.client().await;
    let before = marks(&client).await;
    // A procedure may commit, and fail later: it runs inside of a transaction, where it cannot.
    for call in ["CALL keep_and_fail()", "DO $$ BEGIN INSERT INTO marks VALUES (500); COMMIT; PERFORM 1 / 0; END $$"] {
        let error = client.execute(call, []).await.map(drop).expect_err(call);
        let cannot = kind(call, "2D000", Code::FailedPrecondition, When::Running);
        expect(call, &error, &cannot, Outcome::RolledBack, Some(0));
        assert_eq!(marks(&client).await, before, "{call}");
    }
    // Outside of a transaction a part may stay behind; here an index that nobody can use.
    let index = "CREATE UNIQUE INDEX CONCURRENTLY twins_n ON twins (n)";
    let options = WriteOptions::new().outside_transaction();
    let error = client.write_with([Statement::new(index)], options).await.map(drop).expect_err("there are two");
    expect(index, &error, &kind(index, "23505", Code::AlreadyExists, When::Running), Outcome::Unknown, Some(0));
    let left = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(ask(&client, left).await.expect("a count"), "1");

    let reads = [
        kind("SELECT 1 / n FROM marks WHERE n = 0", "22012", Code::InvalidArgument, When::Running),
        kind("SELECT raise('53200')", "53200", Code::ResourceExhausted, When::Running),
        kind("SELECT * FROM nowhere", "42P01", Code::NotFound, When::Preparing),
        kind("SELECT * FROM theirs", "42501", Code::PermissionDenied, When::Running),
    ];
    for kind in &reads {
        let error = client.read(kind.sql, []).await.map(drop).expect_err(kind.sql);
        let outcome = if kind.when == When::Preparing { Outcome::NotExecuted } else { Outcome::RolledBack };
        expect(kind.sql, &error, kind, outcome, None);
    }
    let writes = client.read("WITH new AS (INSERT INTO marks VALUES (7) RETURNING n) SELECT n FROM new", []).await;
    let error = writes.map(drop).expect_err("a read does not write");
    let said = (error.code(), error.reason(), error.sqlstate(), failure(&error).outcome);
    assert_eq!(said, (Code::InvalidArgument, "WRITE_IN_READ", Some("25006"), Outcome::RolledBack));
    assert_eq!(marks(&client).await, before);
    assert_eq!(read_int(&client, "SELECT 1", Default::default()).await.0, 1, "the connection serves on");
}
