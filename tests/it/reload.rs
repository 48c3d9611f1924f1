//! The configuration changes while the broker runs: as a difference, without a dropped call, and with nothing left behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tidegate::{
    app::{App, ReloadRefused},
    config::{ClusterConfig, Config, DatabaseConfig, PostgresUrl},
    dev::{Cluster, ClusterOptions, DATABASE, Server},
};
use tidegate_client::{Begin, Client, ReadOptions};

use crate::{
    asking::{ask, primary_alone, tell, until_backends},
    harness::{
        Bed, PATIENCE, config_for, create_counters, eventual, poll_until, read_counter, read_int, set_counter, within,
    },
};

/// What changed, a line each.
pub async fn apply(app: &App, config: &Config) -> Vec<String> {
    let report = within("it is applied", app.apply(config.clone())).await.expect("nothing takes a restart");
    report.changes.iter().map(ToString::to_string).collect()
}

/// Reads until that host answers; the backend that did.
async fn pid_on(client: &Client, host: &Server) -> i64 {
    within(&format!("{} takes a read", host.name()), async {
        loop {
            let (pid, receipt) = read_int(client, "SELECT pg_backend_pid()", eventual()).await;
            if receipt.host == host.name() {
                return pid;
            }
        }
    })
    .await
}

pub fn without(config: &Config, host: &Server) -> Config {
    let mut config = config.clone();
    config.clusters[0].hosts.retain(|known| known.name != host.name());
    config
}

