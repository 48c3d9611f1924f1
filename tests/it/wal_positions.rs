//! Positions that an idle primary shows above everything that replicas can replay: page headers, and the unflushed WAL
//! of other transactions. Neither may keep a session on the primary.

use tidegate::{
    dev::{ClusterOptions, Server},
    model::Lsn,
};
use tidegate_client::{Begin, Client, HostRole, RouteReason};

use crate::harness::{Bed, create_counters, poll_until, read_counter_until, set_counter};

/// Fills WAL pages until the last record ends with its page, and the insert position stands behind the next header. A
/// record of this kind is as long as its text and 55 bytes more; pages have 8 KiB, segments here 1 MiB.
const FILL_PAGE: &str = "DO $$ DECLARE room int8; at int8; BEGIN LOOP \
     at := pg_current_wal_insert_lsn() - '0/0'::pg_lsn; \
     EXIT WHEN at % 8192 = 24 AND at % 1048576 >= 8192; \
     room := 8192 - at % 8192; \
     PERFORM pg_logical_emit_message(false, 'x', repeat('x', CASE WHEN room < 600 THEN 600 ELSE (room - 55)::int END)); \
     END LOOP; END $$";

/// Attempts until nothing else wrote WAL meanwhile: a server does so on its own, though rarely.
const ATTEMPTS: usize = 20;

/// Small segments, no page flushed without need, and as little WAL of the server's own as possible.
async fn quiet_bed(settings: &[(&str, &str)]) -> Bed {
    let quiet = [("autovacuum", "off"), ("checkpoint_timeout", "1h")];
    let settings = quiet.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let options = ClusterOptions {
        replicas: 1,
        wal_segment_mb: Some(1),
        settings: settings.collect(),
        ..ClusterOptions::default()
    };
    // A statement's verdict awaits a position, too.
    Bed::with(options, |config| config.lanes.connections = 0).await
}

async fn lsn(server: &Server, sql: &str) -> Lsn {
    server.sql_value(sql).await.expect("a position")
}

async fn insert_position(bed: &Bed) -> Lsn {
    lsn(bed.cluster.primary(), "SELECT pg_current_wal_insert_lsn()").await
}

/// A write that takes the insert position for its session's and leaves it where it is.
async fn write_nothing(client: &Client) {
    client.execute("UPDATE counters SET n = n WHERE id = -1", []).await.expect("the write succeeds");
}

/// How often the broker has made the primary flush since `start`: such a record is known by its prefix.
async fn forced_flushes(bed: &Bed, start: Lsn) -> usize {
    let wal = bed.cluster.folder().join(bed.cluster.primary().name()).join("pg_wal");
    let mut command = bed.cluster.installation().command("pg_waldump");
    command.arg("-p").arg(wal).arg("-s").arg(start.to_string()).args(["-r", "LogicalMessage"]);
    let output = command.output().await.expect("pg_waldump runs");
    String::from_utf8_lossy(&output.stdout).matches("prefix \"tidegate\"").count()
}

/// Once the primary is idle with its insert position behind a header, `header_bytes` above the last record, a session
/// whose position this is reads from the replica. False if the server wrote something meanwhile.
async fn session_is_free_behind_a_header(bed: &Bed, drive: &str, header_bytes: u64) -> bool {
    let client = bed.session_client("writer").await;
    let primary = bed.cluster.primary();
    primary.sql(drive).await.expect("the script runs");
    let above = insert_position(bed).await;
    let end = Lsn::new(above.get() - header_bytes);
    let flush = "SELECT pg_current_wal_flush_lsn()";
    poll_until("the page is flushed", async || lsn(primary, flush).await >= end).await;

    write_nothing(&client).await;
    let receipt = read_counter_until("a replica", &client, 0, |receipt| receipt.role() == HostRole::Replica).await;
    assert_eq!(receipt.reason(), RouteReason::CaughtUp);
    let still = insert_position(bed).await == above && receipt.required_lsn == end.to_string();
    if still {
        let replayed = lsn(bed.cluster.replica(0), "SELECT pg_last_wal_replay_lsn()").await;
        assert!(replayed < above, "the replica cannot have replayed a header: {replayed} {above}");
        assert_eq!(forced_flushes(bed, end).await, 0, "nothing was left to flush");
    }
    still
}

async fn is_free_in_one_of_the_attempts(drive: &str, header_bytes: u64) {
    let bed = quiet_bed(&[]).await;
    create_counters(&bed).await;
    for _ in 0..ATTEMPTS {
        if session_is_free_behind_a_header(&bed, drive, header_bytes).await {
            return;
        }
    }
    panic!("the insert position has moved in each of {ATTEMPTS} attempts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_header_does_not_keep_a_session_on_the_primary() {
    is_free_in_one_of_the_attempts(FILL_PAGE, 24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_header_does_not_keep_a_session_on_the_primary() {
    is_free_in_one_of_the_attempts("SELECT pg_switch_wal()", 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_transactions_unflushed_wal_does_not_keep_a_session_on_the_primary() {
    let bed = quiet_bed(&[("wal_writer_delay", "10s")]).await;
    create_counters(&bed).await;
    let (writer, other) = (bed.session_client("writer").await, bed.session_client("other").await);
    let mut stream = other.session().await.expect("the session opens");
    let mut open = stream.begin(Begin::new()).await.expect("the transaction begins");
    open.write("INSERT INTO counters VALUES (2, 0)", []).await.expect("the row is inserted");

    write_nothing(&writer).await;
    let above = insert_position(&bed).await;
    let flushed = lsn(bed.cluster.primary(), "SELECT pg_current_wal_flush_lsn()").await;
    assert!(flushed < above, "the open transaction's WAL is not flushed: {flushed} {above}");
    let receipt = read_counter_until("a replica", &writer, 0, |receipt| receipt.role() == HostRole::Replica).await;
    assert_eq!((receipt.reason(), receipt.required_lsn), (RouteReason::CaughtUp, above.to_string()));
    assert_eq!(forced_flushes(&bed, flushed).await, 1, "once is enough");
    open.commit().await.expect("the transaction was open all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_do_not_wait_for_the_disk_are_seen_by_their_session_and_reach_replicas() {
    let bed = quiet_bed(&[("wal_writer_delay", "10s"), ("synchronous_commit", "off")]).await;
    create_counters(&bed).await;
    let client = bed.session_client("writer").await;
    // What was written before is flushed first, so that each round counts its own flush alone.
    set_counter(&client, 0).await;
    read_counter_until("a replica", &client, 0, |receipt| receipt.role() == HostRole::Replica).await;
    for n in 1..=5 {
        let before = insert_position(&bed).await;
        set_counter(&client, n).await;
        let receipt = read_counter_until("a replica", &client, n, |receipt| receipt.role() == HostRole::Replica).await;
        assert_eq!(receipt.reason(), RouteReason::CaughtUp);
        assert_eq!(forced_flushes(&bed, before).await, 1, "the first forced flush reaches the disk");
    }
}
