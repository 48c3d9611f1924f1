//! The monitor: the only writer of the topology's state. Takes events one by one, publishes snapshots; starts and ends
//! the probers of hosts that come and go.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Event, HostKey, HostNews, ProbeSettings, SharedSettings, Snapshot, Told,
    cluster::{ClusterState, Effects},
    membership::{ClusterMembers, Member},
    nudge::Nudge,
    prober::Prober,
    snapshot::Watched,
};
use crate::{
    clock,
    model::{ClusterView, Histories, HostId, Primacy},
    postgres::Target,
    telemetry::Metrics,
};

/// Clusters that were taken out of the configuration and are remembered for the calls that still run there.
const LEFT_MAX: usize = 64;

/// All clusters and hosts as they are to be from now on.
pub(super) struct Membership {
    pub(super) clusters: Vec<ClusterMembers>,
    pub(super) settings: ProbeSettings,
    /// Told once the snapshot shows it.
    pub(super) applied: oneshot::Sender<()>,
}

/// A cluster with all that belongs to it.
struct Cluster {
    state: ClusterState,
    nudge: Arc<Nudge>,
    hosts: Vec<Host>,
}

/// A host with its prober, which ends with it.
struct Host {
    member: Member,
    target: watch::Sender<Target>,
    stop: CancellationToken,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What probers are started with.
pub(super) struct Probing {
    pub(super) settings: SharedSettings,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

pub(super) struct Monitor {
    clusters: Vec<Cluster>,
    /// The last views of clusters that left, newest last.
    left: VecDeque<ClusterView>,
    histories: Histories,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Sender<u64>,
    primary_changes: watch::Sender<u64>,
    metrics: Metrics,
    probing: Probing,
}

impl Monitor {
    pub(super) fn new(clusters: Vec<ClusterMembers>, probing: Probing, metrics: Metrics) -> Monitor {
        let mut monitor = Monitor {
            clusters: Vec::new(),
            left: VecDeque::new(),
            histories: Histories::default(),
            snapshot: Arc::default(),
            changes: watch::channel(0).0,
            primary_changes: watch::channel(0).0,
            metrics,
            probing,
        };
        monitor.set_members(clusters);
        monitor
    }

    pub(super) fn outlets(&self) -> (Arc<ArcSwap<Snapshot>>, watch::Receiver<u64>) {
        (Arc::clone(&self.snapshot), self.changes.subscribe())
    }

    pub(super) fn primary_changes(&self) -> watch::Receiver<u64> {
        self.primary_changes.subscribe()
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>, mut memberships: mpsc::Receiver<Membership>) {
        let stop = self.probing.stop.clone();
        loop {
            let deadline = self.clusters.iter().filter_map(|cluster| cluster.state.next_deadline()).min();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(Membership { clusters, settings, applied }) = memberships.recv() => {
                    self.set_settings(settings);
                    self.set_members(clusters);
                    // Whoever waited may have given up.
                    let _ = applied.send(());
                }
                Some(event) = inbox.recv() => self.take(event),
                // Nobody is sent to a primary whose lease has lapsed, whether or not this comes in time; but those who
                // wait for a primary, and the metrics, are to know.
                () = until(deadline) => self.pass_time(),
            }
        }
    }

    fn pass_time(&mut self) {
        let now = clock::now();
        for index in 0..self.clusters.len() {
            let state = &mut self.clusters[index].state;
            if state.next_deadline().is_some_and(|deadline| deadline <= now) {
                let effects = state.pass_time(&mut self.histories, now);
                self.follow_up(index, &effects);
            }
        }
    }

    fn take(&mut self, Event { host: HostKey { cluster, host }, news }: Event) {
        // A host that has left is still heard of for a moment.
        let Some(index) = self.clusters.iter().position(|known| known.state.id == cluster) else { return };
        let known = &mut self.clusters[index];
        if !known.state.seats.contains(host) {
            return;
        }
        if matches!(news, HostNews::ProbeFailed { .. }) {
            self.metrics.probe_failed(&known.state.name(), &known.state.host_name(host));
        }
        let effects = known.state.apply(host, news, &mut self.histories, clock::now());
        self.follow_up(index, &effects);
        if let Some(Told { answer, done }) = effects.told {
            // Whoever asked may have left.
            let _ = answer.send(done);
        }
    }

    fn follow_up(&mut self, index: usize, effects: &Effects) {
        let known = &self.clusters[index];
        let id = known.state.id;
        known.settle(effects, &self.metrics);
        // The identities come first: nobody may read the new snapshot and check a connection against old ones.
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        snapshot.clusters[index] = self.view(index);
        // Those that follow change with it, or a position in its new history would be held against hosts of the old.
        for follower in 0..self.clusters.len() {
            if self.clusters[follower].state.follows() != Some(id) {
                continue;
            }
            if effects.new_history {
                self.clusters[follower].nudge.forget();
            }
            snapshot.clusters[follower] = self.view(follower);
        }
        self.publish(snapshot);
        self.clusters[index].ask(effects);
    }

    /// One cluster's view: by its own primary, or by the one that its hosts follow.
    fn view(&mut self, index: usize) -> ClusterView {
        let of = |id| self.clusters.iter().position(|known| known.state.id == id);
        let leader = self.clusters[index].state.follows().and_then(of);
        match leader.map(|leader| self.clusters.get_disjoint_mut([index, leader])) {
            Some(Ok([follower, leader])) => {
                let effects = follower.state.adopt(&leader.state);
                follower.settle(&effects, &self.metrics);
                follower.nudge.want_checkpoints(leader.state.is_forked());
                follower.state.view_following(&leader.state)
            }
            // Without the one that they follow nothing is proved of them.
            _ => {
                let Cluster { state, nudge, .. } = &self.clusters[index];
                nudge.want_checkpoints(state.is_forked());
                state.view()
            }
        }
    }

