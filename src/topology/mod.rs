//! What the hosts of every cluster are at this moment: a prober each, one monitor that writes, a snapshot that all read.

mod cluster;
#[cfg(test)]
mod cluster_tests;
mod host;
mod monitor;
mod nudge;
mod pace;
mod prober;
#[cfg(test)]
mod roles_tests;

use std::{fmt, sync::Arc, time::Duration, time::Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock,
    model::{ClusterId, ClusterView, HealthSettings, Histories, HostId, Lsn, Place},
    postgres::{ConnectError, ConnectObserver, Facts, HostIdentity, Identity, Reading, Target},
    telemetry::{ClusterHealth, HostState, Metrics},
};
use nudge::Nudge;

/// How probers ask.
#[derive(Debug, Clone, Copy)]
pub struct ProbeSettings {
    /// Between two probes when nothing is waited for.
    pub interval: Duration,
    /// Between two probes while a position is waited for.
    pub fast_interval: Duration,
    /// An answer that takes longer is a failure.
    pub timeout: Duration,
    /// Nothing is waited for longer than this.
    pub stick_timeout: Duration,
    /// A primary's role counts for this long after a probe that confirmed it was sent.
    pub lease: Duration,
    /// When a host is given up, and when it is trusted again.
    pub health: HealthSettings,
}

/// A cluster to watch.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Its name.
    pub name: String,
    /// Its hosts, with the name each is called by.
    pub hosts: Vec<(String, Target)>,
    /// Each host's part in the calls; of a host without any, the default.
    pub places: Vec<Place>,
    /// The host that the configuration takes for the primary, if it takes any.
    pub configured_primary: Option<HostId>,
}

/// One host of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostKey {
    /// The cluster.
    pub cluster: ClusterId,
    /// The host in it.
    pub host: HostId,
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster.index(), self.host.index())
    }
}

/// Something that was learnt of a host.
#[derive(Debug)]
enum HostNews {
    Identified {
        identity: Identity,
    },
    Read {
        reading: Reading,
        sent_at: Instant,
        received_at: Instant,
    },
    ProbeFailed {
        why: String,
        certain: bool,
    },
    Connected {
        facts: Facts,
    },
    /// Of a connection of somebody else; it counts against the host's health, or only asks for a probe.
    ConnectFailed {
        why: String,
        counts: bool,
    },
    /// An operator has decided for this host.
    Settled {
        answer: oneshot::Sender<bool>,
    },
}

#[derive(Debug)]
struct Event {
    host: HostKey,
    news: HostNews,
}

/// All clusters as of the last event; immutable.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By [`ClusterId`].
    pub clusters: Vec<ClusterView>,
    /// The histories that positions refer to.
    pub histories: Histories,
}

impl Snapshot {
    /// The cluster's view; the id came from this topology, so it exists.
    pub fn cluster(&self, cluster: ClusterId) -> &ClusterView {
        &self.clusters[cluster.index()]
    }
}

/// The handle to it all.
#[derive(Clone)]
pub struct Topology {
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Receiver<u64>,
    primary_changes: watch::Receiver<u64>,
    nudges: Arc<Vec<Arc<Nudge>>>,
    identities: Arc<Vec<Vec<Arc<HostIdentity>>>>,
    events: mpsc::Sender<Event>,
    stick_timeout: Duration,
}

