//! What a request costs in turns between the broker and PostgreSQL, counted at the proxy between them.

use std::time::Duration;

use tidegate::dev::{ClusterOptions, Server, TurnCount};
use tidegate_client::{Begin, Client, Consistency, HostRole, ReadOptions, Statement, params};

use crate::{
    asking::{backends, primary_alone, strong, until_none_in_use},
    harness::{Bed, poll_until, quietly, read_rows},
};

/// A broker whose probers are silent meanwhile, and which has a connection open for everything.
async fn start(options: ClusterOptions) -> Bed {
    let bed = Bed::with(options, quietly).await;
    let client = bed.client().await;
    client.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    read_rows(&client, "SELECT 0", [], strong()).await;
    bed
}

/// How long a busy machine may take between two writes that wait for no answer.
const QUIET: Duration = Duration::from_millis(500);

/// The turns that an action costs on the connection to this server that it uses. The prober's is older, and may have
/// turns of its own: a write makes it look.
async fn turns(bed: &Bed, server: &Server, action: impl Future<Output = ()>) -> Option<u64> {
    // The connection is to be back in its pool, or a second one would be opened.
    until_none_in_use(bed).await;
    let count: TurnCount = server.proxy().count_turns_with(QUIET);
    action.await;
    assert!(count.turns_by_connection().len() <= 2, "{:?}", count.turns_by_connection());
    count.turns_by_connection().last().copied()
}

const READ: &str = "SELECT n FROM marks WHERE n = $1";
const INSERT: &str = "INSERT INTO marks VALUES ($1)";

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_read_is_one_turn_and_a_new_one_two() {
    let bed = start(primary_alone()).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let read = async || drop(read_rows(&client, READ, params![1], strong()).await);
    assert_eq!(turns(&bed, primary, read()).await, Some(2), "prepare, then everything else in one flush");
    for _ in 0..3 {
        assert_eq!(
            turns(&bed, primary, read()).await,
            Some(1),
            "BEGIN, the statement, ROLLBACK and the reset in one flush"
        );
    }
    let failing = async || drop(client.read_with("SELECT 1 / $1::int", params![0], strong()).await.expect_err("1/0"));
    assert_eq!(turns(&bed, primary, failing()).await, Some(2));
    assert_eq!(turns(&bed, primary, failing()).await, Some(1), "a failure costs no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_read_is_one_turn_without_a_wrap() {
    let bed = Bed::with(primary_alone(), |config| {
        quietly(config);
        config.lanes.connections = 1;
    })
    .await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    client.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    let read = async || drop(read_rows(&client, READ, params![1], strong()).await);
    // A wrapped one leaves the reset as the last that its backend was asked.
    poll_until("the reads go without a wrap", || async {
        read().await;
        backends(primary, "query LIKE 'SELECT n FROM marks%'").await == 1
    })
    .await;
    assert_eq!(turns(&bed, primary, read()).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_on_a_replica_is_one_turn_there_and_none_on_the_primary() {
    let bed = start(ClusterOptions { replicas: 1, ..ClusterOptions::default() }).await;
    // It has written nothing: no position binds it.
    let (client, primary, replica) =
        (bed.session_client("reader").await, bed.cluster.primary(), bed.cluster.replica(0));
    let sql = "SELECT count(*) FROM pg_class";
    let read = async || {
        let rows = read_rows(&client, sql, [], ReadOptions::new()).await;
        assert_eq!(rows.receipt().role(), HostRole::Replica);
    };
    read().await;
    let count = primary.proxy().count_turns();
    assert_eq!(turns(&bed, replica, read()).await, Some(1));
    assert_eq!(count.turns(), 0, "routing asks nobody");

    let causal = ReadOptions::new().consistency(Consistency::Causal);
    let read = async || {
        let rows = read_rows(&client, sql, [], causal.clone()).await;
        assert_eq!(rows.receipt().role(), HostRole::Replica);
    };
    assert_eq!(turns(&bed, replica, read()).await, Some(1), "what it saw is asked for in the same flush");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_write_is_one_turn_with_its_position_and_reset() {
    let bed = start(primary_alone()).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let write = async || {
        let written = client.execute(INSERT, params![1]).await.expect("a write");
        assert!(!written.position.is_empty(), "with its position");
    };
    assert_eq!(turns(&bed, primary, write()).await, Some(2));
    for _ in 0..3 {
        assert_eq!(turns(&bed, primary, write()).await, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_returns_rows_or_has_several_statements_is_a_turn_for_each_and_two_around() {
    let bed = start(primary_alone()).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let returning = "INSERT INTO marks VALUES ($1) RETURNING n";
    let write = async |client: &Client| drop(client.execute(returning, params![1]).await.expect("a write"));
    assert_eq!(turns(&bed, primary, write(&client)).await, Some(4), "prepare, BEGIN, the statement, COMMIT");
    assert_eq!(turns(&bed, primary, write(&client)).await, Some(3), "BEGIN, the statement, COMMIT");
    let two = async || {
        let statements = [Statement::new(INSERT).bind(1), Statement::new(returning).bind(2)];
        client.write(statements).await.map(drop).expect("a write");
    };
    two().await;
    assert_eq!(turns(&bed, primary, two()).await, Some(4), "BEGIN, the statements, COMMIT");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_transaction_is_one_turn() {
    let bed = start(primary_alone()).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let mut session = client.session().await.expect("the session opens");
    client.execute(INSERT, params![1]).await.expect("it is prepared");
    let mut whole = async |read: bool| {
        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        transaction.write(INSERT, params![2]).await.expect("a write");
        if read {
            transaction.read(READ, params![2]).await.expect("a read").rows().await.expect("rows");
        }
        transaction.commit().await.expect("it commits");
    };
    assert_eq!(turns(&bed, primary, whole(false)).await, Some(3), "BEGIN, the write, COMMIT with position and reset");
    assert_eq!(turns(&bed, primary, whole(true)).await, Some(5), "and the read, which is new to this connection");
    assert_eq!(turns(&bed, primary, whole(true)).await, Some(4));
}
