//! CAUSAL reads never go back in time: what one read of a session saw, its next one sees, whichever host answers (rule 19).

use std::time::Duration;

use tidegate::{
    broker::{Context, ReadRequest, StatementText},
    clock,
    dev::ClusterOptions,
    model::{Deadline, Lsn},
};
use tidegate_client::{Begin, Client, Consistency, HostRole, Isolation, ReadOptions, Receipt, RouteReason, Session};
use tokio::task::JoinSet;

use crate::harness::{
    Bed, PATIENCE, READ_COUNTER, create_counters, poll_until, read_counter, read_int, read_rows, set_counter, stop,
    within,
};

fn causal() -> ReadOptions {
    ReadOptions::new().consistency(Consistency::Causal)
}

async fn look(client: &Client) -> (i64, Receipt) {
    read_int(client, READ_COUNTER, causal()).await
}

/// Reads until the counter is seen to be `n`.
async fn look_until(client: &Client, n: i64) -> Receipt {
    within("the counter is seen", async {
        loop {
            let (seen, receipt) = look(client).await;
            if seen == n {
                return receipt;
            }
        }
    })
    .await
}

/// Reads often enough that every host has had its turn.
async fn never_goes_back(client: &Client, n: i64) {
    for _ in 0..20 {
        let (seen, receipt) = look(client).await;
        assert_eq!(seen, n, "it went back: {receipt:?}");
    }
}