fn has_series(bed: &Bed, host: &Server) -> bool {
    let text = bed.app().broker().metrics().render();
    text.lines().any(|line| line.starts_with("tidegate_host_up{") && line.contains(&format!("\"{}\"", host.name())))
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_come_and_go_and_those_that_stay_keep_their_connections_and_their_health() {
    let mut full = None;
    let bed = Bed::with(ClusterOptions::default(), |config| {
        full = Some(config.clone());
        config.clusters[0].hosts.truncate(2);
    })
    .await;
    let full = full.expect("the configuration with all hosts");
    create_counters(&bed).await;
    let client = bed.client().await;
    let [stays, comes] = bed.cluster.replicas() else { panic!("two replicas") };
    let pid = pid_on(&client, stays).await;
    let before = bed.view();
    let kept = |bed: &Bed| {
        let after = bed.view();
        assert_eq!((after.primary, after.history), (before.primary, before.history));
        for host in &before.hosts {
            let now = after.host(host.id).expect("it stays");
            assert_eq!((now.health, now.role, now.epoch), (host.health, host.role, host.epoch), "{}", host.name);
        }
    };

    let changes = apply(bed.app(), &full).await;
    kept(&bed);
    assert_eq!(changes, [format!("cluster {}: host {} added", bed.cluster.name(), comes.name())]);
    assert_eq!(apply(bed.app(), &full).await, Vec::<String>::new());
    pid_on(&client, comes).await;
    assert!(has_series(&bed, comes));

    // It leaves while it streams: at once for who comes, after the last row for who is there.
    let rows = 300_000;
    let sql = format!("SELECT n, repeat('x', 100) FROM generate_series(1, {rows}) n");
    let mut stream = within("a stream on the host that leaves", async {
        loop {
            // They take turns. One that starts elsewhere is cancelled, which may cost its connection.
            pid_on(&client, stays).await;
            let stream = client.read_with(&sql, [], eventual()).await.expect("it starts");
            if stream.receipt().is_some_and(|receipt| receipt.host == comes.name()) {
                return stream;
            }
        }
    })
    .await;
    let changes = apply(bed.app(), &without(&full, comes)).await;
    assert_eq!(changes, [format!("cluster {}: host {} removed", bed.cluster.name(), comes.name())]);
    assert_eq!(bed.view().hosts.len(), 2);
    kept(&bed);
    assert!(!has_series(&bed, comes));
    for _ in 0..20 {
        let (_, receipt) = read_int(&client, "SELECT 1", eventual()).await;
        assert_ne!(receipt.host, comes.name());
    }
    // All but the one that is read from are closed; that one is once its rows are here.
    until_backends(comes, "query NOT LIKE '%generate_series%'", 0).await;
    until_backends(comes, "state = 'active'", 1).await;
    let mut count = 0;
    while let Some(batch) = stream.next().await.expect("it is let to its end") {
        count += batch.rows().count();
    }
    assert_eq!(count, rows);
    until_backends(comes, "true", 0).await;
    // Whichever connection a read gets: the first one is there.
    until_backends(stays, &format!("pid = {pid}"), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_and_limits_change_under_an_open_transaction_and_what_takes_a_restart_changes_nothing() {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |_| {}).await;
    create_counters(&bed).await;
    let primary = bed.cluster.primary();
    let made = "CREATE ROLE another LOGIN PASSWORD 'another' IN ROLE pg_monitor; GRANT ALL ON SCHEMA public TO another; \
                GRANT ALL ON counters TO another";
    primary.sql_in(DATABASE, made).await.expect("the role is made");
    let client = bed.client().await;
    let mut session = client.session().await.expect("a session");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("UPDATE counters SET n = 41 WHERE id = 1", []).await.expect("a write");
    let before = bed.view();

    let mut config = bed.config.clone();
    for host in &mut config.clusters[0].hosts {
        let url = host.url.clone();
        let (address, dbname) = (url.address(), url.dbname);
        host.url = PostgresUrl::parse(&format!("postgres://another:another@{address}/{dbname}?sslmode=disable"))
            .expect("a URL");
    }
    bed.wait_until_caught_up().await;
    assert_eq!(apply(bed.app(), &config).await.len(), 2);
    assert_eq!(ask(&client, "SELECT current_user").await.expect("an answer"), "another");
    let after = bed.view();
    assert_eq!((after.primary, after.history), (before.primary, before.history));
    assert!(after.hosts.iter().zip(&before.hosts).all(|(now, then)| now.id == then.id && now.epoch == then.epoch));
    // What began by the old login ends by it, probes and pools go by the new one.
    until_backends(primary, "usename <> 'another'", 1).await;
    transaction.write("UPDATE counters SET n = n + 1 WHERE id = 1", []).await.expect("a write");
    transaction.commit().await.expect("it commits");
    until_backends(primary, "usename <> 'another'", 0).await;
    until_backends(bed.cluster.replica(0), "usename <> 'another'", 0).await;
    assert_eq!(read_counter(&client).await.0, 42);

    // A weight is the monitor's alone.
    config.clusters[0].hosts[1].place.weight = 7;
    assert_eq!(apply(bed.app(), &config).await.len(), 1);
    assert_eq!(bed.view().hosts[1].place.weight, 7);

    // A limit counts at once, and the pools stay: nine less five leave four for calls, and one of these for writes.
    let closed = || bed.metric(&["tidegate_connections_discarded_total", "reason=\"closed\""]);
    let closed_before = closed();
    config.pool.connections_per_host = 9;
    config.consistency.max_lag = Duration::from_secs(11);
    let changes = apply(bed.app(), &config).await;
    assert_eq!(changes, ["pool.connections_per_host: 20 → 9", "consistency.max_lag: 20s → 11s"]);
    assert_eq!(bed.metric(&["tidegate_pool_limit{", "pool=\"read\"", primary.name()]), 3.0);
    assert_eq!(closed(), closed_before);
    set_counter(&client, 43).await;
    assert_eq!(read_counter(&client).await.0, 43);

    // What takes a restart is refused by name, and with it all the rest.
    let mut wrong = config.clone();
    wrong.http.listen.set_port(1);
    wrong.consistency.max_lag = Duration::from_secs(12);
    let refused = bed.app().apply(wrong).await.expect_err("an address takes a restart");
    let ReloadRefused::NeedsRestart(keys) = &refused else { panic!("{refused}") };
    assert_eq!(keys.iter().map(|change| &*change.key).collect::<Vec<_>>(), ["http.listen"]);
    assert_eq!(bed.app().broker().settings().max_lag, config.consistency.max_lag);
    assert_eq!(apply(bed.app(), &config).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_and_clusters_come_and_go_under_running_calls() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let second = Cluster::start(primary_alone()).await.expect("a second cluster");
    let ClusterConfig { hosts, .. } = config_for(&second).clusters.remove(0);
    let mut both = bed.config.clone();
    both.clusters.push(ClusterConfig { name: "second".into(), hosts, discovery: None });
    let database = |name: &str, cluster: &str| DatabaseConfig {
        name: name.into(),
        cluster: cluster.into(),
        dbname: DATABASE.into(),
    };
    both.databases.push(database("extra", "second"));
    both.databases.push(database("alias", bed.cluster.name()));
    let connect = async |name: &str| {
        let builder = Client::builder().database(name).timeout(PATIENCE);
        builder.connect(bed.url()).await.expect("the broker accepts connections")
    };
    let extra = connect("extra").await;
    let unknown = ask(&extra, "SELECT 1").await.expect_err("it is not there yet");
    assert_eq!(unknown.reason(), "DATABASE_UNKNOWN");

    for round in 0..2 {
        assert_eq!(
            apply(bed.app(), &both).await,
            ["cluster second: added", "database extra: added", "database alias: added"]
        );
        // It is served only once its primary is known.
        if round == 0 {
            tell(&extra, "CREATE TABLE marks (n int)").await.expect("a write");
        }
        assert_eq!(ask(&connect("alias").await, "SELECT 1").await.expect("an answer"), "1");
        let mut session = extra.session().await.expect("a session");
        let mut transaction = session.begin(Begin::new()).await.expect("it begins");
        transaction.write("INSERT INTO marks VALUES (1)", []).await.expect("a write");
        let sleeper = extra.clone();
        let sleeping = "INSERT INTO marks SELECT 2 FROM pg_sleep(0.5) RETURNING n";
        let slow = tokio::spawn(async move { tell(&sleeper, sleeping).await });
        until_backends(second.primary(), "state = 'active'", 1).await;
        let mut listening = extra.listen(["news"]).await.expect("it listens");

        assert_eq!(
            apply(bed.app(), &bed.config).await,
            ["cluster second: removed", "database extra: removed", "database alias: removed"]
        );
        let unknown = ask(&extra, "SELECT 1").await.expect_err("it is gone");
        assert_eq!(unknown.reason(), "DATABASE_UNKNOWN");
        assert_eq!(slow.await.expect("it ends").expect("it is let to its end"), "2");
        transaction.write("INSERT INTO marks VALUES (3)", []).await.expect("a write");
        transaction.commit().await.expect("it commits");
        let Err(refused) = session.begin(Begin::new()).await else { panic!("something begins there") };
        assert_eq!(refused.reason(), "DATABASE_UNKNOWN");
        let ended = within("nobody listens any more", async {
            loop {
                if let Err(error) = listening.next().await {
                    return error;
                }
            }
        });
        assert_eq!(ended.await.reason(), "DATABASE_UNKNOWN");
        until_backends(second.primary(), "true", 0).await;
        assert!(bed.app().broker().unready().is_empty());
    }
    let marks = second.primary().sql_in(DATABASE, "SELECT count(*) FROM marks").await.expect("a count");
    assert_eq!(marks.trim(), "6");

    // A database moves to another cluster, and is found there at once.
    let mut moved = both.clone();
    moved.databases[0].cluster = "second".into();
    let client = bed.client().await;
    assert!(ask(&client, "SELECT count(*) FROM marks").await.is_err(), "the first cluster has no such table");
    apply(bed.app(), &moved).await;
    assert_eq!(ask(&client, "SELECT count(*) FROM marks").await.expect("an answer"), "6");
    second.shutdown().await.expect("it stops");
}

/// The only name for the primary is exchanged for another: what runs there commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_may_be_given_another_name_and_what_a_discovery_says_goes_before_the_configuration() {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |_| {}).await;
    create_counters(&bed).await;
    let client = bed.session_client("a session").await;
    let mut session = client.session().await.expect("a session");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("UPDATE counters SET n = 1 WHERE id = 1", []).await.expect("a write");
    let former = bed.view();

    let mut hosts = bed.config.clusters[0].hosts.clone();
    hosts[0].name = "renamed".into();
    bed.app().set_discovered(bed.cluster.name(), hosts.clone()).await;
    transaction.commit().await.expect("it commits");
    bed.wait_until("the primary is known by its new name", || {
        let view = bed.view();
        view.primary_host().is_some_and(|host| &*host.name == "renamed")
    })
    .await;
    let view = bed.view();
    assert_eq!((view.history, view.hosts.len()), (former.history, 2));
    assert!(former.primary.is_some_and(|host| view.host(host).is_none()));
    let (n, receipt) = read_counter(&client).await;
    assert_eq!(n, 1, "{receipt:?}");
    set_counter(&client, 2).await;
    assert_eq!(read_counter(&client).await.0, 2);

    // No answer is no answer, and a reload leaves alone what was discovered.
    bed.app().set_discovered(bed.cluster.name(), Vec::new()).await;
    let mut config = bed.config.clone();
    config.consistency.max_lag = Duration::from_secs(11);
    apply(bed.app(), &config).await;
    assert_eq!(bed.view().hosts.len(), 2);
    assert!(bed.view().primary_host().is_some_and(|host| &*host.name == "renamed"));
    hosts.truncate(1);
    bed.app().set_discovered(bed.cluster.name(), hosts).await;
    assert_eq!(bed.view().hosts.len(), 1);
    until_backends(bed.cluster.replica(0), "true", 0).await;
    set_counter(&client, 3).await;
    assert_eq!(read_counter(&client).await.0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_fail_no_call_and_leave_nothing_behind() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let alone = {
        let mut config = bed.config.clone();
        config.clusters[0].hosts.truncate(1);
        config
    };
    let app = bed.app();
    apply(app, &alone).await;
    let quiet = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let client = bed.client().await;
    set_counter(&client, 0).await;
    for replica in bed.cluster.replicas() {
        until_backends(replica, "true", 0).await;
    }
    let tasks = quiet();

    let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = Vec::new();
    for id in 2..6 {
        let client = bed.session_client(&format!("caller {id}")).await;
        let (over, calls) = (Arc::clone(&over), Arc::clone(&calls));
        callers.push(tokio::spawn(async move {
            let insert = format!("INSERT INTO counters VALUES ({id}, 0)");
            client.execute(&insert, []).await.expect("the row is made");
            let (write, read) = (
                format!("UPDATE counters SET n = n + 1 WHERE id = {id}"),
                format!("SELECT n FROM counters WHERE id = {id}"),
            );
            let mut written = 0;
            while !over.load(Ordering::Relaxed) {
                client.execute(&write, []).await.expect("no write fails");
                written += 1;
                let (n, receipt) = read_int(&client, &read, ReadOptions::new()).await;
                assert_eq!(n, written, "{receipt:?}");
                calls.fetch_add(2, Ordering::Relaxed);
            }
            written
        }));
    }
    for round in 0..100_u32 {
        let mut config = match round % 4 {
            0 => bed.config.clone(),
            1 => without(&bed.config, bed.cluster.replica(0)),
            2 => alone.clone(),
            _ => without(&bed.config, bed.cluster.replica(1)),
        };
        // Now and then all pools are made anew; that costs a log-in for each connection.
        config.pool.max_lifetime = Duration::from_secs(1000 + u64::from(round / 20 % 2));
        config.pool.connections_per_host = 10 + round / 10 % 2;
        assert!(!apply(app, &config).await.is_empty());
        let so_far = calls.load(Ordering::Relaxed);
        poll_until("calls are answered between reloads", async || calls.load(Ordering::Relaxed) > so_far + 4).await;
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        within("the caller ends", caller).await.expect("no call failed");
    }
    apply(app, &alone).await;
    for replica in bed.cluster.replicas() {
        until_backends(replica, "true", 0).await;
    }
    // The prober's, and those of the pools as they are now.
    poll_until("connections of former pools are closed", async || {
        crate::asking::backends(bed.cluster.primary(), "true").await <= 10
    })
    .await;
    drop(client);
    poll_until(&format!("no more than {tasks} tasks"), async || quiet() <= tasks + 8).await;
}
