//! Pools of connections, by (host, PostgreSQL database, purpose), kept by bb8. Fairness and the bound on waiting callers
//! are `admission`'s: its gates let in no more callers than a pool has connections.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bb8::{ManageConnection, PooledConnection, QueueStrategy};
use tokio::sync::{Notify, watch};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    connection::{Connection, Purpose},
    error::ConnectError,
    facts::Facts,
    pooled::Pooled,
    statements::{SchemaVersion, StatementLimits, Statements},
    target::Target,
};

/// What all connections to one host must agree on; written by the monitor, read at every check-out.
#[derive(Debug, Default)]
pub struct HostIdentity {
    epoch: AtomicU64,
    system_identifier: AtomicU64,
    contradiction: Notify,
}

impl HostIdentity {
    /// Changes whenever the host's role, timeline or server changes: connections made before are not handed out again.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Sets the epoch.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Sets the system identifier that every connection must show.
    pub fn set_system_identifier(&self, identifier: u64) {
        self.system_identifier.store(identifier, Ordering::Release);
    }

    /// A connection led to another server than the one that is probed.
    pub fn contradict(&self) {
        self.contradiction.notify_one();
    }

    /// Resolves once after each contradiction; one that nobody awaited yet is kept.
    pub async fn contradicted(&self) {
        self.contradiction.notified().await;
    }

    /// Whether a connection leads to the server that is meant, and that one is fit for the purpose.
    pub(super) fn check(&self, target: &Target, purpose: Purpose, facts: &Facts) -> Result<(), ConnectError> {
        let wrong = |reason: String| Err(ConnectError::WrongServer { host: target.address(), reason });
        if let Some(expected) = self.system_identifier()
            && facts.system_identifier != expected
        {
            return wrong(format!("system identifier {} instead of {expected}", facts.system_identifier));
        }
        if purpose == Purpose::Write && facts.in_recovery {
            return wrong("it is in recovery (a standby), and a primary is needed".into());
        }
        Ok(())
    }

    fn system_identifier(&self) -> Option<u64> {
        Some(self.system_identifier.load(Ordering::Acquire)).filter(|&identifier| identifier != 0)
    }
}

/// What a pool tells of its attempts to connect.
pub trait ConnectObserver: Send + Sync {
    /// A connection was made to the server that these facts describe.
    fn connected(&self, facts: &Facts);
    /// An attempt failed.
    fn failed(&self, error: &ConnectError);
    /// A connection that somebody used ended under way.
    fn lost(&self) {}
    /// A connection is closed instead of being handed out again.
    fn discarded(&self, _why: &'static str) {}
}

/// How large a pool is and how long its connections live.
#[derive(Debug, Clone)]
pub struct PoolLimits {
    /// Connections at most.
    pub size: u32,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// A connection is closed after this, when it comes back.
    pub max_lifetime: Duration,
    /// Prepared statements kept a connection.
    pub statements: StatementLimits,
    /// A transaction-pooling proxy may stand between: nothing outlasts a transaction, and nothing is kept prepared.
    pub pooled: bool,
}

/// Makes connections for bb8 and judges them; its `is_valid` does no I/O.
struct Connector {
    target: Arc<Target>,
    tls: MakeRustlsConnect,
    purpose: Purpose,
    statements: StatementLimits,
    pooled: bool,
    schema: Arc<SchemaVersion>,
    identity: Arc<HostIdentity>,
    observer: Arc<dyn ConnectObserver>,
    /// The count of failures with the last one: bb8 itself would let callers wait for the whole timeout.
    failures: watch::Sender<(u64, Option<ConnectError>)>,
    /// Nothing is opened, handed out or kept any more.
    closed: Arc<AtomicBool>,
}

/// Why bb8 dropped a connection at check-out; nobody is told, the pool just takes the next.
#[derive(Debug)]
enum Unfit {
    Stale,
    Connect,
}

impl ManageConnection for Connector {
    type Connection = Connection;
    type Error = Unfit;

    async fn connect(&self) -> Result<Connection, Unfit> {
        if self.closed.load(Ordering::Acquire) {
            return Err(self.fail(closed(&self.target)));
        }
        // Read before connecting: a role that changes meanwhile makes this connection stale, never the reverse.
        let epoch = self.identity.epoch();
        let statements = Statements::new(self.statements, Arc::clone(&self.schema));
        let pooled = self.pooled.then(|| Pooled::new(Arc::clone(&self.identity), self.purpose));
        let opened = Connection::open(&self.target, &self.tls, self.purpose, epoch, statements, pooled).await;
        match opened.and_then(|connection| self.accept(connection)) {
            Ok(connection) => {
                self.observer.connected(connection.facts());
                Ok(connection)
            }
            Err(error) => {
                self.observer.failed(&error);
                Err(self.fail(error))
            }
        }
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Unfit> {
        if self.closed.load(Ordering::Acquire) {
            self.observer.discarded("closed");
            return Err(Unfit::Stale);
        }
        if connection.is_fit(self.identity.epoch()) {
            return Ok(());
        }
        self.observer.discarded("stale");
        Err(Unfit::Stale)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        // One that nobody used may have been lost long ago, by a server that is back meanwhile.
        if connection.is_closed() && connection.is_in_use() {
            self.observer.lost();
        }
        if connection.is_soiled() {
            self.observer.discarded("dirty");
            return true;
        }
        let is_closed = self.closed.load(Ordering::Acquire);
        if is_closed {
            self.observer.discarded("closed");
        }
        is_closed
    }
}

impl Connector {
    fn fail(&self, error: ConnectError) -> Unfit {
        self.failures.send_modify(|failures| *failures = (failures.0 + 1, Some(error)));
        Unfit::Connect
    }

