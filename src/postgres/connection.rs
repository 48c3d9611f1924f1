//! One PostgreSQL connection: how it is set up, what it knows of its server, and how it is judged fit for the next
//! caller. What runs on it is in `exchange`.

use std::{sync::Arc, time::Instant};

use postgres_types::Type;
use tokio_postgres::{Client, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    cancel::Cancelling,
    error::{ConnectError, PgError},
    facts::Facts,
    notices::{Listener, Notices},
    open::{self, DriverGuard, Opened},
    pooled::Pooled,
    statements::Statements,
    target::{Peer, Target},
    types::{Completed, Types},
    wire::WireState,
};
use crate::{
    clock,
    model::Lsn,
    sql::{self, SchemaChange},
};

const INSERT_POSITION: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()";

/// A database in SQL_ASCII holds any bytes as text. Asked for UTF-8 it fails a whole result for one byte, without saying
/// where; asked for what it has it sends the bytes, and the codec names the column.
const SQL_ASCII_SETTINGS: &str = "SET client_encoding = 'SQL_ASCII'; ";

/// What a connection is for; decides its start-up options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reads, on any host: starts with `default_transaction_read_only=on`, which survives RESET ALL and a promotion.
    Read,
    /// Writes, on a primary only.
    Write,
}

impl Purpose {
    /// `read` or `write`, for metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Read => "read",
            Purpose::Write => "write",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Purpose::Read => "-c default_transaction_read_only=on",
            Purpose::Write => "",
        }
    }
}

/// A statement prepared on one connection.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) statement: Statement,
    completed: Option<Arc<Completed>>,
    pub(super) change: SchemaChange,
    prepared_at: Instant,
    reused: bool,
    /// Held by the transaction that it was prepared in, when it must not outlive that.
    pub(super) _lent: Option<Arc<()>>,
}

impl Prepared {
    /// The types of `$1`, `$2`, … as the server inferred them.
    pub fn params(&self) -> &[Type] {
        self.completed.as_ref().map_or_else(|| self.statement.params(), |completed| &completed.params)
    }

    /// Name, type and type modifier of every result column; empty when the statement returns no rows.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, &Type, i32)> {
        let type_of = |at: usize| self.completed.as_ref().and_then(|completed| completed.columns.get(at));
        let columns = self.statement.columns().iter().enumerate();
        columns.map(move |(at, column)| {
            (column.name(), type_of(at).unwrap_or_else(|| column.type_()), column.type_modifier())
        })
    }

    /// True when it was prepared for an earlier use: what it refers to may have changed since.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// When it was.
    pub fn prepared_at(&self) -> Instant {
        self.prepared_at
    }

    /// The same for another use.
    pub(super) fn again(&self) -> Prepared {
        Prepared { reused: true, ..self.clone() }
    }

    /// True when the statement returns rows.
    pub fn returns_rows(&self) -> bool {
        !self.statement.columns().is_empty()
    }
}

/// Whether the next caller may have a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hygiene {
    /// Reset since its last use.
    Clean,
    /// Somebody runs on it, or left without settling it: never to be handed out.
    InUse,
}

/// What it rests on whether a connection sees what it must.
#[derive(Debug, Clone, Copy)]
pub struct Vantage<'a> {
    /// What the server said when the connection was made.
    pub facts: &'a Facts,
    /// When that was.
    pub established_at: Instant,
}

impl Vantage<'_> {
    /// True when a cached position proves that this connection sees `required` (rule 5): the server behind it is the
    /// measured one, and either it had replayed that far when it connected, or the probe was sent after it was up.
    pub fn sees(&self, required: Lsn, incarnation: u64, probe_sent_at: Option<Instant>) -> bool {
        self.facts.started_us == incarnation
            && (self.facts.lsn.is_some_and(|lsn| lsn >= required)
                || probe_sent_at.is_some_and(|sent_at| sent_at > self.established_at))
    }
}

