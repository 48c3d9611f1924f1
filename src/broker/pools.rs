//! One host's connections for one database: a place in the host's budget (`admission`), and the connection that goes with
//! it (`postgres`).

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{Failure, caller::Caller};
use crate::{
    admission::{Account, Budget, CallPermit, CallerId, Grant, Shed, Store, Ticket, Use},
    clock,
    model::{Balance, Deadline, HostId, InFlight},
    postgres::{ConnectError, Connection, Connector, Lease, Pool, PoolLimits, Purpose, Target},
    telemetry::Metrics,
};

/// The connections to one host, over all its databases.
pub(crate) type HostBudget = Budget<Connections>;

/// The pools of one host for one database.
pub(crate) struct Connections {
    read: Pool<Ticket<Connections>>,
    write: Pool<Ticket<Connections>>,
}

impl Connections {
    fn pool(&self, writes: bool) -> &Pool<Ticket<Connections>> {
        if writes { &self.write } else { &self.read }
    }
}

impl Store for Connections {
    fn give_up(&self, writes: bool) -> bool {
        self.pool(writes).give_up()
    }
}

/// How long connections live, and callers wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    pub(crate) connections: PoolLimits,
    /// A caller waits no longer in line.
    pub(crate) max_queue_age: Duration,
}

/// One host's connections for one database.
pub(crate) struct HostPools {
    /// The server itself, whatever calls go through.
    pub(crate) target: Target,
    id: HostId,
    /// Of the cluster, for all its databases.
    balance: Arc<Balance>,
    account: Account<Connections>,
    max_queue_age: Duration,
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
    _turn: Option<CallPermit>,
    _in_flight: InFlight,
    pub(crate) waited: Duration,
}

impl Seat {
    /// The same, with the call's turn to run.
    pub(super) fn in_turn(self, turn: CallPermit) -> Seat {
        Seat { _turn: Some(turn), ..self }
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
type Granted = (Lease<Ticket<Connections>>, Grant<Connections>);

impl HostPools {
    /// Opens the database's account in the host's budget; dropping it closes what is idle of it.
    pub(crate) fn new(
        target: Target,
        connector: impl Fn(Purpose) -> Connector,
        budget: &Arc<HostBudget>,
        (id, balance): (HostId, &Arc<Balance>),
        lifetimes: Lifetimes,
        database: &Arc<str>,
        metrics: &Metrics,
    ) -> HostPools {
        let pool = |purpose: Purpose| Pool::new(connector(purpose), lifetimes.connections);
        let connections = Arc::new(Connections { read: pool(Purpose::Read), write: pool(Purpose::Write) });
        HostPools {
            target,
            id,
            balance: Arc::clone(balance),
            account: budget.join(&connections),
            max_queue_age: lifetimes.max_queue_age,
            metrics: metrics.clone(),
            database: Arc::clone(database),
        }
    }

    /// A connection for reads; `as_primary` when the host is asked as the primary. Waits in line until the deadline.
    pub(crate) async fn read(&self, as_primary: bool, caller: &Caller) -> Result<Seat, Failure> {
        let usage = if as_primary { Use::PrimaryRead } else { Use::ReplicaRead };
        self.take(usage, caller.id(), caller.deadline()).await
    }

    /// A connection for writes, likewise; `as_transaction` when a session keeps it.
    pub(crate) async fn write(&self, as_transaction: bool, caller: &Caller) -> Result<Seat, Failure> {
        let usage = if as_transaction { Use::Transaction } else { Use::Write };
        self.take(usage, caller.id(), caller.deadline()).await
    }

    /// A connection for writes, for the broker's own questions.
    pub(crate) async fn write_until(&self, deadline: Deadline) -> Result<Seat, Failure> {
        self.take(Use::Write, &CallerId::Unknown, deadline).await
    }

    async fn take(&self, usage: Use, caller: &CallerId, deadline: Deadline) -> Result<Seat, Failure> {
        let in_flight = self.balance.begin(self.id);
        let began = clock::now();
        let late = || Failure::deadline("before a connection was free");
        // A connection that is free at once would win against a deadline that has passed.
        if deadline.is_over(began) {
            return Err(late());
        }
        let seated = async {
            let grant = self.account.take(usage, caller, self.max_queue_age).await;
            let grant = grant.map_err(|shed| self.shed(usage, shed))?;
            let (lease, grant) = match grant.store().pool(usage.writes()).checkout() {
                Some(lease) => (lease, grant),
                None => self.open(grant).await?,
            };
            Ok(Seat { lease, _grant: grant, _turn: None, _in_flight: in_flight, waited: clock::now() - began })
        };
        tokio::time::timeout_at(deadline.instant().into(), seated).await.unwrap_or_else(|_| Err(late()))
    }

    fn shed(&self, usage: Use, shed: Shed) -> Failure {
        self.metrics.shed(&self.database, usage.as_str(), shed.cause());
        shed.into()
    }

    /// By a task of its own: a caller that leaves meanwhile leaves a connection to the next.
    async fn open(&self, grant: Grant<Connections>) -> Result<Granted, ConnectError> {
        let (opened, opening) = oneshot::channel();
        // Nobody may be left to take it: then it is idle.
        tokio::spawn(async move { drop(opened.send(open(grant).await)) });
        opening.await.unwrap_or_else(|_| {
            let (host, reason) = (self.target.address(), "the attempt was ended".into());
            Err(ConnectError::Unreachable { host, reason, refused: false })
        })
    }

    /// The state of the connections for reads and for writes.
    pub(crate) fn states(&self) -> [(Purpose, PoolState); 2] {
        let figures = self.account.figures();
        let state = |purpose: Purpose, uses: [Use; 2], share: Use| {
            let of = |usage: Use| &figures.uses[usage as usize];
            let [one, other] = uses.map(of);
            let state = PoolState {
                in_use: one.in_use + other.in_use,
                idle: figures.idle[usize::from(purpose == Purpose::Write)],
                limit: of(share).limit,
                waiting: one.queue.and(other.queue).waiting,
            };
            (purpose, state)
        };
        [
            state(Purpose::Read, [Use::PrimaryRead, Use::ReplicaRead], Use::ReplicaRead),
            state(Purpose::Write, [Use::Write, Use::Transaction], Use::Write),
        ]
    }
}

async fn open(grant: Grant<Connections>) -> Result<Granted, ConnectError> {
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