    fn accept(&self, connection: Connection) -> Result<Connection, ConnectError> {
        if !connection.is_pooled() {
            self.identity.check(&self.target, self.purpose, connection.facts())?;
        }
        Ok(connection)
    }
}

/// A pool of connections to one database of one host, for one purpose.
pub struct Pool {
    purpose: Purpose,
    limits: PoolLimits,
    connections: bb8::Pool<Connector>,
    failures: watch::Receiver<(u64, Option<ConnectError>)>,
    closed: Arc<AtomicBool>,
    target: Arc<Target>,
}

/// Told of by nobody: it says nothing of the host.
fn closed(target: &Target) -> ConnectError {
    ConnectError::Unreachable { host: target.address(), reason: "the configuration has changed".into(), refused: false }
}

/// A snapshot of a pool's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Open connections.
    pub size: u32,
    /// Those that nobody uses.
    pub idle: u32,
    /// Connections at most.
    pub limit: u32,
}

impl Pool {
    /// An empty pool; connections are made when they are asked for. Must be called inside a tokio runtime.
    pub fn new(
        target: Target,
        purpose: Purpose,
        limits: PoolLimits,
        identity: Arc<HostIdentity>,
        schema: Arc<SchemaVersion>,
        observer: Arc<dyn ConnectObserver>,
    ) -> Pool {
        let (failures, failures_seen) = watch::channel((0, None));
        let (closed, target) = (Arc::<AtomicBool>::default(), Arc::new(target));
        let connector = Connector {
            tls: target.tls_connector(),
            target: Arc::clone(&target),
            purpose,
            statements: limits.statements,
            pooled: limits.pooled,
            schema,
            identity,
            observer,
            failures,
            closed: Arc::clone(&closed),
        };
        let connections = bb8::Pool::builder()
            .max_size(limits.size)
            .min_idle(None)
            .test_on_check_out(true)
            .retry_connection(false)
            .queue_strategy(QueueStrategy::Lifo)
            .idle_timeout(Some(limits.idle_timeout))
            .max_lifetime(Some(limits.max_lifetime))
            // The gate lets in no more callers than connections, so `get` waits for a connect at most, and the
            // target's own timeout ends that one first.
            .connection_timeout(connector.target.connect_timeout + Duration::from_secs(1))
            .build_unchecked(connector);
        Pool { purpose, limits, connections, failures: failures_seen, closed, target }
    }

    /// Opens nothing any more: idle connections are closed now, those that are lent out when they come back.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let (connections, mut failures) = (self.connections.clone(), self.failures.clone());
        failures.mark_unchanged();
        // A check-out drops one idle connection after the other as unfit, and ends with a connect that is refused.
        tokio::spawn(async move {
            tokio::select! {
                _never = connections.get() => {}
                _ = failures.changed() => {}
            }
        });
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What the pool is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Takes a connection: an idle one, or a new one. Callers come through a gate that admits no more than there are
    /// connections, so this waits for a connect at most. Dropping the future is safe.
    pub async fn checkout(&self) -> Result<Lease, ConnectError> {
        if self.is_closed() {
            return Err(closed(&self.target));
        }
        let mut failures = self.failures.clone();
        failures.mark_unchanged();
        tokio::select! {
            // A failure must not win over a connection that is there.
            biased;
            got = self.connections.get_owned() => match got {
                Ok(mut connection) => {
                    connection.take_into_use();
                    Ok(Lease { connection })
                }
                Err(_) => Err(self.last_failure()),
            },
            _ = failures.changed() => Err(self.last_failure()),
        }
    }

    fn last_failure(&self) -> ConnectError {
        let failure = self.failures.borrow().1.clone();
        failure.unwrap_or_else(|| ConnectError::Unreachable {
            host: "the host".into(),
            reason: "no connection became available in time".into(),
            refused: false,
        })
    }

    /// Size, idle connections and queue length at this moment.
    pub fn state(&self) -> PoolState {
        let state = self.connections.state();
        PoolState { size: state.connections, idle: state.idle_connections, limit: self.limits.size }
    }
}

/// A connection for the time of one caller; goes back to its pool when dropped, unless it is soiled.
pub struct Lease {
    connection: PooledConnection<'static, Connector>,
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}
