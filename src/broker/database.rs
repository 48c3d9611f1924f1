//! One logical database: its cluster, and the pools and gates for it on every host.

use std::{sync::Arc, time::Duration};

use super::{
    Failure, Reason, Settings,
    clean::Judge,
    hosts::Hosts,
    listen::Hub,
    placement::{RolloutSpec, Trail},
};
use crate::{
    admission::{Gate, Permit, Turns},
    clock,
    model::{Balance, ClusterId, Deadline, HostId, InFlight},
    postgres::{
        ConnectError, ConnectObserver, Connection, Facts, HostIdentity, Lease, Pool, PoolLimits, PoolState, Purpose,
        SchemaVersion, Target,
    },
    telemetry::Metrics,
    topology::{HostKey, Topology},
};
use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

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
    /// The cluster whose primary these hosts follow, with its name: there is what positions refer to.
    pub follows: Option<(ClusterId, String)>,
    /// Its move to a cluster of its own.
    pub rollout: Option<RolloutSpec>,
}

/// A host as the application wires it.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// Its id in the cluster.
    pub id: HostId,
    /// What connections to it must agree on.
    pub identity: Arc<HostIdentity>,
    /// The name it is called by.
    pub name: String,
    /// The server itself.
    pub target: Target,
    /// A transaction-pooling proxy in front of it that calls go through.
    pub pooler: Option<Target>,
}

/// One host's pools for one database.
pub(crate) struct HostPools {
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
    /// The cluster that positions refer to, and its name: this one, or the one that its hosts follow.
    pub(crate) positions_in: ClusterId,
    pub(crate) positions_name: Arc<str>,
    /// While it is being moved: how it is kept what a session wrote to it on this side.
    pub(crate) trail: ArcSwapOption<Trail>,
    /// The PostgreSQL database in the cluster.
    pub(crate) dbname: String,
    /// Its tables, as all pools know them.
    pub(crate) schema: Arc<SchemaVersion>,
    pub(crate) hosts: Hosts,
    /// Cancelled once the database is not configured any more.
    pub(crate) removed: CancellationToken,
    /// How the cluster's replicas share reads.
    pub(crate) balance: Arc<Balance>,
    /// What may run, when not everything may: see [`Settings::pooled`].
    pub(super) judge: Option<Judge>,
    /// Who listens to it.
    pub(crate) listening: Arc<Hub>,
    /// Of the calls with one idempotency key: in PostgreSQL each would wait on a connection for writes.
    pub(crate) key_turns: Arc<Turns>,
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

/// What pools are made of, beside the host they are for.
pub(crate) struct Wiring<'a> {
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_name: &'a str,
    pub(crate) dbname: &'a str,
    pub(crate) schema: &'a Arc<SchemaVersion>,
    pub(crate) balance: &'a Arc<Balance>,
    pub(crate) topology: &'a Topology,
    pub(crate) settings: &'a Settings,
    pub(crate) metrics: &'a Metrics,
}

impl Database {
    /// Without hosts: see [`Hosts::admit`].
    pub(crate) fn new(
        spec: &DatabaseSpec,
        schema: Arc<SchemaVersion>,
        balance: Arc<Balance>,
        key_turns: Arc<Turns>,
        settings: &Settings,
    ) -> Database {
        let (positions_in, positions_name) = match &spec.follows {
            Some((leader, name)) => (*leader, name.as_str()),
            None => (spec.cluster, spec.cluster_name.as_str()),
        };
        Database {
            name: spec.name.as_str().into(),
            cluster: spec.cluster,
            cluster_name: spec.cluster_name.as_str().into(),
            positions_in,
            positions_name: positions_name.into(),
            trail: ArcSwapOption::empty(),
            dbname: spec.dbname.clone(),
            hosts: Hosts::default(),
            removed: CancellationToken::new(),
            balance,
            judge: settings.pooled.then(|| Judge::new(settings.statements, &schema)),
            schema,
            listening: Arc::default(),
            key_turns,
        }
    }

    /// Whether a proxy may stand between: see [`Settings::pooled`].
    pub(crate) fn is_pooled(&self) -> bool {
        self.judge.is_some()
    }

    /// A connection for reads to that host; `as_primary` when it is asked as the primary.
    pub(crate) async fn read(&self, host: HostId, as_primary: bool, deadline: Deadline) -> Result<Seat, Failure> {
        self.check()?;
        self.hosts.read(host, as_primary, deadline).await
    }

    /// A connection for writes to that host.
    pub(crate) async fn write(&self, host: HostId, deadline: Deadline) -> Result<Seat, Failure> {
        self.check()?;
        self.hosts.write(host, deadline).await
    }

    /// Opens nothing more for a database that is not configured any more, which a session may still be on.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if !self.removed.is_cancelled() {
            return Ok(());
        }
        let message = format!("the database {:?} was removed or moved by a reload of the configuration", self.name);
        Err(Failure::field(Reason::DatabaseUnknown, "context.database", message))
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

impl HostPools {
    pub(crate) fn new(spec: &HostSpec, wiring: &Wiring<'_>) -> HostPools {
        let Wiring { settings, metrics, .. } = wiring;
        let HostSpec { id, identity, name, target, pooler } = spec;
        let share = settings.primary_read_connections();
        let size = settings.connections_per_host;
        let writes = size.saturating_sub(share).max(1);
        let through = pooler.as_ref().unwrap_or(target).with_database(wiring.dbname);
        let observer: Arc<dyn ConnectObserver> = Arc::new(Counting {
            onward: wiring.topology.observer(HostKey { cluster: wiring.cluster, host: *id }),
            metrics: Metrics::clone(metrics),
            cluster: wiring.cluster_name.to_owned(),
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
            let (identity, schema) = (Arc::clone(identity), Arc::clone(wiring.schema));
            Pool::new(through.clone(), purpose, limits, identity, schema, Arc::clone(&observer))
        };
        let gate = |size: u32| Gate::new(size as usize, settings.max_queue);
        HostPools {
            id: *id,
            balance: Arc::clone(wiring.balance),
            read: pool(Purpose::Read, size),
            write: pool(Purpose::Write, writes),
            read_gate: gate(size),
            write_gate: gate(writes),
            fallback_gate: gate(share),
        }
    }

    /// Closes what is idle, and what is in use once it comes back; nothing is opened any more.
    pub(crate) fn close(&self) {
        self.read.close();
        self.write.close();
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.write.is_closed()
    }

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