/// The counter is 1, the first replica shows that, and the second still shows 0.
async fn with_one_replica_behind(bed: &Bed) {
    create_counters(bed).await;
    bed.cluster.replica(1).pause_replay().await.expect("replay pauses");
    set_counter(&bed.client().await, 1).await;
    bed.cluster.replica(0).catch_up(bed.cluster.primary()).await.expect("the other replays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_not_go_back_to_a_replica_that_is_behind_what_it_saw() {
    let bed = Bed::start().await;
    with_one_replica_behind(&bed).await;
    let behind = bed.cluster.replica(1).name().to_owned();
    let reader = bed.session_client("reader").await;
    let receipt = look_until(&reader, 1).await;
    assert_eq!(receipt.role(), HostRole::Replica);
    never_goes_back(&reader, 1).await;
    // The same session's other reads are bound too; another session's are not.
    assert_eq!(read_counter(&reader).await.0, 1);
    let other = bed.session_client("other").await;
    within("another session sees the old row", async { while read_counter(&other).await.0 != 0 {} }).await;

    // A replica serves the session on, and the other one again once it has caught up.
    let on_replica = async |name: &str| while look(&reader).await.1.host != name {};
    within("the replica that showed it", on_replica(bed.cluster.replica(0).name())).await;
    bed.cluster.replica(1).resume_replay().await.expect("replay resumes");
    within("the other, caught up", on_replica(&behind)).await;
    never_goes_back(&reader, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_travels_in_tokens_also_to_another_broker() {
    let bed = Bed::start().await;
    // Before a replica stands still: it would never be found to be fresh.
    let second = bed.second_broker(&bed.config).await;
    with_one_replica_behind(&bed).await;
    let url = format!("http://{}", second.grpc_address());
    // Without a session: the token of each answer goes with the next call.
    let reader = bed.client().await;
    look_until(&reader, 1).await;
    never_goes_back(&reader, 1).await;
    let rows = read_rows(&reader, READ_COUNTER, [], causal()).await;
    let there = Client::builder().database(tidegate::dev::DATABASE).position(rows.position());
    let there = there.remember_positions(false).connect(url).await.expect("a connection");
    never_goes_back(&there, 1).await;
    // Nor in the requests of one stream.
    let mut session = bed.client().await.session().await.expect("the session opens");
    let mut look = async || {
        let rows = session.read(READ_COUNTER, [], causal()).await.expect("a read").rows().await.expect("rows");
        rows.iter().next().expect("a row").get::<i64>(0).expect("a number")
    };
    within("the counter is seen", async { while look().await != 1 {} }).await;
    for _ in 0..20 {
        assert_eq!(look().await, 1);
    }
    stop(second).await;
}

/// A result of many parts, of which each row has the counter.
const LARGE: &str = "SELECT n, repeat('x', 1000) FROM counters, generate_series(1, 100000) WHERE id = 1";

/// Takes the first part of a large result, which shows whether the counter is 1, and leaves.
async fn glimpse(client: &Client, options: ReadOptions) -> bool {
    let mut stream = client.read_with(LARGE, [], options).await.expect("the read starts");
    let batch = stream.next().await.expect("a part").expect("a part");
    batch.row(0).expect("a row").get::<i64>(0).expect("a number") == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_cut_binds_by_what_its_rows_showed() {
    let bed = Bed::start().await;
    with_one_replica_behind(&bed).await;
    let client = bed.session_client("leaves").await;
    within("the first rows show it", async { while !glimpse(&client, causal()).await {} }).await;
    never_goes_back(&client, 1).await;
    // Not for long on the primary: what the cut read had seen was asked for behind it.
    within("a replica", async { while look(&client).await.1.role() != HostRole::Replica {} }).await;
    never_goes_back(&client, 1).await;

    // An error behind the first rows.
    let client = bed.session_client("fails").await;
    let failing =
        "SELECT n, repeat('x', 1000), 1 / (50000 - i) FROM counters, generate_series(1, 100000) i WHERE id = 1";
    within("the first rows show it", async {
        loop {
            let mut stream = client.read_with(failing, [], causal()).await.expect("the read starts");
            let mut shown = false;
            let error = loop {
                match stream.next().await {
                    Ok(Some(batch)) => shown = batch.row(0).expect("a row").get::<i64>(0).expect("a number") == 1,
                    Ok(None) => panic!("it fails"),
                    Err(error) => break error,
                }
            };
            assert!(error.to_string().contains("division by zero"), "{error}");
            if shown {
                return;
            }
        }
    })
    .await;
    never_goes_back(&client, 1).await;
    within("a replica", async { while look(&client).await.1.role() != HostRole::Replica {} }).await;

    // The connection is lost behind the first rows: nobody knows, and the primary answers.
    let client = bed.session_client("is cut off").await;
    within("the first rows show it", async {
        loop {
            let mut stream = client.read_with(LARGE, [], causal()).await.expect("the read starts");
            let batch = stream.next().await.expect("a part").expect("a part");
            if batch.row(0).expect("a row").get::<i64>(0).expect("a number") == 1 {
                let victim = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%generate_series%' \
                     AND usename = 'tidegate' AND state = 'active'";
                bed.cluster.replica(0).sql(victim).await.expect("the backend ends");
                while let Ok(Some(_)) = stream.next().await {}
                return;
            }
        }
    })
    .await;
    let (n, receipt) = look(&client).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::PositionUnknown));
}

async fn see(session: &mut Session, begin: Begin) -> i64 {
    let mut transaction = session.begin(begin).await.expect("it begins");
    let rows = transaction.read(READ_COUNTER, []).await.expect("a read").rows().await.expect("rows");
    let counter = rows.iter().next().expect("a row").get::<i64>(0).expect("a number");
    // What counts is what was seen, whatever becomes of the transaction.
    transaction.rollback().await.expect("it is rolled back");
    counter
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_sees_binds_what_comes_behind_it_also_on_the_primary() {
    let bed = Bed::start().await;
    with_one_replica_behind(&bed).await;
    let begin = || Begin::new().on_replica(&causal());
    for isolation in [Isolation::ReadCommitted, Isolation::RepeatableRead] {
        let client = bed.session_client(&format!("{isolation:?}")).await;
        let mut session = client.session().await.expect("the session opens");
        let seen = async { while see(&mut session, begin().isolation(isolation)).await != 1 {} };
        within("the counter is seen", seen).await;
        for _ in 0..20 {
            assert_eq!(see(&mut session, begin().isolation(isolation)).await, 1, "{isolation:?}");
        }
        never_goes_back(&client, 1).await;
    }

    // Now both are behind; SERIALIZABLE runs on the primary, and shows what was never written by the session.
    bed.cluster.replica(0).pause_replay().await.expect("replay pauses");
    set_counter(&bed.client().await, 2).await;
    let written: Lsn = bed.cluster.primary().sql_value("SELECT pg_current_wal_insert_lsn()").await.expect("a position");
    let client = bed.session_client("from the primary").await;
    let mut session = client.session().await.expect("the session opens");
    assert_eq!(see(&mut session, begin().isolation(Isolation::Serializable)).await, 2);
    let (n, receipt) = look(&client).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (2, HostRole::Primary, RouteReason::Behind));
    assert!(receipt.required_lsn.parse::<Lsn>().expect("a position") >= written, "{receipt:?}");
}

/// Drops tables while it commits, so that its redo takes a while behind the moment when it is visible.
const MANY_TABLES: usize = 1500;

/// One large commit, whose end no replica has replayed when the first of them shows it. Answers how often what was seen
/// there was half replayed, as the positions required by the reads behind it say.
async fn one_large_commit(bed: &Bed, n: i64) -> usize {
    let (primary, behind) = (bed.cluster.primary(), bed.cluster.replica(1));
    let make = format!(
        "DO $$ BEGIN FOR i IN 1..{MANY_TABLES} LOOP EXECUTE 'CREATE TABLE t' || i || ' (a int)'; END LOOP; END $$"
    );
    let drop = format!("DO $$ BEGIN FOR i IN 1..{MANY_TABLES} LOOP EXECUTE 'DROP TABLE t' || i; END LOOP; END $$");
    let writer = bed.client().await;
    writer.execute(&make, []).await.expect("the tables are made");
    let mut session = writer.session().await.expect("the session opens");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write(&drop, []).await.expect("the tables are dropped");
    transaction.write(&format!("UPDATE counters SET n = {n} WHERE id = 1"), []).await.expect("it is updated");
    // All but the commit itself is flushed, and replayed by both. Then one stops right there.
    primary.sql("SELECT pg_logical_emit_message(true, 'test', '')").await.expect("a flush");
    bed.wait_until_caught_up().await;
    for replica in bed.cluster.replicas() {
        replica.catch_up(primary).await.expect("it is replayed");
    }
    behind.pause_replay().await.expect("replay pauses");
    let mut readers = JoinSet::new();
    for reader in 0..4 {
        let client = bed.session_client(&format!("reader {reader} of {n}")).await;
        readers.spawn(async move {
            let (mut seen, mut half_replayed, mut enough) = (n - 1, 0, 0);
            while enough < 50 {
                let (now, receipt) = look(&client).await;
                assert!(now >= seen, "it went back from {seen}: {receipt:?}");
                seen = now;
                enough += usize::from(seen == n);
                // Records end at multiples of eight: more is required than what was replayed.
                let required = receipt.required_lsn.parse::<Lsn>().map_or(0, Lsn::get);
                half_replayed += usize::from(required % 8 == 1 && seen == n);
            }
            half_replayed
        });
    }
    transaction.commit().await.expect("it commits");
    let mut half_replayed = 0;
    while let Some(ended) = within("the readers see it", readers.join_next()).await {
        half_replayed += ended.expect("nobody goes back in time");
    }
    behind.resume_replay().await.expect("replay resumes");
    bed.wait_until_caught_up().await;
    half_replayed
}

/// A commit is visible on a replica before its replay position moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_visible_before_it_is_replayed_is_not_unseen() {
    let settings = [("autovacuum", "off"), ("checkpoint_timeout", "1h"), ("max_locks_per_transaction", "256")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let bed = Bed::with(ClusterOptions { settings, ..ClusterOptions::default() }, |_| {}).await;
    create_counters(&bed).await;
    let began = clock::now();
    for n in 1.. {
        if one_large_commit(&bed, n).await > 0 {
            return;
        }
        assert!(clock::now() - began < PATIENCE * 2, "no read met a commit that was half replayed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_not_go_back_over_a_failover() {
    let bed = Bed::start().await;
    with_one_replica_behind(&bed).await;
    let reader = bed.session_client("reader").await;
    look_until(&reader, 1).await;
    let early = bed.session_client("early").await;
    look_until(&early, 1).await;
    let (promoted, behind) = (bed.cluster.replica(0), bed.cluster.replica(1));
    bed.cluster.primary().kill().await.expect("the primary is killed");
    bed.wait_until("it is known to be gone", || bed.view().primary.is_none()).await;
    // What has shown it still does; without a primary nobody else can.
    let receipt = look_until(&reader, 1).await;
    assert_eq!(receipt.host, promoted.name());
    promoted.promote().await.expect("it is promoted");
    // What shows a promotion that the broker has yet to see holds its session on the primary for a stick timeout.
    let served_by = async |client: &Client, name: &str, role: HostRole| {
        let Ok(stream) = client.read_with(READ_COUNTER, [], causal()).await else { return false };
        let Ok(rows) = stream.rows().await else { return false };
        let (seen, receipt) = (rows.iter().next().map(|row| row.get::<i64>(0).expect("a number")), rows.receipt());
        assert_eq!(seen, Some(1), "it went back: {receipt:?}");
        (&*receipt.host, receipt.role()) == (name, role)
    };
    poll_until("the new primary serves", || served_by(&early, promoted.name(), HostRole::Primary)).await;
    poll_until("it serves the session", || served_by(&reader, promoted.name(), HostRole::Primary)).await;
    behind.resume_replay().await.expect("replay resumes");
    behind.follow(promoted).await.expect("it follows");
    bed.wait_until("the other replica is known to follow", || {
        let view = bed.view();
        view.hosts[2].history.is_some() && view.hosts[2].history == view.history
    })
    .await;
    poll_until("the other replica serves", || served_by(&reader, behind.name(), HostRole::Replica)).await;
    never_goes_back(&reader, 1).await;
    never_goes_back(&early, 1).await;
}

/// Where a large result is read slowly its deadline passes in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_deadline_passed_binds_too() {
    let bed = Bed::start().await;
    with_one_replica_behind(&bed).await;
    let client = bed.session_client("late").await;
    let late = causal().timeout(Duration::from_secs(1));
    within("the first rows show it", async {
        loop {
            let slow = "SELECT n, repeat('x', 100000), CASE WHEN i > 20 THEN pg_sleep(60) END \
                 FROM counters, generate_series(1, 40) i WHERE id = 1";
            // On a busy machine the deadline may come first.
            let Ok(mut stream) = client.read_with(slow, [], late.clone()).await else { continue };
            let Ok(Some(batch)) = stream.next().await else { continue };
            let shown = batch.row(0).expect("a row").get::<i64>(0).expect("a number") == 1;
            while let Ok(Some(_)) = stream.next().await {}
            if shown {
                return;
            }
        }
    })
    .await;
    never_goes_back(&client, 1).await;
    within("a replica", async { while look(&client).await.1.role() != HostRole::Replica {} }).await;
}

/// Two parts lie ready for a caller who does not read them, and the last one waits for room until the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_result_whose_end_was_not_read_says_what_its_rows_showed() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let batch = bed.app().broker().settings().batch_bytes;
    let sql = format!("SELECT repeat('x', {batch}) FROM generate_series(1, 2)");
    let mut read = bed.app().broker().read(ReadRequest {
        context: Context { database: tidegate::dev::DATABASE.into(), ..Context::default() },
        statement: StatementText { sql, params: Vec::new() },
        consistency_is_stated: true,
        consistency: tidegate::model::Consistency::Causal,
        max_wait: None,
        max_message_bytes: 8 * batch,
        deadline: Deadline::after(clock::now(), Duration::from_secs(3)),
    });
    poll_until("the read has ended", async || {
        let text = bed.app().broker().metrics().render();
        text.lines().any(|line| line.starts_with("tidegate_cancellations_total{") && line.contains("deadline"))
    })
    .await;
    let failure = within("the end", async {
        loop {
            match read.next().await {
                Some(Ok(part)) => assert!(part.summary.is_none(), "there was no room for it"),
                Some(Err(failure)) => return failure,
                None => panic!("it fails"),
            }
        }
    })
    .await;
    assert_eq!(failure.reason.as_str(), "DEADLINE_EXCEEDED");
    assert_ne!(failure.position, "", "what was shown is not forgotten");
}
