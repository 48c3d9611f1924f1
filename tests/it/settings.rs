//! Settings for the length of a transaction: what row-level security rests on, seen by their own caller alone.

use tidegate_client::{Begin, Client, Outcome, ReadOptions, Session, Statement, WriteOptions};

use crate::{
    asking::{ask, primary_alone, strong, tell},
    harness::{Bed, read_rows},
};

const TENANT: &str = "SELECT coalesce(current_setting('app.tenant', true), '')";
const NAMES: &str = "SELECT pg_backend_pid(), string_agg(name, ' ' ORDER BY name) FROM notes";

/// One connection for writes, one for reads, and a table of which each tenant sees its own rows.
async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    let client = bed.client().await;
    for sql in [
        "CREATE TABLE notes (tenant text NOT NULL DEFAULT current_setting('app.tenant'), name text NOT NULL)",
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
        // The login role owns the table, and policies are not for owners otherwise.
        "ALTER TABLE notes FORCE ROW LEVEL SECURITY",
        "CREATE POLICY own ON notes USING (tenant = current_setting('app.tenant', true))",
    ] {
        client.execute(sql, []).await.expect(sql);
    }
    bed
}

/// The backend and the names that a caller sees, each way: by a read, a write, a session's read, write and transaction.
async fn seen(client: &Client) -> Vec<(i64, String)> {
    let pair = |rows: &tidegate_client::Rows| {
        let row = rows.iter().next().expect("a row");
        (row.get::<i64>(0).expect("a pid"), row.get::<Option<String>>(1).expect("names").unwrap_or_default())
    };
    let batch = |batch: &tidegate_client::Batch| {
        let row = batch.row(0).expect("a row");
        (row.get::<i64>(0).expect("a pid"), row.get::<Option<String>>(1).expect("names").unwrap_or_default())
    };
    let mut all = vec![pair(&read_rows(client, NAMES, [], strong()).await)];
    all.push(batch(&client.execute(NAMES, []).await.expect("a write").results[0].rows));
    let mut session: Session = client.session().await.expect("the session opens");
    let options = ReadOptions::new();
    all.push(pair(&session.read(NAMES, [], options).await.expect("a read").rows().await.expect("rows")));
    all.push(batch(&session.write(NAMES, []).await.expect("a write").rows));
    for begin in [Begin::new(), Begin::new().on_replica(&strong())] {
        let mut transaction = session.begin(begin).await.expect("it begins");
        all.push(pair(&transaction.read(NAMES, []).await.expect("a read").rows().await.expect("rows")));
        transaction.commit().await.expect("it commits");
    }
    session.close().await.expect("the session ends well");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_over_one_pooled_connection_see_their_own_rows_only() {
    let bed = start().await;
    let nobody = bed.client().await;
    let (red, blue) = (nobody.with_setting("app.tenant", "red"), nobody.with_setting("app.tenant", r"bl'ue\"));
    // Alone, as a transaction of several, and in a session.
    for (client, name) in [(&red, "apple"), (&blue, "berry")] {
        let insert = |suffix: &str| format!("INSERT INTO notes (name) VALUES ('{name}{suffix}')");
        client.execute(&insert("1"), []).await.expect("a write by itself");
        let two = [Statement::new(insert("2")), Statement::new("SELECT 1")];
        client.write(two).await.expect("a transaction");
        let mut session = client.session().await.expect("the session opens");
        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        transaction.write(&insert("3"), []).await.expect("a write");
        transaction.commit().await.expect("it commits");
    }
    let mut pids = Vec::new();
    for (client, names) in
        [(&red, "apple1 apple2 apple3"), (&blue, "berry1 berry2 berry3"), (&red, "apple1 apple2 apple3"), (&nobody, "")]
    {
        let all = seen(client).await;
        assert!(all.iter().all(|(_, seen)| seen == names), "{all:?}, and not {names:?}");
        pids.push(all.into_iter().map(|(pid, _)| pid).collect::<Vec<_>>());
    }
    assert!(pids.iter().all(|these| *these == pids[0]), "each over the same connections: {pids:?}");

    // A row of another tenant cannot be written.
    let foreign = "INSERT INTO notes (tenant, name) VALUES ('red', 'theft')";
    let error = blue.execute(foreign, []).await.expect_err("the policy forbids it");
    assert_eq!((error.sqlstate(), error.outcome()), (Some("42501"), Outcome::RolledBack));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_ends_with_its_transaction_however_that_ends() {
    let bed = start().await;
    let nobody = bed.client().await;
    let red = nobody.with_setting("app.tenant", "red").with_setting("work_mem", "7MB");
    for sql in ["SELECT current_setting('work_mem')", TENANT] {
        let expected = if sql == TENANT { "red" } else { "7MB" };
        assert_eq!(ask(&red, sql).await.expect("a read"), expected);
        assert_eq!(tell(&red, sql).await.expect("a write"), expected);
    }
    ask(&red, "SELECT 1/0").await.expect_err("it fails");
    tell(&red, "SELECT 1/0").await.expect_err("it fails");
    let mut session = red.session().await.expect("the session opens");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("SELECT set_config('app.tenant', 'green', true)", []).await.expect("a caller may, too");
    drop(transaction);
    session.close().await.expect("the session ends well");
    let work_mem = "SELECT current_setting('work_mem')";
    for client in [&nobody, &bed.client().await] {
        assert_eq!(ask(client, TENANT).await.expect("a read"), "");
        assert_eq!(tell(client, TENANT).await.expect("a write"), "");
        assert_eq!(ask(client, work_mem).await.expect("a read"), tell(client, work_mem).await.expect("a write"));
        assert_ne!(ask(client, work_mem).await.expect("a read"), "7MB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_timeout_stops_its_own_callers_statement_and_no_other() {
    let bed = start().await;
    let nobody = bed.client().await;
    let hasty = nobody.with_setting("statement_timeout", "20ms");
    let pid = "SELECT pg_backend_pid()";
    let before = (ask(&nobody, pid).await.expect("a pid"), tell(&nobody, pid).await.expect("a pid"));
    let sleep = "SELECT pg_sleep(600)::text";
    for error in [
        hasty.read(sleep, []).await.map(drop).expect_err("a read"),
        hasty.execute(sleep, []).await.map(drop).expect_err("a write"),
        hasty
            .write_with([Statement::new("INSERT INTO notes SELECT 'x', 'y' FROM pg_sleep(600)")], WriteOptions::new())
            .await
            .map(drop)
            .expect_err("a write without rows"),
    ] {
        assert_eq!((error.sqlstate(), error.outcome()), (Some("57014"), Outcome::RolledBack), "{error}");
    }
    let slow = "SELECT 1 FROM pg_sleep(0.1)";
    assert_eq!(ask(&nobody, slow).await.expect("a read"), "1");
    assert_eq!(tell(&nobody, slow).await.expect("a write"), "1");
    let after = (ask(&nobody, pid).await.expect("a pid"), tell(&nobody, pid).await.expect("a pid"));
    assert_eq!(after, before, "over the same connections");
}
