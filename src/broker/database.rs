//! One logical database: its cluster, and the connections for it on every host.

use std::sync::Arc;

use super::{Settings, budgets::HostBudgets, clean::Judge, listen::Hub, pools::HostPools};
use crate::{
    admission::{Limiter, Turns},
    model::{Balance, ClusterId, HostId},
    postgres::{ConnectError, ConnectObserver, Connector, Facts, Purpose, SchemaVersion, Target},
    telemetry::Metrics,
    topology::{HostKey, Topology},
};

/// A logical database as the application wires it.
#[derive(Debug, Clone)]
pub struct DatabaseSpec {
    /// The name that callers use.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub cluster_name: String,
    /// The PostgreSQL database in it.
    pub dbname: String,
    /// The cluster's hosts in order.
    pub hosts: Vec<HostSpec>,
}

/// A host as the application wires it.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// The name it is called by.
    pub name: String,
    /// The server itself.
    pub target: Target,
    /// A transaction-pooling proxy in front of it that calls go through.
    pub pooler: Option<Target>,
}

/// A logical database.
pub(crate) struct Database {
    pub(crate) name: Arc<str>,
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_name: Arc<str>,
    pub(crate) hosts: Vec<HostPools>,
    /// How the cluster's replicas share reads.
    pub(crate) balance: Arc<Balance>,
    /// What may run, when not everything may: see [`Settings::pooled`].
    pub(super) judge: Option<Judge>,
    /// Who listens to it.
    pub(crate) listening: Arc<Hub>,
    /// Of the calls with one idempotency key: in PostgreSQL each would wait on a connection for writes.
    pub(crate) key_turns: Turns,
    /// How many calls run at a time.
    pub(crate) calls: Arc<Limiter>,
}

impl Database {
    pub(crate) fn new(
        spec: &DatabaseSpec,
        schema: &Arc<SchemaVersion>,
        balance: &Arc<Balance>,
        topology: &Topology,
        settings: &Settings,
        budgets: &HostBudgets,
        metrics: &Metrics,
    ) -> Database {
        let (name, cluster_name): (Arc<str>, Arc<str>) = (spec.name.as_str().into(), spec.cluster_name.as_str().into());
        let hosts = spec.hosts.iter().enumerate().map(|(index, HostSpec { name: host, target, pooler })| {
            let key = HostKey { cluster: spec.cluster, host: HostId::new(index as u16) };
            let target = target.with_database(&spec.dbname);
            let through = pooler.as_ref().map_or_else(|| target.clone(), |pooler| pooler.with_database(&spec.dbname));
            let observer: Arc<dyn ConnectObserver> = Arc::new(Counting {
                onward: topology.observer(key),
                metrics: metrics.clone(),
                cluster: spec.cluster_name.clone(),
                host: host.clone(),
                pooled: settings.pooled,
            });
            let connector = |purpose: Purpose| {
                let (identity, schema) = (topology.identity(key), Arc::clone(schema));
                let how = (settings.statements, settings.pooled);
                Connector::new(through.clone(), purpose, how, identity, schema, Arc::clone(&observer))
            };
            let budget = budgets.of(&cluster_name, host);
            HostPools::new(target, connector, &budget, (key.host, balance), settings.lifetimes(), &name, metrics)
        });
        Database {
            hosts: hosts.collect(),
            name,
            cluster: spec.cluster,
            cluster_name,
            calls: Limiter::new(settings.call_limits()),
            balance: Arc::clone(balance),
            judge: settings.pooled.then(|| Judge::new(settings.statements, schema)),
            listening: Arc::default(),
            key_turns: Turns::new(settings.admission.max_queue),
        }
    }

    /// Whether a proxy may stand between: see [`Settings::pooled`].
    pub(crate) fn is_pooled(&self) -> bool {
        self.judge.is_some()
    }

    pub(crate) fn host(&self, host: HostId) -> &HostPools {
        &self.hosts[host.index()]
    }
}

/// Counts what pools do, and passes it on.
struct Counting {
    onward: Arc<dyn ConnectObserver>,
    metrics: Metrics,
    cluster: String,
    host: String,
    pooled: bool,
}

impl ConnectObserver for Counting {
    fn connected(&self, facts: &Facts) {
        self.metrics.connected(&self.cluster, &self.host, "ok");
        // Where a proxy leads says nothing of the host.
        if !self.pooled {
            self.onward.connected(facts);
        }
    }

    fn failed(&self, error: &ConnectError) {
        self.metrics.connected(&self.cluster, &self.host, "failed");
        if !self.pooled {
            self.onward.failed(error);
        }
    }

    fn lost(&self) {
        if !self.pooled {
            self.onward.lost();
        }
    }

    fn discarded(&self, why: &'static str) {
        self.metrics.connection_discarded(why);
        self.onward.discarded(why);
    }
}