impl Topology {
    /// Starts a prober for every host and the monitor; they end with `stop` and are counted by `tasks`.
    pub fn start(
        specs: &[ClusterSpec],
        settings: ProbeSettings,
        metrics: Metrics,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Topology {
        let (events, inbox) = mpsc::channel(1024);
        let now = clock::now();
        let nudges: Vec<_> = specs.iter().map(|_| Arc::new(Nudge::new(now))).collect();
        let identities: Vec<Vec<_>> =
            specs.iter().map(|spec| spec.hosts.iter().map(|_| Arc::new(HostIdentity::default())).collect()).collect();
        let monitor = monitor::Monitor::new(specs, settings, &nudges, &identities, metrics.clone());
        let (snapshot, changes) = monitor.outlets();
        let primary_changes = monitor.primary_changes();
        show_health(&metrics, &snapshot);
        tasks.spawn(monitor.run(inbox, stop.clone()));
        for (cluster, spec) in specs.iter().enumerate() {
            for (host, (_, target)) in spec.hosts.iter().enumerate() {
                let prober = prober::Prober {
                    host: HostKey { cluster: ClusterId::new(cluster as u16), host: HostId::new(host as u16) },
                    target: target.clone(),
                    settings,
                    nudge: Arc::clone(&nudges[cluster]),
                    events: events.clone(),
                    identity: Arc::clone(&identities[cluster][host]),
                };
                tasks.spawn(prober.run(stop.clone()));
            }
        }
        let (nudges, identities) = (Arc::new(nudges), Arc::new(identities));
        Topology {
            snapshot,
            changes,
            primary_changes,
            nudges,
            identities,
            events,
            stick_timeout: settings.stick_timeout,
        }
    }

    /// The present state; cheap, and consistent in itself.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Resolves when the state has changed since this receiver last looked.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// The same, only for another primary of some cluster, or the loss of one: see [`crate::model::Primacy`].
    pub fn primary_changes(&self) -> watch::Receiver<u64> {
        self.primary_changes.clone()
    }

    /// Has the cluster's probers ask at once: somebody waits for a primary.
    pub fn seek_primary(&self, cluster: ClusterId) {
        self.nudges[cluster.index()].probe_now();
    }

    /// Tells the cluster's probers that somebody needs hosts which have passed `lsn`.
    pub fn await_position(&self, cluster: ClusterId, lsn: Lsn) {
        // As replicas count it: an idle primary's position may stand behind a page header that nobody will replay.
        let lsn = lsn.without_page_header(self.snapshot.load().cluster(cluster).geometry);
        self.nudges[cluster.index()].await_position(lsn, clock::now());
    }

    /// The same for a reader, who may hold a position that no writer here has told of: another broker's. What is awaited
    /// already needs no further nudge.
    pub fn seek_position(&self, cluster: ClusterId, lsn: Lsn) {
        let awaited = self.nudges[cluster.index()].awaited(clock::now(), self.stick_timeout);
        if awaited.is_none_or(|awaited| awaited < lsn) {
            self.await_position(cluster, lsn);
        }
    }

    /// Ends a conflict: this host is the primary, of all that claim to be it on one timeline. The others get nothing until
    /// they are seen as replicas, or on a newer timeline. This broker forgets it when it stops, and tells no other one.
    ///
    /// False, and nothing is changed: there is no conflict, or the host is no part of it.
    pub async fn settle_conflict(&self, host: HostKey) -> bool {
        let (answer, settled) = oneshot::channel();
        let sent = self.events.send(Event { host, news: HostNews::Settled { answer } }).await;
        // Without a monitor the broker has stopped.
        sent.is_ok() && settled.await.unwrap_or(false)
    }

    /// Tells the cluster's probers that somebody waits for fresher news, without a position.
    pub fn probe_now(&self, cluster: ClusterId) {
        self.nudges[cluster.index()].probe_now();
    }

    /// What connections to this host must agree on; pools check it.
    pub fn identity(&self, host: HostKey) -> Arc<HostIdentity> {
        Arc::clone(&self.identities[host.cluster.index()][host.host.index()])
    }

    /// The ear for what pools learn of this host.
    pub fn observer(&self, host: HostKey) -> Arc<dyn ConnectObserver> {
        Arc::new(PoolEar { host, events: self.events.clone() })
    }
}

/// The gauges of health, computed when they are asked for.
fn show_health(metrics: &Metrics, snapshot: &Arc<ArcSwap<Snapshot>>) {
    let snapshot = Arc::clone(snapshot);
    metrics.health().observe(Arc::new(move || {
        let now = clock::now();
        snapshot.load().clusters.iter().map(|view| cluster_health(view, now)).collect()
    }));
}

fn cluster_health(view: &ClusterView, now: Instant) -> ClusterHealth {
    let left = |until: Instant| until.saturating_duration_since(now).as_secs_f64();
    let hosts = view.hosts.iter().map(|host| HostState {
        host: host.name.to_string(),
        state: host.health.as_str(),
        quarantine_seconds: host.quarantined_until.map_or(0.0, left),
        share_percent: host.ramp(now),
    });
    ClusterHealth {
        cluster: view.name.to_string(),
        hosts: hosts.collect(),
        lease_seconds: view.lease_until.map_or(0.0, left),
        conflict: view.conflict,
    }
}

struct PoolEar {
    host: HostKey,
    events: mpsc::Sender<Event>,
}

impl PoolEar {
    fn tell(&self, news: HostNews) {
        // A full inbox means that the monitor is busy with fresher news of the same kind: this one may be lost, since
        // every connection is also checked by itself before a position is trusted on it.
        let _ = self.events.try_send(Event { host: self.host, news });
    }
}

impl ConnectObserver for PoolEar {
    fn connected(&self, facts: &Facts) {
        self.tell(HostNews::Connected { facts: facts.clone() });
    }

    fn failed(&self, error: &ConnectError) {
        let tells_of_the_host = match error {
            ConnectError::Unreachable { .. } | ConnectError::TimedOut { .. } | ConnectError::WrongServer { .. } => true,
            // 57P01 to 57P03: shutting down, crashed, starting up. Any other refusal concerns the login alone.
            ConnectError::Refused { error, .. } => error.sqlstate.starts_with("57P"),
        };
        if tells_of_the_host {
            // A server of another kind than expected is well: only what is known of it is wrong.
            let counts = !matches!(error, ConnectError::WrongServer { .. });
            self.tell(HostNews::ConnectFailed { why: error.to_string(), counts });
        }
    }

    fn lost(&self) {
        self.tell(HostNews::ConnectFailed { why: "a connection was lost".into(), counts: true });
    }
}
