//! The session for people: one request at a time, each awaited; transactions that roll back when they are dropped.

use std::time::Duration;

use crate::{
    error::Error,
    proto::{
        self, Column, Isolation, Receipt, SessionNotice, SessionOpened, SessionResponse, session_request::Request,
        session_response::Response,
    },
    read::ReadOptions,
    rows::{Assembly, Batch, Rows},
    session_raw::RawSession,
    value::Value,
    write::{Statement, StatementResult},
};

/// How much longer than a request's time limit its answer is awaited: the broker's own account of a timeout is worth it.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// An interactive session; from [`crate::Client::session`]. Dropping it ends it; the broker rolls back what is open.
#[derive(Debug)]
pub struct Session {
    raw: RawSession,
    timeout: Option<Duration>,
}

/// How a transaction is to begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin {
    isolation: Isolation,
    read_only: bool,
    deferrable: bool,
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

    /// DEFERRABLE: of use with SERIALIZABLE and READ ONLY.
    #[must_use]
    pub fn deferrable(mut self) -> Self {
        self.deferrable = true;
        self
    }
}

impl Session {
    pub(crate) fn new(raw: RawSession, timeout: Option<Duration>) -> Self {
        Session { raw, timeout }
    }

    /// The session's limits.
    pub fn opened(&self) -> &SessionOpened {
        self.raw.opened()
    }

    /// The oldest notice that arrived so far.
    pub fn take_notice(&mut self) -> Option<SessionNotice> {
        self.raw.take_notice()
    }

    /// Runs a read outside of a transaction, routed by its options. Its `operation` is not used in a session.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn read(
        &mut self,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
        options: ReadOptions,
    ) -> Result<SessionReadStream<'_>, Error> {
        let options = options.or(self.timeout, self.raw.max_message_bytes());
        let timeout = options.timeout;
        let statement = Statement::new(sql).bind_all(params);
        SessionReadStream::open(self, 0, timeout, read_request(statement, options.to_proto())).await
    }

    /// Runs a write, as a transaction of its own.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn write(
        &mut self,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
    ) -> Result<StatementResult, Error> {
        Ok(self.write_in(0, Statement::new(sql).bind_all(params), String::new()).await?.0)
    }

    /// The same, with an idempotency key: as in [`crate::WriteOptions::idempotency_key`]. Whether the result is that of an
    /// earlier write with the key is said beside it.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn write_once(
        &mut self,
        idempotency_key: impl Into<String>,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
    ) -> Result<(StatementResult, bool), Error> {
        self.write_in(0, Statement::new(sql).bind_all(params), idempotency_key.into()).await
    }

    /// Begins a transaction on the primary. Dropped without a commit, it is rolled back.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn begin(&mut self, begin: Begin) -> Result<Transaction<'_>, Error> {
        let request = proto::SessionBegin {
            isolation: begin.isolation.into(),
            read_only: begin.read_only,
            deferrable: begin.deferrable,
            ..Default::default()
        };
        let id = self.raw.send(0, self.timeout, Request::Begin(request))?;
        let mut transaction = Transaction { session: self, id, open: true }; // dropped while waiting: rolled back
        if let Err(error) = transaction.session.done(id).await {
            transaction.open = false;
            return Err(error);
        }
        Ok(transaction)
    }

    /// Ends the session and waits until the broker has ended it too.
    ///
    /// # Errors
    /// What ends a stream other than OK.
    pub async fn close(self) -> Result<(), Error> {
        self.raw.close().await
    }

    /// The session without help. Answers to requests that were given up may still arrive.
    pub fn into_raw(self) -> RawSession {
        self.raw
    }

    async fn write_in(
        &mut self,
        transaction: u64,
        statement: Statement,
        idempotency_key: String,
    ) -> Result<(StatementResult, bool), Error> {
        let write = proto::SessionWrite { statement: Some(statement.into_proto()), idempotency_key };
        let id = self.raw.send(transaction, self.timeout, Request::Write(write))?;
        let answer = self.answer(id, self.timeout).await?;
        match answer.response {
            Some(Response::Write(result)) => Ok((StatementResult::from_proto(result)?, answer.replayed)),
            other => Err(unexpected(other)),
        }
    }

    async fn done(&mut self, id: u64) -> Result<(), Error> {
        match self.answer(id, self.timeout).await?.response {
            Some(Response::Done(_)) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// The next answer to this request; answers to earlier ones, which were given up, are passed over.
    async fn answer(&mut self, id: u64, timeout: Option<Duration>) -> Result<SessionResponse, Error> {
        let raw = &mut self.raw;
        let answer = async {
            loop {
                let response = raw.receive().await?;
                if response.request_id == id {
                    return Ok(response);
                }
                if response.request_id > id {
                    return Err(Error::Protocol("an answer to a request that was not made"));
                }
            }
        };
        match timeout {
            Some(timeout) => {
                tokio::time::timeout(timeout.saturating_add(ANSWER_GRACE), answer).await.map_err(|_| Error::TimedOut)?
            }
            None => answer.await,
        }
    }
}

fn read_request(statement: Statement, options: proto::ReadOptions) -> Request {
    Request::Read(proto::SessionRead { statement: Some(statement.into_proto()), options: Some(options) })
}

fn unexpected(response: Option<Response>) -> Error {
    match response {
        Some(Response::Failure(failure)) => failure.into(),
        _ => Error::Protocol("an answer of another kind than its request"),
    }
}

/// An open transaction. Dropped without [`Transaction::commit`], it is rolled back.
///
/// After a failed statement only a rollback helps, as in PostgreSQL: a commit is then an error.
#[derive(Debug)]
pub struct Transaction<'a> {
    session: &'a mut Session,
    id: u64,
    open: bool,
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
        committed
    }

    /// Rolls back, and waits for it.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let id = self.session.raw.send(self.id, self.session.timeout, rollback_request())?;
        self.open = false;
        self.session.done(id).await
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

