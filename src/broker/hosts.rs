//! The hosts of one logical database, which come and go while calls run: the pools for each, found by its id. Pools that
//! were replaced, or whose host left, are closed: what is idle at once, what is in use when it comes back.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    Failure, Settings,
    database::{HostPools, HostSpec, Seat, Wiring},
};
use crate::{
    model::{Deadline, HostId},
    postgres::{ConnectError, HostIdentity, Target},
};

/// A host as this database uses it.
#[derive(Clone)]
struct Entry {
    spec: HostSpec,
    /// None: the host has left.
    pools: Option<Arc<HostPools>>,
}

/// The hosts by their places. A place keeps its last occupant, without pools, until another one takes it.
#[derive(Default)]
pub(crate) struct Hosts(ArcSwap<Vec<Option<Entry>>>);

impl Hosts {
    /// Makes pools for hosts that came in, and anew for those whose login, proxy or limits have changed. Hosts that are
    /// not among `specs` stay: the snapshot may still lead to them. Only one caller changes hosts at a time.
    pub(crate) fn admit(&self, specs: &[HostSpec], wiring: &Wiring<'_>, anew: bool) {
        let mut entries = Vec::clone(&self.0.load());
        let mut replaced = Vec::new();
        for spec in specs {
            let index = spec.id.index();
            if entries.len() <= index {
                entries.resize(index + 1, None);
            }
            let same = |known: &Entry| {
                known.spec.id == spec.id && known.spec.target == spec.target && known.spec.pooler == spec.pooler
            };
            if !anew && entries[index].as_ref().is_some_and(same) {
                continue;
            }
            let pools = Some(Arc::new(HostPools::new(spec, wiring)));
            let before = entries[index].replace(Entry { spec: spec.clone(), pools });
            replaced.extend(before.and_then(|entry| entry.pools));
        }
        self.0.store(Arc::new(entries));
        replaced.iter().for_each(|pools| pools.close());
    }

    /// Closes the pools of all hosts that are not among `ids`.
    pub(crate) fn retain(&self, ids: &[HostId]) {
        let mut entries = Vec::clone(&self.0.load());
        let mut left = Vec::new();
        for entry in entries.iter_mut().flatten().filter(|entry| !ids.contains(&entry.spec.id)) {
            left.extend(entry.pools.take());
        }
        if !left.is_empty() {
            self.0.store(Arc::new(entries));
            left.iter().for_each(|pools| pools.close());
        }
    }

    /// How many hosts there are.
    pub(crate) fn len(&self) -> usize {
        self.0.load().iter().flatten().filter(|entry| entry.pools.is_some()).count()
    }

    /// The pools of a host, unless it has left.
    pub(crate) fn pools(&self, host: HostId) -> Option<Arc<HostPools>> {
        self.0.load().get(host.index())?.as_ref().filter(|entry| entry.spec.id == host)?.pools.clone()
    }

    /// The server itself, whatever calls go through; also of a host that has left, for the calls that ran there.
    pub(crate) fn target(&self, host: HostId) -> Option<Target> {
        self.entry(host).map(|entry| entry.spec.target)
    }

    /// What connections to the host must agree on; None once it has left.
    pub(crate) fn identity(&self, host: HostId) -> Option<Arc<HostIdentity>> {
        self.entry(host).filter(|entry| entry.pools.is_some()).map(|entry| entry.spec.identity)
    }

    fn entry(&self, host: HostId) -> Option<Entry> {
        self.0.load().get(host.index())?.as_ref().filter(|entry| entry.spec.id == host).cloned()
    }

    /// A connection for reads: see [`HostPools::read`].
    pub(crate) async fn read(&self, host: HostId, as_primary: bool, deadline: Deadline) -> Result<Seat, Failure> {
        loop {
            let pools = self.pools(host).ok_or_else(|| left(host))?;
            let taken = pools.read(as_primary, deadline).await;
            if !is_replaced(&pools, &taken) {
                return taken;
            }
        }
    }

    /// A connection for writes: see [`HostPools::write`].
    pub(crate) async fn write(&self, host: HostId, deadline: Deadline) -> Result<Seat, Failure> {
        loop {
            let pools = self.pools(host).ok_or_else(|| left(host))?;
            let taken = pools.write(deadline).await;
            if !is_replaced(&pools, &taken) {
                return taken;
            }
        }
    }
}

/// A caller that waited in line for pools which were closed meanwhile goes to the new ones.
fn is_replaced(pools: &HostPools, taken: &Result<Seat, Failure>) -> bool {
    pools.is_closed() && taken.as_ref().is_err_and(Failure::is_of_the_host)
}

/// Nothing was sent: another host may do.
fn left(host: HostId) -> Failure {
    let reason = "it was taken out of the configuration".into();
    ConnectError::Unreachable { host: format!("host {}", host.index()), reason, refused: false }.into()
}

/// Whether pools that were made by these settings are as they would be by others.
pub(crate) fn same_pools(one: &Settings, other: &Settings) -> bool {
    let limits = |settings: &Settings| {
        (
            settings.connections_per_host,
            settings.primary_read_share.to_bits(),
            settings.idle_timeout,
            settings.max_lifetime,
            settings.statements,
            settings.max_queue,
        )
    };
    limits(one) == limits(other)
}
