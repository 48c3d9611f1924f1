//! Every way to soil a connection, through every path: the next caller on that very connection sees all as it was.

use std::collections::HashSet;

use tidegate_client::{Begin, Client, Error, Row};

use crate::{
    asking::{primary_alone, strong},
    clean_writes::is_without_reset,
    harness::{Bed, poll_until},
};

#[path = "soiling/ways.rs"]
mod ways;

use ways::{TRAPS, WAYS};

/// All that a session shows of itself, as text; what no caller can leave there is left out.
const STATE: &str = "SELECT string_agg(line, E'\\n' ORDER BY line), pg_backend_pid(), random()::text, \
    (SELECT string_agg(n::text, ',' ORDER BY n) FROM public.orders) || (SELECT last_value FROM public.numbers) FROM ( \
    SELECT concat_ws(' ', 'setting', name, setting, source) FROM pg_settings \
        WHERE category <> 'Customized Options' OR setting <> coalesce(boot_val, '') \
    UNION ALL SELECT concat_ws(' ', 'role', current_user, session_user) \
    UNION ALL SELECT concat_ws(' ', 'path', array_remove(current_schemas(true), pg_my_temp_schema()::regnamespace::name)) \
    UNION ALL SELECT concat_ws(' ', 'prepared', name) FROM pg_prepared_statements WHERE from_sql \
    UNION ALL SELECT concat_ws(' ', 'cursor', name) FROM pg_cursors WHERE is_holdable \
    UNION ALL SELECT concat_ws(' ', 'temporary', relname) FROM pg_class WHERE relnamespace = pg_my_temp_schema() \
    UNION ALL SELECT concat_ws(' ', 'temporary', proname) FROM pg_proc WHERE pronamespace = pg_my_temp_schema() \
    UNION ALL SELECT concat_ws(' ', 'temporary', typname) FROM pg_type WHERE typnamespace = pg_my_temp_schema() \
    UNION ALL SELECT concat_ws(' ', 'lock', mode, objid) FROM pg_locks \
        WHERE pid = pg_backend_pid() AND locktype = 'advisory' \
    UNION ALL SELECT concat_ws(' ', 'listens', pg_listening_channels()) \
    UNION ALL SELECT concat_ws(' ', 'transaction id', pg_current_xact_id_if_assigned()) \
    ) AS state (line)";

/// What one caller sees of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    state: String,
    pid: i64,
    random: String,
    data: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Read,
    Write,
    Session,
    Transaction,
}

const PATHS: [Path; 4] = [Path::Read, Path::Write, Path::Session, Path::Transaction];

/// Does it; failing is fine.
async fn act(client: &Client, path: Path, way: &[&'static str]) -> Result<(), Error> {
    match path {
        Path::Read => {
            for sql in way {
                client.read_with(sql, [], strong()).await?.rows().await?;
            }
        }
        Path::Write => drop(client.write(way.iter().map(|sql| (*sql).into())).await?),
        Path::Session => {
            let mut session = client.session().await?;
            for sql in way {
                session.write(sql, []).await?;
            }
            session.close().await?;
        }
        Path::Transaction => {
            let mut session = client.session().await?;
            let mut transaction = session.begin(Begin::new()).await?;
            for sql in way {
                transaction.write(sql, []).await?;
            }
            transaction.commit().await?;
            session.close().await?;
        }
    }
    Ok(())
}

/// What the next caller sees on the connection that a path uses.
async fn look(client: &Client, path: Path) -> Seen {
    let seen = |row: Row<'_>| Seen {
        state: row.get(0).expect("the state"),
        pid: row.get(1).expect("a pid"),
        random: row.get(2).expect("a number"),
        data: row.get(3).expect("the data"),
    };
    match path {
        Path::Read => {
            let rows = client.read_with(STATE, [], strong()).await.expect("it is read").rows().await.expect("rows");
            seen(rows.iter().next().expect("a row"))
        }
        Path::Write | Path::Session | Path::Transaction => {
            let written = client.execute(STATE, []).await.expect("it is asked");
            seen(written.results[0].rows.row(0).expect("a row"))
        }
    }
}

