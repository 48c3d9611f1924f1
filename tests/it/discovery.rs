//! Hosts found by DNS: what a real name server says, how often it is asked, and what is kept when it says nothing.

use std::{net::SocketAddr, time::Duration};

use tidegate::{
    dev::{Cluster, ClusterOptions, NameServer},
    telemetry::Metrics,
    topology::discovery::{Answer, Discovered, DiscoverySpec, Endpoint, RecordKind, find, watch},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::harness::{poll_until, within};

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
    let watching = tokio::spawn(watch(spec, found, metrics.clone(), stop.clone()));
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
