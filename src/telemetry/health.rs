//! Metrics of the hosts' health and of the primary's role: what is counted when it changes, and gauges that are computed
//! at each scrape.

use std::{fmt, sync::Arc};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::gauges::gauge;

/// What is shown of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterHealth {
    /// Its name.
    pub cluster: String,
    /// Its hosts.
    pub hosts: Vec<HostState>,
    /// For how long the primary's role still counts if it is not confirmed again, in seconds; 0: there is none.
    pub lease_seconds: f64,
    /// Whether several hosts claim the primary's role on one timeline.
    pub conflict: bool,
}

/// What is shown of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostState {
    /// Its name.
    pub host: String,
    /// `unknown`, `up`, `suspect`, `down` or `quarantined`.
    pub state: &'static str,
    /// How long it stays quarantined, in seconds; 0: it is not.
    pub quarantine_seconds: f64,
    /// The percentage of its share of the reads that it gets since it came back: 1 to 100.
    pub share_percent: u8,
    /// Whether an operator keeps new reads from it.
    pub drained: bool,
}

/// Gives the clusters as they are now. Called at each scrape, several times: it must be cheap and must not block.
type Source = Arc<dyn Fn() -> Vec<ClusterHealth> + Send + Sync>;

/// What one gauge takes from a cluster.
type Pick = fn(&ClusterHealth, &mut dyn FnMut(f64, &[KeyValue]));

/// The instruments.
pub struct HealthMetrics {
    meter: Meter,
    transitions: Counter<u64>,
    conflicts: Counter<u64>,
}

impl fmt::Debug for HealthMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HealthMetrics")
    }
}

impl HealthMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let counter = |name, help| meter.u64_counter(name).with_description(help).build();
        Self {
            meter: meter.clone(),
            transitions: counter("tidegate_host_transitions", "Changes of a host's state, by the new one."),
            conflicts: counter("tidegate_primary_conflicts", "Times that a second primary appeared on one timeline."),
        }
    }

    /// A host's state is another now: `unknown`, `up`, `suspect`, `down` or `quarantined`.
    pub fn turned(&self, cluster: &str, host: &str, to: &'static str) {
        let mut labels = host_labels(cluster, host);
        labels.push(KeyValue::new("to", to));
        self.transitions.add(1, &labels);
    }

    /// Several hosts claim the primary's role on one timeline.
    pub fn conflict(&self, cluster: &str) {
        self.conflicts.add(1, &[KeyValue::new("cluster", cluster.to_owned())]);
    }

    /// Shows the clusters that `source` gives, at each scrape. Call it once: a second source would count twice.
    pub fn observe(&self, source: Source) {
        // Up-down counters to OpenTelemetry, so that what is gone is not shown any more: see `gauges`.
        let gauges: [(&'static str, &'static str, Pick); 6] = [
            ("tidegate_host_state", "1 for the state that the host is in.", |cluster, put| {
                for host in &cluster.hosts {
                    let mut labels = host_labels(&cluster.cluster, &host.host);
                    labels.push(KeyValue::new("state", host.state));
                    put(1.0, &labels);
                }
            }),
            (
                "tidegate_host_quarantine_seconds",
                "How long the host stays quarantined; 0: it is not.",
                |cluster, put| {
                    for host in &cluster.hosts {
                        put(host.quarantine_seconds, &host_labels(&cluster.cluster, &host.host));
                    }
                },
            ),
            ("tidegate_host_share_percent", "How much of its share of the reads the host gets.", |cluster, put| {
                for host in &cluster.hosts {
                    put(f64::from(host.share_percent), &host_labels(&cluster.cluster, &host.host));
                }
            }),
            ("tidegate_host_drained", "Whether (1) an operator keeps new reads from the host.", |cluster, put| {
                for host in &cluster.hosts {
                    put(f64::from(u8::from(host.drained)), &host_labels(&cluster.cluster, &host.host));
                }
            }),
            ("tidegate_primary_lease_seconds", "For how long the primary's role still counts.", |cluster, put| {
                put(cluster.lease_seconds, &[KeyValue::new("cluster", cluster.cluster.clone())]);
            }),
            ("tidegate_primary_conflict", "Whether (1) several hosts claim to be the primary.", |cluster, put| {
                let labels = [KeyValue::new("cluster", cluster.cluster.clone())];
                put(f64::from(u8::from(cluster.conflict)), &labels);
            }),
        ];
        for (name, help, pick) in gauges {
            let source = Arc::clone(&source);
            gauge(&self.meter, name, help, move |put| source().iter().for_each(|cluster| pick(cluster, put)));
        }
    }
}

fn host_labels(cluster: &str, host: &str) -> Vec<KeyValue> {
    vec![KeyValue::new("cluster", cluster.to_owned()), KeyValue::new("host", host.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn the_text_has_exactly_these_names_and_labels() {
        let metrics = Metrics::new();
        metrics.health().turned("main", "a:1", "quarantined");
        metrics.health().conflict("main");
        metrics.health().observe(Arc::new(|| {
            let host = "a:1".to_owned();
            let (state, quarantine_seconds) = ("quarantined", 2.5);
            let hosts = vec![HostState { host, state, quarantine_seconds, share_percent: 40, drained: true }];
            vec![ClusterHealth { cluster: "main".to_owned(), hosts, lease_seconds: 3.5, conflict: true }]
        }));
        let text = metrics.render();
        for line in [
            r#"tidegate_host_transitions_total{cluster="main",host="a:1",to="quarantined"} 1"#,
            r#"tidegate_primary_conflicts_total{cluster="main"} 1"#,
            r#"tidegate_host_state{cluster="main",host="a:1",state="quarantined"} 1"#,
            r#"tidegate_host_quarantine_seconds{cluster="main",host="a:1"} 2.5"#,
            r#"tidegate_host_share_percent{cluster="main",host="a:1"} 40"#,
            r#"tidegate_host_drained{cluster="main",host="a:1"} 1"#,
            r#"tidegate_primary_lease_seconds{cluster="main"} 3.5"#,
            r#"tidegate_primary_conflict{cluster="main"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