/// A connection with what is known about it. Dropping it closes the socket at once.
pub struct Connection {
    pub(super) client: Arc<Client>,
    _driver: DriverGuard,
    pub(super) wire: Arc<WireState>,
    pub(super) target: Arc<Target>,
    peer: Peer,
    listener: Listener,
    tls: MakeRustlsConnect,
    pub(super) facts: Facts,
    pub(super) established_at: Instant,
    epoch: u64,
    /// A proxy may stand behind it.
    pub(super) pooled: Option<Pooled>,
    pub(super) statements: Statements,
    types: Types,
    /// What follows RESET ALL, to make a session of this database as it should be.
    pub(super) session_settings: &'static str,
    pub(super) insert_position: Option<Statement>,
    hygiene: Hygiene,
    /// When it was as new for the last time.
    reset_at: Instant,
    /// From the moment when a cancel is asked for until it is absorbed.
    cancelling: Option<Cancelling>,
    cancel_is_uncertain: bool,
    /// A prepare that was not awaited to its end may leave a statement behind on the server.
    pub(super) prepare_is_open: bool,
}

impl Connection {
    /// Connects, logs in and asks for the facts, within the target's `connect_timeout`.
    pub(super) async fn open(
        target: &Arc<Target>,
        tls: &MakeRustlsConnect,
        purpose: Purpose,
        epoch: u64,
        statements: Statements,
        pooled: Option<Pooled>,
    ) -> Result<Connection, ConnectError> {
        let limit = target.connect_timeout;
        let opening = Self::open_unbounded(target, tls, purpose, epoch, statements, pooled);
        match tokio::time::timeout(limit, opening).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { host: target.address(), limit }),
        }
    }

    async fn open_unbounded(
        target: &Arc<Target>,
        tls: &MakeRustlsConnect,
        purpose: Purpose,
        epoch: u64,
        statements: Statements,
        pooled: Option<Pooled>,
    ) -> Result<Connection, ConnectError> {
        let refused = |error: PgError| ConnectError::from_exchange(&target.address(), error);
        let Opened { client, driver, peer, wire, is_sql_ascii, listener } =
            // A proxy takes no start-up options, and would keep them for whoever it likes.
            open::open(target, tls, if pooled.is_some() { "" } else { purpose.options() }).await?;
        let client = Arc::new(client);
        let established_at = clock::now();
        // Behind a proxy the answer would be worth nothing, and wait for a server connection.
        let facts = if pooled.is_some() { Ok(Facts::unasked()) } else { Facts::ask(&client).await };
        let facts = facts.map_err(refused)?;
        let mut opened = Connection {
            client,
            _driver: driver,
            wire,
            target: Arc::clone(target),
            peer,
            listener,
            tls: tls.clone(),
            facts,
            established_at,
            epoch,
            pooled,
            statements,
            types: Types::default(),
            session_settings: if is_sql_ascii { SQL_ASCII_SETTINGS } else { "" },
            insert_position: None,
            hygiene: Hygiene::Clean,
            reset_at: established_at,
            cancelling: None,
            cancel_is_uncertain: false,
            prepare_is_open: false,
        };
        if opened.is_pooled() {
            // What is set or prepared outside of a transaction would be some server connection's.
            return Ok(opened);
        }
        if is_sql_ascii {
            let settings = opened.client.batch_execute(SQL_ASCII_SETTINGS);
            settings.await.map_err(|error| refused(error.into()))?;
        }
        if purpose == Purpose::Write {
            let statement = opened.client.prepare(INSERT_POSITION).await.map_err(|error| refused(error.into()))?;
            opened.insert_position = Some(statement);
        }
        Ok(opened)
    }

    /// What the server said when the connection was made, or, if that is pooled, when its last transaction began: nothing
    /// before the first.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the server says from now on without being asked, for as long as that is kept.
    pub fn notices(&mut self) -> Notices {
        self.listener.listen()
    }

    /// The epoch of its host's role for which it was made.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it can be proved to see.
    pub fn vantage(&self) -> Vantage<'_> {
        Vantage { facts: &self.facts, established_at: self.established_at }
    }

    /// True when the connection can be given to a caller: open, reset, and made for the host's present role. No I/O.
    pub fn is_fit(&self, epoch: u64) -> bool {
        self.hygiene == Hygiene::Clean && !self.client.is_closed() && self.epoch == epoch
    }

    /// When it was reset last, or made.
    pub fn reset_at(&self) -> Instant {
        self.reset_at
    }

    /// Everything that ran is known to have ended, and a reset behind it found it clean.
    pub(super) fn was_reset(&mut self) {
        self.reset_at = clock::now();
        self.settled();
    }

    /// When it was made.
    pub fn established_at(&self) -> Instant {
        self.established_at
    }

    /// True when nothing can be sent on it any more.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// True when it must not go back to the pool.
    pub fn is_soiled(&self) -> bool {
        self.hygiene != Hygiene::Clean || self.client.is_closed()
    }

    /// True when a message that it received was so large that what was allocated for it should not be kept.
    pub(super) fn is_bloated(&self) -> bool {
        self.wire.has_bloated()
    }

    /// Whether a caller has had it since it was settled last.
    pub(super) fn is_in_use(&self) -> bool {
        self.hygiene == Hygiene::InUse
    }

    /// From check-out on a connection counts as soiled until it is settled: a caller that vanishes leaves it unusable.
    pub(super) fn take_into_use(&mut self) {
        self.hygiene = Hygiene::InUse;
    }

    /// Gives a connection back on which nothing but [`Connection::prepare`] ran, to its end: it may be handed out again.
    /// One that is pooled has a transaction to be rolled back instead.
    pub fn release_unused(&mut self) {
        if !self.is_pooled() {
            self.settled();
        }
    }

    /// Everything that ran is known to have ended and to have left nothing behind.
    pub(super) fn settled(&mut self) {
        if !self.cancel_is_uncertain && !self.prepare_is_open {
            self.hygiene = Hygiene::Clean;
        }
    }

    /// Prepares a statement, or finds it in this connection's cache (no round trip).
    pub async fn prepare(&mut self, sql: &str) -> Result<Prepared, PgError> {
        if self.is_pooled() {
            return self.prepare_pooled(sql).await;
        }
        if let Some(prepared) = self.statements.get(sql, clock::now()) {
            return Ok(prepared);
        }
        let versions = self.statements.versions();
        let was_open = std::mem::replace(&mut self.prepare_is_open, true);
        let prepared = self.prepare_anew(sql).await;
        // What failed or was dropped on its way, now or before, may have left a statement that nobody would ever close.
        self.prepare_is_open = was_open || prepared.as_ref().is_err_and(|error| error.server().is_none());
        let prepared = prepared?;
        self.statements.put(sql, prepared.clone(), clock::now(), versions);
        Ok(prepared)
    }

    pub(super) async fn prepare_anew(&mut self, sql: &str) -> Result<Prepared, PgError> {
        // Before the server looks at the schema.
        let prepared_at = clock::now();
        let statement = self.client.prepare(sql).await?;
        let completed = self.types.complete(&self.client, &statement).await?;
        Ok(Prepared { statement, completed, change: sql::schema_change(sql), prepared_at, reused: false, _lent: None })
    }

    /// How many statements the server must hold for this connection at least.
    pub(super) fn prepared_count(&self) -> usize {
        self.statements.len() + usize::from(self.insert_position.is_some())
    }

    /// Has a statement prepared anew by its next use.
    pub fn expire(&mut self, sql: &str) {
        self.statements.forget(sql);
    }

    /// Forgets a prepared statement, and the types that it may have been prepared for, so that the next use prepares it
    /// again: a composite type may have other fields by now.
    pub fn forget(&mut self, sql: &str) {
        self.statements.forget(sql);
        self.client.clear_type_cache();
        self.types = Types::default();
    }

    /// Cancels what runs on this connection, again and again in the background until all of it has ended: a cancel that
    /// arrives before its statement does is lost. Goes on for a while when the connection is dropped meanwhile. Before
    /// anything else runs on it, the delivery is awaited (rule 15).
    pub fn cancel(&mut self) {
        let start = || {
            let token = self.client.cancel_token();
            Cancelling::start(token, Arc::clone(&self.target), self.tls.clone(), self.peer.clone())
        };
        self.cancelling.get_or_insert_with(start);
    }

    /// Whether a cancel was asked for, and not absorbed yet.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelling.is_some()
    }

    /// Stops cancelling and waits until the server has acted. False when that is not certain: then a signal may still
    /// come, and hit whatever runs.
    pub(super) async fn cancel_delivered(&mut self) -> bool {
        if let Some(cancelling) = self.cancelling.take() {
            // Uncertain for good if this is not awaited to its end.
            let before = std::mem::replace(&mut self.cancel_is_uncertain, true);
            self.cancel_is_uncertain = before || !cancelling.finish().await;
        }
        !self.cancel_is_uncertain
    }
}
