//! A session sees its own writes, whatever the replicas do.

use tidegate_client::{HostRole, ReadOptions, RouteReason};

use crate::harness::{Bed, create_counters, read_int};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_from_the_primary_while_replay_is_paused_and_others_do_not() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    for replica in bed.cluster.replicas() {
        replica.pause_replay().await.expect("replay pauses");
    }
    let (writer, other) = (bed.session_client("writer").await, bed.session_client("other").await);
    writer.execute("UPDATE counters SET n = 1 WHERE id = 1", []).await.expect("the write succeeds");

    let (n, receipt) = read_int(&writer, "SELECT n FROM counters WHERE id = 1", ReadOptions::new()).await;
    assert_eq!(n, 1);
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Primary, RouteReason::Behind));

    let (n, receipt) = read_int(&other, "SELECT n FROM counters WHERE id = 1", ReadOptions::new()).await;
    assert_eq!(n, 0, "replay is paused, so a replica shows the old row");
    assert_eq!(receipt.role(), HostRole::Replica);

    for replica in bed.cluster.replicas() {
        replica.resume_replay().await.expect("replay resumes");
    }
    bed.wait_until_caught_up().await;
    let (n, receipt) = read_int(&writer, "SELECT n FROM counters WHERE id = 1", ReadOptions::new()).await;
    assert_eq!(n, 1);
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::CaughtUp));
}