/// The SQLSTATE of asking for the last value of a sequence: 55000 where the session has used none.
async fn last_value(client: &Client, path: Path) -> Option<String> {
    let asked = match path {
        Path::Read => act(client, Path::Read, &["SELECT lastval()"]).await,
        _ => client.execute("SELECT lastval()", []).await.map(drop),
    };
    asked.err().and_then(|error| error.sqlstate().map(str::to_owned))
}

/// Lines that only one of two states has.
fn difference(pristine: &str, seen: &str) -> Vec<String> {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<HashSet<_>>();
    let mut all: Vec<_> = lines(pristine).symmetric_difference(&lines(seen)).cloned().collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_caller_did_the_next_one_on_that_connection_sees_nothing_of_it() {
    // One connection for writes and, through the fallback's share, one for reads: the next caller gets the same.
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    let client = bed.client().await;
    for sql in TRAPS {
        client.execute(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let (mut leaks, mut closed, mut refused, mut drawn) = (Vec::new(), 0, 0, HashSet::new());
    // All ways through one path, then through the next: what a read must not change, no other path changes meanwhile.
    for path in PATHS {
        let pristine = look(&client, path).await;
        let mut before = look(&client, path).await;
        for way in WAYS {
            if act(&client, path, way).await.is_err_and(|error| error.reason() == "SQL_REFUSED") {
                refused += 1;
            }
            let after = look(&client, path).await;
            let mut leak = |what: String| leaks.push(format!("{path:?} {way:?}: {what}"));
            let changed = difference(&pristine.state, &after.state);
            if !changed.is_empty() {
                leak(changed.join("; "));
            }
            if !drawn.insert(after.random.clone()) {
                leak(format!("random() repeats {}", after.random));
            }
            if path == Path::Read && before.data != after.data {
                leak(format!("a read changed {} to {}", before.data, after.data));
            }
            if way.iter().any(|sql| sql.contains("val('")) {
                match last_value(&client, path).await {
                    Some(state) if state == "55000" => {}
                    other => leak(format!("lastval() answers {other:?}")),
                }
            }
            closed += usize::from(before.pid != after.pid);
            before = after;
        }
    }
    println!(
        "soiling: {} ways × {} paths ({refused} refused), {} leaks, {closed} connections closed",
        WAYS.len(),
        PATHS.len(),
        leaks.len()
    );
    assert!(WAYS.len() >= 40);
    assert!(leaks.is_empty(), "\n{}\n", leaks.join("\n"));
    let discarded = bed.metric(&["tidegate_connections_discarded_total", "dirty"]);
    assert!(discarded >= closed as f64, "{closed} closed, {discarded} counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_clean_writes_the_next_caller_sees_nothing_either() {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    let client = bed.client().await;
    for sql in TRAPS.iter().chain(&["CREATE TABLE plain (id serial, k int GENERATED ALWAYS AS IDENTITY, n int)"]) {
        client.execute(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let pristine = look(&client, Path::Write).await;
    let pid = pristine.pid.to_string();
    let clean = [&["INSERT INTO plain (n) VALUES (1)"][..], &["INSERT INTO plain (n) VALUES (1)", "DELETE FROM plain"]];
    for (path, way) in PATHS.iter().filter(|path| **path != Path::Read).flat_map(|path| clean.map(|way| (*path, way))) {
        poll_until("nothing is reset behind it", || async {
            act(&client, Path::Write, way).await.expect("it is written");
            is_without_reset(&bed, &pid).await
        })
        .await;
        act(&client, path, way).await.expect("it is written");
        let after = look(&client, path).await;
        assert_eq!(difference(&pristine.state, &after.state), Vec::<String>::new(), "{path:?} {way:?}");
        act(&client, Path::Write, way).await.expect("it is written");
        assert_eq!(last_value(&client, path).await.as_deref(), Some("55000"), "{path:?} {way:?}");
        assert_eq!(after.pid, pristine.pid, "one connection serves them all");
    }
}
