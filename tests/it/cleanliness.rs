//! Which statements count as clean on a real server, whose catalogue may be hostile: nothing of anybody's making may be
//! called behind a name that looks built in.

use serde_json::Value;
use tidegate::{
    app,
    dev::{Cluster, Server},
    postgres::ProbeConnection,
    sql,
};

use crate::{
    asking::primary_alone,
    check_command::tidegate,
    harness::{PATIENCE, config_for},
};

/// What a schema does behind a statement that is clean without it, how to undo it, and what the verdict must name.
struct Trap {
    set: &'static str,
    lift: &'static str,
    statement: &'static str,
    names: &'static str,
}

const fn trap(statement: &'static str, set: &'static str, lift: &'static str, names: &'static str) -> Trap {
    Trap { set, lift, statement, names }
}

const READ: &str = "SELECT o.n, lower(o.name) FROM orders AS o WHERE o.n = $1 AND o.name || 'x' LIKE 'a%'";
const SPY: &str = "LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM set_config('a.b', 'c', false); RETURN NULL; END $$";

/// A flat table. `SPY` stands for the body of a function that changes a setting.
const TRAPS: &[Trap] = &[
    trap(READ, "CREATE FUNCTION lower(varchar) RETURNS text SPY", "DROP FUNCTION lower(varchar)", "lower("),
    trap(
        READ,
        "CREATE FUNCTION pg_catalog.lower(int) RETURNS text SPY",
        "DROP FUNCTION pg_catalog.lower(int)",
        "lower(",
    ),
    trap(READ, "CREATE FUNCTION n(orders) RETURNS int SPY", "DROP FUNCTION n(orders)", "n(orders)"),
    trap(
        READ,
        "CREATE FUNCTION spy(text, int) RETURNS text SPY; \
         CREATE OPERATOR || (LEFTARG = text, RIGHTARG = int, FUNCTION = spy)",
        "DROP OPERATOR || (text, int); DROP FUNCTION spy(text, int)",
        "||(text,integer)",
    ),
    trap(
        READ,
        "CREATE FUNCTION spy(int, bigint) RETURNS bool SPY; \
         CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = bigint, FUNCTION = spy)",
        "DROP OPERATOR public.= (int, bigint); DROP FUNCTION spy(int, bigint)",
        "=(integer,bigint)",
    ),
    trap(
        "SELECT n FROM orders WHERE name NOT IN ('a', 'b')",
        "CREATE FUNCTION spy(varchar, varchar) RETURNS bool SPY; \
         CREATE OPERATOR public.<> (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = spy)",
        "DROP OPERATOR public.<> (varchar, varchar); DROP FUNCTION spy(varchar, varchar)",
        "<>(character varying,character varying)",
    ),
    trap(
        READ,
        "CREATE FUNCTION spy(int) RETURNS text SPY; CREATE CAST (int AS text) WITH FUNCTION spy(int) AS IMPLICIT",
        "DROP CAST (int AS text); DROP FUNCTION spy(int)",
        "cast from integer to text",
    ),
    trap(
        READ,
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
        "row security",
    ),
    trap(
        READ,
        "ALTER TABLE orders RENAME TO real_orders; CREATE VIEW orders AS SELECT * FROM real_orders",
        "DROP VIEW orders; ALTER TABLE real_orders RENAME TO orders",
        "not a plain table",
    ),
    trap(
        READ,
        "CREATE SCHEMA tidegate AUTHORIZATION tidegate; CREATE VIEW tidegate.orders AS SELECT * FROM public.orders",
        "DROP SCHEMA tidegate CASCADE",
        "orders is not a plain table",
    ),
    trap(
        READ,
        "CREATE TYPE mood AS ENUM ('bad'); ALTER TABLE orders ADD mood mood; \
         CREATE FUNCTION spy(mood, mood) RETURNS bool SPY; \
         CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = mood, FUNCTION = spy)",
        "DROP OPERATOR = (mood, mood); DROP FUNCTION spy(mood, mood); ALTER TABLE orders DROP mood; DROP TYPE mood",
        "=(mood,mood)",
    ),
    trap(
        READ,
        "CREATE TYPE mood AS ENUM ('bad'); ALTER TABLE orders ADD moods mood[]; \
         CREATE FUNCTION spy(mood) RETURNS int SPY; CREATE CAST (mood AS int) WITH FUNCTION spy(mood) AS ASSIGNMENT; \
         CREATE FUNCTION spy(mood[]) RETURNS int SPY; CREATE CAST (mood[] AS int) WITH FUNCTION spy(mood[]) AS IMPLICIT",
        "ALTER TABLE orders DROP moods; DROP TYPE mood CASCADE; DROP FUNCTION IF EXISTS spy(mood[])",
        "cast from mood[] to integer",
    ),
    trap(
        READ,
        "CREATE TYPE mood AS ENUM ('bad'); ALTER TABLE orders ADD mood mood; \
         CREATE FUNCTION spy(mood) RETURNS json SPY; CREATE CAST (mood AS json) WITH FUNCTION spy(mood)",
        "ALTER TABLE orders DROP mood; DROP TYPE mood CASCADE",
        "cast from mood to json",
    ),
    trap(
        READ,
        "CREATE TYPE mood AS ENUM ('bad'); ALTER TABLE orders ADD moods mood[]; \
         CREATE FUNCTION spy(mood) RETURNS text SPY; CREATE CAST (mood AS text) WITH FUNCTION spy(mood)",
        "ALTER TABLE orders DROP moods; DROP TYPE mood CASCADE",
        "cast from mood to text",
    ),
    trap(
        READ,
        "CREATE TYPE mood AS ENUM ('bad'); ALTER TABLE orders ADD mood mood; \
         CREATE FUNCTION spy(mood[], mood[]) RETURNS bool SPY; \
         CREATE OPERATOR = (LEFTARG = mood[], RIGHTARG = mood[], FUNCTION = spy)",
        "ALTER TABLE orders DROP mood; DROP TYPE mood CASCADE",
        "=(mood[],mood[])",
    ),
    trap(
        READ,
        "CREATE TYPE two AS (a int, b int); ALTER TABLE orders ADD two two",
        "ALTER TABLE orders DROP two; DROP TYPE two",
        "of type two",
    ),
    trap(
        READ,
        "CREATE DOMAIN positive AS int CHECK (value > 0); ALTER TABLE orders ADD p positive",
        "ALTER TABLE orders DROP p; DROP DOMAIN positive",
        "of type positive",
    ),
    trap(
        READ,
        "CREATE FUNCTION spy(int) RETURNS int SPY; CREATE INDEX spied ON orders (spy(n))",
        "DROP INDEX spied; DROP FUNCTION spy(int)",
        "spied depends on function spy(integer)",
    ),
    trap(
        READ,
        "CREATE FUNCTION spy(int) RETURNS bool SPY; ALTER TABLE orders ADD CONSTRAINT spied CHECK (spy(n))",
        "ALTER TABLE orders DROP CONSTRAINT spied; DROP FUNCTION spy(int)",
        "depends on function spy(integer)",
    ),
    trap(
        READ,
        "CREATE FUNCTION spy(int) RETURNS int SPY; CREATE STATISTICS spied ON (spy(n)), name FROM orders",
        "DROP STATISTICS spied; DROP FUNCTION spy(int)",
        "depends on function spy(integer)",
    ),
    trap(
        READ,
        "CREATE TABLE heir () INHERITS (orders); ALTER TABLE heir ENABLE ROW LEVEL SECURITY",
        "DROP TABLE heir",
        "heir has row security",
    ),
    trap(
        "SELECT m FROM measures",
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere; \
         CREATE FOREIGN TABLE far PARTITION OF measures FOR VALUES IN (9) SERVER nowhere",
        "DROP FOREIGN TABLE far; DROP SERVER nowhere; DROP FOREIGN DATA WRAPPER nowhere",
        "far is not a plain table",
    ),
    trap(
        READ,
        "ALTER ROLE tidegate SET search_path = public, pg_catalog",
        "ALTER ROLE tidegate RESET search_path",
        "search_path does not begin with pg_catalog",
    ),
    trap(
        "SELECT n::text, n::uuid FROM orders",
        "CREATE FUNCTION spy(int) RETURNS uuid SPY; CREATE CAST (int AS uuid) WITH FUNCTION spy(int)",
        "DROP CAST (int AS uuid); DROP FUNCTION spy(int)",
        "cast from integer to uuid",
    ),
    trap(
        "WITH orders AS (SELECT 1 AS n) SELECT n FROM orders",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
        "row security",
    ),
];

