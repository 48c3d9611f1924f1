//! One host's connections for one database: a place in the host's budget (`admission`), and the connection that goes with
//! it (`postgres`).

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    Failure,
    database::{HostSpec, Wiring},
    lanes::Lanes,
};
use crate::{
    admission::{Account, Budget, CallPermit, CallerId, Grant, Shed, Store, Ticket, Use},
    clock,
    model::{Balance, Deadline, HostId, InFlight},
    postgres::{ConnectError, ConnectObserver, Connection, Connector, Facts, Lease, Pool, Purpose},
    telemetry::Metrics,
    topology::HostKey,
};

/// The connections to one host, over all its databases.
pub(crate) type HostBudget = Budget<Connections>;

/// The pools of one host for one database.
pub(crate) struct Connections {
    read: Pool<Ticket<Connections>>,
    write: Pool<Ticket<Connections>>,
}

impl Connections {
    /// Those for reads.
    pub(super) fn reads(&self) -> &Pool<Ticket<Connections>> {
        &self.read
    }

    fn pool(&self, writes: bool) -> &Pool<Ticket<Connections>> {
        if writes { &self.write } else { &self.read }
    }
}

impl Store for Connections {
    fn give_up(&self, writes: bool) -> bool {
        self.pool(writes).give_up()
    }
}

/// One host's connections for one database.
pub(crate) struct HostPools {
    /// The server itself, whatever calls go through.
    address: String,
    id: HostId,
    /// Of the cluster, for all its databases.
    balance: Arc<Balance>,
    account: Arc<Account<Connections>>,
    /// Connections that short reads share.
    pub(super) lanes: Arc<Lanes>,
    metrics: Metrics,
    /// The database's name, for metrics.
    database: Arc<str>,
}

/// What a pool looks like at this moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolState {
    pub(crate) in_use: usize,
    pub(crate) idle: usize,
    pub(crate) limit: usize,
    pub(crate) waiting: usize,
}

/// A connection with the places that its caller holds; all go back when it is dropped.
pub(crate) struct Seat {
    // The order matters: the connection must be back before the next caller is let in.
    lease: Lease<Ticket<Connections>>,
    _grant: Grant<Connections>,
    turn: Option<CallPermit>,
    _in_flight: InFlight,
    pub(crate) waited: Duration,
}

impl Seat {
    /// The same, with the call's turn to run.
    pub(super) fn in_turn(self, turn: CallPermit) -> Seat {
        Seat { turn: Some(turn), ..self }
    }

    /// The turn, for a call that needs more than this connection.
    pub(super) fn take_turn(&mut self) -> Option<CallPermit> {
        self.turn.take()
    }
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

/// A connection and the right to use it, in the order in which they go back.
pub(super) type Granted = (Lease<Ticket<Connections>>, Grant<Connections>);

impl HostPools {
    /// Opens the database's account in the host's budget.
    pub(crate) fn new(spec: &HostSpec, wiring: &Wiring<'_>) -> HostPools {
        let Wiring { settings, metrics, .. } = wiring;
        let through = spec.pooler.as_ref().unwrap_or(&spec.target).with_database(wiring.dbname);
        let observer: Arc<dyn ConnectObserver> = Arc::new(Counting {
            onward: wiring.topology.observer(HostKey { cluster: wiring.cluster, host: spec.id }),
            metrics: Metrics::clone(metrics),
            cluster: wiring.cluster_name.to_string(),
            host: spec.name.clone(),
            pooled: settings.pooled,
        });
        let pool = |purpose: Purpose| {
            let (identity, schema) = (Arc::clone(&spec.identity), Arc::clone(wiring.schema));
            let how = (settings.statements, settings.pooled);
            let connector = Connector::new(through.clone(), purpose, how, identity, schema, Arc::clone(&observer));
            Pool::new(connector, settings.pool_limits())
        };
        let connections = Arc::new(Connections { read: pool(Purpose::Read), write: pool(Purpose::Write) });
        let account = Arc::new(wiring.budgets.of((wiring.cluster, wiring.cluster_name), spec).join(&connections));
        HostPools {
            lanes: Lanes::new(&account, &spec.identity, wiring.lane_counts, settings),
            address: spec.target.address(),
            id: spec.id,
            balance: Arc::clone(wiring.balance),
            account,
            metrics: Metrics::clone(metrics),
            database: Arc::clone(wiring.name),
        }
    }

