//! Writes that are known to be clean are committed without a reset behind them; whoever comes next sees nothing of them.

use std::time::Duration;

use tidegate_client::{Begin, Client, Error, Statement, WriteOptions, params};

use crate::{
    asking::{backends, primary_alone, tell, until_none_in_use},
    harness::Bed,
};

const INSERT: &str = "INSERT INTO things (n) VALUES ($1)";
const RETURNING: &str = "INSERT INTO things (n) VALUES ($1) RETURNING id";

/// One connection for writes, which everybody gets, and verdicts that hold until the schema changes through the broker.
async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| {
        config.pool.connections_per_host = 2;
        config.pool.statement_max_age = Duration::from_secs(3600);
    })
    .await;
    let client = bed.client().await;
    for sql in [
        "CREATE TABLE groups (id int PRIMARY KEY)",
        "CREATE TABLE things (id serial PRIMARY KEY, n int NOT NULL CHECK (n > 0), at timestamptz DEFAULT now())",
        "CREATE TABLE members (n int REFERENCES groups DEFERRABLE INITIALLY DEFERRED)",
    ] {
        client.execute(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    bed.init_keys().await;
    bed
}

/// The backend of the connection for writes.
pub async fn writer(client: &Client) -> String {
    tell(client, "SELECT pg_backend_pid()").await.expect("a pid")
}

/// Whether the last that a backend was asked is its position: a reset would stand behind it.
pub async fn is_without_reset(bed: &Bed, pid: &str) -> bool {
    // An answer comes before the reset behind it.
    until_none_in_use(bed).await;
    let last = format!("pid = {pid} AND query = 'SELECT pg_catalog.pg_current_wal_insert_lsn()'");
    backends(bed.cluster.primary(), &last).await == 1
}

/// The ways of `ExecuteWrite` and of a session outside of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Alone,
    Returning,
    Several,
    Keyed,
    Session,
}

const WAYS: [Way; 5] = [Way::Alone, Way::Returning, Way::Several, Way::Keyed, Way::Session];

/// `n` is no one else's, and above 0.
async fn write(client: &Client, way: Way, n: i64) -> Result<(), Error> {
    let insert = || Statement::new(INSERT).bind(n);
    let written = match way {
        Way::Alone => client.execute(INSERT, params![n]).await,
        Way::Returning => client.execute(RETURNING, params![n]).await,
        Way::Several => {
            client.write([insert(), Statement::new("UPDATE things SET n = n + 1 WHERE id = $1").bind(1)]).await
        }
        Way::Keyed => client.write_with([insert()], WriteOptions::new().idempotency_key(format!("key {n}"))).await,
        Way::Session => {
            let mut session = client.session().await?;
            let written = session.write(INSERT, params![n]).await.map(drop);
            session.close().await?;
            return written;
        }
    };
    assert!(!written?.position.is_empty(), "{way:?}: with its position");
    Ok(())
}

/// Repeats a write until nothing is to be undone behind it.
async fn until_without_reset(bed: &Bed, client: &Client, way: Way, n: &mut i64) {
    let pid = writer(client).await;
    for _ in 0..1000 {
        *n += 1;
        write(client, way, *n).await.unwrap_or_else(|error| panic!("{way:?}: {error}"));
        if is_without_reset(bed, &pid).await {
            return;
        }
    }
    panic!("{way:?} is never without a reset");
}

