//! What was prepared for tables that have changed since, and what a replica cannot run: neither is the caller's business
//! (rule 17).

use tidegate::dev::ClusterOptions;
use tidegate_client::{Client, HostRole, ReadOptions, Statement, params};

use crate::{
    asking::{ask, primary_alone, strong},
    harness::{Bed, read_int, read_rows},
};

async fn start(options: ClusterOptions) -> Bed {
    // One connection of each kind, so that the statement is found prepared.
    let bed = Bed::with(options, |config| config.pool.connections_per_host = 2).await;
    let client = bed.client().await;
    for sql in ["CREATE TABLE orders (n int)", "INSERT INTO orders VALUES (1)"] {
        client.execute(sql, []).await.expect(sql);
    }
    bed.wait_until_caught_up().await;
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_prepared_under_ones_tables_works_for_the_next_under_its_own() {
    let bed = start(primary_alone()).await;
    let client = bed.client().await;
    // The same text means another table, of other types, for whoever has a temporary one of the same name.
    let insert = "INSERT INTO orders VALUES ($1) RETURNING n";
    let own = [Statement::new("CREATE TEMP TABLE orders (n text)"), Statement::new(insert).bind("seven")];
    client.write(own).await.expect("a temporary table takes a text");
    let written = client.execute(insert, params![7]).await.expect("the real table takes a number");
    let row = written.results[0].rows.row(0).expect("a row");
    assert_eq!(row.get::<i64>(0).expect("a number"), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_go_on_after_the_tables_they_were_prepared_for_changed() {
    let bed = start(primary_alone()).await;
    let client = bed.client().await;
    let insert = "INSERT INTO orders VALUES (3) RETURNING *";
    let read = "SELECT * FROM orders LIMIT 1";
    for column in ["a text", "b int"] {
        client.execute(insert, []).await.unwrap_or_else(|error| panic!("before {column}: {error}"));
        ask(&client, read).await.unwrap_or_else(|error| panic!("before {column}: {error}"));
        client.execute(&format!("ALTER TABLE orders ADD COLUMN {column}"), []).await.expect("the table changes");
    }
    let written = client.execute(insert, []).await.expect("the changed table takes a row");
    assert_eq!(written.results[0].rows.columns().len(), 3);
    assert_eq!(ask(&client, read).await.expect("the changed table is read"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_columns_new_type_is_taken_up_by_reads_writes_and_transactions() {
    let bed = start(primary_alone()).await;
    let client = bed.client().await;
    let (insert, find) = ("INSERT INTO orders VALUES ($1)", "SELECT count(*) FROM orders WHERE n = $1");
    let mut session = client.session().await.expect("the session opens");
    client.execute(insert, params![5]).await.expect("a number goes in");
    assert_eq!(read_rows(&client, find, params![5], strong()).await.iter().count(), 1);
    client.execute("ALTER TABLE orders ALTER n TYPE text", []).await.expect("the table changes");

    client.write([Statement::new(insert).bind("five"), Statement::new(insert).bind("six")]).await.expect("texts go in");
    let found = read_rows(&client, find, params!["five"], strong()).await;
    assert_eq!(found.iter().next().expect("a row").get::<i64>(0).expect("a count"), 1);
    client.execute("ALTER TABLE orders ADD m int", []).await.expect("the table changes");
    let whole = "SELECT * FROM orders LIMIT 1";
    let mut transaction = session.begin(tidegate_client::Begin::new()).await.expect("it begins");
    transaction.write(insert, params!["seven"]).await.expect("a text goes in");
    let rows = transaction.read(whole, []).await.expect("it is read").rows().await.expect("rows");
    assert_eq!(rows.columns().len(), 2);
    transaction.commit().await.expect("it commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_meets_a_stale_statement_fails_once_only() {
    let bed = start(primary_alone()).await;
    let client = bed.client().await;
    let whole = "SELECT * FROM orders LIMIT 1";
    let mut session = client.session().await.expect("the session opens");
    for (column, failures) in [("a int", 0), ("b int", 1), ("c int", 1)] {
        by_others(&bed, &format!("ALTER TABLE orders ADD {column}")).await;
        let mut failed = 0;
        loop {
            let mut transaction = session.begin(tidegate_client::Begin::new()).await.expect("it begins");
            let read = async { transaction.read(whole, []).await?.rows().await };
            match read.await {
                Ok(_) => break transaction.commit().await.expect("it commits"),
                Err(error) => assert_eq!(error.sqlstate(), Some("0A000"), "{error}"),
            }
            failed += 1;
            transaction.rollback().await.expect("it is rolled back");
        }
        assert_eq!(failed, failures, "{column}");
    }
}

/// Past the broker, which hears nothing of it.
async fn by_others(bed: &Bed, sql: &str) {
    bed.cluster.primary().sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

const INSERT: &str = "INSERT INTO orders VALUES ($1)";
const AS_TEXT: [&str; 2] = ["ALTER TABLE orders ALTER n TYPE text", "TRUNCATE orders"];

/// What the table holds, in order.
async fn contents(client: &Client) -> String {
    ask(client, "SELECT string_agg(n::text, ',' ORDER BY n::text) FROM orders").await.expect("it is read")
}

/// PostgreSQL keeps a prepared statement's parameter types: '007' would become an integer on its way to a text.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_stored_as_it_is_once_its_column_has_become_one() {
    let bed = start(primary_alone()).await;
    let client = bed.client().await;
    let mut session = client.session().await.expect("the session opens");
    client.execute(INSERT, params!["007"]).await.expect("a number goes in");
    client.write(AS_TEXT.map(Statement::new)).await.expect("the table changes");
    client.execute(INSERT, params!["007"]).await.expect("a text goes in");
    assert_eq!(contents(&client).await, "007");
    let error = client.execute("SELECT $1::int", params!["x"]).await.expect_err("no number, however often it is asked");
    assert_eq!(error.reason(), "PARAMETER_TYPE", "{error}");

    // Inside the transaction that changes it, and when that is undone.
    for keeps in [false, true] {
        client.write(["DROP TABLE orders", "CREATE TABLE orders (n int)"].map(Statement::new)).await.expect("anew");
        client.execute(INSERT, params!["7"]).await.expect("a number goes in");
        let mut transaction = session.begin(tidegate_client::Begin::new()).await.expect("it begins");
        transaction.write(INSERT, params!["7"]).await.expect("a number goes in");
        for sql in AS_TEXT {
            transaction.write(sql, []).await.expect("the table changes");
        }
        transaction.write(INSERT, params!["007"]).await.expect("a text goes in");
        if keeps {
            transaction.commit().await.expect("it commits");
            client.execute(INSERT, params!["008"]).await.expect("a text goes in");
            assert_eq!(contents(&client).await, "007,008");
        } else {
            transaction.rollback().await.expect("it is rolled back");
            client.execute(INSERT, params!["8"]).await.expect("a number goes in");
            assert_eq!(contents(&client).await, "7,8");
        }
    }
}

/// What a savepoint undoes was never the schema: a text column is one again, and takes '007' as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_for_an_undone_change_is_prepared_anew() {
    let bed = start(primary_alone()).await;
    let client = bed.client().await;
    client.write(AS_TEXT.map(Statement::new)).await.expect("the table changes");
    let mut session = client.session().await.expect("the session opens");
    let mut transaction = session.begin(tidegate_client::Begin::new()).await.expect("it begins");
    transaction.write(INSERT, params!["001"]).await.expect("a text goes in");
    transaction.savepoint("before").await.expect("a savepoint");
    transaction.write("ALTER TABLE orders ALTER n TYPE int USING n::int", []).await.expect("the table changes");
    transaction.write(INSERT, params!["7"]).await.expect("a number goes in");
    transaction.rollback_to("before").await.expect("the change is undone");
    transaction.write(INSERT, params!["007"]).await.expect("a text goes in");
    transaction.commit().await.expect("it commits");
    assert_eq!(contents(&client).await, "001,007");
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_temporary_table_does_not_decide_how_the_nexts_values_are_stored() {
    let bed = start(primary_alone()).await;
    let client = bed.client().await;
    client.write(AS_TEXT.map(Statement::new)).await.expect("the table changes");
    client.execute(INSERT, params!["001"]).await.expect("a text goes in");
    let own = [Statement::new("CREATE TEMP TABLE orders (n int)"), Statement::new(INSERT).bind("7")];
    client.write(own).await.expect("a temporary table takes a number");
    client.execute(INSERT, params!["007"]).await.expect("a text goes in");
    assert_eq!(contents(&client).await, "001,007");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_noticed_once_a_statement_is_old() {
    let bed = Bed::with(primary_alone(), |config| {
        config.pool.connections_per_host = 2;
        config.pool.statement_max_age = std::time::Duration::ZERO;
    })
    .await;
    let client = bed.client().await;
    client.execute("CREATE TABLE orders (n int)", []).await.expect("the table is made");
    client.execute(INSERT, params!["007"]).await.expect("a number goes in");
    by_others(&bed, &AS_TEXT.join("; ")).await;
    client.execute(INSERT, params!["007"]).await.expect("a text goes in");
    assert_eq!(contents(&client).await, "007");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_drop_and_make_anew_goes_unnoticed_by_callers() {
    let bed = start(primary_alone()).await;
    let client = bed.client().await;
    let make = "DROP TABLE IF EXISTS moods; DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('bad', 'good'); \
        CREATE TABLE moods (m mood); ALTER TABLE moods OWNER TO tidegate; GRANT ALL ON moods TO tidegate";
    let drop_prepared = [
        "CREATE FUNCTION deallocate() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN 1; END $$",
        "CREATE FUNCTION discard() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'DISCARD PLANS'; \
         EXECUTE 'DEALLOCATE ALL'; RETURN 1; END $$",
    ];
    client.write(drop_prepared.map(Statement::new)).await.expect("the functions are made");
    let changes = [
        make,
        make,
        "ALTER TABLE moods RENAME TO old_moods; CREATE TABLE moods (m text); GRANT ALL ON moods TO tidegate",
        "ALTER TABLE moods RENAME m TO n; ALTER TABLE moods ADD m text",
        "CREATE SCHEMA tidegate AUTHORIZATION tidegate; CREATE TABLE tidegate.moods (n int, m text); \
         GRANT ALL ON tidegate.moods TO tidegate",
        "DROP SCHEMA tidegate CASCADE",
    ];
    let (insert, read, whole) =
        ("INSERT INTO moods (m) VALUES ($1)", "SELECT count(*) FROM moods WHERE m = $1", "SELECT m::text FROM moods");
    for change in changes {
        by_others(&bed, change).await;
        for forget in ["SELECT 1", "SELECT deallocate()", "SELECT discard()"] {
            ask(&client, forget).await.unwrap_or_else(|error| panic!("{forget}: {error}"));
            client.execute(forget, []).await.unwrap_or_else(|error| panic!("{forget}: {error}"));
            let done = async {
                client.execute(insert, params!["good"]).await?;
                client.write([Statement::new(insert).bind("good"), Statement::new(insert).bind("bad")]).await?;
                client.read_with(read, params!["good"], strong()).await?.rows().await?;
                client.read_with(whole, [], strong()).await?.rows().await
            };
            done.await.unwrap_or_else(|error| panic!("behind {change}, {forget}: {error}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_primary_can_run_is_read_there() {
    let bed = start(ClusterOptions::default()).await;
    let client = bed.client().await;
    client.execute("CREATE UNLOGGED TABLE cache (n int)", []).await.expect("the table is made");
    client.execute("INSERT INTO cache VALUES (7)", []).await.expect("a row goes in");
    bed.wait_until_caught_up().await;
    let other = bed.client().await;
    for _ in 0..4 {
        let (n, receipt) = read_int(&other, "SELECT n FROM cache", ReadOptions::new()).await;
        assert_eq!((n, receipt.role()), (7, HostRole::Primary), "{receipt:?}");
        assert!(receipt.attempts > 1, "a replica was asked first: {receipt:?}");
    }
    let sql = "SELECT (pg_current_wal_insert_lsn() IS NOT NULL)::int";
    assert_eq!(read_int(&other, sql, ReadOptions::new()).await.1.role(), HostRole::Primary);
}
