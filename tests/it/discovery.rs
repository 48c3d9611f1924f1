//! Hosts found by DNS: what a real name server says, how often it is asked, and what is kept when it says nothing.

use std::{net::SocketAddr, time::Duration};

use tidegate::{
    app::{App, discover},
    config::{DiscoveryConfig, DiscoveryRecord, PostgresUrl},
    dev::{Cluster, ClusterOptions, DATABASE, NameServer, Server, USER},
    telemetry::Metrics,
    topology::discovery::{Answer, Discovered, DiscoverySpec, Endpoint, RecordKind, find, watch},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use tidegate_client::Client;

use crate::harness::{client_of, config_for, eventual, poll_until, read_int, stop, within};

fn spec(server: SocketAddr, record: RecordKind, name: &str) -> DiscoverySpec {
    DiscoverySpec {
        cluster: "main".into(),
        name: name.into(),
        record,
        port: 5432,
        nameserver: Some(server),
        tcp: false,
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
    }
}

fn zone(records: &[&str]) -> Vec<String> {
    records.iter().map(|record| (*record).to_owned()).collect()
}

async fn name_server(records: &[&str]) -> (Cluster, NameServer) {
    // For its folder and its watchdog.
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.expect("the cluster starts");
    let server = NameServer::start(&cluster, &zone(records)).await.expect("the name server starts");
    (cluster, server)
}

fn names(answer: &Answer) -> Vec<String> {
    answer.endpoints.iter().map(Endpoint::name).collect()
}

async fn look(spec: &DiscoverySpec) -> Answer {
    find(spec, &[]).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_services_are_found_with_all_that_their_records_say() {
    let mut records = zone(&[
        "db 7 IN A 127.0.0.3",
        "db 7 IN A 127.0.0.2",
        "db 5 IN AAAA ::1",
        "alias 3 IN CNAME db",
        "_pg._tcp 9 IN SRV 0 70 6001 one",
        "_pg._tcp 9 IN SRV 0 30 6002 two",
        "_pg._tcp 9 IN SRV 5 0 6003 three",
        "_pg._tcp 9 IN SRV 0 1 6004 nowhere",
        "one 4 IN A 127.0.0.4",
        "two 60 IN A 127.0.0.6",
        "two 60 IN A 127.0.0.5",
        "three 60 IN AAAA ::1",
        "_none._tcp 60 IN SRV 0 0 0 .",
    ]);
    // More than a datagram holds.
    records.extend((1..=150).map(|n| format!("many 60 IN A 127.0.1.{n}")));
    let (_cluster, server) = name_server(&[]).await;
    server.stop().await.expect("it stops");
    server.set(&records).await.expect("the zone is written");
    server.start_again().await.expect("it starts again");
    let at = |record, name| spec(server.address(), record, name);

    let found = look(&at(RecordKind::Address, "db.test.")).await;
    assert_eq!(names(&found), ["127.0.0.2:5432", "127.0.0.3:5432", "[::1]:5432"]);
    assert_eq!(found.valid_for, Duration::from_secs(5), "the least TTL of all");
    assert_eq!(found.endpoints[0].target, "db.test", "what a certificate is held against");
    assert_eq!(names(&look(&at(RecordKind::A, "db.test")).await).len(), 2);
    assert_eq!(names(&look(&at(RecordKind::Aaaa, "db.test")).await), ["[::1]:5432"]);
    let alias = look(&at(RecordKind::A, "alias.test")).await;
    assert_eq!((names(&alias).len(), alias.valid_for), (2, Duration::from_secs(3)), "an alias has a TTL too");

    let services = at(RecordKind::Srv, "_pg._tcp.test");
    let found = look(&services).await;
    let told: Vec<_> = found.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "one.test:6001 (127.0.0.4, priority 0, weight 70)",
            "two.test:6002 (127.0.0.5, priority 0, weight 30)",
            "three.test:6003 (::1, priority 5, weight 0)",
        ],
        "a target without an address is left out"
    );
    assert_eq!(found.valid_for, Duration::from_secs(4));
    // A host with several addresses stays where it is.
    let mut known = found.endpoints.clone();
    known[1].address = "127.0.0.6".parse().expect("an address");
    assert_eq!(find(&services, &known).await.expect("an answer").endpoints, known);

    let many = at(RecordKind::A, "many.test");
    assert_eq!(names(&look(&many).await).len(), 150, "by TCP, since it was too long");
    let by_tcp = DiscoverySpec { tcp: true, ..at(RecordKind::A, "db.test") };
    assert_eq!(names(&look(&by_tcp).await).len(), 2);
    for (record, name) in
        [(RecordKind::A, "nobody.test"), (RecordKind::Aaaa, "one.test"), (RecordKind::Srv, "_none._tcp.test")]
    {
        assert_eq!(names(&look(&at(record, name)).await), [""; 0], "{name}");
    }
    let refused = find(&at(RecordKind::A, "db.elsewhere."), &[]).await.expect_err("not its zone").to_string();
    assert!(refused.contains("looking up db.elsewhere. (A) failed"), "{refused}");
    let wrong = find(&at(RecordKind::A, "a..b"), &[]).await.expect_err("not a name").to_string();
    assert!(wrong.contains("\"a..b\" is not a DNS name"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_told_and_what_was_found_last_is_kept() {
    let (_cluster, server) = name_server(&["db 1 IN A 127.0.0.2"]).await;
    let (found, mut told) = mpsc::channel(8);
    let (metrics, stop) = (Metrics::new(), CancellationToken::new());
    let spec = spec(server.address(), RecordKind::A, "db.test");
    let watching = tokio::spawn(watch(spec, Vec::new(), found, metrics.clone(), stop.clone()));
    let count = |result: &str| {
        let series = format!("tidegate_discoveries_total{{cluster=\"main\",result=\"{result}\"}} ");
        let text = metrics.render();
        let found = text.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_owned);
        found.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    let more = async |result: &str| {
        let before = count(result);
        poll_until(result, async || count(result) > before).await;
    };
    let mut next = async || -> Vec<String> {
        let Discovered { cluster, endpoints } = within("a difference", told.recv()).await.expect("it watches");
        assert_eq!(cluster, "main");
        endpoints.iter().map(Endpoint::name).collect()
    };
    assert_eq!(next().await, ["127.0.0.2:5432"]);
    more("unchanged").await;
    server.set(&zone(&["db 1 IN A 127.0.0.2", "db 1 IN A 127.0.0.3"])).await.expect("the zone is written");
    assert_eq!(next().await, ["127.0.0.2:5432", "127.0.0.3:5432"]);
    // Nothing to say, nobody to say it: no difference.
    server.set(&zone(&[])).await.expect("the zone is written");
    more("empty").await;
    server.stop().await.expect("it stops");
    more("failed").await;
    server.set(&zone(&["db 1 IN A 127.0.0.3"])).await.expect("the zone is written");
    server.start_again().await.expect("it starts again");
    assert_eq!(next().await, ["127.0.0.3:5432"], "the first difference since");
    stop.cancel();
    within("the end of the watch", watching).await.expect("it ends well");
}

/// The services that the name server knows, with the login of `of`.
fn discover_at(server: &NameServer, of: &Server) -> DiscoveryConfig {
    DiscoveryConfig {
        url: PostgresUrl { host: "_pg._tcp.test".into(), ..PostgresUrl::parse(&of.url()).expect("a URL") },
        record: DiscoveryRecord::Srv,
        nameserver: Some(server.address()),
        tcp: false,
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
    }
}

/// A record that leads to a server, under its own name.
fn service(server: &Server, priority: u16) -> Vec<String> {
    let (name, port) = (server.name(), server.port());
    vec![format!("_pg._tcp 1 IN SRV {priority} 10 {port} {name}"), format!("{name} 1 IN A 127.0.0.1")]
}

/// The hosts that are up, by what their names begin with.
fn up(app: &App) -> Vec<String> {
    let snapshot = app.topology().snapshot();
    let view = &snapshot.clusters[0];
    let is_up = |host: &&tidegate::model::HostView| {
        view.primary == Some(host.id) || (host.is_up_replica() && host.passed_sample_at.is_some())
    };
    let mut names: Vec<_> =
        view.hosts.iter().filter(is_up).filter_map(|host| Some(host.name.split('.').next()?.to_owned())).collect();
    names.sort();
    names
}

async fn until_up(app: &App, expected: &[&str]) {
    poll_until(&format!("{expected:?} are up"), async || up(app) == expected).await;
}

/// The hosts that answer so many reads of any replica.
async fn readers(client: &Client, reads: usize) -> Vec<String> {
    let mut hosts = Vec::new();
    for _ in 0..reads {
        let (_, receipt) = read_int(client, "SELECT 1", eventual()).await;
        hosts.extend(receipt.host.split('.').next().map(str::to_owned));
    }
    hosts.sort();
    hosts.dedup();
    hosts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_follows_what_dns_says_of_its_cluster() {
    let cluster = Cluster::start(ClusterOptions::default()).await.expect("the cluster starts");
    let [primary, one, two] = [cluster.primary(), cluster.replica(0), cluster.replica(1)];
    let records = |parts: &[Vec<String>]| parts.concat();
    let both = [service(primary, 0), service(one, 0)];
    let server = NameServer::start(&cluster, &records(&both)).await.expect("the name server starts");
    let mut config = config_for(&cluster);
    config.clusters[0].hosts.clear();
    config.clusters[0].discovery = Some(discover_at(&server, primary));
    // What `tidegate check` looks at.
    let (found, failed) = discover(config.clone()).await;
    assert_eq!((found.clusters[0].hosts.len(), failed), (2, vec![]));
    let app = App::start(&config).await.expect("the broker starts");
    until_up(&app, &["primary", "replica1"]).await;
    let client = client_of(&app, DATABASE).await;
    client.execute("CREATE TABLE found (n int)", []).await.expect("the primary is found");
    assert_eq!(readers(&client, 4).await, ["replica1"]);

    // One comes, of a later priority: it takes reads only when the first will not do.
    server.set(&records(&[service(primary, 0), service(one, 0), service(two, 7)])).await.expect("the zone is written");
    until_up(&app, &["primary", "replica1", "replica2"]).await;
    assert_eq!(readers(&client, 4).await, ["replica1"]);

    // One leaves, with a result under way: that ends well, and its connection closes then.
    let endless = "SELECT repeat('x', 1000) AS x FROM generate_series(1, 100000)";
    let mut stream = client.read_with(endless, [], eventual()).await.expect("it starts");
    server.set(&records(&[service(primary, 0), service(two, 7)])).await.expect("the zone is written");
    until_up(&app, &["primary", "replica2"]).await;
    assert_eq!(readers(&client, 4).await, ["replica2"]);
    let mut rows = 0;
    while let Some(batch) = stream.next().await.expect("it goes on") {
        rows += batch.len();
    }
    assert_eq!(rows, 100_000);
    let of_service = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", USER);
    poll_until("its connections are closed", async || one.sql(&of_service).await.expect("it answers").trim() == "0")
        .await;

    // A reload begins to look up anew, and still a host stays where it is, though another of its addresses comes first now.
    let elsewhere = format!("{} 1 IN A 10.0.0.1", primary.name());
    let moved = records(&[service(primary, 0), vec![elsewhere], service(two, 7)]);
    server.set(&moved).await.expect("the zone is written");
    config.clusters[0].discovery.as_mut().expect("it is discovered").interval = Duration::from_millis(101);
    app.apply(config.clone()).await.expect("it is applied");
    server.set(&[moved, service(one, 0)].concat()).await.expect("the zone is written");
    until_up(&app, &["primary", "replica1", "replica2"]).await;
    let hosts = app.control().effective().await.clusters[0].hosts.clone();
    let localhost = "127.0.0.1".parse().ok();
    assert!(hosts.len() == 3 && hosts.iter().all(|host| host.ip == localhost), "{hosts:?}");
    server.set(&records(&[service(primary, 0), service(two, 7)])).await.expect("the zone is written");
    until_up(&app, &["primary", "replica2"]).await;

    // Nobody says anything: nothing changes.
    server.stop().await.expect("it stops");
    let failures = || {
        let text = app.broker().metrics().render();
        text.lines().any(|line| line.starts_with("tidegate_discoveries_total") && line.contains("failed"))
    };
    poll_until("a look-up has failed", async || failures()).await;
    let (_, failed) = discover(config.clone()).await;
    assert!(matches!(&failed[..], [(cluster, why)] if *cluster == config.clusters[0].name && why.contains("failed")));
    assert_eq!(readers(&client, 4).await, ["replica2"]);
    client.execute("INSERT INTO found VALUES (1)", []).await.expect("the primary is known");
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_its_listed_hosts_until_they_are_discovered_and_a_new_one_is_found_first() {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.expect("the cluster starts");
    let primary = cluster.primary();
    let server = NameServer::start(&cluster, &service(primary, 0)).await.expect("the name server starts");
    server.stop().await.expect("it stops");
    let listed = config_for(&cluster);
    let app = App::start(&listed).await.expect("the broker starts");
    let client = client_of(&app, DATABASE).await;
    client.execute("CREATE TABLE kept (n int)", []).await.expect("the primary is found");

    // The name server is away: the hosts are still those that were listed.
    let mut discovering = listed.clone();
    discovering.clusters[0].hosts.clear();
    discovering.clusters[0].discovery = Some(discover_at(&server, primary));
    let names = || -> Vec<String> {
        let snapshot = app.topology().snapshot();
        snapshot.clusters[0].hosts.iter().map(|host| host.name.to_string()).collect()
    };
    let before = names();
    app.apply(discovering.clone()).await.expect("it is applied");
    assert_eq!(names(), before);
    client.execute("INSERT INTO kept VALUES (1)", []).await.expect("the primary is there");
    server.start_again().await.expect("it starts again");
    poll_until("its hosts are discovered", async || names().iter().any(|name| name.contains(".test"))).await;

    // A cluster that comes in has its hosts before its database is served.
    let mut more = discovering.clone();
    let second = tidegate::config::ClusterConfig { name: "second".into(), ..discovering.clusters[0].clone() };
    more.clusters.push(second);
    let database = more.databases[0].clone();
    more.databases.push(tidegate::config::DatabaseConfig {
        name: "again".into(),
        cluster: "second".into(),
        ..database
    });
    app.apply(more).await.expect("it is applied");
    let has_hosts = app.topology().snapshot().clusters.iter().all(|view| !view.hosts.is_empty());
    assert!(has_hosts, "a database is served before its hosts are known");
    client_of(&app, "again").await.execute("INSERT INTO kept VALUES (2)", []).await.expect("it is served");

    // Listed again, they are what is listed.
    app.apply(listed).await.expect("it is applied");
    assert!(names().iter().any(|name| before.contains(name)), "{:?}", names());
    stop(app).await;
}
