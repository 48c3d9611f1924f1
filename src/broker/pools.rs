//! One host's connections for one database: a place in the host's budget (`admission`), and the connection that goes with
//! it (`postgres`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Failure, caller::Caller};
use crate::{
    admission::{Account, Budget, CallerId, Grant, Shed, Use},
    clock,
    model::Deadline,
    postgres::{ConnectError, Connection, Connector, Purpose, Target},
    telemetry::Metrics,
};

/// The connections to one host, over all its databases.
pub(crate) type HostBudget = Budget<Connection>;

/// How long connections live, and callers wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    /// An idle connection is closed after this.
    pub(crate) idle_timeout: Duration,
    /// A connection is closed after this, when it is not in use.
    pub(crate) max_lifetime: Duration,
    /// A caller waits no longer in line.
    pub(crate) max_queue_age: Duration,
}

/// One host's connections for one database.
pub(crate) struct HostPools {
    /// The server itself, whatever calls go through.
    pub(crate) target: Target,
    account: Account<Connection>,
    read: Arc<Connector>,
    write: Arc<Connector>,
    lifetimes: Lifetimes,
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

/// A connection with the place that its caller holds; both go back when it is dropped.
pub(crate) struct Seat {
    grant: Grant<Connection>,
    connection: Option<Connection>,
    connector: Arc<Connector>,
    retires_at: Instant,
    pub(crate) waited: Duration,
}

const HELD: &str = "a seat has its connection until it is dropped";

impl std::ops::Deref for Seat {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect(HELD)
    }
}

impl std::ops::DerefMut for Seat {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect(HELD)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // Closed before the place goes to the next: a connection counts until then.
        if self.connector.keeps(&connection) && clock::now() < self.retires_at {
            self.grant.keep(connection);
        }
    }
}

impl HostPools {
    /// Opens the database's account in the host's budget; dropping it closes what is idle of it.
    pub(crate) fn new(
        target: Target,
        connector: impl Fn(Purpose) -> Connector,
        budget: &Arc<HostBudget>,
        lifetimes: Lifetimes,
        database: &Arc<str>,
        metrics: &Metrics,
    ) -> HostPools {
        HostPools {
            target,
            account: budget.join(),
            read: Arc::new(connector(Purpose::Read)),
            write: Arc::new(connector(Purpose::Write)),
            lifetimes,
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
        let began = clock::now();
        let late = || Failure::deadline("before a connection was free");
        // A connection that is free at once would win against a deadline that has passed.
        if deadline.is_over(began) {
            return Err(late());
        }
        let seated = async {
            let grant = self.account.take(usage, caller, self.lifetimes.max_queue_age).await;
            let grant = grant.map_err(|shed| self.shed(usage, shed))?;
            Ok(self.seat(grant, began).await?)
        };
        tokio::time::timeout_at(deadline.instant().into(), seated).await.unwrap_or_else(|_| Err(late()))
    }

    fn shed(&self, usage: Use, shed: Shed) -> Failure {
        self.metrics.shed(&self.database, usage.as_str(), shed.cause());
        shed.into()
    }

    /// The connection that goes with a grant: an idle one that is fit, or a new one.
    async fn seat(&self, mut grant: Grant<Connection>, began: Instant) -> Result<Seat, ConnectError> {
        let connector = if grant.usage().writes() { &self.write } else { &self.read };
        loop {
            while let Some(connection) = grant.take().or_else(|| grant.another()) {
                if let Some(connection) = connector.reuse(connection) {
                    let retires_at = connection.established_at() + self.lifetimes.max_lifetime;
                    let (connection, connector) = (Some(connection), Arc::clone(connector));
                    return Ok(Seat { grant, connection, connector, retires_at, waited: clock::now() - began });
                }
            }
            if grant.given_up().is_some() {
                self.metrics.connection_discarded("given_up");
            }
            grant = self.open(grant, connector).await?;
        }
    }

    /// By a task of its own: a caller that leaves meanwhile leaves a connection to the next.
    async fn open(
        &self,
        mut grant: Grant<Connection>,
        connector: &Arc<Connector>,
    ) -> Result<Grant<Connection>, ConnectError> {
        let (opened, opening) = oneshot::channel();
        let connector = Arc::clone(connector);
        tokio::spawn(async move {
            let granted = connector.connect().await.map(|connection| {
                grant.keep(connection);
                grant
            });
            // Nobody may be left to take it: then it is idle.
            drop(opened.send(granted));
        });
        let ended =
            || ConnectError::Unreachable { host: self.target.address(), reason: "the attempt was ended".into() };
        opening.await.unwrap_or_else(|_| Err(ended()))
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
