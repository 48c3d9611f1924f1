//! One logical database: its cluster, and the pools and gates for it on every host.

use std::{sync::Arc, time::Duration};

use super::{Failure, Settings, clean::Judge, listen::Hub};
use crate::{
    admission::{Gate, Permit, Turns},
    clock,
    model::{Balance, ClusterId, Deadline, HostId, InFlight},
    postgres::{
        ConnectError, ConnectObserver, Connection, Facts, Lease, Pool, PoolLimits, PoolState, Purpose, SchemaVersion,
        Target,
    },
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

/// One host's pools for one database.
pub(crate) struct HostPools {
    /// The server itself, whatever calls go through.
    pub(crate) target: Target,
    id: HostId,
    /// Of the cluster, for all its databases.
    balance: Arc<Balance>,
    read: Pool,
    write: Pool,
    read_gate: Gate,
    write_gate: Gate,
    /// Reads that come to this host as the primary: they have a share, so that writes keep theirs (rule 13).
    fallback_gate: Gate,
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
}

/// A connection with the places that its caller holds; all go back when it is dropped.
pub(crate) struct Seat {
    // The order matters: the connection must be back before the next caller is let in.
    lease: Lease,
    _permits: [Option<Permit>; 2],
    _in_flight: InFlight,
    pub(crate) waited: Duration,
}

impl std::ops::Deref for Seat {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.lease
    }
}

impl std::ops::DerefMut for Seat {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.lease
    }
}

impl Database {
    pub(crate) fn new(
        spec: &DatabaseSpec,
        schema: &Arc<SchemaVersion>,
        balance: &Arc<Balance>,
        topology: &Topology,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Database {
        let share = settings.primary_read_connections();
        let size = settings.connections_per_host;
        let writes = size.saturating_sub(share).max(1);
        let hosts = spec.hosts.iter().enumerate().map(|(index, HostSpec { name, target, pooler })| {
            let key = HostKey { cluster: spec.cluster, host: HostId::new(index as u16) };
            let target = target.with_database(&spec.dbname);
            let through = pooler.as_ref().map_or_else(|| target.clone(), |pooler| pooler.with_database(&spec.dbname));
            let observer: Arc<dyn ConnectObserver> = Arc::new(Counting {
                onward: topology.observer(key),
                metrics: metrics.clone(),
                cluster: spec.cluster_name.clone(),
                host: name.clone(),
                pooled: settings.pooled,
            });
            let pool = |purpose: Purpose, size: u32| {
                let limits = PoolLimits {
                    size,
                    idle_timeout: settings.idle_timeout,
                    max_lifetime: settings.max_lifetime,
                    statements: settings.statements,
                    pooled: settings.pooled,
                };
                let (identity, schema) = (topology.identity(key), Arc::clone(schema));
                Pool::new(through.clone(), purpose, limits, identity, schema, Arc::clone(&observer))
            };
            let gate = |size: u32| Gate::new(size as usize, settings.max_queue);
            HostPools {
                id: key.host,
                balance: Arc::clone(balance),
                read: pool(Purpose::Read, size),
                write: pool(Purpose::Write, writes),
                read_gate: gate(size),
                write_gate: gate(writes),
                fallback_gate: gate(share),
                target,
            }
        });
        Database {
            name: spec.name.as_str().into(),
            cluster: spec.cluster,
            cluster_name: spec.cluster_name.as_str().into(),
            hosts: hosts.collect(),
            balance: Arc::clone(balance),
            judge: settings.pooled.then(|| Judge::new(settings.statements, schema)),
            listening: Arc::default(),
            key_turns: Turns::new(settings.max_queue),
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

    fn discarded(&self, why: &'static str) {
        self.metrics.connection_discarded(why);
        self.onward.discarded(why);
    }
}

impl HostPools {
    /// A connection for reads; `as_primary` when the host is asked as the primary. Waits in line until the deadline.
    pub(crate) async fn read(&self, as_primary: bool, deadline: Deadline) -> Result<Seat, Failure> {
        let in_flight = self.balance.begin(self.id);
        within(deadline, async {
            let began = clock::now();
            let fallback = if as_primary { Some(self.fallback_gate.enter().await?) } else { None };
            let place = self.read_gate.enter().await?;
            let lease = self.read.checkout().await?;
            Ok(Seat { lease, _permits: [Some(place), fallback], _in_flight: in_flight, waited: clock::now() - began })
        })
        .await
    }

    /// A connection for writes, likewise.
    pub(crate) async fn write(&self, deadline: Deadline) -> Result<Seat, Failure> {
        let in_flight = self.balance.begin(self.id);
        within(deadline, async {
            let began = clock::now();
            let place = self.write_gate.enter().await?;
            let lease = self.write.checkout().await?;
            Ok(Seat { lease, _permits: [Some(place), None], _in_flight: in_flight, waited: clock::now() - began })
        })
        .await
    }

    /// The state of both pools, with the callers waiting for each.
    pub(crate) fn states(&self) -> [(Purpose, PoolState, usize); 2] {
        let reads_waiting = self.read_gate.waiting() + self.fallback_gate.waiting();
        [
            (self.read.purpose(), self.read.state(), reads_waiting),
            (self.write.purpose(), self.write.state(), self.write_gate.waiting()),
        ]
    }
}

async fn within(deadline: Deadline, seat: impl Future<Output = Result<Seat, Failure>>) -> Result<Seat, Failure> {
    let late = || Failure::deadline("before a connection was free");
    // A connection that is free at once would win against a deadline that has passed.
    if deadline.is_over(clock::now()) {
        return Err(late());
    }
    tokio::time::timeout_at(deadline.instant().into(), seat).await.unwrap_or_else(|_| Err(late()))
}