    /// Closes what is idle, and what is in use once it comes back; nothing is opened any more, and nobody waits.
    pub(crate) fn close(&self) {
        let Connections { read, write } = &**self.account.store();
        read.close();
        write.close();
        self.lanes.close();
        self.account.close();
    }

    /// Counts a call as in flight at the host.
    pub(super) fn begin(&self) -> InFlight {
        self.balance.begin(self.id)
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.account.store().write.is_closed()
    }

    /// A connection for that use. Waits in line until the deadline.
    pub(crate) async fn take(&self, usage: Use, caller: &CallerId, deadline: Deadline) -> Result<Seat, Failure> {
        let in_flight = self.begin();
        let began = clock::now();
        let late = || Failure::deadline("before a connection was free");
        // A connection that is free at once would win against a deadline that has passed.
        if deadline.is_over(began) {
            return Err(late());
        }
        let seated = async {
            let grant = self.account.take(usage, caller).await.map_err(|shed| self.shed(usage, shed))?;
            let grant = grant.ok_or_else(|| self.gone("the configuration has changed"))?;
            let (lease, grant) = match grant.store().pool(usage.writes()).checkout() {
                Some(lease) => (lease, grant),
                None => self.open(grant).await?,
            };
            Ok(Seat { lease, _grant: grant, turn: None, _in_flight: in_flight, waited: clock::now() - began })
        };
        tokio::time::timeout_at(deadline.instant().into(), seated).await.unwrap_or_else(|_| Err(late()))
    }

    /// Counts who was sent away from a queue.
    pub(super) fn shed(&self, usage: Use, shed: Shed) -> Failure {
        self.metrics.shed(&self.database, usage.as_str(), shed.cause());
        shed.into()
    }

    /// By a task of its own: a caller that leaves meanwhile leaves a connection to the next.
    async fn open(&self, grant: Grant<Connections>) -> Result<Granted, ConnectError> {
        let (opened, opening) = oneshot::channel();
        // Nobody may be left to take it: then it is idle.
        tokio::spawn(async move { drop(opened.send(open(grant).await)) });
        opening.await.unwrap_or_else(|_| Err(self.gone("the attempt was ended")))
    }

    /// Told of by nobody: it says nothing of the host.
    fn gone(&self, reason: &str) -> ConnectError {
        ConnectError::Unreachable { host: self.address.clone(), reason: reason.into(), refused: false }
    }

    /// The state of the connections for reads and for writes.
    pub(crate) fn states(&self) -> [(Purpose, PoolState); 2] {
        let figures = self.account.figures();
        let state = |purpose: Purpose, uses: &[Use], share: Use| {
            let of = |usage: Use| &figures.uses[usage as usize];
            let queues = uses.iter().map(|usage| of(*usage).queue);
            let state = PoolState {
                in_use: uses.iter().map(|usage| of(*usage).in_use).sum(),
                idle: figures.idle[usize::from(purpose == Purpose::Write)],
                limit: of(share).limit,
                waiting: queues.map(|queue| queue.waiting).sum(),
            };
            (purpose, state)
        };
        [
            state(Purpose::Read, &[Use::PrimaryRead, Use::ReplicaRead, Use::Lane], Use::ReplicaRead),
            state(Purpose::Write, &[Use::Write, Use::Transaction], Use::Write),
        ]
    }
}

/// A connection that is idle by now, or a new one.
pub(super) async fn open(grant: Grant<Connections>) -> Result<Granted, ConnectError> {
    loop {
        let ticket = grant.ticket().await;
        let pool = grant.store().pool(grant.usage().writes());
        // One may have come back while others were being closed.
        if let Some(lease) = pool.checkout() {
            return Ok((lease, grant));
        }
        if let Some(lease) = pool.open(ticket).await? {
            return Ok((lease, grant));
        }
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
