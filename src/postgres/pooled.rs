//! A connection behind which a transaction-pooling proxy may stand (rule 21): only inside a transaction is it known which
//! server answers. So each transaction asks that first, keeps nothing prepared beyond its end, and needs no reset.

use std::{sync::Arc, time::Duration};

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::{
    connection::{Connection, Prepared, Purpose},
    error::{ConnectError, PgError, ServerError},
    exchange::Queued,
    facts::{FACTS, Facts},
    pool::HostIdentity,
    statements::{SchemaVersion, StatementLimits, Statements},
    target::Target,
    transaction::Begin,
};
use crate::{clock, model::Lsn};

/// Behind the facts: a proxy's name for a database may lead to another.
const DATABASE: &str = "pg_catalog.current_database()";

/// What others may have left on the server's side, undone for the length of the transaction. The catalogue's verdicts
/// are of this role and path.
const AS_LOGGED_IN: &str = "SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL search_path TO DEFAULT; ";

/// How long the end of a transaction may take before its connection is given up.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A name that somebody else has left prepared on the server's side; or what was prepared is not there any more.
const NAMES_IN_THE_WAY: [&str; 2] = ["42P05", "26000"];

/// What a connection needs to know when it may lead through a proxy.
pub(super) struct Pooled {
    identity: Arc<HostIdentity>,
    purpose: Purpose,
    /// Every statement of the present transaction has a part in it.
    lent: Arc<()>,
    /// The driver may hold names of statements that it would use again, or close outside of the transaction.
    has_leftovers: bool,
}

impl Pooled {
    pub(super) fn new(identity: Arc<HostIdentity>, purpose: Purpose) -> Pooled {
        Pooled { identity, purpose, lent: Arc::default(), has_leftovers: false }
    }

    fn leaves_something(&self, prepare_is_open: bool) -> bool {
        prepare_is_open || self.has_leftovers || Arc::strong_count(&self.lent) > 1
    }
}

impl ServerError {
    /// Whether a statement could not be prepared because of names on a server connection that strangers use too.
    pub fn is_of_a_name(&self) -> bool {
        NAMES_IN_THE_WAY.contains(&self.sqlstate.as_str())
    }
}

impl Connection {
    /// Whether a proxy may stand behind it: everything runs inside a transaction, and [`Connection::facts`] are those of
    /// the last one that began.
    pub fn is_pooled(&self) -> bool {
        self.pooled.is_some()
    }

    /// Begins a transaction, and asks in the same message which server it is on. The facts are asked for in a transaction
    /// of their own in front: what one of REPEATABLE READ sees would be older than the position that it reads.
    pub(super) async fn begin_pooled(&mut self, begin: &Begin) -> Result<(), PgError> {
        let local = self.session_settings.replace("SET ", "SET LOCAL ");
        let begin = begin.sql_after(&format!("{AS_LOGGED_IN}{local}"));
        let sql = format!("{}; {begin}", question());
        let asked_at = clock::now();
        let messages = self.client.simple_query(&sql).await.map_err(|error| self.not_begun(error.into()))?;
        let row = row_of_facts(&messages)?;
        self.facts = Facts::decode(row, asked_at)?;
        self.established_at = clock::now();
        let Some(pooled) = &self.pooled else { return Ok(()) };
        let checked = pooled.identity.check(&self.target, pooled.purpose, &self.facts);
        checked.map_err(|error| PgError::WrongServer(error.to_string()))?;
        match row.get(row.len().saturating_sub(1)) {
            Some(database) if database == self.target.dbname => Ok(()),
            other => {
                let reason = format!("database {:?} instead of {:?}", other.unwrap_or_default(), self.target.dbname);
                let host = self.target.address();
                Err(PgError::WrongServer(ConnectError::WrongServer { host, reason }.to_string()))
            }
        }
    }

    /// Why a transaction did not begin. A standby refuses READ WRITE before it could be recognised by what it says of itself.
    fn not_begun(&self, error: PgError) -> PgError {
        const NOT_IN_RECOVERY: &str = "0A000";
        let writes = self.pooled.as_ref().is_some_and(|pooled| pooled.purpose == Purpose::Write);
        if writes && error.sqlstate() == NOT_IN_RECOVERY {
            let (host, reason) = (self.target.address(), error.to_string());
            return PgError::WrongServer(ConnectError::WrongServer { host, reason }.to_string());
        }
        of_the_proxy(error)
    }

    /// Prepares a statement for this transaction alone: dropped, it is closed.
    pub(super) async fn prepare_pooled(&mut self, sql: &str) -> Result<Prepared, PgError> {
        self.prepare_is_open = true;
        let prepared = self.prepare_anew(sql).await;
        self.prepare_is_open = prepared.as_ref().is_err_and(|error| error.server().is_none());
        let Some(pooled) = &mut self.pooled else { return prepared };
        // A type that the driver had to look up: it keeps the statements that it did so with, for good.
        pooled.has_leftovers |= match &prepared {
            Ok(prepared) => !prepared.has_known_types(),
            // The server could not parse the text, so there is nothing; else it may have been a look-up that failed.
            Err(PgError::Server(error)) => !error.sqlstate.starts_with("42") || error.is_of_a_name(),
            Err(_) => true,
        };
        let mut prepared = prepared?;
        prepared._lent = Some(Arc::clone(&pooled.lent));
        Ok(prepared)
    }

