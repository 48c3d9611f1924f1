//! Crashes and planned switch-overs under concurrent writers: no acknowledged write is lost, none with a key is done twice,
//! every call is answered, sessions see what they wrote; and the broker follows, whatever its configuration calls the primary.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tidegate::dev::{ClusterOptions, Server};
use tidegate_client::{Client, Error, HostRole, Outcome, ReadOptions, Statement, WriteOptions, Written, params};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{Bed, PATIENCE, poll_until, read_int, within};

const WRITERS: i64 = 8;
const INSERT: &str = "INSERT INTO journal VALUES ($1, $2)";

async fn bed_with_journal(replicas: usize) -> Bed {
    let bed = Bed::with(ClusterOptions { replicas, ..ClusterOptions::default() }, |_| {}).await;
    // Nothing that would hide a row which was written twice.
    bed.client().await.execute("CREATE TABLE journal (writer bigint, n bigint)", []).await.expect("the table is made");
    bed.init_keys().await;
    bed.wait_until_caught_up().await;
    bed
}

/// What one writer was told of its writes, which are numbered from 1.
#[derive(Default)]
struct Told {
    writer: i64,
    kept: Vec<i64>,
    not_kept: Vec<i64>,
    /// Nobody knows.
    unknown: Vec<i64>,
}

/// Writers that go on until they are told to stop, each in a session of its own; those with an even number use keys.
struct Writers {
    tasks: JoinSet<Told>,
    stop: CancellationToken,
    /// The timeline of each one's last acknowledged write.
    timelines: Arc<Vec<AtomicU32>>,
}

impl Writers {
    async fn start(bed: &Bed) -> Writers {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let timelines: Arc<Vec<_>> = Arc::new((0..WRITERS).map(|_| AtomicU32::new(0)).collect());
        for writer in 0..WRITERS {
            let session = Client::builder().session_id(format!("writer {writer}")).remember_positions(false);
            let client = bed.unlimited_client(session).await;
            tasks.spawn(write_on(client, writer, stop.clone(), Arc::clone(&timelines)));
        }
        Writers { tasks, stop, timelines }
    }

    /// Each has had a write acknowledged by the primary of this timeline.
    async fn until_on(&self, timeline: u32) {
        let all = || self.timelines.iter().all(|last| last.load(Ordering::SeqCst) >= timeline);
        poll_until(&format!("every writer is on timeline {timeline}"), || async { all() }).await;
    }

    /// Ends them, and holds what they were told against what there is.
    async fn finish(mut self, primary: &Server) {
        self.stop.cancel();
        let (mut kept, mut unknown) = (0, 0);
        while let Some(told) = within("a writer ends", self.tasks.join_next()).await {
            let told = told.expect("every call was answered, and every read saw its session's writes");
            let rows = format!("SELECT n FROM journal WHERE writer = {} ORDER BY n", told.writer);
            let rows = primary.sql(&rows).await.expect("rows");
            let rows: Vec<i64> = rows.lines().map(|line| line.parse().expect("a number")).collect();
            let times = |n: &i64| rows.iter().filter(|row| *row == n).count();
            for n in &told.kept {
                assert_eq!(times(n), 1, "writer {}: {n} was acknowledged", told.writer);
            }
            for n in &told.not_kept {
                assert_eq!(times(n), 0, "writer {}: {n} was not done", told.writer);
            }
            assert!(told.unknown.iter().all(|n| times(n) <= 1), "writer {}: {:?}", told.writer, told.unknown);
            let uses_keys = told.writer % 2 == 0;
            assert!(!uses_keys || told.unknown.is_empty(), "a key leaves no doubt: {:?}", told.unknown);
            assert_eq!(rows.len(), rows.iter().collect::<std::collections::BTreeSet<_>>().len(), "none twice");
            (kept, unknown) = (kept + told.kept.len(), unknown + told.unknown.len());
        }
        // One write of each without a key may have been under way; the rest of their time they waited.
        assert!(kept > 50 && unknown <= 3 * WRITERS as usize, "{kept} kept, {unknown} unknown");
    }
}

