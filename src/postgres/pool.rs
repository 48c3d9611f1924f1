//! Pools of connections, by (host, PostgreSQL database, purpose), kept by bb8: it has the idle ones, judges them at
//! check-out and return, and closes those that are too old. How many there may be, over all pools of a host, and who may
//! have one, is `admission`'s.

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bb8::{ManageConnection, PooledConnection, QueueStrategy};
use futures_util::FutureExt;
use tokio::{runtime::Handle, sync::Notify};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    connection::{Connection, Purpose},
    error::ConnectError,
    facts::Facts,
    pooled::Pooled,
    statements::{SchemaVersion, StatementLimits, Statements},
    target::Target,
};

/// Between two looks for connections that have been idle, or alive, for too long.
const REAP_EVERY_MIN: Duration = Duration::from_millis(500);
const REAP_EVERY_MAX: Duration = Duration::from_secs(30);

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

/// What is told of attempts to connect.
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

/// Makes connections.
pub struct Connector {
    target: Arc<Target>,
    tls: MakeRustlsConnect,
    purpose: Purpose,
    statements: StatementLimits,
    pooled: bool,
    schema: Arc<SchemaVersion>,
    identity: Arc<HostIdentity>,
    observer: Arc<dyn ConnectObserver>,
    /// Nothing is opened, handed out or kept any more.
    closed: AtomicBool,
}

impl Connector {
    /// For one database of one host. With `pooled`, a transaction-pooling proxy may stand between: nothing outlasts a
    /// transaction, and nothing is kept prepared.
    pub fn new(
        target: Target,
        purpose: Purpose,
        (statements, pooled): (StatementLimits, bool),
        identity: Arc<HostIdentity>,
        schema: Arc<SchemaVersion>,
        observer: Arc<dyn ConnectObserver>,
    ) -> Connector {
        let tls = target.tls_connector();
        let (target, closed) = (Arc::new(target), AtomicBool::new(false));
        Connector { tls, target, purpose, statements, pooled, schema, identity, observer, closed }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Told of by nobody: it says nothing of the host.
    fn check(&self) -> Result<(), ConnectError> {
        let (host, reason) = (self.target.address(), "the configuration has changed".into());
        if self.is_closed() { Err(ConnectError::Unreachable { host, reason, refused: false }) } else { Ok(()) }
    }

    /// Opens a connection: idle, until it is taken into use. Fails also when another server answers than the one that is
    /// meant, or one that is not fit.
    async fn connect(&self) -> Result<Connection, ConnectError> {
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
                Err(error)
            }
        }
    }

    fn accept(&self, connection: Connection) -> Result<Connection, ConnectError> {
        if !connection.is_pooled() {
            self.identity.check(&self.target, self.purpose, connection.facts())?;
        }
        Ok(connection)
    }
}

/// A connection as bb8 keeps it.
struct Held<T> {
    /// In a box: callers' futures carry it, and are moved.
    connection: Box<Connection>,
    is_given_up: bool,
    // Dropped last: what it stands for exists until then.
    _ticket: T,
}

/// Judges connections for bb8, without I/O.
struct Manager<T> {
    connector: Arc<Connector>,
    held: PhantomData<fn() -> T>,
}

/// Why bb8 has no connection; nobody is told, whoever asked opens one.
#[derive(Debug)]
enum Unfit {
    Stale,
    NoTicket,
}

impl<T: Send + 'static> ManageConnection for Manager<T> {
    type Connection = Held<T>;
    type Error = Unfit;

    /// bb8 would open one when all that it had is stale; but who asked opens it, and adds it, with a ticket of its own.
    async fn connect(&self) -> Result<Held<T>, Unfit> {
        Err(Unfit::NoTicket)
    }

    async fn is_valid(&self, held: &mut Held<T>) -> Result<(), Unfit> {
        if self.connector.is_closed() {
            self.connector.observer.discarded("closed");
            return Err(Unfit::Stale);
        }
        if held.connection.is_fit(self.connector.identity.epoch()) {
            return Ok(());
        }
        self.connector.observer.discarded("stale");
        Err(Unfit::Stale)
    }

    fn has_broken(&self, held: &mut Held<T>) -> bool {
        if held.is_given_up {
            self.connector.observer.discarded("given_up");
            return true;
        }
        // One that nobody used may have been lost long ago, by a server that is back meanwhile.
        if held.connection.is_closed() && held.connection.is_in_use() {
            self.connector.observer.lost();
        }
        let reasons = [
            (held.connection.is_soiled(), "dirty"),
            (self.connector.is_closed(), "closed"),
            (held.connection.is_bloated(), "bloated"),
        ];
        let reason = reasons.into_iter().find(|(applies, _)| *applies);
        reason.inspect(|(_, why)| self.connector.observer.discarded(why)).is_some()
    }
}

