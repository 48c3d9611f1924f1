//! A database is moved to a cluster of its own: by sessions, which stay where they wrote until that has expired; or its
//! reads first, for as long as the new hosts follow the old primary.

use std::{collections::BTreeSet, time::Duration};

use tidegate::{
    config::{ClusterConfig, ConfiguredRole, HostConfig, PostgresUrl, RolloutConfig},
    dev::{Cluster, ClusterOptions, DATABASE, Server},
    model::{Draw, Percentage},
    postgres::KeyTable,
};
use tidegate_client::{
    AdminClient, Client, Consistency, HostRole, ReadOptions, Receipt, RouteReason, WriteOptions,
    proto::{CallContext, ExplainRouteRequest},
};

use crate::{
    asking::{begin, commit, done, go, primary_alone, session_write},
    check_command::tidegate,
    harness::{
        Bed, config_for, create_counters, pause_all, read_counter, read_counter_until, read_int, resume_all,
        set_counter, within,
    },
};

pub const OWN: &str = "own";

pub fn rollout() -> RolloutConfig {
    RolloutConfig {
        database: DATABASE.into(),
        cluster: OWN.into(),
        dbname: DATABASE.into(),
        percentage_hundredths: 0,
        use_own: None,
        reuse_primary: false,
    }
}

/// Two clusters of one server each, and a table on both that says which it is: 1 on the origin, 2 on the own one.
pub async fn two_clusters(stick_timeout: Duration) -> (Bed, Cluster) {
    let own = own_cluster().await;
    let bed = Bed::with(primary_alone(), |config| {
        config.clusters.extend(config_for(&own).clusters);
        config.rollouts.push(rollout());
        config.consistency.stick_timeout = stick_timeout;
        config.consistency.max_lag = Duration::from_millis(500);
        config.consistency.max_clock_skew = Duration::ZERO;
        // Questions beside reads would have connections of their own, and some tests know connections again.
        config.lanes.connections = 0;
    })
    .await;
    make_sides(&bed, &own).await;
    bed.init_keys().await;
    (bed, own)
}

pub async fn own_cluster() -> Cluster {
    Cluster::start(ClusterOptions { name: OWN.into(), ..primary_alone() }).await.expect("the cluster starts")
}

pub async fn make_sides(bed: &Bed, own: &Cluster) {
    for (server, n) in [(bed.cluster.primary(), 1), (own.primary(), 2)] {
        let table = format!(
            "CREATE TABLE sides (n int, note text); INSERT INTO sides VALUES ({n}, ''); GRANT ALL ON sides TO PUBLIC;"
        );
        server.sql(&table).await.expect("the table is made");
    }
}

fn percent(hundredths: u16) -> Percentage {
    Percentage::from_hundredths(hundredths).expect("a percentage")
}

pub fn move_to(bed: &Bed, use_own: Option<bool>, hundredths: u16) {
    bed.app().broker().set_rollout(DATABASE, use_own, percent(hundredths)).expect("the database is being moved");
}

/// Which side a read sees, with its receipt.
async fn side(client: &Client, options: ReadOptions) -> (i64, Receipt) {
    let (n, receipt) = read_int(client, "SELECT n FROM sides", options).await;
    assert_eq!(n == 2, receipt.cluster == OWN, "{receipt:?}");
    (n, receipt)
}

pub async fn read_side(client: &Client) -> i64 {
    side(client, ReadOptions::new()).await.0
}

