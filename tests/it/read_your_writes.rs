//! A session sees its own writes, whatever the replicas do.

use std::time::Duration;

use tidegate_client::{Client, Consistency, HostRole, ReadOptions, Receipt, RouteReason};
use tokio::task::JoinSet;

use crate::harness::{
    Bed, PATIENCE, READ_COUNTER, create_counters, pause_all, read_counter, read_int, resume_all, set_counter, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_from_the_primary_while_replay_is_paused_and_others_do_not() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let (writer, other) = (bed.session_client("writer").await, bed.session_client("other").await);
    set_counter(&writer, 1).await;

    let (n, receipt) = read_counter(&writer).await;
    assert_eq!(n, 1);
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Primary, RouteReason::Behind));

    let (n, receipt) = read_counter(&other).await;
    assert_eq!(n, 0, "replay is paused, so a replica shows the old row");
    assert_eq!(receipt.role(), HostRole::Replica);

    resume_all(&bed).await;
    bed.wait_until_caught_up().await;
    let (n, receipt) = read_counter(&writer).await;
    assert_eq!(n, 1);
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::CaughtUp));
}

/// What the reads of some sessions have shown.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    violations: usize,
    on_primary: usize,
    on_replicas: usize,
}

impl Tally {
    fn count(&mut self, read: i64, written: i64, receipt: &Receipt) {
        self.violations += usize::from(read != written);
        match receipt.role() {
            HostRole::Primary => self.on_primary += 1,
            _ => self.on_replicas += 1,
        }
    }

    fn add(&mut self, other: Tally) {
        self.violations += other.violations;
        self.on_primary += other.on_primary;
        self.on_replicas += other.on_replicas;
    }
}

/// One session with a row of its own: each round writes and reads, and some read on until a replica has answered.
async fn write_and_read(client: Client, id: i64, rounds: i64, until_replica_every: i64) -> Tally {
    let mut tally = Tally::default();
    let read = format!("SELECT n FROM counters WHERE id = {id}");
    for n in 1..=rounds {
        let write = format!("UPDATE counters SET n = {n} WHERE id = {id}");
        client.execute(&write, []).await.expect("the write succeeds");
        let until_replica = n % until_replica_every == 0;
        within("a replica answers the session", async {
            loop {
                let (value, receipt) = read_int(&client, &read, ReadOptions::new()).await;
                tally.count(value, n, &receipt);
                if !until_replica || receipt.role() == HostRole::Replica {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    tally
}

/// 40 sessions on 4 connections, 25 rounds each.
async fn run_sessions(bed: &Bed, until_replica_every: i64) -> Tally {
    let rows = "INSERT INTO counters SELECT id, 0 FROM generate_series(100, 139) AS id";
    bed.client().await.execute(rows, []).await.expect("the rows are inserted");
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(bed.session_client("unused").await);
    }
    let mut sessions = JoinSet::new();
    for id in 100..140 {
        let client = connections[id % 4].for_session(format!("session {id}"));
        sessions.spawn(write_and_read(client, id as i64, 25, until_replica_every));
    }
    let mut all = Tally::default();
    while let Some(tally) = sessions.join_next().await {
        all.add(tally.expect("the session ends"));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_see_their_writes_under_delayed_replay() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    for (replica, delay_ms) in bed.cluster.replicas().iter().zip([150, 300]) {
        replica.apply_delay(Duration::from_millis(delay_ms)).await.expect("replay is delayed");
    }
    let tally = run_sessions(&bed, 6).await;
    assert_eq!(tally.violations, 0, "{tally:?}");
    // Each session has read from a replica four times, and never at once after a write.
    assert!(tally.on_replicas >= 160 && tally.on_primary >= 160, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_see_their_writes_while_one_replica_is_paused() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    bed.cluster.replica(0).pause_replay().await.expect("replay pauses");
    let tally = run_sessions(&bed, 1).await;
    assert_eq!(tally.violations, 0, "{tally:?}");
    assert!(tally.on_replicas >= 1000, "the other replica serves: {tally:?}");
    let from_paused = bed.metric(&["tidegate_routes_total", bed.cluster.replica(0).name(), "CAUGHT_UP"]);
    assert_eq!(from_paused, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_used_from_two_connections_sees_the_writes_of_both() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    for replica in bed.cluster.replicas() {
        replica.apply_delay(Duration::from_millis(150)).await.expect("replay is delayed");
    }
    let clients = [bed.session_client("shared").await, bed.session_client("shared").await];
    let mut roles = [0, 0];
    for n in 1..=30 {
        let (writer, reader) = (&clients[n % 2], &clients[(n + 1) % 2]);
        set_counter(writer, n as i64).await;
        let mut receipt = read_and_check(reader, n as i64).await;
        roles[usize::from(receipt.role() == HostRole::Replica)] += 1;
        while n % 10 == 0 && receipt.role() != HostRole::Replica {
            receipt = within("a replica answers", read_and_check(reader, n as i64)).await;
            roles[usize::from(receipt.role() == HostRole::Replica)] += 1;
        }
    }
    assert!(roles[0] >= 25 && roles[1] >= 3, "{roles:?}");
}

async fn read_and_check(client: &Client, n: i64) -> Receipt {
    let (read, receipt) = read_counter(client).await;
    assert_eq!(read, n, "{receipt:?}");
    receipt
}

#[tokio::test(flavor = "multi_thread")]
async fn eventual_and_bounded_reads_ignore_positions_and_return_them() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let client = bed.session_client("writer").await;
    let token = set_counter(&client, 1).await;
    let bearer = bed.connect(Client::builder().session_id("writer").position(&token)).await;

    let eventual = ReadOptions::new().consistency(Consistency::Eventual);
    let bounded = ReadOptions::new().max_staleness(PATIENCE);
    for options in [eventual, bounded] {
        let bearer = bearer.clone();
        let rows = crate::harness::read_rows(&bearer, READ_COUNTER, [], options).await;
        let receipt = rows.receipt();
        assert_eq!(rows.iter().next().expect("a row").get::<i64>(0).expect("an integer"), 0);
        assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::NoPosition));
        let returned = bed.connect(Client::builder().position(rows.position())).await;
        let (n, receipt) = read_counter(&returned).await;
        assert_eq!((n, receipt.role()), (1, HostRole::Primary), "the token that came back still binds");
    }

    let strong = ReadOptions::new().consistency(Consistency::Strong);
    let (n, receipt) = read_int(&bed.client().await, READ_COUNTER, strong).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Strong));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_leaves_a_replica_that_is_further_behind() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let client = bed.client().await;
    set_counter(&client, 1).await;
    let bounded = ReadOptions::new().max_staleness(Duration::from_millis(100));
    // Old rows are allowed for a while; then the bound is passed, and stays passed.
    within("the primary answers", async {
        while read_int(&client, READ_COUNTER, bounded.clone()).await.1.role() == HostRole::Replica {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (n, receipt) = read_int(&client, READ_COUNTER, bounded).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));
}
