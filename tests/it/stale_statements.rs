//! What was prepared for tables that have changed since, and what a replica cannot run: neither is the caller's business
//! (rule 17).

use tidegate::dev::ClusterOptions;
use tidegate_client::{HostRole, ReadOptions, Statement, params};

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
        client.execute(&format!("ALTER TABLE orders ADD {column}"), []).await.expect("the table changes");
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