/// The rows of a read in a session, as they arrive. While it lives, the session waits; dropped early, the rest of the
/// rows is received and thrown away before the next request's answer.
#[derive(Debug)]
pub struct SessionReadStream<'a> {
    session: &'a mut Session,
    id: u64,
    timeout: Option<Duration>,
    assembly: Assembly,
    first: Option<Batch>,
    receipt: Option<Receipt>,
}

impl<'a> SessionReadStream<'a> {
    async fn open(
        session: &'a mut Session,
        transaction: u64,
        timeout: Option<Duration>,
        request: Request,
    ) -> Result<Self, Error> {
        let id = session.raw.send(transaction, timeout, request)?;
        let mut read =
            SessionReadStream { session, id, timeout, assembly: Assembly::Start, first: None, receipt: None };
        read.first = read.advance().await?;
        Ok(read)
    }

    /// The result's columns.
    pub fn columns(&self) -> &[Column] {
        self.assembly.columns()
    }

    /// Where the read runs, and why there.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref().or(self.assembly.receipt())
    }

    /// The next rows; `None` after the last ones.
    ///
    /// # Errors
    /// [`Error::Cut`] if the result ended early; any [`Error`] that a call can have.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        if let Some(batch) = self.first.take() {
            return Ok(Some(batch));
        }
        while self.assembly.position().is_none() {
            if let Some(batch) = self.advance().await? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// All rows, in memory.
    ///
    /// # Errors
    /// As [`Self::next`]
    pub async fn rows(mut self) -> Result<Rows, Error> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        self.assembly.finish(batches)
    }

    async fn advance(&mut self) -> Result<Option<Batch>, Error> {
        let response = self.session.answer(self.id, self.timeout).await?;
        let last = response.last;
        self.receipt = self.receipt.take().or(response.receipt);
        let batch = match response.response {
            Some(Response::Read(read)) => self.assembly.accept(read)?,
            other => return Err(unexpected(other)),
        };
        if last && self.assembly.position().is_none() {
            return Err(Error::Cut);
        }
        Ok(batch)
    }
}
