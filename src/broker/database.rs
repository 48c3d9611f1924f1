//! One logical database: its cluster, and the connections for it on every host.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Outcome, Reason, Settings,
    budgets::HostBudgets,
    caller::Caller,
    clean::Judge,
    hosts::Hosts,
    lanes::LaneCounts,
    listen::Hub,
    placement::{RolloutSpec, Trail},
    pools::Seat,
};
use crate::{
    admission::{Limiter, Turns},
    model::{Balance, ClusterId, Deadline, HostId},
    postgres::{HostIdentity, SchemaVersion, Target},
    telemetry::Metrics,
    topology::Topology,
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
    /// What took its place, for those who are settled here.
    pub(crate) successor: OnceLock<Arc<Database>>,
    /// How the cluster's replicas share reads.
    pub(crate) balance: Arc<Balance>,
    /// Which statements are clean.
    pub(super) judge: Judge,
    is_pooled: bool,
    pub(super) lane_counts: Arc<LaneCounts>,
    /// Who listens to it.
    pub(crate) listening: Arc<Hub>,
    /// Of the calls with one idempotency key: in PostgreSQL each would wait on a connection for writes.
    pub(crate) key_turns: Arc<Turns>,
    /// How many calls run at a time.
    pub(crate) calls: Arc<Limiter>,
}

/// What pools are made of, beside the host they are for.
pub(crate) struct Wiring<'a> {
    /// The database's name, for metrics.
    pub(crate) name: &'a Arc<str>,
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_name: &'a Arc<str>,
    pub(crate) dbname: &'a str,
    pub(crate) schema: &'a Arc<SchemaVersion>,
    pub(crate) balance: &'a Arc<Balance>,
    pub(crate) topology: &'a Topology,
    pub(crate) settings: &'a Settings,
    pub(crate) budgets: &'a HostBudgets,
    pub(crate) metrics: &'a Metrics,
    pub(crate) lane_counts: &'a Arc<LaneCounts>,
}

impl Database {
    /// Without hosts: see [`Hosts::admit`].
    pub(crate) fn new(
        spec: &DatabaseSpec,
        schema: Arc<SchemaVersion>,
        balance: Arc<Balance>,
        (key_turns, calls): (Arc<Turns>, Arc<Limiter>),
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
            successor: OnceLock::new(),
            balance,
            judge: Judge::new(settings.statements, &schema),
            is_pooled: settings.pooled,
            lane_counts: Arc::default(),
            schema,
            listening: Arc::default(),
            key_turns,
            calls,
        }
    }

    /// Whether a proxy may stand between: see [`Settings::pooled`].
    pub(crate) fn is_pooled(&self) -> bool {
        self.is_pooled
    }

    /// Goes by the limits of these settings from now on.
    pub(crate) fn set_limits(&self, settings: &Settings) {
        self.calls.set_limits(settings.call_limits());
        self.key_turns.set_max_queue(settings.admission.max_queue);
        self.judge.set_limits(settings.statements);
        self.hosts.set_lane_limits(settings);
    }

    /// A connection for reads to that host; `as_primary` when it is asked as the primary.
    pub(crate) async fn read(&self, host: HostId, as_primary: bool, caller: &Caller) -> Result<Seat, Failure> {
        self.check()?;
        self.hosts.read(host, as_primary, caller).await
    }

    /// A connection for writes to that host; `as_transaction` when a session keeps it.
    pub(crate) async fn write(&self, host: HostId, as_transaction: bool, caller: &Caller) -> Result<Seat, Failure> {
        self.check()?;
        self.hosts.write(host, as_transaction, caller).await
    }

    /// A connection for writes, for the broker's own questions.
    pub(crate) async fn write_until(&self, host: HostId, deadline: Deadline) -> Result<Seat, Failure> {
        self.check()?;
        self.hosts.write_until(host, deadline).await
    }

    /// Opens nothing more for a database that is not configured any more, which a session may still be on.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if !self.removed.is_cancelled() {
            return Ok(());
        }
        let message = format!("the database {:?} was removed or moved by a reload of the configuration", self.name);
        Err(Failure::field(Reason::DatabaseUnknown, "context.database", message))
    }

    /// Whether a call failed only because a reload took this away from under it: nothing of it is kept here, and it may go on
    /// where the database is now. Placed anew it is led to what is served, so each such failure is another reload's.
    pub(crate) fn has_left(&self, failure: &Failure) -> bool {
        let is_so = failure.reason == Reason::DatabaseUnknown && failure.outcome == Outcome::NotExecuted;
        is_so && self.removed.is_cancelled()
    }
}
