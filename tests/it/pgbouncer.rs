//! Through a real PgBouncer in transaction mode: what is read and written is right and fresh, nothing stays behind on the
//! server connections that everybody shares, and what could leave something is refused.

use std::sync::Arc;

use tidegate::{
    config::PostgresUrl,
    dev::{Cluster, ClusterOptions, PgBouncer, Server},
};
use tidegate_client::{Begin, Client, Consistency, HostRole, Outcome, ReadOptions, Value};

use crate::{
    asking::{ask, failure, strong, tell, until_backends},
    harness::{Bed, READ_COUNTER, poll_until, read_counter, read_counter_until, read_int, set_counter, within},
};

/// Server connections of each PgBouncer: many callers share each.
const SERVER_CONNECTIONS: u32 = 2;

const TABLES: &str = "CREATE TYPE mood AS ENUM ('bad', 'good'); \
    CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL); INSERT INTO counters VALUES (1, 0); \
    CREATE TABLE things (id bigserial PRIMARY KEY, name text NOT NULL DEFAULT lower('X'), mood mood, tags text[], \
        moods mood[], amount numeric(20, 4), at timestamptz DEFAULT now(), CHECK (length(name) < 100)); \
    CREATE TABLE parts (thing bigint REFERENCES things ON DELETE CASCADE, n int)";

/// A cluster with a PgBouncer in front of each server, and a broker that goes through these.
struct Pooled {
    bed: Bed,
    poolers: Vec<PgBouncer>,
}

impl Pooled {
    async fn start(replicas: usize) -> Pooled {
        let options = ClusterOptions { replicas, ..ClusterOptions::default() };
        let mut bed = Bed::with(options, |_| {}).await;
        bed.stop_broker().await;
        let owned = format!("SET ROLE tidegate; {TABLES}");
        bed.cluster.primary().sql(&owned).await.expect("the tables are made");
        let mut poolers = Vec::new();
        for server in bed.cluster.servers() {
            let pooler = PgBouncer::start(&bed.cluster, server, SERVER_CONNECTIONS).await.expect("PgBouncer starts");
            poolers.push(pooler);
        }
        bed.config.pool.prepared_statements = false;
        for (host, pooler) in bed.config.clusters[0].hosts.iter_mut().zip(&poolers) {
            host.pooler = Some(PostgresUrl::parse(&pooler.url()).expect("a valid URL"));
        }
        bed.start_broker().await;
        bed.wait_until_caught_up().await;
        Pooled { bed, poolers }
    }

    fn primary(&self) -> &Arc<Server> {
        self.bed.cluster.primary()
    }

    /// Leads the first PgBouncer elsewhere from now on.
    async fn lead_to(&self, server: &Server) {
        self.poolers[0].kill().await.expect("it is killed");
        self.poolers[0].point(server).expect("it is told");
        self.poolers[0].start_again().await.expect("it starts");
    }

    /// That nothing is left prepared on any server connection, nor a transaction open: asked on each of them.
    async fn assert_nothing_is_left(&self) {
        for pooler in &self.poolers {
            for _ in 0..4 * SERVER_CONNECTIONS {
                let left = "SELECT count(*) FROM pg_prepared_statements";
                assert_eq!(pooler.sql(left).await.expect("an answer"), "0", "statements are left prepared");
            }
        }
        until_backends(self.primary(), "state LIKE 'idle in transaction%'", 0).await;
        for server in self.bed.cluster.servers() {
            let log = server.log().expect("a log");
            for wrong in ["prepared statement \"", "current transaction is aborted"] {
                assert!(!log.contains(wrong), "{} says {wrong:?}", server.name());
            }
        }
    }
}

