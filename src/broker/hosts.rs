//! The hosts of one logical database, which come and go while calls run: the pools for each, found by its id. Pools that
//! were replaced, or whose host left, are closed: what is idle at once, what is in use when it comes back.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    Failure, Settings,
    caller::Caller,
    database::{HostSpec, Wiring},
    pools::{HostPools, Seat},
};
use crate::{
    admission::{CallerId, Use},
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

    /// All lanes go by these limits from now on.
    pub(super) fn set_lane_limits(&self, settings: &Settings) {
        self.each(|pools| pools.lanes.set_limits(settings));
    }

    /// Does something with the pools of every host.
    pub(super) fn each(&self, act: impl FnMut(&HostPools)) {
        self.0.load().iter().flatten().filter_map(|entry| entry.pools.as_deref()).for_each(act);
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

    /// A connection for reads; `as_primary` when the host is asked as the primary. Waits in line until the deadline.
    pub(crate) async fn read(&self, host: HostId, as_primary: bool, caller: &Caller) -> Result<Seat, Failure> {
        let usage = if as_primary { Use::PrimaryRead } else { Use::ReplicaRead };
        self.take(host, usage, caller.id(), caller.deadline()).await
    }

    /// A connection for writes, likewise; `as_transaction` when a session keeps it.
    pub(crate) async fn write(&self, host: HostId, as_transaction: bool, caller: &Caller) -> Result<Seat, Failure> {
        let usage = if as_transaction { Use::Transaction } else { Use::Write };
        self.take(host, usage, caller.id(), caller.deadline()).await
    }

    /// A connection for writes, for the broker's own questions.
    pub(crate) async fn write_until(&self, host: HostId, deadline: Deadline) -> Result<Seat, Failure> {
        self.take(host, Use::Write, &CallerId::Unknown, deadline).await
    }

    async fn take(&self, host: HostId, usage: Use, caller: &CallerId, deadline: Deadline) -> Result<Seat, Failure> {
        loop {
            let pools = self.pools(host).ok_or_else(|| left(host))?;
            let taken = pools.take(usage, caller, deadline).await;
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

/// Whether pools that were made by these settings are as they would be by others. Their budget's limits change in place.
pub(crate) fn same_pools(one: &Settings, other: &Settings) -> bool {
    let of = |settings: &Settings| (settings.idle_timeout, settings.max_lifetime, settings.statements);
    of(one) == of(other)
}
