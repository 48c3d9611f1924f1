//! Reads that fall back to the primary have a share of its connections; writes keep theirs (rule 13).

use tidegate_client::{Client, Outcome};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::{
    asking::{failure, primary_alone, strong, tell, until_backends},
    harness::{Bed, within},
};

const SLEEPING: &str = "state = 'active' AND query LIKE '%pg_sleep%'";

/// Reads that hold a connection to the primary until they are aborted.
fn drown(client: &Client, count: usize) -> Vec<JoinHandle<()>> {
    let sleeper =
        |client: Client| async move { drop(client.read_with("SELECT pg_sleep(60)::text", [], strong()).await) };
    (0..count).map(|_| tokio::spawn(sleeper(client.clone()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_drown_the_primary_leave_its_writes_their_connections() {
    let bed = Bed::with(primary_alone(), |config| {
        config.pool.connections_per_host = 4;
        config.pool.primary_read_share = 0.5;
        config.pool.max_queue = 3;
    })
    .await;
    let client = bed.client().await;
    tell(&client, "CREATE TABLE marks (n int)").await.expect("the table is made");

    // Two of four connections are for reads; three more callers may wait.
    let sleepers = drown(&client, 5);
    until_backends(bed.cluster.primary(), SLEEPING, 2).await;
    let full = within("the queue is full", async {
        loop {
            match client
                .read_with("SELECT pg_sleep(60)::text", [], strong().timeout(std::time::Duration::from_millis(200)))
                .await
            {
                Err(error) if error.code() == Code::ResourceExhausted => return error,
                // Not all five wait in line yet.
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let refusal = failure(&full);
    assert_eq!((refusal.reason.as_str(), refusal.outcome), ("OVERLOADED", Outcome::NotExecuted));
    assert!(refusal.retry_delay.is_some(), "a retry can help, so it says when");

    for n in 0..20 {
        tell(&client, &format!("INSERT INTO marks VALUES ({n})")).await.expect("writes pass");
    }
    until_backends(bed.cluster.primary(), SLEEPING, 2).await;
    sleepers.iter().for_each(JoinHandle::abort);
    until_backends(bed.cluster.primary(), SLEEPING, 0).await;
}
