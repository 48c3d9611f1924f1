//! Discovery as a broker runs it: a watch for each cluster whose hosts are named by DNS, kept in step with the
//! configuration; and what a name server says as hosts of the configuration.

use std::{collections::HashMap, sync::Weak};

use tokio::sync::{Mutex, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::control::{Control, State};
use crate::{
    config::{ClusterConfig, Config, ConfiguredRole, DiscoveryConfig, DiscoveryRecord, HostConfig, PlaceConfig},
    telemetry::Metrics,
    topology::discovery::{Discovered, DiscoverySpec, Endpoint, RecordKind, find, watch},
};

/// The watches that run.
pub(super) struct Discoveries {
    running: HashMap<String, Running>,
    state: Weak<Mutex<State>>,
    metrics: Metrics,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Running {
    discovery: DiscoveryConfig,
    stop: CancellationToken,
}

impl Discoveries {
    /// None yet; all end with `stop` and are counted by `tasks`.
    pub(super) fn new(
        state: Weak<Mutex<State>>,
        metrics: Metrics,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Discoveries {
        Discoveries { running: HashMap::new(), state, metrics, stop, tasks }
    }

    /// Starts, ends and renews watches, so that they are those of the configuration; what is renewed goes on with the
    /// addresses of the hosts that were `discovered`. The clusters whose hosts are not discovered any more.
    pub(super) fn follow(&mut self, config: &Config, discovered: &HashMap<String, Vec<HostConfig>>) -> Vec<String> {
        let wanted = |name: &str| config.clusters.iter().find(|it| it.name == name)?.discovery.as_ref();
        let ended: Vec<_> = self.running.keys().filter(|name| wanted(name).is_none()).cloned().collect();
        self.running.retain(|name, running| {
            let stays = wanted(name) == Some(&running.discovery);
            if !stays {
                running.stop.cancel();
            }
            stays
        });
        for cluster in &config.clusters {
            if let Some(discovery) = cluster.discovery.as_ref().filter(|_| !self.running.contains_key(&cluster.name)) {
                let in_use = discovered.get(&cluster.name).map(Vec::as_slice).unwrap_or_default();
                self.start(cluster, discovery, in_use);
            }
        }
        ended
    }

    /// Whether what was found by `discovery` still counts.
    pub(super) fn is_current(&self, cluster: &str, discovery: &DiscoveryConfig) -> bool {
        self.running.get(cluster).is_some_and(|running| running.discovery == *discovery)
    }

    fn start(&mut self, cluster: &ClusterConfig, discovery: &DiscoveryConfig, in_use: &[HostConfig]) {
        let stop = self.stop.child_token();
        let (found, mut answers) = mpsc::channel(1);
        let in_use = in_use.iter().filter_map(endpoint).collect();
        let watching = watch(spec(&cluster.name, discovery), in_use, found, self.metrics.clone(), stop.clone());
        let (state, by) = (self.state.clone(), discovery.clone());
        let taking = async move {
            while let Some(Discovered { cluster, endpoints }) = answers.recv().await {
                let Some(state) = state.upgrade() else { return };
                Control::of(state).discovered(&cluster, &by, hosts(&by, &endpoints)).await;
            }
        };
        self.tasks.spawn(async move { tokio::join!(watching, taking) });
        self.running.insert(cluster.name.clone(), Running { discovery: discovery.clone(), stop });
    }
}

/// The configuration with the hosts that name servers say now, for a look from outside. What could not be found has no
/// hosts, and its reason is told.
pub async fn discover(mut config: Config) -> (Config, Vec<(String, String)>) {
    let mut failed = Vec::new();
    for cluster in &mut config.clusters {
        let Some(discovery) = &cluster.discovery else { continue };
        match find(&spec(&cluster.name, discovery), &[]).await {
            Ok(answer) if answer.endpoints.is_empty() => {
                failed.push((cluster.name.clone(), format!("{} names no host", discovery.url.host)));
            }
            Ok(answer) => cluster.hosts = hosts(discovery, &answer.endpoints),
            Err(error) => failed.push((cluster.name.clone(), error.to_string())),
        }
    }
    (config, failed)
}

/// The hosts of one cluster as its name server says them now; none if it does not, which its watch reports.
pub(super) async fn look_up(cluster: &ClusterConfig) -> Vec<HostConfig> {
    let Some(discovery) = &cluster.discovery else { return Vec::new() };
    let answer = find(&spec(&cluster.name, discovery), &[]).await;
    answer.map(|answer| hosts(discovery, &answer.endpoints)).unwrap_or_default()
}

fn spec(cluster: &str, discovery: &DiscoveryConfig) -> DiscoverySpec {
    DiscoverySpec {
        cluster: cluster.to_owned(),
        name: discovery.url.host.clone(),
        record: match discovery.record {
            DiscoveryRecord::Address => RecordKind::Address,
            DiscoveryRecord::A => RecordKind::A,
            DiscoveryRecord::Aaaa => RecordKind::Aaaa,
            DiscoveryRecord::Srv => RecordKind::Srv,
        },
        port: discovery.url.port,
        nameserver: discovery.nameserver,
        tcp: discovery.tcp,
        interval: discovery.interval,
        timeout: discovery.timeout,
    }
}

fn hosts(discovery: &DiscoveryConfig, endpoints: &[Endpoint]) -> Vec<HostConfig> {
    let host = |endpoint: &Endpoint| {
        let mut url = discovery.url.clone();
        url.host.clone_from(&endpoint.target);
        url.port = endpoint.port;
        let place = PlaceConfig { weight: weight(endpoint, endpoints), priority: endpoint.priority, zone: None };
        let (name, configured_role) = (endpoint.name(), ConfiguredRole::Unstated);
        HostConfig { name, configured_role, url, ip: Some(endpoint.address), pooler: None, place }
    };
    endpoints.iter().map(host).collect()
}

/// A host as it was discovered; one that was listed has no address yet.
fn endpoint(host: &HostConfig) -> Option<Endpoint> {
    let PlaceConfig { weight, priority, .. } = &host.place;
    let (priority, weight) = (*priority, Some(*weight));
    Some(Endpoint { priority, target: host.url.host.clone(), address: host.ip?, port: host.url.port, weight })
}

/// An SRV record's weight of 0 is a very small part beside others, and an equal one among its like (RFC 2782); a host's
/// weight of 0 would be none at all.
fn weight(endpoint: &Endpoint, all: &[Endpoint]) -> u16 {
    let any = all.iter().any(|other| other.priority == endpoint.priority && other.weight > Some(0));
    match endpoint.weight {
        Some(weight) if any => weight.max(1),
        _ => PlaceConfig::default().weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(priority: u16, target: &str, weight: Option<u16>) -> Endpoint {
        let address = "10.0.0.1".parse().expect("an address");
        Endpoint { priority, target: target.into(), address, port: 6000, weight }
    }

    fn discovery() -> DiscoveryConfig {
        DiscoveryConfig {
            url: crate::config::PostgresUrl::parse("postgres://u:p@_pg._tcp.x/d?sslmode=verify-full").expect("a URL"),
            record: DiscoveryRecord::Srv,
            nameserver: None,
            tcp: false,
            interval: std::time::Duration::from_secs(30),
            timeout: std::time::Duration::from_secs(2),
        }
    }

    #[test]
    fn records_become_hosts_with_their_login_name_and_part() {
        let found = [
            endpoint(0, "a.x", Some(70)),
            endpoint(0, "b.x", Some(0)),
            endpoint(5, "c.x", Some(0)),
            endpoint(5, "d.x", Some(0)),
        ];
        let made = hosts(&discovery(), &found);
        let told: Vec<_> = made
            .iter()
            .map(|it| (it.name.as_str(), it.url.host.as_str(), it.url.port, it.place.weight, it.place.priority))
            .collect();
        let expected = [
            ("a.x:6000", "a.x", 6000, 70, 0),
            ("b.x:6000", "b.x", 6000, 1, 0),
            ("c.x:6000", "c.x", 6000, 100, 5),
            ("d.x:6000", "d.x", 6000, 100, 5),
        ];
        assert_eq!(told, expected);
        assert!(made.iter().all(|it| it.ip == Some(found[0].address) && it.url.user == "u" && it.url.dbname == "d"));
        let address = hosts(&discovery(), &[endpoint(0, "db.x", None)]);
        assert_eq!((address[0].name.as_str(), address[0].url.host.as_str()), ("10.0.0.1:6000", "db.x"));
    }
}
