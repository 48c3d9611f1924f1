//! Names that lead elsewhere than the configuration thinks: another cluster's server, one server twice.

use tidegate::{
    config::{Config, ConfiguredRole, HostConfig, PlaceConfig, PostgresUrl},
    dev::{Cluster, ClusterOptions, Server},
    model::HostHealth,
};
use tidegate_client::{HostRole, ReadOptions};

use crate::harness::{Bed, READ_COUNTER, create_counters, read_counter, read_int, set_counter};

fn add_replica(config: &mut Config, name: &str, server: &Server) {
    config.clusters[0].hosts.push(HostConfig {
        name: name.to_owned(),
        configured_role: ConfiguredRole::Replica,
        url: PostgresUrl::parse(&server.direct_url()).expect("a valid URL"),
        ip: None,
        pooler: None,
        place: PlaceConfig::default(),
    });
}

fn one_replica() -> ClusterOptions {
    ClusterOptions { replicas: 1, ..ClusterOptions::default() }
}

/// Starts the broker anew with more hosts than its cluster has, and waits until it has asked them all.
async fn restart_with(bed: &mut Bed, servers: &[(&str, &Server)]) {
    for (name, server) in servers {
        add_replica(&mut bed.config, name, server);
    }
    bed.stop_broker().await;
    let hosts = 2 + servers.len();
    bed.start_broker_when("every server was asked", |view| {
        let proved = |index: usize| {
            view.primary.is_some_and(|id| id.index() == index) || view.hosts[index].passed_sample_at.is_some()
        };
        view.hosts.len() == hosts && proved(0) && proved(1) && view.hosts.iter().all(|host| host.incarnation != 0)
    })
    .await;
}

async fn takes_no_part(bed: &Bed, names: &[&str]) {
    let client = bed.session_client("writer").await;
    for n in 1..=30 {
        set_counter(&client, n).await;
        let (read, receipt) = read_counter(&client).await;
        assert_eq!(read, n, "{receipt:?}");
        let (_, receipt) = read_int(&bed.client().await, READ_COUNTER, ReadOptions::new()).await;
        assert_eq!((receipt.host.as_str(), receipt.role()), ("replica1", HostRole::Replica));
    }
    for name in names {
        assert_eq!(bed.metric(&["tidegate_routes_total", &format!("host=\"{name}\"")]), 0.0);
        let view = bed.view();
        let host = view.hosts.iter().find(|host| &*host.name == *name).expect("a host");
        assert_eq!(host.health, HostHealth::Down, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_another_cluster_take_no_part() {
    let options = ClusterOptions { name: "other".into(), ..one_replica() };
    let other = Cluster::start(options).await.expect("the other cluster starts");
    let mut bed = Bed::with(one_replica(), |_| {}).await;
    create_counters(&bed).await;
    let theirs: [(&str, &Server); 2] = [("their primary", other.primary()), ("their replica", other.replica(0))];
    restart_with(&mut bed, &theirs).await;
    takes_no_part(&bed, &["their primary", "their replica"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_two_names_counts_once() {
    let mut bed = Bed::with(one_replica(), |_| {}).await;
    create_counters(&bed).await;
    let (primary, replica) = (bed.cluster.primary().clone(), bed.cluster.replica(0).clone());
    restart_with(&mut bed, &[("again the primary", &primary), ("again the replica", &replica)]).await;
    takes_no_part(&bed, &["again the primary", "again the replica"]).await;
}
