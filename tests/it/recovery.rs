//! Crashes of servers that come back: a standby whose replay has gone back, and a primary that has lost the end of its
//! WAL (rule 5, and the end of rule 6).

use std::time::Duration;

use tidegate::{clock, config::Config, dev::ClusterOptions, model::Lsn};
use tidegate_client::{Client, Consistency, HostRole, ReadOptions, RouteReason};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    Bed, PATIENCE, READ_COUNTER, create_counters, read_counter, read_counter_until, read_int, set_counter, within,
};

/// One replica, on which nothing is written back before a crash: recovery then begins far behind.
async fn bed_with_one_replica(settings: &[(&str, &str)]) -> Bed {
    bed_with(settings, |_| {}).await
}

async fn bed_with(settings: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Bed {
    let quiet = [("autovacuum", "off"), ("checkpoint_timeout", "1h"), ("bgwriter_lru_maxpages", "0")];
    let settings = quiet.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let options = ClusterOptions { replicas: 1, settings: settings.collect(), ..ClusterOptions::default() };
    Bed::with(options, change).await
}

/// Tasks that read the counter, which must be 1, until they are told to stop.
struct Readers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Readers {
    fn start(count: usize, client: &Client) -> Readers {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for _ in 0..count {
            let (client, stop) = (client.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.is_cancelled() {
                    let (n, receipt) = read_counter(&client).await;
                    assert_eq!(n, 1, "a stale read: {receipt:?}");
                }
            });
        }
        Readers { tasks, stop }
    }

    async fn finish(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no read is stale, and none fails");
        }
    }
}

/// The counter is 1, the replica has replayed that, and will not again: after a crash of its server it holds the commit
/// back. Answers the position that it has reached.
async fn prepare_to_fall_back(bed: &Bed, client: &Client) -> Lsn {
    create_counters(bed).await;
    let (primary, replica) = (bed.cluster.primary(), bed.cluster.replica(0));
    // Recovery will begin here, behind the table and before the write.
    primary.sql("CHECKPOINT").await.expect("a checkpoint");
    replica.catch_up(primary).await.expect("the replica has replayed it");
    replica.sql("CHECKPOINT").await.expect("a restartpoint");
    set_counter(client, 1).await;
    read_counter_until("the replica has replayed", client, 1, |receipt| receipt.role() == HostRole::Replica).await;
    replica.apply_delay(Duration::from_secs(3600)).await.expect("replay is delayed");
    bed.view().hosts[1].replay.expect("a position")
}

async fn crash_the_replica(bed: &Bed) {
    let replica = bed.cluster.replica(0);
    let victim = "SELECT pid FROM pg_stat_activity WHERE usename = 'tidegate' LIMIT 1";
    let victim: i32 = replica.sql_value(victim).await.expect("the broker is connected");
    replica.kill_backend(victim).await.expect("the backend is killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_replay_has_gone_back_shows_no_session_an_old_row() {
    // No read may fail: on a busy machine a probe of the primary must not be given up, or its readers have no host left.
    let bed = bed_with(&[], |config| config.probe.timeout = PATIENCE).await;
    let client = bed.session_client("writer").await;
    let reached = prepare_to_fall_back(&bed, &client).await;
    crash_the_replica(&bed).await;
    let readers = Readers::start(8, &client);
    // Whoever asks for no position shows where the replica stands: before the write.
    let anybody = bed.client().await;
    let eventual = ReadOptions::new().consistency(Consistency::Eventual);
    within("the replica is back, with an old row", async {
        while read_int(&anybody, READ_COUNTER, eventual.clone()).await.0 != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    bed.wait_until("replay is known to have gone back", || bed.view().hosts[1].replay.is_some_and(|now| now < reached))
        .await;
    for _ in 0..100 {
        let (n, receipt) = read_counter(&client).await;
        assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));
    }

    bed.cluster.replica(0).apply_delay(Duration::ZERO).await.expect("replay is not delayed any more");
    read_counter_until("the replica serves the session again", &client, 1, |r| r.role() == HostRole::Replica).await;
    readers.finish().await;
}

/// A lag that was measured before a crash is no proof either.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_replay_has_gone_back_shows_no_old_row_to_a_bounded_read() {
    let (interval, bound) = (Duration::from_secs(3), Duration::from_secs(4));
    let bed = bed_with(&[], |config| config.probe.interval = interval).await;
    prepare_to_fall_back(&bed, &bed.session_client("writer").await).await;
    // Until the write is older than the bound. The next probe is then a whole interval away.
    let written = clock::now();
    bed.wait_until("the write is old", || bed.view().hosts[1].passed_sample_at.is_some_and(|at| at > written + bound))
        .await;
    crash_the_replica(&bed).await;
    bed.cluster.replica(0).wait_ready().await.expect("the replica is back, with an old row");
    let client = bed.client().await;
    for _ in 0..20 {
        let (n, receipt) = read_int(&client, READ_COUNTER, ReadOptions::new().max_staleness(bound)).await;
        assert_eq!(n, 1, "a stale read: {receipt:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_lost_the_end_of_its_wal_pins_nobody() {
    let bed = bed_with_one_replica(&[("synchronous_commit", "off"), ("wal_writer_delay", "10s")]).await;
    create_counters(&bed).await;
    let (primary, client) = (bed.cluster.primary(), bed.session_client("writer").await);
    set_counter(&client, 1).await;
    read_counter_until("the replica has replayed", &client, 1, |receipt| receipt.role() == HostRole::Replica).await;
    let writer: i32 = primary
        .sql_value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        .await
        .expect("the WAL writer runs");
    let writer = rustix::process::Pid::from_raw(writer).expect("a pid");
    rustix::process::kill_process(writer, rustix::process::Signal::STOP).expect("the WAL writer is stopped");

    // More than what the end of recovery writes, less than what fits into the WAL's buffers; and the broker is cut off
    // before it can force a flush.
    let lost = "INSERT INTO counters SELECT id, 0 FROM generate_series(2, 4000) AS id";
    client.execute(lost, []).await.expect("the write is acknowledged");
    primary.proxy().cut().await;
    let insert: Lsn = primary.sql_value("SELECT pg_current_wal_insert_lsn()").await.expect("a position");
    primary.kill().await.expect("the primary is killed");
    primary.start().await.expect("the primary recovers");
    let recovered: Lsn = primary.sql_value("SELECT pg_current_wal_insert_lsn()").await.expect("a position");
    assert!(recovered < insert, "the crash has lost WAL: {recovered} {insert}");
    primary.proxy().restore().await;

    bed.wait_until("the primary is back", || bed.view().primary.is_some()).await;
    let receipt = read_counter_until("a replica", &client, 1, |receipt| receipt.role() == HostRole::Replica).await;
    assert_eq!(receipt.reason(), RouteReason::PositionMayBeLost);
    let required: Lsn = receipt.required_lsn.parse().expect("a position");
    let now: Lsn = primary.sql_value("SELECT pg_current_wal_insert_lsn()").await.expect("a position");
    assert!(required < insert && required <= now, "clamped to what there is: {required} {insert} {now}");
    set_counter(&client, 2).await;
    read_counter_until("a new write is honoured", &client, 2, |receipt| receipt.role() == HostRole::Replica).await;
}