/// How long connections live.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// A connection is closed after this, when it is not in use.
    pub max_lifetime: Duration,
}

/// The connections to one database of one host for one purpose. Each owns a `T` for as long as it is open.
pub struct Pool<T: Send + 'static> {
    connections: bb8::Pool<Manager<T>>,
    connector: Arc<Connector>,
    /// Held from the look whether one is idle until it is taken: bb8 would open one for who finds none.
    door: Mutex<()>,
}

impl<T: Send + 'static> Pool<T> {
    /// An empty pool. Must be called inside a tokio runtime.
    pub fn new(connector: Connector, limits: PoolLimits) -> Pool<T> {
        let connector = Arc::new(connector);
        let reap_every = limits.idle_timeout.min(limits.max_lifetime) / 2;
        let connections = bb8::Pool::builder()
            // Whoever adds one has a ticket for it.
            .max_size(u32::MAX)
            .min_idle(None)
            .test_on_check_out(true)
            .retry_connection(false)
            .queue_strategy(QueueStrategy::Lifo)
            .idle_timeout(Some(limits.idle_timeout))
            .max_lifetime(Some(limits.max_lifetime))
            .reaper_rate(reap_every.clamp(REAP_EVERY_MIN, REAP_EVERY_MAX))
            .build_unchecked(Manager { connector: Arc::clone(&connector), held: PhantomData });
        Pool { connections, connector, door: Mutex::new(()) }
    }

    /// Takes an idle connection that is fit into use, if there is one. No I/O, no waiting.
    pub fn checkout(&self) -> Option<Lease<T>> {
        let _door = self.door();
        self.take()
    }

    /// Opens a connection, which owns `ticket` from then on, and takes it into use. None: what it was opened for has
    /// changed meanwhile.
    ///
    /// # Errors
    /// [`ConnectError`]; also when another server answers than the one that is meant, or one that is not fit, and when the
    /// pool was closed, before or meanwhile.
    pub async fn open(&self, ticket: T) -> Result<Option<Lease<T>>, ConnectError> {
        self.connector.check()?;
        let connection = self.connector.connect().await?;
        let _door = self.door();
        self.connector.check()?;
        let added =
            self.connections.add(Held { connection: Box::new(connection), is_given_up: false, _ticket: ticket });
        added.map_err(|_| ConnectError::Unreachable {
            host: self.connector.target.address(),
            reason: "it closed the connection at once".into(),
            refused: false,
        })?;
        Ok(self.take())
    }

    /// Opens nothing and hands out nothing from now on. Whoever closes it gives up what is idle; what is in use is closed
    /// when it comes back.
    pub fn close(&self) {
        self.connector.closed.store(true, Ordering::Release);
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.connector.is_closed()
    }

    /// Closes an idle connection. False: there is none.
    pub fn give_up(&self) -> bool {
        // Outside of a runtime all comes to its end, and bb8 cannot be asked.
        if Handle::try_current().is_err() {
            return false;
        }
        let _door = self.door();
        let has_idle = self.has_idle();
        if let Some(mut lease) = self.take() {
            lease.held.is_given_up = true;
        }
        has_idle
    }

    fn door(&self) -> MutexGuard<'_, ()> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_idle(&self) -> bool {
        self.connections.state().idle_connections > 0
    }

    fn take(&self) -> Option<Lease<T>> {
        // Ready at once, unless all were stale, or are being reaped.
        let got = self.has_idle().then(|| self.connections.get_owned().now_or_never());
        let mut held = got.flatten()?.ok()?;
        held.connection.take_into_use();
        Some(Lease { held })
    }
}

/// A connection for the time of one caller; goes back to its pool when dropped, unless it is soiled.
pub struct Lease<T: Send + 'static> {
    held: PooledConnection<'static, Manager<T>>,
}

impl<T: Send + 'static> Deref for Lease<T> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.held.connection
    }
}

impl<T: Send + 'static> DerefMut for Lease<T> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.held.connection
    }
}
