//! What the broker goes by at this moment, and the only place that changes it: a configuration, and for each cluster the
//! hosts that it names or that a discovery found last. Whatever changes is applied as a difference.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    discovery::{Discoveries, look_up},
    placement,
    reload::{ReloadRefused, ReloadReport},
    wiring,
};
use crate::{
    broker::Broker,
    clock,
    config::{self, ClusterConfig, Config, DiscoveryConfig, HostConfig},
    grpc::ServerSettings,
    model::{ClusterId, ClusterView, HostSet},
    topology::{ClusterMembers, Roster, Topology},
};

/// How long the hosts of a cluster that is new, and its primary, may take to be found before its databases are served all
/// the same.
const FIND_LIMIT: Duration = Duration::from_secs(5);

/// The running broker's configuration.
pub struct Control {
    /// Changes go one at a time.
    state: Arc<Mutex<State>>,
}

type Discovered = HashMap<String, Vec<HostConfig>>;

pub(super) struct State {
    config: Config,
    discoveries: Discoveries,
    /// By cluster: the hosts that take the place of those in the configuration.
    discovered: Discovered,
    /// What the parts go by may not be what is said here: a fault ended the last change half-way, and its undoing.
    is_torn: bool,
    roster: Roster,
    /// As they were applied last.
    clusters: Vec<ClusterMembers>,
    broker: Arc<Broker>,
    topology: Topology,
    server: watch::Sender<ServerSettings>,
}

impl Control {
    /// Of a broker that runs by this configuration.
    pub(super) fn new(
        config: Config,
        mut roster: Roster,
        broker: Arc<Broker>,
        topology: Topology,
        server: watch::Sender<ServerSettings>,
        (stop, tasks): (&CancellationToken, &TaskTracker),
    ) -> Control {
        let clusters = roster.assign(wiring::cluster_specs(&config));
        let state = Arc::new_cyclic(|state| {
            let metrics = broker.metrics().clone();
            let discoveries = Discoveries::new(state.clone(), metrics, stop.clone(), tasks.clone());
            let discovered = HashMap::new();
            let is_torn = false;
            Mutex::new(State { config, discoveries, discovered, is_torn, roster, clusters, broker, topology, server })
        });
        // Nobody else has it yet.
        if let Ok(mut state) = state.try_lock() {
            let State { config, discoveries, discovered, .. } = &mut *state;
            discoveries.follow(config, discovered);
        }
        Control { state }
    }

    /// The same, by its state.
    pub(super) fn of(state: Arc<Mutex<State>>) -> Control {
        Control { state }
    }

    /// Goes by this configuration from now on, and returns when it does. What is unchanged stays: hosts with what is known
    /// of them, pools with their connections, calls that run. Once begun it goes on to its end, whether or not anybody
    /// waits for it.
    ///
    /// # Errors
    /// Something changes that takes a restart; then nothing was changed. Or the broker's own fault ended it half-way; then
    /// what was before is in force again, if that could be done.
    pub async fn apply(&self, config: Config) -> Result<ReloadReport, ReloadRefused> {
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let changes = config::changes(&state.config, &config);
        let (fixed, live): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.needs_restart);
        if !fixed.is_empty() {
            return Err(ReloadRefused::NeedsRestart(fixed));
        }
        if live.is_empty() && !state.is_torn {
            return Ok(ReloadReport { changes: live });
        }
        let before = state.said();
        state.keep_hosts(&config);
        state.config = config;
        carry_out(state, before).await?;
        Ok(ReloadReport { changes: live })
    }

    /// The hosts of a cluster are these from now on, whatever the configuration says; an empty list changes nothing, since
    /// a cluster without hosts is no answer. Names are unique: a later one of the same name is left out, and so is what
    /// exceeds the hosts that a cluster can have. A cluster that is not configured is remembered until it is.
    pub async fn set_discovered(&self, cluster: &str, hosts: Vec<HostConfig>) {
        self.take_over(cluster, None, hosts).await;
    }

    /// What was found by that discovery, unless the configuration has another one by now.
    pub(super) async fn discovered(&self, cluster: &str, by: &DiscoveryConfig, hosts: Vec<HostConfig>) {
        self.take_over(cluster, Some(by), hosts).await;
    }

    async fn take_over(&self, cluster: &str, by: Option<&DiscoveryConfig>, hosts: Vec<HostConfig>) {
        let unique = unique(cluster, hosts);
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let is_current = by.is_none_or(|by| state.discoveries.is_current(cluster, by));
        if unique.is_empty() || !is_current || state.discovered.get(cluster) == Some(&unique) {
            return;
        }
        let before = state.said();
        state.discovered.insert(cluster.to_owned(), unique);
        if let Err(reason) = carry_out(state, before).await {
            tracing::error!(cluster, %reason, "the hosts that were discovered were not taken over");
        }
    }

    /// Whether a change of the files is to be taken over.
    pub(super) async fn is_watching(&self) -> bool {
        self.state.lock().await.config.reload.watch
    }

    /// The configuration that the broker goes by, with the hosts as they were discovered.
    pub async fn effective(&self) -> Config {
        self.state.lock().await.effective()
    }
}