    fn set_settings(&mut self, settings: ProbeSettings) {
        if **self.probing.settings.load() == settings {
            return;
        }
        self.probing.settings.store(Arc::new(settings));
        for cluster in &mut self.clusters {
            cluster.state.settings = settings;
            // Who rests goes by the old ones.
            cluster.nudge.probe_now();
        }
    }

    fn set_members(&mut self, clusters: Vec<ClusterMembers>) {
        let now = clock::now();
        let stays = |known: &Cluster| clusters.iter().any(|cluster| cluster.id == known.state.id);
        let (staying, leaving): (Vec<_>, Vec<_>) = std::mem::take(&mut self.clusters).into_iter().partition(stays);
        self.clusters = staying;
        for mut cluster in leaving {
            cluster.state.set_members(&[], &mut self.histories, now);
            self.left.push_back(cluster.state.view());
        }
        let mut all_effects = Vec::new();
        for ClusterMembers { id, name, follows, hosts } in clusters {
            self.left.retain(|left| left.id != id);
            let index = self.clusters.iter().position(|known| known.state.id == id).unwrap_or_else(|| {
                let state = ClusterState::new(id, &name, **self.probing.settings.load());
                self.clusters.push(Cluster { state, nudge: Arc::new(Nudge::new(now)), hosts: Vec::new() });
                self.clusters.len() - 1
            });
            let cluster = &mut self.clusters[index];
            let effects = cluster.state.set_follows(follows);
            cluster.settle(&effects, &self.metrics);
            let effects = cluster.state.set_members(&hosts, &mut self.histories, now);
            cluster.set_hosts(hosts, &self.probing);
            cluster.settle(&effects, &self.metrics);
            all_effects.push((index, effects));
        }
        while self.left.len() > LEFT_MAX {
            self.left.pop_front();
        }
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        snapshot.clusters = (0..self.clusters.len()).map(|index| self.view(index)).collect();
        snapshot.left = self.left.iter().cloned().collect();
        snapshot.watched = self.clusters.iter().map(|c| Watched::new(c.state.id, &c.nudge)).collect();
        self.publish(snapshot);
        for (index, effects) in all_effects {
            self.clusters[index].ask(&effects);
        }
    }

    fn publish(&self, mut snapshot: Snapshot) {
        snapshot.histories = self.histories.clone();
        let primaries =
            |snapshot: &Snapshot| snapshot.clusters.iter().map(|v| (v.id, Primacy::of(v))).collect::<Vec<_>>();
        let primary_changed = primaries(&self.snapshot.load()) != primaries(&snapshot);
        self.snapshot.store(Arc::new(snapshot));
        self.changes.send_modify(|version| *version += 1);
        if primary_changed {
            self.primary_changes.send_modify(|version| *version += 1);
        }
    }
}

impl Cluster {
    /// What connections are checked against, and what is waited for, follows the state.
    fn settle(&self, effects: &Effects, metrics: &Metrics) {
        for (host, change) in &effects.health {
            metrics.health().turned(&self.state.name(), &self.state.host_name(*host), change.to.as_str());
        }
        if effects.new_conflict {
            metrics.health().conflict(&self.state.name());
        }
        for (host, epoch) in &effects.epochs {
            if let Some(host) = self.host(*host) {
                host.member.identity.set_epoch(*epoch);
            }
        }
        if let Some(identifier) = effects.system_identifier {
            self.hosts.iter().for_each(|host| host.member.identity.set_system_identifier(identifier));
        }
        if effects.new_history {
            self.nudge.forget();
        }
    }

    /// What has to be asked anew.
    fn ask(&self, effects: &Effects) {
        if let Some(host) = effects.contradicted.and_then(|host| self.host(host)) {
            host.member.identity.contradict();
        }
        if effects.probe_now {
            self.nudge.probe_now();
        }
    }

    fn host(&self, id: HostId) -> Option<&Host> {
        self.hosts.iter().find(|host| host.member.id == id)
    }

    /// Starts the probers of hosts that came, and ends those of hosts that left.
    fn set_hosts(&mut self, members: Vec<Member>, probing: &Probing) {
        let mut before = std::mem::take(&mut self.hosts);
        for member in members {
            let known = before.iter().position(|host| host.member.id == member.id);
            self.hosts.push(match known {
                Some(index) => before.swap_remove(index).with(member),
                None => Host::start(&self.state, &self.nudge, member, probing),
            });
        }
    }
}

impl Host {
    fn start(state: &ClusterState, nudge: &Arc<Nudge>, member: Member, probing: &Probing) -> Host {
        let stop = probing.stop.child_token();
        let (target, followed) = watch::channel(member.spec.target.clone());
        let prober = Prober {
            host: HostKey { cluster: state.id, host: member.id },
            target: followed,
            settings: Arc::clone(&probing.settings),
            nudge: Arc::clone(nudge),
            events: probing.events.clone(),
            identity: Arc::clone(&member.identity),
        };
        probing.tasks.spawn(prober.run(stop.clone()));
        Host { member, target, stop }
    }

    /// The same host as it is given now: its prober logs in anew where that has changed.
    fn with(mut self, member: Member) -> Host {
        if self.member.spec.target != member.spec.target {
            self.target.send_replace(member.spec.target.clone());
        }
        self.member = member;
        self
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
