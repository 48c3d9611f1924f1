//! Lanes: short, clean reads share a few connections to a replica; each caller gets its own answer, and everything that is
//! not short and clean runs as if there were no lanes.

use std::time::Duration;

use tidegate::{
    config::{Config, LanesConfig},
    dev::ClusterOptions,
};
use tidegate_client::{Client, Consistency, HostRole, ReadOptions, Value, params};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    asking::backends,
    harness::{
        Bed, READ_COUNTER, create_counters, eventual, pause_all, poll_until, read_counter, read_counter_until,
        read_rows, resume_all, set_counter, within,
    },
    reload::apply,
};

pub const POINT: &str = "SELECT v FROM points WHERE id = $1";
pub const ANSWERED: &[&str] = &["tidegate_lane_reads_total"];

/// One replica, with `points(id, v)`: 1000 rows, `v` being seven times `id`. Nothing is late on a busy machine.
pub async fn start(change: impl FnOnce(&mut Config)) -> Bed {
    start_with(1, change).await
}

/// The same with so many replicas.
pub async fn start_with(replicas: usize, change: impl FnOnce(&mut Config)) -> Bed {
    let options = ClusterOptions { replicas, ..ClusterOptions::default() };
    let bed = Bed::with(options, |config| {
        config.lanes.patience = Duration::from_secs(10);
        config.pool.statement_max_age = Duration::from_secs(3600);
        config.consistency.max_lag = Duration::from_secs(300);
        config.consistency.stick_timeout = Duration::from_secs(600);
        change(config);
    })
    .await;
    let client = bed.client().await;
    for sql in [
        "CREATE TABLE points (id int PRIMARY KEY, v int NOT NULL)",
        "INSERT INTO points SELECT n, 7 * n FROM generate_series(1, 1000) n",
    ] {
        client.execute(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    bed.wait_until_caught_up().await;
    bed
}

pub async fn point(client: &Client, id: i64) -> i64 {
    let rows = read_rows(client, POINT, params![id], eventual()).await;
    rows.iter().next().expect("a row").get::<i64>(0).expect("an integer")
}

/// Eight readers, each of which has its own answers, until they are stopped.
pub fn read_on(client: &Client) -> (CancellationToken, JoinSet<()>) {
    let stop = CancellationToken::new();
    let mut readers = JoinSet::new();
    for reader in 0..8 {
        let (client, stop) = (client.clone(), stop.clone());
        readers.spawn(async move {
            let mut n = 0;
            while !stop.is_cancelled() {
                n += 1;
                let id = 1 + (reader * 100 + n) % 1000;
                assert_eq!(point(&client, id).await, 7 * id);
            }
        });
    }
    (stop, readers)
}

/// Repeats a read until lanes have answered it.
pub async fn until_on_lanes(bed: &Bed, client: &Client, sql: &str, params: impl IntoIterator<Item = Value> + Clone) {
    poll_until(&format!("lanes answer {sql}"), || async {
        let before = bed.metric(ANSWERED);
        read_rows(client, sql, params.clone(), eventual()).await;
        bed.metric(ANSWERED) > before
    })
    .await;
}

/// Calls this often: more than it takes for a statement to be judged and measured.
const OFTEN: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_share_two_connections_and_each_gets_its_own_answer() {
    let bed = start(|_| {}).await;
    let client = bed.client().await;
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    let replica = bed.cluster.replica(0);
    // The second lane is worth it once there is more than one read at a time.
    poll_until("there are two lanes", || async {
        tokio::join!(point(&client, 1), point(&client, 2), point(&client, 3), point(&client, 4));
        bed.metric(&["tidegate_lanes{"]) == 2.0
    })
    .await;
    let (before, answered) = (backends(replica, "true").await, bed.metric(ANSWERED));
    let mut callers = JoinSet::new();
    for caller in 0..64 {
        let client = client.clone();
        callers.spawn(async move {
            for n in 0..20 {
                let id = 1 + (caller * 31 + n * 17) % 1000;
                assert_eq!(point(&client, id).await, 7 * id);
            }
        });
    }
    callers.join_all().await;
    let on_lanes = bed.metric(ANSWERED) - answered;
    assert!(on_lanes > 640.0, "{on_lanes} of 1280 reads were answered on lanes");
    let opened = backends(replica, "true").await - before;
    assert!(opened <= 4, "{opened} connections were opened for reads that share two");
    poll_until("the lanes are given back", || std::future::ready(bed.metric(&["tidegate_lanes{"]) == 0.0)).await;
    let granted = || bed.metric(&["tidegate_budget_connections{", "use=\"lane\""]);
    poll_until("and their places in the budget", || std::future::ready(granted() == 0.0)).await;
    // What they set is undone. It is not clean, so it runs on what was a lane.
    let limit = "SELECT current_setting('statement_timeout')";
    for _ in 0..OFTEN {
        let rows = read_rows(&client, limit, [], eventual()).await;
        assert_eq!(rows.iter().next().expect("a row").get::<String>(0).expect("text"), "0");
    }
}

/// A verdict holds where its catalogue is known to be replayed: a replica is asked, it is not left to the next probe.
#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_serves_as_soon_as_replicas_have_replayed_its_catalogue() {
    let bed = start(|config| {
        config.lanes.connections = 1;
        config.lanes.patience = Duration::from_secs(60);
    })
    .await;
    let client = bed.client().await;
    let mut config = bed.config.clone();
    config.probe.interval = Duration::from_secs(300);
    apply(bed.app(), &config).await;
    // What is written next the lane had not replayed when it was opened.
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    // Past the broker: nobody awaits it.
    bed.cluster.primary().sql("INSERT INTO points VALUES (0, 0)").await.expect("it is written");
    bed.cluster.replica(0).catch_up(bed.cluster.primary()).await.expect("it is replayed");
    until_on_lanes(&bed, &client, "SELECT v FROM points WHERE id = $1 AND v > 0", params![1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_clean_or_not_small_never_goes_on_a_lane() {
    let bed = start(|_| {}).await;
    let client = bed.client().await;
    for sql in [
        "CREATE VIEW seen AS SELECT id, v FROM points",
        "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n'",
        "CREATE TABLE secret (n int)",
        "ALTER TABLE secret ENABLE ROW LEVEL SECURITY",
    ] {
        client.execute(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    bed.wait_until_caught_up().await;
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    let with_setting = client.with_setting("app.tenant", "a");
    let causal = eventual().consistency(Consistency::Causal);
    let before = bed.metric(ANSWERED);
    for _ in 0..OFTEN {
        for sql in [
            "SELECT v FROM seen WHERE id = 1",
            "SELECT twice(v) FROM points WHERE id = 1",
            "SELECT n FROM secret",
            "SELECT current_setting('work_mem')",
            "SELECT repeat('x', 100000)",
        ] {
            read_rows(&client, sql, [], eventual()).await;
        }
        read_rows(&with_setting, POINT, params![1], eventual()).await;
        read_rows(&client, POINT, params![1], causal.clone()).await;
        read_rows(&client, POINT, params![1], ReadOptions::new().consistency(Consistency::Strong)).await;
    }
    assert_eq!(bed.metric(ANSWERED), before);
    // Neither does a result that one message cannot hold, for that caller, nor what has grown.
    let rows = "SELECT v, id FROM points WHERE id <= $1";
    until_on_lanes(&bed, &client, rows, params![3]).await;
    let before = bed.metric(ANSWERED);
    let all = read_rows(&client, rows, params![1000], eventual().max_message_bytes(64 << 10)).await;
    assert_eq!(all.iter().count(), 1000);
    let wide = "SELECT id, repeat('x', $1) FROM points WHERE id <= 200";
    until_on_lanes(&bed, &client, wide, params![1]).await;
    let large = read_rows(&client, wide, params![1000], eventual()).await;
    assert_eq!(large.iter().count(), 200);
    assert!(bed.metric(ANSWERED) >= before);
    assert!(bed.metric(&["tidegate_lane_reads_left_total", "large"]) >= 1.0);
    let demotions = || bed.metric(&["tidegate_lane_demotions_total", "large"]);
    assert!(demotions() >= 1.0);
    // What is not large, and too large for one caller's messages, is tried no more for that caller: others go on.
    let half = "SELECT repeat('y', $1) FROM points WHERE id <= 50";
    until_on_lanes(&bed, &client, half, params![1]).await;
    let before = demotions();
    poll_until("its caller is known to take too little", || async {
        let narrow = read_rows(&client, half, params![1000], eventual().max_message_bytes(64 << 10)).await;
        assert_eq!(narrow.iter().count(), 50);
        demotions() > before
    })
    .await;
    until_on_lanes(&bed, &client, half, params![1000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_fit_no_message_of_its_caller_are_refused_also_without_a_row() {
    let bed = start(|_| {}).await;
    let client = bed.client().await;
    let columns = (1..=1200).map(|n| format!(", a_column_with_a_name_that_is_as_long_as_names_may_be_{n:05} int"));
    let table = format!("CREATE TABLE wide (id int{})", columns.collect::<String>());
    client.execute(&table, []).await.expect("it is made");
    let none = "SELECT * FROM wide WHERE id = $1";
    until_on_lanes(&bed, &client, none, params![1]).await;
    let narrow = eventual().max_message_bytes(64 << 10);
    let refused = client.read_with(none, params![1], narrow).await.map(drop).expect_err("1201 columns");
    assert_eq!(refused.reason(), "ROW_TOO_LARGE", "{refused}");
    until_on_lanes(&bed, &client, none, params![1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_holds_for_the_search_path_with_which_it_was_asked_for_and_a_connection_for_its_own() {
    // So long lanes stay unused, too.
    let bed = start(|config| config.lanes.patience = Duration::from_secs(2)).await;
    let client = bed.client().await;
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    // Connections that are open have it, too, and know nothing of it.
    bed.cluster.primary().set("search_path", "public").await.expect("the primary reads it");
    let another = "SELECT v FROM points WHERE id = $1 AND v > 0";
    let answered = bed.metric(ANSWERED);
    poll_until("a verdict for the other path", || async {
        assert_eq!(read_rows(&client, another, params![1], eventual()).await.iter().count(), 1);
        bed.metric(&["tidegate_lane_reads_left_total", "unproved"]) >= 1.0
    })
    .await;
    assert_eq!(bed.metric(ANSWERED), answered, "the replica's path is another");
    bed.cluster.replica(0).set("search_path", "public").await.expect("the replica reads it");
    poll_until("no lane is left of before", || std::future::ready(bed.metric(&["tidegate_lanes{"]) == 0.0)).await;
    until_on_lanes(&bed, &client, another, params![1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_reported_as_without_lanes_and_touches_no_neighbour() {
    let bed = start(|_| {}).await;
    let client = bed.client().await;
    let divide = "SELECT v / $1::int FROM points WHERE id = 1";
    let failing = async |options: ReadOptions| {
        let error = client.read_with(divide, params![0], options).await.map(drop).expect_err("a division by zero");
        let failure = error.failure().expect("the broker's account").clone();
        let postgres = failure.postgres.as_ref().map(|error| (error.sqlstate.clone(), error.message.clone()));
        (error.code(), failure.reason.clone(), failure.outcome, failure.message.clone(), postgres)
    };
    let without = failing(eventual()).await;
    assert_eq!(without.4.as_ref().map(|(sqlstate, _)| sqlstate.as_str()), Some("22012"));
    until_on_lanes(&bed, &client, divide, params![1]).await;
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    let mut neighbours = JoinSet::new();
    for id in 1..=40 {
        let client = client.clone();
        neighbours.spawn(async move { assert_eq!(point(&client, id).await, 7 * id) });
    }
    for _ in 0..OFTEN {
        assert_eq!(failing(eventual()).await, without);
    }
    neighbours.join_all().await;
    assert!(bed.metric(&["tidegate_lane_reads_left_total", "error"]) > 0.0, "some ran on a lane first");
    // What a parameter's text is not is said alike, too.
    let error = client.read_with(POINT, params!["seven"], eventual()).await.map(drop).expect_err("it is no number");
    assert_eq!(error.reason(), "PARAMETER_TYPE", "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_sees_its_own_writes_on_lanes_and_off_them() {
    let bed = start(|_| {}).await;
    create_counters(&bed).await;
    let (writer, other) = (bed.session_client("writer").await, bed.session_client("other").await);
    until_on_lanes(&bed, &other, READ_COUNTER, []).await;
    for n in 1..=10 {
        set_counter(&writer, n).await;
        read_counter_until("a replica answers", &writer, n, |receipt| receipt.role() == HostRole::Replica).await;
    }
    let answered = bed.metric(ANSWERED);
    pause_all(&bed).await;
    set_counter(&writer, 11).await;
    for _ in 0..OFTEN {
        let (read, receipt) = read_counter(&writer).await;
        assert_eq!((read, receipt.role()), (11, HostRole::Primary));
        let (read, receipt) = read_counter(&other).await;
        assert_eq!((read, receipt.role()), (10, HostRole::Replica));
    }
    assert!(bed.metric(ANSWERED) > answered, "the other's reads go on lanes meanwhile");
    resume_all(&bed).await;
    read_counter_until("the replica has it", &writer, 11, |receipt| receipt.role() == HostRole::Replica).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_becomes_a_view_is_read_on_lanes_no_more() {
    let bed = start(|_| {}).await;
    let client = bed.client().await;
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    // Through the broker, which knows at once: a verdict of before holds for nobody.
    for sql in [
        "ALTER TABLE points RENAME TO kept",
        "CREATE FUNCTION leaks() RETURNS int LANGUAGE sql AS $$ SELECT length(set_config('app.leak', 'x', false)) $$",
        "CREATE VIEW points AS SELECT id, v + leaks() - 1 AS v FROM kept",
    ] {
        client.execute(sql, []).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    bed.wait_until_caught_up().await;
    let answered = bed.metric(ANSWERED);
    for id in 1..=40 {
        assert_eq!(point(&client, id).await, 7 * id);
        let leak = read_rows(&client, "SELECT coalesce(current_setting('app.leak', true), '')", [], eventual()).await;
        assert_eq!(leak.iter().next().expect("a row").get::<String>(0).expect("text"), "", "for the next caller");
    }
    assert_eq!(bed.metric(ANSWERED), answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_turns_lanes_off_and_on_under_load_without_a_failed_call() {
    let bed = start(|_| {}).await;
    let client = bed.client().await;
    until_on_lanes(&bed, &client, POINT, params![1]).await;
    let (stop, readers) = read_on(&client);
    for _ in 0..3 {
        let off = Config { lanes: LanesConfig { connections: 0, ..bed.config.lanes.clone() }, ..bed.config.clone() };
        assert_eq!(apply(bed.app(), &off).await, ["lanes.connections: 2 → 0"]);
        poll_until("no lane is left", || std::future::ready(bed.metric(&["tidegate_lanes{"]) == 0.0)).await;
        poll_until("reads run elsewhere", || async {
            let answered = bed.metric(ANSWERED);
            point(&client, 1).await;
            bed.metric(ANSWERED) == answered
        })
        .await;
        let answered = bed.metric(ANSWERED);
        apply(bed.app(), &bed.config).await;
        poll_until("lanes answer again", || std::future::ready(bed.metric(ANSWERED) > answered)).await;
    }
    stop.cancel();
    within("the readers end", readers.join_all()).await;
}
