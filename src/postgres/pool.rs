//! Makes the connections to one database of one host for one purpose, and says which may be handed out again. How many
//! there are, who has them, and which are given up is `admission`'s.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;
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

/// What is told of attempts to connect.
pub trait ConnectObserver: Send + Sync {
    /// A connection was made to the server that these facts describe.
    fn connected(&self, facts: &Facts);
    /// An attempt failed.
    fn failed(&self, error: &ConnectError);
    /// A connection is closed instead of being handed out again.
    fn discarded(&self, _why: &'static str) {}
}

/// Makes connections and judges them; only making one does I/O.
pub struct Connector {
    target: Arc<Target>,
    tls: MakeRustlsConnect,
    purpose: Purpose,
    statements: StatementLimits,
    pooled: bool,
    schema: Arc<SchemaVersion>,
    identity: Arc<HostIdentity>,
    observer: Arc<dyn ConnectObserver>,
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
        Connector { tls, target: Arc::new(target), purpose, statements, pooled, schema, identity, observer }
    }

    /// Opens a connection: idle, until it is taken into use.
    ///
    /// # Errors
    /// [`ConnectError`]; also when another server answers than the one that is meant, or one that is not fit.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
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

    /// Takes an idle connection into use. None: it is not fit any more, and was closed.
    pub fn reuse(&self, mut connection: Connection) -> Option<Connection> {
        if connection.is_fit(self.identity.epoch()) {
            connection.take_into_use();
            return Some(connection);
        }
        self.observer.discarded("stale");
        None
    }

    /// Whether a connection may be kept for the next caller; if not, it is to be closed.
    pub fn keeps(&self, connection: &Connection) -> bool {
        let is_soiled = connection.is_soiled();
        if is_soiled {
            self.observer.discarded("dirty");
        }
        !is_soiled
    }

    fn accept(&self, connection: Connection) -> Result<Connection, ConnectError> {
        if !connection.is_pooled() {
            self.identity.check(&self.target, self.purpose, connection.facts())?;
        }
        Ok(connection)
    }
}