    /// Gives up what is not to be waited for. A cancel reaches a server through a proxy only while its client is there;
    /// otherwise the connection stays in use, and so is closed when it goes back.
    pub async fn abandon(&mut self) {
        self.cancel();
        self.leave().await;
    }

    /// Ends the transaction, if the connection is pooled, in which nothing is to run after all.
    pub async fn leave(&mut self) {
        if self.is_pooled() {
            self.rollback_pooled().await;
        }
    }

    /// ROLLBACK, unless the transaction is over. Only a connection of which nothing is left on the server's side, for
    /// certain, is used again.
    pub(super) async fn rollback_pooled(&mut self) {
        let ending = async {
            // The cancel goes to whatever server connection is ours, and only until the transaction's end is one.
            let was_cancelled = self.is_cancelled();
            if was_cancelled && self.absorb_cancel().await.is_err() {
                return false;
            }
            let leftovers = self.leaves_something();
            // One message, so that both reach the same server connection.
            let sql = if leftovers { "ROLLBACK; DEALLOCATE ALL" } else { "ROLLBACK" };
            self.client.batch_execute(sql).await.is_ok() && !leftovers && !was_cancelled
        };
        if tokio::time::timeout(END_LIMIT, ending).await == Ok(true) {
            self.settled();
        }
    }

    /// Whether statements may be left on the server's side that no drop closes in time.
    fn leaves_something(&self) -> bool {
        self.pooled.as_ref().is_some_and(|pooled| pooled.leaves_something(self.prepare_is_open))
    }

    /// What stands before a COMMIT.
    pub(super) fn before_commit(&self) -> &'static str {
        // Fails in a transaction that has failed, as the COMMIT would not.
        if self.leaves_something() { "DEALLOCATE ALL; " } else { "" }
    }

    /// In place of the reset behind a commit: what there is to say is known.
    pub(super) fn queue_no_reset(&self) -> Queued<Result<bool, PgError>> {
        let clean = !self.leaves_something();
        Queued::new(std::future::ready(Ok(clean)))
    }

    /// The insert position, with the proof that it is of the server that the transaction was on: behind a COMMIT a proxy
    /// may give the question to another.
    pub(super) fn queue_position_pooled(&self) -> Queued<Result<Lsn, PgError>> {
        let (client, on) = (Arc::clone(&self.client), self.facts.clone());
        Queued::new(async move {
            let facts = ask(&client).await?;
            let same = facts.system_identifier == on.system_identifier
                && facts.started_us == on.started_us
                && facts.timeline.is_some()
                && facts.timeline == on.timeline;
            let other = || PgError::Protocol("the position behind the commit is another server's".into());
            facts.lsn.filter(|_| same).ok_or_else(other)
        })
    }
}

/// Which server this is, asked as whom the connection was made for, whatever strangers have left on the server's side.
fn question() -> String {
    format!("BEGIN READ ONLY; {AS_LOGGED_IN}{FACTS}, {DATABASE}; ROLLBACK")
}

fn row_of_facts(messages: &[SimpleQueryMessage]) -> Result<&SimpleQueryRow, PgError> {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.ok_or_else(|| PgError::Protocol("no row of facts".into()))
}

/// Asks which server some transaction gets to.
async fn ask(client: &Client) -> Result<Facts, PgError> {
    let asked_at = clock::now();
    Facts::decode(row_of_facts(&client.simple_query(&question()).await?)?, asked_at)
}

/// What a proxy says when it has no server connection, or has lost one: as if the connection were lost.
fn of_the_proxy(error: PgError) -> PgError {
    match error {
        PgError::Server(error) if error.ends_connection() && error.sqlstate.starts_with("08") => {
            PgError::Lost(error.message)
        }
        error => error,
    }
}

/// Connects as calls will, through a proxy if there is one, and asks which server a transaction there is on.
///
/// # Errors
/// [`ConnectError`]
pub async fn server_behind(target: &Target) -> Result<Facts, ConnectError> {
    let (target, identity) = (Arc::new(target.clone()), Arc::new(HostIdentity::default()));
    let limits = StatementLimits { size: std::num::NonZeroUsize::MIN, max_age: Duration::ZERO };
    let statements = Statements::new(limits, Arc::new(SchemaVersion::default()));
    let pooled = Some(Pooled::new(identity, Purpose::Read));
    let tls = target.tls_connector();
    let mut connection = Connection::open(&target, &tls, Purpose::Read, 0, statements, pooled).await?;
    let begun = tokio::time::timeout(target.connect_timeout, connection.begin_pooled(&Begin::default())).await;
    match begun {
        Ok(Ok(())) => {
            connection.rollback_pooled().await;
            Ok(connection.facts().clone())
        }
        Ok(Err(error)) => Err(ConnectError::from_exchange(&target.address(), error)),
        Err(_) => Err(ConnectError::TimedOut { host: target.address(), limit: target.connect_timeout }),
    }
}

impl Prepared {
    /// Whether the driver knew all of its types without asking.
    fn has_known_types(&self) -> bool {
        let columns = self.statement.columns().iter().map(|column| column.type_());
        self.statement.params().iter().chain(columns).all(|type_| postgres_types::Type::from_oid(type_.oid()).is_some())
    }
}
