//! What the hosts of every cluster are at this moment: a prober each, one monitor that writes, a snapshot that all read.

mod cluster;
#[cfg(test)]
mod cluster_tests;
pub mod discovery;
#[cfg(test)]
mod follow_tests;
mod host;
mod membership;
mod monitor;
mod nudge;
mod pace;
mod prober;
#[cfg(test)]
mod roles_tests;
mod snapshot;

use std::{fmt, sync::Arc, time::Duration, time::Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock,
    model::{ClusterId, ClusterView, HealthSettings, HostId, Lsn},
    postgres::{Checkpoint, ConnectError, ConnectObserver, Facts, Identity, Reading},
    telemetry::{ClusterHealth, HostState, Metrics},
};
use monitor::{Membership, Monitor, Probing};

pub use membership::{ClusterMembers, ClusterSpec, HostSpec, Member, Roster};
pub use snapshot::Snapshot;

/// How probers ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The settings as they are now; written by the monitor.
type SharedSettings = Arc<ArcSwap<ProbeSettings>>;

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
    /// What its control file names, asked for while that is a proof.
    Checkpoint {
        checkpoint: Checkpoint,
        sent_at: Instant,
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
    /// An operator keeps new reads from this host, or does so no more.
    Drained {
        drained: bool,
        answer: oneshot::Sender<bool>,
    },
}

/// What an operator is answered, once it can be seen.
#[derive(Debug)]
struct Told {
    answer: oneshot::Sender<bool>,
    done: bool,
}

#[derive(Debug)]
struct Event {
    host: HostKey,
    news: HostNews,
}

/// The handle to it all.
#[derive(Clone)]
pub struct Topology {
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Receiver<u64>,
    primary_changes: watch::Receiver<u64>,
    events: mpsc::Sender<Event>,
    memberships: mpsc::Sender<Membership>,
    settings: SharedSettings,
}

impl Topology {
    /// Starts a prober for every host and the monitor; they end with `stop` and are counted by `tasks`.
    pub fn start(
        clusters: Vec<ClusterMembers>,
        settings: ProbeSettings,
        metrics: Metrics,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Topology {
        let (events, inbox) = mpsc::channel(1024);
        let (memberships, changed) = mpsc::channel(1);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let probing = Probing {
            settings: Arc::clone(&settings),
            events: events.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let monitor = Monitor::new(clusters, probing, metrics.clone());
        let (snapshot, changes) = monitor.outlets();
        let primary_changes = monitor.primary_changes();
        show_health(&metrics, &snapshot);
        tasks.spawn(monitor.run(inbox, changed));
        Topology { snapshot, changes, primary_changes, events, memberships, settings }
    }

    /// Watches these clusters and hosts from now on, and returns once the snapshot shows it. What is among them already
    /// stays as it is, with its prober and all that is known of it; what is not leaves at once.
    pub async fn apply(&self, clusters: Vec<ClusterMembers>, settings: ProbeSettings) {
        let (applied, done) = oneshot::channel();
        // The monitor ends with the broker: then nothing is watched any more.
        if self.memberships.send(Membership { clusters, settings, applied }).await.is_ok() {
            let _ = done.await;
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
        self.probe_now(cluster);
    }

    /// Tells the cluster's probers that somebody needs hosts which have passed `lsn`.
    pub fn await_position(&self, cluster: ClusterId, lsn: Lsn) {
        // As replicas count it: an idle primary's position may stand behind a page header that nobody will replay.
        let snapshot = self.snapshot.load();
        let lsn = lsn.without_page_header(snapshot.cluster(cluster).geometry);
        // Hosts that follow its primary may be who is to have passed it.
        for view in snapshot.kin(cluster) {
            if let Some(nudge) = snapshot.nudge(view.id) {
                nudge.await_position(lsn, clock::now());
            }
        }
    }

    /// The same for a reader, who may hold a position that no writer here has told of: another broker's, or a catalogue's
    /// that a verdict rests on. What is awaited already needs no further nudge.
    pub fn seek_position(&self, cluster: ClusterId, lsn: Lsn) {
        let stick_timeout = self.settings.load().stick_timeout;
        let snapshot = self.snapshot.load();
        let awaited = snapshot.nudge(cluster).and_then(|nudge| nudge.awaited(clock::now(), stick_timeout));
        if awaited.is_none_or(|awaited| awaited < lsn) {
            self.await_position(cluster, lsn);
        }
    }

    /// Ends a conflict: this host is the primary, of all that claim to be it on one timeline. The others get nothing until
    /// they are seen as replicas, or on a newer timeline. This broker forgets it when it stops, and tells no other one.
    ///
    /// False, and nothing is changed: there is no conflict, or the host is no part of it.
    pub async fn settle_conflict(&self, host: HostKey) -> bool {
        self.decide(host, |answer| HostNews::Settled { answer }).await
    }

    /// Keeps new reads from a host while it is a replica, or lets it take them again; returns once routing goes by it. It
    /// lasts for as long as the host is configured and this broker runs.
    ///
    /// False, and nothing is changed: it is to be drained and is a primary, or is not there any more.
    pub async fn set_drained(&self, host: HostKey, drained: bool) -> bool {
        self.decide(host, |answer| HostNews::Drained { drained, answer }).await
    }

    async fn decide(&self, host: HostKey, news: impl FnOnce(oneshot::Sender<bool>) -> HostNews) -> bool {
        let (answer, done) = oneshot::channel();
        let sent = self.events.send(Event { host, news: news(answer) }).await;
        // Without a monitor the broker has stopped.
        sent.is_ok() && done.await.unwrap_or(false)
    }

    /// Tells the cluster's probers that somebody waits for fresher news, without a position.
    pub fn probe_now(&self, cluster: ClusterId) {
        if let Some(nudge) = self.snapshot.load().nudge(cluster) {
            nudge.probe_now();
        }
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
        drained: host.drained,
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
