//! Transactions of a session: how they begin, and the open one, which rolls back when it is dropped.

use crate::{
    error::Error,
    proto::{self, Isolation, Receipt, session_request::Request},
    read::ReadOptions,
    session::{Session, SessionReadStream, read_request},
    value::Value,
    write::{Statement, StatementResult},
};

/// How a transaction is to begin.
#[derive(Clone, Debug, Default)]
pub struct Begin {
    isolation: Isolation,
    read_only: bool,
    deferrable: bool,
    options: Option<proto::ReadOptions>,
}

impl Begin {
    /// The database's default isolation, read and write.
    pub fn new() -> Self {
        Begin::default()
    }

    /// The isolation level.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// READ ONLY.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// READ ONLY, on a replica that satisfies these options; without, it runs on the primary. Of the options only how
    /// fresh it must be counts, checked at the begin.
    #[must_use]
    pub fn on_replica(mut self, options: &ReadOptions) -> Self {
        self.read_only = true;
        self.options = Some(proto::ReadOptions { max_message_bytes: 0, ..options.into() });
        self
    }

    /// DEFERRABLE: goes with SERIALIZABLE and READ ONLY only.
    #[must_use]
    pub fn deferrable(mut self) -> Self {
        self.deferrable = true;
        self
    }

    pub(crate) fn into_proto(self) -> proto::SessionBegin {
        proto::SessionBegin {
            isolation: self.isolation.into(),
            read_only: self.read_only,
            deferrable: self.deferrable,
            options: self.options,
            ..Default::default()
        }
    }
}

/// An open transaction. Dropped without [`Transaction::commit`], it is rolled back.
///
/// After a failed statement only a rollback helps, of all or to a savepoint, as in PostgreSQL: a commit is then an error.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) id: u64,
    pub(crate) open: bool,
    pub(crate) receipt: Option<Receipt>,
}

impl Transaction<'_> {
    /// Runs a read in the transaction, on the host where that is.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn read(
        &mut self,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
    ) -> Result<SessionReadStream<'_>, Error> {
        let options =
            proto::ReadOptions { max_message_bytes: self.session.raw.max_message_bytes(), ..Default::default() };
        let request = read_request(Statement::new(sql).bind_all(params), options);
        let timeout = self.session.timeout;
        SessionReadStream::open(self.session, self.id, timeout, request).await
    }

    /// Runs a write in the transaction.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn write(
        &mut self,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
    ) -> Result<StatementResult, Error> {
        Ok(self.session.write_in(self.id, Statement::new(sql).bind_all(params), String::new()).await?.0)
    }

    /// Where it runs, and why there.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// Sets a savepoint: a name of 1 to 63 bytes. The same name may be set again; the newest one counts.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn savepoint(&mut self, name: &str) -> Result<(), Error> {
        let savepoint = proto::SessionSavepoint { name: name.to_owned(), release: false };
        self.ask(Request::Savepoint(savepoint)).await
    }

    /// Releases a savepoint, and those set after it: what was done since is the transaction's own.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have; without such a savepoint the transaction has failed.
    pub async fn release(&mut self, name: &str) -> Result<(), Error> {
        let savepoint = proto::SessionSavepoint { name: name.to_owned(), release: true };
        self.ask(Request::Savepoint(savepoint)).await
    }

    /// Undoes what was done since a savepoint, which stays; a transaction that has failed since then goes on.
    ///
    /// # Errors
    /// As [`Self::release`]
    pub async fn rollback_to(&mut self, name: &str) -> Result<(), Error> {
        self.ask(Request::Rollback(proto::SessionRollback { to_savepoint: name.to_owned() })).await
    }

    async fn ask(&mut self, request: Request) -> Result<(), Error> {
        let id = self.session.raw.send(self.id, self.session.timeout, request)?;
        self.session.done(id).await.map(drop)
    }

    /// Commits.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have; [`Error::outcome`] says what became of the transaction.
    pub async fn commit(mut self) -> Result<(), Error> {
        let id = self.session.raw.send(self.id, self.session.timeout, Request::Commit(proto::SessionCommit {}))?;
        self.open = false;
        let committed = self.session.done(id).await;
        // A transaction that a failed commit leaves open is rolled back; if it is gone, this fails unnoticed.
        self.open = matches!(&committed, Err(Error::Failed(_)));
        committed.map(drop)
    }

    /// Rolls back, and waits for it.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let id = self.session.raw.send(self.id, self.session.timeout, rollback_request())?;
        self.open = false;
        self.session.done(id).await.map(drop)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            // Its answer is passed over by the next request. If it cannot be sent, the session has ended, or its next
            // request is refused: TRANSACTION_NOT_OPEN protects what follows.
            let _ = self.session.raw.send(self.id, self.session.timeout, rollback_request());
        }
    }
}

fn rollback_request() -> Request {
    Request::Rollback(proto::SessionRollback::default())
}
