//! Statements that PostgreSQL refuses inside a transaction.

use tidegate_client::{HostRole, Outcome, RouteReason, Statement, WriteOptions};
use tonic::Code;

use crate::{
    asking::{failure, primary_alone, tell},
    harness::{Bed, create_counters, read_counter},
};

async fn alone(client: &tidegate_client::Client, sql: &str) -> Result<(), tidegate_client::Error> {
    client.write_with([Statement::new(sql)], WriteOptions::new().outside_transaction()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn they_run_alone_when_asked_to_and_nothing_else_does() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let client = bed.client().await;
    tell(&client, "CREATE TABLE marks (n int)").await.expect("the table is made");
    for sql in ["VACUUM marks", "CREATE INDEX CONCURRENTLY marks_n ON marks (n)"] {
        let error = client.execute(sql, []).await.expect_err("it needs the flag");
        assert_eq!(failure(&error).reason, "OUTSIDE_TRANSACTION_REQUIRED", "{sql}");
        alone(&client, sql).await.expect(sql);
    }
    // Anything else could leave more than one message's rows, or be undone only in part.
    for sql in
        ["SELECT repeat('x', 1000) FROM generate_series(1, 10000)", "INSERT INTO marks VALUES (1)", "DO 'BEGIN END'"]
    {
        let error = alone(&client, sql).await.expect_err("it does not need the flag");
        assert_eq!(
            (error.code(), failure(&error).field.as_str()),
            (Code::InvalidArgument, "outside_transaction"),
            "{sql}"
        );
    }
    assert_eq!(tell(&client, "SELECT count(*) FROM marks").await.expect("a count"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_is_of_unknown_outcome_and_pins_nobody() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let session = bed.session_client("vacuums").await;
    let error = alone(&session, "VACUUM no_such_table").await.expect_err("there is no such table");
    assert_eq!(error.outcome(), Outcome::Unknown, "it may have done part of its work");
    assert_ne!(error.code(), Code::Unavailable, "nobody's machinery repeats it");
    bed.wait_until_caught_up().await;
    let (_, receipt) = read_counter(&session).await;
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::CaughtUp));
}