async fn write_on(client: Client, writer: i64, stop: CancellationToken, timelines: Arc<Vec<AtomicU32>>) -> Told {
    let mut told = Told { writer, ..Told::default() };
    for n in 1.. {
        if stop.is_cancelled() {
            break;
        }
        match write(&client, writer, n).await {
            Ok(written) => {
                told.kept.push(n);
                timelines[writer as usize].store(written.receipt.timeline, Ordering::SeqCst);
                read_own(&client, writer, n).await;
            }
            Err(error) => {
                // Each call has time for a whole failover: it fails only if something of it was under way.
                match error.outcome() {
                    Outcome::RolledBack => told.not_kept.push(n),
                    Outcome::Unknown => told.unknown.push(n),
                    outcome => panic!("writer {writer}: {n}: {outcome:?}: {error}"),
                }
            }
        }
    }
    told
}

async fn write(client: &Client, writer: i64, n: i64) -> Result<Written, Error> {
    let options = match writer % 2 {
        0 => WriteOptions::new().idempotency_key(format!("{writer}/{n}")),
        _ => WriteOptions::new(),
    };
    let write = client.write_with([Statement::new(INSERT).bind_all(params![writer, n])], options);
    // Its deadline is the broker's own, 30 s: a timer of the client's would hide a call that hangs.
    tokio::time::timeout(PATIENCE + Duration::from_secs(1), write).await.expect("an answer by the deadline")
}

/// Sees the write, whoever answers; and is answered, whatever has become of the primary.
async fn read_own(client: &Client, writer: i64, n: i64) {
    let sql = format!("SELECT count(*) FROM journal WHERE writer = {writer} AND n = {n}");
    let (seen, receipt) = read_int(client, &sql, ReadOptions::new()).await;
    assert_eq!(seen, 1, "writer {writer} does not see its write {n}: {receipt:?}");
}

/// The broker has found that `primary` is it, and that both others follow.
async fn until_found(bed: &Bed, primary: &Server) {
    bed.wait_until(&format!("{} is found, and who follows it", primary.name()), || {
        let view = bed.view();
        view.primary_host().is_some_and(|host| &*host.name == primary.name())
            && view.hosts.iter().filter(|host| host.is_up_replica() && host.history == view.history).count() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_no_write_that_a_synchronous_standby_confirmed() {
    let bed = bed_with_journal(2).await;
    let (old, heir, other) = (bed.cluster.primary(), bed.cluster.replica(0), bed.cluster.replica(1));
    old.set("synchronous_standby_names", heir.name()).await.expect("the setting is changed");
    let in_effect = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    poll_until("the standby is synchronous", || async { old.sql(in_effect).await.expect("a count") == "1" }).await;
    let writers = Writers::start(&bed).await;
    writers.until_on(1).await;
    old.kill().await.expect("the primary dies");
    heir.promote().await.expect("the standby is promoted");
    writers.until_on(2).await;
    other.follow(heir).await.expect("the other replica follows");
    old.rebuild_from(heir).await.expect("the old primary comes back as a replica");
    until_found(&bed, heir).await;
    writers.finish(heir).await;
    // What the configuration calls the primary answers reads like any replica.
    let client = bed.client().await;
    poll_until("the old primary serves as a replica", || async {
        let (_, receipt) = read_int(&client, "SELECT count(*) FROM journal", ReadOptions::new()).await;
        (receipt.host.as_str(), receipt.role()) == (old.name(), HostRole::Replica)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_switch_overs_there_and_back_lose_nothing() {
    let bed = bed_with_journal(2).await;
    let (first, second, other) = (bed.cluster.primary(), bed.cluster.replica(0), bed.cluster.replica(1));
    let writers = Writers::start(&bed).await;
    for (timeline, from, to) in [(2, first, second), (3, second, first)] {
        writers.until_on(timeline - 1).await;
        // In order: it hands everything on before it ends.
        from.stop().await.expect("the primary stops");
        to.promote().await.expect("the replica is promoted");
        writers.until_on(timeline).await;
        from.rejoin(to).await.expect("the old primary follows, as it is");
        other.follow(to).await.expect("the other replica follows");
        until_found(&bed, to).await;
    }
    writers.finish(first).await;
}
