//! Nothing leaks from one caller to the next on one connection, whatever the first one did to it.

use tidegate_client::{Begin, Client};

use crate::{
    asking::{ask, primary_alone, tell},
    harness::Bed,
};

/// What one caller does, and a question whose answer must be the same for the next caller as for the first one ever.
struct Leak {
    does: &'static [&'static str],
    question: &'static str,
    /// What a connection that nobody touched answers.
    fresh: &'static str,
    /// Possible in a read-only transaction.
    in_read: bool,
}

const fn leak(does: &'static [&'static str], question: &'static str, fresh: &'static str) -> Leak {
    Leak { does, question, fresh, in_read: true }
}

const fn written(does: &'static [&'static str], question: &'static str, fresh: &'static str) -> Leak {
    Leak { does, question, fresh, in_read: false }
}

/// A flat table.
const LEAKS: &[Leak] = &[
    leak(
        &["SELECT set_config('application_name', 'mine', false)"],
        "SELECT current_setting('application_name')",
        "tidegate",
    ),
    leak(
        &["SELECT set_config('search_path', 'evil', false)"],
        "SELECT current_setting('search_path')",
        r#""$user", public"#,
    ),
    leak(
        &["SELECT set_config('app.tenant', '7', false)"],
        "SELECT coalesce(current_setting('app.tenant', true), '')",
        "",
    ),
    leak(&["SELECT set_config('statement_timeout', '1', false)"], "SELECT current_setting('statement_timeout')", "0"),
    leak(&["SELECT set_config('role', 'pg_monitor', false)"], "SELECT current_user::text", "tidegate"),
    leak(&["DO $$ BEGIN SET SESSION ROLE pg_monitor; END $$"], "SELECT current_user::text", "tidegate"),
    leak(&["DO $$ BEGIN SET TimeZone = 'Asia/Tokyo'; END $$"], "SELECT current_setting('TimeZone')", "UTC"),
    leak(
        &["DO $$ BEGIN PERFORM pg_advisory_lock(4711); END $$"],
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "0",
    ),
    leak(
        &["DO $$ BEGIN PREPARE mine AS SELECT 1; END $$"],
        "SELECT count(*) FROM pg_prepared_statements WHERE from_sql",
        "0",
    ),
    leak(
        &["DO $$ BEGIN EXECUTE 'DECLARE mine CURSOR WITH HOLD FOR SELECT 1'; END $$"],
        "SELECT count(*) FROM pg_cursors WHERE is_holdable",
        "0",
    ),
    written(&["DO $$ BEGIN LISTEN gossip; END $$"], "SELECT count(*) FROM pg_listening_channels()", "0"),
    written(
        &["CREATE TEMP TABLE secrets (n int)"],
        "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
        "0",
    ),
    written(&["CREATE TEMP VIEW orders AS SELECT -1 AS n"], "SELECT n FROM orders", "1"),
    written(
        &["CREATE FUNCTION pg_temp.spy() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
        "SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()",
        "0",
    ),
    written(
        &["SELECT set_config('role', 'pg_monitor', false)", "SELECT set_config('search_path', 'evil', false)"],
        "SELECT current_user || current_setting('search_path')",
        r#"tidegate"$user", public"#,
    ),
];

async fn start() -> Bed {
    // One connection for writes and, through the fallback's share, one for reads: the next caller gets the same.
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    let client = bed.client().await;
    for sql in ["CREATE TABLE orders (n int)", "INSERT INTO orders VALUES (1)", "CREATE SEQUENCE numbers"] {
        client.execute(sql, []).await.expect(sql);
    }
    bed
}

const PID: &str = "SELECT pg_backend_pid()";

#[derive(Clone, Copy, Debug)]
enum Through {
    Read,
    Write,
    Session,
}

/// Does something, alone or inside a transaction of a session. Failing is fine: nothing may leak either way.
async fn act(client: &Client, through: Through, sql: &[&'static str]) {
    match through {
        Through::Read => {
            for sql in sql {
                let _ = ask_any(client, sql).await;
            }
        }
        Through::Write => {
            client.write(sql.iter().map(|sql| (*sql).into())).await.unwrap_or_else(|error| panic!("{sql:?}: {error}"));
        }
        Through::Session => {
            let mut session = client.session().await.expect("the session opens");
            let mut transaction = session.begin(Begin::new()).await.expect("it begins");
            for sql in sql {
                transaction.write(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
            transaction.commit().await.expect("it commits");
            session.close().await.expect("the session ends well");
        }
    }
}

async fn ask_any(client: &Client, sql: &str) -> Result<(), tidegate_client::Error> {
    client.read(sql, []).await?.rows().await.map(drop)
}

/// The question's answer and the backend that gave it, over the pool that was used before.
async fn answer(client: &Client, through: Through, question: &str) -> (String, String) {
    let (answer, pid) = match through {
        Through::Read => (ask(client, question).await, ask(client, PID).await),
        Through::Write | Through::Session => (tell(client, question).await, tell(client, PID).await),
    };
    (answer.unwrap_or_else(|error| panic!("{question}: {error}")), pid.expect("a pid"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_caller_did_to_a_connection_the_next_caller_never_sees() {
    let bed = start().await;
    for leak in LEAKS {
        for through in [Through::Read, Through::Write, Through::Session] {
            if matches!(through, Through::Read) && !leak.in_read {
                continue;
            }
            let (one, next) = (bed.client().await, bed.client().await);
            let (before, pid) = answer(&one, through, leak.question).await;
            assert_eq!(before, leak.fresh, "{through:?} {:?}: the question itself", leak.does);
            act(&one, through, leak.does).await;
            let (after, same) = answer(&next, through, leak.question).await;
            assert_eq!(after, leak.fresh, "{through:?} {:?}", leak.does);
            // A connection with prepared statements made in SQL is closed instead: they have no common name to drop.
            let is_closed = leak.question.contains("pg_prepared_statements");
            assert_eq!(same == pid, !is_closed, "{through:?} {:?}: which backend serves", leak.does);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_numbers_of_one_caller_cannot_be_foretold_by_another() {
    let bed = start().await;
    let client = bed.client().await;
    for through in [Through::Read, Through::Write] {
        let mut drawn = Vec::new();
        for _ in 0..3 {
            act(&client, through, &["DO $$ BEGIN PERFORM setseed(0.5); END $$"]).await;
            drawn.push(answer(&client, through, "SELECT random()::text").await);
        }
        assert_eq!(drawn[0].1, drawn[2].1, "the same backend serves");
        assert!(drawn[0].0 != drawn[1].0 && drawn[1].0 != drawn[2].0, "{through:?}: {drawn:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sequence_values_of_one_caller_are_not_the_nexts() {
    let bed = start().await;
    let client = bed.client().await;
    let (_, pid) = answer(&client, Through::Write, "SELECT nextval('numbers')").await;
    for question in ["SELECT lastval()", "SELECT currval('numbers')"] {
        let error = tell(&client, question).await.expect_err(question);
        assert_eq!(error.sqlstate(), Some("55000"), "{question}: {error}");
    }
    assert_eq!(tell(&client, PID).await.expect("a pid"), pid, "the same backend serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_makes_later_reads_of_its_connection_writable() {
    let bed = start().await;
    let client = bed.client().await;
    let pid = ask(&client, PID).await.expect("a pid");
    for sql in [
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT set_config('default_transaction_read_only', 'off', true)",
        "DO $$ BEGIN SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; END $$",
        "DO $$ BEGIN SET default_transaction_read_only = off; END $$",
    ] {
        ask_any(&client, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let set = ask(&client, "SELECT current_setting('default_transaction_read_only')").await.expect("a setting");
        assert_eq!(set, "on", "{sql}");
        let error = ask_any(&client, "INSERT INTO orders VALUES (2)").await.expect_err("a write");
        assert_eq!(error.reason(), "WRITE_IN_READ", "{sql}");
    }
    assert_eq!(ask(&client, PID).await.expect("a pid"), pid, "the same backend serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_whose_effects_would_stay_are_refused_by_name() {
    let bed = start().await;
    let client = bed.client().await;
    let refused = |error: tidegate_client::Error, names: &str| {
        let is = (error.reason(), error.to_string().contains(names));
        assert_eq!(is, ("SQL_REFUSED", true), "{error}");
    };
    let (lock, stop) = ("SELECT pg_try_advisory_lock(1)", "SELECT pg_terminate_backend(pg_backend_pid())");
    refused(ask(&client, lock).await.expect_err("in a read"), "pg_advisory_xact_lock");
    refused(tell(&client, lock).await.expect_err("in a write"), "pg_advisory_xact_lock");
    refused(tell(&client, stop).await.expect_err("in a write"), "pg_terminate_backend");
    refused(ask(&client, "SELECT setseed(0.5)::text").await.expect_err("in a read"), "setseed");
    refused(ask(&client, "NOTIFY gossip").await.expect_err("in a read"), "NOTIFY");

    let mut session = client.session().await.expect("the session opens");
    refused(session.write(lock, []).await.map(drop).expect_err("outside a transaction"), "pg_advisory_xact_lock");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write(lock, []).await.expect("the transaction's end unlocks");
    refused(transaction.write(stop, []).await.map(drop).expect_err("anywhere"), "pg_terminate_backend");
    transaction.write(lock, []).await.expect("what was refused was not sent: the transaction goes on");
    transaction.commit().await.expect("it commits");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(tell(&client, held).await.expect("a count"), "0");
}