/// Enacts what the state says by now, to its end, whether or not anybody waits for it; or, when a fault ends that half-way,
/// what it said before. A panic was shown by the runtime.
async fn carry_out(mut state: OwnedMutexGuard<State>, before: (Config, Discovered)) -> Result<(), ReloadRefused> {
    let carried_out = tokio::spawn(async move {
        if state.enact_whole().await {
            return Ok(());
        }
        (state.config, state.discovered) = before;
        Err(ReloadRefused::Failed { undone: state.enact_whole().await })
    });
    // It is ended only with the runtime.
    carried_out.await.unwrap_or(Err(ReloadRefused::Failed { undone: false }))
}

/// As many as a cluster can have, each name once.
fn unique(cluster: &str, hosts: Vec<HostConfig>) -> Vec<HostConfig> {
    let mut unique: Vec<HostConfig> = Vec::with_capacity(hosts.len());
    for host in hosts {
        if unique.iter().all(|known| known.name != host.name) {
            unique.push(host);
        }
    }
    if unique.len() > HostSet::CAPACITY {
        let (found, most) = (unique.len(), HostSet::CAPACITY);
        tracing::warn!(cluster, found, most, "more hosts were discovered than a cluster can have; some are left out");
        unique.truncate(HostSet::CAPACITY);
    }
    unique
}

impl State {
    /// What it says that the broker goes by.
    fn said(&self) -> (Config, Discovered) {
        (self.config.clone(), self.discovered.clone())
    }

    /// False: a fault ended it half-way. All of it may be done again: what is in force already stays as it is.
    async fn enact_whole(&mut self) -> bool {
        self.is_torn = true;
        let ended = AssertUnwindSafe(self.enact()).catch_unwind().await;
        self.is_torn = ended.is_err();
        ended.is_ok()
    }

    /// Hosts that were listed, and are to be discovered by `config`, stay until they are.
    fn keep_hosts(&mut self, config: &Config) {
        for cluster in config.clusters.iter().filter(|cluster| cluster.discovery.is_some()) {
            let known = self.config.clusters.iter().find(|known| known.name == cluster.name);
            if let Some(listed) = known.filter(|known| !known.hosts.is_empty()) {
                self.discovered.entry(cluster.name.clone()).or_insert_with(|| listed.hosts.clone());
            }
        }
    }

    /// Looks up the hosts of clusters that are new: what their watches find would be taken in only behind this change.
    async fn look_up_new(&mut self, until: Instant) {
        let is_new = |cluster: &&ClusterConfig| {
            let name = &cluster.name;
            self.clusters.iter().all(|known| known.name != *name) && !self.discovered.contains_key(name)
        };
        let looks = self.config.clusters.iter().filter(is_new).map(|cluster| async move {
            let hosts = tokio::time::timeout_at(until, look_up(cluster)).await.unwrap_or_default();
            (cluster.name.clone(), unique(&cluster.name, hosts))
        });
        let found = futures_util::future::join_all(looks).await;
        self.discovered.extend(found.into_iter().filter(|(_, hosts)| !hosts.is_empty()));
    }

    fn effective(&self) -> Config {
        let mut config = self.config.clone();
        for cluster in &mut config.clusters {
            if let Some(hosts) = self.discovered.get(&cluster.name) {
                cluster.hosts.clone_from(hosts);
            }
        }
        config
    }

    /// Who comes is ready before anybody is led there; who leaves is led nobody before it is closed.
    async fn enact(&mut self) {
        for cluster in self.discoveries.follow(&self.config, &self.discovered) {
            self.discovered.remove(&cluster);
        }
        let until = Instant::from_std(clock::now() + FIND_LIMIT);
        self.look_up_new(until).await;
        let config = self.effective();
        let clusters = self.roster.assign(wiring::cluster_specs(&config));
        let databases = placement::database_specs(&config, &clusters);
        let probing = wiring::probe_settings(&config);
        self.broker.admit(wiring::broker_settings(&config), &databases);
        let before = &self.clusters;
        let is_in = |list: &[ClusterMembers], id: ClusterId| list.iter().any(|cluster| cluster.id == id);
        let leaving: Vec<_> = before.iter().filter(|cluster| !is_in(&clusters, cluster.id)).cloned().collect();
        let new: Vec<_> = clusters.iter().map(|cluster| cluster.id).filter(|id| !is_in(before, *id)).collect();
        let both = clusters.iter().chain(&leaving).cloned().collect();
        self.topology.apply(both, probing).await;
        self.found(&new, until).await;
        self.broker.serve(&databases, placement::rules(&config), &wiring::broker_settings(&config));
        if !leaving.is_empty() {
            self.topology.apply(clusters.clone(), probing).await;
        }
        self.broker.retire(&databases);
        self.server.send_replace(wiring::server_settings(&config));
        // Last: should a fault end this before, what has yet to leave is known by it.
        self.clusters = clusters;
    }

    /// Waits until these clusters have a primary, but not for long: a database that moves goes on where it is meanwhile.
    async fn found(&self, clusters: &[ClusterId], until: Instant) {
        let mut changes = self.topology.changes();
        let found = async {
            loop {
                changes.mark_unchanged();
                let snapshot = self.topology.snapshot();
                // While no host that follows another's primary is known, that one's own are asked.
                let is_found = |view: &ClusterView| view.primary.is_some() || view.follows.is_some();
                if clusters.iter().all(|cluster| is_found(snapshot.cluster(*cluster))) {
                    return;
                }
                drop(snapshot);
                if changes.changed().await.is_err() {
                    return; // the broker has stopped
                }
            }
        };
        if tokio::time::timeout_at(until, found).await.is_err() {
            tracing::warn!("a cluster that was added has no primary yet");
        }
    }
}
