//! The monitor: the only writer of the topology's state. Takes events one by one, publishes snapshots.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    ClusterSpec, Event, HostNews, ProbeSettings, Snapshot,
    cluster::{ClusterState, Effects},
    nudge::Nudge,
};
use crate::{
    clock,
    model::{ClusterId, Histories, Primacy},
    postgres::HostIdentity,
    telemetry::Metrics,
};

pub(super) struct Monitor {
    clusters: Vec<ClusterState>,
    histories: Histories,
    nudges: Vec<Arc<Nudge>>,
    identities: Vec<Vec<Arc<HostIdentity>>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: watch::Sender<u64>,
    primary_changes: watch::Sender<u64>,
    metrics: Metrics,
}

impl Monitor {
    pub(super) fn new(
        specs: &[ClusterSpec],
        settings: ProbeSettings,
        nudges: &[Arc<Nudge>],
        identities: &[Vec<Arc<HostIdentity>>],
        metrics: Metrics,
    ) -> Monitor {
        let clusters: Vec<_> = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| ClusterState::new(ClusterId::new(index as u16), spec, settings))
            .collect();
        let first =
            Snapshot { clusters: clusters.iter().map(ClusterState::view).collect(), histories: Histories::default() };
        Monitor {
            clusters,
            histories: Histories::default(),
            nudges: nudges.to_vec(),
            identities: identities.to_vec(),
            snapshot: Arc::new(ArcSwap::from_pointee(first)),
            changes: watch::channel(0).0,
            primary_changes: watch::channel(0).0,
            metrics,
        }
    }

    pub(super) fn outlets(&self) -> (Arc<ArcSwap<Snapshot>>, watch::Receiver<u64>) {
        (Arc::clone(&self.snapshot), self.changes.subscribe())
    }

    pub(super) fn primary_changes(&self) -> watch::Receiver<u64> {
        self.primary_changes.subscribe()
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>, stop: CancellationToken) {
        loop {
            let deadline = self.clusters.iter().filter_map(ClusterState::next_deadline).min();
            tokio::select! {
                () = stop.cancelled() => return,
                event = inbox.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                // Nobody is sent to a primary whose lease has lapsed, whether or not this comes in time; but those who
                // wait for a primary, and the metrics, are to know.
                () = until(deadline) => self.pass_time(),
            }
        }
    }

    fn pass_time(&mut self) {
        let now = clock::now();
        for index in 0..self.clusters.len() {
            if self.clusters[index].next_deadline().is_some_and(|deadline| deadline <= now) {
                let effects = self.clusters[index].pass_time(&mut self.histories, now);
                self.follow_up(index, effects);
            }
        }
    }

    fn take(&mut self, Event { host, news }: Event) {
        let index = host.cluster.index();
        if matches!(news, HostNews::ProbeFailed { .. }) {
            let cluster = &self.clusters[index];
            self.metrics.probe_failed(&cluster.name(), &cluster.host_name(host.host));
        }
        let effects = self.clusters[index].apply(host.host, news, &mut self.histories, clock::now());
        self.follow_up(index, effects);
    }

    fn follow_up(&mut self, index: usize, effects: Effects) {
        for (host, change) in &effects.health {
            let cluster = &self.clusters[index];
            self.metrics.health().turned(&cluster.name(), &cluster.host_name(*host), change.to.as_str());
        }
        if effects.new_conflict {
            self.metrics.health().conflict(&self.clusters[index].name());
        }
        for (host, epoch) in &effects.epochs {
            self.identities[index][host.index()].set_epoch(*epoch);
        }
        if let Some(identifier) = effects.system_identifier {
            self.identities[index].iter().for_each(|identity| identity.set_system_identifier(identifier));
        }
        if effects.new_history {
            self.nudges[index].forget();
        }
        // The identities come first: nobody may read the new snapshot and check a connection against old ones.
        let mut clusters = self.snapshot.load().clusters.clone();
        let before = Primacy::of(&clusters[index]);
        clusters[index] = self.clusters[index].view();
        let primary_changed = before != Primacy::of(&clusters[index]);
        self.snapshot.store(Arc::new(Snapshot { clusters, histories: self.histories.clone() }));
        self.changes.send_modify(|version| *version += 1);
        if primary_changed {
            self.primary_changes.send_modify(|version| *version += 1);
        }
        if let Some(host) = effects.contradicted {
            self.identities[index][host.index()].contradict();
        }
        if effects.probe_now {
            self.nudges[index].probe_now();
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