/// What would show a predecessor: statements that are not clean, however they are run, with what they must answer.
async fn assert_as_new(client: &Client, after: &str) {
    let sqlstate = |error: Error| error.sqlstate().map(str::to_owned);
    let last = "SELECT lastval()";
    let alone = client.execute("INSERT INTO things (n) SELECT lastval()", []).await.expect_err("it drew no number");
    assert_eq!(sqlstate(alone).as_deref(), Some("55000"), "{after}: alone");
    let _ = client.execute(INSERT, params![1]).await.expect("it draws a number");
    assert_eq!(sqlstate(tell(client, last).await.expect_err("none")).as_deref(), Some("55000"), "{after}: rows");
    let _ = client.execute(INSERT, params![1]).await.expect("it draws a number");
    let keyed = client.write_with([last.into()], WriteOptions::new().idempotency_key(format!("last {after}"))).await;
    assert_eq!(sqlstate(keyed.expect_err("none")).as_deref(), Some("55000"), "{after}: with a key");
    let _ = client.execute(INSERT, params![1]).await.expect("it draws a number");
    let mut session = client.session().await.expect("a session");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    let error = transaction.write(last, []).await.expect_err("none");
    assert_eq!(sqlstate(error).as_deref(), Some("55000"), "{after}: in a transaction");
    transaction.rollback().await.expect("it ends");
    session.close().await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_write_is_not_reset_and_whoever_could_see_it_finds_the_connection_as_new() {
    let bed = start().await;
    let client = bed.client().await;
    let pid = writer(&client).await;
    let mut n = 0;
    for way in WAYS {
        until_without_reset(&bed, &client, way, &mut n).await;
        assert_as_new(&client, &format!("{way:?}")).await;
        // What was not clean was reset behind; now it is as before, at once.
        n += 1;
        write(&client, way, n).await.expect("it is written");
        assert!(is_without_reset(&bed, &pid).await, "{way:?}");
    }
    // A replayed key, settings (their names stay), functions that see the connection, and what is no plain write.
    write(&client, Way::Keyed, n).await.expect("it is replayed or written");
    let with_setting = client.with_setting("app.tenant", "a");
    for _ in 0..3 {
        with_setting.execute(INSERT, params![1]).await.expect("it is written");
        assert!(!is_without_reset(&bed, &pid).await, "with settings");
        for sql in ["UPDATE things SET n = 1 + length(current_setting('app.tenant', true))", "TRUNCATE members"] {
            client.execute(sql, []).await.expect("it is written");
            assert!(!is_without_reset(&bed, &pid).await, "{sql}");
        }
    }
    assert_eq!(writer(&client).await, pid, "one connection serves them all");
    assert_eq!(bed.metric(&["tidegate_connections_discarded_total", "dirty"]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_write_that_fails_leaves_its_connection_fit() {
    let bed = start().await;
    let client = bed.client().await;
    let mut n = 0;
    for way in WAYS {
        until_without_reset(&bed, &client, way, &mut n).await;
        // A check constraint, and then one that only the COMMIT looks at.
        let error = write(&client, way, -1).await.expect_err("it is refused");
        assert_eq!(error.sqlstate(), Some("23514"), "{way:?}: {error}");
        assert_as_new(&client, &format!("{way:?} failed")).await;
    }
    for _ in 0..10 {
        let members = || Statement::new("INSERT INTO members VALUES ($1)").bind(7);
        for statements in [vec![members()], vec![members(), members()]] {
            let error = client.write(statements).await.expect_err("there is no such group");
            assert_eq!(error.sqlstate(), Some("23503"), "{error}");
        }
        assert_eq!(tell(&client, "SELECT count(*) FROM members").await.expect("a count"), "0");
    }
    assert_eq!(bed.metric(&["tidegate_connections_discarded_total", "dirty"]), 0.0);
}

/// What a trigger leaves on the connection.
const SPY: &str = "CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     PERFORM set_config('work_mem', '7MB', false), set_config('DateStyle', 'ISO, DMY', false); RETURN NEW; END $$";
const SPYING: &str = "CREATE TRIGGER spying BEFORE INSERT ON public.things FOR EACH ROW EXECUTE FUNCTION public.spy()";

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_comes_later_ends_the_verdict_and_shows_nobody_what_it_left_before_that() {
    let bed = start().await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let work_mem = async || tell(&client, "SELECT current_setting('work_mem')").await.expect("a setting");
    let (fresh, pid) = (work_mem().await, writer(&client).await);
    let mut n = 0;
    // Through the broker: known at once.
    until_without_reset(&bed, &client, Way::Alone, &mut n).await;
    for sql in ["CREATE TABLE days (n int, day date)", SPY, SPYING] {
        client.execute(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for _ in 0..20 {
        client.execute(INSERT, params![1]).await.expect("it is written");
        assert!(!is_without_reset(&bed, &pid).await);
        assert_eq!(work_mem().await, fresh);
    }
    client.execute("DROP TRIGGER spying ON public.things", []).await.expect("it is dropped");
    // Past the broker: what it leaves is undone before anybody looks.
    for way in WAYS {
        until_without_reset(&bed, &client, way, &mut n).await;
        primary.sql(SPYING).await.expect("it is made");
        n += 1;
        write(&client, way, n).await.expect("it is written");
        assert!(is_without_reset(&bed, &pid).await, "{way:?}: nobody knows of the trigger");
        assert_eq!(work_mem().await, fresh, "{way:?}");
        // Nor does it say what a text means that is prepared next.
        let day = format!("INSERT INTO days VALUES ({n}, '01/02/2026')");
        client.execute(&day, []).await.expect("it is written");
        let days = tell(&client, &format!("SELECT day::text FROM days WHERE n = {n}")).await;
        assert_eq!(days.expect("a day"), "2026-01-02", "{way:?}");
        n += 1;
        write(&client, way, n).await.expect("it is written");
        let mut session = client.session().await.expect("a session");
        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        let rows = transaction.read("SELECT current_setting('work_mem')", []).await.expect("a read");
        let rows = rows.rows().await.expect("rows");
        assert_eq!(rows.iter().next().expect("a row").get::<String>(0).expect("text"), fresh, "{way:?}");
        transaction.rollback().await.expect("it ends");
        session.close().await.expect("it closes");
        primary.sql("DROP TRIGGER spying ON public.things").await.expect("it is dropped");
    }
    assert_eq!(bed.metric(&["tidegate_connections_discarded_total", "dirty"]), 0.0);
}