/// What speaks against a statement, in one line; empty: it is clean.
async fn verdict(cluster: &Cluster, sql: &str) -> String {
    let footprint = sql::footprint(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
    let config = config_for(cluster);
    let target = app::target(&config.clusters[0].hosts[0], &config);
    let connection = ProbeConnection::open(&target).await.expect("the server accepts connections");
    let objections = connection.objections(&footprint, PATIENCE).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    objections.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

async fn run(server: &Server, sql: &str) {
    server.sql(&sql.replace("SPY", SPY)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn start() -> Cluster {
    let cluster = Cluster::start(primary_alone()).await.expect("the cluster starts");
    for sql in [
        "CREATE TABLE orders (n int, name text, j jsonb, at timestamptz DEFAULT now(), tags text[])",
        "CREATE INDEX ON orders (lower(name)) WHERE n > 0",
        "CREATE TABLE measures (m int) PARTITION BY LIST (m)",
        "CREATE TABLE measures_1 PARTITION OF measures FOR VALUES IN (1)",
        "CREATE TABLE \"Odd \"\"name\" (\"order\" int)",
        // Of no concern: beyond the search path, or between types that no operand has.
        "CREATE SCHEMA elsewhere",
        "CREATE FUNCTION elsewhere.lower(varchar) RETURNS text SPY",
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE FUNCTION same(pair, pair) RETURNS bool SPY",
        "CREATE OPERATOR = (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same)",
        "CREATE TABLE notes (n int)",
        "CREATE FUNCTION on_note() RETURNS trigger SPY",
        "CREATE TRIGGER on_note BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION on_note()",
    ] {
        run(cluster.primary(), sql).await;
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_shadows_is_clean_and_what_somebody_shadows_is_not() {
    let cluster = start().await;
    for sql in [
        READ,
        "SELECT count(*), max(at) FROM orders WHERE j @> '{}' GROUP BY n",
        "SELECT m FROM measures WHERE m = ANY($1)",
        "SELECT name::varchar, n::bigint FROM orders WHERE at > now() - interval '1 day'",
        "SELECT relname FROM pg_catalog.pg_class WHERE relkind = 'r'",
        "SELECT n FROM notes",
        "WITH recent AS (SELECT n FROM orders) SELECT n FROM recent",
        "SELECT t FROM unnest($1::text[]) AS t",
    ] {
        assert_eq!(verdict(&cluster, sql).await, "", "{sql}");
    }
    for Trap { set, lift, statement, names } in TRAPS {
        run(cluster.primary(), set).await;
        let objections = verdict(&cluster, statement).await;
        assert!(objections.contains(names), "{set}: {objections:?}");
        run(cluster.primary(), lift).await;
        assert_eq!(verdict(&cluster, statement).await, "", "after {lift}");
    }
    for (sql, names) in [
        ("SELECT n FROM nowhere", "no relation"),
        ("SELECT n FROM missing.orders", "no relation"),
        ("SELECT setting FROM pg_settings", "not a plain table"),
        ("SELECT datname FROM pg_stat_activity", "not a plain table"),
    ] {
        let objections = verdict(&cluster, sql).await;
        assert!(objections.contains(names), "{sql}: {objections:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_whether_a_statement_is_clean() {
    let cluster = start().await;
    let url = cluster.primary().url();
    let check = async |sql: &str| {
        let output = tidegate(&["check", "--json", "--primary", &url, "--statement", sql]).await;
        let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
        (output.status.code(), document["clean"].as_bool(), document["databases"][0]["reasons"].to_string())
    };
    assert_eq!(check(READ).await, (Some(0), Some(true), "[]".into()));
    let (code, clean, reasons) = check("SELECT set_config('a.b', 'c', false)").await;
    assert_eq!((code, clean), (Some(1), Some(false)));
    assert!(reasons.contains("set_config"), "{reasons}");
    let (code, _, reasons) = check("SELECT n FROM nowhere").await;
    assert!(code == Some(1) && reasons.contains("nowhere"), "{reasons}");
    let text = tidegate(&["check", "--primary", &url, "--statement", "SELECT 1"]).await;
    assert!(String::from_utf8_lossy(&text.stdout).contains(": clean"), "{text:?}");
}