/// Which side a write goes to, and its token.
pub async fn write_side(client: &Client, key: &str) -> (bool, String) {
    let options = if key.is_empty() { WriteOptions::new() } else { WriteOptions::new().idempotency_key(key) };
    let written = client.write_with(["UPDATE sides SET note = note || '.'".into()], options).await;
    let written = written.expect("the write succeeds");
    (written.receipt.cluster == OWN, written.position)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_move_by_their_draw_and_whoever_is_forced() {
    let (bed, _own) = two_clusters(Duration::from_secs(30)).await;
    let anybody = bed.client().await;
    let sessions: Vec<String> = (0..40).map(|n| format!("session {n}")).collect();
    let mut before = vec![false; sessions.len()];
    let operator = AdminClient::connect(bed.url()).await.expect("the broker accepts connections");
    for hundredths in [0, 2_500, 6_000, 10_000] {
        let percentage = f64::from(hundredths) / 100.0;
        let set = operator.set_rollout(DATABASE, None, percentage).await.expect("the database is being moved");
        assert_eq!(operator.rollout(DATABASE).await.expect("it is told"), set);
        assert_eq!((set.percentage, set.own_cluster.as_str()), (percentage, OWN));
        for (session, before) in sessions.iter().zip(&mut before) {
            let moved = read_side(&anybody.for_session(session.clone())).await == 2;
            let context = CallContext { database: DATABASE.into(), session_id: session.clone(), ..Default::default() };
            let call = ExplainRouteRequest { context: Some(context), ..Default::default() };
            let told = operator.explain(call).await.expect("it is explained");
            assert_eq!(told.cluster == OWN, moved, "{session}: {told:?}");
            assert_eq!(moved, percent(hundredths).takes_in(Draw::of(DATABASE, session)), "{session} at {hundredths}");
            assert!(moved || !*before, "{session} went back");
            *before = moved;
        }
        assert_eq!(read_side(&anybody).await, 1, "without a session it stays");
    }
    for wrong in [100.5, -1.0, 12.345] {
        let error = operator.set_rollout(DATABASE, None, wrong).await.expect_err("no percentage");
        assert_eq!(error.reason(), "FIELD_INVALID", "{wrong}: {error}");
    }
    for (forced, n) in [(true, 2), (false, 1)] {
        move_to(&bed, Some(forced), 5_000);
        assert_eq!((read_side(&anybody).await, read_side(&anybody.for_session("session 1")).await), (n, n));
        assert_eq!(write_side(&bed.client().await, "").await.0, forced);
    }
    assert!(bed.metric(&["tidegate_rollout_calls_total", "cluster=\"own\"", "why=\"placed\""]) >= 80.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_stay_where_their_session_wrote_until_that_has_expired() {
    let stick = Duration::from_secs(4);
    let (bed, _own) = two_clusters(stick).await;
    let writer = bed.session_client("writer").await;
    for (before, after, forced) in [(1, 2, true), (2, 1, false)] {
        #[expect(clippy::disallowed_methods, reason = "how long the position binds is what is tested")]
        let began = tokio::time::Instant::now();
        assert_eq!(write_side(&writer, "").await.0, before == 2);
        move_to(&bed, Some(forced), 0);
        within("the position expires", async {
            loop {
                let n = read_side(&writer).await;
                assert!(n == before || began.elapsed() >= stick, "it has moved with an unexpired position");
                if n == after {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        assert_eq!(read_side(&bed.session_client("another").await).await, after, "who wrote nothing moves at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_on_both_sides_are_told_and_tokens_and_sessions_keep_their_side() {
    let (bed, _own) = two_clusters(Duration::from_secs(60)).await;
    let origin = bed.cluster.name().to_owned();
    let writer = bed.session_client("writer").await;
    // A session is placed once, for as long as its stream lives.
    let mut session = writer.raw_session().await.expect("the session opens");
    let transaction = done(go(&mut session, 0, begin()).await);
    let (moved, token) = write_side(&writer, "").await;
    assert!(!moved);
    move_to(&bed, Some(true), 0);
    let in_session = go(&mut session, transaction, session_write("UPDATE sides SET note = 'session'")).await;
    assert_eq!(in_session.receipt.as_ref().map(|receipt| &receipt.cluster), Some(&origin), "{in_session:?}");
    done(go(&mut session, transaction, commit()).await);
    let again = go(&mut session, 0, session_write("UPDATE sides SET note = 'session again'")).await;
    assert_eq!(again.receipt.as_ref().map(|receipt| &receipt.cluster), Some(&origin), "{again:?}");
    session.close().await.expect("the session ends well");

    // What it wrote binds SESSION and STRONG reads; the others did not ask for it.
    let bounded = ReadOptions::new().consistency(Consistency::Eventual);
    let strong = ReadOptions::new().consistency(Consistency::Strong);
    assert_eq!((read_side(&writer).await, side(&writer, bounded).await.0, side(&writer, strong).await.0), (1, 2, 1));
    // A token says the same to whoever carries it.
    assert_eq!(read_side(&bed.client().await.with_position(token)).await, 1);

    // Written on both sides: reads follow the writes, and say what they do not see.
    assert!(write_side(&writer, "").await.0, "writes go where they are placed, at once");
    let (n, receipt) = side(&writer, ReadOptions::new()).await;
    assert_eq!((n, &receipt.position_elsewhere), (2, &origin));
    move_to(&bed, Some(false), 0);
    let (n, receipt) = side(&writer, ReadOptions::new()).await;
    assert_eq!((n, receipt.position_elsewhere.as_str()), (1, OWN));
    assert!(bed.metric(&["tidegate_rollout_calls_total", "why=\"both\""]) >= 2.0);
    let (_, receipt) = side(&bed.client().await, ReadOptions::new()).await;
    assert_eq!(receipt.position_elsewhere, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_claimed_on_one_side_is_answered_on_both() {
    let (bed, own) = two_clusters(Duration::from_secs(30)).await;
    // As `check --init` does on the other side.
    let target = tidegate::app::target(&bed.config.clusters[1].hosts[0], &bed.config);
    let (mut table, _) = KeyTable::open(&target).await.expect("the own primary answers");
    table.create().await.expect("the table is made");
    // One call, one turn, although it has a connection on each side.
    let mut config = bed.config.clone();
    config.limits.database_concurrency = Some(1);
    bed.app().apply(config).await.expect("nothing takes a restart");
    let notes = async || {
        let note = async |server: &Server| server.sql("SELECT length(note) FROM sides").await.expect("a length");
        (note(bed.cluster.primary()).await, note(own.primary()).await)
    };
    let client = bed.client().await;
    for (n, forced) in [(1, false), (2, true)] {
        move_to(&bed, Some(forced), 0);
        let key = format!("key {n}");
        assert_eq!(write_side(&client, &key).await.0, forced);
        let before = notes().await;
        for again in [!forced, forced] {
            move_to(&bed, Some(again), 0);
            assert_eq!(write_side(&client, &key).await.0, forced, "answered where it is stored");
        }
        assert_eq!(notes().await, before, "written once");
    }
    assert_eq!(notes().await, ("1".into(), "1".into()));
    // Of calls on both sides at a time, one is done.
    let calls = (0..8).map(|n| {
        move_to(&bed, Some(n % 2 == 0), 0);
        let client = client.clone();
        tokio::spawn(async move { write_side(&client, "key 3").await.0 })
    });
    let sides = futures_util::future::join_all(calls).await;
    assert_eq!(sides.into_iter().map(|side| side.expect("it is answered")).collect::<BTreeSet<_>>().len(), 1);
    let (origin, moved) = notes().await;
    assert_eq!(origin.len() + moved.len(), 2);
    assert_eq!(origin.parse::<i32>().expect("a length") + moved.parse::<i32>().expect("a length"), 3);
}

pub fn host(server: &Server) -> HostConfig {
    let url = PostgresUrl::parse(&server.url()).expect("a valid URL");
    HostConfig {
        name: server.name().to_owned(),
        configured_role: ConfiguredRole::Unstated,
        url,
        ip: None,
        pooler: None,
        place: Default::default(),
    }
}

/// What `tidegate check` finds wrong with such a configuration: the exit code, and the findings' names.
async fn check_followers(bed: &Bed) -> (Option<i32>, Vec<String>) {
    let file = bed.cluster.folder().join("followers.toml");
    let replicas: Vec<_> = bed.cluster.replicas().iter().map(|server| server.url()).collect();
    let text = format!(
        "[[cluster]]\nname = \"main\"\nprimary = {:?}\n[[cluster]]\nname = \"own\"\nhosts = {replicas:?}\n\
         [[database]]\nname = \"ci\"\ncluster = \"main\"\ndbname = \"{DATABASE}\"\nown_cluster = \"own\"\n\
         reuse_primary = \"main\"\n",
        bed.cluster.primary().url()
    );
    std::fs::write(&file, text).expect("the file is written");
    let output = tidegate(&["check", "--json", "--config", file.to_str().expect("a path")]).await;
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let clusters = document["clusters"].as_array().expect("clusters").iter();
    let hosts = clusters.clone().flat_map(|cluster| cluster["hosts"].as_array().expect("hosts"));
    let findings = clusters.chain(hosts).flat_map(|part| part["findings"].as_array().expect("findings"));
    let names = findings.map(|finding| finding["name"].as_str().expect("a name").to_owned()).collect();
    (output.status.code(), names)
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_to_hosts_that_follow_the_old_primary_and_to_nobody_who_does_not() {
    let bed = Bed::with(ClusterOptions::default(), |config| {
        config.clusters[0].hosts.truncate(1);
    })
    .await;
    let mut bed = bed;
    bed.stop_broker().await;
    let hosts = bed.cluster.replicas().iter().map(|server| host(server)).collect();
    bed.config.clusters.push(ClusterConfig { name: OWN.into(), hosts, discovery: None });
    bed.config.rollouts.push(RolloutConfig { use_own: Some(true), reuse_primary: true, ..rollout() });
    bed.start_broker().await;
    create_counters(&bed).await;

    let writer = bed.session_client("writer").await;
    let origin = bed.cluster.name().to_owned();
    set_counter(&writer, 1).await;
    let receipt = read_counter_until("a follower has caught up", &writer, 1, |it| it.cluster == OWN).await;
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::CaughtUp));

    assert_eq!(check_followers(&bed).await, (Some(0), vec![]));

    // Behind: the primary that they follow takes it. STRONG reads go there at once.
    pause_all(&bed).await;
    set_counter(&writer, 2).await;
    let (n, receipt) = read_counter(&writer).await;
    assert_eq!((n, &receipt.cluster, receipt.role()), (2, &origin, HostRole::Primary));
    let (n, receipt) = read_counter(&bed.session_client("another").await).await;
    assert_eq!((n, receipt.cluster.as_str()), (1, OWN), "who wrote nothing may read what is late");
    resume_all(&bed).await;
    read_counter_until("a follower has caught up again", &writer, 2, |it| it.cluster == OWN).await;
    let strong = ReadOptions::new().consistency(Consistency::Strong);
    assert_eq!(read_int(&writer, "SELECT n FROM counters WHERE id = 1", strong).await.1.cluster, origin);

    // Promoted, it follows nobody; nor can its cluster's other hosts be trusted to.
    bed.cluster.replica(0).promote().await.expect("the replica is promoted");
    let refused = || {
        let snapshot = bed.app().topology().snapshot();
        snapshot.clusters[1].refused.as_deref().is_some_and(|why| why.contains("replica1 is a primary"))
    };
    bed.wait_until("the promoted host is refused, with the reason", refused).await;
    assert_eq!(bed.view().primary.map(|host| host.index()), Some(0), "it is no second primary of the other cluster");
    assert_eq!(check_followers(&bed).await, (Some(1), vec!["does-not-follow".to_owned()]));
    set_counter(&writer, 3).await;
    for session in ["writer", "another"] {
        let client = bed.session_client(session).await;
        let (n, receipt) = read_counter(&client).await;
        assert_eq!((n, &receipt.cluster), (3, &origin), "{session}: {receipt:?}");
    }
    assert!(bed.metric(&["tidegate_rollout_calls_total", "why=\"follower\""]) >= 2.0);
    assert!(bed.app().broker().unready().is_empty(), "the primary that they followed stands in for them");
}