async fn insert_and_read(client: Client, n: i64) {
    let sql = "INSERT INTO things (name, mood, tags, moods, amount) VALUES ($1, $2, $3, $4, $5) RETURNING id, mood, at";
    let name = format!("thing {n}");
    let params = [
        Value::Text(name.clone()),
        Value::Text(if n % 2 == 0 { "good" } else { "bad" }.into()),
        Value::Text("{a,\"b c\"}".into()),
        Value::Text("{bad,good}".into()),
        Value::Text(format!("{n}.2500")),
    ];
    let written = client.execute(sql, params).await.expect("it is written");
    let id: i64 = written.results[0].rows.row(0).expect("a row").get(0).expect("an id");
    let read = "SELECT name, mood, array_to_string(tags, '|'), array_length(moods, 1), amount FROM things WHERE id = $1 AND mood = $2";
    let mood = if n % 2 == 0 { "good" } else { "bad" };
    let params = [Value::Int64(id), Value::Text(mood.into())];
    let rows =
        client.read_with(read, params, ReadOptions::new()).await.expect("it is read").rows().await.expect("rows");
    let row = rows.iter().next().unwrap_or_else(|| panic!("a stale read: {:?}", rows.receipt()));
    assert_eq!(row.get::<String>(0).expect("a name"), name);
    assert_eq!(row.get::<String>(1).expect("a mood"), mood);
    assert_eq!(row.get::<String>(2).expect("a tag"), "a|b c");
    assert_eq!(row.get::<i64>(3).expect("a length"), 2);
    assert_eq!(row.get::<String>(4).expect("an amount"), format!("{n}.2500"));
    // A transaction that reads what it has written, goes back, and commits.
    if n % 4 == 0 {
        let mut session = client.session().await.expect("a session");
        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        let add = format!("INSERT INTO parts VALUES ({id}, 1)");
        transaction.write(&add, []).await.expect("it is written");
        transaction.write("SELECT n FROM counters WHERE id = 1 FOR UPDATE", []).await.expect("it is locked");
        transaction.commit().await.expect("it commits");
        session.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_share_a_few_server_connections() {
    let pooled = Pooled::start(1).await;
    let mut calls = tokio::task::JoinSet::new();
    for caller in 0..20 {
        let client = pooled.bed.session_client(&format!("caller {caller}")).await;
        calls.spawn(async move {
            for n in 0..2 {
                insert_and_read(client.clone(), caller * 2 + n).await;
            }
        });
    }
    within("every call", calls.join_all()).await;
    let client = pooled.bed.client().await;
    assert_eq!(ask(&client, "SELECT count(*) FROM things").await.expect("a count"), "40");
    assert_eq!(ask(&client, "SELECT count(*) FROM parts").await.expect("a count"), "10");
    for (server, pooler) in pooled.bed.cluster.servers().iter().zip(&pooled.poolers) {
        let port = server.port();
        let of_pooler = "application_name = 'tidegate' AND query LIKE '%pg_backend_pid(), %'";
        let count: i64 = server
            .sql_value(&format!("SELECT count(*) FROM pg_stat_activity WHERE {of_pooler}"))
            .await
            .expect("an answer");
        assert!(count <= i64::from(SERVER_CONNECTIONS), "{count} server connections on {port}");
        assert!(pooler.console("SHOW POOLS").await.expect("an answer").contains("transaction"));
    }
    assert_eq!(pooled.bed.metric(&["tidegate_routes_total", "role=\"replica\""]).min(1.0), 1.0);
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_see_their_own_writes_through_pgbouncer() {
    let pooled = Pooled::start(1).await;
    let replica = pooled.bed.cluster.replica(0);
    let client = pooled.bed.session_client("writer").await;
    for n in 1..=10 {
        replica.pause_replay().await.expect("replay pauses");
        let token = set_counter(&client, n).await;
        let (read, receipt) = read_counter(&client).await;
        assert_eq!((read, receipt.role()), (n, HostRole::Primary));
        let carrier = pooled.bed.client().await.with_position(&token);
        let (read, _) = read_counter(&carrier).await;
        assert_eq!(read, n);
        replica.resume_replay().await.expect("replay resumes");
        read_counter_until("the replica has it", &client, n, |receipt| receipt.role() == HostRole::Replica).await;
    }
    // A transaction that reads on the replica, in one snapshot: proved by what was replayed before that was taken.
    let mut session = client.session().await.expect("a session");
    let begin = Begin::new().on_replica(&ReadOptions::new()).isolation(tidegate_client::Isolation::RepeatableRead);
    let mut transaction = session.begin(begin).await.expect("it begins");
    assert_eq!(transaction.receipt().expect("a receipt").role(), HostRole::Replica);
    let rows = transaction
        .read("SELECT n FROM counters WHERE id = 1", [])
        .await
        .expect("it is read")
        .rows()
        .await
        .expect("rows");
    assert_eq!(rows.iter().next().expect("a row").get::<i64>(0).expect("a number"), 10);
    transaction.rollback().await.expect("it ends");
    session.close().await.expect("it closes");
    pooled.assert_nothing_is_left().await;
}

/// Statements that are refused, what a server is told before, and what the refusal names.
const REFUSED: &[(&str, &str, &str)] = &[
    ("SELECT set_config('app.x', 'y', false)", "", "set_config"),
    ("CREATE TABLE t (n int)", "", "only SELECT"),
    ("DO $$ BEGIN END $$", "", "only plain names"),
    (
        "SELECT lower(name) FROM things",
        "CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1::text'",
        "lower(character varying)",
    ),
    ("SELECT n FROM counters", "ALTER TABLE counters ENABLE ROW LEVEL SECURITY", "row security"),
    (
        "UPDATE counters SET n = 5 WHERE id = 1",
        "ALTER TABLE counters DISABLE ROW LEVEL SECURITY; CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('app.x', 'y', false); RETURN NEW; END $$; \
         CREATE TRIGGER spying BEFORE UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION spy()",
        "trigger spying",
    ),
    (
        "DELETE FROM things WHERE id = 1",
        "CREATE TRIGGER spying BEFORE DELETE ON parts FOR EACH ROW EXECUTE FUNCTION spy()",
        "parts has the trigger spying",
    ),
    (
        "INSERT INTO counters (id) VALUES (2)",
        "DROP TRIGGER spying ON counters; ALTER TABLE counters ALTER n SET DEFAULT length(set_config('a.b', 'c', false))",
        "calls set_config",
    ),
    (
        "INSERT INTO counters VALUES (2, 2)",
        "ALTER TABLE counters ALTER n DROP DEFAULT; CREATE RULE spied AS ON INSERT TO counters DO ALSO NOTIFY x",
        "rule spied",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn causal_reads_through_pgbouncer_do_not_go_back() {
    let pooled = Pooled::start(2).await;
    let (behind, caught_up) = (pooled.bed.cluster.replica(1), pooled.bed.cluster.replica(0));
    behind.pause_replay().await.expect("replay pauses");
    set_counter(&pooled.bed.client().await, 1).await;
    caught_up.catch_up(pooled.primary()).await.expect("it replays");
    let client = pooled.bed.session_client("reader").await;
    let look = || read_int(&client, READ_COUNTER, ReadOptions::new().consistency(Consistency::Causal));
    within("it is seen on a replica", async { while look().await.0 != 1 {} }).await;
    for _ in 0..20 {
        let (n, receipt) = look().await;
        assert_eq!(n, 1, "it went back: {receipt:?}");
    }
    within("a replica", async { while look().await.1.host != caught_up.name() {} }).await;
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_clean_is_refused_before_it_runs() {
    let mut pooled = Pooled::start(0).await;
    pooled.bed.config.pool.statement_max_age = std::time::Duration::from_millis(1);
    pooled.bed.restart_broker().await;
    let client = pooled.bed.client().await;
    for (statement, set, names) in REFUSED {
        if !set.is_empty() {
            pooled.primary().sql(&format!("SET ROLE tidegate; {set}")).await.expect("the trap is set");
        }
        let error = match statement.starts_with("SELECT") {
            true => ask(&client, statement).await.expect_err(statement),
            false => tell(&client, statement).await.expect_err(statement),
        };
        let refused = failure(&error);
        assert_eq!((refused.reason.as_str(), refused.outcome), ("NOT_CLEAN", Outcome::NotExecuted), "{statement}");
        assert!(refused.message.contains(names), "{statement}: {}", refused.message);
        let mut session = client.session().await.expect("a session");
        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        let error = transaction.write(statement, []).await.expect_err(statement);
        assert_eq!(failure(&error).reason, "NOT_CLEAN", "{statement}");
        // Nothing was sent: the transaction goes on.
        transaction.write("SELECT 1", []).await.expect("it goes on");
        transaction.commit().await.expect("it commits");
        session.close().await.expect("it closes");
    }
    assert_eq!(pooled.primary().sql("SELECT n FROM counters").await.expect("an answer"), "0");
    let mut session = client.session().await.expect("a session");
    let error = session.copy_out("COPY counters TO STDOUT").await.map(drop).expect_err("COPY is refused");
    assert_eq!(failure(&error).reason, "NOT_CLEAN");
    session.close().await.expect("it closes");
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_leave_on_server_connections_is_not_met() {
    let pooled = Pooled::start(0).await;
    let superuser = pooled.primary();
    superuser
        .sql("CREATE SCHEMA evil; CREATE TABLE evil.counters AS SELECT 1 AS id, 666 AS n; GRANT ALL ON SCHEMA evil TO PUBLIC; \
              GRANT ALL ON evil.counters TO PUBLIC; CREATE ROLE other; GRANT other TO tidegate")
        .await
        .expect("the traps are set");
    for _ in 0..2 * SERVER_CONNECTIONS {
        pooled.poolers[0].sql("SET search_path = evil; SET ROLE other").await.expect("a stranger leaves it");
    }
    let client = pooled.bed.client().await;
    for _ in 0..8 {
        assert_eq!(ask(&client, "SELECT n FROM counters WHERE id = 1").await.expect("it is read"), "0");
    }
    set_counter(&client, 7).await;
    assert_eq!(superuser.sql("SELECT n FROM counters").await.expect("an answer"), "7");
    // What stands at the sequence of names that come next is in the way of the first tries only.
    let names: Vec<String> = (0..3000).step_by(2).map(|n| format!("PREPARE s{n} AS SELECT 1")).collect();
    for _ in 0..2 * SERVER_CONNECTIONS {
        pooled.poolers[0].sql(&format!("DEALLOCATE ALL; {}", names.join("; "))).await.expect("names are taken");
    }
    for n in 1..=10 {
        set_counter(&client, n).await;
        assert_eq!(ask(&client, "SELECT n FROM counters WHERE id = 1").await.expect("it is read"), n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_stops_frees_its_server_connection() {
    let pooled = Pooled::start(0).await;
    let slow = "SELECT count(*) FROM generate_series(1, 2000000000) AS g";
    let client = pooled.bed.client().await;
    for round in 0..3 {
        let calls = (0..4).map(|_| async {
            let options = strong().timeout(std::time::Duration::from_millis(300));
            match client.read_with(slow, [], options).await {
                Ok(reading) => reading.rows().await.map(drop),
                Err(error) => Err(error),
            }
        });
        let ended = within("the calls end", futures_util::future::join_all(calls)).await;
        assert!(ended.iter().all(Result::is_err), "round {round}");
        until_backends(pooled.primary(), "state = 'active' AND query LIKE '%generate_series%'", 0).await;
        assert_eq!(ask(&client, "SELECT n FROM counters WHERE id = 1").await.expect("it is read"), "0");
    }
    // A client that is gone in the middle of a transaction.
    let mut session = client.session().await.expect("a session");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("UPDATE counters SET n = 99 WHERE id = 1", []).await.expect("it is written");
    drop(transaction);
    drop(session);
    until_backends(pooled.primary(), "state LIKE 'idle in transaction%'", 0).await;
    assert_eq!(ask(&client, "SELECT n FROM counters WHERE id = 1").await.expect("it is read"), "0");
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_honest_when_pgbouncer_dies() {
    let pooled = Pooled::start(0).await;
    let client = pooled.bed.client().await;
    set_counter(&client, 1).await;
    // In the middle of a statement: nothing is kept.
    let slow = "INSERT INTO parts SELECT NULL, g FROM generate_series(1, 300000000) AS g WHERE g < 0";
    let writing = tokio::spawn({
        let client = client.clone();
        async move { client.execute(slow, []).await }
    });
    until_backends(pooled.primary(), "state = 'active' AND query LIKE 'INSERT INTO parts%'", 1).await;
    pooled.poolers[0].kill().await.expect("it is killed");
    let error = within("the write ends", writing).await.expect("no panic").expect_err("it is lost");
    assert_eq!(failure(&error).outcome, Outcome::RolledBack, "{error:?}");
    let error = client.execute("UPDATE counters SET n = 3 WHERE id = 1", []).await.expect_err("nobody is there");
    assert_eq!(failure(&error).outcome, Outcome::NotExecuted, "{error:?}");
    pooled.poolers[0].start_again().await.expect("it starts");
    poll_until("calls go on", || async { client.execute("UPDATE counters SET n = 4 WHERE id = 1", []).await.is_ok() })
        .await;
    assert_eq!(ask(&client, "SELECT n FROM counters WHERE id = 1").await.expect("it is read"), "4");
    pooled.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pgbouncer_that_leads_elsewhere_is_refused() {
    let mut pooled = Pooled::start(1).await;
    pooled.bed.config.timeouts.default_timeout = std::time::Duration::from_secs(2);
    pooled.bed.restart_broker().await;
    let other = ClusterOptions { name: "other".into(), replicas: 0, ..ClusterOptions::default() };
    let other = Cluster::start(other).await.expect("the other cluster starts");
    other.primary().sql(&format!("SET ROLE tidegate; {TABLES}; UPDATE counters SET n = 666")).await.expect("tables");
    let client = pooled.bed.session_client("writer").await;
    set_counter(&client, 1).await;
    // Without a limit of its own: it is the broker who says that time is up, maybe in the middle of an attempt.
    let refused = pooled.bed.unlimited_client(Client::builder().session_id("writer").remember_positions(false)).await;
    for server in [other.primary().clone(), pooled.bed.cluster.replica(0).clone()] {
        pooled.lead_to(&server).await;
        let write = refused.execute("UPDATE counters SET n = 2 WHERE id = 1", []).await.map(drop);
        let read = ask(&refused, "SELECT n FROM counters WHERE id = 1").await.map(drop);
        for error in [write, read].map(|refused| refused.expect_err("it is refused")) {
            assert!(matches!(failure(&error).outcome, Outcome::NotExecuted | Outcome::RolledBack), "{error:?}");
        }
        assert_eq!(other.primary().sql("SELECT n FROM counters").await.expect("an answer"), "666");
    }
    pooled.lead_to(pooled.primary()).await;
    poll_until("writes go on", || async { client.execute("UPDATE counters SET n = 3 WHERE id = 1", []).await.is_ok() })
        .await;
    // The replica's leads to the primary: fresh, but not what was chosen and is paused.
    let replica = &pooled.poolers[1];
    replica.kill().await.expect("it is killed");
    replica.point(pooled.primary()).expect("it is told");
    replica.start_again().await.expect("it starts");
    for _ in 0..10 {
        let (n, receipt) = read_counter(&client).await;
        assert_eq!((n, receipt.role()), (3, HostRole::Primary));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_can_be_off_without_a_pooler() {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |config| {
        config.pool.prepared_statements = false;
    })
    .await;
    bed.cluster.primary().sql(&format!("SET ROLE tidegate; {TABLES}")).await.expect("the tables are made");
    bed.wait_until_caught_up().await;
    let client = bed.session_client("writer").await;
    for n in 0..8 {
        insert_and_read(client.clone(), n).await;
    }
    failure(&within("it is refused", client.execute("VACUUM", [])).await.expect_err("it is refused"));
}
